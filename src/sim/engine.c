/* sim/engine.c - the step loop: schedule, wait for the end of the step, hand out its tokens (see engine.h). */
#include "sim/engine_priv.h"

#include <math.h>
#include <stdlib.h>

struct engine *engine_new(const struct engine_params *p)
{
    struct engine *e = xcalloc(1, sizeof(*e));
    e->p = *p;
    e->p.block_size = p->block_size ? p->block_size : 16;
    e->p.n_blocks = MAX(p->n_blocks, 1u);
    e->p.max_num_seqs = p->max_num_seqs ? p->max_num_seqs : 256;
    e->p.max_batched_tokens = p->max_batched_tokens ? p->max_batched_tokens : 2048;
    e->p.max_loras = p->max_loras ? p->max_loras : 1;
    e->p.max_cpu_loras = MAX(p->max_cpu_loras, e->p.max_loras);
    e->slow = 1;
    rng_init(&e->rng, p->seed);
    kv_init(&e->kv, e->p.n_blocks);
    list_init(&e->waiting);
    list_init(&e->running);
    list_init(&e->held);
    CHECK(!e->p.quiet || e->p.exact_tail);
    if (e->p.exact_tail)
        exact_init(e);
    return e;
}

void seq_free(struct engine_seq *s)
{
    free(s->tok);
    free(s->block);
    free(s->chain);
    free(s);
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    LIST_EACH_SAFE (it, tmp, &e->waiting)
        seq_free(CONTAINER_OF(it, struct engine_seq, link));
    LIST_EACH_SAFE (it, tmp, &e->running)
        seq_free(CONTAINER_OF(it, struct engine_seq, link));
    LIST_EACH_SAFE (it, tmp, &e->held)
        seq_free(CONTAINER_OF(it, struct engine_seq, link));
    if (e->p.exact_tail)
        exact_fini(e);
    kv_free(&e->kv);
    free(e->batch);
    free(e);
}

static uint32_t blocks_for(const struct engine *e, uint64_t tokens)
{
    return (uint32_t)((tokens + e->p.block_size - 1) / e->p.block_size);
}

static bool can_fit(const struct engine *e, uint64_t tokens)
{
    return e->p.exact_tail ? tokens <= e->capacity : blocks_for(e, tokens) <= e->p.n_blocks;
}

static void copy_tokens(struct engine_seq *s, const struct engine_req *rq)
{
    s->cap_tok = rq->n_tokens + MIN(rq->out_len, 256u);
    s->tok = xmalloc(s->cap_tok * sizeof(*s->tok));
    memcpy(s->tok, rq->tokens, rq->n_tokens * sizeof(*s->tok));
}

struct engine_seq *engine_submit(struct engine *e, const struct engine_req *rq, uint64_t now_us)
{
    if (rq->n_tokens == 0 || rq->out_len == 0 || rq->lora >= ENGINE_MAX_LORAS ||
        !can_fit(e, (uint64_t)rq->n_tokens + rq->out_len))
        return NULL;
    CHECK(!rq->hold || !e->p.exact_tail);
    struct engine_seq *s = xcalloc(1, sizeof(*s));
    s->rq = *rq;
    s->rq.tokens = NULL;
    s->rq.given = MIN(rq->given, rq->n_tokens - 1);                              /* the last one is computed here */
    s->key_seed = hash_mix(rq->salt, 0x51ed + (e->p.exact_tail ? 0 : rq->lora)); /* there the ids tell adapters apart */
    if (rq->tokens && !e->p.exact_tail)
        copy_tokens(s, rq);
    s->n_tok = rq->n_tokens;
    s->batch = NOT_IN_BATCH;
    s->arrived_us = now_us;
    list_push_back(&e->waiting, &s->link);
    e->n_waiting++;
    e->lora_waiting[rq->lora]++;
    if (e->p.exact_tail)
        exact_submitted(e, s, now_us);
    return s;
}

/* Chained hash of block i: its tokens and everything before, the adapter and the salt. */
static uint64_t chain_hash(const struct engine *e, struct engine_seq *s, uint32_t i)
{
    if (!s->tok)
        return block_key(s->rq.ids[i], s->key_seed);
    while (s->n_chain <= i) {
        if (s->n_chain == s->cap_chain) {
            s->cap_chain = MAX(s->cap_chain * 2, 16u);
            s->chain = xrealloc(s->chain, s->cap_chain * sizeof(*s->chain));
        }
        uint64_t prev = s->n_chain ? s->chain[s->n_chain - 1] : s->key_seed;
        const uint32_t *t = s->tok + (size_t)s->n_chain * e->p.block_size;
        s->chain[s->n_chain++] = hash_bytes(t, e->p.block_size * sizeof(*t), prev);
    }
    return s->chain[i];
}

/* Blocks that have a hash among the first n. */
static uint32_t hashable(const struct engine_seq *s, uint32_t n)
{
    return s->tok ? n : MIN(n, s->rq.n_ids);
}

static void push_block(struct engine_seq *s, uint32_t block)
{
    if (s->n_block == s->cap_block) {
        s->cap_block = MAX(s->cap_block * 2, 16u);
        s->block = xrealloc(s->block, s->cap_block * sizeof(*s->block));
    }
    s->block[s->n_block++] = block;
}

static void release_blocks(struct engine *e, struct engine_seq *s)
{
    while (s->n_block) /* from the tail: it is evicted first */
        kv_unref(&e->kv, s->block[--s->n_block]);
}

/* Takes blocks so that `tokens` fit. False, with nothing taken, when there are too few. */
static bool grow(struct engine *e, struct engine_seq *s, uint32_t tokens)
{
    uint32_t need = blocks_for(e, tokens);
    if (need > s->n_block && need - s->n_block > e->kv.n_free)
        return false;
    while (s->n_block < need)
        push_block(s, kv_alloc(&e->kv));
    return true;
}

/* Full blocks among the first `tokens` tokens become findable. */
static void publish_blocks(struct engine *e, struct engine_seq *s, uint32_t from, uint32_t tokens)
{
    if (!e->p.prefix_caching)
        return;
    for (uint32_t i = from / e->p.block_size, n = hashable(s, tokens / e->p.block_size); i < n; i++)
        kv_hash(&e->kv, s->block[i], chain_hash(e, s, i));
}

void seq_enter(struct engine *e, struct engine_seq *s)
{
    list_remove(&s->link);
    list_push_back(&e->running, &s->link);
    e->n_waiting--;
    e->n_running++;
    e->lora_waiting[s->rq.lora]--;
    if (e->lora_running[s->rq.lora]++ == 0 && s->rq.lora)
        e->n_lora_running++;
    s->running = true;
}

/* Takes a sequence out of whatever list it stands in. */
static void unlist(struct engine *e, struct engine_seq *s)
{
    list_remove(&s->link);
    if (s->running) {
        e->n_running--;
        if (--e->lora_running[s->rq.lora] == 0 && s->rq.lora)
            e->n_lora_running--;
        s->running = false;
    } else if (!s->held) {
        e->n_waiting--;
        e->lora_waiting[s->rq.lora]--;
    }
}

/* It keeps its tokens and loses its blocks. */
void seq_leave(struct engine *e, struct engine_seq *s)
{
    unlist(e, s);
    if (e->p.exact_tail)
        exact_release(e, s);
    else
        release_blocks(e, s);
    s->computed = 0;
}

void seq_preempt(struct engine *e, struct engine_seq *s)
{
    seq_leave(e, s);
    s->preempted++;
    s->rq.given = 0; /* what came with it is gone, too */
    e->count.preemptions++;
    list_push_front(&e->waiting, &s->link);
    e->n_waiting++;
    e->lora_waiting[s->rq.lora]++;
}

void batch_add(struct engine *e, struct engine_seq *s, uint32_t n)
{
    if (e->n_batch == e->cap_batch) {
        e->cap_batch = MAX(e->cap_batch * 2, 64u);
        e->batch = xrealloc(e->batch, e->cap_batch * sizeof(*e->batch));
    }
    s->batch = e->n_batch;
    e->batch[e->n_batch++] = (struct slice){s, n};
}

static void schedule_slice(struct engine *e, struct engine_seq *s, uint32_t from, uint32_t n)
{
    publish_blocks(e, s, from, s->computed + n);
    batch_add(e, s, n);
}

/* Running sequences in order. Returns the budget left; *preempted tells whether somebody had to go. */
static uint32_t schedule_running(struct engine *e, uint32_t budget, bool *preempted)
{
    for (struct list *it = e->running.next; it != &e->running && budget > 0;) {
        struct engine_seq *s = CONTAINER_OF(it, struct engine_seq, link);
        uint32_t n = MIN(s->n_tok - s->computed, budget);
        bool self = false;
        while (!grow(e, s, s->computed + n)) {
            struct engine_seq *last = CONTAINER_OF(e->running.prev, struct engine_seq, link);
            self = last == s;
            *preempted = true;
            seq_preempt(e, last);
            if (self)
                break;
        }
        if (self)
            break; /* it was the last */
        schedule_slice(e, s, s->computed, n);
        budget -= n;
        it = it->next;
    }
    return budget;
}

/* Blocks of the prompt that are cached, taken (their count goes up). At least one token is left to compute. */
static void take_cached(struct engine *e, struct engine_seq *s)
{
    uint32_t max = e->p.prefix_caching ? hashable(s, (s->n_tok - 1) / e->p.block_size) : 0;
    for (uint32_t i = 0; i < max; i++) {
        uint32_t b = kv_lookup(&e->kv, chain_hash(e, s, i));
        if (b == KV_NONE)
            break;
        kv_ref(&e->kv, b);
        push_block(s, b);
    }
    s->computed = MAX(s->n_block * e->p.block_size, s->rq.given);
}

void seq_admitted(struct engine *e, struct engine_seq *s, uint32_t cached, uint64_t now_us)
{
    if (s->admitted)
        return;
    s->admitted = true;
    s->scheduled_us = now_us;
    s->cached = cached;
    e->count.prefix_query_tokens += s->n_tok;
    e->count.prefix_hit_tokens += cached;
}

bool seq_defer(struct engine *e, struct engine_seq *s)
{
    s->deferred = s->rq.lora && e->lora_running[s->rq.lora] == 0 && e->n_lora_running >= e->p.max_loras;
    return s->deferred;
}

static bool admit(struct engine *e, struct engine_seq *s, uint64_t now_us)
{
    take_cached(e, s);
    if (blocks_for(e, s->n_tok) - s->n_block > e->kv.n_free) {
        release_blocks(e, s);
        s->computed = 0;
        return false;
    }
    seq_enter(e, s);
    seq_admitted(e, s, s->n_block * e->p.block_size, now_us);
    return true;
}

static void schedule_waiting(struct engine *e, uint32_t budget, uint64_t now_us)
{
    LIST_EACH_SAFE (it, tmp, &e->waiting) {
        struct engine_seq *s = CONTAINER_OF(it, struct engine_seq, link);
        if (budget == 0 || e->n_running >= e->p.max_num_seqs)
            break;
        if (seq_defer(e, s))
            continue;
        if (!admit(e, s, now_us))
            break;
        uint32_t n = MIN(s->n_tok - s->computed, budget);
        CHECK(grow(e, s, s->computed + n));
        schedule_slice(e, s, 0, n);
        budget -= n;
    }
}

/* ---- adapters ---- */

/* Forgets the adapters used longest ago until one more fits. Those of running sequences stay. */
static void make_lora_room(struct engine *e, uint64_t *used, uint32_t cap)
{
    for (;;) {
        uint32_t n = 0, oldest = 0;
        for (uint32_t i = 1; i < ENGINE_MAX_LORAS; i++) {
            n += used[i] > 0;
            if (used[i] && !e->lora_running[i] && (!oldest || used[i] < used[oldest]))
                oldest = i;
        }
        if (n < cap || !oldest)
            return;
        used[oldest] = 0;
        if (used == e->in_memory) /* what is on the GPU is in memory, too */
            e->on_gpu[oldest] = 0;
    }
}

static double bring_lora(struct engine *e, uint32_t lora)
{
    double s = 0;
    if (!e->in_memory[lora]) {
        make_lora_room(e, e->in_memory, e->p.max_cpu_loras);
        e->in_memory[lora] = e->lora_uses;
        e->count.lora_reads++;
        s += e->p.lora_read_s;
    }
    make_lora_room(e, e->on_gpu, e->p.max_loras);
    e->on_gpu[lora] = e->lora_uses;
    e->count.lora_loads++;
    return s + e->p.lora_load_s;
}

double lora_seconds(struct engine *e)
{
    double s = 0;
    e->lora_uses++;
    for (uint32_t i = 0; i < e->n_batch; i++) {
        uint32_t lora = e->batch[i].s->rq.lora;
        if (!lora)
            continue;
        if (!e->on_gpu[lora])
            s += bring_lora(e, lora);
        e->on_gpu[lora] = e->in_memory[lora] = e->lora_uses;
    }
    return s;
}

void engine_lora_add(struct engine *e, uint32_t lora)
{
    CHECK(lora > 0 && lora < ENGINE_MAX_LORAS);
    struct engine_stats count = e->count;
    e->lora_uses++;
    if (!e->on_gpu[lora])
        (void)bring_lora(e, lora);
    e->on_gpu[lora] = e->in_memory[lora] = e->lora_uses;
    e->count = count; /* no request asked for it */
}

void engine_lora_drop(struct engine *e, uint32_t lora)
{
    CHECK(lora > 0 && lora < ENGINE_MAX_LORAS && !e->lora_running[lora] && !e->lora_waiting[lora]);
    e->on_gpu[lora] = e->in_memory[lora] = 0;
}

enum lora_place engine_lora_place(const struct engine *e, uint32_t lora)
{
    CHECK(lora < ENGINE_MAX_LORAS);
    return e->on_gpu[lora] ? LORA_ON_GPU : e->in_memory[lora] ? LORA_IN_MEMORY : LORA_ON_DISK;
}

/* ---- steps ---- */

static double batch_seconds(struct engine *e)
{
    double decode = 0, chunks = 0, prefill = 0, context = 0, pairs = 0;
    for (uint32_t i = 0; i < e->n_batch; i++) {
        const struct engine_seq *s = e->batch[i].s;
        double n = e->batch[i].n, c = s->computed;
        context += c;
        if (s->n_out && e->batch[i].n == 1 && s->computed + 1 == s->n_tok) {
            decode++;
            continue;
        }
        chunks++;
        prefill += n;
        pairs += n * (c + n / 2);
    }
    e->count.computed_tokens += (uint64_t)prefill;
    e->step_tokens = (uint32_t)(decode + prefill);
    return step_seconds(&e->p.time, decode, chunks, prefill, context, pairs);
}

double step_jitter(struct engine *e)
{
    if (!e->p.jitter || e->p.quiet)
        return 1;
    double f = exp(0.03 * rng_normal(&e->rng));
    return rng_unit(&e->rng) < 0.01 ? f * 1.5 : f;
}

/* What is still waiting when a step starts is what its end reports. */
static void publish_waiting(struct engine *e)
{
    e->count.waiting = e->n_waiting;
    e->count.deferred = 0;
    LIST_EACH (it, &e->waiting)
        e->count.deferred += CONTAINER_OF(it, struct engine_seq, link)->deferred;
    memcpy(e->shown_lora_waiting, e->lora_waiting, sizeof(e->lora_waiting));
}

static void start_step(struct engine *e, uint64_t now_us)
{
    bool preempted = false;
    e->n_batch = 0;
    uint32_t budget = schedule_running(e, e->p.max_batched_tokens, &preempted);
    if (!preempted)
        schedule_waiting(e, budget, now_us);
    if (e->n_batch == 0) {
        publish_waiting(e); /* what is held leaves no room for anybody */
        return;
    }
    double us = (batch_seconds(e) + lora_seconds(e)) * 1e6 * step_jitter(e) * e->slow + e->end_frac_us;
    us = MAX(us, 1.0);
    e->step_us = us;
    e->end_us = now_us + (uint64_t)us;
    e->end_frac_us = us - floor(us);
    e->count.busy_us += us;
    e->count.steps++;
    e->busy = true;
    publish_waiting(e);
}

/* A step with whatever there is to do. from_us: the same moment with its fraction. */
static void begin(struct engine *e, uint64_t now_us, double from_us)
{
    if (e->p.exact_tail)
        exact_start(e, now_us, from_us);
    else
        start_step(e, now_us);
}

static void publish_gauges(struct engine *e)
{
    e->count.running = e->n_running;
    e->count.free_blocks = e->kv.n_free;
    e->count.kv_usage_frac = 1 - (double)e->kv.n_free / e->kv.n;
    e->count.step_tokens = e->step_tokens;
    memcpy(e->shown_lora_running, e->lora_running, sizeof(e->lora_running));
}

static void append_token(struct engine_seq *s, uint32_t token)
{
    s->n_tok++;
    if (!s->tok)
        return;
    if (s->n_tok > s->cap_tok) {
        s->cap_tok *= 2;
        s->tok = xrealloc(s->tok, s->cap_tok * sizeof(*s->tok));
    }
    s->tok[s->n_tok - 1] = token;
}

struct engine_event seq_event(const struct engine *e, struct engine_seq *s, uint32_t index)
{
    return (struct engine_event){.user = s->rq.user,
                                 .seq = s,
                                 .index = index,
                                 .token = s->rq.token_at ? s->rq.token_at(s->rq.user, index)
                                                         : (uint32_t)hash_mix(s->rq.salt ^ s->rq.n_tokens, index),
                                 .finished = index + 1 == s->rq.out_len,
                                 .cached_tokens = s->cached,
                                 .at_us = e->end_us,
                                 .arrived_us = s->arrived_us,
                                 .scheduled_us = s->scheduled_us,
                                 .preempted = s->preempted};
}

/* The slice's tokens are computed. When that was all there is, the next token of the answer exists. */
static void end_slice(struct engine *e, struct engine_seq *s, uint32_t n, engine_event_fn *fn, void *ctx)
{
    s->batch = NOT_IN_BATCH;
    s->computed += n;
    if (s->computed < s->n_tok)
        return;
    if (s->n_out == 0)
        e->count.prompt_tokens += s->rq.n_tokens;
    struct engine_event ev = seq_event(e, s, s->n_out++);
    append_token(s, ev.token);
    e->count.generation_tokens++;
    bool ends = ev.finished && !s->rq.hold;
    if (ends) {
        seq_leave(e, s);
    } else if (ev.finished) {
        unlist(e, s);
        s->held = true;
        list_push_back(&e->held, &s->link);
    }
    if (fn)
        fn(ctx, &ev); /* may cancel what is held */
    if (ends)
        seq_free(s);
}

static void end_step(struct engine *e, engine_event_fn *fn, void *ctx)
{
    for (uint32_t i = 0; i < e->n_batch; i++) /* a callback may cancel any sequence: its slot is then empty */
        if (e->batch[i].s)
            end_slice(e, e->batch[i].s, e->batch[i].n, fn, ctx);
    e->n_batch = 0;
    e->busy = false;
    e->count.step_us = e->step_us;
    publish_gauges(e);
}

void engine_cancel(struct engine *e, struct engine_seq *s)
{
    if (e->p.exact_tail)
        exact_cancelling(e, s);
    if (s->batch != NOT_IN_BATCH)
        e->batch[s->batch].s = NULL;
    seq_leave(e, s);
    seq_free(s);
    if (e->n_running + e->n_waiting)
        return;
    if (e->p.exact_tail) {
        exact_publish(e);
        return;
    }
    e->count.waiting = e->count.deferred = 0; /* no step will come to report it */
    memcpy(e->shown_lora_waiting, e->lora_waiting, sizeof(e->lora_waiting));
    publish_gauges(e);
}

const uint32_t *engine_blocks(const struct engine_seq *s, uint32_t *n)
{
    *n = s->n_block;
    return s->block;
}

uint64_t engine_next(struct engine *e, uint64_t now_us)
{
    if (!e->busy && e->n_running + e->n_waiting)
        begin(e, now_us, (double)now_us);
    return e->busy ? e->end_us : UINT64_MAX;
}

void engine_advance(struct engine *e, uint64_t now_us, engine_event_fn *fn, void *ctx)
{
    while (e->busy && e->end_us <= now_us) {
        if (e->p.exact_tail)
            exact_end(e, fn, ctx);
        else
            end_step(e, fn, ctx);
        if (!e->busy && e->n_running + e->n_waiting)
            begin(e, e->end_us, e->end_exact_us);
    }
    e->advanced_us = MAX(e->advanced_us, now_us);
}

void engine_set_slow(struct engine *e, double factor)
{
    if (e->p.exact_tail)
        exact_settle(e);
    e->slow = factor > 0 ? factor : 1;
}

void engine_set_prefix_caching(struct engine *e, bool on)
{
    e->p.prefix_caching = on;
    if (!on)
        engine_reset_prefix_cache(e);
}

void engine_reset_prefix_cache(struct engine *e)
{
    kv_reset(&e->kv);
    if (e->p.exact_tail)
        exact_forget(e);
}

void engine_stats(const struct engine *e, bool live, struct engine_stats *out)
{
    if (e->p.exact_tail) {
        exact_stats(e, live, e->advanced_us, out);
        return;
    }
    *out = e->count;
    out->n_blocks = e->kv.n;
    if (!live) {
        if (e->count.steps == 0)
            out->free_blocks = e->kv.n;
        return;
    }
    out->running = e->n_running;
    out->waiting = e->n_waiting;
    out->free_blocks = e->kv.n_free;
    out->kv_usage_frac = 1 - (double)e->kv.n_free / e->kv.n;
}

void engine_published(const struct engine *e, uint64_t now_us, struct engine_stats *out)
{
    if (e->p.exact_tail)
        exact_stats(e, false, now_us, out);
    else
        engine_stats(e, false, out);
}

uint32_t engine_held(const struct engine *e, const uint64_t *ids, uint32_t n_ids, uint32_t n_tokens)
{
    uint32_t n = 0, max = n_tokens ? MIN(n_ids, (n_tokens - 1) / e->p.block_size) : 0;
    uint64_t seed = hash_mix(0, 0x51ed);
    while (n < max && kv_lookup(&e->kv, block_key(ids[n], seed)) != KV_NONE)
        n++;
    return n;
}

void engine_lora(const struct engine *e, uint32_t lora, uint32_t *running, uint32_t *waiting)
{
    CHECK(lora < ENGINE_MAX_LORAS);
    *running = e->shown_lora_running[lora];
    *waiting = e->shown_lora_waiting[lora];
}
