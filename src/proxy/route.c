/* route.c - where a request goes: listener and route, backend by weight, and for pools what the picker and the server
 * must know of the body. */
#include "proxy/impl.h"

#include "base/hash.h"
#include "http/uri.h"

#include <stdio.h>

#define SCRATCH_KEEP (1 << 20) /* a larger scratch is given back after use */

struct routing { /* lives during the step */
    struct request *rq;
    struct api_request body;
    struct api_error error;
    bool tried, failed; /* the body was looked at; and was refused */
    const struct conf_backend *to;
    const struct conf_model *model; /* of the name asked for; NULL: none */
    const struct conf_model_rewrite *rewrite;
};

static bool is_json(const struct h1_head *head)
{
    if (h1_find(head, H_CONTENT_ENCODING))
        return false;
    const struct h1_header *h = h1_find(head, H_CONTENT_TYPE);
    if (!h)
        return true;
    size_t n = h->value.n;
    for (size_t i = 0; i + 4 <= n; i++)
        if (str_ieq((struct str){h->value.p + i, 4}, STR("json")))
            return true;
    return false;
}

static void look_at_body(struct routing *r)
{
    struct request *rq = r->rq;
    if (r->tried)
        return;
    r->tried = true;
    struct str in_path = api_path_model(rq->kind, rq->path);
    if (in_path.n && in_path.n <= 1024) {
        char *name = arena_alloc(&rq->arena, in_path.n);
        rq->model = rq->target = (struct str){name, uri_unescape(in_path, name)};
    }
    if (rq->head->method != H1_POST || (!rq->body.n && !rq->is_model_kind) || !is_json(rq->head))
        return;
    struct str text = {rq->body.n ? rq->body.p : "", rq->body.n};
    r->failed = api_parse_request(rq->kind, text, &rq->w->scratch, &r->body, &r->error) != 0;
    rq->parsed = !r->failed;
    if (rq->parsed && r->body.model.n && r->body.model.n <= 1024)
        rq->model = rq->target = arena_str(&rq->arena, r->body.model);
}

static uint64_t limit_us(const struct request *rq)
{
    if (rq->rule->request_timeout_us)
        return rq->rule->request_timeout_us;
    if (rq->listener->request_timeout_us)
        return rq->listener->request_timeout_us;
    return rq->w->g->o.request_timeout_us;
}

static void set_deadline(struct request *rq)
{
    uint64_t us = limit_us(rq);
    rq->deadline_us = us && us < UINT64_MAX / 4 ? rq->start_us + us : 0;
}

static bool find_route(struct routing *r)
{
    struct request *rq = r->rq;
    const struct plane_port *pp = rq->world ? plane_find_port(rq->world->plane, rq->c->port) : NULL;
    rq->listener = pp ? plane_find_listener(pp, rq->host) : NULL;
    rq->c->close |= !pp;
    if (!rq->listener)
        return false;
    if (rq->listener->by_model)
        look_at_body(r);
    struct conf_route_req q = {rq->host, rq->path, rq->head->query, rq->head->method_str, rq->model, rq->head};
    rq->match = conf_route(rq->listener, &q);
    rq->rule = rq->match ? rq->match->rule : NULL;
    return rq->rule != NULL;
}

static void redirect(struct request *rq)
{
    const struct conf_redirect *rd = rq->rule->redirect;
    struct str location = headers_location(rq, rd);
    char *line = arena_printf(&rq->arena, "Location: " STR_FMT "\r\n", STR_ARG(location));
    request_answer(rq, rd->status ? rd->status : 302, NULL, line, STR_NULL);
}

static bool draw_backend(struct routing *r)
{
    struct request *rq = r->rq;
    const struct conf_backend_ref *ref = conf_draw_backend(rq->rule, rng_unit(&rq->w->rng));
    if (!ref || ref->backend == CONF_NO_BACKEND) {
        request_fail(rq, 500, "backend_unresolved", "The route's backend does not resolve%s" STR_FMT ".",
                     ref && ref->problem.n ? ": " : "", STR_ARG(ref ? ref->problem : STR("")));
        return false;
    }
    struct plane *p = rq->world->plane;
    r->to = &p->conf->backends[ref->backend];
    rq->backend = p->backends[ref->backend];
    atomic_fetch_add_explicit(&rq->backend->refs, 1, memory_order_relaxed);
    retry_count_request(&rq->backend->budget, worker_now_us(rq->w));
    return true;
}

/* --- pools --------------------------------------------------------------------------------------------------- */

static bool body_acceptable(struct routing *r)
{
    struct request *rq = r->rq;
    if (r->failed) {
        request_fail(rq, r->error.status, r->error.code, "%s", r->error.msg);
        return false;
    }
    if (rq->parsed && r->body.forbidden) {
        request_fail(rq, 400, "forbidden_field", "The field '%s' may not be set by a client.", r->body.forbidden);
        return false;
    }
    return true;
}

/* The InferenceModel of the name asked for says how important the request is; an InferenceModelRewrite comes before it
 * in saying which model serves. */
static bool choose_target(struct routing *r)
{
    struct request *rq = r->rq;
    rq->criticality = CRIT_STANDARD;
    if (!rq->model.n)
        return true;
    r->model = conf_find_model(r->to, rq->model);
    r->rewrite = conf_find_rewrite(r->to, rq->model);
    if (!r->model && !r->rewrite && r->to->unknown_model == UNKNOWN_MODEL_REJECT && rq->is_model_kind) {
        request_fail(rq, 404, "model_not_found", "The model `" STR_FMT "` does not exist.", STR_ARG(rq->model));
        return false;
    }
    if (r->model)
        rq->criticality = r->model->criticality;
    if (r->rewrite)
        rq->target = arena_str(&rq->arena, conf_draw_rewrite(r->rewrite, rng_unit(&rq->w->rng)));
    else if (r->model)
        rq->target = arena_str(&rq->arena, conf_draw_target(r->model, rng_unit(&rq->w->rng)));
    return true;
}

static void hash_prefix(struct routing *r)
{
    struct request *rq = r->rq;
    const struct sched_params *sp = &r->to->sched;
    bool wanted = sched_policy_hashes(sp->policy) || (r->to->pd && sched_policy_hashes(r->to->prefill.policy));
    if (!rq->parsed || !rq->is_model_kind || !wanted)
        return;
    uint32_t blocks = sp->max_blocks;
    rq->degraded = rq->w->strain.level;
    if (rq->degraded) {
        metrics_degraded(rq);
        blocks = MIN(blocks, (uint32_t)STRAIN_BLOCKS);
    }
    if (rq->degraded > 1)
        return;
    uint64_t seed = prefix_seed(rq->target, STR_NULL, r->body.cache_salt);
    prefix_hash(r->body.stream_bytes, seed, sp->block_bytes, blocks, sp->deep && !rq->degraded, &rq->hashes,
                rq->w->hashes, PREFIX_MAX);
    uint64_t *h = arena_alloc(&rq->arena, rq->hashes.n * sizeof *h);
    memcpy(h, rq->w->hashes, rq->hashes.n * sizeof *h);
    rq->hashes.h = h;
}

static void fill_pick(struct routing *r)
{
    struct request *rq = r->rq;
    struct sched_req *s = &rq->pick.core;
    s->id = rng_u64(&rq->w->rng);
    s->n_outputs = 1;
    s->prompt_bytes = rq->body.n;
    s->light = !rq->is_model_kind && rq->head->method != H1_POST;
    if (!rq->parsed)
        return;
    s->prompt_bytes = r->body.prompt_bytes;
    s->prompt_token_ids = r->body.prompt_token_ids;
    s->n_media = r->body.n_media;
    s->streamed = r->body.stream || api_path_streams(rq->kind, rq->path);
    s->max_tokens = r->body.has_max_tokens ? r->body.max_tokens : 0;
    s->n_outputs = MAX(r->body.n, 1u) * MAX(r->body.n_prompts, 1u);
    if (r->body.previous_response_id.n)
        s->pinned = port_recall_response(rq->backend->port, r->body.previous_response_id);
}

/* The request as the endpoint gets it: the body as it came, but for the model's name where that changes. */
static void build_parts(struct routing *r)
{
    struct request *rq = r->rq;
    struct str body = {rq->body.p, rq->body.n}, pieces[3] = {body};
    size_t cap = rq->target.n * 6 + 8;
    bool replaced = rq->parsed && !str_eq(rq->target, rq->model) &&
                    api_splice_model(body, &r->body, rq->target, arena_alloc(&rq->arena, cap), cap, &pieces[0],
                                     &pieces[1], &pieces[2]);
    request_set_parts(rq, pieces, replaced ? 3 : body.n > 0);
}

static void to_pool(struct routing *r)
{
    struct request *rq = r->rq;
    if (rq->kind == API_MODELS && models_known(rq, r->to)) {
        models_answer(rq, r->to);
        return;
    }
    look_at_body(r);
    if (!body_acceptable(r) || !choose_target(r))
        return;
    rq->mm = metrics_model(rq->w, rq->model, rq->target);
    if (r->rewrite)
        metrics_rewrite(rq, r->rewrite->object);
    if (!flow_read(rq, r->to, r->model))
        return;
    hash_prefix(r);
    fill_pick(r);
    if (!pd_prepare(rq, r->to, &r->body))
        return;
    if (explain_due(rq))
        rq->explain = arena_zalloc(&rq->arena, sizeof *rq->explain);
    if (rq->explain && rq->pd)
        rq->explain_leg = arena_zalloc(&rq->arena, sizeof *rq->explain_leg);
    if (!rq->pd) /* else with each pick: it says what the body is to tell */
        build_parts(r);
    request_pick(rq);
}

static void to_service(struct routing *r)
{
    struct request *rq = r->rq;
    rq->pick.core.n_outputs = 1;
    rq->pick.core.prompt_bytes = rq->body.n;
    build_parts(r);
    request_pick(rq);
}

static void set_kind(struct request *rq, enum api_kind kind)
{
    rq->kind = kind;
    rq->is_model_kind = kind != API_OTHER && kind != API_MODELS;
}

/* A path that says nothing about the API may be rewritten to one that does. */
static void classify_rewritten(struct routing *r)
{
    struct request *rq = r->rq;
    if (rq->kind != API_OTHER || !rq->rule->rewrite)
        return;
    enum api_kind kind = api_classify(rq->head->method == H1_GET, rq->head->method == H1_POST, headers_path(rq));
    if (kind == API_OTHER)
        return;
    set_kind(rq, kind);
    r->tried = r->failed = rq->parsed = false; /* the body is looked at again, by the rules of its API */
}

void request_route(struct request *rq)
{
    struct routing r = {.rq = rq};
    set_kind(rq, rq->kind);
    if (!find_route(&r)) {
        request_fail(rq, 404, "route_not_found", "No route matches the request.");
        return;
    }
    set_deadline(rq);
    classify_rewritten(&r);
    if (rq->rule->redirect) {
        redirect(rq);
        return;
    }
    if (!draw_backend(&r))
        return;
    if (rq->backend->pool)
        to_pool(&r);
    else
        to_service(&r);
    if (rq->w->scratch.cap > SCRATCH_KEEP)
        buf_free(&rq->w->scratch);
}
