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

/* ---- by hand ---- */

static void number(struct rec *r, uint64_t first)
{
    *r = (struct rec){0};
    for (uint32_t i = 0; i < MAX_IDS; i++)
        r->ids[i] = first + i;
}

/* Whole blocks of the prompt are held from the step on that computes them; of what runs, waits and comes the forecast
 * counts each block once. */
static void held_and_forecast(void **state)
{
    (void)state;
    struct engine_params p = params(20, true); /* 1280 tokens */
    struct engine *e = engine_new(&p);
    struct rec a, b, c;
    struct engine_forecast f;
    number(&a, 1);
    number(&b, 1);
    number(&c, 1);
    submit(e, &a, 1000, 50, 0, 0, 0);
    uint64_t end = engine_next(e, 0); /* 512 of 1000 tokens are being computed */
    assert_int_equal(engine_held(e, a.ids, 15, 1000), 8);
    assert_int_equal(engine_held(e, a.ids, 15, 128), 1); /* one token at least is left to compute */
    assert_int_equal(engine_held(e, a.ids + 20, 15, 1000), 0);
    b.ids[15] = 99; /* 15 blocks as a's, then its own */
    submit(e, &b, 1100, 50, 0, 0, 10);
    c.ids[1] = 77;
    engine_forecast(e, c.ids, 15, 1000, 10, &f);
    assert_true(fabs(f.rest_s - (double)(end - 10) / 1e6) < 2e-6);
    assert_true(f.ahead_tokens == 488 + 1100 - 15 * 64);
    assert_true(f.ahead_pairs == 488 * (1000 - 244.0) + 140 * (1100 - 70.0));
    assert_true(f.waiting_tokens == 140 && f.waiting_prompts == 1100);
    assert_true(f.new_tokens == 1000 - 64 && f.used_tokens == 1000 && f.context_tokens == 0);
    assert_true(f.decoding == 0 && f.running == 1);
    number(&c, 1);
    c.ids[15] = 99;
    engine_forecast(e, c.ids, 17, 1100, 10, &f); /* b will have computed its block 15 */
    assert_true(f.new_tokens == 1100 - 17 * 64);
    assert_true(f.waiting_tokens == 140);
    (void)drive(e, 10, UINT64_MAX, true);
    assert_true(a.done && b.done);
    assert_int_equal(b.cached, 15 * 64);
    all_free(e);
    assert_int_equal(engine_held(e, b.ids, 17, 1100), 17);
    engine_set_prefix_caching(e, false);
    assert_int_equal(engine_held(e, b.ids, 17, 1100), 0);
    engine_free(e);
}

/* Two prompts of 600 tokens and what they produce, in 1280 tokens: the later goes when the 81st token has no room. */
static void memory_is_counted_by_tokens(void **state)
{
    (void)state;
    struct engine_params p = params(20, true);
    struct engine *e = engine_new(&p);
    struct rec a, b;
    struct engine_stats s;
    number(&a, 1);
    number(&b, 100);
    submit(e, &a, 600, 40, 0, 0, 0);
    submit(e, &b, 600, 40, 0, 0, 0);
    (void)drive(e, 0, UINT64_MAX, true);
    assert_int_equal(a.preempted + b.preempted, 0); /* 80 tokens fit exactly */
    submit(e, &a, 600, 60, 0, 0, 1000000000);
    submit(e, &b, 600, 60, 0, 0, 1000000000);
    (void)drive(e, 1000000000, UINT64_MAX, true);
    assert_int_equal(a.preempted, 0);
    assert_true(b.preempted >= 1);
    engine_stats(e, true, &s);
    assert_int_equal(s.preemptions, b.preempted);
    assert_null(engine_submit(
        e, &(struct engine_req){.ids = a.ids, .n_ids = 19, .n_tokens = 1279, .out_len = 2, .user = &a}, 0));
    all_free(e);
    engine_free(e);
}

/* KV that comes with a request takes its room and no time: one token is computed. Also with blocks (not exact_tail). */
static void given(void **state)
{
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        struct engine_params p = params(40, exact);
        p.exact_tail = exact;
        struct engine *e = engine_new(&p);
        struct rec a, b;
        struct engine_stats s;
        number(&a, 1);
        number(&b, 1);
        submit(e, &a, 2000, 2, 2000, 0, 0);
        (void)drive(e, 0, UINT64_MAX, exact);
        double us = 1e6 * step_seconds(&p.time, 0, 1, 1, 1999, 1999.5);
        assert_true(a.done && fabs((double)a.first_us - us) <= 1);
        engine_stats(e, true, &s);
        assert_int_equal(s.computed_tokens, 1);
        assert_int_equal(a.cached, 0);
        submit(e, &b, 2000, 2, 0, 0, a.end_us); /* its blocks are cached now */
        (void)drive(e, a.end_us, UINT64_MAX, exact);
        assert_int_equal(b.cached, 31 * 64);
        engine_free(e);
    }
}

/* The simulator of the routing anchors on the same load (tests/vectors/engine/make.py): the same tokens cached, every
 * first token within 20 us (what the times of arrival lose by rounding), the means within 1 %. */
static void one_server(void **state)
{
    (void)state;
    enum { N = 250, SIZE = 512 };
    struct profile pr;
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("h100-qwen3-32b")}, &pr, NULL), 0);
    struct engine *e = engine_new(&(struct engine_params){.time = pr.time,
                                                          .block_size = SIZE,
                                                          .n_blocks = 120,
                                                          .max_num_seqs = pr.max_num_seqs,
                                                          .max_batched_tokens = pr.max_batched_tokens,
                                                          .prefix_caching = true,
                                                          .exact_tail = true,
                                                          .quiet = true});
    struct {
        uint64_t at, first, end, hit, ids[64];
        struct rec r;
    } *v = calloc(N, sizeof(*v));
    FILE *f = fopen(VECTORS "/engine/one_server.txt", "r");
    assert_non_null(f);
    uint64_t now = 0;
    for (uint32_t i = 0; i < N; i++) {
        unsigned long long x[8];
        assert_int_equal(fscanf(f, "%llu %llu %llu %llu %llu %llu %llu %llu", &x[0], &x[1], &x[2], &x[3], &x[4], &x[5],
                                &x[6], &x[7]),
                         8);
        v[i].at = x[0];
        v[i].hit = x[5];
        v[i].first = x[6];
        v[i].end = x[7];
        for (uint32_t k = 0; k < x[1] / SIZE; k++)
            v[i].ids[k] = k < x[4] ? 1000 * x[3] + k : 1000000 * (i + 1ull) + k;
        (void)drive(e, now, v[i].at, true);
        now = v[i].at;
        assert_non_null(engine_submit(e,
                                      &(struct engine_req){.ids = v[i].ids,
                                                           .n_ids = (uint32_t)x[1] / SIZE,
                                                           .n_tokens = (uint32_t)x[1],
                                                           .out_len = (uint32_t)x[2],
                                                           .user = &v[i].r},
                                      now));
    }
    (void)fclose(f);
    (void)drive(e, now, UINT64_MAX, true);
    double first[2] = {0}, last[2] = {0}, hit[2] = {0};
    uint32_t off = 0;
    for (uint32_t i = 0; i < N; i++) {
        first[0] += (double)(v[i].first - v[i].at);
        first[1] += (double)(v[i].r.first_us - v[i].at);
        last[0] += (double)(v[i].end - v[i].at);
        last[1] += (double)(v[i].r.end_us - v[i].at);
        hit[0] += (double)v[i].hit;
        hit[1] += v[i].r.cached;
        assert_int_equal(v[i].r.cached, v[i].hit);
        double d = fabs((double)v[i].r.first_us - (double)v[i].first);
        off += d > 20;
    }
    if (fabs(first[0] - first[1]) > .01 * first[0] || fabs(last[0] - last[1]) > .01 * last[0] ||
        fabs(hit[0] - hit[1]) > .01 * hit[0] || off > 0)
        fail_msg("first token after %.4f s, there %.4f s; last %.4f, there %.4f; cached %.1f, there %.1f; %u are off",
                 first[1] / N / 1e6, first[0] / N / 1e6, last[1] / N / 1e6, last[0] / N / 1e6, hit[1] / N, hit[0] / N,
                 off);
    all_free(e);
    engine_free(e);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_pass_as_step_by_step),
        cmocka_unit_test(held_and_forecast),
        cmocka_unit_test(memory_is_counted_by_tokens),
        cmocka_unit_test(given),
        cmocka_unit_test(one_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
