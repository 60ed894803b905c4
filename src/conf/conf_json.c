/* conf/conf_json.c - a snapshot as JSON: the page /config and `penstock check --format json`. */
#include "conf/object.h"
#include "base/duration.h"
#include "base/json.h"

static void member_str(struct jsonw *w, const char *key, struct str s)
{
    jsonw_key(w, key);
    jsonw_str(w, s);
}

static void member_u64(struct jsonw *w, const char *key, uint64_t v)
{
    jsonw_key(w, key);
    jsonw_u64(w, v);
}

/* "1h0m0s", "none", or null when not set. */
static void member_duration(struct jsonw *w, const char *key, uint64_t us)
{
    char text[32];
    size_t n = us == UINT64_MAX ? 0 : duration_format((int64_t)us * 1000, text, sizeof text);
    jsonw_key(w, key);
    if (us == 0)
        jsonw_null(w);
    else
        jsonw_str(w, us == UINT64_MAX ? STR("none") : (struct str){text, n});
}

static const char *match_name(enum conf_match_type t)
{
    static const char *const names[] = {"Exact", "PathPrefix", "RegularExpression"};
    return names[t];
}

static void write_kv(struct jsonw *w, const char *key, const struct conf_kv_match *v, uint32_t n)
{
    jsonw_key(w, key);
    jsonw_arr(w);
    for (uint32_t i = 0; i < n; i++) {
        jsonw_obj(w);
        jsonw_key(w, "type");
        jsonw_cstr(w, match_name(v[i].type));
        member_str(w, "name", v[i].name);
        member_str(w, "value", v[i].value);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void write_backends(struct jsonw *w, const struct conf *c, const struct conf_rule *r)
{
    jsonw_key(w, "backends");
    jsonw_arr(w);
    for (uint32_t i = 0; i < r->n_refs; i++) {
        jsonw_obj(w);
        if (r->refs[i].backend == CONF_NO_BACKEND)
            member_str(w, "problem", r->refs[i].problem);
        else
            member_str(w, "backend", c->backends[r->refs[i].backend].key);
        member_u64(w, "weight", r->refs[i].weight);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void write_filters(struct jsonw *w, const struct conf_rule *r)
{
    const void *const present[] = {r->req_mod, r->resp_mod, r->redirect, r->rewrite};
    static const char *const names[] = {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect",
                                        "URLRewrite"};
    jsonw_key(w, "filters");
    jsonw_arr(w);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (present[i])
            jsonw_cstr(w, names[i]);
    jsonw_arr_end(w);
}

static void write_match(struct jsonw *w, const struct conf *c, const struct conf_match *m)
{
    jsonw_obj(w);
    member_str(w, "hostname", m->hostname);
    jsonw_key(w, "path_type");
    jsonw_cstr(w, match_name(m->path_type));
    member_str(w, "path", m->path);
    member_str(w, "method", m->method);
    write_kv(w, "headers", m->headers, m->n_headers);
    write_kv(w, "query_params", m->queries, m->n_queries);
    member_str(w, "route_namespace", m->rule->route_ns);
    member_str(w, "route", m->rule->route_name);
    member_u64(w, "rule", m->rule->index);
    write_filters(w, m->rule);
    member_duration(w, "request_timeout", m->rule->request_timeout_us);
    member_duration(w, "backend_timeout", m->rule->backend_timeout_us);
    write_backends(w, c, m->rule);
    jsonw_obj_end(w);
}

static void write_listener(struct jsonw *w, const struct conf *c, const struct conf_listener *l)
{
    jsonw_obj(w);
    member_str(w, "gateway_namespace", l->gw_ns);
    member_str(w, "gateway", l->gw_name);
    member_str(w, "name", l->name);
    member_str(w, "hostname", l->hostname);
    member_u64(w, "port", l->port);
    jsonw_key(w, "by_model");
    jsonw_bool(w, l->by_model);
    member_duration(w, "request_timeout", l->request_timeout_us);
    jsonw_key(w, "matches");
    jsonw_arr(w);
    for (uint32_t i = 0; i < l->n_matches; i++)
        write_match(w, c, &l->matches[i]);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}

static void member_i64(struct jsonw *w, const char *key, int64_t v)
{
    jsonw_key(w, key);
    jsonw_i64(w, v);
}

static void write_targets(struct jsonw *w, const char *key, const struct conf_target_model *v, uint32_t n)
{
    jsonw_key(w, key);
    jsonw_arr(w);
    for (uint32_t i = 0; i < n; i++) {
        jsonw_obj(w);
        member_str(w, "name", v[i].name);
        member_u64(w, "weight", v[i].weight);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void write_models(struct jsonw *w, const struct conf_backend *b)
{
    static const char *const names[] = {"Sheddable", "Standard", "Critical"};
    jsonw_key(w, "models");
    jsonw_arr(w);
    for (uint32_t i = 0; i < b->n_models; i++) {
        const struct conf_model *m = &b->models[i];
        jsonw_obj(w);
        member_str(w, "object", m->name);
        member_str(w, "model_name", m->model_name);
        jsonw_key(w, "criticality");
        jsonw_cstr(w, names[m->criticality + 1]);
        member_i64(w, "priority", m->priority);
        write_targets(w, "target_models", m->targets, m->n_targets);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void write_objectives(struct jsonw *w, const struct conf_backend *b)
{
    jsonw_key(w, "objectives");
    jsonw_arr(w);
    for (uint32_t i = 0; i < b->n_objectives; i++) {
        jsonw_obj(w);
        member_str(w, "name", b->objectives[i].name);
        member_i64(w, "priority", b->objectives[i].priority);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void write_rewrites(struct jsonw *w, const struct conf_backend *b)
{
    jsonw_key(w, "rewrites");
    jsonw_arr(w);
    for (uint32_t i = 0; i < b->n_rewrites; i++) {
        const struct conf_model_rewrite *r = &b->rewrites[i];
        jsonw_obj(w);
        member_str(w, "object", r->object);
        jsonw_key(w, "model"); /* null: any */
        if (r->model.n)
            jsonw_str(w, r->model);
        else
            jsonw_null(w);
        write_targets(w, "targets", r->targets, r->n_targets);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

/* Request headers the pool believes its clients. */
static void write_trust(struct jsonw *w, const struct conf_backend *b)
{
    static const char *const names[] = {"objective", "fairness", "ttl"}; /* bits of enum conf_trust */
    jsonw_key(w, "trust");
    jsonw_arr(w);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (b->trust & BIT(i))
            jsonw_cstr(w, names[i]);
    jsonw_arr_end(w);
}

static void write_settings(struct jsonw *w, const struct conf_backend *b)
{
    static const char *const states[] = {"default",           "effective", "bad value, kept",
                                         "not in effect yet", "no effect", "unknown"};
    jsonw_key(w, "settings");
    jsonw_arr(w);
    for (uint32_t i = 0; i < b->n_settings; i++) {
        const struct conf_setting *s = &b->settings[i];
        jsonw_obj(w);
        member_str(w, "name", s->key);
        member_str(w, "value", s->value);
        member_str(w, "given", s->given);
        jsonw_key(w, "state");
        jsonw_cstr(w, states[s->state]);
        member_str(w, "note", s->note);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

/* What the runtime has itself is "" and 0. */
static void write_metrics(struct jsonw *w, const struct conf_metrics *m)
{
    jsonw_key(w, "metrics");
    jsonw_obj(w);
    member_u64(w, "port", m->port);
    member_str(w, "path", m->path);
    member_str(w, "waiting", m->waiting);
    member_str(w, "running", m->running);
    member_str(w, "kv_usage", m->kv_usage);
    member_str(w, "lora_info", m->lora_info);
    member_str(w, "cache_info", m->cache_info);
    jsonw_obj_end(w);
}

static void write_servers(struct jsonw *w, const struct conf_backend *b)
{
    jsonw_key(w, "runtime");
    jsonw_cstr(w, runtime_words[b->runtime]);
    jsonw_key(w, "runtime_given");
    jsonw_bool(w, b->runtime_given);
    write_metrics(w, &b->metrics);
    jsonw_key(w, "pd"); /* null: not split */
    if (!b->pd) {
        jsonw_null(w);
        return;
    }
    jsonw_obj(w);
    member_str(w, "role_label", b->pd->role_label);
    member_u64(w, "bootstrap_port", b->pd->bootstrap_port);
    member_u64(w, "pods_without_role", b->pd->n_without_role);
    jsonw_key(w, "prefill_policy");
    jsonw_cstr(w, sched_policy_name(b->prefill.policy));
    jsonw_key(w, "decode_policy");
    jsonw_cstr(w, sched_policy_name(b->sched.policy));
    jsonw_obj_end(w);
}

static void write_backend(struct jsonw *w, const struct conf_backend *b)
{
    jsonw_obj(w);
    member_str(w, "key", b->key);
    jsonw_key(w, "kind");
    jsonw_cstr(w, b->kind == BACKEND_POOL ? "InferencePool" : "Service");
    member_str(w, "namespace", b->ns);
    member_str(w, "name", b->name);
    member_str(w, "source", b->source);
    if (b->kind == BACKEND_SERVICE)
        member_u64(w, "port", b->port);
    jsonw_key(w, "endpoints");
    jsonw_arr(w);
    for (uint32_t i = 0; i < b->n_endpoints; i++) {
        jsonw_obj(w);
        member_str(w, "pod", b->endpoints[i].pod);
        member_str(w, "host", b->endpoints[i].host);
        member_u64(w, "port", b->endpoints[i].port);
        if (b->endpoints[i].role != ROLE_ANY)
            member_str(w, "role", str_c(conf_role_name(b->endpoints[i].role)));
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    if (b->kind == BACKEND_POOL) {
        write_models(w, b);
        write_objectives(w, b);
        write_rewrites(w, b);
        write_trust(w, b);
        write_servers(w, b);
        write_settings(w, b);
    }
    jsonw_obj_end(w);
}

void conf_json(const struct conf *c, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    member_u64(&w, "generation", c->generation);
    jsonw_key(&w, "listeners");
    jsonw_arr(&w);
    for (uint32_t i = 0; i < c->n_listeners; i++)
        write_listener(&w, c, &c->listeners[i]);
    jsonw_arr_end(&w);
    jsonw_key(&w, "backends");
    jsonw_arr(&w);
    for (uint32_t i = 0; i < c->n_backends; i++)
        write_backend(&w, &c->backends[i]);
    jsonw_arr_end(&w);
    jsonw_obj_end(&w);
}
