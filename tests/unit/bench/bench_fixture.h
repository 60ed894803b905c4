/* bench_fixture.h - small runs whose figures can be worked out by hand. */
#ifndef TESTS_BENCH_FIXTURE_H
#define TESTS_BENCH_FIXTURE_H

#include "bench/result.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static float fixture_gaps[3][3] = {{0.25f, 0.5f, 0.25f}, {0.5f}, {0}};
/* Three completed requests and one failure. First send at 10 s of the run's clock; seconds 0..3 hold 2, 2, 1 and 2
 * events. */
static struct bench_sample fixture_samples[4] = {
    {.ok = true,
     .status = 200,
     .start_s = 10,
     .ttft_s = 0.5,
     .e2el_s = 1.5,
     .input_tokens = 100,
     .output_tokens = 5,
     .cached_tokens = 64,
     .itl_s = fixture_gaps[0],
     .n_itl = 3,
     .pod = 0},
    {.ok = true,
     .status = 200,
     .start_s = 12.25,
     .ttft_s = 0.25,
     .e2el_s = 0.75,
     .input_tokens = 50,
     .output_tokens = 2,
     .itl_s = fixture_gaps[1],
     .n_itl = 1,
     .turn = 1,
     .pod = 1},
    {.ok = true,
     .status = 200,
     .start_s = 12.5,
     .ttft_s = 1,
     .e2el_s = 1,
     .input_tokens = 7,
     .output_tokens = 1,
     .turn = 1,
     .pod = 0},
    {.ok = false,
     .status = 503,
     .error = "Service Unavailable",
     .start_s = 10,
     .input_tokens = 1000,
     .output_tokens = 9,
     .pod = -1},
};
static UNUSED const char *fixture_pods[2] = {"pod-a", "pod-b"};

static inline struct bench_run fixture_run(void)
{
    struct bench_run r = {.date = STR("20260101-000000"),
                          .backend = STR("openai"),
                          .model_id = STR("qwen"),
                          .tokenizer_id = STR("qwen"),
                          .num_prompts = 4,
                          .max_concurrency = 8,
                          .request_rate = HUGE_VAL,
                          .burstiness = 1,
                          .n_percentiles = 1,
                          .show = {true, true, true, true},
                          .duration_s = 4,
                          .samples = fixture_samples,
                          .n_samples = 4};
    r.percentiles[0] = 99;
    return r;
}

#define assert_near(got, want) assert_true(fabs((double)(got) - (double)(want)) <= 1e-9 * (1 + fabs((double)(want))))

#endif
