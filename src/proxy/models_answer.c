/* models_answer.c - GET /v1/models of a pool: what its endpoints serve and what its InferenceModels and rewrites
 * promise, once each. */
#include "proxy/impl.h"

#include "base/json.h"

#include <time.h>

struct listing {
    struct jsonw w;
    struct map seen;
    int64_t created;
};

static void add_model(struct listing *l, struct str id)
{
    if (map_get(&l->seen, id))
        return;
    map_put(&l->seen, id, l);
    jsonw_obj(&l->w);
    jsonw_key(&l->w, "id");
    jsonw_str(&l->w, id);
    jsonw_key(&l->w, "object");
    jsonw_cstr(&l->w, "model");
    jsonw_key(&l->w, "created");
    jsonw_i64(&l->w, l->created);
    jsonw_key(&l->w, "owned_by");
    jsonw_cstr(&l->w, "penstock");
    jsonw_obj_end(&l->w);
}

static void on_model(void *ctx, const char *id)
{
    add_model(ctx, str_c(id));
}

static void ignore(void *ctx, const char *id)
{
    (void)ctx;
    (void)id;
}

bool models_known(struct request *rq, const struct conf_backend *pool)
{
    (void)pool;
    return port_models(rq->backend->port, ignore, NULL);
}

void models_answer(struct request *rq, const struct conf_backend *pool)
{
    struct buf *out = &rq->w->scratch;
    struct listing l = {.created = (int64_t)time(NULL)};
    buf_clear(out);
    map_init(&l.seen, 3);
    jsonw_init(&l.w, out);
    jsonw_obj(&l.w);
    jsonw_key(&l.w, "object");
    jsonw_cstr(&l.w, "list");
    jsonw_key(&l.w, "data");
    jsonw_arr(&l.w);
    port_models(rq->backend->port, on_model, &l);
    for (uint32_t i = 0; i < pool->n_models; i++)
        add_model(&l, pool->models[i].model_name);
    for (uint32_t i = 0; i < pool->n_rewrites; i++)
        if (pool->rewrites[i].model.n) /* "" stands for any */
            add_model(&l, pool->rewrites[i].model);
    jsonw_arr_end(&l.w);
    jsonw_obj_end(&l.w);
    map_free(&l.seen);
    request_answer(rq, 200, "application/json", NULL, buf_str(out));
}
