/* The documents' demonstration of priorities (rows D24-D27): two load tests at once on five servers (A10 24 GB, Qwen2.5-7B, 8192
 * tokens, 0.95 of the memory, two adapters), each 60 clients and 300 prompts of 1000 + 3000 tokens that want 3000 (20 %
 * up and down): a Critical one of the base model, a Standard one of an adapter. Their table says: mean TTFT 21.3 s
 * against 44.2 s, 293 and 165 of 300 answered.
 *
 * Held for each seed with a TTL of 300 s: mean TTFT of Critical at most half of Standard's, at most 3 % of Critical
 * fail, at least 165 of Standard are answered. Options: --verbose (the table for other TTLs and without queueing),
 * --seeds N. */
#include "fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPTS   300
#define SEEDS     5
#define MAX_SEEDS 100

enum { CRITICAL, STANDARD };

struct row { /* of one run */
    double ttft[2], p99[2], tpot[2], ok[2], failed[2], early[2], seconds, tokens_per_s, peak_waiting, preempted;
};

static void run(uint64_t ttl_s, bool queueing, enum sched_policy policy, uint64_t seed, struct row *out)
{
    struct fleet_params p;
    struct fleet_report r;
    fleet_init(&p, "a10-qwen2.5-7b", 0.95);
    p.max_model_len = 8192;
    p.seed = seed;
    p.sched.policy = policy;
    p.sched.queueing = queueing;
    p.sched.queue_ttl_us = ttl_s ? ttl_s * 1000000 : UINT64_MAX;
    for (int i = 0; i < 2; i++)
        p.c[p.n_classes++] = (struct fleet_class){.name = i == CRITICAL ? "critical" : "standard",
                                                  .priority = i == CRITICAL ? 1 : 0,
                                                  .lora = i == CRITICAL ? 0 : 1,
                                                  .concurrency = 60,
                                                  .prompts = PROMPTS,
                                                  .prefix_tokens = 1000,
                                                  .input_tokens = 3000,
                                                  .output_tokens = 3000,
                                                  .spread = 0.2};
    fleet_run(&p, &r);
    *out = (struct row){.seconds = r.seconds, .peak_waiting = r.peak_waiting};
    for (int i = 0; i < 2; i++) {
        struct fleet_result *c = &r.c[i];
        out->ttft[i] = fleet_mean(c->ttft, c->n_ttft);
        out->p99[i] = fleet_percentile(c->ttft, c->n_ttft, 0.99);
        out->tpot[i] = 1e3 * fleet_mean(c->tpot, c->n_tpot);
        out->ok[i] = (double)c->ok;
        out->early[i] = (double)c->rejected[REJECT_DEADLINE];
        out->failed[i] = (double)(c->sent - c->ok);
        out->preempted += (double)c->preempted;
        out->tokens_per_s += (double)(c->tokens_in + c->tokens_out) / r.seconds;
    }
    fleet_report_free(&r);
}

static double median(const struct row *rows, uint64_t n, size_t field, double *least, double *most)
{
    double v[MAX_SEEDS];
    for (uint64_t i = 0; i < n; i++)
        memcpy(&v[i], (const char *)&rows[i] + field, sizeof(v[i]));
    double m = fleet_percentile(v, n, 0.5);
    *least = v[0];
    *most = v[n - 1];
    return m;
}

static void show(const struct row *rows, uint64_t n, const char *name, size_t field, int digits)
{
    double least, most, m = median(rows, n, field, &least, &most);
    printf("  %s %.*f (%.*f-%.*f)", name, digits, m, digits, least, digits, most);
}

static void table(uint64_t ttl_s, bool queueing, enum sched_policy policy, uint64_t seeds)
{
    struct row rows[MAX_SEEDS];
    for (uint64_t i = 0; i < seeds; i++)
        run(ttl_s, queueing, policy, i + 1, &rows[i]);
    if (!queueing)
        printf("queueing off");
    else if (ttl_s)
        printf("queueing on, TTL %llu s", (unsigned long long)ttl_s);
    else
        printf("queueing on, no TTL");
    printf(", %s:\n", policy == SCHED_DEFAULT ? "DEFAULT" : "PREFIX_CACHE");
    for (int i = 0; i < 2; i++) {
        size_t at = (size_t)i * sizeof(double);
        printf("  %s", i == CRITICAL ? "critical" : "standard");
        show(rows, seeds, "answered", offsetof(struct row, ok) + at, 0);
        show(rows, seeds, "refused early", offsetof(struct row, early) + at, 0);
        show(rows, seeds, "TTFT mean", offsetof(struct row, ttft) + at, 2);
        show(rows, seeds, "p99", offsetof(struct row, p99) + at, 1);
        show(rows, seeds, "TPOT ms", offsetof(struct row, tpot) + at, 1);
        printf("\n");
    }
    printf("          ");
    show(rows, seeds, "seconds", offsetof(struct row, seconds), 0);
    show(rows, seeds, "tokens/s", offsetof(struct row, tokens_per_s), 0);
    show(rows, seeds, "most waiting in an engine", offsetof(struct row, peak_waiting), 0);
    show(rows, seeds, "preempted", offsetof(struct row, preempted), 0);
    printf("\n");
}

static int judge(uint64_t seed, enum sched_policy policy)
{
    struct row r;
    run(300, true, policy, seed, &r);
    bool held =
        r.ttft[CRITICAL] <= 0.5 * r.ttft[STANDARD] && r.failed[CRITICAL] <= 0.03 * PROMPTS && r.ok[STANDARD] >= 165;
    printf("seed %llu: TTFT %.2f s and %.2f s (%.2f), %g and %g answered, %.0f s%s\n", (unsigned long long)seed,
           r.ttft[CRITICAL], r.ttft[STANDARD], r.ttft[CRITICAL] / r.ttft[STANDARD], r.ok[CRITICAL], r.ok[STANDARD],
           r.seconds, held ? "" : "  NOT HELD");
    return held ? 0 : 1;
}

int main(int argc, char **argv)
{
    uint64_t seeds = SEEDS;
    bool verbose = false;
    int failures = 0;
    for (int i = 1; i < argc; i++) {
        verbose = verbose || !strcmp(argv[i], "--verbose");
        if (i + 1 < argc && !strcmp(argv[i], "--seeds"))
            seeds = MIN(MAX(strtoull(argv[i + 1], NULL, 10), 1), MAX_SEEDS);
    }
    for (uint64_t i = 0; i < seeds; i++)
        failures += judge(i + 1, i % 2 ? SCHED_PREFIX_CACHE : SCHED_DEFAULT);
    static const uint64_t ttl[] = {30, 120, 300, 0};
    for (size_t i = 0; verbose && i < ARRAY_LEN(ttl); i++)
        table(ttl[i], true, SCHED_DEFAULT, seeds);
    if (verbose) {
        table(0, false, SCHED_DEFAULT, seeds);
        table(300, true, SCHED_PREFIX_CACHE, seeds);
        table(0, false, SCHED_PREFIX_CACHE, seeds);
    }
    printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
