/* The generator: published outputs, ranges and moments. */
#include "unit.h"
#include "base/rng.h"

#include <math.h>

static void test_known(void **state)
{
    (void)state;
    static const uint64_t want[] = {
        41943041ull,           58720359ull, 3588806011781223ull, 3591011842654386ull, 9228616714210784205ull,
        9973669472204895162ull};
    struct rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_true(rng_u64(&r) == want[i]);
    rng_init(&r, 0);
    assert_true(r.s[0] == 0xe220a8397b1dcdafull); /* splitmix64 of 0 */
}

static void test_below(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    unsigned hits[7] = {0};
    for (int i = 0; i < 70000; i++)
        hits[rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        assert_in_range(hits[i], 9600, 10400);
    assert_true(rng_below(&r, 1) == 0);
    unsigned third = 0; /* a plain product would draw the multiples of three of this range half of the time */
    for (int i = 0; i < 30000; i++)
        third += rng_below(&r, 3ull << 62) % 3 == 0;
    assert_in_range(third, 9600, 10400);
}

static void moments(double (*draw)(struct rng *), double *mean, double *var)
{
    struct rng r;
    double sum = 0, sq = 0;
    const int n = 400000;
    rng_init(&r, 2);
    for (int i = 0; i < n; i++) {
        double v = draw(&r);
        assert_true(isfinite(v));
        sum += v;
        sq += v * v;
    }
    *mean = sum / n;
    *var = sq / n - *mean * *mean;
}

static void test_moments(void **state)
{
    (void)state;
    double mean, var;
    moments(rng_unit, &mean, &var);
    assert_true(fabs(mean - 0.5) < 0.005 && fabs(var - 1.0 / 12) < 0.002);
    moments(rng_normal, &mean, &var);
    assert_true(fabs(mean) < 0.01 && fabs(var - 1) < 0.02);
    moments(rng_exp, &mean, &var);
    assert_true(fabs(mean - 1) < 0.01 && fabs(var - 1) < 0.03);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_below),
                                       cmocka_unit_test(test_moments)};
    return RUN_TESTS(tests);
}
