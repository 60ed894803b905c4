/* sim/engine_priv.h - what the parts of the engine share: engine.c (blocks, adapters, the calls of engine.h),
 * engine_exact.c (exact_tail: memory counted by tokens, runs of decode steps) and engine_ahead.c (forecasts). */
#ifndef SIM_ENGINE_PRIV_H
#define SIM_ENGINE_PRIV_H

#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/rng.h"
#include "sim/engine.h"
#include "sim/kv.h"

#define NOT_IN_BATCH UINT32_MAX

struct engine_seq {
    struct list link;     /* waiting or running */
    struct engine_req rq; /* tokens is NULL: they are in tok */
    uint32_t *tok;        /* prompt, then what was produced; NULL with ids */
    uint32_t n_tok;       /* so many; exact_tail: what has to be computed before it decodes (on) */
    uint32_t cap_tok;
    uint32_t n_out, computed; /* exact_tail: neither is kept while it decodes, see exact_produced */
    uint32_t *block;
    uint32_t n_block, cap_block;
    uint64_t *chain; /* hash of each full block, computed lazily */
    uint32_t n_chain, cap_chain;
    uint64_t key_seed; /* adapter and salt, at the root of the hashes */
    uint32_t batch;    /* index in the step under way */
    uint32_t cached, preempted;
    bool running, admitted, deferred, held; /* held: finished, in the list of that name */
    uint64_t arrived_us, scheduled_us;
    /* exact_tail */
    struct list filling;   /* running, n_tok not computed yet */
    struct heap_node ends; /* decoding: the count of steps at which its last token is there; tie: order of arrival */
    uint32_t alone;        /* tokens of its KV outside `block`; without those of decode steps while it decodes */
};

struct slice { /* one sequence's share of a step */
    struct engine_seq *s;
    uint32_t n; /* 0: it only decodes (exact_tail) */
};

struct ahead; /* engine_ahead.c */

struct engine {
    struct engine_params p;
    struct rng rng;
    struct kv kv;
    struct list waiting, running, held;
    uint32_t n_waiting, n_running, n_lora_running;
    uint32_t lora_running[ENGINE_MAX_LORAS], lora_waiting[ENGINE_MAX_LORAS];
    uint32_t shown_lora_running[ENGINE_MAX_LORAS], shown_lora_waiting[ENGINE_MAX_LORAS];
    uint64_t on_gpu[ENGINE_MAX_LORAS], in_memory[ENGINE_MAX_LORAS]; /* adapters: when last used there; 0: not there */
    uint64_t lora_uses;
    struct slice *batch;
    uint32_t n_batch, cap_batch;
    uint32_t step_tokens;
    bool busy; /* a step is under way */
    uint64_t end_us;
    double step_us;     /* of the step under way */
    double end_frac_us; /* remainder, so that steps do not drift by rounding */
    double slow;
    struct engine_stats count; /* counters, and gauges as last published */
    uint64_t advanced_us;      /* latest engine_advance */

    /* exact_tail */
    uint64_t capacity, used;                       /* tokens; used: of blocks with references and of `alone` */
    struct list filling;                           /* in order of admission */
    struct heap ends;                              /* those that decode */
    uint64_t n_decoding, context, waiting_prompts; /* context: prompt and output of those that decode */
    uint64_t n_steps, n_submitted;
    uint32_t run;                 /* steps that end at end_us; more than one only of decode steps */
    bool decode_only, blocked;    /* blocked: the first of the queue does not fit, nor can anyone behind it */
    bool any_lora;                /* an adapter was ever asked for */
    double from_us, end_exact_us; /* of the run under way */
    double first_us, more_us;     /* its first decode step takes first_us, each following one more_us longer */
    uint64_t shown_used;          /* published when the run began */
    uint32_t later_waiting;       /* to be published as waiting */
    uint64_t later_us;            /* from then on; UINT64_MAX: nothing */
    struct ahead *ahead;
};

static inline uint64_t block_key(uint64_t id, uint64_t seed)
{
    return hash_mix(id, seed);
}

/* engine.c */
void seq_free(struct engine_seq *s);
void seq_enter(struct engine *e, struct engine_seq *s); /* from waiting to running */
void seq_leave(struct engine *e, struct engine_seq *s); /* out of its list; it loses its KV */
void seq_preempt(struct engine *e, struct engine_seq *s);
void seq_admitted(struct engine *e, struct engine_seq *s, uint32_t cached, uint64_t now_us);
bool seq_defer(struct engine *e, struct engine_seq *s); /* its adapter would be one too many */
struct engine_event seq_event(const struct engine *e, struct engine_seq *s, uint32_t index);
void batch_add(struct engine *e, struct engine_seq *s, uint32_t n);
double lora_seconds(struct engine *e); /* what bringing the batch's adapters in takes */
double step_jitter(struct engine *e);

/* engine_exact.c */
void exact_init(struct engine *e);
void exact_fini(struct engine *e);
void exact_submitted(struct engine *e, struct engine_seq *s, uint64_t now_us);
void exact_start(struct engine *e, uint64_t now_us, double from_us);
void exact_end(struct engine *e, engine_event_fn *fn, void *ctx);
void exact_settle(struct engine *e);                           /* ends a run with the step under way at advanced_us */
void exact_cancelling(struct engine *e, struct engine_seq *s); /* before it leaves */
void exact_release(struct engine *e, struct engine_seq *s);
void exact_forget(struct engine *e); /* the cache was emptied */
void exact_publish(struct engine *e);
void exact_stats(const struct engine *e, bool live, uint64_t now_us, struct engine_stats *out);
uint32_t exact_passed(const struct engine *e, uint64_t now_us); /* steps of the run under way that have ended */

/* engine_ahead.c */
struct ahead *ahead_new(void);
void ahead_free(struct ahead *a);
void ahead_stale(struct ahead *a);                                  /* something changed */
void ahead_submitted(const struct engine *e, struct engine_seq *s); /* the last of the queue */

#endif
