/* Lives of a random world, seed after seed, for the programs that take
 *
 *   --events N (of all lives together), --seed S (the first), --seeds N
 *
 * Each of the first three is lived twice: a seed must decide the same again. */
#ifndef TEST_WORLD_LIVES_H
#define TEST_WORLD_LIVES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lives {
    uint64_t events, first, next, seeds; /* next: seed of the next life */
};

static inline uint64_t lives_number(int argc, char **argv, const char *name, uint64_t otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return strtoull(argv[i + 1], NULL, 10);
    return otherwise;
}

static inline struct lives lives_of(int argc, char **argv, uint64_t events)
{
    uint64_t seed = lives_number(argc, argv, "--seed", 1);
    return (struct lives){.events = lives_number(argc, argv, "--events", events),
                          .first = seed,
                          .next = seed,
                          .seeds = lives_number(argc, argv, "--seeds", UINT64_MAX)};
}

/* live: one life; adds to sum and returns a digest of what was decided. n_events: of sum. False: a seed did not repeat
 * itself. */
static inline bool lives_run(struct lives *l, uint64_t (*live)(uint64_t seed, void *sum), void *sum,
                             const uint64_t *n_events)
{
    for (; *n_events < l->events && l->next - l->first < l->seeds; l->next++) {
        uint64_t d = live(l->next, sum);
        if (l->next - l->first < 3 && d != live(l->next, sum)) {
            (void)fprintf(stderr, "seed %llu decides differently the second time\n", (unsigned long long)l->next);
            return false;
        }
    }
    return true;
}

#endif
