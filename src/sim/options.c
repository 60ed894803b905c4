/* sim/options.c - one table of the options that have an effect here, whichever server they are of; everything else of
 * the real server is accepted and noted. */
#include "sim/options.h"

#include "base/duration.h"
#include "base/json.h"
#include "sim/body.h"

#include <stdio.h>

enum kind {
    STRING,
    NUMBER,
    PORT,
    FRACTION,
    FLAG,
    UNFLAG,
    TRUTH, /* true or false as a value */
    COUNT, /* of GPUs or engines: 1 to 64 */
    CHUNK, /* tokens; -1: no limit */
    NAMES,
    LORAS,
    METRICS,
    MILLIS,
    DIALECT,
    ROLE,
    KV_CONFIG
};
struct option {
    const char *name, *arg, *help;
    enum kind kind;
    size_t at; /* offset in struct sim_options */
};
#define AT(f) offsetof(struct sim_options, f)
static const struct option table[] = {
    {"dialect", "NAME", "the server to play: vllm, sglang, triton or trtllm (vllm)", DIALECT, 0},
    {"model", "NAME", "path or name of the model (also as the first plain word)", STRING, AT(model)},
    {"served-model-name", "NAME...", "names that clients use; default: the model", NAMES, 0},
    {"host", "ADDR", "address to listen on (127.0.0.1)", STRING, AT(host)},
    {"port", "PORT", "port to listen on (8000, SGLang 30000; 0: any free one)", PORT, AT(port)},
    {"metrics-port", "PORT", "Triton: port of the metrics (8002; 0: any free one)", PORT, AT(metrics_port)},
    {"allow-metrics", "BOOL", "Triton: serve metrics (true)", TRUTH, AT(expose_metrics)},
    {"enable-metrics", NULL, "SGLang: serve metrics; without it /metrics is 404", FLAG, AT(expose_metrics)},
    {"profile", "NAME", "speed and memory of a GPU and model pair; see the list below", STRING, AT(profile)},
    {"hardware", "GPU", "a10, l20, a6000, a100-40, a100, h100, h20, h20-141 (default: the first that holds the model)",
     STRING, AT(hardware)},
    {"tensor-parallel-size", "N", "GPUs that share the model", COUNT, AT(tp)},
    {"data-parallel-size", "N", "engines in this server, each with GPUs of its own", COUNT, AT(dp)},
    {"data-parallel-rank", "N", "this server is one engine of several that have ports of their own", NUMBER,
     AT(dp_first)},
    {"disaggregation-mode", "ROLE", "SGLang: prefill or decode, one half of a pair (null)", ROLE, 0},
    {"disaggregation-bootstrap-port", "PORT", "SGLang prefill: where decode servers ask (8998; 0: any free one)", PORT,
     AT(bootstrap_port)},
    {"kv-transfer-config", "JSON", "vLLM: {\"kv_connector\":\"NixlConnector\",...} hands prompts over", KV_CONFIG, 0},
    {"side-channel-port", "PORT", "vLLM with NIXL: where decode servers ask (5600; 0: any free one)", PORT,
     AT(side_channel_port)},
    {"kv-transfer-gbps", "N", "link for handed over prompts, 10^9 bit/s (100)", FRACTION, AT(kv_gbps)},
    {"kv-transfer-latency-ms", "MS", "what every transfer takes besides (2)", MILLIS, AT(kv_latency_us)},
    {"pair-wait-ms", "MS", "SGLang: how long a leg waits for its partner (300000)", MILLIS, AT(pair_wait_us)},
    {"kv-lease-ms", "MS", "vLLM: how long a prompt is held for its partner (480000)", MILLIS, AT(kv_lease_us)},
    {"max-model-len", "TOKENS", "longest prompt and answer together", NUMBER, AT(max_model_len)},
    {"gpu-memory-utilization", "FRACTION", "share of the GPU's memory to use (0.9)", FRACTION, AT(memory_frac)},
    {"max-num-seqs", "N", "sequences in one batch", NUMBER, AT(max_num_seqs)},
    {"max-num-batched-tokens", "N", "tokens in one step; -1: no limit", CHUNK, AT(max_batched_tokens)},
    {"max-num-queued-reqs", "N", "answer 503 when more requests wait", NUMBER, AT(max_queued)},
    {"enable-lora", NULL, "serve LoRA adapters", FLAG, AT(enable_lora)},
    {"max-loras", "N", "adapters in one batch, and on the GPU (1)", NUMBER, AT(max_loras)},
    {"max-cpu-loras", "N", "adapters kept in memory (as many as on the GPU)", NUMBER, AT(max_cpu_loras)},
    {"lora-load-ms", "MS", "time to bring an adapter from memory to the GPU (50)", MILLIS, AT(lora_load_us)},
    {"lora-read-ms", "MS", "time to read one from disk before that (150)", MILLIS, AT(lora_read_us)},
    {"lora-modules", "NAME=PATH...", "adapters to serve", LORAS, 0},
    {"enable-prefix-caching", NULL, "keep computed blocks (default)", FLAG, AT(prefix_caching)},
    {"no-enable-prefix-caching", NULL, "forget them", UNFLAG, AT(prefix_caching)},
    {"enable-prompt-tokens-details", NULL, "report cached_tokens in usage (SGLang: --enable-cache-report)", FLAG,
     AT(prompt_tokens_details)},
    {"enable-force-include-usage", NULL, "usage in every stream", FLAG, AT(force_usage)},
    {"enable-request-id-headers", NULL, "echo X-Request-Id (always on here)", FLAG, AT(request_id_headers)},
    {"block-size", "TOKENS", "tokens in a KV block (16; SGLang's --page-size: 1; Triton: 64)", NUMBER, AT(block_size)},
    {"num-gpu-blocks-override", "N", "KV blocks, whatever the memory holds", NUMBER, AT(n_blocks_override)},
    {"kv-tokens", "TOKENS", "capacity of the KV cache, whatever the memory holds", NUMBER, AT(kv_tokens)},
    {"seed", "N", "of jitter and drawn lengths", NUMBER, AT(seed)},
    {"jitter", NULL, "step times vary (lognormal, sigma 0.03; 1 % of steps take 1.5 times as long)", FLAG, AT(jitter)},
    {"time-scale", "N", "the server's clock runs N times as fast", FRACTION, AT(time_scale)},
    {"startup-ms", "MS", "time until the server listens", MILLIS, AT(startup_us)},
    {"frontend-ms", "MS", "time between a request's arrival and the engine (5)", MILLIS, AT(frontend_us)},
    {"mean-output", "TOKENS",
     "answers end by themselves, on average after so many tokens (default: only those without a limit, 150)", NUMBER,
     AT(mean_output)},
    {"metrics", "v0|v1|both", "names of the metrics (default: v1, and v0's gpu_cache_usage_perc)", METRICS,
     AT(metrics)},
    {"pod-name", "NAME", "sent as x-inference-pod", STRING, AT(pod_name)},
    {"control", "ADDR:PORT", "second address for the /sim/ interface, alive when the server plays dead", STRING,
     AT(control)},
};

/* Options of the real server that take no value; any other unknown option takes the next word unless that begins with
 * "--". */
static const char *const bare[] = {"trust-remote-code",
                                   "enforce-eager",
                                   "disable-log-requests",
                                   "disable-log-stats",
                                   "enable-chunked-prefill",
                                   "no-enable-chunked-prefill",
                                   "enable-auto-tool-choice",
                                   "enable-reasoning",
                                   "disable-custom-all-reduce",
                                   "enable-expert-parallel",
                                   "enable-mixed-chunk",
                                   "headless",
                                   "data-parallel-external-lb",
                                   "data-parallel-hybrid-lb",
                                   "enable-dp-attention",
                                   "enable-dp-lm-head",
                                   "disable-radix-cache",
                                   "disable-cuda-graph",
                                   "disable-overlap-schedule",
                                   "enable-hierarchical-cache",
                                   "enable-priority-scheduling",
                                   "enable-metrics-for-all-schedulers",
                                   "enable-torch-compile",
                                   "enable-ep-moe",
                                   "enable-deepep-moe",
                                   "log-requests",
                                   "skip-tokenizer-init",
                                   "skip-server-warmup",
                                   "is-embedding"};

void sim_options_init(struct sim_options *o)
{
    *o = (struct sim_options){.host = STR("127.0.0.1"),
                              .port = 8000,
                              .pod_ns = STR("default"),
                              .block_size = 16,
                              .prefix_caching = true,
                              .request_id_headers = true,
                              .seed = 1,
                              .frontend_us = 5000,
                              .lora_load_us = 50000,
                              .lora_read_us = 150000,
                              .time_scale = 1,
                              .bootstrap_port = 8998,
                              .side_channel_port = 5600,
                              .metrics_port = 8002,
                              .expose_metrics = true,
                              .kv_gbps = 100,
                              .kv_latency_us = 2000,
                              .pair_wait_us = 300000000,
                              .kv_lease_us = 480000000,
                              .dp_first = UINT64_MAX};
    arena_init(&o->arena, 4096);
}

void sim_options_free(struct sim_options *o)
{
    arena_free(&o->arena);
}

static bool name_is(struct str given, const char *name)
{
    if (given.n != strlen(name))
        return false;
    for (size_t i = 0; i < given.n; i++)
        if ((given.p[i] == '_' ? '-' : given.p[i]) != name[i])
            return false;
    return true;
}

static const struct option *find(struct str name)
{
    static const struct {
        const char *alias, *name;
    } aliases[] = {{"tp", "tensor-parallel-size"},
                   {"tensor-parallel", "tensor-parallel-size"},
                   {"tp-size", "tensor-parallel-size"},
                   {"model-path", "model"},
                   {"context-length", "max-model-len"},
                   {"mem-fraction-static", "gpu-memory-utilization"},
                   {"max-running-requests", "max-num-seqs"},
                   {"max-queued-requests", "max-num-queued-reqs"},
                   {"dp", "data-parallel-size"},
                   {"dp-size", "data-parallel-size"},
                   {"data-parallel", "data-parallel-size"},
                   {"page-size", "block-size"},
                   {"enable-cache-report", "enable-prompt-tokens-details"},
                   {"chunked-prefill-size", "max-num-batched-tokens"},
                   {"lora-paths", "lora-modules"},
                   {"max-loras-per-batch", "max-loras"},
                   {"model-repository", "model"},
                   {"model-store", "model"},
                   {"model-repo", "model"},
                   {"http-port", "port"},
                   {"world-size", "tensor-parallel-size"},
                   {"max-batch-size", "max-num-seqs"},
                   {"max-num-tokens", "max-num-batched-tokens"},
                   {"max-seq-len", "max-model-len"},
                   {"tokens-per-block", "block-size"},
                   {"http-address", "host"},
                   {"random-seed", "seed"}};
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (name_is(name, aliases[i].alias))
            name = str_c(aliases[i].name);
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (name_is(name, table[i].name))
            return &table[i];
    return NULL;
}

static int add_lora(struct sim_options *o, struct str v, struct errbuf *err)
{
    struct sim_lora l = {0};
    ptrdiff_t eq = str_find(v, STR("="));
    if (v.n && v.p[0] == '{') {
        static const char *const keys[] = {"name", "path"};
        struct str m[2];
        const char *why;
        struct buf b;
        if (!body_members(v, keys, 2, m, &why) || !body_is_string(m[0]))
            return err_set(err,
                           "--lora-modules: \"" STR_FMT "\" is neither NAME=PATH nor a JSON object with name and path.",
                           STR_ARG(v));
        buf_init(&b, v.n + 16);
        (void)body_string(m[0], &b);
        l.name = arena_str(&o->arena, buf_str(&b));
        buf_clear(&b);
        (void)body_string(m[1], &b);
        l.path = arena_str(&o->arena, buf_str(&b));
        buf_free(&b);
    } else if (eq > 0) {
        l.name = arena_str(&o->arena, str_first(v, (size_t)eq));
        l.path = arena_str(&o->arena, str_from(v, (size_t)eq + 1));
    } else {
        return err_set(err, "--lora-modules: \"" STR_FMT "\" is not NAME=PATH.", STR_ARG(v));
    }
    if (o->n_loras == SIM_MAX_LORAS)
        return err_set(err, "--lora-modules: at most %d adapters.", SIM_MAX_LORAS);
    o->loras[o->n_loras++] = l;
    return 0;
}

static int bad_value(const struct option *op, struct str v, const char *want, struct errbuf *err)
{
    return err_set(err, "--%s: \"" STR_FMT "\" is not %s.", op->name, STR_ARG(v), want);
}

/* A value that is one of the words: their index, or -1 with a sentence. */
static int one_of(const struct option *op, struct str v, const char *const *words, unsigned n, const char *want,
                  struct errbuf *err)
{
    for (unsigned i = 0; i < n; i++)
        if (str_eq_c(v, words[i]))
            return (int)i;
    return bad_value(op, v, want, err);
}

static int set_metrics(struct sim_options *o, const struct option *op, struct str v, struct errbuf *err)
{
    static const char *const modes[] = {[SIM_METRICS_DEFAULT] = "default",
                                        [SIM_METRICS_V0] = "v0",
                                        [SIM_METRICS_V1] = "v1",
                                        [SIM_METRICS_BOTH] = "both"};
    int i = one_of(op, v, modes, ARRAY_LEN(modes), "v0, v1 or both", err);
    if (i < 0)
        return -1;
    o->metrics = (enum sim_metrics)i;
    return 0;
}

static const char *const dialects[] = {
    [SIM_VLLM] = "vllm", [SIM_SGLANG] = "sglang", [SIM_TRITON] = "triton", [SIM_TRTLLM] = "trtllm"};

const char *sim_dialect_name(enum sim_dialect d)
{
    return dialects[d];
}

static int set_dialect(struct sim_options *o, const struct option *op, struct str v, struct errbuf *err)
{
    int i = one_of(op, v, dialects, ARRAY_LEN(dialects), "vllm, sglang, triton or trtllm", err);
    if (i < 0)
        return -1;
    o->dialect = (enum sim_dialect)i;
    return 0;
}

const char *sim_role_name(enum sim_role r)
{
    static const char *const names[] = {[SIM_UNIFIED] = "unified", [SIM_PREFILL] = "prefill", [SIM_DECODE] = "decode"};
    return names[r];
}

static int set_role(struct sim_options *o, const struct option *op, struct str v, struct errbuf *err)
{
    static const char *const words[] = {[SIM_UNIFIED] = "null", [SIM_PREFILL] = "prefill", [SIM_DECODE] = "decode"};
    int i = one_of(op, v, words, ARRAY_LEN(words), "null, prefill or decode", err);
    if (i < 0)
        return -1;
    o->role = (enum sim_role)i;
    return 0;
}

/* {"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"fail",
 * "kv_connector_extra_config":{"kv_lease_duration":30}}: the first decides whether there is a hand-over at all. */
static int set_kv_config(struct sim_options *o, const struct option *op, struct str v, struct errbuf *err)
{
    static const char *const keys[] = {"kv_connector", "kv_load_failure_policy", "kv_connector_extra_config"};
    static const char *const extra_keys[] = {"kv_lease_duration"};
    struct str m[3], lease[1] = {STR_NULL};
    const char *why;
    double seconds;
    if (!body_members(v, keys, ARRAY_LEN(keys), m, &why) || (m[2].n && !body_members(m[2], extra_keys, 1, lease, &why)))
        return bad_value(op, v, "a JSON object", err);
    o->nixl = str_eq(m[0], STR("\"NixlConnector\""));
    o->kv_recompute = str_eq(m[1], STR("\"recompute\""));
    if (m[1].n && !o->kv_recompute && !str_eq(m[1], STR("\"fail\"")))
        return bad_value(op, m[1], "a kv_load_failure_policy: fail or recompute", err);
    if (lease[0].n) {
        if (!str_to_double(lease[0], &seconds) || !(seconds > 0) || seconds > 1e6)
            return bad_value(op, lease[0], "a kv_lease_duration in seconds", err);
        o->kv_lease_us = (uint64_t)(seconds * 1e6);
    }
    return 0;
}

static int set_truth(const struct option *op, bool *at, struct str v, struct errbuf *err)
{
    *at = str_ieq(v, STR("true")) || str_eq_c(v, "1");
    return *at || str_ieq(v, STR("false")) || str_eq_c(v, "0") ? 0 : bad_value(op, v, "true or false", err);
}

static int set_number(const struct option *op, void *at, struct str v, struct errbuf *err)
{
    uint64_t n;
    if (op->kind == CHUNK && str_eq_c(v, "-1"))
        n = 1u << 24;
    else if (!str_to_u64(v, &n) || (op->kind == PORT && n > UINT16_MAX) ||
             (op->kind == COUNT && (n < 1 || n > SIM_MAX_DP)) || n > UINT32_MAX)
        return bad_value(op, v, "a whole number in range", err);
    if (op->kind == PORT)
        *(uint16_t *)at = (uint16_t)n;
    else if (op->kind == COUNT)
        *(unsigned *)at = (unsigned)n;
    else
        *(uint64_t *)at = n;
    return 0;
}

/* One value of an option. Lists get here once per value. */
static int set(struct sim_options *o, const struct option *op, struct str v, struct errbuf *err)
{
    void *at = (char *)o + op->at;
    double d;
    switch (op->kind) {
    case STRING:
        *(struct str *)at = arena_str(&o->arena, v);
        return 0;
    case NAMES:
        if (o->n_names == SIM_MAX_NAMES)
            return err_set(err, "--served-model-name: at most %d names.", SIM_MAX_NAMES);
        o->names[o->n_names++] = arena_str(&o->arena, v);
        return 0;
    case LORAS:
        return add_lora(o, v, err);
    case FRACTION:
        if (!str_to_double(v, &d) || !(d > 0) || d > 1e6)
            return bad_value(op, v, "a positive number", err);
        *(double *)at = d;
        return 0;
    case MILLIS:
        if (!str_to_double(v, &d) || !(d >= 0) || d > 1e9)
            return bad_value(op, v, "a time in milliseconds", err);
        *(uint64_t *)at = (uint64_t)(d * 1000);
        return 0;
    case METRICS:
        return set_metrics(o, op, v, err);
    case DIALECT:
        return set_dialect(o, op, v, err);
    case ROLE:
        return set_role(o, op, v, err);
    case KV_CONFIG:
        return set_kv_config(o, op, v, err);
    case TRUTH:
        return set_truth(op, at, v, err);
    case NUMBER:
    case PORT:
    case COUNT:
    case CHUNK:
        return set_number(op, at, v, err);
    case FLAG:
    case UNFLAG:
        break;
    }
    return err_set(err, "--%s takes no value.", op->name);
}

static void note(struct sim_options *o, struct str name)
{
    char text[160];
    if (!o->note)
        return;
    (void)snprintf(text, sizeof(text), "option --" STR_FMT " is accepted without effect in the simulation",
                   STR_ARG(str_first(name, 80)));
    o->note(o->note_ctx, text);
}

static bool is_option(struct str s)
{
    return s.n > 2 && s.p[0] == '-' && s.p[1] == '-';
}

static bool is_bare(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(bare); i++)
        if (name_is(name, bare[i]))
            return true;
    return false;
}

/* The option at argv[*i] and its values; *i is left at the last word taken. */
static int parse_option(struct sim_options *o, const struct str *argv, size_t n, size_t *i, struct errbuf *err)
{
    struct str name = str_from(argv[*i], 2), value = STR_NULL;
    ptrdiff_t eq = str_find(name, STR("="));
    if (eq > 0) {
        value = str_from(name, (size_t)eq + 1);
        name = str_first(name, (size_t)eq);
    }
    const struct option *op = find(name);
    if (!op) {
        note(o, name);
        if (eq < 0 && !is_bare(name) && *i + 1 < n && !is_option(argv[*i + 1]))
            ++*i;
        return 0;
    }
    if (op->kind == FLAG || op->kind == UNFLAG) {
        if (eq > 0)
            return err_set(err, "--%s takes no value.", op->name);
        *(bool *)(void *)((char *)o + op->at) = op->kind == FLAG;
        return 0;
    }
    if (eq > 0)
        return set(o, op, value, err);
    if (*i + 1 >= n || is_option(argv[*i + 1]))
        return err_set(err, "--%s needs a value (%s).", op->name, op->arg);
    do {
        if (set(o, op, argv[++*i], err) != 0)
            return -1;
    } while ((op->kind == NAMES || op->kind == LORAS) && *i + 1 < n && !is_option(argv[*i + 1]));
    return 0;
}

/* --dialect, wherever it stands: what the others mean by default depends on it. */
static int find_dialect(struct sim_options *o, const struct str *argv, size_t n, struct errbuf *err)
{
    const struct option *op = find(STR("dialect"));
    for (size_t i = 0; i < n; i++) {
        if (str_starts(argv[i], STR("--dialect=")))
            return set_dialect(o, op, str_from(argv[i], 10), err);
        if (str_eq_c(argv[i], "--dialect") && i + 1 < n)
            return set_dialect(o, op, argv[i + 1], err);
    }
    return 0;
}

static void dialect_defaults(struct sim_options *o)
{
    if (o->dialect == SIM_SGLANG) {
        o->port = o->port == 8000 ? 30000 : o->port;
        o->block_size = 1;
        o->expose_metrics = false;
        o->max_loras = 8;
    } else if (o->dialect != SIM_VLLM) {
        o->block_size = 64;
    }
}

static int check_disaggregation(struct sim_options *o, struct errbuf *err)
{
    if (o->role != SIM_UNIFIED && o->dialect != SIM_SGLANG)
        return err_set(err, "--disaggregation-mode is SGLang's; use --dialect sglang.");
    if (o->nixl && o->dialect != SIM_VLLM)
        return err_set(err, "--kv-transfer-config is vLLM's; use --dialect vllm.");
    return 0;
}

static int check(struct sim_options *o, struct errbuf *err)
{
    if (o->dialect == SIM_SGLANG && o->n_loras)
        o->enable_lora = true;
    if (o->enable_lora && o->max_loras == 0)
        o->max_loras = 1;
    if (o->max_cpu_loras && o->max_cpu_loras < o->max_loras)
        return err_set(err, "--max-cpu-loras: must be at least --max-loras (%llu).", (unsigned long long)o->max_loras);
    if (o->n_loras && !o->enable_lora)
        return err_set(err, "--lora-modules needs --enable-lora.");
    if (o->block_size < 1 || o->block_size > 1024)
        return err_set(err, "--block-size: must be between 1 and 1024.");
    if (o->memory_frac > 1)
        return err_set(err, "--gpu-memory-utilization: must be at most 1.");
    if (o->dp_first == UINT64_MAX)
        o->dp_first = 0;
    else
        o->dp = 1;
    o->dp = o->dp ? o->dp : 1;
    return check_disaggregation(o, err);
}

static bool is_subcommand(const struct sim_options *o, struct str word)
{
    return o->dialect == SIM_TRTLLM && str_eq_c(word, "serve");
}

int sim_options_parse(struct sim_options *o, const struct str *argv, size_t n, struct errbuf *err)
{
    if (find_dialect(o, argv, n, err) != 0)
        return -1;
    dialect_defaults(o);
    for (size_t i = 0; i < n; i++) {
        if (is_option(argv[i])) {
            if (parse_option(o, argv, n, &i, err) != 0)
                return -1;
        } else if (argv[i].n > 1 && argv[i].p[0] == '-') { /* short spellings of the real server */
            note(o, str_from(argv[i], 1));
            if (i + 1 < n && argv[i + 1].n && argv[i + 1].p[0] != '-')
                i++;
        } else if (is_subcommand(o, argv[i])) {
            continue;
        } else if (!o->model.n) {
            o->model = arena_str(&o->arena, argv[i]);
        } else {
            note(o, argv[i]);
        }
    }
    return check(o, err);
}

void sim_options_each(void (*fn)(void *ctx, const char *name, const char *arg, const char *help), void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        fn(ctx, table[i].name, table[i].arg, table[i].help);
}
