/* The JSON scanner: tables of good and bad texts, positions, skipping. */
#include "unit.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/utf8.h"

#include <stdlib.h>

/* One letter per token; strings and numbers in angle brackets. */
static const char *scan(struct str text, char *out, size_t cap)
{
    static const char letters[] = "!$OoAaKSNtfn";
    struct json j;
    size_t n = 0;
    json_init(&j, text);
    for (;;) {
        enum json_type t = json_next(&j);
        n += (size_t)snprintf(out + n, cap - n, "%c", letters[t]);
        if (t == JSON_KEY || t == JSON_STRING || t == JSON_NUMBER)
            n += (size_t)snprintf(out + n, cap - n, "<" STR_FMT "%s>", STR_ARG(j.tok), j.escaped ? "*" : "");
        if (t == JSON_END || t == JSON_ERROR) {
            assert_int_equal(json_next(&j), t); /* both stay */
            assert_true((t == JSON_ERROR) == (j.error != NULL));
            return out;
        }
    }
}

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *text, *tokens;
    } rows[] = {
        {"{}", "Oo$"},
        {" [ ] ", "Aa$"},
        {"true", "t$"},
        {"\t\r\nfalse \n", "f$"},
        {"null", "n$"},
        {"\"\"", "S<>$"},
        {"0", "N<0>$"},
        {"-0", "N<-0>$"},
        {"-0.0e-0", "N<-0.0e-0>$"},
        {"[1,2.5,-3e10,4E+2]", "AN<1>N<2.5>N<-3e10>N<4E+2>a$"},
        {"{\"a\":1,\"b\":[{}],\"c\":null}", "OK<a>N<1>K<b>AOoaK<c>no$"},
        {"{\"a\" : { \"a\" : \"a\" } }", "OK<a>OK<a>S<a>oo$"},
        {"[[],[[]],{}]", "AAaAAaaOoa$"},
        {"\"a\\n\\\"\\u00e9\"", "S<a\\n\\\"\\u00e9*>$"},
        {"\"\\ud83d\\ude00\"", "S<\\ud83d\\ude00*>$"},
        {"\"0123456789abcdef0123456789abcdef\"", "S<0123456789abcdef0123456789abcdef>$"},
        {"\"\x7f\"", "S<\x7f>$"},
        {"\"\xf0\x9f\x98\x80\"", "S<\xf0\x9f\x98\x80>$"},
    };
    char out[512];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(scan(str_c(rows[i].text), out, sizeof(out)), rows[i].tokens);
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        size_t at;
    } rows[] = {
#define BAD(text, at) {{text, sizeof(text) - 1}, at}
        BAD("", 0),
        BAD("  ", 2),
        BAD("[", 1),
        BAD("{", 1),
        BAD("]", 0),
        BAD("[1", 2),
        BAD("[1,", 3),
        BAD("[1,]", 3),
        BAD("[,1]", 1),
        BAD("[1 2]", 3),
        BAD("[1}", 2),
        BAD("{\"a\":1]", 6),
        BAD("{\"a\":1,}", 7),
        BAD("{\"a\"}", 4),
        BAD("{\"a\":}", 5),
        BAD("{1:2}", 1),
        BAD("{\"a\" 1}", 5),
        BAD("{,}", 1),
        BAD("1 1", 2),
        BAD("{}x", 2),
        BAD("tru", 0),
        BAD("True", 0),
        BAD("nul", 0),
        BAD("NaN", 0),
        BAD("Infinity", 0),
        BAD("01", 0),
        BAD("-", 0),
        BAD("+1", 0),
        BAD("1.", 0),
        BAD(".5", 0),
        BAD("1e", 0),
        BAD("1e+", 0),
        BAD("-01", 0),
        BAD("0x1", 1),
        BAD("1.5.5", 3),
        BAD("\"", 1),
        BAD("\"a", 2),
        BAD("\"\\\"", 3),
        BAD("\"\\", 1),
        BAD("\"\\x\"", 1),
        BAD("\"\\u12\"", 1),
        BAD("\"\\u12g4\"", 1),
        BAD("\"\\ud800\"", 1),
        BAD("\"\\udc00\"", 1),
        BAD("\"\\ud800\\u0041\"", 1),
        BAD("\"\\ud800\\ud800\"", 1),
        BAD("\"a\nb\"", 2),
        BAD("\"\0\"", 1),
        BAD("\"\xff\"", 1),
        BAD("\"\xc0\x80\"", 1),
        BAD("\"\xed\xa0\x80\"", 1),
        BAD("\"\xf4\x90\x80\x80\"", 1),
        BAD("\"\xe2\x82\"", 1),
        BAD("'a'", 0),
        BAD("\xef\xbb\xbf{}", 0),
        BAD("[1]\0", 3),
        BAD("//x\n1", 0),
        BAD("{\"a\":1,,\"b\":2}", 7),
        BAD("0123456789abcdef\"", 0),
        BAD("\"0123456789abcde\x1f\"", 16),
        BAD("\"0123456789abcdef\x80\"", 17),
#undef BAD
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct json j;
        enum json_type t;
        char *exact = xmalloc(rows[i].text.n); /* so that a sanitizer sees every byte read behind the end */
        memcpy(exact, rows[i].text.p, rows[i].text.n);
        json_init(&j, (struct str){exact, rows[i].text.n});
        while ((t = json_next(&j)) != JSON_ERROR && t != JSON_END)
            ;
        if (t != JSON_ERROR || (size_t)(j.p - exact) != rows[i].at)
            fail_msg("'%s': type %d at %zu, want %zu", rows[i].text.p, t, (size_t)(j.p - exact), rows[i].at);
        free(exact);
    }
    struct json j;
    json_init(&j, STR_NULL);
    assert_int_equal(json_next(&j), JSON_ERROR);
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * JSON_MAX_DEPTH + 10];
    for (size_t depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        struct json j;
        enum json_type t;
        json_init(&j, (struct str){text, 2 * depth});
        while ((t = json_next(&j)) != JSON_ERROR && t != JSON_END)
            ;
        assert_int_equal(t, depth <= JSON_MAX_DEPTH ? JSON_END : JSON_ERROR);
    }
}

/* Objects and arrays in all mixtures of depth: the stack of bits must not confuse them. */
static void test_mixed_nesting(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 21);
    for (int round = 0; round < 2000; round++) {
        struct buf b;
        bool object[JSON_MAX_DEPTH];
        size_t depth = 1 + rng_below(&r, JSON_MAX_DEPTH);
        buf_init(&b, 10000);
        for (size_t i = 0; i < depth; i++) {
            object[i] = rng_below(&r, 2);
            buf_add_str(&b, object[i] ? STR("{\"a\":") : STR("["));
        }
        buf_add_str(&b, STR("1"));
        for (size_t i = depth; i-- > 0;)
            buf_add_str(&b, object[i] ? STR("}") : STR("]"));
        struct json j;
        enum json_type t;
        json_init(&j, buf_str(&b));
        while ((t = json_next(&j)) != JSON_ERROR && t != JSON_END)
            ;
        assert_int_equal(t, JSON_END);
        size_t flip = rng_below(&r, depth); /* one wrong closer */
        char *closer = b.p + b.off + b.n - 1 - flip;
        *closer = *closer == '}' ? ']' : '}';
        json_init(&j, buf_str(&b));
        while ((t = json_next(&j)) != JSON_ERROR && t != JSON_END)
            ;
        assert_int_equal(t, JSON_ERROR);
        assert_ptr_equal(j.p, closer);
        buf_free(&b);
    }
}

static void test_skip(void **state)
{
    (void)state;
    struct json j;
    json_init(&j, STR("{\"a\":{\"x\":[1,{}]},\"b\":[[],2],\"c\":\"s\",\"d\":4}"));
    assert_int_equal(json_next(&j), JSON_OBJ);
    for (const char *want = "abcd"; *want; want++) {
        assert_int_equal(json_next(&j), JSON_KEY);
        assert_int_equal(j.tok.p[0], *want);
        assert_true(json_skip(&j));
        assert_int_equal(j.depth, 1);
    }
    assert_int_equal(json_next(&j), JSON_OBJ_END);
    assert_int_equal(json_next(&j), JSON_END);
    json_init(&j, STR("[{\"a\":1},2]"));
    json_next(&j);
    assert_true(json_skip(&j));
    assert_true(json_skip(&j));
    assert_int_equal(json_next(&j), JSON_ARR_END);
    json_init(&j, STR("[]"));
    json_next(&j);
    assert_false(json_skip(&j)); /* nothing to skip */
    json_init(&j, STR("{\"a\":[1,}"));
    json_next(&j);
    json_next(&j);
    assert_false(json_skip(&j));
    json_init(&j, STR(" {\"k\":[1]} "));
    assert_true(json_skip(&j));
    assert_int_equal(json_next(&j), JSON_END);
}

static void test_where(void **state)
{
    (void)state;
    struct json j;
    unsigned line, col;
    json_init(&j, STR("{\n  \"a\": 1,\n  \"b\": x\n}"));
    while (json_next(&j) != JSON_ERROR)
        ;
    json_where(&j, j.p, &line, &col);
    assert_int_equal(line, 3);
    assert_int_equal(col, 8);
    json_where(&j, j.start, &line, &col);
    assert_int_equal(line, 1);
    assert_int_equal(col, 1);
}

static void test_unescape(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        struct str want;
    } rows[] = {
        {"", {"", 0}},
        {"plain", {"plain", 5}},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", {"\"\\/\b\f\n\r\t", 8}},
        {"a\\u0041\\u00e9\\u20AC\\ud83D\\uDE00z", {"aA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z", 12}},
        {"\\u0000", {"\0", 1}},
        {"\\uffff", {"\xef\xbf\xbf", 3}},
        {"end\\\\", {"end\\", 4}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[64];
        struct str raw = str_c(rows[i].raw);
        size_t n = json_unescape(raw, out);
        assert_true(n <= raw.n);
        assert_true(str_eq((struct str){out, n}, rows[i].want));
        assert_true(json_str_eq(raw, strchr(rows[i].raw, '\\') != NULL, rows[i].want));
        memcpy(out, raw.p, raw.n); /* in place */
        n = json_unescape((struct str){out, raw.n}, out);
        assert_true(str_eq((struct str){out, n}, rows[i].want));
        char longer[64];
        memcpy(longer, rows[i].want.p, rows[i].want.n);
        longer[rows[i].want.n] = 'x';
        assert_false(json_str_eq(raw, true, (struct str){longer, rows[i].want.n + 1}));
        if (rows[i].want.n)
            assert_false(json_str_eq(raw, true, str_first(rows[i].want, rows[i].want.n - 1)));
    }
    char out[64];
    assert_int_equal(json_unescape(STR("\\"), out), 1); /* not validated, but never out of bounds */
    assert_int_equal(json_unescape(STR("\\u12"), out), 4);
    assert_false(json_str_eq(STR("mod\\u0065l"), true, STR("modex")));
    assert_true(json_str_eq(STR("mod\\u0065l"), true, STR("model")));
    assert_false(json_str_eq(STR("model"), false, STR("mode")));
}

static void test_plain_end(void **state)
{
    (void)state;
    char text[80];
    for (size_t n = 0; n <= 40; n++) {
        for (size_t at = 0; at <= n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                memset(text, 'a', sizeof(text));
                char *start = text + at % 5;
                start[at] = (char)c;
                bool stops = at < n && (c < 0x20 || c == '"' || c == '\\' || c >= 0x80);
                assert_ptr_equal(json_plain_end(start, start + n), start + (stops ? at : n));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),          cmocka_unit_test(test_bad),       cmocka_unit_test(test_depth),
        cmocka_unit_test(test_mixed_nesting), cmocka_unit_test(test_skip),      cmocka_unit_test(test_where),
        cmocka_unit_test(test_unescape),      cmocka_unit_test(test_plain_end),
    };
    return RUN_TESTS(tests);
}
