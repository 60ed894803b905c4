/* http/h1.h - HTTP/1.1 messages (RFC 9112), sans-I/O: bytes in, heads and body pieces out.
 *
 * Strict on purpose: what two parsers could read differently is refused. The head parser works on a buffer that holds
 * the head from its first byte; results are spans into that buffer and are valid as long as it is. Nothing allocates.
 * Not thread-safe per object; no global state. Vectors: tests/vectors/h1*, figures behind reference c-style.md 5. */
#ifndef HTTP_H1_H
#define HTTP_H1_H

#include "base/str.h"

#define H1_MAX_HEADERS 128
#define H1_MAX_OPTIONS 64          /* options of all Connection headers of a message together */
#define H1_MAX_HEAD    (64 * 1024) /* default bound on a whole head; callers pass their own */

/* Known methods; anything else that is a token is H1_OTHER. */
enum h1_method { H1_OTHER, H1_GET, H1_HEAD, H1_POST, H1_PUT, H1_DELETE, H1_CONNECT, H1_OPTIONS, H1_TRACE, H1_PATCH };

/* Header names that the code asks for by number; H_UNKNOWN for all others. Matching is case-insensitive. */
enum h1_name {
    H_UNKNOWN,
    H_ACCEPT,
    H_AUTHORIZATION,
    H_CONNECTION,
    H_CONTENT_ENCODING,
    H_CONTENT_LENGTH,
    H_CONTENT_TYPE,
    H_DATE,
    H_EXPECT,
    H_HOST,
    H_KEEP_ALIVE,
    H_LOCATION,
    H_PROXY_AUTHENTICATE,
    H_PROXY_AUTHORIZATION,
    H_PROXY_CONNECTION,
    H_RETRY_AFTER,
    H_SERVER,
    H_TE,
    H_TRAILER,
    H_TRANSFER_ENCODING,
    H_UPGRADE,
    H_USER_AGENT,
    H_VIA,
    H_X_FORWARDED_FOR,
    H_X_REQUEST_ID,
    H_X_GATEWAY_MODEL_NAME,
    H_X_GATEWAY_DESTINATION, /* any header that begins x-gateway-destination-endpoint */
    H_N_NAMES
};

struct h1_header {
    struct str name, value; /* value without surrounding blanks */
    enum h1_name id;
    bool hop; /* named by a Connection header of the same message; use h1_hop_by_hop() */
};

/* How the body of a message ends (RFC 9112 6.3). */
enum h1_framing {
    H1_BODY_NONE,   /* no body */
    H1_BODY_LENGTH, /* content_length bytes (may be 0) */
    H1_BODY_CHUNKED,
    H1_BODY_EOF /* responses only: until the connection closes */
};

struct h1_head {
    /* request */
    enum h1_method method;
    struct str method_str;
    struct str target;      /* target as sent: origin-form, absolute-form, "*" (OPTIONS) or authority-form (CONNECT) */
    struct str host;        /* authority from the absolute-form target, else the Host header */
    struct str path, query; /* of the target, query without '?' (query.p NULL when there is no '?'). "/" for an
                               absolute-form without path, "*" for OPTIONS *, empty for CONNECT */
    /* response */
    unsigned status;
    struct str reason;
    /* both */
    unsigned minor;  /* HTTP/1.minor: 0 or 1 */
    bool keep_alive; /* may the connection carry another message */
    bool expect_continue;
    bool upgrade; /* Connection: upgrade with an Upgrade header */
    enum h1_framing framing;
    uint64_t content_length; /* when H1_BODY_LENGTH; 0 otherwise */
    size_t n_headers;
    struct h1_header headers[H1_MAX_HEADERS];
};

enum { H1_MORE = 0 };
struct h1_error {
    unsigned status;  /* what to answer: 400, 414, 417, 431, 501, 505; 502 for every bad response head */
    const char *what; /* static text: which rule was broken */
};

/* Parses a request head at the start of `in` (leading empty lines are skipped, at most 2). Returns the head's length in
 * bytes, H1_MORE when incomplete, or -1 with *e filled. in.n >= max_head without a complete head is 431. Header count
 * above H1_MAX_HEADERS is 431. Rejected among others: bare LF or CR, obs-fold, blank before the colon, missing or
 * several or empty (with an authority) Host in 1.1, several or malformed Content-Length (equal repeats included),
 * Content-Length with Transfer-Encoding, any Transfer-Encoding other than exactly "chunked", HTTP/2 preface, versions
 * but 1.0 and 1.1, control characters, non-token names, whitespace in the target, Transfer-Encoding in 1.0, an Expect
 * other than 100-continue (417), user information in the authority, a body on CONNECT, more than H1_MAX_OPTIONS
 * Connection options. With an absolute-form target the Host header may differ and is then void (RFC 9112 3.2.2): a
 * forwarder writes head->host. An incomplete head is parsed again from its start by the next call. To stay linear
 * against a peer that sends single bytes, call again only when a new LF or max_head bytes have arrived: then there are
 * at most H1_MAX_HEADERS + 4 calls. */
ptrdiff_t h1_parse_request(struct str in, size_t max_head, struct h1_head *head, struct h1_error *e) MUST_USE;
/* The same for a response, without leading empty lines. `to_head`: the request was HEAD (no body whatever the headers
 * say). 1xx, 204, 304 have no body; on 1xx and 204 Transfer-Encoding and a Content-Length above 0 are refused. */
ptrdiff_t h1_parse_response(struct str in, size_t max_head, bool to_head, struct h1_head *head,
                            struct h1_error *e) MUST_USE;

const struct h1_header *h1_find(const struct h1_head *head, enum h1_name id); /* first, or NULL */
const struct h1_header *h1_find_name(const struct h1_head *head,
                                     struct str name); /* case-insensitive; first, or NULL */
/* True for headers that belong to one hop (RFC 9110 7.6.1): Connection and what it names, Keep-Alive, Proxy-*, TE,
 * Trailer, Transfer-Encoding, Upgrade, Expect. Content-Length is not one of them; it, Host, Content-Type and
 * Content-Encoding stay end to end even when a Connection header names them (a peer must not make us drop what others
 * decide on). */
bool h1_hop_by_hop(const struct h1_head *head, const struct h1_header *h);
enum h1_name h1_name_id(struct str name);
const char *h1_reason(unsigned status); /* standard phrase, "Unknown" otherwise */
bool h1_valid_header_name(struct str s);
bool h1_valid_header_value(struct str s);

/* Chunked body decoder: a resumable machine over any split of the input. */
struct h1_chunked {
    uint8_t state;
    bool done;
    uint64_t left;    /* bytes left of the current chunk */
    uint32_t line;    /* bytes seen of the current size or trailer line (bounded) */
    uint32_t trailer; /* bytes of all trailers (bounded by 8 KB) */
};
void h1_chunked_init(struct h1_chunked *c);
/* Consumes from `in` up to the end of the body or of the input. Finds the next piece of data: *data is a span of `in`
 * (empty when this call found none). Returns bytes consumed (> 0 unless in.n == 0 or done), or -1 on bad framing with
 * *e filled (status 400; a proxy reading a response treats it as 502). Call again with the rest until consumed
 * everything or c->done. Trailers are checked and dropped. Chunk extensions: at most 256 bytes, no quoting tricks, no
 * control characters, then ignored. */
ptrdiff_t h1_chunked_next(struct h1_chunked *c, struct str in, struct str *data, struct h1_error *e) MUST_USE;

#endif
