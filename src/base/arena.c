/* base/arena.c - bump allocation for things that die together. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ARENA_ALIGN 16u

struct arena_block {
    struct arena_block *next; /* older */
    size_t cap, used;
    _Alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a, size_t block_size)
{
    *a = (struct arena){.block_size = MAX(block_size, 64u)};
}

static struct arena_block *block_new(size_t cap)
{
    CHECK(cap <= SIZE_MAX / 2);
    struct arena_block *b = xmalloc(sizeof(*b) + cap);
    b->next = NULL;
    b->cap = cap;
    b->used = 0;
    return b;
}

/* A block with room for n bytes. A large one gets a block of its own behind the head, which stays in use. */
static struct arena_block *block_for(struct arena *a, size_t n)
{
    struct arena_block *head = a->head;
    if (head && head->cap - head->used >= n)
        return head;
    struct arena_block *b = block_new(MAX(n, a->block_size));
    if (head && n > a->block_size) {
        b->next = head->next;
        head->next = b;
    } else {
        b->next = head;
        a->head = b;
    }
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    CHECK(n <= SIZE_MAX / 4);
    size_t size = (MAX(n, 1u) + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_block *b = block_for(a, size);
    char *p = b->data + b->used;
    b->used += size;
    a->used += size;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    return memset(arena_alloc(a, n), 0, n);
}

char *arena_strdup(struct arena *a, struct str s)
{
    char *d = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(d, s.p, s.n);
    d[s.n] = '\0';
    return d;
}

struct str arena_str(struct arena *a, struct str s)
{
    return (struct str){arena_strdup(a, s), s.n};
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    CHECK(fmt);
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(len >= 0);
    char *d = arena_alloc(a, (size_t)len + 1);
    vsnprintf(d, (size_t)len + 1, fmt, again);
    va_end(again);
    return d;
}

/* The block that survives a reset: the oldest, unless it was made for one large allocation. */
static struct arena_block *block_to_keep(const struct arena *a)
{
    struct arena_block *keep = NULL;
    for (struct arena_block *b = a->head; b; b = b->next)
        if (b->cap <= a->block_size)
            keep = b;
    return keep;
}

static void free_blocks(struct arena *a, const struct arena_block *keep)
{
    for (struct arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (b != keep)
            free(b);
    }
}

void arena_reset(struct arena *a)
{
    struct arena_block *keep = block_to_keep(a);
    free_blocks(a, keep);
    a->head = keep;
    a->used = 0;
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
}

void arena_free(struct arena *a)
{
    free_blocks(a, NULL);
    a->head = NULL;
    a->used = 0;
}
