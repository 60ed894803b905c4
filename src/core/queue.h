/* core/queue.h - requests that wait for an endpoint: strict priorities, weighted fairness between flows, order inside a flow. Pure data
 * structure: it knows no endpoints and no clock; times are arguments.
 *
 *   queue -> bands (one per priority, highest first) -> flows (by service received / weight)
 *         -> lanes (items of a flow with the same constraint on endpoints) -> items (in the queue's order: enum queue_order)
 *
 * Service is counted in virtual tokens (VTC, OSDI'24), a flow's counter in tokens / weight. A flow that becomes backlogged starts at the larger of
 * its own counter and the band's virtual time, so idle time earns nothing. The virtual time never goes back; it is at least the largest counter that a
 * flow was served at (`low`), and each service moves it on by service / weight / flows waiting, at most to the counter of the
 * flow served: so flows that have had service get their turn however many new ones keep coming. Of flows with equal counters the one goes first
 * that was served longest ago, or came first.
 *
 * Corrections (queue_settle): more than was charged is added in full. Less is given back, but never takes the counter further below `low` than the
 * charge that is corrected, so that a flow whose estimates are far too high cannot shut out the others when many of them are corrected at
 * once; what would go further is forfeited and counts as received.
 *
 * Bound: while two flows stay backlogged and placeable and nothing is charged to them but by queue_take of queue_next's answers, the service / weight
 * they receive over any stretch of time differs by at most 2 x L when charges are exact, else by 4 x L + 2 x X: L the largest single charge / weight,
 * X the most by which what one flow had in service at a time was charged too little, / weight.
 *
 * Constraints: items with equal `lane` can be placed on the same endpoints. When the head of a lane cannot be placed the caller blocks it
 * (queue_block): all items with this constraint, in whatever flow and band, now or later, are passed over until the epoch is over
 * (queue_unblock_all starts a new one), so that each constraint is tried once in an epoch and nobody is held up by another's. A constraint that
 * no item has any more is forgotten, and so is its block. A flow with all lanes blocked is passed over, and neither falls behind for it nor
 * saves up: when it is served again, its counter is first lifted by what `low` gained meanwhile, at most up to `low`.
 *
 * Cost: O(log n) plus the number of lanes of the flow (distinct constraints, few) for push, next, take, charge, settle, remove; O(log n) plus the number
 * of bands (distinct priorities in the configuration) for n_at_least, n_before, earliest, and per constraint for block and unblock; each, set_order:
 * O(n log n). Items that come as the last or the first of their lane, as they do by arrival in either direction, and of their deadlines, are only
 * linked; so set_order between these two directions is O(n).
 * Memory: flows and bands exist while they have items waiting or service outstanding (queue_settle); a band in use remembers
 * QUEUE_RESTING flows without either whose counter is ahead of the virtual time, so that nobody sheds a debt by sending one request at a time.
 *
 * Numbers: counters are doubles; they never overflow (a charge counts at most 1e12 tokens, a weight is taken into 1e-6 to 1e6), and below 2^53
 * tokens / weight are exact to a token. A band starts from 0 when it has been out of use.
 *
 * Ownership: items are embedded in the caller's requests; the queue owns everything else. Not thread-safe. */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include "base/heap.h"
#include "base/list.h"

#define QUEUE_RESTING 1024

struct queue;
struct queue_flow; /* private */
struct queue_lane; /* private */
struct queue_place { /* private: of an item in an order */
    struct heap_node heap;
    struct list link;
};

struct queue_item {
    /* in: before queue_push */
    int priority;
    uint64_t flow;        /* who shares */
    uint64_t lane;        /* constraint */
    uint64_t bytes;
    uint64_t seq;         /* order of arrival: smaller = earlier, each its own. A request that comes back keeps its own */
    uint64_t deadline_us; /* UINT64_MAX = none */
    /* private; zero before the first push or charge */
    struct queue_place order, expiry, age; /* in its lane; of all; in its band by seq, for discarding */
    struct queue_flow *f;                  /* while waiting, and while service is outstanding */
    struct queue_lane *l;                  /* while waiting */
    double charged, weight;                /* tokens; the flow's weight then */
};

struct queue *queue_new(uint64_t seed);
void queue_free(struct queue *q); /* must be empty of items */
/* Inside a lane, and between the heads of a flow's lanes. Takes effect on items waiting. */
enum queue_order {
    QUEUE_OLDEST_FIRST, /* by arrival (seq); the default */
    QUEUE_BY_DEADLINE,  /* then by arrival */
    QUEUE_NEWEST_FIRST  /* the latest arrival */
};
void queue_set_order(struct queue *q, enum queue_order order);
/* Weights of flows (> 0, each flow once; others 1). Copied; counters of existing flows keep their value, and what was charged is corrected with the
 * weight it was charged with. */
void queue_set_weights(struct queue *q, const uint64_t *flows, const double *weights, uint32_t n);

void queue_push(struct queue *q, struct queue_item *it);
void queue_remove(struct queue *q, struct queue_item *it); /* leaves without service; no-op when not waiting */
bool queue_waiting(const struct queue_item *it);

/* The item to serve next: of the highest band with a lane not blocked; there, of the flows with such lanes, that with the least counter; of its
 * lanes not blocked the head that is first in order. NULL when there is none (queue empty, or everything blocked). Does not change the queue. */
struct queue_item *queue_next(struct queue *q);
/* Takes out what queue_next returned (or any other that waits: its flow pays just the same), charging its flow `tokens` of service. The item stays
 * known to its flow until queue_settle. */
void queue_take(struct queue *q, struct queue_item *it, double tokens);
/* A request that did not wait is charged all the same: its flow may be waiting with others. */
void queue_charge(struct queue *q, struct queue_item *it, double tokens);
/* The service is over: what it really was. tokens < 0: keep the estimate. No-op without a charge. Exactly once per take or charge. */
void queue_settle(struct queue *q, struct queue_item *it, double tokens);

void queue_block(struct queue *q, struct queue_item *head); /* the constraint of this waiting item; no-op when blocked already */
void queue_unblock_all(struct queue *q);
bool queue_blocked_any(const struct queue *q); /* something that waits is blocked in this epoch */

struct queue_item *queue_expired(struct queue *q, uint64_t now_us); /* one whose deadline has come; NULL none. The caller removes it */
uint64_t queue_next_expiry(const struct queue *q);                  /* UINT64_MAX none */
void queue_set_deadline(struct queue *q, struct queue_item *it, uint64_t deadline_us); /* of a waiting item */
void queue_each(struct queue *q, void (*fn)(void *ctx, struct queue_item *it), void *ctx); /* by arrival; fn may set deadlines, not remove */

struct queue_item *queue_earliest(struct queue *q);        /* of all; NULL when empty */
struct queue_item *queue_earliest_lowest(struct queue *q); /* of the lowest priority present */

uint64_t queue_n(const struct queue *q);
uint64_t queue_bytes(const struct queue *q);
uint64_t queue_bytes_above(const struct queue *q, int priority); /* of all with a higher priority */
uint64_t queue_n_at(const struct queue *q, int priority); /* waiting with this priority */
uint64_t queue_n_at_least(const struct queue *q, int priority); /* waiting with this priority or a higher one */
/* Upper estimate of how many are served before a newcomer of this priority and flow: all of higher bands, and of its own band at most
 * (waiting in its flow + 1) x flows with items waiting, not more than the band has. Newest first it passes those of its flow: one of each flow (those
 * that come after it are not known). */
uint64_t queue_n_before(const struct queue *q, int priority, uint64_t flow);

#endif
