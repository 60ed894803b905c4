/* conf/workload.c - Deployment, StatefulSet, LeaderWorkerSet, the roles of a RoleBasedGroup and bare Pods: what the
 * sandbox starts. */
#include "conf/object.h"

#include <stdio.h>

static const struct fields template_meta_fields = {
    .v = (const struct field[]){FIELD("labels", F_MAP, pod_template, labels),
                                FIELD("annotations", F_MAP, pod_template, annotations), FIELD_END},
    .size = sizeof(struct pod_template),
    .lenient = true};

static void template_meta(struct dec *d, const struct doc *v, void *out)
{
    struct pod_template *t = out, m = {0};
    dec_fields(d, v, &template_meta_fields, &m);
    t->labels = m.labels;
    t->annotations = m.annotations;
}
const struct fields template_fields = {
    .v = (const struct field[]){{.name = "metadata", .kind = F_FN, .fn = template_meta},
                                FIELD("spec", F_OBJ, pod_template, spec, .flags = F_REQUIRED, .sub = &pod_spec_fields),
                                FIELD_END},
    .size = sizeof(struct pod_template),
    .lenient = true};
const struct fields template_patch_fields = {
    .v = (const struct field[]){{.name = "metadata", .kind = F_FN, .fn = template_meta},
                                FIELD("spec", F_OBJ, pod_template, spec, .sub = &pod_spec_fields),
                                FIELD_END},
    .size = sizeof(struct pod_template),
    .lenient = true};

/* Patches of templates */
static struct kvs kvs_patched(struct arena *a, const struct kvs *base, const struct kvs *patch)
{
    struct kvs out = {.v = arena_zalloc(a, (base->n + patch->n + 1) * sizeof *out.v)};
    for (uint32_t i = 0; i < base->n; i++)
        if (!kvs_find(patch, base->v[i].key))
            out.v[out.n++] = base->v[i];
    for (uint32_t i = 0; i < patch->n; i++)
        out.v[out.n++] = patch->v[i];
    return out;
}

static void patch_container(struct container *c, const struct container *patch)
{
    if (patch->image.n)
        c->image = patch->image;
    if (patch->command.n)
        c->command = patch->command;
    if (patch->args.n)
        c->args = patch->args;
    if (patch->ports.n)
        c->ports = patch->ports;
}

static struct pod_spec *spec_patched(struct arena *a, const struct pod_spec *base, const struct pod_spec *patch)
{
    struct pod_spec *out = arena_zalloc(a, sizeof *out);
    uint32_t n = base->containers.n;
    out->containers.v = arena_zalloc(a, (n + patch->containers.n) * sizeof *out->containers.v + 1);
    for (uint32_t i = 0; i < n; i++)
        out->containers.v[i] = base->containers.v[i];
    for (uint32_t i = 0; i < patch->containers.n; i++) {
        const struct container *p = &patch->containers.v[i];
        uint32_t k = 0;
        while (k < n && !str_eq(out->containers.v[k].name, p->name))
            k++;
        if (k == n)
            out->containers.v[n++] = *p;
        else
            patch_container(&out->containers.v[k], p);
    }
    out->containers.n = n;
    return out;
}

struct pod_template *template_patched(struct arena *a, const struct pod_template *base,
                                      const struct pod_template *patch)
{
    struct pod_template *out = arena_alloc(a, sizeof *out);
    *out = *base;
    if (!patch)
        return out;
    out->labels = kvs_patched(a, &base->labels, &patch->labels);
    out->annotations = kvs_patched(a, &base->annotations, &patch->annotations);
    if (patch->spec)
        out->spec = spec_patched(a, base->spec, patch->spec);
    return out;
}

static const struct fields deployment_spec_fields = {
    .v =
        (const struct field[]){FIELD("replicas", F_INT, workload, replicas, .min = 0, .max = 10000, .def = 1),
                               FIELD("template", F_OBJ, workload, leader, .flags = F_REQUIRED, .sub = &template_fields),
                               FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};
static void deployment_spec(struct dec *d, const struct doc *v, void *out)
{
    struct workload *w = out;
    dec_fields(d, v, &deployment_spec_fields, w);
    w->group_size = 1;
}
const struct fields deployment_fields = {
    .v = (const struct field[]){{.name = "spec", .kind = F_FN, .flags = F_REQUIRED, .fn = deployment_spec}, FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};
const struct fields statefulset_fields = {
    .v = (const struct field[]){{.name = "spec", .kind = F_FN, .flags = F_REQUIRED, .fn = deployment_spec}, FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};

/* LeaderWorkerSet: without a leaderTemplate the leader is made from the worker's. */
static const struct fields lws_template_fields = {
    .v =
        (const struct field[]){
            FIELD("size", F_INT, workload, group_size, .min = 1, .max = 1000, .def = 1),
            FIELD("leaderTemplate", F_OBJ, workload, leader, .sub = &template_fields),
            FIELD("workerTemplate", F_OBJ, workload, worker, .flags = F_REQUIRED, .sub = &template_fields), FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};
static void lws_template(struct dec *d, const struct doc *v, void *out)
{
    struct workload *w = out, t = {0};
    dec_fields(d, v, &lws_template_fields, &t);
    w->group_size = t.group_size;
    w->leader = t.leader ? t.leader : t.worker;
    w->worker = t.worker;
}
static const struct fields lws_spec_fields = {
    .v = (const struct field[]){FIELD("replicas", F_INT, workload, replicas, .min = 0, .max = 10000, .def = 1),
                                {.name = "leaderWorkerTemplate", .kind = F_FN, .flags = F_REQUIRED, .fn = lws_template},
                                FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};
static void lws_spec(struct dec *d, const struct doc *v, void *out)
{
    dec_fields(d, v, &lws_spec_fields, out);
}
const struct fields lws_fields = {
    .v = (const struct field[]){{.name = "spec", .kind = F_FN, .flags = F_REQUIRED, .fn = lws_spec}, FIELD_END},
    .size = sizeof(struct workload),
    .lenient = true};

static bool names_server(struct str s)
{
    static const char *const servers[] = {"vllm", "sglang", "tritonserver", "trtllm-serve"};
    for (size_t i = 0; i < ARRAY_LEN(servers); i++)
        if (str_find(s, str_c(servers[i])) >= 0)
            return true;
    return false;
}

static bool is_server(const struct container *c)
{
    for (uint32_t i = 0; i < c->command.n; i++)
        if (names_server(c->command.v[i]))
            return true;
    for (uint32_t i = 0; i < c->args.n; i++)
        if (names_server(c->args.v[i]))
            return true;
    return c->command.n == 0 && str_find(c->image, STR("vllm-openai")) >= 0;
}

/* Images of vLLM have their command inside: the arguments alone say what to serve. */
static void describe_command(const struct container *c, struct arena *a, struct conf_workload *w)
{
    bool implied = c->command.n == 0 && str_find(c->image, STR("vllm-openai")) >= 0;
    uint32_t n = 0;
    w->argv = arena_zalloc(a, (c->command.n + c->args.n + 2) * sizeof *w->argv);
    if (implied) {
        w->argv[n++] = STR("vllm");
        w->argv[n++] = STR("serve");
    }
    for (uint32_t i = 0; i < c->command.n; i++)
        w->argv[n++] = c->command.v[i];
    for (uint32_t i = 0; i < c->args.n; i++)
        w->argv[n++] = c->args.v[i];
    w->n_argv = n;
    w->container = c->name;
    w->container_port = c->ports.n ? (uint16_t)c->ports.v[0].port : 0;
}

/* Labels and annotations for the sandbox: struct { struct str key, value; }, as conf_workload has them thrice. */
static void *copy_kvs(struct arena *a, struct kvs from, uint32_t *count)
{
    struct {
        struct str key, value;
    } *out = arena_zalloc(a, (from.n + 1) * sizeof *out);
    for (uint32_t i = 0; i < from.n; i++) {
        out[i].key = from.v[i].key;
        out[i].value = from.v[i].value;
    }
    *count = from.n;
    return out;
}

static const struct group_role *role_of(const struct object *o, uint32_t part)
{
    return o->def->kind == K_ROLE_GROUP ? &((const struct role_group *)o->spec)->roles.v[part] : NULL;
}

static enum conf_controller controller_of(const struct object *o, const struct group_role *role)
{
    if (role)
        return role->controller;
    if (o->def->kind == K_POD)
        return CONF_POD;
    return !strcmp(o->def->name, "Deployment")        ? CONF_DEPLOYMENT
           : !strcmp(o->def->name, "LeaderWorkerSet") ? CONF_GROUPS
                                                      : CONF_STATEFULSET;
}

uint32_t workload_parts(const struct object *o)
{
    return o->def->kind == K_ROLE_GROUP ? ((const struct role_group *)o->spec)->roles.n : 1;
}

/* The container that is a model server; else the first. */
static const struct container *main_container(const struct pod_spec *spec)
{
    for (uint32_t i = 0; i < spec->containers.n; i++)
        if (is_server(&spec->containers.v[i]))
            return &spec->containers.v[i];
    return &spec->containers.v[0];
}

/* The labels by which the controller tells pods of a RoleBasedGroup apart. */
static struct kvs role_labels(const struct object *o, const struct group_role *role, struct kv out[2])
{
    if (!role)
        return (struct kvs){0};
    bool v2 = ((const struct role_group *)o->spec)->v2;
    out[0] = (struct kv){.key = v2 ? STR("rbg.workloads.x-k8s.io/group-name")
                                   : STR("rolebasedgroup.workloads.x-k8s.io/name"),
                         .value = o->meta.name};
    out[1] =
        (struct kv){.key = v2 ? STR("rbg.workloads.x-k8s.io/role-name") : STR("rolebasedgroup.workloads.x-k8s.io/role"),
                    .value = role->name};
    return (struct kvs){out, 2};
}

bool workload_describe(const struct object *o, uint32_t part, struct arena *a, struct conf_workload *w)
{
    static const struct kvs none;
    const struct group_role *role = role_of(o, part);
    const struct workload *l = role ? &role->w : o->def->kind == K_WORKLOAD ? o->spec : NULL;
    const struct pod *pod = l ? NULL : o->spec;
    const struct pod_spec *spec = l ? l->leader->spec : pod->spec;
    struct kv own[2];
    struct kvs added = role_labels(o, role, own);
    if (!spec || spec->containers.n == 0 || (pod && pod->status && pod->status->ip.n))
        return false;
    *w = (struct conf_workload){
        .kind = str_c(o->def->name), .ns = o->meta.ns, .name = o->meta.name, .controller = controller_of(o, role)};
    if (role)
        w->name = str_c(arena_printf(a, STR_FMT "-" STR_FMT, STR_ARG(o->meta.name), STR_ARG(role->name)));
    w->replicas = l ? (unsigned)l->replicas : 1;
    w->group_size = l ? (unsigned)l->group_size : 1;
    const struct kvs *labels = l ? &l->leader->labels : &o->meta.labels,
                     *notes = l ? &l->leader->annotations : &o->meta.annotations;
    const struct kvs *worker = l && l->worker ? &l->worker->labels : &none;
    w->labels = copy_kvs(a, kvs_patched(a, labels, &added), &w->n_labels);
    w->worker_labels = copy_kvs(a, kvs_patched(a, worker, &added), &w->n_worker_labels);
    w->annotations = copy_kvs(a, *notes, &w->n_annotations);
    describe_command(main_container(spec), a, w);
    w->source = str_c(arena_printf(a, STR_FMT ":%u", STR_ARG(o->file), o->line));
    return true;
}
