/* Figures of replayed runs: by hand, and against those that an independent program made of the same 200 requests. */
#include "../base/unit.h"
#include "replay/report.h"

#include <math.h>
#include <stdlib.h>

static void near(double got, double want, double tolerance, const char *what)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
        fail_msg("%s: got %.12g, want %.12g", what, got, want);
}
#define NEAR(got, want) near(got, want, 1e-9, #got)

/* ---- by hand ---- */

/* Ten requests, one a second: the first is warm-up. */
static void by_hand(void **state)
{
    (void)state;
    struct world_request v[11];
    for (uint32_t i = 0; i < 11; i++)
        v[i] = (struct world_request){.at_s = i,
                                      .sent_s = i,
                                      .first_s = i + 1.0,
                                      .end_s = i + 3.0,
                                      .ideal_s = 0.5f,
                                      .input = 100,
                                      .output = 5,
                                      .cached = 30,
                                      .end = WORLD_OK};
    v[10] = (struct world_request){.at_s = -1, .sent_s = -1, .first_s = -1, .end_s = -1}; /* did not come */
    v[0].first_s = 50;                                                                    /* not counted */
    v[1].first_s = 1 + 2.0;                                                               /* just within the level */
    v[1].sent_s = 1.5;
    v[2].first_s = 2 + 2.5; /* beyond it, but within 2 s + 2 x its own; ends later, too */
    v[2].end_s = 8.5;
    v[3].first_s = 3 + 3.25; /* beyond both */
    v[3].end_s = 3 + 3.25;
    v[3].output = 1; /* no token after the first */
    v[4] = (struct world_request){.at_s = 4, .sent_s = -1, .first_s = -1, .end_s = 4, .end = WORLD_REFUSED};
    v[5] = (struct world_request){.at_s = 5, .sent_s = 5, .first_s = 6, .end_s = 6, .end = WORLD_FAILED};
    v[6] = (struct world_request){
        .at_s = 6, .sent_s = 6, .first_s = 7, .end_s = -1, .end = WORLD_LOST}; /* half answered */
    v[7] = (struct world_request){.at_s = 7, .sent_s = 7, .first_s = -1, .end_s = -1, .end = WORLD_LOST};
    double busy[2] = {0.5, 0.25};
    uint64_t tokens[2] = {100, 300};
    struct world_result w = {.v = v,
                             .n = 11,
                             .busy = busy,
                             .prefill_tokens = tokens,
                             .n_servers = 2,
                             .preemptions = 3,
                             .end_s = 24,
                             .wall_s = 0.125};
    struct report r = {.policy = "p", .seed = 7};
    report_make(&w, false, 0, &r);
    assert_int_equal(r.n, 5); /* 1, 2, 3, 8, 9 */
    assert_int_equal(r.refused, 1);
    assert_int_equal(r.failed, 3);
    NEAR(r.ttft_mean, (2 + 2.5 + 3.25 + 1 + 1) / 5);
    NEAR(r.ttft_p50, 2);
    NEAR(r.ttft_p90, 2.5 + 0.6 * 0.75); /* 3.6 steps into 1, 1, 2, 2.5, 3.25 */
    NEAR(r.tpot_mean, (0.25 + 1 + 0.5 + 0.5) / 4);
    NEAR(r.tpot_p50, 0.5);
    NEAR(r.e2e_mean, (3 + 6.5 + 3.25 + 3 + 3) / 5);
    NEAR(r.queued_mean, 0.1);
    NEAR(r.hit, 0.3);
    NEAR(r.slo, 0.6);
    NEAR(r.attained, 5.0 / 9); /* 1, 2, 6, 8, 9 of nine that came */
    NEAR(r.goodput, 5.0 / 8);  /* they came from 1 to 9 */
    /* ends: 3 4 6.25 8.5 11 12; from the second until the fifth: 4, 6.25, 8.5 */
    NEAR(r.rps, 3 / 7.0);
    NEAR(r.out_tps, 11 / 7.0);
    NEAR(r.imbalance, 0.5);
    NEAR(r.busy, 0.375 * 24 / 12); /* up to the last answer */
    assert_int_equal(r.preempts, 3);
    assert_string_equal(r.policy, "p"); /* what the result does not know */
    assert_int_equal(r.seed, 7);
    NEAR(r.wall, 0.125);
}

static void nothing_answered(void **state)
{
    (void)state;
    struct world_request v[1] = {{.at_s = 0, .first_s = -1, .end_s = -1, .sent_s = -1}};
    uint64_t tokens[1] = {0};
    double busy[1] = {0};
    struct world_result w = {.v = v, .n = 1, .busy = busy, .prefill_tokens = tokens, .n_servers = 1};
    struct report r = {.trace = "t \"1\"", .profile = "h100", .policy = "p", .servers = 1, .rate = 2, .gateways = 1};
    report_make(&w, false, 0, &r);
    assert_int_equal(r.n, 0);
    assert_int_equal(r.failed, 1);
    assert_true(isnan(r.ttft_mean) && isnan(r.tpot_p99) && isnan(r.hit));
    NEAR(r.attained, 0);
    struct buf out;
    buf_init(&out, 1u << 16);
    report_json(&r, &out);
    assert_string_equal(buf_cstr(&out),
                        "{\"n\":0,\"ttft_mean\":null,\"ttft_p50\":null,\"ttft_p90\":null,\"ttft_p99\":"
                        "null,\"tpot_mean\":null,\"tpot_p50\":null,"
                        "\"tpot_p90\":null,\"tpot_p99\":null,\"e2e_mean\":null,\"hit\":null,\"rps\":0,"
                        "\"out_tps\":0,\"slo\":null,\"busy\":0,"
                        "\"imbalance\":0,\"preempts\":0,\"trace\":\"t "
                        "\\\"1\\\"\",\"profile\":\"h100\",\"servers\":1,\"policy\":\"p\",\"rate\":2,"
                        "\"wall\":0,\"attained\":0,\"goodput\":0,\"queued_mean\":null,\"split\":null,\"refused\":0,"
                        "\"failed\":1,\"gateways\":1,\"seed\":0}\n");
    w.n = 0;
    report_make(&w, true, 10, &r);
    assert_int_equal(r.n + r.failed, 0);
    buf_free(&out);
}

/* ---- against another program ---- */

static uint32_t state;

static double u(void)
{
    state = (state * 1103515245u + 12345u) & 0x7fffffffu;
    return (state >> 8) / 8388608.0;
}

static void make(struct world_request v[200], double stop_s)
{
    double t = 0;
    state = 1;
    for (uint32_t i = 0; i < 200; i++) {
        struct world_request *q = &v[i];
        *q = (struct world_request){.at_s = t += u(), .end = WORLD_OK};
        q->sent_s = q->at_s;
        q->input = 1 + (uint32_t)(u() * 8000);
        q->output = 1 + (uint32_t)(i % 10 ? u() * 400 : u() * 3);
        q->cached = (uint32_t)(u() * q->input);
        q->first_s = q->at_s + u() * 6;
        q->end_s = q->first_s + (q->output - 1) * (0.01 + u() * 0.05);
        q->ideal_s = (float)(u() * 1.5);
        if (q->end_s >= stop_s) { /* under way at the end */
            q->end = WORLD_LOST;
            q->end_s = -1;
            q->first_s = q->first_s < stop_s ? q->first_s : -1;
        }
        if (q->at_s >= stop_s)
            *q = (struct world_request){.at_s = -1, .sent_s = -1, .first_s = -1, .end_s = -1};
    }
}

static void the_same_as_the_simulator(void **state_)
{
    (void)state_;
    struct world_request v[200];
    double busy[4];
    uint64_t tokens[4];
    struct report r;
    struct world_result w = {
        .v = v, .n = 200, .busy = busy, .prefill_tokens = tokens, .n_servers = 4, .preemptions = 6};
    for (uint32_t k = 0; k < 4; k++)
        tokens[k] = 1000 * (k + 1) * (k + 1);
    make(v, HUGE_VAL);
    w.end_s = 120;
    for (uint32_t k = 0; k < 4; k++)
        busy[k] = 10.0 * (k + 1) / w.end_s;
    report_make(&w, false, 0, &r);
    assert_int_equal(r.n, 180);
    NEAR(r.ttft_mean, 2.897435987);
    NEAR(r.ttft_p50, 2.78850531578);
    NEAR(r.ttft_p90, 5.34334151745);
    NEAR(r.ttft_p99, 5.92370377779);
    NEAR(r.tpot_mean, 0.0336295944282);
    NEAR(r.tpot_p50, 0.0317692732811);
    NEAR(r.tpot_p90, 0.0550960242748);
    NEAR(r.tpot_p99, 0.0597003115416);
    NEAR(r.e2e_mean, 8.94867183472);
    NEAR(r.hit, 0.546820164129);
    NEAR(r.rps, 2.16513697754);
    NEAR(r.out_tps, 410.564099366);
    NEAR(r.slo, 0.377777777778);
    NEAR(r.busy, 0.223291782776);
    NEAR(r.imbalance, 0.75718777944);
    NEAR(r.attained, 0.6);
    NEAR(r.goodput, 1.2810921927209082);

    make(v, 100);
    w.end_s = 100;
    for (uint32_t k = 0; k < 4; k++)
        busy[k] = 10.0 * (k + 1) / w.end_s;
    report_make(&w, true, 100, &r);
    assert_int_equal(r.n, 113);
    assert_int_equal(r.failed, 7);
    NEAR(r.ttft_mean, 2.94597894323);
    NEAR(r.ttft_p99, 5.92835941315);
    NEAR(r.tpot_mean, 0.0343637195421);
    NEAR(r.tpot_p99, 0.0598399662971);
    NEAR(r.e2e_mean, 8.79879024063);
    NEAR(r.hit, 0.566370346492);
    NEAR(r.rps, 2.112);
    NEAR(r.out_tps, 388.64);
    NEAR(r.slo, 0.398230088496);
    NEAR(r.busy, 0.250624719018);
    NEAR(r.attained, 71.0 / 120);
    NEAR(r.goodput, 71 / 59.5);
}

/* ---- the table ---- */

static void merges_seeds(void **state_)
{
    (void)state_;
    struct report v[4];
    static const double mean[4] = {1.0, 12.345, 2.0, 3.0};
    for (uint32_t i = 0; i < 4; i++)
        v[i] = (struct report){.n = 100 + i,
                               .ttft_mean = mean[i],
                               .ttft_p50 = 0.5,
                               .ttft_p90 = 100,
                               .ttft_p99 = (double)NAN,
                               .tpot_mean = 0.0254,
                               .tpot_p90 = 0.03,
                               .hit = 0.5,
                               .attained = 1,
                               .rps = 2.5,
                               .goodput = 3.25,
                               .imbalance = 0.01,
                               .preempts = 5,
                               .trace = "chat",
                               .profile = "h100",
                               .policy = "round-robin",
                               .servers = 8,
                               .gateways = 1,
                               .seed = i,
                               .rate = 3};
    (void)snprintf(v[1].policy, sizeof(v[1].policy), "oracle");
    v[3].gateways = 4;
    struct buf out;
    buf_init(&out, 1u << 16);
    report_table(v, 4, &out);
    assert_string_equal(buf_cstr(&out), "chat, 8 × h100\n"
                                        "policy                   req/s  runs    n      TTFT s           p50     p90  "
                                        "p99    TPOT ms        p90      hit %  "
                                        "attained %   answers/s   goodput/s  imbalance %  preempts  refused  failed\n"
                                        "round-robin                  3     2  101  1.50 ±0.71  0.500 ±0.000  100 ±0   "
                                        " -  25.4 ±0.0  30.0 ±0.0  50.0 ±0.0  "
                                        "    100 ±0  2.50 ±0.00  3.25 ±0.00   1.00 ±0.00         5        0       0\n"
                                        "oracle                       3     1  101        12.3         0.500     100   "
                                        " -       25.4       30.0       50.0  "
                                        "       100        2.50        3.25         1.00         5        0       0\n"
                                        "round-robin, 4 gateways      3     1  103        3.00         0.500     100   "
                                        " -       25.4       30.0       50.0  "
                                        "       100        2.50        3.25         1.00         5        0       0\n");
    /* another setting: a table of its own */
    buf_clear(&out);
    v[2].servers = 16;
    v[2].users = 160;
    report_table(v + 1, 2, &out);
    assert_non_null(strstr(buf_cstr(&out), "\n\nchat, 16 × h100\npolicy       users  runs"));
    report_table(v, 0, &out);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(nothing_answered),
                                       cmocka_unit_test(the_same_as_the_simulator), cmocka_unit_test(merges_seeds)};
    return RUN_TESTS(tests);
}
