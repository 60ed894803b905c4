/* SSE scanner: first event, tail, walk backwards; independent of how the stream is cut. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include "http/sse.h"

static void feed_by(struct sse *s, struct str text, size_t piece)
{
    sse_init(s);
    for (size_t at = 0; at < text.n; at += piece)
        sse_feed(s, str_first(str_from(text, at), piece));
}

static void test_first_event(void **state UNUSED)
{
    static const struct {
        const char *stream, *first;
    } rows[] = {
        {"data: {\"a\":1}\n\ndata: 2\n\n", "{\"a\":1}"},
        {"data:x\r\n\r\ndata: y\r\n\r\n", "x"},
        {"data: x\r\rdata: y\r\r", "x"},
        {"data:  two blanks\n\n", " two blanks"},
        {": keep-alive\n\n: again\n\nevent: message_start\nid: 7\ndata: x\n\n", "x"},
        {"event: ping\n\ndata: x\n\n", "x"},
        {"data: a\ndata: b\nretry: 3\n\n", "a\nb"},
        {"data: a\r\ndata: b\r\n\r\n", "a\nb"},
        {"data\ndata\n\n", "\n"},
        {"data:\n\ndata: x\n\n", ""},
        {"database: x\n\ndata: y\n\n", "y"},
        {"\n\n\ndata: x\n\n", "x"},
        {"data: unfinished\n", ""},
        {"data: unfinished", ""},
        {"{\"not\": \"a stream\"}", ""},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t piece = 1; piece < 80; piece++) {
            struct sse s;
            feed_by(&s, str_c(rows[i].stream), piece);
            struct str first = sse_first_data(&s);
            if (!str_eq_c(first, rows[i].first))
                fail_msg("row %zu by %zu: \"" STR_FMT "\"", i, piece, STR_ARG(first));
        }
}

/* An event longer than what is kept is cut; a comment longer than that does not hide the event behind it. */
static void test_long_first(void **state UNUSED)
{
    char text[4 * SSE_FIRST], want[SSE_FIRST];
    memset(text, 'x', sizeof(text));
    memset(want, 'x', sizeof(want));
    for (size_t piece = 1; piece < 2000; piece += 37) {
        struct sse s;
        memcpy(text, "data: ", 6);
        memcpy(text + sizeof(text) - 2, "\n\n", 2);
        feed_by(&s, (struct str){text, sizeof(text)}, piece);
        struct str first = sse_first_data(&s);
        assert_true(first.n >= SSE_FIRST - 6 && first.n <= SSE_FIRST);
        assert_memory_equal(first.p, want, first.n);

        memcpy(text, ": xxxx", 6);
        memcpy(text + sizeof(text) - 12, "\n\ndata: hi\n\n", 12);
        feed_by(&s, (struct str){text, sizeof(text)}, piece);
        assert_true(str_eq_c(sse_first_data(&s), "hi"));
    }
}

/* Not for ever: a body that is no event stream is not searched beyond SSE_SEARCH. */
static void test_gives_up(void **state UNUSED)
{
    static char text[SSE_SEARCH + 1];
    struct sse s;
    memset(text, 'x', sizeof(text));
    feed_by(&s, (struct str){text, SSE_SEARCH}, 1000);
    assert_false(s.first_done);
    sse_feed(&s, STR("\n"));
    assert_true(s.first_done);
    sse_feed(&s, STR("data: late\n\n"));
    assert_int_equal(sse_first_data(&s).n, 0);
}

static void test_tail(void **state UNUSED)
{
    static char text[3 * SSE_TAIL + 17], out[SSE_TAIL];
    static const size_t sizes[] = {0, 1, 100, SSE_TAIL - 1, SSE_TAIL, SSE_TAIL + 1, 2 * SSE_TAIL, sizeof(text)};
    static const size_t pieces[] = {1, 7, 100, 1000, SSE_TAIL - 1, SSE_TAIL, SSE_TAIL + 1, sizeof(text)};
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 31 >> 3);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            struct sse s;
            feed_by(&s, (struct str){text, sizes[i]}, pieces[k]);
            size_t n = sse_tail(&s, out), want = MIN(sizes[i], (size_t)SSE_TAIL);
            assert_int_equal(n, want);
            assert_int_equal(s.total, sizes[i]);
            assert_memory_equal(out, text + sizes[i] - want, want);
        }
}

static void test_backwards(void **state UNUSED)
{
    struct str text = STR("cut line\n\ndata: one\n\n: note\n\nevent: x\r\ndata:two\r\n\r\ndata: [DONE]\n\n"), data;
    static const char *const want[] = {"[DONE]", "two", "one"};
    size_t pos = text.n;
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(sse_prev_data(text, &pos, &data));
        assert_true(str_eq_c(data, want[i]));
    }
    assert_false(sse_prev_data(text, &pos, &data));
    assert_false(sse_prev_data(text, &pos, &data));

    text = STR("ata: cut\n\ndata: no line end");
    pos = text.n;
    assert_true(sse_prev_data(text, &pos, &data));
    assert_true(str_eq_c(data, "no line end"));
    assert_false(sse_prev_data(text, &pos, &data));
    pos = 0;
    assert_false(sse_prev_data(STR_NULL, &pos, &data));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_event), cmocka_unit_test(test_long_first),
                                       cmocka_unit_test(test_gives_up), cmocka_unit_test(test_tail),
                                       cmocka_unit_test(test_backwards)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
