/* base/metrics.h - metric families with labels, counted per thread without locks, summed when exposed.
 *
 * A registry holds families (counter, gauge, histogram). A series is a family plus label values; metric_series interns it
 * (under a mutex, so cache the handle: per pool, per model, per endpoint) and the returned handle stays valid for the life of
 * the registry. Updates go to the calling thread's shard (`shard` 0..n_shards-1: worker i uses shard i) with relaxed atomics,
 * one writer per shard. Label values that clients control are capped per family (`max_series`): beyond it metric_series returns
 * the overflow series, whose label values are "_other"; a series dropped before is reused first (longest dropped first), so a
 * stream of new pods does not fill the family. Values are cut at 256 bytes. Exposition: Prometheus text 0.0.4.
 * Histogram buckets are given upper bounds in ascending order; values are doubles. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
struct metrics; /* registry */
struct metric_family;
struct metric;  /* series */

struct metrics *metrics_new(unsigned n_shards);
void metrics_free(struct metrics *m);
/* Returns the family of that name when it was registered before (type and labels must agree).
 * labels: NULL-terminated list of names (at most 8), copied. bounds: only histograms. max_series 0 = 10 000. */
struct metric_family *metric_family(struct metrics *m, enum metric_type type, const char *name, const char *help,
                                    const char *const *labels, const double *bounds, size_t n_bounds, size_t max_series);
struct metric *metric_series(struct metric_family *f, const struct str *values); /* as many values as labels; thread-safe */
void metric_series_drop(struct metric_family *f, const struct str *values); /* hides the series (its pod is gone); thread-safe.
                                                                             * The handle stays valid; metric_series of the same
                                                                             * values shows it again. */
void metric_add(struct metric *s, unsigned shard, double v);     /* counter, gauge: sums over shards */
void metric_set(struct metric *s, double v);                     /* gauge: absolute value, any one thread */
void metric_observe(struct metric *s, unsigned shard, double v); /* histogram */
double metric_value(const struct metric *s);                     /* sum over shards (histogram: count) */
/* Before exposition the registry calls each collector, which sets gauges derived from live state. */
void metrics_collector(struct metrics *m, void (*fn)(void *ctx), void *ctx);
bool metrics_expose(struct metrics *m, struct buf *out);         /* false when out overflowed */

#endif
