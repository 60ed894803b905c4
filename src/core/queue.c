/* core/queue.c - the calls of queue.h; bands, flows and lanes are in queue_flow.c. */
#include "core/queue_int.h"

#include <stdlib.h>

#define MIN_WEIGHT 1e-6
#define MAX_WEIGHT 1e6

static void lane_push(const struct queue *q, struct queue_item *it)
{
    if (q->order == QUEUE_BY_DEADLINE)
        line_push(&it->l->items, &it->order, it->deadline_us, it->seq);
    else
        line_push(&it->l->items, &it->order, q->order == QUEUE_NEWEST_FIRST ? ~it->seq : it->seq, 0);
}

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
            queue_flow_free(q, CONTAINER_OF(q->flows.v[i], struct queue_flow, e));
    while (q->n_bands)
        queue_band_free(q, q->bands[0]);
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
            f->weight = queue_weight_of(q, f->id);
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
    struct band *b = queue_band_get(q, it->priority);
    struct queue_flow *f = queue_flow_get(q, b, it->flow);
    queue_flow_come(q, f);
    b->n_flows += f->n == 0;
    it->f = f;
    it->l = queue_lane_get(q, f, it->lane);
    f->n++;
    b->n++;
    q->n++;
    q->bytes += it->bytes;
    b->bytes += it->bytes;
    line_push(&b->age, &it->age, it->seq, 0);
    expiry_push(q, it);
    lane_push(q, it);
    queue_lane_place(q, it->l);
}

static void take_out(struct queue *q, struct queue_item *it)
{
    struct queue_flow *f = it->f;
    struct band *b = f->b;
    line_remove(&b->age, &it->age);
    line_remove(&q->expiry, &it->expiry);
    line_remove(&it->l->items, &it->order);
    if (!line_min(&it->l->items))
        queue_lane_free(q, it->l);
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
    queue_flow_release(q, f);
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
    const struct queue_flow *f = queue_first_flow(q);
    return f ? flow_head(f) : NULL;
}

void queue_take(struct queue *q, struct queue_item *it, double tokens)
{
    CHECK(it->l);
    queue_flow_serve(q, it->f, it, tokens);
    take_out(q, it);
    queue_flow_place(q, it->f);
}

void queue_charge(struct queue *q, struct queue_item *it, double tokens)
{
    CHECK(!it->f);
    struct queue_flow *f = queue_flow_get(q, queue_band_get(q, it->priority), it->flow);
    queue_flow_come(q, f);
    queue_flow_serve(q, f, it, tokens);
    queue_flow_place(q, f);
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
        queue_flow_correct(f, it, tokens);
        queue_flow_place(q, f);
    }
    queue_flow_release(q, f);
}

void queue_block(struct queue *q, struct queue_item *head)
{
    CHECK(head->l);
    struct constraint *c = head->l->g->c;
    if (list_linked(&c->blocked))
        return;
    list_push_back(&q->blocked, &c->blocked);
    queue_constraint_place(q, c);
}

void queue_unblock_all(struct queue *q)
{
    for (struct list *e; (e = list_pop_front(&q->blocked));)
        queue_constraint_place(q, CONTAINER_OF(e, struct constraint, blocked));
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
    if (q->order != QUEUE_BY_DEADLINE)
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

void queue_set_order(struct queue *q, enum queue_order order)
{
    if (q->order == order)
        return;
    struct queue_item **v = all_items(q);
    q->order = order;
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

uint64_t queue_n_at(const struct queue *q, int priority)
{
    const struct band *b = queue_band_find(q, priority);
    return b ? b->n : 0;
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
    const struct band *b = queue_band_find(q, priority);
    uint64_t n = queue_n_at_least(q, priority);
    if (!b)
        return n;
    const struct queue_flow *f = queue_flow_find(q, b, flow);
    uint64_t turns = f && q->order != QUEUE_NEWEST_FIRST ? f->n + 1 : 1;
    return n - b->n + MIN(b->n, turns * b->n_flows);
}
