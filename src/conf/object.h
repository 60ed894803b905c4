/* conf/object.h - decoded resources: one struct object per manifest, with a spec struct by kind. Private to conf. */
#ifndef CONF_OBJECT_H
#define CONF_OBJECT_H

#include "base/map.h"
#include "conf/decode.h"

#define GROUP_GATEWAY     "gateway.networking.k8s.io"
#define GROUP_ENVOY       "gateway.envoyproxy.io"
#define GROUP_POOL_X      "inference.networking.x-k8s.io" /* v1alpha2 */
#define GROUP_POOL        "inference.networking.k8s.io"   /* v1 */
#define OBJECT_MAX_NODES  50000                           /* values in one manifest */
#define STORE_MAX_OBJECTS 200000

enum object_kind {
    K_GATEWAYCLASS,
    K_GATEWAY,
    K_HTTPROUTE,
    K_REFERENCEGRANT,
    K_BTP,
    K_POOL,
    K_MODEL,
    K_TRAFFIC_POLICY,
    K_OBJECTIVE,
    K_REWRITE,
    K_POD,
    K_SERVICE,
    K_SLICE,
    K_CONFIGMAP,
    K_WORKLOAD,
    K_ROLE_GROUP,
    K_N
};

struct meta {
    struct str name, ns;
    struct kvs labels, annotations;
    struct str created; /* RFC 3339 in UTC as printed by Kubernetes: compares as text; "" when not given */
    struct str deleted; /* deletionTimestamp */
};
struct object {
    struct arena arena;
    const struct kind_def *def;
    struct meta meta;
    struct str file;
    uint32_t line;
    struct str id;    /* "HTTPRoute default/x": as findings name it */
    struct str key;   /* "<group>/HTTPRoute/default/x": in the store */
    bool stale;       /* the last good form of a manifest that does not validate now */
    const void *spec; /* struct by def->kind, below */
};
struct kind_def {
    const char *group, *versions; /* versions: " v1 v1beta1 " */
    const char *name;
    enum object_kind kind;
    bool cluster;                /* has no namespace */
    const struct fields *fields; /* of the whole manifest: spec structs begin with the manifest's own members */
};
const struct kind_def *kind_find(struct str group, struct str version, struct str kind, bool *group_known);
const struct kind_def *kind_table(size_t *n);
/* Oldest first; without a time after those with one; then by namespace and name. */
int object_age_cmp(const struct object *a, const struct object *b);

/* A reference as Gateway API writes it. "" = not given. */
struct ref {
    struct str group, kind, ns, name, section;
    int64_t port;
    bool has_group;
};

/* Gateway API */
struct gatewayclass_spec {
    struct str controller;
};
struct gatewayclass {
    struct gatewayclass_spec *spec;
};
enum { FROM_SAME, FROM_ALL, FROM_SELECTOR, FROM_NONE };
struct allowed_ns {
    int from;
};
struct allowed_routes {
    struct allowed_ns *namespaces;
};
struct listener {
    struct str name, hostname, protocol;
    int64_t port;
    struct allowed_routes *allowed;
};
struct gateway_spec {
    struct str class;
    DEC_LIST(struct listener) listeners;
};
struct gateway {
    struct gateway_spec *spec;
};

enum { MATCH_TYPE_EXACT, MATCH_TYPE_REGEX };
struct kv_match {
    int type; /* MATCH_TYPE_* */
    struct str name, value;
};
enum { PATH_TYPE_PREFIX, PATH_TYPE_EXACT, PATH_TYPE_REGEX };
struct path_match {
    int type;
    struct str value;
};
struct route_match {
    struct path_match *path;
    struct str method;
    DEC_LIST(struct kv_match) headers;
    DEC_LIST(struct kv_match) queries;
};
struct header_value {
    struct str name, value;
};
struct header_mod {
    DEC_LIST(struct header_value) set;
    DEC_LIST(struct header_value) add;
    DEC_LIST(struct str) remove;
};
enum { PATH_MOD_FULL, PATH_MOD_PREFIX };
struct path_mod {
    int type;
    struct str full, prefix;
};
struct redirect {
    struct str scheme, hostname;
    struct path_mod *path;
    int64_t port, status;
};
struct rewrite {
    struct str hostname;
    struct path_mod *path;
};
enum {
    FILTER_REQUEST_HEADER,
    FILTER_RESPONSE_HEADER,
    FILTER_REDIRECT,
    FILTER_REWRITE,
    FILTER_MIRROR,
    FILTER_CORS,
    FILTER_EXTENSION,
    FILTER_AUTH
};
struct filter {
    int type;
    struct header_mod *request_header, *response_header;
    struct redirect *redirect;
    struct rewrite *rewrite;
};
struct backend_ref {
    struct ref ref;
    int64_t weight;
    bool has_filters;
};
struct timeouts {
    uint64_t request_us, backend_us;
};
struct route_rule {
    DEC_LIST(struct route_match) matches;
    DEC_LIST(struct filter) filters;
    DEC_LIST(struct backend_ref) backends;
    struct timeouts *timeouts;
};
struct httproute_spec {
    DEC_LIST(struct ref) parents;
    DEC_LIST(struct str) hostnames;
    DEC_LIST(struct route_rule) rules;
};
struct httproute {
    struct httproute_spec *spec;
};
struct refgrant_spec {
    DEC_LIST(struct ref) from;
    DEC_LIST(struct ref) to;
};
struct refgrant {
    struct refgrant_spec *spec;
};
extern const struct fields gatewayclass_fields, gateway_fields, httproute_fields, refgrant_fields;
extern const struct fields header_mod_fields, redirect_fields, rewrite_fields;

/* BackendTrafficPolicy */
struct btp_http {
    uint64_t request_us; /* 0 not given, UINT64_MAX = none */
};
struct btp_timeout {
    struct btp_http *http;
};
struct btp_spec {
    struct ref *target;
    DEC_LIST(struct ref) targets;
    struct btp_timeout *timeout;
};
struct btp {
    struct btp_spec *spec;
};
extern const struct fields btp_fields;

/* Inference extension */
struct pool_port {
    int64_t number;
};
struct pool_selector {
    struct kvs labels;
};
struct pool_spec {
    struct kvs selector;
    DEC_LIST(struct pool_port) ports;
    struct ref *extension;
};
struct pool { /* both versions decode to this */
    struct pool_spec spec;
};
struct target_model {
    struct str name;
    int64_t weight; /* 0 = not given */
};
struct model_spec {
    struct str model_name;
    int criticality; /* 0 Standard (also when absent), 1 Critical, 2 Sheddable */
    struct ref *pool;
    DEC_LIST(struct target_model) targets;
};
struct model {
    struct model_spec *spec;
};
/* Priority, or the criticality word in its place. */
struct objective_spec {
    int64_t priority;
    bool has_priority, has_criticality;
    int criticality; /* as in model_spec */
    struct str model_name; /* "" = chosen by its own name alone */
    struct ref *pool;
};
struct objective {
    struct objective_spec *spec;
};
enum { MODEL_MATCH_EXACT };
struct model_value {
    int type; /* MODEL_MATCH_* */
    struct str value;
};
struct model_match {
    struct model_value *model; /* NULL = any model */
};
struct rewrite_rule {
    DEC_LIST(struct model_match) matches; /* none = any model */
    DEC_LIST(struct target_model) targets;
};
struct model_rewrite_spec {
    struct ref *pool;
    DEC_LIST(struct rewrite_rule) rules;
};
struct model_rewrite {
    struct model_rewrite_spec *spec;
};
/* InferenceTrafficPolicy. A policy is declared by its key in trafficPolicy, and prefixCache is the only one. */
struct token_processor { /* as written, "" = not given */
    struct str block_size, hash_seed, model;
};
struct prefix_indexer {
    struct token_processor *tokens;
};
struct prefix_tracking {
    struct prefix_indexer *indexer;
};
enum { PREFIX_ESTIMATE, PREFIX_TRACKING };
struct prefix_policy {
    int mode; /* PREFIX_* */
    struct prefix_tracking *tracking;
};
struct declared_policies {
    struct prefix_policy *prefix;
};
struct single_profile {
    struct declared_policies *declared;
    struct str ref;
};
struct kv_transfer {
    int64_t bootstrap_port; /* 0 = not given */
};
struct pd_profile {
    struct declared_policies *declared;
    struct str prefill_ref, decode_ref, role_label;
    struct kv_transfer *transfer;
};
struct traffic_profile {
    struct single_profile *single;
    struct pd_profile *pd; /* not both */
};
struct traffic_policy_spec {
    struct ref *pool;
    int runtime; /* enum conf_runtime */
    bool has_runtime;
    struct traffic_profile *profile;
};
struct traffic_policy {
    struct traffic_policy_spec *spec;
};
#define POLICY_NAME "prefixCache"
extern const char *const runtime_words[]; /* enum conf_runtime */
extern const struct fields pool_x_fields, pool_v1_fields, model_fields, traffic_policy_fields, objective_fields,
    model_rewrite_fields;

/* core/v1 and discovery */
struct container_port {
    struct str name;
    int64_t port;
};
struct container {
    struct str name, image;
    DEC_LIST(struct str) command;
    DEC_LIST(struct str) args;
    DEC_LIST(struct container_port) ports;
};
struct pod_spec {
    DEC_LIST(struct container) containers;
};
struct condition {
    struct str type, status;
};
struct pod_status {
    struct str phase, ip;
    DEC_LIST(struct condition) conditions;
};
struct pod {
    struct pod_spec *spec;
    struct pod_status *status;
};
bool pod_ready(const struct object *o);
struct service_port {
    struct str name, protocol, target_name;
    int64_t port, target_port; /* target 0: target_name, else as port */
};
struct service_spec {
    struct kvs selector;
    DEC_LIST(struct service_port) ports;
    struct str type;
};
struct service {
    struct service_spec *spec;
};
struct slice_conditions {
    bool ready, terminating;
};
struct slice_endpoint {
    DEC_LIST(struct str) addresses;
    struct slice_conditions *conditions; /* absent = ready */
    struct ref *target;
};
struct slice_port {
    struct str name;
    int64_t port;
};
struct slice {
    DEC_LIST(struct slice_endpoint) endpoints;
    DEC_LIST(struct slice_port) ports;
};
struct configmap {
    struct kvs data;
};
extern const struct fields pod_fields, service_fields, slice_fields, configmap_fields, pod_spec_fields, ref_fields,
    pool_ref_fields;

/* Workloads */
struct pod_template {
    struct kvs labels, annotations;
    struct pod_spec *spec;
};
struct workload {
    int64_t replicas, group_size;
    struct pod_template *leader, *worker; /* worker: groups only */
};
struct group_role { /* of a RoleBasedGroup */
    struct str name;
    struct workload w;
    enum conf_controller controller;
};
struct role_group {
    DEC_LIST(struct group_role) roles;
    bool v2; /* other label keys */
};
extern const struct fields deployment_fields, statefulset_fields, lws_fields, rbg_v1_fields, rbg_v2_fields;
extern const struct fields template_fields,
    template_patch_fields; /* struct pod_template; a patch need not have a spec */
/* The template with the patch over it (labels and annotations by key; of containers, by name, what the patch gives).
 * Either may be returned as it is; patch may be NULL. */
struct pod_template *template_patched(struct arena *a, const struct pod_template *base,
                                      const struct pod_template *patch);
/* A RoleBasedGroup is as many workloads as it has roles, anything else is one. */
uint32_t workload_parts(const struct object *o);
/* Fills w from a workload, or a Pod without an address; false when it runs nothing the sandbox can play. */
bool workload_describe(const struct object *o, uint32_t part, struct arena *a, struct conf_workload *w);

#endif
