/* Decoder of chunked bodies (RFC 9112 7.1): a machine that can stop and go on at any byte. */
#include "http/h1_int.h"

#define MAX_SIZE_DIGITS 15 /* sizes below 2^60; leading zeros count */
#define MAX_EXTENSION   256
#define MAX_TRAILERS    8192

/*   SIZE_0 -> SIZE -> [EXT] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE_0
 *                                 |  size 0
 *                                 v
 *   LINE -> NAME -> VALUE -> TRAILER_LF -> LINE        LINE -> END_LF -> DONE */
enum state { SIZE_0, SIZE, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE, NAME, VALUE, TRAILER_LF, END_LF, DONE };

void h1_chunked_init(struct h1_chunked *c)
{
    *c = (struct h1_chunked){.state = SIZE_0};
}

static int bad(struct h1_error *e, const char *what)
{
    *e = (struct h1_error){400, what};
    return -1;
}

static unsigned hex_value(char ch)
{
    return ch <= '9' ? (unsigned)(ch - '0') : (unsigned)((ch | 0x20) - 'a') + 10;
}

static int in_size(struct h1_chunked *c, char ch, struct h1_error *e)
{
    if (h1_is(ch, C_HEX)) {
        if (++c->line > MAX_SIZE_DIGITS)
            return bad(e, "chunk size is too long");
        c->left = c->left * 16 + hex_value(ch);
        c->state = SIZE;
        return 0;
    }
    if (c->state == SIZE_0)
        return bad(e, "chunk without size");
    if (ch != ';' && ch != '\r')
        return bad(e, ch == '\n' ? "chunk size line ends in LF without CR" : "bad character in a chunk size");
    c->state = ch == ';' ? EXT : SIZE_LF;
    c->line = 0;
    return 0;
}

/* Extensions are skipped, but only in their plain form: a quoted string could hide what another parser takes for a line
 * end. */
static int in_extension(struct h1_chunked *c, char ch, struct h1_error *e)
{
    if (ch == '\r') {
        c->state = SIZE_LF;
        return 0;
    }
    if (!h1_is(ch, C_TOKEN) && ch != ';' && ch != '=' && ch != ' ')
        return bad(e, "bad character in a chunk extension");
    return ++c->line > MAX_EXTENSION ? bad(e, "chunk extension is too long") : 0;
}

static int in_trailer(struct h1_chunked *c, char ch, struct h1_error *e)
{
    if (++c->trailer > MAX_TRAILERS)
        return bad(e, "trailers are too long");
    if (c->state == LINE) {
        if (ch != '\r' && !h1_is(ch, C_TOKEN))
            return bad(e, "malformed trailer");
        c->state = ch == '\r' ? END_LF : NAME;
        return 0;
    }
    if (c->state == NAME) {
        if (ch != ':' && !h1_is(ch, C_TOKEN))
            return bad(e, "malformed trailer name");
        c->state = ch == ':' ? VALUE : NAME;
        return 0;
    }
    if (ch != '\r' && !h1_is(ch, C_VALUE))
        return bad(e, "control character in a trailer");
    c->state = ch == '\r' ? TRAILER_LF : VALUE;
    return 0;
}

/* The states that wait for one fixed byte, and what follows it. */
static int in_line_end(struct h1_chunked *c, char ch, struct h1_error *e)
{
    if (ch != (c->state == DATA_CR ? '\r' : '\n'))
        return bad(e, c->state == DATA_CR || c->state == DATA_LF ? "chunk data does not end in CRLF" : "CR without LF");
    switch (c->state) {
    case SIZE_LF:
        c->state = c->left ? DATA : LINE;
        break;
    case DATA_CR:
        c->state = DATA_LF;
        break;
    case TRAILER_LF:
        c->trailer++;
        c->state = LINE;
        break;
    case END_LF:
        c->state = DONE;
        c->done = true;
        break;
    default:
        c->state = SIZE_0;
    }
    c->line = 0;
    return 0;
}

static int step(struct h1_chunked *c, char ch, struct h1_error *e)
{
    switch (c->state) {
    case SIZE_0:
    case SIZE:
        return in_size(c, ch, e);
    case EXT:
        return in_extension(c, ch, e);
    case LINE:
    case NAME:
    case VALUE:
        return in_trailer(c, ch, e);
    default:
        return in_line_end(c, ch, e);
    }
}

ptrdiff_t h1_chunked_next(struct h1_chunked *c, struct str in, struct str *data, struct h1_error *e)
{
    size_t at = 0;
    *data = (struct str){in.p, 0};
    while (at < in.n && c->state != DONE) {
        if (c->state == DATA) {
            *data = (struct str){in.p + at, (size_t)MIN(c->left, (uint64_t)(in.n - at))};
            c->left -= data->n;
            if (c->left == 0)
                c->state = DATA_CR;
            return (ptrdiff_t)(at + data->n);
        }
        if (step(c, in.p[at], e) < 0)
            return -1;
        at++;
    }
    return (ptrdiff_t)at;
}
