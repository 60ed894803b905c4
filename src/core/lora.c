/* LoRA adapters: which of them an endpoint has, and what a request for one costs there.
 *
 * An engine keeps the adapters used last on its GPU, max_loras of them, and runs requests for no more than so many at
 * once; those for another wait until one of these is used by nobody. So per endpoint one list in this order says all:
 *
 *   in use, the longest first | not in use, the latest used first
 *
 * The first max_loras in the list are those believed on the GPU. In use are the adapters of our own requests there and
 * those a scrape shows although we have sent nothing for them lately: others'. The own ledger wins, scrapes are seconds
 * old.
 *
 *   among the first max_loras             nothing
 *   else, with a slot in use by nobody    lora_load_s; half as much again where that throws out another adapter:
 * somebody may load it again else                                  lora_wait_s, and no room for it when requests queue
 *
 * Whether one adapter may take several slots depends on how many the pool has left for the adapters asked for lately.
 * Some to spare: who has the adapter is not preferred any more once it has clearly more of our requests in flight than
 * the others have on average, for the load is paid once, the imbalance would be paid by every request. Too few: all but
 * one of those who have it cost lora_load_s, so that they come free.
 *
 * With queueing, adapters whose requests keep coming would hold their slots for good. So who has to wait for a slot
 * claims one: of an adapter that has the fewest requests there, which gets no more of them once the claim is
 * lora_wait_s old, until the claimant is in or does not wait any more.
 *
 * What is not known costs nothing: a server that has not told its number of slots is taken for one like the others of
 * its pool.
 *
 * These costs stand in the column of the model (endpoint.c). A change at an endpoint is noted in a log, and a column
 * catches up with it when it is used next. (Reference model-servers.md 1.4, 5.2; the rule running, waiting, free slot:
 * gie-protocol.md 7.3.) */
#include "core/sched_int.h"
#include "base/hash.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EVICT_SHARE 0.5
#define CROWD_SHARE 1.2 /* of the mean of requests in flight, */
#define CROWD_MORE  1   /* and so many more: then a holder is left */
#define LATELY_US   60000000
#define CLAIM_US    1000000 /* a claim that nobody repeats is void */

/* ---- the list of an endpoint ---- */

static struct lora *table(struct ep *e)
{
    if (!e->lora)
        e->lora = xcalloc(1, sizeof(*e->lora));
    return e->lora;
}

static uint32_t find(const struct lora *l, uint64_t name) /* l->n: not there */
{
    uint32_t i = 0;
    while (i < l->n && l->v[i].name != name)
        i++;
    return i;
}

static void move(struct lora *l, uint32_t from, uint32_t to)
{
    struct lora_use u = l->v[from];
    if (from > to)
        memmove(&l->v[to + 1], &l->v[to], (from - to) * sizeof(u));
    else
        memmove(&l->v[from], &l->v[from + 1], (to - from) * sizeof(u));
    l->v[to] = u;
}

/* The adapter, among those in use from now on; NULL when the list is full of such. */
static struct lora_use *enter(struct lora *l, uint64_t name, bool first)
{
    uint32_t i = find(l, name);
    if (i < l->n_used)
        return &l->v[i];
    if (l->n_used == LORA_MAX)
        return NULL;
    if (i == l->n) {
        i = MIN(i, (uint32_t)LORA_MAX - 1); /* in the place of the one used longest ago */
        l->n = i + 1;
        l->v[i] = (struct lora_use){.name = name};
    }
    uint32_t to = first ? 0 : l->n_used;
    move(l, i, to);
    l->n_used++;
    return &l->v[to];
}

static void leave(struct lora *l, uint32_t i)
{
    move(l, i, --l->n_used);
}

static bool listed(const struct ep *e, uint64_t name)
{
    for (uint32_t i = 0; e->n_adapters && i < e->n_models; i++)
        if (e->models[i].name == name)
            return e->models[i].adapter;
    return false;
}

static bool is_adapter(const struct ep *e, uint64_t name)
{
    return (e->lora && find(e->lora, name) < e->lora->n) || listed(e, name);
}

static void changed(struct sched *s, uint32_t slot)
{
    s->lora_log[s->lora_changes++ % LORA_LOG] = slot;
    s->room_gained = true;
}

/* ---- claims ---- */

static uint32_t slots(const struct sched *s, const struct ep *e)
{
    return e->lora && e->lora->max ? e->lora->max : s->lora_max;
}

static void drop_claim(struct sched *s, uint32_t slot)
{
    struct lora *l = s->eps[slot].lora;
    l->claim = l->victim = 0;
    l->claimed = false;
    changed(s, slot);
}

static void claim_met(struct sched *s, uint64_t name)
{
    for (uint32_t i = 0; s->n_claims && i < s->n_slots; i++)
        if (s->eps[i].lora && s->eps[i].lora->claim == name)
            drop_claim(s, i);
}

/* Of those who have a slot there the one with the fewest requests of ours; NULL: none of ours alone. */
static const struct lora_use *victim_of(const struct sched *s, const struct ep *e)
{
    const struct lora *l = e->lora;
    const struct lora_use *least = NULL;
    for (uint32_t i = 0, max = slots(s, e); i < l->n_used && i < max; i++)
        if (!l->v[i].others && (!least || l->v[i].ours < least->ours))
            least = &l->v[i];
    return least;
}

void lora_claim(struct sched *s, const struct pick *k)
{
    uint32_t best = NO_SLOT, fewest = UINT32_MAX;
    uint64_t victim = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        struct lora *l = s->eps[i].lora;
        if (l && l->claim == k->r->model) { /* one at a time */
            l->asked_us = s->now_us;
            return;
        }
        if (!l || l->claim || k->lora[i] != LORA_WAIT || !ep_usable(&s->eps[i]) || pick_tried(k->r, ep_ref_of(s, i)) ||
            (ep_of(s, k->r->pinned) && k->r->pinned.slot != i))
            continue;
        const struct lora_use *u = victim_of(s, &s->eps[i]);
        if (u && u->ours < fewest) {
            fewest = u->ours;
            victim = u->name;
            best = i;
        }
    }
    if (best == NO_SLOT)
        return;
    struct lora *l = s->eps[best].lora;
    l->claim = k->r->model;
    l->victim = victim;
    l->asked_us = s->now_us;
    l->claim_us = s->now_us + (uint64_t)(s->p.lora_wait_s * SEC);
    s->n_claims++;
}

static void refresh_claim(struct sched *s, uint32_t slot)
{
    struct lora *l = s->eps[slot].lora;
    if (!l || !l->claim)
        return;
    s->n_claims++;
    s->room_gained = true; /* who still waits asks again */
    if (!s->p.queueing || s->now_us >= l->asked_us + CLAIM_US) {
        drop_claim(s, slot);
    } else if (!l->claimed && s->now_us >= l->claim_us) {
        l->claimed = true;
        changed(s, slot);
    }
}

/* ---- own requests ---- */

void lora_take(struct sched *s, uint32_t slot, struct sched_req *r)
{
    struct ep *e = &s->eps[slot];
    r->lora = false;
    if (!r->model || !is_adapter(e, r->model))
        return;
    uint32_t n_used = table(e)->n_used;
    struct lora_use *u = enter(e->lora, r->model, false);
    if (!u)
        return; /* more adapters in use than any server has: not counted */
    u->ours++;
    r->lora = true;
    claim_met(s, r->model);
    s->lora_spare -= r->lora_cold; /* until counted again */
    if (e->lora->n_used != n_used)
        changed(s, slot);
}

void lora_give(struct sched *s, uint32_t slot, struct sched_req *r)
{
    struct lora *l = s->eps[slot].lora;
    if (!r->lora)
        return;
    r->lora = false;
    uint32_t i = find(l, r->model);
    CHECK(i < l->n_used && l->v[i].ours);
    if (--l->v[i].ours)
        return;
    l->v[i].left_us = s->now_us;
    if (l->v[i].others)
        return;
    leave(l, i);
    changed(s, slot);
}

/* ---- scrapes ---- */

/* Whether what the scrape shows may be requests of ours, in flight or just finished. */
static bool ours_lately(const struct lora_use *u, uint64_t sent_us)
{
    return u->ours || (u->left_us && u->left_us + HIST_WINDOW_US > sent_us);
}

static bool note_others(struct sched *s, struct ep *e, const uint64_t *names, uint32_t n, bool running)
{
    struct lora *l = e->lora;
    uint32_t n_used = l->n_used;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = find(l, names[k]);
        if (i < l->n && !l->v[i].others && ours_lately(&l->v[i], e->load.sent_us))
            continue;
        if (i == l->n && !listed(e, names[k]))
            s->models_version++; /* nobody knew that this is an adapter */
        struct lora_use *u = enter(l, names[k], running);
        if (u)
            u->others = u->seen = true;
    }
    return l->n_used != n_used;
}

static bool drop_unseen(struct lora *l)
{
    uint32_t n_used = l->n_used;
    for (uint32_t i = l->n_used; i-- > 0;) {
        struct lora_use *u = &l->v[i];
        u->others = u->others && u->seen;
        u->seen = false;
        if (!u->others && !u->ours)
            leave(l, i);
    }
    return l->n_used != n_used;
}

void lora_scraped(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    const struct ep_load *d = &e->load;
    if (!d->max_lora && !e->lora)
        return;
    bool news = table(e)->max != d->max_lora;
    if (d->max_lora > s->lora_max) {
        s->lora_max = d->max_lora;
        s->models_version++;
    }
    e->lora->max = d->max_lora;
    news |= note_others(s, e, d->running_lora, MIN(d->n_running_lora, (uint32_t)ARRAY_LEN(d->running_lora)), true);
    news |= note_others(s, e, d->waiting_lora, MIN(d->n_waiting_lora, (uint32_t)ARRAY_LEN(d->waiting_lora)), false);
    news |= drop_unseen(e->lora);
    if (news)
        changed(s, slot);
}

void lora_stale(struct sched *s, uint32_t slot)
{
    struct lora *l = s->eps[slot].lora;
    if (l && drop_unseen(l))
        changed(s, slot);
}

/* ---- other changes ---- */

void lora_models(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    e->n_adapters = 0;
    for (uint32_t i = 0; i < e->n_models; i++)
        e->n_adapters += e->models[i].adapter;
    struct lora *l = e->lora;
    if (!l)
        return;
    for (uint32_t i = l->n; e->n_models && i-- > l->n_used;)
        if (!listed(e, l->v[i].name)) /* unloaded: its place is free */
            move(l, i, --l->n);
    changed(s, slot);
}

void lora_forget(struct sched *s, uint32_t slot)
{
    struct lora *l = s->eps[slot].lora;
    if (!l)
        return;
    l->n = l->n_used;
    changed(s, slot);
}

/* ---- cost ---- */

static enum lora_at place(const struct sched *s, const struct ep *e, uint64_t name, float *cost)
{
    uint32_t max = slots(s, e);
    uint32_t n = e->lora ? e->lora->n : 0, n_used = e->lora ? e->lora->n_used : 0,
             i = e->lora ? find(e->lora, name) : 0;
    *cost = 0;
    if (!max)
        return LORA_NONE;
    bool gives_way = e->lora && e->lora->claimed && e->lora->claim != name;
    if (i < n_used && i < max && !(gives_way && e->lora->victim == name))
        return LORA_HELD;
    if (i < n_used || n_used + gives_way >= max) {
        *cost = (float)s->p.lora_wait_s;
        return LORA_WAIT;
    }
    if (i < n && i < max)
        return LORA_HELD;
    *cost = (float)(s->p.lora_load_s * (n < max ? 1 : 1 + EVICT_SHARE));
    return LORA_LOAD;
}

static void column_set(const struct sched *s, struct model_column *c, uint32_t slot)
{
    c->n_lora -= c->lora[slot] != LORA_NONE;
    c->lora[slot] = (uint8_t)place(s, &s->eps[slot], c->model, &c->penalty[slot]);
    c->n_lora += c->lora[slot] != LORA_NONE;
}

void lora_column_fill(struct sched *s, struct model_column *c)
{
    c->n_lora = 0;
    c->lora_seen = s->lora_changes;
    memset(c->lora, LORA_NONE, s->n_slots);
    for (uint32_t i = 0; s->lora_max && i < s->n_slots; i++)
        if (c->penalty[i] <= 0 && s->eps[i].used && is_adapter(&s->eps[i], c->model))
            column_set(s, c, i);
}

void lora_column_update(struct sched *s, struct model_column *c)
{
    uint64_t n = s->lora_changes - c->lora_seen;
    if (c->n_lora && n > MIN(s->n_slots, (uint32_t)LORA_LOG)) {
        for (uint32_t i = 0; i < s->n_slots; i++)
            if (c->lora[i] != LORA_NONE)
                column_set(s, c, i);
    } else if (c->n_lora) {
        for (uint64_t k = c->lora_seen; k < s->lora_changes; k++) {
            uint32_t slot = s->lora_log[k % LORA_LOG];
            if (c->lora[slot] != LORA_NONE)
                column_set(s, c, slot);
        }
    }
    c->lora_seen = s->lora_changes;
}

/* ---- slots of the pool ---- */

static uint32_t holders(const struct sched *s, const struct model_column *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_slots; i++)
        n += c->lora[i] == LORA_HELD;
    return n;
}

void lora_refresh(struct sched *s)
{
    s->lora_spare = s->n_claims = 0;
    if (!s->lora_max)
        return;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        refresh_claim(s, i);
        if (ep_usable(&s->eps[i]) && (s->eps[i].n_adapters || s->eps[i].lora))
            s->lora_spare += slots(s, &s->eps[i]);
    }
    for (uint32_t i = 0; i < MODEL_COLUMNS; i++) {
        struct model_column *c = &s->columns[i];
        bool valid = c->version == s->models_version;
        if (!c->n_lora || c->used_us + LATELY_US < s->now_us)
            continue;
        if (valid)
            lora_column_update(s, c);
        s->lora_spare -= valid ? MAX(holders(s, c), 1u) : 1;
    }
}

/* ---- the pick ---- */

/* Of those who have the adapter the one that keeps it when slots are short: always the same while the same ones have
 * it. */
static uint32_t home_of(const struct sched *s, const struct pick *k)
{
    uint32_t home = NO_SLOT;
    uint64_t best = 0, h;
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (k->lora[i] == LORA_HELD && s->scan.cost[i] < INFINITY && (h = hash_mix(k->r->model, i)) >= best) {
            best = h;
            home = i;
        }
    return home;
}

/* Has the adapter, but had better not be asked for it any more. */
static bool to_leave(const struct sched *s, const struct pick *k, uint32_t slot)
{
    if (k->lora[slot] != LORA_HELD)
        return false;
    return s->lora_spare < 0 ? slot != k->home : s->scan.order[slot] >> 40 > k->crowd;
}

void lora_add(struct sched *s, struct pick *k)
{
    float *cost = s->scan.cost, load = (float)s->p.lora_load_s;
    uint32_t usable = s->n_ready > s->n_ejected ? s->n_ready - s->n_ejected : 1;
    double crowd = CROWD_SHARE * (double)s->inflight / usable + CROWD_MORE;
    k->crowd = s->lora_spare > 0 ? (uint32_t)MIN(crowd, 1e9) : UINT32_MAX;
    k->home = s->lora_spare < 0 ? home_of(s, k) : NO_SLOT;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (to_leave(s, k, i))
            cost[i] += load;
        else if (k->lora[i] == LORA_WAIT && k->room_only)
            cost[i] = INFINITY;
    }
}

double lora_cost(const struct sched *s, const struct pick *k, uint32_t slot)
{
    if (!k->lora || k->lora[slot] == LORA_NONE)
        return 0;
    return to_leave(s, k, slot) ? s->p.lora_load_s : (double)k->model[slot];
}
