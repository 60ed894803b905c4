/* base/map.c - hash map from byte strings to pointers: linear probing, deletion by shifting back, at most 3/4 full. */
#include "base/map.h"
#include "base/hash.h"

#include <stdlib.h>

#define MAP_MIN_CAP 8

void map_init(struct map *m, uint64_t seed)
{
    *m = (struct map){.seed = seed};
}

void map_free(struct map *m)
{
    for (size_t i = 0; i < m->cap; i++)
        free(m->v[i].key);
    free(m->v);
    map_init(m, m->seed);
}

/* The slot of the key, or the empty slot where it would go. The table is never full. */
static struct map_slot *slot_of(const struct map *m, struct str key, uint64_t hash)
{
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->v[i];
        if (!s->key || (s->hash == hash && str_eq((struct str){s->key, s->key_n}, key)))
            return s;
    }
}

static void grow(struct map *m)
{
    struct map old = *m;
    m->cap = old.cap ? old.cap * 2 : MAP_MIN_CAP;
    m->v = xcalloc(m->cap, sizeof(*m->v));
    for (size_t i = 0; i < old.cap; i++) {
        if (!old.v[i].key)
            continue;
        size_t to = old.v[i].hash & (m->cap - 1);
        while (m->v[to].key)
            to = (to + 1) & (m->cap - 1);
        m->v[to] = old.v[i];
    }
    free(old.v);
}

void *map_get(const struct map *m, struct str key)
{
    if (m->n == 0)
        return NULL;
    return slot_of(m, key, hash_bytes(key.p, key.n, m->seed))->val;
}

void *map_put(struct map *m, struct str key, void *val)
{
    CHECK(val);
    if (m->n + 1 > m->cap / 4 * 3)
        grow(m);
    uint64_t hash = hash_bytes(key.p, key.n, m->seed);
    struct map_slot *s = slot_of(m, key, hash);
    if (s->key) {
        void *old = s->val;
        s->val = val;
        return old;
    }
    *s = (struct map_slot){.hash = hash, .key = str_dup(key), .key_n = key.n, .val = val};
    m->n++;
    return NULL;
}

/* Closes the gap at i: every later entry of the run that may stand at the gap moves there. */
static void shift_back(struct map *m, size_t gap)
{
    size_t mask = m->cap - 1;
    for (size_t i = (gap + 1) & mask; m->v[i].key; i = (i + 1) & mask) {
        size_t home = m->v[i].hash & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        m->v[gap] = m->v[i];
        gap = i;
    }
    m->v[gap] = (struct map_slot){0};
}

void *map_del(struct map *m, struct str key)
{
    if (m->n == 0)
        return NULL;
    struct map_slot *s = slot_of(m, key, hash_bytes(key.p, key.n, m->seed));
    if (!s->key)
        return NULL;
    void *val = s->val;
    free(s->key);
    m->n--;
    shift_back(m, (size_t)(s - m->v));
    return val;
}
