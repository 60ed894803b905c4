/* api/text_impl.h - what the versions of text_copy share: escapes, single UTF-8 sequences, the byte-wise tail. Internal
 * to api. */
#ifndef API_TEXT_IMPL_H
#define API_TEXT_IMPL_H

#include "api/text.h"
#include "base/utf8.h"

/* Decoded byte of a two-character escape; 0: none such (or \u). */
static const unsigned char text_escapes[256] = {
    ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};

/* \uXXXX at p (the backslash), maybe a pair. Out of line: see text_unicode. */
enum text_end text_unicode(struct text_cur *c);

/* At a backslash. */
static inline enum text_end text_escape(struct text_cur *c)
{
    if (UNLIKELY(c->end - c->p < 2))
        return TEXT_ESCAPE;
    unsigned char d = text_escapes[c->p[1]];
    if (UNLIKELY(!d)) {
        struct text_cur t = *c; /* a copy, so that c itself may stay in registers */
        enum text_end e = text_unicode(&t);
        *c = t;
        return e;
    }
    *c->out++ = d;
    c->p += 2;
    return TEXT_OK;
}

static inline bool text_is_cont(unsigned char b)
{
    return (b & 0xC0) == 0x80;
}

/* Length of the well-formed sequence at p (p[0] >= 0x80), 0 when it is none: RFC 3629, Table 3-7 of Unicode. */
static inline size_t text_seq(const unsigned char *p, size_t left)
{
    unsigned char a = p[0];
    if (left < 2 || a < 0xC2 || a > 0xF4 || !text_is_cont(p[1]))
        return 0;
    if (a < 0xE0)
        return 2;
    if (left < 3 || !text_is_cont(p[2]))
        return 0;
    if (a < 0xF0)
        return (a == 0xE0 && p[1] < 0xA0) || (a == 0xED && p[1] > 0x9F) ? 0 : 3;
    if (left < 4 || !text_is_cont(p[3]))
        return 0;
    return (a == 0xF0 && p[1] < 0x90) || (a == 0xF4 && p[1] > 0x8F) ? 0 : 4;
}

/* A run of non-ASCII at p: copies it. False on a bad sequence, p at it. */
static inline bool text_high_run(struct text_cur *c)
{
    while (c->p < c->end && *c->p >= 0x80) {
        size_t n = text_seq(c->p, (size_t)(c->end - c->p));
        if (!n)
            return false;
        for (size_t i = 0; i < n; i++)
            c->out[i] = c->p[i];
        c->p += n;
        c->out += n;
    }
    return true;
}

/* Byte by byte to the end of the string: tails of the fast versions. p is at a sequence boundary. */
static inline enum text_end text_copy_bytes(struct text_cur *c)
{
    while (c->p < c->end) {
        unsigned char b = *c->p;
        if (b == '"')
            return TEXT_OK;
        if (b < 0x20)
            return TEXT_CONTROL;
        if (b == '\\') {
            enum text_end e = text_escape(c);
            if (e != TEXT_OK)
                return e;
        } else if (b >= 0x80) {
            if (!text_high_run(c))
                return TEXT_UTF8;
        } else {
            *c->out++ = b;
            c->p++;
        }
    }
    return TEXT_OPEN;
}

#endif
