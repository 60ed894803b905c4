/* net/loop.h - one event loop per thread: time, timers, messages from other threads, byte streams.
 *
 * Completion style: the loop reads for you and hands over bytes, it tells when output has drained; file descriptors and readiness never show.
 * epoll implements it now (loop_epoll.c), io_uring can later. All calls must come from the loop's thread except loop_post and loop_stop. Objects
 * closed inside a callback are freed at the end of the loop turn, so no callback frees what its caller still uses.
 * Time: microseconds, monotonic, read once per turn; scaled (time_scale 10 = the loop's clock runs ten times as fast) so that every
 * timeout and rate built on it scales with it. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/err.h"
#include "base/heap.h"
#include "base/mailbox.h"
#include "base/str.h"
#include <pthread.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <netinet/in.h>

struct loop;
struct loop *loop_new(double time_scale); /* aborts when the kernel refuses an epoll or event descriptor */
void loop_free(struct loop *l);           /* closes what is still open, without callbacks */
void loop_run(struct loop *l);            /* until loop_stop */
void loop_stop(struct loop *l);           /* thread-safe */
int loop_start(struct loop *l, pthread_t *thread); /* loop_run on a new thread with all signals blocked: they are the control thread's. 0 or an errno */
uint64_t loop_now_us(const struct loop *l); /* of this turn; starts near 1 s so that 0 means "never" */
uint64_t loop_clock_us(struct loop *l);   /* read afresh */
uint64_t clock_us(double time_scale);     /* the same clock without a loop: equal scale, equal origin in one process; thread-safe */
void loop_post(struct loop *l, struct mail *m); /* thread-safe: m->run(m) on the loop's thread */

/* How far the loop is behind, in real seconds whatever its scale. A round is the time from one look at the kernel's list of ready events until
 * all of that list have been handled: who becomes ready meanwhile waits for its rest and for a place in the next.
 * busy: rounds; idle: blocked with nothing to do; lag: what an event that comes at any moment of the window waits on average,
 * sum(round^2) / (busy + idle). Being pushed off the CPU by another process while there is work counts as busy: what matters is that work waits. Being woken
 * late counts as idle: less work would not have helped. */
struct loop_load {
    double busy_s, idle_s, lag_s;
};
/* What has gathered since the last call that returned true; false and nothing taken when that is less than min_s. */
bool loop_take_load(struct loop *l, double min_s, struct loop_load *out);

struct timer { /* embed; zero-initialise; fn is called once on the loop's thread when due */
    struct heap_node node;
    void (*fn)(struct timer *t);
};
void timer_set(struct loop *l, struct timer *t, uint64_t at_us); /* arms or moves */
void timer_stop(struct loop *l, struct timer *t);                /* no-op when not armed */
static inline bool timer_armed(const struct timer *t)
{
    return t->node.idx != 0;
}

struct addr { /* a TCP address, IPv4 or IPv6; small, because every connection keeps its peer's */
    union {
        sa_family_t ss_family;
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } ss;
    socklen_t len;
};
bool addr_parse(struct str host, uint16_t port, struct addr *out) MUST_USE; /* numeric addresses only */
bool addr_parse_hostport(struct str s, uint16_t default_port, struct addr *out) MUST_USE; /* "127.0.0.1:80", "[::1]:80", ":80" (all IPv4 interfaces) */
bool addr_eq(const struct addr *a, const struct addr *b);
size_t addr_format(const struct addr *a, char *out, size_t cap); /* "127.0.0.1:8000", "[::1]:8000"; NUL-terminated */
uint16_t addr_port(const struct addr *a);
void addr_set_port(struct addr *a, uint16_t port);
/* Names too, by the system's resolver: blocks, so for command lines only. False with a sentence in err. */
bool addr_resolve_hostport(struct str s, uint16_t default_port, struct addr *out, struct errbuf *err) MUST_USE;
#define ADDR_KEY_MAX 24
size_t addr_key(const struct addr *a, char out[ADDR_KEY_MAX]); /* bytes that are equal for equal addresses: for maps */
#define ADDR_TEXT 64 /* enough for addr_format */

struct conn; /* a byte stream */
struct conn_ops {
    void (*on_connect)(struct conn *c, int err);      /* outgoing only: 0 or a negative errno; after an error call conn_close */
    void (*on_data)(struct conn *c, struct str data); /* take all of it: valid only during the call */
    void (*on_eof)(struct conn *c);                   /* the peer will send no more; writing may still work */
    void (*on_drain)(struct conn *c);                 /* output that had to wait has all gone to the kernel */
    void (*on_error)(struct conn *c, int err);        /* reset or other failure (negative errno); nothing works any more, call conn_close */
    void (*on_hangup)(struct conn *c);                /* optional. While paused: the peer has ended, behind input that was not read yet */
};
/* Ownership of `ctx` stays with the caller. c is freed by conn_close. */
struct conn *conn_connect(struct loop *l, const struct addr *to, const struct conn_ops *ops, void *ctx); /* never NULL: errors come by on_connect */
void conn_set(struct conn *c, const struct conn_ops *ops, void *ctx); /* changes the owner (pools) */
void *conn_ctx(const struct conn *c);
struct loop *conn_loop(const struct conn *c);
const struct addr *conn_peer(const struct conn *c);
void conn_close(struct conn *c);  /* orderly after pending output is sent (bounded by 5 s); no callbacks follow */
void conn_abort(struct conn *c);  /* RST at once; no callbacks follow */
void conn_shutdown(struct conn *c); /* no more output after what is pending (half close) */
/* Output. conn_write copies what the kernel does not take now; returns the bytes that wait (0 = all gone). conn_send never copies: returns
 * the bytes taken (0 when nothing could be taken); when less than all, on_drain tells when to go on. Do not mix while bytes wait. */
size_t conn_write(struct conn *c, const struct iovec *v, int n);
size_t conn_write_str(struct conn *c, struct str s);
size_t conn_send(struct conn *c, const struct iovec *v, int n);
size_t conn_pending(const struct conn *c); /* bytes copied and waiting */
/* Input. Paused: nothing is read (on_eof/on_error may still come). recv_into: the next bytes, up to n, are read straight to p (on_data gives spans of
 * p); n 0 ends it. The memory must stay until then. */
void conn_pause(struct conn *c, bool paused);
void conn_recv_into(struct conn *c, char *p, size_t n);
bool conn_is_reused(const struct conn *c); /* has been through a pool */

struct listener;
/* Listens with SO_REUSEPORT (every worker opens its own on the same address). on_accept: c has no ops yet, call conn_set before
 * returning. NULL and a sentence in err on failure (address in use without SO_REUSEPORT owner of ours, permission...). */
struct listener *listener_open(struct loop *l, const struct addr *at, void (*on_accept)(struct listener *ln, struct conn *c), void *ctx,
                               struct errbuf *err);
void *listener_ctx(const struct listener *ln);
uint16_t listener_port(const struct listener *ln); /* the real one when 0 was asked for */
void listener_close(struct listener *ln); /* connections that wait to be accepted are reset by the kernel */
void listener_accept_pending(struct listener *ln); /* accepts them now (on_accept is called inside): before a close that shall lose nobody */
/* True when somebody (of any process) already listens on the address: the guard against silently sharing a port. */
bool addr_in_use(const struct addr *at);

/* Idle upstream connections of one loop, by address. Bounded: max_idle per address; closed after idle_us or on any byte or event. */
struct conn_pool;
struct conn_pool *conn_pool_new(struct loop *l, unsigned max_idle, uint64_t idle_us);
void conn_pool_free(struct conn_pool *p);
struct conn *conn_pool_take(struct conn_pool *p, const struct addr *to); /* NULL: none idle; the newest first */
void conn_pool_put(struct conn_pool *p, struct conn *c);                 /* takes ownership */
void conn_pool_drop(struct conn_pool *p, const struct addr *to);         /* closes all idle ones to an address */

#endif
