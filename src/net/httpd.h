/* net/httpd.h - a small HTTP/1.1 server for the admin pages and the simulated model server (not the proxy's data path).
 *
 * The handler is called once per request with the whole body (bounded: 413 above max_body). It answers now or later, whole or streamed;
 * pipelined requests wait for their turn. on_abort tells when the client left before the answer ended. One loop thread. */
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
    struct conn *conn;                         /* for fault injection only */
};
struct httpd *httpd_open(struct loop *l, const struct addr *at, size_t max_body, void (*handler)(void *ctx, struct httpd_req *rq), void *ctx,
                         struct errbuf *err);
uint16_t httpd_port(const struct httpd *d);
void httpd_close(struct httpd *d); /* listener and connections */
/* headers: complete lines "Name: value\r\n..." or NULL. Content-Length and Date are added. */
void httpd_respond(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers, struct str body);
void httpd_begin(struct httpd_req *rq, unsigned status, const char *content_type, const char *headers); /* chunked */
void httpd_chunk(struct httpd_req *rq, struct str bytes); /* one HTTP chunk, one socket write; ignored when the client left */
void httpd_end(struct httpd_req *rq);                     /* the request is gone afterwards */
size_t httpd_backlog(const struct httpd_req *rq);         /* bytes waiting for a slow client */

#endif
