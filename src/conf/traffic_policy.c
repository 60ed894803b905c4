/* conf/traffic_policy.c - InferenceTrafficPolicy of inferenceextension.alibabacloud.com: which runtime a pool's servers
 * are, and how its requests are spread over one kind of endpoint (profile.single) or over two (profile.pd). */
#include "conf/object.h"

#define LABEL_NAME_MAX 63 /* of a label key, after its prefix */

/* What only exact KV events would need. The values are shown as they are written. */
static void recalled(struct dec *d, const struct doc *v, void *out)
{
    if (v->kind == DOC_MAP || v->kind == DOC_SEQ)
        return dec_error(d, v, "must be a string or a number, is %s", doc_kind_name(v->kind));
    *(struct str *)out = arena_str(d->arena, str_first(v->text, 256));
    dec_note(d, CONF_INFO, v, "accepted, not in effect yet");
}
static const struct fields tokens_fields = {
    .v = (const struct field[]){FIELD("blockSize", F_FN, token_processor, block_size, .fn = recalled),
                                FIELD("hashSeed", F_FN, token_processor, hash_seed, .fn = recalled),
                                FIELD("model", F_FN, token_processor, model, .fn = recalled), FIELD_END},
    .size = sizeof(struct token_processor)};
static const struct fields indexer_fields = {
    .v = (const struct field[]){FIELD("tokenProcessorConfig", F_OBJ, prefix_indexer, tokens, .sub = &tokens_fields),
                                FIELD_END},
    .size = sizeof(struct prefix_indexer)};
static const struct fields tracking_fields = {
    .v = (const struct field[]){FIELD("indexerConfig", F_OBJ, prefix_tracking, indexer, .sub = &indexer_fields),
                                FIELD_END},
    .size = sizeof(struct prefix_tracking)};

static void check_prefix(struct dec *d, const struct doc *map, void *out)
{
    const struct prefix_policy *p = out;
    if (p->mode != PREFIX_TRACKING)
        return;
    size_t mark = dec_push(d, ".mode");
    dec_warn(d, doc_get(map, "mode"), "tracking is not in effect yet: prefixes are estimated");
    dec_pop(d, mark);
}
static const char *const mode_words[] = {"estimate", "tracking", NULL};
static const struct fields prefix_fields = {
    .v = (const struct field[]){FIELD("mode", F_ENUM, prefix_policy, mode, .words = mode_words),
                                FIELD("trackingConfig", F_OBJ, prefix_policy, tracking, .sub = &tracking_fields),
                                FIELD_END},
    .size = sizeof(struct prefix_policy),
    .check = check_prefix};
static const struct fields declared_fields = {
    .v = (const struct field[]){FIELD(POLICY_NAME, F_OBJ, declared_policies, prefix, .sub = &prefix_fields), FIELD_END},
    .size = sizeof(struct declared_policies)};

/* References by name lead to what trafficPolicy beside them declares. */
static void check_ref(struct dec *d, const struct doc *map, const char *field, const struct declared_policies *declared)
{
    const struct doc *v = doc_get(map, field);
    if (!v)
        return;
    size_t mark = dec_push(d, ".%s", field);
    if (!str_eq_c(v->text, POLICY_NAME))
        dec_error(d, v, "\"" STR_FMT "\" is no policy: there is only " POLICY_NAME, STR_ARG(str_first(v->text, 64)));
    else if (!declared || !declared->prefix)
        dec_error(d, v, POLICY_NAME " is not declared: trafficPolicy." POLICY_NAME " is missing");
    dec_pop(d, mark);
}

static void check_single(struct dec *d, const struct doc *map, void *out)
{
    check_ref(d, map, "policyRef", ((const struct single_profile *)out)->declared);
}
static const struct fields single_fields = {
    .v = (const struct field[]){FIELD("trafficPolicy", F_OBJ, single_profile, declared, .sub = &declared_fields),
                                FIELD("policyRef", F_STR, single_profile, ref, .min = 1, .max = 253), FIELD_END},
    .size = sizeof(struct single_profile),
    .check = check_single};

static bool alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* [prefix/]name: the prefix is a DNS name. */
static bool label_key_ok(struct str s)
{
    ptrdiff_t slash = str_find(s, STR("/"));
    struct str name = slash < 0 ? s : str_from(s, (size_t)slash + 1);
    if (slash >= 0 && !dns_name_ok(str_first(s, (size_t)slash), 253))
        return false;
    if (name.n == 0 || name.n > LABEL_NAME_MAX || !alnum(name.p[0]) || !alnum(name.p[name.n - 1]))
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!alnum(name.p[i]) && !strchr("-_.", name.p[i]))
            return false;
    return true;
}

static void check_label_key(struct dec *d, const struct doc *v, void *out)
{
    struct str s = *(struct str *)out;
    if (!label_key_ok(s))
        dec_error(d, v, "\"" STR_FMT "\" is no label key", STR_ARG(str_first(s, 100)));
}
static const struct fields transfer_fields = {
    .v = (const struct field[]){FIELD("bootstrapPort", F_INT, kv_transfer, bootstrap_port, .min = 1, .max = 65535),
                                FIELD_END},
    .size = sizeof(struct kv_transfer)};

static void check_pd(struct dec *d, const struct doc *map, void *out)
{
    const struct pd_profile *p = out;
    check_ref(d, map, "prefillPolicyRef", p->declared);
    check_ref(d, map, "decodePolicyRef", p->declared);
}
static const struct fields pd_fields = {
    .v = (const struct field[]){FIELD("trafficPolicy", F_OBJ, pd_profile, declared, .sub = &declared_fields),
                                FIELD("prefillPolicyRef", F_STR, pd_profile, prefill_ref, .min = 1, .max = 253),
                                FIELD("decodePolicyRef", F_STR, pd_profile, decode_ref, .min = 1, .max = 253),
                                FIELD("pdRoleLabelName", F_STR, pd_profile, role_label, .flags = F_REQUIRED, .min = 1,
                                      .max = 317, .fn = check_label_key),
                                FIELD("kvTransfer", F_OBJ, pd_profile, transfer, .sub = &transfer_fields), FIELD_END},
    .size = sizeof(struct pd_profile),
    .check = check_pd};

static void check_profile(struct dec *d, const struct doc *map, void *out)
{
    const struct traffic_profile *p = out;
    if (p->single && p->pd)
        dec_error(d, map, "single and pd exclude each other");
    if (!p->single && !p->pd)
        dec_warn(d, map, "has neither single nor pd: says nothing");
}
static const struct fields profile_fields = {
    .v = (const struct field[]){FIELD("single", F_OBJ, traffic_profile, single, .sub = &single_fields),
                                FIELD("pd", F_OBJ, traffic_profile, pd, .sub = &pd_fields), FIELD_END},
    .size = sizeof(struct traffic_profile),
    .check = check_profile};

const char *const runtime_words[] = {"vllm", "sglang", "trt-llm", NULL};

static void check_spec(struct dec *d, const struct doc *map, void *out)
{
    struct traffic_policy_spec *s = out;
    const struct doc *runtime = doc_get(map, "modelServerRuntime");
    s->has_runtime = runtime != NULL;
    if (!s->profile || !s->profile->pd || s->runtime != RUNTIME_TRTLLM)
        return;
    size_t mark = dec_push(d, ".modelServerRuntime");
    dec_error(d, runtime, "profile.pd is served for vllm and sglang, not for trt-llm");
    dec_pop(d, mark);
}
static const struct fields spec_fields = {
    .v =
        (const struct field[]){
            FIELD("poolRef", F_OBJ, traffic_policy_spec, pool, .flags = F_REQUIRED, .sub = &pool_ref_fields),
            FIELD("modelServerRuntime", F_ENUM, traffic_policy_spec, runtime, .words = runtime_words),
            FIELD("profile", F_OBJ, traffic_policy_spec, profile, .sub = &profile_fields), FIELD_END},
    .size = sizeof(struct traffic_policy_spec),
    .check = check_spec};
const struct fields traffic_policy_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, traffic_policy, spec, .flags = F_REQUIRED, .sub = &spec_fields),
                                FIELD_END},
    .size = sizeof(struct traffic_policy)};
