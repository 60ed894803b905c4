/* Request targets: path checks and normal form, prefix match, query parameters. */
#include "http/uri.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The byte that starts at s[i], escapes decoded; *n bytes of s are used. -1 for a broken escape. */
static int byte_at(struct str s, size_t i, size_t *n)
{
    *n = 1;
    if (s.p[i] != '%')
        return (unsigned char)s.p[i];
    if (s.n - i < 3)
        return -1;
    int hi = hex_digit(s.p[i + 1]), lo = hex_digit(s.p[i + 2]);
    *n = 3;
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* The progress of a segment towards "." or "..": what a server behind us that decodes once would climb on. */
struct segment {
    unsigned dots;
    bool other;
};

static bool segment_ok(const struct segment *seg)
{
    return seg->other || seg->dots == 0 || seg->dots > 2;
}

bool uri_path_ok(struct str path)
{
    struct segment seg = {0, false};
    size_t n;
    if (path.n == 0 || path.p[0] != '/')
        return false;
    for (size_t i = 0; i < path.n; i += n) {
        bool plain_high = (unsigned char)path.p[i] >= 0x80;
        int b = byte_at(path, i, &n);
        if (b < 0x20 || b == 0x7f || b == '\\' || plain_high)
            return false;
        if (n == 1 && (b == ' ' || b == '?' || b == '#'))
            return false;
        if (b == '/') { /* plain or escaped */
            if (!segment_ok(&seg))
                return false;
            seg = (struct segment){0, false};
        } else if (b == '.') {
            seg.dots++;
        } else {
            seg.other = true;
        }
    }
    return segment_ok(&seg);
}

size_t uri_unescape(struct str s, char *out)
{
    size_t n, o = 0;
    for (size_t i = 0; i < s.n; i += n) {
        int b = byte_at(s, i, &n);
        if (b < 0)
            n = 1;
        out[o++] = b < 0 ? '%' : (char)b;
    }
    return o;
}

static bool unreserved(int b)
{
    return (b >= '0' && b <= '9') || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || b == '-' || b == '.' ||
           b == '_' || b == '~';
}

static size_t put_escaped(int b, char *out)
{
    static const char hex[] = "0123456789ABCDEF";
    out[0] = '%';
    out[1] = hex[b >> 4];
    out[2] = hex[b & 15];
    return 3;
}

size_t uri_escape_segment(struct str s, char *out)
{
    size_t o = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = (unsigned char)s.p[i];
        if (unreserved(b))
            out[o++] = s.p[i];
        else
            o += put_escaped(b, out + o);
    }
    return o;
}

size_t uri_path_normalise(struct str path, char *out)
{
    size_t n, o = 0;
    for (size_t i = 0; i < path.n; i += n) {
        int b = byte_at(path, i, &n);
        if (b < 0 || n == 1) { /* a broken escape stays as it is */
            n = 1;
            out[o++] = path.p[i];
        } else if (unreserved(b)) {
            out[o++] = (char)b;
        } else {
            o += put_escaped(b, out + o);
        }
    }
    return o;
}

bool uri_prefix_match(struct str path, struct str prefix)
{
    while (prefix.n && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    return str_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/');
}

/* Decodes a part of a query into out; false when it needs more than cap bytes. '+' is a blank; a broken escape is
 * literal. */
static bool decode(struct str s, char *out, size_t cap, struct str *value)
{
    size_t n, o = 0;
    for (size_t i = 0; i < s.n; i += n) {
        int b = byte_at(s, i, &n);
        if (b < 0) {
            b = '%';
            n = 1;
        } else if (n == 1 && b == '+') {
            b = ' ';
        }
        if (o == cap)
            return false;
        out[o++] = (char)b;
    }
    *value = (struct str){out, o};
    return true;
}

static bool name_is(struct str raw, struct str name)
{
    size_t n, o = 0;
    for (size_t i = 0; i < raw.n; i += n, o++) {
        int b = byte_at(raw, i, &n);
        if (b < 0) {
            b = '%';
            n = 1;
        } else if (n == 1 && b == '+') {
            b = ' ';
        }
        if (o >= name.n || (unsigned char)name.p[o] != b)
            return false;
    }
    return o == name.n;
}

bool uri_query_get(struct str query, struct str name, char *out, size_t cap, struct str *value)
{
    while (query.n) {
        const char *amp = memchr(query.p, '&', query.n);
        struct str pair = str_first(query, amp ? (size_t)(amp - query.p) : query.n);
        const char *eq = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
        struct str key = eq ? str_first(pair, (size_t)(eq - pair.p)) : pair;
        if (pair.n && name_is(key, name))
            return decode(eq ? str_from(pair, key.n + 1) : STR_NULL, out, cap, value);
        query = str_from(query, pair.n + 1);
    }
    return false;
}
