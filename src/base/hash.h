/* base/hash.h - 64-bit hashing (XXH3) and the mix used to chain block hashes. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/str.h"

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed); /* XXH3_64bits_withSeed */
/* Strong 64x64 -> 64 mix of an ordered pair; hash_mix(a, b) != hash_mix(b, a). */
static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 m =
        (unsigned __int128)(a ^ 0x9e3779b97f4a7c15ull) * (unsigned __int128)(b ^ 0xc2b2ae3d27d4eb4full ^ (a << 32 | a >> 32));
    return (uint64_t)m ^ (uint64_t)(m >> 64) ^ b;
}

#endif
