/* Events of a stream in any split; the sums over pods; the line of progress. */
#include "../base/unit.h"
#include "bench/event.h"
#include "bench/pod_watch.h"
#include "bench/progress.h"

#include <math.h>
#include <stdlib.h>

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.9g, want %.9g", got, want);
}

struct seen {
    char text[512];
    size_t n;
    unsigned lines, stop_after;
};

static bool note(void *ctx, struct str payload)
{
    struct seen *s = ctx;
    assert_true(s->n + payload.n + 1 < sizeof(s->text));
    if (payload.n)
        memcpy(s->text + s->n, payload.p, payload.n);
    s->n += payload.n;
    s->text[s->n++] = '|';
    return ++s->lines != s->stop_after;
}

static void lines_in_any_split(void **state)
{
    (void)state;
    static const char stream[] = ": ping\n\ndata: {\"a\":1}\n\ndata:{\"b\":2}\r\n\r\nevent: x\ndata:  c\n\nid: "
                                 "5\n\ndata: [DONE]\n\ndata: unfinished";
    for (size_t step = 1; step <= sizeof(stream); step++) {
        struct event_lines l = {0};
        struct seen s = {0};
        struct str rest = {stream, sizeof(stream) - 1};
        while (rest.n) {
            assert_true(event_lines_feed(&l, str_first(rest, step), note, &s));
            rest = str_from(rest, MIN(step, rest.n));
        }
        assert_str((struct str){s.text, s.n}, STR("{\"a\":1}|{\"b\":2}| c|[DONE]|"), "payloads");
        assert_int_equal(l.n, strlen("data: unfinished"));
        event_lines_free(&l);
    }
}

static void whole_lines_hold_nothing(void **state)
{
    (void)state;
    struct event_lines l = {0};
    struct seen s = {.stop_after = 2};
    assert_true(event_lines_feed(&l, STR("data: 1\n\n"), note, &s));
    assert_null(l.p);
    assert_false(event_lines_feed(&l, STR("data: 2\n\ndata: 3\n\n"), note, &s));
    assert_int_equal(s.lines, 2);
    event_lines_free(&l);
}

static void endless_line_is_refused(void **state)
{
    (void)state;
    struct event_lines l = {0};
    struct seen s = {0};
    char *junk = xmalloc(1u << 20);
    memset(junk, 'x', 1u << 20);
    unsigned fed = 0;
    while (fed < 100 && event_lines_feed(&l, (struct str){junk, 1u << 20}, note, &s))
        fed++;
    assert_int_equal(fed, EVENT_LINE_MAX >> 20);
    event_lines_free(&l);
    free(junk);
}

static void events(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool ok, choices, usage, error;
        const char *text;
    } cases[] = {
        {"{\"choices\":[{\"index\":0,\"text\":\" the\",\"logprobs\":null}],\"usage\":null}", true, true, false, false,
         " the"},
        {"{\"id\":\"x\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"text\":5}]}", true, true,
         false, false, ""},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\\\"b\"}},{\"delta\":{\"content\":\"other\"}}]}", true, true, false,
         false, "a\\\"b"},
        {"{\"choices\":[{\"delta\":{\"content\":null}}],\"usage\":{\"prompt_tokens\":9}}", true, true, true, false, ""},
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"total_tokens\":12,\"completion_tokens\":3,\"prompt_tokens_"
         "details\":{\"audio\":{},"
         "\"cached_tokens\":4}}}",
         true, false, true, false, ""},
        {"{\"choices\":[1,[2],{}]}", true, true, false, false, ""},
        {"{\"choices\":{}}", true, false, false, false, ""},
        {"{\"error\":{\"code\":\"x\"}}", true, false, false, true, ""},
        {"{\"error\":null}", true, false, false, false, ""},
        {"{}", true, false, false, false, ""},
        {"[]", false, false, false, false, ""},
        {"{\"choices\":[{\"text\":\"a\"}", false, true, false, false, "a"},
        {"{\"choices\":[{\"text\":\"a\" 7}]}", false, true, false, false, "a"},
        {"", false, false, false, false, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct event e;
        assert_int_equal(event_parse(str_c(cases[i].json), &e), cases[i].ok);
        if (!cases[i].ok)
            continue;
        assert_int_equal(e.choices, cases[i].choices);
        assert_int_equal(e.has_usage, cases[i].usage);
        assert_int_equal(e.error, cases[i].error);
        assert_str(e.text, str_c(cases[i].text), cases[i].json);
        if (e.has_usage)
            assert_int_equal(e.prompt_tokens, 9);
        if (i == 4) {
            assert_int_equal(e.completion_tokens, 3);
            assert_int_equal(e.cached_tokens, 4);
        }
    }
}

static void error_codes(void **state)
{
    (void)state;
    static const struct {
        const char *json, *code;
    } cases[] = {
        {"{\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":null,\"code\":\"queue_full\"}}", "queue_full"},
        {"{\"error\":{\"message\":\"m\",\"type\":\"NotFoundError\",\"code\":404}}", "NotFoundError"},
        {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}", "overloaded_error"},
        {"{\"object\":\"error\",\"message\":\"m\",\"type\":\"BadRequestError\",\"code\":400}", "BadRequestError"},
        {"{\"error\":\"text\"}", ""},
        {"<html>", ""},
        {"{\"error\":{\"code\":\"cut", ""}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_str(event_error_code(str_c(cases[i].json)), str_c(cases[i].code), cases[i].json);
}

/* ---- pods ---- */

static void cache_of_a_page(void **state)
{
    (void)state;
    assert_near(
        pod_watch_kv_of(
            STR("# HELP vllm:kv_cache_usage_perc x\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a } b\"} 0.25\n"
                "vllm:kv_cache_usage_perc{engine=\"1\"} 0.75 1755000000\nvllm:gpu_cache_usage_perc 0.1\n")),
        0.5, 1e-9);
    assert_near(pod_watch_kv_of(STR("vllm:kv_cache_usage_perc_more 9\nvllm:gpu_cache_usage_perc 0.125")), 0.125, 1e-9);
    assert_near(pod_watch_kv_of(STR("sglang:token_usage{a=\"b\"} 3e-1\n")), 0.3, 1e-9);
    assert_true(isnan(
        pod_watch_kv_of(STR("vllm:kv_cache_usage_perc NaN\nvllm:kv_cache_usage_perc{\nvllm:kv_cache_usage_perc\n"))));
    assert_true(isnan(pod_watch_kv_of(STR_NULL)));
}

#define PAGE(a, ka, b, kb)                                                                                             \
    STR("{\"pools\":[{\"key\":\"p\",\"picks\":99,\"endpoints\":[{\"pod\":\"a\",\"address\":\"1.1.1.1:1\",\"picks\":" a \
        ",\"load\":{\"kv_frac\":" ka "}},"                                                                             \
        "{\"pod\":\"b\",\"address\":\"1.1.1.2:1\",\"picks\":" b ",\"load\":{\"fresh\":true,\"kv_frac\":" kb            \
        "}}]},{\"key\":\"q\",\"endpoints\":[{\"pod\":"                                                                 \
        "\"a\",\"address\":\"1.1.1.1:1\",\"picks\":1,\"load\":{\"kv_frac\":null}}]}]}")

static void sums_over_pods(void **state)
{
    (void)state;
    struct loop *l = loop_new(1);
    struct pod_watch *w = pod_watch_new(l, NULL, 0, NULL, 1000000);
    struct pod_watch_sum sum;
    uint32_t n;
    pod_watch_sum(w, &sum);
    assert_false(sum.has_kv || sum.has_picks);
    assert_true(pod_watch_admin_page(w, PAGE("10", "0.2", "10", "0.4"), true));
    pod_watch_round(w);
    assert_true(pod_watch_admin_page(w, PAGE("20", "0.4", "40", "0.2"), false));
    pod_watch_round(w);
    pod_watch_round(w); /* nothing new came: no sample */
    const struct pod_use *p = pod_watch_pods(w, &n);
    assert_int_equal(n, 2);
    assert_string_equal(p[0].name, "a");
    pod_watch_sum(w, &sum);
    assert_int_equal(sum.rounds, 2);
    assert_int_equal(sum.picks, 40); /* 10 and 30 since the first page */
    assert_near(sum.picks_cv, 0.5, 1e-9);
    assert_near(sum.kv_mean, 0.3, 1e-9);
    assert_near(sum.kv_cv_means, 0, 1e-9);       /* each had 0.3 over time */
    assert_near(sum.kv_cv_now, 0.1 / 0.3, 1e-9); /* but never at the same time */
    struct buf out;
    buf_init(&out, 65536);
    pod_watch_json(w, &out);
    assert_str(buf_str(&out),
               STR("\"pod_use\":[{\"pod\":\"a\",\"address\":\"1.1.1.1:1\",\"picks\":10,\"kv_use_mean\":0.3},{\"pod\":"
                   "\"b\",\"address\":"
                   "\"1.1.1.2:1\",\"picks\":30,\"kv_use_mean\":0.3}],\"pod_picks_cv\":0.5,\"kv_use_mean\":0.3,\"kv_use_"
                   "cv_of_means\":0,"
                   "\"kv_use_cv_at_one_time\":0.333333"),
               "json");
    buf_clear(&out);
    pod_watch_report(w, &out);
    assert_true(str_find(buf_str(&out), STR("a                                              10         30.0 %\n")) > 0);
    buf_free(&out);
    assert_false(pod_watch_admin_page(w, STR("{}"), false));
    assert_false(pod_watch_admin_page(w, STR("<html>"), false));
    pod_watch_free(w);
    loop_free(l);
}

/* ---- progress ---- */

static void progress_lines(void **state)
{
    (void)state;
    char text[512];
    struct drive_progress p = {.elapsed_s = 65.2, .total = 200, .done = 50, .failed = 2, .running = 8, .waiting = 3};
    progress_text(&p, 2.5, 0, text, sizeof(text));
    assert_string_equal(text, " 25% 50/200 [01:05<01:00, 2.50 req/s, 8 running, 3 waiting, 2 failed]");
    p.waiting = 0;
    size_t n = progress_text(&p, 2.5, 90, text, sizeof(text));
    assert_non_null(strstr(text, " 25%|██████"));
    unsigned cells = 0;
    for (size_t i = 0; i < n; i++)
        cells += ((unsigned char)text[i] & 0xc0) != 0x80;
    assert_true(cells <= 90);
    p = (struct drive_progress){.elapsed_s = 4000, .total = 0};
    progress_text(&p, 0, 40, text, sizeof(text));
    assert_string_equal(text, "100% 0/0 [1:06:40<?, 0.00 req/s, 0 running, 0 failed]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines_in_any_split),
                                       cmocka_unit_test(whole_lines_hold_nothing),
                                       cmocka_unit_test(endless_line_is_refused),
                                       cmocka_unit_test(events),
                                       cmocka_unit_test(error_codes),
                                       cmocka_unit_test(cache_of_a_page),
                                       cmocka_unit_test(sums_over_pods),
                                       cmocka_unit_test(progress_lines)};
    return RUN_TESTS(tests);
}
