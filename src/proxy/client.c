/* client.c - the server's side of HTTP/1.1: heads in, one request at a time, keep-alive, deadlines.
 *
 * Input behind the request under way (pipelining) is kept up to one read and then the connection is paused. A client
 * that closes its side is taken to be gone: the request is cancelled at once, GPU time is worth more than the rare
 * half-closed client. */
#include "proxy/impl.h"

#include <stdio.h>
#include <stdlib.h>

#define DRAIN_IDLE_US 1000000 /* a drain accepts who was waiting: so long for its request */

static void client_feed(struct client *c, struct str data);

/* --- deadlines ----------------------------------------------------------------------------------------------- */

static uint64_t deadline_us(const struct client *c)
{
    const struct gateway_opts *o = &c->w->g->o;
    if (c->rq)
        return request_deadline_us(c->rq);
    if (conn_pending(
            c->conn)) /* the last answer is on its way: a slow reader may take as long as in the midst of one */
        return o->client_stall_us ? c->since_us + o->client_stall_us : UINT64_MAX / 2;
    if (c->in.n)
        return c->since_us + o->head_timeout_us;
    return c->since_us + (c->w->draining ? MIN(o->idle_us, DRAIN_IDLE_US) : o->idle_us);
}

void client_arm(struct client *c)
{
    uint64_t at_us = c->dead ? 0 : deadline_us(c);
    if (at_us && (!timer_armed(&c->timer) || at_us < c->timer.node.key))
        timer_set(c->w->loop, &c->timer, at_us);
}

static void on_timer(struct timer *t)
{
    struct client *c = CONTAINER_OF(t, struct client, timer);
    uint64_t now_us = worker_now_us(c->w), at_us = deadline_us(c);
    if (at_us > now_us) {
        timer_set(c->w->loop, t, at_us);
        return;
    }
    worker_enter(c->w);
    if (c->rq) {
        request_expired(c->rq, now_us);
    } else if (conn_pending(c->conn)) {
        client_abort(c);
    } else if (c->in.n) {
        metrics_rejected(c->w, "head_timeout");
        errors_write(c, API_OTHER, false, false, 408, "head_timeout", STR("The request head did not arrive in time."));
        client_close(c);
    } else {
        client_close(c);
    }
    if (!c->dead)
        client_arm(c);
    worker_leave(c->w);
}

/* --- end ----------------------------------------------------------------------------------------------------- */

static void drop(struct client *c)
{
    c->dead = true;
    c->conn = NULL;
    timer_stop(c->w->loop, &c->timer);
    buf_free(&c->in);
    list_remove(&c->link);
    list_push_back(&c->w->dead_clients, &c->link);
    atomic_fetch_sub_explicit(&c->w->g->n_clients, 1, memory_order_relaxed);
    metrics_client(c->w, -1);
}

void client_close(struct client *c)
{
    if (c->dead)
        return;
    conn_close(c->conn);
    drop(c);
}

void client_abort(struct client *c)
{
    if (c->dead)
        return;
    conn_abort(c->conn);
    drop(c);
}

/* The last answer first: a slow reader gets all of it. on_drain comes back to client_request_done. */
static void close_when_sent(struct client *c)
{
    if (!conn_pending(c->conn)) {
        client_close(c);
        return;
    }
    c->since_us = worker_now_us(c->w);
    client_arm(c);
}

static void gone(struct client *c)
{
    if (c->dead)
        return;
    if (c->rq)
        request_client_gone(c->rq);
    client_close(c);
}

/* --- input --------------------------------------------------------------------------------------------------- */

static void refuse_head(struct client *c, const struct h1_error *e)
{
    static const struct {
        unsigned status;
        const char *code;
    } codes[] = {{414, "uri_too_long"},
                 {417, "expectation_failed"},
                 {431, "headers_too_large"},
                 {501, "not_implemented"},
                 {505, "http_version"}};
    const char *code = "bad_request";
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i].status == e->status)
            code = codes[i].code;
    char text[256];
    int n = snprintf(text, sizeof text, "The request is not valid HTTP/1.1: %s.", e->what);
    metrics_rejected(c->w, code);
    errors_write(c, API_OTHER, false, false, e->status, code,
                 (struct str){text, MIN((size_t)MAX(n, 0), sizeof text - 1)});
    client_close(c);
}

/* Takes a head from the start of data. Returns its length, 0 when it is not whole, -1 when the connection has ended. */
static ptrdiff_t take_head(struct client *c, struct str data)
{
    struct worker *w = c->w;
    struct h1_error e;
    ptrdiff_t n = h1_parse_request(data, w->g->o.max_head, &w->head, &e);
    if (n < 0) {
        refuse_head(c, &e);
        return -1;
    }
    if (n == H1_MORE)
        return 0;
    c->served = true;
    c->rq = request_new(c, str_first(data, (size_t)n));
    request_start(c->rq);
    return n;
}

static void keep_rest(struct client *c, struct str data)
{
    if (!c->in.n)
        c->since_us = worker_now_us(c->w);
    if (!buf_add_str(&c->in, data)) { /* cannot happen: a head that long was refused, and reading is paused before */
        gone(c);
        return;
    }
    client_arm(c);
}

/* Nothing is read while input waits that cannot be used yet: what a client sends ahead is bounded by one read. */
static void follow_flow(struct client *c)
{
    if (!c->dead)
        conn_pause(c->conn, c->in.n && (c->rq ? c->rq->state != REQ_READ_BODY : conn_pending(c->conn) > 0));
}

/* Runs as far as the input goes. Returns what it could not use yet. */
static struct str consume(struct client *c, struct str data)
{
    while (data.n && !c->dead) {
        if (!c->rq) {
            if (c->close || conn_pending(c->conn)) /* no further request; the last answer is still on its way */
                break;
            ptrdiff_t n = take_head(c, data);
            if (n <= 0)
                break;
            data = str_from(data, (size_t)n);
        } else if (c->rq->state == REQ_READ_BODY) {
            data = request_read_body(c->rq, data);
        } else {
            break;
        }
    }
    return data;
}

/* data: new input, none of it in c->in yet. */
static void client_feed(struct client *c, struct str data)
{
    c->feeding = true;
    if (!c->in.n) {
        struct str rest = consume(c, data);
        if (rest.n && !c->dead && !c->close)
            keep_rest(c, rest);
    } else {
        bool news = c->rq || !data.n || memchr(data.p, '\n', data.n) || c->in.n + data.n >= c->w->g->o.max_head;
        if (data.n)
            keep_rest(c, data);
        if (news && !c->dead) {
            struct str all = buf_str(&c->in), rest = consume(c, all);
            if (!c->dead)
                buf_consume(&c->in, all.n - rest.n);
        }
    }
    if (!c->dead && !c->in.n)
        buf_free(&c->in);
    if (!c->dead && c->close && !c->rq)
        close_when_sent(c);
    follow_flow(c);
    c->feeding = false;
}

static void on_data(struct conn *conn, struct str data)
{
    struct client *c = conn_ctx(conn);
    struct worker *w = c->w;
    worker_enter(w);
    if (c->rq && c->rq->state == REQ_READ_BODY && !c->in.n)
        data = request_read_body(c->rq, data);
    if (data.n && !c->dead && (!c->close || c->rq))
        client_feed(c, data);
    worker_leave(w);
}

static void on_eof(struct conn *conn)
{
    struct client *c = conn_ctx(conn);
    struct worker *w = c->w;
    worker_enter(w);
    gone(c);
    worker_leave(w);
}

static void on_error(struct conn *conn, int err)
{
    (void)err;
    on_eof(conn);
}

static void on_drain(struct conn *conn)
{
    struct client *c = conn_ctx(conn);
    struct worker *w = c->w;
    worker_enter(w);
    if (c->rq)
        relay_client_drained(c->rq);
    else if (!c->dead)
        client_request_done(c);
    worker_leave(w);
}

static const struct conn_ops client_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error, .on_hangup = on_eof};

/* --- life ---------------------------------------------------------------------------------------------------- */

void client_accept(struct worker *w, uint16_t port, struct conn *conn)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->w = w;
    c->conn = conn;
    c->port = port;
    c->since_us = worker_now_us(w);
    c->timer.fn = on_timer;
    buf_init(&c->in, w->g->o.max_head + (128 << 10));
    list_push_back(&w->clients, &c->link);
    atomic_fetch_add_explicit(&w->g->n_clients, 1, memory_order_relaxed);
    metrics_client(w, 1);
    conn_set(conn, &client_ops, c);
    client_arm(c);
}

void client_continue(struct client *c)
{
    conn_write_str(c->conn, STR("HTTP/1.1 100 Continue\r\n\r\n"));
}

/* The next request, once the last byte of the answer has left: a client that does not read gets no further answers. */
void client_request_done(struct client *c)
{
    if (c->dead)
        return;
    if (c->close || c->w->draining) {
        c->close = true;
        if (!c->feeding)
            close_when_sent(c);
        return;
    }
    c->since_us = worker_now_us(c->w);
    if (conn_pending(c->conn)) {
        client_arm(c);
        return; /* on_drain comes here again */
    }
    if (!c->feeding && c->in.n)
        client_feed(c, STR_NULL);
    else if (!c->feeding) /* else client_feed goes on */
        follow_flow(c);
    if (!c->dead)
        client_arm(c);
}
