/* sim/job.c - one API request in the simulated server: submits a sequence per choice, ends with the answer or with the
 * client.
 *
 *   START -> FRONT (tokenising) -> [PAIR (disagg.c)] -> ENGINE -> answered
 *   any state -> gone when the client leaves or a fault strikes
 *
 * A job is freed in exactly one place, job_free; its sequences are cancelled first. */
#include "sim/server_priv.h"

#include "sim/words.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void job_free(struct job *j)
{
    disagg_cancel(j);
    for (uint32_t i = 0; i < j->n_choices; i++)
        if (j->choice[i].seq)
            engine_cancel(j->choice[i].rank->engine, j->choice[i].seq);
    timer_stop(j->s->loop, &j->front);
    list_remove(&j->link);
    j->s->n_jobs--;
    for (uint32_t i = 0; i < j->n_choices; i++) {
        tokens_free(&j->choice[i].tok);
        buf_free(&j->choice[i].text);
    }
    server_wake(j->s); /* what it held is free */
    free(j->choice);
    free(j->previous);
    free(j->own_model);
    buf_free(&j->offer);
    tokens_free(&j->keep);
    free(j);
}

static void count_unfinished(struct job *j, enum finish how)
{
    for (uint32_t i = 0; i < j->n_choices; i++) {
        const struct choice *c = &j->choice[i];
        if (c->rank && c->produced < c->out_len)
            c->rank->stats.finished[how]++;
    }
}

static void on_abort(struct httpd_req *rq)
{
    struct job *j = rq->user;
    count_unfinished(j, FINISH_ABORT);
    job_free(j);
}

/* vLLM refuses before a stream has begun; SGLang's and everyone's later troubles are an event in it. */
static bool fails_in_stream(const struct job *j, unsigned status)
{
    enum sim_dialect d = j->s->opt->dialect;
    return j->stream && (j->head_sent || (d == SIM_SGLANG && status >= 500) || (d == SIM_VLLM && status == 500));
}

void job_fail(struct job *j, unsigned status, const char *fmt, ...)
{
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    count_unfinished(j, FINISH_ERROR);
    j->rq->on_abort = NULL;
    if (j->muted) { /* the connection is about to be reset */
        job_drop(j, true);
        return;
    }
    if (fails_in_stream(j, status))
        answer_stream_error(j, status, msg);
    else if (j->head_sent)
        httpd_kill(j->rq, true);
    else
        api_error(j->s, j->rq, j->api, status, NULL, "%s", msg);
    job_free(j);
}

void job_drop(struct job *j, bool reset)
{
    httpd_kill(j->rq, reset);
    job_free(j);
}

/* ---- the engine ---- */

uint32_t job_token(void *user, uint32_t index)
{
    const struct choice *c = user;
    if (c->eos && index + 1 == c->out_len)
        return TOKEN_STOP;
    return tokens_one(word_at(c->seed, index));
}

bool job_submit(struct choice *c, uint32_t given, bool hold)
{
    struct job *j = c->job;
    struct engine_req rq = {.tokens = c->tok.v,
                            .n_tokens = c->tok.n,
                            .out_len = c->out_len,
                            .lora = j->lora,
                            .salt = j->salt,
                            .given = given,
                            .hold = hold,
                            .token_at = job_token,
                            .user = c};
    c->given = given;
    c->seq = engine_submit(c->rank->engine, &rq, server_now(j->s));
    if (c->seq && j->api == SIM_RESPONSES) {
        j->keep = c->tok;
        c->tok = (struct tokens){0};
    }
    tokens_free(&c->tok);
    return c->seq != NULL;
}

/* The engine of each choice: as asked for, by the room, or whichever has least to do. */
static void choose_ranks(struct job *j)
{
    struct server *s = j->s;
    for (uint32_t i = 0; i < j->n_choices; i++) {
        struct choice *c = &j->choice[i];
        if (j->pinned)
            c->rank = &s->ranks[j->pinned - 1];
        else if (j->kv == JOB_ROOM)
            c->rank = &s->ranks[c->room % s->n_ranks];
        else
            c->rank = i % j->n ? j->choice[i - 1].rank : server_idlest(s);
        if (i == 0) {
            hist_observe(&c->rank->stats.n, j->n);
            hist_observe(&c->rank->stats.max_tokens, (double)c->out_len);
        }
    }
}

static void on_front(struct timer *t)
{
    struct job *j = CONTAINER_OF(t, struct job, front);
    struct server *s = j->s;
    j->arrived_us = server_now(s);
    choose_ranks(j);
    if (!disagg_start(j))
        return;
    if (j->fault == AT_AFTER_HEAD && fault_in_answer(j))
        return;
    server_pump(s);
}

static bool queue_full(struct server *s)
{
    struct engine_stats es;
    if (!s->opt->max_queued)
        return false;
    server_stats(s, true, &es);
    return es.waiting >= s->opt->max_queued;
}

void job_start(struct server *s, enum sim_api api, struct httpd_req *rq)
{
    struct job *j = xcalloc(1, sizeof(*j));
    j->s = s;
    j->api = api;
    j->rq = rq;
    j->created = (uint64_t)time(NULL);
    buf_init(&j->offer, 64u << 20);
    list_push_back(&s->jobs, &j->link);
    s->n_jobs++;
    s->n_requests++;
    if (!job_read(j)) {
        job_free(j);
        return;
    }
    if (queue_full(s)) {
        s->rejected++;
        job_fail(j, 503, "The request queue is full.");
        return;
    }
    j->fault = fault_hits(s, AT_AFTER_HEAD, rq->body)   ? AT_AFTER_HEAD
               : fault_hits(s, AT_MID_STREAM, rq->body) ? AT_MID_STREAM
                                                        : AT_NOW;
    rq->user = j;
    rq->on_abort = on_abort;
    j->front.fn = on_front;
    timer_set(s->loop, &j->front, loop_now_us(s->loop) + s->opt->frontend_us);
}

/* ---- events ---- */

static double seconds(uint64_t from_us, uint64_t to_us)
{
    return to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0;
}

static void count_end(struct stats *st, const struct choice *c, const struct engine_event *ev)
{
    st->finished[c->finish]++;
    hist_observe(&st->e2e, seconds(c->job->arrived_us, ev->at_us));
    hist_observe(&st->inference, seconds(ev->scheduled_us, ev->at_us));
    hist_observe(&st->decode, seconds(c->first_us, ev->at_us));
    hist_observe(&st->prompt, c->n_prompt);
    hist_observe(&st->generation, c->out_len);
    if (c->out_len > 1)
        hist_observe(&st->tpot, seconds(c->first_us, ev->at_us) / (c->out_len - 1));
}

static void count_token(struct choice *c, const struct engine_event *ev)
{
    struct stats *st = &c->rank->stats;
    uint32_t cached = MAX(ev->cached_tokens, c->job->kv == JOB_FETCH ? c->given : 0); /* vLLM counts what it fetched */
    st->step_first += ev->index == 0;
    st->step_ended += ev->finished;
    if (ev->index == 0) {
        c->first_us = ev->at_us;
        c->job->cached_tokens += cached;
        st->cached_tokens += cached;
        st->hit_query += c->n_prompt;
        st->hit_cached += ev->cached_tokens;
        hist_observe(&st->ttft, seconds(c->job->arrived_us, ev->at_us));
        hist_observe(&st->queue, seconds(c->job->arrived_us, ev->scheduled_us));
        hist_observe(&st->prefill, seconds(ev->scheduled_us, ev->at_us));
    } else {
        hist_observe(&st->itl, seconds(c->last_us, ev->at_us));
    }
    c->last_us = ev->at_us;
    if (ev->finished)
        count_end(st, c, ev);
}

/* Remembers the conversation of a finished response, so that previous_response_id finds it here. */
static void keep_response(struct job *j)
{
    struct server *s = j->s;
    struct choice *c = &j->choice[0];
    struct remembered **slot = &s->kept[s->n_kept % SIM_MAX_RESPONSES];
    if (!*slot)
        *slot = xcalloc(1, sizeof(**slot));
    tokens_free(&(*slot)->tok);
    for (uint32_t i = 0; i < c->out_len - c->eos; i++)
        tokens_add(&j->keep, job_token(c, i));
    prompts_close_answer(&j->keep);
    (*slot)->tok = j->keep;
    j->keep = (struct tokens){0};
    memcpy((*slot)->id, j->id, sizeof((*slot)->id) - 1);
    s->n_kept++;
}

static void job_done(struct job *j)
{
    if (j->api == SIM_RESPONSES)
        keep_response(j);
    if (j->stream)
        answer_stream_end(j);
    else
        answer_whole(j);
    job_free(j);
}

void job_deliver(struct choice *c, bool finished)
{
    struct job *j = c->job;
    bool silent = c->eos && finished; /* the end token has no text */
    struct str piece = silent || api_pools(j->api) ? STR_NULL : word_at(c->seed, c->produced - 1);
    if (finished)
        j->n_live--;
    if (j->muted)
        return;
    /* Events at the end of a streamed response repeat the whole text, those of /generate do all the time. */
    if (!j->stream || j->api >= SIM_RESPONSES)
        buf_add_str(&c->text, piece);
    bool due = j->fault == AT_MID_STREAM && (j->completion_tokens > j->s->fault.after_tokens || j->n_live == 0);
    if (due && fault_in_answer(j))
        return;
    if (j->stream)
        answer_token(j, c, piece, finished);
    if (j->n_live == 0)
        job_done(j);
}

void job_event(void *ctx UNUSED, const struct engine_event *ev)
{
    struct choice *c = ev->user;
    c->produced++;
    c->job->completion_tokens++;
    count_token(c, ev);
    if (ev->finished && disagg_computed(c))
        return;
    if (ev->finished)
        c->seq = NULL;
    job_deliver(c, ev->finished);
}
