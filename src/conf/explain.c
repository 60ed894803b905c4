/* conf/explain.c - what a snapshot does, as text for people. */
#include "conf/object.h"
#include "base/duration.h"

static const char *match_word(enum conf_match_type t)
{
    static const char *const names[] = {"=", "", "~"};
    return names[t];
}

static void add_duration(struct buf *out, uint64_t us)
{
    char text[32] = "none";
    if (us != UINT64_MAX)
        text[duration_format((int64_t)us * 1000, text, sizeof text - 1)] = '\0';
    buf_addf(out, "%s", text);
}

static void add_match(struct buf *out, const struct conf_match *m)
{
    buf_addf(out, "    " STR_FMT "%s" STR_FMT, STR_ARG(m->hostname.n ? m->hostname : STR("*")),
             match_word(m->path_type), STR_ARG(m->path));
    if (m->path_type == MATCH_PREFIX)
        buf_addf(out, m->path.n && m->path.p[m->path.n - 1] == '/' ? "..." : "[/...]");
    if (m->method.n)
        buf_addf(out, " method=" STR_FMT, STR_ARG(m->method));
    for (uint32_t i = 0; i < m->n_headers; i++)
        buf_addf(out, " header " STR_FMT "%s" STR_FMT, STR_ARG(m->headers[i].name),
                 m->headers[i].type == MATCH_REGEX ? "~" : "=", STR_ARG(m->headers[i].value));
    for (uint32_t i = 0; i < m->n_queries; i++)
        buf_addf(out, " query " STR_FMT "%s" STR_FMT, STR_ARG(m->queries[i].name),
                 m->queries[i].type == MATCH_REGEX ? "~" : "=", STR_ARG(m->queries[i].value));
}

static void add_rule(struct buf *out, const struct conf *c, const struct conf_rule *r)
{
    buf_addf(out, "\n      HTTPRoute " STR_FMT "/" STR_FMT " rule %u", STR_ARG(r->route_ns), STR_ARG(r->route_name),
             r->index);
    if (r->redirect)
        buf_addf(out, ": redirect with %u", r->redirect->status);
    if (r->req_mod || r->resp_mod || r->rewrite)
        buf_addf(out, " (%s%s%s)", r->rewrite ? " rewrites" : "", r->req_mod ? " request-headers" : "",
                 r->resp_mod ? " response-headers" : "");
    if (r->request_timeout_us) {
        buf_addf(out, ", request timeout ");
        add_duration(out, r->request_timeout_us);
    }
    buf_addf(out, "\n");
    for (uint32_t i = 0; i < r->n_refs; i++) {
        const struct conf_backend_ref *ref = &r->refs[i];
        double share = r->total_weight ? 100.0 * ref->weight / r->total_weight : 0;
        if (ref->backend == CONF_NO_BACKEND)
            buf_addf(out, "      %5.1f %% -> answer 500: " STR_FMT "\n", share, STR_ARG(ref->problem));
        else
            buf_addf(out, "      %5.1f %% -> " STR_FMT " (%u endpoints)\n", share,
                     STR_ARG(c->backends[ref->backend].key), c->backends[ref->backend].n_endpoints);
    }
    if (r->n_refs == 0 && !r->redirect)
        buf_addf(out, "      no backends: answer 500\n");
}

static void add_listener(struct buf *out, const struct conf *c, const struct conf_listener *l)
{
    buf_addf(out, "listener " STR_FMT " port %u of Gateway " STR_FMT "/" STR_FMT "%s" STR_FMT "%s\n", STR_ARG(l->name),
             l->port, STR_ARG(l->gw_ns), STR_ARG(l->gw_name), l->hostname.n ? " host " : "", STR_ARG(l->hostname),
             l->by_model ? " (routes by model)" : "");
    for (uint32_t i = 0; i < l->n_matches; i++) {
        add_match(out, &l->matches[i]);
        if (i + 1 < l->n_matches && l->matches[i + 1].rule == l->matches[i].rule)
            buf_addf(out, "\n");
        else
            add_rule(out, c, l->matches[i].rule);
    }
    if (l->n_matches == 0)
        buf_addf(out, "    no route: every request is answered with 404\n");
}

static void add_targets(struct buf *out, const struct conf_target_model *v, uint32_t n, uint32_t total)
{
    for (uint32_t i = 0; i < n; i++) {
        double share = total ? 100.0 * v[i].weight / total : 100.0 / n;
        buf_addf(out, "%s " STR_FMT " %.1f %%", i ? "," : " ->", STR_ARG(v[i].name), share);
    }
}

static void add_model(struct buf *out, const struct conf_model *m)
{
    static const char *const names[] = {"Sheddable", "Standard", "Critical"};
    buf_addf(out, "    model " STR_FMT " (%s", STR_ARG(m->model_name), names[m->criticality + 1]);
    if (m->priority != (int)m->criticality)
        buf_addf(out, ", priority %d", m->priority);
    buf_addf(out, ")");
    add_targets(out, m->targets, m->n_targets, m->total_weight);
    buf_addf(out, "\n");
}

static void add_rewrite(struct buf *out, const struct conf_model_rewrite *r)
{
    buf_addf(out, "    rewrites %s" STR_FMT, r->model.n ? "model " : "every other model", STR_ARG(r->model));
    add_targets(out, r->targets, r->n_targets, r->total_weight);
    buf_addf(out, " (InferenceModelRewrite " STR_FMT ")\n", STR_ARG(r->object));
}

static void add_settings(struct buf *out, const struct conf_backend *b)
{
    for (uint32_t i = 0; i < b->n_settings; i++) {
        const struct conf_setting *s = &b->settings[i];
        if (s->state == SET_NO_EFFECT && s->given.n == 0)
            continue;
        buf_addf(out, "    " STR_FMT " = " STR_FMT, STR_ARG(s->key), STR_ARG(s->value));
        if (s->note.n)
            buf_addf(out, " (" STR_FMT ")", STR_ARG(s->note));
        else if (s->state == SET_DEFAULT)
            buf_addf(out, " (default)");
        buf_addf(out, "\n");
    }
}

static void add_servers(struct buf *out, const struct conf_backend *b)
{
    uint32_t n[] = {0, 0, 0};
    buf_addf(out, "    servers: %s%s\n", runtime_words[b->runtime], b->runtime_given ? "" : " (by default)");
    if (!b->pd)
        return;
    for (uint32_t i = 0; i < b->n_endpoints; i++)
        n[b->endpoints[i].role]++;
    buf_addf(out, "    split by label " STR_FMT ": %u to prefill (%s), %u to decode (%s)", STR_ARG(b->pd->role_label),
             n[ROLE_PREFILL], sched_policy_name(b->prefill.policy), n[ROLE_DECODE], sched_policy_name(b->sched.policy));
    if (b->runtime == RUNTIME_SGLANG)
        buf_addf(out, ", bootstrap port %u", b->pd->bootstrap_port);
    if (b->pd->n_without_role)
        buf_addf(out, "; %u pods in neither set", b->pd->n_without_role);
    buf_addf(out, "\n");
}

static void add_endpoint(struct buf *out, const struct conf_endpoint *e)
{
    buf_addf(out, "    endpoint " STR_FMT " " STR_FMT ":%u", STR_ARG(e->pod), STR_ARG(e->host), e->port);
    if (e->role != ROLE_ANY)
        buf_addf(out, " (%s)", conf_role_name(e->role));
    buf_addf(out, "\n");
}

static void add_backend(struct buf *out, const struct conf_backend *b)
{
    if (b->kind == BACKEND_POOL)
        buf_addf(out, "InferencePool " STR_FMT "/" STR_FMT " (" STR_FMT ")\n", STR_ARG(b->ns), STR_ARG(b->name),
                 STR_ARG(b->source));
    else
        buf_addf(out, "Service " STR_FMT "/" STR_FMT " port %u (" STR_FMT ")\n", STR_ARG(b->ns), STR_ARG(b->name),
                 b->port, STR_ARG(b->source));
    for (uint32_t i = 0; i < b->n_models; i++)
        add_model(out, &b->models[i]);
    for (uint32_t i = 0; i < b->n_objectives; i++)
        buf_addf(out, "    objective " STR_FMT " (priority %d)\n", STR_ARG(b->objectives[i].name),
                 b->objectives[i].priority);
    for (uint32_t i = b->n_rewrites; i-- > 0;) /* "every other" last */
        add_rewrite(out, &b->rewrites[i]);
    if (b->kind == BACKEND_POOL)
        add_servers(out, b);
    for (uint32_t i = 0; i < b->n_endpoints; i++)
        add_endpoint(out, &b->endpoints[i]);
    if (b->n_endpoints == 0)
        buf_addf(out, "    no ready endpoint\n");
    add_settings(out, b);
}

void conf_explain(const struct conf *c, struct buf *out)
{
    for (uint32_t i = 0; i < c->n_listeners; i++)
        add_listener(out, c, &c->listeners[i]);
    for (uint32_t i = 0; i < c->n_backends; i++)
        add_backend(out, &c->backends[i]);
}
