/* core/promtext.h - metrics page of a model server -> endpoint load: an incremental scanner for the handful of series the picker needs.
 *
 * Prometheus text: names are matched exactly up to '{' or a blank; labels are tokenised (escapes, braces and commas inside values are legal). Feed the
 * page in any pieces and end it with prom_end, which makes `load`. Pure; the parser holds at most one line (bounded: longer ones are skipped) and
 * PROM_SAMPLES values.
 *
 * What counts (model-servers.md 1.1 to 1.10):
 * - Series that differ only in a rank that shares one scheduler (tp_rank, pp_rank, moe_ep_rank) are one: the largest of their values. Others are parts
 *   of the server (data-parallel engines, models of a Triton): requests and capacity are summed over them, of the KV use there is the largest (kv_frac)
 *   and the mean (kv_mean). SGLang with priorities: only the series with priority="", which is the sum of the others.
 * - SGLang's waiting requests include those in the queues of prefill and decode servers (bootstrap, inflight, prealloc, transfer).
 * - Capacity: a gauge of tokens, else block size x blocks of the same labels, else what the labels of the info series say.
 * - The LoRA series with the greatest value is the current one; of equal ones the last.
 * - NaN, infinite and negative samples count as absent. A quantity is absent too when one of its series cannot be read, and when the page breaks off
 *   within a line that may be one of its series: a sum without a part would look like an idle server. A page that breaks off between two lines
 *   cannot be told from a shorter one; that the transport must know.
 * - All of it comes from one kind of server: the first whose series appear on the page.
 *
 * JSON: a page that begins with '[' is what trtllm-serve answers at /metrics (1.9), an array of iteration statistics; its last element counts, if the
 * array is complete and that element is no longer than PROM_LINE. An empty array says that nothing was computed since the last look: no load.
 *
 * Early stop. A page prints each family once and its samples together. So the rest need not be read when (a) every wanted family has been seen and
 * another one begins; or (b) the families so far, eight or more, came in ascending order (pages by Go clients), the counts, KV use and capacity among
 * them, and one beyond the last wanted name begins. prom_feed then returns false. Python's client prints in order of registration, where what tells of LoRA or
 * of a prefill server's queues may be absent or come last: such pages are read whole, because nothing else tells that a family will not come. */
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

/* A name of the spec, taken apart. Spans point into its text. */
#define PROM_NAME_LABELS 4
struct prom_name {
    struct str name;
    struct {
        struct str name, value;
    } label[PROM_NAME_LABELS];
    uint32_t n_labels;
};
bool prom_name_parse(struct str text, struct prom_name *out) MUST_USE; /* false: not of that form, or more labels than fit */

#define PROM_LINE 8192
#define PROM_NAME 128
#define PROM_SAMPLES 2048 /* of all quantities together; one with a series that does not fit is absent */
#define PROM_SUMS 13
#define PROM_NAMES 5
struct prom_sample {
    uint64_t part; /* of the server: hash of the labels that tell them apart */
    double value;
    uint32_t before; /* place of another sample of the quantity; 0: none */
};
struct prom {
    struct ep_load load; /* after prom_end; sent_us and done_us are the caller's to set */
    unsigned shown;      /* BIT(enum prom_dialect): series of these were there, wanted or not */
    bool json;           /* the page is an array of iteration statistics */
    double iterations;   /* after prom_end: steps a Triton has computed, over all models; 0: not told. While it stands still the counts are those
                          * of the last step: an idle server may show requests for ever (1.8) */
    bool stop_early;     /* may be cleared after prom_init */
    bool stopped;        /* prom_feed has returned false */
    uint64_t bytes, lines, bad_lines; /* bad: over-long lines, and wanted series that cannot be read */
    /* private */
    enum prom_dialect dialect;
    bool detect;
    bool begun;      /* something other than blanks was there */
    bool skipping;   /* inside an over-long line or element */
    bool sorted;     /* family names have been ascending so far */
    bool complete;   /* nothing wanted can follow, but more of the family that has begun */
    bool has_lora;   /* there was a lora series */
    double lora_value; /* of the newest so far */
    int8_t server;   /* the kind of server whose series count; -1: not known yet */
    uint8_t role;    /* as SGLang's engine_type says */
    uint8_t json_at; /* where in the array */
    bool json_text, json_escape;
    uint32_t json_depth;
    unsigned replaced, lost; /* quantities: those the spec names; those that must stay absent */
    unsigned seen[4];        /* by kind of server: quantities whose family began */
    struct prom_name names[PROM_NAMES];
    uint8_t name_what[PROM_NAMES];
    uint32_t n_names;
    uint32_t newest[PROM_SUMS], n_samples, compared;
    uint32_t line_n, family_n, n_sorted;
    char family[PROM_NAME]; /* the newest family name of a HELP or TYPE line */
    char line[PROM_LINE];   /* an unfinished line or element */
    struct prom_sample sample[PROM_SAMPLES];
};
void prom_init(struct prom *p, const struct prom_spec *spec);
bool prom_feed(struct prom *p, struct str piece);
void prom_end(struct prom *p); /* once */
bool prom_wants(const struct prom *p, enum prom_dialect d); /* series of this dialect count */
const char *prom_dialect_name(enum prom_dialect d); /* as in the annotation: vllm, sglang, trt-llm */

#endif
