/* Messages, system text, tools and the items of /v1/responses: the sections of a conversation. */
#include "api/shape.h"

/* In the order in which they stand in the stream. */
enum msg_key {
    MK_ROLE,
    MK_CONTENT,
    MK_TOOL_CALLS,
    MK_FUNCTION_CALL,
    MK_NAME,
    MK_ARGUMENTS,
    MK_OUTPUT,
    MK_INPUT,
    MK_TYPE,
    MK_N
};
static const struct key_name message_keys[] = {KEY("role", MK_ROLE), KEY("content", MK_CONTENT),
                                               KEY("tool_calls", MK_TOOL_CALLS),
                                               KEY("function_call", MK_FUNCTION_CALL)};
static const struct key_name item_keys[] = {
    KEY("type", MK_TYPE),           KEY("role", MK_ROLE),     KEY("content", MK_CONTENT), KEY("name", MK_NAME),
    KEY("arguments", MK_ARGUMENTS), KEY("output", MK_OUTPUT), KEY("input", MK_INPUT)};

struct message {
    unsigned seen;    /* msg_key bits */
    bool role_done;   /* the role and its separator are in the stream */
    int last;         /* the last key that went to the stream directly */
    unsigned waiting; /* keys whose values are to be read again at the end */
    struct str at[MK_N];
};

static bool role(struct scan *s)
{
    struct scan_str v;
    if (scan_peek(s) != '"')
        return scan_fail_type(s, s->p, "role", "a string");
    if (!scan_string(s, &v))
        return false;
    scan_commit(s, v.text.n);
    return true;
}

/* An array or object as compact JSON; null and an empty array give nothing. */
static bool json_or_nothing(struct scan *s)
{
    size_t before = s->n;
    if (scan_peek(s) == 'n')
        return scan_skip(s);
    if (!scan_text(s))
        return false;
    if (s->n == before + 2)
        s->n = before;
    s->rq->prompt_bytes += scan_grown(s, before);
    return true;
}

static bool message_piece(struct scan *s, int id)
{
    switch (id) {
    case MK_CONTENT:
    case MK_OUTPUT:
        if (id == MK_OUTPUT && scan_peek(s) == '{') /* computer screenshots and the like */
            return shape_text_or_json(s);
        return shape_content(s);
    case MK_TOOL_CALLS:
    case MK_FUNCTION_CALL:
        return json_or_nothing(s);
    default:
        return shape_text_or_json(s);
    }
}

/* A value at p: to the stream when it is this key's turn, else remembered. Keys mostly come in the order of the stream.
 */
static bool message_value(struct scan *s, struct message *m, int id)
{
    if (id == MK_ROLE && !m->waiting) {
        if (!role(s))
            return false;
        scan_emit(s, SCAN_SEP_ROLE);
        m->role_done = true;
        return true;
    }
    if (m->role_done && !m->waiting && id == m->last + 1 && id != MK_TYPE) {
        m->last = id;
        return message_piece(s, id);
    }
    const char *at = s->p;
    int c = scan_peek(s);
    if ((id == MK_ROLE || id == MK_TYPE) && c != '"')
        return scan_fail_type(s, s->p, id == MK_ROLE ? "role" : "type", "a string");
    if (!scan_skip(s))
        return false;
    m->at[id] = (struct str){at, (size_t)(s->p - at)};
    if (id != MK_TYPE)
        m->waiting |= BIT(id);
    return true;
}

static bool message_end(struct scan *s, struct message *m)
{
    struct scan_mark mark = {s->p, s->end};
    if (!m->role_done) {
        struct str r = m->at[MK_ROLE].p ? m->at[MK_ROLE] : m->at[MK_TYPE];
        if (r.p) {
            (void)scan_rewind(s, r);
            if (!role(s))
                return false;
        }
        scan_emit(s, SCAN_SEP_ROLE);
    }
    for (int id = MK_CONTENT; id < MK_TYPE; id++) {
        if (!(m->waiting & BIT(id)))
            continue;
        (void)scan_rewind(s, m->at[id]);
        if (!message_piece(s, id))
            return false;
    }
    scan_resume(s, mark);
    scan_emit(s, SCAN_SEP_END);
    return true;
}

static bool message(struct scan *s, const char *field, const struct key_name *keys, size_t n_keys)
{
    struct message m = {.last = MK_ROLE};
    struct scan_str key;
    bool first = true;
    int more;
    if (scan_peek(s) != '{')
        return scan_fail_type(s, s->p, field, "an array of objects");
    if (!scan_open(s))
        return false;
    while ((more = scan_key(s, &key, &first)) > 0) {
        int id = key_find(keys, n_keys, key.text);
        if (id < 0) {
            if (!scan_skip(s))
                return false;
            continue;
        }
        if (m.seen & BIT(id)) {
            for (size_t i = 0; i < n_keys; i++)
                if (keys[i].id == id)
                    return scan_fail_dup(s, s->p, keys[i].name.p);
        }
        m.seen |= BIT(id);
        if (!message_value(s, &m, id))
            return false;
    }
    return more == 0 && message_end(s, &m);
}

static bool message_array(struct scan *s, const char *field, const struct key_name *keys, size_t n_keys)
{
    bool first = true;
    int more;
    if (!scan_open(s))
        return false;
    while ((more = scan_elem(s, &first)) > 0)
        if (!message(s, field, keys, n_keys))
            return false;
    s->rq->n_prompts = 1;
    return more == 0;
}

bool shape_messages(struct scan *s)
{
    if (scan_peek(s) != '[')
        return scan_fail_type(s, s->p, "messages", "an array");
    return message_array(s, "messages", message_keys, ARRAY_LEN(message_keys));
}

bool shape_responses_input(struct scan *s)
{
    int c = scan_peek(s);
    if (c == '[')
        return message_array(s, "input", item_keys, ARRAY_LEN(item_keys));
    if (c == 'n')
        return scan_skip(s);
    if (c != '"')
        return scan_fail_type(s, s->p, "input", "a string or an array of items");
    scan_emit_bytes(s, "user\x1f", 5);
    if (!shape_text_or_json(s))
        return false;
    scan_emit_bytes(s, "\x1e", 1);
    s->rq->n_prompts = 1;
    return true;
}

bool shape_system(struct scan *s, const char *field)
{
    int c = scan_peek(s);
    if (c == 'n')
        return scan_skip(s);
    if (c != '"' && c != '[')
        return scan_fail_type(s, s->p, field, "a string or an array of text blocks");
    scan_emit_bytes(s, "system\x1f", 7);
    if (!shape_content(s))
        return false;
    scan_emit_bytes(s, "\x1e", 1);
    return true;
}

bool shape_tools(struct scan *s)
{
    int c = scan_peek(s);
    if (c != '[' && c != 'n')
        return scan_fail_type(s, s->p, "tools", "an array");
    uint64_t text = s->rq->prompt_bytes;
    bool ok = json_or_nothing(s);
    s->rq->prompt_bytes = text; /* tools are no prompt text */
    return ok;
}
