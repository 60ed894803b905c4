/* request.c - the life of a request: states, body, deadlines, its three ways to end.
 *
 *   NEW -> READ_BODY -> ROUTE -> WAIT_PICK -> CONNECT -> SEND -> WAIT_HEAD -> RELAY -> DONE
 *
 *   NEW -> ROUTE                              no body
 *   ROUTE -> DONE                             error, redirect, model list
 *   WAIT_PICK -> SEND                         an idle connection is at hand
 *   WAIT_PICK -> PREFILL -> CONNECT, SEND     the prefill is done elsewhere first (pd.c)
 *   SEND, WAIT_HEAD -> CONNECT                a reused connection was closed; or its own prefill after all
 *   PREFILL to WAIT_HEAD -> WAIT_PICK         another endpoint is tried, before the first byte
 *   any -> DONE                               error, client gone, deadline
 *
 * Where prefill and decode run at once, the prefill leg runs beside the states from CONNECT on, and has states of its
 * own (leg.c).
 *
 * A request holds: its client (borrowed; the client outlives it), a reservation at its port (`reserved`, given back
 * exactly once), a connection to the endpoint (`up`), its body until the first byte of the answer, the world until the
 * answer's head is written. */
#include "proxy/impl.h"

#include "http/uri.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    unsigned to; /* states it may move to */
} states[REQ_N_STATES] = {
    [REQ_NEW] = {"new", BIT(REQ_READ_BODY) | BIT(REQ_ROUTE) | BIT(REQ_DONE)},
    [REQ_READ_BODY] = {"read_body", BIT(REQ_ROUTE) | BIT(REQ_DONE)},
    [REQ_ROUTE] = {"route", BIT(REQ_WAIT_PICK) | BIT(REQ_DONE)},
    [REQ_WAIT_PICK] = {"wait_pick", BIT(REQ_WAIT_PICK) | BIT(REQ_PREFILL) | BIT(REQ_CONNECT) | BIT(REQ_SEND) | BIT(REQ_DONE)},
    [REQ_PREFILL] = {"prefill", BIT(REQ_WAIT_PICK) | BIT(REQ_CONNECT) | BIT(REQ_SEND) | BIT(REQ_DONE)},
    [REQ_CONNECT] = {"connect", BIT(REQ_WAIT_PICK) | BIT(REQ_SEND) | BIT(REQ_DONE)},
    [REQ_SEND] = {"send", BIT(REQ_WAIT_PICK) | BIT(REQ_CONNECT) | BIT(REQ_WAIT_HEAD) | BIT(REQ_RELAY) | BIT(REQ_DONE)},
    [REQ_WAIT_HEAD] = {"wait_head", BIT(REQ_WAIT_PICK) | BIT(REQ_CONNECT) | BIT(REQ_RELAY) | BIT(REQ_DONE)},
    [REQ_RELAY] = {"relay", BIT(REQ_DONE)},
    [REQ_DONE] = {"done", 0},
};

const char *req_state_name(enum req_state s)
{
    return states[s].name;
}

bool req_move_allowed(enum req_state from, enum req_state to)
{
    return states[from].to & BIT(to);
}

void request_move(struct request *rq, enum req_state to)
{
    CHECK(req_move_allowed(rq->state, to));
    rq->state = to;
}

/* --- beginning ----------------------------------------------------------------------------------------------- */

static struct request *request_alloc(struct worker *w)
{
    struct list *it = list_pop_front(&w->free_requests);
    if (it) {
        w->n_free--;
        struct request *rq = CONTAINER_OF(it, struct request, link);
        struct arena arena = rq->arena;
        memset(rq, 0, sizeof *rq);
        rq->arena = arena;
        return rq;
    }
    struct request *rq = xcalloc(1, sizeof *rq);
    arena_init(&rq->arena, 4096);
    return rq;
}

static void rebase(struct str *s, const char *from, const char *to)
{
    if (s->p)
        s->p = to + (s->p - from);
}

/* Copies the head that w->head describes, with its spans, into the arena; headers beyond n_headers do not exist in the
 * copy. */
static void keep_head(struct request *rq, struct str bytes)
{
    const struct h1_head *head = &rq->w->head;
    rq->head_bytes = arena_str(&rq->arena, bytes);
    const char *from = bytes.p, *to = rq->head_bytes.p;
    size_t n = offsetof(struct h1_head, headers) + head->n_headers * sizeof head->headers[0];
    struct h1_head *h = arena_alloc(&rq->arena, n);
    memcpy(h, head, n);
    struct str *spans[] = {&h->method_str, &h->target, &h->host, &h->path, &h->query, &h->reason};
    for (size_t i = 0; i < ARRAY_LEN(spans); i++)
        if (spans[i]->p >= from && spans[i]->p <= from + bytes.n)
            rebase(spans[i], from, to);
    for (size_t i = 0; i < h->n_headers; i++) {
        rebase(&h->headers[i].name, from, to);
        rebase(&h->headers[i].value, from, to);
    }
    rq->head = h;
}

struct request *request_new(struct client *c, struct str head_bytes)
{
    struct worker *w = c->w;
    struct request *rq = request_alloc(w);
    rq->c = c;
    rq->w = w;
    list_init(&rq->link);
    rq->start_us = rq->last_us = worker_now_us(w);
    rq->status = 0;
    buf_init(&rq->up_in, w->g->o.max_head + (192 << 10));
    keep_head(rq, head_bytes);
    rq->keep_alive = rq->head->keep_alive && !w->draining;
    rq->http10 = rq->head->minor == 0;
    rq->to_head = rq->head->method == H1_HEAD;
    rq->kind = api_classify(rq->head->method == H1_GET, rq->head->method == H1_POST, rq->head->path);
    rq->world = w->world;
    if (rq->world)
        rq->world->refs++;
    if (!rq->keep_alive)
        c->close = true;
    return rq;
}

static struct str host_of(struct request *rq)
{
    struct str h = rq->head->host;
    size_t end = h.n;
    for (size_t i = h.n; i > 0 && h.p[i - 1] != ']'; i--) {
        if (h.p[i - 1] == ':') {
            end = i - 1;
            break;
        }
    }
    char *lower = arena_strdup(&rq->arena, str_first(h, end));
    for (size_t i = 0; i < end; i++)
        if (lower[i] >= 'A' && lower[i] <= 'Z')
            lower[i] = (char)(lower[i] + ('a' - 'A'));
    return (struct str){lower, end};
}

/* Resolves "." and ".." segments (RFC 3986 5.2.4), so that what is matched is what the server sees. Escaped dots are
 * not resolved but refused. */
static struct str without_dots(struct arena *a, struct str path)
{
    if (str_find(path, STR("/.")) < 0)
        return path;
    char *out = arena_alloc(a, path.n + 1);
    size_t n = 0;
    for (size_t i = 0, end; i < path.n; i = end) {
        for (end = i + 1; end < path.n && path.p[end] != '/';)
            end++;
        struct str seg = {path.p + i, end - i}; /* with its slash in front */
        bool up = str_eq(seg, STR("/..")), stay = str_eq(seg, STR("/."));
        while (up && n > 0 && out[--n] != '/')
            ;
        if (!up && !stay) {
            memcpy(out + n, seg.p, seg.n);
            n += seg.n;
        } else if (end == path.n) {
            out[n++] = '/';
        }
    }
    return n ? (struct str){out, n} : STR("/");
}

static bool start_checks(struct request *rq)
{
    const struct h1_head *h = rq->head;
    if (h->method == H1_CONNECT || h->method == H1_TRACE) {
        request_fail(rq, 405, "method_not_allowed", "The method " STR_FMT " is not served here.",
                     STR_ARG(h->method_str));
        return false;
    }
    rq->path = without_dots(&rq->arena, h->path);
    if (!uri_path_ok(rq->path)) {
        request_fail(rq, 400, "bad_path", "The request's path is not acceptable.");
        return false;
    }
    if (h->framing == H1_BODY_LENGTH && h->content_length > rq->w->g->o.max_body) {
        request_fail(rq, 413, "body_too_large", "The request body is longer than %zu bytes.", rq->w->g->o.max_body);
        return false;
    }
    return true;
}

static void body_done(struct request *rq)
{
    conn_recv_into(rq->c->conn, NULL, 0);
    rq->body_done_us = worker_now_us(rq->w);
    rq->body_n = rq->body.n;
    request_move(rq, REQ_ROUTE);
    request_route(rq);
}

void request_start(struct request *rq)
{
    const struct h1_head *h = rq->head;
    uint64_t total_us = rq->w->g->o.request_timeout_us;
    rq->deadline_us = total_us ? rq->start_us + total_us : 0;
    if (!start_checks(rq))
        return;
    char *path = arena_alloc(&rq->arena, rq->path.n + 1);
    rq->path = (struct str){path, uri_path_normalise(rq->path, path)};
    rq->host = host_of(rq);
    if (h->framing == H1_BODY_NONE || (h->framing == H1_BODY_LENGTH && !h->content_length)) {
        body_done(rq);
        return;
    }
    rq->body_left = h->content_length;
    h1_chunked_init(&rq->chunked_in);
    request_move(rq, REQ_READ_BODY);
    if (h->expect_continue && !rq->http10)
        client_continue(rq->c);
    client_arm(rq->c);
}

/* --- body ---------------------------------------------------------------------------------------------------- */

static bool body_ok(struct request *rq, enum body_result r)
{
    if (r == BODY_TOO_LARGE)
        request_fail(rq, 413, "body_too_large", "The request body is longer than %zu bytes.", rq->w->g->o.max_body);
    else if (r == BODY_NO_MEMORY)
        request_fail(rq, 503, "body_memory", "The gateway holds as many request bodies as it may; try again.");
    return r == BODY_OK;
}

/* Lets the loop read the next part of a large body straight into its buffer. */
static void recv_ahead(struct request *rq)
{
    struct body *b = &rq->body;
    if (rq->body_left < RECV_INTO_MIN) {
        conn_recv_into(rq->c->conn, NULL, 0);
        return;
    }
    size_t want = (size_t)MIN(rq->body_left, MAX((uint64_t)65536, 3 * (uint64_t)b->n));
    if (b->cap - b->n < RECV_INTO_MIN && !body_ok(rq, body_reserve(rq->w, b, want, (size_t)rq->head->content_length)))
        return;
    conn_recv_into(rq->c->conn, b->p + b->n, MIN(b->cap - b->n, (size_t)rq->body_left));
}

static struct str read_length(struct request *rq, struct str data)
{
    struct str part = str_first(data, (size_t)MIN(rq->body_left, data.n));
    struct body *b = &rq->body;
    if (b->p && part.p == b->p + b->n) /* the loop has read it to its place */
        b->n += part.n;
    else if (!body_ok(rq, body_add(rq->w, b, part, (size_t)rq->head->content_length)))
        return STR_NULL;
    rq->body_left -= part.n;
    if (rq->body_left)
        recv_ahead(rq);
    else
        body_done(rq);
    return str_from(data, part.n);
}

static struct str read_chunked(struct request *rq, struct str data)
{
    while (data.n) {
        struct str part;
        struct h1_error e;
        ptrdiff_t n = h1_chunked_next(&rq->chunked_in, data, &part, &e);
        if (n < 0) {
            request_fail(rq, e.status, "bad_request", "The request body is not valid: %s.", e.what);
            return STR_NULL;
        }
        if (part.n && !body_ok(rq, body_add(rq->w, &rq->body, part, 0)))
            return STR_NULL;
        data = str_from(data, (size_t)n);
        if (rq->chunked_in.done) {
            body_done(rq);
            break;
        }
    }
    return data;
}

struct str request_read_body(struct request *rq, struct str data)
{
    rq->last_us = worker_now_us(rq->w);
    return rq->head->framing == H1_BODY_CHUNKED ? read_chunked(rq, data) : read_length(rq, data);
}

/* --- deadlines ----------------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b) /* 0 = none */
{
    if (!a || !b)
        return a + b;
    return MIN(a, b);
}

uint64_t request_deadline_us(const struct request *rq)
{
    const struct gateway_opts *o = &rq->w->g->o;
    uint64_t own = 0, limit;
    switch (rq->state) {
    case REQ_READ_BODY:
        own = rq->last_us + o->body_idle_us;
        break;
    case REQ_WAIT_PICK:
        own = rq->repick_us;
        break;
    case REQ_CONNECT:
        own = rq->picked_us + o->connect_timeout_us;
        break;
    case REQ_SEND:
    case REQ_WAIT_HEAD:
        own = rq->attempt_deadline_us;
        break;
    case REQ_RELAY:
        limit = rq->up_paused ? o->client_stall_us : o->stream_idle_us;
        own = limit ? rq->last_us + limit : 0;
        break;
    default:
        break;
    }
    if (leg_live(rq))
        own = earlier(own, rq->pd->leg.deadline_us);
    uint64_t at = earlier(own, rq->deadline_us);
    return at ? at : UINT64_MAX / 2;
}

static void expired_total(struct request *rq)
{
    /* A pool's endpoint is judged by probes, not by a limit that somebody set for answers; a Service has no probes. */
    if (rq->state != REQ_READ_BODY && rq->state != REQ_WAIT_PICK)
        request_finish_pick(rq, rq->backend->pool || rq->state == REQ_RELAY ? OUT_CANCELLED : OUT_TIMEOUT);
    unsigned status = rq->state == REQ_READ_BODY ? 408 : 504;
    request_fail(rq, status, "request_timeout", "The request was not answered within its time limit.");
}

void request_expired(struct request *rq, uint64_t now_us)
{
    if (rq->deadline_us && now_us >= rq->deadline_us) {
        expired_total(rq);
        return;
    }
    if (leg_live(rq) && rq->pd->leg.deadline_us && now_us >= rq->pd->leg.deadline_us) { /* before the other's: that waits for it */
        leg_expired(rq);
        return;
    }
    switch (rq->state) {
    case REQ_PREFILL: /* only its leg has a limit */
        client_arm(rq->c);
        break;
    case REQ_READ_BODY:
        request_fail(rq, 408, "body_timeout", "The request body did not arrive in time.");
        break;
    case REQ_WAIT_PICK:
        if (!rq->queued)
            request_pick(rq);
        break;
    case REQ_CONNECT:
        upstream_failed(rq, OUT_CONNECT_FAILED, "connect_timeout");
        break;
    case REQ_SEND:
    case REQ_WAIT_HEAD:
        upstream_failed(rq, OUT_TIMEOUT, "first_byte_timeout");
        break;
    default: /* RELAY */
        request_finish_pick(rq, rq->up_paused ? OUT_CANCELLED : OUT_TIMEOUT);
        request_fail(rq, 504, rq->up_paused ? "client_stalled" : "stream_timeout", "The answer stopped.");
        break;
    }
}

/* --- what is sent -------------------------------------------------------------------------------------------- */

void request_set_parts(struct request *rq, const struct str *body, uint32_t n)
{
    size_t length = 0;
    for (uint32_t i = 0; i < n; i++) {
        rq->parts[1 + i] = span(body[i]);
        length += body[i].n;
    }
    struct str head = arena_str(&rq->arena, headers_request(rq, length));
    rq->parts[0] = span(head);
    rq->n_parts = 1 + (int)n;
    rq->send_total = head.n + length;
}

/* --- end ----------------------------------------------------------------------------------------------------- */

void request_drop_upstream(struct request *rq)
{
    if (rq->up)
        conn_abort(rq->up);
    rq->up = NULL;
    rq->up_paused = false;
    buf_clear(&rq->up_in);
    list_remove(&rq->link);
}

static void finish_with(struct request *rq, enum sched_outcome how, const struct sched_usage *u)
{
    if (!rq->reserved)
        return;
    rq->reserved = false;
    port_finish(rq->backend->port, &rq->pick, how, u);
}

void request_finish_pick(struct request *rq, enum sched_outcome how)
{
    finish_with(rq, how, NULL);
}

/* Ledger, metrics and log, once: before the last bytes of the answer leave, so that whoever has the answer finds its
 * line and its counters. */
static void account(struct request *rq, const struct api_usage *usage)
{
    if (rq->accounted)
        return;
    rq->accounted = true;
    request_finish_pick(rq, OUT_CANCELLED);
    uint64_t now_us = loop_clock_us(rq->w->loop);
    metrics_done(rq, usage, now_us);
    decided_over(rq, usage, now_us);
    access_log(rq, usage, now_us);
}

/* Everything that ends comes here once. The client goes on, or is closed, after it. */
static void end(struct request *rq)
{
    struct client *c = rq->c;
    pd_cut(rq, OUT_CANCELLED);
    request_drop_upstream(rq);
    request_unqueue(rq);
    account(rq, NULL);
    if (c->conn)
        conn_recv_into(c->conn, NULL, 0); /* the body's buffer goes */
    request_move(rq, REQ_DONE);
    c->rq = NULL;
    body_free(rq->w, &rq->body);
    if (!rq->cancelled)
        list_push_back(&rq->w->dead_requests, &rq->link);
}

void request_release(struct request *rq)
{
    body_free(rq->w, &rq->body);
    buf_free(&rq->up_in);
    world_unref(rq->world);
    backend_unref(rq->backend);
    endpoint_unref(rq->ep);
    free(rq->tail);
    pd_free(rq);
    arena_reset(&rq->arena);
}

static bool body_unread(const struct request *rq)
{
    const struct h1_head *h = rq->head;
    return rq->state <= REQ_READ_BODY && h->framing != H1_BODY_NONE &&
           !(h->framing == H1_BODY_LENGTH && !h->content_length);
}

void request_fail(struct request *rq, unsigned status, const char *code, const char *fmt, ...)
{
    struct client *c = rq->c;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    rq->error_code = code;
    request_unqueue(rq);
    if (body_unread(rq)) /* what is still coming is no request */
        c->close = true;
    metrics_rejected(rq->w, code);
    if (rq->committed) { /* the answer has begun: its protocol's mark of an error is a connection that ends too soon */
        bool eof_framed = rq->client_keep == false && rq->http10;
        end(rq);
        if (eof_framed)
            client_abort(c);
        else
            client_close(c);
        return;
    }
    rq->status = status;
    account(rq, NULL);
    errors_write(c, rq->kind, rq->to_head, !c->close, status, code,
                 (struct str){text, MIN((size_t)MAX(n, 0), sizeof text - 1)});
    end(rq);
    client_request_done(c);
}

void request_answer(struct request *rq, unsigned status, const char *content_type, const char *headers, struct str body)
{
    struct client *c = rq->c;
    struct buf *out = &rq->w->out;
    rq->status = status;
    rq->resp_bytes = body.n;
    account(rq, NULL);
    buf_clear(out);
    buf_addf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, h1_reason(status), worker_date(rq->w));
    if (content_type)
        buf_addf(out, "Content-Type: %s\r\n", content_type);
    buf_addf(out, "Content-Length: %zu\r\n%s%s\r\n", body.n, headers ? headers : "",
             c->close ? "Connection: close\r\n" : (rq->http10 ? "Connection: keep-alive\r\n" : ""));
    struct iovec v[] = {span(buf_str(out)), span(body)};
    conn_write(c->conn, v, rq->to_head ? 1 : 2);
    end(rq);
    client_request_done(c);
}

static enum sched_outcome outcome_of(const struct request *rq)
{
    if (rq->status == 404 && rq->is_model_kind && rq->backend->pool)
        return OUT_MODEL_MISSING;
    return rq->status >= 500 ? OUT_SERVER_ERROR : OUT_OK;
}

static void read_usage(const struct request *rq, struct api_usage *u)
{
    if (!rq->tail || rq->status >= 300)
        return;
    char text[SSE_TAIL];
    size_t n = sse_tail(rq->tail, text);
    if (rq->kind == API_MESSAGES && rq->event_stream) /* the prompt's tokens stand in the first event, the answer's in one of the last */
        api_usage_from_body(sse_first_data(rq->tail), u);
    api_usage_from_tail((struct str){text, n}, u);
}

void request_settle(struct request *rq)
{
    struct api_usage u = {0};
    if (rq->accounted)
        return;
    read_usage(rq, &u);
    struct sched_usage su = {u.prompt_tokens, u.completion_tokens, u.cached_tokens, u.has_cached};
    if (rq->pd && rq->pd->split) { /* what came from elsewhere counts as cached at the decode endpoint: that says nothing of its caches */
        su.has_cached = false;
        u.has_cached = rq->pd->has_cached;
        u.cached_tokens = rq->pd->cached_tokens;
    }
    if (rq->response_id.n && rq->status < 300)
        port_remember_response(rq->backend->port, rq->response_id, rq->ep);
    finish_with(rq, outcome_of(rq), u.found ? &su : NULL);
    account(rq, &u);
}

void request_complete(struct request *rq)
{
    struct client *c = rq->c;
    request_settle(rq);
    if (!rq->client_keep)
        c->close = true;
    end(rq);
    client_request_done(c);
}

void request_client_gone(struct request *rq)
{
    rq->error_code = "client_closed";
    if (!rq->committed)
        rq->status = 499;
    if (rq->queued) { /* first of all: somebody may be waiting for this place */
        rq->gone_us = worker_now_us(rq->w);
        request_unqueue(rq);
        if (!rq->cancelled) /* else its late answer is in the mail, and tells */
            flow_released(rq);
    }
    if (rq->c->conn)
        rq->c->close = true;
    end(rq);
}
