/* base/hash_x86.c - the same XXH3 with AVX2 for long inputs, same values: this file alone is compiled with -mavx2. */
#include "base/hash_impl.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash_bytes_avx2(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}
