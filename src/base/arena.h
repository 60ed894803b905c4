/* base/arena.h - bump allocation for things that die together (a request, a configuration snapshot).
 *
 * Blocks come from malloc; arena_reset keeps the first block, arena_free releases all. Allocation aborts when memory is
 * exhausted; bound what you put in. 16-byte alignment. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/str.h"

struct arena_block;
struct arena {
    struct arena_block *head; /* newest block */
    size_t block_size;        /* size of ordinary blocks */
    size_t used;              /* bytes handed out since the last reset */
};

void arena_init(struct arena *a, size_t block_size);
void *arena_alloc(struct arena *a, size_t n);  /* uninitialised */
void *arena_zalloc(struct arena *a, size_t n); /* zeroed */
char *arena_strdup(struct arena *a, struct str s); /* NUL-terminated copy */
struct str arena_str(struct arena *a, struct str s); /* copy as a span (also NUL-terminated) */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
void arena_reset(struct arena *a);
void arena_free(struct arena *a);

#endif
