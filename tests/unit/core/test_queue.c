/* The queue of flow control: the contract call by call, fairness and its bounds, and random operations against a model
 * that searches arrays. */
#include "base/rng.h"
#include "core/queue.h"
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NEVER UINT64_MAX

static struct queue *q;
static uint64_t next_seq;

static int setup(void **state)
{
    (void)state;
    q = queue_new(7);
    next_seq = 1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!queue_n(q)) /* a test that failed may leave items */
        queue_free(q);
    return 0;
}

static struct queue_item item(int priority, uint64_t flow, uint64_t lane)
{
    return (struct queue_item){
        .priority = priority, .flow = flow, .lane = lane, .bytes = 10, .seq = next_seq++, .deadline_us = NEVER};
}

static void push(struct queue_item *it, int priority, uint64_t flow, uint64_t lane)
{
    *it = item(priority, flow, lane);
    queue_push(q, it);
}

/* Serves the next one at once and to the end; returns it. */
static struct queue_item *serve(double tokens)
{
    struct queue_item *it = queue_next(q);
    assert_non_null(it);
    queue_take(q, it, tokens);
    queue_settle(q, it, -1);
    return it;
}

static void assert_empty(void)
{
    assert_null(queue_next(q));
    assert_null(queue_earliest(q));
    assert_null(queue_earliest_lowest(q));
    assert_null(queue_expired(q, NEVER));
    assert_int_equal(queue_n(q), 0);
    assert_int_equal(queue_bytes(q), 0);
    assert_true(queue_next_expiry(q) == NEVER);
    assert_false(queue_blocked_any(q));
}

/* ---- order ---- */

static void test_priorities(void **state)
{
    (void)state;
    static const int pushed[] = {0, INT_MIN, 5, -1, INT_MAX, 1000000, -7},
                     served[] = {INT_MAX, 1000000, 5, 0, -1, -7, INT_MIN};
    struct queue_item it[7];
    for (int i = 0; i < 7; i++)
        push(&it[i], pushed[i], 1, 1);
    assert_int_equal(queue_n_at(q, INT_MAX), 1);
    assert_int_equal(queue_n_at(q, INT_MAX - 1), 0);
    assert_int_equal(queue_n_at_least(q, INT_MIN), 7);
    assert_int_equal(queue_n_at_least(q, 0), 4);
    assert_int_equal(queue_n_at_least(q, 1), 3);
    assert_int_equal(queue_n_at_least(q, INT_MAX), 1);
    assert_int_equal(queue_bytes_above(q, 0), 30);
    assert_int_equal(queue_bytes_above(q, INT_MAX), 0);
    for (int i = 0; i < 7; i++)
        assert_int_equal(serve(100)->priority, served[i]);
    assert_empty();
}

static void test_fifo(void **state)
{
    (void)state;
    struct queue_item it[50];
    for (int i = 0; i < 50; i++)
        push(&it[i], 0, 1, (uint64_t)i % 3); /* lanes do not disturb it */
    for (int i = 0; i < 50; i++)
        assert_ptr_equal(serve(1), &it[i]);
}

static void test_back_to_front(void **state)
{
    (void)state;
    struct queue_item it[4];
    for (int i = 0; i < 4; i++)
        push(&it[i], 0, 1, 1);
    struct queue_item *first = queue_next(q);
    queue_take(q, first, 100);
    assert_false(queue_waiting(first));
    queue_settle(q, first, 0); /* its endpoint died: it comes back and keeps its place */
    queue_push(q, first);
    assert_true(queue_waiting(first));
    assert_ptr_equal(queue_earliest(q), first);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(serve(1), &it[i]);
}

static void test_deadlines(void **state)
{
    (void)state;
    static const uint64_t at[] = {500, 300, NEVER, 300, 100, NEVER, 300};
    static const int order[] = {4, 1, 3, 6, 0, 2, 5}; /* equal deadlines: by arrival */
    struct queue_item it[7];
    queue_set_order(q, QUEUE_BY_DEADLINE);
    for (int i = 0; i < 7; i++) {
        it[i] = item(0, 1, 1);
        it[i].deadline_us = at[i];
        queue_push(q, &it[i]);
    }
    for (int i = 0; i < 7; i++)
        assert_ptr_equal(serve(1), &it[order[i]]);
}

static void test_change_of_order(void **state)
{
    (void)state;
    struct queue_item it[40];
    for (int i = 0; i < 40; i++) {
        it[i] = item(0, 1, (uint64_t)i % 2);
        it[i].deadline_us = 1000 - (uint64_t)i;
        queue_push(q, &it[i]);
    }
    queue_set_order(q, QUEUE_BY_DEADLINE);
    for (int i = 39; i >= 30; i--)
        assert_ptr_equal(serve(1), &it[i]);
    queue_set_deadline(q, &it[0], 5); /* now the nearest */
    assert_ptr_equal(serve(1), &it[0]);
    queue_set_order(q, QUEUE_OLDEST_FIRST);
    for (int i = 1; i < 30; i++)
        assert_ptr_equal(serve(1), &it[i]);
    assert_empty();
}

static void test_newest_first(void **state)
{
    (void)state;
    struct queue_item it[40];
    queue_set_order(q, QUEUE_NEWEST_FIRST);
    for (int i = 0; i < 20; i++)
        push(&it[i], 0, 1, (uint64_t)i % 3);
    queue_block(q, &it[19]); /* of lane 1: the others' order is the same */
    assert_ptr_equal(serve(1), &it[18]);
    assert_ptr_equal(serve(1), &it[17]);
    assert_ptr_equal(serve(1), &it[15]);
    queue_unblock_all(q);
    assert_ptr_equal(serve(1), &it[19]);
    assert_ptr_equal(queue_earliest(q), &it[0]); /* discarding knows no order of service */
    queue_remove(q, &it[16]);
    queue_push(q, &it[16]); /* one that comes back has its place */
    it[20] = item(0, 1, 0);
    it[21] = item(0, 1, 0);
    queue_push(q, &it[21]);
    queue_push(q, &it[20]);
    assert_ptr_equal(serve(1), &it[21]);
    assert_ptr_equal(serve(1), &it[20]);
    assert_ptr_equal(serve(1), &it[16]);
    assert_ptr_equal(serve(1), &it[14]);
    queue_set_order(q, QUEUE_OLDEST_FIRST);
    for (int i = 0; i < 10; i++)
        assert_ptr_equal(serve(1), &it[i]);
    queue_set_order(q, QUEUE_NEWEST_FIRST);
    for (int i = 13; i >= 10; i--)
        assert_ptr_equal(serve(1), &it[i]);
    assert_empty();
}

static void test_newest_first_in_its_flow_only(void **state)
{
    (void)state;
    struct queue_item it[24];
    int served[3] = {0}, last[3] = {INT_MAX, INT_MAX, INT_MAX};
    for (int i = 0; i < 24; i++) /* flows 0 and 1 of priority 0, flow 2 of priority 1 */
        push(&it[i], i % 3 == 2, (uint64_t)i % 3, 1);
    queue_set_order(q, QUEUE_NEWEST_FIRST);
    for (int n = 0; n < 24; n++) {
        int i = (int)(serve(100) - it), f = i % 3;
        assert_int_equal(f == 2, n < 8); /* the higher priority first */
        assert_true(i < last[f]);
        last[f] = i;
        served[f]++;
        assert_in_range(served[0] - served[1] + 1, 0, 2); /* as much for both */
    }
    assert_empty();
}

/* ---- expiry, discarding, numbers ---- */

static void test_expiry(void **state)
{
    (void)state;
    struct queue_item it[3];
    for (int i = 0; i < 3; i++) {
        it[i] = item(i, (uint64_t)i, 1);
        it[i].deadline_us = i == 2 ? NEVER : 1000 - (uint64_t)i * 100;
        queue_push(q, &it[i]);
    }
    assert_int_equal(queue_next_expiry(q), 900);
    assert_null(queue_expired(q, 899));
    assert_ptr_equal(queue_expired(q, 900), &it[1]);
    queue_remove(q, &it[1]);
    queue_set_deadline(q, &it[2], 950);
    assert_int_equal(queue_next_expiry(q), 950);
    queue_set_deadline(q, &it[2], NEVER);
    assert_int_equal(queue_next_expiry(q), 1000);
    queue_take(q, &it[0], 1); /* in service: does not expire */
    assert_null(queue_expired(q, NEVER - 1));
    queue_settle(q, &it[0], 1);
    queue_remove(q, &it[2]);
    queue_remove(q, &it[2]); /* not waiting: nothing */
    assert_empty();
}

static void test_discards(void **state)
{
    (void)state;
    struct queue_item it[6];
    static const int priority[] = {0, -1, 1, -1, 0, -1};
    for (int i = 0; i < 6; i++)
        push(&it[i], priority[i], (uint64_t)i, 1);
    static const int lowest[] = {1, 3, 5, 0, 4, 2};
    for (int i = 0; i < 6; i++) {
        int left = 0;
        while (!queue_waiting(&it[left]))
            left++;
        assert_ptr_equal(queue_earliest(q), &it[left]);
        assert_ptr_equal(queue_earliest_lowest(q), &it[lowest[i]]);
        queue_remove(q, &it[lowest[i]]);
    }
    assert_empty();
}

static void test_n_before(void **state)
{
    (void)state;
    struct queue_item it[12];
    for (int i = 0; i < 2; i++)
        push(&it[i], 1, 9, 1);
    for (int i = 2; i < 8; i++)
        push(&it[i], 0, 1, 1);
    for (int i = 8; i < 11; i++)
        push(&it[i], 0, 2, 1);
    push(&it[11], 0, 3, 1);
    assert_int_equal(queue_n_before(q, 2, 1), 0);
    assert_int_equal(queue_n_before(q, 1, 1), 1);     /* (0 + 1) x 1 flow */
    assert_int_equal(queue_n_before(q, 0, 4), 2 + 3); /* a new flow: one of each */
    assert_int_equal(queue_n_before(q, 0, 3), 2 + 6);
    assert_int_equal(queue_n_before(q, 0, 1), 2 + 10); /* not more than the band has */
    assert_int_equal(queue_n_before(q, -1, 1), 12);
    queue_set_order(q, QUEUE_NEWEST_FIRST);
    assert_int_equal(queue_n_before(q, 1, 9), 1);
    assert_int_equal(queue_n_before(q, 0, 1), 2 + 3);
    assert_int_equal(queue_n_before(q, -1, 1), 12);
    while (queue_n(q))
        serve(1);
    assert_int_equal(queue_n_before(q, 0, 1), 0);
}

struct seen {
    uint64_t last, n;
};

static void see(void *ctx, struct queue_item *it)
{
    struct seen *s = ctx;
    assert_true(it->seq > s->last);
    s->last = it->seq;
    s->n++;
    queue_set_deadline(q, it, 5000 - it->seq);
}

static void test_each(void **state)
{
    (void)state;
    struct queue_item it[30];
    struct seen s = {0};
    queue_each(q, see, &s);
    assert_int_equal(s.n, 0);
    queue_set_order(q, QUEUE_BY_DEADLINE);
    for (int i = 0; i < 30; i++) {
        it[i] = item(i % 3, (uint64_t)i % 5, (uint64_t)i % 2);
        it[i].seq = (uint64_t)(i * 7 % 30 + 1); /* comes in any order */
        queue_push(q, &it[i]);
    }
    queue_each(q, see, &s);
    assert_int_equal(s.n, 30);
    assert_int_equal(queue_next_expiry(q), 4970);
    while (queue_n(q))
        serve(1);
}

/* ---- constraints ---- */

static void test_blocking(void **state)
{
    (void)state;
    struct queue_item it[6];
    push(&it[0], 1, 1, 10);
    push(&it[1], 1, 1, 10); /* behind it, same constraint */
    push(&it[2], 1, 1, 20); /* same flow, another */
    push(&it[3], 1, 2, 10); /* another flow, same constraint */
    push(&it[4], 1, 2, 30);
    push(&it[5], 0, 1, 10); /* lower band, same constraint */
    assert_ptr_equal(queue_next(q), &it[0]);
    queue_block(q, &it[0]);
    queue_block(q, &it[0]);
    assert_true(queue_blocked_any(q));
    assert_ptr_equal(queue_next(q), &it[2]); /* no lane holds up another */
    queue_block(q, queue_next(q));
    assert_ptr_equal(queue_next(q), &it[4]); /* no flow another */
    queue_block(q, queue_next(q));
    assert_null(queue_next(q)); /* constraint 10 counts in every band */
    struct queue_item low, late, other;
    push(&low, 0, 3, 40);
    assert_ptr_equal(queue_next(q), &low); /* no band another */
    queue_block(q, &low);
    push(&late, 1, 4, 20); /* blocked before it came */
    assert_null(queue_next(q));
    push(&other, 0, 4, 50);
    assert_ptr_equal(queue_next(q), &other);
    queue_remove(q, &other);
    queue_unblock_all(q);
    assert_false(queue_blocked_any(q));
    struct queue_item *order[] = {&it[0], &it[3], &late, &it[1], &it[4], &it[2], &it[5], &low};
    for (size_t i = 0; i < 8; i++)
        assert_ptr_equal(serve(i < 6 ? 100 : 1), order[i]);
    assert_empty();
}

static void test_block_ends_with_its_items(void **state)
{
    (void)state;
    struct queue_item a, b;
    push(&a, 0, 1, 10);
    queue_block(q, &a);
    queue_remove(q, &a);
    assert_false(queue_blocked_any(q));
    push(&b, 0, 1, 10);
    assert_ptr_equal(queue_next(q), &b);
    queue_block(q, &b);
    queue_take(q, &b, 5); /* what is blocked can still be taken */
    assert_false(queue_blocked_any(q));
    queue_settle(q, &b, 5);
    assert_empty();
}

/* ---- fairness ---- */

enum { A = 1, B = 2, N_MANY = 4000 };
static struct queue_item many[2][N_MANY];

static void backlog(int which, uint64_t flow, uint64_t lane, int n)
{
    for (int i = 0; i < n; i++)
        push(&many[which][i], 0, flow, lane);
}

static void clear(void)
{
    for (struct queue_item *it; (it = queue_earliest(q));)
        queue_remove(q, it);
}

static void test_weights(void **state)
{
    (void)state;
    const uint64_t flow[] = {B, A};
    const double weight[] = {1, 3};
    struct rng r;
    rng_init(&r, 3);
    queue_set_weights(q, flow, weight, 2);
    backlog(0, A, 1, N_MANY);
    backlog(1, B, 2, N_MANY);
    double got[3] = {0}, most = 0, least = 0;
    for (int i = 0; i < 4500; i++) {
        uint64_t f = queue_next(q)->flow;
        double t = 1 + (double)rng_below(&r, f == A ? 900 : 300);
        serve(t);
        got[f] += t;
        double diff = got[A] / 3 - got[B];
        most = fmax(most, diff);
        least = fmin(least, diff);
    }
    assert_true(most - least <= 2 * 300); /* over any stretch: 2 x L, L = 900 / 3 = 300 / 1 */
    assert_true(fabs(got[A] / got[B] - 3) < 0.05);
    clear();
    queue_set_weights(q, NULL, NULL, 0);
    backlog(0, A, 1, 1000);
    backlog(1, B, 2, 1000);
    got[A] = got[B] = 0;
    for (int i = 0; i < 1000; i++)
        got[queue_next(q)->flow] += 100, serve(100);
    assert_true(fabs(got[A] - got[B]) <= 100);
    clear();
}

/* Weights that change meanwhile: a correction undoes what was charged. */
static void test_weights_change(void **state)
{
    (void)state;
    const uint64_t flow[] = {A};
    struct queue_item in_service;
    queue_set_weights(q, flow, (const double[]){100}, 1);
    backlog(0, A, 1, 10);
    backlog(1, B, 1, 10);
    push(&in_service, 0, A, 1);
    queue_take(q, &in_service, 1000); /* + 10 */
    queue_set_weights(q, flow, (const double[]){1}, 1);
    queue_settle(q, &in_service, 500); /* - 5, not - 500 */
    assert_int_equal(serve(100)->flow, B);
    assert_int_equal(serve(100)->flow, A);
    assert_int_equal(serve(100)->flow, B);
    clear();
}

static void test_return_earns_nothing(void **state)
{
    (void)state;
    backlog(0, A, 1, N_MANY);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) /* B is away */
            assert_int_equal(serve(100)->flow, A);
        backlog(1, B, 2, 20);
        int b = 0;
        for (int i = 0; i < 20; i++) {
            b += serve(100)->flow == B;
            assert_true(abs(2 * b - i - 1) <= 2); /* in turn from the start */
        }
        for (int i = 0; i < 20; i++)
            queue_remove(q, &many[1][i]);
    }
    clear();
}

/* A blocked flow is passed over and makes up for nothing. */
static void test_blocked_earns_nothing(void **state)
{
    (void)state;
    backlog(0, A, 1, 100);
    backlog(1, B, 2, 1000);
    queue_block(q, &many[0][0]);
    for (int i = 0; i < 500; i++)
        assert_int_equal(serve(100)->flow, B);
    queue_unblock_all(q);
    int a = 0;
    for (int i = 0; i < 40; i++) {
        a += serve(100)->flow == A;
        assert_true(abs(2 * a - i - 1) <= 3);
    }
    clear();
}

/* A flow that has had service gets its turn however many new flows keep coming. */
static void test_no_starvation_by_newcomers(void **state)
{
    (void)state;
    enum { WAITING = 20 };
    backlog(0, A, 1, 100);
    for (int i = 0; i < WAITING; i++)
        push(&many[1][i], 0, 1000 + (uint64_t)i, 1);
    int a = 0;
    for (int i = WAITING; i < N_MANY; i++) { /* one comes, one goes */
        while (queue_next(q)->flow == A) {
            serve(100);
            a++;
        }
        serve(100);
        push(&many[1][i], 0, 1000 + (uint64_t)i, 1);
        if (i % 100 == 0)
            assert_true(a + 5 > i / (2 * WAITING) || a == 100);
    }
    assert_int_equal(a, 100);
    clear();
}

/* One big request at a time: what a flow owes is not forgotten in the moments when it has none. */
static void test_debt_outlives_idleness(void **state)
{
    (void)state;
    struct queue_item big;
    double got[3] = {0};
    backlog(1, B, 1, 1000);
    push(&big, 0, A, 1);
    for (int i = 0; i < 500; i++) {
        struct queue_item *it = serve(queue_next(q) == &big ? 1000 : 100);
        got[it->flow] += it == &big ? 1000 : 100;
        if (it == &big)
            push(&big, 0, A, 1);
    }
    assert_true(fabs(got[A] - got[B]) <= 2 * 1000);
    clear();
}

/* Only so many debts are remembered; the smallest are forgotten. */
static void test_resting_is_bounded(void **state)
{
    (void)state;
    enum { FLOWS = QUEUE_RESTING + 100 };
    struct queue_item holds = item(0, A, 1), it[2];
    queue_charge(q, &holds, 0);
    for (int i = 0; i < FLOWS; i++)
        many[0][i] = item(0, 1000 + (uint64_t)i, 1);
    for (int i = 0; i < FLOWS; i++) /* all at once, so that the virtual time stays at 0 */
        queue_charge(q, &many[0][i], 0);
    for (int i = 0; i < FLOWS; i++)
        queue_settle(q, &many[0][i], i + 1);
    push(&it[0], 0, 1000 + FLOWS - 1, 1); /* owes most */
    push(&it[1], 0, 1000, 1);             /* owes least: forgotten, so it starts at 0 */
    push(&many[1][0], 0, 1000 + 200, 1);  /* remembered */
    push(&many[1][1], 0, B, 1);           /* new */
    assert_ptr_equal(serve(1), &it[1]);
    assert_ptr_equal(serve(1), &many[1][1]);
    assert_ptr_equal(serve(1), &many[1][0]);
    assert_ptr_equal(serve(1), &it[0]);
    queue_settle(q, &holds, 0);
    assert_empty();
}

/* Estimates of A are three times too high, those of B half of what it needs; 40 requests are in service at a time. */
static void test_corrections(void **state)
{
    (void)state;
    enum { IN_SERVICE = 40 };
    struct queue_item *in[IN_SERVICE] = {0};
    struct rng r;
    double got[3] = {0}, most = 0, least = 0;
    rng_init(&r, 5);
    backlog(0, A, 1, N_MANY);
    backlog(1, B, 2, N_MANY);
    for (int i = 0; i < 5000; i++) {
        struct queue_item **slot = &in[rng_below(&r, IN_SERVICE)], *it = *slot;
        if (it)
            queue_settle(q, it, it->flow == A ? it->charged / 3 : it->charged * 2);
        *slot = it = queue_next(q);
        queue_take(q, it, it->flow == A ? 300 : 50);
        got[it->flow] += 100;
        if (i == 500) /* by now the corrections flow */
            got[A] = got[B] = 0;
        most = fmax(most, i < 500 ? 0 : got[A] - got[B]);
        least = fmin(least, i < 500 ? 0 : got[A] - got[B]);
    }
    assert_true(fabs(got[A] / got[B] - 1) < 0.01);
    assert_true(most - least <= 4 * 300 + 2 * IN_SERVICE * 50);
    for (int i = 0; i < IN_SERVICE; i++)
        if (in[i])
            queue_settle(q, in[i], -1);
    clear();
}

/* Alone, A was charged far too much a hundred times; that all is corrected at once does not shut out B. */
static void test_refunds_are_bounded(void **state)
{
    (void)state;
    backlog(0, A, 1, 1000);
    for (int i = 0; i < 100; i++)
        queue_take(q, queue_next(q), 10000);
    backlog(1, B, 2, 1000);
    for (int i = 0; i < 100; i++)
        queue_settle(q, &many[0][i], 0);
    int before_b = 0;
    while (serve(1000)->flow == A)
        before_b++;
    assert_true(before_b <= 2 * 10000 / 1000 + 1);
    clear();
}

static void test_charge_without_wait(void **state)
{
    (void)state;
    struct queue_item direct = item(0, A, 1), other = item(0, B, 1);
    backlog(0, A, 1, 10);
    backlog(1, B, 1, 10);
    queue_charge(q, &direct, 1000);
    for (int i = 0; i < 9; i++)
        assert_int_equal(serve(100)->flow, B); /* A has had its share */
    queue_settle(q, &direct, 0);
    assert_int_equal(serve(100)->flow, A);
    queue_settle(q, &direct, 5000);     /* a second time: nothing */
    queue_settle(q, &other, 5000);      /* never charged: nothing */
    queue_settle(q, &many[0][5], 5000); /* waits: nothing */
    assert_true(queue_waiting(&many[0][5]));
    clear();
}

static void test_odd_numbers(void **state)
{
    (void)state;
    static const double tokens[] = {-5, (double)NAN, (double)INFINITY, 0, 1e300};
    const uint64_t flow[] = {A, B};
    queue_set_weights(q, flow, (const double[]){1e-300, (double)INFINITY}, 2);
    backlog(0, A, 1, 10);
    backlog(1, B, 1, 10);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 2; j++) {
            struct queue_item *it = &many[j][i];
            queue_take(q, it, tokens[i]);
            assert_true(isfinite(it->charged) && it->charged >= 0);
            queue_settle(q, it, tokens[4 - i]);
        }
    assert_int_equal(serve(1)->flow, B); /* A paid 1e12 tokens / 1e-6 */
    clear();
    assert_empty();
}

/* Corrections round; a counter that gets below zero that way is still the least. */
static void test_rounding(void **state)
{
    (void)state;
    struct queue_item a = item(0, A, 1), b = item(0, A, 1), next[2];
    queue_charge(q, &a, 0.2);
    queue_charge(q, &b, 0.5);
    push(&next[1], 0, B, 1);
    push(&next[0], 0, A, 1);
    queue_settle(q, &a, 0);
    queue_settle(q, &b, 0);
    assert_ptr_equal(serve(1), &next[0]);
    assert_ptr_equal(serve(1), &next[1]);
}

/* ---- random operations against a model ---- */

enum { WORLD = 3000, M_FLOWS = 900, M_BANDS = 5, M_LANES = 6 };
static const int m_priority[M_BANDS] = {INT_MIN, -1, 0, 7, INT_MAX};

enum m_state { FREE, WAITING, IN_SERVICE };
struct m_flow {
    double counter, credit;
    uint64_t stamp, n;
};
struct m_band {
    double low, v;
    uint64_t n, out, n_flows;
    struct m_flow flow[M_FLOWS];
};
struct m_item {
    enum m_state state;
    uint32_t band, flow, lane;
    uint64_t seq, deadline;
    double charged, weight;
};
static struct {
    struct queue_item it[WORLD];
    struct m_item m[WORLD];
    uint32_t waiting[WORLD], n_waiting; /* of m */
    uint32_t place[WORLD];              /* there */
    struct m_band band[M_BANDS];
    double weight[M_FLOWS];
    uint64_t in_lane[M_LANES], bytes, stamp, seq, now;
    bool blocked[M_LANES];
    enum queue_order order;
    struct rng r;
    uint32_t items, flows, lanes, bands; /* how much of it is in use */
    uint64_t n_ops;                      /* operations that changed something */
} w;

static uint64_t m_flow_id(uint32_t flow)
{
    return flow == 0 ? 0 : flow == 1 ? UINT64_MAX : flow * 0x100000000ull; /* alike in their low bits */
}

static void m_wait(uint32_t i)
{
    w.place[i] = w.n_waiting;
    w.waiting[w.n_waiting++] = i;
    w.m[i].state = WAITING;
    w.in_lane[w.m[i].lane]++;
    w.bytes += w.it[i].bytes;
    struct m_band *b = &w.band[w.m[i].band];
    struct m_flow *f = &b->flow[w.m[i].flow];
    if (!f->n) {
        b->n_flows++;
        f->counter = fmax(f->counter, b->v);
        f->credit = 0;
        f->stamp = ++w.stamp;
    }
    f->n++;
    b->n++;
}

static void m_out(uint32_t i)
{
    uint32_t last = w.waiting[--w.n_waiting];
    w.waiting[w.place[i]] = last;
    w.place[last] = w.place[i];
    w.bytes -= w.it[i].bytes;
    if (--w.in_lane[w.m[i].lane] == 0)
        w.blocked[w.m[i].lane] = false;
    struct m_band *b = &w.band[w.m[i].band];
    b->n--;
    if (--b->flow[w.m[i].flow].n == 0)
        b->n_flows--;
}

/* A band out of use forgets. */
static void m_rest(struct m_band *b)
{
    if (b->n || b->out)
        return;
    memset(b->flow, 0, w.flows * sizeof(b->flow[0]));
    b->low = b->v = 0;
}

static void m_serve(uint32_t i, double tokens)
{
    struct m_item *m = &w.m[i];
    struct m_band *b = &w.band[m->band];
    struct m_flow *f = &b->flow[m->flow];
    m->charged = tokens;
    m->weight = w.weight[m->flow];
    f->counter = f->n ? fmax(f->counter, b->low - f->credit) : fmax(f->counter, b->v);
    double before = f->counter, after = before + tokens / m->weight;
    b->low = fmax(b->low, before);
    b->v = fmax(b->v, before);
    b->v = fmax(b->v, fmin(b->v + (after - before) / (double)(b->n_flows + (f->n == 0)), after));
    f->counter = after;
    f->credit = fmax(b->low - after, 0);
    f->stamp = ++w.stamp;
    b->out++;
    m->state = IN_SERVICE;
}

static void m_settle(uint32_t i, double tokens)
{
    struct m_item *m = &w.m[i];
    struct m_band *b = &w.band[m->band];
    struct m_flow *f = &b->flow[m->flow];
    b->out--;
    m->state = FREE;
    if (tokens >= 0) {
        f->counter = fmax(f->counter, b->low - f->credit);
        double to = f->counter + (tokens - m->charged) / m->weight;
        f->counter = fmax(to, fmin(f->counter, b->low - m->charged / m->weight));
        f->credit = fmax(b->low - f->counter, 0);
    }
    m_rest(b);
}

static int before(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* < 0: i is served before j. */
static int m_compare(uint32_t i, uint32_t j)
{
    const struct m_item *a = &w.m[i], *b = &w.m[j];
    if (a->band != b->band)
        return a->band > b->band ? -1 : 1;
    const struct m_flow *f = &w.band[a->band].flow[a->flow], *g = &w.band[b->band].flow[b->flow];
    if (f->counter != g->counter)
        return f->counter < g->counter ? -1 : 1;
    int by = before(f->stamp, g->stamp);
    if (!by && w.order == QUEUE_BY_DEADLINE)
        by = before(a->deadline, b->deadline);
    if (by)
        return by;
    return w.order == QUEUE_NEWEST_FIRST ? before(b->seq, a->seq) : before(a->seq, b->seq);
}

static struct queue_item *m_next(void)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t k = 0; k < w.n_waiting; k++) {
        uint32_t i = w.waiting[k];
        if (!w.blocked[w.m[i].lane] && (best == UINT32_MAX || m_compare(i, best) < 0))
            best = i;
    }
    return best == UINT32_MAX ? NULL : &w.it[best];
}

static void check_next(void)
{
    assert_ptr_equal(queue_next(q), m_next());
    assert_int_equal(queue_n(q), w.n_waiting);
    assert_int_equal(queue_bytes(q), w.bytes);
    bool any = false;
    for (uint32_t l = 0; l < w.lanes; l++)
        any |= w.blocked[l];
    assert_int_equal(queue_blocked_any(q), any);
}

static void check_searches(void)
{
    struct queue_item *earliest = NULL, *lowest = NULL, *expiry = NULL;
    uint64_t above[M_BANDS] = {0};
    for (uint32_t k = 0; k < w.n_waiting; k++) {
        struct queue_item *it = &w.it[w.waiting[k]];
        const struct m_item *m = &w.m[w.waiting[k]];
        if (!earliest || it->seq < earliest->seq)
            earliest = it;
        if (!lowest || it->priority < lowest->priority || (it->priority == lowest->priority && it->seq < lowest->seq))
            lowest = it;
        if (m->deadline != NEVER && (!expiry || m->deadline < expiry->deadline_us ||
                                     (m->deadline == expiry->deadline_us && it->seq < expiry->seq)))
            expiry = it;
        for (uint32_t b = 0; b < m->band; b++)
            above[b] += it->bytes;
    }
    assert_ptr_equal(queue_earliest(q), earliest);
    assert_ptr_equal(queue_earliest_lowest(q), lowest);
    uint64_t at = expiry ? expiry->deadline_us : NEVER;
    assert_true(queue_next_expiry(q) == at);
    assert_ptr_equal(queue_expired(q, w.now), at <= w.now ? expiry : NULL);
    uint64_t n = 0;
    for (uint32_t b = w.bands; b-- > 0;) {
        const struct m_band *band = &w.band[b];
        uint32_t flow = (uint32_t)rng_below(&w.r, w.flows);
        uint64_t own = w.order == QUEUE_NEWEST_FIRST ? 0 : band->flow[flow].n, turns = (own + 1) * band->n_flows;
        assert_int_equal(queue_n_before(q, m_priority[b], m_flow_id(flow)), n + MIN(turns, band->n));
        n += band->n;
        assert_int_equal(queue_n_at_least(q, m_priority[b]), n);
        assert_int_equal(queue_bytes_above(q, m_priority[b]), above[b]);
    }
}

static void count(void *ctx, struct queue_item *it)
{
    struct seen *s = ctx;
    assert_true(it->seq > s->last || !s->n);
    assert_int_equal(w.m[it - w.it].state, WAITING);
    s->last = it->seq;
    s->n++;
}

static double m_tokens(void)
{
    return rng_below(&w.r, 16) == 0 ? 0 : (double)rng_below(&w.r, rng_below(&w.r, 20) ? 1000 : 30000);
}

static uint64_t m_deadline(void)
{
    return rng_below(&w.r, 4) == 0 ? NEVER : w.now + rng_below(&w.r, 200);
}

static void do_come(uint32_t i)
{
    w.n_ops++;
    struct m_item *m = &w.m[i];
    struct queue_item *it = &w.it[i];
    if (!m->seq || rng_below(&w.r, 3)) /* else: the same request again */
        *m = (struct m_item){.band = (uint32_t)rng_below(&w.r, w.bands),
                             .flow = (uint32_t)rng_below(&w.r, w.flows),
                             .lane = (uint32_t)rng_below(&w.r, w.lanes),
                             .seq = ++w.seq};
    it->priority = m_priority[m->band];
    it->flow = m_flow_id(m->flow);
    it->lane = m->lane;
    it->seq = m->seq;
    it->bytes = rng_below(&w.r, 5000);
    it->deadline_us = m->deadline = m_deadline();
    if (rng_below(&w.r, 12)) {
        m_wait(i);
        queue_push(q, it);
    } else {
        double tokens = m_tokens();
        m_serve(i, tokens);
        queue_charge(q, it, tokens);
    }
}

static void do_take(uint32_t i)
{
    w.n_ops++;
    double tokens = m_tokens();
    m_serve(i, tokens);
    m_out(i);
    queue_take(q, &w.it[i], tokens);
}

static void do_remove(uint32_t i)
{
    w.n_ops++;
    m_out(i);
    w.m[i].state = FREE;
    m_rest(&w.band[w.m[i].band]);
    queue_remove(q, &w.it[i]);
    assert_false(queue_waiting(&w.it[i]));
}

static void do_settle(uint32_t i)
{
    w.n_ops++;
    static const double part[] = {-1, 0, 0.5, 1, 1, 2.25};
    double tokens = part[rng_below(&w.r, 6)] * (w.m[i].charged + 1);
    queue_settle(q, &w.it[i], tokens);
    m_settle(i, tokens);
}

static void do_block(uint32_t i)
{
    w.n_ops++;
    w.blocked[w.m[i].lane] = true;
    queue_block(q, &w.it[i]);
}

static void do_next(void)
{
    struct queue_item *it = queue_next(q);
    if (!it)
        return;
    if (rng_below(&w.r, 6))
        do_take((uint32_t)(it - w.it));
    else
        do_block((uint32_t)(it - w.it));
}

static void do_weights(void)
{
    uint64_t flow[8];
    double weight[8];
    uint32_t n = (uint32_t)rng_below(&w.r, 9), first = (uint32_t)rng_below(&w.r, w.flows);
    n = MIN(n, w.flows);
    for (uint32_t f = 0; f < w.flows; f++)
        w.weight[f] = 1;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t f = (first + k * 7) % w.flows;
        for (uint32_t j = 0; j < k; j++) /* each once */
            if (flow[j] == m_flow_id(f))
                return do_weights();
        flow[k] = m_flow_id(f);
        w.weight[f] = weight[k] = 0.25 * (double)(1 + rng_below(&w.r, 12));
    }
    queue_set_weights(q, flow, weight, n);
}

static void do_rare(void)
{
    w.n_ops++;
    switch (rng_below(&w.r, 4)) {
    case 0:
        do_weights();
        break;
    case 1:
        w.order = (enum queue_order)rng_below(&w.r, 3);
        queue_set_order(q, w.order);
        break;
    default: {
        struct seen s = {0};
        queue_each(q, count, &s);
        assert_int_equal(s.n, w.n_waiting);
    }
    }
}

/* One random operation on item i, whatever state that is in. */
static void step(uint32_t i, uint32_t busy)
{
    uint64_t what = rng_below(&w.r, 100);
    if (what < 30) {
        do_next();
    } else if (what < 35) {
        memset(w.blocked, 0, sizeof(w.blocked));
        queue_unblock_all(q);
    } else if (what < 40) {
        w.now += rng_below(&w.r, 20);
    } else if (w.m[i].state == FREE) {
        if (what < busy)
            do_come(i);
    } else if (w.m[i].state == IN_SERVICE) {
        do_settle(i);
    } else if (what < 50) {
        w.n_ops++;
        queue_set_deadline(q, &w.it[i], w.m[i].deadline = m_deadline());
    } else if (what < 53) {
        do_block(i);
    } else if (what < 57) {
        do_remove(i);
    } else if (what < 60) {
        do_take(i);
    } else if (rng_below(&w.r, 400) == 0) {
        do_rare();
    }
}

static void leave_all(void)
{
    for (uint32_t i = 0; i < w.items; i++)
        if (w.m[i].state == IN_SERVICE)
            do_settle(i);
        else if (w.m[i].state == WAITING)
            do_remove(i);
    assert_empty();
    memset(w.blocked, 0, sizeof(w.blocked));
}

/* Runs `ops` operations in a world of the given size; every answer is compared every `every` operations. */
static void run_world(uint32_t items, uint32_t flows, uint32_t lanes, uint32_t bands, uint64_t ops, int every)
{
    w.items = items;
    w.flows = flows;
    w.lanes = lanes;
    w.bands = bands;
    memset(w.m, 0, sizeof(w.m));
    memset(w.it, 0, sizeof(w.it));
    memset(w.band, 0, sizeof(w.band));
    do_weights();
    uint32_t busy = 100;
    ops += w.n_ops;
    for (int k = 0; w.n_ops < ops; k++) {
        if (k % 5000 == 0)
            busy = 40 + (uint32_t)rng_below(&w.r, 61); /* now full, now nearly empty */
        step((uint32_t)rng_below(&w.r, items), busy);
        if (k % every == 0)
            check_next();
        if (k % (8 * every) == 0)
            check_searches();
    }
    leave_all();
}

static void test_model(void **state)
{
    (void)state;
    const uint64_t k = 3000;
    memset(&w, 0, sizeof(w));
    rng_init(&w.r, 2024);
    for (int round = 0; round < 10; round++) {
        run_world(6, 2, 2, 2, 30 * k, 1);
        run_world(30, 4, 3, 3, 40 * k, 1);
        run_world(60, 12, 6, 5, 30 * k, 1);
    }
    run_world(WORLD, M_FLOWS, M_LANES, 3, 60 * k, 16);
    run_world(WORLD, 1, 1, 1, 40 * k, 16);
    print_message("%" PRIu64 " operations\n", w.n_ops);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_priorities),
        T(test_fifo),
        T(test_back_to_front),
        T(test_deadlines),
        T(test_change_of_order),
        T(test_newest_first),
        T(test_newest_first_in_its_flow_only),
        T(test_expiry),
        T(test_discards),
        T(test_n_before),
        T(test_each),
        T(test_blocking),
        T(test_block_ends_with_its_items),
        T(test_weights),
        T(test_weights_change),
        T(test_return_earns_nothing),
        T(test_blocked_earns_nothing),
        T(test_no_starvation_by_newcomers),
        T(test_debt_outlives_idleness),
        T(test_resting_is_bounded),
        T(test_corrections),
        T(test_refunds_are_bounded),
        T(test_charge_without_wait),
        T(test_odd_numbers),
        T(test_rounding),
        T(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
