/* The engine against numbers worked out by hand, its scheduling rules one by one, and a random load whose counters must
 * end at zero. */
#include "base/rng.h"
#include "sim/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct rec { /* what happened to one request */
    uint64_t first_us, end_us;
    uint32_t tokens, cached, preempted;
    struct engine_seq *seq;
    bool done;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    (void)ctx;
    struct rec *r = ev->user;
    assert_int_equal(ev->index, r->tokens);
    r->tokens++;
    if (ev->index == 0)
        r->first_us = ev->at_us - ev->arrived_us;
    r->cached = ev->cached_tokens;
    r->preempted = ev->preempted;
    if (ev->finished) {
        r->end_us = ev->at_us - ev->arrived_us;
        r->done = true;
    }
}

static struct engine *make(const char *profile, uint32_t n_blocks, struct engine_params *out)
{
    struct profile pr;
    struct errbuf err;
    assert_int_equal(profile_find(&(struct profile_query){.name = str_c(profile)}, &pr, &err), 0);
    struct engine_params p = {.time = pr.time,
                              .block_size = 16,
                              .n_blocks = n_blocks ? n_blocks : (uint32_t)(pr.kv_tokens / 16),
                              .max_num_seqs = pr.max_num_seqs,
                              .max_batched_tokens = pr.max_batched_tokens,
                              .prefix_caching = true,
                              .seed = 1};
    if (out)
        *out = p;
    return engine_new(&p);
}

static void submit_at(struct engine *e, struct rec *r, uint32_t first, uint32_t n, uint32_t out, uint32_t lora,
                      uint64_t now)
{
    uint32_t *tok = malloc(n * sizeof(*tok));
    for (uint32_t i = 0; i < n; i++)
        tok[i] = first + i;
    *r = (struct rec){0};
    r->seq = engine_submit(
        e, &(struct engine_req){.tokens = tok, .n_tokens = n, .out_len = out, .lora = lora, .user = r}, now);
    assert_non_null(r->seq);
    free(tok);
}

static uint64_t run_all(struct engine *e, uint64_t now)
{
    for (uint64_t t; (t = engine_next(e, now)) != UINT64_MAX;) {
        now = t;
        engine_advance(e, now, on_event, NULL);
    }
    return now;
}

static void all_free(struct engine *e)
{
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.running, 0);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.free_blocks, s.n_blocks);
    engine_stats(e, false, &s);
    assert_int_equal(s.running, 0);
    assert_int_equal(s.waiting, 0);
    assert_true(s.kv_usage_frac < 1e-9);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t run, wait;
        engine_lora(e, i, &run, &wait);
        assert_int_equal(run + wait, 0);
    }
}

/* Linear profile a10: 28 ms + 250 us * 1000 + 8 ns * 1000 * 500 for the prefill, then 28 ms + 30 us + 0.12 us * context
 * each. */
static void linear_by_hand(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec r;
    submit_at(e, &r, 1, 1000, 3, 0, 0);
    run_all(e, 0);
    assert_true(r.done && r.tokens == 3);
    double prefill = 28e3 + 250.0 * 1000 + 8e-3 * 1000 * 500;
    double d1 = 28e3 + 30 + 0.12 * 1000, d2 = 28e3 + 30 + 0.12 * 1001;
    assert_true(fabs((double)r.first_us - prefill) <= 2);
    assert_true(fabs((double)r.end_us - (prefill + d1 + d2)) <= 3);
    all_free(e);
    engine_free(e);
}

static double prefill_ms(const char *profile, uint32_t n)
{
    struct engine *e = make(profile, 0, NULL);
    struct rec r;
    submit_at(e, &r, 1, n, 1, 0, 0);
    run_all(e, 0);
    engine_free(e);
    return (double)r.first_us / 1e3;
}

static double decode_ms(const char *profile, double batch)
{
    struct profile pr;
    assert_int_equal(profile_find(&(struct profile_query){.name = str_c(profile)}, &pr, NULL), 0);
    return 1e3 * step_seconds(&pr.time, batch, 0, 0, batch * 1024, 0);
}

static void near(double got, double want, double frac)
{
    if (fabs(got - want) > frac * want)
        fail_msg("%.2f is not within %.0f %% of %.2f", got, frac * 100, want);
}

/* The published predictions of the fuller formula. */
static void named_hardware(void **state)
{
    (void)state;
    near(prefill_ms("a10-qwen2.5-7b-tp1", 128), 46, .03);
    near(prefill_ms("a10-qwen2.5-7b-tp1", 512), 144, .03);
    near(prefill_ms("a10-qwen2.5-7b-tp1", 2048), 572, .02);
    near(prefill_ms("a10-qwen2.5-7b-tp1", 8192), 2460, .03); /* four chunks */
    near(decode_ms("a10-qwen2.5-7b-tp1", 1), 30, .02);
    near(decode_ms("a10-qwen2.5-7b-tp1", 64), 46, .04);
    near(decode_ms("a10-qwen2.5-7b-tp1", 128), 68, .04);
    near(prefill_ms("h100-llama-3.1-8b-tp1", 2048), 78, .03);
    near(decode_ms("h100-llama-3.1-8b-tp1", 128), 21.3, .03);
    near(prefill_ms("h20-qwen3-32b-tp1", 512), 328, .03);
    near(decode_ms("h20-141-qwen3-32b", 64), 54, .05);
    near(decode_ms("h100-qwen3-32b-tp2", 128), 32, .05);
    near(decode_ms("l20-qwen3-32b-tp4", 128), 60, .05);
    struct profile pr;
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("a10-qwen2.5-7b-tp1")}, &pr, NULL), 0);
    near((double)pr.kv_tokens / 16, 5391, .005);
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("h100-qwen3-32b-tp2")}, &pr, NULL), 0);
    near((double)pr.kv_tokens / 16, 20546, .005);
    assert_int_equal(pr.max_batched_tokens, 8192);
    assert_int_equal(profile_find(&(struct profile_query){.model = STR("/models/Qwen-2.5-7B-Instruct")}, &pr, NULL), 0);
    assert_string_equal(pr.name, "a10-qwen2.5-7b-tp1");
    struct errbuf err;
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("abacus-qwen3-32b")}, &pr, &err), -1);
    assert_non_null(strstr(err.msg, "abacus"));
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("a10-qwen3-32b-tp1")}, &pr, &err), -1);
}

static void prefix_hit_shortens_first_token(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec a, b, c;
    submit_at(e, &a, 1, 1600, 4, 0, 0);
    uint64_t now = run_all(e, 0);
    submit_at(e, &b, 1, 1600, 4, 0, now);
    now = run_all(e, now);
    assert_int_equal(a.cached, 0);
    assert_int_equal(b.cached, 1584); /* all but the last block: one token at least is computed */
    assert_true(b.first_us * 5 < a.first_us);
    submit_at(e, &c, 1, 1600, 4, 1, now); /* an adapter has a cache of its own */
    now = run_all(e, now);
    assert_int_equal(c.cached, 0);
    engine_reset_prefix_cache(e);
    submit_at(e, &c, 1, 1600, 4, 0, now);
    (void)run_all(e, now);
    assert_int_equal(c.cached, 0);
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.prefix_query_tokens, 4 * 1600);
    assert_int_equal(s.prefix_hit_tokens, 1584);
    all_free(e);
    engine_free(e);
}

static uint32_t echo_token(void *user, uint32_t index)
{
    (void)user;
    return 5000 + index;
}

/* What was generated is cached as well: the next turn of a conversation finds it. */
static void generated_tokens_are_cached(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    uint32_t tok[128 + 64];
    for (uint32_t i = 0; i < 128; i++)
        tok[i] = i;
    for (uint32_t i = 0; i < 64; i++)
        tok[128 + i] = 5000 + i;
    struct rec a = {0}, b = {0};
    struct engine_req rq = {.tokens = tok, .n_tokens = 128, .out_len = 64, .token_at = echo_token, .user = &a};
    assert_non_null(engine_submit(e, &rq, 0));
    uint64_t now = run_all(e, 0);
    rq = (struct engine_req){.tokens = tok, .n_tokens = 192, .out_len = 1, .user = &b};
    assert_non_null(engine_submit(e, &rq, now));
    (void)run_all(e, now);
    assert_int_equal(b.cached, 176); /* 128 + 63 computed ones, in whole blocks */
    engine_free(e);
}

/* Two running sequences outgrow the cache: the later one goes, comes back, and both end complete. */
static void preemption(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 20, NULL); /* 320 tokens */
    struct rec a, b;
    submit_at(e, &a, 1, 128, 120, 0, 0);
    submit_at(e, &b, 1000, 128, 120, 0, 0);
    (void)run_all(e, 0);
    assert_true(a.done && b.done);
    assert_int_equal(a.tokens, 120);
    assert_int_equal(b.tokens, 120);
    assert_int_equal(a.preempted, 0);
    assert_true(b.preempted >= 1);
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.preemptions, b.preempted);
    all_free(e);
    struct rec r = {0};
    uint32_t big[400] = {0};
    assert_null(engine_submit(e, &(struct engine_req){.tokens = big, .n_tokens = 300, .out_len = 21, .user = &r}, 0));
    engine_free(e);
}

/* A whole prompt must fit: the second waits although the budget would allow a chunk of it. */
static void admission_needs_whole_prompt(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 100, NULL); /* 1600 tokens */
    struct rec a, b;
    submit_at(e, &a, 1, 1000, 10, 0, 0);
    submit_at(e, &b, 5000, 1000, 10, 0, 0);
    (void)engine_next(e, 0);
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.running, 1);
    assert_int_equal(s.waiting, 1);
    (void)run_all(e, 0);
    assert_true(b.done && b.first_us > a.end_us);
    assert_int_equal(b.preempted, 0);
    all_free(e);
    engine_free(e);
}

static void lora_slots(void **state)
{
    (void)state;
    struct engine_params p;
    engine_free(make("a10-qwen25-7b", 0, &p));
    p.max_loras = 2;
    struct engine *e = engine_new(&p);
    struct rec r[5];
    for (uint32_t i = 0; i < 4; i++) /* adapters 1, 2, 3 and the base */
        submit_at(e, &r[i], 1000 * i, 64, 20, (i + 1) % 4, 0);
    submit_at(e, &r[4], 9000, 64, 20, 1, 0);
    uint64_t t = engine_next(e, 0);
    engine_advance(e, t, on_event, NULL);
    struct engine_stats s;
    engine_stats(e, false, &s);
    assert_int_equal(s.running, 4);
    assert_int_equal(s.waiting, 1);
    assert_int_equal(s.deferred, 1);
    uint32_t run, wait;
    engine_lora(e, 3, &run, &wait);
    assert_int_equal(run, 0);
    assert_int_equal(wait, 1);
    engine_lora(e, 1, &run, &wait);
    assert_int_equal(run, 2);
    (void)run_all(e, t);
    assert_true(r[2].done && r[2].first_us > r[0].end_us);
    assert_true(r[4].first_us == r[0].first_us);
    all_free(e);
    engine_free(e);
}

static uint64_t first_us_with(struct engine *e, uint32_t lora, uint64_t *now)
{
    static uint32_t tokens = 100000;
    struct rec r;
    submit_at(e, &r, tokens += 1000, 64, 2, lora, *now);
    *now = run_all(e, *now);
    assert_true(r.done);
    return r.first_us;
}

/* Two adapters on the GPU, three in memory: whoever is not there costs the load, and the read when it is on disk only;
 * the one used longest ago goes. */
static void lora_loads(void **state)
{
    (void)state;
    struct engine_params p;
    engine_free(make("a10-qwen25-7b", 0, &p));
    p.max_loras = 2;
    p.max_cpu_loras = 3;
    p.lora_load_s = 0.05;
    p.lora_read_s = 0.15;
    struct engine *e = engine_new(&p);
    uint64_t now = 0, plain = first_us_with(e, 0, &now);
    static const struct {
        uint32_t lora, ms;
    } uses[] = {{1, 200}, {1, 0},   {2, 200}, {1, 0}, /* GPU 2 1 */
                {3, 200}, {1, 0},   {2, 50},          /* GPU 1 2, memory 3 */
                {4, 200}, {3, 200}, {2, 50}};         /* 4 threw out 3, then 3 threw out 1 */
    for (size_t i = 0; i < ARRAY_LEN(uses); i++) {
        uint64_t t = first_us_with(e, uses[i].lora, &now);
        if (t + 3 < plain + uses[i].ms * 1000 || t > plain + uses[i].ms * 1000 + 3)
            fail_msg("use %zu: %llu us, without adapter %llu", i, (unsigned long long)t, (unsigned long long)plain);
    }
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.lora_loads, 7);
    assert_int_equal(s.lora_reads, 5);
    assert_int_equal(engine_lora_place(e, 2), LORA_ON_GPU);
    assert_int_equal(engine_lora_place(e, 4), LORA_IN_MEMORY);
    assert_int_equal(engine_lora_place(e, 1), LORA_ON_DISK);
    engine_lora_add(e, 1); /* registered again: there at once, without a request paying for it */
    assert_int_equal(engine_lora_place(e, 1), LORA_ON_GPU);
    assert_true(first_us_with(e, 1, &now) <= plain + 3);
    engine_lora_drop(e, 1);
    assert_int_equal(engine_lora_place(e, 1), LORA_ON_DISK);
    engine_stats(e, true, &s);
    assert_int_equal(s.lora_loads, 7);
    all_free(e);
    engine_free(e);
}

/* An adapter that is running is never thrown out, however long ago its last step with a share in the budget was; and
 * everybody in the batch waits for the load. */
static void lora_load_holds_the_step(void **state)
{
    (void)state;
    struct engine_params p;
    engine_free(make("a10-qwen25-7b", 0, &p));
    p.max_loras = 2;
    p.lora_load_s = 1;
    struct engine *e = engine_new(&p);
    struct rec base, one, two;
    submit_at(e, &base, 1, 64, 30, 0, 0);
    submit_at(e, &one, 1000, 64, 40, 1, 0);
    uint64_t t = 0;
    for (int i = 0; i < 5; i++) {
        t = engine_next(e, t);
        engine_advance(e, t, on_event, NULL);
    }
    submit_at(e, &two, 2000, 64, 40, 2, t);
    (void)run_all(e, t);
    assert_true(one.first_us >= 1000000 && base.first_us == one.first_us);
    assert_true(base.end_us >= 2000000 && base.end_us < 4000000); /* both loads, once */
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_int_equal(s.lora_loads, 2);
    assert_int_equal(s.lora_reads, 2);
    all_free(e);
    engine_free(e);
}

/* A long prefill is cut into chunks, and decodes go on between them. */
static void chunked_prefill(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec a, b;
    submit_at(e, &a, 1, 100, 20, 0, 0);
    uint64_t t = engine_next(e, 0);
    engine_advance(e, t, on_event, NULL); /* its decode runs; b joins the step after it */
    submit_at(e, &b, 5000, 6000, 2, 0, t);
    for (int i = 0; i < 4; i++) {
        t = engine_next(e, t);
        engine_advance(e, t, on_event, NULL);
    }
    assert_int_equal(a.tokens, 5);
    assert_int_equal(b.tokens, 1); /* 2047 + 2047 + 1906, none in the step under way when it came */
    (void)run_all(e, t);
    all_free(e);
    engine_free(e);
}

/* Gauges are those of the last step; an arrival during a step shows only afterwards. */
static void published_late(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec r;
    struct engine_stats s;
    submit_at(e, &r, 1, 160, 3, 0, 0);
    uint64_t t = engine_next(e, 0);
    engine_stats(e, false, &s);
    assert_int_equal(s.running, 0);
    engine_advance(e, t, on_event, NULL);
    engine_stats(e, false, &s);
    assert_int_equal(s.running, 1);
    assert_true(s.kv_usage_frac > 0);
    engine_cancel(e, r.seq);
    engine_stats(e, false, &s);
    assert_int_equal(s.running, 0);
    (void)run_all(e, t);
    all_free(e);
    engine_free(e);
}

static void hold_in_callback(void *ctx, const struct engine_event *ev)
{
    struct engine *e = ctx;
    on_event(NULL, ev);
    if (ev->finished)
        engine_cancel(e, ev->seq);
}

/* The KV of a finished request stays until it is let go: others wait for it meanwhile. */
static void held_after_its_end(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 40, NULL); /* 640 tokens */
    struct rec a, b;
    struct engine_stats es;
    uint32_t tok[400], n;
    for (uint32_t i = 0; i < ARRAY_LEN(tok); i++)
        tok[i] = i;
    a = (struct rec){0};
    a.seq = engine_submit(
        e, &(struct engine_req){.tokens = tok, .n_tokens = 400, .out_len = 1, .hold = true, .user = &a}, 0);
    uint64_t now = run_all(e, 0);
    assert_true(a.done);
    assert_non_null(engine_blocks(a.seq, &n));
    assert_int_equal(n, 25);
    engine_stats(e, false, &es);
    assert_int_equal(es.running, 0);
    assert_int_equal(es.free_blocks, 15);
    submit_at(e, &b, 1000, 300, 2, 0, now);
    assert_true(engine_next(e, now) == UINT64_MAX); /* it needs 19 */
    engine_stats(e, false, &es);
    assert_int_equal(es.waiting, 1);
    assert_true(es.kv_usage_frac > 0.6);
    engine_cancel(e, a.seq);
    now = run_all(e, now);
    assert_int_equal(b.tokens, 2);
    all_free(e);
    a = (struct rec){0};
    (void)engine_submit(e, &(struct engine_req){.tokens = tok, .n_tokens = 400, .out_len = 2, .hold = true, .user = &a},
                        now);
    for (uint64_t t; (t = engine_next(e, now)) != UINT64_MAX; now = t)
        engine_advance(e, t, hold_in_callback, e);
    assert_int_equal(a.tokens, 2);
    assert_int_equal(a.cached, 336); /* its blocks without the last four, which the other took */
    all_free(e);
    a = (struct rec){0}; /* what is held at the end goes with the engine */
    (void)engine_submit(e, &(struct engine_req){.tokens = tok, .n_tokens = 9, .out_len = 1, .hold = true, .user = &a},
                        now);
    (void)run_all(e, now);
    engine_free(e);
}

/* A prompt that comes with its KV takes memory, but no computing. */
static void given_prompt(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct engine_stats es;
    uint32_t tok[2000];
    struct rec a = {0};
    for (uint32_t i = 0; i < ARRAY_LEN(tok); i++)
        tok[i] = i;
    (void)engine_submit(
        e, &(struct engine_req){.tokens = tok, .n_tokens = 2000, .given = 2000, .out_len = 3, .user = &a}, 0);
    assert_true(engine_next(e, 0) < 40000); /* a decode step */
    (void)run_all(e, 0);
    engine_stats(e, true, &es);
    assert_int_equal(es.computed_tokens, 1);
    assert_int_equal(a.tokens, 3);
    engine_free(e);
}

static void slow_factor(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec a, b;
    submit_at(e, &a, 1, 200, 5, 0, 0);
    uint64_t t = run_all(e, 0);
    engine_set_slow(e, 3);
    submit_at(e, &b, 5000, 200, 5, 0, t);
    (void)run_all(e, t);
    near((double)b.end_us, 3.0 * (double)a.end_us, .001);
    engine_free(e);
}

static void cancel_another(void *ctx, const struct engine_event *ev)
{
    struct engine *e = ctx;
    struct rec *r = ev->user;
    on_event(NULL, ev);
    if (r[1].seq && r[1].tokens == 0 && r->tokens == 1) {
        engine_cancel(e, r[1].seq); /* of the same step, not yet handed out */
        r[1].seq = NULL;
        engine_cancel(e, ev->seq);
    }
}

static void cancel_in_callback(void **state)
{
    (void)state;
    struct engine *e = make("a10-qwen25-7b", 0, NULL);
    struct rec r[2];
    submit_at(e, &r[0], 1, 100, 5, 0, 0);
    submit_at(e, &r[1], 900, 100, 5, 0, 0);
    uint64_t t = engine_next(e, 0);
    engine_advance(e, t, cancel_another, e);
    assert_int_equal(r[0].tokens, 1);
    assert_int_equal(r[1].tokens, 0);
    assert_true(engine_next(e, t) == UINT64_MAX);
    all_free(e);
    engine_free(e);
}

/* 2000 random requests on a small cache, some cancelled: everything ends, every counter returns to zero, twice the
 * same. */
static uint64_t storm(uint64_t seed)
{
    enum { N = 2000 };
    struct engine_params p;
    engine_free(make("a10-qwen25-7b", 300, &p));
    p.max_loras = 2;
    p.jitter = true;
    p.seed = seed;
    struct engine *e = engine_new(&p);
    struct rng rng;
    rng_init(&rng, seed);
    struct rec *r = calloc(N, sizeof(*r));
    uint64_t now = 0, sum = 0;
    for (uint32_t i = 0; i < N; i++) {
        now += rng_below(&rng, 200000);
        while (engine_next(e, now) <= now)
            engine_advance(e, now, on_event, NULL);
        submit_at(e, &r[i], (uint32_t)rng_below(&rng, 20) * 10000, 16 + (uint32_t)rng_below(&rng, 1500),
                  1 + (uint32_t)rng_below(&rng, 200), (uint32_t)rng_below(&rng, 5), now);
        uint32_t k = (uint32_t)rng_below(&rng, i + 1);
        if (rng_below(&rng, 10) == 0 && r[k].seq && !r[k].done) {
            engine_cancel(e, r[k].seq);
            r[k].seq = NULL;
        }
    }
    now = run_all(e, now);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(r[i].done || !r[i].seq);
        sum = sum * 31 + r[i].end_us;
    }
    struct engine_stats s;
    engine_stats(e, true, &s);
    assert_true(s.preemptions > 0 && s.prefix_hit_tokens > 0);
    all_free(e);
    engine_free(e);
    free(r);
    return sum;
}

static void random_load(void **state)
{
    (void)state;
    uint64_t a = storm(7);
    assert_true(a == storm(7));
    assert_true(a != storm(8));
}

/* Closed loop of the reference: 1000 in, 200 out on an A10 with Qwen2.5-7B. */
static double closed_loop(uint32_t conc)
{
    enum { MAX = 128 };
    struct engine *e = make("a10-qwen2.5-7b-tp1", 0, NULL);
    static struct rec r[MAX];
    uint32_t next = 0, done = 0, want = conc * 8;
    uint64_t now = 0;
    for (uint32_t i = 0; i < conc; i++)
        submit_at(e, &r[i], 1 + 2000 * next++, 1000, 200, 0, 0);
    while (done < want) {
        now = engine_next(e, now);
        engine_advance(e, now, on_event, NULL);
        for (uint32_t i = 0; i < conc; i++)
            if (r[i].done) {
                done++;
                submit_at(e, &r[i], 1 + 2000 * next++, 1000, 200, 0, now);
            }
    }
    engine_free(e);
    return done / ((double)now / 1e6);
}

static void closed_loop_throughput(void **state)
{
    (void)state;
    near(closed_loop(1), 0.16, .05);
    near(closed_loop(8), 0.95, .08);
    near(closed_loop(32), 2.0, .10);
    near(closed_loop(64), 2.4, .10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_by_hand),
        cmocka_unit_test(named_hardware),
        cmocka_unit_test(prefix_hit_shortens_first_token),
        cmocka_unit_test(generated_tokens_are_cached),
        cmocka_unit_test(preemption),
        cmocka_unit_test(admission_needs_whole_prompt),
        cmocka_unit_test(lora_slots),
        cmocka_unit_test(lora_loads),
        cmocka_unit_test(lora_load_holds_the_step),
        cmocka_unit_test(chunked_prefill),
        cmocka_unit_test(published_late),
        cmocka_unit_test(held_after_its_end),
        cmocka_unit_test(given_prompt),
        cmocka_unit_test(slow_factor),
        cmocka_unit_test(cancel_in_callback),
        cmocka_unit_test(random_load),
        cmocka_unit_test(closed_loop_throughput),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
