/* flow_metrics.c - what is counted of requests that wait, under the names of the reference picker (gie-protocol 5,
 * flow_control_*) and our own.
 *
 * Clients choose fairness ids and model names: each worker knows the first of both and calls the rest `_other`. */
#include "proxy/impl.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_FAIRNESS_IDS 256
#define MAX_FLOWS        1024 /* combinations of labels */
#define KEY_MAX          4096

static const double b_queue[] = {.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60};
static const double b_fast[] = {.000001, .000002, .000005, .00001, .00002, .00005, .0001, .0002,
                                .0005,   .001,    .002,    .005,   .01,    .02,    .05,   .1};
static const double b_release[] = {.00001, .00002, .00005, .0001, .0002, .0005, .001,
                                   .002,   .005,   .01,    .02,   .05,   .1,    .5};

static const char *const outcome_names[N_FLOW_OUTCOMES] = {
    [FLOW_DISPATCHED] = "Dispatched",
    [FLOW_REJECTED_CAPACITY] = "RejectedCapacity",
    [FLOW_REJECTED_OTHER] = "RejectedOther",
    [FLOW_EVICTED_TTL] = "EvictedTTL",
    [FLOW_EVICTED_CANCELLED] = "EvictedContextCancelled",
    [FLOW_EVICTED_OTHER] = "EvictedOther",
};

struct flow_families {
    struct metric_family *size, *bytes, *duration, *enqueue;
    struct metric *release;
};

struct flow_series {                                       /* of one worker */
    struct str fairness_id, priority, pool, model, target; /* owned, one allocation */
    char *text;
    struct metric *size, *bytes;
    struct metric *duration[N_FLOW_OUTCOMES], *enqueue[N_FLOW_OUTCOMES]; /* filled on first use */
};

struct flow_families *flow_families_new(struct metrics *m)
{
    static const char *const queue[] = {"fairness_id", "priority",          "inference_pool",
                                        "model_name",  "target_model_name", NULL};
    static const char *const duration[] = {"fairness_id", "priority",          "outcome", "inference_pool",
                                           "model_name",  "target_model_name", NULL};
    static const char *const enqueue[] = {"fairness_id", "priority", "outcome", NULL}, *const none[] = {NULL};
    struct flow_families *f = xcalloc(1, sizeof *f);
    f->size = metric_family(m, METRIC_GAUGE, "inference_extension_flow_control_queue_size",
                            "Requests that wait in the gateway.", queue, NULL, 0, MAX_FLOWS);
    f->bytes = metric_family(m, METRIC_GAUGE, "inference_extension_flow_control_queue_bytes",
                             "Prompt bytes of the requests that wait.", queue, NULL, 0, MAX_FLOWS);
    f->duration = metric_family(m, METRIC_HISTOGRAM, "inference_extension_flow_control_request_queue_duration_seconds",
                                "Time in the queue; 0 for who had not to wait.", duration, b_queue, ARRAY_LEN(b_queue),
                                2 * MAX_FLOWS);
    f->enqueue = metric_family(m, METRIC_HISTOGRAM, "inference_extension_flow_control_request_enqueue_duration_seconds",
                               "Time of asking the picker, by what became of the request in the end.", enqueue, b_fast,
                               ARRAY_LEN(b_fast), MAX_FLOWS);
    f->release = metric_series(metric_family(m, METRIC_HISTOGRAM, "penstock_queue_release_seconds",
                                             "From noticing that a queued client has left until its place is free.",
                                             none, b_release, ARRAY_LEN(b_release), 0),
                               NULL);
    return f;
}

static struct str take(char **at, struct str s)
{
    struct str copy = {*at, s.n};
    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

static struct flow_series *new_series(const struct flow_families *f, struct str fairness_id, struct str priority,
                                      struct str pool, struct str model, struct str target)
{
    struct flow_series *fs = xcalloc(1, sizeof *fs);
    fs->text = xmalloc(fairness_id.n + priority.n + pool.n + model.n + target.n + 1);
    char *at = fs->text;
    fs->fairness_id = take(&at, fairness_id);
    fs->priority = take(&at, priority);
    fs->pool = take(&at, pool);
    fs->model = take(&at, model);
    fs->target = take(&at, target);
    const struct str labels[] = {fs->fairness_id, fs->priority, fs->pool, fs->model, fs->target};
    fs->size = metric_series(f->size, labels);
    fs->bytes = metric_series(f->bytes, labels);
    return fs;
}

/* The request's fairness id as a label. */
static struct str shown_id(struct worker *w, struct str id)
{
    if (!id.n)
        return STR("default-flow");
    if (map_get(&w->fairness_ids, id))
        return id;
    if (w->fairness_ids.n >= MAX_FAIRNESS_IDS)
        return STR("_other");
    map_put(&w->fairness_ids, id, w);
    return id;
}

static struct str key_of(char text[KEY_MAX], const struct str *v, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct str s = str_first(v[i], MIN(v[i].n, (size_t)1024));
        if (at + s.n + 1 > KEY_MAX)
            break;
        if (s.n)
            memcpy(text + at, s.p, s.n);
        at += s.n;
        text[at++] = '\n';
    }
    return (struct str){text, at};
}

struct flow_series *flow_series(struct request *rq)
{
    struct worker *w = rq->w;
    char key[KEY_MAX], number[16];
    int n = snprintf(number, sizeof number, "%d", rq->priority);
    struct str v[] = {
        shown_id(w, rq->fairness_id), {number, (size_t)n}, rq->backend->key, rq->mm->model, rq->mm->target};
    struct str k = key_of(key, v, ARRAY_LEN(v));
    struct flow_series *fs = map_get(&w->flows, k);
    if (!fs && w->flows.n >= MAX_FLOWS) {
        v[0] = v[3] = v[4] = STR("_other");
        k = key_of(key, v, ARRAY_LEN(v));
        fs = map_get(&w->flows, k);
    }
    if (!fs) {
        fs = new_series(w->g->flow, v[0], v[1], str_c(port_name(rq->backend->port)), v[3], v[4]);
        map_put(&w->flows, k, fs);
    }
    return fs;
}

void flow_series_free(struct worker *w)
{
    MAP_EACH (slot, &w->flows) {
        struct flow_series *fs = slot->val;
        free(fs->text);
        free(fs);
    }
    map_free(&w->flows);
    map_free(&w->fairness_ids);
}

/* --- events -------------------------------------------------------------------------------------------------- */

void flow_count(struct request *rq, int sign)
{
    const struct sched_req *s = &rq->pick.core;
    metric_add(rq->flow->size, rq->w->index, sign);
    metric_add(rq->flow->bytes, rq->w->index, sign * (double)(s->prompt_bytes + 4 * s->prompt_token_ids));
}

void flow_observe(struct request *rq, enum flow_outcome how, uint64_t waited_us)
{
    struct flow_series *fs = rq->flow;
    const struct flow_families *f = rq->w->g->flow;
    struct str outcome = str_c(outcome_names[how]);
    if (!fs->duration[how])
        fs->duration[how] = metric_series(
            f->duration, (const struct str[]){fs->fairness_id, fs->priority, outcome, fs->pool, fs->model, fs->target});
    if (!fs->enqueue[how])
        fs->enqueue[how] = metric_series(f->enqueue, (const struct str[]){fs->fairness_id, fs->priority, outcome});
    metric_observe(fs->duration[how], rq->w->index, (double)waited_us / 1e6);
    metric_observe(fs->enqueue[how], rq->w->index, (double)rq->enqueue_us / 1e6);
}

void flow_released(struct request *rq)
{
    uint64_t now_us = loop_clock_us(rq->w->loop);
    metric_observe(rq->w->g->flow->release, rq->w->index, (double)(now_us - rq->gone_us) / 1e6);
}
