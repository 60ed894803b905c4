/* replay/decisions.h - does a record of live traffic (core/journal.h) replay to the same decisions? Every verb of every
 * pool is played onto a fresh scheduler in the order of the record, and what it decides is compared with what was
 * decided: endpoint, reason, refusal, prefix matched, time queued, and the slots that new endpoints got.
 *
 * A pool is followed until its first difference (its scheduler knows something else from there on), or to the first gap
 * of the record. A last line that was cut is left out.
 *
 * Memory: the schedulers, and one small struct per request that may still be tried again. */
#ifndef REPLAY_DECISIONS_H
#define REPLAY_DECISIONS_H

#include "base/buf.h"
#include "base/err.h"
#include "core/journal.h"

enum decisions_end { DECISIONS_SAME, DECISIONS_DIFFER, DECISIONS_GAP };
struct decisions_pool {
    char name[JOURNAL_NAME + 1];
    uint64_t verbs, equal; /* played; decisions that were the same */
    enum decisions_end end;
    uint64_t line; /* DIFFER, GAP: where, from 1 */
    char why[512]; /* a sentence */
};
struct decisions_result {         /* zero-initialise */
    struct decisions_pool *pools; /* by their numbers */
    uint32_t n_pools;
    uint64_t lines, equal;
    bool cut; /* the last line was not complete */
    char program[32]; /* version that recorded it; another's picker may decide differently */
};
/* 0 when the whole record could be read, whatever was found. -1 with a sentence (line and what is wrong there) when it
 * is no record, or damaged. */
int decisions_check(struct str text, struct decisions_result *out, struct errbuf *err) MUST_USE;
bool decisions_same(
    const struct decisions_result *r); /* every decision of every pool, without a gap, and there was one */
void decisions_report(const struct decisions_result *r, struct buf *out); /* lines for people: each pool, and the sum */
void decisions_result_free(struct decisions_result *r);

#endif
