/* The small HTTP server and client against each other and against raw sockets. */
#include "net_test.h"
#include "net/httpc.h"
#include "net/httpd.h"
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct loop *l;
static struct httpd *d;
static struct addr at;
static int n_requests, n_aborts;
static struct httpd_req *held; /* of /hold */
static struct timer later;
static uint16_t last_peer_port;

static void on_abort(struct httpd_req *rq)
{
    assert_ptr_equal(rq->user, &held);
    n_aborts++;
    held = NULL;
}

static void finish_later(struct timer *t UNUSED)
{
    struct httpd_req *rq = held;
    held = NULL;
    httpd_chunk(rq, STR("part 2"));
    httpd_end(rq);
}

struct route {
    const char *path;
    void (*fn)(struct httpd_req *rq);
};

static void r_echo(struct httpd_req *rq)
{
    httpd_respond(rq, 200, "text/plain", "X-Test: yes\r\n", rq->body);
}

static void r_hold(struct httpd_req *rq)
{
    held = rq;
    rq->user = &held;
    rq->on_abort = on_abort;
}

static void r_zombie(struct httpd_req *rq)
{
    held = rq; /* without on_abort: must survive the client */
}

static void r_stream(struct httpd_req *rq)
{
    httpd_begin(rq, 200, "text/event-stream", NULL);
    httpd_chunk(rq, STR("part 1 "));
    held = rq;
    later.fn = finish_later;
    timer_set(l, &later, loop_now_us(l) + 5000);
}

static void r_big(struct httpd_req *rq)
{
    static char big[1 << 20];
    memset(big, 'b', sizeof(big));
    httpd_respond(rq, 200, "application/octet-stream", NULL, (struct str){big, sizeof(big)});
}

static void r_big_chunked(struct httpd_req *rq)
{
    char piece[1000];
    memset(piece, 'c', sizeof(piece));
    httpd_begin(rq, 200, NULL, NULL);
    for (int i = 0; i < 1000; i++)
        httpd_chunk(rq, (struct str){piece, sizeof(piece)});
    httpd_end(rq);
}

static void r_empty(struct httpd_req *rq)
{
    httpd_respond(rq, 204, NULL, NULL, STR_NULL);
}

static void r_reset(struct httpd_req *rq)
{
    httpd_kill(rq, true);
}

static void r_cut(struct httpd_req *rq)
{
    httpd_begin(rq, 200, NULL, NULL);
    httpd_chunk(rq, STR("half"));
    httpd_kill(rq, false);
}

static void r_garbage(struct httpd_req *rq)
{
    httpd_raw(rq, STR("this is not HTTP\r\n\r\n"));
    httpd_kill(rq, false);
}

static void r_close_server(struct httpd_req *rq)
{
    httpd_respond(rq, 200, NULL, "Connection: close\r\n", STR("bye"));
    httpd_close(d);
    d = NULL;
}

static void handler(void *ctx, struct httpd_req *rq)
{
    static const struct route routes[] = {
        {"/echo", r_echo},
        {"/hold", r_hold},
        {"/stream", r_stream},
        {"/big", r_big},
        {"/bigchunked", r_big_chunked},
        {"/empty", r_empty},
        {"/reset", r_reset},
        {"/cut", r_cut},
        {"/garbage", r_garbage},
        {"/zombie", r_zombie},
        {"/closeserver", r_close_server},
    };
    assert_ptr_equal(ctx, &d);
    n_requests++;
    last_peer_port = addr_port(conn_peer(rq->conn));
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (str_eq_c(rq->head->path, routes[i].path)) {
            routes[i].fn(rq);
            return;
        }
    }
    httpd_respond(rq, 404, "text/plain", NULL, STR("no\n"));
}

static int setup(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    l = loop_new(1.0);
    d = httpd_open(l, &any, 100000, handler, &d, &err);
    assert_non_null(d);
    at = loopback(httpd_port(d));
    n_requests = n_aborts = 0;
    held = NULL;
    memset(&later, 0, sizeof(later));
    return 0;
}

static int teardown(void **state UNUSED)
{
    httpd_close(d);
    loop_free(l);
    return 0;
}

/* ---- the client ---- */

struct result {
    unsigned status;
    const char *err;
    size_t got, enough; /* enough: on_body says stop from there on (0: never) */
    int done;
    char text[256];
    bool free_in_body, free_in_done;
    struct httpc *c;
};

static bool on_body(void *ctx, struct str piece)
{
    struct result *r = ctx;
    if (r->got < sizeof(r->text) - 1)
        memcpy(r->text + r->got, piece.p, MIN(piece.n, sizeof(r->text) - 1 - r->got));
    r->got += piece.n;
    if (r->free_in_body) {
        httpc_free(r->c);
        loop_stop(l);
    }
    return !r->enough || r->got < r->enough;
}

static void on_done(void *ctx, unsigned status, const char *err)
{
    struct result *r = ctx;
    r->status = status;
    r->err = err;
    r->done++;
    if (r->free_in_done)
        httpc_free(r->c);
    loop_stop(l);
}

static struct httpc_call call(const char *method, const char *target, struct str body, struct result *r)
{
    return (struct httpc_call){.method = str_c(method),
                               .target = str_c(target),
                               .body = body,
                               .timeout_us = 2000000,
                               .on_body = on_body,
                               .on_done = on_done,
                               .ctx = r};
}

static struct result ask(struct httpc *c, const char *method, const char *target, struct str body)
{
    struct result r = {0};
    struct httpc_call k = call(method, target, body, &r);
    assert_true(httpc_start(c, &k));
    assert_true(httpc_busy(c));
    assert_false(httpc_start(c, &k));
    run_within(l, 5000000);
    assert_int_equal(r.done, 1);
    assert_false(httpc_busy(c));
    return r;
}

static void test_keep_alive(void **state UNUSED)
{
    struct httpc *c = httpc_new(l, &at);
    uint16_t port = 0;
    for (int i = 0; i < 50; i++) {
        struct result r = ask(c, "POST", "/echo", STR("hello"));
        assert_int_equal(r.status, 200);
        assert_null(r.err);
        assert_string_equal(r.text, "hello");
        if (i)
            assert_int_equal(last_peer_port, port);
        port = last_peer_port;
    }
    assert_int_equal(ask(c, "GET", "/nowhere", STR_NULL).status, 404);
    assert_int_equal(ask(c, "GET", "/empty", STR_NULL).status, 204);
    struct result head = ask(c, "HEAD", "/big", STR_NULL);
    assert_int_equal(head.status, 200);
    assert_int_equal(head.got, 0);
    assert_int_equal(ask(c, "GET", "/big", STR_NULL).got, 1 << 20);
    assert_int_equal(ask(c, "GET", "/bigchunked", STR_NULL).got, 1000000);
    assert_string_equal(ask(c, "GET", "/stream", STR_NULL).text, "part 1 part 2");
    assert_int_equal(last_peer_port, port);
    httpc_free(c);
}

static void test_early_stop(void **state UNUSED)
{
    struct httpc *c = httpc_new(l, &at);
    ask(c, "GET", "/echo", STR_NULL);
    uint16_t port = last_peer_port;
    struct result r = {.enough = 10};
    struct httpc_call k = call("GET", "/big", STR_NULL, &r); /* too much left: closed */
    assert_true(httpc_start(c, &k));
    run_within(l, 5000000);
    assert_int_equal(r.status, 200);
    assert_true(r.got < 1 << 20);
    ask(c, "GET", "/echo", STR_NULL);
    assert_int_not_equal(last_peer_port, port);
    port = last_peer_port;
    char body[90000];
    memset(body, 'x', sizeof(body));
    r = (struct result){.enough = 1};
    k = call("POST", "/echo", (struct str){body, sizeof(body)}, &r); /* little left: read to the end */
    assert_true(httpc_start(c, &k));
    run_within(l, 5000000);
    assert_int_equal(r.status, 200);
    assert_true(r.got < sizeof(body));
    ask(c, "GET", "/echo", STR_NULL);
    assert_int_equal(last_peer_port, port);
    httpc_free(c);
}

static void test_failures(void **state UNUSED)
{
    struct httpc *c = httpc_new(l, &at);
    assert_string_equal(ask(c, "GET", "/reset", STR_NULL).err, "reset");
    assert_string_equal(ask(c, "GET", "/cut", STR_NULL).err, "reset");
    assert_string_equal(ask(c, "GET", "/garbage", STR_NULL).err, "garbage");
    struct result r = {0};
    struct httpc_call k = call("GET", "/hold", STR_NULL, &r);
    k.timeout_us = 30000;
    assert_true(httpc_start(c, &k));
    run_within(l, 5000000);
    assert_string_equal(r.err, "timeout");
    assert_int_equal(r.status, 0);
    run_for(l, 20000);
    assert_int_equal(n_aborts, 1); /* the server saw it leave */
    httpc_free(c);
    httpd_close(d);
    d = NULL;
    run_for(l, 1000);
    c = httpc_new(l, &at);
    assert_string_equal(ask(c, "GET", "/echo", STR_NULL).err, "connect");
    httpc_free(c);
}

/* A kept connection that the server closed meanwhile: asked again on a new one, the caller sees nothing. */
static void test_stale_connection_is_retried(void **state UNUSED)
{
    struct httpc *c = httpc_new(l, &at);
    httpd_set_idle(d, 20000);
    ask(c, "GET", "/echo", STR_NULL);
    uint16_t port = last_peer_port;
    run_for(l, 60000); /* seen idle, closed by the server */
    assert_int_equal(ask(c, "GET", "/echo", STR_NULL).status, 200);
    assert_int_not_equal(last_peer_port, port);
    n_requests = 0;
    assert_string_equal(ask(c, "GET", "/reset", STR_NULL).err, "reset"); /* once on the kept one, once on a new one */
    assert_int_equal(n_requests, 2);
    httpc_free(c);
}

static void test_free_from_callbacks(void **state UNUSED)
{
    struct result r = {.free_in_done = true};
    r.c = httpc_new(l, &at);
    struct httpc_call k = call("GET", "/echo", STR_NULL, &r);
    assert_true(httpc_start(r.c, &k));
    run_within(l, 2000000);
    assert_int_equal(r.done, 1);
    r = (struct result){.free_in_body = true};
    r.c = httpc_new(l, &at);
    k = call("GET", "/bigchunked", STR_NULL, &r);
    assert_true(httpc_start(r.c, &k));
    run_within(l, 2000000);
    run_for(l, 20000);
    assert_int_equal(r.done, 0);
    r = (struct result){0};
    struct httpc *c = httpc_new(l, &at);
    k = call("GET", "/hold", STR_NULL, &r);
    assert_true(httpc_start(c, &k));
    run_for(l, 20000);
    httpc_free(c); /* under way: no on_done */
    run_for(l, 20000);
    assert_int_equal(r.done, 0);
    assert_int_equal(n_aborts, 1);
}

/* ---- raw clients ---- */

/* Sends `in` as it is and returns all that comes back within a little while. */
static struct str talk(const char *in, size_t n, char *out, size_t cap)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t got = 0, sent = 0;
    bool eof = false;
    assert_int_equal(connect(fd, &at.ss.sa, at.len), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 60 && !eof; i++) {
        if (sent < n) {
            ssize_t w = write(fd, in + sent, n - sent);
            sent += w > 0 ? (size_t)w : 0;
        }
        run_for(l, 1000);
        ssize_t r;
        while (got < cap && (r = read(fd, out + got, cap - got)) >= 0) {
            got += (size_t)r;
            eof = r == 0;
            if (eof)
                break;
        }
    }
    close(fd);
    run_for(l, 5000);
    return (struct str){out, got};
}

static int count(struct str s, const char *needle)
{
    int n = 0;
    for (ptrdiff_t at_off; (at_off = str_find(s, str_c(needle))) >= 0; n++)
        s = str_from(s, (size_t)at_off + 1);
    return n;
}

static void test_pipelining(void **state UNUSED)
{
    static char out[200000];
    static const char in[] =
        "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"; /* behind a close: never served */
    struct str s = talk(in, sizeof(in) - 1, out, sizeof(out));
    assert_int_equal(count(s, "HTTP/1.1 200 OK\r\n"), 4);
    assert_int_equal(n_requests, 4);
    assert_true(str_find(s, STR("part 1 ")) < str_find(s, STR("hello")));
    assert_true(str_find(s, STR("hello")) < str_find(s, STR("abcde")));
    assert_int_equal(count(s, "Connection: close\r\n"), 1);
    assert_int_equal(count(s, "\r\n\r\n7\r\npart 1 \r\n6\r\npart 2\r\n0\r\n\r\n"), 1);
}

static void test_http_1_0(void **state UNUSED)
{
    static char out[4096];
    static const char in[] = "GET /stream HTTP/1.0\r\n\r\n";
    struct str s = talk(in, sizeof(in) - 1, out, sizeof(out));
    assert_true(str_ends(s, STR("\r\n\r\npart 1 part 2")));
    assert_int_equal(count(s, "chunked"), 0);
    static const char keep[] = "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /echo HTTP/1.0\r\n\r\n";
    s = talk(keep, sizeof(keep) - 1, out, sizeof(out));
    assert_int_equal(count(s, "200 OK"), 2);
    assert_int_equal(count(s, "Connection: keep-alive\r\n"), 1);
}

static void test_refusals(void **state UNUSED)
{
    static char out[100000], big[300000];
    static const struct {
        const char *in, *status;
    } v[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"BLAH\r\n\r\n", "HTTP/1.1 400 "},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n", "HTTP/1.1 413 "},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 "},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 "},
    };
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        struct str s = talk(v[i].in, strlen(v[i].in), out, sizeof(out));
        assert_true(str_starts(s, str_c(v[i].status)));
        assert_int_equal(count(s, "Connection: close\r\n"), 1);
    }
    /* a body above the bound without a length, sent on and on: the 413 arrives all the same */
    int n = snprintf(big, sizeof(big), "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n");
    memset(big + n, 'y', sizeof(big) - (size_t)n);
    struct str s = talk(big, sizeof(big), out, sizeof(out));
    assert_true(str_starts(s, STR("HTTP/1.1 413 ")));
    /* a head without an end */
    n = snprintf(big, sizeof(big), "GET / HTTP/1.1\r\nHost: x\r\nA: ");
    memset(big + n, 'y', sizeof(big) - (size_t)n);
    s = talk(big, 100000, out, sizeof(out));
    assert_true(str_starts(s, STR("HTTP/1.1 431 ")));
    assert_int_equal(n_requests, 0);
}

static void test_expect_continue(void **state UNUSED)
{
    static char out[4096];
    static const char in[] = "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    struct str s = talk(in, sizeof(in) - 1, out, sizeof(out));
    assert_true(str_eq(s, STR("HTTP/1.1 100 Continue\r\n\r\n")));
}

static void test_split_everywhere(void **state UNUSED)
{
    static const char in[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz";
    char b[4096];
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    assert_int_equal(connect(fd, &at.ss.sa, at.len), 0);
    for (size_t i = 0; i < sizeof(in) - 1; i++) {
        assert_int_equal(write(fd, in + i, 1), 1);
        run_for(l, 300);
    }
    run_for(l, 5000);
    ssize_t n = read(fd, b, sizeof(b));
    assert_true(n > 0);
    struct str s = {b, (size_t)n};
    assert_int_equal(count(s, "\r\n\r\nabcde"), 1);
    assert_int_equal(count(s, "\r\n\r\nxyz"), 1);
    close(fd);
}

static void test_client_leaves(void **state UNUSED)
{
    static char out[4096];
    static const char in[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", z[] = "GET /zombie HTTP/1.1\r\nHost: x\r\n\r\n";
    talk(in, sizeof(in) - 1, out, sizeof(out));
    assert_int_equal(n_aborts, 1);
    talk(z, sizeof(z) - 1, out, sizeof(out));
    assert_non_null(held);
    httpd_begin(held, 200, NULL, NULL);
    httpd_chunk(held, STR("into the void"));
    assert_int_equal(httpd_backlog(held), 0);
    httpd_end(held);
}

static void test_server_closes_under_its_requests(void **state UNUSED)
{
    struct httpc *c = httpc_new(l, &at), *c2 = httpc_new(l, &at);
    struct result r = {0}, r2 = {0};
    struct httpc_call k = call("GET", "/hold", STR_NULL, &r), k2 = call("GET", "/closeserver", STR_NULL, &r2);
    assert_true(httpc_start(c, &k));
    run_for(l, 10000);
    assert_true(httpc_start(c2, &k2));
    run_within(l, 2000000);
    run_for(l, 20000);
    assert_int_equal(n_aborts, 1);
    assert_string_equal(r.err, "reset");
    assert_int_equal(r2.status, 200);
    assert_string_equal(r2.text, "bye");
    httpc_free(c);
    httpc_free(c2);
}

static void *server_thread(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void test_blocking_get(void **state UNUSED)
{
    pthread_t th;
    struct buf out;
    struct errbuf err;
    buf_init(&out, 2 << 20);
    assert_int_equal(pthread_create(&th, NULL, server_thread, l), 0);
    assert_int_equal(httpc_get(&at, STR_NULL, STR("/big"), STR("Connection: close\r\n"), 5000000, &out, &err), 200);
    assert_int_equal(out.n, 1 << 20);
    assert_int_equal(httpc_get(&at, STR_NULL, STR("/none"), STR("Connection: close\r\n"), 5000000, &out, NULL), 404);
    assert_int_equal(httpc_get(&at, STR_NULL, STR("/garbage"), STR("Connection: close\r\n"), 5000000, &out, &err), 0);
    assert_non_null(strstr(err.msg, "did not answer in HTTP"));
    buf_free(&out);
    buf_init(&out, 1000);
    assert_int_equal(httpc_get(&at, STR_NULL, STR("/big"), STR("Connection: close\r\n"), 5000000, &out, &err), 0);
    assert_non_null(strstr(err.msg, "too long"));
    buf_free(&out);
    loop_stop(l);
    pthread_join(th, NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_keep_alive),
        T(test_early_stop),
        T(test_failures),
        T(test_stale_connection_is_retried),
        T(test_free_from_callbacks),
        T(test_pipelining),
        T(test_http_1_0),
        T(test_refusals),
        T(test_expect_continue),
        T(test_split_everywhere),
        T(test_client_leaves),
        T(test_server_closes_under_its_requests),
        T(test_blocking_get),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
