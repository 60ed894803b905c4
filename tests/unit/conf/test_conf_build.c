/* Snapshots: endpoints, Services, references, weights, models, policies, gateways; and the examples as they are. */
#include "conf_fixture.h"

#include <dirent.h>

static struct conf *load(struct world *w, const char *text)
{
    struct conf *c = world_load(w, text);
    assert_int_equal(w->rep.errors, 0);
    return c;
}

static void endpoints_of_pools(void **state)
{
    struct world *w = *state;
    load(w, POOL("q") POD("a", "q", "10.0.0.1", "True") POD("b", "q", "10.0.0.2", "False") POD("c", "other", "10.0.0.3",
                                                                                               "True")
                POD("noip", "q", "\"\"",
                    "True") "apiVersion: v1\nkind: Pod\nmetadata: {name: going, labels: {app: q}, deletionTimestamp: "
                            "\"2026-01-01T00:00:00Z\"}\n"
                            "status: {podIP: 10.0.0.5, conditions: [{type: Ready, status: \"True\"}]}\n---\n"
                            "apiVersion: v1\nkind: Pod\nmetadata: {name: elsewhere, namespace: n, labels: {app: q}}\n"
                            "status: {podIP: 10.0.0.6, conditions: [{type: Ready, status: \"True\"}]}\n---\n"
                            "apiVersion: v1\nkind: Pod\nmetadata: {name: done, labels: {app: q}}\n"
                            "status: {phase: Succeeded, podIP: 10.0.0.7, conditions: [{type: Ready, status: "
                            "\"True\"}]}\n---\n"
                            "apiVersion: v1\nkind: Pod\nmetadata: {name: six, labels: {app: q, more: x}}\n"
                            "status: {podIP: \"fd00::1\", conditions: [{type: Ready, status: \"True\"}]}\n");
    const struct conf_backend *b = backend_of(w->conf, "pool/default/q");
    assert_int_equal(b->n_endpoints, 2);
    assert_str(b->endpoints[0].pod, "a");
    assert_str(b->endpoints[0].host, "10.0.0.1");
    assert_int_equal(b->endpoints[0].port, 8000);
    assert_str(b->endpoints[1].host, "fd00::1");
}

static void several_ports_and_labels(void **state)
{
    struct world *w = *state;
    load(w,
         "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: q}\n"
         "spec: {targetPorts: [{number: 8000}, {number: 8001}], selector: {matchLabels: {app: q, role: leader}}}\n---\n"
         "apiVersion: v1\nkind: Pod\nmetadata: {name: l, labels: {app: q, role: leader}}\nstatus: {podIP: 10.0.0.1, "
         "conditions: [{type: Ready, status: \"True\"}]}\n---\n"
         "apiVersion: v1\nkind: Pod\nmetadata: {name: one, labels: {app: q, role: leader}, annotations: "
         "{inference.networking.k8s.io/active-ports: \"9, 8001\"}}\n"
         "status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: \"True\"}]}\n---\n"
         "apiVersion: v1\nkind: Pod\nmetadata: {name: w, labels: {app: q, role: worker}}\nstatus: {podIP: 10.0.0.3, "
         "conditions: [{type: Ready, status: \"True\"}]}\n");
    const struct conf_backend *b = backend_of(w->conf, "pool/default/q");
    assert_int_equal(b->n_endpoints, 3);
    assert_int_equal(b->endpoints[0].port, 8000);
    assert_int_equal(b->endpoints[1].port, 8001);
    assert_str(b->endpoints[2].pod, "one");
    assert_int_equal(b->endpoints[2].port, 8001);
}

static void both_versions(void **state)
{
    struct world *w = *state;
    load(w, POOL("q") "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: q}\n"
                      "spec: {targetPorts: [{number: 9000}], selector: {matchLabels: {app: q}}}\n---\n" GATEWAY ROUTE(
                          "r", "  rules: [{backendRefs: [" POOL_REF(
                                   "q") ", {group: inference.networking.k8s.io, kind: InferencePool, name: q}]}]\n"));
    assert_non_null(backend_of(w->conf, "pool/default/q"));
    assert_non_null(backend_of(w->conf, "pool.v1/default/q"));
    const struct conf_rule *r = w->conf->listeners[0].matches[0].rule;
    assert_str(w->conf->backends[r->refs[0].backend].key, "pool/default/q");
    assert_str(w->conf->backends[r->refs[1].backend].key, "pool.v1/default/q");
}

#define SERVICE(name, ports)                                                                                           \
    "apiVersion: v1\nkind: Service\nmetadata: {name: " name "}\nspec: {selector: {app: q}, ports: [" ports "]}\n---\n"
#define TO_SERVICE(name, port) ROUTE("r", "  rules: [{backendRefs: [{name: " name ", port: " port "}]}]\n")

static void services(void **state)
{
    static const struct {
        const char *ports, *extra;
        int port; /* of the only endpoint, 0 none */
        const char *host;
    } rows[] = {
        {"{port: 80, targetPort: 8000}", "", 8000, "10.0.0.1"},
        {"{port: 80}", "", 80, "10.0.0.1"},
        {"{port: 80, targetPort: http}", "", 8000, "10.0.0.1"},
        {"{port: 80, targetPort: none}", "", 0, NULL},
        {"{name: a, port: 81, targetPort: 1}, {name: b, port: 80, targetPort: 2}", "", 2, "10.0.0.1"},
        /* slices win over the selector, also when they hold nothing ready */
        {"{name: b, port: 80}",
         "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: "
         "{kubernetes.io/service-name: svc}}\n"
         "endpoints: [{addresses: [10.9.9.9]}, {addresses: [10.9.9.8], conditions: {ready: false}}, {addresses: "
         "[10.9.9.7], conditions: {terminating: true}}]\n"
         "ports: [{name: a, port: 7}, {name: b, port: 8}]\n---\n",
         8, "10.9.9.9"},
        {"{port: 80}",
         "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: "
         "{kubernetes.io/service-name: svc}}\nendpoints: []\n---\n",
         0, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[8192];
        snprintf(text, sizeof text,
                 GATEWAY POD("p", "q", "10.0.0.1", "True")
                     TO_SERVICE("svc", "80") "apiVersion: v1\nkind: Service\nmetadata: {name: svc}\nspec: {selector: "
                                             "{app: q}, ports: [%s]}\n---\n%s",
                 rows[i].ports, rows[i].extra);
        load(w, text);
        const struct conf_backend *b = backend_of(w->conf, "service/default/svc:80");
        assert_non_null(b);
        assert_int_equal(b->kind, BACKEND_SERVICE);
        assert_int_equal(b->sched.policy, SCHED_ROUND_ROBIN);
        assert_int_equal(b->n_endpoints, rows[i].port != 0);
        if (rows[i].port) {
            assert_int_equal(b->endpoints[0].port, rows[i].port);
            assert_str(b->endpoints[0].host, rows[i].host);
        }
    }
}

static void unresolved_references(void **state)
{
    static const struct {
        const char *ref, *extra, *problem; /* NULL: resolves */
    } rows[] = {
        {"{name: none, port: 80}", "", "there is no Service default/none"},
        {"{name: svc}", "", "needs a port"},
        {"{name: svc, port: 81}", "", "has no port 81"},
        {"{name: svc, port: 80}", "", NULL},
        {"{group: apps, kind: Deployment, name: x}", "", "kind \"Deployment\" is not supported"},
        {POOL_REF("none"), "", "there is no InferencePool default/none"},
        {"{group: inference.networking.k8s.io, kind: InferencePool, name: q}", "",
         "of group inference.networking.k8s.io"},
        {POOL_REF("q"), "", NULL},
        {"{group: inference.networking.x-k8s.io, kind: InferencePool, name: far, namespace: n}", "",
         "no ReferenceGrant there allows it"},
        {"{group: inference.networking.x-k8s.io, kind: InferencePool, name: far, namespace: n}",
         "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: x, namespace: n}\n"
         "spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: "
         "inference.networking.x-k8s.io, kind: InferencePool}]}\n---\n",
         NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[8192];
        snprintf(text, sizeof text,
                 GATEWAY POOL("q") SERVICE(
                     "svc",
                     "{port: 80}") "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: "
                                   "{name: far, namespace: n}\nspec: {targetPortNumber: 1, selector: {a: b}}\n---\n"
                                   "%s" ROUTE("r", "  rules: [{backendRefs: [%s, " POOL_REF("q") "]}]\n"),
                 rows[i].extra, rows[i].ref);
        load(w, text);
        const struct conf_backend_ref *ref = &w->conf->listeners[0].matches[0].rule->refs[0];
        if (!rows[i].problem) {
            assert_int_not_equal(ref->backend, CONF_NO_BACKEND);
            continue;
        }
        assert_int_equal(ref->backend, CONF_NO_BACKEND);
        assert_non_null(strstr(ref->problem.p, rows[i].problem));
        assert_note(w, rows[i].problem);
        assert_note(w, "spec.rules[0].backendRefs[0]");
    }
}

static void weights(void **state)
{
    struct world *w = *state;
    load(w, GATEWAY POOL("a") POOL("b")
                ROUTE("r", "  rules: [{backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: "
                           "a, weight: 90}, "
                           "{group: inference.networking.x-k8s.io, kind: InferencePool, name: b, weight: 10}, "
                           "{group: inference.networking.x-k8s.io, kind: InferencePool, name: a, weight: 0}]}]\n"));
    const struct conf_rule *r = w->conf->listeners[0].matches[0].rule;
    unsigned n[3] = {0};
    for (int i = 0; i < 1000; i++)
        n[conf_draw_backend(r, i / 1000.0) - r->refs]++;
    assert_int_equal(n[0], 900);
    assert_int_equal(n[1], 100);
    assert_ptr_equal(conf_draw_backend(r, 0.999999999), &r->refs[1]);
    load(w, GATEWAY POOL("a") ROUTE("r", "  rules: [{backendRefs: [{group: inference.networking.x-k8s.io, kind: "
                                         "InferencePool, name: a, weight: 0}]}]\n"));
    assert_null(conf_draw_backend(w->conf->listeners[0].matches[0].rule, 0));
}

#define MODEL(name, time, model, crit, targets)                                                                        \
    "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\nmetadata: {name: " name                 \
    ", creationTimestamp: " time "}\n"                                                                                 \
    "spec: {modelName: " model ", " crit "poolRef: {name: q}, targetModels: [" targets "]}\n---\n"

static void models(void **state)
{
    struct world *w = *state;
    load(w, POOL("q") MODEL("young", "\"2026-01-01T00:00:00Z\"", "m", "criticality: Sheddable, ", "")
                MODEL("old", "\"2025-01-01T00:00:00Z\"", "m", "criticality: Critical, ", "{name: x}, {name: y}")
                    MODEL("undated", "null", "m", "", "")
                        MODEL("b", "null", "/a/b", "", "{name: v1, weight: 80}, {name: v2, weight: 20}")
                            MODEL("a", "null", "a", "", ""));
    const struct conf_backend *b = backend_of(w->conf, "pool/default/q");
    assert_int_equal(b->n_models, 3);
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w, "\"m\" belongs to the older InferenceModel old of this pool");
    const struct conf_model *m = conf_find_model(b, STR("m"));
    assert_str(m->name, "old");
    assert_int_equal(m->criticality, CRIT_CRITICAL);
    assert_str(conf_draw_target(m, 0.49), "x"); /* no weights: evenly */
    assert_str(conf_draw_target(m, 0.51), "y");
    m = conf_find_model(b, STR("/a/b"));
    assert_int_equal(m->criticality, CRIT_STANDARD);
    assert_str(conf_draw_target(m, 0.79), "v1");
    assert_str(conf_draw_target(m, 0.81), "v2");
    assert_str(conf_draw_target(conf_find_model(b, STR("a")), 0.5), "a");
    assert_null(conf_find_model(b, STR("zz")));
    load(w, MODEL("a", "null", "a", "", ""));
    assert_note(w, "there is no InferencePool default/q");
}

#define POLICY(name, kind, target, section, time)                                                                      \
    "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: " name "}\n"             \
    "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: " kind ", name: " target section                     \
    "}], timeout: {http: {requestTimeout: " time "}}}\n---\n"

static uint64_t timeout_of(struct world *w, uint32_t listener)
{
    return w->conf->listeners[listener].matches[0].rule->request_timeout_us;
}

static void timeouts(void **state)
{
    struct world *w = *state;
#define BOTH(name, rule)                                                                                               \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name                                \
    "}\nspec: {parentRefs: [{name: g}], rules: [" rule "]}\n---\n"
    load(w, GATEWAY POOL("q") BOTH("r", "{backendRefs: [" POOL_REF("q") "]}"));
    assert_int_equal(timeout_of(w, 0), 0);
    load(w, GATEWAY POOL("q") BOTH("r", "{backendRefs: [" POOL_REF("q") "]}") POLICY("p", "Gateway", "g", "", "1h"));
    assert_int_equal(timeout_of(w, 0), 3600000000u);
    assert_int_equal(w->conf->listeners[1].request_timeout_us, 3600000000u);
    load(w, GATEWAY POOL("q") BOTH("r", "{backendRefs: [" POOL_REF("q") "]}") POLICY("p", "Gateway", "g", "", "1h")
                POLICY("s", "Gateway", "g", ", sectionName: llm", "5s"));
    assert_int_equal(timeout_of(w, 0), 3600000000u);
    assert_int_equal(timeout_of(w, 1), 5000000);
    load(w, GATEWAY POOL("q") BOTH("r", "{backendRefs: [" POOL_REF("q") "]}") POLICY("p", "Gateway", "g", "", "1h")
                POLICY("s", "HTTPRoute", "r", "", "24h"));
    assert_true(timeout_of(w, 0) == 86400000000u);
    load(w,
         GATEWAY POOL("q") BOTH("r", "{timeouts: {request: 2s, backendRequest: 1s}, backendRefs: [" POOL_REF("q") "]}")
             POLICY("s", "HTTPRoute", "r", "", "24h"));
    assert_int_equal(timeout_of(w, 0), 2000000);
    assert_int_equal(w->conf->listeners[0].matches[0].rule->backend_timeout_us, 1000000);
    load(w, GATEWAY POOL("q") BOTH("r", "{timeouts: {request: 0s}, backendRefs: [" POOL_REF("q") "]}"));
    assert_true(timeout_of(w, 0) == UINT64_MAX);
    load(w, POLICY("p", "Gateway", "nobody", "", "1h"));
    assert_note(w, "there is no Gateway default/nobody");
}

static void gateways(void **state)
{
    struct world *w = *state;
#define CLASS(controller)                                                                                              \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\nspec: "                        \
    "{controllerName: " controller "}\n---\n"
#define GATE(name, port)                                                                                               \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: " name                                  \
    "}\nspec: {gatewayClassName: c, listeners: [{name: l, protocol: HTTP, port: " port "}]}\n---\n"
    static const struct {
        const char *controller;
        bool ours;
    } rows[] = {{"inference.networking.x-k8s.io/gateway-controller", true},
                {"gateway.envoyproxy.io/gatewayclass-controller", true},
                {"penstock.dev/gateway-controller", true},
                {"example.com/other", false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[2000];
        snprintf(text, sizeof text, CLASS("%s") GATE("g", "80"), rows[i].controller);
        load(w, text);
        assert_int_equal(w->conf->n_listeners, rows[i].ours);
        assert_int_equal(w->rep.n, !rows[i].ours);
    }
    load(w, GATE("g", "80"));
    assert_int_equal(w->conf->n_listeners, 1);
    assert_note(w, "there is no GatewayClass c: taken as ours");
    load(w, CLASS("penstock.dev/gateway-controller") GATE("b", "80") GATE("a", "80") GATE("c", "81"));
    assert_int_equal(w->conf->n_listeners, 2);
    assert_str(w->conf->listeners[0].gw_name, "a");
    assert_note(w, "port 80 is taken by listener l of Gateway default/a");
}

static void attachment(void **state)
{
    struct world *w = *state;
    load(w, GATEWAY POOL("q") ROUTE("r", "  rules: [{backendRefs: [" POOL_REF("q") "]}]\n"));
    assert_int_equal(w->conf->listeners[0].n_matches, 1);
    assert_int_equal(w->conf->listeners[1].n_matches, 0); /* sectionName */
#define ROUTE_TO(parent, extra)                                                                                        \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r" extra                              \
    "}\nspec: {parentRefs: [" parent "], rules: [{}]}\n---\n"
    load(w, GATEWAY ROUTE_TO("{name: g}", ""));
    assert_int_equal(w->conf->listeners[1].n_matches, 1);
    load(w, GATEWAY ROUTE_TO("{name: g, port: 8081}", ""));
    assert_int_equal(w->conf->listeners[0].n_matches, 0);
    assert_int_equal(w->conf->listeners[1].n_matches, 1);
    load(w, GATEWAY ROUTE_TO("{name: g}, {name: g, sectionName: llm}", ""));
    assert_int_equal(w->conf->listeners[1].n_matches, 1);
    load(w, GATEWAY ROUTE_TO("{name: g, sectionName: nope}", ""));
    assert_note(w, "Gateway default/g has no open listener nope");
    load(w, GATEWAY ROUTE_TO("{name: h}", ""));
    assert_note(w, "there is no Gateway default/h");
    load(w, GATEWAY ROUTE_TO("{name: g, namespace: default}", ", namespace: n"));
    assert_note(w, "does not allow routes of namespace n");
}

static void filters(void **state)
{
    struct world *w = *state;
    load(w, GATEWAY POOL("q") ROUTE(
                "r", "  rules:\n  - filters:\n"
                     "    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: \"1\"}], add: "
                     "[{name: B, value: \"2\"}], remove: [C]}}\n"
                     "    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: D, value: \"3\"}]}}\n"
                     "    - {type: URLRewrite, urlRewrite: {hostname: up.example, path: {type: ReplacePrefixMatch, "
                     "replacePrefixMatch: /new}}}\n"
                     "    backendRefs: [" POOL_REF(
                         "q") "]\n"
                              "  - matches: [{path: {type: Exact, value: /old}}]\n    filters: [{type: "
                              "RequestRedirect, requestRedirect: {scheme: https, statusCode: 301, path: {type: "
                              "ReplaceFullPath, replaceFullPath: /x}}}]\n"
                              "  - matches: [{path: {type: Exact, value: /ext}}]\n    filters: [{type: ExtensionRef, "
                              "extensionRef: {group: a, kind: b, name: c}}]\n    backendRefs: [" POOL_REF("q") "]\n"));
    const struct conf_listener *l = &w->conf->listeners[0];
    assert_str(l->matches[0].path, "/old"); /* exact paths first; of equal length by rule */
    const struct conf_rule *plain = NULL, *redirect = NULL, *ext = NULL;
    for (uint32_t i = 0; i < l->n_matches; i++) {
        const struct conf_rule *r = l->matches[i].rule;
        plain = r->index == 0 ? r : plain;
        redirect = r->index == 1 ? r : redirect;
        ext = r->index == 2 ? r : ext;
    }
    assert_str(plain->req_mod->set[0].value, "1");
    assert_str(plain->req_mod->add[0].name, "B");
    assert_str(plain->req_mod->remove[0], "C");
    assert_str(plain->resp_mod->add[0].value, "3");
    assert_int_equal(plain->rewrite->path_type, PATH_PREFIX);
    assert_str(plain->rewrite->path, "/new");
    assert_int_equal(redirect->redirect->status, 301);
    assert_int_equal(redirect->redirect->path_type, PATH_FULL);
    assert_int_equal(ext->refs[0].backend, CONF_NO_BACKEND); /* never passed on without its filter */
}

static void references_count(void **state)
{
    struct world *w = *state;
    struct conf *c = conf_ref(
        load(w, GATEWAY ROUTE("r", "  rules: [{matches: [{path: {type: RegularExpression, value: /.*}}]}]\n")));
    uint64_t generation = c->generation;
    load(w, "");
    assert_true(w->conf->generation > generation);
    struct conf_route_req rq = {.host = STR("h"), .path = STR("/x"), .method = STR("GET")};
    assert_non_null(conf_route(&c->listeners[0], &rq));
    conf_unref(c);
}

/* The files of examples/ and the literal manifests validate without a warning. */
static void examples(void **state)
{
    static const char *const sets[][4] = {
        {"examples/two-ports"},
        {"examples/queueing"},
        {"examples/custom-config"},
        {"examples/canary"},
        {"examples/model-routing"},
        {"examples/objectives"},
        {"examples/smart-routing/inference_networking.yaml", "examples/smart-routing/gateway_networking.yaml",
         "examples/smart-routing/workload.yaml"},
        {"examples/smart-routing/Prefix_Cache.yaml", "examples/smart-routing/gateway_networking.yaml",
         "examples/smart-routing/workload.yaml"},
        {"examples/smart-routing/workloads"},
        {"examples/pd-vllm"},
        {"examples/triton"},
        {"examples/two-runtimes"},
        {"tests/vectors/manifests/queueing-vllm-service-literal.yaml"},
        {"tests/vectors/manifests/vllm-app-pool-default.yaml"},
    };
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        struct world *w = *state;
        char paths[4][1024];
        const char *v[4];
        size_t n = 0;
        for (; n < 4 && sets[i][n]; n++) {
            snprintf(paths[n], sizeof paths[n], "%s/%s", SOURCE_ROOT, sets[i][n]);
            v[n] = paths[n];
        }
        conf_report_free(&w->rep);
        assert_int_equal(0, conf_store_load(w->store, v, n, &w->rep));
        conf_unref(w->conf);
        w->conf = conf_build(w->store, NULL, &w->rep);
        if (w->rep.errors || w->rep.warnings) {
            world_print(w);
            fail_msg("%s is not clean", sets[i][0]);
        }
    }
}

/* Each variant of the pool selects pods of the workload that goes with it, and no others: leaders only for the
 * distributed ones. */
static void variants(void **state)
{
    static const char *const deployments[][2] = {{"vllm-single", "workload.yaml"},
                                                 {"sglang-single", "workloads/sgl-inference.yaml"},
                                                 {"vllm-distributed", "workloads/vllm-multi-nodes.yaml"},
                                                 {"sglang-distributed", "workloads/sglang-multi-nodes.yaml"},
                                                 {"sglang-pd", "workloads/sglang-pd.yaml"}};
    static const char *const policies[] = {"default", "prefix"};
    for (size_t i = 0; i < 2 * ARRAY_LEN(deployments); i++) {
        struct world *w = *state;
        char pool[1024], work[1024], gate[1024];
        const char *v[] = {pool, work, gate};
        snprintf(pool, sizeof pool, "%s/examples/smart-routing/variants/%s-%s.yaml", SOURCE_ROOT, policies[i % 2],
                 deployments[i / 2][0]);
        snprintf(work, sizeof work, "%s/examples/smart-routing/%s", SOURCE_ROOT, deployments[i / 2][1]);
        snprintf(gate, sizeof gate, "%s/examples/smart-routing/gateway_networking.yaml", SOURCE_ROOT);
        conf_report_free(&w->rep);
        assert_int_equal(0, conf_store_load(w->store, v, 3, &w->rep));
        struct buf pods;
        buf_init(&pods, 1 << 20);
        const struct conf_workload *wl;
        uint32_t n = conf_workloads(w->store, &wl), expect = 0, made = 0;
        for (uint32_t k = 0; k < n; k++) {
            for (unsigned r = 0; r < wl[k].replicas * wl[k].group_size; r++) {
                bool leader = r % wl[k].group_size == 0;
                buf_addf(&pods, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: " STR_FMT "-%u\n  labels:\n",
                         STR_ARG(wl[k].name), r);
                uint32_t labels = leader ? wl[k].n_labels : wl[k].n_worker_labels;
                for (uint32_t x = 0; x < labels; x++) {
                    struct str key = leader ? wl[k].labels[x].key : wl[k].worker_labels[x].key,
                               value = leader ? wl[k].labels[x].value : wl[k].worker_labels[x].value;
                    buf_addf(&pods, "    " STR_FMT ": " STR_FMT "\n", STR_ARG(key), STR_ARG(value));
                }
                buf_addf(&pods, "status: {podIP: 10.0.0.%u, conditions: [{type: Ready, status: \"True\"}]}\n---\n",
                         ++made);
                expect += leader;
            }
        }
        assert_int_equal(0, conf_store_load_text(w->store, "pods", buf_str(&pods), &w->rep));
        conf_unref(w->conf);
        w->conf = conf_build(w->store, NULL, &w->rep);
        assert_int_equal(w->rep.errors + w->rep.warnings, 0);
        const struct conf_backend *b = backend_of(w->conf, "pool/default/qwen-inference-pool");
        assert_true(expect >= 2);
        assert_int_equal(b->n_endpoints, expect);
        assert_int_equal(b->sched.policy, i % 2 ? SCHED_PREFIX_CACHE : SCHED_DEFAULT);
        assert_int_equal(b->pd != NULL, i / 2 == 4);
        assert_int_equal(b->runtime, strstr(deployments[i / 2][0], "sglang") ? RUNTIME_SGLANG : RUNTIME_VLLM);
        assert_true(!b->pd || b->prefill.policy == b->sched.policy);
        buf_free(&pods);
    }
}

static void printed_forms(void **state)
{
    struct world *w = *state;
    load(w, GATEWAY POOL("q") POD("p", "q", "10.0.0.1", "True")
                MODEL("m", "null", "m", "criticality: Critical, ", "{name: t, weight: 1}")
                    ROUTE("r", "  rules: [{backendRefs: [" POOL_REF("q") "]}]\n"));
    struct buf b;
    buf_init(&b, 1 << 20);
    conf_explain(w->conf, &b);
    assert_non_null(strstr(buf_cstr(&b), "listener http port 8080 of Gateway default/g"));
    assert_non_null(strstr(buf_cstr(&b), "100.0 % -> pool/default/q (1 endpoints)"));
    assert_non_null(strstr(buf_cstr(&b), "model m (Critical) -> t 100.0 %"));
    buf_clear(&b);
    conf_json(w->conf, &b);
    assert_non_null(strstr(buf_cstr(&b),
                           "{\"name\":\"inference.networking.x-k8s.io/"
                           "routing-strategy\",\"value\":\"DEFAULT\",\"given\":\"\",\"state\":\"default\""));
    buf_free(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
    const struct CMUnitTest tests[] = {
        T(endpoints_of_pools),
        T(several_ports_and_labels),
        T(both_versions),
        T(services),
        T(unresolved_references),
        T(weights),
        T(models),
        T(timeouts),
        T(gateways),
        T(attachment),
        T(filters),
        T(references_count),
        T(examples),
        T(variants),
        T(printed_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
