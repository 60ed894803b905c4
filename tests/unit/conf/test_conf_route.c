/* Which match a request falls under: precedence, kinds of matches, regular expressions within their limits. */
#include "conf_fixture.h"
#include "conf/regex.h"

#include <time.h>

static struct h1_head head_of(const char *headers)
{
    static char text[4096];
    struct h1_head h;
    struct h1_error e;
    snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", headers);
    assert_true(h1_parse_request(str_c(text), 65536, &h, &e) > 0);
    return h;
}

/* Name of the route that a request goes to on the first listener, "" for none. */
static struct str route(struct world *w, const char *host, const char *method, const char *path, const char *query,
                        const char *headers, const char *model)
{
    struct h1_head h = head_of(headers);
    struct conf_route_req rq = {.host = str_c(host),
                                .path = str_c(path),
                                .query = str_c(query),
                                .method = str_c(method),
                                .model = str_c(model),
                                .head = &h};
    const struct conf_match *m = conf_route(&w->conf->listeners[0], &rq);
    return m ? m->rule->route_name : STR("");
}

static void load_routes(struct world *w, const char *text)
{
    char all[16384];
    snprintf(all, sizeof all, GATEWAY POOL("q") "%s", text);
    world_load(w, all);
    assert_int_equal(w->rep.errors, 0);
}

#define R(name, hosts, match) ROUTE(name, hosts "  rules: [{matches: [" match "], backendRefs: [" POOL_REF("q") "]}]\n")

static void path_precedence(void **state)
{
    struct world *w = *state;
    load_routes(w, R("root", "", "{}") R("v1", "", "{path: {value: /v1}}") R("v1chat", "", "{path: {value: /v1/chat/}}")
                       R("exact", "", "{path: {type: Exact, value: /v1/chat}}")
                           R("regex", "", "{path: {type: RegularExpression, value: \"/v[0-9]/m.*\"}}"));
    static const char *const rows[][2] = {{"/", "root"},           {"/v1", "v1"},           {"/v1x", "root"},
                                          {"/v1/x", "v1"},         {"/v1/chat", "exact"},   {"/v1/chat/x", "v1chat"},
                                          {"/v1/chatter", "v1"},   {"/v1/models", "regex"}, {"/v10/models", "root"},
                                          {"/x/v1/models", "root"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_str(route(w, "h", "GET", rows[i][0], NULL, "", ""), rows[i][1]);
}

static void other_matches(void **state)
{
    struct world *w = *state;
    load_routes(w, R("plain", "", "{path: {value: /}}") R("post", "", "{path: {value: /}, method: POST}")
                       R("one", "", "{path: {value: /}, headers: [{name: X-A, value: \"1\"}]}")
                           R("two", "",
                             "{path: {value: /}, headers: [{name: X-A, value: \"1\"}, {name: x-b, type: "
                             "RegularExpression, value: \"b+\"}]}")
                               R("query", "", "{path: {value: /}, queryParams: [{name: k, value: \"a b\"}]}"));
    assert_str(route(w, "h", "GET", "/", NULL, "", ""), "plain");
    assert_str(route(w, "h", "POST", "/", NULL, "X-A: 1\r\n", ""), "post"); /* method before headers */
    assert_str(route(w, "h", "GET", "/", NULL, "x-a: 1\r\n", ""), "one");
    assert_str(route(w, "h", "GET", "/", NULL, "X-A: 1\r\nX-B: bb\r\n", ""), "two");
    assert_str(route(w, "h", "GET", "/", NULL, "X-A: 1\r\nX-B: bbc\r\n", ""), "one"); /* the whole value must match */
    assert_str(route(w, "h", "GET", "/", NULL, "X-A: 1\r\nX-A: 2\r\n", ""), "plain"); /* two headers are "1,2" */
    assert_str(route(w, "h", "GET", "/", "x=1&k=a%20b", "", ""), "query");
    assert_str(route(w, "h", "GET", "/", "k=a", "", ""), "plain");
    assert_false(w->conf->listeners[0].by_model);
}

static void hosts(void **state)
{
    struct world *w = *state;
    load_routes(w, R("any", "", "{path: {type: Exact, value: /a}}, {}")
                       R("wild", "  hostnames: [\"*.example.com\"]\n", "{}")
                           R("deeper", "  hostnames: [\"*.b.example.com\"]\n", "{}")
                               R("exact", "  hostnames: [x.example.com, y.example.com]\n", "{}"));
    assert_str(route(w, "h", "GET", "/", NULL, "", ""), "any");
    assert_str(route(w, "example.com", "GET", "/", NULL, "", ""), "any");
    assert_str(route(w, "z.example.com", "GET", "/a", NULL, "", ""), "wild"); /* host before path */
    assert_str(route(w, "a.b.example.com", "GET", "/", NULL, "", ""), "deeper");
    assert_str(route(w, "b.example.com", "GET", "/", NULL, "", ""), "wild");
    assert_str(route(w, "y.example.com", "GET", "/", NULL, "", ""), "exact");
}

/* Same match: the oldest route, then the name, then the order of rules. */
static void ties(void **state)
{
#define AGED(name, time)                                                                                               \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name ", creationTimestamp: \"" time \
    "\"}\n"                                                                                                            \
    "spec: {parentRefs: [{name: g}], rules: [{backendRefs: [" POOL_REF("q") "]}]}\n---\n"
    struct world *w = *state;
    load_routes(w, R("b", "", "{}") R("c", "", "{}") R("a2", "", "{}"));
    assert_str(route(w, "h", "GET", "/", NULL, "", ""), "a2");
    load_routes(w, R("a", "", "{}") AGED("z", "2024-01-01T00:00:00Z") AGED("y", "2025-01-01T00:00:00Z"));
    assert_str(route(w, "h", "GET", "/", NULL, "", ""), "z");
    load_routes(w,
                ROUTE("r", "  rules: [{backendRefs: [" POOL_REF("q") "]}, {backendRefs: [" POOL_REF("none") "]}]\n"));
    struct conf_route_req rq = {.host = STR("h"), .path = STR("/"), .method = STR("GET")};
    assert_int_equal(conf_route(&w->conf->listeners[0], &rq)->rule->index, 0);
}

/* Mission D16 to D19. */
static void by_model(void **state)
{
    struct world *w = *state;
    load_routes(w, R("m", "",
                     "{headers: [{type: Exact, name: X-Gateway-Model-Name, value: qwen}]}, "
                     "{headers: [{type: RegularExpression, name: x-gateway-model-name, value: travel-helper.*}]}"));
    assert_true(w->conf->listeners[0].by_model);
    static const char *const rows[][2] = {
        {"qwen", "m"}, {"qwen2", ""}, {"travel-helper", "m"}, {"travel-helper-v1", "m"}, {"my-travel-helper", ""},
        {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_str(route(w, "h", "POST", "/v1/chat/completions", NULL, "X-Gateway-Model-Name: qwen\r\n", rows[i][0]),
                   rows[i][1]);
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *value;
        bool match;
    } rows[] = {{"a|ab", "ab", true},
                {"a|ab", "abc", false},
                {"", "", true},
                {"a*", "", true},
                {"(?i)abc", "ABC", true},
                {"a.c", "a\nc", false},
                {"travel-helper.*", "travel-helper", true}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errbuf err;
        struct conf_regex *re = regex_new(str_c(rows[i].pattern), &err);
        assert_non_null(re);
        assert_int_equal(regex_match(re, str_c(rows[i].value)), rows[i].match);
        regex_free(re);
    }
    struct errbuf err;
    assert_null(regex_new(STR("("), &err));
    assert_non_null(strstr(err.msg, "no regular expression"));
    assert_null(regex_new(STR("\\C"), &err));
    char deep[300];
    memset(deep, '(', 100);
    memset(deep + 100, ')', 100);
    assert_null(regex_new((struct str){deep, 200}, &err));
}

/* Patterns that take for ever elsewhere: each match ends within milliseconds and does not match. */
static void catastrophic(void **state)
{
    static const char *const bad[] = {"(a+)+b",
                                      "(a|aa)+b",
                                      "(a|a?)+b",
                                      "(.*a){20}b",
                                      "(?:(?:(?:a*)*)*)*b",
                                      "(x+x+)+y",
                                      "^(([a-z])+.)+[A-Z]([a-z])+$",
                                      "(?=(a+))\\1*b"};
    char value[REGEX_MAX_VALUE + 1];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct timespec a, b;
        struct conf_regex *re = regex_new(str_c(bad[i]), NULL);
        assert_non_null(re);
        memset(value, strchr(bad[i], 'x') ? 'x' : 'a', sizeof value);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        assert_false(regex_match(re, (struct str){value, REGEX_MAX_VALUE}));
        assert_false(regex_match(re, (struct str){value, 40}));
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
        if (ms > 100)
            fail_msg("%s took %.1f ms", bad[i], ms);
        assert_false(regex_match(re, (struct str){value, REGEX_MAX_VALUE + 1}));
        regex_free(re);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(path_precedence, world_up, world_down),
        cmocka_unit_test_setup_teardown(other_matches, world_up, world_down),
        cmocka_unit_test_setup_teardown(hosts, world_up, world_down),
        cmocka_unit_test_setup_teardown(ties, world_up, world_down),
        cmocka_unit_test_setup_teardown(by_model, world_up, world_down),
        cmocka_unit_test(patterns),
        cmocka_unit_test(catastrophic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
