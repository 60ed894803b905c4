/* A whole pick (submit, reserve, finish) over many endpoints. Fixed seed; one line per case. */
#include "base/hash.h"
#include "base/rng.h"
#include "core/sched.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Time on a processor: what others do on the machine does not count. Reading it takes long itself. */
static double busy_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double busy_cost(void)
{
    double least = 1;
    for (int i = 0; i < 1000; i++) {
        double t = busy_s(), d = busy_s() - t;
        least = MIN(least, d);
    }
    return least;
}

enum { FLIGHT = 2000, PICKS = 200000 };

static void list_adapters(struct sched *s, struct ep_ref ep, uint32_t n, uint64_t now)
{
    struct sched_model m[65] = {{1, false}};
    for (uint32_t k = 1; k <= n; k++)
        m[k] = (struct sched_model){1 + k, true};
    sched_ep_models(s, ep, m, n + 1, now);
    struct ep_load l = {.sent_us = now, .done_us = now, .max_lora = 4};
    sched_ep_load(s, ep, &l, now);
}

static void end(struct sched *s, struct sched *prefill, struct sched_req *q, uint64_t now)
{
    if (q->split)
        sched_finish(prefill, q->leg, OUT_OK, NULL, now);
    sched_finish(s, q, OUT_OK, NULL, now);
}

/* n_adapters: requests are for one of so many (0: models do not matter), each endpoint has 4 slots. explain: every pick
 * says what each endpoint would have cost. pair: as many endpoints more that prefill; each request may be split. */
static void bench(const char *what, enum sched_policy policy, uint32_t n_eps, uint32_t n_hashes, uint32_t n_adapters,
                  bool explain, bool pair)
{
    static struct sched_explain reasons[FLIGHT];
    struct sched_params p;
    struct rng r;
    sched_params_init(&p);
    p.policy = policy;
    rng_init(&r, 1);
    struct sched *s = sched_new(&p, 1);
    for (uint32_t i = 0; i < n_eps; i++) {
        struct ep_ref ep = sched_ep_add(s, NULL, false, 1);
        if (n_adapters)
            list_adapters(s, ep, n_adapters, 1);
    }
    struct sched *prefill = pair ? sched_new(&p, 2) : NULL;
    for (uint32_t i = 0; i < n_eps && pair; i++)
        sched_ep_add(prefill, NULL, false, 1);
    sched_join(s, prefill, 1);
    struct sched_req *legs = calloc(FLIGHT, sizeof(legs[0])), *reqs = calloc(FLIGHT, sizeof(reqs[0]));
    uint64_t *h = malloc((size_t)FLIGHT * PREFIX_MAX * sizeof(h[0])), now = 10000000;
    struct prefix_hashes *ph = calloc(FLIGHT, sizeof(ph[0]));
    for (size_t i = 0; i < (size_t)FLIGHT * PREFIX_MAX; i++)
        h[i] = rng_u64(&r);
    double spent = 0, finish = 0, chunk = 0,
           best = 1e9; /* best: of 1000 picks in a row; the mean suffers from a busy machine */
    uint32_t picks = n_hashes ? PICKS / 10 : PICKS;
    for (uint32_t k = 0; k < picks; k++) {
        struct sched_req *q = &reqs[k % FLIGHT];
        now += 50;
        double t0 = now_s();
        if (k >= FLIGHT)
            end(s, prefill, q, now);
        double t1 = now_s();
        ph[k % FLIGHT] = (struct prefix_hashes){.h = h + (size_t)(k % FLIGHT) * PREFIX_MAX,
                                                .n = n_hashes,
                                                .n_fine = MIN(n_hashes, 128u),
                                                .block_bytes = 64};
        *q = (struct sched_req){.id = k,
                                .prompt_bytes = 500 + rng_below(&r, 4000),
                                .n_outputs = 1,
                                .hashes = n_hashes ? &ph[k % FLIGHT] : NULL,
                                .model = n_adapters ? 2 + rng_below(&r, n_adapters) : 0,
                                .explain = explain ? &reasons[k % FLIGHT] : NULL,
                                .leg = pair ? &legs[k % FLIGHT] : NULL,
                                .streamed = true};
        legs[k % FLIGHT] = (struct sched_req){.hashes = q->hashes};
        double t2 = now_s();
        sched_submit(s, q, now);
        double t3 = now_s() - t2;
        spent += t3;
        chunk += t3;
        if (k % 1000 == 999) {
            best = k >= FLIGHT && chunk < best ? chunk : best;
            chunk = 0;
        }
        finish += t1 - t0;
    }
    printf("pick, %s: %.2f us per submit (best %.2f), %.2f us per finish\n", what, spent / picks * 1e6,
           best / 1000 * 1e6, finish / picks * 1e6);
    for (uint32_t k = 0; k < FLIGHT; k++)
        end(s, prefill, &reqs[k], now);
    sched_free(prefill);
    sched_free(s);
    free(legs);
    free(reqs);
    free(ph);
    free(h);
}

/* ---- everything on: conversations, queueing, learning, scrapes; the index full ---- */

enum { TALKS = 4096, TEMPLATES = 16, WARM = 200000, TIMED = 20000, LAG_FIRST = 2, LAG_END = 8 };

struct talk { /* its prompts share `base` hashes, the first third of them with other talks */
    uint64_t seed, end;
    uint32_t turns;
};
struct full { /* one case; requests in a ring of LAG_END per endpoint */
    const char *what;
    uint32_t n_eps, n_hashes;
    uint64_t cap, kv_tokens;
    struct sched *s;
    struct rng r;
    struct sched_req *reqs;
    struct prefix_hashes *ph;
    uint64_t *h, now, done;
    struct talk *talks;
    double clock_s;
    float *times[4]; /* us: submit, explained submit, first token, finish */
    uint32_t n[4], n_queued;
};

/* A talk ends after 8 prompts. Each goes on from the talk's base with an eighth of its own. */
static void next_prompt(struct full *f, struct sched_req *q, uint32_t at)
{
    struct talk *t = &f->talks[rng_below(&f->r, TALKS)];
    struct prefix_hashes *ph = &f->ph[at];
    uint64_t *h = f->h + (size_t)at * f->n_hashes;
    uint32_t base = f->n_hashes - f->n_hashes / 8, shared = f->n_hashes / 4;
    if (t->turns++ % 8 == 0)
        *t = (struct talk){.seed = rng_u64(&f->r), .turns = 1};
    for (uint32_t i = 0; i < f->n_hashes; i++)
        h[i] = i >= base ? rng_u64(&f->r) : hash_mix(i < shared ? t->seed % TEMPLATES : t->seed, i);
    *ph = (struct prefix_hashes){.h = h, .n = f->n_hashes, .n_fine = MIN(f->n_hashes, 128u), .block_bytes = 64};
    ph->whole = true;
    ph->ends[ph->n_ends++] = rng_u64(&f->r);
    if (t->end)
        ph->ends[ph->n_ends++] = t->end;
    t->end = ph->ends[0];
    *q = (struct sched_req){.id = f->done, .prompt_bytes = prefix_bytes(ph, ph->n) + 30, .n_outputs = 1};
    q->hashes = ph;
    q->streamed = true;
}

static void take_time(struct full *f, int what, double since_s)
{
    if (f->done >= WARM && f->n[what] < TIMED)
        f->times[what][f->n[what]++] = (float)((busy_s() - since_s - f->clock_s) * 1e6);
}

static bool placed(const struct sched_req *q)
{
    return q->d.user && q->d.reject == REJECT_NONE;
}

static void first_token(struct full *f, struct sched_req *q)
{
    if (!placed(q))
        return;
    double t = busy_s();
    sched_first_token(f->s, q, f->now);
    take_time(f, 2, t);
}

static void finish(struct full *f, struct sched_req *q)
{
    struct sched_usage u = {.prompt_tokens = q->prompt_bytes / 4,
                            .completion_tokens = 200,
                            .cached_tokens = q->d.matched_bytes / 4,
                            .has_cached = true};
    if (!placed(q)) {
        f->n_queued++;
        sched_cancel(f->s, q, f->now);
        return;
    }
    double t = busy_s();
    sched_finish(f->s, q, OUT_OK, &u, f->now);
    take_time(f, 3, t);
}

/* The shell's part between requests: a scrape now and then, ticks, answers of those that waited. */
static void others(struct full *f)
{
    struct ep_view v;
    uint32_t slot = (uint32_t)(f->done % f->n_eps);
    if (sched_ep_view(f->s, slot, f->now, &v)) {
        struct ep_load l = {
            .sent_us = f->now, .done_us = f->now, .has_waiting = true, .has_running = true, .has_kv = true};
        l.running = v.inflight;
        l.kv_frac = 0.5;
        l.has_blocks = true;
        l.kv_tokens = f->kv_tokens;
        sched_ep_load(f->s, v.ep, &l, f->now);
    }
    if (f->done % f->n_eps == 0)
        sched_tick(f->s, f->now);
    while (sched_next_decided(f->s))
        ;
}

static void full_step(struct full *f, struct sched_explain *x)
{
    uint32_t ring = f->n_eps * LAG_END, at = (uint32_t)(f->done % ring);
    struct sched_req *q = &f->reqs[at];
    f->now += 200000 / f->n_eps;
    if (f->done >= ring)
        finish(f, q);
    if (f->done >= (uint64_t)f->n_eps * LAG_FIRST)
        first_token(f, &f->reqs[(f->done - (uint64_t)f->n_eps * LAG_FIRST) % ring]);
    others(f);
    next_prompt(f, q, at);
    q->explain = f->done % 2 ? x : NULL;
    double t = busy_s();
    sched_submit(f->s, q, f->now);
    take_time(f, f->done % 2, t);
    f->done++;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void full_report(struct full *f)
{
    static const char *names[] = {"submit", "explained", "first token", "finish"};
    struct sched_stats st;
    sched_stats(f->s, f->now, &st);
    printf("full pick, %s:", f->what);
    for (int i = 0; i < 4; i++) {
        double sum = 0;
        uint32_t n = f->n[i];
        qsort(f->times[i], f->n[i], sizeof(float), by_size);
        for (uint32_t k = 0; k < n; k++)
            sum += (double)f->times[i][k];
        printf(" %s %.2f us (median %.2f, p99 %.2f, longest %.0f);", names[i], sum / n,
               (double)f->times[i][f->n[i] / 2], (double)f->times[i][n / 100 * 99], (double)f->times[i][n - 1]);
    }
    printf(" %.0f blocks per endpoint, %.1f bytes each, %.0f %% evicted again, %u of %u had to wait\n",
           (double)st.index_memberships / f->n_eps, (double)st.index_bytes / (double)st.index_memberships,
           100.0 * (double)st.index_evictions / (double)(st.index_memberships + st.index_evictions), f->n_queued,
           (uint32_t)f->done);
}

static void bench_full(const char *what, uint32_t n_eps, uint32_t n_hashes, uint64_t cap)
{
    static struct sched_explain x;
    struct full f = {.what = what, .n_eps = n_eps, .n_hashes = n_hashes, .cap = cap, .now = 10000000};
    size_t ring = (size_t)n_eps * LAG_END;
    struct sched_params p;
    f.clock_s = busy_cost();
    sched_params_init(&p);
    p.policy = SCHED_PREFIX_CACHE;
    p.queueing = true;
    p.deep = n_hashes > 128;
    p.lru_capacity = cap;
    rng_init(&f.r, 1);
    f.kv_tokens = MAX(64 * (uint64_t)prefix_bytes(&(struct prefix_hashes){.n_fine = 128, .block_bytes = 64}, n_hashes),
                      4 * 64 * cap);
    f.s = sched_new(&p, 1);
    for (uint32_t i = 0; i < n_eps; i++)
        sched_ep_add(f.s, &f, false, 1);
    f.reqs = calloc(ring, sizeof(f.reqs[0]));
    f.ph = calloc(ring, sizeof(f.ph[0]));
    f.h = malloc(ring * n_hashes * sizeof(f.h[0]));
    f.talks = calloc(TALKS, sizeof(f.talks[0]));
    for (int i = 0; i < 4; i++)
        f.times[i] = calloc(TIMED, sizeof(float));
    while (f.done < WARM + TIMED)
        full_step(&f, &x);
    full_report(&f);
    for (size_t i = 0; i < ring; i++)
        finish(&f, &f.reqs[i]);
    sched_free(f.s);
    free(f.reqs);
    free(f.ph);
    free(f.h);
    free(f.talks);
    for (int i = 0; i < 4; i++)
        free(f.times[i]);
}

int main(void)
{
    bench_full("PREFIX_CACHE with queueing, 10 endpoints, 128 blocks", 10, 128, 50000);
    bench_full("PREFIX_CACHE with queueing, 100 endpoints, 128 blocks", 100, 128, 50000);
    bench_full("PREFIX_CACHE with queueing, 1000 endpoints, 128 blocks", 1000, 128, 5000);
    bench_full("PREFIX_CACHE with queueing, 100 endpoints, 640 hashes", 100, 640, 200000);
    bench("DEFAULT, 10 endpoints", SCHED_DEFAULT, 10, 0, 0, false, false);
    bench("DEFAULT, 100 endpoints", SCHED_DEFAULT, 100, 0, 0, false, false);
    bench("DEFAULT, 1000 endpoints", SCHED_DEFAULT, 1000, 0, 0, false, false);
    bench("DEFAULT, 1000 endpoints, 2 adapters", SCHED_DEFAULT, 1000, 0, 2, false, false);
    bench("DEFAULT, 1000 endpoints, 8 adapters", SCHED_DEFAULT, 1000, 0, 8, false, false);
    bench("DEFAULT, 1000 endpoints, 60 adapters", SCHED_DEFAULT, 1000, 0, 60, false, false);
    bench("DEFAULT, 100 endpoints, 60 adapters", SCHED_DEFAULT, 100, 0, 60, false, false);
    bench("DEFAULT, 10 endpoints, 60 adapters", SCHED_DEFAULT, 10, 0, 60, false, false);
    bench("PREFIX_CACHE, 10 endpoints, 128 blocks", SCHED_PREFIX_CACHE, 10, 128, 0, false, false);
    bench("PREFIX_CACHE, 100 endpoints, 128 blocks", SCHED_PREFIX_CACHE, 100, 128, 0, false, false);
    bench("PREFIX_CACHE, 1000 endpoints, 128 blocks", SCHED_PREFIX_CACHE, 1000, 128, 0, false, false);
    bench("PREFIX_CACHE, 100 endpoints, 640 hashes", SCHED_PREFIX_CACHE, 100, 640, 0, false, false);
    bench("PREFIX_CACHE, 10 endpoints, 128 blocks, explained", SCHED_PREFIX_CACHE, 10, 128, 0, true, false);
    bench("PREFIX_CACHE, 100 endpoints, 128 blocks, explained", SCHED_PREFIX_CACHE, 100, 128, 0, true, false);
    bench("PREFIX_CACHE, 1000 endpoints, 128 blocks, explained", SCHED_PREFIX_CACHE, 1000, 128, 0, true, false);
    bench("ROUND_ROBIN, 100 endpoints", SCHED_ROUND_ROBIN, 100, 0, 0, false, false);
    bench("PREFIX_CACHE, a pair of 10 + 10 endpoints, 128 blocks", SCHED_PREFIX_CACHE, 10, 128, 0, false, true);
    bench("PREFIX_CACHE, a pair of 100 + 100 endpoints, 128 blocks", SCHED_PREFIX_CACHE, 100, 128, 0, false, true);
    bench("DEFAULT, a pair of 100 + 100 endpoints", SCHED_DEFAULT, 100, 0, 0, false, true);
    bench("DEFAULT, a pair of 1000 + 1000 endpoints", SCHED_DEFAULT, 1000, 0, 0, false, true);
    return 0;
}
