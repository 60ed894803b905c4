/* Why the chosen one: every endpoint's cost as it was at the pick. */
#include "core/sched_int.h"
#include <math.h>

static enum sched_skip skip_of(struct sched *s, const struct pick *k, uint32_t slot)
{
    const struct ep *e = &s->eps[slot];
    if (!e->ready)
        return SKIP_NOT_READY;
    if (e->draining)
        return SKIP_DRAINING;
    if (pick_tried(k->r, ep_ref_of(s, slot)))
        return SKIP_TRIED;
    if (k->model && !(k->model[slot] < INFINITY))
        return SKIP_MODEL;
    if (e->ejected)
        return k->slot == slot ? SKIP_NONE : SKIP_EJECTED;
    if (k->room_only && k->slot != slot && s->scan.full[slot] > 0)
        return SKIP_FULL;
    if (k->room_only && k->slot != slot && k->lora && k->lora[slot] == LORA_WAIT)
        return SKIP_LORA_SLOTS;
    return k->reason == REASON_PINNED && k->slot != slot ? SKIP_PINNED_ELSEWHERE : SKIP_NONE;
}

static void row(struct sched *s, const struct pick *k, uint32_t slot, struct sched_cost *c)
{
    *c = (struct sched_cost){.ep = ep_ref_of(s, slot), .skip = skip_of(s, k, slot)};
    uint32_t len = pick_matched(s, k, slot);
    c->matched_bytes = len ? prefix_bytes(k->r->hashes, len) : 0;
    c->cached_tokens = pick_cached(s, k, slot);
    cost_of(s, slot, &k->w, c->cached_tokens, c);
    c->lora_s = lora_cost(s, k, slot);
    c->total_s += c->lora_s;
}

static void all_rows(struct sched *s, const struct pick *k, struct sched_explain *x)
{
    for (uint32_t i = 0; i < s->n_slots && x->n < SCHED_EXPLAIN; i++)
        if (s->eps[i].used)
            row(s, k, i, &x->cost[x->n++]);
}

/* More endpoints than rows: the chosen one, then the cheapest of the others (insertion into a short sorted list). */
static void cheapest_rows(struct sched *s, const struct pick *k, struct sched_explain *x)
{
    uint32_t best[SCHED_EXPLAIN], n = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        float c = s->scan.cost[i];
        if (i == k->slot || !s->eps[i].used || !(c < INFINITY))
            continue;
        if (n == SCHED_EXPLAIN - 1 && !(c < s->scan.cost[best[n - 1]]))
            continue;
        uint32_t at = n < SCHED_EXPLAIN - 1 ? n++ : n - 1;
        for (; at > 0 && s->scan.cost[best[at - 1]] > c; at--)
            best[at] = best[at - 1];
        best[at] = i;
    }
    row(s, k, k->slot, &x->cost[x->n++]);
    for (uint32_t i = 0; i < n; i++)
        row(s, k, best[i], &x->cost[x->n++]);
}

void pick_explain(struct sched *s, const struct pick *k)
{
    struct sched_explain *x = k->r->explain;
    *x = (struct sched_explain){.n_endpoints = s->n_used, .n_candidates = k->n, .reason = k->r->d.reason};
    if (s->n_used <= SCHED_EXPLAIN || k->slot == NO_SLOT)
        all_rows(s, k, x);
    else
        cheapest_rows(s, k, x);
}
