/* sched/record.h - the recorder: what the pools' schedulers are told and decide, written to a file while they run (core/journal.h says how a line looks).
 *
 * The verbs of one pool are noted in their order, under that pool's lock: a copy into a buffer, no formatting, no system call. One thread turns them
 * into lines and writes; what was noted is in the file at the latest 0.1 s later. The two halves of the buffer hold RECORD_BUFFER bytes together; when
 * both are full, verbs are not noted, and before the next one of that pool a line {"ev":"gap"} says how many are missing.
 * A write error (disk full) is logged once and ends the recording; traffic never waits for it. The last line may be cut then, or when the process dies.
 *
 * Metrics: penstock_record_dropped_total (verbs not noted), penstock_record_bytes_total, penstock_record_failed (1 after a write error). */
#ifndef SCHED_RECORD_H
#define SCHED_RECORD_H

#include "base/metrics.h"
#include "core/journal.h"

#define RECORD_BUFFER ((size_t)16 << 20)

struct record;
struct record_opts {
    double time_scale;       /* of the clock that the verbs are given */
    struct metrics *metrics; /* or NULL; must live until record_close */
    size_t buffer;           /* bytes of both halves; 0 = RECORD_BUFFER */
};
/* Creates the file with mode 0600; one that is there already must be empty. NULL with a sentence. */
struct record *record_open(const char *path, const struct record_opts *o, struct errbuf *err);
void record_close(struct record *r); /* writes what was noted and frees; NULL is none. Nobody may note any more */

/* Notes a new pool: returns its number, which is j.pool of its verbs. Any thread. */
uint32_t record_pool(struct record *r, struct str name, struct str ns, bool service, uint64_t seed,
                     const struct sched_params *p);
/* Notes a verb: copies *j and what it points to. Under the pool's lock. */
void record_note(struct record *r, struct journal *j);
/* The commonest ones. */
void record_submit(struct record *r, uint32_t pool, uint64_t now_us, const struct sched_req *q, enum sched_answer a,
                   bool again);
void record_decided(struct record *r, uint32_t pool, const struct sched_req *q);
void record_req(struct record *r, uint32_t pool, uint64_t now_us, enum journal_type what, const struct sched_req *q);
void record_finish(struct record *r, uint32_t pool, uint64_t now_us, const struct sched_req *q, enum sched_outcome how,
                   const struct sched_usage *u);

#endif
