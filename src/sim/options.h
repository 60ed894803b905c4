/* sim/options.h - what a simulated server was started with: the options of `vllm serve`, read from its command line. */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include "base/arena.h"
#include "sim/profile.h"

#define SIM_MAX_NAMES 8
#define SIM_MAX_LORAS 64
enum sim_metrics {
    SIM_METRICS_DEFAULT,
    SIM_METRICS_V0,
    SIM_METRICS_V1,
    SIM_METRICS_BOTH
}; /* default: v1 and gpu_cache_usage_perc */

struct sim_lora {
    struct str name, path;
};
struct sim_options { /* sim_options_init; strings live in the arena */
    struct arena arena;
    struct str host, model, names[SIM_MAX_NAMES], pod_name, pod_ns;
    struct str profile, hardware, control;
    uint16_t port;
    unsigned n_names, n_loras, tp;
    struct sim_lora loras[SIM_MAX_LORAS];
    uint64_t max_model_len, max_num_seqs, max_batched_tokens,
        max_queued; /* 0 = by the profile; max_queued 0 = no limit */
    uint64_t block_size, kv_tokens, n_blocks_override, max_loras, max_cpu_loras;
    uint64_t lora_load_us, lora_read_us;
    uint64_t seed, startup_us, frontend_us, mean_output;
    double memory_frac, time_scale;
    bool enable_lora, prefix_caching, jitter, prompt_tokens_details, request_id_headers, force_usage, draw_output;
    enum sim_metrics metrics;
    void (*note)(void *ctx, const char *text); /* options that are accepted without effect; or NULL */
    void *note_ctx;
};
void sim_options_init(struct sim_options *o);
void sim_options_free(struct sim_options *o);
/* Reads arguments (without the program's own words such as "vllm serve"): both spellings of every name, --name=value,
 * lists of values, a model as the first plain word. Options of the real server that mean nothing here are noted. -1
 * with a sentence. */
int sim_options_parse(struct sim_options *o, const struct str *argv, size_t n, struct errbuf *err) MUST_USE;
/* Lines for --help: name, placeholder, help. */
void sim_options_each(void (*fn)(void *ctx, const char *name, const char *arg, const char *help), void *ctx);

#endif
