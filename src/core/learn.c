/* What the answers teach: how fast the endpoints prefill and decode, bytes per token, length of answers, how much the
 * caches keep and hold.
 *
 * Speed is two factors on the prior's seconds, so that other hardware than the prior's is known after some answers: of
 * prefill work, from the times to the first token of prompts that were not cached; of steps, from the gaps between
 * tokens. The pool's mean is absolute; an endpoint has its own deviation from it, which fades when it is not seen. */
#include "core/sched_int.h"
#include <math.h>

#define SPEED_MIN        0.2
#define SPEED_MAX        8.0
#define NOISE_MIN        0.05 /* of the logarithm: differences below are taken as jitter, */
#define NOISE_ERRORS     5.0  /* and those below so many standard errors */
#define SPEED_DECAY_S    60.0
#define EXPLORE_SPEED    1.3
#define EXPLORE_AFTER_US 1000000
#define EP_GAIN          0.15
#define RECOVERED        0.7 /* so much faster than believed: what was slow is over, */
#define RECOVERED_GAIN   0.5 /* believe it quickly: a slow endpoint gets few samples */
#define POOL_GAIN        0.02
#define POOL_CLIP        0.5 /* one slow endpoint must not pull what the pool takes as normal */
#define LATE_SAMPLES     4
#define GAP_SAMPLES      4
#define PREFILL_SHARE    0.3 /* of a time to the first token: with less the steps in it say more */
#define PAIR_SHARE                                                                                                     \
    0.6 /* ... and beside a role that prefills: what is computed here is mostly short, and half a step that it waits   \
           for says much */
#define HIT_SHARE      0.5 /* of the prompt believed cached: whether it was decides its time, not the speed */
#define SURPRISE_S     0.1 /* so much longer than a hit takes is no jitter, */
#define SURPRISE_HITS  4.0 /* nor what lies ahead of it, when it saves so many times what it needs, */
#define SURPRISE       0.8 /* and so much of the saving has to be missing */
#define FACTOR_MAX     20.0
#define PRIOR_SAMPLES  3.0 /* the prior counts as so many */
#define CAPACITY_GAIN  0.3
#define CLOSE          1.4  /* the two sums of ours, before they say how long our prompts are */
#define LEAST_USE      0.02 /* of the KV cache: below it rounding says more */
#define TRANSFER_SLACK 4.0  /* before it is late: nobody tells how fast the network is */
#define GAP_TOKENS     8    /* shorter answers say little about token gaps */

static double clamp(double v, double lo, double hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void learn_prompt(struct sched *s, const struct work *w, double prefill_s)
{
    double gain = MAX(1.0 / (1.0 + s->n_prompts), 0.02);
    s->n_prompts += s->n_prompts < 1000;
    s->mean_tokens += gain * (w->tokens - s->mean_tokens);
    s->mean_prefill_s += gain * (prefill_s - s->mean_prefill_s);
}

/* ---- speed ---- */

static double step_now(const struct sched *s, const struct ep *e)
{
    return s->p.step_s + s->p.decode_s * (double)e->own.decoding + s->p.ctx_s * e->own.context;
}

static void observe(struct sched *s, uint32_t slot, enum learn_kind kind, double seen_s, double predicted_s)
{
    struct ep *e = &s->eps[slot];
    double x = clamp(log(MAX(seen_s, 1e-4) / MAX(predicted_s, 1e-4)), -4, 4);
    struct estimate *pool = &s->pool[kind], *mine = &e->seen[kind];
    if (pool->n < 8)
        pool->log += (x - pool->log) / (pool->n + 1);
    else
        pool->log += POOL_GAIN * clamp(x - pool->log, -POOL_CLIP, POOL_CLIP);
    pool->n += pool->n < 1000;
    double from = mine->n ? mine->log : pool->log; /* the first sample alone decides nothing */
    pool->var += MAX(1.0 / (pool->n + 1.0), POOL_GAIN) * ((x - from) * (x - from) - pool->var);
    double gain = x < from - RECOVERED ? RECOVERED_GAIN : EP_GAIN;
    mine->log = from + MAX(1.0 / (mine->n + 2.0), gain) * (x - from);
    mine->n += mine->n < 1000;
    e->seen_us = s->now_us; /* what follows from it takes effect for all endpoints at once, with the next refresh */
}

struct deviation { /* of an endpoint from its pool */
    double log;
    uint32_t n;
};

/* What jitter alone would give is taken off: a few times the error of a mean that remembers about 2 / EP_GAIN samples.
 */
static double beyond_noise(double x, double var)
{
    double noise = MAX(NOISE_MIN, NOISE_ERRORS * sqrt(var * EP_GAIN / (2 - EP_GAIN)));
    return x > noise ? x - noise : x < -noise ? x + noise : 0;
}

static struct deviation deviation(const struct sched *s, const struct ep *e, enum learn_kind k)
{
    if (!e->seen[k].n)
        return (struct deviation){0, 0};
    double age = s->now_us > e->seen_us ? (double)(s->now_us - e->seen_us) / SEC : 0;
    double x = (e->seen[k].log - s->pool[k].log) * exp(-age / SPEED_DECAY_S);
    return (struct deviation){clamp(beyond_noise(x, s->pool[k].var), log(SPEED_MIN), log(SPEED_MAX)), e->seen[k].n};
}

static double pool_log(const struct sched *s, enum learn_kind kind)
{
    double n = s->pool[kind].n;
    return clamp(s->pool[kind].log * n / (n + PRIOR_SAMPLES), -log(FACTOR_MAX), log(FACTOR_MAX));
}

/* Steps: from the gaps, or from whole answers, and first tokens that took mostly steps, where there are none. */
static double pool_step(const struct sched *s)
{
    if (!s->p.learn_speed)
        return 0;
    if (s->pool[LEARN_GAP].n || s->pool[LEARN_TOTAL].n)
        return pool_log(s, s->pool[LEARN_GAP].n ? LEARN_GAP : LEARN_TOTAL);
    return pool_log(s, LEARN_TTFT);
}

static double pool_prefill(const struct sched *s)
{
    if (!s->p.learn_speed)
        return 0;
    return s->pool[LEARN_TTFT].n ? pool_log(s, LEARN_TTFT) : pool_step(s);
}

/* Of the pool, for all endpoints at the same time: who was seen last must not look faster for that. */
void learn_pool(struct sched *s)
{
    s->prefill_factor = exp(pool_prefill(s));
    s->step_factor = exp(pool_step(s));
}

void learn_factors(const struct sched *s, struct ep *e)
{
    struct deviation step = {0, 0}, prefill = {0, 0};
    if (s->p.learn_speed && s->n_used > 1) {
        step = deviation(s, e, e->seen[LEARN_GAP].n >= GAP_SAMPLES ? LEARN_GAP : LEARN_TOTAL);
        prefill = deviation(s, e, LEARN_TTFT);
        if (!prefill.n)
            prefill = step;
        if (!step.n)
            step = prefill;
    }
    e->prefill = s->prefill_factor * exp(prefill.log);
    e->step = s->step_factor * exp(step.log);
    e->speed = exp((prefill.log + step.log) / 2);
}

/* A request that is not answered yet bounds the speed as well. Whole answers count only where their length is bounded.
 */
double learn_late(const struct sched *s, const struct ep *e)
{
    if (!s->p.learn_speed || list_empty(e->waiting))
        return 0;
    const struct sched_req *r = CONTAINER_OF(e->waiting->next, struct sched_req, link);
    enum learn_kind kind = r->split && r->streamed ? LEARN_GAP : r->streamed ? LEARN_TTFT : LEARN_TOTAL;
    if (r->lora_cold || s->pool[kind].n < LATE_SAMPLES || (!r->streamed && !r->max_tokens))
        return 0;
    double steps = r->raw_step_s + (r->streamed ? 0 : (double)r->max_tokens * step_now(s, e));
    double expected =
        s->prefill_factor * r->raw_prefill_s + s->step_factor * steps + TRANSFER_SLACK * r->raw_transfer_s;
    return MIN(SPEED_MAX, (double)(s->now_us - r->picked_us) / SEC / MAX(expected, 1e-4));
}

bool learn_due(const struct sched *s, const struct ep *e)
{
    return ep_usable(e) && e->speed > EXPLORE_SPEED && !e->own.inflight && s->now_us > e->seen_us + EXPLORE_AFTER_US &&
           s->now_us > e->explored_us + EXPLORE_AFTER_US;
}

void learn_forget(struct ep *e)
{
    for (int i = 0; i < LEARN_KINDS; i++)
        e->seen[i] = (struct estimate){0};
}

static const struct doubt {                       /* how much a miss says */
    double keep;                                  /* of the belief in its size */
    uint32_t misses;                              /* in a row, until it is taken to cache hardly at all */
} told = {0.95, CACHELESS}, inferred = {0.99, 6}; /* by the answer; by its time */

static void believe_less(struct sched *s, uint32_t slot, struct sched_req *r, double found, struct doubt d)
{
    struct ep *e = &s->eps[slot];
    e->cap_belief = MAX(0.25, e->cap_belief * d.keep);
    prefix_index_set_cap(s->index, slot, index_cap(s, e));
    if (++e->cache_misses < d.misses)
        return;
    uint32_t keep = 0;
    while (keep < r->hashes->n && (double)prefix_bytes(r->hashes, keep + 1) <= found * (double)r->d.stream_bytes)
        keep++;
    struct prefix_chain c = {r->hashes->h, r->hashes->n, r->hashes->n_fine, r->d.stream_bytes};
    prefix_index_trim(s->index, slot, &c, keep);
    r->n_kept = keep;
    event_emit(s, EV_ROLLBACK, slot, r);
}

static void believe_more(struct ep *e)
{
    e->cache_misses = 0;
    e->cap_belief = MIN(1.0, e->cap_belief + 0.02);
}

/* Where answers do not tell: a first token that comes as late as if nothing had been cached says so. */
static void learn_hit(struct sched *s, uint32_t slot, struct sched_req *r, bool hit)
{
    if (hit)
        believe_more(&s->eps[slot]);
    else if (r->insert_stamp && r->hashes)
        believe_less(s, slot, r, 0, inferred);
}

void learn_first(struct sched *s, uint32_t slot, struct sched_req *r)
{
    struct ep *e = &s->eps[slot];
    if (!s->p.learn_speed || !r->streamed || r->split ||
        r->lora_cold) /* an adapter that had to come says nothing about the speed */
        return;
    double seen = (double)(s->now_us - r->picked_us) / SEC, steps = e->step * r->raw_step_s;
    if (s->peer && e->own.decoding > 1) /* the step under way when it came */
        steps += e->step * step_now(s, e) / 2;
    if (r->matched_tokens > HIT_SHARE * r->tokens) {
        double hit = e->prefill * r->raw_prefill_s + steps, saved = e->prefill * r->raw_saved_s;
        if (s->p.policy == SCHED_PREFIX_CACHE && !s->tells_cached && saved > SURPRISE_S && saved > SURPRISE_HITS * hit)
            learn_hit(s, slot, r, seen < hit + SURPRISE * saved);
    } else if (r->raw_prefill_s > (s->peer ? PAIR_SHARE : PREFILL_SHARE) * (r->raw_prefill_s + r->raw_step_s)) {
        observe(s, slot, LEARN_TTFT, MAX(seen - steps, seen / 5), r->raw_prefill_s);
    } else {
        observe(s, slot, LEARN_TOTAL, MAX(seen - e->prefill * r->raw_prefill_s, seen / 5), r->raw_step_s);
    }
}

static void learn_bytes_per_token(struct sched *s, const struct sched_req *r, const struct sched_usage *u)
{
    if (!r->prompt_bytes || r->n_media || u->prompt_tokens <= r->prompt_token_ids)
        return;
    double tokens = (double)(u->prompt_tokens - r->prompt_token_ids);
    double gain = MIN(MAX(0.2, 1.0 / (s->n_usages + 1)),
                      tokens / 5000); /* by size: a chat template's own tokens distort short prompts */
    s->n_usages += s->n_usages < 1000;
    s->bytes_per_token += gain * (clamp((double)r->prompt_bytes / tokens, 0.5, 16) - s->bytes_per_token);
}

void learn_finish(struct sched *s, uint32_t slot, const struct sched_req *r, const struct sched_usage *u)
{
    struct ep *e = &s->eps[slot];
    learn_bytes_per_token(s, r, u);
    if (s->peer || s->owner) /* the same model: the answers of one role may not tell */
        learn_bytes_per_token(s->peer ? s->peer : s->owner, r, u);
    if (!u->completion_tokens)
        return;
    double each = (double)u->completion_tokens / MAX(1.0, (double)r->n_outputs), step = step_now(s, e);
    s->mean_output += 0.05 * (clamp(each, 1, 32768) - s->mean_output);
    double total = (double)(s->now_us - r->picked_us) / SEC, first = (double)(r->first_us - r->picked_us) / SEC;
    if (!r->streamed && r->lora_cold)
        return;
    if (!r->streamed)
        observe(s, slot, LEARN_TOTAL, MAX(total - r->raw_transfer_s - e->prefill * r->raw_prefill_s, total / 5),
                r->raw_step_s + each * step);
    else if (r->first_us && each >= GAP_TOKENS)
        observe(s, slot, LEARN_GAP, (total - first) / (each - 1), step);
}

/* ---- cache ---- */

/* The server found much less than we believed. It has computed and cached this prompt again since, so it is what else
 * we believe old there that is wrong: believe in a smaller cache. Again and again on one endpoint: it caches hardly at
 * all, trim the prompt too. Requests that share a prefix and run side by side miss as well, so each miss counts little.
 */
void learn_cache(struct sched *s, uint32_t slot, struct sched_req *r, const struct sched_usage *u)
{
    double believed = r->matched_tokens / r->tokens;
    double found = (double)u->cached_tokens / MAX(1.0, (double)u->prompt_tokens);
    s->tells_cached |= u->has_cached;
    if (!u->has_cached || !u->prompt_tokens || r->matched_tokens < 32)
        return;
    if (found >= believed / 2)
        believe_more(&s->eps[slot]);
    else
        believe_less(s, slot, r, found, told);
}

/* ---- KV capacity ----
 *
 * The share in use that a server reports, with only ours there, lies between two sums of ours: what only one request
 * holds, and what all hold with every shared prefix counted each time. Where the capacity is not told, that bounds it.
 * Where it is told, it bounds how many tokens our prompts are, until the first answers say so: once, since what is in
 * flight keeps its first estimate. */
void learn_capacity(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    bool known = e->load.has_blocks && e->load.kv_tokens;
    if (!s->p.learn_speed || (known && (s->n_usages || s->bytes_guessed)) || !e->load.has_kv ||
        e->load.kv_mean < LEAST_USE || e->others_waiting + e->others_running > 0.5 || e->remote.inflight)
        return;
    double all = e->own.context + e->own.pending_tokens + (double)e->own.decoding * s->mean_output / 2;
    double least = e->held_at_load / e->load.kv_mean, most = all / e->load.kv_mean, now = ep_kv_tokens(s, e);
    double to = now < least ? least : now > most ? most : now;
    if (to <= 0 || e->held_at_load <= 0)
        return;
    if (known) {
        if (most > CLOSE * least)
            return; /* too much of it is still to be computed */
        s->bytes_per_token = clamp(s->bytes_per_token * sqrt(least * most) / now, 0.5, 16);
        s->bytes_guessed = true;
    } else {
        e->kv_belief = now * pow(to / now, e->kv_belief > 0 ? CAPACITY_GAIN : 1);
        prefix_index_set_cap(s->index, slot, index_cap(s, e));
    }
}
