/* sim/body.c - finds the members of a request and turns prompts into tokens. */
#include "sim/body.h"

#include "base/hash.h"
#include "base/json.h"

#include <stdlib.h>

static const char *const names[B_KEYS] = {[B_MODEL] = "model",
                                          [B_PROMPT] = "prompt",
                                          [B_MESSAGES] = "messages",
                                          [B_INPUT] = "input",
                                          [B_INSTRUCTIONS] = "instructions",
                                          [B_SYSTEM] = "system",
                                          [B_TOOLS] = "tools",
                                          [B_MAX_TOKENS] = "max_tokens",
                                          [B_MAX_COMPLETION_TOKENS] = "max_completion_tokens",
                                          [B_MAX_OUTPUT_TOKENS] = "max_output_tokens",
                                          [B_MIN_TOKENS] = "min_tokens",
                                          [B_IGNORE_EOS] = "ignore_eos",
                                          [B_N] = "n",
                                          [B_STREAM] = "stream",
                                          [B_STREAM_OPTIONS] = "stream_options",
                                          [B_CACHE_SALT] = "cache_salt",
                                          [B_PREVIOUS] = "previous_response_id",
                                          [B_ENCODING] = "encoding_format",
                                          [B_DIMENSIONS] = "dimensions",
                                          [B_LORA_NAME] = "lora_name",
                                          [B_LORA_PATH] = "lora_path",
                                          [B_TEXT] = "text",
                                          [B_INPUT_IDS] = "input_ids",
                                          [B_SAMPLING] = "sampling_params",
                                          [B_RID] = "rid",
                                          [B_TEXT_INPUT] = "text_input",
                                          [B_ID] = "id",
                                          [B_ACCUMULATE] = "accumulate_tokens",
                                          [B_ROOM] = "bootstrap_room",
                                          [B_ROOM_HOST] = "bootstrap_host",
                                          [B_ROOM_PORT] = "bootstrap_port",
                                          [B_RANK] = "routed_dp_rank",
                                          [B_OLD_RANK] = "data_parallel_rank",
                                          [B_PREFILL_RANK] = "disagg_prefill_dp_rank",
                                          [B_KV_PARAMS] = "kv_transfer_params",
                                          [B_QUERY] = "query",
                                          [B_DOCUMENTS] = "documents",
                                          [B_TEXT_1] = "text_1",
                                          [B_TEXT_2] = "text_2",
                                          [B_TOP_N] = "top_n"};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct str trim(struct str s)
{
    while (s.n && (blank(*s.p) || *s.p == ':' || *s.p == ','))
        s = str_from(s, 1);
    while (s.n && blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* The value that starts at the scanner's next token, as text. */
static bool value_text(struct json *j, struct str *out)
{
    const char *from = j->p;
    if (!json_skip(j))
        return false;
    *out = trim((struct str){from, (size_t)(j->p - from)});
    if (str_eq(*out, STR("null")))
        *out = STR_NULL;
    return true;
}

bool body_members(struct str object, const char *const *keys, size_t n, struct str *out, const char **error)
{
    struct json j;
    memset(out, 0, n * sizeof(*out));
    json_init(&j, object);
    if (json_next(&j) != JSON_OBJ) {
        *error = j.error ? j.error : "the body is no JSON object";
        return false;
    }
    for (enum json_type t; (t = json_next(&j)) == JSON_KEY;) {
        struct str key = j.tok, value;
        bool escaped = j.escaped;
        if (!value_text(&j, &value))
            break;
        for (size_t i = 0; i < n; i++)
            if (json_str_eq(key, escaped, str_c(keys[i])))
                out[i] = value;
    }
    if (!j.error && json_next(&j) == JSON_END)
        return true;
    *error = j.error ? j.error : "text follows the JSON object";
    return false;
}

bool body_scan(struct str text, struct body *b, const char **error)
{
    return body_members(text, names, B_KEYS, b->raw, error);
}

bool body_is_string(struct str raw)
{
    return raw.n >= 2 && raw.p[0] == '"';
}

bool body_string(struct str raw, struct buf *out)
{
    if (!body_is_string(raw))
        return false;
    struct str inner = {raw.p + 1, raw.n - 2};
    char *p = buf_reserve(out, inner.n + 1);
    if (!p)
        return false;
    buf_commit(out, json_unescape(inner, p));
    return true;
}

int body_u64(struct str raw, uint64_t *out)
{
    if (!raw.n)
        return BODY_ABSENT;
    return str_to_u64(raw, out) ? BODY_OK : BODY_BAD;
}

int body_bool(struct str raw, bool *out)
{
    if (!raw.n)
        return BODY_ABSENT;
    *out = str_eq(raw, STR("true"));
    return *out || str_eq(raw, STR("false")) ? BODY_OK : BODY_BAD;
}

void prompts_free(struct prompts *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        tokens_free(&p->v[i]);
    free(p->v);
    *p = (struct prompts){0};
}

static struct tokens *new_prompt(struct prompts *p)
{
    if (p->n == p->cap) {
        p->cap = MAX(p->cap * 2, 4u);
        p->v = xrealloc(p->v, p->cap * sizeof(*p->v));
    }
    p->v[p->n] = (struct tokens){0};
    return &p->v[p->n++];
}

static bool add_string(struct tokens *t, struct str raw)
{
    struct buf text;
    buf_init(&text, raw.n + 16);
    bool ok = body_string(raw, &text);
    if (ok)
        tokens_text(t, buf_str(&text));
    buf_free(&text);
    return ok;
}

static bool add_id(struct tokens *t, struct str number)
{
    uint64_t id;
    if (!str_to_u64(number, &id) || id >= TOKEN_START)
        return false;
    tokens_add(t, (uint32_t)id);
    return true;
}

bool body_each(struct str raw, bool (*fn)(void *ctx, struct str value), void *ctx)
{
    struct json j;
    json_init(&j, raw);
    if (json_next(&j) != JSON_ARR)
        return false;
    for (;;) {
        struct json peek = j;
        struct str value;
        enum json_type t = json_next(&peek);
        if (t == JSON_ARR_END)
            return true;
        if (t == JSON_ERROR || t == JSON_END || !value_text(&j, &value) || !fn(ctx, value))
            return false;
    }
}

static bool one_id(void *ctx, struct str value)
{
    return add_id(ctx, value);
}

static bool one_prompt(void *ctx, struct str value)
{
    struct prompts *p = ctx;
    if (p->n >= BODY_MAX_PROMPTS || !value.n)
        return false;
    struct tokens *t = new_prompt(p);
    return value.p[0] == '[' ? body_each(value, one_id, t) : add_string(t, value);
}

bool prompts_plain(struct prompts *p, struct str raw, const char **error)
{
    bool ok = false;
    if (body_is_string(raw)) {
        ok = add_string(new_prompt(p), raw);
    } else if (raw.n > 2 && raw.p[0] == '[') {
        struct str first = trim(str_from(raw, 1));
        bool ids = first.n && first.p[0] >= '0' && first.p[0] <= '9';
        ok = ids ? body_each(raw, one_id, new_prompt(p)) : body_each(raw, one_prompt, p);
    }
    for (uint32_t i = 0; ok && i < p->n; i++)
        ok = p->v[i].n > 0;
    ok = ok && p->n > 0;
    if (!ok)
        *error =
            "Either prompt must be a non-empty string, a list of strings, a list of token ids or a list of such lists.";
    return ok;
}

#define IMAGE_TOKENS 256
/* A part of a content list: text of whatever kind, or a medium, whose tokens depend on its content alone. */
static bool one_part(void *ctx, struct str value)
{
    struct tokens *t = ctx;
    static const char *const keys[] = {"type", "text", "content"};
    struct str m[3];
    const char *error;
    if (body_is_string(value))
        return add_string(t, value);
    if (!body_members(value, keys, ARRAY_LEN(keys), m, &error))
        return false;
    if (body_is_string(m[1]))
        return add_string(t, m[1]);
    if (body_is_string(m[2]))
        return add_string(t, m[2]);
    uint64_t h = hash_bytes(value.p, value.n, 0);
    for (uint32_t i = 0; i < IMAGE_TOKENS; i++)
        tokens_add(t, (uint32_t)hash_mix(h, i) | TOKEN_START);
    return true;
}

static bool add_content(struct tokens *t, struct str raw)
{
    if (!raw.n)
        return true;
    return body_is_string(raw) ? add_string(t, raw) : body_each(raw, one_part, t);
}

static void open_turn(struct tokens *t, struct str role)
{
    tokens_add(t, TOKEN_START);
    tokens_add(t, tokens_one(role));
    tokens_text(t, STR("\n"));
}

void prompts_open_answer(struct tokens *t)
{
    open_turn(t, STR("assistant"));
}

void prompts_close_answer(struct tokens *t)
{
    tokens_add(t, TOKEN_STOP);
    tokens_text(t, STR("\n"));
}

static bool one_message(void *ctx, struct str value)
{
    struct tokens *t = ctx;
    static const char *const keys[] = {"role", "content", "tool_calls"};
    struct str m[3];
    const char *error;
    if (value.n == 0 || value.p[0] != '{' || !body_members(value, keys, ARRAY_LEN(keys), m, &error))
        return false;
    struct buf role;
    buf_init(&role, m[0].n + 64);
    if (!m[0].n)
        buf_add_str(&role, STR("user"));
    bool ok = !m[0].n || body_string(m[0], &role);
    if (ok) {
        open_turn(t, buf_str(&role));
        ok = add_content(t, m[1]);
        if (m[2].n)
            tokens_text(t, m[2]);
        prompts_close_answer(t);
    }
    buf_free(&role);
    return ok;
}

bool prompts_append(struct tokens *t, struct str messages, const char **error)
{
    if (body_is_string(messages)) {
        open_turn(t, STR("user"));
        (void)add_string(t, messages);
        prompts_close_answer(t);
        return true;
    }
    uint32_t before = t->n;
    if (body_each(messages, one_message, t) && t->n > before)
        return true;
    *error = "Input should be a valid list of messages, each with a role and content.";
    return false;
}

/* Does the list begin with a system message of its own? */
static bool has_system(struct str messages)
{
    struct json j;
    json_init(&j, messages);
    if (json_next(&j) != JSON_ARR || json_next(&j) != JSON_OBJ)
        return false;
    while (json_next(&j) == JSON_KEY) {
        struct str key = j.tok, value;
        bool escaped = j.escaped;
        if (!value_text(&j, &value))
            return false;
        if (json_str_eq(key, escaped, STR("role")))
            return str_eq(value, STR("\"system\"")) || str_eq(value, STR("\"developer\""));
    }
    return false;
}

bool prompts_chat(struct tokens *t, struct str messages, struct str system, struct str tools, const char **error)
{
    if (system.n || tools.n || !has_system(messages)) {
        open_turn(t, STR("system"));
        if (!system.n)
            tokens_text(t, STR("You are a helpful assistant, served by a simulated model. Answer briefly."));
        else if (!add_content(t, system)) {
            *error = "Input should be a valid string or a list of text blocks.";
            return false;
        }
        if (tools.n)
            tokens_text(t, tools);
        prompts_close_answer(t);
    }
    if (!prompts_append(t, messages, error))
        return false;
    prompts_open_answer(t);
    return true;
}
