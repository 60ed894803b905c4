/* sim/answer.c - whole JSON bodies of the APIs that several servers have, and errors. Field order is vLLM's. */
#include "sim/answer_priv.h"

#include "base/hash.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *const finish_names[FINISH_N] = {"stop", "length", "abort", "error"};

/* ---- plumbing ---- */

const char *server_headers(const struct server *s, const struct h1_head *head, struct buf *out)
{
    const struct h1_header *id = h1_find(head, H_X_REQUEST_ID);
    if (id)
        buf_addf(out, "X-Request-Id: " STR_FMT "\r\n", STR_ARG(id->value));
    if (s->opt->pod_name.n)
        buf_addf(out, "x-inference-pod: " STR_FMT "\r\nx-inference-namespace: " STR_FMT "\r\n",
                 STR_ARG(s->opt->pod_name), STR_ARG(s->opt->pod_ns));
    return buf_cstr(out);
}

void respond_json(struct server *s, struct httpd_req *rq, unsigned status, struct str body)
{
    struct buf h;
    buf_init(&h, H1_MAX_HEAD);
    httpd_respond(rq, status, "application/json", server_headers(s, rq->head, &h), body);
    buf_free(&h);
}

/* The shapes of errors: {"error":{...}}, Anthropic's, one flat object, only a sentence. */
enum error_shape { ERROR_NESTED, ERROR_ANTHROPIC, ERROR_FLAT, ERROR_PLAIN };
struct error {
    unsigned status;
    const char *type, *param, *msg;
};

static void error_members(struct jsonw *w, const struct error *e)
{
    member(w, "message", e->msg);
    member(w, "type", e->type);
    member(w, "param", e->param);
    member_u64(w, "code", e->status);
}

static void error_json(struct buf *out, enum error_shape shape, const struct error *e)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    if (shape == ERROR_PLAIN) {
        member(&w, "error", e->msg);
    } else if (shape == ERROR_FLAT) {
        member(&w, "object", "error");
        error_members(&w, e);
    } else {
        if (shape == ERROR_ANTHROPIC)
            member(&w, "type", "error");
        jsonw_key(&w, "error");
        jsonw_obj(&w);
        if (shape == ERROR_NESTED) {
            error_members(&w, e);
        } else {
            member(&w, "type", e->type);
            member(&w, "message", e->msg);
        }
        jsonw_obj_end(&w);
    }
    jsonw_obj_end(&w);
}

static enum error_shape error_shape(const struct server *s, enum sim_api api)
{
    if (s->opt->dialect == SIM_TRITON)
        return ERROR_PLAIN;
    if (api == SIM_MESSAGES)
        return ERROR_ANTHROPIC;
    bool flat = s->opt->dialect == SIM_TRTLLM || (s->opt->dialect == SIM_SGLANG && api != SIM_RESPONSES);
    return flat ? ERROR_FLAT : ERROR_NESTED;
}

static const char *error_type(unsigned status)
{
    switch (status) {
    case 404:
        return "NotFoundError";
    case 415:
        return "Unsupported Media Type";
    case 503:
        return "ServiceUnavailableError";
    default:
        return status >= 500 ? "InternalServerError" : "BadRequestError";
    }
}

void api_error(struct server *s, struct httpd_req *rq, enum sim_api api, unsigned status, const char *param,
               const char *fmt, ...)
{
    char msg[1024];
    struct buf b;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    struct error e = {status, error_type(status), param, msg};
    buf_init(&b, 16384);
    error_json(&b, error_shape(s, api), &e);
    respond_json(s, rq, status, buf_str(&b));
    buf_free(&b);
}

void server_error(struct httpd_req *rq, unsigned status, const char *type, const char *param, const char *headers,
                  const char *fmt, ...)
{
    char msg[1024];
    struct buf b;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    struct error e = {status, type, param, msg};
    buf_init(&b, 16384);
    error_json(&b, ERROR_NESTED, &e);
    httpd_respond(rq, status, "application/json", headers, buf_str(&b));
    buf_free(&b);
}

/* Events wear the nested shape whatever the server's answers look like; Triton ends a stream without a mark. */
void answer_stream_error(struct job *j, unsigned status, const char *msg)
{
    struct error e = {status, error_type(status), NULL, msg};
    bool triton = j->s->opt->dialect == SIM_TRITON, anthropic = j->api == SIM_MESSAGES;
    struct buf b;
    answer_begin(j);
    buf_init(&b, 16384);
    buf_add_str(&b, anthropic ? STR("event: error\ndata: ") : STR("data: "));
    error_json(&b, triton ? ERROR_PLAIN : anthropic ? ERROR_ANTHROPIC : ERROR_NESTED, &e);
    buf_add_str(&b, STR("\n\n"));
    httpd_chunk(j->rq, buf_str(&b));
    buf_free(&b);
    if (!triton)
        httpd_chunk(j->rq, STR("data: [DONE]\n\n"));
    httpd_end(j->rq);
}

/* ---- common members ---- */

void member(struct jsonw *w, const char *key, const char *value)
{
    jsonw_key(w, key);
    jsonw_cstr(w, value);
}

void member_u64(struct jsonw *w, const char *key, uint64_t v)
{
    jsonw_key(w, key);
    jsonw_u64(w, v);
}

void answer_opening(struct jsonw *w, const struct job *j, const char *object)
{
    jsonw_obj(w);
    member(w, "id", j->id);
    member(w, "object", object);
    member_u64(w, "created", j->created);
    jsonw_key(w, "model");
    jsonw_str(w, j->model);
}

/* What ends an answer, in the words of the server. */
void answer_stop(struct jsonw *w, const struct job *j, const struct choice *c)
{
    const char *key = j->s->opt->dialect == SIM_SGLANG ? "matched_stop" : "stop_reason";
    jsonw_key(w, key);
    if (j->s->opt->dialect == SIM_SGLANG && c->eos)
        jsonw_u64(w, TOKEN_STOP);
    else
        jsonw_null(w);
}

static void usage(struct jsonw *w, const struct job *j)
{
    jsonw_key(w, "usage");
    jsonw_obj(w);
    member_u64(w, "prompt_tokens", j->prompt_tokens);
    member_u64(w, "total_tokens", j->prompt_tokens + j->completion_tokens);
    member_u64(w, "completion_tokens", api_pools(j->api) ? 0 : j->completion_tokens);
    jsonw_key(w, "prompt_tokens_details");
    if (j->s->opt->prompt_tokens_details && j->cached_tokens) {
        jsonw_obj(w);
        member_u64(w, "cached_tokens", j->cached_tokens);
        jsonw_obj_end(w);
    } else {
        jsonw_null(w);
    }
    if (j->s->opt->dialect == SIM_SGLANG)
        member_u64(w, "reasoning_tokens", 0);
    jsonw_obj_end(w);
}

static void hand_over(struct jsonw *w, const struct job *j)
{
    if (j->s->opt->dialect != SIM_VLLM)
        return;
    jsonw_key(w, "kv_transfer_params");
    disagg_offer(w, j);
}

/* ---- whole bodies ---- */

static void whole_completion(struct jsonw *w, const struct job *j)
{
    answer_opening(w, j, "text_completion");
    jsonw_key(w, "choices");
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->n_choices; i++) {
        jsonw_obj(w);
        member_u64(w, "index", i);
        jsonw_key(w, "text");
        jsonw_str(w, buf_str(&j->choice[i].text));
        member(w, "logprobs", NULL);
        member(w, "finish_reason", finish_names[j->choice[i].finish]);
        answer_stop(w, j, &j->choice[i]);
        member(w, "prompt_logprobs", NULL);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    usage(w, j);
    hand_over(w, j);
    jsonw_obj_end(w);
}

static void whole_chat(struct jsonw *w, const struct job *j)
{
    answer_opening(w, j, "chat.completion");
    jsonw_key(w, "choices");
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->n_choices; i++) {
        jsonw_obj(w);
        member_u64(w, "index", i);
        jsonw_key(w, "message");
        jsonw_obj(w);
        member(w, "role", "assistant");
        member(w, "reasoning_content", NULL);
        jsonw_key(w, "content");
        jsonw_str(w, buf_str(&j->choice[i].text));
        jsonw_key(w, "tool_calls");
        jsonw_arr(w);
        jsonw_arr_end(w);
        jsonw_obj_end(w);
        member(w, "logprobs", NULL);
        member(w, "finish_reason", finish_names[j->choice[i].finish]);
        answer_stop(w, j, &j->choice[i]);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    usage(w, j);
    member(w, "prompt_logprobs", NULL);
    hand_over(w, j);
    jsonw_obj_end(w);
}

double answer_draw(const struct choice *c, uint64_t i)
{
    return (double)(hash_mix(c->seed, i) >> 11) * 0x1p-53;
}

static float vector_at(const struct choice *c, uint64_t i, uint64_t n)
{
    return (float)((2 * answer_draw(c, i) - 1) * sqrt(3.0 / (double)n)); /* length about one */
}

static void base64(struct jsonw *w, const void *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    char *out = xmalloc(n / 3 * 4 + 5);
    size_t k = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        out[k++] = digits[v >> 18];
        out[k++] = digits[v >> 12 & 63];
        out[k++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
        out[k++] = i + 2 < n ? digits[v & 63] : '=';
    }
    jsonw_str(w, (struct str){out, k});
    free(out);
}

static void vector(struct jsonw *w, const struct job *j, const struct choice *c)
{
    if (j->base64) {
        float *v = xmalloc(j->dimensions * sizeof(*v));
        for (uint64_t i = 0; i < j->dimensions; i++)
            v[i] = vector_at(c, i, j->dimensions);
        base64(w, v, j->dimensions * sizeof(*v));
        free(v);
        return;
    }
    jsonw_arr(w);
    for (uint64_t i = 0; i < j->dimensions; i++)
        jsonw_f(w, (double)vector_at(c, i, j->dimensions));
    jsonw_arr_end(w);
}

static void whole_embeddings(struct jsonw *w, const struct job *j)
{
    answer_opening(w, j, "list");
    jsonw_key(w, "data");
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->n_choices; i++) {
        jsonw_obj(w);
        member_u64(w, "index", i);
        member(w, "object", "embedding");
        jsonw_key(w, "embedding");
        vector(w, j, &j->choice[i]);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    usage(w, j);
    jsonw_obj_end(w);
}

void answer_response(struct jsonw *w, const struct job *j, const char *status)
{
    const struct choice *c = &j->choice[0];
    bool whole = strcmp(status, "in_progress") != 0;
    jsonw_obj(w);
    member(w, "id", j->id);
    member_u64(w, "created_at", j->created);
    jsonw_key(w, "incomplete_details");
    if (!strcmp(status, "incomplete")) {
        jsonw_obj(w);
        member(w, "reason", "max_output_tokens");
        jsonw_obj_end(w);
    } else {
        jsonw_null(w);
    }
    member(w, "error", NULL);
    member(w, "instructions", NULL);
    jsonw_key(w, "metadata");
    jsonw_null(w);
    jsonw_key(w, "model");
    jsonw_str(w, j->model);
    member(w, "object", "response");
    jsonw_key(w, "output");
    jsonw_arr(w);
    if (whole) {
        jsonw_obj(w);
        jsonw_key(w, "id");
        char id[112];
        (void)snprintf(id, sizeof(id), "msg_%s", j->id + 5);
        jsonw_cstr(w, id);
        jsonw_key(w, "content");
        jsonw_arr(w);
        jsonw_obj(w);
        jsonw_key(w, "annotations");
        jsonw_arr(w);
        jsonw_arr_end(w);
        jsonw_key(w, "text");
        jsonw_str(w, buf_str(&c->text));
        member(w, "type", "output_text");
        member(w, "logprobs", NULL);
        jsonw_obj_end(w);
        jsonw_arr_end(w);
        member(w, "role", "assistant");
        member(w, "status", "completed");
        member(w, "type", "message");
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    jsonw_key(w, "parallel_tool_calls");
    jsonw_bool(w, true);
    jsonw_key(w, "temperature");
    jsonw_raw(w, STR("1.0"));
    member(w, "tool_choice", "auto");
    jsonw_key(w, "tools");
    jsonw_arr(w);
    jsonw_arr_end(w);
    jsonw_key(w, "top_p");
    jsonw_raw(w, STR("1.0"));
    jsonw_key(w, "background");
    jsonw_bool(w, false);
    member_u64(w, "max_output_tokens", j->max_tokens ? j->max_tokens : j->s->max_model_len - j->choice[0].n_prompt);
    member(w, "previous_response_id", j->previous);
    member(w, "reasoning", NULL);
    member(w, "service_tier", "auto");
    member(w, "status", status);
    member(w, "text", NULL);
    member(w, "truncation", "disabled");
    jsonw_key(w, "usage");
    if (whole) {
        jsonw_obj(w);
        member_u64(w, "input_tokens", j->prompt_tokens);
        jsonw_key(w, "input_tokens_details");
        jsonw_obj(w);
        member_u64(w, "cached_tokens", j->s->opt->prompt_tokens_details ? j->cached_tokens : 0);
        jsonw_obj_end(w);
        member_u64(w, "output_tokens", j->completion_tokens);
        jsonw_key(w, "output_tokens_details");
        jsonw_obj(w);
        member_u64(w, "reasoning_tokens", 0);
        jsonw_obj_end(w);
        member_u64(w, "total_tokens", j->prompt_tokens + j->completion_tokens);
        jsonw_obj_end(w);
    } else {
        jsonw_null(w);
    }
    member(w, "user", NULL);
    jsonw_obj_end(w);
}

const char *response_status(const struct job *j)
{
    return j->choice[0].finish == FINISH_LENGTH ? "incomplete" : "completed";
}

const char *stop_reason(const struct job *j)
{
    return j->choice[0].finish == FINISH_LENGTH ? "max_tokens" : "end_turn";
}

void answer_input_output_tokens(struct jsonw *w, const struct job *j, uint64_t out)
{
    jsonw_key(w, "usage");
    jsonw_obj(w);
    member_u64(w, "input_tokens", j->prompt_tokens);
    member_u64(w, "output_tokens", out);
    jsonw_obj_end(w);
}

static void whole_message(struct jsonw *w, const struct job *j)
{
    jsonw_obj(w);
    member(w, "id", j->id);
    member(w, "type", "message");
    member(w, "role", "assistant");
    jsonw_key(w, "content");
    jsonw_arr(w);
    jsonw_obj(w);
    member(w, "type", "text");
    jsonw_key(w, "text");
    jsonw_str(w, buf_str(&j->choice[0].text));
    jsonw_obj_end(w);
    jsonw_arr_end(w);
    jsonw_key(w, "model");
    jsonw_str(w, j->model);
    member(w, "stop_reason", stop_reason(j));
    member(w, "stop_sequence", NULL);
    answer_input_output_tokens(w, j, j->completion_tokens);
    jsonw_obj_end(w);
}

static void whole_response(struct jsonw *w, const struct job *j)
{
    answer_response(w, j, response_status(j));
}

static void whole_triton(struct jsonw *w, const struct job *j)
{
    triton_body(w, j, buf_str(&j->choice[0].text));
}

void answer_whole(struct job *j)
{
    static void (*const by_api[])(struct jsonw *, const struct job *) = {
        [SIM_COMPLETIONS] = whole_completion, [SIM_CHAT] = whole_chat,        [SIM_EMBEDDINGS] = whole_embeddings,
        [SIM_RESPONSES] = whole_response,     [SIM_MESSAGES] = whole_message, [SIM_GENERATE] = generate_whole,
        [SIM_TRITON_GENERATE] = whole_triton, [SIM_RERANK] = whole_rerank,    [SIM_SCORE] = whole_scores};
    struct buf out;
    struct jsonw w;
    buf_init(&out, SIZE_MAX / 2);
    jsonw_init(&w, &out);
    by_api[j->api](&w, j);
    respond_json(j->s, j->rq, 200, buf_str(&out));
    buf_free(&out);
}
