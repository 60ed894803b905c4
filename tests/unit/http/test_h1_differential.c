/* What our parser takes, another parser (http-parser 2.9) reads in the same way or refuses: method, version, head
 * length, body framing and, for chunked bodies, data and end. Runs over the vectors and over random mutations of them,
 * from a fixed seed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <http_parser.h>
#include "http/h1.h"
#include "vectors.h"

#define MUTATIONS 300000
#define MAX_INPUT 4096

struct other { /* what the other parser saw */
    http_parser parser;
    bool head_done, message_done;
    size_t body_n;
    char body[MAX_INPUT];
    uint64_t content_length;
    bool chunked, keep_alive;
};

static uint64_t rng = 0x9e3779b97f4a7c15;

static size_t below(size_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (size_t)(rng % n);
}

static int on_head(http_parser *p)
{
    struct other *o = p->data;
    o->head_done = true;
    o->content_length = p->content_length;
    o->chunked = (p->flags & F_CHUNKED) != 0;
    o->keep_alive = http_should_keep_alive(p) != 0;
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
    struct other *o = p->data;
    memcpy(o->body + o->body_n, at, n);
    o->body_n += n;
    return 0;
}

static int on_end(http_parser *p)
{
    struct other *o = p->data;
    o->message_done = true;
    http_parser_pause(p, 1);
    return 0;
}

/* Returns the bytes that the other parser consumed. */
static size_t read_other(struct other *o, enum http_parser_type type, struct str in)
{
    http_parser_settings settings;
    http_parser_settings_init(&settings);
    settings.on_headers_complete = on_head;
    settings.on_body = on_body;
    settings.on_message_complete = on_end;
    memset(o, 0, offsetof(struct other, body));
    http_parser_init(&o->parser, type);
    o->parser.data = o;
    return http_parser_execute(&o->parser, &settings, in.p, in.n);
}

static void explain(const char *what, struct str in, const struct other *o)
{
    for (size_t i = 0; i < in.n; i++)
        fprintf(stderr, in.p[i] >= ' ' && in.p[i] < 0x7f ? "%c" : "\\x%02x", (unsigned char)in.p[i]);
    fail_msg("\n%s; the other says %s", what, http_errno_description(HTTP_PARSER_ERRNO(&o->parser)));
}

static bool same_framing(const struct h1_head *head, const struct other *o)
{
    bool has_length = o->content_length != UINT64_MAX;
    switch (head->framing) {
    case H1_BODY_CHUNKED:
        return o->chunked && !has_length;
    case H1_BODY_LENGTH:
        return !o->chunked && o->content_length == head->content_length;
    case H1_BODY_EOF:
        return !o->chunked && !has_length && !o->keep_alive;
    default:
        return true; /* requests: checked by the caller; responses: by status, whatever the headers say */
    }
}

/* Where the other parser is known to be wrong there is nothing to compare: it takes any name that begins with
 * Transfer-Encoding or Content-Length for that header, counts Proxy-Connection, takes tabs for part of a value, and
 * knows fewer methods. */
static bool comparable(const struct h1_head *head, bool response)
{
    static const struct str prefixes[] = {STR("transfer-encoding"), STR("content-length"), STR("connection")};
    for (size_t i = 0; i < head->n_headers; i++) {
        const struct h1_header *h = &head->headers[i];
        if (h->id == H_PROXY_CONNECTION)
            return false;
        for (size_t k = 0; k < ARRAY_LEN(prefixes); k++)
            if (str_ieq(str_first(h->name, prefixes[k].n), prefixes[k]) &&
                (h->name.n > prefixes[k].n ||
                 memchr(h->name.p, '\t', (size_t)(h->value.p + h->value.n + 1 - h->name.p))))
                return false;
    }
    return response || head->method != H1_OTHER;
}

static bool
    must_agree; /* over the vectors; among mutations a refusal by the other is no ambiguity and is only counted */
static size_t n_refused;

static bool refused(const char *what, struct str in, const struct other *o)
{
    if (must_agree)
        explain(what, in, o);
    n_refused++;
    return true;
}

static bool check_head(struct str in, bool response)
{
    static struct h1_head head;
    static struct other o;
    struct h1_error e;
    ptrdiff_t n =
        response ? h1_parse_response(in, H1_MAX_HEAD, false, &head, &e) : h1_parse_request(in, H1_MAX_HEAD, &head, &e);
    if (n <= 0 || !comparable(&head, response))
        return false;
    struct str whole = str_first(in, (size_t)n);
    read_other(&o, response ? HTTP_RESPONSE : HTTP_REQUEST, whole);
    if (!o.head_done)
        return refused("taken, but the other parser sees no head", whole, &o);
    if (o.parser.http_major != 1 || o.parser.http_minor != head.minor)
        explain("version differs", whole, &o);
    if (response ? o.parser.status_code != head.status
                 : !str_eq_c(head.method_str, http_method_str((enum http_method)o.parser.method)))
        explain("method or status differs", whole, &o);
    if (!same_framing(&head, &o) ||
        (!response && head.framing == H1_BODY_NONE && (o.chunked || o.content_length != UINT64_MAX)))
        explain("framing differs", whole, &o);
    const struct h1_header *options = h1_find(&head, H_CONNECTION);
    bool list = options && memchr(options->value.p, ',', options->value.n); /* the other stumbles over empty members */
    if (head.keep_alive && !o.keep_alive && !list && head.framing != H1_BODY_NONE)
        explain("persistence differs", whole, &o);
    return true;
}

static bool check_chunked(struct str in)
{
    static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    static char text[MAX_INPUT + sizeof(head)], body[MAX_INPUT];
    static struct other o;
    struct h1_chunked c;
    struct h1_error e;
    struct str data;
    size_t used = 0, body_n = 0;
    h1_chunked_init(&c);
    while (used < in.n && !c.done) {
        ptrdiff_t n = h1_chunked_next(&c, str_from(in, used), &data, &e);
        if (n < 0)
            return false;
        memcpy(body + body_n, data.p, data.n);
        body_n += data.n;
        used += (size_t)n;
    }
    if (!c.done)
        return false;
    memcpy(text, head, sizeof(head) - 1);
    memcpy(text + sizeof(head) - 1, in.p, used);
    struct str whole = {text, sizeof(head) - 1 + used};
    read_other(&o, HTTP_REQUEST, whole);
    if (!o.message_done)
        explain("our end is not the other's", whole, &o);
    if (!str_eq((struct str){body, body_n}, (struct str){o.body, o.body_n}))
        explain("the data differ", whole, &o);
    return true;
}

/* One to three edits: bytes that matter to framing are put in, pieces are cut out, doubled or taken from another case.
 */
static size_t mutate(char *text, size_t n, const struct vector *donor)
{
    static const char bytes[] = "\r\n\t\0 :;,=0159afAF+-x\x7f\x80\x0b\"";
    for (size_t edits = 1 + below(3); edits > 0 && n > 0; edits--) {
        size_t at = below(n), len = 1 + below(12);
        len = MIN(len, n - at);
        switch (below(5)) {
        case 0:
            text[at] = bytes[below(sizeof(bytes) - 1)];
            break;
        case 1:
            memmove(text + at, text + at + len, n - at - len);
            n -= len;
            break;
        case 2:
            if (n + len > MAX_INPUT / 2)
                break;
            memmove(text + at + len, text + at, n - at);
            n += len;
            break;
        case 3:
            if (n == MAX_INPUT / 2)
                break;
            memmove(text + at + 1, text + at, n - at);
            text[at] = bytes[below(sizeof(bytes) - 1)];
            n++;
            break;
        default:
            if (donor->in_n == 0)
                break;
            len = MIN(len * 4, MIN(n - at, donor->in_n));
            memcpy(text + at, donor->in + below(donor->in_n - len + 1), len);
        }
    }
    return n;
}

enum kind { REQUESTS, RESPONSES, BODIES };

static bool check(enum kind kind, struct str in)
{
    return kind == BODIES ? check_chunked(in) : check_head(in, kind == RESPONSES);
}

static void run(enum kind kind, const char *path)
{
    struct vectors vs = vectors_load(path);
    char text[MAX_INPUT];
    size_t taken = 0;
    must_agree = true;
    for (size_t i = 0; i < vs.n; i++)
        if (vs.v[i].in_n <= MAX_INPUT)
            check(kind, (struct str){vs.v[i].in, vs.v[i].in_n});
    must_agree = false;
    n_refused = 0;
    for (size_t i = 0; i < MUTATIONS; i++) {
        const struct vector *v = &vs.v[below(vs.n)];
        size_t n = MIN(v->in_n, (size_t)MAX_INPUT / 2);
        memcpy(text, v->in, n);
        n = mutate(text, n, &vs.v[below(vs.n)]);
        taken += check(kind, (struct str){text, n});
    }
    printf("%zu of %d mutations taken and compared, %zu of them refused by the other\n", taken, MUTATIONS, n_refused);
    assert_true(n_refused < taken / 50);
    assert_true(taken > MUTATIONS / 100); /* else the mutations are too wild to show anything */
    vectors_free(&vs);
}

static void test_requests(void **state UNUSED)
{
    run(REQUESTS, VECTORS "/h1_requests.txt");
}

static void test_responses(void **state UNUSED)
{
    run(RESPONSES, VECTORS "/h1_responses.txt");
}

static void test_bodies(void **state UNUSED)
{
    run(BODIES, VECTORS "/h1_chunked.txt");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_requests), cmocka_unit_test(test_responses),
                                       cmocka_unit_test(test_bodies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
