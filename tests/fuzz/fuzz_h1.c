/* Fuzzes the head parser: what it takes obeys the rules that its users rely on, and no prefix of anything is taken
 * earlier. */
#include <stdlib.h>
#include "http/h1.h"
#include "http/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static struct h1_head head;
static struct h1_error error;

static ptrdiff_t parse(struct str in, int mode, struct h1_head *out)
{
    return mode == 0 ? h1_parse_request(in, 16384, out, &error) : h1_parse_response(in, 16384, mode == 2, out, &error);
}

static void check_span(struct str s, struct str whole)
{
    bool literal = s.n == 1 && s.p[0] == '/';
    CHECK(s.n == 0 || literal || (s.p >= whole.p && s.p + s.n <= whole.p + whole.n));
}

/* The rules behind smuggling defences, written again without the parser's own helpers. */
static void check_framing(int mode)
{
    size_t n_length = 0, n_coding = 0, n_host = 0;
    for (size_t i = 0; i < head.n_headers; i++) {
        n_length += str_ieq(head.headers[i].name, STR("content-length"));
        n_coding += str_ieq(head.headers[i].name, STR("transfer-encoding"));
        n_host += str_ieq(head.headers[i].name, STR("host"));
    }
    CHECK(n_length + n_coding <= 1 && n_host <= 1);
    CHECK(head.framing != H1_BODY_LENGTH || n_length == 1);
    CHECK(head.framing != H1_BODY_CHUNKED || (n_coding == 1 && head.minor == 1));
    CHECK(mode || head.framing != H1_BODY_EOF);
    CHECK(mode || head.framing != H1_BODY_NONE || n_length + n_coding == 0);
    CHECK(mode || head.minor == 0 || (n_host == 1 && head.host.n > 0));
    CHECK(mode != 2 || head.framing == H1_BODY_NONE);
}

static void check_taken(struct str whole, int mode)
{
    CHECK(whole.n >= 4 && memcmp(whole.p + whole.n - 4, "\r\n\r\n", 4) == 0);
    for (size_t i = 0; i < whole.n; i++) {
        CHECK(whole.p[i] != '\n' || (i > 0 && whole.p[i - 1] == '\r'));
        CHECK(whole.p[i] != '\r' || (i + 1 < whole.n && whole.p[i + 1] == '\n'));
        CHECK(whole.p[i] != '\0');
    }
    check_span(head.target, whole);
    check_span(head.host, whole);
    check_span(head.path, whole);
    check_span(head.query, whole);
    check_span(head.reason, whole);
    CHECK(head.n_headers <= H1_MAX_HEADERS);
    for (size_t i = 0; i < head.n_headers; i++) {
        const struct h1_header *h = &head.headers[i];
        check_span(h->name, whole);
        check_span(h->value, whole);
        CHECK(h1_valid_header_name(h->name) && h1_valid_header_value(h->value));
        CHECK(h->id == h1_name_id(h->name));
        (void)h1_hop_by_hop(&head, h);
    }
    check_framing(mode);
}

static void use_uri(void)
{
    char *out = malloc(head.path.n + 1), small[16];
    struct str value;
    if (uri_path_ok(head.path)) {
        struct str norm = {out, uri_path_normalise(head.path, out)};
        CHECK(norm.n <= head.path.n && uri_path_ok(norm));
        CHECK(uri_prefix_match(norm, STR("/")));
    }
    if (uri_query_get(head.query, STR("a"), small, sizeof(small), &value))
        CHECK(value.n <= sizeof(small));
    free(out);
}

static void run(struct str in, int mode)
{
    static struct h1_head scratch;
    ptrdiff_t n = parse(in, mode, &head);
    size_t limit = n > 0 ? (size_t)n : in.n;
    CHECK(n >= -1 && (n < 0 || (size_t)n <= in.n));
    if (n < 0)
        CHECK(error.status >= 400 && error.what);
    if (n > 0) {
        check_taken(str_first(in, (size_t)n), mode);
        use_uri();
    }
    for (size_t cut = 1; cut < limit; cut += 1 + cut / 8) { /* prefixes: all short ones, then fewer */
        ptrdiff_t m = parse(str_first(in, limit - cut), mode, &scratch);
        CHECK(n > 0 ? m == H1_MORE : m <= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    for (int mode = 0; mode < 3; mode++)
        run((struct str){(const char *)bytes, n}, mode);
    return 0;
}
