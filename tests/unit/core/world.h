/* A tiny pool of model servers in virtual time for tests of the picker: prefill one after another, decode side by side,
 * jitter, scrapes that arrive late. It knows nothing of the picker's cost model beyond the order of magnitude. */
#ifndef TEST_CORE_WORLD_H
#define TEST_CORE_WORLD_H

#include "base/rng.h"
#include "core/sched.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WORLD_EPS  16
#define WORLD_JOBS 512
#define SAMPLES    64 /* of 100 ms */

struct job {
    bool busy, answered;
    struct sched_req r;
    struct prefix_hashes ph;
    uint64_t storage[PREFIX_MAX];
    uint32_t server, tag;
    double first_at, done_at, out;
};
struct server {
    struct ep_ref ep;
    double speed, jitter, free_at;
    uint32_t running, waiting, picks;
    float seen_running[SAMPLES], seen_waiting[SAMPLES];
};
struct world {
    struct sched *s;
    struct sched_params p;
    struct rng rng;
    double now, next_sample, next_scrape, scrape_every, scrape_late; /* seconds */
    uint64_t n_samples;
    struct server sv[WORLD_EPS];
    uint32_t n;
    struct job jobs[WORLD_JOBS];
    void (*on_done)(struct world *w, struct job *j);
};

static inline uint64_t us(double s)
{
    return (uint64_t)(s * 1e6);
}

static void world_init(struct world *w, const struct sched_params *p, uint32_t n, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->p = *p;
    w->s = sched_new(p, seed);
    rng_init(&w->rng, seed * 7 + 1);
    w->now = w->next_sample = w->next_scrape = 10;
    w->scrape_every = 1;
    w->n = n;
    for (uint32_t i = 0; i < n; i++)
        w->sv[i] = (struct server){.ep = sched_ep_add(w->s, &w->sv[i], false, us(w->now)), .speed = 1, .jitter = 0};
}

static double noise(struct world *w, const struct server *sv)
{
    return sv->speed * exp(sv->jitter * rng_normal(&w->rng));
}

static void scrape(struct world *w, struct server *sv)
{
    uint64_t late = (uint64_t)(w->scrape_late / 0.1), at = w->n_samples > late ? w->n_samples - 1 - late : 0;
    struct ep_load l = {.sent_us = us(w->now - 0.005),
                        .done_us = us(w->now),
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .has_blocks = true,
                        .waiting = (double)sv->seen_waiting[at % SAMPLES],
                        .running = (double)sv->seen_running[at % SAMPLES],
                        .kv_tokens = 270000,
                        .block_tokens = 16};
    l.kv_frac = MIN(1.0, 0.002 * (l.running + l.waiting));
    sched_ep_load(w->s, sv->ep, &l, us(w->now));
    sched_ep_probe(w->s, sv->ep, true, l.sent_us, l.done_us);
}

static void world_duties(struct world *w)
{
    while (w->next_sample <= w->now) {
        for (uint32_t i = 0; i < w->n; i++) {
            w->sv[i].seen_running[w->n_samples % SAMPLES] = (float)w->sv[i].running;
            w->sv[i].seen_waiting[w->n_samples % SAMPLES] = (float)w->sv[i].waiting;
        }
        w->n_samples++;
        w->next_sample += 0.1;
        sched_tick(w->s, us(w->now));
    }
    if (w->scrape_every > 0 && w->next_scrape <= w->now) {
        for (uint32_t i = 0; i < w->n; i++)
            scrape(w, &w->sv[i]);
        w->next_scrape += w->scrape_every;
    }
}

static void job_serve(struct world *w, struct job *j)
{
    struct server *sv = &w->sv[j->server];
    double fresh = MAX(1.0, j->r.tokens - j->r.matched_tokens);
    double start = MAX(sv->free_at, w->now);
    j->first_at = start + (0.015 + fresh * 75e-6) * noise(w, sv);
    sv->free_at = j->first_at - 0.010;
    j->done_at = j->first_at + j->out * (0.015 + 20e-6 * sv->running) * noise(w, sv);
    j->answered = false;
    sv->waiting++;
}

static struct job *job_free(struct world *w)
{
    uint32_t i = 0;
    while (i < WORLD_JOBS - 1 && w->jobs[i].busy)
        i++;
    assert_false(w->jobs[i].busy); /* too many jobs */
    return &w->jobs[i];
}

/* Sends a prompt; fails the test unless it is picked. */
static struct job *job_send(struct world *w, const char *text, size_t len, double out_tokens)
{
    struct job *j = job_free(w);
    memset(j, 0, sizeof(*j));
    prefix_hash((struct str){text, len}, 1, w->p.block_bytes, w->p.max_blocks, w->p.deep, &j->ph, j->storage,
                PREFIX_MAX);
    j->busy = true;
    j->out = out_tokens;
    j->r.hashes = &j->ph;
    j->r.prompt_bytes = len;
    j->r.n_outputs = 1;
    j->r.streamed = true;
    assert_int_equal(sched_submit(w->s, &j->r, us(w->now)), SCHED_PICKED);
    j->server = (uint32_t)((struct server *)j->r.d.user - w->sv);
    w->sv[j->server].picks++;
    job_serve(w, j);
    return j;
}

static void job_first(struct world *w, struct job *j)
{
    w->sv[j->server].waiting--;
    w->sv[j->server].running++;
    j->answered = true;
    sched_first_token(w->s, &j->r, us(w->now));
}

static void job_done(struct world *w, struct job *j)
{
    w->sv[j->server].running--;
    struct sched_usage u = {.prompt_tokens = (uint64_t)((double)j->r.prompt_bytes / 4.2) + 12,
                            .completion_tokens = (uint64_t)j->out};
    sched_finish(w->s, &j->r, OUT_OK, &u, us(w->now));
    j->busy = false;
    if (w->on_done)
        w->on_done(w, j);
}

/* Runs until `until` or, with until < 0, until nothing is in flight. */
static void world_run(struct world *w, double until)
{
    for (;;) {
        struct job *next = NULL;
        double at = 0;
        for (uint32_t i = 0; i < WORLD_JOBS; i++) {
            struct job *j = &w->jobs[i];
            double t = j->answered ? j->done_at : j->first_at;
            if (j->busy && (!next || t < at)) {
                next = j;
                at = t;
            }
        }
        if (!next && until < 0)
            return;
        double limit = next && (until < 0 || at < until) ? at : until;
        if (w->next_sample < limit) {
            w->now = MAX(w->now, w->next_sample);
            world_duties(w);
            continue;
        }
        w->now = MAX(w->now, limit);
        if (!next || (until >= 0 && at >= until))
            return;
        if (next->answered)
            job_done(w, next);
        else
            job_first(w, next);
    }
}

static void world_free(struct world *w)
{
    struct sched_stats st;
    world_run(w, -1);
    sched_stats(w->s, us(w->now), &st);
    assert_int_equal(st.inflight, 0);
    for (uint32_t i = 0; i < w->n; i++) {
        struct ep_view v;
        assert_true(sched_ep_view(w->s, w->sv[i].ep.slot, us(w->now), &v));
        assert_int_equal(v.inflight, 0);
        assert_int_equal(v.unanswered, 0);
        assert_true(v.pending_prefill_s <= 0 && v.context_tokens <= 0 && v.decode_tokens <= 0);
    }
    sched_free(w->s);
}

/* Text that looks like a prompt and is different for every seed. */
static void random_text(struct rng *r, char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + rng_below(r, 26));
}

#endif
