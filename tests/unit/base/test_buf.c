/* The growable buffer: its maximum, and random operations against a plain array. */
#include "unit.h"
#include "base/buf.h"
#include "base/rng.h"

#include <stdlib.h>

static void test_maximum(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    assert_int_equal(buf_str(&b).n, 0);
    assert_true(buf_add(&b, "abc", 3));
    assert_false(buf_add(&b, "def", 3));
    assert_true(b.overflow);
    assert_str(buf_str(&b), STR("abc"), "nothing appended");
    assert_true(buf_addf(&b, "%d", 12));
    assert_false(buf_addf(&b, "%d", 1));
    assert_null(buf_reserve(&b, 1));
    assert_non_null(buf_reserve(&b, 0));
    assert_string_equal(buf_cstr(&b), "abc12");
    buf_clear(&b);
    assert_false(b.overflow);
    assert_int_equal(b.n, 0);
    assert_true(buf_add(&b, "abcde", 5));
    buf_free(&b);
    assert_true(buf_add_str(&b, STR("again")));
    assert_int_equal(b.max, 5);
    buf_free(&b);
    assert_string_equal(buf_cstr(&b), "");
    buf_free(&b);
}

static void test_printf_long(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    for (int len = 250; len < 260; len++) {
        buf_clear(&b);
        assert_true(buf_addf(&b, "%*d", len, 7));
        assert_int_equal(b.n, len);
        assert_int_equal(buf_cstr(&b)[len - 1], '7');
    }
    assert_false(buf_addf(&b, "%*d", 999, 7));
    assert_int_equal(b.n, 259);
    buf_free(&b);
    buf_init(&b, SIZE_MAX);
    assert_true(buf_addf(&b, "%*d", 9999, 7));
    assert_int_equal(strlen(buf_cstr(&b)), 9999);
    buf_free(&b);
}

static void test_like_array(void **state)
{
    (void)state;
    enum { MAX_LEN = 300 };
    char want[MAX_LEN + 1];
    size_t n = 0;
    struct buf b;
    struct rng r;
    buf_init(&b, MAX_LEN);
    rng_init(&r, 7);
    for (int i = 0; i < 100000; i++) {
        char piece[64];
        size_t len = rng_below(&r, sizeof(piece));
        if (rng_below(&r, 2)) {
            memset(piece, 'a' + i % 26, sizeof(piece));
            assert_int_equal(buf_add(&b, piece, len), n + len <= MAX_LEN);
            if (n + len <= MAX_LEN) {
                memcpy(want + n, piece, len);
                n += len;
            }
        } else {
            len = MIN(len, n);
            buf_consume(&b, len);
            memmove(want, want + len, n - len);
            n -= len;
        }
        assert_int_equal(b.n, n);
        want[n] = '\0';
        if (i % 16 == 0)
            assert_string_equal(buf_cstr(&b), want);
        else
            assert_true(str_eq(buf_str(&b), (struct str){want, n}));
        assert_true(b.cap <= MAX_LEN + MAX_LEN / 2 + 1);
    }
    buf_free(&b);
}

static void test_reserve(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    char *p = buf_reserve(&b, 100);
    assert_non_null(p);
    memset(p, 'x', 100);
    buf_commit(&b, 40);
    buf_consume(&b, 39);
    p = buf_reserve(&b, 99);
    assert_non_null(p);
    memset(p, 'y', 99);
    buf_commit(&b, 99);
    assert_int_equal(b.n, 100);
    const char *text = buf_cstr(&b);
    assert_int_equal(text[0], 'x');
    assert_int_equal(text[99], 'y');
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_maximum), cmocka_unit_test(test_printf_long),
                                       cmocka_unit_test(test_like_array), cmocka_unit_test(test_reserve)};
    return RUN_TESTS(tests);
}
