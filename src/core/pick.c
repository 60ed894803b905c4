/* The choice: costs of all candidates, then the tie rule of the policy. */
#include "core/sched_int.h"
#include <math.h>
#include <string.h>

#define TIE_SHARE         0.02 /* PREFIX_CACHE: costs this close to the least, or within the tie band, are a tie; who holds */
#define HOLD_SHARE        0.05 /* the prompt or its conversation keeps it up to here, */
#define HOLD_BANDS        4.0  /* or within so many tie bands */
#define DEFAULT_TIE_SHARE 0.10 /* DEFAULT: ... and here, or within half a millisecond */
#define DEFAULT_TIE_S     0.0005
#define STRONG_SHARE      0.75 /* of the prompt: a match that covers this much always counts as the same prefix */
#define HALF              0.5
#define TEMPLATE_BRANCHES 3 /* from here on prompts went so many ways that the match is a template, no conversation */
#define EXPLORE_PICKS     32
#define FRESH_MAX         256 /* placed prompts are remembered about this far back */

bool pick_tried(const struct sched_req *r, struct ep_ref ep)
{
    for (uint32_t i = 0; i < r->n_tried && i < SCHED_MAX_TRIED; i++)
        if (r->tried[i].slot == ep.slot && r->tried[i].gen == ep.gen)
            return true;
    return false;
}

uint32_t pick_matched(const struct sched *s, const struct pick *k, uint32_t slot)
{
    return k->match ? prefix_match_len(k->match, s->index, slot) : 0;
}

static double matched_share(const struct pick *k, uint32_t n)
{
    return n ? (double)prefix_bytes(k->r->hashes, n) / k->w.stream_bytes : 0;
}

double pick_cached(const struct sched *s, const struct pick *k, uint32_t slot)
{
    uint32_t n = pick_matched(s, k, slot);
    return n ? MIN(k->w.tokens - 1, k->w.tokens * matched_share(k, n)) : 0;
}

/* ---- costs ---- */

static void add_penalties(struct sched *s, struct pick *k)
{
    float *cost = s->scan.cost;
    for (uint32_t i = 0; k->model && i < s->n_slots; i++)
        cost[i] += k->model[i];
    if (k->lora)
        lora_add(s, k);
    for (uint32_t i = 0; i < k->r->n_tried && i < SCHED_MAX_TRIED; i++)
        if (ep_of(s, k->r->tried[i]))
            cost[k->r->tried[i].slot] = INFINITY;
}

static void credit_matches(struct sched *s, struct pick *k)
{
    for (uint32_t i = 0; i < k->match->n; i++) {
        uint32_t slot = k->match->slots[i];
        if (isfinite(s->scan.cost[slot]))
            s->scan.cost[slot] =
                (float)(cost_of(s, slot, &k->w, pick_cached(s, k, slot), NULL) + lora_cost(s, k, slot));
    }
}

typedef float lanes __attribute__((vector_size(16)));
typedef int32_t lane_mask __attribute__((vector_size(16)));

/* Least cost and number of candidates, four lanes at a time: compilers do not vectorise a minimum of floats by
 * themselves. */
static void find_least(struct sched *s, struct pick *k)
{
    const float *cost = s->scan.cost;
    lanes least = {INFINITY, INFINITY, INFINITY, INFINITY}, none = least;
    lane_mask n = {0};
    uint32_t i = 0;
    for (; i + 4 <= s->n_slots; i += 4) {
        lanes c;
        memcpy(&c, cost + i, sizeof(c));
        lane_mask less = c < least;
        least = (lanes)((less & (lane_mask)c) | (~less & (lane_mask)least));
        n -= c < none;
    }
    for (uint32_t j = 0; i < s->n_slots; i++, j++) {
        least[j] = MIN(least[j], cost[i]);
        n[j] += cost[i] < INFINITY;
    }
    float a = MIN(least[0], least[1]), b = MIN(least[2], least[3]);
    k->least = MIN(a, b);
    k->n = (uint32_t)(n[0] + n[1] + n[2] + n[3]);
}

static void leave_out_full(struct sched *s)
{
    float *restrict cost = s->scan.cost;
    const float *restrict full = s->scan.full;
    for (uint32_t i = 0; i < s->n_slots; i++)
        cost[i] += full[i];
}

void pick_compute(struct sched *s, struct pick *k)
{
    struct sched_req *r = k->r;
    cost_scan(s, &k->w);
    if (k->w.pair)
        cost_scan_pair(s, &k->w);
    const struct model_column *c = model_column(s, r->model);
    k->model = c ? c->penalty : NULL;
    k->lora = c && c->n_lora ? c->lora : NULL;
    add_penalties(s, k);
    if (!k->match)
        k->match = policy_match(s, r);
    if (k->match)
        credit_matches(s, k);
    if (k->room_only)
        leave_out_full(s);
    find_least(s, k);
}

/* ---- ties ---- */

static void take(struct pick *k, uint32_t slot, enum sched_reason reason)
{
    k->slot = slot;
    k->reason = reason;
}

/* Fewest of ours in flight, then the longest not picked: equal endpoints take turns, wherever the first turn began. */
static void choose_in_turn(struct sched *s, struct pick *k, float limit)
{
    uint64_t best = UINT64_MAX;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        bool in = s->scan.cost[i] <= limit;
        n += in;
        if (in && s->scan.order[i] < best) {
            best = s->scan.order[i];
            k->slot = i;
        }
    }
    k->reason = n > 1 ? REASON_TIE_RANDOM : REASON_LEAST_COST;
}

static void count_fresh(struct sched *s, uint32_t slot)
{
    if (++s->eps[slot].fresh < FRESH_MAX)
        return;
    for (uint32_t i = 0; i < s->n_slots; i++)
        s->eps[i].fresh /= 2;
}

static uint64_t owned_blocks(const struct sched *s, uint32_t slot)
{
    return prefix_index_blocks(s->index, slot) + sessions_count(s->sessions, slot);
}

/* What an endpoint owns: its share of the index and its share of the prompts placed lately. Blocks alone would send
 * every new conversation to the endpoint whose present ones are short so far, and leave it with too many later. */
static void choose_least_owned(struct sched *s, struct pick *k, float limit)
{
    uint64_t least = UINT64_MAX, order = UINT64_MAX, all_blocks = 1, all_fresh = 1;
    uint32_t n = 0, same = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (s->scan.cost[i] > limit)
            continue;
        n++;
        all_blocks += owned_blocks(s, i);
        all_fresh += s->eps[i].fresh;
    }
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (s->scan.cost[i] > limit)
            continue;
        uint64_t owned = owned_blocks(s, i) * all_fresh + s->eps[i].fresh * all_blocks;
        same = owned < least ? 1 : same + (owned == least);
        if (owned < least || (owned == least && s->scan.order[i] < order)) {
            least = owned;
            order = s->scan.order[i];
            k->slot = i;
        }
    }
    k->reason = n < 2 ? REASON_LEAST_COST : same > 1 ? REASON_TIE_RANDOM : REASON_TIE_LEAST_OWNED;
    k->fresh = true;
}

/* A match is a reason of its own to go back when it is this very prompt's past: nearly all of the prompt, or a prompt
 * that ended where the match ends, or half of the prompt. What many different prompts share is a template and attracts
 * only by the prefill it saves, which is in the cost already: otherwise one endpoint would collect every conversation
 * of an application. */
static bool strong(const struct sched *s, const struct pick *k, uint32_t slot, uint32_t len)
{
    double share = matched_share(k, len);
    if (share >= STRONG_SHARE)
        return true;
    if (len > k->match->chain_n) /* exact knowledge of what the index has not seen */
        return share >= HALF;
    uint32_t last = k->match->chain[len - 1];
    if (prefix_index_branches(s->index, last) >= TEMPLATE_BRANCHES)
        return false;
    return share >= HALF || prefix_index_terminal(s->index, last, slot);
}

static float tie_limit(const struct sched *s, const struct pick *k)
{
    return k->least + (float)MAX(s->p.tie_band_s, TIE_SHARE * (double)k->least);
}

static float hold_limit(const struct sched *s, const struct pick *k)
{
    return k->least + (float)MAX(HOLD_BANDS * s->p.tie_band_s, HOLD_SHARE * (double)k->least);
}

/* The endpoint that answered the latest earlier turn of this very conversation, as the ends of messages tell. */
static bool choose_session(struct sched *s, struct pick *k, float limit)
{
    const struct prefix_hashes *h = k->r->hashes;
    for (uint32_t i = 0; i < h->n_ends; i++) {
        struct ep_ref ep;
        if (!sessions_get(s->sessions, h->ends[i], &ep.slot, &ep.gen))
            continue;
        if (!ep_of(s, ep) || s->scan.cost[ep.slot] > limit)
            return false;
        take(k, ep.slot, REASON_PREFIX_HOLDER);
        return true;
    }
    return false;
}

static bool choose_holder(struct sched *s, struct pick *k, float limit)
{
    uint32_t best = NO_SLOT, len = 0;
    for (uint32_t i = 0; i < k->match->n; i++) {
        uint32_t slot = k->match->slots[i], n = k->match->len[slot];
        if (s->scan.cost[slot] > limit || n < len)
            continue;
        if (n > len || s->scan.cost[slot] < s->scan.cost[best] ||
            (s->scan.cost[slot] <= s->scan.cost[best] && s->scan.order[slot] < s->scan.order[best])) {
            best = slot;
            len = n;
        }
    }
    if (best == NO_SLOT || !strong(s, k, best, len))
        return false;
    take(k, best, REASON_PREFIX_HOLDER);
    return true;
}

static bool choose_explored(struct sched *s, struct pick *k)
{
    uint32_t slot = s->explore_slot;
    if (slot == NO_SLOT || s->n_picks < s->explored_pick + EXPLORE_PICKS || (k->match && k->match->n))
        return false;
    struct ep *e = &s->eps[slot];
    if (!(s->scan.cost[slot] < INFINITY) || !learn_due(s, e) || ep_queue(e) > 0 || ep_saturated(s, e))
        return false; /* what it says of itself needs no trying */
    s->explored_pick = s->n_picks;
    e->explored_us = s->now_us;
    take(k, slot, REASON_EXPLORE);
    return true;
}

static void choose_rotation(struct sched *s, struct pick *k)
{
    uint32_t slot = s->rr_next % s->n_slots;
    while (!(s->scan.cost[slot] < INFINITY))
        slot = (slot + 1) % s->n_slots;
    s->rr_next = slot + 1;
    take(k, slot, REASON_ROUND_ROBIN);
}

static void choose_by_policy(struct sched *s, struct pick *k)
{
    if (s->p.policy == SCHED_ROUND_ROBIN) {
        choose_rotation(s, k);
        return;
    }
    if (baseline_choose(s, k))
        return;
    if (choose_explored(s, k))
        return;
    if (s->p.policy == SCHED_DEFAULT || !k->r->hashes) {
        choose_in_turn(s, k, k->least * (float)(1 + DEFAULT_TIE_SHARE) + (float)DEFAULT_TIE_S);
        return;
    }
    float limit = hold_limit(s, k);
    if (choose_session(s, k, limit) || (k->match && k->match->n && choose_holder(s, k, limit)))
        return;
    choose_least_owned(s, k, tie_limit(s, k));
}

/* ---- special cases ---- */

/* Nothing healthy is left: the ejected endpoint with the shortest record of trouble, in turn. */
static bool choose_least_bad(struct sched *s, struct pick *k)
{
    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        struct ep *e = &s->eps[i];
        if (!e->used || !e->ready || e->draining || !e->ejected || pick_tried(k->r, ep_ref_of(s, i)) ||
            (k->model && !(k->model[i] < INFINITY)))
            continue;
        uint64_t key = (uint64_t)MIN(e->level, 255u) << 56 | (s->scan.order[i] & ((1ull << 56) - 1));
        if (key < best) {
            best = key;
            take(k, i, REASON_ALL_EJECTED);
        }
    }
    return best != UINT64_MAX;
}

static bool choose_pinned(struct sched *s, struct pick *k)
{
    struct ep *e = ep_of(s, k->r->pinned);
    if (!e || !ep_usable(e) || pick_tried(k->r, k->r->pinned))
        return false;
    take(k, k->r->pinned.slot, REASON_PINNED);
    return true;
}

bool pick_saturated(const struct sched *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (s->scan.cost[i] < INFINITY && !ep_saturated(s, &s->eps[i]))
            return false;
    return true;
}

/* ---- the decision ---- */

static void reserve(struct sched *s, struct pick *k)
{
    struct sched_req *r = k->r;
    struct ep *e = &s->eps[k->slot];
    double cached = pick_cached(s, k, k->slot);
    double lora = lora_cost(s, k, k->slot);
    struct sched_cost c;
    cost_of(s, k->slot, &k->w, cached, &c);
    uint32_t len = pick_matched(s, k, k->slot);
    r->d = (struct sched_decision){
        .ep = ep_ref_of(s, k->slot),
        .user = e->user,
        .reason = k->n == 1 && k->reason != REASON_PINNED ? REASON_ONLY_CANDIDATE : k->reason,
        .matched_bytes = len ? prefix_bytes(r->hashes, len) : 0,
        .stream_bytes = (uint64_t)k->w.stream_bytes,
        .cost_s = c.total_s + lora,
        .ttft_s = c.wait_s + c.prefill_s + c.transfer_s + lora,
        .n_candidates = k->n,
    };
    r->tokens = k->w.tokens;
    r->matched_tokens = cached;
    r->uncached_tokens = MAX(1.0, k->w.tokens - cached);
    r->out_tokens = k->w.out;
    r->split = k->w.given;
    r->prefill_s = r->split ? 0 : work_prefill_s(s, r->uncached_tokens, r->tokens);
    r->raw_transfer_s = c.transfer_s;
    cost_raw(s, k->slot, &k->w, cached, r);
    r->lora_cold = k->lora && k->lora[k->slot] > LORA_HELD;
    r->picked_us = s->now_us;
    r->first_us = 0;
}

void pick_commit(struct sched *s, struct pick *k)
{
    struct sched_req *r = k->r;
    reserve(s, k);
    hold_set(s, r, false);
    if (k->fresh)
        count_fresh(s, k->slot);
    if (r->explain)
        pick_explain(s, k);
    ledger_reserve(s, r);
    baseline_sent(s, r);
    learn_prompt(s, &k->w, r->prefill_s);
    event_emit(s, EV_RESERVE, k->slot, r);
    index_insert(s, k->slot, r);
}

/* A request pinned to an endpoint that is usable goes there or, while only those with room count, nowhere. */
bool pick_choose(struct sched *s, struct pick *k)
{
    if (choose_pinned(s, k))
        return !k->room_only || (s->scan.full[k->slot] <= 0 && (!k->lora || k->lora[k->slot] != LORA_WAIT));
    if (k->n) {
        choose_by_policy(s, k);
        return !k->room_only || hold_admit(s, k);
    }
    return !k->room_only && choose_least_bad(s, k);
}

bool pick_place(struct sched *s, struct sched_req *r, bool room_only)
{
    if (pair_of(s, r))
        return pair_place(s, r, room_only);
    struct pick k = {.r = r, .slot = NO_SLOT, .w = work_of(s, r), .room_only = room_only};
    if (!s->n_used)
        return false;
    pick_compute(s, &k);
    if (!pick_choose(s, &k)) {
        if (room_only && k.lora)
            lora_claim(s, &k);
        return false;
    }
    pick_commit(s, &k);
    return true;
}

bool pick_full_holder(struct sched *s, struct sched_req *r, uint32_t *slot)
{
    struct pick k = {.r = r, .slot = NO_SLOT, .w = work_of(s, r)};
    if (s->p.policy != SCHED_PREFIX_CACHE || !r->hashes || !s->n_used)
        return false;
    pick_compute(s, &k);
    if (!k.n || choose_pinned(s, &k)) /* where it must go is no choice of its own */
        return false;
    float limit = hold_limit(s, &k);
    if (!choose_session(s, &k, limit) && !(k.match && k.match->n && choose_holder(s, &k, limit)))
        return false;
    *slot = k.slot;
    return s->scan.full[k.slot] > 0;
}

void pick_explain_refused(struct sched *s, struct sched_req *r)
{
    if (pair_of(s, r)) {
        pair_explain_refused(s, r);
        return;
    }
    struct pick k = {.r = r, .slot = NO_SLOT, .w = work_of(s, r), .room_only = true};
    if (s->n_used)
        pick_compute(s, &k);
    pick_explain(s, &k);
}

static enum sched_answer refuse(struct sched *s, const struct pick *k, enum sched_reject why)
{
    if (k->r->explain)
        pick_explain(s, k);
    return flow_reject(s, k->r, why);
}

enum sched_answer pick_run(struct sched *s, struct sched_req *r)
{
    if (pair_of(s, r))
        return pair_run(s, r);
    struct pick k = {.r = r, .slot = NO_SLOT, .w = work_of(s, r)};
    if (!s->n_used)
        return flow_reject(s, r, REJECT_NO_ENDPOINT);
    pick_compute(s, &k);
    if (r->priority < 0 && k.n && pick_saturated(s))
        return refuse(s, &k, REJECT_SHED);
    if (!pick_choose(s, &k))
        return refuse(s, &k, REJECT_NO_ENDPOINT);
    pick_commit(s, &k);
    return SCHED_PICKED;
}
