/* bench/result.h - what a benchmark run measured: samples, the statistics of them, the report, files.
 *
 * Names and definitions are those of the engine's own client (`vllm bench serve`, reference model-servers.md 6.1): TTFT = first event whose `choices` is
 * not empty - send; ITL = gaps between such events; E2EL = last such event - send; TPOT = (E2EL - TTFT) / (output tokens - 1) where there are at least
 * two; goodput = completed requests that meet every service level / duration. Times here are seconds; files and the report use milliseconds as that
 * client does. Pure: no clock, no sockets; files only in the functions that name a path. Errors: false with errbuf filled. Not thread-safe. */
#ifndef BENCH_RESULT_H
#define BENCH_RESULT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct bench_sample { /* one request, in order of sending */
    bool ok;
    const char *error;      /* static or in the run's arena; NULL when ok */
    unsigned status;        /* HTTP; 0 no answer */
    double start_s;         /* of its sending, since the beginning of the run */
    double queue_s;         /* waited for the client's own concurrency limit */
    double ttft_s, e2el_s;
    uint32_t input_tokens, output_tokens, cached_tokens;
    float *itl_s;           /* malloc'd, owned by the sample */
    uint32_t n_itl, cap_itl;
    uint32_t turn;          /* of its conversation, from 0 */
    int32_t pod;            /* index into the run's pods; -1 unknown */
    float itl_sum_s;
};

enum bench_metric { BENCH_TTFT, BENCH_TPOT, BENCH_ITL, BENCH_E2EL, BENCH_N_METRICS };
#define BENCH_MAX_PERCENTILES 16
#define BENCH_MAX_METADATA 32
struct bench_run { /* settings and samples of one run. Strings are borrowed */
    struct str date, backend, model_id, tokenizer_id, label;
    uint32_t num_prompts, max_concurrency;  /* 0 = none */
    double request_rate;                    /* HUGE_VAL = all at once */
    double burstiness;
    bool show[BENCH_N_METRICS];             /* --percentile-metrics */
    double percentiles[BENCH_MAX_PERCENTILES];
    uint32_t n_percentiles;
    double slo_ms[BENCH_N_METRICS];         /* --goodput; 0 = none. ITL unused */
    struct str metadata[BENCH_MAX_METADATA][2];
    uint32_t n_metadata;
    double duration_s;                      /* first send to last end */
    struct bench_sample *samples;
    uint32_t n_samples;
    const char **pods;                      /* names, when asked for */
    uint32_t n_pods;
};

struct bench_dist { /* milliseconds */
    double mean, median, std, percentile[BENCH_MAX_PERCENTILES], max;
    uint64_t n;
};
struct bench_stats {
    uint32_t completed, failed;
    uint64_t input_tokens, output_tokens, cached_tokens;
    double request_throughput, goodput /* < 0: not asked */, output_throughput, total_throughput;
    double peak_output_per_s; /* largest number of tokens in one second of the run */
    uint32_t peak_concurrent;
    struct bench_dist dist[BENCH_N_METRICS];
};
void bench_stats(const struct bench_run *r, struct bench_stats *out);

/* The table of the engine's client, byte for byte in form ("{:<40} {:<10}", rules centred in 50 columns), followed by ours where there is something to
 * say: errors by kind, TTFT per turn, requests and tokens per pod with their coefficient of variation. */
void bench_report(const struct bench_run *r, const struct bench_stats *st, struct buf *out);
/* The JSON of --save-result; detailed adds input_lens, output_lens, ttfts, itls, latencies (with start_times, errors). Keys as in model-servers.md
 * 6.1, ours after them (per_pod, per_turn, errors_by_kind, cached_tokens). */
void bench_json(const struct bench_run *r, const struct bench_stats *st, bool detailed, struct buf *out);
/* Compares saved results (of ours or of the engine's client): one column per file, one row per figure, change of each against the first in per cent,
 * marked better or worse. With repeated runs of one label the medians are compared. */
bool bench_compare(const char *const *paths, size_t n, struct buf *out, struct errbuf *err);
/* Cumulative distributions of TTFT, TPOT, ITL and E2EL, a panel each; one line per run, legend = label. path ends in .svg, or in .png: that is
 * converted by rsvg-convert and says so when it is missing. From samples, or from files saved with details. */
struct bench_curve_set {
    struct str label;          /* malloc'd copy */
    float *v[BENCH_N_METRICS]; /* milliseconds, sorted, malloc'd */
    uint32_t n[BENCH_N_METRICS];
};
void bench_curves(const struct bench_run *r, struct bench_curve_set *out);
bool bench_curves_load(const char *path, struct bench_curve_set *out, struct errbuf *err);
void bench_curves_free(struct bench_curve_set *c);
bool bench_plot(const struct bench_curve_set *v, size_t n, const char *path, struct errbuf *err);

#endif
