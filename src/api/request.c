/* The top level of a request body: which keys are read for which API, and what they set. */
#include "api/shape.h"
#include "base/json.h"

enum top_key {
    TK_MODEL,
    TK_PROMPT,
    TK_MESSAGES,
    TK_INPUT,
    TK_INSTRUCTIONS,
    TK_SYSTEM,
    TK_TOOLS,
    TK_STREAM, /* from here in the order of enum api_member_key */
    TK_STREAM_OPTIONS,
    TK_MAX_TOKENS,
    TK_MAX_COMPLETION_TOKENS,
    TK_MAX_OUTPUT_TOKENS,
    TK_MIN_TOKENS, /* to here */
    TK_CACHE_SALT,
    TK_PREVIOUS_RESPONSE_ID,
    TK_USER,
    TK_N,
    TK_TEXT,
    TK_INPUT_IDS,
    TK_SAMPLING_PARAMS,
    TK_LORA_PATH,
    TK_TEXT_INPUT,
    TK_QUERY,
    TK_QUERIES,
    TK_TEXT_1,
    TK_DOCUMENTS,
    TK_ITEMS,
    TK_TEXT_2,
    TK_COUNT
};
_Static_assert(TK_MIN_TOKENS - TK_STREAM == (int)MEMBER_MIN_TOKENS, "members stand in one order");
_Static_assert(API_MEMBERS == MEMBER_MIN_TOKENS + 1, "each member stands once");
static const struct str top_names[TK_COUNT] = {
    [TK_MODEL] = NAME("model"),
    [TK_PROMPT] = NAME("prompt"),
    [TK_MESSAGES] = NAME("messages"),
    [TK_INPUT] = NAME("input"),
    [TK_INSTRUCTIONS] = NAME("instructions"),
    [TK_SYSTEM] = NAME("system"),
    [TK_TOOLS] = NAME("tools"),
    [TK_STREAM] = NAME("stream"),
    [TK_STREAM_OPTIONS] = NAME("stream_options"),
    [TK_MAX_TOKENS] = NAME("max_tokens"),
    [TK_MAX_COMPLETION_TOKENS] = NAME("max_completion_tokens"),
    [TK_MAX_OUTPUT_TOKENS] = NAME("max_output_tokens"),
    [TK_MIN_TOKENS] = NAME("min_tokens"),
    [TK_CACHE_SALT] = NAME("cache_salt"),
    [TK_PREVIOUS_RESPONSE_ID] = NAME("previous_response_id"),
    [TK_USER] = NAME("user"),
    [TK_N] = NAME("n"),
    [TK_TEXT] = NAME("text"),
    [TK_INPUT_IDS] = NAME("input_ids"),
    [TK_SAMPLING_PARAMS] = NAME("sampling_params"),
    [TK_LORA_PATH] = NAME("lora_path"),
    [TK_TEXT_INPUT] = NAME("text_input"),
    [TK_QUERY] = NAME("query"),
    [TK_QUERIES] = NAME("queries"),
    [TK_TEXT_1] = NAME("text_1"),
    [TK_DOCUMENTS] = NAME("documents"),
    [TK_ITEMS] = NAME("items"),
    [TK_TEXT_2] = NAME("text_2"),
};
/* The keys by length, so that a key is compared with one or two names at most. */
static const unsigned keys_of_length[] = {
    [1] = BIT(TK_N),
    [4] = BIT(TK_TEXT) | BIT(TK_USER),
    [5] = BIT(TK_MODEL) | BIT(TK_INPUT) | BIT(TK_TOOLS) | BIT(TK_QUERY) | BIT(TK_ITEMS),
    [6] = BIT(TK_STREAM) | BIT(TK_PROMPT) | BIT(TK_SYSTEM) | BIT(TK_TEXT_1) | BIT(TK_TEXT_2),
    [7] = BIT(TK_QUERIES),
    [8] = BIT(TK_MESSAGES),
    [9] = BIT(TK_INPUT_IDS) | BIT(TK_LORA_PATH) | BIT(TK_DOCUMENTS),
    [10] = BIT(TK_MAX_TOKENS) | BIT(TK_MIN_TOKENS) | BIT(TK_CACHE_SALT) | BIT(TK_TEXT_INPUT),
    [12] = BIT(TK_INSTRUCTIONS),
    [14] = BIT(TK_STREAM_OPTIONS),
    [15] = BIT(TK_SAMPLING_PARAMS),
    [17] = BIT(TK_MAX_OUTPUT_TOKENS),
    [20] = BIT(TK_PREVIOUS_RESPONSE_ID),
    [21] = BIT(TK_MAX_COMPLETION_TOKENS),
};

#define COMMON (BIT(TK_MODEL) | BIT(TK_STREAM) | BIT(TK_CACHE_SALT) | BIT(TK_USER))
/* What api_pieces may have to take out. A kind that generates may hold each of them once, whether the kind reads it or
 * not. */
#define MEMBERS                                                                                                        \
    (BIT(TK_STREAM) | BIT(TK_STREAM_OPTIONS) | BIT(TK_MAX_TOKENS) | BIT(TK_MAX_COMPLETION_TOKENS) |                    \
     BIT(TK_MAX_OUTPUT_TOKENS) | BIT(TK_MIN_TOKENS))
#define QUERY_SIDE    (BIT(TK_QUERY) | BIT(TK_QUERIES) | BIT(TK_TEXT_1))
#define DOCUMENT_SIDE (BIT(TK_DOCUMENTS) | BIT(TK_ITEMS) | BIT(TK_TEXT_2))
static const unsigned keys_of_kind[API_N_KINDS] = {
    [API_OTHER] = BIT(TK_MODEL) | BIT(TK_STREAM),
    [API_COMPLETIONS] = COMMON | BIT(TK_PROMPT) | BIT(TK_STREAM_OPTIONS) | BIT(TK_MAX_TOKENS) | BIT(TK_N),
    [API_CHAT] = COMMON | BIT(TK_MESSAGES) | BIT(TK_TOOLS) | BIT(TK_STREAM_OPTIONS) | BIT(TK_MAX_TOKENS) |
                 BIT(TK_MAX_COMPLETION_TOKENS) | BIT(TK_N),
    [API_EMBEDDINGS] = COMMON | BIT(TK_INPUT) | BIT(TK_MESSAGES),
    [API_RESPONSES] = COMMON | BIT(TK_INPUT) | BIT(TK_INSTRUCTIONS) | BIT(TK_TOOLS) | BIT(TK_MAX_OUTPUT_TOKENS) |
                      BIT(TK_PREVIOUS_RESPONSE_ID),
    [API_MESSAGES] = COMMON | BIT(TK_MESSAGES) | BIT(TK_SYSTEM) | BIT(TK_TOOLS) | BIT(TK_MAX_TOKENS),
    [API_GENERATE] = COMMON | BIT(TK_TEXT) | BIT(TK_INPUT_IDS) | BIT(TK_SAMPLING_PARAMS) | BIT(TK_LORA_PATH),
    [API_TRITON] = BIT(TK_STREAM) | BIT(TK_TEXT_INPUT) | BIT(TK_MAX_TOKENS),
    [API_RERANK] = COMMON | BIT(TK_QUERY) | BIT(TK_DOCUMENTS),
    [API_SCORE] = COMMON | QUERY_SIDE | DOCUMENT_SIDE,
};

/* What only the gateway may tell a server: names of the disaggregation protocols (model-servers.md 3). */
static const char *const forbidden_keys[] = {
    "bootstrap_host",       "bootstrap_port", "bootstrap_room",         "kv_transfer_params", "ec_transfer_params",
    "disaggregated_params", "routed_dp_rank", "disagg_prefill_dp_rank", "data_parallel_rank",
};

enum section { SEC_ADAPTER, SEC_TOOLS, SEC_SYSTEM, SEC_INPUT, SEC_MESSAGES, SEC_COUNT };
struct top {
    unsigned seen; /* top_key bits */
    struct {
        size_t off, n;
    } sec[SEC_COUNT];                                              /* where the sections landed in the stream */
    struct scan_str cache_salt, previous_response_id, user, model; /* raw, decoded at the end */
    struct str lora_path;                                          /* its value, read again at the end */
};

static int top_key(struct str key, unsigned wanted)
{
    if (key.n >= ARRAY_LEN(keys_of_length))
        return -1;
    for (unsigned left = keys_of_length[key.n] & wanted; left; left &= left - 1) {
        int id = __builtin_ctz(left);
        if (memcmp(key.p, top_names[id].p, key.n) == 0)
            return id;
    }
    return -1;
}

static const char *forbidden_key(struct str key)
{
    for (size_t i = 0; i < ARRAY_LEN(forbidden_keys); i++)
        if (str_eq_c(key, forbidden_keys[i]))
            return forbidden_keys[i];
    return str_starts(key, STR("bootstrap_")) ? "bootstrap_*" : NULL;
}

/* String or null; raw.p stays NULL for null. */
static bool text_field(struct scan *s, const char *field, struct scan_str *out)
{
    int c = scan_peek(s);
    if (c == 'n')
        return scan_skip(s);
    if (c != '"')
        return scan_fail_type(s, s->p, field, "a string");
    return scan_string(s, out);
}

/* A tensor of Triton may also be written as a list. */
static bool loose(struct scan *s)
{
    return s->rq->kind == API_TRITON && scan_peek(s) == '[';
}

static bool bool_field(struct scan *s, const char *field, bool *out)
{
    const char *at = s->p;
    int c = scan_peek(s);
    if (loose(s))
        return scan_skip(s);
    if (c == 't' || c == 'f' || c == 'n') {
        enum scan_lit lit;
        if (!scan_literal(s, &lit))
            return false;
        *out = lit == SCAN_TRUE;
        return true;
    }
    return scan_fail_type(s, at, field, "true or false");
}

bool shape_count(struct scan *s, const char *field, uint64_t *out, bool *found)
{
    int c = scan_peek(s);
    struct str raw;
    *found = false;
    if (c == 'n')
        return scan_skip(s);
    if (c != '-' && (c < '0' || c > '9'))
        return scan_fail_type(s, s->p, field, "a number");
    if (!scan_number(s, &raw))
        return false;
    *found = str_to_u64(raw, out);
    return true;
}

static bool max_tokens(struct scan *s, struct top *t, int id)
{
    uint64_t v = 0;
    bool found;
    if (loose(s) || !(keys_of_kind[s->rq->kind] & BIT(id)))
        return scan_skip(s);
    if (!shape_count(s, top_names[id].p, &v, &found))
        return false;
    bool beaten = id == TK_MAX_TOKENS && s->rq->has_max_tokens && (t->seen & BIT(TK_MAX_COMPLETION_TOKENS));
    if (found && !beaten) {
        s->rq->has_max_tokens = true;
        s->rq->max_tokens = v;
    }
    return true;
}

static bool choices(struct scan *s)
{
    uint64_t v = 1;
    bool found;
    if (!shape_count(s, "n", &v, &found))
        return false;
    if (found)
        s->rq->n = (uint32_t)MAX(1u, MIN(v, UINT32_MAX));
    return true;
}

static bool stream_options(struct scan *s)
{
    struct scan_str key;
    bool first = true, seen = false;
    int more, c = scan_peek(s);
    if (c == 'n')
        return scan_skip(s);
    if (c != '{')
        return scan_fail_type(s, s->p, "stream_options", "an object");
    if (!scan_open(s))
        return false;
    while ((more = scan_key(s, &key, &first)) > 0) {
        if (!str_eq(key.text, STR("include_usage"))) {
            if (!scan_skip(s))
                return false;
            continue;
        }
        if (seen)
            return scan_fail_dup(s, s->p, "include_usage");
        seen = true;
        if (!bool_field(s, "stream_options.include_usage", &s->rq->include_usage))
            return false;
    }
    return more == 0;
}

static bool section(struct scan *s, struct top *t, int id)
{
    size_t off = s->n;
    enum section which = SEC_INPUT;
    bool ok;
    switch (id) {
    case TK_PROMPT:
    case TK_TEXT:
    case TK_TEXT_INPUT:
        ok = shape_prompt(s, top_names[id].p);
        break;
    case TK_INPUT_IDS:
        which = SEC_MESSAGES;
        ok = shape_prompt(s, top_names[id].p);
        break;
    case TK_QUERY:
    case TK_QUERIES:
    case TK_TEXT_1:
        ok = shape_side(s, top_names[id].p, true);
        break;
    case TK_DOCUMENTS:
    case TK_ITEMS:
    case TK_TEXT_2:
        which = SEC_MESSAGES;
        ok = shape_side(s, top_names[id].p, false);
        break;
    case TK_INPUT:
        ok = s->rq->kind == API_RESPONSES ? shape_responses_input(s) : shape_prompt(s, "input");
        break;
    case TK_MESSAGES:
        which = SEC_MESSAGES;
        ok = shape_messages(s);
        break;
    case TK_TOOLS:
        which = SEC_TOOLS;
        ok = shape_tools(s);
        break;
    default:
        which = SEC_SYSTEM;
        ok = shape_system(s, top_names[id].p);
        break;
    }
    t->sec[which].off = off;
    t->sec[which].n = scan_grown(s, off);
    return ok;
}

/* lora_path of /generate: a string is what the request calls its model, unless `model` stands there too. */
static bool lora_path(struct scan *s, struct top *t)
{
    (void)scan_peek(s);
    t->lora_path.p = s->p;
    bool ok = scan_skip(s);
    t->lora_path.n = (size_t)(s->p - t->lora_path.p);
    return ok;
}

/* After the last key: what lora_path is. */
static bool lora_end(struct scan *s, struct top *t)
{
    if (!t->lora_path.n || *t->lora_path.p == 'n' || str_eq(t->lora_path, STR("\"\"")))
        return true;
    struct scan_mark m = scan_rewind(s, t->lora_path);
    uint64_t text = s->rq->prompt_bytes;
    size_t off = s->n;
    bool ok;
    if (!t->model.raw.p && *s->p == '"') {
        ok = scan_string(s, &t->model);
    } else {
        ok = shape_text_or_json(s);
        scan_emit_bytes(s, "\x1f", 1);
        t->sec[SEC_ADAPTER].off = off;
        t->sec[SEC_ADAPTER].n = scan_grown(s, off);
    }
    s->rq->prompt_bytes = text; /* it is no prompt text */
    scan_resume(s, m);
    return ok;
}

/* At most one key may name a side: two would be two prompts in one place. */
static bool side_twice(struct scan *s, const struct top *t, int id)
{
    unsigned side = BIT(id) & QUERY_SIDE ? QUERY_SIDE : BIT(id) & DOCUMENT_SIDE ? DOCUMENT_SIDE : 0;
    if (!(t->seen & side))
        return false;
    return !scan_fail(s, "duplicate_key", s->p, "The key `%s` means the same as `%s`, which stands before it",
                      top_names[id].p, top_names[__builtin_ctz(t->seen & side)].p);
}

static bool top_value(struct scan *s, struct top *t, int id)
{
    struct api_request *rq = s->rq;
    switch (id) {
    case TK_MODEL:
        return text_field(s, "model", &t->model);
    case TK_STREAM:
        return bool_field(s, "stream", &rq->stream);
    case TK_STREAM_OPTIONS:
        return keys_of_kind[rq->kind] & BIT(id) ? stream_options(s) : scan_skip(s);
    case TK_MIN_TOKENS:
        return scan_skip(s);
    case TK_MAX_TOKENS:
    case TK_MAX_COMPLETION_TOKENS:
    case TK_MAX_OUTPUT_TOKENS:
        return max_tokens(s, t, id);
    case TK_CACHE_SALT:
        return text_field(s, "cache_salt", &t->cache_salt);
    case TK_PREVIOUS_RESPONSE_ID:
        return text_field(s, "previous_response_id", &t->previous_response_id);
    case TK_USER:
        return text_field(s, "user", &t->user);
    case TK_N:
        return choices(s);
    case TK_SAMPLING_PARAMS:
        return shape_sampling_params(s);
    case TK_LORA_PATH:
        return lora_path(s, t);
    default:
        return section(s, t, id);
    }
}

static bool top_object(struct scan *s, struct top *t)
{
    struct api_request *rq = s->rq;
    unsigned wanted = keys_of_kind[rq->kind] | (api_kind_generates(rq->kind) ? MEMBERS : 0);
    struct scan_str key;
    bool first = true;
    int more;
    if (scan_peek(s) != '{')
        return scan_fail(s, "invalid_json", s->p, "The request body must be a JSON object");
    if (!scan_open(s))
        return false;
    while ((more = scan_key(s, &key, &first)) > 0) {
        int id = top_key(key.text, wanted);
        if (id < 0) {
            if (!rq->forbidden)
                rq->forbidden = forbidden_key(key.text);
            if (!scan_skip(s))
                return false;
            continue;
        }
        if (t->seen & BIT(id))
            return scan_fail_dup(s, s->p, top_names[id].p);
        if (side_twice(s, t, id))
            return false;
        t->seen |= BIT(id);
        if (!top_value(s, t, id))
            return false;
        if (BIT(id) & MEMBERS)
            rq->members[rq->n_members++] = (struct api_member){(uint32_t)(id - TK_STREAM), key.raw.p - 1, s->p};
    }
    if (more < 0)
        return false;
    rq->object_end = s->p - 1;
    rq->object_empty = first;
    if (scan_peek(s) >= 0)
        return scan_fail_syntax(s, "the end");
    return true;
}

static void reverse(char *p, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        char c = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = c;
    }
}

/* Swaps the neighbours [a, a + n) and [a + n, a + n + m): the second one is usually the short one. */
static void swap_ranges(struct scan *s, size_t a, size_t n, size_t m)
{
    s->scratch->n = s->n;
    char *spare = buf_reserve(s->scratch, m);
    if (!spare) { /* no room: in place */
        reverse(s->out + a, n);
        reverse(s->out + a + n, m);
        reverse(s->out + a, n + m);
        return;
    }
    s->out = spare - s->n;
    memcpy(spare, s->out + a + n, m);
    memmove(s->out + a + m, s->out + a, n);
    memcpy(s->out + a, spare, m);
}

/* Brings the sections into the order of the stream. A section is moved in front of everything that should follow it. */
static void order_sections(struct scan *s, struct top *t)
{
    size_t done = 0; /* bytes in place */
    for (int i = 0; i < SEC_COUNT; i++) {
        size_t off = t->sec[i].off,
               n = MIN(t->sec[i].n, s->n - MIN(off, s->n)); /* less than wanted where the stream was cut */
        if (!n)
            continue;
        if (off > done) {
            swap_ranges(s, done, off - done, n);
            for (int k = i + 1; k < SEC_COUNT; k++)
                if (t->sec[k].n && t->sec[k].off < off)
                    t->sec[k].off += n;
        }
        done += n;
    }
}

/* Gives the short fields their final place: the body where they have no escapes, else behind the stream. */
static void settle(struct scan *s, struct top *t)
{
    struct api_request *rq = s->rq;
    struct {
        struct str raw, *to;
    } f[] = {{t->model.raw, &rq->model},
             {t->cache_salt.raw, &rq->cache_salt},
             {t->previous_response_id.raw, &rq->previous_response_id},
             {t->user.raw, &rq->user}};
    size_t need = 0;
    for (size_t i = 0; i < ARRAY_LEN(f); i++)
        if (f[i].raw.n && memchr(f[i].raw.p, '\\', f[i].raw.n))
            need += f[i].raw.n;
        else
            *f[i].to = f[i].raw;
    s->scratch->n = s->n;
    if (need && !buf_reserve(s->scratch, need)) { /* a full scratch: the stream gives way */
        s->n = MIN(s->n, s->scratch->max - need);
        s->scratch->n = s->n;
    }
    char *at = need ? buf_reserve(s->scratch, need) : NULL;
    for (size_t i = 0; i < ARRAY_LEN(f) && at; i++) {
        if (!f[i].raw.n || !memchr(f[i].raw.p, '\\', f[i].raw.n))
            continue;
        *f[i].to = (struct str){at, json_unescape(f[i].raw, at)};
        at += f[i].to->n;
    }
    rq->model_raw = t->model.raw;
    rq->stream_bytes = (struct str){buf_str(s->scratch).p, s->n};
}

static bool scan_start(struct scan *s, struct str body)
{
    buf_clear(s->scratch);
    s->out = buf_reserve(s->scratch, body.n + 64);
    if (!s->out) {
        *s->e = (struct api_error){.status = 413, .code = "body_too_large"};
        memcpy(s->e->msg, "The request body is too large.", sizeof("The request body is too large."));
        return false;
    }
    s->cap = MIN(s->scratch->cap - s->scratch->off, s->scratch->max);
    return true;
}

static bool scan_request(struct scan *s, struct str body)
{
    struct top t;
    memset(&t, 0, sizeof(t));
    if (!scan_start(s, body) || !top_object(s, &t) || !lora_end(s, &t))
        return false;
    if (s->rq->kind == API_CHAT && s->rq->n > 1)
        s->rq->n_batch = s->rq->n;
    order_sections(s, &t);
    settle(s, &t);
    return true;
}

/* Nothing found yet. The members are many bytes for a small body, and none of them counts. */
static void blank(enum api_kind kind, struct api_request *out)
{
    memset(out, 0, offsetof(struct api_request, members));
    out->kind = kind;
    out->n = 1;
}

int api_parse_request(enum api_kind kind, struct str body, struct buf *scratch, struct api_request *out,
                      struct api_error *e)
{
    blank(kind, out);
    if (!body.p)
        body = STR("");
    struct scan s = {.p = body.p,
                     .end = body.p + body.n,
                     .body = body.p,
                     .copy = text_copy_best(),
                     .scratch = scratch,
                     .rq = out,
                     .e = e};
    if (scan_request(&s, body))
        return 0;
    if (kind != API_OTHER)
        return -1;
    blank(kind, out);
    return 0;
}
