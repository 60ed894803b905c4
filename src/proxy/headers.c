/* headers.c - heads out: to the endpoint and back to the client, with what is ours, what belongs to one hop, and the
 * route's filters. */
#include "proxy/impl.h"

#include "http/uri.h"

#include <stdio.h>

static bool in_list(const struct str *v, uint32_t n, struct str name)
{
    for (uint32_t i = 0; i < n; i++)
        if (str_ieq(v[i], name))
            return true;
    return false;
}

/* The filter takes the sender's value away: removed or set anew. */
static bool mod_drops(const struct conf_header_mod *m, struct str name)
{
    if (!m)
        return false;
    if (m->n_remove && in_list(m->remove, m->n_remove, name))
        return true;
    for (uint32_t i = 0; i < m->n_set; i++)
        if (str_ieq(m->set[i].name, name))
            return true;
    return false;
}

static bool mod_sets(const struct conf_header_mod *m, struct str name)
{
    for (uint32_t i = 0; m && i < m->n_set; i++)
        if (str_ieq(m->set[i].name, name))
            return true;
    return false;
}

static void put(struct buf *out, struct str name, struct str value)
{
    buf_add_str(out, name);
    buf_add(out, ": ", 2);
    buf_add_str(out, value);
    buf_add(out, "\r\n", 2);
}

/* Framing and hops are ours whatever a filter says. */
static bool filter_may_write(struct str name)
{
    enum h1_name id = h1_name_id(name);
    return id != H_CONTENT_LENGTH && id != H_TRANSFER_ENCODING && id != H_CONNECTION && id != H_EXPECT &&
           id != H_TRAILER && id != H_UPGRADE;
}

static void mod_writes(const struct conf_header_mod *m, struct buf *out)
{
    for (uint32_t i = 0; m && i < m->n_set; i++)
        if (filter_may_write(m->set[i].name))
            put(out, m->set[i].name, m->set[i].value);
    for (uint32_t i = 0; m && i < m->n_add; i++)
        if (filter_may_write(m->add[i].name))
            put(out, m->add[i].name, m->add[i].value);
}

/* --- request ------------------------------------------------------------------------------------------------- */

/* Names with which a client could steer the picker or the servers. */
static bool is_control(struct str name)
{
    static const struct str names[] = {{"x-gateway-inference-", 20},           {"x-gateway-model-name", 20},
                                       {"x-gateway-destination-endpoint", 30}, {"x-llm-d-inference-objective", 27},
                                       {"x-llm-d-inference-fairness-id", 29},  {"x-penstock-queue-", 17},
                                       {"x-prefiller-host-port", 21}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (name.n >= names[i].n && str_ieq(str_first(name, names[i].n), names[i]))
            return true;
    return false;
}

static bool passes(const struct h1_head *head, const struct h1_header *h)
{
    switch (h->id) {
    case H_CONTENT_LENGTH:
    case H_EXPECT:
    case H_HOST:
    case H_X_FORWARDED_FOR:
    case H_X_REQUEST_ID:
    case H_X_GATEWAY_MODEL_NAME:
    case H_X_GATEWAY_DESTINATION:
        return false;
    case H_UNKNOWN:
        return !(h->name.n > 2 && (h->name.p[0] | 0x20) == 'x' && is_control(h->name)) && !h1_hop_by_hop(head, h);
    default:
        return !h1_hop_by_hop(head, h);
    }
}

/* An answer that is read here must not be compressed. */
static bool held_back(const struct request *rq, const struct h1_header *h)
{
    return rq->pd && rq->pd->plain_answer && h->id == H_UNKNOWN && str_ieq(h->name, STR("accept-encoding"));
}

static struct str peer_ip(const struct client *c, char out[64])
{
    size_t n = addr_format(conn_peer(c->conn), out, 64);
    while (n && out[n - 1] != ':')
        n--;
    struct str ip = {out, n ? n - 1 : 0};
    if (ip.n > 2 && ip.p[0] == '[')
        ip = (struct str){ip.p + 1, ip.n - 2};
    return ip;
}

static void put_forwarded_for(struct request *rq, struct buf *out)
{
    char text[64];
    buf_add_str(out, STR("X-Forwarded-For: "));
    for (size_t i = 0; i < rq->head->n_headers; i++) {
        const struct h1_header *h = &rq->head->headers[i];
        if (h->id != H_X_FORWARDED_FOR || !h->value.n)
            continue;
        buf_add_str(out, h->value);
        buf_add_str(out, STR(", "));
    }
    buf_add_str(out, peer_ip(rq->c, text));
    buf_add_str(out, STR("\r\n"));
}

static struct str new_request_id(struct request *rq)
{
    uint64_t a = rng_u64(&rq->w->ids), b = rng_u64(&rq->w->ids); /* the form of a UUID of version 4 */
    return str_c(arena_printf(&rq->arena, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(a >> 32),
                              (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
                              (unsigned)(0x8000 | (b >> 48 & 0x3fff)), (unsigned long long)(b & 0xffffffffffffull)));
}

void headers_request_id(struct request *rq)
{
    const struct h1_header *h = h1_find(rq->head, H_X_REQUEST_ID);
    bool good = h && h->value.n && h->value.n <= 256 && !h1_hop_by_hop(rq->head, h);
    if (!rq->request_id.n) /* the legs of a request have the same */
        rq->request_id = good ? h->value : new_request_id(rq);
}

static void put_request_id(struct request *rq, const struct conf_header_mod *mod, struct buf *out)
{
    headers_request_id(rq);
    if (!mod_drops(mod, STR("x-request-id")))
        put(out, STR("X-Request-Id"), rq->request_id);
}

struct str headers_replace_prefix(struct arena *a, struct str path, struct str prefix, struct str replacement)
{
    if (prefix.n && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    if (replacement.n && replacement.p[replacement.n - 1] == '/')
        replacement.n--;
    struct str rest = str_from(path, prefix.n);
    char *p = arena_printf(a, STR_FMT STR_FMT, STR_ARG(replacement), STR_ARG(rest));
    return *p ? str_c(p) : STR("/");
}

static struct str new_path(struct request *rq, int type, struct str path)
{
    if (type == PATH_FULL)
        return path;
    if (type == PATH_PREFIX && rq->match->path_type == MATCH_PREFIX)
        return headers_replace_prefix(&rq->arena, rq->path, rq->match->path, path);
    return rq->path;
}

static bool has_length(const struct request *rq, uint64_t content_length)
{
    enum h1_method m = rq->head->method;
    return content_length || m == H1_POST || m == H1_PUT || m == H1_PATCH || rq->head->framing != H1_BODY_NONE;
}

/* A client of HTTP/1.0 may have named no host; the request we send must. */
static struct str host_out(const struct request *rq)
{
    const struct conf_rewrite *rw = rq->rule->rewrite;
    if (rw && rw->hostname.n)
        return rw->hostname;
    return rq->head->host.n ? rq->head->host : str_c(port_name(rq->backend->port));
}

/* Triton has the model's name in the path. */
static struct str with_target(struct request *rq, struct str path)
{
    struct str model = api_path_model(rq->kind, path);
    if (!model.n || str_eq(rq->model, rq->target))
        return path;
    struct str head = str_first(path, (size_t)(model.p - path.p)), tail = str_from(path, head.n + model.n);
    char *out = arena_alloc(&rq->arena, head.n + 3 * rq->target.n + tail.n + 1);
    memcpy(out, head.p, head.n);
    size_t n = head.n + uri_escape_segment(rq->target, out + head.n);
    memcpy(out + n, tail.p, tail.n);
    return (struct str){out, n + tail.n};
}

struct str headers_path(struct request *rq)
{
    const struct conf_rewrite *rw = rq->rule->rewrite;
    return with_target(rq, rw ? new_path(rq, rw->path_type, rw->path) : rq->path);
}

struct str headers_request(struct request *rq, uint64_t content_length)
{
    const struct h1_head *head = rq->head;
    const struct conf_header_mod *mod = rq->rule->req_mod;
    struct buf *out = &rq->w->text;
    buf_clear(out);
    buf_add_str(out, head->method_str);
    buf_add(out, " ", 1);
    buf_add_str(out, headers_path(rq));
    if (head->query.p) {
        buf_add(out, "?", 1);
        buf_add_str(out, head->query);
    }
    buf_add_str(out, STR(" HTTP/1.1\r\n"));
    if (!mod_sets(mod, STR("host")))
        put(out, STR("Host"), host_out(rq));
    for (size_t i = 0; i < head->n_headers; i++)
        if (passes(head, &head->headers[i]) && !held_back(rq, &head->headers[i]) &&
            !mod_drops(mod, head->headers[i].name))
            put(out, head->headers[i].name, head->headers[i].value);
    put_request_id(rq, mod, out);
    put_forwarded_for(rq, out);
    if (rq->model.n && h1_valid_header_value(rq->model))
        put(out, STR("X-Gateway-Model-Name"), rq->model);
    mod_writes(mod, out);
    if (has_length(rq, content_length))
        buf_addf(out, "Content-Length: %llu\r\n", (unsigned long long)content_length);
    buf_add_str(out, STR("\r\n"));
    return buf_str(out);
}

/* --- response ------------------------------------------------------------------------------------------------ */

static void put_status(struct buf *out, const struct h1_head *head)
{
    char line[16] = "HTTP/1.1 000 ";
    line[9] = (char)('0' + head->status / 100 % 10);
    line[10] = (char)('0' + head->status / 10 % 10);
    line[11] = (char)('0' + head->status % 10);
    buf_add(out, line, 13);
    buf_add_str(out, head->reason);
    buf_add(out, "\r\n", 2);
}

struct str headers_response(struct request *rq, const struct h1_head *head)
{
    const struct conf_header_mod *mod = rq->rule ? rq->rule->resp_mod : NULL;
    struct buf *out = &rq->w->text;
    buf_clear(out);
    put_status(out, head);
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct h1_header *h = &head->headers[i];
        if (h->id == H_CONTENT_LENGTH && head->status == 204)
            continue; /* RFC 9110 8.6 */
        if (!h1_hop_by_hop(head, h) && !mod_drops(mod, h->name))
            put(out, h->name, h->value);
        else if (h->id == H_CONTENT_LENGTH && rq->framing == H1_BODY_LENGTH)
            put(out, h->name, h->value); /* no filter may take the framing away */
    }
    mod_writes(mod, out);
    if (rq->mode == RELAY_ENCHUNK || (rq->mode == RELAY_RAW && rq->framing == H1_BODY_CHUNKED))
        buf_add_str(out, STR("Transfer-Encoding: chunked\r\n"));
    if (!rq->client_keep)
        buf_add_str(out, STR("Connection: close\r\n"));
    else if (rq->http10)
        buf_add_str(out, STR("Connection: keep-alive\r\n"));
    buf_add_str(out, STR("\r\n"));
    return buf_str(out);
}

/* --- redirect ------------------------------------------------------------------------------------------------ */

struct str headers_location(struct request *rq, const struct conf_redirect *rd)
{
    struct str scheme = rd->scheme.n ? rd->scheme : STR("http");
    struct str host = rd->hostname.n ? rd->hostname : rq->host;
    unsigned port = rd->port;
    if (!port) /* Gateway API: a scheme brings its own port; else that of the listener */
        port = rd->scheme.n ? (str_eq(scheme, STR("https")) ? 443 : 80) : rq->listener->port;
    bool usual = (port == 80 && str_eq(scheme, STR("http"))) || (port == 443 && str_eq(scheme, STR("https")));
    struct str path = new_path(rq, (int)rd->path_type, rd->path);
    char number[8] = "";
    if (!usual)
        snprintf(number, sizeof number, ":%u", port & 0xffff);
    return str_c(arena_printf(&rq->arena, STR_FMT "://" STR_FMT "%s" STR_FMT "%s" STR_FMT, STR_ARG(scheme),
                              STR_ARG(host), number, STR_ARG(path), rq->head->query.p ? "?" : "",
                              STR_ARG(rq->head->query)));
}
