/* proxy/gateway.h - the data plane: N worker threads that own listeners and client connections, and the ports behind them.
 *
 * gateway_apply takes a snapshot: listeners are opened and closed on the workers (connections of listeners that stay are untouched), new
 * requests see the new routes, requests under way keep what they need. Control thread only, except where said. */
#ifndef PROXY_GATEWAY_H
#define PROXY_GATEWAY_H

#include "base/err.h"
#include "base/metrics.h"
#include "conf/types.h"
#include "sched/port.h"

struct gateway_opts { /* gateway_opts_init gives the defaults; docs/reference.md prints this table */
    unsigned workers;              /* cores */
    double time_scale;             /* 1 */
    uint64_t seed;
    struct str bind;               /* address of the listeners: "0.0.0.0"; the sandbox: 127.0.0.1 */
    size_t max_head;               /* 64 KB */
    size_t max_body;               /* 64 MB, one request */
    size_t max_body_total;         /* 1 GB, all requests: 503 beyond */
    unsigned max_connections;      /* client connections: 0 = by the open-file limit */
    uint64_t head_timeout_us;      /* 10 s: whole request head */
    uint64_t body_idle_us;         /* 30 s without a byte of the body */
    uint64_t idle_us;              /* 75 s: keep-alive */
    uint64_t connect_timeout_us;   /* 2 s */
    uint64_t first_byte_us;        /* 0 = request timeout */
    uint64_t stream_idle_us;       /* 0 = request timeout: without a byte of the answer (a pool's endpoints are watched by probes meanwhile) */
    uint64_t client_stall_us;      /* 300 s in which the client takes nothing of an answer that waits for it */
    uint64_t request_timeout_us;   /* 1 h: when no policy says otherwise */
    uint64_t drain_us;             /* 30 s */
    unsigned max_attempts;         /* 4 endpoints per request, before the first byte */
    unsigned max_crashes;          /* 2: endpoints that died with the request in flight */
    double retry_budget;           /* 0.2: retries per request over 10 s, plus 10 per second */
    unsigned upstream_idle;        /* 512 idle connections per endpoint and worker */
    uint64_t upstream_idle_us;     /* 4 s */
    uint64_t degrade_lag_us;       /* 5 ms: a worker that is busy all the time and so far behind leaves out part of the prefix match; 0 = never
                                    * (strain.h) */
    struct ports_opts ports;
};
void gateway_opts_init(struct gateway_opts *o);

struct gateway;
struct gateway *gateway_start(const struct gateway_opts *o, struct metrics *m, struct errbuf *err); /* no listeners yet */
/* 0, or -1 with a sentence when a new listener cannot be opened (the others are applied all the same). Takes its own reference to c. */
int gateway_apply(struct gateway *g, struct conf *c, struct errbuf *err);
struct ports *gateway_ports(struct gateway *g);
struct conf *gateway_conf(struct gateway *g);     /* referenced; thread-safe */
bool gateway_ready(struct gateway *g);            /* listeners open and ports_ready; thread-safe */
void gateway_drain(struct gateway *g);            /* stop accepting, finish what is under way, at most drain_us; then workers stop */
bool gateway_drained(struct gateway *g);          /* thread-safe poll */
void gateway_free(struct gateway *g);             /* joins the workers */
void gateway_on_drained(struct gateway *g, struct loop *l, struct mail *m); /* posts m to l once drained */

#endif
