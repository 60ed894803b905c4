/* replay/report.h - figures of a replayed run, and how they are shown: as JSON, as a table, as a page with charts.
 *
 * Names and rules are those of the simulator of routing-anchors: the first tenth of the requests (by arrival) is warm-up and not counted; in a closed loop
 * what ended between 37.5 % and the end of the time. rps and out_tps are taken over the middle 60 % of the answers. `slo` is the share with a TTFT of at
 * most 2 s, `attained` the share with a TTFT of at most 2 s + 2 x the request's own TTFT on an idle server with nothing cached. Requests that were refused,
 * failed or not answered count as not attained, and are left out of the times. */
#ifndef REPLAY_REPORT_H
#define REPLAY_REPORT_H

#include "base/buf.h"
#include "replay/world.h"

struct report {
    uint32_t n, refused, failed;       /* measured: answered, refused by the gateway, failed or without an answer at the end */
    double ttft_mean, ttft_p50, ttft_p90, ttft_p99, tpot_mean, tpot_p50, tpot_p90, tpot_p99, e2e_mean, hit, rps, out_tps, slo, attained, goodput, busy,
        imbalance, queued_mean;        /* goodput: attained requests a second; imbalance: CV of the servers' computed prefill tokens */
    uint64_t preempts;
    char trace[128], profile[128], policy[64];
    uint32_t servers, users, gateways, seed;
    double rate, wall;
};
/* closed: the run was a closed loop of `stop_s` seconds. Text fields and what the result does not know are left alone. */
void report_make(const struct world_result *r, bool closed, double stop_s, struct report *out);
void report_json(const struct report *r, struct buf *out);           /* one object, one line, with the newline */
void report_table(const struct report *v, uint32_t n, struct buf *out); /* a line per run; means and spread over equal runs with different seeds */

/* The page: a single HTML file with inline SVG, nothing loaded from elsewhere, readable without scripts: TTFT and TPOT distributions, load over time,
 * share attained, cache hits and balance of each run, goodput against rate when runs differ in rate, and the sampled decisions with their costs. */
struct report_run { struct report r; const struct world_result *w; };
void report_page(const struct report_run *v, uint32_t n, struct buf *out);

#endif
