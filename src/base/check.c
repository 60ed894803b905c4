/* base/check.c - the always-on check, and allocation that cannot fail.
 *
 * The one place of base that writes to a file descriptor: a broken invariant must be seen even before log_setup. */
#include "base/compiler.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "penstock: check failed: %s (%s:%d)\n", cond, file, line);
    fflush(stderr);
    abort();
}

NORETURN static void out_of_memory(size_t n)
{
    fprintf(stderr, "penstock: out of memory (%zu bytes)\n", n);
    fflush(stderr);
    abort();
}

void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    void *p = n && size ? calloc(n, size) : calloc(1, 1);
    if (!p)
        out_of_memory(n * size);
    return p;
}

void *xrealloc(void *p, size_t n)
{
    void *q = realloc(p, n ? n : 1);
    if (!q)
        out_of_memory(n);
    return q;
}
