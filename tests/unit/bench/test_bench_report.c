/* The printed table, byte for byte. */
#include "bench_fixture.h"

static void text_is(const struct bench_run *r, const struct bench_stats *st, const char *want)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    bench_report(r, st, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_free(&out);
}

/* The figures and the text of the reference, model-servers.md 6.1, with the lines it leaves out. */
static void as_the_engines_client_prints(void **state)
{
    (void)state;
    struct bench_run r = {.max_concurrency = 64,
                          .request_rate = 20,
                          .duration_s = 63.53,
                          .show = {true, true, true, true},
                          .n_percentiles = 1,
                          .percentiles = {99}};
    struct bench_stats st = {.completed = 1000,
                             .input_tokens = 217393,
                             .output_tokens = 201648,
                             .request_throughput = 15.74,
                             .goodput = 11.02,
                             .output_throughput = 3173.92,
                             .total_throughput = 6595.66,
                             .peak_output_per_s = 8890,
                             .peak_concurrent = 64};
    st.dist[BENCH_TTFT] = (struct bench_dist){.mean = 221.41, .median = 218.72, .percentile = {811.56}};
    st.dist[BENCH_TPOT] = (struct bench_dist){.mean = 22.03, .median = 21, .percentile = {30.5}};
    st.dist[BENCH_ITL] = (struct bench_dist){.mean = 22.83, .median = 20.125, .percentile = {100}};
    st.dist[BENCH_E2EL] = (struct bench_dist){.mean = 4021.10, .median = 4000, .percentile = {123456789.126}};
    text_is(&r, &st,
            "============ Serving Benchmark Result ============\n"
            "Successful requests:                     1000      \n"
            "Failed requests:                         0         \n"
            "Maximum request concurrency:             64        \n"
            "Request rate configured (RPS):           20.00     \n"
            "Benchmark duration (s):                  63.53     \n"
            "Total input tokens:                      217393    \n"
            "Total generated tokens:                  201648    \n"
            "Request throughput (req/s):              15.74     \n"
            "Request goodput (req/s):                 11.02     \n"
            "Output token throughput (tok/s):         3173.92   \n"
            "Peak output token throughput (tok/s):    8890.00   \n"
            "Peak concurrent requests:                64.00     \n"
            "Total token throughput (tok/s):          6595.66   \n"
            "---------------Time to First Token----------------\n"
            "Mean TTFT (ms):                          221.41    \n"
            "Median TTFT (ms):                        218.72    \n"
            "P99 TTFT (ms):                           811.56    \n"
            "-----Time per Output Token (excl. 1st token)------\n"
            "Mean TPOT (ms):                          22.03     \n"
            "Median TPOT (ms):                        21.00     \n"
            "P99 TPOT (ms):                           30.50     \n"
            "---------------Inter-token Latency----------------\n"
            "Mean ITL (ms):                           22.83     \n"
            "Median ITL (ms):                         20.12     \n"
            "P99 ITL (ms):                            100.00    \n"
            "----------------End-to-end Latency----------------\n"
            "Mean E2EL (ms):                          4021.10   \n"
            "Median E2EL (ms):                        4000.00   \n"
            "P99 E2EL (ms):                           123456789.13\n"
            "==================================================\n");
}

static void only_what_was_asked(void **state)
{
    (void)state;
    struct bench_run r = {
        .request_rate = HUGE_VAL, .duration_s = 1, .show = {true}, .n_percentiles = 2, .percentiles = {50, 99.9}};
    struct bench_stats st = {.completed = 1, .goodput = -1};
    text_is(&r, &st,
            "============ Serving Benchmark Result ============\n"
            "Successful requests:                     1         \n"
            "Failed requests:                         0         \n"
            "Benchmark duration (s):                  1.00      \n"
            "Total input tokens:                      0         \n"
            "Total generated tokens:                  0         \n"
            "Request throughput (req/s):              0.00      \n"
            "Output token throughput (tok/s):         0.00      \n"
            "Peak output token throughput (tok/s):    0.00      \n"
            "Peak concurrent requests:                0.00      \n"
            "Total token throughput (tok/s):          0.00      \n"
            "---------------Time to First Token----------------\n"
            "Mean TTFT (ms):                          0.00      \n"
            "Median TTFT (ms):                        0.00      \n"
            "P50 TTFT (ms):                           0.00      \n"
            "P99.9 TTFT (ms):                         0.00      \n"
            "==================================================\n");
}

static void ours_follows(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_stats st;
    struct buf out;
    r.pods = fixture_pods;
    r.n_pods = 2;
    bench_stats(&r, &st);
    buf_init(&out, 1 << 16);
    bench_report(&r, &st, &out);
    const char *end = strstr(buf_cstr(&out), "\n==================================================\n");
    assert_non_null(end);
    assert_string_equal(end + 52, "Cached input tokens:                     64         (40.8 % of the input)\n"
                                  "-------------Failed requests by error-------------\n"
                                  "Service Unavailable                      1         \n"
                                  "-----------Time to First Token by turn------------\n"
                                  "Turn         Requests  Mean (ms)     Median        Max\n"
                                  "1                   1     500.00     500.00     500.00\n"
                                  "2                   2     625.00     625.00    1000.00\n"
                                  "------------Requests and tokens by pod------------\n"
                                  "Pod                                        Requests  Output tokens\n"
                                  "pod-a                                             2              6\n"
                                  "pod-b                                             1              2\n"
                                  "Coefficient of variation                      0.333          0.500\n");
    buf_free(&out);
}

static void errors_stay_on_a_line(void **state)
{
    (void)state;
    struct bench_sample s = {.error = "two\nlines\tand\x1b[31m colour"};
    struct bench_run r = {.request_rate = HUGE_VAL, .samples = &s, .n_samples = 1};
    struct bench_stats st;
    struct buf out;
    bench_stats(&r, &st);
    buf_init(&out, 1 << 16);
    bench_report(&r, &st, &out);
    assert_non_null(strstr(buf_cstr(&out), "\ntwo lines and [31m colour                1         \n"));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_engines_client_prints),
                                       cmocka_unit_test(only_what_was_asked), cmocka_unit_test(ours_follows),
                                       cmocka_unit_test(errors_stay_on_a_line)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
