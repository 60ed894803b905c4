/* The recorder. A verb is noted as the bytes of its struct journal up to the end of its member of the union, and behind
 * them what its pointers point to. */
#include "sched/record.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_US  50000        /* so often what there is goes to the file */
#define MAX_SPANS 3            /* pointers of a verb */
#define MAX_LINE  (1u << 20)   /* text of a verb: 4096 models are the largest */
#define WRITE_AT  (256u << 10) /* bytes of text that are written at once */

struct half {
    char *p;
    size_t n;
};
struct record {
    int fd;
    char *path;
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows, up to the counters */
    pthread_cond_t wake;
    struct half half[2];
    size_t cap; /* of a half */
    unsigned filling;
    bool closing;
    uint64_t *lost; /* verbs not noted since the last that was, by pool */
    uint32_t n_pools, cap_pools;
    _Atomic uint64_t dropped, written;
    atomic_bool failed;
    struct buf text; /* the writing thread's */
    struct metric *m_dropped, *m_bytes, *m_failed;
};
struct note {             /* before every verb */
    uint32_t size, fixed; /* size: with this, a multiple of 8 */
};

/* ---- packing ---- */

#define END_OF(m) (offsetof(struct journal, m) + sizeof(((struct journal *)0)->m))

static size_t fixed_size(enum journal_type t)
{
    static const size_t sizes[N_JOURNAL_TYPES] = {
        [JOURNAL_HEAD] = END_OF(u.head),      [JOURNAL_POOL] = END_OF(u.pool_new),
        [JOURNAL_PARAMS] = END_OF(u.params),  [JOURNAL_EP_ADD] = END_OF(u.add),
        [JOURNAL_EP_REMOVE] = END_OF(ep),     [JOURNAL_EP_DRAIN] = END_OF(u.drain),
        [JOURNAL_EP_LOAD] = END_OF(u.load),   [JOURNAL_EP_MODELS] = END_OF(u.models),
        [JOURNAL_EP_PROBE] = END_OF(u.probe), [JOURNAL_EP_ALIVE] = END_OF(ep),
        [JOURNAL_SUBMIT] = END_OF(u.submit),  [JOURNAL_DECIDED] = END_OF(u.decided),
        [JOURNAL_CANCEL] = END_OF(ep),        [JOURNAL_FIRST_TOKEN] = END_OF(ep),
        [JOURNAL_FINISH] = END_OF(u.finish),  [JOURNAL_TICK] = END_OF(ep),
        [JOURNAL_GAP] = END_OF(u.gap),
    };
    return sizes[t];
}

struct span { /* bytes outside of the verb and the pointer to them in it */
    void *pointer;
    size_t n;
};

static unsigned params_spans(struct sched_params *p, struct span *v)
{
    v[0] = (struct span){&p->flow_weights, p->n_flow_weights * sizeof *p->flow_weights};
    return 1;
}

static unsigned spans(struct journal *j, struct span *v)
{
    switch (j->type) {
    case JOURNAL_HEAD:
        v[0] = (struct span){&j->u.head.started.p, j->u.head.started.n};
        v[1] = (struct span){&j->u.head.program.p, j->u.head.program.n};
        return 2;
    case JOURNAL_POOL:
        v[0] = (struct span){&j->u.pool_new.name.p, j->u.pool_new.name.n};
        v[1] = (struct span){&j->u.pool_new.ns.p, j->u.pool_new.ns.n};
        return 2 + params_spans(&j->u.pool_new.params, v + 2);
    case JOURNAL_PARAMS:
        return params_spans(&j->u.params, v);
    case JOURNAL_EP_ADD:
        v[0] = (struct span){&j->u.add.name.p, j->u.add.name.n};
        return 1;
    case JOURNAL_EP_MODELS:
        v[0] = (struct span){&j->u.models.v, j->u.models.n * sizeof *j->u.models.v};
        return 1;
    case JOURNAL_SUBMIT:
        v[0] = (struct span){&j->u.submit.hashes.h, j->u.submit.hashes.n * sizeof(uint64_t)};
        return 1;
    default:
        return 0;
    }
}

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

static void pack(char *to, struct journal *j, size_t size, size_t fixed, const struct span *v, unsigned n)
{
    struct note head = {(uint32_t)size, (uint32_t)fixed};
    memcpy(to, &head, sizeof head);
    memcpy(to + sizeof head, j, fixed);
    char *p = to + sizeof head + padded(fixed);
    for (unsigned i = 0; i < n; i++) {
        const void *from;
        memcpy(&from, v[i].pointer, sizeof from);
        if (v[i].n)
            memcpy(p, from, v[i].n);
        p += padded(v[i].n);
    }
}

/* Returns where the next one is. */
static const char *unpack(const char *from, struct journal *j)
{
    struct note head;
    struct span v[MAX_SPANS];
    memcpy(&head, from, sizeof head);
    memset(j, 0, sizeof *j);
    memcpy(j, from + sizeof head, head.fixed);
    const char *p = from + sizeof head + padded(head.fixed);
    unsigned n = spans(j, v);
    for (unsigned i = 0; i < n; i++) {
        memcpy(v[i].pointer, &p, sizeof p);
        p += padded(v[i].n);
    }
    return from + head.size;
}

/* ---- noting ---- */

static size_t note_size(struct journal *j, struct span *v, unsigned *n)
{
    size_t size = sizeof(struct note) + padded(fixed_size(j->type));
    *n = spans(j, v);
    for (unsigned i = 0; i < *n; i++)
        size += padded(v[i].n);
    return size;
}

/* Under the lock. */
static bool put(struct record *r, struct journal *j)
{
    struct span v[MAX_SPANS];
    unsigned n;
    size_t size = note_size(j, v, &n);
    struct half *h = &r->half[r->filling];
    if (size > r->cap - h->n)
        return false;
    pack(h->p + h->n, j, size, fixed_size(j->type), v, n);
    if (h->n < r->cap / 4 && h->n + size >= r->cap / 4)
        pthread_cond_signal(&r->wake);
    h->n += size;
    return true;
}

/* Under the lock: what is missing before the next verb of the pool. */
static bool put_gap(struct record *r, uint32_t pool)
{
    struct journal j;
    if (!r->lost[pool])
        return true;
    j.type = JOURNAL_GAP;
    j.pool = pool;
    j.now_us = j.req = 0;
    j.ep = (struct ep_ref){0};
    j.u.gap.lines = r->lost[pool];
    if (!put(r, &j))
        return false;
    r->lost[pool] = 0;
    return true;
}

void record_note(struct record *r, struct journal *j)
{
    if (atomic_load_explicit(&r->failed, memory_order_relaxed))
        return;
    pthread_mutex_lock(&r->lock);
    if (!put_gap(r, j->pool) || !put(r, j)) {
        r->lost[j->pool]++;
        atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&r->lock);
}

static uint32_t new_pool(struct record *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t pool = r->n_pools++;
    if (pool == r->cap_pools) {
        r->cap_pools = MAX(r->cap_pools * 2, 16u);
        r->lost = xrealloc(r->lost, r->cap_pools * sizeof *r->lost);
    }
    r->lost[pool] = 0;
    pthread_mutex_unlock(&r->lock);
    return pool;
}

uint32_t record_pool(struct record *r, struct str name, struct str ns, bool service, uint64_t seed,
                     const struct sched_params *p)
{
    struct journal j = {.type = JOURNAL_POOL, .pool = new_pool(r)};
    j.u.pool_new.name = str_first(name, JOURNAL_NAME);
    j.u.pool_new.ns = str_first(ns, JOURNAL_NAME);
    j.u.pool_new.service = service;
    j.u.pool_new.seed = seed;
    j.u.pool_new.params = *p;
    record_note(r, &j);
    return j.pool;
}

/* The union is not cleared: a verb uses only its own member. */
static void begin(struct journal *j, enum journal_type t, uint32_t pool, uint64_t now_us, uint64_t req)
{
    j->type = t;
    j->pool = pool;
    j->now_us = now_us;
    j->req = req;
    j->ep = (struct ep_ref){0};
}

void record_submit(struct record *r, uint32_t pool, uint64_t now_us, const struct sched_req *q, enum sched_answer a,
                   bool again)
{
    struct journal j;
    begin(&j, JOURNAL_SUBMIT, pool, now_us, 0);
    journal_submitted(&j, q, a, again);
    record_note(r, &j);
}

void record_decided(struct record *r, uint32_t pool, const struct sched_req *q)
{
    struct journal j;
    begin(&j, JOURNAL_DECIDED, pool, 0, q->q.seq);
    journal_answer_of(&j.u.decided, &q->d);
    record_note(r, &j);
}

void record_req(struct record *r, uint32_t pool, uint64_t now_us, enum journal_type what, const struct sched_req *q)
{
    struct journal j;
    begin(&j, what, pool, now_us, q->q.seq);
    record_note(r, &j);
}

void record_finish(struct record *r, uint32_t pool, uint64_t now_us, const struct sched_req *q, enum sched_outcome how,
                   const struct sched_usage *u)
{
    struct journal j;
    begin(&j, JOURNAL_FINISH, pool, now_us, q->q.seq);
    j.u.finish.how = how;
    j.u.finish.has_usage = u != NULL;
    j.u.finish.usage = u ? *u : (struct sched_usage){0};
    record_note(r, &j);
}

/* ---- the writing thread ---- */

static int write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        s = str_from(s, (size_t)n);
    }
    return 0;
}

static void write_text(struct record *r)
{
    if (r->text.n && !atomic_load(&r->failed)) {
        if (write_all(r->fd, buf_str(&r->text)) == 0) {
            atomic_fetch_add(&r->written, r->text.n);
        } else {
            atomic_store(&r->failed, true);
            logf_msg(LOG_ERROR, "recording to %s ends here: %s", r->path, strerror(errno));
        }
    }
    buf_clear(&r->text);
}

static void write_half(struct record *r, const struct half *h)
{
    struct journal j;
    for (const char *p = h->p; p < h->p + h->n;) {
        p = unpack(p, &j);
        journal_put(&r->text, &j);
        if (r->text.n >= WRITE_AT)
            write_text(r);
    }
    write_text(r);
}

static struct timespec after(uint64_t us)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_nsec += (long)us * 1000;
    ts.tv_sec += ts.tv_nsec / 1000000000;
    ts.tv_nsec %= 1000000000;
    return ts;
}

static void put_last_gaps(struct record *r)
{
    for (uint32_t i = 0; i < r->n_pools; i++)
        put_gap(r, i);
}

/* The half to write, and whether it is the last one. Waits until it is worth the while. */
static struct half *take_half(struct record *r, bool *last)
{
    struct timespec until = after(FLUSH_US);
    pthread_mutex_lock(&r->lock);
    while (!r->closing && r->half[r->filling].n < r->cap / 4)
        if (pthread_cond_timedwait(&r->wake, &r->lock, &until))
            break;
    struct half *h = &r->half[r->filling];
    r->filling ^= 1; /* to the one that is empty by now */
    *last = r->closing;
    pthread_mutex_unlock(&r->lock);
    return h;
}

static void *writer_main(void *arg)
{
    struct record *r = arg;
    bool last = false;
    while (!last) {
        struct half *h = take_half(r, &last);
        write_half(r, h);
        h->n = 0; /* nobody else looks at it before the halves change places */
    }
    put_last_gaps(r);
    write_half(r, &r->half[r->filling]);
    return NULL;
}

/* ---- life ---- */

static void collect(void *ctx)
{
    struct record *r = ctx;
    metric_set(r->m_dropped, (double)atomic_load(&r->dropped));
    metric_set(r->m_bytes, (double)atomic_load(&r->written));
    metric_set(r->m_failed, atomic_load(&r->failed));
}

static struct metric *single(struct metrics *m, enum metric_type type, const char *name, const char *help)
{
    return metric_series(metric_family(m, type, name, help, (const char *const[]){NULL}, NULL, 0, 1), NULL);
}

static void register_metrics(struct record *r, struct metrics *m)
{
    r->m_dropped = single(m, METRIC_COUNTER, "penstock_record_dropped_total",
                          "Verbs missing in the record because it could not be written fast enough");
    r->m_bytes = single(m, METRIC_COUNTER, "penstock_record_bytes_total", "Bytes written to the record");
    r->m_failed = single(m, METRIC_GAUGE, "penstock_record_failed", "1 after a write error ended the recording");
    metrics_collector(m, collect, r);
}

static int open_file(const char *path, struct errbuf *err)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0)
        return err_set(err, "%s cannot be created: %s.", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        err_set(err, "%s is no regular file.", path);
    else if (st.st_size)
        err_set(err, "%s exists and is not empty: a record is never overwritten or continued.", path);
    else if (flock(fd, LOCK_EX | LOCK_NB))
        err_set(err, "%s is being written by another process.", path);
    else
        return fd;
    close(fd);
    return -1;
}

static int write_head(struct record *r, double time_scale, struct errbuf *err)
{
    char started[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &tm);
    struct journal j = {.type = JOURNAL_HEAD};
    j.u.head.version = JOURNAL_VERSION;
    j.u.head.time_scale = time_scale;
    j.u.head.started = str_c(started);
    j.u.head.program = STR(PENSTOCK_VERSION);
    journal_put(&r->text, &j);
    if (write_all(r->fd, buf_str(&r->text)))
        return err_set(err, "%s cannot be written: %s.", r->path, strerror(errno));
    buf_clear(&r->text);
    return 0;
}

static void record_free(struct record *r)
{
    close(r->fd);
    buf_free(&r->text);
    free(r->half[0].p);
    free(r->half[1].p);
    free(r->lost);
    free(r->path);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void init_wake(struct record *r)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
}

struct record *record_open(const char *path, const struct record_opts *o, struct errbuf *err)
{
    int fd = open_file(path, err);
    if (fd < 0)
        return NULL;
    struct record *r = xcalloc(1, sizeof *r);
    r->fd = fd;
    r->path = str_dup(str_c(path));
    r->cap = (o->buffer ? o->buffer : RECORD_BUFFER) / 2;
    for (int i = 0; i < 2; i++) { /* touched now: no page faults under a pool's lock */
        r->half[i].p = xmalloc(r->cap);
        memset(r->half[i].p, 0, r->cap);
    }
    buf_init(&r->text, WRITE_AT + MAX_LINE);
    pthread_mutex_init(&r->lock, NULL);
    init_wake(r);
    if (write_head(r, o->time_scale, err)) {
        record_free(r);
        return NULL;
    }
    if (o->metrics)
        register_metrics(r, o->metrics);
    CHECK(pthread_create(&r->thread, NULL, writer_main, r) == 0);
    return r;
}

void record_close(struct record *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    record_free(r);
}
