/* One request through the queue of flow control (push, next, take, settle) while 100 000 wait. Fixed seed; one line per
 * case. */
#include "base/rng.h"
#include "core/queue.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* CPU time: neighbours on a busy machine are not the queue's doing. */
static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { QUEUED = 100000, IN_SERVICE = 1000, OPS = 1000000, CHUNK = 1000, BANDS = 3 };

struct request {
    struct queue_item item;
    unsigned char rest[600]; /* as far apart in memory as the scheduler's requests */
};

struct world {
    struct queue *q;
    struct request *v;
    struct queue_item *in_service[IN_SERVICE]; /* oldest at the next place */
    struct rng r;
    uint32_t flows, lanes;
    bool by_deadline; /* deadlines in no order, too */
    bool blocks;
    uint64_t seq;
};

static void come(struct world *w, struct queue_item *it)
{
    uint64_t seq = ++w->seq;
    *it = (struct queue_item){.priority = (int)rng_below(&w->r, BANDS) - 1,
                              .flow = rng_below(&w->r, w->flows),
                              .lane = rng_below(&w->r, w->lanes),
                              .bytes = 2000,
                              .seq = seq,
                              .deadline_us = 30000000 + seq * 10 + (w->by_deadline ? rng_below(&w->r, 10000000) : 0)};
}

/* One comes, one is served, and one that was in service is done: it comes next, with its priority, so that no band runs
 * dry. */
static struct queue_item *turn(struct world *w, struct queue_item *it, uint32_t k)
{
    queue_push(w->q, it);
    struct queue_item *next = queue_next(w->q), **slot = &w->in_service[k % IN_SERVICE], *done = *slot;
    if (w->blocks) { /* a new epoch: of the two constraints now one cannot be met, now the other */
        queue_unblock_all(w->q);
        while ((next = queue_next(w->q))->lane == (k & 1))
            queue_block(w->q, next);
    }
    queue_take(w->q, next, 700);
    *slot = next;
    queue_settle(w->q, done, 500 + (double)(k & 255));
    return done;
}

static void bench(const char *what, uint32_t flows, uint32_t lanes, bool by_deadline, bool blocks)
{
    struct world w = {.q = queue_new(1),
                      .v = calloc(QUEUED + IN_SERVICE + 1, sizeof(w.v[0])),
                      .by_deadline = by_deadline,
                      .blocks = blocks,
                      .flows = flows,
                      .lanes = lanes};
    rng_init(&w.r, 1);
    queue_set_order(w.q, by_deadline ? QUEUE_BY_DEADLINE : QUEUE_OLDEST_FIRST);
    for (uint32_t i = 0; i < QUEUED + IN_SERVICE; i++) {
        come(&w, &w.v[i].item);
        queue_push(w.q, &w.v[i].item);
    }
    for (uint32_t i = 0; i < IN_SERVICE; i++) {
        w.in_service[i] = queue_next(w.q);
        queue_take(w.q, w.in_service[i], 700);
    }
    struct queue_item *it = &w.v[QUEUED + IN_SERVICE].item;
    double spent = 0, best = 1e9;
    come(&w, it);
    for (uint32_t k = 0; k < OPS;) {
        double t0 = now_s(), t1;
        for (uint32_t n = 0; n < CHUNK; n++, k++) {
            it = turn(&w, it, k);
            int priority = it->priority;
            come(&w, it);
            it->priority = priority;
        }
        t1 = now_s() - t0;
        spent += t1;
        best = t1 < best ? t1 : best;
    }
    printf("queue, %s: %.3f us per request (best %.3f)\n", what, spent / OPS * 1e6, best / CHUNK * 1e6);
    for (struct queue_item *e; (e = queue_earliest(w.q));)
        queue_remove(w.q, e);
    queue_free(w.q);
    free(w.v);
}

int main(void)
{
    bench("100 000 waiting, 3 bands, 1 flow", 1, 1, false, false);
    bench("100 000 waiting, 3 bands, 100 flows", 100, 1, false, false);
    bench("100 000 waiting, 3 bands, 10 000 flows", 10000, 1, false, false);
    bench("100 000 waiting, 3 bands, 100 flows x 8 constraints", 100, 8, false, false);
    bench("100 000 waiting, 3 bands, 100 flows, by deadline", 100, 1, true, false);
    bench("100 000 waiting, 3 bands, 10 000 flows, one of 2 constraints blocked each time", 10000, 2, false, true);
    return 0;
}
