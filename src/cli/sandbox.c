/* cli/sandbox.c - penstock sandbox: the manifests of a cluster, played on loopback addresses. */
#include "cli/cli.h"

#include "admin/admin.h"
#include "sandbox/sandbox.h"

int cli_sandbox(int argc, char **argv)
{
    struct cli_list files = {0};
    const char *bind = "127.0.0.1", *admin = "127.0.0.1:9090", *control = "127.0.0.1:0", *level = "info",
               *format = "logfmt";
    const char *profile = NULL, *hardware = NULL;
    uint64_t workers = 0, seed = 1, replicas = 0, startup_us = 0;
    double scale = 1;
    bool jitter = false;
    const struct cli_opt opts[] = {
        {"file", 'f', "FILE|DIR", "manifests: YAML or JSON; may be given several times", CLI_LIST, &files},
        {"time-scale", 0, "N", "clocks run N times as fast (1)", CLI_DOUBLE, &scale},
        {"bind", 0, "ADDR", "address of the Gateway listeners (127.0.0.1)", CLI_STR, &bind},
        {"admin", 0, "ADDR:PORT", "metrics, health, debug pages (127.0.0.1:9090); off: none", CLI_STR, &admin},
        {"control", 0, "ADDR:PORT", "faults and captures of the simulated servers (127.0.0.1, any free port)", CLI_STR,
         &control},
        {"workers", 0, "N", "worker threads of the gateway (cores)", CLI_U64, &workers},
        {"log-format", 0, "json|logfmt", "form of the log lines (logfmt)", CLI_STR, &format},
        {"log-level", 0, "LEVEL", "debug, info, warn, error or off (info)", CLI_STR, &level},
        {"seed", 0, "N", "of everything drawn (1; printed)", CLI_U64, &seed},
        {"profile", 0, "NAME", "speed of servers whose command names none; see penstock sim --help", CLI_STR, &profile},
        {"hardware", 0, "GPU", "GPU of servers whose command names none", CLI_STR, &hardware},
        {"replicas", 0, "N", "replicas of every workload, whatever the manifest says", CLI_U64, &replicas},
        {"startup", 0, "DURATION", "time until a new pod is ready (0s)", CLI_DURATION, &startup_us},
        {"jitter", 0, NULL, "step times of the servers vary", CLI_FLAG, &jitter},
        {0}};
    const struct cli_command cmd = {"sandbox -f FILE|DIR [-f ...] [--time-scale N] [--bind ADDR] [OPTION...]",
                                    "Plays the cluster that the manifests describe: a simulated model server for every "
                                    "replica of every workload whose command is one, on\n"
                                    "loopback addresses, and the gateway with the listeners of the manifests. Files "
                                    "are watched; SIGHUP reloads; SIGTERM and SIGINT end it.",
                                    opts};
    struct sandbox_opts o = {0};
    struct addr at;
    run_opts_init(&o.run);
    int rc = cli_parse(&cmd, argc, argv, NULL);
    if (rc == CLI_GO && files.n == 0)
        rc = cli_usage_error(&cmd, "no manifests given (-f FILE|DIR)");
    else if (rc == CLI_GO && !(scale > 0 && scale <= 10000))
        rc = cli_usage_error(&cmd, "--time-scale must be above 0 and at most 10000");
    else if (rc == CLI_GO && (workers > 1024 || replicas > 4000))
        rc = cli_usage_error(&cmd, "--workers or --replicas is out of range");
    else if (rc == CLI_GO && !log_level_parse(str_c(level), &o.run.log_level))
        rc = cli_usage_error(&cmd, "--log-level: \"%s\" is not debug, info, warn, error or off", level);
    else if (rc == CLI_GO && !log_format_parse(str_c(format), &o.run.log_format))
        rc = cli_usage_error(&cmd, "--log-format: \"%s\" is not json or logfmt", format);
    else if (rc == CLI_GO && !addr_parse(str_c(bind), 0, &at))
        rc = cli_usage_error(&cmd, "--bind: \"%s\" is no numeric address", bind);
    else if (rc == CLI_GO && *admin && strcmp(admin, "off") != 0 && !addr_parse_hostport(str_c(admin), 9090, &at))
        rc = cli_usage_error(&cmd, "--admin: \"%s\" is not ADDR:PORT or off", admin);
    else if (rc == CLI_GO && !addr_parse_hostport(str_c(control), 0, &at))
        rc = cli_usage_error(&cmd, "--control: \"%s\" is not ADDR:PORT", control);
    if (rc != CLI_GO) {
        cli_list_free(&files);
        return rc;
    }
    o.run.paths = files.v;
    o.run.n_paths = files.n;
    o.run.admin = str_c(admin);
    o.run.admin_open = admin_run_open;
    o.run.admin_close = admin_run_close;
    o.run.gw.bind = str_c(bind);
    if (workers)
        o.run.gw.workers = (unsigned)workers;
    o.cluster = (struct cluster_opts){.time_scale = scale,
                                      .seed = seed,
                                      .startup_us = startup_us,
                                      .profile = str_c(profile),
                                      .hardware = str_c(hardware),
                                      .replicas = (unsigned)replicas,
                                      .jitter = jitter,
                                      .control = str_c(control)};
    rc = sandbox_main(&o);
    cli_list_free(&files);
    return rc;
}
