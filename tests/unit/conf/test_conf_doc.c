/* Document trees: typing, positions, bounds, aliases, merge keys, streams, JSON. */
#include "conf_fixture.h"
#include "conf/doc.h"

struct parsed {
    struct arena a;
    const struct doc *doc;
    struct doc_where at;
    struct errbuf err;
    int rc;
};

static struct parsed parse(const char *text, bool json)
{
    struct parsed p = {0};
    arena_init(&p.a, 4096);
    p.rc = json ? doc_parse_json(&p.a, str_c(text), &p.doc, &p.at, &p.err)
                : doc_parse_yaml(&p.a, str_c(text), 1, &p.doc, &p.at, &p.err);
    return p;
}

static void types_of_plain_scalars(void **state)
{
    static const struct {
        const char *text;
        enum doc_kind kind;
        int64_t i;
    } rows[] = {
        {"8000", DOC_INT, 8000},
        {"-1", DOC_INT, -1},
        {"+7", DOC_INT, 7},
        {"0x1F", DOC_INT, 31},
        {"0o17", DOC_INT, 15},
        {"017", DOC_INT, 15},
        {"0", DOC_INT, 0},
        {"089", DOC_FLOAT, 0},
        {"1.5", DOC_FLOAT, 0},
        {"1e3", DOC_FLOAT, 0},
        {"yes", DOC_BOOL, 1},
        {"off", DOC_BOOL, 0},
        {"True", DOC_BOOL, 1},
        {"null", DOC_NULL, 0},
        {"~", DOC_NULL, 0},
        {"", DOC_NULL, 0},
        {"\"8000\"", DOC_STR, 0},
        {"'true'", DOC_STR, 0},
        {"1h", DOC_STR, 0},
        {"2024-01-01T00:00:00Z", DOC_STR, 0},
        {"10.0.0.1", DOC_STR, 0},
        {"!!str 12", DOC_STR, 0},
        {"18446744073709551616", DOC_FLOAT, 0},
        {"y", DOC_STR, 0},
        {"1_000", DOC_STR, 0},
        {"-", DOC_SEQ, 0},
        {"0x", DOC_STR, 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[128];
        snprintf(text, sizeof text, "v: %s\n", rows[i].text);
        struct parsed p = parse(text, false);
        if (rows[i].kind == DOC_SEQ) { /* "v: -" is an error of syntax or a list; never a crash */
            arena_free(&p.a);
            continue;
        }
        assert_int_equal(p.rc, 0);
        const struct doc *v = p.doc->pairs[0].value;
        if (v->kind != rows[i].kind)
            fail_msg("%s is %s", rows[i].text, doc_kind_name(v->kind));
        if (v->kind == DOC_INT)
            assert_int_equal(v->integer, rows[i].i);
        if (v->kind == DOC_BOOL)
            assert_int_equal(v->boolean, rows[i].i);
        arena_free(&p.a);
    }
}

static void positions(void **state)
{
    (void)state;
    struct parsed p = parse("a: 1\nb:\n  - x\n  - key: v\n", false);
    const struct doc *list = doc_get(p.doc, "b");
    assert_int_equal(list->items[1]->pairs[0].line, 4);
    assert_int_equal(list->items[1]->pairs[0].col, 5);
    assert_int_equal(list->items[1]->pairs[0].value->col, 10);
    arena_free(&p.a);
    p = parse("{\n  \"a\": [1,\n    \"\\u00e9\"]}", true);
    assert_int_equal(p.rc, 0);
    const struct doc *s = doc_get(p.doc, "a")->items[1];
    assert_int_equal(s->line, 3);
    assert_int_equal(s->col, 5);
    assert_str(s->text, "\xc3\xa9");
    arena_free(&p.a);
}

static void broken_texts(void **state)
{
    static const struct {
        const char *text;
        bool json;
        unsigned line;
        const char *says;
    } rows[] = {
        {"a: [1, 2\nb: 3\n", false, 2, "YAML"},
        {"a: 1\n\tb: 2\n", false, 2, "YAML"},
        {"a: *nobody\n", false, 1, "alias *nobody"},
        {"a: &x [*x]\n", false, 1, "alias *x"},
        {"? [1]\n: 2\n", false, 1, "a key must be a plain name"},
        {"a: \"x\\0y\"\n", false, 1, "NUL"},
        {"a: 1\n<<: 3\n", false, 2, "<< takes a mapping"},
        {"{\"a\": 1,\n}", true, 2, "JSON"},
        {"{\"a\": 1} x", true, 1, "JSON"},
        {"{\"a\": \"\\u0000\"}", true, 1, "NUL"},
        {"", true, 1, "JSON"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct parsed p = parse(rows[i].text, rows[i].json);
        if (p.rc == 0 || !strstr(p.err.msg, rows[i].says) || p.at.line != rows[i].line)
            fail_msg("%s: rc %d, %s at line %u", rows[i].text, p.rc, p.err.msg, p.at.line);
        arena_free(&p.a);
    }
}

static void merge_keys(void **state)
{
    (void)state;
    struct parsed p = parse("base: &b {x: 1, y: 2}\nmore: &m {y: 9, z: 3}\nuse: {<<: [*b, *m], x: 7}\n", false);
    const struct doc *u = doc_get(p.doc, "use");
    assert_int_equal(p.rc, 0);
    assert_int_equal(u->n, 3);
    assert_int_equal(doc_get(u, "x")->integer, 7); /* given directly wins */
    assert_int_equal(doc_get(u, "y")->integer, 2); /* the first merged one wins */
    assert_int_equal(doc_get(u, "z")->integer, 3);
    assert_null(u->dup);
    arena_free(&p.a);
    p = parse("a: 1\nb: 2\na: 3\n", false);
    assert_non_null(p.doc->dup);
    assert_int_equal(p.doc->dup->line, 3);
    arena_free(&p.a);
}

/* Ten lists of ten aliases to the one before: 10^n values out of a few lines. */
static void alias_bomb(void **state)
{
    char text[2048] = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    (void)state;
    for (int i = 1; i < 10; i++) {
        char line[200], items[100] = "";
        for (int k = 0; k < 10; k++)
            snprintf(items + strlen(items), sizeof items - strlen(items), "%s*a%d", k ? ", " : "", i - 1);
        snprintf(line, sizeof line, "a%d: &a%d [%s]\n", i, i, items);
        strcat(text, line);
    }
    struct parsed p = parse(text, false);
    assert_int_equal(p.rc, -1);
    assert_non_null(strstr(p.err.msg, "aliases expand to more than 10000 values"));
    assert_true(p.a.used < 100000);
    arena_free(&p.a);
    *strstr(text, "a3:") = '\0'; /* 1110 values are fine */
    p = parse(text, false);
    assert_int_equal(p.rc, 0);
    arena_free(&p.a);
}

static void depth(void **state)
{
    char text[512];
    (void)state;
    for (int n = DOC_MAX_DEPTH; n <= DOC_MAX_DEPTH + 1; n++) {
        for (int json = 0; json <= 1; json++) {
            memset(text, '[', (size_t)n);
            memset(text + n, ']', (size_t)n);
            text[2 * n] = '\0';
            struct parsed p = parse(text, json);
            assert_int_equal(p.rc, n > DOC_MAX_DEPTH ? -1 : 0);
            arena_free(&p.a);
        }
    }
}

static void streams(void **state)
{
    struct doc_stream s = {STR("---\na: 1\n---\n--- # comment\nb: |\n  ---\n  x\n---x: 1\n---"), 1};
    static const struct {
        const char *text;
        uint32_t line;
    } want[] = {{"---\na: 1\n", 1}, {"\n", 3}, {" # comment\nb: |\n  ---\n  x\n---x: 1\n", 4}, {"", 9}};
    struct str text;
    uint32_t line;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(doc_stream_next(&s, &text, &line));
        assert_str(text, want[i].text);
        assert_int_equal(line, want[i].line);
    }
    assert_false(doc_stream_next(&s, &text, &line));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_of_plain_scalars),
        cmocka_unit_test(positions),
        cmocka_unit_test(broken_texts),
        cmocka_unit_test(merge_keys),
        cmocka_unit_test(alias_bomb),
        cmocka_unit_test(depth),
        cmocka_unit_test(streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
