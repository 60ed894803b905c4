/* decided.c - keeps what the picker said and what came of it, for /debug/decisions.
 *
 * An explanation costs about as much as a fifth of a pick, under the pool's lock; so at high rates only some requests
 * ask for one, and the ring has those alone. */
#include "proxy/impl.h"

#include <stdio.h>
#include <time.h>

#define SECOND_US 1000000

/* The rate of this second and of the last decides, so that the explained ones are spread evenly. */
static bool one_of_many(struct worker *w)
{
    uint64_t now_us = worker_now_us(w);
    if (now_us >= w->explain.since_us + SECOND_US) {
        w->explain.before = now_us < w->explain.since_us + 2 * SECOND_US ? w->explain.picks : 0;
        w->explain.picks = 0;
        w->explain.since_us = now_us;
    }
    w->explain.picks++;
    return w->strain.level || MAX(w->explain.picks, w->explain.before) > EXPLAIN_ALL_PER_S;
}

bool explain_due(struct request *rq)
{
    struct worker *w = rq->w;
    bool many = one_of_many(w);
    rq->explain_every = 1;
    if (log_on(LOG_DEBUG))
        return true;
    if (!log_on(LOG_INFO) && !port_decisions(rq->backend->port))
        return false;
    if (!many)
        return true;
    rq->explain_every = EXPLAIN_EVERY;
    w->explain.skipped = (w->explain.skipped + 1) % EXPLAIN_EVERY;
    return w->explain.skipped == 0;
}

static uint64_t wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct decisions *ring_of(struct request *rq)
{
    return rq->explain && rq->backend ? port_decisions(rq->backend->port) : NULL;
}

static void describe(struct request *rq, enum decision_outcome outcome, struct decision *d)
{
    const struct sched_decision *is = &rq->pick.core.d;
    decision_fill(d, is, rq->explain);
    d->at_us = rq->decided_wall_us;
    decision_text(d->request_id, rq->request_id);
    decision_text(d->model, rq->model);
    d->outcome = outcome;
    d->queued_us = MAX(d->queued_us, rq->waited_us);
    d->attempt = rq->attempts + (outcome != DECISION_PICKED);
    d->degraded = rq->degraded;
    d->every = rq->explain_every;
    d->streamed = rq->pick.core.streamed;
    if (outcome != DECISION_PICKED || !rq->ep)
        return;
    char name[1][EP_NAME];
    if (rq->ep->role == ROLE_PREFILL) { /* its refusal has become the answer */
        port_ep_names(rq->backend->port, ROLE_ANY, &is->ep, 1, name);
        decision_text(d->endpoint, str_c(name[0]));
        return;
    }
    decision_text(d->endpoint, str_c(rq->ep->name));
    memcpy(d->address, rq->ep->address, sizeof d->address);
}

/* False: no prefill elsewhere was thought of. A pool that was split when the request came need not be so any more. */
static bool describe_leg(struct request *rq, enum decision_outcome outcome, struct decision_leg *l)
{
    const struct sched_decision *is = &rq->pick.core.d, *leg = &rq->pick.leg.d;
    bool picked = outcome == DECISION_PICKED;
    if (!rq->explain_leg || (picked ? !(is->split_s > 0 || is->local_s > 0) : !rq->explain_leg->n))
        return false;
    *l = (struct decision_leg){.split = picked && leg->reason != REASON_NONE};
    decision_fill_leg(l, is, leg, rq->explain_leg);
    const struct endpoint *e = rq->pick.leg_ep ? rq->pick.leg_ep : rq->pd->leg.ep;
    if (!l->split || !e || e->ref.slot != leg->ep.slot || e->ref.gen != leg->ep.gen)
        return true;
    decision_text(l->endpoint, str_c(e->name));
    memcpy(l->address, e->address, sizeof l->address);
    return true;
}

static uint64_t put(struct request *rq, struct decisions *ds, enum decision_outcome outcome, struct decision *d)
{
    struct decision_leg leg;
    describe(rq, outcome, d);
    d->leg = describe_leg(rq, outcome, &leg) ? &leg : NULL;
    return decisions_put(ds, d);
}

static void put_new(struct request *rq, struct decisions *ds, enum decision_outcome outcome)
{
    struct decision d = {0};
    rq->decided_wall_us = wall_us();
    rq->decision = put(rq, ds, outcome, &d);
}

/* Of the newest attempt, once a leg could begin. */
static void fill_leg_end(const struct request *rq, struct decision_end *e)
{
    const struct pd *pd = rq->pd;
    if (!pd || (!pd->split && !pd->failed))
        return;
    const struct leg *g = &pd->leg;
    e->prefill_s = g->prefilled_us > g->begun_us ? (double)(g->prefilled_us - g->begun_us) / 1e6 : 0;
    if (pd->failed)
        snprintf(e->prefill_error, sizeof e->prefill_error, "%s", pd->failed);
}

static void fill_end(const struct request *rq, const struct api_usage *u, uint64_t now_us, struct decision_end *e)
{
    uint64_t from_us = rq->decided_us ? rq->decided_us : rq->body_done_us;
    e->ttft_s = rq->first_us > from_us ? (double)(rq->first_us - from_us) / 1e6 : -1;
    e->duration_s = now_us > from_us ? (double)(now_us - from_us) / 1e6 : 0;
    e->status = rq->status;
    if (rq->error_code)
        snprintf(e->error, sizeof e->error, "%s", rq->error_code);
    fill_leg_end(rq, e);
    if (!u || !u->found)
        return;
    e->has_usage = true;
    e->has_cached = u->has_cached;
    e->prompt_tokens = u->prompt_tokens;
    e->completion_tokens = u->completion_tokens;
    e->cached_tokens = u->cached_tokens;
}

/* The request goes on without it: what was picked has failed. */
static void close_attempt(struct request *rq, struct decisions *ds)
{
    struct decision d = {.ended = true, .end.ttft_s = -1};
    uint64_t now_us = worker_now_us(rq->w);
    if (!rq->decision)
        return;
    d.end.duration_s = now_us > rq->decided_us ? (double)(now_us - rq->decided_us) / 1e6 : 0;
    snprintf(d.end.error, sizeof d.end.error, "%s", rq->fail_code ? rq->fail_code : "moved");
    fill_leg_end(rq, &d.end);
    decisions_end(ds, rq->decision, &d);
    rq->decision = 0;
}

void decided_picked(struct request *rq)
{
    struct decisions *ds = ring_of(rq);
    if (!ds)
        return;
    close_attempt(rq, ds);
    put_new(rq, ds, DECISION_PICKED);
    rq->decided_us = worker_now_us(rq->w);
}

void decided_refused(struct request *rq)
{
    struct decisions *ds = ring_of(rq);
    if (!ds)
        return;
    close_attempt(rq, ds);
    put_new(rq, ds, DECISION_REJECTED);
}

void decided_over(struct request *rq, const struct api_usage *u, uint64_t now_us)
{
    struct decisions *ds = ring_of(rq);
    if (!ds)
        return;
    if (!rq->decision && rq->waited_us)
        put_new(rq, ds, DECISION_LEFT);
    if (!rq->decision)
        return;
    struct decision d = {.ended = true};
    fill_end(rq, u, now_us, &d.end);
    bool still_known = rq->attempts && rq->pick.core.d.reject == REJECT_NONE; /* not overwritten by a later try */
    if (!decisions_end(ds, rq->decision, &d) && still_known)
        put(rq, ds, DECISION_PICKED, &d);
    rq->decision = 0;
}
