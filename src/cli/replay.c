/* cli/replay.c - penstock replay: recorded or generated loads in virtual time, under any policy. */
#include "cli/cli.h"
#include "cli/replay_opts.h"

#include "replay/report.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REPORT_MAX  (1u << 30)
#define PROGRESS_NS 200000000

struct job { /* one run */
    struct world_params p;
    struct world_result w;
    struct report r;
    struct replay *of;
    uint32_t done;
    atomic_bool over;
};
struct replay {
    struct replay_opts o;
    struct job *jobs;
    uint32_t n_jobs;
    atomic_uint next, n_over;
    _Atomic uint64_t n_requests, n_planned;
};

static double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_progress(void *ctx, uint32_t done, uint32_t all)
{
    struct job *j = ctx;
    (void)all;
    atomic_fetch_add(&j->of->n_requests, done - j->done);
    j->done = done;
}

static void copy_text(char *out, size_t cap, const char *text)
{
    (void)snprintf(out, cap, "%s", text);
}

/* ---- the jobs: every load x policy x rate x number of users x seed ---- */

static void add_job(struct replay *rp, const struct replay_load *load, const struct policy *policy, double rate,
                    uint32_t users, uint32_t seed)
{
    const struct replay_opts *o = &rp->o;
    struct job *j = &rp->jobs[rp->n_jobs++];
    j->of = rp;
    j->p = o->world;
    j->p.data = &load->data;
    j->p.block_tokens = load->data.block_tokens ? load->data.block_tokens : TRACE_BLOCK;
    j->p.policy = policy;
    j->p.rate = rate;
    j->p.users = users;
    j->p.seed = seed;
    if (!o->scrape_given && policy->scrape_us)
        j->p.scrape_us = policy->scrape_us;
    j->p.stop_us = users ? o->time_us : 0;
    if (j->p.stop_us) /* all have begun long before anything is counted */
        j->p.ramp_s = MIN(j->p.ramp_s, (double)j->p.stop_us / 8e6);
    j->p.progress = on_progress;
    j->p.ctx = j;
    copy_text(j->r.trace, sizeof(j->r.trace), load->name);
    copy_text(j->r.profile, sizeof(j->r.profile), o->profile_name);
    copy_text(j->r.policy, sizeof(j->r.policy), policy->name);
    j->r.servers = o->world.n_servers;
    j->r.gateways = o->world.n_gateways;
    j->r.users = users;
    j->r.rate = rate;
    j->r.seed = seed;
    rp->n_planned += load->data.n;
}

static void plan(struct replay *rp)
{
    const struct replay_opts *o = &rp->o;
    size_t n = o->n_loads * o->n_policies * MAX(o->n_rates, (size_t)1) * MAX(o->n_users, (size_t)1) * o->n_seeds;
    rp->jobs = xcalloc(n, sizeof(*rp->jobs));
    for (size_t l = 0; l < o->n_loads; l++)
        for (size_t r = 0; r < MAX(o->n_rates, (size_t)1); r++)
            for (size_t u = 0; u < MAX(o->n_users, (size_t)1); u++)
                for (size_t p = 0; p < o->n_policies; p++)
                    for (uint32_t s = 0; s < o->n_seeds; s++)
                        add_job(rp, &o->loads[l], o->policies[p], o->n_rates ? o->rates[r] : 0,
                                o->n_users ? (uint32_t)o->users[u] : 0, (uint32_t)o->seed + s);
}

static void run_job(struct job *j)
{
    double from = clock_s();
    world_run(&j->p, &j->w);
    j->w.wall_s = clock_s() - from;
    report_make(&j->w, j->p.users > 0, (double)j->p.stop_us / 1e6, &j->r);
    atomic_fetch_add(&j->of->n_requests, j->w.n - j->done);
    if (!j->of->o.html)
        world_result_free(&j->w);
}

static void *work(void *arg)
{
    struct replay *rp = arg;
    uint32_t i;
    while ((i = atomic_fetch_add(&rp->next, 1)) < rp->n_jobs) {
        run_job(&rp->jobs[i]);
        atomic_store(&rp->jobs[i].over, true);
        atomic_fetch_add(&rp->n_over, 1);
    }
    return NULL;
}

static void show_progress(const struct replay *rp, double from, bool last)
{
    double share = (double)rp->n_requests / (double)MAX(rp->n_planned, (uint64_t)1), s = clock_s() - from;
    int width = 30, full = (int)(share * width);
    fprintf(stderr, "\r[%.*s%*s] %3.0f %%  run %u of %u  %.0f requests/s  %.0f s ", full,
            "##############################", width - full, "", share * 100, MIN(rp->n_over + 1, rp->n_jobs),
            rp->n_jobs, (double)rp->n_requests / MAX(s, 1e-3), s);
    if (last)
        fputs("\r\033[K", stderr);
}

/* Lines as the runs end, in their order. */
static void print_ready(struct replay *rp, uint32_t *printed)
{
    struct buf out;
    buf_init(&out, REPORT_MAX);
    while (rp->o.json && *printed < rp->n_jobs && atomic_load(&rp->jobs[*printed].over))
        report_json(&rp->jobs[(*printed)++].r, &out);
    if (out.n)
        fwrite(buf_str(&out).p, 1, out.n, stdout);
    fflush(stdout);
    buf_free(&out);
}

static void run_all(struct replay *rp)
{
    uint32_t n = (uint32_t)MIN((uint64_t)rp->n_jobs, rp->o.threads), printed = 0;
    pthread_t *t = xcalloc(n, sizeof(*t));
    double from = clock_s();
    bool bar = isatty(2) && !rp->o.quiet;
    for (uint32_t i = 0; i < n; i++)
        CHECK(pthread_create(&t[i], NULL, work, rp) == 0);
    while (atomic_load(&rp->n_over) < rp->n_jobs) {
        nanosleep(&(struct timespec){.tv_nsec = PROGRESS_NS / 10}, NULL);
        print_ready(rp, &printed);
        if (bar)
            show_progress(rp, from, false);
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    if (bar)
        show_progress(rp, from, true);
    print_ready(rp, &printed);
    free(t);
}

/* ---- results ---- */

static int write_file(const char *path, const struct buf *b)
{
    FILE *f = fopen(path, "we");
    bool ok = f && fwrite(buf_str(b).p, 1, buf_str(b).n, f) == buf_str(b).n;
    if (f)
        ok = fclose(f) == 0 && ok;
    if (ok)
        return 0;
    fprintf(stderr, "penstock replay: %s cannot be written: %s.\n", path, strerror(errno));
    return 1;
}

static int results(struct replay *rp)
{
    struct buf out;
    buf_init(&out, REPORT_MAX);
    int rc = 0;
    if (!rp->o.json) {
        struct report *v = xcalloc(rp->n_jobs, sizeof(*v));
        for (uint32_t i = 0; i < rp->n_jobs; i++)
            v[i] = rp->jobs[i].r;
        report_table(v, rp->n_jobs, &out);
        fwrite(buf_str(&out).p, 1, buf_str(&out).n, stdout);
        free(v);
    }
    if (rp->o.html) {
        struct report_run *v = xcalloc(rp->n_jobs, sizeof(*v));
        for (uint32_t i = 0; i < rp->n_jobs; i++)
            v[i] = (struct report_run){rp->jobs[i].r, &rp->jobs[i].w};
        buf_clear(&out);
        report_page(v, rp->n_jobs, &out);
        rc = write_file(rp->o.html, &out);
        free(v);
    }
    buf_free(&out);
    return rc;
}

/* What is to be known of a load before its figures are believed. */
static void notes(const struct replay_opts *o)
{
    for (size_t i = 0; i < o->n_loads && !o->quiet; i++)
        if (*o->loads[i].data.note)
            fprintf(stderr, "penstock replay: %s: %s\n", o->loads[i].name, o->loads[i].data.note);
}

int cli_replay(int argc, char **argv)
{
    struct replay rp = {0};
    int rc = replay_opts_parse(&rp.o, argc, argv);
    if (rc == CLI_GO) {
        notes(&rp.o);
        plan(&rp);
        run_all(&rp);
        rc = results(&rp);
        for (uint32_t i = 0; i < rp.n_jobs; i++)
            world_result_free(&rp.jobs[i].w);
        free(rp.jobs);
    }
    replay_opts_free(&rp.o);
    return rc;
}
