/* sim/engine.h - a simulated inference engine: continuous batching in steps, in virtual time.
 *
 * One loop of steps, each with a token budget: running sequences first (decodes take one token, prefills a chunk), then
 * waiting ones in order of arrival while the whole prompt fits in free blocks; when a running sequence cannot grow, the
 * last running one is preempted and recomputed later. KV blocks are counted by reference and cached by chained hashes
 * (sim/kv.h). A waiting sequence whose adapter would be one too many in the batch is passed over. GPU and memory each
 * keep the adapters used last; bringing one in holds up the whole step, as in the real engine. A token becomes visible at
 * the end of the step that computed it. Pure: time and seed are arguments. Times are microseconds. One thread.
 *
 * Use: submit; then `while ((t = engine_next(e, now)) <= now) engine_advance(e, now, ...)`, and wake up again at
 * engine_next. */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include "sim/profile.h"

struct engine_params {
    struct step_time time;
    uint32_t block_size; /* 16 */
    uint32_t n_blocks;
    uint32_t max_num_seqs;       /* 256 */
    uint32_t max_batched_tokens; /* 2048 */
    uint32_t max_loras;          /* distinct adapters in one batch, and on the GPU; 0 = 1 */
    uint32_t max_cpu_loras;      /* kept in memory, those on the GPU among them; at least max_loras */
    double lora_load_s;          /* from memory to the GPU, */
    double lora_read_s;          /* and before that from disk to memory: the step that needs an adapter takes so much longer */
    bool prefix_caching;
    bool jitter; /* lognormal, sigma 0.03; 1 % of steps take 1.5 times as long */
    uint64_t seed;
};
#define ENGINE_MAX_LORAS 256 /* adapter ids are below */

struct engine;
struct engine_seq; /* a request inside; the handle dies with its last event or with engine_cancel */
struct engine_req {
    const uint32_t *tokens;                           /* copied */
    uint32_t n_tokens;                                /* >= 1 */
    uint32_t out_len;                                 /* tokens to produce, >= 1 */
    uint32_t lora;                                    /* 0 = base model */
    uint64_t salt;                                    /* partitions the prefix cache */
    uint32_t (*token_at)(void *user, uint32_t index); /* the index-th token produced; NULL: arbitrary */
    void *user;
};
struct engine_event { /* one token of one request */
    void *user;
    struct engine_seq *seq;
    uint32_t index, token;
    bool finished;                            /* the last one: seq is gone when the callback returns */
    uint32_t cached_tokens;                   /* of the prompt, found in the prefix cache at first admission */
    uint64_t at_us, arrived_us, scheduled_us; /* now; submitted; first admitted to a batch */
    uint32_t preempted;                       /* times */
};
typedef void engine_event_fn(void *ctx, const struct engine_event *ev);

struct engine *engine_new(const struct engine_params *p);
void engine_free(struct engine *e);
/* NULL when the request can never fit (prompt and output exceed the KV cache). */
struct engine_seq *engine_submit(struct engine *e, const struct engine_req *rq, uint64_t now_us);
/* Leaves at once, its blocks are free. Allowed inside the callback, also for the event's own sequence unless it is
 * finished. */
void engine_cancel(struct engine *e, struct engine_seq *s);
/* End of the step under way, starting one at now_us when there is work and none runs; UINT64_MAX when idle. */
uint64_t engine_next(struct engine *e, uint64_t now_us);
/* Ends every step that is due at now_us, starting the following ones back to back. */
void engine_advance(struct engine *e, uint64_t now_us, engine_event_fn *fn, void *ctx);
void engine_set_slow(struct engine *e, double factor); /* steps that start from now on take factor times as long */
void engine_reset_prefix_cache(struct engine *e);

struct engine_stats {
    uint32_t running, waiting, deferred; /* deferred: of the waiting, those held back for want of an adapter slot */
    double kv_usage_frac;
    uint32_t n_blocks, free_blocks;
    uint64_t preemptions, steps;
    uint64_t lora_loads, lora_reads; /* adapters brought to the GPU for a request; of these from disk */
    uint64_t prefix_query_tokens, prefix_hit_tokens;
    uint64_t prompt_tokens, generation_tokens; /* prompt: counted when its prefill ends */
    uint64_t computed_tokens;                  /* prefill really done */
    uint32_t step_tokens;                      /* of the last step */
    double busy_us;
};
/* live: as of now. Otherwise as the server would publish it: gauges of the end of the last step. */
void engine_stats(const struct engine *e, bool live, struct engine_stats *out);
/* Requests of an adapter, as published. */
void engine_lora(const struct engine *e, uint32_t lora, uint32_t *running, uint32_t *waiting);
enum lora_place { LORA_ON_DISK, LORA_IN_MEMORY, LORA_ON_GPU };
enum lora_place engine_lora_place(const struct engine *e, uint32_t lora);
void engine_lora_add(struct engine *e, uint32_t lora);  /* registered: onto the GPU at once, as if used now; takes no time */
void engine_lora_drop(struct engine *e, uint32_t lora); /* unregistered; none of its requests may be in the engine */

#endif
