/* core/queue.h - requests that wait for an endpoint: strict priorities, weighted fairness between flows, order inside a flow. Pure data
 * structure: it knows no endpoints and no clock; times are arguments.
 *
 *   queue -> bands (one per priority, highest first) -> flows (heap by service received / weight)
 *         -> lanes (items of a flow with the same constraint on endpoints) -> items (heap by arrival, or by deadline)
 *
 * Service is counted in virtual tokens (VTC, OSDI'24). A flow that becomes backlogged starts at the larger of its own counter and the band's
 * virtual time (the counter of the flow served last), so idle time earns nothing. Between two flows that stay backlogged and placeable the
 * service received per weight differs by at most 2 x the largest single charge / weight.
 *
 * Constraints: items with equal `lane` can be placed on the same endpoints. When the head of a lane cannot be placed the caller blocks the lane
 * (queue_block); it is passed over until the epoch it was blocked in is over (queue_unblock_all starts a new one), so that nobody is held up
 * by another's constraint. A flow with all lanes blocked is passed over, and does not fall behind for it: on its return it competes with its
 * counter, lifted to the band's virtual time.
 *
 * Cost: push, next, take, remove, expire: O(log n) plus the number of lanes of the flow (distinct constraints, few) and of bands (distinct
 * priorities in the configuration). Memory: flows and bands exist while they have items waiting or service outstanding (queue_settle).
 *
 * Ownership: items are embedded in the caller's requests; the queue owns everything else. Not thread-safe. */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include "base/heap.h"

struct queue;
struct queue_flow; /* private */
struct queue_lane; /* private */

struct queue_item {
    /* in: before queue_push */
    int priority;
    uint64_t flow;        /* who shares */
    uint64_t lane;        /* constraint */
    uint64_t bytes;
    uint64_t seq;         /* order of arrival: smaller = earlier. A request that comes back keeps its own */
    uint64_t deadline_us; /* UINT64_MAX = none */
    /* private */
    struct heap_node order, expiry, age_in_band, age; /* age: by seq, for discarding */
    struct queue_flow *f;        /* while waiting, and while service is outstanding */
    struct queue_lane *l;        /* while waiting */
    double charged;
};

struct queue *queue_new(uint64_t seed);
void queue_free(struct queue *q); /* must be empty of items */
/* by_deadline: order inside lanes. Takes effect on items waiting. */
void queue_set_order(struct queue *q, bool by_deadline);
/* Weights of flows (> 0; others 1). Copied; counters of existing flows keep their value. */
void queue_set_weights(struct queue *q, const uint64_t *flows, const double *weights, uint32_t n);

void queue_push(struct queue *q, struct queue_item *it);
void queue_remove(struct queue *q, struct queue_item *it); /* leaves without service; no-op when not waiting */
bool queue_waiting(const struct queue_item *it);

/* The item to serve next: highest band with a lane not blocked, its flow with the least counter, of its unblocked lanes the head that is first in
 * order. NULL when there is none (queue empty, or everything blocked). Does not change the queue. */
struct queue_item *queue_next(struct queue *q);
/* Takes out what queue_next returned, charging its flow `tokens` of service. The item stays known to its flow until queue_settle. */
void queue_take(struct queue *q, struct queue_item *it, double tokens);
/* A request that did not wait is charged all the same: its flow may be waiting with others. */
void queue_charge(struct queue *q, struct queue_item *it, double tokens);
/* The service is over: what it really was. tokens < 0: keep the estimate. No-op without a charge. Exactly once per take or charge. */
void queue_settle(struct queue *q, struct queue_item *it, double tokens);

void queue_block(struct queue *q, struct queue_item *head); /* the lane of this item (its head) */
void queue_unblock_all(struct queue *q);
bool queue_blocked_any(const struct queue *q); /* lanes with items are blocked in this epoch */

struct queue_item *queue_expired(struct queue *q, uint64_t now_us); /* one whose deadline has come; NULL none. The caller removes it */
uint64_t queue_next_expiry(const struct queue *q);                  /* UINT64_MAX none */
void queue_set_deadline(struct queue *q, struct queue_item *it, uint64_t deadline_us); /* of a waiting item */
void queue_each(struct queue *q, void (*fn)(void *ctx, struct queue_item *it), void *ctx); /* by arrival; fn may set deadlines, not remove */

struct queue_item *queue_earliest(struct queue *q);        /* of all; NULL when empty */
struct queue_item *queue_earliest_lowest(struct queue *q); /* of the lowest priority present */

uint64_t queue_n(const struct queue *q);
uint64_t queue_bytes(const struct queue *q);
uint64_t queue_bytes_above(const struct queue *q, int priority); /* of all with a higher priority */
uint64_t queue_n_at_least(const struct queue *q, int priority); /* waiting with this priority or a higher one */
/* Upper estimate of how many are served before a newcomer of this priority and flow: all of higher bands, and of its own band at most
 * (waiting in its flow + 1) x flows with items waiting, not more than the band has. */
uint64_t queue_n_before(const struct queue *q, int priority, uint64_t flow);

#endif
