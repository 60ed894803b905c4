/* conf/route.c - which match of a listener a request falls under, and the weighted draws. */
#include "conf/regex.h"
#include "conf/types.h"
#include "http/uri.h"

#define MAX_VALUE 8192 /* a header or query value longer than this matches nothing */

static bool host_fits(struct str pattern, struct str host)
{
    if (pattern.n == 0)
        return true;
    if (pattern.p[0] != '*')
        return str_eq(pattern, host);
    struct str tail = str_from(pattern, 1);
    return host.n > tail.n && str_ends(host, tail);
}

static bool path_fits(const struct conf_match *m, struct str path)
{
    switch (m->path_type) {
    case MATCH_EXACT:
        return str_eq(m->path, path);
    case MATCH_PREFIX:
        return uri_prefix_match(path, m->path);
    case MATCH_REGEX:
        return regex_match(m->path_re, path);
    }
    return false;
}

static bool value_fits(const struct conf_kv_match *m, struct str value)
{
    return m->type == MATCH_REGEX ? regex_match(m->re, value) : str_eq(m->value, value);
}

/* Several headers of one name count as one, joined with commas (RFC 9110 5.3). */
static bool joined_fits(const struct conf_kv_match *m, const struct h1_head *head, size_t first)
{
    char text[MAX_VALUE];
    size_t n = 0;
    for (size_t i = first; i < head->n_headers; i++) {
        const struct h1_header *h = &head->headers[i];
        if (!str_ieq(h->name, m->name))
            continue;
        if (n + h->value.n + 1 > sizeof text)
            return false;
        if (i != first)
            text[n++] = ',';
        memcpy(text + n, h->value.p, h->value.n);
        n += h->value.n;
    }
    return value_fits(m, (struct str){text, n});
}

static bool header_fits(const struct conf_kv_match *m, const struct conf_route_req *rq)
{
    const struct h1_header *found = NULL;
    size_t at = 0;
    if (m->id == H_X_GATEWAY_MODEL_NAME)
        return rq->model.n > 0 && value_fits(m, rq->model);
    for (size_t i = 0; rq->head && i < rq->head->n_headers; i++) {
        const struct h1_header *h = &rq->head->headers[i];
        if (m->id != H_UNKNOWN ? h->id != m->id : !str_ieq(h->name, m->name))
            continue;
        if (found)
            return joined_fits(m, rq->head, at);
        found = h;
        at = i;
    }
    return found && value_fits(m, found->value);
}

static bool query_fits(const struct conf_kv_match *m, struct str query)
{
    char text[MAX_VALUE];
    struct str value;
    return query.p && uri_query_get(query, m->name, text, sizeof text, &value) && value_fits(m, value);
}

static bool match_fits(const struct conf_match *m, const struct conf_route_req *rq)
{
    if (!host_fits(m->hostname, rq->host) || !path_fits(m, rq->path) || (m->method.n && !str_eq(m->method, rq->method)))
        return false;
    for (uint32_t i = 0; i < m->n_headers; i++)
        if (!header_fits(&m->headers[i], rq))
            return false;
    for (uint32_t i = 0; i < m->n_queries; i++)
        if (!query_fits(&m->queries[i], rq->query))
            return false;
    return true;
}

const struct conf_match *conf_route(const struct conf_listener *l, const struct conf_route_req *rq)
{
    for (uint32_t i = 0; i < l->n_matches; i++)
        if (match_fits(&l->matches[i], rq))
            return &l->matches[i];
    return NULL;
}

/* The element of a sorted array whose name, a struct str at offset `at`, is the one given. */
static const void *find_name(const void *v, uint32_t n, size_t size, size_t at, struct str name)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const char *x = (const char *)v + mid * size;
        int c = str_cmp(*(const struct str *)(const void *)(x + at), name);
        if (c == 0)
            return x;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const struct conf_model *conf_find_model(const struct conf_backend *pool, struct str model_name)
{
    return find_name(pool->models, pool->n_models, sizeof *pool->models, offsetof(struct conf_model, model_name),
                     model_name);
}

const struct conf_objective *conf_find_objective(const struct conf_backend *pool, struct str name)
{
    return find_name(pool->objectives, pool->n_objectives, sizeof *pool->objectives,
                     offsetof(struct conf_objective, name), name);
}

const struct conf_model_rewrite *conf_find_rewrite(const struct conf_backend *pool, struct str model_name)
{
    const struct conf_model_rewrite *r = find_name(pool->rewrites, pool->n_rewrites, sizeof *pool->rewrites,
                                                   offsetof(struct conf_model_rewrite, model), model_name);
    if (!r && pool->n_rewrites && pool->rewrites[0].model.n == 0)
        r = &pool->rewrites[0]; /* for any model */
    return r;
}

const struct conf_backend_ref *conf_draw_backend(const struct conf_rule *r, double u)
{
    uint64_t left = (uint64_t)(u * r->total_weight);
    const struct conf_backend_ref *last = NULL;
    for (uint32_t i = 0; i < r->n_refs; i++) {
        if (r->refs[i].weight == 0)
            continue;
        last = &r->refs[i];
        if (left < last->weight)
            return last;
        left -= last->weight;
    }
    return last;
}

/* By weights; evenly when there are none. */
static struct str draw(const struct conf_target_model *v, uint32_t n, uint32_t total, double u)
{
    if (total == 0)
        return v[MIN((uint32_t)(u * n), n - 1)].name;
    uint64_t left = (uint64_t)(u * total);
    const struct conf_target_model *last = v;
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].weight == 0)
            continue;
        last = &v[i];
        if (left < last->weight)
            break;
        left -= last->weight;
    }
    return last->name;
}

struct str conf_draw_target(const struct conf_model *m, double u)
{
    return m->n_targets ? draw(m->targets, m->n_targets, m->total_weight, u) : m->model_name;
}

struct str conf_draw_rewrite(const struct conf_model_rewrite *r, double u)
{
    return draw(r->targets, r->n_targets, r->total_weight, u);
}
