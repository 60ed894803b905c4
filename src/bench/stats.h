/* bench/stats.h - the arithmetic under the figures of a run, shared by report, JSON, comparison and plot.
 *
 * Percentiles as numpy's default: linear interpolation between the two nearest order statistics; the standard deviation
 * is that of the population. Pure; not thread-safe by itself (no state). */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include "bench/result.h"

/* `p` per cent (0..100) of n ascending values; 0 when there are none. */
double bench_percentile(const double *sorted, size_t n, double p);
void bench_sort(double *v, size_t n);
/* Mean, median, deviation, the run's percentiles and the maximum of n values in seconds, as milliseconds. Sorts v. */
void bench_dist_of(const struct bench_run *r, double *v, size_t n, struct bench_dist *out);
/* Population standard deviation over mean; 0 when the mean is 0 or there are fewer than two values. */
double bench_variation(const double *v, size_t n);
/* Seconds per output token after the first; false when there are fewer than two tokens. */
bool bench_tpot(const struct bench_sample *s, double *out);

/* Failures of the same text, most frequent first. Beyond BENCH_MAX_KINDS - 1 texts the rest is counted as "other". */
#define BENCH_MAX_KINDS 32
struct bench_kind {
    const char *error;
    uint32_t n;
};
size_t bench_kinds(const struct bench_run *r, struct bench_kind out[BENCH_MAX_KINDS]);

/* Completed requests by their turn, turns from BENCH_MAX_TURNS - 1 on together. Returns the number of turns; 1 or less:
 * no conversations. */
#define BENCH_MAX_TURNS 64
size_t bench_turns(const struct bench_run *r, struct bench_dist out[BENCH_MAX_TURNS]);

/* Completed requests and output tokens by pod (malloc'd, as long as the run's pods; the caller frees), requests of
 * unknown pods apart. */
struct bench_pods {
    double *requests, *tokens;
    uint32_t unknown;
    double requests_cv, tokens_cv;
};
void bench_pods(const struct bench_run *r, struct bench_pods *out);
void bench_pods_free(struct bench_pods *p);

/* Names as in JSON keys ("ttft") and as in the report ("TTFT"). */
extern const char *const bench_metric_keys[BENCH_N_METRICS];
extern const char *const bench_metric_names[BENCH_N_METRICS];
/* "99" or "99.9": the percentile as the engine's client writes it in keys and in the report. */
void bench_percentile_name(double p, char out[16]);

#endif
