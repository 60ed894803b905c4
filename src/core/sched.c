/* The facade of the picker: life cycle, requests, tick, views. */
#include "core/sched_int.h"
#include <stdlib.h>
#include <string.h>

#define PURGE_PER_TICK 20000 /* memberships: about a millisecond */

static struct sched_params checked(const struct sched_params *p)
{
    struct sched_params q = *p;
    q.step_tokens = MAX(q.step_tokens, 1u);
    q.bytes_per_token = q.bytes_per_token > 0 ? q.bytes_per_token : 4;
    q.mean_output = MAX(q.mean_output, 1u);
    q.affinity = q.affinity > 0 ? q.affinity : 1;
    q.kv_tokens = MAX(q.kv_tokens, 1u);
    return q;
}

struct sched *sched_new(const struct sched_params *p, uint64_t seed)
{
    struct sched *s = xcalloc(1, sizeof(*s));
    s->p = checked(p);
    s->seed = seed;
    rng_init(&s->rng, seed);
    s->index = prefix_index_new(rng_u64(&s->rng));
    s->sessions = sessions_new();
    s->queue = queue_new(rng_u64(&s->rng));
    list_init(&s->decided);
    s->bytes_per_token = s->p.bytes_per_token;
    s->mean_output = s->p.mean_output;
    s->mean_tokens = 500;
    s->mean_prefill_s = work_prefill_s(s, s->mean_tokens, s->mean_tokens);
    s->explore_slot = NO_SLOT;
    s->prefill_factor = s->step_factor = 1;
    baseline_switch(s);
    hold_params(s);
    flow_params(s, false);
    return s;
}

void sched_free(struct sched *s)
{
    if (!s)
        return;
    pair_part(s);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        free(s->eps[i].models);
        free(s->eps[i].lora);
        free(s->eps[i].waiting);
    }
    for (uint32_t i = 0; i < MODEL_COLUMNS; i++) {
        free(s->columns[i].penalty);
        free(s->columns[i].lora);
    }
    struct scan *c = &s->scan;
    float *v[] = {c->base, c->own_w, c->tok_s, c->kv_use, c->kv_inv, c->cost, c->full, c->answer, c->crowd, c->other};
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        free(v[i]);
    free(c->order);
    free(s->eps);
    prefix_index_free(s->index);
    sessions_free(s->sessions);
    free(s->hold);
    baseline_free(s);
    free(s->held.slots);
    free(s->held.len);
    queue_free(s->queue);
    free(s);
}

/* Hashes of another block size mean nothing: start over. Dying slots have nothing left to purge then. */
static void index_restart(struct sched *s)
{
    prefix_index_free(s->index);
    s->index = prefix_index_new(rng_u64(&s->rng));
    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->eps[i].dying = false;
        if (s->eps[i].used)
            prefix_index_open(s->index, i, index_cap(s, &s->eps[i]));
    }
}

void sched_set_params(struct sched *s, const struct sched_params *p, uint64_t now_us)
{
    bool restart = p->block_bytes != s->p.block_bytes, new_ttl = p->queue_ttl_us != s->p.queue_ttl_us ||
                                                                        p->conversation_hold_us != s->p.conversation_hold_us;
    bool new_policy = p->policy != s->p.policy;
    s->models_version++; /* the columns hold costs */
    s->p = checked(p);
    if (restart)
        index_restart(s);
    if (new_policy)
        baseline_switch(s);
    s->refresh_us = 0;
    ep_refresh_all(s, now_us);
    hold_params(s);
    flow_params(s, new_ttl);
    flow_run(s);
}

/* ---- index ---- */

uint64_t index_cap(const struct sched *s, const struct ep *e)
{
    double block = s->p.block_bytes ? (double)s->p.block_bytes : 1;
    double belief = s->p.policy == SCHED_PREFIX_CACHE ? e->cap_belief : 1;
    double answers = s->p.policy == SCHED_PREFIX_CACHE ? (e->own.out + e->remote.out) / 2
                                                       : 0; /* the memory that they take meanwhile */
    double kv = MAX(ep_kv_tokens(s, e) * belief - answers, 1) * s->bytes_per_token / block;
    if (s->p.policy == SCHED_CACHE_AWARE) /* its tree has a size of its own, whatever the server keeps */
        return s->p.lru_capacity;
    uint64_t n = (uint64_t)MIN(kv, 1e15);
    return s->p.lru_by_memory ? n : MIN(s->p.lru_capacity, n);
}

static struct prefix_chain chain_of(const struct sched_req *r)
{
    return (struct prefix_chain){r->hashes->h, r->n_chain, r->hashes->n_fine, r->d.stream_bytes};
}

void index_insert(struct sched *s, uint32_t slot, struct sched_req *r)
{
    bool whole = s->p.policy == SCHED_PREFIX_CACHE && r->hashes && r->hashes->whole;
    r->n_inserted = r->insert_stamp = 0;
    r->n_chain = policy_hashes(s, r->hashes);
    if (whole)
        sessions_put(s->sessions, r->hashes->ends[0], slot, s->eps[slot].gen);
    if (!r->n_chain) {
        if (whole)
            event_emit(s, EV_INSERT, slot, r);
        return;
    }
    struct prefix_chain c = chain_of(r);
    r->n_inserted = prefix_index_insert(s->index, slot, &c, index_time(s), &r->insert_stamp);
    event_emit(s, EV_INSERT, slot, r);
}

void index_rollback(struct sched *s, uint32_t slot, struct sched_req *r)
{
    if (!r->n_inserted || !r->hashes)
        return;
    struct prefix_chain c = chain_of(r);
    r->n_kept = prefix_index_rollback(s->index, slot, &c, r->n_inserted, r->insert_stamp);
    event_emit(s, EV_ROLLBACK, slot, r);
    r->n_inserted = 0;
}

/* ---- requests ---- */

enum sched_answer sched_submit(struct sched *s, struct sched_req *r, uint64_t now_us)
{
    ep_refresh_all(s, now_us);
    list_init(&r->link);
    list_init(&r->late);
    r->state = REQ_IDLE;
    r->d = (struct sched_decision){0};
    r->n_inserted = 0;
    r->split = false;
    pair_fill(r);
    if (pair_of(s, r)) {
        pair_clock(s);
        ep_refresh_all(s->peer, s->now_us);
    }
    if (!r->q.seq) { /* a retry keeps its place, also when queueing was off at first */
        r->q.seq = ++s->n_arrivals;
        hold_arrived(s, r);
    }
    return s->p.queueing && !r->light ? flow_submit(s, r) : pick_run(s, r);
}

struct sched_req *sched_next_decided(struct sched *s)
{
    struct list *it = list_pop_front(&s->decided);
    return it ? CONTAINER_OF(it, struct sched_req, late) : NULL;
}

void sched_cancel(struct sched *s, struct sched_req *r, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    flow_cancel(s, r);
    flow_run(s);
}

void sched_first_token(struct sched *s, struct sched_req *r, uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    sched_prefilled(s, r, s->now_us); /* a token says so, too */
    if (r->first_us || (r->state != REQ_PENDING && r->state != REQ_DECODING))
        return;
    r->first_us = MAX(s->now_us, 1u);
    r->n_inserted = 0; /* computed: the endpoint has it now */
    list_remove(&r->link);
    ledger_answered(s, r);
    struct ep *e = ep_of(s, r->d.ep);
    if (!e)
        return;
    e->own.unanswered--;
    cost_update(s, r->d.ep.slot); /* one less that may be waiting */
    sched_ep_alive(s, r->d.ep, s->now_us);
    learn_first(s, r->d.ep.slot, r);
    flow_run(s);
}

void sched_finish(struct sched *s, struct sched_req *r, enum sched_outcome how, const struct sched_usage *u,
                  uint64_t now_us)
{
    s->now_us = MAX(s->now_us, now_us);
    CHECK(r->state == REQ_COMING || r->state == REQ_PENDING || r->state == REQ_DECODING);
    struct ep *e = ep_of(s, r->d.ep);
    if (e && how == OUT_OK && u) {
        learn_finish(s, r->d.ep.slot, r, u);
        if (r->insert_stamp && s->p.policy == SCHED_PREFIX_CACHE && !r->split) /* what came counts as cached, too */
            learn_cache(s, r->d.ep.slot, r, u);
    }
    if (e && how == OUT_OK && r->first_us && r->n_chain && s->p.policy == SCHED_PREFIX_CACHE && e->cache_misses < CACHELESS) {
        struct prefix_chain c = chain_of(r); /* its blocks were in use until now, whatever was sent there meanwhile */
        prefix_index_touch(s->index, r->d.ep.slot, &c, index_time(s));
        event_emit(s, EV_TOUCH, r->d.ep.slot, r);
        hold_finished(s, r);
    }
    if (e && how != OUT_OK)
        index_rollback(s, r->d.ep.slot, r); /* nothing left to take back once the first token was seen */
    if (e)
        event_emit(s, EV_RELEASE, r->d.ep.slot, r);
    flow_settle(s, r, how, u);
    baseline_done(s, r);
    ledger_release(s, r);
    s->room_gained |= r->model != 0; /* adapter slots may have become free where room was before */
    if (!e) {
        flow_run(s);
        return;
    }
    if (how == OUT_MODEL_MISSING)
        model_missing(s, r->d.ep.slot, r->model);
    health_request(s, r->d.ep.slot, r, how);
    flow_run(s);
}

uint64_t sched_tick(struct sched *s, uint64_t now_us)
{
    ep_refresh_all(s, now_us);
    bool clean = prefix_index_work(s->index, PURGE_PER_TICK);
    ep_reap(s);
    uint64_t wake_us = flow_tick(s), again_us = clean ? s->refresh_us : s->now_us + 10000;
    return MIN(wake_us, again_us);
}

/* ---- views ---- */

uint32_t sched_ep_slots(const struct sched *s)
{
    return s->n_slots;
}

bool sched_ep_view(const struct sched *s, uint32_t slot, uint64_t now_us, struct ep_view *out)
{
    if (slot >= s->n_slots || !s->eps[slot].used)
        return false;
    const struct ep *e = &s->eps[slot];
    *out = (struct ep_view){
        .ep = ep_ref_of(s, slot),
        .user = e->user,
        .ready = e->ready,
        .ejected = e->ejected,
        .draining = e->draining,
        .full = ep_saturated(s, e),
        .waiting = ep_waiting(s, e),
        .kv_use = ep_kv_use(s, e),
        .slow_start = e->ready && !e->ejected && e->settled_us > now_us,
        .inflight = e->own.inflight,
        .unanswered = e->own.unanswered,
        .coming = e->own.coming,
        .pending_prefill_s = e->own.pending_s,
        .context_tokens = e->own.context,
        .decode_tokens = e->own.out,
        .others_waiting = MAX(e->others_waiting * e->decay, (double)e->remote.unanswered),
        .others_running = MAX(e->others_running * e->decay, (double)e->remote.decoding),
        .load = e->load,
        .load_valid = e->has_load && now_us <= e->load.done_us + s->p.stale_us,
        .speed = MAX(e->speed, e->late),
        .kv_tokens = (uint64_t)ep_kv_tokens(s, e),
        .index_blocks = prefix_index_blocks(s->index, slot),
        .picks = e->picks,
        .failures = e->failures,
        .ejections = e->ejections,
        .ejected_until_us = e->ejected ? e->until_us : 0,
    };
    return true;
}

static void saturation(const struct sched *s, struct sched_stats *out)
{
    double sum = 0;
    out->saturated = true;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const struct ep *e = &s->eps[i];
        if (!ep_usable(e))
            continue;
        out->n_ready++;
        out->saturated = out->saturated && ep_saturated(s, e);
        double use = MAX(ep_waiting(s, e) / (double)s->p.queue_threshold, ep_kv_use(s, e) / s->p.kv_threshold);
        sum += MIN(use, 1);
    }
    out->saturated = out->saturated && out->n_ready;
    out->saturation = out->n_ready ? sum / out->n_ready : 1;
}

void sched_stats(const struct sched *s, uint64_t now_us, struct sched_stats *out)
{
    (void)now_us;
    struct prefix_index_stats ix;
    prefix_index_stats(s->index, &ix);
    *out = (struct sched_stats){
        .picks = s->n_picks,
        .rejects_shed = s->rejects[REJECT_SHED],
        .rejects_no_endpoint = s->rejects[REJECT_NO_ENDPOINT],
        .rejects_full = s->rejects[REJECT_QUEUE_FULL],
        .rejects_timeout = s->rejects[REJECT_QUEUE_TIMEOUT],
        .rejects_deadline = s->rejects[REJECT_DEADLINE],
        .dispatched = s->n_dispatched,
        .newest_first = s->newest_first,
        .drain_per_s = flow_drain_rate(s),
        .inflight = s->inflight,
        .queued = queue_n(s->queue),
        .queued_bytes = queue_bytes(s->queue),
        .n_room = s->n_room,
        .index_entries = ix.entries,
        .index_memberships = ix.memberships,
        .index_bytes = ix.bytes,
        .index_evictions = ix.evictions,
        .bytes_per_token = s->bytes_per_token,
        .n_endpoints = s->n_used,
    };
    saturation(s, out);
}
