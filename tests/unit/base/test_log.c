/* Log lines: both formats, escaping, levels, cutting, threads. */
#include "unit.h"
#include "base/json.h"
#include "base/log.h"

#include <math.h>
#include <pthread.h>

static char last[8192];
static size_t last_n, n_lines;
static pthread_mutex_t last_lock = PTHREAD_MUTEX_INITIALIZER;

static void capture(const char *line, size_t n)
{
    pthread_mutex_lock(&last_lock);
    memcpy(last, line, n);
    last[n] = '\0';
    last_n = n;
    n_lines++;
    pthread_mutex_unlock(&last_lock);
}

static uint64_t fixed_time(void)
{
    return 1709210096789012ull; /* 2024-02-29T12:34:56.789012Z */
}

static uint64_t any_time;
static uint64_t set_time(void)
{
    return any_time;
}

static bool is_json_object(struct str text)
{
    struct json j;
    json_init(&j, text);
    if (json_next(&j) != JSON_OBJ)
        return false;
    for (;;) {
        enum json_type t = json_next(&j);
        if (t == JSON_END || t == JSON_ERROR)
            return t == JSON_END;
    }
}

static void test_silent_before_setup(void **state)
{
    (void)state;
    log_set_level(LOG_DEBUG);
    assert_false(log_on(LOG_ERROR));
    logf_msg(LOG_ERROR, "nobody hears");
    assert_int_equal(n_lines, 0);
}

static void write_all_kinds(void)
{
    struct logline l;
    assert_true(log_begin(&l, LOG_INFO, "Request Handled"));
    log_cstr(&l, "model", "llama");
    log_str(&l, "path", STR("/v1/a b\"c"));
    log_u64(&l, "status", 200);
    log_i64(&l, "delta", -3);
    log_f(&l, "sec", 1.2345, 3);
    log_f(&l, "nan", (double)NAN, 3);
    log_bool(&l, "stream", true);
    log_raw(&l, "raw", STR("{\"a\":1}"));
    log_raw(&l, "empty", STR_NULL);
    log_cstr(&l, "none", NULL);
    log_end(&l);
}

static void test_formats(void **state)
{
    (void)state;
    log_setup(LOG_INFO, LOG_LOGFMT, capture, fixed_time);
    write_all_kinds();
    assert_string_equal(
        last, "ts=2024-02-29T12:34:56.789Z level=info msg=\"Request Handled\" model=llama path=\"/v1/a b\\\"c\" "
              "status=200 delta=-3 sec=1.234 nan=NaN stream=true raw=\"{\\\"a\\\":1}\" empty=null none=\"\"\n");
    log_setup(LOG_INFO, LOG_JSON, capture, fixed_time);
    write_all_kinds();
    assert_string_equal(last, "{\"ts\":\"2024-02-29T12:34:56.789Z\",\"level\":\"info\",\"msg\":\"Request Handled\","
                              "\"model\":\"llama\",\"path\":\"/v1/a b\\\"c\",\"status\":200,\"delta\":-3,\"sec\":1.234,"
                              "\"nan\":null,\"stream\":true,\"raw\":{\"a\":1},\"empty\":null,\"none\":\"\"}\n");
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        struct str val;
        const char *logfmt, *json;
    } rows[] = {
        {{"plain", 5}, "v=plain\n", "\"v\":\"plain\"}\n"},
        {{"a=b", 3}, "v=\"a=b\"\n", "\"v\":\"a=b\"}\n"},
        {{"a\nb\x01", 4}, "v=\"a\\nb\\u0001\"\n", "\"v\":\"a\\nb\\u0001\"}\n"},
        {{"a\0b", 3}, "v=\"a\\u0000b\"\n", "\"v\":\"a\\u0000b\"}\n"},
        {{"gr\xc3\xbc\xc3\x9f", 6}, "v=gr\xc3\xbc\xc3\x9f\n", "\"v\":\"gr\xc3\xbc\xc3\x9f\"}\n"},
        {{"x\xff", 2}, "v=\"x\xef\xbf\xbd\"\n", "\"v\":\"x\xef\xbf\xbd\"}\n"},
        {{"c:\\x", 4}, "v=\"c:\\\\x\"\n", "\"v\":\"c:\\\\x\"}\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (int json = 0; json < 2; json++) {
            struct logline l;
            log_setup(LOG_INFO, json ? LOG_JSON : LOG_LOGFMT, capture, fixed_time);
            assert_true(log_begin(&l, LOG_WARN, "m"));
            log_str(&l, "v", rows[i].val);
            log_end(&l);
            const char *want = json ? rows[i].json : rows[i].logfmt;
            assert_true(last_n > strlen(want));
            assert_string_equal(last + last_n - strlen(want), want);
            assert_int_equal(json, is_json_object((struct str){last, last_n}));
        }
    }
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        uint64_t s;
        const char *text;
    } rows[] = {{0, "1970-01-01T00:00:00.000Z"},          {951782399, "2000-02-28T23:59:59.000Z"},
                {951868799, "2000-02-29T23:59:59.000Z"},  {951868800, "2000-03-01T00:00:00.000Z"},
                {1735689599, "2024-12-31T23:59:59.000Z"}, {4107542400, "2100-03-01T00:00:00.000Z"}};
    log_setup(LOG_INFO, LOG_LOGFMT, capture, set_time);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        any_time = rows[i].s * 1000000;
        logf_msg(LOG_INFO, "x");
        assert_memory_equal(last + 3, rows[i].text, strlen(rows[i].text));
    }
}

static void test_levels(void **state)
{
    (void)state;
    log_setup(LOG_WARN, LOG_LOGFMT, capture, fixed_time);
    size_t before = n_lines;
    struct logline l;
    assert_false(log_begin(&l, LOG_INFO, "no"));
    logf_msg(LOG_INFO, "no");
    assert_int_equal(n_lines, before);
    logf_msg(LOG_ERROR, "yes %d", 1);
    assert_int_equal(n_lines, before + 1);
    assert_non_null(strstr(last, "level=error msg=\"yes 1\"\n"));
    log_set_level(LOG_DEBUG);
    assert_true(log_on(LOG_DEBUG));
    log_set_level(LOG_OFF);
    assert_false(log_on(LOG_ERROR));
    assert_false(log_on(LOG_OFF));
    enum log_level level = LOG_OFF;
    enum log_format format = LOG_LOGFMT;
    assert_true(log_level_parse(STR("debug"), &level) && level == LOG_DEBUG);
    assert_true(log_level_parse(STR("off"), &level) && level == LOG_OFF);
    assert_false(log_level_parse(STR("INFO"), &level));
    assert_true(log_format_parse(STR("json"), &format) && format == LOG_JSON);
    assert_true(log_format_parse(STR("logfmt"), &format) && format == LOG_LOGFMT);
    assert_false(log_format_parse(STR("xml"), &format));
}

/* However long the values, a line fits the buffer, is well formed, and says that it was cut. */
static void test_cut(void **state)
{
    (void)state;
    static char big[5000];
    for (int json = 0; json < 2; json++) {
        log_setup(LOG_INFO, json ? LOG_JSON : LOG_LOGFMT, capture, fixed_time);
        for (size_t n = 3700; n < 4200; n++) {
            struct logline l;
            memset(big, n % 2 ? 'x' : '"', sizeof(big));
            assert_true(log_begin(&l, LOG_INFO, "m"));
            log_u64(&l, "one", 1);
            log_str(&l, "big", (struct str){big, n % 2 ? n : n / 2});
            log_u64(&l, "two", 2);
            log_end(&l);
            assert_true(last_n <= 4096 && last[last_n - 1] == '\n');
            assert_non_null(strstr(last, json ? "\"one\":1" : "one=1"));
            bool cut = strstr(last, json ? "\"cut\":true}\n" : " cut=true\n") != NULL;
            bool whole = strstr(last, json ? "\"two\":2}\n" : "two=2\n") != NULL;
            assert_true(cut != whole);
            assert_true(!json || is_json_object((struct str){last, last_n}));
        }
        memset(big, '\n', sizeof(big) - 1);
        big[sizeof(big) - 1] = '\0';
        logf_msg(LOG_INFO, "%s", big);
        struct logline l;
        assert_true(log_begin(&l, LOG_INFO, big));
        log_end(&l);
        assert_non_null(strstr(last, "\\n\\n\\n"));
        assert_true(!json || is_json_object((struct str){last, last_n}));
    }
}

static size_t n_whole;
static void check_sink(const char *line, size_t n)
{
    pthread_mutex_lock(&last_lock);
    n_whole += is_json_object((struct str){line, n});
    pthread_mutex_unlock(&last_lock);
}

static void *write_lines(void *arg)
{
    for (unsigned i = 0; i < 2000; i++) {
        struct logline l;
        if (log_begin(&l, LOG_INFO, "thread")) {
            log_cstr(&l, "name", arg);
            log_u64(&l, "i", i);
            log_end(&l);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    char names[4][8] = {"a", "bb", "ccc", "dddd"};
    log_setup(LOG_INFO, LOG_JSON, check_sink, fixed_time);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    for (int i = 0; i < 100; i++)
        log_set_level(LOG_INFO);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(n_whole, 8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_silent_before_setup),
                                       cmocka_unit_test(test_formats),
                                       cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_times),
                                       cmocka_unit_test(test_levels),
                                       cmocka_unit_test(test_cut),
                                       cmocka_unit_test(test_threads)};
    return RUN_TESTS(tests);
}
