/* What an answer says about itself: token usage, first-event errors, the id of a response. */
#include "api/api.h"
#include "base/json.h"

/* clang-format off */
#define NAME(text) {"" text, sizeof(text) - 1}
/* clang-format on */

enum usage_key { UK_PROMPT, UK_COMPLETION, UK_CACHED, UK_DETAILS };
static const struct {
    struct str name;
    enum usage_key id;
} usage_keys[] = {
    {NAME("prompt_tokens"), UK_PROMPT},           {NAME("input_tokens"), UK_PROMPT},
    {NAME("completion_tokens"), UK_COMPLETION},   {NAME("output_tokens"), UK_COMPLETION},
    {NAME("cached_tokens"), UK_CACHED},           /* in *_details, and in SGLang's meta_info */
    {NAME("cache_read_input_tokens"), UK_CACHED}, /* Anthropic */
    {NAME("prompt_tokens_details"), UK_DETAILS},  {NAME("input_tokens_details"), UK_DETAILS},
};

static int usage_key(const struct json *j)
{
    for (size_t i = 0; i < ARRAY_LEN(usage_keys); i++)
        if (json_str_eq(j->tok, j->escaped, usage_keys[i].name))
            return (int)usage_keys[i].id;
    return -1;
}

static void set(struct api_usage *u, int id, uint64_t v)
{
    u->found = true;
    if (id == UK_PROMPT)
        u->prompt_tokens = v;
    if (id == UK_COMPLETION)
        u->completion_tokens = v;
    if (id == UK_CACHED) {
        u->cached_tokens = v;
        u->has_cached = true;
    }
}

/* A usage object (its `{` just read), with at most one object of details inside. */
static bool usage_object(struct json *j, struct api_usage *u)
{
    unsigned inside = j->depth, outer = j->depth;
    enum json_type t;
    int id = -1;
    while ((t = json_next(j)) != JSON_ERROR && t != JSON_END) {
        if (t == JSON_OBJ_END) {
            if (inside == outer)
                return true;
            inside = outer;
            continue;
        }
        if (t != JSON_KEY)
            return false;
        id = usage_key(j);
        if (id < 0) {
            if (!json_skip(j))
                return false;
            continue;
        }
        struct json at_value = *j;
        uint64_t v;
        t = json_next(j);
        if (t == JSON_NUMBER && id != UK_DETAILS && str_to_u64(j->tok, &v)) {
            set(u, id, v);
        } else if (t == JSON_OBJ && id == UK_DETAILS && inside == outer) {
            inside = outer + 1;
        } else {
            *j = at_value;
            if (!json_skip(j))
                return false;
        }
    }
    return false;
}

/* Keys under which usage hangs: itself, or an object that holds it. */
static bool is_key(const struct json *j, const char *name)
{
    return json_str_eq(j->tok, j->escaped, str_c(name));
}

bool api_usage_from_body(struct str body, struct api_usage *u)
{
    struct json j;
    enum json_type t;
    struct api_usage got = *u;
    unsigned depth = 1;
    got.found = false;
    json_init(&j, body);
    if (json_next(&j) != JSON_OBJ)
        return false;
    while ((t = json_next(&j)) == JSON_KEY || (t == JSON_OBJ_END && depth == 2)) {
        if (t == JSON_OBJ_END) {
            depth = 1;
            continue;
        }
        bool holds = is_key(&j, "usage") || is_key(&j, "meta_info");
        bool wraps = depth == 1 && (is_key(&j, "response") || is_key(&j, "message"));
        struct json at_value = j;
        t = holds || wraps ? json_next(&j) : JSON_NULL;
        if (t == JSON_OBJ && wraps) {
            depth = 2;
        } else if (t == JSON_OBJ && holds) {
            if (!usage_object(&j, &got))
                return false;
        } else {
            j = at_value;
            if (!json_skip(&j))
                return false;
        }
    }
    if (t != JSON_OBJ_END || json_next(&j) != JSON_END || !got.found)
        return false;
    *u = got;
    return true;
}

/* The object behind a quoted key at `at`, when it is one. */
static bool usage_at(struct str text, size_t at, size_t key_n, struct api_usage *u)
{
    struct str rest = str_from(text, at + key_n);
    size_t i = 0, colons = 0;
    while (i < rest.n &&
           (rest.p[i] == ' ' || rest.p[i] == '\t' || rest.p[i] == '\n' || rest.p[i] == '\r' || rest.p[i] == ':'))
        colons += rest.p[i++] == ':';
    if (colons != 1 || i >= rest.n || rest.p[i] != '{')
        return false;
    struct json j;
    struct api_usage got = *u;
    got.found = false;
    json_init(&j, str_from(rest, i));
    if (json_next(&j) != JSON_OBJ || !usage_object(&j, &got) || !got.found)
        return false;
    *u = got;
    return true;
}

/* Last occurrence of a key with a usable object. Inside strings the quotes would be escaped, so a match is a key (or a
 * whole string that reads `usage`, which no colon follows). */
static bool last_usage(struct str text, struct str key, struct api_usage *u)
{
    for (size_t at = text.n; at-- > 0;) {
        if (text.p[at] != '"' || !str_starts(str_from(text, at), key))
            continue;
        if (usage_at(text, at, key.n, u))
            return true;
    }
    return false;
}

bool api_usage_from_tail(struct str text, struct api_usage *u)
{
    return last_usage(text, STR("\"usage\""), u) || last_usage(text, STR("\"meta_info\""), u);
}

/* What an error event says: its number, or one made of its type. */
struct event_error {
    bool is_error;
    unsigned code;
};

static unsigned code_of_type(const struct json *j)
{
    static const struct {
        const char *type;
        unsigned code;
    } types[] = {{"overloaded_error", 503},         {"api_error", 500},
                 {"rate_limit_error", 429},         {"InternalServerError", 500},
                 {"ServiceUnavailableError", 503},  {"server_error", 500},
                 {"service_unavailable_error", 503}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (is_key(j, types[i].type))
            return types[i].code;
    return 0;
}

/* Reads keys of an object (its `{` just read) that may be an error, and of the `error` object inside. */
static bool error_object(struct json *j, struct event_error *ev)
{
    unsigned depth = 1;
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY || (t == JSON_OBJ_END && depth == 2)) {
        if (t == JSON_OBJ_END) {
            depth = 1;
            continue;
        }
        bool error = depth == 1 && is_key(j, "error"), object = depth == 1 && is_key(j, "object"),
             code = is_key(j, "code"), type = is_key(j, "type");
        struct json at_value = *j;
        uint64_t v;
        t = json_next(j);
        if (error && t == JSON_OBJ) {
            ev->is_error = true;
            depth = 2;
        } else if (code && (t == JSON_NUMBER || t == JSON_STRING) && str_to_u64(j->tok, &v) && v < 1000) {
            ev->code = (unsigned)v;
        } else if ((type || object) && t == JSON_STRING) {
            ev->is_error |= depth == 1 && is_key(j, "error");
            if (!ev->code && type)
                ev->code = code_of_type(j);
        } else {
            *j = at_value;
            if (!json_skip(j))
                return false;
        }
    }
    return t == JSON_OBJ_END;
}

unsigned api_first_event_error(struct str data)
{
    struct json j;
    struct event_error ev = {false, 0};
    json_init(&j, data);
    if (json_next(&j) != JSON_OBJ || !error_object(&j, &ev) || !ev.is_error)
        return 0;
    return ev.code >= 500 || ev.code == 429 ? ev.code : 0;
}

struct str api_response_id(struct str json)
{
    struct json j;
    enum json_type t;
    unsigned depth = 1;
    struct str id = STR_NULL;
    json_init(&j, json);
    if (json_next(&j) != JSON_OBJ)
        return id;
    while ((t = json_next(&j)) == JSON_KEY) { /* may stop early: the text may be the first part of a long answer */
        bool is_id = is_key(&j, "id"), wraps = depth == 1 && is_key(&j, "response");
        struct json at_value = j;
        t = json_next(&j);
        if (is_id && t == JSON_STRING)
            return j.escaped ? STR_NULL : j.tok;
        if (wraps && t == JSON_OBJ) {
            depth = 2;
            continue;
        }
        j = at_value;
        if (!json_skip(&j))
            return id;
    }
    return id;
}
