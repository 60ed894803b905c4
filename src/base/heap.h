/* base/heap.h - binary min-heap of intrusive nodes keyed by a 64-bit value; each node knows its index, so removal is O(log n).
 * Equal keys keep no order. The heap owns only its pointer array. Not thread-safe. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include "base/compiler.h"

struct heap_node {
    uint64_t key;
    size_t idx; /* 1-based position; 0 = not in a heap */
};
struct heap {
    struct heap_node **v;
    size_t n, cap;
};

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
