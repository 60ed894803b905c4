/* base/buf.h - growable byte buffer with a maximum.
 *
 * Owner: whoever embeds it; buf_free releases the memory. Zero-initialised plus buf_init gives an empty buffer without
 * allocation. Appends that would pass `max` append nothing and return false (and set `overflow`, so a writer may check once
 * at the end). Bytes are consumed from the front with buf_consume. Not thread-safe. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/str.h"
#include <stdarg.h>

struct buf {
    char *p;     /* allocation */
    size_t off;  /* first live byte */
    size_t n;    /* live bytes */
    size_t cap;  /* size of the allocation */
    size_t max;  /* bound on n */
    bool overflow;
};

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);   /* releases memory; the buffer is empty and usable again with the same max */
void buf_clear(struct buf *b);  /* empties, keeps the allocation, clears overflow */
bool buf_add(struct buf *b, const void *p, size_t n);
bool buf_add_str(struct buf *b, struct str s);
bool buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
char *buf_reserve(struct buf *b, size_t n); /* room for n more bytes at the end, NULL when that would pass max */
void buf_commit(struct buf *b, size_t n);   /* n of the reserved bytes were written */
void buf_consume(struct buf *b, size_t n);  /* drops n bytes from the front */
static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->p ? b->p + b->off : NULL, b->n};
}
const char *buf_cstr(struct buf *b); /* NUL-terminates behind the live bytes; valid until the next change */

#endif
