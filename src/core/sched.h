/* core/sched.h - the picker: which endpoint answers a request. Pure: no clock, threads, I/O or globals; time and seed
 * are passed in.
 *
 * Five verbs: submit a request (answered now, or later), report its progress and end, update an endpoint, tick. One
 * struct sched serves one InferencePool (or Service). Everything here is called under the owner's lock (sched/port.c)
 * or from one thread. Same inputs in the same order with the same seed give the same decisions.
 *
 * Costs are seconds of expected work, not scores (design 5): what waits ahead of the request on the endpoint + prefill
 * of the part not cached there + what the request costs the others there + the penalty of overflowing the KV cache.
 * Sources: reference scheduling.md 8-9 and routing-anchors.md (policy `estimate`).
 *
 * Own ledger and others' load: every pick is reserved at once. A scrape never overwrites the ledger; what it shows
 * beyond the most of ours that was in flight around the scrape is others' load, kept apart and decayed.
 *
 * Flow control (params.queueing; off by default): a request waits here while every endpoint it may use is full, that
 * is: has more than queue_threshold requests waiting or more than kv_threshold of its KV cache in use, own reservations
 * counted, each endpoint judged by itself. Who goes next when an endpoint has room: the highest priority; inside it the
 * flow that had least service for its weight (virtual token counter, OSDI'24: 1 x input + 2 x output tokens, charged at
 * dispatch by estimate and corrected at the finish; a flow that returns starts at the virtual time of those waiting:
 * idle time earns nothing); inside a flow first come first served, or the nearest deadline, or adaptive (enum
 * sched_order). The endpoint is chosen at that moment, among those with room. Who cannot be placed (model, pinned
 * endpoint) holds nobody up. Every operation is O(log n) in the requests queued; a changed TTL or order
 * (sched_set_params) is O(n log n), the adaptive order's change of direction O(n).
 *
 * Ownership: requests are the caller's and stay valid from sched_submit to sched_finish, sched_cancel or their return
 * by sched_next_decided as rejected. The scheduler owns the endpoint table, the index and the queue's heaps. Memory is
 * bounded by the number of endpoints, the index capacity, the requests in flight and those queued (queue_bytes,
 * queue_requests). */
#ifndef CORE_SCHED_H
#define CORE_SCHED_H

#include "base/list.h"
#include "base/str.h"
#include "core/prefix_hash.h"
#include "core/queue.h"

enum sched_policy {
    SCHED_DEFAULT,      /* least load: queue length, KV utilisation, own reservations; no prefix term */
    SCHED_PREFIX_CACHE, /* DEFAULT plus the estimated cached prefix */
    SCHED_ROUND_ROBIN,  /* plain rotation over healthy endpoints: Services */
    /* Baselines (baselines.c): what others do, to compare with and to fall back on. They use the same endpoints,
       health, ledger, index and queue. */
    SCHED_RANDOM,
    SCHED_LEAST_REQUEST,  /* fewest of our requests in flight */
    SCHED_SESSION_HASH,   /* consistent by the start of the prompt */
    SCHED_REFERENCE,      /* the reference picker's default profile: queue 2, KV use 2, prefix 3 over 4096 tokens */
    SCHED_REFERENCE_DEEP, /* the same, looking at whole prompts */
    SCHED_REFERENCE_LOAD, /* queue and KV use alone */
    SCHED_CACHE_AWARE,    /* the SGLang router's */
    SCHED_DYNAMO,         /* prefill blocks to compute + active blocks */
    SCHED_LMETRIC,        /* (pending prefill + own prefill) x requests */
    SCHED_LEAST_WORK,     /* pending prefill + own prefill, tokens */
    SCHED_PREBLE,         /* Preble's E2 */
    N_SCHED_POLICIES
};
/* Names as in the annotation penstock.dev/policy: "prefix-cache", "least-request", ... parse: case, '-' and '_' do not
 * matter. */
const char *sched_policy_name(enum sched_policy p);
bool sched_policy_parse(struct str name, enum sched_policy *out);
const char *sched_policy_about(enum sched_policy p); /* one line */
bool sched_policy_hashes(enum sched_policy p);       /* it looks at sched_req.hashes: worth making them */

enum sched_order { /* inside a flow */
                   ORDER_FIFO,
                   ORDER_DEADLINE,
                   /* First come first served while waits are short. From the moment on that the earliest arrival in the
                    * queue has waited (in all) longer than queue_late_us the latest arrival goes first: past saturation
                    * not everybody can be served in time, and so those are who still can. The others keep their TTL,
                    * and are served when nobody newer waits. Ends when the earliest has waited no longer than that, or
                    * the queue is empty. It is looked at in every verb before room is given away; while somebody waits
                    * the direction stays for queue_late_us / 2 at least. One direction for the whole queue: who can go
                    * nowhere at present (no endpoint for its model) counts, too. Early refusals go by the order in
                    * effect, Retry-After by the whole backlog: those that come back are new. */
                   ORDER_ADAPTIVE
};
enum sched_discard {
    DISCARD_LOWEST_CLASS,
    DISCARD_EARLIEST
};                 /* who goes when the queue is over capacity: the earliest of the lowest
                    * priority present (a newcomer below all is itself refused), or simply the
                    * earliest (the literal text of the documents) */
enum sched_early { /* who is refused at once when, at the measured drain rate, it would wait past its deadline */
                   EARLY_OFF,
                   EARLY_OWN, /* requests that bring a deadline of their own (ttl_us): it knows what to do with the
                               * answer. The pool's is a bound of the operator's, and clients that do not look at
                               * Retry-After burn through their work when refused at once */
                   EARLY_ALL
};
struct sched_flow_weight {
    uint64_t flow; /* as sched_req.flow */
    double weight; /* > 0; flows not listed have 1 */
};
#define SCHED_MAX_FLOW_WEIGHTS 256

struct sched_params { /* sched_params_init gives the defaults; all may change while requests are in flight */
    enum sched_policy policy;
    /* prefix index (annotations prefix-cache-*) */
    uint32_t block_bytes; /* 64 */
    uint32_t max_blocks;  /* 128: matched finely */
    bool deep;            /* look beyond max_blocks with the coarse index */
    uint64_t
        lru_capacity;   /* 50000: blocks an endpoint is believed to hold at most; its KV memory, where that is less */
    bool lru_by_memory; /* true: nobody has chosen lru_capacity, and a KV memory that holds more counts in full */
    /* prior model of a server, seconds (used until learnt or scraped): step = step_s + prefill_s*tokens + decode_s*seqs
     * + ctx_s*ctx tokens */
    double step_s, prefill_s, quad_s, decode_s, ctx_s;
    uint64_t kv_tokens;     /* KV capacity prior, tokens, when the scrape does not tell */
    uint32_t step_tokens;   /* token budget of one engine step: 8192 */
    double bytes_per_token; /* prior 4 (mission decision 16) */
    uint32_t mean_output;   /* prior of output tokens per request */
    double
        affinity; /* weight of the prefill a request adds (routing-anchors: 3 = 1 own + 2 for those who come later) */
    double tie_band_s; /* costs closer than this (or 2 %) are a tie; four times that (or 5 %) for who holds the prompt: 0.05 */
    /* saturation (picker env settings sd-*) */
    uint32_t queue_threshold; /* 5 waiting requests */
    double kv_threshold;      /* 0.8 */
    uint64_t stale_us;        /* a scrape older than this no longer counts: own ledger alone */
    /* flow control (annotations queueing, queue-ttl, total-queue-capacity, penstock.dev/queue-...). A change takes
     * effect on those waiting, too: switched off, all are sent on at once in their order; a new TTL counts from when
     * they came; less capacity discards. */
    bool queueing;
    enum sched_order queue_order;
    uint64_t queue_late_us; /* 2 s: ORDER_ADAPTIVE; 0 = the newest always first */
    enum sched_discard queue_discard;
    uint64_t queue_bytes;    /* 104857600: prompt bytes of all that wait; a request larger than this alone is refused */
    uint32_t queue_requests; /* 100000 */
    uint64_t queue_ttl_us;   /* 30 s */
    enum sched_early early_refusal; /* EARLY_OWN */
    uint64_t prefix_wait_us; /* 0 = off: a request may wait so long for a full endpoint that holds its prefix while
                                others have room */
    uint64_t conversation_hold_us; /* 0 = off: PREFIX_CACHE with queueing: a prompt that is cached nowhere waits at most so
                                    * long, over all attempts, rather than push out of the caches what was used lately
                                    * (hold.c). The pool's TTL begins afterwards, its own at its arrival. Changed, it
                                    * counts for those held, too; switched off (or queueing, or another policy), all
                                    * are let go */
    const struct sched_flow_weight *flow_weights; /* copied by sched_new and sched_set_params */
    uint32_t n_flow_weights;
    /* P/D: to bring the KV cache of a prompt from its prefill endpoint to its decode endpoint */
    double transfer_s;       /* per token that the decode endpoint does not have: 10e-6 (256 KB/token at 25 GB/s) */
    double transfer_base_s;  /* and for the hand-over: 0.01 */
    uint32_t split_min_tokens; /* 0: split where that is cheaper. Else, to compare with: where so many tokens are not cached at the decode endpoint
                                * that it would go to without a leg */
    /* LoRA adapters */
    double lora_load_s; /* 0.2: to bring an adapter onto a server that does not have it */
    double lora_wait_s; /* 2: to wait for a slot where all are taken by other adapters in use */
    /* health */
    double eject_share; /* 0.5: at most this share of the pool's endpoints (rounded up, but never the last one) is
                           ejected at a time */
    uint64_t eject_us;  /* first ejection; doubles up to eject_max_us; a successful probe ends it sooner */
    uint64_t eject_max_us;
    uint64_t slow_start_us; /* a new or returned endpoint is charged extra cost that fades over this time */
    bool learn_speed;       /* prefill and step factors, cold caches by late answers, KV capacity, first guess of bytes per token */
};
void sched_params_init(struct sched_params *p);

struct ep_ref { /* an endpoint of one sched; gen 0 = none. A stale ref (endpoint removed) is recognised and ignored
                   everywhere */
    uint32_t slot, gen;
};

#define SCHED_MAX_TRIED 8
#define SCHED_EXPLAIN   16

enum sched_skip { /* why an endpoint was no candidate */
                  SKIP_NONE,
                  SKIP_TRIED,
                  SKIP_EJECTED,
                  SKIP_NOT_READY,
                  SKIP_MODEL,
                  SKIP_DRAINING,
                  SKIP_PINNED_ELSEWHERE,
                  SKIP_FULL,       /* no room: queueing */
                  SKIP_LORA_SLOTS, /* all adapter slots there are in use by others: queueing */
                  SKIP_BEYOND_EXPLAIN
};
enum sched_reason { /* why the chosen one was chosen */
                    REASON_NONE,
                    REASON_LEAST_COST,
                    REASON_ONLY_CANDIDATE,
                    REASON_PREFIX_HOLDER,
                    REASON_TIE_LEAST_OWNED,
                    REASON_TIE_RANDOM,
                    REASON_PINNED,
                    REASON_ROUND_ROBIN,
                    REASON_ALL_EJECTED /* nothing healthy: least bad */,
                    REASON_EXPLORE, /* an endpoint believed slow is tried again */
                    REASON_IDLE_CACHE, /* conversation_hold: it was held until, or goes there because, what it pushes
                                          out there is idle */
                    REASON_DRAINED,    /* queueing was switched off while it waited */
                    REASON_POLICY   /* by the rule of a baseline (policy) */
};
enum sched_reject {
    REJECT_NONE,
    REJECT_NO_ENDPOINT,   /* nobody to send it to: at once without queueing, after the TTL with it; at once, too, for a
                             retry that all have failed */
    REJECT_SHED,          /* queueing off, all full, priority < 0 */
    REJECT_QUEUE_FULL,    /* over capacity: refused at once, or discarded later for somebody else */
    REJECT_QUEUE_TIMEOUT, /* waited for its TTL */
    REJECT_DEADLINE,      /* would have: refused at once */
    N_SCHED_REJECTS
};
const char *sched_skip_name(enum sched_skip s);
const char *sched_reason_name(enum sched_reason r);
const char *sched_reject_name(enum sched_reject r);

struct sched_cost { /* one endpoint at the moment of the pick */
    struct ep_ref ep;
    enum sched_skip skip;
    double total_s, wait_s, prefill_s, others_s, kv_s, extra_s,
        lora_s, transfer_s, answer_s;             /* total = wait + affinity x prefill + others + kv + extra (slow start,
                             * recent failures that could not eject) + lora (the adapter has to be loaded,
                             * or must wait for a slot) + transfer (P/D: of the KV cache to there) + answer (P/D: what the
                             * steps of its answer take longer there than where they take least); seconds; INFINITY: not usable */
    uint64_t matched_bytes; /* of the prefix stream, believed cached there, */
    double cached_tokens;   /* and the tokens that they are taken for */
};
struct sched_explain { /* filled at the pick when the request has one: all endpoints when n_endpoints <= SCHED_EXPLAIN,
                        * else the chosen and the cheapest others. When nobody could take it: up to SCHED_EXPLAIN
                        * endpoints as they were when it came */
    uint32_t n, n_endpoints, n_candidates;
    enum sched_reason reason;
    struct sched_cost cost[SCHED_EXPLAIN];
};

enum sched_criticality { CRIT_SHEDDABLE = -1, CRIT_STANDARD = 0, CRIT_CRITICAL = 1 };

struct sched_decision {
    struct ep_ref ep;
    void *user; /* of the endpoint */
    enum sched_reason reason;
    enum sched_reject reject;
    uint64_t matched_bytes, stream_bytes;
    double cost_s, ttft_s; /* expected seconds: whole cost; to the first token */
    uint32_t n_candidates;
    uint64_t queued_us; /* how long it waited in the queue; 0 = it did not */
    bool no_prefill;   /* REJECTED for want of an endpoint: there is one to decode, but none to prefill */
    double split_s, local_s; /* P/D: the costs that were compared, prefill elsewhere and prefill here; INFINITY: was not possible; both 0: nothing to compare */
    double
        retry_after_s; /* REJECTED: when capacity for it can be expected, from the measured drain rate; 0 = not known */
};

struct sched_req {
    /* in: filled by the caller before sched_submit */
    uint64_t id;
    int priority;                       /* integer priorities; criticality gives 1, 0, -1; < 0 may be shed */
    uint64_t flow;                      /* who shares fairly: hash of the fairness id, else of the model's name */
    uint64_t ttl_us;                    /* longest wait in the queue, over all attempts; 0 = the pool's */
    const struct prefix_hashes *hashes; /* NULL: nothing to match; must live until sched_finish */
    const uint32_t *
        held; /* NULL: the index says what is cached where. Else exact knowledge: by slot, how many of the hashes are */
    uint32_t n_held; /* slots in held */
    uint64_t prompt_bytes, prompt_token_ids;
    uint32_t n_media;
    uint64_t max_tokens;  /* 0 unknown */
    uint32_t n_outputs;   /* n x prompts; >= 1 */
    bool light;           /* no work for the model (a list, a version): never waits in the queue */
    bool streamed;        /* the answer comes token by token: the time of the first byte says something about prefill */
    uint64_t model;       /* hash of the name the server must serve (hash_bytes(name, 0)); 0 any */
    struct ep_ref pinned; /* must go there when it is usable (previous_response_id) */
    struct ep_ref tried[SCHED_MAX_TRIED]; /* endpoints that already failed this request */
    uint32_t n_tried;
    struct sched_explain *explain; /* or NULL */
    struct sched_req *leg; /* P/D: the prefill part, see sched_join; NULL: none */
    bool must_split;       /* with leg: the endpoint cannot prefill for itself (SGLang) */
    /* out */
    struct sched_decision d;
    bool split; /* PICKED: leg is reserved, too; false: the endpoint of d prefills itself */
    /* private to core; zero before the first submit, left alone between attempts: a retry keeps its place, and what it
     * has waited counts */
    struct list link;
    uint8_t state;
    struct queue_item q;
    struct list late;              /* decided, not yet handed out by sched_next_decided */
    bool on_hold, hold_over; /* conversation_hold: waits for an idle cache; has waited long enough */
    uint64_t hold_from_us;   /* first held at; 0 never */
    uint64_t pushed_us, waited_us; /* in the queue since; waited there before, over all attempts; */
    uint64_t untimed_us;           /* of that, what does not count for the pool's TTL */
    struct ep_ref wait_for;        /* prefix_wait: the full holder it waits for, until ... */
    uint64_t wait_until_us;        /* ... then; set once */
    uint32_t n_inserted;           /* index entries this request added (rolled back on failure) */
    uint32_t n_chain;              /* hashes that the policy put there, the first so many */
    uint32_t counted;              /* baselines.c: among the active blocks of this epoch; 0 no */
    uint32_t insert_stamp, n_kept;
    double prefill_s;                           /* reserved pending prefill seconds */
    double tokens, uncached_tokens, out_tokens; /* reserved estimates */
    double raw_prefill_s, raw_step_s; /* predicted to the first token, by the prior: prefill ahead and own; steps */
    double raw_saved_s;               /* prefill saved by what is believed cached, by the prior */
    double raw_transfer_s;            /* split: to bring the KV there */
    double matched_tokens;
    bool lora, lora_cold; /* counted among the users of its adapter there; the adapter was not there yet */
    uint64_t picked_us, first_us;
};

enum sched_outcome {
    OUT_OK,
    OUT_CANCELLED, /* the client left: says nothing about the endpoint */
    OUT_CONNECT_FAILED,
    OUT_RESET,
    OUT_GARBAGE,       /* transport failures: eject at once */
    OUT_TIMEOUT,       /* no first byte in time */
    OUT_SERVER_ERROR,  /* 5xx answer */
    OUT_MODEL_MISSING, /* 404 for the model: this endpoint does not serve it (yet) */
    OUT_STALE_CONN     /* reset on a reused idle connection: says nothing */
};
const char *sched_outcome_name(enum sched_outcome o);

struct ep_load {               /* one scrape; fields the page did not have are flagged absent, never taken as 0 */
    uint64_t sent_us, done_us; /* when the scrape was asked for and when the answer was complete */
    bool has_waiting, has_running, has_kv, has_blocks;
    double waiting, running; /* requests, summed over engines */
    double kv_frac;          /* 0..1, the largest over engines: for what is full (saturation, admission) */
    double kv_mean;          /* the mean over engines: for what is cheap (cost of an endpoint); 0 with kv_frac above it: not told, as kv_frac */
    uint64_t kv_tokens;      /* capacity = block size x blocks, summed over engines (has_blocks) */
    uint32_t block_tokens;
    uint32_t max_lora, n_running_lora, n_waiting_lora;
    uint64_t running_lora[16], waiting_lora[16]; /* hash_bytes(name, 0) */
};

struct sched;
struct sched_event;
struct sched *sched_new(const struct sched_params *p, uint64_t seed);
void sched_free(struct sched *s); /* no request may be in flight */
void sched_set_params(struct sched *s, const struct sched_params *p,
                      uint64_t now_us); /* keeps index, ledger, rates; a changed block_bytes
                                         * empties the index */

/* verb 1: submit. PICKED: r->d is the decision and the reservation is made. REJECTED: r->d.reject says why. QUEUED: the
 * answer comes from sched_next_decided after a later verb, of this or any other request: r->d.reject tells PICKED from
 * REJECTED. */
enum sched_answer { SCHED_PICKED, SCHED_REJECTED, SCHED_QUEUED };
enum sched_answer sched_submit(struct sched *s, struct sched_req *r, uint64_t now_us);
struct sched_req *sched_next_decided(struct sched *s); /* NULL when none; call after every verb */
void sched_cancel(struct sched *s, struct sched_req *r,
                  uint64_t now_us); /* takes a queued request back; no-op if not queued */

/* verb 2: report. first_token: releases the pending prefill, confirms the index insert, teaches the speed. finish:
 * exactly once per PICKED request, with or without first_token. usage: 0 = unknown; has_cached: cached_tokens is known.
 */
void sched_first_token(struct sched *s, struct sched_req *r, uint64_t now_us);
struct sched_usage {
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool has_cached;
};
void sched_finish(struct sched *s, struct sched_req *r, enum sched_outcome how, const struct sched_usage *u,
                  uint64_t now_us);

/* P/D separation: the two roles of a pool are two schedulers, each with its own endpoints, policy, index and learnt rates, joined
 * for as long as the pool is split. Requests are submitted to `decode`, where they also wait (params.queueing of both must agree;
 * nobody is ever submitted to `prefill`). A request with a `leg` gets two endpoints in one step or none:
 *   - in `leg` (zero at first; not in flight at sched_submit) the caller fills hashes and held (NULL: nothing to match; known by the index),
 *     tried and n_tried (prefill endpoints that failed it) and explain; sched_submit copies the rest from the request. The leg produces one token.
 *   - split: r->split is set, leg->d tells the prefill endpoint, both are reserved. Not split (never with must_split): as
 *     without a leg, leg->d is zero. Of both ways the cheaper one is taken: cost at the decode endpoint without prefill + cost of the leg + transfer
 *     of what the decode endpoint does not have, against the cost at the decode endpoint with prefill (the decode endpoints of the two may differ);
 *     in both with the time that the answer takes there. r->d.cost_s and ttft_s are of both legs together.
 *   - with params.queueing it is placed when both have room (or, unless must_split, when one endpoint to decode has). conversation_hold and
 *     prefix_wait are not for it.
 *   - with priority < 0 and no queueing it is shed when all are full in the role that decodes or, with must_split, in either; unless must_split it
 *     is not split when all are full in the role that prefills.
 * Both are reported on: the request by the verbs of `decode`, the leg (exactly one sched_finish, too, when split) by those of `prefill`, in any order.
 * sched_prefilled: the KV is on its way, from now on the decode endpoint's answer is due; before, it is neither late nor counted as waiting there.
 * A first token says so, too.
 * sched_prefill_here: the leg has failed (and is finished), and the decode endpoint prefills after all: its ledger takes the whole prompt.
 * Every verb of either may decide requests that wait: sched_next_decided(decode) has them all. The clocks of both go together.
 * NULL parts them (so does sched_free of either): those that wait, with must_split, too, go on as without a leg; split requests in flight are reported on as before.
 * A request with a leg and no join is one without. Replicas (sched_apply): each role's events are played onto the same role. */
void sched_join(struct sched *decode, struct sched *prefill, uint64_t now_us);
void sched_prefilled(struct sched *decode, struct sched_req *r, uint64_t now_us);    /* no-op when not split, or known already */
void sched_prefill_here(struct sched *decode, struct sched_req *r, uint64_t now_us); /* no-op when not split; clears split */

/* verb 3: endpoints. Names and addresses live in the shell; user is handed back in decisions. A new endpoint is not
 * ready until its first successful probe when wait_probe is set. */
struct ep_ref sched_ep_add(struct sched *s, void *user, bool wait_probe, uint64_t now_us);
void sched_ep_remove(struct sched *s, struct ep_ref ep,
                     uint64_t now_us); /* requests in flight there may still be finished */
void sched_ep_drain(struct sched *s, struct ep_ref ep, bool draining, uint64_t now_us); /* no new picks */
void sched_ep_load(struct sched *s, struct ep_ref ep, const struct ep_load *l, uint64_t now_us);
struct sched_model {
    uint64_t name; /* hash */
    bool adapter;  /* LoRA: takes one of the server's adapter slots */
};
void sched_ep_models(struct sched *s, struct ep_ref ep, const struct sched_model *models, size_t n,
                     uint64_t now_us); /* n 0 = unknown: may serve
                                        * anything */
/* Result of a probe (scrape or health check). A failure counts only when no byte has come from the endpoint since
 * `asked_us` (a busy server that answers others late is alive). Returns true when its unanswered requests should be
 * moved: it is ejected by this, or would be but for the ejection share. */
bool sched_ep_probe(struct sched *s, struct ep_ref ep, bool ok, uint64_t asked_us, uint64_t now_us);
void sched_ep_alive(struct sched *s, struct ep_ref ep, uint64_t now_us); /* response bytes were seen */

/* verb 4: tick, about every 100 ms: decay of others' load, end of ejections and slow starts, incremental purge of dead
 * endpoints, deadlines of those queued. Returns when it wants to be called again (absolute us). */
uint64_t sched_tick(struct sched *s, uint64_t now_us);

/* views: for metrics, /debug/endpoints and tests */
struct ep_view {
    struct ep_ref ep;
    void *user;
    bool ready, ejected, draining, slow_start;
    bool full;                     /* no room by the thresholds of saturation */
    double waiting;                /* requests waiting there, as far as known: what the threshold is compared with */
    double kv_use;                 /* share of its KV cache in use, own reservations counted; may exceed 1 */
    uint32_t inflight, unanswered; /* own requests: in flight; of those without a first token, but for those that are */
    uint32_t coming;               /* still to come: another endpoint computes their prompt (P/D) */
    double pending_prefill_s, context_tokens, decode_tokens;
    double others_waiting, others_running;
    struct ep_load load;
    bool load_valid; /* there was a scrape and it is not stale */
    double speed;    /* relative to the pool: 2 = twice as slow */
    uint64_t kv_tokens, index_blocks, picks, failures, ejections;
    uint64_t ejected_until_us;
};
uint32_t sched_ep_slots(const struct sched *s); /* slots are 0..n-1, some unused */
bool sched_ep_view(const struct sched *s, uint32_t slot, uint64_t now_us, struct ep_view *out); /* false: unused slot */
struct sched_stats {
    uint64_t picks, rejects_shed, rejects_no_endpoint, inflight, queued, queued_bytes;
    uint64_t index_entries, index_memberships, index_bytes, index_evictions;
    double bytes_per_token;
    bool saturated;
    double saturation; /* mean over ready endpoints of max(waiting / queue_threshold, kv_use / kv_threshold), each at
                        * most 1; 1 = full. 1 also when none is ready */
    uint32_t n_endpoints, n_ready, n_room; /* room: ready and not full */
    uint64_t dispatched, rejects_full, rejects_timeout,
        rejects_deadline; /* dispatched: out of the queue, to an endpoint */
    bool newest_first;    /* ORDER_ADAPTIVE has turned the order round: somebody waits too long */
    double drain_per_s;   /* requests the queue gave to endpoints per second while somebody waited; 0 = not known */
};
void sched_stats(const struct sched *s, uint64_t now_us, struct sched_stats *out);

/* Event stream (design 5, Replicas): every change of the ledger and the index, in order. apply() plays another
 * scheduler's stream onto this one: its reservations count as others' load, its inserts enter the index. */
enum sched_event_type {
    EV_RESERVE,
    EV_FIRST_TOKEN,
    EV_RELEASE,
    EV_INSERT,
    EV_ROLLBACK,
    EV_EP_ADD,
    EV_EP_REMOVE,
    EV_EJECT,
    EV_RETURN,
    EV_TOUCH
};
struct sched_event {
    enum sched_event_type type;
    uint64_t at_us, req_id;
    void *user; /* endpoint, as given to sched_ep_add: replicas map it by name */
    struct ep_ref ep;
    double prefill_s, tokens, new_tokens, out_tokens; /* new: not cached there */
    bool split;    /* its prompt is computed elsewhere (P/D) */
    bool answered; /* EV_RELEASE: its first token was seen */
    const struct prefix_hashes *hashes;               /* EV_INSERT, EV_ROLLBACK, EV_TOUCH: valid during the call */
    uint64_t stream_bytes;                            /* EV_INSERT */
    uint32_t n_kept;                                  /* EV_ROLLBACK: the endpoint still has the first so many */
};
void sched_on_event(struct sched *s, void (*fn)(void *ctx, const struct sched_event *ev), void *ctx);
void sched_apply(struct sched *s, const struct sched_event *ev, struct ep_ref local, uint64_t now_us);

#endif
