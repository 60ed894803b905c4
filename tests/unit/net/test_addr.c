/* Addresses: parse, print, compare, the guard against shared ports. */
#include "net_test.h"

static void test_parse_and_format(void **state UNUSED)
{
    static const struct {
        const char *in, *out; /* out NULL: refused */
    } v[] = {
        {"127.0.0.1:80", "127.0.0.1:80"},
        {"127.0.0.1", "127.0.0.1:8000"},
        {":9090", "0.0.0.0:9090"},
        {"[::1]:80", "[::1]:80"},
        {"[::1]", "[::1]:8000"},
        {"::1", "[::1]:8000"},
        {"fe80::1", "[fe80::1]:8000"},
        {"10.1.2.3:65535", "10.1.2.3:65535"},
        {"10.1.2.3:65536", NULL},
        {"10.1.2.3:", NULL},
        {"10.1.2.3:x", NULL},
        {"10.1.2.3:-1", NULL},
        {"host:80", NULL},
        {"", NULL},
        {"[127.0.0.1]:80", NULL},
        {"[::1", NULL},
        {"[::1]x", NULL},
        {"1.2.3.4.5:80", NULL},
        {"[]:80", NULL},
        {"[:80", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        struct addr a;
        char text[ADDR_TEXT];
        bool ok = addr_parse_hostport(str_c(v[i].in), 8000, &a);
        if (ok != (v[i].out != NULL))
            fail_msg("\"%s\": %d", v[i].in, ok);
        if (!ok)
            continue;
        assert_int_equal(addr_format(&a, text, sizeof(text)), strlen(v[i].out));
        assert_string_equal(text, v[i].out);
    }
}

static void test_equality_ignores_padding(void **state UNUSED)
{
    struct addr a = loopback(80), b, c = loopback(81), d;
    memset(&b, 0xff, sizeof(b));
    b.ss.v4 =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memset(b.ss.v4.sin_zero, 0x55, sizeof(b.ss.v4.sin_zero));
    assert_true(addr_eq(&a, &b));
    assert_false(addr_eq(&a, &c));
    assert_true(addr_parse(STR("::1"), 80, &d));
    assert_false(addr_eq(&a, &d));
    assert_true(addr_eq(&d, &d));
}

static void test_short_buffer(void **state UNUSED)
{
    struct addr a = loopback(65000);
    char text[8];
    assert_int_equal(addr_format(&a, text, sizeof(text)), 7);
    assert_string_equal(text, "127.0.0");
}

static void test_resolve(void **state UNUSED)
{
    struct addr a;
    struct errbuf err;
    char text[ADDR_TEXT];
    assert_true(addr_resolve_hostport(STR("127.0.0.1:81"), 80, &a, &err));
    if (addr_resolve_hostport(STR("localhost:8080"), 80, &a, &err)) {
        addr_format(&a, text, sizeof(text));
        assert_true(strcmp(text, "127.0.0.1:8080") == 0 || strcmp(text, "[::1]:8080") == 0);
    }
    assert_false(addr_resolve_hostport(STR("no such host:80"), 80, &a, &err));
    assert_true(strlen(err.msg) > 10);
    assert_false(addr_resolve_hostport(STR("localhost:http"), 80, &a, &err));
}

static void ignore(struct listener *ln UNUSED, struct conn *c)
{
    conn_abort(c);
}

static void test_in_use(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    struct errbuf err;
    struct addr any = loopback(0);
    struct listener *a = listener_open(l, &any, ignore, NULL, &err);
    assert_non_null(a);
    struct addr at = loopback(listener_port(a));
    assert_true(addr_in_use(&at));
    struct listener *b = listener_open(l, &at, ignore, NULL, &err); /* SO_REUSEPORT: a second worker */
    assert_non_null(b);
    listener_close(a);
    listener_close(b);
    assert_false(addr_in_use(&at));
    assert_false(addr_in_use(&any));
    struct addr foreign;
    assert_true(addr_parse(STR("192.0.2.1"), 80, &foreign));
    assert_null(listener_open(l, &foreign, ignore, NULL, &err));
    assert_non_null(strstr(err.msg, "192.0.2.1:80"));
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_and_format), cmocka_unit_test(test_equality_ignores_padding),
        cmocka_unit_test(test_short_buffer),     cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
