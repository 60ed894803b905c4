/* recall.c - bounded memory of response ids: a ring of entries, chained into hash buckets. */
#include "sched/recall.h"

#include "base/hash.h"

#include <stdlib.h>

#define RECALL_SEED 0x7265636c6cull

static uint32_t *bucket_of(const struct recall *r, uint64_t hash)
{
    return &r->bucket[hash & (r->n_buckets - 1)];
}

static void unlink_entry(struct recall *r, uint32_t i)
{
    uint32_t *at = bucket_of(r, r->v[i].hash);
    while (*at != i + 1)
        at = &r->v[*at - 1].next;
    *at = r->v[i].next;
}

static void link_entry(struct recall *r, uint32_t i)
{
    uint32_t *at = bucket_of(r, r->v[i].hash);
    r->v[i].next = *at;
    *at = i + 1;
}

/* Only called while the ring has not wrapped yet (n == cap < RECALL_MAX), so entries stay in order. */
static void grow(struct recall *r)
{
    uint32_t cap = r->cap ? MIN(r->cap * 4, RECALL_MAX) : 256, n_buckets = 256;
    while (n_buckets < cap)
        n_buckets *= 2;
    r->v = xrealloc(r->v, cap * sizeof *r->v);
    free(r->bucket);
    r->bucket = xcalloc(n_buckets, sizeof *r->bucket);
    r->cap = cap;
    r->n_buckets = n_buckets;
    r->pos = r->n;
    for (uint32_t i = 0; i < r->n; i++)
        link_entry(r, i);
}

static uint32_t find(const struct recall *r, uint64_t hash)
{
    if (!r->n)
        return 0;
    uint32_t i = *bucket_of(r, hash);
    while (i && r->v[i - 1].hash != hash)
        i = r->v[i - 1].next;
    return i;
}

void recall_put(struct recall *r, struct str id, struct ep_ref ep)
{
    uint64_t hash = hash_bytes(id.p, id.n, RECALL_SEED);
    uint32_t known = find(r, hash);
    if (known) {
        r->v[known - 1].ep = ep;
        return;
    }
    if (r->n == r->cap && r->cap < RECALL_MAX)
        grow(r);
    uint32_t i = r->pos;
    r->pos = (r->pos + 1) % r->cap;
    if (r->n == r->cap)
        unlink_entry(r, i);
    else
        r->n++;
    r->v[i] = (struct recall_entry){.hash = hash, .ep = ep};
    link_entry(r, i);
}

struct ep_ref recall_get(const struct recall *r, struct str id)
{
    uint32_t i = find(r, hash_bytes(id.p, id.n, RECALL_SEED));
    return i ? r->v[i - 1].ep : (struct ep_ref){0};
}

void recall_free(struct recall *r)
{
    free(r->v);
    free(r->bucket);
    *r = (struct recall){0};
}
