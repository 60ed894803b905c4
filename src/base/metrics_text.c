/* base/metrics_text.c - exposition in the Prometheus text format 0.0.4. */
#include "base/metrics_impl.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Integers below 2^53 without exponent or point, others in the shortest form that reads back equal. */
static void put_number(struct buf *out, double v)
{
    char text[40];
    if (!isfinite(v)) {
        buf_addf(out, "%s", isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    if (fabs(v) < 0x1p53 && v == floor(v)) {
        buf_addf(out, "%lld", (long long)v);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_add_str(out, str_c(text));
}

/* Escapes backslash and newline, and quotes where asked; bytes that are no UTF-8 become U+FFFD. */
static void put_escaped(struct buf *out, struct str s, bool quotes)
{
    const char *p = s.p, *end = s.n ? s.p + s.n : s.p;
    while (p < end) {
        size_t n = utf8_char_len(p, end);
        if (*p == '\n')
            buf_add(out, "\\n", 2);
        else if (*p == '\\' || (*p == '"' && quotes))
            buf_add(out, (char[]){'\\', *p}, 2);
        else if (n == 0)
            buf_add(out, "\xef\xbf\xbd", 3);
        else
            buf_add(out, p, n);
        p += MAX(n, 1u);
    }
}

/* {a="x",b="y",le="0.5"}; nothing when there is no label. `le` only for buckets. */
static void put_labels(struct buf *out, const struct metric *s, const double *le)
{
    const struct metric_family *f = s->family;
    if (f->n_labels == 0 && !le)
        return;
    for (size_t i = 0; i < f->n_labels; i++) {
        buf_addf(out, "%c%s=\"", i ? ',' : '{', f->labels[i]);
        put_escaped(out, s->values[i], true);
        buf_add(out, "\"", 1);
    }
    if (le) {
        buf_addf(out, "%cle=\"", f->n_labels ? ',' : '{');
        put_number(out, *le);
        buf_add(out, "\"", 1);
    }
    buf_add(out, "}", 1);
}

static void put_sample(struct buf *out, const struct metric *s, const char *suffix, const double *le, double v)
{
    buf_addf(out, "%s%s", s->family->name, suffix);
    put_labels(out, s, le);
    buf_add(out, " ", 1);
    put_number(out, v);
    buf_add(out, "\n", 1);
}

/* The count is the sum of the buckets read, so that one page agrees with itself while others count on. */
static void put_histogram(struct buf *out, const struct metric *s)
{
    const struct metric_family *f = s->family;
    uint64_t n = 0;
    for (size_t i = 0; i <= f->n_bounds; i++) {
        double le = i < f->n_bounds ? f->bounds[i] : HUGE_VAL;
        n += metric_bucket(s, i);
        put_sample(out, s, "_bucket", &le, (double)n);
    }
    put_sample(out, s, "_sum", NULL, metric_sum(s));
    put_sample(out, s, "_count", NULL, (double)n);
}

static void put_series(struct buf *out, const struct metric *s)
{
    if (s->hidden)
        return;
    if (s->family->type == METRIC_HISTOGRAM)
        put_histogram(out, s);
    else
        put_sample(out, s, "", NULL, metric_sum(s));
}

static void put_family(struct buf *out, struct metric_family *f)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    buf_addf(out, "# HELP %s ", f->name);
    put_escaped(out, str_c(f->help), false);
    buf_addf(out, "\n# TYPE %s %s\n", f->name, types[f->type]);
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->n_series && !out->overflow; i++)
        put_series(out, f->series[i]);
    if (f->overflow)
        put_series(out, f->overflow);
    pthread_mutex_unlock(&f->lock);
}

/* Collectors may take the registry's locks, so they run outside of them. */
static void collect(struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    size_t n = m->n_collectors;
    struct collector *copy = xcalloc(MAX(n, 1u), sizeof(*copy));
    if (n)
        memcpy(copy, m->collectors, n * sizeof(*copy));
    pthread_mutex_unlock(&m->lock);
    for (size_t i = 0; i < n; i++)
        copy[i].fn(copy[i].ctx);
    free(copy);
}

bool metrics_expose(struct metrics *m, struct buf *out)
{
    collect(m);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_families && !out->overflow; i++)
        put_family(out, m->families[i]);
    pthread_mutex_unlock(&m->lock);
    return !out->overflow;
}
