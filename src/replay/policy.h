/* replay/policy.h - the policies that can be replayed, by name: those of the picker (core/sched.h), the same with
 * knowledge no gateway has (exact caches), and the oracle, which sees the engines themselves.
 *
 * Names are those of routing-anchors' simulator where it has the policy (random, round_robin, least_request,
 * session_hash, gie_qkv, gie_prefix, gie_prefix_full, gie_precise, sgl_cache_aware, dynamo, oracle), and the picker's
 * own (sched_policy_name). */
#ifndef REPLAY_POLICY_H
#define REPLAY_POLICY_H

#include "core/sched.h"

struct policy {
    const char *name;
    enum sched_policy core;
    bool exact;         /* knows what each server has cached */
    bool oracle;        /* the choice is made from the engines' own state; the picker only keeps the books */
    uint64_t scrape_us; /* how often it is used with; 0 the product's default */
    const char *about;
};
const struct policy *policy_find(struct str name); /* case, '-' and '_' do not matter; NULL: none */
void policy_each(void (*fn)(void *ctx, const struct policy *p), void *ctx);

#endif
