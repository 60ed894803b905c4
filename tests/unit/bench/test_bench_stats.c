/* The statistics of a run: numpy's values for the primitives, hand-made requests for the totals. */
#include "bench_fixture.h"
#include "bench/stats.h"

#include <stdio.h>

static void percentiles_as_numpy(void **state)
{
    (void)state;
    double v[] = {1.25, 3.5, 2.0, 8.75, 0.125, 4.0, 4.0};
    bench_sort(v, 7);
    assert_near(bench_percentile(v, 7, 0), 0.125);
    assert_near(bench_percentile(v, 7, 5), 0.4625);
    assert_near(bench_percentile(v, 7, 50), 3.5);
    assert_near(bench_percentile(v, 7, 95), 7.325);
    assert_near(bench_percentile(v, 7, 99), 8.465);
    assert_near(bench_percentile(v, 7, 100), 8.75);
    assert_near(bench_percentile(v, 7, 140), 8.75);
    assert_near(bench_percentile(v, 1, 99), 0.125);
    assert_near(bench_percentile(v, 0, 99), 0);
}

static void distribution_as_numpy(void **state)
{
    (void)state;
    struct bench_run r = {.n_percentiles = 3, .percentiles = {25, 90, 99.9}};
    struct bench_dist d;
    double v[] = {0.5, 0.1, 0.9, 0.2};
    bench_dist_of(&r, v, 4, &d);
    assert_near(d.mean, 425);
    assert_near(d.std, 311.2474899497183);
    assert_near(d.median, 350);
    assert_near(d.percentile[0], 175);
    assert_near(d.percentile[1], 780);
    assert_near(d.percentile[2], 898.8);
    assert_near(d.max, 900);
    assert_int_equal(d.n, 4);
    bench_dist_of(&r, v, 0, &d);
    assert_near(d.mean + d.std + d.median + d.percentile[2] + d.max, 0);
}

static void totals_of_completed_requests(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_stats st;
    bench_stats(&r, &st);
    assert_int_equal(st.completed, 3);
    assert_int_equal(st.failed, 1);
    assert_int_equal(st.input_tokens, 157);
    assert_int_equal(st.output_tokens, 8);
    assert_int_equal(st.cached_tokens, 64);
    assert_near(st.request_throughput, 0.75);
    assert_near(st.output_throughput, 2);
    assert_near(st.total_throughput, 165.0 / 4);
    assert_true(st.goodput < 0);
    assert_near(st.dist[BENCH_TTFT].mean, 1750.0 / 3);
    assert_near(st.dist[BENCH_TTFT].median, 500);
    assert_int_equal(st.dist[BENCH_TPOT].n, 2); /* the request of one token has none */
    assert_near(st.dist[BENCH_TPOT].mean, (250.0 + 500) / 2);
    assert_int_equal(st.dist[BENCH_ITL].n, 4);
    assert_near(st.dist[BENCH_ITL].mean, 375);
    assert_near(st.dist[BENCH_E2EL].max, 1500);
}

/* Events at 0.5, 0.75, 1.25, 1.5, 2.5, 3.0 and 3.5 s; under way: one request in seconds 0 and 1, two in 2, one or both
 * in 3. */
static void peaks_by_the_second(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_stats st;
    bench_stats(&r, &st);
    assert_near(st.peak_output_per_s, 2);
    assert_int_equal(st.peak_concurrent, 2);
}

static void goodput_needs_every_level(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_stats st;
    r.slo_ms[BENCH_TTFT] = 500; /* met with equality by the first, by the second, not by the third */
    bench_stats(&r, &st);
    assert_near(st.goodput, 2.0 / 4);
    r.slo_ms[BENCH_TPOT] = 300;
    bench_stats(&r, &st);
    assert_near(st.goodput, 1.0 / 4);
    r.slo_ms[BENCH_TTFT] = 0; /* a single token has no time per token to exceed */
    bench_stats(&r, &st);
    assert_near(st.goodput, 2.0 / 4);
    r.slo_ms[BENCH_E2EL] = 1;
    bench_stats(&r, &st);
    assert_near(st.goodput, 0);
}

static void empty_runs_are_zeros(void **state)
{
    (void)state;
    struct bench_run r = {.request_rate = HUGE_VAL, .n_percentiles = 1, .percentiles = {99}};
    struct bench_stats st;
    bench_stats(&r, &st);
    assert_int_equal(st.completed + st.failed, 0);
    assert_near(st.request_throughput + st.dist[BENCH_TTFT].mean + st.peak_output_per_s, 0);
}

static void errors_by_kind(void **state)
{
    (void)state;
    static char texts[40][16];
    struct bench_sample s[60] = {0};
    struct bench_kind kinds[BENCH_MAX_KINDS];
    struct bench_run r = {.samples = s, .n_samples = 60};
    for (int i = 0; i < 60; i++) {
        if (i < 40)
            (void)snprintf(texts[i], sizeof(texts[i]), "error %02d", i);
        s[i].error = i < 40 ? texts[i] : i < 59 ? "error 03" : NULL;
    }
    assert_int_equal(bench_kinds(&r, kinds), BENCH_MAX_KINDS);
    assert_string_equal(kinds[0].error, "error 03");
    assert_int_equal(kinds[0].n, 20);
    assert_string_equal(kinds[1].error, "other"); /* 31 texts of their own, 9 and the one without text beyond */
    assert_int_equal(kinds[1].n, 10);
}

static void turns_and_pods(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_dist d[BENCH_MAX_TURNS];
    struct bench_pods p;
    assert_int_equal(bench_turns(&r, d), 2);
    assert_int_equal(d[0].n, 1);
    assert_near(d[1].mean, 625);
    r.pods = fixture_pods;
    r.n_pods = 2;
    bench_pods(&r, &p);
    assert_near(p.requests[0], 2);
    assert_near(p.tokens[1], 2);
    assert_int_equal(p.unknown, 0); /* the failure is nobody's */
    assert_near(p.requests_cv, 0.5 / 1.5);
    assert_near(p.tokens_cv, 2.0 / 4);
    bench_pods_free(&p);
}

static void names_of_percentiles(void **state)
{
    (void)state;
    char name[16];
    bench_percentile_name(99, name);
    assert_string_equal(name, "99");
    bench_percentile_name(99.9, name);
    assert_string_equal(name, "99.9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_as_numpy),
        cmocka_unit_test(distribution_as_numpy),
        cmocka_unit_test(totals_of_completed_requests),
        cmocka_unit_test(peaks_by_the_second),
        cmocka_unit_test(goodput_needs_every_level),
        cmocka_unit_test(empty_runs_are_zeros),
        cmocka_unit_test(errors_by_kind),
        cmocka_unit_test(turns_and_pods),
        cmocka_unit_test(names_of_percentiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
