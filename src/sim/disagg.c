/* sim/disagg.c - the two halves of a prefill/decode pair, and the way of a prompt's KV between two servers.
 *
 * The halves speak HTTP on the prefill server's side listener (SGLang's bootstrap port, vLLM's side channel): the
 * decode half posts what it wants to /kv, and the answer comes when the KV is there. What a prompt takes on the way is
 * its size over the link, one after the other, plus a fixed time.
 *
 *   SGLang, prefill:  ALONE -(partner asks)-> COMPUTING -(first token)-> MOVING -(time)-> request answered
 *   NIXL, prefill:    computed and answered -> READY -(partner asks)-> MOVING -> gone         READY -(lease)-> gone
 *   decode:           waits for memory -> asked -(answer)-> engine, nothing of the prompt to compute
 *
 * Whoever loses its partner fails its request at once; whoever never had one after a while. Memory of the engine is
 * held while a prompt is, and kept free for one that is asked for. */
#include "sim/answer_priv.h"

#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ASKS 4096 /* partners that wait for a prompt's request */
#define ASK_BODY (64u << 10)

static const double speed_bounds[] = {.1, .5, 1, 5, 10, 25, 50, 75, 100, 200, 400};
static const double latency_bounds[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
static const double volume_bounds[] = {1, 5, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000};

static unsigned long long ull(uint64_t v)
{
    return v;
}

/* The engine takes n choices. False: the request is gone. */
static bool submit_some(struct choice *c, uint32_t n, bool with_prompt, bool hold)
{
    for (uint32_t i = 0; i < n; i++)
        if (!job_submit(&c[i], with_prompt ? c[i].n_prompt : 0, hold)) {
            job_fail(c->job, 400, "The request does not fit into the KV cache of this server.");
            return false;
        }
    return true;
}

/* ---- prefill half: what is held ---- */

static void on_held_timer(struct timer *t);
static void held_due(struct kv_held *h);

static struct kv_held *held_new(struct choice *c, enum kv_state state)
{
    struct server *s = c->job->s;
    struct kv_held *h = xcalloc(1, sizeof(*h));
    *h = (struct kv_held){.s = s,
                          .state = state,
                          .room = c->room,
                          .rank = c->rank,
                          .n_tokens = c->n_prompt,
                          .key = c->key,
                          .timer = {.fn = on_held_timer}};
    list_push_back(&s->pd.held, &h->link);
    return h;
}

static void held_arm(struct kv_held *h, uint64_t at_us)
{
    h->due_us = at_us;
    timer_set(h->s->loop, &h->timer, at_us);
}

static void held_free(struct kv_held *h)
{
    timer_stop(h->s->loop, &h->timer);
    list_remove(&h->link);
    if (h->seq)
        engine_cancel(h->rank->engine, h->seq);
    if (h->c)
        h->c->held = NULL;
    free(h);
}

static void refuse(struct server *s, struct httpd_req *rq, unsigned status, const char *why)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "{\"error\":\"%s\"}", why);
    rq->on_abort = NULL;
    if (s->dead)
        httpd_kill(rq, true);
    else
        httpd_respond(rq, status, "application/json", NULL, (struct str){text, (size_t)n});
}

/* The prompt's request has ended; a partner that waits is told. */
static void held_drop(struct kv_held *h)
{
    if (h->ask)
        refuse(h->s, h->ask, 410, "the request of the prompt has ended");
    held_free(h);
}

static void partner_left(struct httpd_req *rq)
{
    struct kv_held *h = rq->user;
    struct server *s = h->s;
    h->ask = NULL;
    s->pd.count.transfer_failed++;
    if (!h->c) {
        h->state = KV_READY;
        held_arm(h, h->lease_us);
        return;
    }
    h->state = KV_LOST;
    h->due_us = 0;
    timer_stop(s->loop, &h->timer);
    if (!s->hanging && !s->dead)
        held_due(h);
}

static void take_partner(struct kv_held *h, struct httpd_req *rq)
{
    h->ask = rq;
    rq->user = h;
    rq->on_abort = partner_left;
}

static void move(struct kv_held *h)
{
    struct server *s = h->s;
    double bytes = h->n_tokens * s->profile.kv_token_bytes, us = bytes * 8e-3 / s->opt->kv_gbps;
    uint64_t now = loop_now_us(s->loop);
    s->pd.link_free_us = MAX(s->pd.link_free_us, now) + (uint64_t)us;
    uint64_t due = s->pd.link_free_us + s->opt->kv_latency_us;
    double ms = (double)(due - now) / 1e3;
    hist_observe(&s->pd.latency, ms);
    hist_observe(&s->pd.volume, bytes / 1e6);
    hist_observe(&s->pd.speed, ms > 0 ? bytes / 1e6 / ms : 0);
    h->state = KV_MOVING;
    held_arm(h, due);
}

static void moved(struct kv_held *h)
{
    struct server *s = h->s;
    struct choice *c = h->c;
    char text[64];
    int n = snprintf(text, sizeof(text), "{\"tokens\":%u}", h->n_tokens);
    s->pd.count.moved++;
    s->pd.count.moved_bytes += (uint64_t)(h->n_tokens * s->profile.kv_token_bytes);
    h->ask->on_abort = NULL;
    httpd_respond(h->ask, 200, "application/json", NULL, (struct str){text, (size_t)n});
    held_free(h);
    if (c)
        job_deliver(c, true);
}

static void held_due(struct kv_held *h)
{
    struct server *s = h->s;
    if (h->state == KV_MOVING) {
        moved(h);
    } else if (h->state == KV_READY) {
        s->pd.count.expired++;
        held_free(h);
    } else if (h->state == KV_LOST) {
        job_fail(h->c->job, 500, "The decode half of room %llu has gone.", ull(h->room));
    } else {
        s->pd.count.bootstrap_failed++;
        job_fail(h->c->job, 500, "No decode server asked for room %llu within %g s.", ull(h->room),
                 (double)s->opt->pair_wait_us / 1e6);
    }
}

static void on_held_timer(struct timer *t)
{
    struct kv_held *h = CONTAINER_OF(t, struct kv_held, timer);
    struct server *s = h->s;
    if (s->hanging || s->dead) /* disagg_resume comes back to it */
        return;
    held_due(h);
    server_pump(s);
}

/* ---- SGLang: rooms ---- */

static struct kv_held *find_room(const struct server *s, uint64_t room)
{
    LIST_EACH (it, &s->pd.held) {
        struct kv_held *h = CONTAINER_OF(it, struct kv_held, link);
        if (h->c && h->room == room)
            return h;
    }
    return NULL;
}

/* Both halves are there: the prompt is computed now. False: the request is gone. */
static bool meet(struct kv_held *h, const struct kv_ask *a)
{
    struct job *j = h->c->job;
    if (a->tokens != h->n_tokens || a->key != h->key) {
        refuse(h->s, a->rq, 409, "the prompt of this room is another one");
        job_fail(j, 500, "The decode half of room %llu has a prompt of its own (%llu tokens, here %u).", ull(h->room),
                 ull(a->tokens), h->n_tokens);
        return false;
    }
    timer_stop(h->s->loop, &h->timer);
    take_partner(h, a->rq);
    h->state = KV_COMPUTING;
    return submit_some(h->c, 1, false, true);
}

static void ask_free(struct kv_ask *a)
{
    a->s->pd.n_asks--;
    list_remove(&a->link);
    free(a);
}

static void asker_left(struct httpd_req *rq)
{
    ask_free(rq->user);
}

static bool hold_room(struct choice *c)
{
    struct server *s = c->job->s;
    if (find_room(s, c->room)) {
        job_fail(c->job, 400, "bootstrap_room %llu is in use by another request.", ull(c->room));
        return false;
    }
    struct kv_held *h = held_new(c, KV_ALONE);
    h->c = c;
    c->held = h;
    held_arm(h, loop_now_us(s->loop) + s->opt->pair_wait_us);
    LIST_EACH_SAFE (it, tmp, &s->pd.asks) {
        struct kv_ask *a = CONTAINER_OF(it, struct kv_ask, link), copy = *a;
        if (a->room != c->room || a->rank != (uint64_t)(c->rank - s->ranks))
            continue;
        ask_free(a);
        return meet(h, &copy);
    }
    return true;
}

static void park(struct server *s, const struct kv_ask *a)
{
    if (s->pd.n_asks >= MAX_ASKS) {
        refuse(s, a->rq, 503, "too many wait here");
        return;
    }
    struct kv_ask *p = xmalloc(sizeof(*p));
    *p = *a;
    list_push_back(&s->pd.asks, &p->link);
    s->pd.n_asks++;
    p->rq->user = p;
    p->rq->on_abort = asker_left;
}

static void ask_room(struct server *s, const struct kv_ask *a)
{
    struct kv_held *h = find_room(s, a->room);
    LIST_EACH (it, &s->pd.asks)
        if (CONTAINER_OF(it, struct kv_ask, link)->room == a->room) {
            refuse(s, a->rq, 409, "another decode server waits for this room");
            return;
        }
    if (h && h->state != KV_ALONE) {
        refuse(s, a->rq, 409, "another decode server has this room");
    } else if (h && a->rank == (uint64_t)(h->rank - s->ranks)) {
        (void)meet(h, a);
        server_pump(s);
    } else {
        park(s, a); /* for a rank that has no such room: until somebody tires of it */
    }
}

/* ---- NIXL: prompts that were handed over in an answer ---- */

static void engine_name(const struct server *s, const struct rank *r, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s-dp%u", s->pd.engine_id, r->index);
}

static void write_offer(struct kv_held *h, struct buf *out)
{
    struct server *s = h->s;
    struct jsonw w;
    char engine[64];
    uint32_t n;
    const uint32_t *block = engine_blocks(h->seq, &n);
    engine_name(s, h->rank, engine, sizeof(engine));
    buf_clear(out);
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, "do_remote_prefill");
    jsonw_bool(&w, true);
    jsonw_key(&w, "do_remote_decode");
    jsonw_bool(&w, false);
    jsonw_key(&w, "remote_block_ids");
    jsonw_arr(&w);
    jsonw_arr(&w);
    for (uint32_t i = 0; i < n; i++)
        jsonw_u64(&w, block[i]);
    jsonw_arr_end(&w);
    jsonw_arr_end(&w);
    member(&w, "remote_engine_id", engine);
    member(&w, "remote_request_id", h->id);
    jsonw_key(&w, "remote_host");
    jsonw_str(&w, s->opt->host);
    member_u64(&w, "remote_port", httpd_port(s->pd.side));
    member_u64(&w, "tp_size", s->opt->tp ? s->opt->tp : 1);
    member_u64(&w, "remote_num_tokens", h->n_tokens);
    jsonw_obj_end(&w);
}

static void offer(struct choice *c)
{
    struct job *j = c->job;
    struct server *s = j->s;
    struct kv_held *h = held_new(c, KV_READY);
    h->seq = c->seq;
    c->seq = NULL;
    (void)snprintf(h->id, sizeof(h->id), "%s-%u-%08x", j->id, (unsigned)(c - j->choice),
                   (unsigned)(rng_u64(&s->rng) >> 32));
    h->lease_us = loop_now_us(s->loop) + s->opt->kv_lease_us;
    held_arm(h, h->lease_us);
    write_offer(h, &j->offer); /* one slot: of several choices the last one is told, the others wait for their lease */
}

void disagg_offer(struct jsonw *w, const struct job *j)
{
    if (j->offer.n)
        jsonw_raw(w, buf_str(&j->offer));
    else
        jsonw_null(w);
}

struct wanted { /* NIXL: what a partner asks for */
    struct buf id, engine;
};

static void ask_offer(struct server *s, const struct kv_ask *a, const struct wanted *want)
{
    char engine[64];
    LIST_EACH (it, &s->pd.held) {
        struct kv_held *h = CONTAINER_OF(it, struct kv_held, link);
        if (h->c || !str_eq_c(buf_str(&want->id), h->id))
            continue;
        engine_name(s, h->rank, engine, sizeof(engine));
        if (!str_eq_c(buf_str(&want->engine), engine))
            break;
        if (h->state != KV_READY) {
            refuse(s, a->rq, 409, "somebody else fetches this prompt");
        } else if (a->tokens != h->n_tokens || a->key != h->key) {
            refuse(s, a->rq, 409, "the prompt held here is another one");
        } else {
            take_partner(h, a->rq);
            move(h);
        }
        return;
    }
    refuse(s, a->rq, 404, "no such prompt is held here");
}

bool disagg_computed(struct choice *c)
{
    if (c->job->kv == JOB_OFFER)
        offer(c);
    if (!c->held)
        return false;
    c->held->seq = c->seq;
    c->seq = NULL;
    move(c->held);
    return true;
}

/* ---- the side listener ---- */

static bool read_ask(struct str body, struct kv_ask *a, struct wanted *want)
{
    static const char *const keys[] = {"room", "rank", "tokens", "key", "request_id", "engine_id"};
    struct str m[ARRAY_LEN(keys)];
    const char *error;
    return body_members(body, keys, ARRAY_LEN(keys), m, &error) && body_u64(m[0], &a->room) != BODY_BAD &&
           body_u64(m[1], &a->rank) != BODY_BAD && body_u64(m[2], &a->tokens) == BODY_OK &&
           body_u64(m[3], &a->key) == BODY_OK && (!m[4].n || body_string(m[4], &want->id)) &&
           (!m[5].n || body_string(m[5], &want->engine)) && (m[0].n > 0) != (m[4].n > 0);
}

static void on_ask(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    struct kv_ask a = {.s = s, .rq = rq, .room = UINT64_MAX};
    struct wanted want;
    if (rq->head->method != H1_POST || !str_eq_c(rq->head->path, "/kv")) {
        refuse(s, rq, 404, "only POST /kv is served here");
        return;
    }
    if (s->hanging) {
        park(s, &a);
        return;
    }
    buf_init(&want.id, ASK_BODY);
    buf_init(&want.engine, ASK_BODY);
    if (!read_ask(rq->body, &a, &want))
        refuse(s, rq, 400, "expected room and rank, or request_id and engine_id, with tokens and key");
    else if (want.id.n)
        ask_offer(s, &a, &want);
    else
        ask_room(s, &a);
    buf_free(&want.id);
    buf_free(&want.engine);
}

static void init_counts(struct disagg *d)
{
    d->speed = (struct sim_hist){.bound = speed_bounds, .n = ARRAY_LEN(speed_bounds)};
    d->latency = (struct sim_hist){.bound = latency_bounds, .n = ARRAY_LEN(latency_bounds)};
    d->volume = (struct sim_hist){.bound = volume_bounds, .n = ARRAY_LEN(volume_bounds)};
    d->count = (struct kv_counts){0};
    d->link_free_us = 0;
}

int disagg_open(struct server *s, struct errbuf *err)
{
    const struct sim_options *o = s->opt;
    struct errbuf why;
    struct addr at;
    bool sglang = o->role == SIM_PREFILL;
    uint64_t port = sglang ? o->bootstrap_port : o->side_channel_port;
    const char *what = sglang ? "bootstrap port" : "side channel port";
    init_counts(&s->pd);
    if (!sglang && !o->nixl)
        return 0;
    port = port ? port + (sglang ? 0 : o->dp_first) : 0;
    if (port > UINT16_MAX || !addr_parse(o->host, (uint16_t)port, &at))
        return err_set(err, "%s %llu: out of range.", what, ull(port));
    if (port && addr_in_use(&at))
        return err_set(err, "%s: somebody already listens on " STR_FMT ":%llu.", what, STR_ARG(o->host), ull(port));
    (void)snprintf(s->pd.engine_id, sizeof(s->pd.engine_id), "%08x-%08x", (unsigned)(rng_u64(&s->rng) >> 32),
                   (unsigned)(rng_u64(&s->rng) >> 32));
    s->pd.side = httpd_open(s->loop, &at, ASK_BODY, on_ask, s, &why);
    if (!s->pd.side)
        return err_set(err, "%s: %s", what, why.msg);
    httpd_set_idle(s->pd.side, 5000000);
    return 0;
}

void disagg_close(struct server *s, bool reset)
{
    if (s->pd.side && reset)
        httpd_close_reset(s->pd.side); /* partners that wait here are dropped */
    else if (s->pd.side)
        httpd_close(s->pd.side);
    s->pd.side = NULL;
    LIST_EACH_SAFE (it, tmp, &s->pd.held)
        held_free(CONTAINER_OF(it, struct kv_held, link));
}

/* ---- decode half ---- */

static void pull_free(struct kv_pull *p)
{
    struct choice *c = p->c;
    timer_stop(p->s->loop, &p->timeout);
    list_remove(&p->link);
    p->rank->kept_free -= p->blocks;
    if (p->client)
        httpc_free(p->client);
    buf_free(&p->body);
    c->pull = NULL;
    free(p);
}

static void pull_end(struct kv_pull *p)
{
    struct server *s = p->s;
    struct choice *c = p->c;
    uint32_t n = p->n;
    unsigned status = p->status;
    pull_free(p);
    if (status == 200) {
        s->pd.count.fetched++;
        (void)submit_some(c, n, true, false);
    } else if (c->job->kv == JOB_FETCH && s->opt->kv_recompute) {
        s->pd.count.local++;
        (void)submit_some(c, n, false, false);
    } else {
        s->pd.count.transfer_failed++;
        job_fail(c->job, 500, "The prompt's KV could not be fetched from the prefill server (%u).", status);
    }
    server_pump(s);
}

static void on_answer(void *ctx, unsigned status, const char *err UNUSED)
{
    struct kv_pull *p = ctx;
    p->answered = true;
    p->status = status;
    if (!p->s->hanging && !p->s->dead)
        pull_end(p);
}

static void pull_late(struct kv_pull *p)
{
    struct server *s = p->s;
    s->pd.count.bootstrap_failed++;
    job_fail(p->c->job, 500, "The prefill server did not hand over the prompt within %g s.",
             (double)s->opt->pair_wait_us / 1e6);
    server_pump(s);
}

static void on_pull_timeout(struct timer *t)
{
    struct kv_pull *p = CONTAINER_OF(t, struct kv_pull, timeout);
    if (!p->s->hanging && !p->s->dead)
        pull_late(p);
}

static void ask(struct kv_pull *p)
{
    struct httpc_call call = {.method = STR("POST"),
                              .target = STR("/kv"),
                              .headers = STR("Content-Type: application/json\r\n"),
                              .body = buf_str(&p->body),
                              .timeout_us = 2 * p->s->opt->pair_wait_us + 1000000,
                              .on_done = on_answer,
                              .ctx = p};
    p->asked = true;
    p->client = httpc_new(p->s->loop, &p->to);
    CHECK(httpc_start(p->client, &call));
}

/* The first leg of an engine that has not asked, when there is room for its prompt. */
static struct kv_pull *next_to_ask(struct rank *r)
{
    LIST_EACH (it, &r->s->pd.pulls) {
        struct kv_pull *p = CONTAINER_OF(it, struct kv_pull, link);
        struct engine_stats es;
        if (p->asked || p->rank != r)
            continue;
        uint32_t need = (p->c->n_prompt + r->s->ep.block_size - 1) / r->s->ep.block_size;
        engine_stats(r->engine, true, &es);
        if (r->kept_free + need > es.free_blocks)
            return NULL;
        p->blocks = need;
        r->kept_free += need;
        return p;
    }
    return NULL;
}

void disagg_pump(struct server *s)
{
    if (list_empty(&s->pd.pulls))
        return;
    for (unsigned i = 0; i < s->n_ranks; i++)
        for (struct kv_pull *p; (p = next_to_ask(&s->ranks[i]));)
            ask(p);
}

static struct kv_pull *pull_new(struct choice *c, uint32_t n, const struct addr *to)
{
    struct server *s = c->job->s;
    struct kv_pull *p = xcalloc(1, sizeof(*p));
    *p = (struct kv_pull){.s = s, .c = c, .n = n, .rank = c->rank, .to = *to, .timeout = {.fn = on_pull_timeout}};
    buf_init(&p->body, 1u << 20);
    c->pull = p;
    list_push_back(&s->pd.pulls, &p->link);
    timer_set(s->loop, &p->timeout, loop_now_us(s->loop) + s->opt->pair_wait_us);
    return p;
}

/* "10.0.0.5", "[::1]" or "localhost" as a JSON string */
static bool read_host(struct str raw, uint64_t port, struct addr *to)
{
    struct buf b;
    buf_init(&b, raw.n + 16);
    bool ok = port > 0 && port <= UINT16_MAX && body_string(raw, &b);
    struct str host = buf_str(&b);
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct str){host.p + 1, host.n - 2};
    if (str_eq_c(host, "localhost"))
        host = STR("127.0.0.1");
    ok = ok && addr_parse(host, (uint16_t)port, to);
    buf_free(&b);
    return ok;
}

static bool fetch_room(struct choice *c)
{
    struct job *j = c->job;
    struct server *s = j->s;
    struct addr to;
    if (!read_host(c->room_host, c->room_port, &to)) {
        job_fail(j, 400, "bootstrap_host and bootstrap_port are not the address of a prefill server.");
        return false;
    }
    LIST_EACH (it, &s->pd.pulls) {
        const struct kv_pull *other = CONTAINER_OF(it, struct kv_pull, link);
        if (other->c->room == c->room && addr_eq(&other->to, &to)) {
            job_fail(j, 400, "bootstrap_room %llu is in use by another request.", ull(c->room));
            return false;
        }
    }
    uint64_t rank = j->prefill_rank != UINT64_MAX ? j->prefill_rank : c->room % s->n_ranks;
    struct kv_pull *p = pull_new(c, 1, &to);
    buf_addf(&p->body, "{\"room\":%llu,\"rank\":%llu,\"tokens\":%u,\"key\":%llu}", ull(c->room), ull(rank), c->n_prompt,
             ull(c->key));
    return true;
}

/* NIXL: where the prompt lies. False when the parameters do not say. */
static bool read_offer(const struct job *j, struct addr *to, struct buf *body)
{
    static const char *const keys[] = {"remote_engine_id", "remote_block_ids", "remote_host", "remote_port",
                                       "remote_request_id"};
    struct str m[ARRAY_LEN(keys)];
    const char *error;
    uint64_t port = 0;
    if (!body_members(j->kv_params, keys, ARRAY_LEN(keys), m, &error) || !body_is_string(m[0]) ||
        !body_is_string(m[4]) || !m[1].n || str_find(m[1], STR("[]")) >= 0 || m[1].p[0] != '[' ||
        body_u64(m[3], &port) != BODY_OK || !read_host(m[2], port, to))
        return false;
    buf_addf(body, "{\"request_id\":" STR_FMT ",\"engine_id\":" STR_FMT ",\"tokens\":%u,\"key\":%llu}", STR_ARG(m[4]),
             STR_ARG(m[0]), j->choice[0].n_prompt, ull(j->choice[0].key));
    return true;
}

static bool fetch_offer(struct job *j)
{
    struct addr to;
    struct buf body;
    buf_init(&body, j->kv_params.n + 4096);
    if (j->n_choices != j->n || !read_offer(j, &to, &body)) {
        logf_msg(LOG_WARN,
                 "sim: kv_transfer_params of request %s do not say where its prompt lies; it is computed here", j->id);
        buf_free(&body);
        j->s->pd.count.local++;
        return submit_some(j->choice, j->n_choices, false, false);
    }
    struct kv_pull *p = pull_new(&j->choice[0], j->n_choices, &to);
    buf_free(&p->body);
    p->body = body;
    return true;
}

/* ---- both ---- */

bool disagg_start(struct job *j)
{
    if (j->kv == JOB_ALONE || j->kv == JOB_OFFER)
        return submit_some(j->choice, j->n_choices, false, j->kv == JOB_OFFER);
    if (j->kv == JOB_FETCH)
        return fetch_offer(j);
    bool prefill = j->s->opt->role == SIM_PREFILL;
    for (uint32_t i = 0, n = j->n_choices; i < n; i++)
        if (!(prefill ? hold_room(&j->choice[i]) : fetch_room(&j->choice[i])))
            return false;
    return true;
}

void disagg_cancel(struct job *j)
{
    for (uint32_t i = 0; i < j->n_choices; i++) {
        struct choice *c = &j->choice[i];
        if (c->held)
            held_drop(c->held);
        if (c->pull)
            pull_free(c->pull);
    }
}

static bool resume_one(struct server *s)
{
    uint64_t now = loop_now_us(s->loop);
    LIST_EACH (it, &s->pd.held) {
        struct kv_held *h = CONTAINER_OF(it, struct kv_held, link);
        if (h->state == KV_COMPUTING || timer_armed(&h->timer) || h->due_us > now)
            continue;
        held_due(h);
        return true;
    }
    LIST_EACH (it, &s->pd.pulls) {
        struct kv_pull *p = CONTAINER_OF(it, struct kv_pull, link);
        if (!p->answered && timer_armed(&p->timeout))
            continue;
        (p->answered ? pull_end : pull_late)(p);
        return true;
    }
    return false;
}

void disagg_resume(struct server *s)
{
    struct list parked;
    list_move(&parked, &s->pd.asks);
    for (struct list *it; (it = list_pop_front(&parked));) {
        struct kv_ask *a = CONTAINER_OF(it, struct kv_ask, link);
        struct httpd_req *rq = a->rq;
        s->pd.n_asks--;
        free(a);
        rq->on_abort = NULL;
        on_ask(s, rq);
    }
    while (!s->hanging && !s->dead && resume_one(s)) {
    }
}

unsigned disagg_waiting(const struct server *s, const struct rank *r, enum kv_state st)
{
    unsigned n = 0;
    LIST_EACH (it, &s->pd.held) {
        const struct kv_held *h = CONTAINER_OF(it, struct kv_held, link);
        n += h->state == st && (!r || h->rank == r);
    }
    return n;
}

unsigned disagg_pulls(const struct server *s, const struct rank *r, bool asked)
{
    unsigned n = 0;
    LIST_EACH (it, &s->pd.pulls) {
        const struct kv_pull *p = CONTAINER_OF(it, struct kv_pull, link);
        n += p->asked == asked && (!r || p->rank == r);
    }
    return n;
}

void disagg_state(const struct server *s, struct jsonw *w)
{
    const struct kv_counts *n = &s->pd.count;
    member(w, "role", sim_role_name(s->opt->role));
    member_u64(w, "side_port", server_side_port(s));
    jsonw_key(w, "kv");
    jsonw_obj(w);
    member_u64(w, "alone", disagg_waiting(s, NULL, KV_ALONE));
    member_u64(w, "computing", disagg_waiting(s, NULL, KV_COMPUTING));
    member_u64(w, "ready", disagg_waiting(s, NULL, KV_READY));
    member_u64(w, "moving", disagg_waiting(s, NULL, KV_MOVING));
    member_u64(w, "partners_waiting", s->pd.n_asks);
    member_u64(w, "wanting_memory", disagg_pulls(s, NULL, false));
    member_u64(w, "fetching", disagg_pulls(s, NULL, true));
    member_u64(w, "moved", n->moved);
    member_u64(w, "moved_bytes", n->moved_bytes);
    member_u64(w, "fetched", n->fetched);
    member_u64(w, "computed_here", n->local);
    member_u64(w, "expired", n->expired);
    member_u64(w, "never_met", n->bootstrap_failed);
    member_u64(w, "broken", n->transfer_failed);
    jsonw_obj_end(w);
}
