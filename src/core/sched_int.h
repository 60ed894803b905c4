/* core/sched_int.h - what the files of the picker share: endpoints, their ledger, and the arrays a pick scans. Internal
 * to core. */
#ifndef CORE_SCHED_INT_H
#define CORE_SCHED_INT_H

#include "base/rng.h"
#include "core/prefix_index.h"
#include "core/sched.h"
#include "core/sessions.h"

#define SEC            1e6    /* microseconds */
#define REFRESH_US     100000 /* time-dependent terms are recomputed this often, */
#define LATE_FACTOR    2.0    /* waiting this much longer than elsewhere says: slow, before any answer does */
#define LATE_US        20000  /* and who keeps requests waiting for longer than expected, this often */
#define HIST_SLOTS     16     /* own in-flight over time, to tell ours from others' in a scrape */
#define HIST_SLOT_US   250000
#define HIST_WINDOW_US 2000000 /* a scrape may be published this long after it was measured */
#define MEDIA_TOKENS   576.0   /* per image, until usage teaches better (decision 16) */
#define MODEL_COLUMNS  64
#define LORA_MAX       64  /* adapters remembered per endpoint */
#define LORA_LOG       512 /* latest changes of adapters in use */
#define NO_SLOT        UINT32_MAX
#define REMOTE_RATE_S  20.0   /* over so long it is counted what replicas send where */
#define CACHELESS      2      /* misses in a row that answers told of: it caches hardly at all */
#define INDEX_TIME_US  100000 /* the index keeps times in tenths of a second */
#define WORK_SLOTS     6      /* PREBLE: work of the last three minutes */
#define WORK_SLOT_US   30000000

enum req_state {
    REQ_IDLE,
    REQ_QUEUED,
    REQ_COMING, /* picked; another endpoint prefills, and its KV is not yet on its way */
    REQ_PENDING /* picked, no first token */,
    REQ_DECODING,
    REQ_DONE
};
enum learn_kind { LEARN_TTFT, LEARN_GAP, LEARN_TOTAL, LEARN_KINDS };

struct estimate {    /* mean of log(observed / predicted) */
    double log, var; /* var: of a pool: how much single samples differ from their endpoint's mean */
    uint32_t n;
};

struct ledger { /* requests in flight: of this gateway, or of its replicas */
    uint32_t inflight, unanswered, decoding;
    uint32_t coming;                  /* own: in flight, but not there yet (REQ_COMING) */
    double pending_s, pending_tokens; /* prefill without a first token */
    double context, out;              /* tokens of decoding requests; output still expected of all */
    double prompts;                   /* tokens of all */
    double mem;                       /* KV tokens only one request holds */
    double held;                      /* of mem, those of decoding requests: the others' are still to be taken */
};

struct inflight_hist {
    uint32_t max_inflight;
    float min_held;
};

struct work_window {
    double prefill_s[WORK_SLOTS];
    uint64_t at; /* number of the newest slot */
};

struct lora_use {           /* an adapter on an endpoint */
    uint64_t name, left_us; /* left: when the last of ours ended, 0 never */
    uint32_t ours;          /* requests in flight */
    bool others, seen;      /* somebody else uses it, as of the scrape; seen: in the scrape just read */
};
struct lora { /* the first n_used are in use, the longest first; then the others, the latest used first */
    uint32_t n, n_used, max; /* max: slots, 0 not known */
    struct lora_use v[LORA_MAX];
    uint64_t claim, victim;      /* the adapter that waits for a slot here and the one that is to give way; 0 none */
    uint64_t claim_us, asked_us; /* when it gives way; when the claimant last asked */
    bool claimed;                /* claim_us has come */
};
enum lora_at { LORA_NONE /* no adapter, or no slots known */, LORA_HELD, LORA_LOAD, LORA_WAIT };

struct ep {
    uint32_t gen;
    bool used, dying; /* dying: removed, its index memberships not yet purged; the slot waits */
    bool ready, draining, ejected;
    void *user;
    struct list *waiting; /* own requests without a first token, oldest first; the head stays with the slot */
    struct ledger own, remote;
    double remote_rate; /* prefill seconds a second that replicas have sent there lately, as of remote_rate_us */
    uint64_t remote_rate_us;
    uint64_t remote_us; /* latest event of a replica about this endpoint */
    /* scrape */
    struct ep_load load;
    bool has_load;
    uint32_t own_at_load; /* most of ours around the scrape */
    uint32_t own_at_done; /* ours when it arrived */
    double held_at_load;  /* what of ours the reported KV use contains */
    double run_cap;       /* how many it ran at once when a scrape showed others waiting; 0: not known */
    double others_waiting, others_running; /* as of the scrape; decayed by others_decay */
    double decay;                          /* 1 at the scrape, halves with time, 0 when stale */
    struct inflight_hist hist[HIST_SLOTS];
    uint64_t hist_at; /* number of the newest slot */
    /* learnt */
    struct estimate seen[LEARN_KINDS];
    uint64_t seen_us, explored_us;
    double speed;          /* relative to the pool, for people: 2 = twice as slow */
    double prefill, step;  /* absolute factors on the prior's seconds: prefill work; steps that decode */
    double late;           /* lower bound of the speed from the oldest unanswered request; 1: not late */
    double kv_belief;      /* KV capacity in tokens where the scrape does not tell it; 0: the prior */
    double cap_belief;     /* share of its KV the cache seems to keep, from cached_tokens; 0..1 */
    uint32_t cache_misses; /* in a row, where hits were believed */
    /* health */
    uint32_t fails, probe_fails, level; /* in a row; ejections that followed closely on each other */
    uint64_t alive_us, ready_us, ejected_us, until_us, settled_us,
        suspect_us; /* ready: or returned; settled: end of the slow start */
    double extra_s;
    /* models */
    struct sched_model *models;
    uint32_t n_models, n_adapters;
    struct lora *lora;  /* NULL: nothing known of adapters */
    uint32_t fresh;     /* prompts without a home that were placed here, halved everywhere at FRESH_MAX */
    uint64_t last_pick; /* number of the pick: rotation among equals */
    uint64_t picks, failures, ejections;
    double active_blocks;    /* DYNAMO */
    struct work_window work; /* PREBLE */
};

struct scan { /* one float per slot, read by every pick: cost = base + own*own_w + tokens*tok_s + kv(kv_use + new*kv_inv)
               */
    float *base, *own_w, *tok_s, *kv_use, *kv_inv;
    float *full;     /* 0: has room, INFINITY: full, or not usable */
    float *cost;     /* result of the latest pick */
    float *answer;   /* P/D: seconds of a step when all that is in flight decodes */
    float *crowd;    /* P/D: requests there, times the factor on prefill */
    float *other;    /* P/D: cost of the way not looked at now */
    float least_answer; /* P/D: as of the latest pick */
    uint64_t *order; /* among equals the least wins: requests of ours in flight, then the longest not picked */
};

struct model_column { /* what a request for the model costs extra: INFINITY where it is not served, as the adapter it is
                         what lora.c says, else 0 */
    uint64_t model, version, used, used_us;
    float *penalty;
    uint8_t *lora; /* enum lora_at */
    uint32_t cap, n_serving, n_lora;
    uint64_t lora_seen; /* changes taken in */
};

#define DRAIN_CLASSES 8
struct rate { /* events per second of busy time, both fading */
    double n, busy_s;
    uint64_t at_us;
};

struct sched {
    struct sched *peer, *owner; /* P/D: who prefills for the requests of this one; whose requests this one prefills */
    struct sched_params p;
    struct rng rng;
    uint64_t seed;
    struct ep *eps;
    struct scan scan;
    uint32_t n_slots, cap_slots, n_used, n_ejected, n_ready, n_with_models;
    uint64_t now_us, refresh_us, late_us;
    struct prefix_index *index;
    struct sessions *sessions;
    struct hold *hold; /* NULL: off */
    uint64_t n_on_hold; /* queued requests with on_hold */
    struct active *active;    /* DYNAMO, else NULL */
    struct sessions *users;   /* CACHE_AWARE, else NULL: who was sent a block last */
    uint32_t baseline_epoch;  /* counts changes of the policy */
    struct prefix_match held; /* exact knowledge of the request being picked */
    uint32_t held_cap;
    struct model_column columns[MODEL_COLUMNS];
    uint64_t models_version;
    uint32_t lora_max;  /* most slots any endpoint has told of */
    int64_t lora_spare; /* slots of the pool beyond those of the adapters asked for lately */
    uint32_t n_claims;  /* at most so many endpoints have one */
    uint64_t lora_changes;
    uint32_t lora_log[LORA_LOG]; /* slots, by number of the change */
    /* learnt, of the pool */
    struct estimate pool[LEARN_KINDS];
    double bytes_per_token, mean_output, mean_prefill_s, mean_tokens;
    uint32_t n_prompts, n_usages;
    double prefill_factor, step_factor; /* the pool's, as of the last refresh */
    bool bytes_guessed; /* bytes_per_token was corrected once before any answer told */
    double remote_lag_s; /* how old the events of replicas are when they come */
    bool tells_cached;  /* answers tell how much of the prompt was cached */
    uint64_t n_picks, rejects[N_SCHED_REJECTS], inflight, explored_pick;
    uint32_t rr_next, explore_slot; /* explore_slot: believed slow, idle, not seen for a while; NO_SLOT: none */
    /* flow control */
    struct queue *queue;
    struct list decided; /* sched_req.late: answers not yet handed out */
    uint64_t n_arrivals, n_dispatched;
    uint32_t n_room;      /* endpoints with room */
    bool room_gained;     /* since flow_run looked: who was blocked may be placed now */
    bool newest_first;    /* ORDER_ADAPTIVE: somebody waits too long */
    uint64_t reversed_us; /* since then, or since not any more */
    struct rate drain, done;
    struct drain_class { /* the same for one priority alone, while somebody of it waits; of more priorities those that
                            waited longest */
        int priority;
        bool used;
        struct rate r;
    } classes[DRAIN_CLASSES];
    void (*on_event)(void *ctx, const struct sched_event *ev);
    void *event_ctx;
    bool applying; /* events of another are played: not sent on */
};

struct work { /* what a request will need; match_tokens differ by endpoint */
    double tokens, out, stream_bytes;
    bool pair;  /* P/D: the time its answer takes counts, too */
    bool given; /* and another endpoint computes its prompt: it comes by transfer */
};

static inline uint32_t index_time(const struct sched *s) /* now, as the index keeps it */
{
    return (uint32_t)(s->now_us / INDEX_TIME_US);
}

/* endpoint.c */
struct ep *ep_of(struct sched *s, struct ep_ref r); /* NULL: stale */
static inline struct ep_ref ep_ref_of(const struct sched *s, uint32_t slot)
{
    return (struct ep_ref){slot, s->eps[slot].gen};
}
void ep_refresh_all(struct sched *s, uint64_t now_us); /* when due */
void ep_refresh(struct sched *s, uint32_t slot);
void ep_reap(struct sched *s); /* frees slots whose purge is done */
bool ep_usable(const struct ep *e);
const struct model_column *model_column(struct sched *s,
                                        uint64_t model); /* NULL: nobody is excluded, or nobody serves it */

void model_missing(struct sched *s, uint32_t slot, uint64_t model); /* it answered so, whatever its list says */

/* ledger.c */
static inline uint32_t ep_there(const struct ep *e) /* of ours in flight, those that the server has */
{
    return e->own.inflight - e->own.coming;
}
void ledger_reserve(struct sched *s, struct sched_req *r);
void ledger_comes(struct sched *s, struct sched_req *r);    /* no longer REQ_COMING: its answer is due */
void ledger_computes(struct sched *s, struct sched_req *r); /* REQ_PENDING that was to come: its prefill is done here */
void ledger_answered(struct sched *s, struct sched_req *r); /* prefill done */
void ledger_release(struct sched *s, struct sched_req *r);
void ledger_forget(struct ep *e);     /* the endpoint goes: its requests are on their own */
void ledger_overdue(struct sched *s); /* whole answers whose prefill must be over by now */
void hist_advance(struct sched *s, struct ep *e);
void hist_note(struct sched *s, struct ep *e);

/* cost.c */
struct work work_of(const struct sched *s, const struct sched_req *r);
double work_prefill_s(const struct sched *s, double new_tokens, double tokens);
double work_transfer_s(const struct sched *s, double new_tokens);
void cost_update(struct sched *s, uint32_t slot);
void cost_scan(struct sched *s, const struct work *w); /* fills scan.cost as if nothing were cached */
void cost_least_answer(struct sched *s);                    /* before those of a pair */
void cost_scan_pair(struct sched *s, const struct work *w); /* adds what counts with P/D alone */
double cost_of(const struct sched *s, uint32_t slot, const struct work *w, double cached_tokens,
               struct sched_cost *out);
void cost_raw(const struct sched *s, uint32_t slot, const struct work *w, double cached, struct sched_req *r);
double ep_unseen_s(const struct sched *s, const struct ep *e); /* prefill seconds that replicas may have sent and not told yet */
double ep_waiting(const struct sched *s, const struct ep *e); /* what the threshold of saturation is compared with */
double ep_queue(const struct ep *e);                          /* requests waiting there, as far as known */
bool ep_saturated(const struct sched *s, const struct ep *e);
double ep_kv_tokens(const struct sched *s, const struct ep *e);
double ep_kv_use(const struct sched *s, const struct ep *e);
double ep_prefill(const struct ep *e); /* factor on prefill seconds of the prior */
double ep_step(const struct ep *e);    /* ... and on those of a step */

/* pick.c, explain.c */
struct pick { /* one decision in the making */
    struct sched_req *r;
    struct work w;
    const struct prefix_match *match; /* NULL: nothing to match */
    const float *model;               /* penalties, or NULL */
    const uint8_t *lora;              /* NULL: no adapter anywhere */
    uint32_t crowd,
        home;       /* lora.c: with more in flight an endpoint is not preferred for having the adapter; who keeps it */
    bool room_only; /* endpoints without room are no candidates */
    bool fresh;     /* chosen for owning least: counts as placed there */
    uint32_t n, slot; /* candidates; the choice */
    float least;      /* cost */
    enum sched_reason reason;
};
enum sched_answer pick_run(struct sched *s, struct sched_req *r);
void pick_compute(struct sched *s, struct pick *k); /* costs; candidates */
bool pick_choose(struct sched *s, struct pick *k);
void pick_commit(struct sched *s, struct pick *k); /* the choice is made: reserves it */
bool pick_saturated(const struct sched *s);        /* all candidates of what was computed last are full */
bool pick_place(struct sched *s, struct sched_req *r,
                bool room_only); /* chooses and reserves; false: nobody can take it now */
bool pick_full_holder(struct sched *s, struct sched_req *r,
                      uint32_t *slot); /* its choice by prefix, were room no matter, is full */
uint32_t pick_matched(const struct sched *s, const struct pick *k, uint32_t slot); /* hashes */
double pick_cached(const struct sched *s, const struct pick *k, uint32_t slot);    /* tokens */
bool pick_tried(const struct sched_req *r, struct ep_ref ep);
void pick_explain(struct sched *s, const struct pick *k);
void pick_explain_refused(struct sched *s, struct sched_req *r); /* nobody has room for it */

/* pair.c */
static inline bool pair_of(const struct sched *s, const struct sched_req *r) /* it is to have an endpoint of both */
{
    return s->peer && r->leg;
}
void pair_fill(const struct sched_req *r);                             /* its leg, if it has one, from what it is */
bool pair_place(struct sched *s, struct sched_req *r, bool room_only); /* as pick_place */
enum sched_answer pair_run(struct sched *s, struct sched_req *r);      /* as pick_run */
void pair_explain_refused(struct sched *s, struct sched_req *r);
bool pair_lacks_prefill(struct sched *s, const struct sched_req *r); /* somebody could decode, and nobody prefill for it */
void pair_clock(struct sched *s); /* both have the later of their times */
void pair_part(struct sched *s);

/* baselines.c */
uint32_t policy_hashes(const struct sched *s,
                       const struct prefix_hashes *h); /* how many of them it looks at and remembers; NULL: 0 */
const struct prefix_match *policy_match(struct sched *s, const struct sched_req *r); /* NULL: it looks at none */
bool baseline_choose(struct sched *s,
                     struct pick *k); /* among those with a finite scan.cost, at least one; false: not its policy */
void baseline_sent(struct sched *s, struct sched_req *r); /* reserved */
void baseline_computes(struct sched *s, struct sched_req *r); /* reserved as split, and computed here after all */
void baseline_done(struct sched *s, struct sched_req *r); /* before its release */
void baseline_switch(struct sched *s);                    /* the policy is new */
void baseline_free(struct sched *s);

/* hold.c */
struct hold;
void hold_params(struct sched *s);
void hold_arrived(struct sched *s, const struct sched_req *r);  /* submitted for the first time */
void hold_finished(struct sched *s, const struct sched_req *r); /* answered in full */
bool hold_admit(struct sched *s, struct pick *k); /* false: it is to wait (r->on_hold); may choose another slot */
void hold_set(struct sched *s, struct sched_req *r, bool on);
uint64_t hold_until(const struct sched *s, const struct sched_req *r);

/* lora.c */
void lora_take(struct sched *s, uint32_t slot, struct sched_req *r); /* reserved there */
void lora_give(struct sched *s, uint32_t slot, struct sched_req *r); /* released */
void lora_scraped(struct sched *s, uint32_t slot);
void lora_stale(struct sched *s, uint32_t slot);  /* the scrape says nothing any more */
void lora_models(struct sched *s, uint32_t slot); /* its model list changed */
void lora_refresh(struct sched *s);               /* when time has passed */
void lora_forget(struct sched *s, uint32_t slot); /* another process by now: what is not in use is not there */
void lora_column_fill(struct sched *s, struct model_column *c); /* penalty filled in before, for the current slots */
void lora_column_update(struct sched *s, struct model_column *c);
void lora_add(struct sched *s, struct pick *k);         /* to scan.cost, what the column does not have */
void lora_claim(struct sched *s, const struct pick *k); /* nobody has room for it: perhaps only for want of a slot */
double lora_cost(const struct sched *s, const struct pick *k, uint32_t slot);

/* health.c */
void health_request(struct sched *s, uint32_t slot, const struct sched_req *r, enum sched_outcome how);
void health_refresh(struct sched *s, uint32_t slot);
void health_return(struct sched *s, uint32_t slot);
bool health_eject(struct sched *s, uint32_t slot);
void health_ready(struct sched *s, uint32_t slot);

/* learn.c */
void learn_prompt(struct sched *s, const struct work *w, double prefill_s);
void learn_first(struct sched *s, uint32_t slot, struct sched_req *r);
void learn_finish(struct sched *s, uint32_t slot, const struct sched_req *r, const struct sched_usage *u);
void learn_capacity(struct sched *s, uint32_t slot); /* after a scrape */
void learn_cache(struct sched *s, uint32_t slot, struct sched_req *r, const struct sched_usage *u);
void learn_pool(struct sched *s);
void learn_factors(const struct sched *s, struct ep *e);
double learn_late(const struct sched *s,
                  const struct ep *e); /* wait of the oldest unanswered request, 1 = normal; 0: cannot say */
bool learn_due(const struct sched *s, const struct ep *e); /* believed slow for long enough to be tried again */
void learn_forget(struct ep *e);                           /* returned from an ejection: maybe another machine by now */

/* index use */
void index_insert(struct sched *s, uint32_t slot, struct sched_req *r);
void index_rollback(struct sched *s, uint32_t slot, struct sched_req *r);
uint64_t index_cap(const struct sched *s, const struct ep *e);

/* dispatch.c */
enum sched_answer flow_submit(struct sched *s, struct sched_req *r);
enum sched_answer flow_reject(struct sched *s, struct sched_req *r, enum sched_reject why);
void flow_cancel(struct sched *s, struct sched_req *r);
void flow_run(struct sched *s); /* after every verb */
uint64_t flow_tick(struct sched *s);
void flow_params(struct sched *s, bool new_ttl); /* after s->p changed */
void flow_settle(struct sched *s, struct sched_req *r, enum sched_outcome how, const struct sched_usage *u);
double flow_drain_rate(const struct sched *s);
double flow_retry_after(const struct sched *s, const struct sched_req *r);

/* events.c */
void event_emit(struct sched *s, enum sched_event_type type, uint32_t slot, const struct sched_req *r);

#endif
