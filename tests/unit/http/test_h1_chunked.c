/* Chunked bodies: the vectors cut in every way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include "http/h1.h"
#include "vectors.h"

struct result {
    char data[16384];
    size_t data_n, used;
    bool bad, done;
    struct h1_error e;
};

/* Feeds one piece from a heap block of its exact size. */
static void feed(struct h1_chunked *c, const char *p, size_t n, struct result *r)
{
    char *copy = malloc(n ? n : 1);
    struct str in = {copy, n}, data;
    assert_non_null(copy);
    memcpy(copy, p, n);
    while (in.n && !c->done && !r->bad) {
        ptrdiff_t used = h1_chunked_next(c, in, &data, &r->e);
        r->bad = used < 0;
        if (r->bad)
            break;
        assert_true(used > 0 && (size_t)used <= in.n);
        assert_true(data.n == 0 || (data.p >= in.p && data.p + data.n <= in.p + used));
        assert_true(r->data_n + data.n <= sizeof(r->data));
        memcpy(r->data + r->data_n, data.p, data.n);
        r->data_n += data.n;
        r->used += (size_t)used;
        in = str_from(in, (size_t)used);
    }
    free(copy);
}

static struct result run_pieces(const struct vector *v, size_t first, size_t then)
{
    struct result r = {.data_n = 0};
    struct h1_chunked c;
    h1_chunked_init(&c);
    feed(&c, v->in, first, &r);
    for (size_t at = first; at < v->in_n; at += then)
        feed(&c, v->in + at, MIN(then, v->in_n - at), &r);
    r.done = c.done;
    return r;
}

static void check(const struct vector *v, const struct result *r, size_t first, size_t then)
{
    struct vector_word w;
    bool good = vector_is(v, "ok") ? r->done && !r->bad : !r->done && r->bad == vector_is(v, "error");
    if (r->bad)
        good = good && r->e.status == 400 && r->e.what && *r->e.what;
    for (const char *at = v->expect; good && vector_next(&at, &w);)
        if (strcmp(w.key, "data") == 0)
            good = str_eq((struct str){w.value, w.value_n}, (struct str){r->data, r->data_n});
    if (vector_is(v, "ok"))
        good = good && v->in_n - r->used == vector_number(v, "rest", 0);
    if (!good)
        fail_msg("%s cut at %zu, then by %zu: %s", v->name, first, then,
                 r->bad    ? r->e.what
                 : r->done ? "done"
                           : "more");
}

static void test_vectors(void **state UNUSED)
{
    static const size_t sizes[] = {1, 2, 3, 7};
    struct vectors vs = vectors_load(VECTORS "/h1_chunked.txt");
    assert_true(vs.n > 40);
    for (size_t i = 0; i < vs.n; i++) {
        const struct vector *v = &vs.v[i];
        for (size_t first = 0; first <= MIN(v->in_n, (size_t)1000); first++) {
            struct result r = run_pieces(v, first, v->in_n);
            check(v, &r, first, v->in_n);
        }
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            struct result r = run_pieces(v, 0, sizes[k]);
            check(v, &r, 0, sizes[k]);
        }
    }
    vectors_free(&vs);
}

/* The decoder stands still once it is done and needs no more than what is there. */
static void test_done_and_empty(void **state UNUSED)
{
    struct h1_chunked c;
    struct h1_error e;
    struct str data;
    h1_chunked_init(&c);
    assert_int_equal(h1_chunked_next(&c, STR_NULL, &data, &e), 0);
    assert_int_equal(h1_chunked_next(&c, STR("0\r\n\r\nGET"), &data, &e), 5);
    assert_true(c.done);
    assert_int_equal(data.n, 0);
    assert_int_equal(h1_chunked_next(&c, STR("GET"), &data, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_done_and_empty)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
