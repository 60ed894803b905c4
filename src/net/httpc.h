/* net/httpc.h - a small HTTP/1.1 client for scrapes, probes and command-line tools: GET (or POST) with keep-alive and a deadline.
 *
 * on_body gets decoded body pieces as they arrive and returns false when it has seen enough: the connection is then closed (or the rest
 * drained when little is left) and on_done is called with status as usual. One loop thread. */
#ifndef NET_HTTPC_H
#define NET_HTTPC_H

#include "http/h1.h"
#include "base/buf.h"
#include "net/loop.h"

struct httpc; /* a client with at most one request under way and one kept connection */
struct httpc_call {
    struct str method, target, host; /* host: value of the Host header; empty = address */
    struct str headers;              /* complete extra lines or empty */
    struct str body;
    uint64_t timeout_us;             /* for the whole exchange */
    bool (*on_body)(void *ctx, struct str piece); /* or NULL */
    /* status 0: no answer; err is a short static text: "connect", "timeout", "reset", "garbage" */
    void (*on_done)(void *ctx, unsigned status, const char *err);
    void *ctx;
};
struct httpc *httpc_new(struct loop *l, const struct addr *to);
void httpc_free(struct httpc *c);  /* a call under way ends without on_done */
bool httpc_start(struct httpc *c, const struct httpc_call *call); /* false when one is under way; copies the strings */
bool httpc_busy(const struct httpc *c);
/* Blocking convenience for command-line tools: GET, whole body (bounded) appended to out. host: value of the Host header, and the name in errors; empty =
 * address. headers: complete extra lines or empty. Returns the status, 0 with err filled. */
unsigned httpc_get(const struct addr *to, struct str host, struct str target, struct str headers, uint64_t timeout_us, struct buf *out,
                   struct errbuf *err);

#endif
