/* sim/kv.c - see kv.h. The table is open addressing with backward-shift deletion at a load of at most one half. */
#include "sim/kv.h"

#include <stdlib.h>
#include <string.h>

static void free_link(struct kv *kv, uint32_t i, uint32_t head)
{
    struct kv_block *b = kv->b;
    uint32_t tail = b[head].prev;
    b[i].prev = tail;
    b[i].next = head;
    b[tail].next = i;
    b[head].prev = i;
    kv->n_free++;
}

static void free_unlink(struct kv *kv, uint32_t i)
{
    struct kv_block *b = kv->b;
    b[b[i].prev].next = b[i].next;
    b[b[i].next].prev = b[i].prev;
    kv->n_free--;
}

void kv_init(struct kv *kv, uint32_t n_blocks)
{
    uint32_t cap = 16;
    while (cap < n_blocks * 2 && cap < 1u << 31)
        cap *= 2;
    *kv = (struct kv){.b = xcalloc((size_t)n_blocks + 2, sizeof(*kv->b)),
                      .n = n_blocks,
                      .tab = xcalloc(cap, sizeof(*kv->tab)),
                      .mask = cap - 1};
    for (uint32_t head = n_blocks; head < n_blocks + 2; head++)
        kv->b[head].prev = kv->b[head].next = head;
    for (uint32_t i = 0; i < n_blocks; i++)
        free_link(kv, i, n_blocks + 1);
    kv->n_empty = n_blocks;
}

void kv_free(struct kv *kv)
{
    free(kv->b);
    free(kv->tab);
    *kv = (struct kv){0};
}

static uint32_t slot_of(const struct kv *kv, uint64_t hash)
{
    uint32_t i = (uint32_t)(hash ^ hash >> 32) & kv->mask;
    while (kv->tab[i] && kv->b[kv->tab[i] - 1].hash != hash)
        i = (i + 1) & kv->mask;
    return i;
}

uint32_t kv_lookup(const struct kv *kv, uint64_t hash)
{
    uint32_t v = kv->tab[slot_of(kv, hash)];
    return v ? v - 1 : KV_NONE;
}

static void unhash(struct kv *kv, uint32_t block)
{
    struct kv_block *b = &kv->b[block];
    if (!b->hashed)
        return;
    b->hashed = false;
    uint32_t hole = slot_of(kv, b->hash), i = hole;
    for (;;) {
        i = (i + 1) & kv->mask;
        if (!kv->tab[i])
            break;
        uint64_t h = kv->b[kv->tab[i] - 1].hash;
        uint32_t home = (uint32_t)(h ^ h >> 32) & kv->mask;
        if (((i - home) & kv->mask) >= ((i - hole) & kv->mask)) {
            kv->tab[hole] = kv->tab[i];
            hole = i;
        }
    }
    kv->tab[hole] = 0;
}

uint32_t kv_alloc(struct kv *kv)
{
    bool empty = kv->n_empty > 0;
    uint32_t i = kv->b[empty ? kv->n + 1 : kv->n].next;
    if (i == kv->n)
        return KV_NONE;
    free_unlink(kv, i);
    kv->n_empty -= empty;
    unhash(kv, i);
    kv->b[i].ref = 1;
    return i;
}

void kv_ref(struct kv *kv, uint32_t block)
{
    if (kv->b[block].ref++ == 0)
        free_unlink(kv, block);
}

void kv_unref(struct kv *kv, uint32_t block)
{
    CHECK(kv->b[block].ref > 0);
    if (--kv->b[block].ref == 0)
        free_link(kv, block, kv->n);
}

void kv_drop(struct kv *kv, uint32_t block)
{
    unhash(kv, block);
    free_unlink(kv, block);
    free_link(kv, block, kv->n + 1);
    kv->n_empty++;
}

void kv_trim(struct kv *kv, uint32_t keep)
{
    while (kv->n_free - kv->n_empty > keep)
        kv_drop(kv, kv->b[kv->n].next);
}

void kv_hash(struct kv *kv, uint32_t block, uint64_t hash)
{
    uint32_t s = slot_of(kv, hash);
    if (kv->tab[s] || kv->b[block].hashed)
        return;
    kv->b[block].hash = hash;
    kv->b[block].hashed = true;
    kv->tab[s] = block + 1;
}

void kv_reset(struct kv *kv)
{
    for (uint32_t i = 0; i < kv->n; i++)
        kv->b[i].hashed = false;
    memset(kv->tab, 0, ((size_t)kv->mask + 1) * sizeof(*kv->tab));
}
