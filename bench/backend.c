/* bench/backend.c - the same cheap model server behind every proxy of bench/side-by-side: answers POSTs with a fixed JSON document, streams
 * events at a fixed rate when the path ends in /stream, and knows enough of /metrics and /v1/models for Penstock's scraper.
 *
 * usage: backend ADDR PORT N_PORTS [events per second of a stream] [events per stream] */
#include "net/httpd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char answer[] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1755000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{"
                             "\"role\":\"assistant\",\"content\":\"Paris is the capital of France.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                             "\"usage\":{\"prompt_tokens\":21,\"total_tokens\":28,\"completion_tokens\":7,\"prompt_tokens_details\":null}}";
static const char event[] = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1755000000,\"model\":\"m\",\"choices\":[{\"index\":0,"
                            "\"delta\":{\"content\":\" Paris\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char metrics[] = "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1.0\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n"
                              "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.1\n";
static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\"}]}";

#define TEXT(array) ((struct str){(array), sizeof(array) - 1})

static struct loop *loop;
static uint64_t gap_us = 20000;
static unsigned per_stream = 500;

struct stream {
    struct timer timer;
    struct httpd_req *rq;
    uint64_t due_us;
    unsigned left;
};

static void stream_free(struct stream *s)
{
    timer_stop(loop, &s->timer);
    free(s);
}

static void stream_abort(struct httpd_req *rq)
{
    stream_free(rq->user);
}

static void stream_tick(struct timer *t)
{
    struct stream *s = CONTAINER_OF(t, struct stream, timer);
    if (s->left == 0) {
        struct httpd_req *rq = s->rq;
        rq->on_abort = NULL;
        stream_free(s);
        httpd_chunk(rq, STR("data: [DONE]\n\n"));
        httpd_end(rq);
        return;
    }
    s->left--;
    s->due_us += gap_us;
    timer_set(loop, &s->timer, s->due_us);
    httpd_chunk(s->rq, TEXT(event));
}

static void handle(void *ctx, struct httpd_req *rq)
{
    (void)ctx;
    if (str_eq_c(rq->head->path, "/metrics")) {
        httpd_respond(rq, 200, "text/plain", NULL, TEXT(metrics));
    } else if (str_eq_c(rq->head->path, "/v1/models")) {
        httpd_respond(rq, 200, "application/json", NULL, TEXT(models));
    } else if (str_find(rq->body, STR("\"stream\":true")) >= 0) {
        struct stream *s = xcalloc(1, sizeof *s);
        s->rq = rq;
        s->left = per_stream;
        s->due_us = loop_now_us(loop);
        s->timer.fn = stream_tick;
        rq->user = s;
        rq->on_abort = stream_abort;
        httpd_begin(rq, 200, "text/event-stream; charset=utf-8", NULL);
        stream_tick(&s->timer);
    } else {
        httpd_respond(rq, 200, "application/json", NULL, TEXT(answer));
    }
}

static void on_term(int sig)
{
    (void)sig;
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    if (argc > 4 && atof(argv[4]) > 0)
        gap_us = (uint64_t)(1e6 / atof(argv[4]));
    if (argc > 5)
        per_stream = (unsigned)atoi(argv[5]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_term);
    loop = loop_new(1);
    for (int i = 0; i < atoi(argv[3]); i++) {
        struct addr at;
        struct errbuf err;
        if (!addr_parse(str_c(argv[1]), (uint16_t)(atoi(argv[2]) + i), &at) || !httpd_open(loop, &at, 64u << 20, handle, NULL, &err)) {
            fprintf(stderr, "backend: cannot listen: %s\n", err.msg);
            return 1;
        }
    }
    loop_run(loop);
    return 0;
}
