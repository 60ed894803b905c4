/* The check of a record: a scheduler under random verbs is written down, and replays to the same decisions, whatever
 * the policy; what was changed in the record is found, at its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "replay/decisions.h"

enum { REQS = 120, EPS = 6, MODELS = 3, LINES = 8, HASHES = 150, VERBS = 6000 };
enum stage { FREE, WAITING, FLYING, FAILED };

struct world {
    struct rng rng;
    struct sched *s;
    struct sched_params p;
    struct sched_flow_weight weights[3];
    uint64_t now, flights, n_late, n_retries;
    struct req {
        struct sched_req r;
        struct prefix_hashes ph;
        enum stage stage;
    } q[REQS];
    struct ep_ref ep[EPS]; /* gen 0: none */
    uint64_t hashes[LINES][HASHES];
    struct buf text;
    uint64_t ejections;
};

static uint32_t below(struct world *w, uint32_t n)
{
    return (uint32_t)rng_below(&w->rng, n);
}

static bool chance(struct world *w, double p)
{
    return rng_unit(&w->rng) < p;
}

/* ---- the record ---- */

static struct journal *line(enum journal_type t, const struct world *w)
{
    static struct journal j;
    memset(&j, 0, sizeof j);
    j.type = t;
    j.now_us = w->now;
    return &j;
}

static void settle(struct world *w, struct req *q)
{
    q->stage = q->r.d.reject != REJECT_NONE ? FREE : FLYING;
    w->flights += q->stage == FLYING;
}

static void write_decided(struct world *w)
{
    struct sched_req *r;
    while ((r = sched_next_decided(w->s))) {
        struct journal *j = line(JOURNAL_DECIDED, w);
        j->now_us = 0;
        j->req = r->q.seq;
        journal_answer_of(&j->u.decided, &r->d);
        journal_put(&w->text, j);
        w->n_late++;
        settle(w, CONTAINER_OF(r, struct req, r));
    }
}

static void write_line(struct world *w, const struct journal *j)
{
    journal_put(&w->text, j);
    write_decided(w);
}

/* ---- verbs ---- */

static void random_params(struct world *w)
{
    w->p.queueing = chance(w, 0.8);
    w->p.queue_threshold = below(w, 5);
    w->p.kv_threshold = 0.3 + 0.1 * below(w, 7);
    w->p.queue_ttl_us = 100000 + below(w, 5000000);
    w->p.queue_requests = 5 + below(w, 60);
    w->p.queue_order = (enum sched_order)below(w, 3);
    w->p.queue_late_us = below(w, 500000);
    w->p.queue_discard = (enum sched_discard)below(w, 2);
    w->p.early_refusal = (enum sched_early)below(w, 3);
    w->p.prefix_wait_us = chance(w, 0.3) ? below(w, 500000) : 0;
    w->p.eject_us = 200000;
    w->p.n_flow_weights = below(w, 4);
    w->p.flow_weights = w->weights;
    for (uint32_t i = 0; i < w->p.n_flow_weights; i++)
        w->weights[i] = (struct sched_flow_weight){i, 0.3 + rng_unit(&w->rng)};
}

static void set_params(struct world *w)
{
    random_params(w);
    if (chance(w, 0.1))
        w->p.block_bytes = 128; /* the index starts anew */
    sched_set_params(w->s, &w->p, w->now);
    struct journal *j = line(JOURNAL_PARAMS, w);
    j->u.params = w->p;
    write_line(w, j);
}

static void new_request(struct world *w, struct req *q)
{
    *q = (struct req){.r = {.id = rng_u64(&w->rng), .n_outputs = 1 + below(w, 2)}};
    q->r.priority = (int)below(w, 3) - 1;
    q->r.flow = below(w, 4);
    q->r.prompt_bytes = 50 + below(w, 20000);
    q->r.ttl_us = chance(w, 0.2) ? 10000 + below(w, 1000000) : 0;
    q->r.max_tokens = chance(w, 0.5) ? 1 + below(w, 500) : 0;
    q->r.streamed = chance(w, 0.7);
    q->r.light = chance(w, 0.02);
    q->r.n_media = chance(w, 0.05);
    q->r.model = chance(w, 0.3) ? 1 + below(w, MODELS) : 0;
    if (chance(w, 0.05))
        q->r.pinned = w->ep[below(w, EPS)];
    if (chance(w, 0.2))
        return;
    uint32_t n = below(w, HASHES);
    q->ph = (struct prefix_hashes){
        .h = w->hashes[below(w, LINES)], .n = n, .n_fine = MIN(n, 128u), .block_bytes = w->p.block_bytes};
    q->ph.n_ends = below(w, 3);
    for (uint32_t i = 0; i < q->ph.n_ends; i++)
        q->ph.ends[i] = 1000 + below(w, 30);
    q->ph.whole = q->ph.n_ends > 0;
    q->r.hashes = &q->ph;
}

static void submit(struct world *w, struct req *q)
{
    bool again = q->r.q.seq != 0;
    struct sched_explain x;
    q->r.explain = chance(w, 0.5) ? &x : NULL; /* being explained must change nothing */
    enum sched_answer a = sched_submit(w->s, &q->r, w->now);
    q->r.explain = NULL;
    struct journal *j = line(JOURNAL_SUBMIT, w);
    journal_submitted(j, &q->r, a, again);
    if (a == SCHED_QUEUED)
        q->stage = WAITING;
    else
        settle(w, q);
    write_line(w, j);
    w->n_retries += again;
}

static struct req *any_in(struct world *w, enum stage stage)
{
    uint32_t from = below(w, REQS);
    for (uint32_t i = 0; i < REQS; i++)
        if (w->q[(from + i) % REQS].stage == stage)
            return &w->q[(from + i) % REQS];
    return NULL;
}

static void arrive(struct world *w)
{
    struct req *q = any_in(w, FREE);
    if (!q)
        return;
    new_request(w, q);
    submit(w, q);
}

static void again(struct world *w)
{
    struct req *q = any_in(w, FAILED);
    if (q)
        submit(w, q);
}

static void cancel(struct world *w)
{
    struct req *q = any_in(w, WAITING);
    if (!q)
        return;
    struct journal *j = line(JOURNAL_CANCEL, w);
    j->req = q->r.q.seq;
    sched_cancel(w->s, &q->r, w->now);
    q->stage = FREE;
    write_line(w, j);
}

static void first_token(struct world *w)
{
    struct req *q = any_in(w, FLYING);
    if (!q)
        return;
    struct journal *j = line(JOURNAL_FIRST_TOKEN, w);
    j->req = q->r.q.seq;
    sched_first_token(w->s, &q->r, w->now);
    write_line(w, j);
}

static void finish(struct world *w)
{
    struct req *q = any_in(w, FLYING);
    if (!q)
        return;
    struct journal *j = line(JOURNAL_FINISH, w);
    enum sched_outcome how = chance(w, 0.75) ? OUT_OK : (enum sched_outcome)below(w, OUT_STALE_CONN + 1);
    struct sched_usage u = {1 + below(w, 5000), below(w, 300), 0, chance(w, 0.5)};
    u.cached_tokens = u.has_cached ? below(w, (uint32_t)u.prompt_tokens) : 0;
    bool told = chance(w, 0.8);
    j->req = q->r.q.seq;
    j->u.finish.how = how;
    j->u.finish.has_usage = told;
    if (told)
        j->u.finish.usage = u;
    struct ep_ref ep = q->r.d.ep;
    sched_finish(w->s, &q->r, how, told ? &u : NULL, w->now);
    q->stage = how != OUT_OK && q->r.n_tried < 3 && chance(w, 0.8) ? FAILED : FREE;
    if (q->stage == FAILED && chance(w, 0.8))
        q->r.tried[q->r.n_tried++] = ep;
    write_line(w, j);
}

static void endpoint(struct world *w)
{
    uint32_t k = below(w, EPS);
    if (!w->ep[k].gen) {
        struct journal *j = line(JOURNAL_EP_ADD, w);
        j->u.add.wait_probe = chance(w, 0.3);
        j->u.add.name = STR("pod");
        j->ep = w->ep[k] = sched_ep_add(w->s, w, j->u.add.wait_probe, w->now);
        write_line(w, j);
        return;
    }
    struct journal *j = line(chance(w, 0.2)   ? JOURNAL_EP_REMOVE
                             : chance(w, 0.3) ? JOURNAL_EP_DRAIN
                             : chance(w, 0.3) ? JOURNAL_EP_ALIVE
                                              : JOURNAL_EP_MODELS,
                             w);
    struct sched_model m[MODELS];
    j->ep = w->ep[k];
    if (j->type == JOURNAL_EP_REMOVE) {
        sched_ep_remove(w->s, w->ep[k], w->now);
        w->ep[k] = (struct ep_ref){0};
    } else if (j->type == JOURNAL_EP_DRAIN) {
        j->u.drain.on = chance(w, 0.3);
        sched_ep_drain(w->s, w->ep[k], j->u.drain.on, w->now);
    } else if (j->type == JOURNAL_EP_ALIVE) {
        sched_ep_alive(w->s, w->ep[k], w->now);
    } else {
        j->u.models.n = below(w, MODELS + 1);
        for (uint32_t i = 0; i < j->u.models.n; i++)
            m[i] = (struct sched_model){1 + i, i + 1 == MODELS};
        j->u.models.v = m;
        sched_ep_models(w->s, w->ep[k], m, j->u.models.n, w->now);
    }
    write_line(w, j);
}

static void scrape(struct world *w)
{
    struct ep_ref ep = w->ep[below(w, EPS)];
    if (!ep.gen)
        return;
    struct journal *j = line(JOURNAL_EP_LOAD, w);
    j->ep = ep;
    j->u.load = (struct ep_load){.sent_us = w->now - 5000,
                                 .done_us = w->now,
                                 .has_waiting = chance(w, 0.9),
                                 .has_running = chance(w, 0.9),
                                 .has_kv = chance(w, 0.9),
                                 .has_blocks = chance(w, 0.8),
                                 .waiting = below(w, 4),
                                 .running = below(w, 30),
                                 .kv_frac = rng_unit(&w->rng),
                                 .kv_tokens = 20000 + below(w, 50000),
                                 .block_tokens = 16,
                                 .max_lora = below(w, 3)};
    j->u.load.n_running_lora = below(w, j->u.load.max_lora + 1);
    for (uint32_t i = 0; i < j->u.load.n_running_lora; i++)
        j->u.load.running_lora[i] = MODELS + i;
    sched_ep_load(w->s, ep, &j->u.load, w->now);
    write_line(w, j);
    j = line(JOURNAL_EP_PROBE, w);
    j->ep = ep;
    j->u.probe.ok = !chance(w, 0.1);
    j->u.probe.asked_us = w->now - 5000;
    w->ejections += sched_ep_probe(w->s, ep, j->u.probe.ok, j->u.probe.asked_us, w->now);
    write_line(w, j);
}

static void tick(struct world *w)
{
    sched_tick(w->s, w->now);
    write_line(w, line(JOURNAL_TICK, w));
}

static void verb(struct world *w)
{
    static void (*const verbs[])(struct world *) = {arrive, arrive, arrive,      arrive,     arrive, finish,
                                                    finish, finish, again,       again,      cancel, scrape,
                                                    scrape, tick,   first_token, first_token};
    w->now += (uint64_t)(rng_exp(&w->rng) * 8000);
    if (chance(w, 0.02))
        endpoint(w);
    else if (chance(w, 0.005))
        set_params(w);
    else
        verbs[below(w, ARRAY_LEN(verbs))](w);
}

/* ---- a life ---- */

static struct world *live(uint64_t seed, enum sched_policy policy)
{
    struct world *w = xcalloc(1, sizeof *w);
    rng_init(&w->rng, seed);
    buf_init(&w->text, 256 << 20);
    w->now = 1000000000;
    for (uint32_t i = 0; i < LINES; i++) /* each shares a beginning with the one before */
        for (uint32_t k = 0; k < HASHES; k++)
            w->hashes[i][k] = i && k < 20 * (i % 3) ? w->hashes[i - 1][k] : rng_u64(&w->rng);
    sched_params_init(&w->p);
    w->p.policy = policy;
    random_params(w);
    w->s = sched_new(&w->p, seed);
    struct journal *j = line(JOURNAL_HEAD, w);
    j->u.head.version = JOURNAL_VERSION;
    journal_put(&w->text, j);
    j = line(JOURNAL_POOL, w);
    j->u.pool_new.name = STR("the-pool");
    j->u.pool_new.seed = seed;
    j->u.pool_new.params = w->p;
    journal_put(&w->text, j);
    for (int i = 0; i < 4; i++)
        endpoint(w);
    for (int i = 0; i < VERBS; i++)
        verb(w);
    assert_false(w->text.overflow);
    return w;
}

static void end(struct world *w)
{
    for (uint32_t i = 0; i < REQS; i++)
        if (w->q[i].stage == WAITING)
            sched_cancel(w->s, &w->q[i].r, w->now);
    while (sched_next_decided(w->s))
        continue;
    for (uint32_t i = 0; i < REQS; i++)
        if (w->q[i].r.state == 2 || w->q[i].r.state == 3)
            sched_finish(w->s, &w->q[i].r, OUT_OK, NULL, w->now);
    sched_free(w->s);
    buf_free(&w->text);
    free(w);
}

static void print(const struct decisions_result *r)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    decisions_report(r, &out);
    print_message("%s", buf_cstr(&out));
    buf_free(&out);
}

static void test_same(void **state)
{
    (void)state;
    uint64_t late = 0, retries = 0, ejections = 0;
    for (unsigned policy = 0; policy < N_SCHED_POLICIES; policy++)
        for (uint64_t seed = 1; seed <= (policy < 2 ? 12 : 3); seed++) {
            struct world *w = live(seed, (enum sched_policy)policy);
            struct decisions_result r;
            struct errbuf err;
            if (decisions_check(buf_str(&w->text), &r, &err))
                fail_msg("%s", err.msg);
            if (!decisions_same(&r)) {
                print(&r);
                fail_msg("policy %s, seed %u", sched_policy_name((enum sched_policy)policy), (unsigned)seed);
            }
            assert_int_equal(r.n_pools, 1);
            assert_string_equal(r.pools[0].name, "the-pool");
            assert_true(r.equal > 500 && r.equal >= w->flights);
            late += w->n_late;
            retries += w->n_retries;
            ejections += w->ejections;
            decisions_result_free(&r);
            end(w);
        }
    assert_true(late > 500 && retries > 500 && ejections > 20); /* or nothing was shown */
}

/* The text with the piece at `at`, n bytes long, replaced. */
static void replaced(struct buf *out, struct str text, size_t at, size_t n, const char *by)
{
    buf_clear(out);
    buf_add(out, text.p, at);
    buf_add(out, by, strlen(by));
    buf_add(out, text.p + at + n, text.n - at - n);
}

static unsigned line_of(struct str text, size_t at)
{
    unsigned no = 1;
    for (size_t i = 0; i < at; i++)
        no += text.p[i] == '\n';
    return no;
}

static size_t nth(struct str text, struct str what, int n)
{
    size_t at = 0;
    for (int i = 0;; i++) {
        ptrdiff_t found = str_find(str_from(text, at), what);
        if (found < 0)
            fail_msg("the record has too little of " STR_FMT, STR_ARG(what));
        at += (size_t)found;
        if (i == n)
            return at;
        at += what.n;
    }
}

static void differs_at(struct str text, unsigned no)
{
    struct decisions_result r;
    struct errbuf err;
    if (decisions_check(text, &r, &err))
        fail_msg("%s", err.msg);
    assert_false(decisions_same(&r));
    assert_int_equal(r.pools[0].end, DECISIONS_DIFFER);
    if (no && r.pools[0].line != no) {
        print(&r);
        fail_msg("not line %u", no);
    }
    assert_true((r.equal > 0 || !no) && strlen(r.pools[0].why) > 20);
    decisions_result_free(&r);
}

static void test_changed(void **state)
{
    (void)state;
    struct world *w = live(11, SCHED_PREFIX_CACHE);
    struct str text = buf_str(&w->text);
    struct buf other;
    buf_init(&other, 256 << 20);
    /* another endpoint was picked; another reason; a decision that came later */
    size_t at = nth(text, STR("\"answer\":\"picked\",\"ep\":["), 300) + 24;
    replaced(&other, text, at, 0, "1");
    differs_at(buf_str(&other), line_of(text, at));
    at = nth(text, STR("\"least_cost\""), 150);
    replaced(&other, text, at, 12, "\"tie_random\"");
    differs_at(buf_str(&other), line_of(text, at));
    at = nth(text, STR("\"answer\":\"queued\""), 20);
    replaced(&other, text, at, 17, "\"answer\":\"picked\"");
    differs_at(buf_str(&other), line_of(text, at));
    /* a decision is missing: seen at the next verb */
    at = nth(text, STR("{\"ev\":\"decided\""), 20);
    size_t n = (size_t)((const char *)memchr(text.p + at, '\n', text.n - at) - text.p) + 1 - at;
    replaced(&other, text, at, n, "");
    differs_at(buf_str(&other), line_of(text, at));
    /* an input was another: seen later, wherever it tells */
    at = nth(text, STR("\"policy\":\"prefix-cache\""), 0);
    replaced(&other, text, at, 23, "\"policy\":\"random\"");
    differs_at(buf_str(&other), 0);
    buf_free(&other);
    end(w);
}

static void test_gap_and_cut(void **state)
{
    (void)state;
    struct world *w = live(12, SCHED_DEFAULT);
    struct str text = buf_str(&w->text);
    struct decisions_result r;
    struct errbuf err;
    struct buf other;
    buf_init(&other, 256 << 20);
    size_t at = nth(text, STR("{\"ev\":\"finish\""), 200);
    size_t n = (size_t)((const char *)memchr(text.p + at, '\n', text.n - at) - text.p) + 1 - at;
    replaced(&other, text, at, n, "{\"ev\":\"gap\",\"pool\":0,\"lines\":1}\n");
    assert_int_equal(decisions_check(buf_str(&other), &r, &err), 0);
    assert_int_equal(r.pools[0].end, DECISIONS_GAP);
    assert_int_equal(r.pools[0].line, line_of(text, at));
    assert_true(r.equal > 100 && !decisions_same(&r));
    decisions_result_free(&r);
    for (size_t cut = text.n - 1; cut > text.n - 60; cut--) {
        assert_int_equal(decisions_check(str_first(text, cut), &r, &err), 0);
        assert_true(r.cut || text.p[cut - 1] == '\n');
        assert_true(decisions_same(&r));
        decisions_result_free(&r);
    }
    buf_free(&other);
    end(w);
}

static void test_damaged(void **state)
{
    (void)state;
    static const char head[] = "{\"penstock\":\"record\",\"version\":1}\n";
    static const char pool[] = "{\"ev\":\"pool\",\"pool\":0,\"name\":\"p\"}\n";
    static const struct {
        const char *head, *pool, *rest, *says;
    } bad[] = {
        {"", "", "", "empty"},
        {"", pool, "", "begins with"},
        {head, head, "", "second head"},
        {head, "", "{\"ev\":\"tick\",\"pool\":0}\n", "not named"},
        {head, pool, "{\"ev\":\"pool\",\"pool\":2}\n", "numbered"},
        {head, pool, "{\"ev\":\"finish\",\"req\":1,\"outcome\":\"ok\"}\n", "not under way"},
        {head, pool, "{\"ev\":\"cancel\",\"req\":1}\n", "does not wait"},
        {head, pool, "{\"ev\":\"submit\"}\n", "number"},
        {head, pool, "{\"ev\":\"submit\",\n", "cannot be read"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[512];
        struct decisions_result r;
        struct errbuf err = {{0}};
        int n = snprintf(text, sizeof text, "%s%s%s", bad[i].head, bad[i].pool, bad[i].rest);
        assert_int_equal(decisions_check((struct str){text, (size_t)n}, &r, &err), -1);
        if (!strstr(err.msg, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.msg, bad[i].says);
        decisions_result_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_changed),
        cmocka_unit_test(test_gap_and_cut),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
