/* Pools of idle connections: newest first, bounded, expiring, closed on any event. */
#include "net_test.h"
#include <stdio.h>
#include <unistd.h>

#define MAX_SRV 32
static struct loop *l;
static struct addr at;
static struct conn *accepted[MAX_SRV];
static int n_accepted, n_gone;
static struct conn_pool *pool;

static void srv_gone(struct conn *c)
{
    n_gone++;
    conn_close(c);
}

static void srv_error(struct conn *c, int err UNUSED)
{
    srv_gone(c);
}

static void on_accept(struct listener *ln UNUSED, struct conn *c)
{
    static const struct conn_ops ops = {.on_eof = srv_gone, .on_error = srv_error};
    conn_set(c, &ops, NULL);
    accepted[n_accepted++] = c;
}

static int connected;
static void on_connect(struct conn *c UNUSED, int err)
{
    assert_int_equal(err, 0);
    connected++;
}
static const struct conn_ops cli_ops = {.on_connect = on_connect};

static struct conn *dial(void)
{
    struct conn *c = conn_connect(l, &at, &cli_ops, NULL);
    int want = connected + 1;
    while (connected < want)
        run_for(l, 1000);
    return c;
}

static int setup(void **state UNUSED)
{
    struct errbuf err;
    struct addr any = loopback(0);
    l = loop_new(1.0);
    n_accepted = n_gone = connected = 0;
    struct listener *ln = listener_open(l, &any, on_accept, NULL, &err);
    assert_non_null(ln);
    at = loopback(listener_port(ln));
    pool = conn_pool_new(l, 3, 200000);
    return 0;
}

static int teardown(void **state UNUSED)
{
    conn_pool_free(pool);
    loop_free(l);
    return 0;
}

static void test_newest_first(void **state UNUSED)
{
    struct conn *a = dial(), *b = dial();
    assert_null(conn_pool_take(pool, &at));
    conn_pool_put(pool, a);
    conn_pool_put(pool, b);
    assert_false(conn_is_reused(a));
    assert_ptr_equal(conn_pool_take(pool, &at), b);
    assert_true(conn_is_reused(b));
    assert_ptr_equal(conn_pool_take(pool, &at), a);
    assert_null(conn_pool_take(pool, &at));
    struct addr other = loopback(1);
    conn_pool_put(pool, a);
    assert_null(conn_pool_take(pool, &other));
    conn_close(b);
}

static void test_bounded_per_address(void **state UNUSED)
{
    struct conn *c[5];
    for (int i = 0; i < 5; i++)
        c[i] = dial();
    for (int i = 0; i < 5; i++)
        conn_pool_put(pool, c[i]);
    run_for(l, 20000);
    assert_int_equal(n_gone, 2); /* the two oldest */
    assert_ptr_equal(conn_pool_take(pool, &at), c[4]);
    conn_close(c[4]);
}

static void test_expires(void **state UNUSED)
{
    conn_pool_put(pool, dial());
    run_for(l, 100000);
    conn_pool_put(pool, dial());
    run_for(l, 120000);
    assert_int_equal(n_gone, 1);
    run_for(l, 120000);
    assert_int_equal(n_gone, 2);
    assert_null(conn_pool_take(pool, &at));
}

static void test_closed_by_any_event(void **state UNUSED)
{
    struct conn *a = dial();
    run_for(l, 2000);
    conn_pool_put(pool, a);
    conn_close(accepted[0]); /* the server's idle timeout */
    run_for(l, 20000);
    assert_null(conn_pool_take(pool, &at));

    conn_pool_put(pool, dial());
    run_for(l, 2000);
    conn_abort(accepted[1]);
    run_for(l, 20000);
    assert_null(conn_pool_take(pool, &at));

    conn_pool_put(pool, dial());
    run_for(l, 2000);
    conn_write_str(accepted[2], STR("HTTP/1.1 408 Request Timeout\r\n\r\n"));
    run_for(l, 20000);
    assert_null(conn_pool_take(pool, &at));
}

static void test_drop_and_unusable(void **state UNUSED)
{
    conn_pool_put(pool, dial());
    conn_pool_put(pool, dial());
    conn_pool_drop(pool, &at);
    assert_null(conn_pool_take(pool, &at));
    run_for(l, 20000);
    assert_int_equal(n_gone, 2);

    struct conn *half = dial();
    conn_shutdown(half);
    conn_pool_put(pool, half); /* half closed: no use to anybody */
    assert_null(conn_pool_take(pool, &at));
}

/* Many addresses that come and go, one that stays idle: its connection survives the clearing away of the others. */
static void test_many_addresses(void **state UNUSED)
{
    struct errbuf err;
    struct addr every, first, a;
    assert_true(addr_parse(STR("0.0.0.0"), 0, &every));
    struct listener *ln = listener_open(l, &every, on_accept, NULL, &err);
    assert_non_null(ln);
    assert_true(addr_parse(STR("127.0.1.1"), listener_port(ln), &first));
    conn_pool_free(pool);
    pool = conn_pool_new(l, 3, 60000000);
    at = first;
    struct conn *kept = dial();
    conn_pool_put(pool, kept);
    for (unsigned i = 0; i < 3 * 64; i++) {
        char host[32];
        snprintf(host, sizeof(host), "127.0.2.%u", i + 1);
        assert_true(addr_parse(str_c(host), listener_port(ln), &a));
        at = a;
        struct conn *c = dial();
        conn_pool_put(pool, c);
        assert_ptr_equal(conn_pool_take(pool, &a), c);
        conn_pool_put(pool, c);
        assert_ptr_equal(conn_pool_take(pool, &a), c);
        conn_close(c);
        run_for(l, 1000);
        n_accepted = 0;
    }
    assert_ptr_equal(conn_pool_take(pool, &first), kept);
    conn_close(kept);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(test_newest_first), T(test_bounded_per_address), T(test_expires),
                                       T(test_closed_by_any_event), T(test_drop_and_unusable), T(test_many_addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
