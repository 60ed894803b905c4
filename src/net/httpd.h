/* net/httpd.h - a small HTTP/1.1 server for the admin pages and the simulated model server (not the proxy's data path).
 *
 * The handler is called once per request with the whole body (bounded: 413 above max_body). It answers now or later, whole or streamed;
 * pipelined requests wait for their turn. on_abort tells when the client left before the answer ended (a half close counts as leaving, as it
 * does for the Python servers). Without on_abort the request stays and what is answered goes nowhere. One loop thread. */
#ifndef NET_HTTPD_H
#define NET_HTTPD_H

#include "http/h1.h"
#include "net/loop.h"

struct httpd;
struct httpd_req {
    const struct h1_head *head; /* valid until the answer ends */
    struct str body;
    void *user;                                /* the handler's */
    void (*on_abort)(struct httpd_req *rq);    /* or NULL; after it the request is gone */
    struct conn *conn;                         /* its peer address; end it with httpd_kill, not with conn_abort */
};
struct httpd *httpd_open(struct loop *l, const struct addr *at, size_t max_body, void (*handler)(void *ctx, struct httpd_req *rq), void *ctx,
                         struct errbuf *err);
/* Connections without a request under way are closed after this long without a byte (default 60 s; 0: never). */
void httpd_set_idle(struct httpd *d, uint64_t idle_us);
uint16_t httpd_port(const struct httpd *d);
const struct addr *httpd_addr(const struct httpd *d); /* with the real port */
void httpd_close(struct httpd *d); /* listener and connections; on_abort is called for requests under way */
/* headers: complete lines "Name: value\r\n..." or NULL. Content-Length and Date are added. */
void httpd_respond(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers, struct str body);
void httpd_begin(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers); /* chunked */
void httpd_chunk(struct httpd_req *rq, struct str bytes); /* one HTTP chunk, one socket write; ignored when the client left */
void httpd_end(struct httpd_req *rq);                     /* the request is gone afterwards */
/* Fault injection: ends the connection without an answer or in the middle of one, by RST or in order. The request is gone, without on_abort. */
void httpd_kill(struct httpd_req *rq, bool reset);
/* Called when the head is there and the body is not yet read; returns false when it ended the request with httpd_kill. */
void httpd_on_head(struct httpd *d, bool (*fn)(void *ctx, struct httpd_req *rq));
void httpd_close_reset(struct httpd *d);         /* as httpd_close, every connection ends by RST: a process that died */
/* refuse: the listener is closed and idle connections with it, requests under way go on; false: listens again on the same address. */
int httpd_refuse(struct httpd *d, bool refuse, struct errbuf *err) MUST_USE;
void httpd_raw(struct httpd_req *rq, struct str bytes); /* fault injection: bytes as they are, outside any framing */
size_t httpd_backlog(const struct httpd_req *rq);         /* bytes waiting for a slow client */

#endif
