/* sim/read.c - the body of an inference request, of whichever API: what is asked for, and whether it can be had. */
#include "sim/server_priv.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_CHOICES 4096
#define SPREAD      0.6 /* sigma of drawn answer lengths */

struct reading { /* a request being checked */
    struct server *s;
    enum sim_api api;
    struct httpd_req *rq;
    struct body b;
    struct prompts prompts;
    struct job *j;
    bool ignore_eos;
    uint64_t min_tokens, limit; /* limit: of the answer; UINT64_MAX = what is left of the context */
    uint64_t *limits;           /* instead, for each prompt of a batch; or NULL */
    uint32_t n_limits;
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

/* The adapter of a request that names it apart from the model. */
static bool read_lora_path(struct reading *r)
{
    struct buf name;
    bool known = true;
    buf_init(&name, r->b.raw[B_LORA_PATH].n + 16);
    if (body_string(r->b.raw[B_LORA_PATH], &name))
        r->j->lora = model_lora(r->s, buf_str(&name), &known);
    if (!known)
        (void)REFUSE(r, 400, "lora_path", "The LoRA adapter '" STR_FMT "' is not loaded.", STR_ARG(buf_str(&name)));
    buf_free(&name);
    return known;
}

static void own_model(struct reading *r, struct str name)
{
    r->j->own_model = str_dup(name);
    r->j->model = (struct str){r->j->own_model, name.n};
}

/* SGLang serves whatever name is asked for; "base:adapter" selects an adapter. */
static bool loose_model(struct reading *r, struct str name)
{
    ptrdiff_t colon = str_find(name, STR(":"));
    bool known = true;
    r->j->lora = model_lora(r->s, name, &known);
    if (!known && colon >= 0)
        r->j->lora = model_lora(r->s, str_from(name, (size_t)colon + 1), &known);
    if (!known && colon >= 0)
        return REFUSE(r, 400, "model", "The LoRA adapter of '" STR_FMT "' is not loaded.", STR_ARG(name));
    own_model(r, name);
    return true;
}

static bool strict_model(struct reading *r, struct str name)
{
    bool known = true;
    r->j->lora = model_lora(r->s, name, &known);
    if (!known)
        return REFUSE(r, 404, "model", "The model `" STR_FMT "` does not exist.", STR_ARG(name));
    r->j->model = model_name(r->s, name);
    return true;
}

/* Triton: the path names it. */
static bool path_model(struct reading *r)
{
    struct str name, what;
    CHECK(triton_path(r->rq->head->path, &name, &what));
    own_model(r, name);
    r->j->stream = str_eq_c(what, "generate_stream");
    return true;
}

static bool read_model(struct reading *r)
{
    struct str raw = r->b.raw[B_MODEL];
    struct buf name;
    r->j->model = r->s->names[0];
    if (r->api == SIM_TRITON_GENERATE)
        return path_model(r);
    if (raw.n && r->api != SIM_GENERATE) {
        buf_init(&name, raw.n + 16);
        bool ok = body_string(raw, &name);
        if (!ok)
            (void)REFUSE(r, 400, "model", "Input should be a valid string");
        else if (r->s->opt->dialect == SIM_SGLANG)
            ok = loose_model(r, buf_str(&name));
        else
            ok = strict_model(r, buf_str(&name));
        buf_free(&name);
        if (!ok)
            return false;
    }
    return r->s->opt->dialect == SIM_SGLANG && r->b.raw[B_LORA_PATH].n ? read_lora_path(r) : true;
}

/* Triton: the path says whether the answer is streamed, the body whether it comes in pieces. */
static bool read_triton_flags(struct reading *r)
{
    bool pieces = false;
    r->j->n = 1;
    if (body_bool(r->b.raw[B_STREAM], &pieces) == BODY_BAD ||
        body_bool(r->b.raw[B_ACCUMULATE], &r->j->accumulate) == BODY_BAD)
        return REFUSE(r, 400, "stream", "stream and accumulate_tokens must be true or false");
    if (pieces && !r->j->stream)
        return REFUSE(r, 400, "stream", "generate expects model to produce exactly 1 response, use generate_stream");
    r->j->batch = r->j->stream && !pieces; /* one event with everything */
    return true;
}

static bool read_flags(struct reading *r)
{
    struct job *j = r->j;
    const struct str *raw = r->b.raw;
    if (r->api == SIM_TRITON_GENERATE)
        return read_triton_flags(r);
    if (body_bool(raw[B_STREAM], &j->stream) == BODY_BAD)
        return REFUSE(r, 400, "stream", "Input should be a valid boolean");
    if (body_bool(raw[B_IGNORE_EOS], &r->ignore_eos) == BODY_BAD)
        return REFUSE(r, 400, "ignore_eos", "Input should be a valid boolean");
    if (api_pools(r->api))
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
        j->include_usage = r->s->opt->dialect == SIM_VLLM; /* there the object alone asks for it */
        (void)body_bool(m[0], &j->include_usage);
    }
    uint64_t n = 1;
    if (body_u64(raw[B_N], &n) == BODY_BAD || n < 1 || n > 128)
        return REFUSE(r, 400, "n", "n must be between 1 and 128.");
    j->n = r->api == SIM_CHAT || r->api == SIM_COMPLETIONS ? (uint32_t)n : 1;
    return true;
}

/* /generate: the limits of one prompt. */
static bool one_sampling(struct reading *r, struct str raw, uint64_t *limit)
{
    static const char *const keys[] = {"max_new_tokens", "min_new_tokens", "ignore_eos", "n"};
    struct str m[ARRAY_LEN(keys)];
    const char *error;
    uint64_t n = 1;
    *limit = 128;
    if (!raw.n)
        return true;
    if (!body_members(raw, keys, ARRAY_LEN(keys), m, &error) || body_u64(m[0], limit) == BODY_BAD ||
        body_u64(m[1], &r->min_tokens) == BODY_BAD || body_bool(m[2], &r->ignore_eos) == BODY_BAD ||
        body_u64(m[3], &n) == BODY_BAD || n < 1 || n > 128 || *limit < 1)
        return REFUSE(r, 400, "sampling_params", "sampling_params is not valid.");
    r->j->n = (uint32_t)n;
    return true;
}

static bool more_sampling(void *ctx, struct str value)
{
    struct reading *r = ctx;
    if (r->n_limits == BODY_MAX_PROMPTS)
        return REFUSE(r, 400, "sampling_params", "At most %d prompts per request.", BODY_MAX_PROMPTS);
    r->limits = xrealloc(r->limits, (r->n_limits + 1) * sizeof(*r->limits));
    return one_sampling(r, value, &r->limits[r->n_limits++]);
}

static bool read_sampling(struct reading *r)
{
    struct str raw = r->b.raw[B_SAMPLING];
    if (!raw.n || raw.p[0] != '[')
        return one_sampling(r, raw, &r->limit);
    return body_each(raw, more_sampling, r);
}

static bool read_limits(struct reading *r)
{
    static const enum body_key by_api[] = {[SIM_COMPLETIONS] = B_MAX_TOKENS,
                                           [SIM_CHAT] = B_MAX_TOKENS,
                                           [SIM_EMBEDDINGS] = B_KEYS,
                                           [SIM_RESPONSES] = B_MAX_OUTPUT_TOKENS,
                                           [SIM_MESSAGES] = B_MAX_TOKENS,
                                           [SIM_TRITON_GENERATE] = B_MAX_TOKENS,
                                           [SIM_RERANK] = B_KEYS,
                                           [SIM_SCORE] = B_KEYS};
    if (r->api == SIM_GENERATE)
        return read_sampling(r);
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
    if (got == BODY_ABSENT && (r->api == SIM_MESSAGES || r->api == SIM_TRITON_GENERATE))
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

/* SGLang's and Triton's own: text or token ids; a list of them is a batch. */
static bool read_native_prompts(struct reading *r)
{
    const char *error = NULL;
    struct str text = r->b.raw[r->api == SIM_GENERATE ? B_TEXT : B_TEXT_INPUT], ids = r->b.raw[B_INPUT_IDS];
    struct str raw = r->api == SIM_GENERATE && ids.n ? ids : text;
    if ((r->api == SIM_GENERATE && text.n && ids.n) || !raw.n)
        return REFUSE(r, 400, "text",
                      r->api == SIM_GENERATE ? "Either text or input_ids should be provided, and not both."
                                             : "expected input 'text_input'");
    if (!prompts_plain(&r->prompts, raw, &error))
        return REFUSE(r, 400, "text", "%s", error);
    if (r->api == SIM_GENERATE)
        r->j->batch = raw.p[0] == '[' && (text.n || r->prompts.n > 1 || str_find(str_from(raw, 1), STR("[")) >= 0);
    if (r->limits && r->n_limits != r->prompts.n)
        return REFUSE(r, 400, "sampling_params", "There are %u prompts and %u sets of sampling_params.", r->prompts.n,
                      r->n_limits);
    return true;
}

/* A prompt for each document: the query, then the document. */
static bool read_documents(struct reading *r)
{
    bool rerank = r->api == SIM_RERANK;
    struct str query = r->b.raw[rerank ? B_QUERY : B_TEXT_1];
    struct prompts q = {0};
    const char *error = NULL;
    r->j->documents = r->b.raw[rerank ? B_DOCUMENTS : B_TEXT_2];
    bool ok = body_is_string(query) && prompts_plain(&q, query, &error) &&
              prompts_plain(&r->prompts, r->j->documents, &error) &&
              body_u64(r->b.raw[B_TOP_N], &r->j->top_n) != BODY_BAD;
    for (uint32_t i = 0; ok && i < r->prompts.n; i++) {
        struct tokens both = {0}, *doc = &r->prompts.v[i];
        for (uint32_t k = 0; k < q.v[0].n + doc->n; k++)
            tokens_add(&both, k < q.v[0].n ? q.v[0].v[k] : doc->v[k - q.v[0].n]);
        tokens_free(doc);
        *doc = both;
    }
    prompts_free(&q);
    return ok ? true
              : REFUSE(r, 400, NULL, "%s",
                       rerank ? "query must be a string and documents a list of strings."
                              : "text_1 must be a string and text_2 a string or a list of strings.");
}

static bool read_prompts(struct reading *r)
{
    const char *error = NULL;
    const struct str *raw = r->b.raw;
    bool ok;
    if (r->api == SIM_GENERATE || r->api == SIM_TRITON_GENERATE)
        return read_native_prompts(r);
    if (r->api == SIM_RERANK || r->api == SIM_SCORE)
        return read_documents(r);
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
    if (!api_pools(r->api) && !r->ignore_eos && (o->mean_output || r->j->unlimited)) {
        struct rng rng;
        rng_init(&rng, hash_mix(c->seed, o->seed));
        double v = exp(SPREAD * rng_normal(&rng) - SPREAD * SPREAD / 2) * (double)mean;
        want = MAX((uint64_t)MAX(v, 1.0), r->min_tokens);
    }
    c->eos = want < limit || (want == limit && r->j->unlimited);
    c->out_len = (uint32_t)MIN(want, limit);
    c->finish = c->eos || api_pools(r->api) ? FINISH_STOP : FINISH_LENGTH;
}

static bool too_long(struct reading *r, uint32_t prompt, uint64_t limit)
{
    unsigned long long want = limit == UINT64_MAX ? 1 : limit;
    return REFUSE(r, 400, "max_tokens",
                  "This model's maximum context length is %u tokens. However, you requested %llu tokens (%u in "
                  "the prompt, %llu in the completion). Please reduce the length of the prompt or of the completion.",
                  r->s->max_model_len, prompt + want, prompt, want);
}

/* The answer to prompt number i / n. */
static bool make_choice(struct reading *r, struct choice *c, uint32_t i)
{
    struct job *j = r->j;
    const struct tokens *t = &r->prompts.v[i / j->n];
    uint64_t limit = r->limits ? r->limits[i / j->n] : r->limit;
    uint64_t room = r->s->max_model_len > t->n ? r->s->max_model_len - t->n : 0;
    c->job = j;
    c->n_prompt = t->n;
    buf_init(&c->text, SIZE_MAX / 2);
    if (room == 0 || (limit != UINT64_MAX && limit > room && !api_pools(r->api)))
        return too_long(r, t->n, limit);
    c->key = hash_bytes(t->v, t->n * sizeof(*t->v), j->lora);
    c->seed = hash_mix(c->key, i % j->n);
    draw_length(r, c, MIN(limit, room));
    if (i % j->n == 0)
        j->prompt_tokens += t->n;
    for (uint32_t k = 0; k < t->n; k++)
        tokens_add(&c->tok, t->v[k]);
    return true;
}

static bool make_choices(struct reading *r)
{
    struct job *j = r->j;
    uint64_t total = (uint64_t)r->prompts.n * j->n;
    if (total > MAX_CHOICES)
        return REFUSE(r, 400, "n", "At most %d answers per request.", MAX_CHOICES);
    j->choice = xcalloc(total, sizeof(*j->choice));
    j->n_choices = j->n_live = (uint32_t)total;
    for (uint32_t i = 0; i < total; i++)
        if (!make_choice(r, &j->choice[i], i))
            return false;
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

/* ---- halves of a pair ---- */

struct room_list { /* bootstrap_room, _host, _port as lists */
    struct reading *r;
    uint32_t i;
};

static bool read_room(struct choice *c, struct str raw)
{
    return body_u64(raw, &c->room) == BODY_OK && c->room <= INT64_MAX;
}

static bool list_room(void *ctx, struct str v)
{
    struct room_list *l = ctx;
    struct job *j = l->r->j;
    return l->i < j->n_choices && read_room(&j->choice[l->i++], v);
}

static bool list_host(void *ctx, struct str v)
{
    struct room_list *l = ctx;
    struct job *j = l->r->j;
    if (l->i >= j->n_choices)
        return false;
    j->choice[l->i++].room_host = v;
    return true;
}

static bool list_port(void *ctx, struct str v)
{
    struct room_list *l = ctx;
    struct job *j = l->r->j;
    return l->i < j->n_choices && body_u64(v, &j->choice[l->i++].room_port) != BODY_BAD;
}

/* A list has an item for each answer. A single value is for all; rooms count up from it. */
static bool spread(struct reading *r, enum body_key key, bool (*one)(void *ctx, struct str v))
{
    struct room_list l = {r, 0};
    struct str raw = r->b.raw[key];
    if (raw.n && raw.p[0] == '[')
        return body_each(raw, one, &l) && l.i == r->j->n_choices;
    for (uint32_t i = 0; i < r->j->n_choices; i++) {
        if (!one(&l, raw))
            return false;
        if (key == B_ROOM)
            r->j->choice[i].room += i;
    }
    return true;
}

static bool read_rooms(struct reading *r)
{
    struct job *j = r->j;
    if (api_pools(r->api))
        return true;
    if (!r->b.raw[B_ROOM].n)
        return REFUSE(r, 500, "bootstrap_room",
                      "This server is one half of a prefill/decode pair and the request has no bootstrap_room. Send it "
                      "to the router instead.");
    for (uint32_t i = 0; i < j->n_choices; i++)
        j->choice[i].room_port = 8998;
    if (!spread(r, B_ROOM, list_room) || !spread(r, B_ROOM_HOST, list_host) || !spread(r, B_ROOM_PORT, list_port))
        return REFUSE(r, 400, "bootstrap_room",
                      "bootstrap_room must be a whole number below 2^63, bootstrap_port a port; or lists with one item "
                      "for each of the %u answers.",
                      j->n_choices);
    j->kv = JOB_ROOM;
    for (uint32_t i = 0; i < j->n_choices && r->s->opt->role == SIM_PREFILL; i++) {
        j->choice[i].out_len = 1; /* the other half goes on */
        j->choice[i].eos = false;
        j->choice[i].finish = FINISH_LENGTH;
    }
    return true;
}

static bool read_nixl(struct reading *r)
{
    static const char *const keys[] = {"do_remote_decode", "do_remote_prefill"};
    struct str raw = r->b.raw[B_KV_PARAMS], m[2];
    const char *error;
    bool decode = false, prefill = false;
    if (!raw.n || api_pools(r->api))
        return true;
    if (!body_members(raw, keys, 2, m, &error) || body_bool(m[0], &decode) == BODY_BAD ||
        body_bool(m[1], &prefill) == BODY_BAD)
        return REFUSE(r, 400, "kv_transfer_params", "Input should be a valid dictionary");
    r->j->kv = prefill ? JOB_FETCH : decode ? JOB_OFFER : JOB_ALONE;
    r->j->kv_params = raw;
    return true;
}

/* Which engine: a header of vLLM's, members of SGLang's. */
static bool read_rank(struct reading *r)
{
    const struct h1_header *h = h1_find_name(r->rq->head, STR("x-data-parallel-rank"));
    const struct str *raw = r->b.raw;
    struct str given = h ? h->value : raw[B_RANK].n ? raw[B_RANK] : raw[B_OLD_RANK];
    uint64_t rank = 0;
    r->j->prefill_rank = UINT64_MAX;
    bool ok = body_u64(given, &rank) != BODY_BAD;
    rank -= given.n ? r->s->ranks[0].index : 0;
    if (!ok || (given.n && rank >= r->s->n_ranks))
        return REFUSE(r, 400, "data_parallel_rank", "There is no data parallel rank " STR_FMT ".", STR_ARG(given));
    r->j->pinned = given.n ? (unsigned)rank + 1 : 0;
    if (body_u64(raw[B_PREFILL_RANK], &r->j->prefill_rank) == BODY_BAD)
        return REFUSE(r, 400, "disagg_prefill_dp_rank", "Input should be a valid integer");
    return true;
}

static bool read_pair(struct reading *r)
{
    if (!read_rank(r))
        return false;
    if (r->s->opt->role != SIM_UNIFIED)
        return read_rooms(r);
    return r->s->opt->nixl ? read_nixl(r) : true;
}

/* ---- all of it ---- */

static bool own_id(struct reading *r)
{
    struct str raw = r->b.raw[r->api == SIM_GENERATE ? B_RID : B_ID];
    struct buf id;
    buf_init(&id, raw.n + 16);
    if (body_is_string(raw))
        (void)body_string(raw, &id);
    else if (raw.n && raw.p[0] != '[')
        buf_add_str(&id, raw);
    bool ok = id.n > 0 && id.n < sizeof(r->j->id);
    if (ok)
        memcpy(r->j->id, id.p, id.n);
    buf_free(&id);
    return ok;
}

static void make_id(struct reading *r)
{
    static const char *const prefix[] = {
        [SIM_COMPLETIONS] = "cmpl-", [SIM_CHAT] = "chatcmpl-",     [SIM_EMBEDDINGS] = "embd-",
        [SIM_RESPONSES] = "resp_",   [SIM_MESSAGES] = "chatcmpl-", [SIM_GENERATE] = "",
        [SIM_TRITON_GENERATE] = "",  [SIM_RERANK] = "rerank-",     [SIM_SCORE] = "score-"};
    struct job *j = r->j;
    bool native = r->api == SIM_GENERATE || r->api == SIM_TRITON_GENERATE;
    const struct h1_header *given = h1_find(j->rq->head, H_X_REQUEST_ID);
    if (native && (own_id(r) || r->api == SIM_TRITON_GENERATE))
        return;
    uint64_t a = rng_u64(&j->s->rng), b = rng_u64(&j->s->rng);
    if (!native && given && given->value.n && given->value.n < 64)
        (void)snprintf(j->id, sizeof(j->id), "%s" STR_FMT, prefix[j->api], STR_ARG(given->value));
    else
        (void)snprintf(j->id, sizeof(j->id), "%s%08x-%04x-4%03x-%04x-%012llx", prefix[j->api], (unsigned)(a >> 32),
                       (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff), (unsigned)(0x8000 | (b >> 48 & 0x3fff)),
                       (unsigned long long)(b & 0xffffffffffffull));
}

static bool read_request(struct reading *r)
{
    const char *error;
    if (r->api != SIM_TRITON_GENERATE && !json_type_ok(r->rq->head))
        return REFUSE(r, r->s->opt->dialect == SIM_SGLANG ? 400 : 415, NULL,
                      "Unsupported Media Type: Only 'application/json' is allowed");
    if (!body_scan(r->rq->body, &r->b, &error))
        return REFUSE(r, 400, NULL, "JSON decode error: %s", error);
    return read_model(r) && read_flags(r) && read_limits(r) && read_embedding(r) && read_prompts(r) &&
           make_choices(r) && read_pair(r);
}

bool job_read(struct job *j)
{
    struct reading r = {.s = j->s, .api = j->api, .rq = j->rq, .j = j};
    bool ok = read_request(&r);
    prompts_free(&r.prompts);
    free(r.limits);
    if (!ok)
        return false;
    struct str salt = r.b.raw[B_CACHE_SALT];
    j->salt = salt.n ? hash_bytes(salt.p, salt.n, 1) : 0;
    make_id(&r);
    return true;
}
