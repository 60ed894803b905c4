/* Fuzz target: any bytes as a saved benchmark result, with and without the requests. */
#include "bench/saved.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bounded(const struct saved_run *r, bool details)
{
    CHECK(r->n_figures <= SAVED_MAX_FIGURES);
    CHECK(memchr(r->label, 0, sizeof(r->label)) && memchr(r->model, 0, sizeof(r->model)) && r->label[0]);
    CHECK(details || !r->ttft.there);
    double gaps = 0;
    for (size_t i = 0; i < r->itl_n.n; i++)
        gaps += r->itl_n.v[i];
    CHECK(gaps == (double)r->itl.n);
    CHECK(!details || (r->itl_n.n == r->ttft.n && r->output.n == r->ttft.n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int details = 0; details < 2; details++) {
        struct saved_runs runs;
        struct errbuf err = {{0}};
        bool ok = saved_parse((struct str){(const char *)data, size}, "fuzz", details, &runs, &err);
        CHECK(ok ? runs.n > 0 : runs.n == 0 && err.msg[0]);
        for (size_t i = 0; i < runs.n; i++)
            bounded(&runs.v[i], details);
        saved_free(&runs);
    }
    return 0;
}
