/* A gateway of a world: the calls of the real shell (sched/port.c, proxy) to the picker, in virtual time. */
#include "replay/world_int.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

struct scrape { /* read, on its way */
    uint32_t server;
    struct ep_load load;
};
struct message { /* of the event stream, on its way to another gateway */
    struct sched_event ev;
    struct prefix_hashes hashes;
    uint32_t role, server;
    uint64_t h[];
};

static void *user_of(uint32_t server)
{
    return (void *)(uintptr_t)(server + 1u);
}

static uint32_t server_of(const void *user)
{
    return (uint32_t)(uintptr_t)user - 1;
}

static struct sched *picker(struct gateway *g, uint32_t server)
{
    return g->s[g->w->servers[server].role];
}

/* ---- event stream ---- */

static void on_event(struct gateway *g, uint32_t role, const struct sched_event *ev)
{
    struct world *w = g->w;
    for (uint32_t i = 0; i < w->p->n_gateways; i++) {
        if (i == g->id)
            continue;
        uint32_t n = ev->hashes ? ev->hashes->n : 0;
        struct message *m = xmalloc(sizeof(*m) + n * sizeof(m->h[0]));
        *m = (struct message){.ev = *ev, .role = role, .server = server_of(ev->user)};
        if (ev->hashes) {
            m->hashes = *ev->hashes;
            if (n)
                memcpy(m->h, ev->hashes->h, n * sizeof(m->h[0]));
            m->hashes.h = m->h;
            m->ev.hashes = &m->hashes;
        }
        world_push(w, w->now + w->p->sync_us, AT_SYNC, i, 0, m);
    }
}

static void on_event_0(void *ctx, const struct sched_event *ev)
{
    on_event(ctx, 0, ev);
}

static void on_event_1(void *ctx, const struct sched_event *ev)
{
    on_event(ctx, 1, ev);
}

void gateway_sync(struct gateway *g, void *message)
{
    struct message *m = message;
    sched_apply(g->s[m->role], &m->ev, g->ep[m->server], g->w->now);
    free(m);
}

/* ---- life ---- */

void gateway_open(struct world *w, uint32_t id)
{
    const struct world_params *p = w->p;
    struct gateway *g = &w->gateways[id];
    g->w = w;
    g->id = id;
    g->tick_us = UINT64_MAX;
    g->ep = xcalloc(p->n_servers, sizeof(*g->ep));
    struct sched_params sp = p->sched;
    sp.policy = p->policy->core;
    sp.block_bytes = (uint32_t)(p->block_tokens * PROMPT_BYTES_PER_TOKEN);
    sp.max_blocks = PREFIX_MAX;
    sp.deep = false;
    for (uint32_t i = 0; i < (p->prefill_servers ? ROLES : 1u); i++) {
        g->s[i] = sched_new(&sp, hash_mix(p->seed, id * 2 + i));
        if (p->n_gateways > 1 && p->sync)
            sched_on_event(g->s[i], i ? on_event_1 : on_event_0, g);
    }
    if (p->prefill_servers)
        sched_join(g->s[1], g->s[0], w->now);
}

void gateway_close(struct gateway *g)
{
    for (uint32_t i = 0; i < ROLES; i++)
        sched_free(g->s[i]);
    free(g->ep);
}

void gateway_drop(enum event_kind kind, void *p)
{
    if (kind == AT_SYNC || kind == AT_SCRAPED)
        free(p);
}

static void collect(struct gateway *g);

static void tick_later(struct gateway *g, uint64_t at_us)
{
    if (at_us >= g->tick_us)
        return;
    g->tick_us = at_us;
    world_push(g->w, at_us, AT_TICK, g->id, 0, NULL);
}

void gateway_tick(struct gateway *g)
{
    struct world *w = g->w;
    if (w->now < g->tick_us)
        return; /* another came first */
    g->tick_us = UINT64_MAX;
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < ROLES && g->s[i]; i++) {
        uint64_t at = sched_tick(g->s[i], w->now);
        next = MIN(next, at);
    }
    collect(g);
    tick_later(g, MAX(next, w->now + 1000));
}

void gateway_add_server(struct gateway *g, uint32_t server)
{
    struct world *w = g->w;
    struct sched *s = picker(g, server);
    g->ep[server] = sched_ep_add(s, user_of(server), false, w->now);
    if (w->p->adapters)
        sched_ep_models(s, g->ep[server], w->models, w->p->adapters + 1, w->now);
    collect(g);
    if (w->p->scrape_us)
        world_push(w, w->now + rng_below(&w->rng, w->p->scrape_us), AT_SCRAPE, g->id, server, NULL);
    tick_later(g, w->now + 1000);
}

/* ---- requests ---- */

static void keep_decision(struct gateway *g, const struct leg *leg)
{
    struct world *w = g->w;
    struct world_decision *d = &w->out->decisions[w->n_decisions++];
    *d = (struct world_decision){.at_s = (double)w->now / 1e6,
                                 .request = leg->live->index,
                                 .d = leg->r.d,
                                 .x = *leg->r.explain,
                                 .n = leg->r.explain->n};
    for (uint32_t i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < w->p->n_servers; k++)
            if (w->servers[k].role == leg->role && g->ep[k].gen == d->x.cost[i].ep.gen &&
                g->ep[k].slot == d->x.cost[i].ep.slot)
                d->server[i] = k;
}

/* To its server, the transfer of its KV first. */
static void send(struct gateway *g, struct leg *leg, uint64_t transfer_us)
{
    struct world *w = g->w;
    struct live *l = leg->live;
    uint64_t us = transfer_us + w->p->network_us;
    if (!us) {
        server_hand(w, leg);
        return;
    }
    l->pending++;
    world_push(w, w->now + us, AT_HAND, leg->role, l->tries, l);
}

static void note_server(struct world *w, struct leg *leg)
{
    leg->picked = true;
    leg->server = (int32_t)server_of(leg->r.d.user);
    w->out->picks++;
}

static void hand_over(struct gateway *g, struct leg *leg)
{
    struct world *w = g->w;
    struct live *l = leg->live;
    struct world_request *v = &w->out->v[l->index];
    note_server(w, leg);
    v->server = leg->server;
    v->reason = (uint8_t)leg->r.d.reason;
    v->split = leg->r.split;
    v->sent_s = (double)w->now / 1e6;
    if (leg->r.explain && w->n_decisions < w->p->explain)
        keep_decision(g, leg);
    if (leg->r.split) { /* its own server comes when the prompt is computed */
        leg = &l->leg[0];
        note_server(w, leg);
    }
    send(g, leg, 0);
}

static void decided(struct gateway *g, struct leg *leg)
{
    if (leg->r.d.reject == REJECT_NONE) {
        hand_over(g, leg);
        return;
    }
    g->w->out->v[leg->live->index].reject = (uint8_t)leg->r.d.reject;
    world_end(g->w, leg->live, leg->live->tries > 1 ? WORLD_FAILED : WORLD_REFUSED);
}

static void collect(struct gateway *g)
{
    struct sched_req *r;
    while ((r = sched_next_decided(g->s[world_decodes(g->w->p)])))
        decided(g, CONTAINER_OF(r, struct leg, r));
}

/* What the servers hold of the prompt, by slot of the picker. */
static void know_exactly(struct gateway *g, struct leg *leg)
{
    struct world *w = g->w;
    struct live *l = leg->live;
    uint32_t n = sched_ep_slots(g->s[leg->role]), *held;
    held = l->held[leg->role] = xrealloc(l->held[leg->role], MAX(n, 1u) * sizeof(*held));
    memset(held, 0, n * sizeof(*held));
    for (uint32_t k = 0; k < w->p->n_servers; k++)
        if (w->servers[k].role == leg->role && g->ep[k].gen && w->servers[k].cache)
            held[g->ep[k].slot] = engine_held(w->servers[k].engine, l->ids, l->n_ids, l->input);
    leg->r.held = held;
    leg->r.n_held = n;
}

static bool sampled(const struct world *w, uint32_t index) /* evenly over the requests */
{
    uint64_t n = w->p->explain, all = w->p->data->n;
    return n && index * n / all != (index + 1) * n / all;
}

static void look_up(struct gateway *g, struct leg *leg)
{
    struct world *w = g->w;
    leg->r.hashes = &leg->live->hashes;
    leg->first_seen = leg->picked = false;
    if (w->p->policy->exact)
        know_exactly(g, leg);
    if (w->p->policy->oracle)
        leg->r.pinned = g->ep[oracle_pick(w, leg->live, leg->role)];
}

void gateway_submit(struct gateway *g, struct live *l)
{
    struct world *w = g->w;
    uint32_t role = world_decodes(w->p);
    struct leg *leg = &l->leg[role];
    struct sched_req *r = &leg->r;
    l->tries++;
    r->id = l->index;
    r->prompt_bytes = (uint64_t)(l->input * PROMPT_BYTES_PER_TOKEN);
    r->n_outputs = 1;
    r->streamed = true;
    r->max_tokens = w->p->tell_limits ? l->output : 0;
    r->flow = 1;
    r->model = w->p->adapters ? w->adapter_names[l->adapter] : 0;
    r->explain = sampled(w, l->index) ? l->explain : NULL;
    look_up(g, leg);
    if (role) {
        look_up(g, &l->leg[0]);
        r->leg = &l->leg[0].r;
        r->must_split = w->p->pd_both || w->p->pd_always;
    }
    if (sched_submit(g->s[role], r, w->now) != SCHED_QUEUED)
        decided(g, leg);
    collect(g);
}

void gateway_first(struct gateway *g, struct leg *leg)
{
    leg->first_seen = true;
    sched_first_token(g->s[leg->role], &leg->r, g->w->now);
    if (leg->role == world_decodes(g->w->p))
        world_first(g->w, leg->live);
    collect(g);
}

static void finish(struct gateway *g, struct leg *leg, enum sched_outcome how, const struct sched_usage *u)
{
    leg->picked = false;
    sched_finish(g->s[leg->role], &leg->r, how, u, g->w->now);
}

/* Its prompt is computed: on to the server that decodes. */
static void prefilled(struct gateway *g, struct live *l)
{
    struct world *w = g->w;
    const struct server *to = &w->servers[l->leg[1].server];
    uint64_t held =
        to->cache && to->up ? engine_held(to->engine, l->ids, l->n_ids, l->input) * (uint64_t)w->p->block_tokens : 0;
    double tokens = (double)l->input - (double)held;
    double s = w->p->kv_base_s + (w->p->kv_bandwidth > 0 ? tokens * w->p->kv_bytes_token / w->p->kv_bandwidth : 0);
    sched_prefilled(g->s[1], &l->leg[1].r, w->now);
    send(g, &l->leg[1], (uint64_t)(s * 1e6));
}

void gateway_done(struct gateway *g, struct leg *leg)
{
    struct world *w = g->w;
    struct live *l = leg->live;
    bool prefill_only = leg->role != world_decodes(w->p);
    struct sched_usage u = {.prompt_tokens = l->input,
                            .completion_tokens = prefill_only ? 1 : l->output,
                            .cached_tokens = leg->r.split ? l->input : leg->cached,
                            .has_cached = w->p->tell_cached};
    if (!leg->r.split)
        w->out->v[l->index].cached = leg->cached;
    finish(g, leg, OUT_OK, &u);
    if (prefill_only)
        prefilled(g, l);
    else
        world_end(w, l, WORLD_OK);
    collect(g);
}

/* Of the two parts the one that has not failed. */
static void give_up_other(struct gateway *g, const struct leg *failed)
{
    struct leg *other = &failed->live->leg[1 - failed->role];
    if (!other->picked)
        return;
    server_drop(g->w, other);
    finish(g, other, OUT_CANCELLED, NULL);
}

void gateway_failed(struct gateway *g, struct leg *leg, enum sched_outcome how)
{
    struct world *w = g->w;
    struct live *l = leg->live;
    struct leg *answers = &l->leg[world_decodes(w->p)];
    bool too_large = how == OUT_OK, again = !too_large && !answers->first_seen && l->tries < MAX_TRIES;
    finish(g, leg, too_large ? OUT_CANCELLED : how, NULL);
    if (leg->r.n_tried < SCHED_MAX_TRIED)
        leg->r.tried[leg->r.n_tried++] = leg->r.d.ep;
    if (leg != answers && !w->p->pd_both && !too_large && answers->picked) {
        sched_prefill_here(g->s[1], &answers->r, w->now);
        w->out->v[l->index].split = false;
        send(g, answers, 0);
    } else {
        give_up_other(g, leg);
        if (again)
            gateway_submit(g, l);
        else
            world_end(w, l, WORLD_FAILED);
    }
    collect(g);
}

void gateway_abandon(struct gateway *g, struct leg *leg)
{
    struct sched *s = g->s[leg->role];
    leg->seq = NULL;
    if (leg->picked)
        sched_finish(s, &leg->r, OUT_CANCELLED, NULL, g->w->now);
    else if (s)
        sched_cancel(s, &leg->r, g->w->now);
    leg->picked = false;
}

/* ---- scrapes ---- */

static void take_load(struct gateway *g, uint32_t server, const struct ep_load *load)
{
    struct sched *s = picker(g, server);
    sched_ep_probe(s, g->ep[server], true, load->sent_us, g->w->now);
    sched_ep_load(s, g->ep[server], load, g->w->now);
    collect(g);
}

void gateway_scrape(struct gateway *g, uint32_t server)
{
    struct world *w = g->w;
    world_push(w, w->now + w->p->scrape_us, AT_SCRAPE, g->id, server, NULL);
    if (!w->servers[server].up) {
        sched_ep_probe(picker(g, server), g->ep[server], false, w->now, w->now);
        collect(g);
        return;
    }
    struct scrape one = {.server = server};
    server_load(w, server, &one.load);
    if (!w->p->scrape_late_us) {
        take_load(g, server, &one.load);
        return;
    }
    struct scrape *late = xmalloc(sizeof(*late));
    *late = one;
    world_push(w, w->now + w->p->scrape_late_us, AT_SCRAPED, g->id, 0, late);
}

void gateway_scraped(struct gateway *g, void *scrape)
{
    struct scrape *late = scrape;
    late->load.done_us = g->w->now;
    take_load(g, late->server, &late->load);
    free(late);
}
