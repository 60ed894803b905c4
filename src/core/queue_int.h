/* core/queue_int.h - what queue.c and queue_flow.c share. A flow of a band has lanes, one per constraint; a group is the lanes of a band with the same
 * constraint, a heap by their flows' counters. A blocked constraint takes its groups out of their bands' heaps, however many flows wait there; the
 * next item is found through the first band, its first group and the first flow there. */
#ifndef CORE_QUEUE_INT_H
#define CORE_QUEUE_INT_H

#include "core/queue_line.h"

/* Hash table of entries that lie in their owners; grows, never shrinks (its size follows the most that was there). */
struct entry {
    struct entry *next;
    uint64_t hash;
};
struct table {
    struct entry **v;
    size_t n, cap; /* cap: 0 or a power of two */
};

struct constraint { /* exists while items have it */
    struct entry e;
    uint64_t id;
    struct list groups;
    struct list blocked; /* in q->blocked */
};
struct group {
    struct band *b;
    struct constraint *c;
    struct list link;      /* in c->groups */
    struct heap lanes;     /* by the counter of the flow */
    struct heap_node node; /* in b->ready while not blocked, by the first lane */
};
struct queue_lane {
    struct queue_flow *f;
    struct group *g;
    struct list link; /* in f->lanes */
    struct heap_node node;
    struct line items;
};
struct band {
    int priority;
    double low;               /* the largest counter that a flow was served at */
    double v;                 /* virtual time: where flows start; low or more, by one charge at most */
    struct heap ready;        /* groups not blocked */
    struct heap resting;      /* flows with nothing waiting or in service, ahead of v; by counter */
    struct line age;          /* items by seq */
    struct heap_node node;    /* in q->ready, highest priority first */
    uint64_t n, out, n_flows; /* items waiting; in service; flows with items waiting */
    uint64_t bytes;           /* of the items waiting */
};
struct queue_flow {
    struct entry e;
    uint64_t id;
    struct band *b;
    double weight, counter;
    double credit; /* how far the counter was below low when it last changed */
    struct list lanes;
    uint64_t stamp;  /* when it was served last, or came: orders equal counters */
    uint64_t n, out; /* items waiting; in service */
    bool resting;
    struct heap_node node; /* in b->resting */
};
struct weight {
    uint64_t flow;
    double weight;
};
struct queue {
    struct band **bands; /* highest priority first */
    size_t n_bands, cap_bands;
    struct heap ready; /* bands with a group that is ready */
    struct table flows, constraints;
    struct list blocked;
    struct line expiry;     /* items with a deadline */
    struct weight *weights; /* by flow */
    uint32_t n_weights;
    uint64_t n, bytes, stamp, seed;
    enum queue_order order;
};

struct band *queue_band_find(const struct queue *q, int priority); /* NULL: none */
struct band *queue_band_get(struct queue *q, int priority);        /* makes it */
void queue_band_free(struct queue *q, struct band *b);             /* with its resting flows; it must have no others */

struct queue_flow *queue_flow_find(const struct queue *q, const struct band *b, uint64_t id); /* NULL: none */
struct queue_flow *queue_flow_get(struct queue *q, struct band *b, uint64_t id);              /* makes it, or wakes it */
void queue_flow_free(struct queue *q, struct queue_flow *f);
void queue_flow_release(struct queue *q, struct queue_flow *f); /* when it may have nothing left: rests or goes, maybe its band too */
void queue_flow_come(struct queue *q, struct queue_flow *f);    /* before its first item is counted */
void queue_flow_serve(struct queue *q, struct queue_flow *f, struct queue_item *it, double tokens); /* charges it; then queue_flow_place */
void queue_flow_correct(struct queue_flow *f, const struct queue_item *it, double tokens);         /* likewise */
void queue_flow_place(struct queue *q, struct queue_flow *f); /* in the groups of its lanes, after its counter changed */
double queue_weight_of(const struct queue *q, uint64_t flow);

struct queue_lane *queue_lane_get(struct queue *q, struct queue_flow *f, uint64_t id); /* makes it */
void queue_lane_place(struct queue *q, struct queue_lane *l);                          /* in its group, when it is new */
void queue_lane_free(struct queue *q, struct queue_lane *l);         /* when it is empty; a group and a constraint without others go with it */
void queue_constraint_place(struct queue *q, struct constraint *c);  /* after it was blocked or unblocked */
struct queue_flow *queue_first_flow(const struct queue *q);          /* that can be served; NULL: none */

#endif
