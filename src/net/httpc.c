/* A small HTTP/1.1 client: one request at a time over one kept connection.
 *
 *   IDLE -> CONNECT -> HEAD -> BODY -> IDLE       any state but IDLE -> IDLE with status 0 (connect, timeout, reset,
 * garbage)
 *
 * A kept connection that breaks before the first byte of an answer was closed by a server that had not seen the
 * request: asked once more on a new one. */
#include "net/httpc.h"
#include "net/loop_priv.h"
#include <stdlib.h>

#define DRAIN_MAX   (256 * 1024) /* reading this much to keep a connection costs both sides less than a new one */
#define REQUEST_MAX (64 * 1024 * 1024)

enum { HC_IDLE, HC_CONNECT, HC_HEAD, HC_BODY };

struct httpc {
    struct loop *loop;
    struct addr to;
    struct conn *c; /* NULL: none kept */
    struct timer deadline;
    struct buf req; /* the request's bytes, until an answer begins */
    struct buf in;  /* an unfinished head */
    bool (*on_body)(void *ctx, struct str piece);
    void (*on_done)(void *ctx, unsigned status, const char *err);
    void *ctx;
    struct h1_chunked chunked;
    enum h1_framing framing;
    uint64_t left;    /* of a body with a length */
    uint64_t drained; /* bytes read after on_body had enough */
    unsigned status;
    uint8_t state;
    bool to_head, keep, enough;
    bool fresh; /* nothing of this answer has arrived and the connection is a kept one */
    bool in_callback, freed;
};

static void start_connect(struct httpc *h);

static void drop_conn(struct httpc *h)
{
    struct conn *c = h->c;
    h->c = NULL;
    if (c)
        conn_close(c);
}

/* Last thing of every path: the callback may start the next call or free the client. */
static void finish(struct httpc *h, unsigned status, const char *err)
{
    timer_stop(h->loop, &h->deadline);
    h->state = HC_IDLE;
    buf_free(&h->req);
    buf_free(&h->in);
    if (h->c && (status == 0 || !h->keep || !conn_is_reusable(h->c)))
        drop_conn(h);
    if (h->on_done)
        h->on_done(h->ctx, status, err);
}

static void broken(struct httpc *h, const char *err)
{
    bool again = h->fresh;
    drop_conn(h);
    if (again) {
        start_connect(h);
        return;
    }
    finish(h, 0, err);
}

/* ---- the answer ---- */

static void give(struct httpc *h, struct str piece)
{
    if (h->enough)
        h->drained += piece.n;
    else if (piece.n && h->on_body && !h->on_body(h->ctx, piece))
        h->enough = true;
}

/* Enough was seen: is the rest worth reading? */
static bool worth_draining(const struct httpc *h)
{
    if (!h->keep || h->framing == H1_BODY_EOF)
        return false;
    return h->framing == H1_BODY_LENGTH ? h->left <= DRAIN_MAX : h->drained <= DRAIN_MAX;
}

static bool take_length(struct httpc *h, struct str *data)
{
    struct str piece = str_first(*data, h->left);
    h->left -= piece.n;
    *data = str_from(*data, piece.n);
    give(h, piece);
    return h->left == 0;
}

/* -1: bad framing; 1: the body ended; 0: not yet */
static int take_chunked(struct httpc *h, struct str *data)
{
    while (data->n && !h->freed) {
        struct str piece;
        struct h1_error e;
        ptrdiff_t n = h1_chunked_next(&h->chunked, *data, &piece, &e);
        if (n < 0)
            return -1;
        *data = str_from(*data, (size_t)n);
        give(h, piece);
        if (h->chunked.done)
            return 1;
    }
    return 0;
}

static void take_body(struct httpc *h, struct str data)
{
    int end = 0;
    if (h->framing == H1_BODY_NONE)
        end = 1;
    else if (h->framing == H1_BODY_LENGTH)
        end = take_length(h, &data);
    else if (h->framing == H1_BODY_CHUNKED)
        end = take_chunked(h, &data);
    else if (data.n)
        give(h, data);
    if (h->freed)
        return;
    if (end < 0) {
        finish(h, 0, "garbage");
    } else if (end) {
        h->keep = h->keep && data.n == 0; /* bytes behind the answer: a server to be wary of */
        finish(h, h->status, NULL);
    } else if (h->enough && !worth_draining(h)) {
        h->keep = false;
        finish(h, h->status, NULL);
    }
}

/* Takes a head from the start of `in`. Returns its length, 0 for more, -1 when the call has ended. */
static ptrdiff_t take_head(struct httpc *h, struct str in)
{
    struct h1_head head;
    struct h1_error e;
    ptrdiff_t n = h1_parse_response(in, H1_MAX_HEAD, h->to_head, &head, &e);
    if (n < 0) {
        finish(h, 0, "garbage");
        return -1;
    }
    if (n == H1_MORE)
        return 0;
    if (head.status == 101) { /* we never ask to upgrade */
        finish(h, 0, "garbage");
        return -1;
    }
    if (head.status < 200)
        return n;
    h->status = head.status;
    h->keep = head.keep_alive;
    h->framing = head.framing;
    h->left = head.framing == H1_BODY_LENGTH ? head.content_length : 0;
    h1_chunked_init(&h->chunked);
    h->state = HC_BODY;
    return n;
}

/* `text` is the whole head so far: either data itself or the buffer it was added to. */
static void take_heads(struct httpc *h, struct str text, bool buffered)
{
    while (h->state == HC_HEAD && text.n) {
        ptrdiff_t n = take_head(h, text);
        if (n < 0)
            return;
        if (n == 0)
            break;
        text = str_from(text, (size_t)n);
    }
    if (h->state == HC_BODY) {
        struct buf keep = h->in; /* text may lie in it */
        buf_init(&h->in, H1_MAX_HEAD + LOOP_RBUF);
        take_body(h, text);
        buf_free(&keep);
        return;
    }
    if (buffered)
        buf_consume(&h->in, h->in.n - text.n);
    else if (!buf_add_str(&h->in, text))
        finish(h, 0, "garbage");
}

static void on_data(struct conn *c, struct str data)
{
    struct httpc *h = conn_ctx(c);
    if (h->state == HC_IDLE || h->state == HC_CONNECT) { /* nobody asked */
        drop_conn(h);
        return;
    }
    h->fresh = false;
    h->in_callback = true;
    if (h->state == HC_BODY)
        take_body(h, data);
    else if (h->in.n == 0)
        take_heads(h, data, false);
    else if (buf_add_str(&h->in, data))
        take_heads(h, buf_str(&h->in), true);
    else
        finish(h, 0, "garbage");
    h->in_callback = false;
    if (h->freed)
        free(h);
}

/* Runs fn with the client protected against being freed by its callback. */
static void guarded(struct httpc *h, void (*fn)(struct httpc *h, const char *err), const char *err)
{
    h->in_callback = true;
    fn(h, err);
    h->in_callback = false;
    if (h->freed)
        free(h);
}

static void fail(struct httpc *h, const char *err)
{
    finish(h, 0, err);
}

static void ended(struct httpc *h, const char *err UNUSED)
{
    h->keep = false;
    finish(h, h->status, NULL);
}

static void on_eof(struct conn *c)
{
    struct httpc *h = conn_ctx(c);
    if (h->state == HC_IDLE)
        drop_conn(h);
    else if (h->state == HC_BODY && h->framing == H1_BODY_EOF)
        guarded(h, ended, NULL);
    else
        guarded(h, broken, "reset");
}

static void on_error(struct conn *c, int err UNUSED)
{
    struct httpc *h = conn_ctx(c);
    if (h->state == HC_IDLE)
        drop_conn(h);
    else
        guarded(h, broken, "reset");
}

static void on_connect(struct conn *c, int err)
{
    struct httpc *h = conn_ctx(c);
    if (err) {
        drop_conn(h);
        guarded(h, fail, "connect");
        return;
    }
    h->state = HC_HEAD;
    conn_write_str(c, buf_str(&h->req));
}

static const struct conn_ops ops = {
    .on_connect = on_connect, .on_data = on_data, .on_eof = on_eof, .on_error = on_error};

static void on_deadline(struct timer *t)
{
    struct httpc *h = CONTAINER_OF(t, struct httpc, deadline);
    guarded(h, fail, h->state == HC_CONNECT ? "connect" : "timeout");
}

/* ---- calls ---- */

static void start_connect(struct httpc *h)
{
    h->fresh = false;
    h->state = HC_CONNECT;
    h->c = conn_connect(h->loop, &h->to, &ops, h);
}

static void write_request(struct httpc *h, const struct httpc_call *call)
{
    char text[ADDR_TEXT];
    struct str host = call->host;
    if (host.n == 0)
        host = (struct str){text, addr_format(&h->to, text, sizeof(text))};
    buf_init(&h->req, REQUEST_MAX);
    buf_addf(&h->req, STR_FMT " ", STR_ARG(call->method));
    buf_add_str(&h->req, call->target);
    buf_addf(&h->req, " HTTP/1.1\r\nHost: " STR_FMT "\r\n", STR_ARG(host));
    if (call->body.n || str_eq_c(call->method, "POST"))
        buf_addf(&h->req, "Content-Length: %zu\r\n", call->body.n);
    buf_add_str(&h->req, call->headers);
    buf_add_str(&h->req, STR("\r\n"));
    buf_add_str(&h->req, call->body);
}

struct httpc *httpc_new(struct loop *l, const struct addr *to)
{
    struct httpc *h = xcalloc(1, sizeof(*h));
    h->loop = l;
    h->to = *to;
    h->deadline.fn = on_deadline;
    return h;
}

void httpc_free(struct httpc *h)
{
    if (!h)
        return;
    timer_stop(h->loop, &h->deadline);
    drop_conn(h);
    buf_free(&h->req);
    buf_free(&h->in);
    h->state = HC_IDLE;
    h->freed = true;
    if (!h->in_callback)
        free(h);
}

bool httpc_busy(const struct httpc *h)
{
    return h->state != HC_IDLE;
}

bool httpc_start(struct httpc *h, const struct httpc_call *call)
{
    if (httpc_busy(h))
        return false;
    h->on_body = call->on_body;
    h->on_done = call->on_done;
    h->ctx = call->ctx;
    h->to_head = str_eq_c(call->method, "HEAD");
    h->status = 0;
    h->drained = 0;
    h->keep = h->enough = false;
    buf_init(&h->in, H1_MAX_HEAD + LOOP_RBUF);
    write_request(h, call);
    timer_set(h->loop, &h->deadline, loop_now_us(h->loop) + call->timeout_us);
    if (!h->c) {
        start_connect(h);
        return true;
    }
    h->fresh = true;
    h->state = HC_HEAD;
    conn_write_str(h->c, buf_str(&h->req));
    return true;
}

/* ---- blocking ---- */

struct get {
    struct loop *loop;
    struct buf *out;
    unsigned status;
    const char *err;
};

static bool get_body(void *ctx, struct str piece)
{
    struct get *g = ctx;
    return buf_add_str(g->out, piece);
}

static void get_done(void *ctx, unsigned status, const char *err)
{
    struct get *g = ctx;
    g->status = status;
    g->err = err;
    loop_stop(g->loop);
}

static const char *explain(const char *err)
{
    if (strcmp(err, "connect") == 0)
        return "cannot be reached";
    if (strcmp(err, "timeout") == 0)
        return "did not answer in time";
    return strcmp(err, "reset") == 0 ? "closed the connection without an answer" : "did not answer in HTTP";
}

unsigned httpc_get(const struct addr *to, struct str host, struct str target, struct str headers, uint64_t timeout_us,
                   struct buf *out, struct errbuf *err)
{
    char text[ADDR_TEXT];
    struct get g = {.loop = loop_new(1.0), .out = out};
    struct httpc *h = httpc_new(g.loop, to);
    struct httpc_call call = {.method = STR("GET"),
                              .target = target,
                              .host = host,
                              .headers = headers,
                              .timeout_us = timeout_us,
                              .on_body = get_body,
                              .on_done = get_done,
                              .ctx = &g};
    httpc_start(h, &call);
    loop_run(g.loop);
    httpc_free(h);
    loop_free(g.loop);
    if (!host.n)
        host = (struct str){text, addr_format(to, text, sizeof(text))};
    if (g.err)
        err_set(err, "The server at " STR_FMT " %s.", STR_ARG(host), explain(g.err));
    else if (out->overflow)
        err_set(err, "The answer of the server at " STR_FMT " is too long.", STR_ARG(host));
    return g.err || out->overflow ? 0 : g.status;
}
