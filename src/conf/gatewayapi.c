/* conf/gatewayapi.c - GatewayClass, Gateway, HTTPRoute and ReferenceGrant of gateway.networking.k8s.io. */
#include "conf/object.h"
#include "conf/regex.h"

#define ROUTE_MAX_MATCHES 128 /* Gateway API's own limit */

/* GatewayClass */
static const struct fields gatewayclass_spec_fields = {
    .v = (const struct field[]){FIELD("controllerName", F_STR, gatewayclass_spec, controller, .flags = F_REQUIRED,
                                      .min = 1, .max = 253),
                                FIELD_SKIP("description"), FIELD_LATER("parametersRef"), FIELD_END},
    .size = sizeof(struct gatewayclass_spec)};
const struct fields gatewayclass_fields = {
    .v =
        (const struct field[]){
            FIELD_SKIP_META,
            FIELD("spec", F_OBJ, gatewayclass, spec, .flags = F_REQUIRED, .sub = &gatewayclass_spec_fields), FIELD_END},
    .size = sizeof(struct gatewayclass)};

/* A host name, "*.name" where a wildcard is allowed. Kubernetes wants lower case, so a match never has to fold. */
static void check_hostname(struct dec *d, const struct doc *v, void *out)
{
    struct str s = *(struct str *)out;
    if (!dns_name_ok(str_starts(s, STR("*.")) ? str_from(s, 2) : s, 253))
        dec_error(d, v, "\"" STR_FMT "\" is no host name in lower case, optionally with a leading \"*.\"",
                  STR_ARG(str_first(s, 64)));
}

/* Gateway */
static const char *const from_words[] = {"Same", "All", "Selector", "None", NULL};
static const struct fields allowed_ns_fields = {
    .v = (const struct field[]){FIELD("from", F_ENUM, allowed_ns, from, .words = from_words), FIELD_LATER("selector"),
                                FIELD_END},
    .size = sizeof(struct allowed_ns)};
static const struct fields allowed_routes_fields = {
    .v = (const struct field[]){FIELD("namespaces", F_OBJ, allowed_routes, namespaces, .sub = &allowed_ns_fields),
                                FIELD_SKIP("kinds"), FIELD_END},
    .size = sizeof(struct allowed_routes)};
static const struct fields listener_fields = {
    .v =
        (const struct field[]){
            FIELD("name", F_STR, listener, name, .flags = F_REQUIRED, .min = 1, .max = 253, .fn = dec_dns_name),
            FIELD("hostname", F_STR, listener, hostname, .min = 1, .max = 253, .fn = check_hostname),
            FIELD("port", F_INT, listener, port, .flags = F_REQUIRED, .min = 1, .max = 65535),
            FIELD("protocol", F_STR, listener, protocol, .flags = F_REQUIRED, .min = 1, .max = 255),
            FIELD("allowedRoutes", F_OBJ, listener, allowed, .sub = &allowed_routes_fields), FIELD_LATER("tls"),
            FIELD_END},
    .size = sizeof(struct listener)};

static void check_gateway(struct dec *d, const struct doc *map, void *out)
{
    struct gateway_spec *g = out;
    const struct doc *list = doc_get(map, "listeners");
    for (uint32_t i = 0; i < g->listeners.n; i++) {
        for (uint32_t k = 0; k < i; k++) {
            size_t mark = dec_push(d, ".listeners[%u]", i);
            struct listener *a = &g->listeners.v[i], *b = &g->listeners.v[k];
            if (str_eq(a->name, b->name))
                dec_error(d, list->items[i], "the name \"" STR_FMT "\" is given twice", STR_ARG(a->name));
            else if (a->port == b->port && str_eq(a->hostname, b->hostname))
                dec_error(d, list->items[i], "has port and host name of listener \"" STR_FMT "\"", STR_ARG(b->name));
            dec_pop(d, mark);
        }
    }
}

static const struct fields gateway_spec_fields = {
    .v = (const struct field[]){FIELD("gatewayClassName", F_STR, gateway_spec, class, .flags = F_REQUIRED, .min = 1,
                                      .max = 253),
                                FIELD("listeners", F_LIST, gateway_spec, listeners, .flags = F_REQUIRED | F_NONEMPTY,
                                      .max = 64, .sub = &listener_fields),
                                FIELD_LATER("addresses"), FIELD_LATER("infrastructure"),
                                FIELD_LATER("allowedListeners"), FIELD_LATER("tls"), FIELD_END},
    .size = sizeof(struct gateway_spec),
    .check = check_gateway};
const struct fields gateway_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, gateway, spec, .flags = F_REQUIRED, .sub = &gateway_spec_fields),
                                FIELD_END},
    .size = sizeof(struct gateway)};

/* References. A group that is given and empty means the core group, one that is not given has a default by place. */
static void ref_group(struct dec *d, const struct doc *v, void *out)
{
    struct ref *r = out;
    if (v->kind != DOC_STR)
        return dec_error(d, v, "must be a string");
    r->group = arena_str(d->arena, v->text);
    r->has_group = true;
}
#define REF_FIELDS                                                                                                     \
    {.name = "group", .kind = F_FN, .fn = ref_group}, FIELD("kind", F_STR, ref, kind, .min = 1, .max = 63),            \
        FIELD("namespace", F_STR, ref, ns, .min = 1, .max = 63, .fn = dec_dns_name),                                   \
        FIELD("name", F_STR, ref, name, .flags = F_REQUIRED, .min = 1, .max = 253),                                    \
        FIELD("sectionName", F_STR, ref, section, .max = 253), FIELD("port", F_INT, ref, port, .min = 1, .max = 65535)
const struct fields ref_fields = {.v = (const struct field[]){REF_FIELDS, FIELD_END}, .size = sizeof(struct ref)};
/* A pool of the object's own namespace. */
static void check_pool_ref(struct dec *d, const struct doc *map, void *out)
{
    const struct ref *r = out;
    if (r->kind.n && !str_eq_c(r->kind, "InferencePool"))
        dec_error(d, map, "kind must be InferencePool");
}
const struct fields pool_ref_fields = {
    .v = (const struct field[]){{.name = "group", .kind = F_FN, .fn = ref_group},
                                FIELD("kind", F_STR, ref, kind, .max = 63),
                                FIELD("name", F_STR, ref, name, .flags = F_REQUIRED, .min = 1, .max = 253),
                                FIELD_END},
    .size = sizeof(struct ref),
    .check = check_pool_ref};
static const struct fields grant_ref_fields = {
    .v = (const struct field[]){{.name = "group", .kind = F_FN, .fn = ref_group},
                                FIELD("kind", F_STR, ref, kind, .flags = F_REQUIRED, .min = 1, .max = 63),
                                FIELD("namespace", F_STR, ref, ns, .max = 63),
                                FIELD("name", F_STR, ref, name, .max = 253),
                                FIELD_END},
    .size = sizeof(struct ref)};
static const struct fields refgrant_spec_fields = {
    .v =
        (const struct field[]){
            FIELD("from", F_LIST, refgrant_spec, from, .flags = F_REQUIRED, .max = 16, .sub = &grant_ref_fields),
            FIELD("to", F_LIST, refgrant_spec, to, .flags = F_REQUIRED, .max = 16, .sub = &grant_ref_fields),
            FIELD_END},
    .size = sizeof(struct refgrant_spec)};
const struct fields refgrant_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, refgrant, spec, .flags = F_REQUIRED, .sub = &refgrant_spec_fields),
                                FIELD_END},
    .size = sizeof(struct refgrant)};

/* HTTPRoute: matches */
static void check_pattern(struct dec *d, const struct doc *at, struct str pattern)
{
    struct errbuf err;
    struct conf_regex *re = regex_new(pattern, &err);
    if (!re)
        dec_error(d, at, "%s", err.msg);
    regex_free(re);
}

static void check_path(struct dec *d, const struct doc *map, void *out)
{
    struct path_match *p = out;
    if (p->value.n == 0)
        p->value = STR("/");
    if (p->type == PATH_TYPE_REGEX)
        return check_pattern(d, map, p->value);
    if (p->value.p[0] != '/')
        dec_error(d, map, "\"" STR_FMT "\" must begin with /", STR_ARG(str_first(p->value, 64)));
    for (size_t i = 0; i + 1 < p->value.n; i++)
        if (p->value.p[i] == '/' && p->value.p[i + 1] == '/')
            return dec_error(d, map, "must not contain //");
}

static void check_kv_match(struct dec *d, const struct doc *map, void *out)
{
    struct kv_match *m = out;
    if (m->type == MATCH_TYPE_REGEX)
        check_pattern(d, map, m->value);
}

static const char *const kv_match_words[] = {"Exact", "RegularExpression", NULL};
static const struct fields kv_match_fields = {
    .v = (const struct field[]){FIELD("type", F_ENUM, kv_match, type, .words = kv_match_words),
                                FIELD("name", F_STR, kv_match, name, .flags = F_REQUIRED, .min = 1, .max = 256),
                                FIELD("value", F_STR, kv_match, value, .flags = F_REQUIRED, .min = 1, .max = 4096),
                                FIELD_END},
    .size = sizeof(struct kv_match),
    .check = check_kv_match};
static const char *const path_words[] = {"PathPrefix", "Exact", "RegularExpression", NULL};
static const struct fields path_fields = {
    .v = (const struct field[]){FIELD("type", F_ENUM, path_match, type, .words = path_words),
                                FIELD("value", F_STR, path_match, value, .min = 1, .max = 1024), FIELD_END},
    .size = sizeof(struct path_match),
    .check = check_path};

static void check_method(struct dec *d, const struct doc *v, void *out)
{
    static const char *const methods = " GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ";
    struct str s = *(struct str *)out;
    ptrdiff_t at = str_find(str_c(methods), s);
    if (at <= 0 || methods[at - 1] != ' ' || methods[at + (ptrdiff_t)s.n] != ' ')
        dec_error(d, v, "\"" STR_FMT "\" is no method of HTTP", STR_ARG(str_first(s, 32)));
}
static const struct fields match_fields = {
    .v = (const struct field[]){FIELD("path", F_OBJ, route_match, path, .sub = &path_fields),
                                FIELD("headers", F_LIST, route_match, headers, .max = 16, .sub = &kv_match_fields),
                                FIELD("queryParams", F_LIST, route_match, queries, .max = 16, .sub = &kv_match_fields),
                                FIELD("method", F_STR, route_match, method, .min = 1, .max = 16, .fn = check_method),
                                FIELD_END},
    .size = sizeof(struct route_match)};

/* HTTPRoute: rules */
static const struct fields timeouts_fields = {
    .v = (const struct field[]){FIELD("request", F_FN, timeouts, request_us, .fn = dec_gateway_duration),
                                FIELD("backendRequest", F_FN, timeouts, backend_us, .fn = dec_gateway_duration),
                                FIELD_END},
    .size = sizeof(struct timeouts)};

static void backend_filters(struct dec *d, const struct doc *v, void *out)
{
    *(bool *)out = v->kind == DOC_SEQ && v->n > 0;
    if (*(bool *)out)
        dec_warn(d, v, "filters of a single backend are not supported: its share of the requests is answered with 500");
}
static const struct fields backend_fields = {
    .v = (const struct field[]){REF_FIELDS,
                                FIELD("weight", F_INT, backend_ref, weight, .min = 0, .max = 1000000, .def = 1),
                                FIELD("filters", F_FN, backend_ref, has_filters, .fn = backend_filters), FIELD_END},
    .size = sizeof(struct backend_ref)};

static const char *const filter_words[] = {"RequestHeaderModifier",
                                           "ResponseHeaderModifier",
                                           "RequestRedirect",
                                           "URLRewrite",
                                           "RequestMirror",
                                           "CORS",
                                           "ExtensionRef",
                                           "ExternalAuth",
                                           NULL};
static void check_filter(struct dec *d, const struct doc *map, void *out)
{
    struct filter *f = out;
    const void *body[] = {f->request_header, f->response_header, f->redirect, f->rewrite};
    static const char *const member[] = {"requestHeaderModifier", "responseHeaderModifier", "requestRedirect",
                                         "urlRewrite"};
    if (f->type <= FILTER_REWRITE && !body[f->type])
        dec_error(d, map, "type %s needs the member %s", filter_words[f->type], member[f->type]);
    else if (f->type == FILTER_MIRROR || f->type == FILTER_CORS)
        dec_warn(d, map, "%s is not supported: requests are forwarded without it", filter_words[f->type]);
    else if (f->type > FILTER_REWRITE)
        dec_warn(d, map,
                 "%s is not supported: requests of this rule are answered with 500, as they must not pass without it",
                 filter_words[f->type]);
}
static const struct fields filter_fields = {
    .v =
        (const struct field[]){
            FIELD("type", F_ENUM, filter, type, .flags = F_REQUIRED, .words = filter_words),
            FIELD("requestHeaderModifier", F_OBJ, filter, request_header, .sub = &header_mod_fields),
            FIELD("responseHeaderModifier", F_OBJ, filter, response_header, .sub = &header_mod_fields),
            FIELD("requestRedirect", F_OBJ, filter, redirect, .sub = &redirect_fields),
            FIELD("urlRewrite", F_OBJ, filter, rewrite, .sub = &rewrite_fields), FIELD_SKIP("requestMirror"),
            FIELD_SKIP("cors"), FIELD_SKIP("extensionRef"), FIELD_SKIP("externalAuth"), FIELD_END},
    .size = sizeof(struct filter),
    .check = check_filter};

/* Replacing the matched prefix makes sense only where every match of the rule is a prefix. */
static bool only_prefixes(const struct route_rule *r)
{
    for (uint32_t i = 0; i < r->matches.n; i++)
        if (r->matches.v[i].path && r->matches.v[i].path->type != PATH_TYPE_PREFIX)
            return false;
    return true;
}

static void check_rule(struct dec *d, const struct doc *map, void *out)
{
    struct route_rule *r = out;
    unsigned seen = 0;
    for (uint32_t i = 0; i < r->filters.n; i++) {
        const struct filter *f = &r->filters.v[i];
        const struct path_mod *p = f->redirect ? f->redirect->path : f->rewrite ? f->rewrite->path : NULL;
        if (f->type <= FILTER_REWRITE && (seen & BIT(f->type)))
            dec_error(d, map, "filter %s is given twice", filter_words[f->type]);
        if (p && p->type == PATH_MOD_PREFIX && !only_prefixes(r))
            dec_error(d, map, "ReplacePrefixMatch needs matches of type PathPrefix");
        seen |= BIT(f->type);
    }
    if ((seen & BIT(FILTER_REDIRECT)) && (seen & BIT(FILTER_REWRITE)))
        dec_error(d, map, "RequestRedirect and URLRewrite exclude each other");
    if (r->timeouts && r->timeouts->request_us && r->timeouts->backend_us > r->timeouts->request_us &&
        r->timeouts->backend_us != UINT64_MAX)
        dec_error(d, map, "timeouts: backendRequest must not be longer than request");
}
static const struct fields rule_fields = {
    .v = (const struct field[]){FIELD_SKIP("name"),
                                FIELD("matches", F_LIST, route_rule, matches, .max = 64, .sub = &match_fields),
                                FIELD("filters", F_LIST, route_rule, filters, .max = 16, .sub = &filter_fields),
                                FIELD("backendRefs", F_LIST, route_rule, backends, .max = 64, .sub = &backend_fields),
                                FIELD("timeouts", F_OBJ, route_rule, timeouts, .sub = &timeouts_fields),
                                FIELD_LATER("retry"), FIELD_LATER("sessionPersistence"), FIELD_END},
    .size = sizeof(struct route_rule),
    .check = check_rule};

static void check_httproute(struct dec *d, const struct doc *map, void *out)
{
    struct httproute_spec *s = out;
    const struct doc *list = doc_get(map, "hostnames");
    uint32_t matches = 0;
    for (uint32_t i = 0; i < s->hostnames.n; i++) {
        size_t mark = dec_push(d, ".hostnames[%u]", i);
        check_hostname(d, list->items[i], &s->hostnames.v[i]);
        dec_pop(d, mark);
    }
    for (uint32_t i = 0; i < s->rules.n; i++)
        matches += s->rules.v[i].matches.n;
    if (matches > ROUTE_MAX_MATCHES)
        dec_error(d, map, "has %u matches in all rules together, at most %d are allowed", matches, ROUTE_MAX_MATCHES);
}
static const struct fields httproute_spec_fields = {
    .v = (const struct field[]){FIELD("parentRefs", F_LIST, httproute_spec, parents, .max = 32, .sub = &ref_fields),
                                FIELD("hostnames", F_STRS, httproute_spec, hostnames, .max = 16),
                                FIELD("rules", F_LIST, httproute_spec, rules, .max = 64, .sub = &rule_fields),
                                FIELD_LATER("useDefaultGateways"), FIELD_END},
    .size = sizeof(struct httproute_spec),
    .check = check_httproute};
const struct fields httproute_fields = {
    .v =
        (const struct field[]){
            FIELD_SKIP_META, FIELD("spec", F_OBJ, httproute, spec, .flags = F_REQUIRED, .sub = &httproute_spec_fields),
            FIELD_END},
    .size = sizeof(struct httproute)};
