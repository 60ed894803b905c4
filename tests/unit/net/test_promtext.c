/* Metrics pages of model servers -> load: pages of each kind and of the oldest and newest versions
 * (tests/vectors/metrics), odd syntax, any split, broken pages, early stop, names of the configuration, iteration
 * statistics. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/hash.h"
#include "base/rng.h"
#include "core/promtext.h"
#include <math.h>
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

static struct prom parse_as(const struct prom_spec *spec, struct str page, size_t step, bool stop_early)
{
    struct prom p;
    prom_init(&p, spec);
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

static struct prom parse(struct str page, size_t step, bool stop_early)
{
    return parse_as(&(struct prom_spec){.dialect = PROM_VLLM}, page, step, stop_early);
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
    enum prom_dialect dialect;
    double waiting, running, kv, kv_mean;
    uint64_t kv_tokens; /* 0: not told */
    uint32_t block, max_lora, n_running, n_waiting;
    bool stops; /* may be left before its end */
    bool parts; /* some quantity comes from several lines: a page cut between them is one of a smaller server */
};
static const struct page pages[] = {
    {"vllm_v0.txt", PROM_VLLM, 1, 5, 0.0625, 0.0625, 27896 * 16, 16, 2, 2, 1, false, false}, /* 0.6.4 */
    {"vllm_v1_0_8.txt", PROM_VLLM, 2, 9, 0.375, 0.375, 27000 * 16, 16, 0, 0, 0, false, false},
    {"vllm_v1.txt", PROM_VLLM, 3, 12, 0.4375, 0.4375, 20546 * 16, 16, 0, 0, 0, false, false},
    {"vllm_v1_both_kv.txt", PROM_VLLM, 3, 12, 0.25, 0.25, 20546 * 16, 16, 0, 0, 0, false, true},
    {"vllm_v1_dp.txt", PROM_VLLM, 5, 20, 0.8125, 0.3375, (3 * 20546 + 20000) * 16, 16, 0, 0, 0, false, true},
    {"vllm_v1_lora.txt", PROM_VLLM, 3, 12, 0.4375, 0.4375, 300000, 16, 4, 2, 1, true, false},
    {"vllm_v1_multiprocess.txt", PROM_VLLM, 6, 8, 0.125, 0.125, 16000, 16, 4, 1, 0, false, false},
    {"go_sorted.txt", PROM_VLLM, 4, 2, 0.5, 0.5, 32768, 32, 1, 1, 0, true, false},
    {"sglang_0_3_6.txt", PROM_SGLANG, 3, 6, 0.28, 0.28, 0, 0, 0, 0, 0, false, false},
    {"sglang_0_5.txt", PROM_SGLANG, 2, 17, 0.25, 0.25, 384000, 64, 0, 0, 0, false, false},
    {"sglang.txt", PROM_SGLANG, 2, 17, 0.31, 0.31, 414008, 1, 0, 0, 0, true, false},
    {"sglang_dp.txt", PROM_SGLANG, 6, 10, 0.5, 0.25, 400000, 64, 0, 0, 0, true,
     true}, /* two tp_ranks of each dp_rank */
    {"sglang_priority.txt", PROM_SGLANG, 6, 12, 0.5, 0.5, 50000, 1, 0, 0, 0, true, false},
    {"sglang_prefill.txt", PROM_SGLANG, 2 + 3 + 4, 0, 0.0625, 0.0625, 200000, 64, 0, 0, 0, true, true},
    {"sglang_decode.txt", PROM_SGLANG, 1 + 5 + 7, 31, 0.75, 0.75, 200000, 64, 0, 0, 0, true, true},
    {"triton_25_03.txt", PROM_TRTLLM, 4, 64, 0.411924, 0.411924, 6239 * 64, 64, 0, 0, 0, false, false},
    {"triton.txt", PROM_TRTLLM, 3, 10, 0.5, 0.375, 100 * 32 + 1000 * 64, 64, 0, 0, 0, true, true}, /* two models */
    {"trtllm_serve.txt", PROM_TRTLLM, 3, 5, 0.6, 0.6, 64000, 64, 0, 0, 0, true, false},
    {"trtllm_serve.json", PROM_TRTLLM, 3, 5, 0.6, 0.6, 64000, 64, 0, 0, 0, false, false},
};

static struct prom parse_page(const struct page *w, struct str page, size_t step, bool stop_early)
{
    return parse_as(&(struct prom_spec){.dialect = w->dialect}, page, step, stop_early);
}

static void test_pages(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        struct prom p = parse_page(w, page, SIZE_MAX, true);
        const struct ep_load *l = &p.load;
        if (l->waiting != w->waiting || l->running != w->running || l->kv_frac != w->kv ||
            fabs(l->kv_mean - w->kv_mean) > 1e-12 || l->kv_tokens != w->kv_tokens)
            fail_msg("%s: waiting %g running %g kv %g, mean %g, tokens %llu", w->file, l->waiting, l->running,
                     l->kv_frac, l->kv_mean, (unsigned long long)l->kv_tokens);
        assert_true(l->has_waiting && l->has_running && l->has_kv && l->has_blocks == (w->kv_tokens > 0));
        assert_int_equal(l->block_tokens, w->block);
        assert_int_equal(l->max_lora, w->max_lora);
        assert_int_equal(l->n_running_lora, w->n_running);
        assert_int_equal(l->n_waiting_lora, w->n_waiting);
        assert_int_equal(p.bad_lines, 0);
        if (p.stopped != w->stops)
            fail_msg("%s: stopped %d", w->file, p.stopped);
        assert_int_equal(p.shown, BIT(w->dialect));
        assert_true(p.iterations == (strcmp(w->file, "triton.txt") == 0         ? 84
                                     : strcmp(w->file, "triton_25_03.txt") == 0 ? 42
                                                                                : 0));
        struct prom whole = parse_page(w, page, SIZE_MAX, false);
        assert_load_eq(&whole.load, l);
        assert_int_equal(whole.bytes, page.n);
        free((void *)(uintptr_t)page.p);
    }
}

static void test_any_split_gives_the_same(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        struct prom whole = parse_page(w, page, SIZE_MAX, true);
        for (size_t step = 1; step < 300; step += step < 8 ? 1 : 37) {
            struct prom p = parse_page(w, page, step, true);
            assert_load_eq(&p.load, &whole.load);
            assert_int_equal(p.stopped, whole.stopped);
            assert_int_equal(p.lines, whole.lines);
        }
        free((void *)(uintptr_t)page.p);
    }
}

/* Where the runtime is not known, each page is read as what it is; where another is expected, nothing is read but what
 * it looks like. */
static void test_recognised(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        struct prom own = parse_page(w, page, SIZE_MAX, true);
        for (unsigned d = PROM_VLLM; d <= PROM_TRTLLM; d++) {
            struct prom any = parse_as(&(struct prom_spec){.dialect = d, .detect = true}, page, SIZE_MAX, true);
            assert_load_eq(&any.load, &own.load);
            assert_int_equal(any.shown, BIT(w->dialect));
            assert_int_equal(any.stopped, own.stopped);
            if (d == w->dialect)
                continue;
            struct prom p = parse_as(&(struct prom_spec){.dialect = d}, page, SIZE_MAX, true);
            assert_load_eq(&p.load, &(struct ep_load){0});
            assert_int_equal(p.shown, BIT(w->dialect));
        }
        free((void *)(uintptr_t)page.p);
    }
}

/* ---- pages that are broken ---- */

static void assert_sane(const struct ep_load *l, const char *file)
{
    bool ok = (!l->has_waiting || (isfinite(l->waiting) && l->waiting >= 0)) &&
              (!l->has_running || (isfinite(l->running) && l->running >= 0)) &&
              (!l->has_kv || (l->kv_frac >= 0 && l->kv_frac <= 1 && l->kv_mean >= 0 && l->kv_mean <= l->kv_frac)) &&
              (!l->has_blocks || l->kv_tokens > 0) && l->n_running_lora <= ARRAY_LEN(l->running_lora) &&
              l->n_waiting_lora <= ARRAY_LEN(l->waiting_lora);
    if (!ok)
        fail_msg("%s: waiting %g running %g kv %g mean %g", file, l->waiting, l->running, l->kv_frac, l->kv_mean);
}

static bool absent_or_right(bool has, double v, double right, bool or_less)
{
    return !has || v == right || (or_less && v < right);
}

/* Cut anywhere: what is there is right. Between two lines of one quantity that cannot be known: then it is that of a
 * smaller server. */
static void test_cut_pages(void **state UNUSED)
{
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        size_t stride = page.n / 4000 + 1;
        for (size_t n = 0; n < page.n; n += stride) {
            struct prom p = parse_page(w, str_first(page, n), SIZE_MAX, true);
            const struct ep_load *l = &p.load;
            bool ok = absent_or_right(l->has_waiting, l->waiting, w->waiting, w->parts) &&
                      absent_or_right(l->has_running, l->running, w->running, w->parts) &&
                      absent_or_right(l->has_blocks, (double)l->kv_tokens, (double)w->kv_tokens, w->parts) &&
                      (w->parts || absent_or_right(l->has_kv, l->kv_frac, w->kv, false));
            if (!ok)
                fail_msg("%s cut to %zu bytes: waiting %g running %g kv %g tokens %llu", w->file, n, l->waiting,
                         l->running, l->kv_frac, (unsigned long long)l->kv_tokens);
            assert_sane(l, w->file);
        }
        free((void *)(uintptr_t)page.p);
    }
}

static void test_flipped_bytes(void **state UNUSED)
{
    struct rng rng;
    rng_init(&rng, 11);
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        struct str page = read_page(w->file);
        char *bytes = malloc(page.n);
        for (int round = 0; round < 200; round++) {
            memcpy(bytes, page.p, page.n);
            for (uint64_t k = rng_below(&rng, 200) + 1; k > 0; k--)
                bytes[rng_below(&rng, page.n)] =
                    k & 1 ? (char)rng_below(&rng, 256) : "0123456789-+.eENaInf{}\"=, \n"[rng_below(&rng, 28)];
            struct prom p = parse_as(&(struct prom_spec){.dialect = w->dialect, .detect = round & 1},
                                     (struct str){bytes, page.n}, 1000, true);
            assert_sane(&p.load, w->file);
        }
        free(bytes);
        free((void *)(uintptr_t)page.p);
    }
}

/* The families of a page in any order: an early stop loses nothing. */
static void test_any_order_of_families(void **state UNUSED)
{
    static struct str family[1000];
    struct rng rng;
    rng_init(&rng, 5);
    unsigned n_stopped = 0;
    for (const struct page *w = pages; w < pages + ARRAY_LEN(pages); w++) {
        if (str_ends(str_c(w->file), STR(".json")))
            continue;
        struct str page = read_page(w->file);
        struct buf b;
        size_t n = 0;
        buf_init(&b, 1 << 20);
        for (struct str rest = page; rest.n && n < ARRAY_LEN(family);) {
            ptrdiff_t next = str_find(str_from(rest, 1), STR("# HELP "));
            family[n++] = str_first(rest, next < 0 ? rest.n : (size_t)next + 1);
            rest = str_from(rest, family[n - 1].n);
        }
        struct prom own = parse_page(w, page, SIZE_MAX, false);
        for (int round = 0; round < 30; round++) {
            buf_clear(&b);
            for (size_t i = n; i > 1; i--) {
                size_t k = rng_below(&rng, i);
                struct str swap = family[k];
                family[k] = family[i - 1];
                family[i - 1] = swap;
            }
            for (size_t i = 0; i < n; i++)
                buf_add_str(&b, family[i]);
            struct prom p = parse_page(w, buf_str(&b), SIZE_MAX, true);
            if (p.load.waiting != own.load.waiting || p.load.running != own.load.running ||
                p.load.kv_frac != own.load.kv_frac || p.load.kv_tokens != own.load.kv_tokens ||
                p.load.n_running_lora != own.load.n_running_lora || p.load.block_tokens != own.load.block_tokens)
                fail_msg("%s in another order: waiting %g running %g kv %g", w->file, p.load.waiting, p.load.running,
                         p.load.kv_frac);
            n_stopped += p.stopped;
        }
        buf_free(&b);
        free((void *)(uintptr_t)page.p);
    }
    assert_true(n_stopped > 100);
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
    static const char page[] =
        "# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc 0.5\n"
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
    struct prom p = parse_as(&(struct prom_spec){.dialect = PROM_SGLANG},
                             STR("sglang:num_running_reqs 4\nvllm:num_requests_waiting 3\n"), SIZE_MAX, true);
    assert_false(p.load.has_waiting);
    assert_true(p.load.running == 4);
    assert_int_equal(p.shown, BIT(PROM_SGLANG) | BIT(PROM_VLLM));
    p = parse_as(&(struct prom_spec){.detect = true}, STR("sglang:num_running_reqs 4\nvllm:num_requests_waiting 3\n"),
                 SIZE_MAX, true);
    assert_false(p.load.has_waiting); /* of one server, the first */
}

/* ---- the other dialects ---- */

static struct prom parse_d(enum prom_dialect d, const char *text)
{
    return parse_as(&(struct prom_spec){.dialect = d}, str_c(text), SIZE_MAX, true);
}

static void test_absent_in_every_dialect(void **state UNUSED)
{
    struct prom p =
        parse_d(PROM_SGLANG,
                "sglang:num_queue_reqs NaN\nsglang:num_prefill_bootstrap_queue_reqs 3\nsglang:num_running_reqs -1\n"
                "sglang:token_usage +Inf\nsglang:max_total_num_tokens NaN\nsglang:page_size 16\n");
    assert_false(p.load.has_waiting || p.load.has_running || p.load.has_kv || p.load.has_blocks);
    assert_int_equal(p.load.block_tokens, 16);
    p = parse_d(PROM_SGLANG, "sglang:num_queue_reqs 2\nsglang:num_prefill_bootstrap_queue_reqs NaN\nsglang:page_size "
                             "16\nsglang:num_pages 10\n");
    assert_true(p.load.has_waiting && p.load.waiting == 2 && p.load.kv_tokens == 160);
    p = parse_d(PROM_SGLANG, "sglang:num_queue_reqs 2\nsglang:num_prefill_bootstrap_queue_reqs{x 3\n");
    assert_false(p.load.has_waiting); /* a part cannot be read */
    p = parse_d(PROM_SGLANG, "sglang:page_size 1e9\nsglang:num_pages 1e30\n");
    assert_false(p.load.has_blocks);
    p = parse_d(
        PROM_TRTLLM,
        "nv_trt_llm_request_metrics{request_type=\"waiting\"} NaN\nnv_trt_llm_request_metrics{request_type=\"max\"} 7\n"
        "nv_trt_llm_request_metrics 9\nnv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} nan\n"
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 100\n");
    assert_false(p.load.has_waiting || p.load.has_running || p.load.has_kv || p.load.has_blocks);
    p = parse_d(PROM_TRTLLM,
                "trtllm_num_requests_waiting -2\ntrtllm_kv_cache_utilization 45\ntrtllm_kv_cache_max_blocks 10\n");
    assert_false(p.load.has_waiting || p.load.has_blocks);
    assert_true(p.load.kv_frac == 1);
}

static void test_ranks(void **state UNUSED)
{
    struct prom p = parse_d(
        PROM_SGLANG,
        "sglang:num_queue_reqs{dp_rank=\"0\",tp_rank=\"0\"} 2\nsglang:num_queue_reqs{tp_rank=\"1\",dp_rank=\"0\"} 3\n"
        "sglang:num_queue_reqs{dp_rank=\"1\",pp_rank=\"1\",moe_ep_rank=\"4\"} 5\n");
    assert_true(p.load.waiting == 3 + 5); /* read a moment apart: the larger */
    p = parse_d(PROM_SGLANG, "sglang:num_queue_reqs{priority=\"1\"} 2\nsglang:num_queue_reqs{priority=\"\"} "
                             "5\nsglang:num_queue_reqs{priority=\"2\"} 3\n");
    assert_true(p.load.waiting == 5);
    p = parse_d(PROM_SGLANG, "sglang:num_queue_reqs{priority=\"1\"} 2\n");
    assert_false(p.load.has_waiting);
}

static void test_too_many_parts_are_absent(void **state UNUSED)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i <= PROM_SAMPLES; i++) {
        buf_addf(&b, "vllm:num_requests_waiting{engine=\"%d\"} 1\n", i);
        if (i < PROM_SAMPLES - 1)
            continue;
        struct prom p = parse(buf_str(&b), SIZE_MAX, true);
        assert_int_equal(p.load.has_waiting, i == PROM_SAMPLES - 1);
        assert_true(!p.load.has_waiting || p.load.waiting == PROM_SAMPLES);
    }
    buf_free(&b);
}

static void test_a_line_cut_short_is_no_value(void **state UNUSED)
{
    struct prom p = parse_c(
        "vllm:num_requests_running 4\nvllm:num_requests_waiting{e=\"0\"} 1\nvllm:num_requests_waiting{e=\"1\"} 12");
    assert_true(p.load.has_running);
    assert_false(p.load.has_waiting); /* perhaps 123, and without it too little */
    p = parse_c("vllm:num_requests_running 4\nvllm:num_requests_waiting 1\nvllm:num_requests_waiting_by_reason{");
    assert_true(p.load.has_running && p.load.has_waiting);
    p = parse_c("vllm:num_requests_running 4\nvllm:num_requests_waiting 1\nvllm:num_req");
    assert_false(p.load.has_running || p.load.has_waiting);
}

/* ---- names of the configuration ---- */

static void test_name_syntax(void **state UNUSED)
{
    static const char *const bad[] = {"",       "{a=b}",     "1a",       "a b",   "a{",      "a{b}",
                                      "a{b=}x", "a{=c}",     "a{b=\"c}", "a{b=c", "a{b=c}}", "a{a=1,b=2,c=3,d=4,e=5}",
                                      "a-b",    "a{b=c\"d}", "a{b:x=c}", "a{1=b}"};
    struct prom_name n;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (prom_name_parse(str_c(bad[i]), &n))
            fail_msg("accepted: %s", bad[i]);
    assert_true(prom_name_parse(STR(" my:name_1 "), &n));
    assert_true(str_eq(n.name, STR("my:name_1")) && n.n_labels == 0);
    assert_true(prom_name_parse(STR("a{}"), &n) && n.n_labels == 0);
    assert_true(prom_name_parse(STR("a{b=c, d=\"e, }\" ,}"), &n));
    assert_int_equal(n.n_labels, 2);
    assert_true(str_eq(n.label[0].name, STR("b")) && str_eq(n.label[0].value, STR("c")));
    assert_true(str_eq(n.label[1].name, STR("d")) && str_eq(n.label[1].value, STR("e, }")));
}

#define OWN_PAGE                                                                                                       \
    "my_queue{model=\"a\",kind=\"wait\"} 3\nmy_queue{model=\"b\",kind=\"wait\"} "                                      \
    "4\nmy_queue{model=\"a\",kind=\"run\"} 5\n"                                                                        \
    "my_cache 0.5\nmy_lora{max_lora=\"2\",running_lora_adapters=\"x\",waiting_lora_adapters=\"\"} "                    \
    "1\nmy_info{page_size=\"32\",num_pages=\"10\"} 1\n"                                                                \
    "vllm:num_requests_waiting 100\nvllm:num_requests_running 200\nvllm:kv_cache_usage_perc "                          \
    "0.9\nvllm:gpu_cache_usage_perc 0.8\n" CACHE("block_size=\"16\",num_gpu_blocks=\"100\"") LORA("a,b", "5")

static void test_names_of_the_spec(void **state UNUSED)
{
    struct prom_spec spec = {.waiting = STR("my_queue{kind=wait}"),
                             .running = STR("my_queue{kind=\"run\",model=a}"),
                             .kv_usage = STR("my_cache"),
                             .lora_info = STR("my_lora"),
                             .cache_info = STR("my_info")};
    struct prom p = parse_as(&spec, STR(OWN_PAGE), SIZE_MAX, true);
    assert_true(p.load.waiting == 7 && p.load.running == 5 && p.load.kv_frac == 0.5 && p.load.kv_tokens == 320 &&
                p.load.block_tokens == 32);
    assert_true(p.load.max_lora == 2 && has(p.load.running_lora, p.load.n_running_lora, "x"));
    spec = (struct prom_spec){.waiting = STR("my_queue{kind=wait}")}; /* the others stay the dialect's own */
    p = parse_as(&spec, STR(OWN_PAGE), SIZE_MAX, true);
    assert_true(p.load.waiting == 7 && p.load.running == 200 && p.load.kv_frac == 0.9 && p.load.kv_tokens == 1600 &&
                p.load.n_running_lora == 2);
    spec = (struct prom_spec){.waiting = STR("nowhere"), .running = STR("not a name")};
    p = parse_as(&spec, STR(OWN_PAGE), SIZE_MAX, true);
    assert_false(p.load.has_waiting || p.load.has_running);
    assert_true(p.load.has_kv);
    spec = (struct prom_spec){.waiting = STR("vllm:num_requests_running"),
                              .kv_usage = STR("vllm:gpu_cache_usage_perc")}; /* one series, two quantities */
    p = parse_as(&spec, STR(OWN_PAGE), SIZE_MAX, true);
    assert_true(p.load.waiting == 200 && p.load.running == 200 && p.load.kv_frac == 0.8);
    spec = (struct prom_spec){.dialect = PROM_SGLANG,
                              .waiting = STR("sglang:num_queue_reqs")}; /* of that alone, without the other queues */
    p = parse_as(&spec,
                 STR("sglang:num_queue_reqs{tp_rank=\"0\"} 2\nsglang:num_queue_reqs{tp_rank=\"1\"} "
                     "2\nsglang:num_prefill_inflight_queue_reqs 8\n"),
                 SIZE_MAX, true);
    assert_true(p.load.waiting == 2);
}

static void test_names_of_the_spec_stop_too(void **state UNUSED)
{
    struct prom_spec spec = {.waiting = STR("zz_queue"), .cache_info = STR("zz_info")};
    static const char first[] = "vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5\n" LORA(
        "a", "5") "zz_info{block_size=\"2\",num_gpu_blocks=\"3\"} 1\n";
    struct buf b;
    buf_init(&b, 4096);
    buf_addf(&b, "%svllm:other 1\nzz_queue 7\nvllm:other 2\nzz_queue 100\n", first);
    struct prom p = parse_as(&spec, buf_str(&b), SIZE_MAX, true);
    assert_true(p.stopped && p.load.waiting == 7 && p.load.kv_tokens == 6);
    buf_free(&b);
}

/* ---- JSON ---- */

static void test_json(void **state UNUSED)
{
    struct prom p =
        parse_d(PROM_TRTLLM, " \n[{\"numActiveRequests\":1,\"numQueuedRequests\":7}, {\"numActiveRequests\":2.0}]\r\n");
    assert_true(p.json && p.load.has_running && p.load.running == 2);
    assert_false(p.load.has_waiting || p.load.has_kv || p.load.has_blocks); /* the last says nothing of it */
    assert_int_equal(p.lines, 2);
    p = parse_d(PROM_TRTLLM, "[]");
    assert_true(p.json && p.shown == BIT(PROM_TRTLLM));
    assert_false(p.load.has_running);
    p = parse_d(PROM_VLLM, "[{\"numActiveRequests\":2}]");
    assert_false(p.load.has_running);
    assert_int_equal(p.shown, BIT(PROM_TRTLLM));
    p = parse_d(PROM_TRTLLM, "[{\"kvCacheStats\":{\"maxNumBlocks\":10,\"usedNumBlocks\":20,\"tokensPerBlock\":32,"
                             "\"numActiveRequests\":4},\"maxNumBlocks\":7}]");
    assert_true(p.load.kv_frac == 1 && p.load.kv_tokens == 320);
    assert_false(p.load.has_running);
}

static void test_bad_json_is_no_load(void **state UNUSED)
{
    static const char *const bad[] = {
        "[",
        "[{\"numActiveRequests\":2}",
        "[{\"numActiveRequests\":2},",
        "[{\"numActiveRequests\":2}] x",
        "[{\"numActiveRequests\":2},3]",
        "[{\"numActiveRequests\":-2}]",
        "[{\"numActiveRequests\":1e999}]",
        "[{\"numActiveRequests\":\"2\"}]",
        "[{\"numActiveRequests\":NaN}]",
        "[{\"numActiveRequests\":2]}",
        "[[{\"numActiveRequests\":2}]]",
        "[{\"numActiveRequests\":2},{\"a\":}]",
        "[{\"kvCacheStats\":{\"maxNumBlocks\":0,\"usedNumBlocks\":0,\"tokensPerBlock\":0}}]",
        "[{\"kvCacheStats\":[]}]"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct prom p = parse_d(PROM_TRTLLM, bad[i]);
        if (p.load.has_running || p.load.has_waiting || p.load.has_kv || p.load.has_blocks)
            fail_msg("read: %s", bad[i]);
    }
    struct buf b; /* the longest element that is read, and one byte more */
    buf_init(&b, 1 << 16);
    for (int extra = 0; extra < 2; extra++) {
        buf_clear(&b);
        buf_addf(&b, "[{\"numActiveRequests\":2,\"x\":\"");
        while (b.n < (size_t)(PROM_LINE + extra + 1) - 2)
            buf_add_str(&b, STR("z"));
        buf_add_str(&b, STR("\"}]"));
        struct prom p = parse_as(&(struct prom_spec){.dialect = PROM_TRTLLM}, buf_str(&b), 1000, true);
        assert_int_equal(p.load.has_running, extra == 0);
        assert_int_equal(p.bad_lines, extra);
    }
    buf_free(&b);
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
        cmocka_unit_test(test_recognised),
        cmocka_unit_test(test_cut_pages),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_any_order_of_families),
        cmocka_unit_test(test_absent_in_every_dialect),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_too_many_parts_are_absent),
        cmocka_unit_test(test_a_line_cut_short_is_no_value),
        cmocka_unit_test(test_name_syntax),
        cmocka_unit_test(test_names_of_the_spec),
        cmocka_unit_test(test_names_of_the_spec_stop_too),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_bad_json_is_no_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
