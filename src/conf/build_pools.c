/* conf/build_pools.c - the backends of a snapshot: every InferencePool with its settings, and the Services that routes
 * name. */
#include "conf/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct conf_backend *backend_new(struct build *b, struct str index_key, const struct object *o)
{
    struct conf *c = b->c;
    if (c->n_backends == b->cap_backends) {
        struct conf_backend *old = c->backends;
        b->cap_backends = b->cap_backends ? b->cap_backends * 2 : 16;
        c->backends = arena_zalloc(&c->arena, b->cap_backends * sizeof *old);
        if (c->n_backends)
            memcpy(c->backends, old, c->n_backends * sizeof *old);
    }
    struct conf_backend *out = &c->backends[c->n_backends++];
    map_put(&b->backend_index, index_key, (void *)(uintptr_t)c->n_backends);
    out->ns = arena_str(&c->arena, o->meta.ns);
    out->name = arena_str(&c->arena, o->meta.name);
    out->source = str_c(arena_printf(&c->arena, STR_FMT ":%u", STR_ARG(o->file), o->line));
    return out;
}

static const struct conf_backend *find_previous(const struct build *b, struct str key)
{
    for (uint32_t i = 0; b->previous && i < b->previous->n_backends; i++)
        if (str_eq(b->previous->backends[i].key, key))
            return &b->previous->backends[i];
    return NULL;
}

/* Pools. The two API groups are different objects; when both have one of the same name, the v1 one takes another key.
 */
static struct str pool_key(struct build *b, const struct object *o)
{
    bool v1 = !strcmp(o->def->group, GROUP_POOL);
    bool both = v1 && build_find(b, GROUP_POOL_X, "InferencePool", o->meta.ns, o->meta.name);
    return str_c(arena_printf(&b->c->arena, "pool%s/" STR_FMT "/" STR_FMT, both ? ".v1" : "", STR_ARG(o->meta.ns),
                              STR_ARG(o->meta.name)));
}

/* Tells of pods without a role, and counts them. */
static void count_no_role(struct build *b, const struct object *policy, const struct no_role *none,
                          struct conf_backend *out)
{
    struct conf_pd *pd = arena_alloc(&b->c->arena, sizeof *pd);
    *pd = *out->pd;
    pd->n_without_role = none->n;
    out->pd = pd;
    build_warn_no_role(b, policy, none);
}

static void build_pool(struct build *b, const struct object *o)
{
    struct conf_backend *out = backend_new(b, o->key, o);
    struct no_role none = {0};
    out->kind = BACKEND_POOL;
    out->key = pool_key(b, o);
    annotations_apply(o, find_previous(b, out->key), &b->c->arena, out, b->rep);
    const struct object *policy = build_policy(b, o, out);
    build_pool_endpoints(b, o, out, &none);
    if (none.n)
        count_no_role(b, policy, &none, out);
}

void build_pools(struct build *b)
{
    build_index_policies(b);
    EACH_OBJECT(b, K_POOL, o)
    build_pool(b, o);
    build_models(b);
    build_check_policies(b);
    map_free(&b->policy_of);
}

/* References */
static uint32_t unresolved(struct build *b, struct str *problem, const char *fmt, ...) PRINTF_LIKE(3, 4);
static uint32_t unresolved(struct build *b, struct str *problem, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    *problem = arena_str(&b->c->arena, str_c(text));
    return CONF_NO_BACKEND;
}

static uint32_t service_backend(struct build *b, const struct ref *r, struct str ns, struct str *problem)
{
    const struct object *o = build_find(b, "", "Service", ns, r->name);
    if (!o)
        return unresolved(b, problem, "there is no Service " STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(r->name));
    const struct service_spec *s = ((const struct service *)o->spec)->spec;
    if (r->port == 0)
        return unresolved(b, problem, "the reference to Service " STR_FMT "/" STR_FMT " needs a port", STR_ARG(ns),
                          STR_ARG(r->name));
    if (str_eq_c(s->type, "ExternalName"))
        return unresolved(b, problem, "Service " STR_FMT "/" STR_FMT " is of type ExternalName, which is not supported",
                          STR_ARG(ns), STR_ARG(r->name));
    char *key = arena_printf(&b->c->arena, "service/" STR_FMT "/" STR_FMT ":%lld", STR_ARG(ns), STR_ARG(r->name),
                             (long long)r->port);
    uintptr_t known = (uintptr_t)map_get(&b->backend_index, str_c(key));
    if (known)
        return (uint32_t)known - 1;
    for (uint32_t i = 0; i < s->ports.n; i++) {
        if (s->ports.v[i].port != r->port)
            continue;
        struct conf_backend *out = backend_new(b, str_c(key), o);
        out->kind = BACKEND_SERVICE;
        out->key = str_c(key);
        out->port = (uint16_t)r->port;
        sched_params_init(&out->sched);
        out->sched.policy = SCHED_ROUND_ROBIN;
        build_service_endpoints(b, o, &s->ports.v[i], out);
        return b->c->n_backends - 1;
    }
    return unresolved(b, problem, "Service " STR_FMT "/" STR_FMT " has no port %lld", STR_ARG(ns), STR_ARG(r->name),
                      (long long)r->port);
}

static uint32_t pool_backend(struct build *b, const struct ref *r, struct str ns, struct str *problem)
{
    const char *group = str_eq_c(r->group, GROUP_POOL) ? GROUP_POOL : GROUP_POOL_X;
    const struct object *o = build_find(b, group, "InferencePool", ns, r->name);
    if (!o)
        return unresolved(b, problem, "there is no InferencePool " STR_FMT "/" STR_FMT " of group %s", STR_ARG(ns),
                          STR_ARG(r->name), group);
    return (uint32_t)(uintptr_t)map_get(&b->backend_index, o->key) - 1;
}

/* A reference into another namespace needs the consent of that namespace. */
static bool granted(const struct build *b, const struct object *route, const struct ref *r)
{
    EACH_OBJECT(b, K_REFERENCEGRANT, o)
    {
        const struct refgrant_spec *g = ((const struct refgrant *)o->spec)->spec;
        bool from = false, to = false;
        if (!str_eq(o->meta.ns, r->ns))
            continue;
        for (uint32_t i = 0; i < g->from.n; i++)
            from |= str_eq_c(g->from.v[i].group, GROUP_GATEWAY) && str_eq_c(g->from.v[i].kind, "HTTPRoute") &&
                    str_eq(g->from.v[i].ns, route->meta.ns);
        for (uint32_t i = 0; i < g->to.n; i++)
            to |= str_eq(g->to.v[i].group, r->group) && str_eq_c(g->to.v[i].kind, r->kind.n ? r->kind.p : "Service") &&
                  (g->to.v[i].name.n == 0 || str_eq(g->to.v[i].name, r->name));
        if (from && to)
            return true;
    }
    return false;
}

uint32_t build_backend(struct build *b, const struct object *route, const struct backend_ref *br, struct str *problem)
{
    const struct ref *r = &br->ref;
    struct str ns = r->ns.n ? r->ns : route->meta.ns;
    bool pool =
        (str_eq_c(r->group, GROUP_POOL_X) || str_eq_c(r->group, GROUP_POOL)) && str_eq_c(r->kind, "InferencePool");
    bool service = r->group.n == 0 && (r->kind.n == 0 || str_eq_c(r->kind, "Service"));
    *problem = STR("");
    if (br->has_filters)
        return unresolved(b, problem, "filters of a single backend are not supported");
    if (!pool && !service)
        return unresolved(b, problem, "a backend of group \"" STR_FMT "\" and kind \"" STR_FMT "\" is not supported",
                          STR_ARG(str_first(r->group, 100)), STR_ARG(str_first(r->kind, 63)));
    if (!str_eq(ns, route->meta.ns) && !granted(b, route, r))
        return unresolved(b, problem, "the backend is in namespace " STR_FMT " and no ReferenceGrant there allows it",
                          STR_ARG(ns));
    return pool ? pool_backend(b, r, ns, problem) : service_backend(b, r, ns, problem);
}
