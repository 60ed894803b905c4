/* retry.c - what happens when an endpoint fails a request: another try before the first relayed byte, or the end.
 *
 * Bounds: attempts per request, the backend's retry budget, and the number of endpoints that may die with the request
 * in flight (a prompt that crashes engines must not walk through the pool). What is not an inference request is
 * repeated only when that is safe (RFC 9110 9.2.2), or when nothing of it was sent. */
#include "proxy/impl.h"

#include "base/hash.h"

#include <stdlib.h>

static bool idempotent(enum h1_method m)
{
    return m == H1_GET || m == H1_HEAD || m == H1_PUT || m == H1_DELETE || m == H1_OPTIONS;
}

static bool repeatable(const struct request *rq)
{
    return rq->is_model_kind || rq->sent == 0 || idempotent(rq->head->method);
}

static bool may_retry(const struct request *rq)
{
    const struct gateway_opts *o = &rq->w->g->o;
    uint64_t now_us = worker_now_us(rq->w);
    return repeatable(rq) && rq->attempts < o->max_attempts && rq->crashes < o->max_crashes &&
           rq->pick.core.n_tried < SCHED_MAX_TRIED && rq->pick.leg.n_tried < SCHED_MAX_TRIED &&
           (!rq->deadline_us || now_us < rq->deadline_us) &&
           retry_allowed(&rq->backend->budget, o->retry_budget, now_us);
}

static void note_tried(struct request *rq)
{
    struct sched_req *r =
        rq->ep->role == ROLE_PREFILL ? &rq->pick.leg : &rq->pick.core; /* a prefill's verdict that was cut */
    if (r->n_tried < SCHED_MAX_TRIED)
        r->tried[r->n_tried++] = rq->ep->ref;
}

void retry_note_leg(struct request *rq)
{
    struct sched_req *leg = &rq->pick.leg;
    if (leg->n_tried < SCHED_MAX_TRIED)
        leg->tried[leg->n_tried++] = rq->pd->leg.ep->ref;
}

void request_drop_attempt(struct request *rq)
{
    request_drop_upstream(rq);
    rq->head_seen = false;
    rq->fresh = false;
    rq->resp_head = STR_NULL;
    rq->resp_bytes = 0;
    rq->status = 0;
    free(rq->tail);
    rq->tail = NULL;
}

static void set_failure(struct request *rq, enum sched_outcome how)
{
    static const struct {
        unsigned status;
        const char *code;
    } answers[] = {
        [OUT_CANCELLED] = {503, "endpoint_ejected"},    [OUT_CONNECT_FAILED] = {503, "upstream_unavailable"},
        [OUT_RESET] = {502, "upstream_reset"},          [OUT_GARBAGE] = {502, "upstream_garbage"},
        [OUT_TIMEOUT] = {504, "first_byte_timeout"},    [OUT_SERVER_ERROR] = {502, "upstream_error"},
        [OUT_MODEL_MISSING] = {404, "model_not_found"},
    };
    rq->fail_status = answers[how].status;
    rq->fail_code = answers[how].code;
    if (rq->crashes >= rq->w->g->o.max_crashes) {
        rq->fail_status = 502;
        rq->fail_code = "upstream_crashed";
    }
}

static void count_retry(struct request *rq)
{
    retry_count_retry(&rq->backend->budget, worker_now_us(rq->w));
    metrics_retry(rq);
}

/* A kept connection that the server closed just as we used it: says nothing about the endpoint. */
static bool was_stale(const struct request *rq, enum sched_outcome how)
{
    return how == OUT_RESET && !rq->fresh && !rq->head_seen && rq->up_in.n == 0 && conn_is_reused(rq->up);
}

/* The server went away with the whole request in its hands. */
static bool is_crash(const struct request *rq, enum sched_outcome how)
{
    return (how == OUT_RESET && rq->sent == rq->send_total) || (how == OUT_CONNECT_FAILED && rq->fresh);
}

void upstream_failed(struct request *rq, enum sched_outcome how, const char *code)
{
    if (rq->committed) {
        metrics_upstream_failure(rq, how);
        request_finish_pick(rq, how);
        request_fail(rq, 502, code, "The answer was cut.");
        return;
    }
    bool stale = was_stale(rq, how);
    if (stale &&
        (rq->is_model_kind || idempotent(rq->head->method))) { /* the same endpoint, once, on a connection of its own */
        metrics_upstream_failure(rq, OUT_STALE_CONN);
        request_drop_attempt(rq);
        rq->fresh = true;
        request_connect(rq);
        return;
    }
    metrics_upstream_failure(rq, stale ? OUT_STALE_CONN : how);
    rq->crashes += !stale && is_crash(rq, how);
    bool again = may_retry(rq);
    set_failure(rq, how);
    pd_cut(rq, OUT_CANCELLED);
    request_finish_pick(rq, stale ? OUT_STALE_CONN : how);
    if (how == OUT_CONNECT_FAILED)
        conn_pool_drop(rq->w->pool, &rq->ep->addr);
    request_drop_attempt(rq);
    if (!again) {
        request_fail(rq, rq->fail_status, rq->fail_code,
                     "The endpoint failed (%s) and the request cannot be tried elsewhere.", code);
        return;
    }
    note_tried(rq);
    count_retry(rq);
    request_pick(rq);
}

static uint64_t model_hash(const struct request *rq)
{
    return rq->is_model_kind && rq->target.n ? hash_bytes(rq->target.p, rq->target.n, 0) : 0;
}

/* With what the picker has said meanwhile: an endpoint, or to wait. */
static void go_on(struct request *rq)
{
    request_drop_attempt(rq);
    request_move(rq, REQ_WAIT_PICK);
    if (rq->reserved)
        request_picked(rq);
    else
        client_arm(rq->c);
}

bool request_try_elsewhere(struct request *rq, enum sched_outcome how)
{
    if (!may_retry(rq))
        return false;
    uint64_t model = how == OUT_MODEL_MISSING ? model_hash(rq) : 0;
    struct sched_req *r = &rq->pick.core;
    note_tried(rq);
    if (!port_untried(rq->backend->port, ROLE_ANY, model, r->tried, r->n_tried)) {
        r->n_tried--;
        return false;
    }
    pd_cut(rq, OUT_CANCELLED);
    request_finish_pick(rq, how);
    if (request_submit(rq) == SCHED_REJECTED)
        return false; /* the answer at hand is the best there is */
    metrics_upstream_failure(rq, how);
    count_retry(rq);
    set_failure(rq, how);
    go_on(rq);
    return true;
}

void request_move_elsewhere(struct request *rq)
{
    rq->epoch = atomic_load_explicit(&rq->ep->epoch, memory_order_acquire);
    struct sched_req *r = &rq->pick.core;
    if (!rq->reserved || !may_retry(rq))
        return;
    note_tried(rq);
    if (!port_untried(rq->backend->port, ROLE_ANY, 0, r->tried, r->n_tried)) {
        r->n_tried--;
        return; /* nowhere better to wait */
    }
    metrics_upstream_failure(rq, OUT_TIMEOUT);
    count_retry(rq);
    set_failure(rq, OUT_CANCELLED);
    pd_cut(rq, OUT_CANCELLED);
    request_finish_pick(rq, OUT_CANCELLED); /* the probes have counted the failure already */
    request_drop_attempt(rq);
    request_pick(rq);
}

static void set_prefill_failure(struct request *rq, enum sched_outcome how)
{
    rq->fail_status = how == OUT_MODEL_MISSING ? 404 : 503;
    rq->fail_code = how == OUT_MODEL_MISSING ? "model_not_found" : "prefill_failed";
    if (rq->crashes >= rq->w->g->o.max_crashes) {
        rq->fail_status = 502;
        rq->fail_code = "upstream_crashed";
    }
}

bool retry_other_pair(struct request *rq)
{
    struct sched_req *leg = &rq->pick.leg;
    if (!may_retry(rq))
        return false;
    retry_note_leg(rq);
    if (!port_untried(rq->backend->port, ROLE_PREFILL, 0, leg->tried, leg->n_tried)) {
        leg->n_tried--;
        return false;
    }
    leg_stop(rq, OUT_CANCELLED); /* it has not failed by itself: its own connection and the probes say more of it than
                                    others do */
    request_finish_pick(rq, OUT_CANCELLED);
    pd_note_failed(rq, OUT_SERVER_ERROR, "prefill_not_taken", false);
    if (request_submit(rq) == SCHED_REJECTED)
        return false; /* the answer at hand is the best there is */
    count_retry(rq);
    set_prefill_failure(rq, OUT_SERVER_ERROR);
    go_on(rq);
    return true;
}

static bool other_decode(const struct request *rq)
{
    const struct sched_req *r = &rq->pick.core;
    struct ep_ref tried[SCHED_MAX_TRIED + 1];
    memcpy(tried, r->tried, r->n_tried * sizeof *tried);
    tried[r->n_tried] = rq->ep->ref;
    return port_untried(rq->backend->port, ROLE_DECODE, 0, tried, r->n_tried + 1) > 0;
}

void retry_pair(struct request *rq, enum sched_outcome how, const char *code)
{
    struct sched_req *leg = &rq->pick.leg;
    bool again = may_retry(rq);
    if (how == OUT_CANCELLED && !again)
        return; /* ejected, and nowhere better to wait */
    retry_note_leg(rq);
    if (how == OUT_CANCELLED && !port_untried(rq->backend->port, ROLE_PREFILL, 0, leg->tried, leg->n_tried)) {
        leg->n_tried--;
        return;
    }
    bool both = how == OUT_TIMEOUT &&
                rq->pd->mode == PD_BOOTSTRAP; /* each waits for the other: either may be the one that hangs */
    pd_note_failed(rq, how, code, false);
    set_prefill_failure(rq, how);
    leg_stop(rq, how);
    request_finish_pick(rq, both ? how : OUT_CANCELLED);
    if (both && other_decode(rq))
        note_tried(rq);
    request_drop_attempt(rq);
    if (!again) {
        request_fail(rq, rq->fail_status, rq->fail_code,
                     "The prefill endpoint failed (%s) and the request cannot be tried elsewhere.", code);
        return;
    }
    count_retry(rq);
    request_pick(rq);
}
