/* core/prefix_entry.h - the store behind the prefix index: one entry per block hash, and who holds it. Internal to
 * core.
 *
 * An entry knows its parent (the hash before it in the chain) and how many entries follow it, so a chain can be walked
 * from its leaf to its root. It lives while somebody holds it or an entry below it does. Ids are stable while an entry
 * lives; ENTRY_NONE is the parent of roots. A holder is (slot, stamp): stamp is the owner's touch number, whose top bit
 * says that a prompt of this owner ended here. Holders are kept inline (1), in a list (8), or, beyond that, as a bitmap
 * of slots with the stamps in slot order. Most entries of a large index have one holder: two such fill a cache line. */
#ifndef CORE_PREFIX_ENTRY_H
#define CORE_PREFIX_ENTRY_H

#include "base/compiler.h"
#include <assert.h>

#define ENTRY_NONE     0u
#define STAMP_TERMINAL 0x80000000u
#define STAMP_MASK     0x7fffffffu

struct holder {
    uint32_t slot, stamp;
};
struct wide { /* followed by cap stamps, the first n in the order of the set bits */
    uint32_t n_words, cap;
    uint64_t bits[];
};
enum entry_form { FORM_INLINE, FORM_LIST, FORM_WIDE };
#define LIST_HOLDERS 8

struct entry {
    uint64_t hash;
    uint32_t parent;   /* free entries: the next free id */
    uint32_t children; /* entries whose parent this is */
    uint32_t n;        /* holders */
    uint8_t form : 2;
    uint8_t coarse : 1; /* covers PREFIX_COARSE blocks */
    uint8_t room;       /* of the list */
    uint8_t ends;       /* prompts of different length that ended here, saturating */
    uint8_t end_len;    /* low bits of the length of the latest of them */
    union {
        struct holder in;
        struct holder *list;
        struct wide *wide;
    } u;
};
static_assert(sizeof(struct entry) == 32, "two to a cache line");

#define ENTRY_SEG_BITS   7 /* independent hash tables: growing one of them is a short pause, growing one big is not */
#define ENTRY_SEGS       (1u << ENTRY_SEG_BITS)
#define ENTRY_CHUNK_BITS 10
struct entry_seg {
    uint64_t *v; /* 32 bits of the mixed hash << 32 | id; 0 = free; in the order of those bits, but for collisions */
    uint32_t cap, n;
};
struct entry_store {
    uint64_t seed; /* clients choose the prompts, so the table's order is keyed */
    struct entry_seg seg[ENTRY_SEGS];
    struct entry **chunks;
    uint32_t n_chunks, n_ids, free_id;
    uint64_t n_entries, n_memberships, bytes;
};

void entries_init(struct entry_store *st, uint64_t seed);
void entries_free(struct entry_store *st);
static inline struct entry *entries_at(const struct entry_store *st, uint32_t id)
{
    return &st->chunks[id >> ENTRY_CHUNK_BITS][id & (BIT(ENTRY_CHUNK_BITS) - 1)];
}
uint32_t entries_find(const struct entry_store *st, uint64_t hash); /* ENTRY_NONE when absent */
/* Looks up ENTRY_BATCH (or fewer) hashes at once, hiding the memory latency. */
#define ENTRY_BATCH 16u
void entries_find_many(const struct entry_store *st, const uint64_t *h, uint32_t n, uint32_t *ids);
/* Most often the entry of this hash, or ENTRY_NONE; no entry is looked at. */
uint32_t entries_guess(const struct entry_store *st, uint64_t hash);
/* The ids of n hashes of a chain, given what may be that of the last; false when they are not each other's parents.
 * Those of a chain mostly lie side by side, in the table never. */
bool entries_climb(const struct entry_store *st, uint32_t id, const uint64_t *h, uint32_t n, uint32_t *ids);
/* These bring in from memory what will be needed soon: to find or add hashes; to climb from an entry; to remove it and
 * its ancestors. */
void entries_expect(const struct entry_store *st, const uint64_t *h, uint32_t n);
void entries_expect_climb(const struct entry_store *st, uint32_t id, uint32_t n);
void entries_expect_reap(const struct entry_store *st, uint32_t id, uint32_t n);
/* The entry of this hash; when there is none, a new one with this parent and no holder yet. */
uint32_t entries_get(struct entry_store *st, uint64_t hash, uint32_t parent, bool coarse);
void entries_reap(struct entry_store *st,
                  uint32_t id); /* frees the entry, then its ancestors, as far as nobody needs them */

uint32_t *holder_get(const struct entry *e,
                     uint32_t slot); /* its stamp, valid until the next change; NULL when not held */
bool holder_touch(struct entry_store *st, struct entry *e, uint32_t slot,
                  uint32_t stamp); /* true when it is new; keeps the mark */
bool holder_del(struct entry_store *st, struct entry *e, uint32_t slot);
/* out = the words of `mask` that hold e; returns whether any bit is left. */
bool holder_mask(const struct entry *e, const uint64_t *mask, uint32_t n_words, uint64_t *out);

#endif
