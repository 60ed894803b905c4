/* core/queue.c - bands of groups of lanes of items.
 *
 * A group is what the flows of one band have waiting with the same constraint: a heap of lanes by their flows'
 * counters. A blocked constraint takes its groups out of their bands' heaps, however many flows wait there; the next
 * item is found through the first band, its first group and the first flow there. A flow whose counter changes is moved
 * in the groups of all its lanes. */
#include "core/queue.h"
#include "base/hash.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 1e12
#define MIN_WEIGHT 1e-6
#define MAX_WEIGHT 1e6

/* Hash table of entries that lie in their owners; grows, never shrinks (its size follows the most that was there). */
struct entry {
    struct entry *next;
    uint64_t hash;
};
struct table {
    struct entry **v;
    size_t n, cap; /* cap: 0 or a power of two */
};

/* Items by (key, tie). Most come in that order already and are appended to a list; only those that come late need the
 * heap. */
struct line {
    struct list run;
    struct heap late;
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
    bool by_deadline;
};

/* ---- tables and lines ---- */

static void table_grow(struct table *t)
{
    size_t cap = t->cap ? t->cap * 2 : 64;
    struct entry **v = xcalloc(cap, sizeof(struct entry *));
    for (size_t i = 0; i < t->cap; i++)
        for (struct entry *e = t->v[i], *next; e; e = next) {
            next = e->next;
            e->next = v[e->hash & (cap - 1)];
            v[e->hash & (cap - 1)] = e;
        }
    free(t->v);
    t->v = v;
    t->cap = cap;
}

static void table_add(struct table *t, struct entry *e, uint64_t hash)
{
    if (t->n >= t->cap)
        table_grow(t);
    struct entry **slot = &t->v[hash & (t->cap - 1)];
    *e = (struct entry){.next = *slot, .hash = hash};
    *slot = e;
    t->n++;
}

static void table_del(struct table *t, struct entry *e)
{
    struct entry **at = &t->v[e->hash & (t->cap - 1)];
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    t->n--;
}

static struct entry *table_chain(const struct table *t, uint64_t hash)
{
    return t->cap ? t->v[hash & (t->cap - 1)] : NULL;
}

static void line_init(struct line *l)
{
    list_init(&l->run);
    heap_init(&l->late);
}

static void line_push(struct line *l, struct queue_place *p, uint64_t key, uint64_t tie)
{
    p->heap = (struct heap_node){.key = key, .tie = tie};
    list_init(&p->link);
    if (list_empty(&l->run) || heap_before(&CONTAINER_OF(l->run.prev, struct queue_place, link)->heap, &p->heap))
        list_push_back(&l->run, &p->link);
    else
        heap_push(&l->late, &p->heap, key);
}

static void line_remove(struct line *l, struct queue_place *p)
{
    heap_remove(&l->late, &p->heap);
    list_remove(&p->link);
}

static struct queue_place *line_min(const struct line *l)
{
    struct queue_place *a = list_empty(&l->run) ? NULL : CONTAINER_OF(l->run.next, struct queue_place, link);
    struct heap_node *late = heap_min(&l->late);
    if (!late || (a && heap_before(&a->heap, late)))
        return a;
    return CONTAINER_OF(late, struct queue_place, heap);
}

static struct heap_node *first_of(const struct heap *h) /* which is not empty */
{
    struct heap_node *first = heap_min(h);
    CHECK(first);
    return first;
}

/* ---- bands, flows, lanes, groups ---- */

/* Where the band of this priority is, or would be. */
static size_t band_index(const struct queue *q, int priority)
{
    size_t lo = 0, hi = q->n_bands;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (q->bands[mid]->priority > priority)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct band *band_find(const struct queue *q, int priority)
{
    size_t i = band_index(q, priority);
    return i < q->n_bands && q->bands[i]->priority == priority ? q->bands[i] : NULL;
}

static struct band *band_get(struct queue *q, int priority)
{
    struct band *b = band_find(q, priority);
    if (b)
        return b;
    if (q->n_bands == q->cap_bands) {
        q->cap_bands = q->cap_bands ? q->cap_bands * 2 : 8;
        q->bands = xrealloc(q->bands, q->cap_bands * sizeof(q->bands[0]));
    }
    size_t i = band_index(q, priority);
    memmove(&q->bands[i + 1], &q->bands[i], (q->n_bands - i) * sizeof(q->bands[0]));
    q->n_bands++;
    b = xcalloc(1, sizeof(*b));
    b->priority = priority;
    line_init(&b->age);
    q->bands[i] = b;
    return b;
}

static double weight_of(const struct queue *q, uint64_t flow)
{
    size_t lo = 0, hi = q->n_weights;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (q->weights[mid].flow < flow)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < q->n_weights && q->weights[lo].flow == flow ? q->weights[lo].weight : 1;
}

/* Doubles as integers of the same order (IEEE 754: sign and magnitude). */
static uint64_t sortable(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof(u));
    return u >> 63 ? ~u : u | 1ull << 63;
}

static uint64_t flow_hash(const struct queue *q, int priority, uint64_t flow)
{
    const uint64_t key[2] = {flow, (uint64_t)(int64_t)priority};
    return hash_bytes(key, sizeof(key), q->seed);
}

static struct queue_flow *flow_find(const struct queue *q, const struct band *b, uint64_t id)
{
    uint64_t hash = flow_hash(q, b->priority, id);
    for (struct entry *e = table_chain(&q->flows, hash); e; e = e->next) {
        struct queue_flow *f = CONTAINER_OF(e, struct queue_flow, e);
        if (f->id == id && f->b == b)
            return f;
    }
    return NULL;
}

static void flow_wake(struct queue_flow *f)
{
    if (f->resting)
        heap_remove(&f->b->resting, &f->node);
    f->resting = false;
}

static struct queue_flow *flow_get(struct queue *q, struct band *b, uint64_t id)
{
    struct queue_flow *f = flow_find(q, b, id);
    if (f) {
        flow_wake(f);
        return f;
    }
    f = xcalloc(1, sizeof(*f));
    f->id = id;
    f->b = b;
    f->weight = weight_of(q, id);
    f->counter = b->v;
    list_init(&f->lanes);
    table_add(&q->flows, &f->e, flow_hash(q, b->priority, id));
    return f;
}

static void flow_free(struct queue *q, struct queue_flow *f)
{
    flow_wake(f);
    table_del(&q->flows, &f->e);
    free(f);
}

/* The resting flow that is the least ahead. */
static struct queue_flow *first_resting(const struct band *b)
{
    return CONTAINER_OF(first_of(&b->resting), struct queue_flow, node);
}

static void band_free(struct queue *q, struct band *b)
{
    while (b->resting.n)
        flow_free(q, first_resting(b));
    size_t i = band_index(q, b->priority);
    q->n_bands--;
    memmove(&q->bands[i], &q->bands[i + 1], (q->n_bands - i) * sizeof(q->bands[0]));
    heap_free(&b->ready);
    heap_free(&b->resting);
    heap_free(&b->age.late);
    free(b);
}

/* After the last item of a flow has left: nothing is lost with a flow that is not ahead of the virtual time, it would
 * start there anyway. */
static void flow_release(struct queue *q, struct queue_flow *f)
{
    struct band *b = f->b;
    if (f->n || f->out)
        return;
    if (f->counter > b->v) {
        f->resting = true;
        heap_push(&b->resting, &f->node, sortable(f->counter));
        if (b->resting.n > QUEUE_RESTING)
            flow_free(q, first_resting(b));
    } else {
        flow_free(q, f);
    }
    if (!b->n && !b->out)
        band_free(q, b);
}

/* After its first lane, or its block, changed: the group's place, and that of its band. */
static void group_place(struct queue *q, struct group *g)
{
    struct band *b = g->b;
    const struct heap_node *first = heap_min(&g->lanes);
    if (first && !list_linked(&g->c->blocked)) {
        g->node.tie = first->tie;
        heap_update(&b->ready, &g->node, first->key);
    } else {
        heap_remove(&b->ready, &g->node);
    }
    if (!b->ready.n)
        heap_remove(&q->ready, &b->node);
    else if (!b->node.idx)
        heap_push(&q->ready, &b->node, (uint64_t)(INT_MAX - (int64_t)b->priority));
}

static void lane_place(struct queue *q, struct queue_lane *l)
{
    l->node.tie = l->f->stamp;
    heap_update(&l->g->lanes, &l->node, sortable(l->f->counter));
    group_place(q, l->g);
}

static void flow_place(struct queue *q, struct queue_flow *f)
{
    LIST_EACH (e, &f->lanes)
        lane_place(q, CONTAINER_OF(e, struct queue_lane, link));
}

static struct constraint *constraint_get(struct queue *q, uint64_t id)
{
    uint64_t hash = hash_bytes(&id, sizeof(id), q->seed);
    for (struct entry *e = table_chain(&q->constraints, hash); e; e = e->next)
        if (CONTAINER_OF(e, struct constraint, e)->id == id)
            return CONTAINER_OF(e, struct constraint, e);
    struct constraint *c = xcalloc(1, sizeof(*c));
    c->id = id;
    list_init(&c->groups);
    list_init(&c->blocked);
    table_add(&q->constraints, &c->e, hash);
    return c;
}

static struct group *group_get(struct queue *q, struct band *b, uint64_t id)
{
    struct constraint *c = constraint_get(q, id);
    struct group *g;
    LIST_EACH (e, &c->groups) {
        g = CONTAINER_OF(e, struct group, link);
        if (g->b == b)
            return g;
    }
    g = xcalloc(1, sizeof(*g));
    g->b = b;
    g->c = c;
    list_push_back(&c->groups, &g->link);
    return g;
}

static struct queue_lane *lane_get(struct queue *q, struct queue_flow *f, uint64_t id)
{
    struct queue_lane *l;
    LIST_EACH (e, &f->lanes) {
        l = CONTAINER_OF(e, struct queue_lane, link);
        if (l->g->c->id == id)
            return l;
    }
    l = xcalloc(1, sizeof(*l));
    l->f = f;
    l->g = group_get(q, f->b, id);
    list_push_back(&f->lanes, &l->link);
    line_init(&l->items);
    return l;
}

/* Without items it goes, and with it a group and a constraint that have no others. */
static void lane_free(struct queue *q, struct queue_lane *l)
{
    struct group *g = l->g;
    struct constraint *c = g->c;
    heap_remove(&g->lanes, &l->node);
    group_place(q, g);
    list_remove(&l->link);
    heap_free(&l->items.late);
    free(l);
    if (g->lanes.n)
        return;
    list_remove(&g->link);
    heap_free(&g->lanes);
    free(g);
    if (!list_empty(&c->groups))
        return;
    list_remove(&c->blocked);
    table_del(&q->constraints, &c->e);
    free(c);
}

/* What others were given while this flow could not be placed is not made up for. */
static void flow_lift(struct queue_flow *f)
{
    f->counter = MAX(f->counter, f->b->low - f->credit);
}

static void flow_set(struct queue_flow *f, double counter)
{
    f->counter = counter;
    f->credit = MAX(f->b->low - counter, 0);
}

/* Moves the virtual time on by a flow's share of this service: it follows those that compete. */
static void band_advance(struct queue *q, struct band *b, double before, double after, uint64_t n_flows)
{
    b->low = MAX(b->low, before);
    b->v = MAX(b->v, before);
    b->v = MAX(b->v, MIN(b->v + (after - before) / (double)n_flows, after));
    while (b->resting.n && first_resting(b)->counter <= b->v)
        flow_free(q, first_resting(b));
}

/* Charges service to the flow. Its place is the caller's to renew. */
static void flow_serve(struct queue *q, struct queue_flow *f, struct queue_item *it, double tokens)
{
    struct band *b = f->b;
    it->charged = tokens > 0 ? MIN(tokens, MAX_TOKENS) : 0;
    it->weight = f->weight;
    it->f = f;
    flow_lift(f);
    double before = f->counter, after = before + it->charged / it->weight;
    band_advance(q, b, before, after, b->n_flows + (f->n == 0));
    flow_set(f, after);
    f->stamp = ++q->stamp;
    f->out++;
    b->out++;
}

static void lane_push(const struct queue *q, struct queue_item *it)
{
    if (q->by_deadline)
        line_push(&it->l->items, &it->order, it->deadline_us, it->seq);
    else
        line_push(&it->l->items, &it->order, it->seq, 0);
}

/* ---- the queue ---- */

struct queue *queue_new(uint64_t seed)
{
    struct queue *q = xcalloc(1, sizeof(*q));
    q->seed = seed;
    list_init(&q->blocked);
    line_init(&q->expiry);
    return q;
}

void queue_free(struct queue *q)
{
    CHECK(q->n == 0);
    for (size_t i = 0; i < q->flows.cap; i++)
        while (q->flows.v[i])
            flow_free(q, CONTAINER_OF(q->flows.v[i], struct queue_flow, e));
    while (q->n_bands)
        band_free(q, q->bands[0]);
    heap_free(&q->ready);
    heap_free(&q->expiry.late);
    free(q->bands);
    free(q->flows.v);
    free(q->constraints.v);
    free(q->weights);
    free(q);
}

static int by_flow(const void *a, const void *b)
{
    uint64_t x = ((const struct weight *)a)->flow, y = ((const struct weight *)b)->flow;
    return (x > y) - (x < y);
}

void queue_set_weights(struct queue *q, const uint64_t *flows, const double *weights, uint32_t n)
{
    free(q->weights);
    q->weights = n ? xmalloc(n * sizeof(q->weights[0])) : NULL;
    q->n_weights = n;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(weights[i] > 0);
        q->weights[i] = (struct weight){flows[i], MAX(MIN_WEIGHT, MIN(weights[i], MAX_WEIGHT))};
    }
    if (n)
        qsort(q->weights, n, sizeof(q->weights[0]), by_flow);
    for (size_t i = 0; i < q->flows.cap; i++)
        for (struct entry *e = q->flows.v[i]; e; e = e->next) {
            struct queue_flow *f = CONTAINER_OF(e, struct queue_flow, e);
            f->weight = weight_of(q, f->id);
        }
}

static void expiry_push(struct queue *q, struct queue_item *it)
{
    it->expiry = (struct queue_place){0};
    list_init(&it->expiry.link);
    if (it->deadline_us != UINT64_MAX)
        line_push(&q->expiry, &it->expiry, it->deadline_us, it->seq);
}

void queue_push(struct queue *q, struct queue_item *it)
{
    CHECK(!it->f && !it->l);
    struct band *b = band_get(q, it->priority);
    struct queue_flow *f = flow_get(q, b, it->flow);
    if (!f->n) {
        flow_set(f, MAX(f->counter, b->v));
        f->stamp = ++q->stamp;
        b->n_flows++;
    }
    it->f = f;
    it->l = lane_get(q, f, it->lane);
    f->n++;
    b->n++;
    q->n++;
    q->bytes += it->bytes;
    b->bytes += it->bytes;
    line_push(&b->age, &it->age, it->seq, 0);
    expiry_push(q, it);
    lane_push(q, it);
    lane_place(q, it->l);
}

static void take_out(struct queue *q, struct queue_item *it)
{
    struct queue_flow *f = it->f;
    struct band *b = f->b;
    line_remove(&b->age, &it->age);
    line_remove(&q->expiry, &it->expiry);
    line_remove(&it->l->items, &it->order);
    if (!line_min(&it->l->items))
        lane_free(q, it->l);
    it->l = NULL;
    f->n--;
    b->n--;
    b->n_flows -= f->n == 0;
    q->n--;
    q->bytes -= it->bytes;
    b->bytes -= it->bytes;
}

void queue_remove(struct queue *q, struct queue_item *it)
{
    struct queue_flow *f = it->f;
    if (!it->l)
        return;
    take_out(q, it);
    it->f = NULL;
    flow_release(q, f);
}

bool queue_waiting(const struct queue_item *it)
{
    return it->l;
}

/* Of the flow's lanes that are not blocked: the first head. */
static struct queue_item *flow_head(const struct queue_flow *f)
{
    struct queue_place *best = NULL;
    LIST_EACH (e, &f->lanes) {
        const struct queue_lane *l = CONTAINER_OF(e, struct queue_lane, link);
        if (list_linked(&l->g->c->blocked))
            continue;
        struct queue_place *head = line_min(&l->items);
        if (!best || heap_before(&head->heap, &best->heap))
            best = head;
    }
    CHECK(best);
    return CONTAINER_OF(best, struct queue_item, order);
}

struct queue_item *queue_next(struct queue *q)
{
    if (!q->ready.n)
        return NULL;
    const struct band *b = CONTAINER_OF(first_of(&q->ready), struct band, node);
    const struct group *g = CONTAINER_OF(first_of(&b->ready), struct group, node);
    return flow_head(CONTAINER_OF(first_of(&g->lanes), struct queue_lane, node)->f);
}

void queue_take(struct queue *q, struct queue_item *it, double tokens)
{
    CHECK(it->l);
    flow_serve(q, it->f, it, tokens);
    take_out(q, it);
    flow_place(q, it->f);
}

void queue_charge(struct queue *q, struct queue_item *it, double tokens)
{
    CHECK(!it->f);
    struct queue_flow *f = flow_get(q, band_get(q, it->priority), it->flow);
    if (!f->n)
        f->counter = MAX(f->counter, f->b->v);
    flow_serve(q, f, it, tokens);
    flow_place(q, f);
}

void queue_settle(struct queue *q, struct queue_item *it, double tokens)
{
    struct queue_flow *f = it->f;
    if (!f || it->l)
        return;
    it->f = NULL;
    f->out--;
    f->b->out--;
    if (tokens >= 0) {
        flow_lift(f);
        double to = f->counter + (MIN(tokens, MAX_TOKENS) - it->charged) / it->weight;
        double least = MIN(f->counter, f->b->low - it->charged / it->weight);
        flow_set(f, MAX(to, least));
        flow_place(q, f);
    }
    flow_release(q, f);
}

static void constraint_place(struct queue *q, struct constraint *c)
{
    LIST_EACH (e, &c->groups)
        group_place(q, CONTAINER_OF(e, struct group, link));
}

void queue_block(struct queue *q, struct queue_item *head)
{
    CHECK(head->l);
    struct constraint *c = head->l->g->c;
    if (list_linked(&c->blocked))
        return;
    list_push_back(&q->blocked, &c->blocked);
    constraint_place(q, c);
}

void queue_unblock_all(struct queue *q)
{
    for (struct list *e; (e = list_pop_front(&q->blocked));)
        constraint_place(q, CONTAINER_OF(e, struct constraint, blocked));
}

bool queue_blocked_any(const struct queue *q)
{
    return !list_empty(&q->blocked);
}

/* ---- deadlines, discarding, numbers ---- */

struct queue_item *queue_expired(struct queue *q, uint64_t now_us)
{
    struct queue_place *p = line_min(&q->expiry);
    return p && p->heap.key <= now_us ? CONTAINER_OF(p, struct queue_item, expiry) : NULL;
}

uint64_t queue_next_expiry(const struct queue *q)
{
    struct queue_place *p = line_min(&q->expiry);
    return p ? p->heap.key : UINT64_MAX;
}

void queue_set_deadline(struct queue *q, struct queue_item *it, uint64_t deadline_us)
{
    CHECK(it->l);
    line_remove(&q->expiry, &it->expiry);
    it->deadline_us = deadline_us;
    expiry_push(q, it);
    if (!q->by_deadline)
        return;
    line_remove(&it->l->items, &it->order);
    lane_push(q, it);
}

/* All items, in no order; NULL when there are none. */
static struct queue_item **all_items(const struct queue *q)
{
    struct queue_item **v = q->n ? xmalloc(q->n * sizeof(v[0])) : NULL;
    size_t n = 0;
    for (size_t i = 0; i < q->n_bands; i++) {
        const struct line *age = &q->bands[i]->age;
        LIST_EACH (e, &age->run)
            v[n++] = CONTAINER_OF(e, struct queue_item, age.link);
        for (size_t j = 1; j <= age->late.n; j++)
            v[n++] = CONTAINER_OF(age->late.v[j], struct queue_item, age.heap);
    }
    CHECK(n == q->n);
    return v;
}

void queue_set_order(struct queue *q, bool by_deadline)
{
    if (q->by_deadline == by_deadline)
        return;
    struct queue_item **v = all_items(q);
    q->by_deadline = by_deadline;
    for (size_t i = 0; i < q->n; i++)
        line_remove(&v[i]->l->items, &v[i]->order);
    for (size_t i = 0; i < q->n; i++)
        lane_push(q, v[i]);
    free(v);
}

static int by_seq(const void *a, const void *b)
{
    uint64_t x = (*(struct queue_item *const *)a)->seq, y = (*(struct queue_item *const *)b)->seq;
    return (x > y) - (x < y);
}

void queue_each(struct queue *q, void (*fn)(void *ctx, struct queue_item *it), void *ctx)
{
    struct queue_item **v = all_items(q);
    size_t n = q->n;
    if (n)
        qsort(v, n, sizeof(v[0]), by_seq);
    for (size_t i = 0; i < n; i++)
        fn(ctx, v[i]);
    free(v);
}

static struct queue_item *oldest(const struct band *b)
{
    struct queue_place *p = line_min(&b->age);
    return p ? CONTAINER_OF(p, struct queue_item, age) : NULL;
}

struct queue_item *queue_earliest(struct queue *q)
{
    struct queue_item *best = NULL;
    for (size_t i = 0; i < q->n_bands; i++) {
        struct queue_item *it = oldest(q->bands[i]);
        if (it && (!best || it->seq < best->seq))
            best = it;
    }
    return best;
}

struct queue_item *queue_earliest_lowest(struct queue *q)
{
    struct queue_item *it = NULL;
    for (size_t i = q->n_bands; !it && i-- > 0;)
        it = oldest(q->bands[i]);
    return it;
}

uint64_t queue_n(const struct queue *q)
{
    return q->n;
}

uint64_t queue_bytes(const struct queue *q)
{
    return q->bytes;
}

uint64_t queue_bytes_above(const struct queue *q, int priority)
{
    uint64_t n = 0;
    for (size_t i = 0; i < q->n_bands && q->bands[i]->priority > priority; i++)
        n += q->bands[i]->bytes;
    return n;
}

uint64_t queue_n_at_least(const struct queue *q, int priority)
{
    uint64_t n = 0;
    for (size_t i = 0; i < q->n_bands && q->bands[i]->priority >= priority; i++)
        n += q->bands[i]->n;
    return n;
}

uint64_t queue_n_before(const struct queue *q, int priority, uint64_t flow)
{
    const struct band *b = band_find(q, priority);
    uint64_t n = queue_n_at_least(q, priority);
    if (!b)
        return n;
    const struct queue_flow *f = flow_find(q, b, flow);
    return n - b->n + MIN(b->n, ((f ? f->n : 0) + 1) * b->n_flows);
}
