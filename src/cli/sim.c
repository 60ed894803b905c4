/* cli/sim.c - penstock sim: one simulated model server, started with the options of the real one. */
#include "cli/cli.h"

#include "base/log.h"
#include "sim/server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct sim_app {
    struct loop *loop;
    struct server *server;
    struct httpd *control;
    bool exit_on_kill; /* no control address: a kill fault ends the process, as it would the real server */
    bool killed;
};

static struct loop *_Atomic stop_loop;

static void on_signal(int sig)
{
    (void)sig;
    struct loop *l = stop_loop;
    if (l)
        loop_stop(l);
}

static void print_option(void *ctx, const char *name, const char *arg, const char *help)
{
    char left[64];
    (void)snprintf(left, sizeof(left), "--%s%s%s", name, arg ? " " : "", arg ? arg : "");
    fprintf(ctx, "  %-36s %s\n", left, help);
}

static void print_profile(void *ctx, const char *name)
{
    fprintf(ctx, "  %s\n", name);
}

static int help(void)
{
    puts("Usage: penstock sim [MODEL] [OPTION...]\n\n"
         "Plays a model server: its HTTP API, its metrics, its batching, its prefix cache, at the speed of a GPU you "
         "choose. --dialect says whose:\n"
         "vllm, sglang, triton, trtllm. Takes the real one's options, with hyphens or underscores; those without a "
         "meaning here are noted and\n"
         "ignored. Prints its addresses when it listens. SIGTERM and SIGINT end it.\n\nOptions:");
    sim_options_each(print_option, stdout);
    puts("\nProfiles (also <gpu>-<model>-tpN):");
    profile_each(print_profile, stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}

static void note(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "penstock sim: %s\n", text);
}

static void write_line(const char *line, size_t n)
{
    (void)!fwrite(line, 1, n, stderr);
}

static uint64_t wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void on_ready(void *ctx, struct server *s, bool ready)
{
    char at[64];
    (void)ctx;
    (void)addr_format(server_addr(s), at, sizeof(at));
    fprintf(stderr, "penstock sim: %s on http://%s\n", ready ? "listening" : "not ready", at);
    if (ready && server_side_port(s))
        fprintf(stderr, "penstock sim: prompts are handed over at port %u\n", server_side_port(s));
    if (ready && server_metrics_port(s))
        fprintf(stderr, "penstock sim: metrics at port %u\n", server_metrics_port(s));
}

static void on_died(void *ctx, struct server *s)
{
    struct sim_app *a = ctx;
    (void)s;
    fputs("penstock sim: killed by a fault\n", stderr);
    if (a->exit_on_kill) {
        a->killed = true;
        loop_stop(a->loop);
    }
}

static void on_control(void *ctx, struct httpd_req *rq)
{
    struct sim_app *a = ctx;
    if (str_starts(rq->head->path, STR("/sim/")))
        server_control(a->server, rq, str_from(rq->head->path, 5));
    else
        server_error(rq, 404, "NotFoundError", NULL, NULL, "Only /sim/... is served here.");
}

static int open_control(struct sim_app *a, struct str at, struct errbuf *err)
{
    struct addr addr;
    char text[64];
    if (!at.n)
        return 0;
    if (!addr_parse_hostport(at, 0, &addr))
        return err_set(err, "--control: \"" STR_FMT "\" is not ADDR:PORT.", STR_ARG(at));
    a->control = httpd_open(a->loop, &addr, 1u << 20, on_control, a, err);
    if (!a->control)
        return -1;
    (void)addr_format(httpd_addr(a->control), text, sizeof(text));
    fprintf(stderr, "penstock sim: control on http://%s/sim/\n", text);
    return 0;
}

static void print_start(const struct sim_app *a, const struct sim_options *o)
{
    char at[64];
    (void)addr_format(server_addr(a->server), at, sizeof(at));
    fprintf(stderr, "penstock sim: profile %s, %llu tokens of KV cache, seed %llu, time scale %g\n",
            server_profile(a->server), (unsigned long long)server_kv_tokens(a->server), (unsigned long long)o->seed,
            o->time_scale);
    if (!server_ready(a->server))
        fprintf(stderr, "penstock sim: starting on http://%s\n", at);
}

static int serve(const struct sim_options *o)
{
    struct errbuf err;
    struct sim_app a = {.loop = loop_new(o->time_scale), .exit_on_kill = !o->control.n};
    struct server_hooks hooks = {.ready = on_ready, .died = on_died, .ctx = &a};
    int rc = 1;
    stop_loop = a.loop;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_WARN, LOG_LOGFMT, write_line, wall_us); /* what the server warns of */
    a.server = server_new(a.loop, o, &hooks, &err);
    if (a.server && open_control(&a, o->control, &err) == 0) {
        print_start(&a, o);
        loop_run(a.loop);
        rc = a.killed ? 1 : 0;
    } else {
        fprintf(stderr, "penstock sim: %s\n", err.msg);
    }
    stop_loop = NULL;
    server_free(a.server);
    httpd_close(a.control);
    loop_free(a.loop);
    return rc;
}

int cli_sim(int argc, char **argv)
{
    struct sim_options o;
    struct errbuf err;
    size_t n = (size_t)argc - 1;
    struct str *args = xcalloc(n + 1, sizeof(*args));
    for (size_t i = 0; i < n; i++) {
        args[i] = str_c(argv[i + 1]);
        if (str_eq(args[i], STR("--help")) || str_eq(args[i], STR("-h"))) {
            free(args);
            return help();
        }
    }
    sim_options_init(&o);
    o.note = note;
    int rc = 2;
    if (sim_options_parse(&o, args, n, &err) == 0)
        rc = serve(&o);
    else
        fprintf(stderr, "penstock sim: %s\nTry: penstock sim --help\n", err.msg);
    sim_options_free(&o);
    free(args);
    return rc;
}
