/* The level of a worker that is behind: series of windows in, levels out. */
#include "../base/unit.h"
#include "proxy/strain.h"

#define LIMIT 0.005
#define DT    0.1

static unsigned run(struct strain *s, unsigned windows, double busy, double lag_s)
{
    unsigned level = s->level;
    for (unsigned i = 0; i < windows; i++)
        level = strain_step(s, LIMIT, DT, busy, lag_s);
    return level;
}

/* Windows until the level is `to`. */
static unsigned until(struct strain *s, unsigned to, double busy, double lag_s)
{
    for (unsigned i = 1; i < 1000; i++)
        if (strain_step(s, LIMIT, DT, busy, lag_s) == to)
            return i;
    fail_msg("the level never becomes %u", to);
    return 0;
}

static void test_rises_after_two_windows(void **state UNUSED)
{
    struct strain s = {0};
    assert_int_equal(run(&s, 1, 1, 0.006), 0);
    assert_int_equal(run(&s, 1, 1, 0.006), 1);
    assert_int_equal(run(&s, 100, 1, 0.019), 1);
    assert_int_equal(run(&s, 1, 1, 0.021), 1);
    assert_int_equal(run(&s, 1, 1, 0.021), 2);
    struct strain t = {0};
    assert_int_equal(run(&t, 2, 1, 0.5), 2); /* at once when it is that bad */
    struct strain u = {0};
    run(&u, 1, 1, 0.5);
    assert_int_equal(run(&u, 1, 1, 0.006), 1); /* the lower of two */
}

static void test_one_of_both_is_not_enough(void **state UNUSED)
{
    struct strain s = {0};
    assert_int_equal(run(&s, 100, 0.85, 0.5), 0); /* woken late, or one long round: there is time left */
    assert_int_equal(run(&s, 100, 1, 0.004), 0);  /* busy, and not behind */
    for (int i = 0; i < 50; i++) {                /* single windows */
        assert_int_equal(run(&s, 1, 1, 0.5), 0);
        assert_int_equal(run(&s, 1, 0.3, 0.001), 0);
    }
}

static void test_falls_level_by_level(void **state UNUSED)
{
    struct strain s = {0};
    run(&s, 2, 1, 0.5);
    unsigned first = until(&s, 1, 0.2, 0.0001), second = until(&s, 0, 0.2, 0.0001);
    assert_true(first >= 10 && first <= 11 && second >= 10 && second <= 11); /* a second each */
    assert_int_equal(run(&s, 100, 0.2, 0.0001), 0);
}

static void test_stays_between_the_limits(void **state UNUSED)
{
    struct strain s = {0};
    run(&s, 2, 1, 0.006);
    assert_int_equal(run(&s, 600, 1, 0.003), 1); /* more than half of what brought it here */
    for (int i = 0; i < 100; i++) {              /* calm for less than a second */
        assert_int_equal(run(&s, 8, 0.5, 0.0001), 1);
        assert_int_equal(run(&s, 1, 1, 0.0049), 1);
    }
    assert_int_equal(until(&s, 0, 1, 0.002) / 2, 5); /* busy all the time, but no longer behind */
}

/* A load that is bearable only with less care: the level is left ever more rarely. */
static void test_comes_back_ever_more_rarely(void **state UNUSED)
{
    struct strain s = {0};
    unsigned falls = 0, waits[8] = {0};
    run(&s, 2, 1, 0.006);
    while (falls < 8) {
        waits[falls++] = until(&s, 0, 0.6, 0.0005);
        assert_int_equal(until(&s, 1, 1, 0.006), 2);
    }
    for (unsigned i = 1; i < 6; i++)
        assert_true(waits[i] > 1.8 * waits[i - 1]);
    assert_true(waits[7] <= 322 && waits[7] >= 318);
    until(&s, 0, 0.2, 0.0001);
    run(&s, 5000, 0.2, 0.0001); /* long after: as in the beginning */
    run(&s, 2, 1, 0.006);
    assert_true(until(&s, 0, 0.2, 0.0001) <= 11);
}

static void test_off(void **state UNUSED)
{
    struct strain s = {0};
    run(&s, 2, 1, 0.5);
    for (int i = 0; i < 20; i++)
        assert_int_equal(strain_step(&s, 0, DT, 1, 10), 0);
    assert_int_equal(s.level, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rises_after_two_windows),     cmocka_unit_test(test_one_of_both_is_not_enough),
        cmocka_unit_test(test_falls_level_by_level),        cmocka_unit_test(test_stays_between_the_limits),
        cmocka_unit_test(test_comes_back_ever_more_rarely), cmocka_unit_test(test_off),
    };
    return RUN_TESTS(tests);
}
