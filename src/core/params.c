/* Defaults of the picker and the names of its enumerations. The prior is the H100 profile of the simulator (design 6):
 * only ratios between endpoints matter much, and those are learnt. */
#include "core/sched.h"

void sched_params_init(struct sched_params *p)
{
    *p = (struct sched_params){
        .policy = SCHED_DEFAULT,
        .block_bytes = 64,
        .max_blocks = 128,
        .deep = true,
        .lru_capacity = 50000,
        .step_s = 15e-3,
        .prefill_s = 75e-6,
        .quad_s = 4.2e-9,
        .decode_s = 20e-6,
        .ctx_s = 0.06e-6,
        .kv_tokens = 270000,
        .step_tokens = 8192,
        .bytes_per_token = 4,
        .mean_output = 200,
        .affinity = 3,
        .tie_band_s = 0.05,
        .queue_threshold = 5,
        .kv_threshold = 0.8,
        .stale_us = 5000000,
        .queue_bytes = 104857600,
        .queue_requests = 100000,
        .queue_ttl_us = 30000000,
        .early_refusal = EARLY_OWN,
        .lora_load_s = 0.2,
        .lora_wait_s = 2,
        .eject_share = 0.5,
        .eject_us = 10000000,
        .eject_max_us = 60000000,
        .slow_start_us = 1000000,
        .learn_speed = true,
    };
}

const char *sched_skip_name(enum sched_skip s)
{
    static const char *const names[] = {
        [SKIP_NONE] = "",
        [SKIP_TRIED] = "tried",
        [SKIP_EJECTED] = "ejected",
        [SKIP_NOT_READY] = "not_ready",
        [SKIP_MODEL] = "model",
        [SKIP_DRAINING] = "draining",
        [SKIP_PINNED_ELSEWHERE] = "pinned_elsewhere",
        [SKIP_FULL] = "full",
        [SKIP_LORA_SLOTS] = "lora_slots",
        [SKIP_BEYOND_EXPLAIN] = "beyond_explain",
    };
    return (size_t)s < ARRAY_LEN(names) ? names[s] : "?";
}

const char *sched_reason_name(enum sched_reason r)
{
    static const char *const names[] = {
        [REASON_NONE] = "none",
        [REASON_LEAST_COST] = "least_cost",
        [REASON_ONLY_CANDIDATE] = "only_candidate",
        [REASON_PREFIX_HOLDER] = "prefix_holder",
        [REASON_TIE_LEAST_OWNED] = "tie_least_owned",
        [REASON_TIE_RANDOM] = "tie_random",
        [REASON_PINNED] = "pinned",
        [REASON_ROUND_ROBIN] = "round_robin",
        [REASON_ALL_EJECTED] = "all_ejected",
        [REASON_EXPLORE] = "explore",
        [REASON_DRAINED] = "drained",
    };
    return (size_t)r < ARRAY_LEN(names) ? names[r] : "?";
}

const char *sched_reject_name(enum sched_reject r)
{
    static const char *const names[N_SCHED_REJECTS] = {
        [REJECT_NONE] = "none",
        [REJECT_NO_ENDPOINT] = "no_endpoint",
        [REJECT_SHED] = "shed",
        [REJECT_QUEUE_FULL] = "queue_full",
        [REJECT_QUEUE_TIMEOUT] = "queue_timeout",
        [REJECT_DEADLINE] = "queue_deadline",
    };
    return (size_t)r < ARRAY_LEN(names) ? names[r] : "?";
}
