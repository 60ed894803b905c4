/* cli/gateway.c - `penstock gateway`: the data plane with its picker, from manifests or from a list of model servers.
 */
#include "admin/admin.h"
#include "cli/cli.h"
#include "proxy/run.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define SOURCE        "--endpoint"
#define MAX_ENDPOINTS 1000
#define MAX_DECISIONS 100000

struct options {
    struct cli_list files, endpoints;
    const char *listen, *policy, *admin, *log_format, *log_level, *bind, *record;
    uint64_t workers, seed, decisions;
    double time_scale;
};

/* --- --endpoint: manifests made of addresses ----------------------------------------------------------------- */

struct target {
    char ip[64];
    unsigned port;
};

/* "http://host:port", path ignored. Names are resolved once, at start. */
static int parse_endpoint(const char *text, struct target *out, struct errbuf *err)
{
    struct str s = str_c(text);
    if (str_starts(s, STR("https://")))
        return err_set(err, "%s: servers behind TLS are not supported yet.", text);
    if (str_starts(s, STR("http://")))
        s = str_from(s, 7);
    ptrdiff_t slash = str_find(s, STR("/"));
    s = slash < 0 ? s : str_first(s, (size_t)slash);
    size_t colon = s.n;
    while (colon && s.p[colon - 1] != ':' && s.p[colon - 1] != ']')
        colon--;
    bool has_port = colon && s.p[colon - 1] == ':';
    uint64_t port = 80;
    if (has_port && (!str_to_u64(str_from(s, colon), &port) || !port || port > 65535))
        return err_set(err, "%s: the port is not a number from 1 to 65535.", text);
    struct str host = has_port ? str_first(s, colon - 1) : s;
    if (host.n > 2 && host.p[0] == '[')
        host = (struct str){host.p + 1, host.n - 2};
    char name[256];
    if (!host.n || host.n >= sizeof name)
        return err_set(err, "%s: not http://HOST:PORT.", text);
    memcpy(name, host.p, host.n);
    name[host.n] = 0;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(name, NULL, &hints, &found);
    if (rc == 0)
        rc = getnameinfo(found->ai_addr, found->ai_addrlen, out->ip, sizeof out->ip, NULL, 0, NI_NUMERICHOST);
    if (found)
        freeaddrinfo(found);
    out->port = (unsigned)port;
    return rc ? err_set(err, "%s: the host cannot be resolved: %s.", text, gai_strerror(rc)) : 0;
}

static void put_ports(struct buf *out, const struct target *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool first = true;
        for (size_t k = 0; k < i; k++)
            first &= v[k].port != v[i].port;
        if (first)
            buf_addf(out, "  - number: %u\n", v[i].port);
    }
}

static void put_pod(struct buf *out, const struct target *t)
{
    char name[64];
    snprintf(name, sizeof name, "%s", t->ip);
    for (char *p = name; *p; p++)
        if (*p == '.' || *p == ':')
            *p = '-';
    buf_addf(out,
             "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: endpoint-%s-%u\n  namespace: default\n  labels:\n    "
             "app: endpoint\n"
             "  annotations:\n    inference.networking.k8s.io/active-ports: \"%u\"\n"
             "status:\n  podIP: \"%s\"\n  phase: Running\n  conditions:\n  - type: Ready\n    status: \"True\"\n",
             name, t->port, t->port, t->ip);
}

static void put_manifests(struct buf *out, const struct target *v, size_t n, unsigned port, const char *policy)
{
    buf_addf(
        out,
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata:\n  name: penstock\n"
        "spec:\n  controllerName: penstock.dev/gateway-controller\n"
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: gateway\n  namespace: "
        "default\n"
        "spec:\n  gatewayClassName: penstock\n  listeners:\n  - name: http\n    protocol: HTTP\n    port: %u\n"
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: all\n  namespace: default\n"
        "spec:\n  parentRefs:\n  - name: gateway\n  rules:\n  - backendRefs:\n    - group: "
        "inference.networking.k8s.io\n"
        "      kind: InferencePool\n      name: endpoints\n"
        "---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata:\n  name: endpoints\n  "
        "namespace: default\n"
        "  annotations:\n    inference.networking.x-k8s.io/routing-strategy: \"%s\"\n"
        "spec:\n  selector:\n    matchLabels:\n      app: endpoint\n  endpointPickerRef:\n    name: none\n    port:\n  "
        "    number: 9002\n"
        "  targetPorts:\n",
        port, policy);
    put_ports(out, v, n);
    for (size_t i = 0; i < n; i++)
        put_pod(out, &v[i]);
}

/* run_opts.before_build: the text is the same at every reload. */
static int load_endpoints(struct run *r, struct conf_report *rep, struct errbuf *err)
{
    const struct buf *text = run_user(r);
    if (!text->n || conf_store_load_text(run_store(r), SOURCE, buf_str(text), rep) == 0)
        return 0;
    return err_set(err, "The list of endpoints cannot be used.");
}

static int endpoint_manifests(const struct options *o, struct run_opts *ro, struct buf *text, struct errbuf *err)
{
    struct addr at;
    static char bind_ip[64];
    if (!o->endpoints.n)
        return 0;
    if (o->endpoints.n > MAX_ENDPOINTS)
        return err_set(err, "More than %d endpoints.", MAX_ENDPOINTS);
    bool ok = o->listen ? addr_parse_hostport(str_c(o->listen), 8080, &at) : addr_parse(str_c(o->bind), 8080, &at);
    CHECK(ok); /* take_options has looked at them */
    struct target *v = xcalloc(o->endpoints.n, sizeof *v);
    int rc = 0;
    for (size_t i = 0; i < o->endpoints.n && rc == 0; i++)
        rc = parse_endpoint(o->endpoints.v[i], &v[i], err);
    if (rc == 0)
        put_manifests(text, v, o->endpoints.n, addr_port(&at), o->policy);
    free(v);
    size_t n = addr_format(&at, bind_ip, sizeof bind_ip);
    while (n && bind_ip[n - 1] != ':')
        n--;
    struct str ip = {bind_ip, n ? n - 1 : 0};
    if (ip.n > 2 && ip.p[0] == '[')
        ip = (struct str){ip.p + 1, ip.n - 2};
    ro->gw.bind = ip;
    return rc;
}

/* --- command ------------------------------------------------------------------------------------------------- */

static int take_options(const struct cli_command *cmd, const struct options *o, struct run_opts *ro)
{
    if (!log_format_parse(str_c(o->log_format), &ro->log_format))
        return cli_usage_error(cmd, "--log-format is json or logfmt, not \"%s\"", o->log_format);
    if (!log_level_parse(str_c(o->log_level), &ro->log_level))
        return cli_usage_error(cmd, "--log-level is debug, info, warn, error or off, not \"%s\"", o->log_level);
    if (strcmp(o->policy, "DEFAULT") != 0 && strcmp(o->policy, "PREFIX_CACHE") != 0)
        return cli_usage_error(cmd, "--policy is DEFAULT or PREFIX_CACHE, not \"%s\"", o->policy);
    if (!o->files.n && !o->endpoints.n)
        return cli_usage_error(cmd, "nothing to serve: give manifests with -f or servers with --endpoint");
    if (!o->workers || o->workers > 256)
        return cli_usage_error(cmd, "--workers is a number from 1 to 256");
    if (o->decisions > MAX_DECISIONS)
        return cli_usage_error(cmd, "--decisions is a number from 0 to %d", MAX_DECISIONS);
    struct addr at;
    if (!addr_parse(str_c(o->bind), 0, &at))
        return cli_usage_error(cmd, "--bind is an IP address, not \"%s\"", o->bind);
    if (o->listen && !addr_parse_hostport(str_c(o->listen), 8080, &at))
        return cli_usage_error(cmd, "--listen is ADDR:PORT, not \"%s\"", o->listen);
    if (*o->admin && strcmp(o->admin, "off") != 0 && !addr_parse_hostport(str_c(o->admin), 9090, &at))
        return cli_usage_error(cmd, "--admin is ADDR:PORT or off, not \"%s\"", o->admin);
    if (!(o->time_scale >= 0.001 && o->time_scale <= 10000))
        return cli_usage_error(cmd, "--time-scale is a number from 0.001 to 10000");
    ro->gw.workers = (unsigned)o->workers;
    ro->gw.seed = o->seed;
    ro->gw.ports.decisions = (uint32_t)o->decisions;
    ro->gw.time_scale = o->time_scale;
    ro->gw.bind = str_c(o->bind);
    ro->admin = str_c(o->admin);
    ro->paths = o->files.v;
    ro->n_paths = o->files.n;
    ro->record = o->record;
    return CLI_GO;
}

static int serve(const struct options *o, struct run_opts *ro)
{
    struct errbuf err = {0};
    struct buf text;
    int rc = 1;
    buf_init(&text, 16 << 20);
    ro->user = &text;
    ro->before_build = load_endpoints;
    ro->admin_open = admin_run_open;
    ro->admin_close = admin_run_close;
    struct run *r = endpoint_manifests(o, ro, &text, &err) == 0 ? run_new(ro, &err) : NULL;
    if (r) {
        rc = run_main(r);
        run_free(r);
    } else {
        fprintf(stderr, "penstock gateway: %s\n", err.msg);
    }
    buf_free(&text);
    return rc;
}

int cli_gateway(int argc, char **argv)
{
    struct run_opts ro;
    run_opts_init(&ro);
    struct options o = {.policy = "PREFIX_CACHE",
                        .admin = "127.0.0.1:9090",
                        .log_format = "logfmt",
                        .log_level = "info",
                        .bind = "0.0.0.0",
                        .workers = ro.gw.workers,
                        .seed = 1,
                        .decisions = ro.gw.ports.decisions,
                        .time_scale = 1};
    const struct cli_opt opts[] = {
        {"file", 'f', "FILE|DIR", "manifests, YAML or JSON, watched for changes; may be given several times", CLI_LIST,
         &o.files},
        {"endpoint", 0, "http://HOST:PORT", "a model server, instead of manifests; may be given several times",
         CLI_LIST, &o.endpoints},
        {"listen", 0, "ADDR:PORT", "where to listen with --endpoint (default port 8080 of --bind)", CLI_STR, &o.listen},
        {"policy", 0, "DEFAULT|PREFIX_CACHE", "routing strategy with --endpoint (default PREFIX_CACHE)", CLI_STR,
         &o.policy},
        {"bind", 0, "ADDR", "address of the listeners (default 0.0.0.0)", CLI_STR, &o.bind},
        {"admin", 0, "ADDR:PORT", "metrics, health, debug; \"off\" for none (default 127.0.0.1:9090)", CLI_STR,
         &o.admin},
        {"workers", 0, "N", "worker threads (default: one per core)", CLI_U64, &o.workers},
        {"log-format", 0, "json|logfmt", "form of the log on stderr (default logfmt)", CLI_STR, &o.log_format},
        {"log-level", 0, "LEVEL", "debug, info, warn, error or off (default info)", CLI_STR, &o.log_level},
        {"seed", 0, "N", "seed of every random choice (default 1)", CLI_U64, &o.seed},
        {"time-scale", 0, "X", "run the clock X times as fast, timeouts included (default 1)", CLI_DOUBLE,
         &o.time_scale},
        {"record", 0, "FILE", "write live traffic to FILE, without its text, for `penstock replay`; FILE must be new", CLI_STR,
         &o.record},
        {"connect-timeout", 0, "DURATION", "connecting to an endpoint (default 2s)", CLI_DURATION,
         &ro.gw.connect_timeout_us},
        {"first-byte-timeout", 0, "DURATION", "first byte of an answer; 0s: only the request's own limit", CLI_DURATION,
         &ro.gw.first_byte_us},
        {"stream-idle-timeout", 0, "DURATION", "silence within an answer; 0s: only the request's own limit (default)",
         CLI_DURATION, &ro.gw.stream_idle_us},
        {"client-stall-timeout", 0, "DURATION", "how long a client may take nothing of its answer (default 5m)",
         CLI_DURATION, &ro.gw.client_stall_us},
        {"request-timeout", 0, "DURATION", "whole request where no policy says otherwise (default 1h)", CLI_DURATION,
         &ro.gw.request_timeout_us},
        {"drain-timeout", 0, "DURATION", "how long SIGTERM waits for requests under way (default 30s)", CLI_DURATION,
         &ro.gw.drain_us},
        {"scrape-interval", 0, "DURATION", "how often a server's metrics are read (default 1s)", CLI_DURATION,
         &ro.gw.ports.scrape_interval_us},
        {"decisions", 0, "N", "latest decisions per pool to keep for /debug/decisions; 0: none (default 1000)", CLI_U64,
         &o.decisions},
        {"degrade-lag", 0, "DURATION",
         "match prefixes less when a worker is busy all the time and so far behind; 0s: never (default 5ms)",
         CLI_DURATION, &ro.gw.degrade_lag_us},
        {0},
    };
    const struct cli_command cmd = {"gateway -f FILE|DIR... | --endpoint http://HOST:PORT... [OPTION...]",
                                    "Routes requests to model servers as the manifests say, or over a plain list of "
                                    "servers. SIGHUP and changed files\n"
                                    "reload the configuration; SIGTERM finishes what is under way and ends.",
                                    opts};
    int rc = cli_parse(&cmd, argc, argv, NULL);
    if (rc == CLI_GO)
        rc = take_options(&cmd, &o, &ro);
    if (rc == CLI_GO)
        rc = serve(&o, &ro);
    cli_list_free(&o.files);
    cli_list_free(&o.endpoints);
    return rc;
}
