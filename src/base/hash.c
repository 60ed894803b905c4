/* base/hash.c - 64-bit hashing: short inputs inline, long ones by the best vector unit of the processor. */
#include "base/hash.h"
#include "base/hash_impl.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define LONG_INPUT 240 /* up to here XXH3 uses no vectors */

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
#if defined(__x86_64__)
    if (n > LONG_INPUT && __builtin_cpu_supports("avx2"))
        return hash_bytes_avx2(p, n, seed);
#endif
    return XXH3_64bits_withSeed(p, n, seed);
}
