/* Findings of the decoder: severity, place and field of each, by a table of manifests. */
#include "conf_fixture.h"

#define HEAD(group, kind) "apiVersion: " group "\nkind: " kind "\nmetadata:\n  name: x\n"
#define XPOOL             HEAD("inference.networking.x-k8s.io/v1alpha2", "InferencePool")
#define VPOOL             HEAD("inference.networking.k8s.io/v1", "InferencePool")
#define HTTPROUTE         HEAD("gateway.networking.k8s.io/v1", "HTTPRoute")
#define GW                HEAD("gateway.networking.k8s.io/v1", "Gateway")
#define MODEL             HEAD("inference.networking.x-k8s.io/v1alpha2", "InferenceModel")
#define OBJECTIVE         HEAD("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective")
#define REWRITE           HEAD("inference.networking.x-k8s.io/v1alpha2", "InferenceModelRewrite")
#define BTP               HEAD("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy")

static const struct {
    const char *text, *finding;
} rows[] = {
    /* shape of manifests */
    {"- 1\n", "t.yaml:1: error: a manifest must be a mapping"},
    {"kind: Pod\n", "t.yaml:1: error: a manifest needs an apiVersion"},
    {"apiVersion: v1\n", "t.yaml:1: error: a manifest needs a kind"},
    {"apiVersion: v1\nkind: Nothing\nmetadata: {name: a}\n",
     "t.yaml:1: warning: Nothing default/a: kind: unknown kind"},
    {"apiVersion: v9\nkind: Pod\nmetadata: {name: a}\n", "this apiVersion of the kind is not known"},
    {"apiVersion: v1\nkind: Pod\n", "error: Pod default/: metadata: is required"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {}\n", "t.yaml:3: error: Pod default/: metadata.name: is required"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\n",
     "t.yaml:3: error: Pod default/A_b: metadata.name: \"A_b\" is no name"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: 12}\n",
     "metadata.name: must be a string, is an integer (put it in quotes)"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, name: b}\n", "\"name\" is given twice"},
    {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {x: 1}\n",
     "t.yaml:5: warning: Pod default/a: metadata.labels.x: must be a string, is an integer"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[31m\"}\n", "Pod default/a?[31m: metadata.name"},
    /* InferencePool */
    {XPOOL "spec:\n  selector: {app: q}\n",
     "t.yaml:6: error: InferencePool default/x: spec.targetPortNumber: is required"},
    {XPOOL "spec:\n  targetPortNumber: \"8000\"\n  selector: {app: q}\n",
     "t.yaml:6: error: InferencePool default/x: spec.targetPortNumber: must be an integer"},
    {XPOOL "spec:\n  targetPortNumber: 70000\n  selector: {app: q}\n",
     "spec.targetPortNumber: 70000 is not in 1 to 65535"},
    {XPOOL "spec:\n  targetPortNumber: 1\n  selector: {}\n",
     "t.yaml:7: error: InferencePool default/x: spec.selector: must not be empty"},
    {XPOOL "spec:\n  targetPortNumber: 1\n  selector: {a: b}\n  foo: 1\n",
     "t.yaml:8: warning: InferencePool default/x: spec.foo: unknown field, ignored"},
    {XPOOL "spec: 3\n", "spec: must be a mapping, is an integer"},
    {VPOOL "spec:\n  targetPorts: [{number: 1}, {number: 1}]\n  selector: {matchLabels: {a: b}}\n",
     "port 1 is given twice"},
    {VPOOL "spec:\n  targetPorts: [{number: 0}]\n  selector: {matchLabels: {a: b}}\n",
     "spec.targetPorts[0].number: 0 is not in 1 to 65535"},
    {VPOOL "spec:\n  targetPorts: [{number: 1}]\n  selector: {app: b}\n", "spec.selector.matchLabels: is required"},
    /* InferenceModel */
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p}\n  criticality: Urgent\n",
     "t.yaml:8: error: InferenceModel default/x: spec.criticality: \"Urgent\" is none of Standard, Critical, "
     "Sheddable"},
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p}\n  targetModels:\n  - {name: a, weight: 1}\n  - name: b\n",
     "weights should be set for all models, or none"},
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p}\n  targetModels: [{name: a, weight: 0}]\n",
     "spec.targetModels[0].weight: 0 is not in 1 to 1000000"},
    {MODEL "spec:\n  modelName: m\n", "spec.poolRef: is required"},
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p, kind: Service}\n", "spec.poolRef: kind must be InferencePool"},
    {MODEL "spec:\n  modelName: m\n  poolRef:\n", "spec.poolRef: is required"},
    {MODEL
     "spec:\n  modelName: m\n  poolRef: {name: p}\n  targetModels: [{name: a1}, {name: a2}, {name: a3}, {name: a4}, "
     "{name: a5}, {name: a6}, {name: a7}, {name: a8}, {name: a9}, {name: a10}, {name: a11}]\n",
     "t.yaml:8: error: InferenceModel default/x: spec.targetModels: has 11 entries, at most 10 are allowed"},
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p}\n  targetModels: [{name: a, weight: 1000001}]\n",
     "spec.targetModels[0].weight: 1000001 is not in 1 to 1000000"},
    {MODEL "spec:\n  modelName: m\n  poolRef: {name: p}\n  targetModels: [{weight: 1}]\n",
     "spec.targetModels[0].name: is required"},
    /* Gateway */
    {GW "spec: {gatewayClassName: c, listeners: []}\n", "spec.listeners: must not be empty"},
    {GW "spec:\n  gatewayClassName: c\n  listeners:\n  - {name: a, protocol: HTTP, port: 80}\n  - {name: a, protocol: "
        "HTTP, port: 81}\n",
     "t.yaml:9: error: Gateway default/x: spec.listeners[1]: the name \"a\" is given twice"},
    {GW "spec:\n  gatewayClassName: c\n  listeners:\n  - {name: a, protocol: HTTP, port: 80}\n  - {name: b, protocol: "
        "HTTP, port: 80}\n",
     "has port and host name of listener \"a\""},
    {GW "spec:\n  gatewayClassName: c\n  listeners: [{name: a, protocol: HTTPS, port: 443}]\n",
     "protocol HTTPS is not in effect yet"},
    /* HTTPRoute */
    {HTTPROUTE "spec:\n  rules:\n  - matches:\n    - path: {type: Exact, value: v1}\n",
     "spec.rules[0].matches[0].path: \"v1\" must begin with /"},
    {HTTPROUTE "spec:\n  rules:\n  - matches:\n    - path: {type: RegularExpression, value: \"/(\"}\n",
     "t.yaml:8: error: HTTPRoute default/x: spec.rules[0].matches[0].path: \"/(\" is no regular expression"},
    {HTTPROUTE "spec:\n  rules:\n  - matches:\n    - headers: [{type: Prefix, name: a, value: b}]\n",
     "spec.rules[0].matches[0].headers[0].type: \"Prefix\" is none of"},
    {HTTPROUTE "spec:\n  rules:\n  - matches:\n    - method: get\n",
     "spec.rules[0].matches[0].method: \"get\" is no method"},
    {HTTPROUTE "spec:\n  rules:\n  - filters: [{type: RequestMirror, requestMirror: {}}]\n",
     "warning: HTTPRoute default/x: spec.rules[0].filters[0]: RequestMirror is not supported"},
    {HTTPROUTE "spec:\n  rules:\n  - filters: [{type: URLRewrite}]\n", "type URLRewrite needs the member urlRewrite"},
    {HTTPROUTE "spec:\n  rules:\n  - filters:\n    - {type: RequestHeaderModifier, requestHeaderModifier: {set: "
               "[{name: Host, value: a}]}}\n",
     "the header Host cannot be modified"},
    {HTTPROUTE "spec:\n  rules:\n  - filters:\n    - {type: RequestHeaderModifier, requestHeaderModifier: {set: "
               "[{name: \"a b\", value: a}]}}\n",
     "\"a b\" is no header name"},
    {HTTPROUTE "spec:\n  rules:\n  - filters:\n    - {type: RequestRedirect, requestRedirect: {statusCode: 304}}\n",
     "statusCode 304 is none of"},
    {HTTPROUTE "spec:\n  rules:\n  - matches: [{path: {type: Exact, value: /a}}]\n    filters:\n    - {type: "
               "URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}\n",
     "ReplacePrefixMatch needs matches of type PathPrefix"},
    {HTTPROUTE "spec:\n  rules:\n  - timeouts: {request: 1.5s}\n",
     "spec.rules[0].timeouts.request: \"1.5s\" is no duration"},
    {HTTPROUTE "spec:\n  rules:\n  - timeouts: {request: 1s, backendRequest: 2s}\n",
     "backendRequest must not be longer"},
    {HTTPROUTE "spec:\n  hostnames: [Example.com]\n", "spec.hostnames[0]: \"Example.com\" is no host name"},
    {HTTPROUTE "spec:\n  rules:\n  - backendRefs: [{name: a, port: 1, weight: -1}]\n",
     "spec.rules[0].backendRefs[0].weight: -1 is not in 0 to 1000000"},
    /* BackendTrafficPolicy */
    {BTP "spec:\n  timeout: {http: {requestTimeout: 1d}}\n", "spec.timeout.http.requestTimeout: \"1d\" is no duration"},
    {BTP "spec:\n  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}\n  circuitBreaker: {}\n",
     "info: BackendTrafficPolicy default/x: spec.circuitBreaker: accepted, not in effect yet"},
    {BTP "spec:\n  targetRef: {group: \"\", kind: Service, name: g}\n", "the target must be a Gateway or an HTTPRoute"},
    /* core */
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: nope}\n",
     "t.yaml:4: error: Pod default/a: status.podIP: \"nope\" is no IP address"},
    {"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1, targetPort: []}]}\n",
     "spec.ports[0].targetPort: must be a port number or the name"},
    /* accepted kinds */
    {"apiVersion: inferenceextension.alibabacloud.com/v1alpha1\nkind: InferenceTrafficPolicy\nmetadata: {name: "
     "a}\nspec: {poolRef: {name: p}, wrong: 1}\n",
     "spec.wrong: unknown field"},
    /* InferenceObjective */
    {OBJECTIVE "spec:\n  priority: 1\n", "error: InferenceObjective default/x: spec.poolRef: is required"},
    {OBJECTIVE "spec:\n  priority: high\n  poolRef: {name: p}\n",
     "t.yaml:6: error: InferenceObjective default/x: spec.priority: must be an integer, is a string"},
    {OBJECTIVE "spec:\n  priority: 2147483648\n  poolRef: {name: p}\n",
     "spec.priority: 2147483648 is not in -2147483648 to 2147483647"},
    {OBJECTIVE "spec:\n  criticality: Urgent\n  poolRef: {name: p}\n",
     "spec.criticality: \"Urgent\" is none of Standard, Critical, Sheddable"},
    {OBJECTIVE "spec:\n  criticality: Critical\n  priority: 7\n  poolRef: {name: p}\n",
     "t.yaml:6: warning: InferenceObjective default/x: spec: criticality: priority is given as well and counts alone"},
    {OBJECTIVE "spec:\n  modelName: \"\"\n  poolRef: {name: p}\n", "spec.modelName: must not be empty"},
    {OBJECTIVE "spec:\n  poolRef: {name: p, kind: Service}\n", "spec.poolRef: kind must be InferencePool"},
    {OBJECTIVE "spec:\n  poolRef: {name: p, namespace: n}\n", "spec.poolRef.namespace: unknown field"},
    /* InferenceModelRewrite */
    {REWRITE "spec:\n  poolRef: {name: p}\n", "error: InferenceModelRewrite default/x: spec.rules: is required"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules: []\n", "spec.rules: must not be empty"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - matches: [{model: {value: a}}]\n",
     "t.yaml:8: error: InferenceModelRewrite default/x: spec.rules[0].targets: is required"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - targets: []\n", "spec.rules[0].targets: must not be empty"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - targets: [{modelRewrite: \"\"}]\n",
     "spec.rules[0].targets[0].modelRewrite: must not be empty"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - targets: [{weight: 1}]\n",
     "spec.rules[0].targets[0].modelRewrite: is required"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - targets: [{modelRewrite: a, weight: 0}]\n",
     "spec.rules[0].targets[0].weight: 0 is not in 1 to 1000000"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - targets: [{modelRewrite: a, weight: 1}, {modelRewrite: b}]\n",
     "warning: InferenceModelRewrite default/x: spec.rules[0]: targets: some have a weight and some have none"},
    {REWRITE
     "spec:\n  poolRef: {name: p}\n  rules:\n  - matches: [{model: {value: \"\"}}]\n    targets: [{modelRewrite: "
     "a}]\n",
     "spec.rules[0].matches[0].model.value: must not be empty"},
    {REWRITE "spec:\n  poolRef: {name: p}\n  rules:\n  - matches: [{model: {type: Prefix, value: a}}]\n    targets: "
             "[{modelRewrite: a}]\n",
     "spec.rules[0].matches[0].model.type: \"Prefix\" is none of Exact"},
};

static void findings(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        world_load(w, rows[i].text);
        if (!world_note(w, rows[i].finding)) {
            world_print(w);
            fail_msg("row %zu: expected %s", i, rows[i].finding);
        }
    }
}

static void columns(void **state)
{
    struct world *w = *state;
    world_load(w, XPOOL "spec:\n  targetPortNumber: x\n  selector: {app: q}\n");
    const struct conf_note *n = world_note(w, "targetPortNumber");
    assert_int_equal(n->line, 6);
    assert_int_equal(n->col, 21);
    assert_str(n->file, "t.yaml");
    assert_str(n->object, "InferencePool default/x");
    assert_str(n->field, "spec.targetPortNumber");
}

/* One object may hold 50 000 values; a list of objects more than that together. */
static void size_of_objects(void **state)
{
    struct world *w = *state;
    struct buf b;
    buf_init(&b, 4 << 20);
    buf_addf(&b, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\nextra:\n");
    for (int i = 0; i < 50001; i++)
        buf_addf(&b, "- %d\n", i);
    world_load(w, buf_cstr(&b));
    assert_note(w, "has more than 50000 values");
    buf_clear(&b);
    buf_addf(&b, "apiVersion: v1\nkind: List\nitems:\n");
    for (int i = 0; i < 10000; i++)
        buf_addf(&b, "- {apiVersion: v1, kind: ConfigMap, metadata: {name: c%d}, data: {a: b}}\n", i);
    world_load(w, buf_cstr(&b));
    assert_int_equal(w->rep.errors, 0);
    buf_free(&b);
}

static void matches_of_a_route(void **state)
{
    struct world *w = *state;
    for (int per_rule = 64; per_rule >= 63; per_rule--) {
        struct buf b;
        buf_init(&b, 1 << 20);
        buf_addf(&b, HTTPROUTE "spec:\n  rules:\n");
        for (int r = 0; r < 3; r++) {
            buf_addf(&b, "  - matches:\n");
            for (int m = 0; m < (r < 2 ? per_rule : 1); m++)
                buf_addf(&b, "    - {path: {value: /%d}}\n", m);
        }
        world_load(w, buf_cstr(&b));
        assert_int_equal(w->rep.errors, per_rule == 64);
        buf_free(&b);
    }
}

static void many_findings(void **state)
{
    struct world *w = *state;
    struct buf b;
    buf_init(&b, 4 << 20);
    for (int i = 0; i < 10050; i++)
        buf_addf(&b, "---\nx: 1\n");
    world_load(w, buf_cstr(&b));
    assert_int_equal(w->rep.n, 10000);
    assert_int_equal(w->rep.dropped, 50);
    assert_int_equal(w->rep.errors, 10050);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(findings, world_up, world_down),
        cmocka_unit_test_setup_teardown(columns, world_up, world_down),
        cmocka_unit_test_setup_teardown(size_of_objects, world_up, world_down),
        cmocka_unit_test_setup_teardown(matches_of_a_route, world_up, world_down),
        cmocka_unit_test_setup_teardown(many_findings, world_up, world_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
