/* sim/control.c - the /sim/ interface: commands for faults, metrics and readiness, and the capture of requests. */
#include "sim/server_priv.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *const kinds[] = {"none", "kill", "refuse", "hang", "reset", "slow", "garbage", "status"};
static const char *const points[] = {"now", "before", "after_body", "after_head", "mid_stream", "probe"};

double wall_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void capture_clear(struct capture *c)
{
    free(c->method);
    free(c->path);
    free(c->headers);
    free(c->body);
    *c = (struct capture){0};
}

static char *headers_json(const struct h1_head *h)
{
    struct buf b;
    struct jsonw w;
    buf_init(&b, H1_MAX_HEAD * 8);
    jsonw_init(&w, &b);
    jsonw_obj(&w);
    for (size_t i = 0; i < h->n_headers; i++) {
        char name[256];
        size_t n = MIN(h->headers[i].name.n, sizeof(name) - 1);
        for (size_t k = 0; k < n; k++) {
            char c = h->headers[i].name.p[k];
            name[k] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
        name[n] = 0;
        jsonw_key(&w, name);
        jsonw_str(&w, h->headers[i].value);
    }
    jsonw_obj_end(&w);
    char *out = str_dup(buf_str(&b));
    buf_free(&b);
    return out;
}

void capture_add(struct server *s, struct httpd_req *rq)
{
    if (!s->captures)
        s->captures = xcalloc(1, sizeof(*s->captures));
    struct capture *c = &s->captures->v[s->captures->n++ % CAPTURES];
    capture_clear(c);
    c->method = str_dup(rq->head->method_str);
    c->path = str_dup(rq->head->target);
    c->headers = headers_json(rq->head);
    c->body_n = MIN(rq->body.n, (size_t)CAPTURE_BODY);
    c->body = str_dup(str_first(rq->body, c->body_n));
    c->truncated = c->body_n < rq->body.n;
    c->at = wall_seconds();
}

void captures_free(struct captures *c)
{
    for (size_t i = 0; c && i < CAPTURES; i++)
        capture_clear(&c->v[i]);
    free(c);
}

static void captures_json(const struct captures *c, struct buf *out)
{
    struct jsonw w;
    uint64_t n = c ? c->n : 0;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, "requests");
    jsonw_arr(&w);
    for (uint64_t i = n > CAPTURES ? n - CAPTURES : 0; i < n; i++) {
        const struct capture *v = &c->v[i % CAPTURES];
        jsonw_obj(&w);
        jsonw_key(&w, "method");
        jsonw_cstr(&w, v->method);
        jsonw_key(&w, "path");
        jsonw_cstr(&w, v->path);
        jsonw_key(&w, "headers");
        jsonw_raw(&w, str_c(v->headers));
        jsonw_key(&w, "body");
        jsonw_str(&w, (struct str){v->body, v->body_n});
        jsonw_key(&w, "truncated");
        jsonw_bool(&w, v->truncated);
        jsonw_key(&w, "time");
        char at[32];
        (void)snprintf(at, sizeof(at), "%.6f", v->at);
        jsonw_raw(&w, str_c(at));
        jsonw_obj_end(&w);
    }
    jsonw_arr_end(&w);
    jsonw_key(&w, "total");
    jsonw_u64(&w, n);
    jsonw_obj_end(&w);
}

/* ---- control ---- */

static void fault_json(const struct fault *f, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, "kind");
    jsonw_cstr(&w, kinds[f->kind]);
    jsonw_key(&w, "at");
    jsonw_cstr(&w, points[f->at]);
    jsonw_key(&w, "count");
    if (f->count == UINT64_MAX)
        jsonw_null(&w);
    else
        jsonw_u64(&w, f->count);
    jsonw_key(&w, "duration_ms");
    jsonw_u64(&w, f->duration_us / 1000);
    jsonw_key(&w, "factor");
    jsonw_f(&w, f->factor);
    jsonw_key(&w, "status");
    jsonw_u64(&w, f->status);
    jsonw_key(&w, "after_tokens");
    jsonw_u64(&w, f->after_tokens);
    jsonw_key(&w, "match");
    jsonw_cstr(&w, f->match);
    jsonw_key(&w, "hits");
    jsonw_u64(&w, f->hits);
    jsonw_key(&w, "in_force");
    jsonw_bool(&w, f->struck);
    jsonw_obj_end(&w);
}

static bool pick_name(struct str raw, const char *const *names, size_t n, unsigned *out)
{
    for (unsigned i = 0; i < n; i++)
        if (body_is_string(raw) && str_eq_c((struct str){raw.p + 1, raw.n - 2}, names[i])) {
            *out = i;
            return true;
        }
    return false;
}

static bool read_double(struct str raw, double *out)
{
    return !raw.n || str_to_double(raw, out);
}

/* Reads a fault from its JSON; false with a static text. */
static bool parse_fault(struct str body, struct fault *f, const char **error)
{
    static const char *const keys[] = {"kind",   "at",     "count",        "duration_ms",
                                       "factor", "status", "after_tokens", "match"};
    struct str m[ARRAY_LEN(keys)];
    unsigned kind, at;
    double duration_ms = 0;
    *f = (struct fault){.factor = 10, .status = 500, .after_tokens = 3, .count = UINT64_MAX};
    if (!body_members(body, keys, ARRAY_LEN(keys), m, error))
        return false;
    *error = "kind must be one of none, kill, refuse, hang, reset, slow, garbage, status";
    if (!pick_name(m[0], kinds, ARRAY_LEN(kinds), &kind))
        return false;
    f->kind = (enum fault_kind)kind;
    at = fault_of_server(f->kind) ? AT_NOW : f->kind == FAULT_STATUS ? AT_AFTER_BODY : AT_BEFORE;
    *error = "at must be one of now, before, after_body, after_head, mid_stream, probe";
    if (m[1].n && !pick_name(m[1], points, ARRAY_LEN(points), &at))
        return false;
    if (at == AT_NOW && !fault_of_server(f->kind))
        at = AT_BEFORE;
    f->at = (enum fault_at)at;
    *error = "count, duration_ms, factor, status and after_tokens must be numbers";
    if (body_u64(m[2], &f->count) == BODY_BAD || !read_double(m[3], &duration_ms) || !(duration_ms >= 0) ||
        duration_ms > 1e9 || !read_double(m[4], &f->factor) || !(f->factor > 0) ||
        body_u64(m[5], &f->status) == BODY_BAD || f->status < 200 || f->status > 599 ||
        body_u64(m[6], &f->after_tokens) == BODY_BAD)
        return false;
    f->duration_us = (uint64_t)(duration_ms * 1000);
    if (body_is_string(m[7])) {
        struct buf b;
        buf_init(&b, sizeof(f->match) + m[7].n);
        (void)body_string(m[7], &b);
        (void)snprintf(f->match, sizeof(f->match), STR_FMT, STR_ARG(buf_str(&b)));
        buf_free(&b);
    }
    return true;
}

static void respond_fault(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    buf_init(&out, 8192);
    fault_json(&s->fault, &out);
    httpd_respond(rq, 200, "application/json", NULL, buf_str(&out));
    buf_free(&out);
}

static void on_delayed_strike(struct timer *t)
{
    struct server *s = CONTAINER_OF(t, struct server, fault_end);
    fault_strike(s);
}

static void post_fault(struct server *s, struct httpd_req *rq)
{
    struct fault f;
    const char *error;
    if (!parse_fault(rq->body, &f, &error)) {
        server_error(rq, 400, "BadRequestError", NULL, NULL, "%s", error);
        return;
    }
    bool own_port = rq->on_abort == NULL && rq->user == s; /* see server_dispatch: through the server's own listener */
    fault_clear(s);
    if (f.kind == FAULT_NONE) {
        respond_fault(s, rq);
        return;
    }
    s->fault = f;
    respond_fault(s, rq);
    if (f.at == AT_NOW && f.kind == FAULT_KILL && own_port) { /* let the answer leave first */
        s->fault_end.fn = on_delayed_strike;
        timer_set(s->loop, &s->fault_end, loop_now_us(s->loop) + 20000);
    } else if (f.at == AT_NOW) {
        fault_strike(s);
    } else if (f.duration_us) {
        fault_end_after(s, f.duration_us);
    }
}

static void post_metrics(struct server *s, struct httpd_req *rq)
{
    static const char *const keys[] = {"waiting", "kv", "running"};
    struct str m[3];
    const char *error;
    struct override o = {.on = true, .waiting = (double)NAN, .kv = (double)NAN, .running = (double)NAN};
    if (str_eq(str_trim(rq->body), STR("null"))) {
        s->override = (struct override){0};
        httpd_respond(rq, 200, "application/json", NULL, STR("{}"));
        return;
    }
    if (!body_members(rq->body, keys, 3, m, &error) || !read_double(m[0], &o.waiting) || !read_double(m[1], &o.kv) ||
        !read_double(m[2], &o.running)) {
        server_error(rq, 400, "BadRequestError", NULL, NULL,
                     "The body must be null or an object with numbers waiting, kv, running.");
        return;
    }
    s->override = o;
    httpd_respond(rq, 200, "application/json", NULL, STR("{}"));
}

static void post_ready(struct server *s, struct httpd_req *rq)
{
    static const char *const keys[] = {"ready"};
    struct str m[1];
    const char *error;
    bool ready = true;
    if (!body_members(rq->body, keys, 1, m, &error) || body_bool(m[0], &ready) != BODY_OK) {
        server_error(rq, 400, "BadRequestError", NULL, NULL, "The body must be {\"ready\": true or false}.");
        return;
    }
    s->unready = !ready;
    server_check_ready(s);
    httpd_respond(rq, 200, "application/json", NULL, STR("{}"));
}

static void get_requests(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    buf_init(&out, 512u << 20);
    captures_json(s->captures, &out);
    httpd_respond(rq, 200, "application/json", NULL, buf_str(&out));
    buf_free(&out);
}

static void loras_json(const struct server *s, const struct engine_stats *es, struct jsonw *w)
{
    static const char *const places[] = {[LORA_ON_DISK] = "disk", [LORA_IN_MEMORY] = "memory", [LORA_ON_GPU] = "gpu"};
    jsonw_key(w, "lora_loads");
    jsonw_u64(w, es->lora_loads);
    jsonw_key(w, "lora_reads");
    jsonw_u64(w, es->lora_reads);
    jsonw_key(w, "loras");
    jsonw_arr(w);
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++) {
        if (!s->loras[i])
            continue;
        jsonw_obj(w);
        jsonw_key(w, "name");
        jsonw_str(w, s->loras[i]->name);
        jsonw_key(w, "place");
        jsonw_cstr(w, places[engine_lora_place(s->ranks[0].engine, i + 1)]);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void get_state(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    struct jsonw w;
    struct engine_stats es;
    server_stats(s, true, &es);
    buf_init(&out, 8192);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "ready");
    jsonw_bool(&w, server_ready(s));
    jsonw_key(&w, "dead");
    jsonw_bool(&w, s->dead);
    jsonw_key(&w, "running");
    jsonw_u64(&w, es.running);
    jsonw_key(&w, "waiting");
    jsonw_u64(&w, es.waiting);
    jsonw_key(&w, "kv_usage");
    jsonw_f(&w, es.kv_usage_frac);
    jsonw_key(&w, "free_blocks");
    jsonw_u64(&w, es.free_blocks);
    jsonw_key(&w, "blocks");
    jsonw_u64(&w, es.n_blocks);
    jsonw_key(&w, "jobs");
    jsonw_u64(&w, s->n_jobs);
    jsonw_key(&w, "requests");
    jsonw_u64(&w, s->n_requests);
    jsonw_key(&w, "preemptions");
    jsonw_u64(&w, es.preemptions);
    jsonw_key(&w, "prefix_query_tokens");
    jsonw_u64(&w, es.prefix_query_tokens);
    jsonw_key(&w, "prefix_hit_tokens");
    jsonw_u64(&w, es.prefix_hit_tokens);
    loras_json(s, &es, &w);
    jsonw_key(&w, "dialect");
    jsonw_cstr(&w, sim_dialect_name(s->opt->dialect));
    jsonw_key(&w, "engines");
    jsonw_u64(&w, s->n_ranks);
    disagg_state(s, &w);
    jsonw_key(&w, "profile");
    jsonw_cstr(&w, s->profile.name);
    jsonw_obj_end(&w);
    httpd_respond(rq, 200, "application/json", NULL, buf_str(&out));
    buf_free(&out);
}

static void delete_requests(struct server *s, struct httpd_req *rq)
{
    captures_free(s->captures);
    s->captures = NULL;
    httpd_respond(rq, 200, "application/json", NULL, STR("{}"));
}

void server_control(struct server *s, struct httpd_req *rq, struct str path)
{
    static const struct {
        const char *path;
        enum h1_method method;
        void (*fn)(struct server *s, struct httpd_req *rq);
    } routes[] = {{"fault", H1_GET, respond_fault},   {"fault", H1_POST, post_fault},
                  {"metrics", H1_POST, post_metrics}, {"ready", H1_POST, post_ready},
                  {"requests", H1_GET, get_requests}, {"requests", H1_DELETE, delete_requests},
                  {"state", H1_GET, get_state}};
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!str_eq_c(path, routes[i].path))
            continue;
        known = true;
        if (routes[i].method == rq->head->method) {
            routes[i].fn(s, rq);
            return;
        }
    }
    if (known)
        server_error(rq, 405, "BadRequestError", NULL, NULL, "Method Not Allowed");
    else
        server_error(rq, 404, "NotFoundError", NULL, NULL, "There is no /sim/" STR_FMT ".", STR_ARG(path));
}
