/* core/promtext_int.h - what promtext.c and promjson.c share. Private to these files. */
#ifndef CORE_PROMTEXT_INT_H
#define CORE_PROMTEXT_INT_H

#include "core/promtext.h"

#define PROM_COUNT_MAX  0x1p50 /* no server counts so far; keeps sums finite and exact */
#define PROM_BLOCK_MAX  0x1p20 /* tokens of a block, and */
#define PROM_BLOCKS_MAX 0x1p40 /* blocks: no machine has more */

static inline bool prom_countable(double v) /* false for NaN too */
{
    return v >= 0 && v <= PROM_COUNT_MAX;
}
static inline bool prom_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
void prom_set_capacity(struct ep_load *l, double tokens); /* adds to it; 0 and what no machine has are left out */

/* The page is an array (p->json). Always more to read; p->lines counts elements. */
void prom_json_feed(struct prom *p, struct str piece);
void prom_json_end(struct prom *p);

#endif
