/* The policies on a small pool of modelled servers: what users are promised (mission A11, A12, B1, B42). */
#include "world.h"

static struct world w;

static struct sched_params params(enum sched_policy policy)
{
    struct sched_params p;
    sched_params_init(&p);
    p.policy = policy;
    return p;
}

/* ---- DEFAULT ---- */

static void test_burst_is_even(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sched_params p = params(SCHED_DEFAULT);
        char text[900];
        world_init(&w, &p, 10, seed);
        random_text(&w.rng, text, sizeof(text));
        for (int i = 0; i < 200; i++)
            job_send(&w, text, sizeof(text), 50);
        for (uint32_t i = 0; i < w.n; i++)
            assert_in_range(w.sv[i].picks, 19, 21);
        world_free(&w);
    }
}

static void test_burst_after_jittery_traffic_is_even(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sched_params p = params(SCHED_DEFAULT);
        char text[900];
        world_init(&w, &p, 10, seed);
        random_text(&w.rng, text, sizeof(text));
        for (uint32_t i = 0; i < w.n; i++)
            w.sv[i].jitter = 0.1;
        for (int i = 0; i < 300; i++) {
            job_send(&w, text, 300 + (size_t)(i % 600), 20);
            world_run(&w, w.now + 0.05);
        }
        world_run(&w, w.now + 30);
        for (uint32_t i = 0; i < w.n; i++)
            w.sv[i].picks = 0;
        for (int i = 0; i < 200; i++)
            job_send(&w, text, sizeof(text), 50);
        for (uint32_t i = 0; i < w.n; i++)
            assert_in_range(w.sv[i].picks, 19, 21);
        world_free(&w);
    }
}

/* As it happens over sockets: the burst takes a while, first answers come in between, and the servers are slower than
 * the prior says. */
static void test_burst_over_time_is_even(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sched_params p = params(SCHED_DEFAULT);
        char text[900];
        world_init(&w, &p, 10, seed);
        random_text(&w.rng, text, sizeof(text));
        for (uint32_t i = 0; i < w.n; i++) {
            w.sv[i].jitter = 0.02;
            w.sv[i].speed = 3;
        }
        for (int i = 0; i < 20; i++) {
            job_send(&w, text, sizeof(text), 50);
            world_run(&w, -1);
        }
        for (uint32_t i = 0; i < w.n; i++)
            w.sv[i].picks = 0;
        world_run(&w, w.now + 3);
        for (int i = 0; i < 200; i++) {
            job_send(&w, text, sizeof(text), 50);
            world_run(&w, w.now + 0.001);
        }
        for (uint32_t i = 0; i < w.n; i++)
            assert_in_range(w.sv[i].picks, 19, 21);
        world_free(&w);
    }
}

static void test_sequential_requests_spread(void **state)
{
    (void)state;
    struct sched_params p = params(SCHED_DEFAULT);
    char text[300];
    world_init(&w, &p, 4, 5);
    random_text(&w.rng, text, sizeof(text));
    for (uint32_t i = 0; i < w.n; i++)
        w.sv[i].jitter = 0.1;
    for (int i = 0; i < 100; i++) {
        job_send(&w, text, sizeof(text), 10);
        world_run(&w, -1);
    }
    for (uint32_t i = 0; i < w.n; i++)
        assert_in_range(w.sv[i].picks, 20, 30);
    world_free(&w);
}

static uint32_t fired, to_fire;
static char fire_text[600];

static void fire_again(struct world *x, struct job *j)
{
    (void)j;
    if (fired < to_fire) {
        fired++;
        job_send(x, fire_text, sizeof(fire_text), 40);
    }
}

static void closed_loop(enum sched_policy policy, uint32_t concurrency, uint64_t seed)
{
    struct sched_params p = params(policy);
    world_init(&w, &p, 4, seed);
    random_text(&w.rng, fire_text, sizeof(fire_text));
    for (uint32_t i = 0; i < w.n; i++)
        w.sv[i].jitter = 0.1;
    w.sv[seed % 4].speed = 5;
    w.on_done = fire_again;
    to_fire = 400;
    for (fired = 0; fired < concurrency;) {
        fired++;
        job_send(&w, fire_text, sizeof(fire_text), 40);
    }
    world_run(&w, -1);
    w.on_done = NULL;
    assert_int_equal(w.sv[0].picks + w.sv[1].picks + w.sv[2].picks + w.sv[3].picks, 400);
    if (w.sv[seed % 4].picks >= 50)
        fail_msg("%u of 400 to the slow one, concurrency %u", w.sv[seed % 4].picks, concurrency);
    world_free(&w);
}

static void test_slow_endpoint_gets_little(void **state)
{
    (void)state;
    static const uint32_t concurrency[] = {1, 2, 4, 8, 16, 32, 64};
    for (size_t i = 0; i < ARRAY_LEN(concurrency); i++)
        for (uint64_t seed = 1; seed <= 8; seed++)
            closed_loop(SCHED_DEFAULT, concurrency[i], seed);
}

/* 400 at once, on a pool nobody has used yet: slowness shows before the slow one has answered anything. */
static void test_burst_avoids_slow_endpoint(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct sched_params p = params(SCHED_DEFAULT);
        world_init(&w, &p, 4, seed);
        random_text(&w.rng, fire_text, sizeof(fire_text));
        for (uint32_t i = 0; i < w.n; i++)
            w.sv[i].jitter = 0.1;
        w.sv[seed % 4].speed = 5;
        for (uint32_t i = 0; i < 400; i++) {
            job_send(&w, fire_text, 100, 30);
            world_run(&w, w.now + 0.0005 * (double)(1 + seed % 6));
        }
        world_run(&w, -1);
        assert_in_range(w.sv[seed % 4].picks, 0, 49);
        world_free(&w);
    }
}

static void test_recovered_endpoint_is_used_again(void **state)
{
    (void)state;
    struct sched_params p = params(SCHED_DEFAULT);
    world_init(&w, &p, 4, 3);
    random_text(&w.rng, fire_text, sizeof(fire_text));
    w.sv[2].speed = 5;
    for (int i = 0; i < 400; i++) {
        job_send(&w, fire_text, sizeof(fire_text), 20);
        world_run(&w, w.now + 0.1);
    }
    w.sv[2].speed = 1;
    w.sv[2].picks = 0;
    for (int i = 0; i < 600; i++) {
        job_send(&w, fire_text, sizeof(fire_text), 20);
        world_run(&w, w.now + 0.1);
    }
    assert_true(w.sv[2].picks > 75);
    world_free(&w);
}

/* ---- PREFIX_CACHE ---- */

static void set_jitter(double jitter, double late)
{
    for (uint32_t i = 0; i < w.n; i++)
        w.sv[i].jitter = jitter;
    w.scrape_late = late;
}

/* Two rounds that share about 460 bytes, 100 conversations: the second round goes where the first went, every time. */
static void rounds(uint64_t seed, uint32_t n_eps, double jitter, double late, double pause, size_t first, size_t second)
{
    struct sched_params p = params(SCHED_PREFIX_CACHE);
    char text[4096];
    world_init(&w, &p, n_eps, seed);
    set_jitter(jitter, late);
    for (int i = 0; i < 100; i++) {
        random_text(&w.rng, text, first + second);
        memcpy(text, "You are a helpful assistant.....", 32); /* half a block alike in all */
        uint32_t where = job_send(&w, text, first, 1 + (double)rng_below(&w.rng, 100))->server;
        world_run(&w, -1);
        world_run(&w, w.now + pause);
        struct job *j = job_send(&w, text, first + second, 50);
        if (j->server != where)
            fail_msg("seed %d round %d went elsewhere, reason %s", (int)seed, i, sched_reason_name(j->r.d.reason));
        world_run(&w, -1);
        world_run(&w, w.now + pause);
    }
    world_free(&w);
}

static void test_rounds_stay(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        rounds(seed, 4, 0, 0, 0, 460, 300);
        rounds(seed, 4, 0.3, 0.8, 0, 460, 300);
        rounds(seed, 5, 0.3, 1.5, 0.01, 460, 700);
        rounds(seed, 8, 0.2, 1.9, 0.3, 460, 30);
        rounds(seed, 4, 0.3, 1.9, 3, 460, 460);
    }
}

#define CONVERSATIONS 50
#define TURNS         5
struct conversation {
    char text[16384];
    size_t len;
    uint32_t turn, server, moves;
};
static struct conversation conv[CONVERSATIONS];
static uint32_t next_conv;
static bool equal_turns; /* all conversations advance in step: then the index grows in waves */
static bool short_turns; /* of less than a block: only the ends of messages tell the conversations apart */

static void converse(struct world *x, uint32_t c)
{
    struct conversation *k = &conv[c];
    size_t add = short_turns ? 10 + rng_below(&x->rng, 40) : equal_turns ? 400 : 150 + rng_below(&x->rng, 700);
    random_text(&x->rng, k->text + k->len, add);
    k->len += add;
    k->text[k->len++] = 0x1e; /* end of a message */
    struct job *j = job_send(x, k->text, k->len, equal_turns ? 20 : 5 + (double)rng_below(&x->rng, 60));
    j->tag = c;
    if (k->turn++ && j->server != k->server)
        k->moves++;
    k->server = j->server;
}

static void next_turn(struct world *x, struct job *j)
{
    struct conversation *k = &conv[j->tag];
    size_t answer = (size_t)(j->out * 4);
    random_text(&x->rng, k->text + k->len, answer);
    k->len += answer;
    k->text[k->len++] = 0x1e;
    if (k->turn < TURNS)
        converse(x, j->tag);
    else if (next_conv < CONVERSATIONS)
        converse(x, next_conv++);
}

static double conversations(uint64_t seed, uint32_t parallel, double jitter, double late, size_t alike)
{
    struct sched_params p = params(SCHED_PREFIX_CACHE);
    world_init(&w, &p, 4, seed);
    set_jitter(jitter, late);
    memset(conv, 0, sizeof(conv));
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        memset(conv[c].text, 'S', alike);
        conv[c].len = alike;
    }
    w.on_done = next_turn;
    next_conv = 0;
    while (next_conv < parallel)
        converse(&w, next_conv++);
    world_run(&w, -1);
    w.on_done = NULL;
    uint32_t per[WORLD_EPS] = {0}, most = 0;
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        assert_int_equal(conv[c].turn, TURNS);
        if (conv[c].moves)
            fail_msg("seed %d, %u in parallel: conversation %u moved %u times", (int)seed, parallel, c, conv[c].moves);
        per[conv[c].server]++;
    }
    for (uint32_t i = 0; i < w.n; i++)
        most = MAX(most, per[i]);
    world_free(&w);
    return (double)most / ((double)CONVERSATIONS / 4);
}

static void test_conversations_stay_and_spread(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        worst = MAX(worst, conversations(seed, 1, 0, 0, 64));
        worst = MAX(worst, conversations(seed, 1, 0.2, 0.5, 100));
        worst = MAX(worst, conversations(seed, 4, 0.2, 0.9, 64));
        worst = MAX(worst, conversations(seed, 10, 0.2, 0.9, 64));
        worst = MAX(worst, conversations(seed, 10, 0.2, 1.9, 128));
    }
    equal_turns = true;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        worst = MAX(worst, conversations(seed, 5, 0.05, 0.9, 256));
        worst = MAX(worst, conversations(seed, 10, 0.05, 0.9, 256));
        worst = MAX(worst, conversations(seed, 20, 0.05, 0.9, 256));
    }
    equal_turns = false;
    short_turns = true;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        worst = MAX(worst, conversations(seed, 1, 0, 0, 64));
        worst = MAX(worst, conversations(seed, 10, 0.2, 1.9, 100));
    }
    short_turns = false;
    print_message("conversations per endpoint, worst max/mean: %.2f\n", worst);
    assert_true(worst <= 1.3);
}

static void test_saturated_holder_is_left(void **state)
{
    (void)state;
    struct sched_params p = params(SCHED_PREFIX_CACHE);
    char text[2000];
    world_init(&w, &p, 4, 9);
    random_text(&w.rng, text, sizeof(text));
    uint32_t home = job_send(&w, text, 1000, 10)->server;
    world_run(&w, -1);
    assert_int_equal(job_send(&w, text, 1500, 10)->server, home);
    world_run(&w, -1);
    w.scrape_every = 0; /* others' requests queue up there */
    struct ep_load l = {.sent_us = us(w.now),
                        .done_us = us(w.now),
                        .has_waiting = true,
                        .has_running = true,
                        .has_kv = true,
                        .waiting = 20,
                        .running = 30,
                        .kv_frac = 0.5};
    sched_ep_load(w.s, w.sv[home].ep, &l, us(w.now));
    struct job *j = job_send(&w, text, 2000, 10);
    assert_int_not_equal(j->server, home);
    world_free(&w);
}

/* The burst that one endpoint cannot take leaves it, although it holds the whole prompt. */
static void test_hot_prefix_is_replicated(void **state)
{
    (void)state;
    struct sched_params p = params(SCHED_PREFIX_CACHE);
    char text[4000];
    world_init(&w, &p, 4, 9);
    random_text(&w.rng, text, sizeof(text));
    job_send(&w, text, 2000, 10);
    world_run(&w, -1);
    for (int i = 0; i < 200; i++) {
        random_text(&w.rng, text + 2000, 2000);
        job_send(&w, text, sizeof(text), 10);
    }
    for (uint32_t i = 0; i < w.n; i++)
        assert_in_range(w.sv[i].picks, 40, 65);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_is_even),
        cmocka_unit_test(test_burst_after_jittery_traffic_is_even),
        cmocka_unit_test(test_burst_over_time_is_even),
        cmocka_unit_test(test_sequential_requests_spread),
        cmocka_unit_test(test_slow_endpoint_gets_little),
        cmocka_unit_test(test_burst_avoids_slow_endpoint),
        cmocka_unit_test(test_recovered_endpoint_is_used_again),
        cmocka_unit_test(test_rounds_stay),
        cmocka_unit_test(test_conversations_stay_and_spread),
        cmocka_unit_test(test_saturated_holder_is_left),
        cmocka_unit_test(test_hot_prefix_is_replicated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
