/* What InferenceModels, InferenceObjectives and InferenceModelRewrites give to their pools: who wins, what is drawn,
 * what a reload changes (gie-protocol 1.2, 1.6, 1.7; ack 2.3). */
#include "conf_fixture.h"
#include "base/buf.h"

#define HEAD(kind, name)            "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: " kind "\nmetadata: {name: " name
#define MODEL(name, more, spec)     HEAD("InferenceModel", name) more "}\nspec: {poolRef: {name: q}, " spec "}\n---\n"
#define OBJECTIVE(name, more, spec) HEAD("InferenceObjective", name) more "}\nspec: {poolRef: {name: q}" spec "}\n---\n"
#define REWRITE(name, more, rules)                                                                                     \
    HEAD("InferenceModelRewrite", name) more "}\nspec: {poolRef: {name: q}, rules: [" rules "]}\n---\n"
#define POOL_V1(name)                                                                                                  \
    "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: " name "}\n"                    \
    "spec: {targetPorts: [{number: 8000}], selector: {matchLabels: {app: q}}}\n---\n"
#define OLD   ", creationTimestamp: \"2025-01-01T00:00:00Z\""
#define YOUNG ", creationTimestamp: \"2026-01-01T00:00:00Z\""

static const struct conf_backend *load(struct world *w, const char *text)
{
    struct conf *c = world_load(w, text);
    if (w->rep.errors)
        world_print(w);
    assert_int_equal(w->rep.errors, 0);
    return backend_of(c, "pool/default/q");
}

/* --- InferenceModel --- */

static void models(void **state)
{
    static const struct {
        const char *spec;
        int priority;
        enum sched_criticality label;
    } rows[] = {{"modelName: m", 0, CRIT_STANDARD},
                {"modelName: m, criticality: Critical", 1, CRIT_CRITICAL},
                {"modelName: m, criticality: Standard", 0, CRIT_STANDARD},
                {"modelName: m, criticality: Sheddable", -1, CRIT_SHEDDABLE}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[1000];
        snprintf(text, sizeof text, POOL("q") MODEL("a", "", "%s"), rows[i].spec);
        const struct conf_model *m = conf_find_model(load(w, text), STR("m"));
        assert_int_equal(w->rep.n, 0);
        assert_int_equal(m->priority, rows[i].priority);
        assert_int_equal(m->criticality, rows[i].label);
    }
}

static unsigned share_of(const struct conf_model *m, const char *name)
{
    unsigned n = 0;
    for (int i = 0; i < 1000; i++)
        n += str_eq_c(conf_draw_target(m, i / 1000.0), name);
    return n;
}

/* Mission X5: a canary of adapter versions by weights. */
static void targets(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b = load(
        w, POOL("q") MODEL("a", "", "modelName: m, targetModels: [{name: v1, weight: 80}, {name: v2, weight: 20}]")
               MODEL("b", "", "modelName: n, targetModels: [{name: x}, {name: y}, {name: z}, {name: u}]")
                   MODEL("c", "", "modelName: o, targetModels: [{name: x, weight: 1000000}, {name: y, weight: 1}]"));
    const struct conf_model *m = conf_find_model(b, STR("m"));
    assert_int_equal(share_of(m, "v1"), 800);
    assert_int_equal(share_of(m, "v2"), 200);
    m = conf_find_model(b, STR("n"));
    assert_int_equal(share_of(m, "x"), 250);
    assert_int_equal(share_of(m, "u"), 250);
    m = conf_find_model(b, STR("o"));
    assert_str(conf_draw_target(m, 0.9999999999), "y");
    assert_int_equal(share_of(m, "x"), 1000);
}

static void assert_winner(struct world *w, const char *model, const char *object)
{
    const struct conf_model *m = conf_find_model(backend_of(w->conf, "pool/default/q"), str_c(model));
    assert_non_null(m);
    assert_str(m->name, object);
}

/* The oldest object of a name wins; an update of it replaces it; when it goes the next-oldest takes its place. */
static void duplicate_models(void **state)
{
    struct world *w = *state;
#define WINNER  MODEL("zz", OLD, "modelName: m, criticality: Critical")
#define SECOND  MODEL("mm", YOUNG, "modelName: m, criticality: Standard")
#define UNDATED MODEL("aa", "", "modelName: m, criticality: Sheddable")
    load(w, POOL("q") UNDATED SECOND WINNER);
    assert_winner(w, "m", "zz");
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w,
                "InferenceModel default/mm: spec.modelName: \"m\" belongs to the older InferenceModel zz of this pool");
    assert_note(w,
                "InferenceModel default/aa: spec.modelName: \"m\" belongs to the older InferenceModel zz of this pool");
    const struct conf_backend *b =
        load(w, POOL("q") UNDATED SECOND MODEL("zz", OLD, "modelName: m, criticality: Sheddable"));
    assert_winner(w, "m", "zz");
    assert_int_equal(conf_find_model(b, STR("m"))->priority, -1);
    b = load(w, POOL("q") UNDATED SECOND);
    assert_winner(w, "m", "mm");
    assert_int_equal(conf_find_model(b, STR("m"))->priority, 0);
    load(w, POOL("q") UNDATED);
    assert_winner(w, "m", "aa");
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(load(w, POOL("q"))->n_models, 0);
}

/* The same name in two pools is no duplicate. */
static void models_of_two_pools(void **state)
{
    struct world *w = *state;
    load(w, POOL("q") POOL("p") MODEL("a", "", "modelName: m")
                HEAD("InferenceModel", "b") "}\nspec: {poolRef: {name: p}, modelName: m, criticality: Critical}\n");
    assert_int_equal(w->rep.n, 0);
    assert_winner(w, "m", "a");
    assert_str(conf_find_model(backend_of(w->conf, "pool/default/p"), STR("m"))->name, "b");
}

static void model_name_changes(void **state)
{
    struct world *w = *state;
    load(w, POOL("q") MODEL("a", "", "modelName: m"));
    const struct conf_backend *b = load(w, POOL("q") MODEL("a", "", "modelName: n"));
    assert_int_equal(w->rep.warnings, 1);
    assert_note(
        w, "t.yaml:9: warning: InferenceModel default/a: spec.modelName: changed from \"m\": Kubernetes refuses this");
    assert_null(conf_find_model(b, STR("m")));
    assert_winner(w, "n", "a");
    load(w, POOL("q") MODEL("a", "", "modelName: n"));
    assert_int_equal(w->rep.n, 0);
}

/* --- InferenceObjective --- */

static void objectives(void **state)
{
    static const struct {
        const char *spec;
        int priority;
        unsigned warnings;
    } rows[] = {{"", 0, 0},
                {", priority: 7", 7, 0},
                {", priority: -3", -3, 0},
                {", priority: -2147483648", INT32_MIN, 0},
                {", priority: 2147483647", INT32_MAX, 0},
                {", priority: null, criticality: Critical", 1, 0},
                {", criticality: Standard", 0, 0},
                {", criticality: Sheddable", -1, 0},
                {", criticality: Sheddable, priority: 5", 5, 1}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[1000];
        snprintf(text, sizeof text, POOL_V1("q") OBJECTIVE("b", "", "%s") OBJECTIVE("a", "", "") OBJECTIVE("c", "", ""),
                 rows[i].spec);
        const struct conf_backend *b = load(w, text);
        assert_int_equal(w->rep.warnings, rows[i].warnings);
        assert_int_equal(w->rep.n, rows[i].warnings);
        assert_int_equal(b->n_objectives, 3);
        assert_int_equal(b->n_models, 0);
        const struct conf_objective *o = conf_find_objective(b, STR("b"));
        assert_str(o->name, "b");
        assert_int_equal(o->priority, rows[i].priority);
        assert_non_null(conf_find_objective(b, STR("a")));
        assert_non_null(conf_find_objective(b, STR("c")));
        assert_null(conf_find_objective(b, STR("bb")));
        assert_null(conf_find_objective(b, STR("")));
    }
}

/* Which pool of the name is meant. A rewrite finds its pool by the same rule. */
static void pools_of_objects(void **state)
{
    static const struct {
        const char *pools, *ref;
        const char *key; /* NULL: none */
        const char *says;
    } rows[] = {
        {POOL_V1("q"), "name: q", "pool/default/q", NULL},
        {POOL("q"), "name: q", "pool/default/q",
         "info: InferenceObjective default/o: spec.poolRef: there is no InferencePool "
         "default/q of group inference.networking.k8s.io: the one of group "
         "inference.networking.x-k8s.io is meant"},
        {POOL("q") POOL_V1("q"), "name: q", "pool.v1/default/q", NULL},
        {POOL("q") POOL_V1("q"), "name: q, group: inference.networking.x-k8s.io", "pool/default/q", NULL},
        {POOL("q"), "name: q, group: inference.networking.x-k8s.io, kind: InferencePool", "pool/default/q", NULL},
        {POOL("q"), "name: q, group: inference.networking.k8s.io", NULL,
         "warning: InferenceObjective default/o: spec.poolRef: there is no InferencePool default/q of group "
         "inference.networking.k8s.io"},
        {POOL_V1("q"), "name: q, group: inference.networking.x-k8s.io", NULL,
         "there is no InferencePool default/q of group inference.networking.x-k8s.io"},
        {POOL_V1("q"), "name: q, group: apps", NULL, "there is no InferencePool default/q of group apps"},
        {POOL_V1("q"), "name: q, group: \"\"", NULL, "there is no InferencePool default/q of group "},
        {POOL_V1("q"), "name: other", NULL, "there is no InferencePool default/other"},
        {"", "name: q", NULL, "there is no InferencePool default/q"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[2000];
        snprintf(text, sizeof text,
                 "%s" HEAD("InferenceObjective", "o") "}\nspec: {priority: 1, poolRef: {%s}}\n---\n" HEAD(
                     "InferenceModelRewrite",
                     "r") "}\nspec: {poolRef: {%s}, rules: [{targets: [{modelRewrite: t}]}]}\n---\n",
                 rows[i].pools, rows[i].ref, rows[i].ref);
        load(w, text);
        for (uint32_t k = 0; k < w->conf->n_backends; k++) {
            const struct conf_backend *b = &w->conf->backends[k];
            bool meant = rows[i].key && str_eq_c(b->key, rows[i].key);
            assert_int_equal(b->n_objectives, meant);
            assert_int_equal(b->n_rewrites, meant);
        }
        if (rows[i].key)
            assert_non_null(backend_of(w->conf, rows[i].key));
        assert_int_equal(w->rep.n, rows[i].says ? 2 : 0);
        assert_int_equal(w->rep.warnings, rows[i].key ? 0 : 2);
        if (rows[i].says)
            assert_note(w, rows[i].says);
    }
}

static void objects_of_another_namespace(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b = load(w, POOL_V1("q") OBJECTIVE("o", ", namespace: n", ", modelName: m")
                                               REWRITE("r", ", namespace: n", "{targets: [{modelRewrite: t}]}"));
    assert_int_equal(b->n_objectives + b->n_rewrites + b->n_models, 0);
    assert_int_equal(w->rep.warnings, 2);
    assert_note(w, "InferenceObjective n/o: spec.poolRef: there is no InferencePool n/q");
}

/* An objective with the name of a model speaks for that model, unless an InferenceModel does. */
static void objectives_of_models(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b = load(w, POOL_V1("q") OBJECTIVE("gold", "", ", modelName: m, priority: 10")
                                               OBJECTIVE("bulk", "", ", modelName: n, criticality: Sheddable")
                                                   OBJECTIVE("plain", "", ", modelName: o"));
    assert_int_equal(w->rep.n, 0);
    assert_int_equal(b->n_objectives, 3);
    assert_int_equal(b->n_models, 3);
    const struct conf_model *m = conf_find_model(b, STR("m"));
    assert_int_equal(m->priority, 10);
    assert_int_equal(m->criticality, CRIT_CRITICAL);
    assert_str(m->name, "gold");
    assert_str(conf_draw_target(m, 0.5), "m");
    m = conf_find_model(b, STR("n"));
    assert_int_equal(m->priority, -1);
    assert_int_equal(m->criticality, CRIT_SHEDDABLE);
    assert_int_equal(conf_find_model(b, STR("o"))->priority, 0);

#define GOLD OBJECTIVE("gold", OLD, ", modelName: m, priority: 10")
#define BASE MODEL("zz", YOUNG, "modelName: m, criticality: Sheddable, targetModels: [{name: t}]")
    b = load(w, POOL("q") GOLD BASE);
    m = conf_find_model(b, STR("m"));
    assert_str(m->name, "zz");
    assert_int_equal(m->priority, -1);
    assert_str(conf_draw_target(m, 0.5), "t");
    assert_int_equal(b->n_models, 1);
    assert_int_equal(conf_find_objective(b, STR("gold"))->priority, 10); /* by its header it still counts */
    assert_int_equal(w->rep.warnings, 1);
    assert_note(w,
                "InferenceObjective default/gold: spec.modelName: \"m\" belongs to the InferenceModel zz of this pool, "
                "which comes before an InferenceObjective");
    b = load(w, POOL("q") GOLD);
    assert_str(conf_find_model(b, STR("m"))->name, "gold");

    load(w, POOL_V1("q") OBJECTIVE("a", YOUNG, ", modelName: m, priority: 1") GOLD);
    assert_winner(w, "m", "gold");
    assert_note(w, "InferenceObjective default/a: spec.modelName: \"m\" belongs to the older InferenceObjective gold");
}

/* --- InferenceModelRewrite --- */

#define TO(name)           "targets: [{modelRewrite: " name "}]"
#define FOR(model, target) "{matches: [{model: {value: " model "}}], " TO(target) "}"

static void rewrites(void **state)
{
    static const struct {
        const char *objects, *model, *target; /* target NULL: no rewrite */
        unsigned warnings;
        const char *says;
    } rows[] = {
        {"", "m", NULL, 0, NULL},
        {REWRITE("a", "", FOR("m", "x")), "m", "x", 0, NULL},
        {REWRITE("a", "", FOR("m", "x")), "mm", NULL, 0, NULL},
        {REWRITE("a", "", FOR("m", "x")), "", NULL, 0, NULL},
        {REWRITE("a", "", "{" TO("x") "}"), "anything", "x", 0, NULL},
        {REWRITE("a", "", "{matches: [], " TO("x") "}"), "anything", "x", 0, NULL},
        {REWRITE("a", "", "{matches: [{}], " TO("x") "}"), "anything", "x", 0, NULL},
        {REWRITE("a", "", "{matches: [{model: {type: Exact, value: m}}, {model: {value: n}}], " TO("x") "}"), "n", "x",
         0, NULL},
        /* exact before any, whoever is older and whatever comes first */
        {REWRITE("a", OLD, "{" TO("any") "}") REWRITE("b", YOUNG, FOR("m", "exact")), "m", "exact", 0, NULL},
        {REWRITE("a", OLD, "{" TO("any") "}") REWRITE("b", YOUNG, FOR("m", "exact")), "o", "any", 0, NULL},
        {REWRITE("a", "", "{" TO("any") "}, " FOR("m", "exact")), "m", "exact", 0, NULL},
        /* the oldest object */
        {REWRITE("a", YOUNG, FOR("m", "young")) REWRITE("b", OLD, FOR("m", "old")), "m", "old", 1,
         "InferenceModelRewrite default/a: spec.rules[0]: has no effect for \"m\": it belongs to the older "
         "InferenceModelRewrite b of this pool"},
        {REWRITE("a", "", "{" TO("undated") "}") REWRITE("b", OLD, "{" TO("old") "}"), "m", "old", 1,
         "InferenceModelRewrite default/a: spec.rules[0]: has no effect for any model: it belongs to the older "
         "InferenceModelRewrite b"},
        {REWRITE("a", YOUNG, FOR("n", "y") ", " FOR("m", "y")) REWRITE("b", OLD, FOR("m", "old")), "n", "y", 1,
         "InferenceModelRewrite default/a: spec.rules[1]: has no effect for \"m\""},
        /* the first rule of the winner */
        {REWRITE("a", "", FOR("m", "first") ", " FOR("m", "second")), "m", "first", 1,
         "spec.rules[1]: has no effect for \"m\": rules[0] is the first for it"},
        {REWRITE("a", "", "{matches: [{model: {value: m}}, {model: {value: m}}], " TO("x") "}"), "m", "x", 0, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world *w = *state;
        char text[3000];
        snprintf(text, sizeof text, "%s%s", POOL_V1("q"), rows[i].objects);
        const struct conf_backend *b = load(w, text);
        const struct conf_model_rewrite *r = conf_find_rewrite(b, str_c(rows[i].model));
        assert_int_equal(w->rep.n, rows[i].warnings);
        assert_int_equal(w->rep.warnings, rows[i].warnings);
        if (rows[i].says)
            assert_note(w, rows[i].says);
        assert_int_equal(r != NULL, rows[i].target != NULL);
        if (r)
            assert_str(conf_draw_rewrite(r, 0.5), rows[i].target);
    }
}

static unsigned rewritten_to(const struct conf_model_rewrite *r, const char *name)
{
    unsigned n = 0;
    for (int i = 0; i < 1000; i++)
        n += str_eq_c(conf_draw_rewrite(r, i / 1000.0), name);
    return n;
}

/* Without weights evenly; with weights by them; who has none beside others that do is never chosen. */
static void rewrite_weights(void **state)
{
    struct world *w = *state;
    const struct conf_backend *b =
        load(w, POOL_V1("q") REWRITE(
                    "a", "",
                    "{matches: [{model: {value: even}}], targets: [{modelRewrite: x}, {modelRewrite: y}]}, "
                    "{matches: [{model: {value: uneven}}], targets: [{modelRewrite: x, weight: 900}, {modelRewrite: y, "
                    "weight: 100}]}, "
                    "{matches: [{model: {value: mixed}}], targets: [{modelRewrite: x}, {modelRewrite: y, weight: 3}, "
                    "{modelRewrite: z}]}"));
    const struct conf_model_rewrite *r = conf_find_rewrite(b, STR("even"));
    assert_int_equal(rewritten_to(r, "x"), 500);
    assert_str(conf_draw_rewrite(r, 0.9999999999), "y");
    r = conf_find_rewrite(b, STR("uneven"));
    assert_int_equal(rewritten_to(r, "x"), 900);
    assert_int_equal(rewritten_to(r, "y"), 100);
    assert_str(r->object, "a");
    r = conf_find_rewrite(b, STR("mixed"));
    assert_int_equal(rewritten_to(r, "y"), 1000);
    assert_int_equal(w->rep.warnings, 1);
    assert_note(w, "spec.rules[2]: targets: some have a weight and some have none: those without are never chosen");
}

/* --- reload --- */

/* Objects that turn invalid stay as they were, and what is new takes effect around them. */
static void last_good_objects(void **state)
{
    struct world *w = *state;
    load(w, POOL_V1("q") OBJECTIVE("o", "", ", priority: 5, modelName: m") REWRITE("r", "", FOR("m", "x")));
    world_load(w, POOL_V1("q") OBJECTIVE("o", "", ", priority: high")
                      REWRITE("r", "", "{matches: [{model: {value: m}}]}") OBJECTIVE("p", "", ", priority: 6"));
    assert_int_equal(w->rep.errors, 2);
    assert_note(w, "its last good form stays in effect");
    const struct conf_backend *b = backend_of(w->conf, "pool/default/q");
    assert_int_equal(conf_find_objective(b, STR("o"))->priority, 5);
    assert_int_equal(conf_find_objective(b, STR("p"))->priority, 6);
    assert_int_equal(conf_find_model(b, STR("m"))->priority, 5);
    assert_str(conf_draw_rewrite(conf_find_rewrite(b, STR("m")), 0), "x");
    b = load(w, POOL_V1("q") OBJECTIVE("o", "", ", priority: -5") REWRITE("r", "", FOR("m", "y")));
    assert_int_equal(conf_find_objective(b, STR("o"))->priority, -5);
    assert_null(conf_find_objective(b, STR("p")));
    assert_int_equal(b->n_models, 0);
    assert_str(conf_draw_rewrite(conf_find_rewrite(b, STR("m")), 0), "y");
    b = load(w, POOL_V1("q"));
    assert_int_equal(b->n_objectives + b->n_rewrites + b->n_models, 0);
}

static void many_pools(void **state)
{
    struct world *w = *state;
    struct buf t;
    buf_init(&t, 4 << 20);
    for (int i = 0; i < 50; i++) {
        buf_addf(&t, POOL("q%d"), i, i);
        for (int k = 0; k < 20; k++)
            buf_addf(&t,
                     HEAD("InferenceModel", "m%d-%d") "}\nspec: {poolRef: {name: q%d}, modelName: m%d}\n---\n" HEAD(
                         "InferenceObjective", "o%d-%d") "}\nspec: {poolRef: {name: q%d}, priority: %d}\n---\n",
                     k, i, i, k, k, i, i, i * 100 + k);
    }
    struct conf *c = world_load(w, buf_cstr(&t));
    assert_int_equal(w->rep.warnings, 0);
    assert_int_equal(c->n_backends, 50);
    for (int i = 0; i < 50; i++) {
        char key[40], model[20], name[20];
        snprintf(key, sizeof key, "pool/default/q%d", i);
        const struct conf_backend *b = backend_of(c, key);
        assert_int_equal(b->n_models, 20);
        assert_int_equal(b->n_objectives, 20);
        for (int k = 0; k < 20; k++) {
            snprintf(model, sizeof model, "m%d", k);
            snprintf(name, sizeof name, "o%d-%d", k, i);
            assert_int_equal(conf_find_objective(b, str_c(name))->priority, i * 100 + k);
            snprintf(name, sizeof name, "m%d-%d", k, i);
            assert_str(conf_find_model(b, str_c(model))->name, name);
        }
    }
    buf_free(&t);
}

static void printed_forms(void **state)
{
    struct world *w = *state;
    load(w,
         POOL_V1("q") OBJECTIVE("gold", "", ", priority: 10, modelName: m") OBJECTIVE("bulk", "", ", priority: -2")
             REWRITE(
                 "r", "",
                 "{targets: [{modelRewrite: d}]}, {matches: [{model: {value: m}}], targets: [{modelRewrite: x, weight: "
                 "3}, {modelRewrite: y, weight: 1}]}"));
    struct buf b;
    buf_init(&b, 1 << 20);
    conf_explain(w->conf, &b);
    assert_non_null(strstr(buf_cstr(&b), "    model m (Critical, priority 10)\n"));
    assert_non_null(strstr(buf_cstr(&b), "    objective bulk (priority -2)\n    objective gold (priority 10)\n"
                                         "    rewrites model m -> x 75.0 %, y 25.0 % (InferenceModelRewrite r)\n"
                                         "    rewrites every other model -> d 100.0 % (InferenceModelRewrite r)\n"));
    buf_clear(&b);
    conf_json(w->conf, &b);
    assert_non_null(strstr(buf_cstr(&b),
                           "{\"object\":\"gold\",\"model_name\":\"m\",\"criticality\":\"Critical\",\"priority\":10,"
                           "\"target_models\":[]}"));
    assert_non_null(strstr(buf_cstr(&b),
                           "\"objectives\":[{\"name\":\"bulk\",\"priority\":-2},{\"name\":\"gold\",\"priority\":10}]"));
    assert_non_null(strstr(
        buf_cstr(&b), "\"rewrites\":[{\"object\":\"r\",\"model\":null,\"targets\":[{\"name\":\"d\",\"weight\":0}]},"
                      "{\"object\":\"r\",\"model\":\"m\",\"targets\":[{\"name\":\"x\",\"weight\":3},"));
    assert_non_null(strstr(buf_cstr(&b), "\"trust\":[\"objective\",\"fairness\",\"ttl\"]"));
    buf_free(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
    const struct CMUnitTest tests[] = {
        T(models),
        T(targets),
        T(duplicate_models),
        T(models_of_two_pools),
        T(model_name_changes),
        T(objectives),
        T(pools_of_objects),
        T(objects_of_another_namespace),
        T(objectives_of_models),
        T(rewrites),
        T(rewrite_weights),
        T(last_good_objects),
        T(many_pools),
        T(printed_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
