/* replay/policy.c - see policy.h. */
#include "replay/policy.h"

#define FAST_US 50000 /* the reference picker's scrape interval */

static const struct policy policies[] = {
    {"default", SCHED_DEFAULT, false, false, 0, "Penstock: least expected seconds of work, without a prefix term"},
    {"prefix-cache", SCHED_PREFIX_CACHE, false, false, 0, "Penstock: the same with the estimated cached prefix"},
    {"prefix-cache-exact", SCHED_PREFIX_CACHE, true, false, 0, "the same, knowing every server's cache"},
    {"random", SCHED_RANDOM, false, false, 0, "any server"},
    {"round-robin", SCHED_ROUND_ROBIN, false, false, 0, "in turn"},
    {"least-request", SCHED_LEAST_REQUEST, false, false, 0, "fewest requests in flight"},
    {"session-hash", SCHED_SESSION_HASH, false, false, 0, "consistent by the start of the prompt"},
    {"gie-qkv", SCHED_REFERENCE_LOAD, false, false, FAST_US, "reference picker: queue and KV use"},
    {"gie-prefix", SCHED_REFERENCE, false, false, FAST_US,
     "reference picker's default: queue 2, KV 2, prefix 3 over 4096 tokens"},
    {"gie-prefix-full", SCHED_REFERENCE_DEEP, false, false, FAST_US, "the same, looking at whole prompts"},
    {"gie-precise", SCHED_REFERENCE_DEEP, true, false, FAST_US, "the same, knowing every server's cache"},
    {"sgl-cache-aware", SCHED_CACHE_AWARE, false, false, 0, "SGLang router's cache_aware"},
    {"dynamo", SCHED_DYNAMO, true, false, 0, "Dynamo's cost, knowing every server's cache"},
    {"dynamo-estimate", SCHED_DYNAMO, false, false, 0, "the same with the estimated cached prefix"},
    {"lmetric", SCHED_LMETRIC, false, false, 0, "(pending + own prefill) x requests"},
    {"least-work", SCHED_LEAST_WORK, false, false, 0, "pending + own prefill"},
    {"preble", SCHED_PREBLE, false, false, 0, "Preble's E2"},
    {"oracle", SCHED_PREFIX_CACHE, false, true, 0, "sees every server's queue, step and cache; not the future"},
};
static const struct {
    const char *name, *means;
} aliases[] = {
    {"estimate", "prefix-cache"},  {"reference", "gie-prefix"},        {"reference-deep", "gie-prefix-full"},
    {"reference-load", "gie-qkv"}, {"cache-aware", "sgl-cache-aware"},
};

const struct policy *policy_find(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        if (str_same_name(name, str_c(policies[i].name)))
            return &policies[i];
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (str_same_name(name, str_c(aliases[i].name)))
            return policy_find(str_c(aliases[i].means));
    return NULL;
}

void policy_each(void (*fn)(void *ctx, const struct policy *p), void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        fn(ctx, &policies[i]);
}
