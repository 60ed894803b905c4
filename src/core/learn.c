/* What the answers teach: relative speed of the endpoints, bytes per token, length of answers, how much the caches
 * keep. */
#include "core/sched_int.h"
#include <math.h>

#define SPEED_MIN        0.2
#define SPEED_MAX        8.0
#define SPEED_NOISE      0.25 /* of the logarithm: differences below are taken as jitter */
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
#define CACHE_DOUBT                                                                                                    \
    0.4 /* first tokens also tell a warm cache from a cold one, token gaps only the speed: the gaps bound them */
#define GAP_TOKENS 8 /* shorter answers say little about token gaps */

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
    double gain = x < from - RECOVERED ? RECOVERED_GAIN : EP_GAIN;
    mine->log = from + MAX(1.0 / (mine->n + 2.0), gain) * (x - from);
    mine->n += mine->n < 1000;
    e->seen_us = s->now_us;
    e->speed = learn_speed_of(s, e);
    cost_update(s, slot);
}

double learn_speed_of(const struct sched *s, const struct ep *e)
{
    double sum = 0, weight = 0, gap = e->seen[LEARN_GAP].log - s->pool[LEARN_GAP].log;
    for (int i = 0; i < LEARN_KINDS; i++) {
        double w = MIN(e->seen[i].n, 8u), x = e->seen[i].log - s->pool[i].log;
        if (i == LEARN_TTFT && e->seen[LEARN_GAP].n >= GAP_SAMPLES)
            x = clamp(x, gap - CACHE_DOUBT, gap + CACHE_DOUBT);
        sum += w * x;
        weight += w;
    }
    if (!s->p.learn_speed || weight <= 0 || s->n_used < 2)
        return 1;
    double age = s->now_us > e->seen_us ? (double)(s->now_us - e->seen_us) / SEC : 0;
    double x = sum / weight * exp(-age / SPEED_DECAY_S);
    x = x > SPEED_NOISE ? x - SPEED_NOISE : x < -SPEED_NOISE ? x + SPEED_NOISE : 0;
    return clamp(exp(x), SPEED_MIN, SPEED_MAX);
}

/* A request that is not answered yet bounds the speed as well. Whole answers count only where their length is bounded.
 */
double learn_late(const struct sched *s, const struct ep *e)
{
    if (!s->p.learn_speed || list_empty(e->waiting))
        return 0;
    const struct sched_req *r = CONTAINER_OF(e->waiting->next, struct sched_req, link);
    const struct estimate *pool = &s->pool[r->streamed ? LEARN_TTFT : LEARN_TOTAL];
    if (r->lora_cold || pool->n < LATE_SAMPLES || (!r->streamed && !r->max_tokens))
        return 0;
    double expected = r->raw_ttft_s + (r->streamed ? 0 : (double)r->max_tokens * step_now(s, e));
    return MIN(SPEED_MAX, (double)(s->now_us - r->picked_us) / SEC / (exp(pool->log) * expected));
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
    e->speed = 1;
}

void learn_first(struct sched *s, uint32_t slot, const struct sched_req *r)
{
    if (r->streamed && !r->lora_cold) /* an adapter that had to come says nothing about the speed */
        observe(s, slot, LEARN_TTFT, (double)(s->now_us - r->picked_us) / SEC, r->raw_ttft_s);
}

static void learn_bytes_per_token(struct sched *s, const struct sched_req *r, const struct sched_usage *u)
{
    if (!r->prompt_bytes || r->n_media || u->prompt_tokens <= r->prompt_token_ids)
        return;
    double tokens = (double)(u->prompt_tokens - r->prompt_token_ids);
    double gain = MIN(0.2, tokens / 5000); /* by size: a chat template's own tokens distort short prompts */
    s->bytes_per_token += gain * (clamp((double)r->prompt_bytes / tokens, 0.5, 16) - s->bytes_per_token);
}

void learn_finish(struct sched *s, uint32_t slot, const struct sched_req *r, const struct sched_usage *u)
{
    struct ep *e = &s->eps[slot];
    learn_bytes_per_token(s, r, u);
    if (!u->completion_tokens)
        return;
    double each = (double)u->completion_tokens / MAX(1.0, (double)r->n_outputs), step = step_now(s, e);
    s->mean_output += 0.05 * (clamp(each, 1, 32768) - s->mean_output);
    double total = (double)(s->now_us - r->picked_us) / SEC, first = (double)(r->first_us - r->picked_us) / SEC;
    if (!r->streamed && r->lora_cold)
        return;
    if (!r->streamed)
        observe(s, slot, LEARN_TOTAL, total, r->raw_ttft_s + each * step);
    else if (r->first_us && each >= GAP_TOKENS)
        observe(s, slot, LEARN_GAP, (total - first) / (each - 1), step);
}

/* ---- cache ---- */

/* The server found much less than we believed. It has computed and cached this prompt again since, so it is what else
 * we believe old there that is wrong: believe in a smaller cache. Again and again on one endpoint: it caches hardly at
 * all, trim the prompt too. Requests that share a prefix and run side by side miss as well, so each miss counts little.
 */
void learn_cache(struct sched *s, uint32_t slot, const struct sched_req *r, const struct sched_usage *u)
{
    struct ep *e = &s->eps[slot];
    double believed = r->matched_tokens / r->tokens;
    double found = (double)u->cached_tokens / MAX(1.0, (double)u->prompt_tokens);
    if (!u->has_cached || !u->prompt_tokens || r->matched_tokens < 32)
        return;
    if (found >= believed / 2) {
        e->cache_misses = 0;
        e->cap_belief = MIN(1.0, e->cap_belief + 0.02);
        return;
    }
    e->cap_belief = MAX(0.25, e->cap_belief * 0.95);
    prefix_index_set_cap(s->index, slot, index_cap(s, e));
    if (++e->cache_misses < 2)
        return;
    uint32_t keep = 0;
    while (keep < r->hashes->n && (double)prefix_bytes(r->hashes, keep + 1) <= found * (double)r->d.stream_bytes)
        keep++;
    struct prefix_chain c = {r->hashes->h, r->hashes->n, r->hashes->n_fine, r->d.stream_bytes};
    prefix_index_trim(s->index, slot, &c, keep);
}
