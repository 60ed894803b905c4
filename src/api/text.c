/* JSON string decoding: portable version, \u escapes, choice of the version. */
#include "api/text_impl.h"

static int hex4(const unsigned char *p)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned num = p[i] - (unsigned)'0', letter = (p[i] | 0x20u) - 'a';
        if (num > 9 && letter > 5)
            return -1;
        v = v << 4 | (num <= 9 ? num : letter + 10);
    }
    return (int)v;
}

enum text_end text_unicode(struct text_cur *c)
{
    const unsigned char *p = c->p;
    if (p[1] != 'u' || c->end - p < 6)
        return TEXT_ESCAPE;
    int u = hex4(p + 2);
    if (u < 0)
        return TEXT_ESCAPE;
    uint32_t cp = (uint32_t)u;
    size_t used = 6;
    if ((cp & 0xF800) == 0xD800) {
        int lo = cp < 0xDC00 && c->end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8) : -1;
        if (lo < 0xDC00 || lo > 0xDFFF)
            return TEXT_SURROGATE;
        cp = 0x10000 + ((cp & 0x3FF) << 10) + ((uint32_t)lo & 0x3FF);
        used = 12;
    }
    char tmp[4];
    size_t n = utf8_put(cp, tmp);
    memcpy(c->out, tmp, n);
    c->p += used;
    c->out += n;
    return TEXT_OK;
}

/* A bit in the top of each byte that is `"`, `\`, below 0x20 or above 0x7F; exact for "is there any". */
static inline uint64_t specials(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101ull, top = 0x8080808080808080ull;
    uint64_t q = w ^ ones * '"', b = w ^ ones * '\\';
    return ((q - ones) | (b - ones) | (w - ones * 0x20) | w) & top;
}

enum text_end text_copy_portable(struct text_cur *c)
{
    for (;;) {
        while (c->end - c->p >= 8) {
            uint64_t w;
            memcpy(&w, c->p, 8);
            if (specials(w))
                break;
            memcpy(c->out, &w, 8);
            c->p += 8;
            c->out += 8;
        }
        if (c->end - c->p < 8)
            return text_copy_bytes(c);
        for (int i = 0; i < 8; i++) { /* the special byte is within these */
            unsigned char b = *c->p;
            if (b == '"')
                return TEXT_OK;
            if (b < 0x20)
                return TEXT_CONTROL;
            if (b == '\\') {
                enum text_end e = text_escape(c);
                if (e != TEXT_OK)
                    return e;
                break;
            }
            if (b >= 0x80) {
                if (!text_high_run(c))
                    return TEXT_UTF8;
                break;
            }
            *c->out++ = b;
            c->p++;
        }
    }
}

text_copy_fn text_copy_best(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") ? text_copy_avx2 : text_copy_sse2;
#else
    return text_copy_portable;
#endif
}
