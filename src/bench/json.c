/* bench/json.c - the file of --save-result. One line, so that several runs can be appended to one file. */
#include "bench/stats.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The shortest decimal that reads back as the same double. */
static void put(struct jsonw *w, double v)
{
    char t[40];
    if (!isfinite(v)) {
        jsonw_null(w);
        return;
    }
    for (int digits = 6; digits <= 17; digits = digits == 6 ? 15 : digits + 1) {
        (void)snprintf(t, sizeof(t), "%.*g", digits, v);
        if (strtod(t, NULL) == v)
            break;
    }
    jsonw_raw(w, str_c(t));
}

static void put_float(struct jsonw *w, float v)
{
    char t[40];
    (void)snprintf(t, sizeof(t), "%.8g", (double)v);
    if (strtof(t, NULL) != v)
        (void)snprintf(t, sizeof(t), "%.9g", (double)v);
    jsonw_raw(w, str_c(t));
}

static void key_number(struct jsonw *w, const char *key, double v)
{
    jsonw_key(w, key);
    put(w, v);
}

static void key_u64(struct jsonw *w, const char *key, uint64_t v)
{
    jsonw_key(w, key);
    jsonw_u64(w, v);
}

static void key_str(struct jsonw *w, const char *key, struct str v)
{
    jsonw_key(w, key);
    jsonw_str(w, v);
}

static void settings(struct jsonw *w, const struct bench_run *r)
{
    key_str(w, "date", r->date);
    key_str(w, "backend", r->backend);
    if (r->label.n)
        key_str(w, "label", r->label);
    key_str(w, "model_id", r->model_id);
    key_str(w, "tokenizer_id", r->tokenizer_id);
    key_u64(w, "num_prompts", r->num_prompts);
    for (uint32_t i = 0; i < r->n_metadata; i++) {
        char key[256];
        (void)snprintf(key, sizeof(key), STR_FMT, STR_ARG(r->metadata[i][0]));
        key_str(w, key, r->metadata[i][1]);
    }
    if (isfinite(r->request_rate))
        key_number(w, "request_rate", r->request_rate);
    else
        key_str(w, "request_rate", STR("inf"));
    key_number(w, "burstiness", r->burstiness);
    jsonw_key(w, "max_concurrency");
    if (r->max_concurrency)
        jsonw_u64(w, r->max_concurrency);
    else
        jsonw_null(w);
}

static void totals(struct jsonw *w, const struct bench_run *r, const struct bench_stats *st)
{
    key_number(w, "duration", r->duration_s);
    key_u64(w, "completed", st->completed);
    key_u64(w, "failed", st->failed);
    key_u64(w, "total_input_tokens", st->input_tokens);
    key_u64(w, "total_output_tokens", st->output_tokens);
    key_number(w, "request_throughput", st->request_throughput);
    key_number(w, "request_goodput", st->goodput >= 0 ? st->goodput : (double)NAN);
    key_number(w, "output_throughput", st->output_throughput);
    key_number(w, "total_token_throughput", st->total_throughput);
    key_number(w, "max_output_tokens_per_s", st->peak_output_per_s);
    key_u64(w, "max_concurrent_requests", st->peak_concurrent);
}

static void metric(struct jsonw *w, const struct bench_run *r, const struct bench_dist *d, int m)
{
    const struct {
        const char *name;
        double v;
    } parts[] = {{"mean", d->mean}, {"median", d->median}, {"std", d->std}};
    char key[64], p[16];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        (void)snprintf(key, sizeof(key), "%s_%s_ms", parts[i].name, bench_metric_keys[m]);
        key_number(w, key, parts[i].v);
    }
    for (uint32_t i = 0; i < r->n_percentiles; i++) {
        bench_percentile_name(r->percentiles[i], p);
        (void)snprintf(key, sizeof(key), "p%s_%s_ms", p, bench_metric_keys[m]);
        key_number(w, key, d->percentile[i]);
    }
}

static void errors_by_kind(struct jsonw *w, const struct bench_run *r)
{
    struct bench_kind kinds[BENCH_MAX_KINDS];
    size_t n = bench_kinds(r, kinds);
    jsonw_key(w, "errors_by_kind");
    jsonw_obj(w);
    for (size_t i = 0; i < n; i++)
        key_u64(w, kinds[i].error, kinds[i].n);
    jsonw_obj_end(w);
}

static void per_turn(struct jsonw *w, const struct bench_run *r)
{
    struct bench_dist d[BENCH_MAX_TURNS];
    size_t n = bench_turns(r, d);
    if (n < 2)
        return;
    jsonw_key(w, "per_turn");
    jsonw_arr(w);
    for (size_t t = 0; t < n; t++) {
        jsonw_obj(w);
        key_u64(w, "turn", t + 1);
        key_u64(w, "completed", d[t].n);
        metric(w, r, &d[t], BENCH_TTFT);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

static void per_pod(struct jsonw *w, const struct bench_run *r)
{
    struct bench_pods p;
    if (r->n_pods == 0)
        return;
    bench_pods(r, &p);
    jsonw_key(w, "per_pod");
    jsonw_arr(w);
    for (uint32_t i = 0; i < r->n_pods; i++) {
        jsonw_obj(w);
        jsonw_key(w, "pod");
        jsonw_cstr(w, r->pods[i]);
        key_u64(w, "completed", (uint64_t)p.requests[i]);
        key_u64(w, "output_tokens", (uint64_t)p.tokens[i]);
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    key_u64(w, "pod_unknown", p.unknown);
    key_number(w, "pod_requests_cv", p.requests_cv);
    key_number(w, "pod_tokens_cv", p.tokens_cv);
    bench_pods_free(&p);
}

/* ---- every request ---- */

static void itls(struct jsonw *w, const struct bench_run *r)
{
    jsonw_key(w, "itls");
    jsonw_arr(w);
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        jsonw_arr(w);
        for (uint32_t k = 0; k < s->n_itl; k++)
            put_float(w, s->itl_s[k]);
        jsonw_arr_end(w);
    }
    jsonw_arr_end(w);
}

static void details(struct jsonw *w, const struct bench_run *r)
{
    enum { INPUT, OUTPUT, TTFT, LATENCY, START, QUEUE, CACHED, STATUS, TURN, POD, N };
    static const char *const keys[N] = {
        "input_lens",  "output_lens",        "ttfts",         "latencies", "start_times",
        "queue_times", "cached_tokens_each", "http_statuses", "turns",     "pods"};
    for (int c = 0; c < N; c++) {
        if ((c == POD && r->n_pods == 0))
            continue;
        jsonw_key(w, keys[c]);
        jsonw_arr(w);
        for (uint32_t i = 0; i < r->n_samples; i++) {
            const struct bench_sample *s = &r->samples[i];
            const double v[N] = {s->input_tokens,  s->ok ? s->output_tokens : 0,
                                 s->ttft_s,        s->e2el_s,
                                 s->start_s,       s->queue_s,
                                 s->cached_tokens, s->status,
                                 s->turn,          s->pod};
            put(w, v[c]);
        }
        jsonw_arr_end(w);
    }
    itls(w, r);
    jsonw_key(w, "errors");
    jsonw_arr(w);
    for (uint32_t i = 0; i < r->n_samples; i++)
        jsonw_cstr(w, r->samples[i].ok                              ? ""
                      : r->samples[i].error && *r->samples[i].error ? r->samples[i].error
                                                                    : "unknown error");
    jsonw_arr_end(w);
}

void bench_json(const struct bench_run *r, const struct bench_stats *st, bool detailed, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    settings(&w, r);
    totals(&w, r, st);
    for (int m = 0; m < BENCH_N_METRICS; m++)
        if (r->show[m])
            metric(&w, r, &st->dist[m], m);
    key_u64(&w, "cached_tokens", st->cached_tokens);
    /* a server that never reports cached tokens says nothing of their share */
    key_number(&w, "cached_frac",
               st->cached_tokens && st->input_tokens ? (double)st->cached_tokens / (double)st->input_tokens
                                                     : (double)NAN);
    errors_by_kind(&w, r);
    per_turn(&w, r);
    per_pod(&w, r);
    if (detailed)
        details(&w, r);
    jsonw_obj_end(&w);
}
