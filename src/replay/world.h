/* replay/world.h - a pool in virtual time: recorded or generated requests, simulated engines (sim/engine.h), and one or
 * several gateways with the real picker (core/sched.h) between them. Hours pass in a second; the same input and seed
 * give the same run.
 *
 * What it leaves out of the product: sockets, parsing and threads. Time between the parts is a parameter (network_us).
 * A request is handed to one of the gateways in turn; a gateway knows of the engines what its scrapes say, of the
 * others' requests what the event stream brings after sync_us, and of its own requests all.
 *
 * Open loop: requests come at dataset.at_s, stretched to the wanted rate. Closed loop (conversations): `users` at a
 * time work through the conversations in a seeded order; a turn follows its predecessor's answer after the recorded
 * pause.
 *
 * Times are microseconds from the start of the run, unless named _s. One thread; several worlds may run side by side.
 */
#ifndef REPLAY_WORLD_H
#define REPLAY_WORLD_H

#include "bench/dataset.h"
#include "core/sched.h"
#include "replay/policy.h"
#include "sim/engine.h"

#define WORLD_MAX_SERVERS  4096
#define WORLD_MAX_GATEWAYS 64
#define WORLD_MAX_GAUGES   (1u << 20) /* seconds that the gauges cover: twelve days */

enum world_what {
    WORLD_SLOW /* factor: its steps take so many times as long */,
    WORLD_FAIL,
    WORLD_RETURN,
    WORLD_NO_CACHE,
    WORLD_CACHE
};
struct world_change { /* something happens to a server; lists are in any order */
    uint64_t at_us;
    uint32_t server;
    enum world_what what;
    double factor;
};

struct world_server {
    struct profile profile;
    uint64_t join_us; /* 0: there from the start */
};

struct world_params {
    const struct dataset *data; /* borrowed; the same for many worlds at once */
    uint32_t block_tokens;      /* tokens of a block id of the data */
    const struct policy *policy;
    struct sched_params sched; /* its policy is set by `policy` */
    struct world_server *servers;
    uint32_t n_servers;
    struct world_change *changes;
    uint32_t n_changes;
    uint32_t n_gateways;     /* 1 */
    bool sync;               /* gateways tell each other what they do, */
    uint64_t sync_us;        /* so much later */
    uint64_t scrape_us;      /* 1 s; 0: never. A server shows what it published last */
    uint64_t scrape_late_us; /* how old that is when it arrives */
    double scrape_cost_s;    /* of the server's time, each */
    uint64_t network_us;     /* one way between gateway and server */
    bool tell_capacity;      /* true: a scrape tells the size of the KV cache */
    bool tell_cached;        /* answers tell how much of the prompt was cached */
    bool tell_limits;        /* requests tell how long their answers may be: as long as they are (max_tokens) */
    double rate;             /* open loop: requests a second; 0 as recorded */
    bool spread; /* arrivals recorded on a grid (fewer than a fifth of the times differ) are spread at random over its
                    cells of 3 s */
    double jitter_s; /* others come up to so much later than recorded, at random */
    uint32_t users;  /* closed loop */
    double think_max_s, ramp_s;
    uint64_t stop_us; /* 0: until the last answer */
    uint32_t adapters,
        adapter_slots; /* LoRA: requests are given to so many adapters, the first most often (1/k); slots of a server */
    uint32_t prefill_servers; /* P/D: the first so many only prefill, the others decode; 0 off */
    double kv_bytes_token,
        kv_bandwidth; /* P/D: a transfer takes kv_base_s + tokens * bytes / bandwidth seconds; tokens: those that the */
    double kv_base_s; /* decode side does not hold when it begins */
    bool pd_both;     /* P/D: the decode side cannot prefill (SGLang): a prefill that fails takes it along. Else it may
                         (vLLM), also after all */
    bool pd_always;   /* P/D: every request is split, also where it need not be */
    uint64_t seed;
    uint32_t explain; /* keep so many decisions with their reasons, evenly taken */
    void (*progress)(void *ctx, uint32_t done, uint32_t all); /* about every 1000 answers; or NULL */
    void *ctx;
};
void world_init(struct world_params *p); /* the defaults */

enum world_end { WORLD_LOST /* still under way at the end */, WORLD_OK, WORLD_REFUSED, WORLD_FAILED };
struct world_request {                   /* what became of it; times in seconds, -1 not reached */
    double at_s, sent_s, first_s, end_s; /* sent: left the gateway */
    float ideal_s;                       /* TTFT on an idle, empty server of the first kind */
    uint32_t input, output, cached;
    int32_t server; /* -1 none */
    uint16_t gateway, preempted;
    uint8_t end, reject, reason;
    bool split; /* P/D: its prompt was computed on another server than its answer, which is `server` */
    uint16_t tries;
};
struct world_decision { /* a sampled one */
    double at_s;
    uint32_t request;
    struct sched_decision d;
    struct sched_explain x;
    uint32_t n; /* server of each row of x */
    uint32_t server[SCHED_EXPLAIN];
};
struct world_gauge { /* of a moment, once a virtual second: mean over the servers, and the fullest */
    float waiting, running, kv, max_waiting, max_kv, queued;
};
struct world_result {
    struct world_request *v; /* in order of arrival */
    uint32_t n;
    struct world_decision *decisions;
    uint32_t n_decisions;
    struct world_gauge *gauges;
    uint32_t n_gauges;
    double *busy;             /* of each server: share of the time */
    uint64_t *prefill_tokens; /* computed */
    uint32_t n_servers;
    bool pd; /* some servers only prefill */
    uint64_t preemptions, picks;
    double end_s, wall_s; /* wall_s: filled by the caller, who has a clock */
    double left;          /* what engines and pickers still counted when everybody had left: 0 */
};
void world_run(const struct world_params *p, struct world_result *out);
void world_result_free(struct world_result *r);

#endif
