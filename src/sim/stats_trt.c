/* sim/stats_trt.c - the metrics of TensorRT-LLM: Triton's page, the two pages of trtllm-serve. They show steps: an idle
 * server keeps showing its last one. */
#include "sim/answer_priv.h"
#include "sim/stats_page.h"

#include <math.h>
#include <stdio.h>

struct snapshot { /* of all engines */
    uint64_t iter;
    double scheduled, waiting, context, completed, context_tokens, used, max, fraction, ms;
};

static void snapshot_add(struct snapshot *t, const struct iteration *it)
{
    t->iter = MAX(t->iter, it->iter);
    t->scheduled += it->scheduled;
    t->waiting += it->waiting;
    t->context += it->context;
    t->completed += it->completed;
    t->context_tokens += it->context_tokens;
    t->used += it->used_blocks;
    t->ms = fmax(t->ms, it->ms);
}

static struct snapshot latest(const struct server *s)
{
    struct snapshot t = {0};
    for (unsigned i = 0; i < s->n_ranks; i++) {
        const struct stats *st = &s->ranks[i].stats;
        if (st->n_iters)
            snapshot_add(&t, &st->iters[(st->n_iters - 1) % SIM_ITERATIONS]);
    }
    t.max = (double)s->ep.n_blocks * s->n_ranks;
    t.fraction = t.used / t.max;
    const struct override *o = &s->override;
    if (o->on) {
        t.scheduled = isnan(o->running) ? t.scheduled : o->running;
        t.waiting = isnan(o->waiting) ? t.waiting : o->waiting;
        t.fraction = isnan(o->kv) ? t.fraction : o->kv;
        t.used = isnan(o->kv) ? t.used : floor(o->kv * t.max);
    }
    return t;
}

/* ---- Triton ---- */

struct value { /* one series of a family that tells its values apart by a label */
    const char *label;
    double v;
};

/* C++ prints whole numbers without a fraction; labels in alphabetical order. */
static void family(struct buf *out, const char *name, const char *help, const char *label, const struct value *v,
                   size_t n)
{
    bool first = strcmp(label, "model") < 0;
    buf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
    for (size_t i = 0; i < n; i++) {
        if (first)
            buf_addf(out, "%s{%s=\"%s\",model=\"tensorrt_llm\",version=\"1\"} %.15g\n", name, label, v[i].label,
                     v[i].v);
        else
            buf_addf(out, "%s{model=\"tensorrt_llm\",%s=\"%s\",version=\"1\"} %.15g\n", name, label, v[i].label,
                     v[i].v);
    }
}

static void triton_counts(struct server *s, struct buf *out)
{
    double success = 0, failure = 0;
    for (unsigned i = 0; i < s->n_ranks; i++) {
        const uint64_t *f = s->ranks[i].stats.finished;
        success += (double)(f[FINISH_STOP] + f[FINISH_LENGTH]);
        failure += (double)(f[FINISH_ABORT] + f[FINISH_ERROR]);
    }
    for (unsigned i = 0; i < s->n_names; i++) {
        const char *const names[] = {"nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"};
        for (size_t k = 0; k < ARRAY_LEN(names); k++)
            buf_addf(out, "%s{model=\"" STR_FMT "\",version=\"1\"} %.15g\n", names[k], STR_ARG(s->names[i]),
                     i == 0 ? success : 0);
        buf_addf(out, "nv_inference_request_failure{model=\"" STR_FMT "\",reason=\"CANCELED\",version=\"1\"} %.15g\n",
                 STR_ARG(s->names[i]), i == 0 ? failure : 0);
        buf_addf(out, "nv_inference_pending_request_count{model=\"" STR_FMT "\",version=\"1\"} 0\n",
                 STR_ARG(s->names[i]));
    }
}

void stats_triton(struct server *s, struct buf *out)
{
    struct snapshot t = latest(s);
    struct value requests[] = {{"waiting", t.waiting},
                               {"context", t.context},
                               {"scheduled", t.scheduled},
                               {"max", s->ep.max_num_seqs},
                               {"active", t.scheduled + t.waiting}};
    struct value kv[] = {{"fraction", t.fraction},
                         {"tokens_per", s->ep.block_size},
                         {"used", t.used},
                         {"free", t.max - t.used},
                         {"max", t.max}};
    struct value batcher[] = {{"generation_requests", fmax(t.scheduled - t.context, 0)},
                              {"total_context_tokens", t.context_tokens},
                              {"micro_batch_id", 0}};
    struct value general[] = {{"iteration_counter", (double)t.iter}, {"timestamp", floor(wall_seconds())}};
    struct value disagg[] = {{"kv_cache_transfer_ms", 0}, {"request_count", 0}};
    triton_counts(s, out);
    family(out, "nv_trt_llm_request_metrics", "TRT LLM request metrics", "request_type", requests, ARRAY_LEN(requests));
    family(out, "nv_trt_llm_kv_cache_block_metrics", "TRT LLM KV cache block metrics", "kv_cache_block_type", kv,
           ARRAY_LEN(kv));
    family(out, "nv_trt_llm_inflight_batcher_metrics", "TRT LLM inflight_batcher-specific metrics",
           "inflight_batcher_specific_metric", batcher, ARRAY_LEN(batcher));
    family(out, "nv_trt_llm_general_metrics", "General TRT LLM metrics", "general_type", general, ARRAY_LEN(general));
    family(out, "nv_trt_llm_disaggregated_serving_metrics", "TRT LLM disaggregated serving metrics",
           "disaggregated_serving_type", disagg, ARRAY_LEN(disagg));
}

/* ---- trtllm-serve ---- */

static void f_member(struct jsonw *w, const char *key, double v)
{
    jsonw_key(w, key);
    jsonw_f(w, v);
}

static void iteration(struct jsonw *w, const struct rank *r, const struct iteration *it)
{
    const struct engine_params *ep = &r->s->ep;
    struct engine_stats es;
    engine_stats(r->engine, false, &es);
    jsonw_obj(w);
    member_u64(w, "iter", it->iter);
    member_u64(w, "numActiveRequests", it->scheduled);
    member_u64(w, "numQueuedRequests", it->waiting);
    member_u64(w, "numCompletedRequests", it->completed);
    member_u64(w, "maxNumActiveRequests", ep->max_num_seqs);
    f_member(w, "iterLatencyMS", it->ms);
    member_u64(w, "maxBatchSizeRuntime", ep->max_num_seqs);
    member_u64(w, "maxNumTokensRuntime", ep->max_batched_tokens);
    jsonw_key(w, "kvCacheStats");
    jsonw_obj(w);
    f_member(w, "cacheHitRate",
             es.prefix_query_tokens ? (double)es.prefix_hit_tokens / (double)es.prefix_query_tokens : 0);
    member_u64(w, "maxNumBlocks", ep->n_blocks);
    member_u64(w, "freeNumBlocks", ep->n_blocks - it->used_blocks);
    member_u64(w, "usedNumBlocks", it->used_blocks);
    member_u64(w, "tokensPerBlock", ep->block_size);
    jsonw_obj_end(w);
    jsonw_key(w, "inflightBatchingStats");
    jsonw_obj(w);
    member_u64(w, "numContextRequests", it->context);
    member_u64(w, "numGenRequests", it->scheduled > it->context ? it->scheduled - it->context : 0);
    member_u64(w, "numPausedRequests", 0);
    member_u64(w, "numScheduledRequests", it->scheduled);
    member_u64(w, "numCtxTokens", it->context_tokens);
    jsonw_obj_end(w);
    jsonw_obj_end(w);
}

void stats_trtllm_json(struct server *s, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_arr(&w);
    for (unsigned i = 0; i < s->n_ranks; i++) {
        struct stats *st = &s->ranks[i].stats;
        uint64_t from = st->n_iters > SIM_ITERATIONS ? st->n_iters - SIM_ITERATIONS : 0;
        for (uint64_t k = MAX(st->n_drained, from); k < st->n_iters; k++)
            iteration(&w, &s->ranks[i], &st->iters[k % SIM_ITERATIONS]);
        st->n_drained = st->n_iters;
    }
    jsonw_arr_end(&w);
}

void stats_trtllm(struct server *s, struct buf *out)
{
    struct page p;
    struct snapshot t = latest(s);
    page_init(&p, s, out);
    p.n = 1; /* its steps are those of all engines together */
    (void)snprintf(p.v[0].after, sizeof(p.v[0].after), "model_name=\"%s\"", buf_cstr(&p.model));
    page_const(&p, "trtllm_num_requests_running", "Number of active requests.", t.scheduled);
    page_const(&p, "trtllm_num_requests_waiting", "Number of queued requests.", t.waiting);
    page_const(&p, "trtllm_kv_cache_utilization", "KV cache utilization.", t.fraction);
    page_const(&p, "trtllm_kv_cache_hit_rate", "KV cache hit rate.", p.v[0].query > 0 ? p.v[0].hit / p.v[0].query : 0);
    page_const(&p, "trtllm_kv_cache_max_blocks", "Blocks of the KV cache.", t.max);
    page_const(&p, "trtllm_kv_cache_free_blocks", "Free blocks of the KV cache.", t.max - t.used);
    page_const(&p, "trtllm_kv_cache_used_blocks", "Used blocks of the KV cache.", t.used);
    page_const(&p, "trtllm_kv_cache_tokens_per_block", "Tokens in a block of the KV cache.", s->ep.block_size);
    page_const(&p, "trtllm_num_context_requests", "Requests in the context phase.", t.context);
    page_const(&p, "trtllm_num_generation_requests", "Requests in the generation phase.",
               fmax(t.scheduled - t.context, 0));
    page_const(&p, "trtllm_max_batch_size_runtime", "Largest batch.", s->ep.max_num_seqs);
    page_finished(&p, "trtllm_request_success_total", "cancelled");
    page_hist(&p, "trtllm_time_to_first_token_seconds", "Histogram of time to first token in seconds.", STATS_AT(ttft),
              0);
    page_hist(&p, "trtllm_time_per_output_token_seconds", "Histogram of time per output token in seconds.",
              STATS_AT(tpot), 0);
    page_hist(&p, "trtllm_e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.",
              STATS_AT(e2e), 0);
    page_hist(&p, "trtllm_request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
              STATS_AT(queue), 0);
    page_free(&p);
}
