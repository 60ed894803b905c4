/* conf/build_endpoints.c - which pods are behind a pool or a Service: ready, with an address, in its namespace,
 * selected by labels. */
#include "conf/build.h"

#include <stdio.h>
#include <stdlib.h>

#define ACTIVE_PORTS "inference.networking.k8s.io/active-ports"

struct obj_list {
    const struct object **v;
    uint32_t n, cap;
};

static void list_add(struct map *m, struct str key, const struct object *o)
{
    struct obj_list *l = map_get(m, key);
    if (!l) {
        l = xcalloc(1, sizeof *l);
        map_put(m, key, l);
    }
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 8;
        l->v = xrealloc(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n++] = o;
}

static void lists_free(struct map *m)
{
    MAP_EACH (slot, m) {
        struct obj_list *l = slot->val;
        free(l->v);
        free(l);
    }
    map_free(m);
}

void build_index_pods(struct build *b)
{
    map_init(&b->pods_by_ns, 0);
    map_init(&b->slices, 0);
    EACH_OBJECT(b, K_POD, o)
    if (pod_ready(o))
        list_add(&b->pods_by_ns, o->meta.ns, o);
    EACH_OBJECT(b, K_SLICE, o)
    {
        struct str service;
        char key[400];
        if (!kvs_get(&o->meta.labels, STR("kubernetes.io/service-name"), &service))
            continue;
        snprintf(key, sizeof key, STR_FMT "/" STR_FMT, STR_ARG(o->meta.ns), STR_ARG(service));
        list_add(&b->slices, str_c(key), o);
    }
}

void build_free_pods(struct build *b)
{
    lists_free(&b->pods_by_ns);
    lists_free(&b->slices);
}

/* Endpoints under construction: each address and port once. */
struct collect {
    struct arena *a;
    struct conf_endpoint *v; /* heap */
    uint32_t n, cap;
    struct map seen;
    enum conf_role role; /* of what is added */
};

static void collect_add(struct collect *c, struct str ns, struct str pod, struct str host, int64_t port)
{
    char key[80];
    snprintf(key, sizeof key, STR_FMT " %lld", STR_ARG(host), (long long)port);
    if (map_put(&c->seen, str_c(key), c))
        return;
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 16;
        c->v = xrealloc(c->v, c->cap * sizeof *c->v);
    }
    c->v[c->n++] = (struct conf_endpoint){.ns = arena_str(c->a, ns),
                                          .pod = arena_str(c->a, pod),
                                          .host = arena_str(c->a, host),
                                          .port = (uint16_t)port,
                                          .role = c->role};
}

static void collect_done(struct collect *c, struct conf_backend *out)
{
    out->endpoints = arena_alloc(c->a, c->n * sizeof *c->v + 1);
    if (c->n)
        memcpy(out->endpoints, c->v, c->n * sizeof *c->v);
    out->n_endpoints = c->n;
    free(c->v);
    map_free(&c->seen);
}

/* A pod may say which of the pool's ports it really serves: "8000,8002". */
static bool port_active(const struct object *pod, int64_t port)
{
    struct str list;
    if (!kvs_get(&pod->meta.annotations, STR(ACTIVE_PORTS), &list))
        return true;
    while (list.n) {
        ptrdiff_t comma = str_find(list, STR(","));
        uint64_t n;
        if (str_to_u64(str_trim(comma < 0 ? list : str_first(list, (size_t)comma)), &n) && n == (uint64_t)port)
            return true;
        list = comma < 0 ? STR("") : str_from(list, (size_t)comma + 1);
    }
    return false;
}

const char *conf_role_name(enum conf_role r)
{
    static const char *const names[] = {"", "prefill", "decode"};
    return names[r];
}

/* The set that a pod of a split pool belongs to; false when to none. */
static bool role_of(const struct object *pod, const struct conf_pd *pd, enum conf_role *role)
{
    struct str value = STR("");
    *role = ROLE_ANY;
    if (!pd)
        return true;
    kvs_get(&pod->meta.labels, pd->role_label, &value);
    *role = str_eq_c(value, conf_role_name(ROLE_PREFILL)) ? ROLE_PREFILL : ROLE_DECODE;
    return str_eq_c(value, conf_role_name(*role));
}

static void count_no_role(struct no_role *none, const struct object *pod)
{
    if (none->n < ARRAY_LEN(none->pods))
        none->pods[none->n] = pod;
    none->n++;
}

void build_pool_endpoints(struct build *b, const struct object *pool, struct conf_backend *out, struct no_role *none)
{
    const struct pool_spec *s = &((const struct pool *)pool->spec)->spec;
    const struct obj_list *pods = map_get(&b->pods_by_ns, pool->meta.ns);
    struct collect c = {.a = &b->c->arena};
    map_init(&c.seen, 0);
    for (uint32_t i = 0; pods && i < pods->n; i++) {
        const struct object *pod = pods->v[i];
        if (!kvs_contains(&pod->meta.labels, &s->selector))
            continue;
        if (!role_of(pod, out->pd, &c.role)) {
            count_no_role(none, pod);
            continue;
        }
        for (uint32_t k = 0; k < s->ports.n; k++)
            if (port_active(pod, s->ports.v[k].number))
                collect_add(&c, pod->meta.ns, pod->meta.name, ((const struct pod *)pod->spec)->status->ip,
                            s->ports.v[k].number);
    }
    collect_done(&c, out);
}

static void collect_slice(struct collect *c, const struct object *o, const struct service_port *port)
{
    const struct slice *s = o->spec;
    int64_t number = 0;
    for (uint32_t i = 0; i < s->ports.n; i++)
        if (str_eq(s->ports.v[i].name, port->name))
            number = s->ports.v[i].port;
    for (uint32_t i = 0; number && i < s->endpoints.n; i++) {
        const struct slice_endpoint *e = &s->endpoints.v[i];
        if (e->addresses.n == 0 || (e->conditions && (!e->conditions->ready || e->conditions->terminating)))
            continue;
        bool named = e->target && str_eq_c(e->target->kind, "Pod") && e->target->name.n;
        collect_add(c, o->meta.ns, named ? e->target->name : e->addresses.v[0], e->addresses.v[0], number);
    }
}

static int64_t pod_port(const struct object *pod, const struct service_port *port)
{
    const struct pod *p = pod->spec;
    if (port->target_port)
        return port->target_port;
    for (uint32_t i = 0; p->spec && i < p->spec->containers.n; i++)
        for (uint32_t k = 0; k < p->spec->containers.v[i].ports.n; k++)
            if (str_eq(p->spec->containers.v[i].ports.v[k].name, port->target_name))
                return p->spec->containers.v[i].ports.v[k].port;
    return 0;
}

void build_service_endpoints(struct build *b, const struct object *service, const struct service_port *port,
                             struct conf_backend *out)
{
    const struct service_spec *s = ((const struct service *)service->spec)->spec;
    struct collect c = {.a = &b->c->arena};
    char key[400];
    snprintf(key, sizeof key, STR_FMT "/" STR_FMT, STR_ARG(service->meta.ns), STR_ARG(service->meta.name));
    const struct obj_list *slices = map_get(&b->slices, str_c(key)), *pods = map_get(&b->pods_by_ns, service->meta.ns);
    map_init(&c.seen, 0);
    for (uint32_t i = 0; slices && i < slices->n; i++)
        collect_slice(&c, slices->v[i], port);
    for (uint32_t i = 0; !slices && pods && i < pods->n; i++) {
        int64_t number = pod_port(pods->v[i], port);
        if (number && kvs_contains(&pods->v[i]->meta.labels, &s->selector))
            collect_add(&c, pods->v[i]->meta.ns, pods->v[i]->meta.name,
                        ((const struct pod *)pods->v[i]->spec)->status->ip, number);
    }
    collect_done(&c, out);
}
