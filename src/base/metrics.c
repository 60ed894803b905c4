/* base/metrics.c - registry, series and counting. */
#include "base/metrics_impl.h"

#include <math.h>
#include <stdlib.h>

#define MAX_SERIES_DEFAULT 10000
#define VALUE_LEN_MAX      256 /* longer label values are cut */

struct metrics *metrics_new(unsigned n_shards)
{
    struct metrics *m = xcalloc(1, sizeof(*m));
    m->n_shards = MAX(n_shards, 1u);
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

static void series_free(struct metric *s)
{
    if (!s)
        return;
    free(s->cells);
    free(s->key);
    free(s);
}

static void family_free(struct metric_family *f)
{
    for (size_t i = 0; i < f->n_series; i++)
        series_free(f->series[i]);
    series_free(f->overflow);
    free(f->series);
    map_free(&f->by_key);
    for (size_t i = 0; i < f->n_labels; i++)
        free(f->labels[i]);
    free(f->bounds);
    free(f->name);
    free(f->help);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_families; i++)
        family_free(m->families[i]);
    free(m->families);
    free(m->collectors);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* [a-zA-Z_:][a-zA-Z0-9_:]*, labels without the colon. */
static bool is_name(const char *s, bool label)
{
    for (size_t i = 0; s[i]; i++) {
        bool alpha = (s[i] | 0x20) >= 'a' && (s[i] | 0x20) <= 'z';
        bool digit = s[i] >= '0' && s[i] <= '9';
        if (!alpha && s[i] != '_' && !(digit && i > 0) && !(s[i] == ':' && !label))
            return false;
    }
    return s[0] != '\0';
}

static struct metric_family *family_find(const struct metrics *m, const char *name)
{
    for (size_t i = 0; i < m->n_families; i++)
        if (strcmp(m->families[i]->name, name) == 0)
            return m->families[i];
    return NULL;
}

static void family_labels(struct metric_family *f, const char *const *labels)
{
    for (; labels && labels[f->n_labels]; f->n_labels++) {
        CHECK(f->n_labels < METRIC_LABELS_MAX && is_name(labels[f->n_labels], true));
        f->labels[f->n_labels] = str_dup(str_c(labels[f->n_labels]));
    }
}

static void family_bounds(struct metric_family *f, const double *bounds, size_t n)
{
    if (n && isinf(bounds[n - 1]))
        n--; /* +Inf is implied */
    f->bounds = xcalloc(MAX(n, 1u), sizeof(*f->bounds));
    f->n_bounds = n;
    for (size_t i = 0; i < n; i++) {
        CHECK(isfinite(bounds[i]) && (i == 0 || bounds[i] > bounds[i - 1]));
        f->bounds[i] = bounds[i];
    }
}

static size_t cell_size(const struct metric_family *f)
{
    size_t n = sizeof(double);
    if (f->type == METRIC_HISTOGRAM)
        n += (f->n_bounds + 1) * sizeof(uint64_t);
    return (n + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static bool same_labels(const struct metric_family *f, const char *const *labels)
{
    size_t n = 0;
    for (; labels && labels[n]; n++)
        if (n >= f->n_labels || strcmp(labels[n], f->labels[n]) != 0)
            return false;
    return n == f->n_labels;
}

struct metric_family *metric_family(struct metrics *m, enum metric_type type, const char *name, const char *help,
                                    const char *const *labels, const double *bounds, size_t n_bounds, size_t max_series)
{
    CHECK(is_name(name, false));
    pthread_mutex_lock(&m->lock);
    struct metric_family *f = family_find(m, name);
    if (f) {
        CHECK(f->type == type && same_labels(f, labels));
        pthread_mutex_unlock(&m->lock);
        return f;
    }
    f = xcalloc(1, sizeof(*f));
    f->registry = m;
    f->type = type;
    f->name = str_dup(str_c(name));
    f->help = str_dup(str_c(help));
    f->max_series = max_series ? max_series : MAX_SERIES_DEFAULT;
    family_labels(f, labels);
    if (type == METRIC_HISTOGRAM)
        family_bounds(f, bounds, n_bounds);
    f->cell_size = cell_size(f);
    pthread_mutex_init(&f->lock, NULL);
    map_init(&f->by_key, (uint64_t)(uintptr_t)f);
    list_init(&f->hidden);
    m->families = xrealloc(m->families, (m->n_families + 1) * sizeof(struct metric_family *));
    m->families[m->n_families++] = f;
    pthread_mutex_unlock(&m->lock);
    return f;
}

/* A label value within its maximum, not cut inside a character. */
static struct str clip(struct str v)
{
    if (v.n <= VALUE_LEN_MAX)
        return v;
    v.n = VALUE_LEN_MAX;
    while (v.n && ((unsigned char)v.p[v.n] & 0xc0) == 0x80)
        v.n--;
    return v;
}

#define KEY_LEN_MAX (METRIC_LABELS_MAX * (VALUE_LEN_MAX + 2))

/* Readers of the text format stop at a NUL, and no label needs another control character than a line end. */
static void add_value(char *to, struct str v)
{
    for (size_t i = 0; i < v.n; i++)
        to[i] = ((unsigned char)v.p[i] < 0x20 && v.p[i] != '\n') || v.p[i] == 0x7f ? '_' : v.p[i];
}

/* All values as one string: each behind its length in two bytes. */
static struct str make_key(const struct metric_family *f, const struct str *values, char key[KEY_LEN_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_labels; i++) {
        struct str v = clip(values[i]);
        key[n++] = (char)(v.n >> 8);
        key[n++] = (char)(v.n & 0xff);
        add_value(key + n, v);
        n += v.n;
    }
    return (struct str){key, n};
}

/* Gives the series its labels: a copy of the key, into which the values point. */
static void series_label(struct metric *s, struct str key)
{
    free(s->key);
    s->key = str_dup(key);
    s->key_n = key.n;
    const unsigned char *p = (const unsigned char *)s->key;
    for (size_t i = 0; i < s->family->n_labels; i++) {
        size_t n = (size_t)p[0] << 8 | p[1];
        s->values[i] = (struct str){(const char *)p + 2, n};
        p += 2 + n;
    }
}

static void series_zero(struct metric *s)
{
    for (unsigned shard = 0; shard < s->family->registry->n_shards; shard++) {
        struct metric_cell *c = metric_cell(s, shard);
        atomic_store_explicit(&c->sum, 0, memory_order_relaxed);
        for (size_t i = 0; s->family->type == METRIC_HISTOGRAM && i <= s->family->n_bounds; i++)
            atomic_store_explicit(&c->buckets[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&s->set, 0, memory_order_relaxed);
}

static struct metric *series_new(struct metric_family *f, struct str key)
{
    struct metric *s = xcalloc(1, sizeof(*s));
    s->family = f;
    s->cells = aligned_alloc(CACHE_LINE, f->registry->n_shards * f->cell_size);
    CHECK(s->cells);
    list_init(&s->hidden_link);
    series_label(s, key);
    series_zero(s);
    return s;
}

static struct metric *series_append(struct metric_family *f, struct str key)
{
    if (f->n_series == f->cap_series) {
        f->cap_series = f->cap_series ? f->cap_series * 2 : 8;
        f->series = xrealloc(f->series, f->cap_series * sizeof(struct metric *));
    }
    struct metric *s = series_new(f, key);
    f->series[f->n_series++] = s;
    map_put(&f->by_key, key, s);
    return s;
}

static const struct str OTHER = STR("_other");

/* Somebody who counts the rest himself means the overflow series: no two series bear the same labels. */
static bool all_other(const struct metric_family *f, const struct str *values)
{
    for (size_t i = 0; i < f->n_labels; i++)
        if (!str_eq(values[i], OTHER))
            return false;
    return f->n_labels > 0;
}

static struct metric *series_overflow(struct metric_family *f)
{
    if (f->overflow)
        return f->overflow;
    struct str other[METRIC_LABELS_MAX];
    char key[KEY_LEN_MAX];
    for (size_t i = 0; i < f->n_labels; i++)
        other[i] = OTHER;
    f->overflow = series_new(f, make_key(f, other, key));
    return f->overflow;
}

static void series_show(struct metric *s)
{
    s->hidden = false;
    list_remove(&s->hidden_link);
}

/* With the family full, the series hidden longest is given new labels and starts at zero; NULL when none is hidden. */
static struct metric *series_recycle(struct metric_family *f, struct str key)
{
    struct list *link = list_pop_front(&f->hidden);
    if (!link)
        return NULL;
    struct metric *s = CONTAINER_OF(link, struct metric, hidden_link);
    map_del(&f->by_key, (struct str){s->key, s->key_n});
    series_show(s);
    series_label(s, key);
    series_zero(s);
    map_put(&f->by_key, key, s);
    return s;
}

static struct metric *series_get(struct metric_family *f, struct str key)
{
    struct metric *s = map_get(&f->by_key, key);
    if (s) {
        series_show(s);
        return s;
    }
    if (f->n_series < f->max_series)
        return series_append(f, key);
    s = series_recycle(f, key);
    return s ? s : series_overflow(f);
}

struct metric *metric_series(struct metric_family *f, const struct str *values)
{
    char mem[KEY_LEN_MAX];
    struct str key = make_key(f, values, mem);
    pthread_mutex_lock(&f->lock);
    struct metric *s = all_other(f, values) ? series_overflow(f) : series_get(f, key);
    pthread_mutex_unlock(&f->lock);
    return s;
}

void metric_series_drop(struct metric_family *f, const struct str *values)
{
    char mem[KEY_LEN_MAX];
    struct str key = make_key(f, values, mem);
    pthread_mutex_lock(&f->lock);
    struct metric *s = map_get(&f->by_key, key);
    if (s && !s->hidden) {
        s->hidden = true;
        list_push_back(&f->hidden, &s->hidden_link);
    }
    pthread_mutex_unlock(&f->lock);
}

struct metric_cell *metric_cell(const struct metric *s, unsigned shard)
{
    CHECK(shard < s->family->registry->n_shards);
    return (struct metric_cell *)(void *)(s->cells + shard * s->family->cell_size);
}

/* One writer per shard, so no read-modify-write instruction is needed. */
static void cell_add(struct metric_cell *c, double v)
{
    atomic_store_explicit(&c->sum, atomic_load_explicit(&c->sum, memory_order_relaxed) + v, memory_order_relaxed);
}

void metric_add(struct metric *s, unsigned shard, double v)
{
    cell_add(metric_cell(s, shard), v);
}

void metric_set(struct metric *s, double v)
{
    atomic_store_explicit(&s->set, v, memory_order_relaxed);
}

/* The first bucket whose upper bound is not below v. */
static size_t bucket_of(const struct metric_family *f, double v)
{
    size_t low = 0, high = f->n_bounds;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (f->bounds[mid] < v)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void metric_observe(struct metric *s, unsigned shard, double v)
{
    CHECK(s->family->type == METRIC_HISTOGRAM);
    if (isnan(v))
        return;
    struct metric_cell *c = metric_cell(s, shard);
    _Atomic uint64_t *n = &c->buckets[bucket_of(s->family, v)];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
    cell_add(c, v);
}

uint64_t metric_bucket(const struct metric *s, size_t i)
{
    uint64_t n = 0;
    for (unsigned shard = 0; shard < s->family->registry->n_shards; shard++)
        n += atomic_load_explicit(&metric_cell(s, shard)->buckets[i], memory_order_relaxed);
    return n;
}

double metric_sum(const struct metric *s)
{
    double v = atomic_load_explicit(&s->set, memory_order_relaxed);
    for (unsigned shard = 0; shard < s->family->registry->n_shards; shard++)
        v += atomic_load_explicit(&metric_cell(s, shard)->sum, memory_order_relaxed);
    return v;
}

double metric_value(const struct metric *s)
{
    if (s->family->type != METRIC_HISTOGRAM)
        return metric_sum(s);
    uint64_t n = 0;
    for (size_t i = 0; i <= s->family->n_bounds; i++)
        n += metric_bucket(s, i);
    return (double)n;
}

void metrics_collector(struct metrics *m, void (*fn)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&m->lock);
    m->collectors = xrealloc(m->collectors, (m->n_collectors + 1) * sizeof(*m->collectors));
    m->collectors[m->n_collectors++] = (struct collector){fn, ctx};
    pthread_mutex_unlock(&m->lock);
}
