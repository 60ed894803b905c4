/* Output of byte streams: written at once, only what the kernel does not take is kept (conn_write) or left to the
 * caller (conn_send). */
#include "net/conn_priv.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

void conn_drop_output(struct conn *c)
{
    free(c->out);
    c->out = NULL;
    c->out_off = c->out_n = c->out_cap = 0;
}

static void write_failed(struct conn *c, int err)
{
    c->flags |= CF_BROKEN;
    conn_drop_output(c);
    conn_make_ready(c, err);
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
            mh.msg_iovlen = (size_t)MIN(n, IOV_MAX); /* what is left then waits like what the kernel did not take */
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
    return conn_alive(c) && !(c->flags & (CF_BROKEN | CF_SHUT | CF_SHUT_WANT));
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
        conn_update_mask(c);
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
        conn_update_mask(c);
    }
    return taken;
}

size_t conn_pending(const struct conn *c)
{
    return c->out_n;
}

void conn_half_close(struct conn *c)
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
        conn_half_close(c);
}

void conn_flush(struct conn *c)
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
        conn_drop_output(c); /* an idle connection holds no buffer */
    }
    if (c->flags & CF_SHUT_WANT)
        conn_half_close(c);
}
