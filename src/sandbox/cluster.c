/* sandbox/cluster.c - see cluster.h. A pod is known by its workload, the hash of its template and its place in it: a
 * changed template means new pods, and a deleted one is followed by another in its place. */
#include "sandbox/cluster.h"

#include "base/duration.h"
#include "base/hash.h"
#include "base/log.h"
#include "sandbox/pod.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MAX_PODS     4000
#define PER_NET      250      /* addresses used of a /24 */
#define MARKER_PORT  47999    /* on the subnet's .254: keeps other sandboxes away */
#define READY_LAG_US 30000000 /* a dead pod is believed ready for this long (three failed probes) */
#define LEAVE_US     30000000 /* longest life of a pod that leaves */

struct cluster {
    struct cluster_opts o;
    struct loop *loop;
    pthread_t thread;
    struct list pods;
    unsigned n_pods, next_ip;
    bool used[MAX_PODS];
    unsigned net_a, net_b;
    char subnet[32];
    struct listener *marker;
    struct httpd *control;
    struct timer sweep;
    bool syncing;
};

/* ---- calls into the cluster's thread ---- */

struct call {
    struct mail mail;
    void (*fn)(struct call *c);
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool finished;
    struct cluster *cl;
    const struct conf_workload *w;
    uint32_t n;
    struct buf *out;
    struct errbuf *err;
    int rc;
};

static void run_call(struct mail *m)
{
    struct call *c = CONTAINER_OF(m, struct call, mail);
    c->fn(c);
    pthread_mutex_lock(&c->lock);
    c->finished = true;
    pthread_cond_signal(&c->done);
    pthread_mutex_unlock(&c->lock);
}

static void call_and_wait(struct call *c)
{
    c->mail.run = run_call;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->done, NULL);
    loop_post(c->cl->loop, &c->mail);
    pthread_mutex_lock(&c->lock);
    while (!c->finished)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
}

/* ---- pods ---- */

static void set_ready(struct pod *p, bool ready)
{
    if (p->ready == ready)
        return;
    p->ready = ready;
    if (!p->cluster->syncing && !p->leaving && p->cluster->o.changed)
        p->cluster->o.changed(p->cluster->o.ctx);
}

static void on_late(struct timer *t)
{
    struct pod *p = CONTAINER_OF(t, struct pod, late);
    set_ready(p, server_ready(p->server));
}

/* A killed server is found out by probes only after a while, as in a real cluster. */
static void on_server_ready(void *ctx, struct server *s, bool ready)
{
    struct pod *p = ctx;
    struct loop *l = p->cluster->loop;
    timer_stop(l, &p->late);
    if (ready || !server_dead(s)) {
        set_ready(p, ready);
        return;
    }
    p->late.fn = on_late;
    timer_set(l, &p->late, loop_now_us(l) + READY_LAG_US);
}

static struct pod *find_pod(struct cluster *c, struct str ns, struct str name)
{
    LIST_EACH (it, &c->pods) {
        struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (!p->leaving && !p->gone && str_eq(p->name, name) && (!ns.n || str_eq(p->ns, ns)))
            return p;
    }
    return NULL;
}

static bool of_workload(const struct pod *p, struct str ns, struct str workload, struct str kind)
{
    return !p->leaving && str_eq(p->ns, ns) && str_eq(p->workload, workload) && str_eq(p->kind, kind);
}

/* Who has the place in the workload, be it gone. */
static struct pod *find_place(struct cluster *c, const struct conf_workload *w, uint64_t h, unsigned group,
                              unsigned member)
{
    LIST_EACH (it, &c->pods) {
        struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (of_workload(p, w->ns, w->name, w->kind) && p->template_hash == h && p->group == group &&
            p->member == member)
            return p;
    }
    return NULL;
}

static void remove_pod(struct cluster *c, struct pod *p)
{
    timer_stop(c->loop, &p->late);
    list_remove(&p->link);
    if (p->ip.n)
        c->used[p->ip_index] = false;
    c->n_pods--;
    pod_free(p);
}

/* The next free one after the last: an address that was given back is not soon another pod's. */
static bool take_ip(struct cluster *c, struct pod *p)
{
    for (unsigned n = 0; n < MAX_PODS; n++) {
        unsigned i = (c->next_ip + n) % MAX_PODS;
        if (c->used[i])
            continue;
        c->used[i] = true;
        c->next_ip = (i + 1) % MAX_PODS;
        p->ip_index = i;
        p->ip = str_c(arena_printf(&p->arena, "127.%u.%u.%u", c->net_a, c->net_b + i / PER_NET, 1 + i % PER_NET));
        return true;
    }
    return false;
}

/* ---- from workload to pods ---- */

static uint64_t template_hash(const struct cluster *c, const struct conf_workload *w)
{
    uint64_t h = hash_mix(c->o.seed, hash_bytes(w->name.p, w->name.n, hash_bytes(w->ns.p, w->ns.n, w->container_port)));
    for (uint32_t i = 0; i < w->n_argv; i++)
        h = hash_bytes(w->argv[i].p, w->argv[i].n, h);
    for (uint32_t i = 0; i < w->n_labels; i++)
        h = hash_bytes(w->labels[i].value.p, w->labels[i].value.n,
                       hash_bytes(w->labels[i].key.p, w->labels[i].key.n, h));
    for (uint32_t i = 0; i < w->n_worker_labels; i++)
        h = hash_bytes(w->worker_labels[i].value.p, w->worker_labels[i].value.n, h);
    return hash_mix(h, w->group_size);
}

/* Where the pod is in its workload, which names it. A Deployment's pods have a new name each time. */
struct place {
    unsigned group, member, incarnation;
};

static void pod_name(const struct conf_workload *w, uint64_t h, struct place at, char *out, size_t cap)
{
    uint64_t drawn = hash_mix(h, at.group + ((uint64_t)at.incarnation << 32));
    switch (w->controller) {
    case CONF_POD:
        (void)snprintf(out, cap, STR_FMT, STR_ARG(w->name));
        return;
    case CONF_DEPLOYMENT:
        (void)snprintf(out, cap, STR_FMT "-%05x", STR_ARG(w->name), (unsigned)(drawn & 0xfffff));
        return;
    case CONF_STATEFULSET:
    case CONF_GROUPS:
        if (at.member)
            (void)snprintf(out, cap, STR_FMT "-%u-%u", STR_ARG(w->name), at.group, at.member);
        else
            (void)snprintf(out, cap, STR_FMT "-%u", STR_ARG(w->name), at.group);
        return;
    }
}

static struct pod_label *copy_labels(struct arena *a, const void *from, uint32_t n, uint32_t extra)
{
    struct pod_label *v = arena_zalloc(a, (n + extra + 1) * sizeof(*v));
    const struct pod_label *f = from;
    for (uint32_t i = 0; i < n; i++)
        v[i] = (struct pod_label){arena_str(a, f[i].key), arena_str(a, f[i].value)};
    return v;
}

#define MAX_OWN_LABELS 3
static void add_label(struct pod *p, const char *key, struct str value)
{
    p->labels[p->n_labels++] = (struct pod_label){str_c(key), value};
}

/* The labels that the controller adds. */
static void own_labels(struct pod *p)
{
    struct str group = str_c(arena_printf(&p->arena, "%u", p->group));
    if (p->controller == CONF_STATEFULSET) {
        add_label(p, "apps.kubernetes.io/pod-index", group);
        add_label(p, "statefulset.kubernetes.io/pod-name", p->name);
    }
    if (p->controller == CONF_GROUPS) {
        add_label(p, "leaderworkerset.sigs.k8s.io/name", p->workload);
        add_label(p, "leaderworkerset.sigs.k8s.io/group-index", group);
        add_label(p, "leaderworkerset.sigs.k8s.io/worker-index", str_c(arena_printf(&p->arena, "%u", p->member)));
    }
}

static struct pod *new_pod(struct cluster *c, const struct conf_workload *w, const char *name, struct place at)
{
    struct pod *p = xcalloc(1, sizeof(*p));
    arena_init(&p->arena, 2048);
    sim_options_init(&p->opt);
    p->cluster = c;
    p->ns = arena_str(&p->arena, w->ns);
    p->name = arena_str(&p->arena, str_c(name));
    p->workload = arena_str(&p->arena, w->name);
    p->kind = arena_str(&p->arena, w->kind);
    p->controller = w->controller;
    p->group = at.group;
    p->member = at.member;
    p->incarnation = at.incarnation;
    p->again_us = UINT64_MAX;
    p->n_labels = at.member ? w->n_worker_labels : w->n_labels;
    p->labels = copy_labels(&p->arena, at.member ? (const void *)w->worker_labels : (const void *)w->labels,
                            p->n_labels, MAX_OWN_LABELS);
    p->n_annotations = w->n_annotations;
    p->annotations = copy_labels(&p->arena, w->annotations, w->n_annotations, 0);
    own_labels(p);
    list_push_back(&c->pods, &p->link);
    c->n_pods++;
    return p;
}

static void on_note(void *ctx, const char *text)
{
    const struct conf_workload *w = ctx;
    logf_msg(LOG_DEBUG, STR_FMT " " STR_FMT ": %s", STR_ARG(w->kind), STR_ARG(w->name), text);
}

static enum sim_dialect dialect_of(enum server_kind k)
{
    return k == SERVER_SGLANG   ? SIM_SGLANG
           : k == SERVER_TRITON ? SIM_TRITON
           : k == SERVER_TRTLLM ? SIM_TRTLLM
                                : SIM_VLLM;
}

static int pod_options(struct cluster *c, struct pod *p, const struct conf_workload *w, const struct recognised *r,
                       uint64_t h, struct errbuf *err)
{
    struct sim_options *o = &p->opt;
    o->port = 0;
    o->dialect = dialect_of(r->kind);
    if (p->group == 0) { /* once per workload is enough */
        o->note = on_note;
        o->note_ctx = (void *)(uintptr_t)w;
    }
    if (sim_options_parse(o, r->argv, r->n, err) != 0)
        return -1;
    o->note = NULL;
    o->note_ctx = NULL;
    if (!o->port)
        o->port = w->container_port ? w->container_port : o->dialect == SIM_SGLANG ? 30000 : 8000;
    o->host = p->ip;
    o->pod_name = p->name;
    o->pod_ns = p->ns;
    if (!o->profile.n && !o->hardware.n) {
        o->profile = c->o.profile;
        o->hardware = c->o.hardware;
    }
    o->seed = h;
    o->jitter = o->jitter || c->o.jitter;
    o->time_scale = c->o.time_scale;
    if (p->again_us != UINT64_MAX)
        o->startup_us = p->again_us;
    else if (c->o.startup_us)
        o->startup_us = c->o.startup_us;
    p->port = o->port;
    p->server_kind = r->kind;
    return 0;
}

/* What the pod runs: a server, or a part of one that answers at another pod. */
static int run_pod(struct cluster *c, struct pod *p, const struct conf_workload *w, const struct recognised *r,
                   uint64_t h, struct errbuf *err)
{
    struct server_hooks hooks = {.ready = on_server_ready, .ctx = p};
    if (!take_ip(c, p))
        return err_set(err, "there is no address left for pod " STR_FMT ".", STR_ARG(p->name));
    if (p->member > 0 || r->later_node) {
        p->ready = true;
        return 0;
    }
    if (pod_options(c, p, w, r, hash_mix(h, p->group + 1), err) != 0)
        return -1;
    p->server = server_new(c->loop, &p->opt, &hooks, err);
    return p->server ? 0 : -1;
}

/* A free name for the place; of a Deployment's drawn ones the first that nobody has. */
static int choose_name(struct cluster *c, const struct conf_workload *w, uint64_t h, struct place *at, char *name,
                       size_t cap, struct errbuf *err)
{
    for (unsigned i = 0; i < 100; i++, at->incarnation++) {
        pod_name(w, h, *at, name, cap);
        if (!find_pod(c, w->ns, str_c(name)))
            return 0;
        if (w->controller != CONF_DEPLOYMENT)
            break;
    }
    return err_set(err, "another workload has a pod %s.", name);
}

static int start_pod(struct cluster *c, const struct conf_workload *w, const struct recognised *r, uint64_t h,
                     unsigned group, unsigned member, struct errbuf *err)
{
    char name[320];
    struct pod *old = find_place(c, w, h, group, member);
    struct place at = {group, member, old ? old->incarnation + 1 : 0};
    if (old && (!old->gone || w->controller == CONF_POD)) { /* nobody makes a bare pod again */
        old->wanted = true;
        return 0;
    }
    if (c->n_pods - (old != NULL) >= MAX_PODS)
        return err_set(err, "the sandbox runs at most %d pods.", MAX_PODS);
    if (choose_name(c, w, h, &at, name, sizeof(name), err) != 0)
        return -1;
    struct pod *p = new_pod(c, w, name, at);
    p->wanted = true;
    p->template_hash = h;
    if (old)
        p->again_us = old->again_us;
    int rc = run_pod(c, p, w, r, h, err);
    if (rc != 0)
        remove_pod(c, p);
    else if (old)
        remove_pod(c, old);
    return rc;
}

/* The template may have changed although names stay (StatefulSet, LeaderWorkerSet, Pod): then its pods go first. */
static void forget_changed(struct cluster *c, const struct conf_workload *w, uint64_t h)
{
    LIST_EACH_SAFE (it, tmp, &c->pods) {
        struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (p->template_hash != h && w->controller != CONF_DEPLOYMENT && of_workload(p, w->ns, w->name, w->kind))
            remove_pod(c, p);
    }
}

static int start_workload(struct cluster *c, const struct conf_workload *w, struct errbuf *err)
{
    struct arena a;
    struct recognised r;
    int rc = 0;
    arena_init(&a, 4096);
    if (recognise(&a, w->argv, w->n_argv, &r)) {
        uint64_t h = template_hash(c, w);
        unsigned replicas = w->controller == CONF_POD ? 1 : c->o.replicas ? c->o.replicas : w->replicas;
        forget_changed(c, w, h);
        for (unsigned g = 0; g < replicas && rc == 0; g++)
            for (unsigned m = 0; m < MAX(w->group_size, 1u) && rc == 0; m++)
                rc = start_pod(c, w, &r, h, g, m, err);
    } else {
        logf_msg(LOG_DEBUG, STR_FMT " " STR_FMT ": no model server, not started", STR_ARG(w->kind), STR_ARG(w->name));
    }
    arena_free(&a);
    return rc;
}

/* ---- sync ---- */

static void on_sweep(struct timer *t)
{
    struct cluster *c = CONTAINER_OF(t, struct cluster, sweep);
    uint64_t now = loop_now_us(c->loop);
    bool more = false;
    LIST_EACH_SAFE (it, tmp, &c->pods) {
        struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (!p->leaving)
            continue;
        uint64_t age = now - p->left_us;
        if (!p->server || age >= LEAVE_US || (age >= 2000000 && server_idle(p->server)))
            remove_pod(c, p);
        else
            more = true;
    }
    if (more)
        timer_set(c->loop, &c->sweep, now + 200000);
}

static void list_pods(struct cluster *c, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, "apiVersion");
    jsonw_cstr(&w, "v1");
    jsonw_key(&w, "kind");
    jsonw_cstr(&w, "List");
    jsonw_key(&w, "items");
    jsonw_arr(&w);
    LIST_EACH (it, &c->pods) {
        const struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (!p->leaving && !p->gone)
            pod_json(p, &w);
    }
    jsonw_arr_end(&w);
    jsonw_obj_end(&w);
}

static void do_sync(struct call *k)
{
    struct cluster *c = k->cl;
    c->syncing = true;
    LIST_EACH (it, &c->pods)
        CONTAINER_OF(it, struct pod, link)->wanted = false;
    for (uint32_t i = 0; i < k->n; i++) {
        struct errbuf err;
        if (start_workload(c, &k->w[i], &err) == 0)
            continue;
        logf_msg(LOG_ERROR, STR_FMT ": " STR_FMT " " STR_FMT "/" STR_FMT ": %s", STR_ARG(k->w[i].source),
                 STR_ARG(k->w[i].kind), STR_ARG(k->w[i].ns), STR_ARG(k->w[i].name), err.msg);
        if (k->rc == 0)
            k->rc = err_set(k->err, STR_FMT ": " STR_FMT " " STR_FMT ": %s", STR_ARG(k->w[i].source),
                            STR_ARG(k->w[i].kind), STR_ARG(k->w[i].name), err.msg);
    }
    LIST_EACH (it, &c->pods) {
        struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (p->wanted || p->leaving)
            continue;
        p->leaving = true;
        p->left_us = loop_now_us(c->loop);
        c->sweep.fn = on_sweep;
        if (!timer_armed(&c->sweep))
            timer_set(c->loop, &c->sweep, p->left_us + 200000);
    }
    list_pods(c, k->out);
    c->syncing = false;
}

int cluster_sync(struct cluster *c, const struct conf_workload *w, uint32_t n, struct buf *pods, struct errbuf *err)
{
    struct call k = {.fn = do_sync, .cl = c, .w = w, .n = n, .out = pods, .err = err};
    call_and_wait(&k);
    return k.rc;
}

static void do_describe(struct call *k)
{
    LIST_EACH (it, &k->cl->pods) {
        const struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (p->gone)
            continue;
        if (!p->server)
            buf_addf(k->out, "Pod " STR_FMT ": " STR_FMT " (worker, serves nothing)\n", STR_ARG(p->name),
                     STR_ARG(p->ip));
        else
            buf_addf(k->out, "Pod " STR_FMT ": http://" STR_FMT ":%u (%s, %s, %llu tokens of KV cache)\n",
                     STR_ARG(p->name), STR_ARG(p->ip), p->port, server_kind_name(p->server_kind),
                     server_profile(p->server), (unsigned long long)server_kv_tokens(p->server));
    }
}

void cluster_describe(struct cluster *c, struct buf *out)
{
    struct call k = {.fn = do_describe, .cl = c, .out = out};
    call_and_wait(&k);
}

/* ---- control interface: GET /sim/pods, DELETE /sim/pods/<name>, anything /sim/pods/<name>/<path> ---- */

static void get_pods(struct cluster *c, struct httpd_req *rq)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 64u << 20);
    jsonw_init(&w, &out);
    jsonw_arr(&w);
    LIST_EACH (it, &c->pods) {
        const struct pod *p = CONTAINER_OF(it, struct pod, link);
        if (!p->leaving && !p->gone)
            pod_state_json(p, &w);
    }
    jsonw_arr_end(&w);
    httpd_respond(rq, 200, "application/json", NULL, buf_str(&out));
    buf_free(&out);
}

static void delete_pod(struct cluster *c, struct pod *p, uint64_t again_us, struct jsonw *w)
{
    jsonw_str(w, p->name);
    timer_stop(c->loop, &p->late);
    server_free(p->server);
    p->server = NULL;
    c->used[p->ip_index] = false;
    p->ip = STR("");
    p->ready = false;
    p->gone = true;
    p->again_us = again_us;
}

/* One pod; of groups all pods of the group, because an engine that has lost a part is lost as a whole. */
static void delete_pods(struct cluster *c, struct pod *p, uint64_t again_us, struct jsonw *w)
{
    LIST_EACH (it, &c->pods) {
        struct pod *q = CONTAINER_OF(it, struct pod, link);
        if (q == p || (p->controller == CONF_GROUPS && !q->gone && of_workload(q, p->ns, p->workload, p->kind) &&
                       q->template_hash == p->template_hash && q->group == p->group))
            delete_pod(c, q, again_us, w);
    }
}

/* DELETE: gone at once. Its controller makes it again (sandbox.c: the change makes a reload, and that syncs). */
static void on_delete(struct cluster *c, struct httpd_req *rq, struct str name)
{
    struct pod *p = find_pod(c, STR_NULL, name);
    struct str query = rq->head->query;
    int64_t ns = -1;
    struct buf out;
    struct jsonw w;
    if (!p) {
        server_error(rq, 404, "NotFoundError", NULL, NULL, "There is no such pod.");
        return;
    }
    if (query.n && (!str_starts(query, STR("startup=")) || !duration_parse(str_from(query, 8), &ns) || ns < 0)) {
        server_error(rq, 400, "BadRequestError", NULL, NULL, "The query may be startup=DURATION, such as startup=5s.");
        return;
    }
    buf_init(&out, 1u << 20);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "deleted");
    jsonw_arr(&w);
    delete_pods(c, p, ns < 0 ? UINT64_MAX : (uint64_t)ns / 1000, &w);
    jsonw_arr_end(&w);
    jsonw_obj_end(&w);
    httpd_respond(rq, 200, "application/json", NULL, buf_str(&out));
    buf_free(&out);
    if (c->o.changed)
        c->o.changed(c->o.ctx);
}

static void on_control(void *ctx, struct httpd_req *rq)
{
    struct cluster *c = ctx;
    struct str path = rq->head->path;
    if (str_eq(path, STR("/sim/pods")) && rq->head->method == H1_GET) {
        get_pods(c, rq);
        return;
    }
    if (str_starts(path, STR("/sim/pods/"))) {
        struct str rest = str_from(path, 10);
        ptrdiff_t slash = str_find(rest, STR("/"));
        if (slash < 0 && rq->head->method == H1_DELETE) {
            on_delete(c, rq, rest);
            return;
        }
        struct pod *p = slash > 0 ? find_pod(c, STR_NULL, str_first(rest, (size_t)slash)) : NULL;
        if (p && p->server)
            server_control(p->server, rq, str_from(rest, (size_t)slash + 1));
        else
            server_error(rq, 404, "NotFoundError", NULL, NULL, "There is no such pod, or it serves nothing.");
        return;
    }
    server_error(rq, 404, "NotFoundError", NULL, NULL, "Only /sim/pods and /sim/pods/<name>/... are served here.");
}

/* ---- life ---- */

static void refuse(struct listener *ln, struct conn *c)
{
    (void)ln;
    conn_abort(c);
}

static bool net_free(struct cluster *c, struct errbuf *err)
{
    struct addr at;
    char host[32];
    (void)snprintf(host, sizeof(host), "127.%u.%u.254", c->net_a, c->net_b);
    if (!addr_parse(str_c(host), MARKER_PORT, &at) || addr_in_use(&at))
        return false;
    c->marker = listener_open(c->loop, &at, refuse, NULL, err);
    return c->marker != NULL;
}

/* A subnet of its own, from 127.16.0 to 127.95.239: by chance, then the next. */
static int take_net(struct cluster *c, struct errbuf *err)
{
    uint64_t h = hash_mix((uint64_t)getpid(), (uint64_t)time(NULL));
    for (unsigned i = 0; i < 80 * 15; i++) {
        unsigned k = (unsigned)((h + i) % (80 * 15));
        c->net_a = 16 + k % 80;
        c->net_b = k / 80 * 16; /* 16 nets of 250 for up to 4000 pods */
        if (net_free(c, err)) {
            (void)snprintf(c->subnet, sizeof(c->subnet), "127.%u.%u.0/24", c->net_a, c->net_b);
            return 0;
        }
    }
    return err_set(err, "no loopback subnet is free for the pods.");
}

static int open_control(struct cluster *c, struct errbuf *err)
{
    struct addr at;
    if (!addr_parse_hostport(c->o.control, 0, &at))
        return err_set(err, "--control: \"" STR_FMT "\" is not ADDR:PORT.", STR_ARG(c->o.control));
    if (addr_in_use(&at))
        return err_set(err, "somebody already listens on the control address " STR_FMT ".", STR_ARG(c->o.control));
    c->control = httpd_open(c->loop, &at, 1u << 20, on_control, c, err);
    return c->control ? 0 : -1;
}

static void close_all(struct cluster *c)
{
    timer_stop(c->loop, &c->sweep);
    while (!list_empty(&c->pods))
        remove_pod(c, CONTAINER_OF(c->pods.next, struct pod, link));
    httpd_close(c->control);
    if (c->marker)
        listener_close(c->marker);
    loop_free(c->loop);
    free(c);
}

struct cluster *cluster_new(const struct cluster_opts *o, struct errbuf *err)
{
    struct cluster *c = xcalloc(1, sizeof(*c));
    c->o = *o;
    c->loop = loop_new(o->time_scale);
    list_init(&c->pods);
    if (take_net(c, err) == 0 && open_control(c, err) == 0) {
        int rc = loop_start(c->loop, &c->thread);
        if (rc == 0)
            return c;
        (void)err_set(err, "cannot start a thread: %s.", strerror(rc));
    }
    close_all(c);
    return NULL;
}

void cluster_free(struct cluster *c)
{
    if (!c)
        return;
    loop_stop(c->loop);
    pthread_join(c->thread, NULL);
    close_all(c);
}

const struct addr *cluster_control(const struct cluster *c)
{
    return httpd_addr(c->control);
}

const char *cluster_subnet(const struct cluster *c)
{
    return c->subnet;
}
