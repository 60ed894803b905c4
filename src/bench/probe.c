/* bench/probe.c - a blocking GET on the small client of net, and what is asked with it. */
#include "bench/probe.h"

#include "base/json.h"
#include "net/httpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define POLL_US   200000
#define ANSWER_US 5000000

bool probe_url_parse(const char *text, uint16_t default_port, struct probe_url *out, struct errbuf *err)
{
    struct str s = str_c(text);
    *out = (struct probe_url){0};
    if (str_starts(s, STR("https://")))
        return err_set(err, "%s: TLS is not supported; give an http:// address.", text) == 0;
    if (str_starts(s, STR("http://")))
        s = str_from(s, 7);
    ptrdiff_t slash = str_find(s, STR("/"));
    if (slash >= 0) {
        out->path = str_from(s, (size_t)slash);
        s = str_first(s, (size_t)slash);
        while (out->path.n && out->path.p[out->path.n - 1] == '/')
            out->path.n--;
    }
    if (s.n == 0 || s.n >= sizeof(out->host))
        return err_set(err, "%s: not http://HOST:PORT.", text) == 0;
    memcpy(out->host, s.p, s.n);
    return addr_resolve_hostport(s, default_port, &out->to, err);
}

struct get {
    struct loop *loop;
    struct buf *out;
    unsigned status;
    const char *err;
};

static bool on_body(void *ctx, struct str piece)
{
    struct get *g = ctx;
    return buf_add_str(g->out, piece);
}

static void on_done(void *ctx, unsigned status, const char *err)
{
    struct get *g = ctx;
    g->status = status;
    g->err = err;
    loop_stop(g->loop);
}

static const char *explain(const char *err)
{
    if (strcmp(err, "connect") == 0)
        return "cannot be reached";
    if (strcmp(err, "timeout") == 0)
        return "did not answer in time";
    return strcmp(err, "reset") == 0 ? "closed the connection without an answer" : "did not answer in HTTP";
}

unsigned probe_get(const struct probe_url *u, struct str target, struct str headers, uint64_t timeout_us,
                   struct buf *out, struct errbuf *err)
{
    char line[1024];
    struct get g = {.loop = loop_new(1.0), .out = out};
    struct httpc *h = httpc_new(g.loop, &u->to);
    int n = snprintf(line, sizeof(line), STR_FMT STR_FMT, STR_ARG(u->path), STR_ARG(target));
    CHECK(n > 0);
    struct httpc_call call = {.method = STR("GET"),
                              .target = str_first(str_c(line), sizeof(line)),
                              .host = str_c(u->host),
                              .headers = headers,
                              .timeout_us = timeout_us,
                              .on_body = on_body,
                              .on_done = on_done,
                              .ctx = &g};
    httpc_start(h, &call);
    loop_run(g.loop);
    httpc_free(h);
    loop_free(g.loop);
    if (g.err)
        err_set(err, "The server at %s %s.", u->host, explain(g.err));
    else if (out->overflow)
        err_set(err, "The answer of the server at %s is too long.", u->host);
    return g.err || out->overflow ? 0 : g.status;
}

bool probe_wait(const struct probe_url *u, uint64_t wait_us, struct errbuf *err)
{
    uint64_t until = clock_us(1) + wait_us;
    for (;;) {
        struct buf page;
        buf_init(&page, 16u << 20);
        unsigned status = probe_get(u, STR("/v1/models"), STR_NULL, ANSWER_US, &page, err);
        buf_free(&page);
        if (status)
            return true;
        if (clock_us(1) >= until)
            return false;
        usleep(POLL_US);
    }
}

char *probe_first_model(struct str json)
{
    struct json j;
    json_init(&j, json);
    if (json_next(&j) != JSON_OBJ)
        return NULL;
    while (json_next(&j) == JSON_KEY) {
        if (!str_eq(j.tok, STR("data"))) {
            if (!json_skip(&j))
                return NULL;
            continue;
        }
        if (json_next(&j) != JSON_ARR || json_next(&j) != JSON_OBJ)
            return NULL;
        while (json_next(&j) == JSON_KEY) {
            bool id = str_eq(j.tok, STR("id"));
            if (id && json_next(&j) == JSON_STRING) {
                char *name = str_dup(j.tok);
                name[json_unescape(j.tok, name)] = '\0';
                return name;
            }
            if (id || !json_skip(&j))
                return NULL;
        }
        return NULL;
    }
    return NULL;
}
