/* Conversations that need more than all caches (conversation_hold), in a world: more turns a second with it, nobody is
 * held longer than the bound, and everybody ends once. */
#include "../base/unit.h"
#include "replay/world.h"

#include <stdlib.h>

#define BLOCK 512
#define S     1000000ull
#define USERS 30
#define TURNS 16
#define TALKS 400
#define STOP  600  /* seconds */
#define TICK  0.11

static const struct profile plain = {.name = "plain",
                                     .time = {.base = 0.010, .decode_seq = 0.001, .prefill_token = 0.0001},
                                     .kv_tokens = 160 * BLOCK,
                                     .max_num_seqs = 64,
                                     .max_batched_tokens = 2048,
                                     .max_model_len = 1u << 20};
static struct world_server servers[2];

/* Conversations of 6000 to 14000 tokens with pauses of 2 s. */
static void talks(struct dataset *d)
{
    *d = (struct dataset){0};
    dataset_seed(d, 1);
    for (uint64_t talk = 1; talk <= TALKS; talk++)
        for (uint32_t turn = 0; turn < TURNS; turn++) {
            size_t from = d->n_ids;
            uint32_t n = 12 + turn;
            for (uint32_t i = 0; i < n; i++)
                dataset_add_id(d, talk * 100000 + i);
            assert_non_null(dataset_add_prompt(d, n * BLOCK, 40, from, n));
            d->v[d->n - 1].turn = turn;
            d->v[d->n - 1].think_s = turn ? 2 : 0;
            d->n_conversations += turn == 0;
        }
}

struct seen {
    uint32_t turns, lost, refused;
    double longest_s;
};

static struct seen run(uint64_t hold_us, uint64_t seed)
{
    struct dataset d;
    struct world_params p;
    struct world_result r;
    struct seen seen = {0};
    talks(&d);
    world_init(&p);
    for (uint32_t k = 0; k < 2; k++)
        servers[k] = (struct world_server){.profile = plain};
    p.data = &d;
    p.block_tokens = BLOCK;
    p.policy = policy_find(str_c("prefix-cache"));
    p.servers = servers;
    p.n_servers = 2;
    p.users = USERS;
    p.ramp_s = 10;
    p.think_max_s = 60;
    p.stop_us = STOP * S;
    p.seed = seed;
    p.sched.queueing = true;
    p.sched.queue_ttl_us = 600 * S;
    p.sched.kv_threshold = 1;
    p.sched.conversation_hold_us = hold_us;
    world_run(&p, &r);
    assert_true(r.left < 1e-6);
    for (uint32_t i = 0; i < r.n; i++) {
        const struct world_request *q = &r.v[i];
        seen.turns += q->end == WORLD_OK;
        seen.lost += q->end == WORLD_LOST && q->at_s >= 0;
        seen.refused += q->end == WORLD_REFUSED || q->end == WORLD_FAILED;
        if (q->sent_s >= 0)
            seen.longest_s = MAX(seen.longest_s, q->sent_s - q->at_s);
        assert_true(q->end != WORLD_OK || q->tries == 1);
    }
    world_result_free(&r);
    dataset_free(&d);
    return seen;
}

static void more_turns(void **state)
{
    (void)state;
    const double bound_s = 60;
    uint32_t with = 0, without = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct seen off = run(0, seed), on = run((uint64_t)(bound_s * 1e6), seed);
        print_message("seed %u: turns %u without, %u with; longest wait %.2f and %.2f s\n", (unsigned)seed, off.turns,
                      on.turns, off.longest_s, on.longest_s);
        without += off.turns;
        with += on.turns;
        assert_true(on.longest_s <= bound_s + TICK + off.longest_s);
        assert_true(on.longest_s > bound_s / 4); /* somebody was held */
        assert_int_equal(off.refused + on.refused, 0);
        assert_true(on.lost <= USERS && off.lost <= USERS); /* under way at the end */
    }
    assert_true(with >= 1.2 * without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(more_turns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
