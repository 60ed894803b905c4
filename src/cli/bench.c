/* cli/bench.c - penstock bench: a serving benchmark with the options and the report of the engine's own client
 * (reference model-servers.md 6.1). */
#include "cli/bench_opts.h"
#include "cli/cli.h"

#include "base/json.h"
#include "bench/drive.h"
#include "bench/pod_watch.h"
#include "bench/progress.h"
#include "bench/result.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REPORT_MAX    (1u << 30)
#define SPARE_FILES   64 /* descriptors for all but the streams */
#define POD_PERIOD_US 1000000

static struct loop *_Atomic stop_loop;
static volatile sig_atomic_t interrupted;

/* The first one ends the run, the next one the process. */
static void on_signal(int sig)
{
    struct loop *l = stop_loop;
    interrupted = 1;
    signal(sig, SIG_DFL);
    if (l)
        loop_stop(l);
}

struct bench { /* one run of the command */
    struct bench_cli o;
    struct loop *loop;
    struct dataset data;
    struct probe_url target, admin, *pods;
    uint32_t n_pods;
    struct pod_watch *watch;
    struct str models[BENCH_MAX_LORA + 1];
    uint32_t n_models;
    char *first_model;
    struct buf headers, extra;
    char target_path[1024], id_prefix[128], date[32];
    struct drive_result result;
    double cpu_s, real_s;
};

static void note(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("penstock bench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- before the run ---- */

static bool find_target(struct bench *b, struct errbuf *err)
{
    char text[600];
    const struct bench_cli *o = &b->o;
    bool v6 = strchr(o->host, ':') && o->host[0] != '[';
    (void)snprintf(text, sizeof(text), v6 ? "http://[%s]:%u" : "http://%s:%u", o->host, (unsigned)o->port);
    const char *url = o->base_url ? o->base_url : text;
    if (!probe_url_parse(url, 80, &b->target, err))
        return false;
    int n = snprintf(b->target_path, sizeof(b->target_path), STR_FMT "%s%s", STR_ARG(b->target.path),
                     o->endpoint[0] == '/' ? "" : "/", o->endpoint);
    if (n < 0 || (size_t)n >= sizeof(b->target_path) || strpbrk(b->target_path, " \r\n\t"))
        return err_set(err, "\"%s\" is no path of a request.", o->endpoint) == 0;
    return true;
}

static bool find_model(struct bench *b, struct errbuf *err)
{
    struct bench_cli *o = &b->o;
    if (!o->model) {
        struct buf page;
        buf_init(&page, 16u << 20);
        unsigned status = probe_get(&b->target, STR("/v1/models"), buf_str(&b->headers), 10000000, &page, err);
        b->first_model = status == 200 ? probe_first_model(buf_str(&page)) : NULL;
        buf_free(&page);
        if (!b->first_model)
            return status ? err_set(err, "http://%s/v1/models answered %u and names no model: give one with --model.",
                                    b->target.host, status) == 0
                          : false;
        o->model = b->first_model;
        note("model %s (the first of /v1/models)", o->model);
    }
    for (size_t i = 0; i < o->lora.n; i++)
        b->models[b->n_models++] = str_c(o->lora.v[i]);
    if (!b->n_models)
        b->models[b->n_models++] = str_c(o->served_model ? o->served_model : o->model);
    return true;
}

/* Streams at once, as far as the limit of open files allows; it is raised where that may be done. */
static uint32_t open_files(uint32_t wanted)
{
    struct rlimit lim;
    rlim_t need = (rlim_t)wanted + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur >= need)
        return wanted;
    struct rlimit up = {MIN(need, lim.rlim_max), lim.rlim_max};
    if (need > lim.rlim_max) { /* more than allowed: the privileged may */
        struct rlimit more = {need, need};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            return wanted;
    }
    if (setrlimit(RLIMIT_NOFILE, &up) == 0 && up.rlim_cur >= need)
        return wanted;
    (void)getrlimit(RLIMIT_NOFILE, &lim);
    uint32_t can = lim.rlim_cur > SPARE_FILES ? (uint32_t)(lim.rlim_cur - SPARE_FILES) : 1;
    note("only %llu files may be open (ulimit -n, hard limit %llu): at most %u of %u requests run at once, the others "
         "wait in the client",
         (unsigned long long)lim.rlim_cur, (unsigned long long)lim.rlim_max, can, wanted);
    return can;
}

static bool open_pods(struct bench *b, struct errbuf *err)
{
    struct bench_cli *o = &b->o;
    struct str rest = str_c(o->pods);
    const char *admin = o->gateway_admin;
    b->pods = xcalloc(POD_WATCH_MAX, sizeof(*b->pods));
    while (rest.n) {
        const char *comma = memchr(rest.p, ',', rest.n);
        struct str one = str_first(rest, comma ? (size_t)(comma - rest.p) : rest.n);
        char *text = str_dup(one);
        rest = str_from(rest, one.n + 1);
        bool ok = b->n_pods < POD_WATCH_MAX && probe_url_parse(text, 8000, &b->pods[b->n_pods], err);
        b->pods[b->n_pods].path = STR_NULL;
        b->n_pods++;
        free(text);
        if (!ok)
            return false;
    }
    if (admin && !probe_url_parse(admin, 9090, &b->admin, err))
        return false;
    b->admin.path = STR_NULL;
    if (!b->n_pods && !admin)
        return true;
    uint64_t period_us = (uint64_t)(POD_PERIOD_US * MAX(1.0, o->time_scale / 10));
    b->watch = pod_watch_new(b->loop, b->pods, b->n_pods, admin ? &b->admin : NULL, period_us);
    return pod_watch_begin(b->watch, err);
}

static void make_texts(struct bench *b)
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    (void)strftime(b->date, sizeof(b->date), "%Y%m%d-%H%M%S", &tm);
    if (b->o.request_id_prefix)
        (void)snprintf(b->id_prefix, sizeof(b->id_prefix), "%s", b->o.request_id_prefix);
    else
        (void)snprintf(b->id_prefix, sizeof(b->id_prefix), "bench-%08x-",
                       (unsigned)(now.tv_nsec ^ now.tv_sec << 12 ^ getpid()));
}

/* ---- files of results ---- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static char *file_name(const struct bench *b)
{
    const struct bench_cli *o = &b->o;
    char concurrency[40] = "", rate[40] = "inf";
    struct buf name;
    buf_init(&name, 4096);
    if (o->max_concurrency)
        (void)snprintf(concurrency, sizeof(concurrency), "-concurrency%llu", (unsigned long long)o->max_concurrency);
    if (isfinite(o->arrivals.rate))
        (void)snprintf(rate, sizeof(rate), "%g", o->arrivals.rate);
    if (o->result_dir && !(o->result_filename && o->result_filename[0] == '/'))
        buf_addf(&name, "%s/", o->result_dir);
    if (o->result_filename)
        buf_add_str(&name, str_c(o->result_filename));
    else
        buf_addf(&name, "%s-%sqps%s-%s-%s.json", o->label && *o->label ? o->label : o->backend, rate, concurrency,
                 last_part(o->model), b->date);
    char *copy = str_dup(buf_str(&name));
    buf_free(&name);
    return copy;
}

/* Before the run, so that no run is lost for a mistyped directory. */
static bool can_write(const char *path, struct errbuf *err)
{
    const char *slash = strrchr(path, '/');
    struct str dir = slash ? str_first(str_c(path), (size_t)MAX(slash - path, 1)) : STR(".");
    char *copy = str_dup(dir);
    bool ok = access(copy, W_OK | X_OK) == 0;
    int why = errno;
    free(copy);
    return ok || err_set(err, "%s cannot be written: %s.", path, strerror(why)) == 0;
}

static bool check_outputs(const struct bench *b, struct errbuf *err)
{
    const struct bench_cli *o = &b->o;
    bool ok = true;
    if (o->save_result || o->append_result) {
        if (o->result_dir && mkdir(o->result_dir, 0777) != 0 && errno != EEXIST)
            return err_set(err, "%s cannot be made: %s.", o->result_dir, strerror(errno)) == 0;
        char *path = file_name(b);
        ok = can_write(path, err);
        free(path);
    }
    return ok && (!o->plot || can_write(o->plot, err));
}

/* ---- the run ---- */

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void drive_opts(const struct bench *b, uint32_t at_once, struct drive_opts *out)
{
    const struct bench_cli *o = &b->o;
    *out = (struct drive_opts){.to = b->target.to,
                               .host = str_c(b->target.host),
                               .target = str_c(b->target_path),
                               .chat = o->chat,
                               .models = b->models,
                               .n_models = b->n_models,
                               .models_random = o->lora_random,
                               .ignore_eos = o->ignore_eos,
                               .extra = buf_str(&b->extra),
                               .headers = buf_str(&b->headers),
                               .request_id_prefix = str_c(b->id_prefix),
                               .seed = o->data.seed,
                               .max_concurrency = at_once,
                               .max_conversations = (uint32_t)o->max_conversations,
                               .request_timeout_us = o->request_timeout_us,
                               .arrivals = o->arrivals,
                               .progress_us = 1000000};
}

/* The first request again and again; what comes of it is not counted. */
static void warm_up(struct bench *b, const struct drive_opts *o)
{
    uint32_t n = (uint32_t)b->o.num_warmups;
    struct dataset warm = {.common_key = b->data.common_key,
                           .block_key = b->data.block_key,
                           .ids = b->data.ids,
                           .n = n,
                           .n_conversations = n};
    struct drive_opts wo = *o;
    struct drive_result r;
    uint32_t ok = 0;
    warm.v = xcalloc(n, sizeof(*warm.v));
    for (uint32_t i = 0; i < n; i++)
        warm.v[i] = b->data.v[0];
    wo.arrivals.rate = (double)INFINITY;
    wo.arrivals.ramp = RAMP_NONE;
    note("warming up with %u requests", n);
    drive(b->loop, &wo, &warm, &r);
    for (uint32_t i = 0; i < r.n; i++)
        ok += r.samples[i].ok;
    if (ok < n)
        note("%u of %u requests of the warm-up failed", n - ok, n);
    drive_result_free(&r);
    free(warm.v);
}

static bool run(struct bench *b, struct errbuf *err)
{
    struct drive_opts o;
    struct progress progress;
    uint32_t limit = (uint32_t)b->o.max_concurrency;
    uint32_t wanted = MIN(limit ? limit : b->data.n_conversations, b->data.n_conversations);
    uint32_t can = open_files(wanted);
    drive_opts(b, can < wanted ? can : limit, &o);
    if (b->o.num_warmups && !interrupted)
        warm_up(b, &o);
    if (!open_pods(b, err))
        return false;
    if (interrupted)
        return err_set(err, "Interrupted before the run.") == 0;
    progress_init(&progress, b->o.quiet ? NULL : stderr, isatty(2) == 1);
    o.progress_us = (uint64_t)((double)progress_every_us(&progress) * b->o.time_scale);
    o.on_progress = progress_show;
    o.ctx = &progress;
    double cpu = cpu_seconds();
    uint64_t begun = clock_us(1);
    drive(b->loop, &o, &b->data, &b->result);
    b->cpu_s = cpu_seconds() - cpu;
    b->real_s = (double)(clock_us(1) - begun) / 1e6;
    progress_end(&progress);
    if (b->watch)
        pod_watch_end(b->watch);
    return true;
}

/* ---- after the run ---- */

static void describe(const struct bench *b, struct bench_run *r)
{
    const struct bench_cli *o = &b->o;
    *r = (struct bench_run){.date = str_c(b->date),
                            .backend = str_c(o->backend),
                            .model_id = str_c(o->model),
                            .tokenizer_id = str_c(o->tokenizer ? o->tokenizer : o->model),
                            .label = str_c(o->label),
                            .num_prompts = b->data.n,
                            .max_concurrency = (uint32_t)o->max_concurrency,
                            .request_rate = o->arrivals.rate,
                            .burstiness = o->arrivals.burstiness,
                            .n_percentiles = o->n_percentiles,
                            .n_metadata = o->n_metadata,
                            .duration_s = b->result.duration_s,
                            .samples = b->result.samples,
                            .n_samples = b->result.n};
    memcpy(r->show, o->show, sizeof(r->show));
    memcpy(r->percentiles, o->percentiles, sizeof(r->percentiles));
    memcpy(r->slo_ms, o->slo_ms, sizeof(r->slo_ms));
    memcpy(r->metadata, o->metadata, sizeof(r->metadata));
    if (o->per_pod) {
        r->pods = b->result.pods;
        r->n_pods = b->result.n_pods;
    }
}

static void remarks(const struct bench *b)
{
    const struct drive_result *r = &b->result;
    double share = b->real_s > 0 ? b->cpu_s / b->real_s : 0;
    if (interrupted)
        note("interrupted: %u requests were under way, %u had not been sent; the figures are of the %u that ended",
             r->unfinished, r->not_sent, r->n);
    else if (r->not_sent)
        note("%u later turns were not sent, because a turn before them failed", r->not_sent);
    if (r->without_done)
        note("%u streams ended in order, but without [DONE]", r->without_done);
    if (r->reconnects)
        note("%u kept connections had been closed by the server and were opened anew", r->reconnects);
    if (b->o.per_pod && !r->n_pods && !b->watch)
        note("no answer names its pod (x-inference-pod): give --gateway-admin or --pods");
    if (share > 0.9 && b->real_s > 1)
        note("the client itself was busy %.0f %% of the time: what it measured may be its own slowness", 100 * share);
}

static void add_members(struct buf *json, const struct bench *b)
{
    while (json->n && json->p[json->off + json->n - 1] != '}')
        json->n--;
    CHECK(json->n > 1);
    json->n--;
    buf_addf(json, ",\"client_cpu_seconds\":%.3f,\"time_scale\":%g", b->cpu_s, b->o.time_scale);
    if (b->watch) {
        buf_add(json, ",", 1);
        pod_watch_json(b->watch, json);
    }
    buf_add(json, "}\n", 2);
}

static bool save(const struct bench *b, const struct bench_run *r, const struct bench_stats *st)
{
    struct buf json;
    char *path = file_name(b);
    buf_init(&json, REPORT_MAX);
    bench_json(r, st, b->o.save_detailed, &json);
    add_members(&json, b);
    FILE *f = json.overflow ? NULL : fopen(path, b->o.append_result ? "ae" : "we");
    bool ok = f && fwrite(json.p + json.off, 1, json.n, f) == json.n;
    if (f && fclose(f) != 0)
        ok = false;
    if (ok)
        note("result saved in %s", path);
    else
        note("%s cannot be written: %s.", path, json.overflow ? "more than 1 GB" : strerror(errno));
    buf_free(&json);
    free(path);
    return ok;
}

static bool plot(const struct bench *b, const struct bench_run *r)
{
    struct bench_curve_set curve;
    struct errbuf err = {""};
    bench_curves(r, &curve);
    bool ok = bench_plot(&curve, 1, b->o.plot, &err);
    if (!ok)
        note("%s", err.msg);
    bench_curves_free(&curve);
    return ok;
}

static int conclude(const struct bench *b)
{
    struct bench_run r;
    struct bench_stats st;
    struct buf text;
    bool ok = true;
    buf_init(&text, REPORT_MAX);
    describe(b, &r);
    bench_stats(&r, &st);
    bench_report(&r, &st, &text);
    if (b->watch)
        pod_watch_report(b->watch, &text);
    if (text.n)
        (void)fwrite(text.p + text.off, 1, text.n, stdout);
    (void)fflush(stdout);
    buf_free(&text);
    remarks(b);
    if (b->o.save_result || b->o.append_result)
        ok = save(b, &r, &st) && ok;
    if (b->o.plot)
        ok = plot(b, &r) && ok;
    if (!st.completed)
        note("no request completed%s%s", r.n_samples ? ": " : "", r.n_samples ? r.samples[0].error : "");
    return ok && st.completed ? 0 : 1;
}

/* ---- comparing ---- */

static int compare(const struct bench_cli *o)
{
    struct errbuf err = {""};
    struct buf text;
    size_t n = o->compare.n, loaded = 0;
    buf_init(&text, REPORT_MAX);
    bool ok = bench_compare(o->compare.v, n, &text, &err);
    if (text.n)
        (void)fwrite(text.p + text.off, 1, text.n, stdout);
    buf_free(&text);
    if (ok && o->plot) {
        struct bench_curve_set *v = xcalloc(n, sizeof(*v));
        while (loaded < n && ok) {
            ok = bench_curves_load(o->compare.v[loaded], &v[loaded], &err);
            loaded += ok;
        }
        ok = ok && bench_plot(v, n, o->plot, &err);
        for (size_t i = 0; i < loaded; i++)
            bench_curves_free(&v[i]);
        free(v);
    }
    if (!ok)
        note("%s", err.msg);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}

/* ---- command ---- */

static int bench_run_all(struct bench *b)
{
    struct errbuf err = {""};
    b->loop = loop_new(b->o.time_scale);
    stop_loop = b->loop;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    bench_cli_headers(&b->o, &b->headers);
    bench_cli_extra(&b->o, &b->extra);
    make_texts(b);
    bool ok = find_target(b, &err) && dataset_load(&b->data, &b->o.data, &err) &&
              probe_wait(&b->target, b->o.ready_wait_us, &err) && find_model(b, &err) && check_outputs(b, &err) &&
              run(b, &err);
    int rc = 1;
    if (ok)
        rc = conclude(b);
    else
        note("%s", err.msg);
    stop_loop = NULL;
    return rc;
}

static void bench_free(struct bench *b)
{
    pod_watch_free(b->watch);
    drive_result_free(&b->result);
    dataset_free(&b->data);
    buf_free(&b->headers);
    buf_free(&b->extra);
    loop_free(b->loop);
    free(b->pods);
    free(b->first_model);
}

int cli_bench(int argc, char **argv)
{
    struct bench *b = xcalloc(1, sizeof(*b));
    int rc = bench_cli_parse(&b->o, argc, argv);
    if (rc == CLI_GO)
        rc = b->o.compare.n ? compare(&b->o) : bench_run_all(b);
    bench_free(b);
    bench_cli_free(&b->o);
    free(b);
    return rc;
}
