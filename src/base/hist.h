/* base/hist.h - log-linear histogram (32 sub-buckets per power of two: values within 3.2 %) for percentiles of our own reports. */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include "base/compiler.h"

#define HIST_BUCKETS (60 * 32)
struct hist {
    uint64_t n, sum, min, max;
    uint32_t v[HIST_BUCKETS];
};

void hist_init(struct hist *h);
void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);
uint64_t hist_quantile(const struct hist *h, double q); /* q in [0,1]; 0 when empty */
double hist_mean(const struct hist *h);

#endif
