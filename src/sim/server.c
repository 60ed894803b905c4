/* sim/server.c - life of a simulated server: start, routing, the engine's timer, hanging, death and return. */
#include "sim/server_priv.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ---- the engine's clock and pump ---- */

uint64_t server_now(const struct server *s)
{
    return (s->hanging ? s->hang_since_us : loop_now_us(s->loop)) - s->hang_total_us;
}

static void on_tick(struct timer *t)
{
    struct server *s = CONTAINER_OF(t, struct server, tick);
    server_pump(s);
}

void server_pump(struct server *s)
{
    if (s->hanging || s->dead)
        return;
    uint64_t now = server_now(s), next;
    while ((next = engine_next(s->engine, now)) <= now) {
        engine_advance(s->engine, now, job_event, s);
        stats_step(s);
        if (s->hanging || s->dead) /* a fault struck in the middle of an answer */
            return;
    }
    s->tick.fn = on_tick;
    if (next == UINT64_MAX)
        timer_stop(s->loop, &s->tick);
    else
        timer_set(s->loop, &s->tick, next + s->hang_total_us);
}

/* ---- routing ---- */

static void get_health(struct server *s, struct httpd_req *rq)
{
    (void)s;
    httpd_respond(rq, 200, NULL, NULL, STR_NULL);
}

static void get_version(struct server *s, struct httpd_req *rq)
{
    respond_json(s, rq, 200, STR("{\"version\":\"0.10.1+penstock.sim\"}"));
}

static void get_metrics(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    buf_init(&out, 8u << 20);
    stats_expose(s, &out);
    httpd_respond(rq, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, buf_str(&out));
    buf_free(&out);
}

static void get_load(struct server *s, struct httpd_req *rq)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "{\"server_load\":%u}", s->n_jobs);
    respond_json(s, rq, 200, (struct str){text, (size_t)n});
}

static void post_reset(struct server *s, struct httpd_req *rq)
{
    engine_reset_prefix_cache(s->engine);
    httpd_respond(rq, 200, NULL, NULL, STR_NULL);
}

static void post_load_lora(struct server *s, struct httpd_req *rq)
{
    models_lora(s, rq, true);
}

static void post_unload_lora(struct server *s, struct httpd_req *rq)
{
    models_lora(s, rq, false);
}

#define API(fn, api)                                                                                                   \
    static void fn(struct server *s, struct httpd_req *rq)                                                             \
    {                                                                                                                  \
        job_start(s, api, rq);                                                                                         \
    }
API(post_completions, SIM_COMPLETIONS)
API(post_chat, SIM_CHAT)
API(post_embeddings, SIM_EMBEDDINGS)
API(post_responses, SIM_RESPONSES)
API(post_messages, SIM_MESSAGES)

static const struct route {
    enum h1_method method;
    const char *path;
    void (*fn)(struct server *s, struct httpd_req *rq);
} routes[] = {{H1_POST, "/v1/chat/completions", post_chat},
              {H1_POST, "/v1/completions", post_completions},
              {H1_POST, "/v1/embeddings", post_embeddings},
              {H1_POST, "/v1/responses", post_responses},
              {H1_POST, "/v1/messages", post_messages},
              {H1_GET, "/v1/models", models_list},
              {H1_GET, "/metrics", get_metrics},
              {H1_GET, "/health", get_health},
              {H1_GET, "/ping", get_health},
              {H1_POST, "/ping", get_health},
              {H1_GET, "/version", get_version},
              {H1_GET, "/load", get_load},
              {H1_POST, "/tokenize", models_tokenize},
              {H1_POST, "/reset_prefix_cache", post_reset},
              {H1_POST, "/v1/load_lora_adapter", post_load_lora},
              {H1_POST, "/v1/unload_lora_adapter", post_unload_lora}};

static void route(struct server *s, struct httpd_req *rq)
{
    const struct route *other = NULL;
    enum h1_method m = rq->head->method == H1_HEAD ? H1_GET : rq->head->method;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!str_eq_c(rq->head->path, routes[i].path))
            continue;
        if (routes[i].method == m) {
            routes[i].fn(s, rq);
            return;
        }
        other = &routes[i];
    }
    if (other)
        api_error(s, rq, SIM_CHAT, 405, NULL, "Method Not Allowed");
    else
        api_error(s, rq, SIM_CHAT, 404, NULL, "Not Found");
}

void server_dispatch(struct server *s, struct httpd_req *rq)
{
    bool inference = rq->head->method == H1_POST;
    if (s->hanging || s->dead) {
        hold_request(s, rq);
        return;
    }
    if (inference && s->fault.kind == FAULT_STATUS && fault_before_answer(s, AT_BEFORE, rq))
        return;
    if (fault_before_answer(s, inference ? AT_AFTER_BODY : AT_PROBE, rq))
        return;
    route(s, rq);
}

static void on_request(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    if (str_starts(rq->head->path, STR("/sim/"))) {
        rq->user = s; /* tells post_fault that the answer leaves through the listener that may die */
        server_control(s, rq, str_from(rq->head->path, 5));
        return;
    }
    if (rq->head->method == H1_POST)
        capture_add(s, rq);
    server_dispatch(s, rq);
}

/* ---- life ---- */

bool server_ready(const struct server *s)
{
    return s->http && !s->dead && !s->unready;
}

void server_check_ready(struct server *s)
{
    bool now = server_ready(s);
    if (now == s->was_ready)
        return;
    s->was_ready = now;
    if (s->hooks.ready)
        s->hooks.ready(s->hooks.ctx, s, now);
}

static int listen_now(struct server *s, struct errbuf *err)
{
    s->http = httpd_open(s->loop, &s->addr, SIM_MAX_BODY, on_request, s, err);
    if (!s->http)
        return -1;
    httpd_on_head(s->http, fault_on_head);
    httpd_set_idle(s->http, 5000000); /* as uvicorn */
    s->addr = *httpd_addr(s->http);   /* when any free port was asked for: from now on this one */
    server_check_ready(s);
    return 0;
}

static void on_startup(struct timer *t)
{
    struct server *s = CONTAINER_OF(t, struct server, startup);
    struct errbuf err;
    if (!s->http && listen_now(s, &err) != 0) /* the address was taken meanwhile: try again */
        timer_set(s->loop, &s->startup, loop_now_us(s->loop) + 1000000);
}

/* The server looks at every adapter it is given before it serves: those named last are on the GPU then. */
static void register_loras(struct server *s)
{
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++)
        if (s->loras[i])
            engine_lora_add(s->engine, i + 1);
}

/* Comes back as a restarted process: empty caches, counters at zero, after the startup time. */
void server_revive(struct server *s)
{
    if (!s->dead)
        return;
    timer_stop(s->loop, &s->die);
    if (s->http)
        httpd_close_reset(s->http);
    s->http = NULL;
    engine_free(s->engine);
    s->engine = engine_new(&s->ep);
    register_loras(s);
    stats_free(&s->stats);
    stats_init(&s->stats);
    s->n_kept = 0;
    s->dead = false;
    s->startup.fn = on_startup;
    timer_set(s->loop, &s->startup, loop_now_us(s->loop) + s->opt->startup_us);
}

static int setup_engine(struct server *s, struct errbuf *err)
{
    const struct sim_options *o = s->opt;
    struct profile_query q = {.name = o->profile,
                              .hardware = o->hardware,
                              .model = o->model.n ? o->model : o->names[0],
                              .tp = o->tp,
                              .memory_frac = o->memory_frac};
    if (profile_find(&q, &s->profile, err) != 0)
        return -1;
    uint64_t kv = o->kv_tokens ? o->kv_tokens : s->profile.kv_tokens;
    uint64_t blocks = o->n_blocks_override ? o->n_blocks_override : kv / o->block_size;
    if (blocks < 2 || blocks > 16u << 20)
        return err_set(err, "the KV cache of %llu blocks is too small or too large.", (unsigned long long)blocks);
    s->ep = (struct engine_params){
        .time = s->profile.time,
        .block_size = (uint32_t)o->block_size,
        .n_blocks = (uint32_t)blocks,
        .max_num_seqs = (uint32_t)(o->max_num_seqs ? o->max_num_seqs : s->profile.max_num_seqs),
        .max_batched_tokens = (uint32_t)(o->max_batched_tokens ? o->max_batched_tokens : s->profile.max_batched_tokens),
        .max_loras = (uint32_t)o->max_loras,
        .max_cpu_loras = (uint32_t)o->max_cpu_loras,
        .lora_load_s = (double)o->lora_load_us / 1e6,
        .lora_read_s = (double)o->lora_read_us / 1e6,
        .prefix_caching = o->prefix_caching,
        .jitter = o->jitter,
        .seed = o->seed};
    uint64_t len = o->max_model_len ? o->max_model_len : s->profile.max_model_len;
    s->max_model_len = (uint32_t)MIN(len, blocks * o->block_size);
    s->engine = engine_new(&s->ep);
    return 0;
}

static void setup_names(struct server *s)
{
    const struct sim_options *o = s->opt;
    for (unsigned i = 0; i < o->n_names; i++)
        s->names[s->n_names++] = o->names[i];
    if (!s->n_names)
        s->names[s->n_names++] = o->model.n ? o->model : STR("Qwen/Qwen2.5-7B-Instruct");
    for (unsigned i = 0; i < o->n_loras; i++) {
        s->loras[i] = xmalloc(sizeof(*s->loras[i]));
        *s->loras[i] = (struct sim_lora){{str_dup(o->loras[i].name), o->loras[i].name.n},
                                         {str_dup(o->loras[i].path), o->loras[i].path.n}};
    }
}

struct server *server_new(struct loop *l, const struct sim_options *o, const struct server_hooks *hooks,
                          struct errbuf *err)
{
    struct server *s = xcalloc(1, sizeof(*s));
    s->loop = l;
    s->opt = o;
    if (hooks)
        s->hooks = *hooks;
    list_init(&s->jobs);
    list_init(&s->held);
    /* Ids must differ between runs and between servers, whatever their seeds. */
    rng_init(&s->rng, hash_mix(hash_mix(o->seed, (uint64_t)time(NULL)),
                               hash_mix((uint64_t)getpid(), hash_bytes(o->host.p, o->host.n, o->port))));
    stats_init(&s->stats);
    s->fault = (struct fault){.factor = 1, .status = 500};
    s->created = (uint64_t)time(NULL);
    s->startup.fn = on_startup;
    bool ok = addr_parse(o->host, o->port, &s->addr);
    if (!ok)
        (void)err_set(err, "\"" STR_FMT "\" is no numeric address.", STR_ARG(o->host));
    else if (o->port && addr_in_use(&s->addr))
        ok = err_set(err, "somebody already listens on " STR_FMT ":%u.", STR_ARG(o->host), o->port) == 0;
    else
        ok = setup_engine(s, err) == 0;
    if (ok) {
        setup_names(s);
        register_loras(s);
        if (o->startup_us)
            timer_set(l, &s->startup, loop_now_us(l) + o->startup_us);
        else
            ok = listen_now(s, err) == 0;
    }
    if (ok)
        return s;
    server_free(s);
    return NULL;
}

void server_free(struct server *s)
{
    if (!s)
        return;
    struct timer *timers[] = {&s->tick, &s->startup, &s->die, &s->fault_end};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++)
        timer_stop(s->loop, timers[i]);
    if (s->http)
        httpd_close(s->http);
    engine_free(s->engine);
    stats_free(&s->stats);
    captures_free(s->captures);
    for (unsigned i = 0; i < SIM_MAX_LORAS; i++)
        lora_free(s->loras[i]);
    for (unsigned i = 0; i < SIM_MAX_RESPONSES; i++)
        if (s->kept[i]) {
            tokens_free(&s->kept[i]->tok);
            free(s->kept[i]);
        }
    free(s);
}

const struct addr *server_addr(const struct server *s)
{
    return &s->addr;
}

const char *server_profile(const struct server *s)
{
    return s->profile.name;
}

uint64_t server_kv_tokens(const struct server *s)
{
    return (uint64_t)s->ep.n_blocks * s->ep.block_size;
}

bool server_dead(const struct server *s)
{
    return s->dead;
}

bool server_idle(const struct server *s)
{
    return s->n_jobs == 0 && list_empty(&s->held);
}

uint64_t server_requests(const struct server *s)
{
    return s->n_requests;
}
