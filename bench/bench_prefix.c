/* Prefix index: match, insert and memory. Fixed seed; one line per case. */
#include "base/rng.h"
#include "core/prefix_index.h"
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Time on a processor: for long runs, so that what others do on the machine does not count. */
static double busy_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill(struct rng *r, uint64_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h[i] = rng_u64(r);
}

/* n_slots endpoints; n_chains prompts of n blocks, each held by every endpoint, among `noise` other entries. */
static void bench_match(uint32_t n, uint32_t n_slots, uint32_t n_chains, uint32_t noise)
{
    struct rng r;
    uint32_t stamp;
    rng_init(&r, 1);
    struct prefix_index *ix = prefix_index_new(1);
    uint64_t *h = malloc((size_t)n * n_chains * sizeof(h[0])), other[64];
    fill(&r, h, n * n_chains);
    for (uint32_t s = 0; s < n_slots; s++)
        prefix_index_open(ix, s, 10000000);
    double insert = busy_s();
    for (uint32_t s = 0; s < n_slots; s++)
        for (uint32_t c = 0; c < n_chains; c++)
            prefix_index_insert(ix, s, &(struct prefix_chain){h + (size_t)c * n, n, n, n}, 0, &stamp);
    insert = (busy_s() - insert) / (double)(n_slots * n_chains);
    for (uint32_t i = 0; i < noise; i += 64) {
        fill(&r, other, 64);
        prefix_index_insert(ix, i % n_slots, &(struct prefix_chain){other, 64, 64, 64}, 0, &stamp);
    }
    double best = 1e9, sum = 0;
    uint64_t check = 0;
    for (int k = 0; k < 400; k++) {
        double t = now_s();
        const struct prefix_match *m = prefix_index_match(ix, h + (size_t)(k % (int)n_chains) * n, n);
        t = now_s() - t;
        check += m->chain_n + m->n;
        best = t < best ? t : best;
        sum += t;
    }
    printf("prefix match %4u blocks x %4u holders: mean %7.2f us, best %7.2f us; insert %7.2f us (check %" PRIu64 ")\n",
           n, n_slots, sum / 400 * 1e6, best * 1e6, insert * 1e6, check);
    free(h);
    prefix_index_free(ix);
}

/* What the process has in memory, bytes. */
static double resident(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return (double)pages * 4096;
}

/* Every endpoint full, with `cap` blocks, and as much again pushed out. */
static void bench_memory(const char *what, uint32_t n_slots, uint32_t cap, bool shared)
{
    struct rng r;
    uint32_t stamp;
    uint64_t h[64];
    rng_init(&r, 2);
    malloc_trim(0);
    double before = resident(), t = busy_s();
    struct prefix_index *ix = prefix_index_new(1);
    for (uint32_t s = 0; s < n_slots; s++)
        prefix_index_open(ix, s, cap);
    uint32_t n = 0;
    for (uint32_t c = 0; c < 2 * cap / 64; c++)
        for (uint32_t s = 0; s < n_slots; s++, n++) {
            if (!shared || s == 0)
                fill(&r, h, 64);
            prefix_index_insert(ix, s, &(struct prefix_chain){h, 64, 64, 64}, 0, &stamp);
        }
    t = busy_s() - t;
    struct prefix_index_stats st;
    prefix_index_stats(ix, &st);
    double resident_now = resident() - before;
    printf("prefix memory, %s: %" PRIu64 " memberships, %" PRIu64
           " entries, %.1f MB (resident %.1f), %.1f bytes per membership (resident %.1f); insert of 64: %.2f us\n",
           what, st.memberships, st.entries, (double)st.bytes / 1e6, resident_now / 1e6,
           (double)st.bytes / (double)st.memberships, resident_now / (double)st.memberships, t / n * 1e6);
    prefix_index_free(ix);
}

/* 100 endpoints with 500 prompts of n blocks each. One is used again: in turn (long out of the processor's cache), and
 * the same again and again; and what a prompt would push out. */
static void bench_use(uint32_t n)
{
    enum { SLOTS = 100, CHAINS = 400 };
    struct rng r;
    uint32_t stamp, at, checked = 0;
    rng_init(&r, 3);
    struct prefix_index *ix = prefix_index_new(1);
    uint64_t *h = malloc(sizeof(h[0]) * SLOTS * CHAINS * n);
    fill(&r, h, SLOTS * CHAINS * n);
    for (uint32_t s = 0; s < SLOTS; s++)
        prefix_index_open(ix, s, CHAINS * n);
    for (uint32_t k = 0; k < SLOTS * CHAINS; k++)
        prefix_index_insert(ix, k % SLOTS, &(struct prefix_chain){h + (size_t)k * n, n, n, n}, k, &stamp);
    double best[5];
    for (int what = 0; what < 5; what++) {
        best[what] = 1e9;
        for (uint32_t k = 0; k + 64 <= SLOTS * CHAINS; k += 64) {
            double t = now_s();
            for (uint32_t i = k; i < k + 64; i++) {
                uint32_t c = what % 2 ? 7 : i * 7919u % (SLOTS * CHAINS);
                struct prefix_chain chain = {h + (size_t)c * n, n, n, n};
                if (what < 2)
                    prefix_index_touch(ix, c % SLOTS, &chain, i);
                else if (what < 4)
                    prefix_index_insert(ix, c % SLOTS, &chain, i, &stamp);
                else
                    checked += prefix_index_oldest(ix, c % SLOTS, n, &at) != 0;
            }
            best[what] = MIN(best[what], now_s() - t);
        }
    }
    printf("prefix use of %u blocks that are all there (best of 64 in a row): touch %.2f us, the same again %.2f us; "
           "insert "
           "%.2f us, %.2f us; oldest %.2f us (check %u)\n",
           n, best[0] / 64 * 1e6, best[1] / 64 * 1e6, best[2] / 64 * 1e6, best[3] / 64 * 1e6, best[4] / 64 * 1e6,
           checked);
    prefix_index_free(ix);
    free(h);
}

int main(void)
{
    bench_match(256, 1, 8, 1000000);
    bench_match(256, 10, 8, 1000000);
    bench_match(256, 100, 8, 1000000);
    bench_match(256, 1000, 8, 1000000);
    bench_match(2048, 1, 2, 1000000);
    bench_match(2048, 100, 2, 1000000);
    bench_match(2048, 1000, 2, 1000000);
    bench_use(128);
    bench_use(640);
    bench_memory("unique prompts, 100 endpoints", 100, 31250, false);
    bench_memory("shared by all of 100", 100, 31250, true);
    bench_memory("unique prompts, 1000 endpoints", 1000, 5000, false);
    bench_memory("shared by all of 1000", 1000, 5000, true);
    return 0;
}
