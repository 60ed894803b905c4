/* What the headers of a message say together: body framing (RFC 9112 6), persistence (9.3), Host (3.2), Expect,
 * Upgrade. */
#include "http/h1_int.h"

/* What is collected in one pass over the headers. */
struct facts {
    const struct h1_header *length, *coding, *host;
    bool close, keep_alive, upgrade_option, upgrade_header;
    unsigned n_options;
};

static void mark_hop(struct h1_head *head, struct str option)
{
    for (size_t i = 0; i < head->n_headers; i++)
        if (head->headers[i].name.n == option.n && str_ieq(head->headers[i].name, option))
            head->headers[i].hop = true;
}

static void take_option(struct h1_head *head, struct facts *f, struct str option)
{
    if (str_ieq(option, STR("close")))
        f->close = true;
    else if (str_ieq(option, STR("keep-alive")))
        f->keep_alive = true;
    else if (str_ieq(option, STR("upgrade")))
        f->upgrade_option = true;
    mark_hop(head, option);
}

/* Connection = #token (RFC 9110 7.6.1). Empty list members are allowed. */
static enum h1_step take_connection(struct h1_cursor *c, struct h1_head *head, struct facts *f, struct str value)
{
    while (value.n) {
        const char *comma = memchr(value.p, ',', value.n);
        size_t n = comma ? (size_t)(comma - value.p) : value.n;
        struct str option = str_trim(str_first(value, n));
        value = str_from(value, n + 1);
        if (++f->n_options > H1_MAX_OPTIONS)
            return h1_bad(c, 400, "too many Connection options");
        if (option.n == 0)
            continue;
        if (!h1_valid_header_name(option))
            return h1_bad(c, 400, "malformed Connection header");
        take_option(head, f, option);
    }
    return STEP_OK;
}

static enum h1_step take_expect(struct h1_cursor *c, struct h1_head *head, struct str value)
{
    if (head->minor == 0) /* RFC 9110 10.1.1: an expectation in 1.0 is ignored */
        return STEP_OK;
    if (!str_ieq(value, STR("100-continue")))
        return h1_bad(c, 417, "unknown expectation");
    head->expect_continue = true;
    return STEP_OK;
}

static enum h1_step take_once(struct h1_cursor *c, const struct h1_header **slot, const struct h1_header *h,
                              const char *what)
{
    if (*slot)
        return h1_bad(c, 400, what);
    *slot = h;
    return STEP_OK;
}

static enum h1_step take_header(struct h1_cursor *c, struct h1_head *head, struct facts *f, const struct h1_header *h)
{
    switch (h->id) {
    case H_CONTENT_LENGTH:
        return take_once(c, &f->length, h, "more than one Content-Length");
    case H_TRANSFER_ENCODING:
        return take_once(c, &f->coding, h, "more than one Transfer-Encoding");
    case H_HOST:
        return take_once(c, &f->host, h, "more than one Host");
    case H_CONNECTION:
        return take_connection(c, head, f, h->value);
    case H_EXPECT:
        return take_expect(c, head, h->value);
    case H_UPGRADE:
        f->upgrade_header = true;
        return STEP_OK;
    default:
        return STEP_OK;
    }
}

static enum h1_step collect(struct h1_cursor *c, struct h1_head *head, struct facts *f)
{
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct h1_header *h = &head->headers[i];
        if (h->id == H_UNKNOWN)
            continue;
        enum h1_step step = take_header(c, head, f, h);
        if (step != STEP_OK)
            return step;
    }
    head->keep_alive = !f->close && (head->minor == 1 || f->keep_alive);
    head->upgrade = head->minor == 1 && f->upgrade_option && f->upgrade_header;
    return STEP_OK;
}

/* 1*DIGIT of at most 18 digits: no overflow here, nor in the signed 64-bit integer of whoever reads the forwarded
 * header. */
static bool parse_length(struct str s, uint64_t *out)
{
    uint64_t n = 0;
    if (s.n == 0 || s.n > 18)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = n;
    return true;
}

/* The framing that the headers announce; the callers add the rules of requests and responses. `none` is used without
 * any. */
static enum h1_step announce(struct h1_cursor *c, struct h1_head *head, const struct facts *f, enum h1_framing none)
{
    if (f->coding && f->length)
        return h1_bad(c, 400, "Content-Length with Transfer-Encoding");
    if (f->coding && head->minor == 0)
        return h1_bad(c, 400, "Transfer-Encoding in HTTP/1.0");
    if (f->coding && !str_ieq(f->coding->value, STR("chunked")))
        return h1_bad(c, 501, "Transfer-Encoding other than chunked");
    if (f->length && !parse_length(f->length->value, &head->content_length))
        return h1_bad(c, 400, "malformed Content-Length");
    head->framing = f->coding ? H1_BODY_CHUNKED : f->length ? H1_BODY_LENGTH : none;
    return STEP_OK;
}

static enum h1_step check_host(struct h1_cursor *c, struct h1_head *head, const struct facts *f)
{
    if (!f->host)
        return head->minor == 0 ? STEP_OK : h1_bad(c, 400, "no Host");
    if (!h1_valid_authority(f->host->value, false))
        return h1_bad(c, 400, "empty or malformed Host");
    if (head->host.n == 0) /* RFC 9112 3.2.2: the authority of the target wins */
        head->host = f->host->value;
    return STEP_OK;
}

enum h1_step h1_finish_request(struct h1_cursor *c, struct h1_head *head)
{
    struct facts f = {0};
    enum h1_step step = collect(c, head, &f);
    if (step == STEP_OK)
        step = check_host(c, head, &f);
    if (step == STEP_OK)
        step = announce(c, head, &f, H1_BODY_NONE);
    if (step != STEP_OK)
        return step;
    if (head->method == H1_CONNECT && head->framing != H1_BODY_NONE)
        return h1_bad(c, 400, "CONNECT with a body");
    return STEP_OK;
}

enum h1_step h1_finish_response(struct h1_cursor *c, struct h1_head *head, bool to_head)
{
    struct facts f = {0};
    enum h1_step step = collect(c, head, &f);
    if (step == STEP_OK)
        step = announce(c, head, &f, H1_BODY_EOF);
    if (step != STEP_OK)
        return step;
    bool bare = head->status < 200 || head->status == 204;
    if (bare && (head->framing == H1_BODY_CHUNKED || head->content_length > 0))
        return h1_bad(c, 502, "1xx or 204 with a body");
    if (bare || to_head || head->status == 304) {
        head->framing = H1_BODY_NONE;
        head->content_length = 0;
    }
    if (head->framing == H1_BODY_EOF)
        head->keep_alive = false;
    return STEP_OK;
}
