/* body.c - request bodies: one buffer each, grown as bytes arrive, counted against the gateway's total; recycled by
 * size class. */
#include "proxy/impl.h"

#include <malloc.h>
#include <stdlib.h>

#define TRIM_AFTER    (4 << 20) /* bytes of buffers given back to malloc */
#define TRIM_EVERY_US 1000000
#define TRUST_AFTER   (32 << 10)

static const size_t class_size[4] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};
static const unsigned class_keep[4] = {8, 8, 4, 4};

static int class_of(size_t n)
{
    for (int i = 0; i < 4; i++)
        if (n <= class_size[i])
            return i;
    return -1;
}

static char *take_buffer(struct worker *w, size_t *cap)
{
    int i = class_of(*cap);
    if (i < 0)
        return malloc(*cap);
    *cap = class_size[i];
    if (w->bodies.size_class[i].n)
        return w->bodies.size_class[i].v[--w->bodies.size_class[i].n];
    return malloc(*cap);
}

static void give_buffer(struct worker *w, char *p, size_t cap)
{
    int i = class_of(cap);
    if (p && i >= 0 && cap == class_size[i] && w->bodies.size_class[i].n < class_keep[i]) {
        w->bodies.size_class[i].v[w->bodies.size_class[i].n++] = p;
    } else if (p) {
        free(p);
        w->freed += cap;
    }
}

/* What long-lived requests allocated between bodies keeps the bodies' memory from going back by itself: their pages are
 * given back at ease. (A mapping for each body would do so at once, and cost a large body half as much again.) */
void body_trim(struct worker *w, uint64_t now_us)
{
    if (w->freed < TRIM_AFTER || now_us < w->trimmed_us + TRIM_EVERY_US)
        return;
    w->freed = 0;
    w->trimmed_us = now_us;
    malloc_trim(1 << 20);
}

static bool count(struct gateway *g, size_t more)
{
    size_t had = atomic_fetch_add_explicit(&g->body_bytes, more, memory_order_relaxed);
    if (had + more <= g->o.max_body_total)
        return true;
    atomic_fetch_sub_explicit(&g->body_bytes, more, memory_order_relaxed);
    return false;
}

static enum body_result regrow(struct worker *w, struct body *b, size_t cap)
{
    size_t real = cap;
    char *p = class_of(cap) >= 0 || class_of(b->cap) >= 0 ? take_buffer(w, &real) : NULL;
    if (real > b->cap && !count(w->g, real - b->cap)) {
        give_buffer(w, p, real);
        return BODY_NO_MEMORY;
    }
    bool moved = p != NULL;
    if (!moved)
        p = realloc(b->p, real); /* large ones are moved by the kernel without copying */
    if (!p) {
        atomic_fetch_sub_explicit(&w->g->body_bytes, real - b->cap, memory_order_relaxed);
        return BODY_NO_MEMORY;
    }
    if (moved && b->n)
        memcpy(p, b->p, b->n);
    if (moved)
        give_buffer(w, b->p, b->cap);
    b->p = p;
    b->cap = real;
    return BODY_OK;
}

enum body_result body_reserve(struct worker *w, struct body *b, size_t more, size_t expect)
{
    size_t need = b->n + more, max = w->g->o.max_body;
    if (need > max)
        return BODY_TOO_LARGE;
    if (need <= b->cap)
        return BODY_OK;
    size_t cap = b->cap ? b->cap * 4 : class_size[0];
    cap = MAX(cap, need);
    if (expect && b->n >= TRUST_AFTER) /* has sent enough to be believed for one large buffer: no further copies */
        cap = MAX(cap, class_size[3]);
    if (expect)
        cap = MAX(MIN(cap, expect), need);
    return regrow(w, b, MIN(cap, max));
}

enum body_result body_add(struct worker *w, struct body *b, struct str data, size_t expect)
{
    enum body_result r = body_reserve(w, b, data.n, expect);
    if (r != BODY_OK || !data.n)
        return r;
    memcpy(b->p + b->n, data.p, data.n);
    b->n += data.n;
    return BODY_OK;
}

void body_fit(struct worker *w, struct body *b, struct iovec *spans, int n)
{
    size_t cap = MAX(b->n, (size_t)1);
    if (!b->p || b->cap < cap + cap / 4 + 1024)
        return;
    char *p = malloc(cap);
    if (!p)
        return; /* then it stays where it is */
    memcpy(p, b->p, b->n);
    for (int i = 0; i < n; i++) {
        uintptr_t at = (uintptr_t)spans[i].iov_base, from = (uintptr_t)b->p;
        if (at >= from && at < from + b->cap)
            spans[i].iov_base = p + (at - from);
    }
    atomic_fetch_sub_explicit(&w->g->body_bytes, b->cap - cap, memory_order_relaxed);
    give_buffer(w, b->p, b->cap);
    b->p = p;
    b->cap = cap;
}

void body_free(struct worker *w, struct body *b)
{
    if (!b->p)
        return;
    atomic_fetch_sub_explicit(&w->g->body_bytes, b->cap, memory_order_relaxed);
    give_buffer(w, b->p, b->cap);
    *b = (struct body){0};
}

void body_cache_free(struct body_cache *c)
{
    for (int i = 0; i < 4; i++)
        while (c->size_class[i].n)
            free(c->size_class[i].v[--c->size_class[i].n]);
}
