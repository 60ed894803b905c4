/* Prefill/decode separation: what core/sched.h promises of joined schedulers, sentence by sentence. */
#include "core/sched.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC     1000000ull
#define MAX_EPS 8
#define MAX_Q   80
#define BLOCKS  64
#define LONG    512 /* blocks of a long prompt: 8192 tokens */

static struct sched *dec, *pre;
static struct sched_params pd, pp;
static struct ep_ref d[MAX_EPS], f[MAX_EPS];
static uint64_t now;
static struct sched_req q[MAX_Q], leg[MAX_Q];
static struct prefix_hashes ph;
static uint64_t blocks[LONG];

static void *user(uint32_t role, uint32_t i)
{
    return (void *)(uintptr_t)(role * 100 + i + 1);
}

static void params(void)
{
    sched_params_init(&pd);
    pd.policy = SCHED_PREFIX_CACHE;
    pd.learn_speed = false;
    pp = pd;
}

static void start(uint32_t n_decode, uint32_t n_prefill)
{
    memset(q, 0, sizeof(q));
    memset(leg, 0, sizeof(leg));
    now = 100 * SEC;
    dec = sched_new(&pd, 42);
    pre = sched_new(&pp, 43);
    for (uint32_t i = 0; i < n_decode; i++)
        d[i] = sched_ep_add(dec, user(0, i), false, now);
    for (uint32_t i = 0; i < n_prefill; i++)
        f[i] = sched_ep_add(pre, user(1, i), false, now);
    sched_join(dec, pre, now);
}

static void stop(void)
{
    sched_free(pre);
    sched_free(dec);
}

static void prompt(uint32_t i, uint64_t tokens, bool must)
{
    uint32_t n_tried = q[i].n_tried;
    q[i].n_outputs = 1;
    q[i].n_tried = n_tried;
    q[i].prompt_bytes = tokens * 4;
    q[i].streamed = true;
    q[i].id = i;
    q[i].leg = &leg[i];
    q[i].must_split = must;
}

static enum sched_answer submit(uint32_t i, uint64_t tokens, bool must)
{
    prompt(i, tokens, must);
    return sched_submit(dec, &q[i], now);
}

static void picked(uint32_t i, uint64_t tokens, bool must)
{
    assert_int_equal(submit(i, tokens, must), SCHED_PICKED);
}

static void hashes(uint32_t i, uint32_t line, uint32_t n)
{
    for (uint32_t k = 0; k < LONG; k++)
        blocks[k] = (uint64_t)line << 32 | (k + 1);
    ph = (struct prefix_hashes){.h = blocks, .n = n, .n_fine = n, .block_bytes = 64};
    q[i].hashes = leg[i].hashes = &ph;
}

static struct ep_view view_of(struct sched *s, struct ep_ref ep)
{
    struct ep_view v;
    assert_true(sched_ep_view(s, ep.slot, now, &v));
    return v;
}

static struct sched_stats stats(struct sched *s)
{
    struct sched_stats st;
    sched_stats(s, now, &st);
    return st;
}

static void load(struct sched *s, struct ep_ref ep, double waiting, double kv)
{
    struct ep_load l = {.sent_us = now,
                        .done_us = now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .waiting = waiting,
                        .running = 4,
                        .kv_frac = kv};
    sched_ep_load(s, ep, &l, now);
}

static bool same(struct ep_ref a, struct ep_ref b)
{
    return a.slot == b.slot && a.gen == b.gen;
}

static void end_leg(uint32_t i, enum sched_outcome how)
{
    struct sched_usage u = {.prompt_tokens = leg[i].prompt_bytes / 4, .completion_tokens = 1};
    if (how == OUT_OK)
        sched_first_token(pre, &leg[i], now);
    sched_finish(pre, &leg[i], how, how == OUT_OK ? &u : NULL, now);
}

static void end(uint32_t i)
{
    struct sched_usage u = {.prompt_tokens = q[i].prompt_bytes / 4, .completion_tokens = 100};
    sched_first_token(dec, &q[i], now);
    sched_finish(dec, &q[i], OUT_OK, &u, now);
}

static void end_both(uint32_t i)
{
    end_leg(i, OUT_OK);
    end(i);
}

static void all_released(void)
{
    struct sched *s[] = {dec, pre};
    for (uint32_t k = 0; k < 2; k++) {
        assert_int_equal(stats(s[k]).inflight, 0);
        for (uint32_t i = 0; i < sched_ep_slots(s[k]); i++) {
            struct ep_view v;
            if (!sched_ep_view(s[k], i, now, &v))
                continue;
            assert_true(!v.inflight && !v.unanswered && v.pending_prefill_s <= 0 && v.context_tokens <= 0);
            assert_true(v.decode_tokens <= 0);
        }
    }
}

/* ---- one step ---- */

static void test_both_or_none(void **state)
{
    (void)state;
    params();
    start(2, 2);
    picked(0, 8000, true);
    assert_true(q[0].split);
    struct ep_view v = view_of(dec, q[0].d.ep), w = view_of(pre, leg[0].d.ep);
    assert_ptr_equal(q[0].d.user, user(0, q[0].d.ep.slot));
    assert_ptr_equal(leg[0].d.user, user(1, leg[0].d.ep.slot));
    assert_int_equal(v.inflight, 1);
    assert_int_equal(v.unanswered, 0);
    assert_int_equal(v.coming, 1);
    assert_true(v.pending_prefill_s <= 0 && v.decode_tokens > 100 && v.kv_use > 8000.0 / 270000);
    assert_int_equal(w.inflight, 1);
    assert_int_equal(w.unanswered, 1);
    assert_true(w.pending_prefill_s > 0.6 && fabs(w.decode_tokens - 1) < 1e-9);
    end_both(0);
    all_released();
    sched_ep_drain(pre, f[0], true, now);
    sched_ep_drain(pre, f[1], true, now);
    assert_int_equal(submit(1, 8000, true), SCHED_REJECTED);
    assert_int_equal(q[1].d.reject, REJECT_NO_ENDPOINT);
    assert_true(q[1].d.no_prefill);
    all_released();
    sched_ep_drain(dec, d[0], true, now);
    sched_ep_drain(dec, d[1], true, now);
    assert_int_equal(submit(1, 8000, true), SCHED_REJECTED);
    assert_true(!q[1].d.no_prefill && q[1].d.reject == REJECT_NO_ENDPOINT);
    sched_ep_drain(pre, f[0], false, now);
    assert_int_equal(submit(1, 8000, true), SCHED_REJECTED);
    assert_true(!q[1].d.no_prefill && !q[1].split);
    assert_int_equal(view_of(pre, f[0]).inflight, 0);
    stop();
}

static void test_leg_is_copied(void **state)
{
    (void)state;
    params();
    start(1, 1);
    q[0].model = 7;
    q[0].priority = 3;
    q[0].max_tokens = 500;
    picked(0, 4000, true);
    assert_int_equal(leg[0].model, 7);
    assert_int_equal(leg[0].priority, 3);
    assert_int_equal(leg[0].max_tokens, 1);
    assert_int_equal(leg[0].prompt_bytes, 16000);
    assert_true(leg[0].out_tokens <= 1);
    end_both(0);
    stop();
}

/* ---- the cheaper way ---- */

/* Others' requests make the decode endpoint's own prefill dear. */
static void busy(uint32_t i, double running)
{
    struct ep_load l = {
        .sent_us = now, .done_us = now, .has_waiting = true, .has_running = true, .has_kv = true, .running = running};
    sched_ep_load(dec, d[i], &l, now);
}

static void test_cheaper_way(void **state)
{
    (void)state;
    params();
    start(1, 1);
    picked(0, 20, false); /* a short prompt is not worth the way */
    assert_false(q[0].split);
    assert_int_equal(leg[0].d.ep.gen, 0);
    assert_true(q[0].d.local_s <= q[0].d.split_s && q[0].d.split_s < HUGE_VAL);
    assert_true(view_of(dec, d[0]).pending_prefill_s > 0);
    assert_int_equal(view_of(pre, f[0]).inflight, 0);
    busy(0, 20);
    picked(1, 8000, false);
    assert_true(q[1].split && q[1].d.split_s < q[1].d.local_s);
    for (uint32_t i = 2; i < 12; i++) /* all to be computed by one: it becomes dear there */
        picked(i, 8000, false);
    uint32_t n = 0;
    for (uint32_t i = 1; i < 12; i++)
        n += q[i].split;
    assert_true(n > 1 && n < 11);
    end(0);
    for (uint32_t i = 1; i < 12; i++) {
        if (q[i].split)
            end_leg(i, OUT_OK);
        end(i);
    }
    all_released();
    stop();
}

static void test_held_here_is_computed_here(void **state)
{
    (void)state;
    params();
    start(2, 2);
    busy(0, 40);
    busy(1, 40);
    hashes(0, 1, BLOCKS);
    picked(0, BLOCKS * 16, false);
    assert_true(q[0].split);
    end_both(0);
    now += SEC / 5; /* what was learnt counts everywhere with the next refresh */
    sched_tick(dec, now);
    hashes(1, 1, BLOCKS);
    picked(1, BLOCKS * 16 + 10, false); /* all but a little is there */
    assert_false(q[1].split);
    assert_true(same(q[1].d.ep, q[0].d.ep));
    end(1);
    stop();
}

static void test_costs_of_both(void **state)
{
    (void)state;
    static struct sched_explain xd, xp;
    params();
    start(3, 2);
    busy(1, 60);
    q[0].explain = &xd;
    leg[0].explain = &xp;
    picked(0, 8000, true);
    assert_int_equal(xd.n, 3);
    assert_int_equal(xp.n, 2);
    for (uint32_t i = 0; i < 3; i++) {
        const struct sched_cost *c = &xd.cost[i];
        assert_true(c->prefill_s <= 0 && c->transfer_s > 0.08 && c->transfer_s < 0.1 && (c->answer_s > 0) == (i == 1));
        assert_true(fabs(c->total_s - (c->wait_s + c->kv_s + c->extra_s + c->transfer_s + c->answer_s)) < 1e-9);
    }
    assert_true(xp.cost[0].prefill_s > 0.5 && xp.cost[0].transfer_s <= 0);
    double legs = xd.cost[q[0].d.ep.slot].total_s + xp.cost[leg[0].d.ep.slot].total_s;
    assert_true(fabs(q[0].d.cost_s - legs) < 1e-9 && q[0].d.local_s >= HUGE_VAL);
    assert_true(fabs(q[0].d.split_s - legs) < 1e-3);
    assert_true(q[0].d.ttft_s > leg[0].d.ttft_s);
    end_both(0);
    hashes(1, 1, BLOCKS); /* what is there need not be brought there */
    picked(1, BLOCKS * 16, true);
    end_both(1);
    q[2].explain = &xd;
    hashes(2, 1, BLOCKS);
    picked(2, BLOCKS * 16, true);
    assert_true(same(q[2].d.ep, q[1].d.ep));
    for (uint32_t i = 0; i < 3; i++)
        assert_true((xd.cost[i].transfer_s < 0.0101) == (i == q[2].d.ep.slot));
    end_both(2);
    load(pre, f[0], 0, 0.9); /* who only prefills keeps nothing for long */
    load(dec, d[0], 0, 0.9);
    q[3].explain = &xd;
    leg[3].explain = &xp;
    picked(3, 8000, true);
    assert_true(xp.cost[0].kv_s > 0.01 && xp.cost[0].kv_s < 0.5 * xd.cost[0].kv_s);
    end_both(3);
    stop();
}

/* ---- prefixes of each role ---- */

static void test_holders(void **state)
{
    (void)state;
    params();
    start(4, 4);
    for (uint32_t i = 0; i < 8; i++) { /* eight conversations */
        hashes(i, i + 1, 32);
        picked(i, 512, true);
        end_both(i);
    }
    for (uint32_t round = 1; round < 4; round++)
        for (uint32_t i = 0; i < 8; i++) {
            struct ep_ref was = q[i].d.ep, leg_was = leg[i].d.ep;
            hashes(i, i + 1, 32 + round * 8);
            picked(i, 512 + round * 128, true);
            assert_true(same(q[i].d.ep, was) && q[i].d.reason == REASON_PREFIX_HOLDER);
            assert_true(same(leg[i].d.ep, leg_was) && leg[i].d.reason == REASON_PREFIX_HOLDER);
            assert_true(q[i].d.matched_bytes > 0 && leg[i].d.matched_bytes > 0);
            end_both(i);
        }
    stop();
}

static void test_policies_are_their_own(void **state)
{
    (void)state;
    params();
    pp.policy = SCHED_ROUND_ROBIN;
    start(3, 3);
    uint32_t seen = 0;
    struct ep_ref home = {0};
    for (uint32_t i = 0; i < 3; i++) {
        hashes(i, 1, 32);
        picked(i, 512, true);
        seen |= BIT(leg[i].d.ep.slot);
        assert_int_equal(leg[i].d.reason, REASON_ROUND_ROBIN);
        assert_true(!i || same(q[i].d.ep, home));
        home = q[i].d.ep;
        end_both(i);
    }
    assert_int_equal(seen, 7);
    stop();
    for (int a = 0; a < N_SCHED_POLICIES; a++) { /* each with each of the other role */
        params();
        pd.policy = (enum sched_policy)a;
        pp.policy = (enum sched_policy)((a * 5 + 3) % N_SCHED_POLICIES);
        start(3, 3);
        for (uint32_t i = 0; i < 20; i++) {
            hashes(i, i % 3 + 1, 32);
            picked(i, 2000, i % 2);
        }
        for (uint32_t i = 0; i < 20; i++) {
            if (q[i].split)
                end_leg(i, OUT_OK);
            end(i);
        }
        all_released();
        stop();
    }
}

/* ---- missing roles ---- */

static void test_without_prefill(void **state)
{
    (void)state;
    params();
    start(2, 0);
    picked(0, 8000, false);
    assert_true(!q[0].split && q[0].d.split_s >= HUGE_VAL && q[0].d.local_s < HUGE_VAL);
    end(0);
    assert_int_equal(submit(1, 8000, true), SCHED_REJECTED);
    assert_true(q[1].d.no_prefill);
    f[0] = sched_ep_add(pre, user(1, 0), false, now);
    picked(1, 8000, true);
    end_both(1);
    sched_ep_remove(pre, f[0], now);
    assert_int_equal(submit(2, 8000, true), SCHED_REJECTED);
    assert_true(q[2].d.no_prefill);
    all_released();
    stop();
}

static void test_ejected_prefill_tries(void **state)
{
    (void)state;
    params();
    start(1, 1);
    sched_ep_probe(pre, f[0], false, now, now); /* the only one is never ejected */
    sched_ep_probe(pre, f[0], false, now, now);
    picked(0, 8000, true);
    end_both(0);
    all_released();
    stop();
}

static void test_retries(void **state)
{
    (void)state;
    params();
    start(2, 3);
    for (uint32_t n = 0; n < 3; n++) {
        picked(0, 8000, true);
        for (uint32_t k = 0; k < n; k++)
            assert_false(same(leg[0].d.ep, leg[0].tried[k]));
        sched_finish(pre, &leg[0], OUT_SERVER_ERROR, NULL, now);
        sched_finish(dec, &q[0], OUT_CANCELLED, NULL, now);
        leg[0].tried[leg[0].n_tried++] = leg[0].d.ep;
    }
    assert_int_equal(submit(0, 8000, true), SCHED_REJECTED);
    assert_true(q[0].d.no_prefill);
    picked(0, 8000, false); /* but it may do without */
    assert_false(q[0].split);
    end(0);
    all_released();
    stop();
}

static void test_shed(void **state)
{
    (void)state;
    params();
    start(1, 1);
    for (uint32_t i = 0; i < 3; i++)
        q[i].priority = -1;
    picked(0, 8000, true);
    end_both(0);
    load(pre, f[0], 9, 0.1);
    assert_int_equal(submit(1, 8000, true), SCHED_REJECTED);
    assert_int_equal(q[1].d.reject, REJECT_SHED);
    picked(1, 8000, false);
    assert_false(q[1].split);
    end(1);
    load(pre, f[0], 0, 0.1);
    load(dec, d[0], 9, 0.1);
    assert_int_equal(submit(2, 8000, true), SCHED_REJECTED);
    assert_int_equal(q[2].d.reject, REJECT_SHED);
    assert_int_equal(submit(2, 8000, false), SCHED_REJECTED);
    q[2].priority = 0;
    picked(2, 8000, true);
    end_both(2);
    stop();
}

/* ---- waiting ---- */

static void queueing(void)
{
    params();
    pd.queueing = pp.queueing = true;
}

static void decided(uint32_t i, bool split)
{
    assert_ptr_equal(sched_next_decided(dec), &q[i]);
    assert_int_equal(q[i].d.reject, REJECT_NONE);
    assert_int_equal(q[i].split, split);
}

static void test_room_in_both(void **state)
{
    (void)state;
    queueing();
    start(1, 1);
    load(pre, f[0], 0, 0.95); /* no room to prefill */
    assert_int_equal(submit(0, 4000, true), SCHED_QUEUED);
    picked(1, 4000, false); /* this one may do without */
    assert_false(q[1].split);
    end(1);
    load(pre, f[0], 0, 0.1); /* a verb of the role that prefills lets it go */
    decided(0, true);
    assert_true(q[0].d.queued_us > 0);
    end_both(0);
    load(dec, d[0], 0, 0.95); /* no room to decode */
    assert_int_equal(submit(2, 4000, true), SCHED_QUEUED);
    assert_int_equal(submit(3, 4000, false), SCHED_QUEUED);
    assert_int_equal(view_of(pre, f[0]).inflight, 0);
    load(dec, d[0], 0, 0.1);
    decided(2, true);
    assert_ptr_equal(sched_next_decided(dec), &q[3]);
    assert_null(sched_next_decided(pre));
    end_both(2);
    if (q[3].split)
        end_leg(3, OUT_OK);
    end(3);
    all_released();
    stop();
}

/* Room in the role that prefills appears by each of its verbs. */
static void test_verbs_of_prefill(void **state)
{
    (void)state;
    for (uint32_t verb = 0; verb < 7; verb++) {
        queueing();
        pp.queue_threshold = 0;
        start(1, 1);
        if (verb < 3) {
            picked(0, 5000, true);
            picked(1, 5000, true); /* more than it takes into its next step: full */
        } else {
            sched_ep_drain(pre, f[0], true, now);
        }
        assert_int_equal(submit(2, 5000, true), SCHED_QUEUED);
        assert_null(sched_next_decided(dec));
        if (verb == 0) {
            end_leg(0, OUT_OK);
            end_leg(1, OUT_OK);
        } else if (verb == 1) {
            sched_first_token(pre, &leg[0], now);
            sched_first_token(pre, &leg[1], now);
        } else if (verb == 2 || verb == 5) {
            f[1] = sched_ep_add(pre, user(1, 1), false, now);
        } else if (verb == 3) {
            sched_ep_drain(pre, f[0], false, now);
        } else if (verb == 4) {
            f[1] = sched_ep_add(pre, user(1, 1), true, now);
            assert_null(sched_next_decided(dec));
            sched_ep_probe(pre, f[1], true, now, now);
        } else {
            sched_join(dec, NULL, now);
        }
        assert_ptr_equal(sched_next_decided(dec), &q[2]);
        assert_int_equal(q[2].split, verb < 6);
        stop();
    }
}

static void test_lanes(void **state)
{
    (void)state;
    queueing();
    start(1, 2);
    load(pre, f[1], 0, 0.95);
    leg[0].tried[0] = f[0];
    leg[0].n_tried = 1;
    assert_int_equal(submit(0, 4000, true), SCHED_QUEUED); /* can go nowhere, and holds nobody up */
    picked(1, 4000, true);
    load(pre, f[0], 0, 0.95);
    assert_int_equal(submit(2, 4000, true), SCHED_QUEUED);
    load(pre, f[0], 0, 0.1);
    decided(2, true);
    load(pre, f[1], 0, 0.1);
    decided(0, true);
    assert_true(same(leg[0].d.ep, f[1]));
    leg[3].tried[0] = f[0];
    leg[3].tried[1] = f[1];
    leg[3].n_tried = 2;
    assert_int_equal(submit(3, 4000, true), SCHED_REJECTED); /* time brings nobody else */
    assert_true(q[3].d.reject == REJECT_NO_ENDPOINT);
    for (uint32_t i = 0; i < 3; i++)
        end_both(i);
    all_released();
    stop();
}

static void test_timeout(void **state)
{
    (void)state;
    queueing();
    start(1, 0);
    assert_int_equal(submit(0, 4000, true), SCHED_QUEUED);
    now += 31 * SEC;
    sched_tick(dec, now);
    assert_ptr_equal(sched_next_decided(dec), &q[0]);
    assert_true(q[0].d.reject == REJECT_NO_ENDPOINT && q[0].d.no_prefill);
    f[0] = sched_ep_add(pre, user(1, 0), false, now);
    load(pre, f[0], 0, 0.95);
    q[1].ttl_us = 3 * SEC;
    assert_int_equal(submit(1, 4000, true), SCHED_QUEUED);
    now += 4 * SEC;
    sched_tick(pre, now); /* the clocks go together, and the load is not yet stale */
    sched_tick(dec, now);
    assert_ptr_equal(sched_next_decided(dec), &q[1]);
    assert_true(q[1].d.reject == REJECT_QUEUE_TIMEOUT && !q[1].d.no_prefill);
    stop();
}

static void test_prefill_at_once(void **state)
{
    (void)state;
    queueing();
    start(1, 1);
    uint32_t n = 0;
    while (n < 40 && submit(n, 100, true) == SCHED_PICKED)
        n++;
    assert_in_range(n, 13, 15); /* a wave and the threshold, of the role that prefills; where they go is no crowd yet */
    sched_cancel(dec, &q[n], now);
    for (uint32_t i = 0; i < n; i++) {
        end_leg(i, OUT_OK);
        sched_prefilled(dec, &q[i], now);
    }
    assert_int_equal(view_of(dec, d[0]).unanswered, n);
    assert_int_equal(submit(n, 100, true), SCHED_QUEUED); /* now it is one there */
    sched_cancel(dec, &q[n], now);
    for (uint32_t i = 0; i < n; i++)
        end(i);
    all_released();
    stop();
}

/* Neither waits it for an idle cache, nor for the full holder of its prefix. */
static void test_no_waits_of_its_own(void **state)
{
    (void)state;
    queueing();
    pd.kv_tokens = pp.kv_tokens = 12000;
    pd.conversation_hold_us = pp.conversation_hold_us = 60 * SEC;
    for (uint32_t with = 0; with < 2; with++) {
        start(1, 1);
        for (uint32_t i = 0; i < 2; i++) {
            hashes(i, i + 1, LONG);
            prompt(i, LONG * 16, true);
            q[i].leg = with ? q[i].leg : NULL;
            assert_int_equal(sched_submit(dec, &q[i], now), i && !with ? SCHED_QUEUED : SCHED_PICKED);
            if (i && !with) {
                sched_cancel(dec, &q[i], now);
                continue;
            }
            if (with)
                end_leg(i, OUT_OK);
            end(i);
            now += SEC;
        }
        stop();
    }
    queueing();
    pd.prefix_wait_us = pp.prefix_wait_us = 5 * SEC;
    for (uint32_t with = 0; with < 2; with++) {
        start(2, 1);
        for (uint32_t i = 0; i < 2; i++) {
            hashes(i, 1, LONG);
            prompt(i, LONG * 16, true);
            q[i].leg = with ? q[i].leg : NULL;
            assert_int_equal(sched_submit(dec, &q[i], now), i && !with ? SCHED_QUEUED : SCHED_PICKED);
            if (i && !with) {
                sched_cancel(dec, &q[i], now);
                continue;
            }
            if (with)
                end_leg(i, OUT_OK);
            end(i);
            load(dec, q[0].d.ep, 0, 0.82);
        }
        stop();
    }
}

/* ---- reports ---- */

static void test_prefilled(void **state)
{
    (void)state;
    params();
    start(1, 1);
    picked(0, 8000, true);
    assert_int_equal(view_of(dec, d[0]).unanswered, 0);
    now += SEC;
    end_leg(0, OUT_OK);
    sched_prefilled(dec, &q[0], now);
    sched_prefilled(dec, &q[0], now + SEC); /* once */
    struct ep_view v = view_of(dec, d[0]);
    assert_true(v.unanswered == 1 && v.pending_prefill_s <= 0 && v.inflight == 1 && !v.coming);
    sched_first_token(dec, &q[0], now);
    v = view_of(dec, d[0]);
    assert_true(v.unanswered == 0 && v.context_tokens > 7999);
    sched_finish(dec, &q[0], OUT_OK, NULL, now);
    picked(1, 8000, true); /* in another order */
    end(1);
    end_leg(1, OUT_OK);
    picked(2, 8000, true);
    sched_finish(dec, &q[2], OUT_RESET, NULL, now);
    sched_finish(pre, &leg[2], OUT_CANCELLED, NULL, now);
    picked(3, 20, false);
    sched_prefilled(dec, &q[3], now); /* not split */
    sched_prefill_here(dec, &q[3], now);
    assert_int_equal(view_of(dec, d[0]).unanswered, 1);
    end(3);
    all_released();
    stop();
}

static void test_prefill_here(void **state)
{
    (void)state;
    params();
    start(1, 1);
    for (uint32_t known = 0; known < 2; known++) {
        picked(0, 8000, false);
        if (!q[0].split) {
            busy(0, 60);
            end(0);
            picked(0, 8000, false);
        }
        assert_true(q[0].split);
        if (known)
            sched_prefilled(dec, &q[0], now);
        sched_finish(pre, &leg[0], OUT_RESET, NULL, now);
        sched_prefill_here(dec, &q[0], now);
        assert_false(q[0].split);
        struct ep_view v = view_of(dec, d[0]);
        assert_true(v.pending_prefill_s > 0.6 && v.unanswered == 1 && v.inflight == 1);
        sched_prefill_here(dec, &q[0], now);
        assert_true(view_of(dec, d[0]).pending_prefill_s < 0.9);
        end(0);
        now += 20 * SEC; /* the endpoint that failed may be tried again */
        sched_tick(pre, now);
        sched_tick(dec, now);
        busy(0, 60);
    }
    all_released();
    picked(1, 8000, true); /* when it has answered nothing is left to compute */
    sched_first_token(dec, &q[1], now);
    sched_prefill_here(dec, &q[1], now);
    assert_true(!q[1].split && view_of(dec, d[0]).pending_prefill_s <= 0);
    sched_finish(dec, &q[1], OUT_OK, NULL, now);
    end_leg(1, OUT_OK);
    picked(2, 8000, true); /* an endpoint that is gone */
    sched_ep_remove(dec, d[0], now);
    sched_prefill_here(dec, &q[2], now);
    sched_finish(dec, &q[2], OUT_RESET, NULL, now);
    end_leg(2, OUT_OK);
    all_released();
    stop();
}

/* A prompt that is computed elsewhere for a long time makes nobody late, and teaches the decode endpoint's prefill
 * nothing. */
static void test_learning(void **state)
{
    (void)state;
    params();
    pd.learn_speed = pp.learn_speed = true;
    start(2, 2);
    for (uint32_t i = 0; i < 40;
         i++) { /* the prefill endpoints need eight times the prior's time: 1.36 s for 2000 tokens */
        picked(i % 8, 4000, true);
        struct sched_usage u = {.completion_tokens = 1}, v = {.prompt_tokens = 2000, .completion_tokens = 50};
        now += 4 * 340000;
        for (uint32_t k = 0; k < 14; k++) /* who waits for a prompt is not late, however long */
            sched_tick(dec, now);
        assert_true(view_of(dec, d[0]).speed < 1.2 && view_of(dec, d[1]).speed < 1.2);
        sched_first_token(pre, &leg[i % 8], now);
        sched_finish(pre, &leg[i % 8], OUT_OK, &u, now);
        sched_prefilled(dec, &q[i % 8], now);
        now += 60000;
        sched_tick(dec, now);
        assert_true(view_of(dec, d[0]).speed < 1.2 && view_of(dec, d[1]).speed < 1.2);
        sched_first_token(dec, &q[i % 8], now);
        now += 49 * 16000;
        sched_finish(dec, &q[i % 8], OUT_OK, &v, now);
        sched_tick(pre, now);
        sched_tick(dec, now);
    }
    assert_true(fabs(stats(dec).bytes_per_token - 8) < 0.5 && fabs(stats(pre).bytes_per_token - 8) < 0.5);
    picked(0, 8000, true); /* its time is expected as learnt: 4000 tokens by now */
    assert_true(leg[0].d.ttft_s > 2 && leg[0].d.ttft_s < 4);
    end_both(0);
    q[1].leg = NULL;
    prompt(1, 8000, false);
    q[1].leg = NULL;
    assert_int_equal(sched_submit(dec, &q[1], now), SCHED_PICKED);
    assert_true(q[1].d.ttft_s < 0.6); /* of its own prefill nothing was learnt */
    end(1);
    all_released();
    stop();
    start(2, 2);
    for (uint32_t i = 0; i < 40; i++) { /* nor that its steps take long, where the KV does */
        picked(0, 4000, true);
        end_leg(0, OUT_OK);
        sched_prefilled(dec, &q[0], now);
        now += SEC / 2;
        sched_first_token(dec, &q[0], now);
        sched_finish(dec, &q[0], OUT_OK, NULL, now);
        sched_tick(dec, now);
    }
    q[1].leg = NULL;
    assert_int_equal(sched_submit(dec, &q[1], now), SCHED_PICKED);
    assert_true(q[1].d.ttft_s < 0.05); /* of one token */
    end(1);
    stop();
}

/* ---- parting ---- */

static void test_parting(void **state)
{
    (void)state;
    queueing();
    start(1, 1);
    picked(0, 8000, true);
    load(pre, f[0], 0, 0.95);
    assert_int_equal(submit(1, 8000, true), SCHED_QUEUED);
    sched_join(dec, NULL, now);
    decided(1, false); /* goes on as without a leg */
    end(1);
    end_both(0); /* in flight: reported on as before */
    picked(2, 8000, true);
    assert_false(q[2].split);
    end(2);
    all_released();
    load(pre, f[0], 0, 0.1);
    sched_join(dec, pre, now);
    picked(3, 8000, true);
    assert_true(q[3].split);
    struct sched *other = sched_new(&pd, 7); /* another one takes it over */
    load(pre, f[0], 0, 0.95);
    assert_int_equal(submit(4, 8000, true), SCHED_QUEUED);
    sched_join(other, pre, now);
    decided(4, false);
    end_both(3);
    end(4);
    sched_free(other);
    sched_join(dec, pre, now);
    load(pre, f[0], 0, 0.1);
    picked(5, 8000, true);
    assert_true(q[5].split);
    end_both(5);
    all_released();
    sched_free(pre);
    assert_int_equal(submit(6, 8000, true), SCHED_PICKED);
    assert_false(q[6].split);
    end(6);
    sched_free(dec);
}

/* ---- replicas ---- */

static struct sched *replica[2];
static struct ep_ref replica_ep[2];

static void tell(uint32_t role, const struct sched_event *ev)
{
    sched_apply(replica[role], ev, replica_ep[role], now);
}

static void tell_decode(void *ctx, const struct sched_event *ev)
{
    (void)ctx;
    tell(0, ev);
}

static void tell_prefill(void *ctx, const struct sched_event *ev)
{
    (void)ctx;
    tell(1, ev);
}

static void test_replicas(void **state)
{
    (void)state;
    params();
    start(1, 1);
    for (uint32_t k = 0; k < 2; k++) {
        replica[k] = sched_new(&pd, 9 + k);
        replica_ep[k] = sched_ep_add(replica[k], NULL, false, now);
    }
    sched_on_event(dec, tell_decode, NULL);
    sched_on_event(pre, tell_prefill, NULL);
    for (uint32_t how = 0; how < 6; how++) {
        picked(how, 8000, true);
        assert_true(view_of(replica[0], replica_ep[0]).others_waiting < 0.5); /* it is not there yet */
        assert_true(view_of(replica[1], replica_ep[1]).others_waiting > 0.5);
        if (how == 0)
            end_both(how);
        else if (how == 1) {
            sched_finish(dec, &q[how], OUT_RESET, NULL, now);
            sched_finish(pre, &leg[how], OUT_RESET, NULL, now);
        } else if (how == 2) {
            sched_prefilled(dec, &q[how], now);
            sched_finish(dec, &q[how], OUT_CANCELLED, NULL, now);
            end_leg(how, OUT_OK);
        } else {
            sched_finish(pre, &leg[how], OUT_CANCELLED, NULL, now);
            if (how == 4)
                sched_prefilled(dec, &q[how], now);
            sched_prefill_here(dec, &q[how], now);
            assert_true(view_of(replica[0], replica_ep[0]).others_waiting > 0.5);
            if (how == 5)
                sched_finish(dec, &q[how], OUT_CANCELLED, NULL, now);
            else
                end(how);
        }
        for (uint32_t k = 0; k < 2; k++) {
            struct ep_view v = view_of(replica[k], replica_ep[k]);
            assert_true(v.others_waiting < 0.5 && v.others_running < 0.5 && v.kv_use < 1e-9);
        }
        now += 20 * SEC;
        sched_tick(pre, now);
        sched_tick(dec, now);
    }
    all_released();
    sched_free(replica[0]);
    sched_free(replica[1]);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_or_none),
        cmocka_unit_test(test_leg_is_copied),
        cmocka_unit_test(test_cheaper_way),
        cmocka_unit_test(test_held_here_is_computed_here),
        cmocka_unit_test(test_costs_of_both),
        cmocka_unit_test(test_holders),
        cmocka_unit_test(test_policies_are_their_own),
        cmocka_unit_test(test_without_prefill),
        cmocka_unit_test(test_ejected_prefill_tries),
        cmocka_unit_test(test_retries),
        cmocka_unit_test(test_shed),
        cmocka_unit_test(test_room_in_both),
        cmocka_unit_test(test_verbs_of_prefill),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_no_waits_of_its_own),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_prefill_at_once),
        cmocka_unit_test(test_prefilled),
        cmocka_unit_test(test_prefill_here),
        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_parting),
        cmocka_unit_test(test_replicas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
