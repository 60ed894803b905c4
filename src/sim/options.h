/* sim/options.h - what a simulated server was started with: the options of the real one, read from its command line.
 *
 * The dialect says which server is played: vLLM (`vllm serve`), SGLang (`sglang.launch_server`), Triton with
 * TensorRT-LLM (`tritonserver`, `launch_triton_server.py`) or `trtllm-serve`. Who knows it from elsewhere sets it after
 * sim_options_init and before sim_options_parse; `--dialect` among the arguments wins. */
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

#define SIM_MAX_DP 64
enum sim_dialect { SIM_VLLM, SIM_SGLANG, SIM_TRITON, SIM_TRTLLM };
enum sim_role { SIM_UNIFIED, SIM_PREFILL, SIM_DECODE }; /* SGLang's --disaggregation-mode */

struct sim_lora {
    struct str name, path;
};
struct sim_options { /* sim_options_init; strings live in the arena */
    struct arena arena;
    enum sim_dialect dialect;
    enum sim_role role;
    struct str host, model, names[SIM_MAX_NAMES], pod_name, pod_ns;
    struct str profile, hardware, control;
    uint16_t port;
    uint16_t bootstrap_port;    /* SGLang prefill: partners ask here for their prompts (8998) */
    uint16_t side_channel_port; /* vLLM with NIXL: the same (5600). 0: any free one, also for bootstrap and metrics */
    uint16_t metrics_port;      /* Triton (8002) */
    unsigned n_names, n_loras, tp;
    unsigned dp;       /* engines in this server (1) */
    uint64_t dp_first; /* number of the first (0): the server is one rank of several that have ports of their own */
    struct sim_lora loras[SIM_MAX_LORAS];
    uint64_t max_model_len, max_num_seqs, max_batched_tokens,
        max_queued; /* 0 = by the profile; max_queued 0 = no limit */
    uint64_t block_size, kv_tokens, n_blocks_override, max_loras, max_cpu_loras;
    uint64_t lora_load_us, lora_read_us;
    uint64_t seed, startup_us, frontend_us, mean_output;
    double memory_frac, time_scale;
    bool enable_lora, prefix_caching, jitter, prompt_tokens_details, request_id_headers, force_usage;
    bool expose_metrics;    /* SGLang: --enable-metrics; Triton: --allow-metrics (default on) */
    bool nixl;              /* vLLM: --kv-transfer-config names the NixlConnector */
    bool kv_recompute;      /* its kv_load_failure_policy: compute here what could not be fetched (default: the request
                               fails) */
    double kv_gbps;         /* prefill: link to the partners, 10^9 bit/s (100) */
    uint64_t kv_latency_us; /* of each transfer (2 ms) */
    uint64_t pair_wait_us;  /* how long a leg waits for its partner (300 s) */
    uint64_t kv_lease_us;   /* how long NIXL holds a prompt that nobody fetches (480 s) */
    enum sim_metrics metrics;
    void (*note)(void *ctx, const char *text); /* options that are accepted without effect; or NULL */
    void *note_ctx;
};
void sim_options_init(struct sim_options *o);
void sim_options_free(struct sim_options *o);
const char *sim_dialect_name(enum sim_dialect d); /* as --dialect takes it */
const char *sim_role_name(enum sim_role r);       /* unified, prefill, decode */
/* Reads arguments (without the program's own words such as "vllm serve"): both spellings of every name, --name=value,
 * lists of values, a model as the first plain word. Options of the real server that mean nothing here are noted. -1
 * with a sentence.
 * port: what sim_options_init left there (8000) becomes the dialect's own default (SGLang 30000) unless the arguments
 * name one; a caller that put 0 there and finds 0 knows that none was named. */
int sim_options_parse(struct sim_options *o, const struct str *argv, size_t n, struct errbuf *err) MUST_USE;
/* Lines for --help: name, placeholder, help. */
void sim_options_each(void (*fn)(void *ctx, const char *name, const char *arg, const char *help), void *ctx);

#endif
