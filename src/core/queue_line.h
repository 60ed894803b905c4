/* core/queue_line.h - a line of queued items ordered by (key, tie), the smallest first. Private to the queue. Most items come in that order or its
 * reverse and are appended or prepended to a list; only those that belong between others need the heap. The line owns only the heap's array. */
#ifndef CORE_QUEUE_LINE_H
#define CORE_QUEUE_LINE_H

#include "core/queue.h"

struct line {
    struct list run;
    struct heap late;
};

static inline void line_init(struct line *l)
{
    list_init(&l->run);
    heap_init(&l->late);
}

static inline void line_push(struct line *l, struct queue_place *p, uint64_t key, uint64_t tie)
{
    p->heap = (struct heap_node){.key = key, .tie = tie};
    list_init(&p->link);
    if (list_empty(&l->run) || heap_before(&CONTAINER_OF(l->run.prev, struct queue_place, link)->heap, &p->heap))
        list_push_back(&l->run, &p->link);
    else if (heap_before(&p->heap, &CONTAINER_OF(l->run.next, struct queue_place, link)->heap))
        list_push_front(&l->run, &p->link);
    else
        heap_push(&l->late, &p->heap, key);
}

static inline void line_remove(struct line *l, struct queue_place *p)
{
    heap_remove(&l->late, &p->heap);
    list_remove(&p->link);
}

static inline struct queue_place *line_min(const struct line *l)
{
    struct queue_place *a = list_empty(&l->run) ? NULL : CONTAINER_OF(l->run.next, struct queue_place, link);
    struct heap_node *late = heap_min(&l->late);
    if (!late || (a && heap_before(&a->heap, late)))
        return a;
    return CONTAINER_OF(late, struct queue_place, heap);
}

#endif
