/* The simulated server's tokenizer: piece rules, and the properties the prefix cache relies on. */
#include "sim/tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static uint32_t count(const char *text)
{
    struct tokens t = {0};
    tokens_text(&t, str_c(text));
    uint32_t n = t.n;
    tokens_free(&t);
    return n;
}

static void pieces(void **state)
{
    (void)state;
    assert_int_equal(count(""), 0);
    assert_int_equal(count("hello"), 1);
    assert_int_equal(count("hello world"), 2);
    assert_int_equal(count("hello, world!"), 4);
    assert_int_equal(count("internationalisation"), 4); /* 9 + 4 + 4 + 3 */
    assert_int_equal(count("1984"), 4);
    assert_int_equal(count("a\n\nb"), 3);
    assert_int_equal(count("\xe4\xbd\xa0\xe5\xa5\xbd"), 2);
    assert_int_equal(count("=========="), 3);
    assert_int_equal(count("    if x"), 3); /* the indentation, " if", " x" */
    assert_int_equal(count("\xff\xfe"), 2);
}

static void english_is_about_four_bytes(void **state)
{
    (void)state;
    const char *text = "San Francisco, a city that has long been a beacon of innovation, culture, and diversity, "
                       "continues to captivate "
                       "the world with its unique charm and character.";
    double per = (double)strlen(text) / count(text);
    assert_true(per > 3.5 && per < 6);
}

/* A text that begins with another one begins with its tokens, when the cut is between words: what multi-turn chats
 * need. */
static void prefix_is_stable(void **state)
{
    (void)state;
    struct tokens a = {0}, b = {0};
    tokens_text(&a, STR("one two three,"));
    tokens_text(&b, STR("one two three, four"));
    assert_true(b.n == a.n + 1);
    assert_memory_equal(a.v, b.v, a.n * sizeof(*a.v));
    tokens_free(&a);
    tokens_free(&b);
}

static void one_word_is_one_token(void **state)
{
    (void)state;
    struct tokens t = {0};
    tokens_text(&t, STR(" river river"));
    assert_int_equal(t.n, 2);
    assert_int_equal(t.v[0], tokens_one(STR(" river")));
    assert_int_equal(t.v[0], t.v[1]);
    assert_true(t.v[0] < TOKEN_START);
    tokens_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces),
        cmocka_unit_test(english_is_about_four_bytes),
        cmocka_unit_test(prefix_is_stable),
        cmocka_unit_test(one_word_is_one_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
