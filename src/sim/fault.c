/* sim/fault.c - faults: what strikes a whole server (kill, refuse, hang, slow) and what strikes single requests (reset,
 * garbage, status), at chosen points of a request and its answer. */
#include "sim/server_priv.h"

#include <stdlib.h>

/* ---- striking ---- */

bool fault_of_server(enum fault_kind k)
{
    return k == FAULT_KILL || k == FAULT_REFUSE || k == FAULT_HANG || k == FAULT_SLOW;
}

static bool inference(const struct h1_head *h)
{
    return h->method == H1_POST && !str_starts(h->path, STR("/sim/"));
}

bool fault_hits(struct server *s, enum fault_at at, struct str body)
{
    struct fault *f = &s->fault;
    if (f->kind == FAULT_NONE || f->struck || f->at != at || f->count == 0)
        return false;
    if (f->match[0] && str_find(body, str_c(f->match)) < 0)
        return false;
    if (f->count != UINT64_MAX)
        f->count--;
    f->hits++;
    return true;
}

static void on_die(struct timer *t)
{
    struct server *s = CONTAINER_OF(t, struct server, die);
    server_shut(s, true); /* aborts every request and job */
    timer_stop(s->loop, &s->tick);
    timer_stop(s->loop, &s->startup);
    server_check_ready(s);
    if (s->hooks.died)
        s->hooks.died(s->hooks.ctx, s);
}

static void on_fault_end(struct timer *t)
{
    fault_clear(CONTAINER_OF(t, struct server, fault_end));
}

void fault_end_after(struct server *s, uint64_t us)
{
    s->fault_end.fn = on_fault_end;
    timer_set(s->loop, &s->fault_end, loop_now_us(s->loop) + us);
}

static void strike_kill(struct server *s)
{
    s->dead = true;
    LIST_EACH (it, &s->jobs)
        CONTAINER_OF(it, struct job, link)->muted = true;
    s->die.fn = on_die;
    timer_set(s->loop, &s->die, loop_now_us(s->loop)); /* not under the feet of whoever called */
}

static void set_slow(struct server *s, double factor)
{
    for (unsigned i = 0; i < s->n_ranks; i++)
        engine_set_slow(s->ranks[i].engine, factor);
}

void fault_strike(struct server *s)
{
    struct fault *f = &s->fault;
    struct errbuf err;
    if (f->struck)
        return;
    f->struck = true;
    switch (f->kind) {
    case FAULT_KILL:
        strike_kill(s);
        break;
    case FAULT_REFUSE:
        if (s->http)
            (void)!httpd_refuse(s->http, true, &err);
        break;
    case FAULT_HANG:
        s->hanging = true;
        s->hang_since_us = loop_now_us(s->loop);
        timer_stop(s->loop, &s->tick);
        break;
    case FAULT_SLOW:
        set_slow(s, f->factor);
        break;
    case FAULT_NONE:
    case FAULT_RESET:
    case FAULT_GARBAGE:
    case FAULT_STATUS:
        break;
    }
    if (f->duration_us)
        fault_end_after(s, f->duration_us);
}

/* Serves what came while the server hung, or what a hanging probe held. */
static void release_held(struct server *s)
{
    struct list held;
    list_move(&held, &s->held);
    for (struct list *it; (it = list_pop_front(&held));) {
        struct held *h = CONTAINER_OF(it, struct held, link);
        struct httpd_req *rq = h->rq;
        serve_fn *serve = h->serve;
        free(h);
        rq->on_abort = NULL;
        rq->user = NULL;
        serve(s, rq);
    }
}

static void end_hang(struct server *s)
{
    s->hanging = false;
    s->hang_total_us += loop_now_us(s->loop) - s->hang_since_us;
    disagg_resume(s);
    server_pump(s);
}

void fault_clear(struct server *s)
{
    enum fault_kind was = s->fault.struck ? s->fault.kind : FAULT_NONE;
    struct errbuf err;
    timer_stop(s->loop, &s->fault_end);
    s->fault = (struct fault){.factor = 1, .status = 500};
    if (was == FAULT_KILL)
        server_revive(s);
    else if (was == FAULT_REFUSE && s->http)
        (void)!httpd_refuse(s->http, false, &err);
    else if (was == FAULT_HANG)
        end_hang(s);
    else if (was == FAULT_SLOW)
        set_slow(s, 1);
    if (!s->dead)
        release_held(s);
}

/* ---- requests that meet a fault ---- */

static void garbage(struct httpd_req *rq)
{
    httpd_raw(rq, STR("\x16\x03\x01 1&%# this is no HTTP message\r\n\x01\x02\x03\r\n\r\n"));
    httpd_kill(rq, false);
}

static void on_held_abort(struct httpd_req *rq)
{
    struct held *h = rq->user;
    list_remove(&h->link);
    free(h);
}

void hold_request(struct server *s, struct httpd_req *rq, serve_fn *serve)
{
    struct held *h = xcalloc(1, sizeof(*h));
    h->s = s;
    h->rq = rq;
    h->serve = serve;
    list_push_back(&s->held, &h->link);
    rq->user = h;
    rq->on_abort = on_held_abort;
}

bool fault_on_head(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    struct fault *f = &s->fault;
    bool counted = f->count != UINT64_MAX;
    if (str_starts(rq->head->path, STR("/sim/")) || f->match[0] || f->kind == FAULT_STATUS ||
        (counted && !inference(rq->head)))
        return true;
    if (!fault_hits(s, AT_BEFORE, STR_NULL))
        return true;
    if (fault_of_server(f->kind)) {
        fault_strike(s);
        return true; /* and goes unanswered */
    }
    if (f->kind == FAULT_GARBAGE)
        garbage(rq);
    else
        httpd_kill(rq, true);
    return false;
}

/* Whose shape an error has before anybody has read the request. */
static enum sim_api path_api(const struct httpd_req *rq)
{
    return str_starts(rq->head->path, STR("/v1/messages")) ? SIM_MESSAGES : SIM_CHAT;
}

bool fault_before_answer(struct server *s, enum fault_at at, struct httpd_req *rq, serve_fn *serve)
{
    if (!fault_hits(s, at, rq->body))
        return false;
    struct fault *f = &s->fault;
    if (f->kind == FAULT_HANG && at == AT_PROBE) { /* busy, not dead: only this page does not come */
        hold_request(s, rq, serve);
    } else if (fault_of_server(f->kind)) {
        fault_strike(s);
        if (f->kind == FAULT_SLOW || f->kind == FAULT_REFUSE)
            return false;
        hold_request(s, rq, serve);
    } else if (f->kind == FAULT_STATUS) {
        api_error(s, rq, path_api(rq), (unsigned)f->status, NULL, "An injected fault.");
    } else if (f->kind == FAULT_GARBAGE) {
        garbage(rq);
    } else {
        httpd_kill(rq, true);
    }
    return true;
}

bool fault_in_answer(struct job *j)
{
    struct server *s = j->s;
    struct fault *f = &s->fault;
    enum fault_at at = j->fault;
    j->fault = AT_NOW;
    if (f->kind == FAULT_NONE || f->kind == FAULT_SLOW || f->kind == FAULT_REFUSE) {
        if (f->kind != FAULT_NONE)
            fault_strike(s);
        return false;
    }
    answer_begin(j);
    if (at == AT_MID_STREAM && !j->stream)
        httpd_chunk(j->rq, STR("{\"id\":\"half an answ"));
    switch (f->kind) {
    case FAULT_KILL:
        fault_strike(s);
        return true;
    case FAULT_HANG:
        fault_strike(s);
        return at == AT_AFTER_HEAD; /* the engine has it and stands still */
    case FAULT_STATUS:
        answer_stream_error(j, 500, "An injected fault.");
        job_free(j);
        return true;
    case FAULT_GARBAGE:
        httpd_raw(j->rq, STR("zz no chunk size\r\n\x01\x02"));
        job_drop(j, false);
        return true;
    default:
        job_drop(j, true);
        return true;
    }
}
