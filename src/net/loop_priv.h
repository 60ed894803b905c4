/* net/loop_priv.h - what the files of net share: the loop's inside, watched descriptors, the connection object. */
#ifndef NET_LOOP_PRIV_H
#define NET_LOOP_PRIV_H

#include "base/list.h"
#include "net/loop.h"
#include <sys/epoll.h>

#define LOOP_EVENTS 256          /* per epoll_wait */
#define LOOP_RBUF (64 * 1024)    /* the loop's one read buffer */
#define CLOSE_WAIT_US 5000000ull /* bound on flushing and lingering after conn_close */

struct watch { /* a descriptor in the loop's epoll set */
    void (*fn)(struct watch *w, uint32_t events);
    int fd;        /* -1 when closed */
    uint32_t mask; /* events armed in the kernel */
};

struct loop {
    int ep;
    double scale;
    uint64_t now_us;
    struct heap timers;
    struct watch wake; /* eventfd behind the mailbox */
    struct mailbox box;
    _Atomic bool stop;
    bool no_pwait2;         /* the kernel has only millisecond timeouts */
    bool more;              /* the last look has not seen everything that is ready */
    uint64_t round_ns;      /* begin of the round */
    double busy_s, idle_s, busy_sq; /* gathered: rounds, waits, squares of rounds */
    struct list conns;      /* open connections ... */
    struct list ready;      /* ... those of them with a result to deliver at the end of this turn ... */
    struct list dead;       /* ... and closed ones, freed at the end of this turn */
    struct list listeners;  /* open listeners */
    struct list dead_listeners;
    char *rbuf;
};

bool watch_add(struct loop *l, struct watch *w, uint32_t mask);
void watch_mod(struct loop *l, struct watch *w, uint32_t mask); /* no-op when the mask is already so */
void watch_del(struct loop *l, struct watch *w);

struct conn {
    struct watch w;
    struct loop *loop;
    const struct conn_ops *ops;
    void *ctx;         /* the owner's; after conn_close the linger timer */
    struct list link;  /* on one of the loop's lists */
    struct addr peer;
    char *out; /* output the kernel has not taken; NULL when there is none */
    size_t out_off, out_n, out_cap;
    char *into; /* where the next bytes go; NULL: the loop's buffer */
    size_t into_n;
    uint32_t flags;
    int err; /* to deliver from the ready list */
};
_Static_assert(sizeof(struct conn) <= 200, "an idle connection is only this object");

struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer); /* takes the fd; NULL (fd closed) when it cannot be watched */
bool conn_has_owner(const struct conn *c); /* ops set, or closed */
bool conn_is_closed(const struct conn *c); /* closed by us: dead at the end of this turn; valid only within it */
bool conn_is_reusable(const struct conn *c); /* both directions open, nothing waits */
void conn_mark_reused(struct conn *c);
void conn_run_ready(struct conn *c); /* delivers what waited for the end of the turn */
void conn_release(struct conn *c);   /* frees everything at once, without callbacks */
void listener_reap(struct list *dead); /* frees the listeners of a list, closing what is open */

#endif
