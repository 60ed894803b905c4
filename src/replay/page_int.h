/* replay/page_int.h - the page of a replay: what its document (page.c) and its charts (page_chart.c) share. Private to
 * the folder. */
#ifndef REPLAY_PAGE_INT_H
#define REPLAY_PAGE_INT_H

#include "replay/report_int.h"

/* The runs of one setting (trace, profile, servers), as a grid of variants (policy, gateways) and loads (rate or
 * users). */
struct page_set {
    const struct report_run **run;
    const struct report **r; /* of run */
    uint32_t *cell;          /* of run: variant x n_loads + load */
    uint32_t n;
    const struct report **variant, **load; /* a run of each; loads ascend */
    uint32_t n_variants, n_loads;
};
static inline uint32_t page_cell(const struct page_set *s, uint32_t variant, uint32_t load)
{
    return variant * s->n_loads + load;
}
struct report_mean page_mean(const struct page_set *s, uint32_t variant, uint32_t load, const char *figure);
void page_variant(const struct page_set *s, uint32_t variant, struct buf *out); /* its name, as text, not escaped */
void page_load(const struct page_set *s, uint32_t load, struct buf *out);

#define PAGE_VARIANTS 28 /* drawn at most; all are in the table */

/* Each appends one SVG. */
void page_against_load(const struct page_set *s, struct buf *out);
void page_distributions(const struct page_set *s, uint32_t load, struct buf *out);
void page_over_time(const struct page_set *s, uint32_t load, struct buf *out); /* nothing when no run has gauges */
void page_bars(const struct page_set *s, uint32_t load, struct buf *out);

#endif
