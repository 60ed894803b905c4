/* Prometheus pages: first byte the size of the pieces. What must hold: any split gives the same load; results are in
 * their ranges; an early stop hides nothing that an unstopped reading of the same lines had found by then. */
#include "core/promtext.h"
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(struct prom *p, struct str page, size_t step, bool stop_early)
{
    prom_init(p, &(struct prom_spec){.dialect = PROM_VLLM});
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
    CHECK(!l->has_kv || (l->kv_frac >= 0 && l->kv_frac <= 1));
    CHECK(!l->has_blocks || l->kv_tokens > 0);
    CHECK(l->n_running_lora <= ARRAY_LEN(l->running_lora) && l->n_waiting_lora <= ARRAY_LEN(l->waiting_lora));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct prom whole, split, all;
    if (size == 0)
        return 0;
    struct str page = {(const char *)data + 1, size - 1};
    parse(&whole, page, SIZE_MAX, true);
    parse(&split, page, (size_t)data[0] % 64 + 1, true);
    parse(&all, page, SIZE_MAX, false);
    CHECK(memcmp(&whole.load, &split.load, sizeof(whole.load)) == 0);
    CHECK(whole.lines == split.lines && whole.bad_lines == split.bad_lines && whole.stopped == split.stopped);
    CHECK(all.bytes == page.n && all.lines >= whole.lines);
    if (!whole.stopped)
        CHECK(memcmp(&whole.load, &all.load, sizeof(whole.load)) == 0);
    check_ranges(&whole.load);
    check_ranges(&all.load);
    return 0;
}
