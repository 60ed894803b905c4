/* relay.c - the answer on its way to the client: bytes as they come, framing scanned only to find the end, nothing
 * collected.
 *
 * The head is held until the first byte of the body: a server that dies "after a 200" can still be replaced, and so can
 * one whose first event says that it is overloaded (model-servers.md 2.5). Then each read of the upstream is one write
 * to the client; while the client's socket is full the upstream is not read. */
#include "proxy/impl.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

enum scan { SCAN_MORE, SCAN_END, SCAN_BAD };
struct piece {
    struct str raw;     /* what goes to the client */
    struct str payload; /* first stretch of decoded bytes */
    bool excess;        /* bytes behind the end of the answer */
    enum scan scan;
};

/* --- scanning ------------------------------------------------------------------------------------------------ */

static void see_payload(struct request *rq, struct piece *p, struct str bytes)
{
    if (!bytes.n)
        return;
    if (!p->payload.n)
        p->payload = bytes;
    rq->resp_bytes += bytes.n;
    if (rq->tail)
        sse_feed(rq->tail, bytes);
}

static void scan_chunked(struct request *rq, struct str data, struct piece *p)
{
    struct str rest = data;
    buf_clear(&rq->w->out);
    while (rest.n) {
        struct str bytes;
        struct h1_error e;
        ptrdiff_t n = h1_chunked_next(&rq->chunked_out, rest, &bytes, &e);
        if (n < 0) {
            p->scan = SCAN_BAD;
            return;
        }
        see_payload(rq, p, bytes);
        if (rq->mode == RELAY_DECHUNK)
            buf_add_str(&rq->w->out, bytes);
        rest = str_from(rest, (size_t)n);
        if (rq->chunked_out.done) {
            p->scan = SCAN_END;
            break;
        }
    }
    p->excess = rest.n > 0;
    p->raw = rq->mode == RELAY_DECHUNK ? buf_str(&rq->w->out) : str_first(data, data.n - rest.n);
}

static struct piece scan(struct request *rq, struct str data)
{
    struct piece p = {.raw = data};
    if (rq->framing == H1_BODY_CHUNKED) {
        scan_chunked(rq, data, &p);
        return p;
    }
    if (rq->framing == H1_BODY_LENGTH) {
        p.raw = str_first(data, (size_t)MIN(rq->resp_left, data.n));
        rq->resp_left -= p.raw.n;
        p.scan = rq->resp_left ? SCAN_MORE : SCAN_END;
        p.excess = data.n > p.raw.n;
    }
    see_payload(rq, &p, p.raw);
    return p;
}

/* --- writing ------------------------------------------------------------------------------------------------- */

/* head and held: empty once the answer has begun. */
static void write_out(struct request *rq, struct str head, struct str held, struct str raw)
{
    bool enchunk = rq->mode == RELAY_ENCHUNK && held.n + raw.n > 0;
    char size[24];
    int len = enchunk ? snprintf(size, sizeof size, "%zx\r\n", held.n + raw.n) : 0;
    const struct str parts[] = {head, {size, (size_t)len}, held, raw, enchunk ? STR("\r\n") : STR_NULL};
    struct iovec v[ARRAY_LEN(parts)];
    int n = 0;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i].n)
            v[n++] = span(parts[i]);
    if (n && conn_write(rq->c->conn, v, n) && rq->up) {
        conn_pause(rq->up, true);
        rq->up_paused = true;
        client_arm(rq->c); /* a stalled client has a limit of its own */
    }
}

void relay_client_drained(struct request *rq)
{
    if (!rq->up_paused || !rq->up)
        return;
    rq->up_paused = false;
    rq->last_us = worker_now_us(rq->w);
    conn_pause(rq->up, false);
}

/* --- the first byte ------------------------------------------------------------------------------------------ */

static void learn_response_id(struct request *rq, struct str payload)
{
    if (rq->kind != API_RESPONSES || !rq->backend->pool || rq->status >= 300)
        return;
    struct str id = api_response_id(rq->event_stream && rq->tail ? sse_first_data(rq->tail) : payload);
    if (id.n && id.n <= 256)
        rq->response_id = arena_str(&rq->arena, id);
}

static void tell_first_byte(struct request *rq, struct str payload)
{
    if (rq->event_stream && rq->backend->pool && rq->reserved && rq->status < 300)
        port_first_token(rq->backend->port, &rq->pick);
    metrics_first_byte(rq);
    learn_response_id(rq, payload);
}

/* The answer begins: from here on there is no other try. What only the tries needed goes. */
static void commit(struct request *rq, struct piece p)
{
    struct worker *w = rq->w;
    if (rq->state == REQ_SEND) /* answered before it had all of the request */
        rq->up_keep = false;
    request_move(rq, REQ_RELAY);
    rq->committed = true;
    rq->first_us = loop_clock_us(w->loop);
    list_remove(&rq->link);
    pd_answered(rq);
    if (p.scan == SCAN_END) {
        tell_first_byte(rq, p.payload);
        request_settle(rq);
    }
    write_out(rq, rq->resp_head, buf_str(&rq->up_in), p.raw);
    if (p.scan != SCAN_END)
        tell_first_byte(rq, p.payload);
    rq->resp_head = STR_NULL;
    buf_free(&rq->up_in);
    body_free(w, &rq->body);
    rq->n_parts = 0;
    rq->rule = NULL;
    rq->match = NULL;
    rq->listener = NULL;
    world_unref(rq->world);
    rq->world = NULL;
    client_arm(rq->c);
}

/* An event stream whose first event is not whole yet. */
static bool first_event_pending(const struct request *rq)
{
    const struct sse *s = rq->tail;
    return s && rq->event_stream && !s->first_done && (s->has_data || s->line_n) && s->total < HELD_MAX;
}

/* True when the piece was dealt with: held, or the request has gone elsewhere. */
static bool hold_back(struct request *rq, const struct piece *p)
{
    if (p->scan == SCAN_MORE && (rq->resp_bytes == 0 || first_event_pending(rq)) && rq->up_in.n < HELD_MAX) {
        buf_add_str(&rq->up_in, p->raw);
        return true;
    }
    if (!rq->event_stream || !rq->tail)
        return false;
    unsigned code = api_first_event_error(sse_first_data(rq->tail));
    return code >= 500 && (pd_try_again(rq, code) || request_try_elsewhere(rq, OUT_SERVER_ERROR));
}

/* --- the end ------------------------------------------------------------------------------------------------- */

static void finish(struct request *rq, bool keep)
{
    struct conn *up = rq->up;
    request_settle(rq);
    rq->up = NULL;
    if (up && keep)
        conn_pool_put(rq->w->pool, up);
    else if (up)
        conn_close(up);
    if (rq->mode == RELAY_ENCHUNK)
        conn_write_str(rq->c->conn, STR("0\r\n\r\n"));
    request_complete(rq);
}

void relay_data(struct request *rq, struct str data)
{
    struct piece p = scan(rq, data);
    if (p.scan == SCAN_BAD) {
        upstream_failed(rq, OUT_GARBAGE, "upstream_garbage");
        return;
    }
    if (rq->committed && p.scan == SCAN_END)
        request_settle(rq);
    if (rq->committed)
        write_out(rq, STR_NULL, STR_NULL, p.raw);
    else if (hold_back(rq, &p))
        return;
    else
        commit(rq, p);
    if (p.scan == SCAN_END)
        finish(rq, rq->up_keep && !p.excess);
}

void relay_eof(struct request *rq)
{
    if (rq->framing != H1_BODY_EOF) {
        upstream_failed(rq, OUT_RESET, "upstream_truncated");
        return;
    }
    if (!rq->committed)
        commit(rq, (struct piece){.scan = SCAN_END});
    finish(rq, false);
}

/* --- the head ------------------------------------------------------------------------------------------------ */

bool relay_is_event_stream(const struct h1_head *head)
{
    const struct h1_header *h = h1_find(head, H_CONTENT_TYPE);
    return h && h->value.n >= 17 && str_ieq(str_first(h->value, 17), STR("text/event-stream"));
}

static bool goes_elsewhere(struct request *rq, unsigned status)
{
    if (pd_try_again(rq, status))
        return true;
    if (status == 502 || status == 503)
        return request_try_elsewhere(rq, OUT_SERVER_ERROR);
    if (status == 404 && rq->is_model_kind && rq->backend->pool) {
        port_models_stale(rq->backend->port, rq->ep, hash_bytes(rq->target.p, rq->target.n, 0));
        return request_try_elsewhere(rq, OUT_MODEL_MISSING);
    }
    return false;
}

static void set_framing(struct request *rq, const struct h1_head *head)
{
    rq->framing = head->framing;
    rq->resp_left = head->framing == H1_BODY_LENGTH ? head->content_length : 0;
    h1_chunked_init(&rq->chunked_out);
    rq->up_keep = head->keep_alive && head->framing != H1_BODY_EOF;
    rq->client_keep = rq->keep_alive && !rq->c->close && !rq->w->draining;
    rq->mode = RELAY_RAW;
    if (rq->http10 && head->framing == H1_BODY_CHUNKED)
        rq->mode = RELAY_DECHUNK;
    else if (!rq->http10 && head->framing == H1_BODY_EOF)
        rq->mode = RELAY_ENCHUNK;
    if (rq->http10 && (head->framing == H1_BODY_CHUNKED || head->framing == H1_BODY_EOF))
        rq->client_keep = false;
}

void relay_head(struct request *rq, const struct h1_head *head, struct str rest)
{
    rq->head_seen = true;
    if (goes_elsewhere(rq, head->status))
        return;
    rq->status = head->status;
    rq->event_stream = relay_is_event_stream(head);
    set_framing(rq, head);
    if (rq->backend->pool && head->status < 300 && !rq->tail) {
        rq->tail = xmalloc(sizeof *rq->tail);
        sse_init(rq->tail);
    }
    rq->resp_head = headers_response(rq, head);
    if (head->framing == H1_BODY_NONE || (head->framing == H1_BODY_LENGTH && !head->content_length)) {
        commit(rq, (struct piece){.scan = SCAN_END});
        finish(rq, rq->up_keep && !rest.n);
        return;
    }
    if (rest.n)
        relay_data(rq, rest);
    if (rq->head_seen && !rq->committed && rq->state != REQ_DONE)
        rq->resp_head = arena_str(&rq->arena, rq->resp_head);
}
