/* conf/json_doc.c - JSON text to the document tree, over the scanner of base/json.h. */
#include "conf/doc.h"
#include "base/json.h"

struct reader {
    struct json j;
    struct doc_builder b;
    const char *counted; /* lines are counted up to here */
    const char *line_start;
    struct doc_where at;
};

static void place(struct reader *r, const char *p)
{
    for (const char *nl; r->counted < p && (nl = memchr(r->counted, '\n', (size_t)(p - r->counted)));) {
        r->at.line++;
        r->counted = r->line_start = nl + 1;
    }
    r->counted = MAX(r->counted, p);
    r->at.col = (uint32_t)(p - r->line_start) + 1;
}

static struct str decoded(struct reader *r)
{
    char *out = arena_alloc(r->b.arena, r->j.tok.n + 1);
    size_t n = json_unescape(r->j.tok, out);
    out[n] = '\0';
    return (struct str){out, n};
}

static bool add_scalar(struct reader *r, enum json_type t)
{
    struct doc *d = doc_node(&r->b, DOC_STR, r->at.line, r->at.col);
    if (t == JSON_KEY || t == JSON_STRING) {
        d->text = decoded(r);
        if (memchr(d->text.p, 0, d->text.n))
            return err_set(r->b.err, "a NUL character in a string"), false;
        return doc_add(&r->b, d, false);
    }
    d->text = arena_str(r->b.arena, r->j.tok);
    d->kind = t == JSON_NULL ? DOC_NULL : t == JSON_NUMBER ? DOC_FLOAT : DOC_BOOL;
    d->boolean = t == JSON_TRUE;
    if (t == JSON_NUMBER && str_to_i64(d->text, &d->integer))
        d->kind = DOC_INT;
    return doc_add(&r->b, d, false);
}

static bool on_token(struct reader *r, enum json_type t)
{
    switch (t) {
    case JSON_OBJ:
        return doc_open(&r->b, DOC_MAP, r->at.line, r->at.col);
    case JSON_ARR:
        return doc_open(&r->b, DOC_SEQ, r->at.line, r->at.col);
    case JSON_OBJ_END:
    case JSON_ARR_END:
        return doc_close(&r->b) != NULL;
    case JSON_ERROR:
        err_set(r->b.err, "JSON: %s", r->j.error ? r->j.error : "broken");
        return false;
    default:
        return add_scalar(r, t);
    }
}

int doc_parse_json(struct arena *a, struct str text, const struct doc **out, struct doc_where *at, struct errbuf *err)
{
    struct reader r = {.counted = text.p, .line_start = text.p, .at = {1, 1}};
    bool ok = true;
    *out = NULL;
    doc_builder_init(&r.b, a, err);
    json_init(&r.j, text);
    while (ok) {
        enum json_type t = json_next(&r.j);
        if (t == JSON_END)
            break;
        bool quoted = t == JSON_KEY || t == JSON_STRING;
        place(&r, t == JSON_ERROR ? r.j.p : quoted ? r.j.tok.p - 1 : r.j.tok.n ? r.j.tok.p : r.j.p - 1);
        ok = on_token(&r, t);
    }
    if (ok && r.b.root && r.b.root->kind != DOC_NULL)
        *out = r.b.root;
    *at = r.at;
    doc_builder_free(&r.b);
    return ok ? 0 : -1;
}
