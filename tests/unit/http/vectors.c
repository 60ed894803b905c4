/* Reader of the case files. */
#include "vectors.h"
#include <stdio.h>
#include <stdlib.h>

static NORETURN void die(const char *path, const char *line)
{
    fprintf(stderr, "%s: malformed: %s\n", path, line);
    exit(99);
}

static char hex(char c)
{
    return (char)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Resolves escapes in [s, end) into out, which is large enough. */
static size_t unescape(const char *s, const char *end, char *out)
{
    static const char from[] = "rnt0\\", to[] = {'\r', '\n', '\t', '\0', '\\'};
    size_t n = 0;
    for (; s < end; s++) {
        if (*s != '\\') {
            out[n++] = *s;
            continue;
        }
        s++;
        const char *k = strchr(from, *s);
        if (*s == 'x') {
            out[n++] = (char)(hex(s[1]) * 16 + hex(s[2]));
            s += 2;
        } else if (k) {
            out[n++] = to[k - from];
        } else {
            fprintf(stderr, "unknown escape \\%c\n", *s);
            exit(99);
        }
    }
    return n;
}

static void append(struct vector *v, const char *s, size_t times)
{
    size_t len = strlen(s);
    char *text = xmalloc(len + 1);
    size_t n = unescape(s, s + len, text);
    v->in = xrealloc(v->in, v->in_n + n * times + 1);
    for (size_t i = 0; i < times; i++, v->in_n += n)
        memcpy(v->in + v->in_n, text, n);
    free(text);
}

static void take_line(const char *path, struct vectors *vs, char *line)
{
    struct vector *v = vs->n ? &vs->v[vs->n - 1] : NULL;
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '\0' || line[0] == '#')
        return;
    if (strncmp(line, "= ", 2) == 0) {
        vs->v = xrealloc(vs->v, (vs->n + 1) * sizeof(*vs->v));
        vs->v[vs->n++] = (struct vector){.name = str_dup(str_c(line + 2)), .in = xmalloc(1)};
    } else if (v && strncmp(line, "< ", 2) == 0) {
        append(v, line + 2, 1);
    } else if (v && strncmp(line, "<*", 2) == 0) {
        char *text;
        unsigned long times = strtoul(line + 2, &text, 10);
        append(v, text + 1, times);
    } else if (v && !v->expect && strncmp(line, "> ", 2) == 0) {
        v->expect = str_dup(str_c(line + 2));
    } else {
        die(path, line);
    }
}

struct vectors vectors_load(const char *path)
{
    struct vectors vs = {0};
    char line[4096];
    FILE *f = fopen(path, "r");
    if (!f)
        die(path, "cannot open");
    while (fgets(line, sizeof(line), f))
        take_line(path, &vs, line);
    fclose(f);
    for (size_t i = 0; i < vs.n; i++)
        if (!vs.v[i].expect)
            die(path, vs.v[i].name);
    return vs;
}

void vectors_free(struct vectors *vs)
{
    for (size_t i = 0; i < vs->n; i++) {
        free(vs->v[i].name);
        free(vs->v[i].in);
        free(vs->v[i].expect);
    }
    free(vs->v);
}

bool vector_next(const char **at, struct vector_word *w)
{
    const char *s = *at + strspn(*at, " ");
    size_t n = strcspn(s, " ");
    const char *eq = memchr(s, '=', n);
    size_t key_n = eq ? (size_t)(eq - s) : n;
    if (n == 0)
        return false;
    CHECK(key_n < sizeof(w->key) && n - key_n < sizeof(w->value));
    memcpy(w->key, s, key_n);
    w->key[key_n] = '\0';
    w->value_n = eq ? unescape(eq + 1, s + n, w->value) : 0;
    w->value[w->value_n] = '\0';
    *at = s + n;
    return true;
}

size_t vector_number(const struct vector *v, const char *key, size_t otherwise)
{
    struct vector_word w;
    for (const char *at = v->expect; vector_next(&at, &w);)
        if (strcmp(w.key, key) == 0)
            return strtoul(w.value, NULL, 10);
    return otherwise;
}

bool vector_is(const struct vector *v, const char *outcome)
{
    struct vector_word w;
    const char *at = v->expect;
    return vector_next(&at, &w) && strcmp(w.key, outcome) == 0;
}
