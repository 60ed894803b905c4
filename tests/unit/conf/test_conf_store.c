/* Loading: validity per object across reloads, sources, lists, JSON, order, files and directories. */
#include "conf_fixture.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POOL_AT(name, port)                                                                                            \
    "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: {name: " name "}\n"            \
    "spec: {targetPortNumber: " port ", selector: {app: q}}\n---\n"

static bool has(const struct world *w, const char *key)
{
    return backend_of(w->conf, key) != NULL;
}

static uint16_t port_of(const struct world *w, const char *key)
{
    const struct conf_backend *b = backend_of(w->conf, key);
    return b && b->n_endpoints ? b->endpoints[0].port : 0;
}

static void invalid_keeps_last_good(void **state)
{
    struct world *w = *state;
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "1") POOL_AT("b", "2"));
    assert_int_equal(w->rep.errors, 0);
    assert_int_equal(port_of(w, "pool/default/a"), 1);
    /* a breaks, b changes, c is new and broken, d is new */
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "oops") POOL_AT("b", "3") POOL_AT("c", "0")
                      POOL_AT("d", "4"));
    assert_int_equal(w->rep.errors, 2);
    assert_note(w, "InferencePool default/a: its last good form stays in effect");
    assert_note(w, "InferencePool default/c: left out until it is valid");
    assert_int_equal(port_of(w, "pool/default/a"), 1);
    assert_int_equal(port_of(w, "pool/default/b"), 3);
    assert_false(has(w, "pool/default/c"));
    assert_int_equal(port_of(w, "pool/default/d"), 4);
    /* still broken: still kept; then it vanishes */
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "oops"));
    assert_int_equal(port_of(w, "pool/default/a"), 1);
    assert_false(has(w, "pool/default/b"));
    world_load(w, POOL_AT("b", "3"));
    assert_false(has(w, "pool/default/a"));
}

/* A document that cannot be parsed hides which objects it held: what the file gave before stays. The documents around
 * it count. */
static void syntax_error_in_one_document(void **state)
{
    struct world *w = *state;
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "1") POOL_AT("b", "2"));
    world_load(w, POD("p", "q", "10.0.0.1", "True") "kind: [\n---\n" POOL_AT("b", "5"));
    assert_int_equal(w->rep.errors, 1);
    assert_int_equal(port_of(w, "pool/default/a"), 1);
    assert_int_equal(port_of(w, "pool/default/b"), 5);
    world_load(w, POOL_AT("b", "5"));
    assert_false(has(w, "pool/default/a"));
}

static void twice(void **state)
{
    struct world *w = *state;
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "1") POOL_AT("a", "2"));
    assert_note(w, "is also given at t.yaml:7: the later one counts");
    assert_int_equal(port_of(w, "pool/default/a"), 2);
    world_load(w, POD("p", "q", "10.0.0.1", "True") POOL_AT("a", "3") POOL_AT("a", "x"));
    assert_int_equal(port_of(w, "pool/default/a"), 3); /* the broken one does not push out the good one */
}

static void several_sources(void **state)
{
    struct world *w = *state;
    world_load_as(w, "one", POOL_AT("a", "1") POOL_AT("b", "1"));
    world_load_as(w, "two", POD("p", "q", "10.0.0.1", "True") POOL_AT("b", "2"));
    assert_int_equal(port_of(w, "pool/default/a"), 1);
    assert_int_equal(port_of(w, "pool/default/b"), 2);
    world_load_as(w, "two", POD("p", "q", "10.0.0.1", "True"));
    assert_int_equal(port_of(w, "pool/default/b"), 1);
    world_load_as(w, "one", "");
    assert_false(has(w, "pool/default/a"));
}

static void lists_and_json(void **state)
{
    struct world *w = *state;
    world_load(
        w, "apiVersion: v1\nkind: List\nitems:\n"
           "- apiVersion: inference.networking.k8s.io/v1\n  kind: InferencePool\n  metadata: {name: a, namespace: n}\n"
           "  spec: {targetPorts: [{number: 1}], selector: {matchLabels: {a: b}}, endpointPickerRef: {name: e, port: "
           "{number: 9002}}}\n"
           "- apiVersion: inference.networking.x-k8s.io/v1alpha2\n  kind: InferencePool\n  metadata: {name: b}\n  "
           "spec: {}\n");
    assert_true(has(w, "pool/n/a"));
    assert_int_equal(w->rep.errors, 2);
    assert_note(w, "t.yaml:11: error: InferencePool default/b: spec.selector: is required");
    world_load(
        w, "{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"metadata\": {}, \"items\": [\n"
           "{\"metadata\": {\"name\": \"p\", \"namespace\": \"n\", \"labels\": {\"a\": \"b\"}, \"creationTimestamp\": "
           "null},\n"
           " \"status\": {\"podIP\": \"10.0.0.9\", \"conditions\": [{\"type\": \"Ready\", \"status\": \"True\"}]}},\n"
           "{\"metadata\": {\"name\": 3}}]}");
    assert_int_equal(w->rep.errors, 1);
    assert_note(w, "t.yaml:4: error: Pod default/: metadata.name: must be a string");
    world_load_as(w, "pool.json",
                  "{\"apiVersion\": \"inference.networking.k8s.io/v1\", \"kind\": \"InferencePool\","
                  "\"metadata\": {\"name\": \"a\", \"namespace\": \"n\"}, \"spec\": {\"targetPorts\": [{\"number\": "
                  "80}, {\"number\": 81}],"
                  "\"selector\": {\"matchLabels\": {\"a\": \"b\"}}}}");
    assert_int_equal(w->rep.errors, 0);
    assert_int_equal(backend_of(w->conf, "pool/n/a")->n_endpoints, 2);
    world_load_as(w, "pool.json", "{\"apiVersion\": ");
    assert_int_equal(w->rep.errors, 1);
    assert_true(has(w, "pool/n/a"));
}

/* A flow mapping is YAML although it begins like JSON; the file may begin with a directive or a byte order mark. */
static void yaml_that_looks_otherwise(void **state)
{
    static const char *const texts[] = {
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: \"v\"}}\n",
        "\xef\xbb\xbf{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}}",
        "%YAML 1.1\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
        "---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: a}\r\n---\r\n",
        "# only a comment\n---\n# another\n",
        "",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct world *w = *state;
        world_load(w, texts[i]);
        if (w->rep.n) {
            world_print(w);
            fail_msg("text %zu", i);
        }
    }
}

/* Every order of four documents gives the same configuration (mission B50). */
static void any_order(void **state)
{
    static const char *const docs[] = {GATEWAY, ROUTE("r", "  rules: [{backendRefs: [" POOL_REF("q") "]}]\n"),
                                       POOL("q"), POD("p", "q", "10.0.0.1", "True")};
    char first[20000] = "";
    for (int order = 0; order < 24; order++) {
        struct world *w = *state;
        char text[8192] = "";
        int left[4] = {0, 1, 2, 3}, code = order;
        for (int i = 4; i > 0; i--) {
            int k = code % i;
            code /= i;
            strcat(text, docs[left[k]]);
            memmove(left + k, left + k + 1, (size_t)(i - k - 1) * sizeof *left);
        }
        world_load(w, text);
        assert_int_equal(w->rep.n, 0);
        struct buf b;
        buf_init(&b, 20000 - 1);
        conf_explain(w->conf, &b);
        const char *got = buf_cstr(&b);
        size_t n = (size_t)(strstr(got, "t.yaml") - got); /* the line of the pool follows, which differs */
        if (order == 0)
            memcpy(first, got, n);
        else
            assert_memory_equal(first, got, n);
        assert_int_equal(backend_of(w->conf, "pool/default/q")->n_endpoints, 1);
        buf_free(&b);
    }
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void drop(const char *dir, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(0, remove(path));
}

static void reload(struct world *w, const char *path)
{
    conf_report_free(&w->rep);
    assert_int_equal(0, conf_store_load(w->store, &path, 1, &w->rep));
    struct conf *c = conf_build(w->store, w->conf, &w->rep);
    conf_unref(w->conf);
    w->conf = c;
}

static void directories(void **state)
{
    struct world *w = *state;
    char dir[] = "/tmp/conf_store_XXXXXX";
    const char *path = dir;
    assert_non_null(mkdtemp(dir));
    put(dir, "a.yaml", POOL_AT("a", "1"));
    put(dir, "b.yml", POOL_AT("b", "1"));
    put(dir, ".hidden.yaml", POOL_AT("h", "1"));
    put(dir, "notes.txt", "not: [yaml");
    char sub[600];
    snprintf(sub, sizeof sub, "%s/sub", dir);
    assert_int_equal(0, mkdir(sub, 0700));
    put(sub, "c.json",
        "{\"apiVersion\":\"inference.networking.x-k8s.io/"
        "v1alpha2\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"c\"},"
        "\"spec\":{\"targetPortNumber\":1,\"selector\":{\"a\":\"b\"}}}");
    uint64_t stamp = conf_paths_stamp(&path, 1);
    reload(w, dir);
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(w->conf->n_backends, 3);
    assert_true(conf_paths_stamp(&path, 1) == stamp);
    /* one file breaks, another goes */
    put(dir, "a.yaml", "kind: [");
    drop(dir, "b.yml");
    assert_true(conf_paths_stamp(&path, 1) != stamp);
    reload(w, dir);
    assert_int_equal(w->rep.errors, 1);
    assert_true(has(w, "pool/default/a"));
    assert_false(has(w, "pool/default/b"));
    assert_true(has(w, "pool/default/c"));
    drop(dir, "a.yaml");
    reload(w, dir);
    assert_false(has(w, "pool/default/a"));
    /* a path that is not there: nothing changes */
    drop(sub, "c.json");
    const char *two[] = {dir, "/nonexistent/x.yaml"};
    conf_report_free(&w->rep);
    assert_int_equal(-1, conf_store_load(w->store, two, 2, &w->rep));
    assert_note(w, "/nonexistent/x.yaml: error: cannot be read");
    assert_true(has(w, "pool/default/c"));
    drop(dir, ".hidden.yaml");
    drop(dir, "notes.txt");
    assert_int_equal(0, rmdir(sub));
    assert_int_equal(0, rmdir(dir));
}

static void workloads(void **state)
{
    struct world *w = *state;
    const struct conf_workload *v;
    world_load(
        w, "apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata: {name: l, namespace: n}\n"
           "spec:\n  replicas: 2\n  leaderWorkerTemplate:\n    size: 3\n"
           "    leaderTemplate: {metadata: {labels: {role: leader}}, spec: {containers: [{name: side, image: x}, "
           "{name: m, image: x, command: [sh, -c, vllm serve m], ports: [{containerPort: 9000}]}]}}\n"
           "    workerTemplate: {metadata: {labels: {role: worker}}, spec: {containers: [{name: m, image: x}]}}\n---\n"
           "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {metadata: {annotations: {k: "
           "v}}, "
           "spec: {containers: [{name: m, image: vllm/vllm-openai, args: [--model, q]}]}}}\n---\n"
           "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: m, image: x, command: "
           "[sleep]}]}\n---\n" POD("live", "q", "10.0.0.1", "True"));
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(conf_workloads(w->store, &v), 3);
    assert_str(v[0].name, "p");
    const struct conf_workload *d = &v[1], *l = &v[2];
    assert_str(l->kind, "LeaderWorkerSet");
    assert_str(l->ns, "n");
    assert_int_equal(l->replicas, 2);
    assert_int_equal(l->group_size, 3);
    assert_str(l->labels[0].value, "leader");
    assert_str(l->worker_labels[0].value, "worker");
    assert_str(l->container, "m");
    assert_int_equal(l->container_port, 9000);
    assert_int_equal(l->n_argv, 3);
    assert_int_equal(d->replicas, 1);
    assert_int_equal(d->n_argv, 4);
    assert_str(d->argv[0], "vllm");
    assert_str(d->argv[3], "q");
    assert_str(d->annotations[0].value, "v");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(invalid_keeps_last_good, world_up, world_down),
        cmocka_unit_test_setup_teardown(syntax_error_in_one_document, world_up, world_down),
        cmocka_unit_test_setup_teardown(twice, world_up, world_down),
        cmocka_unit_test_setup_teardown(several_sources, world_up, world_down),
        cmocka_unit_test_setup_teardown(lists_and_json, world_up, world_down),
        cmocka_unit_test_setup_teardown(yaml_that_looks_otherwise, world_up, world_down),
        cmocka_unit_test_setup_teardown(any_order, world_up, world_down),
        cmocka_unit_test_setup_teardown(directories, world_up, world_down),
        cmocka_unit_test_setup_teardown(workloads, world_up, world_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
