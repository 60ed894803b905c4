/* http/sse.h - what the data path needs of an event stream: its first event and its tail. Nothing between is looked at.
 *
 * Feed decoded body bytes (no chunk framing) in any split. The first `data:` payload is captured (up to SSE_FIRST
 * bytes); the last SSE_TAIL bytes of the stream are kept in a ring. Per byte cost: one copy of the newest SSE_TAIL
 * bytes. */
#ifndef HTTP_SSE_H
#define HTTP_SSE_H

#include "base/str.h"

#define SSE_FIRST  1024
#define SSE_TAIL   4096
#define SSE_SEARCH (64 * 1024) /* a first event that does not end within so many bytes is not waited for */

struct sse {
    uint8_t first[SSE_FIRST];
    uint8_t tail[SSE_TAIL];
    uint32_t first_n;  /* payload bytes in first[] */
    uint32_t line_n;   /* bytes of the current line, held behind them until it ends */
    uint32_t tail_pos; /* where the next byte goes */
    uint64_t total;    /* bytes fed */
    bool first_done;   /* the first event is complete (blank line seen) first[] is full, or SSE_SEARCH bytes went by */
    bool has_data;     /* the current event has a data line */
    bool skip_line;    /* the current line is longer than first[] holds and is no data */
    bool after_cr;     /* the last line ended in CR: an LF that follows belongs to it */
};

void sse_init(struct sse *s);
void sse_feed(struct sse *s, struct str bytes);
/* Payload of the first event that has data (span into s->first, possibly cut); empty while there is none. Comments and
 * other fields skipped. */
struct str sse_first_data(const struct sse *s);
/* Copies the tail in order into out (SSE_TAIL bytes); returns its length. */
size_t sse_tail(const struct sse *s, char out[SSE_TAIL]);
/* Walks the `data:` payloads of a text backwards (newest first), line by line: an event of several data lines comes in
 * pieces. *pos starts as text.n; false when there are no more. A line cut at the start of the text is not returned (it
 * does not begin with "data"); a last line without its line end is. */
bool sse_prev_data(struct str text, size_t *pos, struct str *data);

#endif
