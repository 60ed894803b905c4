/* The run of a world: arrivals, the order of events, the account of each request. */
#include "replay/world_int.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND         1000000ull
#define GRID_SHARE     0.2 /* fewer distinct arrival times than this share of the requests: recorded on a grid */
#define GRID_S         ((double)TRACE_GRID_MS / 1000)
#define PROGRESS_EVERY 1000

void world_init(struct world_params *p)
{
    *p = (struct world_params){.block_tokens = 512,
                               .n_gateways = 1,
                               .scrape_us = SECOND,
                               .tell_capacity = true,
                               .spread = true,
                               .think_max_s = 60,
                               .ramp_s = 300,
                               .adapter_slots = 1,
                               .kv_bytes_token = 131072,
                               .kv_bandwidth = 25e9,
                               .kv_base_s = 0.01,
                               .seed = 1};
    sched_params_init(&p->sched);
    p->sched.lru_capacity = UINT64_MAX; /* what the servers hold is the limit */
}

/* ---- events: a binary heap by time, then by the order they were made ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void world_push(struct world *w, uint64_t at_us, enum event_kind kind, uint32_t a, uint64_t b, void *p)
{
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = MAX(w->cap_heap * 2, 1024u);
        w->heap = xrealloc(w->heap, w->cap_heap * sizeof(*w->heap));
    }
    struct event e = {.at_us = at_us, .seq = w->seq++, .kind = kind, .a = a, .b = b, .p = p};
    uint32_t i = w->n_heap++;
    for (; i > 0 && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct event pop(struct world *w)
{
    struct event top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t i = 0;
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= w->n_heap)
            break;
        c += c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c]);
        if (!before(&w->heap[c], &last))
            break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    w->heap[i] = last;
    return top;
}

/* ---- the account of a request ---- */

static double ideal_s(const struct profile *p, double input)
{
    double s = 0, chunk = p->max_batched_tokens;
    for (double done = 0; done < input; done += chunk) {
        double n = MIN(chunk, input - done);
        s += step_seconds(&p->time, 0, 1, n, done, n * (done + n / 2));
    }
    return s;
}

static void take_ids(struct world *w, struct live *l, const struct data_request *d)
{
    const struct world_params *p = w->p;
    uint32_t whole = l->input / p->block_tokens;
    l->n_ids = MIN(whole, PREFIX_MAX);
    uint64_t *h = l->hashes.h = xrealloc(l->hashes.h, MAX(2 * l->n_ids, 1u) * sizeof(*h));
    uint64_t *ids = h + l->n_ids;
    for (uint32_t i = 0; i < l->n_ids; i++)
        ids[i] = i < d->n_ids ? hash_mix(p->data->ids[d->ids_from + i], l->adapter) : hash_mix(~d->own_key ^ w->seq, i);
    for (uint32_t i = 0; i < l->n_ids; i++)
        h[i] = hash_mix(ids[i], p->seed); /* where a rule goes by the hash alone, the seeds differ */
    l->ids = ids;
    l->hashes.n = l->hashes.n_fine = l->n_ids;
    l->hashes.block_bytes = (uint32_t)(p->block_tokens * PROMPT_BYTES_PER_TOKEN);
}

static uint32_t draw_adapter(struct world *w)
{
    if (!w->p->adapters)
        return 0;
    double all = 0, x;
    for (uint32_t i = 1; i <= w->p->adapters; i++)
        all += 1.0 / i;
    x = rng_unit(&w->rng) * all;
    for (uint32_t i = 1; i < w->p->adapters; i++)
        if ((x -= 1.0 / i) < 0)
            return i;
    return w->p->adapters;
}

struct live *world_begin(struct world *w, uint32_t index)
{
    struct live *l = w->free;
    if (l) {
        w->free = l->next_free;
        *l = (struct live){.hashes = {.h = l->hashes.h},
                           .held = {l->held[0], l->held[1]},
                           .explain = l->explain,
                           .next_all = l->next_all};
    } else {
        l = xcalloc(1, sizeof(*l));
        if (w->p->explain)
            l->explain = xmalloc(sizeof(*l->explain));
        l->next_all = w->all;
        w->all = l;
    }
    const struct data_request *d = &w->p->data->v[index];
    for (uint32_t i = 0; i < ROLES; i++) {
        l->leg[i].live = l;
        l->leg[i].role = i;
        list_init(&l->leg[i].here);
    }
    l->index = index;
    l->input = MAX(d->input_tokens, 1u);
    l->output = MAX(d->output_tokens, 1u);
    l->adapter = draw_adapter(w);
    l->gateway = w->next_gateway++ % w->p->n_gateways;
    take_ids(w, l, d);
    struct world_request *v = &w->out->v[index];
    *v = (struct world_request){.at_s = (double)w->now / 1e6,
                                .sent_s = -1,
                                .first_s = -1,
                                .end_s = -1,
                                .ideal_s = (float)ideal_s(&w->servers[0].profile, l->input),
                                .input = l->input,
                                .output = l->output,
                                .server = -1,
                                .gateway = (uint16_t)l->gateway};
    return l;
}

void world_first(struct world *w, struct live *l)
{
    struct world_request *v = &w->out->v[l->index];
    if (v->first_s < 0)
        v->first_s = (double)w->now / 1e6;
}

static void next_of_user(struct world *w, uint32_t index)
{
    const struct dataset *d = w->p->data;
    if (index + 1 < d->n && d->v[index + 1].turn > 0) {
        double think = MIN((double)d->v[index + 1].think_s, w->p->think_max_s);
        world_push(w, w->now + (uint64_t)(think * 1e6), AT_ARRIVE, index + 1, 0, NULL);
    } else {
        world_push(w, w->now, AT_USER, 0, 0, NULL);
    }
}

void world_end(struct world *w, struct live *l, enum world_end how)
{
    struct world_request *v = &w->out->v[l->index];
    v->end = (uint8_t)how;
    v->end_s = (double)w->now / 1e6;
    v->tries = (uint16_t)l->tries;
    l->over = true;
    w->n_done++;
    if (w->closed)
        next_of_user(w, l->index);
    if (w->p->progress && w->n_done % PROGRESS_EVERY == 0)
        w->p->progress(w->p->ctx, w->n_done, w->n_all);
    l->pending++;
    world_push(w, w->now, AT_OVER, 0, 0, l); /* nobody up the stack holds it then */
}

void live_release(struct world *w, struct live *l)
{
    if (--l->pending || !l->over)
        return;
    l->next_free = w->free;
    w->free = l;
}

static void live_free(struct live *l)
{
    free(l->hashes.h);
    for (uint32_t i = 0; i < ROLES; i++)
        free(l->held[i]);
    free(l->explain);
    free(l);
}

/* ---- arrivals ---- */

static int by_time(const void *a, const void *b, void *times)
{
    const double *t = times;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return t[x] != t[y] ? (t[x] > t[y] ? 1 : -1) : (x > y) - (x < y);
}

/* Recorded on a coarse grid, arrivals are spread evenly at random inside their cell; others may be moved a little, so
 * that runs with different seeds differ. */
static void spread(struct world *w)
{
    uint32_t n = w->p->data->n, distinct = 1;
    for (uint32_t i = 1; i < n; i++)
        distinct += w->arrive_s[i] > w->arrive_s[i - 1];
    double cell = w->p->spread && distinct < GRID_SHARE * n ? GRID_S : w->p->jitter_s;
    for (uint32_t i = 0; i < n && cell > 0; i++)
        w->arrive_s[i] += rng_unit(&w->rng) * cell;
}

static void open_loop(struct world *w)
{
    const struct dataset *d = w->p->data;
    w->arrive_s = xmalloc(d->n * sizeof(double));
    w->order = xmalloc(d->n * sizeof(uint32_t));
    memcpy(w->arrive_s, d->at_s, d->n * sizeof(double));
    spread(w);
    for (uint32_t i = 0; i < d->n; i++)
        w->order[i] = i;
    qsort_r(w->order, d->n, sizeof(uint32_t), by_time, w->arrive_s);
    double first = w->arrive_s[w->order[0]], span = w->arrive_s[w->order[d->n - 1]] - first;
    double stretch = w->p->rate > 0 && span > 0 ? (d->n - 1) / span / w->p->rate : 1;
    for (uint32_t i = 0; i < d->n; i++)
        w->arrive_s[i] = (w->arrive_s[i] - first) * stretch;
    w->n_all = d->n;
    world_push(w, 0, AT_ARRIVE, w->order[0], 0, NULL);
}

static void shuffle(struct rng *r, uint32_t *order, uint32_t n) /* fills it with 0..n-1 */
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)rng_below(r, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

static void closed_loop(struct world *w)
{
    const struct dataset *d = w->p->data;
    w->order = xmalloc(d->n * sizeof(uint32_t));
    w->first_turn = xmalloc(d->n * sizeof(uint32_t));
    for (uint32_t i = 0; i < d->n; i++)
        if (d->v[i].turn == 0)
            w->first_turn[w->n_conversations++] = i;
    shuffle(&w->rng, w->order, w->n_conversations);
    w->n_all = d->n;
    for (uint32_t i = 0; i < w->p->users; i++)
        world_push(w, (uint64_t)(i * w->p->ramp_s / w->p->users * 1e6), AT_USER, 0, 0, NULL);
}

static void arrive(struct world *w, uint32_t index)
{
    if (!w->closed && ++w->next_arrival < w->p->data->n) {
        uint32_t next = w->order[w->next_arrival];
        world_push(w, (uint64_t)(w->arrive_s[next] * 1e6), AT_ARRIVE, next, 0, NULL);
    }
    struct live *l = world_begin(w, index);
    gateway_submit(&w->gateways[l->gateway], l);
}

static void next_conversation(struct world *w)
{
    if (w->next_conversation < w->n_conversations)
        arrive(w, w->first_turn[w->order[w->next_conversation++]]);
}

/* ---- the run ---- */

static void gauge(struct world *w)
{
    struct world_result *o = w->out;
    if (!(o->n_gauges & (o->n_gauges - 1)))
        o->gauges = xrealloc(o->gauges, MAX(2 * o->n_gauges, 64u) * sizeof(*o->gauges));
    struct world_gauge g = {0};
    struct engine_stats st;
    float n = 0;
    for (uint32_t k = 0; k < w->p->n_servers; k++) {
        if (!w->servers[k].up)
            continue;
        engine_published(w->servers[k].engine, w->now, &st);
        g.waiting += (float)st.waiting;
        g.running += (float)st.running;
        g.kv += (float)st.kv_usage_frac;
        g.max_waiting = MAX(g.max_waiting, (float)st.waiting);
        g.max_kv = MAX(g.max_kv, (float)st.kv_usage_frac);
        n++;
    }
    n = MAX(n, 1);
    g.waiting /= n;
    g.running /= n;
    g.kv /= n;
    for (uint32_t i = 0; i < w->p->n_gateways; i++)
        for (uint32_t k = 0; k < ROLES && w->gateways[i].s[k]; k++) {
            struct sched_stats ss;
            sched_stats(w->gateways[i].s[k], w->now, &ss);
            g.queued += (float)ss.queued;
        }
    o->gauges[o->n_gauges++] = g;
    if (o->n_gauges < WORLD_MAX_GAUGES)
        world_push(w, w->now + SECOND, AT_GAUGE, 0, 0, NULL);
}

static void join(struct world *w, uint32_t k)
{
    w->servers[k].joined = w->servers[k].up = true;
    for (uint32_t i = 0; i < w->p->n_gateways; i++)
        gateway_add_server(&w->gateways[i], k);
}

static void play_live(struct world *w, const struct event *e)
{
    struct live *l = e->p;
    struct gateway *g = &w->gateways[l->gateway];
    struct leg *leg = &l->leg[e->a];
    bool current = !l->over && e->b == l->tries;
    switch (e->kind) {
    case AT_HAND:
        if (current && leg->picked)
            server_hand(w, leg);
        break;
    case AT_FIRST_SEEN:
        if (current && leg->picked)
            gateway_first(g, leg);
        break;
    case AT_END_SEEN:
        if (current && leg->picked)
            gateway_done(g, leg);
        break;
    default:
        break;
    }
    live_release(w, l);
}

static void play(struct world *w, const struct event *e)
{
    switch (e->kind) {
    case AT_ENGINE:
        if (e->b == w->servers[e->a].version)
            server_step(w, e->a);
        break;
    case AT_SCRAPE:
        gateway_scrape(&w->gateways[e->a], (uint32_t)e->b);
        break;
    case AT_SCRAPED:
        gateway_scraped(&w->gateways[e->a], e->p);
        break;
    case AT_TICK:
        gateway_tick(&w->gateways[e->a]);
        break;
    case AT_GAUGE:
        gauge(w);
        break;
    case AT_CHANGE:
        server_change(w, &w->p->changes[e->a]);
        break;
    case AT_JOIN:
        join(w, e->a);
        break;
    case AT_ARRIVE:
        arrive(w, e->a);
        break;
    case AT_USER:
        next_conversation(w);
        break;
    case AT_SYNC:
        gateway_sync(&w->gateways[e->a], e->p);
        break;
    case AT_HAND:
    case AT_FIRST_SEEN:
    case AT_END_SEEN:
    case AT_OVER:
        play_live(w, e);
        break;
    }
}

static void names(struct world *w)
{
    if (!w->p->adapters)
        return;
    w->adapter_names = xmalloc((w->p->adapters + 1) * sizeof(uint64_t));
    w->models = xmalloc((w->p->adapters + 1) * sizeof(*w->models));
    for (uint32_t i = 0; i <= w->p->adapters; i++) {
        w->adapter_names[i] = hash_mix(0x10aa, i);
        w->models[i] = (struct sched_model){w->adapter_names[i], i > 0};
    }
}

/* Servers of the same time join in an order of the seed: no rule that prefers the first of equals has its favourite. */
static void join_all(struct world *w)
{
    uint32_t n = w->p->n_servers, *order = xmalloc(n * sizeof(*order));
    shuffle(&w->rng, order, n);
    for (uint32_t i = 0; i < n; i++)
        world_push(w, w->p->servers[order[i]].join_us, AT_JOIN, order[i], 0, NULL);
    free(order);
}

static void open_world(struct world *w)
{
    const struct world_params *p = w->p;
    names(w);
    w->servers = xcalloc(p->n_servers, sizeof(*w->servers));
    w->gateways = xcalloc(p->n_gateways, sizeof(*w->gateways));
    for (uint32_t i = 0; i < p->n_gateways; i++)
        gateway_open(w, i);
    for (uint32_t k = 0; k < p->n_servers; k++)
        server_open(w, k);
    join_all(w);
    for (uint32_t i = 0; i < p->n_changes; i++)
        world_push(w, p->changes[i].at_us, AT_CHANGE, i, 0, NULL);
    world_push(w, 0, AT_GAUGE, 0, 0, NULL);
    double sum = 0;
    for (uint32_t i = 0; i < p->data->n; i++)
        sum += p->data->v[i].output_tokens;
    w->ideal_mean_out = sum / MAX(p->data->n, 1u);
}

/* What is under way when time is over: taken out of the engines, then back from the pickers; first who waits, so that
 * nobody is given the room that the others leave. */
static void abandon(struct world *w)
{
    for (uint32_t k = 0; k < w->p->n_servers; k++) {
        struct server *s = &w->servers[k];
        while (!list_empty(&s->legs)) {
            struct leg *leg = CONTAINER_OF(s->legs.next, struct leg, here);
            list_remove(&leg->here);
            engine_cancel(s->engine, leg->seq);
        }
    }
    for (int picked = 0; picked < 2; picked++)
        for (struct live *l = w->all; l; l = l->next_all)
            for (uint32_t i = 0; i < ROLES && !l->over; i++)
                if (l->leg[i].picked == picked)
                    gateway_abandon(&w->gateways[l->gateway], &l->leg[i]);
}

/* Requests, tokens and seconds that somebody still counts. */
static double left_over(const struct world *w)
{
    double left = 0;
    struct engine_stats st;
    struct sched_stats ss;
    struct ep_view v;
    for (uint32_t k = 0; k < w->p->n_servers; k++) {
        engine_stats(w->servers[k].engine, true, &st);
        left += st.running + st.waiting + st.kv_usage_frac;
    }
    for (uint32_t i = 0; i < w->p->n_gateways; i++)
        for (uint32_t role = 0; role < ROLES && w->gateways[i].s[role]; role++) {
            const struct sched *s = w->gateways[i].s[role];
            sched_stats(s, w->now, &ss);
            left += (double)(ss.inflight + ss.queued + ss.queued_bytes);
            for (uint32_t k = 0; k < sched_ep_slots(s); k++)
                if (sched_ep_view(s, k, w->now, &v))
                    left += v.inflight + v.unanswered + fabs(v.pending_prefill_s) + fabs(v.context_tokens) +
                            fabs(v.decode_tokens);
        }
    return left;
}

static void close_world(struct world *w)
{
    const struct world_params *p = w->p;
    struct world_result *o = w->out;
    o->end_s = (double)w->now / 1e6;
    for (uint32_t k = 0; k < p->n_servers; k++) {
        struct engine_stats st;
        engine_stats(w->servers[k].engine, true, &st);
        o->busy[k] = w->now ? st.busy_us / (double)w->now : 0;
        o->prefill_tokens[k] = st.computed_tokens;
        o->preemptions += st.preemptions;
    }
    o->n_decisions = w->n_decisions;
    abandon(w);
    o->left = left_over(w);
    for (uint32_t i = 0; i < w->n_heap; i++)
        gateway_drop(w->heap[i].kind, w->heap[i].p);
    for (uint32_t i = 0; i < p->n_gateways; i++)
        gateway_close(&w->gateways[i]);
    for (uint32_t k = 0; k < p->n_servers; k++)
        server_close(&w->servers[k]);
    while (w->all) {
        struct live *l = w->all;
        w->all = l->next_all;
        live_free(l);
    }
    free(w->heap);
    free(w->servers);
    free(w->gateways);
    free(w->arrive_s);
    free(w->order);
    free(w->first_turn);
    free(w->forecasts);
    free(w->adapter_names);
    free(w->models);
}

static bool over(const struct world *w)
{
    return !w->n_heap || (w->p->stop_us && w->heap[0].at_us >= w->p->stop_us) || w->n_done == w->n_all;
}

void world_run(const struct world_params *p, struct world_result *out)
{
    struct world w = {.p = p, .out = out, .closed = p->users > 0};
    CHECK(p->n_servers && p->n_servers <= WORLD_MAX_SERVERS && p->n_gateways && p->n_gateways <= WORLD_MAX_GATEWAYS &&
          p->data->n);
    *out = (struct world_result){.n = p->data->n, .n_servers = p->n_servers, .pd = p->prefill_servers > 0};
    out->v = xcalloc(p->data->n, sizeof(*out->v));
    out->busy = xcalloc(p->n_servers, sizeof(*out->busy));
    out->prefill_tokens = xcalloc(p->n_servers, sizeof(*out->prefill_tokens));
    out->decisions = xcalloc(MAX(p->explain, 1u), sizeof(*out->decisions));
    for (uint32_t i = 0; i < out->n; i++)
        out->v[i] = (struct world_request){.at_s = -1, .sent_s = -1, .first_s = -1, .end_s = -1, .server = -1};
    rng_init(&w.rng, p->seed);
    open_world(&w);
    if (w.closed)
        closed_loop(&w);
    else
        open_loop(&w);
    while (!over(&w)) {
        struct event e = pop(&w);
        w.now = e.at_us;
        play(&w, &e);
    }
    if (w.n_done < w.n_all)
        w.now = MAX(w.now, p->stop_us);
    close_world(&w);
}

void world_result_free(struct world_result *r)
{
    free(r->v);
    free(r->decisions);
    free(r->gauges);
    free(r->busy);
    free(r->prefill_tokens);
    *r = (struct world_result){0};
}
