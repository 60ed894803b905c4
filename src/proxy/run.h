/* proxy/run.h - the runtime that `penstock gateway` and `penstock sandbox` share: log, metrics, configuration store, gateway, reload, signals.
 *
 * Order of use: run_opts_init, fill in, run_new, (sandbox: hooks are set in the options), run_main, run_free. Everything here is the control thread's: the
 * thread that calls run_main runs its loop. The control loop runs in real time (scale 1) whatever gateway_opts.time_scale says.
 *
 * Reload: SIGHUP, a change of the -f paths (polled every 200 ms), or run_reload. Each reads the paths, calls `before_build`, builds a snapshot and applies
 * it; findings go to the log (file, line, object, field) and, with the last report, to run_report. An unreadable path keeps the configuration as it is.
 * SIGTERM, SIGINT: drain, then run_main returns 0; a second signal ends at once. */
#ifndef PROXY_RUN_H
#define PROXY_RUN_H

#include "base/log.h"
#include "conf/conf.h"
#include "proxy/gateway.h"

struct run;
struct run_opts {
    const char *const *paths;       /* -f; borrowed until run_free; may be none when before_build supplies everything */
    size_t n_paths;
    struct gateway_opts gw;
    struct str admin;               /* "127.0.0.1:9090"; "off" or empty: no admin server */
    enum log_level log_level;
    enum log_format log_format;
    const char *record;             /* file that live traffic is recorded to (sched/record.h), or NULL. run_new fails when it cannot be created */
    bool strict_start;              /* run_new fails when the first configuration has errors or no listener */
    /* Admin layer (it is above this one): called by run_new once the gateway runs, and by run_free. NULL: none. -1 with a sentence fails the start. */
    int (*admin_open)(struct run *r, const struct addr *at, struct errbuf *err);
    void (*admin_close)(struct run *r);
    /* Sandbox: called at every reload after the paths were read and before the snapshot is built: look at conf_workloads(run_store(r)), start servers, put
     * their Pods into the store with conf_store_load_text(run_store(r), source, text, rep). -1 fails this reload (err says why). */
    int (*before_build)(struct run *r, struct conf_report *rep, struct errbuf *err);
    void (*applied)(struct run *r);  /* after every applied snapshot, first one included; or NULL */
    void *user;                     /* run_user */
};
void run_opts_init(struct run_opts *o); /* gateway defaults, admin 127.0.0.1:9090, info, logfmt */

/* Sets up log (stderr), SIGPIPE, open-file limit; starts the gateway with the first configuration. NULL with a sentence when that fails. */
struct run *run_new(const struct run_opts *o, struct errbuf *err);
int run_main(struct run *r);   /* until a signal or run_stop and the drain after it; returns the exit code */
void run_stop(struct run *r);  /* as SIGTERM; thread-safe */
void run_free(struct run *r);

/* Re-reads paths, builds, applies. From the control thread (for example the sandbox after a pod came or went: its before_build is called again). */
int run_reload(struct run *r, struct errbuf *err);

struct loop *run_loop(struct run *r);           /* the control loop: other control-thread objects may live on it */
struct conf_store *run_store(struct run *r);
struct gateway *run_gateway(struct run *r);
struct metrics *run_metrics(struct run *r);
const struct conf_report *run_report(struct run *r); /* of the last reload; valid until the next */
const struct run_opts *run_options(const struct run *r);
void *run_user(struct run *r);
void **run_admin_slot(struct run *r);           /* a pointer the admin layer keeps its state in */
uint64_t run_started_us(const struct run *r);   /* clock_us(1) at start */

/* The log's sink and clock, for commands that only log (sim, check). */
void run_log_stderr(enum log_level level, enum log_format format);
/* Raises RLIMIT_NOFILE to its hard limit, ignores SIGPIPE. */
void run_process_setup(void);

#endif
