/* pd.c - a request whose prefill and decode are done by different endpoints: what each of the two is sent, and what it
 * means when the prefill fails.
 *
 *   BOOTSTRAP  pick of both -> both legs at once, the same bytes -> the decode's answer is relayed
 *              the prefill fails before that: both are given up, another pair is tried (its room is a new one)
 *   NIXL       pick of both -> PREFILL: the prefill leg alone -> its parameters -> the decode leg, as any request
 *              the prefill fails: the decode endpoint, which is reserved already, gets the request as it came
 *   A request that the picker did not split goes to the decode endpoint as it came.
 *
 * A 4xx of the prefill (but 404, 408, 429) says what is wrong with the request: it becomes the answer (leg.c). */
#include "proxy/impl.h"

#define MAX_BATCH 1024               /* items of one request that can be split: each has a room */
#define MAX_TEXT  ((size_t)16 << 20) /* of what is new in a body */

/* --- set-up -------------------------------------------------------------------------------------------------- */

/* vLLM hands over one prompt a request, and tells of it only in answers of these kinds. */
static bool nixl_can(enum api_kind kind, const struct api_request *body)
{
    return (kind == API_COMPLETIONS || kind == API_CHAT || kind == API_RESPONSES) && body->n_batch <= 1 && body->n <= 1;
}

bool pd_prepare(struct request *rq, const struct conf_backend *pool, const struct api_request *body)
{
    enum pd_mode mode = pool->runtime == RUNTIME_SGLANG ? PD_BOOTSTRAP : PD_NIXL;
    if (!pool->pd || !api_kind_generates(rq->kind))
        return true;
    if (!rq->parsed || !body->object_end) {
        if (mode == PD_NIXL)
            return true;
        request_fail(rq, 415, "unsupported_body",
                     "The pool separates prefill and decode, and the body cannot be prepared for that: it must be a "
                     "JSON object, not compressed, "
                     "of the type application/json.");
        return false;
    }
    if (mode == PD_NIXL && !nixl_can(rq->kind, body))
        return true;
    if (body->n_batch > MAX_BATCH) {
        request_fail(rq, 400, "invalid_field",
                     "The request asks for %u outputs at once; where prefill and decode are separated it may be %d.",
                     body->n_batch, MAX_BATCH);
        return false;
    }
    struct pd *pd = rq->pd = arena_zalloc(&rq->arena, sizeof *pd);
    pd->mode = mode;
    pd->bootstrap_port = pool->pd->bootstrap_port;
    pd->body = *body;
    pd->rooms = arena_alloc(&rq->arena, MAX(body->n_batch, 1u) * sizeof *pd->rooms);
    buf_init(&pd->text, MAX_TEXT);
    headers_request_id(rq); /* the head is written after the pick, and it may be refused before */
    return true;
}

void pd_free(struct request *rq)
{
    if (!rq->pd)
        return;
    buf_free(&rq->pd->text);
    endpoint_unref(rq->pd->leg.ep);
}

/* --- what is sent -------------------------------------------------------------------------------------------- */

/* The address alone, an IPv6 one in its brackets. */
static struct str host_of(const struct endpoint *e)
{
    size_t n = strlen(e->address);
    while (n && e->address[n - 1] != ':')
        n--;
    return (struct str){e->address, n ? n - 1 : 0};
}

static bool build(struct request *rq, enum api_leg leg, struct str params)
{
    struct pd *pd = rq->pd;
    struct str body = {rq->body.p, rq->body.n}, pieces[API_PIECES];
    struct api_change change = {
        .leg = leg, .bootstrap_port = pd->bootstrap_port, .rooms = pd->rooms, .kv_transfer_params = params};
    if (!str_eq(rq->target, rq->model))
        change.model = rq->target;
    if (leg == API_LEG_BOOTSTRAP) {
        change.bootstrap_host = host_of(rq->pick.leg_ep);
        for (uint32_t i = 0; i < MAX(pd->body.n_batch, 1u); i++)
            pd->rooms[i] = rng_u64(&rq->w->ids) >> 1; /* below 2^63, and unlike any other's */
    }
    uint32_t n = api_pieces(body, &pd->body, &change, &pd->text, pieces);
    if (!n) {
        request_fail(rq, 413, "body_too_large",
                     "The request body is too large to be sent with what a separated prefill needs.");
        return false;
    }
    pd->plain_answer = leg == API_LEG_NIXL_PREFILL;
    request_set_parts(rq, pieces, n);
    return true;
}

static void begin_here(struct request *rq)
{
    rq->pd->split = false;
    if (build(rq, API_LEG_NONE, STR_NULL))
        request_connect(rq);
}

void pd_start(struct request *rq)
{
    struct pd *pd = rq->pd;
    pd->split = rq->pick.leg_ep != NULL;
    pd->has_cached = false;
    pd->failed = NULL;
    metrics_split(rq, pd->split);
    if (!pd->split) {
        begin_here(rq);
    } else if (pd->mode == PD_BOOTSTRAP) {
        if (!build(rq, API_LEG_BOOTSTRAP, STR_NULL))
            return;
        leg_start(rq);
        request_connect(rq);
    } else if (build(rq, API_LEG_NIXL_PREFILL, STR_NULL)) {
        request_move(rq, REQ_PREFILL);
        list_remove(&rq->link);
        list_push_back(&rq->w->waiting, &rq->link);
        leg_start(rq);
    }
}

/* --- the prefill is over, or has failed ---------------------------------------------------------------------- */

void pd_note_failed(struct request *rq, enum sched_outcome how, const char *code, bool here)
{
    rq->pd->failed = code;
    metrics_prefill_failed(rq, how, here);
}

void pd_prefill_over(struct request *rq, struct str answer)
{
    struct str params = STR_NULL;
    if (rq->state != REQ_PREFILL)
        return;
    if (api_kv_transfer_params(answer, &params) > 0) {
        if (build(rq, API_LEG_NIXL_DECODE, params))
            request_connect(rq);
        return;
    }
    pd_note_failed(rq, OUT_GARBAGE, "prefill_gave_nothing", true); /* a server that hands nothing over */
    port_leg_here(rq->backend->port, &rq->pick);
    begin_here(rq);
}

void pd_prefill_failed(struct request *rq, enum sched_outcome how, const char *code)
{
    struct leg *g = &rq->pd->leg;
    if (rq->committed) { /* nobody waits for it any more */
        leg_stop(rq, how);
        return;
    }
    rq->crashes += (how == OUT_RESET && g->sent == rq->send_total) || (how == OUT_CONNECT_FAILED && g->fresh);
    if (rq->pd->mode == PD_BOOTSTRAP || rq->crashes >= rq->w->g->o.max_crashes) {
        retry_pair(rq, how, code);
        return;
    }
    pd_note_failed(rq, how, code, true);
    retry_note_leg(rq);
    leg_stop(rq, how);
    port_leg_here(rq->backend->port, &rq->pick);
    begin_here(rq);
}

bool pd_try_again(struct request *rq, unsigned status)
{
    if (!rq->pd || !rq->pd->split || status != 500)
        return false;
    if (rq->pd->mode == PD_BOOTSTRAP) /* it tells of its partner, or of what is between them */
        return retry_other_pair(rq);
    request_drop_attempt(rq);
    rq->fresh = true;
    port_leg_here(rq->backend->port, &rq->pick);
    pd_note_failed(rq, OUT_SERVER_ERROR, "prefill_not_taken", true); /* by the decode endpoint */
    begin_here(rq);
    return true;
}

void pd_cut(struct request *rq, enum sched_outcome how)
{
    if (leg_live(rq) || rq->pick.leg_ep)
        leg_stop(rq, how);
}

void pd_answered(struct request *rq)
{
    if (rq->pd)
        buf_free(&rq->pd->text); /* with the body: there is no other try */
    if (!leg_live(rq))
        return;
    rq->pd->leg.deadline_us = 0;
    if (rq->status >= 300 || rq->pd->leg.state < LEG_WAIT_HEAD)
        leg_stop(rq, OUT_CANCELLED);
    else
        leg_prefilled(rq); /* or there would be no token */
}
