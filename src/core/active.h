/* core/active.h - blocks of prompts in flight, by endpoint, counted: a block that several requests of an endpoint share
 * is there once. What the policy DYNAMO calls active blocks.
 *
 * A table of (block hash, endpoint) -> requests, open addressing, grows with what is in flight and never beyond four
 * times its hashes. Owner: struct sched, under its lock. Pure. */
#ifndef CORE_ACTIVE_H
#define CORE_ACTIVE_H

#include "base/compiler.h"

struct active;
struct active *active_new(uint64_t seed); /* keys the table's order: clients choose the prompts */
void active_free(struct active *t);       /* NULL: no-op */
/* One request more, or less, of endpoint (slot, gen) has the block. True when it is the first, or was the last. */
bool active_add(struct active *t, uint64_t hash, uint32_t slot, uint32_t gen);
bool active_del(struct active *t, uint64_t hash, uint32_t slot, uint32_t gen); /* no-op, false: nobody has it */
bool active_has(const struct active *t, uint64_t hash, uint32_t slot, uint32_t gen);
uint32_t active_n(const struct active *t); /* different blocks, over all endpoints */

#endif
