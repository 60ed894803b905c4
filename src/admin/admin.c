/* admin/admin.c - the pages of the admin server. */
#include "admin/admin.h"
#include "admin/decisions.h"
#include "admin/endpoints.h"

#include "base/log.h"
#include "conf/conf.h"
#include "net/httpd.h"

#include <stdlib.h>

#define ADMIN_MAX_PAGE (64u << 20) /* bound on a page: 4 000 endpoints with all their series are about 10 MB */

#define TEXT "text/plain; charset=utf-8"

struct admin {
    struct httpd *httpd;
    struct gateway *gateway;
    struct metrics *metrics;
};

struct ask { /* a request for a page, and its answer beside the body */
    const struct h1_head *head;
    const char *content_type; /* the page's, unless it says otherwise */
    const char *headers;      /* or NULL */
};
struct page {
    const char *path, *content_type;
    /* Fills out; returns the status. */
    unsigned (*fill)(struct admin *a, struct ask *ask, struct buf *out);
};

static unsigned page_metrics(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    return metrics_expose(a->metrics, out) ? 200 : 500;
}

static unsigned page_healthz(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    (void)a;
    buf_add_str(out, STR("ok\n"));
    return 200;
}

static unsigned page_readyz(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    if (gateway_ready(a->gateway)) {
        buf_add_str(out, STR("ready\n"));
        return 200;
    }
    buf_add_str(out, ports_ready(gateway_ports(a->gateway))
                         ? STR("not ready: listeners are not open, or the gateway drains\n")
                         : STR("not ready: waiting for a first scrape of every pool\n"));
    return 503;
}

static unsigned page_config(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    struct conf *c = gateway_conf(a->gateway);
    if (!c) {
        buf_add_str(out, STR("{}"));
        return 200;
    }
    conf_json(c, out);
    conf_unref(c);
    return 200;
}

static unsigned page_endpoints(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    struct conf *c = gateway_conf(a->gateway);
    endpoints_json(gateway_ports(a->gateway), c, out);
    conf_unref(c);
    return 200;
}

/* Browsers name the form they want to read; everything else gets JSON. */
static bool wants_html(const struct h1_head *head)
{
    const struct h1_header *h = h1_find(head, H_ACCEPT);
    return h && str_find(h->value, STR("text/html")) >= 0;
}

static unsigned page_decisions(struct admin *a, struct ask *ask, struct buf *out)
{
    struct decisions_query q;
    struct errbuf err;
    ask->headers = "Vary: Accept\r\n";
    if (decisions_query_parse(&q, ask->head->query, &err)) {
        ask->content_type = TEXT;
        buf_addf(out, "%s\n", err.msg);
        return 400;
    }
    if (q.json || (!q.html && !wants_html(ask->head))) {
        decisions_json(gateway_ports(a->gateway), &q, out);
        return 200;
    }
    ask->content_type = "text/html; charset=utf-8";
    ask->headers = "Vary: Accept\r\nX-Content-Type-Options: nosniff\r\n"
                   "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'\r\n";
    decisions_html(gateway_ports(a->gateway), &q, out);
    return 200;
}

static unsigned page_index(struct admin *a, struct ask *ask, struct buf *out);

static const struct page pages[] = {
    {"/", TEXT, page_index},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
    {"/healthz", TEXT, page_healthz},
    {"/readyz", TEXT, page_readyz},
    {"/config", "application/json", page_config},
    {"/debug/endpoints", "application/json", page_endpoints},
    {"/debug/decisions", "application/json", page_decisions},
};

static unsigned page_index(struct admin *a, struct ask *ask UNUSED, struct buf *out)
{
    (void)a;
    buf_add_str(out, STR("penstock " PENSTOCK_VERSION "\n"));
    for (size_t i = 1; i < ARRAY_LEN(pages); i++)
        buf_addf(out, "%s\n", pages[i].path);
    return 200;
}

static void handle(void *ctx, struct httpd_req *rq)
{
    struct admin *a = ctx;
    if (rq->head->method != H1_GET && rq->head->method != H1_HEAD) {
        httpd_respond(rq, 405, TEXT, "Allow: GET, HEAD\r\n", STR("only GET and HEAD\n"));
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (!str_eq_c(rq->head->path, pages[i].path))
            continue;
        struct buf out;
        buf_init(&out, ADMIN_MAX_PAGE);
        struct ask ask = {.head = rq->head, .content_type = pages[i].content_type};
        unsigned status = pages[i].fill(a, &ask, &out);
        if (out.overflow)
            httpd_respond(rq, 500, TEXT, NULL, STR("the page is larger than 64 MB\n"));
        else
            httpd_respond(rq, status, ask.content_type, ask.headers, buf_str(&out));
        buf_free(&out);
        return;
    }
    httpd_respond(rq, 404, TEXT, NULL, STR("no such page; / lists them\n"));
}

static bool is_loopback(const struct addr *at)
{
    char text[64];
    addr_format(at, text, sizeof text);
    return str_starts(str_c(text), STR("127.")) || str_starts(str_c(text), STR("[::1]"));
}

struct admin *admin_open(struct loop *l, const struct addr *at, struct gateway *g, struct metrics *m,
                         struct errbuf *err)
{
    char text[ADDR_TEXT];
    if (addr_port(at) && addr_in_use(at)) { /* never shared silently with another process */
        addr_format(at, text, sizeof text);
        err_set(err, "The admin address %s is already in use by another program.", text);
        return NULL;
    }
    struct admin *a = xcalloc(1, sizeof *a);
    a->gateway = g;
    a->metrics = m;
    a->httpd = httpd_open(l, at, 4096, handle, a, err);
    if (!a->httpd) {
        free(a);
        return NULL;
    }
    if (!is_loopback(at))
        logf_msg(LOG_WARN, "the admin address is reachable from other hosts and asks for no password");
    return a;
}

uint16_t admin_port(const struct admin *a)
{
    return httpd_port(a->httpd);
}

void admin_close(struct admin *a)
{
    if (!a)
        return;
    httpd_close(a->httpd);
    free(a);
}

int admin_run_open(struct run *r, const struct addr *at, struct errbuf *err)
{
    struct admin *a = admin_open(run_loop(r), at, run_gateway(r), run_metrics(r), err);
    *run_admin_slot(r) = a;
    return a ? 0 : -1;
}

void admin_run_close(struct run *r)
{
    admin_close(*run_admin_slot(r));
    *run_admin_slot(r) = NULL;
}
