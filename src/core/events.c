/* The event stream: changes of ledger, index and health for replicas, and how those of another are applied here. */
#include "core/sched_int.h"
#include <math.h>

#define LAG_GAIN 0.05

void sched_on_event(struct sched *s, void (*fn)(void *ctx, const struct sched_event *ev), void *ctx)
{
    s->on_event = fn;
    s->event_ctx = ctx;
}

void event_emit(struct sched *s, enum sched_event_type type, uint32_t slot, const struct sched_req *r)
{
    if (!s->on_event || s->applying)
        return;
    struct sched_event ev = {.type = type, .at_us = s->now_us, .user = s->eps[slot].user, .ep = ep_ref_of(s, slot)};
    if (r) {
        ev.req_id = r->id;
        ev.prefill_s = r->state == REQ_PENDING ? r->prefill_s : 0;
        ev.split = r->split;
        ev.answered = r->state == REQ_DECODING;
        ev.tokens = r->tokens;
        ev.new_tokens = r->uncached_tokens;
        ev.out_tokens = r->out_tokens;
        ev.hashes = r->hashes;
        ev.stream_bytes = r->d.stream_bytes;
        ev.n_kept = r->n_kept;
    }
    s->on_event(s->event_ctx, &ev);
}

static double less(double v, double by)
{
    return v - by > 1e-9 ? v - by : 0;
}

static void remote_reserve(struct ledger *l, const struct sched_event *ev)
{
    l->inflight++;
    l->mem += ev->new_tokens + ev->out_tokens / 2;
    l->out += ev->out_tokens;
    l->prompts += ev->tokens;
    if (ev->split)
        return;
    l->unanswered++;
    l->pending_s += ev->prefill_s;
    l->pending_tokens += ev->new_tokens;
}

static void remote_answered(struct ledger *l, const struct sched_event *ev)
{
    l->decoding++;
    l->context += ev->tokens;
    if (ev->split)
        return;
    l->unanswered -= l->unanswered > 0;
    l->pending_s = less(l->pending_s, ev->prefill_s);
    l->pending_tokens = less(l->pending_tokens, ev->new_tokens);
}

static void remote_release(struct ledger *l, const struct sched_event *ev)
{
    if (!ev->answered)
        remote_answered(l, ev);
    l->decoding -= l->decoding > 0;
    l->context = less(l->context, ev->tokens);
    l->inflight -= l->inflight > 0;
    l->mem = less(l->mem, ev->new_tokens + ev->out_tokens / 2);
    l->out = less(l->out, ev->out_tokens);
    l->prompts = less(l->prompts, ev->tokens);
    if (!l->inflight)
        *l = (struct ledger){0};
}

static void apply_insert(struct sched *s, const struct sched_event *ev, uint32_t slot)
{
    uint32_t stamp;
    if (!ev->hashes || ev->hashes->block_bytes != s->p.block_bytes)
        return;
    struct prefix_chain c = {ev->hashes->h, policy_hashes(s, ev->hashes), ev->hashes->n_fine, ev->stream_bytes};
    if (ev->type == EV_INSERT && ev->hashes->whole)
        sessions_put(s->sessions, ev->hashes->ends[0], slot, s->eps[slot].gen);
    if (!c.n)
        return;
    if (ev->type == EV_INSERT)
        prefix_index_insert(s->index, slot, &c, index_time(s), &stamp);
    else if (ev->type == EV_TOUCH)
        prefix_index_touch(s->index, slot, &c, index_time(s));
    else
        prefix_index_trim(s->index, slot, &c, ev->n_kept);
}

/* What a replica does is known late. How much it lately sent where tells what it may be sending now: replicas that keep
 * off each other's endpoints a little come to divide them, and collide less (cost.c, ep_unseen_s). */
static void remote_note(struct sched *s, struct ep *e, const struct sched_event *ev)
{
    double lag = s->now_us > ev->at_us ? (double)(s->now_us - ev->at_us) / SEC : 0;
    double age = (double)(s->now_us - e->remote_rate_us) / SEC;
    s->remote_lag_s += LAG_GAIN * (lag - s->remote_lag_s);
    e->remote_rate = e->remote_rate * exp(-age / REMOTE_RATE_S) + ev->prefill_s / REMOTE_RATE_S;
    e->remote_rate_us = s->now_us;
}

void sched_apply(struct sched *s, const struct sched_event *ev, struct ep_ref local, uint64_t now_us)
{
    struct ep *e = ep_of(s, local);
    if (!e)
        return;
    s->applying = true;
    s->now_us = MAX(s->now_us, now_us);
    e->remote_us = s->now_us;
    switch (ev->type) {
    case EV_RESERVE:
        remote_note(s, e, ev);
        remote_reserve(&e->remote, ev);
        break;
    case EV_FIRST_TOKEN:
        remote_answered(&e->remote, ev);
        break;
    case EV_RELEASE:
        remote_release(&e->remote, ev);
        break;
    case EV_INSERT:
    case EV_ROLLBACK:
    case EV_TOUCH:
        apply_insert(s, ev, local.slot);
        break;
    case EV_EJECT:
        health_eject(s, local.slot);
        break;
    case EV_RETURN:
        health_return(s, local.slot);
        break;
    case EV_EP_ADD: /* each replica learns the endpoints from its own configuration */
    case EV_EP_REMOVE:
        break;
    }
    cost_update(s, local.slot);
    s->applying = false;
    flow_run(s);
}
