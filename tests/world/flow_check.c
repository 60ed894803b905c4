/* The model of the header's promises. Nothing here looks into the scheduler: who may go where follows from the requests
 * and the views, who must go first from priorities, order of arrival and service, who may be refused from the
 * configuration. */
#include "flow.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define KV_DUST 1e-6

void flow_broken(const struct flow_world *w, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(stderr, "broken promise (check in line %d): ", line);
    (void)vfprintf(stderr, fmt, ap);
    (void)fprintf(stderr, "\n  at event %llu (%s), %.6f s. Again: --seed %llu --seeds 1\n",
                  (unsigned long long)w->n_events, w->what, (double)w->now * 1e-6, (unsigned long long)w->seed);
    va_end(ap);
    exit(1);
}

/* "17 (priority 0, flow 3, ...)"; two at a time */
static const char *name_of(const struct flow_req *q)
{
    static char text[2][200];
    static int turn;
    char *t = text[turn++ & 1];
    (void)snprintf(t, sizeof(text[0]), "%llu (number %llu, priority %d, flow %llu, model %llu, %u tried%s%s)",
                   (unsigned long long)q->r.id, (unsigned long long)q->order, q->r.priority,
                   (unsigned long long)q->r.flow, (unsigned long long)q->r.model, q->r.n_tried,
                   q->r.pinned.gen ? ", pinned" : "", q->r.hashes ? ", with a prefix" : "");
    return t;
}

/* ---- lists ---- */

void flow_list_add(uint32_t *list, uint32_t *n, uint32_t i)
{
    list[(*n)++] = i;
}

void flow_list_del(uint32_t *list, uint32_t *n, uint32_t i)
{
    for (uint32_t k = 0; k < *n; k++)
        if (list[k] == i) {
            list[k] = list[--*n];
            return;
        }
}

/* ---- facts about requests ---- */

uint64_t flow_deadline(const struct flow_world *w, const struct flow_req *q)
{
    uint64_t ttl = q->r.ttl_us ? q->r.ttl_us : w->p.queue_ttl_us;
    return q->pushed_us + (ttl > q->waited_us ? ttl - q->waited_us : 0);
}

double flow_weight(const struct flow_world *w, uint64_t flow)
{
    for (uint32_t i = 0; i < w->p.n_flow_weights; i++)
        if (w->p.flow_weights[i].flow == flow)
            return w->p.flow_weights[i].weight;
    return 1;
}

static bool tried(const struct sched_req *r, struct ep_ref ep)
{
    for (uint32_t i = 0; i < r->n_tried; i++)
        if (r->tried[i].slot == ep.slot && r->tried[i].gen == ep.gen)
            return true;
    return false;
}

static bool serves(const struct flow_ep *e, uint64_t model)
{
    return !e->models || (e->models & BIT(model));
}

/* Slots this request may use: a pinned one alone while that is usable; else all that serve its model, all of them where
 * nobody is known to. */
static uint64_t allowed(const struct flow_world *w, struct flow_req *q)
{
    if (q->allowed_version == w->version)
        return q->allowed;
    uint64_t all = 0, serving = 0, pinned = 0;
    bool known = false;
    for (uint32_t k = 0; k < FLOW_EPS; k++) {
        const struct flow_ep *e = &w->ep[k];
        if (!e->used)
            continue;
        bool fits = !q->r.model || serves(e, q->r.model);
        known = known || fits;
        if (!w->slot[e->ref.slot].usable || tried(&q->r, e->ref))
            continue;
        all |= 1ull << e->ref.slot;
        serving |= fits ? 1ull << e->ref.slot : 0;
        if (q->r.pinned.gen && q->r.pinned.slot == e->ref.slot && q->r.pinned.gen == e->ref.gen)
            pinned = 1ull << e->ref.slot;
    }
    q->allowed = pinned ? pinned : known ? serving : all;
    q->allowed_version = w->version;
    return q->allowed;
}

/* A retry for which there is no endpoint left: all that are not to go have failed it already, or do not serve its
 * model. */
static bool failed_by_all(const struct flow_world *w, const struct flow_req *q)
{
    bool known = !q->r.model, any = false, all = true, serving = true;
    for (uint32_t k = 0; k < FLOW_EPS; k++) {
        const struct flow_ep *e = &w->ep[k];
        if (!e->used)
            continue;
        bool left = !w->slot[e->ref.slot].draining && !tried(&q->r, e->ref),
             fits = !q->r.model || serves(e, q->r.model);
        any = true;
        known = known || fits;
        all = all && !left;
        serving = serving && !(left && fits);
    }
    return q->r.n_tried && any && (known ? serving : all);
}

/* It may wait although there is room: for the holder of its prefix, or for an adapter slot. */
static bool own_choice(const struct flow_world *w, const struct flow_req *q)
{
    return (w->p.prefix_wait_us && q->r.hashes) || (w->adapters && q->r.model == FLOW_MODELS);
}

static bool unconstrained(const struct flow_world *w, const struct flow_req *q)
{
    return !q->r.model && !q->r.pinned.gen && !q->r.n_tried && !own_choice(w, q);
}

static uint32_t band_of(const struct flow_req *q)
{
    return (uint32_t)(q->r.priority + FLOW_PRIOS / 2);
}

/* ---- views ---- */

void flow_look(struct flow_world *w)
{
    bool changed = false;
    w->n_slots = sched_ep_slots(w->s);
    MUST(w, w->n_slots <= FLOW_SLOTS, "%u slots for %u endpoints", w->n_slots, FLOW_EPS);
    for (uint32_t i = 0; i < w->n_slots; i++) {
        struct flow_slot *sl = &w->slot[i], was = *sl;
        struct ep_view v;
        *sl = (struct flow_slot){.used = sched_ep_view(w->s, i, w->now, &v)};
        if (sl->used) {
            sl->usable = v.ready && !v.ejected && !v.draining;
            sl->ejected = v.ready && v.ejected && !v.draining;
            sl->draining = v.draining;
            sl->waiting = v.waiting;
            sl->kv_use = v.kv_use;
            sl->full = v.waiting > (double)w->p.queue_threshold || v.kv_use > w->p.kv_threshold;
            MUST(w, sl->full == v.full, "slot %u: full is %d, but waiting %g of %u, KV %g of %g", i, v.full, v.waiting,
                 w->p.queue_threshold, v.kv_use, w->p.kv_threshold);
        }
        changed = changed || was.usable != sl->usable || was.used != sl->used;
    }
    w->version += changed;
}

/* ---- direction ---- */

static uint64_t waited(const struct flow_world *w, const struct flow_req *q)
{
    return q->waited_us + (w->now - q->pushed_us);
}

void flow_direction(struct flow_world *w)
{
    struct sched_stats st;
    sched_stats(w->s, w->now, &st);
    bool late = false, early = false, emptied = true, adaptive = w->p.queue_order == ORDER_ADAPTIVE;
    MUST(w, adaptive || !st.newest_first, "the newest go first, but that is not the order configured");
    if (!adaptive)
        w->reversed_us = 0;
    if (st.newest_first == w->newest_first)
        return;
    for (uint32_t k = 0; k < w->n_waiting; k++) {
        const struct flow_req *q = &w->q[w->waiting[k]];
        bool long_enough = waited(w, q) > w->p.queue_late_us;
        late = late || long_enough;
        early = early || !long_enough;
        emptied = emptied && (q->reserved_verb == w->verb || w->waiting[k] + 1 == w->newcomer);
    }
    w->newest_first = st.newest_first;
    emptied = !st.newest_first && (emptied || !st.queued); /* in this verb: then all are served, whatever the order */
    if (!adaptive)
        return;
    MUST(w, st.newest_first ? late : early || emptied, "newest first: %d, but of %u that wait %s has waited %g s", st.newest_first,
         w->n_waiting, st.newest_first ? "nobody" : "each", (double)w->p.queue_late_us * 1e-6);
    MUST(w, emptied || !w->reversed_us || w->now - w->reversed_us >= w->p.queue_late_us / 2,
         "turned round again after %g s", (double)(w->now - w->reversed_us) * 1e-6);
    w->reversed_us = w->now;
    w->n_reversed++;
}

/* After a tick that changed nothing else: what the earliest has waited decides, unless the last change is too fresh. */
static void right_direction(const struct flow_world *w)
{
    const struct flow_req *first = NULL;
    for (uint32_t k = 0; k < w->n_waiting; k++)
        if (!first || w->q[w->waiting[k]].order < first->order)
            first = &w->q[w->waiting[k]];
    if (w->p.queue_order != ORDER_ADAPTIVE || (w->reversed_us && w->now - w->reversed_us < w->p.queue_late_us / 2))
        return;
    bool late = first && waited(w, first) > w->p.queue_late_us;
    MUST(w, w->newest_first == late, "newest first: %d, but the earliest of %u has waited %g s, the limit is %g s",
         w->newest_first, w->n_waiting, first ? (double)waited(w, first) * 1e-6 : 0, (double)w->p.queue_late_us * 1e-6);
}

/* ---- fairness ---- */

void flow_forget_pairs(struct flow_world *w)
{
    memset(w->pair, 0, sizeof(w->pair));
}

static struct flow_pair *pair_of(struct flow_world *w, uint32_t band, uint32_t a, uint32_t b)
{
    return a < b ? &w->pair[band][a][b] : &w->pair[band][b][a];
}

static double charge(const struct flow_req *q)
{
    return q->r.tokens + 2 * q->r.out_tokens;
}

static double bound_of(const struct flow_world *w, const struct flow_pair *pr, uint32_t band)
{
    return w->exact ? 2 * w->largest[band] : 4 * w->largest[band] + 2 * pr->owed;
}

static void judge_pair(struct flow_world *w, uint32_t band, uint32_t f, uint32_t g)
{
    const struct flow_pair *pr = pair_of(w, band, f, g);
    double bound = bound_of(w, pr, band), range = MAX(pr->rise[0], pr->rise[1]);
    if (!pr->on || bound <= 0)
        return;
    w->n_pair_checks++;
    if (range > bound * (1 + 1e-9) + 1)
        (void)snprintf(
            w->unfair, sizeof(w->unfair),
            "flows %u and %u of priority %d: service per weight drifted by %g, largest charge %g, too little %g", f, g,
            (int)band - FLOW_PRIOS / 2, range, w->largest[band], pr->owed);
    else
        w->worst_pair[w->exact] = MAX(w->worst_pair[w->exact], range / bound);
}

/* By how much one has gained on the other, at the most, over any stretch of time. */
static void pair_rise(struct flow_pair *pr, bool second, double by)
{
    pr->gain[second] += by;
    pr->least[second] = MIN(pr->least[second], pr->gain[second]);
    pr->rise[second] = MAX(pr->rise[second], pr->gain[second] - pr->least[second]);
}

static void pairs_service(struct flow_world *w, struct flow_req *q)
{
    uint32_t band = band_of(q), f = (uint32_t)q->r.flow;
    double weight = flow_weight(w, f), c = charge(q) / weight, real = q->real / weight;
    w->owed[band][f] += MAX(0, q->real - charge(q));
    for (uint32_t g = 0; g < FLOW_FLOWS; g++) {
        struct flow_pair *pr = pair_of(w, band, f, g);
        if (f == g || !pr->on)
            continue;
        pair_rise(pr, f > g, real);
        pair_rise(pr, f < g, -MAX(real, c));
        pr->owed = MAX(pr->owed, MAX(w->owed[band][f] / weight, w->owed[band][g] / flow_weight(w, g)));
        judge_pair(w, band, f, g);
    }
}

void flow_served(struct flow_world *w, struct flow_req *q)
{
    w->owed[band_of(q)][q->r.flow] = MAX(0, w->owed[band_of(q)][q->r.flow] - MAX(0, q->real - charge(q)));
}

/* The interval of a flow is over or has not begun: its pairs are off unless both wait. */
static void pairs_switch(struct flow_world *w, uint32_t band, uint32_t f)
{
    for (uint32_t g = 0; g < FLOW_FLOWS; g++) {
        struct flow_pair *pr = pair_of(w, band, f, g);
        bool on = f != g && w->backlog[band][f] && w->backlog[band][g];
        if (on != pr->on)
            *pr = (struct flow_pair){.on = on};
    }
}

static void backlog_add(struct flow_world *w, struct flow_req *q)
{
    q->counted = unconstrained(w, q);
    if (!q->counted)
        return;
    w->backlog[band_of(q)][q->r.flow]++;
    pairs_switch(w, band_of(q), (uint32_t)q->r.flow);
}

static void backlog_del(struct flow_world *w, struct flow_req *q)
{
    if (!q->counted)
        return;
    q->counted = false;
    w->backlog[band_of(q)][q->r.flow]--;
    pairs_switch(w, band_of(q), (uint32_t)q->r.flow);
}

void flow_backlogs(struct flow_world *w)
{
    memset(w->pair, 0, sizeof(w->pair));
    memset(w->backlog, 0, sizeof(w->backlog));
    for (uint32_t k = 0; k < w->n_waiting; k++)
        backlog_add(w, &w->q[w->waiting[k]]);
}

/* ---- who waits ---- */

static void wait_add(struct flow_world *w, uint32_t i)
{
    struct flow_req *q = &w->q[i];
    q->state = FLOW_WAITING;
    q->beside_us = 0;
    q->at_waiting = w->n_waiting;
    w->waiting[w->n_waiting++] = i;
    w->waiting_bytes += q->r.prompt_bytes;
    backlog_add(w, q);
}

void flow_unwait(struct flow_world *w, uint32_t i)
{
    struct flow_req *q = &w->q[i], *last = &w->q[w->waiting[w->n_waiting - 1]];
    w->waiting[q->at_waiting] = w->waiting[--w->n_waiting];
    last->at_waiting = q->at_waiting;
    w->waiting_bytes -= q->r.prompt_bytes;
    backlog_del(w, q);
}

/* ---- at each pick ---- */

static bool earlier(const struct flow_world *w, const struct flow_req *a, const struct flow_req *b)
{
    if (w->p.queue_order == ORDER_DEADLINE)
        return flow_deadline(w, a) < flow_deadline(w, b);
    return w->newest_first ? a->order > b->order : a->order < b->order;
}

static void doubt(struct flow_world *w, uint32_t over, uint32_t got, const char *why)
{
    if (w->n_doubts == ARRAY_LEN(w->doubt))
        return;
    w->doubt[w->n_doubts].over = over;
    w->doubt[w->n_doubts].got = got;
    w->doubt[w->n_doubts++].why = why;
}

/* Nobody with a better claim to this very endpoint is waiting. */
static void nobody_passed_over(struct flow_world *w, uint32_t got, uint32_t slot)
{
    struct flow_req *q = &w->q[got];
    for (uint32_t k = 0; k < w->n_waiting; k++) {
        struct flow_req *o = &w->q[w->waiting[k]];
        if (o == q || o->reserved_verb == w->verb || o->r.priority < q->r.priority || own_choice(w, o) ||
            !(allowed(w, o) >> slot & 1))
            continue;
        if (o->r.priority > q->r.priority)
            doubt(w, w->waiting[k], got, "a higher priority waits");
        else if (o->r.flow == q->r.flow && earlier(w, o, q) && !own_choice(w, q))
            doubt(w, w->waiting[k], got, "an earlier one of its flow waits");
    }
}

static void had_room(struct flow_world *w, const struct flow_req *q, struct flow_slot before, uint32_t slot, bool sure)
{
    const struct flow_slot *now = &w->slot[slot];
    struct ep_view v;
    MUST(w, sched_ep_view(w->s, slot, w->now, &v), "picked an endpoint that is not there");
    if (sure)
        MUST(w, !before.full, "request to slot %u that is full: waiting %g of %u, KV %g of %g", slot, before.waiting,
             w->p.queue_threshold, before.kv_use, w->p.kv_threshold);
    double kv = now->kv_use - (q->r.uncached_tokens + q->r.out_tokens / 2) / (double)v.kv_tokens;
    MUST(w, kv <= w->p.kv_threshold + KV_DUST, "request to slot %u with KV at %g of %g", slot, kv, w->p.kv_threshold);
}

static void on_reserve(struct flow_world *w, const struct sched_event *ev)
{
    uint32_t i = (uint32_t)(ev->req_id % FLOW_REQS), slot = ev->ep.slot;
    struct flow_req *q = &w->q[i];
    MUST(w, q->r.id == ev->req_id, "an event of a request that is over");
    MUST(w, q->reserved_verb != w->verb && (q->state == FLOW_WAITING || w->in_submit == i + 1), "picked twice");
    struct flow_slot before = w->slot[slot];
    flow_look(w);
    flow_direction(w);
    w->n_newest += w->newest_first;
    q->reserved_verb = w->verb;
    q->fails = !w->exact && rng_unit(&w->rng) < 0.07;
    q->real = w->exact ? charge(q) : q->fails ? 0 : floor(1 + charge(q) * exp(2 * rng_unit(&w->rng) - 1));
    bool fallback = q->r.d.reason == REASON_ALL_EJECTED;
    w->n_fallback += fallback;
    bool forced = fallback || w->draining_queue || !w->p.queueing;
    MUST(w, fallback || (allowed(w, q) >> slot & 1), "%s to slot %u that it must not use", name_of(q), slot);
    MUST(w, (q->r.d.reason != REASON_DRAINED) || w->draining_queue, "drained while queueing is on");
    if (!forced)
        had_room(w, q, before, slot, w->picked_slots >> slot & 1 || w->settled_time);
    if (!fallback)
        nobody_passed_over(w, i, slot);
    w->picked_slots |= 1ull << slot;
    w->largest[band_of(q)] = MAX(w->largest[band_of(q)], charge(q) / flow_weight(w, q->r.flow));
    if (!forced)
        pairs_service(w, q);
    backlog_del(w, q);
}

static void on_event(void *ctx, const struct sched_event *ev)
{
    if (ev->type == EV_EP_ADD) /* it may be picked before sched_ep_add returns */
        ((struct flow_ep *)ev->user)->ref = ev->ep;
    if (ev->type == EV_RESERVE)
        on_reserve(ctx, ev);
}

void flow_watch(struct flow_world *w)
{
    sched_on_event(w->s, on_event, w);
}

/* ---- after each verb ---- */

void flow_begin(struct flow_world *w, const char *what)
{
    w->what = what;
    w->verb++;
    w->n_events++;
    w->n_doubts = w->n_full_now = w->n_left = w->n_reserved = w->newcomer = 0;
    w->picked_slots = 0;
    sched_stats(w->s, w->now, &w->before);
}

static void digest(struct flow_world *w, uint64_t v)
{
    w->digest = (w->digest ^ v) * 0x9e3779b97f4a7c15ull;
    w->digest ^= w->digest >> 29;
}

static void takes_off(struct flow_world *w, uint32_t i)
{
    struct flow_req *q = &w->q[i];
    struct flow_ep *e = q->r.d.user;
    MUST(w, q->reserved_verb == w->verb, "handed out as picked, but no reservation was made");
    MUST(w, q->r.d.reject == REJECT_NONE, "picked and rejected");
    MUST(w, e && e->used && e->ref.slot == q->r.d.ep.slot && e->ref.gen == q->r.d.ep.gen,
         "to an endpoint that is gone");
    q->state = FLOW_FLYING;
    q->ep = (uint32_t)(e - w->ep);
    flow_list_add(w->flying, &w->n_flying, i);
    e->flying++;
    e->mem += q->r.tokens + q->r.out_tokens / 2;
    w->n_picked++;
    w->n_reserved++;
    digest(w, q->r.id * 131 + q->r.d.ep.slot);
}

static void ends(struct flow_world *w, uint32_t i)
{
    struct flow_req *q = &w->q[i];
    MUST(w, q->reserved_verb != w->verb, "rejected, but an endpoint is reserved");
    MUST(w, q->r.d.reject > REJECT_NONE && q->r.d.reject < N_SCHED_REJECTS, "rejected without a reason");
    MUST(w, q->r.d.retry_after_s >= 0 && isfinite(q->r.d.retry_after_s), "retry after %g s", q->r.d.retry_after_s);
    q->ended_verb = w->verb;
    q->state = FLOW_FREE;
    w->free_list[w->n_free++] = i;
    w->n_rejected[q->r.d.reject]++;
    digest(w, q->r.id * 131 + 77 + (uint64_t)q->r.d.reject);
}

/* Why requests that waited are turned away. */
static void rejected_rightly(struct flow_world *w, struct flow_req *q)
{
    bool over = w->now >= flow_deadline(w, q);
    switch (q->r.d.reject) {
    case REJECT_QUEUE_TIMEOUT:
        MUST(w, over, "timed out %g s too early", (double)(flow_deadline(w, q) - w->now) * 1e-6);
        return;
    case REJECT_NO_ENDPOINT:
        MUST(w, over || !w->p.queueing, "no endpoint, %g s before its time",
             (double)(flow_deadline(w, q) - w->now) * 1e-6);
        MUST(w, over || !allowed(w, q), "no endpoint, but there is one");
        return;
    case REJECT_QUEUE_FULL:
        w->full_now[w->n_full_now++] = (uint32_t)(q - w->q);
        return;
    default:
        flow_broken(w, __LINE__, "a waiting request was rejected: %s", sched_reject_name(q->r.d.reject));
    }
}

static void one_decided(struct flow_world *w, struct flow_req *q)
{
    uint32_t i = (uint32_t)(q - w->q);
    flow_unwait(w, i);
    if (q->r.d.reject == REJECT_NONE) {
        q->waited_us += w->now - q->pushed_us;
        takes_off(w, i);
        MUST(w, q->r.d.queued_us == MAX(q->waited_us, 1), "says it waited %llu us, it was %llu",
             (unsigned long long)q->r.d.queued_us, (unsigned long long)q->waited_us);
        w->n_from_queue++;
        w->n_left++;
        return;
    }
    rejected_rightly(w, q);
    ends(w, i);
    w->n_left += q->r.d.reject != REJECT_QUEUE_FULL;
}

static void collect(struct flow_world *w)
{
    struct sched_req *r, *all[FLOW_REQS];
    uint32_t n = 0, rejected = 0;
    while ((r = sched_next_decided(w->s))) {
        struct flow_req *q = &w->q[r->id % FLOW_REQS];
        MUST(w, r == &q->r && q->state == FLOW_WAITING && n < FLOW_REQS, "decided, but not waiting");
        rejected += r->d.reject != REJECT_NONE;
        all[n++] = r;
    }
    if (rejected) /* when in the verb they left is not known: services since may be with them waiting or without */
        flow_forget_pairs(w);
    MUST(w, rejected || !w->unfair[0], "%s", w->unfair);
    w->unfair[0] = 0;
    for (uint32_t k = 0; k < n; k++)
        one_decided(w, &w->q[all[k]->id % FLOW_REQS]);
    for (uint32_t b = 0; rejected && b < FLOW_PRIOS; b++)
        for (uint32_t f = 0; f < FLOW_FLOWS; f++)
            pairs_switch(w, b, f);
}

static void judge_doubts(const struct flow_world *w)
{
    for (uint32_t k = 0; k < w->n_doubts; k++) {
        const struct flow_req *o = &w->q[w->doubt[k].over], *q = &w->q[w->doubt[k].got];
        MUST(w, o->ended_verb == w->verb, "%s: %s went to slot %u, %s waits and could have gone there", w->doubt[k].why,
             name_of(q), q->r.d.ep.slot, name_of(o));
    }
}

/* ---- capacity ---- */

struct capacity {
    const struct flow_world *w;
    bool gone[FLOW_REQS];
    uint64_t n, bytes;
};

static bool worse(const struct flow_world *w, const struct flow_req *a, const struct flow_req *b)
{
    if (w->p.queue_discard == DISCARD_LOWEST_CLASS && a->r.priority != b->r.priority)
        return a->r.priority < b->r.priority;
    return a->order < b->order;
}

static bool was_waiting(const struct flow_world *w, const struct flow_req *q)
{
    return q->state == FLOW_WAITING || (q->ended_verb == w->verb && q->r.d.reject == REJECT_QUEUE_FULL);
}

/* Who goes next; NULL when nobody is left. The newcomer itself (in_submit) is not among them. */
static const struct flow_req *victim(const struct capacity *c)
{
    const struct flow_req *v = NULL;
    for (uint32_t i = 0; i < FLOW_REQS; i++) {
        const struct flow_req *q = &c->w->q[i];
        if (was_waiting(c->w, q) && !c->gone[i] && i + 1 != c->w->newcomer && (!v || worse(c->w, q, v)))
            v = q;
    }
    return v;
}

/* Those discarded by this verb are those the rule names, in a verb that did nothing else. */
static void discarded_rightly(struct flow_world *w)
{
    struct capacity c = {.w = w};
    const struct flow_req *new = w->newcomer ? &w->q[w->newcomer - 1] : NULL;
    if (new && !was_waiting(w, new))
        new = NULL;
    for (uint32_t i = 0; i < FLOW_REQS; i++)
        if (was_waiting(w, &w->q[i])) {
            c.n++;
            c.bytes += w->q[i].r.prompt_bytes;
        }
    uint32_t n = 0;
    bool refused = new && (new->r.prompt_bytes > w->p.queue_bytes || !w->p.queue_requests);
    while (!refused && (c.n > w->p.queue_requests || c.bytes > w->p.queue_bytes)) {
        const struct flow_req *v = victim(&c);
        if (new && (!v || (w->p.queue_discard == DISCARD_LOWEST_CLASS && new->r.priority < v->r.priority))) {
            refused = true;
            break;
        }
        c.gone[v - w->q] = true;
        c.n--;
        c.bytes -= v->r.prompt_bytes;
        n++;
    }
    if (refused) {
        MUST(w, w->n_full_now == 1 && w->full_now[0] + 1 == w->newcomer,
             "the newcomer is to be refused, nobody else; %u went", w->n_full_now);
        return;
    }
    MUST(w, w->n_full_now == n, "%u were discarded, the rule wants %u", w->n_full_now, n);
    for (uint32_t k = 0; k < w->n_full_now; k++)
        MUST(w, c.gone[w->full_now[k]], "%llu (priority %d) was discarded, not one the rule names",
             (unsigned long long)w->q[w->full_now[k]].r.id, w->q[w->full_now[k]].r.priority);
}

/* Said to come too late: then there must be a drain rate, and somebody ahead. (How much of the rate is left for its priority the model does not
 * follow.) */
static void refused_early_rightly(const struct flow_world *w, const struct flow_req *q, double rate)
{
    bool asked = w->p.early_refusal == EARLY_ALL || (w->p.early_refusal == EARLY_OWN && q->r.ttl_us);
    MUST(w, asked && w->p.queueing, "refused early, but that is off");
    MUST(w, rate > 0 && w->n_waiting, "refused early: %u wait, %g per second go", w->n_waiting, rate);
}

void flow_answered(struct flow_world *w, uint32_t i, enum sched_answer a)
{
    struct flow_req *q = &w->q[i];
    w->newcomer = i + 1;
    if (a == SCHED_PICKED) {
        takes_off(w, i);
        MUST(w, q->r.d.queued_us == (w->p.queueing ? q->waited_us : 0), "says it waited %llu us, it was %llu",
             (unsigned long long)q->r.d.queued_us, (unsigned long long)q->waited_us);
    } else if (a == SCHED_QUEUED) {
        MUST(w, w->p.queueing, "queued, but that is off");
        MUST(w, !failed_by_all(w, q), "a retry waits although every endpoint has failed it");
        q->pushed_us = w->now;
        wait_add(w, i);
    } else {
        enum sched_reject why = q->r.d.reject;
        q->pushed_us = w->now;
        bool over = w->now >= flow_deadline(w, q) || (why == REJECT_NO_ENDPOINT && failed_by_all(w, q));
        ends(w, i);
        MUST(w, w->p.queueing ? why != REJECT_SHED : why == REJECT_SHED || why == REJECT_NO_ENDPOINT, "rejected: %s",
             sched_reject_name(why));
        MUST(w, why != REJECT_SHED || q->r.priority < 0, "priority %d was shed", q->r.priority);
        MUST(w, (why != REJECT_QUEUE_TIMEOUT && why != REJECT_NO_ENDPOINT) || over || !w->p.queueing,
             "rejected at once: %s", sched_reject_name(why));
        w->early = why == REJECT_DEADLINE ? q : NULL;
        if (why == REJECT_QUEUE_FULL)
            w->full_now[w->n_full_now++] = i;
    }
}

static void nobody_waits_beside_room(struct flow_world *w, bool tick)
{
    uint64_t room = 0;
    for (uint32_t i = 0; i < w->n_slots; i++)
        if (w->slot[i].usable && !w->slot[i].full)
            room |= 1ull << i;
    for (uint32_t k = 0; !w->p.queueing && k < w->n_waiting; k++)
        MUST(w, !allowed(w, &w->q[w->waiting[k]]), "%s waits though queueing is off", name_of(&w->q[w->waiting[k]]));
    for (uint32_t k = 0; room && k < w->n_waiting; k++) {
        struct flow_req *q = &w->q[w->waiting[k]];
        if (!(allowed(w, q) & room))
            continue;
        MUST(w, own_choice(w, q), "%s waits, slot %d has room", name_of(q), __builtin_ctzll(allowed(w, q) & room));
        q->beside_us = q->beside_us ? q->beside_us : w->now;
        MUST(w, !tick || w->adapters || w->now < q->beside_us + FLOW_PREFIX_WAIT,
             "%llu waits for its prefix since %g s", (unsigned long long)q->r.id,
             (double)(w->now - q->beside_us) * 1e-6);
    }
}

void flow_end(struct flow_world *w, bool tick)
{
    struct sched_stats st;
    uint32_t n_out = w->n_waiting;
    flow_direction(w); /* with those who leave by this verb */
    collect(w);
    n_out -= w->n_waiting;
    judge_doubts(w);
    flow_look(w);
    sched_stats(w->s, w->now, &st);
    MUST(w, st.picks - w->before.picks == w->n_reserved, "%llu picks, %u handed out",
         (unsigned long long)(st.picks - w->before.picks), w->n_reserved);
    MUST(w, st.queued == w->n_waiting && st.queued_bytes == w->waiting_bytes,
         "%llu (%llu bytes) queued, %u (%llu) wait", (unsigned long long)st.queued, (unsigned long long)st.queued_bytes,
         w->n_waiting, (unsigned long long)w->waiting_bytes);
    MUST(w, st.inflight == w->n_flying, "%llu in flight, %u are", (unsigned long long)st.inflight, w->n_flying);
    MUST(w, w->n_waiting <= w->p.queue_requests && w->waiting_bytes <= w->p.queue_bytes,
         "%u requests, %llu bytes wait, the limits are %u and %llu", w->n_waiting, (unsigned long long)w->waiting_bytes,
         w->p.queue_requests, (unsigned long long)w->p.queue_bytes);
    nobody_waits_beside_room(w, tick);
    if (tick && !n_out)
        right_direction(w);
    if (w->early)
        refused_early_rightly(w, w->early, st.drain_per_s);
    w->early = NULL;
    if (w->n_full_now && !w->n_left)
        discarded_rightly(w);
    for (uint32_t k = 0; tick && k < w->n_waiting; k++)
        MUST(w, flow_deadline(w, &w->q[w->waiting[k]]) > w->now, "%llu waits beyond its time after a tick",
             (unsigned long long)w->q[w->waiting[k]].r.id);
}
