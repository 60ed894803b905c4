/* base/buf.c - growable byte buffer with a maximum. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

#define BUF_MIN_CAP 64

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_free(struct buf *b)
{
    free(b->p);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->off = b->n = 0;
    b->overflow = false;
}

static void compact(struct buf *b)
{
    if (b->off == 0)
        return;
    memmove(b->p, b->p + b->off, b->n);
    b->off = 0;
}

/* Largest useful allocation: half as much again as max, so that a full buffer whose front is consumed in small pieces
 * moves its bytes once per max/2 consumed, and one byte for buf_cstr. */
static size_t cap_limit(const struct buf *b)
{
    size_t limit;
    if (__builtin_add_overflow(b->max, b->max / 2 + 1, &limit))
        return SIZE_MAX;
    return limit;
}

/* Makes room for n more bytes and one NUL behind the live ones; b->n + n is known to be within max. */
static void make_room(struct buf *b, size_t n)
{
    size_t need = b->n + n + 1;
    CHECK(need > n);
    if (b->cap - b->off >= need)
        return;
    if (b->cap >= need && b->off >= b->n / 2) {
        compact(b);
        return;
    }
    size_t limit = cap_limit(b), cap = MAX(b->cap, BUF_MIN_CAP);
    while (cap < need + b->off && cap < limit)
        cap = cap > limit / 2 ? limit : cap * 2;
    if (cap < need + b->off)
        compact(b);
    if (cap <= b->cap)
        return;
    b->p = xrealloc(b->p, cap);
    b->cap = cap;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (n > b->max - b->n) {
        b->overflow = true;
        return NULL;
    }
    make_room(b, n);
    return b->p + b->off + b->n;
}

void buf_commit(struct buf *b, size_t n)
{
    CHECK(n <= b->max - b->n && b->n + n < b->cap - b->off);
    b->n += n;
}

bool buf_add(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return true;
    char *to = buf_reserve(b, n);
    if (!to)
        return false;
    memcpy(to, p, n);
    b->n += n;
    return true;
}

bool buf_add_str(struct buf *b, struct str s)
{
    return buf_add(b, s.p, s.n);
}

bool buf_addf(struct buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int len = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    CHECK(len >= 0);
    size_t n = (size_t)len;
    bool ok;
    if (n < sizeof(small)) {
        ok = buf_add(b, small, n);
    } else {
        char *to = buf_reserve(b, n); /* make_room left one byte for the NUL */
        ok = to != NULL;
        if (ok) {
            vsnprintf(to, n + 1, fmt, again);
            b->n += n;
        }
    }
    va_end(again);
    return ok;
}

void buf_consume(struct buf *b, size_t n)
{
    CHECK(n <= b->n);
    b->n -= n;
    b->off = b->n ? b->off + n : 0;
}

const char *buf_cstr(struct buf *b)
{
    make_room(b, 0);
    b->p[b->off + b->n] = '\0';
    return b->p + b->off;
}
