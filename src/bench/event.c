/* bench/event.c - lines of an event stream, and one walk over the JSON of an event. */
#include "bench/event.h"

#include "base/json.h"

#include <stdlib.h>

/* ---- lines ---- */

static bool give_line(struct str line, bool (*fn)(void *ctx, struct str payload), void *ctx)
{
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (!str_starts(line, STR("data:")))
        return true;
    line = str_from(line, line.n > 5 && line.p[5] == ' ' ? 6 : 5);
    return fn(ctx, line);
}

static bool keep(struct event_lines *l, struct str s)
{
    if (s.n == 0)
        return true;
    if (l->n + s.n > EVENT_LINE_MAX)
        return false;
    if (l->n + s.n > l->cap) {
        l->cap = MAX(l->cap * 2, l->n + s.n);
        l->p = xrealloc(l->p, l->cap);
    }
    memcpy(l->p + l->n, s.p, s.n);
    l->n += s.n;
    return true;
}

void event_lines_free(struct event_lines *l)
{
    free(l->p);
    *l = (struct event_lines){0};
}

bool event_lines_feed(struct event_lines *l, struct str piece, bool (*fn)(void *ctx, struct str payload), void *ctx)
{
    while (piece.n) {
        const char *nl = memchr(piece.p, '\n', piece.n);
        if (!nl)
            return keep(l, piece);
        struct str line = str_first(piece, (size_t)(nl - piece.p));
        piece = str_from(piece, line.n + 1);
        bool ok;
        if (l->n) {
            ok = keep(l, line) && give_line((struct str){l->p, l->n}, fn, ctx);
            event_lines_free(l);
        } else {
            ok = give_line(line, fn, ctx);
        }
        if (!ok)
            return false;
    }
    return true;
}

/* ---- JSON ---- */

/* Type of the value that follows; the scanner moves into it when it is of the type wanted, else over it. JSON_ERROR
 * ends the walk. */
static enum json_type enter(struct json *j, enum json_type wanted)
{
    struct json before = *j;
    enum json_type type = json_next(j);
    if (type == wanted || type == JSON_ERROR)
        return type;
    *j = before;
    return json_skip(j) ? type : JSON_ERROR;
}

static uint32_t number(struct json *j)
{
    double v = 0;
    if (enter(j, JSON_NUMBER) != JSON_NUMBER || !str_to_double(j->tok, &v) || !(v >= 0))
        return 0;
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

/* Behind the '{' of "prompt_tokens_details". */
static void take_details(struct json *j, struct event *e)
{
    while (json_next(j) == JSON_KEY) {
        if (str_eq(j->tok, STR("cached_tokens")))
            e->cached_tokens = number(j);
        else if (!json_skip(j))
            return;
    }
}

static void take_usage(struct json *j, struct event *e)
{
    e->has_usage = true;
    while (json_next(j) == JSON_KEY) {
        struct str key = j->tok;
        if (str_eq(key, STR("prompt_tokens")))
            e->prompt_tokens = number(j);
        else if (str_eq(key, STR("completion_tokens")))
            e->completion_tokens = number(j);
        else if (!str_eq(key, STR("prompt_tokens_details")))
            (void)json_skip(j);
        else if (enter(j, JSON_OBJ) == JSON_OBJ)
            take_details(j, e);
        if (j->error)
            return;
    }
}

/* Behind the '{' of the first choice, or of its "delta". */
static void take_choice(struct json *j, struct event *e, bool delta)
{
    while (json_next(j) == JSON_KEY) {
        struct str key = j->tok;
        if (!delta && str_eq(key, STR("delta"))) {
            if (enter(j, JSON_OBJ) == JSON_OBJ)
                take_choice(j, e, true);
        } else if (str_eq(key, delta ? STR("content") : STR("text"))) {
            if (enter(j, JSON_STRING) == JSON_STRING)
                e->text = j->tok;
        } else {
            (void)json_skip(j);
        }
        if (j->error)
            return;
    }
}

static void take_choices(struct json *j, struct event *e)
{
    struct json before = *j;
    enum json_type type = json_next(j);
    if (type == JSON_ARR_END)
        return;
    e->choices = type != JSON_ERROR;
    if (type == JSON_OBJ) {
        take_choice(j, e, false);
    } else {
        *j = before;
        (void)json_skip(j);
    }
    while (!j->error) { /* further choices */
        before = *j;
        if (json_next(j) == JSON_ARR_END)
            return;
        *j = before;
        (void)json_skip(j);
    }
}

bool event_parse(struct str payload, struct event *out)
{
    struct json j;
    enum json_type type;
    *out = (struct event){0};
    json_init(&j, payload);
    if (json_next(&j) != JSON_OBJ)
        return false;
    while ((type = json_next(&j)) == JSON_KEY) {
        struct str key = j.tok;
        if (str_eq(key, STR("choices"))) {
            if (enter(&j, JSON_ARR) == JSON_ARR)
                take_choices(&j, out);
        } else if (str_eq(key, STR("usage"))) {
            if (enter(&j, JSON_OBJ) == JSON_OBJ)
                take_usage(&j, out);
        } else if (str_eq(key, STR("error"))) {
            out->error = enter(&j, JSON_NULL) != JSON_NULL;
        } else {
            (void)json_skip(&j);
        }
        if (j.error)
            return false;
    }
    return type == JSON_OBJ_END;
}

/* Behind a '{'. */
static struct str find_code(struct json *j, unsigned depth)
{
    struct str code = STR_NULL, kind = STR_NULL, inner = STR_NULL;
    while (json_next(j) == JSON_KEY) {
        struct str key = j->tok;
        if (str_eq(key, STR("code")) && enter(j, JSON_STRING) == JSON_STRING)
            code = j->tok;
        else if (str_eq(key, STR("type")) && enter(j, JSON_STRING) == JSON_STRING)
            kind = j->tok;
        else if (str_eq(key, STR("error")) && depth == 0 && enter(j, JSON_OBJ) == JSON_OBJ)
            inner = find_code(j, 1);
        else if (!str_eq(key, STR("code")) && !str_eq(key, STR("type")) && !(str_eq(key, STR("error")) && depth == 0))
            (void)json_skip(j);
        if (j->error)
            break;
    }
    if (inner.n)
        return inner;
    return code.n ? code : kind;
}

struct str event_error_code(struct str payload)
{
    struct json j;
    json_init(&j, payload);
    return json_next(&j) == JSON_OBJ ? find_code(&j, 0) : STR_NULL;
}
