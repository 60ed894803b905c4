/* The world of test_flow_random: one scheduler under random events, and beside it a model of what its header promises
 * (core/sched.h, flow control). The model knows who waits, for how long and with which constraints; what an endpoint
 * has in use it takes from the views. It is told of every pick at the moment it happens (the event stream) and judges
 * it then; the rest it judges after each verb. */
#ifndef TEST_WORLD_FLOW_H
#define TEST_WORLD_FLOW_H

#include "base/rng.h"
#include "core/sched.h"

#define FLOW_REQS        400 /* alive at once */
#define FLOW_EPS         8   /* in the pool at once */
#define FLOW_SLOTS       64  /* slots in use at once, with those being purged */
#define FLOW_FLOWS       5
#define FLOW_PRIOS       5
#define FLOW_MODELS      4       /* 1.. ; 0 = any. The last is an adapter */
#define FLOW_PREFIX_WAIT 1000000 /* longest that is configured */
#define FLOW_LINES       6       /* sequences of blocks that prompts begin with */

enum flow_state { FLOW_FREE, FLOW_WAITING, FLOW_FLYING, FLOW_FAILED /* to be sent again */ };

struct flow_req {
    struct sched_req r;
    enum flow_state state;
    uint32_t at_waiting;                    /* position in the list of those waiting */
    uint64_t order;                         /* of first arrival */
    uint64_t came_us, pushed_us, waited_us; /* first arrival; in the queue since; what it waited there before that */
    uint64_t beside_us; /* first seen waiting by its own choice beside an endpoint with room; 0 = never */
    double real;        /* tokens of service that its end will report */
    bool fails;         /* before its first token; then that was nothing */
    bool counted;       /* in backlog[] */
    uint64_t allowed, allowed_version; /* slots it may use, and the version of the pool that holds for */
    uint64_t reserved_verb;            /* the verb that picked it */
    uint64_t ended_verb;               /* the verb that rejected it */
    uint32_t ep;                       /* where it flies; FLOW_EPS: gone */
    struct prefix_hashes ph;
};

struct flow_ep {
    bool used, wait_probe;
    struct ep_ref ref;
    uint32_t flying, room, models; /* room: requests it runs at once; models: bits, 0 unknown */
    uint64_t kv_tokens;
    double mem; /* of those flying */
    struct ep_load last;
};

struct flow_slot { /* as the views told last */
    bool used, usable, ejected, draining, full;
    double waiting, kv_use;
};

/* Service of two flows of a priority since both wait and could be placed, per weight. [0]: the gain of the first on the
 * second, [1]: the other way round. Of a charge that was too high what could not be given back counts as received; how
 * much that is is not known here, so the gain is that of what the one got in truth over what the other was charged at
 * least: never more than the true one. */
struct flow_pair {
    bool on;
    double gain[2], least[2], rise[2];
    double owed; /* the most that was charged too little at a time, of either */
};

struct flow_world {
    uint64_t seed, n_events, now, verb, next_order, n_picked, n_rejected[N_SCHED_REJECTS], n_from_queue, digest;
    uint64_t n_pair_checks, n_fallback;
    double worst_pair[2]; /* share of the bound; [1]: exact */
    struct rng rng;
    struct sched *s;
    struct sched_params p;
    struct sched_flow_weight weights[FLOW_FLOWS];
    struct flow_req *q; /* FLOW_REQS */
    uint32_t free_list[FLOW_REQS], n_free, waiting[FLOW_REQS], n_waiting, flying[FLOW_REQS], n_flying,
        failed[FLOW_REQS], n_failed;
    uint64_t waiting_bytes;
    struct flow_ep ep[FLOW_EPS];
    struct flow_slot slot[FLOW_SLOTS];
    uint32_t n_slots;
    uint64_t version;    /* of the pool: who is usable and serves what */
    bool exact;          /* no usage is reported and nothing fails: what was charged is never corrected */
    bool draining_queue; /* queueing is being switched off by this verb */
    bool adapters;       /* some servers count adapter slots */
    bool newest_first;   /* the direction of ORDER_ADAPTIVE, since ... */
    uint64_t reversed_us;
    uint64_t n_reversed, n_newest; /* changes; picks in that direction */
    uint64_t in_submit;  /* request a submit is under way for: index + 1 */
    bool settled_time;   /* the verb under way changes no endpoint before it picks: not the clock either */
    struct flow_pair pair[FLOW_PRIOS][FLOW_FLOWS][FLOW_FLOWS];
    uint32_t backlog[FLOW_PRIOS][FLOW_FLOWS]; /* waiting without constraint */
    double largest[FLOW_PRIOS];               /* charge / weight */
    double owed[FLOW_PRIOS][FLOW_FLOWS];      /* tokens in service beyond what was charged */
    uint64_t storage[FLOW_LINES][8];
    struct { /* a pick that another request, of those in `over`, should have had; void if that one ended in the same
                verb */
        uint32_t over, got;
        const char *why;
    } doubt[64];
    uint32_t n_doubts;
    /* of the verb under way */
    const char *what;
    struct sched_stats before;
    uint32_t full_now[FLOW_REQS], n_full_now; /* rejected for capacity */
    uint32_t n_left;                          /* left the queue otherwise */
    uint32_t n_reserved, newcomer;            /* handed out; submitted: index + 1 */
    uint64_t picked_slots;
    char unfair[200];
    const struct flow_req *early; /* refused before its time */
};

PRINTF_LIKE(3, 4) NORETURN void flow_broken(const struct flow_world *w, int line, const char *fmt, ...);
#define MUST(w, cond, ...) (LIKELY(cond) ? (void)0 : flow_broken(w, __LINE__, __VA_ARGS__))

/* flow_check.c */
void flow_watch(struct flow_world *w);                   /* the events of w->s */
void flow_look(struct flow_world *w);                    /* takes the views */
void flow_begin(struct flow_world *w, const char *what); /* before a verb */
void flow_end(struct flow_world *w, bool tick);          /* after it: collects what was decided and checks everything */
void flow_answered(struct flow_world *w, uint32_t i, enum sched_answer a); /* of a submit, before flow_end */
void flow_forget_pairs(struct flow_world *w);
void flow_direction(struct flow_world *w);               /* takes it, and judges whether it may have changed */
uint64_t flow_deadline(const struct flow_world *w, const struct flow_req *q);
double flow_weight(const struct flow_world *w, uint64_t flow);
/* lists */
void flow_list_add(uint32_t *list, uint32_t *n, uint32_t i);
void flow_list_del(uint32_t *list, uint32_t *n, uint32_t i);
void flow_unwait(struct flow_world *w, uint32_t i);
void flow_served(struct flow_world *w, struct flow_req *q); /* its service is over */
void flow_backlogs(struct flow_world *w); /* after a change of settings: who counts as waiting without constraint */

#endif
