/* sched/source.h - where the load of a pool's servers is read: port, path and names, as the configuration says or as the runtime has them. One per pool;
 * set by the control thread, read by the scraping thread; it has its own lock, which is never held while another is taken. */
#ifndef SCHED_SOURCE_H
#define SCHED_SOURCE_H

#include "conf/types.h"
#include "core/promtext.h"

#include <stdatomic.h>

struct source;
struct source *source_new(void);
void source_free(struct source *s);                                 /* NULL allowed; rules that are still held stay */
void source_set(struct source *s, const struct conf_backend *b);    /* copies what it needs; takes effect with the next scrape of each endpoint */

/* Where to look, in this order, until one place shows a load (model-servers.md 1.8, 1.9). */
#define SOURCE_TRITON_PORT   8002
#define SOURCE_TRITON_HEALTH "/v2/health/ready"
#define SOURCE_PLACES        3
struct source_place {
    uint16_t port; /* 0: the endpoint's metrics port, which is its API port if none was given */
    bool triton;   /* the port is a guess, good for Triton alone: whatever else listens there is another server */
    struct str path;
};
struct source_rules { /* immutable; setting the same again keeps them, so a new pointer means a new search */
    atomic_uint refs;
    bool given; /* the runtime was; else series of any count */
    struct prom_spec spec;
    struct source_place place[SOURCE_PLACES];
    unsigned n_places;
    struct str health; /* path that tells at the API port whether the server is well */
};
struct source_rules *source_get(struct source *s); /* referenced; NULL before the first source_set */
void source_unref(struct source_rules *r);         /* NULL allowed */

/* What a person is told once per pool and rules. True the first time. Scraping thread only. */
enum source_told { TOLD_GUESS, TOLD_MISMATCH };
bool source_tell(struct source *s, enum source_told what);

#endif
