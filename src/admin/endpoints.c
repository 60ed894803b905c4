/* admin/endpoints.c - writes the pools and endpoints page: what the picker knows, endpoint by endpoint. */
#include "admin/endpoints.h"

#include "base/json.h"
#include "conf/conf.h"

/* null where the server's page did not tell. */
static void put_told(struct jsonw *w, const char *key, bool told, double v)
{
    jsonw_key(w, key);
    if (told)
        jsonw_f(w, v);
    else
        jsonw_null(w);
}

static void put_load(struct jsonw *w, const struct ep_view *v)
{
    const struct ep_load *l = &v->load;
    jsonw_obj(w);
    jsonw_key(w, "fresh"), jsonw_bool(w, v->load_valid);
    put_told(w, "waiting", l->has_waiting, l->waiting);
    put_told(w, "running", l->has_running, l->running);
    put_told(w, "kv_frac", l->has_kv, l->kv_frac);
    jsonw_key(w, "scraped_us"), jsonw_u64(w, l->done_us);
    jsonw_key(w, "lora_running"), jsonw_u64(w, l->n_running_lora);
    jsonw_key(w, "lora_slots"), jsonw_u64(w, l->max_lora);
    jsonw_obj_end(w);
}

static const char *state_name(const struct ep_view *v)
{
    if (v->draining)
        return "draining";
    if (v->ejected)
        return "ejected";
    if (!v->ready)
        return "not ready";
    return v->slow_start ? "slow start" : "ready";
}

static void put_endpoint(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    struct jsonw *w = ctx;
    jsonw_obj(w);
    jsonw_key(w, "pod"), jsonw_cstr(w, e->name);
    if (e->role != ROLE_ANY)
        jsonw_key(w, "role"), jsonw_cstr(w, conf_role_name(e->role));
    jsonw_key(w, "namespace"), jsonw_cstr(w, e->ns);
    jsonw_key(w, "address"), jsonw_cstr(w, e->address);
    jsonw_key(w, "state"), jsonw_cstr(w, state_name(v));
    jsonw_key(w, "full"), jsonw_bool(w, v->full);
    jsonw_key(w, "waiting"), jsonw_f(w, v->waiting);
    jsonw_key(w, "kv_use"), jsonw_f(w, v->kv_use);
    jsonw_key(w, "inflight"), jsonw_u64(w, v->inflight);
    jsonw_key(w, "unanswered"), jsonw_u64(w, v->unanswered);
    if (e->role != ROLE_ANY)
        jsonw_key(w, "coming"), jsonw_u64(w, v->coming);
    jsonw_key(w, "pending_prefill_s"), jsonw_f(w, v->pending_prefill_s);
    jsonw_key(w, "context_tokens"), jsonw_f(w, v->context_tokens);
    jsonw_key(w, "decode_tokens"), jsonw_f(w, v->decode_tokens);
    jsonw_key(w, "others_waiting"), jsonw_f(w, v->others_waiting);
    jsonw_key(w, "others_running"), jsonw_f(w, v->others_running);
    jsonw_key(w, "speed"), jsonw_f(w, v->speed);
    jsonw_key(w, "kv_tokens"), jsonw_u64(w, v->kv_tokens);
    jsonw_key(w, "index_blocks"), jsonw_u64(w, v->index_blocks);
    jsonw_key(w, "picks"), jsonw_u64(w, v->picks);
    jsonw_key(w, "failures"), jsonw_u64(w, v->failures);
    jsonw_key(w, "ejections"), jsonw_u64(w, v->ejections);
    jsonw_key(w, "load"), put_load(w, v);
    jsonw_obj_end(w);
}

static void put_queue(struct jsonw *w, struct port *p, const struct sched_stats *st)
{
    struct port_queue q;
    port_queue(p, &q);
    jsonw_key(w, "queueing"), jsonw_bool(w, q.on);
    jsonw_key(w, "queued"), jsonw_u64(w, st->queued);
    jsonw_key(w, "queued_bytes"), jsonw_u64(w, st->queued_bytes);
    jsonw_key(w, "queue_requests_max"), jsonw_u64(w, q.requests);
    jsonw_key(w, "queue_bytes_max"), jsonw_u64(w, q.bytes);
    jsonw_key(w, "queue_ttl_s"), jsonw_f(w, (double)q.ttl_us / 1e6);
    jsonw_key(w, "queue_dispatched"), jsonw_u64(w, st->dispatched);
    jsonw_key(w, "queue_drain_per_s"), jsonw_f(w, st->drain_per_s);
    jsonw_key(w, "queue_newest_first"), jsonw_bool(w, st->newest_first);
    jsonw_key(w, "rejects_queue_full"), jsonw_u64(w, st->rejects_full);
    jsonw_key(w, "rejects_queue_timeout"), jsonw_u64(w, st->rejects_timeout);
    jsonw_key(w, "rejects_queue_deadline"), jsonw_u64(w, st->rejects_deadline);
}

static void put_role(struct jsonw *w, enum conf_role role, const struct sched_stats *st)
{
    jsonw_obj(w);
    jsonw_key(w, "role"), jsonw_cstr(w, conf_role_name(role));
    jsonw_key(w, "endpoints_total"), jsonw_u64(w, st->n_endpoints);
    jsonw_key(w, "ready"), jsonw_u64(w, st->n_ready);
    jsonw_key(w, "room"), jsonw_u64(w, st->n_room);
    jsonw_key(w, "saturated"), jsonw_bool(w, st->saturated);
    jsonw_key(w, "saturation"), jsonw_f(w, st->saturation);
    jsonw_key(w, "picks"), jsonw_u64(w, st->picks);
    jsonw_key(w, "inflight"), jsonw_u64(w, st->inflight);
    jsonw_key(w, "index_entries"), jsonw_u64(w, st->index_entries);
    jsonw_key(w, "bytes_per_token"), jsonw_f(w, st->bytes_per_token);
    jsonw_obj_end(w);
}

/* Of a pool that is split, every request is in flight and picked for once at an endpoint that decodes. */
static void put_roles(struct jsonw *w, const struct sched_stats *decode, const struct sched_stats *prefill,
                      uint32_t n_without)
{
    jsonw_key(w, "roles"), jsonw_arr(w);
    put_role(w, ROLE_PREFILL, prefill);
    put_role(w, ROLE_DECODE, decode);
    jsonw_arr_end(w);
    jsonw_key(w, "pods_without_role"), jsonw_u64(w, n_without);
}

static uint32_t pods_without_role(const struct conf *c, const struct port *p)
{
    for (uint32_t i = 0; c && i < c->n_backends; i++)
        if (str_eq_c(c->backends[i].key, port_key(p)))
            return c->backends[i].pd ? c->backends[i].pd->n_without_role : 0;
    return 0;
}

struct page {
    struct jsonw w;
    const struct conf *conf;
};

static void put_port(void *ctx, struct port *p)
{
    struct page *page = ctx;
    struct jsonw *w = &page->w;
    struct sched_stats st, pre = {0};
    bool split = port_split(p);
    port_stats(p, ROLE_ANY, &st);
    if (split)
        port_stats(p, ROLE_PREFILL, &pre);
    jsonw_obj(w);
    jsonw_key(w, "key"), jsonw_cstr(w, port_key(p));
    jsonw_key(w, "kind"), jsonw_cstr(w, port_is_pool(p) ? "InferencePool" : "Service");
    jsonw_key(w, "namespace"), jsonw_cstr(w, port_ns(p));
    jsonw_key(w, "name"), jsonw_cstr(w, port_name(p));
    jsonw_key(w, "ready"), jsonw_u64(w, st.n_ready + pre.n_ready);
    jsonw_key(w, "room"), jsonw_u64(w, st.n_room + pre.n_room);
    jsonw_key(w, "saturated"), jsonw_bool(w, st.saturated || pre.saturated);
    jsonw_key(w, "saturation"), jsonw_f(w, MAX(st.saturation, pre.saturation));
    jsonw_key(w, "picks"), jsonw_u64(w, st.picks);
    jsonw_key(w, "rejects_shed"), jsonw_u64(w, st.rejects_shed);
    jsonw_key(w, "rejects_no_endpoint"), jsonw_u64(w, st.rejects_no_endpoint);
    jsonw_key(w, "inflight"), jsonw_u64(w, st.inflight);
    put_queue(w, p, &st);
    jsonw_key(w, "index_entries"), jsonw_u64(w, st.index_entries + pre.index_entries);
    jsonw_key(w, "index_memberships"), jsonw_u64(w, st.index_memberships + pre.index_memberships);
    jsonw_key(w, "index_bytes"), jsonw_u64(w, st.index_bytes + pre.index_bytes);
    jsonw_key(w, "index_evictions"), jsonw_u64(w, st.index_evictions + pre.index_evictions);
    jsonw_key(w, "bytes_per_token"), jsonw_f(w, st.bytes_per_token);
    if (split)
        put_roles(w, &st, &pre, pods_without_role(page->conf, p));
    jsonw_key(w, "endpoints"), jsonw_arr(w);
    port_views(p, put_endpoint, w);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}

void endpoints_json(struct ports *ps, const struct conf *c, struct buf *out)
{
    struct page page = {.conf = c};
    struct jsonw *w = &page.w;
    jsonw_init(w, out);
    jsonw_obj(w);
    jsonw_key(w, "pools"), jsonw_arr(w);
    ports_each(ps, put_port, &page);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}
