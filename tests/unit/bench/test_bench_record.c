/* A record of live traffic as a load: who counts, when they came, how long they were, what they share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/dataset.h"
#include "core/journal.h"

static struct buf text;

static struct journal *line(enum journal_type t, uint64_t us, uint64_t req)
{
    static struct journal j;
    memset(&j, 0, sizeof j);
    j.type = t;
    j.now_us = us;
    j.req = req;
    return &j;
}

static void begin(void)
{
    buf_init(&text, 1 << 24);
    struct journal *j = line(JOURNAL_HEAD, 0, 0);
    j->u.head.version = JOURNAL_VERSION;
    journal_put(&text, j);
    for (uint32_t i = 0; i < 2; i++) {
        j = line(JOURNAL_POOL, 0, 0);
        j->pool = i;
        j->u.pool_new.service = i == 1;
        sched_params_init(&j->u.pool_new.params);
        journal_put(&text, j);
    }
}

static struct journal *submit(uint64_t us, uint64_t req, uint64_t bytes)
{
    struct journal *j = line(JOURNAL_SUBMIT, us, req);
    j->u.submit.answer = SCHED_PICKED;
    j->u.submit.prompt_bytes = bytes;
    j->u.submit.n_outputs = 1;
    return j;
}

static void finish(uint64_t req, enum sched_outcome how, uint64_t prompt, uint64_t completion)
{
    struct journal *j = line(JOURNAL_FINISH, 9000000, req);
    j->u.finish.how = how;
    j->u.finish.has_usage = true;
    j->u.finish.usage.prompt_tokens = prompt;
    j->u.finish.usage.completion_tokens = completion;
    journal_put(&text, j);
}

static bool load(struct dataset *d, struct errbuf *err)
{
    struct dataset_opts o;
    dataset_opts_init(&o);
    o.kind = DATA_TRACE;
    o.path = "the record";
    *d = (struct dataset){0};
    d->file = text;
    bool ok = dataset_make(d, &o, err);
    return ok;
}

static void loaded(struct dataset *d)
{
    struct errbuf err = {{0}};
    if (!load(d, &err))
        fail_msg("%s", err.msg);
}

static void test_who_counts(void **state)
{
    (void)state;
    struct dataset d;
    begin();
    journal_put(&text, submit(1000000, 1, 4000));
    journal_put(&text, submit(1500000, 2, 400)); /* refused later */
    journal_put(&text, submit(1600000, 3, 400)); /* fails */
    journal_put(&text, submit(1700000, 4, 400)); /* tried again, then answered; no usage */
    journal_put(&text, submit(1800000, 5, 400)); /* its client leaves before the answer */
    journal_put(&text, submit(1900000, 6, 400)); /* its client leaves after the first token */
    journal_put(&text, submit(1950000, 7, 400)); /* under way at the end */
    struct journal *j = submit(2000000, 8, 400);
    j->u.submit.light = true;
    journal_put(&text, j);
    j = submit(2000000, 1, 400);
    j->pool = 1; /* a Service */
    journal_put(&text, j);
    j = line(JOURNAL_DECIDED, 0, 2);
    j->u.decided.reject = REJECT_QUEUE_TIMEOUT;
    journal_put(&text, j);
    finish(1, OUT_OK, 1000, 77);
    finish(3, OUT_RESET, 0, 0);
    finish(4, OUT_CONNECT_FAILED, 0, 0);
    j = submit(2500000, 4, 400);
    j->u.submit.again = true;
    journal_put(&text, j);
    finish(4, OUT_OK, 0, 0);
    finish(5, OUT_CANCELLED, 0, 0);
    journal_put(&text, line(JOURNAL_FIRST_TOKEN, 2600000, 6));
    finish(6, OUT_CANCELLED, 0, 0);
    finish(8, OUT_OK, 5, 5);
    buf_addf(&text, "{\"ev\":\"finish\",\"pool\":0,\"re"); /* cut */
    loaded(&d);
    assert_int_equal(d.n, 3);
    assert_true(d.at_s[0] == 0 && d.at_s[1] > 0.6999 && d.at_s[1] < 0.7001 && d.at_s[2] > 0.8999 && d.at_s[2] < 0.9001);
    assert_int_equal(d.v[0].input_tokens, 1000);
    assert_int_equal(d.v[0].output_tokens, 77);
    assert_int_equal(d.v[1].input_tokens, 100); /* by the bytes per token of the others */
    assert_int_equal(d.v[1].output_tokens, 1);
    assert_int_equal(d.left_out, 4);
    assert_string_equal(d.note, "4 requests of the record are left out (1 refused, 1 failed, 2 without an answer). 2 "
                                "answers did not tell their length and count as 1 token.");
    dataset_free(&d);
}

static uint64_t storage[PREFIX_MAX];
static char stream[100000];

static void prompt(uint64_t req, size_t n, size_t differs_from, uint32_t block_bytes, uint32_t max_fine)
{
    struct prefix_hashes h;
    for (size_t i = 0; i < n; i++)
        stream[i] = (char)('a' + i * i % 23);
    for (size_t i = differs_from; i < n; i++)
        stream[i] = (char)('A' + req % 20);
    prefix_hash((struct str){stream, n}, 1, block_bytes, max_fine, true, &h, storage, PREFIX_MAX);
    struct journal *j = submit(req * 1000, req, n);
    j->u.submit.has_hashes = true;
    j->u.submit.hashes = h;
    journal_put(&text, j);
    finish(req, OUT_OK, n / 5, 10); /* 5 bytes a token: an id is 102 tokens */
}

static uint32_t shared(const struct dataset *d, uint32_t a, uint32_t b)
{
    uint32_t n = 0;
    while (n < d->v[a].n_ids && n < d->v[b].n_ids && d->ids[d->v[a].ids_from + n] == d->ids[d->v[b].ids_from + n])
        n++;
    return n;
}

static void test_shared_ids(void **state)
{
    (void)state;
    struct dataset d;
    begin();
    prompt(1, 5000, 5000, 64, 128);
    prompt(2, 5000, 2600, 64, 128);   /* 5 ids of 512 in common */
    prompt(3, 8192, 8192, 64, 128);   /* 16 fine ids */
    prompt(4, 30000, 30000, 64, 128); /* and coarse ones, of 4 ids each */
    prompt(5, 30000, 20000, 64, 128); /* the same up to 8192 + 5 x 2048 */
    loaded(&d);
    assert_int_equal(d.block_tokens, 102);
    assert_int_equal(d.v[0].n_ids, 9);
    assert_int_equal(d.v[1].n_ids, 9);
    assert_int_equal(d.v[2].n_ids, 16);
    assert_int_equal(d.v[3].n_ids, 16 + (30000 - 8192) / 2048 * 4);
    assert_int_equal(shared(&d, 0, 1), 5);
    assert_int_equal(shared(&d, 0, 3), 9);
    assert_int_equal(shared(&d, 2, 3), 16);
    assert_int_equal(shared(&d, 3, 4), 16 + 20);
    assert_int_equal(d.v[0].own_tokens, 1000 - 9 * 102);
    dataset_free(&d);
    /* blocks that do not divide evenly, or are larger than an id */
    begin();
    prompt(1, 9000, 9000, 48, 7);
    prompt(2, 9000, 6000, 48, 7);
    loaded(&d);
    assert_int_equal(d.v[0].n_ids, (7 + (9000 / 48 - 7) / 32 * 32) / 10);
    assert_int_equal(shared(&d, 0, 1), (7 + (6000 / 48 - 7) / 32 * 32) / 10);
    dataset_free(&d);
    begin();
    prompt(1, 9000, 9000, 1024, 4);
    prompt(2, 9000, 2100, 1024, 4);
    loaded(&d);
    assert_int_equal(d.block_tokens, 205);
    assert_int_equal(d.v[0].n_ids, 4);
    assert_int_equal(shared(&d, 0, 1), 2);
    dataset_free(&d);
}

static void refused(const char *says)
{
    struct dataset d;
    struct errbuf err = {{0}};
    assert_false(load(&d, &err));
    if (!strstr(err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
    dataset_free(&d);
}

static void test_errors(void **state)
{
    (void)state;
    begin();
    refused("no request that was answered");
    begin();
    journal_put(&text, submit(1, 1, 10));
    refused("1 without an answer");
    begin();
    buf_addf(&text, "{\"ev\":\"submit\",\"req\":\"x\"}\n");
    refused("the record:4: \"req\" must be a whole number");
    begin();
    journal_put(&text, submit(1, 1, 10));
    journal_put(&text, submit(1, 1, 10));
    refused("the record:5: the request has come before");
    buf_init(&text, 1000);
    buf_addf(&text, "{\"penstock\":\"record\",\"version\":7}\n");
    refused("version 7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_counts),
        cmocka_unit_test(test_shared_ids),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
