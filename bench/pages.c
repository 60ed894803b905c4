/* bench/pages.c - model servers that show their load: N of them on ports of one address, with a metrics page of the
 * size wanted, made like those of the real ones (counts first, many histograms, capacity at the end). A part of
 * bench/scrape.
 *
 * usage: pages ADDR PORT N_PORTS KB vllm|sglang; runs until SIGTERM and then prints one JSON line
 * {"pages","page_bytes"}: how many were asked for */
#include "base/buf.h"
#include "net/httpd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char models[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}";
static struct loop *loop;
static struct buf page;
static uint64_t n_pages;

struct kind {
    const char *name, *prefix, *labels, *first, *last;
};
static const struct kind kinds[] = {
    {"vllm", "vllm:", "engine=\"0\",model_name=\"m\"",
     "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} "
     "0.0\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n"
     "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n",
     "# TYPE vllm:cache_config_info "
     "gauge\nvllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"20546\"} 1.0\n"},
    {"sglang", "sglang:", "engine_type=\"unified\",model_name=\"m\",moe_ep_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\"",
     "sglang:num_running_reqs{engine_type=\"unified\",model_name=\"m\",tp_rank=\"0\"} "
     "0.0\nsglang:token_usage{engine_type=\"unified\",model_name=\"m\",tp_rank=\"0\"} 0.25\n"
     "sglang:num_queue_reqs{engine_type=\"unified\",model_name=\"m\",tp_rank=\"0\"} 0.0\n",
     "# TYPE sglang:max_total_num_tokens "
     "gauge\nsglang:max_total_num_tokens{engine_type=\"unified\",model_name=\"m\",tp_rank=\"0\"} 414008.0\n"
     "# TYPE sglang:page_size gauge\nsglang:page_size{engine_type=\"unified\",model_name=\"m\",tp_rank=\"0\"} 1.0\n"},
};

static void make_page(const struct kind *k, size_t bytes)
{
    static const char *const le[] = {"0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1",
                                     "0.25",  "0.5",   "0.75", "1.0",  "2.5",  "5.0",  "7.5",  "10.0"};
    static const char *const names[] = {"time_to_first_token", "inter_token_latency", "e2e_request_latency",
                                        "request_queue_time", "prompt_tokens"};
    buf_init(&page, bytes + 65536);
    buf_add_str(&page, str_c(k->first));
    for (size_t h = 0; page.n + strlen(k->last) < bytes; h++) {
        const char *name = names[h % ARRAY_LEN(names)];
        buf_addf(&page, "# HELP %s%s_%zu_seconds Histogram of a time.\n# TYPE %s%s_%zu_seconds histogram\n", k->prefix,
                 name, h, k->prefix, name, h);
        for (size_t i = 0; i < ARRAY_LEN(le); i++)
            buf_addf(&page, "%s%s_%zu_seconds_bucket{le=\"%s\",%s} %zu.0\n", k->prefix, name, h, le[i], k->labels,
                     i * 57);
    }
    buf_add_str(&page, str_c(k->last));
    CHECK(!page.overflow);
}

static void handle(void *ctx, struct httpd_req *rq)
{
    (void)ctx;
    if (str_eq(rq->head->path, STR("/metrics"))) {
        n_pages++;
        httpd_respond(rq, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, buf_str(&page));
    } else if (str_eq(rq->head->path, STR("/v1/models"))) {
        httpd_respond(rq, 200, "application/json", NULL, str_c(models));
    } else {
        httpd_respond(rq, 404, "text/plain", NULL, STR_NULL);
    }
}

static void on_term(int sig)
{
    (void)sig;
    loop_stop(loop);
}

int main(int argc, char **argv)
{
    struct errbuf err;
    const struct kind *k = kinds;
    while (argc == 6 && k < kinds + ARRAY_LEN(kinds) && strcmp(k->name, argv[5]) != 0)
        k++;
    int port = argc == 6 ? atoi(argv[2]) : 0, n = argc == 6 ? atoi(argv[3]) : 0, kb = argc == 6 ? atoi(argv[4]) : 0;
    if (argc != 6 || k == kinds + ARRAY_LEN(kinds) || port < 1 || n < 1 || port + n > 65536 || kb < 1 || kb > 10240) {
        fprintf(stderr, "usage: pages ADDR PORT N_PORTS KB vllm|sglang\n");
        return 2;
    }
    make_page(k, (size_t)kb * 1024);
    loop = loop_new(1);
    for (int i = 0; i < n; i++) {
        struct addr at;
        if (!addr_parse(str_c(argv[1]), (uint16_t)(port + i), &at) ||
            !httpd_open(loop, &at, 65536, handle, NULL, &err)) {
            fprintf(stderr, "pages: cannot listen on %s:%d\n", argv[1], port + i);
            return 1;
        }
    }
    signal(SIGTERM, on_term);
    loop_run(loop);
    printf("{\"pages\":%llu,\"page_bytes\":%zu}\n", (unsigned long long)n_pages, page.n);
    loop_free(loop);
    buf_free(&page);
    return 0;
}
