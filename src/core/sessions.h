/* core/sessions.h - which endpoint answered the latest turn of a conversation: hash of everything up to the end of its prompt -> endpoint.
 *
 * A fixed table (65 536 turns, 1.5 MB, touched as it fills): the oldest of four gives way. Owner: struct sched, under its lock. An entry is a hint: it may
 * name an endpoint that is gone (the generation tells). Pure. */
#ifndef CORE_SESSIONS_H
#define CORE_SESSIONS_H

#include "base/compiler.h"

struct sessions;
struct sessions *sessions_new(void);
void sessions_free(struct sessions *t);
void sessions_put(struct sessions *t, uint64_t key, uint32_t slot, uint32_t gen);
bool sessions_get(const struct sessions *t, uint64_t key, uint32_t *slot, uint32_t *gen);
uint32_t sessions_count(const struct sessions *t, uint32_t slot); /* turns remembered of the slot's latest endpoint */

#endif
