/* pick.c - asks the port for an endpoint, now or later, and starts over where a retry asks for it. */
#include "proxy/impl.h"

#include "base/hash.h"

static void rejected(struct request *rq);

static void on_late_decision(struct port_req *pr)
{
    struct request *rq = CONTAINER_OF(pr, struct request, pick);
    struct worker *w = rq->w;
    worker_enter(w);
    if (rq->cancelled) { /* it has ended while the answer was on its way: its client may be freed */
        port_leg_finish(rq->backend->port, pr, OUT_CANCELLED, NULL);
        if (pr->picked)
            port_finish(rq->backend->port, pr, OUT_CANCELLED, NULL);
        if (rq->gone_us)
            flow_released(rq);
        list_push_back(&w->dead_requests, &rq->link);
        worker_leave(w);
        return;
    }
    flow_decided(rq);
    if (pr->picked) {
        rq->reserved = true;
        metrics_picked(rq);
        request_picked(rq);
    } else {
        metrics_pick_failed(rq);
        rejected(rq);
    }
    worker_leave(w);
}

static void fill(struct request *rq)
{
    struct sched_req *r = &rq->pick.core;
    r->hashes = rq->hashes.n || rq->hashes.n_ends ? &rq->hashes : NULL;
    r->explain = rq->explain;
    r->d = (struct sched_decision){0};
    r->model = rq->backend->pool && rq->is_model_kind && rq->target.n ? hash_bytes(rq->target.p, rq->target.n, 0) : 0;
    r->leg = rq->pd ? &rq->pick.leg : NULL;
    r->must_split = rq->pd && rq->pd->mode == PD_BOOTSTRAP;
    rq->pick.leg.hashes = r->hashes;
    rq->pick.leg.explain = rq->explain_leg;
    rq->pick.loop = rq->w->loop;
    rq->pick.on_decision = on_late_decision;
}

static void rejected(struct request *rq)
{
    uint64_t now_us = worker_now_us(rq->w);
    bool nobody = rq->pick.core.d.reject == REJECT_NO_ENDPOINT;
    if (rq->fail_status && nobody) { /* a retry found nobody: the first failure is the answer */
        decided_refused(rq);
        request_fail(rq, rq->fail_status, rq->fail_code, "No %s could answer the request (%u tried).",
                     rq->pd && rq->pd->failed ? "pair of endpoints to prefill and decode" : "endpoint", rq->attempts);
        return;
    }
    if (nobody && !rq->waited_us && now_us < rq->body_done_us + WARMING_WAIT_US && port_warming(rq->backend->port)) {
        rq->repick_us = now_us + WARMING_STEP_US;
        client_arm(rq->c);
        return;
    }
    decided_refused(rq);
    flow_refuse(rq);
}

void request_picked(struct request *rq)
{
    const struct sched_decision *d = &rq->pick.core.d;
    struct endpoint *old = rq->ep;
    rq->ep = endpoint_ref(rq->pick.ep);
    endpoint_unref(old);
    rq->epoch = rq->pick.epoch;
    rq->reason = d->reason;
    rq->matched_bytes = d->matched_bytes;
    rq->stream_bytes = d->stream_bytes;
    rq->attempts++;
    decided_picked(rq);
    if (rq->pd)
        pd_start(rq);
    else
        request_connect(rq);
}

enum sched_answer request_submit(struct request *rq)
{
    fill(rq);
    uint64_t t0 = loop_clock_us(rq->w->loop);
    enum sched_answer a = port_submit(rq->backend->port, &rq->pick);
    uint64_t took_us = loop_clock_us(rq->w->loop) - t0;
    rq->reserved = a == SCHED_PICKED;
    metrics_pick(rq, took_us);
    if (a == SCHED_REJECTED)
        metrics_pick_failed(rq);
    else if (a == SCHED_PICKED)
        metrics_picked(rq);
    flow_submitted(rq, a, took_us);
    return a;
}

void request_pick(struct request *rq)
{
    rq->repick_us = 0;
    request_move(rq, REQ_WAIT_PICK);
    enum sched_answer a = request_submit(rq);
    if (a == SCHED_REJECTED)
        rejected(rq);
    else if (a == SCHED_QUEUED)
        client_arm(rq->c);
    else
        request_picked(rq);
}
