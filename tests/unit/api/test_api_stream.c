/* The prefix stream: vectors to the byte, and the same stream whatever the white space, escapes and order of keys. */
#include "common.h"
#include <jansson.h>
#include "base/rng.h"
#include "base/utf8.h"

struct vector {
    enum api_kind kind;
    char *body;
    char *want; /* with HASH for 8 bytes */
    size_t want_n;
};
static struct vector vectors[200];
static size_t n_vectors;

static int load(void **state)
{
    (void)state;
    char line[4096], kind[40];
    FILE *f = fopen(VECTOR_DIR "/stream.txt", "r");
    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '#')
            continue;
        if (line[0] == '=') {
            struct vector *v = &vectors[n_vectors++];
            v->want = strdup(line + 2);
            v->want_n = undo_escapes(v->want, true);
            continue;
        }
        if (n_vectors == ARRAY_LEN(vectors) || sscanf(line, "%39s", kind) != 1)
            return -1;
        vectors[n_vectors].kind = kind_of(kind);
        vectors[n_vectors].body = strdup(line + strlen(kind) + 1);
    }
    fclose(f);
    return n_vectors > 30 ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_vectors; i++) {
        free(vectors[i].body);
        free(vectors[i].want);
    }
    return 0;
}

static void streams_are_as_the_vectors_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_vectors; i++) {
        struct vector *v = &vectors[i];
        struct parsed p;
        parse(&p, v->kind, str_c(v->body));
        if (p.rc)
            fail_msg("%s: %s", v->body, p.e.msg);
        struct str got = p.rq.stream_bytes;
        size_t w = 0, g = 0;
        while (w < v->want_n && g < got.n) {
            if (strncmp(v->want + w, "HASH", 4) == 0 && got.n - g >= 8) {
                w += 4;
                g += 8;
            } else if (v->want[w++] != got.p[g++]) {
                fail_msg("%s: stream \"%.*s\" differs at byte %zu", v->body, STR_ARG(got), g - 1);
            }
        }
        if (w != v->want_n || g != got.n)
            fail_msg("%s: stream \"%.*s\" has another length", v->body, STR_ARG(got));
        assert_str(p.rq.model, v->kind == API_TRITON ? "" : "m");
        parsed_free(&p);
    }
}

/* A random writer: white space, escapes and, outside of what servers render as sent, the order of keys. */
struct writer {
    struct rng r;
    struct buf b;
};

static void space(struct writer *w)
{
    static const char ws[] = " \n\t\r";
    while (rng_below(&w->r, 3) == 0)
        buf_add(&w->b, &ws[rng_below(&w->r, 4)], 1);
}

static void write_string(struct writer *w, const char *s, size_t n)
{
    buf_add(&w->b, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        uint32_t cp = len == 1 ? c : c & (0x7fu >> len);
        for (size_t k = 1; k < len; k++)
            cp = cp << 6 | ((unsigned char)s[i + k] & 0x3f);
        const char *twos = "\"\"\\\\//\bb\ff\nn\rr\tt", *two = twos;
        while (*two && (uint32_t)*two != cp)
            two += 2;
        bool must = c < 0x20 || c == '"' || c == '\\', may = rng_below(&w->r, 8) == 0;
        if (*two && (must || may) && rng_below(&w->r, 2))
            buf_addf(&w->b, "\\%c", two[1]);
        else if ((must || may) && cp < 0x10000)
            buf_addf(&w->b, rng_below(&w->r, 2) ? "\\u%04x" : "\\u%04X", cp);
        else if (may)
            buf_addf(&w->b, "\\u%04x\\u%04X", 0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + ((cp - 0x10000) & 0x3ff));
        else
            buf_add(&w->b, s + i, len);
        i += len;
    }
    buf_add(&w->b, "\"", 1);
}

static bool rendered_as_sent(const char *key)
{
    static const char *const keys[] = {"tools", "tool_calls", "function_call", "arguments"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static void write_value(struct writer *w, const json_t *j, bool shuffle);

static void write_object(struct writer *w, const json_t *j, bool shuffle)
{
    const char *keys[32];
    size_t n = 0;
    const char *key;
    json_t *val;
    json_object_foreach((json_t *)(uintptr_t)j, key, val) keys[n++] = key;
    for (size_t i = n; shuffle && i > 1; i--) {
        size_t k = rng_below(&w->r, i);
        const char *t = keys[k];
        keys[k] = keys[i - 1];
        keys[i - 1] = t;
    }
    buf_add(&w->b, "{", 1);
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_add(&w->b, ",", 1);
        space(w);
        write_string(w, keys[i], strlen(keys[i]));
        space(w);
        buf_add(&w->b, ":", 1);
        const json_t *v = json_object_get(j, keys[i]);
        write_value(w, v,
                    shuffle && !rendered_as_sent(keys[i]) && !(strcmp(keys[i], "input") == 0 && json_is_object(v)));
    }
    space(w);
    buf_add(&w->b, "}", 1);
}

static void write_value(struct writer *w, const json_t *j, bool shuffle)
{
    space(w);
    if (json_is_object(j)) {
        write_object(w, j, shuffle);
    } else if (json_is_array(j)) {
        buf_add(&w->b, "[", 1);
        for (size_t i = 0; i < json_array_size(j); i++) {
            if (i)
                buf_add(&w->b, ",", 1);
            write_value(w, json_array_get(j, i), shuffle);
        }
        space(w);
        buf_add(&w->b, "]", 1);
    } else if (json_is_string(j)) {
        write_string(w, json_string_value(j), json_string_length(j));
    } else if (json_is_integer(j)) {
        buf_addf(&w->b, "%lld", (long long)json_integer_value(j));
    } else {
        buf_add_str(&w->b, json_is_true(j) ? STR("true") : json_is_false(j) ? STR("false") : STR("null"));
    }
    space(w);
}

static void spelling_never_changes_the_stream(void **state)
{
    (void)state;
    struct writer w;
    rng_init(&w.r, 11);
    buf_init(&w.b, 1 << 20);
    for (size_t i = 0; i < n_vectors; i++) {
        struct parsed want, got;
        json_error_t je;
        json_t *j = json_loads(vectors[i].body, 0, &je);
        assert_non_null(j);
        parse(&want, vectors[i].kind, str_c(vectors[i].body));
        for (int round = 0; round < 300; round++) {
            buf_clear(&w.b);
            write_value(&w, j, true);
            /* with plenty of scratch, and with the least that is allowed (which only token ids and hashes may outgrow)
             */
            bool tight = round % 2 && want.rq.prompt_token_ids == 0 && want.rq.stream_bytes.n < w.b.n;
            parse_max(&got, vectors[i].kind, buf_str(&w.b), tight ? w.b.n + 64 : 1 << 20);
            if (got.rc)
                fail_msg("%.*s: %s", STR_ARG(buf_str(&w.b)), got.e.msg);
            if (!str_eq(got.rq.stream_bytes, want.rq.stream_bytes))
                fail_msg("%.*s: another stream: %.*s", STR_ARG(buf_str(&w.b)), STR_ARG(got.rq.stream_bytes));
            assert_true(str_eq(got.rq.model, want.rq.model));
            assert_true(got.rq.prompt_bytes == want.rq.prompt_bytes);
            assert_int_equal(got.rq.n_media, want.rq.n_media);
            assert_int_equal(got.rq.n_prompts, want.rq.n_prompts);
            assert_int_equal(got.rq.n_batch, want.rq.n_batch);
            assert_int_equal(got.rq.n, want.rq.n);
            assert_true(got.rq.max_tokens == want.rq.max_tokens && got.rq.stream == want.rq.stream);
            assert_int_equal(got.rq.n_members, want.rq.n_members);
            assert_true(str_eq(got.rq.previous_response_id, want.rq.previous_response_id));
            parsed_free(&got);
        }
        parsed_free(&want);
        json_decref(j);
    }
    buf_free(&w.b);
}

static uint64_t media_hash(const char *part)
{
    struct buf b;
    struct parsed p;
    uint64_t h;
    buf_init(&b, 1 << 16);
    buf_addf(&b, "{\"messages\":[{\"role\":\"u\",\"content\":[%s]}]}", part);
    parse(&p, API_CHAT, buf_str(&b));
    assert_int_equal(p.rc, 0);
    assert_int_equal(p.rq.stream_bytes.n, 2 + 8 + 1);
    memcpy(&h, p.rq.stream_bytes.p + 2, 8);
    parsed_free(&p);
    buf_free(&b);
    return h;
}

static void media_hash_depends_on_the_content(void **state)
{
    (void)state;
    static const char *const parts[] = {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"a\"}}",
                                        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"b\"}}",
                                        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"a\",\"detail\":\"low\"}}",
                                        "{\"type\":\"image_url\",\"image_url\":\"a\"}",
                                        "{\"type\":\"image_url\",\"image_url\":[\"a\"]}",
                                        "{\"type\":\"image_url\",\"image_url\":{\"a\":\"url\"}}",
                                        "{\"type\":\"image_url\",\"image_url\":{\"url\":1}}",
                                        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"1\"}}",
                                        "{\"type\":\"video_url\",\"image_url\":{\"url\":\"a\"}}",
                                        "{\"type\":\"image_url\",\"image_url\":[]}",
                                        "{\"type\":\"image_url\",\"image_url\":{}}",
                                        "{\"type\":\"image_url\",\"image_url\":[[],[\"a\"]]}",
                                        "{\"type\":\"image_url\",\"image_url\":[\"b\",\"a\"]}",
                                        "{\"type\":\"image_url\",\"image_url\":[\"a\",\"b\"]}",
                                        "{\"type\":\"image_url\",\"image_url\":true}",
                                        "{\"type\":\"image_url\",\"image_url\":false}",
                                        "{}"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        for (size_t k = i + 1; k < ARRAY_LEN(parts); k++)
            if (media_hash(parts[i]) == media_hash(parts[k]))
                fail_msg("%s hashes like %s", parts[i], parts[k]);
    assert_true(media_hash(parts[0]) ==
                media_hash("{ \"image_url\" : {\"ur\\u006c\":\"\\u0061\" } ,\"type\":\"image\\u005furl\"}"));
}

static void counts_are_right(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_CHAT,
          STR("{\"messages\":[{\"role\":\"user\",\"content\":\"four\"},{\"role\":\"user\",\"content\":[{\"type\":"
              "\"text\","
              "\"text\":\"\\u4e2d\"},{\"type\":\"image_url\",\"image_url\":{}}]}],\"tools\":[{\"a\":\"bcd\"}]}"));
    assert_int_equal(p.rq.prompt_bytes, 7);
    assert_int_equal(p.rq.n_media, 1);
    assert_int_equal(p.rq.n_prompts, 1);
    parsed_free(&p);
    parse(&p, API_COMPLETIONS, STR("{\"prompt\":[[1,2],[3]]}"));
    assert_int_equal(p.rq.prompt_token_ids, 3);
    assert_int_equal(p.rq.prompt_bytes, 0);
    assert_int_equal(p.rq.n_prompts, 2);
    parsed_free(&p);
    parse(&p, API_COMPLETIONS, STR("{\"prompt\":[\"ab\",\"c\"]}"));
    assert_int_equal(p.rq.prompt_bytes, 3);
    assert_int_equal(p.rq.n_prompts, 2);
    parsed_free(&p);
}

/* Token ids may need more than the body: with the least scratch the stream is cut, never overrun, and all else is still
 * checked. */
static void tight_scratch_cuts_the_stream(void **state)
{
    (void)state;
    struct buf b;
    struct parsed p, full;
    buf_init(&b, 1 << 20);
    buf_addf(&b, "{\"us\\u0065r\":\"\\u0041bc\",\"prompt\":[1");
    for (int i = 0; i < 5000; i++)
        buf_addf(&b, ",%d", i % 10);
    buf_addf(&b, "],\"model\":\"x\\u0079z\",\"cache_salt\":\"s\\n\"}");
    parse(&full, API_COMPLETIONS, buf_str(&b));
    parse_max(&p, API_COMPLETIONS, buf_str(&b), b.n + 64);
    assert_int_equal(p.rc, 0);
    assert_int_equal(full.rq.stream_bytes.n, 4 * 5001);
    assert_in_range(p.rq.stream_bytes.n, 64, b.n + 64);
    assert_memory_equal(p.rq.stream_bytes.p, full.rq.stream_bytes.p, p.rq.stream_bytes.n);
    assert_int_equal(p.rq.prompt_token_ids, 5001);
    assert_str(p.rq.model, "xyz");
    assert_str(p.rq.user, "Abc");
    assert_str(p.rq.cache_salt, "s\n");
    parsed_free(&p);
    parsed_free(&full);
    parse_max(&p, API_COMPLETIONS, buf_str(&b), b.n);
    assert_int_equal(p.rc, -1);
    assert_int_equal(p.e.status, 413);
    parsed_free(&p);
    buf_clear(&b);
    buf_addf(&b, "{\"messages\":[{\"content\":[{}");
    for (int i = 0; i < 5000; i++)
        buf_addf(&b, ",{}");
    buf_addf(&b, "]}],\"tools\":[1,2,3]}");
    parse_max(&p, API_CHAT, buf_str(&b), b.n + 64);
    assert_int_equal(p.rc, 0);
    parsed_free(&p);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_as_the_vectors_say),    cmocka_unit_test(spelling_never_changes_the_stream),
        cmocka_unit_test(media_hash_depends_on_the_content), cmocka_unit_test(counts_are_right),
        cmocka_unit_test(tight_scratch_cuts_the_stream),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
