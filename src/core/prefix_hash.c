/* Block hashes of a prefix stream: fine ones first, then one per PREFIX_COARSE blocks. */
#include "core/prefix_hash.h"
#include "base/hash.h"

#define MESSAGE_END 0x1e /* of the prefix stream, api/api.h */

uint64_t prefix_seed(struct str model, struct str lora, struct str cache_salt)
{
    uint64_t h = hash_bytes(model.p, model.n, 0);
    h = hash_mix(h, hash_bytes(lora.p, lora.n, 1));
    return hash_mix(h, hash_bytes(cache_salt.p, cache_salt.n, 2));
}

static uint32_t hash_run(const char *p, uint32_t n, size_t step, uint64_t *chain, uint64_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        *chain = hash_mix(*chain, hash_bytes(p + (size_t)i * step, step, 0));
        out[i] = *chain;
    }
    return n;
}

static void hash_ends(struct str stream, uint64_t seed, struct prefix_hashes *out)
{
    size_t bs = out->block_bytes, reach = MIN(stream.n, ((size_t)out->n_fine + 1) * bs - 1);
    const char *at = stream.p + reach;
    while (out->n_ends < PREFIX_ENDS && at > stream.p &&
           (at = memrchr(stream.p, MESSAGE_END, (size_t)(at - stream.p)))) {
        size_t n = (size_t)(at - stream.p) + 1, block = n / bs;
        uint64_t chain = block ? out->h[block - 1] : seed;
        if (n == stream.n)
            out->whole = out->n_ends == 0;
        out->ends[out->n_ends++] = hash_mix(~chain, hash_bytes(stream.p + block * bs, n - block * bs, 3));
    }
}

void prefix_hash(struct str stream, uint64_t seed, uint32_t block_bytes, uint32_t max_fine, bool deep,
                 struct prefix_hashes *out, uint64_t *storage, uint32_t cap)
{
    *out = (struct prefix_hashes){.h = storage, .block_bytes = block_bytes};
    if (!block_bytes)
        return;
    uint64_t chain = seed;
    size_t blocks = stream.n / block_bytes;
    uint32_t n_fine = (uint32_t)MIN(blocks, (size_t)MIN(max_fine, cap));
    out->n_fine = hash_run(stream.p, n_fine, block_bytes, &chain, storage);
    out->n = out->n_fine;
    hash_ends(stream, seed, out);
    if (!deep || n_fine < max_fine)
        return;
    size_t n_coarse = MIN((blocks - n_fine) / PREFIX_COARSE, (size_t)(cap - n_fine));
    size_t step = (size_t)block_bytes * PREFIX_COARSE;
    if (n_coarse)
        out->n += hash_run(stream.p + (size_t)n_fine * block_bytes, (uint32_t)n_coarse, step, &chain, storage + n_fine);
}
