/* sim/kv.h - the KV cache of a simulated engine: blocks with reference counts, a hash table of computed blocks, an LRU
 * queue of free ones.
 *
 * A block whose count is 0 stands in the free queue and keeps its hash until it is handed out again: that is the prefix
 * cache. Freed blocks join the tail, allocation takes the head; empty blocks (never used, or emptied by kv_trim) are
 * handed out before any of the queue. Pure; bounded by its size. */
#ifndef SIM_KV_H
#define SIM_KV_H

#include "base/compiler.h"

#define KV_NONE UINT32_MAX
struct kv_block {
    uint64_t hash;
    uint32_t ref, prev, next; /* prev, next: free queue; index n is its head, n + 1 that of the empty ones */
    bool hashed;
};
struct kv {
    struct kv_block *b;          /* n blocks and the heads of the two queues */
    uint32_t n, n_free, n_empty; /* free: with the empty ones */
    uint32_t *tab;               /* block + 1 by hash, 0 empty */
    uint32_t mask;
};

void kv_init(struct kv *kv, uint32_t n_blocks);
void kv_free(struct kv *kv);
uint32_t kv_lookup(const struct kv *kv, uint64_t hash); /* block or KV_NONE */
uint32_t kv_alloc(struct kv *kv);                       /* count 1, without hash; KV_NONE when none is free */
void kv_ref(struct kv *kv, uint32_t block);
void kv_unref(struct kv *kv, uint32_t block);
void kv_hash(struct kv *kv, uint32_t block, uint64_t hash); /* makes the block findable, unless another has that hash */
void kv_trim(struct kv *kv, uint32_t keep);  /* the free queue forgets its oldest until at most so many are in it */
void kv_drop(struct kv *kv, uint32_t block); /* a block of the free queue becomes empty */
void kv_reset(struct kv *kv);                /* forgets all hashes */

#endif
