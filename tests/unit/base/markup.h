/* tests/unit/base/markup.h - whether a drawing or a page is well-formed. After cmocka. */
#ifndef TESTS_MARKUP_H
#define TESTS_MARKUP_H

#include "base/compiler.h"

/* Elements nest, attributes are quoted, markup in text is escaped. Returns the number of elements called `name`. */
static inline unsigned check_xml(const char *p, const char *name)
{
    const char *open[32];
    size_t depth = 0;
    unsigned found = 0, roots = 0;
    if (!strncmp(p, "<!DOCTYPE html>", 15))
        p += 15;
    while (*p) {
        if (*p != '<') {
            assert_true(depth > 0 || *p == '\n');
            assert_true(*p != '>' &&
                        (*p != '&' || !strncmp(p, "&amp;", 5) || !strncmp(p, "&lt;", 4) || !strncmp(p, "&gt;", 4)));
            p++;
            continue;
        }
        bool closing = p[1] == '/';
        const char *tag = p + 1 + closing, *end = tag;
        for (bool quoted = false; *end && (quoted || *end != '>'); end++) {
            quoted ^= *end == '"';
            assert_true(*end != '<');
        }
        assert_int_equal(*end, '>');
        size_t n = strcspn(tag, " >/");
        if (closing) {
            assert_true(depth > 0);
            depth--;
            assert_true(!strncmp(open[depth], tag, n) && strchr(" >", open[depth][n]));
        } else {
            roots += depth == 0;
            found += n == strlen(name) && !strncmp(tag, name, n);
            if (end[-1] != '/') {
                assert_true(depth < ARRAY_LEN(open));
                open[depth++] = tag;
            }
        }
        p = end + 1;
    }
    assert_int_equal(depth, 0);
    assert_int_equal(roots, 1);
    return found;
}

static inline unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

#endif
