/* Bodies of prefill/decode legs: the edits to the byte, random bodies against jansson, and what a prefill's answer
 * hands over. */
#include "common.h"
#include <jansson.h>
#include "base/rng.h"

#define REMOTE                                                                                                         \
    "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,\"remote_block_ids\":null,"      \
    "\"remote_host\":null,\"remote_port\":null}"
#define PREFILL           "\"stream\":false,\"max_tokens\":1,\"kv_transfer_params\":" REMOTE
#define PREFILL_RESPONSES "\"stream\":false,\"max_tokens\":1,\"max_output_tokens\":1,\"kv_transfer_params\":" REMOTE
#define PARAMS            "{ \"do_remote_prefill\":true, \"remote_block_ids\":[[3,4]],\"x\":9223372036854775807}"

static const uint64_t rooms[] = {4611686018427387904u, 9223372036854775807u, 0, 17, 5123456789012345u};

static struct api_change change_of(enum api_leg leg, const char *model)
{
    return (struct api_change){.leg = leg,
                               .model = model ? str_c(model) : STR_NULL,
                               .bootstrap_host = STR("10.0.0.5"),
                               .bootstrap_port = 8998,
                               .rooms = rooms,
                               .kv_transfer_params = STR(PARAMS)};
}

/* The pieces, joined; every one of them lies in the body, in its order, or in the text. */
static uint32_t join(struct buf *out, struct str body, struct str *pieces, uint32_t n, const struct buf *new_text)
{
    struct str text = buf_str(new_text);
    const char *at = body.p;
    buf_clear(out);
    assert_in_range(n, 0, API_PIECES);
    for (uint32_t i = 0; i < n; i++) {
        bool ours = pieces[i].p >= text.p && pieces[i].p + pieces[i].n <= text.p + text.n;
        if (!ours) {
            assert_true(pieces[i].p >= at && pieces[i].p + pieces[i].n <= body.p + body.n);
            at = pieces[i].p + pieces[i].n;
        }
        assert_true(pieces[i].n > 0 || body.n == 0);
        assert_true(buf_add_str(out, pieces[i]));
    }
    return n;
}

struct edit_case {
    enum api_kind kind;
    enum api_leg leg;
    const char *model;
    const char *body, *want; /* want NULL: cannot be done */
};
static const struct edit_case edit_cases[] = {
    /* nothing to do, or only the name */
    {API_CHAT, API_LEG_NONE, NULL, "{\"stream\":true}", "{\"stream\":true}"},
    {API_CHAT, API_LEG_NONE, "b\"", " {\"stream\" :true,\"model\":\"a\"} ", " {\"stream\" :true,\"model\":\"b\\\"\"} "},
    {API_CHAT, API_LEG_NONE, "b", "{\"x\":1}", "{\"x\":1}"},
    {API_CHAT, API_LEG_NONE, "", "{\"model\":\"a\"}", "{\"model\":\"\"}"},
    {API_OTHER, API_LEG_NONE, "b", "not json", "not json"},
    {API_OTHER, API_LEG_NONE, "b", "", ""},
    {API_OTHER, API_LEG_BOOTSTRAP, NULL, "not json", NULL},
    {API_OTHER, API_LEG_NIXL_DECODE, NULL, "[1]", NULL},
    {API_CHAT, API_LEG_BOOTSTRAP, NULL, "{\"bootstrap_room\":1}", NULL},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"kv_transfer_params\":null}", NULL},
    /* bootstrap */
    {API_CHAT, API_LEG_BOOTSTRAP, NULL, "{}",
     "{\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":4611686018427387904}"},
    {API_CHAT, API_LEG_BOOTSTRAP, NULL, " { } ",
     " { \"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":4611686018427387904} "},
    {API_CHAT, API_LEG_BOOTSTRAP, "other",
     "{\"model\":\"a\",\"messages\":[],\"stream\":true, \"seed\":9223372036854775807 }\n",
     "{\"model\":\"other\",\"messages\":[],\"stream\":true, \"seed\":9223372036854775807 "
     ",\"bootstrap_host\":\"10.0.0.5\","
     "\"bootstrap_port\":8998,\"bootstrap_room\":4611686018427387904}\n"},
    {API_CHAT, API_LEG_BOOTSTRAP, NULL, "{\"n\":2}",
     "{\"n\":2,\"bootstrap_host\":[\"10.0.0.5\",\"10.0.0.5\"],\"bootstrap_port\":[8998,8998],\"bootstrap_room\":["
     "4611686018427387904,9223372036854775807]}"},
    {API_GENERATE, API_LEG_BOOTSTRAP, NULL, "{\"text\":[\"a\"]}",
     "{\"text\":[\"a\"],\"bootstrap_host\":[\"10.0.0.5\"],\"bootstrap_port\":[8998],\"bootstrap_room\":["
     "4611686018427387904]}"},
    {API_COMPLETIONS, API_LEG_BOOTSTRAP, NULL, "{\"prompt\":[[1],[2],[3]]}",
     "{\"prompt\":[[1],[2],[3]],\"bootstrap_host\":[\"10.0.0.5\",\"10.0.0.5\",\"10.0.0.5\"],\"bootstrap_port\":[8998,"
     "8998,"
     "8998],\"bootstrap_room\":[4611686018427387904,9223372036854775807,0]}"},
    {API_GENERATE, API_LEG_BOOTSTRAP, "b", "{\"lora_path\":\"a\",\"text\":\"t\"}",
     "{\"lora_path\":\"b\",\"text\":\"t\",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":"
     "4611686018427387904}"},
    /* prefill */
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{}", "{" PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"x\":1}", "{\"x\":1," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"stream\":true}", "{" PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{ \"stream\" : true , \"max_tokens\" : 5 }", "{   " PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"stream\":true,\"x\":1,\"max_tokens\":5}", "{\"x\":1," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"x\":1,\"stream\":true,\"max_tokens\":5}", "{\"x\":1," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"stream\":true,\"max_tokens\":5,\"x\":1}", "{\"x\":1," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL,
     "{\"min_tokens\":1,\"x\":{\"stream\":true,\"max_tokens\":2},\"stream_options\":{\"a\":[]}\n}",
     "{\"x\":{\"stream\":true,\"max_tokens\":2},\n" PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, NULL, "{\"max_completion_tokens\":7,\"x\":\",}\"}",
     "{\"x\":\",}\",\"stream\":false,\"max_tokens\":1,\"max_completion_tokens\":1,\"kv_transfer_params\":" REMOTE "}"},
    {API_RESPONSES, API_LEG_NIXL_PREFILL, NULL, "{\"input\":\"x\"}", "{\"input\":\"x\"," PREFILL_RESPONSES "}"},
    {API_RESPONSES, API_LEG_NIXL_PREFILL, NULL, "{\"max_output_tokens\":9,\"input\":\"x\"}",
     "{\"input\":\"x\"," PREFILL_RESPONSES "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, "b", "{\"str\\u0065am\":true,\"model\":\"a\",\"max_tokens\":5}",
     "{\"model\":\"b\"," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, "b", "{\"stream\":true,\"max_tokens\":5,\"model\":\"a\"}",
     "{\"model\":\"b\"," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, "b", "{\"model\":\"a\",\"stream\":true,\"max_tokens\":5}",
     "{\"model\":\"b\"," PREFILL "}"},
    {API_CHAT, API_LEG_NIXL_PREFILL, "b",
     "{\"stream\":true,\"max_tokens\":5,\"min_tokens\":1,\"model\":\"a\",\"max_completion_tokens\":1,\"stream_"
     "options\":null,"
     "\"max_output_tokens\":5}",
     "{\"model\":\"b\",\"stream\":false,\"max_tokens\":1,\"max_completion_tokens\":1,\"max_output_tokens\":1,\"kv_"
     "transfer_params\":" REMOTE "}"},
    /* decode */
    {API_CHAT, API_LEG_NIXL_DECODE, NULL, "{\"stream\":true,\"max_tokens\":5}",
     "{\"stream\":true,\"max_tokens\":5,\"kv_transfer_params\":" PARAMS "}"},
    {API_CHAT, API_LEG_NIXL_DECODE, "b", "{\"model\":\"a\"}", "{\"model\":\"b\",\"kv_transfer_params\":" PARAMS "}"},
    {API_CHAT, API_LEG_NIXL_DECODE, NULL, "{}", "{\"kv_transfer_params\":" PARAMS "}"},
};

static void edits_are_exact(void **state)
{
    (void)state;
    struct buf text, got;
    buf_init(&text, 1 << 16);
    buf_init(&got, 1 << 16);
    for (size_t i = 0; i < ARRAY_LEN(edit_cases); i++) {
        const struct edit_case *c = &edit_cases[i];
        struct parsed p;
        struct str pieces[API_PIECES];
        struct api_change change = change_of(c->leg, c->model);
        parse(&p, c->kind, str_c(c->body));
        assert_int_equal(p.rc, 0);
        uint32_t n = join(&got, p.text, pieces, api_pieces(p.text, &p.rq, &change, &text, pieces), &text);
        if (!n != !c->want || (n && !str_eq_c(buf_str(&got), c->want)))
            fail_msg("%s: %u pieces, \"%.*s\", want \"%s\"", c->body, n, STR_ARG(buf_str(&got)),
                     c->want ? c->want : "none");
        parsed_free(&p);
    }
    buf_free(&text);
    buf_free(&got);
}

static void odd_changes(void **state)
{
    (void)state;
    struct buf text, got;
    struct parsed p;
    struct str pieces[API_PIECES];
    struct api_change change = change_of(API_LEG_BOOTSTRAP, NULL);
    buf_init(&text, 1 << 16);
    buf_init(&got, 1 << 16);
    parse(&p, API_CHAT, STR("{\"n\":5,\"model\":\"a\"}"));
    change.bootstrap_host = STR("[fd00::1]");
    change.bootstrap_port = 0;
    join(&got, p.text, pieces, api_pieces(p.text, &p.rq, &change, &text, pieces), &text);
    assert_str(buf_str(&got), "{\"n\":5,\"model\":\"a\",\"bootstrap_host\":[\"[fd00::1]\",\"[fd00::1]\",\"[fd00::1]\","
                              "\"[fd00::1]\",\"[fd00::1]\"],"
                              "\"bootstrap_port\":[null,null,null,null,null],\"bootstrap_room\":[4611686018427387904,"
                              "9223372036854775807,0,17,"
                              "5123456789012345]}");
    change = change_of(API_LEG_NIXL_DECODE, NULL);
    change.kv_transfer_params = STR_NULL;
    assert_int_equal(api_pieces(p.text, &p.rq, &change, &text, pieces), 1);
    assert_true(pieces[0].p == p.text.p && pieces[0].n == p.text.n);
    /* a text without room: refused, at every size below what is needed */
    change = change_of(API_LEG_NIXL_DECODE, "b");
    assert_int_equal(api_pieces(p.text, &p.rq, &change, &text, pieces), 5);
    for (size_t max = 0; max < 40; max++) {
        struct buf small;
        buf_init(&small, max);
        assert_int_equal(api_pieces(p.text, &p.rq, &change, &small, pieces), 0);
        buf_free(&small);
    }
    parsed_free(&p);
    parse(&p, API_CHAT, STR("{\"n\":4294967295}")); /* the bound holds before the rooms are looked at */
    struct buf small;
    buf_init(&small, 32);
    change = change_of(API_LEG_BOOTSTRAP, NULL);
    assert_int_equal(api_pieces(p.text, &p.rq, &change, &small, pieces), 0);
    buf_free(&small);
    parsed_free(&p);
    buf_free(&text);
    buf_free(&got);
}

/* --- random bodies --------------------------------------------------------------------------------------------- */

struct writer {
    struct rng r;
    struct buf b;
    struct {
        size_t from, to;
    } kept[32]; /* members that no leg touches */
    unsigned n_kept;
};

static const char *any(struct rng *r, const char *const *list, size_t n)
{
    return list[rng_below(r, n)];
}

static void space(struct writer *w)
{
    static const char ws[] = " \n\t\r";
    while (rng_below(&w->r, 3) == 0)
        buf_add(&w->b, &ws[rng_below(&w->r, 4)], 1);
}

static void key(struct writer *w, const char *name)
{
    buf_addf(&w->b, "\"");
    for (; *name; name++)
        if (rng_below(&w->r, 12) == 0)
            buf_addf(&w->b, "\\u%04x", (unsigned)*name);
        else
            buf_add(&w->b, name, 1);
    buf_addf(&w->b, "\"");
}

static const char *const values[] = {"null",
                                     "true",
                                     "-0.25",
                                     "1.50",
                                     "1e3",
                                     "9223372036854775807",
                                     "\"\"",
                                     "\"a,}]\\\"{\\u00e9\"",
                                     "[]",
                                     "{ }",
                                     "{\"stream\" : true,\"max_tokens\":[5],\"min_tokens\":2, \"model\":\"inner\"}",
                                     "[1 , {\"kv_transfer_params\":null,\"bootstrap_room\":1}]"};
static const char *const counts[] = {"null", "1", "16", "9007199254740993"};
static const char *const bools[] = {"null", "true", "false"};
static const char *const options[] = {"null", "{}", "{\"include_usage\":true}",
                                      "{ \"include_usage\" : false , \"x\":[ ] }"};
static const char *const prompts[] = {"\"p\"", "[\"p\"]", "[\"p\" , \"q\"]", "[1,2]", "[[1],[2],[3]]", "[]"};
static const char *const choices[] = {"null", "1", "2", "5"};
static const char *const models[] = {"\"m\"", "\"\"", "\"a\\u0062\\\"c\"", "null"};

static const struct member_kind {
    const char *name;
    const char *const *values;
    size_t n;
    bool edited;
} member_kinds[] = {
    {"stream", bools, ARRAY_LEN(bools), true},
    {"stream_options", options, ARRAY_LEN(options), true},
    {"max_tokens", counts, ARRAY_LEN(counts), true},
    {"max_completion_tokens", counts, ARRAY_LEN(counts), true},
    {"max_output_tokens", counts, ARRAY_LEN(counts), true},
    {"min_tokens", counts, ARRAY_LEN(counts), true},
    {"model", models, ARRAY_LEN(models), true},
    {"n", choices, ARRAY_LEN(choices), false},
    {"prompt", prompts, ARRAY_LEN(prompts), false},
    {"other", values, ARRAY_LEN(values), false},
    {"another", values, ARRAY_LEN(values), false},
    {"Stream", values, ARRAY_LEN(values), false},
    {"max_token", values, ARRAY_LEN(values), false},
    {"", values, ARRAY_LEN(values), false},
};

static void random_body(struct writer *w)
{
    unsigned left = (1u << ARRAY_LEN(member_kinds)) - 1, often = 1 + (unsigned)rng_below(&w->r, 4);
    bool first = true;
    buf_clear(&w->b);
    w->n_kept = 0;
    space(w);
    buf_addf(&w->b, "{");
    while (left) {
        unsigned i = (unsigned)rng_below(&w->r, ARRAY_LEN(member_kinds));
        if (!(left & 1u << i))
            continue;
        left &= ~(1u << i);
        if (rng_below(&w->r, 5) >= often)
            continue;
        space(w);
        if (!first)
            buf_addf(&w->b, ",");
        first = false;
        space(w);
        size_t from = w->b.n;
        key(w, member_kinds[i].name);
        space(w);
        buf_addf(&w->b, ":");
        space(w);
        buf_add_str(&w->b, str_c(any(&w->r, member_kinds[i].values, member_kinds[i].n)));
        if (!member_kinds[i].edited) {
            w->kept[w->n_kept].from = from;
            w->kept[w->n_kept++].to = w->b.n;
        }
    }
    space(w);
    buf_addf(&w->b, "}");
    space(w);
}

static json_t *list_of(json_t *one, uint32_t n)
{
    if (!n)
        return one;
    json_t *a = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append(a, one);
    json_decref(one);
    return a;
}

/* What the body should have become, by jansson. */
static void edit(json_t *j, enum api_kind kind, const struct api_change *c)
{
    json_t *prompt = json_object_get(j, "prompt"), *model = json_object_get(j, "model");
    json_int_t choices_n = json_integer_value(json_object_get(j, "n"));
    uint32_t n = kind == API_CHAT && choices_n > 1 ? (uint32_t)choices_n : 0;
    if (kind == API_COMPLETIONS && json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0)))
        n = (uint32_t)json_array_size(prompt);
    if (c->model.p && json_is_string(model))
        json_object_set_new(j, "model", json_stringn(c->model.p, c->model.n));
    if (c->leg == API_LEG_BOOTSTRAP) {
        json_t *numbers = json_array();
        for (uint32_t i = 0; i < MAX(n, 1u); i++)
            json_array_append_new(numbers, json_integer((json_int_t)rooms[i]));
        json_object_set_new(j, "bootstrap_host", list_of(json_string("10.0.0.5"), n));
        json_object_set_new(j, "bootstrap_port", list_of(json_integer(8998), n));
        json_object_set(j, "bootstrap_room", n ? numbers : json_array_get(numbers, 0));
        json_decref(numbers);
    } else if (c->leg == API_LEG_NIXL_PREFILL) {
        if (json_object_get(j, "max_completion_tokens"))
            json_object_set_new(j, "max_completion_tokens", json_integer(1));
        if (json_object_get(j, "max_output_tokens") || kind == API_RESPONSES)
            json_object_set_new(j, "max_output_tokens", json_integer(1));
        json_object_set_new(j, "max_tokens", json_integer(1));
        json_object_set_new(j, "stream", json_false());
        json_object_del(j, "stream_options");
        json_object_del(j, "min_tokens");
        json_object_set_new(j, "kv_transfer_params", json_loads(REMOTE, 0, NULL));
    } else if (c->leg == API_LEG_NIXL_DECODE) {
        json_object_set_new(j, "kv_transfer_params", json_loads(PARAMS, 0, NULL));
    }
}

static void check_random(struct writer *w, enum api_kind kind, const struct api_change *c, struct buf *text,
                         struct buf *got)
{
    struct parsed p;
    struct str pieces[API_PIECES];
    json_error_t je;
    parse(&p, kind, buf_str(&w->b));
    if (p.rc)
        fail_msg("%.*s: %s", STR_ARG(p.text), p.e.msg);
    uint32_t n = join(got, p.text, pieces, api_pieces(p.text, &p.rq, c, text, pieces), text);
    assert_in_range(n, 1, API_PIECES);
    json_t *want = json_loadb(p.text.p, p.text.n, JSON_ALLOW_NUL, &je);
    json_t *have = json_loadb(buf_str(got).p, got->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    assert_non_null(want);
    if (!have)
        fail_msg("%.*s -> %.*s: %s", STR_ARG(p.text), STR_ARG(buf_str(got)), je.text);
    edit(want, kind, c);
    if (!json_equal(want, have))
        fail_msg("%.*s -> %.*s", STR_ARG(p.text), STR_ARG(buf_str(got)));
    for (unsigned i = 0; i < w->n_kept; i++) { /* byte for byte, in one piece */
        const char *from = p.text.p + w->kept[i].from, *to = p.text.p + w->kept[i].to;
        bool whole = false;
        for (uint32_t k = 0; k < n; k++)
            whole |= pieces[k].p <= from && to <= pieces[k].p + pieces[k].n;
        if (!whole)
            fail_msg("%.*s: member %u is not whole", STR_ARG(p.text), i);
    }
    json_decref(want);
    json_decref(have);
    parsed_free(&p);
}

static void random_bodies_are_edited_as_jansson_would(void **state)
{
    (void)state;
    static const enum api_kind kinds[] = {API_COMPLETIONS, API_CHAT, API_RESPONSES, API_MESSAGES, API_GENERATE};
    struct writer w;
    struct buf text, got;
    rng_init(&w.r, 5);
    buf_init(&w.b, 1 << 16);
    buf_init(&text, 1 << 16);
    buf_init(&got, 1 << 16);
    for (int round = 0; round < 20000; round++) {
        random_body(&w);
        enum api_kind kind = kinds[rng_below(&w.r, ARRAY_LEN(kinds))];
        struct api_change c =
            change_of((enum api_leg)rng_below(&w.r, 4), rng_below(&w.r, 2) ? "new \"name\"\n\xc3\xa9" : NULL);
        check_random(&w, kind, &c, &text, &got);
    }
    buf_free(&w.b);
    buf_free(&text);
    buf_free(&got);
}

/* --- the hand-over --------------------------------------------------------------------------------------------- */

static void prefill_answers(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int rc;
        const char *params;
    } t[] = {
        {"{\"id\":\"c\",\"choices\":[{\"kv_transfer_params\":{\"a\":1}}],\"kv_transfer_params\" : " PARAMS " }\n", 1,
         PARAMS},
        {"{\"kv_transfer_params\":{\"remote_block_ids\":[1,2],\"remote_host\":\"}\"},\"usage\":{}}", 1,
         "{\"remote_block_ids\":[1,2],\"remote_host\":\"}\"}"},
        {"{\"kv\\u005ftransfer_params\":{\"x\":1}}", 1, "{\"x\":1}"}, /* opaque */
        {"{\"kv_transfer_params\":{\"x\":{\"remote_block_ids\":[]}}}", 1, "{\"x\":{\"remote_block_ids\":[]}}"},
        {"{\"kv_transfer_params\":{\"remote_block_ids\":[[],[7]]}}", 1, "{\"remote_block_ids\":[[],[7]]}"},
        {"{\"kv_transfer_params\":{\"x\":1},\"kv_transfer_params\":null}", 0, ""},
        {"{\"kv_transfer_params\":null}", 0, ""},
        {"{\"kv_transfer_params\":{}}", 0, ""},
        {"{\"kv_transfer_params\":\"x\"}", 0, ""},
        {"{\"kv_transfer_params\":[{\"x\":1}]}", 0, ""},
        {"{\"kv_transfer_params\":{\"remote_block_ids\":[],\"remote_host\":\"h\"}}", 0, ""},
        {"{\"kv_transfer_params\":{\"remote_host\":\"h\",\"remote_block_ids\":[[],[]]}}", 0, ""},
        {"{\"kv_transfer_params\":{\"remote_block_ids\":null,\"remote_host\":\"h\"}}", 0, ""},
        {"{\"choices\":[]}", 0, ""},
        {"{}", 0, ""},
        {"[]", -1, ""},
        {"", -1, ""},
        {"{\"kv_transfer_params\":{\"x\":1}", -1, ""},
        {"{\"kv_transfer_params\":{\"x\":1}} x", -1, ""},
        {"{\"kv_transfer_params\":{\"x\":[1}}", -1, ""},
        {"data: {\"kv_transfer_params\":{\"x\":1}}", -1, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        char *text = exact_copy(str_c(t[i].answer));
        struct str params, answer = {text, strlen(t[i].answer)};
        int rc = api_kv_transfer_params(answer, &params);
        if (rc != t[i].rc || !str_eq_c(params, t[i].params))
            fail_msg("%s: %d \"%.*s\"", t[i].answer, rc, STR_ARG(params));
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_are_exact),
        cmocka_unit_test(odd_changes),
        cmocka_unit_test(random_bodies_are_edited_as_jansson_would),
        cmocka_unit_test(prefill_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
