/* bench/stats.c - statistics of a run. Definitions: model-servers.md 6.1. */
#include "bench/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SECONDS (100u * 24 * 3600) /* of a run; bounds the table of seconds for the peaks */

const char *const bench_metric_keys[BENCH_N_METRICS] = {"ttft", "tpot", "itl", "e2el"};
const char *const bench_metric_names[BENCH_N_METRICS] = {"TTFT", "TPOT", "ITL", "E2EL"};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_sort(double *v, size_t n)
{
    if (n > 1)
        qsort(v, n, sizeof(*v), by_value);
}

double bench_percentile(const double *sorted, size_t n, double p)
{
    if (n == 0)
        return 0;
    double at = MIN(MAX(p, 0.0), 100.0) / 100 * (double)(n - 1);
    size_t lo = (size_t)at, hi = MIN(lo + 1, n - 1);
    double t = at - (double)lo, d = sorted[hi] - sorted[lo];
    return t < 0.5 ? sorted[lo] + d * t : sorted[hi] - d * (1 - t); /* exact at both ends */
}

static double sum_of(const double *v, size_t n)
{
    double sum = 0, lost = 0; /* compensated: millions of small gaps are added up */
    for (size_t i = 0; i < n; i++) {
        double y = v[i] - lost, t = sum + y;
        lost = (t - sum) - y;
        sum = t;
    }
    return sum;
}

static double deviation(const double *v, size_t n, double mean)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (v[i] - mean) * (v[i] - mean);
    return n ? sqrt(squares / (double)n) : 0;
}

void bench_dist_of(const struct bench_run *r, double *v, size_t n, struct bench_dist *out)
{
    *out = (struct bench_dist){.n = n};
    if (n == 0)
        return;
    bench_sort(v, n);
    double mean = sum_of(v, n) / (double)n;
    out->mean = mean * 1e3;
    out->std = deviation(v, n, mean) * 1e3;
    out->median = bench_percentile(v, n, 50) * 1e3;
    out->max = v[n - 1] * 1e3;
    for (uint32_t i = 0; i < MIN(r->n_percentiles, (uint32_t)BENCH_MAX_PERCENTILES); i++)
        out->percentile[i] = bench_percentile(v, n, r->percentiles[i]) * 1e3;
}

double bench_variation(const double *v, size_t n)
{
    double mean = n ? sum_of(v, n) / (double)n : 0;
    return n < 2 || !(mean > 0) ? 0 : deviation(v, n, mean) / mean;
}

bool bench_tpot(const struct bench_sample *s, double *out)
{
    if (s->output_tokens < 2)
        return false;
    *out = (s->e2el_s - s->ttft_s) / (s->output_tokens - 1);
    return true;
}

void bench_percentile_name(double p, char out[16])
{
    (void)snprintf(out, 16, "%.6g", p);
}

/* ---- totals ---- */

static void dists(const struct bench_run *r, struct bench_stats *out)
{
    size_t n_itl = 0, n[BENCH_N_METRICS] = {0};
    for (uint32_t i = 0; i < r->n_samples; i++)
        n_itl += r->samples[i].ok ? r->samples[i].n_itl : 0;
    double *v[BENCH_N_METRICS];
    for (int m = 0; m < BENCH_N_METRICS; m++)
        v[m] = xmalloc(MAX(m == BENCH_ITL ? n_itl : r->n_samples, (size_t)1) * sizeof(double));
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        double tpot;
        if (!s->ok)
            continue;
        v[BENCH_TTFT][n[BENCH_TTFT]++] = s->ttft_s;
        v[BENCH_E2EL][n[BENCH_E2EL]++] = s->e2el_s;
        if (bench_tpot(s, &tpot))
            v[BENCH_TPOT][n[BENCH_TPOT]++] = tpot;
        for (uint32_t k = 0; k < s->n_itl; k++)
            v[BENCH_ITL][n[BENCH_ITL]++] = (double)s->itl_s[k];
    }
    for (int m = 0; m < BENCH_N_METRICS; m++) {
        bench_dist_of(r, v[m], n[m], &out->dist[m]);
        free(v[m]);
    }
}

static bool meets_levels(const struct bench_run *r, const struct bench_sample *s)
{
    double tpot = 0; /* a single token meets any level */
    (void)bench_tpot(s, &tpot);
    const double v[BENCH_N_METRICS] = {[BENCH_TTFT] = s->ttft_s, [BENCH_TPOT] = tpot, [BENCH_E2EL] = s->e2el_s};
    for (int m = 0; m < BENCH_N_METRICS; m++)
        if (m != BENCH_ITL && r->slo_ms[m] > 0 && v[m] > r->slo_ms[m] / 1e3)
            return false;
    return true;
}

/* Whole seconds since the first send of a completed request: tokens (events) in each, and requests under way in each. A
 * request counts in every second that it touches, so the peak may exceed the concurrency limit; that is how the
 * engine's client counts. */
static void peaks(const struct bench_run *r, struct bench_stats *out)
{
    double first = HUGE_VAL, last = 0;
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        if (s->ok) {
            first = MIN(first, s->start_s);
            last = MAX(last, s->start_s + s->e2el_s);
        }
    }
    if (!(last >= first) || last - first > MAX_SECONDS)
        return;
    size_t n = (size_t)ceil(last - first) + 1;
    uint32_t *tokens = xcalloc(n + 1, sizeof(*tokens));
    int32_t *change = xcalloc(n + 1, sizeof(*change)); /* of the number of requests under way, at this second */
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        if (!s->ok)
            continue;
        double at = s->start_s + s->ttft_s - first;
        for (uint32_t k = 0; k <= s->n_itl; k++) {
            if (at >= 0 && at < (double)n)
                tokens[(size_t)at]++;
            at += k < s->n_itl ? (double)s->itl_s[k] : 0;
        }
        change[(size_t)(s->start_s - first)]++;
        change[MIN((size_t)(s->start_s + s->e2el_s - first), n - 1) + 1]--;
    }
    int64_t running = 0;
    for (size_t i = 0; i < n; i++) {
        running += change[i];
        out->peak_output_per_s = MAX(out->peak_output_per_s, (double)tokens[i]);
        out->peak_concurrent = MAX(out->peak_concurrent, (uint32_t)running);
    }
    free(tokens);
    free(change);
}

void bench_stats(const struct bench_run *r, struct bench_stats *out)
{
    uint32_t good = 0;
    bool levels = false;
    *out = (struct bench_stats){.goodput = -1};
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        if (!s->ok) {
            out->failed++;
            continue;
        }
        out->completed++;
        out->input_tokens += s->input_tokens;
        out->output_tokens += s->output_tokens;
        out->cached_tokens += s->cached_tokens;
        good += meets_levels(r, s);
    }
    for (int m = 0; m < BENCH_N_METRICS; m++)
        levels |= m != BENCH_ITL && r->slo_ms[m] > 0;
    double per_s = r->duration_s > 0 ? 1 / r->duration_s : 0;
    out->request_throughput = out->completed * per_s;
    out->output_throughput = (double)out->output_tokens * per_s;
    out->total_throughput = (double)(out->input_tokens + out->output_tokens) * per_s;
    if (levels)
        out->goodput = good * per_s;
    dists(r, out);
    peaks(r, out);
}

/* ---- ours ---- */

static int by_count(const void *a, const void *b)
{
    const struct bench_kind *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : strcmp(x->error, y->error);
}

size_t bench_kinds(const struct bench_run *r, struct bench_kind out[BENCH_MAX_KINDS])
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        if (s->ok)
            continue;
        const char *error = s->error && *s->error ? s->error : "unknown error";
        size_t k = 0;
        while (k < n && strcmp(out[k].error, error) != 0)
            k++;
        if (k == n && n == BENCH_MAX_KINDS - 1) {
            out[n++] = (struct bench_kind){"other", 0};
        } else if (k == n && n == BENCH_MAX_KINDS) {
            k = n - 1;
        } else if (k == n) {
            out[n++] = (struct bench_kind){error, 0};
        }
        out[k].n++;
    }
    if (n > 1)
        qsort(out, n, sizeof(*out), by_count);
    return n;
}

size_t bench_turns(const struct bench_run *r, struct bench_dist out[BENCH_MAX_TURNS])
{
    size_t turns = 0;
    double *v = xmalloc(MAX(r->n_samples, 1u) * sizeof(*v));
    for (uint32_t i = 0; i < r->n_samples; i++)
        if (r->samples[i].ok)
            turns = MAX(turns, (size_t)MIN(r->samples[i].turn, BENCH_MAX_TURNS - 1u) + 1);
    for (size_t t = 0; t < turns; t++) {
        size_t n = 0;
        for (uint32_t i = 0; i < r->n_samples; i++)
            if (r->samples[i].ok && MIN(r->samples[i].turn, BENCH_MAX_TURNS - 1u) == t)
                v[n++] = r->samples[i].ttft_s;
        bench_dist_of(r, v, n, &out[t]);
    }
    free(v);
    return turns;
}

void bench_pods(const struct bench_run *r, struct bench_pods *out)
{
    *out = (struct bench_pods){.requests = xcalloc(MAX(r->n_pods, 1u), sizeof(double)),
                               .tokens = xcalloc(MAX(r->n_pods, 1u), sizeof(double))};
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        if (!s->ok)
            continue;
        if (s->pod < 0 || (uint32_t)s->pod >= r->n_pods) {
            out->unknown++;
            continue;
        }
        out->requests[s->pod] += 1;
        out->tokens[s->pod] += s->output_tokens;
    }
    out->requests_cv = bench_variation(out->requests, r->n_pods);
    out->tokens_cv = bench_variation(out->tokens, r->n_pods);
}

void bench_pods_free(struct bench_pods *p)
{
    free(p->requests);
    free(p->tokens);
    *p = (struct bench_pods){0};
}
