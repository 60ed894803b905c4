/* bench/drive.h - the client: sends the requests of a data set when they are due and times the events of their answers. One thread, one loop.
 *
 * Definitions (those of the engine's client): the clock of a request starts after it has got its place under max_concurrency and before a connection is
 * opened; TTFT, ITL and E2EL are times of events whose `choices` is not empty; a request is ok when its answer was 200, came to its end in order and had
 * at least one such event. Beyond that client: an `error` event fails the request, and a kept connection that the server had closed is replaced once. Output
 * tokens are those of `usage`, else the number of events with text. A conversation ends with its first failure.
 * Bounds: one connection a request under way; the prompt is made when it is sent and is not kept; EVENT_LINE_MAX for a line; DRIVE_EVENTS_MAX events an
 * answer. Errors of requests are samples with a kind, never errors of the run. */
#ifndef BENCH_DRIVE_H
#define BENCH_DRIVE_H

#include "base/arena.h"
#include "bench/dataset.h"
#include "bench/result.h"
#include "net/loop.h"

#define DRIVE_EVENTS_MAX (1u << 22)
#define DRIVE_MAX_PODS   4096
#define DRIVE_MAX_KINDS  64 /* of errors told apart; further ones are "other" */

struct drive_progress {
    double elapsed_s;
    uint32_t total, done, failed, running, waiting;
};
struct drive_opts { /* strings are borrowed */
    struct addr to;
    struct str host;           /* value of the Host header */
    struct str target;         /* "/v1/completions" */
    bool chat;                 /* chat completions body */
    const struct str *models;  /* at least one */
    uint32_t n_models;
    bool models_random;        /* one drawn for each request; else in turn */
    bool ignore_eos;
    struct str extra;          /* members of the body: `,"temperature":0.5`, or empty */
    struct str headers;        /* complete lines, or empty */
    struct str request_id_prefix;
    uint64_t seed;
    uint32_t max_concurrency;  /* requests under way; 0: no limit */
    uint32_t max_conversations; /* begun and not ended; 0: no limit */
    uint64_t request_timeout_us;
    struct arrival_opts arrivals; /* of conversations, when the data set has no times of its own */
    uint64_t progress_us;      /* time between two calls of on_progress, by the clock of the loop */
    void (*on_progress)(void *ctx, const struct drive_progress *p); /* or NULL; the last call is after the end */
    void *ctx;
};
struct drive_result {
    struct bench_sample *samples; /* of requests that ended, in order of sending */
    uint32_t n;
    double duration_s;       /* from the beginning of the run to the end of the last answer */
    uint32_t unfinished;     /* under way when the loop was stopped */
    uint32_t not_sent;       /* later turns of conversations that failed, or never due when the loop was stopped */
    uint32_t without_done;   /* streams that ended in order, but without [DONE] */
    uint32_t reconnects;     /* kept connections the server had closed */
    const char **pods;       /* by x-inference-pod of the answers */
    uint32_t n_pods;
    struct arena arena;      /* owns error texts and names */
};
/* Runs until every request has ended or somebody calls loop_stop. */
void drive(struct loop *l, const struct drive_opts *o, const struct dataset *data, struct drive_result *out);
void drive_result_free(struct drive_result *r);

#endif
