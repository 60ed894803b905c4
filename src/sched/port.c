/* port.c - one backend's scheduler behind its mutex: the picker's verbs, endpoints with addresses, views. */
#include "sched/impl.h"

#include "base/hash.h"
#include "base/log.h"
#include "sched/record.h"

#include <stdlib.h>

#define ALL_MODELS_US 2000000 /* between two readings of every list for a model nobody told of */

static struct ep *ep_of(struct endpoint *e)
{
    return CONTAINER_OF(e, struct ep, pub);
}

uint64_t port_now_us(const struct port *p)
{
    return clock_us(p->owner->o.time_scale);
}

struct endpoint *endpoint_ref(struct endpoint *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void endpoint_unref(struct endpoint *e)
{
    if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct ep *ep = ep_of(e);
    for (uint32_t i = 0; i < ep->n_models; i++)
        free(ep->models[i]);
    free(ep->models);
    struct port *p = e->port;
    free(ep);
    port_unref(p);
}

struct port *port_ref(struct port *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void port_unref(struct port *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (p->split)
        sched_join(p->sched, NULL, port_now_us(p));
    sched_free(p->prefill);
    sched_free(p->sched);
    recall_free(&p->recall);
    decisions_free(p->decisions);
    source_free(p->source);
    pthread_mutex_destroy(&p->lock);
    free(p->model_set);
    free(p->key);
    free(p->name);
    free(p->ns);
    free(p);
}

const char *port_key(const struct port *p)
{
    return p->key;
}

const char *port_name(const struct port *p)
{
    return p->name;
}

const char *port_ns(const struct port *p)
{
    return p->ns;
}

bool port_is_pool(const struct port *p)
{
    return p->pool;
}

struct decisions *port_decisions(struct port *p)
{
    return p->decisions;
}

bool port_warming(struct port *p)
{
    pthread_mutex_lock(&p->lock);
    bool warming = p->pool && p->n_unprobed > 0;
    pthread_mutex_unlock(&p->lock);
    return warming;
}

/* --- decisions ----------------------------------------------------------------------------------------------- */

static void deliver_late(struct mail *m)
{
    struct port_req *r = CONTAINER_OF(m, struct port_req, mail);
    r->on_decision(r);
}

static void note_pick(struct port_req *r)
{
    struct endpoint *e = r->core.d.user;
    r->picked = true;
    r->ep = endpoint_ref(e);
    r->epoch = atomic_load_explicit(&e->epoch, memory_order_acquire);
    if (!r->core.split)
        return;
    e = r->leg.d.user;
    r->leg_ep = endpoint_ref(e);
    r->leg_epoch = atomic_load_explicit(&e->epoch, memory_order_acquire);
}

/* A verb about an endpoint for the record, all of it but what only this verb has. */
static struct journal noted(const struct port *p, enum journal_type what, struct ep_ref ep, uint64_t now_us)
{
    return (struct journal){.type = what, .pool = p->record_no, .now_us = now_us, .ep = ep};
}

static struct record *recorder(const struct port *p)
{
    return p->unrecorded ? NULL : p->owner->o.record;
}

/* Any verb may have decided about requests that wait, of any worker. Under the lock: whoever finds a request no longer
 * queued knows that its answer is in the mail. */
static void post_decided(struct port *p)
{
    struct sched_req *d;
    while ((d = sched_next_decided(p->sched))) {
        struct port_req *r = CONTAINER_OF(d, struct port_req, core);
        if (recorder(p))
            record_decided(recorder(p), p->record_no, d);
        r->queued = false;
        p->n_queued--;
        if (d->d.reject == REJECT_NONE)
            note_pick(r);
        r->mail.run = deliver_late;
        loop_post(r->loop, &r->mail);
    }
}

static void note_added(struct port *p, const struct ep *e, uint64_t now_us)
{
    struct journal j = noted(p, JOURNAL_EP_ADD, e->pub.ref, now_us);
    j.u.add.name = str_c(e->pub.name);
    j.u.add.wait_probe = p->pool;
    record_note(recorder(p), &j);
}

static void note_load(struct port *p, const struct ep *e, const struct ep_load *load, uint64_t now_us)
{
    struct journal j = noted(p, JOURNAL_EP_LOAD, e->pub.ref, now_us);
    j.u.load = *load;
    record_note(recorder(p), &j);
}

static void note_probe(struct port *p, const struct ep *e, bool ok, uint64_t asked_us, uint64_t now_us)
{
    struct journal j = noted(p, JOURNAL_EP_PROBE, e->pub.ref, now_us);
    j.u.probe.ok = ok;
    j.u.probe.asked_us = asked_us;
    record_note(recorder(p), &j);
}

static void note_models(struct port *p, const struct ep *e, const struct sched_model *v, uint32_t n, uint64_t now_us)
{
    struct journal j = noted(p, JOURNAL_EP_MODELS, e->pub.ref, now_us);
    j.u.models.v = v;
    j.u.models.n = n;
    record_note(recorder(p), &j);
}

static void note_plain(struct port *p, enum journal_type what, struct ep_ref ep, uint64_t now_us)
{
    struct journal j = noted(p, what, ep, now_us);
    record_note(recorder(p), &j);
}

/* The record knows of one scheduler a pool: a split pool is left out of it, from then on. */
static void set_split(struct port *p, const struct sched_params *prefill, uint64_t now_us)
{
    if (!p->unrecorded && p->owner->o.record)
        logf_msg(LOG_WARN, "%s is split into prefill and decode: it is not in the record", p->key);
    p->unrecorded = true;
    if (!p->prefill) /* stays when the pool is no longer split: requests may be in flight there */
        p->prefill = sched_new(prefill, hash_mix(p->seed, ROLE_PREFILL));
    p->split = prefill != NULL;
    sched_join(p->sched, p->split ? p->prefill : NULL, now_us);
}

static void set_params(struct port *p, const struct sched_params *params, const struct sched_params *prefill)
{
    uint64_t now_us = port_now_us(p);
    if (p->split != (prefill != NULL))
        set_split(p, prefill, now_us);
    if (prefill)
        sched_set_params(p->prefill, prefill, now_us);
    sched_set_params(p->sched, params, now_us);
    if (!recorder(p))
        return;
    struct journal j = noted(p, JOURNAL_PARAMS, (struct ep_ref){0}, now_us);
    j.u.params = *params;
    record_note(recorder(p), &j);
}

/* The way out of the lock after a verb. */
static void leave(struct port *p)
{
    post_decided(p);
    pthread_mutex_unlock(&p->lock);
}

/* --- endpoints ----------------------------------------------------------------------------------------------- */

static void copy_name(char *out, size_t cap, struct str s)
{
    size_t n = MIN(s.n, cap - 1);
    if (n)
        memcpy(out, s.p, n);
    out[n] = 0;
}

void port_add_endpoint(struct port *p, const struct conf_endpoint *ce)
{
    struct ep *e = xcalloc(1, sizeof *e);
    atomic_init(&e->pub.refs, 1);
    uint16_t metrics_port = ce->metrics_port ? ce->metrics_port : ce->port;
    if (!addr_parse(ce->host, ce->port, &e->pub.addr) || !addr_parse(ce->host, metrics_port, &e->pub.metrics_addr)) {
        free(e);
        logf_msg(LOG_WARN, "endpoint " STR_FMT " has no numeric address: left out", STR_ARG(ce->pod));
        return;
    }
    copy_name(e->pub.name, sizeof e->pub.name, ce->pod);
    copy_name(e->pub.ns, sizeof e->pub.ns, ce->ns);
    e->pub.role = ce->role;
    addr_format(&e->pub.addr, e->pub.address, sizeof e->pub.address);
    e->pub.port = port_ref(p);
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    e->pub.ref = sched_ep_add(port_sched(p, ce->role), &e->pub, p->pool, now_us);
    if (recorder(p))
        note_added(p, e, now_us);
    list_push_back(&p->eps, &e->link);
    p->n_unprobed += p->pool;
    e->probed = !p->pool;
    leave(p);
    scrape_add(p->owner->scrape, e);
}

static int cmp_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The union of the model hashes of all endpoints. Under the lock. */
static void rebuild_model_set(struct port *p)
{
    uint32_t n = 0;
    LIST_EACH (it, &p->eps)
        n += CONTAINER_OF(it, struct ep, link)->n_models;
    free(p->model_set);
    p->model_set = n ? xmalloc(n * sizeof *p->model_set) : NULL;
    p->n_model_set = 0;
    LIST_EACH (it, &p->eps) {
        struct ep *e = CONTAINER_OF(it, struct ep, link);
        for (uint32_t i = 0; i < e->n_models; i++)
            p->model_set[p->n_model_set++] = hash_bytes(e->models[i], strlen(e->models[i]), 0);
    }
    if (n)
        qsort(p->model_set, n, sizeof *p->model_set, cmp_u64);
}

void port_remove_endpoint(struct port *p, struct ep *e)
{
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    sched_ep_remove(port_sched(p, e->pub.role), e->pub.ref, now_us);
    if (recorder(p))
        note_plain(p, JOURNAL_EP_REMOVE, e->pub.ref, now_us);
    list_remove(&e->link);
    if (!e->probed)
        p->n_unprobed--;
    e->probed = true;
    rebuild_model_set(p);
    leave(p);
    scrape_remove(p->owner->scrape, e);
    endpoint_unref(&e->pub);
}

static void note_probed(struct port *p, struct ep *e)
{
    if (!e->probed)
        p->n_unprobed--;
    e->probed = true;
}

void port_probe_ok(struct port *p, struct ep *e, const struct ep_load *load, uint64_t asked_us)
{
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    if (load) {
        sched_ep_load(port_sched(p, e->pub.role), e->pub.ref, load, now_us);
        if (recorder(p))
            note_load(p, e, load, now_us);
        post_decided(p);
    }
    sched_ep_probe(port_sched(p, e->pub.role), e->pub.ref, true, asked_us, now_us);
    if (recorder(p))
        note_probe(p, e, true, asked_us, now_us);
    note_probed(p, e);
    leave(p);
}

void port_probe_failed(struct port *p, struct ep *e, uint64_t asked_us)
{
    pthread_mutex_lock(&p->lock);
    uint64_t alive_us = atomic_load_explicit(&e->pub.alive_us, memory_order_relaxed), now_us = port_now_us(p);
    if (alive_us > asked_us) { /* busy: it answers others */
        sched_ep_alive(port_sched(p, e->pub.role), e->pub.ref, alive_us);
        if (recorder(p))
            note_plain(p, JOURNAL_EP_ALIVE, e->pub.ref, alive_us);
        post_decided(p);
    }
    bool ejected = sched_ep_probe(port_sched(p, e->pub.role), e->pub.ref, false, asked_us, now_us);
    if (recorder(p))
        note_probe(p, e, false, asked_us, now_us);
    note_probed(p, e);
    if (ejected)
        atomic_fetch_add_explicit(&e->pub.epoch, 1, memory_order_release);
    leave(p);
    if (ejected)
        logf_msg(LOG_WARN, "endpoint %s (%s) of %s no longer answers probes: its unanswered requests go elsewhere",
                 e->pub.name, e->pub.address, p->key);
}

void port_set_models(struct port *p, struct ep *e, char **ids, const bool *adapter, uint32_t n)
{
    struct sched_model *models = n ? xmalloc(n * sizeof *models) : NULL;
    for (uint32_t i = 0; i < n; i++)
        models[i] = (struct sched_model){hash_bytes(ids[i], strlen(ids[i]), 0), adapter[i]};
    pthread_mutex_lock(&p->lock);
    char **old = e->models;
    uint32_t n_old = e->n_models;
    e->models = ids;
    e->n_models = n;
    e->models_known = n > 0;
    uint64_t now_us = port_now_us(p);
    sched_ep_models(port_sched(p, e->pub.role), e->pub.ref, models, n, now_us);
    if (recorder(p))
        note_models(p, e, models, n, now_us);
    if (list_linked(&e->link))
        rebuild_model_set(p);
    leave(p);
    for (uint32_t i = 0; i < n_old; i++)
        free(old[i]);
    free(old);
    free(models);
}

/* --- verbs --------------------------------------------------------------------------------------------------- */

static bool model_known(const struct port *p, uint64_t model)
{
    return p->n_model_set && bsearch(&model, p->model_set, p->n_model_set, sizeof model, cmp_u64);
}

/* A model that no endpoint is known to serve restricts nothing: one may have got it since its list was read.
 * Under the lock. */
static void forget_unknown_model(const struct port *p, struct sched_req *r)
{
    if (r->model && !model_known(p, r->model))
        r->model = 0;
}

enum sched_answer port_submit(struct port *p, struct port_req *r)
{
    bool rush = false;
    r->port = p;
    r->ep = r->leg_ep = NULL;
    r->picked = r->queued = false;
    pthread_mutex_lock(&p->lock);
    forget_unknown_model(p, &r->core);
    uint64_t now_us = port_now_us(p);
    bool again = r->core.q.seq != 0;
    enum sched_answer a = sched_submit(p->sched, &r->core, now_us);
    if (recorder(p))
        record_submit(recorder(p), p->record_no, now_us, &r->core, a, again);
    if (a == SCHED_PICKED) {
        note_pick(r);
    } else if (a == SCHED_QUEUED) {
        r->queued = true;
        p->n_queued++;
        rush = !p->rushed;
        p->rushed = true;
    }
    leave(p);
    if (rush)
        scrape_rush(p->owner->scrape);
    return a;
}

bool port_cancel(struct port *p, struct port_req *r)
{
    pthread_mutex_lock(&p->lock);
    bool was_queued = r->queued;
    if (was_queued) {
        uint64_t now_us = port_now_us(p);
        sched_cancel(p->sched, &r->core, now_us);
        if (recorder(p))
            record_req(recorder(p), p->record_no, now_us, JOURNAL_CANCEL, &r->core);
        r->queued = false;
        p->n_queued--;
    }
    leave(p);
    return was_queued;
}

void port_first_token(struct port *p, struct port_req *r)
{
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    sched_first_token(p->sched, &r->core, now_us);
    if (recorder(p))
        record_req(recorder(p), p->record_no, now_us, JOURNAL_FIRST_TOKEN, &r->core);
    leave(p);
}

static bool is_failure(enum sched_outcome how)
{
    return how == OUT_CONNECT_FAILED || how == OUT_RESET || how == OUT_GARBAGE || how == OUT_TIMEOUT ||
           how == OUT_SERVER_ERROR;
}

void port_finish(struct port *p, struct port_req *r, enum sched_outcome how, const struct sched_usage *u)
{
    if (is_failure(how) && r->ep)
        atomic_store_explicit(&ep_of(r->ep)->last_failure, how, memory_order_relaxed);
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    sched_finish(p->sched, &r->core, how, u, now_us);
    if (recorder(p))
        record_finish(recorder(p), p->record_no, now_us, &r->core, how, u);
    r->picked = false;
    leave(p);
    endpoint_unref(r->ep);
    r->ep = NULL;
}

void port_leg_prefilled(struct port *p, struct port_req *r)
{
    if (!r->leg_ep)
        return;
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    sched_first_token(p->prefill, &r->leg, now_us);
    if (r->picked) /* else the request has ended before */
        sched_prefilled(p->sched, &r->core, now_us);
    leave(p);
}

void port_leg_finish(struct port *p, struct port_req *r, enum sched_outcome how, const struct sched_usage *u)
{
    if (!r->leg_ep)
        return;
    if (is_failure(how))
        atomic_store_explicit(&ep_of(r->leg_ep)->last_failure, how, memory_order_relaxed);
    pthread_mutex_lock(&p->lock);
    sched_finish(p->prefill, &r->leg, how, u, port_now_us(p));
    leave(p);
    endpoint_unref(r->leg_ep);
    r->leg_ep = NULL;
}

void port_leg_here(struct port *p, struct port_req *r)
{
    pthread_mutex_lock(&p->lock);
    if (r->picked)
        sched_prefill_here(p->sched, &r->core, port_now_us(p));
    leave(p);
}

void port_set_params(struct port *p, const struct sched_params *params, const struct sched_params *prefill)
{
    pthread_mutex_lock(&p->lock);
    set_params(p, params, prefill);
    p->params = *params;
    p->params.flow_weights = NULL; /* the snapshot's */
    p->params.n_flow_weights = 0;
    leave(p);
}

uint64_t port_tick(struct port *p, uint64_t now_us, bool *waited_for)
{
    pthread_mutex_lock(&p->lock);
    uint64_t next_us = sched_tick(p->sched, now_us);
    if (p->prefill)
        next_us = MIN(next_us, sched_tick(p->prefill, now_us));
    if (recorder(p))
        note_plain(p, JOURNAL_TICK, (struct ep_ref){0}, now_us);
    post_decided(p);
    *waited_for = p->rushed = p->n_queued > 0;
    pthread_mutex_unlock(&p->lock);
    return next_us;
}

/* --- views --------------------------------------------------------------------------------------------------- */

void port_stats(struct port *p, enum conf_role role, struct sched_stats *out)
{
    pthread_mutex_lock(&p->lock);
    sched_stats(port_sched(p, role), port_now_us(p), out);
    pthread_mutex_unlock(&p->lock);
}

bool port_split(struct port *p)
{
    pthread_mutex_lock(&p->lock);
    bool split = p->split;
    pthread_mutex_unlock(&p->lock);
    return split;
}

void port_queue(struct port *p, struct port_queue *out)
{
    pthread_mutex_lock(&p->lock);
    *out = (struct port_queue){p->params.queueing, p->params.queue_bytes, p->params.queue_ttl_us,
                               p->params.queue_requests};
    pthread_mutex_unlock(&p->lock);
}

bool port_close_queue(struct port *p)
{
    pthread_mutex_lock(&p->lock);
    bool empty = p->n_queued == 0;
    if (empty) {
        p->params.queueing = false;
        set_params(p, &p->params, NULL);
    }
    leave(p);
    return empty;
}

/* Formatting hundreds of endpoints takes longer than a pick may wait, hence the copies. */
void port_views(struct port *p, void (*fn)(void *ctx, const struct ep_view *v, const struct endpoint *e), void *ctx)
{
    struct {
        struct ep_view view;
        struct endpoint *ep;
    } * v;
    uint32_t n = 0;
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    v = xmalloc((sched_ep_slots(p->sched) + (p->prefill ? sched_ep_slots(p->prefill) : 0) + 1) * sizeof *v);
    LIST_EACH (it, &p->eps) {
        struct endpoint *e = &CONTAINER_OF(it, struct ep, link)->pub;
        if (sched_ep_view(port_sched(p, e->role), e->ref.slot, now_us, &v[n].view))
            v[n++].ep = endpoint_ref(e);
    }
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < n; i++) {
        fn(ctx, &v[i].view, v[i].ep);
        endpoint_unref(v[i].ep);
    }
    free(v);
}

static bool same_ref(struct ep_ref a, struct ep_ref b)
{
    return a.slot == b.slot && a.gen == b.gen;
}

void port_ep_names(struct port *p, enum conf_role role, const struct ep_ref *refs, uint32_t n, char (*names)[EP_NAME])
{
    pthread_mutex_lock(&p->lock);
    for (uint32_t i = 0; i < n; i++) {
        struct ep_view v;
        bool here = sched_ep_view(port_sched(p, role), refs[i].slot, 0, &v) && same_ref(v.ep, refs[i]);
        copy_name(names[i], EP_NAME, here ? str_c(((const struct endpoint *)v.user)->name) : STR("gone"));
    }
    pthread_mutex_unlock(&p->lock);
}

static bool among(struct ep_ref ref, const struct ep_ref *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (same_ref(ref, v[i]))
            return true;
    return false;
}

static bool may_serve(const struct ep *e, uint64_t model)
{
    if (!model || !e->models_known)
        return true;
    for (uint32_t i = 0; i < e->n_models; i++)
        if (hash_bytes(e->models[i], strlen(e->models[i]), 0) == model)
            return true;
    return false;
}

uint32_t port_untried(struct port *p, enum conf_role role, uint64_t model, const struct ep_ref *tried, uint32_t n_tried)
{
    uint32_t n = 0;
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    if (!model_known(p, model))
        model = 0;
    LIST_EACH (it, &p->eps) {
        const struct ep *e = CONTAINER_OF(it, struct ep, link);
        struct ep_view v;
        if ((e->pub.role == ROLE_PREFILL) != (role == ROLE_PREFILL) || among(e->pub.ref, tried, n_tried) || !may_serve(e, model))
            continue;
        n += sched_ep_view(port_sched(p, role), e->pub.ref.slot, now_us, &v) && v.ready && !v.draining;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

bool port_models(struct port *p, void (*fn)(void *ctx, const char *id), void *ctx)
{
    bool known = false;
    struct map seen;
    map_init(&seen, 1);
    pthread_mutex_lock(&p->lock);
    LIST_EACH (it, &p->eps) {
        struct ep *e = CONTAINER_OF(it, struct ep, link);
        known |= e->models_known;
        for (uint32_t i = 0; i < e->n_models; i++) {
            if (map_get(&seen, str_c(e->models[i])))
                continue;
            map_put(&seen, str_c(e->models[i]), e);
            fn(ctx, e->models[i]);
        }
    }
    pthread_mutex_unlock(&p->lock);
    map_free(&seen);
    return known;
}

void port_remember_response(struct port *p, struct str id, struct endpoint *e)
{
    if (!id.n)
        return;
    pthread_mutex_lock(&p->lock);
    recall_put(&p->recall, id, e->ref);
    pthread_mutex_unlock(&p->lock);
}

struct ep_ref port_recall_response(struct port *p, struct str id)
{
    if (!id.n)
        return (struct ep_ref){0};
    pthread_mutex_lock(&p->lock);
    struct ep_ref ref = recall_get(&p->recall, id);
    pthread_mutex_unlock(&p->lock);
    return ref;
}

static void ask_models(struct port *p, struct ep *e)
{
    if (!atomic_exchange(&e->models_asked, true))
        scrape_ask_models(p->owner->scrape, e);
}

void port_models_stale(struct port *p, struct endpoint *e, uint64_t model)
{
    if (!p->pool)
        return;
    pthread_mutex_lock(&p->lock);
    uint64_t now_us = port_now_us(p);
    bool all = !model_known(p, model) && now_us >= p->all_models_us + ALL_MODELS_US;
    if (all)
        p->all_models_us = now_us;
    LIST_EACH (it, &p->eps)
        if (all || CONTAINER_OF(it, struct ep, link) == ep_of(e))
            ask_models(p, CONTAINER_OF(it, struct ep, link));
    pthread_mutex_unlock(&p->lock);
}
