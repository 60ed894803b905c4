/* The event loop on epoll: one turn waits, dispatches events, runs timers that are due, delivers deferred results,
 * frees the closed. */
#include "net/loop_priv.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define ORIGIN_US 1000000ull /* what the clock shows when it is first read */

static uint64_t mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

uint64_t clock_us(double time_scale)
{
    static _Atomic uint64_t origin_ns; /* 0: nobody has read the clock yet */
    uint64_t now = mono_ns();
    uint64_t origin = atomic_load_explicit(&origin_ns, memory_order_relaxed);
    if (UNLIKELY(origin == 0)) {
        if (atomic_compare_exchange_strong(&origin_ns, &origin, now))
            origin = now;
    }
    uint64_t past = now > origin ? now - origin : 0;
    if (time_scale == 1.0)
        return ORIGIN_US + past / 1000;
    return ORIGIN_US + (uint64_t)((double)past / 1000.0 * time_scale);
}

uint64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

uint64_t loop_clock_us(struct loop *l)
{
    uint64_t t = clock_us(l->scale);
    l->now_us = MAX(t, l->now_us);
    return l->now_us;
}

bool watch_add(struct loop *l, struct watch *w, uint32_t mask)
{
    struct epoll_event ev = {.events = mask, .data.ptr = w};
    w->mask = mask;
    return epoll_ctl(l->ep, EPOLL_CTL_ADD, w->fd, &ev) == 0;
}

void watch_mod(struct loop *l, struct watch *w, uint32_t mask)
{
    if (w->mask == mask)
        return;
    struct epoll_event ev = {.events = mask, .data.ptr = w};
    w->mask = mask;
    CHECK(epoll_ctl(l->ep, EPOLL_CTL_MOD, w->fd, &ev) == 0);
}

void watch_del(struct loop *l, struct watch *w)
{
    CHECK(epoll_ctl(l->ep, EPOLL_CTL_DEL, w->fd, NULL) == 0);
    w->mask = 0;
}

/* Thread-safe: the mailbox calls it on the posting thread. The counter can only overflow after 2^64 - 2 wakes; a failed
 * write means a wake is pending anyway. */
static void wake(void *ctx)
{
    struct loop *l = ctx;
    uint64_t one = 1;
    ssize_t n = write(l->wake.fd, &one, sizeof(one));
    (void)n;
}

static void on_wake(struct watch *w, uint32_t events UNUSED)
{
    struct loop *l = CONTAINER_OF(w, struct loop, wake);
    uint64_t count;
    ssize_t n = read(w->fd, &count, sizeof(count)); /* before the box is emptied: a later post wakes again */
    (void)n;
    struct mail *m = mailbox_take_all(&l->box);
    while (m) {
        struct mail *next = m->next;
        m->run(m);
        m = next;
    }
}

struct loop *loop_new(double time_scale)
{
    struct loop *l = xcalloc(1, sizeof(*l));
    l->scale = isfinite(time_scale) && time_scale > 0 ? time_scale : 1.0;
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    l->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(l->ep >= 0 && l->wake.fd >= 0);
    l->wake.fn = on_wake;
    CHECK(watch_add(l, &l->wake, EPOLLIN));
    heap_init(&l->timers);
    mailbox_init(&l->box, wake, l);
    list_init(&l->conns);
    list_init(&l->ready);
    list_init(&l->dead);
    list_init(&l->listeners);
    list_init(&l->dead_listeners);
    l->rbuf = xmalloc(LOOP_RBUF);
    l->now_us = clock_us(l->scale);
    return l;
}

static void reap(struct list *conns)
{
    struct list *e;
    while ((e = list_pop_front(conns)))
        conn_release(CONTAINER_OF(e, struct conn, link));
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    reap(&l->conns);
    reap(&l->ready);
    reap(&l->dead);
    listener_reap(&l->listeners);
    listener_reap(&l->dead_listeners);
    heap_free(&l->timers);
    close(l->wake.fd);
    close(l->ep);
    free(l->rbuf);
    free(l);
}

void loop_post(struct loop *l, struct mail *m)
{
    mailbox_post(&l->box, m);
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stop, true);
    wake(l);
}

void timer_set(struct loop *l, struct timer *t, uint64_t at_us)
{
    heap_update(&l->timers, &t->node, at_us);
}

void timer_stop(struct loop *l, struct timer *t)
{
    heap_remove(&l->timers, &t->node);
}

/* Timers that callbacks arm for now or earlier run in the next turn: a timer that re-arms itself cannot starve the
 * sockets. */
static void run_timers(struct loop *l)
{
    size_t left = l->timers.n;
    struct heap_node *min;
    while (left-- > 0 && (min = heap_min(&l->timers)) && min->key <= l->now_us) {
        struct timer *t = CONTAINER_OF(min, struct timer, node);
        heap_remove(&l->timers, min);
        t->fn(t);
    }
}

static void run_ready(struct loop *l)
{
    struct list todo, *e;
    list_move(&todo, &l->ready);
    while ((e = list_pop_front(&todo))) {
        list_push_back(&l->conns, e);
        conn_run_ready(CONTAINER_OF(e, struct conn, link));
    }
}

/* Real nanoseconds until the next timer, rounded up so that a turn never comes too early; -1 when nothing is armed. */
static int64_t wait_ns(struct loop *l)
{
    if (!list_empty(&l->ready) || !list_empty(&l->dead))
        return 0;
    const struct heap_node *min = heap_min(&l->timers);
    if (!min)
        return -1;
    uint64_t now = loop_clock_us(l);
    if (min->key <= now)
        return 0;
    double ns = ceil((double)(min->key - now) * 1000.0 / l->scale);
    return ns < 3.6e12 ? (int64_t)ns : (int64_t)3.6e12; /* look again after an hour at the latest */
}

static int wait_events(struct loop *l, struct epoll_event *evs)
{
    int64_t ns = wait_ns(l);
    if (ns > 0 && !l->no_pwait2) {
        struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        int n = epoll_pwait2(l->ep, evs, LOOP_EVENTS, &ts, NULL);
        if (n >= 0 || errno == EINTR)
            return n;
        l->no_pwait2 = true; /* an older kernel, or a container's filter that does not know it */
    }
    int ms = ns <= 0 ? (int)ns : (int)((ns + 999999) / 1000000);
    return epoll_wait(l->ep, evs, LOOP_EVENTS, ms);
}

static void end_round(struct loop *l, uint64_t now_ns)
{
    double s = (double)(now_ns - l->round_ns) * 1e-9;
    l->busy_s += s;
    l->busy_sq += s * s;
}

bool loop_take_load(struct loop *l, double min_s, struct loop_load *out)
{
    double all_s = l->busy_s + l->idle_s;
    if (!(all_s >= min_s) || all_s <= 0)
        return false;
    *out = (struct loop_load){l->busy_s, l->idle_s, l->busy_sq / all_s};
    l->busy_s = l->idle_s = l->busy_sq = 0;
    return true;
}

static void turn(struct loop *l)
{
    struct epoll_event evs[LOOP_EVENTS];
    uint64_t from_ns = mono_ns();
    if (!l->more)
        end_round(l, from_ns);
    int n = wait_events(l, evs);
    CHECK(n >= 0 || errno == EINTR);
    if (!l->more) {
        l->round_ns = mono_ns();
        l->idle_s += (double)(l->round_ns - from_ns) * 1e-9;
    }
    l->more = n == LOOP_EVENTS;
    loop_clock_us(l);
    for (int i = 0; i < n; i++) {
        struct watch *w = evs[i].data.ptr;
        w->fn(w, evs[i].events); /* closed by an earlier one of this batch: the memory is still there, fd is -1 */
    }
    run_timers(l);
    run_ready(l);
    reap(&l->dead);
    listener_reap(&l->dead_listeners);
}

void loop_run(struct loop *l)
{
    l->round_ns = mono_ns();
    while (!atomic_load(&l->stop))
        turn(l);
    atomic_store(&l->stop, false);
}

static void *thread_main(void *loop)
{
    loop_run(loop);
    return NULL;
}

int loop_start(struct loop *l, pthread_t *thread)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(thread, NULL, thread_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}
