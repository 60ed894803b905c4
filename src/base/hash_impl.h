/* base/hash_impl.h - between hash.c and its versions for single processors; hash_bytes chooses. */
#ifndef BASE_HASH_IMPL_H
#define BASE_HASH_IMPL_H

#include "base/compiler.h"

uint64_t hash_bytes_avx2(const void *p, size_t n, uint64_t seed); /* only where __builtin_cpu_supports("avx2") */

#endif
