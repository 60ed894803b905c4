/* live.c - the gauges of pools and pods, read from the live state whenever the metrics are exposed. Control thread.
 *
 * What bears the same labels is shown as one: the ports of a pod, or pools of one name in several namespaces. Of a pool
 * that separates prefill and decode a request in flight counts once for the pool, and once for each role that has it.
 */
#include "proxy/impl.h"

#include <stdio.h>
#include <stdlib.h>

struct row {          /* what is shown under one set of labels */
    char *pool, *pod; /* pod NULL: the pool as a whole, or a role of it */
    const char *role; /* of a pool that is split; static. NULL: of all */
    uint64_t round;   /* when it was last seen */
    double inflight, demand, picks, speed, ejected, endpoints, ready, queued, queued_bytes, drain_per_s, saturation,
        index_bytes;
    double kv, waiting, running;
    unsigned n_kv, n_load;
    bool inference; /* a pool, no Service */
    bool newest_first;
    uint64_t ejections, counted;
};

struct live {
    struct gateway *g;
    struct metric_family *pool_kv, *pool_queue, *pool_running, *pool_ready, *pool_inflight, *pool_queued,
        *pool_queued_bytes, *pool_drain, *pool_newest, *pool_saturation, *pool_demand, *pool_index_bytes,
        *pool_endpoints;
    struct metric_family *role_ready, *role_inflight, *role_saturation, *role_demand;
    struct metric_family *pod_queue, *ep_inflight, *ep_ejected, *ep_picks, *ep_speed, *ejections;
    struct metric *index_size, *body_bytes;
    struct map rows; /* "pool", "pool\npod" or "pool\n\nrole" -> struct row */
    uint64_t round;
    double index_entries; /* of this round */
};

/* --- reading ------------------------------------------------------------------------------------------------- */

static struct str row_key(const struct row *r, char key[512])
{
    int n = r->role  ? snprintf(key, 512, "%s\n\n%s", r->pool, r->role)
            : r->pod ? snprintf(key, 512, "%s\n%s", r->pool, r->pod)
                     : snprintf(key, 512, "%s", r->pool);
    return (struct str){key, MIN((size_t)MAX(n, 0), (size_t)511)};
}

/* The row of these labels, empty when this round has not yet seen it. */
static struct row *row_of(struct live *lv, const char *pool, const char *pod, const char *role)
{
    char pool_copy[256], pod_copy[EP_NAME] = "", key[512];
    snprintf(pool_copy, sizeof pool_copy, "%s", pool);
    snprintf(pod_copy, sizeof pod_copy, "%s", pod ? pod : "");
    const struct row labels = {.pool = pool_copy, .pod = pod ? pod_copy : NULL, .role = role};
    struct str k = row_key(&labels, key);
    struct row *r = map_get(&lv->rows, k);
    if (r && r->round == lv->round)
        return r;
    if (!r) {
        r = xcalloc(1, sizeof *r);
        r->pool = str_dup(str_c(pool_copy));
        r->pod = pod ? str_dup(str_c(pod_copy)) : NULL;
        r->role = role;
        map_put(&lv->rows, k, r);
    }
    *r = (struct row){.pool = r->pool, .pod = r->pod, .role = r->role, .round = lv->round, .counted = r->counted};
    return r;
}

static void add_load(struct row *r, const struct ep_view *v)
{
    if (!v->load_valid)
        return;
    r->n_load++;
    r->waiting += v->load.waiting;
    r->running += v->load.running;
    if (v->load.has_kv) {
        r->kv += v->load.kv_frac;
        r->n_kv++;
    }
}

struct reading {
    struct live *lv;
    const char *pool;
};

static void read_endpoint(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    const struct reading *rd = ctx;
    struct row *r = row_of(rd->lv, rd->pool, e->name, NULL);
    r->inflight += v->inflight;
    r->picks += (double)v->picks;
    r->ejections += v->ejections;
    r->ejected = MAX(r->ejected, v->ejected ? 1.0 : 0.0);
    r->speed = MAX(r->speed, v->speed);
    add_load(r, v);
    add_load(row_of(rd->lv, rd->pool, NULL, NULL), v);
}

static void add_role(struct row *r, const struct sched_stats *st, uint64_t queued)
{
    r->inflight += (double)st->inflight;
    r->ready += st->n_ready;
    r->demand += (double)(st->inflight + queued);
    r->saturation = MAX(r->saturation, st->saturation);
}

/* decode: its queue holds those who wait for endpoints of both. r: of the pool. */
static void read_roles(struct live *lv, struct port *p, const struct sched_stats *decode, struct row *r)
{
    struct sched_stats prefill;
    port_stats(p, ROLE_PREFILL, &prefill);
    add_role(row_of(lv, port_name(p), NULL, "decode"), decode, decode->queued);
    add_role(row_of(lv, port_name(p), NULL, "prefill"), &prefill, decode->queued);
    r->endpoints += prefill.n_endpoints;
    r->ready += prefill.n_ready;
    r->demand += (double)prefill.inflight;
    r->saturation = MAX(r->saturation, prefill.saturation);
    r->index_bytes += (double)prefill.index_bytes;
    lv->index_entries += (double)prefill.index_entries;
}

static void read_port(void *ctx, struct port *p)
{
    struct live *lv = ctx;
    struct sched_stats st;
    struct reading rd = {lv, port_name(p)};
    struct row *r = row_of(lv, rd.pool, NULL, NULL);
    port_stats(p, ROLE_ANY, &st);
    r->inflight += (double)st.inflight;
    r->endpoints += st.n_endpoints;
    r->demand += port_is_pool(p) ? (double)(st.inflight + st.queued) : 0;
    r->inference |= port_is_pool(p);
    r->ready += port_is_pool(p) ? st.n_ready : 0;
    r->queued += (double)st.queued;
    r->queued_bytes += (double)st.queued_bytes;
    r->drain_per_s += st.drain_per_s;
    r->newest_first |= st.newest_first;
    r->saturation = MAX(r->saturation, st.saturation);
    r->index_bytes += port_is_pool(p) ? (double)st.index_bytes : 0;
    lv->index_entries += (double)st.index_entries;
    if (port_split(p))
        read_roles(lv, p, &st, r);
    port_views(p, read_endpoint, &rd);
}

/* --- showing ------------------------------------------------------------------------------------------------- */

static double mean(double sum, unsigned n)
{
    return n ? sum / n : 0;
}

static void show_pod(struct live *lv, struct row *r)
{
    const struct str labels[] = {str_c(r->pool), str_c(r->pod)};
    metric_set(metric_series(lv->ep_inflight, labels), r->inflight);
    metric_set(metric_series(lv->ep_ejected, labels), r->ejected);
    metric_set(metric_series(lv->ep_picks, labels), r->picks);
    metric_set(metric_series(lv->ep_speed, labels), r->speed);
    if (r->n_load)
        metric_set(metric_series(lv->pod_queue, labels), r->waiting);
    if (r->ejections > r->counted)
        metric_add(metric_series(lv->ejections, labels), lv->g->n_workers, (double)(r->ejections - r->counted));
    r->counted = r->ejections;
}

static void show_pool(struct live *lv, const struct row *r)
{
    const struct str name[] = {str_c(r->pool)};
    metric_set(metric_series(lv->pool_inflight, name), r->inflight);
    metric_set(metric_series(lv->pool_endpoints, name), r->endpoints);
    if (!r->inference)
        return;
    metric_set(metric_series(lv->pool_ready, name), r->ready);
    metric_set(metric_series(lv->pool_queued, name), r->queued);
    metric_set(metric_series(lv->pool_queued_bytes, name), r->queued_bytes);
    metric_set(metric_series(lv->pool_drain, name), r->drain_per_s);
    metric_set(metric_series(lv->pool_newest, name), r->newest_first);
    metric_set(metric_series(lv->pool_saturation, name), r->saturation);
    metric_set(metric_series(lv->pool_index_bytes, name), r->index_bytes);
    metric_set(metric_series(lv->pool_kv, name), mean(r->kv, r->n_kv));
    metric_set(metric_series(lv->pool_queue, name), mean(r->waiting, r->n_load));
    metric_set(metric_series(lv->pool_running, name), mean(r->running, r->n_load));
    metric_set(metric_series(lv->pool_demand, name), r->demand / MAX(r->ready, 1.0));
}

static void show_role(struct live *lv, const struct row *r)
{
    const struct str labels[] = {str_c(r->pool), str_c(r->role)};
    metric_set(metric_series(lv->role_ready, labels), r->ready);
    metric_set(metric_series(lv->role_inflight, labels), r->inflight);
    metric_set(metric_series(lv->role_saturation, labels), r->saturation);
    metric_set(metric_series(lv->role_demand, labels), r->demand / MAX(r->ready, 1.0));
}

static void row_free(struct row *r)
{
    free(r->pool);
    free(r->pod);
    free(r);
}

static void drop_all(struct metric_family *const *v, size_t n, const char *first, const char *second)
{
    const struct str labels[] = {str_c(first), str_c(second)};
    for (size_t i = 0; i < n; i++)
        metric_series_drop(v[i], labels);
}

static void hide(struct live *lv, struct row *r)
{
    struct metric_family *const of_pod[] = {lv->ep_inflight, lv->ep_ejected, lv->ep_picks,
                                            lv->ep_speed,    lv->pod_queue,  lv->ejections};
    struct metric_family *const of_pool[] = {
        lv->pool_kv,          lv->pool_queue,        lv->pool_running, lv->pool_ready,      lv->pool_inflight,
        lv->pool_queued,      lv->pool_queued_bytes, lv->pool_drain,   lv->pool_saturation, lv->pool_demand,
        lv->pool_index_bytes, lv->pool_endpoints,    lv->pool_newest};
    struct metric_family *const of_role[] = {lv->role_ready, lv->role_inflight, lv->role_saturation, lv->role_demand};
    if (r->role)
        drop_all(of_role, ARRAY_LEN(of_role), r->pool, r->role);
    else if (r->pod)
        drop_all(of_pod, ARRAY_LEN(of_pod), r->pool, r->pod);
    else
        drop_all(of_pool, ARRAY_LEN(of_pool), r->pool, "");
    char key[512];
    map_del(&lv->rows, row_key(r, key));
    row_free(r);
}

static void show_all(struct live *lv)
{
    struct row **gone = xcalloc(lv->rows.n + 1, sizeof(struct row *));
    size_t n_gone = 0;
    MAP_EACH (slot, &lv->rows) {
        struct row *r = slot->val;
        if (r->round != lv->round)
            gone[n_gone++] = r;
        else if (r->role)
            show_role(lv, r);
        else if (r->pod)
            show_pod(lv, r);
        else
            show_pool(lv, r);
    }
    for (size_t i = 0; i < n_gone; i++)
        hide(lv, gone[i]);
    free(gone);
}

static void collect(void *ctx)
{
    struct live *lv = ctx;
    lv->round++;
    lv->index_entries = 0;
    ports_each(lv->g->ports, read_port, lv);
    show_all(lv);
    metric_set(lv->index_size, lv->index_entries);
    metric_set(lv->body_bytes, (double)atomic_load(&lv->g->body_bytes));
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static struct metric_family *gauge(struct metrics *m, const char *name, const char *help, const char *const *labels)
{
    return metric_family(m, METRIC_GAUGE, name, help, labels, NULL, 0, 0);
}

static void pool_families(struct live *lv, struct metrics *m)
{
    static const char *const N[] = {"name", NULL}, *const S[] = {"inference_pool", NULL};
    lv->pool_kv = gauge(m, "inference_pool_average_kv_cache_utilization",
                        "Mean KV-cache use of the pool's endpoints, 0 to 1.", N);
    lv->pool_queue = gauge(m, "inference_pool_average_queue_size", "Mean waiting requests of the pool's endpoints.", N);
    lv->pool_running =
        gauge(m, "inference_pool_average_running_requests", "Mean running requests of the pool's endpoints.", N);
    lv->pool_ready = gauge(m, "inference_pool_ready_pods", "Ready endpoints.", N);
    lv->pool_inflight = gauge(m, "penstock_pool_inflight", "Requests of this gateway in flight at the pool.", N);
    lv->pool_queued = gauge(m, "penstock_pool_queued", "Requests that wait in the gateway.", N);
    lv->pool_queued_bytes =
        gauge(m, "penstock_pool_queued_bytes", "Prompt bytes of the requests that wait in the gateway.", N);
    lv->pool_drain =
        gauge(m, "penstock_pool_drain_per_second", "Requests that leave the queue for a server; 0: not known.", N);
    lv->pool_newest = gauge(m, "penstock_pool_newest_first",
                            "1: somebody waits too long, so the newest go first (queue-order: adaptive).", N);
    lv->pool_saturation = gauge(m, "inference_extension_flow_control_pool_saturation",
                                "How full the pool's endpoints are by the thresholds of saturation; 1: all full.", S);
    lv->pool_demand =
        gauge(m, "penstock_pool_demand", "Queued and running requests per ready endpoint, for autoscalers.", N);
    lv->pool_index_bytes = gauge(m, "penstock_prefix_index_bytes", "Memory of the prefix index.", N);
    lv->pool_endpoints = gauge(m, "penstock_pool_endpoints", "Endpoints, ready or not.", N);
}

static void role_families(struct live *lv, struct metrics *m)
{
    static const char *const R[] = {"name", "role", NULL};
    lv->role_ready =
        gauge(m, "penstock_role_ready", "Ready endpoints of a role, where prefill and decode are separated.", R);
    lv->role_inflight =
        gauge(m, "penstock_role_inflight", "Requests of this gateway in flight at the role's endpoints.", R);
    lv->role_saturation = gauge(m, "penstock_role_saturation",
                                "How full the role's endpoints are by the thresholds of saturation; 1: all full.", R);
    lv->role_demand =
        gauge(m, "penstock_role_demand",
              "Queued requests and those in flight at the role per ready endpoint of it, for autoscalers.", R);
}

static void pod_families(struct live *lv, struct metrics *m)
{
    static const char *const P[] = {"pool", "pod", NULL}, *const gie[] = {"name", "model_server_pod", NULL};
    lv->pod_queue = gauge(m, "inference_pool_per_pod_queue_size", "Waiting requests of an endpoint.", gie);
    lv->ep_inflight = gauge(m, "penstock_endpoint_inflight", "Requests of this gateway in flight at the endpoint.", P);
    lv->ep_ejected = gauge(m, "penstock_endpoint_ejected", "1 while the endpoint is ejected.", P);
    lv->ep_picks = gauge(m, "penstock_endpoint_picks", "Requests given to the endpoint so far.", P);
    lv->ep_speed = gauge(m, "penstock_endpoint_speed", "Learnt slowness relative to the pool's prior.", P);
    lv->ejections = metric_family(m, METRIC_COUNTER, "penstock_endpoint_ejections_total", "Ejections.", P, NULL, 0, 0);
}

struct live *live_new(struct gateway *g)
{
    static const char *const none[] = {NULL};
    struct metrics *m = g->metrics;
    struct live *lv = xcalloc(1, sizeof *lv);
    lv->g = g;
    map_init(&lv->rows, 4);
    pool_families(lv, m);
    role_families(lv, m);
    pod_families(lv, m);
    lv->body_bytes =
        metric_series(gauge(m, "penstock_body_bytes_held", "Memory of request bodies under way.", none), NULL);
    lv->index_size =
        metric_series(gauge(m, "inference_extension_prefix_indexer_size", "Entries of the prefix index.", none), NULL);
    metrics_collector(m, collect, lv);
    return lv;
}

void live_free(struct live *lv)
{
    MAP_EACH (slot, &lv->rows)
        row_free(slot->val);
    map_free(&lv->rows);
    free(lv);
}
