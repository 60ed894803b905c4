/* plane.c - a configuration snapshot with what belongs to it at run time: backends with their ports and metrics,
 * listeners by TCP port. */
#include "proxy/impl.h"

#include <stdlib.h>

static struct backend *backend_ref(struct backend *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void backend_unref(struct backend *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    port_unref(b->port);
    char *key;
    memcpy(&key, &b->key.p, sizeof key);
    free(key);
    free(b);
}

static struct backend *backend_for(struct gateway *g, const struct conf_backend *cb, const struct plane *previous)
{
    struct port *port = ports_find(g->ports, cb->key);
    CHECK(port); /* ports_apply came before */
    for (uint32_t i = 0; previous && i < previous->conf->n_backends; i++) {
        if (previous->backends[i]->port == port) {
            port_unref(port);
            return backend_ref(previous->backends[i]);
        }
    }
    struct backend *b = xcalloc(1, sizeof *b);
    atomic_init(&b->refs, 1);
    b->port = port;
    b->key = (struct str){str_dup(cb->key), cb->key.n};
    b->pool = cb->kind == BACKEND_POOL;
    metrics_backend_init(g, b);
    return b;
}

/* Exact hostnames before wildcards, longer wildcards before shorter, none last. */
static int hostname_rank(const struct conf_listener *l)
{
    if (!l->hostname.n)
        return 0;
    return l->hostname.p[0] == '*' ? (int)l->hostname.n : 100000;
}

static int cmp_listener(const void *a, const void *b)
{
    const struct conf_listener *x = *(const struct conf_listener *const *)a,
                               *y = *(const struct conf_listener *const *)b;
    return hostname_rank(y) - hostname_rank(x);
}

static void add_listener(struct plane *p, const struct conf_listener *l)
{
    struct plane_port *pp = NULL;
    for (uint32_t i = 0; i < p->n_ports; i++)
        if (p->ports[i].port == l->port)
            pp = &p->ports[i];
    if (!pp) {
        pp = &p->ports[p->n_ports++];
        pp->port = l->port;
        pp->listeners = xcalloc(p->conf->n_listeners, sizeof *pp->listeners);
    }
    pp->by_model |= l->by_model;
    pp->listeners[pp->n_listeners++] = l;
}

struct plane *plane_build(struct gateway *g, struct conf *c, const struct plane *previous)
{
    struct plane *p = xcalloc(1, sizeof *p);
    atomic_init(&p->refs, 1);
    p->conf = conf_ref(c);
    p->backends = xcalloc(c->n_backends + 1, sizeof *p->backends);
    for (uint32_t i = 0; i < c->n_backends; i++)
        p->backends[i] = backend_for(g, &c->backends[i], previous);
    p->ports = xcalloc(c->n_listeners + 1, sizeof *p->ports);
    for (uint32_t i = 0; i < c->n_listeners; i++)
        add_listener(p, &c->listeners[i]);
    for (uint32_t i = 0; i < p->n_ports; i++)
        qsort(p->ports[i].listeners, p->ports[i].n_listeners, sizeof *p->ports[i].listeners, cmp_listener);
    return p;
}

struct plane *plane_ref(struct plane *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void plane_unref(struct plane *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < p->conf->n_backends; i++)
        backend_unref(p->backends[i]);
    for (uint32_t i = 0; i < p->n_ports; i++)
        free(p->ports[i].listeners);
    free(p->backends);
    free(p->ports);
    conf_unref(p->conf);
    free(p);
}

const struct plane_port *plane_find_port(const struct plane *p, uint16_t port)
{
    for (uint32_t i = 0; i < p->n_ports; i++)
        if (p->ports[i].port == port)
            return &p->ports[i];
    return NULL;
}

static bool hostname_matches(struct str pattern, struct str host)
{
    if (!pattern.n)
        return true;
    if (pattern.p[0] != '*')
        return str_eq(pattern, host);
    struct str suffix = str_from(pattern, 1);
    return host.n > suffix.n && str_ends(host, suffix);
}

const struct conf_listener *plane_find_listener(const struct plane_port *pp, struct str host)
{
    for (uint32_t i = 0; i < pp->n_listeners; i++)
        if (hostname_matches(pp->listeners[i]->hostname, host))
            return pp->listeners[i];
    return NULL;
}

void world_unref(struct world *w)
{
    if (!w || --w->refs)
        return;
    plane_unref(w->plane);
    free(w);
}
