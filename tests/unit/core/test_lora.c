/* LoRA adapters and the picker: what is known of an endpoint's adapters, call by call, and then pools of simulated engines that really have to load
 * adapters and defer requests. */
#include "base/hash.h"
#include "base/rng.h"
#include "core/sched.h"
#include "sim/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC     1000000ull
#define BASE    1u /* names of models are hashes; adapters follow */
#define MAX_EPS 8

static struct sched *s;
static struct sched_params p;
static struct ep_ref ep[MAX_EPS];
static uint32_t n_eps;
static uint64_t now;

static void models(uint32_t i, uint32_t n_adapters)
{
    struct sched_model m[128] = {{BASE, false}};
    for (uint32_t k = 1; k <= n_adapters; k++)
        m[k] = (struct sched_model){BASE + k, true};
    sched_ep_models(s, ep[i], m, n_adapters + 1, now);
}

/* A pool whose endpoints list the base and so many adapters, and say nothing of slots yet. */
static void start(uint32_t n, uint32_t n_adapters)
{
    sched_params_init(&p);
    p.learn_speed = false;
    now = 100 * SEC;
    s = sched_new(&p, 42);
    n_eps = n;
    for (uint32_t i = 0; i < n; i++) {
        ep[i] = sched_ep_add(s, NULL, false, now);
        if (n_adapters)
            models(i, n_adapters);
    }
    now += 10 * SEC; /* slow starts are over */
    sched_tick(s, now);
}

static void scrape(uint32_t i, uint32_t max, const uint64_t *running, uint32_t n_running, const uint64_t *waiting, uint32_t n_waiting)
{
    struct ep_load l = {.sent_us = now, .done_us = now, .max_lora = max, .n_running_lora = n_running, .n_waiting_lora = n_waiting};
    for (uint32_t k = 0; k < n_running; k++)
        l.running_lora[k] = running[k];
    for (uint32_t k = 0; k < n_waiting; k++)
        l.waiting_lora[k] = waiting[k];
    sched_ep_load(s, ep[i], &l, now);
}

static void slots(uint32_t max)
{
    for (uint32_t i = 0; i < n_eps; i++)
        scrape(i, max, NULL, 0, NULL, 0);
}

static struct sched_explain x;

/* Sends a request for the model there. What it would have cost anywhere stays in x. */
static void send_to(struct sched_req *r, uint32_t i, uint64_t model)
{
    *r = (struct sched_req){.prompt_bytes = 400, .n_outputs = 1, .streamed = true, .model = model, .pinned = ep[i], .explain = &x};
    assert_int_equal(sched_submit(s, r, now), SCHED_PICKED);
    assert_int_equal(r->d.ep.slot, ep[i].slot);
}

static void end(struct sched_req *r)
{
    now += 1000;
    sched_finish(s, r, OUT_OK, NULL, now);
}

static double cost_at(uint32_t i, uint64_t model) /* seconds for the adapter */
{
    struct sched_req r = {.prompt_bytes = 400, .n_outputs = 1, .streamed = true, .model = model, .explain = &x};
    assert_int_equal(sched_submit(s, &r, now), SCHED_PICKED);
    sched_finish(s, &r, OUT_STALE_CONN, NULL, now);
    for (uint32_t k = 0; k < x.n; k++)
        if (x.cost[k].ep.slot == ep[i].slot)
            return x.cost[k].lora_s;
    fail_msg("endpoint %u is not explained", i);
    return -1;
}

#define COSTS(i, model, want)                                                                                          \
    do {                                                                                                               \
        double is = cost_at(i, model);                                                                                 \
        if (fabs(is - (want)) > 1e-6)                                                                                  \
            fail_msg("line %d: %g, not %g", __LINE__, is, (double)(want));                                             \
    } while (0)

/* cost_at uses the adapter wherever it is picked: pins hold the pool still where that matters. */
static struct sched_req pin[64];

static void test_unknown_costs_nothing(void **state)
{
    (void)state;
    start(2, 3);
    COSTS(0, BASE + 1, 0); /* nobody told of slots */
    sched_free(s);
    start(2, 0);
    slots(1);
    COSTS(0, BASE + 1, 0); /* nobody told of adapters */
    sched_free(s);
    start(2, 3);
    slots(1);
    send_to(&pin[0], 0, BASE + 1);
    for (uint32_t k = 0; k < 10; k++)
        COSTS(0, BASE, 0);
    end(&pin[0]);
    sched_free(s);
}

static void test_costs_by_place(void **state)
{
    (void)state;
    start(1, 6);
    slots(2);
    send_to(&pin[0], 0, BASE + 1);
    assert_true(fabs(x.cost[0].lora_s - 0.2) < 1e-6 && x.cost[0].total_s > x.cost[0].lora_s); /* a free slot */
    assert_true(pin[0].d.ttft_s > 0.2 && pin[0].d.cost_s > 0.2);
    send_to(&pin[1], 0, BASE + 1); /* in use */
    assert_true(x.cost[0].lora_s <= 0 && pin[1].d.ttft_s < 0.2);
    send_to(&pin[2], 0, BASE + 2); /* the other slot */
    assert_true(fabs(x.cost[0].lora_s - 0.2) < 1e-6);
    send_to(&pin[3], 0, BASE + 3); /* none left */
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    send_to(&pin[4], 0, BASE + 3); /* waits behind the other one */
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    end(&pin[2]); /* 2 leaves: 3 has its slot */
    send_to(&pin[5], 0, BASE + 3);
    assert_true(x.cost[0].lora_s <= 0);
    send_to(&pin[6], 0, BASE + 2);
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    end(&pin[6]);
    end(&pin[0]);
    send_to(&pin[7], 0, BASE + 1); /* one of two has ended: still in use */
    assert_true(x.cost[0].lora_s <= 0);
    for (uint32_t k = 1; k < 8; k++)
        if (k != 2 && k != 6)
            end(&pin[k]);
    send_to(&pin[0], 0, BASE + 1); /* used last: still on the GPU */
    assert_true(x.cost[0].lora_s <= 0);
    end(&pin[0]);
    send_to(&pin[0], 0, BASE + 5); /* throws out another one */
    assert_true(fabs(x.cost[0].lora_s - 0.3) < 1e-6);
    end(&pin[0]);
    sched_free(s);
}

/* As the engine: the max_loras used last stay. */
static void test_least_recently_used_goes(void **state)
{
    (void)state;
    start(1, 6);
    slots(3);
    static const uint64_t uses[] = {1, 2, 3, 1, 4};
    for (size_t k = 0; k < ARRAY_LEN(uses); k++) {
        send_to(&pin[0], 0, BASE + uses[k]);
        end(&pin[0]);
    }
    static const double want[] = {0, 0.3, 0, 0}; /* 3 1 4 are there */
    for (uint32_t k = 1; k <= 4; k++) {
        send_to(&pin[0], 0, BASE + (k == 2 ? 2 : k));
        if (fabs(x.cost[0].lora_s - want[k - 1]) > 1e-6 && k <= 2)
            fail_msg("adapter %u: %g", k, x.cost[0].lora_s);
        end(&pin[0]);
    }
    sched_free(s);
}

static void test_scrape_tells_of_others(void **state)
{
    (void)state;
    static const uint64_t one[] = {BASE + 1}, two[] = {BASE + 1, BASE + 2};
    start(1, 6);
    scrape(0, 2, one, 1, NULL, 0);
    send_to(&pin[0], 0, BASE + 1); /* somebody else uses it */
    assert_true(x.cost[0].lora_s <= 0);
    end(&pin[0]);
    scrape(0, 2, one, 1, &two[1], 1); /* loading, or about to: takes a slot */
    send_to(&pin[0], 0, BASE + 2);
    assert_true(x.cost[0].lora_s <= 0);
    send_to(&pin[1], 0, BASE + 3);
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    end(&pin[0]);
    end(&pin[1]);
    now += 3 * SEC;
    scrape(0, 2, NULL, 0, NULL, 0); /* all gone: who was there is still loaded */
    send_to(&pin[0], 0, BASE + 3);
    assert_true(x.cost[0].lora_s < 1);
    end(&pin[0]);
    scrape(0, 2, two, 2, NULL, 0);
    send_to(&pin[0], 0, BASE + 4);
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    end(&pin[0]);
    now += 6 * SEC; /* older than stale_us: what it said of others counts no more */
    sched_tick(s, now);
    send_to(&pin[0], 0, BASE + 4);
    assert_true(x.cost[0].lora_s < 1);
    end(&pin[0]);
    sched_free(s);
}

/* Scrapes are late: what they show of our own requests is no news. */
static void test_own_ledger_wins(void **state)
{
    (void)state;
    static const uint64_t two[] = {BASE + 1, BASE + 2};
    start(1, 6);
    slots(2);
    send_to(&pin[0], 0, BASE + 1);
    send_to(&pin[1], 0, BASE + 2);
    end(&pin[0]);
    end(&pin[1]);
    scrape(0, 2, two, 2, NULL, 0); /* measured before they ended */
    send_to(&pin[0], 0, BASE + 3);
    assert_true(fabs(x.cost[0].lora_s - 0.3) < 1e-6);
    scrape(0, 2, NULL, 0, NULL, 0); /* measured before this one came */
    send_to(&pin[1], 0, BASE + 3);
    assert_true(x.cost[0].lora_s <= 0);
    end(&pin[0]);
    end(&pin[1]);
    now += 5 * SEC; /* ours ended long ago: somebody else's */
    scrape(0, 2, two, 2, NULL, 0);
    send_to(&pin[0], 0, BASE + 3);
    assert_true(fabs(x.cost[0].lora_s - 2) < 1e-6);
    end(&pin[0]);
    sched_free(s);
}

/* A server that lists no adapters, or whose list has no parents: the names in its metrics are adapters. */
static void test_known_from_scrape_alone(void **state)
{
    (void)state;
    static const uint64_t one[] = {BASE + 1};
    start(2, 0);
    slots(1);
    COSTS(0, BASE + 1, 0);
    scrape(0, 1, one, 1, NULL, 0);
    struct sched_req r;
    send_to(&r, 0, BASE + 1);
    assert_true(x.cost[0].lora_s <= 0);
    end(&r);
    send_to(&r, 0, BASE + 2); /* not known to be an adapter */
    assert_true(x.cost[0].lora_s <= 0);
    end(&r);
    sched_free(s);
}

/* A new endpoint without metrics yet is no better than one with a free slot. */
static void test_silent_endpoint(void **state)
{
    (void)state;
    start(2, 4);
    scrape(0, 2, NULL, 0, NULL, 0);
    send_to(&pin[0], 0, BASE + 3);
    COSTS(1, BASE + 1, 0.2);
    COSTS(1, BASE + 3, 0.2);
    COSTS(0, BASE + 3, 0);
    end(&pin[0]);
    sched_free(s);
}

static void test_unloaded_and_restarted(void **state)
{
    (void)state;
    start(2, 4);
    slots(1);
    send_to(&pin[0], 0, BASE + 4);
    end(&pin[0]);
    COSTS(1, BASE + 4, 0.2);
    models(0, 3); /* 4 is unloaded there */
    send_to(&pin[0], 0, BASE + 1);
    assert_true(fabs(x.cost[0].lora_s - 0.2) < 1e-6); /* its slot is free */
    end(&pin[0]);
    struct sched_req r;
    send_to(&r, 0, BASE + 1);
    assert_true(x.cost[0].lora_s <= 0);
    now += 1000;
    sched_finish(s, &r, OUT_RESET, NULL, now); /* ejected; comes back as another process */
    sched_ep_probe(s, ep[0], true, now + 1, now + 2);
    now += 20 * SEC;
    sched_tick(s, now);
    slots(1);
    send_to(&r, 0, BASE + 1);
    assert_true(fabs(x.cost[0].lora_s - 0.2) < 1e-6);
    end(&r);
    sched_ep_remove(s, ep[0], now);
    ep[0] = sched_ep_add(s, NULL, false, now);
    models(0, 4);
    slots(1);
    send_to(&r, 0, BASE + 1);
    assert_true(fabs(x.cost[0].lora_s - 0.2) < 1e-6);
    sched_ep_remove(s, ep[0], now); /* with its request in flight */
    end(&r);
    sched_free(s);
}

static void test_parameters_change(void **state)
{
    (void)state;
    start(1, 4);
    slots(1);
    COSTS(0, BASE + 1, 0.2);
    p.lora_load_s = 0.7;
    sched_set_params(s, &p, now);
    send_to(&pin[0], 0, BASE + 2);
    assert_true(fabs(x.cost[0].lora_s - 1.05) < 1e-6); /* 1 was used before */
    p.lora_wait_s = 9;
    sched_set_params(s, &p, now);
    send_to(&pin[1], 0, BASE + 3);
    assert_true(fabs(x.cost[0].lora_s - 9) < 1e-6);
    end(&pin[0]);
    end(&pin[1]);
    sched_free(s);
}

/* More adapters than the list holds, all in use: those beyond are not counted, nothing else is lost. */
static void test_many_adapters(void **state)
{
    (void)state;
    static struct sched_req many[100];
    start(1, 100);
    slots(80);
    for (uint32_t k = 0; k < 100; k++)
        send_to(&many[k], 0, BASE + 1 + k);
    for (uint32_t k = 0; k < 100; k++)
        end(&many[k]);
    slots(2);
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t k = 0; k < 100; k++) {
            send_to(&many[0], 0, BASE + 1 + k);
            if (round && fabs(x.cost[0].lora_s - 0.3) > 1e-6)
                fail_msg("round %u, adapter %u: %g", round, k, x.cost[0].lora_s);
            end(&many[0]);
        }
    sched_free(s);
}

/* The cost columns follow changes at single endpoints; they agree with what a fresh scheduler would say. */
static void test_columns_follow(void **state)
{
    (void)state;
    static struct sched_req r[200];
    struct rng rng;
    rng_init(&rng, 3);
    start(MAX_EPS, 90); /* more than there are columns */
    slots(3);
    for (uint32_t k = 0; k < 20000; k++) {
        struct sched_req *q = &r[rng_below(&rng, ARRAY_LEN(r))];
        if (q->model)
            end(q);
        q->model = 0;
        uint64_t model = BASE + 1 + rng_below(&rng, rng_below(&rng, 10) ? 6 : 90);
        uint32_t to = (uint32_t)rng_below(&rng, MAX_EPS);
        send_to(q, to, model);
        struct sched_explain had = x;
        if (k > 2000 && k % 50 == 0) { /* everything computed anew; by now slots are short, and stay so */
            sched_set_params(s, &p, now);
            struct sched_req same = {.prompt_bytes = 400, .n_outputs = 1, .model = model, .pinned = ep[to], .explain = &x};
            end(q);
            q->model = 0;
            assert_int_equal(sched_submit(s, &same, now), SCHED_PICKED);
            for (uint32_t i = 0; i < x.n; i++)
                if (i != to && fabs(x.cost[i].lora_s - had.cost[i].lora_s) > 1e-6)
                    fail_msg("after %u: endpoint %u costs %g, believed %g", k, i, x.cost[i].lora_s, had.cost[i].lora_s);
            sched_finish(s, &same, OUT_OK, NULL, now);
        }
        if (k % 97 == 0)
            slots(1 + (uint32_t)rng_below(&rng, 4));
    }
    for (uint32_t k = 0; k < ARRAY_LEN(r); k++)
        if (r[k].model)
            end(&r[k]);
    sched_free(s);
}

/* ---- queueing ---- */

static enum sched_answer ask(struct sched_req *r, uint64_t model)
{
    *r = (struct sched_req){.prompt_bytes = 400, .n_outputs = 1, .streamed = true, .model = model, .explain = &x};
    return sched_submit(s, r, now);
}

/* All slots in use: an adapter waits for one, others and the base pass. */
static void test_waits_for_a_slot(void **state)
{
    (void)state;
    struct sched_req third, second, base, pinned = {.prompt_bytes = 400, .n_outputs = 1, .model = BASE + 3};
    start(2, 4);
    slots(1);
    p.queueing = true;
    sched_set_params(s, &p, now);
    send_to(&pin[0], 0, BASE + 1);
    send_to(&pin[1], 1, BASE + 2);
    assert_int_equal(ask(&third, BASE + 3), SCHED_QUEUED);
    pinned.pinned = ep[0];
    assert_int_equal(sched_submit(s, &pinned, now), SCHED_QUEUED);
    assert_int_equal(ask(&base, BASE), SCHED_PICKED);
    assert_int_equal(ask(&second, BASE + 2), SCHED_PICKED);
    assert_int_equal(second.d.ep.slot, ep[1].slot);
    uint32_t n_slots = 0;
    for (uint32_t i = 0; i < x.n; i++)
        n_slots += x.cost[i].skip == SKIP_LORA_SLOTS;
    assert_int_equal(n_slots, 1); /* at the other one */
    assert_null(sched_next_decided(s));
    end(&pin[1]);
    assert_null(sched_next_decided(s)); /* the second of its requests still runs */
    end(&second);
    assert_ptr_equal(sched_next_decided(s), &third);
    assert_int_equal(third.d.ep.slot, ep[1].slot);
    assert_null(sched_next_decided(s));
    end(&pin[0]);
    assert_ptr_equal(sched_next_decided(s), &pinned);
    end(&pinned);
    end(&third);
    end(&base);
    sched_free(s);
}

/* A scrape, too, can say that a slot is free again. */
static void test_scrape_frees_a_slot(void **state)
{
    (void)state;
    static const uint64_t one[] = {BASE + 1};
    struct sched_req r;
    start(1, 4);
    p.queueing = true;
    sched_set_params(s, &p, now);
    scrape(0, 1, one, 1, NULL, 0);
    assert_int_equal(ask(&r, BASE + 2), SCHED_QUEUED);
    now += SEC;
    scrape(0, 1, one, 1, NULL, 0);
    assert_null(sched_next_decided(s));
    now += SEC;
    scrape(0, 1, NULL, 0, NULL, 0);
    assert_ptr_equal(sched_next_decided(s), &r);
    end(&r);
    sched_free(s);
}

/* Requests of one adapter overlap for ever; another waits. After lora_wait_s the first gets no more of them until the other had its turn, and so on:
 * both are served. Nothing stays when nobody waits any more. */
static void test_slots_are_shared_in_time(void **state)
{
    (void)state;
    static struct sched_req r[400];
    static uint64_t end_us[400], picked_us[400];
    enum { A = BASE + 1, B = BASE + 2 };
    start(1, 4);
    slots(1);
    p.queueing = true;
    p.queue_ttl_us = 60 * SEC;
    sched_set_params(s, &p, now);
    uint64_t begin = now;
    memset(r, 0, sizeof(r));
    for (uint32_t tick = 0; tick < 1200; tick++) { /* of 100 ms; two requests a second of each, one second long */
        uint32_t k = tick / 5 * 2;
        now = begin + tick * (SEC / 10);
        sched_tick(s, now);
        scrape(0, 1, NULL, 0, NULL, 0);
        for (uint32_t i = 0; i < 400; i++)
            if (end_us[i] && end_us[i] <= now) {
                sched_finish(s, &r[i], OUT_OK, NULL, now);
                end_us[i] = 0;
            }
        for (uint32_t i = k; tick % 5 == 0 && i < k + 2 && i < 400; i++)
            if (ask(&r[i], i % 2 ? B : A) == SCHED_PICKED) {
                picked_us[i] = now;
                end_us[i] = now + SEC;
            }
        for (struct sched_req *d; (d = sched_next_decided(s));) {
            assert_int_equal(d->d.reject, REJECT_NONE);
            picked_us[d - r] = now;
            end_us[d - r] = now + SEC;
        }
    }
    uint32_t late = 0;
    for (uint32_t i = 0; i < 400; i++) {
        assert_true(picked_us[i]);
        late = MAX(late, (uint32_t)((picked_us[i] - (begin + i / 2 * (SEC / 2))) / 1000));
    }
    print_message("longest wait for a slot %u ms\n", late);
    assert_in_range(late, 2000, 5000);
    sched_free(s);
}

/* A claimant that leaves, or is served elsewhere, blocks nobody. */
static void test_claims_end(void **state)
{
    (void)state;
    struct sched_req a, b, more;
    start(2, 4);
    slots(1);
    p.queueing = true;
    sched_set_params(s, &p, now);
    send_to(&pin[0], 0, BASE + 1);
    send_to(&pin[1], 0, BASE + 1);
    send_to(&a, 1, BASE + 2);
    assert_int_equal(ask(&b, BASE + 3), SCHED_QUEUED);
    for (int i = 0; i < 30; i++) {
        now += SEC / 10;
        sched_tick(s, now);
    }
    assert_int_equal(ask(&more, BASE + 2), SCHED_QUEUED); /* has to give way: it has the fewest requests there */
    sched_cancel(s, &b, now);
    assert_null(sched_next_decided(s));
    for (int i = 0; i < 15; i++) {
        now += SEC / 10;
        sched_tick(s, now);
    }
    assert_ptr_equal(sched_next_decided(s), &more);
    end(&more);
    assert_int_equal(ask(&b, BASE + 3), SCHED_QUEUED);
    for (int i = 0; i < 30; i++) {
        now += SEC / 10;
        sched_tick(s, now);
    }
    end(&pin[0]);
    end(&pin[1]); /* a slot at the other server */
    assert_ptr_equal(sched_next_decided(s), &b);
    assert_int_equal(b.d.ep.slot, ep[0].slot);
    assert_int_equal(ask(&more, BASE + 2), SCHED_PICKED);
    end(&more);
    end(&a);
    end(&b);
    sched_free(s);
}

/* ---- pools of engines ---- */

#define JOBS 4096
struct job {
    struct sched_req r;
    uint32_t server;
    uint64_t came_us;
    bool busy;
};
struct mix { /* a load: requests per second, the share of each adapter; the rest is for the base */
    uint32_t n_servers, max_loras, n_adapters;
    double rate, share;
};
struct result {
    uint64_t loads, served[MAX_EPS];
    double ttft_s, imbalance, distinct; /* imbalance: max / mean of requests served; distinct: adapters with at
                                         * least 5 % of a server's requests, mean */
};
static struct engine *engines[MAX_EPS];
static struct job jobs[JOBS];
static double ttft_sum;
static uint64_t ttft_n;

static void on_token(void *ctx, const struct engine_event *ev)
{
    struct job *j = ev->user;
    (void)ctx;
    now = ev->at_us;
    if (ev->index == 0) {
        sched_first_token(s, &j->r, now);
        ttft_sum += (double)(now - j->came_us) * 1e-6;
        ttft_n++;
    }
    if (!ev->finished)
        return;
    struct sched_usage u = {.prompt_tokens = 200, .completion_tokens = ev->index + 1};
    sched_finish(s, &j->r, OUT_OK, &u, now);
    j->busy = false;
}

static void scrape_engine(uint32_t i, const struct mix *m)
{
    struct engine_stats es;
    engine_stats(engines[i], false, &es);
    struct ep_load l = {.sent_us = now - 2000, .done_us = now, .has_waiting = true, .has_running = true, .has_kv = true,
                        .waiting = es.waiting, .running = es.running, .kv_frac = es.kv_usage_frac, .max_lora = m->max_loras};
    for (uint32_t k = 1; k <= m->n_adapters; k++) {
        uint32_t run, wait;
        engine_lora(engines[i], k, &run, &wait);
        if (run && l.n_running_lora < ARRAY_LEN(l.running_lora))
            l.running_lora[l.n_running_lora++] = BASE + k;
        if (wait && l.n_waiting_lora < ARRAY_LEN(l.waiting_lora))
            l.waiting_lora[l.n_waiting_lora++] = BASE + k;
    }
    sched_ep_load(s, ep[i], &l, now);
}

static void arrive(struct rng *rng, const struct mix *m, struct result *out, uint32_t seen[MAX_EPS][16])
{
    uint32_t tokens[200], adapter = 0, k = 0;
    double u = rng_unit(rng);
    if (u < m->share * m->n_adapters)
        adapter = 1 + (uint32_t)(u / m->share);
    while (k < JOBS && jobs[k].busy)
        k++;
    assert_true(k < JOBS);
    struct job *j = &jobs[k];
    for (uint32_t i = 0; i < ARRAY_LEN(tokens); i++)
        tokens[i] = (uint32_t)rng_u64(rng);
    *j = (struct job){.came_us = now, .busy = true};
    j->r = (struct sched_req){.prompt_bytes = 800, .n_outputs = 1, .streamed = true, .model = BASE + adapter};
    assert_int_equal(sched_submit(s, &j->r, now), SCHED_PICKED);
    while (ep[j->server].slot != j->r.d.ep.slot)
        j->server++;
    out->served[j->server]++;
    seen[j->server][adapter]++;
    assert_non_null(engine_submit(engines[j->server],
                                  &(struct engine_req){.tokens = tokens, .n_tokens = 200, .out_len = 30 + (uint32_t)rng_below(rng, 40), .lora = adapter, .user = j},
                                  now));
}

static struct result run_pool(const struct mix *m, bool aware, uint64_t seed)
{
    static uint32_t seen[MAX_EPS][16];
    struct profile pr;
    struct errbuf err;
    struct rng rng;
    struct result out = {0};
    rng_init(&rng, seed);
    memset(seen, 0, sizeof(seen));
    ttft_sum = 0;
    ttft_n = 0;
    start(m->n_servers, m->n_adapters);
    if (!aware) {
        p.lora_load_s = p.lora_wait_s = 0;
        sched_set_params(s, &p, now);
    }
    assert_int_equal(profile_find(&(struct profile_query){.name = STR("h100-qwen3-32b")}, &pr, &err), 0);
    struct engine_params e = {.time = pr.time, .block_size = 16, .n_blocks = (uint32_t)(pr.kv_tokens / 16), .max_num_seqs = pr.max_num_seqs,
                              .max_batched_tokens = pr.max_batched_tokens, .max_loras = m->max_loras, .max_cpu_loras = 16, .lora_load_s = 0.05,
                              .lora_read_s = 0.15, .prefix_caching = true, .jitter = true, .seed = seed};
    for (uint32_t i = 0; i < m->n_servers; i++) {
        e.seed = seed * 100 + i;
        engines[i] = engine_new(&e);
    }
    uint64_t until = now + 120 * SEC, next = now, next_scrape = now;
    while (next < until || ttft_n == 0) {
        uint64_t at = MIN(next, next_scrape), t;
        uint32_t first = MAX_EPS;
        for (uint32_t i = 0; i < m->n_servers; i++)
            if ((t = engine_next(engines[i], now)) < at) {
                at = t;
                first = i;
            }
        now = MAX(now, at);
        if (first < MAX_EPS) {
            engine_advance(engines[first], now, on_token, NULL);
        } else if (next_scrape <= now) {
            for (uint32_t i = 0; i < m->n_servers; i++)
                scrape_engine(i, m);
            sched_tick(s, now);
            next_scrape += SEC;
        } else {
            arrive(&rng, m, &out, seen);
            next += (uint64_t)(-log(1 - rng_unit(&rng)) / m->rate * 1e6);
        }
    }
    for (uint32_t i = 0; i < m->n_servers; i++) { /* the rest */
        for (uint64_t t; (t = engine_next(engines[i], now)) != UINT64_MAX;)
            engine_advance(engines[i], t, on_token, NULL);
        struct engine_stats es;
        engine_stats(engines[i], true, &es);
        assert_int_equal(es.running + es.waiting, 0);
        out.loads += es.lora_loads;
        engine_free(engines[i]);
    }
    double sum = 0, most = 0;
    for (uint32_t i = 0; i < m->n_servers; i++) {
        sum += (double)out.served[i];
        most = MAX(most, (double)out.served[i]);
        for (uint32_t k = 1; k <= m->n_adapters; k++)
            out.distinct += (seen[i][k] * 20 >= out.served[i]) / (double)m->n_servers;
    }
    out.imbalance = most * m->n_servers / sum;
    out.ttft_s = ttft_sum / (double)ttft_n;
    struct sched_stats st;
    sched_stats(s, now, &st);
    assert_int_equal(st.inflight, 0);
    sched_free(s);
    return out;
}

static void compare(const char *what, const struct mix *m, double max_imbalance, double max_loads, double max_distinct)
{
    double loads[2] = {0}, ttft[2] = {0}, distinct[2] = {0}, worst = 0;
    enum { SEEDS = 5 };
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (int aware = 0; aware < 2; aware++) {
            struct result r = run_pool(m, aware, seed);
            loads[aware] += (double)r.loads / SEEDS;
            ttft[aware] += r.ttft_s / SEEDS;
            distinct[aware] += r.distinct / SEEDS;
            if (aware)
                worst = MAX(worst, r.imbalance);
        }
    print_message("%s: loads %.1f (unaware %.1f), mean TTFT %.0f ms (%.0f), adapters per server %.1f (%.1f), max/mean %.2f\n", what, loads[1], loads[0],
                  ttft[1] * 1e3, ttft[0] * 1e3, distinct[1], distinct[0], worst);
    assert_true(loads[1] <= max_loads * loads[0]);
    assert_true(worst <= max_imbalance);
    assert_true(distinct[1] <= max_distinct);
    assert_true(ttft[1] <= ttft[0] * 1.02);
}

/* The document's pool: 5 servers, 2 slots, the base and two adapters. Nothing has to be thrown out, so little is at stake. */
static void test_two_adapters(void **state)
{
    (void)state;
    compare("2 adapters + base, 5 x 2 slots, 8/s", &(struct mix){5, 2, 2, 8, 0.2}, 1.3, 0.8, 1.6);
    compare("2 adapters + base, 5 x 2 slots, 40/s", &(struct mix){5, 2, 2, 40, 0.2}, 1.2, 0.8, 1.6);
    compare("2 adapters alone, 5 x 2 slots, 40/s", &(struct mix){5, 2, 2, 40, 0.5}, 1.2, 0.8, 1.6);
}

/* As many adapters as slots in the whole pool. */
static void test_eight_adapters(void **state)
{
    (void)state;
    compare("8 adapters, 4 x 2 slots, 8/s", &(struct mix){4, 2, 8, 8, 0.125}, 1.3, 0.05, 2.5);
    compare("8 adapters, 4 x 2 slots, 24/s", &(struct mix){4, 2, 8, 24, 0.125}, 1.2, 0.1, 2.5);
    compare("8 adapters + base, 4 x 2 slots, 24/s", &(struct mix){4, 2, 8, 24, 0.06}, 1.2, 0.05, 2.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_costs_nothing),
        cmocka_unit_test(test_costs_by_place),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_scrape_tells_of_others),
        cmocka_unit_test(test_own_ledger_wins),
        cmocka_unit_test(test_known_from_scrape_alone),
        cmocka_unit_test(test_silent_endpoint),
        cmocka_unit_test(test_unloaded_and_restarted),
        cmocka_unit_test(test_parameters_change),
        cmocka_unit_test(test_many_adapters),
        cmocka_unit_test(test_columns_follow),
        cmocka_unit_test(test_waits_for_a_slot),
        cmocka_unit_test(test_scrape_frees_a_slot),
        cmocka_unit_test(test_slots_are_shared_in_time),
        cmocka_unit_test(test_claims_end),
        cmocka_unit_test(test_two_adapters),
        cmocka_unit_test(test_eight_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
