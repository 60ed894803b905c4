/* sandbox/cluster.h - the simulated cluster: one thread and loop with a model server per pod, started and stopped as
 * the workloads say.
 *
 * cluster_sync is called by the control thread whenever the manifests were read; it waits until the cluster's thread
 * has started and stopped servers and returns the Pods as the Kubernetes API would show them. What happens to pods by
 * themselves (ready, unready, dead) is told by the changed hook, on the cluster's thread; then sync again. */
#ifndef SANDBOX_CLUSTER_H
#define SANDBOX_CLUSTER_H

#include "base/buf.h"
#include "conf/conf.h"
#include "net/loop.h"

struct cluster;
struct cluster_opts {
    double time_scale;
    uint64_t seed;
    uint64_t startup_us;          /* of every pod */
    struct str profile, hardware; /* for servers whose command names none; empty: by the model */
    unsigned replicas;            /* 0: as the workload says */
    bool jitter;
    struct str control;         /* "127.0.0.1:0" */
    void (*changed)(void *ctx); /* on the cluster's thread */
    void *ctx;
};
/* Starts the thread and opens the control address. Strings of o are borrowed until cluster_free. */
struct cluster *cluster_new(const struct cluster_opts *o, struct errbuf *err);
void cluster_free(struct cluster *c);
/* Makes the pods what the workloads ask for, and appends a List of Pod objects (JSON) to `pods`. Problems of workloads
 * go to the log and, the first of them, to err with -1; the others are started all the same. */
int cluster_sync(struct cluster *c, const struct conf_workload *w, uint32_t n, struct buf *pods, struct errbuf *err);
/* Writes one line per pod: name, address, what it serves. */
void cluster_describe(struct cluster *c, struct buf *out);
const struct addr *cluster_control(const struct cluster *c); /* with the real port */
const char *cluster_subnet(const struct cluster *c);         /* "127.23.42.0/24" */

#endif
