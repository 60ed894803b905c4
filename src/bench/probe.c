/* bench/probe.c - a blocking GET on the small client of net, and what is asked with it. */
#include "bench/probe.h"

#include "api/api.h"
#include "net/httpc.h"

#include <stdio.h>
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

unsigned probe_get(const struct probe_url *u, struct str target, struct str headers, uint64_t timeout_us,
                   struct buf *out, struct errbuf *err)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), STR_FMT STR_FMT, STR_ARG(u->path), STR_ARG(target));
    CHECK(n > 0);
    return httpc_get(&u->to, str_c(u->host), str_first(str_c(line), sizeof(line)), headers, timeout_us, out, err);
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

static void keep_first(void *ctx, struct str id, bool adapter)
{
    char **first = ctx;
    (void)adapter;
    if (!*first)
        *first = str_dup(id);
}

char *probe_first_model(struct str json)
{
    char *first = NULL;
    return api_models_each(json, keep_first, &first) == 0 ? first : NULL;
}
