/* sim/stats_page.h - writes metrics pages as Python's prometheus_client does: one series per engine in each family,
 * labels in alphabetical order. */
#ifndef SIM_STATS_PAGE_H
#define SIM_STATS_PAGE_H

#include "sim/server_priv.h"

struct page_rank { /* what an engine shows */
    const struct rank *r;
    const struct stats *st;
    double running, waiting, deferred, kv;
    double query, hit, prompt, generation, cached, preemptions, hit_rate, speed;
    double used_tokens, free_tokens, max_tokens, page_size, pages, context;
    double bootstrap, inflight, prealloc, transfer; /* legs of pairs */
    char before[128], after[512]; /* its labels before and after "le"; before ends with a comma or is empty */
};
struct page {
    struct server *s;
    struct buf *out;
    struct page_rank *v;
    unsigned n;
    struct buf model; /* the server's first name as the value of a label */
};
void page_init(struct page *p, struct server *s, struct buf *out); /* fills all but the labels, with override */
void page_free(struct page *p);
void page_label(struct buf *out, struct str value); /* escaped */
void page_float(struct buf *out, double v);
void page_head(struct page *p, const char *name, const char *type, const char *help);
/* One sample. mid: labels between before and after, with a comma at their end, or "". */
void page_line(struct page *p, const char *name, const struct page_rank *r, const char *mid, double v);
/* A family: the double at that offset of struct page_rank. A counter's name ends in _total, its HELP and TYPE too. */
void page_gauge(struct page *p, const char *name, const char *help, size_t at);
void page_counter(struct page *p, const char *name, const char *help, size_t at);
void page_const(struct page *p, const char *name, const char *help, double v); /* a gauge, equal for all */
/* The counter of requests by finished_reason. aborted: the server's word for those whose client left. */
void page_finished(struct page *p, const char *name, const char *aborted);
/* The histogram at that offset of struct stats; of its bounds the first n, 0: all. */
void page_hist(struct page *p, const char *name, const char *help, size_t at, unsigned n);
void page_hist_of(struct page *p, const char *name, const struct page_rank *r, const struct sim_hist *h, unsigned n);
#define PAGE_AT(f)  offsetof(struct page_rank, f)
#define STATS_AT(f) offsetof(struct stats, f)

#endif
