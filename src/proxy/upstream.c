/* upstream.c - the connection to the endpoint: taken from the pool or opened, the request sent without copying, the
 * answer's head found. */
#include "proxy/impl.h"

#include <errno.h>

static const struct conn_ops upstream_ops;

size_t upstream_send(struct request *rq, struct conn *up, size_t sent)
{
    struct iovec v[ARRAY_LEN(rq->parts)];
    int n = 0;
    size_t skip = sent;
    for (int i = 0; i < rq->n_parts; i++) {
        size_t cut = MIN(skip, rq->parts[i].iov_len);
        skip -= cut;
        if (rq->parts[i].iov_len > cut)
            v[n++] = (struct iovec){(char *)rq->parts[i].iov_base + cut, rq->parts[i].iov_len - cut};
    }
    return n ? conn_send(up, v, n) : 0;
}

static void send_more(struct request *rq)
{
    rq->sent += upstream_send(rq, rq->up, rq->sent);
    if (rq->sent < rq->send_total || rq->state != REQ_SEND)
        return;
    request_move(rq, REQ_WAIT_HEAD);
    metrics_sent(rq);
}

uint64_t upstream_deadline_us(const struct request *rq)
{
    uint64_t limit_us = rq->rule && rq->rule->backend_timeout_us && rq->rule->backend_timeout_us != UINT64_MAX
                            ? rq->rule->backend_timeout_us
                            : rq->w->g->o.first_byte_us;
    return limit_us ? worker_now_us(rq->w) + limit_us : 0;
}

static void start_sending(struct request *rq)
{
    request_move(rq, REQ_SEND);
    rq->sent = 0;
    rq->attempt_deadline_us = upstream_deadline_us(rq);
    client_arm(rq->c);
    send_more(rq);
}

void request_connect(struct request *rq)
{
    struct worker *w = rq->w;
    rq->picked_us = worker_now_us(w);
    rq->head_seen = false;
    rq->sent = 0;
    list_remove(&rq->link);
    list_push_back(&w->waiting, &rq->link);
    struct conn *c = rq->fresh ? NULL : conn_pool_take(w->pool, &rq->ep->addr);
    if (c) {
        rq->up = c;
        conn_set(c, &upstream_ops, rq);
        start_sending(rq);
        return;
    }
    request_move(rq, REQ_CONNECT);
    rq->up = conn_connect(w->loop, &rq->ep->addr, &upstream_ops, rq);
    client_arm(rq->c);
}

void upstream_adopt(struct request *rq, struct conn *up)
{
    if (rq->state == REQ_PREFILL || rq->state == REQ_CONNECT)
        request_move(rq, REQ_SEND);
    if (rq->state == REQ_SEND)
        request_move(rq, REQ_WAIT_HEAD);
    rq->up = up;
    conn_set(up, &upstream_ops, rq);
    rq->attempt_deadline_us = upstream_deadline_us(rq);
    client_arm(rq->c);
}

/* --- the answer's head --------------------------------------------------------------------------------------- */

/* Takes heads from the start of `in`, 1xx ones too. Returns what is behind the final head in *rest and its description
 * in w->resp: 1; 0 when it is not whole (*rest: what to keep); -1 when it is no HTTP. */
static int find_head(struct request *rq, struct str in, struct str *rest)
{
    struct worker *w = rq->w;
    struct h1_error e;
    *rest = in;
    while (rest->n) {
        ptrdiff_t n = h1_parse_response(*rest, w->g->o.max_head, rq->to_head, &w->resp, &e);
        if (n < 0)
            return -1;
        if (n == H1_MORE)
            return 0;
        *rest = str_from(*rest, (size_t)n);
        if (w->resp.status >= 200)
            return 1;
        if (w->resp.status == 101)
            return -1; /* nobody asked for it */
    }
    return 0;
}

int upstream_take_head(struct request *rq, struct buf *in, size_t body_max, struct str data, struct str *rest,
                       struct buf *kept)
{
    bool buffered = in->n > 0;
    if (buffered && !buf_add_str(in, data))
        return -1;
    struct str all = buffered ? buf_str(in) : data;
    int found = find_head(rq, all, rest);
    if (found > 0) {
        *kept = *in;
        buf_init(in, body_max);
    } else if (!found && buffered) {
        buf_consume(in, all.n - rest->n);
    } else if (!found) {
        buf_add_str(in, *rest);
    }
    return found;
}

static void head_input(struct request *rq, struct str data)
{
    struct str rest;
    struct buf kept;
    int found = upstream_take_head(rq, &rq->up_in, rq->up_in.max, data, &rest, &kept);
    if (found < 0)
        upstream_failed(rq, OUT_GARBAGE, "upstream_garbage");
    if (found <= 0)
        return;
    relay_head(rq, &rq->w->resp, rest);
    buf_free(&kept);
}

/* --- events -------------------------------------------------------------------------------------------------- */

/* Errors of connect() that say something about this machine and nothing about the endpoint. */
bool upstream_is_ours(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM || err == -EADDRNOTAVAIL;
}

static void on_connect(struct conn *c, int err)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    if (upstream_is_ours(err))
        request_fail(rq, 503, "gateway_exhausted", "The gateway has no socket left for the request; try again.");
    else if (err)
        upstream_failed(rq, OUT_CONNECT_FAILED, "connect_failed");
    else
        start_sending(rq);
    worker_leave(w);
}

static void on_data(struct conn *c, struct str data)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    rq->last_us = worker_now_us(w);
    atomic_store_explicit(&rq->ep->alive_us, rq->last_us, memory_order_relaxed);
    if (rq->head_seen)
        relay_data(rq, data);
    else
        head_input(rq, data);
    worker_leave(w);
}

static void on_eof(struct conn *c)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    if (rq->head_seen)
        relay_eof(rq);
    else
        upstream_failed(rq, OUT_RESET, "upstream_closed");
    worker_leave(w);
}

static void on_drain(struct conn *c)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    if (rq->state == REQ_SEND)
        send_more(rq);
    worker_leave(w);
}

static void on_error(struct conn *c, int err)
{
    (void)err;
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    upstream_failed(rq, OUT_RESET, "upstream_reset");
    worker_leave(w);
}

static const struct conn_ops upstream_ops = {on_connect, on_data, on_eof, on_drain, on_error, NULL};
