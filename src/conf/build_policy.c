/* conf/build_policy.c - what an InferenceTrafficPolicy gives to its pool: it wins over the pool's annotations, and of
 * several for a pool the oldest counts. */
#include "conf/build.h"

#include <stdio.h>

#define SGLANG_PORT    8998 /* SGLang's default of --disaggregation-bootstrap-port */
#define STRATEGY_KEY   "inference.networking.x-k8s.io/routing-strategy"
#define RUNTIME_KEY    "inference.networking.x-k8s.io/model-server-runtime"
#define OWN_POLICY_KEY "penstock.dev/policy"
#define PD             "spec.profile.pd."
#define SINGLE         "spec.profile.single."
#define PREFIX_MODE    "trafficPolicy." POLICY_NAME ".mode"

static const struct traffic_policy_spec *spec_of(const struct object *o)
{
    return ((const struct traffic_policy *)o->spec)->spec;
}

/* The pool it means, in its own namespace. Without a group: of v1alpha2, or of v1 when only that exists. */
static const struct object *pool_of(const struct build *b, const struct object *o)
{
    const struct ref *r = spec_of(o)->pool;
    const char *const groups[] = {GROUP_POOL_X, GROUP_POOL};
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        const struct object *pool = r->has_group && !str_eq_c(r->group, groups[i])
                                        ? NULL
                                        : build_find(b, groups[i], "InferencePool", o->meta.ns, r->name);
        if (pool)
            return pool;
    }
    return NULL;
}

void build_index_policies(struct build *b)
{
    map_init(&b->policy_of, 0);
    EACH_OBJECT(b, K_TRAFFIC_POLICY, o)
    {
        const struct object *pool = pool_of(b, o), *now = pool ? map_get(&b->policy_of, pool->key) : NULL;
        if (pool && (!now || object_age_cmp(o, now) < 0))
            map_put(&b->policy_of, pool->key, (void *)(uintptr_t)o);
    }
}

/* A pool under construction and the policy it gets. */
struct apply {
    struct build *b;
    const struct object *policy;
    struct conf_backend *out;
};

static struct conf_setting *find_setting(struct conf_backend *b, const char *key)
{
    for (uint32_t i = 0; i < b->n_settings; i++)
        if (str_eq_c(b->settings[i].key, key))
            return &b->settings[i];
    return NULL;
}

/* A line of the settings: "InferenceTrafficPolicy default/x spec.field". */
static void add_line(const struct apply *x, const char *field, struct str given, struct str value, unsigned state,
                     const char *note)
{
    struct arena *a = &x->b->c->arena;
    struct conf_setting s = {.key = str_c(arena_printf(a, STR_FMT " %s", STR_ARG(x->policy->id), field)),
                             .value = arena_str(a, value),
                             .given = arena_str(a, given),
                             .note = arena_str(a, str_c(note))};
    s.state = state;
    annotations_add_setting(a, x->out, &s);
}

/* An annotation gives way: told as a warning when it says something else, `same` tells. */
static void override(const struct apply *x, const char *key, const char *field, struct str value, bool same)
{
    struct conf_setting *s = find_setting(x->out, key);
    const char *who = x->policy->meta.name.p;
    if (!s || (s->state == SET_DEFAULT && s->value.n == 0))
        return;
    if (s->state == SET_DEFAULT) {
        s->note = str_c(arena_printf(&x->b->c->arena, "because of InferenceTrafficPolicy %s", who));
        s->value = arena_str(&x->b->c->arena, value);
        return;
    }
    if (s->state == SET_EFFECTIVE && !same)
        build_note(x->b, CONF_WARNING, x->policy, field,
                   STR_FMT " counts, not \"" STR_FMT "\" of annotation %s of InferencePool " STR_FMT, STR_ARG(value),
                   STR_ARG(str_first(s->given, 64)), key, STR_ARG(x->out->name));
    if (s->state == SET_EFFECTIVE)
        s->state = SET_NO_EFFECT;
    s->note = str_c(arena_printf(&x->b->c->arena, "%s%sno effect, because InferenceTrafficPolicy %s says %s",
                                 s->note.n ? s->note.p : "", s->note.n ? "; " : "", who,
                                 arena_strdup(&x->b->c->arena, value)));
}

static void apply_runtime(const struct apply *x)
{
    const struct traffic_policy_spec *s = spec_of(x->policy);
    struct str word = str_c(runtime_words[s->has_runtime ? (size_t)s->runtime : (size_t)x->out->runtime]);
    add_line(x, "spec.modelServerRuntime", s->has_runtime ? word : STR(""), word,
             s->has_runtime ? SET_EFFECTIVE : SET_DEFAULT,
             s->has_runtime                 ? ""
             : x->out->runtime_given        ? "as the annotation says"
             : s->profile && s->profile->pd ? "prefill and decode work together as vLLM's do"
                                            : "");
    if (!s->has_runtime)
        return;
    override(x, RUNTIME_KEY, "spec.modelServerRuntime", word, x->out->runtime == (enum conf_runtime)s->runtime);
    x->out->runtime = (enum conf_runtime)s->runtime;
    x->out->runtime_given = true;
}

/* The rule for one kind of endpoint. What annotations say about it counts no more. */
static enum sched_policy chosen(const struct apply *x, const char *field, bool prefix)
{
    enum sched_policy p = prefix ? SCHED_PREFIX_CACHE : SCHED_DEFAULT;
    bool same = x->out->sched.policy == p;
    override(x, OWN_POLICY_KEY, field, str_c(strategy_words[p]), same);
    override(x, STRATEGY_KEY, field, str_c(strategy_words[p]), same);
    return p;
}

static void show_tracking(const struct apply *x, const char *prefix, const struct prefix_policy *p)
{
    static const char *const names[] = {"blockSize", "hashSeed", "model"};
    const struct token_processor *t = p->tracking && p->tracking->indexer ? p->tracking->indexer->tokens : NULL;
    for (size_t i = 0; t && i < ARRAY_LEN(names); i++) {
        struct str v = i == 0 ? t->block_size : i == 1 ? t->hash_seed : t->model;
        char field[200];
        snprintf(field, sizeof field,
                 "%strafficPolicy." POLICY_NAME ".trackingConfig.indexerConfig.tokenProcessorConfig.%s", prefix,
                 names[i]);
        if (v.n)
            add_line(x, field, v, STR(""), SET_NOT_YET, "accepted, not in effect yet");
    }
}

static void show_declared(const struct apply *x, const char *prefix, const struct declared_policies *d, bool used)
{
    const struct prefix_policy *p = d ? d->prefix : NULL;
    char field[100];
    if (!p)
        return;
    bool tracking = p->mode == PREFIX_TRACKING;
    snprintf(field, sizeof field, "%s" PREFIX_MODE, prefix);
    add_line(x, field, tracking ? STR("tracking") : STR("estimate"), STR("estimate"),
             !used      ? SET_NO_EFFECT
             : tracking ? SET_NOT_YET
                        : SET_EFFECTIVE,
             !used      ? "no effect, because neither prefillPolicyRef nor decodePolicyRef names it"
             : tracking ? "tracking is not in effect yet: prefixes are estimated"
                        : "");
    show_tracking(x, prefix, p);
}

static void apply_single(const struct apply *x, const struct single_profile *s)
{
    show_declared(x, SINGLE, s->declared, true);
    if (s->ref.n)
        add_line(x, SINGLE "policyRef", s->ref, s->ref, SET_EFFECTIVE, "");
    if (s->declared && s->declared->prefix)
        x->out->sched.policy = chosen(x, SINGLE "trafficPolicy." POLICY_NAME, true);
}

static void show_ref(const struct apply *x, const char *field, struct str ref)
{
    add_line(x, field, ref, ref, ref.n ? SET_EFFECTIVE : SET_DEFAULT, ref.n ? "" : "least load");
}

static void show_port(const struct apply *x, int64_t given, uint16_t port)
{
    char text[24];
    snprintf(text, sizeof text, "%u", port);
    bool sglang = x->out->runtime == RUNTIME_SGLANG;
    add_line(x, PD "kvTransfer.bootstrapPort", given ? str_c(text) : STR(""), str_c(text),
             !sglang ? SET_NO_EFFECT
             : given ? SET_EFFECTIVE
                     : SET_DEFAULT,
             sglang ? "" : "no effect, because only sglang's servers are told of it");
}

static void apply_pd(const struct apply *x, const struct pd_profile *p)
{
    struct conf_backend *out = x->out;
    if (out->runtime == RUNTIME_TRTLLM) { /* the annotation says so: what this says itself was checked before */
        build_note(x->b, CONF_WARNING, x->policy, "spec.profile.pd",
                   "no effect: it is served for vllm and sglang, and annotation %s of InferencePool " STR_FMT
                   " says trt-llm",
                   RUNTIME_KEY, STR_ARG(out->name));
        add_line(x, "spec.profile.pd", STR("given"), STR(""), SET_NO_EFFECT, "no effect, because of runtime trt-llm");
        return;
    }
    int64_t port = p->transfer ? p->transfer->bootstrap_port : 0;
    struct conf_pd *pd = arena_zalloc(&x->b->c->arena, sizeof *pd);
    pd->role_label = arena_str(&x->b->c->arena, p->role_label);
    pd->bootstrap_port = (uint16_t)(port ? port : SGLANG_PORT);
    out->pd = pd;
    out->prefill = out->sched;
    out->prefill.policy = p->prefill_ref.n ? SCHED_PREFIX_CACHE : SCHED_DEFAULT;
    out->sched.policy = chosen(x, PD "decodePolicyRef", p->decode_ref.n > 0);
    add_line(x, PD "pdRoleLabelName", p->role_label, p->role_label, SET_EFFECTIVE, "");
    show_port(x, port, pd->bootstrap_port);
    show_ref(x, PD "prefillPolicyRef", p->prefill_ref);
    show_ref(x, PD "decodePolicyRef", p->decode_ref);
    show_declared(x, PD, p->declared, p->prefill_ref.n || p->decode_ref.n);
}

const struct object *build_policy(struct build *b, const struct object *pool, struct conf_backend *out)
{
    const struct object *o = map_get(&b->policy_of, pool->key);
    if (!o)
        return NULL;
    struct apply x = {b, o, out};
    const struct traffic_profile *profile = spec_of(o)->profile;
    apply_runtime(&x);
    if (profile && profile->single)
        apply_single(&x, profile->single);
    if (profile && profile->pd)
        apply_pd(&x, profile->pd);
    return o;
}

void build_check_policies(struct build *b)
{
    EACH_OBJECT(b, K_TRAFFIC_POLICY, o)
    {
        const struct ref *r = spec_of(o)->pool;
        const struct object *pool = pool_of(b, o), *winner = pool ? map_get(&b->policy_of, pool->key) : NULL;
        if (!pool) {
            build_note(b, CONF_WARNING, o, "spec.poolRef",
                       "there is no InferencePool " STR_FMT "/" STR_FMT "%s" STR_FMT, STR_ARG(o->meta.ns),
                       STR_ARG(r->name), r->has_group ? " of group " : "", STR_ARG(r->has_group ? r->group : STR("")));
        } else if (winner != o) {
            build_note(b, CONF_WARNING, o, "spec.poolRef",
                       "no effect: InferencePool " STR_FMT " has the older InferenceTrafficPolicy " STR_FMT,
                       STR_ARG(pool->meta.name), STR_ARG(winner->meta.name));
        }
    }
}

/* Pods of a split pool that are in neither set get no requests. */
void build_warn_no_role(struct build *b, const struct object *policy, const struct no_role *n)
{
    char names[800] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < MIN(n->n, ARRAY_LEN(n->pods)); i++)
        len += (size_t)snprintf(names + len, sizeof names - len, "%s" STR_FMT, i ? ", " : "",
                                STR_ARG(str_first(n->pods[i]->meta.name, 253)));
    build_note(b, CONF_WARNING, policy, PD "pdRoleLabelName",
               "%u ready pod%s in neither set, because the label says neither prefill nor decode: %s%s", n->n,
               n->n == 1 ? " is" : "s are", names, n->n > ARRAY_LEN(n->pods) ? ", ..." : "");
}
