/* base/hist.c - log-linear histogram: values below 32 exactly, then 32 buckets for each power of two. */
#include "base/hist.h"

#include <math.h>
#include <string.h>

#define SUB_BITS 5
#define SUB      (1u << SUB_BITS)

void hist_init(struct hist *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

static unsigned bucket_of(uint64_t v)
{
    if (v < SUB)
        return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - SUB_BITS;
    return (shift + 1) * SUB + (unsigned)(v >> shift) - SUB;
}

/* The middle of a bucket. */
static uint64_t bucket_value(unsigned i)
{
    if (i < SUB)
        return i;
    unsigned shift = i / SUB - 1;
    uint64_t low = (uint64_t)(i % SUB + SUB) << shift;
    return low + ((1ull << shift) >> 1);
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void hist_add(struct hist *h, uint64_t value)
{
    uint32_t *v = &h->v[bucket_of(value)];
    if (*v == UINT32_MAX)
        return;
    *v += 1;
    h->n++;
    h->sum = add_saturated(h->sum, value);
    h->min = MIN(h->min, value);
    h->max = MAX(h->max, value);
}

void hist_merge(struct hist *into, const struct hist *from)
{
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        uint32_t room = UINT32_MAX - into->v[i], add = MIN(from->v[i], room);
        into->v[i] += add;
        into->n += add;
    }
    into->sum = add_saturated(into->sum, from->sum);
    into->min = MIN(into->min, from->min);
    into->max = MAX(into->max, from->max);
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    if (h->n == 0)
        return 0;
    if (!(q > 0))
        return h->min;
    if (q >= 1)
        return h->max;
    uint64_t rank = (uint64_t)ceil(q * (double)h->n), seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->v[i];
        if (seen >= rank)
            return MIN(MAX(bucket_value(i), h->min), h->max);
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->n ? (double)h->sum / (double)h->n : 0;
}
