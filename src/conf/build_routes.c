/* conf/build_routes.c - one HTTPRoute on one listener: its host names, rules with filters and backends, and matches. */
#include "conf/build.h"
#include "http/uri.h"

#include <stdio.h>
#include <stdlib.h>

/* Host names. "*.example.com" stands for one or more labels before ".example.com". */
static bool is_wild(struct str h)
{
    return h.n > 2 && h.p[0] == '*';
}

static bool wild_covers(struct str wild, struct str h)
{
    struct str tail = str_from(wild, 1), name = is_wild(h) ? str_from(h, 1) : h;
    return str_ends(name, tail) && (name.n > tail.n || is_wild(h));
}

/* What a route's and a listener's host name have in common, the narrower one; false when nothing. "" is any. */
static bool intersect(struct str route, struct str listener, struct str *out)
{
    if (listener.n == 0 || route.n == 0) {
        *out = listener.n ? listener : route;
        return true;
    }
    if (str_eq(route, listener) || (is_wild(listener) && wild_covers(listener, route))) {
        *out = route;
        return true;
    }
    *out = listener;
    return is_wild(route) && wild_covers(route, listener);
}

/* Filters */
static struct conf_header_mod *header_mod(struct arena *a, const struct header_mod *m)
{
    struct conf_header_mod *o = arena_zalloc(a, sizeof *o);
    o->set = arena_zalloc(a, (m->set.n + 1) * sizeof *o->set);
    o->add = arena_zalloc(a, (m->add.n + 1) * sizeof *o->add);
    o->remove = arena_zalloc(a, (m->remove.n + 1) * sizeof *o->remove);
    for (; o->n_set < m->set.n; o->n_set++) {
        o->set[o->n_set].name = arena_str(a, m->set.v[o->n_set].name);
        o->set[o->n_set].value = arena_str(a, m->set.v[o->n_set].value);
    }
    for (; o->n_add < m->add.n; o->n_add++) {
        o->add[o->n_add].name = arena_str(a, m->add.v[o->n_add].name);
        o->add[o->n_add].value = arena_str(a, m->add.v[o->n_add].value);
    }
    for (; o->n_remove < m->remove.n; o->n_remove++)
        o->remove[o->n_remove] = arena_str(a, m->remove.v[o->n_remove]);
    return o;
}

static struct str path_mod(struct arena *a, const struct path_mod *p, bool *prefix)
{
    *prefix = p && p->type == PATH_MOD_PREFIX;
    return arena_str(a, !p ? STR("") : *prefix ? p->prefix : p->full);
}

static struct conf_redirect *redirect(struct arena *a, const struct redirect *r)
{
    struct conf_redirect *o = arena_zalloc(a, sizeof *o);
    bool prefix;
    o->scheme = arena_str(a, r->scheme);
    o->hostname = arena_str(a, r->hostname);
    o->path = path_mod(a, r->path, &prefix);
    o->path_type = !r->path ? PATH_KEEP : prefix ? PATH_PREFIX : PATH_FULL;
    o->port = (uint16_t)r->port;
    o->status = (unsigned)r->status;
    return o;
}

static struct conf_rewrite *rewrite(struct arena *a, const struct rewrite *r)
{
    struct conf_rewrite *o = arena_zalloc(a, sizeof *o);
    bool prefix;
    o->hostname = arena_str(a, r->hostname);
    o->path = path_mod(a, r->path, &prefix);
    o->path_type = !r->path ? PATH_KEEP : prefix ? PATH_PREFIX : PATH_FULL;
    return o;
}

/* Returns the problem of a filter that requests must not pass without, "" when there is none. */
static struct str add_filters(struct arena *a, const struct route_rule *r, struct conf_rule *o)
{
    struct str problem = STR("");
    for (uint32_t i = 0; i < r->filters.n; i++) {
        const struct filter *f = &r->filters.v[i];
        if (f->type == FILTER_REQUEST_HEADER)
            o->req_mod = header_mod(a, f->request_header);
        else if (f->type == FILTER_RESPONSE_HEADER)
            o->resp_mod = header_mod(a, f->response_header);
        else if (f->type == FILTER_REDIRECT)
            o->redirect = redirect(a, f->redirect);
        else if (f->type == FILTER_REWRITE)
            o->rewrite = rewrite(a, f->rewrite);
        else if (f->type == FILTER_EXTENSION || f->type == FILTER_AUTH)
            problem = STR("a filter of the rule is not supported");
    }
    return problem;
}

static void add_backends(struct build *b, const struct object *route, const struct route_rule *r, struct str problem,
                         struct conf_rule *o)
{
    o->refs = arena_zalloc(&b->c->arena, (r->backends.n + 1) * sizeof *o->refs);
    for (uint32_t i = 0; i < r->backends.n; i++) {
        struct conf_backend_ref *ref = &o->refs[o->n_refs++];
        ref->weight = (uint32_t)r->backends.v[i].weight;
        ref->problem = problem;
        ref->backend = problem.n ? CONF_NO_BACKEND : build_backend(b, route, &r->backends.v[i], &ref->problem);
        o->total_weight += ref->weight;
    }
}

static const struct conf_rule *build_rule(struct build *b, const struct object *route, uint32_t index,
                                          const struct conf_listener *l)
{
    const struct route_rule *r = &((const struct httproute *)route->spec)->spec->rules.v[index];
    struct arena *a = &b->c->arena;
    struct conf_rule *o = arena_zalloc(a, sizeof *o);
    o->route_ns = arena_str(a, route->meta.ns);
    o->route_name = arena_str(a, route->meta.name);
    o->index = index;
    struct str problem = add_filters(a, r, o);
    add_backends(b, route, r, problem, o);
    if (r->timeouts) {
        o->request_timeout_us = r->timeouts->request_us;
        o->backend_timeout_us = r->timeouts->backend_us;
    }
    if (!o->request_timeout_us)
        o->request_timeout_us = build_policy_timeout(b, "HTTPRoute", route, STR(""));
    if (!o->request_timeout_us)
        o->request_timeout_us = l->request_timeout_us;
    return o;
}

/* Matches */
static struct conf_kv_match *kv_matches(struct build *b, const struct kv_match *v, uint32_t n, bool headers,
                                        uint32_t *out_n)
{
    struct conf_kv_match *o = arena_zalloc(&b->c->arena, (n + 1) * sizeof *o);
    for (uint32_t i = 0; i < n; i++) {
        struct conf_kv_match *m = &o[*out_n];
        bool twice = false; /* of several matches of one name the first counts (Gateway API) */
        for (uint32_t k = 0; k < *out_n; k++)
            twice |= headers ? str_ieq(o[k].name, v[i].name) : str_eq(o[k].name, v[i].name);
        if (twice)
            continue;
        m->type = v[i].type == MATCH_TYPE_REGEX ? MATCH_REGEX : MATCH_EXACT;
        m->name = arena_str(&b->c->arena, v[i].name);
        m->value = arena_str(&b->c->arena, v[i].value);
        m->id = headers ? h1_name_id(m->name) : H_UNKNOWN;
        if (m->id == H_X_GATEWAY_DESTINATION)
            m->id = H_UNKNOWN; /* stands for several names */
        m->re = m->type == MATCH_REGEX ? build_regex(b, m->value) : NULL;
        (*out_n)++;
    }
    return o;
}

/* The path is stored as requests are normalised, so that both spell escapes alike. */
static void path_match(struct build *b, const struct path_match *p, struct conf_match *m)
{
    struct str value = p ? p->value : STR("/");
    m->path_type = !p || p->type == PATH_TYPE_PREFIX ? MATCH_PREFIX
                   : p->type == PATH_TYPE_EXACT      ? MATCH_EXACT
                                                     : MATCH_REGEX;
    if (m->path_type == MATCH_REGEX) {
        m->path = arena_str(&b->c->arena, value);
        m->path_re = build_regex(b, value);
        return;
    }
    char *out = arena_alloc(&b->c->arena, value.n + 1);
    size_t n = uri_path_ok(value) ? uri_path_normalise(value, out) : (memcpy(out, value.p, value.n), value.n);
    out[n] = '\0';
    m->path = (struct str){out, n};
}

static void build_match(struct build *b, const struct route_match *r, struct conf_match *m)
{
    path_match(b, r ? r->path : NULL, m);
    m->method = r ? arena_str(&b->c->arena, r->method) : STR("");
    if (!r)
        return;
    m->headers = kv_matches(b, r->headers.v, r->headers.n, true, &m->n_headers);
    m->queries = kv_matches(b, r->queries.v, r->queries.n, false, &m->n_queries);
}

static void add_match(struct pending *p, const struct match_entry *e)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 8;
        p->v = xrealloc(p->v, p->cap * sizeof *p->v);
    }
    p->v[p->n++] = *e;
}

static void add_rule(struct build *b, const struct object *route, uint32_t index, struct pending *p,
                     const struct str *hosts, uint32_t n_hosts)
{
    const struct route_rule *r = &((const struct httproute *)route->spec)->spec->rules.v[index];
    const struct conf_rule *rule = build_rule(b, route, index, &p->l);
    for (uint32_t k = 0; k < MAX(r->matches.n, 1); k++) {
        struct match_entry e = {.route = route, .rule = index, .match = k};
        e.m.rule = rule;
        build_match(b, r->matches.n ? &r->matches.v[k] : NULL, &e.m);
        for (uint32_t h = 0; h < n_hosts; h++) {
            e.m.hostname = hosts[h];
            add_match(p, &e);
        }
    }
}

uint32_t build_attach(struct build *b, const struct object *route, struct pending *p)
{
    const struct httproute_spec *s = ((const struct httproute *)route->spec)->spec;
    struct str hosts[17];
    uint32_t n = 0;
    for (uint32_t i = 0; i < MAX(s->hostnames.n, 1) && n < ARRAY_LEN(hosts); i++) {
        struct str h;
        bool twice = false;
        if (!intersect(s->hostnames.n ? s->hostnames.v[i] : STR(""), p->l.hostname, &h))
            continue;
        for (uint32_t k = 0; k < n; k++)
            twice |= str_eq(hosts[k], h);
        if (!twice)
            hosts[n++] = arena_str(&b->c->arena, h);
    }
    for (uint32_t i = 0; n && i < s->rules.n; i++)
        add_rule(b, route, i, p, hosts, n);
    return n;
}

void build_check_route(struct build *b, const struct object *route)
{
    const struct httproute_spec *s = ((const struct httproute *)route->spec)->spec;
    for (uint32_t i = 0; i < s->rules.n; i++) {
        const struct route_rule *r = &s->rules.v[i];
        for (uint32_t k = 0; k < r->backends.n; k++) {
            char field[64];
            struct str problem;
            snprintf(field, sizeof field, "spec.rules[%u].backendRefs[%u]", i, k);
            if (build_backend(b, route, &r->backends.v[k], &problem) == CONF_NO_BACKEND)
                build_note(b, CONF_WARNING, route, field, STR_FMT ": its share of the requests is answered with 500",
                           STR_ARG(problem));
        }
    }
}
