/* sandbox/pod.h - one pod of the simulated cluster. Cluster thread only. */
#ifndef SANDBOX_POD_H
#define SANDBOX_POD_H

#include "base/json.h"
#include "base/list.h"
#include "conf/conf.h"
#include "sandbox/recognise.h"
#include "sim/server.h"

struct pod_label {
    struct str key, value;
};
struct pod {
    struct list link;
    struct arena arena; /* strings below */
    struct str ns, name, ip, workload, kind;
    struct pod_label *labels, *annotations;
    uint32_t n_labels, n_annotations;
    uint16_t port;
    enum server_kind server_kind;
    struct sim_options opt;
    struct server *server; /* NULL: gone, or a worker, which serves nothing */
    struct cluster *cluster;
    struct timer late; /* when the readiness of a dead server ends */
    bool ready;        /* as the cluster believes */
    bool wanted;       /* by the sync under way */
    bool leaving;
    bool gone;              /* deleted: its place is kept until it is made again */
    uint64_t again_us;      /* start-up time of who takes a gone pod's place, set in both; UINT64_MAX: as always */
    unsigned group, member; /* replica, and which of its pods (0: the leader) */
    unsigned incarnation;   /* how many were deleted in its place before */
    enum conf_controller controller;
    uint64_t left_us, template_hash;
    unsigned ip_index;
};

/* As the API server would show it. */
void pod_json(const struct pod *p, struct jsonw *w);
/* For GET /sim/pods. */
void pod_state_json(const struct pod *p, struct jsonw *w);
void pod_free(struct pod *p);

#endif
