/* The request scanner's engine: errors, room for the stream, strings, numbers, stepping through objects and arrays. */
#include "api/scan.h"
#include <stdarg.h>
#include <stdio.h>

bool scan_fail(struct scan *s, const char *code, const char *at, const char *fmt, ...)
{
    char what[140];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    s->e->status = 400;
    s->e->code = code;
    snprintf(s->e->msg, sizeof(s->e->msg), "%s (byte %zu of the request body).", what, (size_t)(at - s->body));
    return false;
}

bool scan_fail_type(struct scan *s, const char *at, const char *field, const char *want)
{
    return scan_fail(s, "invalid_field", at, "`%s` must be %s", field, want);
}

bool scan_fail_dup(struct scan *s, const char *at, const char *field)
{
    return scan_fail(s, "duplicate_key", at, "The key `%s` stands twice in the same object", field);
}

bool scan_fail_syntax(struct scan *s, const char *want)
{
    if (s->p >= s->end)
        return scan_fail(s, "invalid_json", s->p, "The JSON ends where %s is expected", want);
    return scan_fail(s, "invalid_json", s->p, "Invalid JSON: %s expected", want);
}

bool scan_fail_depth(struct scan *s)
{
    return scan_fail(s, "too_deep", s->p, "The JSON is nested more than %d deep", SCAN_MAX_DEPTH);
}

/* Grows once to what the worst text needs; where the buffer's bound forbids that, the stream ends here. */
bool scan_make_room(struct scan *s, size_t extra)
{
    size_t rest = (size_t)(s->end - s->p) + SCAN_SLACK + extra;
    if (!s->cut) {
        s->scratch->n = s->n;
        char *more = buf_reserve(s->scratch, s->n + 3 * rest);
        if (!more)
            more = buf_reserve(s->scratch, rest);
        if (more) {
            s->out = more - s->n;
            s->cap = MIN(s->scratch->cap - s->scratch->off, s->scratch->max);
            return true;
        }
        s->cut = true;
    }
    s->n = MIN(s->n, s->cap > rest ? s->cap - rest : 0);
    return false;
}

void scan_emit_bytes(struct scan *s, const void *p, size_t n)
{
    scan_room(s, n);
    if (s->cut)
        return;
    memcpy(s->out + s->n, p, n);
    s->n += n;
}

void scan_emit_hash(struct scan *s, uint64_t h)
{
    unsigned char le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (unsigned char)(h >> (8 * i));
    scan_emit_bytes(s, le, sizeof(le));
}

static bool string_error(struct scan *s, enum text_end e)
{
    switch (e) {
    case TEXT_CONTROL:
        return scan_fail(s, "invalid_json", s->p, "Invalid JSON: a control character in a string must be escaped");
    case TEXT_ESCAPE:
        return scan_fail(s, "invalid_json", s->p, "Invalid JSON: unknown escape in a string");
    case TEXT_SURROGATE:
        return scan_fail(s, "invalid_json", s->p, "Invalid JSON: \\u escape is half of a surrogate pair");
    case TEXT_UTF8:
        return scan_fail(s, "invalid_utf8", s->p, "The request body is not valid UTF-8");
    default:
        return scan_fail(s, "invalid_json", s->p, "The JSON ends inside a string");
    }
}

bool scan_string(struct scan *s, struct scan_str *out)
{
    if (UNLIKELY(s->p >= s->end || *s->p != '"'))
        return scan_fail_syntax(s, "a string");
    scan_room(s, 0);
    const char *raw = s->p + 1;
    char *at = s->out + s->n;
    struct text_cur c = {(const unsigned char *)raw, (const unsigned char *)s->end, (unsigned char *)at};
    enum text_end e = s->copy(&c);
    s->p = (const char *)c.p;
    if (UNLIKELY(e != TEXT_OK))
        return string_error(s, e);
    out->raw = (struct str){raw, (size_t)(s->p - raw)};
    out->text = (struct str){at, (size_t)((char *)c.out - at)};
    s->p++;
    return true;
}

static int failed(bool never)
{
    (void)never;
    return -1;
}

int scan_key(struct scan *s, struct scan_str *key, bool *first)
{
    int c = scan_peek(s);
    if (c == '}') {
        s->p++;
        s->depth--;
        return 0;
    }
    if (!*first) {
        if (c != ',')
            return failed(scan_fail_syntax(s, "`,` or `}`"));
        s->p++;
        c = scan_peek(s);
    }
    *first = false;
    if (c != '"')
        return failed(scan_fail_syntax(s, "a key in quotes"));
    if (!scan_string(s, key))
        return -1;
    if (scan_peek(s) != ':')
        return failed(scan_fail_syntax(s, "`:`"));
    s->p++;
    scan_peek(s);
    return 1;
}

int scan_elem(struct scan *s, bool *first)
{
    int c = scan_peek(s);
    if (c == ']') {
        s->p++;
        s->depth--;
        return 0;
    }
    if (*first) {
        *first = false;
        return 1;
    }
    if (c != ',')
        return failed(scan_fail_syntax(s, "`,` or `]`"));
    s->p++;
    if (scan_peek(s) == ']')
        return failed(scan_fail_syntax(s, "a value"));
    return 1;
}

static const char *digits(const char *p, const char *end)
{
    while (p < end && (unsigned char)(*p - '0') < 10)
        p++;
    return p;
}

bool scan_number(struct scan *s, struct str *raw)
{
    const char *p = s->p, *q;
    if (p < s->end && *p == '-')
        p++;
    q = digits(p, s->end);
    bool ok = q > p && (*p != '0' || q == p + 1);
    if (ok && q < s->end && *q == '.') {
        p = q + 1;
        q = digits(p, s->end);
        ok = q > p;
    }
    if (ok && q < s->end && (*q == 'e' || *q == 'E')) {
        p = q + 1;
        if (p < s->end && (*p == '+' || *p == '-'))
            p++;
        q = digits(p, s->end);
        ok = q > p;
    }
    if (!ok)
        return scan_fail(s, "invalid_json", s->p, "Invalid JSON: malformed number");
    *raw = (struct str){s->p, (size_t)(q - s->p)};
    s->p = q;
    return true;
}

bool scan_literal(struct scan *s, enum scan_lit *out)
{
    static const struct str words[] = {{"null", 4}, {"true", 4}, {"false", 5}};
    struct str rest = {s->p, (size_t)(s->end - s->p)};
    for (int i = 0; i < 3; i++) {
        if (str_starts(rest, words[i])) {
            *out = (enum scan_lit)i;
            s->p += words[i].n;
            return true;
        }
    }
    return scan_fail_syntax(s, "a value");
}

struct scan_mark scan_rewind(struct scan *s, struct str value)
{
    struct scan_mark m = {s->p, s->end};
    s->p = value.p;
    s->end = value.p + value.n;
    return m;
}

void scan_resume(struct scan *s, struct scan_mark m)
{
    s->p = m.p;
    s->end = m.end;
    scan_room(s, 0);
}
