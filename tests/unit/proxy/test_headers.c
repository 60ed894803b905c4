/* Heads out: what is stripped, what is added, filters, rewrites, redirects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/impl.h"

static struct worker *w;
static struct client client;
static struct request rq;
static struct conf_rule rule;
static struct conf_match match;
static struct conf_listener listener = {.port = 8080};
static struct conf_header_mod mod;
static struct conf_rewrite rewrite;
static struct backend backend;
static struct h1_head head;

static const struct conn_ops no_ops;

static int setup(void **state)
{
    (void)state;
    struct addr at;
    w = xcalloc(1, sizeof *w);
    w->loop = loop_new(1);
    buf_init(&w->text, 1 << 20);
    rng_init(&w->rng, 1);
    if (!addr_parse(STR("127.0.0.9"), 9, &at))
        return -1;
    client = (struct client){.w = w, .conn = conn_connect(w->loop, &at, &no_ops, NULL)};
    rq = (struct request){
        .w = w, .c = &client, .rule = &rule, .match = &match, .listener = &listener, .backend = &backend};
    rule = (struct conf_rule){0};
    match = (struct conf_match){0};
    mod = (struct conf_header_mod){0};
    rewrite = (struct conf_rewrite){0};
    arena_init(&rq.arena, 4096);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&rq.arena);
    buf_free(&w->text);
    loop_free(w->loop);
    free(w);
    return 0;
}

static void parse(const char *text)
{
    struct h1_error e;
    assert_true(h1_parse_request(str_c(text), 65536, &head, &e) > 0);
    rq.head = &head;
    rq.path = head.path;
    rq.host = STR("example.com");
}

static const char *sent(uint64_t length)
{
    headers_request(&rq, length);
    return buf_cstr(&w->text);
}

#define HAS(text, what)     assert_non_null(strstr(text, what))
#define HAS_NOT(text, what) assert_null(strstr(text, what))

static void test_strips_hops_and_what_is_ours(void **state)
{
    (void)state;
    parse("POST /v1/completions?x=1 HTTP/1.1\r\nHost: Example.com\r\nConnection: keep-alive, X-Hop\r\nX-Hop: "
          "1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
          "Expect: 100-continue\r\nContent-Length: 5\r\nX-Gateway-Model-Name: "
          "forged\r\nx-gateway-destination-endpoint: 10.0.0.1:80\r\n"
          "X-Gateway-Inference-Objective: high\r\nX-LLM-D-Inference-Fairness-Id: tenant\r\n"
          "x-llm-d-inference-objective: urgent\r\nX-Penstock-Queue-TTL: 17s\r\nX-Prefiller-Host-Port: "
          "a:1\r\nX-Forwarded-For: "
          "1.2.3.4\r\nX-Request-Id: id-1\r\n"
          "Authorization: Bearer k\r\nTraceparent: 00-1\r\n\r\n");
    rq.model = STR("qwen");
    const char *t = sent(7);
    HAS(t, "POST /v1/completions?x=1 HTTP/1.1\r\nHost: Example.com\r\n");
    HAS(t, "X-Gateway-Model-Name: qwen\r\n");
    HAS(t, "X-Forwarded-For: 1.2.3.4, 127.0.0.9\r\n");
    HAS(t, "X-Request-Id: id-1\r\n");
    HAS(t, "Authorization: Bearer k\r\n");
    HAS(t, "Traceparent: 00-1\r\n");
    HAS(t, "Content-Length: 7\r\n\r\n");
    static const char *const gone[] = {"forged",    "10.0.0.1", "high",       "tenant", "urgent", "17s",
                                       "a:1",       "X-Hop",    "Keep-Alive", "TE:",    "Expect", "Content-Length: 5",
                                       "Connection"};
    for (size_t i = 0; i < ARRAY_LEN(gone); i++)
        HAS_NOT(t, gone[i]);
    assert_true(str_eq(rq.request_id, STR("id-1")));
}

static void test_endless_request_id_is_replaced(void **state)
{
    (void)state;
    char text[512], id[301];
    memset(id, 'x', 300);
    id[300] = 0;
    snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: %s\r\n\r\n", id);
    parse(text);
    const char *t = sent(0), *first = strstr(t, "X-Request-Id: ");
    assert_non_null(first);
    assert_null(strstr(first + 1, "X-Request-Id"));
    HAS_NOT(t, "xxx");
    assert_int_equal(rq.request_id.n, 36);
}

static void test_makes_a_request_id_and_no_length_for_get(void **state)
{
    (void)state;
    parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *t = sent(0);
    HAS(t, "X-Request-Id: ");
    assert_int_equal(rq.request_id.n, 36);
    HAS_NOT(t, "Content-Length");
    HAS_NOT(t, "X-Gateway-Model-Name");
}

static void test_request_filters(void **state)
{
    (void)state;
    struct {
        struct str name, value;
    } set[] = {{STR("X-Set"), STR("new")}, {STR("Content-Length"), STR("99")}}, add[] = {{STR("X-Add"), STR("two")}};
    struct str remove[] = {STR("X-Gone")};
    mod.n_set = 2;
    mod.set = (void *)set;
    mod.n_add = 1;
    mod.add = (void *)add;
    mod.remove = remove;
    mod.n_remove = 1;
    rule.req_mod = &mod;
    parse("POST / HTTP/1.1\r\nHost: a\r\nx-set: old\r\nX-Add: one\r\nx-gone: 1\r\nContent-Length: 1\r\n\r\n");
    const char *t = sent(1);
    HAS(t, "X-Set: new\r\n");
    HAS_NOT(t, "old");
    HAS(t, "X-Add: one\r\n");
    HAS(t, "X-Add: two\r\n");
    HAS_NOT(t, "gone");
    HAS_NOT(t, "99"); /* framing is ours */
}

static void test_rewrite(void **state)
{
    (void)state;
    parse("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    match.path_type = MATCH_PREFIX;
    match.path = STR("/v1");
    rewrite = (struct conf_rewrite){
        .hostname = STR("up.example"), .path = STR("/compatible-mode/v1"), .path_type = PATH_PREFIX};
    rule.rewrite = &rewrite;
    HAS(sent(0), "GET /compatible-mode/v1/models HTTP/1.1\r\nHost: up.example\r\n");
    rewrite.path = STR("/");
    HAS(sent(0), "GET /models HTTP/1.1\r\n");
    rewrite.path_type = PATH_FULL;
    rewrite.path = STR("/x");
    HAS(sent(0), "GET /x HTTP/1.1\r\n");
}

static void test_replace_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *path, *prefix, *to, *want;
    } v[] = {{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
             {"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
             {"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
             {"/foo", "/foo", "/xyz", "/xyz"},
             {"/foo/", "/foo", "/xyz", "/xyz/"},
             {"/foo/bar", "/foo", "/", "/bar"},
             {"/foo", "/foo", "/", "/"},
             {"/foo/bar", "/", "/xyz", "/xyz/foo/bar"}};
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        struct str got = headers_replace_prefix(&rq.arena, str_c(v[i].path), str_c(v[i].prefix), str_c(v[i].to));
        assert_true(str_eq_c(got, v[i].want));
    }
}

static void test_redirect(void **state)
{
    (void)state;
    parse("GET /a/b?q=1 HTTP/1.1\r\nHost: example.com:8080\r\n\r\n");
    struct conf_redirect rd = {.path_type = PATH_KEEP};
    assert_true(str_eq_c(headers_location(&rq, &rd), "http://example.com:8080/a/b?q=1"));
    rd.scheme = STR("https");
    assert_true(str_eq_c(headers_location(&rq, &rd), "https://example.com/a/b?q=1"));
    rd = (struct conf_redirect){.hostname = STR("o.example"), .port = 80, .path_type = PATH_FULL, .path = STR("/new")};
    assert_true(str_eq_c(headers_location(&rq, &rd), "http://o.example/new?q=1"));
}

static struct h1_head resp;

static const char *answered(const char *text)
{
    struct h1_error e;
    assert_true(h1_parse_response(str_c(text), 65536, false, &resp, &e) > 0);
    rq.framing = resp.framing;
    headers_response(&rq, &resp);
    return buf_cstr(&w->text);
}

static void test_response_framing(void **state)
{
    (void)state;
    rq.client_keep = true;
    const char *t = answered("HTTP/1.1 200 Fine\r\nServer: uvicorn\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
    assert_string_equal(t, "HTTP/1.1 200 Fine\r\nServer: uvicorn\r\nContent-Length: 5\r\n\r\n");
    rq.client_keep = false;
    t = answered("HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\r\n");
    assert_string_equal(t, "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    rq.mode = RELAY_DECHUNK;
    t = answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_string_equal(t, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    rq.mode = RELAY_ENCHUNK;
    rq.client_keep = true;
    t = answered("HTTP/1.1 200 OK\r\nX: y\r\n\r\n");
    assert_string_equal(t, "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n");
    rq.mode = RELAY_RAW;
    t = answered("HTTP/1.1 204 Gone\r\nX: y\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(t, "HTTP/1.1 204 Gone\r\nX: y\r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_strips_hops_and_what_is_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_makes_a_request_id_and_no_length_for_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_request_id_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rewrite, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redirect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_response_framing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
