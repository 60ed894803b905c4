/* ports.c - the table of ports by backend key, and how it follows the configuration. */
#include "sched/impl.h"

#include "base/hash.h"
#include "sched/record.h"

#include <stdio.h>
#include <stdlib.h>

struct ports *ports_new(const struct ports_opts *o)
{
    struct ports *ps = xcalloc(1, sizeof *ps);
    ps->o = *o;
    if (ps->o.time_scale <= 0)
        ps->o.time_scale = 1;
    if (!ps->o.scrape_interval_us)
        ps->o.scrape_interval_us = 1000000;
    if (!ps->o.scrape_timeout_us)
        ps->o.scrape_timeout_us = 1000000;
    if (!ps->o.probe_ejected_us)
        ps->o.probe_ejected_us = 250000;
    pthread_mutex_init(&ps->lock, NULL);
    map_init(&ps->table, 0x706f727473ull);
    ps->scrape = scrape_start(ps);
    return ps;
}

void port_empty(struct port *p)
{
    while (!list_empty(&p->eps))
        port_remove_endpoint(p, CONTAINER_OF(p->eps.next, struct ep, link));
}

void ports_free(struct ports *ps)
{
    if (!ps)
        return;
    pthread_mutex_lock(&ps->lock);
    ps->closing = true; /* from here on the table is this thread's */
    pthread_mutex_unlock(&ps->lock);
    MAP_EACH (slot, &ps->table)
        port_empty(slot->val);
    scrape_stop(ps->scrape);
    MAP_EACH (slot, &ps->table)
        port_unref(slot->val);
    map_free(&ps->table);
    pthread_mutex_destroy(&ps->lock);
    free(ps);
}

static void backend_params(const struct conf_backend *b, struct sched_params *out)
{
    if (b->kind == BACKEND_POOL) {
        *out = b->sched;
        return;
    }
    sched_params_init(out);
    out->policy = SCHED_ROUND_ROBIN;
}

static struct port *port_new(struct ports *ps, const struct conf_backend *b)
{
    struct sched_params params;
    backend_params(b, &params);
    struct port *p = xcalloc(1, sizeof *p);
    atomic_init(&p->refs, 1);
    p->owner = ps;
    p->key = str_dup(b->key);
    p->name = str_dup(b->name);
    p->ns = str_dup(b->ns);
    p->pool = b->kind == BACKEND_POOL;
    pthread_mutex_init(&p->lock, NULL);
    p->source = source_new();
    p->seed = hash_bytes(b->key.p, b->key.n, ps->o.seed);
    p->sched = sched_new(&params, p->seed);
    if (ps->o.record && !b->pd)
        p->record_no = record_pool(ps->o.record, b->name, b->ns, !p->pool, p->seed, &params);
    list_init(&p->eps);
    if (p->pool && ps->o.decisions)
        p->decisions = decisions_new(ps->o.decisions);
    port_set_params(p, &params, b->pd ? &b->prefill : NULL);
    return p;
}

/* What makes an endpoint the same one across snapshots. */
static struct str endpoint_key(char *out, size_t cap, struct str ns, struct str pod, const struct addr *a,
                               uint16_t metrics_port, enum conf_role role)
{
    char at[64];
    addr_format(a, at, sizeof at);
    int n = snprintf(out, cap, STR_FMT "/" STR_FMT "|%s|%u|%d", STR_ARG(ns), STR_ARG(pod), at, metrics_port, (int)role);
    return (struct str){out, MIN((size_t)MAX(n, 0), cap - 1)};
}

static struct str conf_endpoint_key(char *out, size_t cap, const struct conf_endpoint *ce)
{
    struct addr a;
    if (!addr_parse(ce->host, ce->port, &a))
        return STR_NULL;
    struct endpoint cut; /* the names as port_add_endpoint cuts them */
    return endpoint_key(out, cap, str_first(ce->ns, sizeof cut.ns - 1), str_first(ce->pod, sizeof cut.name - 1), &a,
                        ce->metrics_port ? ce->metrics_port : ce->port, ce->role);
}

/* Adds what is new and removes what is gone; an endpoint that stays is not touched. Control thread, so p->eps changes
 * under nobody's feet. */
static void apply_endpoints(struct port *p, const struct conf_backend *b)
{
    char key[512];
    struct map wanted;
    map_init(&wanted, 2);
    for (uint32_t i = 0; i < b->n_endpoints; i++) {
        struct str k = conf_endpoint_key(key, sizeof key, &b->endpoints[i]);
        if (k.n)
            map_put(&wanted, k, &b->endpoints[i]);
    }
    LIST_EACH_SAFE (it, next, &p->eps) {
        struct ep *e = CONTAINER_OF(it, struct ep, link);
        struct str k = endpoint_key(key, sizeof key, str_c(e->pub.ns), str_c(e->pub.name), &e->pub.addr,
                                    addr_port(&e->pub.metrics_addr), e->pub.role);
        if (!map_del(&wanted, k))
            port_remove_endpoint(p, e);
    }
    for (uint32_t i = 0; i < b->n_endpoints; i++) {
        struct str k = conf_endpoint_key(key, sizeof key, &b->endpoints[i]);
        if (k.n && map_del(&wanted, k))
            port_add_endpoint(p, &b->endpoints[i]);
    }
    map_free(&wanted);
}

/* The port of this key, which from now on stays. */
static struct port *find_wanted(struct ports *ps, struct str key)
{
    pthread_mutex_lock(&ps->lock);
    struct port *p = map_get(&ps->table, key);
    if (p)
        p->retired = false;
    pthread_mutex_unlock(&ps->lock);
    return p;
}

static void apply_backend(struct ports *ps, const struct conf_backend *b)
{
    struct port *p = find_wanted(ps, b->key);
    if (!p) {
        p = port_new(ps, b);
        pthread_mutex_lock(&ps->lock);
        map_put(&ps->table, b->key, p);
        pthread_mutex_unlock(&ps->lock);
    } else {
        struct sched_params params;
        backend_params(b, &params);
        port_set_params(p, &params, b->pd ? &b->prefill : NULL);
    }
    source_set(p->source, b);
    apply_endpoints(p, b);
}

static bool wanted(const struct conf *c, const struct port *p)
{
    for (uint32_t i = 0; i < c->n_backends; i++)
        if (str_eq_c(c->backends[i].key, p->key))
            return true;
    return false;
}

/* Takes a port out of the table that is not wanted and not waited for. NULL when there is none (any more). c NULL: on
 * the scraping thread, those that were found unwanted before. */
static struct port *take_unwanted(struct ports *ps, const struct conf *c)
{
    struct port *gone = NULL;
    pthread_mutex_lock(&ps->lock);
    MAP_EACH (slot, &ps->table) {
        struct port *p = slot->val;
        if (c ? wanted(c, p) : !p->retired || ps->closing)
            continue;
        p->retired = true;
        if (port_close_queue(p)) {
            gone = p;
            break;
        }
    }
    if (gone)
        map_del(&ps->table, str_c(gone->key));
    pthread_mutex_unlock(&ps->lock);
    return gone;
}

static void bury(struct port *gone)
{
    port_empty(gone);
    port_unref(gone);
}

void ports_bury(struct ports *ps)
{
    struct port *gone;
    while ((gone = take_unwanted(ps, NULL)))
        bury(gone);
}

void ports_follow(struct ports *ps, const struct conf *c)
{
    for (uint32_t i = 0; i < c->n_backends; i++)
        apply_backend(ps, &c->backends[i]);
}

void ports_prune(struct ports *ps, const struct conf *c)
{
    struct port *gone;
    while ((gone = take_unwanted(ps, c)))
        bury(gone);
}

void ports_apply(struct ports *ps, const struct conf *c)
{
    ports_follow(ps, c);
    ports_prune(ps, c);
}

bool ports_ready(struct ports *ps)
{
    bool ready = true;
    pthread_mutex_lock(&ps->lock);
    MAP_EACH (slot, &ps->table)
        ready &= ((struct port *)slot->val)->retired || !port_warming(slot->val);
    pthread_mutex_unlock(&ps->lock);
    return ready;
}

struct port *ports_find(struct ports *ps, struct str key)
{
    pthread_mutex_lock(&ps->lock);
    struct port *p = map_get(&ps->table, key);
    if (p)
        port_ref(p);
    pthread_mutex_unlock(&ps->lock);
    return p;
}

void ports_each(struct ports *ps, void (*fn)(void *ctx, struct port *p), void *ctx)
{
    pthread_mutex_lock(&ps->lock);
    struct port **v = xcalloc(ps->table.n + 1, sizeof(struct port *));
    size_t n = 0;
    MAP_EACH (slot, &ps->table)
        v[n++] = port_ref(slot->val);
    pthread_mutex_unlock(&ps->lock);
    for (size_t i = 0; i < n; i++) {
        fn(ctx, v[i]);
        port_unref(v[i]);
    }
    free(v);
}
