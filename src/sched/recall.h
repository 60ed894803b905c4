/* sched/recall.h - which endpoint gave a response id (previous_response_id): bounded memory, oldest forgotten. Only a
 * 64-bit hash of the id is kept. Not thread-safe; grows with use up to RECALL_MAX entries of 24 bytes. */
#ifndef SCHED_RECALL_H
#define SCHED_RECALL_H

#include "core/sched.h"

#define RECALL_MAX 100000

struct recall_entry {
    uint64_t hash;
    struct ep_ref ep;
    uint32_t next; /* in its bucket: index + 1, 0 ends */
};
struct recall {
    struct recall_entry *v; /* ring of `cap` entries */
    uint32_t *bucket;       /* heads: index + 1 */
    uint32_t n, cap, pos, n_buckets;
};
void recall_put(struct recall *r, struct str id, struct ep_ref ep);
struct ep_ref recall_get(const struct recall *r, struct str id); /* gen 0 when unknown */
void recall_free(struct recall *r);

#endif
