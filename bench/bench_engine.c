/* Requests a second of one simulated engine (sim/engine.h) on chat traffic: conversations whose turns repeat what came
 * before, 25 blocks of 512 tokens and 350 tokens of answer in the mean, at a moderate load; runs of decode steps at
 * once (quiet) and step by step. And what an oracle's questions cost, three a request. Fixed seed; one line per case.
 */
#include "base/rng.h"
#include "sim/engine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* CPU time: neighbours on a busy machine are not the engine's doing. */
static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { BLOCK = 512, TURNS = 8, FIRST = 11, GROWTH = 4, MAX_BLOCKS = FIRST + GROWTH * TURNS, OPEN = 6 };

struct request {
    uint64_t at_us;
    const uint64_t *ids;
    uint32_t n_ids, n_tokens, out;
};

struct tally {
    uint64_t first, last, cached;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct tally *t = ctx;
    t->first += ev->index == 0;
    t->last += ev->finished;
    if (ev->index == 0)
        t->cached += ev->cached_tokens;
}

/* Of OPEN conversations at a time a random one says the next thing; after TURNS turns another takes its place. */
static struct request *make(uint32_t n, double rate, uint64_t **ids)
{
    struct rng g;
    rng_init(&g, 4);
    struct request *v = calloc(n, sizeof(*v));
    uint32_t talks = n / TURNS + OPEN + 1, talk[OPEN], turn[OPEN], next = 0;
    *ids = malloc((size_t)talks * MAX_BLOCKS * sizeof(**ids));
    for (size_t i = 0; i < (size_t)talks * MAX_BLOCKS; i++)
        (*ids)[i] = i % MAX_BLOCKS < 2 ? i % MAX_BLOCKS : rng_u64(&g); /* one system prompt */
    for (uint32_t i = 0; i < OPEN; i++) {
        talk[i] = next++;
        turn[i] = (uint32_t)rng_below(&g, TURNS);
    }
    double at = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = (uint32_t)rng_below(&g, OPEN);
        if (turn[k] == TURNS) {
            talk[k] = next++;
            turn[k] = 0;
        }
        at += rng_exp(&g) / rate;
        v[i].n_ids = FIRST + GROWTH * turn[k]++;
        v[i] = (struct request){.at_us = (uint64_t)(at * 1e6),
                                .ids = *ids + (size_t)talk[k] * MAX_BLOCKS,
                                .n_ids = v[i].n_ids,
                                .n_tokens = v[i].n_ids * BLOCK + 1 + (uint32_t)rng_below(&g, BLOCK - 1),
                                .out = 1 + (uint32_t)(rng_exp(&g) * 350)};
    }
    return v;
}

static struct engine *engine_of(bool quiet)
{
    struct profile pr;
    if (profile_find(&(struct profile_query){.name = STR("h100-qwen3-32b")}, &pr, NULL))
        abort();
    return engine_new(&(struct engine_params){.time = pr.time,
                                              .block_size = BLOCK,
                                              .n_blocks = (uint32_t)(pr.kv_tokens / BLOCK),
                                              .max_num_seqs = pr.max_num_seqs,
                                              .max_batched_tokens = pr.max_batched_tokens,
                                              .prefix_caching = true,
                                              .exact_tail = true,
                                              .quiet = quiet});
}

static void bench(const char *what, uint32_t n, double rate, bool quiet, uint32_t questions)
{
    uint64_t *ids, asked = 0;
    struct request *v = make(n, rate, &ids);
    struct engine *e = engine_of(quiet);
    struct tally tally = {0};
    struct engine_stats st;
    double blocks = 0, waiting = 0, t0 = now_s();
    uint64_t now = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (uint64_t t; (t = engine_next(e, now)) <= v[i].at_us;)
            engine_advance(e, now = t, on_event, &tally);
        now = v[i].at_us;
        engine_stats(e, true, &st);
        waiting += st.waiting;
        for (uint32_t q = 0; q < questions; q++) {
            const struct request *r = &v[(i + q * 7) % n]; /* most questions are about requests that go elsewhere */
            struct engine_forecast f;
            engine_forecast(e, r->ids, r->n_ids, r->n_tokens, now, &f);
            asked += (uint64_t)f.new_tokens;
        }
        struct engine_req rq = {.ids = v[i].ids, .n_ids = v[i].n_ids, .n_tokens = v[i].n_tokens, .out_len = v[i].out};
        if (!engine_submit(e, &rq, now))
            abort();
        blocks += v[i].n_ids;
    }
    for (uint64_t t; (t = engine_next(e, now)) != UINT64_MAX;)
        engine_advance(e, now = t, on_event, &tally);
    double s = now_s() - t0;
    engine_stats(e, true, &st);
    if (tally.first != n || tally.last != n || (questions && !asked))
        abort();
    printf("engine: %-26s %8u requests, %8.0f/s, %6.2f us each; %.0f blocks, %.0f out, %.0f %% cached, busy %.0f %%, "
           "%.2f waiting, %.1f steps and %.3f preemptions a request\n",
           what, n, n / s, s / n * 1e6, blocks / n, (double)st.generation_tokens / n,
           100 * (double)tally.cached / (double)st.prompt_tokens, st.busy_us / (double)now * 100, waiting / n,
           (double)st.steps / n, (double)st.preemptions / n);
    engine_free(e);
    free(v);
    free(ids);
}

int main(void)
{
    bench("quiet", 200000, 1.1, true, 0);
    bench("quiet, oracle asks 3 times", 200000, 1.1, true, 3);
    bench("quiet, overloaded", 20000, 2, true, 0);
    bench("step by step", 5000, 1.1, false, 0);
    return 0;
}
