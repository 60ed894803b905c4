/* Metric families: the exposition text, the cap on series, hidden series, threads. */
#include "unit.h"
#include "base/metrics.h"

#include <math.h>
#include <pthread.h>

static void assert_page(struct metrics *m, const char *want)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_true(metrics_expose(m, &out));
    assert_string_equal(buf_cstr(&out), want);
    buf_free(&out);
}

static void test_exposition(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(2);
    const char *labels[] = {"model", "pod", NULL};
    const double bounds[] = {0.1, 1, 2.5};
    struct metric_family *c = metric_family(m, METRIC_COUNTER, "penstock_requests_total",
                                            "Requests.\nA \\ and a \"quote\".", labels, NULL, 0, 0);
    struct metric_family *g = metric_family(m, METRIC_GAUGE, "penstock_up", "Up.", NULL, NULL, 0, 0);
    struct metric_family *h = metric_family(m, METRIC_HISTOGRAM, "penstock_ttft_seconds", "TTFT.", NULL, bounds, 3, 0);
    struct metric *s = metric_series(c, (struct str[]){STR("a\"b\\c\nd"), STR("x\xff\xc3\xa9")});
    metric_add(s, 0, 1);
    metric_add(s, 1, 41);
    metric_set(metric_series(g, NULL), 0.25);
    struct metric *t = metric_series(h, NULL);
    metric_observe(t, 0, 0.1); /* a bound belongs to its bucket */
    metric_observe(t, 1, 0.5);
    metric_observe(t, 1, 2.6);
    metric_observe(t, 1, (double)NAN);
    assert_true(metric_value(s) == 42);
    assert_true(metric_value(t) == 3);
    assert_page(m, "# HELP penstock_requests_total Requests.\\nA \\\\ and a \"quote\".\n"
                   "# TYPE penstock_requests_total counter\n"
                   "penstock_requests_total{model=\"a\\\"b\\\\c\\nd\",pod=\"x\xef\xbf\xbd\xc3\xa9\"} 42\n"
                   "# HELP penstock_up Up.\n# TYPE penstock_up gauge\npenstock_up 0.25\n"
                   "# HELP penstock_ttft_seconds TTFT.\n# TYPE penstock_ttft_seconds histogram\n"
                   "penstock_ttft_seconds_bucket{le=\"0.1\"} 1\n"
                   "penstock_ttft_seconds_bucket{le=\"1\"} 2\n"
                   "penstock_ttft_seconds_bucket{le=\"2.5\"} 2\n"
                   "penstock_ttft_seconds_bucket{le=\"+Inf\"} 3\n"
                   "penstock_ttft_seconds_sum 3.2\n"
                   "penstock_ttft_seconds_count 3\n");
    assert_ptr_equal(metric_family(m, METRIC_GAUGE, "penstock_up", "again", NULL, NULL, 0, 0), g);
    struct buf small;
    buf_init(&small, 60);
    assert_false(metrics_expose(m, &small));
    buf_free(&small);
    metrics_free(m);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } rows[] = {{0, "0"},
                {-0.0, "0"},
                {1e15, "1000000000000000"},
                {9007199254740991.0, "9007199254740991"},
                {-5, "-5"},
                {0.1, "0.1"},
                {1.0 / 3, "0.3333333333333333"},
                {1e300, "1e+300"},
                {HUGE_VAL, "+Inf"},
                {-HUGE_VAL, "-Inf"},
                {(double)NAN, "NaN"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct metrics *m = metrics_new(1);
        char want[100];
        metric_set(metric_series(metric_family(m, METRIC_GAUGE, "g", "h", NULL, NULL, 0, 0), NULL), rows[i].v);
        snprintf(want, sizeof(want), "# HELP g h\n# TYPE g gauge\ng %s\n", rows[i].text);
        assert_page(m, want);
        metrics_free(m);
    }
}

static void test_cap_and_drop(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1);
    const char *labels[] = {"l", NULL};
    struct metric_family *f = metric_family(m, METRIC_COUNTER, "c", "h", labels, NULL, 0, 2);
    struct str a = STR("a"), b = STR("b"), c = STR("c"), d = STR("d");
    struct metric *sa = metric_series(f, &a), *sb = metric_series(f, &b);
    assert_ptr_equal(metric_series(f, &a), sa);
    metric_add(sa, 0, 1);
    metric_add(sb, 0, 2);
    struct metric *other = metric_series(f, &c);
    assert_ptr_equal(metric_series(f, &d), other);
    assert_ptr_equal(metric_series(f, &(struct str){"_other", 6}), other); /* never two series of the same labels */
    metric_add(other, 0, 7);
    assert_page(m, "# HELP c h\n# TYPE c counter\nc{l=\"a\"} 1\nc{l=\"b\"} 2\nc{l=\"_other\"} 7\n");
    metric_series_drop(f, &a);
    metric_series_drop(f, &a);
    metric_series_drop(f, &d); /* unknown: nothing happens */
    assert_page(m, "# HELP c h\n# TYPE c counter\nc{l=\"b\"} 2\nc{l=\"_other\"} 7\n");
    assert_ptr_equal(metric_series(f, &a), sa);
    assert_page(m, "# HELP c h\n# TYPE c counter\nc{l=\"a\"} 1\nc{l=\"b\"} 2\nc{l=\"_other\"} 7\n");
    metric_series_drop(f, &a);
    struct metric *sc = metric_series(f, &c); /* reuses the dropped one, from zero */
    assert_true(metric_value(sc) == 0);
    metric_add(sc, 0, 5);
    assert_page(m, "# HELP c h\n# TYPE c counter\nc{l=\"c\"} 5\nc{l=\"b\"} 2\nc{l=\"_other\"} 7\n");
    assert_ptr_equal(metric_series(f, &a), other);
    metrics_free(m);
}

static void test_long_values(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1);
    const char *labels[] = {"l", NULL};
    struct metric_family *f = metric_family(m, METRIC_COUNTER, "c", "h", labels, NULL, 0, 0);
    char text[400];
    for (size_t i = 0; i + 2 <= sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[0] = 'x';
    text[1] = 'y';
    metric_series(f, &(struct str){text, 400});
    metric_series(f, &(struct str){text + 1, 399});
    struct buf out;
    buf_init(&out, 10000);
    assert_true(metrics_expose(m, &out));
    assert_null(strstr(buf_cstr(&out), "\xef\xbf\xbd")); /* cut between characters */
    assert_true(out.n < 700);
    buf_free(&out);
    metrics_free(m);
}

/* Values whose joined text is the same are different series. */
static void test_keys_are_distinct(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1);
    const char *labels[] = {"a", "b", NULL};
    struct metric_family *f = metric_family(m, METRIC_COUNTER, "c", "h", labels, NULL, 0, 0);
    struct metric *x = metric_series(f, (struct str[]){STR("ab"), STR("c")});
    assert_ptr_not_equal(x, metric_series(f, (struct str[]){STR("a"), STR("bc")}));
    assert_ptr_not_equal(x, metric_series(f, (struct str[]){STR("abc"), STR_NULL}));
    metrics_free(m);
}

static void test_control_characters(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1);
    const char *labels[] = {"a", NULL};
    struct metric_family *f = metric_family(m, METRIC_COUNTER, "c", "h", labels, NULL, 0, 0);
    metric_add(metric_series(f, (struct str[]){STR("x\0y\x1b\x7f")}), 0, 1);
    metric_add(metric_series(f, (struct str[]){STR("x_y__")}), 0, 1);
    assert_page(m, "# HELP c h\n# TYPE c counter\nc{a=\"x_y__\"} 2\n");
    metrics_free(m);
}

struct live {
    struct metric_family *f;
    double v;
};

static void collect_live(void *ctx)
{
    struct live *l = ctx;
    metric_set(metric_series(l->f, NULL), ++l->v);
}

static void test_collector(void **state)
{
    (void)state;
    struct metrics *m = metrics_new(1);
    struct live l = {metric_family(m, METRIC_GAUGE, "g", "h", NULL, NULL, 0, 0), 0};
    metrics_collector(m, collect_live, &l);
    assert_page(m, "# HELP g h\n# TYPE g gauge\ng 1\n");
    assert_page(m, "# HELP g h\n# TYPE g gauge\ng 2\n");
    metrics_free(m);
}

#define N_THREADS 4
#define N_EACH    20000

static struct metric_family *shared_counter, *shared_hist;
static _Atomic unsigned next_shard;

static void *count(void *arg)
{
    (void)arg;
    unsigned shard = next_shard++;
    static const char *const names[] = {"a", "b", "c"};
    for (unsigned i = 0; i < N_EACH; i++) {
        struct str v = str_c(names[i % 3]);
        metric_add(metric_series(shared_counter, &v), shard, 1);
        metric_observe(metric_series(shared_hist, &v), shard, (double)(i % 10));
        if (i % 100 == 0)
            metric_series_drop(shared_counter, &v);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    const char *labels[] = {"l", NULL};
    const double bounds[] = {1, 5};
    struct metrics *m = metrics_new(N_THREADS);
    shared_counter = metric_family(m, METRIC_COUNTER, "c", "h", labels, NULL, 0, 0);
    shared_hist = metric_family(m, METRIC_HISTOGRAM, "x", "h", labels, bounds, 2, 0);
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    struct buf out;
    buf_init(&out, 1 << 20);
    for (int i = 0; i < 200; i++) {
        buf_clear(&out);
        assert_true(metrics_expose(m, &out));
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    double sum = 0, n = 0;
    for (int i = 0; i < 3; i++) {
        struct str v = str_c((const char *[]){"a", "b", "c"}[i]);
        sum += metric_value(metric_series(shared_counter, &v));
        n += metric_value(metric_series(shared_hist, &v));
    }
    assert_true(sum == N_THREADS * N_EACH);
    assert_true(n == N_THREADS * N_EACH);
    buf_free(&out);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exposition),
                                       cmocka_unit_test(test_numbers),
                                       cmocka_unit_test(test_cap_and_drop),
                                       cmocka_unit_test(test_long_values),
                                       cmocka_unit_test(test_keys_are_distinct),
                                       cmocka_unit_test(test_control_characters),
                                       cmocka_unit_test(test_collector),
                                       cmocka_unit_test(test_threads)};
    return RUN_TESTS(tests);
}
