/* Ports against small servers on loopback: first probe, models, picks, endpoints that stay across snapshots, death and
 * return. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "net/httpd.h"
#include "sched/port.h"
#include <pthread.h>

#define N_SERVERS 3

struct server {
    struct loop *loop;
    pthread_t thread;
    struct httpd *httpd;
    uint16_t port;
    const char *model;
    atomic_bool silent; /* answers nothing */
    atomic_uint scrapes;
    atomic_uint waiting; /* requests that its page says are waiting */
};
static struct server servers[N_SERVERS];
static bool queueing; /* of the pool */
static enum conf_role roles[N_SERVERS]; /* its pods', where one has a role the pool is split */

static void forget(struct httpd_req *rq)
{
    (void)rq;
}

static void handle(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    char text[256];
    if (atomic_load(&s->silent)) {
        rq->on_abort = forget;
        return;
    }
    if (str_eq(rq->head->path, STR("/metrics"))) {
        atomic_fetch_add(&s->scrapes, 1);
        int n = snprintf(text, sizeof text,
                         "vllm:num_requests_running 4\nvllm:num_requests_waiting %u\nvllm:kv_cache_usage_perc 0.1\n",
                         atomic_load(&s->waiting));
        httpd_respond(rq, 200, "text/plain", NULL, (struct str){text, (size_t)n});
        return;
    }
    int n =
        snprintf(text, sizeof text, "{\"object\":\"list\",\"data\":[{\"id\":\"%s\"},{\"id\":\"common\"}]}", s->model);
    httpd_respond(rq, 200, "application/json", NULL, (struct str){text, (size_t)n});
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    loop_run(s->loop);
    return NULL;
}

static void open_server(struct server *s, const char *model, uint16_t port)
{
    struct addr at;
    struct errbuf err;
    s->model = model;
    s->loop = loop_new(1);
    assert_true(addr_parse(STR("127.0.0.1"), port, &at));
    s->httpd = httpd_open(s->loop, &at, 1024, handle, s, &err);
    assert_non_null(s->httpd);
    s->port = httpd_port(s->httpd);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void close_server(struct server *s)
{
    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    httpd_close(s->httpd);
    loop_free(s->loop);
    s->loop = NULL;
}

static int open_all(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c"};
    memset(servers, 0, sizeof servers);
    queueing = false;
    memset(roles, 0, sizeof roles);
    for (int i = 0; i < N_SERVERS; i++)
        open_server(&servers[i], names[i], 0);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (int i = 0; i < N_SERVERS; i++)
        if (servers[i].loop)
            close_server(&servers[i]);
    return 0;
}

/* A snapshot with one pool of the servers whose bits are set. */
static struct conf *make_conf(unsigned which)
{
    struct arena a;
    arena_init(&a, 4096);
    struct conf *c = xcalloc(1, sizeof *c);
    atomic_init(&c->refs, 1);
    c->arena = a;
    c->n_backends = 1;
    struct conf_backend *b = c->backends = arena_zalloc(&c->arena, sizeof *b);
    b->kind = BACKEND_POOL;
    b->key = STR("pool/default/p");
    b->ns = STR("default");
    b->name = STR("p");
    sched_params_init(&b->sched);
    b->sched.queueing = queueing;
    b->prefill = b->sched;
    if (roles[0] != ROLE_ANY)
        b->pd = arena_zalloc(&c->arena, sizeof *b->pd);
    b->endpoints = arena_zalloc(&c->arena, N_SERVERS * sizeof *b->endpoints);
    for (unsigned i = 0; i < N_SERVERS; i++)
        if (which & BIT(i))
            b->endpoints[b->n_endpoints++] = (struct conf_endpoint){.ns = STR("default"),
                                                                    .pod = str_c(arena_printf(&c->arena, "pod-%u", i)),
                                                                    .host = STR("127.0.0.1"),
                                                                    .port = servers[i].port,
                                                                    .role = roles[i]};
    return c;
}

static void free_conf(struct conf *c)
{
    arena_free(&c->arena);
    free(c);
}

static struct ports *start(unsigned which)
{
    struct ports_opts o = {.time_scale = 1,
                           .seed = 1,
                           .scrape_interval_us = 100000,
                           .scrape_timeout_us = 200000,
                           .probe_ejected_us = 50000};
    struct ports *ps = ports_new(&o);
    struct conf *c = make_conf(which);
    ports_apply(ps, c);
    free_conf(c);
    return ps;
}

static bool wait_until(bool (*check)(void *ctx), void *ctx)
{
    for (int i = 0; i < 500; i++) {
        if (check(ctx))
            return true;
        usleep(10000);
    }
    return false;
}

static bool is_ready(void *ctx)
{
    return ports_ready(ctx);
}

static void count_model(void *ctx, const char *id)
{
    (void)id;
    ++*(unsigned *)ctx;
}

struct wanted_models {
    struct port *p;
    unsigned n;
};

static bool has_models(void *ctx)
{
    struct wanted_models *w = ctx;
    unsigned n = 0;
    return port_models(w->p, count_model, &n) && n == w->n;
}

static void test_first_probe_and_models(void **state)
{
    (void)state;
    struct ports *ps = start(7);
    assert_true(wait_until(is_ready, ps));
    struct port *p = ports_find(ps, STR("pool/default/p"));
    assert_non_null(p);
    assert_null(ports_find(ps, STR("pool/default/other")));
    assert_true(wait_until(has_models, &(struct wanted_models){p, 4})); /* a, b, c, common */
    struct sched_stats st;
    port_stats(p, ROLE_ANY, &st);
    assert_int_equal(st.n_ready, 3);
    port_unref(p);
    ports_free(ps);
}

static struct port_req request(const char *model)
{
    struct port_req r = {
        .core = {.n_outputs = 1, .prompt_bytes = 100, .model = model ? hash_bytes(model, strlen(model), 0) : 0}};
    return r;
}

static void test_pick_by_model_and_finish(void **state)
{
    (void)state;
    struct ports *ps = start(7);
    struct port *p = ports_find(ps, STR("pool/default/p"));
    assert_true(wait_until(has_models, &(struct wanted_models){p, 4}));
    for (int i = 0; i < 5; i++) {
        struct port_req r = request("b");
        assert_int_equal(port_submit(p, &r), SCHED_PICKED);
        assert_string_equal(r.ep->name, "pod-1");
        port_finish(p, &r, OUT_OK, NULL);
    }
    struct port_req unknown = request("nobody-has-it"); /* restricts nothing */
    assert_int_equal(port_submit(p, &unknown), SCHED_PICKED);
    struct sched_stats st;
    port_stats(p, ROLE_ANY, &st);
    assert_int_equal(st.inflight, 1);
    port_finish(p, &unknown, OUT_CANCELLED, NULL);
    port_stats(p, ROLE_ANY, &st);
    assert_int_equal(st.inflight, 0);
    assert_int_equal(port_untried(p, ROLE_ANY, hash_bytes("b", 1, 0), NULL, 0), 1);
    port_unref(p);
    ports_free(ps);
}

struct picks {
    const char *name;
    uint64_t picks;
    bool found;
};

static void find_picks(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    struct picks *k = ctx;
    if (strcmp(e->name, k->name) == 0) {
        k->found = true;
        k->picks = v->picks;
    }
}

static void test_endpoints_stay_across_snapshots(void **state)
{
    (void)state;
    struct ports *ps = start(1);
    assert_true(wait_until(is_ready, ps));
    struct port *p = ports_find(ps, STR("pool/default/p"));
    struct port_req held = request(NULL);
    assert_int_equal(port_submit(p, &held), SCHED_PICKED);
    struct conf *both = make_conf(3), *second = make_conf(2), *none = make_conf(0);
    ports_apply(ps, both);
    assert_true(wait_until(is_ready, ps));
    struct picks k = {.name = "pod-0"};
    port_views(p, find_picks, &k);
    assert_true(k.found);
    assert_int_equal(k.picks, 1); /* the same endpoint, not a new one */
    ports_apply(ps, second);
    k = (struct picks){.name = "pod-0"};
    port_views(p, find_picks, &k);
    assert_false(k.found);
    assert_string_equal(held.ep->name, "pod-0"); /* lives as long as its request */
    port_finish(p, &held, OUT_OK, NULL);
    ports_apply(ps, none);
    struct port_req r = request(NULL);
    assert_int_equal(port_submit(p, &r), SCHED_REJECTED);
    none->n_backends = 0;
    ports_apply(ps, none);
    assert_null(ports_find(ps, STR("pool/default/p")));
    port_unref(p);
    free_conf(both);
    free_conf(second);
    free_conf(none);
    ports_free(ps);
}

struct health {
    struct port *p;
    const char *name;
    bool ejected;
    uint64_t epoch;
};

static void find_health(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    struct health *h = ctx;
    if (strcmp(e->name, h->name) != 0)
        return;
    h->ejected = v->ejected;
    h->epoch = atomic_load(&e->epoch);
}

static bool ejected(void *ctx)
{
    struct health *h = ctx;
    port_views(h->p, find_health, h);
    return h->ejected;
}

static bool returned(void *ctx)
{
    return !ejected(ctx);
}

static void test_silent_server_is_ejected_and_returns(void **state)
{
    (void)state;
    struct ports *ps = start(7);
    assert_true(wait_until(is_ready, ps));
    struct health h = {.p = ports_find(ps, STR("pool/default/p")), .name = "pod-2"};
    assert_false(ejected(&h));
    assert_int_equal(h.epoch, 0);
    atomic_store(&servers[2].silent, true);
    assert_true(wait_until(ejected, &h));
    assert_int_equal(h.epoch, 1); /* its unanswered requests are to be moved */
    atomic_store(&servers[2].silent, false);
    assert_true(wait_until(returned, &h));
    port_unref(h.p);
    ports_free(ps);
}

static void test_response_ids(void **state)
{
    (void)state;
    struct ports *ps = start(7);
    assert_true(wait_until(is_ready, ps));
    struct port *p = ports_find(ps, STR("pool/default/p"));
    struct port_req r = request(NULL);
    assert_int_equal(port_submit(p, &r), SCHED_PICKED);
    port_remember_response(p, STR("resp_1"), r.ep);
    struct ep_ref got = port_recall_response(p, STR("resp_1"));
    assert_int_equal(got.slot, r.ep->ref.slot);
    assert_int_equal(got.gen, r.ep->ref.gen);
    assert_int_equal(port_recall_response(p, STR("resp_2")).gen, 0);
    port_finish(p, &r, OUT_OK, NULL);
    port_unref(p);
    ports_free(ps);
}

/* --- requests that wait -------------------------------------------------------------------------------------- */

struct waiter { /* a request and the loop on which its late answer comes */
    struct port_req r;
    struct loop *loop;
    pthread_t thread;
    atomic_uint answers;
};

static void on_decision(struct port_req *r)
{
    atomic_fetch_add(&CONTAINER_OF(r, struct waiter, r)->answers, 1);
}

static struct waiter waiter(uint64_t ttl_us)
{
    struct waiter w = {.r = request(NULL), .loop = loop_new(1)};
    w.r.core.ttl_us = ttl_us;
    w.r.loop = w.loop;
    w.r.on_decision = on_decision;
    return w;
}

static void run_loop(struct waiter *w)
{
    assert_int_equal(loop_start(w->loop, &w->thread), 0);
}

static void end_loop(struct waiter *w)
{
    loop_stop(w->loop);
    pthread_join(w->thread, NULL);
    loop_free(w->loop);
}

static bool answered(void *ctx)
{
    return atomic_load(&((struct waiter *)ctx)->answers) > 0;
}

static bool pool_is_full(void *ctx)
{
    struct sched_stats st;
    port_stats(ctx, ROLE_ANY, &st);
    return st.n_ready && !st.n_room;
}

static struct ports *start_full(struct port **p)
{
    queueing = true;
    atomic_store(&servers[0].waiting, 50);
    struct ports *ps = start(1);
    assert_true(wait_until(is_ready, ps));
    *p = ports_find(ps, STR("pool/default/p"));
    assert_true(wait_until(pool_is_full, *p));
    return ps;
}

static uint64_t queued(struct port *p)
{
    struct sched_stats st;
    port_stats(p, ROLE_ANY, &st);
    return st.queued;
}

/* Nothing but a scrape tells that there is room again. */
static void test_room_seen_by_a_scrape_answers_late(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(0);
    run_loop(&w);
    assert_int_equal(port_submit(p, &w.r), SCHED_QUEUED);
    assert_int_equal(queued(p), 1);
    atomic_store(&servers[0].waiting, 0);
    assert_true(wait_until(answered, &w));
    assert_int_equal(w.r.core.d.reject, REJECT_NONE);
    assert_true(w.r.picked && !w.r.queued);
    assert_string_equal(w.r.ep->name, "pod-0");
    assert_false(port_cancel(p, &w.r)); /* too late */
    port_finish(p, &w.r, OUT_OK, NULL);
    end_loop(&w);
    port_unref(p);
    ports_free(ps);
}

static void test_time_to_live_and_cancel(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(30000), left = waiter(0);
    run_loop(&w);
    run_loop(&left);
    assert_int_equal(port_submit(p, &left.r), SCHED_QUEUED);
    assert_int_equal(port_submit(p, &w.r), SCHED_QUEUED);
    assert_int_equal(queued(p), 2);
    assert_true(port_cancel(p, &left.r));
    assert_false(port_cancel(p, &left.r));
    assert_true(wait_until(answered, &w));
    assert_int_equal(w.r.core.d.reject, REJECT_QUEUE_TIMEOUT);
    assert_false(w.r.picked);
    assert_null(w.r.ep);
    assert_int_equal(queued(p), 0);
    assert_int_equal(atomic_load(&left.answers), 0);
    end_loop(&w);
    end_loop(&left);
    port_unref(p);
    ports_free(ps);
}

/* Settings decide, too: without queueing all are sent on. */
static void test_switched_off(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(0);
    run_loop(&w);
    assert_int_equal(port_submit(p, &w.r), SCHED_QUEUED);
    struct port_queue q;
    port_queue(p, &q);
    assert_true(q.on && q.bytes == 104857600 && q.ttl_us == 30000000);
    queueing = false;
    struct conf *off = make_conf(1);
    ports_apply(ps, off);
    assert_true(wait_until(answered, &w));
    assert_true(w.r.picked);
    assert_int_equal(w.r.core.d.reason, REASON_DRAINED);
    port_finish(p, &w.r, OUT_OK, NULL);
    free_conf(off);
    end_loop(&w);
    port_unref(p);
    ports_free(ps);
}

static bool port_is_gone(void *ctx)
{
    struct port *p = ports_find(ctx, STR("pool/default/p"));
    port_unref(p);
    return !p;
}

static void test_a_port_outlives_its_snapshot_while_somebody_waits(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(0);
    run_loop(&w);
    assert_int_equal(port_submit(p, &w.r), SCHED_QUEUED);
    struct conf *none = make_conf(1);
    none->n_backends = 0;
    ports_apply(ps, none);
    assert_false(port_is_gone(ps));
    assert_true(ports_ready(ps));
    atomic_store(&servers[0].waiting, 0);
    assert_true(wait_until(answered, &w));
    assert_true(w.r.picked);
    assert_true(wait_until(port_is_gone, ps));
    port_finish(p, &w.r, OUT_OK, NULL);
    none->n_backends = 1;
    ports_apply(ps, none); /* and may come back */
    assert_false(port_is_gone(ps));
    free_conf(none);
    end_loop(&w);
    port_unref(p);
    ports_free(ps);
}

/* A retry, or a body that took its time: routed by a snapshot from before. Nobody would tell it that it has waited long
 * enough. */
static void test_nobody_waits_at_a_port_that_is_gone(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(0);
    struct conf *none = make_conf(1);
    none->n_backends = 0;
    ports_apply(ps, none);
    assert_true(port_is_gone(ps));
    assert_int_equal(port_submit(p, &w.r), SCHED_REJECTED);
    assert_int_equal(w.r.core.d.reject, REJECT_NO_ENDPOINT);
    free_conf(none);
    port_unref(p);
    ports_free(ps);
    loop_free(w.loop);
}

/* The table is freed while a port waits to be buried. */
static void test_ends_with_a_retired_port(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_full(&p);
    struct waiter w = waiter(0);
    assert_int_equal(port_submit(p, &w.r), SCHED_QUEUED);
    struct conf *none = make_conf(1);
    none->n_backends = 0;
    ports_apply(ps, none);
    assert_true(port_cancel(p, &w.r));
    free_conf(none);
    port_unref(p);
    ports_free(ps);
    loop_free(w.loop);
}

/* --- prefill and decode apart -------------------------------------------------------------------------------- */

static void set_roles(enum conf_role a, enum conf_role b, enum conf_role c)
{
    memcpy(roles, (enum conf_role[]){a, b, c}, sizeof roles);
}

static void apply(struct ports *ps, unsigned which)
{
    struct conf *c = make_conf(which);
    ports_apply(ps, c);
    free_conf(c);
}

static struct ports *start_split(struct port **p)
{
    set_roles(ROLE_PREFILL, ROLE_DECODE, ROLE_DECODE);
    struct ports *ps = start(7);
    assert_true(wait_until(is_ready, ps));
    *p = ports_find(ps, STR("pool/default/p"));
    assert_true(port_split(*p));
    return ps;
}

static void add_leg(struct port_req *r) /* once it has its place */
{
    r->core.leg = &r->leg;
    r->core.must_split = true;
}

static uint64_t inflight(struct port *p, enum conf_role role)
{
    struct sched_stats st;
    port_stats(p, role, &st);
    return st.inflight;
}

static void assert_inflight(struct port *p, uint64_t prefill, uint64_t decode)
{
    assert_int_equal(inflight(p, ROLE_PREFILL), prefill);
    assert_int_equal(inflight(p, ROLE_DECODE), decode);
}

/* Both legs are reserved at once and given back by themselves, in either order; what is given back cannot be given back again. */
static void test_both_legs(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_split(&p);
    assert_int_equal(port_untried(p, ROLE_PREFILL, 0, NULL, 0), 1);
    assert_int_equal(port_untried(p, ROLE_DECODE, 0, NULL, 0), 2);
    for (int leg_first = 0; leg_first < 2; leg_first++) {
        struct port_req r = request(NULL);
        add_leg(&r);
        assert_int_equal(port_submit(p, &r), SCHED_PICKED);
        assert_true(r.core.split && r.ep->role == ROLE_DECODE && r.leg_ep->role == ROLE_PREFILL);
        assert_string_equal(r.leg_ep->name, "pod-0");
        assert_int_equal(port_untried(p, ROLE_PREFILL, 0, &r.leg_ep->ref, 1), 0);
        assert_inflight(p, 1, 1);
        if (leg_first) {
            port_leg_prefilled(p, &r);
            port_leg_prefilled(p, &r);
            port_leg_finish(p, &r, OUT_OK, NULL);
            assert_null(r.leg_ep);
            assert_inflight(p, 0, 1);
            port_leg_finish(p, &r, OUT_RESET, NULL);
            port_leg_prefilled(p, &r);
            port_first_token(p, &r);
            port_finish(p, &r, OUT_OK, NULL);
        } else {
            port_finish(p, &r, OUT_CANCELLED, NULL);
            assert_inflight(p, 1, 0);
            port_leg_prefilled(p, &r);
            port_leg_here(p, &r);
            port_leg_finish(p, &r, OUT_CANCELLED, NULL);
        }
        assert_inflight(p, 0, 0);
    }
    port_unref(p);
    ports_free(ps);
}

/* Without a leg a request goes to the endpoints that decode, and a request that may prefill there does so when its leg has failed. */
static void test_failed_leg_and_no_leg(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_split(&p);
    for (int i = 0; i < 6; i++) {
        struct port_req plain = request(NULL);
        assert_int_equal(port_submit(p, &plain), SCHED_PICKED);
        assert_int_equal(plain.ep->role, ROLE_DECODE);
        assert_null(plain.leg_ep);
        port_finish(p, &plain, OUT_OK, NULL);
    }
    struct port_req r = request(NULL);
    add_leg(&r);
    assert_int_equal(port_submit(p, &r), SCHED_PICKED);
    port_leg_finish(p, &r, OUT_GARBAGE, NULL);
    port_leg_here(p, &r);
    assert_false(r.core.split);
    assert_inflight(p, 0, 1);
    port_first_token(p, &r);
    port_finish(p, &r, OUT_OK, NULL);
    struct port_req again = request(NULL); /* the only prefill endpoint has failed it */
    add_leg(&again);
    again.leg.tried[again.leg.n_tried++] = r.leg.d.ep;
    assert_int_equal(port_submit(p, &again), SCHED_REJECTED);
    assert_int_equal(again.core.d.reject, REJECT_NO_ENDPOINT);
    assert_true(again.core.d.no_prefill);
    assert_null(again.leg_ep);
    assert_inflight(p, 0, 0);
    port_unref(p);
    ports_free(ps);
}

/* The pool is one again, and split anew, while requests run: they end where they are, newcomers go by the setting of the moment. */
static void test_split_ends_and_begins_with_requests_in_flight(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_split(&p);
    struct port_req a = request(NULL), b = request(NULL), c = request(NULL);
    add_leg(&a);
    add_leg(&b);
    add_leg(&c);
    assert_int_equal(port_submit(p, &a), SCHED_PICKED);
    set_roles(ROLE_ANY, ROLE_ANY, ROLE_ANY);
    apply(ps, 7);
    assert_false(port_split(p));
    assert_true(wait_until(is_ready, ps));
    assert_int_equal(port_untried(p, ROLE_ANY, 0, NULL, 0), 3);
    assert_int_equal(port_untried(p, ROLE_PREFILL, 0, NULL, 0), 0);
    assert_int_equal(port_submit(p, &b), SCHED_PICKED);
    assert_false(b.core.split);
    assert_null(b.leg_ep);
    assert_inflight(p, 1, 2);
    port_leg_prefilled(p, &a);
    port_leg_finish(p, &a, OUT_OK, NULL);
    set_roles(ROLE_DECODE, ROLE_PREFILL, ROLE_PREFILL); /* and others' roles than before */
    apply(ps, 7);
    assert_true(port_split(p));
    assert_true(wait_until(is_ready, ps));
    assert_int_equal(port_submit(p, &c), SCHED_PICKED);
    assert_string_equal(c.ep->name, "pod-0");
    assert_true(c.core.split && c.leg_ep->role == ROLE_PREFILL);
    port_first_token(p, &a);
    port_finish(p, &a, OUT_OK, NULL);
    port_finish(p, &b, OUT_RESET, NULL);
    set_roles(ROLE_DECODE, ROLE_DECODE, ROLE_PREFILL);
    apply(ps, 7); /* pod-1 decodes now */
    assert_true(wait_until(is_ready, ps));
    assert_int_equal(port_untried(p, ROLE_PREFILL, 0, NULL, 0), 1);
    port_leg_finish(p, &c, OUT_RESET, NULL); /* says nothing about whoever has its place */
    port_leg_here(p, &c);
    port_finish(p, &c, OUT_OK, NULL);
    assert_inflight(p, 0, 0);
    assert_int_equal(port_untried(p, ROLE_PREFILL, 0, NULL, 0), 1);
    port_unref(p);
    ports_free(ps);
}

/* The pool goes while both legs run. */
static void test_split_pool_is_removed(void **state)
{
    (void)state;
    struct port *p;
    struct ports *ps = start_split(&p);
    struct port_req r = request(NULL), late = request(NULL);
    add_leg(&r);
    add_leg(&late);
    assert_int_equal(port_submit(p, &r), SCHED_PICKED);
    struct conf *none = make_conf(7);
    none->n_backends = 0;
    ports_apply(ps, none);
    free_conf(none);
    assert_true(port_is_gone(ps));
    assert_int_equal(port_submit(p, &late), SCHED_REJECTED);
    assert_null(late.leg_ep);
    port_leg_prefilled(p, &r);
    port_finish(p, &r, OUT_OK, NULL);
    port_leg_finish(p, &r, OUT_OK, NULL);
    assert_inflight(p, 0, 0);
    port_unref(p);
    ports_free(ps);
}

static bool prefill_is_full(void *ctx)
{
    struct sched_stats st;
    port_stats(ctx, ROLE_PREFILL, &st);
    return st.n_ready && !st.n_room;
}

/* Waits for room in the role that prefills: placed in both when there is some, cancelled, refused at once where all have failed it, and when the pool
 * is one again it goes on without a leg. */
static void test_waiting_for_a_prefill_endpoint(void **state)
{
    (void)state;
    struct port *p;
    queueing = true;
    atomic_store(&servers[0].waiting, 50);
    struct ports *ps = start_split(&p);
    assert_true(wait_until(prefill_is_full, p));
    struct waiter w[3] = {waiter(0), waiter(0), waiter(0)};
    for (int i = 0; i < 3; i++) {
        run_loop(&w[i]);
        add_leg(&w[i].r);
        assert_int_equal(port_submit(p, &w[i].r), SCHED_QUEUED);
    }
    assert_true(port_cancel(p, &w[2].r));
    struct port_req failed = request(NULL);
    add_leg(&failed);
    struct ep_ref tried = {0};
    assert_true(port_cancel(p, &w[1].r));
    atomic_store(&servers[0].waiting, 0);
    assert_true(wait_until(answered, &w[0]));
    assert_true(w[0].r.picked && w[0].r.core.split && w[0].r.leg_ep);
    tried = w[0].r.leg_ep->ref;
    atomic_store(&servers[0].waiting, 50);
    assert_true(wait_until(prefill_is_full, p));
    failed.leg.tried[failed.leg.n_tried++] = tried;
    assert_int_equal(port_submit(p, &failed), SCHED_REJECTED);
    assert_int_equal(failed.core.d.reject, REJECT_NO_ENDPOINT);
    assert_int_equal(port_submit(p, &w[1].r), SCHED_QUEUED);
    set_roles(ROLE_ANY, ROLE_ANY, ROLE_ANY);
    apply(ps, 7);
    assert_true(wait_until(answered, &w[1]));
    assert_true(w[1].r.picked && !w[1].r.core.split);
    assert_null(w[1].r.leg_ep);
    assert_int_equal(atomic_load(&w[2].answers), 0);
    port_leg_finish(p, &w[0].r, OUT_CANCELLED, NULL);
    port_finish(p, &w[0].r, OUT_CANCELLED, NULL);
    port_finish(p, &w[1].r, OUT_OK, NULL);
    assert_inflight(p, 0, 0);
    for (int i = 0; i < 3; i++)
        end_loop(&w[i]);
    port_unref(p);
    ports_free(ps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_probe_and_models, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_pick_by_model_and_finish, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_endpoints_stay_across_snapshots, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_silent_server_is_ejected_and_returns, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_response_ids, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_room_seen_by_a_scrape_answers_late, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_time_to_live_and_cancel, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_switched_off, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_a_port_outlives_its_snapshot_while_somebody_waits, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_nobody_waits_at_a_port_that_is_gone, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_ends_with_a_retired_port, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_both_legs, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_failed_leg_and_no_leg, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_split_ends_and_begins_with_requests_in_flight, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_split_pool_is_removed, open_all, close_all),
        cmocka_unit_test_setup_teardown(test_waiting_for_a_prefill_endpoint, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
