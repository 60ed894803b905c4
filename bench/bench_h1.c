/* Micro-benchmark of src/http: heads as clients and model servers send them, chunk decoding, SSE feeding. One line per
 * case. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "http/h1.h"
#include "http/sse.h"

static const char request[] = "POST /v1/chat/completions HTTP/1.1\r\n"
                              "Host: gateway.example.com:8080\r\n"
                              "User-Agent: OpenAI/Python 1.54.3\r\n"
                              "Accept: application/json\r\n"
                              "Accept-Encoding: gzip, deflate\r\n"
                              "Connection: keep-alive\r\n"
                              "Content-Type: application/json\r\n"
                              "Authorization: Bearer sk-abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuv\r\n"
                              "X-Request-Id: 0f6c2d1e-6b1b-4a53-9a44-1f2e3d4c5b6a\r\n"
                              "Content-Length: 1024\r\n\r\n";
static const char curl[] = "POST /v1/completions HTTP/1.1\r\n"
                           "Host: localhost:8080\r\n"
                           "User-Agent: curl/7.88.1\r\n"
                           "Accept: */*\r\n"
                           "Content-Type: application/json\r\n"
                           "Content-Length: 95\r\n\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\n"
                               "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                               "server: uvicorn\r\n"
                               "content-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
static const char event[] =
    "data: {\"id\":\"cmpl-0f6c2d1e6b1b4a539a441f2e3d4c5b6a\",\"object\":\"text_completion\",\"created\":784111777,"
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" token\",\"finish_reason\":null}],\"usage\":null}\n\n";

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void bench_head(const char *name, struct str text, bool is_response)
{
    enum { ROUNDS = 500000 };
    static struct h1_head head;
    struct h1_error e;
    double best = 1e9;
    for (unsigned run = 0; run < 5; run++) {
        double start = now_s();
        for (unsigned i = 0; i < ROUNDS; i++) {
            ptrdiff_t n = is_response ? h1_parse_response(text, H1_MAX_HEAD, false, &head, &e)
                                      : h1_parse_request(text, H1_MAX_HEAD, &head, &e);
            CHECK(n == (ptrdiff_t)text.n);
        }
        best = MIN(best, (now_s() - start) / ROUNDS);
    }
    printf("%-28s %4zu bytes %2zu headers %8.1f ns\n", name, text.n, head.n_headers, best * 1e9);
}

/* Fills text with chunks of the given data and the end; returns the length. */
static size_t make_chunks(char *text, size_t cap, struct str data)
{
    size_t n = 0;
    while (n + data.n + 40 < cap) {
        n += (size_t)snprintf(text + n, cap - n, "%zx\r\n", data.n);
        memcpy(text + n, data.p, data.n);
        memcpy(text + n + data.n, "\r\n", 2);
        n += data.n + 2;
    }
    memcpy(text + n, "0\r\n\r\n", 5);
    return n + 5;
}

static void bench_chunks(const char *name, struct str data, bool with_sse)
{
    enum { SIZE = 1 << 20, ROUNDS = 100 };
    char *text = xmalloc(SIZE);
    size_t n = make_chunks(text, SIZE, data), chunks = 0, body = 0;
    struct sse sse;
    double start = now_s();
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct h1_chunked c;
        struct h1_error e;
        struct str in = {text, n}, piece;
        h1_chunked_init(&c);
        sse_init(&sse);
        while (!c.done) {
            ptrdiff_t used = h1_chunked_next(&c, in, &piece, &e);
            CHECK(used > 0);
            if (with_sse)
                sse_feed(&sse, piece);
            chunks += piece.n > 0;
            body += piece.n;
            in = str_from(in, (size_t)used);
        }
    }
    double took = now_s() - start;
    printf("%-28s %8.2f GB/s %8.1f ns per chunk of %zu\n", name, (double)body / took * 1e-9,
           took / (double)chunks * 1e9, data.n);
    free(text);
}

int main(void)
{
    static char big[16384];
    memset(big, 'x', sizeof(big));
    bench_head("request head, SDK", (struct str){request, sizeof(request) - 1}, false);
    bench_head("request head, curl", (struct str){curl, sizeof(curl) - 1}, false);
    bench_head("response head, stream", (struct str){response, sizeof(response) - 1}, true);
    bench_chunks("chunks", (struct str){event, sizeof(event) - 1}, false);
    bench_chunks("chunks and SSE feed", (struct str){event, sizeof(event) - 1}, true);
    bench_chunks("large chunks", (struct str){big, sizeof(big)}, false);
    bench_chunks("large chunks and SSE feed", (struct str){big, sizeof(big)}, true);
    return 0;
}
