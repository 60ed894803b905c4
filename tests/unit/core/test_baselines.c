/* The policies of others: every formula with loads made by hand, ties, exclusion, exact knowledge, and a change of
 * policy under way. */
#include "base/rng.h"
#include "core/active.h"
#include "core/sched_int.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC_US     1000000ull
#define BLOCK      2048u /* bytes: 512 tokens */
#define MAX_EPS    8
#define MAX_HASHES 64

static struct sched *s;
static struct sched_params p;
static struct ep_ref ep[MAX_EPS];
static uint64_t now;

static void start_seeded(enum sched_policy policy, uint32_t n, uint64_t seed)
{
    sched_params_init(&p);
    p.policy = policy;
    p.block_bytes = BLOCK;
    now = 1000 * SEC_US;
    s = sched_new(&p, seed);
    for (uint32_t i = 0; i < n; i++)
        ep[i] = sched_ep_add(s, (void *)(uintptr_t)(i + 1), false, now);
    now += 5 * SEC_US; /* the slow start is over */
}

static void start(enum sched_policy policy, uint32_t n)
{
    start_seeded(policy, n, 42);
}

static void set_policy(enum sched_policy policy)
{
    p.policy = policy;
    sched_set_params(s, &p, now);
}

struct prompt {
    struct sched_req r;
    struct prefix_hashes ph;
    uint64_t h[MAX_HASHES];
};

/* n blocks: the first `shared` of the text `group`, the others of nobody else. */
static void prompt_init(struct prompt *q, uint64_t group, uint32_t shared, uint32_t n)
{
    static uint64_t next = 1000000;
    memset(q, 0, sizeof *q);
    for (uint32_t i = 0; i < n; i++)
        q->h[i] = i < shared ? group * 1000 + i + 1 : next++;
    q->ph = (struct prefix_hashes){.h = q->h, .n = n, .n_fine = n, .block_bytes = BLOCK};
    q->r = (struct sched_req){
        .id = next++, .hashes = &q->ph, .prompt_bytes = (uint64_t)n * BLOCK, .n_outputs = 1, .streamed = true};
}

static uint32_t index_of(struct ep_ref r)
{
    for (uint32_t i = 0; i < MAX_EPS; i++)
        if (ep[i].slot == r.slot && ep[i].gen == r.gen)
            return i;
    fail_msg("unknown endpoint");
    return 0;
}

static uint32_t submit(struct prompt *q)
{
    assert_int_equal(sched_submit(s, &q->r, now), SCHED_PICKED);
    return index_of(q->r.d.ep);
}

static uint32_t send(struct prompt *q, uint64_t group, uint32_t shared, uint32_t n)
{
    prompt_init(q, group, shared, n);
    return submit(q);
}

/* Puts a prompt on an endpoint of the test's choice. */
static void put(struct prompt *q, uint32_t where, uint64_t group, uint32_t shared, uint32_t n)
{
    prompt_init(q, group, shared, n);
    q->r.pinned = ep[where];
    assert_int_equal(submit(q), where);
}

static void first(struct prompt *q)
{
    now += 1000;
    sched_first_token(s, &q->r, now);
}

static void finish(struct prompt *q)
{
    now += 1000;
    sched_finish(s, &q->r, OUT_OK, NULL, now);
}

static void done(struct prompt *q)
{
    first(q);
    finish(q);
}

static uint32_t ask(uint64_t group, uint32_t shared, uint32_t n)
{
    struct prompt q;
    uint32_t where = send(&q, group, shared, n);
    done(&q);
    return where;
}

static void load(uint32_t i, double waiting, double kv)
{
    struct ep_load l = {.sent_us = now,
                        .done_us = now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .waiting = waiting,
                        .kv_frac = kv};
    sched_ep_load(s, ep[i], &l, now);
}

static uint64_t index_blocks(uint32_t i)
{
    struct ep_view v;
    assert_true(sched_ep_view(s, ep[i].slot, now, &v));
    return v.index_blocks;
}

/* ---- names ---- */

static void test_names(void **state)
{
    (void)state;
    static const char *const same[] = {"prefix-cache", "PREFIX_CACHE", "PrefixCache", "prefix_cache"};
    static const char *const bad[] = {"", "-", "prefix", "prefix-caches", "prefix cache", "refere"};
    enum sched_policy got;
    for (enum sched_policy i = 0; i < N_SCHED_POLICIES; i++) {
        assert_true(sched_policy_parse(str_c(sched_policy_name(i)), &got));
        assert_int_equal(got, i);
        assert_true(strlen(sched_policy_about(i)) > 3);
    }
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        assert_true(sched_policy_parse(str_c(same[i]), &got));
        assert_int_equal(got, SCHED_PREFIX_CACHE);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(sched_policy_parse(str_c(bad[i]), &got));
    assert_false(sched_policy_parse((struct str){"dynamo\0x", 8}, &got));
    assert_false(sched_policy_hashes(SCHED_RANDOM));
    assert_false(sched_policy_hashes(SCHED_DEFAULT));
    assert_true(sched_policy_hashes(SCHED_SESSION_HASH));
    assert_true(sched_policy_hashes(SCHED_PREFIX_CACHE));
}

/* ---- without a look at the prompt ---- */

static void test_random_is_even(void **state)
{
    (void)state;
    uint32_t n[4] = {0};
    static struct prompt held[3];
    start(SCHED_RANDOM, 4);
    for (int i = 0; i < 3; i++)
        put(&held[i], 0, 1, 10, 10); /* load does not matter */
    for (int i = 0; i < 4000; i++)
        n[ask(1, 10, 10)]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(n[i], 900, 1100);
    for (int i = 0; i < 3; i++)
        done(&held[i]);
    sched_free(s);
}

static void test_least_request(void **state)
{
    (void)state;
    static struct prompt q[8];
    uint32_t n[4] = {0};
    for (uint64_t seed = 0; seed < 200; seed++) {
        start_seeded(SCHED_LEAST_REQUEST, 4, seed);
        static const uint32_t where[] = {0, 0, 1, 3, 3, 3, 2};
        for (uint32_t i = 0; i < ARRAY_LEN(where); i++) /* 2, 1, 1, 3 in flight; those of 1 and 2 are the longest */
            put(&q[i], where[i], 9, 0, i == 2 || i == 6 ? 60 : 1);
        n[send(&q[7], 9, 0, 1)]++;
        assert_int_equal(q[7].r.d.reason, REASON_POLICY);
        for (uint32_t i = 0; i < ARRAY_LEN(q); i++)
            done(&q[i]);
        sched_free(s);
    }
    assert_int_equal(n[0] + n[3], 0);
    assert_in_range(n[1], 60, 140); /* by chance among equals */
}

static void test_session_hash(void **state)
{
    (void)state;
    uint32_t home[200], n[4] = {0}, moved = 0;
    start(SCHED_SESSION_HASH, 4);
    for (uint32_t i = 0; i < 200; i++) {
        home[i] = ask(i, 2, 6);
        n[home[i]]++;
        assert_int_equal(ask(i, 2, 30), home[i]); /* what follows the second block does not matter */
    }
    for (int i = 0; i < 4; i++)
        assert_in_range(n[i], 25, 80);
    struct prompt q;
    prompt_init(&q, 7, 2, 2);
    q.h[0] = 12345; /* nor what precedes it */
    assert_int_equal(submit(&q), home[7]);
    done(&q);
    sched_ep_remove(s, ep[2], now);
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t at = ask(i, 2, 6);
        assert_true(at == home[i] || home[i] == 2); /* the others stay where they are */
        moved += at != home[i];
    }
    assert_int_equal(moved, n[2]);
    uint32_t where[MAX_EPS] = {0};
    for (uint64_t i = 0; i < 100; i++) { /* no hash: by id */
        prompt_init(&q, 0, 0, 0);
        q.r.id = i * 7919;
        where[submit(&q)]++;
        done(&q);
    }
    assert_true(where[0] && where[1] && where[3]);
    sched_free(s);
}

/* ---- reference ---- */

/* The worked example of the reference's documentation of its default profile. */
static uint32_t reference_example(enum sched_policy policy, double q0, double q1, double q2)
{
    struct prompt held, q;
    start(policy, 3);
    p.bytes_per_token = 8; /* ten blocks are within 4096 tokens */
    sched_set_params(s, &p, now);
    put(&held, 0, 1, 9, 9);
    done(&held);
    load(0, q0, 0.6);
    load(1, q1, 0.2);
    load(2, q2, 0.3);
    static struct prompt burst[12];
    for (int i = 0; i < 12; i++) /* only what was scraped counts */
        put(&burst[i], 0, 3, 0, 1);
    uint32_t where = send(&q, 1, 9, 10);
    for (int i = 0; i < 12; i++)
        done(&burst[i]);
    done(&q);
    sched_free(s);
    return where;
}

static void test_reference_scores(void **state)
{
    (void)state;
    static const enum sched_policy with_prefix[] = {SCHED_REFERENCE, SCHED_REFERENCE_DEEP};
    for (size_t i = 0; i < ARRAY_LEN(with_prefix); i++) {
        assert_int_equal(reference_example(with_prefix[i], 0, 1, 4), 0); /* 5.5, 3.1, 1.4 */
        assert_int_equal(reference_example(with_prefix[i], 1, 0, 0), 1); /* 3.5, 3.6, 3.4 */
        assert_int_equal(reference_example(with_prefix[i], 1, 1, 0), 0); /* 3.5, 1.6, 3.4 */
    }
    assert_int_equal(reference_example(SCHED_REFERENCE_LOAD, 0, 1, 4), 1); /* 2.8, 3.1, 1.4 */
    assert_int_equal(reference_example(SCHED_REFERENCE_LOAD, 0, 3, 4), 0); /* 2.8, 2.1, 1.4 */
    assert_int_equal(reference_example(SCHED_REFERENCE_LOAD, 5, 5, 5), 1); /* equal queues: 1 each */
}

static void test_reference_looks_at_the_head(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_REFERENCE, 2);
    put(&q, 0, 1, 40, 40);
    done(&q);
    assert_int_equal(index_blocks(0), 8); /* 4096 tokens of four bytes */
    prompt_init(&q, 1, 40, 40);
    submit(&q);
    assert_int_equal(q.r.d.matched_bytes, 8 * BLOCK);
    sched_finish(s, &q.r, OUT_RESET, NULL, now);
    assert_int_equal(index_blocks(0), 8);
    sched_free(s);
    start(SCHED_REFERENCE, 2); /* the share is of the blocks that were looked at: 8 of 8, not of 40 */
    put(&q, 0, 1, 8, 8);
    done(&q);
    load(0, 1, 0);
    load(1, 0, 0.5);
    assert_int_equal(ask(1, 8, 40), 0); /* 0 + 2 + 3 against 2 + 1 */
    sched_free(s);
    start(SCHED_REFERENCE_DEEP, 2);
    put(&q, 0, 1, 40, 40);
    done(&q);
    assert_int_equal(index_blocks(0), 40);
    load(0, 1, 0);
    load(1, 0, 0.5);
    assert_int_equal(ask(1, 8, 40), 1); /* 0 + 2 + 0.6 against 2 + 1 */
    sched_free(s);
    start(SCHED_REFERENCE_LOAD, 1);
    put(&q, 0, 1, 40, 40);
    done(&q);
    assert_int_equal(index_blocks(0), 0);
    sched_free(s);
}

static void test_reference_ties_by_chance(void **state)
{
    (void)state;
    uint32_t n[3] = {0};
    start(SCHED_REFERENCE_LOAD, 3);
    for (int i = 0; i < 300; i++)
        n[ask(1, 0, 1)]++;
    for (int i = 0; i < 3; i++)
        assert_in_range(n[i], 70, 130);
    sched_free(s);
}

/* ---- cache aware ---- */

static void test_cache_aware_share(void **state)
{
    (void)state;
    static struct prompt hold[2];
    struct prompt q;
    start(SCHED_CACHE_AWARE, 2);
    put(&q, 0, 1, 3, 3);
    done(&q);
    put(&hold[0], 0, 2, 0, 1);          /* the holder has more in flight */
    assert_int_equal(ask(1, 3, 10), 1); /* 3 of 10 is no more than 0.3 */
    put(&q, 0, 4, 4, 4);
    done(&q);
    assert_int_equal(ask(4, 4, 10), 0);
    done(&hold[0]);
    sched_free(s);
}

static void test_cache_aware_balance(void **state)
{
    (void)state;
    static struct prompt hold[100];
    struct prompt q;
    uint32_t n = 0;
    start(SCHED_CACHE_AWARE, 3);
    put(&q, 0, 1, 10, 10);
    done(&q);
    for (; n < 64; n++)
        put(&hold[n], 0, 2, 0, 1);
    assert_int_equal(ask(1, 10, 11), 0); /* 64 is not more than 64 */
    put(&hold[n++], 0, 2, 0, 1);
    put(&hold[n++], 2, 2, 0, 1);
    put(&hold[n++], 1, 2, 0, 1);
    put(&hold[n++], 0, 2, 0, 1);
    done(&hold[--n]);
    assert_int_equal(ask(1, 10, 11), 0); /* 65 - 1 */
    done(&hold[--n]);
    uint32_t fewest = ask(1, 10, 11);
    assert_int_equal(fewest, 1); /* 65 - 0; the other has one */
    while (n)
        done(&hold[--n]);
    sched_free(s);
}

static void test_cache_aware_ratio(void **state)
{
    (void)state;
    static struct prompt hold[600];
    struct prompt q;
    uint32_t n = 0;
    start(SCHED_CACHE_AWARE, 2);
    put(&q, 0, 1, 10, 10);
    done(&q);
    put(&hold[n++], 1, 2, 0, 1);
    for (int i = 0; i < 66; i++)
        put(&hold[n++], 0, 2, 0, 1);
    uint32_t where = ask(1, 10, 11);
    assert_int_equal(where, 1); /* 66 to 1: too far apart; the prompt is there now, too */
    put(&q, 0, 1, 10, 10);
    done(&q);
    for (int i = 0; i < 140; i++) {
        put(&hold[n++], 0, 2, 0, 1);
        put(&hold[n++], 1, 2, 0, 1);
    }
    where = ask(1, 10, 11);
    assert_int_equal(where, 0); /* 206 to 141: less than half more */
    while (n)
        done(&hold[--n]);
    sched_free(s);
}

static void test_cache_aware_order(void **state)
{
    (void)state;
    struct prompt q;
    start(SCHED_CACHE_AWARE, 3);
    put(&q, 0, 8, 0, 1);
    done(&q);
    put(&q, 0, 8, 0, 1);
    done(&q);
    put(&q, 1, 8, 0, 1);
    done(&q);
    assert_int_equal(ask(9, 0, 4), 2); /* requests processed: 2, 1, 0 */
    assert_int_equal(ask(9, 0, 4), 1); /* 2, 1, 1: the first */
    put(&q, 2, 1, 10, 10);
    done(&q);
    put(&q, 1, 1, 10, 10);
    done(&q);
    put(&q, 2, 8, 0, 1); /* a pick, but of another prompt */
    done(&q);
    assert_int_equal(ask(1, 10, 10), 1); /* the one that was sent it last */
    sched_free(s);
}

/* ---- tokens to compute ---- */

static void test_least_work_and_lmetric(void **state)
{
    (void)state;
    static struct prompt hold[4];
    static const enum sched_policy which[] = {SCHED_LEAST_WORK, SCHED_LMETRIC};
    for (uint32_t i = 0; i < 2; i++) {
        start(which[i], 2);
        put(&hold[0], 0, 9, 0, 4); /* 2048 tokens, one request */
        for (int k = 1; k < 4; k++)
            put(&hold[k], 1, 9, 0, 1); /* 1536, three */
        struct prompt q;
        uint32_t where = send(&q, 9, 0, 2); /* work: 3072, 2560; times requests: 6144, 10240 */
        assert_int_equal(where, i ? 0 : 1);
        done(&q);
        first(&hold[0]);           /* its prefill is done, it is still in flight */
        where = send(&q, 9, 0, 2); /* work: 1024, 2560; times: 2048, 10240 */
        assert_int_equal(where, 0);
        done(&q);
        put(&q, 1, 5, 8, 8);
        done(&q);
        where = send(&q, 5, 8, 8); /* cached there. Work: 4096, 1537; times 8192, 6148 */
        assert_int_equal(where, 1);
        done(&q);
        finish(&hold[0]);
        for (int k = 1; k < 4; k++)
            done(&hold[k]);
        sched_free(s);
    }
}

/* ---- Dynamo ---- */

static double active_blocks(uint32_t i)
{
    return s->eps[ep[i].slot].active_blocks;
}

static void test_dynamo_counts_shared_blocks_once(void **state)
{
    (void)state;
    static struct prompt hold[3];
    start(SCHED_DYNAMO, 2);
    put(&hold[0], 0, 1, 10, 10);
    put(&hold[1], 0, 1, 10, 10);
    put(&hold[2], 1, 2, 0, 11);
    for (int i = 0; i < 3; i++)
        first(&hold[i]);
    assert_true(active_blocks(0) > 9.5 && active_blocks(0) < 10.5);
    assert_true(active_blocks(1) > 10.5 && active_blocks(1) < 11.5);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(3, 0, 5), 0); /* 5 + 10 + 5 against 5 + 11 + 5 */
    finish(&hold[0]);
    assert_true(active_blocks(0) > 9.5); /* the other still has them */
    finish(&hold[1]);
    assert_true(active_blocks(0) < 0.5);
    finish(&hold[2]);
    assert_true(active_blocks(1) < 0.5);
    assert_int_equal(active_n(s->active), 0);
    sched_free(s);
}

static void test_dynamo_cost(void **state)
{
    (void)state;
    static struct prompt hold[2];
    struct prompt q;
    start(SCHED_DYNAMO, 2);
    put(&hold[0], 0, 1, 10, 10);
    first(&hold[0]);
    put(&hold[1], 1, 2, 0, 6);
    first(&hold[1]);
    assert_int_equal(send(&q, 1, 10, 10), 0); /* 0 + 10 + 0 against 10 + 6 + 10 */
    done(&q);
    put(&q, 1, 1, 5, 5); /* half of it at the other, cached and no longer active */
    done(&q);
    assert_int_equal(send(&q, 1, 5, 5), 0); /* 0 + 10 + 0 against 0 + 6 + 5 */
    done(&q);
    finish(&hold[0]);
    finish(&hold[1]);
    sched_free(s);
}

static void test_dynamo_pending(void **state)
{
    (void)state;
    static struct prompt hold[2];
    struct prompt q;
    start(SCHED_DYNAMO, 2);
    put(&hold[0], 0, 1, 0, 6); /* not answered: 6 to compute, 6 active */
    put(&hold[1], 1, 2, 0, 10);
    first(&hold[1]); /* 10 active */
    assert_int_equal(send(&q, 3, 0, 1), 1);
    done(&q);
    first(&hold[0]);
    assert_int_equal(send(&q, 3, 0, 1), 0);
    done(&q);
    finish(&hold[0]);
    finish(&hold[1]);
    sched_free(s);
}

/* A half block at the end counts as one, for each request. */
static void test_dynamo_tail(void **state)
{
    (void)state;
    static struct prompt hold[2];
    start(SCHED_DYNAMO, 1);
    for (int i = 0; i < 2; i++) {
        prompt_init(&hold[i], 1, 3, 3);
        hold[i].r.prompt_bytes += BLOCK / 2;
        submit(&hold[i]);
    }
    assert_true(active_blocks(0) > 4.5 && active_blocks(0) < 5.5);
    for (int i = 0; i < 2; i++)
        done(&hold[i]);
    assert_true(active_blocks(0) < 0.5);
    sched_free(s);
}

/* ---- Preble ---- */

static void test_preble_exploits_more_than_half(void **state)
{
    (void)state;
    struct prompt q;
    for (uint32_t of = 11; of <= 12; of++) {
        start(SCHED_PREBLE, 2);
        put(&q, 0, 1, 6, 6);
        done(&q);
        put(&q, 0, 3, 0, 2); /* by its cost alone the idle one would be the better */
        done(&q);
        uint32_t where = ask(1, 6, of);
        assert_int_equal(where, of == 11 ? 0 : 1); /* half is not more than half */
        sched_free(s);
    }
}

/* Exploring: work, eviction and prefill each decide where the others are equal. */
static void test_preble_explores_by_cost(void **state)
{
    (void)state;
    static struct prompt hold[4];
    struct prompt q;
    for (uint64_t seed = 0; seed < 12; seed++) {
        start_seeded(SCHED_PREBLE, 2, seed);
        put(&hold[0], 1, 2, 0, 8); /* more prefill, but it decodes one; */
        for (int i = 1; i < 4; i++)
            put(&hold[i], 0, 2, 0, 1); /* this one three */
        assert_int_equal(ask(3, 0, 4), 1);
        for (int i = 0; i < 4; i++)
            done(&hold[i]);
        sched_free(s);
        start_seeded(SCHED_PREBLE, 2, seed);
        load(0, 0, 0.999);
        assert_int_equal(ask(3, 0, 4), 1);
        sched_free(s);
        start_seeded(SCHED_PREBLE, 2, seed);
        put(&q, 1, 1, 4, 4);
        done(&q);
        put(&q, 0, 2, 0, 4);
        done(&q);
        assert_int_equal(ask(1, 4, 10), 1);
        sched_free(s);
    }
}

static void test_preble_remembers_three_minutes(void **state)
{
    (void)state;
    struct prompt q;
    for (uint64_t wait = 0; wait <= 240; wait += 60) {
        uint32_t n = 0;
        for (uint64_t seed = 0; seed < 20; seed++) {
            start_seeded(SCHED_PREBLE, 2, seed);
            put(&q, 0, 1, 0, 8);
            done(&q);
            now += wait * SEC_US;
            n += ask(2, 0, 8) == 0;
            sched_free(s);
        }
        if (wait <= 120)
            assert_int_equal(n, 0);
        else if (wait >= 240)
            assert_in_range(n, 1, 19); /* equal again: by chance */
    }
}

static void test_preble_lightest_holder_and_rebalance(void **state)
{
    (void)state;
    static struct prompt hold[20];
    struct prompt q;
    start(SCHED_PREBLE, 3);
    put(&q, 0, 1, 8, 8);
    done(&q);
    put(&q, 1, 1, 8, 8);
    done(&q);
    put(&q, 1, 2, 0, 1); /* the second holder has done a little more */
    done(&q);
    put(&q, 2, 2, 0, 4);
    done(&q);
    assert_int_equal(ask(1, 8, 8), 0);
    for (int i = 0; i < 10; i++) { /* now both holders decode a lot, the first more */
        put(&hold[i], i < 6 ? 0 : 1, 3, 0, 1);
        first(&hold[i]);
    }
    assert_int_equal(ask(1, 8, 8), 1); /* the lighter holder is not the heaviest of all */
    for (int i = 10; i < 20; i++) {
        put(&hold[i], 1, 3, 0, 1);
        first(&hold[i]);
    }
    sched_ep_drain(s, ep[0], true, now);
    assert_int_equal(ask(1, 8, 8), 2); /* the only holder, and far above the least */
    for (int i = 0; i < 20; i++)
        finish(&hold[i]);
    sched_free(s);
}

/* ---- all ---- */

static const enum sched_policy by_match[] = {SCHED_PREFIX_CACHE, SCHED_REFERENCE, SCHED_REFERENCE_DEEP,
                                             SCHED_CACHE_AWARE,  SCHED_DYNAMO,    SCHED_LMETRIC,
                                             SCHED_LEAST_WORK,   SCHED_PREBLE};

/* Exact knowledge counts, not the index. */
static void test_held(void **state)
{
    (void)state;
    struct prompt q;
    for (size_t i = 0; i < ARRAY_LEN(by_match); i++)
        for (uint32_t home = 0; home < 4; home++) {
            uint32_t held[4] = {0};
            start(by_match[i], 4);
            put(&q, (home + 1) % 4, 1, 8, 8); /* the index thinks of another */
            done(&q);
            for (int k = 0; k < 4; k++) { /* as much work for all */
                put(&q, (uint32_t)k, 2, 0, 8);
                done(&q);
            }
            now += 600 * SEC_US;
            held[ep[home].slot] = 8;
            prompt_init(&q, 1, 8, 8);
            q.r.held = held;
            q.r.n_held = ep[home].slot + 1; /* the others are beyond: 0 */
            assert_int_equal(submit(&q), home);
            assert_int_equal(q.r.d.matched_bytes, 8 * BLOCK);
            done(&q);
            prompt_init(&q, 1, 8, 8);
            memset(held, 0, sizeof held);
            q.r.held = held;
            q.r.n_held = 4;
            submit(&q);
            assert_int_equal(q.r.d.matched_bytes, 0); /* nothing, whatever the index says */
            done(&q);
            sched_free(s);
        }
}

/* More than there are hashes, and more than the policy looks at. */
static void test_held_is_bounded(void **state)
{
    (void)state;
    uint32_t held[2] = {UINT32_MAX, 3};
    struct prompt q;
    start(SCHED_REFERENCE, 2);
    prompt_init(&q, 1, 40, 40);
    q.r.held = held;
    q.r.n_held = 2;
    assert_int_equal(submit(&q), 0);
    assert_int_equal(q.r.d.matched_bytes, 8 * BLOCK);
    done(&q);
    sched_free(s);
}

/* Whoever is out is out, whatever the rule says of it: here all rules want endpoint 0. */
static void test_exclusion(void **state)
{
    (void)state;
    static struct prompt hold[3];
    struct prompt q;
    for (enum sched_policy policy = 0; policy < N_SCHED_POLICIES; policy++)
        for (int how = 0; how < 5; how++) {
            start(policy, 3);
            struct sched_model model = {.name = 5};
            put(&q, 0, 1, 8, 8);
            done(&q);
            for (uint32_t i = 0; i < 3; i++) {
                put(&hold[i], i, 2, 0, i ? 8 : 1);
                sched_ep_models(s, ep[i], &model, 1, now);
            }
            struct sched_model other = {.name = 6};
            struct ep_ref tried = ep[0];
            if (how == 1) {
                prompt_init(&q, 3, 0, 1);
                q.r.pinned = ep[0];
                submit(&q);
                sched_finish(s, &q.r, OUT_CONNECT_FAILED, NULL, now);
            } else if (how == 2) {
                sched_ep_drain(s, ep[0], true, now);
            } else if (how == 3) {
                sched_ep_models(s, ep[0], &other, 1, now);
            } else if (how == 4) {
                p.queueing = true;
                sched_set_params(s, &p, now);
                load(0, 100, 0.99);
            }
            for (int i = 0; i < 20; i++) {
                prompt_init(&q, 1, 8, 8);
                q.r.model = 5;
                q.r.id = (uint64_t)i;
                q.h[1] = how == 0 && i > 5 ? (uint64_t)i : q.h[1];
                if (how == 0)
                    q.r.tried[q.r.n_tried++] = tried;
                assert_int_not_equal(submit(&q), 0);
                done(&q);
            }
            for (int i = 0; i < 3; i++)
                done(&hold[i]);
            sched_free(s);
        }
}

/* Nobody but one: it gets all, and the reason says so. Nobody at all: refused. */
static void test_few(void **state)
{
    (void)state;
    struct prompt q;
    for (enum sched_policy policy = 0; policy < N_SCHED_POLICIES; policy++) {
        start(policy, 1);
        send(&q, 1, 8, 8);
        assert_int_equal(q.r.d.reason, REASON_ONLY_CANDIDATE);
        done(&q);
        prompt_init(&q, 0, 0, 0);
        q.r.hashes = NULL;
        submit(&q);
        done(&q);
        sched_ep_drain(s, ep[0], true, now);
        prompt_init(&q, 1, 8, 8);
        assert_int_equal(sched_submit(s, &q.r, now), SCHED_REJECTED);
        sched_free(s);
    }
}

/* Explanations stay expected seconds of work. */
static void test_explained(void **state)
{
    (void)state;
    struct sched_explain x;
    struct prompt q;
    start(SCHED_LMETRIC, 3);
    put(&q, 1, 1, 8, 8);
    done(&q);
    prompt_init(&q, 1, 8, 8);
    q.r.explain = &x;
    assert_int_equal(submit(&q), 1);
    assert_int_equal(x.reason, REASON_POLICY);
    assert_string_equal(sched_reason_name(x.reason), "policy");
    assert_int_equal(x.n, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(x.cost[i].total_s > 0 && x.cost[i].total_s < 100);
        assert_int_equal(x.cost[i].matched_bytes, x.cost[i].ep.slot == ep[1].slot ? 8 * BLOCK : 0);
    }
    done(&q);
    sched_free(s);
}

/* Every change with requests in flight that were sent under every policy; endpoints come and go meanwhile. */
static void test_live_switch(void **state)
{
    (void)state;
    static struct prompt q[64];
    bool busy[64] = {false};
    struct rng r;
    rng_init(&r, 3);
    start(SCHED_DYNAMO, 4);
    for (int i = 0; i < 20000; i++) {
        uint32_t k = (uint32_t)rng_below(&r, 64), what = (uint32_t)rng_below(&r, 100);
        if (what < 3)
            set_policy((enum sched_policy)rng_below(&r, N_SCHED_POLICIES));
        if (what == 3) {
            uint32_t e = (uint32_t)rng_below(&r, 4);
            sched_ep_remove(s, ep[e], now);
            ep[e] = sched_ep_add(s, NULL, false, now);
        }
        if (!busy[k]) {
            prompt_init(&q[k], rng_below(&r, 5), (uint32_t)rng_below(&r, 12), 12);
            busy[k] = sched_submit(s, &q[k].r, now) == SCHED_PICKED;
        } else if (rng_below(&r, 2)) {
            first(&q[k]);
        } else {
            sched_finish(s, &q[k].r, rng_below(&r, 4) ? OUT_OK : OUT_CANCELLED, NULL, now);
            busy[k] = false;
        }
        now += rng_below(&r, 100000);
        sched_tick(s, now);
    }
    for (int k = 0; k < 64; k++)
        if (busy[k])
            finish(&q[k]);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(active_blocks(i) <= 0);
    if (s->active)
        assert_int_equal(active_n(s->active), 0);
    set_policy(SCHED_DYNAMO);
    assert_int_equal(active_n(s->active), 0);
    set_policy(SCHED_RANDOM);
    assert_null(s->active);
    assert_null(s->users);
    sched_free(s);
}

/* The new rule counts at once, and the old one's numbers do not come back. */
static void test_switch_takes_effect(void **state)
{
    (void)state;
    static struct prompt hold;
    struct prompt q;
    start(SCHED_LEAST_REQUEST, 2);
    put(&hold, 0, 1, 8, 8);
    assert_int_equal(ask(1, 8, 8), 1);
    set_policy(SCHED_DYNAMO);
    assert_true(active_blocks(0) < 0.5); /* sent before: not counted, */
    put(&q, 0, 1, 8, 8);
    assert_true(active_blocks(0) > 7.5);
    done(&hold); /* nor taken off */
    assert_true(active_blocks(0) > 7.5);
    set_policy(SCHED_RANDOM);
    set_policy(SCHED_DYNAMO);
    assert_true(active_blocks(0) < 0.5);
    put(&hold, 0, 1, 8, 8);
    done(&q); /* counted, but in another life */
    assert_true(active_blocks(0) > 7.5);
    assert_int_equal(active_n(s->active), 8);
    done(&hold);
    assert_true(active_blocks(0) < 0.5);
    sched_free(s);
}

/* Same inputs, same seed: same choices. */
static void test_deterministic(void **state)
{
    (void)state;
    for (enum sched_policy policy = 0; policy < N_SCHED_POLICIES; policy++) {
        uint32_t was[200];
        for (int run = 0; run < 2; run++) {
            start(policy, 5);
            for (uint32_t i = 0; i < 200; i++) {
                struct prompt q;
                prompt_init(&q, i % 7, 6, 8);
                q.h[6] = 500000 + i;
                q.h[7] = 600000 + i;
                q.r.id = i;
                uint32_t where = submit(&q);
                done(&q);
                assert_true(run == 0 || where == was[i]);
                was[i] = where;
            }
            sched_free(s);
        }
    }
}

/* ---- active blocks ---- */

static void test_active_table(void **state)
{
    (void)state;
    static uint32_t n[512][4];
    struct active *t = active_new(1);
    struct rng r;
    uint32_t distinct = 0;
    rng_init(&r, 1);
    for (int i = 0; i < 200000; i++) {
        uint32_t h = (uint32_t)rng_below(&r, 512), e = (uint32_t)rng_below(&r, 4);
        bool more = rng_below(&r, 100) < (i / 20000 % 2 ? 30 : 70);
        if (more) {
            assert_int_equal(active_add(t, h, e, 1), n[h][e] == 0);
            distinct += n[h][e]++ == 0;
        } else {
            assert_int_equal(active_del(t, h, e, 1), n[h][e] == 1);
            distinct -= n[h][e] == 1;
            n[h][e] -= n[h][e] > 0;
        }
        assert_int_equal(active_n(t), distinct);
        assert_int_equal(active_has(t, h, e, 1), n[h][e] > 0);
        assert_false(active_has(t, h, e, 2));
    }
    for (uint32_t h = 0; h < 512; h++)
        for (uint32_t e = 0; e < 4; e++)
            assert_int_equal(active_has(t, h, e, 1), n[h][e] > 0);
    active_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_random_is_even),
        cmocka_unit_test(test_least_request),
        cmocka_unit_test(test_session_hash),
        cmocka_unit_test(test_reference_scores),
        cmocka_unit_test(test_reference_looks_at_the_head),
        cmocka_unit_test(test_reference_ties_by_chance),
        cmocka_unit_test(test_cache_aware_share),
        cmocka_unit_test(test_cache_aware_balance),
        cmocka_unit_test(test_cache_aware_ratio),
        cmocka_unit_test(test_cache_aware_order),
        cmocka_unit_test(test_least_work_and_lmetric),
        cmocka_unit_test(test_dynamo_counts_shared_blocks_once),
        cmocka_unit_test(test_dynamo_cost),
        cmocka_unit_test(test_dynamo_pending),
        cmocka_unit_test(test_dynamo_tail),
        cmocka_unit_test(test_preble_exploits_more_than_half),
        cmocka_unit_test(test_preble_explores_by_cost),
        cmocka_unit_test(test_preble_remembers_three_minutes),
        cmocka_unit_test(test_preble_lightest_holder_and_rebalance),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_held_is_bounded),
        cmocka_unit_test(test_exclusion),
        cmocka_unit_test(test_few),
        cmocka_unit_test(test_explained),
        cmocka_unit_test(test_live_switch),
        cmocka_unit_test(test_switch_takes_effect),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_active_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
