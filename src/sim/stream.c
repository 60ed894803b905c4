/* sim/stream.c - event streams of the APIs: one event, one HTTP chunk, one write to the socket. */
#include "sim/answer_priv.h"

#include <stdio.h>

void answer_begin(struct job *j)
{
    struct buf h;
    if (j->head_sent)
        return;
    j->head_sent = true;
    buf_init(&h, H1_MAX_HEAD);
    httpd_begin(j->rq, 200, j->stream ? "text/event-stream; charset=utf-8" : "application/json",
                server_headers(j->s, j->rq->head, &h));
    buf_free(&h);
}

struct event { /* one server-sent event being written */
    struct buf buf;
    struct jsonw w;
};

static struct jsonw *event_begin(struct event *e, const char *name)
{
    buf_init(&e->buf, 16u << 20);
    if (name)
        buf_addf(&e->buf, "event: %s\n", name);
    buf_add_str(&e->buf, STR("data: "));
    jsonw_init(&e->w, &e->buf);
    return &e->w;
}

static void event_send(struct event *e, struct job *j)
{
    buf_add_str(&e->buf, STR("\n\n"));
    httpd_chunk(j->rq, buf_str(&e->buf));
    buf_free(&e->buf);
}

static void chunk_completion(struct job *j, const struct choice *c, struct str piece, bool finished)
{
    struct event e;
    struct jsonw *w = event_begin(&e, NULL);
    answer_opening(w, j, "text_completion");
    jsonw_key(w, "choices");
    jsonw_arr(w);
    jsonw_obj(w);
    member_u64(w, "index", (uint64_t)(c - j->choice));
    jsonw_key(w, "text");
    jsonw_str(w, piece);
    member(w, "logprobs", NULL);
    member(w, "finish_reason", finished ? finish_names[c->finish] : NULL);
    answer_stop(w, j, c);
    jsonw_obj_end(w);
    jsonw_arr_end(w);
    jsonw_key(w, "usage");
    jsonw_null(w);
    jsonw_obj_end(w);
    event_send(&e, j);
}

static void chunk_chat(struct job *j, const struct choice *c, struct str piece, bool role, bool finished)
{
    struct event e;
    struct jsonw *w = event_begin(&e, NULL);
    answer_opening(w, j, "chat.completion.chunk");
    jsonw_key(w, "choices");
    jsonw_arr(w);
    jsonw_obj(w);
    member_u64(w, "index", (uint64_t)(c - j->choice));
    jsonw_key(w, "delta");
    jsonw_obj(w);
    if (role)
        member(w, "role", "assistant");
    jsonw_key(w, "content");
    jsonw_str(w, piece);
    jsonw_obj_end(w);
    member(w, "logprobs", NULL);
    member(w, "finish_reason", finished ? finish_names[c->finish] : NULL);
    if (finished)
        answer_stop(w, j, c);
    jsonw_obj_end(w);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
    event_send(&e, j);
}

static struct jsonw *typed(struct event *e, struct job *j, const char *type)
{
    struct jsonw *w = event_begin(e, type);
    jsonw_obj(w);
    member(w, "type", type);
    if (j->api == SIM_RESPONSES)
        member_u64(w, "sequence_number", j->seq_no++);
    return w;
}

static void typed_end(struct event *e, struct job *j)
{
    jsonw_obj_end(&e->w);
    event_send(e, j);
}

static void message_open(struct job *j)
{
    struct event e;
    struct jsonw *w = typed(&e, j, "message_start");
    jsonw_key(w, "message");
    jsonw_obj(w);
    member(w, "id", j->id);
    member(w, "type", "message");
    member(w, "role", "assistant");
    jsonw_key(w, "content");
    jsonw_arr(w);
    jsonw_arr_end(w);
    jsonw_key(w, "model");
    jsonw_str(w, j->model);
    member(w, "stop_reason", NULL);
    member(w, "stop_sequence", NULL);
    answer_input_output_tokens(w, j, 0);
    jsonw_obj_end(w);
    typed_end(&e, j);
    w = typed(&e, j, "content_block_start");
    member_u64(w, "index", 0);
    jsonw_key(w, "content_block");
    jsonw_obj(w);
    member(w, "type", "text");
    member(w, "text", "");
    jsonw_obj_end(w);
    typed_end(&e, j);
}

static void message_delta(struct job *j, struct str piece)
{
    struct event e;
    struct jsonw *w = typed(&e, j, "content_block_delta");
    member_u64(w, "index", 0);
    jsonw_key(w, "delta");
    jsonw_obj(w);
    member(w, "type", "text_delta");
    jsonw_key(w, "text");
    jsonw_str(w, piece);
    jsonw_obj_end(w);
    typed_end(&e, j);
}

static void message_close(struct job *j)
{
    struct event e;
    struct jsonw *w = typed(&e, j, "content_block_stop");
    member_u64(w, "index", 0);
    typed_end(&e, j);
    w = typed(&e, j, "message_delta");
    jsonw_key(w, "delta");
    jsonw_obj(w);
    member(w, "stop_reason", stop_reason(j));
    member(w, "stop_sequence", NULL);
    jsonw_obj_end(w);
    answer_input_output_tokens(w, j, j->completion_tokens);
    typed_end(&e, j);
    (void)typed(&e, j, "message_stop");
    typed_end(&e, j);
}

static void response_event(struct job *j, const char *type, const char *status)
{
    struct event e;
    struct jsonw *w = typed(&e, j, type);
    jsonw_key(w, "response");
    answer_response(w, j, status);
    typed_end(&e, j);
}

/* The item being written: of the output list, or (part) of its content. */
static void response_item(struct job *j, const char *type, bool part, bool done)
{
    struct event e;
    char id[112];
    struct jsonw *w = typed(&e, j, type);
    (void)snprintf(id, sizeof(id), "msg_%s", j->id + 5);
    if (part) {
        member(w, "item_id", id);
        member_u64(w, "output_index", 0);
        member_u64(w, "content_index", 0);
        jsonw_key(w, "part");
        jsonw_obj(w);
        member(w, "type", "output_text");
        jsonw_key(w, "annotations");
        jsonw_arr(w);
        jsonw_arr_end(w);
        jsonw_key(w, "text");
        jsonw_str(w, done ? buf_str(&j->choice[0].text) : STR(""));
        jsonw_obj_end(w);
    } else {
        member_u64(w, "output_index", 0);
        jsonw_key(w, "item");
        jsonw_obj(w);
        member(w, "id", id);
        member(w, "type", "message");
        member(w, "role", "assistant");
        member(w, "status", done ? "completed" : "in_progress");
        jsonw_key(w, "content");
        jsonw_arr(w);
        if (done) {
            jsonw_obj(w);
            member(w, "type", "output_text");
            jsonw_key(w, "annotations");
            jsonw_arr(w);
            jsonw_arr_end(w);
            jsonw_key(w, "text");
            jsonw_str(w, buf_str(&j->choice[0].text));
            jsonw_obj_end(w);
        }
        jsonw_arr_end(w);
        jsonw_obj_end(w);
    }
    typed_end(&e, j);
}

static void response_text(struct job *j, const char *type, const char *key, struct str text)
{
    struct event e;
    char id[112];
    struct jsonw *w = typed(&e, j, type);
    (void)snprintf(id, sizeof(id), "msg_%s", j->id + 5);
    member(w, "item_id", id);
    member_u64(w, "output_index", 0);
    member_u64(w, "content_index", 0);
    jsonw_key(w, key);
    jsonw_str(w, text);
    jsonw_key(w, "logprobs");
    jsonw_arr(w);
    jsonw_arr_end(w);
    typed_end(&e, j);
}

static void response_open(struct job *j)
{
    response_event(j, "response.created", "in_progress");
    response_event(j, "response.in_progress", "in_progress");
    response_item(j, "response.output_item.added", false, false);
    response_item(j, "response.content_part.added", true, false);
}

static void response_close(struct job *j)
{
    response_text(j, "response.output_text.done", "text", buf_str(&j->choice[0].text));
    response_item(j, "response.content_part.done", true, true);
    response_item(j, "response.output_item.done", false, true);
    bool whole = j->choice[0].finish != FINISH_LENGTH;
    response_event(j, whole ? "response.completed" : "response.incomplete", response_status(j));
}

static void generate(struct job *j, const struct choice *c, bool finished)
{
    struct event e;
    generate_event(event_begin(&e, NULL), j, c, finished);
    event_send(&e, j);
}

static void triton_event(struct job *j, const struct choice *c, struct str piece, bool finished)
{
    struct event e;
    if (j->batch && !finished) /* all of it at the end */
        return;
    triton_body(event_begin(&e, NULL), j, j->batch || j->accumulate ? buf_str(&c->text) : piece);
    event_send(&e, j);
}

void answer_token(struct job *j, struct choice *c, struct str piece, bool finished)
{
    answer_begin(j);
    bool first = c->produced == 1;
    switch (j->api) {
    case SIM_COMPLETIONS:
        chunk_completion(j, c, piece, finished);
        break;
    case SIM_CHAT:
        if (first)
            chunk_chat(j, c, STR(""), true, false);
        chunk_chat(j, c, piece, false, finished);
        break;
    case SIM_RESPONSES:
        if (first)
            response_open(j);
        if (piece.n)
            response_text(j, "response.output_text.delta", "delta", piece);
        break;
    case SIM_MESSAGES:
        if (first)
            message_open(j);
        if (piece.n)
            message_delta(j, piece);
        break;
    case SIM_GENERATE:
        generate(j, c, finished);
        break;
    case SIM_TRITON_GENERATE:
        triton_event(j, c, piece, finished);
        break;
    case SIM_EMBEDDINGS:
    case SIM_RERANK:
    case SIM_SCORE:
        break;
    }
}

static void usage_chunk(struct job *j)
{
    struct event e;
    struct jsonw *w = event_begin(&e, NULL);
    answer_opening(w, j, j->api == SIM_CHAT ? "chat.completion.chunk" : "text_completion");
    jsonw_key(w, "choices");
    jsonw_arr(w);
    jsonw_arr_end(w);
    jsonw_key(w, "usage");
    jsonw_obj(w);
    member_u64(w, "prompt_tokens", j->prompt_tokens);
    member_u64(w, "total_tokens", j->prompt_tokens + j->completion_tokens);
    member_u64(w, "completion_tokens", j->completion_tokens);
    if (j->s->opt->prompt_tokens_details && j->cached_tokens) {
        jsonw_key(w, "prompt_tokens_details");
        jsonw_obj(w);
        member_u64(w, "cached_tokens", j->cached_tokens);
        jsonw_obj_end(w);
    }
    jsonw_obj_end(w);
    jsonw_obj_end(w);
    event_send(&e, j);
}

void answer_stream_end(struct job *j)
{
    if (j->api == SIM_RESPONSES)
        response_close(j);
    else if (j->api == SIM_MESSAGES)
        message_close(j);
    else if (j->include_usage)
        usage_chunk(j);
    if (j->api != SIM_RESPONSES && j->api != SIM_TRITON_GENERATE)
        httpd_chunk(j->rq, STR("data: [DONE]\n\n"));
    httpd_end(j->rq);
}
