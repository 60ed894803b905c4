/* The histogram against a sorted array. */
#include "unit.h"
#include "base/hist.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

#define N 20000

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void check_quantiles(const struct hist *h, uint64_t *v, size_t n)
{
    static const double qs[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    qsort(v, n, sizeof(*v), by_value);
    for (size_t i = 0; i < ARRAY_LEN(qs); i++) {
        double rank = ceil(qs[i] * (double)n);
        double want = (double)v[rank < 1 ? 0 : (size_t)rank - 1], got = (double)hist_quantile(h, qs[i]);
        assert_true(fabs(got - want) <= want * 0.032);
    }
}

static void test_like_sorted(void **state)
{
    (void)state;
    static struct hist h, half[2];
    static uint64_t v[N];
    struct rng r;
    rng_init(&r, 4);
    for (int round = 0; round < 4; round++) {
        hist_init(&h);
        hist_init(&half[0]);
        hist_init(&half[1]);
        for (size_t i = 0; i < N; i++) {
            v[i] = round == 0 ? rng_below(&r, 32) : rng_u64(&r) >> (round == 1 ? 1 : rng_below(&r, 60));
            v[i] = round == 3 ? v[i] : v[i] % 1000000000;
            hist_add(&h, v[i]);
            hist_add(&half[i % 2], v[i]);
        }
        hist_merge(&half[0], &half[1]);
        assert_memory_equal(&h, &half[0], sizeof(h));
        double sum = 0;
        for (size_t i = 0; i < N; i++)
            sum += (double)v[i];
        if (round < 3)
            assert_true(fabs(hist_mean(&h) - sum / N) <= sum / N * 1e-9);
        check_quantiles(&h, v, N);
    }
}

static void test_edges(void **state)
{
    (void)state;
    static struct hist h;
    hist_init(&h);
    assert_int_equal(hist_quantile(&h, 0.5), 0);
    assert_true(hist_mean(&h) == 0);
    hist_add(&h, UINT64_MAX);
    hist_add(&h, 0);
    assert_true(hist_quantile(&h, 1) == UINT64_MAX);
    assert_int_equal(hist_quantile(&h, 0), 0);
    assert_int_equal(h.n, 2);
    hist_add(&h, UINT64_MAX);
    assert_true(h.sum == UINT64_MAX); /* saturated */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_sorted), cmocka_unit_test(test_edges)};
    return RUN_TESTS(tests);
}
