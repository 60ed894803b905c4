/* conf/workload.c - Deployment, StatefulSet, LeaderWorkerSet and bare Pods: what the sandbox starts. */
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
static const struct fields template_fields = {
    .v = (const struct field[]){{.name = "metadata", .kind = F_FN, .fn = template_meta},
                                FIELD("spec", F_OBJ, pod_template, spec, .flags = F_REQUIRED, .sub = &pod_spec_fields),
                                FIELD_END},
    .size = sizeof(struct pod_template),
    .lenient = true};

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

#define COPY_KVS(a, from, to, count)                                                                                   \
    do {                                                                                                               \
        (to) = arena_zalloc((a), ((from)->n + 1) * sizeof *(to));                                                      \
        for (uint32_t i_ = 0; i_ < (from)->n; i_++) {                                                                  \
            (to)[i_].key = (from)->v[i_].key;                                                                          \
            (to)[i_].value = (from)->v[i_].value;                                                                      \
        }                                                                                                              \
        (count) = (from)->n;                                                                                           \
    } while (0)

bool workload_describe(const struct object *o, struct arena *a, struct conf_workload *w)
{
    static const struct kvs none;
    const struct workload *l = o->def->kind == K_WORKLOAD ? o->spec : NULL;
    const struct pod *pod = l ? NULL : o->spec;
    const struct pod_spec *spec = l ? l->leader->spec : pod->spec;
    if (!spec || spec->containers.n == 0 || (pod && pod->status && pod->status->ip.n))
        return false;
    const struct container *c = &spec->containers.v[0];
    for (uint32_t i = spec->containers.n; i-- > 0;)
        if (is_server(&spec->containers.v[i]))
            c = &spec->containers.v[i];
    *w = (struct conf_workload){.kind = str_c(o->def->name), .ns = o->meta.ns, .name = o->meta.name};
    w->replicas = l ? (unsigned)l->replicas : 1;
    w->group_size = l ? (unsigned)l->group_size : 1;
    const struct kvs *labels = l ? &l->leader->labels : &o->meta.labels,
                     *notes = l ? &l->leader->annotations : &o->meta.annotations;
    const struct kvs *worker = l && l->worker ? &l->worker->labels : &none;
    COPY_KVS(a, labels, w->labels, w->n_labels);
    COPY_KVS(a, worker, w->worker_labels, w->n_worker_labels);
    COPY_KVS(a, notes, w->annotations, w->n_annotations);
    describe_command(c, a, w);
    w->source = str_c(arena_printf(a, STR_FMT ":%u", STR_ARG(o->file), o->line));
    return true;
}
