/* bench/dataset.h - what a run asks: prompts, lengths, turns, arrival times; and the arrival times of a wanted rate. Deterministic by the seed.
 *
 * Data sets by the names of the engine's client (reference model-servers.md 6.1: random, sharegpt, custom, prefix_repetition) and two of ours: multi-turn
 * (conversations with a history) and trace (replay of recorded arrivals and lengths, blocks of prompts shared as recorded; tables of the Azure and BurstGPT
 * forms, without blocks). Prompts are made when they are
 * sent, so a run of millions of tokens holds none of them. Lengths are tokens: exact for generated words in so far as bench/words.h is, an
 * estimate for texts of files.
 * Errors: false with a sentence that names file and line. Bounds: DATASET_MAX requests, DATASET_MAX_TOKENS a prompt, DATASET_MAX_FILE bytes. */
#ifndef BENCH_DATASET_H
#define BENCH_DATASET_H

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"

#define DATASET_MAX        10000000u
#define DATASET_MAX_TOKENS (1u << 24)
#define DATASET_MAX_FILE   (4ull << 30)
#define TRACE_BLOCK        512 /* tokens of a block of a trace that does not say otherwise */
#define TRACE_GRID_MS      3000 /* arrivals stamped equal are spread over at most this */

enum dataset_kind { DATA_RANDOM, DATA_SHAREGPT, DATA_CUSTOM, DATA_PREFIX, DATA_MULTI_TURN, DATA_TRACE, DATA_N };
bool dataset_kind_parse(struct str name, enum dataset_kind *out); /* also "prefix-repetition", "multi_turn" */

struct dataset_opts {
    enum dataset_kind kind;
    const char *path;           /* NULL: generated */
    uint64_t seed;
    uint32_t num_prompts;       /* 0: 1000; of a trace or of conversations: all */
    bool shuffle, oversample;   /* of files, as the engine's client: both unless told otherwise */
    uint32_t random_input, random_output, random_prefix;
    double random_range;        /* lengths uniform in [len (1 - r), len (1 + r)], 0 <= r < 1 */
    uint32_t sharegpt_output;   /* 0: as long as the recorded answer */
    int64_t custom_output;      /* -1: output_tokens of the line */
    uint32_t prefix_len, suffix_len, num_prefixes, prefix_output;
    struct {
        uint32_t conversations, min_turns, max_turns;
        uint32_t input, output;  /* tokens of a turn */
        double range;            /* as random_range, for both */
        uint32_t common_prefix, prefix; /* before the first turn: of all, of one conversation */
        double think_s;          /* mean of the exponential pause before every turn but the first */
    } turns;
    double trace_speed;          /* 2: recorded times pass twice as fast */
    bool trace_as_recorded;      /* equal arrival times stay equal */
    double trace_max_delay_s;    /* upper limit of recorded pauses */
};
void dataset_opts_init(struct dataset_opts *o); /* the defaults of the engine's client */

struct data_request {
    uint32_t input_tokens;  /* of this turn's own text, with the prefixes; without the history */
    uint32_t output_tokens; /* at least 1 */
    uint32_t turn;          /* in its conversation, from 0 */
    uint32_t common_tokens, prefix_tokens, own_tokens, n_ids;
    float think_s;          /* pause between the answer before it and this turn */
    uint64_t prefix_key, own_key, ids_from;
    struct str raw;         /* text of a file: a raw JSON string */
};
struct dataset { /* zero-initialise; read only for others */
    struct data_request *v; /* the turns of a conversation stand one behind the other */
    uint32_t n, cap;
    uint32_t n_conversations;
    double *at_s;      /* arrival of conversation i since the start; NULL: by the rate */
    bool history;      /* the prompt of a turn: all turns and answers before it, then its own text */
    uint64_t common_key, block_key;
    uint64_t *ids;     /* blocks of traces */
    size_t n_ids, cap_ids;
    uint32_t block_tokens; /* what an id stands for; the last of a prompt may stand for less */
    uint32_t left_out;     /* rows of requests that failed when they were recorded */
    char note[256];        /* what else is to be known of the load: a sentence or two, or empty */
    struct buf file;       /* owns what raw points to */
};
/* Reads o->path (through `gzip -dc` when it ends in .gz) and makes the requests. dataset_free after failure too. */
bool dataset_load(struct dataset *d, const struct dataset_opts *o, struct errbuf *err) MUST_USE;
/* The same without a file system: d->file holds the text (empty for generated data). */
bool dataset_make(struct dataset *d, const struct dataset_opts *o, struct errbuf *err) MUST_USE;
void dataset_free(struct dataset *d);
/* Appends the own text of request i, ready to stand between the quotes of a JSON string. */
void dataset_text(const struct dataset *d, uint32_t i, struct buf *out);

/* ---- generated loads by name, for replays (dataset_synth.c) ----
 *
 *   shared_prefix             150 system prompts of 6000 tokens, 5 questions of 1200 to each, all sent 4 times, in another order every time; answers of 1000
 *   shared_prefix_low         the same with 1200 + 6000 tokens
 *   prefix_repetition[:N[,P[,S[,O[,R]]]]]   N prefixes (100) of P tokens (4096), each before as many own suffixes of S (512), shuffled; answers of O (256);
 *                             R requests (3000), rounded up to a multiple of N
 *   chat[:N]                  N requests (20000) of conversations that grow: parameters in dataset_synth.c
 *
 * Every request stands alone (turn 0) and brings its whole prompt as ids of 512 tokens. Arrivals: Poisson, one a second. Equal names and seeds
 * give equal loads. */
bool dataset_synth_is(struct str name); /* the part before ':' is one of these names */
/* False with a sentence: an unknown name (which lists them), a number that cannot be. */
bool dataset_synth(struct dataset *d, struct str name, uint64_t seed, struct errbuf *err) MUST_USE;

/* ---- arrivals ---- */

struct arrival_opts {
    double rate;       /* requests a second; INFINITY: all at once */
    double burstiness; /* shape of the gamma distributed gaps: 1 Poisson, less: bursts, INFINITY: even */
    enum { RAMP_NONE, RAMP_LINEAR, RAMP_EXPONENTIAL } ramp;
    double ramp_start, ramp_end;
    uint64_t seed;
};
/* Times of n arrivals since the start: gaps of mean 1/rate, and, without a ramp, stretched so that the last comes at n/rate (as the engine's client does).
 * malloc'd. */
double *arrivals_make(const struct arrival_opts *o, uint32_t n);
double rng_gamma(struct rng *r, double shape); /* scale 1; Marsaglia and Tsang, "A simple method for generating gamma variables", 2000 */

/* ---- dataset_file.c, dataset_trace.c, dataset_csv.c, dataset_synth.c: for each other ---- */
void dataset_seed(struct dataset *d, uint64_t seed); /* the keys of the texts */
struct data_request *dataset_add(struct dataset *d); /* zeroed; NULL when DATASET_MAX is reached */
/* A whole prompt: ids[ids_from..] stand for its start, own text for what they leave. Lengths of 0 become 1. NULL as above. */
struct data_request *dataset_add_prompt(struct dataset *d, uint32_t input, uint32_t output, size_t ids_from, uint32_t n_ids);
void dataset_add_id(struct dataset *d, uint64_t id);
bool dataset_sharegpt(struct dataset *d, const struct dataset_opts *o, struct errbuf *err);
bool dataset_custom(struct dataset *d, const struct dataset_opts *o, struct errbuf *err);
bool dataset_conversations(struct dataset *d, const struct dataset_opts *o, struct errbuf *err);
bool dataset_trace(struct dataset *d, const struct dataset_opts *o, struct errbuf *err);
bool dataset_csv_is(struct str first_line); /* the head of a table that dataset_csv reads */
/* Fills *ms with the arrival of every request, in order (malloc'd, also when it fails). */
bool dataset_csv(struct dataset *d, const struct dataset_opts *o, double **ms, struct errbuf *err);
/* dataset_record.c: a record of live traffic (core/journal.h); ms as above. */
bool dataset_record_is(struct str first_line);
bool dataset_record(struct dataset *d, const struct dataset_opts *o, double **ms, struct errbuf *err);
bool dataset_read(struct buf *out, const char *path, struct errbuf *err);
struct data_line { /* of a JSON Lines text */
    struct str rest, line;
    unsigned no;
};
bool data_line_next(struct data_line *l); /* skips empty lines */

#endif
