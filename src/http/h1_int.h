/* http/h1_int.h - what the files of the HTTP/1 codec share: character classes and the cursor. Private to src/http. */
#ifndef HTTP_H1_INT_H
#define HTTP_H1_INT_H

#include "http/h1.h"

/* Bits of h1_classes[]. */
enum h1_class {
    C_TOKEN = 1,     /* RFC 9110 5.6.2 tchar */
    C_VALUE = 2,     /* field content: visible, obs-text, blank, tab (RFC 9110 5.5) */
    C_TARGET = 4,    /* request target: visible ASCII but '#' */
    C_AUTHORITY = 8, /* what we take in a host and port: stricter than RFC 3986 reg-name */
    C_HEX = 16,
};
extern const uint8_t h1_classes[256];

static inline bool h1_is(char c, unsigned class_bits)
{
    return (h1_classes[(unsigned char)c] & class_bits) != 0;
}

/* Outcome of a parsing step. A step that returns STEP_MORE has consumed nothing that matters: the head is parsed again.
 */
enum h1_step { STEP_BAD = -1, STEP_MORE = 0, STEP_OK = 1 };

struct h1_cursor {
    const char *p, *end;
    struct h1_error *e;
};

static inline enum h1_step h1_bad(struct h1_cursor *c, unsigned status, const char *what)
{
    *c->e = (struct h1_error){status, what};
    return STEP_BAD;
}

/* h1_target.c: splits head->target by its form and sets path, query and, where the target has one, host. */
enum h1_step h1_split_target(struct h1_cursor *c, struct h1_head *head);
bool h1_valid_authority(struct str s, bool port_required);
/* h1_framing.c: checks the headers against each other and derives host, framing, keep_alive, expect and upgrade. */
enum h1_step h1_finish_request(struct h1_cursor *c, struct h1_head *head);
enum h1_step h1_finish_response(struct h1_cursor *c, struct h1_head *head, bool to_head);

#endif
