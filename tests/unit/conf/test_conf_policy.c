/* InferenceTrafficPolicy: what it sets, what it wins over, what is refused (mission B18-B29), and RoleBasedGroups. */
#include "conf_fixture.h"

#define KIND       "apiVersion: inferenceextension.alibabacloud.com/v1alpha1\nkind: InferenceTrafficPolicy\n"
#define NAMED(n)   KIND "metadata: {name: " n "}\n"
#define POLICY     NAMED("pol") "spec:\n  poolRef: {name: q}\n"
#define LABEL      "rolebasedgroup.workloads.x-k8s.io/role"
#define PD         "  profile:\n    pd:\n      pdRoleLabelName: " LABEL "\n"
#define DECLARED   "      trafficPolicy: {prefixCache: {mode: estimate}}\n"
#define XK8S       "inference.networking.x-k8s.io/"
#define NOTES(...) "metadata: {name: q, annotations: {" __VA_ARGS__ "}}\n"
#define Q(meta)                                                                                                        \
    "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\n" meta                                   \
    "spec: {targetPortNumber: 8000, selector: {app: q}}\n---\n"
#define ROLE(name, ip, label, role)                                                                                    \
    "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " name ", labels: {app: q, " label ": " role "}}\n"              \
    "status: {podIP: " ip ", conditions: [{type: Ready, status: \"True\"}]}\n"

static const struct conf_backend *load(struct world *w, const char *text)
{
    return backend_of(world_load(w, text), "pool/default/q");
}

static const struct conf_setting *line(const struct conf_backend *b, const char *field)
{
    char end[200];
    snprintf(end, sizeof end, "InferenceTrafficPolicy default/pol %s", field);
    const struct conf_setting *s = setting_of(b, end);
    if (!s)
        fail_msg("no setting: %s", end);
    return s;
}

#define assert_line(b, field, want_value, want_state)                                                                  \
    do {                                                                                                               \
        const struct conf_setting *line_ = line((b), (field));                                                         \
        assert_str(line_->value, (want_value));                                                                        \
        assert_int_equal(line_->state, (want_state));                                                                  \
    } while (0)

/* The document's sample (B19-B27), with every pod (B18) and one that has no role (B22). */
static void pd_sample(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, Q(NOTES("")) POLICY
             "  modelServerRuntime: sglang\n" PD DECLARED "      prefillPolicyRef: prefixCache\n"
             "      decodePolicyRef: prefixCache\n      kvTransfer: {bootstrapPort: 34000}\n" ROLE("p0", "10.0.0.1",
                                                                                                   LABEL, "prefill")
                 ROLE("p1", "10.0.0.2", LABEL, "prefill") ROLE("d0", "10.0.0.3", LABEL, "decode")
                     ROLE("s0", "10.0.0.4", LABEL, "scheduler") ROLE("x0", "10.0.0.5", "other", "prefill"));
    assert_int_equal(w->rep.errors, 0);
    assert_int_equal(w->rep.warnings, 1);
    assert_note(w, "warning: InferenceTrafficPolicy default/pol: spec.profile.pd.pdRoleLabelName: 2 ready pods are in "
                   "neither set");
    assert_note(w, "says neither prefill nor decode: s0, x0");
    assert_non_null(b->pd);
    assert_str(b->pd->role_label, LABEL);
    assert_int_equal(b->pd->bootstrap_port, 34000);
    assert_int_equal(b->pd->n_without_role, 2);
    assert_int_equal(b->runtime, RUNTIME_SGLANG);
    assert_true(b->runtime_given);
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_int_equal(b->prefill.policy, SCHED_PREFIX_CACHE);
    assert_int_equal(b->n_endpoints, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(b->endpoints[i].role, b->endpoints[i].pod.p[0] == 'p' ? ROLE_PREFILL : ROLE_DECODE);
    assert_line(b, "spec.modelServerRuntime", "sglang", SET_EFFECTIVE);
    assert_line(b, "spec.profile.pd.pdRoleLabelName", LABEL, SET_EFFECTIVE);
    assert_line(b, "spec.profile.pd.kvTransfer.bootstrapPort", "34000", SET_EFFECTIVE);
    assert_line(b, "spec.profile.pd.prefillPolicyRef", "prefixCache", SET_EFFECTIVE);
    assert_line(b, "spec.profile.pd.decodePolicyRef", "prefixCache", SET_EFFECTIVE);
    assert_line(b, "spec.profile.pd.trafficPolicy.prefixCache.mode", "estimate", SET_EFFECTIVE);
    assert_str(setting_of(b, "model-server-runtime")->value, "sglang");
    assert_str(setting_of(b, "model-server-runtime")->note, "because of InferenceTrafficPolicy pol");
    assert_str(setting_of(b, "routing-strategy")->value, "PREFIX_CACHE");
}

/* B22: another key, and B25, B26: the two stages choose by rules of their own. */
static void stages(void **state)
{
    static const struct {
        const char *refs;
        enum sched_policy prefill, decode;
    } rows[] = {{"", SCHED_DEFAULT, SCHED_DEFAULT},
                {DECLARED, SCHED_DEFAULT, SCHED_DEFAULT},
                {DECLARED "      prefillPolicyRef: prefixCache\n", SCHED_PREFIX_CACHE, SCHED_DEFAULT},
                {DECLARED "      decodePolicyRef: prefixCache\n", SCHED_DEFAULT, SCHED_PREFIX_CACHE}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[2048];
        snprintf(text, sizeof text, "%s%s%s%s",
                 Q(NOTES(XK8S "routing-strategy: PREFIX_CACHE, penstock.dev/queue-order: deadline")) POLICY
                 "  modelServerRuntime: vllm\n  profile:\n    pd:\n      pdRoleLabelName: "
                 "rbg.workloads.x-k8s.io/role-name\n",
                 rows[i].refs, ROLE("p0", "10.0.0.1", "rbg.workloads.x-k8s.io/role-name", "prefill"),
                 ROLE("d0", "10.0.0.3", "rbg.workloads.x-k8s.io/role-name", "decode"));
        const struct conf_backend *b = load(w, text);
        assert_int_equal(w->rep.errors, 0);
        assert_int_equal(b->prefill.policy, rows[i].prefill);
        assert_int_equal(b->sched.policy, rows[i].decode);
        assert_int_equal(b->prefill.queue_order, ORDER_DEADLINE); /* all else is the same for both */
        assert_int_equal(b->sched.queue_order, ORDER_DEADLINE);
        assert_int_equal(b->n_endpoints, 2);
        assert_int_equal(b->pd->bootstrap_port, 8998);
        assert_line(b, "spec.profile.pd.kvTransfer.bootstrapPort", "8998", SET_NO_EFFECT);
        bool differs = rows[i].decode == SCHED_DEFAULT;
        assert_int_equal(w->rep.warnings, differs);
        assert_int_equal(setting_of(b, "routing-strategy")->state, SET_NO_EFFECT);
        if (differs)
            assert_note(w, "spec.profile.pd.decodePolicyRef: DEFAULT counts, not \"PREFIX_CACHE\" of annotation " XK8S
                           "routing-strategy of InferencePool q");
        if (i == 1)
            assert_line(b, "spec.profile.pd.trafficPolicy.prefixCache.mode", "estimate", SET_NO_EFFECT);
    }
}

static void single(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, Q(NOTES("")) POLICY "  profile: {single: {trafficPolicy: {prefixCache: {}}}}\n");
    assert_int_equal(w->rep.n, 0);
    assert_null(b->pd);
    assert_false(b->runtime_given);
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_str(setting_of(b, "routing-strategy")->value, "PREFIX_CACHE");
    assert_line(b, "spec.profile.single.trafficPolicy.prefixCache.mode", "estimate", SET_EFFECTIVE);

    b = load(
        w, Q(NOTES(XK8S "routing-strategy: DEFAULT, penstock.dev/policy: random")) POLICY
        "  profile: {single: {policyRef: prefixCache, trafficPolicy: {prefixCache: {mode: tracking, trackingConfig: "
        "{indexerConfig: {tokenProcessorConfig: {blockSize: 64, hashSeed: \"42\", model: /m}}}}}}}\n");
    assert_int_equal(w->rep.errors, 0);
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w, "spec.profile.single.trafficPolicy.prefixCache.mode: tracking is not in effect yet: prefixes are "
                   "estimated");
    assert_note(w, "info: InferenceTrafficPolicy default/pol: "
                   "spec.profile.single.trafficPolicy.prefixCache.trackingConfig.indexerConfig.tokenProcessorConfig."
                   "blockSize: accepted, not in effect yet");
    assert_note(w, "PREFIX_CACHE counts, not \"random\" of annotation penstock.dev/policy");
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_line(b, "spec.profile.single.trafficPolicy.prefixCache.mode", "estimate", SET_NOT_YET);
    assert_line(b, "spec.profile.single.policyRef", "prefixCache", SET_EFFECTIVE);
    const struct conf_setting *seed = setting_of(b, "tokenProcessorConfig.hashSeed");
    assert_str(seed->given, "42");
    assert_int_equal(seed->state, SET_NOT_YET);

    /* A policy that says nothing of routing leaves the annotations alone. */
    b = load(w, Q(NOTES(XK8S "routing-strategy: PREFIX_CACHE")) POLICY "  modelServerRuntime: vllm\n");
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->sched.policy, SCHED_PREFIX_CACHE);
    assert_int_equal(setting_of(b, "routing-strategy")->state, SET_EFFECTIVE);
}

static void wins_over_annotations(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, Q(NOTES(XK8S "model-server-runtime: vllm, " XK8S "routing-strategy: PREFIX_CACHE")) POLICY
             "  modelServerRuntime: sglang\n  profile: {single: {trafficPolicy: {prefixCache: {mode: estimate}}}}\n");
    assert_int_equal(w->rep.warnings, 1); /* the strategies agree */
    assert_note(w,
                "warning: InferenceTrafficPolicy default/pol: spec.modelServerRuntime: sglang counts, not \"vllm\" of "
                "annotation " XK8S "model-server-runtime of InferencePool q");
    assert_int_equal(b->runtime, RUNTIME_SGLANG);
    assert_int_equal(setting_of(b, "model-server-runtime")->state, SET_NO_EFFECT);
    assert_str(setting_of(b, "model-server-runtime")->note,
               "no effect, because InferenceTrafficPolicy pol says sglang");
    b = load(w, Q(NOTES(XK8S "model-server-runtime: sglang")) POLICY PD);
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->runtime, RUNTIME_SGLANG);
    assert_true(b->runtime_given);
    assert_line(b, "spec.modelServerRuntime", "sglang", SET_DEFAULT);
    assert_str(line(b, "spec.modelServerRuntime")->note, "as the annotation says");
    b = load(w, Q(NOTES(XK8S "model-server-runtime: trt-llm")) POLICY PD);
    assert_note(w, "spec.profile.pd: no effect: it is served for vllm and sglang");
    assert_null(b->pd);
    b = load(w, Q(NOTES(XK8S "model-server-runtime: trt-llm"))); /* the policy goes: back to what the annotation says */
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->runtime, RUNTIME_TRTLLM);
    b = load(w, Q(NOTES("")));
    assert_int_equal(b->runtime, RUNTIME_VLLM);
    assert_false(b->runtime_given);
}

/* Every mistake at its place; the policy before it stays (B19). */
static void refused(void **state)
{
    static const struct {
        const char *spec, *says;
    } rows[] = {
        {"spec:\n  modelServerRuntime: sglang\n",
         "t.yaml:10: error: InferenceTrafficPolicy default/pol: spec.poolRef: is required"},
        {"spec:\n  poolRef: {name: q, kind: Service}\n",
         "t.yaml:10: error: InferenceTrafficPolicy default/pol: spec.poolRef: kind must be"},
        {"spec:\n  poolRef: {name: q}\n  modelServerRuntime: tgi\n",
         "t.yaml:11: error: InferenceTrafficPolicy default/pol: spec.modelServerRuntime: \"tgi\" is none of vllm, "
         "sglang, trt-llm"},
        {"spec:\n  poolRef: {name: q}\n  modelServerRuntime: 1\n", "spec.modelServerRuntime: must be a string"},
        {"spec:\n  poolRef: {name: q}\n  profile: []\n",
         "t.yaml:11: error: InferenceTrafficPolicy default/pol: spec.profile: must be a mapping"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    single: {}\n    pd: {pdRoleLabelName: r}\n",
         "t.yaml:12: error: InferenceTrafficPolicy default/pol: spec.profile: single and pd exclude each other"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {}\n",
         "t.yaml:12: error: InferenceTrafficPolicy default/pol: spec.profile.pd.pdRoleLabelName: is required"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: \"a/b/c\"}\n",
         "t.yaml:12: error: InferenceTrafficPolicy default/pol: spec.profile.pd.pdRoleLabelName: \"a/b/c\" is no label "
         "key"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: -x}\n", "\"-x\" is no label key"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: Ex.Com/x}\n", "is no label key"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: r, kvTransfer: {bootstrapPort: 0}}\n",
         "spec.profile.pd.kvTransfer.bootstrapPort: 0 is not in 1 to 65535"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: r, kvTransfer: {bootstrapPort: 65536}}\n",
         "65536 is not in 1 to 65535"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd: {pdRoleLabelName: r, kvTransfer: {bootstrapPort: "
         "\"34000\"}}\n",
         "bootstrapPort: must be an integer, is a string"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd:\n      pdRoleLabelName: r\n      prefillPolicyRef: "
         "prefixCache\n",
         "t.yaml:14: error: InferenceTrafficPolicy default/pol: spec.profile.pd.prefillPolicyRef: prefixCache is not "
         "declared: "
         "trafficPolicy.prefixCache is missing"},
        {"spec:\n  poolRef: {name: q}\n  profile:\n    pd:\n      pdRoleLabelName: r\n      trafficPolicy: "
         "{prefixCache: {}}\n"
         "      decodePolicyRef: leastLoad\n",
         "t.yaml:15: error: InferenceTrafficPolicy default/pol: spec.profile.pd.decodePolicyRef: \"leastLoad\" is no "
         "policy: there is "
         "only prefixCache"},
        {"spec:\n  poolRef: {name: q}\n  profile: {single: {policyRef: prefixCache}}\n",
         "spec.profile.single.policyRef: prefixCache is not declared"},
        {"spec:\n  poolRef: {name: q}\n  profile: {single: {trafficPolicy: {prefixCache: {mode: exact}}}}\n",
         "mode: \"exact\" is none of estimate, tracking"},
        {"spec:\n  poolRef: {name: q}\n  profile: {single: {trafficPolicy: {prefixCache: {trackingConfig: "
         "{indexerConfig: "
         "{tokenProcessorConfig: {blockSize: []}}}}}}}\n",
         "tokenProcessorConfig.blockSize: must be a string or a number, is a list"},
        {"spec:\n  poolRef: {name: q}\n  modelServerRuntime: trt-llm\n  profile: {pd: {pdRoleLabelName: r}}\n",
         "t.yaml:11: error: InferenceTrafficPolicy default/pol: spec.modelServerRuntime: profile.pd is served for vllm "
         "and sglang, not "
         "for trt-llm"},
    };
    struct world *w = *state;
    load(w, Q(NOTES("")) POLICY "  modelServerRuntime: sglang\n" PD);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[2048];
        snprintf(text, sizeof text, "%s%s%s", Q(NOTES("")), NAMED("pol"), rows[i].spec);
        const struct conf_backend *b = load(w, text);
        assert_note(w, rows[i].says);
        assert_int_equal(w->rep.errors, 1);
        assert_note(w, "its last good form stays in effect");
        assert_non_null(b->pd);
        assert_int_equal(b->runtime, RUNTIME_SGLANG);
    }
}

/* Unknown fields are told and do no harm; an empty profile says nothing. */
static void unknown_fields(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, Q(NOTES("")) POLICY "  colour: red\n  profile:\n    pd:\n      pdRoleLabelName: r\n"
                                    "      encode: {}\n      trafficPolicy: {leastLoad: {}}\n");
    assert_int_equal(w->rep.errors, 0);
    assert_int_equal(w->rep.warnings, 3);
    assert_note(w, "spec.colour: unknown field, ignored");
    assert_note(w, "spec.profile.pd.encode: unknown field, ignored");
    assert_note(w, "spec.profile.pd.trafficPolicy.leastLoad: unknown field, ignored");
    assert_non_null(b->pd);
    load(w, Q(NOTES("")) POLICY "  profile: {}\n");
    assert_int_equal(w->rep.warnings, 1);
    assert_note(w, "spec.profile: has neither single nor pd: says nothing");
}

/* B28: the pool it names, and no other; of several policies the oldest. */
static void which_pool(void **state)
{
#define AGED(n, created, port)                                                                                         \
    "---\n" KIND "metadata: {name: " n ", creationTimestamp: \"" created "\"}\nspec:\n  poolRef: {name: q}\n"          \
    "  modelServerRuntime: sglang\n  profile: {pd: {pdRoleLabelName: r, kvTransfer: {bootstrapPort: " port "}}}\n"
    struct world *w = *state;
    const struct conf *c = world_load(
        w, Q(NOTES("")) POOL("other") POLICY PD "---\n" NAMED(
               "lost") "spec: {poolRef: {name: nope}}\n"
                       "---\n" NAMED("group") "spec: {poolRef: {name: q, group: inference.networking.k8s.io}}\n");
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w, "InferenceTrafficPolicy default/lost: spec.poolRef: there is no InferencePool default/nope");
    assert_note(
        w, "default/group: spec.poolRef: there is no InferencePool default/q of group inference.networking.k8s.io");
    assert_non_null(backend_of(c, "pool/default/q")->pd);
    assert_null(backend_of(c, "pool/default/other")->pd);
    const struct conf_backend *b =
        load(w, Q(NOTES("")) AGED("a", "2026-02-01T00:00:00Z", "2") AGED("b", "2026-01-01T00:00:00Z", "1")
                    AGED("c", "2026-03-01T00:00:00Z", "3"));
    assert_int_equal(b->pd->bootstrap_port, 1);
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w, "default/a: spec.poolRef: no effect: InferencePool q has the older InferenceTrafficPolicy b");
    assert_note(w, "default/c: spec.poolRef: no effect: InferencePool q has the older InferenceTrafficPolicy b");
    b = load(w, Q(NOTES("")) AGED("a", "2026-02-01T00:00:00Z", "2") AGED("c", "2026-03-01T00:00:00Z", "3"));
    assert_int_equal(b->pd->bootstrap_port, 2); /* the next takes its place */
    c = world_load(w, "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: q}\n"
                      "spec: {selector: {matchLabels: {app: q}}, targetPorts: [{number: 8000}]}\n---\n" POLICY PD);
    assert_int_equal(w->rep.n, 0); /* without a group, a v1 pool is meant as well */
    assert_non_null(backend_of(c, "pool/default/q")->pd);
}

static bool has(const struct buf *b, const char *text)
{
    return str_find(buf_str(b), str_c(text)) >= 0;
}

static void shown(void **state)
{
    struct world *w = *state;
    struct buf out;
    buf_init(&out, 1 << 20);
    load(w, Q(NOTES("penstock.dev/metrics-port: \"9000\"")) POLICY
         "  modelServerRuntime: sglang\n" PD DECLARED
         "      prefillPolicyRef: prefixCache\n" ROLE("p0", "10.0.0.1", LABEL, "prefill")
             ROLE("d0", "10.0.0.3", LABEL, "decode") ROLE("x0", "10.0.0.4", LABEL, "x"));
    conf_explain(w->conf, &out);
    assert_true(has(&out, "servers: sglang\n"));
    assert_true(has(
        &out, "split by label " LABEL
              ": 1 to prefill (prefix-cache), 1 to decode (default), bootstrap port 8998; 1 pods in neither set\n"));
    assert_true(has(&out, "endpoint p0 10.0.0.1:8000 (prefill)\n"));
    assert_true(has(&out, "endpoint d0 10.0.0.3:8000 (decode)\n"));
    assert_true(has(&out, "InferenceTrafficPolicy default/pol spec.profile.pd.prefillPolicyRef = prefixCache\n"));
    buf_clear(&out);
    conf_json(w->conf, &out);
    assert_true(has(&out, "\"role\":\"prefill\""));
    assert_true(has(&out, "\"pd\":{\"role_label\":\"" LABEL "\",\"bootstrap_port\":8998,\"pods_without_role\":1,"
                          "\"prefill_policy\":\"prefix-cache\",\"decode_policy\":\"default\"}"));
    assert_true(has(&out, "\"runtime\":\"sglang\",\"runtime_given\":true,\"metrics\":{\"port\":9000,"));
    buf_free(&out);
}

/* RoleBasedGroup */
#define RBG(version, roles)                                                                                            \
    "apiVersion: workloads.x-k8s.io/" version "\nkind: RoleBasedGroup\nmetadata: {name: g}\nspec:\n" roles
#define TEMPLATE(cmd)                                                                                                  \
    "template: {metadata: {labels: {app: q}}, spec: {containers: [{name: m, image: x, command: [sh, -c, \"" cmd        \
    "\"]}]}}"

static const char *label_of(const struct conf_workload *w, bool worker, const char *key)
{
    static char out[100];
    uint32_t n = worker ? w->n_worker_labels : w->n_labels;
    for (uint32_t i = 0; i < n; i++) {
        struct str k = worker ? w->worker_labels[i].key : w->labels[i].key,
                   v = worker ? w->worker_labels[i].value : w->labels[i].value;
        snprintf(out, sizeof out, STR_FMT, STR_ARG(v));
        if (str_eq_c(k, key))
            return out;
    }
    return "";
}

static void groups_v1(void **state)
{
    struct world *w = *state;
    const struct conf_workload *v;
    world_load(w, RBG("v1alpha1",
                      "  roleTemplates: [{name: base, " TEMPLATE(
                          "vllm serve m") "}]\n"
                                          "  roles:\n  - {name: prefill, replicas: 2, " TEMPLATE(
                                              "sglang serve p") "}\n"
                                                                "  - name: decode\n    workload: {apiVersion: apps/v1, "
                                                                "kind: Deployment}\n    templateRef: {name: base}\n"
                                                                "    templatePatch: {metadata: {labels: {app: r, x: "
                                                                "y}}, spec: {containers: [{name: m, args: [b]}, "
                                                                "{name: side, image: s}]}}\n"
                                                                "  - name: big\n    workload: {apiVersion: "
                                                                "leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet}\n "
                                                                "   " TEMPLATE(
                                                                    "vllm serve big") "\n    leaderWorkerSet: {size: "
                                                                                      "3, patchLeaderTemplate: "
                                                                                      "{metadata: {labels: {role: "
                                                                                      "leader}}}, patchWorkerTemplate: "
                                                                                      "{metadata: {labels: {role: "
                                                                                      "worker}}, spec: "
                                                                                      "{containers: [{name: m, "
                                                                                      "command: [sleep]}]}}}\n"));
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(conf_workloads(w->store, &v), 3);
    assert_str(v[0].kind, "RoleBasedGroup");
    assert_str(v[0].name, "g-prefill");
    assert_int_equal(v[0].controller, CONF_STATEFULSET);
    assert_int_equal(v[0].replicas, 2);
    assert_int_equal(v[0].n_labels, 3);
    assert_string_equal(label_of(&v[0], false, LABEL), "prefill");
    assert_string_equal(label_of(&v[0], false, "rolebasedgroup.workloads.x-k8s.io/name"), "g");
    assert_string_equal(label_of(&v[0], false, "app"), "q");
    assert_str(v[0].argv[2], "sglang serve p");
    assert_int_equal(v[1].controller, CONF_DEPLOYMENT);
    assert_string_equal(label_of(&v[1], false, "app"), "r");
    assert_string_equal(label_of(&v[1], false, "x"), "y");
    assert_str(v[1].argv[3], "b");
    assert_int_equal(v[2].controller, CONF_GROUPS);
    assert_int_equal(v[2].group_size, 3);
    assert_string_equal(label_of(&v[2], false, "role"), "leader");
    assert_string_equal(label_of(&v[2], true, "role"), "worker");
    assert_string_equal(label_of(&v[2], true, LABEL), "big");
    assert_str(v[2].argv[2], "vllm serve big");
}

static void groups_v2(void **state)
{
    struct world *w = *state;
    const struct conf_workload *v;
    world_load(
        w, RBG("v1alpha2",
               "  roleTemplates: [{name: base, " TEMPLATE(
                   "vllm serve m") "}]\n"
                                   "  roles:\n  - {name: prefill, standalonePattern: {templateRef: {name: base, patch: "
                                   "{metadata: "
                                   "{labels: {x: y}}}}}}\n"
                                   "  - {name: decode, replicas: 2, leaderWorkerPattern: {size: 2, " TEMPLATE(
                                       "sglang serve d") ", "
                                                         "workerTemplatePatch: {metadata: {labels: {role: worker}}}}}\n"
                                                         "  - {name: odd, customComponentsPattern: {components: "
                                                         "[{name: c}]}}\n"
                                                         "  - {name: dep, annotations: "
                                                         "{rbg.workloads.x-k8s.io/role-workload-type: "
                                                         "apps/v1/Deployment}, "
                                                         "standalonePattern: {" TEMPLATE("vllm serve m") "}}\n"));
    assert_int_equal(w->rep.n, 1);
    assert_note(w, "info: RoleBasedGroup default/g: spec.roles[2]: made of components: the sandbox does not play it");
    assert_int_equal(conf_workloads(w->store, &v), 3);
    assert_string_equal(label_of(&v[0], false, "rbg.workloads.x-k8s.io/role-name"), "prefill");
    assert_string_equal(label_of(&v[0], false, "rbg.workloads.x-k8s.io/group-name"), "g");
    assert_string_equal(label_of(&v[0], false, "x"), "y");
    assert_string_equal(label_of(&v[0], false, LABEL), "");
    assert_int_equal(v[0].controller, CONF_STATEFULSET);
    assert_int_equal(v[1].controller, CONF_GROUPS);
    assert_int_equal(v[1].group_size, 2);
    assert_string_equal(label_of(&v[1], true, "role"), "worker");
    assert_int_equal(v[2].controller, CONF_DEPLOYMENT);
}

static void groups_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {RBG("v1alpha1", "  roles: []\n"), "spec.roles: must not be empty"},
        {RBG("v1alpha1", "  roles: [{name: a}]\n"),
         "t.yaml:5: error: RoleBasedGroup default/g: spec.roles[0]: needs a template"},
        {RBG("v1alpha1", "  roles: [{name: a, " TEMPLATE("x") "}, {name: a, " TEMPLATE("x") "}]\n"),
         "spec.roles[1]: role a is given twice"},
        {RBG("v1alpha1", "  roles: [{name: a, templateRef: {name: b}}]\n"), "there is no \"b\" in roleTemplates"},
        {RBG("v1alpha2", "  roles: [{name: a, standalonePattern: {" TEMPLATE("x") "}, leaderWorkerPattern: {" TEMPLATE(
                             "x") "}}]\n"),
         "standalonePattern and leaderWorkerPattern exclude each other"},
        {RBG("v1alpha2", "  roles: [{name: A, standalonePattern: {" TEMPLATE("x") "}}]\n"), "spec.roles[0].name"},
        {RBG("v1alpha1", "  roles: [{name: a, replicas: -1, " TEMPLATE("x") "}]\n"), "-1 is not in 0 to 10000"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        const struct conf_workload *v;
        world_load(w, rows[i].text);
        assert_note(w, rows[i].says);
        assert_int_equal(w->rep.errors, 1);
        assert_int_equal(conf_workloads(w->store, &v), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pd_sample, world_up, world_down),
        cmocka_unit_test_setup_teardown(stages, world_up, world_down),
        cmocka_unit_test_setup_teardown(single, world_up, world_down),
        cmocka_unit_test_setup_teardown(wins_over_annotations, world_up, world_down),
        cmocka_unit_test_setup_teardown(refused, world_up, world_down),
        cmocka_unit_test_setup_teardown(unknown_fields, world_up, world_down),
        cmocka_unit_test_setup_teardown(which_pool, world_up, world_down),
        cmocka_unit_test_setup_teardown(shown, world_up, world_down),
        cmocka_unit_test_setup_teardown(groups_v1, world_up, world_down),
        cmocka_unit_test_setup_teardown(groups_v2, world_up, world_down),
        cmocka_unit_test_setup_teardown(groups_refused, world_up, world_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
