/* bench/dataset_synth.c - generated loads that replays know by name; what they are stands in dataset.h.
 *
 * chat: conversations of an application's users. A conversation belongs to one of CHAT_APPS applications (the k-th as
 * often as 1/k), whose system prompt of 512 to 2048 tokens comes first. It has a geometric number of turns of mean
 * CHAT_TURNS; the first message is log-normal with median 300 tokens and sigma 1.2, later ones 80 and 1.0, answers 250
 * and 0.8. A turn's prompt is all that was said before and the new message; at CHAT_LONGEST tokens a conversation ends.
 * Between two turns of one conversation come, log-normal, in the median CHAT_GAP other requests (sigma 1): the load is
 * in balance from its first request on, so some conversations are met in their middle. */
#include "bench/dataset.h"

#include "base/hash.h"

#include <math.h>
#include <stdlib.h>

#define BLOCK        TRACE_BLOCK
#define MAX_NUMBERS  5
#define CHAT_APPS    20
#define CHAT_TURNS   5.0
#define CHAT_MOST    100 /* turns */
#define CHAT_GAP     300.0
#define CHAT_LONGEST 32768u
#define CHAT_ANSWER  4096u /* longest answer and message */
#define MAX_REQUESTS 5000000u
#define MAX_ALL_IDS  (1u << 27)

enum { KEY_SYNTH = 0x5157, KEY_TIMES = 0x5158 };

typedef bool synth_fn(struct dataset *d, const uint32_t *v, struct rng *rng, struct errbuf *err);
struct synth {
    const char *name;
    synth_fn *make;
    uint32_t n_numbers, numbers[MAX_NUMBERS]; /* how many it takes, their defaults */
};

/* ---- shared prefixes ---- */

/* The ids of one prompt: those of its prefix's whole blocks, then its own. Returns where they begin. */
static size_t add_ids(struct dataset *d, uint64_t prefix, uint32_t prefix_tokens, uint32_t all_tokens, uint64_t *next)
{
    size_t from = d->n_ids;
    uint32_t shared = prefix_tokens / BLOCK, all = (all_tokens + BLOCK - 1) / BLOCK;
    for (uint32_t k = 0; k < all; k++)
        dataset_add_id(d, k < shared ? prefix + k : (*next)++);
    return from;
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

/* Groups of questions with a common system prompt; the whole set again and again. v: groups, questions of each, tokens
 * of prompt and question, answer. */
static bool make_shared(struct dataset *d, const uint32_t *v, struct rng *rng, struct errbuf *err)
{
    enum { REPEATS = 4 };
    const uint32_t groups = v[0], questions = v[1], tokens = v[2] + v[3];
    uint64_t next = 0;
    (void)err;
    for (uint32_t g = 0; g < groups; g++) {
        uint64_t prefix = next;
        next += v[2] / BLOCK;
        for (uint32_t q = 0; q < questions; q++) {
            size_t from = add_ids(d, prefix, v[2], tokens, &next);
            if (!dataset_add_prompt(d, tokens, v[4], from, (uint32_t)(d->n_ids - from)))
                return false;
        }
    }
    uint32_t once = d->n;
    for (uint32_t r = 1; r < REPEATS; r++)
        for (uint32_t i = 0; i < once; i++) {
            struct data_request copy = d->v[i], *to = dataset_add(d);
            if (!to)
                return false;
            *to = copy;
        }
    for (uint32_t r = 0; r < REPEATS; r++)
        shuffle(d->v + r * once, once, rng);
    return true;
}

/* v: prefixes, tokens of prefix and suffix, answer, requests. */
static bool make_repetition(struct dataset *d, const uint32_t *v, struct rng *rng, struct errbuf *err)
{
    const uint32_t tokens = v[1] + v[2], each = (uint32_t)(((uint64_t)v[4] + v[0] - 1) / v[0]);
    uint64_t blocks = ((uint64_t)tokens + BLOCK - 1) / BLOCK;
    uint64_t next = (uint64_t)v[0] * (v[1] / BLOCK);
    if (!tokens || v[0] > MAX_REQUESTS || (uint64_t)each * v[0] * blocks > MAX_ALL_IDS)
        return err_set(err, "prefix_repetition: a prompt has tokens, and all together are at most %u blocks of %u.",
                       MAX_ALL_IDS, (unsigned)BLOCK) == 0;
    for (uint32_t p = 0; p < v[0]; p++)
        for (uint32_t i = 0; i < each; i++) {
            size_t from = add_ids(d, (uint64_t)p * (v[1] / BLOCK), v[1], tokens, &next);
            if (!dataset_add_prompt(d, tokens, v[3], from, (uint32_t)(d->n_ids - from)))
                return false;
        }
    shuffle(d->v, d->n, rng);
    return true;
}

/* ---- conversations ---- */

struct app {
    uint64_t ids;
    uint32_t tokens;
};
struct chat {
    struct dataset *d;
    struct rng *rng;
    struct app apps[CHAT_APPS];
    double weight; /* of all applications */
    uint64_t next; /* id */
    double *at;    /* of each request, unordered; in requests */
    uint32_t cap;
};

static uint32_t log_normal(struct rng *rng, double median, double sigma, uint32_t most)
{
    double v = median * exp(sigma * rng_normal(rng));
    return v < 1 ? 1 : v > most ? most : (uint32_t)v;
}

static const struct app *draw_app(const struct chat *c)
{
    double u = rng_unit(c->rng) * c->weight;
    unsigned k = 0;
    while (k + 1 < CHAT_APPS && (u -= 1.0 / (k + 1)) >= 0)
        k++;
    return &c->apps[k];
}

/* One conversation that begins at `at`; its turns in [0, end) become requests. Their prompts begin alike, so they share
 * one row of ids. */
static bool add_conversation(struct chat *c, double at, double end)
{
    const struct app *app = draw_app(c);
    struct dataset *d = c->d;
    uint32_t prompt = app->tokens, first = d->n;
    size_t from = d->n_ids;
    for (uint32_t turn = 0; turn < CHAT_MOST && at < end; turn++) {
        prompt += turn ? log_normal(c->rng, 80, 1.0, CHAT_ANSWER) : log_normal(c->rng, 300, 1.2, CHAT_ANSWER);
        uint32_t answer = log_normal(c->rng, 250, 0.8, CHAT_ANSWER);
        if (prompt > CHAT_LONGEST)
            break;
        if (at >= 0) {
            if (!dataset_add_prompt(d, prompt, answer, from, (prompt + BLOCK - 1) / BLOCK))
                return false;
            if (d->n > c->cap) {
                c->cap = MAX(c->cap * 2, 4096u);
                c->at = xrealloc(c->at, c->cap * sizeof(*c->at));
            }
            c->at[d->n - 1] = at;
        }
        prompt += answer;
        at += CHAT_GAP * exp(rng_normal(c->rng));
        if (rng_unit(c->rng) * CHAT_TURNS < 1)
            break;
    }
    uint32_t ids = d->n > first ? d->v[d->n - 1].n_ids : 0;
    for (uint32_t k = 0; k < ids; k++)
        dataset_add_id(d, k < app->tokens / BLOCK ? app->ids + k : c->next++);
    return true;
}

struct place {
    double at;
    uint32_t i;
};

static int by_time(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at ? 1 : (x->i > y->i) - (x->i < y->i);
}

/* The first n requests, in order of time. */
static void in_order(struct dataset *d, const double *at, uint32_t n)
{
    struct place *order = xcalloc(d->n, sizeof(*order));
    struct data_request *v = xcalloc(d->n, sizeof(*v));
    for (uint32_t i = 0; i < d->n; i++)
        order[i] = (struct place){at[i], i};
    qsort(order, d->n, sizeof(*order), by_time);
    for (uint32_t i = 0; i < d->n; i++)
        v[i] = d->v[order[i].i];
    free(order);
    free(d->v);
    d->v = v;
    d->cap = d->n;
    d->n = MIN(d->n, n);
}

static bool make_chat(struct dataset *d, const uint32_t *v, struct rng *rng, struct errbuf *err)
{
    struct chat c = {.d = d, .rng = rng};
    if (v[0] > MAX_REQUESTS)
        return err_set(err, "chat: %u requests are more than %u.", v[0], MAX_REQUESTS) == 0;
    for (unsigned k = 0; k < CHAT_APPS; k++) {
        c.apps[k] = (struct app){c.next, (uint32_t)(1 + rng_below(rng, 4)) * BLOCK};
        c.next += c.apps[k].tokens / BLOCK;
        c.weight += 1.0 / (k + 1);
    }
    /* From before the start, so that what is met at 0 is what would be met at any time. */
    bool ok = true;
    double end = v[0] * 1.1 + 200;
    for (double at = -20 * CHAT_GAP; ok && at < end; at += CHAT_TURNS * rng_exp(rng))
        ok = add_conversation(&c, at, end);
    if (ok)
        in_order(d, c.at, v[0]);
    free(c.at);
    return ok;
}

/* ---- by name ---- */

static const struct synth all[] = {{"shared_prefix", make_shared, 0, {150, 5, 6000, 1200, 1000}},
                                   {"shared_prefix_low", make_shared, 0, {150, 5, 1200, 6000, 1000}},
                                   {"prefix_repetition", make_repetition, 5, {100, 4096, 512, 256, 3000}},
                                   {"chat", make_chat, 1, {20000}}};

static struct str name_of(struct str s, struct str *numbers)
{
    const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
    *numbers = colon ? str_from(s, (size_t)(colon - s.p) + 1) : STR_NULL;
    return colon ? str_first(s, (size_t)(colon - s.p)) : s;
}

static const struct synth *find(struct str s, struct str *numbers)
{
    struct str name = name_of(s, numbers);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_eq_c(name, all[i].name))
            return &all[i];
    return NULL;
}

bool dataset_synth_is(struct str name)
{
    struct str numbers;
    return find(name, &numbers) != NULL;
}

/* Lengths may be 0 but not the counts, which come first and last. */
static bool take_numbers(const struct synth *s, struct str text, uint32_t *v, struct errbuf *err)
{
    memcpy(v, s->numbers, sizeof(s->numbers));
    for (uint32_t i = 0; text.p; i++) {
        const char *comma = memchr(text.p, ',', text.n);
        struct str part = comma ? str_first(text, (size_t)(comma - text.p)) : text;
        uint64_t n = 0;
        if (i >= s->n_numbers)
            return err_set(err, "%s takes %u numbers at most.", s->name, s->n_numbers) == 0;
        if (!str_to_u64(part, &n) || n > (i == 0 || i == 4 ? DATASET_MAX : DATASET_MAX_TOKENS / 2) ||
            (n == 0 && (i == 0 || i == 4)))
            return err_set(err, "%s: '" STR_FMT "' is not a number that can stand there.", s->name,
                           STR_ARG(str_first(part, 40))) == 0;
        v[i] = (uint32_t)n;
        text = comma ? str_from(text, part.n + 1) : STR_NULL;
    }
    return true;
}

static void poisson(struct dataset *d, uint64_t seed)
{
    struct rng rng;
    double now = 0;
    rng_init(&rng, hash_mix(seed, KEY_TIMES));
    d->at_s = xcalloc(d->n, sizeof(*d->at_s));
    for (uint32_t i = 0; i < d->n; i++)
        d->at_s[i] = now += rng_exp(&rng);
}

bool dataset_synth(struct dataset *d, struct str name, uint64_t seed, struct errbuf *err)
{
    struct str text;
    struct rng rng;
    uint32_t v[MAX_NUMBERS];
    const struct synth *s = find(name, &text);
    if (!s)
        return err_set(err,
                       "'" STR_FMT "' is no generated load; there are shared_prefix, shared_prefix_low, "
                       "prefix_repetition[:N,P,S,O,R] and chat[:N].",
                       STR_ARG(str_first(name, 80))) == 0;
    if (!take_numbers(s, text, v, err))
        return false;
    rng_init(&rng, hash_mix(seed, KEY_SYNTH));
    dataset_seed(d, seed);
    d->block_tokens = BLOCK;
    struct errbuf why = {""};
    if (!s->make(d, v, &rng, &why))
        return err_set(err, "%s", why.msg[0] ? why.msg : "More than 10000000 requests.") == 0;
    d->n_conversations = d->n;
    poisson(d, seed);
    return true;
}
