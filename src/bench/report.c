/* bench/report.c - the table that a run prints. The form of the first part is that of the engine's own client
 * (model-servers.md 6.1). */
#include "bench/stats.h"

#include <math.h>
#include <stdio.h>

#define WIDTH         50
#define MAX_POD_LINES 64

static const char *const headers[BENCH_N_METRICS] = {"Time to First Token", "Time per Output Token (excl. 1st token)",
                                                     "Inter-token Latency", "End-to-end Latency"};

/* A line of `c` with the text in its middle; an odd one goes to the right. */
static void rule(struct buf *out, char c, const char *text)
{
    char line[WIDTH + 1];
    size_t n = MIN(strlen(text), (size_t)WIDTH);
    memset(line, c, WIDTH);
    memcpy(line + (WIDTH - n) / 2, text, n);
    line[WIDTH] = 0;
    buf_addf(out, "%s\n", line);
}

static void count(struct buf *out, const char *name, uint64_t v)
{
    buf_addf(out, "%-40s %-10llu\n", name, (unsigned long long)v);
}

static void number(struct buf *out, const char *name, double v)
{
    buf_addf(out, "%-40s %-10.2f\n", name, v);
}

static void totals(const struct bench_run *r, const struct bench_stats *st, struct buf *out)
{
    count(out, "Successful requests:", st->completed);
    count(out, "Failed requests:", st->failed);
    if (r->max_concurrency)
        count(out, "Maximum request concurrency:", r->max_concurrency);
    if (isfinite(r->request_rate))
        number(out, "Request rate configured (RPS):", r->request_rate);
    number(out, "Benchmark duration (s):", r->duration_s);
    count(out, "Total input tokens:", st->input_tokens);
    count(out, "Total generated tokens:", st->output_tokens);
    number(out, "Request throughput (req/s):", st->request_throughput);
    if (st->goodput >= 0)
        number(out, "Request goodput (req/s):", st->goodput);
    number(out, "Output token throughput (tok/s):", st->output_throughput);
    number(out, "Peak output token throughput (tok/s):", st->peak_output_per_s);
    number(out, "Peak concurrent requests:", st->peak_concurrent);
    number(out, "Total token throughput (tok/s):", st->total_throughput);
}

static void metric(const struct bench_run *r, const struct bench_dist *d, int m, struct buf *out)
{
    char name[64], p[16];
    rule(out, '-', headers[m]);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof(name), "%s %s (ms):", i ? "Median" : "Mean", bench_metric_names[m]);
        number(out, name, i ? d->median : d->mean);
    }
    for (uint32_t i = 0; i < r->n_percentiles; i++) {
        bench_percentile_name(r->percentiles[i], p);
        (void)snprintf(name, sizeof(name), "P%s %s (ms):", p, bench_metric_names[m]);
        number(out, name, d->percentile[i]);
    }
}

static void errors(const struct bench_run *r, struct buf *out)
{
    struct bench_kind kinds[BENCH_MAX_KINDS];
    size_t n = bench_kinds(r, kinds);
    if (n == 0)
        return;
    rule(out, '-', "Failed requests by error");
    for (size_t i = 0; i < n; i++) {
        char text[201]; /* on one line, whatever a server wrote */
        (void)snprintf(text, sizeof(text), "%s", kinds[i].error);
        for (char *p = text; *p; p++)
            *p = (unsigned char)*p < 0x20 ? ' ' : *p;
        buf_addf(out, "%-40s %-10u\n", text, kinds[i].n);
    }
}

static void turns(const struct bench_run *r, struct buf *out)
{
    struct bench_dist d[BENCH_MAX_TURNS];
    size_t n = bench_turns(r, d);
    if (n < 2)
        return;
    rule(out, '-', "Time to First Token by turn");
    buf_addf(out, "%-10s %10s %10s %10s %10s\n", "Turn", "Requests", "Mean (ms)", "Median", "Max");
    for (size_t t = 0; t < n; t++)
        buf_addf(out, "%-2zu%-8s %10llu %10.2f %10.2f %10.2f\n", t + 1, t + 1 == BENCH_MAX_TURNS ? " and on" : "",
                 (unsigned long long)d[t].n, d[t].mean, d[t].median, d[t].max);
}

static void pods(const struct bench_run *r, struct buf *out)
{
    struct bench_pods p;
    if (r->n_pods == 0)
        return;
    bench_pods(r, &p);
    rule(out, '-', "Requests and tokens by pod");
    buf_addf(out, "%-40s %10s %14s\n", "Pod", "Requests", "Output tokens");
    for (uint32_t i = 0; i < MIN(r->n_pods, (uint32_t)MAX_POD_LINES); i++)
        buf_addf(out, "%-40s %10.0f %14.0f\n", r->pods[i], p.requests[i], p.tokens[i]);
    if (r->n_pods > MAX_POD_LINES)
        buf_addf(out, "and %u more\n", r->n_pods - MAX_POD_LINES);
    if (p.unknown)
        buf_addf(out, "%-40s %10u\n", "(not told)", p.unknown);
    buf_addf(out, "%-40s %10.3f %14.3f\n", "Coefficient of variation", p.requests_cv, p.tokens_cv);
    bench_pods_free(&p);
}

void bench_report(const struct bench_run *r, const struct bench_stats *st, struct buf *out)
{
    rule(out, '=', " Serving Benchmark Result ");
    totals(r, st, out);
    for (int m = 0; m < BENCH_N_METRICS; m++)
        if (r->show[m])
            metric(r, &st->dist[m], m, out);
    rule(out, '=', "");
    if (st->cached_tokens && st->input_tokens)
        buf_addf(out, "%-40s %-10llu (%.1f %% of the input)\n",
                 "Cached input tokens:", (unsigned long long)st->cached_tokens,
                 100 * (double)st->cached_tokens / (double)st->input_tokens);
    errors(r, out);
    turns(r, out);
    pods(r, out);
}
