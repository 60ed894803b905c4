/* What is JSON: the vectors, truncation at every byte, depth, and jansson's verdict on random mutations. */
#include "common.h"
#include <jansson.h>
#include "base/rng.h"

/* NULL: accepted; else the code. As a request without any key that is read. */
static const char *verdict(struct str body)
{
    struct parsed p;
    parse(&p, API_MODELS, body);
    const char *code = p.rc ? p.e.code : NULL;
    if (p.rc) {
        assert_int_equal(p.e.status, 400);
        assert_non_null(strstr(p.e.msg, "(byte "));
        assert_true(strlen(p.e.msg) > 20);
    }
    parsed_free(&p);
    return code;
}

static void vectors_are_judged_as_they_say(void **state)
{
    (void)state;
    char line[4096];
    unsigned n = 0;
    FILE *f = fopen(VECTOR_DIR "/json.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '#')
            continue;
        char want[40] = "", *body = line + 2;
        if (line[0] == 'n') {
            assert_int_equal(sscanf(line, "n %39s", want), 1);
            body = line + 2 + strlen(want) + 1;
        }
        struct str text = {body, undo_escapes(body, false)};
        const char *got = verdict(text);
        if (strcmp(got ? got : "", want) != 0)
            fail_msg("\"%s\": got %s, want %s", body, got ? got : "accepted", want);
        n++;
    }
    fclose(f);
    assert_true(n > 100);
}

static const char whole[] =
    "{\"model\":\"m\\u0041 "
    "\xe4\xb8\xad\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a long enough text, "
    "\\ud83d\\ude00 with \xf0\x9f\x98\x80 "
    "\\\"escapes\\\"\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}}]},{\"content\":null,"
    "\"tool_calls\":[{\"id\":1.5e3,\"x\":[true,false,null]}],\"role\":\"assistant\"}],\"stream\" : false "
    ",\"tools\":[{}],\"n\":2}";

static void truncation_anywhere_is_an_error(void **state)
{
    (void)state;
    for (int k = API_COMPLETIONS; k < API_N_KINDS; k++) {
        struct parsed p;
        parse(&p, (enum api_kind)k, str_c(whole));
        assert_int_equal(p.rc, 0);
        parsed_free(&p);
        for (size_t n = 0; n < sizeof(whole) - 1; n++) {
            parse(&p, (enum api_kind)k, (struct str){whole, n});
            if (p.rc == 0)
                fail_msg("accepted after %zu bytes as %s", n, api_kind_name((enum api_kind)k));
            parsed_free(&p);
        }
    }
}

/* {"K":[[[...]]]} with `depth` containers in all. */
static const char *nested(enum api_kind kind, const char *key, char open, unsigned depth)
{
    struct buf b;
    struct parsed p;
    buf_init(&b, 1 << 20);
    buf_addf(&b, "{\"%s\":", key);
    for (unsigned i = 1; i < depth; i++)
        buf_addf(&b, open == '[' ? "[" : i + 1 < depth ? "{\"a\":" : "{");
    for (unsigned i = 1; i < depth; i++)
        buf_addf(&b, open == '[' ? "]" : "}");
    buf_addf(&b, "}");
    parse(&p, kind, buf_str(&b));
    const char *code = p.rc ? p.e.code : "";
    parsed_free(&p);
    buf_free(&b);
    return code;
}

static void depth_is_bounded(void **state)
{
    (void)state;
    static const char open[] = {'[', '{'};
    for (int i = 0; i < 2; i++) {
        assert_string_equal(nested(API_CHAT, "x", open[i], 256), "");
        assert_string_equal(nested(API_CHAT, "x", open[i], 257), "too_deep");
        assert_string_equal(nested(API_CHAT, "x", open[i], 100000), "too_deep");
    }
    assert_string_equal(nested(API_CHAT, "tools", '[', 256), "");
    assert_string_equal(nested(API_CHAT, "tools", '[', 257), "too_deep");
    assert_string_equal(nested(API_CHAT, "tools", '[', 50000), "too_deep");
}

/* Nested tool results must not deepen our calls either. */
static void nested_contents_are_bounded(void **state)
{
    (void)state;
    for (unsigned levels = 1; levels < 200; levels += 7) {
        struct buf b;
        struct parsed p;
        buf_init(&b, 1 << 20);
        buf_addf(&b, "{\"messages\":[{\"role\":\"user\",\"content\":");
        for (unsigned i = 0; i < levels; i++)
            buf_addf(&b, "[{\"type\":\"tool_result\",\"content\":");
        buf_addf(&b, "\"x\"");
        for (unsigned i = 0; i < levels; i++)
            buf_addf(&b, "}]");
        buf_addf(&b, "}]}");
        parse(&p, API_MESSAGES, buf_str(&b));
        if (3 + 2 * levels <= 256)
            assert_int_equal(p.rc, 0);
        else
            assert_string_equal(p.e.code, "too_deep");
        parsed_free(&p);
        buf_free(&b);
    }
}

static void mutations_are_judged_as_jansson_does(void **state)
{
    (void)state;
    static const char base[] = "{\"a\":[1,-2.5e3,true,null,{\"b\":\"x\\n\\u00e9\"}], "
                               "\"c\":{\"d\":{}},\"e\":\"\xe4\xb8\xad\xf0\x9f\x98\x80 plain text that is long "
                               "enough for blocks \xc3\xa9 and so on\",\"f\":[],\"g\":false}";
    static const char junk[] = "{}[]\",:\\ \n0129.-+eEutfn\x01\x7f\x80\xc3\xe4\xed\xf0\xff/*'ab";
    struct rng r;
    rng_init(&r, 3);
    unsigned accepted = 0, refused = 0;
    for (int i = 0; i < 300000; i++) {
        char text[sizeof(base) + 8];
        size_t n = sizeof(base) - 1;
        memcpy(text, base, n);
        for (uint64_t k = 1 + rng_below(&r, 3); k; k--) {
            size_t at = rng_below(&r, n);
            switch (rng_below(&r, 4)) {
            case 0:
                memmove(text + at, text + at + 1, n - at - 1);
                n--;
                break;
            case 1:
                memmove(text + at + 1, text + at, n - at);
                n++;
                FALLTHROUGH;
            case 2:
                text[at] = junk[rng_below(&r, sizeof(junk) - 1)];
                break;
            default: {
                size_t other = rng_below(&r, n);
                char c = text[at];
                text[at] = text[other];
                text[other] = c;
            }
            }
        }
        json_error_t je;
        json_t *j = json_loadb(text, n, JSON_ALLOW_NUL, &je);
        bool overflow = !j && (strstr(je.text, "too big") || strstr(je.text, "overflow"));
        bool ok = verdict((struct str){text, n}) == NULL;
        if (!overflow && ok != (j && json_is_object(j)))
            fail_msg("we %s, jansson %s: %.*s", ok ? "accept" : "refuse", j ? "accepts" : je.text, (int)n, text);
        ok ? accepted++ : refused++;
        json_decref(j);
    }
    assert_true(accepted > 10000 && refused > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_judged_as_they_say),
        cmocka_unit_test(truncation_anywhere_is_an_error),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(nested_contents_are_bounded),
        cmocka_unit_test(mutations_are_judged_as_jansson_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
