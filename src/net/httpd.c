/* A small HTTP/1.1 server: one request at a time per connection, answered by a handler now or later.
 *
 *   HEAD -> BODY -> ANSWER -> HEAD ...       any state -> gone (client left, bad request, answer with close)
 *
 * While a request is answered its connection is not read: pipelined requests wait in the socket, at most one read's
 * worth waits here. */
#include "net/httpd.h"
#include "base/buf.h"
#include "http/date.h"
#include "net/loop_priv.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define IDLE_US     60000000ull
#define BACKLOG_MAX (256 * 1024) /* unread answers of pipelined requests before the next one is taken */
#define IN_MAX      (H1_MAX_HEAD + LOOP_RBUF * 2)

struct httpd {
    struct loop *loop;
    struct listener *ln;
    size_t max_body;
    void (*handler)(void *ctx, struct httpd_req *rq);
    bool (*on_head)(void *ctx, struct httpd_req *rq); /* or NULL */
    void *ctx;
    struct addr at; /* with the real port */
    struct list conns;
    struct buf head; /* scratch for response heads */
    uint64_t idle_us;
    time_t date_s;
    char date[HTTP_DATE_LEN + 1];
};

enum { ST_HEAD, ST_BODY, ST_ANSWER };

struct hconn {
    struct httpd *d;
    struct conn *c;
    struct list link;
    struct buf in; /* bytes not yet taken */
    struct hreq *rq;
    struct h1_chunked chunked;
    uint64_t left; /* of a body with a length */
    uint64_t seen_us;
    struct timer idle;
    uint8_t state;
    bool stepping; /* inside step(): it frees the object, nobody else */
    bool gone;
};
struct hreq {
    struct httpd_req pub; /* first */
    struct hconn *hc;     /* NULL: the client left and nobody wanted to know */
    struct buf text;      /* what head's spans point into */
    struct buf body;
    bool chunked;  /* the answer's framing */
    bool close;    /* after the answer */
    bool bodiless; /* HEAD, 204, 304 */
    struct h1_head head;
};

static void step(struct hconn *hc);

static struct hreq *of(struct httpd_req *rq)
{
    return CONTAINER_OF(rq, struct hreq, pub);
}

static void req_free(struct hreq *r)
{
    buf_free(&r->text);
    buf_free(&r->body);
    free(r);
}

/* ---- the end of a connection ---- */

static void hconn_end(struct hconn *hc, bool reset)
{
    if (hc->gone)
        return;
    hc->gone = true;
    timer_stop(hc->d->loop, &hc->idle);
    list_remove(&hc->link);
    buf_free(&hc->in);
    if (reset)
        conn_abort(hc->c);
    else
        conn_close(hc->c);
    if (!hc->stepping)
        free(hc);
}

static void conn_left(struct hconn *hc, bool reset)
{
    struct hreq *r = hc->rq;
    hc->rq = NULL;
    if (r && hc->state == ST_ANSWER) {
        r->hc = NULL;
        if (r->pub.on_abort) {
            r->pub.on_abort(&r->pub);
            req_free(r);
        }
    } else if (r) {
        req_free(r);
    }
    hconn_end(hc, reset);
}

static void client_left(struct hconn *hc)
{
    conn_left(hc, false);
}

/* The answer is complete: next request, or the end. */
static void answered(struct hreq *r)
{
    struct hconn *hc = r->hc;
    bool ends = r->close;
    req_free(r);
    if (!hc)
        return;
    hc->rq = NULL;
    hc->state = ST_HEAD;
    hc->seen_us = loop_now_us(hc->d->loop);
    if (ends || conn_is_closed(hc->c)) {
        hconn_end(hc, false);
        return;
    }
    conn_pause(hc->c, false);
    if (!hc->stepping)
        step(hc);
}

/* ---- answers ---- */

static const char *date_now(struct httpd *d)
{
    time_t now = time(NULL);
    if (now != d->date_s) {
        d->date_s = now;
        http_date((uint64_t)now, d->date);
    }
    return d->date;
}

static bool sendable(const struct hreq *r)
{
    return r->hc && !conn_is_closed(r->hc->c);
}

static struct buf *begin_head(struct hreq *r, unsigned status, const char *type, const char *headers)
{
    struct buf *b = &r->hc->d->head;
    buf_clear(b);
    buf_addf(b, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, h1_reason(status), date_now(r->hc->d));
    if (type)
        buf_addf(b, "Content-Type: %s\r\n", type);
    if (headers)
        buf_add_str(b, str_c(headers));
    r->bodiless = r->head.method == H1_HEAD || status == 204 || status == 304 || status < 200;
    return b;
}

static void end_head(struct hreq *r, struct buf *b)
{
    if (r->close)
        buf_add_str(b, STR("Connection: close\r\n"));
    else if (r->head.minor == 0)
        buf_add_str(b, STR("Connection: keep-alive\r\n"));
    buf_add_str(b, STR("\r\n"));
}

static struct iovec iov(struct str s)
{
    struct iovec v = {.iov_len = s.n};
    memcpy(&v.iov_base, &s.p, sizeof(s.p)); /* only read from */
    return v;
}

void httpd_respond(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers,
                   struct str body)
{
    struct hreq *r = of(rq);
    if (sendable(r)) {
        struct buf *b = begin_head(r, status, content_type, headers);
        if (status >= 200 && status != 204)
            buf_addf(b, "Content-Length: %zu\r\n", body.n);
        end_head(r, b);
        struct iovec v[2] = {iov(buf_str(b)), iov(body)};
        conn_write(r->hc->c, v, r->bodiless || body.n == 0 ? 1 : 2);
    }
    answered(r);
}

void httpd_begin(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers)
{
    struct hreq *r = of(rq);
    if (!sendable(r))
        return;
    r->chunked = r->head.minor >= 1;
    if (!r->chunked)
        r->close = true; /* HTTP/1.0: the body ends with the connection */
    struct buf *b = begin_head(r, status, content_type, headers);
    if (r->chunked && !r->bodiless)
        buf_add_str(b, STR("Transfer-Encoding: chunked\r\n"));
    end_head(r, b);
    conn_write_str(r->hc->c, buf_str(b));
}

void httpd_chunk(struct httpd_req *rq, struct str bytes)
{
    struct hreq *r = of(rq);
    if (!sendable(r) || r->bodiless || bytes.n == 0)
        return;
    if (!r->chunked) {
        conn_write_str(r->hc->c, bytes);
        return;
    }
    char size[24];
    int n = snprintf(size, sizeof(size), "%zx\r\n", bytes.n);
    struct iovec v[3] = {iov((struct str){size, (size_t)n}), iov(bytes), iov(STR("\r\n"))};
    conn_write(r->hc->c, v, 3);
}

void httpd_end(struct httpd_req *rq)
{
    struct hreq *r = of(rq);
    if (sendable(r) && r->chunked && !r->bodiless)
        conn_write_str(r->hc->c, STR("0\r\n\r\n"));
    answered(r);
}

void httpd_raw(struct httpd_req *rq, struct str bytes)
{
    struct hreq *r = of(rq);
    if (sendable(r))
        conn_write_str(r->hc->c, bytes);
}

void httpd_kill(struct httpd_req *rq, bool reset)
{
    struct hreq *r = of(rq);
    struct hconn *hc = r->hc;
    req_free(r);
    if (!hc)
        return;
    hc->rq = NULL;
    hconn_end(hc, reset);
}

size_t httpd_backlog(const struct httpd_req *rq)
{
    const struct hreq *r = (const void *)rq; /* its first member */
    return sendable(r) ? conn_pending(r->hc->c) : 0;
}

/* ---- requests ---- */

/* A request that cannot be served: answered without the handler, and the connection ends, because its framing is lost.
 */
static void refuse(struct hconn *hc, unsigned status, const char *what)
{
    struct buf *b = &hc->d->head;
    buf_clear(b);
    buf_addf(b,
             "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: "
             "%zu\r\n\r\n%s\n",
             status, h1_reason(status), date_now(hc->d), strlen(what) + 1, what);
    conn_write_str(hc->c, buf_str(b));
    if (hc->rq)
        req_free(hc->rq);
    hc->rq = NULL;
    hconn_end(hc, false);
}

static void handle(struct hconn *hc)
{
    struct hreq *r = hc->rq;
    hc->state = ST_ANSWER;
    r->pub.body = buf_str(&r->body);
    conn_pause(hc->c, true);
    hc->d->handler(hc->d->ctx, &r->pub);
}

/* The buffer that holds the head becomes the request's, so that the head's spans stay valid; what lies behind it moves
 * to a new one. */
static void take_text(struct hconn *hc, struct hreq *r, size_t head_len)
{
    r->text = hc->in;
    buf_init(&hc->in, IN_MAX);
    struct str rest = str_from(buf_str(&r->text), head_len);
    if (rest.n)
        buf_add_str(&hc->in, rest);
}

static void start_body(struct hconn *hc)
{
    struct hreq *r = hc->rq;
    r->close = !r->head.keep_alive;
    hc->state = ST_BODY;
    hc->left = r->head.framing == H1_BODY_LENGTH ? r->head.content_length : 0;
    h1_chunked_init(&hc->chunked);
    if (hc->left > hc->d->max_body) {
        refuse(hc, 413, "The request body is too large.");
        return;
    }
    if (r->head.framing != H1_BODY_CHUNKED && hc->left == 0)
        handle(hc);
    else if (r->head.expect_continue && hc->in.n == 0)
        conn_write_str(hc->c, STR("HTTP/1.1 100 Continue\r\n\r\n"));
}

/* The steps return whether they moved on. */
static bool step_head(struct hconn *hc)
{
    struct h1_error e;
    if (!hc->rq) {
        hc->rq = xmalloc(sizeof(*hc->rq));
        memset(hc->rq, 0, offsetof(struct hreq, head));
        hc->rq->hc = hc;
        hc->rq->pub.head = &hc->rq->head;
        hc->rq->pub.conn = hc->c;
        buf_init(&hc->rq->body, hc->d->max_body);
    }
    ptrdiff_t n = h1_parse_request(buf_str(&hc->in), H1_MAX_HEAD, &hc->rq->head, &e);
    if (n == H1_MORE)
        return false;
    if (n < 0) {
        refuse(hc, e.status, e.what);
        return false;
    }
    take_text(hc, hc->rq, (size_t)n);
    if (hc->d->on_head && !hc->d->on_head(hc->d->ctx, &hc->rq->pub))
        return false;
    start_body(hc);
    return true;
}

static bool step_length(struct hconn *hc)
{
    struct str part = str_first(buf_str(&hc->in), hc->left);
    buf_add_str(&hc->rq->body, part);
    hc->left -= part.n;
    buf_consume(&hc->in, part.n);
    if (hc->left == 0)
        handle(hc);
    return true;
}

static bool step_chunked(struct hconn *hc)
{
    struct str data;
    struct h1_error e;
    ptrdiff_t n = h1_chunked_next(&hc->chunked, buf_str(&hc->in), &data, &e);
    if (n < 0) {
        refuse(hc, e.status, e.what);
        return false;
    }
    if (data.n && !buf_add_str(&hc->rq->body, data)) {
        refuse(hc, 413, "The request body is too large.");
        return false;
    }
    buf_consume(&hc->in, (size_t)n);
    if (hc->chunked.done)
        handle(hc);
    return n > 0 || hc->chunked.done;
}

static bool step_once(struct hconn *hc)
{
    if (hc->state == ST_HEAD) {
        if (conn_pending(hc->c) > BACKLOG_MAX) { /* the client does not read its answers: on_drain goes on */
            conn_pause(hc->c, true);
            return false;
        }
        return step_head(hc);
    }
    return hc->rq->head.framing == H1_BODY_CHUNKED ? step_chunked(hc) : step_length(hc);
}

static void step(struct hconn *hc)
{
    hc->stepping = true;
    while (!hc->gone && hc->state != ST_ANSWER && hc->in.n && step_once(hc))
        continue;
    hc->stepping = false;
    if (hc->gone) {
        free(hc);
        return;
    }
    if (hc->in.n == 0)
        buf_free(&hc->in);
    if (hc->in.n == 0 && hc->state == ST_HEAD && hc->rq) { /* an idle connection holds no request */
        req_free(hc->rq);
        hc->rq = NULL;
    }
}

/* ---- connection events ---- */

static void on_data(struct conn *c, struct str data)
{
    struct hconn *hc = conn_ctx(c);
    hc->seen_us = loop_now_us(hc->d->loop);
    if (!buf_add_str(&hc->in, data)) { /* cannot happen while paused connections are not read; a bound all the same */
        client_left(hc);
        return;
    }
    if (hc->state == ST_HEAD && hc->in.n < H1_MAX_HEAD && !memchr(data.p, '\n', data.n))
        return; /* no line ended: a head that drips in is not parsed for every byte */
    step(hc);
}

static void on_eof(struct conn *c)
{
    client_left(conn_ctx(c));
}

static void on_error(struct conn *c, int err UNUSED)
{
    client_left(conn_ctx(c));
}

static void on_drain(struct conn *c)
{
    struct hconn *hc = conn_ctx(c);
    if (hc->state == ST_ANSWER)
        return;
    conn_pause(c, false);
    step(hc);
}

static const struct conn_ops conn_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_error = on_error, .on_drain = on_drain};

static void on_idle(struct timer *t)
{
    struct hconn *hc = CONTAINER_OF(t, struct hconn, idle);
    struct httpd *d = hc->d;
    uint64_t due = hc->seen_us + d->idle_us;
    if (hc->state == ST_ANSWER)
        due = loop_now_us(d->loop) + d->idle_us;
    else if (due <= loop_now_us(d->loop)) {
        client_left(hc);
        return;
    }
    timer_set(d->loop, t, due);
}

static void on_accept(struct listener *ln, struct conn *c)
{
    struct httpd *d = listener_ctx(ln);
    struct hconn *hc = xcalloc(1, sizeof(*hc));
    hc->d = d;
    hc->c = c;
    hc->state = ST_HEAD;
    hc->seen_us = loop_now_us(d->loop);
    hc->idle.fn = on_idle;
    buf_init(&hc->in, IN_MAX);
    list_push_back(&d->conns, &hc->link);
    conn_set(c, &conn_ops, hc);
    if (d->idle_us)
        timer_set(d->loop, &hc->idle, hc->seen_us + d->idle_us);
}

struct httpd *httpd_open(struct loop *l, const struct addr *at, size_t max_body,
                         void (*handler)(void *ctx, struct httpd_req *rq), void *ctx, struct errbuf *err)
{
    struct httpd *d = xcalloc(1, sizeof(*d));
    d->loop = l;
    d->max_body = max_body;
    d->handler = handler;
    d->ctx = ctx;
    d->idle_us = IDLE_US;
    list_init(&d->conns);
    buf_init(&d->head, H1_MAX_HEAD * 2);
    d->ln = listener_open(l, at, on_accept, d, err);
    if (!d->ln) {
        free(d);
        return NULL;
    }
    d->at = *at;
    addr_set_port(&d->at, listener_port(d->ln));
    return d;
}

void httpd_on_head(struct httpd *d, bool (*fn)(void *ctx, struct httpd_req *rq))
{
    d->on_head = fn;
}

int httpd_refuse(struct httpd *d, bool refuse, struct errbuf *err)
{
    if (!refuse) {
        if (!d->ln)
            d->ln = listener_open(d->loop, &d->at, on_accept, d, err);
        return d->ln ? 0 : -1;
    }
    if (d->ln)
        listener_close(d->ln);
    d->ln = NULL;
    LIST_EACH_SAFE(it, tmp, &d->conns)
    {
        struct hconn *hc = CONTAINER_OF(it, struct hconn, link);
        if (!hc->rq)
            hconn_end(hc, false);
    }
    return 0;
}

void httpd_set_idle(struct httpd *d, uint64_t idle_us)
{
    d->idle_us = idle_us;
}

const struct addr *httpd_addr(const struct httpd *d)
{
    return &d->at;
}

uint16_t httpd_port(const struct httpd *d)
{
    return addr_port(&d->at);
}

static void close_all(struct httpd *d, bool reset)
{
    if (!d)
        return;
    if (d->ln)
        listener_close(d->ln);
    while (!list_empty(&d->conns))
        conn_left(CONTAINER_OF(d->conns.next, struct hconn, link), reset);
    buf_free(&d->head);
    free(d);
}

void httpd_close(struct httpd *d)
{
    close_all(d, false);
}

void httpd_close_reset(struct httpd *d)
{
    close_all(d, true);
}
