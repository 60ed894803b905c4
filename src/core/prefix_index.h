/* core/prefix_index.h - which endpoint is believed to have which prefix in its KV cache. Internal to core.
 *
 * Chained block hashes -> entries -> holders (prefix_entry.h). A match walks the chain once, AND-ing the holders, and
 * gives the exact longest contiguous prefix of every endpoint.
 *
 * Ageing: every touch (insert) of a chain by a slot has one stamp and leaves one record {leaf, stamp} in the slot's
 * log. What still carries the stamp of the oldest record is the least recently used; it is forgotten from the leaf
 * upwards. A later touch of an entry touches its ancestors too, so no descendant is ever younger, and what an endpoint
 * holds stays a set of whole prefixes.
 *
 * Each record has a time, too (tenths of a second, `now_ds`, of the caller's clock; never decreasing).
 *
 * Sizes are in blocks: a coarse entry counts PREFIX_COARSE. Memory: entries reclaim themselves with the last holder; a
 * log has at most as many live records as the slot has memberships. A closed slot stops matching at once and is emptied
 * by prefix_index_work. */
#ifndef CORE_PREFIX_INDEX_H
#define CORE_PREFIX_INDEX_H

#include "core/prefix_hash.h"

struct prefix_index;
struct prefix_index *prefix_index_new(uint64_t seed);
void prefix_index_free(struct prefix_index *ix);

/* A slot may be opened when it is empty (never used, or closed and emptied). cap: blocks it may hold. */
void prefix_index_open(struct prefix_index *ix, uint32_t slot, uint64_t cap);
void prefix_index_close(struct prefix_index *ix, uint32_t slot);
bool prefix_index_empty(const struct prefix_index *ix, uint32_t slot);
void prefix_index_set_cap(struct prefix_index *ix, uint32_t slot,
                          uint64_t cap); /* shrinks with the next insert or work */
bool prefix_index_work(struct prefix_index *ix,
                       uint32_t budget); /* removes up to budget memberships that are due; true: all done */

struct prefix_match { /* valid until the next call that takes the index */
    uint32_t n;       /* slots that hold at least the first hash */
    uint32_t *slots;  /* these */
    uint32_t *len;    /* by slot: hashes matched; 0 for all others */
    uint32_t chain_n; /* longest */
    uint32_t *chain;  /* entry ids of the longest */
};
const struct prefix_match *prefix_index_match(struct prefix_index *ix, const uint64_t *h, uint32_t n);
uint32_t prefix_match_len(const struct prefix_match *m, const struct prefix_index *ix, uint32_t slot);

/* Entry where a match ends: did a prompt of this slot end there; how many different ways prompts went on from there. */
bool prefix_index_terminal(const struct prefix_index *ix, uint32_t entry, uint32_t slot);
uint32_t prefix_index_branches(const struct prefix_index *ix, uint32_t entry);

struct prefix_chain { /* what is inserted: hashes as in struct prefix_hashes, and something that tells prompts apart
                         (their length) */
    const uint64_t *h;
    uint32_t n, n_fine;
    uint64_t length;
};
/* Slot holds the whole chain now. Returns how many memberships are new: always the last ones of the chain. *stamp
 * identifies the touch. */
uint32_t prefix_index_insert(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t now_ds,
                             uint32_t *stamp);
/* Slot has used a chain that was inserted before once more (a request on it has ended): all of it is as young as if
 * inserted now, and what was forgotten meanwhile is back, since the server kept it for as long as the request ran. What
 * is known of prompts' ends stays as it is. Cheap where nothing is missing. */
void prefix_index_touch(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t now_ds);
/* Takes back the last `added` memberships of that insert, except those that others have touched since. Returns how much
 * of the chain is left. */
uint32_t prefix_index_rollback(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t added,
                               uint32_t stamp);
/* The slot holds only the first `keep` of the chain. */
void prefix_index_trim(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t keep);

/* What `blocks` more would push out of the slot: returns how many blocks, 0 when there is room (may be more than it
 * holds); *last_ds: time of the latest touch among those that would go. Looks at a bounded number of records and
 * entries (PREFIX_LOOK_*): exact within them, beyond them estimated as if all later records were of equal size. Not
 * for a slot that is closed: 0. */
#define PREFIX_LOOK_RECORDS 64u
#define PREFIX_LOOK_ENTRIES 256u
uint64_t prefix_index_oldest(struct prefix_index *ix, uint32_t slot, uint64_t blocks, uint32_t *last_ds);

uint64_t prefix_index_blocks(const struct prefix_index *ix, uint32_t slot);
struct prefix_index_stats {
    uint64_t entries, memberships, bytes, evictions;
};
void prefix_index_stats(const struct prefix_index *ix, struct prefix_index_stats *out);

#endif
