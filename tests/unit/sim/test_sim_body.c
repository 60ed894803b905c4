/* The simulated server's reading of bodies, its chat template, and that a conversation's next turn begins with the
 * tokens of the last. */
#include "sim/server_priv.h"
#include "sim/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static void members(void **state)
{
    (void)state;
    struct body b;
    const char *error;
    bool flag = false;
    uint64_t n = 0;
    assert_true(body_scan(STR(" {\"model\" : \"a\\u0062\" , \"n\":2,\"x\":[1e400,{\"model\":1}], \"stream\": true "
                              ",\"max_tokens\":null}\n"),
                          &b, &error));
    struct buf s;
    buf_init(&s, 100);
    assert_true(body_string(b.raw[B_MODEL], &s));
    assert_true(str_eq_c(buf_str(&s), "ab"));
    buf_free(&s);
    assert_int_equal(body_u64(b.raw[B_N], &n), BODY_OK);
    assert_int_equal(n, 2);
    assert_int_equal(body_bool(b.raw[B_STREAM], &flag), BODY_OK);
    assert_true(flag);
    assert_int_equal(body_u64(b.raw[B_MAX_TOKENS], &n), BODY_ABSENT);
    assert_int_equal(body_u64(STR("-1"), &n), BODY_BAD);
    assert_int_equal(body_u64(STR("\"3\""), &n), BODY_BAD);
    static const char *const bad[] = {"", "[]", "{", "{\"a\":1}x", "{\"a\" 1}", "\"x\"", "{\"model\":}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(body_scan(str_c(bad[i]), &b, &error));
}

static uint32_t plain(const char *json, uint32_t *tokens)
{
    struct prompts p = {0};
    const char *error;
    uint32_t n = prompts_plain(&p, str_c(json), &error) ? p.n : 0;
    *tokens = n ? p.v[n - 1].n : 0;
    prompts_free(&p);
    return n;
}

static void plain_prompts(void **state)
{
    (void)state;
    uint32_t t;
    assert_int_equal(plain("\"two words\"", &t), 1);
    assert_int_equal(t, 2);
    assert_int_equal(plain("[\"a\", \"b c\"]", &t), 2);
    assert_int_equal(t, 2);
    assert_int_equal(plain("[ 1, 2,3 ]", &t), 1);
    assert_int_equal(t, 3);
    assert_int_equal(plain("[[1,2],[3]]", &t), 2);
    assert_int_equal(t, 1);
    static const char *const bad[] = {"",     "[]",    "[[]]",   "\"\"",   "{}", "[1,\"a\"]",
                                      "[-1]", "[1.5]", "[null]", "[true]", "12"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(plain(bad[i], &t), 0);
}

/* The answer's pieces, put into the next request as the assistant's message, give the very tokens the engine produced.
 */
static void next_turn_extends_the_last(void **state)
{
    (void)state;
    struct tokens one = {0}, two = {0};
    const char *error;
    struct buf answer, body;
    buf_init(&answer, 100000);
    buf_init(&body, 100000);
    assert_true(prompts_chat(&one, STR("[{\"role\":\"user\",\"content\":\"tell me\"}]"), STR_NULL, STR_NULL, &error));
    for (uint32_t i = 0; i < 200; i++) {
        struct str w = word_at(42, i);
        tokens_add(&one, tokens_one(w));
        buf_add_str(&answer, w);
    }
    buf_addf(&body,
             "[{\"content\":\"tell "
             "me\",\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"%s\"},{\"role\":\"user\",\"content\":\"go "
             "on\"}]",
             buf_cstr(&answer));
    assert_true(prompts_chat(&two, buf_str(&body), STR_NULL, STR_NULL, &error));
    assert_true(two.n > one.n);
    assert_memory_equal(one.v, two.v, one.n * sizeof(*one.v));
    tokens_free(&one);
    tokens_free(&two);
    buf_free(&answer);
    buf_free(&body);
}

static void bad_messages(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",    "[]",  "{}", "[1]", "[{\"role\":1,\"content\":\"x\"}]", "[{\"role\":\"user\",\"content\":7}]",
        "[{}", "[[]]"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct tokens t = {0};
        const char *error = NULL;
        assert_false(prompts_chat(&t, str_c(bad[i]), STR_NULL, STR_NULL, &error));
        assert_non_null(error);
        tokens_free(&t);
    }
}

static bool collect(void *ctx, struct str value)
{
    struct buf *out = ctx;
    if (str_eq(value, STR("9")))
        return false;
    buf_addf(out, "<" STR_FMT ">", STR_ARG(value));
    return true;
}

static void lists(void **state)
{
    (void)state;
    struct {
        const char *in, *out; /* NULL: refused */
    } cases[] = {{"[]", ""},
                 {"[ 1 , \"a,b\",null , [2,3],{\"k\":[4]} ]", "<1><\"a,b\"><><[2,3]><{\"k\":[4]}>"},
                 {"[9223372036854775807]", "<9223372036854775807>"},
                 {"[1,9,2]", NULL},
                 {"7", NULL},
                 {"{}", NULL},
                 {"[1", NULL},
                 {"", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out;
        buf_init(&out, 4096);
        assert_int_equal(body_each(str_c(cases[i].in), collect, &out), cases[i].out != NULL);
        if (cases[i].out)
            assert_string_equal(buf_cstr(&out), cases[i].out);
        buf_free(&out);
    }
}

static void paths_of_triton(void **state)
{
    (void)state;
    struct {
        const char *path, *model, *what; /* model NULL: another path */
    } cases[] = {{"/v2/models/ensemble/generate", "ensemble", "generate"},
                 {"/v2/models/a.b-c/versions/1/generate_stream", "a.b-c", "generate_stream"},
                 {"/v2/models/m/versions/2", "m", ""},
                 {"/v2/models/m", "m", ""},
                 {"/v2/models/m/", "m", ""},
                 {"/v2/models/m/ready", "m", "ready"},
                 {"/v2/models/", NULL, NULL},
                 {"/v2/models//generate", NULL, NULL},
                 {"/v2", NULL, NULL},
                 {"/v1/completions", NULL, NULL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str model, what;
        assert_int_equal(triton_path(str_c(cases[i].path), &model, &what), cases[i].model != NULL);
        if (cases[i].model)
            assert_true(str_eq_c(model, cases[i].model) && str_eq_c(what, cases[i].what));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members),      cmocka_unit_test(plain_prompts), cmocka_unit_test(next_turn_extends_the_last),
        cmocka_unit_test(bad_messages), cmocka_unit_test(lists),         cmocka_unit_test(paths_of_triton),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
