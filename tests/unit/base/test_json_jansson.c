/* The JSON scanner against jansson: random documents, some spoiled, must be taken or refused alike and give the same
 * tree. */
#include "unit.h"
/* Four names of jansson's enum are ours as well. */
#define JSON_STRING JANSSON_STRING
#define JSON_TRUE   JANSSON_TRUE
#define JSON_FALSE  JANSSON_FALSE
#define JSON_NULL   JANSSON_NULL
#include <jansson.h>
#undef JSON_STRING
#undef JSON_TRUE
#undef JSON_FALSE
#undef JSON_NULL
#include "base/json.h"
#include "base/rng.h"

#include <stdlib.h>

static bool ours_accepts(struct str text)
{
    struct json j;
    json_init(&j, text);
    for (;;) {
        enum json_type t = json_next(&j);
        if (t == JSON_ERROR || t == JSON_END)
            return t == JSON_END;
    }
}

static json_t *jansson_load(struct str text, json_error_t *err)
{
    return json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, err);
}

static void random_string(struct rng *r, struct buf *b)
{
    static const char *const parts[] = {"a",
                                        "xyz",
                                        "\\n",
                                        "\\u00e9",
                                        "\\ud83d\\ude00",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\\\\",
                                        "\\\"",
                                        " ",
                                        "0123456789abcdefghi"};
    buf_add(b, "\"", 1);
    for (uint64_t n = rng_below(r, 6); n; n--)
        buf_add_str(b, str_c(parts[rng_below(r, ARRAY_LEN(parts))]));
    buf_add(b, "\"", 1);
}

static void random_value(struct rng *r, struct buf *b, int depth)
{
    static const char *const scalars[] = {"1", "-0", "2.5", "1e5", "-3E-2", "true", "false", "null", "123456"};
    uint64_t kind = rng_below(r, depth > 4 ? 2 : 4), n = rng_below(r, 4);
    if (kind == 0)
        buf_add_str(b, str_c(scalars[rng_below(r, ARRAY_LEN(scalars))]));
    else if (kind == 1)
        random_string(r, b);
    else {
        buf_add(b, kind == 2 ? "[" : "{", 1);
        for (uint64_t i = 0; i < n; i++) {
            if (i)
                buf_add(b, ", ", 1 + rng_below(r, 2));
            if (kind == 3) {
                random_string(r, b);
                buf_add(b, ":", 1);
            }
            random_value(r, b, depth + 1);
        }
        buf_add(b, kind == 2 ? "]" : "}", 1);
    }
}

/* Builds jansson's tree from our tokens, to compare whole documents. */
static json_t *tree_of(struct json *j, enum json_type t)
{
    char text[512];
    switch (t) {
    case JSON_OBJ: {
        json_t *o = json_object();
        while (json_next(j) == JSON_KEY) {
            size_t n = json_unescape(j->tok, text);
            char *key = str_dup((struct str){text, n}); /* the value reuses the text */
            json_object_setn_new_nocheck(o, key, n, tree_of(j, json_next(j)));
            free(key);
        }
        return o;
    }
    case JSON_ARR: {
        json_t *a = json_array();
        while ((t = json_next(j)) != JSON_ARR_END)
            json_array_append_new(a, tree_of(j, t));
        return a;
    }
    case JSON_STRING:
        return json_stringn(text, json_unescape(j->tok, text));
    case JSON_NUMBER: {
        double v = 0;
        assert_true(str_to_double(j->tok, &v));
        return json_real(v);
    }
    case JSON_TRUE:
        return json_true();
    case JSON_FALSE:
        return json_false();
    default:
        assert_int_equal(t, JSON_NULL);
        return json_null();
    }
}

static void test_like_jansson(void **state)
{
    (void)state;
    struct rng r;
    struct buf b;
    unsigned n_bad = 0, n_good = 0;
    rng_init(&r, 31);
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 60000; i++) {
        buf_clear(&b);
        random_value(&r, &b, 0);
        for (uint64_t edits = rng_below(&r, 3); edits && b.n; edits--) {
            static const char bytes[] = "{}[]\":,\\ \n\x01\xc3\xa9\x80\xff"
                                        "0123456789.-+eEtfnu";
            b.p[b.off + rng_below(&r, b.n)] =
                bytes[rng_below(&r, sizeof(bytes) - 1)]; /* no NUL: jansson overlooks it behind a number */
        }
        json_error_t err;
        json_t *theirs = jansson_load(buf_str(&b), &err);
        if (!theirs && json_error_code(&err) == json_error_numeric_overflow)
            continue; /* the grammar has no such limit */
        bool ours = ours_accepts(buf_str(&b));
        if (ours != (theirs != NULL))
            fail_msg("ours %d, jansson %d (%s): %s", ours, theirs != NULL, err.text, buf_cstr(&b));
        if (theirs) {
            struct json j;
            json_init(&j, buf_str(&b));
            json_t *tree = tree_of(&j, json_next(&j));
            assert_true(json_equal(tree, theirs));
            json_decref(tree);
        }
        json_decref(theirs);
        n_good += ours;
        n_bad += !ours;
    }
    assert_true(n_good > 10000 && n_bad > 10000);
    buf_free(&b);
}
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_jansson)};
    return RUN_TESTS(tests);
}
