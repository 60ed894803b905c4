/* sim/stats_sglang.c - the metrics page of SGLang: series of the schedulers with their ranks, series of the front end
 * with the model's name alone. */
#include "sim/stats_page.h"

#include <stdio.h>

#define SPEED_HELP "Histogram of KV cache transfer "

static void labels(struct page *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        struct page_rank *r = &p->v[i];
        int n = 0;
        if (p->s->opt->dp > 1)
            n = snprintf(r->before, sizeof(r->before), "dp_rank=\"%u\",", r->r->index);
        (void)snprintf(r->before + n, sizeof(r->before) - (size_t)n, "engine_type=\"%s\",",
                       sim_role_name(p->s->opt->role));
        (void)snprintf(r->after, sizeof(r->after), "model_name=\"%s\",moe_ep_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\"",
                       buf_cstr(&p->model));
    }
}

/* Up to 0.5.10 the geometry of the cache was in the labels of an info series. */
static void cache_config(struct page *p)
{
    if (p->s->opt->metrics != SIM_METRICS_V0) {
        page_gauge(p, "sglang:page_size", "The number of tokens in a page of the KV cache.", PAGE_AT(page_size));
        page_gauge(p, "sglang:num_pages", "The number of pages of the KV cache.", PAGE_AT(pages));
        return;
    }
    page_head(p, "sglang:cache_config_info", "gauge", "Information of the cache configuration.");
    for (unsigned i = 0; i < p->n; i++)
        buf_addf(p->out, "sglang:cache_config_info{%s%s,num_pages=\"%u\",page_size=\"%u\"} 1.0\n", p->v[i].before,
                 p->v[i].after, p->s->ep.n_blocks, p->s->ep.block_size);
}

static void pair_gauges(struct page *p)
{
    page_gauge(p, "sglang:num_prefill_bootstrap_queue_reqs", "The number of requests in the prefill bootstrap queue.",
               PAGE_AT(bootstrap));
    page_gauge(p, "sglang:num_prefill_inflight_queue_reqs", "The number of requests in the prefill inflight queue.",
               PAGE_AT(inflight));
    page_gauge(p, "sglang:num_decode_prealloc_queue_reqs", "The number of requests in the decode prealloc queue.",
               PAGE_AT(prealloc));
    page_gauge(p, "sglang:num_decode_transfer_queue_reqs", "The number of requests in the decode transfer queue.",
               PAGE_AT(transfer));
}

static void scheduler(struct page *p)
{
    page_gauge(p, "sglang:num_running_reqs", "The number of running requests.", PAGE_AT(running));
    page_gauge(p, "sglang:num_used_tokens", "The number of used tokens.", PAGE_AT(used_tokens));
    page_gauge(p, "sglang:token_usage", "The token usage.", PAGE_AT(kv));
    page_gauge(p, "sglang:full_token_usage", "The token usage of the full attention pool.", PAGE_AT(kv));
    page_gauge(p, "sglang:gen_throughput", "The generation throughput (token/s).", PAGE_AT(speed));
    page_gauge(p, "sglang:num_queue_reqs", "The number of requests in the waiting queue.", PAGE_AT(waiting));
    page_const(p, "sglang:num_grammar_queue_reqs", "The number of requests in the grammar waiting queue.", 0);
    page_const(p, "sglang:num_paused_reqs", "The number of paused requests.", 0);
    page_gauge(p, "sglang:num_retracted_reqs", "The number of retracted requests.", PAGE_AT(preemptions));
    page_gauge(p, "sglang:cache_hit_rate", "The prefix cache hit rate.", PAGE_AT(hit_rate));
    page_gauge(p, "sglang:max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.",
               PAGE_AT(max_tokens));
    page_gauge(p, "sglang:kv_available_tokens", "The number of free tokens in the KV cache pool.",
               PAGE_AT(free_tokens));
    page_gauge(p, "sglang:kv_used_tokens", "The number of tokens in use in the KV cache pool.", PAGE_AT(used_tokens));
    page_gauge(p, "sglang:context_len", "The longest context.", PAGE_AT(context));
    cache_config(p);
    if (p->s->opt->role != SIM_UNIFIED)
        pair_gauges(p);
}

static void pair_counters(struct page *p)
{
    const struct disagg *d = &p->s->pd;
    struct {
        const char *name, *help;
        uint64_t v;
    } counters[] = {
        {"sglang:num_bootstrap_failed_reqs_total", "The number of bootstrap failed requests.",
         d->count.bootstrap_failed},
        {"sglang:num_transfer_failed_reqs_total", "The number of transfer failed requests.", d->count.transfer_failed}};
    struct {
        const char *name, *help;
        const struct sim_hist *h;
    } hists[] = {{"sglang:kv_transfer_speed_gb_s", SPEED_HELP "speed in GB/s.", &d->speed},
                 {"sglang:kv_transfer_latency_ms", SPEED_HELP "latency in ms.", &d->latency},
                 {"sglang:kv_transfer_total_mb", SPEED_HELP "size in MB.", &d->volume}};
    for (size_t i = 0; i < ARRAY_LEN(counters); i++) {
        page_head(p, counters[i].name, "counter", counters[i].help);
        page_line(p, counters[i].name, &p->v[0], "", (double)counters[i].v);
    }
    for (size_t i = 0; i < ARRAY_LEN(hists); i++) {
        page_head(p, hists[i].name, "histogram", hists[i].help);
        page_hist_of(p, hists[i].name, &p->v[0], hists[i].h, hists[i].h->n);
    }
}

static void merge(struct sim_hist *to, const struct sim_hist *h)
{
    for (unsigned i = 0; i <= h->n; i++)
        to->count[i] += h->count[i];
    to->bound = h->bound;
    to->n = h->n;
    to->total += h->total;
    to->sum += h->sum;
}

static void front_hist(struct page *p, const struct page_rank *front, const char *name, const char *help, size_t at)
{
    struct sim_hist all = {0};
    for (unsigned i = 0; i < p->n; i++)
        merge(&all, (const void *)((const char *)p->v[i].st + at));
    page_head(p, name, "histogram", help);
    page_hist_of(p, name, front, &all, all.n);
}

static void front_counter(struct page *p, const struct page_rank *front, const char *name, const char *help,
                          const char *mid, double v)
{
    page_head(p, name, "counter", help);
    page_line(p, name, front, mid, v);
}

static void front_end(struct page *p)
{
    struct page_rank front = {.prompt = 0};
    double requests = 0, aborted = 0;
    (void)snprintf(front.after, sizeof(front.after), "model_name=\"%s\"", buf_cstr(&p->model));
    for (unsigned i = 0; i < p->n; i++) {
        front.prompt += p->v[i].prompt;
        front.generation += p->v[i].generation;
        front.cached += p->v[i].cached;
        for (unsigned k = 0; k < FINISH_N; k++)
            requests += (double)p->v[i].st->finished[k];
        aborted += (double)p->v[i].st->finished[FINISH_ABORT];
    }
    front_counter(p, &front, "sglang:prompt_tokens_total", "Number of prefill tokens processed.", "", front.prompt);
    front_counter(p, &front, "sglang:generation_tokens_total", "Number of generation tokens processed.", "",
                  front.generation);
    front_counter(p, &front, "sglang:cached_tokens_total", "Number of cached prompt tokens.",
                  "cache_source=\"device\",", front.cached);
    front_counter(p, &front, "sglang:num_requests_total", "Number of requests processed.", "", requests);
    front_counter(p, &front, "sglang:num_aborted_requests_total", "Number of requests aborted.", "", aborted);
    front_hist(p, &front, "sglang:time_to_first_token_seconds", "Histogram of time to first token in seconds.",
               STATS_AT(ttft));
    front_hist(p, &front, "sglang:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.",
               STATS_AT(itl));
    front_hist(p, &front, "sglang:e2e_request_latency_seconds", "Histogram of end-to-end request latency in seconds.",
               STATS_AT(e2e));
}

void stats_sglang(struct server *s, struct buf *out)
{
    struct page p;
    page_init(&p, s, out);
    labels(&p);
    scheduler(&p);
    if (s->opt->role != SIM_UNIFIED)
        pair_counters(&p);
    front_end(&p);
    page_free(&p);
}
