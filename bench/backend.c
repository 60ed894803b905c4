/* bench/backend.c - the same cheap model server behind every proxy of bench/side-by-side: answers POSTs with a fixed JSON document, streams
 * events at a fixed rate when the path ends in /stream, and knows enough of /metrics and /v1/models for Penstock's scraper.
 *
 * A request that asks for a remote decode (vLLM's NIXL connector) is answered with parameters of the hand-over as well: bench/pd.
 *
 * usage: backend ADDR PORT N_PORTS [events per second of a stream] [events per stream] [requests that its metrics show running]
 * [milliseconds until a whole answer] */
#include "net/httpd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char answer[] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1755000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{"
                             "\"role\":\"assistant\",\"content\":\"Paris is the capital of France.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                             "\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":7,\"prompt_tokens_details\":null}}";
static const char event[] = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1755000000,\"model\":\"m\",\"choices\":[{\"index\":0,"
                            "\"delta\":{\"content\":\" Paris\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char prefilled[] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1755000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{"
                                "\"role\":\"assistant\",\"content\":\"Paris\"},\"logprobs\":null,\"finish_reason\":\"length\"}],"
                                "\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":1,\"prompt_tokens_details\":null},"
                                "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[3,4,5,6]],"
                                "\"remote_engine_id\":\"c0ffee-dp0\",\"remote_request_id\":\"chatcmpl-1-0-ab12\",\"remote_host\":\"127.0.0.1\",\"remote_port\":5600,"
                                "\"tp_size\":1,\"remote_num_tokens\":61}}";
static const char metrics[] = "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} %u.0\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n"
                              "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.1\n"
                              "sglang:num_running_reqs{model_name=\"m\"} %u.0\nsglang:num_queue_reqs{model_name=\"m\"} 0.0\nsglang:token_usage{model_name=\"m\"} 0.1\n";
static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\"}]}";

#define TEXT(array) ((struct str){(array), sizeof(array) - 1})

static struct loop *loop;
static uint64_t gap_us = 20000, delay_us;
static unsigned per_stream = 500, running = 1;

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

struct late { /* a whole answer that takes its time */
    struct timer timer;
    struct httpd_req *rq;
    bool prefill;
    size_t tokens;
};

static void respond(struct httpd_req *rq, bool prefill, size_t tokens)
{
    char text[sizeof prefilled + 64];
    int n = prefill ? snprintf(text, sizeof text, prefilled, tokens, tokens + 1) : snprintf(text, sizeof text, answer, tokens, tokens + 7);
    httpd_respond(rq, 200, "application/json", NULL, (struct str){text, (size_t)n});
}

static void late_free(struct late *l)
{
    timer_stop(loop, &l->timer);
    free(l);
}

static void late_abort(struct httpd_req *rq)
{
    late_free(rq->user);
}

static void late_due(struct timer *t)
{
    struct late *l = CONTAINER_OF(t, struct late, timer);
    l->rq->on_abort = NULL;
    respond(l->rq, l->prefill, l->tokens);
    late_free(l);
}

static void answer_whole(struct httpd_req *rq, bool prefill)
{
    size_t tokens = rq->body.n / 4;
    if (!delay_us) {
        respond(rq, prefill, tokens);
        return;
    }
    struct late *l = xcalloc(1, sizeof *l);
    l->rq = rq;
    l->prefill = prefill;
    l->tokens = tokens;
    l->timer.fn = late_due;
    rq->user = l;
    rq->on_abort = late_abort;
    timer_set(loop, &l->timer, loop_now_us(loop) + delay_us);
}

static void handle(void *ctx, struct httpd_req *rq)
{
    (void)ctx;
    if (str_eq_c(rq->head->path, "/metrics")) {
        char page[sizeof metrics + 32];
        int n = snprintf(page, sizeof page, metrics, running, running);
        httpd_respond(rq, 200, "text/plain", NULL, (struct str){page, (size_t)n});
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
        answer_whole(rq, str_find(rq->body, STR("\"do_remote_decode\":true")) >= 0);
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
    if (argc > 6)
        running = (unsigned)atoi(argv[6]);
    if (argc > 7)
        delay_us = (uint64_t)(1e3 * atof(argv[7]));
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
