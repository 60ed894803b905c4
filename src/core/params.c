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
        .lru_by_memory = true,
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
        .queue_late_us = 2000000,
        .queue_ttl_us = 30000000,
        .early_refusal = EARLY_OWN,
        .transfer_s = 10e-6,
        .transfer_base_s = 0.01,
        .lora_load_s = 0.2,
        .lora_wait_s = 2,
        .eject_share = 0.5,
        .eject_us = 10000000,
        .eject_max_us = 60000000,
        .slow_start_us = 1000000,
        .learn_speed = true,
    };
}

static const struct {
    const char *name, *about;
} policies[N_SCHED_POLICIES] = {
    [SCHED_DEFAULT] = {"default", "least expected seconds of work by load alone"},
    [SCHED_PREFIX_CACHE] = {"prefix-cache", "least expected seconds of work, cached prefixes counted"},
    [SCHED_ROUND_ROBIN] = {"round-robin", "in turn"},
    [SCHED_RANDOM] = {"random", "by chance"},
    [SCHED_LEAST_REQUEST] = {"least-request", "fewest of our requests in flight"},
    [SCHED_SESSION_HASH] = {"session-hash",
                            "always the same server for the same start of the prompt, whatever the load"},
    [SCHED_REFERENCE] = {"reference", "scores of the reference picker: queue 2, KV use 2, prefix 3 over 4096 tokens"},
    [SCHED_REFERENCE_DEEP] = {"reference-deep", "the same scores, whole prompts compared"},
    [SCHED_REFERENCE_LOAD] = {"reference-load", "the same scores without the prefix"},
    [SCHED_CACHE_AWARE] = {"cache-aware", "the longest match while loads are balanced, else the fewest requests"},
    [SCHED_DYNAMO] = {"dynamo", "fewest blocks: prefill to compute + active"},
    [SCHED_LMETRIC] = {"lmetric", "least (pending prefill + own prefill) x requests"},
    [SCHED_LEAST_WORK] = {"least-work", "least pending prefill + own prefill, in tokens"},
    [SCHED_PREBLE] = {"preble", "the holder of more than half of the prompt, else least work, eviction and prefill"},
};

const char *sched_policy_name(enum sched_policy p)
{
    return (size_t)p < ARRAY_LEN(policies) ? policies[p].name : "?";
}

const char *sched_policy_about(enum sched_policy p)
{
    return (size_t)p < ARRAY_LEN(policies) ? policies[p].about : "?";
}

/* The next character that counts, in lower case; 0 at the end. */
bool sched_policy_parse(struct str name, enum sched_policy *out)
{
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        if (str_same_name(name, str_c(policies[i].name))) {
            *out = (enum sched_policy)i;
            return true;
        }
    return false;
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
        [REASON_IDLE_CACHE] = "idle_cache",
        [REASON_DRAINED] = "drained",
        [REASON_POLICY] = "policy",
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

const char *sched_outcome_name(enum sched_outcome o)
{
    static const char *const names[] = {
        [OUT_OK] = "ok",
        [OUT_CANCELLED] = "cancelled",
        [OUT_CONNECT_FAILED] = "connect",
        [OUT_RESET] = "reset",
        [OUT_GARBAGE] = "garbage",
        [OUT_TIMEOUT] = "timeout",
        [OUT_SERVER_ERROR] = "server_error",
        [OUT_MODEL_MISSING] = "model_missing",
        [OUT_STALE_CONN] = "stale_conn",
    };
    return (size_t)o < ARRAY_LEN(names) ? names[o] : "?";
}
