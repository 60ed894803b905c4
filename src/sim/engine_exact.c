/* sim/engine_exact.c - exact_tail: whole blocks of ids are cached, all other KV is counted by tokens; and quiet: a run
 * of steps in which sequences only decode passes at once.
 *
 * A step: everybody who decodes, then chunks of those admitted, then the queue. Nothing here costs time in the number
 * of decoding sequences (unless their tokens are to be reported one by one): they are kept as sums, and in a heap by
 * the step that ends them. Their order of admission is the running list; the newest is preempted. */
#include "sim/engine_priv.h"

#include <math.h>
#include <stdlib.h>

void exact_init(struct engine *e)
{
    e->capacity = (uint64_t)e->p.n_blocks * e->p.block_size;
    e->later_us = UINT64_MAX;
    list_init(&e->filling);
    heap_init(&e->ends);
    e->ahead = ahead_new();
}

void exact_fini(struct engine *e)
{
    heap_free(&e->ends);
    ahead_free(e->ahead);
}

/* ---- memory ---- */

/* Cached blocks without references give way to what is in use, the oldest first. */
static void trim(struct engine *e)
{
    uint64_t room = e->used < e->capacity ? e->capacity - e->used : 0;
    kv_trim(&e->kv, (uint32_t)(room / e->p.block_size));
}

void exact_release(struct engine *e, struct engine_seq *s)
{
    e->used -= s->alone;
    s->alone = 0;
    while (s->n_block) { /* from the tail: it is evicted first */
        uint32_t b = s->block[--s->n_block];
        kv_unref(&e->kv, b);
        if (e->kv.b[b].ref)
            continue;
        e->used -= e->p.block_size;
        if (!e->kv.b[b].hashed)
            kv_drop(&e->kv, b);
    }
}

/* Blocks that turn full within the first `tokens` become findable. One that somebody else has computed meanwhile, and
 * all after it, stay alone. */
static void publish(struct engine *e, struct engine_seq *s, uint32_t tokens)
{
    uint32_t n = e->p.prefix_caching ? MIN(MIN(tokens, s->rq.n_tokens) / e->p.block_size, s->rq.n_ids) : 0;
    for (uint32_t i = s->n_block; i < n; i++) {
        uint64_t key = block_key(s->rq.ids[i], s->key_seed);
        if (kv_lookup(&e->kv, key) != KV_NONE)
            break;
        uint32_t b = kv_alloc(&e->kv);
        CHECK(b != KV_NONE);
        kv_hash(&e->kv, b, key);
        s->block[s->n_block++] = b;
        s->alone -= e->p.block_size;
    }
}

/* Cached blocks of its prompt into s->block, without taking them. At least one token is left to compute. */
static uint32_t find_cached(const struct engine *e, struct engine_seq *s, uint32_t *unused)
{
    uint32_t n = 0, max = e->p.prefix_caching ? MIN((s->n_tok - 1) / e->p.block_size, s->rq.n_ids) : 0;
    *unused = 0;
    for (; n < max; n++) {
        uint32_t b = kv_lookup(&e->kv, block_key(s->rq.ids[n], s->key_seed));
        if (b == KV_NONE)
            break;
        s->block[n] = b;
        *unused += e->kv.b[b].ref == 0;
    }
    return n;
}

static bool admit(struct engine *e, struct engine_seq *s, uint64_t now_us)
{
    uint32_t size = e->p.block_size, unused, n = find_cached(e, s, &unused), alone = s->n_tok - n * size;
    if (e->used + (uint64_t)unused * size + alone > e->capacity)
        return false;
    for (uint32_t i = 0; i < n; i++)
        kv_ref(&e->kv, s->block[i]);
    s->n_block = n;
    s->alone = alone;
    s->computed = MAX(n * size, s->rq.given);
    e->used += (uint64_t)unused * size + alone;
    e->waiting_prompts -= s->rq.n_tokens;
    seq_enter(e, s);
    list_push_back(&e->filling, &s->filling);
    seq_admitted(e, s, n * size, now_us);
    trim(e);
    return true;
}

/* ---- decoding ---- */

static bool decodes(const struct engine_seq *s)
{
    return s->ends.idx != 0;
}

/* Tokens of the answer that a decoding sequence has, after the steps that were settled. */
static uint32_t exact_produced(const struct engine *e, const struct engine_seq *s)
{
    return s->rq.out_len - (uint32_t)(s->ends.key - e->n_steps);
}

static void begin_decoding(struct engine *e, struct engine_seq *s)
{
    heap_push(&e->ends, &s->ends, e->n_steps + s->rq.out_len - s->n_out);
    e->n_decoding++;
    e->context += (uint64_t)s->rq.n_tokens + s->n_out;
}

/* It has grown by a token a step, which until now only `used` knew. */
static void stop_decoding(struct engine *e, struct engine_seq *s)
{
    s->n_out = exact_produced(e, s);
    s->alone += s->rq.n_tokens + s->n_out - s->n_tok;
    heap_remove(&e->ends, &s->ends);
    e->n_decoding--;
    e->context -= (uint64_t)s->rq.n_tokens + s->n_out;
}

static void stop(struct engine *e, struct engine_seq *s)
{
    if (decodes(s))
        stop_decoding(e, s);
    else
        list_remove(&s->filling);
    if (s->rq.lora) /* used by every step until now */
        e->on_gpu[s->rq.lora] = e->in_memory[s->rq.lora] = e->lora_uses;
}

static void preempt_newest(struct engine *e)
{
    struct engine_seq *s = CONTAINER_OF(e->running.prev, struct engine_seq, link);
    stop(e, s);
    seq_preempt(e, s);
    s->n_tok = s->rq.n_tokens + s->n_out;
    e->waiting_prompts += s->rq.n_tokens;
}

/* ---- time ---- */

/* Whole microseconds. A sum that should be a whole number must not end one earlier for its rounding. */
static uint64_t whole_us(double us)
{
    return (uint64_t)(us + 1e-3);
}

static double run_us(const struct engine *e, uint32_t k)
{
    return k * e->first_us + e->more_us * ((double)k * ((double)k - 1) / 2);
}

static uint64_t step_end(const struct engine *e, uint32_t k)
{
    return whole_us(e->from_us + run_us(e, k));
}

static void set_run(struct engine *e, uint32_t k, double us)
{
    e->run = k;
    e->end_exact_us = e->from_us + us;
    e->end_us = whole_us(e->end_exact_us);
}

uint32_t exact_passed(const struct engine *e, uint64_t now_us)
{
    if (!e->busy || e->run < 2)
        return 0; /* a single step has passed when its end is handled */
    uint32_t lo = 0, hi = e->run;
    while (lo < hi) {
        uint32_t mid = hi - (hi - lo) / 2;
        if (step_end(e, mid) <= now_us)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* The first k steps of the run are over. */
static void pass(struct engine *e, uint32_t k)
{
    uint64_t tokens = e->n_decoding * k;
    e->n_steps += k;
    e->context += tokens;
    e->used += tokens;
    e->count.steps += k;
    e->count.generation_tokens += tokens;
    trim(e);
}

void exact_settle(struct engine *e)
{
    ahead_stale(e->ahead);
    if (!e->busy || e->run < 2)
        return;
    uint32_t k = MIN(exact_passed(e, e->advanced_us), e->run - 1);
    if (k) {
        double us = run_us(e, k);
        pass(e, k);
        e->count.busy_us += us;
        e->from_us += us;
        e->first_us += e->more_us * k;
        e->shown_used = e->used;
    }
    set_run(e, 1, run_us(e, 1));
}

/* Somebody came: who may be admitted by the next step ends the run. Otherwise the next step shows them as waiting. */
void exact_submitted(struct engine *e, struct engine_seq *s, uint64_t now_us)
{
    list_init(&s->filling);
    s->ends.tie = e->n_submitted++;
    s->block = xmalloc(MAX(MIN(s->rq.n_ids, s->rq.n_tokens / e->p.block_size), 1u) * sizeof(*s->block));
    e->waiting_prompts += s->rq.n_tokens;
    e->any_lora |= s->rq.lora != 0;
    ahead_submitted(e, s);
    if (!e->busy || e->run < 2)
        return;
    /* the first step whose end was not handled yet; one that ends right now will see the newcomer */
    uint64_t before = now_us > e->advanced_us ? now_us - 1 : e->advanced_us;
    uint32_t k = exact_passed(e, before) + 1;
    if (k >= e->run)
        return;
    if (!e->blocked) {
        set_run(e, k, run_us(e, k));
        return;
    }
    if (e->later_us <= now_us)
        e->count.waiting = e->later_waiting;
    e->later_us = step_end(e, k);
    e->later_waiting = e->n_waiting;
}

/* ---- steps ---- */

struct chunks {
    double prefill, computed, pairs;
};

static uint32_t add_chunk(struct engine *e, struct engine_seq *s, uint32_t budget, struct chunks *c)
{
    uint32_t k = MIN(budget, s->n_tok - s->computed);
    batch_add(e, s, k);
    c->prefill += k;
    c->computed += s->computed;
    c->pairs += (double)k * ((double)s->computed + (double)k / 2);
    return k;
}

static void admit_waiting(struct engine *e, uint32_t budget, uint64_t now_us, struct chunks *c)
{
    LIST_EACH_SAFE (it, tmp, &e->waiting) {
        struct engine_seq *s = CONTAINER_OF(it, struct engine_seq, link);
        if (budget == 0)
            break;
        e->blocked = e->n_running >= e->p.max_num_seqs;
        if (e->blocked)
            break;
        if (seq_defer(e, s))
            continue;
        e->blocked = !admit(e, s, now_us);
        if (e->blocked)
            break;
        uint32_t k = add_chunk(e, s, budget, c);
        publish(e, s, s->computed + k); /* the next in the queue finds them */
        budget -= k;
    }
}

static struct chunks schedule(struct engine *e, uint64_t now_us)
{
    struct chunks c = {0};
    while (e->n_decoding && e->used + e->n_decoding > e->capacity && e->n_running > 1)
        preempt_newest(e);
    uint32_t budget = e->p.max_batched_tokens > e->n_decoding ? e->p.max_batched_tokens - (uint32_t)e->n_decoding : 0;
    e->n_batch = 0;
    e->blocked = false;
    if (!e->p.quiet)
        LIST_EACH (it, &e->running) {
            struct engine_seq *s = CONTAINER_OF(it, struct engine_seq, link);
            if (decodes(s))
                batch_add(e, s, 0);
        }
    for (struct list *it = e->filling.next; it != &e->filling && budget > 0; it = it->next)
        budget -= add_chunk(e, CONTAINER_OF(it, struct engine_seq, filling), budget, &c);
    uint32_t admitted = e->n_batch;
    admit_waiting(e, budget, now_us, &c);
    for (uint32_t i = 0; i < admitted; i++) /* theirs are found from the next step on */
        if (e->batch[i].n)
            publish(e, e->batch[i].s, e->batch[i].s->computed + e->batch[i].n);
    return c;
}

/* Decode steps until the first sequence ends or memory is short. */
static uint32_t run_length(const struct engine *e)
{
    const struct heap_node *first = heap_min(&e->ends);
    if (!e->p.quiet || !first)
        return 1;
    uint64_t k = first->key - e->n_steps, room = (e->capacity - e->used) / e->n_decoding;
    return (uint32_t)MAX(MIN(k, room), 1u);
}

void exact_start(struct engine *e, uint64_t now_us, double from_us)
{
    ahead_stale(e->ahead);
    struct chunks c = schedule(e, now_us);
    e->from_us = from_us;
    e->decode_only = c.prefill == 0;
    double n = (double)e->n_decoding;
    double us = step_seconds(&e->p.time, n, (double)e->n_batch - (e->p.quiet ? 0 : n), c.prefill,
                             (double)e->context + c.computed, c.pairs);
    us = (us + lora_seconds(e)) * 1e6 * step_jitter(e) * e->slow;
    us = MAX(us, 1.0); /* which names its argument twice */
    e->busy = e->n_decoding > 0 || !e->decode_only;
    if (e->busy && e->decode_only) {
        e->first_us = us;
        e->more_us = e->p.time.context_token * n * 1e6 * e->slow;
        uint32_t k = run_length(e);
        set_run(e, k, run_us(e, k));
    } else if (e->busy) {
        set_run(e, 1, us);
    }
    e->count.computed_tokens += (uint64_t)c.prefill;
    e->step_tokens = (uint32_t)(n + c.prefill);
    exact_publish(e);
}

static void report(struct engine *e, struct engine_seq *s, uint32_t index, engine_event_fn *fn, void *ctx)
{
    if (!fn || (e->p.quiet && index > 0 && index + 1 < s->rq.out_len))
        return;
    struct engine_event ev = seq_event(e, s, index);
    ahead_stale(e->ahead);
    fn(ctx, &ev);
}

static void finish(struct engine *e, struct engine_seq *s, engine_event_fn *fn, void *ctx)
{
    seq_leave(e, s);
    report(e, s, s->rq.out_len - 1, fn, ctx);
    seq_free(s);
}

/* One token each; the last one of a sequence comes from end_decoded. */
static void report_decoded(struct engine *e, engine_event_fn *fn, void *ctx)
{
    for (uint32_t i = 0; i < e->n_batch && e->batch[i].n == 0; i++) {
        struct engine_seq *s = e->batch[i].s;
        if (!s)
            continue; /* cancelled */
        s->batch = NOT_IN_BATCH;
        if (s->ends.key > e->n_steps)
            report(e, s, exact_produced(e, s) - 1, fn, ctx);
    }
}

static void end_decoded(struct engine *e, engine_event_fn *fn, void *ctx)
{
    for (struct heap_node *n; (n = heap_min(&e->ends)) && n->key <= e->n_steps;) {
        struct engine_seq *s = CONTAINER_OF(n, struct engine_seq, ends);
        stop(e, s);
        finish(e, s, fn, ctx);
    }
}

/* Its chunk is computed. When that was all there is, the next token of the answer exists. */
static void end_chunk(struct engine *e, struct engine_seq *s, uint32_t n, engine_event_fn *fn, void *ctx)
{
    s->batch = NOT_IN_BATCH;
    s->computed += n;
    if (s->computed < s->n_tok)
        return;
    if (s->n_out == 0)
        e->count.prompt_tokens += s->rq.n_tokens;
    e->count.generation_tokens++;
    e->used++;
    s->n_out++;
    if (s->n_out == s->rq.out_len) {
        s->alone++;
        stop(e, s);
        finish(e, s, fn, ctx);
        return;
    }
    list_remove(&s->filling);
    begin_decoding(e, s);
    report(e, s, s->n_out - 1, fn, ctx);
}

void exact_end(struct engine *e, engine_event_fn *fn, void *ctx)
{
    e->busy = false;
    e->count.busy_us += e->end_exact_us - e->from_us;
    pass(e, e->run);
    report_decoded(e, fn, ctx);
    end_decoded(e, fn, ctx);
    for (uint32_t i = 0; i < e->n_batch; i++) /* a callback may cancel any sequence: its slot is then empty */
        if (e->batch[i].n && e->batch[i].s)
            end_chunk(e, e->batch[i].s, e->batch[i].n, fn, ctx);
    e->n_batch = 0;
    trim(e);
    ahead_stale(e->ahead); /* a callback may have asked in the middle */
    exact_publish(e);
}

void exact_cancelling(struct engine *e, struct engine_seq *s)
{
    exact_settle(e);
    if (s->running)
        stop(e, s);
    else
        e->waiting_prompts -= s->rq.n_tokens;
}

void exact_forget(struct engine *e)
{
    ahead_stale(e->ahead);
    kv_trim(&e->kv, 0);
}

/* ---- what it tells ---- */

void exact_publish(struct engine *e)
{
    e->count.waiting = e->n_waiting;
    e->count.running = e->n_running;
    e->count.step_tokens = e->step_tokens;
    e->shown_used = e->used;
    e->later_us = UINT64_MAX;
    if (!e->any_lora) {
        e->shown_lora_waiting[0] = e->lora_waiting[0];
        e->shown_lora_running[0] = e->lora_running[0];
        return;
    }
    e->count.deferred = 0;
    LIST_EACH (it, &e->waiting)
        e->count.deferred += CONTAINER_OF(it, struct engine_seq, link)->deferred;
    memcpy(e->shown_lora_waiting, e->lora_waiting, sizeof(e->lora_waiting));
    memcpy(e->shown_lora_running, e->lora_running, sizeof(e->lora_running));
}

void exact_stats(const struct engine *e, bool live, uint64_t now_us, struct engine_stats *out)
{
    *out = e->count;
    out->n_blocks = e->p.n_blocks;
    if (live) {
        out->running = e->n_running;
        out->waiting = e->n_waiting;
    } else if (e->later_us <= now_us) {
        out->waiting = e->later_waiting;
    }
    uint64_t used = (live ? e->used : e->shown_used) + e->n_decoding * exact_passed(e, now_us);
    out->kv_usage_frac = (double)used / (double)e->capacity;
    out->free_blocks = used < e->capacity ? (uint32_t)((e->capacity - used) / e->p.block_size) : 0;
}
