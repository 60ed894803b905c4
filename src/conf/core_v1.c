/* conf/core_v1.c - Pod, Service, EndpointSlice and ConfigMap: the members that routing needs, everything else is passed
 * over. */
#include "conf/object.h"

/* Pod */
static const struct fields container_port_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, container_port, name, .max = 63),
                                FIELD("containerPort", F_INT, container_port, port, .flags = F_REQUIRED, .min = 1,
                                      .max = 65535),
                                FIELD_END},
    .size = sizeof(struct container_port),
    .lenient = true};
static const struct fields container_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, container, name, .flags = F_REQUIRED, .min = 1, .max = 63),
                                FIELD("image", F_STR, container, image), FIELD("command", F_STRS, container, command),
                                FIELD("args", F_STRS, container, args),
                                FIELD("ports", F_LIST, container, ports, .max = 64, .sub = &container_port_fields),
                                FIELD_END},
    .size = sizeof(struct container),
    .lenient = true};
const struct fields pod_spec_fields = {
    .v = (const struct field[]){FIELD("containers", F_LIST, pod_spec, containers, .max = 64, .sub = &container_fields),
                                FIELD_END},
    .size = sizeof(struct pod_spec),
    .lenient = true};

static const struct fields condition_fields = {.v = (const struct field[]){FIELD("type", F_STR, condition, type),
                                                                           FIELD("status", F_STR, condition, status),
                                                                           FIELD_END},
                                               .size = sizeof(struct condition),
                                               .lenient = true};

/* Numeric IPv4 or IPv6: only the characters; what connects to it parses it strictly. */
static bool looks_like_ip(struct str s)
{
    bool v6 = s.n && memchr(s.p, ':', s.n), digit = false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool hex = (c >= '0' && c <= '9') || (v6 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
        if (!hex && c != '.' && !(v6 && c == ':'))
            return false;
        digit |= hex;
    }
    return s.n > 0 && s.n < 46 && (digit || v6);
}

static void check_ip(struct dec *d, const struct doc *v, void *out)
{
    struct str s = *(struct str *)out;
    if (s.n && !looks_like_ip(s))
        dec_error(d, v, "\"" STR_FMT "\" is no IP address", STR_ARG(str_first(s, 64)));
}
static const struct fields pod_status_fields = {
    .v =
        (const struct field[]){
            FIELD("phase", F_STR, pod_status, phase), FIELD("podIP", F_STR, pod_status, ip, .max = 45, .fn = check_ip),
            FIELD("conditions", F_LIST, pod_status, conditions, .max = 64, .sub = &condition_fields), FIELD_END},
    .size = sizeof(struct pod_status),
    .lenient = true};
const struct fields pod_fields = {
    .v = (const struct field[]){FIELD("spec", F_OBJ, pod, spec, .sub = &pod_spec_fields),
                                FIELD("status", F_OBJ, pod, status, .sub = &pod_status_fields), FIELD_END},
    .size = sizeof(struct pod),
    .lenient = true};

bool pod_ready(const struct object *o)
{
    const struct pod *p = o->spec;
    if (!p->status || p->status->ip.n == 0 || o->meta.deleted.n || str_eq_c(p->status->phase, "Succeeded") ||
        str_eq_c(p->status->phase, "Failed"))
        return false;
    for (uint32_t i = 0; i < p->status->conditions.n; i++)
        if (str_eq_c(p->status->conditions.v[i].type, "Ready"))
            return str_eq_c(p->status->conditions.v[i].status, "True");
    return false;
}

/* Service */
static void target_port(struct dec *d, const struct doc *v, void *out)
{
    struct service_port *p = out;
    if (v->kind == DOC_STR)
        p->target_name = arena_str(d->arena, v->text);
    else if (v->kind == DOC_INT && v->integer >= 1 && v->integer <= 65535)
        p->target_port = v->integer;
    else
        dec_error(d, v, "must be a port number or the name of a container port");
}

static void port_defaults(struct dec *d, const struct doc *map, void *out)
{
    struct service_port *p = out;
    (void)d;
    (void)map;
    if (p->target_port == 0 && p->target_name.n == 0)
        p->target_port = p->port;
}
static const struct fields service_port_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, service_port, name, .max = 63),
                                FIELD("protocol", F_STR, service_port, protocol, .max = 8),
                                FIELD("port", F_INT, service_port, port, .flags = F_REQUIRED, .min = 1, .max = 65535),
                                {.name = "targetPort", .kind = F_FN, .fn = target_port},
                                FIELD_END},
    .size = sizeof(struct service_port),
    .lenient = true,
    .check = port_defaults};
static const struct fields service_spec_fields = {
    .v = (const struct field[]){FIELD("selector", F_MAP, service_spec, selector, .max = 64),
                                FIELD("ports", F_LIST, service_spec, ports, .max = 100, .sub = &service_port_fields),
                                FIELD("type", F_STR, service_spec, type, .max = 32), FIELD_END},
    .size = sizeof(struct service_spec),
    .lenient = true};
const struct fields service_fields = {
    .v = (const struct field[]){FIELD("spec", F_OBJ, service, spec, .flags = F_REQUIRED, .sub = &service_spec_fields),
                                FIELD_END},
    .size = sizeof(struct service),
    .lenient = true};

/* EndpointSlice. conditions.ready that is not given means ready. */
static const struct fields slice_conditions_fields = {
    .v = (const struct field[]){FIELD("ready", F_BOOL, slice_conditions, ready, .def = 1),
                                FIELD("terminating", F_BOOL, slice_conditions, terminating), FIELD_END},
    .size = sizeof(struct slice_conditions),
    .lenient = true};

static void check_addresses(struct dec *d, const struct doc *map, void *out)
{
    struct slice_endpoint *e = out;
    for (uint32_t i = 0; i < e->addresses.n; i++)
        if (!looks_like_ip(e->addresses.v[i]))
            dec_error(d, map, "addresses: \"" STR_FMT "\" is no IP address", STR_ARG(str_first(e->addresses.v[i], 64)));
}
static const struct fields target_ref_fields = {
    .v = (const struct field[]){FIELD("kind", F_STR, ref, kind), FIELD("name", F_STR, ref, name), FIELD_END},
    .size = sizeof(struct ref),
    .lenient = true};
static const struct fields slice_endpoint_fields = {
    .v =
        (const struct field[]){FIELD("addresses", F_STRS, slice_endpoint, addresses, .flags = F_REQUIRED, .max = 100),
                               FIELD("conditions", F_OBJ, slice_endpoint, conditions, .sub = &slice_conditions_fields),
                               FIELD("targetRef", F_OBJ, slice_endpoint, target, .sub = &target_ref_fields), FIELD_END},
    .size = sizeof(struct slice_endpoint),
    .lenient = true,
    .check = check_addresses};
static const struct fields slice_port_fields = {
    .v = (const struct field[]){FIELD("name", F_STR, slice_port, name, .max = 63),
                                FIELD("port", F_INT, slice_port, port, .min = 1, .max = 65535), FIELD_END},
    .size = sizeof(struct slice_port),
    .lenient = true};
const struct fields slice_fields = {
    .v =
        (const struct field[]){FIELD("endpoints", F_LIST, slice, endpoints, .max = 1000, .sub = &slice_endpoint_fields),
                               FIELD("ports", F_LIST, slice, ports, .max = 100, .sub = &slice_port_fields), FIELD_END},
    .size = sizeof(struct slice),
    .lenient = true};

const struct fields configmap_fields = {
    .v = (const struct field[]){FIELD("data", F_MAP, configmap, data, .max = 1024), FIELD_END},
    .size = sizeof(struct configmap),
    .lenient = true};
