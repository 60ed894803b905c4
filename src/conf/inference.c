/* conf/inference.c - the kinds of the inference extension: InferencePool (v1alpha2 and v1), InferenceModel,
 * InferenceObjective, InferenceModelRewrite. */
#include "conf/object.h"

/* InferencePool. Both versions fill struct pool_spec; the pieces of v1 that are nested deeper are flattened here. */
static const struct fields extension_fields = {
    .v = (const struct field[]){FIELD("group", F_STR, ref, group, .max = 253),
                                FIELD("kind", F_STR, ref, kind, .max = 63),
                                FIELD("name", F_STR, ref, name, .flags = F_REQUIRED, .min = 1, .max = 253),
                                FIELD("portNumber", F_INT, ref, port, .min = 1, .max = 65535),
                                FIELD_SKIP("failureMode"), FIELD_END},
    .size = sizeof(struct ref)};

static void one_port(struct dec *d, const struct doc *v, void *out)
{
    struct pool_spec *s = out;
    if (v->kind != DOC_INT)
        return dec_error(d, v, "must be an integer, is %s", doc_kind_name(v->kind));
    if (v->integer < 1 || v->integer > 65535)
        return dec_error(d, v, "%lld is not in 1 to 65535", (long long)v->integer);
    s->ports.v = arena_zalloc(d->arena, sizeof *s->ports.v);
    s->ports.v[0].number = v->integer;
    s->ports.n = 1;
}

static const struct fields pool_x_spec_fields = {
    .v = (const struct field[]){{.name = "targetPortNumber", .kind = F_FN, .flags = F_REQUIRED, .fn = one_port},
                                FIELD("selector", F_MAP, pool_spec, selector, .flags = F_REQUIRED | F_NONEMPTY,
                                      .max = 64),
                                FIELD("extensionRef", F_OBJ, pool_spec, extension, .sub = &extension_fields),
                                FIELD_END},
    .size = sizeof(struct pool_spec)};

static const struct fields selector_fields = {
    .v =
        (const struct field[]){
            FIELD("matchLabels", F_MAP, pool_selector, labels, .flags = F_REQUIRED | F_NONEMPTY, .max = 64), FIELD_END},
    .size = sizeof(struct pool_selector)};

static void v1_selector(struct dec *d, const struct doc *v, void *out)
{
    struct pool_selector s = {0};
    dec_fields(d, v, &selector_fields, &s);
    *(struct kvs *)out = s.labels;
}

static void unique_ports(struct dec *d, const struct doc *v, void *out)
{
    struct pool_spec *s = out;
    for (uint32_t i = 0; i < s->ports.n; i++)
        for (uint32_t k = 0; k < i; k++)
            if (s->ports.v[i].number == s->ports.v[k].number)
                return dec_error(d, v, "targetPorts: port %lld is given twice", (long long)s->ports.v[i].number);
}

static const struct fields port_fields = {
    .v = (const struct field[]){FIELD("number", F_INT, pool_port, number, .flags = F_REQUIRED, .min = 1, .max = 65535),
                                FIELD_END},
    .size = sizeof(struct pool_port)};
static const struct fields picker_port_fields = {
    .v = (const struct field[]){FIELD("number", F_INT, pool_port, number, .flags = F_REQUIRED, .min = 1, .max = 65535),
                                FIELD_END},
    .size = sizeof(struct pool_port)};

static void picker_port(struct dec *d, const struct doc *v, void *out)
{
    struct pool_port p;
    dec_fields(d, v, &picker_port_fields, &p);
    *(int64_t *)out = p.number;
}

static const struct fields picker_fields = {
    .v =
        (const struct field[]){FIELD("group", F_STR, ref, group, .max = 253),
                               FIELD("kind", F_STR, ref, kind, .max = 63),
                               FIELD("name", F_STR, ref, name, .flags = F_REQUIRED, .min = 1, .max = 253),
                               FIELD("port", F_FN, ref, port, .fn = picker_port), FIELD_SKIP("failureMode"), FIELD_END},
    .size = sizeof(struct ref)};
#define MAX_PORTS 1000 /* Kubernetes admits 8; `penstock gateway --endpoint` lists every port of its servers here */
static const struct fields pool_v1_spec_fields = {
    .v = (const struct field[]){FIELD("selector", F_FN, pool_spec, selector, .flags = F_REQUIRED, .fn = v1_selector),
                                FIELD("targetPorts", F_LIST, pool_spec, ports, .flags = F_REQUIRED | F_NONEMPTY,
                                      .max = MAX_PORTS, .sub = &port_fields),
                                FIELD("endpointPickerRef", F_OBJ, pool_spec, extension, .sub = &picker_fields),
                                FIELD_LATER("appProtocol"), FIELD_END},
    .size = sizeof(struct pool_spec),
    .check = unique_ports};

static void x_spec(struct dec *d, const struct doc *v, void *out)
{
    dec_fields(d, v, &pool_x_spec_fields, out);
}
static void v1_spec(struct dec *d, const struct doc *v, void *out)
{
    dec_fields(d, v, &pool_v1_spec_fields, out);
}
const struct fields pool_x_fields = {
    .v = (const struct field[]){FIELD_SKIP_META, FIELD("spec", F_FN, pool, spec, .flags = F_REQUIRED, .fn = x_spec),
                                FIELD_END},
    .size = sizeof(struct pool)};
const struct fields pool_v1_fields = {
    .v = (const struct field[]){FIELD_SKIP_META, FIELD("spec", F_FN, pool, spec, .flags = F_REQUIRED, .fn = v1_spec),
                                FIELD_END},
    .size = sizeof(struct pool)};

/* InferenceModel */
static const struct fields target_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, target_model, name, .flags = F_REQUIRED, .min = 1, .max = 253),
                                FIELD("weight", F_INT, target_model, weight, .min = 1, .max = 1000000), FIELD_END},
    .size = sizeof(struct target_model)};

/* Weights for some of the targets only. */
static bool half_weighted(const struct target_model *v, uint32_t n)
{
    uint32_t weighted = 0;
    for (uint32_t i = 0; i < n; i++)
        weighted += v[i].weight > 0;
    return weighted && weighted < n;
}

static void check_model(struct dec *d, const struct doc *map, void *out)
{
    struct model_spec *s = out;
    if (half_weighted(s->targets.v, s->targets.n))
        dec_error(d, doc_get(map, "targetModels"),
                  "targetModels: weights should be set for all models, or none of the models");
}

static const char *const criticality_words[] = {"Standard", "Critical", "Sheddable", NULL};
static const struct fields model_spec_fields = {
    .v =
        (const struct field[]){
            FIELD("modelName", F_STR, model_spec, model_name, .flags = F_REQUIRED, .min = 1, .max = 256),
            FIELD("criticality", F_ENUM, model_spec, criticality, .words = criticality_words),
            FIELD("poolRef", F_OBJ, model_spec, pool, .flags = F_REQUIRED, .sub = &pool_ref_fields),
            FIELD("targetModels", F_LIST, model_spec, targets, .max = 10, .sub = &target_fields), FIELD_END},
    .size = sizeof(struct model_spec),
    .check = check_model};
const struct fields model_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, model, spec, .flags = F_REQUIRED, .sub = &model_spec_fields),
                                FIELD_END},
    .size = sizeof(struct model)};

/* InferenceObjective. The upstream type has the priority alone; the product also describes it with the name of a model
 * and a criticality (ack 2.3, 5.11). */
static void check_objective(struct dec *d, const struct doc *map, void *out)
{
    struct objective_spec *s = out;
    s->has_priority = doc_get(map, "priority") != NULL;
    s->has_criticality = doc_get(map, "criticality") != NULL;
    if (s->has_priority && s->has_criticality)
        dec_warn(d, doc_get(map, "criticality"), "criticality: priority is given as well and counts alone");
}

static const struct fields objective_spec_fields = {
    .v =
        (const struct field[]){
            FIELD("priority", F_INT, objective_spec, priority, .min = INT32_MIN, .max = INT32_MAX),
            FIELD("criticality", F_ENUM, objective_spec, criticality, .words = criticality_words),
            FIELD("modelName", F_STR, objective_spec, model_name, .min = 1, .max = 256),
            FIELD("poolRef", F_OBJ, objective_spec, pool, .flags = F_REQUIRED, .sub = &pool_ref_fields), FIELD_END},
    .size = sizeof(struct objective_spec),
    .check = check_objective};
const struct fields objective_fields = {
    .v =
        (const struct field[]){
            FIELD_SKIP_META, FIELD("spec", F_OBJ, objective, spec, .flags = F_REQUIRED, .sub = &objective_spec_fields),
            FIELD_END},
    .size = sizeof(struct objective)};

/* InferenceModelRewrite */
static const char *const model_match_words[] = {"Exact", NULL};
static const struct fields model_value_fields = {
    .v = (const struct field[]){FIELD("type", F_ENUM, model_value, type, .words = model_match_words),
                                FIELD("value", F_STR, model_value, value, .flags = F_REQUIRED, .min = 1, .max = 256),
                                FIELD_END},
    .size = sizeof(struct model_value)};
static const struct fields model_match_fields = {
    .v = (const struct field[]){FIELD("model", F_OBJ, model_match, model, .sub = &model_value_fields), FIELD_END},
    .size = sizeof(struct model_match)};
static const struct fields rewrite_target_fields = {
    .v = (const struct field[]){FIELD("modelRewrite", F_STR, target_model, name, .flags = F_REQUIRED, .min = 1,
                                      .max = 253),
                                FIELD("weight", F_INT, target_model, weight, .min = 1, .max = 1000000), FIELD_END},
    .size = sizeof(struct target_model)};

/* Weights for some only: the cumulative draw never reaches the others. */
static void check_rewrite_rule(struct dec *d, const struct doc *map, void *out)
{
    const struct rewrite_rule *r = out;
    if (half_weighted(r->targets.v, r->targets.n))
        dec_warn(d, doc_get(map, "targets"),
                 "targets: some have a weight and some have none: those without are never chosen");
}

#define REWRITE_MAX_MATCHES 64 /* of a rule */
#define REWRITE_MAX_TARGETS 64
#define REWRITE_MAX_RULES   256
static const struct fields rewrite_rule_fields = {
    .v = (const struct field[]){FIELD("matches", F_LIST, rewrite_rule, matches, .max = REWRITE_MAX_MATCHES,
                                      .sub = &model_match_fields),
                                FIELD("targets", F_LIST, rewrite_rule, targets, .flags = F_REQUIRED | F_NONEMPTY,
                                      .max = REWRITE_MAX_TARGETS, .sub = &rewrite_target_fields),
                                FIELD_END},
    .size = sizeof(struct rewrite_rule),
    .check = check_rewrite_rule};
static const struct fields model_rewrite_spec_fields = {
    .v = (const struct field[]){FIELD("poolRef", F_OBJ, model_rewrite_spec, pool, .flags = F_REQUIRED,
                                      .sub = &pool_ref_fields),
                                FIELD("rules", F_LIST, model_rewrite_spec, rules, .flags = F_REQUIRED | F_NONEMPTY,
                                      .max = REWRITE_MAX_RULES, .sub = &rewrite_rule_fields),
                                FIELD_END},
    .size = sizeof(struct model_rewrite_spec)};
const struct fields model_rewrite_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, model_rewrite, spec, .flags = F_REQUIRED,
                                      .sub = &model_rewrite_spec_fields),
                                FIELD_END},
    .size = sizeof(struct model_rewrite)};
