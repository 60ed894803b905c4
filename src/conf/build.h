/* conf/build.h - shared by the parts of conf_build. Private to conf. */
#ifndef CONF_BUILD_H
#define CONF_BUILD_H

#include "conf/annotations.h"
#include "conf/regex.h"
#include "conf/store.h"

struct build {
    struct conf *c;
    const struct object **objects; /* sorted by kind */
    uint32_t first[K_N + 1];       /* objects of kind k are first[k] .. first[k+1]-1 */
    struct map by_key;             /* object key -> const struct object * */
    struct map pods_by_ns;         /* namespace -> struct pod_list *: ready pods */
    struct map slices;             /* "ns/service" -> struct slice_list * */
    struct map backend_index;      /* backend key -> index + 1 */
    struct map policy_of;          /* pool's object key -> the InferenceTrafficPolicy that counts for it */
    uint32_t cap_backends, cap_listeners;
    const struct conf *previous;
    struct conf_report *rep;
};
#define EACH_OBJECT(b, k, o)                                                                                           \
    for (uint32_t i_##o = (b)->first[k]; i_##o < (b)->first[(k) + 1]; i_##o++)                                         \
        for (const struct object *o = (b)->objects[i_##o]; o; o = NULL)

const struct object *build_find(const struct build *b, const char *group, const char *kind, struct str ns,
                                struct str name);
void build_note(const struct build *b, enum conf_severity s, const struct object *o, const char *field, const char *fmt,
                ...) PRINTF_LIKE(5, 6);
/* build_pools.c: every pool as a backend; a Service when it is asked for. CONF_NO_BACKEND with *problem when the
 * reference leads nowhere. */
void build_pools(struct build *b);
uint32_t build_backend(struct build *b, const struct object *route, const struct backend_ref *r, struct str *problem);
/* build_models.c: gives every pool its models, objectives and rewrites. After the pools, before any other backend. */
void build_models(struct build *b);
/* build_policy.c: the InferenceTrafficPolicy of a pool, after its annotations and before its endpoints. */
struct no_role { /* pods of a split pool that are in neither set */
    uint32_t n;
    const struct object *pods[3]; /* the first of them */
};
void build_index_policies(struct build *b);
const struct object *build_policy(struct build *b, const struct object *pool,
                                  struct conf_backend *out); /* NULL: it has none */
void build_check_policies(struct build *b);                  /* those that have no effect; after the pools */
void build_warn_no_role(struct build *b, const struct object *policy, const struct no_role *n);
/* build_endpoints.c */
void build_index_pods(struct build *b);
void build_free_pods(struct build *b);
void build_pool_endpoints(struct build *b, const struct object *pool, struct conf_backend *out, struct no_role *none);
void build_service_endpoints(struct build *b, const struct object *service, const struct service_port *port,
                             struct conf_backend *out);
/* build_listeners.c: gateways, what attaches to them, policies */
struct match_entry { /* a match with what orders it */
    struct conf_match m;
    const struct object *route;
    uint32_t rule, match;
};
struct pending { /* a listener under construction */
    struct conf_listener l;
    const struct object *gateway;
    const struct listener *spec;
    const struct object *last_route; /* attached last: a route attaches once */
    struct match_entry *v;           /* heap */
    uint32_t n, cap;
};
void build_listeners(struct build *b);
uint64_t build_policy_timeout(const struct build *b, const char *kind, const struct object *target,
                              struct str section); /* us, 0 none */
/* build_routes.c: adds the matches of a route to a listener; returns how many of its host names fit (0: none, nothing
 * added). */
uint32_t build_attach(struct build *b, const struct object *route, struct pending *p);
void build_check_route(struct build *b, const struct object *route); /* findings that do not depend on the listener */
struct conf_regex *build_regex(struct build *b, struct str pattern); /* lives as long as the snapshot */

#endif
