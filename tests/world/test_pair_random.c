/* Joined schedulers under random events, and beside them a model of what core/sched.h promises of them: who waits, who
 * flies where, with which legs. What an endpoint has in use it takes from the views. Judged: both reservations in one
 * step or none, where they may be, that nobody waits who could be placed (after every verb), that counts are exact and
 * everything is released, and that a seed repeats itself.
 *
 *   test_pair_random [--events N] [--seed S] [--seeds N] */
#include "base/rng.h"
#include "core/sched.h"
#include "lives.h"

#include <math.h>

#define REQS   64
#define EPS    5 /* of a role */
#define SLOTS  64
#define LINES  5
#define MODELS 3
#define EVENTS 1000000
#define LIFE   20000 /* events of a seed */

enum { DECODE, PREFILL, ROLES };
enum state { FREE, WAITING, FLYING, FAILED };

struct req {
    struct sched_req r, leg;
    enum state state;
    bool leg_flies, told, answered,
        leg_answered;         /* told: it is known that the KV comes, or that it never was to come */
    bool joined;              /* when it was picked */
    uint32_t ep[ROLES];       /* where; EPS: gone */
    uint64_t reserved[ROLES]; /* the verb that did it */
    struct prefix_hashes ph;
};
struct ep {
    bool used;
    struct ep_ref ref;
    uint32_t models; /* bits; 0 unknown */
};
struct world {
    uint64_t seed, now, verb, n_events, digest;
    const char *what;
    struct rng rng;
    struct sched *s[ROLES];
    struct sched_params p[ROLES];
    struct req q[REQS];
    struct ep ep[ROLES][EPS];
    const struct ep *adding; /* by the verb under way: its name is not known yet */
    uint32_t adding_role;
    bool joined, drains; /* drains: those that wait are being sent on, room or not */
    uint64_t storage[LINES][8];
    uint64_t n_split, n_local, n_queued, n_late, n_rejected[N_SCHED_REJECTS], n_no_prefill, n_here, n_parted;
};

static void broken(const struct world *w, int line, const char *why)
{
    (void)fprintf(stderr, "broken promise (check in line %d): %s\n  at event %llu (%s). Again: --seed %llu --seeds 1\n",
                  line, why, (unsigned long long)w->n_events, w->what, (unsigned long long)w->seed);
    exit(1);
}
#define MUST(w, cond) (LIKELY(cond) ? (void)0 : broken(w, __LINE__, #cond))

static uint32_t below(struct world *w, uint32_t n)
{
    return (uint32_t)rng_below(&w->rng, n);
}

static bool chance(struct world *w, double p)
{
    return rng_unit(&w->rng) < p;
}

static uint64_t between(struct world *w, uint64_t lo, uint64_t hi)
{
    return lo + rng_below(&w->rng, hi - lo + 1);
}

static bool same(struct ep_ref a, struct ep_ref b)
{
    return a.slot == b.slot && a.gen == b.gen;
}

/* ---- what may be where ---- */

static bool tried(const struct sched_req *r, struct ep_ref ep)
{
    for (uint32_t i = 0; i < r->n_tried; i++)
        if (same(r->tried[i], ep))
            return true;
    return false;
}

static struct ep_view view_of(const struct world *w, uint32_t role, struct ep_ref ref)
{
    struct ep_view v;
    MUST(w, sched_ep_view(w->s[role], ref.slot, w->now, &v) && same(v.ep, ref));
    return v;
}

static bool usable(const struct ep_view *v)
{
    return v->ready && !v->ejected && !v->draining;
}

static bool model_known(const struct world *w, uint32_t role, uint64_t model)
{
    for (uint32_t k = 0; k < EPS; k++)
        if (w->ep[role][k].used && (!w->ep[role][k].models || (w->ep[role][k].models & BIT(model))))
            return true;
    return false;
}

static bool allowed(const struct world *w, uint32_t role, const struct sched_req *r, const struct ep *e,
                    const struct ep_view *v)
{
    if (!usable(v) || tried(r, e->ref))
        return false;
    return !r->model || !e->models || (e->models & BIT(r->model)) || !model_known(w, role, r->model);
}

static bool room_in(const struct world *w, uint32_t role, const struct sched_req *r)
{
    bool pinned = false, any = false;
    for (uint32_t k = 0; k < EPS; k++) {
        const struct ep *e = &w->ep[role][k];
        if (!e->used)
            continue;
        struct ep_view v = view_of(w, role, e->ref);
        bool here = role == DECODE && same(r->pinned, e->ref) && usable(&v) && !tried(r, e->ref);
        if (here && !v.full)
            return true;
        pinned = pinned || here;
        any = any || (allowed(w, role, r, e, &v) && !v.full);
    }
    return any && !pinned;
}

/* ---- picks ---- */

static uint32_t index_of(const struct world *w, uint32_t role, struct ep_ref ref)
{
    for (uint32_t k = 0; k < EPS; k++)
        if (w->ep[role][k].used && same(w->ep[role][k].ref, ref))
            return k;
    MUST(w, w->adding && w->adding_role == role); /* the verb under way brings it */
    return (uint32_t)(w->adding - w->ep[role]);
}

static void reserved(struct world *w, uint32_t role, const struct sched_event *ev)
{
    struct req *q = &w->q[ev->req_id % REQS];
    const struct sched_req *r = role == DECODE ? &q->r : &q->leg;
    struct ep_view v = view_of(w, role, ev->ep);
    if (q->reserved[DECODE] == w->verb && role == DECODE) /* sched_prefill_here: another reservation in its place */
        return;
    q->ep[role] = index_of(w, role, ev->ep);
    q->reserved[role] = w->verb;
    w->digest = (w->digest ^ (ev->req_id << 20 | role << 16 | ev->ep.slot)) * 0x9e3779b97f4a7c15u;
    if (!w->p[DECODE].queueing || w->drains)
        return;
    MUST(w, usable(&v) && !tried(r, ev->ep));
    double own = (r->uncached_tokens + r->out_tokens / 2) / (double)v.kv_tokens;
    MUST(w, v.kv_use - own <= w->p[role].kv_threshold + 1e-6);
    if (role == DECODE && ev->split)
        MUST(w, v.waiting <= (double)w->p[role].queue_threshold);
}

static void on_event(struct world *w, uint32_t role, const struct sched_event *ev)
{
    if (ev->type == EV_RESERVE && w->what[0] != '+') /* '+': prefill_here */
        reserved(w, role, ev);
}

static void on_decode(void *ctx, const struct sched_event *ev)
{
    on_event(ctx, DECODE, ev);
}

static void on_prefill(void *ctx, const struct sched_event *ev)
{
    on_event(ctx, PREFILL, ev);
}

static void picked(struct world *w, struct req *q)
{
    MUST(w, q->reserved[DECODE] == w->verb);
    MUST(w, (q->reserved[PREFILL] == w->verb) == q->r.split);
    MUST(w, !q->r.split || (q->r.leg && w->joined));
    MUST(w, q->r.split || !q->r.leg || !q->r.must_split || !w->joined);
    MUST(w, q->r.split || !q->r.leg || !q->leg.d.ep.gen);
    MUST(w, q->r.split || !w->joined || !q->r.leg || q->r.d.local_s <= q->r.d.split_s);
    q->state = FLYING;
    q->joined = w->joined;
    q->leg_flies = q->r.split;
    q->told = !q->r.split;
    q->answered = q->leg_answered = false;
    w->n_split += q->r.split;
    w->n_local += !q->r.split;
}

static void rejected(struct world *w, struct req *q)
{
    enum sched_reject why = q->r.d.reject;
    MUST(w, why != REJECT_NONE && !q->r.split && q->reserved[DECODE] != w->verb && q->reserved[PREFILL] != w->verb);
    MUST(w, !q->r.d.no_prefill || (why == REJECT_NO_ENDPOINT && w->joined && q->r.must_split));
    w->n_rejected[why]++;
    w->n_no_prefill += q->r.d.no_prefill;
    w->digest = (w->digest ^ (q->r.id << 8 | why)) * 0x9e3779b97f4a7c15u;
    q->state = FREE;
}

/* ---- after every verb ---- */

static void collect(struct world *w)
{
    struct sched_req *r;
    MUST(w, !sched_next_decided(w->s[PREFILL]));
    while ((r = sched_next_decided(w->s[DECODE]))) {
        struct req *q = &w->q[r->id % REQS];
        MUST(w, &q->r == r && q->state == WAITING);
        w->n_late++;
        if (r->d.reject)
            rejected(w, q);
        else
            picked(w, q);
    }
}

static void count(const struct world *w)
{
    uint32_t inflight[ROLES][EPS + 1] = {{0}}, coming[ROLES][EPS + 1] = {{0}}, unanswered[ROLES][EPS + 1] = {{0}},
                                   all[ROLES] = {0}, waiting = 0;
    for (uint32_t i = 0; i < REQS; i++) {
        const struct req *q = &w->q[i];
        waiting += q->state == WAITING;
        if (q->state == FLYING) {
            inflight[DECODE][q->ep[DECODE]]++;
            unanswered[DECODE][q->ep[DECODE]] += q->told && !q->answered;
            coming[DECODE][q->ep[DECODE]] += !q->told;
            all[DECODE]++;
        }
        if (q->leg_flies) {
            inflight[PREFILL][q->ep[PREFILL]]++;
            unanswered[PREFILL][q->ep[PREFILL]] += !q->leg_answered;
            all[PREFILL]++;
        }
    }
    for (uint32_t role = 0; role < ROLES; role++) {
        struct sched_stats st;
        sched_stats(w->s[role], w->now, &st);
        MUST(w, st.inflight == all[role] && st.queued == (role == DECODE ? waiting : 0));
        for (uint32_t k = 0; k < EPS; k++) {
            if (!w->ep[role][k].used)
                continue;
            struct ep_view v = view_of(w, role, w->ep[role][k].ref);
            MUST(w,
                 v.inflight == inflight[role][k] && v.unanswered == unanswered[role][k] && v.coming == coming[role][k]);
            MUST(w, v.inflight || (v.pending_prefill_s <= 0 && v.context_tokens <= 0 && v.decode_tokens <= 0));
        }
    }
}

/* Nobody waits who could be placed. */
static void nobody_forgotten(const struct world *w)
{
    for (uint32_t i = 0; i < REQS && w->p[DECODE].queueing; i++) {
        const struct req *q = &w->q[i];
        if (q->state != WAITING || !room_in(w, DECODE, &q->r))
            continue;
        MUST(w, w->joined && q->r.leg && q->r.must_split && !room_in(w, PREFILL, &q->leg));
    }
}

static void begin(struct world *w, const char *what)
{
    w->verb++;
    w->what = what;
}

static void end(struct world *w)
{
    w->n_events++;
    collect(w);
    w->drains = w->drains && !w->p[DECODE].queueing;
    count(w);
    nobody_forgotten(w);
}

/* ---- requests ---- */

static void new_request(struct world *w, uint32_t i)
{
    struct req *q = &w->q[i];
    uint64_t id = q->r.id + REQS;
    *q = (struct req){.ep = {EPS, EPS}};
    q->r = (struct sched_req){
        .id = id / REQS * REQS + i, .n_outputs = 1, .priority = (int)below(w, 3) - 1, .flow = below(w, 3)};
    q->r.prompt_bytes = chance(w, 0.1) ? between(w, 20000, 200000) : between(w, 20, 12000);
    q->r.ttl_us = chance(w, 0.2) ? between(w, 20000, 5000000) : 0;
    q->r.max_tokens = chance(w, 0.5) ? between(w, 1, 500) : 0;
    q->r.streamed = chance(w, 0.7);
    q->r.model = chance(w, 0.3) ? 1 + below(w, MODELS) : 0;
    q->r.leg = chance(w, 0.9) ? &q->leg : NULL;
    q->r.must_split = chance(w, 0.5);
    q->leg.model = q->r.model; /* what the model here looks at while it waits */
    if (chance(w, 0.05))
        q->r.pinned = w->ep[DECODE][below(w, EPS)].ref;
    if (chance(w, 0.5)) {
        q->ph = (struct prefix_hashes){.h = w->storage[below(w, LINES)], .n = 1 + below(w, 8), .block_bytes = 64};
        q->ph.n_fine = q->ph.n;
        q->r.hashes = &q->ph;
        q->leg.hashes = chance(w, 0.9) ? &q->ph : NULL;
    }
}

static void submit(struct world *w, struct req *q)
{
    begin(w, "submit");
    enum sched_answer a = sched_submit(w->s[DECODE], &q->r, w->now);
    q->state = WAITING;
    if (a == SCHED_PICKED)
        picked(w, q);
    else if (a == SCHED_REJECTED)
        rejected(w, q);
    w->n_queued += a == SCHED_QUEUED;
    end(w);
}

static struct req *one(struct world *w, enum state st)
{
    for (uint32_t k = 0, i = below(w, REQS); k < REQS; k++, i = (i + 1) % REQS)
        if (w->q[i].state == st && (st != FREE || !w->q[i].leg_flies))
            return &w->q[i];
    return NULL;
}

static void arrive(struct world *w)
{
    struct req *q = one(w, FREE);
    if (!q)
        return;
    new_request(w, (uint32_t)(q - w->q));
    submit(w, q);
}

static void again(struct world *w)
{
    struct req *q = one(w, FAILED);
    if (q && !q->leg_flies)
        submit(w, q);
}

static void leave(struct world *w)
{
    struct req *q = one(w, WAITING);
    if (!q)
        return;
    begin(w, "cancel");
    q->state = FREE;
    sched_cancel(w->s[DECODE], &q->r, w->now);
    end(w);
}

static enum sched_outcome failure(struct world *w)
{
    static const enum sched_outcome bad[] = {OUT_CANCELLED, OUT_CONNECT_FAILED, OUT_RESET,
                                             OUT_TIMEOUT,   OUT_SERVER_ERROR,   OUT_STALE_CONN};
    return bad[below(w, ARRAY_LEN(bad))];
}

static struct sched_usage usage_of(struct world *w, const struct sched_req *r, uint64_t out)
{
    struct sched_usage u = {
        .prompt_tokens = 1 + r->prompt_bytes / 4, .completion_tokens = out, .has_cached = chance(w, 0.5)};
    u.cached_tokens = u.has_cached ? below(w, (uint32_t)u.prompt_tokens) : 0;
    return u;
}

static void finish(struct world *w)
{
    struct req *q = one(w, FLYING);
    if (!q)
        return;
    bool ok = chance(w, 0.85), retry = !ok && q->r.n_tried < 3 && chance(w, 0.7);
    enum sched_outcome how = ok ? OUT_OK : failure(w);
    struct sched_usage u = usage_of(w, &q->r, between(w, 1, 300));
    begin(w, "finish");
    q->state = retry ? FAILED : FREE;
    sched_finish(w->s[DECODE], &q->r, how, ok && chance(w, 0.8) ? &u : NULL, w->now);
    if (retry && chance(w, 0.7))
        q->r.tried[q->r.n_tried++] = q->r.d.ep;
    end(w);
}

static void first_token(struct world *w)
{
    struct req *q = one(w, FLYING);
    if (!q)
        return;
    begin(w, "first_token");
    q->told = q->answered = true;
    sched_first_token(w->s[DECODE], &q->r, w->now);
    end(w);
}

static void prefilled(struct world *w)
{
    struct req *q = one(w, FLYING);
    if (!q)
        return;
    begin(w, "prefilled");
    q->told = true;
    sched_prefilled(w->s[DECODE], &q->r, w->now);
    end(w);
}

static void leg_event(struct world *w)
{
    struct req *q = &w->q[below(w, REQS)];
    if (!q->leg_flies)
        return;
    if (!q->leg_answered && chance(w, 0.5)) {
        begin(w, "leg's first_token");
        q->leg_answered = true;
        sched_first_token(w->s[PREFILL], &q->leg, w->now);
        end(w);
        return;
    }
    bool ok = chance(w, 0.8);
    struct sched_usage u = usage_of(w, &q->r, 1);
    begin(w, "leg's finish");
    q->leg_flies = false;
    sched_finish(w->s[PREFILL], &q->leg, ok ? OUT_OK : failure(w), ok && chance(w, 0.8) ? &u : NULL, w->now);
    if (!ok && q->leg.n_tried < 3)
        q->leg.tried[q->leg.n_tried++] = q->leg.d.ep;
    end(w);
    if (ok || q->state != FLYING || chance(w, 0.3))
        return;
    begin(w, "+prefill_here");
    q->told = true;
    sched_prefill_here(w->s[DECODE], &q->r, w->now);
    MUST(w, !q->r.split);
    w->n_here++;
    end(w);
}

/* ---- endpoints ---- */

static void ep_add(struct world *w, uint32_t role, struct ep *e)
{
    if (e->used || sched_ep_slots(w->s[role]) > SLOTS / 2)
        return;
    begin(w, "ep_add");
    w->adding = e;
    w->adding_role = role;
    struct ep_ref ref = sched_ep_add(w->s[role], NULL, false, w->now);
    *e = (struct ep){.used = true, .ref = ref};
    w->adding = NULL;
    end(w);
}

static void ep_remove(struct world *w, uint32_t role, struct ep *e)
{
    if (!e->used)
        return;
    for (uint32_t i = 0; i < REQS; i++)
        if (w->q[i].ep[role] == (uint32_t)(e - w->ep[role]))
            w->q[i].ep[role] = EPS;
    begin(w, "ep_remove");
    e->used = false;
    sched_ep_remove(w->s[role], e->ref, w->now);
    end(w);
}

static void ep_models(struct world *w, uint32_t role, struct ep *e)
{
    struct sched_model m[MODELS];
    size_t n = 0;
    if (!e->used)
        return;
    e->models = chance(w, 0.5) ? 0 : (1 + below(w, BIT(MODELS) - 1)) << 1;
    for (uint64_t i = 1; i <= MODELS; i++)
        if (e->models & BIT(i))
            m[n++] = (struct sched_model){.name = i};
    begin(w, "ep_models");
    sched_ep_models(w->s[role], e->ref, m, n, w->now);
    end(w);
}

static void scrape(struct world *w, uint32_t role, struct ep *e)
{
    if (!e->used)
        return;
    struct ep_view v = view_of(w, role, e->ref);
    double others = chance(w, 0.3) ? below(w, 12) : 0;
    struct ep_load l = {.sent_us = w->now - between(w, 0, 20000),
                        .done_us = w->now,
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true};
    l.waiting = chance(w, 0.3) ? others : 0;
    l.running = v.inflight + others;
    l.kv_frac = MIN(1, 0.04 * (v.inflight + others));
    begin(w, "scrape");
    sched_ep_load(w->s[role], e->ref, &l, w->now);
    end(w);
    begin(w, "probe");
    sched_ep_probe(w->s[role], e->ref, !chance(w, 0.05), w->now - 5000, w->now);
    end(w);
}

static void drain(struct world *w, uint32_t role, struct ep *e)
{
    if (!e->used)
        return;
    begin(w, "drain");
    sched_ep_drain(w->s[role], e->ref, chance(w, 0.4), w->now);
    end(w);
}

/* ---- settings ---- */

static void join(struct world *w)
{
    begin(w, "join");
    w->joined = !w->joined || chance(w, 0.3);
    w->n_parted += !w->joined;
    sched_join(w->s[DECODE], w->joined ? w->s[PREFILL] : NULL, w->now);
    end(w);
}

static void random_params(struct world *w, struct sched_params *p)
{
    p->policy = chance(w, 0.6) ? SCHED_PREFIX_CACHE : (enum sched_policy)below(w, N_SCHED_POLICIES);
    p->queue_threshold = below(w, 4);
    p->kv_threshold = 0.3 + 0.6 * rng_unit(&w->rng);
    p->kv_tokens = between(w, 20000, 200000);
    p->queue_order = (enum sched_order)below(w, 3);
    p->queue_ttl_us = between(w, 100000, 20000000);
    p->queue_requests = (uint32_t)between(w, 5, 100);
    p->early_refusal = (enum sched_early)below(w, 3);
    p->learn_speed = chance(w, 0.7);
    p->eject_share = rng_unit(&w->rng);
    p->transfer_s = rng_unit(&w->rng) * 50e-6;
}

static void set_params(struct world *w)
{
    uint32_t role = below(w, ROLES);
    random_params(w, &w->p[role]);
    bool toggle = chance(w, 0.2), on = chance(w, 0.8);
    for (uint32_t k = 0; k < ROLES; k++) { /* both agree in the end; the one that decodes rules */
        if (k != role && !toggle)
            continue;
        begin(w, "set_params");
        if (toggle)
            w->p[k].queueing = on;
        w->drains = w->drains || !w->p[DECODE].queueing;
        sched_set_params(w->s[k], &w->p[k], w->now);
        end(w);
    }
}

static void tick(struct world *w)
{
    for (uint32_t role = 0; role < ROLES; role++) {
        begin(w, "tick");
        sched_tick(w->s[role], w->now);
        end(w);
    }
}

static void pool_event(struct world *w)
{
    uint32_t role = below(w, ROLES);
    struct ep *e = &w->ep[role][below(w, EPS)];
    switch (below(w, 12)) {
    case 0:
        ep_remove(w, role, e);
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        ep_add(w, role, e);
        break;
    case 5:
        ep_models(w, role, e);
        break;
    case 6:
    case 7:
        drain(w, role, e);
        break;
    case 8:
        join(w);
        break;
    default:
        set_params(w);
    }
}

static void event(struct world *w, double busy)
{
    double x = rng_unit(&w->rng) * (6 + 3 * busy);
    if (x < 3 * busy)
        arrive(w);
    else if ((x -= 3 * busy) < 1)
        finish(w);
    else if ((x -= 1) < 0.6)
        first_token(w);
    else if ((x -= 0.6) < 0.6)
        prefilled(w);
    else if ((x -= 0.6) < 2.4)
        leg_event(w);
    else if ((x -= 2.4) < 0.15)
        leave(w);
    else if ((x -= 0.15) < 0.3)
        again(w);
    else if ((x -= 0.3) < 0.4) {
        uint32_t role = below(w, ROLES);
        scrape(w, role, &w->ep[role][below(w, EPS)]);
    } else if ((x -= 0.4) < 0.1)
        pool_event(w);
    else
        tick(w);
}

/* ---- a life ---- */

static void wind_down(struct world *w)
{
    for (uint32_t i = 0; i < REQS; i++) {
        struct req *q = &w->q[i];
        begin(w, "end");
        if (q->state == WAITING)
            sched_cancel(w->s[DECODE], &q->r, w->now);
        else if (q->state == FLYING)
            sched_finish(w->s[DECODE], &q->r, OUT_CANCELLED, NULL, w->now);
        q->state = FREE;
        end(w);
        if (!q->leg_flies)
            continue;
        begin(w, "end of leg");
        q->leg_flies = false;
        sched_finish(w->s[PREFILL], &q->leg, OUT_CANCELLED, NULL, w->now);
        end(w);
    }
    for (uint32_t i = 0; i < REQS; i++) /* those that the last ones let go */
        MUST(w, w->q[i].state == FREE || w->q[i].state == FLYING);
}

static uint64_t live(uint64_t seed, void *ctx)
{
    struct world *sum = ctx;
    struct world *w = xcalloc(1, sizeof(*w));
    double busy = 1, mean_us = 3000;
    w->seed = seed;
    w->what = "";
    w->now = 1000000000;
    rng_init(&w->rng, seed);
    for (uint32_t i = 0; i < LINES; i++)
        for (uint32_t k = 0; k < ARRAY_LEN(w->storage[0]); k++)
            w->storage[i][k] = rng_u64(&w->rng);
    for (uint32_t role = 0; role < ROLES; role++) {
        sched_params_init(&w->p[role]);
        random_params(w, &w->p[role]);
        w->p[role].queueing = seed % 4 != 0;
        w->s[role] = sched_new(&w->p[role], seed * ROLES + role);
        sched_on_event(w->s[role], role == DECODE ? on_decode : on_prefill, w);
    }
    join(w);
    for (uint32_t role = 0; role < ROLES; role++)
        for (uint32_t k = 0; k < 3; k++)
            ep_add(w, role, &w->ep[role][k]);
    while (w->n_events < LIFE) {
        if (chance(w, 0.002)) { /* another season */
            busy = 0.2 + 1.5 * rng_unit(&w->rng);
            mean_us = exp(rng_unit(&w->rng) * 5) * 300;
        }
        w->now += (uint64_t)(rng_exp(&w->rng) * mean_us) + (chance(w, 0.0005) ? between(w, 1000000, 60000000) : 0);
        event(w, busy);
    }
    while (one(w, WAITING) || one(w, FLYING))
        wind_down(w);
    sum->n_events += w->n_events;
    sum->n_split += w->n_split;
    sum->n_local += w->n_local;
    sum->n_queued += w->n_queued;
    sum->n_late += w->n_late;
    sum->n_no_prefill += w->n_no_prefill;
    sum->n_here += w->n_here;
    sum->n_parted += w->n_parted;
    for (int k = 0; k < N_SCHED_REJECTS; k++)
        sum->n_rejected[k] += w->n_rejected[k];
    uint64_t d = w->digest;
    sched_free(w->s[seed % 2]);
    sched_free(w->s[1 - seed % 2]);
    free(w);
    return d;
}

int main(int argc, char **argv)
{
    struct lives l = lives_of(argc, argv, EVENTS);
    struct world *sum = xcalloc(1, sizeof(*sum));
    if (!lives_run(&l, live, sum, &sum->n_events)) {
        free(sum);
        return 1;
    }
    printf("%llu events: %llu picks split, %llu not, %llu queued, %llu decided later, %llu without a prefill endpoint, "
           "%llu prefilled "
           "after all where they decode, parted %llu times; rejected:",
           (unsigned long long)sum->n_events, (unsigned long long)sum->n_split, (unsigned long long)sum->n_local,
           (unsigned long long)sum->n_queued, (unsigned long long)sum->n_late, (unsigned long long)sum->n_no_prefill,
           (unsigned long long)sum->n_here, (unsigned long long)sum->n_parted);
    for (int k = 1; k < N_SCHED_REJECTS; k++)
        printf(" %s %llu", sched_reject_name((enum sched_reject)k), (unsigned long long)sum->n_rejected[k]);
    printf("\n");
    bool idle = !sum->n_split || !sum->n_local || !sum->n_late || !sum->n_no_prefill || !sum->n_here || !sum->n_parted;
    if (idle && l.seeds > 10)
        (void)fprintf(stderr, "something never happened: this proves little\n");
    free(sum);
    return idle && l.seeds > 10;
}
