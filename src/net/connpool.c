/* Idle upstream connections of one loop, by address: newest first out, oldest first closed. */
#include "base/map.h"
#include "net/loop_priv.h"
#include <stdlib.h>

#define SEED      0x9e3779b97f4a7c15ull
#define SWEEP_MIN 64

struct idle {
    struct list by_addr; /* of the bucket: newest in front */
    struct list by_age;  /* of the pool: oldest in front */
    struct bucket *bucket;
    struct conn *c;
    uint64_t until_us;
};
struct bucket {
    struct conn_pool *pool;
    struct list idle;
    unsigned n;
    uint8_t key_n;
    char key[ADDR_KEY_MAX];
};
struct conn_pool {
    struct loop *loop;
    unsigned max_idle;
    uint64_t idle_us;
    struct map buckets; /* emptied ones stay for the next use, until there are sweep_at buckets */
    size_t sweep_at;
    struct list ages;
    struct timer expiry;
};

static struct str key_of(const struct bucket *b)
{
    return (struct str){b->key, b->key_n};
}

/* Takes the entry out of the pool; the connection is the caller's. */
static struct conn *unlink_idle(struct idle *i)
{
    struct conn *c = i->c;
    list_remove(&i->by_addr);
    list_remove(&i->by_age);
    i->bucket->n--;
    free(i);
    return c;
}

static void drop_bucket_if_empty(struct conn_pool *p, struct bucket *b)
{
    if (b->n)
        return;
    map_del(&p->buckets, key_of(b));
    free(b);
}

/* Anything that happens on an idle connection ends it: a server's close, a reset, bytes nobody asked for. */
static void idle_over(struct conn *c)
{
    struct idle *i = conn_ctx(c);
    struct bucket *b = i->bucket;
    conn_close(unlink_idle(i));
    drop_bucket_if_empty(b->pool, b);
}

static void idle_data(struct conn *c, struct str data UNUSED)
{
    idle_over(c);
}

static void idle_error(struct conn *c, int err UNUSED)
{
    idle_over(c);
}

static const struct conn_ops idle_ops = {.on_data = idle_data, .on_eof = idle_over, .on_error = idle_error};

static void expire(struct timer *t)
{
    struct conn_pool *p = CONTAINER_OF(t, struct conn_pool, expiry);
    uint64_t now = loop_now_us(p->loop);
    while (!list_empty(&p->ages)) {
        struct idle *i = CONTAINER_OF(p->ages.next, struct idle, by_age);
        if (i->until_us > now) {
            timer_set(p->loop, &p->expiry, i->until_us);
            return;
        }
        struct bucket *b = i->bucket;
        conn_close(unlink_idle(i));
        drop_bucket_if_empty(p, b);
    }
}

struct conn_pool *conn_pool_new(struct loop *l, unsigned max_idle, uint64_t idle_us)
{
    struct conn_pool *p = xcalloc(1, sizeof(*p));
    p->loop = l;
    p->max_idle = max_idle;
    p->idle_us = idle_us;
    map_init(&p->buckets, SEED);
    p->sweep_at = SWEEP_MIN;
    list_init(&p->ages);
    p->expiry.fn = expire;
    return p;
}

static void close_bucket(struct bucket *b)
{
    LIST_EACH_SAFE(e, next, &b->idle)
    conn_close(unlink_idle(CONTAINER_OF(e, struct idle, by_addr)));
}

void conn_pool_free(struct conn_pool *p)
{
    if (!p)
        return;
    timer_stop(p->loop, &p->expiry);
    MAP_EACH(slot, &p->buckets)
    {
        close_bucket(slot->val);
        free(slot->val);
    }
    map_free(&p->buckets);
    free(p);
}

static struct bucket *find_bucket(const struct conn_pool *p, const struct addr *to)
{
    char key[ADDR_KEY_MAX];
    size_t n = addr_key(to, key);
    return map_get(&p->buckets, (struct str){key, n});
}

struct conn *conn_pool_take(struct conn_pool *p, const struct addr *to)
{
    struct bucket *b = find_bucket(p, to);
    if (!b || b->n == 0)
        return NULL;
    struct conn *c = unlink_idle(CONTAINER_OF(b->idle.next, struct idle, by_addr));
    conn_set(c, NULL, NULL);
    conn_mark_reused(c);
    return c;
}

/* Addresses come and go; what is left of those that went is bounded by what is in use. */
static void forget_empty(struct conn_pool *p)
{
    struct map kept;
    map_init(&kept, SEED);
    MAP_EACH(slot, &p->buckets)
    {
        struct bucket *b = slot->val;
        if (b->n)
            map_put(&kept, key_of(b), b);
        else
            free(b);
    }
    map_free(&p->buckets);
    p->buckets = kept;
    p->sweep_at = MAX((size_t)SWEEP_MIN, 2 * kept.n);
}

static struct bucket *add_bucket(struct conn_pool *p, const struct addr *to)
{
    if (p->buckets.n >= p->sweep_at)
        forget_empty(p);
    struct bucket *b = xcalloc(1, sizeof(*b));
    b->pool = p;
    b->key_n = (uint8_t)addr_key(to, b->key);
    list_init(&b->idle);
    map_put(&p->buckets, key_of(b), b);
    return b;
}

void conn_pool_put(struct conn_pool *p, struct conn *c)
{
    if (p->max_idle == 0 || p->idle_us == 0 || !conn_is_reusable(c)) {
        conn_close(c);
        return;
    }
    struct bucket *b = find_bucket(p, conn_peer(c));
    if (!b)
        b = add_bucket(p, conn_peer(c));
    if (b->n >= p->max_idle) /* the oldest makes room */
        conn_close(unlink_idle(CONTAINER_OF(b->idle.prev, struct idle, by_addr)));
    struct idle *i = xcalloc(1, sizeof(*i));
    i->c = c;
    i->bucket = b;
    i->until_us = loop_now_us(p->loop) + p->idle_us;
    b->n++;
    list_push_front(&b->idle, &i->by_addr);
    list_push_back(&p->ages, &i->by_age);
    conn_recv_into(c, NULL, 0);
    conn_set(c, &idle_ops, i);
    conn_pause(c, false);
    if (!timer_armed(&p->expiry))
        timer_set(p->loop, &p->expiry, i->until_us);
}

void conn_pool_drop(struct conn_pool *p, const struct addr *to)
{
    struct bucket *b = find_bucket(p, to);
    if (!b)
        return;
    close_bucket(b);
    drop_bucket_if_empty(p, b);
}
