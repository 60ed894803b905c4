/* The ring of latest decisions: bounded, newest first, ends that come late, several writers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "sched/decisions.h"
#include <math.h>
#include <pthread.h>

struct seen {
    unsigned n, ended, limit;
    char ids[64][DECISION_TEXT];
    unsigned status[64];
};

static bool see(void *ctx, const struct decision *d)
{
    struct seen *s = ctx;
    if (s->n < 64) {
        memcpy(s->ids[s->n], d->request_id, sizeof d->request_id);
        s->status[s->n] = d->end.status;
    }
    s->ended += d->ended;
    return ++s->n != s->limit;
}

static uint64_t put(struct decisions *ds, unsigned i)
{
    struct decision d = {.attempt = 1};
    snprintf(d.request_id, sizeof d.request_id, "rq-%u", i);
    return decisions_put(ds, &d);
}

static void test_keeps_the_latest(void **state UNUSED)
{
    struct decisions *ds = decisions_new(10);
    struct seen s = {0};
    decisions_each(ds, see, &s);
    assert_int_equal(s.n, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_not_equal(put(ds, i), 0);
    decisions_each(ds, see, &s);
    assert_int_equal(s.n, 4);
    for (unsigned i = 4; i < 25; i++)
        put(ds, i);
    s = (struct seen){0};
    decisions_each(ds, see, &s);
    assert_int_equal(s.n, 10);
    assert_string_equal(s.ids[0], "rq-24");
    assert_string_equal(s.ids[9], "rq-15");
    s = (struct seen){.limit = 3};
    decisions_each(ds, see, &s);
    assert_int_equal(s.n, 3);
    assert_int_equal(decisions_made(ds), 25);
    assert_int_equal(decisions_capacity(ds), 10);
    decisions_free(ds);
}

static void test_ends(void **state UNUSED)
{
    struct decisions *ds = decisions_new(3);
    uint64_t first = put(ds, 0), second = put(ds, 1);
    struct decision e = {.ended = true, .end = {.status = 200, .ttft_s = 0.5}};
    assert_true(decisions_end(ds, first, &e));
    struct seen s = {0};
    decisions_each(ds, see, &s);
    assert_int_equal(s.ended, 1);
    assert_string_equal(s.ids[1], "rq-0");
    assert_int_equal(s.status[1], 200);
    assert_int_equal(s.status[0], 0);
    for (unsigned i = 2; i < 5; i++)
        put(ds, i);
    assert_false(decisions_end(ds, second, &e)); /* its place is taken, and stays as it is */
    s = (struct seen){0};
    decisions_each(ds, see, &s);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.ended, 0);
    decisions_free(ds);
}

static void test_fill(void **state UNUSED)
{
    struct decision d = {0};
    struct sched_explain x = {.n = 2, .n_endpoints = 30, .n_candidates = 7, .reason = REASON_PREFIX_HOLDER};
    x.cost[0] = (struct sched_cost){.ep = {3, 9}, .total_s = 0.25, .cached_tokens = 100, .matched_bytes = 400};
    x.cost[1] = (struct sched_cost){.ep = {4, 9}, .skip = SKIP_EJECTED, .total_s = (double)INFINITY};
    struct sched_decision is = {
        .reason = REASON_PREFIX_HOLDER, .cost_s = 0.25, .ttft_s = 0.1, .queued_us = 5, .n_candidates = 7};
    decision_fill(&d, &is, &x);
    assert_int_equal(d.n_rows, 2);
    assert_int_equal(d.n_endpoints, 30);
    assert_int_equal(d.n_candidates, 7);
    assert_int_equal(d.rows[0].ep.slot, 3);
    assert_true(d.rows[0].total_s == 0.25f && d.rows[0].cached_tokens == 100);
    assert_int_equal(d.rows[0].matched_bytes, 400);
    assert_int_equal(d.rows[1].skip, SKIP_EJECTED);
    decision_fill(&d, &is, NULL);
    assert_int_equal(d.n_rows, 0);
}

static void test_fill_leg(void **state UNUSED)
{
    struct decision_leg l = {.split = true};
    struct sched_explain x = {.n = 2, .n_endpoints = 20, .n_candidates = 5};
    x.cost[0] = (struct sched_cost){.ep = {1, 2}, .total_s = 0.5, .transfer_s = 0.25, .answer_s = 0.125};
    x.cost[1] = (struct sched_cost){.ep = {2, 2}, .skip = SKIP_TRIED};
    struct sched_decision is = {.cost_s = 0.75, .split_s = 0.75, .local_s = (double)INFINITY};
    struct sched_decision leg = {.reason = REASON_PREFIX_HOLDER, .cost_s = 0.5, .ttft_s = 0.25, .matched_bytes = 640};
    decision_fill_leg(&l, &is, &leg, &x);
    assert_true(l.split && l.split_s == 0.75 && isinf(l.local_s) && l.cost_s == 0.5 && l.ttft_s == 0.25);
    assert_int_equal(l.reason, REASON_PREFIX_HOLDER);
    assert_int_equal(l.matched_bytes, 640);
    assert_true(l.n_rows == 2 && l.n_endpoints == 20 && l.n_candidates == 5);
    assert_true(l.rows[0].transfer_s == 0.25f && l.rows[0].answer_s == 0.125f && l.rows[0].ep.slot == 1);
    assert_int_equal(l.rows[1].skip, SKIP_TRIED);
    decision_fill_leg(&l, &is, &leg, NULL);
    assert_true(l.n_rows == 0 && l.n_endpoints == 0);
}

struct legs {
    unsigned n, with;
    char at[64][DECISION_TEXT]; /* "" without one */
    double prefill_s[64];
};

static bool see_leg(void *ctx, const struct decision *d)
{
    struct legs *s = ctx;
    s->at[s->n][0] = 0;
    if (d->leg)
        memcpy(s->at[s->n], d->leg->endpoint, DECISION_TEXT);
    s->prefill_s[s->n] = d->end.prefill_s;
    s->with += d->leg != NULL;
    return ++s->n < 64;
}

static uint64_t put_split(struct decisions *ds, unsigned i)
{
    struct decision_leg l = {.split = true};
    struct decision d = {.attempt = 1, .leg = &l};
    snprintf(l.endpoint, sizeof l.endpoint, "prefill-%u", i);
    uint64_t ticket = decisions_put(ds, &d);
    memset(&l, 0xff, sizeof l); /* the ring has a copy */
    return ticket;
}

/* The leg is the ring's own, goes with its decision, and is no other's when the place is taken again. */
static void test_legs(void **state UNUSED)
{
    struct decisions *ds = decisions_new(3);
    uint64_t first = put_split(ds, 0);
    put(ds, 1);
    put_split(ds, 2);
    struct decision e = {.ended = true, .end = {.status = 200, .prefill_s = 0.5}};
    assert_true(decisions_end(ds, first, &e));
    struct legs s = {0};
    decisions_each(ds, see_leg, &s);
    assert_true(s.n == 3 && s.with == 2);
    assert_string_equal(s.at[0], "prefill-2");
    assert_string_equal(s.at[1], "");
    assert_string_equal(s.at[2], "prefill-0");
    assert_true(s.prefill_s[2] == 0.5 && s.prefill_s[0] == 0);
    put(ds, 3);
    put_split(ds, 4);
    s = (struct legs){0};
    decisions_each(ds, see_leg, &s);
    assert_true(s.n == 3 && s.with == 2);
    assert_string_equal(s.at[0], "prefill-4");
    assert_string_equal(s.at[1], "");
    assert_string_equal(s.at[2], "prefill-2");
    decisions_free(ds);
}

static void test_text_is_cut_at_a_character(void **state UNUSED)
{
    char out[DECISION_TEXT], in[400];
    for (size_t i = 0; i + 1 < sizeof in; i += 2)
        memcpy(in + i, "\xc3\xa9", 2);
    decision_text(out, (struct str){in, sizeof in});
    assert_int_equal(strlen(out), DECISION_TEXT - 2); /* 127 would be half a character */
    decision_text(out, (struct str){in, 4});
    assert_string_equal(out, "\xc3\xa9\xc3\xa9");
    decision_text(out, STR_NULL);
    assert_string_equal(out, "");
    memset(in, 0x80, sizeof in);
    decision_text(out, (struct str){in, sizeof in});
    assert_string_equal(out, "");
}

static void *writer(void *ctx)
{
    struct decisions *ds = ctx;
    struct decision e = {.ended = true, .end = {.status = 200}};
    for (unsigned i = 0; i < 5000; i++)
        decisions_end(ds, i % 2 ? put(ds, i) : put_split(ds, i), &e);
    return NULL;
}

static bool whole(void *ctx, const struct decision *d)
{
    unsigned *n = ctx, i;
    (*n)++;
    if (d->leg)
        assert_int_equal(sscanf(d->leg->endpoint, "prefill-%u", &i), 1);
    else
        assert_int_equal(sscanf(d->request_id, "rq-%u", &i), 1);
    assert_int_equal(d->attempt, 1);
    return true;
}

static void test_several_writers(void **state UNUSED)
{
    struct decisions *ds = decisions_new(50);
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, writer, ds), 0);
    for (int i = 0; i < 50; i++) {
        unsigned n = 0;
        decisions_each(ds, whole, &n);
        assert_true(n <= 50);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    unsigned n = 0;
    decisions_each(ds, whole, &n);
    assert_int_equal(n, 50);
    assert_int_equal(decisions_made(ds), 15000);
    decisions_free(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps_the_latest),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_fill_leg),
        cmocka_unit_test(test_legs),
        cmocka_unit_test(test_text_is_cut_at_a_character),
        cmocka_unit_test(test_several_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
