/* The journal's lines: a table of members per kind of line, written and read by the same table. */
#include "core/journal.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum kind { U32, U64, INT, DOUBLE, BOOL, HEX, REF, NAME, TEXT, OWN };

struct place { /* of what is being read */
    struct json *json;
    struct journal_reader *jr;
    struct journal *j;
};
struct field {
    const char *name;
    enum kind kind;
    size_t at;                     /* in struct journal */
    size_t has;                    /* DOUBLE: of the flag that says it is there; 0: it always is */
    const char *(*of)(unsigned v); /* NAME; NULL: past the last */
    void (*put)(struct jsonw *w, const struct field *f, const struct journal *j); /* OWN */
    const char *(*get)(const struct field *f, struct place *p);                   /* OWN: NULL, or what is wrong */
};

static void *at(struct journal *j, size_t off)
{
    return (char *)j + off;
}

static const void *of(const struct journal *j, size_t off)
{
    return (const char *)j + off;
}

/* ---- names ---- */

static const char *policy_name(unsigned v)
{
    return v < N_SCHED_POLICIES ? sched_policy_name((enum sched_policy)v) : NULL;
}

static const char *reason_name(unsigned v)
{
    const char *name = sched_reason_name((enum sched_reason)v); /* "?" past the last */
    return *name == '?' ? NULL : name;
}

static const char *reject_name(unsigned v)
{
    return v < N_SCHED_REJECTS ? sched_reject_name((enum sched_reject)v) : NULL;
}

static const char *among(const char *const *names, size_t n, unsigned v)
{
    return v < n ? names[v] : NULL;
}

static const char *outcome_name(unsigned v)
{
    const char *name = sched_outcome_name((enum sched_outcome)v);
    return strcmp(name, "?") != 0 ? name : NULL;
}

static const char *answer_name(unsigned v)
{
    static const char *const names[] = {
        [SCHED_PICKED] = "picked", [SCHED_REJECTED] = "rejected", [SCHED_QUEUED] = "queued"};
    return among(names, ARRAY_LEN(names), v);
}

static const char *order_name(unsigned v)
{
    static const char *const names[] = {
        [ORDER_FIFO] = "fifo", [ORDER_DEADLINE] = "deadline", [ORDER_ADAPTIVE] = "adaptive"};
    return among(names, ARRAY_LEN(names), v);
}

static const char *discard_name(unsigned v)
{
    static const char *const names[] = {[DISCARD_LOWEST_CLASS] = "lowest_class", [DISCARD_EARLIEST] = "earliest"};
    return among(names, ARRAY_LEN(names), v);
}

static const char *early_name(unsigned v)
{
    static const char *const names[] = {[EARLY_OFF] = "off", [EARLY_OWN] = "own", [EARLY_ALL] = "all"};
    return among(names, ARRAY_LEN(names), v);
}

/* ---- values ---- */

static void put_hexes(struct jsonw *w, const char *key, const uint64_t *v, uint32_t n)
{
    static const char digits[] = "0123456789abcdef";
    if (!n)
        return;
    jsonw_key(w, key);
    size_t len = 2 + 16 * (size_t)n;
    char *p = buf_reserve(w->out, len);
    w->comma = true;
    if (!p)
        return;
    *p++ = '"';
    for (uint32_t i = 0; i < n; i++)
        for (int shift = 60; shift >= 0; shift -= 4)
            *p++ = digits[v[i] >> shift & 15];
    *p = '"';
    buf_commit(w->out, len);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *get_hexes(struct json *json, uint64_t *v, uint32_t max, uint32_t *n)
{
    if (json_next(json) != JSON_STRING || json->tok.n % 16)
        return "must be a string of hexadecimal digits, 16 a number";
    if (json->tok.n / 16 > max)
        return "has too many numbers";
    *n = (uint32_t)(json->tok.n / 16);
    for (size_t i = 0; i < json->tok.n; i++) {
        int d = hex_digit(json->tok.p[i]);
        if (d < 0)
            return "must be a string of hexadecimal digits, 16 a number";
        v[i / 16] = v[i / 16] << 4 | (uint64_t)d;
    }
    return NULL;
}

static void put_double(struct jsonw *w, double v)
{
    char text[40];
    if (!isfinite(v)) {
        jsonw_null(w);
        return;
    }
    snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) != v)
        snprintf(text, sizeof text, "%.17g", v);
    jsonw_raw(w, str_c(text));
}

static const char *get_double(struct json *json, double *out)
{
    if (json_next(json) != JSON_NUMBER || !str_to_double(json->tok, out) || !isfinite(*out))
        return "must be a number";
    return NULL;
}

static void put_ref_value(struct jsonw *w, struct ep_ref r)
{
    jsonw_arr(w);
    jsonw_u64(w, r.slot);
    jsonw_u64(w, r.gen);
    jsonw_arr_end(w);
}

static const char *get_u64(struct json *json, uint64_t max, uint64_t *out)
{
    if (json_next(json) != JSON_NUMBER || !str_to_u64(json->tok, out) || *out > max)
        return "must be a whole number from 0 on, not too large";
    return NULL;
}

/* Behind the '['. */
static const char *get_ref_tail(struct json *json, struct ep_ref *out)
{
    uint64_t slot, gen;
    if (get_u64(json, UINT32_MAX, &slot) || get_u64(json, UINT32_MAX, &gen) || json_next(json) != JSON_ARR_END)
        return "must be [slot, generation]";
    *out = (struct ep_ref){(uint32_t)slot, (uint32_t)gen};
    return NULL;
}

static const char *get_ref(struct json *json, struct ep_ref *out)
{
    return json_next(json) == JSON_ARR ? get_ref_tail(json, out) : "must be [slot, generation]";
}

static const char *get_name(const struct field *f, struct json *json, unsigned *out)
{
    const char *name;
    if (json_next(json) != JSON_STRING)
        return "must be a string";
    for (unsigned v = 0; (name = f->of(v)); v++)
        if (str_eq_c(json->tok, name)) {
            *out = v;
            return NULL;
        }
    return "has a value that is not known";
}

/* A line has at most two texts. */
static const char *get_text(struct place *p, struct str *out)
{
    if (json_next(p->json) != JSON_STRING)
        return "must be a string";
    if (p->json->tok.n > JOURNAL_NAME)
        return "is too long";
    bool pool = p->j->type == JOURNAL_POOL, head = p->j->type == JOURNAL_HEAD;
    size_t slot = (pool && out == &p->j->u.pool_new.ns) || (head && out == &p->j->u.head.program);
    *out = (struct str){p->jr->text[slot], json_unescape(p->json->tok, p->jr->text[slot])};
    return NULL;
}

static const char *get_int(struct json *json, int *out)
{
    int64_t v;
    if (json_next(json) != JSON_NUMBER || !str_to_i64(json->tok, &v) || v < INT32_MIN || v > INT32_MAX)
        return "must be a whole number";
    *out = (int)v;
    return NULL;
}

/* ---- members with a form of their own ---- */

static void put_hashes(struct jsonw *w, const struct field *f, const struct journal *j)
{
    put_hexes(w, f->name, j->u.submit.hashes.h, j->u.submit.hashes.n);
}

static const char *get_hashes(const struct field *f, struct place *p)
{
    (void)f;
    p->jr->hashes = p->jr->hashes ? p->jr->hashes : xcalloc(PREFIX_MAX, sizeof *p->jr->hashes);
    p->j->u.submit.hashes.h = p->jr->hashes;
    return get_hexes(p->json, p->jr->hashes, PREFIX_MAX, &p->j->u.submit.hashes.n);
}

static void put_ends(struct jsonw *w, const struct field *f, const struct journal *j)
{
    put_hexes(w, f->name, j->u.submit.hashes.ends, j->u.submit.hashes.n_ends);
}

static const char *get_ends(const struct field *f, struct place *p)
{
    (void)f;
    return get_hexes(p->json, p->j->u.submit.hashes.ends, PREFIX_ENDS, &p->j->u.submit.hashes.n_ends);
}

static void put_tried(struct jsonw *w, const struct field *f, const struct journal *j)
{
    if (!j->u.submit.n_tried)
        return;
    jsonw_key(w, f->name);
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->u.submit.n_tried; i++)
        put_ref_value(w, j->u.submit.tried[i]);
    jsonw_arr_end(w);
}

static const char *get_tried(const struct field *f, struct place *p)
{
    (void)f;
    struct journal_submit *s = &p->j->u.submit;
    enum json_type t = json_next(p->json);
    if (t != JSON_ARR)
        return "must be an array";
    s->n_tried = 0;
    while ((t = json_next(p->json)) == JSON_ARR) {
        if (s->n_tried == SCHED_MAX_TRIED)
            return "has too many endpoints";
        const char *bad = get_ref_tail(p->json, &s->tried[s->n_tried++]);
        if (bad)
            return bad;
    }
    return t == JSON_ARR_END ? NULL : "must be an array of [slot, generation]";
}

/* Adapters in use: an array of its size behind its count. */
static const uint64_t *lora_of(const struct field *f, const struct journal *j, const uint32_t **n)
{
    bool running = f->at == offsetof(struct journal, u.load.running_lora);
    *n = running ? &j->u.load.n_running_lora : &j->u.load.n_waiting_lora;
    return running ? j->u.load.running_lora : j->u.load.waiting_lora;
}

static void put_lora(struct jsonw *w, const struct field *f, const struct journal *j)
{
    const uint32_t *n;
    const uint64_t *v = lora_of(f, j, &n);
    put_hexes(w, f->name, v, *n);
}

static const char *get_lora(const struct field *f, struct place *p)
{
    struct ep_load *l = &p->j->u.load;
    bool running = f->at == offsetof(struct journal, u.load.running_lora);
    return get_hexes(p->json, running ? l->running_lora : l->waiting_lora, ARRAY_LEN(l->running_lora),
                     running ? &l->n_running_lora : &l->n_waiting_lora);
}

static void put_models(struct jsonw *w, const struct field *f, const struct journal *j)
{
    if (!j->u.models.n)
        return;
    jsonw_key(w, f->name);
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->u.models.n; i++) {
        char text[18];
        snprintf(text, sizeof text, "%s%016llx", j->u.models.v[i].adapter ? "+" : "",
                 (unsigned long long)j->u.models.v[i].name);
        jsonw_cstr(w, text);
    }
    jsonw_arr_end(w);
}

static const char *get_model(struct str tok, struct sched_model *out)
{
    *out = (struct sched_model){.adapter = str_starts(tok, STR("+"))};
    struct str hex = str_from(tok, out->adapter);
    for (size_t i = 0; i < hex.n && hex.n == 16; i++) {
        int d = hex_digit(hex.p[i]);
        if (d < 0)
            return "must hold 16 hexadecimal digits a model";
        out->name = out->name << 4 | (uint64_t)d;
    }
    return hex.n == 16 ? NULL : "must hold 16 hexadecimal digits a model";
}

static const char *get_models(const struct field *f, struct place *p)
{
    (void)f;
    enum json_type t = json_next(p->json);
    if (t != JSON_ARR)
        return "must be an array";
    struct sched_model *v = p->jr->models;
    p->jr->models = v = v ? v : xcalloc(JOURNAL_MAX_MODELS, sizeof *v);
    p->j->u.models.v = v;
    p->j->u.models.n = 0;
    while ((t = json_next(p->json)) == JSON_STRING) {
        if (p->j->u.models.n == JOURNAL_MAX_MODELS)
            return "has too many models";
        const char *bad = get_model(p->json->tok, &v[p->j->u.models.n++]);
        if (bad)
            return bad;
    }
    return t == JSON_ARR_END ? NULL : "must be an array of strings";
}

static void put_weights(struct jsonw *w, const struct field *f, const struct journal *j)
{
    const struct sched_params *p = of(j, f->at);
    if (!p->n_flow_weights)
        return;
    jsonw_key(w, f->name);
    jsonw_obj(w);
    for (uint32_t i = 0; i < p->n_flow_weights; i++) {
        char key[18];
        snprintf(key, sizeof key, "%016llx", (unsigned long long)p->flow_weights[i].flow);
        jsonw_key(w, key);
        put_double(w, p->flow_weights[i].weight);
    }
    jsonw_obj_end(w);
}

static const char *get_weights(const struct field *f, struct place *p)
{
    struct sched_params *params = at(p->j, f->at);
    enum json_type t = json_next(p->json);
    if (t != JSON_OBJ)
        return "must be an object";
    struct sched_flow_weight *v = p->jr->weights;
    p->jr->weights = v = v ? v : xcalloc(SCHED_MAX_FLOW_WEIGHTS, sizeof *v);
    params->flow_weights = v;
    params->n_flow_weights = 0;
    while ((t = json_next(p->json)) == JSON_KEY) {
        struct sched_model key;
        if (params->n_flow_weights == SCHED_MAX_FLOW_WEIGHTS)
            return "has too many flows";
        struct sched_flow_weight *fw = &v[params->n_flow_weights++];
        if (get_model(p->json->tok, &key) || key.adapter || get_double(p->json, &fw->weight) || !(fw->weight > 0))
            return "must hold a weight above 0 for 16 hexadecimal digits";
        fw->flow = key.name;
    }
    return t == JSON_OBJ_END ? NULL : "must be an object";
}

/* ---- tables ---- */

#define AT(m) offsetof(struct journal, m)
#define OWNED(nm, m, f)                                                                                                \
    {                                                                                                                  \
        .name = nm, .kind = OWN, .at = AT(m), .put = put_##f, .get = get_##f                                           \
    }
#define NAMED(nm, m, f)                                                                                                \
    {                                                                                                                  \
        .name = nm, .kind = NAME, .at = AT(m), .of = f##_name                                                          \
    }

static const struct field params_fields[] = {
/* of struct sched_params alone */
#define P(kind_, m)                                                                                                    \
    {                                                                                                                  \
        .name = #m, .kind = kind_, .at = offsetof(struct sched_params, m)                                              \
    }
#define PN(m, f)                                                                                                       \
    {                                                                                                                  \
        .name = #m, .kind = NAME, .at = offsetof(struct sched_params, m), .of = f##_name                               \
    }
    PN(policy, policy),
    P(U32, block_bytes),
    P(U32, max_blocks),
    P(BOOL, deep),
    P(U64, lru_capacity),
    P(DOUBLE, step_s),
    P(DOUBLE, prefill_s),
    P(DOUBLE, quad_s),
    P(DOUBLE, decode_s),
    P(DOUBLE, ctx_s),
    P(U64, kv_tokens),
    P(U32, step_tokens),
    P(DOUBLE, bytes_per_token),
    P(U32, mean_output),
    P(DOUBLE, affinity),
    P(DOUBLE, tie_band_s),
    P(U32, queue_threshold),
    P(DOUBLE, kv_threshold),
    P(U64, stale_us),
    P(BOOL, queueing),
    PN(queue_order, order),
    P(U64, queue_late_us),
    PN(queue_discard, discard),
    P(U64, queue_bytes),
    P(U32, queue_requests),
    P(U64, queue_ttl_us),
    PN(early_refusal, early),
    P(U64, prefix_wait_us),
    P(DOUBLE, transfer_s),
    P(DOUBLE, transfer_base_s),
    P(U32, split_min_tokens),
    P(DOUBLE, lora_load_s),
    P(DOUBLE, lora_wait_s),
    P(DOUBLE, eject_share),
    P(U64, eject_us),
    P(U64, eject_max_us),
    P(U64, slow_start_us),
    P(BOOL, lru_by_memory),
    P(U64, conversation_hold_us),
    P(BOOL, learn_speed),
    {.name = "flow_weights", .kind = OWN, .at = 0, .put = put_weights, .get = get_weights},
};

static void put_params(struct jsonw *w, const struct field *f, const struct journal *j);
static const char *get_params(const struct field *f, struct place *p);

static const struct field head_fields[] = {
    {.name = "version", .kind = U32, .at = AT(u.head.version)},
    {.name = "started", .kind = TEXT, .at = AT(u.head.started)},
    {.name = "program", .kind = TEXT, .at = AT(u.head.program)},
    {.name = "time_scale", .kind = DOUBLE, .at = AT(u.head.time_scale)},
};
static const struct field pool_fields[] = {
    {.name = "name", .kind = TEXT, .at = AT(u.pool_new.name)},
    {.name = "ns", .kind = TEXT, .at = AT(u.pool_new.ns)},
    {.name = "service", .kind = BOOL, .at = AT(u.pool_new.service)},
    {.name = "seed", .kind = HEX, .at = AT(u.pool_new.seed)},
    OWNED("params", u.pool_new.params, params),
};
static const struct field set_params_fields[] = {OWNED("params", u.params, params)};
static const struct field add_fields[] = {
    {.name = "ep", .kind = REF, .at = AT(ep)},
    {.name = "name", .kind = TEXT, .at = AT(u.add.name)},
    {.name = "wait_probe", .kind = BOOL, .at = AT(u.add.wait_probe)},
};
static const struct field ep_fields[] = {{.name = "ep", .kind = REF, .at = AT(ep)}};
static const struct field drain_fields[] = {
    {.name = "ep", .kind = REF, .at = AT(ep)},
    {.name = "on", .kind = BOOL, .at = AT(u.drain.on)},
};
static const struct field load_fields[] = {
    {.name = "ep", .kind = REF, .at = AT(ep)},
    {.name = "sent_us", .kind = U64, .at = AT(u.load.sent_us)},
    {.name = "done_us", .kind = U64, .at = AT(u.load.done_us)},
    {.name = "waiting", .kind = DOUBLE, .at = AT(u.load.waiting), .has = AT(u.load.has_waiting)},
    {.name = "running", .kind = DOUBLE, .at = AT(u.load.running), .has = AT(u.load.has_running)},
    {.name = "kv_frac", .kind = DOUBLE, .at = AT(u.load.kv_frac), .has = AT(u.load.has_kv)},
    {.name = "kv_mean", .kind = DOUBLE, .at = AT(u.load.kv_mean)},
    {.name = "blocks", .kind = BOOL, .at = AT(u.load.has_blocks)},
    {.name = "kv_tokens", .kind = U64, .at = AT(u.load.kv_tokens)},
    {.name = "block_tokens", .kind = U32, .at = AT(u.load.block_tokens)},
    {.name = "max_lora", .kind = U32, .at = AT(u.load.max_lora)},
    OWNED("running_lora", u.load.running_lora, lora),
    OWNED("waiting_lora", u.load.waiting_lora, lora),
};
static const struct field models_fields[] = {
    {.name = "ep", .kind = REF, .at = AT(ep)},
    OWNED("models", u.models, models),
};
static const struct field probe_fields[] = {
    {.name = "ep", .kind = REF, .at = AT(ep)},
    {.name = "ok", .kind = BOOL, .at = AT(u.probe.ok)},
    {.name = "asked_us", .kind = U64, .at = AT(u.probe.asked_us)},
};
#define ANSWER(m)                                                                                                      \
    {.name = "ep", .kind = REF, .at = AT(m.ep)}, NAMED("reason", m.reason, reason), NAMED("reject", m.reject, reject), \
        {.name = "matched_bytes", .kind = U64, .at = AT(m.matched_bytes)},                                             \
        {.name = "no_prefill", .kind = BOOL, .at = AT(m.no_prefill)},                                                  \
    {                                                                                                                  \
        .name = "queued_us", .kind = U64, .at = AT(m.queued_us)                                                        \
    }
static const struct field submit_fields[] = {
    {.name = "req", .kind = U64, .at = AT(req)},
    {.name = "again", .kind = BOOL, .at = AT(u.submit.again)},
    NAMED("answer", u.submit.answer, answer),
    ANSWER(u.submit.decided),
    {.name = "priority", .kind = INT, .at = AT(u.submit.priority)},
    {.name = "id", .kind = HEX, .at = AT(u.submit.id)},
    {.name = "flow", .kind = HEX, .at = AT(u.submit.flow)},
    {.name = "ttl_us", .kind = U64, .at = AT(u.submit.ttl_us)},
    {.name = "prompt_bytes", .kind = U64, .at = AT(u.submit.prompt_bytes)},
    {.name = "prompt_token_ids", .kind = U64, .at = AT(u.submit.prompt_token_ids)},
    {.name = "media", .kind = U32, .at = AT(u.submit.n_media)},
    {.name = "max_tokens", .kind = U64, .at = AT(u.submit.max_tokens)},
    {.name = "outputs", .kind = U32, .at = AT(u.submit.n_outputs)},
    {.name = "light", .kind = BOOL, .at = AT(u.submit.light)},
    {.name = "streamed", .kind = BOOL, .at = AT(u.submit.streamed)},
    {.name = "model", .kind = HEX, .at = AT(u.submit.model)},
    {.name = "pinned", .kind = REF, .at = AT(u.submit.pinned)},
    OWNED("tried", u.submit.tried, tried),
    {.name = "hashed", .kind = BOOL, .at = AT(u.submit.has_hashes)},
    {.name = "block_bytes", .kind = U32, .at = AT(u.submit.hashes.block_bytes)},
    {.name = "fine", .kind = U32, .at = AT(u.submit.hashes.n_fine)},
    OWNED("hashes", u.submit.hashes, hashes),
    OWNED("ends", u.submit.hashes.ends, ends),
    {.name = "whole", .kind = BOOL, .at = AT(u.submit.hashes.whole)},
};
static const struct field decided_fields[] = {{.name = "req", .kind = U64, .at = AT(req)}, ANSWER(u.decided)};
static const struct field req_fields[] = {{.name = "req", .kind = U64, .at = AT(req)}};
static const struct field finish_fields[] = {
    {.name = "req", .kind = U64, .at = AT(req)},
    NAMED("outcome", u.finish.how, outcome),
    {.name = "usage", .kind = BOOL, .at = AT(u.finish.has_usage)},
    {.name = "prompt_tokens", .kind = U64, .at = AT(u.finish.usage.prompt_tokens)},
    {.name = "completion_tokens", .kind = U64, .at = AT(u.finish.usage.completion_tokens)},
    {.name = "cached", .kind = BOOL, .at = AT(u.finish.usage.has_cached)},
    {.name = "cached_tokens", .kind = U64, .at = AT(u.finish.usage.cached_tokens)},
};
static const struct field gap_fields[] = {{.name = "lines", .kind = U64, .at = AT(u.gap.lines)}};

static const struct field common_fields[] = {
    {.name = "pool", .kind = U32, .at = AT(pool)},
    {.name = "us", .kind = U64, .at = AT(now_us)},
};

static const struct line {
    const char *name;
    const struct field *f;
    size_t n;
} lines[N_JOURNAL_TYPES] = {
#define LINE(name, f)                                                                                                  \
    {                                                                                                                  \
        name, f, ARRAY_LEN(f)                                                                                          \
    }
    [JOURNAL_HEAD] = LINE("record", head_fields),
    [JOURNAL_POOL] = LINE("pool", pool_fields),
    [JOURNAL_PARAMS] = LINE("params", set_params_fields),
    [JOURNAL_EP_ADD] = LINE("ep_add", add_fields),
    [JOURNAL_EP_REMOVE] = LINE("ep_remove", ep_fields),
    [JOURNAL_EP_DRAIN] = LINE("ep_drain", drain_fields),
    [JOURNAL_EP_LOAD] = LINE("ep_load", load_fields),
    [JOURNAL_EP_MODELS] = LINE("ep_models", models_fields),
    [JOURNAL_EP_PROBE] = LINE("ep_probe", probe_fields),
    [JOURNAL_EP_ALIVE] = LINE("ep_alive", ep_fields),
    [JOURNAL_SUBMIT] = LINE("submit", submit_fields),
    [JOURNAL_DECIDED] = LINE("decided", decided_fields),
    [JOURNAL_CANCEL] = LINE("cancel", req_fields),
    [JOURNAL_FIRST_TOKEN] = LINE("first_token", req_fields),
    [JOURNAL_FINISH] = LINE("finish", finish_fields),
    [JOURNAL_TICK] = {"tick", NULL, 0},
    [JOURNAL_GAP] = LINE("gap", gap_fields),
};

/* ---- writing ---- */

static bool is_zero(const struct field *f, const void *v)
{
    static const struct ep_ref none;
    switch (f->kind) {
    case U32:
    case INT:
        return *(const uint32_t *)v == 0;
    case U64:
    case HEX:
        return *(const uint64_t *)v == 0;
    case BOOL:
        return !*(const bool *)v;
    case REF:
        return memcmp(v, &none, sizeof none) == 0;
    case TEXT:
        return ((const struct str *)v)->n == 0;
    case NAME:
        return *(const unsigned *)v == 0 && f->of != answer_name && f->of != outcome_name;
    default:
        return false;
    }
}

static void put_value(struct jsonw *w, const struct field *f, const void *v)
{
    jsonw_key(w, f->name);
    switch (f->kind) {
    case U32:
        jsonw_u64(w, *(const uint32_t *)v);
        break;
    case U64:
        jsonw_u64(w, *(const uint64_t *)v);
        break;
    case INT:
        jsonw_i64(w, *(const int *)v);
        break;
    case DOUBLE:
        put_double(w, *(const double *)v);
        break;
    case BOOL:
        jsonw_bool(w, *(const bool *)v);
        break;
    case REF:
        put_ref_value(w, *(const struct ep_ref *)v);
        break;
    case NAME:
        jsonw_cstr(w, f->of(*(const unsigned *)v));
        break;
    default:
        jsonw_str(w, *(const struct str *)v);
    }
}

static void put_field(struct jsonw *w, const struct field *f, const struct journal *j)
{
    const void *v = of(j, f->at);
    if (f->kind == OWN)
        f->put(w, f, j);
    else if (f->has && !*(const bool *)of(j, f->has))
        return;
    else if (f->kind == HEX)
        put_hexes(w, f->name, v, *(const uint64_t *)v ? 1 : 0);
    else if (!is_zero(f, v))
        put_value(w, f, v);
}

static void put_params(struct jsonw *w, const struct field *f, const struct journal *j)
{
    jsonw_key(w, f->name);
    jsonw_obj(w);
    for (size_t i = 0; i < ARRAY_LEN(params_fields); i++) {
        struct field pf = params_fields[i];
        pf.at += f->at;
        if (pf.kind == OWN)
            pf.put(w, &pf, j);
        else
            put_value(w, &pf, of(j, pf.at));
    }
    jsonw_obj_end(w);
}

void journal_put(struct buf *out, const struct journal *j)
{
    const struct line *l = &lines[j->type];
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, j->type == JOURNAL_HEAD ? "penstock" : "ev");
    jsonw_cstr(&w, l->name);
    if (j->type != JOURNAL_HEAD) {
        jsonw_key(&w, "pool");
        jsonw_u64(&w, j->pool);
        put_field(&w, &common_fields[1], j);
    }
    for (size_t i = 0; i < l->n; i++)
        put_field(&w, &l->f[i], j);
    jsonw_obj_end(&w);
    buf_add(out, "\n", 1);
}

/* ---- reading ---- */

static const char *get_flag(struct json *json, bool *out)
{
    enum json_type t = json_next(json);
    *out = t == JSON_TRUE;
    return t == JSON_TRUE || t == JSON_FALSE ? NULL : "must be true or false";
}

static const char *get_u32(struct json *json, uint32_t *out)
{
    uint64_t v;
    const char *bad = get_u64(json, UINT32_MAX, &v);
    *out = bad ? 0 : (uint32_t)v;
    return bad;
}

static const char *get_hex(struct json *json, uint64_t *out)
{
    uint32_t n = 0;
    *out = 0;
    const char *bad = get_hexes(json, out, 1, &n);
    return bad || n == 1 ? bad : "must be 16 hexadecimal digits";
}

static const char *get_field(const struct field *f, struct place *p)
{
    void *v = at(p->j, f->at);
    switch (f->kind) {
    case U32:
        return get_u32(p->json, v);
    case U64:
        return get_u64(p->json, UINT64_MAX, v);
    case INT:
        return get_int(p->json, v);
    case DOUBLE:
        if (f->has)
            *(bool *)at(p->j, f->has) = true;
        return get_double(p->json, v);
    case BOOL:
        return get_flag(p->json, v);
    case HEX:
        return get_hex(p->json, v);
    case REF:
        return get_ref(p->json, v);
    case NAME:
        return get_name(f, p->json, v);
    case TEXT:
        return get_text(p, v);
    default:
        return f->get(f, p);
    }
}

static const struct field *find(const struct field *f, size_t n, struct str key)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(key, f[i].name))
            return &f[i];
    return NULL;
}

/* What no configuration can say and the arithmetic of the picker does not expect. */
static const char *odd_params(const struct sched_params *p)
{
    const double v[] = {p->step_s,          p->prefill_s,   p->quad_s,     p->decode_s,       p->ctx_s,
                        p->bytes_per_token, p->affinity,    p->tie_band_s, p->kv_threshold,   p->lora_load_s,
                        p->lora_wait_s,     p->eject_share, p->transfer_s, p->transfer_base_s};
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        if (!(v[i] >= 0 && v[i] <= 1e9))
            return "has a number below 0 or above 1e9";
    if (p->max_blocks > PREFIX_MAX)
        return "has too many max_blocks";
    return NULL;
}

static const char *get_params(const struct field *f, struct place *p)
{
    struct sched_params *params = at(p->j, f->at);
    enum json_type t;
    if (json_next(p->json) != JSON_OBJ)
        return "must be an object";
    while ((t = json_next(p->json)) == JSON_KEY) {
        const struct field *known = find(params_fields, ARRAY_LEN(params_fields), p->json->tok);
        if (!known && !json_skip(p->json))
            return "is no JSON";
        if (!known)
            continue;
        struct field pf = *known;
        pf.at += f->at;
        const char *bad = get_field(&pf, p);
        if (bad)
            return pf.name == known->name ? bad : "is wrong";
    }
    return t == JSON_OBJ_END ? odd_params(params) : "must be an object";
}

static const char *odd_submit(const struct journal_submit *s)
{
    if (s->hashes.n_fine > s->hashes.n)
        return "\"fine\" is more than there are hashes";
    if (s->hashes.n && !s->hashes.block_bytes)
        return "\"hashes\" need \"block_bytes\"";
    if (s->answer == SCHED_REJECTED && s->decided.reject == REJECT_NONE)
        return "the answer is \"rejected\" and \"reject\" does not say why";
    return NULL;
}

static int bad_member(struct errbuf *err, struct str key, const char *bad)
{
    return err_set(err, "\"" STR_FMT "\" %s.", STR_ARG(str_first(key, 40)), bad);
}

static int read_members(struct place *p, const struct line *l, struct errbuf *err)
{
    enum json_type t;
    while ((t = json_next(p->json)) == JSON_KEY) {
        struct str key = p->json->tok;
        const struct field *f = find(l->f, l->n, key);
        if (!f && p->j->type != JOURNAL_HEAD)
            f = find(common_fields, ARRAY_LEN(common_fields), key);
        const char *bad = f ? get_field(f, p) : json_skip(p->json) ? NULL : "is no JSON";
        if (bad)
            return bad_member(err, key, p->json->error ? p->json->error : bad);
    }
    if (t != JSON_OBJ_END || json_next(p->json) != JSON_END)
        return err_set(err, "It is no JSON object: %s.", p->json->error ? p->json->error : "something follows it");
    return 0;
}

/* The first member says what the line is. */
static int read_type(struct json *json, struct journal *out, struct errbuf *err)
{
    bool head = false;
    if (json_next(json) != JSON_OBJ || json_next(json) != JSON_KEY ||
        !((head = str_eq_c(json->tok, "penstock")) || str_eq_c(json->tok, "ev")) || json_next(json) != JSON_STRING)
        return err_set(err, "It does not begin with {\"ev\":\"...\".");
    for (int t = head ? 0 : 1; t < (head ? 1 : N_JOURNAL_TYPES); t++)
        if (str_eq_c(json->tok, lines[t].name)) {
            out->type = (enum journal_type)t;
            return 0;
        }
    return err_set(err, "\"" STR_FMT "\" is not known.", STR_ARG(str_first(json->tok, 40)));
}

static int check(const struct journal *j, struct errbuf *err)
{
    if (j->type == JOURNAL_HEAD && j->u.head.version != JOURNAL_VERSION)
        return err_set(err, "The record has version %u, and only version %d can be read.", j->u.head.version,
                       JOURNAL_VERSION);
    const char *bad = j->type == JOURNAL_SUBMIT ? odd_submit(&j->u.submit) : NULL;
    return bad ? err_set(err, "The line is wrong: %s.", bad) : 0;
}

int journal_read(struct journal_reader *jr, struct str line, struct journal *out, struct errbuf *err)
{
    struct json json;
    struct place p = {&json, jr, out};
    memset(out, 0, sizeof *out);
    json_init(&json, line);
    if (read_type(&json, out, err))
        return -1;
    if (out->type == JOURNAL_POOL)
        sched_params_init(&out->u.pool_new.params);
    if (out->type == JOURNAL_PARAMS)
        sched_params_init(&out->u.params);
    if (read_members(&p, &lines[out->type], err))
        return -1;
    return check(out, err);
}

void journal_reader_free(struct journal_reader *jr)
{
    free(jr->hashes);
    free(jr->weights);
    free(jr->models);
    *jr = (struct journal_reader){0};
}

bool journal_is(struct str first_line)
{
    struct json json;
    json_init(&json, first_line);
    return json_next(&json) == JSON_OBJ && json_next(&json) == JSON_KEY && str_eq_c(json.tok, "penstock") &&
           json_next(&json) == JSON_STRING && str_eq_c(json.tok, lines[JOURNAL_HEAD].name);
}

/* ---- from the scheduler ---- */

void journal_answer_of(struct journal_answer *out, const struct sched_decision *d)
{
    *out = (struct journal_answer){.reject = d->reject,
                                   .reason = d->reject == REJECT_NONE ? d->reason : REASON_NONE,
                                   .matched_bytes = d->reject == REJECT_NONE ? d->matched_bytes : 0,
                                   .queued_us = d->queued_us,
                                   .no_prefill = d->no_prefill,
                                   .ep = d->reject == REJECT_NONE ? d->ep : (struct ep_ref){0}};
}

void journal_submitted(struct journal *j, const struct sched_req *r, enum sched_answer answer, bool again)
{
    struct journal_submit *s = &j->u.submit;
    j->type = JOURNAL_SUBMIT;
    j->req = r->q.seq;
    *s = (struct journal_submit){.answer = answer,
                                 .again = again,
                                 .has_hashes = r->hashes != NULL,
                                 .light = r->light,
                                 .streamed = r->streamed,
                                 .priority = r->priority,
                                 .n_media = r->n_media,
                                 .n_outputs = r->n_outputs,
                                 .n_tried = r->n_tried,
                                 .id = r->id,
                                 .flow = r->flow,
                                 .ttl_us = r->ttl_us,
                                 .prompt_bytes = r->prompt_bytes,
                                 .prompt_token_ids = r->prompt_token_ids,
                                 .max_tokens = r->max_tokens,
                                 .model = r->model,
                                 .pinned = r->pinned};
    memcpy(s->tried, r->tried, MIN(r->n_tried, SCHED_MAX_TRIED) * sizeof s->tried[0]);
    if (r->hashes)
        s->hashes = *r->hashes;
    if (answer != SCHED_QUEUED)
        journal_answer_of(&s->decided, &r->d);
}

void journal_fill(struct sched_req *r, const struct journal_submit *s, struct prefix_hashes *ph, uint64_t *h)
{
    r->priority = s->priority;
    r->id = s->id;
    r->flow = s->flow;
    r->ttl_us = s->ttl_us;
    r->prompt_bytes = s->prompt_bytes;
    r->prompt_token_ids = s->prompt_token_ids;
    r->n_media = s->n_media;
    r->max_tokens = s->max_tokens;
    r->n_outputs = s->n_outputs;
    r->light = s->light;
    r->streamed = s->streamed;
    r->model = s->model;
    r->pinned = s->pinned;
    r->n_tried = s->n_tried;
    memcpy(r->tried, s->tried, sizeof r->tried);
    r->hashes = s->has_hashes ? ph : NULL;
    *ph = s->hashes;
    ph->h = h;
    if (s->hashes.n)
        memcpy(h, s->hashes.h, s->hashes.n * sizeof *h);
}
