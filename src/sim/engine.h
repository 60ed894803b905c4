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
    /* For long replays. quiet: of a request only its first and its last token are reported (one event when they are the same), and a run of steps in
     * which sequences only decode passes in one go, with the result it would have had step by step, up to rounding of a microsecond a step; a request
     * that comes ends the run at the end of the step under way. Needs exact_tail; excludes jitter. exact_tail: only blocks of engine_req.ids are cached
     * and shared, whatever the adapter (give each its own ids); all other tokens of a sequence count one by one, not in blocks; tokens are not looked at. Each step serves those that decode first,
     * then chunks; the context of a sequence that decodes is its prompt and its output so far. */
    bool quiet, exact_tail;
    uint64_t seed;
};
#define ENGINE_MAX_LORAS 256 /* adapter ids are below */

struct engine;
struct engine_seq; /* a request inside; the handle dies with its last event (unless held) or with engine_cancel */
struct engine_req {
    const uint32_t *tokens;                           /* copied */
    uint32_t n_tokens;                                /* >= 1 */
    const uint64_t *ids; /* instead of tokens (then NULL): one for each block of block_size tokens at the start of the prompt; equal ids = equal block and
                          * equal prompt before it. Borrowed until the request is over */
    uint32_t n_ids;
    uint32_t given;      /* prefill done elsewhere: so many tokens of the prompt come with their KV and are not computed; n_tokens: all but the first
                          * output token is decoding */
    bool hold;           /* when it is finished its KV stays taken, and seq valid, until engine_cancel; not with exact_tail */
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
    bool finished;                            /* the last one: seq is gone when the callback returns, unless it was to be held */
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
 * finished. quiet: this and engine_set_slow happen at the time of the latest engine_advance, so call that before. */
void engine_cancel(struct engine *e, struct engine_seq *s);
/* Blocks it has now; valid until the engine's next call. */
const uint32_t *engine_blocks(const struct engine_seq *s, uint32_t *n);
/* End of the step under way, starting one at now_us when there is work and none runs; UINT64_MAX when idle. */
uint64_t engine_next(struct engine *e, uint64_t now_us);
/* Ends every step that is due at now_us, starting the following ones back to back. */
void engine_advance(struct engine *e, uint64_t now_us, engine_event_fn *fn, void *ctx);
void engine_set_slow(struct engine *e, double factor); /* steps that start from now on take factor times as long */
void engine_reset_prefix_cache(struct engine *e);
void engine_set_prefix_caching(struct engine *e, bool on); /* off also forgets what is cached */

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
    double step_us;                            /* what it took; 0 with exact_tail */
    double busy_us;
};
/* live: as of now. Otherwise as the server would publish it: gauges of the end of the last step. */
void engine_stats(const struct engine *e, bool live, struct engine_stats *out);
/* The same as published at `now_us`, also in the middle of a run of decode steps (quiet). */
void engine_published(const struct engine *e, uint64_t now_us, struct engine_stats *out);
/* Blocks at the start of a prompt of these ids that are cached or in use now; at most (n_tokens - 1) / block_size. Base
 * model and no salt; exact_tail: any adapter. */
uint32_t engine_held(const struct engine *e, const uint64_t *ids, uint32_t n_ids, uint32_t n_tokens);
/* What an oracle sees: what a prompt would meet here now. Nothing of the future: no output lengths. Tokens are those still to be computed, after the step under
 * way; blocks that those ahead of it will have computed count as cached. Base model, no salt; exact_tail only. Cheap while nothing
 * changes: what lies ahead is kept until then. */
struct engine_forecast {
    double rest_s;                  /* until the step under way ends; of a run of decode steps half a step */
    double ahead_tokens, ahead_pairs; /* prefill of those admitted and waiting; pairs: sum(k (context - k / 2)) */
    double waiting_tokens;          /* of those, not yet admitted: their KV is still to be taken */
    double waiting_prompts;         /* their whole prompts, cached or not */
    double new_tokens;              /* of this prompt, not cached */
    double used_tokens, context_tokens; /* KV in use; context of decoding sequences */
    uint32_t decoding, running;
};
void engine_forecast(const struct engine *e, const uint64_t *ids, uint32_t n_ids, uint32_t n_tokens, uint64_t now_us, struct engine_forecast *out);
/* Requests of an adapter, as published. */
void engine_lora(const struct engine *e, uint32_t lora, uint32_t *running, uint32_t *waiting);
enum lora_place { LORA_ON_DISK, LORA_IN_MEMORY, LORA_ON_GPU };
enum lora_place engine_lora_place(const struct engine *e, uint32_t lora);
void engine_lora_add(struct engine *e, uint32_t lora);  /* registered: onto the GPU at once, as if used now; takes no time */
void engine_lora_drop(struct engine *e, uint32_t lora); /* unregistered; none of its requests may be in the engine */

#endif
