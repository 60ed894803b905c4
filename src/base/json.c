/* base/json.c - validating JSON pull scanner (RFC 8259): a state machine with one bit of stack per open container. */
#include "base/json.h"
#include "base/utf8.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state {
    ST_VALUE,     /* a value must follow */
    ST_ARR_FIRST, /* behind '[': a value or ']' */
    ST_OBJ_FIRST, /* behind '{': a key or '}' */
    ST_KEY,       /* behind ',' in an object: a key */
    ST_AFTER,     /* behind a value: ',' or the end of what holds it */
    ST_FAILED
};

void json_init(struct json *j, struct str text)
{
    *j = (struct json){.start = text.p, .p = text.p, .end = text.n ? text.p + text.n : text.p, .state = ST_VALUE};
}

static enum json_type fail(struct json *j, const char *at, const char *why)
{
    j->p = at;
    j->error = why;
    j->tok = STR_NULL;
    j->state = ST_FAILED;
    return JSON_ERROR;
}

static void skip_blanks(struct json *j)
{
    const char *p = j->p, *end = j->end;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    j->p = p;
}

static bool in_object(const struct json *j)
{
    unsigned i = j->depth - 1;
    return j->stack[i / 64] >> (i % 64) & 1;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The characters that end a run of plain string bytes: quote, backslash, control, not ASCII. */
static bool is_plain(char c)
{
    return (signed char)c >= 0x20 && c != '"' && c != '\\';
}

const char *json_plain_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* The signed comparison catches both controls and bytes >= 0x80. */
        __m128i hit =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)), _mm_cmplt_epi8(v, space));
        int mask = _mm_movemask_epi8(hit);
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#else
    const uint64_t ones = 0x0101010101010101ull, high = 0x8080808080808080ull;
    for (; end - p >= 8; p += 8) {
        uint64_t w;
        memcpy(&w, p, sizeof(w));
        uint64_t q = w ^ ones * '"', s = w ^ ones * '\\';
        if (((w - ones * 0x20) | (q - ones) | (s - ones) | w) & high)
            break; /* a hit in these eight bytes; the loop below finds which */
    }
#endif
    while (p < end && is_plain(*p))
        p++;
    return p;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The code unit of "uXXXX" at p, or -1. */
static int32_t code_unit(const char *p, const char *end)
{
    if (end - p < 5 || *p != 'u')
        return -1;
    int32_t v = 0;
    for (int i = 1; i <= 4; i++) {
        int h = hex_value(p[i]);
        if (h < 0)
            return -1;
        v = v << 4 | h;
    }
    return v;
}

/* The character a short escape stands for, or 0. */
static char short_escape(char c)
{
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return '\0';
    }
}

/* Length of the escape at p (its backslash) and its code point; 0 when it is none or a lone surrogate. */
static size_t escape_read(const char *p, const char *end, uint32_t *cp)
{
    if (end - p < 2)
        return 0;
    char c = short_escape(p[1]);
    if (c) {
        *cp = (unsigned char)c;
        return 2;
    }
    int32_t first = code_unit(p + 1, end);
    if (first < 0 || (first >= 0xdc00 && first <= 0xdfff))
        return 0;
    *cp = (uint32_t)first;
    if (first < 0xd800 || first > 0xdfff)
        return 6;
    int32_t second = end - p >= 12 && p[6] == '\\' ? code_unit(p + 7, end) : -1;
    if (second < 0xdc00 || second > 0xdfff)
        return 0;
    *cp = 0x10000 + (((uint32_t)first & 0x3ff) << 10 | ((uint32_t)second & 0x3ff));
    return 12;
}

/* Reads the string whose opening quote is at j->p into j->tok; false after an error. */
static bool read_string(struct json *j)
{
    const char *start = j->p + 1, *p = start, *end = j->end;
    bool escaped = false;
    for (;;) {
        p = json_plain_end(p, end);
        if (p == end) {
            fail(j, p, "string has no closing quote");
            return false;
        }
        if (*p == '"')
            break;
        if (*p == '\\') {
            uint32_t cp;
            size_t n = escape_read(p, end, &cp);
            if (n == 0) {
                fail(j, p, "invalid escape in a string");
                return false;
            }
            escaped = true;
            p += n;
        } else if ((unsigned char)*p < 0x20) {
            fail(j, p, "control character in a string");
            return false;
        } else {
            const char *q = utf8_skip_high(p, end);
            if (!q) {
                fail(j, p, "string is not valid UTF-8");
                return false;
            }
            p = q;
        }
    }
    j->tok = (struct str){start, (size_t)(p - start)};
    j->escaped = escaped;
    j->p = p + 1;
    return true;
}

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && is_digit(*p))
        p++;
    return p;
}

/* End of the number at p by the grammar of RFC 8259 section 6; NULL when digits are missing. */
static const char *number_end(const char *p, const char *end)
{
    if (p < end && *p == '-')
        p++;
    if (p == end || !is_digit(*p))
        return NULL;
    p = *p == '0' ? p + 1 : skip_digits(p, end);
    if (p < end && *p == '.') {
        const char *first = ++p;
        p = skip_digits(p, end);
        if (p == first)
            return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        const char *first = p;
        p = skip_digits(p, end);
        if (p == first)
            return NULL;
    }
    return p;
}

static enum json_type read_number(struct json *j)
{
    const char *end = number_end(j->p, j->end);
    if (!end)
        return fail(j, j->p, "invalid number");
    if (end < j->end && is_digit(*end))
        return fail(j, j->p, "number with a leading zero");
    j->tok = (struct str){j->p, (size_t)(end - j->p)};
    j->p = end;
    j->state = ST_AFTER;
    return JSON_NUMBER;
}

static enum json_type read_literal(struct json *j, struct str word, enum json_type type)
{
    struct str left = {j->p, (size_t)(j->end - j->p)};
    if (!str_starts(left, word))
        return fail(j, j->p, "unknown word where a value was expected");
    j->tok = str_first(left, word.n);
    j->p += word.n;
    j->state = ST_AFTER;
    return type;
}

static enum json_type open_container(struct json *j, bool object)
{
    if (j->depth == JSON_MAX_DEPTH)
        return fail(j, j->p, "nested too deeply");
    uint64_t bit = 1ull << (j->depth % 64), *word = &j->stack[j->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    j->depth++;
    j->p++;
    j->state = object ? ST_OBJ_FIRST : ST_ARR_FIRST;
    return object ? JSON_OBJ : JSON_ARR;
}

static enum json_type close_container(struct json *j, bool object)
{
    j->depth--;
    j->p++;
    j->state = ST_AFTER;
    return object ? JSON_OBJ_END : JSON_ARR_END;
}

static enum json_type read_value(struct json *j)
{
    switch (*j->p) {
    case '"':
        if (!read_string(j))
            return JSON_ERROR;
        j->state = ST_AFTER;
        return JSON_STRING;
    case '{':
        return open_container(j, true);
    case '[':
        return open_container(j, false);
    case 't':
        return read_literal(j, STR("true"), JSON_TRUE);
    case 'f':
        return read_literal(j, STR("false"), JSON_FALSE);
    case 'n':
        return read_literal(j, STR("null"), JSON_NULL);
    default:
        if (*j->p == '-' || is_digit(*j->p))
            return read_number(j);
        return fail(j, j->p, "value expected");
    }
}

/* The key and its colon. */
static enum json_type read_key(struct json *j)
{
    if (*j->p != '"')
        return fail(j, j->p, "key expected");
    if (!read_string(j))
        return JSON_ERROR;
    skip_blanks(j);
    if (j->p == j->end || *j->p != ':')
        return fail(j, j->p, "colon expected behind a key");
    j->p++;
    j->state = ST_VALUE;
    return JSON_KEY;
}

/* Behind a value: the end of the text or container, or JSON_NULL when a comma was read: an item must follow. */
static enum json_type read_after(struct json *j)
{
    if (j->depth == 0)
        return j->p == j->end ? JSON_END : fail(j, j->p, "text behind the end of the value");
    bool object = in_object(j);
    if (j->p == j->end)
        return fail(j, j->p, object ? "object is not closed" : "array is not closed");
    if (*j->p == (object ? '}' : ']'))
        return close_container(j, object);
    if (*j->p != ',')
        return fail(j, j->p, object ? "comma or } expected" : "comma or ] expected");
    j->p++;
    skip_blanks(j);
    j->state = object ? ST_KEY : ST_VALUE;
    return JSON_NULL;
}

enum json_type json_next(struct json *j)
{
    if (j->state == ST_FAILED)
        return JSON_ERROR;
    j->tok = STR_NULL;
    j->escaped = false;
    skip_blanks(j);
    if (j->state == ST_AFTER) {
        enum json_type type = read_after(j);
        if (type != JSON_NULL)
            return type;
    }
    if (j->p == j->end)
        return fail(j, j->p, "text ends where a value was expected");
    switch (j->state) {
    case ST_OBJ_FIRST:
        return *j->p == '}' ? close_container(j, true) : read_key(j);
    case ST_KEY:
        return read_key(j);
    case ST_ARR_FIRST:
        return *j->p == ']' ? close_container(j, false) : read_value(j);
    default:
        return read_value(j);
    }
}

bool json_skip(struct json *j)
{
    unsigned depth = j->depth;
    do {
        enum json_type type = json_next(j);
        if (type == JSON_ERROR)
            return false;
        if (type == JSON_END || j->depth < depth) {
            fail(j, j->p, "there is no value to skip");
            return false;
        }
    } while (j->depth > depth || j->state == ST_VALUE);
    return true;
}

void json_where(const struct json *j, const char *at, unsigned *line, unsigned *col)
{
    *line = *col = 1;
    for (const char *p = j->start; p && p < at; p++) {
        *col += 1;
        if (*p == '\n') {
            *line += 1;
            *col = 1;
        }
    }
}

size_t json_unescape(struct str raw, char *out)
{
    const char *p = raw.p, *end = raw.n ? raw.p + raw.n : raw.p;
    char *to = out;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
        memmove(to, p, n);
        to += n;
        p += n;
        if (p == end)
            break;
        uint32_t cp;
        size_t len = escape_read(p, end, &cp);
        if (len == 0) { /* not validated: kept as it is */
            *to++ = *p++;
            continue;
        }
        to += utf8_put(cp, to);
        p += len;
    }
    return (size_t)(to - out);
}

bool json_str_eq(struct str raw, bool escaped, struct str want)
{
    if (!escaped)
        return str_eq(raw, want);
    while (raw.n) {
        char decoded[4] = {raw.p[0]};
        size_t n = 1, len = 1;
        if (raw.p[0] == '\\') {
            uint32_t cp;
            size_t escape = escape_read(raw.p, raw.p + raw.n, &cp);
            if (escape) {
                n = utf8_put(cp, decoded);
                len = escape;
            }
        }
        if (!str_starts(want, (struct str){decoded, n}))
            return false;
        want = str_from(want, n);
        raw = str_from(raw, len);
    }
    return want.n == 0;
}
