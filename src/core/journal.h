/* core/journal.h - the verbs of core/sched.h as lines of text: what a scheduler was told, in order, and what it decided. The same lines
 * played onto a fresh scheduler give the same decisions (core/sched.h), so a journal is both a load to replay and a proof.
 *
 * JSON Lines. The first key of every line names it: {"penstock":"record",...} is the head, all others are {"ev":NAME,...}. Members that are zero, false or
 * empty are left out, but those of the parameters, which are all written (absent: the default). Hashes, flows, models and seeds are hexadecimal
 * strings (64-bit numbers that JSON readers would round), 16 digits each; endpoints are [slot, generation] as sched_ep_add gave them; times
 * are microseconds of the scheduler's clock; doubles are written so that they read back exactly. No text of any prompt, no address. docs/reference.md
 * lists the members.
 *
 * A request is known by "req": the number sched_submit gave it (sched_req.q.seq), which a retry keeps. "id" is sched_req.id.
 *
 * Pure; not thread-safe. Bounds: PREFIX_MAX hashes, SCHED_MAX_FLOW_WEIGHTS weights, JOURNAL_MAX_MODELS models, JOURNAL_NAME bytes of a name. */
#ifndef CORE_JOURNAL_H
#define CORE_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"
#include "core/sched.h"

#define JOURNAL_VERSION    1
#define JOURNAL_MAX_MODELS 4096
#define JOURNAL_NAME       256
#define JOURNAL_MAX_POOLS  4096

/* Size of struct sched_params all of whose members journal.c writes: a test compares, so that a new member is not forgotten there. */
#define JOURNAL_PARAMS_SIZE 312

enum journal_type {
    JOURNAL_HEAD,
    JOURNAL_POOL,   /* sched_new: the pools of a record are numbered from 0 in this order */
    JOURNAL_PARAMS, /* sched_set_params */
    JOURNAL_EP_ADD,
    JOURNAL_EP_REMOVE,
    JOURNAL_EP_DRAIN,
    JOURNAL_EP_LOAD,
    JOURNAL_EP_MODELS,
    JOURNAL_EP_PROBE,
    JOURNAL_EP_ALIVE,
    JOURNAL_SUBMIT,  /* with the answer */
    JOURNAL_DECIDED, /* handed out by sched_next_decided after the verb before it */
    JOURNAL_CANCEL,
    JOURNAL_FIRST_TOKEN,
    JOURNAL_FINISH,
    JOURNAL_TICK,
    JOURNAL_GAP, /* lines of this pool are missing here: the recorder could not keep up */
    N_JOURNAL_TYPES
};

struct journal_answer { /* what was decided; all zero while queued */
    enum sched_reject reject;
    enum sched_reason reason;
    uint64_t matched_bytes, queued_us;
    bool no_prefill;
    struct ep_ref ep;
};

struct journal_submit {
    enum sched_answer answer;
    struct journal_answer decided;
    bool again;      /* not the first attempt */
    bool has_hashes; /* sched_req.hashes was there */
    bool light, streamed;
    int priority;
    uint32_t n_media, n_outputs, n_tried;
    uint64_t id, flow, ttl_us, prompt_bytes, prompt_token_ids, max_tokens, model;
    struct ep_ref pinned, tried[SCHED_MAX_TRIED];
    struct prefix_hashes hashes; /* h is borrowed */
};

struct journal { /* one line; which of the union: by type */
    enum journal_type type;
    uint32_t pool;
    uint64_t now_us, req;
    struct ep_ref ep; /* EP_...: whose */
    union {
        struct {
            uint32_t version;
            double time_scale;
            struct str started; /* RFC 3339 */
            struct str program; /* version of the recorder: another's picker may decide differently */
        } head;
        struct {
            struct str name, ns;
            bool service; /* not an InferencePool */
            uint64_t seed;
            struct sched_params params;
        } pool_new;
        struct sched_params params; /* flow_weights is borrowed */
        struct {
            struct str name;
            bool wait_probe;
        } add;
        struct {
            bool on;
        } drain;
        struct ep_load load;
        struct {
            const struct sched_model *v;
            uint32_t n;
        } models;
        struct {
            bool ok;
            uint64_t asked_us;
        } probe;
        struct journal_submit submit;
        struct journal_answer decided;
        struct {
            enum sched_outcome how;
            bool has_usage;
            struct sched_usage usage;
        } finish;
        struct {
            uint64_t lines;
        } gap;
    } u;
};

/* ---- from the scheduler ---- */

/* After sched_submit; again: r->q.seq was not 0 before it. Borrows the hashes. */
void journal_submitted(struct journal *j, const struct sched_req *r, enum sched_answer answer, bool again);
void journal_answer_of(struct journal_answer *out, const struct sched_decision *d);
/* The inputs of a request from its line, for a new attempt: what is private to core stays. h: where the hashes are from now on, ph: what r->hashes
 * shall point to; both must live until sched_finish. */
void journal_fill(struct sched_req *r, const struct journal_submit *s, struct prefix_hashes *ph, uint64_t *h);

/* ---- text ---- */

void journal_put(struct buf *out, const struct journal *j); /* appends the line with its end; out->overflow when there is no room */
bool journal_is(struct str first_line);                     /* the head of a record, of whatever version */
struct journal_reader { /* zero-initialise; holds what the lines read point to */
    uint64_t *hashes;
    struct sched_flow_weight *weights;
    struct sched_model *models;
    char text[2][JOURNAL_NAME];
};
/* Reads one line (without its end). 0, or -1 with a sentence: no JSON, an event that is not known, a member of the wrong type or size. *out is valid until
 * the next read. Members that are not known are passed over. What is read is in bounds and finite; whether it makes sense in its
 * place (an endpoint that exists, a request under way) is for the caller to see. */
int journal_read(struct journal_reader *jr, struct str line, struct journal *out, struct errbuf *err);
void journal_reader_free(struct journal_reader *jr);

#endif
