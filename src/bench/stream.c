/* bench/stream.c - one request: connection, head, body, events.
 *
 *   CONNECT -> HEAD -> BODY -> ended (the connection goes to the pool)      any state -> failed
 *
 * A kept connection that ends before the first byte of the answer had been closed by a server that never saw the
 * request: it is sent once more on a new one, by the same clock. */
#include "bench/drive_priv.h"

#include <errno.h>
#include <stdlib.h>

static struct bench_sample *sample_of(const struct stream *s)
{
    return &s->d->r->samples[s->sample];
}

static void release(struct stream *s)
{
    timer_stop(s->d->loop, &s->deadline);
    list_remove(&s->link);
    buf_free(&s->in);
    buf_free(&s->answer);
    event_lines_free(&s->lines);
    free(s);
}

void stream_drop(struct stream *s)
{
    if (s->c)
        conn_close(s->c);
    free(sample_of(s)->itl_s);
    *sample_of(s) = (struct bench_sample){.status = STREAM_DROPPED};
    release(s);
}

static void give_back(struct stream *s, bool usable)
{
    struct conn *c = s->c;
    s->c = NULL;
    if (c && usable)
        conn_pool_put(s->d->pool, c);
    else if (c)
        conn_close(c);
}

/* Last thing of every path: the place is given to the next request. */
static void finish(struct stream *s, const char *failure, bool usable)
{
    struct bench_sample *m = sample_of(s);
    struct drive *d = s->d;
    struct talk *t = s->talk;
    m->ok = !failure;
    m->error = failure;
    m->e2el_s = s->events ? (double)(s->last_us - s->start_us) / 1e6 : 0;
    m->output_tokens = s->completion_tokens ? s->completion_tokens : s->texts;
    d->end_us = loop_clock_us(d->loop);
    give_back(s, usable);
    if (!failure) {
        d->r->without_done += !s->done_seen;
        if (d->data->history)
            body_answered(d, s);
    }
    release(s);
    drive_ended(d, t, !failure);
}

/* ---- events ---- */

static void add_gap(struct bench_sample *m, float gap_s)
{
    if (m->n_itl == m->cap_itl) {
        m->cap_itl = MAX(m->cap_itl * 2, 32u);
        m->itl_s = xrealloc(m->itl_s, m->cap_itl * sizeof(*m->itl_s));
    }
    m->itl_s[m->n_itl++] = gap_s;
    m->itl_sum_s += gap_s;
}

static void on_choices(struct stream *s, struct str text)
{
    struct bench_sample *m = sample_of(s);
    uint64_t now = s->d->now_us;
    if (s->events++ == 0)
        m->ttft_s = (double)(now - s->start_us) / 1e6;
    else
        add_gap(m, (float)(now - s->last_us) / 1e6f);
    s->last_us = now;
    s->texts += text.n > 0;
    if (s->d->data->history)
        buf_add_str(&s->answer, text);
}

static bool on_event(void *ctx, struct str payload)
{
    struct stream *s = ctx;
    struct event e;
    if (str_eq(payload, STR("[DONE]"))) {
        s->done_seen = true;
        return true;
    }
    if (!event_parse(payload, &e)) {
        s->failure = "an event is no JSON";
        return false;
    }
    if (e.error) {
        struct str code = event_error_code(payload);
        s->failure = drive_kind(s->d, "error event%s" STR_FMT, code.n ? ": " : "", STR_ARG(str_first(code, 64)));
    }
    if (e.choices)
        on_choices(s, e.text);
    if (e.has_usage) {
        struct bench_sample *m = sample_of(s);
        s->completion_tokens = e.completion_tokens;
        if (e.prompt_tokens)
            m->input_tokens = e.prompt_tokens;
        m->cached_tokens = e.cached_tokens;
    }
    if (s->events < DRIVE_EVENTS_MAX)
        return true;
    s->failure = "the answer does not end";
    return false;
}

/* ---- body ---- */

/* A piece of the decoded body. False: it is of no use to read on. */
static bool take_piece(struct stream *s, struct str piece)
{
    if (sample_of(s)->status != 200) {
        buf_add_str(&s->in, str_first(piece, ERROR_BODY - s->in.n));
        return true;
    }
    if (event_lines_feed(&s->lines, piece, on_event, s))
        return true;
    if (!s->failure)
        s->failure = "a line of the stream is too long";
    return false;
}

static const char *status_kind(struct stream *s)
{
    unsigned status = sample_of(s)->status;
    struct str code = event_error_code(buf_str(&s->in));
    if (code.n)
        return drive_kind(s->d, "HTTP %u " STR_FMT, status, STR_ARG(str_first(code, 64)));
    return drive_kind(s->d, "HTTP %u %s", status, h1_reason(status));
}

/* The body came to its end in order. */
static void body_ended(struct stream *s, bool usable)
{
    const char *failure = s->failure;
    if (sample_of(s)->status != 200)
        failure = status_kind(s);
    else if (!failure && s->answer.overflow)
        failure = "the answer does not end";
    else if (!failure && !s->events)
        failure = "no event with choices";
    finish(s, failure, usable && s->keep);
}

enum { BODY_MORE, BODY_END, BODY_BAD, BODY_ENOUGH };

static int take_chunked(struct stream *s, struct str *data)
{
    while (data->n) {
        struct str piece;
        struct h1_error e;
        ptrdiff_t n = h1_chunked_next(&s->chunked, *data, &piece, &e);
        if (n < 0)
            return BODY_BAD;
        *data = str_from(*data, (size_t)n);
        if (piece.n && !take_piece(s, piece))
            return BODY_ENOUGH;
        if (s->chunked.done)
            return BODY_END;
    }
    return BODY_MORE;
}

static int take_length(struct stream *s, struct str *data)
{
    struct str piece = str_first(*data, s->left);
    s->left -= piece.n;
    *data = str_from(*data, piece.n);
    if (piece.n && !take_piece(s, piece))
        return BODY_ENOUGH;
    return s->left == 0 ? BODY_END : BODY_MORE;
}

static void take_body(struct stream *s, struct str data)
{
    int end = BODY_MORE;
    if (s->framing == H1_BODY_NONE)
        end = BODY_END;
    else if (s->framing == H1_BODY_CHUNKED)
        end = take_chunked(s, &data);
    else if (s->framing == H1_BODY_LENGTH)
        end = take_length(s, &data);
    else if (data.n && !take_piece(s, data))
        end = BODY_ENOUGH;
    if (end == BODY_END)
        body_ended(s, data.n == 0); /* bytes behind the answer: a server to be wary of */
    else if (end == BODY_BAD)
        finish(s, "the answer is no HTTP", false);
    else if (end == BODY_ENOUGH)
        finish(s, s->failure, false);
}

/* ---- head ---- */

/* Takes heads, of interim answers too, from the start of *in. 1: the final one, *in is behind it; 0: not whole; -1: no
 * HTTP. */
static int take_heads(struct stream *s, struct str *in)
{
    struct h1_head *head = &s->d->head;
    struct h1_error e;
    while (in->n) {
        ptrdiff_t n = h1_parse_response(*in, H1_MAX_HEAD, false, head, &e);
        if (n <= 0)
            return n < 0 ? -1 : 0;
        *in = str_from(*in, (size_t)n);
        if (head->status == 101)
            return -1; /* nobody asked for it */
        if (head->status >= 200)
            return 1;
    }
    return 0;
}

static void begin_body(struct stream *s)
{
    const struct h1_head *head = &s->d->head;
    struct bench_sample *m = sample_of(s);
    const struct h1_header *pod = h1_find_name(head, STR("x-inference-pod"));
    m->status = head->status;
    m->pod = pod ? drive_pod(s->d, pod->value) : -1;
    s->keep = head->keep_alive;
    s->framing = (uint8_t)head->framing;
    s->left = head->content_length;
    h1_chunked_init(&s->chunked);
    s->state = ST_BODY;
}

static void take_head(struct stream *s, struct str data)
{
    bool buffered = s->in.n > 0;
    if (buffered && !buf_add_str(&s->in, data)) {
        finish(s, "the answer is no HTTP", false);
        return;
    }
    struct str in = buffered ? buf_str(&s->in) : data;
    int found = take_heads(s, &in);
    if (found < 0) {
        finish(s, "the answer is no HTTP", false);
    } else if (found) {
        struct buf kept = s->in; /* in may lie in it */
        buf_init(&s->in, ERROR_BODY);
        begin_body(s);
        take_body(s, in);
        buf_free(&kept);
    } else if (buffered) {
        buf_consume(&s->in, s->in.n - in.n);
    } else if (!buf_add_str(&s->in, in)) {
        finish(s, "the answer is no HTTP", false);
    }
}

/* ---- connection ---- */

static void connect_new(struct stream *s);

static void broken(struct stream *s, const char *failure)
{
    if (!s->fresh) {
        finish(s, failure, false);
        return;
    }
    give_back(s, false);
    s->d->r->reconnects++;
    connect_new(s);
}

static void on_data(struct conn *c, struct str data)
{
    struct stream *s = conn_ctx(c);
    s->fresh = false;
    s->d->now_us = loop_clock_us(s->d->loop);
    if (s->state == ST_BODY)
        take_body(s, data);
    else
        take_head(s, data);
}

static void on_eof(struct conn *c)
{
    struct stream *s = conn_ctx(c);
    if (s->state != ST_BODY)
        broken(s, "connection closed before an answer");
    else if (s->framing == H1_BODY_EOF)
        body_ended(s, false);
    else
        finish(s, "answer cut off", false);
}

static void on_error(struct conn *c, int err)
{
    struct stream *s = conn_ctx(c);
    (void)err;
    broken(s, s->state == ST_BODY ? "answer cut off" : "connection reset before an answer");
}

static void send_request(struct stream *s)
{
    s->state = ST_HEAD;
    if (body_write(s->d, s, s->retried))
        conn_write_str(s->c, buf_str(&s->d->scratch));
    else
        finish(s, "the prompt is too long", false);
}

static void on_connect(struct conn *c, int err)
{
    struct stream *s = conn_ctx(c);
    if (err)
        finish(s, drive_kind(s->d, "connect: %s", strerror(-err)), false);
    else
        send_request(s);
}

static const struct conn_ops ops = {
    .on_connect = on_connect, .on_data = on_data, .on_eof = on_eof, .on_error = on_error};

static void connect_new(struct stream *s)
{
    s->retried = s->fresh;
    s->fresh = false;
    s->state = ST_CONNECT;
    s->c = conn_connect(s->d->loop, &s->d->o->to, &ops, s);
}

static void on_deadline(struct timer *t)
{
    struct stream *s = CONTAINER_OF(t, struct stream, deadline);
    finish(s, "timeout", false);
}

void stream_start(struct drive *d, struct talk *t)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    const struct data_request *r = &d->data->v[t->next];
    *s = (struct stream){.d = d, .talk = t, .request = t->next, .sample = d->r->n++, .deadline.fn = on_deadline};
    buf_init(&s->in, 2 * H1_MAX_HEAD); /* a head, and what was read with its end */
    buf_init(&s->answer, HISTORY_MAX);
    list_push_back(&d->running, &s->link);
    s->start_us = loop_clock_us(d->loop);
    *sample_of(s) = (struct bench_sample){.start_s = (double)(s->start_us - d->t0_us) / 1e6,
                                          .queue_s = (double)(s->start_us - MIN(s->start_us, t->ready_us)) / 1e6,
                                          .input_tokens = r->input_tokens,
                                          .turn = r->turn,
                                          .pod = -1};
    timer_set(d->loop, &s->deadline, s->start_us + d->o->request_timeout_us);
    s->c = conn_pool_take(d->pool, &d->o->to);
    s->fresh = s->c != NULL;
    if (!s->c) {
        connect_new(s);
        return;
    }
    conn_set(s->c, &ops, s);
    send_request(s);
}
