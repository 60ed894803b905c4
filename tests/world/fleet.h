/* A pool of the simulator's engines (sim/engine.h) behind the real scheduler (core/sched.h), with clients, in one
 * thread and in virtual time: minutes of a pool pass in a second, and the same seed gives the same run. What it leaves
 * out of the product: the network (no time passes between the parts) and everything but the decisions. Times are
 * microseconds from 0. */
#ifndef TEST_WORLD_FLEET_H
#define TEST_WORLD_FLEET_H

#include "base/rng.h"
#include "core/sched.h"
#include "sim/engine.h"
#include <stdio.h>

#define FLEET_ENGINES 16
#define FLEET_CLASSES 4

struct fleet_class { /* one kind of clients */
    const char *name;
    int priority;
    uint32_t lora;        /* adapter; 0 = the base model */
    double rate;          /* open loop: requests per second, Poisson; and / or */
    uint32_t concurrency; /* closed loop: so many clients, each sends when its last answer is over */
    uint32_t prompts;     /* closed loop: altogether */
    uint32_t prefix_tokens, input_tokens,
        output_tokens;          /* a prefix shared by the class; then input and output, uniform within ... */
    double spread;              /* ... this share around the mean */
    uint64_t from_us, until_us; /* open loop: when; until 0 = the end */
};

struct fleet_result { /* of a class; those that came in the measured time */
    uint64_t sent, ok, preempted, rejected[N_SCHED_REJECTS], tokens_in, tokens_out;
    uint64_t done_in_time, done_tokens; /* ended in the measured time, whenever they came */
    double *ttft, *tpot;                /* seconds, of those that were answered */
    uint64_t n_ttft, n_tpot, cap_ttft, cap_tpot;
    uint64_t last_done_us;
};

struct fleet_params {
    struct sched_params sched;
    struct engine_params engine;
    uint32_t n_engines, max_model_len;        /* answers end there */
    uint64_t scrape_us;                       /* 0: never */
    uint64_t scrape_stop_us, scrape_again_us; /* no scrape between these; both 0: always */
    uint64_t scrape_late_us;                  /* a scrape shows what was so long ago */
    uint64_t seconds, warm_seconds; /* length (0: until all clients are done); not measured at the beginning */
    uint64_t seed;
    struct fleet_class c[FLEET_CLASSES];
    uint32_t n_classes;
};

struct fleet_report {
    struct fleet_result c[FLEET_CLASSES];
    double seconds, measured_s;
    uint64_t peak_queued, peak_queued_bytes;
    double peak_waiting,
        mean_waiting; /* requests waiting in an engine: the most at any time; mean over time and engines */
    uint64_t peak_jobs;
    uint64_t
        waited_beside_idle; /* moments, of 100 a second, when somebody was queued and an engine had nothing to do */
    uint64_t longest_beside_room_us; /* longest time somebody was queued beside an engine with nothing waiting, half
                                      * of its memory free and half of its step unused */
};

/* Runs it; aborts when accounts do not come out even at the end. The report is freed with fleet_report_free. */
void fleet_run(const struct fleet_params *p, struct fleet_report *out);
void fleet_report_free(struct fleet_report *r);
double fleet_mean(const double *v, uint64_t n);
double fleet_percentile(double *v, uint64_t n, double p); /* sorts */
/* Engine parameters of a profile of the simulator (sim/profile.h), and the scheduler's defaults. */
void fleet_init(struct fleet_params *p, const char *profile,
                double memory_frac); /* share of the GPU's memory; 0: the default */

/* One more class of an open loop, with lengths spread by half around these means. */
void fleet_add(struct fleet_params *p, const char *name, int priority, double rate, uint32_t input, uint32_t output);

/* For the programs: says what is not held and counts it in their `failures`. */
#define WANT(cond, ...)                                                                                                \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            printf("NOT HELD: ");                                                                                      \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

#endif
