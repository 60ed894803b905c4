/* Flow control: what headers ask for and a pool believes, how soon to come back, the room a waiting body keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "base/hash.h"
#include "proxy/impl.h"

static struct gateway g;
static struct worker *w;
static struct request rq;
static struct h1_head head;
static struct conf_objective objectives[] = {{{"batch", 5}, -3}, {{"urgent", 6}, 100}};
static struct conf_backend pool;

static int setup(void **state)
{
    (void)state;
    g = (struct gateway){.o = {.max_body = 1 << 20, .max_body_total = 1 << 30}};
    w = xcalloc(1, sizeof *w);
    w->g = &g;
    w->loop = loop_new(1);
    rq = (struct request){.w = w, .head = &head, .model = STR("qwen")};
    pool = (struct conf_backend){.objectives = objectives,
                                 .n_objectives = ARRAY_LEN(objectives),
                                 .trust = TRUST_OBJECTIVE | TRUST_FAIRNESS | TRUST_TTL,
                                 .queue_ttl_max_us = 60000000};
    sched_params_init(&pool.sched);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    body_cache_free(&w->bodies);
    loop_free(w->loop);
    free(w);
    return 0;
}

static bool reads(const char *headers, const struct conf_model *m)
{
    static char text[1024]; /* the head's spans stay in it */
    struct h1_error e;
    snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n", headers);
    assert_true(h1_parse_request(str_c(text), 65536, &head, &e) > 0);
    rq.pick.core = (struct sched_req){0};
    rq.objective = rq.fairness_id = STR_NULL;
    return flow_read(&rq, &pool, m);
}

static uint64_t flow_of(const char *who)
{
    return hash_bytes(who, strlen(who), 0);
}

static void test_priority(void **state)
{
    (void)state;
    struct conf_model critical = {.criticality = CRIT_CRITICAL, .priority = 1};
    static const struct {
        const char *headers;
        int with_model, without;
    } t[] = {
        {"", 1, 0},
        {"X-Gateway-Inference-Objective: urgent\r\n", 100, 100},
        {"x-llm-d-inference-objective: batch\r\n", -3, -3},
        {"x-gateway-inference-objective: nobody\r\n", 1, 0},
        {"x-gateway-inference-objective: Urgent\r\n", 1, 0}, /* names of objects have a case */
        {"x-gateway-inference-objective: batch\r\nx-gateway-inference-objective: urgent\r\n", -3, -3},
        {"x-gateway-inference-objective:\r\nx-llm-d-inference-objective: urgent\r\n", 100, 100},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        assert_true(reads(t[i].headers, &critical));
        assert_int_equal(rq.pick.core.priority, t[i].with_model);
        assert_true(reads(t[i].headers, NULL));
        assert_int_equal(rq.pick.core.priority, t[i].without);
        assert_int_equal(rq.priority, t[i].without);
    }
    pool.trust = TRUST_FAIRNESS | TRUST_TTL;
    assert_true(reads("X-Gateway-Inference-Objective: urgent\r\n", &critical));
    assert_int_equal(rq.priority, 1);
    assert_int_equal(rq.objective.n, 0);
}

static void test_flow(void **state)
{
    (void)state;
    assert_true(reads("", NULL));
    assert_int_equal(rq.pick.core.flow, flow_of("qwen"));
    assert_true(reads("X-Gateway-Inference-Fairness-Id: tenant-7\r\n", NULL));
    assert_int_equal(rq.pick.core.flow, flow_of("tenant-7"));
    assert_true(reads("X-LLM-D-Inference-Fairness-ID: tenant-7\r\n", NULL));
    assert_int_equal(rq.pick.core.flow, flow_of("tenant-7"));
    assert_true(str_eq(rq.fairness_id, STR("tenant-7")));
    char text[600] = "x-gateway-inference-fairness-id: ", id[401];
    memset(id, 'y', 400);
    id[400] = 0;
    strcat(strcat(text, id), "\r\n");
    assert_true(reads(text, NULL));
    assert_int_equal(rq.pick.core.flow, flow_of(id)); /* all of it counts, */
    assert_int_equal(rq.fairness_id.n, 256);          /* the beginning is shown */
    pool.trust = 0;
    assert_true(reads("X-Gateway-Inference-Fairness-Id: tenant-7\r\n", NULL));
    assert_int_equal(rq.pick.core.flow, flow_of("qwen"));
    rq.model = STR_NULL;
    assert_true(reads("", NULL));
    assert_int_equal(rq.pick.core.flow, 0);
}

static void test_ttl(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t us; /* 0: refused */
    } t[] = {{"500ms", 500000}, {"1.5s", 1500000}, {"1m", 60000000}, {"61s", 60000000}, {"100h", 60000000},
             {"1ns", 1},        {"1us", 1},        {"0", 0},         {"0s", 0},         {"-5s", 0},
             {"30", 0},         {"5d", 0},         {"", 0},          {"soon", 0}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        uint64_t us = 0;
        assert_int_equal(flow_ttl(str_c(t[i].text), 60000000, &us), t[i].us != 0);
        assert_int_equal(us, t[i].us);
    }
    uint64_t us;
    assert_true(flow_ttl(STR("100h"), 0, &us));
    assert_true(us == 360000000000);
    assert_true(reads("X-Penstock-Queue-TTL: 2s\r\n", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 2000000);
    pool.trust = 0;
    assert_true(reads("X-Penstock-Queue-TTL: nonsense\r\n", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 0);
}

/* Where all may be refused early the picker hears of a time limit that ends before the queue's; the limit itself comes
 * first. Else it is the operator's bound, as the queue's. */
static void test_time_limit(void **state)
{
    (void)state;
    rq.deadline_us = worker_now_us(w) + 3000000;
    assert_true(reads("", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 0);
    pool.sched.early_refusal = EARLY_ALL;
    assert_true(reads("", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 3100000);
    assert_true(reads("X-Penstock-Queue-TTL: 2s\r\n", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 2000000);
    assert_true(reads("X-Penstock-Queue-TTL: 20s\r\n", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 3100000);
    rq.deadline_us = worker_now_us(w) + 3600000000;
    assert_true(reads("", NULL));
    assert_int_equal(rq.pick.core.ttl_us, 0); /* the pool's */
}

static void test_retry_after(void **state)
{
    (void)state;
    static const struct {
        double known_s;
        unsigned want;
    } t[] = {{0, 7}, {-1, 7}, {0.001, 1}, {1, 1}, {1.01, 2}, {59.5, 60}, {60, 60}, {61, 60}, {1e300, 60}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(flow_retry_after_s(t[i].known_s, 7), t[i].want);
    assert_int_equal(flow_retry_after_s((double)NAN, 7), 7);
    assert_int_equal(flow_retry_after_s((double)INFINITY, 7), 60);
}

static void test_body_keeps_what_it_needs(void **state)
{
    (void)state;
    struct body b = {0};
    char text[5000];
    memset(text, 'z', sizeof text);
    assert_int_equal(body_add(w, &b, (struct str){text, 3000}, 0), BODY_OK);
    size_t was = b.cap;
    assert_true(was >= 16384);
    char elsewhere[4];
    struct iovec spans[] = {{elsewhere, 4}, {b.p, 100}, {b.p + 100, 2900}, {b.p + 3000, 0}};
    body_fit(w, &b, spans, 4);
    assert_int_equal(b.cap, 3000);
    assert_int_equal(atomic_load(&g.body_bytes), 3000);
    assert_ptr_equal(spans[0].iov_base, elsewhere);
    assert_ptr_equal(spans[1].iov_base, b.p);
    assert_ptr_equal(spans[2].iov_base, b.p + 100);
    assert_ptr_equal(spans[3].iov_base, b.p + 3000);
    assert_memory_equal(b.p, text, 3000);
    const char *at = b.p;
    body_fit(w, &b, spans, 4); /* nothing more to give */
    assert_ptr_equal(b.p, at);
    body_free(w, &b);
    assert_int_equal(atomic_load(&g.body_bytes), 0);
    body_fit(w, &b, NULL, 0);
    assert_null(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ttl, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry_after, setup, teardown),
        cmocka_unit_test_setup_teardown(test_body_keeps_what_it_needs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
