/* conf/yaml.c - YAML text to the document tree, over libyaml's events. */
#include "conf/doc.h"
#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    struct doc_builder b;
    struct map anchors;               /* name -> const struct doc *, complete nodes only */
    char *open_anchor[DOC_MAX_DEPTH]; /* of the open containers */
    uint32_t line0;
    struct doc_where at;
};

static bool one_of(struct str s, const char *const *words)
{
    for (; *words; words++)
        if (str_eq_c(s, *words))
            return true;
    return false;
}

/* Integers as the tools of Kubernetes read them: decimal, 0x, 0o and a leading zero for octal, 0b. */
static bool read_int(struct str s, int64_t *out)
{
    char text[40], *end;
    size_t sign = s.n && (s.p[0] == '-' || s.p[0] == '+');
    int base = 10;
    if (s.n == sign || s.n >= sizeof text || s.p[sign] < '0' || s.p[sign] > '9')
        return false;
    if (s.p[sign] != '0' || s.n == sign + 1)
        return str_to_i64(s, out);
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    char *digits = text + sign + 1, kind = *digits;
    if (kind == 'x' || kind == 'o' || kind == 'b') {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
        digits++;
    } else {
        base = 8;
    }
    if (*digits == '-' || *digits == '+' || *digits == ' ' || !*digits)
        return false;
    errno = 0;
    long long v = strtoll(digits, &end, base);
    if (*end || errno)
        return false;
    *out = text[0] == '-' ? -v : v;
    return true;
}

static bool is_float(struct str s)
{
    double v;
    if (s.n == 0 || !(s.p[0] == '-' || s.p[0] == '+' || s.p[0] == '.' || (s.p[0] >= '0' && s.p[0] <= '9')))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789+-.eE", s.p[i]))
            return false;
    return str_to_double(s, &v);
}

static void type_plain(struct doc *d)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL};
    d->plain_merge = str_eq_c(d->text, "<<");
    if (one_of(d->text, nulls)) {
        d->kind = DOC_NULL;
    } else if (one_of(d->text, yes) || one_of(d->text, no)) {
        d->kind = DOC_BOOL;
        d->boolean = one_of(d->text, yes);
    } else if (read_int(d->text, &d->integer)) {
        d->kind = DOC_INT;
    } else if (is_float(d->text)) {
        d->kind = DOC_FLOAT;
    }
}

static void place(struct reader *r, yaml_mark_t m)
{
    r->at.line = r->line0 + (uint32_t)m.line;
    r->at.col = (uint32_t)m.column + 1;
}

static void set_anchor(struct reader *r, const char *name, const struct doc *d)
{
    if (name)
        map_put(&r->anchors, str_c(name), (void *)(uintptr_t)d);
}

static bool on_scalar(struct reader *r, const yaml_event_t *e)
{
    struct doc *d = doc_node(&r->b, DOC_STR, r->at.line, r->at.col);
    struct str raw = {(const char *)e->data.scalar.value, e->data.scalar.length};
    if (memchr(raw.p, 0, raw.n))
        return err_set(r->b.err, "a NUL character in a string"), false;
    d->text = arena_str(r->b.arena, raw);
    if (e->data.scalar.plain_implicit && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        type_plain(d);
    set_anchor(r, (const char *)e->data.scalar.anchor, d);
    return doc_add(&r->b, d, false);
}

static bool on_alias(struct reader *r, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    const struct doc *d = map_get(&r->anchors, str_c(name));
    if (!d)
        return err_set(r->b.err, "alias *%s has no finished anchor before it", name), false;
    return doc_add(&r->b, d, true);
}

static bool on_open(struct reader *r, enum doc_kind kind, const yaml_char_t *anchor)
{
    if (!doc_open(&r->b, kind, r->at.line, r->at.col))
        return false;
    r->open_anchor[r->b.depth - 1] = anchor ? str_dup(str_c((const char *)anchor)) : NULL;
    return true;
}

static bool on_close(struct reader *r)
{
    char *anchor = r->open_anchor[r->b.depth - 1];
    r->open_anchor[r->b.depth - 1] = NULL;
    const struct doc *d = doc_close(&r->b);
    if (d)
        set_anchor(r, anchor, d);
    free(anchor);
    return d != NULL;
}

static bool on_event(struct reader *r, const yaml_event_t *e)
{
    place(r, e->start_mark);
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(r, e);
    case YAML_ALIAS_EVENT:
        return on_alias(r, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(r, DOC_SEQ, e->data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
        return on_open(r, DOC_MAP, e->data.mapping_start.anchor);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(r);
    default:
        return true;
    }
}

static bool syntax_error(struct reader *r)
{
    const char *problem = r->parser.problem ? r->parser.problem : "not readable as YAML";
    place(r, r->parser.problem_mark);
    if (r->parser.context)
        err_set(r->b.err, "YAML: %s %s", r->parser.context, problem);
    else
        err_set(r->b.err, "YAML: %s", problem);
    return false;
}

static bool read_events(struct reader *r)
{
    for (bool end = false; !end;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&r->parser, &e))
            return syntax_error(r);
        bool ok = on_event(r, &e);
        end = e.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
        if (!ok)
            return false;
    }
    return true;
}

int doc_parse_yaml(struct arena *a, struct str text, uint32_t line, const struct doc **out, struct doc_where *at,
                   struct errbuf *err)
{
    struct reader r = {.line0 = line, .at = {line, 1}};
    *out = NULL;
    CHECK(yaml_parser_initialize(&r.parser));
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.n ? text.p : ""), text.n);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    doc_builder_init(&r.b, a, err);
    map_init(&r.anchors, 0);
    bool ok = read_events(&r);
    if (ok && r.b.root && r.b.root->kind != DOC_NULL)
        *out = r.b.root;
    *at = r.at;
    for (uint32_t i = 0; i < r.b.depth; i++)
        free(r.open_anchor[i]);
    map_free(&r.anchors);
    doc_builder_free(&r.b);
    yaml_parser_delete(&r.parser);
    return ok ? 0 : -1;
}

static bool is_separator(const char *p, const char *end)
{
    return end - p >= 3 && !memcmp(p, "---", 3) && (end - p == 3 || strchr(" \t\r\n", p[3]));
}

/* In YAML nothing but a document's end may stand as "---" at the beginning of a line, not even inside a quoted or block
 * string, so a broken document can be left out without reading it. */
bool doc_stream_next(struct doc_stream *s, struct str *text, uint32_t *line)
{
    if (!s->rest.p)
        return false;
    const char *p = s->rest.p, *end = p + s->rest.n, *nl = p;
    *line = s->line;
    while (nl < end && (nl = memchr(nl, '\n', (size_t)(end - nl)))) {
        s->line++;
        if (is_separator(++nl, end)) {
            *text = (struct str){p, (size_t)(nl - p)};
            s->rest = (struct str){nl + 3, (size_t)(end - nl) - 3};
            return true;
        }
    }
    *text = s->rest;
    s->rest = STR_NULL;
    return true;
}
