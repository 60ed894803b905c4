/* The page of replayed runs: well-formed, nothing loaded, points where they belong, decisions explained, bounded. */
#include "../base/unit.h"
#include "../base/markup.h"
#include "replay/report.h"

#include <math.h>
#include <stdlib.h>

enum { N = 20 };
struct fixture {
    struct report_run run[40];
    struct world_result w[40];
    struct world_request v[40][N];
    struct world_gauge gauges[40][30];
    struct world_decision decisions[2];
    uint32_t n;
};

/* Requests a second apart, answered after `ttft` seconds, a token every 20 ms. */
static struct report_run *add(struct fixture *f, const char *policy, double rate, uint32_t seed, double ttft)
{
    uint32_t k = f->n++;
    static uint64_t tokens[2] = {1000, 3000};
    static double busy[2] = {0.5, 0.5};
    for (uint32_t i = 0; i < N; i++)
        f->v[k][i] = (struct world_request){.at_s = i,
                                            .sent_s = i,
                                            .first_s = i + ttft * (1 + 0.01 * i),
                                            .end_s = i + ttft * (1 + 0.01 * i) + 2,
                                            .ideal_s = 0.1f,
                                            .input = 1000,
                                            .output = 101,
                                            .cached = 512,
                                            .end = WORLD_OK};
    for (uint32_t i = 0; i < 30; i++)
        f->gauges[k][i] =
            (struct world_gauge){.waiting = (float)i, .running = 3, .kv = 0.5f, .max_waiting = 40, .max_kv = 0.75f};
    f->w[k] = (struct world_result){.v = f->v[k],
                                    .n = N,
                                    .gauges = f->gauges[k],
                                    .n_gauges = 30,
                                    .busy = busy,
                                    .prefill_tokens = tokens,
                                    .n_servers = 2,
                                    .end_s = 30};
    struct report_run *r = &f->run[k];
    *r = (struct report_run){
        .w = &f->w[k],
        .r = {.servers = 2, .gateways = 1, .rate = rate, .seed = seed, .trace = "a <b> & c", .profile = "h100"}};
    (void)snprintf(r->r.policy, sizeof(r->r.policy), "%s", policy);
    report_make(r->w, false, 0, &r->r);
    return r;
}

static char *page(const struct report_run *v, uint32_t n)
{
    struct buf out;
    buf_init(&out, 1u << 24);
    report_page(v, n, &out);
    assert_false(out.overflow);
    char *text = strdup(buf_cstr(&out));
    buf_free(&out);
    (void)check_xml(text, "p");
    static const char *const loads[] = {"<script", "src=", "href=", "url(", "@import", "nan", "inf\"", "-nan"};
    for (size_t i = 0; i < ARRAY_LEN(loads); i++)
        if (strstr(text, loads[i]))
            fail_msg("the page holds %s", loads[i]);
    return text;
}

static void holds(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("the page does not hold %s", what);
}

static void two_policies_two_rates(void **state)
{
    (void)state;
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    for (uint32_t seed = 0; seed < 2; seed++) {
        add(f, "fast", 1, seed, 0.1 + 0.1 * seed);
        add(f, "fast", 2, seed, 0.5);
        add(f, "slow & odd", 1, seed, 1);
        add(f, "slow & odd", 2, seed, 2.0); /* the first half is within 2 s + 2 x 0.1 s */
    }
    char *text = page(f->run, f->n);
    assert_int_equal(count(text, "<h2>"), 1);
    holds(text, "<h2>a &lt;b&gt; &amp; c, 2 × h100</h2>");
    holds(text, "slow &amp; odd");
    holds(text, "<h3>At 1 requests/s</h3>");
    holds(text, "<h3>At 2 requests/s</h3>");
    /* key 2; against the load 4 panels x 2; for each load 2 distributions and 6 panels over time x 2 */
    assert_int_equal(count(text, "<path class=\"line\""), 2 + 4 * 2 + 2 * (2 + 6) * 2);
    assert_int_equal(count(text, "<rect class=\"bar\""), 2 * 5 * 2);
    assert_int_equal(count(text, "<tr><td>"), 4); /* seeds are one row */
    assert_null(strstr(text, "<details>"));
    /* The first chart, by hand: 414 x 206 from (58, 30), rates from 0.96 to 2.04, shares from 50 to 100 %. Of the 18
     * counted requests of "slow" at 2/s those with 2 s x (1 + 0.01 i) <= 2.2 s attain, i from 2 to 10: one half. */
    holds(text, "cx=\"73.3\" cy=\"30.0\"");
    holds(text, "cx=\"456.7\" cy=\"236.0\"");
    /* means of seeds, with their extremes */
    holds(text, "class=\"whisker\"");
    holds(text, "<td>2</td><td>18</td><td>0.166 ±0.078</td>"); /* 0.1105 and 0.221 */
    free(text);
    free(f);
}

static void explains_decisions(void **state)
{
    (void)state;
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    struct report_run *r = add(f, "prefix-cache", 0, 0, 0.5);
    struct world_decision *d = f->decisions;
    f->w[0].decisions = d;
    f->w[0].n_decisions = 2;
    d[0] = (struct world_decision){.at_s = 3.25, .request = 3, .n = 3, .server = {7, 1, 4}};
    d[0].d = (struct sched_decision){.ep = {2, 1},
                                     .reason = REASON_PREFIX_HOLDER,
                                     .matched_bytes = 2048,
                                     .stream_bytes = 4000,
                                     .ttft_s = 0.75,
                                     .n_candidates = 2};
    d[0].x = (struct sched_explain){.n = 3, .n_endpoints = 5};
    d[0].x.cost[0] = (struct sched_cost){.ep = {0, 1}, .skip = SKIP_EJECTED, .total_s = (double)INFINITY};
    d[0].x.cost[1] = (struct sched_cost){.ep = {1, 1}, .total_s = 2.5, .wait_s = 0.5, .prefill_s = 1};
    d[0].x.cost[2] = (struct sched_cost){.ep = {2, 1},
                                         .total_s = 1.25,
                                         .wait_s = 0.25,
                                         .prefill_s = 0.125,
                                         .others_s = 0.375,
                                         .kv_s = 0.0625,
                                         .extra_s = 0.1,
                                         .lora_s = 0.2,
                                         .matched_bytes = 2048};
    d[1] = (struct world_decision){.at_s = 9, .request = 4000000000u, .d = {.reject = REJECT_QUEUE_FULL}};
    char *text = page(r, 1);
    holds(text, "<h3>Load as recorded</h3>");
    assert_null(strstr(text, "Against the load")); /* one load */
    holds(text, "<summary>prefix-cache, as recorded: 2 decisions</summary>");
    holds(text, "<b>3.25 s</b> · request 3 of 1000 tokens, 512 believed cached there · prefix holder, of 2 candidates "
                "· first token expected "
                "after 0.75 s · what came: first token after 0.52 s, 512 tokens cached");
    /* the cheapest first, the excluded last */
    holds(text, "<tr class=\"chosen\"><td>4 "
                "←</td><td>0.250</td><td>0.125</td><td>512</td><td>0.375</td><td>0.062</td><td>0.300</td><td>1.250</td>"
                "<td "
                "class=\"why\"></td></tr>\n<tr><td>1</td><td>0.500</td><td>1.000</td><td>0</td><td>0.000</"
                "td><td>0.000</td><td>0.000</td>"
                "<td>2.500</td><td class=\"why\"></td></tr>\n<tr class=\"out\"><td>7</td>");
    holds(text, "<td>–</td><td class=\"why\">ejected</td>");
    holds(text, "2 more servers were not cheaper");
    holds(text, "<b>9.00 s</b> · request 4000000000 of 0 tokens, 0 believed cached there · queue full");
    free(text);
    free(f);
}

static void is_bounded(void **state)
{
    (void)state;
    enum { MANY = 400000 };
    struct fixture *f = calloc(1, sizeof(*f));
    struct world_request *v = calloc(MANY, sizeof(*v));
    struct world_gauge *g = calloc(MANY, sizeof(*g));
    assert_true(f && v && g);
    struct report_run *r = add(f, "p", 1, 0, 1);
    for (uint32_t i = 0; i < MANY; i++) {
        v[i] = f->v[0][i % N];
        v[i].at_s = i;
        v[i].first_s = i + 0.001 * (i % 5000 + 1);
        v[i].end_s = v[i].first_s + 1;
        g[i] = (struct world_gauge){.waiting = (float)(i % 17), .queued = (float)i};
    }
    f->w[0].v = v;
    f->w[0].gauges = g;
    f->w[0].n = f->w[0].n_gauges = MANY;
    f->w[0].end_s = MANY;
    report_make(r->w, false, 0, &r->r);
    char *text = page(r, 1);
    assert_in_range(strlen(text), 20000, 60000);
    holds(text, ">hours<");
    holds(text, ">ms, logarithmic<");
    free(text);
    free(v);
    free(g);
    /* more policies than are drawn, more loads than get charts */
    f->n = 0;
    for (uint32_t i = 0; i < 30; i++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "p%u", i);
        add(f, name, 1, 0, 1);
    }
    for (uint32_t i = 0; i < 7; i++)
        add(f, "p0", 2 + i, 0, 1);
    text = page(f->run, f->n);
    holds(text, "2 more are not drawn");
    holds(text, "Charts of 5 of 8 loads");
    assert_int_equal(count(text, "<h3>At "), 5);
    holds(text, "<h3>At 8 requests/s</h3>"); /* both ends */
    assert_int_equal(count(text, "<tr><td>"), 37);
    free(text);
    free(f);
}

static void without_results(void **state)
{
    (void)state;
    struct report_run r = {
        .r = {.ttft_mean = (double)NAN, .attained = (double)NAN, .policy = "p", .users = 5, .servers = 1}};
    free(page(NULL, 0));
    char *text = page(&r, 1);
    holds(text, "no values");
    holds(text, "<h3>At 5 users</h3>");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_policies_two_rates), cmocka_unit_test(explains_decisions),
                                       cmocka_unit_test(is_bounded), cmocka_unit_test(without_results)};
    return RUN_TESTS(tests);
}
