/* conf/types.h - the immutable configuration snapshot that the run time reads: plain structs, no YAML, no Kubernetes types.
 *
 * A struct conf is built by conf_build, reference-counted (conf_ref/conf_unref, thread-safe) and never changes. Everything in it lives in its
 * arena. Strings are NUL-terminated spans. Times are microseconds, 0 = not set. */
#ifndef CONF_TYPES_H
#define CONF_TYPES_H

#include "base/arena.h"
#include "core/sched.h"
#include "http/h1.h"
#include <stdatomic.h>

struct conf_regex; /* compiled, whole-value match, bounded work (conf/regex.c) */

enum conf_match_type { MATCH_EXACT, MATCH_PREFIX, MATCH_REGEX };
struct conf_kv_match { /* header or query parameter */
    enum conf_match_type type; /* EXACT or REGEX */
    struct str name, value;
    enum h1_name id;           /* headers: H_UNKNOWN = compare by name */
    struct conf_regex *re;
};
struct conf_match { /* one HTTPRoute match, in order of Gateway API precedence within its listener */
    struct str hostname;       /* "" any; "*.example.com" wildcard; else exact, lower case */
    enum conf_match_type path_type;
    struct str path;
    struct conf_regex *path_re;
    struct str method;         /* "" any */
    struct conf_kv_match *headers, *queries;
    uint32_t n_headers, n_queries;
    const struct conf_rule *rule;
};

struct conf_header_mod { /* RequestHeaderModifier, ResponseHeaderModifier: remove, then set, then add */
    struct { struct str name, value; } *set, *add;
    struct str *remove;
    uint32_t n_set, n_add, n_remove;
};
struct conf_redirect {
    struct str scheme, hostname, path; /* "" keep */
    enum { PATH_KEEP, PATH_FULL, PATH_PREFIX } path_type;
    uint16_t port;                     /* 0: by the rules of Gateway API */
    unsigned status;                   /* 301, 302, 303, 307, 308 */
};
struct conf_rewrite {
    struct str hostname, path;
    int path_type;                     /* PATH_* above */
};
struct conf_backend_ref {
    uint32_t backend;                  /* index into conf.backends; CONF_NO_BACKEND: does not resolve -> 500 for its share */
    uint32_t weight;
    struct str problem;                /* why it does not resolve */
};
#define CONF_NO_BACKEND UINT32_MAX
struct conf_rule {
    struct str route_ns, route_name;
    uint32_t index;                    /* of the rule in its route */
    struct conf_backend_ref *refs;
    uint32_t n_refs, total_weight;
    struct conf_header_mod *req_mod, *resp_mod;  /* or NULL */
    struct conf_redirect *redirect;              /* or NULL */
    struct conf_rewrite *rewrite;                /* or NULL */
    uint64_t request_timeout_us, backend_timeout_us; /* HTTPRoute timeouts, else BackendTrafficPolicy; 0 = default, UINT64_MAX = none */
};
struct conf_listener {
    struct str gw_ns, gw_name, name, hostname; /* hostname "" = any */
    uint16_t port;
    bool by_model;                     /* some match looks at X-Gateway-Model-Name: the body must be read before matching */
    uint64_t request_timeout_us;       /* BackendTrafficPolicy on the Gateway; 0 = none set */
    struct conf_match *matches;        /* sorted: first match wins */
    uint32_t n_matches;
};

struct conf_target_model {
    struct str name;
    uint32_t weight;                   /* 0 for all = uniform */
};
struct conf_model { /* InferenceModel, the winning one for its name in its pool; else the InferenceObjective that carries the model's name */
    struct str ns, name, model_name;
    enum sched_criticality criticality; /* for labels: the word of the priority */
    int priority;                      /* Critical 1, Standard 0, Sheddable -1; an InferenceObjective may give any */
    struct conf_target_model *targets;
    uint32_t n_targets, total_weight;
};
struct conf_objective { /* InferenceObjective of the pool; chosen by header x-gateway-inference-objective (gie-protocol 1.6) */
    struct str name;
    int priority;                      /* higher first; < 0 may be shed. Criticality words, where given instead: 1, 0, -1 */
};
struct conf_model_rewrite { /* the rule of an InferenceModelRewrite that applies to a model (gie-protocol 1.7) */
    struct str object;                 /* name of the InferenceModelRewrite, for metrics and log */
    struct str model;                  /* "" = any */
    struct conf_target_model *targets; /* at least one */
    uint32_t n_targets, total_weight;
};
enum conf_trust { TRUST_OBJECTIVE = 1, TRUST_FAIRNESS = 2, TRUST_TTL = 4 }; /* request headers the pool believes its clients */
struct conf_setting { /* one annotation or policy field, for /config and check: every annotation of the documents appears */
    struct str key, value;             /* value in effect, as text */
    struct str given;                  /* as written, "" when not given */
    enum { SET_DEFAULT, SET_EFFECTIVE, SET_BAD_KEPT, SET_NOT_YET, SET_NO_EFFECT, SET_UNKNOWN } state;
    struct str note;                   /* why, for NOT_YET, NO_EFFECT, BAD_KEPT */
};
enum conf_runtime { RUNTIME_VLLM, RUNTIME_SGLANG, RUNTIME_TRTLLM };
/* P/D separation (profile.pd of an InferenceTrafficPolicy; ack.md 2.4). The runtime says how the two parts of a request find each other:
 * sglang by bootstrap fields, both parts at once; vllm (NIXL) one after the other. With trt-llm the policy does not validate. */
enum conf_role { ROLE_ANY, /* the pool is not split */ ROLE_PREFILL, ROLE_DECODE };
struct conf_pd {
    struct str role_label;             /* pdRoleLabelName */
    uint16_t bootstrap_port;           /* kvTransfer.bootstrapPort; 8998 (SGLang's default) where it is not given */
    uint32_t n_without_role;           /* selected ready pods that are in neither set: the label is missing, or says something else */
};
/* Where and under which names a pool's servers show their load; what is not given ("", 0) is the runtime's own (core/promtext.h). */
struct conf_metrics {
    uint16_t port;
    struct str path;                   /* begins with / */
    struct str waiting, running, kv_usage, lora_info, cache_info; /* "name" or "name{label=value,...}" (model-servers.md 1.10) */
};
enum conf_unknown_model { UNKNOWN_MODEL_SERVE, UNKNOWN_MODEL_REJECT };

struct conf_endpoint { /* one port of one ready pod */
    struct str ns, pod, host;          /* host: numeric IP */
    uint16_t port;
    uint16_t metrics_port;             /* 0 = port */
    enum conf_role role;
};
struct conf_backend {
    enum { BACKEND_POOL, BACKEND_SERVICE } kind;
    struct str key;                    /* "pool/ns/name" or "service/ns/name:port": identity across snapshots */
    struct str ns, name;
    uint16_t port;                     /* Service port */
    struct conf_endpoint *endpoints;
    uint32_t n_endpoints;
    /* pools only */
    struct sched_params sched;         /* split: of the decode endpoints */
    struct sched_params prefill;       /* split: of the prefill endpoints */
    const struct conf_pd *pd;          /* NULL: not split */
    enum conf_runtime runtime;
    bool runtime_given;                /* by annotation or policy; else it may be recognised by what the servers show */
    struct conf_metrics metrics;
    enum conf_unknown_model unknown_model;
    struct conf_model *models;         /* sorted by model_name */
    uint32_t n_models;
    struct conf_objective *objectives; /* sorted by name */
    uint32_t n_objectives;
    struct conf_model_rewrite *rewrites; /* sorted by model; one per model, "" first */
    uint32_t n_rewrites;
    unsigned trust;                    /* enum conf_trust */
    uint64_t queue_ttl_max_us;         /* a request's header may ask for at most so long a wait in the queue */
    struct conf_setting *settings;
    uint32_t n_settings;
    struct str source;                 /* file:line of the object */
};

struct conf {
    atomic_uint refs;
    struct arena arena;
    uint64_t generation;
    struct conf_listener *listeners;
    uint32_t n_listeners;
    struct conf_backend *backends;
    uint32_t n_backends;
    struct conf_regex **regexes; /* private: freed with the snapshot */
    uint32_t n_regexes;
};

struct conf *conf_ref(struct conf *c);
void conf_unref(struct conf *c); /* NULL allowed */

/* Route matching (conf/route.c): pure. path must be normalised (uri_path_normalise); host lower case without port. model: value the header
 * X-Gateway-Model-Name has for this request (decided by the gateway, never the client's), n 0 = absent. NULL = no route matches (404). */
struct conf_route_req {
    struct str host, path, query, method, model;
    const struct h1_head *head;
};
const struct conf_match *conf_route(const struct conf_listener *l, const struct conf_route_req *rq);
const struct conf_model *conf_find_model(const struct conf_backend *pool, struct str model_name); /* NULL when none */
/* Draws a weighted backend / target: u in [0,1). */
const struct conf_backend_ref *conf_draw_backend(const struct conf_rule *r, double u); /* NULL when all weights are 0 */
struct str conf_draw_target(const struct conf_model *m, double u); /* model_name when it has no targets */
const struct conf_objective *conf_find_objective(const struct conf_backend *pool, struct str name); /* NULL when none */
const struct conf_model_rewrite *conf_find_rewrite(const struct conf_backend *pool, struct str model_name); /* exact before any; NULL */
struct str conf_draw_rewrite(const struct conf_model_rewrite *r, double u);

#endif
