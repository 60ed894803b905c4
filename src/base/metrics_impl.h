/* base/metrics_impl.h - the structures behind base/metrics.h, shared by metrics.c and metrics_text.c only. */
#ifndef BASE_METRICS_IMPL_H
#define BASE_METRICS_IMPL_H

#include "base/list.h"
#include "base/map.h"
#include "base/metrics.h"
#include <pthread.h>
#include <stdatomic.h>

#define METRIC_LABELS_MAX 8
#define CACHE_LINE        64

/* A value of one shard, alone on its cache lines: the sum, and for histograms the bucket counts behind it. Written by
 * one thread with plain loads and stores that are atomic only so that readers see whole values. */
struct metric_cell {
    _Alignas(CACHE_LINE) _Atomic double sum;
    _Atomic uint64_t buckets[];
};

struct metric {
    struct metric_family *family;
    struct str values[METRIC_LABELS_MAX]; /* point into `key`; change only under the family's lock */
    char *key;                            /* all values, each behind its length */
    size_t key_n;
    char *cells; /* n_shards cells of the family's cell_size */
    _Atomic double set;
    bool hidden;
    struct list hidden_link; /* on the family's list of hidden series, longest hidden first */
};

struct metric_family {
    struct metrics *registry;
    enum metric_type type;
    char *name, *help;
    char *labels[METRIC_LABELS_MAX];
    size_t n_labels;
    double *bounds;
    size_t n_bounds;
    size_t max_series;
    size_t cell_size;

    pthread_mutex_t lock; /* guards what follows and the labels of the series */
    struct map by_key;
    struct metric **series;
    size_t n_series, cap_series;
    struct list hidden;
    struct metric *overflow;
};

struct collector {
    void (*fn)(void *ctx);
    void *ctx;
};

struct metrics {
    unsigned n_shards;
    pthread_mutex_t lock; /* guards the two lists; families live as long as the registry */
    struct metric_family **families;
    size_t n_families;
    struct collector *collectors;
    size_t n_collectors;
};

double metric_sum(const struct metric *s); /* over the shards, and the value set */
struct metric_cell *metric_cell(const struct metric *s, unsigned shard);
/* Sum of one bucket over the shards; bucket n_bounds is +Inf. Not cumulative. */
uint64_t metric_bucket(const struct metric *s, size_t i);

#endif
