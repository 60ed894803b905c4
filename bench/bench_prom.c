/* Metrics page of about 300 KB, as a v1 server with many histogram series prints it: GB/s of the whole page and with
 * early stop allowed, in one piece and in pieces of 16 KB. Target: 1 GB/s. */
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

static void gauge(struct buf *b, const char *name, int engines)
{
    buf_addf(b, "# HELP vllm:%s Number of requests in model execution batches.\n# TYPE vllm:%s gauge\n", name, name);
    for (int e = 0; e < engines; e++)
        buf_addf(b, "vllm:%s{engine=\"%d\",model_name=\"Qwen/Qwen3-32B\"} 0.25\n", name, e);
}

static void make_page(struct buf *b, size_t n, int engines)
{
    static const char *const le[] = {"0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08",
                                     "0.1",   "0.25",  "0.5",  "0.75", "1.0",  "2.5"};
    gauge(b, "num_requests_running", engines);
    gauge(b, "num_requests_waiting", engines);
    gauge(b, "num_requests_waiting_by_reason", engines);
    gauge(b, "kv_cache_usage_perc", engines);
    for (int h = 0; b->n < n; h++) {
        buf_addf(b,
                 "# HELP vllm:histogram_%d_seconds Histogram of time to first token in seconds.\n# TYPE "
                 "vllm:histogram_%d_seconds histogram\n",
                 h, h);
        for (int e = 0; e < engines; e++)
            for (size_t i = 0; i < ARRAY_LEN(le); i++)
                buf_addf(
                    b,
                    "vllm:histogram_%d_seconds_bucket{engine=\"%d\",le=\"%s\",model_name=\"Qwen/Qwen3-32B\"} %zu.0\n",
                    h, e, le[i], i * 57);
    }
    buf_addf(b, "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"sql-a,sql-b\",waiting_lora_adapters="
                "\"\"} 1.7550000001e+09\n");
    buf_addf(b, "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"20546\"} 1.0\n");
}

static double measure(struct str page, size_t step, struct prom *p)
{
    double best = 0;
    for (int round = 0; round < 9; round++) {
        int reps = 200;
        double t0 = now_s();
        for (int i = 0; i < reps; i++) {
            prom_init(p, &(struct prom_spec){.dialect = PROM_VLLM});
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

int main(void)
{
    static struct prom p;
    static const size_t steps[] = {SIZE_MAX, 64 * 1024, 16 * 1024, 1448};
    struct buf b;
    buf_init(&b, 4 << 20);
    for (int engines = 1; engines <= 8; engines *= 8) {
        buf_clear(&b);
        make_page(&b, 300 * 1024, engines);
        for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
            double rate = measure(buf_str(&b), steps[i], &p);
            printf("prom: %zu KB page, %d engines, pieces of %zd bytes: %.2f GB/s (%.0f ns per line)\n", b.n / 1024,
                   engines, steps[i] == SIZE_MAX ? (ssize_t)b.n : (ssize_t)steps[i], rate,
                   (double)b.n / rate / (double)p.lines);
        }
        CHECK(p.load.has_waiting && p.load.has_kv && p.load.kv_tokens == 20546 * 16 && p.load.n_running_lora == 2 &&
              p.bad_lines == 0);
    }
    buf_free(&b);
    return 0;
}
