/* sched/port.h - the shell around the core: one port per backend (InferencePool or Service), with a mutex, endpoints that have addresses, and
 * the scraping thread. Any thread may call; nothing here blocks longer than a pick.
 *
 * Life: ports are kept by key in a table that survives configuration snapshots (index, ledger, learnt rates live on); ports_apply brings them in line
 * with a snapshot, endpoint by endpoint. A port or endpoint in use by a request is kept alive by its reference. */
#ifndef SCHED_PORT_H
#define SCHED_PORT_H

#include "base/mailbox.h"
#include "base/metrics.h"
#include "conf/types.h"
#include "core/sched.h"
#include "net/loop.h"
#include "sched/decisions.h"

#define EP_NAME 128 /* longer pod names are cut */

struct port;
struct endpoint { /* immutable identity; refcounted */
    atomic_uint refs;
    struct port *port;
    struct ep_ref ref;
    char name[EP_NAME];        /* pod name */
    char ns[64];
    char address[64];          /* "10.0.0.5:8000" */
    enum conf_role role;       /* ROLE_ANY: its pool is not split into prefill and decode */
    struct addr addr, metrics_addr;
    _Atomic uint64_t alive_us; /* last response byte seen by a worker */
    _Atomic uint64_t epoch;    /* raised when a probe ejects the endpoint: unanswered requests there are to be moved. A removed endpoint may still answer
                                * what it has, so removal does not raise it */
};
struct endpoint *endpoint_ref(struct endpoint *e);
void endpoint_unref(struct endpoint *e);

struct port_req { /* embed in the proxy's request */
    struct sched_req core;       /* in: see core/sched.h */
    struct sched_req leg;        /* in, of a pool that is split: set core.leg to it for a request with a prefill part (see sched_join) */
    struct endpoint *ep;         /* out: after PICKED, referenced until port_finish */
    uint64_t epoch;              /* out: of ep, at the moment of the pick */
    struct endpoint *leg_ep;     /* out: when core.split: the prefill endpoint, referenced until port_leg_finish; NULL: no leg is reserved */
    uint64_t leg_epoch;
    struct loop *loop;           /* where a late answer is delivered */
    void (*on_decision)(struct port_req *r); /* late answers only, on that loop's thread; r->core.d holds it */
    struct mail mail;            /* private */
    struct port *port;           /* private */
    bool picked, queued;         /* private: reserved; waiting for a late answer */
};

struct ports; /* all ports, the scraper, the clock */
struct ports_opts {
    double time_scale;
    uint64_t seed;
    uint64_t scrape_interval_us; /* 1 s by default; faster only while others' traffic is seen */
    uint64_t scrape_timeout_us;  /* 1 s */
    uint64_t probe_ejected_us;   /* 250 ms: how often an ejected or new endpoint is probed */
    struct metrics *metrics;     /* or NULL */
    struct record *record;       /* sched/record.h: takes down what the pools are told and decide; NULL: nothing. Lives until after ports_free */
    uint32_t decisions;          /* latest decisions that each pool keeps for /debug/decisions; 0: none */
};
struct ports *ports_new(const struct ports_opts *o); /* starts the scraping thread */
void ports_free(struct ports *ps);                   /* stops it; no request may be in flight */
/* Control thread. ports_follow creates and updates what the snapshot has; ports_prune drops the ports it has not: once nobody picks by an older
 * snapshot any more. A port in whose queue requests wait keeps its endpoints and stays in the table until the last of them was sent on, has
 * left or has waited long enough. Who comes to a port that is out of it (a late retry) finds no endpoint, and does not wait for one. ports_apply does both. */
void ports_follow(struct ports *ps, const struct conf *c);
void ports_prune(struct ports *ps, const struct conf *c);
void ports_apply(struct ports *ps, const struct conf *c);
bool ports_ready(struct ports *ps); /* every pool has had a first scrape round (answered or failed) since it was created */
struct port *ports_find(struct ports *ps, struct str key); /* referenced; NULL when absent. Workers cache it per snapshot. */
void ports_each(struct ports *ps, void (*fn)(void *ctx, struct port *p), void *ctx);
void port_unref(struct port *p);

const char *port_key(const struct port *p);  /* conf_backend.key */
const char *port_name(const struct port *p); /* pool or Service name */
const char *port_ns(const struct port *p);
bool port_is_pool(const struct port *p);
struct decisions *port_decisions(struct port *p); /* NULL: none are kept, or a Service; lives as long as the port */
bool port_warming(struct port *p); /* some endpoint has not had its first probe yet: "no endpoint" may be over in a moment */
/* Where a pool is split, each role has endpoints (and ep_refs) of its own: role ROLE_PREFILL means those, anything else the others. */
/* Pod names of n endpoints; "gone" for one that was removed. */
void port_ep_names(struct port *p, enum conf_role role, const struct ep_ref *refs, uint32_t n, char (*names)[EP_NAME]);
/* Number of ready endpoints that are not among `tried` and serve the model (hash; 0 any) or have not told what they serve. */
uint32_t port_untried(struct port *p, enum conf_role role, uint64_t model, const struct ep_ref *tried, uint32_t n_tried);
/* The verbs, under the port's mutex. now is read inside (clock_us). */
enum sched_answer port_submit(struct port *p, struct port_req *r);
/* Takes a queued request back. True: it is the caller's again. False: its late answer is already on the way; on_decision will be called, and the caller
 * then ends it with port_finish(OUT_CANCELLED) (when it was picked). */
bool port_cancel(struct port *p, struct port_req *r);
void port_first_token(struct port *p, struct port_req *r);
void port_finish(struct port *p, struct port_req *r, enum sched_outcome how, const struct sched_usage *u);
/* The prefill leg; each does nothing when none is reserved. prefilled: its endpoint has computed the prompt (once is enough). finish: as
 * port_finish, exactly once for each split decision, before or after that of the request. here: after port_leg_finish with a failure: the decode endpoint
 * prefills itself. */
void port_leg_prefilled(struct port *p, struct port_req *r);
void port_leg_finish(struct port *p, struct port_req *r, enum sched_outcome how, const struct sched_usage *u);
void port_leg_here(struct port *p, struct port_req *r);
/* Views: copies taken under the mutex; fn is called without it. */
void port_stats(struct port *p, enum conf_role role, struct sched_stats *out);
bool port_split(struct port *p); /* as of now; false: there are no prefill endpoints apart from the others */
struct port_queue { /* settings of the queue in effect */
    bool on;
    uint64_t bytes, ttl_us;
    uint32_t requests;
};
void port_queue(struct port *p, struct port_queue *out);
void port_views(struct port *p, void (*fn)(void *ctx, const struct ep_view *v, const struct endpoint *e), void *ctx);
/* Models known on the pool's endpoints: fn per distinct id. False when no endpoint has told yet. */
bool port_models(struct port *p, void (*fn)(void *ctx, const char *id), void *ctx);
/* previous_response_id: remembers (bounded, 100 000 per port, oldest forgotten) which endpoint gave a response id, and finds it again. */
void port_remember_response(struct port *p, struct str id, struct endpoint *e);
struct ep_ref port_recall_response(struct port *p, struct str id);
/* A 404 for the model from this endpoint: its list is read again at once. */
void port_models_stale(struct port *p, struct endpoint *e, uint64_t model); /* a model nobody told of: all lists, at most every two seconds */

#endif
