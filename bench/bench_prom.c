/* Metrics pages of about 300 KB, as servers with many histogram series print them, in every dialect: GB/s of the whole
 * page in one piece and in pieces of 64, 16 and 1.4 KB; then with the runtime not known, with names of the
 * configuration, and of JSON. The counts come first, capacity at the end, as Python's client prints them. Target: 1
 * GB/s. */
#include "base/buf.h"
#include "core/promtext.h"
#include <stdio.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define MAX_NAMES 6
struct kind {
    const char *what;
    enum prom_dialect dialect;
    const char *prefix, *engine, *model; /* of the filler's names and labels */
    const char *first[MAX_NAMES],
        *last[MAX_NAMES]; /* name, then labels behind those of engine and model; "name|labels" */
};
static const struct kind kinds[] = {
    {"vllm",
     PROM_VLLM,
     "vllm:",
     "engine",
     "model_name",
     {"num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason", "kv_cache_usage_perc"},
     {"lora_requests_info|,max_lora=\"4\",running_lora_adapters=\"sql-a,sql-b\",waiting_lora_adapters=\"\"",
      "cache_config_info|,block_size=\"16\",num_gpu_blocks=\"20546\""}},
    {"sglang",
     PROM_SGLANG,
     "sglang:",
     "dp_rank",
     "model_name",
     {"num_running_reqs", "num_used_tokens", "token_usage", "num_queue_reqs", "num_grammar_queue_reqs"},
     {"num_prefill_bootstrap_queue_reqs", "max_total_num_tokens", "page_size", "num_pages"}},
    {"triton",
     PROM_TRTLLM,
     "nv_trt_llm_",
     "version",
     "model",
     {"request_metrics|,request_type=\"waiting\"", "request_metrics|,request_type=\"scheduled\"",
      "request_metrics|,request_type=\"max\""},
     {"kv_cache_block_metrics|,kv_cache_block_type=\"fraction\"",
      "kv_cache_block_metrics|,kv_cache_block_type=\"tokens_per\"",
      "kv_cache_block_metrics|,kv_cache_block_type=\"max\""}},
    {"trtllm-serve",
     PROM_TRTLLM,
     "trtllm_",
     "rank",
     "model_name",
     {"num_requests_waiting", "num_requests_running", "kv_cache_utilization"},
     {"kv_cache_tokens_per_block", "kv_cache_max_blocks"}},
};

static void gauge(struct buf *b, const struct kind *k, const char *name, int engines)
{
    const char *labels = strchr(name, '|');
    int n = labels ? (int)(labels - name) : (int)strlen(name);
    buf_addf(b, "# HELP %s%.*s Number of requests in model execution batches.\n# TYPE %s%.*s gauge\n", k->prefix, n,
             name, k->prefix, n, name);
    for (int e = 0; e < engines; e++)
        buf_addf(b, "%s%.*s{%s=\"%d\",%s=\"Qwen/Qwen3-32B\"%s} 1.0\n", k->prefix, n, name, k->engine, e, k->model,
                 labels ? labels + 1 : "");
}

static void make_page(struct buf *b, const struct kind *k, size_t n, int engines)
{
    static const char *const le[] = {"0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08",
                                     "0.1",   "0.25",  "0.5",  "0.75", "1.0",  "2.5"};
    static const char *const names[] = {"time_to_first_token", "e2e_request_latency", "inter_token_latency",
                                        "request_prefill_time", "prompt_tokens"};
    for (int i = 0; i < MAX_NAMES && k->first[i]; i++)
        gauge(b, k, k->first[i], engines);
    for (size_t h = 0; b->n < n; h++) {
        const char *name = names[h % ARRAY_LEN(names)];
        buf_addf(b, "# HELP %s%s_%zu_seconds Histogram of a time in seconds.\n# TYPE %s%s_%zu_seconds histogram\n",
                 k->prefix, name, h, k->prefix, name, h);
        for (int e = 0; e < engines; e++)
            for (size_t i = 0; i < ARRAY_LEN(le); i++)
                buf_addf(b, "%s%s_%zu_seconds_bucket{%s=\"%d\",le=\"%s\",%s=\"Qwen/Qwen3-32B\"} %zu.0\n", k->prefix,
                         name, h, k->engine, e, le[i], k->model, i * 57);
    }
    for (int i = 0; i < MAX_NAMES && k->last[i]; i++)
        gauge(b, k, k->last[i], engines);
}

static void make_json(struct buf *b, size_t n)
{
    buf_add_str(b, STR("["));
    for (unsigned i = 0; b->n < n; i++)
        buf_addf(b,
                 "%s{\"iter\":%u,\"numActiveRequests\":5,\"numQueuedRequests\":3,\"numCompletedRequests\":2,"
                 "\"iterLatencyMS\":15.5,\"gpuMemUsage\":4000000000,"
                 "\"kvCacheStats\":{\"cacheHitRate\":0.85,\"maxNumBlocks\":1000,\"freeNumBlocks\":400,"
                 "\"usedNumBlocks\":600,\"tokensPerBlock\":64},"
                 "\"inflightBatchingStats\":{\"numContextRequests\":2,\"numGenRequests\":3,\"numPausedRequests\":1,"
                 "\"numScheduledRequests\":5,\"numCtxTokens\":256}}",
                 i ? "," : "", i);
    buf_add_str(b, STR("]\n"));
}

static double measure(struct str page, const struct prom_spec *spec, size_t step, struct prom *p)
{
    double best = 0;
    for (int round = 0; round < 9; round++) {
        int reps = 100;
        double t0 = now_s();
        for (int i = 0; i < reps; i++) {
            prom_init(p, spec);
            p->stop_early = false;
            for (struct str rest = page; rest.n; rest = str_from(rest, step))
                prom_feed(p, str_first(rest, step));
            prom_end(p);
        }
        double rate = (double)page.n * reps / (now_s() - t0) / 1e9;
        best = MAX(best, rate);
    }
    return best;
}

static void row(const char *what, int engines, struct str page, const struct prom_spec *spec, size_t step)
{
    static struct prom p;
    double rate = measure(page, spec, step, &p);
    printf("prom: %-24s %zu KB page, %d engines, pieces of %zu bytes: %.2f GB/s (%.0f ns per line)\n", what,
           page.n / 1024, engines, MIN(step, page.n), rate, (double)page.n / rate / (double)p.lines);
    CHECK(p.load.has_waiting && p.load.has_kv && p.load.has_blocks && p.bad_lines == 0);
}

int main(void)
{
    static const size_t steps[] = {SIZE_MAX, 64 * 1024, 16 * 1024, 1448};
    struct buf b;
    buf_init(&b, 4 << 20);
    for (const struct kind *k = kinds; k < kinds + ARRAY_LEN(kinds); k++) {
        for (int engines = 1; engines <= 8; engines *= 8) {
            buf_clear(&b);
            make_page(&b, k, 300 * 1024, engines);
            for (size_t i = 0; i < (engines == 1 ? 1 : ARRAY_LEN(steps)); i++)
                row(k->what, engines, buf_str(&b), &(struct prom_spec){.dialect = k->dialect}, steps[i]);
        }
        row(k->what, 8, buf_str(&b), &(struct prom_spec){.detect = true}, 16 * 1024);
        if (k->dialect == PROM_VLLM)
            row("vllm, a name of one's own", 8, buf_str(&b),
                &(struct prom_spec){.waiting = STR("vllm:num_requests_waiting_by_reason{model_name=Qwen/Qwen3-32B}")},
                16 * 1024);
    }
    buf_clear(&b);
    make_json(&b, 300 * 1024);
    row("trtllm-serve, JSON", 1, buf_str(&b), &(struct prom_spec){.dialect = PROM_TRTLLM}, 16 * 1024);
    buf_free(&b);
    return 0;
}
