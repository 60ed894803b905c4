/* replay/report_int.h - what JSON, table and page of the figures share. Private to the folder. */
#ifndef REPLAY_REPORT_INT_H
#define REPLAY_REPORT_INT_H

#include "replay/report.h"

struct report_figure {
    const char *key;         /* in JSON */
    const char *name, *unit; /* in tables; the unit may be empty */
    double scale;            /* value in the unit = value x scale */
    size_t offset;           /* in struct report */
    enum { FIGURE_REAL, FIGURE_U32, FIGURE_U64 } kind;
    bool ours; /* not one of the simulator's */
};
extern const struct report_figure report_figures[]; /* in the order of JSON; the simulator's first */
extern const size_t report_n_figures;
const struct report_figure *report_figure_of(const char *key);              /* CHECKs that there is one */
double report_value(const struct report *r, const struct report_figure *f); /* not scaled */

struct report_span { /* of arrivals that count: [from, until) */
    double from, until;
};
struct report_span report_span_of(const struct world_result *r, bool closed, double stop_s);
bool report_counts(const struct world_request *q, struct report_span s);
bool report_attained(const struct world_request *q);

/* Runs that differ only in the seed are a group. Writes the group of each run; groups are numbered in the order of
 * their first runs. Returns how many. */
uint32_t report_group(const struct report *const *v, uint32_t n, uint32_t *group);
bool report_same_setting(const struct report *a, const struct report *b); /* trace, profile, servers */
void report_setting(const struct report *r, struct buf *out);             /* "chat, 8 x h100-qwen3-32b" */

struct report_mean {
    double mean, spread, low, high; /* spread: sample standard deviation, 0 of one */
    uint32_t n;
};
/* Over the runs of a group that have the figure. n 0: none has. */
struct report_mean report_mean_of(const struct report *const *v, uint32_t n, const uint32_t *group, uint32_t which,
                                  const struct report_figure *f);

#define REPORT_CELL 48
/* "12.3 ±0.4" in the figure's unit; of counts the mean alone; "-" when there is none. */
void report_cell(struct report_mean m, const struct report_figure *f, char out[REPORT_CELL]);
/* "3.2", with three significant digits. */
void report_digits(double v, char *out, size_t size);

#endif
