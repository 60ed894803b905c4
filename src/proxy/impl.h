/* proxy/impl.h - what the files of the data plane share: gateway, worker, client connection, request. Private to src/proxy.
 *
 * Threads: a worker owns its loop, listeners, clients and requests; nothing of them is touched elsewhere. A plane (snapshot with what belongs to it at
 * run time) is immutable and shared; a world is one worker's hold on a plane, so that requests count references without atomics.
 *
 * Reentrancy: every callback of the loop runs between worker_enter and worker_leave; requests and clients that end meanwhile are freed by the
 * outermost worker_leave, so a function may still look at the request it has just ended. */
#ifndef PROXY_IMPL_H
#define PROXY_IMPL_H

#include "api/api.h"
#include "base/arena.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rng.h"
#include "http/h1.h"
#include "http/sse.h"
#include "proxy/gateway.h"
#include "proxy/retry.h"
#include "proxy/strain.h"
#include <pthread.h>

#define RECV_INTO_MIN (16 * 1024) /* bodies with more than this to come are read straight into their buffer */
#define WARMING_WAIT_US 2000000   /* how long a request waits for the first probe of a new pool */
#define WARMING_STEP_US 20000
#define SWEEP_US 100000           /* how often waiting requests look at their endpoint's epoch */
#define HELD_MAX 4096             /* bytes of an event stream held back until its first event is whole */

struct gateway;
struct worker;
struct request;
struct proxy_metrics;
struct model_metrics;
struct flow_families;
struct flow_series;

static inline struct iovec span(struct str s) /* for output: only read from */
{
    struct iovec v = {.iov_len = s.n};
    memcpy(&v.iov_base, &s.p, sizeof s.p);
    return v;
}

/* --- configuration at run time (plane.c) --------------------------------------------------------------------- */

struct backend { /* a pool or Service as requests see it; lives across snapshots while its port does */
    atomic_uint refs;
    struct port *port;
    struct str key; /* NUL-terminated, owned */
    bool pool;
    struct retry_budget budget;
    struct metric *retries, *ttft, *duration;
    _Atomic(struct metric *) by_status[600]; /* penstock_requests_total, filled on first use */
    _Atomic(struct metric *) failures[16];   /* by enum sched_outcome */
    _Atomic(struct metric *) split[2], prefill; /* here, elsewhere; seconds of the leg */
};
struct plane_port {
    uint16_t port;
    bool by_model;
    bool taken; /* by another program when the plane was built: not listened on; the next snapshot looks again */
    const struct conf_listener **listeners; /* most specific hostname first */
    uint32_t n_listeners;
};
struct plane {
    atomic_uint refs;
    struct conf *conf;
    struct backend **backends; /* beside conf->backends */
    struct plane_port *ports;
    uint32_t n_ports;
};
struct plane *plane_build(struct gateway *g, struct conf *c, const struct plane *previous);
struct plane *plane_ref(struct plane *p);
void plane_unref(struct plane *p);
const struct plane_port *plane_find_port(const struct plane *p, uint16_t port);
const struct conf_listener *plane_find_listener(const struct plane_port *pp, struct str host); /* NULL: no hostname matches */
void backend_unref(struct backend *b);

struct world { /* worker-local */
    unsigned refs;
    struct plane *plane;
};
void world_unref(struct world *w);

/* --- gateway and workers ------------------------------------------------------------------------------------- */

struct worker_strain { /* newest window (strain.h) */
    atomic_uint level, busy_permille, lag_us;
};
struct gateway {
    struct gateway_opts o;
    struct metrics *metrics;
    struct proxy_metrics *pm;
    struct flow_families *flow;
    struct ports *ports;
    struct worker **workers;
    unsigned n_workers;
    pthread_mutex_t lock;   /* guards plane, applied, drain_* */
    pthread_cond_t changed;
    struct plane *plane;
    unsigned applied;       /* workers that have taken the newest plane */
    struct errbuf apply_err;
    bool apply_failed, opened;
    unsigned drained;       /* workers with nothing left to do */
    bool draining;
    struct loop *drain_loop;
    struct mail *drain_mail;
    atomic_size_t body_bytes; /* held by all requests */
    atomic_uint n_clients;    /* open connections, all workers */
    struct worker_strain *strains; /* of the workers: each writes its own, all read */
    unsigned told_level;      /* of strain, in the log; with the next under lock */
    uint64_t told_us;
};

struct body_cache { /* buffers of finished bodies, for the next ones: fresh pages cost more than the copy into them */
    struct {
        void *v[8];
        unsigned n;
    } size_class[4];
};

struct worker {
    struct gateway *g;
    unsigned index; /* = metric shard */
    pthread_t thread;
    struct loop *loop;
    struct rng rng;
    struct rng ids; /* of requests: unlike in every process, whatever the seed */
    struct world *world;
    struct list listeners, clients;
    struct conn_pool *pool;
    struct list waiting;    /* requests that an endpoint has not answered yet */
    struct timer sweep, drain_timer;
    unsigned depth;
    struct list dead_clients, dead_requests, free_requests;
    unsigned n_free;
    struct body_cache bodies;
    size_t freed;           /* bytes of bodies given back to malloc since trimmed_us */
    uint64_t trimmed_us;
    struct map models;      /* "model\ntarget" -> struct model_metrics */
    struct map flows;       /* labels -> struct flow_series */
    struct map fairness_ids; /* those that are labels */
    struct strain strain;
    struct {                 /* decided.c: which picks are explained */
        uint64_t since_us;
        uint32_t picks, before; /* in this second of the loop's clock, in the last */
        uint32_t skipped;
    } explain;
    bool draining, drained;
    uint64_t date_s;
    char date[32];
    /* scratch: valid within one callback */
    struct h1_head head, resp;
    struct buf scratch, text, out, line; /* line: of the access log */
    uint64_t hashes[PREFIX_MAX];
};
struct worker *worker_start(struct gateway *g, unsigned index);
void worker_adopt(struct worker *w, struct plane *p); /* any thread; the worker reports to gateway_worker_applied */
void worker_drain(struct worker *w);                  /* any thread */
void worker_stop(struct worker *w);                   /* joins */
void worker_free(struct worker *w);
static inline void worker_enter(struct worker *w)
{
    w->depth++;
}
void worker_leave(struct worker *w);
void worker_check_drained(struct worker *w);
uint64_t worker_now_us(const struct worker *w);
struct strain_view {
    unsigned level, busy_permille, lag_us;
};
struct strain_view gateway_strain(struct gateway *g); /* each the highest of its workers; any thread */
void gateway_tell_level(struct gateway *g); /* to the log, when it has changed */
const char *worker_date(struct worker *w); /* value of a Date header */
void gateway_worker_applied(struct gateway *g, const struct errbuf *err);
void gateway_worker_drained(struct gateway *g);

/* --- bodies (body.c) ----------------------------------------------------------------------------------------- */

struct body {
    char *p;
    size_t n, cap;
};
enum body_result { BODY_OK, BODY_TOO_LARGE, BODY_NO_MEMORY };
/* Room for `more` bytes; expect: bytes known to come in all (0 unknown). The buffer grows with what arrives, never ahead of it by much. */
enum body_result body_reserve(struct worker *w, struct body *b, size_t more, size_t expect);
enum body_result body_add(struct worker *w, struct body *b, struct str data, size_t expect);
void body_free(struct worker *w, struct body *b);
/* Gives back the room that a body does not use when that is more than a little. Spans that point into it move along. */
void body_fit(struct worker *w, struct body *b, struct iovec *spans, int n);
void body_cache_free(struct body_cache *c);
void body_trim(struct worker *w, uint64_t now_us); /* now and then: unused memory goes back to the system */

/* --- clients (client.c) -------------------------------------------------------------------------------------- */

struct client {
    struct worker *w;
    struct conn *conn;
    struct list link;
    struct request *rq;
    struct buf in;        /* an unfinished head, or input behind the request under way; empty when idle */
    struct timer timer;   /* armed lazily: it may fire early and is then set anew */
    uint64_t since_us;    /* when the connection became idle, or the head began */
    uint16_t port;
    bool close;           /* no further request */
    bool served;          /* has brought a request */
    bool feeding, dead;
};
void client_accept(struct worker *w, uint16_t port, struct conn *conn);
void client_close(struct client *c); /* orderly, after pending output */
void client_abort(struct client *c); /* reset */
void client_arm(struct client *c);   /* after anything that may have brought the next deadline nearer */
void client_request_done(struct client *c); /* its request has ended and its answer is written */
void client_continue(struct client *c);     /* sends 100 Continue */

/* --- requests (request.c and others) ------------------------------------------------------------------------- */

enum req_state { REQ_NEW, REQ_READ_BODY, REQ_ROUTE, REQ_WAIT_PICK, REQ_PREFILL, REQ_CONNECT, REQ_SEND, REQ_WAIT_HEAD, REQ_RELAY, REQ_DONE, REQ_N_STATES };
const char *req_state_name(enum req_state s);
bool req_move_allowed(enum req_state from, enum req_state to);

enum relay_mode { RELAY_RAW, RELAY_DECHUNK, RELAY_ENCHUNK };

/* Prefill and decode on different endpoints (pd.c, leg.c; model-servers.md 3). The connection to the decode endpoint is the request's own, as for
 * any other request; the prefill leg has one beside it. */
enum pd_mode {
    PD_BOOTSTRAP, /* SGLang: both get the same body with the prefill's address and a room, at once; neither can do without the other */
    PD_NIXL       /* vLLM: the prefill answers with parameters that the decode gets; without them the decode endpoint prefills */
};
enum leg_state { LEG_NONE, LEG_CONNECT, LEG_SEND, LEG_WAIT_HEAD, LEG_BODY };
struct leg {
    enum leg_state state;
    struct conn *up;
    struct endpoint *ep;    /* of the newest leg; own reference */
    uint64_t epoch;
    uint64_t begun_us, prefilled_us; /* of the newest; prefilled: 0 not yet */
    uint64_t deadline_us;   /* for the connection, then for its head; 0 none */
    size_t sent;
    bool fresh, keep, event_stream;
    struct buf in;          /* unfinished head; PD_NIXL: then the body */
    enum h1_framing framing;
    uint64_t left;
    struct h1_chunked chunked;
    struct sse *tail;
};
struct pd {
    enum pd_mode mode;
    uint16_t bootstrap_port;
    struct api_request body; /* points into the request's body */
    uint64_t *rooms;         /* one for each item of a batch, at least one */
    struct buf text;         /* what is new in the bodies sent */
    struct leg leg;
    bool plain_answer;       /* the head to be written is of a leg whose answer is read here: not compressed */
    bool split;              /* the newest attempt has, or had, a leg */
    const char *failed;      /* why the leg of the newest attempt was of no use; NULL: it was, or there was none */
    bool has_cached;         /* told by the prefill, whose caches it is about */
    uint64_t cached_tokens;
};

struct request {
    struct client *c;
    struct worker *w;
    struct list link;       /* worker's waiting, dead or free list */
    struct arena arena;
    enum req_state state;
    uint64_t start_us, body_done_us, picked_us, sent_us, first_us, last_us; /* last: newest byte of body or answer */
    uint64_t deadline_us;   /* whole request; 0 none */
    uint64_t attempt_deadline_us; /* this attempt's first byte; 0 none */
    uint64_t repick_us;     /* WAIT_PICK: when to ask again */

    /* the client's request */
    struct str head_bytes;  /* copy in the arena; spans of head point into it */
    struct h1_head *head;   /* only the first n_headers entries exist */
    struct str path, host;  /* normalised; lower case without port */
    struct str request_id;
    enum api_kind kind;
    bool keep_alive, to_head, http10;
    struct body body;
    size_t body_n;          /* its length, also after it was freed */
    uint64_t body_left;
    struct h1_chunked chunked_in;

    /* where to */
    struct world *world;    /* until the answer's head is written */
    const struct conf_listener *listener;
    const struct conf_rule *rule;
    const struct conf_match *match;
    struct backend *backend;
    struct str model, target; /* asked for; sent to the server */
    enum sched_criticality criticality;
    int priority;
    struct str objective, fairness_id; /* as the client named them, where the pool believes it */
    bool parsed, event_stream, is_model_kind, model_moved;

    /* the picker */
    struct port_req pick;
    bool reserved;
    struct pd *pd;          /* NULL: not a request whose prefill can be elsewhere */
    bool queued;            /* the port owes a late answer */
    bool cancelled;         /* nobody waits for that answer any more; it frees the request */
    uint64_t queued_us;     /* since when it waits */
    uint64_t waited_us;     /* in the queue, all attempts */
    uint64_t gone_us;       /* when the client left the queue */
    uint64_t enqueue_us;    /* what the newest submit took */
    struct flow_series *flow; /* NULL: the pool does not queue */
    unsigned retry_after_s; /* of our own answer; 0: by its code */
    bool accounted; /* ledger, metrics and log have it */
    struct prefix_hashes hashes;
    struct sched_explain *explain; /* NULL: not of this request */
    struct sched_explain *explain_leg; /* of its prefill, beside it */
    unsigned explain_every; /* it is one of so many that are explained */
    uint64_t decision;      /* ticket of the newest pick that has not ended (sched/decisions.h); 0 none */
    uint64_t decided_us, decided_wall_us; /* that pick */
    unsigned degraded;      /* level at which its prompt was hashed (strain.h) */
    struct endpoint *ep;    /* of the newest attempt; own reference */
    uint64_t epoch;
    enum sched_reason reason;
    uint64_t matched_bytes, stream_bytes;

    /* upstream */
    struct conn *up;
    struct iovec parts[1 + API_PIECES]; /* head, body (in stretches where something of it was replaced). PD_BOOTSTRAP: for both legs */
    int n_parts;
    size_t send_total, sent;
    unsigned attempts, crashes;
    bool fresh;             /* next attempt on a connection of its own: a reused one was stale */
    bool up_keep, up_paused;
    struct buf up_in;       /* unfinished answer head; then held bytes of the body */
    unsigned fail_status;   /* what the client hears when nobody else can serve */
    const char *fail_code;

    /* the answer */
    unsigned status;
    struct str resp_head;   /* held until the first byte of the body */
    enum h1_framing framing;
    enum relay_mode mode;
    uint64_t resp_left, resp_bytes;
    struct h1_chunked chunked_out;
    bool head_seen, committed, client_keep;
    struct sse *tail;       /* pool answers: first event and tail */
    struct str response_id;
    const char *error_code; /* for log and metrics */
    struct model_metrics *mm;
    bool running;           /* counted in running_requests */
};

struct request *request_new(struct client *c, struct str head_bytes);
void request_start(struct request *rq);
struct str request_read_body(struct request *rq, struct str data); /* returns what is behind the body */
void request_move(struct request *rq, enum req_state to);
void request_client_gone(struct request *rq);
void request_expired(struct request *rq, uint64_t now_us);
uint64_t request_deadline_us(const struct request *rq);
void request_release(struct request *rq); /* worker_leave: back to the free list */
/* Ends the request: by an answer of our own (when nothing was relayed yet, else the connection is cut), or after the last byte was relayed. */
void request_fail(struct request *rq, unsigned status, const char *code, const char *fmt, ...) PRINTF_LIKE(4, 5);
void request_answer(struct request *rq, unsigned status, const char *content_type, const char *headers, struct str body);
void request_settle(struct request *rq);   /* the answer is whole: accounts for it, before its last bytes are written */
void request_complete(struct request *rq); /* and everything is written */
void request_finish_pick(struct request *rq, enum sched_outcome how); /* no-op when nothing is reserved */
void request_unqueue(struct request *rq);  /* gives its place in the queue back; no-op when it has none */
void request_drop_upstream(struct request *rq);                     /* aborts it */

void request_set_parts(struct request *rq, const struct str *body, uint32_t n); /* what is sent: a head, and the body in n pieces, at most API_PIECES */
void request_route(struct request *rq);         /* route.c */
void request_pick(struct request *rq);          /* pick.c */
void request_picked(struct request *rq);
enum sched_answer request_submit(struct request *rq); /* asks the port; reserved is set when it picked */
/* flow.c. flow_read: from headers, pool and InferenceModel (or NULL); false: the request was refused. flow_ttl: the longest wait that a header asks
 * for, at most max_us (0: no limit); false when it is none. flow_submitted, flow_decided: after the port's answer, at once or late. flow_refuse:
 * answers a request that the picker rejected. flow_retry_after_s: whole seconds, 1 to 60. */
bool flow_read(struct request *rq, const struct conf_backend *pool, const struct conf_model *m);
bool flow_ttl(struct str text, uint64_t max_us, uint64_t *out_us);
void flow_submitted(struct request *rq, enum sched_answer a, uint64_t took_us);
void flow_decided(struct request *rq);
void flow_refuse(struct request *rq);
unsigned flow_retry_after_s(double known_s, unsigned otherwise_s);
void request_connect(struct request *rq);       /* upstream.c */
void request_move_elsewhere(struct request *rq); /* retry.c: its endpoint was ejected */
void upstream_failed(struct request *rq, enum sched_outcome how, const char *code);
bool request_try_elsewhere(struct request *rq, enum sched_outcome how); /* while an answer is held; false: go on with it */
void relay_head(struct request *rq, const struct h1_head *head, struct str rest); /* relay.c */
void relay_data(struct request *rq, struct str data);
void relay_eof(struct request *rq);
bool relay_is_event_stream(const struct h1_head *head);
void relay_client_drained(struct request *rq);
void models_answer(struct request *rq, const struct conf_backend *pool); /* models_answer.c */
bool models_known(struct request *rq, const struct conf_backend *pool);

/* pd.c. prepare: for a pool that is split; false: the request was refused. start: after a pick. cut: ends the leg, wherever it is; its endpoint is not to blame
 * unless `how` says so. answered: the decode endpoint's answer begins. prefill_failed: what a failed leg means for the request. try_again: an error of the
 * decode endpoint that may come from its prefill: true when it gets the request anew, to prefill itself, or (bootstrap) another pair does. */
bool pd_prepare(struct request *rq, const struct conf_backend *pool, const struct api_request *body);
void pd_start(struct request *rq);
void pd_cut(struct request *rq, enum sched_outcome how);
void pd_answered(struct request *rq);
bool pd_try_again(struct request *rq, unsigned status);
void pd_prefill_failed(struct request *rq, enum sched_outcome how, const char *code);
void pd_prefill_over(struct request *rq, struct str answer); /* PD_NIXL: the whole answer of the prefill */
void pd_free(struct request *rq);
void pd_note_failed(struct request *rq, enum sched_outcome how, const char *code, bool here); /* counts it; here: as metrics_prefill_failed */
/* leg.c */
void leg_start(struct request *rq);
void leg_stop(struct request *rq, enum sched_outcome how);   /* aborts what is under way and finishes its reservation; no-op without one */
void leg_prefilled(struct request *rq); /* its endpoint has computed the prompt: tells port and metrics, once */
void leg_expired(struct request *rq);
void leg_ejected(struct request *rq);                        /* its endpoint has lost its probes */
static inline bool leg_live(const struct request *rq)
{
    return rq->pd && rq->pd->leg.state != LEG_NONE;
}
size_t upstream_send(struct request *rq, struct conn *up, size_t sent); /* of the request's parts, what is behind `sent`; returns the bytes taken */
/* Looks for the head of an answer that comes in pieces, 1xx ones passed over; `in` keeps what is not whole. 1: it is in w->resp, *rest is what is behind it; both may
 * point into *kept, to be freed after use, and `in` is empty, for at most body_max bytes. 0: more has to come. -1: this is no HTTP. */
int upstream_take_head(struct request *rq, struct buf *in, size_t body_max, struct str data, struct str *rest, struct buf *kept);
void upstream_adopt(struct request *rq, struct conn *up);    /* the connection whose answer is the request's */
uint64_t upstream_deadline_us(const struct request *rq);     /* of the first byte of an attempt that begins now */
bool upstream_is_ours(int err);
void retry_pair(struct request *rq, enum sched_outcome how, const char *code); /* retry.c: the prefill failed: another pair, or the end */
bool retry_other_pair(struct request *rq); /* while an error of the decode endpoint is held; false: go on with it */
void retry_note_leg(struct request *rq);       /* its prefill endpoint has failed it */
void request_drop_attempt(struct request *rq); /* retry.c: forgets what this attempt had brought from the endpoint; a prefill leg is another matter */

/* headers.c: both write to w->text and return it */
struct str headers_path(struct request *rq); /* of the request as the endpoint gets it: the route's rewrite applied */
struct str headers_request(struct request *rq, uint64_t content_length);
void headers_request_id(struct request *rq); /* one in any case: the client's, or ours when it sent none or an endless one. Done by headers_request, too */
struct str headers_response(struct request *rq, const struct h1_head *head);
struct str headers_replace_prefix(struct arena *a, struct str path, struct str prefix, struct str replacement);
struct str headers_location(struct request *rq, const struct conf_redirect *rd);

void errors_write(struct client *c, enum api_kind kind, bool to_head, bool keep, unsigned status, const char *code, struct str message); /* errors.c */
/* decided.c: what /debug/decisions shows. explain_due: whether this request's decision is to be explained: each one up to EXPLAIN_ALL_PER_S in a
 * second of a worker, beyond it, and when the worker is behind, one of EXPLAIN_EVERY; sets explain_every. */
#define EXPLAIN_ALL_PER_S 1000
#define EXPLAIN_EVERY 16
bool explain_due(struct request *rq);
void decided_picked(struct request *rq);
void decided_refused(struct request *rq);
void decided_over(struct request *rq, const struct api_usage *u, uint64_t now_us);
void access_log(struct request *rq, const struct api_usage *u, uint64_t now_us); /* access.c */

/* --- metrics (metrics.c) ------------------------------------------------------------------------------------- */

struct model_metrics {
    struct str model, target;
    struct { /* by priority, filled on first use; m NULL: free */
        int priority;
        struct metric *m;
    } requests[4];
    struct str rewrite; /* InferenceModelRewrite of the newest request, owned */
    struct metric *rewrites;
    struct metric *duration, *request_sizes, *response_sizes, *input_tokens, *output_tokens, *cached_tokens, *running, *ntpot, *ttft;
};
struct live; /* live.c: gauges of pools and pods */
struct live *live_new(struct gateway *g);
void live_free(struct live *lv);
struct proxy_metrics *proxy_metrics_new(struct gateway *g);
void proxy_metrics_free(struct proxy_metrics *pm);
void metrics_backend_init(struct gateway *g, struct backend *b);
struct model_metrics *metrics_model(struct worker *w, struct str model, struct str target);
void metrics_free_models(struct worker *w);
void metrics_client(struct worker *w, int delta);
void metrics_pick(struct request *rq, uint64_t took_us); /* the picker was asked */
void metrics_picked(struct request *rq);                 /* and has decided, now or later */
void metrics_pick_failed(struct request *rq);
void metrics_rewrite(struct request *rq, struct str object); /* an InferenceModelRewrite chose the target */
void metrics_sent(struct request *rq);
void metrics_first_byte(struct request *rq);
void metrics_retry(struct request *rq);
void metrics_upstream_failure(struct request *rq, enum sched_outcome how);
void metrics_done(struct request *rq, const struct api_usage *usage, uint64_t now_us);
void metrics_rejected(struct worker *w, const char *code);
void metrics_split(struct request *rq, bool split);      /* where its prefill is to be */
void metrics_prefilled(struct request *rq);              /* the leg has computed the prompt */
void metrics_prefill_failed(struct request *rq, enum sched_outcome how, bool here); /* here: the decode endpoint prefills instead */
void metrics_degraded(struct request *rq); /* its prompt was hashed less than the pool's settings say */

/* flow_metrics.c */
enum flow_outcome {
    FLOW_DISPATCHED,
    FLOW_REJECTED_CAPACITY, FLOW_REJECTED_OTHER,                      /* at once */
    FLOW_EVICTED_TTL, FLOW_EVICTED_CANCELLED, FLOW_EVICTED_OTHER,     /* having waited */
    N_FLOW_OUTCOMES
};
struct flow_families *flow_families_new(struct metrics *m);
struct flow_series *flow_series(struct request *rq); /* of its labels; lives as long as the worker */
void flow_series_free(struct worker *w);
void flow_count(struct request *rq, int sign); /* +1, -1: one more that waits, one less */
void flow_observe(struct request *rq, enum flow_outcome how, uint64_t waited_us);
void flow_released(struct request *rq); /* the place of a client that left is free */

#endif
