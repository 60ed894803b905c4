/* What the scheduler knows of the servers is late, old or nothing: requests must not wait for that. With queueing on,
 * on the simulator's engines: scrapes of the whole pool stop, at normal load and at three times the capacity; one
 * server alone, scraped late and seldom, lightly and heavily loaded; one server of five free. Against the same run with
 * timely scrapes, or without queueing.
 *
 * Options: --verbose, --seed N. */
#include "fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILE "a10-qwen25-7b"
#define CARRIES 2.6 /* requests per second of 1000 + 200 tokens that one such server carries */
#define BESIDE_S                                                                                                       \
    0.5 /* longest time, and as much as a scrape is late, that anybody waits beside a server with nothing waiting and  \
         * half of its memory free */
#define WORK 0.92 /* done with queueing by one server, of that without: a fifth of its memory stays in reserve */
#define NEAR 2.0  /* TTFT near the limit of a server, of that without queueing */

static bool verbose;
static uint64_t seed = 1;
static int failures;

static void init(struct fleet_params *p, uint32_t engines, double load)
{
    fleet_init(p, PROFILE, 0);
    p->seed = seed;
    p->n_engines = engines;
    p->seconds = 240;
    p->warm_seconds = 40;
    p->sched.queueing = true;
    p->c[p->n_classes++] = (struct fleet_class){.name = "standard",
                                                .rate = load * CARRIES * engines,
                                                .input_tokens = 1000,
                                                .output_tokens = 200,
                                                .spread = 0.5};
}

static void show(const char *what, struct fleet_report *r)
{
    struct fleet_result *c = &r->c[0];
    if (verbose)
        printf("%-52s sent %5llu ok %5llu  %5.0f tok/s  TTFT mean %6.2f p99 %6.2f  most queued %4llu  engines waiting "
               "%4.1f mean %3.0f max  "
               "beside room %.2f s\n",
               what, (unsigned long long)c->sent, (unsigned long long)c->ok, (double)c->done_tokens / r->measured_s,
               fleet_mean(c->ttft, c->n_ttft), fleet_percentile(c->ttft, c->n_ttft, 0.99),
               (unsigned long long)r->peak_queued, r->mean_waiting, r->peak_waiting,
               (double)r->longest_beside_room_us * 1e-6);
}

static void sane(const char *what, const struct fleet_params *p, const struct fleet_report *r)
{
    WANT(!r->waited_beside_idle, "%s: somebody waited beside an idle server, %llu times", what,
         (unsigned long long)r->waited_beside_idle);
    WANT((double)r->longest_beside_room_us * 1e-6 <= BESIDE_S + (double)p->scrape_late_us * 1e-6,
         "%s: somebody waited beside room for %.2f s", what, (double)r->longest_beside_room_us * 1e-6);
    WANT(r->peak_waiting <= p->sched.queue_threshold + 10, "%s: %g requests waiting in a server", what,
         r->peak_waiting);
}

/* The scrapes of all servers stop after half a minute and do not come back. */
static void pool_unseen(double load)
{
    struct fleet_params p;
    struct fleet_report seen, unseen;
    char what[80];
    init(&p, 5, load);
    fleet_run(&p, &seen);
    p.scrape_stop_us = 31000000;
    p.scrape_again_us = UINT64_MAX;
    fleet_run(&p, &unseen);
    (void)snprintf(what, sizeof(what), "5 servers, load %.1f, scraped", load);
    show(what, &seen);
    sane(what, &p, &seen);
    (void)snprintf(what, sizeof(what), "5 servers, load %.1f, scrapes stop", load);
    show(what, &unseen);
    sane(what, &p, &unseen);
    double a = (double)seen.c[0].done_tokens, b = (double)unseen.c[0].done_tokens;
    WANT(b >= 0.95 * a, "%s: %.2f of the work done with scrapes", what, b / a);
    fleet_report_free(&seen);
    fleet_report_free(&unseen);
}

/* One server, scraped every so often, late: where it carries the load with ease no worse than sending everything at
 * once; near its limit the gateway lets go by waves what it holds back, but loses no work. */
static void one_server(double load, uint64_t every_us, uint64_t late_us)
{
    struct fleet_params p;
    struct fleet_report on, off;
    char what[80];
    init(&p, 1, load);
    p.scrape_us = every_us;
    p.scrape_late_us = late_us;
    fleet_run(&p, &on);
    p.sched.queueing = false;
    fleet_run(&p, &off);
    (void)snprintf(what, sizeof(what), "1 server, load %.1f, scraped every %.1f s, %.1f s late", load,
                   (double)every_us * 1e-6, (double)late_us * 1e-6);
    show(what, &on);
    sane(what, &p, &on);
    struct fleet_result *a = &on.c[0], *b = &off.c[0];
    double x = fleet_mean(a->ttft, a->n_ttft), y = fleet_mean(b->ttft, b->n_ttft);
    WANT(load > 1 || x <= (load > 0.7 ? NEAR : 1.01) * y, "%s: TTFT %.3f s, without queueing %.3f s", what, x, y);
    WANT(load > 0.7 || on.peak_queued == 0, "%s: %llu queued at once", what, (unsigned long long)on.peak_queued);
    WANT((double)a->done_tokens >= WORK * (double)b->done_tokens, "%s: %.2f of the work done without queueing", what,
         (double)a->done_tokens / (double)b->done_tokens);
    show("  queueing off", &off);
    fleet_report_free(&on);
    fleet_report_free(&off);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        verbose = verbose || !strcmp(argv[i], "--verbose");
        if (i + 1 < argc && !strcmp(argv[i], "--seed"))
            seed = strtoull(argv[i + 1], NULL, 10);
    }
    static const double loads[] = {0.3, 0.9, 3};
    static const uint64_t every[] = {0, 250000, 1000000, 4000000}, late[] = {0, 400000, 1900000};
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        pool_unseen(loads[i]);
        for (size_t k = 0; k < ARRAY_LEN(every); k++)
            for (size_t m = 0; m < (every[k] ? ARRAY_LEN(late) : 1); m++)
                one_server(loads[i], every[k], late[m]);
    }
    printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
