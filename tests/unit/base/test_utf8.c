/* UTF-8: every sequence of up to three bytes, and samples of four, against a decoder written the plain way. */
#include "unit.h"
#include "base/rng.h"
#include "base/utf8.h"

static size_t naive_len(const unsigned char *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (len == 0 || len > n)
        return 0;
    if (len == 1)
        return 1;
    uint32_t cp = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        cp = cp << 6 | (p[i] & 0x3f);
    }
    return cp < least[len] || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000) ? 0 : len;
}

static bool naive_valid(const unsigned char *p, size_t n)
{
    for (size_t len; n; p += len, n -= len)
        if ((len = naive_len(p, n)) == 0)
            return false;
    return true;
}

static void check(const unsigned char *p, size_t n)
{
    if (utf8_valid((struct str){(const char *)p, n}) != naive_valid(p, n) ||
        utf8_char_len((const char *)p, (const char *)p + n) != naive_len(p, n))
        fail_msg("%02x %02x %02x %02x (%zu)", p[0], n > 1 ? p[1] : 0u, n > 2 ? p[2] : 0u, n > 3 ? p[3] : 0u, n);
}

static void test_short(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        unsigned char p[3] = {(unsigned char)(v >> 16), (unsigned char)(v >> 8), (unsigned char)v};
        if ((v & 0xffff) == 0)
            check(p, 1);
        if ((v & 0xff) == 0)
            check(p, 2);
        if (p[0] >= 0xc0)
            check(p, 3);
    }
}

static void test_random(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 6);
    for (int i = 0; i < 1000000; i++) {
        unsigned char p[4];
        uint64_t v = rng_u64(&r);
        for (int k = 0; k < 4; k++)
            p[k] = (unsigned char)(k == 0 ? 0xe0 | (v & 0x1f) : 0x80 | (v >> (8 * k) & 0x7f));
        check(p, 4);
    }
    for (int i = 0; i < 100000; i++) { /* longer texts: characters, ASCII runs, sometimes a stray byte */
        char text[128];
        size_t n = 0;
        while (n < 100)
            n += rng_below(&r, 3) ? utf8_put((uint32_t)rng_below(&r, 0x110000), text + n)
                                  : utf8_put((uint32_t)rng_below(&r, 128), text + n);
        if (i % 2)
            text[rng_below(&r, n)] = (char)rng_u64(&r);
        bool want = naive_valid((const unsigned char *)text, n);
        assert_int_equal(utf8_valid((struct str){text, n}), want);
        assert_true(want || i % 2);
    }
}

static void test_put(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x110010; cp++) {
        char out[4];
        size_t n = utf8_put(cp, out);
        assert_int_equal(utf8_char_len(out, out + n), n);
        if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
            assert_memory_equal(out, "\xef\xbf\xbd", 3);
    }
    assert_true(utf8_valid(STR_NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_short), cmocka_unit_test(test_random),
                                       cmocka_unit_test(test_put)};
    return RUN_TESTS(tests);
}
