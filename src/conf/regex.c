/* conf/regex.c - PCRE2 behind conf/regex.h. */
#include "conf/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

/* One step is a few nanoseconds: the worst match ends after about a millisecond, ordinary ones take tens of steps. */
#define MATCH_STEPS 100000
#define HEAP_KB     1024
#define PARENS_DEEP 50

struct conf_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

static pcre2_code *compile(struct str pattern, int *code, PCRE2_SIZE *at)
{
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    CHECK(c);
    pcre2_set_parens_nest_limit(c, PARENS_DEEP);
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n,
                      PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C, code, at, c);
    pcre2_compile_context_free(c);
    return re;
}

struct conf_regex *regex_new(struct str pattern, struct errbuf *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    if (pattern.n > REGEX_MAX_PATTERN) {
        err_set(err, "the regular expression is longer than %d bytes", REGEX_MAX_PATTERN);
        return NULL;
    }
    pcre2_code *re = compile(pattern, &code, &at);
    if (!re) {
        char text[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        err_set(err, "\"" STR_FMT "\" is no regular expression: %s at offset %zu", STR_ARG(str_first(pattern, 200)),
                text, at);
        return NULL;
    }
    struct conf_regex *r = xcalloc(1, sizeof *r);
    r->code = re;
    r->limits = pcre2_match_context_create(NULL);
    CHECK(r->limits);
    pcre2_set_match_limit(r->limits, MATCH_STEPS);
    pcre2_set_depth_limit(r->limits, MATCH_STEPS);
    pcre2_set_heap_limit(r->limits, HEAP_KB);
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without JIT the interpreter matches, within the same limits */
    return r;
}

void regex_free(struct conf_regex *re)
{
    if (!re)
        return;
    pcre2_match_context_free(re->limits);
    pcre2_code_free(re->code);
    free(re);
}

bool regex_match(const struct conf_regex *re, struct str value)
{
    if (value.n > REGEX_MAX_VALUE)
        return false;
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    CHECK(m);
    int n = pcre2_match(re->code, (PCRE2_SPTR)(value.p ? value.p : ""), value.n, 0, 0, m, re->limits);
    pcre2_match_data_free(m);
    return n >= 0;
}
