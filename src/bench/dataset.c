/* bench/dataset.c - generated data sets, the text of requests, and what all kinds share. */
#include "bench/dataset.h"

#include "base/hash.h"
#include "bench/words.h"

#include <math.h>
#include <stdlib.h>

enum { KEY_COMMON = 1, KEY_PREFIX, KEY_OWN, KEY_BLOCK, KEY_DRAW, KEY_ARRIVAL }; /* what a seed is mixed with */

bool dataset_kind_parse(struct str name, enum dataset_kind *out)
{
    static const struct {
        const char *name;
        enum dataset_kind kind;
    } names[] = {{"random", DATA_RANDOM},
                 {"sharegpt", DATA_SHAREGPT},
                 {"custom", DATA_CUSTOM},
                 {"prefix_repetition", DATA_PREFIX},
                 {"prefix-repetition", DATA_PREFIX},
                 {"multi-turn", DATA_MULTI_TURN},
                 {"multi_turn", DATA_MULTI_TURN},
                 {"trace", DATA_TRACE}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eq_c(name, names[i].name)) {
            *out = names[i].kind;
            return true;
        }
    }
    return false;
}

void dataset_opts_init(struct dataset_opts *o)
{
    *o = (struct dataset_opts){.kind = DATA_RANDOM,
                               .shuffle = true,
                               .oversample = true,
                               .random_input = 1024,
                               .random_output = 128,
                               .custom_output = 256,
                               .prefix_len = 256,
                               .suffix_len = 256,
                               .num_prefixes = 10,
                               .prefix_output = 128,
                               .turns = {.conversations = 24,
                                         .min_turns = 6,
                                         .max_turns = 9,
                                         .input = 140,
                                         .output = 100,
                                         .range = 0.15,
                                         .common_prefix = 500,
                                         .prefix = 1000},
                               .trace_speed = 1,
                               .trace_max_delay_s = 60};
}

struct data_request *dataset_add(struct dataset *d)
{
    if (d->n == DATASET_MAX)
        return NULL;
    if (d->n == d->cap) {
        d->cap = MAX(d->cap * 2, 256u);
        d->v = xrealloc(d->v, d->cap * sizeof(*d->v));
    }
    struct data_request *r = &d->v[d->n++];
    *r = (struct data_request){0};
    return r;
}

void dataset_add_id(struct dataset *d, uint64_t id)
{
    if (d->n_ids == d->cap_ids) {
        d->cap_ids = MAX(d->cap_ids * 2, (size_t)4096);
        d->ids = xrealloc(d->ids, d->cap_ids * sizeof(*d->ids));
    }
    d->ids[d->n_ids++] = id;
}

struct data_request *dataset_add_prompt(struct dataset *d, uint32_t input, uint32_t output, size_t ids_from,
                                        uint32_t n_ids)
{
    uint32_t i = d->n;
    struct data_request *r = dataset_add(d);
    if (!r)
        return NULL;
    r->input_tokens = MAX(input, 1u);
    r->output_tokens = MAX(output, 1u);
    r->ids_from = ids_from;
    r->n_ids = n_ids;
    uint64_t shared = (uint64_t)n_ids * d->block_tokens;
    r->own_tokens = r->input_tokens - (uint32_t)MIN((uint64_t)r->input_tokens, shared);
    r->own_key = hash_mix(~d->block_key, i);
    return r;
}

void dataset_seed(struct dataset *d, uint64_t seed)
{
    d->common_key = hash_mix(seed, KEY_COMMON);
    d->block_key = hash_mix(seed, KEY_BLOCK);
}

void dataset_free(struct dataset *d)
{
    free(d->v);
    free(d->at_s);
    free(d->ids);
    buf_free(&d->file);
    *d = (struct dataset){0};
}

void dataset_text(const struct dataset *d, uint32_t i, struct buf *out)
{
    const struct data_request *r = &d->v[i];
    words_add(out, d->common_key, 0, r->common_tokens);
    words_add(out, r->prefix_key, 0, r->prefix_tokens);
    uint32_t left = r->input_tokens;
    for (uint32_t k = 0; k < r->n_ids && left; k++) {
        uint32_t n = MIN(left, d->block_tokens);
        words_add(out, hash_mix(d->block_key, d->ids[r->ids_from + k]), 0, n);
        left -= n;
    }
    buf_add_str(out, r->raw);
    words_add(out, r->own_key, 0, r->own_tokens);
}

/* ---- generated ---- */

/* Uniform in [len (1 - range), len (1 + range)], both ends included, at least `least`. */
static uint32_t draw_len(struct rng *r, uint32_t len, double range, uint32_t least)
{
    uint32_t low = (uint32_t)floor(len * (1 - range)), high = (uint32_t)ceil(len * (1 + range));
    low = MAX(low, least);
    high = MAX(high, low);
    return low + (uint32_t)rng_below(r, (uint64_t)high - low + 1);
}

static bool make_random(struct dataset *d, const struct dataset_opts *o, struct rng *rng)
{
    uint32_t n = o->num_prompts ? o->num_prompts : 1000;
    for (uint32_t i = 0; i < n; i++) {
        struct data_request *r = dataset_add(d);
        if (!r)
            return false;
        r->common_tokens = o->random_prefix;
        r->own_tokens = draw_len(rng, o->random_input, o->random_range, o->random_prefix ? 0 : 1);
        r->output_tokens = draw_len(rng, o->random_output, o->random_range, 1);
        r->own_key = hash_mix(hash_mix(o->seed, KEY_OWN), i);
        r->input_tokens = r->common_tokens + r->own_tokens;
    }
    return true;
}

static void shuffle(struct data_request *v, uint32_t n, struct rng *rng)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)rng_below(rng, i);
        struct data_request t = v[i - 1];
        v[i - 1] = v[k];
        v[k] = t;
    }
}

static bool make_prefix(struct dataset *d, const struct dataset_opts *o, struct rng *rng, struct errbuf *err)
{
    uint32_t n = o->num_prompts ? o->num_prompts : 1000;
    if (!o->num_prefixes || n < o->num_prefixes) {
        err_set(err, "%u prompts cannot be shared out over %u prefixes.", n, o->num_prefixes);
        return false;
    }
    uint32_t each = n / o->num_prefixes;
    for (uint32_t i = 0; i < each * o->num_prefixes; i++) {
        struct data_request *r = dataset_add(d);
        if (!r)
            return false;
        r->prefix_tokens = o->prefix_len;
        r->prefix_key = hash_mix(hash_mix(o->seed, KEY_PREFIX), i / each);
        r->own_tokens = o->suffix_len;
        r->own_key = hash_mix(hash_mix(o->seed, KEY_OWN), i);
        r->output_tokens = MAX(o->prefix_output, 1u);
        r->input_tokens = r->prefix_tokens + r->own_tokens;
    }
    shuffle(d->v, d->n, rng);
    return true;
}

static bool make_turns(struct dataset *d, const struct dataset_opts *o, struct rng *rng)
{
    d->history = true;
    for (uint32_t c = 0; c < o->turns.conversations; c++) {
        uint32_t turns =
            o->turns.min_turns + (uint32_t)rng_below(rng, (uint64_t)o->turns.max_turns - o->turns.min_turns + 1);
        for (uint32_t t = 0; t < turns; t++) {
            struct data_request *r = dataset_add(d);
            if (!r)
                return false;
            r->turn = t;
            if (t == 0) {
                r->common_tokens = o->turns.common_prefix;
                r->prefix_tokens = o->turns.prefix;
                r->prefix_key = hash_mix(hash_mix(o->seed, KEY_PREFIX), c);
            } else {
                r->think_s = (float)(o->turns.think_s * rng_exp(rng));
            }
            r->own_tokens = draw_len(rng, o->turns.input, o->turns.range, 1);
            r->own_key = hash_mix(hash_mix(o->seed, KEY_OWN), (uint64_t)c << 32 | t);
            r->output_tokens = draw_len(rng, o->turns.output, o->turns.range, 1);
            r->input_tokens = r->common_tokens + r->prefix_tokens + r->own_tokens;
        }
    }
    return true;
}

/* ---- all kinds ---- */

/* Files: in another order by the seed, repeated until there are enough, or cut. Conversations stay whole and are only
 * cut. */
static void fit(struct dataset *d, const struct dataset_opts *o, struct rng *rng)
{
    uint32_t want = o->num_prompts ? o->num_prompts : 1000, have = d->n;
    if (o->shuffle)
        shuffle(d->v, d->n, rng);
    if (d->n > want)
        d->n = want;
    for (; o->oversample && have && d->n < want;) {
        struct data_request copy = d->v[rng_below(rng, have)];
        struct data_request *r = dataset_add(d);
        if (!r)
            return;
        *r = copy;
    }
}

static bool check_opts(const struct dataset_opts *o, struct errbuf *err)
{
    static const char *const names[] = {"input length", "output length", "prefix length", "suffix length"};
    const uint32_t lens[][4] = {{o->random_input, o->random_output, o->random_prefix, 0},
                                {0, o->prefix_output, o->prefix_len, o->suffix_len},
                                {o->turns.input, o->turns.output, o->turns.prefix, o->turns.common_prefix}};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++)
        for (size_t k = 0; k < 4; k++)
            if (lens[i][k] > DATASET_MAX_TOKENS / 4)
                return err_set(err, "The %s %u is more than %u tokens.", names[k], lens[i][k],
                               DATASET_MAX_TOKENS / 4) == 0;
    if (!(o->random_range >= 0 && o->random_range < 1) || !(o->turns.range >= 0 && o->turns.range < 1))
        return err_set(err, "A range ratio is at least 0 and less than 1.") == 0;
    if (o->turns.min_turns < 1 || o->turns.max_turns < o->turns.min_turns || o->turns.max_turns > 10000)
        return err_set(err, "The turns of a conversation are from %u to %u; wanted is 1 <= min <= max <= 10000.",
                       o->turns.min_turns, o->turns.max_turns) == 0;
    if (!(o->trace_speed > 0))
        return err_set(err, "The speed of a trace is more than 0.") == 0;
    return true;
}

static bool make(struct dataset *d, const struct dataset_opts *o, struct rng *rng, struct errbuf *err)
{
    switch (o->kind) {
    case DATA_RANDOM:
        return make_random(d, o, rng);
    case DATA_PREFIX:
        return make_prefix(d, o, rng, err);
    case DATA_MULTI_TURN:
        return o->path ? dataset_conversations(d, o, err) : make_turns(d, o, rng);
    case DATA_SHAREGPT:
        return dataset_sharegpt(d, o, err);
    case DATA_CUSTOM:
        return dataset_custom(d, o, err);
    case DATA_TRACE:
        return dataset_trace(d, o, err);
    case DATA_N:
        break;
    }
    return false;
}

static void count_conversations(struct dataset *d)
{
    d->n_conversations = 0;
    for (uint32_t i = 0; i < d->n; i++)
        d->n_conversations += d->v[i].turn == 0;
}

bool dataset_make(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    struct rng rng;
    rng_init(&rng, hash_mix(o->seed, KEY_DRAW));
    dataset_seed(d, o->seed);
    struct errbuf why = {""};
    if (!check_opts(o, err))
        return false;
    if (!make(d, o, &rng, &why)) {
        err_set(err, "%s", why.msg[0] ? why.msg : "More than 10000000 requests.");
        return false;
    }
    if (o->kind == DATA_SHAREGPT || o->kind == DATA_CUSTOM)
        fit(d, o, &rng);
    else if (o->num_prompts && d->n > o->num_prompts)
        d->n = o->num_prompts;
    count_conversations(d);
    if (!d->n)
        return err_set(err, "%s holds no request that can be used.", o->path ? o->path : "The data set") == 0;
    return true;
}

bool dataset_load(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    if (o->path && !dataset_read(&d->file, o->path, err))
        return false;
    if (!o->path && (o->kind == DATA_SHAREGPT || o->kind == DATA_CUSTOM || o->kind == DATA_TRACE))
        return err_set(err, "This data set is a file: name it with --dataset-path.") == 0;
    return dataset_make(d, o, err);
}

/* ---- arrivals ---- */

double rng_gamma(struct rng *r, double shape)
{
    if (shape < 1) /* a gamma of shape + 1, and a power of a uniform number */
        return rng_gamma(r, shape + 1) * pow(1 - rng_unit(r), 1 / shape);
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = rng_normal(r), v = 1 + c * x, u = 1 - rng_unit(r);
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

static double rate_at(const struct arrival_opts *o, uint32_t i, uint32_t n)
{
    double progress = n > 1 ? (double)i / (n - 1) : 0;
    switch (o->ramp) {
    case RAMP_LINEAR:
        return o->ramp_start + (o->ramp_end - o->ramp_start) * progress;
    case RAMP_EXPONENTIAL:
        return o->ramp_start * pow(o->ramp_end / o->ramp_start, progress);
    case RAMP_NONE:
        break;
    }
    return o->rate;
}

double *arrivals_make(const struct arrival_opts *o, uint32_t n)
{
    struct rng rng;
    double *at = xcalloc(MAX(n, 1u), sizeof(*at)), now = 0;
    rng_init(&rng, hash_mix(o->seed, KEY_ARRIVAL));
    for (uint32_t i = 0; i < n; i++) {
        double rate = rate_at(o, i, n);
        if (isinf(rate))
            continue;
        now += isinf(o->burstiness) ? 1 / rate : rng_gamma(&rng, o->burstiness) / (rate * o->burstiness);
        at[i] = now;
    }
    if (o->ramp == RAMP_NONE && now > 0) {
        double stretch = n / o->rate / now;
        for (uint32_t i = 0; i < n; i++)
            at[i] *= stretch;
    }
    return at;
}
