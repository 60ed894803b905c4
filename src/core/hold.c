/* Time-slicing of conversations whose working set no longer fits: a prompt that is cached nowhere and would push out
 * what was used lately waits in the queue until something idle can make way, at most conversation_hold_us.
 *
 * When the conversations under way need more than all caches together, least recently used eviction makes every turn
 * find its past gone, and the servers compute old prompts instead of new ones. Held back, some conversations pause
 * while the others run from the cache. What counts as idle is learnt: IDLE_FACTOR times the pause that IDLE_SHARE of
 * the conversations come back within.
 *
 * Those held have a lane of their own, first come first served: warm prompts pass them, and a newcomer that is cold,
 * too, lines up behind them, so that small prompts do not take again and again what a large one waits for. */
#include "core/sched_int.h"
#include <math.h>
#include <stdlib.h>

#define COLD_S      0.5 /* seconds of prefill, and */
#define COLD_SHARE  0.3 /* of the prompt, that are to be computed: less pushes out little */
#define IDLE_SHARE  0.9
#define IDLE_FACTOR 2.0
#define IDLE_MIN_S  5.0
#define IDLE_MAX_S  300.0
#define IDLE_STEP   0.05 /* of the logarithm, for each pause seen */
#define TAILS       8192 /* ends of prompts remembered; a power of two */
#define TAIL_LOOK   64   /* hashes of a prompt that are looked up, from its end */

struct tail { /* where a prompt ended whose request is over */
    uint64_t key;
    uint32_t at_ds;
};
struct hold {
    struct tail tails[TAILS];
    double idle_s; /* the pause that IDLE_SHARE come back within */
};

void hold_params(struct sched *s)
{
    bool on = s->p.conversation_hold_us && s->p.queueing && s->p.policy == SCHED_PREFIX_CACHE;
    if (on && !s->hold) {
        s->hold = xcalloc(1, sizeof(*s->hold));
        s->hold->idle_s = 60 / IDLE_FACTOR;
    } else if (!on) {
        free(s->hold);
        s->hold = NULL;
    }
}

void hold_finished(struct sched *s, const struct sched_req *r)
{
    if (!s->hold || !r->n_chain)
        return;
    uint64_t key = r->hashes->h[r->n_chain - 1];
    s->hold->tails[key & (TAILS - 1)] = (struct tail){key, index_time(s)};
}

/* A conversation goes on: how long was its pause. The quantile moves up by IDLE_SHARE of a step for a longer one, down
 * by the rest for a shorter one. */
void hold_arrived(struct sched *s, const struct sched_req *r)
{
    if (!s->hold || !r->hashes)
        return;
    for (uint32_t i = r->hashes->n, look = 0; i-- > 0 && look < TAIL_LOOK; look++) {
        uint64_t key = r->hashes->h[i];
        struct tail *t = &s->hold->tails[key & (TAILS - 1)];
        if (t->key != key || !key)
            continue;
        double pause = (double)(index_time(s) - t->at_ds) / 10,
               step = IDLE_STEP * (pause > s->hold->idle_s ? IDLE_SHARE : IDLE_SHARE - 1);
        s->hold->idle_s = MIN(IDLE_MAX_S, MAX(IDLE_MIN_S, s->hold->idle_s * exp(step)));
        t->key = 0;
        return;
    }
}

/* Seconds since anything that would be pushed out there was used; INFINITY when there is room. */
static double idle_there(struct sched *s, const struct pick *k, uint32_t slot)
{
    double fresh = k->w.tokens - pick_cached(s, k, slot) + k->w.out;
    uint32_t last;
    if (!prefix_index_oldest(s->index, slot, (uint64_t)(fresh * s->bytes_per_token / MAX(s->p.block_bytes, 1u)), &last))
        return (double)INFINITY;
    return (double)(index_time(s) - last) / 10;
}

static bool cold(const struct sched *s, const struct pick *k, uint32_t slot)
{
    double fresh = k->w.tokens - pick_cached(s, k, slot);
    return fresh > COLD_SHARE * k->w.tokens &&
           ep_prefill(&s->eps[slot]) * work_prefill_s(s, fresh, k->w.tokens) > COLD_S;
}

void hold_set(struct sched *s, struct sched_req *r, bool on)
{
    s->n_on_hold += on && !r->on_hold;
    s->n_on_hold -= !on && r->on_hold;
    r->on_hold = on;
}

uint64_t hold_until(const struct sched *s, const struct sched_req *r)
{
    return r->hold_from_us + s->p.conversation_hold_us;
}

static bool may_hold(const struct sched *s, const struct pick *k)
{
    const struct sched_req *r = k->r;
    if (!s->hold || r->hold_over || s->owner || pair_of(s, r) || k->reason == REASON_EXPLORE)
        return false;
    return (!r->hold_from_us || s->now_us < hold_until(s, r)) && cold(s, k, k->slot);
}

/* The cheapest endpoint with room, for the request and for what it pushes out. */
static uint32_t idle_slot(struct sched *s, const struct pick *k)
{
    const float *cost = s->scan.cost;
    double idle = IDLE_FACTOR * s->hold->idle_s;
    uint32_t best = NO_SLOT;
    if (idle_there(s, k, k->slot) >= idle)
        return k->slot;
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (cost[i] < INFINITY && (best == NO_SLOT || cost[i] < cost[best]) && idle_there(s, k, i) >= idle)
            best = i;
    return best;
}

bool hold_admit(struct sched *s, struct pick *k)
{
    struct sched_req *r = k->r;
    if (!may_hold(s, k))
        return true;
    bool behind = s->n_on_hold && !r->on_hold;
    uint32_t slot = behind ? NO_SLOT : idle_slot(s, k);
    if (slot != NO_SLOT) {
        if (r->on_hold || slot != k->slot)
            k->reason = REASON_IDLE_CACHE;
        k->slot = slot;
        return true;
    }
    if (!r->hold_from_us)
        r->hold_from_us = MAX(s->now_us, 1u);
    hold_set(s, r, true);
    return false;
}
