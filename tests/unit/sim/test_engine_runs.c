/* The engine for replays: runs of decode steps at once against the same load step by step, its memory by tokens, what
 * comes with a request, what it tells an oracle. */
#include "base/rng.h"
#include "sim/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { BLOCK = 64, MAX_IDS = 40 };

struct rec {
    uint64_t ids[MAX_IDS];
    uint64_t first_us, end_us;
    uint32_t events, last, cached, preempted;
    struct engine_seq *seq;
    bool done;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    bool quiet = ctx != NULL;
    struct rec *r = ev->user;
    if (!quiet)
        assert_int_equal(ev->index, r->events);
    else
        assert_true(ev->index == 0 || ev->finished);
    r->events++;
    r->last = ev->index;
    if (ev->index == 0)
        r->first_us = ev->at_us;
    r->cached = ev->cached_tokens;
    r->preempted = ev->preempted;
    if (ev->finished) {
        r->end_us = ev->at_us;
        r->done = true;
        r->seq = NULL;
    }
}

static struct engine_params params(uint32_t n_blocks, bool quiet)
{
    return (struct engine_params){.time = {.base = 11.3e-3,
                                           .prefill_token = 77.7e-6,
                                           .decode_seq = 20.9e-6,
                                           .context_token = 6.1e-7,
                                           .pair = 4.3e-9,
                                           .weights = 2.2e-3,
                                           .gemm_token = 9e-6,
                                           .chunk = 31e-6},
                                  .block_size = BLOCK,
                                  .n_blocks = n_blocks,
                                  .max_num_seqs = 24,
                                  .max_batched_tokens = 512,
                                  .prefix_caching = true,
                                  .exact_tail = true,
                                  .quiet = quiet,
                                  .seed = 1};
}

static void submit(struct engine *e, struct rec *r, uint32_t n, uint32_t out, uint32_t given, uint32_t lora,
                   uint64_t now)
{
    r->seq = engine_submit(
        e,
        &(struct engine_req){
            .ids = r->ids, .n_ids = n / BLOCK, .n_tokens = n, .out_len = out, .given = given, .lora = lora, .user = r},
        now);
    assert_non_null(r->seq);
}

/* Until `until`, or until nothing is left. */
static uint64_t drive(struct engine *e, uint64_t now, uint64_t until, bool quiet)
{
    uint64_t t;
    while ((t = engine_next(e, now)) <= until && t != UINT64_MAX) {
        now = t;
        engine_advance(e, now, on_event, quiet ? e : NULL);
    }
    if (until != UINT64_MAX)
        engine_advance(e, until, on_event, quiet ? e : NULL);
    return now;
}

static void all_free(struct engine *e)
{
    struct engine_stats s;
    for (int live = 0; live < 2; live++) {
        engine_stats(e, live, &s);
        assert_int_equal(s.running, 0);
        assert_int_equal(s.waiting, 0);
        assert_int_equal(s.free_blocks, s.n_blocks);
        assert_true(s.kv_usage_frac < 1e-9);
    }
    struct engine_forecast f;
    engine_forecast(e, NULL, 0, 100, 0, &f);
    assert_true(f.used_tokens == 0 && f.context_tokens == 0 && f.ahead_tokens == 0 && f.waiting_tokens == 0 &&
                f.waiting_prompts == 0 && f.decoding == 0 && f.running == 0);
}

/* ---- at once and step by step ---- */

enum { OPS = 1500 };
struct seen { /* of one engine at the time of one operation */
    struct engine_stats shown;
    struct engine_forecast f;
};
struct load {
    uint64_t seed;
    uint32_t n_blocks;
    uint64_t gap_us;
    bool loras;
};

static void make_ids(struct rng *g, struct rec *r)
{
    uint32_t family = (uint32_t)rng_below(g, 12), shared = (uint32_t)rng_below(g, MAX_IDS);
    uint64_t own = rng_u64(g);
    for (uint32_t i = 0; i < MAX_IDS; i++)
        r->ids[i] = i < shared ? 1000 + family * 100 + i : own + i;
}

static void play(const struct load *l, bool quiet, struct rec *r, struct seen *seen, struct engine_stats *end)
{
    struct engine_params p = params(l->n_blocks, quiet);
    p.max_loras = 2;
    p.lora_load_s = 0.02;
    struct engine *e = engine_new(&p);
    struct rng g;
    rng_init(&g, l->seed);
    uint64_t now = 0, last = 0;
    for (uint32_t i = 0; i < OPS; i++) {
        now += rng_below(&g, 8) == 0 ? rng_below(&g, l->gap_us * 8) : rng_below(&g, l->gap_us);
        (void)drive(e, last, now, quiet);
        last = now;
        make_ids(&g, &r[i]);
        uint32_t n = 1 + (uint32_t)rng_below(&g, MAX_IDS * BLOCK), out = 1 + (uint32_t)rng_below(&g, 200);
        uint32_t given = rng_below(&g, 6) == 0 ? n : 0, lora = (uint32_t)rng_below(&g, 4),
                 k = (uint32_t)rng_below(&g, i + 1);
        k = i - MIN(k, 20u); /* a recent one */
        uint64_t what = rng_below(&g, 20);
        if (what == 0)
            engine_set_slow(e, 1 + 0.5 * (double)rng_below(&g, 3));
        else if (what <= 3 && r[k].seq)
            engine_cancel(e, r[k].seq), r[k].seq = NULL;
        else if (what == 4 && rng_below(&g, 4) == 0)
            engine_reset_prefix_cache(e);
        else
            submit(e, &r[i], n, out, given, l->loras ? lora : 0, now);
        engine_published(e, now, &seen[i].shown);
        engine_forecast(e, r[i].ids, n / BLOCK, n, now, &seen[i].f);
    }
    (void)drive(e, last, UINT64_MAX, quiet);
    engine_stats(e, true, end);
    all_free(e);
    engine_free(e);
}

static bool apart(uint64_t a, uint64_t b)
{
    return a > b + 1 || b > a + 1;
}

static void same_load(const struct load *l)
{
    struct rec *r[2];
    struct seen *seen[2];
    struct engine_stats end[2];
    for (int q = 0; q < 2; q++) {
        r[q] = calloc(OPS, sizeof(**r));
        seen[q] = calloc(OPS, sizeof(**seen));
        play(l, q, r[q], seen[q], &end[q]);
    }
    for (uint32_t i = 0; i < OPS; i++) {
        const struct rec *a = &r[0][i], *b = &r[1][i];
        if (a->done != b->done || a->cached != b->cached ||
            (a->done && (a->preempted != b->preempted || a->last != b->last)) || apart(a->first_us, b->first_us) ||
            apart(a->end_us, b->end_us))
            fail_msg("seed %llu, request %u: step by step %llu..%llu, cached %u; at once %llu..%llu, cached %u",
                     (unsigned long long)l->seed, i, (unsigned long long)a->first_us, (unsigned long long)a->end_us,
                     a->cached, (unsigned long long)b->first_us, (unsigned long long)b->end_us, b->cached);
        if (a->done) {
            assert_int_equal(a->events, a->last + 1);
            assert_int_equal(b->events, b->last ? 2 : 1);
        }
        const struct engine_stats *s = &seen[0][i].shown, *t = &seen[1][i].shown;
        if (s->waiting != t->waiting || s->running != t->running || s->deferred != t->deferred ||
            fabs(s->kv_usage_frac - t->kv_usage_frac) > 1e-9 || s->free_blocks != t->free_blocks)
            fail_msg("seed %llu, operation %u: published %u waiting %u running %.4f; at once %u, %u, %.4f",
                     (unsigned long long)l->seed, i, s->waiting, s->running, s->kv_usage_frac, t->waiting, t->running,
                     t->kv_usage_frac);
        const struct engine_forecast *f = &seen[0][i].f, *h = &seen[1][i].f;
        assert_true(f->used_tokens == h->used_tokens && f->context_tokens == h->context_tokens);
        assert_true(f->decoding == h->decoding && f->running == h->running && f->waiting_prompts == h->waiting_prompts);
        assert_true(fabs(f->rest_s - h->rest_s) < 2e-6);
    }
    assert_int_equal(end[0].steps, end[1].steps);
    assert_int_equal(end[0].generation_tokens, end[1].generation_tokens);
    assert_int_equal(end[0].computed_tokens, end[1].computed_tokens);
    assert_int_equal(end[0].prefix_hit_tokens, end[1].prefix_hit_tokens);
    assert_int_equal(end[0].preemptions, end[1].preemptions);
    assert_int_equal(end[0].lora_loads, end[1].lora_loads);
    assert_true(fabs(end[0].busy_us - end[1].busy_us) < 1);
    assert_true(end[0].prefix_hit_tokens > 0 && (l->n_blocks > 100 || end[0].preemptions > 0));
    for (int q = 0; q < 2; q++) {
        free(r[q]);
        free(seen[q]);
    }
}

static void runs_pass_as_step_by_step(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        same_load(&(struct load){seed, 50, 600000, false});
        same_load(&(struct load){seed, 400, 150000, false});
        same_load(&(struct load){seed, 90, 500000, true});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_pass_as_step_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
