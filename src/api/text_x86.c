/* JSON string decoding with SSE2 and AVX2: test a block, store it as it is, and only then look at what it held. */
#include "api/text_impl.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* What a block holds at p, the first special byte, p and out already moved to it. Returns TEXT_OK to go on; *done says
 * stop. */
static inline enum text_end special_at(struct text_cur *c, bool *done)
{
    unsigned char b = *c->p;
    *done = true;
    if (LIKELY(b == '\\')) {
        enum text_end e;
        do
            e = text_escape(c);
        while (e == TEXT_OK && c->p < c->end && *c->p == '\\');
        *done = e != TEXT_OK;
        return e;
    }
    if (b == '"')
        return TEXT_OK;
    return TEXT_CONTROL;
}

enum text_end text_copy_sse2(struct text_cur *cur)
{
    struct text_cur c = *cur; /* in registers: stores to out may alias anything */
    enum text_end e;
    bool done = false;
    const __m128i quote = _mm_set1_epi8('"'), bslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    while (c.end - c.p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)c.p);
        /* signed: below 0x20 are the controls and everything above 0x7F */
        __m128i s =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, bslash)), _mm_cmplt_epi8(v, space));
        unsigned m = (unsigned)_mm_movemask_epi8(s);
        _mm_storeu_si128((__m128i *)(void *)c.out, v);
        if (LIKELY(!m)) {
            c.p += 16;
            c.out += 16;
            continue;
        }
        unsigned at = (unsigned)__builtin_ctz(m);
        c.p += at;
        c.out += at;
        if (*c.p >= 0x80) {
            if (text_high_run(&c))
                continue;
            *cur = c;
            return TEXT_UTF8;
        }
        e = special_at(&c, &done);
        if (done) {
            *cur = c;
            return e;
        }
    }
    e = text_copy_bytes(&c);
    *cur = c;
    return e;
}

/* UTF-8 errors by table: each pair (byte before, byte) is classified by three nibbles; a bit that all three agree on is
 * an error. CONTS is no error by itself: a second continuation in a row must stand exactly where a 3- or 4-byte
 * sequence wants one. */
enum {
    SHORT = 1,   /* lead, then no continuation */
    LONG = 2,    /* ASCII, then a continuation */
    OVER2 = 4,   /* C0, C1 */
    OVER3 = 8,   /* E0 80..9F */
    SURR = 16,   /* ED A0..BF */
    LARGE = 32,  /* F4 90..BF, F5.. 90..BF */
    F_80 = 64,   /* F0 80..8F, F5.. 80..8F */
    CONTS = 128, /* continuation, continuation */
    ANY = SHORT | LONG | CONTS
};

#define ROW(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))
#define B(x)     (char)(x)

/* Nonzero bytes where the sequence that covers the pair is wrong. p[-3..-1] must be readable. */
__attribute__((target("avx2,bmi"))) static inline __m256i utf8_errors(const unsigned char *p, __m256i v)
{
    const __m256i before_high = ROW(LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG, B(CONTS), B(CONTS), B(CONTS),
                                    B(CONTS), SHORT | OVER2, SHORT, SHORT | OVER3 | SURR, SHORT | LARGE | F_80);
    const __m256i before_low =
        ROW(B(ANY | OVER2 | OVER3 | F_80), B(ANY | OVER2), B(ANY), B(ANY), B(ANY | LARGE), B(ANY | LARGE | F_80),
            B(ANY | LARGE | F_80), B(ANY | LARGE | F_80), B(ANY | LARGE | F_80), B(ANY | LARGE | F_80),
            B(ANY | LARGE | F_80), B(ANY | LARGE | F_80), B(ANY | LARGE | F_80), B(ANY | LARGE | F_80 | SURR),
            B(ANY | LARGE | F_80), B(ANY | LARGE | F_80));
    const __m256i this_high =
        ROW(SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, B(LONG | OVER2 | CONTS | OVER3 | F_80),
            B(LONG | OVER2 | CONTS | OVER3 | LARGE), B(LONG | OVER2 | CONTS | SURR | LARGE),
            B(LONG | OVER2 | CONTS | SURR | LARGE), SHORT, SHORT, SHORT, SHORT);
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    __m256i p1 = _mm256_loadu_si256((const __m256i *)(const void *)(p - 1));
    __m256i p2 = _mm256_loadu_si256((const __m256i *)(const void *)(p - 2));
    __m256i p3 = _mm256_loadu_si256((const __m256i *)(const void *)(p - 3));
    __m256i a = _mm256_shuffle_epi8(before_high, _mm256_and_si256(_mm256_srli_epi16(p1, 4), nibble));
    __m256i b = _mm256_shuffle_epi8(before_low, _mm256_and_si256(p1, nibble));
    __m256i c = _mm256_shuffle_epi8(this_high, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
    __m256i third = _mm256_subs_epu8(p2, _mm256_set1_epi8(B(0xE0 - 0x80))); /* top bit: two after a lead of 3 or 4 */
    __m256i fourth = _mm256_subs_epu8(p3, _mm256_set1_epi8(B(0xF0 - 0x80)));
    __m256i want = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(B(0x80)));
    return _mm256_xor_si256(_mm256_and_si256(_mm256_and_si256(a, b), c), want);
}

/* Moves back to the start of a sequence that p stands in the middle of (all before it was checked). */
static inline void to_boundary(struct text_cur *c)
{
    for (int k = 1; k <= 3; k++) {
        unsigned char b = c->p[-k];
        if (b < 0x80)
            return;
        if (b >= 0xC0) {
            int len = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
            if (len > k) {
                c->p -= k;
                c->out -= k;
            }
            return;
        }
    }
}

static inline bool one_high(struct text_cur *c)
{
    size_t n = text_seq(c->p, (size_t)(c->end - c->p));
    for (size_t i = 0; i < n; i++)
        c->out[i] = c->p[i];
    c->p += n;
    c->out += n;
    return n != 0;
}

/* Text with non-ASCII in it: block by block until a block is plain ASCII, a special byte comes or the input gets short.
 * False: bad UTF-8. Otherwise p is at a sequence boundary. The caller has copied one sequence before, so three bytes
 * before p are ours. */
__attribute__((target("avx2,bmi"))) static bool high_blocks(struct text_cur *cur)
{
    struct text_cur c = *cur;
    const __m256i quote = _mm256_set1_epi8('"'), bslash = _mm256_set1_epi8('\\'), ctl = _mm256_set1_epi8(0x1F);
    while (c.end - c.p >= 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)c.p);
        __m256i s = _mm256_or_si256(_mm256_or_si256(_mm256_cmpeq_epi8(v, quote), _mm256_cmpeq_epi8(v, bslash)),
                                    _mm256_cmpeq_epi8(_mm256_min_epu8(v, ctl), v));
        uint64_t m = (uint32_t)_mm256_movemask_epi8(s);
        uint32_t high = (uint32_t)_mm256_movemask_epi8(v);
        __m256i err = utf8_errors(c.p, v);
        uint32_t ok = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(err, _mm256_setzero_si256()));
        unsigned at = (unsigned)__builtin_ctzll(m | 1ull << 32); /* 32: no special byte */
        uint64_t upto = (2ull << at) - 1; /* the special byte itself tells of a sequence cut short */
        if (UNLIKELY((uint64_t)~ok & upto & 0xFFFFFFFFu)) {
            *cur = c;
            return false;
        }
        _mm256_storeu_si256((__m256i *)(void *)c.out, v);
        c.p += at;
        c.out += at;
        if (at < 32 || !high)
            break;
    }
    to_boundary(&c);
    *cur = c;
    return true;
}

__attribute__((target("avx2,bmi"))) enum text_end text_copy_avx2(struct text_cur *cur)
{
    struct text_cur c = *cur;
    enum text_end e;
    bool done = false;
    const __m256i quote = _mm256_set1_epi8('"'), bslash = _mm256_set1_epi8('\\'), space = _mm256_set1_epi8(0x20);
    while (c.end - c.p >= 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)c.p);
        __m256i s = _mm256_or_si256(_mm256_or_si256(_mm256_cmpeq_epi8(v, quote), _mm256_cmpeq_epi8(v, bslash)),
                                    _mm256_cmpgt_epi8(space, v));
        uint32_t m = (uint32_t)_mm256_movemask_epi8(s);
        _mm256_storeu_si256((__m256i *)(void *)c.out, v);
        if (LIKELY(!m)) {
            c.p += 32;
            c.out += 32;
            continue;
        }
        unsigned at = (unsigned)__builtin_ctz(m);
        c.p += at;
        c.out += at;
        if (*c.p >= 0x80) {
            struct text_cur t = c; /* a copy, so that c itself may stay in registers */
            bool ok = one_high(&t) && high_blocks(&t);
            c = t;
            if (ok)
                continue;
            *cur = c;
            return TEXT_UTF8;
        }
        e = special_at(&c, &done);
        if (done) {
            *cur = c;
            return e;
        }
    }
    e = text_copy_bytes(&c);
    *cur = c;
    return e;
}
#endif
