/* Parser of request and response heads: start line and header lines into spans (RFC 9112 2 to 5). */
#include "http/h1_int.h"

#define MAX_EMPTY_LINES 2
#define MAX_METHOD_LEN  32

#define ONES (~(uint64_t)0 / 255)

/* Nonzero when one of the eight bytes is a control character, DEL included; also (harmlessly) for a tab. Bytes >= 0x80
 * pass. */
static inline uint64_t has_control(uint64_t w)
{
    uint64_t below = (w - ONES * 0x20) & ~w;
    uint64_t del = w ^ (ONES * 0x7f);
    return (below | ((del - ONES) & ~del)) & (ONES * 0x80);
}

/* First byte of [p, end) that is no field content; eight bytes at a time where they are plain. */
static const char *skip_value(const char *p, const char *end)
{
    while (p < end) {
        uint64_t w = 0;
        size_t n = MIN((size_t)(end - p), sizeof(w));
        memcpy(&w, p, n);
        if (n == sizeof(w) && !has_control(w)) {
            p += sizeof(w);
            continue;
        }
        for (; n > 0; n--, p++)
            if (!h1_is(*p, C_VALUE))
                return p;
    }
    return p;
}

static enum h1_step expect_crlf(struct h1_cursor *c, const char *otherwise)
{
    if (c->p == c->end)
        return STEP_MORE;
    if (*c->p != '\r')
        return h1_bad(c, 400, *c->p == '\n' ? "line ends in LF without CR" : otherwise);
    if (c->end - c->p < 2)
        return STEP_MORE;
    if (c->p[1] != '\n')
        return h1_bad(c, 400, "CR without LF");
    c->p += 2;
    return STEP_OK;
}

/* "HTTP/1." and the minor version, which must be 0 or 1. */
static enum h1_step parse_version(struct h1_cursor *c, struct h1_head *head)
{
    static const char pattern[] = "HTTP/d.d";
    size_t have = (size_t)(c->end - c->p);
    for (size_t i = 0; i < sizeof(pattern) - 1; i++) {
        if (i == have)
            return STEP_MORE;
        bool fits = pattern[i] == 'd' ? c->p[i] >= '0' && c->p[i] <= '9' : c->p[i] == pattern[i];
        if (!fits)
            return h1_bad(c, 400, "malformed HTTP version");
    }
    if (c->p[5] != '1' || c->p[7] > '1')
        return h1_bad(c, 505, "HTTP version is neither 1.0 nor 1.1");
    head->minor = (unsigned)(c->p[7] - '0');
    c->p += sizeof(pattern) - 1;
    return STEP_OK;
}

static enum h1_step skip_empty_lines(struct h1_cursor *c)
{
    for (unsigned n = 0; c->p < c->end && *c->p == '\r'; n++) {
        if (n == MAX_EMPTY_LINES)
            return h1_bad(c, 400, "too many empty lines before the request");
        enum h1_step step = expect_crlf(c, "");
        if (step != STEP_OK)
            return step;
    }
    return c->p < c->end ? STEP_OK : STEP_MORE;
}

static enum h1_method method_of(struct str s)
{
    static const struct {
        char name[8];
        enum h1_method method;
    } methods[] = {
        {"POST", H1_POST},       {"GET", H1_GET},       {"HEAD", H1_HEAD},
        {"PUT", H1_PUT},         {"DELETE", H1_DELETE}, {"CONNECT", H1_CONNECT},
        {"OPTIONS", H1_OPTIONS}, {"TRACE", H1_TRACE},   {"PATCH", H1_PATCH},
    };
    char padded[8] = {0};
    if (s.n >= sizeof(padded))
        return H1_OTHER;
    for (size_t i = 0; i < s.n; i++)
        padded[i] = s.p[i];
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (memcmp(padded, methods[i].name, sizeof(padded)) == 0) /* one 64-bit comparison */
            return methods[i].method;
    return H1_OTHER;
}

static enum h1_step parse_method(struct h1_cursor *c, struct h1_head *head)
{
    const char *start = c->p;
    while (c->p < c->end && h1_is(*c->p, C_TOKEN))
        c->p++;
    head->method_str = (struct str){start, (size_t)(c->p - start)};
    if (head->method_str.n > MAX_METHOD_LEN)
        return h1_bad(c, 501, "method is too long");
    if (c->p == c->end)
        return STEP_MORE;
    if (*c->p != ' ' || head->method_str.n == 0)
        return h1_bad(c, 400, "malformed method");
    head->method = method_of(head->method_str);
    c->p++;
    return STEP_OK;
}

static enum h1_step parse_target(struct h1_cursor *c, struct h1_head *head)
{
    const char *start = c->p;
    while (c->p < c->end && h1_is(*c->p, C_TARGET))
        c->p++;
    if (c->p == c->end)
        return STEP_MORE;
    head->target = (struct str){start, (size_t)(c->p - start)};
    if (*c->p == '\r' || *c->p == '\n')
        return h1_bad(c, 400, "request line without HTTP version");
    if (*c->p != ' ')
        return h1_bad(c, 400, "bad character in the request target");
    if (head->target.n == 0)
        return h1_bad(c, 400, "empty request target");
    c->p++;
    return STEP_OK;
}

static enum h1_step parse_request_line(struct h1_cursor *c, struct h1_head *head)
{
    enum h1_step step = skip_empty_lines(c);
    if (step == STEP_OK)
        step = parse_method(c, head);
    if (step == STEP_OK)
        step = parse_target(c, head);
    if (step == STEP_OK)
        step = parse_version(c, head);
    if (step == STEP_OK)
        step = expect_crlf(c, "bytes after the HTTP version");
    return step;
}

/* Status code and reason. The blank before an empty reason is left out by some servers; that is not ambiguous. */
static enum h1_step parse_status(struct h1_cursor *c, struct h1_head *head)
{
    unsigned status = 0;
    if (c->p == c->end)
        return STEP_MORE;
    if (*c->p++ != ' ')
        return h1_bad(c, 502, "malformed status line");
    for (unsigned i = 0; i < 3; i++, c->p++) {
        if (c->p == c->end)
            return STEP_MORE;
        if (*c->p < '0' || *c->p > '9')
            return h1_bad(c, 502, "malformed status code");
        status = status * 10 + (unsigned)(*c->p - '0');
    }
    if (status < 100 || status > 599)
        return h1_bad(c, 502, "status code is out of range");
    head->status = status;
    head->reason = (struct str){c->p, 0};
    if (c->p < c->end && *c->p == ' ') {
        const char *start = ++c->p;
        c->p = skip_value(c->p, c->end);
        head->reason = (struct str){start, (size_t)(c->p - start)};
    }
    return expect_crlf(c, "bad character in the status line");
}

/* Says why a header name did not end in a colon. */
static enum h1_step bad_name(struct h1_cursor *c, bool at_start)
{
    if (*c->p == ' ' || *c->p == '\t')
        return h1_bad(c, 400, at_start ? "folded header line" : "blank in or after a header name");
    if (*c->p == '\n')
        return h1_bad(c, 400, "line ends in LF without CR");
    return h1_bad(c, 400, at_start && *c->p == ':' ? "empty header name" : "bad character in a header name");
}

static enum h1_step parse_header(struct h1_cursor *c, struct h1_header *h)
{
    const char *name = c->p;
    while (c->p < c->end && h1_is(*c->p, C_TOKEN))
        c->p++;
    if (c->p == c->end)
        return STEP_MORE;
    if (*c->p != ':' || c->p == name)
        return bad_name(c, c->p == name);
    h->name = (struct str){name, (size_t)(c->p - name)};
    c->p++;
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t'))
        c->p++;
    const char *value = c->p;
    const char *last = c->p = skip_value(c->p, c->end);
    while (last > value && (last[-1] == ' ' || last[-1] == '\t'))
        last--;
    h->value = (struct str){value, (size_t)(last - value)};
    return expect_crlf(c, "control character in a header value");
}

static enum h1_step parse_headers(struct h1_cursor *c, struct h1_head *head)
{
    for (head->n_headers = 0;; head->n_headers++) {
        if (c->p == c->end)
            return STEP_MORE;
        if (*c->p == '\r')
            return expect_crlf(c, "");
        if (head->n_headers == H1_MAX_HEADERS)
            return h1_bad(c, 431, "too many headers");
        struct h1_header *h = &head->headers[head->n_headers];
        enum h1_step step = parse_header(c, h);
        if (step != STEP_OK)
            return step;
        h->id = h1_name_id(h->name);
        h->hop = false;
    }
}

/* Everything but headers[], which is 5 KB and read only up to n_headers. */
static void reset(struct h1_head *head)
{
    memset(head, 0, offsetof(struct h1_head, headers));
}

ptrdiff_t h1_parse_request(struct str in, size_t max_head, struct h1_head *head, struct h1_error *e)
{
    struct h1_cursor c = {in.p, in.p + MIN(in.n, max_head), e};
    unsigned too_long = 414;
    reset(head);
    enum h1_step step = parse_request_line(&c, head);
    if (step == STEP_OK) {
        too_long = 431;
        step = h1_split_target(&c, head);
    }
    if (step == STEP_OK)
        step = parse_headers(&c, head);
    if (step == STEP_OK)
        step = h1_finish_request(&c, head);
    if (step == STEP_MORE && in.n >= max_head)
        step = h1_bad(&c, too_long, too_long == 414 ? "request line is too long" : "request head is too long");
    return step == STEP_OK ? c.p - in.p : (ptrdiff_t)step;
}

ptrdiff_t h1_parse_response(struct str in, size_t max_head, bool to_head, struct h1_head *head, struct h1_error *e)
{
    struct h1_cursor c = {in.p, in.p + MIN(in.n, max_head), e};
    reset(head);
    enum h1_step step = parse_version(&c, head);
    if (step == STEP_OK)
        step = parse_status(&c, head);
    if (step == STEP_OK)
        step = parse_headers(&c, head);
    if (step == STEP_OK)
        step = h1_finish_response(&c, head, to_head);
    if (step == STEP_MORE && in.n >= max_head)
        step = h1_bad(&c, 502, "response head is too long");
    if (step == STEP_BAD)
        e->status = 502; /* shared steps say 400, which is for clients */
    return step == STEP_OK ? c.p - in.p : (ptrdiff_t)step;
}
