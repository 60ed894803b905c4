/* Shared by the api tests: vectors with \xNN bytes, exact-size copies (so that a sanitizer sees an over-read), parsing.
 */
#ifndef TESTS_API_COMMON_H
#define TESTS_API_COMMON_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "api/api.h"

/* In place: \xNN becomes the byte; with `all` also \n \t \\. Returns the length. */
static inline size_t undo_escapes(char *s, bool all)
{
    char *w = s;
    for (const char *p = s; *p;) {
        if (p[0] == '\\' && p[1] == 'x' && p[2] && p[3]) {
            char hex[3] = {p[2], p[3], 0};
            *w++ = (char)strtoul(hex, NULL, 16);
            p += 4;
        } else if (all && p[0] == '\\' && p[1]) {
            *w++ = p[1] == 'n' ? '\n' : p[1] == 't' ? '\t' : p[1];
            p += 2;
        } else {
            *w++ = *p++;
        }
    }
    *w = 0;
    return (size_t)(w - s);
}

static inline char *exact_copy(struct str s)
{
    char *p = malloc(s.n ? s.n : 1);
    if (!p)
        abort();
    if (s.n)
        memcpy(p, s.p, s.n);
    return p;
}

/* One parse with everything it needs. */
struct parsed {
    char *body;
    struct str text;
    struct buf scratch;
    struct api_request rq;
    struct api_error e;
    int rc;
};

static inline void parse_max(struct parsed *p, enum api_kind kind, struct str body, size_t max)
{
    memset(p, 0, sizeof(*p));
    p->body = exact_copy(body);
    p->text = (struct str){p->body, body.n};
    buf_init(&p->scratch, max);
    p->rc = api_parse_request(kind, p->text, &p->scratch, &p->rq, &p->e);
}
static inline void parse(struct parsed *p, enum api_kind kind, struct str body)
{
    parse_max(p, kind, body, 64 << 20);
}
static inline void parsed_free(struct parsed *p)
{
    free(p->body);
    buf_free(&p->scratch);
}

static inline enum api_kind kind_of(const char *name)
{
    for (int k = 0; k < API_N_KINDS; k++)
        if (strcmp(api_kind_name((enum api_kind)k), name) == 0)
            return (enum api_kind)k;
    fail_msg("unknown kind %s", name);
    return API_OTHER;
}

static inline void assert_str(struct str got, const char *want)
{
    if (!str_eq_c(got, want))
        fail_msg("got \"%.*s\", want \"%s\"", STR_ARG(got), want);
}

#endif
