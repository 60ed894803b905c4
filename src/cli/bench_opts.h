/* cli/bench_opts.h - the options of penstock bench: names and defaults of `vllm bench serve`, and some of ours. */
#ifndef CLI_BENCH_OPTS_H
#define CLI_BENCH_OPTS_H

#include "bench/dataset.h"
#include "bench/result.h"
#include "cli/cli.h"

#define BENCH_MAX_LORA 64

struct bench_cli { /* zero-initialise; strings are those of the command line */
    const char *backend, *base_url, *host, *endpoint, *model, *served_model, *tokenizer, *label;
    const char *request_id_prefix, *result_dir, *result_filename, *plot, *pods, *gateway_admin, *extra_body;
    uint64_t port, max_concurrency, max_conversations, num_warmups, request_timeout_us, ready_wait_us;
    double time_scale;
    bool chat, ignore_eos, lora_random, save_result, save_detailed, append_result, quiet, per_pod;
    struct cli_list headers, lora, compare, goodput, meta;
    struct dataset_opts data;
    struct arrival_opts arrivals;
    bool show[BENCH_N_METRICS];
    double percentiles[BENCH_MAX_PERCENTILES], slo_ms[BENCH_N_METRICS];
    uint32_t n_percentiles, n_metadata;
    struct str metadata[BENCH_MAX_METADATA][2];
    const char *sampling[16][2]; /* member of the body, its number */
    char **argv;                 /* ours, with lists written out */
    int argc;
};
int bench_cli_parse(struct bench_cli *o, int argc, char **argv) MUST_USE; /* CLI_GO or the exit code */
void bench_cli_headers(const struct bench_cli *o, struct buf *out); /* complete lines */
void bench_cli_extra(const struct bench_cli *o, struct buf *out);   /* members of the body, each after a comma */
void bench_cli_free(struct bench_cli *o);

#endif
