/* Conversations that do not fit (conversation_hold): who is held, who passes, and every way a hold ends. */
#include "core/sched.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC     1000000ull
#define N_EPS   2
#define MAX_Q   48
#define HASHES  200
#define TOKENS  10000 /* a prompt: 40000 bytes, and 0.7 s and more of prefill */
#define BOUND   (100 * SEC)
#define IDLE    (60 * SEC) /* before anything was learnt */
#define NOBODY  UINT32_MAX

static struct sched *s;
static struct sched_params p;
static struct ep_ref ep[N_EPS];
static uint64_t now;
static struct sched_req q[MAX_Q];
static struct prefix_hashes ph[MAX_Q];
static uint64_t storage[MAX_Q][HASHES];
static bool inside[MAX_Q]; /* picked and not finished */

static void load(uint32_t i, double waiting, double kv)
{
    struct ep_load l = {.sent_us = now,
                        .done_us = now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .has_blocks = true,
                        .waiting = waiting,
                        .kv_frac = kv,
                        .kv_tokens = 4 * TOKENS + 1000, /* four prompts */
                        .block_tokens = 16};
    sched_ep_load(s, ep[i], &l, now);
}

static void room(bool yes)
{
    for (uint32_t i = 0; i < N_EPS; i++)
        load(i, 0, yes ? 0 : 0.95);
}

static void params(void)
{
    sched_params_init(&p);
    p.policy = SCHED_PREFIX_CACHE;
    p.queueing = true;
    p.conversation_hold_us = BOUND;
    p.queue_ttl_us = 10 * SEC;
    p.stale_us = 3600 * SEC;
    p.prefill_s = 100e-6;
    p.lru_by_memory = true;
    p.learn_speed = false;
    p.slow_start_us = 0;
}

static void start(void)
{
    memset(q, 0, sizeof(q));
    memset(inside, 0, sizeof(inside));
    now = 1000 * SEC;
    s = sched_new(&p, 42);
    for (uint32_t i = 0; i < N_EPS; i++)
        ep[i] = sched_ep_add(s, (void *)(uintptr_t)(i + 1), false, now);
    room(true);
}

/* Prompt `text` as request i: equal texts have equal blocks, and nothing else is shared. */
static enum sched_answer submit(uint32_t i, uint64_t text)
{
    ph[i] = (struct prefix_hashes){.h = storage[i], .n = 128, .n_fine = 128, .block_bytes = p.block_bytes};
    uint32_t coarse = (TOKENS * 4 / p.block_bytes - 128) / PREFIX_COARSE;
    ph[i].n += coarse;
    for (uint32_t k = 0; k < ph[i].n; k++)
        storage[i][k] = (text * 1000 + k + 1) * 0x9e3779b97f4a7c15ull;
    q[i].id = i;
    q[i].flow = q[i].flow ? q[i].flow : 1;
    q[i].hashes = &ph[i];
    q[i].prompt_bytes = TOKENS * 4;
    q[i].max_tokens = 50;
    q[i].n_outputs = 1;
    q[i].streamed = true;
    enum sched_answer a = sched_submit(s, &q[i], now);
    inside[i] = a == SCHED_PICKED;
    return a;
}

static void held(uint32_t i, uint64_t text)
{
    assert_int_equal(submit(i, text), SCHED_QUEUED);
    assert_true(q[i].on_hold);
}

static void done(uint32_t i, enum sched_outcome how)
{
    assert_true(inside[i]);
    if (how == OUT_OK)
        sched_first_token(s, &q[i], now);
    sched_finish(s, &q[i], how, NULL, now);
    inside[i] = false;
}

static void serve(uint32_t i, uint64_t text) /* at once, and answered */
{
    assert_int_equal(submit(i, text), SCHED_PICKED);
    done(i, OUT_OK);
    q[i] = (struct sched_req){0};
}

static uint32_t decided(void)
{
    struct sched_req *r = sched_next_decided(s);
    if (!r)
        return NOBODY;
    inside[r->id] = r->d.reject == REJECT_NONE;
    return (uint32_t)r->id;
}

static uint32_t placed(void)
{
    uint32_t i = decided();
    if (i != NOBODY)
        assert_int_equal(q[i].d.reject, REJECT_NONE);
    return i;
}

static uint64_t tick(uint64_t after_us)
{
    now += after_us;
    return sched_tick(s, now);
}

/* Prompts 100, 101, ... until nothing more fits anywhere without pushing something out. The request that tells is
 * taken back. */
static uint32_t fill(void)
{
    for (uint32_t n = 0; n < 12; n++) {
        if (submit(MAX_Q - 1, 100 + n) == SCHED_QUEUED) {
            assert_true(q[MAX_Q - 1].on_hold);
            sched_cancel(s, &q[MAX_Q - 1], now);
            q[MAX_Q - 1] = (struct sched_req){0};
            assert_in_range(n, 6, 8);
            return n;
        }
        done(MAX_Q - 1, OUT_OK);
        q[MAX_Q - 1] = (struct sched_req){0};
    }
    fail_msg("never full");
    return 0;
}

static void full(void)
{
    params();
    start();
    fill();
}

static void end(void)
{
    for (uint32_t i = 0; i < MAX_Q; i++) {
        if (inside[i])
            done(i, OUT_OK);
        assert_false(q[i].on_hold && !q[i].state);
    }
    while (decided() != NOBODY) {}
    for (uint32_t i = 0; i < MAX_Q; i++)
        if (inside[i])
            done(i, OUT_OK);
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_int_equal(st.queued, 0);
    assert_int_equal(st.inflight, 0);
    sched_free(s);
}

/* ---- who is held ---- */

static void test_room_at_once(void **state)
{
    (void)state;
    params();
    start();
    for (uint32_t i = 0; i < 6; i++)
        serve(i, i);
    end();
}

static void test_cold_is_held(void **state)
{
    (void)state;
    full();
    held(0, 1);
    tick(SEC);
    assert_int_equal(decided(), NOBODY);
    sched_cancel(s, &q[0], now);
    assert_false(q[0].on_hold);
    end();
}

static void test_off_by_default(void **state)
{
    (void)state;
    params();
    p.conversation_hold_us = 0;
    start();
    for (uint32_t i = 0; i < 20; i++)
        serve(i, i);
    end();
}

static void test_without_queueing(void **state)
{
    (void)state;
    params();
    p.queueing = false;
    start();
    for (uint32_t i = 0; i < 20; i++)
        serve(i, i);
    end();
}

/* Not for others: short prompts, pinned ones, and those that need no model. */
static void test_who_is_not_held(void **state)
{
    (void)state;
    full();
    q[0].prompt_bytes = 400;
    q[0].n_outputs = 1;
    assert_int_equal(sched_submit(s, &q[0], now), SCHED_PICKED);
    inside[0] = true;
    q[1].pinned = ep[0];
    assert_int_equal(submit(1, 1), SCHED_PICKED);
    q[2].light = true;
    assert_int_equal(submit(2, 2), SCHED_PICKED);
    end();
}

static void test_warm_passes(void **state)
{
    (void)state;
    full();
    held(0, 1);
    held(1, 2);
    assert_int_equal(submit(2, 100), SCHED_PICKED);
    assert_int_equal(q[2].d.reason, REASON_PREFIX_HOLDER);
    done(2, OUT_OK);
    room(false); /* and out of the queue, too, past those before it */
    assert_int_equal(submit(3, 101), SCHED_QUEUED);
    assert_false(q[3].on_hold);
    now += 1000;
    room(true);
    assert_int_equal(placed(), 3);
    assert_int_equal(decided(), NOBODY);
    assert_true(q[0].on_hold && q[1].on_hold);
    sched_cancel(s, &q[0], now);
    sched_cancel(s, &q[1], now);
    end();
}

/* ---- how it ends ---- */

/* What endpoint 0 has is used again and again, what 1 has is not. */
static void test_goes_where_idle(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill(), here[12], n_here = 0;
    for (uint32_t k = 0; k < n; k++) { /* who holds what */
        assert_int_equal(submit(40, 100 + k), SCHED_PICKED);
        if (q[40].d.ep.slot == ep[0].slot)
            here[n_here++] = k;
        done(40, OUT_OK);
        q[40] = (struct sched_req){0};
    }
    assert_in_range(n_here, 1, n - 1);
    held(0, 1);
    uint32_t who = NOBODY;
    for (uint32_t i = 1; who == NOBODY; i++) { /* pauses of ten seconds shorten what counts as idle a little */
        tick(SEC);
        who = placed();
        for (uint32_t k = 0; k < n_here && i % 10 == 0 && who == NOBODY; k++)
            serve(40, 100 + here[k]);
    }
    assert_int_equal(who, 0);
    assert_int_equal(q[0].d.ep.slot, ep[1].slot);
    assert_int_equal(q[0].d.reason, REASON_IDLE_CACHE);
    assert_false(q[0].on_hold);
    assert_in_range(q[0].d.queued_us, IDLE / 2, IDLE + SEC);
    end();
}

static void test_idle_from_the_start(void **state)
{
    (void)state;
    full();
    now += IDLE + SEC;
    assert_int_equal(submit(0, 1), SCHED_PICKED);
    assert_int_equal(q[0].d.queued_us, 0);
    end();
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    params();
    start();
    fill();
    uint64_t began = now;
    for (uint32_t i = 0; i < 4; i++) {
        held(i, i + 1);
        now += 1000;
    }
    now = began + IDLE + SEC; /* before anybody looked: a newcomer does not overtake */
    held(4, 5);
    room(false);
    tick(100000);
    assert_int_equal(decided(), NOBODY);
    room(true);
    tick(100000);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(placed(), i);
    end();
}

static void keep_warm(uint32_t n, uint64_t until)
{
    while (now < until) {
        for (uint32_t k = 0; k < n; k++)
            serve(40, 100 + k);
        uint64_t step = until - now < SEC ? until - now : SEC, next = tick(step);
        assert_true(next > now);
    }
}

static void test_bound(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill();
    held(0, 1);
    uint64_t began = now;
    keep_warm(n, began + BOUND - 1);
    assert_int_equal(decided(), NOBODY);
    assert_true(sched_tick(s, now) <= began + BOUND);
    tick(1);
    assert_int_equal(placed(), 0);
    assert_int_equal(q[0].d.queued_us, BOUND);
    end();
}

static void test_ttl_begins_afterwards(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill();
    held(0, 1);
    uint64_t began = now;
    keep_warm(n, began + BOUND - 1);
    room(false);
    tick(1);
    assert_false(q[0].on_hold);
    assert_true(sched_tick(s, now) <= began + BOUND + 10 * SEC);
    tick(10 * SEC - 1);
    assert_int_equal(decided(), NOBODY);
    tick(1);
    assert_int_equal(decided(), 0);
    assert_int_equal(q[0].d.reject, REJECT_QUEUE_TIMEOUT);
    assert_int_equal(q[0].d.queued_us, BOUND + 10 * SEC);
    end();
}

static void test_own_ttl_from_arrival(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill();
    q[0].ttl_us = 20 * SEC;
    held(0, 1);
    q[1].ttl_us = BOUND + 5 * SEC;
    held(1, 2);
    uint64_t began = now;
    keep_warm(n, began + 20 * SEC);
    assert_int_equal(decided(), 0);
    assert_int_equal(q[0].d.reject, REJECT_QUEUE_TIMEOUT);
    keep_warm(n, began + BOUND - 1);
    room(false);
    tick(1);
    tick(5 * SEC - 1);
    assert_int_equal(decided(), NOBODY);
    tick(1);
    assert_int_equal(decided(), 1);
    assert_int_equal(q[1].d.reject, REJECT_QUEUE_TIMEOUT);
    end();
}

/* Those held are no backlog: who has a deadline of its own is not refused for them. */
static void test_no_early_refusal(void **state)
{
    (void)state;
    full();
    assert_int_equal(submit(40, 100), SCHED_PICKED);
    uint32_t at = q[40].d.ep.slot == ep[1].slot; /* who holds it */
    done(40, OUT_OK);
    room(false);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(submit(i, 100), SCHED_QUEUED);
    for (uint32_t i = 0; i < 8; i++) { /* one a second */
        tick(SEC);
        load(at, 5, 0);
        assert_int_equal(placed(), i);
        load(at, 0, 0.95);
        done(i, OUT_OK);
        q[i] = (struct sched_req){0};
    }
    room(true);
    for (uint32_t i = 0; i < 20; i++)
        held(i, i + 1);
    room(false);
    q[30].ttl_us = 3 * SEC;
    assert_int_equal(submit(30, 100), SCHED_QUEUED);
    for (uint32_t i = 0; i < 31; i++)
        sched_cancel(s, &q[i], now);
    end();
}

/* Nor a sign of overload: the order stays as it is. */
static void test_adaptive_order_stays(void **state)
{
    (void)state;
    params();
    p.queue_order = ORDER_ADAPTIVE;
    p.queue_late_us = 2 * SEC;
    start();
    fill();
    held(0, 1);
    now += 10 * SEC;
    held(1, 2);
    tick(SEC);
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_false(st.newest_first);
    now += IDLE;
    tick(0);
    assert_int_equal(placed(), 0);
    assert_int_equal(placed(), 1);
    end();
}

static void test_cancel(void **state)
{
    (void)state;
    full();
    for (uint32_t i = 0; i < 3; i++)
        held(i, i + 1);
    sched_cancel(s, &q[0], now);
    sched_cancel(s, &q[2], now);
    sched_cancel(s, &q[2], now);
    tick(IDLE + SEC);
    assert_int_equal(placed(), 1);
    assert_int_equal(decided(), NOBODY);
    end();
}

static void test_capacity(void **state)
{
    (void)state;
    params();
    p.queue_requests = 3;
    start();
    fill();
    for (uint32_t i = 0; i < 4; i++)
        held(i, i + 1);
    assert_int_equal(decided(), 0);
    assert_int_equal(q[0].d.reject, REJECT_QUEUE_FULL);
    assert_false(q[0].on_hold);
    tick(IDLE + SEC);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(placed(), i);
    end();
}

/* ---- retries ---- */

static void test_retry(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill();
    held(0, 1);
    uint64_t began = now;
    keep_warm(n, began + 30 * SEC);
    struct sched_params off = p;
    off.conversation_hold_us = 0; /* a way to get it out with the servers as they are */
    sched_set_params(s, &off, now);
    assert_int_equal(placed(), 0);
    sched_set_params(s, &p, now);
    q[0].tried[q[0].n_tried++] = q[0].d.ep;
    done(0, OUT_STALE_CONN);
    assert_int_equal(submit(0, 1), SCHED_PICKED); /* once let go it is not held again */
    end();
}

/* Held once more after a failure, but all in all no longer than the bound. */
static void test_retry_bound(void **state)
{
    (void)state;
    params();
    start();
    uint32_t n = fill();
    held(0, 1);
    uint64_t began = now;
    tick(IDLE + SEC);
    assert_int_equal(placed(), 0);
    done(0, OUT_STALE_CONN);
    for (uint32_t k = 0; k < n; k++)
        if (submit(40, 100 + k) == SCHED_PICKED)
            done(40, OUT_OK), q[40] = (struct sched_req){0};
    assert_int_equal(submit(0, 1), SCHED_QUEUED);
    assert_true(q[0].on_hold);
    now = began + BOUND - 1;
    for (uint32_t k = 0; k < n; k++)
        serve(40, 100 + k);
    tick(0);
    assert_int_equal(decided(), NOBODY);
    tick(1);
    assert_int_equal(placed(), 0);
    end();
}

static void test_retry_after_the_bound(void **state)
{
    (void)state;
    full();
    held(0, 1);
    tick(IDLE + SEC);
    assert_int_equal(placed(), 0);
    now += BOUND;
    for (uint32_t k = 0; k < 12; k++)
        if (submit(40, 200 + k) == SCHED_QUEUED)
            break;
        else
            done(40, OUT_OK), q[40] = (struct sched_req){0};
    assert_true(q[40].on_hold);
    sched_cancel(s, &q[40], now);
    done(0, OUT_STALE_CONN);
    assert_int_equal(submit(0, 1), SCHED_PICKED);
    end();
}

/* ---- switched live ---- */

static void switched(const struct sched_params *to, enum sched_reason why)
{
    for (uint32_t i = 0; i < 3; i++)
        held(i, i + 1);
    now += 5 * SEC;
    sched_set_params(s, to, now);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(placed(), i);
        assert_false(q[i].on_hold);
        assert_int_equal(q[i].d.queued_us, 5 * SEC);
        if (why)
            assert_int_equal(q[i].d.reason, why);
    }
    end();
}

static void test_switched_off(void **state)
{
    (void)state;
    full();
    struct sched_params to = p;
    to.conversation_hold_us = 0;
    switched(&to, 0);
}

static void test_policy_switched(void **state)
{
    (void)state;
    full();
    struct sched_params to = p;
    to.policy = SCHED_DEFAULT;
    switched(&to, 0);
}

static void test_queueing_switched_off(void **state)
{
    (void)state;
    full();
    struct sched_params to = p;
    to.queueing = false;
    switched(&to, REASON_DRAINED);
}

/* While nobody has room: let go all the same, and the TTL begins. */
static void test_switched_off_without_room(void **state)
{
    (void)state;
    full();
    held(0, 1);
    now += 5 * SEC;
    room(false);
    struct sched_params to = p;
    to.policy = SCHED_DEFAULT;
    sched_set_params(s, &to, now);
    assert_false(q[0].on_hold);
    tick(10 * SEC - 1);
    assert_int_equal(decided(), NOBODY);
    tick(1);
    assert_int_equal(decided(), 0);
    assert_int_equal(q[0].d.reject, REJECT_QUEUE_TIMEOUT);
    end();
}

static void test_bound_changed(void **state)
{
    (void)state;
    full();
    held(0, 1);
    uint64_t began = now;
    now += 5 * SEC;
    p.conversation_hold_us = 20 * SEC;
    sched_set_params(s, &p, now);
    now = began + 20 * SEC;
    tick(0);
    assert_int_equal(placed(), 0);
    assert_int_equal(q[0].d.queued_us, 20 * SEC);
    end();
}

/* ---- what counts as idle ---- */

/* Conversations that come back after `pause`; then: how long is a cold prompt held? */
static uint64_t held_for(double pause_s)
{
    params();
    p.conversation_hold_us = 1000 * SEC;
    start();
    for (uint32_t i = 0; i < 500; i++) {
        serve(40, 100);
        now += (uint64_t)(pause_s * SEC);
        sched_tick(s, now);
    }
    fill();
    held(0, 1);
    uint64_t began = now;
    while (placed() == NOBODY)
        tick(SEC / 10);
    end();
    return now - began;
}

static void test_idle_is_learnt(void **state)
{
    (void)state;
    uint64_t five = held_for(5), sixty = held_for(60);
    assert_in_range(five, 9 * SEC, 13 * SEC); /* twice the pause */
    assert_in_range(sixty, 110 * SEC, 135 * SEC);
}

/* Nothing grows with the number of conversations seen. */
static void test_many_conversations(void **state)
{
    (void)state;
    params();
    start();
    for (uint32_t i = 0; i < 20000; i++) {
        now += IDLE + SEC;
        serve(40, 1000 + i);
    }
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_in_range(st.index_entries, 1, 20 * HASHES);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room_at_once),
        cmocka_unit_test(test_cold_is_held),
        cmocka_unit_test(test_off_by_default),
        cmocka_unit_test(test_without_queueing),
        cmocka_unit_test(test_who_is_not_held),
        cmocka_unit_test(test_warm_passes),
        cmocka_unit_test(test_goes_where_idle),
        cmocka_unit_test(test_idle_from_the_start),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_ttl_begins_afterwards),
        cmocka_unit_test(test_own_ttl_from_arrival),
        cmocka_unit_test(test_no_early_refusal),
        cmocka_unit_test(test_adaptive_order_stays),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_retry_bound),
        cmocka_unit_test(test_retry_after_the_bound),
        cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_policy_switched),
        cmocka_unit_test(test_queueing_switched_off),
        cmocka_unit_test(test_switched_off_without_room),
        cmocka_unit_test(test_bound_changed),
        cmocka_unit_test(test_idle_is_learnt),
        cmocka_unit_test(test_many_conversations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
