/* Bounded memory of response ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "sched/recall.h"

static struct str id_of(char buf[32], unsigned i)
{
    int n = snprintf(buf, 32, "resp_%u", i);
    return (struct str){buf, (size_t)n};
}

static void test_remembers_and_replaces(void **state)
{
    (void)state;
    struct recall r = {0};
    assert_int_equal(recall_get(&r, STR("x")).gen, 0);
    recall_put(&r, STR("x"), (struct ep_ref){3, 7});
    recall_put(&r, STR("y"), (struct ep_ref){4, 8});
    assert_int_equal(recall_get(&r, STR("x")).slot, 3);
    assert_int_equal(recall_get(&r, STR("y")).gen, 8);
    recall_put(&r, STR("x"), (struct ep_ref){5, 9});
    assert_int_equal(recall_get(&r, STR("x")).slot, 5);
    assert_int_equal(r.n, 2);
    recall_free(&r);
}

static void test_oldest_is_forgotten_at_the_bound(void **state)
{
    (void)state;
    struct recall r = {0};
    char buf[32];
    const unsigned n = RECALL_MAX + 5000;
    for (unsigned i = 0; i < n; i++)
        recall_put(&r, id_of(buf, i), (struct ep_ref){i, 1});
    assert_int_equal(r.n, RECALL_MAX);
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(recall_get(&r, id_of(buf, i)).gen, 0);
    for (unsigned i = 5000; i < n; i++)
        assert_int_equal(recall_get(&r, id_of(buf, i)).slot, i);
    recall_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_remembers_and_replaces),
                                       cmocka_unit_test(test_oldest_is_forgotten_at_the_bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
