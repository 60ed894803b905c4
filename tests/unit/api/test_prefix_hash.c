/* Block hashes: what is covered, to the byte; chaining; seeds; the coarse tail. */
#include "common.h"
#include "base/hash.h"
#include "core/prefix_hash.h"

#define N (200 * 1024)
static char a[N], b[N];
static uint64_t ha[PREFIX_MAX], hb[PREFIX_MAX];

static int fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < N; i++)
        a[i] = b[i] = (char)(i * 2654435761u >> 13);
    return 0;
}

static struct prefix_hashes hash(const char *p, size_t n, uint32_t block, uint32_t fine, bool deep, uint64_t *out)
{
    struct prefix_hashes h;
    prefix_hash((struct str){p, n}, 1, block, fine, deep, &h, out, PREFIX_MAX);
    return h;
}

static uint32_t matched(struct prefix_hashes x, struct prefix_hashes y)
{
    uint32_t i = 0;
    while (i < MIN(x.n, y.n) && x.h[i] == y.h[i])
        i++;
    return i;
}

static void only_full_blocks_count(void **state)
{
    (void)state;
    assert_int_equal(hash(a, 0, 64, 128, true, ha).n, 0);
    assert_int_equal(hash(a, 63, 64, 128, true, ha).n, 0);
    assert_int_equal(hash(a, 64, 64, 128, true, ha).n, 1);
    assert_int_equal(hash(a, 127, 64, 128, true, ha).n, 1);
    assert_int_equal(hash(a, 255, 256, 128, true, ha).n, 0);
    assert_int_equal(hash(a, 1000, 0, 128, true, ha).n, 0);
}

static void shared_prefix_matches_to_the_byte(void **state)
{
    (void)state;
    b[64] ^= 1; /* 64 bytes shared */
    assert_int_equal(matched(hash(a, 200, 64, 128, true, ha), hash(b, 200, 64, 128, true, hb)), 1);
    b[64] ^= 1;
    b[63] ^= 1; /* 63 shared; what follows is equal but chained */
    assert_int_equal(matched(hash(a, 6400, 64, 128, true, ha), hash(b, 6400, 64, 128, true, hb)), 0);
    for (uint32_t i = 0; i < 100; i++)
        assert_true(ha[i] != hb[i]);
    b[63] ^= 1;
    b[255] ^= 1;
    assert_int_equal(matched(hash(a, 600, 256, 128, true, ha), hash(b, 600, 256, 128, true, hb)), 0);
    b[255] ^= 1;
}

static void annotation_bounds_the_fine_blocks(void **state)
{
    (void)state;
    struct prefix_hashes h = hash(a, N, 64, 4, false, ha);
    assert_int_equal(h.n, 4);
    assert_int_equal(h.n_fine, 4);
    h = hash(a, N, 64, 128, false, ha);
    assert_int_equal(h.n, 128);
    h = hash(a, N, 64, 128, true, ha);
    assert_int_equal(h.n_fine, 128);
    assert_int_equal(h.n, 128 + (N / 64 - 128) / PREFIX_COARSE);
    assert_int_equal(prefix_bytes(&h, 128), 8192);
    assert_int_equal(prefix_bytes(&h, 130), 8192 + 2 * 2048);
    prefix_hash((struct str){a, N}, 1, 64, 128, true, &h, ha, 10);
    assert_int_equal(h.n, 10);
    prefix_hash((struct str){a, N}, 1, 64, 4, true, &h, ha, 10);
    assert_int_equal(h.n, 10);
    assert_int_equal(h.n_fine, 4);
}

static void coarse_hashes_cover_their_blocks(void **state)
{
    (void)state;
    size_t at = 8192 + 2048 + 5; /* within the second coarse step */
    b[at] ^= 1;
    assert_int_equal(matched(hash(a, N, 64, 128, true, ha), hash(b, N, 64, 128, true, hb)), 129);
    b[at] ^= 1;
}

static void hash_is_the_documented_chain(void **state)
{
    (void)state;
    struct prefix_hashes h = hash(a, 128, 64, 128, true, ha);
    uint64_t h0 = hash_mix(1, hash_bytes(a, 64, 0));
    assert_true(h.h[0] == h0 && h.h[1] == hash_mix(h0, hash_bytes(a + 64, 64, 0)));
}

static void seed_parts_do_not_mix_up(void **state)
{
    (void)state;
    struct str m = STR("m"), none = STR_NULL;
    uint64_t s[] = {prefix_seed(m, none, none), prefix_seed(none, m, none), prefix_seed(none, none, m),
                    prefix_seed(m, m, none),    prefix_seed(m, none, m),    prefix_seed(none, none, none)};
    for (size_t i = 0; i < ARRAY_LEN(s); i++)
        for (size_t k = i + 1; k < ARRAY_LEN(s); k++)
            assert_true(s[i] != s[k]);
    assert_true(s[0] == prefix_seed(m, STR(""), STR("")));
}

/* A14: 64 shared characters match one block, 63 none; also when characters stand as escapes. */
static void prompt_to_hash_end_to_end(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"0123456789012345678901234567890123456789012345678901234567890123AAAA\"}",
        "{\"prompt\":\"\\u0030123456789012345678901234567890123456789012345678901234567890123BBBB\"}",
        "{\"prompt\":\"012345678901234567890123456789012345678901234567890123456789012CBBBB\"}"};
    uint64_t first[3];
    for (int i = 0; i < 3; i++) {
        struct parsed p;
        struct prefix_hashes h;
        parse(&p, API_COMPLETIONS, str_c(bodies[i]));
        assert_int_equal(p.rc, 0);
        assert_int_equal(p.rq.stream_bytes.n, 68);
        prefix_hash(p.rq.stream_bytes, 1, 64, 128, true, &h, ha, PREFIX_MAX);
        assert_int_equal(h.n, 1);
        first[i] = h.h[0];
        parsed_free(&p);
    }
    assert_true(first[0] == first[1] && first[0] != first[2]);
}

/* Ends of messages: the next turn finds the end of the last one among its own, whatever is shorter than a block. */
static void test_ends(void **state)
{
    (void)state;
    static const char turn1[] = "user\x1fHi\x1e", turn2[] = "user\x1fHi\x1e" "assistant\x1fHello.\x1e" "user\x1fWho?\x1e";
    static const char other[] = "user\x1fHo\x1e" "assistant\x1fHello.\x1e" "user\x1fWho?\x1e";
    struct prefix_hashes h1 = hash(turn1, sizeof turn1 - 1, 64, 128, true, ha);
    struct prefix_hashes h2 = hash(turn2, sizeof turn2 - 1, 64, 128, true, hb);
    assert_int_equal(h1.n, 0);
    assert_int_equal(h1.n_ends, 1);
    assert_true(h1.whole && h2.whole);
    assert_int_equal(h2.n_ends, 3);
    assert_true(h2.ends[2] == h1.ends[0]);
    struct prefix_hashes h3 = hash(other, sizeof other - 1, 64, 128, true, hb);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(h3.ends[i] != h2.ends[i]);
    struct prefix_hashes h4 = hash("no end", 6, 64, 128, true, ha);
    assert_true(h4.n_ends == 0 && !h4.whole);
    /* across blocks, and only as far as fine blocks reach */
    char text[1000];
    memset(text, 'x', sizeof text);
    text[99] = text[199] = text[999] = 0x1e;
    struct prefix_hashes x = hash(text, 200, 64, 128, true, ha), y = hash(text, 1000, 64, 128, true, hb);
    assert_true(x.whole && x.n_ends == 2 && y.n_ends == 3 && x.ends[0] == y.ends[1] && x.ends[1] == y.ends[2]);
    struct prefix_hashes z = hash(text, 1000, 64, 4, false, hb);
    assert_true(!z.whole && z.n_ends == 2 && z.ends[0] == x.ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends), cmocka_unit_test(only_full_blocks_count),
        cmocka_unit_test(shared_prefix_matches_to_the_byte),
        cmocka_unit_test(annotation_bounds_the_fine_blocks),
        cmocka_unit_test(coarse_hashes_cover_their_blocks),
        cmocka_unit_test(hash_is_the_documented_chain),
        cmocka_unit_test(seed_parts_do_not_mix_up),
        cmocka_unit_test(prompt_to_hash_end_to_end),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
