/* base/map.h - hash map from byte strings to pointers (open addressing, seeded XXH3).
 *
 * Keys are copied; values are borrowed. Iteration order is unspecified; do not change the map while iterating except with
 * map_del of the current key followed by stopping. Not thread-safe. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/str.h"

struct map_slot {
    uint64_t hash;
    char *key; /* NULL = empty */
    size_t key_n;
    void *val;
};
struct map {
    struct map_slot *v;
    size_t n, cap; /* cap is 0 or a power of two */
    uint64_t seed;
};

void map_init(struct map *m, uint64_t seed);
void map_free(struct map *m);                          /* keys and table; values are the caller's */
void *map_get(const struct map *m, struct str key);    /* NULL when absent */
void *map_put(struct map *m, struct str key, void *val); /* returns the value replaced, or NULL; val must not be NULL */
void *map_del(struct map *m, struct str key);          /* returns the value removed, or NULL */
#define MAP_EACH(slot, m)                                                                                                        \
    for (struct map_slot *slot = (m)->v; slot && slot != (m)->v + (m)->cap; slot++)                                                      \
        if (slot->key)

#endif
