/* base/rng.h - seeded generator (splitmix64-seeded xoshiro256++). Same seed, same sequence, everywhere. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include "base/compiler.h"

struct rng {
    uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0, without bias */
double rng_unit(struct rng *r);                /* uniform in [0, 1) */
double rng_normal(struct rng *r);              /* mean 0, deviation 1 */
double rng_exp(struct rng *r);                 /* mean 1 */

#endif
