/* The endpoint table: slots with generations, scrapes, models, and the refresh of what depends on time. */
#include "core/sched_int.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OTHERS_HALF_LIFE_S 5.0
#define REMOTE_LOST_US     600000000 /* a replica that says nothing about an endpoint for so long has nothing there */
#define MAX_MODELS         1024      /* per endpoint */

struct ep *ep_of(struct sched *s, struct ep_ref r)
{
    if (!r.gen || r.slot >= s->n_slots || !s->eps[r.slot].used || s->eps[r.slot].gen != r.gen)
        return NULL;
    return &s->eps[r.slot];
}

bool ep_usable(const struct ep *e)
{
    return e->used && e->ready && !e->ejected && !e->draining;
}

static void grow_column(float **v, uint32_t cap)
{
    *v = xrealloc(*v, cap * sizeof(float));
}

static void grow(struct sched *s)
{
    uint32_t cap = s->cap_slots ? s->cap_slots * 2 : 16;
    s->eps = xrealloc(s->eps, cap * sizeof(s->eps[0]));
    memset(s->eps + s->cap_slots, 0, (cap - s->cap_slots) * sizeof(s->eps[0]));
    float **columns[] = {&s->scan.base, &s->scan.own_w, &s->scan.tok_s,  &s->scan.kv_use, &s->scan.kv_inv,
                         &s->scan.cost, &s->scan.full,  &s->scan.answer, &s->scan.crowd,  &s->scan.other};
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        grow_column(columns[i], cap);
    s->scan.order = xrealloc(s->scan.order, cap * sizeof(s->scan.order[0]));
    s->cap_slots = cap;
}

static uint32_t take_slot(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (!s->eps[i].used && !s->eps[i].dying)
            return i;
    if (s->n_slots == s->cap_slots)
        grow(s);
    s->scan.base[s->n_slots] = s->scan.full[s->n_slots] = INFINITY;
    s->eps[s->n_slots].waiting = xmalloc(sizeof(struct list));
    list_init(s->eps[s->n_slots].waiting);
    return s->n_slots++;
}

struct ep_ref sched_ep_add(struct sched *s, void *user, bool wait_probe, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    prefix_index_work(s->index, 4096); /* so that adding and removing in a loop cannot outrun the purge */
    ep_reap(s);
    uint32_t slot = take_slot(s), gen = s->eps[slot].gen + 1;
    struct ep *e = &s->eps[slot];
    *e = (struct ep){.gen = gen ? gen : 1,
                     .used = true,
                     .user = user,
                     .waiting = e->waiting,
                     .speed = 1,
                     .prefill = 1,
                     .step = 1,
                     .late = 1,
                     .cap_belief = 1};
    e->hist_at = now_us / HIST_SLOT_US;
    e->last_pick = rng_below(&s->rng, 1u << 10); /* the first rotation starts anywhere */
    s->n_used++;
    s->models_version++;
    prefix_index_open(s->index, slot, index_cap(s, e));
    if (!wait_probe)
        health_ready(s, slot);
    cost_update(s, slot);
    event_emit(s, EV_EP_ADD, slot, NULL);
    flow_run(s);
    return ep_ref_of(s, slot);
}

void sched_ep_remove(struct sched *s, struct ep_ref ref, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    if (!e)
        return;
    s->now_us = MAX(s->now_us, now_us);
    event_emit(s, EV_EP_REMOVE, ref.slot, NULL);
    s->n_used--;
    s->n_ready -= e->ready;
    s->n_ejected -= e->ejected;
    s->n_with_models -= e->n_models > 0;
    s->models_version++;
    free(e->models);
    free(e->lora);
    ledger_forget(e);
    *e = (struct ep){.gen = e->gen, .dying = true, .waiting = e->waiting};
    prefix_index_close(s->index, ref.slot);
    cost_update(s, ref.slot);
    ep_reap(s);
    s->room_gained = true; /* who waited for this one waits no more */
    flow_run(s);
}

void ep_reap(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (s->eps[i].dying && prefix_index_empty(s->index, i))
            s->eps[i].dying = false;
}

void sched_ep_drain(struct sched *s, struct ep_ref ref, bool draining, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    s->now_us = MAX(s->now_us, now_us);
    if (!e)
        return;
    e->draining = draining;
    cost_update(s, ref.slot);
    flow_run(s);
}

/* ---- scrape ---- */

static double others_decay(const struct sched *s, const struct ep *e)
{
    uint64_t age = s->now_us > e->load.done_us ? s->now_us - e->load.done_us : 0;
    if (age > s->p.stale_us)
        return 0;
    return exp2(-(double)age / (OTHERS_HALF_LIFE_S * SEC));
}

/* Most of ours in flight while the scrape may have been measured, and the least memory ours had really taken then: a
 * server takes it for a request when it computes its prompt, so what waits there is not yet in the use it reports. */
static void ours_around(struct sched *s, struct ep *e, const struct ep_load *l)
{
    hist_advance(s, e);
    uint64_t from = l->sent_us > HIST_WINDOW_US ? (l->sent_us - HIST_WINDOW_US) / HIST_SLOT_US : 0;
    uint64_t from_mem = l->sent_us / HIST_SLOT_US;
    e->own_at_load = e->own_at_done = ep_there(e);
    e->held_at_load = e->own.held;
    for (uint64_t k = 0; k < HIST_SLOTS && k <= e->hist_at; k++) {
        const struct inflight_hist *h = &e->hist[(e->hist_at - k) % HIST_SLOTS];
        if (e->hist_at - k < from)
            break;
        e->own_at_load = MAX(e->own_at_load, h->max_inflight);
        if (e->hist_at - k >= from_mem)
            e->held_at_load = MIN(e->held_at_load, (double)h->min_held);
    }
}

static double sane(double v, double max)
{
    return v > 0 ? MIN(v, max) : 0; /* also NaN */
}

void sched_ep_load(struct sched *s, struct ep_ref ref, const struct ep_load *l, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    if (!e)
        return;
    s->now_us = MAX(s->now_us, now_us);
    e->load = *l;
    e->load.waiting = l->has_waiting ? sane(l->waiting, 1e6) : 0;
    e->load.running = l->has_running ? sane(l->running, 1e6) : 0;
    e->load.kv_frac = l->has_kv ? sane(l->kv_frac, 1) : 0;
    e->load.kv_mean = l->kv_mean > 0 ? MIN(l->kv_mean, e->load.kv_frac) : e->load.kv_frac;
    e->has_load = true;
    e->run_cap = e->load.waiting > 0 && l->has_running ? MAX(e->load.running, 1.0) : 0;
    ours_around(s, e, l);
    double others = MAX(0, e->load.waiting + e->load.running - (double)e->own_at_load);
    e->others_waiting = MIN(others, e->load.waiting);
    e->others_running = others - e->others_waiting;
    e->decay = others_decay(s, e);
    learn_capacity(s, ref.slot);
    prefix_index_set_cap(s->index, ref.slot, index_cap(s, e));
    lora_scraped(s, ref.slot);
    cost_update(s, ref.slot);
    flow_run(s);
}

/* ---- models ---- */

static bool serves(const struct ep *e, uint64_t model)
{
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i].name == model)
            return true;
    return e->n_models == 0;
}

static bool same_models(const struct ep *e, const struct sched_model *models, size_t n)
{
    if (n != e->n_models)
        return false;
    for (size_t i = 0; i < n; i++)
        if (models[i].name != e->models[i].name || models[i].adapter != e->models[i].adapter)
            return false;
    return true;
}

void sched_ep_models(struct sched *s, struct ep_ref ref, const struct sched_model *models, size_t n, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    s->now_us = MAX(s->now_us, now_us);
    n = MIN(n, (size_t)MAX_MODELS);
    if (!e || same_models(e, models, n))
        return;
    s->n_with_models -= e->n_models > 0;
    free(e->models);
    e->models = NULL;
    if (n) {
        e->models = xmalloc(n * sizeof(models[0]));
        memcpy(e->models, models, n * sizeof(models[0]));
        s->n_with_models++;
    }
    e->n_models = (uint32_t)n;
    lora_models(s, ref.slot);
    s->models_version++;
    s->room_gained = true;
    flow_run(s);
}

void model_missing(struct sched *s, uint32_t slot, uint64_t model)
{
    struct ep *e = &s->eps[slot];
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i].name == model && e->n_models > 1) { /* an empty list would mean "unknown" */
            e->models[i] = e->models[--e->n_models];
            s->models_version++;
            return;
        }
}

static void column_fill(struct sched *s, struct model_column *c, uint64_t model)
{
    if (c->cap < s->cap_slots) {
        c->cap = s->cap_slots;
        c->penalty = xrealloc(c->penalty, c->cap * sizeof(c->penalty[0]));
        c->lora = xrealloc(c->lora, c->cap);
    }
    c->model = model;
    c->version = s->models_version;
    c->n_serving = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        bool ok = s->eps[i].used && serves(&s->eps[i], model);
        c->penalty[i] = ok ? 0 : INFINITY;
        c->n_serving += ok;
    }
    lora_column_fill(s, c);
}

const struct model_column *model_column(struct sched *s, uint64_t model)
{
    if (!model || (!s->n_with_models && !s->lora_max))
        return NULL;
    struct model_column *oldest = &s->columns[0], *c = NULL;
    for (uint32_t i = 0; i < MODEL_COLUMNS && !c; i++) {
        if (s->columns[i].penalty && s->columns[i].model == model)
            c = &s->columns[i];
        if (s->columns[i].used < oldest->used)
            oldest = &s->columns[i];
    }
    if (!c)
        c = oldest;
    if (!c->penalty || c->model != model || c->version != s->models_version)
        column_fill(s, c, model);
    else
        lora_column_update(s, c);
    c->used = s->n_picks + 1;
    c->used_us = s->now_us;
    return c->n_serving ? c : NULL;
}

/* ---- time ---- */

void ep_refresh(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    if (!e->used)
        return;
    e->decay = e->has_load ? others_decay(s, e) : 0;
    if (e->decay <= 0)
        lora_stale(s, slot);
    if (e->remote_us + REMOTE_LOST_US < s->now_us)
        e->remote = (struct ledger){0};
    learn_factors(s, e);
    health_refresh(s, slot);
    prefix_index_set_cap(s->index, slot, index_cap(s, e));
    cost_update(s, slot);
}

static void refresh_late(struct sched *s)
{
    float *late = s->scan.cost; /* free between picks */
    double sum = 0, n = 0;
    s->late_us = s->now_us + LATE_US;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        bool usable = ep_usable(&s->eps[i]);
        late[i] = usable ? (float)learn_late(s, &s->eps[i]) : 0;
        sum += (double)late[i];
        n += usable;
    }
    for (uint32_t i = 0; i < s->n_slots; i++) { /* where all are late none is slow */
        double mine = (double)late[i], others = n > 1 ? MAX(1, (sum - mine) / (n - 1)) : mine;
        double is = mine > 0 && mine >= LATE_FACTOR * others ? mine / others : 1;
        if (is <= 1 && s->eps[i].late <= 1)
            continue;
        s->eps[i].late = is;
        cost_update(s, i);
    }
}

void ep_refresh_all(struct sched *s, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    if (s->now_us >= s->late_us)
        refresh_late(s);
    if (s->now_us < s->refresh_us)
        return;
    s->refresh_us = s->now_us + REFRESH_US;
    ledger_overdue(s);
    lora_refresh(s);
    s->explore_slot = NO_SLOT;
    learn_pool(s);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        ep_refresh(s, i);
        if (learn_due(s, &s->eps[i]))
            s->explore_slot = i;
    }
}
