/* sim/job.c - one API request in the simulated server: reads the body, submits a sequence per choice, ends with the
 * answer or with the client.
 *
 *   START -> FRONT (tokenising) -> ENGINE -> answered        any state -> gone when the client leaves or a fault
 * strikes
 *
 * A job is freed in exactly one place, job_free; its sequences are cancelled first. */
#include "sim/server_priv.h"

#include "base/hash.h"
#include "sim/words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_CHOICES 4096
#define SPREAD      0.6 /* sigma of drawn answer lengths */

static void cancel_all(struct job *j)
{
    for (uint32_t i = 0; i < j->n_choices; i++)
        if (j->choice[i].seq) {
            engine_cancel(j->s->engine, j->choice[i].seq);
            j->choice[i].seq = NULL;
        }
}

void job_free(struct job *j)
{
    cancel_all(j);
    timer_stop(j->s->loop, &j->front);
    list_remove(&j->link);
    j->s->n_jobs--;
    for (uint32_t i = 0; i < j->n_choices; i++) {
        tokens_free(&j->choice[i].tok);
        buf_free(&j->choice[i].text);
    }
    free(j->choice);
    free(j->previous);
    tokens_free(&j->keep);
    free(j);
}

static void on_abort(struct httpd_req *rq)
{
    struct job *j = rq->user;
    j->s->stats.finished[FINISH_ABORT] += j->n_live;
    job_free(j);
}

void job_drop(struct job *j, bool reset)
{
    httpd_kill(j->rq, reset);
    job_free(j);
}

/* ---- reading the request ---- */

struct reading { /* a request being checked */
    struct server *s;
    enum sim_api api;
    struct httpd_req *rq;
    struct body b;
    struct prompts prompts;
    struct job *j;
    bool ignore_eos;
    uint64_t min_tokens, limit; /* limit: of the answer; UINT64_MAX = what is left of the context */
};

#define REFUSE(r, status, param, ...) (api_error((r)->s, (r)->rq, (r)->api, status, param, __VA_ARGS__), false)

static bool json_type_ok(const struct h1_head *h)
{
    const struct h1_header *ct = h1_find(h, H_CONTENT_TYPE);
    if (!ct)
        return false;
    struct str v = ct->value;
    ptrdiff_t semi = str_find(v, STR(";"));
    return str_ieq(str_trim(semi >= 0 ? str_first(v, (size_t)semi) : v), STR("application/json"));
}

static bool read_model(struct reading *r)
{
    struct str raw = r->b.raw[B_MODEL];
    struct buf name;
    bool known = true;
    if (!raw.n) {
        r->j->model = r->s->names[0];
        return true;
    }
    buf_init(&name, raw.n + 16);
    if (!body_string(raw, &name)) {
        buf_free(&name);
        return REFUSE(r, 400, "model", "Input should be a valid string");
    }
    r->j->lora = model_lora(r->s, buf_str(&name), &known);
    if (!known)
        (void)REFUSE(r, 404, "model", "The model `" STR_FMT "` does not exist.", STR_ARG(buf_str(&name)));
    else
        r->j->model = model_name(r->s, buf_str(&name));
    buf_free(&name);
    return known;
}

static bool read_flags(struct reading *r)
{
    struct job *j = r->j;
    const struct str *raw = r->b.raw;
    if (body_bool(raw[B_STREAM], &j->stream) == BODY_BAD)
        return REFUSE(r, 400, "stream", "Input should be a valid boolean");
    if (body_bool(raw[B_IGNORE_EOS], &r->ignore_eos) == BODY_BAD)
        return REFUSE(r, 400, "ignore_eos", "Input should be a valid boolean");
    if (r->api == SIM_EMBEDDINGS)
        j->stream = false;
    j->include_usage = r->s->opt->force_usage;
    if (raw[B_STREAM_OPTIONS].n && (r->api == SIM_CHAT || r->api == SIM_COMPLETIONS)) {
        static const char *const keys[] = {"include_usage"};
        struct str m[1];
        const char *error;
        if (!body_members(raw[B_STREAM_OPTIONS], keys, 1, m, &error))
            return REFUSE(r, 400, "stream_options", "Input should be a valid object");
        if (!j->stream)
            return REFUSE(r, 400, "stream_options", "Stream options can only be defined when `stream=True`.");
        j->include_usage = true; /* as vLLM: the object alone asks for it */
        (void)body_bool(m[0], &j->include_usage);
    }
    uint64_t n = 1;
    if (body_u64(raw[B_N], &n) == BODY_BAD || n < 1 || n > 128)
        return REFUSE(r, 400, "n", "n must be between 1 and 128.");
    j->n = r->api == SIM_CHAT || r->api == SIM_COMPLETIONS ? (uint32_t)n : 1;
    return true;
}

static bool read_limits(struct reading *r)
{
    static const enum body_key by_api[] = {[SIM_COMPLETIONS] = B_MAX_TOKENS,
                                           [SIM_CHAT] = B_MAX_TOKENS,
                                           [SIM_EMBEDDINGS] = B_KEYS,
                                           [SIM_RESPONSES] = B_MAX_OUTPUT_TOKENS,
                                           [SIM_MESSAGES] = B_MAX_TOKENS};
    enum body_key key = by_api[r->api];
    if (r->api == SIM_CHAT && r->b.raw[B_MAX_COMPLETION_TOKENS].n)
        key = B_MAX_COMPLETION_TOKENS;
    r->limit = r->api == SIM_COMPLETIONS ? 16 : UINT64_MAX;
    if (key == B_KEYS) {
        r->limit = 1;
        return true;
    }
    int got = body_u64(r->b.raw[key], &r->limit);
    if (got == BODY_BAD)
        return REFUSE(r, 400, "max_tokens", "Input should be a valid integer");
    if (got == BODY_OK && r->limit < 1)
        return REFUSE(r, 400, "max_tokens", "max_tokens must be at least 1, got 0.");
    if (got == BODY_ABSENT && r->api == SIM_MESSAGES)
        return REFUSE(r, 400, "max_tokens", "Field required");
    r->j->unlimited = r->limit == UINT64_MAX;
    if (body_u64(r->b.raw[B_MIN_TOKENS], &r->min_tokens) == BODY_BAD)
        return REFUSE(r, 400, "min_tokens", "Input should be a valid integer");
    return true;
}

static struct remembered *find_kept(struct server *s, struct str id)
{
    for (uint64_t i = 0; i < MIN(s->n_kept, (uint64_t)SIM_MAX_RESPONSES); i++)
        if (str_eq_c(id, s->kept[i]->id))
            return s->kept[i];
    return NULL;
}

static bool read_previous(struct reading *r, struct tokens *t)
{
    struct buf id;
    buf_init(&id, r->b.raw[B_PREVIOUS].n + 16);
    bool ok = body_string(r->b.raw[B_PREVIOUS], &id);
    struct remembered *m = ok ? find_kept(r->s, buf_str(&id)) : NULL;
    if (!m) {
        (void)REFUSE(r, ok ? 404 : 400, "previous_response_id", "Response with id '" STR_FMT "' not found.",
                     STR_ARG(buf_str(&id)));
    } else {
        r->j->previous = str_dup(buf_str(&id));
        for (uint32_t i = 0; i < m->tok.n; i++)
            tokens_add(t, m->tok.v[i]);
    }
    buf_free(&id);
    return m != NULL;
}

static bool read_prompts(struct reading *r)
{
    const char *error = NULL;
    const struct str *raw = r->b.raw;
    bool ok;
    if (r->api == SIM_COMPLETIONS || r->api == SIM_EMBEDDINGS) {
        enum body_key key = r->api == SIM_COMPLETIONS ? B_PROMPT : B_INPUT;
        ok = prompts_plain(&r->prompts, raw[key], &error);
        return ok ? true : REFUSE(r, 400, key == B_PROMPT ? "prompt" : "input", "%s", error);
    }
    r->prompts.v = xcalloc(1, sizeof(*r->prompts.v));
    r->prompts.n = r->prompts.cap = 1;
    struct tokens *t = &r->prompts.v[0];
    struct str messages = raw[r->api == SIM_RESPONSES ? B_INPUT : B_MESSAGES];
    if (r->api == SIM_RESPONSES && raw[B_PREVIOUS].n) {
        if (!read_previous(r, t))
            return false;
        ok = prompts_append(t, messages, &error);
        prompts_open_answer(t);
    } else if (r->api == SIM_CHAT && body_is_string(messages)) {
        ok = false;
        error = "Input should be a valid list";
    } else {
        ok = prompts_chat(t, messages,
                          r->api == SIM_RESPONSES  ? raw[B_INSTRUCTIONS]
                          : r->api == SIM_MESSAGES ? raw[B_SYSTEM]
                                                   : STR_NULL,
                          raw[B_TOOLS], &error);
    }
    return ok ? true : REFUSE(r, 400, r->api == SIM_RESPONSES ? "input" : "messages", "%s", error);
}

/* Length of one answer: the limit, or less where the model ends by itself. */
static void draw_length(struct reading *r, struct choice *c, uint64_t limit)
{
    const struct sim_options *o = r->s->opt;
    uint64_t mean = o->mean_output ? o->mean_output : 150, want = limit;
    if (r->api != SIM_EMBEDDINGS && !r->ignore_eos && (o->mean_output || r->j->unlimited)) {
        struct rng rng;
        rng_init(&rng, hash_mix(c->seed, o->seed));
        double v = exp(SPREAD * rng_normal(&rng) - SPREAD * SPREAD / 2) * (double)mean;
        want = MAX((uint64_t)MAX(v, 1.0), r->min_tokens);
    }
    c->eos = want < limit || (want == limit && r->j->unlimited);
    c->out_len = (uint32_t)MIN(want, limit);
    c->finish = c->eos || r->api == SIM_EMBEDDINGS ? FINISH_STOP : FINISH_LENGTH;
}

static bool make_choices(struct reading *r)
{
    struct job *j = r->j;
    uint64_t total = (uint64_t)r->prompts.n * j->n;
    if (total > MAX_CHOICES)
        return REFUSE(r, 400, "n", "At most %d answers per request.", MAX_CHOICES);
    j->choice = xcalloc(total, sizeof(*j->choice));
    j->n_choices = j->n_live = (uint32_t)total;
    for (uint32_t i = 0; i < total; i++) {
        struct choice *c = &j->choice[i];
        const struct tokens *t = &r->prompts.v[i / j->n];
        uint64_t room = r->s->max_model_len > t->n ? r->s->max_model_len - t->n : 0;
        if (room == 0 || (r->limit != UINT64_MAX && r->limit > room && r->api != SIM_EMBEDDINGS))
            return REFUSE(r, 400, "max_tokens",
                          "This model's maximum context length is %u tokens. However, you requested %llu tokens (%u in "
                          "the prompt, %llu "
                          "in the completion). Please reduce the length of the prompt or of the completion.",
                          r->s->max_model_len, (unsigned long long)(t->n + (r->limit == UINT64_MAX ? 1 : r->limit)),
                          t->n, (unsigned long long)(r->limit == UINT64_MAX ? 1 : r->limit));
        c->job = j;
        c->n_prompt = t->n;
        c->seed = hash_mix(hash_bytes(t->v, t->n * sizeof(*t->v), j->lora), i % j->n);
        buf_init(&c->text, SIZE_MAX / 2);
        draw_length(r, c, MIN(r->limit, room));
        if (i % j->n == 0)
            j->prompt_tokens += t->n;
        for (uint32_t k = 0; k < t->n; k++)
            tokens_add(&c->tok, t->v[k]);
    }
    j->max_tokens = r->limit == UINT64_MAX ? 0 : r->limit;
    return true;
}

static bool read_embedding(struct reading *r)
{
    if (r->api != SIM_EMBEDDINGS)
        return true;
    r->j->base64 = str_eq(r->b.raw[B_ENCODING], STR("\"base64\""));
    r->j->dimensions = 64;
    if (body_u64(r->b.raw[B_DIMENSIONS], &r->j->dimensions) == BODY_BAD || r->j->dimensions < 1 ||
        r->j->dimensions > 8192)
        return REFUSE(r, 400, "dimensions", "dimensions must be between 1 and 8192.");
    return true;
}

static void make_id(struct job *j)
{
    static const char *const prefix[] = {[SIM_COMPLETIONS] = "cmpl",
                                         [SIM_CHAT] = "chatcmpl",
                                         [SIM_EMBEDDINGS] = "embd",
                                         [SIM_RESPONSES] = "resp",
                                         [SIM_MESSAGES] = "chatcmpl"};
    const struct h1_header *given = h1_find(j->rq->head, H_X_REQUEST_ID);
    uint64_t a = rng_u64(&j->s->rng), b = rng_u64(&j->s->rng);
    char sep = j->api == SIM_RESPONSES ? '_' : '-';
    if (given && given->value.n && given->value.n < 64)
        (void)snprintf(j->id, sizeof(j->id), "%s%c" STR_FMT, prefix[j->api], sep, STR_ARG(given->value));
    else
        (void)snprintf(j->id, sizeof(j->id), "%s%c%08x-%04x-4%03x-%04x-%012llx", prefix[j->api], sep,
                       (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
                       (unsigned)(0x8000 | (b >> 48 & 0x3fff)), (unsigned long long)(b & 0xffffffffffffull));
}

static bool read_request(struct reading *r)
{
    const char *error;
    if (!json_type_ok(r->rq->head))
        return REFUSE(r, 415, NULL, "Unsupported Media Type: Only 'application/json' is allowed");
    if (!body_scan(r->rq->body, &r->b, &error))
        return REFUSE(r, 400, NULL, "JSON decode error: %s", error);
    return read_model(r) && read_flags(r) && read_limits(r) && read_embedding(r) && read_prompts(r) && make_choices(r);
}

/* ---- the engine ---- */

static uint32_t token_at(void *user, uint32_t index)
{
    const struct choice *c = user;
    if (c->eos && index + 1 == c->out_len)
        return TOKEN_STOP;
    return tokens_one(word_at(c->seed, index));
}

static uint64_t salt_of(const struct reading *r)
{
    struct str salt = r->b.raw[B_CACHE_SALT];
    return salt.n ? hash_bytes(salt.p, salt.n, 1) : 0;
}

static void on_front(struct timer *t)
{
    struct job *j = CONTAINER_OF(t, struct job, front);
    struct server *s = j->s;
    uint64_t now = server_now(s);
    j->arrived_us = now;
    for (uint32_t i = 0; i < j->n_choices; i++) {
        struct choice *c = &j->choice[i];
        struct engine_req rq = {.tokens = c->tok.v,
                                .n_tokens = c->tok.n,
                                .out_len = c->out_len,
                                .lora = j->lora,
                                .salt = j->seq_no,
                                .token_at = token_at,
                                .user = c};
        c->seq = engine_submit(s->engine, &rq, now);
        if (c->seq && j->api == SIM_RESPONSES) {
            j->keep = c->tok;
            c->tok = (struct tokens){0};
        }
        tokens_free(&c->tok);
        if (!c->seq) {
            cancel_all(j);
            api_error(s, j->rq, j->api, 400, "max_tokens",
                      "The request does not fit into the KV cache of this server.");
            job_free(j);
            return;
        }
    }
    j->seq_no = 0; /* held the salt until here */
    if (j->fault == AT_AFTER_HEAD && fault_in_answer(j))
        return;
    server_pump(s);
}

static bool queue_full(struct server *s)
{
    struct engine_stats es;
    if (!s->opt->max_queued)
        return false;
    engine_stats(s->engine, true, &es);
    return es.waiting >= s->opt->max_queued;
}

void job_start(struct server *s, enum sim_api api, struct httpd_req *rq)
{
    struct reading r = {.s = s, .api = api, .rq = rq};
    struct job *j = r.j = xcalloc(1, sizeof(*j));
    j->s = s;
    j->api = api;
    j->rq = rq;
    j->created = (uint64_t)time(NULL);
    list_push_back(&s->jobs, &j->link);
    s->n_jobs++;
    s->n_requests++;
    bool ok = read_request(&r);
    if (ok && queue_full(s)) {
        s->stats.rejected++;
        ok = REFUSE(&r, 503, NULL, "The request queue is full.");
    }
    prompts_free(&r.prompts);
    if (!ok) {
        job_free(j);
        return;
    }
    make_id(j);
    j->seq_no = salt_of(&r);
    j->fault = fault_hits(s, AT_AFTER_HEAD, rq->body)   ? AT_AFTER_HEAD
               : fault_hits(s, AT_MID_STREAM, rq->body) ? AT_MID_STREAM
                                                        : AT_NOW;
    rq->user = j;
    rq->on_abort = on_abort;
    hist_observe(&s->stats.n, j->n);
    hist_observe(&s->stats.max_tokens, (double)j->choice[0].out_len);
    j->front.fn = on_front;
    timer_set(s->loop, &j->front, loop_now_us(s->loop) + s->opt->frontend_us);
}

/* ---- events ---- */

static double seconds(uint64_t from_us, uint64_t to_us)
{
    return to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0;
}

static void count_token(struct server *s, struct choice *c, const struct engine_event *ev)
{
    struct stats *st = &s->stats;
    if (ev->index == 0) {
        c->first_us = ev->at_us;
        c->job->cached_tokens += ev->cached_tokens;
        hist_observe(&st->ttft, seconds(ev->arrived_us, ev->at_us));
        hist_observe(&st->queue, seconds(ev->arrived_us, ev->scheduled_us));
        hist_observe(&st->prefill, seconds(ev->scheduled_us, ev->at_us));
    } else {
        hist_observe(&st->itl, seconds(c->last_us, ev->at_us));
    }
    c->last_us = ev->at_us;
    if (!ev->finished)
        return;
    st->finished[c->finish]++;
    hist_observe(&st->e2e, seconds(ev->arrived_us, ev->at_us));
    hist_observe(&st->inference, seconds(ev->scheduled_us, ev->at_us));
    hist_observe(&st->decode, seconds(c->first_us, ev->at_us));
    hist_observe(&st->prompt, c->n_prompt);
    hist_observe(&st->generation, c->out_len);
    if (c->out_len > 1)
        hist_observe(&st->tpot, seconds(c->first_us, ev->at_us) / (c->out_len - 1));
}

/* Remembers the conversation of a finished response, so that previous_response_id finds it here. */
static void keep_response(struct job *j)
{
    struct server *s = j->s;
    struct choice *c = &j->choice[0];
    struct remembered **slot = &s->kept[s->n_kept % SIM_MAX_RESPONSES];
    if (!*slot)
        *slot = xcalloc(1, sizeof(**slot));
    tokens_free(&(*slot)->tok);
    for (uint32_t i = 0; i < c->out_len - c->eos; i++)
        tokens_add(&j->keep, token_at(c, i));
    prompts_close_answer(&j->keep);
    (*slot)->tok = j->keep;
    j->keep = (struct tokens){0};
    memcpy((*slot)->id, j->id, sizeof((*slot)->id) - 1);
    s->n_kept++;
}

static void job_done(struct job *j)
{
    if (j->api == SIM_RESPONSES)
        keep_response(j);
    if (j->stream)
        answer_stream_end(j);
    else
        answer_whole(j);
    job_free(j);
}

void job_event(void *ctx, const struct engine_event *ev)
{
    struct server *s = ctx;
    struct choice *c = ev->user;
    struct job *j = c->job;
    bool silent = c->eos && ev->finished; /* the end token has no text */
    struct str piece = silent || j->api == SIM_EMBEDDINGS ? STR_NULL : word_at(c->seed, ev->index);
    c->produced++;
    j->completion_tokens++;
    count_token(s, c, ev);
    if (ev->finished) {
        c->seq = NULL;
        j->n_live--;
    }
    if (j->muted)
        return;
    if (!j->stream || j->api == SIM_RESPONSES) /* events at the end of a streamed response repeat the whole text */
        buf_add_str(&c->text, piece);
    bool due = j->fault == AT_MID_STREAM && (j->completion_tokens > s->fault.after_tokens || j->n_live == 0);
    if (due && fault_in_answer(j))
        return;
    if (j->stream)
        answer_token(j, c, piece, ev->finished);
    if (j->n_live == 0)
        job_done(j);
}
