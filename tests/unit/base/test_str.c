/* Spans: comparison, search and numbers. */
#include "unit.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

static void test_compare(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool eq, ieq;
        int cmp;
    } rows[] = {{"", "", true, true, 0},
                {"a", "A", false, true, 1},
                {"Host", "hOST", false, true, -1},
                {"ab", "abc", false, false, -1},
                {"b", "abc", false, false, 1},
                {"[", "{", false, false, -1},
                {"\xc3\x89", "\xc3\xa9", false, false, -1}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str a = str_c(rows[i].a), b = str_c(rows[i].b);
        assert_int_equal(str_eq(a, b), rows[i].eq);
        assert_int_equal(str_ieq(a, b), rows[i].ieq);
        int c = str_cmp(a, b), d = str_cmp(b, a);
        assert_int_equal((c > 0) - (c < 0), rows[i].cmp);
        assert_int_equal((d > 0) - (d < 0), -rows[i].cmp);
    }
    assert_true(str_same_name(STR("PREFIX_CACHE"), STR("prefix-cache")) && str_same_name(STR("a-"), STR("_A")));
    assert_true(str_same_name(STR(""), STR("--")) && !str_same_name(STR("a"), STR("ab")) && !str_same_name(STR("ab"), STR("a")));
    assert_false(str_same_name(STR("a\0b"), STR("a\0c")) || str_same_name(STR("a"), STR("a\0")));
    assert_true(str_eq(STR_NULL, STR("")));
    assert_int_equal(str_cmp(STR_NULL, STR("")), 0);
}

static void test_parts(void **state)
{
    (void)state;
    assert_true(str_ends(STR("data: x"), STR(": x")));
    assert_true(str_ends(STR("x"), STR_NULL));
    assert_true(str_ends(STR_NULL, STR_NULL));
    assert_false(str_ends(STR("x"), STR("xx")));
    assert_true(str_starts(STR("GET /"), STR("GET ")));
    assert_str(str_trim(STR(" \t a b\t ")), STR("a b"), "trim");
    assert_int_equal(str_trim(STR(" \t ")).n, 0);
    assert_int_equal(str_trim(STR_NULL).n, 0);
    assert_str(str_trim(STR("\na\n")), STR("\na\n"), "trim leaves newlines");
    assert_str(str_from(STR("abc"), 1), STR("bc"), "from");
    assert_int_equal(str_from(STR("abc"), 9).n, 0);
    assert_int_equal(str_from(STR_NULL, 9).n, 0);
    assert_str(str_first(STR("abc"), 2), STR("ab"), "first");
    char *d = str_dup(STR("a\0b"));
    assert_memory_equal(d, "a\0b", 4);
    free(d);
    d = str_dup(STR_NULL);
    assert_string_equal(d, "");
    free(d);
}

static void test_find(void **state)
{
    (void)state;
    assert_int_equal(str_find(STR("abcabc"), STR("ca")), 2);
    assert_int_equal(str_find(STR("abc"), STR("")), 0);
    assert_int_equal(str_find(STR_NULL, STR_NULL), 0);
    assert_int_equal(str_find(STR_NULL, STR("a")), -1);
    assert_int_equal(str_find(STR("abc"), STR("abcd")), -1);
    assert_int_equal(str_find(STR("abc"), STR("x")), -1);
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_u64, is_i64;
        uint64_t u64;
        int64_t i64;
    } rows[] = {
        {"0", true, true, 0, 0},
        {"007", true, true, 7, 7},
        {"18446744073709551615", true, false, UINT64_MAX, 0},
        {"18446744073709551616", false, false, 0, 0},
        {"99999999999999999999999", false, false, 0, 0},
        {"9223372036854775807", true, true, INT64_MAX, INT64_MAX},
        {"9223372036854775808", true, false, 9223372036854775808ull, 0},
        {"-9223372036854775808", false, true, 0, INT64_MIN},
        {"-9223372036854775809", false, false, 0, 0},
        {"+5", false, true, 0, 5},
        {"-0", false, true, 0, 0},
        {"", false, false, 0, 0},
        {"-", false, false, 0, 0},
        {"--1", false, false, 0, 0},
        {" 1", false, false, 0, 0},
        {"1 ", false, false, 0, 0},
        {"0x1", false, false, 0, 0},
        {"1.0", false, false, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t u = 77;
        int64_t s = 77;
        print_message("%s\n", rows[i].text);
        assert_int_equal(str_to_u64(str_c(rows[i].text), &u), rows[i].is_u64);
        assert_true(u == (rows[i].is_u64 ? rows[i].u64 : 77));
        assert_int_equal(str_to_i64(str_c(rows[i].text), &s), rows[i].is_i64);
        assert_true(s == (rows[i].is_i64 ? rows[i].i64 : 77));
    }
}

static void test_doubles(void **state)
{
    (void)state;
    static const char *const good[] = {"0",
                                       "-0",
                                       "1",
                                       "1.5",
                                       ".5",
                                       "5.",
                                       "1e3",
                                       "1E+3",
                                       "1e-3",
                                       "+2.5",
                                       "123456789012345678901234567890",
                                       "4.9e-324",
                                       "1e308",
                                       "0.1",
                                       "1e22",
                                       "1e23",
                                       "9007199254740993",
                                       "2.2250738585072011e-308",
                                       "0e999999",
                                       "1e-999999"};
    static const char *const bad[] = {"",   ".",   "e5",   "1e",    "1e+",   "0x10",   "inf",  "nan", "infinity", "1 ",
                                      " 1", "--1", "1..2", "1e5.5", "1e999", "-1e400", "+NaN", "1f",  "1_000"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        double v = 77;
        print_message("%s\n", good[i]);
        assert_true(str_to_double(str_c(good[i]), &v));
        assert_true(v == strtod(good[i], NULL));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        double v = 77;
        print_message("%s\n", bad[i]);
        assert_false(str_to_double(str_c(bad[i]), &v));
        assert_true(v == 77);
    }
    double v = 0;
    assert_true(str_to_double(STR("NaN"), &v) && isnan(v));
    assert_true(str_to_double(STR("+Inf"), &v) && isinf(v) && v > 0);
    assert_true(str_to_double(STR("-Inf"), &v) && isinf(v) && v < 0);
    char longest[600];
    memset(longest, '1', sizeof(longest));
    assert_false(str_to_double((struct str){longest, sizeof(longest)}, &v));
}

/* Every printed double reads back as the C library reads it. */
static void test_doubles_like_libc(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 200000; i++) {
        uint64_t bits = rng_u64(&r);
        double d, got = 0;
        memcpy(&d, &bits, sizeof(d));
        if (i % 2)
            d = (double)(int64_t)(bits >> 20) / 1000;
        if (!isfinite(d))
            continue;
        char text[64];
        snprintf(text, sizeof(text), i % 3 ? "%.*g" : "%.*e", (int)rng_below(&r, 20), d);
        double want = strtod(text, NULL);
        bool ok = str_to_double(str_c(text), &got);
        if (ok != (bool)isfinite(want) || (ok && got != want))
            fail_msg("%s", text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_compare), cmocka_unit_test(test_parts),
                                       cmocka_unit_test(test_find),    cmocka_unit_test(test_integers),
                                       cmocka_unit_test(test_doubles), cmocka_unit_test(test_doubles_like_libc)};
    return RUN_TESTS(tests);
}
