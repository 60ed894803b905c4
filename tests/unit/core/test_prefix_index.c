/* The prefix index against a naive one: matches, ageing, rollback, trim, closed slots; and its memory. */
#include "base/hash.h"
#include "base/rng.h"
#include "core/prefix_index.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define DEPTH 7
#define NODES ((2u << DEPTH) - 2) /* a binary tree without its root: node v has the parent (v - 2) / 2, v >= 2 */
#define SLOTS 100
#define FINE  5

#ifdef __SANITIZE_ADDRESS__
#define OPS 60000
#else
#define OPS 1000000
#endif

struct naive_slot {
    bool open;
    uint64_t cap, blocks;
    bool held[NODES];
    uint64_t touch[NODES]; /* which insert touched it last */
    uint64_t pos[NODES];   /* age: evicted by (pos, deepest first) */
    uint32_t at[NODES];    /* time of that */
    uint32_t now;
};
static struct naive_slot naive[SLOTS];
static uint64_t hashes[NODES];
static uint8_t depth_of[NODES];
static uint64_t clock_;
static uint32_t next_child[OPS + 1][DEPTH]; /* by insert: its chain */
static uint32_t chain_n[OPS + 1];
static uint32_t oldest_asked, oldest_exact;

static uint64_t weight(uint32_t v)
{
    return depth_of[v] >= FINE ? PREFIX_COARSE : 1;
}

static void tree_init(void)
{
    for (uint32_t v = 0; v < NODES; v++) {
        depth_of[v] = v < 2 ? 0 : (uint8_t)(depth_of[(v - 2) / 2] + 1);
        hashes[v] = hash_mix(v < 2 ? 77 : hashes[(v - 2) / 2], v);
    }
}

static uint32_t random_chain(struct rng *r, uint32_t *nodes, uint64_t *h)
{
    uint32_t n = 1 + (uint32_t)rng_below(r, DEPTH), v = (uint32_t)rng_below(r, 2);
    for (uint32_t i = 0; i < n; i++) {
        nodes[i] = v;
        h[i] = hashes[v];
        v = 2 * v + 2 + (rng_below(r, 4) == 0); /* skewed, so that prefixes are shared */
    }
    return n;
}

static void naive_drop(struct naive_slot *s, uint32_t v)
{
    if (s->held[v])
        s->blocks -= weight(v);
    s->held[v] = false;
}

static uint32_t naive_oldest(const struct naive_slot *s)
{
    uint32_t best = NODES;
    for (uint32_t v = 0; v < NODES; v++)
        if (s->held[v] &&
            (best == NODES || s->pos[v] < s->pos[best] || (s->pos[v] == s->pos[best] && depth_of[v] > depth_of[best])))
            best = v;
    return best;
}

static void naive_shrink(struct naive_slot *s)
{
    while (s->blocks > s->cap)
        naive_drop(s, naive_oldest(s));
}

static uint32_t naive_insert(struct naive_slot *s, const uint32_t *nodes, uint32_t n, uint32_t now, uint64_t op)
{
    uint32_t added = 0;
    ++clock_;
    s->now = now;
    for (uint32_t i = 0; i < n; i++) {
        if (!s->held[nodes[i]]) {
            added++;
            s->held[nodes[i]] = true;
            s->blocks += weight(nodes[i]);
        }
        s->touch[nodes[i]] = op;
        s->pos[nodes[i]] = clock_;
        s->at[nodes[i]] = now;
        next_child[op][i] = nodes[i];
    }
    chain_n[op] = n;
    naive_shrink(s);
    return added;
}

/* The last of `keep` nodes lost what was below it. Was that part of its own latest touch, it ages from now. */
static void naive_cover(struct naive_slot *s, const uint32_t *nodes, uint32_t keep)
{
    if (!keep || !s->held[nodes[keep - 1]])
        return;
    uint64_t op = s->touch[nodes[keep - 1]];
    if (keep == chain_n[op] || (s->held[next_child[op][keep]] && s->touch[next_child[op][keep]] == op))
        return;
    ++clock_;
    for (uint32_t i = 0; i < keep; i++)
        if (s->touch[nodes[i]] == op) {
            s->pos[nodes[i]] = clock_;
            s->at[nodes[i]] = s->now;
        }
}

static uint32_t naive_match(const struct naive_slot *s, const uint32_t *nodes, uint32_t n)
{
    uint32_t i = 0;
    while (s->open && i < n && s->held[nodes[i]])
        i++;
    return i;
}

struct undo {
    uint32_t slot, n, added, stamp;
    uint64_t op;
    uint32_t nodes[DEPTH];
    uint64_t h[DEPTH];
};

static void check_match(struct prefix_index *ix, const uint32_t *nodes, const uint64_t *h, uint32_t n)
{
    const struct prefix_match *m = prefix_index_match(ix, h, n);
    uint32_t longest = 0, holders = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t want = naive_match(&naive[i], nodes, n);
        assert_int_equal(prefix_match_len(m, ix, i), want);
        longest = want > longest ? want : longest;
        holders += want > 0;
    }
    assert_int_equal(m->chain_n, longest);
    assert_int_equal(m->n, holders);
}

/* What `blocks` more would push out, and the latest time among that. */
static void check_oldest(struct prefix_index *ix, uint32_t slot, uint64_t blocks)
{
    static struct naive_slot s;
    uint32_t last_ds, want_ds = 0;
    s = naive[slot];
    uint64_t over = prefix_index_oldest(ix, slot, blocks, &last_ds);
    uint64_t want = s.open && s.blocks + blocks > s.cap ? s.blocks + blocks - s.cap : 0;
    assert_int_equal(over, want);
    uint64_t least = s.blocks - MIN(want, s.blocks);
    if (want >= s.blocks)
        want_ds = want ? s.now : 0;
    while (want && s.blocks > least) {
        uint32_t v = naive_oldest(&s);
        want_ds = MAX(want_ds, s.at[v]);
        naive_drop(&s, v);
    }
    oldest_asked += want != 0;
    oldest_exact += want && last_ds == want_ds; /* a slot may have more dead records than are looked at */
}

static void do_rollback(struct prefix_index *ix, struct undo *u)
{
    struct prefix_chain c = {u->h, u->n, MIN(u->n, FINE), 0};
    struct naive_slot *s = &naive[u->slot];
    prefix_index_rollback(ix, u->slot, &c, u->added, u->stamp);
    uint32_t first = u->n - u->added;
    for (uint32_t i = u->n; i > first; i--) {
        if (!s->held[u->nodes[i - 1]])
            continue;
        if (s->touch[u->nodes[i - 1]] != u->op)
            return;
        naive_drop(s, u->nodes[i - 1]);
        if (i - 1 == first)
            naive_cover(s, u->nodes, first);
    }
}

static void do_trim(struct prefix_index *ix, uint32_t slot, const uint32_t *nodes, const uint64_t *h, uint32_t n,
                    uint32_t keep)
{
    struct prefix_chain c = {h, n, MIN(n, FINE), 0};
    prefix_index_trim(ix, slot, &c, keep);
    bool cut = keep < n && naive[slot].held[nodes[keep]];
    for (uint32_t i = n; i > keep; i--)
        naive_drop(&naive[slot], nodes[i - 1]);
    if (cut)
        naive_cover(&naive[slot], nodes, keep);
}

static uint64_t random_cap(struct rng *r, bool evict)
{
    return evict ? 5 + rng_below(r, 120) : 1u << 30;
}

static void close_and_reopen(struct prefix_index *ix, struct rng *r, uint32_t slot, bool evict)
{
    if (naive[slot].open) {
        memset(&naive[slot], 0, sizeof(naive[slot]));
        prefix_index_close(ix, slot);
        return;
    }
    if (!prefix_index_empty(ix, slot)) { /* a few at a time, as the tick does */
        prefix_index_work(ix, 1 + (uint32_t)rng_below(r, 50));
        return;
    }
    naive[slot].open = true;
    naive[slot].cap = random_cap(r, evict);
    prefix_index_open(ix, slot, naive[slot].cap);
}

/* The order of ageing after a trim is only approximate (a part that was covered twice ages from the earlier time), so
 * trims and evictions together are checked for bookkeeping, each alone for exact equality. */
static void random_operations(bool evict, bool trims)
{
    struct rng r;
    struct undo last = {0};
    uint32_t nodes[DEPTH];
    uint64_t h[DEPTH];
    rng_init(&r, 20);
    tree_init();
    memset(naive, 0, sizeof(naive));
    struct prefix_index *ix = prefix_index_new(9);
    bool exact = !evict || !trims;
    for (uint64_t op = 1; op <= OPS; op++) {
        uint32_t n = random_chain(&r, nodes, h), slot = (uint32_t)rng_below(&r, SLOTS),
                 what = (uint32_t)rng_below(&r, 1000);
        struct prefix_chain c = {h, n, MIN(n, FINE), 0};
        if (what < 3 || !naive[slot].open) {
            close_and_reopen(ix, &r, slot, evict);
            if (last.slot == slot)
                last.added = 0;
        } else if (what < 10 && trims) {
            do_trim(ix, slot, nodes, h, n, (uint32_t)rng_below(&r, n));
        } else if (what < 15) {
            naive[slot].cap = random_cap(&r, evict);
            prefix_index_set_cap(ix, slot, naive[slot].cap);
            prefix_index_work(ix, 1u << 30);
            naive_shrink(&naive[slot]);
        } else if (what < 150 && last.added && naive[last.slot].open) {
            do_rollback(ix, &last);
            last.added = 0;
        } else if (what < 200) {
            prefix_index_touch(ix, slot, &c, (uint32_t)(op / 10));
            naive_insert(&naive[slot], nodes, n, (uint32_t)(op / 10), op);
        } else if (what < 600) {
            uint32_t now = (uint32_t)(op / 10), stamp, added = prefix_index_insert(ix, slot, &c, now, &stamp);
            bool hole =
                naive_match(&naive[slot], nodes, n) + added < n; /* after a trim, what is below may still be there */
            uint32_t want = naive_insert(&naive[slot], nodes, n, now, op);
            if (exact)
                assert_int_equal(added, want);
            if (rng_below(&r, 2)) {
                last = (struct undo){.slot = slot, .n = n, .added = hole ? 0 : added, .stamp = stamp, .op = op};
                memcpy(last.nodes, nodes, sizeof(nodes));
                memcpy(last.h, h, sizeof(h));
            }
        } else if (op % 16 == 1 && exact) {
            check_oldest(ix, slot, rng_below(&r, 20));
        } else if (op % 4 == 0 && exact) {
            check_match(ix, nodes, h, n);
        }
        if (op % 64 == 0 && naive[slot].open && exact)
            assert_int_equal(prefix_index_blocks(ix, slot), naive[slot].blocks);
    }
    for (uint32_t i = 0; i < SLOTS; i++)
        if (naive[i].open)
            prefix_index_close(ix, i);
    while (!prefix_index_work(ix, 100))
        ;
    struct prefix_index_stats st;
    prefix_index_stats(ix, &st);
    assert_int_equal(st.entries, 0);
    assert_int_equal(st.memberships, 0);
    prefix_index_free(ix);
}

static void test_random_operations(void **state)
{
    (void)state;
    oldest_asked = oldest_exact = 0;
    random_operations(true, false);
    assert_true(oldest_asked > 100);
    assert_int_equal(oldest_exact, oldest_asked);
}

static void test_random_trims(void **state)
{
    (void)state;
    random_operations(false, true);
    random_operations(true, true);
}

static void fresh_chain(struct rng *r, uint64_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h[i] = rng_u64(r);
}

static void test_leaves_are_forgotten_first(void **state)
{
    (void)state;
    struct rng r;
    uint64_t a[10], b[10];
    uint32_t stamp;
    rng_init(&r, 1);
    fresh_chain(&r, a, 10);
    fresh_chain(&r, b, 10);
    struct prefix_index *ix = prefix_index_new(1);
    prefix_index_open(ix, 0, 15);
    prefix_index_insert(ix, 0, &(struct prefix_chain){a, 10, 10, 1}, 0, &stamp);
    prefix_index_insert(ix, 0, &(struct prefix_chain){b, 10, 10, 1}, 0, &stamp);
    assert_int_equal(prefix_index_match(ix, b, 10)->chain_n, 10);
    assert_int_equal(prefix_index_match(ix, a, 10)->chain_n, 5); /* the root half is still good for something */
    prefix_index_free(ix);
}

/* A request on `a` runs while others push its prompt out: at its end the prompt is there and the youngest. */
static void test_touch_brings_back(void **state)
{
    (void)state;
    struct rng r;
    uint64_t a[10], b[10];
    uint32_t stamp;
    rng_init(&r, 1);
    fresh_chain(&r, a, 10);
    fresh_chain(&r, b, 10);
    struct prefix_index *ix = prefix_index_new(1);
    struct prefix_chain ca = {a, 10, 10, 1}, cb = {b, 10, 10, 1};
    prefix_index_open(ix, 0, 15);
    prefix_index_insert(ix, 0, &ca, 0, &stamp);
    prefix_index_insert(ix, 0, &cb, 0, &stamp);
    prefix_index_touch(ix, 0, &ca, 0);
    assert_int_equal(prefix_index_match(ix, a, 10)->chain_n, 10);
    assert_int_equal(prefix_index_match(ix, b, 10)->chain_n, 5);
    prefix_index_insert(ix, 0, &cb, 0, &stamp);
    prefix_index_set_cap(ix, 0, 3);
    prefix_index_work(ix, 1000);
    assert_int_equal(prefix_index_match(ix, a, 10)->chain_n, 0);
    prefix_index_touch(ix, 0, &ca, 0); /* nothing left of it */
    assert_int_equal(prefix_index_match(ix, a, 10)->chain_n, 3);
    prefix_index_close(ix, 0);
    prefix_index_touch(ix, 0, &ca, 0);
    assert_true(prefix_index_empty(ix, 0) || !prefix_index_match(ix, a, 10)->n);
    prefix_index_free(ix);
}

static void test_touch_marks_no_end(void **state)
{
    (void)state;
    struct rng r;
    uint64_t a[10];
    uint32_t stamp;
    rng_init(&r, 1);
    fresh_chain(&r, a, 10);
    struct prefix_index *ix = prefix_index_new(1);
    prefix_index_open(ix, 0, 15);
    prefix_index_insert(ix, 0, &(struct prefix_chain){a, 10, 10, 1}, 0, &stamp);
    for (uint64_t length = 2; length < 5; length++) {
        prefix_index_touch(ix, 0, &(struct prefix_chain){a, 10, 10, length}, 0);
        prefix_index_touch(ix, 0, &(struct prefix_chain){a, 5, 5, length}, 0);
    }
    const struct prefix_match *m = prefix_index_match(ix, a, 10);
    assert_true(prefix_index_terminal(ix, m->chain[9], 0));
    assert_false(prefix_index_terminal(ix, m->chain[4], 0));
    assert_int_equal(prefix_index_branches(ix, m->chain[9]), 0);
    assert_int_equal(prefix_index_branches(ix, m->chain[4]), 1);
    prefix_index_free(ix);
}

/* Prompts of 10 blocks at the times 1, 2, 3...; what goes next, near and far. */
static void test_oldest(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct rng r;
    uint64_t h[10], first[10];
    uint32_t stamp, at;
    rng_init(&r, 1);
    struct prefix_index *ix = prefix_index_new(1);
    prefix_index_open(ix, 0, N * 10 + 5);
    assert_int_equal(prefix_index_oldest(ix, 0, 10, &at), 0);
    for (uint32_t i = 1; i <= N; i++) {
        fresh_chain(&r, h, 10);
        prefix_index_insert(ix, 0, &(struct prefix_chain){h, 10, 10, 1}, i, &stamp);
        if (i == 1)
            memcpy(first, h, sizeof(h));
    }
    assert_int_equal(prefix_index_oldest(ix, 0, 5, &at), 0);
    assert_int_equal(at, 0);
    assert_int_equal(prefix_index_oldest(ix, 0, 6, &at), 1);
    assert_int_equal(at, 1);
    assert_int_equal(prefix_index_oldest(ix, 0, 15, &at), 10);
    assert_int_equal(at, 1);
    assert_int_equal(prefix_index_oldest(ix, 0, 16, &at), 11);
    assert_int_equal(at, 2);
    prefix_index_oldest(ix, 0, 5005, &at); /* beyond what is looked at */
    assert_in_range(at, 499, 501);
    assert_int_equal(prefix_index_oldest(ix, 0, 1000000, &at), 1000000 - 5);
    assert_int_equal(at, N);
    prefix_index_touch(ix, 0, &(struct prefix_chain){first, 10, 10, 1}, N + 1);
    prefix_index_oldest(ix, 0, 6, &at); /* the second is the oldest now */
    assert_int_equal(at, 2);
    prefix_index_set_cap(ix, 0, N * 5);
    assert_int_equal(prefix_index_oldest(ix, 0, 0, &at), N * 5);
    prefix_index_close(ix, 0);
    assert_int_equal(prefix_index_oldest(ix, 0, 6, &at), 0);
    assert_int_equal(prefix_index_oldest(ix, 77777, 6, &at), 0);
    prefix_index_free(ix);
}

static void test_memory_is_bounded_by_capacity(void **state)
{
    (void)state;
    struct rng r;
    uint64_t h[50], bytes[2] = {0};
    uint32_t stamp;
    rng_init(&r, 1);
    for (int big = 0; big < 2; big++) {
        struct prefix_index *ix = prefix_index_new(1);
        struct prefix_index_stats st;
        for (uint32_t i = 0; i < 4; i++)
            prefix_index_open(ix, i, big ? 50000 : 1000);
        for (uint32_t k = 0; k < 8000; k++) {
            fresh_chain(&r, h, 50);
            prefix_index_insert(ix, k % 4, &(struct prefix_chain){h, 50, 50, 1}, 0, &stamp);
        }
        prefix_index_stats(ix, &st);
        assert_int_equal(st.memberships, big ? 4 * 50000 : 4 * 1000);
        assert_true(st.bytes < (big ? 200000 : 4000) * 80 + 400000);
        bytes[big] = st.bytes;
        prefix_index_free(ix);
    }
    assert_true(bytes[1] > 10 * bytes[0]);
}

static void test_many_slots(void **state)
{
    (void)state;
    enum { N = 4000 };
    struct rng r;
    uint64_t h[20];
    uint32_t stamp;
    rng_init(&r, 3);
    fresh_chain(&r, h, 20);
    struct prefix_index *ix = prefix_index_new(1);
    for (uint32_t i = 0; i < N; i++) {
        prefix_index_open(ix, i, 1000);
        prefix_index_insert(ix, i, &(struct prefix_chain){h, i % 21, 20, 1}, 0, &stamp);
    }
    const struct prefix_match *m = prefix_index_match(ix, h, 20);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(prefix_match_len(m, ix, i), i % 21);
    for (uint32_t i = 0; i < N; i++)
        if (i % 3)
            prefix_index_close(ix, i);
    m = prefix_index_match(ix, h, 20); /* closed slots match no more, although nothing was purged yet */
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(prefix_match_len(m, ix, i), i % 3 ? 0 : i % 21);
    while (!prefix_index_work(ix, 1000))
        ;
    prefix_index_open(ix, 1, 1000); /* a reused slot begins empty */
    m = prefix_index_match(ix, h, 20);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(prefix_match_len(m, ix, i), i % 3 ? 0 : i % 21);
    prefix_index_free(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_random_trims),
        cmocka_unit_test(test_leaves_are_forgotten_first),
        cmocka_unit_test(test_touch_brings_back),
        cmocka_unit_test(test_touch_marks_no_end),
        cmocka_unit_test(test_oldest),
        cmocka_unit_test(test_memory_is_bounded_by_capacity),
        cmocka_unit_test(test_many_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
