/* sim/profile.h - how fast a simulated server is: step-time coefficients and memory of GPU and model pairs.
 *
 * Two families. The linear profiles (a + b*prefill + c*decoding + d*context + e*pairs) compare policies; the fuller
 * form adds the smooth maximum of reading the weights and multiplying with them, and stands for named hardware. Times
 * are seconds. Pure. */
#ifndef SIM_PROFILE_H
#define SIM_PROFILE_H

#include "base/err.h"
#include "base/str.h"

/* t = base + decode_seq*D + chunk*C + hypot(weights, gemm_token*T) + prefill_token*P + context_token*K + pair*sum(k*(c
 * + k/2)) D decoding sequences, C prefill chunks of k tokens after c computed ones, P = sum of k, T = D + P, K =
 * context of all of them. */
struct step_time {
    double base, decode_seq, chunk, weights, gemm_token, prefill_token, context_token, pair;
};

struct profile {
    char name[64];
    struct step_time time;
    uint64_t kv_tokens;    /* capacity of the KV cache */
    double kv_token_bytes; /* of one token in it, all GPUs together */
    uint32_t max_num_seqs; /* what the server would choose by itself on this hardware */
    uint32_t max_batched_tokens;
    uint32_t max_model_len;
};

struct profile_query {
    struct str name; /* --profile: a linear one, or <gpu>-<model>[-tpN]; empty: from the next three */
    struct str
        hardware;     /* a10, l20, a100-40, a100, h100, h20, h20-141, a6000; empty: the smallest that holds the model */
    struct str model; /* path or name, matched without punctuation; unknown: Qwen2.5-7B */
    unsigned tp;      /* 0 = 1 */
    double memory_frac; /* --gpu-memory-utilization; 0 = 0.9 */
};
/* 0, or -1 with a sentence. */
int profile_find(const struct profile_query *q, struct profile *out, struct errbuf *err) MUST_USE;
double step_seconds(const struct step_time *t, double decode, double chunks, double prefill, double context,
                    double pairs);
/* Names for --help: calls fn for each. */
void profile_each(void (*fn)(void *ctx, const char *name), void *ctx);

#endif
