/* Saved results: what is written reads back the same; what is wrong is named with its place; several runs in a file. */
#include "bench_fixture.h"
#include "bench/saved.h"

#include "base/json.h"

static void write_run(const struct bench_run *r, bool detailed, struct buf *out, struct bench_stats *st)
{
    bench_stats(r, st);
    buf_init(out, 1 << 20);
    bench_json(r, st, detailed, out);
    assert_false(out->overflow);
}

static void same(const struct saved_run *r, const char *key, double want)
{
    const double *v = saved_get(r, key);
    assert_non_null(v);
    assert_true(*v == want); /* to the last bit */
}

static void reads_back_the_same(void **state)
{
    (void)state;
    struct bench_run r = fixture_run();
    struct bench_stats st;
    struct saved_runs got;
    struct errbuf err;
    struct buf out;
    r.label = STR("first \"run\"\n");
    r.percentiles[r.n_percentiles++] = 99.9;
    r.duration_s = 1.0 / 3;
    r.slo_ms[BENCH_TTFT] = 500;
    r.pods = fixture_pods;
    r.n_pods = 2;
    r.metadata[0][0] = STR("gpu");
    r.metadata[0][1] = STR("none");
    r.n_metadata = 1;
    write_run(&r, true, &out, &st);
    assert_null(memchr(buf_str(&out).p, '\n', out.n));
    assert_true(saved_parse(buf_str(&out), "dir/x.json", true, &got, &err));
    assert_int_equal(got.n, 1);
    const struct saved_run *s = got.v;
    assert_string_equal(s->label, "first \"run\"\n");
    assert_string_equal(s->model, "qwen");
    same(s, "num_prompts", 4);
    same(s, "max_concurrency", 8);
    same(s, "request_rate", HUGE_VAL);
    same(s, "duration", r.duration_s);
    same(s, "completed", 3);
    same(s, "failed", 1);
    same(s, "request_goodput", st.goodput);
    same(s, "total_token_throughput", st.total_throughput);
    same(s, "mean_ttft_ms", st.dist[BENCH_TTFT].mean);
    same(s, "std_e2el_ms", st.dist[BENCH_E2EL].std);
    same(s, "p99_itl_ms", st.dist[BENCH_ITL].percentile[0]);
    same(s, "p99.9_tpot_ms", st.dist[BENCH_TPOT].percentile[1]);
    same(s, "pod_requests_cv", 0.5 / 1.5);
    same(s, "cached_frac", 64.0 / 157);
    assert_int_equal(s->ttft.n, 4);
    for (size_t i = 0, at = 0; i < 4; i++) {
        const struct bench_sample *want = &fixture_samples[i];
        assert_true(s->ttft.v[i] == want->ttft_s && s->latency.v[i] == want->e2el_s);
        assert_true(s->output.v[i] == (want->ok ? want->output_tokens : 0) && s->failed.v[i] == !want->ok);
        assert_true(s->itl_n.v[i] == want->n_itl);
        for (uint32_t k = 0; k < want->n_itl; k++)
            assert_true((float)s->itl.v[at++] == want->itl_s[k]);
    }
    saved_free(&got);
    buf_free(&out);
}

/* Keys and their order are those of the engine's client; ours come behind. */
static void keys_in_order(void **state)
{
    (void)state;
    static const char *const want[] = {"date",
                                       "backend",
                                       "model_id",
                                       "tokenizer_id",
                                       "num_prompts",
                                       "request_rate",
                                       "burstiness",
                                       "max_concurrency",
                                       "duration",
                                       "completed",
                                       "failed",
                                       "total_input_tokens",
                                       "total_output_tokens",
                                       "request_throughput",
                                       "request_goodput",
                                       "output_throughput",
                                       "total_token_throughput",
                                       "max_output_tokens_per_s",
                                       "max_concurrent_requests",
                                       "mean_ttft_ms",
                                       "median_ttft_ms",
                                       "std_ttft_ms",
                                       "p99_ttft_ms",
                                       "mean_tpot_ms"};
    struct bench_run r = fixture_run();
    struct bench_stats st;
    struct buf out;
    struct json j;
    size_t n = 0;
    write_run(&r, false, &out, &st);
    json_init(&j, buf_str(&out));
    assert_int_equal(json_next(&j), JSON_OBJ);
    while (json_next(&j) == JSON_KEY) {
        if (n < ARRAY_LEN(want))
            assert_true(str_eq_c(j.tok, want[n]));
        n++;
        assert_false(str_eq_c(j.tok, "ttfts"));
        assert_true(json_skip(&j));
    }
    assert_true(n > ARRAY_LEN(want));
    buf_free(&out);
}

static void refused(const char *text, bool details, const char *want)
{
    struct saved_runs got;
    struct errbuf err = {0};
    assert_false(saved_parse(str_c(text), "r.json", details, &got, &err));
    if (!strstr(err.msg, want))
        fail_msg("'%s' is not in '%s'", want, err.msg);
    assert_int_equal(got.n, 0);
}

static void says_what_is_wrong(void **state)
{
    (void)state;
    refused("", false, "r.json: no result in this file");
    refused(" \n", false, "r.json: no result in this file");
    refused("[1]", false, "r.json:1:2: a saved result is a JSON object");
    refused("{\"a\":1,}", false, "r.json:1:8");
    refused("{\"a\":1", false, "r.json:1:7");
    refused("{\"a\":NaN}", false, "r.json:1:6");
    refused("{\"a\":1}\n{\"b\":tru}", false, "r.json:2:6");
    refused("{\"label\":7}", false, "must be strings");
    refused("{\"a\":1}", true, "\"ttfts\" is not there: save the run with --save-detailed");
    refused("{\"ttfts\":[1,\"x\"]}", true, "r.json:1:16: \"ttfts\" must be an array of numbers");
    refused("{\"ttfts\":7}", true, "\"ttfts\" must be an array");
    refused("{\"ttfts\":[1],\"ttfts\":[1]}", true, "once");
    refused("{\"itls\":[1]}", true, "\"itls\" must be an array of arrays of numbers");
    refused("{\"itls\":[[[1]]]}", true, "\"itls\" must be");
    refused("{\"itls\":[[1],", true, "r.json:1:14");
    refused("{\"errors\":[3]}", true, "\"errors\" must be an array of strings");
    refused("{\"ttfts\":[1,2],\"output_lens\":[1],\"itls\":[[],[]]}", true, "differ in length (2, 1, 2, 0, 0)");
    struct saved_runs got;
    struct errbuf err;
    assert_false(saved_read("/nonexistent/r.json", false, &got, &err));
    assert_non_null(strstr(err.msg, "/nonexistent/r.json: cannot open: No such file"));
    assert_false(saved_read("/", false, &got, &err));
    assert_non_null(strstr(err.msg, "/: cannot read"));
}

/* As --append-result leaves them; also spread over lines; a label that is the file's name. */
static void several_runs_in_a_file(void **state)
{
    (void)state;
    struct saved_runs got;
    struct errbuf err;
    assert_true(saved_parse(
        STR("{\"label\":\"a}\\\"]\",\"x\":1}\n{\n \"label\": null,\n \"x\": 2, \"y\":{\"x\":3}, \"z\":[{}]\n}\n"),
        "a/b/run-7.json", false, &got, &err));
    assert_int_equal(got.n, 2);
    assert_string_equal(got.v[0].label, "a}\"]");
    assert_string_equal(got.v[1].label, "run-7");
    same(&got.v[1], "x", 2);
    assert_null(saved_get(&got.v[1], "y"));
    saved_free(&got);
}

/* Bounds: figures beyond the 256th and names of 48 bytes are left out, labels are cut between characters, the 1025th
 * run is refused. */
static void bounds(void **state)
{
    (void)state;
    struct saved_runs got;
    struct errbuf err;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_addf(&b, "{\"label\":\"");
    for (int i = 0; i < 60; i++)
        buf_addf(&b, "\xc3\xa9");
    buf_addf(&b, "\",\"%048d\":1,\"%047d\":1", 0, 0);
    for (int i = 0; i < 300; i++)
        buf_addf(&b, ",\"k%d\":%d", i, i);
    buf_addf(&b, "}");
    assert_true(saved_parse(buf_str(&b), "r", false, &got, &err));
    assert_int_equal(got.v[0].n_figures, SAVED_MAX_FIGURES);
    assert_non_null(saved_get(&got.v[0], "k254"));
    assert_null(saved_get(&got.v[0], "k255"));
    assert_true(strlen(got.v[0].label) < SAVED_MAX_LABEL && strlen(got.v[0].label) % 2 == 0);
    saved_free(&got);
    buf_clear(&b);
    for (int i = 0; i < SAVED_MAX_RUNS + 1; i++)
        buf_addf(&b, "{}\n");
    refused(buf_cstr(&b), false, "more than 1024 runs");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_back_the_same), cmocka_unit_test(keys_in_order),
                                       cmocka_unit_test(says_what_is_wrong), cmocka_unit_test(several_runs_in_a_file),
                                       cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
