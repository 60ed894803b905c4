/* What the picker believes wrongly at the start it learns: the same run with true values is the measure, and each case
 * fails with learning off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "replay/world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS   6
#define AS_GOOD 1.08 /* 5 %, and the noise of six seeds */
#define FIRST   500  /* requests that it may learn from */

struct setting {
    const char *load, *policy, *profile[2]; /* half of the servers each */
    uint32_t servers;
    double rate;
    uint64_t kv_tokens;     /* believed, where the servers do not tell; 0: they tell */
    double bytes_per_token; /* believed; 0 the truth */
    struct world_change change[2];
    uint32_t n_changes;
    double from_s; /* counted from here on */
    bool deaf;     /* learning off */
};

static double mean_of(const struct world_result *r, double from_s)
{
    double sum = 0, n = 0;
    for (uint32_t i = FIRST; i < r->n; i++) {
        const struct world_request *v = &r->v[i];
        if (v->first_s < 0 || v->at_s < from_s)
            continue;
        sum += v->first_s - v->at_s;
        n++;
    }
    return sum / n;
}

static double ttft(const struct setting *c)
{
    double sum = 0;
    struct errbuf err;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dataset d = {0};
        struct world_params p;
        struct world_result r;
        struct world_server servers[16];
        memset(servers, 0, sizeof(servers));
        assert_true(dataset_synth(&d, str_c(c->load), seed, &err));
        world_init(&p);
        for (uint32_t i = 0; i < c->servers; i++) {
            const char *name = c->profile[i >= c->servers / 2];
            struct profile_query q = {.name = str_c(name ? name : "h100-qwen3-32b")};
            assert_int_equal(profile_find(&q, &servers[i].profile, &err), 0);
        }
        struct world_change changes[2];
        memcpy(changes, c->change, sizeof(changes));
        p.data = &d;
        p.block_tokens = d.block_tokens;
        p.policy = policy_find(str_c(c->policy));
        p.servers = servers;
        p.n_servers = c->servers;
        p.changes = changes;
        p.n_changes = c->n_changes;
        p.rate = c->rate;
        p.seed = seed;
        p.tell_capacity = !c->kv_tokens;
        if (c->kv_tokens)
            p.sched.kv_tokens = c->kv_tokens;
        if (c->bytes_per_token > 0)
            p.sched.bytes_per_token = c->bytes_per_token;
        p.sched.learn_speed = !c->deaf;
        world_run(&p, &r);
        sum += mean_of(&r, c->from_s);
        world_result_free(&r);
        dataset_free(&d);
    }
    return sum / SEEDS;
}

/* The same with learning off. */
static double ttft_deaf(struct setting c)
{
    c.deaf = true;
    return ttft(&c);
}

static const struct setting shared = {.load = "shared_prefix", .policy = "prefix-cache", .servers = 8, .rate = 7.8};

static void compare(const char *what, const struct setting *wrong, double truth, double on, double off)
{
    double learnt = ttft(wrong), deaf = ttft_deaf(*wrong);
    print_message("%s: %.3f s with the truth, %.3f learnt (%+.1f %%), %.3f with learning off (%+.1f %%)\n", what, truth,
                  learnt, 100 * (learnt / truth - 1), deaf, 100 * (deaf / truth - 1));
    assert_true(learnt <= on * truth);
    assert_true(deaf > off * truth);
}

static void test_capacity_unknown(void **state)
{
    (void)state;
    struct setting small = shared, large = shared;
    double truth = ttft(&shared);
    small.kv_tokens = 90000;
    compare("capacity believed a third", &small, truth, AS_GOOD, 2);
    large.rate = 9;
    truth = ttft(&large);
    large.kv_tokens = 810000;
    compare("capacity believed three times", &large, truth, AS_GOOD, 0); /* too much belief costs little in any case */
}

static void test_bytes_per_token_wrong(void **state)
{
    (void)state;
    struct setting few = shared, many = shared;
    few.rate = many.rate = 7.8;
    double truth = ttft(&few);
    few.bytes_per_token = 4 / 3.0;
    compare("a third of the bytes per token", &few, truth, AS_GOOD, 1.2);
    many.bytes_per_token = 12;
    compare("three times the bytes per token", &many, truth, AS_GOOD, 0);
}

static void test_mixed_hardware(void **state)
{
    (void)state;
    struct setting best = {.load = "chat:4000",
                           .policy = "oracle",
                           .profile = {"h100-qwen3-32b", "a10-qwen25-7b"},
                           .servers = 8,
                           .rate = 4,
                           .from_s = 60};
    struct setting ours = best;
    ours.policy = "prefix-cache";
    compare("half H100, half A10", &ours, ttft(&best), 1.1, 1.1);
}

static void test_throttled(void **state)
{
    (void)state;
    struct setting best = {.load = "chat:4000",
                           .policy = "oracle",
                           .servers = 8,
                           .rate = 4,
                           .change = {{.at_us = 100000000, .what = WORLD_SLOW, .factor = 1 / 0.3}},
                           .n_changes = 1,
                           .from_s = 160};
    struct setting ours = best;
    ours.policy = "prefix-cache";
    compare("one server throttled to 30 %", &ours, ttft(&best), 1.1, 0);
}

static void test_cache_off(void **state)
{
    (void)state;
    struct setting best = shared;
    best.policy = "oracle";
    best.rate = 7;
    best.change[0] = (struct world_change){.at_us = 1, .what = WORLD_NO_CACHE};
    best.n_changes = 1;
    best.from_s = 61;
    struct setting ours = best;
    ours.policy = "prefix-cache";
    compare("one server without a cache", &ours, ttft(&best), 1.1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacity_unknown), cmocka_unit_test(test_bytes_per_token_wrong),
        cmocka_unit_test(test_mixed_hardware),   cmocka_unit_test(test_throttled),
        cmocka_unit_test(test_cache_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
