/* sim/stats.c - the metrics page of a model server, with the names, labels, buckets and number format of vLLM v0 and
 * v1. */
#include "sim/server_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double ttft_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                     1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double token_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                      .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double request_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                        30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double length_bounds[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                       500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
static const double n_bounds[] = {1, 2, 5, 10, 20};
static const double iteration_bounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
/* The histograms of v0 stop earlier. */
#define V0_TTFT  16
#define V0_TOKEN 13
static const double v0_e2e_bounds[] = {1, 2.5, 5, 10, 15, 20, 30, 40, 50, 60};

void stats_init(struct stats *st)
{
    *st = (struct stats){0};
    struct {
        struct sim_hist *h;
        const double *bound;
        unsigned n;
    } all[] = {{&st->ttft, ttft_bounds, ARRAY_LEN(ttft_bounds)},
               {&st->itl, token_bounds, ARRAY_LEN(token_bounds)},
               {&st->tpot, token_bounds, ARRAY_LEN(token_bounds)},
               {&st->e2e, request_bounds, ARRAY_LEN(request_bounds)},
               {&st->queue, request_bounds, ARRAY_LEN(request_bounds)},
               {&st->inference, request_bounds, ARRAY_LEN(request_bounds)},
               {&st->prefill, request_bounds, ARRAY_LEN(request_bounds)},
               {&st->decode, request_bounds, ARRAY_LEN(request_bounds)},
               {&st->prompt, length_bounds, ARRAY_LEN(length_bounds)},
               {&st->generation, length_bounds, ARRAY_LEN(length_bounds)},
               {&st->max_tokens, length_bounds, ARRAY_LEN(length_bounds)},
               {&st->n, n_bounds, ARRAY_LEN(n_bounds)},
               {&st->iteration, iteration_bounds, ARRAY_LEN(iteration_bounds)}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        all[i].h->bound = all[i].bound;
        all[i].h->n = all[i].n;
    }
}

void stats_free(struct stats *st)
{
    for (unsigned i = 0; i < st->n_lora; i++) {
        free(st->lora[i].running);
        free(st->lora[i].waiting);
    }
    st->n_lora = 0;
}

void hist_observe(struct sim_hist *h, double v)
{
    unsigned i = 0;
    while (i < h->n && v > h->bound[i])
        i++;
    h->count[i]++; /* count[n] is the overflow */
    h->total++;
    h->sum += v;
}

/* Names of adapters with requests in one of the two states, joined by commas. */
static void lora_names(struct server *s, bool running, struct buf *out)
{
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++) {
        uint32_t run, wait;
        if (!s->loras[i])
            continue;
        engine_lora(s->engine, i + 1, &run, &wait);
        if ((running ? run : wait) == 0)
            continue;
        if (out->n)
            buf_add_str(out, STR(","));
        buf_add_str(out, s->loras[i]->name);
    }
}

/* Each combination of lists is a series whose value is when it was last current; old ones stay (the oldest goes when
 * there are too many). */
static void lora_step(struct server *s)
{
    struct stats *st = &s->stats;
    struct buf run, wait;
    buf_init(&run, 16384);
    buf_init(&wait, 16384);
    lora_names(s, true, &run);
    lora_names(s, false, &wait);
    const char *r = buf_cstr(&run), *w = buf_cstr(&wait);
    struct lora_series *hit = NULL, *oldest = &st->lora[0];
    for (unsigned i = 0; i < st->n_lora; i++) {
        if (!strcmp(st->lora[i].running, r) && !strcmp(st->lora[i].waiting, w))
            hit = &st->lora[i];
        if (st->lora[i].at < oldest->at)
            oldest = &st->lora[i];
    }
    if (!hit) {
        hit = st->n_lora < LORA_SERIES ? &st->lora[st->n_lora++] : oldest;
        free(hit->running);
        free(hit->waiting);
        *hit = (struct lora_series){.running = str_dup(str_c(r)), .waiting = str_dup(str_c(w))};
    }
    hit->at = wall_seconds();
    buf_free(&run);
    buf_free(&wait);
}

void stats_step(struct server *s)
{
    struct engine_stats es;
    engine_stats(s->engine, false, &es);
    if (es.steps != s->stats.steps_seen) {
        s->stats.steps_seen = es.steps;
        if (es.step_tokens)
            hist_observe(&s->stats.iteration, es.step_tokens);
    }
    if (s->opt->enable_lora)
        lora_step(s);
}

/* A Python float as prometheus_client prints it: shortest text that reads back, always with a fraction, exponents from
 * 10^6 on. */
static void add_float(struct buf *out, double v)
{
    char t[64], *dot;
    if (!isfinite(v)) {
        buf_add_str(out, isnan(v) ? STR("NaN") : v > 0 ? STR("+Inf") : STR("-Inf"));
        return;
    }
    if (v == 0 || (fabs(v) >= 1e-4 && fabs(v) < 1e16)) {
        for (int digits = 1; digits <= 17; digits++) {
            (void)snprintf(t, sizeof(t), "%.*g", digits, v);
            if (strtod(t, NULL) == v)
                break;
        }
        if (strchr(t, 'e')) /* %g prefers exponents too early */
            (void)snprintf(t, sizeof(t), "%.1f", v);
    } else {
        (void)snprintf(t, sizeof(t), "%.17g", v);
    }
    if (!strpbrk(t, ".en"))
        (void)snprintf(t + strlen(t), sizeof(t) - strlen(t), ".0");
    dot = strchr(t, '.');
    if (v > 0 && dot && dot - t > 6 && !strchr(t, 'e')) {
        char m[64];
        size_t whole = (size_t)(dot - t);
        int n = snprintf(m, sizeof(m), "%c.%.*s%s", t[0], (int)whole - 1, t + 1, dot + 1);
        while (n > 1 && (m[n - 1] == '0' || m[n - 1] == '.'))
            n--;
        buf_addf(out, "%.*se+%02zu", n, m, whole - 1);
        return;
    }
    buf_add_str(out, str_c(t));
}

struct page { /* what is being written */
    struct server *s;
    struct buf *out;
    const char *labels; /* `engine="0",model_name="x"` */
    const char *engine; /* `engine="0",` or "" */
};

static void head(struct page *p, const char *name, const char *type, const char *help)
{
    buf_addf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void line(struct page *p, const char *name, double v)
{
    buf_addf(p->out, "%s{%s} ", name, p->labels);
    add_float(p->out, v);
    buf_add_str(p->out, STR("\n"));
}

static void gauge(struct page *p, const char *name, const char *help, double v)
{
    head(p, name, "gauge", help);
    line(p, name, v);
}

/* The wire name of a counter ends in _total, its HELP and TYPE lines too. */
static void counter(struct page *p, const char *name, const char *help, double v)
{
    head(p, name, "counter", help);
    line(p, name, v);
}

/* Labels are in alphabetical order: engine, le, model_name. */
static void histogram(struct page *p, const char *name, const char *help, const struct sim_hist *h, unsigned n)
{
    const char *model = p->labels + strlen(p->engine);
    uint64_t sum = 0;
    head(p, name, "histogram", help);
    for (unsigned i = 0; i < n; i++) {
        sum += h->count[i];
        buf_addf(p->out, "%s_bucket{%sle=\"", name, p->engine);
        add_float(p->out, h->bound[i]);
        buf_addf(p->out, "\",%s} ", model);
        add_float(p->out, (double)sum);
        buf_add_str(p->out, STR("\n"));
    }
    buf_addf(p->out, "%s_bucket{%sle=\"+Inf\",%s} ", name, p->engine, model);
    add_float(p->out, (double)h->total);
    buf_addf(p->out, "\n%s_count{%s} ", name, p->labels);
    add_float(p->out, (double)h->total);
    buf_addf(p->out, "\n%s_sum{%s} ", name, p->labels);
    add_float(p->out, h->sum);
    buf_add_str(p->out, STR("\n"));
}

static void label_value(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n')
            buf_add_str(out, STR("\\n"));
        else if (s.p[i] == '"' || s.p[i] == '\\')
            buf_addf(out, "\\%c", s.p[i]);
        else
            buf_add(out, &s.p[i], 1);
    }
}

static void cache_config(struct page *p)
{
    const struct sim_options *o = p->s->opt;
    head(p, "vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    buf_addf(p->out,
             "vllm:cache_config_info{block_size=\"%u\",cache_dtype=\"auto\",enable_prefix_caching=\"%s\",%sgpu_memory_"
             "utilization=\"%g\","
             "num_cpu_blocks=\"None\",num_gpu_blocks=\"%u\",num_gpu_blocks_override=\"",
             p->s->ep.block_size, o->prefix_caching ? "True" : "False", p->engine,
             o->memory_frac > 0 ? o->memory_frac : 0.9, p->s->ep.n_blocks);
    if (o->n_blocks_override)
        buf_addf(p->out, "%llu", (unsigned long long)o->n_blocks_override);
    else
        buf_add_str(p->out, STR("None"));
    buf_add_str(p->out, STR("\",prefix_caching_hash_algo=\"sha256\",sliding_window=\"None\"} 1.0\n"));
}

static void lora_info(struct page *p)
{
    const struct stats *st = &p->s->stats;
    if (!p->s->opt->enable_lora || st->n_lora == 0)
        return;
    head(p, "vllm:lora_requests_info", "gauge", "Running stats on lora requests.");
    for (unsigned i = 0; i < st->n_lora; i++) {
        buf_addf(p->out, "vllm:lora_requests_info{max_lora=\"%llu\",running_lora_adapters=\"",
                 (unsigned long long)p->s->opt->max_loras);
        label_value(p->out, str_c(st->lora[i].running));
        buf_add_str(p->out, STR("\",waiting_lora_adapters=\""));
        label_value(p->out, str_c(st->lora[i].waiting));
        buf_add_str(p->out, STR("\"} "));
        add_float(p->out, st->lora[i].at);
        buf_add_str(p->out, STR("\n"));
    }
}

static void finished(struct page *p)
{
    static const char *const reasons[FINISH_N] = {"stop", "length", "abort", "error"};
    const char *model = p->labels + strlen(p->engine);
    head(p, "vllm:request_success_total", "counter", "Count of successfully processed requests.");
    for (unsigned i = 0; i < FINISH_N; i++) {
        buf_addf(p->out, "vllm:request_success_total{%sfinished_reason=\"%s\",%s} ", p->engine, reasons[i], model);
        add_float(p->out, (double)p->s->stats.finished[i]);
        buf_add_str(p->out, STR("\n"));
    }
}

static void by_reason(struct page *p, double waiting, double deferred)
{
    const char *name = "vllm:num_requests_waiting_by_reason";
    head(p, name, "gauge", "Number of requests waiting, by reason.");
    for (int i = 0; i < 2; i++) {
        buf_addf(p->out, "%s{%s,reason=\"%s\"} ", name, p->labels, i ? "deferred" : "capacity");
        add_float(p->out, i ? deferred : waiting - deferred);
        buf_add_str(p->out, STR("\n"));
    }
}

/* Average over the last five seconds or more, as v0 logs and shows it. */
static void throughput(struct server *s, const struct engine_stats *es)
{
    struct stats *st = &s->stats;
    uint64_t now = loop_now_us(s->loop);
    if (now - st->window_us < 5000000)
        return;
    double dt = (double)(now - st->window_us) / 1e6;
    st->prompt_rate = (double)(es->prompt_tokens - st->window_prompt) / dt;
    st->generation_rate = (double)(es->generation_tokens - st->window_generation) / dt;
    st->window_us = now;
    st->window_prompt = es->prompt_tokens;
    st->window_generation = es->generation_tokens;
}

struct gauges {
    double running, waiting, deferred, kv;
};

static void v1_page(struct page *p, const struct gauges *g, const struct engine_stats *es, bool old_names)
{
    struct stats *st = &p->s->stats;
    gauge(p, "vllm:num_requests_running", "Number of requests in model execution batches.", g->running);
    gauge(p, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", g->waiting);
    by_reason(p, g->waiting, g->deferred);
    gauge(p, "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", g->kv);
    if (old_names)
        gauge(p, "vllm:gpu_cache_usage_perc",
              "GPU KV-cache usage. 1 means 100 percent usage. DEPRECATED: use kv_cache_usage_perc.", g->kv);
    counter(p, "vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.",
            (double)es->prefix_query_tokens);
    counter(p, "vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.",
            (double)es->prefix_hit_tokens);
    counter(p, "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
            (double)es->preemptions);
    counter(p, "vllm:prompt_tokens_total", "Number of prefill tokens processed.", (double)es->prompt_tokens);
    counter(p, "vllm:generation_tokens_total", "Number of generation tokens processed.", (double)es->generation_tokens);
    finished(p);
    histogram(p, "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", &st->iteration,
              st->iteration.n);
    histogram(p, "vllm:request_prompt_tokens", "Number of prefill tokens processed.", &st->prompt, st->prompt.n);
    histogram(p, "vllm:request_generation_tokens", "Number of generation tokens processed.", &st->generation,
              st->generation.n);
    histogram(p, "vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", &st->max_tokens,
              st->max_tokens.n);
    histogram(p, "vllm:request_params_n", "Histogram of the n request parameter.", &st->n, st->n.n);
    histogram(p, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &st->ttft,
              st->ttft.n);
    histogram(p, "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &st->itl,
              st->itl.n);
    histogram(p, "vllm:request_time_per_output_token_seconds",
              "Histogram of time_per_output_token_seconds per request.", &st->tpot, st->tpot.n);
    histogram(p, "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &st->e2e,
              st->e2e.n);
    histogram(p, "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", &st->queue,
              st->queue.n);
    histogram(p, "vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
              &st->inference, st->inference.n);
    histogram(p, "vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
              &st->prefill, st->prefill.n);
    histogram(p, "vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
              &st->decode, st->decode.n);
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

static void v0_page(struct page *p, const struct gauges *g, const struct engine_stats *es, bool with_common)
{
    struct stats *st = &p->s->stats;
    struct sim_hist e2e = coarser(&st->e2e, v0_e2e_bounds, ARRAY_LEN(v0_e2e_bounds));
    double q = (double)es->prefix_query_tokens;
    throughput(p->s, es);
    if (with_common) {
        gauge(p, "vllm:num_requests_running", "Number of requests currently running on GPU.", g->running);
        gauge(p, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", g->waiting);
        gauge(p, "vllm:gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.", g->kv);
    }
    gauge(p, "vllm:num_requests_swapped", "Number of requests swapped to CPU.", 0);
    gauge(p, "vllm:cpu_cache_usage_perc", "CPU KV-cache usage. 1 means 100 percent usage.", 0);
    gauge(p, "vllm:gpu_prefix_cache_hit_rate", "GPU prefix cache block hit rate.",
          q > 0 ? (double)es->prefix_hit_tokens / q : 0);
    gauge(p, "vllm:cpu_prefix_cache_hit_rate", "CPU prefix cache block hit rate.", 0);
    gauge(p, "vllm:avg_prompt_throughput_toks_per_s", "Average prefill throughput in tokens/s.", st->prompt_rate);
    gauge(p, "vllm:avg_generation_throughput_toks_per_s", "Average generation throughput in tokens/s.",
          st->generation_rate);
    histogram(p, "vllm:time_per_output_token_seconds", "Histogram of time per output token in seconds.", &st->itl,
              V0_TOKEN);
    if (!with_common)
        return;
    counter(p, "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
            (double)es->preemptions);
    counter(p, "vllm:prompt_tokens_total", "Number of prefill tokens processed.", (double)es->prompt_tokens);
    counter(p, "vllm:generation_tokens_total", "Number of generation tokens processed.", (double)es->generation_tokens);
    finished(p);
    histogram(p, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &st->ttft,
              V0_TTFT);
    histogram(p, "vllm:e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.", &e2e,
              e2e.n);
    histogram(p, "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", &st->queue,
              st->queue.n);
    histogram(p, "vllm:request_params_best_of", "Histogram of the best_of request parameter.", &st->n, st->n.n);
    histogram(p, "vllm:request_params_n", "Histogram of the n request parameter.", &st->n, st->n.n);
    cache_config(p);
    lora_info(p);
}

void stats_expose(struct server *s, struct buf *out)
{
    struct engine_stats es;
    engine_stats(s->engine, false, &es);
    struct gauges g = {es.running, es.waiting, es.deferred, es.kv_usage_frac};
    if (s->override.on) {
        g.running = isnan(s->override.running) ? g.running : s->override.running;
        g.waiting = isnan(s->override.waiting) ? g.waiting : s->override.waiting;
        g.deferred = MIN(g.deferred, g.waiting);
        g.kv = isnan(s->override.kv) ? g.kv : s->override.kv;
    }
    struct buf labels;
    buf_init(&labels, 4096);
    bool v0 = s->opt->metrics == SIM_METRICS_V0;
    if (!v0)
        buf_add_str(&labels, STR("engine=\"0\","));
    buf_add_str(&labels, STR("model_name=\""));
    label_value(&labels, s->names[0]);
    buf_add_str(&labels, STR("\""));
    struct page p = {s, out, buf_cstr(&labels), v0 ? "" : "engine=\"0\","};
    if (!v0)
        v1_page(&p, &g, &es, s->opt->metrics != SIM_METRICS_V1);
    if (v0 || s->opt->metrics == SIM_METRICS_BOTH)
        v0_page(&p, &g, &es, v0);
    buf_free(&labels);
}
