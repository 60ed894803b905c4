/* Worlds whose outcome is known: times by hand, what befalls servers, several gateways, P/D, adapters; and random
 * worlds with everything on, of which only the account is checked. */
#include "../base/unit.h"
#include "replay/world.h"

#include <math.h>
#include <stdlib.h>

#define BLOCK 512
#define S     1000000ull /* a second */

/* ---- loads ---- */

static void begin(struct dataset *d)
{
    *d = (struct dataset){0};
    dataset_seed(d, 1);
}

/* A request: blocks of `doc` up to its length (0: own text), at at_s. */
static void add(struct dataset *d, double at_s, uint32_t input, uint32_t output, uint64_t doc)
{
    size_t from = d->n_ids;
    uint32_t n = doc ? input / BLOCK : 0;
    for (uint32_t i = 0; i < n; i++)
        dataset_add_id(d, doc * 100000 + i);
    assert_non_null(dataset_add_prompt(d, input, output, from, n));
    d->at_s = realloc(d->at_s, d->n * sizeof(double));
    d->at_s[d->n - 1] = at_s;
}

/* A turn of a conversation. */
static void turn(struct dataset *d, uint32_t turn, double think_s, uint32_t input, uint32_t output, uint64_t doc)
{
    add(d, 0, input, output, doc);
    d->v[d->n - 1].turn = turn;
    d->v[d->n - 1].think_s = (float)think_s;
    d->n_conversations += turn == 0;
}

/* ---- worlds ---- */

/* A step: 10 ms, 1 ms for each sequence that decodes, 0.1 ms for each token of prompts, of which a step takes 2048. */
#define STEP    0.010
#define DECODE  0.001
#define PREFILL 0.0001

static const struct profile plain = {.name = "plain",
                                     .time = {.base = STEP, .decode_seq = DECODE, .prefill_token = PREFILL},
                                     .kv_tokens = 100 * BLOCK,
                                     .max_num_seqs = 64,
                                     .max_batched_tokens = 2048,
                                     .max_model_len = 1u << 20};

static struct world_server servers[16];
static struct world_change changes[64];

static struct world_params world_of(const struct dataset *d, uint32_t n, const char *policy)
{
    struct world_params p;
    world_init(&p);
    for (uint32_t k = 0; k < n; k++)
        servers[k] = (struct world_server){.profile = plain};
    p.data = d;
    p.block_tokens = BLOCK;
    p.policy = policy_find(str_c(policy));
    assert_non_null(p.policy);
    p.servers = servers;
    p.n_servers = n;
    p.changes = changes;
    return p;
}

static void change(struct world_params *p, double at_s, uint32_t server, enum world_what what, double factor)
{
    changes[p->n_changes++] = (struct world_change){(uint64_t)(at_s * 1e6), server, what, factor};
}

static struct world_result run(struct world_params *p)
{
    struct world_result r;
    world_run(p, &r);
    if (!(r.left < 1e-6))
        fail_msg("%g is still counted when everybody has left", r.left);
    return r;
}

static void near_at(double got, double want, int line)
{
    if (!(fabs(got - want) <= 1e-5)) /* times are whole microseconds, several of them in a sum */
        fail_msg("line %d: got %.7f, want %.7f", line, got, want);
}
#define NEAR(got, want) near_at(got, want, __LINE__)

static void free_all(struct dataset *d, struct world_result *r)
{
    world_result_free(r);
    dataset_free(d);
}

/* ---- times by hand ---- */

static void one_request(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 5, 1000, 11, 0);
    struct world_params p = world_of(&d, 1, "round_robin");
    struct world_result r = run(&p);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.v[0].end, WORLD_OK);
    NEAR(r.v[0].at_s, 0); /* times count from the first arrival */
    NEAR(r.v[0].sent_s, 0);
    NEAR(r.v[0].first_s, STEP + 1000 * PREFILL);
    NEAR((double)r.v[0].ideal_s, STEP + 1000 * PREFILL);
    NEAR(r.v[0].end_s, STEP + 1000 * PREFILL + 10 * (STEP + DECODE));
    assert_int_equal(r.v[0].tries, 1);
    assert_int_equal(r.v[0].server, 0);
    assert_int_equal(r.picks, 1);
    assert_int_equal(r.prefill_tokens[0], 1000);
    free_all(&d, &r);
}

/* The second comes while the first is computed: its prompt shares the first one's next step. */
static void two_on_one_server(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1000, 3, 0);
    add(&d, 0.05, 1000, 1, 0);
    struct world_params p = world_of(&d, 1, "prefix-cache");
    struct world_result r = run(&p);
    double first = STEP + 1000 * PREFILL, second = first + STEP + DECODE + 1000 * PREFILL;
    NEAR(r.v[0].first_s, first);
    NEAR(r.v[1].first_s, second);
    NEAR(r.v[1].end_s, second);                 /* an answer of one token */
    NEAR(r.v[0].end_s, second + STEP + DECODE); /* its second token waited for the other's prompt */
    free_all(&d, &r);
}

static void long_prompt_in_chunks(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 5000, 1, 0);
    struct world_params p = world_of(&d, 1, "default");
    struct world_result r = run(&p);
    NEAR(r.v[0].first_s, 3 * STEP + 5000 * PREFILL);
    free_all(&d, &r);
}

static void cached_the_second_time(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1100, 1, 7);
    add(&d, 10, 1100, 1, 7);
    add(&d, 20, 1100, 1, 8);
    struct world_params p = world_of(&d, 1, "prefix-cache");
    struct world_result r = run(&p);
    assert_int_equal(r.v[0].cached, 0);
    assert_int_equal(r.v[1].cached, 2 * BLOCK);
    assert_int_equal(r.v[2].cached, 0);
    NEAR(r.v[1].first_s - r.v[1].at_s, STEP + (1100 - 2 * BLOCK) * PREFILL);
    NEAR((double)r.v[1].ideal_s, STEP + 1100 * PREFILL); /* with nothing cached */
    free_all(&d, &r);
}

/* The same prompt again goes where it was, by the estimate and by knowledge; the worst of luck would be elsewhere. */
static void prefix_is_found_again(void **state)
{
    (void)state;
    static const char *const policies[] = {"prefix-cache", "prefix-cache-exact", "gie-prefix-full",
                                           "gie-precise",  "sgl-cache-aware",    "dynamo",
                                           "oracle",       "session-hash"};
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        for (uint32_t seed = 0; seed < 5; seed++) {
            struct dataset d;
            begin(&d);
            for (uint32_t k = 0; k < 8; k++)
                add(&d, 10 * k, 5000, 5, 7);
            struct world_params p = world_of(&d, 8, policies[i]);
            p.seed = seed;
            struct world_result r = run(&p);
            for (uint32_t k = 1; k < 8; k++)
                if (r.v[k].server != r.v[0].server || r.v[k].cached != 9 * BLOCK)
                    fail_msg("%s: request %u on %d, the first on %d", policies[i], k, r.v[k].server, r.v[0].server);
            free_all(&d, &r);
        }
}

static void too_large(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 60000, 10, 0);
    add(&d, 1, 1000, 1, 0);
    struct world_params p = world_of(&d, 2, "prefix-cache");
    struct world_result r = run(&p);
    assert_int_equal(r.v[0].end, WORLD_FAILED);
    assert_int_equal(r.v[0].tries, 1); /* no other server could take it */
    assert_true(r.v[0].first_s < 0);
    assert_int_equal(r.v[1].end, WORLD_OK);
    free_all(&d, &r);
}

static void network_and_scrapes_cost(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1000, 2, 0);
    struct world_params p = world_of(&d, 1, "prefix-cache");
    p.network_us = S / 20;
    p.scrape_us = S;
    p.scrape_cost_s = 0.1; /* a tenth of its time */
    struct world_result r = run(&p);
    NEAR(r.v[0].sent_s, 0);
    NEAR(r.v[0].first_s, 0.05 + 1.1 * (STEP + 1000 * PREFILL) + 0.05);
    NEAR(r.v[0].end_s, r.v[0].first_s + 1.1 * (STEP + DECODE));
    free_all(&d, &r);
}

/* ---- arrivals ---- */

static void rate_and_grid(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 60; i++)
        add(&d, i / 20 * 3.0, 1, 1, 0);
    struct world_params p = world_of(&d, 1, "round_robin");
    struct world_result r = run(&p);
    uint32_t together = 0;
    for (uint32_t i = 0; i < 60; i++) {
        double from = i / 20 * 3.0; /* spread over its own cell, times count from the first arrival */
        assert_true(r.v[i].at_s > from - 3 && r.v[i].at_s < from + 3);
        for (uint32_t k = 0; k < i; k++)
            together += fabs(r.v[i].at_s - r.v[k].at_s) < 1e-9;
    }
    assert_true(together < 5);
    world_result_free(&r);
    p.rate = 2;
    r = run(&p);
    double last = 0;
    for (uint32_t i = 0; i < 60; i++)
        last = fmax(last, r.v[i].at_s);
    NEAR(last, 59 / 2.0);
    world_result_free(&r);
    p.rate = 0;
    p.spread = false;
    r = run(&p);
    for (uint32_t i = 0; i < 60; i++)
        NEAR(r.v[i].at_s, i / 20 * 3.0);
    world_result_free(&r);
    p.jitter_s = 0.5;
    r = run(&p);
    for (uint32_t i = 0; i < 60; i++)
        assert_true(fabs(r.v[i].at_s - i / 20 * 3.0) < 0.5);
    free_all(&d, &r);
}

static void conversations_and_think_time(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 3; i++) { /* all alike: their order is of the seed */
        turn(&d, 0, 0, 1000, 1, 0);
        turn(&d, 1, 5, 1000, 1, 0);
        turn(&d, 2, 100, 1000, 1, 0);
    }
    free(d.at_s);
    d.at_s = NULL;
    struct world_params p = world_of(&d, 1, "prefix-cache");
    p.users = 1;
    p.think_max_s = 20;
    struct world_result r = run(&p);
    double one = STEP + 1000 * PREFILL, all = 3 * one + 5 + 20, begun[3];
    uint32_t nth = 0;
    for (uint32_t i = 0; i < 3; i++) {
        begun[i] = r.v[3 * i].at_s;
        NEAR(r.v[3 * i + 1].at_s, begun[i] + one + 5);
        NEAR(r.v[3 * i + 2].at_s, begun[i] + one + 5 + one + 20);
        nth += (uint32_t)(begun[i] / all + 0.5);
    }
    assert_int_equal(nth, 0 + 1 + 2); /* one after the other, without a pause */
    NEAR(begun[0] + begun[1] + begun[2], 3 * all);
    free_all(&d, &r);
}

static void stopped_in_the_middle(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < 40; i++) {
        struct dataset d;
        begin(&d);
        for (uint32_t c = 0; c < 40; c++)
            for (uint32_t t = 0; t < 4; t++)
                turn(&d, t, 0.3, 1000 * (t + 1), 20, c + 1);
        free(d.at_s);
        d.at_s = NULL;
        struct world_params p = world_of(&d, 2, i % 2 ? "prefix-cache" : "dynamo");
        p.users = 10;
        p.ramp_s = 1;
        p.stop_us = i * S / 10;
        p.network_us = i % 3 * 1000;
        p.sched.queueing = i % 4 == 0;
        struct world_result r = run(&p);
        uint32_t under_way = 0, done = 0;
        for (uint32_t k = 0; k < r.n; k++) {
            under_way += r.v[k].at_s >= 0 && r.v[k].end == WORLD_LOST;
            done += r.v[k].end == WORLD_OK;
            assert_true(r.v[k].at_s < i / 10.0 && r.v[k].first_s < i / 10.0 && r.v[k].end_s < i / 10.0);
        }
        assert_true(under_way <= 10);
        assert_true(i < 20 || done > 10);
        NEAR(r.end_s, i / 10.0);
        free_all(&d, &r);
    }
}

/* ---- what befalls servers ---- */

static void slow_and_again_not(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 3; i++)
        add(&d, 10 * i, 1000, 1, 0);
    struct world_params p = world_of(&d, 1, "prefix-cache");
    change(&p, 5, 0, WORLD_SLOW, 3);
    change(&p, 15, 0, WORLD_SLOW, 1);
    struct world_result r = run(&p);
    double one = STEP + 1000 * PREFILL;
    NEAR(r.v[0].first_s, one);
    NEAR(r.v[1].first_s, 10 + 3 * one);
    NEAR(r.v[2].first_s, 20 + one);
    free_all(&d, &r);
}

static void cache_off_and_on(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 6; i++)
        add(&d, 10 * i, 5000, 1, 7);
    for (int exact = 0; exact < 3; exact++) {
        struct world_params p = world_of(&d, 1, exact == 2 ? "oracle" : exact ? "prefix-cache-exact" : "prefix-cache");
        change(&p, 15, 0, WORLD_NO_CACHE, 0);
        change(&p, 35, 0, WORLD_CACHE, 0);
        struct world_result r = run(&p);
        static const uint32_t blocks[] = {0, 9, 0, 0, 0, 9}; /* what was cached is forgotten */
        for (uint32_t i = 0; i < 6; i++)
            assert_int_equal(r.v[i].cached, blocks[i] * BLOCK);
        world_result_free(&r);
    }
    dataset_free(&d);
}

/* Round robin over two; one dies in the middle of its first prompt. What had no token is sent to the other, what had
 * begun to answer fails, and later ones go to the survivor until the other is back. */
static void failure(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1000, 200, 0); /* will be answering */
    add(&d, 0, 1000, 200, 0);
    add(&d, 0.5, 8000, 1, 0); /* will be prefilling */
    add(&d, 0.5, 8000, 1, 0);
    for (uint32_t i = 0; i < 40; i++)
        add(&d, 1 + i, 1000, 1, 0);
    struct world_params p = world_of(&d, 2, "round_robin");
    change(&p, 0.7, 1, WORLD_FAIL, 0);
    change(&p, 20, 1, WORLD_RETURN, 0);
    struct world_result r = run(&p);
    uint32_t failed = 0, twice = 0, back = 0, tries = 0;
    for (uint32_t i = 0; i < r.n; i++) {
        const struct world_request *v = &r.v[i];
        assert_true(v->end == WORLD_OK || v->end == WORLD_FAILED);
        failed += v->end == WORLD_FAILED;
        twice += i < 4 && v->tries == 2;
        tries += v->tries;
        if (i < 4 && v->end == WORLD_FAILED) {
            NEAR(v->end_s, 0.7);
            assert_true(v->first_s > 0);
        }
        if (i > 6 && v->at_s < 20)
            assert_int_equal(v->server, 0);
        back += v->at_s > 25 && v->server == 1;
    }
    assert_int_equal(failed, 1);
    assert_int_equal(twice, 1);
    assert_int_equal(tries, r.picks);
    assert_true(back >= 3);
    free_all(&d, &r);
}

static void nobody_left(void **state)
{
    (void)state;
    for (int queueing = 0; queueing < 2; queueing++) {
        struct dataset d;
        begin(&d);
        for (uint32_t i = 0; i < 20; i++)
            add(&d, i, 20000, 300, 0);
        struct world_params p = world_of(&d, 3, "prefix-cache");
        p.sched.queueing = queueing;
        for (uint32_t k = 0; k < 3; k++)
            change(&p, 5.5, k, WORLD_FAIL, 0);
        struct world_result r = run(&p);
        uint32_t ok = 0;
        for (uint32_t i = 0; i < r.n; i++) {
            assert_true(r.v[i].end == WORLD_OK || r.v[i].end == WORLD_FAILED || r.v[i].end == WORLD_REFUSED);
            assert_true(r.v[i].end != WORLD_REFUSED || r.v[i].reject != REJECT_NONE);
            assert_true(r.v[i].tries <= 3);
            ok += r.v[i].end == WORLD_OK;
        }
        assert_true(ok < 6);
        free_all(&d, &r);
    }
}

static void one_joins(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 40; i++)
        add(&d, i, 1000, 1, 0);
    struct world_params p = world_of(&d, 2, "round_robin");
    servers[1].join_us = 10 * S + S / 2;
    change(&p, 3, 1, WORLD_RETURN, 0); /* not there yet: nothing to return */
    struct world_result r = run(&p);
    uint32_t on_new = 0;
    for (uint32_t i = 0; i < 40; i++) {
        assert_true(i > 10 || r.v[i].server == 0);
        assert_int_equal(r.v[i].end, WORLD_OK);
        assert_int_equal(r.v[i].tries, 1);
        on_new += r.v[i].server == 1;
    }
    assert_true(on_new >= 14);
    free_all(&d, &r);
}

/* ---- knowledge ---- */

/* A long prompt fills one server; policies that look at scrapes see it when one has arrived. */
static uint32_t on_the_busy_one(uint64_t late_us, double from, double until)
{
    uint32_t n = 0;
    for (uint32_t seed = 0; seed < 10; seed++) {
        struct dataset d;
        begin(&d);
        add(&d, 0, 40000, 1500, 0); /* 6.1 s, then it answers until after the last */
        for (uint32_t i = 1; i < 16; i++)
            add(&d, i, 1, 1, 0);
        struct world_params p = world_of(&d, 2, "gie-qkv");
        p.scrape_us = S / 2;
        p.scrape_late_us = late_us;
        p.seed = seed;
        struct world_result r = run(&p);
        for (uint32_t i = 1; i < 16; i++)
            n += r.v[i].server == r.v[0].server && r.v[i].at_s >= from && r.v[i].at_s < until;
        free_all(&d, &r);
    }
    return n;
}

static void late_scrapes(void **state)
{
    (void)state;
    assert_int_equal(on_the_busy_one(0, 1.5, 16), 0);
    assert_true(on_the_busy_one(8 * S, 1.5, 8) > 20); /* of 70, by chance */
    assert_int_equal(on_the_busy_one(8 * S, 9.5, 16), 0);
}

/* Gateways take turns. The first gives a server a long prompt; does the second avoid it? */
static uint32_t second_gateway_follows(bool sync, double at_s)
{
    uint32_t same = 0;
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct dataset d;
        begin(&d);
        add(&d, 0, 40000, 1, 0);
        add(&d, at_s, 1000, 1, 0);
        struct world_params p = world_of(&d, 2, "prefix-cache");
        p.n_gateways = 2;
        p.scrape_us = 0;
        p.sync = sync;
        p.sync_us = S;
        p.seed = seed;
        struct world_result r = run(&p);
        assert_int_equal(r.v[0].gateway, 0);
        assert_int_equal(r.v[1].gateway, 1);
        same += r.v[0].server == r.v[1].server;
        free_all(&d, &r);
    }
    return same;
}

static void gateways(void **state)
{
    (void)state;
    assert_int_equal(second_gateway_follows(true, 1.5), 0);
    assert_in_range(second_gateway_follows(true, 0.5), 3, 17); /* not told yet */
    assert_in_range(second_gateway_follows(false, 1.5), 3, 17);
}

static void oracle_sees(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct dataset d;
        begin(&d);
        add(&d, 0, 40000, 1, 0);
        add(&d, 0.001, 1000, 1, 0);
        add(&d, 0.002, 1000, 1, 0);
        add(&d, 10, 5000, 1, 7);
        add(&d, 20, 5000, 1, 7);
        struct world_params p = world_of(&d, 2, "oracle");
        p.n_gateways = 2; /* which know nothing of each other */
        p.scrape_us = 0;
        p.seed = seed;
        struct world_result r = run(&p);
        assert_int_equal(r.v[1].server, !r.v[0].server);
        assert_int_equal(r.v[2].server, !r.v[0].server);
        assert_int_equal(r.v[4].server, r.v[3].server);
        free_all(&d, &r);
    }
}

static void waits_in_the_gateway(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1, 1, 0);
    for (uint32_t i = 1; i < 6; i++)
        add(&d, 5 + 0.001 * i, 20000, 100, 0); /* two fill the memory, of which a scrape has told */
    for (int queueing = 0; queueing < 2; queueing++) {
        struct world_params p = world_of(&d, 1, "prefix-cache");
        p.sched.queueing = queueing;
        struct world_result r = run(&p);
        uint32_t waited = 0;
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(r.v[i].end, WORLD_OK);
            waited += r.v[i].sent_s > r.v[i].at_s + 1;
        }
        assert_int_equal(waited > 0, queueing);
        world_result_free(&r);
    }
    dataset_free(&d);
}

static void decisions_are_kept(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    for (uint32_t i = 0; i < 100; i++)
        add(&d, i, 2000, 1, 1 + i % 3);
    struct world_params p = world_of(&d, 4, "prefix-cache");
    p.explain = 10;
    struct world_result r = run(&p);
    assert_int_equal(r.n_decisions, 10);
    for (uint32_t i = 0; i < 10; i++) {
        const struct world_decision *one = &r.decisions[i];
        assert_in_range(one->request, i * 10, i * 10 + 9);
        assert_int_equal(one->n, 4);
        bool seen[4] = {0}, chosen = false;
        for (uint32_t k = 0; k < 4; k++) {
            seen[one->server[k]] = true;
            chosen |= one->x.cost[k].ep.slot == one->d.ep.slot && (int32_t)one->server[k] == r.v[one->request].server;
        }
        assert_true(seen[0] && seen[1] && seen[2] && seen[3] && chosen);
    }
    free_all(&d, &r);
}

/* ---- P/D, adapters ---- */

static void prefill_transfer_decode(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1000, 11, 7);
    add(&d, 20, 1000, 11, 7);
    struct world_params p = world_of(&d, 2, "prefix-cache");
    p.prefill_servers = 1;
    p.kv_bytes_token = 100000;
    p.kv_bandwidth = 1e8; /* a second for 1000 tokens */
    p.kv_base_s = 0;
    p.pd_always = true;
    struct world_result r = run(&p);
    double prefilled = STEP + 1000 * PREFILL,
           first = prefilled + 1 + STEP + PREFILL; /* the last one is computed there */
    NEAR(r.v[0].first_s, first);
    NEAR(r.v[0].end_s, first + 10 * (STEP + DECODE));
    assert_int_equal(r.v[0].server, 1);
    assert_int_equal(r.v[0].cached, 0);
    assert_int_equal(r.v[1].cached, BLOCK);                              /* at the prefill side */
    NEAR(r.v[1].first_s - 20, first - BLOCK * PREFILL - BLOCK / 1000.0); /* the decode side has that part, too */
    assert_int_equal(r.picks, 4);
    assert_true(r.pd && r.v[0].split && r.v[1].split);
    world_result_free(&r);

    /* an idle decode side computes a prompt in less time than one comes to it; unless it cannot */
    p.pd_always = false;
    p.kv_base_s = 0.01;
    r = run(&p);
    assert_false(r.v[0].split);
    NEAR(r.v[0].first_s, prefilled);
    assert_int_equal(r.picks, 2);
    world_result_free(&r);
    p.pd_both = true;
    r = run(&p);
    assert_true(r.v[0].split);
    NEAR(r.v[0].first_s, first + 0.01);
    world_result_free(&r);
    p.pd_both = false;
    p.sched.split_min_tokens = 600; /* the second one has fewer that are not cached */
    r = run(&p);
    assert_true(r.v[0].split && !r.v[1].split);
    world_result_free(&r);
    p.sched.split_min_tokens = 0;
    p.pd_always = true;
    p.kv_base_s = 0;

    /* the prefill side is lost while it computes: the decode side does it; where it cannot, nobody is left */
    change(&p, 0.01, 0, WORLD_FAIL, 0);
    r = run(&p);
    assert_true(r.v[0].end == WORLD_OK && !r.v[0].split && r.v[0].tries == 1);
    world_result_free(&r);
    p.pd_both = true;
    r = run(&p);
    assert_int_equal(r.v[0].end, WORLD_FAILED);
    world_result_free(&r);
    p.pd_both = false;
    p.n_changes = 0;

    /* the decode side is lost while it answers, and while nothing has been answered yet */
    change(&p, 1.05, 1, WORLD_FAIL, 0);
    change(&p, 1.3, 1, WORLD_RETURN, 0);
    r = run(&p);
    assert_true(r.v[0].end == WORLD_OK || r.v[0].end == WORLD_FAILED);
    assert_int_equal(r.v[1].end, WORLD_OK);
    free_all(&d, &r);
}

static void adapters(void **state)
{
    (void)state;
    struct dataset d;
    begin(&d);
    add(&d, 0, 1000, 1, 7);
    add(&d, 10, 1000, 1, 7);
    struct world_params p = world_of(&d, 1, "prefix-cache");
    p.adapters = 1;
    struct world_result r = run(&p);
    NEAR(r.v[0].first_s, 0.55 + STEP + 1000 * PREFILL); /* read from disk, loaded */
    NEAR(r.v[1].first_s, 10 + STEP + (1000 - BLOCK) * PREFILL);
    free_all(&d, &r);

    /* two at a time, of one or two adapters, on a server with one slot or two */
    uint32_t apart[3] = {0};
    for (uint32_t slots = 1; slots <= 2; slots++)
        for (uint32_t seed = 0; seed < 20; seed++) {
            begin(&d);
            add(&d, 0, 1000, 200, 0);
            add(&d, 0.001, 1000, 200, 0);
            p = world_of(&d, 1, "round_robin");
            p.adapters = 2;
            p.adapter_slots = slots;
            p.seed = seed;
            r = run(&p);
            apart[slots] += r.v[1].first_s >= r.v[0].end_s;
            free_all(&d, &r);
        }
    assert_in_range(apart[1], 3, 17);
    assert_int_equal(apart[2], 0);
}

/* Exact knowledge is of the adapter's blocks. */
static void adapters_and_exact_knowledge(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 10; seed++)
        for (int oracle = 0; oracle < 2; oracle++) {
            struct dataset d;
            begin(&d);
            for (uint32_t i = 0; i < 8; i++)
                add(&d, 10 * i, 9 * BLOCK + 1, 1, 7);
            struct world_params p = world_of(&d, 4, oracle ? "oracle" : "dynamo");
            p.adapters = 1;
            p.seed = seed;
            struct world_result r = run(&p);
            for (uint32_t i = 1; i < 8; i++)
                assert_int_equal(r.v[i].cached, 9 * BLOCK);
            free_all(&d, &r);
        }
}

/* ---- random worlds ---- */

static uint32_t below(struct rng *g, uint32_t n)
{
    return (uint32_t)rng_below(g, n);
}

static void random_load(struct dataset *d, struct rng *g, bool closed)
{
    begin(d);
    double at = 0;
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t input = 1 + below(g, 1u << (4 + below(g, 12)));
        at += rng_exp(g) * 0.15;
        uint64_t doc = below(g, 3) ? 1 + below(g, 12) : 0;
        if (closed)
            turn(d, i % 5 ? i % 5 : 0, rng_exp(g), input, 1 + below(g, 300), doc);
        else
            add(d, at, input, 1 + below(g, 300), doc);
    }
    if (closed) {
        free(d->at_s);
        d->at_s = NULL;
    }
}

static const struct policy *all_policies[64];
static uint32_t n_policies;

static void note_policy(void *ctx, const struct policy *p)
{
    (void)ctx;
    all_policies[n_policies++] = p;
}

static struct world_params random_world(struct dataset *d, struct rng *g, bool closed, uint32_t seed)
{
    uint32_t n = 1 + below(g, 8);
    struct world_params p = world_of(d, n, "prefix-cache");
    p.policy = all_policies[below(g, n_policies)];
    p.seed = seed;
    for (uint32_t k = 0; k < n; k++) {
        servers[k].profile.kv_tokens = BLOCK * (60 + below(g, 100));
        servers[k].profile.time.pair = below(g, 2) * 1e-9;
        servers[k].profile.max_num_seqs = 1 + below(g, 64);
        servers[k].join_us = below(g, 4) ? 0 : below(g, 20) * S;
    }
    for (uint32_t i = 0, many = below(g, 12); i < many; i++) /* in no order of time */
        change(&p, below(g, 50), below(g, n), (enum world_what)below(g, 5), 0.5 + below(g, 4));
    p.n_gateways = 1 + below(g, 3);
    p.sync = below(g, 2);
    p.sync_us = below(g, 3) * S / 2;
    p.scrape_us = below(g, 3) * S / 4;
    p.scrape_late_us = below(g, 2) * S * 3 / 10;
    p.scrape_cost_s = below(g, 2) * 0.001;
    p.network_us = below(g, 2) * 20000;
    p.tell_capacity = below(g, 2);
    p.tell_cached = below(g, 2);
    p.sched.queueing = below(g, 2);
    p.sched.queue_ttl_us = (1 + below(g, 10)) * S;
    p.adapters = below(g, 2) * below(g, 5);
    p.adapter_slots = 1 + below(g, 3);
    p.prefill_servers = below(g, 3) ? 0 : below(g, n);
    p.pd_both = below(g, 2);
    p.pd_always = below(g, 2);
    p.sched.split_min_tokens = below(g, 2) * below(g, 2000);
    p.explain = below(g, 20);
    p.users = closed ? 1 + below(g, 20) : 0;
    p.ramp_s = below(g, 10);
    p.stop_us = below(g, 3) ? 0 : (1 + below(g, 40)) * S;
    return p;
}

static uint32_t n_progress;

static void on_progress(void *ctx, uint32_t done, uint32_t all)
{
    (void)ctx;
    assert_true(done <= all);
    n_progress++;
}

static void check_account(const struct world_params *p, const struct world_result *r)
{
    uint32_t lost = 0;
    double end = p->stop_us ? (double)p->stop_us / 1e6 : HUGE_VAL;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct world_request *v = &r->v[i];
        lost += v->end == WORLD_LOST;
        if (v->at_s < 0) {
            assert_true(v->end == WORLD_LOST && v->sent_s < 0 && v->first_s < 0 && v->end_s < 0);
            continue;
        }
        assert_true(v->at_s < end && v->end_s < end);
        assert_true(v->end == WORLD_LOST || v->end_s >= v->at_s);
        assert_true(v->sent_s < 0 || v->sent_s >= v->at_s);
        assert_true(v->first_s < 0 || (v->first_s > v->at_s && v->sent_s >= v->at_s));
        if (v->end == WORLD_OK)
            assert_true(v->first_s <= v->end_s && v->server >= 0 && v->cached <= v->input && v->reject == REJECT_NONE);
        if (v->end == WORLD_REFUSED)
            assert_true(v->reject != REJECT_NONE && v->first_s < 0);
        assert_true(v->tries <= 3);
    }
    if (!p->stop_us)
        assert_int_equal(lost, 0);
    for (uint32_t k = 0; k < r->n_servers; k++)
        assert_true(r->busy[k] >= 0 && r->busy[k] <= 1 + 1e-6);
}

static bool same(const struct world_result *a, const struct world_result *b)
{
    for (uint32_t i = 0; i < a->n; i++) {
        const struct world_request *x = &a->v[i], *y = &b->v[i];
        if (x->at_s != y->at_s || x->sent_s != y->sent_s || x->first_s != y->first_s || x->end_s != y->end_s ||
            x->server != y->server || x->cached != y->cached || x->end != y->end || x->tries != y->tries ||
            x->preempted != y->preempted || x->reason != y->reason)
            return false;
    }
    return a->n == b->n && a->picks == b->picks && a->end_s == b->end_s && a->n_gauges == b->n_gauges;
}

static void random_worlds(void **state)
{
    (void)state;
    struct rng g;
    rng_init(&g, 11);
    n_policies = 0;
    policy_each(note_policy, NULL);
    uint32_t answered = 0, refused = 0, failed = 0, retried = 0, preempted = 0;
    for (uint32_t i = 0; i < 120; i++) {
        struct dataset d;
        bool closed = below(&g, 3) == 0;
        random_load(&d, &g, closed);
        struct world_params p = random_world(&d, &g, closed, i);
        p.progress = on_progress;
        struct world_result r = run(&p), again = run(&p);
        check_account(&p, &r);
        if (!same(&r, &again))
            fail_msg("world %u (%s) ends differently when it is run again", i, p.policy->name);
        for (uint32_t k = 0; k < r.n; k++) {
            answered += r.v[k].end == WORLD_OK;
            refused += r.v[k].end == WORLD_REFUSED;
            failed += r.v[k].end == WORLD_FAILED;
            retried += r.v[k].tries > 1;
            preempted += r.v[k].preempted > 0;
        }
        world_result_free(&again);
        free_all(&d, &r);
    }
    print_message("answered %u, refused %u, failed %u, retried %u, preempted %u\n", answered, refused, failed, retried,
                  preempted);
    assert_true(answered > 15000 && refused > 50 && failed > 50 && retried > 50 && preempted > 50);
}

static void seeds_differ(void **state)
{
    (void)state;
    n_policies = 0;
    policy_each(note_policy, NULL);
    for (uint32_t i = 0; i < n_policies; i++) {
        struct dataset d;
        struct rng g;
        rng_init(&g, 5);
        random_load(&d, &g, false);
        struct world_params p = world_of(&d, 4, all_policies[i]->name);
        struct world_result a = run(&p);
        p.seed = 2;
        struct world_result b = run(&p);
        if (same(&a, &b))
            fail_msg("%s: two seeds, the same run", all_policies[i]->name);
        world_result_free(&b);
        free_all(&d, &a);
    }
}

static void policy_names(void **state)
{
    (void)state;
    assert_ptr_equal(policy_find(STR("GIE_Prefix-full")), policy_find(STR("gie-prefix-full")));
    assert_ptr_equal(policy_find(STR("estimate")), policy_find(STR("prefix-cache")));
    assert_null(policy_find(STR("gie")));
    assert_null(policy_find(STR("")));
    assert_null(policy_find(STR("oracle2")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request),
        cmocka_unit_test(two_on_one_server),
        cmocka_unit_test(long_prompt_in_chunks),
        cmocka_unit_test(cached_the_second_time),
        cmocka_unit_test(prefix_is_found_again),
        cmocka_unit_test(too_large),
        cmocka_unit_test(network_and_scrapes_cost),
        cmocka_unit_test(rate_and_grid),
        cmocka_unit_test(conversations_and_think_time),
        cmocka_unit_test(stopped_in_the_middle),
        cmocka_unit_test(slow_and_again_not),
        cmocka_unit_test(cache_off_and_on),
        cmocka_unit_test(failure),
        cmocka_unit_test(nobody_left),
        cmocka_unit_test(one_joins),
        cmocka_unit_test(late_scrapes),
        cmocka_unit_test(gateways),
        cmocka_unit_test(oracle_sees),
        cmocka_unit_test(waits_in_the_gateway),
        cmocka_unit_test(decisions_are_kept),
        cmocka_unit_test(prefill_transfer_decode),
        cmocka_unit_test(adapters),
        cmocka_unit_test(adapters_and_exact_knowledge),
        cmocka_unit_test(random_worlds),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(policy_names),
    };
    return RUN_TESTS(tests);
}
