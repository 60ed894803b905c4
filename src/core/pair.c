/* P/D: two schedulers that serve one pool, each a role, and the life of a request that has an endpoint of both. */
#include "core/sched_int.h"
#include <math.h>

/* ---- joining ---- */

static void part(struct sched *decode)
{
    struct sched *prefill = decode->peer;
    if (!prefill)
        return;
    prefill->owner = NULL;
    decode->peer = NULL;
    decode->room_gained = true; /* those that waited for a prefill endpoint wait no more */
}

void pair_part(struct sched *s)
{
    part(s);
    if (s->owner)
        part(s->owner);
}

void sched_join(struct sched *decode, struct sched *prefill, uint64_t now_us)
{
    decode->now_us = MAX(decode->now_us, now_us);
    if (decode->peer == prefill)
        return;
    part(decode);
    if (prefill) {
        struct sched *before = prefill->owner;
        CHECK(prefill != decode && !prefill->peer && !decode->owner);
        pair_part(prefill);
        if (before)
            flow_run(before);
        decode->peer = prefill;
        prefill->owner = decode;
        prefill->mean_output = 1;
        if (!prefill->n_usages)
            prefill->bytes_per_token = decode->bytes_per_token;
        prefill->room_gained = true;
        pair_clock(decode);
    }
    flow_run(decode);
}

void pair_clock(struct sched *s)
{
    if (s->peer)
        s->peer->now_us = s->now_us = MAX(s->now_us, s->peer->now_us);
}

/* ---- the choice ---- */

struct ways { /* of one request: both with the costs at the moment */
    struct pick local, split, leg;
    double local_s, split_s;
};

/* What the leg is: the same prompt, one token. Its time says how long a prompt takes, streamed or not. */
void pair_fill(const struct sched_req *r)
{
    struct sched_req *l = r->leg;
    if (!l)
        return;
    CHECK(l->state == REQ_IDLE || l->state == REQ_DONE);
    list_init(&l->link);
    list_init(&l->late);
    l->state = REQ_IDLE;
    l->d = (struct sched_decision){0};
    l->id = r->id;
    l->priority = r->priority;
    l->flow = r->flow;
    l->prompt_bytes = r->prompt_bytes;
    l->prompt_token_ids = r->prompt_token_ids;
    l->n_media = r->n_media;
    l->model = r->model;
    l->max_tokens = l->n_outputs = 1;
    l->streamed = true;
    l->n_inserted = 0;
}

static void swap(struct sched *s)
{
    float *cost = s->scan.cost;
    s->scan.cost = s->scan.other;
    s->scan.other = cost;
}

/* Of the least candidate there is, or of the endpoint that it must go to. */
static double cost_of_way(struct sched *s, const struct pick *k)
{
    struct ep *e = ep_of(s, k->r->pinned);
    if (e && ep_usable(e) && !pick_tried(k->r, k->r->pinned))
        return (double)s->scan.cost[k->r->pinned.slot];
    return k->n ? (double)k->least : (double)INFINITY;
}

/* Leaves its costs in scan.other. Returns that of the endpoint that decodes. */
static double compute_split(struct sched *s, struct ways *x)
{
    swap(s);
    x->split.match = x->local.match;
    pick_compute(s, &x->split);
    double cost_s = cost_of_way(s, &x->split);
    swap(s);
    return cost_s;
}

/* Fills in costs and candidates of both ways; scan.cost is that of the local one then, scan.other of the split. */
static void compute(struct sched *s, struct sched_req *r, bool room_only, struct ways *x)
{
    struct sched *p = s->peer;
    *x = (struct ways){.local = {.r = r, .slot = NO_SLOT, .w = work_of(s, r), .room_only = room_only},
                       .leg = {.r = r->leg, .slot = NO_SLOT, .w = work_of(p, r->leg), .room_only = room_only},
                       .local_s = (double)INFINITY,
                       .split_s = (double)INFINITY};
    x->local.w.pair = true;
    x->split = x->local;
    x->split.w.given = true;
    if (p->n_used)
        pick_compute(p, &x->leg);
    if (!s->n_used)
        return;
    cost_least_answer(s);
    pick_compute(s, &x->local);
    if (!r->must_split)
        x->local_s = cost_of_way(s, &x->local);
    if (x->leg.n)
        x->split_s = compute_split(s, x) + (double)x->leg.least;
}

/* Nobody to prefill is healthy: where it must be split the least bad one tries. */
static bool choose_bad_leg(struct sched *s, struct ways *x)
{
    if (x->leg.room_only || !s->peer->n_used || !pick_choose(s->peer, &x->leg))
        return false;
    (void)compute_split(s, x);
    return true;
}

/* Which of the possible ways: the cheaper one or, with split_min_tokens, by what is to be computed. */
static bool wants_split(struct sched *s, struct ways *x)
{
    if (!s->p.split_min_tokens || !isfinite(x->split_s) || !isfinite(x->local_s))
        return x->split_s < x->local_s;
    struct pick k = x->local;
    if (!pick_choose(s, &k))
        return false;
    return k.w.tokens - pick_cached(s, &k, k.slot) >= (double)s->p.split_min_tokens;
}

/* Both or none; the endpoints of what is chosen. NULL: none. */
static struct pick *choose(struct sched *s, struct ways *x, bool may_split)
{
    bool must = x->local.r->must_split;
    if (!may_split)
        x->split_s = (double)INFINITY;
    if (!s->n_used || (must && (!may_split || (!x->leg.n && !choose_bad_leg(s, x)))))
        return NULL;
    if (!must && !wants_split(s, x))
        return pick_choose(s, &x->local) ? &x->local : NULL;
    swap(s);
    if (pick_choose(s, &x->split) && (x->leg.slot != NO_SLOT || pick_choose(s->peer, &x->leg)))
        return &x->split;
    return NULL;
}

static void commit(struct sched *s, struct ways *x, struct pick *k)
{
    struct sched_req *r = k->r;
    pick_commit(s, k);
    r->d.split_s = x->split_s;
    r->d.local_s = x->local_s;
    if (k == &x->split) {
        r->leg->q.seq = r->leg->q.seq ? r->leg->q.seq : ++s->peer->n_arrivals;
        pick_commit(s->peer, &x->leg);
        r->d.cost_s += r->leg->d.cost_s;
        r->d.ttft_s += r->leg->d.ttft_s;
    } else if (r->leg->explain) {
        pick_explain(s->peer, &x->leg);
    }
}

bool pair_place(struct sched *s, struct sched_req *r, bool room_only)
{
    struct ways x;
    compute(s, r, room_only, &x);
    struct pick *k = choose(s, &x, true);
    if (k) {
        commit(s, &x, k);
        return true;
    }
    if (room_only && x.local.lora && !x.local.n)
        lora_claim(s, &x.local);
    if (room_only && x.leg.lora && !x.leg.n)
        lora_claim(s->peer, &x.leg);
    return false;
}

static void explain(struct sched *s, const struct ways *x)
{
    if (x->local.r->explain)
        pick_explain(s, &x->local);
    if (x->leg.r->explain)
        pick_explain(s->peer, &x->leg);
}

void pair_explain_refused(struct sched *s, struct sched_req *r)
{
    struct ways x;
    compute(s, r, true, &x);
    explain(s, &x);
}

enum sched_answer pair_run(struct sched *s, struct sched_req *r)
{
    struct ways x;
    compute(s, r, false, &x);
    bool spare = r->priority < 0, no_leg = spare && x.leg.n && pick_saturated(s->peer);
    if (spare && ((x.local.n && pick_saturated(s)) || (no_leg && r->must_split))) {
        explain(s, &x);
        return flow_reject(s, r, REJECT_SHED);
    }
    struct pick *k = choose(s, &x, !no_leg);
    if (!k) {
        explain(s, &x);
        return flow_reject(s, r, REJECT_NO_ENDPOINT);
    }
    commit(s, &x, k);
    return SCHED_PICKED;
}

static bool anybody(struct sched *s, const struct sched_req *r)
{
    const struct model_column *c = model_column(s, r->model);
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (ep_usable(&s->eps[i]) && !pick_tried(r, ep_ref_of(s, i)) && (!c || c->penalty[i] < INFINITY))
            return true;
    return false;
}

bool pair_lacks_prefill(struct sched *s, const struct sched_req *r)
{
    return pair_of(s, r) && r->must_split && anybody(s, r) && !anybody(s->peer, r->leg);
}

/* ---- reports ---- */

/* From here on the endpoint has it, and the clock of its answer runs. */
static void due(struct sched *s, struct sched_req *r)
{
    struct work w = {.tokens = r->tokens, .out = r->out_tokens, .given = r->split};
    if (ep_of(s, r->d.ep)) {
        cost_raw(s, r->d.ep.slot, &w, r->matched_tokens, r);
        r->raw_transfer_s = r->split ? work_transfer_s(s, r->uncached_tokens) : 0;
    }
    r->picked_us = s->now_us;
}

void sched_prefilled(struct sched *s, struct sched_req *r, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    if (!r->split || r->state != REQ_COMING)
        return;
    due(s, r);
    ledger_comes(s, r);
    flow_run(s);
}

void sched_prefill_here(struct sched *s, struct sched_req *r, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    if (!r->split)
        return;
    if (r->state != REQ_COMING && r->state != REQ_PENDING) { /* it has answered: nothing is left to compute */
        r->split = false;
        return;
    }
    struct ep *e = ep_of(s, r->d.ep);
    if (e) /* for replicas another one takes its place */
        event_emit(s, EV_RELEASE, r->d.ep.slot, r);
    if (r->state == REQ_COMING)
        ledger_comes(s, r);
    r->split = false;
    due(s, r);
    r->prefill_s = work_prefill_s(s, r->uncached_tokens, r->tokens);
    ledger_computes(s, r);
    if (e) {
        baseline_computes(s, r);
        event_emit(s, EV_RESERVE, r->d.ep.slot, r);
    }
    flow_run(s);
}
