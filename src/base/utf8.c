/* base/utf8.c - UTF-8 by the table of RFC 3629 section 4. */
#include "base/utf8.h"

static bool is_tail(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

static size_t three(const unsigned char *u, const char *p)
{
    unsigned low = u[0] == 0xe0 ? 0xa0 : 0x80, high = u[0] == 0xed ? 0x9f : 0xbf;
    return u[1] >= low && u[1] <= high && is_tail(p[2]) ? 3 : 0;
}

static size_t four(const unsigned char *u, const char *p)
{
    unsigned low = u[0] == 0xf0 ? 0x90 : 0x80, high = u[0] == 0xf4 ? 0x8f : 0xbf;
    return u[1] >= low && u[1] <= high && is_tail(p[2]) && is_tail(p[3]) ? 4 : 0;
}

size_t utf8_char_len(const char *p, const char *end)
{
    const unsigned char *u = (const unsigned char *)p;
    ptrdiff_t left = end - p;
    if (left <= 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    if (u[0] >= 0xc2 && u[0] <= 0xdf)
        return left >= 2 && is_tail(p[1]) ? 2 : 0;
    if (u[0] >= 0xe0 && u[0] <= 0xef)
        return left >= 3 ? three(u, p) : 0;
    if (u[0] >= 0xf0 && u[0] <= 0xf4)
        return left >= 4 ? four(u, p) : 0;
    return 0;
}

static const char *skip_ascii(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t w;
        memcpy(&w, p, sizeof(w));
        if (w & 0x8080808080808080ull)
            break;
        p += 8;
    }
    while (p < end && (unsigned char)*p < 0x80)
        p++;
    return p;
}

const char *utf8_skip_high(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p >= 0x80) {
        size_t n = utf8_char_len(p, end);
        if (n == 0)
            return NULL;
        p += n;
    }
    return p;
}

bool utf8_valid(struct str s)
{
    if (s.n == 0)
        return true;
    const char *p = s.p, *end = s.p + s.n;
    while (p && p < end) {
        p = skip_ascii(p, end);
        p = utf8_skip_high(p, end);
    }
    return p != NULL;
}

size_t utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        cp = 0xfffd;
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}
