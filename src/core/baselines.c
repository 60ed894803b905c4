/* The policies of others, as baselines and to fall back on: their published formulas over the picker's own signals.
 * Candidates, reservation, index, queue and explanation are the picker's (pick.c); only the rule differs.
 *
 *   REFERENCE*   max 2 * queue + 2 * (1 - KV use) + 3 * prefix share; queue min-max normalised; values as last scraped
 *
 *   CACHE_AWARE  the longest match, where it is over 0.3 of the prompt and loads differ by at most 64 or 1.5 times;
 *                else the fewest requests
 *
 *   DYNAMO       min prefill blocks to compute there with this prompt's + blocks active there, shared ones once
 *
 *   LMETRIC      min prefill tokens to compute there with this prompt's * (requests + 1)
 *
 *   LEAST_WORK   the first factor of LMETRIC alone
 *
 *   PREBLE       E2: see preble_cost
 *
 * Sources: reference scheduling.md 1.5-1.8 and 8, routing-anchors.md. */
#include "base/hash.h"
#include "core/active.h"
#include "core/sched_int.h"
#include <math.h>

#define TIE              1e-9 /* relative: scores this close are equal */
#define REFERENCE_TOKENS 4096.0
#define QUEUE_WEIGHT     2.0
#define KV_WEIGHT        2.0
#define PREFIX_WEIGHT    3.0
#define CACHE_SHARE      0.3
#define CACHE_GAP        64
#define CACHE_RATIO      1.5
#define PREBLE_SHARE     0.5
#define PREBLE_RATIO     1.5

/* ---- what a policy looks at ---- */

enum reads { READS_NOTHING, READS_KEY /* the hashes, but no index */, READS_HEAD, READS_ALL };
static const enum reads reads[N_SCHED_POLICIES] = {
    [SCHED_PREFIX_CACHE] = READS_ALL,   [SCHED_SESSION_HASH] = READS_KEY, [SCHED_REFERENCE] = READS_HEAD,
    [SCHED_REFERENCE_DEEP] = READS_ALL, [SCHED_CACHE_AWARE] = READS_ALL,  [SCHED_DYNAMO] = READS_ALL,
    [SCHED_LMETRIC] = READS_ALL,        [SCHED_LEAST_WORK] = READS_ALL,   [SCHED_PREBLE] = READS_ALL,
};

bool sched_policy_hashes(enum sched_policy p)
{
    return reads[p] != READS_NOTHING;
}

/* The reference takes a token for so many bytes whatever it turns out to be: the prior, not what was learnt. */
static uint32_t hashes_of_head(const struct sched *s, const struct prefix_hashes *h)
{
    double limit = REFERENCE_TOKENS * s->p.bytes_per_token * (1 + TIE);
    uint32_t lo = 0, hi = h->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi + 1) / 2;
        if ((double)prefix_bytes(h, mid) <= limit)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

uint32_t policy_hashes(const struct sched *s, const struct prefix_hashes *h)
{
    if (!h || reads[s->p.policy] < READS_HEAD)
        return 0;
    return reads[s->p.policy] == READS_HEAD ? hashes_of_head(s, h) : h->n;
}

/* Exact knowledge in the form of a match. The index still says where prompts went apart (chain). */
static const struct prefix_match *held_match(struct sched *s, const struct sched_req *r, uint32_t n)
{
    const struct prefix_match *known = prefix_index_match(s->index, r->hashes->h, n);
    struct prefix_match *m = &s->held;
    if (s->held_cap < s->cap_slots) {
        s->held_cap = s->cap_slots;
        m->slots = xrealloc(m->slots, s->held_cap * sizeof(m->slots[0]));
        m->len = xrealloc(m->len, s->held_cap * sizeof(m->len[0]));
    }
    m->n = 0;
    m->chain = known->chain;
    m->chain_n = known->chain_n;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        m->len[i] = i < r->n_held && s->eps[i].used ? MIN(r->held[i], n) : 0;
        if (m->len[i])
            m->slots[m->n++] = i;
    }
    return m;
}

const struct prefix_match *policy_match(struct sched *s, const struct sched_req *r)
{
    uint32_t n = policy_hashes(s, r->hashes);
    if (!n)
        return NULL;
    return r->held ? held_match(s, r, n) : prefix_index_match(s->index, r->hashes->h, n);
}

/* ---- choosing ---- */

static bool candidate(const struct sched *s, uint32_t slot)
{
    return s->scan.cost[slot] < INFINITY;
}

struct bounds { /* over the candidates */
    double least_waiting, most_waiting;
    uint32_t hashes; /* that the policy looks at */
};
typedef double score_fn(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot);

/* The least score; by chance among equals. */
static uint32_t least(struct sched *s, const struct pick *k, score_fn *score)
{
    struct bounds b = {.least_waiting = HUGE_VAL, .hashes = policy_hashes(s, k->r->hashes)};
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (!candidate(s, i))
            continue;
        b.least_waiting = MIN(b.least_waiting, s->eps[i].load.waiting);
        b.most_waiting = MAX(b.most_waiting, s->eps[i].load.waiting);
    }
    double best = HUGE_VAL;
    uint32_t slot = NO_SLOT, n = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (!candidate(s, i))
            continue;
        double v = score(s, k, &b, i), band = slot == NO_SLOT ? 0 : TIE * MAX(1.0, fabs(best));
        if (v < best - band) {
            best = v;
            slot = i;
            n = 1;
        } else if (v <= best + band && rng_below(&s->rng, ++n) == 0) {
            slot = i;
        }
    }
    return slot;
}

static uint32_t any(struct sched *s, const struct pick *k)
{
    uint64_t left = rng_below(&s->rng, k->n);
    uint32_t slot = 0;
    while (!candidate(s, slot) || left-- > 0)
        slot++;
    return slot;
}

static double requests(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    (void)k;
    (void)b;
    return (double)s->eps[slot].own.inflight;
}

/* Rendezvous hashing: a key's order of preference over the endpoints stays when others come and go. */
static uint32_t session(struct sched *s, const struct pick *k)
{
    const struct prefix_hashes *h = k->r->hashes;
    uint64_t key = h && h->n ? h->h[h->n > 1 ? 1 : 0] : k->r->id, best = 0;
    uint32_t slot = NO_SLOT;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        uint64_t v = hash_mix(key, hash_mix(i, 1));
        if (candidate(s, i) && (slot == NO_SLOT || v > best)) {
            best = v;
            slot = i;
        }
    }
    return slot;
}

/* ---- reference picker ---- */

static double reference(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    const struct ep *e = &s->eps[slot]; /* nothing scraped yet: 0 */
    uint32_t len = pick_matched(s, k, slot);
    double spread = b->most_waiting - b->least_waiting;
    double queue = spread > 0 ? (b->most_waiting - e->load.waiting) / spread : 1;
    double share = len ? (double)prefix_bytes(k->r->hashes, len) / (double)prefix_bytes(k->r->hashes, b->hashes) : 0;
    return -(QUEUE_WEIGHT * queue + KV_WEIGHT * (1 - e->load.kv_frac) + PREFIX_WEIGHT * share);
}

/* ---- SGLang router ---- */

static uint32_t fewest_requests(const struct sched *s)
{
    uint32_t best = NO_SLOT;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (!candidate(s, i))
            continue;
        const struct ep *e = &s->eps[i], *b = best == NO_SLOT ? NULL : &s->eps[best];
        if (!b || e->own.inflight < b->own.inflight || (e->own.inflight == b->own.inflight && e->picks < b->picks))
            best = i;
    }
    return best;
}

static bool unbalanced(const struct sched *s)
{
    uint32_t lo = UINT32_MAX, hi = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (!candidate(s, i))
            continue;
        lo = MIN(lo, s->eps[i].own.inflight);
        hi = MAX(hi, s->eps[i].own.inflight);
    }
    return hi - lo > CACHE_GAP && (double)hi > CACHE_RATIO * (double)lo;
}

/* Longest match among the candidates. */
static uint32_t longest(const struct sched *s, const struct pick *k)
{
    uint32_t len = 0;
    for (uint32_t i = 0; k->match && i < k->match->n; i++)
        if (candidate(s, k->match->slots[i]))
            len = MAX(len, k->match->len[k->match->slots[i]]);
    return len;
}

/* Of those that hold the first `len` blocks the one that was sent the last of them most recently. */
static uint32_t latest_user(struct sched *s, const struct pick *k, uint32_t len)
{
    struct ep_ref user;
    if (sessions_get(s->users, k->r->hashes->h[len - 1], &user.slot, &user.gen) && ep_of(s, user) &&
        candidate(s, user.slot) && k->match->len[user.slot] == len)
        return user.slot;
    uint32_t best = NO_SLOT;
    for (uint32_t i = 0; i < k->match->n; i++) {
        uint32_t slot = k->match->slots[i];
        if (candidate(s, slot) && k->match->len[slot] == len &&
            (best == NO_SLOT || s->eps[slot].last_pick > s->eps[best].last_pick))
            best = slot;
    }
    return best;
}

static uint32_t cache_aware(struct sched *s, const struct pick *k)
{
    uint32_t len = longest(s, k);
    if (unbalanced(s) || !len || (double)prefix_bytes(k->r->hashes, len) <= CACHE_SHARE * k->w.stream_bytes)
        return fewest_requests(s);
    return latest_user(s, k, len);
}

/* ---- tokens to compute ---- */

static double work(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    (void)b;
    return s->eps[slot].own.pending_tokens + MAX(1.0, k->w.tokens - pick_cached(s, k, slot));
}

static double work_times_requests(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    return work(s, k, b, slot) * ((double)s->eps[slot].own.inflight + 1);
}

/* ---- Dynamo ---- */

static double block_bytes(const struct sched *s, const struct prefix_hashes *h)
{
    uint32_t n = h && h->n ? h->block_bytes : s->p.block_bytes;
    return n ? (double)n : 64;
}

static double blocks(const struct prefix_hashes *h, uint32_t n)
{
    return n ? (double)(prefix_bytes(h, n) / h->block_bytes) : 0;
}

/* Of the prompt behind its last hash: only this request has them. */
static double blocks_behind(const struct sched *s, const struct prefix_hashes *h, double stream_bytes)
{
    return ceil(stream_bytes / block_bytes(s, h)) - (h ? blocks(h, h->n) : 0);
}

/* Hashes of the prompt that are active there: always the first so many, as every request has a whole chain. */
static uint32_t active_hashes(const struct sched *s, const struct prefix_hashes *h, struct ep_ref ep)
{
    uint32_t lo = 0, hi = h ? h->n : 0;
    if (!hi || !active_has(s->active, h->h[0], ep.slot, ep.gen)) /* nearly everywhere */
        return 0;
    while (lo < hi) {
        uint32_t mid = (lo + hi + 1) / 2;
        if (active_has(s->active, h->h[mid - 1], ep.slot, ep.gen))
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

static double dynamo(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    (void)b;
    const struct prefix_hashes *h = k->r->hashes;
    double all = blocks_behind(s, h, k->w.stream_bytes) + (h ? blocks(h, h->n) : 0);
    double pending = s->eps[slot].own.pending_tokens * s->bytes_per_token / block_bytes(s, h);
    double fresh = all - blocks(h, pick_matched(s, k, slot));
    double added = all - blocks(h, active_hashes(s, h, ep_ref_of(s, slot)));
    return pending + fresh + s->eps[slot].active_blocks + added;
}

static void count_active(struct sched *s, struct sched_req *r)
{
    const struct prefix_hashes *h = r->hashes;
    struct ep *e = &s->eps[r->d.ep.slot];
    r->counted = s->baseline_epoch;
    e->active_blocks += blocks_behind(s, h, (double)r->d.stream_bytes);
    for (uint32_t i = 0; h && i < h->n; i++)
        if (active_add(s->active, h->h[i], r->d.ep.slot, r->d.ep.gen))
            e->active_blocks += blocks(h, i + 1) - blocks(h, i);
}

static void uncount_active(struct sched *s, struct sched_req *r)
{
    const struct prefix_hashes *h = r->hashes;
    struct ep *e = ep_of(s, r->d.ep);
    double less = blocks_behind(s, h, (double)r->d.stream_bytes);
    for (uint32_t i = 0; h && i < h->n; i++)
        if (active_del(s->active, h->h[i], r->d.ep.slot, r->d.ep.gen))
            less += blocks(h, i + 1) - blocks(h, i);
    if (e)
        e->active_blocks = MAX(0, e->active_blocks - less);
}

/* ---- Preble's E2 ---- */

static void window_advance(const struct sched *s, struct work_window *w)
{
    uint64_t now = s->now_us / WORK_SLOT_US;
    for (uint64_t n = MIN(now - w->at, (uint64_t)WORK_SLOTS), i = 0; i < n; i++)
        w->prefill_s[(now - i) % WORK_SLOTS] = 0;
    w->at = now;
}

/* L: work of the last three minutes: prefill that was missing there + what those in flight will decode. */
static double preble_load(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    double sum = 0, token_s = s->p.step_s + s->p.decode_s * (double)e->own.decoding + s->p.ctx_s * e->own.context;
    window_advance(s, &e->work);
    for (uint32_t i = 0; i < WORK_SLOTS; i++)
        sum += e->work.prefill_s[i];
    return sum + e->own.out * token_s;
}

/* L + M + P. P: prefill of what is missing. M, the cost of what this evicts, is simplified: what does not fit beside
 * the requests in flight, at the price of computing it again once. */
static double preble_cost(struct sched *s, const struct pick *k, const struct bounds *b, uint32_t slot)
{
    (void)b;
    const struct ep *e = &s->eps[slot];
    double fresh = MAX(1.0, k->w.tokens - pick_cached(s, k, slot)), kv = ep_kv_tokens(s, e);
    double over = MIN(fresh, MAX(0, ep_kv_use(s, e) * kv + fresh + k->w.out / 2 - kv));
    return preble_load(s, slot) + work_prefill_s(s, over, over) + work_prefill_s(s, fresh, k->w.tokens);
}

static uint32_t lightest_holder(struct sched *s, const struct pick *k, uint32_t len)
{
    uint32_t best = NO_SLOT;
    for (uint32_t i = 0; i < k->match->n; i++) {
        uint32_t slot = k->match->slots[i];
        if (candidate(s, slot) && k->match->len[slot] == len &&
            (best == NO_SLOT || preble_load(s, slot) < preble_load(s, best)))
            best = slot;
    }
    return best;
}

/* Where more than half is cached it goes there; else where it costs least. What would go to the most loaded goes to the
 * least loaded when they are too far apart: judged at every pick (the original does every ten seconds), and only when
 * the difference is more than this prompt's whole prefill, or an idle pool would tear conversations apart. */
static uint32_t preble(struct sched *s, const struct pick *k)
{
    uint32_t len = longest(s, k), light = NO_SLOT, holder;
    double lo = HUGE_VAL, hi = 0;
    if (!len || (double)prefix_bytes(k->r->hashes, len) <= PREBLE_SHARE * k->w.stream_bytes)
        return least(s, k, preble_cost);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (!candidate(s, i))
            continue;
        double load = preble_load(s, i);
        hi = MAX(hi, load);
        if (load < lo) {
            lo = load;
            light = i;
        }
    }
    holder = lightest_holder(s, k, len);
    double full = work_prefill_s(s, k->w.tokens, k->w.tokens);
    return preble_load(s, holder) >= hi && hi > PREBLE_RATIO * lo && hi - lo > full ? light : holder;
}

/* ---- hooks ---- */

bool baseline_choose(struct sched *s, struct pick *k)
{
    switch (s->p.policy) {
    case SCHED_RANDOM:
        k->slot = any(s, k);
        break;
    case SCHED_LEAST_REQUEST:
        k->slot = least(s, k, requests);
        break;
    case SCHED_SESSION_HASH:
        k->slot = session(s, k);
        break;
    case SCHED_REFERENCE:
    case SCHED_REFERENCE_DEEP:
    case SCHED_REFERENCE_LOAD:
        k->slot = least(s, k, reference);
        break;
    case SCHED_CACHE_AWARE:
        k->slot = cache_aware(s, k);
        break;
    case SCHED_DYNAMO:
        k->slot = least(s, k, dynamo);
        break;
    case SCHED_LMETRIC:
        k->slot = least(s, k, work_times_requests);
        break;
    case SCHED_LEAST_WORK:
        k->slot = least(s, k, work);
        break;
    case SCHED_PREBLE:
        k->slot = preble(s, k);
        break;
    case SCHED_DEFAULT:
    case SCHED_PREFIX_CACHE:
    case SCHED_ROUND_ROBIN:
    case N_SCHED_POLICIES:
        return false;
    }
    k->reason = REASON_POLICY;
    return true;
}

void baseline_computes(struct sched *s, struct sched_req *r)
{
    struct ep *e = &s->eps[r->d.ep.slot];
    if (s->p.policy != SCHED_PREBLE)
        return;
    window_advance(s, &e->work);
    e->work.prefill_s[e->work.at % WORK_SLOTS] += r->prefill_s;
}

void baseline_sent(struct sched *s, struct sched_req *r)
{
    if (s->p.policy == SCHED_DYNAMO)
        count_active(s, r);
    baseline_computes(s, r);
    if (s->p.policy == SCHED_CACHE_AWARE)
        for (uint32_t i = 0; r->hashes && i < r->hashes->n; i++)
            sessions_put(s->users, r->hashes->h[i], r->d.ep.slot, r->d.ep.gen);
}

void baseline_done(struct sched *s, struct sched_req *r)
{
    if (r->counted && r->counted == s->baseline_epoch)
        uncount_active(s, r);
    r->counted = 0;
}

/* Requests in flight under the policy before are not counted by the new one: it begins with what it sends itself. */
void baseline_switch(struct sched *s)
{
    baseline_free(s);
    s->baseline_epoch++;
    s->active = s->p.policy == SCHED_DYNAMO ? active_new(hash_mix(s->seed, s->baseline_epoch)) : NULL;
    s->users = s->p.policy == SCHED_CACHE_AWARE ? sessions_new() : NULL;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->eps[i].active_blocks = 0;
        s->eps[i].work = (struct work_window){0};
    }
}

void baseline_free(struct sched *s)
{
    active_free(s->active);
    s->active = NULL;
    if (s->users)
        sessions_free(s->users);
    s->users = NULL;
}
