/* sim/stats_vllm.c - the metrics page of vLLM: names, labels and buckets of v0 and v1. */
#include "sim/stats_page.h"

#include <stdio.h>

/* The histograms of v0 stop earlier. */
#define V0_TTFT  16
#define V0_TOKEN 13
static const double v0_e2e_bounds[] = {1, 2.5, 5, 10, 15, 20, 30, 40, 50, 60};

static void cache_config(struct page *p)
{
    const struct sim_options *o = p->s->opt;
    page_head(p, "vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    for (unsigned i = 0; i < p->n; i++) {
        buf_addf(p->out,
                 "vllm:cache_config_info{block_size=\"%u\",cache_dtype=\"auto\",enable_prefix_caching=\"%s\",%sgpu_"
                 "memory_utilization=\"%g\",num_cpu_blocks=\"None\",num_gpu_blocks=\"%u\",num_gpu_blocks_override=\"",
                 p->s->ep.block_size, o->prefix_caching ? "True" : "False", p->v[i].before,
                 o->memory_frac > 0 ? o->memory_frac : 0.9, p->s->ep.n_blocks);
        if (o->n_blocks_override)
            buf_addf(p->out, "%llu", (unsigned long long)o->n_blocks_override);
        else
            buf_add_str(p->out, STR("None"));
        buf_add_str(p->out, STR("\",prefix_caching_hash_algo=\"sha256\",sliding_window=\"None\"} 1.0\n"));
    }
}

/* Without label of an engine: with several of them the series of the first. */
static void lora_info(struct page *p)
{
    const struct stats *st = p->v[0].st;
    if (!p->s->opt->enable_lora || st->n_lora == 0)
        return;
    page_head(p, "vllm:lora_requests_info", "gauge", "Running stats on lora requests.");
    for (unsigned i = 0; i < st->n_lora; i++) {
        buf_addf(p->out, "vllm:lora_requests_info{max_lora=\"%llu\",running_lora_adapters=\"",
                 (unsigned long long)p->s->opt->max_loras);
        page_label(p->out, str_c(st->lora[i].running));
        buf_add_str(p->out, STR("\",waiting_lora_adapters=\""));
        page_label(p->out, str_c(st->lora[i].waiting));
        buf_add_str(p->out, STR("\"} "));
        page_float(p->out, st->lora[i].at);
        buf_add_str(p->out, STR("\n"));
    }
}

static void by_reason(struct page *p)
{
    const char *name = "vllm:num_requests_waiting_by_reason";
    page_head(p, name, "gauge", "Number of requests waiting, by reason.");
    for (unsigned k = 0; k < p->n; k++)
        for (int i = 0; i < 2; i++) {
            const struct page_rank *r = &p->v[k];
            buf_addf(p->out, "%s{%s%s,reason=\"%s\"} ", name, r->before, r->after, i ? "deferred" : "capacity");
            page_float(p->out, i ? r->deferred : r->waiting - r->deferred);
            buf_add_str(p->out, STR("\n"));
        }
}

static void v1_histograms(struct page *p)
{
    page_hist(p, "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", STATS_AT(iteration),
              0);
    page_hist(p, "vllm:request_prompt_tokens", "Number of prefill tokens processed.", STATS_AT(prompt), 0);
    page_hist(p, "vllm:request_generation_tokens", "Number of generation tokens processed.", STATS_AT(generation), 0);
    page_hist(p, "vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.",
              STATS_AT(max_tokens), 0);
    page_hist(p, "vllm:request_params_n", "Histogram of the n request parameter.", STATS_AT(n), 0);
    page_hist(p, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", STATS_AT(ttft), 0);
    page_hist(p, "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", STATS_AT(itl), 0);
    page_hist(p, "vllm:request_time_per_output_token_seconds",
              "Histogram of time_per_output_token_seconds per request.", STATS_AT(tpot), 0);
    page_hist(p, "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", STATS_AT(e2e), 0);
    page_hist(p, "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
              STATS_AT(queue), 0);
    page_hist(p, "vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
              STATS_AT(inference), 0);
    page_hist(p, "vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
              STATS_AT(prefill), 0);
    page_hist(p, "vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
              STATS_AT(decode), 0);
}

static void v1_page(struct page *p, bool old_names)
{
    page_gauge(p, "vllm:num_requests_running", "Number of requests in model execution batches.", PAGE_AT(running));
    page_gauge(p, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", PAGE_AT(waiting));
    by_reason(p);
    page_gauge(p, "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", PAGE_AT(kv));
    if (old_names)
        page_gauge(p, "vllm:gpu_cache_usage_perc",
                   "GPU KV-cache usage. 1 means 100 percent usage. DEPRECATED: use kv_cache_usage_perc.", PAGE_AT(kv));
    page_counter(p, "vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.",
                 PAGE_AT(query));
    page_counter(p, "vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.",
                 PAGE_AT(hit));
    page_counter(p, "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
                 PAGE_AT(preemptions));
    page_counter(p, "vllm:prompt_tokens_total", "Number of prefill tokens processed.", PAGE_AT(prompt));
    page_counter(p, "vllm:generation_tokens_total", "Number of generation tokens processed.", PAGE_AT(generation));
    page_finished(p, "vllm:request_success_total", "abort");
    v1_histograms(p);
    cache_config(p);
    lora_info(p);
}

/* The e2e histogram of v0 from that of v1: its bounds are a subset of ours except 2.5, which both have. */
static struct sim_hist coarser(const struct sim_hist *h, const double *bound, unsigned n)
{
    struct sim_hist out = {.bound = bound, .n = n, .total = h->total, .sum = h->sum};
    for (unsigned i = 0; i <= h->n; i++) {
        unsigned k = 0;
        while (i < h->n && k < n && h->bound[i] > bound[k])
            k++;
        out.count[i < h->n ? k : n] += h->count[i];
    }
    return out;
}

static void v0_own(struct page *p)
{
    const struct page_rank *r = &p->v[0];
    page_const(p, "vllm:num_requests_swapped", "Number of requests swapped to CPU.", 0);
    page_const(p, "vllm:cpu_cache_usage_perc", "CPU KV-cache usage. 1 means 100 percent usage.", 0);
    page_const(p, "vllm:gpu_prefix_cache_hit_rate", "GPU prefix cache block hit rate.",
               r->query > 0 ? r->hit / r->query : 0);
    page_const(p, "vllm:cpu_prefix_cache_hit_rate", "CPU prefix cache block hit rate.", 0);
    page_const(p, "vllm:avg_prompt_throughput_toks_per_s", "Average prefill throughput in tokens/s.",
               r->st->prompt_rate);
    page_const(p, "vllm:avg_generation_throughput_toks_per_s", "Average generation throughput in tokens/s.",
               r->st->generation_rate);
    page_hist(p, "vllm:time_per_output_token_seconds", "Histogram of time per output token in seconds.", STATS_AT(itl),
              V0_TOKEN);
}

static void v0_page(struct page *p)
{
    struct sim_hist e2e = coarser(&p->v[0].st->e2e, v0_e2e_bounds, ARRAY_LEN(v0_e2e_bounds));
    page_gauge(p, "vllm:num_requests_running", "Number of requests currently running on GPU.", PAGE_AT(running));
    page_gauge(p, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", PAGE_AT(waiting));
    page_gauge(p, "vllm:gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.", PAGE_AT(kv));
    v0_own(p);
    page_counter(p, "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
                 PAGE_AT(preemptions));
    page_counter(p, "vllm:prompt_tokens_total", "Number of prefill tokens processed.", PAGE_AT(prompt));
    page_counter(p, "vllm:generation_tokens_total", "Number of generation tokens processed.", PAGE_AT(generation));
    page_finished(p, "vllm:request_success_total", "abort");
    page_hist(p, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", STATS_AT(ttft),
              V0_TTFT);
    page_head(p, "vllm:e2e_request_latency_seconds", "histogram",
              "Histogram of end to end request latency in seconds.");
    page_hist_of(p, "vllm:e2e_request_latency_seconds", &p->v[0], &e2e, e2e.n);
    page_hist(p, "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
              STATS_AT(queue), 0);
    page_hist(p, "vllm:request_params_best_of", "Histogram of the best_of request parameter.", STATS_AT(n), 0);
    page_hist(p, "vllm:request_params_n", "Histogram of the n request parameter.", STATS_AT(n), 0);
    cache_config(p);
    lora_info(p);
}

/* v0 knows one engine and no label for it. */
static void labels(struct page *p, bool v0)
{
    for (unsigned i = 0; i < p->n; i++) {
        if (!v0)
            (void)snprintf(p->v[i].before, sizeof(p->v[i].before), "engine=\"%u\",", p->v[i].r->index);
        (void)snprintf(p->v[i].after, sizeof(p->v[i].after), "model_name=\"%s\"", buf_cstr(&p->model));
    }
    p->n = v0 ? 1 : p->n;
}

void stats_vllm(struct server *s, struct buf *out)
{
    struct page p;
    bool v0 = s->opt->metrics == SIM_METRICS_V0;
    page_init(&p, s, out);
    labels(&p, v0);
    if (v0)
        v0_page(&p);
    else
        v1_page(&p, s->opt->metrics != SIM_METRICS_V1);
    if (s->opt->metrics == SIM_METRICS_BOTH)
        v0_own(&p);
    page_free(&p);
}
