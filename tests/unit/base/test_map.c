/* The hash map against an array of pairs. */
#include "unit.h"
#include "base/map.h"
#include "base/rng.h"

#define N 400

static struct str key_of(size_t i, char out[32])
{
    if (i == 0)
        return STR_NULL;
    int n = snprintf(out, 32, "key%c%zu", i % 3 ? '-' : '\0', i); /* some hold a NUL */
    return (struct str){out, (size_t)n};
}

static void check_iteration(const struct map *m, char *const *want, size_t n_want)
{
    size_t n = 0;
    MAP_EACH(slot, m)
    {
        bool found = false;
        for (size_t i = 0; i < N; i++)
            found = found || want[i] == slot->val;
        assert_true(found);
        n++;
    }
    assert_int_equal(n, n_want);
    assert_int_equal(m->n, n_want);
}

static void test_like_array(void **state)
{
    (void)state;
    static char values[4096];
    char *want[N] = {NULL}, mem[32];
    size_t n = 0;
    struct map m;
    struct rng r;
    map_init(&m, 42);
    rng_init(&r, 13);
    for (int i = 0; i < 200000; i++) {
        size_t k = rng_below(&r, i % 50000 < 25000 ? N : 12);
        struct str key = key_of(k, mem);
        assert_ptr_equal(map_get(&m, key), want[k]);
        if (rng_below(&r, 100) < (i % 20000 < 10000 ? 60 : 30)) {
            char *val = &values[rng_below(&r, sizeof(values))];
            assert_ptr_equal(map_put(&m, key, val), want[k]);
            n += !want[k];
            want[k] = val;
        } else {
            assert_ptr_equal(map_del(&m, key), want[k]);
            n -= want[k] != NULL;
            want[k] = NULL;
        }
        if (i % 1000 == 0)
            check_iteration(&m, want, n);
    }
    for (size_t k = 0; k < N; k++)
        assert_ptr_equal(map_get(&m, key_of(k, mem)), want[k]);
    map_free(&m);
}

static void test_empty(void **state)
{
    (void)state;
    struct map m;
    map_init(&m, 1);
    assert_null(map_get(&m, STR("x")));
    assert_null(map_del(&m, STR("x")));
    MAP_EACH(slot, &m)
    fail();
    char key[] = "abc";
    map_put(&m, str_c(key), key);
    key[0] = 'z'; /* the map has its own copy */
    assert_ptr_equal(map_get(&m, STR("abc")), key);
    assert_null(map_get(&m, STR("ab")));
    map_free(&m);
    assert_null(map_get(&m, STR("abc")));
    map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_array), cmocka_unit_test(test_empty)};
    return RUN_TESTS(tests);
}
