/* JSON string decoding: every version gives the same bytes and verdict, and UTF-8 is judged as base/utf8 judges it. */
#include "common.h"
#include "api/text.h"
#include "base/rng.h"
#include "base/utf8.h"

struct version {
    const char *name;
    text_copy_fn fn;
};
static size_t versions(struct version v[3])
{
    size_t n = 0;
    v[n++] = (struct version){"portable", text_copy_portable};
#if defined(__x86_64__)
    v[n++] = (struct version){"sse2", text_copy_sse2};
    if (__builtin_cpu_supports("avx2"))
        v[n++] = (struct version){"avx2", text_copy_avx2};
#endif
    return n;
}

struct result {
    enum text_end end;
    size_t used, made;
    char out[512];
};

/* `raw` (with its closing quote, if any) behind two bytes of text, in allocations of exactly the promised sizes. */
static struct result run(text_copy_fn fn, struct str raw)
{
    struct result r;
    char *in = malloc(raw.n + 2), *out = malloc(raw.n ? raw.n : 1);
    assert_true(in && out && raw.n <= sizeof(r.out));
    memcpy(in, "{\"", 2);
    memcpy(in + 2, raw.p, raw.n);
    struct text_cur c = {(const unsigned char *)in + 2, (const unsigned char *)in + 2 + raw.n, (unsigned char *)out};
    r.end = fn(&c);
    r.used = (size_t)((const char *)c.p - in - 2);
    r.made = (size_t)((char *)c.out - out);
    assert_true(r.used <= raw.n && r.made <= r.used);
    memcpy(r.out, out, r.made);
    free(in);
    free(out);
    return r;
}

static enum text_end all_agree(struct str raw)
{
    struct version v[3];
    size_t n = versions(v);
    struct result want = run(v[0].fn, raw);
    for (size_t i = 1; i < n; i++) {
        struct result got = run(v[i].fn, raw);
        if (got.end != want.end)
            fail_msg("%s says %d, portable %d, for \"%.*s\"", v[i].name, (int)got.end, (int)want.end, STR_ARG(raw));
        if (want.end == TEXT_OK) {
            assert_int_equal(got.used, want.used);
            assert_int_equal(got.made, want.made);
            assert_memory_equal(got.out, want.out, want.made);
        }
    }
    return want.end;
}

static void random_strings_decode_alike(void **state)
{
    (void)state;
    static const char *const bits[] = {"a",
                                       "bc",
                                       "the quick brown fox jumps over it",
                                       "\\n",
                                       "\\\\",
                                       "\\\"",
                                       "\\u00e9",
                                       "\\ud83d\\ude00",
                                       "\\u4e2d",
                                       "é",
                                       "中",
                                       "文字",
                                       "😀",
                                       "ÿ",
                                       "ࠀ",
                                       "\"",
                                       "\x1f",
                                       "\x7f",
                                       "\\ud800",
                                       "\\x",
                                       "\xff",
                                       "\xe4\xb8",
                                       "\xed\xa0\x80",
                                       " ",
                                       "\\u12"};
    struct rng r;
    rng_init(&r, 1);
    unsigned ok = 0;
    for (int i = 0; i < 200000; i++) {
        char text[480];
        size_t n = 0, pieces = rng_below(&r, 30), good = rng_below(&r, 4) ? 15 : ARRAY_LEN(bits);
        for (size_t k = 0; k < pieces; k++) {
            const char *b = bits[rng_below(&r, good)];
            if (n + strlen(b) > 400)
                break;
            memcpy(text + n, b, strlen(b));
            n += strlen(b);
        }
        text[n++] = '"';
        for (size_t pad = rng_below(&r, 70); pad; pad--)
            text[n++] = (char)rng_below(&r, 256);
        ok += all_agree((struct str){text, n - (i % 7 == 0 ? MIN(n, 72) : 0)}) == TEXT_OK;
    }
    assert_true(ok > 100000);
}

/* A sequence in plain or non-ASCII surroundings, at every offset within a block. */
static void judge(const unsigned char *seq, size_t n, unsigned where)
{
    char text[120];
    size_t at = where % 40;
    memset(text, 'a', sizeof(text));
    if (where & 1)
        memcpy(text, "é", 2);
    at = MAX(at, 2u);
    memcpy(text + at, seq, n);
    text[at + n + where % 50] = '"';
    struct str inside = {text, at + n + where % 50};
    struct str raw = {text, where % 3 ? sizeof(text) : inside.n + 1};
    enum text_end want = utf8_valid(inside) ? TEXT_OK : TEXT_UTF8;
    assert_int_equal(all_agree(raw), want);
}

static void every_utf8_sequence_is_judged_right(void **state)
{
    (void)state;
    unsigned where = 0;
    for (unsigned a = 0x80; a < 0x100; a++) {
        for (unsigned b = 0x23; b < 0x100; b += b < 0x7f ? 92 : 1) {
            judge((unsigned char[]){(unsigned char)a, (unsigned char)b}, 2, where++);
            static const unsigned char third[] = {'a', 0x7f, 0x80, 0x9f, 0xbf, 0xc0, 0xe4, 0xff};
            for (size_t k = 0; a >= 0xe0 && k < sizeof(third); k++) {
                judge((unsigned char[]){(unsigned char)a, (unsigned char)b, third[k]}, 3, where++);
                for (size_t m = 0; a >= 0xf0 && m < sizeof(third); m++)
                    judge((unsigned char[]){(unsigned char)a, (unsigned char)b, third[k], third[m]}, 4, where++);
            }
        }
    }
}

static void long_text_is_copied_in_full(void **state)
{
    (void)state;
    char text[512];
    for (size_t n = 0; n < 300; n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + i % 26);
        text[n] = '"';
        struct result r = run(text_copy_best(), (struct str){text, n + 1});
        assert_int_equal(r.end, TEXT_OK);
        assert_int_equal(r.made, n);
        assert_memory_equal(r.out, text, n);
        assert_int_equal(all_agree((struct str){text, n + 1}), TEXT_OK);
        assert_int_equal(all_agree((struct str){text, n}), TEXT_OPEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_strings_decode_alike),
        cmocka_unit_test(every_utf8_sequence_is_judged_right),
        cmocka_unit_test(long_text_is_copied_in_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
