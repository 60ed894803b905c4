/* flow.c - flow control as a request sees it: what its headers ask for, how it waits, what a refusal tells.
 *
 * The queue itself is the picker's (core/sched.h). Headers (gie-protocol 2.3, and the spellings of llm-d):
 * x-gateway-inference-objective names an InferenceObjective, x-gateway-inference-fairness-id who shares fairly,
 * x-penstock-queue-ttl how long the request may wait. Which of them a pool believes is the pool's setting (conf_trust);
 * none of them ever reaches a model server. */
#include "proxy/impl.h"

#include "base/duration.h"
#include "base/hash.h"

#include <math.h>

#define NAME_MAX_SHOWN    256    /* of an objective or a fairness id, in logs and labels */
#define DEADLINE_SLACK_US 100000 /* the request's own time limit comes first, the queue's after it */
#define MAX_RETRY_AFTER_S 60

/* --- what the request asks for ------------------------------------------------------------------------------- */

struct asked {
    struct str objective, fairness_id, ttl; /* empty: not given */
};

static const struct {
    struct str name;
    size_t at; /* in struct asked */
} asked_names[] = {
    {{"x-gateway-inference-objective", 29}, offsetof(struct asked, objective)},
    {{"x-llm-d-inference-objective", 27}, offsetof(struct asked, objective)},
    {{"x-gateway-inference-fairness-id", 31}, offsetof(struct asked, fairness_id)},
    {{"x-llm-d-inference-fairness-id", 29}, offsetof(struct asked, fairness_id)},
    {{"x-penstock-queue-ttl", 20}, offsetof(struct asked, ttl)},
};

/* The first of several counts. */
static void find_asked(const struct h1_head *head, struct asked *out)
{
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct h1_header *h = &head->headers[i];
        if (h->id != H_UNKNOWN || h->name.n < 20 || (h->name.p[0] | 0x20) != 'x' || !h->value.n)
            continue;
        for (size_t k = 0; k < ARRAY_LEN(asked_names); k++) {
            struct str *field = (struct str *)(void *)((char *)out + asked_names[k].at);
            if (!field->n && str_ieq(h->name, asked_names[k].name))
                *field = h->value;
        }
    }
}

bool flow_ttl(struct str text, uint64_t max_us, uint64_t *out_us)
{
    int64_t ns;
    if (!duration_parse(text, &ns) || ns <= 0)
        return false;
    uint64_t us = MAX((uint64_t)ns / 1000, 1u);
    *out_us = max_us ? MIN(us, max_us) : us;
    return true;
}

static void set_priority(struct request *rq, const struct conf_backend *pool, const struct conf_model *m)
{
    const struct conf_objective *o = rq->objective.n ? conf_find_objective(pool, rq->objective) : NULL;
    rq->priority = o ? o->priority : m ? m->priority : 0;
    rq->pick.core.priority = rq->priority;
}

static void set_flow(struct request *rq, struct str fairness_id)
{
    struct str who = fairness_id.n ? fairness_id : rq->model;
    rq->pick.core.flow = who.n ? hash_bytes(who.p, who.n, 0) : 0;
    rq->fairness_id = str_first(fairness_id, NAME_MAX_SHOWN);
}

/* Where all are refused at once who would come too late, a time limit of the whole request that ends before the queue's
 * counts, too. */
static void limit_ttl(struct request *rq, const struct conf_backend *pool)
{
    struct sched_req *s = &rq->pick.core;
    if (!rq->deadline_us || pool->sched.early_refusal != EARLY_ALL)
        return;
    uint64_t now_us = worker_now_us(rq->w), ttl_us = s->ttl_us ? s->ttl_us : pool->sched.queue_ttl_us;
    uint64_t left_us = (rq->deadline_us > now_us ? rq->deadline_us - now_us : 0) + DEADLINE_SLACK_US;
    if (!ttl_us || left_us < ttl_us)
        s->ttl_us = left_us;
}

bool flow_read(struct request *rq, const struct conf_backend *pool, const struct conf_model *m)
{
    struct asked a = {0};
    find_asked(rq->head, &a);
    if (pool->trust & TRUST_OBJECTIVE)
        rq->objective = str_first(a.objective, NAME_MAX_SHOWN);
    set_priority(rq, pool, m);
    set_flow(rq, pool->trust & TRUST_FAIRNESS ? a.fairness_id : STR_NULL);
    if (pool->trust & TRUST_TTL && a.ttl.n && !flow_ttl(a.ttl, pool->queue_ttl_max_us, &rq->pick.core.ttl_us)) {
        request_fail(rq, 400, "bad_header",
                     "The header x-penstock-queue-ttl is '" STR_FMT
                     "': it must be a duration above zero with its unit, such as 500ms, 30s or 2m.",
                     STR_ARG(str_first(a.ttl, 64)));
        return false;
    }
    limit_ttl(rq, pool);
    if (pool->sched.queueing)
        rq->flow = flow_series(rq);
    return true;
}

/* --- waiting ------------------------------------------------------------------------------------------------- */

static enum flow_outcome outcome_at_once(enum sched_reject why)
{
    return why == REJECT_NONE         ? FLOW_DISPATCHED
           : why == REJECT_QUEUE_FULL ? FLOW_REJECTED_CAPACITY
                                      : FLOW_REJECTED_OTHER;
}

static enum flow_outcome outcome_late(enum sched_reject why)
{
    return why == REJECT_NONE                                         ? FLOW_DISPATCHED
           : why == REJECT_QUEUE_TIMEOUT || why == REJECT_NO_ENDPOINT ? FLOW_EVICTED_TTL
                                                                      : FLOW_EVICTED_OTHER;
}

void flow_submitted(struct request *rq, enum sched_answer a, uint64_t took_us)
{
    rq->enqueue_us = took_us;
    if (a != SCHED_QUEUED) {
        if (rq->flow)
            flow_observe(rq, outcome_at_once(rq->pick.core.d.reject), 0);
        return;
    }
    if (!rq->flow) /* queueing was switched on since the request was routed */
        rq->flow = flow_series(rq);
    rq->queued = true;
    rq->queued_us = worker_now_us(rq->w);
    flow_count(rq, 1);
    if (!rq->pd) /* there the body is pointed to from more places than its parts */
        body_fit(rq->w, &rq->body, rq->parts, rq->n_parts);
}

static void left(struct request *rq, enum flow_outcome how)
{
    uint64_t waited_us = worker_now_us(rq->w) - rq->queued_us;
    rq->queued = false;
    rq->waited_us += waited_us;
    flow_count(rq, -1);
    flow_observe(rq, how, waited_us);
}

void flow_decided(struct request *rq)
{
    if (rq->queued)
        left(rq, outcome_late(rq->pick.core.d.reject));
}

void request_unqueue(struct request *rq)
{
    if (!rq->queued)
        return;
    rq->cancelled = !port_cancel(rq->backend->port, &rq->pick);
    left(rq, FLOW_EVICTED_CANCELLED);
}

/* --- refusals ------------------------------------------------------------------------------------------------ */

unsigned flow_retry_after_s(double known_s, unsigned otherwise_s)
{
    if (!(known_s > 0))
        return otherwise_s;
    return known_s >= MAX_RETRY_AFTER_S ? MAX_RETRY_AFTER_S : (unsigned)ceil(known_s);
}

void flow_refuse(struct request *rq)
{
    const struct sched_decision *d = &rq->pick.core.d;
    const char *pool = port_name(rq->backend->port);
    double waited_s = (double)rq->waited_us / 1e6;
    /* When nothing is known of the rate at which servers become free: soon where little was in the way, later where
     * waiting has not helped. */
    switch (d->reject) {
    case REJECT_SHED:
        rq->retry_after_s = flow_retry_after_s(d->retry_after_s, 1);
        request_fail(rq, 429, "shed",
                     "All servers of %s are busy, and then requests of priority %d are refused. Try again in %u s.",
                     pool, rq->priority, rq->retry_after_s);
        break;
    case REJECT_QUEUE_FULL:
        rq->retry_after_s = flow_retry_after_s(d->retry_after_s, 2);
        if (rq->waited_us)
            request_fail(
                rq, 429, "queue_full",
                "The queue of %s is full: after %.1f s the request lost its place to later ones. Try again in %u s.",
                pool, waited_s, rq->retry_after_s);
        else
            request_fail(rq, 429, "queue_full",
                         "All servers of %s are busy and its queue has no room for the request. Try again in %u s.",
                         pool, rq->retry_after_s);
        break;
    case REJECT_DEADLINE:
        rq->retry_after_s = flow_retry_after_s(d->retry_after_s, 2);
        request_fail(rq, 429, "queue_deadline",
                     "All servers of %s are busy, and at the rate of now the request would wait longer than it may. "
                     "Try again in %u s.",
                     pool, rq->retry_after_s);
        break;
    case REJECT_QUEUE_TIMEOUT:
        rq->retry_after_s = flow_retry_after_s(d->retry_after_s, 5);
        request_fail(rq, 503, "queue_timeout",
                     "The request waited %.1f s and no server of %s became free for it. Try again in %u s.", waited_s,
                     pool, rq->retry_after_s);
        break;
    default:
        rq->retry_after_s = flow_retry_after_s(d->retry_after_s, 2);
        if (port_split(rq->backend->port)) {
            request_fail(rq, 503, d->no_prefill ? "no_prefill_endpoint" : "no_decode_endpoint",
                         "No endpoint of %s with the role %s is ready, and the pool separates prefill and decode. Try again in %u s.", pool,
                         d->no_prefill ? "prefill" : "decode", rq->retry_after_s);
            break;
        }
        request_fail(rq, 503, "no_endpoint", "No endpoint of %s is ready. Try again in %u s.", pool, rq->retry_after_s);
        break;
    }
}
