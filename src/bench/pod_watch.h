/* bench/pod_watch.h - how evenly a run used the pods: cache use over time, and the picks of the gateway.
 *
 * Cache use is read once a second, from the /metrics of pods given by address (vLLM's, SGLang's and the simulator's gauges, reference model-servers.md 1), or
 * from the gateway's own view of them (/debug/endpoints of its admin server), which also counts its picks. */
#ifndef BENCH_POD_WATCH_H
#define BENCH_POD_WATCH_H

#include "bench/probe.h"

#define POD_WATCH_MAX 1024

struct pod_use {
    char *name, *address;
    double kv_sum;       /* of the samples of the cache's used fraction */
    uint32_t kv_n;
    double kv_now;       /* NAN: unknown in this round */
    uint64_t picks_first, picks_last;
    bool has_picks;
};
struct pod_watch_sum { /* over pods; coefficients of variation are deviation / mean, NAN when unknown */
    double kv_mean;      /* fraction 0..1: of the pods' means over time */
    double kv_cv_means;  /* between the pods' means over time */
    double kv_cv_now;    /* between the pods at one time: sum of deviations / sum of means of the rounds */
    double picks_cv;
    uint64_t picks;
    uint32_t rounds;
    bool has_kv, has_picks;
};

struct pod_watch;
/* pods: metrics pages; admin: NULL or the gateway's. Strings of the URLs must stay. period_us by the loop's clock. */
struct pod_watch *pod_watch_new(struct loop *l, const struct probe_url *pods, uint32_t n_pods, const struct probe_url *admin, uint64_t period_us);
bool pod_watch_begin(struct pod_watch *w, struct errbuf *err) MUST_USE; /* false: the admin page or a pod's page cannot be read */
void pod_watch_end(struct pod_watch *w); /* the last count of picks */
const struct pod_use *pod_watch_pods(const struct pod_watch *w, uint32_t *n);
void pod_watch_sum(const struct pod_watch *w, struct pod_watch_sum *out);
void pod_watch_report(const struct pod_watch *w, struct buf *out); /* a table for people */
void pod_watch_json(const struct pod_watch *w, struct buf *out);   /* members without the braces: "pod_use":[...],... */
void pod_watch_free(struct pod_watch *w);

/* For the tests and the fuzzer: mean of the cache gauge of a metrics page, NAN when there is none; rounds by hand. */
double pod_watch_kv_of(struct str page);
bool pod_watch_admin_page(struct pod_watch *w, struct str json, bool first); /* false: not that page */
void pod_watch_round(struct pod_watch *w); /* takes in what the last round brought */

#endif
