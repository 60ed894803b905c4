/* A simulated server of a world: its engine, what it publishes, and what befalls it. */
#include "replay/world_int.h"

#include <stdlib.h>

void server_open(struct world *w, uint32_t k)
{
    const struct world_params *p = w->p;
    struct server *s = &w->servers[k];
    s->profile = p->servers[k].profile;
    s->role = p->prefill_servers && k >= p->prefill_servers;
    s->next_us = UINT64_MAX;
    s->slow = p->scrape_us ? 1 + p->n_gateways * p->scrape_cost_s * 1e6 / (double)p->scrape_us : 1;
    s->cache = true;
    s->factor = 1;
    list_init(&s->legs);
    struct engine_params e = {.time = s->profile.time,
                              .block_size = p->block_tokens,
                              .n_blocks = (uint32_t)MAX(s->profile.kv_tokens / p->block_tokens, (uint64_t)1),
                              .max_num_seqs = s->profile.max_num_seqs,
                              .max_batched_tokens = s->profile.max_batched_tokens,
                              .max_loras = p->adapter_slots,
                              .max_cpu_loras = p->adapters,
                              .lora_load_s = 0.05,
                              .lora_read_s = 0.5,
                              .prefix_caching = true,
                              .quiet = true,
                              .exact_tail = true,
                              .seed = p->seed + k};
    s->engine = engine_new(&e);
    engine_set_slow(s->engine, s->slow);
    s->up = s->joined = p->servers[k].join_us == 0;
}

void server_close(struct server *s)
{
    engine_free(s->engine);
}

void server_awake(struct world *w, uint32_t k)
{
    struct server *s = &w->servers[k];
    uint64_t next = s->up ? engine_next(s->engine, w->now) : UINT64_MAX;
    if (next == s->next_us)
        return;
    s->next_us = next;
    s->version++;
    if (next != UINT64_MAX)
        world_push(w, next, AT_ENGINE, k, s->version, NULL);
}

static void on_token(void *ctx, const struct engine_event *ev)
{
    struct world *w = ctx;
    struct leg *leg = ev->user;
    struct live *l = leg->live;
    leg->cached = ev->cached_tokens;
    w->out->v[l->index].preempted = (uint16_t)MIN(ev->preempted, 65535u);
    uint64_t seen = ev->at_us + w->p->network_us;
    if (ev->index == 0) {
        l->pending++;
        world_push(w, seen, AT_FIRST_SEEN, leg->role, l->tries, l);
    }
    if (ev->finished) {
        leg->seq = NULL;
        list_remove(&leg->here);
        l->pending++;
        world_push(w, seen, AT_END_SEEN, leg->role, l->tries, l);
    }
}

/* The engine is brought to now before anything is done to it from outside. */
static void settle(struct world *w, struct server *s)
{
    engine_advance(s->engine, w->now, on_token, w);
}

void server_hand(struct world *w, struct leg *leg)
{
    struct server *s = &w->servers[leg->server];
    struct live *l = leg->live;
    if (!s->up) {
        gateway_failed(&w->gateways[l->gateway], leg, OUT_CONNECT_FAILED);
        return;
    }
    bool prefill_only = leg->role != world_decodes(w->p);
    settle(w, s);
    struct engine_req rq = {.n_tokens = l->input,
                            .ids = l->ids,
                            .n_ids = l->n_ids,
                            .given = leg->r.split ? l->input : 0,
                            .out_len = prefill_only ? 1 : l->output,
                            .lora = l->adapter,
                            .user = leg};
    leg->seq = engine_submit(s->engine, &rq, w->now);
    if (!leg->seq) { /* larger than the memory: the server refuses it */
        gateway_failed(&w->gateways[l->gateway], leg, OUT_OK);
        return;
    }
    list_push_back(&s->legs, &leg->here);
    server_awake(w, (uint32_t)leg->server);
}

void server_drop(struct world *w, struct leg *leg)
{
    if (!leg->seq)
        return;
    struct server *s = &w->servers[leg->server];
    settle(w, s);
    if (leg->seq) { /* else it has just ended */
        list_remove(&leg->here);
        engine_cancel(s->engine, leg->seq);
        leg->seq = NULL;
    }
    server_awake(w, (uint32_t)leg->server);
}

void server_step(struct world *w, uint32_t k)
{
    struct server *s = &w->servers[k];
    s->next_us = UINT64_MAX;
    settle(w, s);
    server_awake(w, k);
}

static void fail(struct world *w, uint32_t k)
{
    struct server *s = &w->servers[k];
    if (!s->up)
        return;
    settle(w, s);
    s->up = false;
    while (!list_empty(&s->legs)) {
        struct leg *leg = CONTAINER_OF(s->legs.next, struct leg, here);
        list_remove(&leg->here);
        engine_cancel(s->engine, leg->seq);
        leg->seq = NULL;
        gateway_failed(&w->gateways[leg->live->gateway], leg, OUT_RESET);
    }
    engine_reset_prefix_cache(s->engine);
    server_awake(w, k);
}

void server_change(struct world *w, const struct world_change *c)
{
    struct server *s = &w->servers[c->server];
    settle(w, s);
    switch (c->what) {
    case WORLD_SLOW:
        s->factor = c->factor;
        engine_set_slow(s->engine, s->slow * s->factor);
        break;
    case WORLD_FAIL:
        fail(w, c->server);
        return;
    case WORLD_RETURN:
        s->up = s->joined;
        break;
    case WORLD_NO_CACHE:
        s->cache = false;
        engine_set_prefix_caching(s->engine, false);
        break;
    case WORLD_CACHE:
        s->cache = true;
        engine_set_prefix_caching(s->engine, true);
        break;
    }
    server_awake(w, c->server);
}

static void load_adapters(struct world *w, const struct server *s, struct ep_load *out)
{
    out->max_lora = w->p->adapter_slots;
    for (uint32_t i = 1; i <= w->p->adapters; i++) {
        uint32_t running, waiting;
        engine_lora(s->engine, i, &running, &waiting);
        if (running && out->n_running_lora < ARRAY_LEN(out->running_lora))
            out->running_lora[out->n_running_lora++] = w->adapter_names[i];
        else if (waiting && out->n_waiting_lora < ARRAY_LEN(out->waiting_lora))
            out->waiting_lora[out->n_waiting_lora++] = w->adapter_names[i];
    }
}

void server_load(struct world *w, uint32_t k, struct ep_load *out)
{
    struct server *s = &w->servers[k];
    struct engine_stats st;
    engine_published(s->engine, w->now, &st);
    *out = (struct ep_load){.sent_us = w->now,
                            .done_us = w->now,
                            .has_waiting = true,
                            .has_running = true,
                            .has_kv = true,
                            .has_blocks = w->p->tell_capacity,
                            .waiting = st.waiting,
                            .running = st.running,
                            .kv_frac = st.kv_usage_frac,
                            .block_tokens = w->p->block_tokens};
    if (w->p->tell_capacity)
        out->kv_tokens = s->profile.kv_tokens;
    if (w->p->adapters)
        load_adapters(w, s, out);
}
