/* Random use of connections: 60 pairs write, send, pause, half close, close and abort at random moments, inside and
 * outside callbacks. What must hold: bytes arrive in order and none twice, no callback after close or error, at most
 * one end of file, every descriptor comes back. */
#include "net_test.h"
#include "base/rng.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { PAIRS = 60, STEPS = 20000, SEEDS = 4 };

struct side {
    struct conn *c; /* NULL once closed by us */
    uint64_t sent, got;
    bool eof, shut, errored, paused;
    char into[3000];
};
static struct side sides[PAIRS][2];
static struct loop *l;
static struct rng rng;
static int n_accepted;
static uint64_t moved;

static char pattern(uint64_t i)
{
    return (char)(i * 131 >> 3);
}

static void some_output(struct side *s, bool send)
{
    char text[20000];
    size_t n = rng_below(&rng, 10) ? rng_below(&rng, 400) + 1 : sizeof(text);
    for (size_t i = 0; i < n; i++)
        text[i] = pattern(s->sent + i);
    struct iovec v[3] = {{text, n / 3}, {text + n / 3, 0}, {text + n / 3, n - n / 3}};
    if (s->shut)
        return;
    if (send && conn_pending(s->c) == 0) {
        s->sent += conn_send(s->c, v, 3);
    } else if (!send && conn_pending(s->c) < 200000) {
        conn_write(s->c, v, 3);
        s->sent += n;
    }
}

static void act(struct side *s)
{
    if (!s->c)
        return;
    uint64_t what = rng_below(&rng, 400);
    switch (what < 320 ? 100 : what - 320) {
    case 0:
        conn_close(s->c);
        s->c = NULL;
        return;
    case 1:
        conn_abort(s->c);
        s->c = NULL;
        return;
    case 2:
        conn_shutdown(s->c);
        s->shut = true;
        return;
    case 3 ... 29:
        s->paused = !s->paused;
        conn_pause(s->c, s->paused);
        return;
    case 30 ... 50:
        conn_recv_into(s->c, s->into, rng_below(&rng, sizeof(s->into)));
        return;
    default:
        some_output(s, rng_below(&rng, 2));
    }
}

static void on_connect(struct conn *c, int err)
{
    struct side *s = conn_ctx(c);
    assert_ptr_equal(s->c, c);
    if (err) {
        s->errored = true;
        conn_close(c);
        s->c = NULL;
        return;
    }
    act(s);
}

static void on_data(struct conn *c, struct str d)
{
    struct side *s = conn_ctx(c);
    assert_ptr_equal(s->c, c); /* never after close */
    assert_false(s->eof || s->errored || s->paused);
    assert_true(d.n > 0);
    for (size_t i = 0; i < d.n; i++)
        if (d.p[i] != pattern(s->got + i))
            fail_msg("byte %llu is wrong", (unsigned long long)(s->got + i));
    s->got += d.n;
    moved += d.n;
    if (rng_below(&rng, 4) == 0)
        act(s);
    if (rng_below(&rng, 8) == 0)
        act(&sides[rng_below(&rng, PAIRS)][rng_below(&rng, 2)]);
}

static void on_eof(struct conn *c)
{
    struct side *s = conn_ctx(c);
    assert_ptr_equal(s->c, c);
    assert_false(s->eof || s->errored);
    s->eof = true;
    if (rng_below(&rng, 2)) {
        conn_close(c);
        s->c = NULL;
    }
}

static void on_error(struct conn *c, int err)
{
    struct side *s = conn_ctx(c);
    assert_ptr_equal(s->c, c);
    assert_false(s->errored);
    assert_true(err < 0);
    s->errored = true;
    conn_close(c);
    s->c = NULL;
}

static void on_drain(struct conn *c)
{
    struct side *s = conn_ctx(c);
    assert_ptr_equal(s->c, c);
    assert_int_equal(conn_pending(c), 0);
    act(s);
}

static const struct conn_ops ops = {on_connect, on_data, on_eof, on_drain, on_error, NULL};

static void on_accept(struct listener *ln UNUSED, struct conn *c)
{
    assert_true(n_accepted < PAIRS);
    struct side *s = &sides[n_accepted++][1];
    s->c = c;
    conn_set(c, &ops, s);
}

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1000; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void one_round(uint64_t seed)
{
    struct errbuf err;
    struct addr any = loopback(0);
    rng_init(&rng, seed);
    memset(sides, 0, sizeof(sides));
    n_accepted = 0;
    l = loop_new(20.0); /* lingering ends after 250 ms */
    int before = open_fds();
    struct listener *ln = listener_open(l, &any, on_accept, NULL, &err);
    assert_non_null(ln);
    struct addr at = loopback(listener_port(ln));
    for (int i = 0; i < PAIRS; i++) {
        sides[i][0].c = conn_connect(l, &at, &ops, &sides[i][0]);
        if (rng_below(&rng, 2))
            act(&sides[i][0]);
    }
    for (int i = 0; i < STEPS; i++) {
        act(&sides[rng_below(&rng, PAIRS)][rng_below(&rng, 2)]);
        if (i % 32 == 0)
            run_for(l, 1000);
    }
    for (int i = 0; i < PAIRS * 2; i++)
        if (sides[i / 2][i % 2].c)
            conn_close(sides[i / 2][i % 2].c);
    memset(sides, 0, sizeof(sides));
    listener_close(ln);
    run_for(l, 12000000); /* twice the bound on closing: flush and linger share one */
    assert_int_equal(open_fds(), before);
    loop_free(l);
}

static void test_random_use(void **state UNUSED)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        one_round(seed);
    }
    assert_true(moved > 20000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_use)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
