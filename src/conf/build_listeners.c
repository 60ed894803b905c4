/* conf/build_listeners.c - listeners of our Gateways, the routes attached to them, and the timeouts of policies. */
#include "conf/build.h"

#include <stdio.h>
#include <stdlib.h>

/* Precedence of matches within a listener (Gateway API; a regular expression goes before prefixes as in Envoy Gateway,
 * else a catch-all "/" would hide it). Negative: a first. */
static int host_rank(struct str h)
{
    return h.n == 0 ? 2 : h.p[0] == '*' ? 1 : 0;
}

static int path_rank(enum conf_match_type t)
{
    return t == MATCH_EXACT ? 0 : t == MATCH_REGEX ? 1 : 2;
}

static int more_first(size_t a, size_t b)
{
    return a > b ? -1 : a < b;
}

static int by_precedence(const void *pa, const void *pb)
{
    const struct match_entry *a = pa, *b = pb;
    int c = host_rank(a->m.hostname) - host_rank(b->m.hostname);
    c = c ? c : more_first(a->m.hostname.n, b->m.hostname.n);
    c = c ? c : path_rank(a->m.path_type) - path_rank(b->m.path_type);
    c = c ? c : more_first(a->m.path.n, b->m.path.n);
    c = c ? c : more_first(a->m.method.n > 0, b->m.method.n > 0);
    c = c ? c : more_first(a->m.n_headers, b->m.n_headers);
    c = c ? c : more_first(a->m.n_queries, b->m.n_queries);
    c = c ? c : object_age_cmp(a->route, b->route);
    c = c ? c : more_first(b->rule, a->rule);
    c = c ? c : more_first(b->match, a->match);
    return c ? c : str_cmp(a->m.hostname, b->m.hostname);
}

static bool looks_at_model(const struct conf_match *m)
{
    for (uint32_t i = 0; i < m->n_headers; i++)
        if (m->headers[i].id == H_X_GATEWAY_MODEL_NAME)
            return true;
    return false;
}

static void finish_listener(struct build *b, struct pending *p, struct conf_listener *out)
{
    if (p->n > 1)
        qsort(p->v, p->n, sizeof *p->v, by_precedence);
    p->l.matches = arena_alloc(&b->c->arena, p->n * sizeof *p->l.matches + 1);
    p->l.n_matches = p->n;
    for (uint32_t i = 0; i < p->n; i++) {
        p->l.matches[i] = p->v[i].m;
        p->l.by_model |= looks_at_model(&p->v[i].m);
    }
    free(p->v);
    *out = p->l;
}

/* Policies */
static bool targets(const struct ref *r, const char *kind, const struct object *target, struct str section)
{
    return str_eq_c(r->kind, kind) && str_eq(r->name, target->meta.name) &&
           (r->section.n == 0 || str_eq(r->section, section));
}

uint64_t build_policy_timeout(const struct build *b, const char *kind, const struct object *target, struct str section)
{
    const struct object *best = NULL;
    bool best_exact = false;
    uint64_t us = 0;
    EACH_OBJECT(b, K_BTP, o)
    {
        const struct btp_spec *s = ((const struct btp *)o->spec)->spec;
        uint64_t here = s->timeout && s->timeout->http ? s->timeout->http->request_us : 0;
        if (!here || !str_eq(o->meta.ns, target->meta.ns))
            continue;
        for (uint32_t i = 0; i <= s->targets.n; i++) {
            const struct ref *r = i < s->targets.n ? &s->targets.v[i] : s->target;
            if (!r || !targets(r, kind, target, section))
                continue;
            bool exact = r->section.n > 0, older = best && object_age_cmp(o, best) < 0;
            if (!best || (exact && !best_exact) || (exact == best_exact && older)) {
                best = o;
                best_exact = exact;
                us = here;
            }
        }
    }
    return us;
}

static void check_policies(struct build *b)
{
    EACH_OBJECT(b, K_BTP, o)
    {
        const struct btp_spec *s = ((const struct btp *)o->spec)->spec;
        for (uint32_t i = 0; i <= s->targets.n; i++) {
            const struct ref *r = i < s->targets.n ? &s->targets.v[i] : s->target;
            if (r && !build_find(b, GROUP_GATEWAY, r->kind.p, o->meta.ns, r->name))
                build_note(b, CONF_WARNING, o, "spec.targetRef", "there is no " STR_FMT " " STR_FMT "/" STR_FMT,
                           STR_ARG(r->kind), STR_ARG(o->meta.ns), STR_ARG(r->name));
        }
    }
}

/* Gateways */
static bool gateway_is_ours(struct build *b, const struct object *gw)
{
    static const char *const controllers[] = {"inference.networking.x-k8s.io/gateway-controller",
                                              "gateway.envoyproxy.io/gatewayclass-controller",
                                              "penstock.dev/gateway-controller"};
    struct str name = ((const struct gateway *)gw->spec)->spec->class;
    const struct object *class = build_find(b, GROUP_GATEWAY, "GatewayClass", STR(""), name);
    if (!class) {
        build_note(b, CONF_WARNING, gw, "spec.gatewayClassName", "there is no GatewayClass " STR_FMT ": taken as ours",
                   STR_ARG(name));
        return true;
    }
    struct str controller = ((const struct gatewayclass *)class->spec)->spec->controller;
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++)
        if (str_eq_c(controller, controllers[i]))
            return true;
    build_note(b, CONF_INFO, gw, "spec.gatewayClassName",
               "belongs to the controller " STR_FMT ": this Gateway is not served here", STR_ARG(controller));
    return false;
}

struct listeners {
    struct pending *v;
    uint32_t n, cap;
};

static bool listener_usable(struct build *b, const struct listeners *all, const struct object *gw,
                            const struct listener *l)
{
    char field[300];
    snprintf(field, sizeof field, "spec.listeners." STR_FMT, STR_ARG(l->name));
    if (!str_eq_c(l->protocol, "HTTP")) {
        build_note(b, CONF_WARNING, gw, field, "protocol " STR_FMT " is not in effect yet: the listener is not opened",
                   STR_ARG(str_first(l->protocol, 64)));
        return false;
    }
    for (uint32_t i = 0; i < all->n; i++) {
        const struct pending *p = &all->v[i];
        if (p->l.port == l->port && str_eq(p->l.hostname, l->hostname)) {
            build_note(b, CONF_WARNING, gw, field, "port %u is taken by listener " STR_FMT " of " STR_FMT, p->l.port,
                       STR_ARG(p->l.name), STR_ARG(p->gateway->id));
            return false;
        }
    }
    if (l->allowed && l->allowed->namespaces && l->allowed->namespaces->from == FROM_SELECTOR)
        build_note(b, CONF_WARNING, gw, field,
                   "allowedRoutes by namespace labels is not in effect yet: routes of the own namespace attach");
    return true;
}

static void add_gateway(struct build *b, struct listeners *all, const struct object *gw)
{
    const struct gateway_spec *s = ((const struct gateway *)gw->spec)->spec;
    struct arena *a = &b->c->arena;
    for (uint32_t i = 0; i < s->listeners.n; i++) {
        const struct listener *l = &s->listeners.v[i];
        if (!listener_usable(b, all, gw, l))
            continue;
        if (all->n == all->cap) {
            all->cap = all->cap ? all->cap * 2 : 8;
            all->v = xrealloc(all->v, all->cap * sizeof *all->v);
        }
        struct pending *p = &all->v[all->n++];
        *p = (struct pending){.gateway = gw, .spec = l};
        p->l = (struct conf_listener){.gw_ns = arena_str(a, gw->meta.ns),
                                      .gw_name = arena_str(a, gw->meta.name),
                                      .name = arena_str(a, l->name),
                                      .hostname = arena_str(a, l->hostname),
                                      .port = (uint16_t)l->port,
                                      .request_timeout_us = build_policy_timeout(b, "Gateway", gw, l->name)};
    }
}

static int by_age(const void *pa, const void *pb)
{
    return object_age_cmp(*(const struct object *const *)pa, *(const struct object *const *)pb);
}

/* The older Gateway has the port when two want it. */
static void collect_listeners(struct build *b, struct listeners *all, struct map *ours)
{
    uint32_t n = b->first[K_GATEWAY + 1] - b->first[K_GATEWAY];
    const struct object **v = xcalloc(n + 1, sizeof *v);
    memcpy(v, b->objects + b->first[K_GATEWAY], n * sizeof *v);
    if (n > 1)
        qsort(v, n, sizeof *v, by_age);
    for (uint32_t i = 0; i < n; i++) {
        if (!gateway_is_ours(b, v[i]))
            continue;
        map_put(ours, v[i]->key, ours);
        add_gateway(b, all, v[i]);
    }
    free(v);
}

/* Routes to listeners */
static bool allows(const struct pending *p, const struct object *route)
{
    int from = p->spec->allowed && p->spec->allowed->namespaces ? p->spec->allowed->namespaces->from : FROM_SAME;
    return from == FROM_ALL || (from != FROM_NONE && str_eq(route->meta.ns, p->gateway->meta.ns));
}

static void attach_parent(struct build *b, struct listeners *all, const struct object *route, const struct ref *r,
                          const struct object *gw, uint32_t i)
{
    uint32_t named = 0, allowed = 0, attached = 0;
    char field[32];
    snprintf(field, sizeof field, "spec.parentRefs[%u]", i);
    for (uint32_t k = 0; k < all->n; k++) {
        struct pending *p = &all->v[k];
        if (p->gateway != gw || (r->section.n && !str_eq(r->section, p->l.name)) || (r->port && r->port != p->l.port))
            continue;
        named++;
        if (!allows(p, route))
            continue;
        allowed++;
        attached += p->last_route == route || build_attach(b, route, p) > 0;
        p->last_route = route;
    }
    if (!named)
        build_note(b, CONF_WARNING, route, field, STR_FMT " has no open listener " STR_FMT " for this route",
                   STR_ARG(gw->id), STR_ARG(r->section));
    else if (!allowed)
        build_note(b, CONF_WARNING, route, field, STR_FMT " does not allow routes of namespace " STR_FMT,
                   STR_ARG(gw->id), STR_ARG(route->meta.ns));
    else if (!attached)
        build_note(b, CONF_WARNING, route, field, "no host name of the route fits a listener of " STR_FMT,
                   STR_ARG(gw->id));
}

static void attach_route(struct build *b, struct listeners *all, const struct map *ours, const struct object *route)
{
    const struct httproute_spec *s = ((const struct httproute *)route->spec)->spec;
    if (s->parents.n == 0)
        build_note(b, CONF_WARNING, route, "spec.parentRefs", "is empty: the route belongs to no Gateway");
    for (uint32_t i = 0; i < s->parents.n; i++) {
        const struct ref *r = &s->parents.v[i];
        struct str ns = r->ns.n ? r->ns : route->meta.ns;
        char field[32];
        snprintf(field, sizeof field, "spec.parentRefs[%u]", i);
        if ((r->has_group && !str_eq_c(r->group, GROUP_GATEWAY)) || (r->kind.n && !str_eq_c(r->kind, "Gateway"))) {
            build_note(b, CONF_WARNING, route, field, "a parent of kind " STR_FMT " is not supported",
                       STR_ARG(r->kind));
            continue;
        }
        const struct object *gw = build_find(b, GROUP_GATEWAY, "Gateway", ns, r->name);
        if (!gw)
            build_note(b, CONF_WARNING, route, field, "there is no Gateway " STR_FMT "/" STR_FMT, STR_ARG(ns),
                       STR_ARG(r->name));
        else if (map_get(ours, gw->key))
            attach_parent(b, all, route, r, gw, i);
    }
}

void build_listeners(struct build *b)
{
    struct listeners all = {0};
    struct map ours;
    map_init(&ours, 0);
    collect_listeners(b, &all, &ours);
    EACH_OBJECT(b, K_HTTPROUTE, route)
    {
        build_check_route(b, route);
        attach_route(b, &all, &ours, route);
    }
    check_policies(b);
    b->c->listeners = arena_alloc(&b->c->arena, all.n * sizeof *b->c->listeners + 1);
    b->c->n_listeners = all.n;
    for (uint32_t i = 0; i < all.n; i++)
        finish_listener(b, &all.v[i], &b->c->listeners[i]);
    free(all.v);
    map_free(&ours);
}
