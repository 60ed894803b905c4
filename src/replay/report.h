/* replay/report.h - figures of a replayed run, and how they are shown: as JSON, as a table, as a page with charts.
 *
 * Names and rules are those of the simulator of routing-anchors. The first tenth of the requests (by arrival) is
 * warm-up and not counted; in a closed loop what arrives in [37.5 %, 97 %) of the time is. Times, hit and slo (the
 * share with a TTFT of at most 2 s) are of answered requests; percentiles are interpolated linearly. rps and out_tps:
 * answers that end in the middle 60 % of all (closed: from 37.5 % of the time on). busy counts up to the last answer.
 * imbalance: coefficient of variation of the servers' computed prefill tokens.
 *
 * Ours: `attained` is the share with a TTFT of at most 2 s + 2 x the request's own TTFT on an idle server with nothing
 * cached, of all that arrived: who was refused, failed or had no first token until the end did not attain it. goodput:
 * those that did, over the time in which the counted arrived. queued_mean: seconds from the arrival until it left the
 * gateway. A figure of no requests is NAN, in JSON null. Pure. */
#ifndef REPLAY_REPORT_H
#define REPLAY_REPORT_H

#include "base/buf.h"
#include "replay/world.h"

struct report {
    uint32_t n, refused,
        failed; /* counted: answered, refused by the gateway, failed or not (wholly) answered at the end */
    double ttft_mean, ttft_p50, ttft_p90, ttft_p99, tpot_mean, tpot_p50, tpot_p90, tpot_p99, e2e_mean, hit, rps,
        out_tps, slo, attained, goodput, busy, imbalance, queued_mean,
        split; /* split: P/D, share of the answered whose prompt was computed elsewhere; NAN without */
    uint64_t preempts;
    char trace[128], profile[128], policy[64];
    uint32_t servers, users, gateways, seed;
    double rate, wall;
};
/* closed: the run was a closed loop of `stop_s` seconds. Text fields and what the result does not know are left alone.
 */
void report_make(const struct world_result *r, bool closed, double stop_s, struct report *out);
void report_json(const struct report *r, struct buf *out); /* one object, one line, with the newline */
void report_table(const struct report *v, uint32_t n,
                  struct buf *out); /* a line per run; runs that differ only in the seed are
                                     * one: mean and sample standard deviation */

/* The page: a single HTML file with inline SVG, nothing loaded from elsewhere, readable without scripts: TTFT and TPOT
 * distributions, load over time, share attained, cache hits and balance of each run, goodput against rate when runs
 * differ in rate, and the sampled decisions with their costs. */
struct report_run {
    struct report r;
    const struct world_result *w;
};
void report_page(const struct report_run *v, uint32_t n, struct buf *out);

#endif
