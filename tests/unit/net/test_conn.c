/* Connections: echo, back-pressure with bounded memory, half close, reset, abort, pause, linger, listeners. */
#include "net_test.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static struct loop *l;
static struct listener *ln;
static struct addr at;

/* What happened on one end. */
struct end {
    struct conn *c;
    size_t got, eofs, errors, drains, connects, most_pending;
    int err, connect_err;
    char text[256]; /* the first bytes received */
    size_t stop_at; /* stop the loop when this much has arrived (0: never) */
    bool stop_on_eof, stop_on_error, echo, pause_on_pending, close_on_eof;
    struct end *peer; /* pause its reading while our output waits */
};
static struct end srv, cli;

static void e_connect(struct conn *c, int err)
{
    struct end *e = conn_ctx(c);
    e->connects++;
    e->connect_err = err;
    if (err) {
        conn_close(c);
        e->c = NULL;
        loop_stop(l);
    }
}

static void e_data(struct conn *c, struct str d)
{
    struct end *e = conn_ctx(c);
    if (e->got < sizeof(e->text) - 1)
        memcpy(e->text + e->got, d.p, MIN(d.n, sizeof(e->text) - 1 - e->got));
    e->got += d.n;
    if (e->echo && conn_write_str(c, d) && e->pause_on_pending)
        conn_pause(c, true);
    e->most_pending = MAX(e->most_pending, conn_pending(c));
    if (e->stop_at && e->got >= e->stop_at)
        loop_stop(l);
}

static void e_eof(struct conn *c)
{
    struct end *e = conn_ctx(c);
    e->eofs++;
    if (e->close_on_eof) {
        conn_close(c);
        e->c = NULL;
    }
    if (e->stop_on_eof)
        loop_stop(l);
}

static void e_drain(struct conn *c)
{
    struct end *e = conn_ctx(c);
    e->drains++;
    conn_pause(c, false);
}

static void e_error(struct conn *c, int err)
{
    struct end *e = conn_ctx(c);
    e->errors++;
    e->err = err;
    conn_close(c);
    e->c = NULL;
    if (e->stop_on_error)
        loop_stop(l);
}

static const struct conn_ops end_ops = {
    .on_connect = e_connect, .on_data = e_data, .on_eof = e_eof, .on_drain = e_drain, .on_error = e_error};

static void accept_srv(struct listener *from, struct conn *c)
{
    assert_ptr_equal(listener_ctx(from), &srv);
    srv.c = c;
    conn_set(c, &end_ops, &srv);
}

static int setup(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    l = loop_new(1.0);
    memset(&srv, 0, sizeof(srv));
    memset(&cli, 0, sizeof(cli));
    ln = listener_open(l, &any, accept_srv, &srv, &err);
    assert_non_null(ln);
    at = loopback(listener_port(ln));
    return 0;
}

static int teardown(void **state UNUSED)
{
    loop_free(l);
    return 0;
}

/* A plain blocking client socket beside the loop, for what only a foreign peer does. */
static int raw_client(int rcvbuf)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    if (rcvbuf)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
    assert_int_equal(connect(fd, &at.ss.sa, at.len), 0);
    run_for(l, 5000);
    assert_non_null(srv.c);
    return fd;
}

static void reset_raw(int fd)
{
    struct linger rst = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
    close(fd);
}

static void test_echo(void **state UNUSED)
{
    srv.echo = true;
    cli.c = conn_connect(l, &at, &end_ops, &cli);
    assert_int_equal(conn_write_str(cli.c, STR("early ")), 6); /* before it is connected: kept */
    cli.stop_at = 6;
    run_within(l, 2000000);
    assert_int_equal(cli.connects, 1);
    assert_int_equal(cli.connect_err, 0);
    cli.stop_at = 11;
    struct iovec v[3] = {{(char *)(uintptr_t) "he", 2}, {(char *)(uintptr_t) "", 0}, {(char *)(uintptr_t) "llo", 3}};
    assert_int_equal(conn_write(cli.c, v, 3), 0);
    run_within(l, 2000000);
    assert_string_equal(cli.text, "early hello");
    assert_true(addr_eq(conn_peer(cli.c), &at));
    assert_ptr_equal(conn_loop(cli.c), l);
    cli.stop_on_eof = true;
    conn_close(srv.c);
    run_within(l, 2000000);
    conn_close(cli.c);
}

static void test_connect_refused_comes_once_and_later(void **state UNUSED)
{
    listener_close(ln);
    cli.c = conn_connect(l, &at, &end_ops, &cli);
    assert_int_equal(cli.connects, 0); /* never inside the call */
    run_within(l, 2000000);
    assert_int_equal(cli.connects, 1);
    assert_int_equal(cli.connect_err, -ECONNREFUSED);
    assert_int_equal(cli.errors, 0);
}

static void test_connect_then_close_says_nothing(void **state UNUSED)
{
    cli.c = conn_connect(l, &at, &end_ops, &cli);
    conn_close(cli.c);
    run_for(l, 20000);
    assert_int_equal(cli.connects + cli.errors + cli.eofs, 0);
}

/* 100 MB through an echo server to a reader that stops now and then: the server never holds more than its one unsent
 * read. */
struct pump {
    struct conn *c;
    size_t sent, got, all;
    uint32_t sum_out, sum_in;
    int rests;
    struct timer wake;
    bool waiting;
    char chunk[48 * 1024];
};

static void pump_send(struct pump *p)
{
    while (p->sent < p->all) {
        size_t n = MIN(sizeof(p->chunk), p->all - p->sent);
        for (size_t i = 0; i < n; i += 997)
            p->chunk[i] = (char)((p->sent + i) * 31);
        struct iovec v = {p->chunk, n};
        size_t took = conn_send(p->c, &v, 1);
        for (size_t i = 0; i < took; i++)
            p->sum_out = p->sum_out * 31 + (unsigned char)p->chunk[i];
        p->sent += took;
        if (took < n)
            return;
    }
}

static void pump_connect(struct conn *c, int err)
{
    assert_int_equal(err, 0);
    pump_send(conn_ctx(c));
}

static void pump_wake(struct timer *t)
{
    struct pump *p = CONTAINER_OF(t, struct pump, wake);
    conn_pause(p->c, false);
}

static void pump_data(struct conn *c, struct str d)
{
    struct pump *p = conn_ctx(c);
    for (size_t i = 0; i < d.n; i++)
        p->sum_in = p->sum_in * 31 + (unsigned char)d.p[i];
    p->got += d.n;
    if (p->got == p->all)
        loop_stop(l);
    if (p->got / (10u << 20) > (size_t)p->rests) { /* every 10 MB the reader goes away for a while */
        p->rests++;
        conn_pause(c, true);
        timer_set(l, &p->wake, loop_now_us(l) + 20000);
    }
}

static void pump_drain(struct conn *c)
{
    pump_send(conn_ctx(c));
}

static void test_100_mb_with_a_slow_reader(void **state UNUSED)
{
    static const struct conn_ops ops = {.on_connect = pump_connect, .on_data = pump_data, .on_drain = pump_drain};
    struct pump *p = calloc(1, sizeof(*p));
    p->all = 100u << 20;
    p->wake.fn = pump_wake;
    srv.echo = srv.pause_on_pending = true;
    p->c = conn_connect(l, &at, &ops, p);
    run_within(l, 100000000);
    assert_int_equal(p->got, p->all);
    assert_int_equal(p->sum_in, p->sum_out);
    assert_true(srv.drains > 0);
    assert_true(srv.most_pending <= 64 * 1024); /* one read at most waits */
    assert_int_equal(conn_pending(srv.c), 0);
    conn_close(p->c);
    free(p);
}

static void test_half_close(void **state UNUSED)
{
    cli.c = conn_connect(l, &at, &end_ops, &cli);
    conn_write_str(cli.c, STR("question"));
    conn_shutdown(cli.c); /* after what is pending */
    srv.stop_on_eof = true;
    run_within(l, 2000000);
    assert_string_equal(srv.text, "question");
    assert_int_equal(srv.eofs, 1);
    assert_int_equal(conn_write_str(srv.c, STR("answer")), 0); /* writing still works */
    cli.stop_at = 6;
    run_within(l, 2000000);
    assert_string_equal(cli.text, "answer");
    assert_int_equal(conn_write_str(cli.c, STR("no more")), 0); /* ignored after the half close */
    conn_shutdown(srv.c);                                       /* both directions are over now: no event may spin */
    cli.stop_on_eof = true;
    run_within(l, 2000000);
    struct rusage a, b;
    getrusage(RUSAGE_SELF, &a);
    run_for(l, 200000);
    getrusage(RUSAGE_SELF, &b);
    assert_true((b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 + b.ru_stime.tv_usec - a.ru_stime.tv_usec < 60000);
    assert_int_equal(srv.errors + cli.errors, 0);
    assert_int_equal(srv.eofs + cli.eofs, 2);
    conn_close(srv.c);
    conn_close(cli.c);
}

static void test_peer_reset_is_one_error(void **state UNUSED)
{
    int fd = raw_client(0);
    srv.stop_on_error = true;
    reset_raw(fd);
    run_within(l, 2000000);
    assert_int_equal(srv.errors, 1);
    assert_int_equal(srv.err, -ECONNRESET);
    run_for(l, 10000);
    assert_int_equal(srv.errors, 1);
}

static void test_abort_resets_the_peer(void **state UNUSED)
{
    int fd = raw_client(0);
    char b;
    conn_write_str(srv.c, STR("x"));
    conn_abort(srv.c);
    run_for(l, 5000);
    ssize_t n = read(fd, &b, 1);
    if (n == 1)
        n = read(fd, &b, 1);
    assert_int_equal(n, -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void test_write_to_a_gone_peer(void **state UNUSED)
{
    int fd = raw_client(0);
    conn_pause(srv.c, true); /* so that the write finds out */
    reset_raw(fd);
    srv.stop_on_error = true;
    conn_write_str(srv.c, STR("a"));
    conn_write_str(srv.c, STR("b"));
    assert_int_equal(srv.errors, 0); /* not inside the write */
    run_within(l, 2000000);
    assert_int_equal(srv.errors, 1);
}

/* A server that answers early and resets: the answer must be seen before the error. */
static void test_last_words_before_the_reset(void **state UNUSED)
{
    int fd = raw_client(0);
    assert_int_equal(write(fd, "413 early", 9), 9);
    reset_raw(fd);
    conn_write_str(srv.c, STR("more body")); /* fails: the answer lies unread */
    srv.stop_on_error = true;
    run_within(l, 2000000);
    assert_string_equal(srv.text, "413 early");
    assert_int_equal(srv.errors, 1);
}

static void test_paused_sees_eof_but_not_before_data(void **state UNUSED)
{
    int fd = raw_client(0);
    conn_pause(srv.c, true);
    close(fd);
    srv.stop_on_eof = true;
    run_within(l, 2000000);
    assert_int_equal(srv.eofs, 1);
    conn_close(srv.c);
    srv = (struct end){0};

    fd = raw_client(0);
    conn_pause(srv.c, true);
    assert_int_equal(write(fd, "data", 4), 4);
    close(fd);
    struct rusage a, b;
    getrusage(RUSAGE_SELF, &a);
    run_for(l, 200000);
    getrusage(RUSAGE_SELF, &b);
    assert_int_equal(srv.eofs + srv.got, 0);
    assert_true((b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 + b.ru_stime.tv_usec - a.ru_stime.tv_usec < 60000);
    srv.stop_on_eof = true;
    conn_pause(srv.c, false);
    run_within(l, 2000000);
    assert_string_equal(srv.text, "data");
    assert_int_equal(srv.eofs, 1);
    conn_close(srv.c);
}

static void test_paused_sees_reset(void **state UNUSED)
{
    int fd = raw_client(0);
    conn_pause(srv.c, true);
    assert_int_equal(write(fd, "data", 4), 4);
    run_for(l, 5000);
    assert_int_equal(srv.got, 0);
    srv.stop_on_error = true;
    reset_raw(fd);
    run_within(l, 2000000);
    assert_int_equal(srv.errors, 1);
}

static void test_recv_into(void **state UNUSED)
{
    int fd = raw_client(0);
    char mine[8] = {0};
    conn_recv_into(srv.c, mine, 6);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    srv.stop_at = 10;
    run_within(l, 2000000);
    assert_memory_equal(mine, "012345\0\0", 8);
    assert_string_equal(srv.text, "0123456789");
    conn_close(srv.c);
    close(fd);
}

/* conn_close sends what waits, also to a slow reader, and the answer survives input that nobody read. */
static void test_close_flushes_and_lingers(void **state UNUSED)
{
    int fd = raw_client(0);
    enum { BIG = 16 << 20 };
    char *big = malloc(BIG);
    memset(big, 'z', BIG);
    conn_pause(srv.c, true);
    assert_int_equal(write(fd, "unread request body", 19), 19);
    assert_true(conn_write_str(srv.c, (struct str){big, BIG}) > 0);
    conn_close(srv.c);
    size_t got = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 5000; i++) {
        run_for(l, 500);
        ssize_t n = read(fd, big, BIG);
        if (n == 0)
            break;
        if (n < 0)
            assert_int_equal(errno, EAGAIN);
        else
            got += (size_t)n;
    }
    assert_int_equal(got, BIG);
    close(fd);
    run_for(l, 20000);
    assert_int_equal(srv.errors + srv.eofs + srv.drains, 0); /* no callbacks after conn_close */
    free(big);
}

static size_t open_fds(void)
{
    size_t n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* A reader that never reads: conn_close gives up after 5 s of the loop's time. */
static void test_close_is_bounded(void **state UNUSED)
{
    loop_free(l);
    l = loop_new(2.0);
    struct errbuf err;
    srv = (struct end){0};
    ln = listener_open(l, &at, accept_srv, &srv, &err);
    assert_non_null(ln);
    int fd = raw_client(4096);
    size_t before = open_fds();
    char *big = calloc(1, 16 << 20);
    assert_true(conn_write_str(srv.c, (struct str){big, 16 << 20}) > 0);
    conn_close(srv.c);
    run_for(l, 500000);
    assert_int_equal(open_fds(), before); /* still trying */
    run_for(l, 5500000);
    assert_int_equal(open_fds(), before - 1);
    free(big);
    close(fd);
}

static void on_data_close(struct conn *c, struct str d UNUSED)
{
    conn_close(c);
    conn_close(c); /* harmless until the turn ends */
    conn_write_str(c, STR("nobody"));
}

static void test_close_inside_callback(void **state UNUSED)
{
    static const struct conn_ops ops = {.on_data = on_data_close};
    int fd = raw_client(0);
    conn_set(srv.c, &ops, NULL);
    assert_int_equal(write(fd, "x", 1), 1);
    run_for(l, 10000);
    char b;
    assert_int_equal(read(fd, &b, 1), 0);
    close(fd);
}

/* Two connections, each of which closes the other when it gets data in the same turn. */
static struct conn *pair[2];
static int pair_n, pair_hits;

static void pair_data(struct conn *c, struct str d UNUSED)
{
    pair_hits++;
    conn_abort(c == pair[0] ? pair[1] : pair[0]);
}

static void pair_accept(struct listener *from UNUSED, struct conn *c)
{
    static const struct conn_ops ops = {.on_data = pair_data};
    pair[pair_n++] = c;
    conn_set(c, &ops, NULL);
}

static void test_close_of_another_in_the_same_batch(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    pair_n = pair_hits = 0;
    struct listener *two = listener_open(l, &any, pair_accept, NULL, &err);
    struct addr to = loopback(listener_port(two));
    int fd[2];
    for (int i = 0; i < 2; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd[i], &to.ss.sa, to.len), 0);
    }
    run_for(l, 5000);
    assert_int_equal(pair_n, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(write(fd[i], "x", 1), 1);
    run_for(l, 10000);
    assert_int_equal(pair_hits, 1);
    close(fd[0]);
    close(fd[1]);
}

static void refuse(struct listener *from UNUSED, struct conn *c UNUSED)
{
}

static void test_accept_without_owner_is_aborted(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    struct listener *other = listener_open(l, &any, refuse, NULL, &err);
    struct addr to = loopback(listener_port(other));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, &to.ss.sa, to.len), 0);
    run_for(l, 10000);
    char b;
    assert_int_equal(read(fd, &b, 1), -1);
    close(fd);
}

/* Out of descriptors: accepting rests without spinning and goes on when there are some again. */
static void test_out_of_descriptors(void **state UNUSED)
{
    struct rlimit was, low;
    getrlimit(RLIMIT_NOFILE, &was);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    low = (struct rlimit){(rlim_t)fd + 1, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(connect(fd, &at.ss.sa, at.len), 0);
    struct rusage a, b;
    getrusage(RUSAGE_SELF, &a);
    run_for(l, 250000);
    getrusage(RUSAGE_SELF, &b);
    assert_null(srv.c);
    assert_true((b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 + b.ru_stime.tv_usec - a.ru_stime.tv_usec < 60000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    run_for(l, 250000);
    assert_non_null(srv.c);
    close(fd);
}

/* Two loops (workers) on one port: together they see every connection. */
static int shared_seen;

static void shared_accept(struct listener *from UNUSED, struct conn *c)
{
    shared_seen++;
    conn_abort(c);
}

static void test_reuseport(void **state UNUSED)
{
    struct loop *l2 = loop_new(1.0);
    struct errbuf err;
    struct addr any = loopback(0);
    shared_seen = 0;
    struct listener *a = listener_open(l, &any, shared_accept, NULL, &err);
    struct addr both = loopback(listener_port(a));
    assert_non_null(listener_open(l2, &both, shared_accept, NULL, &err));
    int fds[64];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], &both.ss.sa, both.len), 0);
    }
    run_for(l, 10000);
    int first = shared_seen;
    run_for(l2, 10000);
    assert_int_equal(shared_seen, 64);
    assert_true(first > 0 && first < 64);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    loop_free(l2);
}

static void test_close_of_a_listener_loses_nobody(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    shared_seen = 0;
    struct listener *a = listener_open(l, &any, shared_accept, NULL, &err);
    struct addr to = loopback(listener_port(a));
    int fds[20];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], &to.ss.sa, to.len), 0);
    }
    listener_accept_pending(a);
    listener_close(a);
    assert_int_equal(shared_seen, 20);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
}

static void test_ipv6_and_mapped(void **state UNUSED)
{
    struct errbuf err;
    struct addr any;
    assert_true(addr_parse(STR("::"), 0, &any));
    struct listener *six = listener_open(l, &any, accept_srv, &srv, &err);
    if (!six)
        return; /* no IPv6 on this machine */
    struct addr to = loopback(listener_port(six));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, &to.ss.sa, to.len) == 0) {
        run_for(l, 10000);
        assert_int_equal(conn_peer(srv.c)->ss.ss_family, AF_INET); /* not ::ffff:127.0.0.1 */
    }
    close(fd);
}

static void test_open_connections_end_with_the_loop(void **state UNUSED)
{
    int fd = raw_client(0);
    cli.c = conn_connect(l, &at, &end_ops, &cli);
    conn_write_str(cli.c, STR("x"));
    loop_free(l); /* the sanitizer tells of leaks */
    l = loop_new(1.0);
    assert_int_equal(cli.connects + cli.errors, 0);
    char b;
    assert_true(read(fd, &b, 1) <= 0);
    close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_echo),
        T(test_connect_refused_comes_once_and_later),
        T(test_connect_then_close_says_nothing),
        T(test_100_mb_with_a_slow_reader),
        T(test_half_close),
        T(test_peer_reset_is_one_error),
        T(test_abort_resets_the_peer),
        T(test_write_to_a_gone_peer),
        T(test_last_words_before_the_reset),
        T(test_paused_sees_eof_but_not_before_data),
        T(test_paused_sees_reset),
        T(test_recv_into),
        T(test_close_flushes_and_lingers),
        T(test_close_is_bounded),
        T(test_close_inside_callback),
        T(test_close_of_another_in_the_same_batch),
        T(test_accept_without_owner_is_aborted),
        T(test_out_of_descriptors),
        T(test_reuseport),
        T(test_close_of_a_listener_loses_nobody),
        T(test_ipv6_and_mapped),
        T(test_open_connections_end_with_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
