/* The journal: every kind of line reads back as it was written; what is damaged is refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "core/journal.h"

static struct rng rng;
static uint64_t hashes[PREFIX_MAX];
static struct sched_flow_weight weights[SCHED_MAX_FLOW_WEIGHTS];
static struct sched_model models[JOURNAL_MAX_MODELS];

static uint64_t any(void) /* of any size, 0 too */
{
    return rng_u64(&rng) >> rng_below(&rng, 65) % 64;
}

static uint32_t any32(void)
{
    return (uint32_t)(rng_u64(&rng) >> (32 + rng_below(&rng, 32)));
}

static bool flip(void)
{
    return rng_below(&rng, 2);
}

static double real(void)
{
    return flip() ? rng_unit(&rng) * 1e3 : (double)rng_below(&rng, 1000);
}

static struct ep_ref ref(void)
{
    return (struct ep_ref){any32(), any32()};
}

static void any_params(struct sched_params *p)
{
    sched_params_init(p);
    p->policy = (enum sched_policy)rng_below(&rng, N_SCHED_POLICIES);
    p->block_bytes = any32();
    p->max_blocks = (uint32_t)rng_below(&rng, PREFIX_MAX);
    p->deep = flip();
    p->lru_capacity = any();
    p->lru_by_memory = flip();
    p->conversation_hold_us = any();
    double *const d[] = {&p->step_s,          &p->prefill_s,   &p->quad_s,     &p->decode_s,       &p->ctx_s,
                         &p->bytes_per_token, &p->affinity,    &p->tie_band_s, &p->kv_threshold,   &p->lora_load_s,
                         &p->lora_wait_s,     &p->eject_share, &p->transfer_s, &p->transfer_base_s};
    for (size_t i = 0; i < ARRAY_LEN(d); i++)
        *d[i] = real();
    p->kv_tokens = any();
    p->step_tokens = any32();
    p->mean_output = any32();
    p->split_min_tokens = any32();
    p->queue_threshold = any32();
    p->stale_us = any();
    p->queueing = flip();
    p->queue_order = (enum sched_order)rng_below(&rng, 3);
    p->queue_late_us = any();
    p->queue_discard = (enum sched_discard)rng_below(&rng, 2);
    p->queue_bytes = any();
    p->queue_requests = any32();
    p->queue_ttl_us = any();
    p->early_refusal = (enum sched_early)rng_below(&rng, 3);
    p->prefix_wait_us = any();
    p->eject_us = any();
    p->eject_max_us = any();
    p->slow_start_us = any();
    p->learn_speed = flip();
    p->n_flow_weights = flip() ? 0 : (uint32_t)rng_below(&rng, SCHED_MAX_FLOW_WEIGHTS + 1);
    for (uint32_t i = 0; i < p->n_flow_weights; i++)
        weights[i] = (struct sched_flow_weight){any(), 0.001 + real()};
    p->flow_weights = p->n_flow_weights ? weights : NULL;
}

static void any_answer(struct journal_answer *a)
{
    a->reason = (enum sched_reason)rng_below(&rng, REASON_DRAINED + 1);
    a->matched_bytes = any();
    a->queued_us = any();
    a->no_prefill = flip();
    a->ep = ref();
}

static void any_submit(struct journal_submit *s)
{
    s->answer = (enum sched_answer)rng_below(&rng, 3);
    any_answer(&s->decided);
    s->decided.reject = s->answer == SCHED_REJECTED ? REJECT_SHED : REJECT_NONE;
    s->again = flip();
    s->light = flip();
    s->streamed = flip();
    s->priority = (int)any32();
    s->n_media = any32();
    s->n_outputs = any32();
    s->id = any();
    s->flow = any();
    s->ttl_us = any();
    s->prompt_bytes = any();
    s->prompt_token_ids = any();
    s->max_tokens = any();
    s->model = any();
    s->pinned = ref();
    s->n_tried = (uint32_t)rng_below(&rng, SCHED_MAX_TRIED + 1);
    for (uint32_t i = 0; i < s->n_tried; i++)
        s->tried[i] = ref();
    s->has_hashes = flip();
    if (!s->has_hashes)
        return;
    struct prefix_hashes *h = &s->hashes;
    h->block_bytes = 1 + any32() / 2;
    h->n = flip() ? 0 : (uint32_t)rng_below(&rng, PREFIX_MAX + 1);
    h->n_fine = (uint32_t)rng_below(&rng, h->n + 1);
    h->h = h->n ? hashes : NULL;
    for (uint32_t i = 0; i < h->n; i++)
        hashes[i] = any();
    h->n_ends = (uint32_t)rng_below(&rng, PREFIX_ENDS + 1);
    for (uint32_t i = 0; i < h->n_ends; i++)
        h->ends[i] = any();
    h->whole = flip();
}

static void any_load(struct ep_load *l)
{
    l->sent_us = any();
    l->done_us = any();
    l->has_waiting = flip();
    l->has_running = flip();
    l->has_kv = flip();
    l->has_blocks = flip();
    l->waiting = l->has_waiting ? real() : 0;
    l->running = l->has_running ? real() : 0;
    l->kv_frac = l->has_kv ? real() / 1e3 : 0;
    l->kv_mean = l->has_kv ? real() / 1e3 : 0;
    l->kv_tokens = any();
    l->block_tokens = any32();
    l->max_lora = any32();
    l->n_running_lora = (uint32_t)rng_below(&rng, 17);
    l->n_waiting_lora = (uint32_t)rng_below(&rng, 17);
    for (uint32_t i = 0; i < l->n_running_lora; i++)
        l->running_lora[i] = any();
    for (uint32_t i = 0; i < l->n_waiting_lora; i++)
        l->waiting_lora[i] = any();
}

static void any_models(struct journal *j)
{
    j->u.models.n = flip() ? 0 : (uint32_t)rng_below(&rng, 40);
    j->u.models.v = j->u.models.n ? models : NULL;
    memset(models, 0, sizeof models);
    for (uint32_t i = 0; i < j->u.models.n; i++) {
        models[i].name = any();
        models[i].adapter = flip();
    }
}

static void any_line(struct journal *j, enum journal_type t)
{
    memset(j, 0, sizeof *j);
    j->type = t;
    if (t == JOURNAL_HEAD) {
        j->u.head.version = JOURNAL_VERSION;
        j->u.head.started = STR("2026-11-21T12:00:00Z");
        j->u.head.program = STR("1.2.3");
        j->u.head.time_scale = 0.1;
        return;
    }
    j->pool = any32();
    j->now_us = any();
    if (t >= JOURNAL_EP_ADD && t <= JOURNAL_EP_ALIVE)
        j->ep = ref();
    if (t >= JOURNAL_SUBMIT && t <= JOURNAL_FINISH)
        j->req = any();
    switch (t) {
    case JOURNAL_POOL:
        j->u.pool_new.name = STR("a \"pool\"");
        j->u.pool_new.ns = STR("default");
        j->u.pool_new.service = flip();
        j->u.pool_new.seed = any();
        any_params(&j->u.pool_new.params);
        break;
    case JOURNAL_PARAMS:
        any_params(&j->u.params);
        break;
    case JOURNAL_EP_ADD:
        j->u.add.name = STR("pod-7");
        j->u.add.wait_probe = flip();
        break;
    case JOURNAL_EP_DRAIN:
        j->u.drain.on = flip();
        break;
    case JOURNAL_EP_LOAD:
        any_load(&j->u.load);
        break;
    case JOURNAL_EP_MODELS:
        any_models(j);
        break;
    case JOURNAL_EP_PROBE:
        j->u.probe.ok = flip();
        j->u.probe.asked_us = any();
        break;
    case JOURNAL_SUBMIT:
        any_submit(&j->u.submit);
        break;
    case JOURNAL_DECIDED:
        any_answer(&j->u.decided);
        j->u.decided.reject = flip() ? REJECT_QUEUE_TIMEOUT : REJECT_NONE;
        break;
    case JOURNAL_FINISH:
        j->u.finish.how = (enum sched_outcome)rng_below(&rng, OUT_STALE_CONN + 1);
        j->u.finish.has_usage = flip();
        j->u.finish.usage.prompt_tokens = any();
        j->u.finish.usage.completion_tokens = any();
        j->u.finish.usage.has_cached = flip();
        j->u.finish.usage.cached_tokens = any();
        break;
    case JOURNAL_GAP:
        j->u.gap.lines = any();
        break;
    default:
        break;
    }
}

/* Compares what pointers point to, then makes them equal. */
static void same_span(const void *a, const void *b, size_t n)
{
    if (n)
        assert_memory_equal(a, b, n);
}

static void same_params(struct sched_params *a, struct sched_params *b)
{
    assert_int_equal(a->n_flow_weights, b->n_flow_weights);
    same_span(a->flow_weights, b->flow_weights, a->n_flow_weights * sizeof weights[0]);
    a->flow_weights = b->flow_weights = NULL;
}

static void same_str(struct str *a, struct str *b)
{
    assert_int_equal(a->n, b->n);
    same_span(a->p, b->p, a->n);
    *a = *b = STR_NULL;
}

static void same_line(struct journal *a, struct journal *b)
{
    assert_int_equal(a->type, b->type);
    switch (a->type) {
    case JOURNAL_HEAD:
        same_str(&a->u.head.started, &b->u.head.started);
        same_str(&a->u.head.program, &b->u.head.program);
        break;
    case JOURNAL_POOL:
        same_str(&a->u.pool_new.name, &b->u.pool_new.name);
        same_str(&a->u.pool_new.ns, &b->u.pool_new.ns);
        same_params(&a->u.pool_new.params, &b->u.pool_new.params);
        break;
    case JOURNAL_PARAMS:
        same_params(&a->u.params, &b->u.params);
        break;
    case JOURNAL_EP_ADD:
        same_str(&a->u.add.name, &b->u.add.name);
        break;
    case JOURNAL_EP_MODELS:
        assert_int_equal(a->u.models.n, b->u.models.n);
        for (uint32_t i = 0; i < a->u.models.n; i++) {
            assert_int_equal(a->u.models.v[i].name, b->u.models.v[i].name);
            assert_int_equal(a->u.models.v[i].adapter, b->u.models.v[i].adapter);
        }
        a->u.models.v = b->u.models.v = NULL;
        break;
    case JOURNAL_SUBMIT:
        assert_int_equal(a->u.submit.hashes.n, b->u.submit.hashes.n);
        same_span(a->u.submit.hashes.h, b->u.submit.hashes.h, a->u.submit.hashes.n * sizeof(uint64_t));
        a->u.submit.hashes.h = b->u.submit.hashes.h = NULL;
        break;
    default:
        break;
    }
    assert_memory_equal(a, b, sizeof *a);
}

static void test_round_trip(void **state)
{
    (void)state;
    static struct journal a, b;
    struct journal_reader jr = {0};
    struct buf text;
    buf_init(&text, 1 << 20);
    rng_init(&rng, 7);
    for (int i = 0; i < 300 * N_JOURNAL_TYPES; i++) {
        struct errbuf err = {{0}};
        buf_clear(&text);
        any_line(&a, (enum journal_type)(i % N_JOURNAL_TYPES));
        journal_put(&text, &a);
        assert_false(text.overflow);
        struct str line = buf_str(&text);
        assert_int_equal(line.p[line.n - 1], '\n');
        assert_null(memchr(line.p, '\n', line.n - 1));
        line.n--;
        if (journal_read(&jr, line, &b, &err))
            fail_msg("%s in " STR_FMT, err.msg, STR_ARG(line));
        assert_int_equal(journal_is(line), a.type == JOURNAL_HEAD);
        same_line(&a, &b);
    }
    journal_reader_free(&jr);
    buf_free(&text);
}

/* A new parameter must be written, too: else records replay with its default. */
static void test_all_params(void **state)
{
    (void)state;
    if (sizeof(struct sched_params) != JOURNAL_PARAMS_SIZE)
        fail_msg("struct sched_params has %zu bytes, not %d: add the new member to params_fields (core/journal.c) and "
                 "any_params here, then correct JOURNAL_PARAMS_SIZE (core/journal.h)",
                 sizeof(struct sched_params), JOURNAL_PARAMS_SIZE);
}

/* What the scheduler reads of a request is what the line brings back. */
static void test_request(void **state)
{
    (void)state;
    static struct journal j, back;
    struct journal_reader jr = {0};
    struct buf text;
    struct prefix_hashes ph;
    static uint64_t h[PREFIX_MAX];
    struct errbuf err;
    buf_init(&text, 1 << 20);
    rng_init(&rng, 8);
    memset(&j, 0, sizeof j);
    any_submit(&j.u.submit);
    struct journal_submit *s = &j.u.submit;
    while (!s->has_hashes || !s->hashes.n || !s->hashes.n_ends || !s->n_tried) {
        memset(s, 0, sizeof *s);
        any_submit(s);
    }
    struct sched_req q = {
        .id = s->id, .priority = s->priority, .flow = s->flow, .ttl_us = s->ttl_us, .hashes = &s->hashes};
    q.prompt_bytes = s->prompt_bytes;
    q.prompt_token_ids = s->prompt_token_ids;
    q.n_media = s->n_media;
    q.max_tokens = s->max_tokens;
    q.n_outputs = s->n_outputs;
    q.light = q.streamed = true;
    q.model = s->model;
    q.pinned = s->pinned;
    q.n_tried = s->n_tried;
    memcpy(q.tried, s->tried, sizeof q.tried);
    q.q.seq = 12;
    q.d = (struct sched_decision){.ep = {3, 4}, .reason = REASON_PREFIX_HOLDER, .matched_bytes = 640};
    static struct journal from;
    journal_submitted(&from, &q, SCHED_PICKED, true);
    journal_put(&text, &from);
    assert_int_equal(journal_read(&jr, str_first(buf_str(&text), text.n - 1), &back, &err), 0);
    assert_int_equal(back.req, 12);
    assert_true(back.u.submit.again && back.u.submit.answer == SCHED_PICKED);
    assert_int_equal(back.u.submit.decided.ep.slot, 3);
    assert_int_equal(back.u.submit.decided.matched_bytes, 640);
    struct sched_req r = {.q.seq = 12, .d = q.d};
    journal_fill(&r, &back.u.submit, &ph, h);
    assert_ptr_equal(r.hashes, &ph);
    assert_memory_equal(h, s->hashes.h, s->hashes.n * sizeof *h);
    assert_int_equal(ph.n_fine, s->hashes.n_fine);
    assert_memory_equal(ph.ends, s->hashes.ends, sizeof ph.ends);
    r.hashes = q.hashes;
    assert_memory_equal(&r, &q, sizeof q);
    journal_reader_free(&jr);
    buf_free(&text);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{\"pool\":0,\"ev\":\"tick\"}",
        "{\"ev\":\"dance\"}",
        "{\"ev\":\"record\"}",
        "{\"ev\":\"tick\"",
        "{\"ev\":\"tick\"} x",
        "{\"ev\":\"tick\",\"us\":-1}",
        "{\"ev\":\"tick\",\"us\":1.5}",
        "{\"ev\":\"tick\",\"pool\":4294967296}",
        "{\"ev\":\"ep_remove\",\"ep\":[1]}",
        "{\"ev\":\"ep_remove\",\"ep\":[1,2,3]}",
        "{\"ev\":\"ep_load\",\"waiting\":1e999}",
        "{\"ev\":\"ep_load\",\"running_lora\":\"123\"}",
        "{\"ev\":\"ep_models\",\"models\":[\"0123456789abcdeF\"]}",
        "{\"ev\":\"submit\",\"flow\":\"\"}",
        "{\"ev\":\"submit\",\"flow\":\"00000000000000010000000000000001\"}",
        "{\"ev\":\"submit\",\"fine\":1}",
        "{\"ev\":\"submit\",\"hashes\":\"0000000000000001\"}",
        "{\"ev\":\"submit\",\"answer\":\"rejected\"}",
        "{\"ev\":\"submit\",\"answer\":\"maybe\"}",
        "{\"ev\":\"submit\",\"tried\":[[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1]]}",
        "{\"ev\":\"finish\",\"outcome\":\"great\"}",
        "{\"ev\":\"params\",\"params\":{\"step_s\":-1}}",
        "{\"ev\":\"params\",\"params\":{\"flow_weights\":{\"0000000000000001\":0}}}",
        "{\"ev\":\"params\",\"params\":3}",
        "{\"penstock\":\"record\",\"version\":2}",
    };
    static struct journal j;
    struct journal_reader jr = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errbuf err = {{0}};
        if (!journal_read(&jr, str_c(bad[i]), &j, &err))
            fail_msg("%s was read", bad[i]);
        assert_true(strlen(err.msg) > 10);
    }
    struct errbuf err;
    assert_int_equal(journal_read(&jr, STR("{\"ev\":\"tick\",\"later\":[1,{\"x\":2}],\"us\":5}"), &j, &err), 0);
    assert_int_equal(j.now_us, 5);
    journal_reader_free(&jr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_all_params),
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
