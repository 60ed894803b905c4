/* base/mailbox.c - multi-producer single-consumer queue: a stack that is pushed by compare-and-swap and taken whole. */
#include "base/mailbox.h"

void mailbox_init(struct mailbox *b, void (*wake)(void *ctx), void *ctx)
{
    atomic_init(&b->head, NULL);
    b->wake = wake;
    b->ctx = ctx;
}

/* Taking the whole stack means no pointer in it is ever compared after reuse, so there is no ABA problem. */
void mailbox_post(struct mailbox *b, struct mail *m)
{
    struct mail *head = atomic_load_explicit(&b->head, memory_order_relaxed);
    do {
        m->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&b->head, &head, m, memory_order_release, memory_order_relaxed));
    if (!head && b->wake) /* m may be gone by now */
        b->wake(b->ctx);
}

struct mail *mailbox_take_all(struct mailbox *b)
{
    struct mail *newest = atomic_exchange_explicit(&b->head, NULL, memory_order_acquire), *oldest = NULL;
    while (newest) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}
