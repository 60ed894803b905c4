/* Paths, query parameters and dates. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <time.h>
#include "http/date.h"
#include "http/uri.h"

static void test_path_ok(void **state UNUSED)
{
    static const char *const good[] = {"/",
                                       "/v1",
                                       "/v1/",
                                       "/v1//x",
                                       "/a.b/..c/...",
                                       "/.hidden",
                                       "/%20%C3%a9",
                                       "/a;b=c,d:@!$&'()*+",
                                       "/%252e%252e/",
                                       "/a%2Fb",
                                       "/a/.b./c.."};
    static const char *const bad[] = {"",      "v1",     "*",        "/..",   "/.",     "/a/../b",      "/a/./b",
                                      "/a/..", "/../",   "/%2e%2e/", "/.%2E", "/%2e",   "/a%2f..%2fb",  "/a%2F%2e%2E",
                                      "/a\\b", "/a%5cb", "/%",       "/%4",   "/%zz",   "/%00",         "/%0a",
                                      "/%7f",  "/a b",   "/a?b",     "/a#b",  "/a\x01", "/caf\xc3\xa9", "/%5C..%5C"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (!uri_path_ok(str_c(good[i])))
            fail_msg("refused %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (uri_path_ok(str_c(bad[i])))
            fail_msg("taken %s", bad[i]);
    assert_false(uri_path_ok((struct str){"/a\0b", 4}));
}

static void test_normalise(void **state UNUSED)
{
    static const char *const rows[][2] = {{"/v1", "/v1"},
                                          {"/%76%31", "/v1"},
                                          {"/%7euser%2f%c3%A9", "/~user%2F%C3%A9"},
                                          {"/%2E%2D%5f", "/.-_"},
                                          {"/%zz%4", "/%zz%4"},
                                          {"/a%20b+c", "/a%20b+c"},
                                          {"/%2561", "/%2561"},
                                          {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[64];
        struct str is = {out, uri_path_normalise(str_c(rows[i][0]), out)};
        if (!str_eq_c(is, rows[i][1]))
            fail_msg("%s -> " STR_FMT, rows[i][0], STR_ARG(is));
    }
}

static void test_prefix(void **state UNUSED)
{
    static const struct {
        const char *path, *prefix;
        bool match;
    } rows[] = {{"/v1", "/v1", true},  {"/v1/", "/v1", true},   {"/v1/x", "/v1", true},  {"/v1x", "/v1", false},
                {"/v1", "/v1/", true}, {"/v1/x", "/v1/", true}, {"/v", "/v1", false},    {"/x", "/", true},
                {"/", "/", true},      {"/V1", "/v1", false},   {"/v2/v1", "/v1", false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (uri_prefix_match(str_c(rows[i].path), str_c(rows[i].prefix)) != rows[i].match)
            fail_msg("%s against %s", rows[i].path, rows[i].prefix);
}

static void test_query(void **state UNUSED)
{
    static const struct {
        const char *query, *name, *value; /* NULL: absent */
    } rows[] = {{"a=1&b=2", "a", "1"},      {"a=1&b=2", "b", "2"}, {"a=1&a=2", "a", "1"},
                {"a=1", "c", NULL},         {"a", "a", ""},        {"a=", "a", ""},
                {"&&a=x", "a", "x"},        {"", "a", NULL},       {"%61=%31+2", "a", "1 2"},
                {"a=b=c", "a", "b=c"},      {"A=1", "a", NULL},    {"ab=1", "a", NULL},
                {"a=%zz%", "a", "%zz%"},    {"a+b=1", "a b", "1"}, {"a=12345678", "a", "12345678"},
                {"a=123456789", "a", NULL}, {"=x", "", "x"},       {"a=%2B%26", "a", "+&"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[8];
        struct str value = STR("untouched");
        bool found = uri_query_get(str_c(rows[i].query), str_c(rows[i].name), out, sizeof(out), &value);
        if (found != (rows[i].value != NULL) || !str_eq_c(value, found ? rows[i].value : "untouched"))
            fail_msg("%s in %s: \"" STR_FMT "\"", rows[i].name, rows[i].query, STR_ARG(value));
    }
}

static void test_segments(void **state UNUSED)
{
    static const struct {
        const char *plain, *escaped;
    } rows[] = {{"llama", "llama"},
                {"Qwen/Qwen3 32B", "Qwen%2FQwen3%2032B"},
                {"a%b", "a%25b"},
                {"\xc3\xa9?#", "%C3%A9%3F%23"},
                {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[64];
        struct str plain = str_c(rows[i].plain), escaped = str_c(rows[i].escaped);
        assert_true(str_eq((struct str){out, uri_escape_segment(plain, out)}, escaped));
        assert_true(str_eq((struct str){out, uri_unescape(escaped, out)}, plain));
    }
    char out[8];
    assert_true(str_eq((struct str){out, uri_unescape(STR("%4x%"), out)}, STR("%4x%")));
}

/* Against libc over 60,000 days and a moving time of day. */
static void test_date(void **state UNUSED)
{
    char out[HTTP_DATE_LEN + 1], want[64];
    http_date(784111777, out);
    assert_string_equal(out, "Sun, 06 Nov 1994 08:49:37 GMT");
    http_date(UINT64_MAX, out);
    assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT");
    for (uint64_t s = 0; s < 60000ull * 86400; s += 86399) {
        time_t t = (time_t)s;
        struct tm tm;
        assert_non_null(gmtime_r(&t, &tm));
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        http_date(s, out);
        assert_string_equal(out, want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_path_ok),  cmocka_unit_test(test_normalise),
                                       cmocka_unit_test(test_prefix),   cmocka_unit_test(test_query),
                                       cmocka_unit_test(test_segments), cmocka_unit_test(test_date)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
