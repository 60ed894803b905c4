/* Annotations of pools: defaults, effects, bad values that leave the last good one, unknown names. */
#include "conf_fixture.h"

#define XK8S "inference.networking.x-k8s.io/"
#define ENV  "inference-epp-env.networking.x-k8s.io/"

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
    assert_int_equal(setting_of(b, "queueing")->state, SET_NOT_YET);
    assert_str(setting_of(b, "queueing")->note, "accepted, not in effect yet");
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

static void durations(void **state)
{
    static const char *const good[] = {"300ms", "1.5h", "2h45m", "1us", "1\xc2\xb5s", "100ns", "+5s"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char text[200];
        snprintf(text, sizeof text, ENV "queue-ttl: \"%s\"", good[i]);
        const struct conf_backend *b = load(*state, text);
        assert_str(setting_of(b, "queue-ttl")->value, good[i]);
        assert_int_equal(setting_of(b, "queue-ttl")->state, SET_NOT_YET);
    }
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

static void not_in_effect(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, XK8S "queueing: enabled, " XK8S "model-server-runtime: sglang, " ENV
                     "experimental-use-scheduler-v2: \"true\", " ENV "queue-score-weight: \"3\", " ENV
                     "sd-metrics-staleness-threshold: 200ms");
    assert_int_equal(w->rep.warnings, 0);
    assert_int_equal(setting_of(b, "queueing")->state, SET_NOT_YET);
    assert_str(setting_of(b, "queueing")->value, "enabled");
    assert_int_equal(b->runtime, RUNTIME_SGLANG);
    assert_int_equal(setting_of(b, "model-server-runtime")->state, SET_NOT_YET);
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
        cmocka_unit_test_setup_teardown(last_good_value_stays, world_up, world_down),
        cmocka_unit_test_setup_teardown(not_in_effect, world_up, world_down),
        cmocka_unit_test_setup_teardown(unknown_names, world_up, world_down),
        cmocka_unit_test_setup_teardown(unquoted, world_up, world_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
