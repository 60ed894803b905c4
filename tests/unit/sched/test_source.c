/* Where the load of a pool's servers is read: the rules made of a configuration, and ports beside servers that show
 * their load in different places, under other names, not at all, or as another runtime than was said. Servers have
 * loopback addresses of their own, because Triton's port is a fixed one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "net/httpd.h"
#include "sched/port.h"
#include "sched/source.h"
#include <pthread.h>

/* ---- servers ---- */

#define N_PAGES 4
struct page {
    const char *path;
    const char *text; /* NULL: gone */
};
struct server {
    struct loop *loop;
    pthread_t thread;
    struct httpd *httpd;
    uint16_t port;
    pthread_mutex_t lock;
    struct page pages[N_PAGES];
    uint16_t clients[64]; /* distinct ports of who has asked for metrics */
    unsigned n_clients, asked, health;
    unsigned health_status; /* of /health and /v2/health/ready; 0: 200 */
    bool cut;               /* answers end in the middle */
    size_t filler;          /* comment bytes before a page */
};
static struct server api, metrics, other;

static void note_client(struct server *s, uint16_t port)
{
    s->asked++;
    for (unsigned i = 0; i < s->n_clients; i++)
        if (s->clients[i] == port)
            return;
    if (s->n_clients < ARRAY_LEN(s->clients))
        s->clients[s->n_clients++] = port;
}

/* `filler` bytes in all before the text, of comment lines. */
static void long_page(struct httpd_req *rq, const char *text, size_t filler)
{
    size_t n = strlen(text);
    char *page = malloc(filler + n);
    memset(page, '#', filler);
    for (size_t i = 4095; i < filler; i += 4096)
        page[i] = '\n';
    page[filler - 1] = '\n';
    memcpy(page + filler, text, n);
    httpd_respond(rq, 200, "text/plain", NULL, (struct str){page, filler + n});
    free(page);
}

static void handle(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    const char *text = NULL;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < N_PAGES && !text; i++)
        if (s->pages[i].path && str_eq_c(rq->head->path, s->pages[i].path))
            text = s->pages[i].text;
    if (text)
        note_client(s, addr_port(conn_peer(rq->conn)));
    bool health = str_eq(rq->head->path, STR("/health")) || str_eq(rq->head->path, STR("/v2/health/ready"));
    s->health += health;
    unsigned health_status = s->health_status ? s->health_status : 200;
    bool cut = s->cut && text;
    size_t filler = s->filler;
    pthread_mutex_unlock(&s->lock);
    if (cut) {
        char head[128];
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", strlen(text) + 100);
        httpd_raw(rq, str_c(head));
        httpd_raw(rq, str_c(text));
        httpd_kill(rq, false);
    } else if (text && str_eq_c(str_c(text), "redirect")) {
        httpd_respond(rq, 307, "text/plain", "Location: /elsewhere/\r\n", STR_NULL);
    } else if (text && filler) {
        long_page(rq, text, filler);
    } else if (text) {
        httpd_respond(rq, 200, "text/plain", NULL, str_c(text));
    } else {
        httpd_respond(rq, health ? health_status : 404, "text/plain", NULL, STR_NULL);
    }
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    loop_run(s->loop);
    return NULL;
}

static void open_at(struct server *s, const char *host, uint16_t port)
{
    struct addr at;
    struct errbuf err;
    *s = (struct server){0};
    pthread_mutex_init(&s->lock, NULL);
    s->loop = loop_new(1);
    assert_true(addr_parse(str_c(host), port, &at));
    s->httpd = httpd_open(s->loop, &at, 1024, handle, s, &err);
    assert_non_null(s->httpd);
    s->port = httpd_port(s->httpd);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void close_at(struct server *s)
{
    if (!s->loop)
        return;
    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    httpd_close(s->httpd);
    loop_free(s->loop);
    pthread_mutex_destroy(&s->lock);
    s->loop = NULL;
}

static void set_page(struct server *s, int i, const char *path, const char *text)
{
    pthread_mutex_lock(&s->lock);
    s->pages[i] = (struct page){path, text};
    pthread_mutex_unlock(&s->lock);
}

static void set_fault(struct server *s, unsigned health_status, bool cut)
{
    pthread_mutex_lock(&s->lock);
    s->health_status = health_status;
    s->cut = cut;
    pthread_mutex_unlock(&s->lock);
}

static unsigned count(struct server *s, const unsigned *n)
{
    pthread_mutex_lock(&s->lock);
    unsigned v = *n;
    pthread_mutex_unlock(&s->lock);
    return v;
}

/* ---- the log ---- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[16384];
static size_t log_n;

static void log_sink(const char *line, size_t n)
{
    pthread_mutex_lock(&log_lock);
    n = MIN(n, sizeof log_text - 1 - log_n);
    memcpy(log_text + log_n, line, n);
    log_n += n;
    pthread_mutex_unlock(&log_lock);
}

static uint64_t log_now(void)
{
    return 0;
}

static unsigned logged(const char *what)
{
    unsigned n = 0;
    pthread_mutex_lock(&log_lock);
    log_text[log_n] = 0;
    for (const char *p = log_text; (p = strstr(p, what)); p++)
        n++;
    pthread_mutex_unlock(&log_lock);
    return n;
}

/* ---- ports ---- */

static struct conf_backend backend; /* what the test asks for; the endpoints are its own */
static struct conf_endpoint endpoints[2];
static struct ports *ps;

static int setup(void **state)
{
    (void)state;
    log_n = 0;
    log_setup(LOG_WARN, LOG_LOGFMT, log_sink, log_now);
    open_at(&api, "127.77.9.1", 0);
    metrics.loop = other.loop = NULL;
    backend = (struct conf_backend){.kind = BACKEND_POOL,
                                    .key = STR("pool/default/p"),
                                    .ns = STR("default"),
                                    .name = STR("p"),
                                    .endpoints = endpoints,
                                    .n_endpoints = 1};
    sched_params_init(&backend.sched);
    endpoints[0] =
        (struct conf_endpoint){.ns = STR("default"), .pod = STR("pod-0"), .host = STR("127.77.9.1"), .port = api.port};
    endpoints[1] = endpoints[0];
    endpoints[1].pod = STR("pod-1");
    return 0;
}

static void apply(void)
{
    struct conf c = {.backends = &backend, .n_backends = 1};
    ports_apply(ps, &c);
}

static void start(void)
{
    struct ports_opts o = {.time_scale = 1,
                           .seed = 1,
                           .scrape_interval_us = 20000,
                           .scrape_timeout_us = 1000000,
                           .probe_ejected_us = 20000};
    ps = ports_new(&o);
    apply();
}

static int teardown(void **state)
{
    (void)state;
    if (ps)
        ports_free(ps);
    ps = NULL;
    close_at(&api);
    close_at(&metrics);
    close_at(&other);
    log_setup(LOG_OFF, LOG_LOGFMT, NULL, NULL);
    return 0;
}

static struct ep_view seen; /* of pod-0 */

static void take_view(void *ctx, const struct ep_view *v, const struct endpoint *e)
{
    (void)ctx;
    if (strcmp(e->name, "pod-0") == 0)
        seen = *v;
}

static void look(void)
{
    struct port *p = ports_find(ps, STR("pool/default/p"));
    port_views(p, take_view, NULL);
    port_unref(p);
}

static bool eventually(bool (*check)(void))
{
    for (int i = 0; i < 400; i++) {
        look();
        if (check())
            return true;
        usleep(10000);
    }
    return false;
}

static bool alive(void)
{
    return seen.ready && !seen.ejected;
}

static bool dead(void)
{
    return !seen.ready || seen.ejected;
}

static double wanted_waiting;

static bool waiting_is_wanted(void)
{
    return alive() && seen.load.has_waiting && seen.load.waiting == wanted_waiting;
}

static void wait_for_load(double waiting)
{
    wanted_waiting = waiting;
    if (!eventually(waiting_is_wanted))
        fail_msg("waiting: %d %g, wanted %g; ready %d ejected %d", seen.load.has_waiting, seen.load.waiting, waiting,
                 seen.ready, seen.ejected);
}

static void stays_alive(unsigned ms)
{
    for (unsigned i = 0; i < ms / 10; i++) {
        look();
        assert_true(alive());
        usleep(10000);
    }
}

static void runtime(enum conf_runtime r)
{
    backend.runtime = r;
    backend.runtime_given = true;
}

#define VLLM_PAGE(w) "vllm:num_requests_running 4\nvllm:num_requests_waiting " w "\nvllm:kv_cache_usage_perc 0.1\n"
#define SGLANG_PAGE(w)                                                                                                 \
    "sglang:num_running_reqs{tp_rank=\"0\"} 4\nsglang:num_queue_reqs{tp_rank=\"0\"} " w                                \
    "\nsglang:token_usage{tp_rank=\"0\"} 0.1\n"
#define TRITON_PAGE(w)                                                                                                 \
    "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} " w                                \
    "\nnv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 4\n"
#define SERVE_PAGE(w)                                                                                                  \
    "trtllm_num_requests_waiting{model_name=\"m\"} " w "\ntrtllm_num_requests_running{model_name=\"m\"} 1\n"
#define SERVE_JSON(w)                                                                                                  \
    "[{\"iter\":1,\"numActiveRequests\":2,\"numQueuedRequests\":99},{\"iter\":2,\"numActiveRequests\":5,"              \
    "\"numQueuedRequests\":" w "}]"

/* ---- rules ---- */

static void assert_place(const struct source_rules *r, unsigned i, uint16_t port, const char *path)
{
    assert_true(i < r->n_places);
    assert_int_equal(r->place[i].port, port);
    if (!str_eq_c(r->place[i].path, path))
        fail_msg("place %u is " STR_FMT ", not %s", i, STR_ARG(r->place[i].path), path);
}

static struct source_rules *rules_of(struct source *s, struct conf_backend *b)
{
    source_set(s, b);
    return source_get(s);
}

static void test_places(void **state)
{
    (void)state;
    struct source *s = source_new();
    assert_null(source_get(s));
    struct conf_backend b = {.runtime = RUNTIME_VLLM, .runtime_given = true};
    struct source_rules *r = rules_of(s, &b);
    assert_int_equal(r->n_places, 1);
    assert_place(r, 0, 0, "/metrics");
    assert_false(r->spec.detect);
    source_unref(r);
    b.runtime_given = false;
    r = rules_of(s, &b);
    assert_true(r->spec.detect);
    assert_int_equal(r->n_places, 3);
    assert_place(r, 0, 0, "/metrics");
    assert_place(r, 1, 8002, "/metrics");
    assert_place(r, 2, 0, "/prometheus/metrics");
    source_unref(r);
    b.runtime = RUNTIME_TRTLLM;
    b.runtime_given = true;
    r = rules_of(s, &b);
    assert_int_equal(r->n_places, 3);
    assert_place(r, 0, 8002, "/metrics");
    assert_place(r, 1, 0, "/prometheus/metrics");
    assert_place(r, 2, 0, "/metrics");
    assert_true(str_eq_c(r->health, "/v2/health/ready"));
    source_unref(r);
    b.metrics.port = 9100;
    r = rules_of(s, &b);
    assert_int_equal(r->n_places, 2);
    assert_place(r, 0, 9100, "/metrics");
    assert_place(r, 1, 9100, "/prometheus/metrics");
    source_unref(r);
    b.metrics = (struct conf_metrics){.path = STR("/m")};
    r = rules_of(s, &b);
    assert_int_equal(r->n_places, 2);
    assert_place(r, 0, 8002, "/m");
    assert_place(r, 1, 0, "/m");
    source_unref(r);
    b.runtime = RUNTIME_SGLANG;
    b.metrics.port = 7;
    r = rules_of(s, &b);
    assert_int_equal(r->n_places, 1);
    assert_place(r, 0, 7, "/m");
    assert_int_equal(r->spec.dialect, PROM_SGLANG);
    source_unref(r);
    source_free(s);
}

static void test_same_settings_keep_the_rules(void **state)
{
    (void)state;
    char name[] = "my:queue{a=b}";
    struct source *s = source_new();
    struct conf_backend b = {.runtime_given = true, .metrics = {.waiting = str_c(name), .path = STR("/m")}};
    struct source_rules *first = rules_of(s, &b);
    assert_true(source_tell(s, TOLD_GUESS));
    assert_false(source_tell(s, TOLD_GUESS));
    assert_true(source_tell(s, TOLD_MISMATCH));
    struct source_rules *again = rules_of(s, &b);
    assert_ptr_equal(first, again);
    assert_false(source_tell(s, TOLD_GUESS));
    name[0] = 'M'; /* the rules have a copy */
    assert_true(str_eq_c(first->spec.waiting, "my:queue{a=b}"));
    struct source_rules *changed = rules_of(s, &b);
    assert_ptr_not_equal(first, changed);
    assert_true(source_tell(s, TOLD_GUESS));
    source_free(s);
    assert_true(str_eq_c(changed->spec.waiting, "My:queue{a=b}")); /* still held */
    source_unref(first);
    source_unref(again);
    source_unref(changed);
}

/* ---- places ---- */

static void test_port_path_and_names_of_the_pool(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", 0);
    set_page(&metrics, 0, "/loads", "my_queue{kind=\"a\"} 7\nmy_queue{kind=\"b\"} 90\nvllm:num_requests_waiting 3\n");
    set_page(&api, 0, "/metrics", VLLM_PAGE("1"));
    runtime(RUNTIME_VLLM);
    backend.metrics =
        (struct conf_metrics){.port = metrics.port, .path = STR("/loads"), .waiting = STR("my_queue{kind=a}")};
    start();
    wait_for_load(7);
    assert_int_equal(count(&api, &api.asked), 0);
    backend.metrics = (struct conf_metrics){0}; /* takes effect without a new endpoint */
    apply();
    wait_for_load(1);
}

static void test_port_of_the_endpoint(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", 0);
    open_at(&other, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    set_page(&other, 0, "/metrics", TRITON_PAGE("3"));
    endpoints[0].metrics_port = metrics.port;
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(2);
}

static void test_triton_has_a_port_for_it(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(2);
    stays_alive(300);
    assert_true(count(&metrics, &metrics.n_clients) <=
                2); /* the connection is kept; one more when the API port was asked at first */
    assert_true(count(&metrics, &metrics.asked) > 5);
    assert_true(count(&api, &api.health) >= 1);
    assert_true(count(&api, &api.health) < count(&metrics, &metrics.asked));
}

static bool counts_are_unknown(void)
{
    return alive() && !seen.load.has_waiting && !seen.load.has_running && seen.load.has_kv;
}

#define STEPS(n)                                                                                                       \
    "nv_trt_llm_general_metrics{general_type=\"iteration_counter\",model=\"m\",version=\"1\"} " n                      \
    "\nnv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n"

/* Its page goes on showing the last step: what ran then. */
static void test_triton_that_computes_nothing(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2") STEPS("100"));
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(2);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("3") STEPS("101"));
    wait_for_load(3);
    assert_true(eventually(counts_are_unknown)); /* after three seconds */
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("3") STEPS("102"));
    wait_for_load(3);
}

static void test_trtllm_serve_as_text_then_json(void **state)
{
    (void)state;
    set_page(&api, 0, "/prometheus/metrics", SERVE_PAGE("3"));
    set_page(&api, 1, "/metrics", SERVE_JSON("6"));
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(3);
    unsigned clients = count(&api, &api.n_clients);
    set_page(&api, 0, NULL, NULL); /* what worked is gone: found elsewhere */
    wait_for_load(6);
    stays_alive(100);
    assert_true(count(&api, &api.n_clients) <= clients + 1);
    set_page(&api, 1, "/metrics", "[]");
    stays_alive(300); /* nothing new, nothing to look for elsewhere */
    assert_int_equal(logged("metrics"), 0);
}

static void test_refused_metrics_port_ejects_nobody(void **state)
{
    (void)state;
    runtime(RUNTIME_TRTLLM);
    start();
    assert_true(eventually(alive));
    stays_alive(300);
    look();
    assert_false(seen.load.has_waiting || seen.load.has_running || seen.load.has_kv);
    assert_true(count(&api, &api.health) >= 2);
    assert_int_equal(logged("The server has no metrics page"), 1);
}

static void test_metrics_port_that_dies_later(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    set_page(&api, 0, "/metrics", SERVE_JSON("8"));
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(2);
    close_at(&metrics);
    stays_alive(100);
    wait_for_load(8);
}

static void test_metrics_port_alone_is_no_server(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    close_at(&api);
    runtime(RUNTIME_TRTLLM);
    start();
    for (int i = 0; i < 30; i++) {
        look();
        assert_true(dead());
        usleep(10000);
    }
    assert_true(count(&metrics, &metrics.asked) > 3);
}

static void test_triton_that_is_not_ready(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    set_fault(&api, 400, false);
    runtime(RUNTIME_TRTLLM);
    start();
    usleep(200000);
    look();
    assert_true(dead());
    set_fault(&api, 200, false);
    wait_for_load(2);
}

static void test_answers_cut_short_are_no_load(void **state)
{
    (void)state;
    set_page(&api, 0, "/metrics", VLLM_PAGE("1"));
    set_fault(&api, 0, true);
    runtime(RUNTIME_VLLM);
    start();
    usleep(200000);
    look();
    assert_true(dead());
    assert_false(seen.load.has_waiting);
    set_fault(&api, 0, false);
    wait_for_load(1);
}

static void test_redirect_to_a_slash(void **state)
{
    (void)state;
    set_page(&api, 0, "/prometheus/metrics", "redirect");
    set_page(&api, 1, "/prometheus/metrics/", SERVE_PAGE("3"));
    runtime(RUNTIME_TRTLLM);
    start();
    wait_for_load(3);
    set_page(&api, 1, "/prometheus/metrics/", "redirect"); /* and that in circles */
    set_page(&api, 2, "/metrics", SERVE_JSON("6"));
    wait_for_load(6);
}

#define PAGE_MAX (16u << 20) /* of look.c */

static void test_the_longest_page(void **state)
{
    (void)state;
    api.filler = PAGE_MAX - strlen(VLLM_PAGE("1")) + 1;
    set_page(&api, 0, "/metrics", VLLM_PAGE("1"));
    runtime(RUNTIME_VLLM);
    start();
    assert_true(eventually(alive));
    stays_alive(100);
    assert_false(seen.load.has_waiting);
    pthread_mutex_lock(&api.lock);
    api.filler--;
    pthread_mutex_unlock(&api.lock);
    wait_for_load(1);
}

/* ---- runtimes ---- */

static void test_runtime_is_recognised(void **state)
{
    (void)state;
    backend.n_endpoints = 2;
    set_page(&api, 0, "/metrics", SGLANG_PAGE("5"));
    start();
    wait_for_load(5);
    stays_alive(200);
    assert_int_equal(logged("does not say which runtime"), 1); /* for both pods together */
    assert_int_equal(logged("runtime=sglang"), 1);
    assert_int_equal(logged("inference.networking.x-k8s.io/model-server-runtime"), 1);
    assert_int_equal(logged("pool=p "), 1);
    assert_int_equal(logged("pod=pod-"), 1);
}

static void test_vllm_needs_no_runtime(void **state)
{
    (void)state;
    set_page(&api, 0, "/metrics", VLLM_PAGE("1"));
    start();
    wait_for_load(1);
    stays_alive(100);
    assert_int_equal(logged("level="), 0);
    assert_int_equal(count(&api, &api.n_clients), 1);
}

static void test_unsaid_triton_is_found(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", TRITON_PAGE("2"));
    start();
    wait_for_load(2);
    assert_int_equal(logged("runtime=trt-llm"), 1);
}

/* Several servers on one host, and one of them has just that port. */
static void test_who_else_has_tritons_port(void **state)
{
    (void)state;
    open_at(&metrics, "127.77.9.1", SOURCE_TRITON_PORT);
    set_page(&metrics, 0, "/metrics", VLLM_PAGE("2"));
    start();
    assert_true(eventually(alive));
    stays_alive(200);
    look();
    assert_false(seen.load.has_waiting);
    assert_true(count(&metrics, &metrics.asked) > 0);
    assert_int_equal(logged("runtime="), 0);
    assert_int_equal(logged("The server has no metrics page"), 1); /* not: an empty one */
}

static void test_another_runtime_than_said(void **state)
{
    (void)state;
    backend.n_endpoints = 2;
    set_page(&api, 0, "/metrics", SGLANG_PAGE("5"));
    runtime(RUNTIME_VLLM);
    start();
    assert_true(eventually(alive));
    stays_alive(200);
    look();
    assert_false(seen.load.has_waiting);
    assert_int_equal(logged("None of the metrics"), 1);
    assert_int_equal(logged("expected=vllm"), 1);
    assert_int_equal(logged("runtime=sglang"), 1);
    assert_int_equal(logged("no metrics page"), 0);
}

static void test_no_metrics_at_all(void **state)
{
    (void)state;
    runtime(RUNTIME_SGLANG);
    start();
    assert_true(eventually(alive));
    stays_alive(300);
    assert_int_equal(logged("The server has no metrics page"), 1);
    assert_int_equal(logged("status=404"), 1);
    set_page(&api, 0, "/metrics", SGLANG_PAGE("5"));
    wait_for_load(5);
}

#define LIVE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_same_settings_keep_the_rules),
        LIVE(test_port_path_and_names_of_the_pool),
        LIVE(test_port_of_the_endpoint),
        LIVE(test_triton_has_a_port_for_it),
        LIVE(test_triton_that_computes_nothing),
        LIVE(test_trtllm_serve_as_text_then_json),
        LIVE(test_refused_metrics_port_ejects_nobody),
        LIVE(test_metrics_port_that_dies_later),
        LIVE(test_metrics_port_alone_is_no_server),
        LIVE(test_triton_that_is_not_ready),
        LIVE(test_answers_cut_short_are_no_load),
        LIVE(test_redirect_to_a_slash),
        LIVE(test_the_longest_page),
        LIVE(test_runtime_is_recognised),
        LIVE(test_vllm_needs_no_runtime),
        LIVE(test_unsaid_triton_is_found),
        LIVE(test_who_else_has_tritons_port),
        LIVE(test_another_runtime_than_said),
        LIVE(test_no_metrics_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
