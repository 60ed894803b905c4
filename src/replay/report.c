/* replay/report.c - the figures of a run. The rules are those of report.h. */
#include "bench/stats.h"
#include "replay/report_int.h"

#include <math.h>
#include <stdlib.h>

#define WARM_SHARE   0.1   /* of the requests, open loop */
#define CLOSED_FROM  0.375 /* of the time, closed loop */
#define CLOSED_UNTIL 0.97
#define MIDDLE_FROM  0.2 /* of the answers */
#define MIDDLE_UNTIL 0.8
#define SLO_S        2.0
#define SLO_IDEALS   2.0 /* further allowance: so many times the TTFT on an idle server */

/* ---- which requests count ---- */

static struct report_span open_span(const struct world_result *r)
{
    double *at = xcalloc(MAX(r->n, 1u), sizeof(*at));
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->v[i].at_s >= 0)
            at[n++] = r->v[i].at_s;
    bench_sort(at, n);
    struct report_span s = {n ? at[(uint32_t)(n * WARM_SHARE)] : 0, HUGE_VAL};
    free(at);
    return s;
}

struct report_span report_span_of(const struct world_result *r, bool closed, double stop_s)
{
    return closed ? (struct report_span){CLOSED_FROM * stop_s, CLOSED_UNTIL * stop_s} : open_span(r);
}

bool report_counts(const struct world_request *q, struct report_span s)
{
    return q->at_s >= 0 && q->at_s >= s.from && q->at_s < s.until;
}

bool report_attained(const struct world_request *q)
{
    bool answering = q->first_s >= 0 && (q->end == WORLD_OK || q->end == WORLD_LOST);
    return answering && q->first_s - q->at_s <= SLO_S + SLO_IDEALS * (double)q->ideal_s;
}

/* ---- figures ---- */

static double mean_of(const double *v, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / n : 0;
}

/* Sorts v. NAN where there is nothing. */
static void spread_of(double *v, uint32_t n, double *mean, double *p50, double *p90, double *p99)
{
    bench_sort(v, n);
    *mean = n ? mean_of(v, n) : (double)NAN;
    *p50 = n ? bench_percentile(v, n, 50) : (double)NAN;
    *p90 = n ? bench_percentile(v, n, 90) : (double)NAN;
    *p99 = n ? bench_percentile(v, n, 99) : (double)NAN;
}

static void times(const struct world_result *r, struct report_span s, struct report *out)
{
    double *ttft = xcalloc(MAX(r->n, 1u), sizeof(*ttft)), *tpot = xcalloc(MAX(r->n, 1u), sizeof(*tpot));
    double e2e = 0, queued = 0, cached = 0, input = 0;
    uint32_t n = 0, n_tpot = 0, in_time = 0, split = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct world_request *q = &r->v[i];
        if (!report_counts(q, s) || q->end != WORLD_OK)
            continue;
        ttft[n] = q->first_s - q->at_s;
        in_time += ttft[n++] <= SLO_S;
        if (q->output > 1)
            tpot[n_tpot++] = (q->end_s - q->first_s) / (q->output - 1);
        e2e += q->end_s - q->at_s;
        queued += MAX(q->sent_s - q->at_s, 0.0);
        cached += q->cached;
        split += q->split;
        input += q->input;
    }
    spread_of(ttft, n, &out->ttft_mean, &out->ttft_p50, &out->ttft_p90, &out->ttft_p99);
    spread_of(tpot, n_tpot, &out->tpot_mean, &out->tpot_p50, &out->tpot_p90, &out->tpot_p99);
    free(ttft);
    free(tpot);
    out->n = n;
    out->e2e_mean = n ? e2e / n : (double)NAN;
    out->queued_mean = n ? queued / n : (double)NAN;
    out->slo = n ? (double)in_time / n : (double)NAN;
    out->split = n && r->pd ? (double)split / n : (double)NAN;
    out->hit = input > 0 ? cached / input : (double)NAN;
}

/* Goodput: what was attained, over the time in which it arrived. */
static void fates(const struct world_result *r, struct report_span s, struct report *out)
{
    uint32_t all = 0, attained = 0;
    double last = s.from;
    out->refused = out->failed = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct world_request *q = &r->v[i];
        if (!report_counts(q, s))
            continue;
        all++;
        last = MAX(last, q->at_s);
        out->refused += q->end == WORLD_REFUSED;
        out->failed += q->end == WORLD_FAILED || q->end == WORLD_LOST;
        attained += report_attained(q);
    }
    double length = (isinf(s.until) ? last : s.until) - s.from;
    out->attained = all ? (double)attained / all : (double)NAN;
    out->goodput = length > 0 ? attained / length : 0;
}

/* Answers that end in [from, until). */
static void rates(const struct world_result *r, double from, double until, struct report *out)
{
    double n = 0, tokens = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct world_request *q = &r->v[i];
        if (q->end != WORLD_OK || q->end_s < from || q->end_s >= until)
            continue;
        n++;
        tokens += q->output;
    }
    out->rps = until > from ? n / (until - from) : 0;
    out->out_tps = until > from ? tokens / (until - from) : 0;
}

/* Ends of all answers, ascending; malloc'd. */
static double *ends_of(const struct world_result *r, uint32_t *n)
{
    double *end = xcalloc(MAX(r->n, 1u), sizeof(*end));
    *n = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->v[i].end == WORLD_OK)
            end[(*n)++] = r->v[i].end_s;
    bench_sort(end, *n);
    return end;
}

static void servers(const struct world_result *r, double last_end_s, struct report *out)
{
    double *tokens = xcalloc(MAX(r->n_servers, 1u), sizeof(*tokens));
    for (uint32_t k = 0; k < r->n_servers; k++)
        tokens[k] = (double)r->prefill_tokens[k];
    out->imbalance = bench_variation(tokens, r->n_servers);
    out->busy = mean_of(r->busy, r->n_servers) * (last_end_s > 0 ? r->end_s / last_end_s : 1);
    out->preempts = r->preemptions;
    free(tokens);
}

void report_make(const struct world_result *r, bool closed, double stop_s, struct report *out)
{
    uint32_t n;
    double *end = ends_of(r, &n);
    struct report_span s = report_span_of(r, closed, stop_s);
    times(r, s, out);
    fates(r, s, out);
    if (closed)
        rates(r, CLOSED_FROM * stop_s, stop_s, out);
    else
        rates(r, n ? end[(uint32_t)(n * MIDDLE_FROM)] : 0, n ? end[(uint32_t)(n * MIDDLE_UNTIL)] : 0, out);
    servers(r, n ? end[n - 1] : 0, out);
    out->wall = r->wall_s;
    free(end);
}
