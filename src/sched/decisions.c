/* decisions.c - the ring of latest decisions. */
#include "sched/decisions.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define STRIPES 16

struct place {
    uint64_t ticket; /* 0: free */
    struct decision d;
};
struct decisions {
    uint32_t n;
    _Atomic uint64_t made;
    pthread_mutex_t locks[STRIPES];
    struct decision_leg *legs; /* beside places */
    struct place places[];
};

const char *decision_outcome_name(enum decision_outcome o)
{
    return o == DECISION_PICKED ? "picked" : o == DECISION_REJECTED ? "rejected" : "left_the_queue";
}

void decision_text(char out[DECISION_TEXT], struct str s)
{
    size_t n = MIN(s.n, (size_t)DECISION_TEXT - 1);
    while (n < s.n && n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
        n--;
    if (n)
        memcpy(out, s.p, n);
    out[n] = 0;
}

static struct decision_row row_of(const struct sched_cost *c)
{
    return (struct decision_row){.ep = c->ep,
                                 .skip = (uint8_t)c->skip,
                                 .matched_bytes = c->matched_bytes,
                                 .cached_tokens = (float)c->cached_tokens,
                                 .total_s = (float)c->total_s,
                                 .wait_s = (float)c->wait_s,
                                 .prefill_s = (float)c->prefill_s,
                                 .others_s = (float)c->others_s,
                                 .kv_s = (float)c->kv_s,
                                 .extra_s = (float)c->extra_s,
                                 .lora_s = (float)c->lora_s,
                                 .transfer_s = (float)c->transfer_s,
                                 .answer_s = (float)c->answer_s};
}

static uint32_t rows_of(struct decision_row rows[SCHED_EXPLAIN], const struct sched_explain *x)
{
    uint32_t n = x ? MIN(x->n, (uint32_t)SCHED_EXPLAIN) : 0;
    for (uint32_t i = 0; i < n; i++)
        rows[i] = row_of(&x->cost[i]);
    return n;
}

void decision_fill(struct decision *d, const struct sched_decision *is, const struct sched_explain *x)
{
    d->reason = is->reason;
    d->reject = is->reject;
    d->no_prefill = is->no_prefill;
    d->cost_s = is->cost_s;
    d->ttft_s = is->ttft_s;
    d->queued_us = is->queued_us;
    d->stream_bytes = is->stream_bytes;
    d->matched_bytes = is->matched_bytes;
    d->n_candidates = is->n_candidates;
    d->n_endpoints = x ? x->n_endpoints : 0;
    d->n_rows = rows_of(d->rows, x);
}

void decision_fill_leg(struct decision_leg *l, const struct sched_decision *is, const struct sched_decision *leg,
                       const struct sched_explain *x)
{
    l->split_s = is->split_s;
    l->local_s = is->local_s;
    l->reason = leg->reason;
    l->cost_s = leg->cost_s;
    l->ttft_s = leg->ttft_s;
    l->matched_bytes = leg->matched_bytes;
    l->n_candidates = x ? x->n_candidates : 0;
    l->n_endpoints = x ? x->n_endpoints : 0;
    l->n_rows = rows_of(l->rows, x);
}

struct decisions *decisions_new(uint32_t n)
{
    CHECK(n > 0);
    struct decisions *ds = xcalloc(1, sizeof *ds + (size_t)n * sizeof ds->places[0]);
    ds->legs = xcalloc(n, sizeof *ds->legs);
    ds->n = n;
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_init(&ds->locks[i], NULL);
    return ds;
}

void decisions_free(struct decisions *ds)
{
    for (int i = 0; ds && i < STRIPES; i++)
        pthread_mutex_destroy(&ds->locks[i]);
    if (ds)
        free(ds->legs);
    free(ds);
}

uint32_t decisions_capacity(const struct decisions *ds)
{
    return ds->n;
}

uint64_t decisions_made(const struct decisions *ds)
{
    return atomic_load_explicit(&ds->made, memory_order_relaxed);
}

static uint32_t place_of(const struct decisions *ds, uint64_t ticket)
{
    return (uint32_t)((ticket - 1) % ds->n);
}

uint64_t decisions_put(struct decisions *ds, const struct decision *d)
{
    uint64_t ticket = atomic_fetch_add_explicit(&ds->made, 1, memory_order_relaxed) + 1;
    uint32_t at = place_of(ds, ticket);
    struct place *pl = &ds->places[at];
    pthread_mutex_lock(&ds->locks[at % STRIPES]);
    if (pl->ticket < ticket) { /* else a whole round of others was faster */
        pl->ticket = ticket;
        pl->d = *d;
        if (d->leg) {
            ds->legs[at] = *d->leg;
            pl->d.leg = &ds->legs[at];
        }
    }
    pthread_mutex_unlock(&ds->locks[at % STRIPES]);
    return ticket;
}

bool decisions_end(struct decisions *ds, uint64_t ticket, const struct decision *d)
{
    uint32_t at = place_of(ds, ticket);
    struct place *pl = &ds->places[at];
    pthread_mutex_lock(&ds->locks[at % STRIPES]);
    bool ours = pl->ticket == ticket;
    if (ours) {
        pl->d.ended = true;
        pl->d.end = d->end;
    }
    pthread_mutex_unlock(&ds->locks[at % STRIPES]);
    return ours;
}

void decisions_each(struct decisions *ds, bool (*fn)(void *ctx, const struct decision *d), void *ctx)
{
    struct decision copy;
    struct decision_leg leg;
    uint64_t newest = decisions_made(ds);
    for (uint64_t t = newest; t > 0 && newest - t < ds->n; t--) {
        uint32_t at = place_of(ds, t);
        pthread_mutex_lock(&ds->locks[at % STRIPES]);
        bool there = ds->places[at].ticket == t; /* else not yet written, or newer already */
        if (there) {
            copy = ds->places[at].d;
            if (copy.leg) {
                leg = *copy.leg;
                copy.leg = &leg;
            }
        }
        pthread_mutex_unlock(&ds->locks[at % STRIPES]);
        if (there && !fn(ctx, &copy))
            return;
    }
}
