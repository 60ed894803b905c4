/* proxy/retry.h - the retry budget of one backend: retries may be a share of the requests of the last ten seconds, plus
 * ten per second. Shared by all workers; approximate at the edges of a second. */
#ifndef PROXY_RETRY_H
#define PROXY_RETRY_H

#include "base/compiler.h"
#include <stdatomic.h>

#define RETRY_SLOTS 10 /* of one second each */
struct retry_budget {
    struct {
        _Atomic uint64_t second;
        _Atomic uint32_t requests, retries;
    } slot[RETRY_SLOTS];
};
void retry_count_request(struct retry_budget *b, uint64_t now_us);
bool retry_allowed(const struct retry_budget *b, double share, uint64_t now_us);
void retry_count_retry(struct retry_budget *b, uint64_t now_us);

#endif
