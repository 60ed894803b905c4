/* bench/streams.c - opens N event streams through a proxy and counts events for a while: the client of the streaming row of bench/side-by-side.
 *
 * usage: streams ADDR PORT N_STREAMS SECONDS; prints one JSON line {"streams","events","seconds","errors"} */
#include "net/loop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static struct loop *loop;
static struct addr target;
static unsigned n_streams, n_started;
static uint64_t n_events, n_errors, n_open, from_us, to_us;
static bool counting;

static void on_connect(struct conn *c, int err)
{
    static const char body[] = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
    char rq[512];
    if (err) {
        n_errors++;
        conn_close(c);
        return;
    }
    n_open++;
    int n = snprintf(rq, sizeof rq, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    conn_write_str(c, (struct str){rq, (size_t)n});
}

static void on_data(struct conn *c, struct str d)
{
    (void)c;
    if (!counting)
        return;
    for (const char *p = d.p; (p = memmem(p, (size_t)(d.p + d.n - p), "data: ", 6)) != NULL; p += 6)
        n_events++;
}

static void on_eof(struct conn *c)
{
    n_errors++;
    conn_close(c);
}

static void on_error(struct conn *c, int err)
{
    (void)err;
    n_errors++;
    conn_close(c);
}

static void on_drain(struct conn *c)
{
    (void)c;
}

static const struct conn_ops ops = {on_connect, on_data, on_eof, on_drain, on_error, NULL};

static void start_some(struct timer *t)
{
    for (int i = 0; i < 20 && n_started < n_streams; i++, n_started++)
        conn_connect(loop, &target, &ops, NULL);
    if (n_started < n_streams)
        timer_set(loop, t, loop_now_us(loop) + 10000);
}

static void begin(struct timer *t)
{
    (void)t;
    counting = true;
    from_us = loop_now_us(loop);
    printf("counting\n");
    fflush(stdout);
}

static void end(struct timer *t)
{
    (void)t;
    to_us = loop_now_us(loop);
    printf("{\"streams\":%llu,\"events\":%llu,\"seconds\":%.3f,\"errors\":%llu}\n", (unsigned long long)n_open, (unsigned long long)n_events,
           (double)(to_us - from_us) / 1e6, (unsigned long long)n_errors);
    exit(n_errors > 0);
}

int main(int argc, char **argv)
{
    if (argc < 5 || !addr_parse(str_c(argv[1]), (uint16_t)atoi(argv[2]), &target))
        return 2;
    n_streams = (unsigned)atoi(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new(1);
    uint64_t now = loop_now_us(loop), warm_us = 1500000 + n_streams * 500ull;
    struct timer t1 = {.fn = start_some}, t2 = {.fn = begin}, t3 = {.fn = end};
    timer_set(loop, &t1, now);
    timer_set(loop, &t2, now + warm_us);
    timer_set(loop, &t3, now + warm_us + (uint64_t)atoi(argv[4]) * 1000000);
    loop_run(loop);
    return 0;
}
