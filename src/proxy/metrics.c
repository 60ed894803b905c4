/* metrics.c - what is counted request by request: the names operators have dashboards for and our own under penstock_.
 * The gauges of pools and pods are live.c. */
#include "proxy/impl.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_MODELS 256 /* label values that clients choose */

static const double b_gen[] = {.005, .025, .05, .1,  .2,  .4,  .6,  .8,   1,    1.25, 1.5, 2,
                               3,    4,    5,   6,   8,   10,  15,  20,   30,   45,   60,  120,
                               180,  240,  300, 360, 480, 600, 900, 1200, 1800, 2700, 3600};
static const double b_fast[] = {.000001, .000002, .000005, .00001, .00002, .00005, .0001, .0002,
                                .0005,   .001,    .002,    .005,   .01,    .02,    .05,   .1};
static const double b_ours[] = {.00001, .00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5};
static const double b_reqsz[] = {64,        128,       256,       512,       1024,     2048,     4096,
                                 8192,      16384,     32768,     65536,     131072,   262144,   524288,
                                 1048576,   2097152,   4194304,   8388608,   16777216, 33554432, 67108864,
                                 134217728, 268435456, 536870912, 1073741824};
static const double b_rspsz[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536};
static const double b_tokin[] = {1,    8,    16,    32,    64,    128,    256,    512,    1024,   2048,
                                 4096, 8192, 16384, 32778, 65536, 131072, 262144, 524288, 1048576};
static const double b_tokout[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
static const double b_ntpot[] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
static const double b_ratio[] = {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1};
static const double b_hitb[] = {0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};

struct proxy_metrics {
    struct gateway *g;
    struct metric_family *m_requests, *m_errors, *m_duration, *m_reqsz, *m_rspsz, *m_in, *m_out, *m_cached, *m_running,
        *m_ntpot, *m_ttft;
    struct metric_family *rewrites, *requests, *retries, *failures, *ttft, *duration, *rejected, *split, *prefill,
        *prefill_failures;
    struct metric *sched_e2e, *attempts_ok, *attempts_failed, *hit_ratio, *hit_bytes, *added, *clients;
    struct metric *degraded_level, *worker_busy, *worker_lag, *degraded[2];
    struct live *live;
};

#define LABELS(...)                      ((const char *const[]){__VA_ARGS__, NULL})
#define HIST(name, help, labels, b, max) metric_family(m, METRIC_HISTOGRAM, name, help, labels, b, ARRAY_LEN(b), max)
#define COUNTER(name, help, labels, max) metric_family(m, METRIC_COUNTER, name, help, labels, NULL, 0, max)
#define GAUGE(name, help, labels, max)   metric_family(m, METRIC_GAUGE, name, help, labels, NULL, 0, max)

static void model_families(struct proxy_metrics *pm, struct metrics *m)
{
    const char *const *M = LABELS("model_name", "target_model_name");
    pm->m_requests = COUNTER("inference_objective_request_total", "Requests that were scheduled.",
                             LABELS("model_name", "target_model_name", "priority"), 4 * MAX_MODELS);
    pm->m_errors = COUNTER("inference_objective_request_error_total", "Requests that ended with an error.",
                           LABELS("model_name", "target_model_name", "error_code"), 4 * MAX_MODELS);
    pm->m_duration = HIST("inference_objective_request_duration_seconds", "From the request to the end of its answer.",
                          M, b_gen, MAX_MODELS);
    pm->m_reqsz = HIST("inference_objective_request_sizes", "Request body bytes.", M, b_reqsz, MAX_MODELS);
    pm->m_rspsz = HIST("inference_objective_response_sizes", "Response body bytes.", M, b_rspsz, MAX_MODELS);
    pm->m_in = HIST("inference_objective_input_tokens", "Prompt tokens.", M, b_tokin, MAX_MODELS);
    pm->m_out = HIST("inference_objective_output_tokens", "Completion tokens.", M, b_tokout, MAX_MODELS);
    pm->m_cached = HIST("inference_objective_prompt_cached_tokens", "Prompt tokens the server had cached.", M, b_tokin,
                        MAX_MODELS);
    pm->m_running =
        GAUGE("inference_objective_running_requests", "Requests under way.", LABELS("model_name"), MAX_MODELS);
    pm->m_ntpot = HIST("inference_objective_normalized_time_per_output_token_seconds",
                       "Duration over completion tokens.", M, b_ntpot, MAX_MODELS);
    pm->m_ttft = HIST("inference_objective_request_ttft_seconds", "Time to the first byte of streamed answers.", M,
                      b_gen, MAX_MODELS);
}

static void rewrite_family(struct proxy_metrics *pm, struct metrics *m)
{
    pm->rewrites =
        COUNTER("inference_extension_model_rewrite_decisions_total", "Targets chosen by an InferenceModelRewrite.",
                LABELS("model_rewrite_name", "model_name", "target_model"), 4 * MAX_MODELS);
}

static struct metric *single(struct metric_family *f)
{
    return metric_series(f, NULL);
}

static void own_families(struct proxy_metrics *pm, struct metrics *m)
{
    static const char *const none[] = {NULL};
    pm->requests = COUNTER("penstock_requests_total", "Requests by backend and status of the answer.",
                           LABELS("backend", "status"), 0);
    pm->retries = COUNTER("penstock_retries_total", "Requests sent to another endpoint.", LABELS("backend"), 0);
    pm->failures =
        COUNTER("penstock_upstream_failures_total", "Attempts that failed, by kind.", LABELS("backend", "kind"), 0);
    pm->ttft = HIST("penstock_ttft_seconds", "From the request to the first byte of the answer's body.",
                    LABELS("backend"), b_gen, 0);
    pm->duration = HIST("penstock_request_duration_seconds", "From the request to the end of the answer.",
                        LABELS("backend"), b_gen, 0);
    pm->rejected = COUNTER("penstock_rejected_total", "Requests the gateway answered with an error, by code.",
                           LABELS("code"), 200);
    pm->split =
        COUNTER("penstock_pd_requests_total",
                "Attempts of pools that separate prefill and decode, by where their prompt was sent to be computed.",
                LABELS("backend", "prefill"), 0);
    pm->prefill =
        HIST("penstock_prefill_seconds", "From the start of a prefill leg to its answer.", LABELS("backend"), b_gen, 0);
    pm->prefill_failures = COUNTER(
        "penstock_prefill_failures_total",
        "Prefill legs that failed before the answer began, and who took over: another pair, or the decode endpoint.",
        LABELS("backend", "reason", "then"), 0);
    pm->added = single(HIST("penstock_added_seconds",
                            "From the complete request to its last byte sent to the endpoint.", none, b_ours, 0));
    pm->clients = single(GAUGE("penstock_client_connections", "Open client connections.", none, 0));
    pm->sched_e2e =
        single(HIST("inference_extension_scheduler_e2e_duration_seconds", "Time of a pick.", none, b_fast, 0));
    pm->hit_ratio =
        single(HIST("inference_extension_prefix_indexer_hit_ratio", "Matched share of the prompt.", none, b_ratio, 0));
    pm->hit_bytes =
        single(HIST("inference_extension_prefix_indexer_hit_bytes", "Matched bytes of the prompt.", none, b_hitb, 0));
    struct metric_family *attempts =
        COUNTER("inference_extension_scheduler_attempts_total", "Picks by result.", LABELS("status"), 0);
    pm->attempts_ok = metric_series(attempts, (struct str[]){STR("success")});
    pm->attempts_failed = metric_series(attempts, (struct str[]){STR("failure")});
    struct metric_family *info =
        GAUGE("inference_extension_info", "Build of this program.", LABELS("commit", "build_ref"), 0);
    metric_set(metric_series(info, (struct str[]){STR(""), STR(PENSTOCK_VERSION)}), 1);
}

static void show_strain(void *ctx)
{
    struct proxy_metrics *pm = ctx;
    struct strain_view v = gateway_strain(pm->g);
    metric_set(pm->degraded_level, v.level);
    metric_set(pm->worker_busy, v.busy_permille / 1000.0);
    metric_set(pm->worker_lag, v.lag_us / 1e6);
}

static void strain_families(struct proxy_metrics *pm, struct metrics *m)
{
    static const char *const none[] = {NULL};
    struct metric_family *degraded =
        COUNTER("penstock_degraded_requests_total",
                "Requests whose prompt was hashed less deep (1) or not at all (2), as the worker was behind.",
                LABELS("level"), 0);
    pm->degraded[0] = metric_series(degraded, (struct str[]){STR("1")});
    pm->degraded[1] = metric_series(degraded, (struct str[]){STR("2")});
    pm->degraded_level =
        single(GAUGE("penstock_degraded_level",
                     "0: prompts are hashed as the pools say, 1: less deep, 2: not at all. The highest "
                     "of the workers.",
                     none, 0));
    pm->worker_busy = single(
        GAUGE("penstock_worker_busy_ratio", "Share of the last 0.1 s in which the busiest worker had work.", none, 0));
    pm->worker_lag = single(
        GAUGE("penstock_worker_lag_seconds",
              "How long an event waited for its worker in the last 0.1 s: mean of the slowest worker.", none, 0));
    metrics_collector(m, show_strain, pm);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

struct proxy_metrics *proxy_metrics_new(struct gateway *g)
{
    struct proxy_metrics *pm = xcalloc(1, sizeof *pm);
    pm->g = g;
    model_families(pm, g->metrics);
    rewrite_family(pm, g->metrics);
    own_families(pm, g->metrics);
    strain_families(pm, g->metrics);
    pm->live = live_new(g);
    return pm;
}

void proxy_metrics_free(struct proxy_metrics *pm)
{
    live_free(pm->live);
    free(pm);
}

void metrics_backend_init(struct gateway *g, struct backend *b)
{
    struct str label[] = {b->key};
    b->retries = metric_series(g->pm->retries, label);
    b->ttft = metric_series(g->pm->ttft, label);
    b->duration = metric_series(g->pm->duration, label);
}

static struct model_metrics *new_model(struct proxy_metrics *pm, struct str model, struct str target)
{
    struct model_metrics *mm = xcalloc(1, sizeof *mm);
    mm->model = (struct str){str_dup(model), model.n};
    mm->target = (struct str){str_dup(target), target.n};
    struct str M[] = {mm->model, mm->target};
    mm->duration = metric_series(pm->m_duration, M);
    mm->request_sizes = metric_series(pm->m_reqsz, M);
    mm->response_sizes = metric_series(pm->m_rspsz, M);
    mm->input_tokens = metric_series(pm->m_in, M);
    mm->output_tokens = metric_series(pm->m_out, M);
    mm->cached_tokens = metric_series(pm->m_cached, M);
    mm->running = metric_series(pm->m_running, M);
    mm->ntpot = metric_series(pm->m_ntpot, M);
    mm->ttft = metric_series(pm->m_ttft, M);
    return mm;
}

static struct str model_key(char text[2100], struct str model, struct str target)
{
    size_t m = MIN(model.n, 1024), t = MIN(target.n, 1024);
    memcpy(text, m ? model.p : "", m);
    text[m] = '\n';
    memcpy(text + m + 1, t ? target.p : "", t);
    return (struct str){text, m + 1 + t};
}

struct model_metrics *metrics_model(struct worker *w, struct str model, struct str target)
{
    char text[2100];
    struct str key = model_key(text, model, target);
    struct model_metrics *mm = map_get(&w->models, key);
    if (mm)
        return mm;
    if (w->models.n >= MAX_MODELS) { /* new names share one entry; those known keep theirs */
        model = target = STR("_other");
        key = model_key(text, model, target);
        if ((mm = map_get(&w->models, key)))
            return mm;
    }
    mm = new_model(w->g->pm, model, target);
    map_put(&w->models, key, mm);
    return mm;
}

void metrics_free_models(struct worker *w)
{
    MAP_EACH (slot, &w->models) {
        struct model_metrics *mm = slot->val;
        char *p[2];
        memcpy(&p[0], &mm->model.p, sizeof p[0]);
        memcpy(&p[1], &mm->target.p, sizeof p[1]);
        free(p[0]);
        free(p[1]);
        memcpy(&p[0], &mm->rewrite.p, sizeof p[0]);
        free(p[0]);
        free(mm);
    }
}

/* --- events -------------------------------------------------------------------------------------------------- */

static double seconds(uint64_t from_us, uint64_t to_us)
{
    return to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0;
}

void metrics_client(struct worker *w, int delta)
{
    metric_add(w->g->pm->clients, w->index, delta);
}

static struct metric *requests_of(struct request *rq)
{
    struct model_metrics *mm = rq->mm;
    size_t i = 0;
    while (i < ARRAY_LEN(mm->requests) && mm->requests[i].m && mm->requests[i].priority != rq->priority)
        i++;
    if (i < ARRAY_LEN(mm->requests) && mm->requests[i].m)
        return mm->requests[i].m;
    char text[16];
    int n = snprintf(text, sizeof text, "%d", rq->priority);
    struct metric *s =
        metric_series(rq->w->g->pm->m_requests, (struct str[]){mm->model, mm->target, {text, (size_t)n}});
    if (i < ARRAY_LEN(mm->requests)) {
        mm->requests[i].priority = rq->priority;
        mm->requests[i].m = s;
    }
    return s;
}

static void count_scheduled(struct request *rq)
{
    metric_add(requests_of(rq), rq->w->index, 1);
    metric_add(rq->mm->running, rq->w->index, 1);
    rq->running = true;
}

void metrics_rewrite(struct request *rq, struct str object)
{
    struct model_metrics *mm = rq->mm;
    if (!mm->rewrites || !str_eq(mm->rewrite, object)) {
        char *old;
        memcpy(&old, &mm->rewrite.p, sizeof old);
        free(old);
        mm->rewrite = (struct str){str_dup(object), object.n};
        mm->rewrites = metric_series(rq->w->g->pm->rewrites, (struct str[]){mm->rewrite, mm->model, mm->target});
    }
    metric_add(mm->rewrites, rq->w->index, 1);
}

void metrics_pick(struct request *rq, uint64_t took_us)
{
    if (rq->backend->pool)
        metric_observe(rq->w->g->pm->sched_e2e, rq->w->index, (double)took_us / 1e6);
}

void metrics_picked(struct request *rq)
{
    if (!rq->backend->pool)
        return;
    struct proxy_metrics *pm = rq->w->g->pm;
    unsigned shard = rq->w->index;
    metric_add(pm->attempts_ok, shard, 1);
    const struct sched_decision *d = &rq->pick.core.d;
    if (d->stream_bytes) {
        metric_observe(pm->hit_bytes, shard, (double)d->matched_bytes);
        metric_observe(pm->hit_ratio, shard, (double)d->matched_bytes / (double)d->stream_bytes);
    }
    if (rq->mm && !rq->running)
        count_scheduled(rq);
}

void metrics_pick_failed(struct request *rq)
{
    if (rq->backend->pool)
        metric_add(rq->w->g->pm->attempts_failed, rq->w->index, 1);
}

void metrics_sent(struct request *rq)
{
    if (rq->attempts > 1 || rq->sent_us) /* once: a prefill that comes first is no time that we add */
        return;
    rq->sent_us = loop_clock_us(rq->w->loop);
    metric_observe(rq->w->g->pm->added, rq->w->index, seconds(rq->body_done_us + rq->waited_us, rq->sent_us));
}

void metrics_first_byte(struct request *rq)
{
    metric_observe(rq->backend->ttft, rq->w->index, seconds(rq->start_us, rq->first_us));
    if (rq->mm && rq->event_stream)
        metric_observe(rq->mm->ttft, rq->w->index, seconds(rq->start_us, rq->first_us));
}

void metrics_retry(struct request *rq)
{
    metric_add(rq->backend->retries, rq->w->index, 1);
}

void metrics_upstream_failure(struct request *rq, enum sched_outcome how)
{
    struct metric *s = atomic_load_explicit(&rq->backend->failures[how], memory_order_acquire);
    if (!s) {
        s = metric_series(rq->w->g->pm->failures, (struct str[]){rq->backend->key, str_c(sched_outcome_name(how))});
        atomic_store_explicit(&rq->backend->failures[how], s, memory_order_release);
    }
    metric_add(s, rq->w->index, 1);
}

void metrics_rejected(struct worker *w, const char *code)
{
    metric_add(metric_series(w->g->pm->rejected, (struct str[]){str_c(code)}), w->index, 1);
}

void metrics_split(struct request *rq, bool split)
{
    struct metric *s = atomic_load_explicit(&rq->backend->split[split], memory_order_acquire);
    if (!s) {
        s = metric_series(rq->w->g->pm->split,
                          (struct str[]){rq->backend->key, split ? STR("elsewhere") : STR("here")});
        atomic_store_explicit(&rq->backend->split[split], s, memory_order_release);
    }
    metric_add(s, rq->w->index, 1);
}

void metrics_prefilled(struct request *rq)
{
    struct metric *s = atomic_load_explicit(&rq->backend->prefill, memory_order_acquire);
    const struct leg *g = &rq->pd->leg;
    if (!s) {
        s = metric_series(rq->w->g->pm->prefill, (struct str[]){rq->backend->key});
        atomic_store_explicit(&rq->backend->prefill, s, memory_order_release);
    }
    metric_observe(s, rq->w->index, g->prefilled_us > g->begun_us ? (double)(g->prefilled_us - g->begun_us) / 1e6 : 0);
}

void metrics_prefill_failed(struct request *rq, enum sched_outcome how, bool here)
{
    struct str labels[] = {rq->backend->key, str_c(sched_outcome_name(how)), here ? STR("decode") : STR("pair")};
    metric_add(metric_series(rq->w->g->pm->prefill_failures, labels), rq->w->index, 1);
}

void metrics_degraded(struct request *rq)
{
    metric_add(rq->w->g->pm->degraded[rq->degraded - 1], rq->w->index, 1);
}

static void count_status(struct request *rq)
{
    unsigned status = MIN(rq->status, 599u);
    struct metric *s = atomic_load_explicit(&rq->backend->by_status[status], memory_order_acquire);
    if (!s) {
        char text[8];
        int n = snprintf(text, sizeof text, "%u", status);
        s = metric_series(rq->w->g->pm->requests, (struct str[]){rq->backend->key, {text, (size_t)n}});
        atomic_store_explicit(&rq->backend->by_status[status], s, memory_order_release);
    }
    metric_add(s, rq->w->index, 1);
}

static void observe_usage(struct request *rq, const struct api_usage *u, double duration_s)
{
    unsigned shard = rq->w->index;
    if (u->prompt_tokens)
        metric_observe(rq->mm->input_tokens, shard, (double)u->prompt_tokens);
    if (u->completion_tokens) {
        metric_observe(rq->mm->output_tokens, shard, (double)u->completion_tokens);
        metric_observe(rq->mm->ntpot, shard, duration_s / (double)u->completion_tokens);
    }
    if (u->cached_tokens)
        metric_observe(rq->mm->cached_tokens, shard, (double)u->cached_tokens);
}

static void count_error(struct request *rq)
{
    const char *code = rq->error_code ? rq->error_code : "ModelServerError";
    struct str labels[] = {rq->mm->model, rq->mm->target, str_c(code)};
    metric_add(metric_series(rq->w->g->pm->m_errors, labels), rq->w->index, 1);
}

void metrics_done(struct request *rq, const struct api_usage *usage, uint64_t now_us)
{
    if (!rq->backend)
        return;
    unsigned shard = rq->w->index;
    double s = seconds(rq->start_us, now_us);
    count_status(rq);
    metric_observe(rq->backend->duration, shard, s);
    if (!rq->backend->pool || (!rq->mm && !rq->is_model_kind))
        return;
    if (!rq->mm)
        rq->mm = metrics_model(rq->w, rq->model, rq->target);
    if (rq->running)
        metric_add(rq->mm->running, shard, -1);
    rq->running = false;
    if (rq->status >= 400 || rq->error_code)
        count_error(rq);
    if (!rq->committed || rq->error_code)
        return;
    metric_observe(rq->mm->duration, shard, s);
    metric_observe(rq->mm->request_sizes, shard, (double)rq->body_n);
    metric_observe(rq->mm->response_sizes, shard, (double)rq->resp_bytes);
    if (usage && usage->found)
        observe_usage(rq, usage, s);
}
