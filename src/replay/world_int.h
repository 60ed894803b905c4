/* replay/world_int.h - what the files of a world share. Private to the folder.
 *
 *   world.c     the run: arrivals, the order of events, the account of each request
 *   gateway.c   a gateway: submits, hands over, retries, learns from scrapes and from the other gateways
 *   server.c    a server: engine, what it publishes, failures */
#ifndef REPLAY_WORLD_INT_H
#define REPLAY_WORLD_INT_H

#include "base/list.h"
#include "base/rng.h"
#include "replay/world.h"

#define PROMPT_BYTES_PER_TOKEN 4.0 /* of the replayed text; what a gateway believes is its own affair */
#define MAX_TRIES              3
#define ROLES                  2 /* P/D: prefill, decode; without, all are the first */

enum event_kind {
    AT_ENGINE,  /* a server's step, or run of steps, ends */
    AT_SCRAPE,  /* of one server by one gateway */
    AT_SCRAPED, /* what was read earlier arrives */
    AT_TICK,
    AT_GAUGE,
    AT_CHANGE,
    AT_JOIN,
    AT_ARRIVE, /* closed loop: a turn; open loop: the next of the list */
    AT_USER,   /* a user begins with a conversation */
    AT_HAND,   /* a request reaches its server; P/D: with its KV */
    AT_FIRST_SEEN,
    AT_END_SEEN, /* at the gateway */
    AT_OVER,     /* a request has ended: its state may go */
    AT_SYNC
};
struct event {           /* of the heap */
    uint64_t at_us, seq; /* equal times: in the order they were made */
    enum event_kind kind;
    uint32_t a;
    uint64_t b;
    void *p;
};

struct world;
struct leg {            /* the request or, with P/D, its prefill (0) and its decode part (1) */
    struct sched_req r; /* first */
    struct live *live;
    struct engine_seq *seq;
    struct list here; /* at its server */
    int32_t server;
    uint32_t role;
    bool picked, first_seen;
    uint32_t cached;
};
struct live { /* a request under way */
    struct leg leg[ROLES];
    struct prefix_hashes hashes;
    uint32_t index, input, output, n_ids, adapter, tries, gateway, pending; /* pending: events that name it */
    const uint64_t *ids;
    uint32_t *held[ROLES];
    struct sched_explain *explain;
    bool over;
    struct live *next_free, *next_all;
};

struct server {
    struct engine *engine;
    struct profile profile;
    uint64_t next_us, version; /* of the engine's event in the heap */
    bool joined, up, cache;
    double factor; /* WORLD_SLOW */
    double slow;   /* by being scraped */
    uint32_t role;
    struct list legs;
};

struct gateway {
    struct sched *s[ROLES];
    struct ep_ref *ep; /* by server */
    struct world *w;
    uint64_t tick_us; /* the earliest tick in the heap */
    uint32_t id;
};

struct world {
    const struct world_params *p;
    struct world_result *out;
    struct rng rng;
    uint64_t now, seq;
    struct event *heap;
    uint32_t n_heap, cap_heap;
    struct server *servers;
    struct gateway *gateways;
    struct live *free, *all;
    uint32_t next_gateway, n_done, n_all, n_decisions;
    double *arrive_s;     /* open loop: by request */
    uint32_t *order;      /* open loop: requests by arrival; closed: conversations in the order they are begun */
    uint32_t *first_turn; /* closed: first request of conversation i */
    uint32_t n_conversations, next_conversation, next_arrival;
    double ideal_mean_out;
    bool closed;
    struct engine_forecast *forecasts; /* oracle's */
    uint64_t *adapter_names;
    struct sched_model *models;
};

static inline uint32_t world_decodes(const struct world_params *p) /* role of the servers that answer */
{
    return p->prefill_servers ? 1 : 0;
}

void world_push(struct world *w, uint64_t at_us, enum event_kind kind, uint32_t a, uint64_t b, void *p);

/* world.c: the account */
struct live *world_begin(struct world *w, uint32_t data_index); /* a request has come: its live state */
void world_first(struct world *w, struct live *l);
void world_end(struct world *w, struct live *l, enum world_end how);
void live_release(struct world *w, struct live *l); /* frees it when it is over and no event names it */

/* gateway.c */
void gateway_open(struct world *w, uint32_t id);
void gateway_close(struct gateway *g);
void gateway_add_server(struct gateway *g, uint32_t server);
void gateway_submit(struct gateway *g, struct live *l);
void gateway_first(struct gateway *g, struct leg *leg);
void gateway_done(struct gateway *g, struct leg *leg);
void gateway_failed(struct gateway *g, struct leg *leg, enum sched_outcome how); /* retries, or ends the request */
void gateway_abandon(struct gateway *g, struct leg *leg);                        /* the run is over */
void gateway_scrape(struct gateway *g, uint32_t server);
void gateway_scraped(struct gateway *g, void *scrape);
void gateway_tick(struct gateway *g);
void gateway_sync(struct gateway *g, void *message);
void gateway_drop(enum event_kind kind, void *p); /* what an event that is not played any more owns */

/* server.c */
void server_open(struct world *w, uint32_t k);
void server_close(struct server *s);
void server_hand(struct world *w, struct leg *leg); /* a request arrives */
void server_drop(struct world *w, struct leg *leg); /* its client has left */
void server_step(struct world *w, uint32_t k);
void server_change(struct world *w, const struct world_change *c);
void server_load(struct world *w, uint32_t k, struct ep_load *out); /* what a scrape reads now */
void server_awake(struct world *w, uint32_t k); /* after a change of its engine: when it ends its step */

/* oracle.c */
uint32_t oracle_pick(struct world *w, const struct live *l, uint32_t role); /* a server */

#endif
