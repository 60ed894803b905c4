/* Fuzzes the chunked decoder and the SSE scanner: the result does not depend on how the input is cut. */
#include <stdlib.h>
#include "http/h1.h"
#include "http/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct result {
    char *data;
    size_t data_n, used;
    bool bad, done;
    struct sse sse;
};

static void feed(struct h1_chunked *c, struct str in, struct result *r)
{
    while (in.n && !c->done && !r->bad) {
        struct h1_error e = {0, NULL};
        struct str data;
        ptrdiff_t used = h1_chunked_next(c, in, &data, &e);
        if (used < 0) {
            CHECK(used == -1 && e.status == 400 && e.what);
            r->bad = true;
            return;
        }
        CHECK(used > 0 && (size_t)used <= in.n);
        CHECK(data.n == 0 || (data.p >= in.p && data.p + data.n <= in.p + used));
        memcpy(r->data + r->data_n, data.p, data.n);
        sse_feed(&r->sse, data);
        r->data_n += data.n;
        r->used += (size_t)used;
        in = str_from(in, (size_t)used);
    }
}

static void run(struct str in, size_t first, size_t then, struct result *r)
{
    struct h1_chunked c;
    *r = (struct result){.data = malloc(in.n + 1)};
    sse_init(&r->sse);
    h1_chunked_init(&c);
    feed(&c, str_first(in, first), r);
    for (size_t at = first; at < in.n; at += then)
        feed(&c, str_first(str_from(in, at), then), r);
    r->done = c.done;
}

static void same(const struct result *a, const struct result *b)
{
    char tail_a[SSE_TAIL], tail_b[SSE_TAIL];
    CHECK(a->bad == b->bad && a->done == b->done && a->data_n == b->data_n);
    CHECK(a->bad || a->used == b->used);
    CHECK(memcmp(a->data, b->data, a->data_n) == 0);
    CHECK(str_eq(sse_first_data(&a->sse), sse_first_data(&b->sse)));
    size_t n = sse_tail(&a->sse, tail_a);
    CHECK(n == sse_tail(&b->sse, tail_b) && memcmp(tail_a, tail_b, n) == 0);
    CHECK(n == MIN(a->data_n, (size_t)SSE_TAIL) && memcmp(tail_a, a->data + a->data_n - n, n) == 0);
}

static void walk_back(struct str text)
{
    struct str data;
    size_t pos = text.n, before = text.n + 1;
    while (sse_prev_data(text, &pos, &data)) {
        CHECK(pos < before && data.p >= text.p && data.p + data.n <= text.p + text.n);
        before = pos;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const size_t pieces[] = {1, 2, 5, 64};
    struct str in = {(const char *)bytes, n};
    struct result whole, cut;
    run(in, n, 1, &whole);
    for (size_t first = 1; first < n; first += 1 + first / 16) {
        run(in, first, n, &cut);
        same(&whole, &cut);
        free(cut.data);
    }
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        run(in, 0, pieces[i], &cut);
        same(&whole, &cut);
        free(cut.data);
    }
    walk_back((struct str){whole.data, whole.data_n});
    free(whole.data);
    return 0;
}
