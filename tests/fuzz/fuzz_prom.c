/* Metrics pages, text and JSON: first byte the size of the pieces, second the runtime that is expected, with which
 * names of the configuration. What must hold: any split gives the same load; results are in their ranges; an early stop
 * hides nothing that an unstopped reading of the same lines had found by then. */
#include "core/promtext.h"
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(struct prom *p, const struct prom_spec *spec, struct str page, size_t step, bool stop_early)
{
    prom_init(p, spec);
    p->stop_early = stop_early;
    while (page.n) {
        struct str piece = str_first(page, step);
        char *copy = xmalloc(piece.n); /* so that reading past a piece is seen */
        memcpy(copy, piece.p, piece.n);
        bool more = prom_feed(p, (struct str){copy, piece.n});
        free(copy);
        if (!more)
            break;
        page = str_from(page, piece.n);
    }
    prom_end(p);
}

static void check_ranges(const struct ep_load *l)
{
    CHECK(!l->has_waiting || (isfinite(l->waiting) && l->waiting >= 0));
    CHECK(!l->has_running || (isfinite(l->running) && l->running >= 0));
    CHECK(!l->has_kv || (l->kv_frac >= 0 && l->kv_frac <= 1 && l->kv_mean >= 0 && l->kv_mean <= l->kv_frac));
    CHECK(!l->has_blocks || l->kv_tokens > 0);
    CHECK(l->n_running_lora <= ARRAY_LEN(l->running_lora) && l->n_waiting_lora <= ARRAY_LEN(l->waiting_lora));
}

static struct prom_spec make_spec(uint8_t how)
{
    struct prom_spec spec = {.dialect = how % 3, .detect = how / 3 & 1};
    if (how / 6 & 1)
        spec.waiting = STR("vllm:num_requests_waiting_by_reason{reason=capacity}");
    if (how / 12 & 1)
        spec.cache_info = STR("sglang:cache_config_info");
    if (how / 24 & 1)
        spec.kv_usage = STR("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}");
    return spec;
}

/* The page's first line as a name of the configuration. */
static void check_name(struct str page)
{
    struct prom_name n;
    const char *nl = page.n ? memchr(page.p, '\n', page.n) : NULL;
    if (!prom_name_parse(str_first(page, nl ? (size_t)(nl - page.p) : page.n), &n))
        return;
    CHECK(n.name.n > 0 && n.n_labels <= PROM_NAME_LABELS);
    for (uint32_t i = 0; i < n.n_labels; i++)
        CHECK(n.label[i].name.n > 0 && n.label[i].name.p >= page.p &&
              n.label[i].value.p + n.label[i].value.n <= page.p + page.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct prom whole, split, all;
    if (size < 2)
        return 0;
    struct str page = {(const char *)data + 2, size - 2};
    struct prom_spec spec = make_spec(data[1]);
    check_name(page);
    parse(&whole, &spec, page, SIZE_MAX, true);
    parse(&split, &spec, page, (size_t)data[0] % 64 + 1, true);
    parse(&all, &spec, page, SIZE_MAX, false);
    CHECK(memcmp(&whole.load, &split.load, sizeof(whole.load)) == 0);
    CHECK(whole.lines == split.lines && whole.bad_lines == split.bad_lines && whole.stopped == split.stopped &&
          whole.shown == split.shown);
    CHECK(all.bytes == page.n && all.lines >= whole.lines);
    if (!whole.stopped)
        CHECK(memcmp(&whole.load, &all.load, sizeof(whole.load)) == 0);
    check_ranges(&whole.load);
    check_ranges(&all.load);
    return 0;
}
