/* base/str.h - byte spans. A str never owns its bytes; its life is that of what it points into. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/compiler.h"
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){("" lit), sizeof(lit) - 1}) /* from a string literal */
#define STR_NULL ((struct str){NULL, 0})
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_c(const char *c)
{
    return (struct str){c, c ? strlen(c) : 0};
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_eq_c(struct str a, const char *c)
{
    return str_eq(a, str_c(c));
}
static inline bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
static inline struct str str_from(struct str s, size_t off) /* s without its first `off` bytes */
{
    off = MIN(off, s.n);
    return off ? (struct str){s.p + off, s.n - off} : s;
}
static inline struct str str_first(struct str s, size_t n) /* the first n bytes of s */
{
    return (struct str){s.p, MIN(s.n, n)};
}
bool str_ieq(struct str a, struct str b);          /* ASCII case-insensitive */
bool str_same_name(struct str a, struct str b);    /* the same, and '-' and '_' do not matter: "prefix-cache", "PREFIX_CACHE" */
bool str_ends(struct str s, struct str suffix);
struct str str_trim(struct str s);                 /* without blanks and tabs at both ends */
char *str_dup(struct str s) __attribute__((malloc)); /* heap, NUL-terminated; caller frees */
int str_cmp(struct str a, struct str b);           /* bytewise, shorter first */
ptrdiff_t str_find(struct str s, struct str needle); /* offset or -1 */
/* Whole-string decimal numbers; false (out untouched) on empty, junk, sign or overflow of the type. */
bool str_to_u64(struct str s, uint64_t *out) MUST_USE;
bool str_to_i64(struct str s, int64_t *out) MUST_USE; /* accepts a leading '-' or '+' */
bool str_to_double(struct str s, double *out) MUST_USE; /* finite decimal or Prometheus NaN/+Inf/-Inf */

#endif
