/* sandbox/sandbox.c - ties the shared runtime to the simulated cluster: every reload syncs the pods, every change of a
 * pod is a reload. */
#include "sandbox/sandbox.h"

#include "base/map.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define SOURCE "sandbox" /* of the Pods in the configuration store */

struct sandbox {
    struct cluster *cluster;
    struct str bind;
    _Atomic(struct run *) run; /* set once it runs: changes before that only mark dirty */
    atomic_bool dirty, posted;
    struct mail changed;
    struct map printed; /* lines already told */
    bool started;
};

/* ---- changes of pods: cluster thread -> control thread ---- */

static void post_change(struct sandbox *s)
{
    struct run *r = atomic_load(&s->run);
    if (r && !atomic_exchange(&s->posted, true))
        loop_post(run_loop(r), &s->changed);
}

static void on_changed(void *ctx)
{
    struct sandbox *s = ctx;
    atomic_store(&s->dirty, true);
    post_change(s);
}

static void take_change(struct mail *m)
{
    struct sandbox *s = CONTAINER_OF(m, struct sandbox, changed);
    struct run *r = atomic_load(&s->run);
    struct errbuf err;
    atomic_store(&s->posted, false);
    if (r && atomic_exchange(&s->dirty, false))
        (void)run_reload(r, &err); /* what goes wrong is in the log */
}

/* ---- reload ---- */

/* Pods of the last round must not hide the workloads they came from (bare Pods bear the same name), so they go before
 * the workloads are read. */
static int before_build(struct run *r, struct conf_report *rep, struct errbuf *err)
{
    struct sandbox *s = run_user(r);
    const struct conf_workload *w;
    struct buf pods;
    int rc = conf_store_load_text(run_store(r), SOURCE, STR_NULL, rep);
    if (rc != 0)
        return err_set(err, "the pods cannot be withdrawn.");
    uint32_t n = conf_workloads(run_store(r), &w);
    buf_init(&pods, 256u << 20);
    atomic_store(&s->dirty, false);
    rc = cluster_sync(s->cluster, w, n, &pods, err);
    if (s->started) /* a workload that does not start is an error of its own, told in the log; the rest goes on */
        rc = 0;
    if (rc == 0 && conf_store_load_text(run_store(r), SOURCE, buf_str(&pods), rep) != 0)
        rc = err_set(err, "the pods cannot be published.");
    buf_free(&pods);
    return rc;
}

static void tell(struct sandbox *s, const char *line, size_t n)
{
    struct str key = {line, n};
    if (map_get(&s->printed, key))
        return;
    map_put(&s->printed, key, s);
    fprintf(stderr, STR_FMT "\n", STR_ARG(key));
}

static void tell_listeners(struct sandbox *s, const struct conf *c)
{
    for (uint32_t i = 0; i < c->n_listeners; i++) {
        const struct conf_listener *l = &c->listeners[i];
        struct addr at;
        char text[64], line[512];
        if (!addr_parse(s->bind, l->port, &at))
            continue;
        (void)addr_format(&at, text, sizeof(text));
        int n = snprintf(line, sizeof(line), "Gateway " STR_FMT ": http://%s (listener " STR_FMT ")",
                         STR_ARG(l->gw_name), text, STR_ARG(l->name));
        tell(s, line, MIN((size_t)n, sizeof(line) - 1));
    }
}

static void tell_pods(struct sandbox *s)
{
    struct buf out;
    buf_init(&out, 4u << 20);
    cluster_describe(s->cluster, &out);
    struct str rest = buf_str(&out);
    for (ptrdiff_t nl; (nl = str_find(rest, STR("\n"))) >= 0; rest = str_from(rest, (size_t)nl + 1))
        tell(s, rest.p, (size_t)nl);
    buf_free(&out);
}

static void applied(struct run *r)
{
    struct sandbox *s = run_user(r);
    struct conf *c = gateway_conf(run_gateway(r));
    if (c) {
        tell_pods(s);
        tell_listeners(s, c);
    }
    conf_unref(c);
}

/* ---- life ---- */

static void tell_start(const struct sandbox *s, const struct sandbox_opts *o)
{
    char control[64];
    (void)addr_format(cluster_control(s->cluster), control, sizeof(control));
    fprintf(stderr, "Sandbox: seed %llu, time scale %g, pods on %s\n", (unsigned long long)o->cluster.seed,
            o->cluster.time_scale, cluster_subnet(s->cluster));
    fprintf(stderr, "Control: http://%s/sim/pods\n", control);
    if (o->run.admin.n && !str_eq(o->run.admin, STR("off")))
        fprintf(stderr, "Admin: http://" STR_FMT "/\n", STR_ARG(o->run.admin));
}

static int serve(struct sandbox *s, const struct sandbox_opts *o, const struct run_opts *ro)
{
    struct errbuf err = {""};
    struct run *r = run_new(ro, &err);
    if (!r) {
        fprintf(stderr, "penstock sandbox: %s\n", err.msg);
        return 1;
    }
    s->started = true;
    tell_start(s, o);
    atomic_store(&s->run, r);
    if (atomic_load(&s->dirty))
        post_change(s);
    int rc = run_main(r);
    atomic_store(&s->run, NULL);
    cluster_free(s->cluster); /* its thread must not post to a loop that is gone */
    s->cluster = NULL;
    run_free(r);
    return rc;
}

int sandbox_main(const struct sandbox_opts *o)
{
    struct sandbox s = {.bind = o->run.gw.bind};
    struct run_opts ro = o->run;
    struct cluster_opts co = o->cluster;
    struct errbuf err = {""};
    ro.gw.time_scale = co.time_scale;
    ro.gw.seed = co.seed;
    ro.gw.ports.seed = co.seed;
    ro.before_build = before_build;
    ro.applied = applied;
    ro.user = &s;
    co.changed = on_changed;
    co.ctx = &s;
    s.changed.run = take_change;
    map_init(&s.printed, 0);
    s.cluster = cluster_new(&co, &err);
    int rc = 1;
    if (s.cluster)
        rc = serve(&s, o, &ro);
    else
        fprintf(stderr, "penstock sandbox: %s\n", err.msg);
    cluster_free(s.cluster);
    map_free(&s.printed);
    return rc;
}
