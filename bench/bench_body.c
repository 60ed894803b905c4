/* Body scanner: scan + UTF-8 check + duplicate-key rule + prefix hashes of a chat body, by kind of text.
 * Prints GB/s of body per kind, best of several rounds, CPU time. Targets: 3 GB/s with an escape every 200 bytes, 0.6
 * with one every 8. Then the pieces of the bodies of prefill/decode legs. */
#include "api/api.h"
#include "base/rng.h"
#include "core/prefix_hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum text_kind { PLAIN, ESC_200, ESC_200_RANDOM, ESC_8, ESC_8_RANDOM, CHINESE, FRENCH, N_KINDS };
static const char *const kind_names[N_KINDS] = {
    "plain",          "escape every 200",          "escape every 200 on average",
    "escape every 8", "escape every 8 on average", "chinese",
    "french"};

static void add_text(struct buf *b, struct rng *r, enum text_kind kind, size_t n)
{
    static const char *const escapes[] = {"\\n", "\\n", "\\\"", "\\\"", "\\t", "\\\\", "\\u00e9"};
    static const char *const han[] = {"中", "文", "的", "一", "是", "，", "在", "不", "了", "。", "人", "有"};
    size_t end = b->n + n, since = 0;
    while (b->n < end) {
        size_t every = kind == ESC_200 || kind == ESC_200_RANDOM ? 200 : kind == ESC_8 || kind == ESC_8_RANDOM ? 8 : 0;
        bool random = kind == ESC_200_RANDOM || kind == ESC_8_RANDOM;
        const char *s = NULL;
        if (every && (random ? rng_below(r, every) == 0 : ++since % every == 0))
            s = random ? escapes[rng_below(r, ARRAY_LEN(escapes))] : "\\n";
        else if (kind == CHINESE)
            s = han[rng_below(r, ARRAY_LEN(han))];
        else if (kind == FRENCH && rng_below(r, 12) == 0)
            s = rng_below(r, 2) ? "é" : "à";
        char c[2] = {(char)(rng_below(r, 6) ? 'a' + (char)rng_below(r, 26) : ' '), 0};
        buf_add_str(b, str_c(s ? s : c));
    }
}

/* One long system message, then turns of about 2 KB. */
static void make_body(struct buf *b, enum text_kind kind, size_t n, size_t turn)
{
    struct rng r;
    rng_init(&r, 7);
    buf_clear(b);
    buf_add_str(b, STR("{\"model\":\"Qwen/Qwen3-32B\",\"messages\":[{\"role\":\"system\",\"content\":\""));
    add_text(b, &r, kind, turn);
    for (int i = 0; b->n < n; i++) {
        buf_add_str(b, i % 2 ? STR("\"},{\"role\":\"assistant\",\"content\":\"")
                             : STR("\"},{\"role\":\"user\",\"content\":\""));
        add_text(b, &r, kind, turn);
    }
    buf_add_str(b, STR("\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":256,"
                       "\"temperature\":0.7}"));
}

/* A coding agent: turns of tool calls (JSON in a JSON string) and their results, and 20 KB of tools behind the
 * messages. */
static void make_agent_body(struct buf *b, size_t n)
{
    struct rng r;
    rng_init(&r, 9);
    buf_clear(b);
    buf_add_str(b, STR("{\"messages\":[{\"role\":\"system\",\"content\":\""));
    add_text(b, &r, ESC_200_RANDOM, 8000);
    buf_add_str(b, STR("\"}"));
    for (int i = 0; b->n < n - 20000; i++) {
        buf_addf(b,
                 ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_%d\",\"type\":\"function\","
                 "\"function\":{\"name\":\"edit\",\"arguments\":\"{\\\"path\\\":\\\"src/x.c\\\",\\\"text\\\":\\\"",
                 i);
        add_text(b, &r, ESC_8_RANDOM, 300);
        buf_addf(b, "\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_%d\",\"content\":\"", i);
        add_text(b, &r, ESC_200_RANDOM, 1500);
        buf_add_str(b, STR("\"}"));
    }
    buf_add_str(b, STR("],\"model\":\"Qwen/Qwen3-32B\",\"stream\":true,\"tools\":[{\"type\":\"function\"}"));
    while (b->n < n) {
        buf_add_str(b, STR(",{\"type\":\"function\",\"function\":{\"name\":\"tool\",\"description\":\""));
        add_text(b, &r, ESC_200_RANDOM, 400);
        buf_add_str(
            b, STR("\",\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"},\"line\":"
                   "{\"type\":\"integer\",\"default\":0}},\"required\":[\"path\"]}}}"));
    }
    buf_add_str(b, STR("]}"));
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t once(struct str body, struct buf *scratch, bool hash)
{
    struct api_request rq;
    struct api_error e;
    struct prefix_hashes h;
    uint64_t storage[PREFIX_MAX];
    if (api_parse_request(API_CHAT, body, scratch, &rq, &e)) {
        fprintf(stderr, "bench body refused: %s\n", e.msg);
        exit(1);
    }
    if (!hash)
        return rq.stream_bytes.n;
    prefix_hash(rq.stream_bytes, prefix_seed(rq.model, STR_NULL, rq.cache_salt), 64, 128, true, &h, storage,
                PREFIX_MAX);
    return h.n ? h.h[h.n - 1] : 0;
}

static double rate(struct str body, struct buf *scratch, bool hash)
{
    double best = 0;
    uint64_t sink = 0;
    size_t reps = 1 + 20000000 / body.n;
    for (int round = 0; round < 10; round++) {
        double t = now_s();
        for (size_t i = 0; i < reps; i++)
            sink += once(body, scratch, hash);
        t = now_s() - t;
        best = MAX(best, (double)body.n * (double)reps / t / 1e9);
    }
    __asm__ volatile("" : : "r"(sink));
    return best;
}

/* The body of each leg of a prefill/decode request, cut into pieces; nanoseconds per call. */
static void legs(struct str body, struct buf *scratch)
{
    static const char *const names[] = {"model only", "bootstrap", "nixl prefill", "nixl decode"};
    static const uint64_t rooms[] = {4611686018427387904u};
    struct api_request rq;
    struct api_error e;
    struct buf text;
    struct str pieces[API_PIECES];
    buf_init(&text, 1 << 16);
    if (api_parse_request(API_CHAT, body, scratch, &rq, &e))
        exit(1);
    for (int leg = API_LEG_NONE; leg <= API_LEG_NIXL_DECODE; leg++) {
        struct api_change c = {.leg = (enum api_leg)leg, .model = STR("Qwen/Qwen3-32B-v2"), .rooms = rooms};
        c.bootstrap_host = STR("10.0.0.5");
        c.bootstrap_port = 8998;
        c.kv_transfer_params =
            STR("{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[3,4,5,6]],"
                "\"remote_engine_id\":\"c0ffee-dp0\",\"remote_host\":\"10.0.0.5\",\"remote_port\":5600}");
        double best = 1e9;
        uint32_t n = 0;
        for (int round = 0; round < 10; round++) {
            double t = now_s();
            for (int i = 0; i < 20000; i++)
                n += api_pieces(body, &rq, &c, &text, pieces);
            best = MIN(best, (now_s() - t) / 20000);
        }
        printf("pieces of a body of %zu B, %-12s  %4.0f ns (%u pieces)\n", body.n, names[leg], best * 1e9, n / 200000);
    }
    buf_free(&text);
}

int main(void)
{
    struct buf body, scratch;
    static const size_t sizes[][2] = {{100000, 2000}, {100000, 95000}, {1000, 200}};
    buf_init(&body, 16 << 20);
    buf_init(&scratch, 64 << 20);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (int k = 0; k < N_KINDS; k++) {
            make_body(&body, (enum text_kind)k, sizes[i][0], sizes[i][1]);
            struct str s = buf_str(&body);
            double with = rate(s, &scratch, true), without = rate(s, &scratch, false);
            printf("body %6zu B, turns of %5zu B, %-27s  scan+hash %6.2f GB/s (%7.2f us)  scan %6.2f GB/s\n", s.n,
                   sizes[i][1], kind_names[k], with, (double)s.n / with / 1e3, without);
        }
    }
    make_agent_body(&body, 150000);
    struct str s = buf_str(&body);
    double with = rate(s, &scratch, true), without = rate(s, &scratch, false);
    printf("body %6zu B, agent with tools %21s  scan+hash %6.2f GB/s (%7.2f us)  scan %6.2f GB/s\n", s.n, "", with,
           (double)s.n / with / 1e3, without);
    make_body(&body, PLAIN, 100000, 2000);
    legs(buf_str(&body), &scratch);
    buf_free(&body);
    buf_free(&scratch);
    return 0;
}
