/* Flow control, case by case: who is placed, who waits, who goes next, who is turned away and what it is told. */
#include "base/hash.h"
#include "core/sched.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC     1000000ull
#define MAX_EPS 8
#define MAX_Q   64

static struct sched *s;
static struct sched_params p;
static struct ep_ref ep[MAX_EPS];
static uint32_t n_eps;
static uint64_t now;
static struct sched_req q[MAX_Q];

static void load(uint32_t i, double waiting, double kv)
{
    struct ep_load l = {.sent_us = now,
                        .done_us = now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .waiting = waiting,
                        .running = 4,
                        .kv_frac = kv};
    sched_ep_load(s, ep[i], &l, now);
}

static void fill(void) /* all are full, until the next scrape */
{
    for (uint32_t i = 0; i < n_eps; i++)
        load(i, 0, 0.95);
}

static void start(uint32_t n)
{
    memset(q, 0, sizeof(q));
    now = 100 * SEC;
    s = sched_new(&p, 42);
    n_eps = n;
    for (uint32_t i = 0; i < n; i++)
        ep[i] = sched_ep_add(s, (void *)(uintptr_t)(i + 1), false, now);
    fill();
}

static void params(void)
{
    sched_params_init(&p);
    p.queueing = true;
}

static enum sched_answer submit(uint32_t i, int priority, uint64_t bytes)
{
    q[i].priority = priority;
    q[i].flow = q[i].flow ? q[i].flow : 1;
    q[i].prompt_bytes = bytes;
    q[i].n_outputs = 1;
    q[i].streamed = true;
    q[i].id = i;
    return sched_submit(s, &q[i], now);
}

static void queued(uint32_t i, int priority, uint64_t bytes)
{
    assert_int_equal(submit(i, priority, bytes), SCHED_QUEUED);
}

static uint32_t stat_queued(void)
{
    struct sched_stats st;
    sched_stats(s, now, &st);
    return (uint32_t)st.queued;
}

/* Room for exactly one: the endpoint is full again once it has got it. */
static uint32_t next_placed(uint32_t at)
{
    now += 1000;
    load(at, 5, 0.1);
    struct sched_req *r = sched_next_decided(s);
    if (!r)
        return UINT32_MAX;
    assert_int_equal(r->d.reject, REJECT_NONE);
    assert_int_equal(r->d.ep.slot, ep[at].slot);
    assert_true(r->d.queued_us > 0);
    load(at, 0, 0.95);
    assert_null(sched_next_decided(s));
    sched_first_token(s, r, now);
    sched_finish(s, r, OUT_OK, NULL, now);
    r->d.ep.gen = 0;
    assert_null(sched_next_decided(s));
    return (uint32_t)r->id;
}

static void rejected(uint32_t i, enum sched_reject why)
{
    struct sched_req *r = sched_next_decided(s);
    assert_non_null(r);
    assert_int_equal(r->id, i);
    assert_int_equal(r->d.reject, why);
}

static void finish_all(void)
{
    for (uint32_t i = 0; i < MAX_Q; i++)
        if (q[i].d.ep.gen && q[i].d.reject == REJECT_NONE)
            sched_finish(s, &q[i], OUT_OK, NULL, now);
    assert_int_equal(stat_queued(), 0);
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_int_equal(st.inflight, 0);
    assert_int_equal(st.queued_bytes, 0);
    sched_free(s);
}

/* ---- order ---- */

static void test_off_forwards(void **state) /* A19 */
{
    (void)state;
    params();
    p.queueing = false;
    start(2);
    assert_int_equal(submit(0, 0, 100), SCHED_PICKED);
    assert_int_equal(submit(1, 1, 100), SCHED_PICKED);
    assert_int_equal(submit(2, -1, 100), SCHED_REJECTED);
    assert_int_equal(q[2].d.reject, REJECT_SHED);
    assert_int_equal(stat_queued(), 0);
    finish_all();
}

static void test_classes_in_order(void **state) /* D11, D12 */
{
    (void)state;
    params();
    start(2);
    for (uint32_t i = 0; i < 30; i++)
        queued(i, (int)(i % 3) - 1, 100);
    uint32_t want[30], n = 0;
    for (int c = 1; c >= -1; c--)
        for (uint32_t i = 0; i < 30; i++)
            if ((int)(i % 3) - 1 == c)
                want[n++] = i;
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(next_placed(i % 2), want[i]);
    assert_int_equal(next_placed(0), UINT32_MAX);
    finish_all();
}

static void test_integer_priorities(void **state)
{
    (void)state;
    params();
    start(1);
    static const int prio[] = {0, 100, -7, 5, INT32_MAX, INT32_MIN, 5};
    static const uint32_t want[] = {4, 1, 3, 6, 0, 2, 5};
    for (uint32_t i = 0; i < 7; i++)
        queued(i, prio[i], 10);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(next_placed(0), want[i]);
    finish_all();
}

static void test_free_server_at_once(void **state) /* D6 */
{
    (void)state;
    params();
    start(5);
    load(3, 0, 0.1);
    assert_int_equal(submit(0, -1, 100), SCHED_PICKED);
    assert_int_equal(q[0].d.ep.slot, ep[3].slot);
    assert_int_equal(q[0].d.queued_us, 0);
    finish_all();
}

static void test_light_requests_pass(void **state)
{
    (void)state;
    params();
    start(1);
    queued(0, 1, 100);
    q[1].light = true;
    assert_int_equal(submit(1, 0, 0), SCHED_PICKED);
    assert_int_equal(next_placed(0), 0);
    finish_all();
}

static void test_room_by_finish(void **state)
{
    (void)state;
    params();
    start(1);
    load(0, 0, 0.1);
    uint32_t n = 0;
    while (submit(n, 0, 4000) == SCHED_PICKED) /* without any scrape, own reservations fill it */
        n++;
    assert_in_range(n, 8, 20);
    assert_int_equal(stat_queued(), 1);
    now += 50000;
    sched_finish(s, &q[0], OUT_OK, NULL, now);
    q[0].d.ep.gen = 0;
    assert_ptr_equal(sched_next_decided(s), &q[n]); /* the event that made room */
    assert_true(q[n].d.queued_us >= 50000);
    finish_all();
}

static void test_deadline_order(void **state)
{
    (void)state;
    params();
    p.queue_order = ORDER_DEADLINE;
    start(1);
    static const uint64_t ttl[] = {9, 3, 0, 5};
    static const uint32_t want[] = {1, 3, 0, 2};
    for (uint32_t i = 0; i < 4; i++) {
        q[i].ttl_us = ttl[i] * SEC;
        queued(i, 0, 10);
    }
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(next_placed(0), want[i]);
    finish_all();
}

static bool newest_first(void)
{
    struct sched_stats st;
    sched_stats(s, now, &st);
    return st.newest_first;
}

static void adaptive(void)
{
    params();
    p.queue_order = ORDER_ADAPTIVE;
    p.queue_late_us = 2 * SEC;
    p.queue_ttl_us = 10 * SEC;
    p.stale_us = 100 * SEC;
    start(1);
}

static void test_adaptive_order(void **state)
{
    (void)state;
    adaptive();
    for (uint32_t i = 0; i < 8; i++) {
        queued(i, 0, 10);
        now += 100000;
    }
    assert_int_equal(next_placed(0), 0); /* 0.8 s */
    now += 1200000;
    assert_int_equal(next_placed(0), 1);
    assert_false(newest_first());
    now += 200000; /* 2 has waited 2.0 s */
    assert_int_equal(next_placed(0), 7);
    assert_true(newest_first());
    queued(8, 0, 10);
    assert_int_equal(next_placed(0), 8);
    assert_int_equal(next_placed(0), 6);
    now = q[2].pushed_us + 10 * SEC; /* what nobody had time for keeps its TTL */
    sched_tick(s, now);
    rejected(2, REJECT_QUEUE_TIMEOUT);
    assert_null(sched_next_decided(s));
    assert_int_equal(next_placed(0), 5);
    now += SEC;
    sched_tick(s, now);
    rejected(3, REJECT_QUEUE_TIMEOUT);
    rejected(4, REJECT_QUEUE_TIMEOUT);
    assert_false(newest_first()); /* nobody waits */
    queued(9, 0, 10);
    queued(10, 0, 10);
    assert_int_equal(next_placed(0), 9);
    assert_int_equal(next_placed(0), 10);
    finish_all();
}

static void test_adaptive_order_ends(void **state)
{
    (void)state;
    adaptive();
    for (uint32_t i = 0; i < 3; i++)
        queued(i, 0, 10);
    now += 2 * SEC + 1;
    for (uint32_t i = 3; i < 6; i++)
        queued(i, 0, 10);
    assert_true(newest_first());
    for (uint32_t i = 0; i < 3; i++)
        sched_cancel(s, &q[i], now); /* nobody waits too long any more */
    now += SEC - 3000;
    assert_int_equal(next_placed(0), 5); /* the direction stays for half the limit */
    now += 3000;
    assert_int_equal(next_placed(0), 3);
    assert_false(newest_first());
    now += SEC;
    assert_int_equal(next_placed(0), 4);
    finish_all();
}

static void test_adaptive_order_by_class(void **state)
{
    (void)state;
    adaptive();
    for (uint32_t i = 0; i < 12; i++) { /* flows 1 and 2 of two classes */
        q[i].flow = 1 + i % 2;
        queued(i, i < 6 ? -1 : 1, 100);
    }
    now += 3 * SEC;
    static const uint32_t want[] = {10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1};
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(next_placed(0), want[i]);
    finish_all();
}

static void test_adaptive_order_hot(void **state)
{
    (void)state;
    adaptive();
    for (uint32_t i = 0; i < 8; i++) {
        q[i].ttl_us = (9 - i % 4) * SEC;
        queued(i, 0, 10);
    }
    now += 3 * SEC;
    assert_int_equal(next_placed(0), 7);
    sched_set_params(s, &p, now); /* as before */
    assert_int_equal(next_placed(0), 6);
    p.queue_order = ORDER_FIFO;
    sched_set_params(s, &p, now);
    assert_false(newest_first());
    assert_int_equal(next_placed(0), 0);
    p.queue_order = ORDER_DEADLINE;
    sched_set_params(s, &p, now);
    assert_int_equal(next_placed(0), 3);
    p.queue_order = ORDER_ADAPTIVE;
    sched_set_params(s, &p, now);
    assert_true(newest_first());
    assert_int_equal(next_placed(0), 5);
    p.queue_late_us = 8 * SEC;
    sched_set_params(s, &p, now);
    now += 4 * SEC; /* half of it later; they have waited 7 s */
    assert_int_equal(next_placed(0), 1);
    assert_false(newest_first());
    while (next_placed(0) != UINT32_MAX)
        ;
    finish_all();
}

/* A newcomer is not too late for what it will overtake; one that is turned away comes back when there is less. */
static void test_adaptive_order_estimates(void **state)
{
    (void)state;
    adaptive();
    p.queue_ttl_us = 500 * SEC;
    sched_set_params(s, &p, now);
    uint32_t n = 0;
    for (; n < 40; n++)
        queued(n, 0, 100);
    for (int i = 0; i < 20; i++) { /* two a second */
        now += 499000;
        assert_int_not_equal(next_placed(0), UINT32_MAX);
    }
    assert_true(newest_first());
    q[n].ttl_us = 5 * SEC; /* 20 wait: 10 s, but they do not go before it */
    queued(n, 0, 100);
    q[++n].ttl_us = SEC / 10;
    assert_int_equal(submit(n, 0, 100), SCHED_REJECTED);
    assert_int_equal(q[n].d.reject, REJECT_DEADLINE);
    assert_true(q[n].d.retry_after_s > 9 && q[n].d.retry_after_s < 12);
    while (next_placed(0) != UINT32_MAX)
        ;
    finish_all();
}

static void test_flows_share(void **state)
{
    (void)state;
    struct sched_flow_weight w[] = {{7, 3}};
    params();
    p.flow_weights = w;
    p.n_flow_weights = 1;
    start(1);
    for (uint32_t i = 0; i < 40; i++) { /* all of flow 8 came first */
        q[i].flow = i < 20 ? 8 : 7;
        queued(i, 0, 400);
    }
    uint32_t sevens = 0;
    for (uint32_t i = 0; i < 24; i++)
        sevens += next_placed(0) >= 20;
    assert_in_range(sevens, 17, 19); /* 3 of 4 */
    for (uint32_t i = 0; i < 16; i++)
        next_placed(0);
    finish_all();
}

/* ---- constraints ---- */

static void test_no_head_of_line_blocking(void **state)
{
    (void)state;
    params();
    start(2);
    struct sched_model a[] = {{11, false}}, both[] = {{11, false}, {22, false}};
    sched_ep_models(s, ep[0], a, 1, now);
    sched_ep_models(s, ep[1], both, 2, now);
    q[0].model = 22; /* only the second endpoint */
    queued(0, 1, 100);
    q[1].pinned = ep[1];
    queued(1, 1, 100);
    q[2].model = 11;
    queued(2, -1, 100);
    assert_int_equal(next_placed(0), 2); /* those before it, of a higher class, cannot use the room */
    assert_int_equal(next_placed(1), 0);
    assert_int_equal(next_placed(1), 1);
    finish_all();
}

static void test_pinned_elsewhere_when_gone(void **state)
{
    (void)state;
    params();
    start(2);
    load(0, 0, 0.1);
    q[0].pinned = ep[1];
    queued(0, 0, 100); /* waits for the one it must go to, though the other has room */
    sched_ep_drain(s, ep[1], true, now);
    assert_ptr_equal(sched_next_decided(s), &q[0]);
    assert_int_equal(q[0].d.ep.slot, ep[0].slot);
    finish_all();
}

static void test_retry_keeps_its_place(void **state)
{
    (void)state;
    params();
    start(2);
    load(0, 5, 0.1);
    assert_int_equal(submit(0, 0, 100), SCHED_PICKED);
    load(0, 0, 0.95);
    queued(1, 0, 100);
    queued(2, 0, 100);
    sched_finish(s, &q[0], OUT_STALE_CONN, NULL, now);
    q[0].tried[q[0].n_tried++] = ep[0];
    assert_int_equal(sched_submit(s, &q[0], now), SCHED_QUEUED);
    assert_int_equal(next_placed(0), 1); /* the first one was there already */
    assert_int_equal(next_placed(1), 0);
    assert_int_equal(next_placed(1), 2);
    finish_all();
}

static void test_retry_that_all_have_failed(void **state)
{
    (void)state;
    params();
    start(2);
    struct sched_model a[] = {{11, false}}, b[] = {{22, false}};
    for (uint32_t i = 0; i < 2; i++)
        q[0].tried[q[0].n_tried++] = ep[i];
    assert_int_equal(submit(0, 0, 100), SCHED_REJECTED);
    assert_int_equal(q[0].d.reject, REJECT_NO_ENDPOINT);
    q[1].tried[q[1].n_tried++] = ep[0];
    queued(1, 0, 100); /* the other is merely full */
    sched_cancel(s, &q[1], now);
    sched_ep_models(s, ep[0], a, 1, now);
    sched_ep_models(s, ep[1], b, 1, now);
    q[1].model = 11;
    assert_int_equal(submit(1, 0, 100), SCHED_REJECTED); /* and does not have its model */
    ep[2] = sched_ep_add(s, NULL, true, now);
    queued(0, 0, 100); /* a new one may be ready soon */
    sched_ep_probe(s, ep[2], true, now, now + 1);
    assert_ptr_equal(sched_next_decided(s), &q[0]);
    assert_int_equal(q[0].d.ep.slot, ep[2].slot);
    q[1].d.ep.gen = 0;
    finish_all();
}

static void test_new_endpoint_serves(void **state) /* X22: scaled from zero */
{
    (void)state;
    params();
    start(0);
    queued(0, 0, 100);
    ep[0] = sched_ep_add(s, NULL, true, now);
    assert_null(sched_next_decided(s));
    sched_ep_probe(s, ep[0], true, now, now + 1);
    assert_ptr_equal(sched_next_decided(s), &q[0]);
    sched_ep_remove(s, ep[0], now);
    queued(1, 0, 100);
    now += 31 * SEC;
    sched_tick(s, now);
    rejected(1, REJECT_NO_ENDPOINT);
    sched_finish(s, &q[0], OUT_OK, NULL, now);
    q[0].d.ep.gen = 0;
    finish_all();
}

/* ---- limits ---- */

static void test_ttl(void **state) /* A23 */
{
    (void)state;
    params();
    start(1);
    queued(0, 0, 100);
    q[1].ttl_us = 2 * SEC;
    queued(1, 0, 100);
    uint64_t t0 = now;
    assert_true(sched_tick(s, now) <= t0 + 2 * SEC);
    for (; now < t0 + 32 * SEC; now += 10000) {
        if (now % SEC == 0)
            fill();
        sched_tick(s, now);
        struct sched_req *r = sched_next_decided(s);
        if (r == &q[1])
            assert_in_range(now, t0 + 2 * SEC, t0 + 2 * SEC + 10000);
        else if (r == &q[0])
            assert_in_range(now, t0 + 30 * SEC, t0 + 30 * SEC + 10000);
        else
            assert_null(r);
        if (r)
            assert_int_equal(r->d.reject, REJECT_QUEUE_TIMEOUT);
    }
    finish_all();
}

static void test_capacity_earliest(void **state) /* A22 */
{
    (void)state;
    params();
    p.queue_bytes = 3000;
    start(1);
    for (uint32_t i = 0; i < 3; i++)
        queued(i, 0, 1000);
    queued(3, 0, 1000);
    rejected(0, REJECT_QUEUE_FULL);
    queued(4, 0, 1000);
    rejected(1, REJECT_QUEUE_FULL);
    assert_int_equal(submit(5, 1, 3001), SCHED_REJECTED); /* would not fit into an empty queue: nobody goes for it */
    assert_int_equal(q[5].d.reject, REJECT_QUEUE_FULL);
    assert_int_equal(stat_queued(), 3);
    for (uint32_t i = 2; i < 5; i++)
        assert_int_equal(next_placed(0), i);
    finish_all();
}

static void test_capacity_by_class(void **state)
{
    (void)state;
    params();
    p.queue_bytes = 3000;
    start(1);
    queued(0, 1, 1000);
    queued(1, -1, 1000);
    queued(2, 0, 1000);
    queued(3, 1, 1000); /* the lowest class present goes */
    rejected(1, REJECT_QUEUE_FULL);
    assert_int_equal(submit(4, -1, 1000), SCHED_REJECTED); /* lower than everything queued */
    queued(5, 1, 1000);
    rejected(2, REJECT_QUEUE_FULL);
    assert_int_equal(submit(6, 0, 1500), SCHED_REJECTED); /* and nobody is lost for one who cannot get in */
    assert_int_equal(stat_queued(), 3);
    p.queue_discard = DISCARD_EARLIEST;
    sched_set_params(s, &p, now);
    queued(7, -1, 1000);
    rejected(0, REJECT_QUEUE_FULL);
    for (uint32_t i = 0; i < 3; i++)
        next_placed(0);
    finish_all();
}

static void test_count_capacity(void **state)
{
    (void)state;
    params();
    p.queue_requests = 2;
    start(1);
    for (uint32_t i = 0; i < 3; i++)
        queued(i, 0, 0);
    rejected(0, REJECT_QUEUE_FULL);
    for (uint32_t i = 0; i < 2; i++)
        next_placed(0);
    finish_all();
}

static void test_early_refusal(void **state)
{
    (void)state;
    params();
    start(1);
    uint32_t n = 0;
    for (; n < 40; n++) {
        q[n].ttl_us = 500 * SEC;
        queued(n, 0, 100);
    }
    for (int i = 0; i < 20; i++) { /* two a second */
        now += 499000;
        assert_int_not_equal(next_placed(0), UINT32_MAX);
    }
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_true(st.drain_per_s > 1.8 && st.drain_per_s < 2.2);
    q[n].ttl_us = 5 * SEC; /* 20 before it: 10 s */
    assert_int_equal(submit(n, 0, 100), SCHED_REJECTED);
    assert_int_equal(q[n].d.reject, REJECT_DEADLINE);
    assert_true(q[n].d.retry_after_s > 9 && q[n].d.retry_after_s < 12);
    q[++n].ttl_us = 5 * SEC;
    queued(n, 1, 100); /* nobody before it */
    q[++n].ttl_us = 20 * SEC;
    queued(n, 0, 100);
    p.queue_ttl_us = 5 * SEC; /* the pool's: it waits for it */
    sched_set_params(s, &p, now);
    queued(++n, 0, 100);
    p.early_refusal = EARLY_ALL;
    sched_set_params(s, &p, now);
    assert_int_equal(submit(++n, 0, 100), SCHED_REJECTED);
    p.early_refusal = EARLY_OFF;
    sched_set_params(s, &p, now);
    q[++n].ttl_us = 1 * SEC;
    queued(n, 0, 100);
    while (next_placed(0) != UINT32_MAX)
        ;
    finish_all();
}

/* What a low priority can expect is what those above it leave. */
static void test_estimate_by_priority(void **state)
{
    (void)state;
    params();
    start(1);
    uint32_t n = 0;
    for (; n < 4; n++) {
        q[n].ttl_us = 500 * SEC;
        queued(n, -1, 100);
    }
    for (int i = 0; i < 40; i++, n++) { /* four a second, all to those above */
        queued(n, 0, 100);
        now += 249000;
        assert_int_equal(next_placed(0), n);
    }
    q[n].ttl_us = 5 * SEC;
    assert_int_equal(submit(n++, -1, 100), SCHED_REJECTED); /* 4 before it: one second at four a second */
    assert_int_equal(q[n - 1].d.reject, REJECT_DEADLINE);
    assert_true(q[n - 1].d.retry_after_s > 10);
    q[n].ttl_us = 1 * SEC;
    queued(n, 0, 100);
    while (next_placed(0) != UINT32_MAX)
        ;
    finish_all();
}

static void test_cancel(void **state) /* A24 */
{
    (void)state;
    params();
    start(1);
    queued(0, 0, 100);
    queued(1, 0, 100);
    sched_cancel(s, &q[0], now);
    assert_int_equal(stat_queued(), 1);
    sched_cancel(s, &q[0], now); /* no more there */
    assert_int_equal(next_placed(0), 1);
    sched_cancel(s, &q[1], now); /* placed: no-op */
    finish_all();
}

/* ---- changes ---- */

static void test_switched_off_drains(void **state)
{
    (void)state;
    params();
    start(2);
    for (uint32_t i = 0; i < 12; i++)
        queued(i, (int)(i % 3) - 1, 100);
    p.queueing = false;
    sched_set_params(s, &p, now);
    struct sched_req *r;
    int last = 2;
    uint32_t n = 0;
    while ((r = sched_next_decided(s))) {
        assert_int_equal(r->d.reject, REJECT_NONE);
        assert_int_equal(r->d.reason, REASON_DRAINED);
        assert_true(r->priority <= last);
        last = r->priority;
        n++;
    }
    assert_int_equal(n, 12); /* also the sheddable ones: they were let in */
    finish_all();
}

static void test_switched_off_in_steps(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static struct sched_req many[MANY];
    params();
    start(1);
    memset(many, 0, sizeof(many));
    for (uint32_t i = 0; i < MANY; i++) {
        many[i] = (struct sched_req){.flow = 1, .prompt_bytes = 10, .n_outputs = 1};
        assert_int_equal(sched_submit(s, &many[i], now), SCHED_QUEUED);
    }
    p.queueing = false;
    sched_set_params(s, &p, now);
    uint32_t n = 0, steps = 0;
    for (; stat_queued() || n < MANY; steps++) {
        while (sched_next_decided(s))
            n++;
        now = sched_tick(s, now);
        assert_in_range(steps, 0, 100);
    }
    assert_in_range(steps, 2, 20);
    for (uint32_t i = 0; i < MANY; i++)
        sched_finish(s, &many[i], OUT_OK, NULL, now);
    finish_all();
}

static void test_hot_limits(void **state)
{
    (void)state;
    params();
    start(1);
    for (uint32_t i = 0; i < 4; i++)
        queued(i, 0, 1000);
    p.queue_bytes = 2500;
    sched_set_params(s, &p, now);
    rejected(0, REJECT_QUEUE_FULL);
    rejected(1, REJECT_QUEUE_FULL);
    p.queue_ttl_us = 1 * SEC;
    now += 500000;
    sched_set_params(s, &p, now);
    now += 490000;
    sched_tick(s, now);
    assert_null(sched_next_decided(s));
    now += 20000; /* one second after it came */
    sched_tick(s, now);
    rejected(2, REJECT_QUEUE_TIMEOUT);
    rejected(3, REJECT_QUEUE_TIMEOUT);
    queued(4, 0, 1000);
    p.kv_threshold = 0.99; /* what was full has room now */
    sched_set_params(s, &p, now);
    assert_ptr_equal(sched_next_decided(s), &q[4]);
    finish_all();
}

static void test_stale_metrics(void **state)
{
    (void)state;
    params();
    p.queue_ttl_us = 3600 * SEC;
    start(1);
    queued(0, 0, 100);
    now += p.stale_us + SEC; /* the scrape that said full no longer counts */
    sched_tick(s, now);
    assert_ptr_equal(sched_next_decided(s), &q[0]);
    uint32_t n = 1;
    while (submit(n, 0, 4000) == SCHED_PICKED) /* and the own ledger limits */
        n++;
    assert_in_range(n, 6, 40);
    sched_cancel(s, &q[n], now);
    finish_all();
}

static void test_whole_answers_in_waves(void **state) /* D5 */
{
    (void)state;
    params();
    p.queue_ttl_us = 3600 * SEC;
    start(1);
    load(0, 0, 0.1);
    for (uint32_t i = 0; i < 40; i++) {
        q[i] = (struct sched_req){.id = i, .flow = 1, .prompt_bytes = 400, .n_outputs = 1};
        sched_submit(s, &q[i], now);
    }
    uint32_t waiting = stat_queued();
    assert_in_range(waiting, 20, 30);
    for (int i = 0; i < 20; i++) /* no answer, no scrape: that time passes says nothing */
        sched_tick(s, now += 100000);
    assert_int_equal(stat_queued(), waiting);
    load(0, 0, 0.1); /* it lets nobody wait: the next wave */
    sched_tick(s, now += 100000);
    assert_in_range(stat_queued(), waiting - 14, waiting - 8);
    waiting = stat_queued();
    now += 100000;
    load(0, 10, 0.1); /* now it does */
    for (int i = 0; i < 20; i++)
        sched_tick(s, now += 100000);
    assert_int_equal(stat_queued(), waiting);
    while (sched_next_decided(s))
        ;
    for (uint32_t i = 0; i < 40; i++) {
        sched_cancel(s, &q[i], now);
        q[i].d.ep.gen = q[i].d.reject == REJECT_NONE ? q[i].d.ep.gen : 0;
    }
    while (sched_next_decided(s))
        ;
    finish_all();
}

/* ---- waiting for the holder of the prefix ---- */

static char text[40000];
static struct prefix_hashes ph[4];
static uint64_t storage[4][PREFIX_MAX];

static void with_prefix(uint32_t i)
{
    prefix_hash((struct str){text, sizeof(text)}, 7, p.block_bytes, p.max_blocks, p.deep, &ph[i], storage[i], PREFIX_MAX);
    q[i].hashes = &ph[i];
}

static void test_prefix_wait(void **state)
{
    (void)state;
    params();
    p.policy = SCHED_PREFIX_CACHE;
    p.prefix_wait_us = 2 * SEC;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i % 26);
    start(2);
    load(0, 0, 0.1);
    with_prefix(0);
    assert_int_equal(submit(0, 0, sizeof(text)), SCHED_PICKED);
    sched_first_token(s, &q[0], now += 1000000);
    sched_finish(s, &q[0], OUT_OK, NULL, now);
    q[0].d.ep.gen = 0;
    load(0, 0, 0.95);
    load(1, 0, 0.1);
    with_prefix(1);
    queued(1, 0, sizeof(text)); /* by its own choice: the second endpoint is free, */
    assert_int_equal(submit(2, -1, 10), SCHED_PICKED); /* and serves others meanwhile */
    assert_int_equal(q[2].d.ep.slot, ep[1].slot);
    with_prefix(0);
    q[0].pinned = ep[1];
    assert_int_equal(submit(0, 0, sizeof(text)), SCHED_PICKED); /* has nothing to choose */
    assert_int_equal(q[0].d.ep.slot, ep[1].slot);
    now += 500000;
    load(0, 0, 0.1);
    assert_ptr_equal(sched_next_decided(s), &q[1]);
    assert_int_equal(q[1].d.ep.slot, ep[0].slot);
    assert_true(q[1].d.matched_bytes > sizeof(text) / 2);
    load(0, 0, 0.85);
    with_prefix(3);
    queued(3, 0, sizeof(text));
    for (int i = 0; i < 4; i++) { /* and not for longer than that */
        now += 500000;
        load(0, 0, 0.85);
        load(1, 0, 0.1);
        sched_tick(s, now);
    }
    assert_ptr_equal(sched_next_decided(s), &q[3]);
    assert_int_equal(q[3].d.ep.slot, ep[1].slot);
    finish_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off_forwards),
        cmocka_unit_test(test_classes_in_order),
        cmocka_unit_test(test_integer_priorities),
        cmocka_unit_test(test_free_server_at_once),
        cmocka_unit_test(test_light_requests_pass),
        cmocka_unit_test(test_room_by_finish),
        cmocka_unit_test(test_deadline_order),
        cmocka_unit_test(test_adaptive_order),
        cmocka_unit_test(test_adaptive_order_ends),
        cmocka_unit_test(test_adaptive_order_by_class),
        cmocka_unit_test(test_adaptive_order_hot),
        cmocka_unit_test(test_adaptive_order_estimates),
        cmocka_unit_test(test_flows_share),
        cmocka_unit_test(test_no_head_of_line_blocking),
        cmocka_unit_test(test_pinned_elsewhere_when_gone),
        cmocka_unit_test(test_retry_keeps_its_place),
        cmocka_unit_test(test_retry_that_all_have_failed),
        cmocka_unit_test(test_new_endpoint_serves),
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_capacity_earliest),
        cmocka_unit_test(test_capacity_by_class),
        cmocka_unit_test(test_count_capacity),
        cmocka_unit_test(test_early_refusal),
        cmocka_unit_test(test_estimate_by_priority),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_switched_off_drains),
        cmocka_unit_test(test_switched_off_in_steps),
        cmocka_unit_test(test_hot_limits),
        cmocka_unit_test(test_stale_metrics),
        cmocka_unit_test(test_whole_answers_in_waves),
        cmocka_unit_test(test_prefix_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
