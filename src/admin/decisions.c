/* admin/decisions.c - the latest decisions of every pool, as JSON and as a page to read. */
#include "admin/decisions.h"

#include "base/json.h"
#include "base/utf8.h"
#include "http/uri.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_SHOWN 100000

/* --- the question -------------------------------------------------------------------------------------------- */

static void take(struct str query, struct str name, char *out, size_t cap)
{
    struct str v;
    out[0] = 0;
    if (uri_query_get(query, name, out, cap - 1, &v))
        out[v.n] = 0;
}

int decisions_query_parse(struct decisions_query *q, struct str query, struct errbuf *err)
{
    char text[DECISIONS_QUERY_MAX];
    struct str v;
    uint64_t n;
    *q = (struct decisions_query){.n = DECISIONS_SHOWN};
    if (query.n >= DECISIONS_QUERY_MAX) /* so no value is too long for its place */
        return err_set(err, "The query has %zu bytes: it must be shorter than %d.", query.n, DECISIONS_QUERY_MAX);
    take(query, STR("request"), q->request, sizeof q->request);
    take(query, STR("pool"), q->pool, sizeof q->pool);
    take(query, STR("endpoint"), q->endpoint, sizeof q->endpoint);
    if (uri_query_get(query, STR("n"), text, sizeof text, &v) && v.n) {
        if (!str_to_u64(v, &n) || !n || n > MAX_SHOWN)
            return err_set(err, "n is '" STR_FMT "': it must be a number from 1 to %d.", STR_ARG(v), MAX_SHOWN);
        q->n = (uint32_t)n;
    }
    if (!uri_query_get(query, STR("format"), text, sizeof text, &v) || !v.n)
        return 0;
    q->html = str_eq(v, STR("html"));
    q->json = str_eq(v, STR("json"));
    return q->html || q->json ? 0 : err_set(err, "format is '" STR_FMT "': it must be json or html.", STR_ARG(v));
}

static bool pool_wanted(const struct decisions_query *q, const struct port *p)
{
    return !q->pool[0] || strcmp(q->pool, port_key(p)) == 0 || strcmp(q->pool, port_name(p)) == 0;
}

static bool is_at(const char *wanted, const char *endpoint, const char *address)
{
    return strcmp(wanted, endpoint) == 0 || strcmp(wanted, address) == 0;
}

static bool decision_wanted(const struct decisions_query *q, const struct decision *d)
{
    char id[DECISION_TEXT];
    decision_text(id, str_c(q->request)); /* cut as those kept are */
    return (!q->request[0] || strcmp(id, d->request_id) == 0) &&
           (!q->endpoint[0] || is_at(q->endpoint, d->endpoint, d->address) ||
            (d->leg && is_at(q->endpoint, d->leg->endpoint, d->leg->address)));
}

/* --- names of endpoints -------------------------------------------------------------------------------------- */

struct names { /* by slot */
    struct {
        uint32_t gen; /* 0: none */
        char name[EP_NAME];
    } * v;
    uint32_t n;
};

struct role_names {               /* each role counts its slots by itself */
    struct names decode, prefill; /* decode: all of a pool that is not split */
};

static void note_name(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    struct role_names *both = ctx;
    struct names *ns = e->role == ROLE_PREFILL ? &both->prefill : &both->decode;
    if (v->ep.slot >= ns->n) {
        uint32_t n = MAX(v->ep.slot + 1, 2 * ns->n);
        ns->v = xrealloc(ns->v, n * sizeof *ns->v);
        memset(ns->v + ns->n, 0, (n - ns->n) * sizeof *ns->v);
        ns->n = n;
    }
    ns->v[v->ep.slot].gen = v->ep.gen;
    memcpy(ns->v[v->ep.slot].name, e->name, EP_NAME);
}

static const char *name_of(const struct names *ns, struct ep_ref ep)
{
    return ep.slot < ns->n && ns->v[ep.slot].gen == ep.gen ? ns->v[ep.slot].name : "gone";
}

/* --- what both forms show ------------------------------------------------------------------------------------ */

struct view { /* while a page is written */
    const struct decisions_query *q;
    struct buf *out;
    struct jsonw w;
    struct port *port;
    struct role_names names;
    uint32_t shown;
    bool split; /* the port, now */
};

struct part { /* of a decision: the endpoint that answers, or the one that prefills */
    const struct names *names;
    const char *chosen; /* name; empty: none */
    const struct decision_row *rows;
    uint32_t n;
};

static struct part part_of(const struct view *v, const struct decision *d)
{
    return (struct part){&v->names.decode, d->outcome == DECISION_PICKED ? d->endpoint : "", d->rows, d->n_rows};
}

static struct part leg_of(const struct view *v, const struct decision_leg *l)
{
    return (struct part){&v->names.prefill, l->endpoint, l->rows, l->n_rows};
}

static void view_begin(struct view *v, struct port *p)
{
    v->port = p;
    v->shown = 0;
    v->split = port_split(p);
    v->names = (struct role_names){0};
    port_views(p, note_name, &v->names);
}

static void view_end(struct view *v)
{
    free(v->names.decode.v);
    free(v->names.prefill.v);
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static bool is_chosen(const struct part *p, const struct decision_row *r)
{
    return p->chosen[0] && r->skip == SKIP_NONE && strcmp(name_of(p->names, r->ep), p->chosen) == 0;
}

/* Tokens believed cached at the chosen endpoint; NAN: not among the rows. */
static double expected_cached(const struct part *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (is_chosen(p, &p->rows[i]))
            return (double)p->rows[i].cached_tokens;
    return (double)NAN;
}

/* Share of the prompt believed cached where it is computed. */
static double cached_share(const struct decision *d)
{
    return share((double)(d->leg && d->leg->split ? d->leg->matched_bytes : d->matched_bytes), (double)d->stream_bytes);
}

static const char *why(const struct decision *d)
{
    return d->outcome == DECISION_PICKED     ? sched_reason_name(d->reason)
           : d->no_prefill                   ? "no_prefill_endpoint"
           : d->outcome == DECISION_REJECTED ? sched_reject_name(d->reject)
                                             : "";
}

static const char *where(const struct decision_leg *l)
{
    return l->split ? "elsewhere" : "here";
}

static void time_text(uint64_t us, char out[40])
{
    time_t s = (time_t)(us / 1000000);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 40 - n, ".%03uZ", (unsigned)(us / 1000 % 1000));
}

/* --- JSON ---------------------------------------------------------------------------------------------------- */

static void put_f(struct jsonw *w, const char *key, double v)
{
    jsonw_key(w, key);
    jsonw_f(w, v);
}

static void put_u(struct jsonw *w, const char *key, uint64_t v)
{
    jsonw_key(w, key);
    jsonw_u64(w, v);
}

static void put_s(struct jsonw *w, const char *key, const char *v)
{
    jsonw_key(w, key);
    jsonw_cstr(w, v);
}

static void json_row(struct jsonw *w, const struct part *p, const struct decision_row *r)
{
    jsonw_obj(w);
    put_s(w, "name", name_of(p->names, r->ep));
    jsonw_key(w, "chosen"), jsonw_bool(w, is_chosen(p, r));
    put_s(w, "skip", r->skip == SKIP_NONE ? NULL : sched_skip_name(r->skip));
    put_f(w, "total_s", (double)r->total_s);
    put_f(w, "wait_s", (double)r->wait_s);
    put_f(w, "prefill_s", (double)r->prefill_s);
    put_f(w, "others_s", (double)r->others_s);
    put_f(w, "kv_s", (double)r->kv_s);
    put_f(w, "extra_s", (double)r->extra_s);
    put_f(w, "lora_s", (double)r->lora_s);
    put_f(w, "transfer_s", (double)r->transfer_s);
    put_f(w, "answer_s", (double)r->answer_s);
    put_f(w, "cached_tokens", (double)r->cached_tokens);
    put_u(w, "matched_bytes", r->matched_bytes);
    jsonw_obj_end(w);
}

static void json_rows(struct jsonw *w, const struct part *p)
{
    jsonw_key(w, "endpoints"), jsonw_arr(w);
    for (uint32_t i = 0; i < p->n; i++)
        json_row(w, p, &p->rows[i]);
    jsonw_arr_end(w);
}

static void json_leg(struct view *v, const struct decision *d)
{
    struct jsonw *w = &v->w;
    const struct decision_leg *l = d->leg;
    jsonw_key(w, "prefill");
    if (!l) {
        jsonw_null(w);
        return;
    }
    struct part p = leg_of(v, l);
    bool picked = d->outcome == DECISION_PICKED;
    jsonw_obj(w);
    put_s(w, "where", picked ? where(l) : NULL);
    put_s(w, "endpoint", l->endpoint[0] ? l->endpoint : NULL);
    put_s(w, "address", l->address[0] ? l->address : NULL);
    put_s(w, "why", l->split ? sched_reason_name(l->reason) : NULL);
    put_f(w, "split_s", picked ? l->split_s : (double)NAN);
    put_f(w, "local_s", picked ? l->local_s : (double)NAN);
    put_f(w, "cost_s", l->split ? l->cost_s : (double)NAN);
    put_f(w, "ttft_s", l->split ? l->ttft_s : (double)NAN);
    put_f(w, "cached_tokens", expected_cached(&p));
    put_u(w, "matched_bytes", l->matched_bytes);
    put_u(w, "candidates", l->n_candidates);
    put_u(w, "endpoints_total", l->n_endpoints);
    json_rows(w, &p);
    jsonw_obj_end(w);
}

static void json_expected(struct view *v, const struct decision *d)
{
    struct jsonw *w = &v->w;
    struct part p = d->leg && d->leg->split ? leg_of(v, d->leg) : part_of(v, d);
    jsonw_key(w, "expected");
    if (d->outcome != DECISION_PICKED) {
        jsonw_null(w);
        return;
    }
    jsonw_obj(w);
    put_f(w, "cost_s", d->cost_s);
    put_f(w, "ttft_s", d->ttft_s);
    put_f(w, "cached_tokens", expected_cached(&p));
    put_f(w, "cached_share", cached_share(d));
    jsonw_obj_end(w);
}

static void json_real(struct view *v, const struct decision *d)
{
    struct jsonw *w = &v->w;
    const struct decision_end *e = &d->end;
    jsonw_key(w, "real");
    if (!d->ended) {
        jsonw_null(w);
        return;
    }
    jsonw_obj(w);
    put_f(w, "ttft_s", e->ttft_s >= 0 ? e->ttft_s : (double)NAN);
    put_f(w, "duration_s", e->duration_s);
    put_f(w, "prefill_s", e->prefill_s > 0 ? e->prefill_s : (double)NAN);
    put_s(w, "prefill_error", e->prefill_error[0] ? e->prefill_error : NULL);
    put_u(w, "status", e->status);
    put_s(w, "error", e->error[0] ? e->error : NULL);
    put_f(w, "prompt_tokens", e->has_usage ? (double)e->prompt_tokens : (double)NAN);
    put_f(w, "completion_tokens", e->has_usage ? (double)e->completion_tokens : (double)NAN);
    put_f(w, "cached_tokens", e->has_cached ? (double)e->cached_tokens : (double)NAN);
    put_f(w, "cached_share", e->has_cached ? share((double)e->cached_tokens, (double)e->prompt_tokens) : (double)NAN);
    jsonw_obj_end(w);
}

static bool json_decision(void *ctx, const struct decision *d)
{
    struct view *v = ctx;
    struct jsonw *w = &v->w;
    struct part p = part_of(v, d);
    char at[40];
    if (!decision_wanted(v->q, d))
        return true;
    time_text(d->at_us, at);
    jsonw_obj(w);
    put_s(w, "time", at);
    put_s(w, "request_id", d->request_id);
    put_s(w, "model", d->model);
    put_s(w, "pool", port_name(v->port));
    put_s(w, "outcome", decision_outcome_name(d->outcome));
    put_s(w, "why", why(d));
    put_s(w, "endpoint", d->endpoint[0] ? d->endpoint : NULL);
    put_s(w, "address", d->address[0] ? d->address : NULL);
    put_u(w, "attempt", d->attempt);
    put_f(w, "queued_s", (double)d->queued_us / 1e6);
    jsonw_key(w, "streamed"), jsonw_bool(w, d->streamed);
    put_u(w, "stream_bytes", d->stream_bytes);
    put_u(w, "matched_bytes", d->matched_bytes);
    put_u(w, "candidates", d->n_candidates);
    put_u(w, "endpoints_total", d->n_endpoints);
    put_u(w, "degraded", d->degraded);
    put_u(w, "one_of", d->every);
    json_expected(v, d);
    json_real(v, d);
    json_leg(v, d);
    json_rows(w, &p);
    jsonw_obj_end(w);
    return ++v->shown < v->q->n;
}

static void json_port(void *ctx, struct port *p)
{
    struct view *v = ctx;
    struct jsonw *w = &v->w;
    struct decisions *ds = port_decisions(p);
    if (!ds || !pool_wanted(v->q, p))
        return;
    view_begin(v, p);
    jsonw_obj(w);
    put_s(w, "key", port_key(p));
    put_s(w, "name", port_name(p));
    put_s(w, "namespace", port_ns(p));
    put_u(w, "kept", decisions_capacity(ds));
    put_u(w, "made", decisions_made(ds));
    jsonw_key(w, "decisions"), jsonw_arr(w);
    decisions_each(ds, json_decision, v);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
    view_end(v);
}

void decisions_json(struct ports *ps, const struct decisions_query *q, struct buf *out)
{
    struct view v = {.q = q, .out = out};
    jsonw_init(&v.w, out);
    jsonw_obj(&v.w);
    jsonw_key(&v.w, "pools"), jsonw_arr(&v.w);
    ports_each(ps, json_port, &v);
    jsonw_arr_end(&v.w);
    jsonw_obj_end(&v.w);
}

/* --- HTML ---------------------------------------------------------------------------------------------------- */

#define PUT(out, text) buf_add_str(out, STR(text))

/* Fit for text and for quoted attributes: what has a meaning there is escaped, what is no printable character replaced.
 */
static void put_text(struct buf *out, const char *s)
{
    const char *end = s + strlen(s);
    while (s < end) {
        const char *as = *s == '&'    ? "&amp;"
                         : *s == '<'  ? "&lt;"
                         : *s == '>'  ? "&gt;"
                         : *s == '"'  ? "&quot;"
                         : *s == '\'' ? "&#39;"
                                      : NULL;
        size_t n = utf8_char_len(s, end);
        if (as)
            buf_add_str(out, str_c(as));
        else if (!n || (unsigned char)*s < 0x20 || *s == 0x7f)
            PUT(out, "&#xfffd;");
        else
            buf_add(out, s, n);
        s += MAX(n, (size_t)1);
    }
}

static void put_escaped(struct buf *out, const char *s)
{
    for (; *s; s++) {
        bool plain =
            (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || strchr("-._~", *s);
        if (plain)
            buf_add(out, s, 1);
        else
            buf_addf(out, "%%%02X", (unsigned)(unsigned char)*s);
    }
}

static void put_link(struct buf *out, const char *field, const char *value)
{
    buf_addf(out, "<a href=\"?%s=", field);
    put_escaped(out, value);
    PUT(out, "\">");
    put_text(out, value);
    PUT(out, "</a>");
}

static void cell(struct buf *out, const char *text)
{
    PUT(out, "<td>");
    put_text(out, text);
    PUT(out, "</td>");
}

static void cell_ms(struct buf *out, double s)
{
    if (isfinite(s) && s >= 0)
        buf_addf(out, "<td class=n>%.1f</td>", s * 1000);
    else
        PUT(out, "<td class=n>&ndash;</td>");
}

static void cell_share(struct buf *out, bool known, double v)
{
    if (known)
        buf_addf(out, "<td class=n>%.0f&thinsp;%%</td>", v * 100);
    else
        PUT(out, "<td class=n>&ndash;</td>");
}

static void html_row(struct view *v, const struct part *p, const struct decision_row *r, bool pair)
{
    struct buf *out = v->out;
    buf_addf(out, "<tr%s>", is_chosen(p, r) ? " class=chosen" : "");
    cell(out, name_of(p->names, r->ep));
    cell(out, sched_skip_name(r->skip));
    const float s[] = {r->total_s, r->wait_s, r->prefill_s,  r->others_s, r->kv_s,
                       r->extra_s, r->lora_s, r->transfer_s, r->answer_s};
    for (size_t i = 0; i < ARRAY_LEN(s) - (pair ? 0 : 2); i++)
        cell_ms(out, (double)s[i]);
    buf_addf(out, "<td class=n>%.0f</td><td class=n>%llu</td></tr>\n", (double)r->cached_tokens,
             (unsigned long long)r->matched_bytes);
}

/* pair: the request may have a prefill elsewhere, so that some of the costs have a meaning. */
static void html_part(struct view *v, const struct part *p, bool pair)
{
    struct buf *out = v->out;
    PUT(out, "<table><tr><th>endpoint<th>left out as<th>total ms<th>wait<th>prefill<th>others<th>KV<th>extra<th>LoRA");
    if (pair)
        PUT(out, "<th>transfer<th>answer");
    PUT(out, "<th>cached tokens<th>matched bytes</tr>\n");
    for (uint32_t i = 0; i < p->n; i++)
        html_row(v, p, &p->rows[i], pair);
    PUT(out, "</table>");
}

static void put_ms(struct buf *out, double s)
{
    if (isfinite(s))
        buf_addf(out, "%.1f ms", s * 1000);
    else
        PUT(out, "not possible");
}

static void html_leg(struct view *v, const struct decision *d)
{
    struct buf *out = v->out;
    const struct decision_leg *l = d->leg;
    struct part p = leg_of(v, l);
    PUT(out, "<p>Prefill");
    if (d->outcome == DECISION_PICKED) {
        buf_addf(out, " %s. Costs that were compared: elsewhere ", where(l));
        put_ms(out, l->split_s);
        PUT(out, ", here ");
        put_ms(out, l->local_s);
    }
    buf_addf(out, ". %u of %u endpoints that prefill, %u candidates.", l->n_rows, l->n_endpoints, l->n_candidates);
    if (d->end.prefill_s > 0)
        buf_addf(out, " It took %.1f ms.", d->end.prefill_s * 1000);
    if (d->end.prefill_error[0]) {
        PUT(out, " It failed: ");
        put_text(out, d->end.prefill_error);
        PUT(out, ".");
    }
    PUT(out, "</p>");
    html_part(v, &p, true);
}

static unsigned columns(const struct view *v)
{
    return 14 + v->split;
}

static void html_rows(struct view *v, const struct decision *d)
{
    struct buf *out = v->out;
    struct part p = part_of(v, d);
    if (!d->n_rows && !d->leg)
        return;
    buf_addf(out, "<tr class=why><td colspan=%u><details%s><summary>%u of %u endpoints%s, %u candidates</summary>",
             columns(v), v->q->request[0] ? " open" : "", d->n_rows, d->n_endpoints, d->leg ? " that decode" : "",
             d->n_candidates);
    html_part(v, &p, d->leg != NULL);
    if (d->leg)
        html_leg(v, d);
    PUT(out, "</details></td></tr>\n");
}

/* Where the prefill went. */
static void html_sent(struct buf *out, const struct decision *d)
{
    if (!d->leg || d->outcome != DECISION_PICKED)
        return;
    PUT(out, "<br>prefill ");
    if (d->leg->endpoint[0])
        put_link(out, "endpoint", d->leg->endpoint);
    else
        put_text(out, where(d->leg));
    if (d->end.prefill_error[0])
        PUT(out, " (failed)");
}

static void html_outcome(struct view *v, const struct decision *d)
{
    struct buf *out = v->out;
    PUT(out, "<td>");
    if (d->outcome == DECISION_PICKED)
        put_link(out, "endpoint", d->endpoint);
    else
        put_text(out, decision_outcome_name(d->outcome));
    if (d->attempt > 1)
        buf_addf(out, " (attempt %u)", d->attempt);
    html_sent(out, d);
    PUT(out, "</td><td>");
    put_text(out, why(d));
    if (d->leg && d->leg->split) {
        PUT(out, "<br>");
        put_text(out, sched_reason_name(d->leg->reason));
    }
    PUT(out, "</td>");
}

static void html_end(struct view *v, const struct decision *d)
{
    struct buf *out = v->out;
    const struct decision_end *e = &d->end;
    if (!d->ended) {
        buf_addf(out, "<td colspan=%d class=n>under way</td>", 5 + v->split);
        return;
    }
    if (v->split)
        cell_ms(out, e->prefill_s > 0 ? e->prefill_s : -1);
    cell_ms(out, e->ttft_s);
    cell_share(out, e->has_cached, share((double)e->cached_tokens, (double)e->prompt_tokens));
    if (e->has_usage)
        buf_addf(out, "<td class=n>%llu</td>", (unsigned long long)e->prompt_tokens);
    else
        PUT(out, "<td class=n>&ndash;</td>");
    cell_ms(out, e->duration_s);
    buf_addf(out, "<td>%u ", e->status);
    put_text(out, e->error);
    PUT(out, "</td>");
}

static bool html_decision(void *ctx, const struct decision *d)
{
    struct view *v = ctx;
    struct buf *out = v->out;
    char at[40];
    bool picked = d->outcome == DECISION_PICKED;
    if (!decision_wanted(v->q, d))
        return true;
    time_text(d->at_us, at);
    PUT(out, "<tr>");
    cell(out, at);
    PUT(out, "<td>");
    put_link(out, "request", d->request_id);
    PUT(out, "</td>");
    cell(out, d->model);
    html_outcome(v, d);
    cell_ms(out, (double)d->queued_us / 1e6);
    cell_ms(out, picked ? d->cost_s : -1);
    cell_ms(out, picked ? d->ttft_s : -1);
    cell_share(out, picked && d->stream_bytes, cached_share(d));
    html_end(v, d);
    PUT(out, "</tr>\n");
    html_rows(v, d);
    return ++v->shown < v->q->n;
}

static void html_port(void *ctx, struct port *p)
{
    struct view *v = ctx;
    struct buf *out = v->out;
    struct decisions *ds = port_decisions(p);
    if (!ds || !pool_wanted(v->q, p))
        return;
    view_begin(v, p);
    PUT(out, "<h2>");
    put_link(out, "pool", port_key(p));
    buf_addf(out, "</h2><p>%llu noted since the start, the latest %u are kept.</p>\n",
             (unsigned long long)decisions_made(ds), decisions_capacity(ds));
    buf_addf(out, "<table><tr><th colspan=6><th colspan=3>expected<th colspan=%d>what came of it</tr>", 5 + v->split);
    PUT(out, "<tr><th>time<th>request<th>model<th>endpoint<th>why<th>queued ms<th>cost ms<th>TTFT ms<th>cached");
    if (v->split)
        PUT(out, "<th>prefill ms");
    PUT(out, "<th>TTFT ms<th>cached<th>prompt tokens<th>whole ms<th>status</tr>\n");
    decisions_each(ds, html_decision, v);
    PUT(out, "</table>\n");
    view_end(v);
}

static void html_field(struct buf *out, const char *name, const char *value)
{
    buf_addf(out, "<label>%s <input name=%s value=\"", name, name);
    put_text(out, value);
    PUT(out, "\"></label> ");
}

void decisions_html(struct ports *ps, const struct decisions_query *q, struct buf *out)
{
    struct view v = {.q = q, .out = out};
    char n[16];
    snprintf(n, sizeof n, "%u", q->n);
    PUT(out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>Decisions - penstock</title><style>"
        ":root{color-scheme:light dark}body{font:14px system-ui,sans-serif;margin:1em}"
        "table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left;border-bottom:1px solid #8884;"
        "vertical-align:top;white-space:nowrap}.n{text-align:right}.chosen{font-weight:bold}.why>td{padding-left:3em}"
        "td:nth-child(2),td:nth-child(3){max-width:22em;overflow:hidden;text-overflow:ellipsis}</style>\n"
        "<h1>Latest decisions</h1><form>");
    html_field(out, "request", q->request);
    html_field(out, "pool", q->pool);
    html_field(out, "endpoint", q->endpoint);
    html_field(out, "n", n);
    PUT(out,
        "<button>Show</button></form><p>Newest first. Each request is noted up to 1000 in a second of a worker; "
        "beyond that, and when a worker is behind, one of 16. Times in milliseconds; cached: share of the prompt, as "
        "believed at the pick and as the server told. As JSON: <a href=\"?format=json\">?format=json</a>.</p>\n");
    ports_each(ps, html_port, &v);
    PUT(out, "</html>\n");
}
