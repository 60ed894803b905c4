/* conf/rolegroup.c - RoleBasedGroup of workloads.x-k8s.io: roles with their replicas and pod templates. v1alpha1 names
 * the workload of a role and describes groups beside its template, v1alpha2 has a pattern for either. */
#include "conf/object.h"

#include <stdio.h>

#define MAX_ROLES 64

/* As written. Templates may stand in the role or, by name, in roleTemplates; patches change parts of them. */
struct named_template {
    struct str name;
    struct pod_template *template;
};
struct template_ref {
    struct str name;
    struct pod_template *patch; /* v1alpha2 */
};
struct role_workload {
    struct str kind;
};
struct group_shape { /* v1alpha1: leaderWorkerSet */
    int64_t size;
    struct pod_template *leader, *worker; /* patches */
};
struct role_pattern { /* v1alpha2 */
    int64_t size;
    struct pod_template *template, *leader, *worker; /* the latter two: patches */
    struct template_ref *ref;
};
struct raw_role {
    struct str name;
    int64_t replicas;
    struct kvs annotations;
    struct pod_template *template, *patch;
    struct template_ref *ref;
    struct role_workload *workload;
    struct group_shape *shape;
    struct role_pattern *standalone, *groups;
    bool components;
};
struct raw_group {
    DEC_LIST(struct raw_role) roles;
    DEC_LIST(struct named_template) templates;
};

static void given(struct dec *d, const struct doc *v, void *out)
{
    (void)d;
    *(bool *)out = v->n > 0;
}
static const struct fields ref_name_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, template_ref, name, .flags = F_REQUIRED, .min = 1, .max = 63),
                                FIELD("patch", F_OBJ, template_ref, patch, .sub = &template_patch_fields), FIELD_END},
    .size = sizeof(struct template_ref),
    .lenient = true};
static const struct fields named_template_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, named_template, name, .flags = F_REQUIRED, .min = 1, .max = 63),
                                FIELD("template", F_OBJ, named_template, template, .flags = F_REQUIRED,
                                      .sub = &template_fields),
                                FIELD_END},
    .size = sizeof(struct named_template),
    .lenient = true};
static const struct fields workload_fields = {
    .v = (const struct field[]){FIELD("kind", F_STR, role_workload, kind, .max = 63), FIELD_END},
    .size = sizeof(struct role_workload),
    .lenient = true};
static const struct fields shape_fields = {
    .v = (const struct field[]){FIELD("size", F_INT, group_shape, size, .min = 1, .max = 1000, .def = 1),
                                FIELD("patchLeaderTemplate", F_OBJ, group_shape, leader, .sub = &template_patch_fields),
                                FIELD("patchWorkerTemplate", F_OBJ, group_shape, worker, .sub = &template_patch_fields),
                                FIELD_END},
    .size = sizeof(struct group_shape),
    .lenient = true};
static const struct fields pattern_fields = {
    .v =
        (const struct field[]){FIELD("size", F_INT, role_pattern, size, .min = 1, .max = 1000, .def = 1),
                               FIELD("template", F_OBJ, role_pattern, template, .sub = &template_fields),
                               FIELD("templateRef", F_OBJ, role_pattern, ref, .sub = &ref_name_fields),
                               FIELD("leaderTemplatePatch", F_OBJ, role_pattern, leader, .sub = &template_patch_fields),
                               FIELD("workerTemplatePatch", F_OBJ, role_pattern, worker, .sub = &template_patch_fields),
                               FIELD_END},
    .size = sizeof(struct role_pattern),
    .lenient = true};

#define ROLE_FIELDS                                                                                                    \
    FIELD("name", F_STR, raw_role, name, .flags = F_REQUIRED, .min = 1, .max = 63, .fn = dec_dns_name),                \
        FIELD("replicas", F_INT, raw_role, replicas, .min = 0, .max = 10000, .def = 1)
static const struct fields role_v1_fields = {
    .v = (const struct field[]){ROLE_FIELDS, FIELD("template", F_OBJ, raw_role, template, .sub = &template_fields),
                                FIELD("templateRef", F_OBJ, raw_role, ref, .sub = &ref_name_fields),
                                FIELD("templatePatch", F_OBJ, raw_role, patch, .sub = &template_patch_fields),
                                FIELD("workload", F_OBJ, raw_role, workload, .sub = &workload_fields),
                                FIELD("leaderWorkerSet", F_OBJ, raw_role, shape, .sub = &shape_fields),
                                FIELD("components", F_FN, raw_role, components, .fn = given), FIELD_END},
    .size = sizeof(struct raw_role),
    .lenient = true};
static const struct fields role_v2_fields = {
    .v = (const struct field[]){ROLE_FIELDS, FIELD("annotations", F_MAP, raw_role, annotations),
                                FIELD("standalonePattern", F_OBJ, raw_role, standalone, .sub = &pattern_fields),
                                FIELD("leaderWorkerPattern", F_OBJ, raw_role, groups, .sub = &pattern_fields),
                                FIELD("customComponentsPattern", F_FN, raw_role, components, .fn = given), FIELD_END},
    .size = sizeof(struct raw_role),
    .lenient = true};

#define GROUP_FIELDS(role)                                                                                             \
    FIELD("roles", F_LIST, raw_group, roles, .flags = F_REQUIRED | F_NONEMPTY, .max = MAX_ROLES, .sub = (role)),       \
        FIELD("roleTemplates", F_LIST, raw_group, templates, .max = MAX_ROLES, .sub = &named_template_fields)
static const struct fields group_v1_fields = {.v = (const struct field[]){GROUP_FIELDS(&role_v1_fields), FIELD_END},
                                              .size = sizeof(struct raw_group),
                                              .lenient = true};
static const struct fields group_v2_fields = {.v = (const struct field[]){GROUP_FIELDS(&role_v2_fields), FIELD_END},
                                              .size = sizeof(struct raw_group),
                                              .lenient = true};

/* A template and what may change it, whichever version it comes from. */
struct source {
    const struct pod_template *template, *patch, *leader, *worker;
    const struct template_ref *ref;
};

static const struct pod_template *base_template(struct dec *d, const struct doc *at, const struct raw_group *g,
                                                const struct source *s)
{
    if (s->template && s->ref) {
        dec_error(d, at, "template and templateRef exclude each other");
        return NULL;
    }
    if (!s->ref) {
        if (!s->template)
            dec_error(d, at, "needs a template");
        return s->template;
    }
    for (uint32_t i = 0; i < g->templates.n; i++)
        if (str_eq(g->templates.v[i].name, s->ref->name))
            return template_patched(d->arena, g->templates.v[i].template, s->patch ? s->patch : s->ref->patch);
    dec_error(d, at, "templateRef: there is no \"" STR_FMT "\" in roleTemplates", STR_ARG(s->ref->name));
    return NULL;
}

static struct source source_of(const struct raw_role *r)
{
    const struct role_pattern *p = r->groups ? r->groups : r->standalone;
    if (p)
        return (struct source){p->template, NULL, r->groups ? p->leader : NULL, r->groups ? p->worker : NULL, p->ref};
    return (struct source){r->template, r->patch, r->shape ? r->shape->leader : NULL,
                           r->shape ? r->shape->worker : NULL, r->ref};
}

/* What makes the pods, which says how they are named. v1alpha2's own kind names them as a StatefulSet does. */
static enum conf_controller controller_of(const struct raw_role *r)
{
    struct str type = STR("");
    kvs_get(&r->annotations, STR("rbg.workloads.x-k8s.io/role-workload-type"), &type);
    if (r->groups)
        return CONF_GROUPS;
    if (str_ends(type, STR("/Deployment")) || (r->workload && str_eq_c(r->workload->kind, "Deployment")))
        return CONF_DEPLOYMENT;
    if (r->workload &&
        (str_eq_c(r->workload->kind, "LeaderWorkerSet") || (r->shape && str_eq_c(r->workload->kind, "InstanceSet"))))
        return CONF_GROUPS;
    return CONF_STATEFULSET;
}

static bool resolve(struct dec *d, const struct doc *at, const struct raw_group *g, const struct raw_role *r,
                    struct group_role *out)
{
    struct source s = source_of(r);
    if (!s.template && !s.ref && r->components) {
        dec_note(d, CONF_INFO, at, "made of components: the sandbox does not play it");
        return false;
    }
    if (r->groups && r->standalone)
        dec_error(d, at, "standalonePattern and leaderWorkerPattern exclude each other");
    const struct pod_template *base = base_template(d, at, g, &s);
    if (!base)
        return false;
    *out = (struct group_role){.name = r->name, .controller = controller_of(r)};
    out->w.replicas = r->replicas;
    out->w.group_size = out->controller != CONF_GROUPS ? 1
                        : r->groups                    ? r->groups->size
                        : r->shape                     ? r->shape->size
                                                       : 1;
    out->w.leader = template_patched(d->arena, base, s.leader);
    out->w.worker = out->controller == CONF_GROUPS ? template_patched(d->arena, base, s.worker) : NULL;
    if (r->shape && out->controller != CONF_GROUPS)
        dec_warn(d, at, "leaderWorkerSet: no effect, because workload.kind is not LeaderWorkerSet");
    return true;
}

static void decode_group(struct dec *d, const struct doc *v, struct role_group *out, const struct fields *f)
{
    struct raw_group g = {0};
    uint32_t before = d->errors;
    dec_fields(d, v, f, &g);
    if (d->errors > before)
        return;
    const struct doc *roles = doc_get(v, "roles");
    out->roles.v = arena_zalloc(d->arena, g.roles.n * sizeof *out->roles.v + 1);
    for (uint32_t i = 0; i < g.roles.n; i++) {
        size_t mark = dec_push(d, ".roles[%u]", i);
        for (uint32_t k = 0; k < i; k++)
            if (str_eq(g.roles.v[k].name, g.roles.v[i].name))
                dec_error(d, roles->items[i], "role " STR_FMT " is given twice", STR_ARG(g.roles.v[i].name));
        out->roles.n += resolve(d, roles->items[i], &g, &g.roles.v[i], &out->roles.v[out->roles.n]);
        dec_pop(d, mark);
    }
}

static void spec_v1(struct dec *d, const struct doc *v, void *out)
{
    decode_group(d, v, out, &group_v1_fields);
}
static void spec_v2(struct dec *d, const struct doc *v, void *out)
{
    ((struct role_group *)out)->v2 = true;
    decode_group(d, v, out, &group_v2_fields);
}
const struct fields rbg_v1_fields = {
    .v = (const struct field[]){{.name = "spec", .kind = F_FN, .flags = F_REQUIRED, .fn = spec_v1}, FIELD_END},
    .size = sizeof(struct role_group),
    .lenient = true};
const struct fields rbg_v2_fields = {
    .v = (const struct field[]){{.name = "spec", .kind = F_FN, .flags = F_REQUIRED, .fn = spec_v2}, FIELD_END},
    .size = sizeof(struct role_group),
    .lenient = true};
