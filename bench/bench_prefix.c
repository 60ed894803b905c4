/* Prefix index: match, insert and memory. Fixed seed; one line per case. */
#include "base/rng.h"
#include "core/prefix_index.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
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
    double insert = now_s();
    for (uint32_t s = 0; s < n_slots; s++)
        for (uint32_t c = 0; c < n_chains; c++)
            prefix_index_insert(ix, s, &(struct prefix_chain){h + (size_t)c * n, n, n, n}, 0, &stamp);
    insert = (now_s() - insert) / (double)(n_slots * n_chains);
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

static void bench_memory(const char *what, uint32_t n_slots, bool shared)
{
    struct rng r;
    uint32_t stamp;
    uint64_t h[64];
    rng_init(&r, 2);
    struct prefix_index *ix = prefix_index_new(1);
    for (uint32_t s = 0; s < n_slots; s++)
        prefix_index_open(ix, s, 31250);
    double t = now_s();
    uint32_t n = 0;
    for (uint32_t c = 0; c < 500; c++)
        for (uint32_t s = 0; s < n_slots; s++, n++) {
            if (!shared || s == 0)
                fill(&r, h, 64);
            prefix_index_insert(ix, s, &(struct prefix_chain){h, 64, 64, 64}, 0, &stamp);
        }
    t = now_s() - t;
    struct prefix_index_stats st;
    prefix_index_stats(ix, &st);
    printf("prefix memory, %s: %" PRIu64 " memberships, %" PRIu64
           " entries, %.1f MB, %.1f bytes per membership; insert of 64: %.2f us\n",
           what, st.memberships, st.entries, (double)st.bytes / 1e6, (double)st.bytes / (double)st.memberships,
           t / n * 1e6);
    prefix_index_free(ix);
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
    bench_memory("unique prompts, 100 endpoints", 100, false);
    bench_memory("shared by all of 100", 100, true);
    return 0;
}
