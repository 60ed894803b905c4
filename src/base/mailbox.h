/* base/mailbox.h - multi-producer single-consumer queue of intrusive messages.
 *
 * mailbox_post is thread-safe and lock-free; it calls the wake hook only when the box was empty. mailbox_take_all hands the
 * consumer every message posted so far, in posting order. The messages are the caller's. */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include "base/compiler.h"
#include <stdatomic.h>

struct mail {
    struct mail *next;
    void (*run)(struct mail *m); /* called by the consumer's loop; may free the message */
};
struct mailbox {
    _Atomic(struct mail *) head; /* newest first */
    void (*wake)(void *ctx);
    void *ctx;
};

void mailbox_init(struct mailbox *b, void (*wake)(void *ctx), void *ctx);
void mailbox_post(struct mailbox *b, struct mail *m);
struct mail *mailbox_take_all(struct mailbox *b); /* oldest first, linked by next; NULL when empty */

#endif
