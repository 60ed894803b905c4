/* access.c - one line per request: "Request Handled" for pools at info, "Request Proxied" for Services at debug. Never
 * prompts or answers.
 *
 * costs: what each endpoint would have cost at the moment of the (last) pick, in seconds; of the picks that are
 * explained (decided.c). prefill_costs: the same of the endpoints that prefill, where the pool separates them. Last:
 * many endpoints do not fit a line. */
#include "proxy/impl.h"

#include <math.h>

/* Seconds with four decimals, without the cost of printf. */
static void put_seconds(struct buf *out, double s)
{
    if (!(s >= 0))
        s = 0;
    uint64_t v = s < 1e9 ? (uint64_t)(s * 10000 + 0.5) : (uint64_t)1e13;
    char t[24];
    int n = 0;
    for (int i = 0; i < 4; i++, v /= 10)
        t[n++] = (char)('0' + v % 10);
    t[n++] = '.';
    do
        t[n++] = (char)('0' + v % 10);
    while (v /= 10);
    char fwd[24];
    for (int i = 0; i < n; i++)
        fwd[i] = t[n - 1 - i];
    buf_add(out, fwd, (size_t)n);
}

static void put_field(struct buf *out, struct str key, double s)
{
    buf_add_str(out, key);
    put_seconds(out, s);
}

/* Names of Kubernetes objects need no escaping; what else a manifest may say must not break the line. */
static void put_name(struct buf *out, const char *name)
{
    for (const char *p = name; *p; p++)
        buf_add(out, *p == '"' || *p == '\\' || (unsigned char)*p < 0x20 ? "_" : p, 1);
}

static void put_costs(struct buf *out, struct port *p, enum conf_role role, const struct sched_explain *x)
{
    struct ep_ref refs[SCHED_EXPLAIN];
    char names[SCHED_EXPLAIN][EP_NAME];
    for (uint32_t i = 0; i < x->n; i++)
        refs[i] = x->cost[i].ep;
    port_ep_names(p, role, refs, x->n, names);
    buf_add(out, "[", 1);
    for (uint32_t i = 0; i < x->n; i++) {
        const struct sched_cost *c = &x->cost[i];
        buf_add_str(out, i ? STR(",{\"name\":\"") : STR("{\"name\":\""));
        put_name(out, names[i]);
        buf_add(out, "\"", 1);
        if (c->skip != SKIP_NONE) {
            buf_add_str(out, STR(",\"skip\":\""));
            buf_add_str(out, str_c(sched_skip_name(c->skip)));
            buf_add_str(out, STR("\"}"));
            continue;
        }
        put_field(out, STR(",\"total\":"), c->total_s);
        put_field(out, STR(",\"wait\":"), c->wait_s);
        put_field(out, STR(",\"prefill\":"), c->prefill_s);
        put_field(out, STR(",\"others\":"), c->others_s);
        put_field(out, STR(",\"kv\":"), c->kv_s);
        if (c->lora_s > 0)
            put_field(out, STR(",\"lora\":"), c->lora_s);
        if (c->transfer_s > 0)
            put_field(out, STR(",\"transfer\":"), c->transfer_s);
        if (c->answer_s > 0)
            put_field(out, STR(",\"answer\":"), c->answer_s);
        buf_add(out, "}", 1);
    }
    buf_add(out, "]", 1);
}

static double ms(uint64_t from_us, uint64_t to_us)
{
    return from_us && to_us > from_us ? (double)(to_us - from_us) / 1000 : 0;
}

static const char *criticality_name(enum sched_criticality c)
{
    return c == CRIT_CRITICAL ? "Critical" : c == CRIT_SHEDDABLE ? "Sheddable" : "Standard";
}

static void log_common(struct logline *l, struct request *rq)
{
    log_str(l, "request_id", rq->request_id);
    log_str(l, "method", rq->head->method_str);
    log_str(l, "path", rq->path);
}

static void log_outcome(struct logline *l, struct request *rq, uint64_t now_us)
{
    log_f(l, "duration_ms", ms(rq->start_us, now_us), 3);
    log_u64(l, "attempts", rq->attempts);
    log_u64(l, "status", rq->status);
    log_u64(l, "bytes", rq->resp_bytes);
    if (rq->error_code)
        log_cstr(l, "error", rq->error_code);
}

static void log_pick(struct logline *l, struct request *rq)
{
    if (!rq->ep)
        return;
    log_cstr(l, "pod", rq->ep->name);
    log_cstr(l, "address", rq->ep->address);
    log_cstr(l, "reason", sched_reason_name(rq->reason));
    log_u64(l, "prefix_hit_bytes", rq->matched_bytes);
    log_f(l, "prefix_hit", rq->stream_bytes ? (double)rq->matched_bytes / (double)rq->stream_bytes : 0, 3);
}

static void log_prefill(struct logline *l, struct request *rq)
{
    const struct pd *pd = rq->pd;
    const struct sched_decision *d = &rq->pick.core.d;
    if (!pd)
        return;
    log_cstr(l, "prefill", pd->split ? "elsewhere" : "here");
    if (isfinite(d->split_s) && isfinite(d->local_s) && d->split_s > 0 && d->local_s > 0) {
        log_f(l, "split_s", d->split_s, 4);
        log_f(l, "local_s", d->local_s, 4);
    }
    if (!pd->leg.ep) /* no attempt had a leg */
        return;
    log_cstr(l, "prefill_pod", pd->leg.ep->name);
    log_cstr(l, "prefill_address", pd->leg.ep->address);
    if (rq->pick.leg.d.reason != REASON_NONE) { /* else it was an earlier attempt */
        log_cstr(l, "prefill_reason", sched_reason_name(rq->pick.leg.d.reason));
        log_u64(l, "prefill_hit_bytes", rq->pick.leg.d.matched_bytes);
    }
    log_f(l, "prefill_ms", ms(pd->leg.begun_us, pd->leg.prefilled_us), 3);
    if (pd->failed)
        log_cstr(l, "prefill_error", pd->failed);
}

static void log_handled(struct request *rq, const struct api_usage *u, uint64_t now_us)
{
    struct logline l;
    struct buf *costs = &rq->w->line; /* the others hold the bytes of the answer */
    buf_clear(costs);
    if (rq->explain && rq->attempts)
        put_costs(costs, rq->backend->port, ROLE_ANY, rq->explain);
    size_t n_costs = costs->n;
    if (rq->explain_leg && rq->explain_leg->n && rq->attempts)
        put_costs(costs, rq->backend->port, ROLE_PREFILL, rq->explain_leg);
    if (!log_begin(&l, LOG_INFO, "Request Handled"))
        return;
    log_common(&l, rq);
    log_str(&l, "model", rq->model);
    log_str(&l, "target_model", rq->target);
    log_cstr(&l, "pool", port_name(rq->backend->port));
    log_cstr(&l, "namespace", port_ns(rq->backend->port));
    log_cstr(&l, "criticality", criticality_name(rq->criticality));
    log_i64(&l, "priority", rq->priority);
    if (rq->objective.n)
        log_str(&l, "objective", rq->objective);
    if (rq->fairness_id.n)
        log_str(&l, "fairness_id", rq->fairness_id);
    log_pick(&l, rq);
    log_prefill(&l, rq);
    log_f(&l, "queue_ms", (double)rq->waited_us / 1000, 3);
    log_f(&l, "ttft_ms", ms(rq->start_us, rq->first_us), 3);
    if (u && u->found) {
        log_u64(&l, "prompt_tokens", u->prompt_tokens);
        log_u64(&l, "completion_tokens", u->completion_tokens);
        if (u->has_cached)
            log_u64(&l, "cached_tokens", u->cached_tokens);
    }
    log_outcome(&l, rq, now_us);
    if (rq->degraded)
        log_u64(&l, "degraded", rq->degraded);
    if (n_costs)
        log_raw(&l, "costs", str_first(buf_str(costs), n_costs));
    if (costs->n > n_costs)
        log_raw(&l, "prefill_costs", str_from(buf_str(costs), n_costs));
    log_end(&l);
}

void access_log(struct request *rq, const struct api_usage *u, uint64_t now_us)
{
    if (rq->backend && rq->backend->pool) {
        if (log_on(LOG_INFO))
            log_handled(rq, u, now_us);
        return;
    }
    struct logline l;
    if (!log_on(LOG_DEBUG) || !log_begin(&l, LOG_DEBUG, rq->backend ? "Request Proxied" : "Request Refused"))
        return;
    log_common(&l, rq);
    if (rq->backend)
        log_str(&l, "backend", rq->backend->key);
    if (rq->ep) {
        log_cstr(&l, "pod", rq->ep->name);
        log_cstr(&l, "address", rq->ep->address);
    }
    log_outcome(&l, rq, now_us);
    log_end(&l);
}
