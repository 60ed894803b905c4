/* Byte streams over TCP: level-triggered reads into the loop's buffer, writes at once with only the remainder kept.
 *
 *   CONNECTING -> open -> (EOF | SHUT in any order) -> CLOSING (flush) -> LINGER (discard input) -> dead
 *        any state -> FAILED (descriptor closed, on_error or on_connect told) -> dead
 *
 * Results that arise inside a caller's own call (a failed write, a connect that ended at once) are delivered from the loop's ready list at
 * the end of the turn, so that no function of this interface calls back into its caller. */
#include "net/loop_priv.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#define READS_PER_EVENT 4 /* of full buffers; then the others get their turn */
#define DRAIN_READS 16    /* after a failed write: what the peer said before it reset */

enum {
    CF_CONNECTING = BIT(0),
    CF_ACCEPTED = BIT(1),
    CF_REUSED = BIT(2),
    CF_PAUSED = BIT(3),
    CF_NO_IN = BIT(4),     /* paused and data waits: EPOLLIN is not armed */
    CF_NO_RDHUP = BIT(5),  /* paused with data in front of the peer's FIN: EPOLLRDHUP is not armed */
    CF_EOF = BIT(6),       /* on_eof was told */
    CF_SHUT_WANT = BIT(7), /* half close once pending output is gone */
    CF_SHUT = BIT(8),
    CF_DRAIN = BIT(9),      /* on_drain is owed */
    CF_BROKEN = BIT(10),    /* a write failed; on_error follows from the ready list */
    CF_FAILED = BIT(11),    /* on_error or a failed on_connect was told */
    CF_CLOSING = BIT(12),   /* conn_close: flushing */
    CF_LINGER = BIT(13),    /* conn_close: waiting for the peer's FIN */
    CF_DEAD = BIT(14),      /* freed at the end of the turn */
    CF_DISPATCH = BIT(15),  /* inside conn_event: the mask is brought up to date at its end */
    CF_UNWATCHED = BIT(16), /* not in the epoll set (EPOLLHUP cannot be masked) */
    CF_READY = BIT(17),     /* on the ready list: events wait for what is delivered there */
};
#define CF_GONE (CF_FAILED | CF_CLOSING | CF_LINGER | CF_DEAD) /* no callbacks any more */

struct farewell { /* lives from conn_close to the end */
    struct timer t;
    struct conn *c;
};

static void conn_event(struct watch *w, uint32_t ev);

static bool alive(const struct conn *c)
{
    return !(c->flags & CF_GONE);
}

static uint32_t wanted_mask(const struct conn *c)
{
    uint32_t m = 0;
    if (!(c->flags & (CF_EOF | CF_NO_IN)))
        m |= EPOLLIN;
    if (!(c->flags & (CF_EOF | CF_NO_RDHUP)))
        m |= EPOLLRDHUP;
    if (c->flags & (CF_CONNECTING | CF_DRAIN) || c->out_n)
        m |= EPOLLOUT;
    return m;
}

static void update_mask(struct conn *c)
{
    if (c->flags & (CF_DISPATCH | CF_READY | CF_UNWATCHED) || !alive(c) || c->w.fd < 0)
        return;
    watch_mod(c->loop, &c->w, wanted_mask(c));
}

static struct conn *conn_alloc(struct loop *l, const struct addr *peer, uint32_t flags)
{
    struct conn *c = xcalloc(1, sizeof(*c));
    c->w = (struct watch){.fn = conn_event, .fd = -1};
    c->loop = l;
    c->peer = *peer;
    c->flags = flags;
    list_push_back(&l->conns, &c->link);
    return c;
}

static void drop_output(struct conn *c)
{
    free(c->out);
    c->out = NULL;
    c->out_off = c->out_n = c->out_cap = 0;
}

static void close_fd(struct conn *c)
{
    if (c->w.fd >= 0)
        close(c->w.fd); /* leaves the epoll set by itself: the descriptor is never duplicated */
    c->w.fd = -1;
}

static void free_linger(struct conn *c)
{
    if (!(c->flags & (CF_CLOSING | CF_LINGER)))
        return;
    struct farewell *fw = c->ctx;
    c->ctx = NULL;
    timer_stop(c->loop, &fw->t);
    free(fw);
}

static void conn_kill(struct conn *c)
{
    if (c->flags & CF_DEAD)
        return;
    free_linger(c);
    close_fd(c);
    drop_output(c);
    c->flags |= CF_DEAD;
    list_remove(&c->link);
    list_push_back(&c->loop->dead, &c->link);
}

void conn_release(struct conn *c)
{
    if (!(c->flags & CF_DEAD))
        free_linger(c);
    close_fd(c);
    drop_output(c);
    free(c);
}

static void make_ready(struct conn *c, int err)
{
    c->err = err;
    c->flags |= CF_READY;
    list_remove(&c->link);
    list_push_back(&c->loop->ready, &c->link);
}

static int so_error(const struct conn *c)
{
    int err = 0;
    socklen_t n = sizeof(err);
    if (getsockopt(c->w.fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
        return errno;
    return err;
}

/* The end of a connection that its owner has not closed: told once, the descriptor is gone before the owner hears of it. */
static void conn_fail(struct conn *c, int err)
{
    if (!alive(c))
        return;
    c->flags |= CF_FAILED;
    close_fd(c);
    drop_output(c);
    if (c->ops && c->ops->on_error)
        c->ops->on_error(c, err);
}

static void deliver_eof(struct conn *c)
{
    c->flags |= CF_EOF;
    if (c->ops && c->ops->on_eof)
        c->ops->on_eof(c);
}

static void deliver_data(struct conn *c, char *p, size_t n)
{
    if (c->into_n) {
        c->into += n;
        c->into_n -= n;
    }
    if (c->ops && c->ops->on_data)
        c->ops->on_data(c, (struct str){p, n});
}

/* ---- input ---- */

static ssize_t read_once(struct conn *c, char **p, size_t *cap)
{
    *p = c->into_n ? c->into : c->loop->rbuf;
    *cap = c->into_n ? c->into_n : LOOP_RBUF;
    ssize_t n;
    do
        n = recv(c->w.fd, *p, *cap, 0);
    while (n < 0 && errno == EINTR);
    return n;
}

/* A read that did not fill the buffer has emptied the socket, so no second one is spent to hear EAGAIN; and when the event told of the peer's
 * FIN the end has been reached. */
static void conn_read(struct conn *c, uint32_t ev)
{
    for (int i = 0; i < READS_PER_EVENT; i++) {
        char *p;
        size_t cap;
        ssize_t n = read_once(c, &p, &cap);
        if (n < 0) {
            if (errno != EAGAIN)
                conn_fail(c, -errno);
            return;
        }
        if (n == 0) {
            deliver_eof(c);
            return;
        }
        deliver_data(c, p, (size_t)n);
        if (!alive(c) || c->flags & (CF_PAUSED | CF_BROKEN))
            return;
        if (ev & (EPOLLERR | EPOLLHUP))
            continue; /* the error stands behind the data */
        if ((size_t)n < cap) {
            if (ev & EPOLLRDHUP)
                deliver_eof(c);
            return;
        }
    }
}

/* Paused: only the peer's going is looked for. Data in front of its FIN must be read first, so such a FIN waits for the owner. */
static void paused_input(struct conn *c, uint32_t ev)
{
    if (ev & EPOLLIN)
        c->flags |= CF_NO_IN;
    if (ev & (EPOLLERR | EPOLLHUP)) {
        int err = so_error(c);
        if (err == 0 && c->flags & CF_SHUT) { /* both directions ended in order */
            watch_del(c->loop, &c->w);
            c->flags |= CF_UNWATCHED;
            return;
        }
        conn_fail(c, err ? -err : -ECONNRESET);
        return;
    }
    if (!(ev & EPOLLRDHUP))
        return;
    char byte;
    ssize_t n = recv(c->w.fd, &byte, 1, MSG_PEEK);
    if (n == 0)
        deliver_eof(c);
    else if (n > 0)
        c->flags |= CF_NO_RDHUP;
    else if (errno != EAGAIN && errno != EINTR)
        conn_fail(c, -errno);
}

static void input_after_eof(struct conn *c, uint32_t ev)
{
    if (!(ev & (EPOLLERR | EPOLLHUP)))
        return;
    int err = so_error(c);
    if (err == 0 && c->flags & CF_SHUT) {
        watch_del(c->loop, &c->w);
        c->flags |= CF_UNWATCHED;
        return;
    }
    conn_fail(c, err ? -err : -ECONNRESET);
}

static void input_event(struct conn *c, uint32_t ev)
{
    if (c->flags & CF_EOF)
        input_after_eof(c, ev);
    else if (c->flags & CF_PAUSED)
        paused_input(c, ev);
    else
        conn_read(c, ev);
}

/* Pausing costs no system call: EPOLLIN is taken out only if something arrives meanwhile. */
void conn_pause(struct conn *c, bool paused)
{
    if (paused) {
        c->flags |= CF_PAUSED;
        return;
    }
    c->flags &= ~(uint32_t)(CF_PAUSED | CF_NO_IN | CF_NO_RDHUP);
    if (c->flags & CF_UNWATCHED && !(c->flags & CF_EOF) && alive(c)) {
        c->flags &= ~(uint32_t)CF_UNWATCHED;
        CHECK(watch_add(c->loop, &c->w, wanted_mask(c)));
    }
    update_mask(c);
}

void conn_recv_into(struct conn *c, char *p, size_t n)
{
    c->into = n ? p : NULL;
    c->into_n = n;
}

/* ---- output ---- */

static void write_failed(struct conn *c, int err)
{
    c->flags |= CF_BROKEN;
    drop_output(c);
    make_ready(c, err);
}

/* Bytes the kernel took; -1 when the connection broke. */
static ssize_t send_iov(struct conn *c, const struct iovec *v, int n)
{
    ssize_t got;
    do {
        if (n == 1) {
            got = send(c->w.fd, v->iov_base, v->iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr mh = {0};
            memcpy(&mh.msg_iov, &v, sizeof(v)); /* sendmsg does not write through it, but its type says it might */
            mh.msg_iovlen = (size_t)n;
            got = sendmsg(c->w.fd, &mh, MSG_NOSIGNAL);
        }
    } while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    if (errno == EAGAIN)
        return 0;
    write_failed(c, -errno);
    return -1;
}

static void keep_output(struct conn *c, const char *p, size_t n)
{
    if (n == 0)
        return;
    if (c->out_off + c->out_n + n > c->out_cap) {
        if (c->out_n + n > c->out_cap || c->out_off < c->out_cap / 2) {
            size_t cap = MAX(c->out_cap * 2, (size_t)2048);
            while (cap < c->out_n + n)
                cap *= 2;
            char *bigger = xmalloc(cap);
            if (c->out_n)
                memcpy(bigger, c->out + c->out_off, c->out_n);
            free(c->out);
            c->out = bigger;
            c->out_cap = cap;
        } else {
            memmove(c->out, c->out + c->out_off, c->out_n);
        }
        c->out_off = 0;
    }
    memcpy(c->out + c->out_off + c->out_n, p, n);
    c->out_n += n;
}

static size_t iov_bytes(const struct iovec *v, int n)
{
    size_t all = 0;
    for (int i = 0; i < n; i++)
        all += v[i].iov_len;
    return all;
}

static bool writable(const struct conn *c)
{
    return alive(c) && !(c->flags & (CF_BROKEN | CF_SHUT | CF_SHUT_WANT));
}

size_t conn_write(struct conn *c, const struct iovec *v, int n)
{
    if (!writable(c))
        return 0;
    size_t taken = 0;
    if (c->out_n == 0 && !(c->flags & CF_CONNECTING)) {
        size_t all = iov_bytes(v, n);
        ssize_t got = all ? send_iov(c, v, n) : 0;
        if (got < 0 || (size_t)got == all)
            return 0;
        taken = (size_t)got;
    }
    for (int i = 0; i < n; i++) {
        size_t skip = MIN(taken, v[i].iov_len);
        taken -= skip;
        keep_output(c, (const char *)v[i].iov_base + skip, v[i].iov_len - skip);
    }
    if (c->out_n) {
        c->flags |= CF_DRAIN;
        update_mask(c);
    }
    return c->out_n;
}

size_t conn_write_str(struct conn *c, struct str s)
{
    struct iovec v = {.iov_len = s.n};
    memcpy(&v.iov_base, &s.p, sizeof(s.p)); /* only read from */
    return conn_write(c, &v, 1);
}

size_t conn_send(struct conn *c, const struct iovec *v, int n)
{
    if (!writable(c))
        return 0;
    size_t all = iov_bytes(v, n), taken = 0;
    if (c->out_n == 0 && !(c->flags & CF_CONNECTING) && all) {
        ssize_t got = send_iov(c, v, n);
        if (got < 0)
            return 0;
        taken = (size_t)got;
    }
    if (taken < all) {
        c->flags |= CF_DRAIN;
        update_mask(c);
    }
    return taken;
}

size_t conn_pending(const struct conn *c)
{
    return c->out_n;
}

static void half_close(struct conn *c)
{
    c->flags = (c->flags & ~(uint32_t)CF_SHUT_WANT) | CF_SHUT;
    shutdown(c->w.fd, SHUT_WR);
}

void conn_shutdown(struct conn *c)
{
    if (!writable(c))
        return;
    if (c->out_n || c->flags & CF_CONNECTING)
        c->flags |= CF_SHUT_WANT;
    else
        half_close(c);
}

static void flush(struct conn *c)
{
    if (c->out_n) {
        struct iovec v = {c->out + c->out_off, c->out_n};
        ssize_t got = send_iov(c, &v, 1);
        if (got < 0)
            return;
        c->out_off += (size_t)got;
        c->out_n -= (size_t)got;
        if (c->out_n)
            return;
        drop_output(c); /* an idle connection holds no buffer */
    }
    if (c->flags & CF_SHUT_WANT)
        half_close(c);
}

static void output_event(struct conn *c)
{
    flush(c);
    if (c->out_n || c->flags & CF_BROKEN || !(c->flags & CF_DRAIN))
        return;
    c->flags &= ~(uint32_t)CF_DRAIN;
    if (c->ops && c->ops->on_drain)
        c->ops->on_drain(c);
}

/* ---- closing ---- */

static void linger_over(struct timer *t)
{
    struct farewell *fw = CONTAINER_OF(t, struct farewell, t);
    conn_kill(fw->c);
}

/* A server that closes with input unread, or still coming, resets the connection and may destroy its own last answer on the way (RFC 9112 9.6):
 * so accepted connections end by half close and wait for the peer's FIN. */
static void start_linger(struct conn *c)
{
    if (!(c->flags & CF_ACCEPTED) || c->flags & CF_EOF) {
        conn_kill(c);
        return;
    }
    if (!(c->flags & CF_SHUT))
        half_close(c);
    c->flags = (c->flags & ~(uint32_t)CF_CLOSING) | CF_LINGER;
    watch_mod(c->loop, &c->w, EPOLLIN | EPOLLRDHUP);
}

static void discard_input(struct conn *c)
{
    for (int i = 0; i < READS_PER_EVENT; i++) {
        ssize_t n = recv(c->w.fd, c->loop->rbuf, LOOP_RBUF, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            conn_kill(c);
            return;
        }
        if (n < LOOP_RBUF)
            return;
    }
}

static void closing_event(struct conn *c, uint32_t ev)
{
    if (c->flags & CF_LINGER) {
        discard_input(c);
        return;
    }
    if (ev & EPOLLOUT)
        flush(c);
    if (c->flags & CF_BROKEN || ev & (EPOLLERR | EPOLLHUP))
        conn_kill(c);
    else if (c->out_n == 0)
        start_linger(c);
}

void conn_close(struct conn *c)
{
    if (c->flags & (CF_DEAD | CF_CLOSING | CF_LINGER))
        return;
    if (c->w.fd < 0 || c->flags & (CF_FAILED | CF_BROKEN | CF_CONNECTING | CF_UNWATCHED)) {
        conn_kill(c);
        return;
    }
    if (c->out_n == 0 && (!(c->flags & CF_ACCEPTED) || c->flags & CF_EOF)) {
        conn_kill(c);
        return;
    }
    struct farewell *fw = xcalloc(1, sizeof(*fw));
    *fw = (struct farewell){.t.fn = linger_over, .c = c};
    timer_set(c->loop, &fw->t, c->loop->now_us + CLOSE_WAIT_US);
    c->ctx = fw;
    c->ops = NULL;
    c->into = NULL;
    c->into_n = 0;
    c->flags |= CF_CLOSING;
    if (c->out_n)
        watch_mod(c->loop, &c->w, EPOLLOUT);
    else
        start_linger(c);
}

void conn_abort(struct conn *c)
{
    if (c->flags & CF_DEAD)
        return;
    if (c->w.fd >= 0) {
        struct linger rst = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->w.fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
    }
    conn_kill(c);
}

/* ---- connecting ---- */

static void connected(struct conn *c, int err)
{
    c->flags &= ~(uint32_t)CF_CONNECTING;
    if (err) {
        c->flags |= CF_FAILED;
        close_fd(c);
        drop_output(c);
    }
    if (c->ops && c->ops->on_connect)
        c->ops->on_connect(c, err);
    if (alive(c) && !(c->flags & CF_BROKEN) && (c->out_n || c->flags & (CF_DRAIN | CF_SHUT_WANT)))
        output_event(c);
}

static bool is_loopback(const struct addr *a)
{
    if (a->ss.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&a->ss.v6.sin6_addr);
    return ntohl(a->ss.v4.sin_addr.s_addr) >> 24 == 127;
}

/* 0: connected; EINPROGRESS: under way; else the error. On loopback the handshake is over when connect() returns although it says
 * EINPROGRESS; asking once more saves the wait for EPOLLOUT, reading SO_ERROR and changing the mask. */
static int start_connect(int fd, const struct addr *to)
{
    if (connect(fd, &to->ss.sa, to->len) == 0)
        return 0;
    if (errno != EINPROGRESS || !is_loopback(to))
        return errno == EINTR ? EINPROGRESS : errno;
    if (connect(fd, &to->ss.sa, to->len) == 0 || errno == EISCONN)
        return 0;
    return errno == EALREADY || errno == EINTR ? EINPROGRESS : errno;
}

struct conn *conn_connect(struct loop *l, const struct addr *to, const struct conn_ops *ops, void *ctx)
{
    struct conn *c = conn_alloc(l, to, CF_CONNECTING);
    c->ops = ops;
    c->ctx = ctx;
    c->w.fd = socket(to->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->w.fd < 0) {
        make_ready(c, -errno);
        return c;
    }
    int one = 1;
    setsockopt(c->w.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    int err = start_connect(c->w.fd, to);
    if (err == 0 || err == EINPROGRESS) {
        uint32_t mask = EPOLLIN | EPOLLRDHUP | (err ? (uint32_t)EPOLLOUT : 0);
        if (!watch_add(l, &c->w, mask))
            err = errno;
    }
    if (err != EINPROGRESS)
        make_ready(c, -err);
    return c;
}

struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer)
{
    struct conn *c = conn_alloc(l, peer, CF_ACCEPTED);
    c->w.fd = fd;
    if (watch_add(l, &c->w, EPOLLIN | EPOLLRDHUP))
        return c;
    list_remove(&c->link);
    conn_release(c);
    return NULL;
}

/* ---- events ---- */

static void conn_event(struct watch *w, uint32_t ev)
{
    struct conn *c = CONTAINER_OF(w, struct conn, w);
    if (c->w.fd < 0)
        return;
    if (c->flags & (CF_CLOSING | CF_LINGER)) {
        closing_event(c, ev);
        return;
    }
    if (c->flags & (CF_READY | CF_UNWATCHED))
        return;
    c->flags |= CF_DISPATCH;
    if (c->flags & CF_CONNECTING) {
        if (ev & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            connected(c, -so_error(c));
    } else {
        if (ev & EPOLLOUT)
            output_event(c);
        if (alive(c) && !(c->flags & CF_BROKEN) && ev & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
            input_event(c, ev);
    }
    c->flags &= ~(uint32_t)CF_DISPATCH;
    update_mask(c);
}

/* After a failed write: what the peer sent before it went (an early answer) is still in the socket and comes first. */
static void read_last_words(struct conn *c)
{
    for (int i = 0; i < DRAIN_READS && alive(c) && !(c->flags & (CF_PAUSED | CF_EOF)); i++) {
        char *p;
        size_t cap;
        ssize_t n = read_once(c, &p, &cap);
        if (n <= 0)
            return;
        deliver_data(c, p, (size_t)n);
    }
}

void conn_run_ready(struct conn *c)
{
    c->flags &= ~(uint32_t)CF_READY;
    if (c->flags & CF_CONNECTING) {
        connected(c, c->err);
        update_mask(c);
        return;
    }
    read_last_words(c);
    conn_fail(c, c->err);
}

/* ---- owner ---- */

void conn_set(struct conn *c, const struct conn_ops *ops, void *ctx)
{
    if (c->flags & (CF_CLOSING | CF_LINGER | CF_DEAD))
        return;
    c->ops = ops;
    c->ctx = ctx;
}

void *conn_ctx(const struct conn *c)
{
    return c->ctx;
}

struct loop *conn_loop(const struct conn *c)
{
    return c->loop;
}

const struct addr *conn_peer(const struct conn *c)
{
    return &c->peer;
}

bool conn_is_reused(const struct conn *c)
{
    return c->flags & CF_REUSED;
}

void conn_mark_reused(struct conn *c)
{
    c->flags |= CF_REUSED;
}

bool conn_is_reusable(const struct conn *c)
{
    uint32_t over = CF_CONNECTING | CF_EOF | CF_SHUT | CF_SHUT_WANT | CF_BROKEN | CF_GONE;
    return c->out_n == 0 && !(c->flags & over);
}

bool conn_is_closed(const struct conn *c)
{
    return c->flags & (CF_CLOSING | CF_LINGER | CF_DEAD);
}

bool conn_has_owner(const struct conn *c)
{
    return c->ops || conn_is_closed(c);
}
