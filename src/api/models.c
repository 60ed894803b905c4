/* The model list of a server (GET /v1/models). */
#include "api/api.h"
#include "base/json.h"

#define MODEL_ID_MAX 1024

typedef void (*id_fn)(void *ctx, struct str id);

static void report(const struct json *j, id_fn fn, void *ctx)
{
    char id[MODEL_ID_MAX];
    if (!fn || j->tok.n > sizeof(id))
        return;
    if (!j->escaped)
        fn(ctx, j->tok);
    else
        fn(ctx, (struct str){id, json_unescape(j->tok, id)});
}

/* One entry of `data`, its `{` just read. */
static bool model(struct json *j, id_fn fn, void *ctx)
{
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY) {
        if (!json_str_eq(j->tok, j->escaped, STR("id"))) {
            if (!json_skip(j))
                return false;
            continue;
        }
        if (json_next(j) != JSON_STRING)
            return false;
        report(j, fn, ctx);
    }
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

int api_models_each(struct str body, void (*fn)(void *ctx, struct str id), void *ctx)
{
    if (!list(body, NULL, NULL)) /* first checked as a whole: no half lists */
        return -1;
    return list(body, fn, ctx) ? 0 : -1;
}
