/* sim/server.c - life of a simulated server: start, the engines' timer, death and return. */
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

/* When the engine's step ends; UINT64_MAX: it has nothing to do, or a fault struck in the middle of an answer. */
static uint64_t pump_rank(struct rank *r, uint64_t now)
{
    uint64_t next;
    while ((next = engine_next(r->engine, now)) <= now) {
        engine_advance(r->engine, now, job_event, r);
        stats_step(r);
        if (r->s->hanging || r->s->dead)
            return UINT64_MAX;
    }
    return next;
}

void server_pump(struct server *s)
{
    uint64_t now = server_now(s), next = UINT64_MAX;
    for (unsigned i = 0; i < s->n_ranks && !s->hanging && !s->dead; i++)
        next = MIN(next, pump_rank(&s->ranks[i], now));
    if (s->hanging || s->dead)
        return;
    s->tick.fn = on_tick;
    if (next == UINT64_MAX)
        timer_stop(s->loop, &s->tick);
    else
        timer_set(s->loop, &s->tick, next + s->hang_total_us);
    disagg_pump(s);
}

void server_wake(struct server *s)
{
    s->tick.fn = on_tick;
    if (!s->dead)
        timer_set(s->loop, &s->tick, loop_now_us(s->loop));
}

void server_stats(const struct server *s, bool live, struct engine_stats *out)
{
    struct engine_stats es;
    *out = (struct engine_stats){0};
    for (unsigned i = 0; i < s->n_ranks; i++) {
        engine_stats(s->ranks[i].engine, live, &es);
        out->running += es.running;
        out->waiting += es.waiting;
        out->deferred += es.deferred;
        out->n_blocks += es.n_blocks;
        out->free_blocks += es.free_blocks;
        out->preemptions += es.preemptions;
        out->lora_loads += es.lora_loads;
        out->lora_reads += es.lora_reads;
        out->prefix_query_tokens += es.prefix_query_tokens;
        out->prefix_hit_tokens += es.prefix_hit_tokens;
        out->prompt_tokens += es.prompt_tokens;
        out->generation_tokens += es.generation_tokens;
        out->computed_tokens += es.computed_tokens;
        out->steps += es.steps;
        out->kv_usage_frac += es.kv_usage_frac / s->n_ranks;
    }
}

/* Waiting requests weigh four times as much as running ones, as with vLLM's own balancing. */
struct rank *server_idlest(struct server *s)
{
    struct rank *best = &s->ranks[0];
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < s->n_ranks; i++) {
        struct engine_stats es;
        engine_stats(s->ranks[i].engine, true, &es);
        uint64_t load = (uint64_t)es.waiting * 4 + es.running;
        if (load < least) {
            least = load;
            best = &s->ranks[i];
        }
    }
    return best;
}

/* ---- requests ---- */

void server_dispatch(struct server *s, struct httpd_req *rq)
{
    bool inference = rq->head->method == H1_POST;
    if (s->hanging || s->dead) {
        hold_request(s, rq, server_dispatch);
        return;
    }
    if (inference && s->fault.kind == FAULT_STATUS && fault_before_answer(s, AT_BEFORE, rq, server_dispatch))
        return;
    if (fault_before_answer(s, inference ? AT_AFTER_BODY : AT_PROBE, rq, server_dispatch))
        return;
    server_route(s, rq);
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
    if (disagg_open(s, err) != 0)
        return -1;
    if (triton_open(s, err) != 0) {
        disagg_close(s, false);
        return -1;
    }
    s->http = httpd_open(s->loop, &s->addr, SIM_MAX_BODY, on_request, s, err);
    if (!s->http) {
        server_shut(s, false);
        return -1;
    }
    httpd_on_head(s->http, fault_on_head);
    httpd_set_idle(s->http, 5000000); /* as uvicorn */
    s->addr = *httpd_addr(s->http);   /* when any free port was asked for: from now on this one */
    server_check_ready(s);
    return 0;
}

/* The listener of the API goes first: its requests end, and with them what they hold. */
void server_shut(struct server *s, bool reset)
{
    struct httpd **v[] = {&s->http, &s->metrics};
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        if (*v[i] && reset)
            httpd_close_reset(*v[i]);
        else if (*v[i])
            httpd_close(*v[i]);
        *v[i] = NULL;
    }
    disagg_close(s, reset);
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
        for (unsigned r = 0; r < s->n_ranks && s->loras[i]; r++)
            engine_lora_add(s->ranks[r].engine, i + 1);
}

static void free_ranks(struct server *s)
{
    for (unsigned i = 0; i < s->n_ranks; i++) {
        engine_free(s->ranks[i].engine);
        stats_free(&s->ranks[i].stats);
    }
    free(s->ranks);
    s->ranks = NULL;
    s->n_ranks = 0;
}

static void make_ranks(struct server *s)
{
    s->ranks = xcalloc(s->opt->dp, sizeof(*s->ranks));
    s->n_ranks = s->opt->dp;
    for (unsigned i = 0; i < s->n_ranks; i++) {
        struct rank *r = &s->ranks[i];
        struct engine_params p = s->ep;
        p.seed = i ? hash_mix(s->ep.seed, i) : s->ep.seed;
        r->s = s;
        r->index = (unsigned)s->opt->dp_first + i;
        r->engine = engine_new(&p);
        stats_init(&r->stats, s->opt->dialect);
    }
}

/* Comes back as a restarted process: empty caches, counters at zero, after the startup time. */
void server_revive(struct server *s)
{
    if (!s->dead)
        return;
    timer_stop(s->loop, &s->die);
    server_shut(s, true);
    free_ranks(s);
    make_ranks(s);
    register_loras(s);
    s->n_kept = s->rejected = 0;
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
    make_ranks(s);
    return 0;
}

static void setup_names(struct server *s)
{
    const struct sim_options *o = s->opt;
    for (unsigned i = 0; i < o->n_names; i++)
        s->names[s->n_names++] = o->names[i];
    if (!s->n_names && o->dialect == SIM_TRITON) {
        static const char *const usual[] = {"ensemble", "tensorrt_llm", "tensorrt_llm_bls"};
        for (size_t i = 0; i < ARRAY_LEN(usual); i++)
            s->names[s->n_names++] = str_c(usual[i]);
    }
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
    list_init(&s->pd.held);
    list_init(&s->pd.asks);
    list_init(&s->pd.pulls);
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
    s->dead = true; /* what ends now starts nothing */
    server_shut(s, false);
    struct timer *timers[] = {&s->tick, &s->startup, &s->die, &s->fault_end};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++)
        timer_stop(s->loop, timers[i]);
    free_ranks(s);
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

uint16_t server_side_port(const struct server *s)
{
    return s->pd.side ? httpd_port(s->pd.side) : 0;
}

uint16_t server_metrics_port(const struct server *s)
{
    return s->metrics ? httpd_port(s->metrics) : 0;
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
