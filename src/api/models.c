/* The model list of a server (GET /v1/models). */
#include "api/api.h"
#include "base/json.h"

#define MODEL_ID_MAX 1024

typedef void (*id_fn)(void *ctx, struct str id, bool adapter);

struct entry { /* what one entry of `data` tells */
    struct str id; /* raw; p NULL: none */
    bool escaped, adapter;
};

static void report(const struct entry *e, id_fn fn, void *ctx)
{
    char id[MODEL_ID_MAX];
    if (!fn || !e->id.p || e->id.n > sizeof(id))
        return;
    if (!e->escaped)
        fn(ctx, e->id, e->adapter);
    else
        fn(ctx, (struct str){id, json_unescape(e->id, id)}, e->adapter);
}

/* The value of `id`, or of `parent` (a string: the model that this adapter belongs to; null otherwise). */
static bool read_field(struct json *j, bool is_id, struct entry *e)
{
    struct json ahead = *j;
    if (json_next(&ahead) != JSON_STRING)
        return !is_id && json_skip(j);
    *j = ahead;
    if (is_id) {
        e->id = j->tok;
        e->escaped = j->escaped;
    } else {
        e->adapter = j->tok.n > 0;
    }
    return true;
}

/* One entry of `data`, its `{` just read. */
static bool model(struct json *j, id_fn fn, void *ctx)
{
    struct entry e = {0};
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY) {
        bool is_id = json_str_eq(j->tok, j->escaped, STR("id"));
        if (!is_id && !json_str_eq(j->tok, j->escaped, STR("parent"))) {
            if (!json_skip(j))
                return false;
            continue;
        }
        if (!read_field(j, is_id, &e))
            return false;
    }
    if (t == JSON_OBJ_END)
        report(&e, fn, ctx);
    return t == JSON_OBJ_END;
}

/* The whole document; fn NULL: only checked. */
static bool list(struct str body, id_fn fn, void *ctx)
{
    struct json j;
    enum json_type t;
    bool found = false;
    json_init(&j, body);
    if (json_next(&j) != JSON_OBJ)
        return false;
    while ((t = json_next(&j)) == JSON_KEY) {
        if (found || !json_str_eq(j.tok, j.escaped, STR("data"))) {
            if (!json_skip(&j))
                return false;
            continue;
        }
        found = true;
        if (json_next(&j) != JSON_ARR)
            return false;
        while ((t = json_next(&j)) == JSON_OBJ)
            if (!model(&j, fn, ctx))
                return false;
        if (t != JSON_ARR_END)
            return false;
    }
    return found && t == JSON_OBJ_END && json_next(&j) == JSON_END;
}

int api_models_each(struct str body, id_fn fn, void *ctx)
{
    if (!list(body, NULL, NULL)) /* first checked as a whole: no half lists */
        return -1;
    return list(body, fn, ctx) ? 0 : -1;
}
