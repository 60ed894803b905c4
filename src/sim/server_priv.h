/* sim/server_priv.h - the inside of a simulated server, shared by its files: server.c (life and routing), job.c
 * (requests), answer.c and stream.c (JSON and event shapes), stats.c (metrics), fault.c, control.c (the /sim
 * interface), models.c (model list, LoRA, tokenize). */
#ifndef SIM_SERVER_PRIV_H
#define SIM_SERVER_PRIV_H

#include "base/list.h"
#include "base/map.h"
#include "base/rng.h"
#include "sim/body.h"
#include "sim/engine.h"
#include "sim/server.h"

#define SIM_MAX_BODY      (256u << 20)
#define SIM_MAX_RESPONSES 1000 /* answers of /v1/responses that are remembered */

enum sim_api { SIM_COMPLETIONS, SIM_CHAT, SIM_EMBEDDINGS, SIM_RESPONSES, SIM_MESSAGES };
enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR, FINISH_N };

/* ---- stats.c ---- */
struct sim_hist {
    const double *bound;
    unsigned n;
    uint64_t count[32], total;
    double sum;
};
#define LORA_SERIES 64
struct lora_series {
    char *running, *waiting;
    double at; /* wall clock, seconds */
};
struct stats {
    struct sim_hist ttft, itl, tpot, e2e, queue, inference, prefill, decode, prompt, generation, max_tokens, n,
        iteration;
    uint64_t finished[FINISH_N], rejected;
    struct lora_series lora[LORA_SERIES];
    unsigned n_lora;
    uint64_t window_us, window_prompt, window_generation; /* of the average throughput */
    double prompt_rate, generation_rate;
    uint64_t steps_seen;
};
void stats_init(struct stats *st);
void stats_free(struct stats *st);
void hist_observe(struct sim_hist *h, double v);
void stats_step(struct server *s); /* after the engine advanced */
void stats_expose(struct server *s, struct buf *out);

/* ---- fault.c ---- */
enum fault_kind {
    FAULT_NONE,
    FAULT_KILL,
    FAULT_REFUSE,
    FAULT_HANG,
    FAULT_RESET,
    FAULT_SLOW,
    FAULT_GARBAGE,
    FAULT_STATUS
};
enum fault_at { AT_NOW, AT_BEFORE, AT_AFTER_BODY, AT_AFTER_HEAD, AT_MID_STREAM, AT_PROBE };
struct fault {
    enum fault_kind kind;
    enum fault_at at;
    uint64_t count;       /* requests left to hit; UINT64_MAX = all */
    uint64_t duration_us; /* 0 = until changed */
    uint64_t status, after_tokens, hits;
    double factor;
    char match[256]; /* only requests whose body holds this text */
    bool struck;     /* a whole-server fault is in force */
};
struct capture {
    char *method, *path, *headers, *body; /* headers: JSON object */
    size_t body_n;
    bool truncated;
    double at; /* wall clock, seconds */
};
#define CAPTURES     1000
#define CAPTURE_BODY (64u << 10)
struct captures {
    struct capture v[CAPTURES];
    uint64_t n; /* ever; v[n % CAPTURES] is the next to write */
};

struct held { /* a request that came while the server hangs */
    struct list link;
    struct server *s;
    struct httpd_req *rq;
};
struct override { /* fixed gauges, for tests */
    bool on;
    double waiting, kv, running; /* NAN: not fixed */
};

struct remembered { /* one answer of /v1/responses */
    char id[80];
    struct tokens tok; /* the conversation so far */
};

struct server {
    struct loop *loop;
    const struct sim_options *opt;
    struct server_hooks hooks;
    struct addr addr;
    struct httpd *http;
    struct profile profile;
    struct engine_params ep;
    struct engine *engine;
    struct timer tick, startup, die, fault_end;
    struct rng rng;
    struct list jobs, held;
    uint32_t max_model_len, n_jobs;
    struct str names[SIM_MAX_NAMES];
    unsigned n_names;
    struct sim_lora *loras[SIM_MAX_LORAS]; /* id - 1; NULL: free */
    struct remembered *kept[SIM_MAX_RESPONSES];
    uint64_t n_kept, n_requests, n_ids;
    uint64_t created;
    struct stats stats;
    struct fault fault;
    struct captures *captures;
    struct override override;
    bool unready, was_ready, dead, hanging, told_startup;
    uint64_t hang_since_us, hang_total_us; /* the engine's clock stands still while the server hangs */
};

uint64_t server_now(const struct server *s); /* the engine's clock */
void server_pump(struct server *s);          /* advances the engine and arms its timer */
void server_dispatch(struct server *s, struct httpd_req *rq);
void server_revive(struct server *s);
void server_check_ready(struct server *s);
double wall_seconds(void);

/* fault.c */
bool fault_hits(struct server *s, enum fault_at at, struct str body); /* counts the hit */
bool fault_on_head(void *ctx, struct httpd_req *rq);
/* The request meets its fault at a point before any answer. True when it was taken care of (or is gone). */
bool fault_before_answer(struct server *s, enum fault_at at, struct httpd_req *rq);
void fault_strike(struct server *s); /* puts a whole-server fault in force */
void fault_clear(struct server *s);
bool fault_of_server(enum fault_kind k);             /* strikes the whole server, not a request */
void fault_end_after(struct server *s, uint64_t us); /* arms the fault's own end */
struct job;
void hold_request(struct server *s, struct httpd_req *rq); /* unanswered until the hang ends */
bool fault_in_answer(struct job *j); /* the job's fault is due; true when there is nothing more to do for it now */
/* control.c */
void capture_add(struct server *s, struct httpd_req *rq);
void captures_free(struct captures *c);

/* ---- job.c: one API request, with one engine sequence per choice ---- */
struct choice {
    struct job *job;
    struct engine_seq *seq; /* NULL: not submitted, or over */
    struct tokens tok;      /* prompt; freed when submitted */
    uint32_t out_len, produced, n_prompt;
    uint64_t seed;
    bool eos; /* ends by itself: the last token shows no text */
    enum finish finish;
    struct buf text;
    uint64_t first_us, last_us;
};
struct job {
    struct server *s;
    struct list link;
    struct httpd_req *rq;
    enum sim_api api;
    bool stream, include_usage, head_sent, base64, unlimited;
    bool muted; /* the server is dying: no output any more */
    char id[96], *previous;
    uint64_t created;
    struct str model; /* as asked; points to the server's names */
    uint32_t lora, n, n_choices, n_live;
    struct choice *choice;
    uint64_t prompt_tokens, cached_tokens, completion_tokens, max_tokens, arrived_us;
    uint64_t dimensions, seq_no;
    struct tokens keep; /* responses: the conversation for a later request */
    struct timer front;
    enum fault_at fault; /* AT_AFTER_HEAD or AT_MID_STREAM: the server's fault is for this one; else AT_NOW */
};
void job_start(struct server *s, enum sim_api api, struct httpd_req *rq);
void job_event(void *ctx, const struct engine_event *ev); /* ctx: the server */
void job_free(struct job *j);                             /* its answer has ended; cancels what still runs */
void job_drop(struct job *j, bool reset);                 /* ends the connection, then job_free */
uint32_t model_lora(const struct server *s, struct str name, bool *known); /* 0 for the base */
struct str model_name(const struct server *s, struct str name);            /* the server's own copy */

/* ---- answer.c ---- */
void answer_begin(struct job *j);                                                    /* the 200 head, once */
void answer_token(struct job *j, struct choice *c, struct str piece, bool finished); /* one token of a stream */
void answer_whole(struct job *j);                                                    /* every choice is complete */
void answer_stream_end(struct job *j);
/* Extra header lines of every answer: request id, pod. NUL-terminated in out. */
const char *server_headers(const struct server *s, const struct h1_head *head, struct buf *out);
void respond_json(struct server *s, struct httpd_req *rq, unsigned status, struct str body);
void api_error(struct server *s, struct httpd_req *rq, enum sim_api api, unsigned status, const char *param,
               const char *fmt, ...) PRINTF_LIKE(6, 7);

/* ---- models.c ---- */
void lora_free(struct sim_lora *l);
void models_list(struct server *s, struct httpd_req *rq);
void models_lora(struct server *s, struct httpd_req *rq, bool load);
void models_tokenize(struct server *s, struct httpd_req *rq);

#endif
