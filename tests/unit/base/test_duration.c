/* Durations: what Go reads and prints, and the syntax of GEP-2257. */
#include "unit.h"
#include "base/duration.h"
#include "base/rng.h"

static void test_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"0", 0},
        {"+0", 0},
        {"-0", 0},
        {"5s", 5000000000},
        {"-5s", -5000000000},
        {"+5s", 5000000000},
        {"1478s", 1478000000000},
        {"5.0s", 5000000000},
        {"5.6s", 5600000000},
        {"5.s", 5000000000},
        {".5s", 500000000},
        {"1.004s", 1004000000},
        {"1.0040s", 1004000000},
        {"100.00100s", 100001000000},
        {"10ns", 10},
        {"11us", 11000},
        {"12\xc2\xb5s", 12000},
        {"12\xce\xbcs", 12000},
        {"13ms", 13000000},
        {"14s", 14000000000},
        {"15m", 900000000000},
        {"16h", 57600000000000},
        {"3h30m", 12600000000000},
        {"10.5s4m", 250500000000},
        {"-2m3.4s", -123400000000},
        {"1h2m3s4ms5us6ns", 3723004005006},
        {"39h9m14.425s", 140954425000000},
        {"0.100000000000000000000h", 360000000000},
        {"9223372036854775807ns", INT64_MAX},
        {"9223372036854775.807us", INT64_MAX},
        {"9223372036s854ms775us807ns", INT64_MAX},
        {"-9223372036854775808ns", INT64_MIN},
        {"0.830103483285477580700h", 2988372539827},
        {"1.5h", 5400000000000},
    };
    static const char *const bad[] = {"",
                                      "3",
                                      "-",
                                      "s",
                                      ".",
                                      "-.",
                                      ".s",
                                      "+.s",
                                      "1d",
                                      "\x85\x85",
                                      "1.2.3s",
                                      "3000000h",
                                      "9223372036854775808ns",
                                      "9223372036854775.808us",
                                      "-9223372036854775809ns",
                                      "1 s",
                                      " 1s",
                                      "1s ",
                                      "1S",
                                      "1e3s",
                                      "--1s",
                                      "1s-2s",
                                      "99999999999999999999ns",
                                      "9223372036854ms775us808ns",
                                      "1h30"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ns = 77;
        print_message("%s\n", good[i].text);
        assert_true(duration_parse(str_c(good[i].text), &ns));
        assert_int_equal(ns, good[i].ns);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ns = 77;
        print_message("%s\n", bad[i]);
        assert_false(duration_parse(str_c(bad[i]), &ns));
        assert_int_equal(ns, 77);
    }
}

static void test_gateway(void **state)
{
    (void)state;
    static const char *const good[] = {"0s", "10ms", "1h2m3s4ms", "99999h", "0h", "1s1s1s1s"};
    static const char *const bad[] = {"0",          "",    "1",   "1.5s", "-1s",  "+1s", "100000s",
                                      "1h1h1h1h1h", "1us", "1ns", "s",    "1m s", "1ms1"};
    int64_t ns;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(duration_parse_gateway(str_c(good[i]), &ns));
    assert_int_equal(ns, 4000000000);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(duration_parse_gateway(str_c(bad[i]), &ns));
}

static void test_format(void **state)
{
    (void)state;
    static const struct {
        int64_t ns;
        const char *text;
    } rows[] = {{0, "0s"},
                {1, "1ns"},
                {1100, "1.1\xc2\xb5s"},
                {2200000, "2.2ms"},
                {300000000, "300ms"},
                {1500000000, "1.5s"},
                {3300000000, "3.3s"},
                {245000000000, "4m5s"},
                {245001000000, "4m5.001s"},
                {18367001000000, "5h6m7.001s"},
                {3600000000000, "1h0m0s"},
                {480000000001, "8m0.000000001s"},
                {-1, "-1ns"},
                {INT64_MAX, "2562047h47m16.854775807s"},
                {INT64_MIN, "-2562047h47m16.854775808s"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[32];
        size_t n = duration_format(rows[i].ns, out, sizeof(out));
        assert_int_equal(n, strlen(rows[i].text));
        assert_string_equal(out, rows[i].text);
    }
    char out[8] = "zzzzzzz";
    assert_int_equal(duration_format(1500000000, out, 4), 4);
    assert_memory_equal(out, "1.5szzz", 7);
    assert_int_equal(duration_format(1500000000, out, 3), 0);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 5);
    for (int i = 0; i < 100000; i++) {
        int64_t ns = (int64_t)(rng_u64(&r) >> rng_below(&r, 64)), back = 0;
        if (i % 2)
            ns = -(ns & INT64_MAX);
        char out[32];
        size_t n = duration_format(ns, out, sizeof(out));
        assert_true(duration_parse((struct str){out, n}, &back));
        assert_int_equal(back, ns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_gateway),
                                       cmocka_unit_test(test_format), cmocka_unit_test(test_round_trip)};
    return RUN_TESTS(tests);
}
