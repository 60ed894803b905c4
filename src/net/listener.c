/* Listening sockets: one per worker and address (SO_REUSEPORT); accepting pauses when the process is out of
 * descriptors. */
#include "net/loop_priv.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#define ACCEPTS_PER_EVENT 64
#define BACKLOG           4096
#define REST_US           100000.0 /* real time to wait for descriptors to come free */

struct listener {
    struct watch w;
    struct loop *loop;
    struct list link;
    struct timer rest; /* armed: out of descriptors */
    void (*on_accept)(struct listener *ln, struct conn *c);
    void *ctx;
    uint16_t port;
};

/* A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d; everybody else wants their IPv4 address. */
static void unmap(struct addr *a)
{
    if (a->ss.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->ss.v6.sin6_addr))
        return;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = a->ss.v6.sin6_port};
    memcpy(&v4.sin_addr, &a->ss.v6.sin6_addr.s6_addr[12], 4);
    memset(a, 0, sizeof(*a));
    a->ss.v4 = v4;
    a->len = sizeof(v4);
}

static void rest_over(struct timer *t)
{
    struct listener *ln = CONTAINER_OF(t, struct listener, rest);
    watch_mod(ln->loop, &ln->w, EPOLLIN);
}

static void rest(struct listener *ln)
{
    watch_mod(ln->loop, &ln->w, 0);
    timer_set(ln->loop, &ln->rest, ln->loop->now_us + (uint64_t)(REST_US * ln->loop->scale));
}

static bool out_of_resources(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM;
}

/* False: no more for this turn. */
static bool accept_one(struct listener *ln)
{
    struct addr peer;
    memset(&peer, 0, sizeof(peer));
    peer.len = sizeof(peer.ss);
    int fd = accept4(ln->w.fd, &peer.ss.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (out_of_resources(errno))
            rest(ln);
        return errno == EINTR || errno == ECONNABORTED || errno == EPROTO;
    }
    unmap(&peer);
    struct conn *c = conn_accepted(ln->loop, fd, &peer);
    if (!c)
        return true;
    ln->on_accept(ln, c);
    if (!conn_has_owner(c))
        conn_abort(c);
    return true;
}

static void on_readable(struct watch *w, uint32_t events UNUSED)
{
    struct listener *ln = CONTAINER_OF(w, struct listener, w);
    for (int i = 0; i < ACCEPTS_PER_EVENT && ln->w.fd >= 0; i++)
        if (!accept_one(ln))
            return;
}

void listener_accept_pending(struct listener *ln)
{
    for (int i = 0; i < BACKLOG && ln->w.fd >= 0; i++)
        if (!accept_one(ln))
            return;
}

static int listen_on(const struct addr *at, const char **step)
{
    int one = 1;
    *step = "open a socket for";
    int fd = socket(at->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted sockets inherit it */
    *step = "bind to";
    if (bind(fd, &at->ss.sa, at->len) < 0)
        goto fail;
    *step = "listen on";
    if (listen(fd, BACKLOG) < 0)
        goto fail;
    return fd;
fail:;
    int keep = errno;
    close(fd);
    errno = keep;
    return -1;
}

struct listener *listener_open(struct loop *l, const struct addr *at,
                               void (*on_accept)(struct listener *ln, struct conn *c), void *ctx, struct errbuf *err)
{
    const char *step;
    char text[ADDR_TEXT];
    int fd = listen_on(at, &step);
    if (fd < 0) {
        int e = errno;
        addr_format(at, text, sizeof(text));
        err_set(err, "Cannot %s %s: %s.", step, text, strerror(e));
        return NULL;
    }
    struct listener *ln = xcalloc(1, sizeof(*ln));
    ln->w = (struct watch){.fn = on_readable, .fd = fd};
    ln->loop = l;
    ln->rest.fn = rest_over;
    ln->on_accept = on_accept;
    ln->ctx = ctx;
    struct addr real;
    memset(&real, 0, sizeof(real));
    real.len = sizeof(real.ss);
    if (getsockname(fd, &real.ss.sa, &real.len) == 0)
        ln->port = addr_port(&real);
    if (!watch_add(l, &ln->w, EPOLLIN)) {
        err_set(err, "Cannot watch a listening socket: %s.", strerror(errno));
        close(fd);
        free(ln);
        return NULL;
    }
    list_push_back(&l->listeners, &ln->link);
    return ln;
}

void *listener_ctx(const struct listener *ln)
{
    return ln->ctx;
}

uint16_t listener_port(const struct listener *ln)
{
    return ln->port;
}

void listener_close(struct listener *ln)
{
    if (!ln)
        return;
    timer_stop(ln->loop, &ln->rest);
    close(ln->w.fd);
    ln->w.fd = -1;
    list_remove(&ln->link);
    list_push_back(&ln->loop->dead_listeners, &ln->link);
}

void listener_reap(struct list *dead)
{
    struct list *e;
    while ((e = list_pop_front(dead))) {
        struct listener *ln = CONTAINER_OF(e, struct listener, link);
        if (ln->w.fd >= 0)
            close(ln->w.fd);
        free(ln);
    }
}
