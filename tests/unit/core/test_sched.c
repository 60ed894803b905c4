/* The picker's contract, call by call: costs, blocks, rollback, health, shedding, models, determinism, the event
 * stream. */
#include "base/hash.h"
#include "base/rng.h"
#include "core/sched.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC     1000000ull
#define MAX_EPS 40

static struct sched *s;
static struct sched_params p;
static struct ep_ref ep[MAX_EPS];
static uint64_t now;

static void start(enum sched_policy policy, uint32_t n)
{
    sched_params_init(&p);
    p.policy = policy;
    now = 100 * SEC;
    s = sched_new(&p, 42);
    for (uint32_t i = 0; i < n; i++)
        ep[i] = sched_ep_add(s, (void *)(uintptr_t)(i + 1), false, now);
}

static uint32_t index_of(struct ep_ref r)
{
    for (uint32_t i = 0; i < MAX_EPS; i++)
        if (ep[i].slot == r.slot && ep[i].gen == r.gen)
            return i;
    fail_msg("unknown endpoint");
    return 0;
}

struct prompt {
    struct sched_req r;
    struct prefix_hashes ph;
    uint64_t storage[PREFIX_MAX];
};

static void prompt_init(struct prompt *q, const char *text, size_t n)
{
    memset(q, 0, sizeof(*q));
    prefix_hash((struct str){text, n}, 7, p.block_bytes, p.max_blocks, p.deep, &q->ph, q->storage, PREFIX_MAX);
    q->r = (struct sched_req){.hashes = &q->ph, .prompt_bytes = n, .n_outputs = 1, .streamed = true};
}

static uint32_t send(struct prompt *q, const char *text, size_t n)
{
    prompt_init(q, text, n);
    assert_int_equal(sched_submit(s, &q->r, now), SCHED_PICKED);
    return index_of(q->r.d.ep);
}

static void done(struct prompt *q)
{
    now += 20000;
    sched_first_token(s, &q->r, now);
    now += 20000;
    sched_finish(s, &q->r, OUT_OK, NULL, now);
}

/* Sends and finishes; what matched stays readable in q. */
static uint32_t ask(struct prompt *q, const char *text, size_t n)
{
    uint32_t where = send(q, text, n);
    done(q);
    return where;
}

static char *random_text(uint64_t seed, size_t n)
{
    struct rng r;
    rng_init(&r, seed);
    char *t = malloc(n);
    for (size_t i = 0; i < n; i++)
        t[i] = (char)('a' + rng_below(&r, 26));
    return t;
}

static void load(uint32_t i, double waiting, double running, double kv)
{
    struct ep_load l = {.sent_us = now,
                        .done_us = now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .waiting = waiting,
                        .running = running,
                        .kv_frac = kv};
    sched_ep_load(s, ep[i], &l, now);
}

static struct ep_view view(uint32_t i)
{
    struct ep_view v;
    assert_true(sched_ep_view(s, ep[i].slot, now, &v));
    return v;
}

/* ---- load ---- */

/* One engine of several is nearly full: that saturates the endpoint, but a request does not go to that engine. */
static void test_mean_over_engines_ranks_the_largest_saturates(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 2);
    struct ep_load l = {.sent_us = now, .done_us = now, .has_kv = true, .kv_frac = 0.75, .kv_mean = 0.1};
    sched_ep_load(s, ep[0], &l, now);
    load(1, 0, 0, 0.6); /* no mean told: the same */
    assert_int_equal(send(&q, "hello", 5), 0);
    done(&q);
    assert_true(view(0).kv_use >= 0.75);
    l.kv_mean = 0.95; /* no mean of what was told */
    sched_ep_load(s, ep[0], &l, now);
    assert_true(view(0).load.kv_mean == 0.75);
    sched_free(s);
}

static void test_queue_and_kv_decide(void **state)
{
    (void)state;
    struct prompt q;
    for (int k = 0; k < 6; k++) {
        start(SCHED_DEFAULT, 2);
        double queue = k % 3 * 3;
        load(0, queue, 10, 0.9);
        load(1, queue, 10, 0.1);
        assert_int_equal(send(&q, "hello", 5), 1);
        done(&q);
        sched_free(s);
        start(SCHED_DEFAULT, 2);
        double kv = 0.1 * k;
        load(0, 5, 10, kv);
        load(1, 0, 10, kv);
        assert_int_equal(send(&q, "hello", 5), 1);
        done(&q);
        sched_free(s);
    }
}

static void test_long_queue_gets_nothing(void **state)
{
    (void)state;
    static struct prompt q[30];
    start(SCHED_DEFAULT, 4);
    char *text = random_text(1, 2000);
    for (uint32_t i = 0; i < 4; i++)
        load(i, i ? 0 : 20, 0, 0);
    for (uint32_t i = 0; i < 30; i++)
        assert_int_not_equal(send(&q[i], text, 2000), 0);
    for (uint32_t i = 0; i < 30; i++)
        done(&q[i]);
    free(text);
    sched_free(s);
}

/* An endpoint believed slow is tried again now and then, but not while it says itself that it is busy. */
static void test_exploration(void **state)
{
    (void)state;
    struct prompt q;
    for (int k = 0; k < 3; k++) {
        uint32_t explored = 0;
        start(SCHED_DEFAULT, 2);
        p.stale_us = 1000 * SEC;
        sched_set_params(s, &p, now);
        for (int i = 0; i < 60; i++) { /* endpoint 1 answers ten times later */
            uint32_t where = send(&q, "hello", 5);
            now += where == 1 ? 400000 : 40000;
            sched_first_token(s, &q.r, now);
            sched_finish(s, &q.r, OUT_OK, NULL, now);
        }
        assert_true(view(1).speed > 1.3);
        load(0, 0, 0, 0.1);
        load(1, k == 1 ? 3 : 0, 1, k == 2 ? 0.95 : 0.1);
        for (int i = 0; i < 200; i++) {
            now += 20000;
            sched_tick(s, now);
            uint32_t where = ask(&q, "hello", 5);
            explored += where == 1 && q.r.d.reason == REASON_EXPLORE;
            if (k)
                assert_int_equal(where, 0);
        }
        assert_int_equal(explored > 0, k == 0);
        sched_free(s);
    }
}

static void test_own_requests_are_not_others(void **state)
{
    (void)state;
    static struct prompt q[10];
    start(SCHED_DEFAULT, 1);
    for (uint32_t i = 0; i < 10; i++)
        send(&q[i], "x", 1);
    now += SEC;
    load(0, 4, 6, 0.1);
    assert_true(view(0).others_waiting <= 0 && view(0).others_running <= 0);
    for (uint32_t i = 0; i < 10; i++)
        sched_finish(s, &q[i].r, OUT_OK, NULL, now);
    now += SEC; /* published before they ended, read after */
    load(0, 0, 10, 0.1);
    assert_true(view(0).others_running <= 0);
    now += 4 * SEC;
    load(0, 2, 10, 0.1);
    assert_true(view(0).others_running > 9.9 && view(0).others_waiting > 1.9);
    now += 2 * SEC;
    sched_tick(s, now);
    assert_true(view(0).others_running < 9);
    now += p.stale_us;
    sched_tick(s, now);
    assert_true(view(0).others_running <= 0 && !view(0).load_valid);
    sched_free(s);
}

static void test_ledger_view(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 1);
    char *text = random_text(1, 4000);
    send(&q, text, 4000);
    assert_int_equal(view(0).inflight, 1);
    assert_int_equal(view(0).unanswered, 1);
    assert_true(view(0).pending_prefill_s > 0.07 && view(0).pending_prefill_s < 0.09);
    sched_first_token(s, &q.r, now + 1000);
    sched_first_token(s, &q.r, now + 2000); /* harmless */
    assert_int_equal(view(0).unanswered, 0);
    assert_true(view(0).pending_prefill_s <= 0 && view(0).context_tokens > 990);
    sched_finish(s, &q.r, OUT_CANCELLED, NULL, now + 3000);
    assert_int_equal(view(0).inflight, 0);
    assert_true(view(0).context_tokens <= 0);
    /* a whole answer: its prefill is over long before its first byte */
    prompt_init(&q, text, 4000);
    q.r.streamed = false;
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    now += 2 * SEC;
    sched_tick(s, now);
    assert_true(view(0).pending_prefill_s <= 0 && view(0).context_tokens > 990);
    assert_int_equal(view(0).unanswered, 1);
    sched_finish(s, &q.r, OUT_OK, NULL, now);
    assert_int_equal(view(0).unanswered, 0);
    free(text);
    sched_free(s);
}

static void test_shedding(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 3);
    for (uint32_t i = 0; i < 3; i++)
        load(i, 10, 5, 0.2);
    prompt_init(&q, "x", 1);
    q.r.priority = CRIT_SHEDDABLE;
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    assert_int_equal(q.r.d.reject, REJECT_SHED);
    q.r.priority = CRIT_STANDARD; /* queueing off: the others are forwarded (decision 4) */
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    done(&q);
    load(1, 0, 5, 0.85); /* one by KV instead */
    q.r.priority = CRIT_SHEDDABLE;
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    load(1, 5, 5, 0.8); /* at the thresholds: not beyond them */
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    done(&q);
    for (uint32_t i = 0; i < 3; i++)
        load(i, 10, 5, 0.2);
    now += p.stale_us + SEC; /* nothing known: own counters alone */
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    done(&q);
    sched_free(s);
}

/* ---- prefix index through the facade (A14-A17) ---- */

static void test_blocks(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_PREFIX_CACHE, 4);
    char *a = random_text(1, 64 * 1024), *b = random_text(2, 64 * 1024);
    memcpy(b, a, 64);
    ask(&q, a, 300);
    assert_int_equal(q.r.d.matched_bytes, 0);
    b[63] = (char)(a[63] == 'a' ? 'b' : 'a');
    ask(&q, b, 300);
    assert_int_equal(q.r.d.matched_bytes, 0);
    sched_free(s);
    b[63] = a[63];
    start(SCHED_PREFIX_CACHE, 1);
    ask(&q, a, 300);
    ask(&q, b, 300);
    assert_int_equal(q.r.d.matched_bytes, 64);
    p.block_bytes = 256; /* without restart */
    sched_set_params(s, &p, now);
    memcpy(b, a, 255);
    ask(&q, a, 1000);
    assert_int_equal(q.r.d.matched_bytes, 0);
    ask(&q, b, 1000);
    assert_int_equal(q.r.d.matched_bytes, b[255] == a[255] ? 256 : 0);
    memcpy(b, a, 256);
    ask(&q, b, 900);
    assert_int_equal(q.r.d.matched_bytes, 256);
    p.block_bytes = 64;
    p.deep = false;
    sched_set_params(s, &p, now);
    ask(&q, a, 64 * 1024);
    ask(&q, a, 64 * 1024);
    assert_int_equal(q.r.d.matched_bytes, 128 * 64);
    p.max_blocks = 4;
    sched_set_params(s, &p, now);
    ask(&q, a, 64 * 1024);
    assert_int_equal(q.r.d.matched_bytes, 4 * 64);
    p.max_blocks = 128;
    p.deep = true; /* 1024 blocks: 128 fine and 28 coarse */
    sched_set_params(s, &p, now);
    ask(&q, a, 64 * 1024);
    ask(&q, a, 64 * 1024);
    assert_int_equal(q.r.d.matched_bytes, (128 + 28 * 32) * 64);
    free(a);
    free(b);
    sched_free(s);
}

static void test_capacity(void **state)
{
    (void)state;
    struct prompt q;
    struct sched_stats st;
    start(SCHED_PREFIX_CACHE, 1);
    p.lru_capacity = 100;
    p.lru_by_memory = false;
    sched_set_params(s, &p, now);
    char *first = random_text(1, 640), *more = random_text(2, 20 * 640);
    ask(&q, first, 640);
    ask(&q, first, 640);
    assert_int_equal(q.r.d.matched_bytes, 640);
    for (int i = 0; i < 20; i++)
        ask(&q, more + i * 640, 640);
    prompt_init(&q, first, 640);
    ask(&q, first, 640);
    assert_int_equal(q.r.d.matched_bytes, 0);
    sched_stats(s, now, &st);
    assert_int_equal(st.index_memberships, 100);
    assert_int_equal(st.index_evictions, 120);
    free(first);
    free(more);
    sched_free(s);
}

static void test_capacity_follows_kv(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_PREFIX_CACHE, 1);
    struct ep_load l = {.sent_us = now, .done_us = now, .has_blocks = true, .kv_tokens = 1600, .block_tokens = 16};
    sched_ep_load(s, ep[0], &l, now); /* 1600 tokens = 6400 bytes = 100 blocks */
    char *text = random_text(1, 12800);
    ask(&q, text, 12800);
    assert_int_equal(view(0).index_blocks, 100); /* of 128 fine and 2 coarse ones, forgotten from the leaf */
    assert_int_equal(view(0).kv_tokens, 1600);
    free(text);
    sched_free(s);
}

static void test_failed_requests_leave_nothing(void **state)
{
    (void)state;
    struct prompt a, b;
    static const enum sched_outcome failures[] = {OUT_CANCELLED, OUT_CONNECT_FAILED, OUT_RESET,         OUT_GARBAGE,
                                                  OUT_TIMEOUT,   OUT_SERVER_ERROR,   OUT_MODEL_MISSING, OUT_STALE_CONN};
    char *text = random_text(1, 1280);
    for (size_t i = 0; i < ARRAY_LEN(failures); i++) {
        start(SCHED_PREFIX_CACHE, 1);
        ask(&a, text, 640);
        send(&b, text, 1280);
        assert_int_equal(b.r.d.matched_bytes, 640);
        assert_int_equal(view(0).index_blocks, 20);
        sched_finish(s, &b.r, failures[i], NULL, now);
        assert_int_equal(view(0).index_blocks, 10); /* what the first one had stays */
        sched_free(s);
    }
    start(SCHED_PREFIX_CACHE, 1); /* after the first token it is there */
    send(&b, text, 1280);
    sched_first_token(s, &b.r, now);
    sched_finish(s, &b.r, OUT_RESET, NULL, now);
    assert_int_equal(view(0).index_blocks, 20);
    sched_free(s);
    start(SCHED_PREFIX_CACHE, 1); /* two at once: the failure of one takes nothing from the other */
    send(&a, text, 1280);
    send(&b, text, 1280);
    sched_finish(s, &a.r, OUT_CANCELLED, NULL, now);
    assert_int_equal(view(0).index_blocks, 20);
    done(&b);
    assert_int_equal(view(0).index_blocks, 20);
    free(text);
    sched_free(s);
}

static void test_cached_tokens_correct(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_PREFIX_CACHE, 1);
    char *text = random_text(1, 6400);
    ask(&q, text, 6400);
    assert_int_equal(view(0).index_blocks, 100);
    for (int i = 0; i < 2; i++) {
        send(&q, text, 6400);
        sched_first_token(s, &q.r, now);
        struct sched_usage u = {
            .prompt_tokens = 1600, .completion_tokens = 10, .cached_tokens = 160, .has_cached = true};
        sched_finish(s, &q.r, OUT_OK, &u, now);
    }
    assert_int_equal(view(0).index_blocks, 10);
    send(&q, text, 6400); /* a server that confirms is believed */
    sched_first_token(s, &q.r, now);
    struct sched_usage u = {.prompt_tokens = 1600, .completion_tokens = 10, .cached_tokens = 160, .has_cached = true};
    sched_finish(s, &q.r, OUT_OK, &u, now);
    assert_int_equal(view(0).index_blocks, 100);
    free(text);
    sched_free(s);
}

/* ---- health ---- */

static uint32_t fail_with(enum sched_outcome how)
{
    struct prompt q;
    uint32_t where = send(&q, "x", 1);
    now += 1000;
    sched_finish(s, &q.r, how, NULL, now);
    return where;
}

static void test_transport_failure_ejects_at_once(void **state)
{
    (void)state;
    static const enum sched_outcome hard[] = {OUT_CONNECT_FAILED, OUT_RESET, OUT_GARBAGE};
    struct prompt q;
    for (size_t k = 0; k < ARRAY_LEN(hard); k++) {
        start(SCHED_DEFAULT, 4);
        uint32_t bad = fail_with(hard[k]);
        assert_true(view(bad).ejected);
        for (int i = 0; i < 40; i++)
            assert_int_not_equal(ask(&q, "x", 1), bad);
        sched_free(s);
    }
}

static void test_harmless_outcomes(void **state)
{
    (void)state;
    static const enum sched_outcome soft[] = {OUT_CANCELLED, OUT_STALE_CONN, OUT_MODEL_MISSING, OUT_OK};
    start(SCHED_DEFAULT, 2);
    for (int i = 0; i < 40; i++)
        fail_with(soft[i % 4]);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(!view(i).ejected && view(i).failures == 0);
    sched_free(s);
}

static void test_soft_failures_need_three(void **state)
{
    (void)state;
    start(SCHED_DEFAULT, 2);
    sched_ep_drain(s, ep[1], true, 0);
    fail_with(OUT_SERVER_ERROR);
    fail_with(OUT_TIMEOUT);
    fail_with(OUT_OK);
    fail_with(OUT_SERVER_ERROR);
    fail_with(OUT_SERVER_ERROR);
    assert_false(view(0).ejected);
    fail_with(OUT_TIMEOUT);
    assert_true(view(0).ejected);
    sched_free(s);
}

/* The ejection share is used up: a further hung endpoint stays, but what waits there is to be moved, once. */
static void test_hung_beyond_share(void **state)
{
    (void)state;
    start(SCHED_DEFAULT, 4);
    now += 5 * SEC;
    for (uint32_t i = 0; i < 3; i++) {
        assert_false(sched_ep_probe(s, ep[i], false, now, now + 1000));
        assert_true(sched_ep_probe(s, ep[i], false, now + 2000, now + 3000));
        assert_int_equal(view(i).ejected, i < 2);
    }
    assert_false(sched_ep_probe(s, ep[2], false, now + 4000, now + 5000));
    sched_free(s);
}

/* Equal servers, one of which lacks the prompt in its cache: first tokens there come late, token gaps are alike
 * everywhere. It is no slower for that. */
static void test_warm_cache_is_no_speed(void **state)
{
    (void)state;
    struct prompt q;
    uint32_t picks[4] = {0};
    start(SCHED_DEFAULT, 4);
    for (int i = 0; i < 400; i++) {
        uint32_t where = send(&q, "the same prompt again", 21);
        picks[where]++;
        now += where == 0 ? 200000 : 20000;
        sched_first_token(s, &q.r, now);
        now += 19 * 15000;
        struct sched_usage u = {.prompt_tokens = 6, .completion_tokens = 20};
        sched_finish(s, &q.r, OUT_OK, &u, now);
        now += 10000;
    }
    for (int i = 0; i < 4; i++)
        assert_true(picks[i] > 60);
    sched_free(s);
}

static void test_share_and_last_one(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 5); /* share 0.5 of 5, rounded up: 3 */
    uint32_t ejected = 0;
    for (uint32_t i = 0; i < 5; i++) {
        prompt_init(&q, "x", 1);
        q.r.pinned = ep[i];
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
        sched_finish(s, &q.r, OUT_CONNECT_FAILED, NULL, now);
    }
    for (uint32_t i = 0; i < 5; i++)
        ejected += view(i).ejected;
    assert_int_equal(ejected, 3);
    sched_free(s);
    start(SCHED_DEFAULT, 1);
    fail_with(OUT_CONNECT_FAILED);
    assert_false(view(0).ejected);
    assert_int_equal(ask(&q, "x", 1), 0);
    sched_free(s);
    start(SCHED_DEFAULT, 2);
    uint32_t bad = fail_with(OUT_CONNECT_FAILED);
    sched_ep_drain(s, ep[!bad], true, 0); /* now nothing healthy is left: the least bad is used */
    assert_int_equal(send(&q, "x", 1), bad);
    assert_int_equal(q.r.d.reason, REASON_ALL_EJECTED);
    done(&q);
    assert_false(view(bad).ejected); /* and has proved itself */
    sched_free(s);
}

static void test_probes(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 4);
    now += 5 * SEC;
    assert_false(sched_ep_probe(s, ep[1], false, now, now + 1000));
    sched_ep_alive(s, ep[1], now + 2000); /* busy, but it sends bytes to others */
    assert_false(sched_ep_probe(s, ep[1], false, now + 1000, now + 3000));
    now += SEC;
    assert_false(sched_ep_probe(s, ep[1], false, now, now + 1000));
    assert_true(sched_ep_probe(s, ep[1], false, now + 2000, now + 3000));
    assert_true(view(1).ejected);
    now += SEC;
    sched_ep_probe(s, ep[1], true, view(1).ejected_until_us - p.eject_us - SEC, now); /* asked before: says nothing */
    assert_true(view(1).ejected);
    now += 30 * SEC; /* time alone does not end it while probes fail */
    sched_ep_probe(s, ep[1], false, now - 1000, now);
    sched_tick(s, now);
    assert_true(view(1).ejected);
    sched_ep_probe(s, ep[1], true, now - 1000, now);
    assert_false(view(1).ejected);
    assert_true(view(1).slow_start);
    uint64_t back = now, used = 0;
    while (now < back + 2 * SEC) { /* about five requests per second */
        used += ask(&q, "x", 1) == 1;
        now += 160000;
    }
    assert_true(used > 0 && used < 4);
    assert_false(view(1).slow_start);
    sched_free(s);
}

static void test_ejection_without_probes_ends(void **state)
{
    (void)state;
    start(SCHED_DEFAULT, 4);
    uint32_t bad = fail_with(OUT_RESET);
    now += p.eject_us - SEC;
    sched_tick(s, now);
    assert_true(view(bad).ejected);
    now += 2 * SEC;
    sched_tick(s, now);
    assert_false(view(bad).ejected);
    struct prompt q;
    prompt_init(&q, "x", 1);
    q.r.pinned = ep[bad];
    sched_submit(s, &q.r, now);
    sched_finish(s, &q.r, OUT_RESET, NULL, now);
    now += p.eject_us + SEC; /* the second time lasts twice as long */
    sched_tick(s, now);
    assert_true(view(bad).ejected);
    now += p.eject_us;
    sched_tick(s, now);
    assert_false(view(bad).ejected);
    sched_free(s);
}

static void test_wait_for_probe(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 0);
    prompt_init(&q, "x", 1);
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    assert_int_equal(q.r.d.reject, REJECT_NO_ENDPOINT);
    ep[0] = sched_ep_add(s, NULL, true, now);
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    assert_int_equal(q.r.d.reject, REJECT_NO_ENDPOINT);
    sched_ep_probe(s, ep[0], true, now, now);
    assert_int_equal(ask(&q, "x", 1), 0);
    assert_int_equal(q.r.d.reason, REASON_ONLY_CANDIDATE);
    sched_free(s);
}

/* ---- candidates ---- */

static void test_retry_and_pin(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 3);
    bool seen[3] = {false};
    prompt_init(&q, "x", 1);
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
        assert_false(seen[index_of(q.r.d.ep)]);
        seen[index_of(q.r.d.ep)] = true;
        q.r.tried[q.r.n_tried++] = q.r.d.ep;
        sched_finish(s, &q.r, OUT_SERVER_ERROR, NULL, now);
    }
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    for (uint32_t k = 0; k < 20; k++) {
        prompt_init(&q, "x", 1);
        q.r.pinned = ep[1];
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
        assert_int_equal(index_of(q.r.d.ep), 1);
        assert_int_equal(q.r.d.reason, REASON_PINNED);
        sched_finish(s, &q.r, OUT_OK, NULL, now);
    }
    sched_ep_drain(s, ep[1], true, 0);
    for (uint32_t k = 0; k < 20; k++)
        assert_int_not_equal(ask(&q, "x", 1), 1);
    prompt_init(&q, "x", 1);
    q.r.pinned = ep[1]; /* not usable: anywhere else */
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    assert_int_not_equal(index_of(q.r.d.ep), 1);
    sched_finish(s, &q.r, OUT_OK, NULL, now);
    sched_free(s);
}

static void test_models(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_DEFAULT, 3);
    struct sched_model both[] = {{11, false}, {22, false}}, one[] = {{11, false}};
    sched_ep_models(s, ep[0], both, 2, now);
    sched_ep_models(s, ep[1], one, 1, now);
    sched_ep_models(s, ep[2], one, 1, now);
    for (int k = 0; k < 20; k++) {
        prompt_init(&q, "x", 1);
        q.r.model = 22;
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
        assert_int_equal(index_of(q.r.d.ep), 0);
        sched_finish(s, &q.r, OUT_OK, NULL, now);
    }
    prompt_init(&q, "x", 1);
    q.r.model = 99; /* nobody serves it: the servers shall say so */
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    assert_int_equal(q.r.d.n_candidates, 3);
    sched_finish(s, &q.r, OUT_MODEL_MISSING, NULL, now);
    q.r.model = 22; /* in the list, but it answers 404 */
    sched_ep_models(s, ep[1], both, 2, now);
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    uint32_t missing = index_of(q.r.d.ep);
    sched_finish(s, &q.r, OUT_MODEL_MISSING, NULL, now);
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
    assert_int_not_equal(index_of(q.r.d.ep), missing);
    sched_finish(s, &q.r, OUT_OK, NULL, now);
    sched_free(s);
}

static void test_removed_endpoints(void **state)
{
    (void)state;
    struct prompt q, q2;
    start(SCHED_PREFIX_CACHE, 2);
    char *text = random_text(1, 6400);
    uint32_t where = send(&q, text, 6400);
    sched_ep_remove(s, ep[where], now);
    sched_ep_remove(s, ep[where], now); /* stale: ignored */
    struct ep_ref again = sched_ep_add(s, NULL, false, now);
    assert_false(again.slot == ep[where].slot && again.gen == ep[where].gen);
    ep[where] = again;
    sched_first_token(s, &q.r, now);
    sched_finish(s, &q.r, OUT_CONNECT_FAILED, NULL, now); /* of the one that is gone */
    assert_false(view(where).ejected);
    assert_int_equal(view(where).index_blocks, 0);
    send(&q2, text, 6400);
    assert_int_equal(q2.r.d.matched_bytes, 0);
    done(&q2);
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_int_equal(st.inflight, 0);
    for (int k = 0; k < 500; k++) { /* slots are used again */
        sched_ep_remove(s, again, now);
        again = sched_ep_add(s, NULL, false, now);
    }
    assert_true(sched_ep_slots(s) < 8);
    free(text);
    sched_free(s);
}

static void test_round_robin(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_ROUND_ROBIN, 3);
    uint32_t first = ask(&q, "x", 1);
    for (uint32_t k = 1; k < 30; k++)
        assert_int_equal(ask(&q, "x", 1), (first + k) % 3);
    sched_free(s);
}

static void test_explain(void **state)
{
    (void)state;
    struct prompt q;
    struct sched_explain x;
    for (uint32_t n = 3; n <= 40; n += 37) {
        start(SCHED_PREFIX_CACHE, n);
        char *text = random_text(1, 20000);
        uint32_t holder = ask(&q, text, 10000);
        load((holder + 1) % n, 3, 4, 0.5);
        prompt_init(&q, text, 20000);
        q.r.explain = &x;
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_PICKED);
        assert_int_equal(index_of(q.r.d.ep), holder);
        assert_int_equal(x.reason, REASON_PREFIX_HOLDER);
        assert_int_equal(x.n, MIN(n, SCHED_EXPLAIN));
        assert_int_equal(x.n_endpoints, n);
        bool found = false;
        for (uint32_t i = 0; i < x.n; i++) {
            const struct sched_cost *c = &x.cost[i];
            double sum = c->wait_s + p.affinity * c->prefill_s + c->others_s + c->kv_s + c->extra_s;
            assert_true(fabs(sum - c->total_s) < 1e-9);
            bool chosen = index_of(c->ep) == holder;
            assert_int_equal(c->matched_bytes, chosen ? 8192 : 0);
            assert_true(chosen == (c->cached_tokens > 1000));
            assert_true(!chosen || fabs(c->total_s - q.r.d.cost_s) < 1e-9);
            found = found || chosen;
        }
        assert_true(found);
        sched_finish(s, &q.r, OUT_OK, NULL, now);
        free(text);
        sched_free(s);
    }
}

/* A request that nobody takes, or that has to wait, says of each endpoint why. */
static void test_explain_refusals(void **state)
{
    (void)state;
    struct prompt q;
    struct sched_explain x = {0};
    start(SCHED_PREFIX_CACHE, 30);
    for (uint32_t i = 0; i < 30; i++)
        sched_ep_drain(s, ep[i], i > 0, now);
    prompt_init(&q, "x", 1);
    q.r.explain = &x;
    q.r.tried[q.r.n_tried++] = ep[0];
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
    assert_int_equal(x.n, SCHED_EXPLAIN);
    assert_int_equal(x.n_candidates, 0);
    for (uint32_t i = 0; i < x.n; i++)
        assert_int_equal(x.cost[i].skip, index_of(x.cost[i].ep) ? SKIP_DRAINING : SKIP_TRIED);
    sched_free(s);

    start(SCHED_PREFIX_CACHE, 2);
    p.queueing = true;
    sched_set_params(s, &p, now);
    load(0, 50, 50, 0.1);
    load(1, 50, 50, 0.1);
    prompt_init(&q, "x", 1);
    q.r.explain = &x;
    assert_int_equal(sched_submit(s, &q.r, now), SCHED_QUEUED);
    assert_int_equal(x.n, 2);
    assert_int_equal(x.cost[0].skip, SKIP_FULL);
    assert_int_equal(x.cost[1].skip, SKIP_FULL);
    sched_cancel(s, &q.r, now);
    sched_free(s);
}

/* ---- determinism and the event stream ---- */

struct follower {
    struct sched *s;
    struct ep_ref ep[MAX_EPS];
};

static void follow(void *ctx, const struct sched_event *ev)
{
    struct follower *f = ctx;
    sched_apply(f->s, ev, f->ep[(uintptr_t)ev->user - 1], ev->at_us);
}

enum { N_EPS = 6, LIVE = 40 };

/* Random traffic of all kinds; returns a digest of the decisions. */
static uint64_t traffic(uint64_t seed, uint32_t ops)
{
    static struct prompt live[LIVE];
    bool busy[LIVE] = {false};
    struct rng r;
    uint64_t digest = 1;
    char *text = random_text(99, 20000);
    rng_init(&r, seed);
    for (uint32_t k = 0; k < ops; k++) {
        uint32_t i = (uint32_t)rng_below(&r, LIVE);
        now += rng_below(&r, 30000);
        if (rng_below(&r, 50) == 0)
            load((uint32_t)rng_below(&r, N_EPS), (double)rng_below(&r, 5), (double)rng_below(&r, 20), rng_unit(&r));
        if (rng_below(&r, 20) == 0)
            sched_tick(s, now);
        if (rng_below(&r, 30) == 0)
            sched_ep_probe(s, ep[rng_below(&r, N_EPS)], rng_below(&r, 8) > 0, now - 1000, now);
        if (!busy[i]) {
            size_t from = 64 * rng_below(&r, 20), n = rng_below(&r, 10000);
            prompt_init(&live[i], text + from, n);
            live[i].r.streamed = rng_below(&r, 2);
            live[i].r.max_tokens = rng_below(&r, 300);
            busy[i] = sched_submit(s, &live[i].r, now) == SCHED_PICKED;
            digest = hash_mix(digest, (uint64_t)live[i].r.d.ep.slot << 32 | live[i].r.d.matched_bytes);
        } else if (!live[i].r.first_us && rng_below(&r, 2)) {
            sched_first_token(s, &live[i].r, now);
        } else {
            enum sched_outcome how = rng_below(&r, 10) ? OUT_OK : (enum sched_outcome)rng_below(&r, OUT_STALE_CONN + 1);
            struct sched_usage u = {live[i].r.prompt_bytes / 4 + 1, rng_below(&r, 200), 0, false};
            sched_finish(s, &live[i].r, how, &u, now);
            busy[i] = false;
        }
    }
    for (uint32_t i = 0; i < LIVE; i++)
        if (busy[i])
            sched_finish(s, &live[i].r, OUT_OK, NULL, now);
    free(text);
    return digest;
}

static void test_same_inputs_same_decisions(void **state)
{
    (void)state;
    uint64_t digest[4];
    for (int k = 0; k < 4; k++) {
        start(k < 2 ? SCHED_PREFIX_CACHE : SCHED_DEFAULT, N_EPS);
        digest[k] = traffic(5, 20000);
        struct sched_stats st;
        sched_stats(s, now, &st);
        assert_int_equal(st.inflight, 0);
        for (uint32_t i = 0; i < N_EPS; i++)
            assert_true(view(i).inflight == 0 && view(i).unanswered == 0 && view(i).pending_prefill_s <= 0);
        sched_free(s);
    }
    assert_true(digest[0] == digest[1] && digest[2] == digest[3] && digest[0] != digest[2]);
}

static void test_replica_follows(void **state)
{
    (void)state;
    struct follower f;
    start(SCHED_PREFIX_CACHE, N_EPS);
    p.learn_speed = false; /* what one learns of the caches is its own */
    sched_set_params(s, &p, now);
    f.s = sched_new(&p, 1);
    for (uint32_t i = 0; i < N_EPS; i++)
        f.ep[i] = sched_ep_add(f.s, NULL, false, now);
    sched_on_event(s, follow, &f);
    traffic(6, 5000);
    struct prompt q;
    char *text = random_text(99, 20000);
    for (uint32_t i = 0; i < N_EPS; i++) { /* what the one believes of each endpoint, the other believes too */
        struct ep_view v;
        assert_true(sched_ep_view(f.s, f.ep[i].slot, now, &v));
        assert_int_equal(v.index_blocks, view(i).index_blocks);
        assert_true(v.others_waiting <= 0 && v.others_running <= 0);
        for (size_t from = 0; from < 20; from++) {
            prompt_init(&q, text + 64 * from, 10000);
            q.r.pinned = ep[i];
            q.ph.n = 100;
            struct sched_req mine = q.r, other = q.r;
            other.pinned = f.ep[i];
            sched_on_event(s, NULL, NULL);
            if (sched_submit(s, &mine, now) == SCHED_PICKED)
                sched_finish(s, &mine, OUT_CANCELLED, NULL, now);
            if (sched_submit(f.s, &other, now) == SCHED_PICKED)
                sched_finish(f.s, &other, OUT_CANCELLED, NULL, now);
            if (mine.d.reason == REASON_PINNED && other.d.reason == REASON_PINNED)
                assert_int_equal(mine.d.matched_bytes, other.d.matched_bytes);
        }
    }
    free(text);
    sched_free(s);
    sched_free(f.s);
}

static void test_replica_load_counts(void **state)
{
    (void)state;
    struct follower f;
    static struct prompt q[12];
    start(SCHED_DEFAULT, 2);
    f.s = sched_new(&p, 1);
    for (uint32_t i = 0; i < 2; i++)
        f.ep[i] = sched_ep_add(f.s, (void *)(uintptr_t)(i + 1), false, now);
    sched_on_event(s, follow, &f);
    sched_ep_drain(s, ep[1], true, 0);
    char *text = random_text(3, 4000);
    for (int i = 0; i < 6; i++)
        send(&q[i], text, 4000);
    struct sched *first = s;
    s = f.s; /* the replica has six requests' room at the other endpoint before the first is as good */
    for (int i = 6; i < 11; i++) {
        prompt_init(&q[i], text, 4000);
        assert_int_equal(sched_submit(s, &q[i].r, now), SCHED_PICKED);
        assert_int_equal(q[i].r.d.ep.slot, f.ep[1].slot);
    }
    for (int i = 6; i < 11; i++)
        sched_finish(s, &q[i].r, OUT_OK, NULL, now);
    s = first;
    for (int i = 0; i < 6; i++)
        done(&q[i]);
    struct ep_view v;
    sched_ep_view(f.s, f.ep[0].slot, now, &v);
    assert_true(v.others_waiting <= 0 && v.others_running <= 0);
    free(text);
    sched_free(s);
    sched_free(f.s);
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i <= SKIP_BEYOND_EXPLAIN; i++)
        assert_string_not_equal(sched_skip_name((enum sched_skip)i), "?");
    for (int i = 0; i <= REASON_EXPLORE; i++)
        assert_string_not_equal(sched_reason_name((enum sched_reason)i), "?");
    for (int i = 0; i <= REJECT_SHED; i++)
        assert_string_not_equal(sched_reject_name((enum sched_reject)i), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_and_kv_decide),
        cmocka_unit_test(test_mean_over_engines_ranks_the_largest_saturates),
        cmocka_unit_test(test_long_queue_gets_nothing),
        cmocka_unit_test(test_exploration),
        cmocka_unit_test(test_own_requests_are_not_others),
        cmocka_unit_test(test_ledger_view),
        cmocka_unit_test(test_shedding),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_capacity_follows_kv),
        cmocka_unit_test(test_failed_requests_leave_nothing),
        cmocka_unit_test(test_cached_tokens_correct),
        cmocka_unit_test(test_transport_failure_ejects_at_once),
        cmocka_unit_test(test_harmless_outcomes),
        cmocka_unit_test(test_soft_failures_need_three),
        cmocka_unit_test(test_hung_beyond_share),
        cmocka_unit_test(test_warm_cache_is_no_speed),
        cmocka_unit_test(test_share_and_last_one),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_ejection_without_probes_ends),
        cmocka_unit_test(test_wait_for_probe),
        cmocka_unit_test(test_retry_and_pin),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_removed_endpoints),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_explain),
        cmocka_unit_test(test_explain_refusals),
        cmocka_unit_test(test_same_inputs_same_decisions),
        cmocka_unit_test(test_replica_follows),
        cmocka_unit_test(test_replica_load_counts),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
