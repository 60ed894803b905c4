/* The retry budget: a share of the last ten seconds' requests plus ten per second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/retry.h"

#define SECOND ((uint64_t)1000000)

static unsigned spend(struct retry_budget *b, double share, uint64_t now_us)
{
    unsigned n = 0;
    while (retry_allowed(b, share, now_us) && n < 100000) {
        retry_count_retry(b, now_us);
        n++;
    }
    return n;
}

static void test_floor_without_requests(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    assert_int_equal(spend(&b, 0.2, 5 * SECOND), 100);
    assert_false(retry_allowed(&b, 0.2, 14 * SECOND));
    assert_int_equal(spend(&b, 0.2, 15 * SECOND), 100); /* ten seconds later they are forgotten */
}

static void test_share_of_requests(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    for (uint64_t s = 20; s < 30; s++)
        for (int i = 0; i < 100; i++)
            retry_count_request(&b, s * SECOND + (uint64_t)i);
    assert_int_equal(spend(&b, 0.2, 29 * SECOND), 100 + 200);
    assert_false(retry_allowed(&b, 0.2, 29 * SECOND + 1));
}

static void test_old_requests_do_not_count(void **state)
{
    (void)state;
    struct retry_budget b = {0};
    for (int i = 0; i < 1000; i++)
        retry_count_request(&b, 3 * SECOND);
    assert_int_equal(spend(&b, 0.5, 13 * SECOND), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_floor_without_requests),
                                       cmocka_unit_test(test_share_of_requests),
                                       cmocka_unit_test(test_old_requests_do_not_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
