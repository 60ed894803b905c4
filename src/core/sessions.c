/* core/sessions.c - four-way table of the latest turns. */
#include "core/sessions.h"

#include <stdlib.h>
#include <string.h>

#define WAYS 4
#define SETS (1u << 14)

struct turn {
    uint64_t key; /* 0 = empty */
    uint32_t slot, gen, age;
};
struct held { /* turns of a slot's latest endpoint */
    uint32_t gen, n;
};
struct sessions {
    uint32_t now; /* counts puts */
    uint32_t n_held;
    struct held *held; /* by slot */
    struct turn v[SETS][WAYS];
};

struct sessions *sessions_new(void)
{
    return xcalloc(1, sizeof(struct sessions));
}

void sessions_free(struct sessions *t)
{
    free(t->held);
    free(t);
}

static struct held *held_of(struct sessions *t, uint32_t slot, uint32_t gen)
{
    if (slot >= t->n_held) {
        uint32_t n = MAX(slot + 1, t->n_held * 2);
        t->held = xrealloc(t->held, n * sizeof *t->held);
        memset(t->held + t->n_held, 0, (n - t->n_held) * sizeof *t->held);
        t->n_held = n;
    }
    if (t->held[slot].gen != gen)
        t->held[slot] = (struct held){gen, 0};
    return &t->held[slot];
}

static void forget(struct sessions *t, const struct turn *old)
{
    if (old->key && t->held[old->slot].gen == old->gen)
        t->held[old->slot].n--;
}

void sessions_put(struct sessions *t, uint64_t key, uint32_t slot, uint32_t gen)
{
    struct turn *set = t->v[key % SETS], *at = &set[0];
    t->now++;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].key == key) {
            at = &set[i];
            break;
        }
        if (!set[i].key || t->now - set[i].age > t->now - at->age)
            at = &set[i];
        if (!set[i].key)
            break;
    }
    forget(t, at);
    held_of(t, slot, gen)->n++;
    *at = (struct turn){key, slot, gen, t->now};
}

uint32_t sessions_count(const struct sessions *t, uint32_t slot)
{
    return slot < t->n_held ? t->held[slot].n : 0;
}

bool sessions_get(const struct sessions *t, uint64_t key, uint32_t *slot, uint32_t *gen)
{
    const struct turn *set = t->v[key % SETS];
    for (int i = 0; key && i < WAYS; i++) {
        if (set[i].key == key) {
            *slot = set[i].slot;
            *gen = set[i].gen;
            return true;
        }
    }
    return false;
}
