/* sim/engine_ahead.c - engine_forecast: the prefill ahead of a newcomer, blocks of those ahead counted as cached.
 *
 * What lies ahead is the same for every newcomer, so it is kept until something changes; who joins the queue is added.
 */
#include "sim/engine_priv.h"

#include <stdlib.h>

struct ahead {
    bool valid;
    double tokens, pairs, waiting; /* as in engine_forecast */
    uint64_t *key;                 /* blocks of those ahead: a set by open addressing, */
    uint32_t *stamp;               /* of which only entries of the present round count */
    uint32_t mask, n, round;
};

enum { FIRST_SLOTS = 256 };

struct ahead *ahead_new(void)
{
    struct ahead *a = xcalloc(1, sizeof(*a));
    a->mask = FIRST_SLOTS - 1;
    a->round = 1;
    a->key = xcalloc(FIRST_SLOTS, sizeof(*a->key));
    a->stamp = xcalloc(FIRST_SLOTS, sizeof(*a->stamp));
    return a;
}

void ahead_free(struct ahead *a)
{
    free(a->key);
    free(a->stamp);
    free(a);
}

void ahead_stale(struct ahead *a)
{
    a->valid = false;
}

static uint32_t slot_of(const struct ahead *a, uint64_t key)
{
    uint32_t i = (uint32_t)(key ^ key >> 32) & a->mask;
    while (a->stamp[i] == a->round && a->key[i] != key)
        i = (i + 1) & a->mask;
    return i;
}

static bool seen(const struct ahead *a, uint64_t key)
{
    return a->stamp[slot_of(a, key)] == a->round;
}

static void set_add(struct ahead *a, uint64_t key)
{
    uint32_t i = slot_of(a, key);
    if (a->stamp[i] == a->round)
        return;
    a->key[i] = key;
    a->stamp[i] = a->round;
    a->n++;
}

static void set_grow(struct ahead *a)
{
    struct ahead old = *a;
    a->mask = a->mask * 2 + 1;
    a->n = 0;
    a->round = 1;
    a->key = xcalloc((size_t)a->mask + 1, sizeof(*a->key));
    a->stamp = xcalloc((size_t)a->mask + 1, sizeof(*a->stamp));
    for (uint32_t i = 0; i <= old.mask; i++)
        if (old.stamp[i] == old.round)
            set_add(a, old.key[i]);
    free(old.key);
    free(old.stamp);
}

static void add_ids(struct ahead *a, const struct engine *e, const struct engine_seq *s)
{
    uint32_t n = MIN(s->rq.n_ids, s->rq.n_tokens / e->p.block_size);
    for (uint32_t i = 0; i < n; i++) {
        if (a->n * 2 > a->mask)
            set_grow(a);
        set_add(a, block_key(s->rq.ids[i], s->key_seed));
    }
}

/* The last k of n tokens are to be computed. */
static void add_work(struct ahead *a, uint32_t n, uint32_t k)
{
    a->tokens += k;
    a->pairs += (double)k * ((double)n - (double)k / 2);
}

static void add_waiting(struct ahead *a, const struct engine *e, const struct engine_seq *s)
{
    uint32_t h = 0, max = e->p.prefix_caching ? MIN(s->rq.n_ids, (s->n_tok - 1) / e->p.block_size) : 0;
    while (h < max && kv_lookup(&e->kv, block_key(s->rq.ids[h], s->key_seed)) != KV_NONE)
        h++;
    while (h < max && seen(a, block_key(s->rq.ids[h], s->key_seed)))
        h++;
    uint32_t held = h * e->p.block_size;
    a->waiting += s->n_tok - held;
    add_work(a, s->n_tok, s->n_tok - MAX(held, s->rq.given));
    add_ids(a, e, s);
}

static void look(struct ahead *a, const struct engine *e)
{
    if (a->valid)
        return;
    a->valid = true;
    a->tokens = a->pairs = a->waiting = 0;
    a->n = 0;
    if (++a->round == 0) { /* wrapped: old stamps would count again */
        memset(a->stamp, 0, ((size_t)a->mask + 1) * sizeof(*a->stamp));
        a->round = 1;
    }
    LIST_EACH (it, &e->filling) {
        const struct engine_seq *s = CONTAINER_OF(it, struct engine_seq, filling);
        uint32_t now = s->batch != NOT_IN_BATCH ? e->batch[s->batch].n : 0;
        add_work(a, s->n_tok, s->n_tok - s->computed - now);
        add_ids(a, e, s);
    }
    LIST_EACH (it, &e->waiting)
        add_waiting(a, e, CONTAINER_OF(it, struct engine_seq, link));
}

void ahead_submitted(const struct engine *e, struct engine_seq *s)
{
    if (e->ahead->valid)
        add_waiting(e->ahead, e, s);
}

static double new_tokens(const struct engine *e, const uint64_t *ids, uint32_t n_ids, uint32_t n_tokens)
{
    uint32_t h = 0, max = e->p.prefix_caching ? MIN(n_ids, (n_tokens - 1) / e->p.block_size) : 0;
    uint64_t seed = hash_mix(0, 0x51ed);
    for (; h < max; h++) {
        uint64_t key = block_key(ids[h], seed);
        if (kv_lookup(&e->kv, key) == KV_NONE && !seen(e->ahead, key))
            break;
    }
    return (double)n_tokens - (double)h * e->p.block_size;
}

static double rest_s(const struct engine *e, uint64_t now_us)
{
    if (!e->busy)
        return 0;
    if (e->decode_only)
        return step_seconds(&e->p.time, 0, 0, 0, 0, 0) * e->slow / 2;
    return e->end_exact_us > (double)now_us ? (e->end_exact_us - (double)now_us) / 1e6 : 0;
}

void engine_forecast(const struct engine *e, const uint64_t *ids, uint32_t n_ids, uint32_t n_tokens, uint64_t now_us,
                     struct engine_forecast *out)
{
    CHECK(e->p.exact_tail && n_tokens > 0);
    look(e->ahead, e);
    double grown = (double)(e->n_decoding * exact_passed(e, now_us));
    *out = (struct engine_forecast){.rest_s = rest_s(e, now_us),
                                    .ahead_tokens = e->ahead->tokens,
                                    .ahead_pairs = e->ahead->pairs,
                                    .waiting_tokens = e->ahead->waiting,
                                    .waiting_prompts = (double)e->waiting_prompts,
                                    .new_tokens = new_tokens(e, ids, n_ids, n_tokens),
                                    .used_tokens = (double)e->used + grown,
                                    .context_tokens = (double)e->context + grown,
                                    .decoding = (uint32_t)e->n_decoding,
                                    .running = e->n_running};
}
