/* base/list.h - intrusive doubly linked list; a head is a link that points to itself. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/compiler.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline bool list_linked(const struct list *l) /* an entry that was initialised: is it on a list? */
{
    return l->next != l;
}
static inline void list_insert_(struct list *prev, struct list *next, struct list *e)
{
    e->prev = prev;
    e->next = next;
    prev->next = e;
    next->prev = e;
}
static inline void list_push_back(struct list *head, struct list *e)
{
    list_insert_(head->prev, head, e);
}
static inline void list_push_front(struct list *head, struct list *e)
{
    list_insert_(head, head->next, e);
}
static inline void list_remove(struct list *e) /* safe on an entry that is not linked; leaves it initialised */
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}
static inline struct list *list_pop_front(struct list *head) /* NULL when empty */
{
    struct list *e = head->next;
    if (e == head)
        return NULL;
    list_remove(e);
    return e;
}
/* Moves everything from `from` to the (initialised) empty head `to`: the way to iterate while callbacks change the list. */
static inline void list_move(struct list *to, struct list *from)
{
    list_init(to);
    if (list_empty(from))
        return;
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}
#define LIST_EACH(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
#define LIST_EACH_SAFE(it, tmp, head)                                                                                            \
    for (struct list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
