/* base/json.h - validating JSON pull scanner over a complete text, and a writer.
 *
 * Scanner: RFC 8259, strict (no trailing commas, comments, NaN; numbers by the grammar; control characters in strings are
 * refused; UTF-8 must be valid; \u escapes must pair surrogates). Depth is bounded. No allocation; strings come as raw spans of
 * the input between their quotes, with a flag that says whether they hold escapes. Usage: call json_next until JSON_END or
 * JSON_ERROR. A key is reported as JSON_KEY, its value follows. json_skip skips the value that starts at the next token. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/buf.h"

enum json_type {
    JSON_ERROR, JSON_END, JSON_OBJ, JSON_OBJ_END, JSON_ARR, JSON_ARR_END, JSON_KEY, JSON_STRING, JSON_NUMBER, JSON_TRUE,
    JSON_FALSE, JSON_NULL
};
#define JSON_MAX_DEPTH 256

struct json {
    const char *start, *p, *end;
    unsigned depth;
    uint8_t state;
    uint64_t stack[JSON_MAX_DEPTH / 64]; /* bit: 1 object, 0 array */
    /* the current token */
    struct str tok;      /* KEY, STRING: between the quotes, raw; NUMBER and literals: their text; others: empty */
    bool escaped;        /* KEY, STRING: tok holds escapes */
    const char *error;   /* static text after JSON_ERROR; j->p is where */
};

void json_init(struct json *j, struct str text);
enum json_type json_next(struct json *j);
bool json_skip(struct json *j); /* after JSON_KEY or inside an array: skips one value; false on error */
/* Line and column (1-based, columns in bytes) of a position in the text. */
void json_where(const struct json *j, const char *at, unsigned *line, unsigned *col);
/* Decodes the escapes of a raw string (already validated) to UTF-8. `out` needs raw.n bytes and may be
 * raw.p itself; returns the length written. */
size_t json_unescape(struct str raw, char *out);
/* True when the raw string, decoded, equals `want`. */
bool json_str_eq(struct str raw, bool escaped, struct str want);

/* Building blocks, shared with the log. First byte of [p, end) that is a quote, a backslash, a control or not ASCII, or end. */
const char *json_plain_end(const char *p, const char *end);
/* Writes the escaped form (at most 6 bytes) of the character at p, U+FFFD for a byte that is no UTF-8; returns its length. */
size_t json_escape_char(const char *p, const char *end, char out[6], size_t *out_n);

/* Writer: commas and quoting by itself. Errors only by the buffer's overflow flag. */
struct jsonw {
    struct buf *out;
    bool comma;
};
void jsonw_init(struct jsonw *w, struct buf *out);
void jsonw_obj(struct jsonw *w);
void jsonw_obj_end(struct jsonw *w);
void jsonw_arr(struct jsonw *w);
void jsonw_arr_end(struct jsonw *w);
void jsonw_key(struct jsonw *w, const char *key);
void jsonw_str(struct jsonw *w, struct str s); /* bytes that are not UTF-8 become U+FFFD */
void jsonw_cstr(struct jsonw *w, const char *s); /* NULL -> null */
void jsonw_u64(struct jsonw *w, uint64_t v);
void jsonw_i64(struct jsonw *w, int64_t v);
void jsonw_f(struct jsonw *w, double v); /* shortest form that reads back equal enough (%.6g); null when not finite */
void jsonw_bool(struct jsonw *w, bool v);
void jsonw_null(struct jsonw *w);
void jsonw_raw(struct jsonw *w, struct str json);

#endif
