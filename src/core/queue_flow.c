/* core/queue_flow.c - bands, flows and their counters, groups of lanes: see queue_int.h. */
#include "core/queue_int.h"
#include "base/hash.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 1e12

/* ---- tables ---- */

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

static struct heap_node *first_of(const struct heap *h) /* which is not empty */
{
    struct heap_node *first = heap_min(h);
    CHECK(first);
    return first;
}

/* ---- bands and flows ---- */

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

struct band *queue_band_find(const struct queue *q, int priority)
{
    size_t i = band_index(q, priority);
    return i < q->n_bands && q->bands[i]->priority == priority ? q->bands[i] : NULL;
}

struct band *queue_band_get(struct queue *q, int priority)
{
    struct band *b = queue_band_find(q, priority);
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

double queue_weight_of(const struct queue *q, uint64_t flow)
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

struct queue_flow *queue_flow_find(const struct queue *q, const struct band *b, uint64_t id)
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

struct queue_flow *queue_flow_get(struct queue *q, struct band *b, uint64_t id)
{
    struct queue_flow *f = queue_flow_find(q, b, id);
    if (f) {
        flow_wake(f);
        return f;
    }
    f = xcalloc(1, sizeof(*f));
    f->id = id;
    f->b = b;
    f->weight = queue_weight_of(q, id);
    f->counter = b->v;
    list_init(&f->lanes);
    table_add(&q->flows, &f->e, flow_hash(q, b->priority, id));
    return f;
}

void queue_flow_free(struct queue *q, struct queue_flow *f)
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

void queue_band_free(struct queue *q, struct band *b)
{
    while (b->resting.n)
        queue_flow_free(q, first_resting(b));
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
void queue_flow_release(struct queue *q, struct queue_flow *f)
{
    struct band *b = f->b;
    if (f->n || f->out)
        return;
    if (f->counter > b->v) {
        f->resting = true;
        heap_push(&b->resting, &f->node, sortable(f->counter));
        if (b->resting.n > QUEUE_RESTING)
            queue_flow_free(q, first_resting(b));
    } else {
        queue_flow_free(q, f);
    }
    if (!b->n && !b->out)
        queue_band_free(q, b);
}

/* ---- lanes and groups ---- */

static void band_place(struct queue *q, struct band *b)
{
    if (!b->ready.n)
        heap_remove(&q->ready, &b->node);
    else if (!b->node.idx)
        heap_push(&q->ready, &b->node, (uint64_t)(INT_MAX - (int64_t)b->priority));
}

/* After its lanes, or its block, changed: the group's place, and that of its band. */
static void group_place(struct queue *q, struct group *g)
{
    const struct heap_node *first = heap_min(&g->lanes);
    if (!first || list_linked(&g->c->blocked)) {
        heap_remove(&g->b->ready, &g->node);
    } else if (!g->node.idx || g->node.key != first->key || g->node.tie != first->tie) {
        g->node.tie = first->tie;
        heap_update(&g->b->ready, &g->node, first->key);
    }
    band_place(q, g->b);
}

void queue_lane_place(struct queue *q, struct queue_lane *l)
{
    l->node.tie = l->f->stamp;
    heap_update(&l->g->lanes, &l->node, sortable(l->f->counter));
    group_place(q, l->g);
}

void queue_flow_place(struct queue *q, struct queue_flow *f)
{
    LIST_EACH (e, &f->lanes)
        queue_lane_place(q, CONTAINER_OF(e, struct queue_lane, link));
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

struct queue_lane *queue_lane_get(struct queue *q, struct queue_flow *f, uint64_t id)
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
void queue_lane_free(struct queue *q, struct queue_lane *l)
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

void queue_constraint_place(struct queue *q, struct constraint *c)
{
    LIST_EACH (e, &c->groups)
        group_place(q, CONTAINER_OF(e, struct group, link));
}

/* ---- counters ---- */

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
        queue_flow_free(q, first_resting(b));
}

void queue_flow_come(struct queue *q, struct queue_flow *f)
{
    if (f->n)
        return;
    flow_set(f, MAX(f->counter, f->b->v));
    f->stamp = ++q->stamp;
}

void queue_flow_serve(struct queue *q, struct queue_flow *f, struct queue_item *it, double tokens)
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

void queue_flow_correct(struct queue_flow *f, const struct queue_item *it, double tokens)
{
    flow_lift(f);
    double to = f->counter + (MIN(tokens, MAX_TOKENS) - it->charged) / it->weight;
    double least = MIN(f->counter, f->b->low - it->charged / it->weight);
    flow_set(f, MAX(to, least));
}

struct queue_flow *queue_first_flow(const struct queue *q)
{
    if (!q->ready.n)
        return NULL;
    const struct band *b = CONTAINER_OF(first_of(&q->ready), struct band, node);
    const struct group *g = CONTAINER_OF(first_of(&b->ready), struct group, node);
    return CONTAINER_OF(first_of(&g->lanes), struct queue_lane, node)->f;
}
