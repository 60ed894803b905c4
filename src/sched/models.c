/* models.c - one reading of an endpoint's GET /v1/models. */
#include "sched/impl.h"

#include "api/api.h"
#include "net/httpc.h"

#include <stdlib.h>

#define MAX_PAGE   (1024 * 1024)
#define MAX_MODELS 4096

struct models_read {
    struct httpc *client;
    struct ep *ep;
    struct buf page;
    void (*done)(void *ctx, bool ok);
    void *ctx;
};

struct ids {
    char **v;
    bool *adapter;
    uint32_t n, cap;
};

static void add_id(void *ctx, struct str id, bool adapter)
{
    struct ids *ids = ctx;
    if (!id.n || ids->n == MAX_MODELS)
        return;
    if (ids->n == ids->cap) {
        ids->cap = ids->cap ? ids->cap * 2 : 8;
        ids->v = xrealloc(ids->v, ids->cap * sizeof *ids->v);
        ids->adapter = xrealloc(ids->adapter, ids->cap * sizeof *ids->adapter);
    }
    ids->adapter[ids->n] = adapter;
    ids->v[ids->n++] = str_dup(id);
}

static void drop_ids(struct ids *ids)
{
    for (uint32_t i = 0; i < ids->n; i++)
        free(ids->v[i]);
    free(ids->v);
}

static bool on_page(void *ctx, struct str piece)
{
    struct models_read *m = ctx;
    return buf_add_str(&m->page, piece);
}

/* A server without that page may serve anything; one that does not answer keeps what was known of it. */
static void on_answer(void *ctx, unsigned status, const char *err)
{
    (void)err;
    struct models_read *m = ctx;
    struct ids ids = {0};
    bool ok = status == 200 && !m->page.overflow && api_models_each(buf_str(&m->page), add_id, &ids) == 0;
    if (ok)
        port_set_models(m->ep->pub.port, m->ep, ids.v, ids.adapter, ids.n);
    else
        drop_ids(&ids);
    free(ids.adapter);
    if (!ok && status >= 400 && status < 500)
        port_set_models(m->ep->pub.port, m->ep, NULL, NULL, 0);
    m->done(m->ctx, ok);
}

struct models_read *models_read_start(struct loop *l, struct ep *e, uint64_t timeout_us,
                                      void (*done)(void *ctx, bool ok), void *ctx)
{
    struct models_read *m = xcalloc(1, sizeof *m);
    m->ep = e;
    m->done = done;
    m->ctx = ctx;
    buf_init(&m->page, MAX_PAGE);
    m->client = httpc_new(l, &e->pub.addr);
    struct httpc_call call = {.method = STR("GET"),
                              .target = STR("/v1/models"),
                              .timeout_us = timeout_us,
                              .on_body = on_page,
                              .on_done = on_answer,
                              .ctx = m};
    CHECK(httpc_start(m->client, &call));
    return m;
}

void models_read_free(struct models_read *m)
{
    httpc_free(m->client);
    buf_free(&m->page);
    free(m);
}
