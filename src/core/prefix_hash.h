/* core/prefix_hash.h - the one function that turns a prefix stream (api/api.h) into block hashes, for proxy, ext_proc,
 * replay and tests. Pure; no allocation. A hash stands for everything from the start of the stream to the end of its
 * block: h_i = hash_mix(h_{i-1}, XXH3(block_i)), h_{-1} = seed. Blocks hash independently of each other and chain
 * cheaply. Only full blocks count: a 63-byte stream has no block of 64. */
#ifndef CORE_PREFIX_HASH_H
#define CORE_PREFIX_HASH_H

#include "base/str.h"

#define PREFIX_COARSE 32  /* beyond max_fine blocks, one hash covers this many blocks */
#define PREFIX_MAX    640 /* hashes per request: 128 fine + 512 coarse reach 1 MiB of prompt at 64-byte blocks */

#define PREFIX_ENDS   8   /* ends of messages that are looked at */

struct prefix_hashes {
    uint64_t *h;     /* = the storage given */
    uint32_t n;      /* hashes */
    uint32_t n_fine; /* the first n_fine cover one block each, the others PREFIX_COARSE blocks each */
    uint32_t block_bytes;
    /* Messages hardly ever end with a block, and a short question is shorter than one: a conversation is recognised by hashes of
     * everything up to the end (0x1e) of a message, latest first, as far as the fine blocks reach. They match no blocks. */
    uint64_t ends[PREFIX_ENDS];
    uint32_t n_ends;
    bool whole; /* ends[0] is the end of the stream: what the next turn of this conversation will look for */
};

/* What must agree for two requests to share cache at all. Empty and absent are the same. */
uint64_t prefix_seed(struct str model, struct str lora, struct str cache_salt);

/* Hashes `stream`. max_fine: blocks that get a hash each (annotation prefix-cache-max-prefix-blocks); deep: whether to
 * look beyond them in coarse steps. storage holds cap hashes. block_bytes 0 gives none. */
void prefix_hash(struct str stream, uint64_t seed, uint32_t block_bytes, uint32_t max_fine, bool deep,
                 struct prefix_hashes *out, uint64_t *storage, uint32_t cap);

/* Bytes of the stream covered when the first `matched` hashes agree. */
static inline uint64_t prefix_bytes(const struct prefix_hashes *p, uint32_t matched)
{
    if (matched <= p->n_fine)
        return (uint64_t)matched * p->block_bytes;
    return ((uint64_t)p->n_fine + (uint64_t)(matched - p->n_fine) * PREFIX_COARSE) * p->block_bytes;
}

#endif
