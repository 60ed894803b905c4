/* core/promtext.h - Prometheus text exposition -> endpoint load: an incremental scanner for the handful of series the picker needs.
 *
 * Names are matched exactly up to '{' or a blank; labels are tokenised (escapes, braces and commas inside values are legal). Feed the page in any
 * pieces; prom_feed returns false once nothing further can change the result (only when `stop_early` is set, which prom_init does): see
 * below. Series rules: model-servers.md 1.1-1.6 (sum over engines for counts and capacity, max for KV, newest value wins for lora info; NaN, infinite
 * and negative samples count as absent). Pure; the parser holds at most one line (bounded: longer lines are skipped).
 *
 * Early stop. A page prints each family once and its samples together. So the rest need not be read when (a) every wanted family has been seen,
 * the v1 name of the KV utilisation among them, and another family begins; or (b) the families so far came in ascending order (pages by Go
 * clients) and one beyond the last wanted name begins. Python's client prints in order of registration, and there cache_config_info is
 * near the end: such pages without LoRA are read whole, because nothing else tells that a family will not come. */
#ifndef CORE_PROMTEXT_H
#define CORE_PROMTEXT_H

#include "core/sched.h"

enum prom_dialect { PROM_VLLM, PROM_SGLANG, PROM_TRTLLM }; /* runtimes of annotation model-server-runtime; TRTLLM: Triton with the TensorRT-LLM
                                                            * backend, and trtllm-serve */
/* What to look for. A name given here ("name" or "name{label=value,...}", quotes around values optional; model-servers.md 1.10) replaces the dialect's own
 * for that quantity; spans must outlive the parser. detect: the runtime is not known, so series of every dialect count, and prom.shown says whose were there. */
struct prom_spec {
    enum prom_dialect dialect;
    bool detect;
    struct str waiting, running, kv_usage, lora_info, cache_info;
};

#define PROM_LINE 8192
#define PROM_NAME 128
struct prom {
    enum prom_dialect dialect;
    struct ep_load load;       /* the result so far; sent_us and done_us are the caller's to set */
    double lora_value;         /* value of the newest lora series so far */
    bool has_lora;             /* there was one */
    bool kv_new_name;          /* vllm:kv_cache_usage_perc had a sample: outranks the v0 name */
    bool stop_early;           /* may be cleared after prom_init */
    bool stopped;              /* prom_feed has returned false */
    bool skipping;             /* inside an over-long line */
    bool sorted;               /* family names have been ascending so far */
    uint32_t seen;             /* wanted families that began, one bit each */
    uint64_t bytes, lines, bad_lines; /* bad: over-long lines, and wanted series that cannot be read */
    uint32_t line_n, family_n;
    char family[PROM_NAME];    /* the newest family name of a HELP or TYPE line */
    char line[PROM_LINE];      /* an unfinished line */
};
void prom_init(struct prom *p, enum prom_dialect d);
bool prom_feed(struct prom *p, struct str piece);
void prom_end(struct prom *p); /* a last line without newline counts */

#endif
