/* leg.c - the prefill leg of a request: a connection beside the request's own, its answer read to the end and not
 * relayed.
 *
 *   NONE -> CONNECT -> SEND -> WAIT_HEAD -> BODY -> NONE (over)
 *   NONE -> SEND (a kept connection)
 *   any  -> NONE (stopped, failed, or its answer became the request's)
 *
 * The leg holds: its connection, a reservation at the port (pick.leg_ep; given back exactly once), nothing of the body:
 * that is the request's, which outlives it. What a failure means is decided in pd.c. */
#include "proxy/impl.h"

#include "base/hash.h"

#include <stdlib.h>

#define ANSWER_MAX ((size_t)8 << 20) /* of a prefill: parameters of a long prompt name each of its blocks */

static const struct conn_ops leg_ops;

static struct leg *leg_of(struct request *rq)
{
    return &rq->pd->leg;
}

/* --- ends ---------------------------------------------------------------------------------------------------- */

static void forget(struct leg *g)
{
    g->state = LEG_NONE;
    g->up = NULL;
    g->deadline_us = 0;
    free(g->tail);
    g->tail = NULL;
}

/* answer: the whole of it, where it was kept */
static void finish(struct request *rq, enum sched_outcome how, struct str answer)
{
    struct leg *g = leg_of(rq);
    struct api_usage u = {0};
    char text[SSE_TAIL];
    if (answer.n)
        api_usage_from_body(answer, &u);
    else if (g->tail && how == OUT_OK)
        api_usage_from_tail((struct str){text, sse_tail(g->tail, text)}, &u);
    rq->pd->has_cached = u.has_cached;
    rq->pd->cached_tokens = u.cached_tokens;
    struct sched_usage su = {u.prompt_tokens, u.completion_tokens, u.cached_tokens, u.has_cached};
    port_leg_finish(rq->backend->port, &rq->pick, how, u.found ? &su : NULL);
}

void leg_stop(struct request *rq, enum sched_outcome how)
{
    struct leg *g = leg_of(rq);
    if (g->up)
        conn_abort(g->up);
    bool done =
        g->state != LEG_NONE && g->prefilled_us; /* of this leg: one that has not begun has that of an earlier one */
    finish(rq, done && how == OUT_CANCELLED ? OUT_OK : how, STR_NULL);
    buf_free(&g->in);
    forget(g);
}

static void over(struct request *rq, bool excess)
{
    struct leg *g = leg_of(rq);
    struct conn *up = g->up;
    struct buf answer = g->in;
    buf_init(&g->in, ANSWER_MAX);
    g->up = NULL;
    if (g->keep && !excess)
        conn_pool_put(rq->w->pool, up);
    else
        conn_close(up);
    finish(rq, OUT_OK, buf_str(&answer));
    forget(g);
    if (rq->pd->mode == PD_NIXL)
        pd_prefill_over(rq, buf_str(&answer));
    buf_free(&answer);
}

/* A kept connection that the server closed just as we used it: the same endpoint once more, on one of its own. */
static bool was_stale(struct request *rq, enum sched_outcome how)
{
    struct leg *g = leg_of(rq);
    return how == OUT_RESET && !rq->committed && !g->fresh && g->state < LEG_BODY && g->in.n == 0 && g->up &&
           conn_is_reused(g->up);
}

static void connect_leg(struct request *rq);

static void failed(struct request *rq, enum sched_outcome how, const char *code)
{
    struct leg *g = leg_of(rq);
    if (was_stale(rq, how)) {
        metrics_upstream_failure(rq, OUT_STALE_CONN);
        conn_abort(g->up);
        g->fresh = true;
        connect_leg(rq);
        return;
    }
    if (how == OUT_CONNECT_FAILED)
        conn_pool_drop(rq->w->pool, &g->ep->addr);
    pd_prefill_failed(rq, how, code);
}

void leg_expired(struct request *rq)
{
    bool connecting = leg_of(rq)->state == LEG_CONNECT;
    failed(rq, connecting ? OUT_CONNECT_FAILED : OUT_TIMEOUT,
           connecting ? "prefill_connect_timeout" : "prefill_timeout");
}

void leg_ejected(struct request *rq)
{
    struct leg *g = leg_of(rq);
    g->epoch = atomic_load_explicit(&g->ep->epoch, memory_order_acquire);
    if (!g->prefilled_us) /* the probes have counted the failure already */
        pd_prefill_failed(rq, OUT_CANCELLED, "prefill_ejected");
}

/* --- the way out --------------------------------------------------------------------------------------------- */

static void send_more(struct request *rq)
{
    struct leg *g = leg_of(rq);
    g->sent += upstream_send(rq, g->up, g->sent);
    if (g->state != LEG_SEND || g->sent < rq->send_total)
        return;
    g->state = LEG_WAIT_HEAD;
    if (rq->state == REQ_PREFILL) /* else the decode endpoint gets it at the same time */
        metrics_sent(rq);
}

static void start_sending(struct request *rq)
{
    struct leg *g = leg_of(rq);
    g->state = LEG_SEND;
    g->sent = 0;
    g->deadline_us = upstream_deadline_us(rq);
    client_arm(rq->c);
    send_more(rq);
}

static void connect_leg(struct request *rq)
{
    struct leg *g = leg_of(rq);
    struct worker *w = rq->w;
    struct conn *c = g->fresh ? NULL : conn_pool_take(w->pool, &g->ep->addr);
    if (c) {
        g->up = c;
        conn_set(c, &leg_ops, rq);
        start_sending(rq);
        return;
    }
    g->state = LEG_CONNECT;
    g->deadline_us = worker_now_us(w) + w->g->o.connect_timeout_us;
    g->up = conn_connect(w->loop, &g->ep->addr, &leg_ops, rq);
    client_arm(rq->c);
}

void leg_start(struct request *rq)
{
    struct leg *g = leg_of(rq);
    endpoint_unref(g->ep);
    g->ep = endpoint_ref(rq->pick.leg_ep);
    g->epoch = rq->pick.leg_epoch;
    g->begun_us = worker_now_us(rq->w);
    g->prefilled_us = 0;
    g->fresh = g->event_stream = false;
    buf_init(&g->in, rq->w->g->o.max_head + (192 << 10));
    connect_leg(rq);
}

/* --- the answer ---------------------------------------------------------------------------------------------- */

void leg_prefilled(struct request *rq)
{
    struct leg *g = leg_of(rq);
    if (g->prefilled_us)
        return;
    g->prefilled_us = loop_clock_us(rq->w->loop);
    port_leg_prefilled(rq->backend->port, &rq->pick);
    metrics_prefilled(rq);
}

static void see(struct request *rq, struct str bytes)
{
    struct leg *g = leg_of(rq);
    sse_feed(g->tail, bytes);
    if (rq->pd->mode == PD_NIXL)
        buf_add_str(&g->in, bytes); /* too long: seen at the end */
}

/* 1 the end (*excess: something is behind it), 0 more to come, -1 no HTTP */
static int scan(struct request *rq, struct str data, bool *excess)
{
    struct leg *g = leg_of(rq);
    if (g->framing == H1_BODY_CHUNKED) {
        while (data.n && !g->chunked.done) {
            struct str bytes;
            struct h1_error e;
            ptrdiff_t n = h1_chunked_next(&g->chunked, data, &bytes, &e);
            if (n < 0)
                return -1;
            see(rq, bytes);
            data = str_from(data, (size_t)n);
        }
        *excess = data.n > 0;
        return g->chunked.done;
    }
    struct str mine = g->framing == H1_BODY_LENGTH ? str_first(data, (size_t)MIN(g->left, data.n)) : data;
    see(rq, mine);
    *excess = data.n > mine.n;
    g->left -= g->framing == H1_BODY_LENGTH ? mine.n : 0;
    return g->framing == H1_BODY_LENGTH && !g->left;
}

static void body_input(struct request *rq, struct str data)
{
    struct leg *g = leg_of(rq);
    bool excess = false;
    int end = scan(rq, data, &excess);
    if (end < 0 || g->in.overflow) {
        failed(rq, OUT_GARBAGE, "prefill_garbage");
        return;
    }
    if (g->event_stream && !g->prefilled_us && (g->tail->first_done || end)) {
        if (api_first_event_error(sse_first_data(g->tail))) { /* as an answer of that status would be */
            failed(rq, OUT_SERVER_ERROR, "prefill_error");
            return;
        }
        leg_prefilled(rq);
    }
    if (end)
        over(rq, excess);
}

/* What is wrong with the request itself is the client's to know; the decode endpoint waits for a prefill that never
 * comes. */
static bool is_verdict(unsigned status)
{
    return status >= 400 && status < 500 && status != 404 && status != 408 && status != 429;
}

static void become_answer(struct request *rq, struct str rest)
{
    struct leg *g = leg_of(rq);
    struct conn *up = g->up;
    rq->w->resp.keep_alive &=
        g->state != LEG_SEND; /* what it has not read of this request would be taken for the next one */
    finish(rq, OUT_OK, STR_NULL);
    forget(g);
    request_finish_pick(rq, OUT_CANCELLED);
    request_drop_attempt(rq);
    endpoint_unref(rq->ep);
    rq->ep = endpoint_ref(g->ep);
    upstream_adopt(rq, up);
    relay_head(rq, &rq->w->resp, rest);
}

static void head_found(struct request *rq, const struct h1_head *head, struct str rest)
{
    struct leg *g = leg_of(rq);
    if (is_verdict(head->status)) {
        if (rq->committed)
            leg_stop(rq, OUT_OK);
        else
            become_answer(rq, rest);
        return;
    }
    if (head->status == 404)
        port_models_stale(rq->backend->port, g->ep, hash_bytes(rq->target.p, rq->target.n, 0));
    if (head->status >= 300) {
        failed(rq, head->status == 404 ? OUT_MODEL_MISSING : OUT_SERVER_ERROR, "prefill_error");
        return;
    }
    g->event_stream = relay_is_event_stream(head);
    g->framing = head->framing;
    g->left = head->framing == H1_BODY_LENGTH ? head->content_length : 0;
    g->keep = head->keep_alive && head->framing != H1_BODY_EOF && g->state == LEG_WAIT_HEAD;
    g->state = LEG_BODY;
    g->deadline_us = rq->pd->mode == PD_NIXL ? upstream_deadline_us(rq) : 0;
    g->tail = xmalloc(sizeof *g->tail);
    sse_init(g->tail);
    h1_chunked_init(&g->chunked);
    if (!g->event_stream)
        leg_prefilled(rq);
    if (head->framing == H1_BODY_NONE || (head->framing == H1_BODY_LENGTH && !g->left))
        over(rq, rest.n > 0);
    else if (rest.n)
        body_input(rq, rest);
}

static void head_input(struct request *rq, struct str data)
{
    struct str rest;
    struct buf kept;
    int found = upstream_take_head(rq, &leg_of(rq)->in, ANSWER_MAX, data, &rest, &kept);
    if (found < 0)
        failed(rq, OUT_GARBAGE, "prefill_garbage");
    if (found <= 0)
        return;
    head_found(rq, &rq->w->resp, rest);
    buf_free(&kept);
}

/* --- events -------------------------------------------------------------------------------------------------- */

static void on_connect(struct conn *c, int err)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    if (upstream_is_ours(err))
        request_fail(rq, 503, "gateway_exhausted", "The gateway has no socket left for the request; try again.");
    else if (err)
        failed(rq, OUT_CONNECT_FAILED, "prefill_connect_failed");
    else
        start_sending(rq);
    worker_leave(w);
}

static void on_data(struct conn *c, struct str data)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    atomic_store_explicit(&leg_of(rq)->ep->alive_us, worker_now_us(w), memory_order_relaxed);
    if (leg_of(rq)->state == LEG_BODY)
        body_input(rq, data);
    else
        head_input(rq, data);
    worker_leave(w);
}

static void on_eof(struct conn *c)
{
    struct request *rq = conn_ctx(c);
    struct leg *g = leg_of(rq);
    struct worker *w = rq->w;
    worker_enter(w);
    if (g->state == LEG_BODY && g->framing == H1_BODY_EOF)
        over(rq, false);
    else
        failed(rq, OUT_RESET, "prefill_closed");
    worker_leave(w);
}

static void on_drain(struct conn *c)
{
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    if (leg_of(rq)->state == LEG_SEND)
        send_more(rq);
    worker_leave(w);
}

static void on_error(struct conn *c, int err)
{
    (void)err;
    struct request *rq = conn_ctx(c);
    struct worker *w = rq->w;
    worker_enter(w);
    failed(rq, OUT_RESET, "prefill_reset");
    worker_leave(w);
}

static const struct conn_ops leg_ops = {on_connect, on_data, on_eof, on_drain, on_error, NULL};
