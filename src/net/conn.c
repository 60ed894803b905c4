/* Byte streams over TCP: opening, level-triggered reads into the loop's buffer, closing. Output is conn_out.c.
 *
 *   CONNECTING -> open -> (EOF | SHUT in any order) -> CLOSING (flush) -> LINGER (discard input) -> dead
 *        any state -> FAILED (descriptor closed, on_error or on_connect told) -> dead
 *
 * Results that arise inside a caller's own call (a failed write, a connect that ended at once) are delivered from the
 * loop's ready list at the end of the turn, so that no function of this interface calls back into its caller. */
#include "net/conn_priv.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#define READS_PER_EVENT 4  /* of full buffers; then the others get their turn */
#define DRAIN_READS     16 /* after a failed write: what the peer said before it reset */

struct farewell { /* lives from conn_close to the end */
    struct timer t;
    struct conn *c;
};

static void conn_event(struct watch *w, uint32_t ev);

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

void conn_update_mask(struct conn *c)
{
    if (c->flags & (CF_DISPATCH | CF_READY | CF_UNWATCHED) || !conn_alive(c) || c->w.fd < 0)
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
    conn_drop_output(c);
    c->flags |= CF_DEAD;
    list_remove(&c->link);
    list_push_back(&c->loop->dead, &c->link);
}

void conn_release(struct conn *c)
{
    if (!(c->flags & CF_DEAD))
        free_linger(c);
    close_fd(c);
    conn_drop_output(c);
    free(c);
}

void conn_make_ready(struct conn *c, int err)
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

/* The end of a connection that its owner has not closed: told once, the descriptor is gone before the owner hears of
 * it. */
static void conn_fail(struct conn *c, int err)
{
    if (!conn_alive(c))
        return;
    c->flags |= CF_FAILED;
    close_fd(c);
    conn_drop_output(c);
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

/* A read that did not fill the buffer has emptied the socket, so no second one is spent to hear EAGAIN; and when the
 * event told of the peer's FIN the end has been reached. */
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
        bool into = c->into_n > 0;
        deliver_data(c, p, (size_t)n);
        if (!conn_alive(c) || c->flags & (CF_PAUSED | CF_BROKEN))
            return;
        if (into && !c->into_n && !(ev & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)))
            return; /* the owner's buffer is full: mostly that was all, and if not the next turn tells */
        if (ev & (EPOLLERR | EPOLLHUP))
            continue; /* the error stands behind the data */
        if ((size_t)n < cap) {
            if (ev & EPOLLRDHUP)
                deliver_eof(c);
            return;
        }
    }
}

/* Paused: only the peer's going is looked for. Data in front of its FIN must be read first, so such a FIN waits for the
 * owner. */
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
    if (n == 0) {
        deliver_eof(c);
    } else if (n > 0) {
        c->flags |= CF_NO_RDHUP;
        if (c->ops && c->ops->on_hangup)
            c->ops->on_hangup(c);
    } else if (errno != EAGAIN && errno != EINTR) {
        conn_fail(c, -errno);
    }
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
    if (c->flags & CF_UNWATCHED && !(c->flags & CF_EOF) && conn_alive(c)) {
        c->flags &= ~(uint32_t)CF_UNWATCHED;
        CHECK(watch_add(c->loop, &c->w, wanted_mask(c)));
    }
    conn_update_mask(c);
}

void conn_recv_into(struct conn *c, char *p, size_t n)
{
    c->into = n ? p : NULL;
    c->into_n = n;
}

/* ---- output drained ---- */

static void output_event(struct conn *c)
{
    conn_flush(c);
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

/* A server that closes with input unread, or still coming, resets the connection and may destroy its own last answer on
 * the way (RFC 9112 9.6): so accepted connections end by half close and wait for the peer's FIN. */
static void start_linger(struct conn *c)
{
    if (!(c->flags & CF_ACCEPTED) || c->flags & CF_EOF) {
        conn_kill(c);
        return;
    }
    if (!(c->flags & CF_SHUT))
        conn_half_close(c);
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
        conn_flush(c);
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
        conn_drop_output(c);
    }
    if (c->ops && c->ops->on_connect)
        c->ops->on_connect(c, err);
    if (conn_alive(c) && !(c->flags & CF_BROKEN) && (c->out_n || c->flags & (CF_DRAIN | CF_SHUT_WANT)))
        output_event(c);
}

static bool is_loopback(const struct addr *a)
{
    if (a->ss.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&a->ss.v6.sin6_addr);
    return ntohl(a->ss.v4.sin_addr.s_addr) >> 24 == 127;
}

/* 0: connected; EINPROGRESS: under way; else the error. On loopback the handshake is over when connect() returns
 * although it says EINPROGRESS; asking once more saves the wait for EPOLLOUT, reading SO_ERROR and changing the mask.
 */
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
        conn_make_ready(c, -errno);
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
        conn_make_ready(c, -err);
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
        if (conn_alive(c) && !(c->flags & CF_BROKEN) && ev & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
            input_event(c, ev);
    }
    c->flags &= ~(uint32_t)CF_DISPATCH;
    conn_update_mask(c);
}

/* After a failed write: what the peer sent before it went (an early answer) is still in the socket and comes first. */
static void read_last_words(struct conn *c)
{
    for (int i = 0; i < DRAIN_READS && conn_alive(c) && !(c->flags & (CF_PAUSED | CF_EOF)); i++) {
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
        conn_update_mask(c);
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
