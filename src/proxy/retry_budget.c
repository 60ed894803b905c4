/* retry_budget.c - counts of requests and retries by second, over ten seconds. */
#include "proxy/retry.h"

#define FLOOR_PER_SECOND 10

/* The slot of this second, emptied when it still held an older one. Two workers may both empty it: a few counts are
 * lost. */
static unsigned slot_at(struct retry_budget *b, uint64_t second)
{
    unsigned i = (unsigned)(second % RETRY_SLOTS);
    uint64_t old = atomic_load_explicit(&b->slot[i].second, memory_order_relaxed);
    if (old != second && atomic_compare_exchange_strong(&b->slot[i].second, &old, second)) {
        atomic_store_explicit(&b->slot[i].requests, 0, memory_order_relaxed);
        atomic_store_explicit(&b->slot[i].retries, 0, memory_order_relaxed);
    }
    return i;
}

void retry_count_request(struct retry_budget *b, uint64_t now_us)
{
    atomic_fetch_add_explicit(&b->slot[slot_at(b, now_us / 1000000)].requests, 1, memory_order_relaxed);
}

void retry_count_retry(struct retry_budget *b, uint64_t now_us)
{
    atomic_fetch_add_explicit(&b->slot[slot_at(b, now_us / 1000000)].retries, 1, memory_order_relaxed);
}

bool retry_allowed(const struct retry_budget *b, double share, uint64_t now_us)
{
    uint64_t second = now_us / 1000000, requests = 0, retries = 0;
    for (unsigned i = 0; i < RETRY_SLOTS; i++) {
        uint64_t at = atomic_load_explicit(&b->slot[i].second, memory_order_relaxed);
        if (at > second || second - at >= RETRY_SLOTS)
            continue;
        requests += atomic_load_explicit(&b->slot[i].requests, memory_order_relaxed);
        retries += atomic_load_explicit(&b->slot[i].retries, memory_order_relaxed);
    }
    return (double)retries < share * (double)requests + FLOOR_PER_SECOND * RETRY_SLOTS;
}
