/* sched/look.h - how an endpoint of a pool is: one look at its metrics page, and where that alone does not say so, at its API port.
 *
 * The places of the pool's rules (sched/source.h) are tried in their order until one shows a load; that one is asked from then on, until it shows none
 * any more. While no place shows any, all are tried again every half minute, and in between only one that has a page, or else the API port.
 *
 * Alive means: the API port has answered, with a status below 500. An answer at a metrics port of its own says nothing of the API, and a refusal there
 * neither: then the API port is asked for the runtime's health path, and beside a working metrics port every five seconds, and whenever the endpoint is suspect.
 *
 * One connection at a time, kept while the same port is asked. All on the scraping thread. Tells a person, once, of a page that shows nothing. */
#ifndef SCHED_LOOK_H
#define SCHED_LOOK_H

#include "net/loop.h"
#include "sched/impl.h"

struct look_result {
    bool alive;
    const struct ep_load *load; /* NULL: not known; valid during the call */
    uint64_t asked_us;          /* when the question was sent whose answer decides */
};
struct look;
struct look *look_new(struct loop *l, struct ep *e, uint64_t timeout_us, void (*done)(void *ctx, const struct look_result *r), void *ctx);
void look_free(struct look *k); /* also under way, and from done */
/* suspect: new or ejected. done is called once per start, never before it returns. No-op while one is under way. */
void look_start(struct look *k, bool suspect);

#endif
