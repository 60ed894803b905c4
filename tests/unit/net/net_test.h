/* Helpers shared by the tests of net: a loop that ends by deadline, loopback addresses. */
#ifndef NET_TEST_H
#define NET_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "net/loop.h"

struct guard { /* stops a loop that hangs; `fired` tells */
    struct timer t;
    struct loop *l;
    bool fired;
};

static void guard_fired(struct timer *t)
{
    struct guard *g = CONTAINER_OF(t, struct guard, t);
    g->fired = true;
    loop_stop(g->l);
}

/* Runs the loop until loop_stop; fails the test when that takes longer than the loop's `us`. */
static inline void run_within(struct loop *l, uint64_t us)
{
    struct guard g = {.t.fn = guard_fired, .l = l};
    timer_set(l, &g.t, loop_clock_us(l) + us);
    loop_run(l);
    timer_stop(l, &g.t);
    assert_false(g.fired);
}

/* Lets the loop turn for a while. */
static inline void run_for(struct loop *l, uint64_t us)
{
    struct guard g = {.t.fn = guard_fired, .l = l};
    timer_set(l, &g.t, loop_clock_us(l) + us);
    loop_run(l);
}

static inline struct addr loopback(uint16_t port)
{
    struct addr a;
    assert_true(addr_parse(STR("127.0.0.1"), port, &a));
    return a;
}

#endif
