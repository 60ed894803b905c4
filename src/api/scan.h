/* api/scan.h - the request scanner's engine: a validating cursor over a JSON text with an output for the prefix stream.
 * Internal.
 *
 * The stream grows in a scratch buffer. Strings are decoded to its end as they are checked and count only once
 * committed, so nothing is copied twice. Invariant: n + (end - p) + slack <= cap, i.e. the rest of the text always fits
 * behind the stream; scan_room restores it where the stream may have grown faster than the text was read (token ids,
 * hashes of small parts). When the buffer may not grow any more the stream is cut there: later text is checked but no
 * longer counts. Functions return false (or -1) with the error filled in; then the scan is over. No recursion: nested
 * values that carry no meaning for us are walked with an explicit stack. */
#ifndef API_SCAN_H
#define API_SCAN_H

#include "api/api.h"
#include "api/text.h"

#define SCAN_MAX_DEPTH 256
#define SCAN_SLACK     16   /* separators may be written a little before the text that pays for them is passed */
#define SCAN_SEP_ROLE  0x1f /* between role and text */
#define SCAN_SEP_END   0x1e /* after a message, between prompts of a list */

struct scan {
    const char *p, *end, *body; /* body: what offsets in messages count from */
    char *out;                  /* scratch memory */
    size_t n, cap;              /* stream bytes in out; its size */
    unsigned depth;             /* containers open at p */
    bool cut;
    text_copy_fn copy;
    struct buf *scratch;
    struct api_request *rq;
    struct api_error *e;
};

/* A string of the text: raw between its quotes, and decoded at out + n until something else is decoded or committed. */
struct scan_str {
    struct str raw, text;
};

bool scan_fail(struct scan *s, const char *code, const char *at, const char *fmt, ...) PRINTF_LIKE(4, 5);
bool scan_fail_type(struct scan *s, const char *at, const char *field, const char *want); /* "`field` must be ..." */
bool scan_fail_dup(struct scan *s, const char *at, const char *field);
/* "unexpected ..." at p; says so when the text ends there. */
bool scan_fail_syntax(struct scan *s, const char *want);
bool scan_fail_depth(struct scan *s);
bool scan_make_room(struct scan *s, size_t extra);

/* Restores the invariant, with `extra` bytes to spare. */
static inline void scan_room(struct scan *s, size_t extra)
{
    if (UNLIKELY(s->cap - s->n < (size_t)(s->end - s->p) + SCAN_SLACK + extra))
        (void)scan_make_room(s, extra);
}

/* Next byte that is not white space, p at it; -1 at the end. */
static inline int scan_peek(struct scan *s)
{
    const char *p = s->p;
    while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    s->p = p;
    return p < s->end ? (unsigned char)*p : -1;
}

static inline void scan_commit(struct scan *s, size_t n)
{
    if (LIKELY(!s->cut))
        s->n += n;
}
/* Appends what needs no more room than the text it stands for took. */
static inline void scan_emit(struct scan *s, char c)
{
    if (LIKELY(!s->cut))
        s->out[s->n++] = c;
}
/* Stream bytes since it had `before`; the stream shrinks when it is cut. */
static inline size_t scan_grown(const struct scan *s, size_t before)
{
    return s->n > before ? s->n - before : 0;
}
void scan_emit_hash(struct scan *s, uint64_t h);               /* 8 bytes, little-endian; makes its own room */
void scan_emit_bytes(struct scan *s, const void *p, size_t n); /* makes its own room */

/* p at the opening quote (else it fails); after it p is behind the closing one. */
bool scan_string(struct scan *s, struct scan_str *out);
/* Containers: p at the bracket; then scan_key or scan_elem until 0. */
static inline bool scan_open(struct scan *s)
{
    if (UNLIKELY(s->depth >= SCAN_MAX_DEPTH))
        return scan_fail_depth(s);
    s->depth++;
    s->p++;
    return true;
}
/* 1: key read, p at its value; 0: the object is closed; -1: error. *first: true before the first call. */
int scan_key(struct scan *s, struct scan_str *key, bool *first);
int scan_elem(struct scan *s, bool *first); /* 1: p at an element */
bool scan_number(struct scan *s, struct str *raw);
enum scan_lit { SCAN_NULL, SCAN_TRUE, SCAN_FALSE };
bool scan_literal(struct scan *s, enum scan_lit *out);

/* One value of any shape at p. */
bool scan_skip(struct scan *s);                 /* only checked */
bool scan_text(struct scan *s);                 /* appended as compact JSON: no white space, strings decoded */
bool scan_hash(struct scan *s, uint64_t *hash); /* hashed: blind to white space, escapes and the order of keys */
uint64_t scan_hash_str(struct str decoded);
uint64_t scan_hash_key(struct str decoded);
uint64_t scan_hash_member(uint64_t key, uint64_t value); /* to be summed */
uint64_t scan_hash_object(uint64_t sum_of_members);      /* = scan_hash of the object */

/* Values that were skipped, to be read again: scan_rewind sets p and bounds the text to the value; scan_resume undoes
 * it. */
struct scan_mark {
    const char *p, *end;
};
struct scan_mark scan_rewind(struct scan *s, struct str value);
void scan_resume(struct scan *s, struct scan_mark m);

#endif
