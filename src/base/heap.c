/* base/heap.c - binary min-heap of intrusive nodes. Position 1 is the root; slot 0 of the array is never used. */
#include "base/heap.h"

#include <stdlib.h>

void heap_init(struct heap *h)
{
    *h = (struct heap){0};
}

void heap_free(struct heap *h)
{
    free(h->v);
    heap_init(h);
}

static void place(struct heap *h, struct heap_node *node, size_t i)
{
    h->v[i] = node;
    node->idx = i;
}

static void sift_up(struct heap *h, struct heap_node *node, size_t i)
{
    for (; i > 1 && heap_before(node, h->v[i / 2]); i /= 2)
        place(h, h->v[i / 2], i);
    place(h, node, i);
}

static void sift_down(struct heap *h, struct heap_node *node, size_t i)
{
    for (size_t child; (child = 2 * i) <= h->n; i = child) {
        if (child < h->n && heap_before(h->v[child + 1], h->v[child]))
            child++;
        if (!heap_before(h->v[child], node))
            break;
        place(h, h->v[child], i);
    }
    place(h, node, i);
}

/* Puts a node whose key may have gone either way at i, or where it belongs. */
static void settle(struct heap *h, struct heap_node *node, size_t i)
{
    if (i > 1 && heap_before(node, h->v[i / 2]))
        sift_up(h, node, i);
    else
        sift_down(h, node, i);
}

void heap_push(struct heap *h, struct heap_node *node, uint64_t key)
{
    CHECK(node->idx == 0);
    if (h->n + 1 >= h->cap) {
        h->cap = h->cap ? h->cap * 2 : 4;
        h->v = xrealloc(h->v, h->cap * sizeof(*h->v));
    }
    node->key = key;
    h->n++;
    sift_up(h, node, h->n);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    size_t i = node->idx;
    if (i == 0)
        return;
    CHECK(i <= h->n && h->v[i] == node);
    struct heap_node *last = h->v[h->n];
    h->n--;
    node->idx = 0;
    if (last != node)
        settle(h, last, i);
}

void heap_update(struct heap *h, struct heap_node *node, uint64_t key)
{
    if (node->idx == 0) {
        heap_push(h, node, key);
        return;
    }
    CHECK(node->idx <= h->n && h->v[node->idx] == node);
    node->key = key;
    settle(h, node, node->idx);
}
