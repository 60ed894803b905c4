/* conf/conf.h - manifests in, snapshots out.
 *
 * A store holds the decoded objects of one configuration (control thread only). Loading is per object: an object that does not validate keeps
 * its last good form, or stays absent, and everything else goes on. Objects vanish when the source that gave them no longer does. Unknown
 * kinds and fields are reported, not fatal. YAML (multi-document, anchors bounded) and JSON, `kind: List`, files and directories
 * (*.yaml *.yml *.json, folders inside as well, hidden ones left out). Kinds: GatewayClass, Gateway, HTTPRoute, ReferenceGrant, BackendTrafficPolicy,
 * InferencePool v1alpha2 and v1, InferenceModel, InferenceObjective, InferenceModelRewrite, InferenceTrafficPolicy, Pod,
 * Service, EndpointSlice, ConfigMap, and for the sandbox Deployment, StatefulSet, LeaderWorkerSet, RoleBasedGroup. Bounds: 32 MiB a file, 10 000
 * files, 200 000 objects, 50 000 values an object, 10 000 values through YAML aliases a document. When the same object is given twice, the later
 * file or source counts. Several sources may be loaded into one store (files, the sandbox's pods, --endpoint). */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/buf.h"
#include "base/err.h"
#include "conf/types.h"

enum conf_severity { CONF_INFO, CONF_WARNING, CONF_ERROR };
struct conf_note { /* one finding */
    enum conf_severity severity;
    struct str file;          /* path as given, or the source's name */
    unsigned line, col;       /* 1-based; 0 = whole file */
    struct str object;        /* "InferencePool default/qwen-pool" or "" */
    struct str field;         /* "spec.targetPortNumber" or "" */
    struct str text;          /* one sentence */
};
struct conf_report { /* zero-initialise; grows up to 10 000 notes */
    struct arena arena;
    struct conf_note *v;
    uint32_t n, cap, errors, warnings, dropped;
};
void conf_report_free(struct conf_report *r);
/* "file:line: error: InferencePool default/x: spec.foo: text" into out (NUL-terminated, truncating). */
void conf_note_format(const struct conf_note *n, char *out, size_t cap);

struct conf_store;
struct conf_store *conf_store_new(void);
void conf_store_free(struct conf_store *s);
/* (Re)reads all paths as one source: returns 0, or -1 when a path cannot be read at all (then nothing changes). Errors in objects are in the report
 * only. Calling it again is the reload. */
int conf_store_load(struct conf_store *s, const char *const *paths, size_t n, struct conf_report *rep);
/* Same for a text under a source name of its own; replaces what that source gave before. */
int conf_store_load_text(struct conf_store *s, const char *source, struct str text, struct conf_report *rep);
/* Changes whenever a file or directory of the paths changed (names, sizes, mtimes, inodes): cheap poll for hot reload. */
uint64_t conf_paths_stamp(const char *const *paths, size_t n);

/* The snapshot: resolves references, computes each pool's settings from its annotations (mission decisions 1, 5, 12, 14), selects endpoints. Never fails: what
 * does not resolve is in the report and in the rule (conf_backend_ref.problem). `previous` gives the values kept for bad annotations. */
struct conf *conf_build(struct conf_store *s, const struct conf *previous, struct conf_report *rep);

/* Writes what the snapshot does, for people (penstock check) and as JSON (/config). */
const char *conf_role_name(enum conf_role r); /* prefill, decode: as the label says it; "" of a pool that is not split */
void conf_explain(const struct conf *c, struct buf *out);
void conf_json(const struct conf *c, struct buf *out);

/* Workloads for the sandbox: what the cluster would start. A RoleBasedGroup gives one for each of its roles, with the labels that its controller
 * adds. Valid until the next load. */
enum conf_controller { /* what makes the pods: it names them, and makes them again when they are deleted */
    CONF_POD, /* nobody */
    CONF_DEPLOYMENT, CONF_STATEFULSET, CONF_GROUPS /* leader and workers, as a LeaderWorkerSet */
};
struct conf_workload {
    struct str kind, ns, name;       /* RoleBasedGroup: <name>-<role> */
    enum conf_controller controller;
    unsigned replicas, group_size;   /* groups: size; else 1 */
    struct { struct str key, value; } *labels, *worker_labels, *annotations; /* of the pod template; groups: leader and worker template */
    uint32_t n_labels, n_worker_labels, n_annotations;
    struct str *argv;                /* command + args of the first container whose command is a model server (else of the first container) */
    uint32_t n_argv;
    uint16_t container_port;         /* first containerPort, 0 none */
    struct str container;            /* its name */
    struct str source;               /* file:line */
};
uint32_t conf_workloads(const struct conf_store *s, const struct conf_workload **out);

#endif
