/* errors.c - answers of the gateway's own: the error object the client's SDK understands, with the headers that tell it
 * what to do. */
#include "proxy/impl.h"

static const struct advice {
    const char *code;
    unsigned retry_after_s;
    bool no_retry; /* SDKs try 5xx again by themselves: here that cannot help */
    const char *param;
} advices[] = {
    {"body_memory", 2, false, NULL},       {"upstream_unavailable", 1, false, NULL},
    {"endpoint_ejected", 1, false, NULL},  {"upstream_crashed", 0, true, NULL},
    {"gateway_exhausted", 2, false, NULL}, {"gateway_stopping", 1, false, NULL},
    {"backend_unresolved", 0, true, NULL}, {"not_implemented", 0, true, NULL},
    {"http_version", 0, true, NULL},       {"model_not_found", 0, true, "model"},
};

static const struct advice *find_advice(const char *code)
{
    for (size_t i = 0; i < ARRAY_LEN(advices); i++)
        if (!strcmp(advices[i].code, code))
            return &advices[i];
    return NULL;
}

void errors_write(struct client *c, enum api_kind kind, bool to_head, bool keep, unsigned status, const char *code,
                  struct str message)
{
    struct worker *w = c->w;
    const struct advice *a = find_advice(code);
    struct buf *body = &w->text, *out = &w->out;
    buf_clear(body);
    api_error_body(body, kind, status, code, a ? a->param : NULL, message);
    buf_clear(out);
    buf_addf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n", status,
             h1_reason(status), worker_date(w), body->n);
    unsigned retry_after_s = c->rq && c->rq->retry_after_s ? c->rq->retry_after_s : a ? a->retry_after_s : 0;
    if (retry_after_s)
        buf_addf(out, "Retry-After: %u\r\n", retry_after_s);
    if (a && a->no_retry)
        buf_add_str(out, STR("x-should-retry: false\r\n"));
    if (status == 405)
        buf_add_str(out, STR("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"));
    buf_addf(out, "%s\r\n",
             keep ? (c->rq && c->rq->http10 ? "Connection: keep-alive\r\n" : "") : "Connection: close\r\n");
    if (!to_head)
        buf_add_str(out, buf_str(body));
    conn_write_str(c->conn, buf_str(out));
}
