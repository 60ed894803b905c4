/* HTTP/1 heads: the vectors whole and at every prefix, names, hop-by-hop rule, limits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include "http/h1.h"
#include "vectors.h"

struct outcome {
    ptrdiff_t n;
    struct h1_error e;
    struct h1_head head;
};

/* Parses the first n bytes from a heap block of exactly that size, so that a sanitizer sees every read beyond. The
 * block is returned for the caller to free: the head points into it. */
static char *parse(const struct vector *v, size_t n, bool response, struct outcome *o)
{
    char *copy = malloc(n ? n : 1);
    size_t limit = vector_number(v, "limit", H1_MAX_HEAD);
    bool to_head = strstr(v->expect, " to=HEAD") != NULL;
    assert_non_null(copy);
    memcpy(copy, v->in, n);
    o->e = (struct h1_error){0, NULL};
    memset(&o->head, 0xa5, sizeof(o->head));
    o->n = response ? h1_parse_response((struct str){copy, n}, limit, to_head, &o->head, &o->e)
                    : h1_parse_request((struct str){copy, n}, limit, &o->head, &o->e);
    return copy;
}

static const char *yes(bool b)
{
    return b ? "yes" : "no";
}

static void text_of_framing(const struct h1_head *h, char *out, size_t cap)
{
    static const char *const names[] = {"none", "length", "chunked", "eof"};
    if (h->framing == H1_BODY_LENGTH)
        snprintf(out, cap, "length:%llu", (unsigned long long)h->content_length);
    else
        snprintf(out, cap, "%s", names[h->framing]);
}

static void list_hop(const struct h1_head *h, char *out)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < h->n_headers; i++)
        if (h1_hop_by_hop(h, &h->headers[i]))
            n += (size_t)sprintf(out + n, "%s" STR_FMT, n ? "," : "", STR_ARG(h->headers[i].name));
}

/* What the field of an expectation really is, as text. */
static struct str actual(const char *key, const struct vector *v, const struct outcome *o, char *scratch, size_t cap)
{
    const struct h1_head *h = &o->head;
    const struct {
        const char *key;
        struct str text;
    } texts[] = {
        {"method", h->method_str},
        {"target", h->target},
        {"path", h->path},
        {"host", h->host},
        {"query", h->query.p ? h->query : STR("-")},
        {"reason", h->reason},
        {"keep", str_c(yes(h->keep_alive))},
        {"expect", str_c(yes(h->expect_continue))},
        {"upgrade", str_c(yes(h->upgrade))},
        {"known", str_c(yes(h->method != H1_OTHER))},
    };
    const struct {
        const char *key;
        size_t number;
    } numbers[] = {
        {"minor", h->minor}, {"status", h->status}, {"headers", h->n_headers}, {"rest", v->in_n - (size_t)o->n}};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(key, texts[i].key) == 0)
            return texts[i].text;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(key, numbers[i].key) == 0)
            snprintf(scratch, cap, "%zu", numbers[i].number);
    if (strcmp(key, "body") == 0)
        text_of_framing(h, scratch, cap);
    if (strcmp(key, "hop") == 0)
        list_hop(h, scratch);
    if (strncmp(key, "h:", 2) == 0)
        return h1_find_name(h, str_c(key + 2)) ? h1_find_name(h, str_c(key + 2))->value : STR("absent");
    if (strncmp(key, "id:", 3) == 0) {
        enum h1_name id = h1_find_name(h, str_c(key + 3))->id;
        return id == H_X_GATEWAY_DESTINATION  ? STR("destination")
               : id == H_X_GATEWAY_MODEL_NAME ? STR("model")
                                              : STR("other");
    }
    return str_c(scratch);
}

static void check_fields(const struct vector *v, const struct outcome *o)
{
    struct vector_word w;
    for (const char *at = v->expect; vector_next(&at, &w);) {
        char scratch[1000] = "unknown key";
        if (strcmp(w.key, "ok") == 0 || strcmp(w.key, "limit") == 0 || strcmp(w.key, "to") == 0)
            continue;
        struct str is = actual(w.key, v, o, scratch, sizeof(scratch)), want = {w.value, w.value_n};
        if (!str_eq(is, want))
            fail_msg("%s: %s is \"" STR_FMT "\", not \"" STR_FMT "\"", v->name, w.key, STR_ARG(is), STR_ARG(want));
    }
}

static void check_whole(const struct vector *v, bool response)
{
    struct outcome o;
    char *copy = parse(v, v->in_n, response, &o);
    if (vector_is(v, "ok")) {
        if (o.n <= 0)
            fail_msg("%s: refused (%u, %s)", v->name, o.e.status, o.n ? o.e.what : "incomplete");
        check_fields(v, &o);
    } else if (vector_is(v, "more")) {
        if (o.n != H1_MORE)
            fail_msg("%s: %td instead of incomplete (%s)", v->name, o.n, o.n < 0 ? o.e.what : "accepted");
    } else {
        struct vector_word w;
        const char *at = v->expect;
        assert_true(vector_next(&at, &w) && strcmp(w.key, "error") == 0 && vector_next(&at, &w));
        if (o.n != -1 || o.e.status != strtoul(w.key, NULL, 10) || !o.e.what || !*o.e.what)
            fail_msg("%s: %td, status %u (%s) instead of %s", v->name, o.n, o.e.status, o.e.what, w.key);
    }
    free(copy);
}

/* Every prefix: incomplete up to the head's end where it is accepted, then the same head whatever follows; never
 * accepted where it is refused, and once refused always refused alike. */
static void check_prefixes(const struct vector *v, bool response)
{
    struct outcome o;
    struct h1_error first = {0, NULL};
    free(parse(v, v->in_n, response, &o));
    ptrdiff_t whole = o.n;
    for (size_t n = 0; n < v->in_n; n++) {
        free(parse(v, n, response, &o));
        bool good = whole > 0 ? o.n == (n < (size_t)whole ? H1_MORE : whole) : o.n <= 0;
        if (first.what)
            good = good && o.n == -1 && o.e.what == first.what && o.e.status == first.status;
        if (!good)
            fail_msg("%s: %td after %zu of %zu bytes", v->name, o.n, n, v->in_n);
        if (o.n < 0)
            first = o.e;
    }
}

static void run(const char *path, bool response)
{
    struct vectors vs = vectors_load(path);
    assert_true(vs.n > 40);
    for (size_t i = 0; i < vs.n; i++) {
        check_whole(&vs.v[i], response);
        check_prefixes(&vs.v[i], response);
    }
    vectors_free(&vs);
}

static void test_requests(void **state UNUSED)
{
    run(VECTORS "/h1_requests.txt", false);
}

static void test_responses(void **state UNUSED)
{
    run(VECTORS "/h1_responses.txt", true);
}

/* Each byte value at each interesting place: exactly the RFC's sets are taken. */
static void test_every_byte(void **state UNUSED)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char shape[] = "GET /t HTTP/1.1\r\nHost: g\r\nNnN: 01234567vv\r\n\r\n";
    size_t target_at = 5, name_at = 27, value_at = 39;
    for (unsigned b = 0; b < 256; b++) {
        char one = (char)b;
        bool is_token = b && strchr(token, (int)b);
        struct {
            size_t at;
            bool ok;
        } places[] = {{target_at, b > 0x20 && b < 0x7f && b != '#'},
                      {name_at, is_token || b == ':'}, /* "N:" is a shorter name */
                      {value_at, (b >= 0x20 && b != 0x7f) || b == '\t'}};
        for (size_t i = 0; i < ARRAY_LEN(places); i++) {
            struct h1_head head;
            struct h1_error e;
            char text[sizeof(shape)];
            memcpy(text, shape, sizeof(shape));
            text[places[i].at] = one;
            bool taken = h1_parse_request((struct str){text, sizeof(text) - 1}, H1_MAX_HEAD, &head, &e) > 0;
            if (taken != places[i].ok)
                fail_msg("byte 0x%02x at %zu: %s", b, places[i].at, taken ? "taken" : e.what);
        }
        assert_int_equal(h1_valid_header_name((struct str){&one, 1}), is_token);
        assert_int_equal(h1_valid_header_value((struct str){&one, 1}), places[2].ok);
    }
    assert_false(h1_valid_header_name(STR("")));
    assert_true(h1_valid_header_value(STR("")));
}

static void test_names(void **state UNUSED)
{
    static const struct {
        struct str name;
        enum h1_name id;
    } rows[] = {
        {STR("Accept"), H_ACCEPT},
        {STR("AUTHORIZATION"), H_AUTHORIZATION},
        {STR("connection"), H_CONNECTION},
        {STR("Content-Encoding"), H_CONTENT_ENCODING},
        {STR("Content-Length"), H_CONTENT_LENGTH},
        {STR("Content-Type"), H_CONTENT_TYPE},
        {STR("Date"), H_DATE},
        {STR("Expect"), H_EXPECT},
        {STR("HOST"), H_HOST},
        {STR("Keep-Alive"), H_KEEP_ALIVE},
        {STR("Location"), H_LOCATION},
        {STR("Proxy-Authenticate"), H_PROXY_AUTHENTICATE},
        {STR("Proxy-Authorization"), H_PROXY_AUTHORIZATION},
        {STR("Proxy-Connection"), H_PROXY_CONNECTION},
        {STR("Retry-After"), H_RETRY_AFTER},
        {STR("Server"), H_SERVER},
        {STR("TE"), H_TE},
        {STR("Trailer"), H_TRAILER},
        {STR("Transfer-Encoding"), H_TRANSFER_ENCODING},
        {STR("Upgrade"), H_UPGRADE},
        {STR("User-Agent"), H_USER_AGENT},
        {STR("Via"), H_VIA},
        {STR("X-Forwarded-For"), H_X_FORWARDED_FOR},
        {STR("X-Request-Id"), H_X_REQUEST_ID},
        {STR("X-Gateway-Model-Name"), H_X_GATEWAY_MODEL_NAME},
        {STR("X-Gateway-Destination-Endpoint"), H_X_GATEWAY_DESTINATION},
        {STR("x-gateway-destination-endpoint-subset"), H_X_GATEWAY_DESTINATION},
        {STR("x-gateway-destination-endpoin"), H_UNKNOWN},
        {STR("x-gateway-model-names"), H_UNKNOWN},
        {STR(""), H_UNKNOWN},
        {STR("x"), H_UNKNOWN},
        {STR("hos"), H_UNKNOWN},
        {STR("hosts"), H_UNKNOWN},
        {STR("keep\ralive"), H_UNKNOWN},
        {STR("d\x01te"), H_UNKNOWN},
        {STR("content_length"), H_UNKNOWN},
    };
    uint64_t seen = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (h1_name_id(rows[i].name) != rows[i].id)
            fail_msg(STR_FMT " is %d", STR_ARG(rows[i].name), (int)h1_name_id(rows[i].name));
        seen |= (uint64_t)1 << rows[i].id;
    }
    assert_int_equal(seen, ((uint64_t)1 << H_N_NAMES) - 1); /* every id has a row */
}

static void test_reason(void **state UNUSED)
{
    assert_string_equal(h1_reason(200), "OK");
    assert_string_equal(h1_reason(429), "Too Many Requests");
    assert_string_equal(h1_reason(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_responses), cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_names),    cmocka_unit_test(test_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
