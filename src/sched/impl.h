/* sched/impl.h - what the files of src/sched share. Private to the folder.
 *
 * Locks: ports->lock guards the table of ports; port->lock guards the core scheduler, the endpoint list and the model
 * lists. ports->lock may be held while taking a port->lock, never the other way round. A scraper belongs to the
 * scraping thread alone. */
#ifndef SCHED_IMPL_H
#define SCHED_IMPL_H

#include "base/map.h"
#include "sched/port.h"
#include "sched/recall.h"
#include "sched/source.h"
#include <pthread.h>

struct scraper;
struct ep {              /* an endpoint with what only this layer knows */
    struct endpoint pub; /* first member: struct endpoint * and struct ep * convert */
    struct list link;    /* port->eps; under port->lock */
    char **models;       /* ids its /v1/models gave; under port->lock */
    uint32_t n_models;
    bool models_known;
    bool probed; /* had its first probe result; under port->lock */
    atomic_bool models_asked;
    _Atomic int last_failure; /* enum sched_outcome of the newest failure a worker reported */
    struct scraper *scraper;  /* scraping thread only */
};

struct port {
    atomic_uint refs;
    struct ports *owner;
    char *key, *name, *ns;
    bool pool;
    uint64_t seed;
    uint32_t record_no; /* its number in the record, when there is one */
    struct source *source; /* where its servers show their load; has its own lock */
    pthread_mutex_t lock;
    struct sched *sched;   /* of all endpoints; where the pool is split, of those that decode */
    struct sched *prefill; /* of those that prefill; NULL: the pool has never been split */
    bool split;            /* the two are joined; under lock */
    bool unrecorded;       /* the pool is, or was, split: its verbs are not in the record */
    struct sched_params params; /* as the scheduler has them, but without flow weights; under lock */
    uint32_t n_queued;          /* requests that wait for a late answer; under lock */
    bool rushed;                /* the scraping thread knows that somebody waits; under lock */
    uint64_t waited_us;         /* when it last saw somebody waiting; scraping thread only, like the next */
    bool forming;               /* nobody waited for a while, now somebody does */
    bool retired;               /* no snapshot has it any more: goes when nobody waits; under ports->lock */
    struct list eps;
    uint32_t n_unprobed;
    uint64_t *model_set; /* sorted hashes of every model some endpoint told of */
    uint32_t n_model_set;
    uint64_t all_models_us; /* when all lists were last asked for out of turn; under lock */
    struct recall recall;
    struct decisions *decisions; /* or NULL; has its own locks */
};

struct scrape;
struct ports {
    struct ports_opts o;
    pthread_mutex_t lock;
    struct map table; /* key -> struct port, one reference each */
    bool closing;     /* under lock */
    struct scrape *scrape;
};

uint64_t port_now_us(const struct port *p);
struct port *port_ref(struct port *p);
void port_add_endpoint(struct port *p, const struct conf_endpoint *e);
void port_remove_endpoint(struct port *p, struct ep *e);
/* Results of the scraping thread. asked_us: when the question was sent. load NULL: alive, load unknown. */
void port_probe_ok(struct port *p, struct ep *e, const struct ep_load *load, uint64_t asked_us);
void port_probe_failed(struct port *p, struct ep *e, uint64_t asked_us);
/* Takes ids, reads adapter; NULL, 0: nothing told. */
void port_set_models(struct port *p, struct ep *e, char **ids, const bool *adapter, uint32_t n);
/* prefill: of the endpoints that prefill; NULL: the pool is not split (any more). Control thread. */
void port_set_params(struct port *p, const struct sched_params *params, const struct sched_params *prefill);
static inline struct sched *port_sched(const struct port *p, enum conf_role role) /* under the lock */
{
    return role == ROLE_PREFILL && p->prefill ? p->prefill : p->sched;
}
uint64_t port_tick(struct port *p, uint64_t now_us, bool *waited_for); /* returns when the scheduler wants the next one */
/* Where nobody waits: from now on nobody will. A port out of the table is ticked no more, and requests routed by an older
 * snapshot may still come. */
bool port_close_queue(struct port *p);
void port_empty(struct port *p);      /* removes its endpoints */
void ports_bury(struct ports *ps);    /* scraping thread: drops retired ports for which nobody waits */

/* scrape.c: the scraping thread. add, remove and ask_models may be called from any thread. */
struct scrape *scrape_start(struct ports *ps);
void scrape_stop(struct scrape *s);
void scrape_add(struct scrape *s, struct ep *e);
void scrape_remove(struct scrape *s, struct ep *e);
void scrape_ask_models(struct scrape *s, struct ep *e);
void scrape_rush(struct scrape *s); /* a queue has formed: tick now, and look at its endpoints sooner. Any thread */

/* models.c: one reading of GET /v1/models. done is called once, on the scraping thread. */
struct models_read;
struct models_read *models_read_start(struct loop *l, struct ep *e, uint64_t timeout_us,
                                      void (*done)(void *ctx, bool ok), void *ctx);
void models_read_free(struct models_read *m); /* also before its end */

#endif
