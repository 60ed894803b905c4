/* net/conn_priv.h - what conn.c and conn_out.c share: the flags of a connection and steps that both take. */
#ifndef NET_CONN_PRIV_H
#define NET_CONN_PRIV_H

#include "net/loop_priv.h"

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

static inline bool conn_alive(const struct conn *c)
{
    return !(c->flags & CF_GONE);
}

/* conn.c */
void conn_update_mask(struct conn *c);         /* what epoll watches, after flags or output changed */
void conn_make_ready(struct conn *c, int err); /* err is delivered at the end of the turn */

/* conn_out.c */
void conn_flush(struct conn *c);       /* sends what waits; then the half close, if one is wanted */
void conn_half_close(struct conn *c);  /* now */
void conn_drop_output(struct conn *c); /* frees what waits */

#endif
