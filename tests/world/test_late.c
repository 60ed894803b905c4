/* A little more load than a pool can carry, for minutes: how many are answered in time, first come first served and
 * with the adaptive order (core/sched.h, ORDER_ADAPTIVE). Five of the simulator's engines behind the scheduler with its
 * defaults and queueing on.
 *
 * Options: --verbose (tables), --profile NAME, --seconds N, --seed N. */
#include "fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILE "a10-qwen25-7b"
#define WARM    60
#define INPUT   1000
#define OUTPUT  200
#define IN_TIME 5.0 /* seconds to the first token */

static bool verbose;
static const char *profile = PROFILE;
static uint64_t seconds = 300, seed = 1;
static int failures;

struct outcome {
    double in_time[FLEET_CLASSES]; /* share of those that came */
    double tokens_s;               /* all of the pool */
};

static double share_in_time(const struct fleet_result *c)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < c->n_ttft; i++)
        n += c->ttft[i] <= IN_TIME;
    return c->sent ? (double)n / (double)c->sent : 0;
}

/* critical + standard requests per second. */
static struct outcome run(const char *what, double critical, double standard, enum sched_order order)
{
    struct fleet_params p;
    struct fleet_report r;
    struct outcome o = {0};
    fleet_init(&p, profile, 0);
    p.seconds = seconds + WARM;
    p.warm_seconds = WARM;
    p.seed = seed;
    p.sched.queueing = true;
    p.sched.queue_order = order;
    fleet_add(&p, "critical", 1, critical, INPUT, OUTPUT);
    fleet_add(&p, "standard", 0, standard, INPUT, OUTPUT);
    fleet_run(&p, &r);
    for (uint32_t i = 0; i < p.n_classes; i++) {
        struct fleet_result *c = &r.c[i];
        o.in_time[i] = share_in_time(c);
        o.tokens_s += (double)c->done_tokens / r.measured_s;
        if (verbose && c->sent)
            printf(
                "%-28s %-9s %5.1f/s: sent %5llu ok %5llu timeout %5llu, in time %5.1f %%, TTFT p50 %5.2f p99 %5.2f\n",
                what, p.c[i].name, p.c[i].rate, (unsigned long long)c->sent, (unsigned long long)c->ok,
                (unsigned long long)c->rejected[REJECT_QUEUE_TIMEOUT], 100 * o.in_time[i],
                fleet_percentile(c->ttft, c->n_ttft, 0.5), fleet_percentile(c->ttft, c->n_ttft, 0.99));
    }
    fleet_report_free(&r);
    return o;
}

/* Beyond saturation most are answered in time, and the pool gives as much as before. */
static void beyond(double capacity, double load)
{
    struct outcome fifo = run("first come first served", 0, load * capacity, ORDER_FIFO),
                   adaptive = run("adaptive", 0, load * capacity, ORDER_ADAPTIVE);
    printf("load %.0f %%: in time %.1f %%, adaptive %.1f %%\n", 100 * load, 100 * fifo.in_time[1],
           100 * adaptive.in_time[1]);
    WANT(adaptive.in_time[1] >= 2 * fifo.in_time[1], "not twice as many in time at %.0f %%", 100 * load);
    WANT(adaptive.in_time[1] >= 0.8 / load, "of what fits less than four fifths is in time");
    WANT(adaptive.tokens_s >= 0.97 * fifo.tokens_s, "%.0f tokens/s, first come first served %.0f", adaptive.tokens_s,
         fifo.tokens_s);
}

/* Who goes before whom is decided inside a class alone. */
static void classes(double capacity)
{
    struct outcome fifo = run("classes, first come", 0.5 * capacity, 0.65 * capacity, ORDER_FIFO),
                   adaptive = run("classes, adaptive", 0.5 * capacity, 0.65 * capacity, ORDER_ADAPTIVE);
    printf("Critical in time %.1f %%, adaptive %.1f %%; Standard %.1f %%, %.1f %%\n", 100 * fifo.in_time[0],
           100 * adaptive.in_time[0], 100 * fifo.in_time[1], 100 * adaptive.in_time[1]);
    WANT(adaptive.in_time[0] >= 0.99, "Critical requests come too late");
    WANT(adaptive.in_time[1] >= MAX(0.6, 2 * fifo.in_time[1]), "room for 77 %% of Standard, and few are in time");
}

/* Where all fits, nothing changes. */
static void below(double capacity)
{
    struct outcome fifo = run("80 %, first come", 0, 0.8 * capacity, ORDER_FIFO),
                   adaptive = run("80 %, adaptive", 0, 0.8 * capacity, ORDER_ADAPTIVE);
    printf("load 80 %%: in time %.1f %%, adaptive %.1f %%\n", 100 * fifo.in_time[1], 100 * adaptive.in_time[1]);
    WANT(adaptive.in_time[1] >= fifo.in_time[1] - 0.001, "fewer in time where all fits");
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        verbose = verbose || !strcmp(argv[i], "--verbose");
        if (i + 1 < argc && !strcmp(argv[i], "--profile"))
            profile = argv[i + 1];
        if (i + 1 < argc && !strcmp(argv[i], "--seconds"))
            seconds = strtoull(argv[i + 1], NULL, 10);
        if (i + 1 < argc && !strcmp(argv[i], "--seed"))
            seed = strtoull(argv[i + 1], NULL, 10);
    }
    double capacity = run("flood", 0, 100, ORDER_FIFO).tokens_s / OUTPUT;
    printf("the pool gives %.1f requests/s\n", capacity);
    below(capacity);
    beyond(capacity, 1.15);
    beyond(capacity, 1.5);
    classes(capacity);
    printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
