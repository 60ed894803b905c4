/* base/heap.h - binary min-heap of intrusive nodes keyed by a 64-bit value; each node knows its index, so removal is O(log n).
 * Nodes of equal key are ordered by `tie`; of equal tie, too, they keep no order. The heap owns only its pointer array. Not thread-safe. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include "base/compiler.h"

struct heap_node {
    uint64_t key;
    uint64_t tie; /* the owner's, set before the node is pushed or updated; 0 where equal keys need no order */
    size_t idx;   /* 1-based position; 0 = not in a heap */
};
struct heap {
    struct heap_node **v;
    size_t n, cap;
};

static inline bool heap_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

void heap_init(struct heap *h);
void heap_free(struct heap *h);
void heap_push(struct heap *h, struct heap_node *node, uint64_t key); /* node must not be in a heap */
void heap_remove(struct heap *h, struct heap_node *node);             /* no-op when not in the heap */
void heap_update(struct heap *h, struct heap_node *node, uint64_t key); /* push or move */
static inline struct heap_node *heap_min(const struct heap *h)
{
    return h->n ? h->v[1] : NULL;
}

#endif
