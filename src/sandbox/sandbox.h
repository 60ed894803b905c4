/* sandbox/sandbox.h - a cluster in one process: simulated model servers for the workloads of the manifests, and the
 * gateway before them. */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include "proxy/run.h"
#include "sandbox/cluster.h"

struct sandbox_opts {
    struct run_opts run;         /* paths, admin, bind, workers, log; hooks and time scale are set by sandbox_main */
    struct cluster_opts cluster; /* time_scale and seed count for the gateway too */
};
/* Runs until SIGTERM or SIGINT; returns the exit code. Prints addresses to stderr. */
int sandbox_main(const struct sandbox_opts *o);

#endif
