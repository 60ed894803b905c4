/* sim/server_priv.h - the inside of a simulated server, shared by its files: server.c (life), routes.c, read.c
 * (requests), job.c (their way through the engine), disagg.c (prefill/decode pairs), answer.c and stream.c (JSON and
 * event shapes), score.c (rerank and score), sglang.c, triton.c (what only they have), stats*.c (metrics), fault.c,
 * control.c (the /sim interface), models.c (model list, LoRA, tokenize). */
#ifndef SIM_SERVER_PRIV_H
#define SIM_SERVER_PRIV_H

#include "base/json.h"
#include "base/list.h"
#include "base/rng.h"
#include "net/httpc.h"
#include "sim/body.h"
#include "sim/engine.h"
#include "sim/server.h"

#define SIM_MAX_BODY      (256u << 20)
#define SIM_MAX_RESPONSES 1000 /* answers of /v1/responses that are remembered */

/* SIM_GENERATE: SGLang's /generate; SIM_TRITON_GENERATE: Triton's, streamed or not */
enum sim_api {
    SIM_COMPLETIONS,
    SIM_CHAT,
    SIM_EMBEDDINGS,
    SIM_RESPONSES,
    SIM_MESSAGES,
    SIM_GENERATE,
    SIM_TRITON_GENERATE,
    SIM_RERANK,
    SIM_SCORE
};
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
#define SIM_ITERATIONS 1000
struct iteration { /* one step */
    uint64_t iter;
    uint32_t scheduled, waiting, context, completed, context_tokens, used_blocks;
    double ms;
};
struct stats {
    struct sim_hist ttft, itl, tpot, e2e, queue, inference, prefill, decode, prompt, generation, max_tokens, n,
        iteration;
    uint64_t finished[FINISH_N], cached_tokens;
    struct lora_series lora[LORA_SERIES];
    unsigned n_lora;
    uint64_t window_us, window_prompt, window_generation; /* of the average throughput */
    double prompt_rate, generation_rate;
    double hit_rate; /* SGLang: of the last prompts admitted */
    uint64_t hit_query, hit_cached;
    uint32_t step_ended, step_first; /* requests whose last or first token came with the step under way */
    struct iteration *iters;         /* TensorRT-LLM: iters[n % SIM_ITERATIONS] is the next to write */
    uint64_t n_iters, n_drained;
};
struct rank;
void stats_init(struct stats *st, enum sim_dialect d); /* zero before */
void stats_free(struct stats *st);
void hist_observe(struct sim_hist *h, double v);
void stats_step(struct rank *r);                                 /* after the engine advanced */
void stats_rates(struct rank *r, const struct engine_stats *es); /* brings the throughputs up to date */
void stats_vllm(struct server *s, struct buf *out);
void stats_sglang(struct server *s, struct buf *out);
void stats_triton(struct server *s, struct buf *out);
void stats_trtllm(struct server *s, struct buf *out);      /* text */
void stats_trtllm_json(struct server *s, struct buf *out); /* what happened since the last call */

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

typedef void serve_fn(struct server *s, struct httpd_req *rq);
struct held { /* a request that came while the server hangs */
    struct list link;
    struct server *s;
    struct httpd_req *rq;
    serve_fn *serve; /* then */
};
struct override { /* fixed gauges, for tests */
    bool on;
    double waiting, kv, running; /* NAN: not fixed */
};

struct remembered { /* one answer of /v1/responses */
    char id[80];
    struct tokens tok; /* the conversation so far */
};

/* ---- disagg.c: prefill and decode halves ----
 * The prefill half holds a computed prompt (kv_held) until its partner has fetched it over the side listener; the
 * decode half asks there (kv_pull) and computes nothing of the prompt. SGLang: both requests come at once and name the
 * pair by a room; whoever is first waits. NIXL: the answer of the prefill request says where its prompt lies. */
enum kv_state {
    KV_ALONE,     /* SGLang: the prompt's request is here, nobody has asked for it */
    KV_COMPUTING, /* its partner waits for it */
    KV_READY,     /* NIXL: computed and answered, to be fetched */
    KV_MOVING,    /* on its way */
    KV_LOST       /* its partner has gone */
};
struct job;
struct choice;
struct kv_held {
    struct list link;
    struct server *s;
    enum kv_state state;
    struct choice *c; /* SGLang: its request waits here, too. NULL: NIXL */
    uint64_t room;
    char id[160]; /* NIXL: remote_request_id */
    struct rank *rank;
    struct engine_seq *seq; /* NIXL, or computed: whose KV it is */
    uint32_t n_tokens;
    uint64_t key;              /* of the prompt: both halves must mean the same */
    struct httpd_req *ask;     /* the partner's */
    uint64_t due_us, lease_us; /* when the timer is due; when a lease ends */
    struct timer timer;
};
struct kv_ask { /* SGLang: a partner that came before the prompt's request */
    struct list link;
    struct server *s;
    uint64_t room, rank, tokens, key;
    struct httpd_req *rq;
};
struct kv_pull { /* decode half: one choice's, or with NIXL a whole request's, prompt to come */
    struct list link;
    struct server *s;
    struct choice *c;   /* the first of n that want the prompt */
    uint32_t n, blocks; /* blocks: kept free for it */
    bool asked, answered;
    unsigned status; /* of the answer */
    struct rank *rank;
    struct httpc *client; /* once asked */
    struct addr to;
    struct buf body;
    struct timer timeout;
};
struct kv_counts {
    uint64_t moved, moved_bytes, fetched, local, expired, bootstrap_failed, transfer_failed;
};
struct disagg {
    struct httpd *side;
    struct list held, asks, pulls;
    uint32_t n_asks;
    uint64_t link_free_us;
    char engine_id[48];
    struct kv_counts count;
    struct sim_hist speed, latency, volume;
};
int disagg_open(struct server *s, struct errbuf *err); /* the side listener, when the server has one */
void disagg_close(struct server *s, bool reset);       /* and everything held or waited for */
void disagg_resume(struct server *s);                  /* after a hang */
void disagg_pump(struct server *s);                    /* legs that waited for memory ask for their prompts */
/* The request's choices go to the engine, at once or when their other half is ready. False: the request is gone. */
bool disagg_start(struct job *j);
bool disagg_computed(struct choice *c); /* the last token is there: true when its answer has to wait for the transfer */
void disagg_cancel(struct job *j);      /* the request ends */
unsigned disagg_waiting(const struct server *s, const struct rank *r, enum kv_state st); /* held in that state */
unsigned disagg_pulls(const struct server *s, const struct rank *r, bool asked);
void disagg_offer(struct jsonw *w, const struct job *j);    /* the value of kv_transfer_params, or null */
void disagg_state(const struct server *s, struct jsonw *w); /* members for /sim/state */

struct rank { /* one engine: a data parallel rank */
    struct server *s;
    unsigned index; /* its number as the metrics give it */
    struct engine *engine;
    struct stats stats;
    uint32_t kept_free; /* blocks, for prompts on their way */
};

struct server {
    struct loop *loop;
    const struct sim_options *opt;
    struct server_hooks hooks;
    struct addr addr;
    struct httpd *http, *metrics; /* metrics: Triton's own port */
    struct profile profile;
    struct engine_params ep;
    struct rank *ranks;
    unsigned n_ranks;
    struct timer tick, startup, die, fault_end;
    struct rng rng;
    struct list jobs, held;
    uint32_t max_model_len, n_jobs;
    struct str names[SIM_MAX_NAMES];
    unsigned n_names;
    struct sim_lora *loras[SIM_MAX_LORAS]; /* id - 1; NULL: free */
    struct remembered *kept[SIM_MAX_RESPONSES];
    uint64_t n_kept, n_requests, rejected;
    uint64_t created;
    struct disagg pd;
    struct fault fault;
    struct captures *captures;
    struct override override;
    bool unready, was_ready, dead, hanging, told_startup;
    uint64_t hang_since_us, hang_total_us; /* the engine's clock stands still while the server hangs */
};

uint64_t server_now(const struct server *s);    /* the engine's clock */
void server_pump(struct server *s);             /* advances the engine and arms its timer */
void server_wake(struct server *s);             /* soon */
void server_shut(struct server *s, bool reset); /* all listeners; requests end. reset: as when a process dies */
void server_dispatch(struct server *s, struct httpd_req *rq);
void server_revive(struct server *s);
void server_check_ready(struct server *s);
double wall_seconds(void);
void server_route(struct server *s, struct httpd_req *rq);                      /* routes.c */
void server_stats(const struct server *s, bool live, struct engine_stats *out); /* of all engines together */
struct rank *server_idlest(struct server *s);                                   /* the engine for the next request */

/* fault.c */
bool fault_hits(struct server *s, enum fault_at at, struct str body); /* counts the hit */
bool fault_on_head(void *ctx, struct httpd_req *rq);
/* The request meets its fault at a point before any answer. True when it was taken care of (or is gone).
 * serve: what answers it once a hang is over. */
bool fault_before_answer(struct server *s, enum fault_at at, struct httpd_req *rq, serve_fn *serve);
void fault_strike(struct server *s); /* puts a whole-server fault in force */
void fault_clear(struct server *s);
bool fault_of_server(enum fault_kind k);             /* strikes the whole server, not a request */
void fault_end_after(struct server *s, uint64_t us); /* arms the fault's own end */
/* Unanswered until the hang ends. */
void hold_request(struct server *s, struct httpd_req *rq, serve_fn *serve);
bool fault_in_answer(struct job *j); /* the job's fault is due; true when there is nothing more to do for it now */
/* control.c */
void capture_add(struct server *s, struct httpd_req *rq);
void captures_free(struct captures *c);

/* ---- read.c, job.c: one API request, with one engine sequence per choice ---- */
struct choice {
    struct job *job;
    struct rank *rank;
    struct engine_seq *seq; /* NULL: not submitted, or over */
    struct kv_held *held;   /* it is the prefill half of a pair */
    struct kv_pull *pull;   /* it waits for the prefill half */
    struct tokens tok;      /* prompt; freed when submitted */
    uint32_t out_len, produced, n_prompt, given;
    uint64_t seed, key, room;
    struct str room_host; /* raw JSON in the request's body */
    uint64_t room_port;
    bool eos; /* ends by itself: the last token shows no text */
    enum finish finish;
    struct buf text;
    uint64_t first_us, last_us;
};
enum job_kv { JOB_ALONE, JOB_ROOM, JOB_OFFER, JOB_FETCH }; /* half of a pair: SGLang; NIXL prefill; NIXL decode */
struct job {
    struct server *s;
    struct list link;
    struct httpd_req *rq;
    enum sim_api api;
    bool stream, include_usage, head_sent, base64, unlimited;
    bool muted;      /* the server is dying: no output any more */
    bool batch;      /* /generate: the prompt was a list, so is the answer */
    bool accumulate; /* events repeat the text so far */
    char id[96], *previous, *own_model;
    uint64_t created;
    struct str model; /* as asked; points to the server's names or to own_model */
    uint32_t lora, n, n_choices, n_live;
    struct choice *choice;
    uint64_t prompt_tokens, cached_tokens, completion_tokens, max_tokens, arrived_us, salt;
    uint64_t dimensions, seq_no;
    unsigned pinned;       /* rank + 1; 0: any */
    uint64_t prefill_rank; /* of the other half; UINT64_MAX: by the rule */
    enum job_kv kv;
    struct str kv_params, documents; /* raw JSON in the request's body */
    uint64_t top_n;                  /* rerank: so many, the best; 0: all */
    struct buf offer;                /* JOB_OFFER: kv_transfer_params of the answer, as JSON */
    struct tokens keep;              /* responses: the conversation for a later request */
    struct timer front;
    enum fault_at fault; /* AT_AFTER_HEAD or AT_MID_STREAM: the server's fault is for this one; else AT_NOW */
};
bool job_read(struct job *j); /* read.c: fills j from its request; false when it has answered with an error */
void job_start(struct server *s, enum sim_api api, struct httpd_req *rq);
/* given: so many tokens of the prompt come with their KV. False when it can never fit. */
bool job_submit(struct choice *c, uint32_t given, bool hold);
void job_event(void *ctx, const struct engine_event *ev); /* ctx: the rank */
void job_deliver(struct choice *c, bool finished);        /* its latest token goes to the client */
/* Ends the request with an error: an answer, or an event of its stream. Then job_free. */
void job_fail(struct job *j, unsigned status, const char *fmt, ...) PRINTF_LIKE(3, 4);
void job_free(struct job *j);                   /* its answer has ended; cancels what still runs */
void job_drop(struct job *j, bool reset);       /* ends the connection, then job_free */
uint32_t job_token(void *user, uint32_t index); /* the token of a choice's answer */

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

/* An error event and the end of the stream. */
void answer_stream_error(struct job *j, unsigned status, const char *msg);

/* ---- score.c ---- */
void whole_rerank(struct jsonw *w, const struct job *j);
void whole_scores(struct jsonw *w, const struct job *j);
bool api_pools(enum sim_api api); /* reads a prompt and produces no text */

/* ---- sglang.c, triton.c ---- */
void generate_whole(struct jsonw *w, const struct job *j); /* bodies of /generate */
void generate_event(struct jsonw *w, const struct job *j, const struct choice *c, bool finished);
void sglang_info(struct server *s, struct httpd_req *rq);
void sglang_loads(struct server *s, struct httpd_req *rq);
void sglang_model_info(struct server *s, struct httpd_req *rq);
bool triton_route(struct server *s, struct httpd_req *rq); /* false: no path of Triton's */
int triton_open(struct server *s, struct errbuf *err);     /* the port of the metrics */
void triton_body(struct jsonw *w, const struct job *j, struct str text);
/* The path /v2/models/{m}[/versions/{v}]/{what}: false when it is another. */
bool triton_path(struct str path, struct str *model, struct str *what);

/* ---- models.c ---- */
uint32_t model_lora(const struct server *s, struct str name, bool *known); /* 0 for the base */
struct str model_name(const struct server *s, struct str name);            /* the server's own copy */
void lora_free(struct sim_lora *l);
void models_list(struct server *s, struct httpd_req *rq);
void models_lora(struct server *s, struct httpd_req *rq, bool load);
void models_tokenize(struct server *s, struct httpd_req *rq);

#endif
