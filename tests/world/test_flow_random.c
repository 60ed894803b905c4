/* Flow control under random events: arrivals of every kind, first tokens, completions, clients that leave, failures and
 * retries, endpoints that come, go, drain and are ejected, scrapes fresh, late and incomplete, reconfiguration, clocks
 * that jump. After each event the promises of core/sched.h are checked (flow_check.c).
 *
 * Options: --events N (all seeds together), --seed S (the first), --seeds N. A failure prints the seed that repeats it.
 */
#include "flow.h"
#include "lives.h"

#include <math.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EVENTS 1000000u
#else
#define EVENTS 10000000u
#endif
#define EVENTS_PER_SEED 50000u

static uint32_t below(struct flow_world *w, uint32_t n)
{
    return (uint32_t)rng_below(&w->rng, n);
}

static bool chance(struct flow_world *w, double p)
{
    return rng_unit(&w->rng) < p;
}

static uint64_t between(struct flow_world *w, uint64_t a, uint64_t b)
{
    return a + rng_below(&w->rng, b - a + 1);
}

/* ---- configuration ---- */

static void random_weights(struct flow_world *w)
{
    w->p.n_flow_weights = chance(w, 0.5) ? 0 : below(w, FLOW_FLOWS + 1);
    for (uint32_t i = 0; i < w->p.n_flow_weights; i++)
        w->weights[i] = (struct sched_flow_weight){.flow = i, .weight = 0.5 * (double)(1 + below(w, 8))};
    w->p.flow_weights = w->weights;
}

static void random_capacity(struct flow_world *w)
{
    w->p.queue_requests = chance(w, 0.5) ? 250 : 1 + below(w, 100);
    w->p.queue_bytes = chance(w, 0.5) ? 100000000 : between(w, 20000, 500000);
}

static void random_params(struct flow_world *w)
{
    struct sched_params *p = &w->p;
    sched_params_init(p);
    p->policy = chance(w, 0.45) ? SCHED_DEFAULT : chance(w, 0.8) ? SCHED_PREFIX_CACHE : SCHED_ROUND_ROBIN;
    p->queue_threshold = below(w, 7);
    p->kv_threshold = 0.3 + 0.1 * below(w, 8);
    p->stale_us = between(w, 500000, 5000000);
    p->kv_tokens = between(w, 10000, 60000);
    p->step_tokens = 1024u << below(w, 4);
    p->mean_output = 20 + below(w, 400);
    p->queueing = chance(w, 0.95);
    p->queue_order = (enum sched_order)below(w, 3);
    p->queue_late_us = chance(w, 0.1) ? 0 : between(w, 20000, 3000000);
    p->queue_discard = chance(w, 0.3) ? DISCARD_EARLIEST : DISCARD_LOWEST_CLASS;
    p->queue_ttl_us = between(w, 200000, 30000000);
    p->early_refusal = chance(w, 0.4) ? EARLY_OFF : chance(w, 0.5) ? EARLY_OWN : EARLY_ALL;
    p->prefix_wait_us = chance(w, 0.2) ? between(w, 10000, FLOW_PREFIX_WAIT) : 0;
    p->eject_us = between(w, 500000, 5000000);
    p->eject_max_us = 10000000;
    random_capacity(w);
    random_weights(w);
}

static void set_params(struct flow_world *w)
{
    w->draining_queue = !w->p.queueing;
    w->version++;
    flow_forget_pairs(w);
    sched_set_params(w->s, &w->p, w->now);
    flow_end(w, false);
    w->draining_queue = false;
    flow_backlogs(w);
}

static void reconfigure(struct flow_world *w)
{
    flow_begin(w, "reconfigure");
    switch (below(w, 10)) {
    case 0:
    case 1:
        w->p.queueing = !w->p.queueing;
        break;
    case 2:
        random_capacity(w);
        break;
    case 3:
        w->p.queue_ttl_us = between(w, 200000, 30000000);
        break;
    case 4:
        w->p.queue_order = (enum sched_order)below(w, 3);
        w->p.queue_late_us = chance(w, 0.1) ? 0 : between(w, 20000, 3000000);
        break;
    case 5:
        w->p.queue_discard = w->p.queue_discard == DISCARD_EARLIEST ? DISCARD_LOWEST_CLASS : DISCARD_EARLIEST;
        break;
    case 6:
        w->p.queue_threshold = below(w, 7);
        w->p.kv_threshold = 0.3 + 0.1 * below(w, 8);
        break;
    case 7:
        random_weights(w);
        break;
    case 8:
        w->p.early_refusal = (enum sched_early)below(w, 3);
        w->p.prefix_wait_us = w->p.prefix_wait_us ? 0 : between(w, 10000, FLOW_PREFIX_WAIT);
        break;
    default:
        w->p.stale_us = between(w, 500000, 5000000);
    }
    set_params(w);
}

/* ---- requests ---- */

static void new_request(struct flow_world *w, struct flow_req *q, uint32_t i)
{
    uint64_t id = q->r.id + FLOW_REQS, ended = q->ended_verb;
    struct prefix_hashes *ph = &q->ph;
    *q = (struct flow_req){.order = ++w->next_order, .came_us = w->now, .ended_verb = ended, .ep = FLOW_EPS};
    q->r = (struct sched_req){.id = id / FLOW_REQS * FLOW_REQS + i, .n_outputs = 1};
    q->r.priority = (int)below(w, 100) < 70 ? (int)below(w, 3) - 1 : (int)below(w, FLOW_PRIOS) - FLOW_PRIOS / 2;
    q->r.flow = below(w, FLOW_FLOWS);
    q->r.prompt_bytes = chance(w, 0.02) ? between(w, 50000, 600000) : between(w, 50, 12000);
    q->r.ttl_us = chance(w, 0.2) ? between(w, 20000, 10000000) : 0;
    q->r.max_tokens = chance(w, 0.5) ? between(w, 1, 500) : 0;
    q->r.streamed = chance(w, 0.7);
    q->r.model = chance(w, 0.25) ? 1 + below(w, FLOW_MODELS) : 0;
    if (chance(w, 0.06)) { /* also to endpoints that are gone by now */
        const struct flow_ep *e = &w->ep[below(w, FLOW_EPS)];
        q->r.pinned = e->ref;
    }
    if (chance(w, 0.3)) {
        *ph = (struct prefix_hashes){.h = w->storage[below(w, FLOW_LINES)], .n = 1 + below(w, 8), .block_bytes = 64};
        ph->n_fine = ph->n;
        q->r.hashes = ph;
    }
}

static void submit(struct flow_world *w, uint32_t i)
{
    struct flow_req *q = &w->q[i];
    if (chance(w, 0.7)) { /* what time alone changes is done by now: the views show what the pick will see */
        flow_begin(w, "tick before a submit");
        sched_tick(w->s, w->now);
        flow_end(w, true);
        w->settled_time = true;
    }
    q->allowed_version = 0;
    flow_begin(w, "submit");
    w->in_submit = i + 1;
    enum sched_answer a = sched_submit(w->s, &q->r, w->now);
    w->in_submit = 0;
    w->settled_time = false;
    flow_answered(w, i, a);
    flow_end(w, false);
}

static void arrive(struct flow_world *w)
{
    if (!w->n_free)
        return;
    uint32_t i = w->free_list[--w->n_free];
    new_request(w, &w->q[i], i);
    submit(w, i);
}

static void send_again(struct flow_world *w)
{
    if (!w->n_failed)
        return;
    uint32_t i = w->failed[below(w, w->n_failed)];
    flow_list_del(w->failed, &w->n_failed, i);
    submit(w, i);
}

static void leave(struct flow_world *w)
{
    if (!w->n_waiting)
        return;
    uint32_t i = w->waiting[below(w, w->n_waiting)];
    flow_begin(w, "leave");
    flow_unwait(w, i);
    w->q[i].state = FLOW_FREE;
    w->free_list[w->n_free++] = i;
    sched_cancel(w->s, &w->q[i].r, w->now);
    if (chance(w, 0.2))
        sched_cancel(w->s, &w->q[i].r, w->now); /* twice is once */
    flow_end(w, false);
}

static void first_token(struct flow_world *w)
{
    if (!w->n_flying)
        return;
    flow_begin(w, "first_token");
    struct flow_req *q = &w->q[w->flying[below(w, w->n_flying)]];
    if (!q->fails)
        sched_first_token(w->s, &q->r, w->now);
    flow_end(w, false);
}

static enum sched_outcome random_failure(struct flow_world *w)
{
    static const enum sched_outcome bad[] = {OUT_CANCELLED,    OUT_CANCELLED,  OUT_CONNECT_FAILED,
                                             OUT_RESET,        OUT_GARBAGE,    OUT_TIMEOUT,
                                             OUT_SERVER_ERROR, OUT_STALE_CONN, OUT_STALE_CONN};
    return bad[below(w, ARRAY_LEN(bad))];
}

/* Input and output that add up to its service. */
static struct sched_usage usage_of(struct flow_world *w, const struct flow_req *q)
{
    uint64_t real = (uint64_t)q->real, prompt = MAX(1, MIN(real, 1 + q->r.prompt_bytes / 4));
    struct sched_usage u = {.prompt_tokens = real - (real - prompt) / 2 * 2, .completion_tokens = (real - prompt) / 2};
    u.has_cached = chance(w, 0.3);
    u.cached_tokens = u.has_cached ? below(w, (uint32_t)u.prompt_tokens) : 0;
    return u;
}

static void finish(struct flow_world *w)
{
    if (!w->n_flying)
        return;
    uint32_t i = w->flying[below(w, w->n_flying)];
    struct flow_req *q = &w->q[i];
    struct flow_ep *e = &w->ep[q->ep];
    enum sched_outcome how = q->fails ? random_failure(w) : OUT_OK;
    struct sched_usage u = {0};
    flow_begin(w, "finish");
    flow_list_del(w->flying, &w->n_flying, i);
    if (q->ep < FLOW_EPS) {
        e->flying--;
        e->mem -= q->r.tokens + q->r.out_tokens / 2;
    }
    if (!w->exact && !q->fails)
        u = usage_of(w, q);
    flow_served(w, q);
    bool again = how != OUT_OK && how != OUT_CANCELLED && q->r.n_tried < 3 && chance(w, 0.9);
    sched_finish(w->s, &q->r, how, u.prompt_tokens || chance(w, 0.5) ? &u : NULL, w->now);
    if (again && chance(w, 0.8))
        q->r.tried[q->r.n_tried++] = q->r.d.ep;
    q->state = again ? FLOW_FAILED : FLOW_FREE;
    if (again)
        flow_list_add(w->failed, &w->n_failed, i);
    else
        w->free_list[w->n_free++] = i;
    flow_end(w, false);
}

/* ---- endpoints ---- */

static void ep_add(struct flow_world *w)
{
    uint32_t k = below(w, FLOW_EPS);
    struct flow_ep *e = &w->ep[k];
    if (e->used || w->n_slots > FLOW_SLOTS / 2)
        return;
    *e = (struct flow_ep){
        .used = true, .wait_probe = chance(w, 0.3), .room = 1 + below(w, 20), .kv_tokens = between(w, 5000, 60000)};
    w->version++;
    flow_begin(w, "ep_add");
    e->ref = sched_ep_add(w->s, e, e->wait_probe, w->now);
    flow_end(w, false);
}

static void ep_remove(struct flow_world *w, struct flow_ep *e)
{
    if (!e->used)
        return;
    for (uint32_t k = 0; k < w->n_flying; k++)
        if (w->q[w->flying[k]].ep == (uint32_t)(e - w->ep))
            w->q[w->flying[k]].ep = FLOW_EPS;
    w->version++;
    e->used = false;
    flow_begin(w, "ep_remove");
    sched_ep_remove(w->s, e->ref, w->now);
    flow_end(w, false);
}

static void ep_models(struct flow_world *w, struct flow_ep *e)
{
    struct sched_model m[FLOW_MODELS];
    size_t n = 0;
    if (!e->used)
        return;
    e->models = chance(w, 0.3) ? 0 : BIT(1) | (below(w, BIT(FLOW_MODELS)) << 1);
    for (uint64_t i = 1; i <= FLOW_MODELS; i++)
        if (e->models & BIT(i))
            m[n++] = (struct sched_model){.name = i, .adapter = i == FLOW_MODELS};
    w->version++;
    flow_begin(w, "ep_models");
    sched_ep_models(w->s, e->ref, m, n, w->now);
    flow_end(w, false);
}

static void scrape(struct flow_world *w, struct flow_ep *e)
{
    if (!e->used)
        return;
    double others = chance(w, 0.2) ? below(w, 8) : 0;
    struct ep_load l = {.sent_us = w->now - between(w, 0, 20000),
                        .done_us = w->now,
                        .has_waiting = !chance(w, 0.03),
                        .has_running = !chance(w, 0.03),
                        .has_kv = !chance(w, 0.05),
                        .has_blocks = chance(w, 0.8),
                        .running = MIN(e->flying, e->room),
                        .waiting = e->flying > e->room ? e->flying - e->room : 0,
                        .kv_tokens = e->kv_tokens,
                        .block_tokens = 16};
    l.waiting += others;
    l.kv_frac = MIN(1, (e->mem + 300 * others) / (double)e->kv_tokens);
    if (w->adapters && chance(w, 0.7)) {
        l.max_lora = 1 + below(w, 2);
        l.n_running_lora = below(w, l.max_lora + 1);
        for (uint32_t i = 0; i < l.n_running_lora; i++)
            l.running_lora[i] = FLOW_MODELS + below(w, 3);
    }
    struct ep_load now = l;
    if (chance(w, 0.2) && e->last.done_us) { /* late: what it was a while ago */
        l = e->last;
        l.done_us = chance(w, 0.5) ? w->now : l.done_us;
    }
    e->last = now;
    flow_begin(w, "scrape");
    sched_ep_load(w->s, e->ref, &l, w->now);
    flow_end(w, false);
    if (chance(w, 0.8)) {
        flow_begin(w, "probe");
        sched_ep_probe(w->s, e->ref, !chance(w, 0.03), w->now - 5000, w->now);
        flow_end(w, false);
    }
}

static void ep_drain(struct flow_world *w, struct flow_ep *e)
{
    if (!e->used)
        return;
    flow_begin(w, "ep_drain");
    sched_ep_drain(w->s, e->ref, chance(w, 0.4), w->now);
    flow_end(w, false);
}

/* ---- time ---- */

static void tick(struct flow_world *w)
{
    flow_begin(w, "tick");
    uint64_t next = sched_tick(w->s, w->now), first = UINT64_MAX;
    flow_end(w, true);
    for (uint32_t k = 0; k < w->n_waiting; k++)
        first = MIN(first, flow_deadline(w, &w->q[w->waiting[k]]));
    MUST(w, next <= MAX(first, w->now + 1000) || next <= w->now + 110000,
         "wants the next tick in %g s, the first TTL ends in %g s", (double)(next - w->now) * 1e-6,
         (double)(first - w->now) * 1e-6);
}

static void pass_time(struct flow_world *w, double mean_us)
{
    w->now += (uint64_t)(rng_exp(&w->rng) * mean_us);
    if (chance(w, 0.0005))
        w->now += between(w, 1000000, 60000000);
}

static void endpoint_event(struct flow_world *w)
{
    struct flow_ep *e = &w->ep[below(w, FLOW_EPS)];
    switch (below(w, 8)) {
    case 0:
        ep_remove(w, e);
        return;
    case 1:
    case 2:
    case 3:
        ep_add(w);
        return;
    case 4:
        ep_models(w, e);
        return;
    case 5:
        ep_drain(w, e);
        return;
    default:
        reconfigure(w);
    }
}

/* One event. busy: how many arrivals for a completion. */
static void event(struct flow_world *w, double busy, double scrapes)
{
    double x = rng_unit(&w->rng) * (4 + 3 * busy);
    if (x < 3 * busy)
        arrive(w);
    else if ((x -= 3 * busy) < 1.8)
        finish(w);
    else if ((x -= 1.8) < 1)
        first_token(w);
    else if ((x -= 1) < 0.15)
        leave(w);
    else if ((x -= 0.15) < 0.25)
        send_again(w);
    else if ((x -= 0.25) < 0.3 * scrapes)
        scrape(w, &w->ep[below(w, FLOW_EPS)]);
    else if ((x -= 0.3 * scrapes) < 0.05)
        endpoint_event(w);
    else
        tick(w);
}

/* ---- a life ---- */

static struct flow_world *world_new(uint64_t seed)
{
    struct flow_world *w = xcalloc(1, sizeof(*w));
    w->seed = seed;
    rng_init(&w->rng, seed);
    w->q = xcalloc(FLOW_REQS, sizeof(w->q[0]));
    w->now = 1000000000;
    w->version = 1;
    w->exact = chance(w, 0.5);
    w->adapters = chance(w, 0.3);
    for (uint32_t i = 0; i < FLOW_REQS; i++)
        w->free_list[w->n_free++] = i;
    for (uint32_t i = 0; i < FLOW_LINES; i++)
        for (uint32_t k = 0; k < ARRAY_LEN(w->storage[0]); k++)
            w->storage[i][k] = rng_u64(&w->rng);
    random_params(w);
    w->s = sched_new(&w->p, seed);
    flow_watch(w);
    for (uint32_t i = 0; i < 1 + seed % FLOW_EPS; i++)
        ep_add(w);
    return w;
}

/* No more arrivals: everything ends, and nothing stays behind. */
static void wind_down(struct flow_world *w)
{
    uint64_t end = w->now + 60000000;
    while (w->n_waiting + w->n_flying + w->n_failed) {
        pass_time(w, 20000);
        finish(w);
        if (chance(w, 0.2))
            send_again(w);
        if (chance(w, 0.2))
            tick(w);
        if (chance(w, 0.1))
            scrape(w, &w->ep[below(w, FLOW_EPS)]);
        MUST(w, w->now < end + 600000000, "%u wait and %u fly long after the last arrival", w->n_waiting, w->n_flying);
    }
    struct sched_stats st;
    sched_stats(w->s, w->now, &st);
    MUST(w, !st.inflight && !st.queued && !st.queued_bytes, "%llu in flight, %llu queued, %llu bytes at the end",
         (unsigned long long)st.inflight, (unsigned long long)st.queued, (unsigned long long)st.queued_bytes);
    for (uint32_t i = 0; i < sched_ep_slots(w->s); i++) {
        struct ep_view v;
        if (sched_ep_view(w->s, i, w->now, &v))
            MUST(w,
                 !v.inflight && !v.unanswered && v.pending_prefill_s <= 0 && v.context_tokens <= 0 &&
                     v.decode_tokens <= 0,
                 "slot %u keeps reservations", i);
    }
}

static uint64_t live(uint64_t seed, void *ctx)
{
    struct flow_world *sum = ctx;
    struct flow_world *w = world_new(seed);
    double busy = 1, scrapes = 1, mean_us = 3000;
    while (w->n_events < EVENTS_PER_SEED) {
        if (chance(w, 0.002)) { /* another season */
            busy = 0.2 + 1.5 * rng_unit(&w->rng);
            scrapes = chance(w, 0.2) ? 0 : 2 * rng_unit(&w->rng);
            mean_us = exp(rng_unit(&w->rng) * 5) * 300;
        }
        pass_time(w, mean_us);
        event(w, busy, scrapes);
    }
    wind_down(w);
    sum->n_events += w->n_events;
    sum->n_picked += w->n_picked;
    sum->n_from_queue += w->n_from_queue;
    sum->n_pair_checks += w->n_pair_checks;
    sum->n_fallback += w->n_fallback;
    sum->n_reversed += w->n_reversed;
    sum->n_newest += w->n_newest;
    for (int k = 0; k < 2; k++)
        sum->worst_pair[k] = MAX(sum->worst_pair[k], w->worst_pair[k]);
    for (int k = 0; k < N_SCHED_REJECTS; k++)
        sum->n_rejected[k] += w->n_rejected[k];
    uint64_t d = w->digest;
    sched_free(w->s);
    free(w->q);
    free(w);
    return d;
}

int main(int argc, char **argv)
{
    struct lives l = lives_of(argc, argv, EVENTS);
    struct flow_world *sum = xcalloc(1, sizeof(*sum));
    if (!lives_run(&l, live, sum, &sum->n_events)) {
        free(sum);
        return 1;
    }
    printf("%llu events, seeds %llu to %llu: %llu picks (%llu from the queue, %llu without anybody healthy); rejected:",
           (unsigned long long)sum->n_events, (unsigned long long)l.first, (unsigned long long)l.next - 1,
           (unsigned long long)sum->n_picked, (unsigned long long)sum->n_from_queue,
           (unsigned long long)sum->n_fallback);
    for (int k = 1; k < N_SCHED_REJECTS; k++)
        printf(" %s %llu", sched_reject_name((enum sched_reject)k), (unsigned long long)sum->n_rejected[k]);
    printf("; newest first %llu times on and off, %llu picks then", (unsigned long long)sum->n_reversed,
           (unsigned long long)sum->n_newest);
    printf("; %llu checks of pairs of flows, at most %.2f of the bound with exact charges, %.2f with corrections\n",
           (unsigned long long)sum->n_pair_checks, sum->worst_pair[1], sum->worst_pair[0]);
    bool idle = !sum->n_from_queue || !sum->n_newest || !sum->n_rejected[REJECT_QUEUE_FULL] ||
                !sum->n_rejected[REJECT_QUEUE_TIMEOUT];
    if (idle && l.seeds > 10)
        (void)fprintf(stderr, "hardly anything waited: this proves nothing\n");
    free(sum);
    return idle && l.seeds > 10;
}
