/* core/promtext.h - Prometheus text exposition -> endpoint load: an incremental scanner for the handful of series the picker needs.
 *
 * Names are matched exactly up to '{' or a blank; labels are tokenised (escapes, braces and commas inside values are legal). Feed the page in any
 * pieces; prom_feed returns false once nothing further can change the result (only when `stop_early` is set: every wanted family has been passed and
 * the server type emits no second series later). Series rules: model-servers.md 1.1-1.6 (sum over engines for counts, max for KV, newest value wins for
 * lora info). Pure; the parser holds at most one line (bounded: longer lines are skipped). */
#ifndef CORE_PROMTEXT_H
#define CORE_PROMTEXT_H

#include "core/sched.h"

enum prom_dialect { PROM_VLLM, PROM_SGLANG, PROM_TRTLLM }; /* runtimes of annotation model-server-runtime; only PROM_VLLM in this version */

#define PROM_LINE 8192
struct prom {
    enum prom_dialect dialect;
    struct ep_load load;       /* the result so far; sent_us and done_us are the caller's to set */
    double lora_value;         /* value of the newest lora series so far */
    bool kv_new_name;          /* vllm:kv_cache_usage_perc seen: outranks the v0 name */
    bool skipping;             /* inside an over-long line */
    uint64_t bytes, lines, bad_lines;
    uint32_t line_n;
    char line[PROM_LINE];      /* an unfinished line */
};
void prom_init(struct prom *p, enum prom_dialect d);
bool prom_feed(struct prom *p, struct str piece);
void prom_end(struct prom *p); /* a last line without newline counts */

#endif
