/* vectors.h - reads the case files of tests/vectors/h1_*.txt (their format is described in h1_requests.txt). For tests
 * only: a malformed file ends the program. */
#ifndef TEST_HTTP_VECTORS_H
#define TEST_HTTP_VECTORS_H

#include "base/str.h"

struct vector {
    char *name;
    char *in;
    size_t in_n;
    char *expect; /* the last line, escapes not yet resolved */
};

struct vectors {
    struct vector *v;
    size_t n;
};

struct vectors vectors_load(const char *path);
void vectors_free(struct vectors *vs);

/* The words of an expectation. Returns false after the last one; otherwise the key and its value with escapes resolved
 * ("" when the word has no '='). *at starts as v->expect. */
struct vector_word {
    char key[80], value[400];
    size_t value_n;
};
bool vector_next(const char **at, struct vector_word *w);
/* The value of a key as a number, or `otherwise`. */
size_t vector_number(const struct vector *v, const char *key, size_t otherwise);
bool vector_is(const struct vector *v, const char *outcome); /* the first word */

#endif
