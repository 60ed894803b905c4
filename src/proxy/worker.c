/* worker.c - a worker thread: its loop, listeners and clients, the adoption of snapshots, the drain. */
#include "proxy/impl.h"

#include "http/date.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define MAX_FREE_REQUESTS 64

struct wlistener {
    struct worker *w;
    struct list link;
    struct listener *ln;
    uint16_t port;
};

struct worker_mail { /* an order from the control thread */
    struct mail mail;
    struct worker *w;
    struct plane *plane;
};

uint64_t worker_now_us(const struct worker *w)
{
    return loop_now_us(w->loop);
}

const char *worker_date(struct worker *w)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    if ((uint64_t)ts.tv_sec != w->date_s) {
        w->date_s = (uint64_t)ts.tv_sec;
        http_date(w->date_s, w->date);
    }
    return w->date;
}

static void reap(struct worker *w)
{
    struct list *it;
    while ((it = list_pop_front(&w->dead_requests))) {
        struct request *rq = CONTAINER_OF(it, struct request, link);
        request_release(rq);
        if (w->n_free < MAX_FREE_REQUESTS) {
            w->n_free++;
            list_push_front(&w->free_requests, &rq->link);
        } else {
            arena_free(&rq->arena);
            free(rq);
        }
    }
    while ((it = list_pop_front(&w->dead_clients)))
        free(CONTAINER_OF(it, struct client, link));
}

void worker_leave(struct worker *w)
{
    if (w->depth == 1)
        reap(w);
    w->depth--;
    if (w->depth == 0 && w->draining)
        worker_check_drained(w);
}

/* --- listeners ----------------------------------------------------------------------------------------------- */

static void on_accept(struct listener *ln, struct conn *conn)
{
    struct wlistener *wl = listener_ctx(ln);
    struct worker *w = wl->w;
    if (atomic_load_explicit(&w->g->n_clients, memory_order_relaxed) >= w->g->o.max_connections) {
        metrics_rejected(w, "too_many_connections");
        conn_abort(conn);
        return;
    }
    worker_enter(w);
    client_accept(w, wl->port, conn);
    worker_leave(w);
}

static struct wlistener *find_wlistener(struct worker *w, uint16_t port)
{
    LIST_EACH (it, &w->listeners) {
        struct wlistener *wl = CONTAINER_OF(it, struct wlistener, link);
        if (wl->port == port)
            return wl;
    }
    return NULL;
}

static void close_wlistener(struct wlistener *wl)
{
    listener_close(wl->ln);
    list_remove(&wl->link);
    free(wl);
}

static int open_wlistener(struct worker *w, uint16_t port, struct errbuf *err)
{
    struct addr at;
    CHECK(addr_parse(w->g->o.bind, port, &at));
    struct wlistener *wl = xcalloc(1, sizeof *wl);
    wl->w = w;
    wl->port = port;
    wl->ln = listener_open(w->loop, &at, on_accept, wl, err);
    if (!wl->ln) {
        free(wl);
        return -1;
    }
    list_push_back(&w->listeners, &wl->link);
    return 0;
}

static int follow_listeners(struct worker *w, const struct plane *p, struct errbuf *err)
{
    LIST_EACH_SAFE (it, next, &w->listeners) {
        struct wlistener *wl = CONTAINER_OF(it, struct wlistener, link);
        if (!plane_find_port(p, wl->port))
            close_wlistener(wl);
    }
    int rc = 0;
    for (uint32_t i = 0; i < p->n_ports && !w->draining; i++)
        if (!p->ports[i].taken && !find_wlistener(w, p->ports[i].port))
            rc |= open_wlistener(w, p->ports[i].port, err);
    return rc;
}

/* Idle connections to a port that is gone have nothing to wait for. A request that has begun is still answered, and its
 * connection closed then; so is the first request of a new connection, which may be on its way when a drain begins. */
static void close_orphans(struct worker *w, bool all)
{
    LIST_EACH_SAFE (it, next, &w->clients) {
        struct client *c = CONTAINER_OF(it, struct client, link);
        if (!all && plane_find_port(w->world->plane, c->port))
            continue;
        if (!c->rq && (c->in.n || (all && !c->served))) {
            client_arm(c);
            continue;
        }
        c->close = true;
        if (!c->rq)
            client_request_done(c);
    }
}

/* --- orders -------------------------------------------------------------------------------------------------- */

static void run_adopt(struct mail *m)
{
    struct worker_mail *wm = CONTAINER_OF(m, struct worker_mail, mail);
    struct worker *w = wm->w;
    worker_enter(w);
    struct world *world = xcalloc(1, sizeof *world);
    world->refs = 1;
    world->plane = wm->plane;
    world_unref(w->world);
    w->world = world;
    struct errbuf err = {0};
    bool failed = follow_listeners(w, world->plane, &err) != 0;
    close_orphans(w, false);
    gateway_worker_applied(w->g, failed ? &err : NULL);
    free(wm);
    worker_leave(w);
}

static void post_order(struct worker *w, void (*run)(struct mail *m), struct plane *p)
{
    struct worker_mail *wm = xcalloc(1, sizeof *wm);
    wm->mail.run = run;
    wm->w = w;
    wm->plane = p;
    loop_post(w->loop, &wm->mail);
}

void worker_adopt(struct worker *w, struct plane *p)
{
    post_order(w, run_adopt, p);
}

void worker_check_drained(struct worker *w)
{
    if (!w->draining || w->drained || !list_empty(&w->clients))
        return;
    w->drained = true;
    timer_stop(w->loop, &w->drain_timer);
    gateway_worker_drained(w->g);
}

static void drain_over(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, drain_timer);
    worker_enter(w);
    LIST_EACH_SAFE (it, next, &w->clients) {
        struct client *c = CONTAINER_OF(it, struct client, link);
        if (c->rq && !c->rq->committed) {
            request_fail(c->rq, 503, "gateway_stopping",
                         "The gateway stops and cannot wait for the answer any longer.");
            client_close(c);
            continue;
        }
        if (c->rq)
            request_client_gone(c->rq);
        client_abort(c);
    }
    worker_leave(w);
}

static void run_drain(struct mail *m)
{
    struct worker_mail *wm = CONTAINER_OF(m, struct worker_mail, mail);
    struct worker *w = wm->w;
    free(wm);
    worker_enter(w);
    w->draining = true;
    close_orphans(w, true);
    LIST_EACH_SAFE (it, next, &w->listeners) { /* whoever waits to be accepted has perhaps sent a request already */
        struct wlistener *wl = CONTAINER_OF(it, struct wlistener, link);
        listener_accept_pending(wl->ln);
        close_wlistener(wl);
    }
    timer_set(w->loop, &w->drain_timer, worker_now_us(w) + w->g->o.drain_us);
    worker_leave(w);
}

void worker_drain(struct worker *w)
{
    post_order(w, run_drain, NULL);
}

/* --- strain -------------------------------------------------------------------------------------------------- */

static void look_at_strain(struct worker *w)
{
    struct loop_load ld;
    if (!loop_take_load(w->loop, STRAIN_WINDOW_S, &ld))
        return;
    double all_s = ld.busy_s + ld.idle_s, limit_s = (double)w->g->o.degrade_lag_us / 1e6;
    unsigned level = strain_step(&w->strain, limit_s, all_s, ld.busy_s / all_s, ld.lag_s);
    struct worker_strain *shown = &w->g->strains[w->index];
    atomic_store_explicit(&shown->level, level, memory_order_relaxed);
    atomic_store_explicit(&shown->busy_permille, (unsigned)(ld.busy_s / all_s * 1000), memory_order_relaxed);
    atomic_store_explicit(&shown->lag_us, (unsigned)MIN(ld.lag_s * 1e6, 4e9), memory_order_relaxed);
    gateway_tell_level(w->g);
}

/* --- waiting requests ---------------------------------------------------------------------------------------- */

static void sweep(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, sweep);
    struct list moved;
    worker_enter(w);
    list_move(&moved, &w->waiting);
    struct list *it;
    while ((it = list_pop_front(&moved))) {
        struct request *rq = CONTAINER_OF(it, struct request, link);
        list_push_back(&w->waiting, &rq->link);
        if (atomic_load_explicit(&rq->ep->epoch, memory_order_acquire) != rq->epoch)
            request_move_elsewhere(rq);
        else if (leg_live(rq) && atomic_load_explicit(&rq->pd->leg.ep->epoch, memory_order_acquire) != rq->pd->leg.epoch)
            leg_ejected(rq);
    }
    look_at_strain(w);
    body_trim(w, worker_now_us(w));
    timer_set(w->loop, &w->sweep, worker_now_us(w) + SWEEP_US);
    worker_leave(w);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
        return seed;
    struct timespec t; /* a kernel without random numbers: still another start than the last one's */
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec << 32 ^ (uint64_t)t.tv_nsec;
}

struct worker *worker_start(struct gateway *g, unsigned index)
{
    struct worker *w = xcalloc(1, sizeof *w);
    w->g = g;
    w->index = index;
    w->loop = loop_new(g->o.time_scale);
    rng_init(&w->rng, g->o.seed * 1000003 + index);
    uint64_t unlike = random_seed();
    rng_init(&w->ids, unlike);
    list_init(&w->listeners);
    list_init(&w->clients);
    list_init(&w->waiting);
    list_init(&w->dead_clients);
    list_init(&w->dead_requests);
    list_init(&w->free_requests);
    w->pool = conn_pool_new(w->loop, g->o.upstream_idle, g->o.upstream_idle_us);
    map_init(&w->models, unlike); /* clients name the models */
    map_init(&w->flows, unlike);
    map_init(&w->fairness_ids, unlike);
    buf_init(&w->scratch, g->o.max_body + 64);
    buf_init(&w->text, 4 * g->o.max_head + 65536);
    buf_init(&w->line, 65536);
    buf_init(&w->out, 1 << 20);
    w->sweep.fn = sweep;
    w->drain_timer.fn = drain_over;
    timer_set(w->loop, &w->sweep, worker_now_us(w) + SWEEP_US);
    CHECK(loop_start(w->loop, &w->thread) == 0);
    return w;
}

static void run_last_order(struct mail *m)
{
    struct worker_mail *wm = CONTAINER_OF(m, struct worker_mail, mail);
    loop_stop(wm->w->loop);
    free(wm);
}

/* Late answers to the requests that end here may be in the mail. Whatever was posted before the last order runs before
 * it. */
static void run_stop_order(struct mail *m)
{
    struct worker_mail *wm = CONTAINER_OF(m, struct worker_mail, mail);
    struct worker *w = wm->w;
    free(wm);
    worker_enter(w);
    w->draining = true;
    LIST_EACH_SAFE (it, next, &w->listeners)
        close_wlistener(CONTAINER_OF(it, struct wlistener, link));
    LIST_EACH_SAFE (it, next, &w->clients) {
        struct client *c = CONTAINER_OF(it, struct client, link);
        if (c->rq)
            request_client_gone(c->rq);
        client_abort(c);
    }
    worker_leave(w);
    post_order(w, run_last_order, NULL);
}

void worker_stop(struct worker *w)
{
    post_order(w, run_stop_order, NULL);
    pthread_join(w->thread, NULL);
}

void worker_free(struct worker *w)
{
    struct list *it;
    while ((it = list_pop_front(&w->free_requests))) {
        struct request *rq = CONTAINER_OF(it, struct request, link);
        arena_free(&rq->arena);
        free(rq);
    }
    world_unref(w->world);
    conn_pool_free(w->pool);
    metrics_free_models(w);
    map_free(&w->models);
    flow_series_free(w);
    body_cache_free(&w->bodies);
    buf_free(&w->scratch);
    buf_free(&w->text);
    buf_free(&w->line);
    buf_free(&w->out);
    loop_free(w->loop);
    free(w);
}
