/* gateway.c - the data plane as a whole: starts workers, hands them snapshots, drains them. */
#include "proxy/impl.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define TELL_LEVEL_US 5000000 /* between two log lines about the level */

void gateway_opts_init(struct gateway_opts *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    *o = (struct gateway_opts){
        .workers = cores > 0 ? (unsigned)cores : 1,
        .time_scale = 1,
        .seed = 1,
        .bind = STR("0.0.0.0"),
        .max_head = H1_MAX_HEAD,
        .max_body = 64 << 20,
        .max_body_total = 1 << 30,
        .head_timeout_us = 10000000,
        .body_idle_us = 30000000,
        .idle_us = 75000000,
        .connect_timeout_us = 2000000,
        .client_stall_us = 300000000,
        .request_timeout_us = 3600000000,
        .drain_us = 30000000,
        .max_attempts = 4,
        .max_crashes = 2,
        .retry_budget = 0.2,
        .upstream_idle = 512,
        .upstream_idle_us = 4000000,
        .degrade_lag_us = 5000,
        .ports = {.time_scale = 1,
                  .seed = 1,
                  .scrape_interval_us = 1000000,
                  .scrape_timeout_us = 1000000,
                  .probe_ejected_us = 250000,
                  .decisions = 1000},
    };
}

static unsigned connection_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == RLIM_INFINITY)
        return 1000000;
    return r.rlim_cur > 512 ? (unsigned)MIN(r.rlim_cur / 4 * 3, 1000000) : 128; /* the rest: upstream connections */
}

struct gateway *gateway_start(const struct gateway_opts *o, struct metrics *m, struct errbuf *err)
{
    struct addr at;
    if (!addr_parse(o->bind, 0, &at)) {
        err_set(err, "The address to listen on, '" STR_FMT "', is not a numeric IP address.", STR_ARG(o->bind));
        return NULL;
    }
    struct gateway *g = xcalloc(1, sizeof *g);
    g->o = *o;
    g->o.workers = MAX(o->workers, 1u);
    if (!g->o.max_connections)
        g->o.max_connections = connection_limit();
    g->o.ports.time_scale = o->time_scale;
    g->o.ports.seed = o->seed;
    g->metrics = m;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->ports = ports_new(&g->o.ports);
    g->n_workers = g->o.workers;
    g->pm = proxy_metrics_new(g);
    g->flow = flow_families_new(m);
    g->workers = xcalloc(g->n_workers, sizeof *g->workers);
    g->strains = xcalloc(g->n_workers, sizeof *g->strains);
    for (unsigned i = 0; i < g->n_workers; i++)
        g->workers[i] = worker_start(g, i);
    return g;
}

/* A port that another program holds would be shared silently under SO_REUSEPORT. */
static int check_new_ports(struct gateway *g, struct plane *p, const struct plane *old, struct errbuf *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < p->n_ports; i++) {
        struct addr at;
        const struct plane_port *was = old ? plane_find_port(old, p->ports[i].port) : NULL;
        bool ours = was && !was->taken;
        if (ours || !addr_parse(g->o.bind, p->ports[i].port, &at) || !addr_in_use(&at))
            continue;
        p->ports[i].taken = true;
        rc = err_set(err, "Port %u of " STR_FMT " is already in use by another program.", p->ports[i].port,
                     STR_ARG(g->o.bind));
    }
    return rc;
}

int gateway_apply(struct gateway *g, struct conf *c, struct errbuf *err)
{
    ports_follow(g->ports, c);
    pthread_mutex_lock(&g->lock);
    struct plane *old = g->plane;
    pthread_mutex_unlock(&g->lock);
    struct plane *p = plane_build(g, c, old);
    int rc = check_new_ports(g, p, old, err);
    pthread_mutex_lock(&g->lock);
    g->plane = p;
    g->applied = 0;
    g->apply_failed = false;
    pthread_mutex_unlock(&g->lock);
    for (unsigned i = 0; i < g->n_workers; i++)
        worker_adopt(g->workers[i], plane_ref(p));
    pthread_mutex_lock(&g->lock);
    while (g->applied < g->n_workers)
        pthread_cond_wait(&g->changed, &g->lock);
    if (g->apply_failed && rc == 0)
        rc = err_set(err, "%s", g->apply_err.msg);
    g->opened = g->opened || rc == 0;
    pthread_mutex_unlock(&g->lock);
    ports_prune(g->ports, c); /* until here requests were still routed by the old plane */
    plane_unref(old);
    return rc;
}

void gateway_worker_applied(struct gateway *g, const struct errbuf *err)
{
    pthread_mutex_lock(&g->lock);
    g->applied++;
    if (err) {
        g->apply_failed = true;
        g->apply_err = *err;
    }
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

struct ports *gateway_ports(struct gateway *g)
{
    return g->ports;
}

struct conf *gateway_conf(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    struct conf *c = g->plane ? conf_ref(g->plane->conf) : NULL;
    pthread_mutex_unlock(&g->lock);
    return c;
}

bool gateway_ready(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    bool ready = g->opened && !g->draining;
    pthread_mutex_unlock(&g->lock);
    return ready && ports_ready(g->ports);
}

struct strain_view gateway_strain(struct gateway *g)
{
    struct strain_view v = {0};
    for (unsigned i = 0; i < g->n_workers; i++) {
        struct worker_strain *w = &g->strains[i];
        v.level = MAX(v.level, atomic_load_explicit(&w->level, memory_order_relaxed));
        v.busy_permille = MAX(v.busy_permille, atomic_load_explicit(&w->busy_permille, memory_order_relaxed));
        v.lag_us = MAX(v.lag_us, atomic_load_explicit(&w->lag_us, memory_order_relaxed));
    }
    return v;
}

/* Changes that come faster than the log takes them are told by the last of them. */
void gateway_tell_level(struct gateway *g)
{
    static const char *const what[] = {
        "the gateway keeps up again: prompts are hashed as the pools say",
        "the gateway is at the limit of its CPU: prompts are hashed less deep",
        "the gateway is at the limit of its CPU: endpoints are chosen by load alone",
    };
    unsigned level = gateway_strain(g).level;
    uint64_t now_us = clock_us(1);
    struct logline l;
    pthread_mutex_lock(&g->lock);
    bool tell = level != g->told_level && (!g->told_us || now_us >= g->told_us + TELL_LEVEL_US);
    if (tell) {
        g->told_level = level;
        g->told_us = now_us;
    }
    pthread_mutex_unlock(&g->lock);
    if (!tell || !log_begin(&l, LOG_WARN, "Degraded"))
        return;
    log_u64(&l, "level", level);
    log_cstr(&l, "text", what[level]);
    log_end(&l);
}

void gateway_drain(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    bool first = !g->draining;
    g->draining = true;
    pthread_mutex_unlock(&g->lock);
    for (unsigned i = 0; first && i < g->n_workers; i++)
        worker_drain(g->workers[i]);
}

bool gateway_drained(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    bool drained = g->drained == g->n_workers;
    pthread_mutex_unlock(&g->lock);
    return drained;
}

void gateway_worker_drained(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    g->drained++;
    struct mail *m = g->drained == g->n_workers ? g->drain_mail : NULL;
    if (m)
        g->drain_mail = NULL;
    struct loop *l = g->drain_loop;
    pthread_mutex_unlock(&g->lock);
    if (m)
        loop_post(l, m);
}

void gateway_on_drained(struct gateway *g, struct loop *l, struct mail *m)
{
    pthread_mutex_lock(&g->lock);
    bool already = g->drained == g->n_workers;
    g->drain_loop = l;
    g->drain_mail = already ? NULL : m;
    pthread_mutex_unlock(&g->lock);
    if (already)
        loop_post(l, m);
}

void gateway_free(struct gateway *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->n_workers; i++)
        worker_stop(g->workers[i]);
    for (unsigned i = 0; i < g->n_workers; i++)
        worker_free(g->workers[i]);
    plane_unref(g->plane);
    ports_free(g->ports);
    proxy_metrics_free(g->pm);
    free(g->flow);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g->workers);
    free(g->strains);
    free(g);
}
