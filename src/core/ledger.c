/* The own ledger: what this gateway has sent to each endpoint and not seen finished. A scrape never overwrites it.
 *
 *   picked -> pending (prefill reserved) -> decoding (first token) -> done
 *
 * P/D: a request whose prompt another endpoint computes is not there before its KV comes. It holds memory from the pick
 * on, but nothing waits for it, and it is not late:
 *
 *   picked -> coming -> pending (sched_prefilled; no prefill) -> decoding -> done
 *                    -> pending (sched_prefill_here)          -> decoding -> done */
#include "core/sched_int.h"

static double floor0(double v)
{
    return v > 1e-9 ? v : 0; /* sums of differences of doubles leave dust */
}

static double growth(const struct sched_req *r)
{
    return r->out_tokens / 2; /* on average a running request has half of its answer in the cache */
}

/* Prefill that the endpoint has to do for it. */
static double pending_tokens(const struct sched_req *r)
{
    return r->split ? 0 : r->uncached_tokens;
}

void hist_advance(struct sched *s, struct ep *e)
{
    uint64_t now = s->now_us / HIST_SLOT_US;
    if (now <= e->hist_at)
        return;
    uint64_t n = MIN(now - e->hist_at, (uint64_t)HIST_SLOTS);
    for (uint64_t i = 0; i < n; i++)
        e->hist[(now - i) % HIST_SLOTS] = (struct inflight_hist){ep_there(e), (float)e->own.held};
    e->hist_at = now;
}

void hist_note(struct sched *s, struct ep *e)
{
    hist_advance(s, e); /* before a change: the value so far held until now; after it: the new one counts as well */
    struct inflight_hist *h = &e->hist[e->hist_at % HIST_SLOTS];
    h->max_inflight = MAX(h->max_inflight, ep_there(e));
    h->min_held = MIN(h->min_held, (float)e->own.held);
}

static void wait_here(struct ep *e, struct sched_req *r)
{
    e->own.unanswered++;
    e->own.pending_s += r->prefill_s;
    e->own.pending_tokens += pending_tokens(r);
    r->state = REQ_PENDING;
    list_push_back(e->waiting, &r->link);
}

void ledger_reserve(struct sched *s, struct sched_req *r)
{
    struct ep *e = &s->eps[r->d.ep.slot];
    hist_note(s, e);
    e->own.inflight++;
    if (r->split) {
        e->own.coming++;
        r->state = REQ_COMING;
    } else {
        wait_here(e, r);
    }
    e->own.out += r->out_tokens;
    e->own.prompts += r->tokens;
    e->own.mem += r->uncached_tokens + growth(r);
    hist_note(s, e);
    e->picks++;
    e->last_pick = ++s->n_picks + (1u << 10);
    s->inflight++;
    lora_take(s, r->d.ep.slot, r);
    cost_update(s, r->d.ep.slot);
}

void ledger_comes(struct sched *s, struct sched_req *r)
{
    struct ep *e = ep_of(s, r->d.ep);
    if (!e) {
        r->state = REQ_PENDING;
        return;
    }
    hist_note(s, e);
    e->own.coming--;
    wait_here(e, r);
    hist_note(s, e);
    cost_update(s, r->d.ep.slot);
}

void ledger_computes(struct sched *s, struct sched_req *r)
{
    struct ep *e = ep_of(s, r->d.ep);
    if (!e)
        return;
    list_remove(&r->link); /* its clock starts anew */
    list_push_back(e->waiting, &r->link);
    e->own.pending_s += r->prefill_s;
    e->own.pending_tokens += pending_tokens(r);
    cost_update(s, r->d.ep.slot);
}

static void move_to_decoding(struct ep *e, const struct sched_req *r)
{
    e->own.decoding++;
    e->own.context += r->tokens;
    e->own.held += r->uncached_tokens + growth(r);
    e->own.pending_s = floor0(e->own.pending_s - r->prefill_s);
    e->own.pending_tokens = floor0(e->own.pending_tokens - pending_tokens(r));
}

void ledger_answered(struct sched *s, struct sched_req *r)
{
    if (r->state != REQ_PENDING)
        return;
    struct ep *e = ep_of(s, r->d.ep);
    if (e)
        event_emit(s, EV_FIRST_TOKEN, r->d.ep.slot, r);
    r->state = REQ_DECODING;
    if (!e)
        return;
    hist_note(s, e);
    move_to_decoding(e, r);
    cost_update(s, r->d.ep.slot);
}

/* The first byte of a whole answer comes when all is done. Its prefill is taken as done when twice the expected time
 * has passed; otherwise long answers would look like a long prefill queue. It stays counted as unanswered. */
static void overdue(struct sched *s, struct ep *e)
{
    /* With queueing that alone must not let more go there, beside a server that tells: not before a scrape has seen
     * whether it waits. */
    bool told = s->p.queueing && e->decay > 0 && e->load.has_waiting;
    LIST_EACH (it, e->waiting) {
        struct sched_req *r = CONTAINER_OF(it, struct sched_req, link);
        if (!r->streamed && (!told || r->picked_us < e->load.sent_us) &&
            (double)(s->now_us - r->picked_us) > 2 * SEC * (r->d.ttft_s + 0.05))
            ledger_answered(s, r);
    }
}

void ledger_overdue(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (s->eps[i].used)
            overdue(s, &s->eps[i]);
}

void ledger_forget(struct ep *e)
{
    while (list_pop_front(e->waiting))
        ;
}

void ledger_release(struct sched *s, struct sched_req *r)
{
    s->inflight--;
    list_remove(&r->link);
    struct ep *e = ep_of(s, r->d.ep);
    bool pending = r->state == REQ_PENDING, coming = r->state == REQ_COMING;
    r->state = REQ_DONE;
    if (!e)
        return;
    hist_note(s, e);
    lora_give(s, r->d.ep.slot, r);
    e->own.inflight--;
    e->own.unanswered -= !r->first_us && !coming;
    e->own.coming -= coming;
    e->own.out = floor0(e->own.out - r->out_tokens);
    e->own.prompts = floor0(e->own.prompts - r->tokens);
    e->own.mem = floor0(e->own.mem - r->uncached_tokens - growth(r));
    if (pending) {
        e->own.pending_s = floor0(e->own.pending_s - r->prefill_s);
        e->own.pending_tokens = floor0(e->own.pending_tokens - pending_tokens(r));
    } else if (!coming) {
        e->own.decoding--;
        e->own.held = floor0(e->own.held - r->uncached_tokens - growth(r));
        e->own.context = floor0(e->own.context - r->tokens);
    }
    if (!e->own.inflight) /* nothing in flight: no rounding error may stay */
        e->own = (struct ledger){0};
    hist_note(s, e);
    cost_update(s, r->d.ep.slot);
}
