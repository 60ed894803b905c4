/* bench/drive_priv.h - what drive.c (who is sent when) and stream.c (one request on its connection) share. */
#ifndef BENCH_DRIVE_PRIV_H
#define BENCH_DRIVE_PRIV_H

#include "base/list.h"
#include "base/map.h"
#include "bench/drive.h"
#include "bench/event.h"
#include "http/h1.h"

#define BODY_MAX    (256u << 20)
#define HISTORY_MAX (64u << 20) /* of a conversation */
#define ERROR_BODY  4096        /* kept of an error's body */
#define STREAM_DROPPED UINT32_MAX /* status of a sample that the end of the run overtook */

struct talk { /* a conversation */
    struct list link; /* of drive.ready or drive.held */
    struct drive *d;
    uint32_t next, end;  /* requests of the data set */
    uint64_t ready_us;   /* when its next request wanted to be sent */
    struct timer think;
    struct buf history;  /* messages so far, without the brackets; for completions the text */
};

enum stream_state { ST_CONNECT, ST_HEAD, ST_BODY };
struct stream { /* a request under way */
    struct list link;
    struct drive *d;
    struct talk *talk;
    uint32_t request, sample;
    struct conn *c;
    struct timer deadline;
    uint64_t start_us, last_us; /* last: of the newest event with choices */
    struct buf in;              /* unfinished head, or the start of an error's body */
    struct event_lines lines;
    struct buf answer;          /* text, for the history */
    struct h1_chunked chunked;
    uint64_t left;
    uint32_t events, texts;     /* with choices; of these with text */
    uint32_t completion_tokens;
    uint8_t state, framing;
    bool keep, fresh, retried, done_seen;
    const char *failure;        /* known before the body's end */
};

struct drive {
    struct loop *loop;
    const struct drive_opts *o;
    const struct dataset *data;
    struct drive_result *r;
    struct conn_pool *pool;
    struct talk *talks;
    uint32_t n_talks, talks_open, talks_left;
    double *at_s;
    uint32_t next_arrival;
    uint64_t t0_us, end_us, now_us; /* now: when the bytes being looked at were read */
    struct list ready, held;    /* talks: want to send; wait for max_conversations */
    struct list running;        /* streams */
    uint32_t n_running, n_ready, done, failed, n_planned;
    struct timer arrival, pump, progress;
    struct rng rng;
    struct buf scratch;         /* a request being written */
    struct h1_head head;
    struct map kinds, pods;     /* interned: text -> itself; name -> index + 1 */
};

/* stream.c */
void stream_start(struct drive *d, struct talk *t);
void stream_drop(struct stream *s); /* without a result */
/* drive.c */
void drive_ended(struct drive *d, struct talk *t, bool ok); /* its request's sample is complete */
const char *drive_kind(struct drive *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
int32_t drive_pod(struct drive *d, struct str name);
/* body.c: the whole message, head and body, into d->scratch; the user's text joins the history of the talk when there is one. */
bool body_write(struct drive *d, struct stream *s, bool again);
void body_answered(struct drive *d, struct stream *s); /* the answer joins the history */

#endif
