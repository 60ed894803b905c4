/* The cost model: seconds of expected work, linear in what a request needs so that a pick is one pass over a few float
 * arrays.
 *
 *   step   = step_s + decode_s * running + ctx_s * context tokens           one engine step without prefill
 *   wait   = prefill ahead + (1 + prefill tokens ahead / budget) * step     or the queue the server reports, if longer
 *   own    = prefill_s * new + quad_s * new * (all - new / 2)               counted `affinity` times: those who come
 *                                                                           later wait for it, too
 *   others = OTHERS_SHARE * requests in flight there * own                  their steps take longer meanwhile;
 *            P/D: PAIR_OTHERS more
 *   answer = ANSWER_SHARE * output * one step when all in flight decode,    P/D alone: servers that only decode differ
 *            beyond the least of all endpoints                              in nothing else
 *   kv     = T * f(KV in use + what the request adds)                       preemption and waiting for memory; T is the
 *                                                                           time an average request holds its memory
 *
 * Prefill seconds and steps are scaled by what was learnt of the endpoint (learn.c). Sources: routing-anchors.md,
 * policy `estimate`; the product of work and requests in LMetric (OSDI'26), here as a term of its own so that its
 * weight can be small; scheduling.md 8, "minimal estimator". The weights were chosen with `penstock replay`. */
#include "core/sched_int.h"
#include <math.h>

#define MIN_WAIT_S   0.05 /* a request waiting at a server costs at least this: servers do not queue without need */
#define MAX_WAIT_S   1.0
#define MIN_RUNNING  16.0 /* servers take at least so many at once: waiting beside fewer is no queue for a place, */
#define FULL_KV      0.9  /* unless memory is what they wait for */
#define OTHERS_SHARE 0.12
#define ANSWER_SHARE                                                                                                   \
    0.3 /* P/D: it balances what decodes; with more of it crowded servers send too much away, and prompts queue        \
           elsewhere */
#define PAIR_OTHERS    0.1 /* P/D: more than elsewhere, as the prompt need not be computed beside answers */
#define REMOTE_CAUTION 5.0 /* times what replicas may have sent unseen: then they keep apart. More costs cache hits */
#define MAX_LAG_S      2.0
#define PREFILL_AT_ONCE                                                                                                \
    8.0 /* queueing: more new requests than this are not sent to a server before it has answered some: it may          \
         * have fewer places than we think, and with one wave per step nobody loses time */

struct work work_of(const struct sched *s, const struct sched_req *r)
{
    double text = (double)r->prompt_bytes / s->bytes_per_token;
    double n = MAX(1.0, (double)r->n_outputs);
    double out = r->max_tokens ? MIN((double)r->max_tokens, s->mean_output) : s->mean_output;
    struct work w = {
        .tokens = MAX(1.0, text + (double)r->prompt_token_ids + MEDIA_TOKENS * r->n_media),
        .out = out * MIN(n, 1024.0),
        .stream_bytes = (double)r->prompt_bytes + 4.0 * (double)r->prompt_token_ids,
    };
    if (r->hashes && r->hashes->n)
        w.stream_bytes = MAX(w.stream_bytes, (double)prefix_bytes(r->hashes, r->hashes->n));
    return w;
}

double work_prefill_s(const struct sched *s, double new_tokens, double tokens)
{
    return s->p.prefill_s * new_tokens + s->p.quad_s * new_tokens * (tokens - new_tokens / 2);
}

double work_transfer_s(const struct sched *s, double new_tokens)
{
    return s->p.transfer_base_s + s->p.transfer_s * new_tokens;
}

double ep_kv_tokens(const struct sched *s, const struct ep *e)
{
    if (e->has_load && e->load.has_blocks && e->load.kv_tokens)
        return (double)e->load.kv_tokens;
    return MAX(e->kv_belief > 0 ? e->kv_belief : (double)s->p.kv_tokens, 1.0);
}

static double late(const struct ep *e) /* beyond what is believed anyway */
{
    return MAX(1.0, e->late / MAX(e->speed, 1.0));
}

double ep_prefill(const struct ep *e)
{
    return e->prefill * late(e);
}

double ep_step(const struct ep *e)
{
    return e->step * late(e);
}

static bool load_valid(const struct ep *e)
{
    return e->has_load && e->decay > 0;
}

static double kv_use(const struct sched *s, const struct ep *e, double told)
{
    double ours = e->own.mem + e->remote.mem, kv = ep_kv_tokens(s, e);
    if (!load_valid(e) || !e->load.has_kv)
        return ours / kv;
    return MAX(0, told + (e->own.mem - e->held_at_load) / kv);
}

double ep_kv_use(const struct sched *s, const struct ep *e)
{
    return kv_use(s, e, e->load.kv_frac);
}

/* What the server reported as waiting, moved by what we have sent and seen finished since. Those of ours that have
 * answered wait no more, however late the report. A server with room takes what waits with its next step: then ours are
 * no queue (their prefill is in the ledger), and where one endpoint is scraped at the start of a burst it must not look
 * worse than those scraped before. */
double ep_queue(const struct ep *e)
{
    if (!load_valid(e) || !e->load.has_waiting || e->load.waiting <= 0)
        return 0;
    double q = e->load.waiting + (double)ep_there(e) - (double)e->own_at_load;
    bool full = e->load.running >= MIN_RUNNING || e->load.kv_frac > FULL_KV;
    return MAX(0, MIN(q, e->others_waiting + (full ? (double)e->own.unanswered : 0))) * e->decay;
}

/* Others' requests as the scrape shows them, beyond those that the replicas have told of. */
static double unknown_waiting(const struct ep *e)
{
    return MAX(0.0, e->others_waiting * e->decay - (double)e->remote.unanswered);
}

static double unknown_running(const struct ep *e)
{
    return MAX(0.0, e->others_running * e->decay - (double)e->remote.decoding);
}

static double others_waiting(const struct ep *e)
{
    return unknown_waiting(e) + (double)e->remote.unanswered;
}

double ep_unseen_s(const struct sched *s, const struct ep *e)
{
    if (e->remote_rate <= 0)
        return 0;
    double age = (double)(s->now_us - e->remote_rate_us) / SEC, lag = MIN(s->remote_lag_s, MAX_LAG_S);
    return REMOTE_CAUTION * lag * e->remote_rate * exp(-age / REMOTE_RATE_S);
}

struct state { /* of an endpoint, in seconds of the prior */
    double ahead_s, ahead_tokens, step, queue_s, all;
};

static struct state state_of(const struct sched *s, const struct ep *e)
{
    const struct sched_params *p = &s->p;
    double waiting = unknown_waiting(e), running = unknown_running(e);
    double all = (double)(e->own.inflight + e->remote.inflight) + waiting + running;
    double decoding = (double)(e->own.decoding + e->remote.decoding) + running;
    double context = e->own.context + e->remote.context + running * s->mean_tokens;
    struct state st = {
        .ahead_s = e->own.pending_s + e->remote.pending_s + ep_unseen_s(s, e) + waiting * s->mean_prefill_s,
        .ahead_tokens = e->own.pending_tokens + e->remote.pending_tokens + waiting * s->mean_tokens,
        .step = p->step_s + p->decode_s * decoding + p->ctx_s * context,
        .all = all,
    };
    double slot_s = s->mean_output * st.step / MAX(e->load.running, MIN_RUNNING); /* until one of the running ends */
    if (e->load.running <= 0)
        slot_s = 0;
    st.queue_s = ep_queue(e) * MAX(MAX(MIN_WAIT_S, s->mean_prefill_s), MIN(slot_s, MAX_WAIT_S));
    return st;
}

static double wait_s(const struct sched *s, const struct ep *e, const struct state *st)
{
    double steps = (1 + st->ahead_tokens / (double)s->p.step_tokens) * st->step;
    return MAX(ep_prefill(e) * st->ahead_s + ep_step(e) * steps, ep_step(e) * (st->queue_s + st->step));
}

static double hold_s(const struct sched *s)
{
    return MIN(10.0, MAX(0.5, s->mean_output * s->p.step_s * s->step_factor));
}

/* Expected loss, in units of hold_s, at KV use u after admission: nothing to speak of at half, half a holding time at 1
 * (the answers in progress still grow), then up to three. */
static double kv_loss(double u)
{
    double x = MIN(1.0, MAX(0.0, 2 * u - 1)), over = MAX(0.0, u - 1);
    return 0.002 * MIN(u, 1.0) + 0.5 * x * x * x * x + MIN(2.5, 4 * over);
}

/* Of a step when all that is in flight there decodes: the time between two tokens of an answer. */
static double answer_step(const struct sched *s, const struct ep *e)
{
    double running = unknown_running(e) + unknown_waiting(e);
    double n = (double)(e->own.inflight + e->remote.inflight) + running;
    double context = e->own.prompts + e->remote.prompts + running * s->mean_tokens;
    return ep_step(e) * (s->p.step_s + s->p.decode_s * n + s->p.ctx_s * context);
}

static void note_room(struct sched *s, uint32_t slot, bool usable)
{
    struct scan *c = &s->scan;
    bool had = !(c->full[slot] > 0), has = usable && !ep_saturated(s, &s->eps[slot]);
    bool was_usable = c->base[slot] < INFINITY;
    s->n_room += has;
    s->n_room -= had;
    s->room_gained |= (has && !had) || usable != was_usable; /* who was pinned there may go elsewhere now */
    c->full[slot] = has ? 0 : INFINITY;
}

void cost_update(struct sched *s, uint32_t slot)
{
    const struct ep *e = &s->eps[slot];
    struct scan *c = &s->scan;
    note_room(s, slot, ep_usable(e));
    c->order[slot] = (uint64_t)MIN(e->own.inflight, (1u << 24) - 1) << 40 | (e->last_pick & ((1ull << 40) - 1));
    if (!ep_usable(e)) {
        c->base[slot] = INFINITY;
        c->own_w[slot] = c->tok_s[slot] = c->kv_use[slot] = c->kv_inv[slot] = c->answer[slot] = c->crowd[slot] = 0;
        return;
    }
    struct state st = state_of(s, e);
    c->base[slot] = (float)(wait_s(s, e, &st) + e->extra_s);
    c->own_w[slot] = (float)(ep_prefill(e) * (s->p.affinity + OTHERS_SHARE * st.all));
    c->tok_s[slot] = (float)(ep_step(e) * st.step / (double)s->p.step_tokens);
    c->kv_use[slot] = (float)kv_use(s, e, e->load.kv_mean);
    c->kv_inv[slot] = (float)(1 / ep_kv_tokens(s, e));
    c->answer[slot] = (float)answer_step(s, e);
    c->crowd[slot] = (float)(ep_prefill(e) * st.all);
}

void cost_scan(struct sched *s, const struct work *w)
{
    const struct scan *c = &s->scan;
    const float *restrict base = c->base, *restrict own_w = c->own_w, *restrict tok_s = c->tok_s;
    const float *restrict kv_use = c->kv_use, *restrict kv_inv = c->kv_inv;
    float *restrict cost = c->cost;
    float tokens = (float)w->tokens, need = tokens + (float)w->out / 2, hold = (float)hold_s(s), own = 0;
    if (w->given)
        tokens = 0;
    else
        own = (float)work_prefill_s(s, w->tokens, w->tokens);
    for (uint32_t i = 0; i < s->n_slots; i++) { /* the same as cost_of with nothing cached, written to vectorise */
        float u = kv_use[i] + need * kv_inv[i], x = 2 * u - 1, over = 4 * (u - 1), low = u < 1 ? u : 1;
        x = x > 0 ? x : 0;
        x = x < 1 ? x : 1;
        over = over > 0 ? over : 0;
        over = over < 2.5f ? over : 2.5f;
        cost[i] = base[i] + own * own_w[i] + tokens * tok_s[i] + hold * (0.002f * low + 0.5f * x * x * x * x + over);
    }
}

/* The time of an answer counts by how much longer it takes than where it takes least: what all have in common says
 * nothing, and would widen the bands of ties. */
void cost_least_answer(struct sched *s)
{
    const struct scan *c = &s->scan;
    float least = INFINITY;
    for (uint32_t i = 0; i < s->n_slots; i++)
        least = c->base[i] < INFINITY && c->answer[i] < least ? c->answer[i] : least;
    s->scan.least_answer = least < INFINITY ? least : 0;
}

void cost_scan_pair(struct sched *s, const struct work *w)
{
    const float *restrict answer = s->scan.answer;
    float *restrict cost = s->scan.cost;
    const float *restrict crowd = s->scan.crowd;
    float out = (float)(ANSWER_SHARE * w->out), come = w->given ? (float)work_transfer_s(s, w->tokens) : 0;
    come -= out * s->scan.least_answer;
    float own = w->given ? 0 : (float)(PAIR_OTHERS * work_prefill_s(s, w->tokens, w->tokens));
    for (uint32_t i = 0; i < s->n_slots; i++)
        cost[i] += out * answer[i] + own * crowd[i] + come;
}

double cost_of(const struct sched *s, uint32_t slot, const struct work *w, double cached, struct sched_cost *out)
{
    const struct ep *e = &s->eps[slot];
    struct state st = state_of(s, e);
    double fresh = MAX(1.0, w->tokens - cached), here = w->given ? 0 : fresh;
    double wait = wait_s(s, e, &st) + ep_step(e) * st.step * here / (double)s->p.step_tokens;
    double prefill = ep_prefill(e) * work_prefill_s(s, here, w->tokens);
    double others = (OTHERS_SHARE + (w->pair ? PAIR_OTHERS : 0)) * st.all * prefill;
    double kv = hold_s(s) * kv_loss(kv_use(s, e, e->load.kv_mean) + (fresh + w->out / 2) / ep_kv_tokens(s, e));
    double transfer = w->given ? work_transfer_s(s, fresh) : 0;
    double answer = w->pair ? ANSWER_SHARE * w->out * (double)(s->scan.answer[slot] - s->scan.least_answer) : 0;
    double total = wait + s->p.affinity * prefill + others + kv + e->extra_s + transfer + answer;
    if (out) {
        out->total_s = total;
        out->wait_s = wait;
        out->prefill_s = prefill;
        out->others_s = others;
        out->kv_s = kv;
        out->extra_s = e->extra_s;
        out->transfer_s = transfer;
        out->answer_s = answer;
    }
    return total;
}

void cost_raw(const struct sched *s, uint32_t slot, const struct work *w, double cached, struct sched_req *r)
{
    const struct ep *e = &s->eps[slot];
    struct state st = state_of(s, e);
    double fresh = w->given ? 0 : MAX(1.0, w->tokens - cached), own = work_prefill_s(s, fresh, w->tokens);
    r->raw_prefill_s = st.ahead_s + own;
    r->raw_step_s = MAX((1 + (st.ahead_tokens + fresh) / (double)s->p.step_tokens) * st.step, st.queue_s + st.step);
    r->raw_saved_s = w->given ? 0 : work_prefill_s(s, w->tokens, w->tokens) - own;
}

/* Of ours without a first token: those beyond what the server takes into its next step. */
static double ours_waiting(const struct sched *s, const struct ep *e)
{
    double budget = (double)s->p.step_tokens, fresh = (double)(ep_there(e) - e->own.decoding), n = 0;
    if (e->own.pending_tokens > budget)
        n = fresh * (1 - budget / e->own.pending_tokens);
    return s->p.queueing ? MAX(n, fresh - PREFILL_AT_ONCE) : n;
}

/* Waiting as far as known: what the server reported, moved by what we have sent and seen finished since, or what
 * exceeds the number it ran when it last had to let requests wait, but no more than ours without an answer and others';
 * or what of our own cannot be in its next step. */
double ep_waiting(const struct sched *s, const struct ep *e)
{
    double known = 0, mine = (double)ep_there(e);
    if (load_valid(e) && e->load.has_waiting && e->load.waiting > 0) {
        known = e->load.waiting + mine - (double)e->own_at_done;
        if (e->run_cap > 0)
            known = MAX(known, mine + e->others_waiting + e->others_running - e->run_cap);
        known = MAX(0, MIN(known, (double)e->own.unanswered + e->others_waiting));
    }
    return MAX(known, ours_waiting(s, e) + others_waiting(e));
}

bool ep_saturated(const struct sched *s, const struct ep *e)
{
    return ep_waiting(s, e) > (double)s->p.queue_threshold || ep_kv_use(s, e) > s->p.kv_threshold;
}
