/* Event-stream scanner: first event and tail (WHATWG HTML 9.2). */
#include "http/sse.h"

void sse_init(struct sse *s)
{
    /* The two buffers are read only as far as they are filled. */
    s->first_n = s->line_n = s->tail_pos = 0;
    s->total = 0;
    s->first_done = s->has_data = s->skip_line = s->after_cr = false;
}

static void keep_tail(struct sse *s, struct str b)
{
    if (b.n >= SSE_TAIL) {
        memcpy(s->tail, b.p + b.n - SSE_TAIL, SSE_TAIL);
        s->tail_pos = 0;
        return;
    }
    size_t n = MIN(b.n, (size_t)(SSE_TAIL - s->tail_pos));
    memcpy(s->tail + s->tail_pos, b.p, n);
    memcpy(s->tail, b.p + n, b.n - n);
    s->tail_pos = (uint32_t)((s->tail_pos + b.n) % SSE_TAIL);
}

/* The payload of a data line, or a NULL span for any other line. */
static struct str data_of(struct str line)
{
    if (!str_starts(line, STR("data")) || (line.n > 4 && line.p[4] != ':'))
        return STR_NULL;
    struct str v = str_from(line, 5);
    if (line.n == 4)
        v = str_from(line, 4);
    return v.n && v.p[0] == ' ' ? str_from(v, 1) : v;
}

/* The line held behind the payload is complete: joins it to the payload when it is data, drops it otherwise. */
static void end_line(struct sse *s)
{
    struct str line = {(char *)s->first + s->first_n, s->line_n};
    bool empty = s->line_n == 0 && !s->skip_line;
    struct str v = data_of(line);
    s->line_n = 0;
    s->skip_line = false;
    if (empty)
        s->first_done = s->has_data;
    if (v.p == NULL)
        return;
    if (s->has_data && s->first_n < SSE_FIRST)
        s->first[s->first_n++] = '\n'; /* several data lines are joined so; "data:" made room for it */
    memmove(s->first + s->first_n, v.p, v.n);
    s->first_n += (uint32_t)v.n;
    s->has_data = true;
}

static void hold(struct sse *s, struct str part)
{
    size_t room = SSE_FIRST - s->first_n - s->line_n;
    if (s->skip_line)
        return;
    memcpy(s->first + s->first_n + s->line_n, part.p, MIN(room, part.n));
    s->line_n += (uint32_t)MIN(room, part.n);
    if (part.n <= room)
        return;
    struct str line = {(char *)s->first + s->first_n, s->line_n};
    if (data_of(line).p) { /* the first event is longer than what is kept: cut */
        end_line(s);
        s->first_done = true;
    } else {
        s->first_done = s->has_data && s->first_n == SSE_FIRST;
        s->line_n = 0;
        s->skip_line = true;
    }
}

/* Offset of the first CR or LF, or b.n. Two library searches, the second bounded by the first, beat a loop over the
 * bytes. */
static size_t find_line_end(struct str b)
{
    const char *lf = memchr(b.p, '\n', b.n);
    size_t n = lf ? (size_t)(lf - b.p) : b.n;
    const char *cr = n ? memchr(b.p, '\r', n) : NULL;
    return cr ? (size_t)(cr - b.p) : n;
}

static void scan_first(struct sse *s, struct str b)
{
    while (b.n && !s->first_done) {
        if (s->after_cr && b.p[0] == '\n') { /* the second half of a CRLF */
            s->after_cr = false;
            b = str_from(b, 1);
            continue;
        }
        s->after_cr = false;
        size_t n = find_line_end(b);
        hold(s, str_first(b, n));
        if (n == b.n || s->first_done)
            return;
        s->after_cr = b.p[n] == '\r';
        end_line(s);
        b = str_from(b, n + 1);
    }
}

void sse_feed(struct sse *s, struct str bytes)
{
    if (bytes.n == 0)
        return;
    if (UNLIKELY(!s->first_done))
        scan_first(s, bytes);
    keep_tail(s, bytes);
    s->total += bytes.n;
    if (UNLIKELY(!s->first_done && s->total > SSE_SEARCH)) { /* this is no event stream */
        s->first_n = 0;
        s->first_done = true;
    }
}

struct str sse_first_data(const struct sse *s)
{
    return (struct str){(const char *)s->first, s->first_done ? s->first_n : 0};
}

size_t sse_tail(const struct sse *s, char out[SSE_TAIL])
{
    if (s->total < SSE_TAIL) {
        memcpy(out, s->tail, (size_t)s->total);
        return (size_t)s->total;
    }
    memcpy(out, s->tail + s->tail_pos, SSE_TAIL - s->tail_pos);
    memcpy(out + SSE_TAIL - s->tail_pos, s->tail, s->tail_pos);
    return SSE_TAIL;
}

bool sse_prev_data(struct str text, size_t *pos, struct str *data)
{
    size_t end = MIN(*pos, text.n);
    while (end > 0) {
        size_t stop = end;
        while (stop > 0 && (text.p[stop - 1] == '\n' || text.p[stop - 1] == '\r'))
            stop--;
        size_t start = stop;
        while (start > 0 && text.p[start - 1] != '\n' && text.p[start - 1] != '\r')
            start--;
        end = start;
        struct str v = data_of((struct str){text.p + start, stop - start});
        if (stop > start && v.p) {
            *data = v;
            *pos = start;
            return true;
        }
    }
    *pos = 0;
    return false;
}
