/* sched/decisions.h - the latest decisions of a port, with their reasons and what came of them, for /debug/decisions.
 *
 * A ring of fixed size beside the port, not under its mutex: the request owns what the picker told it and copies it in
 * afterwards. A place in the ring is taken with one atomic addition, its bytes are guarded by one of a few locks, so
 * workers meet only in the rare case of the same place. Reading copies one decision at a time.
 * What became of a decision is written into its place; when newer ones have taken that meanwhile, the whole decision
 * takes a new place: at high rates the ring holds those just made and those just ended.
 * Memory: n x sizeof(struct decision), and as many struct decision_leg, touched as the places are first used: of pools that
 * are not split those of the legs never are. Thread-safe. */
#ifndef SCHED_DECISIONS_H
#define SCHED_DECISIONS_H

#include "core/sched.h"

#define DECISION_TEXT 128 /* bytes of a name, NUL included; longer ones are cut */

enum decision_outcome {
    DECISION_PICKED,
    DECISION_REJECTED,
    DECISION_LEFT /* its client left, or its time was over, while it waited in the queue */
};
const char *decision_outcome_name(enum decision_outcome o);

struct decision_row { /* struct sched_cost, smaller */
    struct ep_ref ep;
    uint64_t matched_bytes;
    float cached_tokens, total_s, wait_s, prefill_s, others_s, kv_s, extra_s, lora_s, transfer_s,
        answer_s; /* INFINITY: not usable */
    uint8_t skip; /* enum sched_skip */
};

struct decision_leg { /* P/D: the prefill of a request whose pool separates it (core/sched.h, sched_join) */
    bool split;                                /* it was given to an endpoint of its own: */
    char endpoint[DECISION_TEXT], address[64]; /* this one; empty: none */
    enum sched_reason reason;
    double cost_s, ttft_s;   /* expected, of this part alone */
    double split_s, local_s; /* the costs that were compared: prefill elsewhere, and at the decode endpoint; INFINITY: not possible */
    uint64_t matched_bytes;
    uint32_t n_candidates, n_endpoints, n_rows;
    struct decision_row rows[SCHED_EXPLAIN];
};

struct decision_end { /* what happened afterwards */
    double ttft_s;     /* from the pick to the first byte of the answer's body; < 0: there was none */
    double duration_s; /* from the pick to the end */
    unsigned status;   /* of the answer; 0: none, the request went elsewhere or its client left */
    char error[32];    /* code; empty: none */
    bool has_usage, has_cached; /* the server told its token counts; and the cached ones */
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    double prefill_s;       /* from the start of the prefill leg to its prompt computed; <= 0: there was none */
    char prefill_error[32]; /* why the leg was of no use; empty: it was, or there was none */
};

struct decision {
    uint64_t at_us; /* wall clock */
    char request_id[DECISION_TEXT], model[DECISION_TEXT];
    char endpoint[DECISION_TEXT], address[64]; /* the chosen one; empty when there is none */
    enum decision_outcome outcome;
    enum sched_reason reason; /* PICKED */
    enum sched_reject reject; /* REJECTED */
    unsigned attempt;         /* 1: the request's first */
    unsigned degraded;        /* level at which the prompt was hashed (proxy/strain.h) */
    unsigned every;           /* at its time one of so many requests was explained and kept */
    bool streamed;            /* else the first byte comes with the last token */
    bool no_prefill;          /* REJECTED: there is an endpoint to decode, but none to prefill */
    double cost_s, ttft_s;    /* expected; of both parts together */
    uint64_t queued_us, stream_bytes, matched_bytes;
    uint32_t n_candidates, n_endpoints, n_rows;
    struct decision_row rows[SCHED_EXPLAIN];
    const struct decision_leg *leg; /* NULL: no prefill of its own was thought of */
    bool ended;
    struct decision_end end;
};

/* Fills the part of d that the picker knows; x may be NULL. */
void decision_fill(struct decision *d, const struct sched_decision *is, const struct sched_explain *x);
/* The same for its prefill: `is` of the request, leg: of its leg. */
void decision_fill_leg(struct decision_leg *l, const struct sched_decision *is, const struct sched_decision *leg,
                       const struct sched_explain *x);
/* Copies s, cut to a whole character of UTF-8, NUL-terminated. */
void decision_text(char out[DECISION_TEXT], struct str s);

struct decisions;
struct decisions *decisions_new(uint32_t n); /* n >= 1 places */
void decisions_free(struct decisions *ds);   /* NULL is fine */
uint32_t decisions_capacity(const struct decisions *ds);
uint64_t decisions_made(const struct decisions *ds); /* places taken so far */
/* Copies d and its leg. Returns the ticket of its place, never 0. */
uint64_t decisions_put(struct decisions *ds, const struct decision *d);
/* Sets what came of the decision with that ticket; false: its place was taken. d: as put, with ended and end filled in;
 * the caller then puts it again. */
bool decisions_end(struct decisions *ds, uint64_t ticket, const struct decision *d);
/* Newest first, until fn returns false. The decision is fn's to read during the call; no lock is held. */
void decisions_each(struct decisions *ds, bool (*fn)(void *ctx, const struct decision *d), void *ctx);

#endif
