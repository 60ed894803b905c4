/* Hashing: published values of XXH3, and an ordered mix. */
#include "unit.h"
#include "base/hash.h"
#include "base/rng.h"

#include <xxhash.h>

static void test_known(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0, 0) == 0x2d06800538d394c2ull);
    assert_true(hash_bytes("abc", 3, 0) == 0x78af5f94892f3950ull);
    assert_true(hash_bytes("abc", 3, 1) != hash_bytes("abc", 3, 0));
}

/* Every length gives what the library itself computes, whichever vector unit we chose. */
static void test_lengths(void **state)
{
    (void)state;
    char text[4096];
    struct rng r;
    rng_init(&r, 4);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)rng_u64(&r);
    for (size_t n = 0; n <= sizeof text; n++)
        assert_true(hash_bytes(text, n, n) == XXH3_64bits_withSeed(text, n, n));
}

/* Flipping any input bit changes about half of the output bits. */
static void test_mix(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 9);
    long flips = 0, trials = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t a = rng_u64(&r), b = rng_u64(&r), h = hash_mix(a, b);
        assert_true(h != hash_mix(b, a));
        for (int bit = 0; bit < 64; bit++, trials += 2)
            flips += __builtin_popcountll(h ^ hash_mix(a ^ 1ull << bit, b)) +
                     __builtin_popcountll(h ^ hash_mix(a, b ^ 1ull << bit));
    }
    double mean = (double)flips / (double)trials;
    assert_true(mean > 28 && mean < 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_lengths), cmocka_unit_test(test_mix)};
    return RUN_TESTS(tests);
}
