/* run.c - the runtime shared by gateway and sandbox: set-up, reload, signals, drain. */
#include "proxy/run.h"

#include "sched/record.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define POLL_US 200000

struct run {
    struct run_opts o;
    struct loop *loop;
    struct metrics *metrics;
    struct record *record;
    struct conf_store *store;
    struct gateway *gw;
    struct conf *conf;
    struct conf_report report;
    void *admin;
    bool admin_open, stopping;
    uint64_t stamp, started_us;
    struct timer poll;
    struct mail drained;
};

/* Signals reach the control loop as mails; posting is lock-free and writes one descriptor, so a handler may do it. */
struct signal_mail {
    struct mail mail;
    atomic_bool posted;
};
static struct run *signal_run;
static struct signal_mail stop_mail, hup_mail;
static atomic_uint stop_signals;

/* --- log and process ----------------------------------------------------------------------------------------- */

static void stderr_sink(const char *line, size_t n)
{
    while (n) {
        ssize_t done = write(STDERR_FILENO, line, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return; /* nobody to tell */
        line += done;
        n -= (size_t)done;
    }
}

static uint64_t wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void run_log_stderr(enum log_level level, enum log_format format)
{
    log_setup(level, format, stderr_sink, wall_us);
}

void run_process_setup(void)
{
    struct rlimit r;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a write error */
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* --- signals ------------------------------------------------------------------------------------------------- */

static void post_signal(struct signal_mail *m)
{
    struct run *r = signal_run;
    if (r && !atomic_exchange(&m->posted, true))
        loop_post(r->loop, &m->mail);
}

static void on_signal(int sig)
{
    int saved = errno;
    if (sig != SIGHUP)
        atomic_fetch_add(&stop_signals, 1);
    post_signal(sig == SIGHUP ? &hup_mail : &stop_mail);
    errno = saved;
}

static void begin_drain(struct run *r)
{
    r->stopping = true;
    timer_stop(r->loop, &r->poll);
    logf_msg(LOG_INFO, "draining: no new connections, requests under way are finished");
    gateway_drain(r->gw);
    gateway_on_drained(r->gw, r->loop, &r->drained);
}

static void on_stop(struct mail *m)
{
    (void)m;
    struct run *r = signal_run;
    atomic_store(&stop_mail.posted, false);
    unsigned asked = atomic_load(&stop_signals); /* two may have come before this was run */
    if (!r->stopping)
        begin_drain(r);
    if (asked < 2)
        return;
    logf_msg(LOG_WARN, "stopping at once");
    loop_stop(r->loop);
}

static void on_hup(struct mail *m)
{
    (void)m;
    struct run *r = signal_run;
    struct errbuf err;
    atomic_store(&hup_mail.posted, false);
    if (!r->stopping)
        run_reload(r, &err);
}

static void on_drained(struct mail *m)
{
    struct run *r = CONTAINER_OF(m, struct run, drained);
    logf_msg(LOG_INFO, "drained");
    loop_stop(r->loop);
}

static void catch_signals(struct run *r)
{
    static const int sigs[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    stop_mail.mail.run = on_stop;
    hup_mail.mail.run = on_hup;
    atomic_store(&stop_signals, 0);
    signal_run = r;
    for (size_t i = 0; i < ARRAY_LEN(sigs); i++)
        sigaction(sigs[i], &sa, NULL);
}

static void release_signals(void)
{
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal_run = NULL;
}

/* --- reload -------------------------------------------------------------------------------------------------- */

static void log_note(const struct conf_note *n)
{
    static const enum log_level levels[] = {
        [CONF_INFO] = LOG_DEBUG, [CONF_WARNING] = LOG_WARN, [CONF_ERROR] = LOG_ERROR};
    struct logline l;
    if (!log_on(levels[n->severity]) || !log_begin(&l, levels[n->severity], "Configuration"))
        return;
    log_str(&l, "text", n->text);
    if (n->object.n)
        log_str(&l, "object", n->object);
    if (n->field.n)
        log_str(&l, "field", n->field);
    log_str(&l, "file", n->file);
    if (n->line) {
        log_u64(&l, "line", n->line);
        log_u64(&l, "column", n->col);
    }
    log_end(&l);
}

static void log_applied(const struct run *r)
{
    struct logline l;
    uint32_t endpoints = 0;
    for (uint32_t i = 0; i < r->conf->n_backends; i++)
        endpoints += r->conf->backends[i].n_endpoints;
    if (!log_begin(&l, LOG_INFO, "Configuration Applied"))
        return;
    log_u64(&l, "generation", r->conf->generation);
    log_u64(&l, "listeners", r->conf->n_listeners);
    log_u64(&l, "backends", r->conf->n_backends);
    log_u64(&l, "endpoints", endpoints);
    log_u64(&l, "errors", r->report.errors);
    log_u64(&l, "warnings", r->report.warnings);
    log_end(&l);
}

static int read_paths(struct run *r, struct conf_report *rep, struct errbuf *err)
{
    if (!r->o.n_paths)
        return 0;
    r->stamp = conf_paths_stamp(r->o.paths, r->o.n_paths); /* before reading: a later change is seen by the next poll */
    if (conf_store_load(r->store, r->o.paths, r->o.n_paths, rep) == 0)
        return 0;
    return err_set(err, "The configuration cannot be read: " STR_FMT ".",
                   STR_ARG(rep->n ? rep->v[rep->n - 1].text : STR("unknown reason")));
}

static int apply_built(struct run *r, struct conf *c, struct errbuf *err)
{
    struct conf *old = r->conf;
    r->conf = c;
    int rc = gateway_apply(r->gw, c, err);
    conf_unref(old);
    return rc;
}

int run_reload(struct run *r, struct errbuf *err)
{
    struct errbuf own;
    struct conf_report rep = {0};
    struct conf *c = NULL;
    err = err ? err : &own;
    err->msg[0] = 0;
    int rc = read_paths(r, &rep, err);
    if (rc == 0 && r->o.before_build)
        rc = r->o.before_build(r, &rep, err);
    if (rc == 0)
        c = conf_build(r->store, r->conf, &rep);
    conf_report_free(&r->report);
    r->report = rep;
    for (uint32_t i = 0; i < rep.n; i++)
        log_note(&rep.v[i]);
    if (c) {
        rc = apply_built(r, c, err);
        log_applied(r);
        if (r->o.applied)
            r->o.applied(r);
    }
    if (rc)
        logf_msg(LOG_ERROR, "%s", err->msg);
    return rc;
}

static void on_poll(struct timer *t)
{
    struct run *r = CONTAINER_OF(t, struct run, poll);
    if (conf_paths_stamp(r->o.paths, r->o.n_paths) != r->stamp)
        run_reload(r, NULL);
    timer_set(r->loop, t, loop_now_us(r->loop) + POLL_US);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

void run_opts_init(struct run_opts *o)
{
    *o = (struct run_opts){.admin = STR("127.0.0.1:9090"), .log_level = LOG_INFO, .log_format = LOG_LOGFMT};
    gateway_opts_init(&o->gw);
}

static int start_admin(struct run *r, struct errbuf *err)
{
    struct addr at;
    if (!r->o.admin_open || !r->o.admin.n || str_eq_c(r->o.admin, "off"))
        return 0;
    if (!addr_parse_hostport(r->o.admin, 9090, &at))
        return err_set(err, "The admin address '" STR_FMT "' is not ADDR:PORT.", STR_ARG(r->o.admin));
    r->admin_open = true;
    int rc = r->o.admin_open(r, &at, err);
    r->admin_open = rc == 0;
    return rc;
}

static int start_record(struct run *r, struct errbuf *err)
{
    struct record_opts o = {.time_scale = r->o.gw.time_scale, .metrics = r->metrics};
    if (!r->o.record)
        return 0;
    r->o.gw.ports.record = r->record = record_open(r->o.record, &o, err);
    return r->record ? 0 : -1;
}

static int start(struct run *r, struct errbuf *err)
{
    if (start_record(r, err))
        return -1;
    r->gw = gateway_start(&r->o.gw, r->metrics, err);
    if (!r->gw)
        return -1;
    catch_signals(r);
    if (run_reload(r, err))
        return -1;
    if (r->o.strict_start && r->report.errors)
        return err_set(err, "The configuration has %u errors.", r->report.errors);
    if (r->o.strict_start && !r->conf->n_listeners)
        return err_set(err, "The configuration opens no listener.");
    if (start_admin(r, err))
        return -1;
    r->poll.fn = on_poll;
    if (r->o.n_paths)
        timer_set(r->loop, &r->poll, loop_now_us(r->loop) + POLL_US);
    return 0;
}

struct run *run_new(const struct run_opts *o, struct errbuf *err)
{
    run_log_stderr(o->log_level, o->log_format);
    run_process_setup();
    struct run *r = xcalloc(1, sizeof *r);
    r->o = *o;
    r->started_us = clock_us(1);
    r->loop = loop_new(1);
    r->metrics = metrics_new(MAX(o->gw.workers, 1u) + 1);
    r->store = conf_store_new();
    r->drained.run = on_drained;
    if (start(r, err)) {
        run_free(r);
        return NULL;
    }
    return r;
}

int run_main(struct run *r)
{
    loop_run(r->loop);
    return 0;
}

void run_stop(struct run *r)
{
    (void)r;
    atomic_fetch_add(&stop_signals, 1);
    post_signal(&stop_mail);
}

void run_free(struct run *r)
{
    if (!r)
        return;
    timer_stop(r->loop, &r->poll);
    if (r->admin_open && r->o.admin_close)
        r->o.admin_close(r);
    gateway_free(r->gw);
    record_close(r->record);
    release_signals();
    conf_unref(r->conf);
    conf_report_free(&r->report);
    conf_store_free(r->store);
    metrics_free(r->metrics);
    loop_free(r->loop);
    free(r);
}

/* --- parts --------------------------------------------------------------------------------------------------- */

struct loop *run_loop(struct run *r)
{
    return r->loop;
}

struct conf_store *run_store(struct run *r)
{
    return r->store;
}

struct gateway *run_gateway(struct run *r)
{
    return r->gw;
}

struct metrics *run_metrics(struct run *r)
{
    return r->metrics;
}

const struct conf_report *run_report(struct run *r)
{
    return &r->report;
}

const struct run_opts *run_options(const struct run *r)
{
    return &r->o;
}

void *run_user(struct run *r)
{
    return r->o.user;
}

void **run_admin_slot(struct run *r)
{
    return &r->admin;
}

uint64_t run_started_us(const struct run *r)
{
    return r->started_us;
}
