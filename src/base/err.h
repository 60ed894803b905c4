/* base/err.h - errors for people: one complete sentence. Functions that take a `struct errbuf *` accept NULL. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/compiler.h"

struct errbuf {
    char msg[512];
};

/* Writes the sentence (truncating) and returns -1, so that `return err_set(err, ...)` reads well. */
int err_set(struct errbuf *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
