/* Comparison tables and plots, through real files in a directory of their own. */
#include "bench_fixture.h"
#include "../base/markup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static const char *file(const char *name, const char *text)
{
    static char paths[16][128];
    static unsigned next;
    char *path = paths[next++ % 16];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    if (text) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
    }
    return path;
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    (void)fclose(f);
    return text;
}

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/penstock-bench-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const names[] = {"a.json", "b.json", "c.json", "p.svg", "p.png", "bin/rsvg-convert", "bin"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)remove(file(names[i], NULL));
    return rmdir(dir);
}

static void table_is(const char *const *paths, size_t n, const char *want)
{
    struct buf out;
    struct errbuf err = {0};
    buf_init(&out, 1 << 16);
    if (!bench_compare(paths, n, &out, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(buf_cstr(&out), want);
    buf_free(&out);
}

static void two_files(void **state)
{
    (void)state;
    const char *paths[] = {
        file("a.json",
             "{\"model_id\":\"m\",\"num_prompts\":10,\"completed\":10,\"failed\":0,\"request_throughput\":10,\"output_"
             "throughput\":100,"
             "\"p99_ttft_ms\":300,\"p9_ttft_ms\":1,\"mean_ttft_ms\":200,\"mean_tpot_ms\":20.001,\"p50_itl_ms\":null}"),
        file("b.json", "{\"model_id\":\"m\",\"num_prompts\":10,\"completed\":10,\"failed\":2,\"request_throughput\":9,"
                       "\"output_throughput\":110,"
                       "\"p99_ttft_ms\":150,\"mean_ttft_ms\":250,\"mean_tpot_ms\":20}")};
    table_is(
        paths, 2,
        "                                      a                                 b\n"
        "Successful requests                             10                                10         =\n"
        "Failed requests                                  0                                 2         worse\n"
        "Request throughput (req/s)                   10.00                              9.00         -10.0% worse\n"
        "Output token throughput (tok/s)             100.00                            110.00         +10.0% better\n"
        "Mean TTFT (ms)                              200.00                            250.00         +25.0% worse\n"
        "P9 TTFT (ms)                                  1.00                                 -\n"
        "P99 TTFT (ms)                               300.00                            150.00         -50.0% better\n"
        "Mean TPOT (ms)                               20.00                             20.00         =\n");
}

static void medians_of_a_label(void **state)
{
    (void)state;
    const char *paths[] = {
        file("a.json", "{\"label\":\"old\",\"mean_ttft_ms\":100,\"mean_itl_ms\":10,\"request_rate\":\"inf\"}\n"
                       "{\"label\":\"new\",\"mean_ttft_ms\":80,\"mean_itl_ms\":9,\"request_rate\":\"inf\"}\n"
                       "{\"label\":\"old\",\"mean_ttft_ms\":90,\"mean_itl_ms\":8,\"request_rate\":\"inf\"}\n"),
        file("b.json", "{\"label\":\"old\",\"mean_ttft_ms\":99,\"mean_itl_ms\":9.5,\"request_rate\":\"inf\"}"),
        file("c.json", "{\"label\":\"new\",\"mean_ttft_ms\":78,\"mean_itl_ms\":8.5,\"request_rate\":5}")};
    table_is(
        paths, 3,
        "Medians of the runs of a label        old (3 runs)                      new (2 runs)\n"
        "Mean TTFT (ms)                               99.00   ±5.1%                     79.00   ±1.3% -20.2% better\n"
        "Mean ITL (ms)                                 9.50  ±10.5%                      8.75   ±2.9% -7.9% ~\n"
        "note: request rate of old: inf, of new: 5.00\n");
}

static void comparing_what_is_not_there(void **state)
{
    (void)state;
    struct buf out;
    struct errbuf err;
    buf_init(&out, 1 << 16);
    const char *paths[] = {file("a.json", "{\"mean_ttft_ms\":1}"), file("missing.json", NULL)};
    assert_false(bench_compare(paths, 2, &out, &err));
    assert_non_null(strstr(err.msg, "missing.json: cannot open"));
    assert_int_equal(out.n, 0);
    assert_false(bench_compare(paths, 0, &out, &err));
    buf_free(&out);
}

/* ---- plots ---- */

static void draws_every_run(void **state)
{
    (void)state;
    struct bench_curve_set c[3] = {0};
    struct bench_run r = fixture_run();
    struct errbuf err = {0};
    struct bench_stats st;
    struct buf out;
    r.label = STR("a <b> & \"c\" \x01\xff");
    bench_curves(&r, &c[0]);
    assert_int_equal(c[0].n[BENCH_ITL], 4);
    assert_int_equal(c[0].n[BENCH_TPOT], 2);
    assert_true(c[0].v[BENCH_TTFT][0] <= c[0].v[BENCH_TTFT][1] && c[0].v[BENCH_TTFT][0] == 250);
    /* the same from a file */
    buf_init(&out, 1 << 20);
    bench_stats(&r, &st);
    r.label = STR("b");
    bench_json(&r, &st, true, &out);
    if (!bench_curves_load(file("a.json", buf_cstr(&out)), &c[1], &err))
        fail_msg("%s", err.msg);
    for (int m = 0; m < BENCH_N_METRICS; m++) {
        assert_int_equal(c[0].n[m], c[1].n[m]);
        assert_memory_equal(c[0].v[m], c[1].v[m], c[0].n[m] * sizeof(float));
    }
    /* as the engine's client saves it: no latencies, failures with an error text */
    if (!bench_curves_load(file("b.json", "{\"ttfts\":[0.1,0,3],\"itls\":[[0.2,0.2],[],[]],\"output_lens\":[3,0,1],"
                                          "\"errors\":[\"\",\"x\",\"\"]}"),
                           &c[2], &err))
        fail_msg("%s", err.msg);
    assert_int_equal(c[2].n[BENCH_E2EL], 2);
    assert_true(fabsf(c[2].v[BENCH_E2EL][0] - 500) < 0.001f && fabsf(c[2].v[BENCH_TPOT][0] - 200) < 0.001f);
    const char *path = file("p.svg", NULL);
    if (!bench_plot(c, 3, path, &err))
        fail_msg("%s", err.msg);
    char *svg = slurp(path);
    assert_int_equal(check_xml(svg, "path"), 3 * BENCH_N_METRICS + 3);
    assert_int_equal(count(svg, "class=\"head\""), BENCH_N_METRICS);
    assert_int_equal(count(svg, "class=\"frame\""), BENCH_N_METRICS);
    assert_non_null(strstr(svg, "a &lt;b&gt; &amp; \"c\" \xef\xbf\xbd\xef\xbf\xbd</text>"));
    assert_non_null(strstr(svg, "prefers-color-scheme:dark"));
    assert_null(strstr(svg, "nan"));
    free(svg);
    buf_free(&out);
    for (size_t i = 0; i < 3; i++)
        bench_curves_free(&c[i]);
}

/* Millions of gaps make a small file; a wide range gets a logarithmic scale and says so; no values are said, too. */
static void large_and_wide(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct bench_curve_set c = {.label = {strdup("x"), 1}};
    struct errbuf err;
    for (int m = 0; m < 3; m++) {
        c.n[m] = m == BENCH_TPOT ? 0 : N;
        c.v[m] = malloc(N * sizeof(float));
        assert_non_null(c.v[m]);
        for (uint32_t i = 0; i < N; i++)
            c.v[m][i] = m == BENCH_TTFT ? 0.5f + (float)i : 20 + (float)i / N;
    }
    const char *path = file("p.svg", NULL);
    assert_true(bench_plot(&c, 1, path, &err));
    char *svg = slurp(path);
    (void)check_xml(svg, "path");
    assert_true(strlen(svg) < 60000);
    assert_int_equal(count(svg, "logarithmic"), 1);
    assert_int_equal(count(svg, "no values"), 2);
    assert_non_null(strstr(svg, ">s, logarithmic<")); /* a thousand seconds */
    free(svg);
    bench_curves_free(&c);
}

static void png_needs_a_converter(void **state)
{
    (void)state;
    struct bench_curve_set c;
    struct bench_run r = fixture_run();
    struct errbuf err;
    char *path_before = strdup(getenv("PATH"));
    const char *png = file("p.png", NULL);
    bench_curves(&r, &c);
    (void)mkdir(file("bin", NULL), 0755);
    assert_int_equal(setenv("PATH", file("bin", NULL), 1), 0);
    assert_false(bench_plot(&c, 1, png, &err));
    assert_non_null(strstr(err.msg, "needs rsvg-convert (Debian package librsvg2-bin), which is not there"));
    assert_int_equal(access(png, F_OK), -1);
    const char *tool =
        file("bin/rsvg-convert", "#!/bin/sh\nwhile read -r line; do echo \"$line\"; done < \"$4\" > \"$3\"\n");
    assert_int_equal(chmod(tool, 0755), 0);
    assert_true(bench_plot(&c, 1, png, &err));
    char *text = slurp(png);
    assert_int_equal(strncmp(text, "<svg ", 5), 0);
    free(text);
    tool = file("bin/rsvg-convert", "#!/bin/sh\nexit 3\n");
    assert_false(bench_plot(&c, 1, png, &err));
    assert_non_null(strstr(err.msg, "rsvg-convert failed (status 3)"));
    assert_int_equal(setenv("PATH", path_before, 1), 0);
    free(path_before);
    assert_false(bench_plot(&c, 1, "x.gif", &err));
    assert_non_null(strstr(err.msg, "x.gif: a plot ends in .svg or .png"));
    assert_false(bench_plot(&c, 1, "/nonexistent/x.svg", &err));
    assert_non_null(strstr(err.msg, "/nonexistent/x.svg: cannot create"));
    assert_false(bench_plot(&c, 0, "x.svg", &err));
    bench_curves_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_files),
                                       cmocka_unit_test(medians_of_a_label),
                                       cmocka_unit_test(comparing_what_is_not_there),
                                       cmocka_unit_test(draws_every_run),
                                       cmocka_unit_test(large_and_wide),
                                       cmocka_unit_test(png_needs_a_converter)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
