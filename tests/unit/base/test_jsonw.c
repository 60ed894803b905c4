/* The JSON writer: exact text, escaping, and strings that come back through the scanner. */
#include "unit.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>

static void test_text(void **state)
{
    (void)state;
    struct buf out;
    struct jsonw w;
    buf_init(&out, 10000);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "a");
    jsonw_u64(&w, UINT64_MAX);
    jsonw_key(&w, "b");
    jsonw_arr(&w);
    jsonw_i64(&w, INT64_MIN);
    jsonw_f(&w, 0.5);
    jsonw_f(&w, 1e9);
    jsonw_f(&w, (double)NAN);
    jsonw_arr(&w);
    jsonw_arr_end(&w);
    jsonw_obj(&w);
    jsonw_obj_end(&w);
    jsonw_bool(&w, true);
    jsonw_bool(&w, false);
    jsonw_null(&w);
    jsonw_raw(&w, STR("[1, 2]"));
    jsonw_arr_end(&w);
    jsonw_key(&w, "q\"");
    jsonw_cstr(&w, "\\\"\b\f\n\r\t\x01\x1f/\x7f");
    jsonw_key(&w, "");
    jsonw_cstr(&w, NULL);
    jsonw_key(&w, "u");
    jsonw_str(&w, STR("\xc3\xa9\xff\xe2\x82z\xf0\x9f\x98\x80\xed\xa0\x80"));
    jsonw_obj_end(&w);
    assert_string_equal(
        buf_cstr(&out),
        "{\"a\":18446744073709551615,\"b\":[-9223372036854775808,0.5,1e+09,null,[],{},true,false,null,[1, 2]],"
        "\"q\\\"\":\"\\\\\\\"\\b\\f\\n\\r\\t\\u0001\\u001f/\x7f\",\"\":null,"
        "\"u\":\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
    buf_free(&out);
}

static void test_overflow(void **state)
{
    (void)state;
    struct buf out;
    struct jsonw w;
    buf_init(&out, 8);
    jsonw_init(&w, &out);
    jsonw_cstr(&w, "0123456789");
    assert_true(out.overflow);
    assert_true(out.n <= 8);
    buf_free(&out);
}

/* Any valid text written comes back equal; any bytes written give a valid string. */
static void test_round_trip(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 8);
    struct buf out;
    buf_init(&out, 10000);
    for (int i = 0; i < 50000; i++) {
        char text[300], back[2000];
        size_t n = 0, want = rng_below(&r, 200);
        while (n < want)
            n += utf8_put((uint32_t)rng_below(&r, (uint64_t[]){0x30, 0x80, 0x800, 0x110000}[rng_below(&r, 4)]),
                          text + n);
        bool spoiled = n && i % 4 == 0;
        if (spoiled)
            text[rng_below(&r, n)] = (char)rng_u64(&r);
        struct jsonw w;
        struct json j;
        buf_clear(&out);
        jsonw_init(&w, &out);
        jsonw_str(&w, (struct str){text, n});
        json_init(&j, buf_str(&out));
        assert_int_equal(json_next(&j), JSON_STRING);
        size_t back_n = json_unescape(j.tok, back);
        if (!spoiled) {
            assert_true(str_eq((struct str){back, back_n}, (struct str){text, n}));
            assert_true(json_str_eq(j.tok, j.escaped, (struct str){text, n}));
        }
        assert_int_equal(json_next(&j), JSON_END);
    }
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_overflow),
                                       cmocka_unit_test(test_round_trip)};
    return RUN_TESTS(tests);
}
