/* Decisions per second through sched/ (mutex, late answers by mailbox): 2 threads, 100 endpoints, DEFAULT. Cases:
 * queueing off; on with room for all (what does it add to a request that does not wait?); on with the pool full, so
 * that every decision comes from the queue. */
#include "base/rng.h"
#include "net/httpd.h"
#include "sched/port.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 2, ENDPOINTS = 100, REQUESTS = 4000, BATCH = 64 };
#define SECONDS 2.0

static double now_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct slot {
    struct port_req pr;
    struct runner *owner;
    uint32_t next; /* of a list of slots; REQUESTS = end */
};
struct fifo {
    uint32_t head, tail, n;
};
struct runner { /* one thread: REQUESTS clients in a closed loop, `target` of them served at once */
    pthread_t thread;
    struct loop *loop;
    struct port *port;
    struct slot *slots;
    struct fifo idle, running;
    uint32_t target;
    struct timer pump;
    uint64_t done;
    double submit_s;
    uint64_t submits;
    atomic_bool stop;
};

static void put(struct runner *r, struct fifo *f, uint32_t i)
{
    r->slots[i].next = REQUESTS;
    if (f->n++)
        r->slots[f->tail].next = i;
    else
        f->head = i;
    f->tail = i;
}

static uint32_t take(struct runner *r, struct fifo *f)
{
    uint32_t i = f->head;
    f->head = r->slots[i].next;
    f->n--;
    return i;
}

static void decided(struct port_req *pr)
{
    struct slot *s = CONTAINER_OF(pr, struct slot, pr);
    put(s->owner, pr->picked ? &s->owner->running : &s->owner->idle, (uint32_t)(s - s->owner->slots));
}

static void submit_one(struct runner *r)
{
    uint32_t i = take(r, &r->idle);
    struct port_req *pr = &r->slots[i].pr;
    *pr = (struct port_req){.core = {.id = i,
                                     .prompt_bytes = 2000,
                                     .n_outputs = 1,
                                     .flow = i % 10 + 1,
                                     .priority = (int)(i % 3) - 1,
                                     .streamed = true},
                            .loop = r->loop,
                            .on_decision = decided};
    double t0 = now_s(CLOCK_THREAD_CPUTIME_ID);
    enum sched_answer a = port_submit(r->port, pr);
    r->submit_s += now_s(CLOCK_THREAD_CPUTIME_ID) - t0;
    r->submits++;
    if (a == SCHED_PICKED)
        put(r, &r->running, i);
    else if (a == SCHED_REJECTED)
        put(r, &r->idle, i);
}

static void finish_one(struct runner *r)
{
    uint32_t i = take(r, &r->running);
    port_finish(r->port, &r->slots[i].pr, OUT_OK, NULL);
    put(r, &r->idle, i);
    r->done++;
}

static void pump(struct timer *t)
{
    struct runner *r = CONTAINER_OF(t, struct runner, pump);
    if (atomic_load(&r->stop)) { /* the running end, which serves those who still wait */
        while (r->running.n)
            finish_one(r);
        if (r->idle.n == REQUESTS) {
            loop_stop(r->loop);
            return;
        }
    }
    for (int k = 0; k < BATCH && !atomic_load(&r->stop); k++) {
        if (r->idle.n && r->running.n < r->target)
            submit_one(r);
        if (r->running.n && (r->running.n >= r->target || !r->idle.n))
            finish_one(r);
        else if (!r->idle.n)
            break;
    }
    timer_set(r->loop, t, loop_now_us(r->loop));
}

static void *run(void *arg)
{
    struct runner *r = arg;
    r->pump.fn = pump;
    timer_set(r->loop, &r->pump, loop_now_us(r->loop));
    loop_run(r->loop);
    return NULL;
}

static void metrics_page(void *ctx, struct httpd_req *rq)
{
    (void)ctx;
    if (str_eq(rq->head->path, STR("/metrics")))
        httpd_respond(rq, 200, "text/plain", NULL,
                      STR("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.1\n"));
    else
        httpd_respond(rq, 404, "text/plain", NULL, STR(""));
}

static struct conf *make_conf(uint16_t port, bool queueing, bool full)
{
    struct conf *c = xcalloc(1, sizeof *c);
    atomic_init(&c->refs, 1);
    arena_init(&c->arena, 4096);
    c->n_backends = 1;
    struct conf_backend *b = c->backends = arena_zalloc(&c->arena, sizeof *b);
    b->kind = BACKEND_POOL;
    b->key = STR("pool/default/p");
    b->ns = STR("default");
    b->name = STR("p");
    sched_params_init(&b->sched);
    b->sched.queueing = queueing;
    b->sched.early_refusal = EARLY_OFF;
    b->sched.queue_ttl_us = 600000000;
    b->sched.kv_tokens = full ? 6000 : 10000000; /* about eight requests each, or never full */
    b->endpoints = arena_zalloc(&c->arena, ENDPOINTS * sizeof *b->endpoints);
    for (uint32_t i = 0; i < ENDPOINTS; i++)
        b->endpoints[b->n_endpoints++] = (struct conf_endpoint){.ns = STR("default"),
                                                                .pod = str_c(arena_printf(&c->arena, "pod-%u", i)),
                                                                .host = STR("127.0.0.1"),
                                                                .port = port};
    return c;
}

static void bench(const char *what, struct httpd *httpd, bool queueing, bool full)
{
    struct ports_opts o = {.time_scale = 1,
                           .seed = 1,
                           .scrape_interval_us = 1000000,
                           .scrape_timeout_us = 1000000,
                           .probe_ejected_us = 250000};
    struct ports *ps = ports_new(&o);
    struct conf *c = make_conf(httpd_port(httpd), queueing, full);
    struct sched_stats st;
    ports_apply(ps, c);
    arena_free(&c->arena);
    free(c);
    struct port *port = ports_find(ps, STR("pool/default/p"));
    for (int i = 0; i < 500; i++, usleep(10000)) {
        port_stats(port, ROLE_ANY, &st);
        if (st.n_ready == ENDPOINTS)
            break;
    }
    struct runner r[THREADS];
    for (int t = 0; t < THREADS; t++) {
        r[t] = (struct runner){.loop = loop_new(1), .port = port, .target = full ? REQUESTS : 400};
        r[t].slots = xcalloc(REQUESTS, sizeof *r[t].slots);
        for (uint32_t i = 0; i < REQUESTS; i++) {
            r[t].slots[i].owner = &r[t];
            put(&r[t], &r[t].idle, i);
        }
        pthread_create(&r[t].thread, NULL, run, &r[t]);
    }
    usleep(300000);
    uint64_t before = 0, after = 0, queued_before = 0;
    double t0 = now_s(CLOCK_MONOTONIC);
    port_stats(port, ROLE_ANY, &st);
    before = st.picks;
    queued_before = st.dispatched;
    usleep((useconds_t)(SECONDS * 1e6));
    port_stats(port, ROLE_ANY, &st);
    after = st.picks;
    double took = now_s(CLOCK_MONOTONIC) - t0, submit_s = 0;
    uint64_t submits = 0;
    for (int t = 0; t < THREADS; t++)
        atomic_store(&r[t].stop, true);
    for (int t = 0; t < THREADS; t++) {
        pthread_join(r[t].thread, NULL);
        submit_s += r[t].submit_s;
        submits += r[t].submits;
        loop_free(r[t].loop);
        free(r[t].slots);
    }
    printf("%-34s %9.0f decisions/s (%3.0f %% from the queue, %5llu queued)   submit %5.2f us CPU\n", what,
           (double)(after - before) / took,
           100 * (double)(st.dispatched - queued_before) / (double)MAX(after - before, 1u),
           (unsigned long long)st.queued, submit_s / (double)MAX(submits, 1u) * 1e6);
    port_unref(port);
    ports_free(ps);
}

int main(void)
{
    struct loop *loop = loop_new(1);
    struct addr at;
    struct errbuf err;
    pthread_t thread;
    if (!addr_parse(STR("127.0.0.1"), 0, &at))
        return 1;
    struct httpd *httpd = httpd_open(loop, &at, 1024, metrics_page, NULL, &err);
    if (!httpd || loop_start(loop, &thread))
        return 1;
    for (int i = 0; i < 3; i++) { /* in turn: a noisy machine is noisy for all */
        bench("queueing off", httpd, false, false);
        bench("queueing on, room for all", httpd, true, false);
        bench("queueing on, all full", httpd, true, true);
    }
    loop_stop(loop);
    pthread_join(thread, NULL);
    httpd_close(httpd);
    loop_free(loop);
    return 0;
}
