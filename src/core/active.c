/* core/active.c - linear probing; a removal moves what follows back, so no marks are left. */
#include "core/active.h"
#include "base/hash.h"

#include <stdlib.h>

#define MIN_CAP 256u

struct cell {
    uint64_t key; /* of block and endpoint; 0 = empty */
    uint32_t n;   /* requests */
};
struct active {
    uint64_t seed;
    struct cell *v;
    uint32_t cap, n; /* cap: a power of two */
};

struct active *active_new(uint64_t seed)
{
    struct active *t = xcalloc(1, sizeof *t);
    t->seed = seed;
    t->cap = MIN_CAP;
    t->v = xcalloc(t->cap, sizeof *t->v);
    return t;
}

void active_free(struct active *t)
{
    if (!t)
        return;
    free(t->v);
    free(t);
}

static uint64_t key_of(const struct active *t, uint64_t hash, uint32_t slot, uint32_t gen)
{
    uint64_t key = hash_mix(hash ^ t->seed, (uint64_t)slot << 32 | gen);
    return key ? key : 1;
}

/* Where the key is, or the empty cell where it would be. */
static uint32_t find(const struct active *t, uint64_t key)
{
    uint32_t at = (uint32_t)key & (t->cap - 1);
    while (t->v[at].key && t->v[at].key != key)
        at = (at + 1) & (t->cap - 1);
    return at;
}

static void resize(struct active *t, uint32_t cap)
{
    struct cell *old = t->v;
    uint32_t n = t->cap;
    t->cap = cap;
    t->v = xcalloc(cap, sizeof *t->v);
    for (uint32_t i = 0; i < n; i++)
        if (old[i].key)
            t->v[find(t, old[i].key)] = old[i];
    free(old);
}

bool active_add(struct active *t, uint64_t hash, uint32_t slot, uint32_t gen)
{
    uint64_t key = key_of(t, hash, slot, gen);
    uint32_t at = find(t, key);
    if (t->v[at].key) {
        t->v[at].n++;
        return false;
    }
    t->v[at] = (struct cell){key, 1};
    if (++t->n * 2 > t->cap)
        resize(t, t->cap * 2);
    return true;
}

static void take_out(struct active *t, uint32_t hole)
{
    uint32_t mask = t->cap - 1;
    for (uint32_t at = (hole + 1) & mask; t->v[at].key; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)t->v[at].key & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* it may stand in the hole and still be found */
            t->v[hole] = t->v[at];
            hole = at;
        }
    }
    t->v[hole] = (struct cell){0};
    t->n--;
}

bool active_del(struct active *t, uint64_t hash, uint32_t slot, uint32_t gen)
{
    uint32_t at = find(t, key_of(t, hash, slot, gen));
    if (!t->v[at].key || --t->v[at].n)
        return false;
    take_out(t, at);
    if (t->n * 8 < t->cap && t->cap > MIN_CAP)
        resize(t, t->cap / 2);
    return true;
}

bool active_has(const struct active *t, uint64_t hash, uint32_t slot, uint32_t gen)
{
    return t->v[find(t, key_of(t, hash, slot, gen))].key != 0;
}

uint32_t active_n(const struct active *t)
{
    return t->n;
}
