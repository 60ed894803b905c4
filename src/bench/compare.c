/* bench/compare.c - saved results side by side.
 *
 * Runs of one label are one column: the median of each figure, and half of (largest - smallest) as a share of it. A
 * change counts as better or worse only when the ranges of the two columns do not overlap (a single run is a range of
 * one point) and it is at least 0.05 %. */
#include "bench/saved.h"
#include "bench/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_WIDTH   38
#define COLUMN_WIDTH 34
#define MAX_COLUMNS  64
#define MAX_RUNS     4096

struct column {
    const char *label;
    const struct saved_run **runs;
    size_t n;
};
struct table {
    struct column *v;
    size_t n, n_runs;
    struct buf *out;
};
struct cell {
    double median, lo, hi;
    size_t n; /* runs that have the figure */
};
struct figure {
    const char *key, *name;
    int better; /* 1 more, -1 less, 0 neither */
    int digits;
};

static const struct figure before[] = {
    {"completed", "Successful requests", 1, 0},
    {"failed", "Failed requests", -1, 0},
    {"duration", "Benchmark duration (s)", 0, 2},
    {"total_input_tokens", "Total input tokens", 0, 0},
    {"total_output_tokens", "Total generated tokens", 0, 0},
    {"request_throughput", "Request throughput (req/s)", 1, 2},
    {"request_goodput", "Request goodput (req/s)", 1, 2},
    {"output_throughput", "Output token throughput (tok/s)", 1, 2},
    {"max_output_tokens_per_s", "Peak output token throughput (tok/s)", 1, 2},
    {"max_concurrent_requests", "Peak concurrent requests", 0, 0},
    {"total_token_throughput", "Total token throughput (tok/s)", 1, 2},
    {"cached_frac", "Share of input tokens cached", 1, 4},
};
static const struct figure after[] = {
    {"pod_requests_cv", "Variation of requests over pods", -1, 3},
    {"pod_tokens_cv", "Variation of output tokens over pods", -1, 3},
};
static const struct figure settings[] = {
    {"num_prompts", "prompts", 0, 0},
    {"request_rate", "request rate", 0, 2},
    {"burstiness", "burstiness", 0, 2},
    {"max_concurrency", "maximum concurrency", 0, 0},
};

static bool cell_of(const struct column *c, const char *key, struct cell *out)
{
    double *v = xmalloc(MAX(c->n, (size_t)1) * sizeof(*v));
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double *d = saved_get(c->runs[i], key);
        if (d)
            v[n++] = *d;
    }
    bench_sort(v, n);
    *out = (struct cell){.n = n};
    if (n) /* of two equal infinities the mean is not a number: take the order statistic */
        *out = (struct cell){.median = n % 2                      ? v[n / 2]
                                       : v[n / 2 - 1] == v[n / 2] ? v[n / 2]
                                                                  : (v[n / 2 - 1] + v[n / 2]) / 2,
                             .lo = v[0],
                             .hi = v[n - 1],
                             .n = n};
    free(v);
    return n > 0;
}

/* Appends text that takes `used` places on a terminal, right-aligned in `width`. */
static void right(struct buf *out, const char *text, size_t used, size_t width)
{
    buf_addf(out, "%*s%s", (int)(width > used ? width - used : 0), "", text);
}

static size_t places(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static const char *verdict(const struct figure *f, const struct cell *base, const struct cell *c)
{
    double more = c->median - base->median;
    if (f->better == 0)
        return "";
    if (c->lo <= base->hi && base->lo <= c->hi)
        return " ~";
    return (more > 0) == (f->better > 0) ? " better" : " worse";
}

static void value(struct table *t, const struct figure *f, const struct cell *base, const struct cell *c)
{
    char number[64], spread[32] = "", change[64] = "";
    if (c->n == 0) {
        right(t->out, "-", 1, 12);
        right(t->out, "", 0, COLUMN_WIDTH - 12);
        return;
    }
    (void)snprintf(number, sizeof(number), "%.*f", f->digits, c->median);
    if (c->n > 1 && c->median != 0 && isfinite(c->hi))
        (void)snprintf(spread, sizeof(spread), " ±%.1f%%", (c->hi - c->lo) / 2 / fabs(c->median) * 100);
    double more = base && base->n ? c->median - base->median : 0;
    if (base && base->n && fabs(more) <= fabs(base->median) * 0.0005)
        (void)snprintf(change, sizeof(change), " =");
    else if (base && base->n && base->median != 0 && isfinite(more))
        (void)snprintf(change, sizeof(change), " %+.1f%%%s", more / fabs(base->median) * 100, verdict(f, base, c));
    else if (base && base->n)
        (void)snprintf(change, sizeof(change), "%s", verdict(f, base, c));
    right(t->out, number, places(number), 12);
    right(t->out, spread, places(spread), 8);
    buf_addf(t->out, "%-*s", COLUMN_WIDTH - 20, change);
}

/* Ends a line without the blanks that fill it up. */
static void end_line(struct buf *out)
{
    while (out->n && out->p[out->off + out->n - 1] == ' ')
        out->n--;
    buf_add_str(out, STR("\n"));
}

static void row(struct table *t, const struct figure *f)
{
    struct cell base, c;
    bool any = false;
    for (size_t i = 0; i < t->n; i++)
        any |= cell_of(&t->v[i], f->key, &c);
    if (!any)
        return;
    buf_addf(t->out, "%-*s", NAME_WIDTH, f->name);
    for (size_t i = 0; i < t->n; i++) {
        (void)cell_of(&t->v[i], f->key, &c);
        if (i == 0)
            base = c;
        value(t, f, i ? &base : NULL, &c);
    }
    end_line(t->out);
}

/* The percentiles of a metric that any run has, ascending. */
static size_t percentiles_of(const struct table *t, const char *metric, double *out, size_t room)
{
    size_t n = 0;
    char tail[16];
    (void)snprintf(tail, sizeof(tail), "_%s_ms", metric);
    for (size_t c = 0; c < t->n; c++)
        for (size_t r = 0; r < t->v[c].n; r++)
            for (size_t i = 0; i < t->v[c].runs[r]->n_figures && n < room; i++) {
                struct str key = str_c(t->v[c].runs[r]->figures[i].key);
                double p;
                if (key.n < 2 || key.p[0] != 'p' || !str_ends(key, str_c(tail)) ||
                    !str_to_double((struct str){key.p + 1, key.n - 1 - strlen(tail)}, &p))
                    continue;
                size_t k = 0;
                while (k < n && out[k] != p)
                    k++;
                if (k == n)
                    out[n++] = p;
            }
    bench_sort(out, n);
    return n;
}

static void metric_rows(struct table *t, int m)
{
    double p[BENCH_MAX_PERCENTILES * 2];
    size_t n = percentiles_of(t, bench_metric_keys[m], p, ARRAY_LEN(p));
    char key[SAVED_MAX_KEY], name[48];
    const struct figure f = {key, name, -1, 2};
    for (size_t i = 0; i < n + 2; i++) {
        char pn[16];
        if (i >= 2)
            bench_percentile_name(p[i - 2], pn);
        (void)snprintf(key, sizeof(key), "%s%s_%s_ms",
                       i == 0   ? "mean"
                       : i == 1 ? "median"
                                : "p",
                       i >= 2 ? pn : "", bench_metric_keys[m]);
        (void)snprintf(name, sizeof(name), "%s%s %s (ms)",
                       i == 0   ? "Mean"
                       : i == 1 ? "Median"
                                : "P",
                       i >= 2 ? pn : "", bench_metric_names[m]);
        row(t, &f);
    }
}

/* The first `max` characters. */
static void cut(const char *s, size_t max, char *out)
{
    for (size_t n = 0; *s; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
        if (n > max)
            break;
        *out++ = *s;
    }
    *out = 0;
}

static void head(struct table *t)
{
    bool several = t->n_runs > t->n;
    buf_addf(t->out, "%-*s", NAME_WIDTH, several ? "Medians of the runs of a label" : "");
    for (size_t i = 0; i < t->n; i++) {
        char label[SAVED_MAX_LABEL + 32];
        cut(t->v[i].label, t->v[i].n > 1 ? 20 : 32, label);
        if (t->v[i].n > 1)
            (void)snprintf(label + strlen(label), 32, " (%zu runs)", t->v[i].n);
        size_t used = places(label);
        buf_addf(t->out, "%s%*s", label, (int)(used < COLUMN_WIDTH ? COLUMN_WIDTH - used : 1), "");
    }
    end_line(t->out);
}

static void setting_text(const struct saved_run *r, const struct figure *f, char out[SAVED_MAX_LABEL])
{
    const double *v = f ? saved_get(r, f->key) : NULL;
    if (!f)
        (void)snprintf(out, SAVED_MAX_LABEL, "%s", r->model[0] ? r->model : "not told");
    else if (!v)
        (void)snprintf(out, SAVED_MAX_LABEL, "not set");
    else
        (void)snprintf(out, SAVED_MAX_LABEL, "%.*f", f->digits, *v);
}

/* What makes a comparison doubtful: columns measured under different settings. One line per column and setting. */
static void notes(struct table *t)
{
    char base[SAVED_MAX_LABEL], own[SAVED_MAX_LABEL];
    for (size_t i = 0; i <= ARRAY_LEN(settings); i++) {
        const struct figure *f = i < ARRAY_LEN(settings) ? &settings[i] : NULL;
        setting_text(t->v[0].runs[0], f, base);
        for (size_t c = 0; c < t->n; c++)
            for (size_t r = 0; r < t->v[c].n; r++) {
                setting_text(t->v[c].runs[r], f, own);
                if (strcmp(base, own) != 0) {
                    buf_addf(t->out, "note: %s of %s: %s, of %s: %s\n", f ? f->name : "model", t->v[0].label, base,
                             t->v[c].label, own);
                    break;
                }
            }
    }
}

static bool add_run(struct table *t, const struct saved_run *r, struct errbuf *err)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->v[i].label, r->label) != 0)
        i++;
    if (i == MAX_COLUMNS || t->n_runs == MAX_RUNS) {
        (void)err_set(err, "cannot compare more than %d labels and %d runs at once", MAX_COLUMNS, MAX_RUNS);
        return false;
    }
    if (i == t->n) {
        t->v = xrealloc(t->v, (t->n + 1) * sizeof(*t->v));
        t->v[t->n++] = (struct column){.label = r->label};
    }
    struct column *c = &t->v[i];
    c->runs = xrealloc(c->runs, (c->n + 1) * sizeof(*c->runs));
    c->runs[c->n++] = r;
    t->n_runs++;
    return true;
}

static void print(struct table *t)
{
    head(t);
    for (size_t i = 0; i < ARRAY_LEN(before); i++)
        row(t, &before[i]);
    for (int m = 0; m < BENCH_N_METRICS; m++)
        metric_rows(t, m);
    for (size_t i = 0; i < ARRAY_LEN(after); i++)
        row(t, &after[i]);
    notes(t);
}

bool bench_compare(const char *const *paths, size_t n, struct buf *out, struct errbuf *err)
{
    struct table t = {.out = out};
    struct saved_runs *files = xcalloc(MAX(n, (size_t)1), sizeof(*files));
    bool ok = n > 0;
    if (!ok)
        (void)err_set(err, "no files to compare");
    for (size_t i = 0; ok && i < n; i++) {
        ok = saved_read(paths[i], false, &files[i], err);
        for (size_t r = 0; ok && r < files[i].n; r++)
            ok = add_run(&t, &files[i].v[r], err);
    }
    if (ok)
        print(&t);
    if (ok && out->overflow) {
        (void)err_set(err, "the comparison is larger than its %zu bytes", out->max);
        ok = false;
    }
    for (size_t i = 0; i < t.n; i++)
        free(t.v[i].runs);
    free(t.v);
    for (size_t i = 0; i < n; i++)
        saved_free(&files[i]);
    free(files);
    return ok;
}
