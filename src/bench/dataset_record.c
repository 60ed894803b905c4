/* bench/dataset_record.c - a record of live traffic (`penstock gateway --record`, core/journal.h) as a load: each
 * request that was answered, at the time it first came, with the lengths that its usage told.
 *
 * Ids stand for 512 bytes of the prefix stream: every eighth hash of 64-byte blocks (they are chained: a hash stands
 * for all before it, too). Beyond the fine blocks a coarse hash covers several ids; those inside it are made of it, so
 * equal hashes still give equal ids. How many tokens 512 bytes are is the mean of the record. */
#include "bench/dataset.h"

#include "base/hash.h"
#include "base/map.h"
#include "core/journal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ID_BYTES        512
#define BYTES_PER_TOKEN 4.0 /* when no answer of the record told */

struct row { /* a request */
    uint64_t at_us, ids_from, bytes, token_ids;
    struct sched_usage usage;
    uint32_t n_ids, n_media;
    bool refused, answered, ended;
    enum sched_outcome how;
};
struct reader {
    struct dataset *d;
    struct journal_reader jr;
    struct journal j;
    struct row *rows;
    uint32_t n, cap;
    struct map open; /* pool and number -> index + 1 of the row, while something may still be told of it */
    uint64_t service[JOURNAL_MAX_POOLS / 64]; /* pools whose requests are not of models */
    uint32_t unit;                            /* bytes of an id; 0: none yet */
    uint64_t gaps;
};

/* ---- requests ---- */

struct key {
    uint64_t req, pool;
};

static struct str key_of(const struct journal *j, struct key *k)
{
    *k = (struct key){j->req, j->pool};
    return (struct str){(const char *)k, sizeof *k};
}

static struct row *row_of(struct reader *rd)
{
    struct key k;
    size_t i = (size_t)map_get(&rd->open, key_of(&rd->j, &k));
    return i ? &rd->rows[i - 1] : NULL;
}

/* Blocks that make an id. */
static uint32_t blocks_of_id(uint32_t block_bytes)
{
    return MAX(ID_BYTES / block_bytes, 1u);
}

static void add_ids(struct reader *rd, struct row *r, const struct prefix_hashes *h)
{
    uint32_t k = h->block_bytes ? blocks_of_id(h->block_bytes) : 0;
    r->ids_from = rd->d->n_ids;
    if (!h->n || h->block_bytes > DATASET_MAX_TOKENS || (rd->unit && rd->unit != k * h->block_bytes))
        return;
    rd->unit = k * h->block_bytes;
    uint32_t blocks = h->n_fine + (h->n - h->n_fine) * PREFIX_COARSE;
    for (uint32_t end = k; end <= blocks; end += k) {
        uint64_t id;
        if (end <= h->n_fine)
            id = h->h[end - 1];
        else
            id = hash_mix(h->h[h->n_fine + (end - h->n_fine - 1) / PREFIX_COARSE], end);
        dataset_add_id(rd->d, id);
    }
    r->n_ids = (uint32_t)(rd->d->n_ids - r->ids_from);
}

static const char *new_row(struct reader *rd)
{
    const struct journal_submit *s = &rd->j.u.submit;
    struct key k;
    if (row_of(rd))
        return "the request has come before";
    if (rd->n == DATASET_MAX)
        return "more than 10000000 requests";
    if (rd->n == rd->cap) {
        rd->cap = MAX(rd->cap * 2, 1024u);
        rd->rows = xrealloc(rd->rows, rd->cap * sizeof *rd->rows);
    }
    struct row *r = &rd->rows[rd->n++];
    *r = (struct row){.at_us = MAX(rd->j.now_us, rd->n > 1 ? r[-1].at_us : 0), /* pools take turns at the recorder */
                      .bytes = s->prompt_bytes,
                      .token_ids = s->prompt_token_ids,
                      .n_media = s->n_media};
    add_ids(rd, r, &s->hashes);
    map_put(&rd->open, key_of(&rd->j, &k), (void *)(size_t)rd->n); /* index + 1 */
    return NULL;
}

/* ---- lines ---- */

static bool is_service(const struct reader *rd, uint32_t pool)
{
    return rd->service[pool / 64] >> (pool % 64) & 1;
}

static const char *on_submit(struct reader *rd)
{
    const struct journal_submit *s = &rd->j.u.submit;
    struct row *r = row_of(rd);
    if (!s->again && !s->light) {
        const char *bad = new_row(rd);
        if (bad)
            return bad;
        r = &rd->rows[rd->n - 1];
    }
    if (!r) /* light, or its first attempt is missing */
        return NULL;
    r->refused = s->answer == SCHED_REJECTED;
    r->answered = r->ended = false;
    return NULL;
}

static void on_finish(struct reader *rd)
{
    struct row *r = row_of(rd);
    struct key k;
    if (!r)
        return;
    r->ended = true;
    r->how = rd->j.u.finish.how;
    r->usage = rd->j.u.finish.usage;
    if (r->how == OUT_OK)
        map_del(&rd->open, key_of(&rd->j, &k));
}

static const char *on_line(struct reader *rd)
{
    struct journal *j = &rd->j;
    struct row *r;
    if (j->type == JOURNAL_HEAD)
        return NULL;
    if (j->pool >= JOURNAL_MAX_POOLS)
        return "too many pools";
    if (j->type == JOURNAL_POOL && j->u.pool_new.service)
        rd->service[j->pool / 64] |= 1ull << (j->pool % 64);
    if (is_service(rd, j->pool))
        return NULL;
    switch (j->type) {
    case JOURNAL_SUBMIT:
        return on_submit(rd);
    case JOURNAL_DECIDED:
        if ((r = row_of(rd)))
            r->refused = j->u.decided.reject != REJECT_NONE;
        return NULL;
    case JOURNAL_FIRST_TOKEN:
        if ((r = row_of(rd)))
            r->answered = true;
        return NULL;
    case JOURNAL_FINISH:
        on_finish(rd);
        return NULL;
    case JOURNAL_GAP:
        rd->gaps += j->u.gap.lines;
        return NULL;
    default:
        return NULL;
    }
}

/* A last line without its end was cut. */
static bool read_all(struct reader *rd, const char *path, struct errbuf *err)
{
    struct str text = buf_str(&rd->d->file);
    while (text.n && text.p[text.n - 1] != '\n')
        text.n--;
    struct data_line l = {.rest = text};
    while (data_line_next(&l)) {
        struct errbuf why;
        if (journal_read(&rd->jr, l.line, &rd->j, &why))
            return err_set(err, "%s:%u: %s", path, l.no, why.msg) == 0;
        const char *bad = on_line(rd);
        if (bad)
            return err_set(err, "%s:%u: %s.", path, l.no, bad) == 0;
    }
    return true;
}

/* ---- the load ---- */

static bool counts(const struct row *r)
{
    return r->ended && (r->how == OUT_OK || (r->how == OUT_CANCELLED && r->answered));
}

static double bytes_per_token(const struct reader *rd)
{
    double bytes = 0, tokens = 0;
    for (uint32_t i = 0; i < rd->n; i++) {
        const struct row *r = &rd->rows[i];
        if (!counts(r) || !r->usage.prompt_tokens || r->token_ids || r->n_media)
            continue;
        bytes += (double)r->bytes;
        tokens += (double)r->usage.prompt_tokens;
    }
    return bytes > 0 && tokens > 0 ? bytes / tokens : BYTES_PER_TOKEN;
}

static uint32_t input_of(const struct row *r, double per_token)
{
    double n = (double)r->usage.prompt_tokens;
    if (!r->usage.prompt_tokens)
        n = (double)r->token_ids + (double)r->bytes / per_token;
    return (uint32_t)MIN(MAX(n, 1), (double)DATASET_MAX_TOKENS);
}

struct left_out {
    uint32_t refused, failed, unanswered, unknown_length;
};

static void write_note(struct dataset *d, const struct left_out *o, const struct reader *rd)
{
    size_t n = 0, cap = sizeof d->note;
    d->left_out = o->refused + o->failed + o->unanswered;
    if (d->left_out)
        n += (size_t)snprintf(d->note, cap,
                              "%u requests of the record are left out (%u refused, %u failed, %u without an answer). ",
                              d->left_out, o->refused, o->failed, o->unanswered);
    if (o->unknown_length && n < cap)
        n += (size_t)snprintf(d->note + n, cap - n, "%u answers did not tell their length and count as 1 token. ",
                              o->unknown_length);
    if (rd->gaps && n < cap)
        n += (size_t)snprintf(d->note + n, cap - n, "%llu lines are missing in the record. ",
                              (unsigned long long)rd->gaps);
    if (n)
        d->note[MIN(n, cap) - 1] = 0; /* the last blank */
}

static void count_left_out(struct left_out *o, const struct row *r)
{
    if (r->refused)
        o->refused++;
    else if (r->ended && r->how != OUT_CANCELLED)
        o->failed++;
    else
        o->unanswered++;
}

static bool make(struct reader *rd, const struct dataset_opts *o, double **ms)
{
    struct dataset *d = rd->d;
    struct left_out out = {0};
    double per_token = bytes_per_token(rd);
    d->block_tokens = (uint32_t)MAX(round((rd->unit ? rd->unit : ID_BYTES) / per_token), 1);
    *ms = xmalloc(MAX(rd->n, 1u) * sizeof **ms);
    for (uint32_t i = 0; i < rd->n && (!o->num_prompts || d->n < o->num_prompts); i++) {
        const struct row *r = &rd->rows[i];
        if (!counts(r)) {
            count_left_out(&out, r);
            continue;
        }
        uint32_t input = input_of(r, per_token), ids = (input + d->block_tokens - 1) / d->block_tokens;
        uint64_t output = MIN(r->usage.completion_tokens, (uint64_t)DATASET_MAX_TOKENS);
        out.unknown_length += output == 0;
        (*ms)[d->n] = (double)r->at_us / 1000;
        if (!dataset_add_prompt(d, input, (uint32_t)output, r->ids_from, MIN(r->n_ids, ids)))
            return false;
    }
    write_note(d, &out, rd);
    return true;
}

bool dataset_record_is(struct str first_line)
{
    return journal_is(first_line);
}

bool dataset_record(struct dataset *d, const struct dataset_opts *o, double **ms, struct errbuf *err)
{
    struct reader *rd = xcalloc(1, sizeof *rd);
    rd->d = d;
    map_init(&rd->open, o->seed);
    *ms = NULL;
    bool ok = read_all(rd, o->path, err) && make(rd, o, ms);
    if (ok && !d->n)
        ok = err_set(err, "%s holds no request that was answered. %s", o->path, d->note) == 0;
    map_free(&rd->open);
    journal_reader_free(&rd->jr);
    free(rd->rows);
    free(rd);
    return ok;
}
