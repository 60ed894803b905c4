/* Ten times the load a pool can carry, for five minutes: what is promised to those who matter. Five of the simulator's
 * engines behind the scheduler with its defaults and queueing on; a flood of Sheddable requests on top of Critical ones
 * that alone would use about half of the pool.
 *
 * Options: --verbose (tables), --profile NAME, --seconds N, --seed N. */
#include "fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILE "a10-qwen25-7b"
#define WARM    30
#define INPUT   1000
#define OUTPUT  200
#define TTFT_FACTOR                                                                                                    \
    2.0 /* Critical under the flood, of what it is alone at the same rate: all engines run full batches then ... */
#define TTFT_MORE                                                                                                      \
    1.0 /* ... plus seconds: a place must become free first, and up to the threshold of others wait before it */
#define WAIT_MORE 9    /* requests waiting in an engine above the threshold: one wave of prefills and one */
#define GOODPUT   0.95 /* of the best constant load */

static bool verbose;
static const char *profile = PROFILE;
static uint64_t seconds = 300, seed = 1;
static int failures;

static void init(struct fleet_params *p)
{
    fleet_init(p, profile, 0);
    p->seconds = seconds;
    p->warm_seconds = WARM;
    p->seed = seed;
}

static double goodput(const struct fleet_report *r)
{
    double tokens = 0;
    for (uint32_t i = 0; i < FLEET_CLASSES; i++)
        tokens += (double)r->c[i].done_tokens;
    return tokens / r->measured_s;
}

static void line(const char *what, double rate, const struct fleet_params *p, struct fleet_report *r)
{
    if (!verbose)
        return;
    printf("%-34s %7.1f/s %7.0f tok/s  queue %5llu (%6.1f MB)  engines waiting %4.1f mean %3.0f max", what, rate,
           goodput(r), (unsigned long long)r->peak_queued, (double)r->peak_queued_bytes * 1e-6, r->mean_waiting,
           r->peak_waiting);
    for (uint32_t i = 0; i < p->n_classes; i++) {
        struct fleet_result *c = &r->c[i];
        printf("\n    %-10s sent %6llu ok %6llu full %6llu timeout %5llu early %6llu shed %6llu  TTFT mean %6.2f p50 "
               "%6.2f p99 %6.2f  "
               "TPOT mean %5.1f ms  preempted %llu",
               p->c[i].name, (unsigned long long)c->sent, (unsigned long long)c->ok,
               (unsigned long long)c->rejected[REJECT_QUEUE_FULL],
               (unsigned long long)c->rejected[REJECT_QUEUE_TIMEOUT], (unsigned long long)c->rejected[REJECT_DEADLINE],
               (unsigned long long)c->rejected[REJECT_SHED], fleet_mean(c->ttft, c->n_ttft),
               fleet_percentile(c->ttft, c->n_ttft, 0.5), fleet_percentile(c->ttft, c->n_ttft, 0.99),
               1e3 * fleet_mean(c->tpot, c->n_tpot), (unsigned long long)c->preempted);
    }
    printf("\n");
}

/* The most the pool gives at a constant load, in tokens per second, without queueing: rates from low to far beyond its
 * best. */
static double best_constant(void)
{
    double best = 0, rate = 2;
    for (int worse = 0; worse < 3 && rate < 1000; rate *= 1.2) {
        struct fleet_params p;
        struct fleet_report r;
        init(&p);
        fleet_add(&p, "standard", 0, rate, INPUT, OUTPUT);
        fleet_run(&p, &r);
        double g = goodput(&r);
        line("constant load, no queueing", rate, &p, &r);
        worse = g > best ? 0 : worse + 1;
        best = MAX(best, g);
        fleet_report_free(&r);
    }
    return best;
}

struct setting {
    const char *name;
    uint64_t scrape_us, queue_bytes;
    enum sched_early early;
};

static void judge(const struct setting *st, const struct fleet_params *p, struct fleet_report *alone,
                  struct fleet_report *flood, double best)
{
    struct fleet_result *a = &alone->c[0], *c = &flood->c[0];
    for (int k = 0; k < N_SCHED_REJECTS; k++)
        WANT(!c->rejected[k], "%s: %llu Critical refused: %s", st->name, (unsigned long long)c->rejected[k],
             sched_reject_name((enum sched_reject)k));
    static const double at[] = {0.5, 0.99};
    for (int i = 0; i < 2; i++) {
        double x = fleet_percentile(a->ttft, a->n_ttft, at[i]), y = fleet_percentile(c->ttft, c->n_ttft, at[i]);
        WANT(y <= TTFT_FACTOR * x + TTFT_MORE, "%s: Critical TTFT p%g: %.2f s, alone %.2f s", st->name, at[i] * 100, y,
             x);
    }
    WANT(flood->peak_waiting <= p->sched.queue_threshold + WAIT_MORE, "%s: %g requests waiting in an engine", st->name,
         flood->peak_waiting);
    WANT(flood->peak_queued <= p->sched.queue_requests && flood->peak_queued_bytes <= p->sched.queue_bytes,
         "%s: %llu queued, %llu bytes", st->name, (unsigned long long)flood->peak_queued,
         (unsigned long long)flood->peak_queued_bytes);
    WANT(goodput(flood) >= GOODPUT * best, "%s: goodput %.0f tok/s of %.0f", st->name, goodput(flood), best);
    WANT(!flood->waited_beside_idle && flood->longest_beside_room_us < 500000,
         "%s: somebody waited %llu times beside an idle engine, at most %.2f s beside room", st->name,
         (unsigned long long)flood->waited_beside_idle, (double)flood->longest_beside_room_us * 1e-6);
}

static void overload(const struct setting *st, double capacity, double best)
{
    struct fleet_params p;
    struct fleet_report alone, flood, without;
    double critical = 0.6 * capacity;
    init(&p);
    p.scrape_us = st->scrape_us;
    p.sched.queueing = true;
    p.sched.early_refusal = st->early;
    p.sched.queue_bytes = st->queue_bytes ? st->queue_bytes : p.sched.queue_bytes;
    if (verbose)
        printf("\n-- %s\n", st->name);
    fleet_add(&p, "critical", 1, critical, INPUT, OUTPUT);
    fleet_run(&p, &alone);
    line("critical alone", critical, &p, &alone);
    fleet_add(&p, "sheddable", -1, 10 * capacity - critical, INPUT, OUTPUT);
    fleet_run(&p, &flood);
    line("flood", 10 * capacity, &p, &flood);
    judge(st, &p, &alone, &flood, best);
    if (verbose) {
        p.sched.queueing = false;
        fleet_run(&p, &without);
        line("flood, queueing off", 10 * capacity, &p, &without);
        fleet_report_free(&without);
    }
    fleet_report_free(&alone);
    fleet_report_free(&flood);
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
    double best = best_constant(), capacity = best / OUTPUT;
    printf("best constant load: %.0f tokens/s, %.1f requests/s\n", best, capacity);
    static const struct setting settings[] = {{"scrape every second", 1000000, 0, EARLY_OWN},
                                              {"scrape every 250 ms", 250000, 0, EARLY_OWN},
                                              {"who would be late is refused at once", 1000000, 0, EARLY_ALL},
                                              {"a queue of 1 MB", 1000000, 1000000, EARLY_OWN},
                                              {"no scrapes", 0, 0, EARLY_OWN}};
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        overload(&settings[i], capacity, best);
    printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
