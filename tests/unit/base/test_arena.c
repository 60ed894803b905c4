/* Bump allocation: alignment, no overlap, large pieces, reset. */
#include "unit.h"
#include "base/arena.h"
#include "base/rng.h"

static void test_no_overlap(void **state)
{
    (void)state;
    struct arena a;
    struct rng r;
    char *p[500];
    size_t n[500];
    rng_init(&r, 3);
    arena_init(&a, 1024);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < ARRAY_LEN(p); i++) {
            n[i] = rng_below(&r, i % 50 ? 60 : 5000);
            p[i] = arena_alloc(&a, n[i]);
            assert_int_equal((uintptr_t)p[i] % 16, 0);
            memset(p[i], (int)(i & 0xff), n[i]);
        }
        for (size_t i = 0; i < ARRAY_LEN(p); i++)
            for (size_t k = 0; k < n[i]; k++)
                assert_int_equal((unsigned char)p[i][k], i & 0xff);
        assert_true(a.used > 0);
        arena_reset(&a);
        assert_int_equal(a.used, 0);
    }
    arena_free(&a);
    assert_null(a.head);
}

static void test_reset_keeps_one_block(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 256);
    void *first = arena_alloc(&a, 10);
    for (int i = 0; i < 100; i++)
        arena_alloc(&a, i % 2 ? 100 : 1000);
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 10), first);
    arena_free(&a);
    arena_reset(&a);
    arena_alloc(&a, 10000); /* the first block is a large one: it does not survive */
    arena_reset(&a);
    assert_null(a.head);
    arena_free(&a);
}

static void test_large_leaves_head(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1024);
    char *small = arena_alloc(&a, 16);
    arena_alloc(&a, 100000);
    assert_ptr_equal(arena_alloc(&a, 16), small + 16);
    arena_free(&a);
}

static void test_texts(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 64);
    struct str s = arena_str(&a, STR("hello"));
    assert_string_equal(s.p, "hello");
    assert_int_equal(s.n, 5);
    assert_string_equal(arena_strdup(&a, STR_NULL), "");
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 42), "x-42");
    assert_int_equal(strlen(arena_printf(&a, "%*d", 500, 1)), 500);
    memset(arena_alloc(&a, 32), 0xff, 32);
    arena_reset(&a);
    const char *z = arena_zalloc(&a, 48);
    for (int i = 0; i < 48; i++)
        assert_int_equal(z[i], 0);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_overlap), cmocka_unit_test(test_reset_keeps_one_block),
                                       cmocka_unit_test(test_large_leaves_head), cmocka_unit_test(test_texts)};
    return RUN_TESTS(tests);
}
