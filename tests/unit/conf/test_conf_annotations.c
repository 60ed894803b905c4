/* Annotations of pools: defaults, effects, bad values that leave the last good one, unknown names. */
#include "conf_fixture.h"
#include "base/hash.h"

#define XK8S "inference.networking.x-k8s.io/"
#define ENV  "inference-epp-env.networking.x-k8s.io/"
#define OWN  "penstock.dev/"

static const struct conf_backend *load(struct world *w, const char *annotations)
{
    char text[4096];
    snprintf(text, sizeof text,
             "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata:\n  name: q\n  "
             "annotations: {%s}\n"
             "spec: {targetPortNumber: 8000, selector: {app: q}}\n",
             annotations);
    return backend_of(world_load(w, text), "pool/default/q");
}

static void defaults(void **state)
{
    static const char *const want[][2] = {
        {XK8S "routing-strategy", "DEFAULT"},
        {XK8S "queueing", "disabled"},
        {XK8S "model-server-runtime", "vllm"},
        {XK8S "epp-overlay", ""},
        {ENV "prefix-cache-hash-block-size", "64"},
        {ENV "prefix-cache-max-prefix-blocks", "128"},
        {ENV "prefix-cache-lru-capacity", "50000"},
        {ENV "total-queue-capacity", "104857600"},
        {ENV "queue-ttl", "30s"},
        {ENV "experimental-use-queueing", "false"},
        {ENV "experimental-use-scheduler-v2", "false"},
        {ENV "sd-queue-depth-threshold", "5"},
        {ENV "sd-kv-cache-util-threshold", "0.8"},
        {"penstock.dev/unknown-model", "serve"},
        {"penstock.dev/prefix-depth", "deep"},
        {OWN "policy", ""},
        {OWN "queue-order", "fifo"},
        {OWN "queue-late", "2s"},
        {OWN "queue-discard", "lowest-class"},
        {OWN "total-queue-requests", "100000"},
        {OWN "queue-ttl-max", "30s"},
        {OWN "queue-early-refusal", "own-deadline"},
        {OWN "prefix-wait", "0s"},
        {OWN "conversation-hold", "0s"},
        {OWN "prefill-min-tokens", "0"},
        {OWN "flow-weights", ""},
        {OWN "trust-request-headers", "all"},
        {OWN "metrics-port", ""},
        {OWN "metrics-path", ""},
        {OWN "metrics-scheme", "http"},
        {ENV "total-queued-requests-metric", ""},
        {ENV "total-running-requests-metric", ""},
        {ENV "kv-cache-usage-percentage-metric", ""},
        {ENV "lora-info-metric", ""},
        {ENV "cache-info-metric", ""},
        {ENV "lora-affinity-threshold", "0.999"},
    };
    const struct conf_backend *b = load(*state, "");
    struct world *w = *state;
    assert_int_equal(w->rep.n, 0);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct conf_setting *s = setting_of(b, want[i][0]);
        assert_non_null(s);
        assert_str(s->value, want[i][1]);
        assert_int_equal(s->given.n, 0);
    }
    assert_int_equal(b->sched.policy, SCHED_DEFAULT);
    assert_int_equal(b->sched.block_bytes, 64);
    assert_int_equal(b->sched.max_blocks, 128);
    assert_int_equal(b->sched.lru_capacity, 50000);
    assert_int_equal(b->sched.queue_threshold, 5);
    assert_true(b->sched.kv_threshold > 0.79 && b->sched.kv_threshold < 0.81);
    assert_true(b->sched.deep);
    assert_int_equal(b->unknown_model, UNKNOWN_MODEL_SERVE);
    assert_int_equal(b->runtime, RUNTIME_VLLM);
    assert_false(b->runtime_given);
    assert_int_equal(b->metrics.port, 0);
    assert_int_equal(b->metrics.path.n + b->metrics.waiting.n + b->metrics.running.n + b->metrics.kv_usage.n +
                         b->metrics.lora_info.n + b->metrics.cache_info.n,
                     0);
    assert_int_equal(setting_of(b, XK8S "queueing")->state, SET_DEFAULT);
    assert_int_equal(setting_of(b, "epp-overlay")->state, SET_NOT_YET);
    assert_str(setting_of(b, "epp-overlay")->note, "accepted, not in effect yet");
    assert_false(b->sched.queueing);
    assert_int_equal(b->sched.queue_bytes, 104857600);
    assert_int_equal(b->sched.queue_requests, 100000);
    assert_int_equal(b->sched.queue_ttl_us, 30000000);
    assert_int_equal(b->queue_ttl_max_us, 30000000);
    assert_int_equal(b->sched.queue_order, ORDER_FIFO);
    assert_int_equal(b->sched.queue_late_us, 2000000);
    assert_int_equal(b->sched.queue_discard, DISCARD_LOWEST_CLASS);
    assert_int_equal(b->sched.early_refusal, EARLY_OWN);
    assert_int_equal(b->sched.prefix_wait_us, 0);
    assert_int_equal(b->sched.conversation_hold_us, 0);
    assert_int_equal(b->sched.n_flow_weights, 0);
    assert_int_equal(b->trust, TRUST_OBJECTIVE | TRUST_FAIRNESS | TRUST_TTL);
    assert_str(setting_of(b, "queue-score-weight")->note,
               "no effect, because decisions are expected seconds of work and not weighted scores");
}

static void effective(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, XK8S "routing-strategy: PREFIX_CACHE, " ENV "prefix-cache-hash-block-size: \"256\", " ENV
                     "prefix-cache-max-prefix-blocks: \"4\", " ENV "prefix-cache-lru-capacity: \"100\", " ENV
                     "sd-queue-depth-threshold: \"7\", " ENV "sd-kv-cache-util-threshold: \"0.5\", " ENV
                     "sd-metrics-staleness-threshold: 10s, penstock.dev/unknown-model: reject, "
                     "penstock.dev/prefix-depth: documented");
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_int_equal(b->sched.block_bytes, 256);
    assert_int_equal(b->sched.max_blocks, 4);
    assert_int_equal(b->sched.lru_capacity, 100);
    assert_int_equal(b->sched.queue_threshold, 7);
    assert_true(b->sched.kv_threshold > 0.49 && b->sched.kv_threshold < 0.51);
    assert_int_equal(b->sched.stale_us, 10000000);
    assert_int_equal(b->unknown_model, UNKNOWN_MODEL_REJECT);
    assert_false(b->sched.deep);
    assert_int_equal(setting_of(b, "routing-strategy")->state, SET_EFFECTIVE);
}

/* Mission A13, A18, A25 and decision 12: every value here is refused with a warning at its place, and the pool keeps
 * serving. */
static void bad_values(void **state)
{
    static const struct {
        const char *key, *value, *kept, *says;
    } rows[] = {
        {XK8S "routing-strategy", "FOO", "DEFAULT", "is none of DEFAULT, PREFIX_CACHE; DEFAULT stays in effect"},
        {XK8S "routing-strategy", "prefix_cache", "DEFAULT", "is none of"},
        {XK8S "model-server-runtime", "tgi", "vllm", "is none of vllm, sglang, trt-llm"},
        {XK8S "queueing", "maybe", "disabled", "is none of"},
        {XK8S "epp-overlay", "Not A Name", "", "the default stays in effect"},
        {ENV "prefix-cache-hash-block-size", "abc", "64", "is no integer"},
        {ENV "prefix-cache-hash-block-size", "-1", "64", "is not in 1 to 65536"},
        {ENV "prefix-cache-hash-block-size", "9223372036854775808", "64", "is no integer"},
        {ENV "prefix-cache-hash-block-size", "", "64", "is no integer"},
        {ENV "prefix-cache-max-prefix-blocks", "0", "128", "is not in"},
        {ENV "prefix-cache-lru-capacity", "1.5", "50000", "is no integer"},
        {ENV "queue-ttl", "30", "30s", "is no duration"},
        {ENV "queue-ttl", "5d", "30s", "is no duration"},
        {ENV "queue-ttl", "abc", "30s", "is no duration"},
        {ENV "queue-ttl", "-1.5h", "30s", "must be more than zero"},
        {ENV "queue-ttl", "0s", "30s", "must be more than zero"},
        {ENV "sd-queue-depth-threshold", "0", "5", "is not in"},
        {ENV "sd-kv-cache-util-threshold", "1", "0.8", "is no number between 0 and 1"},
        {ENV "sd-kv-cache-util-threshold", "NaN", "0.8", "is no number between 0 and 1"},
        {ENV "experimental-use-queueing", "yes!", "false", "is neither true nor false"},
        {"penstock.dev/unknown-model", "drop", "serve", "is none of serve, reject"},
        {XK8S "queueing", "Enabled", "disabled", "is none of disabled, enabled, false, true, 0, 1"},
        {XK8S "queueing", "", "disabled", "is none of"},
        {ENV "total-queue-capacity", "0", "104857600", "is not in 1 to"},
        {ENV "total-queue-capacity", "100MiB", "104857600", "is no integer"},
        {ENV "queue-ttl", "9223372036s1h", "30s", "is no duration"},
        {OWN "queue-order", "lifo", "fifo", "is none of fifo, deadline, adaptive"},
        {OWN "queue-late", "2", "2s", "is no duration"},
        {OWN "queue-late", "-1s", "2s", "must not be negative"},
        {OWN "queue-discard", "oldest", "lowest-class", "is none of lowest-class, earliest"},
        {OWN "total-queue-requests", "0", "100000", "is not in 1 to 10000000"},
        {OWN "total-queue-requests", "4294967297", "100000", "is not in 1 to 10000000"},
        {OWN "queue-early-refusal", "no", "own-deadline", "is none of disabled, own-deadline, enabled"},
        {OWN "prefix-wait", "-1s", "0s", "must not be negative"},
        {OWN "prefix-wait", "off", "0s", "is no duration"},
        {OWN "conversation-hold", "-1s", "0s", "must not be negative"},
        {OWN "conversation-hold", "on", "0s", "is no duration"},
        {OWN "prefill-min-tokens", "-1", "0", "is not in 0 to 1000000000"},
        {OWN "queue-ttl-max", "0s", "30s", "must be more than zero"},
        {OWN "queue-ttl-max", "never", "30s", "is no duration"},
        {OWN "flow-weights", "a=1,b", "", "has the entry \"b\", which is not of the form name=weight"},
        {OWN "flow-weights", "a=1,", "", "has the entry \"\", which is not of the form name=weight"},
        {OWN "flow-weights", "=1", "", "has the entry \"=1\", which has no name"},
        {OWN "flow-weights", "a=0", "", "has the entry \"a=0\", whose weight is no number from 0.000001 to 1000000"},
        {OWN "flow-weights", "a=-1", "", "\"a=-1\", whose weight is no number"},
        {OWN "flow-weights", "a=inf", "", "whose weight is no number"},
        {OWN "flow-weights", "a=NaN", "", "whose weight is no number"},
        {OWN "flow-weights", "a=1e7", "", "whose weight is no number"},
        {OWN "flow-weights", "a=3, a=4", "", "has the entry \"a=4\", whose name is given twice"},
        {OWN "trust-request-headers", "", "all", "is neither all nor none nor a list of objective, fairness, ttl"},
        {OWN "trust-request-headers", "objective,", "all", "is neither all nor none"},
        {OWN "trust-request-headers", "all,ttl", "all", "is neither all nor none"},
        {OWN "policy", "fastest", "",
         "\"fastest\" is none of default, prefix-cache, round-robin, random, least-request,"},
        {OWN "policy", "", "", "lmetric, least-work, preble; the default stays in effect"},
        {OWN "policy", "least request", "", "is none of"},
        {OWN "trust-request-headers", "Fairness", "all", "is neither all nor none"},
        {OWN "metrics-port", "0", "", "is not in 1 to 65535; the default stays in effect"},
        {OWN "metrics-port", "65536", "", "is not in 1 to 65535"},
        {OWN "metrics-port", "", "", "is no integer"},
        {OWN "metrics-path", "metrics", "", "\"metrics\" is no path that begins with /"},
        {OWN "metrics-path", "", "", "is no path"},
        {OWN "metrics-path", "/a b", "", "is no path"},
        {OWN "metrics-path", "/a#b", "", "is no path"},
        {OWN "metrics-scheme", "ftp", "http", "is none of http, https"},
        {ENV "total-queued-requests-metric", "", "", "is neither name nor name{label=value,...}"},
        {ENV "total-queued-requests-metric", "1abc", "", "is neither name nor"},
        {ENV "total-running-requests-metric", "a b", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{}", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{b=c", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{b=c,}", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{b=}", "", "is neither name nor"},
        {ENV "kv-cache-usage-percentage-metric", "a{b:x=c}", "", "is neither name nor"},
        {ENV "lora-info-metric", "a{b=c}d", "", "is neither name nor"},
        {ENV "lora-info-metric", "a{b=c}}", "", "is neither name nor"},
        {ENV "cache-info-metric", "{b=c}", "", "is neither name nor"},
        {ENV "cache-info-metric", "x{a=1,b=2,c=3,d=4,e=5}", "", "with at most 4 labels"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[300];
        snprintf(text, sizeof text, "\n   %s: \"%s\"", rows[i].key, rows[i].value);
        world_load_as(w, "t.yaml", ""); /* forget what was in effect */
        const struct conf_backend *b = load(w, text);
        assert_non_null(b);
        assert_int_equal(w->rep.errors, 0);
        assert_int_equal(w->rep.warnings, 1);
        assert_note(w, rows[i].says);
        assert_note(w, "t.yaml:6: warning: InferencePool default/q: metadata.annotations.");
        const struct conf_setting *s = setting_of(b, rows[i].key);
        assert_str(s->value, rows[i].kept);
        assert_str(s->given, rows[i].value);
        assert_int_equal(s->state, SET_BAD_KEPT);
    }
}

/* Mission A25. A duration of more than zero never becomes zero, which would mean "not set". */
static void durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {{"300ms", 300000},
                {"1.5h", 5400000000},
                {"2h45m", 9900000000},
                {"1us", 1},
                {"1\xc2\xb5s", 1},
                {"1\xce\xbcs", 1},
                {"100ns", 1},
                {"1500ns", 1},
                {"+5s", 5000000},
                {".5s", 500000},
                {"1h2m3.004005s", 3723004005},
                {"2562047h", 9223369200000000}};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char text[200];
        snprintf(text, sizeof text, ENV "queue-ttl: \"%s\"", good[i].text);
        const struct conf_backend *b = load(*state, text);
        assert_str(setting_of(b, "/queue-ttl")->value, good[i].text);
        assert_int_equal(setting_of(b, "/queue-ttl")->state, SET_EFFECTIVE);
        assert_true(b->sched.queue_ttl_us == good[i].us);
        assert_true(b->queue_ttl_max_us == good[i].us);
    }
}

/* Every setting of flow control, in its forms: what arrives in the parameters of the scheduler. */
static void flow_control(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, XK8S "queueing: enabled, " ENV "total-queue-capacity: \"3000\", " ENV "queue-ttl: 2s, " OWN
                     "queue-order: deadline, " OWN "queue-discard: earliest, " OWN "total-queue-requests: \"7\", " OWN
                     "queue-early-refusal: disabled, " OWN "prefix-wait: 250ms, " OWN "queue-ttl-max: 1m, " OWN
                     "conversation-hold: 2m, " OWN "trust-request-headers: \"objective, ttl\", " OWN
                     "flow-weights: \"team-a=3, m=x=0.5\"");
    assert_int_equal(w->rep.n, 0);
    assert_true(b->sched.queueing);
    assert_int_equal(b->sched.queue_bytes, 3000);
    assert_int_equal(b->sched.queue_ttl_us, 2000000);
    assert_int_equal(b->queue_ttl_max_us, 60000000);
    assert_int_equal(b->sched.queue_order, ORDER_DEADLINE);
    assert_int_equal(b->sched.queue_discard, DISCARD_EARLIEST);
    assert_int_equal(b->sched.queue_requests, 7);
    assert_int_equal(b->sched.early_refusal, EARLY_OFF);
    assert_int_equal(b->sched.prefix_wait_us, 250000);
    assert_int_equal(b->sched.conversation_hold_us, 120000000);
    assert_int_equal(b->trust, TRUST_OBJECTIVE | TRUST_TTL);
    assert_int_equal(b->sched.n_flow_weights, 2);
    assert_true(b->sched.flow_weights[0].flow == hash_bytes("team-a", 6, 0));
    assert_true(b->sched.flow_weights[0].weight > 2.99 && b->sched.flow_weights[0].weight < 3.01);
    assert_true(b->sched.flow_weights[1].flow == hash_bytes("m=x", 3, 0));
    assert_true(b->sched.flow_weights[1].weight > 0.49 && b->sched.flow_weights[1].weight < 0.51);
    static const char *const keys[] = {"/queueing",     "total-queue-capacity", "/queue-ttl",    "queue-order",
                                       "queue-discard", "total-queue-requests", "early-refusal", "prefix-wait",
                                       "queue-ttl-max", "request-headers",      "flow-weights",  "conversation-hold"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_int_equal(setting_of(b, keys[i])->state, SET_EFFECTIVE);
    b = load(w, OWN "prefix-wait: \"0\", " OWN "flow-weights: \"\", " OWN "trust-request-headers: none, " OWN
                    "queue-order: adaptive, " OWN "prefill-min-tokens: \"16\", " OWN "queue-late: 750ms");
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->sched.split_min_tokens, 16);
    assert_int_equal(b->sched.queue_order, ORDER_ADAPTIVE);
    assert_int_equal(b->sched.queue_late_us, 750000);
    assert_int_equal(b->sched.prefix_wait_us, 0);
    assert_int_equal(b->sched.n_flow_weights, 0);
    assert_int_equal(b->trust, 0);
}

/* Mission decision 1; `queueing` wins over the older switch, in whatever sense it is given. */
static void switching_queueing(void **state)
{
    static const struct {
        const char *queueing, *older; /* NULL: not given */
        bool on;
        unsigned older_state;
        unsigned notes, warnings;
        const char *shown;
    } rows[] = {
        {NULL, NULL, false, SET_DEFAULT, 0, 0, "disabled"},
        {"enabled", NULL, true, SET_DEFAULT, 0, 0, "enabled"},
        {"true", NULL, true, SET_DEFAULT, 0, 0, "true"},
        {"1", NULL, true, SET_DEFAULT, 0, 0, "1"},
        {"disabled", NULL, false, SET_DEFAULT, 0, 0, "disabled"},
        {"false", NULL, false, SET_DEFAULT, 0, 0, "false"},
        {"0", NULL, false, SET_DEFAULT, 0, 0, "0"},
        {NULL, "true", true, SET_EFFECTIVE, 0, 0, "enabled"},
        {NULL, "false", false, SET_EFFECTIVE, 0, 0, "disabled"},
        {"enabled", "true", true, SET_NO_EFFECT, 1, 0, "enabled"},
        {"disabled", "true", false, SET_NO_EFFECT, 1, 1, "disabled"},
        {"enabled", "false", true, SET_NO_EFFECT, 1, 1, "enabled"},
        {"perhaps", "true", false, SET_NO_EFFECT, 2, 2, "disabled"},
        {"enabled", "perhaps", true, SET_BAD_KEPT, 1, 1, "enabled"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[400];
        snprintf(text, sizeof text, "%s%s%s%s%s%s", rows[i].queueing ? XK8S "queueing: \"" : "",
                 rows[i].queueing ? rows[i].queueing : "", rows[i].queueing ? "\", " : "",
                 rows[i].older ? ENV "experimental-use-queueing: \"" : "", rows[i].older ? rows[i].older : "",
                 rows[i].older ? "\"" : "");
        world_load(w, "");
        const struct conf_backend *b = load(w, text);
        assert_int_equal(b->sched.queueing, rows[i].on);
        assert_str(setting_of(b, XK8S "queueing")->value, rows[i].shown);
        assert_int_equal(setting_of(b, "use-queueing")->state, rows[i].older_state);
        assert_int_equal(w->rep.n, rows[i].notes);
        assert_int_equal(w->rep.warnings, rows[i].warnings);
        if (rows[i].older_state == SET_NO_EFFECT)
            assert_note(w, "experimental-use-queueing: no effect, because " XK8S "queueing is given");
    }
    struct world *w = *state;
    load(w, ENV "experimental-use-queueing: \"true\"");
    const struct conf_backend *b = load(w, XK8S "queueing: what");
    assert_true(b->sched.queueing); /* what was in effect stays, wherever it came from */
}

/* A request may ask for at least what it gets without asking. */
static void longest_ttl(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b = load(w, ENV "queue-ttl: 90s, " OWN "queue-ttl-max: 1m");
    assert_int_equal(b->queue_ttl_max_us, 90000000);
    assert_str(setting_of(b, "queue-ttl-max")->value, "1m30s");
    assert_str(setting_of(b, "queue-ttl-max")->given, "1m");
    assert_note(w,
                "info: InferencePool default/q: metadata.annotations." OWN "queue-ttl-max: raised to queue-ttl, 1m30s");
    b = load(w, ENV "queue-ttl: 2m, " OWN "queue-ttl-max: soon");
    assert_int_equal(b->queue_ttl_max_us, 120000000);
    assert_str(setting_of(b, "queue-ttl-max")->value, "2m0s");
    assert_int_equal(setting_of(b, "queue-ttl-max")->state, SET_BAD_KEPT);
    b = load(w, ENV "queue-ttl: 2m, " OWN "queue-ttl-max: 10m");
    b = load(w, ENV "queue-ttl: 2m, " OWN "queue-ttl-max: soon");
    assert_int_equal(b->queue_ttl_max_us, 600000000);
    b = load(w, ENV "queue-ttl: 5s");
    assert_int_equal(b->queue_ttl_max_us, 5000000);
    assert_int_equal(w->rep.n, 0);
}

static void many_flow_weights(void **state)
{
    struct world *w = *state;
    for (unsigned n = SCHED_MAX_FLOW_WEIGHTS; n <= SCHED_MAX_FLOW_WEIGHTS + 1; n++) {
        struct buf t;
        buf_init(&t, 1 << 20);
        buf_addf(&t, "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata:\n  name: q\n"
                     "  annotations: {" OWN "flow-weights: \"");
        for (unsigned i = 0; i < n; i++)
            buf_addf(&t, "%sf%u=%u", i ? "," : "", i, i + 1);
        buf_addf(&t, "\"}\nspec: {targetPortNumber: 8000, selector: {app: q}}\n");
        const struct conf_backend *b = backend_of(world_load(w, buf_cstr(&t)), "pool/default/q");
        assert_int_equal(b->sched.n_flow_weights,
                         SCHED_MAX_FLOW_WEIGHTS); /* of 257 none counts: the last good ones stay */
        assert_int_equal(w->rep.warnings, n > SCHED_MAX_FLOW_WEIGHTS);
        if (n > SCHED_MAX_FLOW_WEIGHTS)
            assert_note(w, "has the entry \"f256=257\", which is one too many (at most 256)");
        buf_free(&t);
    }
}

/* Any policy by name overrides the documented annotation, and says so. */
static void any_policy(void **state)
{
    static const char *const names[] = {
        "default",        "prefix-cache",   "round-robin", "random", "least-request", "session-hash", "reference",
        "reference-deep", "reference-load", "cache-aware", "dynamo", "lmetric",       "least-work",   "preble"};
    struct world *w = *state;
    const struct conf_backend *b;
    char text[200];
    assert_int_equal(ARRAY_LEN(names), N_SCHED_POLICIES);
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(text, sizeof text, OWN "policy: %s", names[i]);
        b = load(w, text);
        assert_int_equal(b->sched.policy, i);
        assert_int_equal(w->rep.n, 0);
        assert_str(setting_of(b, OWN "policy")->value, names[i]);
        assert_int_equal(setting_of(b, OWN "policy")->state, SET_EFFECTIVE);
    }
    b = load(w, OWN "policy: Least_Request, " XK8S "routing-strategy: PREFIX_CACHE");
    assert_int_equal(b->sched.policy, SCHED_LEAST_REQUEST);
    assert_str(setting_of(b, OWN "policy")->value, "least-request");
    assert_int_equal(setting_of(b, "routing-strategy")->state, SET_NO_EFFECT);
    assert_str(setting_of(b, "routing-strategy")->note, "no effect, because penstock.dev/policy is given");
    assert_note(w, "the policy is least-request, not what inference.networking.x-k8s.io/routing-strategy says");
    b = load(w, OWN "policy: fastest, " XK8S "routing-strategy: PREFIX_CACHE"); /* the last good value stays */
    assert_int_equal(b->sched.policy, SCHED_LEAST_REQUEST);
    assert_note(w, "least-request stays in effect");
    b = load(w, XK8S "routing-strategy: PREFIX_CACHE");
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_str(setting_of(b, OWN "policy")->value, "");
    assert_int_equal(setting_of(b, "routing-strategy")->state, SET_EFFECTIVE);
    b = load(w, OWN "policy: fastest, " XK8S "routing-strategy: PREFIX_CACHE"); /* none was in effect */
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_int_equal(setting_of(b, "routing-strategy")->state, SET_EFFECTIVE);
}

static void last_good_value_stays(void **state)
{
    struct world *w = *state;
    load(w, ENV "prefix-cache-hash-block-size: \"256\", " XK8S "routing-strategy: PREFIX_CACHE");
    const struct conf_backend *b =
        load(w, ENV "prefix-cache-hash-block-size: nonsense, " XK8S "routing-strategy: nonsense");
    assert_int_equal(b->sched.block_bytes, 256);
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_note(w, "256 stays in effect");
    b = load(w, ENV "prefix-cache-hash-block-size: still nonsense");
    assert_int_equal(b->sched.block_bytes, 256);
    assert_int_equal(b->sched.policy, SCHED_DEFAULT); /* no annotation is no bad annotation */
    b = load(w, "");
    assert_int_equal(b->sched.block_bytes, 64);
}

/* The same for the settings of flow control, and over several bad values in turn. */
static void last_good_flow_control(void **state)
{
    struct world *w = *state;
    load(w, XK8S "queueing: \"1\", " ENV "total-queue-capacity: \"3000\", " ENV "queue-ttl: 2s, " OWN
                 "queue-order: deadline, " OWN "queue-discard: earliest, " OWN "total-queue-requests: \"7\", " OWN
                 "queue-early-refusal: disabled, " OWN "prefix-wait: 250ms, " OWN "queue-ttl-max: 1m, " OWN
                 "trust-request-headers: fairness, " OWN "flow-weights: \"a=3,b=2\"");
    for (int i = 0; i < 2; i++) {
        const struct conf_backend *b =
            load(w, XK8S "queueing: x, " ENV "total-queue-capacity: x, " ENV "queue-ttl: x, " OWN "queue-order: x, " OWN
                         "queue-discard: x, " OWN "total-queue-requests: x, " OWN "queue-early-refusal: x, " OWN
                         "prefix-wait: x, " OWN "queue-ttl-max: x, " OWN "trust-request-headers: x, " OWN
                         "flow-weights: \"a=4,b=x\"");
        assert_int_equal(w->rep.warnings, 11);
        assert_int_equal(w->rep.errors, 0);
        assert_note(
            w, "has the entry \"b=x\", whose weight is no number from 0.000001 to 1000000; a=3,b=2 stays in effect");
        assert_true(b->sched.queueing);
        assert_int_equal(b->sched.queue_bytes, 3000);
        assert_int_equal(b->sched.queue_ttl_us, 2000000);
        assert_int_equal(b->sched.queue_order, ORDER_DEADLINE);
        assert_int_equal(b->sched.queue_discard, DISCARD_EARLIEST);
        assert_int_equal(b->sched.queue_requests, 7);
        assert_int_equal(b->sched.early_refusal, EARLY_OFF);
        assert_int_equal(b->sched.prefix_wait_us, 250000);
        assert_int_equal(b->queue_ttl_max_us, 60000000);
        assert_int_equal(b->trust, TRUST_FAIRNESS);
        assert_int_equal(b->sched.n_flow_weights, 2);
        assert_true(b->sched.flow_weights[0].weight > 2.99 && b->sched.flow_weights[0].weight < 3.01);
    }
    const struct conf_backend *b = load(w, "");
    assert_false(b->sched.queueing);
    assert_int_equal(b->sched.queue_ttl_us, 30000000);
    assert_int_equal(b->sched.n_flow_weights, 0);
}

/* Mission A26-A29: the runtime's own names and place, unless the pool says others. */
static void metrics(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, XK8S "model-server-runtime: trt-llm, " OWN "metrics-port: \"9400\", " OWN "metrics-path: /m?x=1, " OWN
                     "metrics-scheme: http, " ENV "total-queued-requests-metric: \"q:waiting{type=waiting}\", " ENV
                     "total-running-requests-metric: run_ning, " ENV
                     "kv-cache-usage-percentage-metric: 'kv{a=\"x,}y\",b2=c.d}', " ENV "lora-info-metric: lora, " ENV
                     "cache-info-metric: cache");
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->runtime, RUNTIME_TRTLLM);
    assert_true(b->runtime_given);
    assert_int_equal(b->metrics.port, 9400);
    assert_str(b->metrics.path, "/m?x=1");
    assert_str(b->metrics.waiting, "q:waiting{type=waiting}");
    assert_str(b->metrics.running, "run_ning");
    assert_str(b->metrics.kv_usage, "kv{a=\"x,}y\",b2=c.d}");
    assert_str(b->metrics.lora_info, "lora");
    assert_str(b->metrics.cache_info, "cache");
    b = load(w, XK8S "model-server-runtime: sglnag, " OWN "metrics-port: x, " ENV "lora-info-metric: \"l{\"");
    assert_int_equal(w->rep.warnings, 3);
    assert_int_equal(b->runtime, RUNTIME_TRTLLM);
    assert_true(b->runtime_given); /* what was in effect stays */
    assert_int_equal(b->metrics.port, 9400);
    assert_str(b->metrics.lora_info, "lora");
    assert_int_equal(b->metrics.path.n, 0); /* no longer given */
    b = load(w, OWN "metrics-scheme: https");
    assert_false(b->runtime_given);
    assert_int_equal(setting_of(b, "metrics-scheme")->state, SET_NOT_YET);
    assert_str(setting_of(b, "metrics-scheme")->value, "http");
    assert_note(w, "https is accepted, not in effect yet");
}

/* A port for a pod with several servers would tell of one of them only. */
static void metrics_port_of_several(void **state)
{
    struct world *w = *state;
    const struct conf *c =
        world_load(w, "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: q, "
                      "annotations: {penstock.dev/metrics-port: \"9400\"}}\nspec: {selector: {matchLabels: {app: q}}, "
                      "targetPorts: [{number: 8000}, {number: 8001}]}\n---\n" POD("p", "q", "10.0.0.1", "True"));
    const struct conf_backend *b = backend_of(c, "pool/default/q");
    assert_int_equal(w->rep.warnings, 1);
    assert_int_equal(setting_of(b, "metrics-port")->state, SET_NO_EFFECT);
    assert_int_equal(b->metrics.port, 0);
    assert_int_equal(b->n_endpoints, 2);
}

static void not_in_effect(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, XK8S "epp-overlay: custom, " XK8S "model-server-runtime: sglang, " ENV
                     "experimental-use-scheduler-v2: \"true\", " ENV "queue-score-weight: \"3\", " ENV
                     "sd-metrics-staleness-threshold: 200ms");
    assert_int_equal(w->rep.warnings, 0);
    assert_int_equal(setting_of(b, "epp-overlay")->state, SET_NOT_YET);
    assert_str(setting_of(b, "epp-overlay")->value, "custom");
    assert_int_equal(b->runtime, RUNTIME_SGLANG);
    assert_int_equal(setting_of(b, "model-server-runtime")->state, SET_EFFECTIVE);
    assert_int_equal(setting_of(b, "use-scheduler-v2")->state, SET_NO_EFFECT);
    assert_str(setting_of(b, "use-scheduler-v2")->note, "accepted, no effect: there is only one scheduler");
    assert_int_equal(setting_of(b, "queue-score-weight")->state, SET_NO_EFFECT);
    assert_int_equal(b->sched.stale_us, 2000000);
    assert_note(w, "raised to 2s");
}

static void unknown_names(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, ENV "no-such-setting: x, " XK8S "rooting-strategy: y, penstock.dev/zzz: z, example.com/fine: ok");
    assert_int_equal(w->rep.warnings, 3);
    assert_note(w, "metadata.annotations." ENV "no-such-setting: unknown name, ignored");
    assert_int_equal(setting_of(b, "no-such-setting")->state, SET_UNKNOWN);
    assert_null(setting_of(b, "fine"));
}

/* Unquoted values: Kubernetes would refuse the object; here the text counts, with a warning. */
static void unquoted(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b = load(w, ENV "prefix-cache-hash-block-size: 32");
    assert_int_equal(b->sched.block_bytes, 32);
    assert_note(w, "must be a string, is an integer: Kubernetes refuses this, put it in quotes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults, world_up, world_down),
        cmocka_unit_test_setup_teardown(effective, world_up, world_down),
        cmocka_unit_test_setup_teardown(bad_values, world_up, world_down),
        cmocka_unit_test_setup_teardown(durations, world_up, world_down),
        cmocka_unit_test_setup_teardown(any_policy, world_up, world_down),
        cmocka_unit_test_setup_teardown(last_good_value_stays, world_up, world_down),
        cmocka_unit_test_setup_teardown(flow_control, world_up, world_down),
        cmocka_unit_test_setup_teardown(switching_queueing, world_up, world_down),
        cmocka_unit_test_setup_teardown(longest_ttl, world_up, world_down),
        cmocka_unit_test_setup_teardown(many_flow_weights, world_up, world_down),
        cmocka_unit_test_setup_teardown(last_good_flow_control, world_up, world_down),
        cmocka_unit_test_setup_teardown(metrics, world_up, world_down),
        cmocka_unit_test_setup_teardown(metrics_port_of_several, world_up, world_down),
        cmocka_unit_test_setup_teardown(not_in_effect, world_up, world_down),
        cmocka_unit_test_setup_teardown(unknown_names, world_up, world_down),
        cmocka_unit_test_setup_teardown(unquoted, world_up, world_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
