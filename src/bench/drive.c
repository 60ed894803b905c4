/* bench/drive.c - who is sent when: conversations arrive by the rate or the trace, wait for a place, send their turns
 * one after the other. */
#include "bench/drive_priv.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

#define BURST     64 /* requests begun at once; then answers get their turn */
#define IDLE_US   (3600ull * 1000000)
#define IDLE_CONN 65536

/* ---- names that samples point to ---- */

static const char *intern(struct drive *d, const char *text)
{
    const char *known = map_get(&d->kinds, str_c(text));
    if (known)
        return known;
    if (d->kinds.n >= DRIVE_MAX_KINDS)
        return "other";
    char *copy = arena_strdup(&d->r->arena, str_c(text));
    map_put(&d->kinds, str_c(copy), copy);
    return copy;
}

const char *drive_kind(struct drive *d, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    return intern(d, text);
}

int32_t drive_pod(struct drive *d, struct str name)
{
    const char **known = map_get(&d->pods, name);
    struct drive_result *r = d->r;
    if (!known) {
        if (r->n_pods == DRIVE_MAX_PODS)
            return -1;
        r->pods[r->n_pods] = arena_strdup(&r->arena, name);
        known = &r->pods[r->n_pods++];
        map_put(&d->pods, name, known);
    }
    return (int32_t)(known - r->pods);
}

/* ---- sending ---- */

static bool place_free(const struct drive *d)
{
    return !d->o->max_concurrency || d->n_running < d->o->max_concurrency;
}

static void pump(struct drive *d)
{
    for (int i = 0; i < BURST && d->n_ready && place_free(d); i++) {
        struct talk *t = CONTAINER_OF(list_pop_front(&d->ready), struct talk, link);
        d->n_ready--;
        d->n_running++;
        stream_start(d, t);
    }
    if (d->n_ready && place_free(d))
        timer_set(d->loop, &d->pump, loop_now_us(d->loop));
}

static void on_pump(struct timer *t)
{
    pump(CONTAINER_OF(t, struct drive, pump));
}

/* The next turn of the conversation wants to be sent; pump() sends it. */
static void make_ready(struct talk *t, uint64_t since_us)
{
    t->ready_us = since_us;
    list_push_back(&t->d->ready, &t->link);
    t->d->n_ready++;
}

static void on_think(struct timer *timer)
{
    struct talk *t = CONTAINER_OF(timer, struct talk, think);
    make_ready(t, loop_now_us(t->d->loop));
    pump(t->d);
}

/* ---- conversations ---- */

static bool may_open(const struct drive *d)
{
    return !d->o->max_conversations || d->talks_open < d->o->max_conversations;
}

static void talk_open(struct drive *d, struct talk *t, uint64_t since_us)
{
    d->talks_open++;
    make_ready(t, since_us);
}

static void talk_close(struct drive *d, struct talk *t)
{
    d->r->not_sent += t->end - t->next;
    buf_free(&t->history);
    d->talks_open--;
    d->talks_left--;
    struct list *held = may_open(d) ? list_pop_front(&d->held) : NULL;
    if (held)
        talk_open(d, CONTAINER_OF(held, struct talk, link), loop_now_us(d->loop));
    if (!d->talks_left)
        loop_stop(d->loop);
}

void drive_ended(struct drive *d, struct talk *t, bool ok)
{
    d->n_running--;
    d->done++;
    d->failed += !ok;
    t->next++;
    if (!ok || t->next == t->end) {
        talk_close(d, t);
    } else {
        uint64_t pause_us = (uint64_t)((double)d->data->v[t->next].think_s * 1e6);
        timer_set(d->loop, &t->think, loop_clock_us(d->loop) + pause_us);
    }
    timer_set(d->loop, &d->pump, loop_now_us(d->loop)); /* not from here: a chain of failures would recurse */
}

/* ---- arrivals ---- */

static uint64_t arrival_us(const struct drive *d, uint32_t i)
{
    return d->t0_us + (uint64_t)(d->at_s[i] * 1e6);
}

static void on_arrival(struct timer *timer)
{
    struct drive *d = CONTAINER_OF(timer, struct drive, arrival);
    uint64_t now = loop_now_us(d->loop);
    while (d->next_arrival < d->n_talks && arrival_us(d, d->next_arrival) <= now) {
        struct talk *t = &d->talks[d->next_arrival];
        uint64_t at = arrival_us(d, d->next_arrival++);
        if (may_open(d))
            talk_open(d, t, at);
        else
            list_push_back(&d->held, &t->link);
    }
    if (d->next_arrival < d->n_talks)
        timer_set(d->loop, &d->arrival, arrival_us(d, d->next_arrival));
    pump(d);
}

static void tell(struct drive *d)
{
    struct drive_progress p = {.elapsed_s = (double)(loop_clock_us(d->loop) - d->t0_us) / 1e6,
                               .total = d->n_planned - d->r->not_sent,
                               .done = d->done,
                               .failed = d->failed,
                               .running = d->n_running,
                               .waiting = d->n_ready};
    if (d->o->on_progress)
        d->o->on_progress(d->o->ctx, &p);
}

static void on_progress(struct timer *timer)
{
    struct drive *d = CONTAINER_OF(timer, struct drive, progress);
    tell(d);
    timer_set(d->loop, &d->progress, loop_now_us(d->loop) + d->o->progress_us);
}

/* ---- life ---- */

static void make_talks(struct drive *d)
{
    const struct dataset *data = d->data;
    d->n_talks = data->n_conversations;
    d->talks = xcalloc(MAX(d->n_talks, 1u), sizeof(*d->talks));
    uint32_t c = 0;
    for (uint32_t i = 0; i < data->n; i++) {
        if (data->v[i].turn == 0) {
            struct talk *t = &d->talks[c++];
            *t = (struct talk){.d = d, .next = i, .think.fn = on_think};
            buf_init(&t->history, HISTORY_MAX);
        }
        CHECK(c > 0);
        d->talks[c - 1].end = i + 1;
    }
    CHECK(c == d->n_talks);
    d->talks_left = d->n_talks;
}

static void begin(struct drive *d, struct loop *l, const struct drive_opts *o, const struct dataset *data,
                  struct drive_result *r)
{
    *r = (struct drive_result){.samples = xcalloc(data->n, sizeof(*r->samples)),
                               .pods = xcalloc(DRIVE_MAX_PODS, sizeof(*r->pods))};
    arena_init(&r->arena, 4096);
    *d = (struct drive){.loop = l, .o = o, .data = data, .r = r, .n_planned = data->n};
    d->pool = conn_pool_new(l, IDLE_CONN, IDLE_US);
    d->arrival.fn = on_arrival;
    d->pump.fn = on_pump;
    d->progress.fn = on_progress;
    list_init(&d->ready);
    list_init(&d->held);
    list_init(&d->running);
    rng_init(&d->rng, hash_mix(o->seed, data->n));
    buf_init(&d->scratch, BODY_MAX);
    map_init(&d->kinds, o->seed);
    map_init(&d->pods, o->seed);
    make_talks(d);
}

/* Samples of requests that the end of the run overtook go. */
static void compact(struct drive *d)
{
    struct drive_result *r = d->r;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->samples[i].status != STREAM_DROPPED)
            r->samples[kept++] = r->samples[i];
    r->n = kept;
}

static void end(struct drive *d)
{
    struct drive_result *r = d->r;
    r->unfinished = d->n_running;
    r->not_sent = d->n_planned - r->n;
    r->duration_s = (double)(MAX(d->end_us, d->t0_us) - d->t0_us) / 1e6;
    if (r->unfinished) /* stopped early: what ran then counts until then */
        r->duration_s = (double)(loop_clock_us(d->loop) - d->t0_us) / 1e6;
    tell(d);
    LIST_EACH_SAFE (e, next, &d->running)
        stream_drop(CONTAINER_OF(e, struct stream, link));
    compact(d);
    timer_stop(d->loop, &d->arrival);
    timer_stop(d->loop, &d->pump);
    timer_stop(d->loop, &d->progress);
    for (uint32_t i = 0; i < d->n_talks; i++) {
        timer_stop(d->loop, &d->talks[i].think);
        buf_free(&d->talks[i].history);
    }
    free(d->talks);
    conn_pool_free(d->pool);
    buf_free(&d->scratch);
    map_free(&d->kinds);
    map_free(&d->pods);
}

void drive(struct loop *l, const struct drive_opts *o, const struct dataset *data, struct drive_result *out)
{
    struct drive *d = xcalloc(1, sizeof(*d));
    begin(d, l, o, data, out);
    double *own = data->at_s ? NULL : arrivals_make(&o->arrivals, d->n_talks);
    d->at_s = own ? own : data->at_s;
    d->t0_us = loop_clock_us(l);
    timer_set(l, &d->arrival, d->t0_us);
    timer_set(l, &d->progress, d->t0_us + o->progress_us);
    loop_run(l);
    end(d);
    free(own);
    free(d);
}

void drive_result_free(struct drive_result *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        free(r->samples[i].itl_s);
    free(r->samples);
    free(r->pods);
    arena_free(&r->arena);
    *r = (struct drive_result){0};
}
