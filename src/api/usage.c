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

/* What was found, by usage_key. */
struct tally {
    uint64_t v[UK_DETAILS];
    unsigned found; /* bits */
};

static void tally_set(struct tally *t, int id, uint64_t v)
{
    t->v[id] = v;
    t->found |= BIT(id);
}

static void tally_add(struct tally *t, const struct tally *more)
{
    for (int id = 0; id < UK_DETAILS; id++)
        t->v[id] += more->v[id];
    t->found |= more->found;
}

static bool tell(const struct tally *t, struct api_usage *u)
{
    if (t->found & BIT(UK_PROMPT))
        u->prompt_tokens = t->v[UK_PROMPT];
    if (t->found & BIT(UK_COMPLETION))
        u->completion_tokens = t->v[UK_COMPLETION];
    if (t->found & BIT(UK_CACHED)) {
        u->cached_tokens = t->v[UK_CACHED];
        u->has_cached = true;
    }
    u->found |= t->found != 0;
    return t->found != 0;
}

/* A usage object (its `{` just read), with at most one object of details inside. */
static bool usage_object(struct json *j, struct tally *u)
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
            tally_set(u, id, v);
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

static bool is_key(const struct json *j, const char *name)
{
    return json_str_eq(j->tok, j->escaped, str_c(name));
}

/* An answer (its `{` just read), to its end. */
static bool answer_object(struct json *j, struct tally *got)
{
    unsigned depth = 1;
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY || (t == JSON_OBJ_END && depth == 2)) {
        if (t == JSON_OBJ_END) {
            depth = 1;
            continue;
        }
        bool holds = is_key(j, "usage") || is_key(j, "meta_info");
        bool wraps = depth == 1 && (is_key(j, "response") || is_key(j, "message"));
        struct json at_value = *j;
        t = holds || wraps ? json_next(j) : JSON_NULL;
        if (t == JSON_OBJ && wraps) {
            depth = 2;
        } else if (t == JSON_OBJ && holds) {
            if (!usage_object(j, got))
                return false;
        } else {
            *j = at_value;
            if (!json_skip(j))
                return false;
        }
    }
    return t == JSON_OBJ_END;
}

/* The answers of a batch (the `[` just read), to its end. */
static bool answer_list(struct json *j, struct tally *sum)
{
    enum json_type t;
    while ((t = json_next(j)) == JSON_OBJ) {
        struct tally one = {0};
        if (!answer_object(j, &one))
            return false;
        tally_add(sum, &one);
    }
    return t == JSON_ARR_END;
}

bool api_usage_from_body(struct str body, struct api_usage *u)
{
    struct json j;
    struct tally got = {0};
    json_init(&j, body);
    enum json_type t = json_next(&j);
    bool ok = t == JSON_OBJ ? answer_object(&j, &got) : t == JSON_ARR && answer_list(&j, &got);
    return ok && json_next(&j) == JSON_END && tell(&got, u);
}

static size_t blanks(struct str s, size_t i)
{
    while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n' || s.p[i] == '\r'))
        i++;
    return i;
}

/* The object behind the key that text begins with, when it is one. *after: what follows it. */
static bool usage_at(struct str text, struct str key, struct tally *got, struct str *after)
{
    size_t i = blanks(text, key.n);
    if (i >= text.n || text.p[i] != ':')
        return false;
    i = blanks(text, i + 1);
    if (i >= text.n || text.p[i] != '{')
        return false;
    struct json j;
    json_init(&j, str_from(text, i));
    *got = (struct tally){0};
    if (json_next(&j) != JSON_OBJ || !usage_object(&j, got) || !got->found)
        return false;
    *after = str_from(text, (size_t)(j.p - text.p));
    return true;
}

/* The number in `, "index": N` at the start of text, with which SGLang's events say what item of a batch they belong
 * to. Else 0. */
static uint64_t index_at(struct str text)
{
    size_t i = blanks(text, 0);
    if (i >= text.n || text.p[i] != ',')
        return 0;
    i = blanks(text, i + 1);
    if (!str_starts(str_from(text, i), STR("\"index\"")))
        return 0;
    i = blanks(text, i + sizeof("\"index\"") - 1);
    if (i >= text.n || text.p[i] != ':')
        return 0;
    size_t from = blanks(text, i + 1), end = from;
    while (end < text.n && text.p[end] >= '0' && text.p[end] <= '9')
        end++;
    uint64_t v = 0;
    return str_to_u64((struct str){text.p + from, end - from}, &v) ? v : 0;
}

/* The latest usage of each item of a stream. */
#define ITEMS_MAX 64
struct items {
    unsigned n;
    uint64_t index[ITEMS_MAX];
    struct tally of[ITEMS_MAX];
};

static void items_put(struct items *it, uint64_t index, const struct tally *t)
{
    unsigned i = 0;
    while (i < it->n && it->index[i] != index)
        i++;
    if (i == ITEMS_MAX)
        return;
    it->n = MAX(it->n, i + 1);
    it->index[i] = index;
    it->of[i] = *t;
}

/* Every `usage` of the text, the later ones over the earlier: Anthropic tells the prompt's tokens at the start and the
 * answer's at the end. Inside strings the quotes would be escaped, so a match is a key (or a whole string that reads
 * `usage`, which no colon follows). */
static void usages(struct str text, struct tally *sum)
{
    const struct str key = STR("\"usage\"");
    struct tally one;
    ptrdiff_t at;
    while ((at = str_find(text, key)) >= 0) {
        struct str here = str_from(text, (size_t)at), after;
        bool ok = usage_at(here, key, &one, &after);
        for (int id = 0; ok && id < UK_DETAILS; id++)
            if (one.found & BIT(id))
                tally_set(sum, id, one.v[id]);
        text = ok ? after : str_from(here, key.n);
    }
}

/* SGLang's own events are cumulative, each about one item; without events it is a list, each of whose entries is an
 * item. */
static void meta_infos(struct str text, struct tally *sum)
{
    const struct str key = STR("\"meta_info\"");
    struct items it = {0};
    struct tally one;
    ptrdiff_t at;
    bool events = str_starts(text, STR("data:")) || str_find(text, STR("\ndata:")) >= 0;
    while ((at = str_find(text, key)) >= 0) {
        struct str here = str_from(text, (size_t)at), after;
        bool ok = usage_at(here, key, &one, &after);
        if (ok)
            items_put(&it, events ? index_at(after) : it.n, &one);
        text = ok ? after : str_from(here, key.n);
    }
    for (unsigned i = 0; i < it.n; i++)
        tally_add(sum, &it.of[i]);
}

bool api_usage_from_tail(struct str text, struct api_usage *u)
{
    struct tally got = {0};
    usages(text, &got);
    if (!got.found)
        meta_infos(text, &got);
    return tell(&got, u);
}

/* What an error event says: its number, or one made of its type. */
struct event_error {
    bool is_error;
    bool bare; /* a sentence is all there is */
    unsigned code;
    bool aborted; /* SGLang's finish_reason is "abort" */
    unsigned abort_code;
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

/* Where in an event a key stands. */
enum place { AT_TOP, IN_ERROR, IN_META, IN_FINISH, ELSEWHERE };

static enum place place_of(const struct json *key, enum place in)
{
    if (in == AT_TOP && is_key(key, "error"))
        return IN_ERROR;
    if (in == AT_TOP && is_key(key, "meta_info"))
        return IN_META;
    return in == IN_META && is_key(key, "finish_reason") ? IN_FINISH : ELSEWHERE;
}

static void error_number(const struct json *j, unsigned *code)
{
    uint64_t v;
    if (str_to_u64(j->tok, &v) && v < 1000)
        *code = (unsigned)v;
}

/* A string or number (of type t, just read) under the key `key` in the event, or in its error. */
static void error_scalar(const struct json *key, const struct json *j, enum json_type t, bool top,
                         struct event_error *ev)
{
    if (is_key(key, "code")) {
        error_number(j, &ev->code);
    } else if (t == JSON_STRING && is_key(key, "type")) {
        ev->is_error |= top && is_key(j, "error");
        if (!ev->code)
            ev->code = code_of_type(j);
    } else if (t == JSON_STRING && top && is_key(key, "object")) {
        ev->is_error |= is_key(j, "error");
    } else if (t == JSON_STRING && top && is_key(key, "error") && j->tok.n) {
        ev->is_error = ev->bare = true;
    }
}

static void finish_scalar(const struct json *key, const struct json *j, enum json_type t, struct event_error *ev)
{
    if (t == JSON_STRING && is_key(key, "type"))
        ev->aborted = is_key(j, "abort");
    else if (is_key(key, "status_code"))
        error_number(j, &ev->abort_code);
}

/* Reads an event (its `{` just read) to its end. */
static bool error_event(struct json *j, struct event_error *ev)
{
    enum place in = AT_TOP;
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY || (t == JSON_OBJ_END && in != AT_TOP)) {
        if (t == JSON_OBJ_END) {
            in = in == IN_FINISH ? IN_META : AT_TOP;
            continue;
        }
        struct json key = *j;
        enum place inside = place_of(j, in);
        t = json_next(j);
        if (t == JSON_OBJ && inside != ELSEWHERE) {
            ev->is_error |= inside == IN_ERROR;
            in = inside;
        } else if (t == JSON_STRING || t == JSON_NUMBER) {
            if (in == IN_FINISH)
                finish_scalar(&key, j, t, ev);
            else if (in != IN_META)
                error_scalar(&key, j, t, in == AT_TOP, ev);
        } else {
            *j = key;
            if (!json_skip(j))
                return false;
        }
    }
    return t == JSON_OBJ_END;
}

unsigned api_first_event_error(struct str data)
{
    struct json j;
    struct event_error ev = {0};
    json_init(&j, data);
    if (json_next(&j) != JSON_OBJ || !error_event(&j, &ev))
        return 0;
    unsigned code = ev.is_error ? ev.code : ev.aborted ? ev.abort_code : 0;
    if (ev.bare && !code)
        code = 500;
    return code >= 500 || code == 429 ? code : 0;
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
