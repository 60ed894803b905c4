/* Prometheus pages of model servers -> load: recorded-style pages of each kind, odd syntax, any split, early stop. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/hash.h"
#include "core/promtext.h"
#include <stdio.h>
#include <stdlib.h>

static struct str read_page(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", METRICS_DIR, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *p = malloc(1 << 20);
    size_t n = fread(p, 1, 1 << 20, f);
    fclose(f);
    assert_true(n > 0);
    return (struct str){p, n};
}

static struct prom parse(struct str page, size_t step, bool stop_early)
{
    struct prom p;
    prom_init(&p, &(struct prom_spec){.dialect = PROM_VLLM});
    p.stop_early = stop_early;
    while (page.n) {
        struct str piece = str_first(page, step);
        if (!prom_feed(&p, piece))
            break;
        page = str_from(page, piece.n);
    }
    prom_end(&p);
    return p;
}

static struct prom parse_c(const char *text)
{
    return parse(str_c(text), SIZE_MAX, true);
}

static bool has(const uint64_t *v, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i] == hash_bytes(name, strlen(name), 0))
            return true;
    return false;
}

static void assert_load_eq(const struct ep_load *a, const struct ep_load *b)
{
    assert_memory_equal(a, b, sizeof(*a));
}

/* ---- pages ---- */

struct page {
    const char *file;
    double waiting, running, kv;
    uint64_t kv_tokens;
    uint32_t block, max_lora, n_running, n_waiting;
    bool stops; /* may be left before its end */
};
static const struct page pages[] = {
    {"vllm_v0.txt", 1, 5, 0.0625, 27896 * 16, 16, 2, 2, 1, false},
    {"vllm_v1.txt", 3, 12, 0.4375, 20546 * 16, 16, 0, 0, 0, false},
    {"vllm_v1_both_kv.txt", 3, 12, 0.25, 20546 * 16, 16, 0, 0, 0, false},
    {"vllm_v1_dp.txt", 5, 20, 0.8125, (3 * 20546 + 20000) * 16, 16, 0, 0, 0, false},
    {"vllm_v1_lora.txt", 3, 12, 0.4375, 300000, 16, 4, 2, 1, true},
    {"vllm_v1_multiprocess.txt", 6, 8, 0.125, 16000, 16, 4, 1, 0, false},
    {"go_sorted.txt", 4, 2, 0.5, 32768, 32, 1, 1, 0, true},
};

static void test_pages(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        struct prom p = parse(page, SIZE_MAX, true);
        const struct ep_load *l = &p.load;
        if (l->waiting != w->waiting || l->running != w->running || l->kv_frac != w->kv || l->kv_tokens != w->kv_tokens)
            fail_msg("%s: waiting %g running %g kv %g tokens %llu", w->file, l->waiting, l->running, l->kv_frac,
                     (unsigned long long)l->kv_tokens);
        assert_true(l->has_waiting && l->has_running && l->has_kv && l->has_blocks);
        assert_int_equal(l->block_tokens, w->block);
        assert_int_equal(l->max_lora, w->max_lora);
        assert_int_equal(l->n_running_lora, w->n_running);
        assert_int_equal(l->n_waiting_lora, w->n_waiting);
        assert_int_equal(p.bad_lines, 0);
        assert_int_equal(p.stopped, w->stops);
        struct prom whole = parse(page, SIZE_MAX, false);
        assert_load_eq(&whole.load, l);
        assert_int_equal(whole.bytes, page.n);
        free((void *)(uintptr_t)page.p);
    }
}

static void test_any_split_gives_the_same(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        struct prom whole = parse(page, SIZE_MAX, true);
        for (size_t step = 1; step < 300; step += step < 8 ? 1 : 37) {
            struct prom p = parse(page, step, true);
            assert_load_eq(&p.load, &whole.load);
            assert_int_equal(p.stopped, whole.stopped);
            assert_int_equal(p.lines, whole.lines);
        }
        free((void *)(uintptr_t)page.p);
    }
}

static void test_lora_names(void **state UNUSED)
{
    struct str page = read_page("vllm_v1_lora.txt");
    struct prom p = parse(page, SIZE_MAX, true);
    assert_true(has(p.load.running_lora, p.load.n_running_lora, "sql-a"));
    assert_true(has(p.load.running_lora, p.load.n_running_lora, "sql-b"));
    assert_true(has(p.load.waiting_lora, p.load.n_waiting_lora, "tweet {x}"));
    free((void *)(uintptr_t)page.p);
    p = parse_c("vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\" a\\\"b , c\\\\d,,e\\nf "
                "\",waiting_lora_adapters=\"\"} 1\n");
    assert_int_equal(p.load.n_running_lora, 3);
    assert_true(has(p.load.running_lora, 3, "a\"b"));
    assert_true(has(p.load.running_lora, 3, "c\\d"));
    assert_true(has(p.load.running_lora, 3, "e\nf"));
}

static void test_lora_newest_wins(void **state UNUSED)
{
#define LORA(run, v)                                                                                                   \
    "vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"" run "\",waiting_lora_adapters=\"\"} " v "\n"
    struct prom p = parse_c(LORA("a", "5") LORA("b", "4") LORA("c", "NaN"));
    assert_true(has(p.load.running_lora, p.load.n_running_lora, "a"));
    p = parse_c(LORA("a", "5") LORA("b", "5"));
    assert_true(has(p.load.running_lora, p.load.n_running_lora, "b")); /* a tie: the last line */
    p = parse_c(LORA("a,b", "5") LORA("", "6"));
    assert_int_equal(p.load.n_running_lora, 0);
    p = parse_c(LORA("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18", "1"));
    assert_int_equal(p.load.n_running_lora, 16);
}

/* ---- syntax ---- */

static void test_absent_stays_absent(void **state UNUSED)
{
    struct prom p = parse_c("vllm:num_requests_running 4\n# TYPE vllm:num_requests_waiting gauge\n");
    assert_true(p.load.has_running);
    assert_false(p.load.has_waiting || p.load.has_kv || p.load.has_blocks);
    p = parse_c("vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc +Inf\n"
                "vllm:gpu_cache_usage_perc nan\nvllm:cache_config_info{block_size=\"None\",num_gpu_blocks=\"20\"} 1\n");
    assert_false(p.load.has_running || p.load.has_waiting || p.load.has_kv || p.load.has_blocks);
    p = parse_c("");
    assert_false(p.load.has_running);
    p = parse_c("vllm:num_requests_waiting{engine=\"0\"} NaN\nvllm:num_requests_waiting{engine=\"1\"} 2\n");
    assert_true(p.load.has_waiting && p.load.waiting == 2);
}

static void test_names_are_exact(void **state UNUSED)
{
    struct prom p = parse_c("vllm:num_requests_waiting_by_reason{reason=\"x\"} 9\nvllm:num_requests_waitin 9\n"
                            "xvllm:num_requests_waiting 9\nVLLM:num_requests_waiting 9\nvllm:num_requests_waiting\t3\n"
                            " vllm:num_requests_waiting 9\n");
    assert_true(p.load.has_waiting && p.load.waiting == 3);
}

static void test_odd_but_legal(void **state UNUSED)
{
    struct prom p = parse_c("vllm:num_requests_waiting{a=\"\\\"}{,\\\\\",} 3 1755000000000\r\n"
                            "vllm:num_requests_running { a = \"x\" , b=\"\" } 1.2e1\r\n\r\n\n"
                            "vllm:kv_cache_usage_perc{} 0.5\r\n");
    assert_true(p.load.waiting == 3 && p.load.running == 12 && p.load.kv_frac == 0.5);
    assert_int_equal(p.bad_lines, 0);
}

static void test_malformed_lines_are_skipped(void **state UNUSED)
{
    static const char *const bad[] = {
        "vllm:num_requests_waiting\n",
        "vllm:num_requests_waiting{\n",
        "vllm:num_requests_waiting{a=\"b\" 3\n",
        "vllm:num_requests_waiting{a=b} 3\n",
        "vllm:num_requests_waiting{a=\"b\n",
        "vllm:num_requests_waiting{a=\"b\\\"} 3\n",
        "vllm:num_requests_waiting{=\"b\"} 3\n",
        "vllm:num_requests_waiting x\n",
        "vllm:num_requests_waiting{a=\"b\"} \n",
        "vllm:num_requests_waiting 3x\n",
        "vllm:num_requests_waiting{a=\"b\"c=\"d\"} 3\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[512];
        snprintf(text, sizeof(text), "%svllm:num_requests_running 4\n", bad[i]);
        struct prom p = parse_c(text);
        if (p.load.has_waiting || p.bad_lines != 1 || p.load.running != 4)
            fail_msg("accepted or lost: %s", bad[i]);
    }
}

static void test_kv_names(void **state UNUSED)
{
    struct prom p = parse_c("vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.2\n");
    assert_true(p.load.kv_frac == 0.2);
    p = parse_c("vllm:kv_cache_usage_perc 0.2\nvllm:gpu_cache_usage_perc 0.9\n");
    assert_true(p.load.kv_frac == 0.2);
    p = parse_c("vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc NaN\n");
    assert_true(p.load.kv_frac == 0.9);
    p = parse_c("vllm:gpu_cache_usage_perc{engine=\"0\"} 0.3\nvllm:gpu_cache_usage_perc{engine=\"1\"} 0.1\n");
    assert_true(p.load.kv_frac == 0.3);
    p = parse_c("vllm:kv_cache_usage_perc 45\n");
    assert_true(p.load.kv_frac == 1.0);
}

static void test_capacity(void **state UNUSED)
{
#define CACHE(labels) "vllm:cache_config_info{" labels "} 1.0\n"
    struct prom p = parse_c(CACHE("block_size=\"16\",num_gpu_blocks=\"100\",kv_cache_size_tokens=\"None\""));
    assert_int_equal(p.load.kv_tokens, 1600);
    p = parse_c(CACHE("block_size=\"16\",kv_cache_size_tokens=\"1000\",num_gpu_blocks=\"None\""));
    assert_true(p.load.has_blocks);
    assert_int_equal(p.load.kv_tokens, 1000);
    p = parse_c(CACHE("block_size=\"16\",num_gpu_blocks=\"18446744073709551615\""));
    assert_false(p.load.has_blocks);
    p = parse_c(CACHE("block_size=\"4294967296\",num_gpu_blocks=\"4294967296\""));
    assert_false(p.load.has_blocks);
}

static void test_long_lines(void **state UNUSED)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int extra = -1; extra <= 1; extra++) { /* around the bound */
        buf_clear(&b);
        buf_addf(&b, "vllm:num_requests_waiting{a=\"");
        while (b.n < (size_t)(PROM_LINE + extra) - 4)
            buf_add_str(&b, STR("z"));
        buf_add_str(&b, STR("\"} 3\nvllm:num_requests_running 4\n"));
        for (size_t step = 1; step < 40000; step *= 7) {
            struct prom p = parse(buf_str(&b), step, true);
            size_t line = (size_t)((const char *)memchr(b.p + b.off, '\n', b.n) - (b.p + b.off));
            assert_int_equal(p.load.has_waiting, line <= PROM_LINE);
            assert_int_equal(p.bad_lines, line > PROM_LINE);
            assert_true(p.load.running == 4);
        }
    }
    buf_free(&b);
}

/* ---- early stop ---- */

#define ALL_FIVE                                                                                                       \
    "vllm:num_requests_running 1\nvllm:num_requests_waiting{e=\"0\"} 1\nvllm:num_requests_waiting{e=\"1\"} 1\n"        \
    "vllm:kv_cache_usage_perc 0.5\n" CACHE("block_size=\"16\",num_gpu_blocks=\"100\"") LORA("a", "5")

static void test_stops_after_all_five(void **state UNUSED)
{
    struct prom p = parse_c(ALL_FIVE "vllm:other 1\nvllm:num_requests_waiting 100\n");
    assert_true(p.stopped);
    assert_true(p.load.waiting == 2);
    assert_false(prom_feed(&p, STR("vllm:num_requests_waiting 100\n"))); /* stays stopped */
    assert_true(p.load.waiting == 2);
    p = parse_c(ALL_FIVE LORA("b", "6"));
    assert_false(p.stopped); /* the last family may go on */
    assert_true(has(p.load.running_lora, p.load.n_running_lora, "b"));
}

static void test_does_not_stop_too_soon(void **state UNUSED)
{
    /* v0 name first, LoRA unseen: the v1 name and LoRA may follow */
    struct prom p =
        parse_c("# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 1\n"
                "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"
                "# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc 0.9\n" CACHE(
                    "block_size=\"1\",num_gpu_blocks=\"7\"") "# TYPE zzz gauge\nzzz 1\nvllm:kv_cache_usage_perc "
                                                             "0.1\n" LORA("a", "5"));
    assert_false(p.stopped);
    assert_true(p.load.kv_frac == 0.1);
    assert_int_equal(p.load.n_running_lora, 1);
}

/* vLLM's own order begins like a sorted page; what comes after it must still be read. */
static void test_ascending_beginning_is_no_sorted_page(void **state UNUSED)
{
    static const char page[] = "# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc 0.5\n"
                               "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3\n"
                               "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 1\n"
                               "# TYPE vllm:num_requests_waiting_by_reason gauge\nvllm:num_requests_waiting_by_reason{reason=\"capacity\"} 1\n"
                               "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0.25\n"
                               "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\n";
    struct prom p;
    prom_init(&p, &(struct prom_spec){.dialect = PROM_VLLM});
    (void)prom_feed(&p, str_c(page));
    prom_end(&p);
    assert_true(p.load.has_kv && p.load.kv_frac == 0.25);
    assert_true(p.load.has_blocks && p.load.kv_tokens == 1600);
}

static void test_other_dialects_find_nothing(void **state UNUSED)
{
    struct prom p;
    prom_init(&p, &(struct prom_spec){.dialect = PROM_SGLANG});
    assert_true(prom_feed(&p, STR("sglang:num_running_reqs 4\nvllm:num_requests_waiting 3\n")));
    prom_end(&p);
    assert_false(p.load.has_waiting);
    assert_int_equal(p.shown, BIT(PROM_SGLANG) | BIT(PROM_VLLM));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_any_split_gives_the_same),
        cmocka_unit_test(test_lora_names),
        cmocka_unit_test(test_lora_newest_wins),
        cmocka_unit_test(test_absent_stays_absent),
        cmocka_unit_test(test_names_are_exact),
        cmocka_unit_test(test_odd_but_legal),
        cmocka_unit_test(test_malformed_lines_are_skipped),
        cmocka_unit_test(test_kv_names),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_stops_after_all_five),
        cmocka_unit_test(test_does_not_stop_too_soon),
        cmocka_unit_test(test_ascending_beginning_is_no_sorted_page),
        cmocka_unit_test(test_other_dialects_find_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
