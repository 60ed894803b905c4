/* conf/build_models.c - what InferenceModels, InferenceObjectives and InferenceModelRewrites give to their pools.
 *
 * Objects are sorted by pool, by what they compete for and by age: the first of each run wins, the others are warned
 * about (gie-protocol 1.2, 1.6, 1.7). */
#include "conf/build.h"

#include <stdio.h>
#include <stdlib.h>

struct claim { /* an object that wants to be the one for a name in a pool */
    uint32_t backend;
    struct str name;
    const struct object *o;
    uint32_t rule; /* InferenceModelRewrite: index of the rule */
};
struct claims {
    struct claim *v; /* heap */
    uint32_t n, cap;
};

static void claim(struct claims *l, uint32_t backend, struct str name, const struct object *o, uint32_t rule)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->v = xrealloc(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n++] = (struct claim){backend, name, o, rule};
}

static int claim_cmp(const void *pa, const void *pb)
{
    const struct claim *a = pa, *b = pb;
    if (a->backend != b->backend)
        return a->backend < b->backend ? -1 : 1;
    int c = str_cmp(a->name, b->name);
    c = c ? c : object_age_cmp(a->o, b->o);
    return c ? c : (a->rule > b->rule) - (a->rule < b->rule);
}

static void claims_sort(struct claims *l)
{
    if (l->n > 1)
        qsort(l->v, l->n, sizeof *l->v, claim_cmp);
}

/* The next pool's part of the sorted claims. */
static uint32_t same_backend(const struct claims *l, uint32_t from)
{
    uint32_t i = from;
    while (i < l->n && l->v[i].backend == l->v[from].backend)
        i++;
    return i;
}

static bool same_name(const struct claims *l, uint32_t i, uint32_t first)
{
    return i > first && str_eq(l->v[i].name, l->v[i - 1].name);
}

/* Index of the pool that an object refers to, in its own namespace; CONF_NO_BACKEND with a warning when there is none.
 * A reference without a group means `group`; with `either`, the other API group when only that has a pool of the name.
 */
static uint32_t pool_of(struct build *b, const struct object *o, const struct ref *r, const char *group, bool either)
{
    struct str want = r->has_group ? r->group : str_c(group);
    const struct object *pool = NULL;
    if (str_eq_c(want, GROUP_POOL) || str_eq_c(want, GROUP_POOL_X))
        pool = build_find(b, want.p, "InferencePool", o->meta.ns, r->name);
    if (!pool && either && !r->has_group) {
        pool = build_find(b, GROUP_POOL_X, "InferencePool", o->meta.ns, r->name);
        if (pool)
            build_note(b, CONF_INFO, o, "spec.poolRef",
                       "there is no InferencePool " STR_FMT "/" STR_FMT " of group %s: the one of group %s is meant",
                       STR_ARG(o->meta.ns), STR_ARG(r->name), GROUP_POOL, GROUP_POOL_X);
    }
    if (pool)
        return (uint32_t)(uintptr_t)map_get(&b->backend_index, pool->key) - 1;
    build_note(b, CONF_WARNING, o, "spec.poolRef",
               "there is no InferencePool " STR_FMT "/" STR_FMT " of group " STR_FMT, STR_ARG(o->meta.ns),
               STR_ARG(r->name), STR_ARG(want));
    return CONF_NO_BACKEND;
}

static struct conf_target_model *copy_targets(struct arena *a, const struct target_model *v, uint32_t n,
                                              uint32_t *total)
{
    struct conf_target_model *out = arena_zalloc(a, (n + 1) * sizeof *out);
    *total = 0;
    for (uint32_t i = 0; i < n; i++) {
        out[i].name = arena_str(a, v[i].name);
        out[i].weight = (uint32_t)v[i].weight;
        *total += out[i].weight;
    }
    return out;
}

/* InferenceModel, and InferenceObjectives that carry the name of a model */
static int level_of(int criticality_word)
{
    static const int levels[] = {CRIT_STANDARD, CRIT_CRITICAL, CRIT_SHEDDABLE};
    return levels[criticality_word];
}

static enum sched_criticality word_of(int priority)
{
    return priority > 0 ? CRIT_CRITICAL : priority < 0 ? CRIT_SHEDDABLE : CRIT_STANDARD;
}

static int objective_priority(const struct objective_spec *s)
{
    return s->has_criticality && !s->has_priority ? level_of(s->criticality) : (int)s->priority;
}

static const struct model_spec *model_of(const struct object *o)
{
    return ((const struct model *)o->spec)->spec;
}

static const struct objective_spec *objective_of(const struct object *o)
{
    return ((const struct objective *)o->spec)->spec;
}

static void fill_model(struct build *b, const struct claim *c, struct conf_model *m)
{
    struct arena *a = &b->c->arena;
    bool objective = c->o->def->kind == K_OBJECTIVE;
    *m = (struct conf_model){
        .ns = arena_str(a, c->o->meta.ns), .name = arena_str(a, c->o->meta.name), .model_name = arena_str(a, c->name)};
    if (objective) {
        m->priority = objective_priority(objective_of(c->o));
    } else {
        const struct model_spec *s = model_of(c->o);
        m->priority = level_of(s->criticality);
        m->n_targets = s->targets.n;
        m->targets = copy_targets(a, s->targets.v, s->targets.n, &m->total_weight);
    }
    m->criticality = word_of(m->priority);
}

/* An InferenceModel before every InferenceObjective, then the oldest. */
static int model_claim_cmp(const void *pa, const void *pb)
{
    const struct claim *a = pa, *b = pb;
    if (a->backend == b->backend && a->o->def->kind != b->o->def->kind && str_eq(a->name, b->name))
        return a->o->def->kind == K_MODEL ? -1 : 1;
    return claim_cmp(pa, pb);
}

static void models_of_pool(struct build *b, const struct claims *l, uint32_t from, uint32_t to)
{
    struct conf_backend *out = &b->c->backends[l->v[from].backend];
    const struct object *winner = NULL;
    out->models = arena_zalloc(&b->c->arena, (to - from + 1) * sizeof *out->models);
    for (uint32_t i = from; i < to; i++) {
        const struct claim *c = &l->v[i];
        if (!same_name(l, i, from)) {
            winner = c->o;
            fill_model(b, c, &out->models[out->n_models++]);
            continue;
        }
        bool older = winner->def->kind == c->o->def->kind;
        build_note(b, CONF_WARNING, c->o, "spec.modelName",
                   "\"" STR_FMT "\" belongs to the %s%s " STR_FMT " of this pool%s", STR_ARG(str_first(c->name, 200)),
                   older ? "older " : "", winner->def->name, STR_ARG(winner->meta.name),
                   older ? "" : ", which comes before an InferenceObjective");
    }
}

static void add_models(struct build *b, struct claims *models)
{
    EACH_OBJECT(b, K_MODEL, o)
    {
        uint32_t pool = pool_of(b, o, model_of(o)->pool, GROUP_POOL_X, false);
        if (pool != CONF_NO_BACKEND)
            claim(models, pool, model_of(o)->model_name, o, 0);
    }
    if (models->n > 1)
        qsort(models->v, models->n, sizeof *models->v, model_claim_cmp);
    for (uint32_t i = 0, to; i < models->n; i = to) {
        to = same_backend(models, i);
        models_of_pool(b, models, i, to);
    }
}

/* InferenceObjective: their own names are unique in a namespace. */
static void add_objectives(struct build *b, struct claims *models)
{
    struct claims l = {0};
    EACH_OBJECT(b, K_OBJECTIVE, o)
    {
        const struct objective_spec *s = objective_of(o);
        uint32_t pool = pool_of(b, o, s->pool, GROUP_POOL, true);
        if (pool == CONF_NO_BACKEND)
            continue;
        claim(&l, pool, o->meta.name, o, 0);
        if (s->model_name.n)
            claim(models, pool, s->model_name, o, 0);
    }
    claims_sort(&l);
    for (uint32_t i = 0, to; i < l.n; i = to) {
        struct conf_backend *out = &b->c->backends[l.v[i].backend];
        to = same_backend(&l, i);
        out->objectives = arena_zalloc(&b->c->arena, (to - i) * sizeof *out->objectives);
        for (uint32_t k = i; k < to; k++)
            out->objectives[out->n_objectives++] = (struct conf_objective){
                .name = arena_str(&b->c->arena, l.v[k].name), .priority = objective_priority(objective_of(l.v[k].o))};
    }
    free(l.v);
}

/* InferenceModelRewrite: of all rules for a model the first of the oldest object counts; "" stands for any model. */
static void claim_rules(struct claims *l, uint32_t pool, const struct object *o, const struct model_rewrite_spec *s)
{
    for (uint32_t i = 0; i < s->rules.n; i++) {
        const struct rewrite_rule *r = &s->rules.v[i];
        for (uint32_t k = 0; k < r->matches.n; k++)
            claim(l, pool, r->matches.v[k].model ? r->matches.v[k].model->value : STR(""), o, i);
        if (r->matches.n == 0)
            claim(l, pool, STR(""), o, i);
    }
}

static void beaten(const struct build *b, const struct claim *c, const struct claim *winner)
{
    char field[40], model[224] = "any model";
    if (c->o == winner->o && c->rule == winner->rule)
        return; /* the same match twice in one rule */
    snprintf(field, sizeof field, "spec.rules[%u]", c->rule);
    if (c->name.n)
        snprintf(model, sizeof model, "\"" STR_FMT "\"", STR_ARG(str_first(c->name, 200)));
    if (c->o == winner->o)
        build_note(b, CONF_WARNING, c->o, field, "has no effect for %s: rules[%u] is the first for it", model,
                   winner->rule);
    else
        build_note(b, CONF_WARNING, c->o, field,
                   "has no effect for %s: it belongs to the older InferenceModelRewrite " STR_FMT " of this pool",
                   model, STR_ARG(winner->o->meta.name));
}

static void rewrites_of_pool(struct build *b, const struct claims *l, uint32_t from, uint32_t to)
{
    struct arena *a = &b->c->arena;
    struct conf_backend *out = &b->c->backends[l->v[from].backend];
    const struct claim *winner = NULL;
    out->rewrites = arena_zalloc(a, (to - from) * sizeof *out->rewrites);
    for (uint32_t i = from; i < to; i++) {
        const struct claim *c = &l->v[i];
        if (same_name(l, i, from)) {
            beaten(b, c, winner);
            continue;
        }
        const struct rewrite_rule *r = &((const struct model_rewrite *)c->o->spec)->spec->rules.v[c->rule];
        struct conf_model_rewrite *m = &out->rewrites[out->n_rewrites++];
        winner = c;
        m->object = arena_str(a, c->o->meta.name);
        m->model = arena_str(a, c->name);
        m->n_targets = r->targets.n;
        m->targets = copy_targets(a, r->targets.v, r->targets.n, &m->total_weight);
    }
}

static void add_rewrites(struct build *b)
{
    struct claims l = {0};
    EACH_OBJECT(b, K_REWRITE, o)
    {
        const struct model_rewrite_spec *s = ((const struct model_rewrite *)o->spec)->spec;
        uint32_t pool = pool_of(b, o, s->pool, GROUP_POOL, true);
        if (pool != CONF_NO_BACKEND)
            claim_rules(&l, pool, o, s);
    }
    claims_sort(&l);
    for (uint32_t i = 0, to; i < l.n; i = to) {
        to = same_backend(&l, i);
        rewrites_of_pool(b, &l, i, to);
    }
    free(l.v);
}

void build_models(struct build *b)
{
    struct claims models = {0};
    add_objectives(b, &models);
    add_models(b, &models);
    add_rewrites(b);
    free(models.v);
}
