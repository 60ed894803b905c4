/* conf/doc.c - builds document trees from the events of a parser, within their bounds. */
#include "conf/doc.h"
#include "base/map.h"

#include <stdlib.h>

const char *doc_kind_name(enum doc_kind k)
{
    static const char *const names[] = {"null",     "a boolean", "an integer", "a number",
                                        "a string", "a list",    "a mapping"};
    return names[k];
}

const struct doc *doc_get(const struct doc *map, const char *key)
{
    if (!map || map->kind != DOC_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->n; i++)
        if (str_eq_c(map->pairs[i].key, key))
            return map->pairs[i].value->kind == DOC_NULL ? NULL : map->pairs[i].value;
    return NULL;
}

struct str doc_text(const struct doc *map, const char *key)
{
    const struct doc *d = doc_get(map, key);
    return d && d->kind == DOC_STR ? d->text : STR("");
}

void doc_builder_init(struct doc_builder *b, struct arena *a, struct errbuf *err)
{
    memset(b, 0, sizeof *b);
    b->arena = a;
    b->err = err;
}

void doc_builder_free(struct doc_builder *b)
{
    free(b->stack);
    b->stack = NULL;
}

struct doc *doc_node(struct doc_builder *b, enum doc_kind kind, uint32_t line, uint32_t col)
{
    struct doc *d = arena_zalloc(b->arena, sizeof *d);
    d->kind = kind;
    d->line = line;
    d->col = col;
    d->size = 1;
    d->text = STR("");
    return d;
}

static void push(struct doc_builder *b, struct doc_pair p)
{
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 64;
        b->stack = xrealloc(b->stack, b->cap * sizeof *b->stack);
    }
    b->stack[b->n++] = p;
}

static bool take_key(struct doc_builder *b, struct doc_frame *f, const struct doc *node)
{
    if (node->kind == DOC_SEQ || node->kind == DOC_MAP) {
        err_set(b->err, "a key must be a plain name, not %s", doc_kind_name(node->kind));
        return false;
    }
    f->key = (struct doc_pair){.key = node->text, .line = node->line, .col = node->col};
    f->merge = node->plain_merge;
    f->have_key = true;
    return true;
}

/* YAML's "<<": the members of the mapping (or of each in a list) go into this one; members given directly win, see
 * close_map. */
static bool merge(struct doc_builder *b, const struct doc *from)
{
    if (from->kind == DOC_SEQ) {
        for (uint32_t i = 0; i < from->n; i++)
            if (from->items[i]->kind != DOC_MAP || !merge(b, from->items[i]))
                return err_set(b->err, "<< takes a mapping or a list of mappings"), false;
        return true;
    }
    if (from->kind != DOC_MAP)
        return err_set(b->err, "<< takes a mapping, this is %s", doc_kind_name(from->kind)), false;
    for (uint32_t i = 0; i < from->n; i++) {
        struct doc_pair p = from->pairs[i];
        p.line = 0; /* marks a merged member until the mapping is closed */
        push(b, p);
    }
    return true;
}

static bool count(struct doc_builder *b, const struct doc *node, bool alias)
{
    uint64_t n = alias ? node->size : 1;
    b->nodes += n;
    b->aliased += alias ? n : 0;
    if (b->aliased > DOC_MAX_ALIASED)
        return err_set(b->err, "aliases expand to more than %u values", DOC_MAX_ALIASED), false;
    if (b->nodes > DOC_MAX_NODES)
        return err_set(b->err, "the document has more than %u values", DOC_MAX_NODES), false;
    return true;
}

static bool attach(struct doc_builder *b, const struct doc *node)
{
    if (b->depth == 0) {
        if (b->root)
            return err_set(b->err, "a second value after the end of the document"), false;
        b->root = node;
        return true;
    }
    struct doc_frame *f = &b->frames[b->depth - 1];
    if (f->kind == DOC_SEQ) {
        push(b, (struct doc_pair){.value = node});
        return true;
    }
    if (!f->have_key)
        return take_key(b, f, node);
    f->have_key = false;
    if (f->merge)
        return merge(b, node);
    f->key.value = node;
    push(b, f->key);
    return true;
}

bool doc_add(struct doc_builder *b, const struct doc *node, bool alias)
{
    return count(b, node, alias) && attach(b, node);
}

bool doc_open(struct doc_builder *b, enum doc_kind kind, uint32_t line, uint32_t col)
{
    if (b->depth == DOC_MAX_DEPTH)
        return err_set(b->err, "nested deeper than %d levels", DOC_MAX_DEPTH), false;
    b->frames[b->depth++] = (struct doc_frame){.kind = kind, .line = line, .col = col, .base = b->n};
    return true;
}

/* Position of an equal key among the first n, or n. Small mappings are scanned, large ones go through `seen`. */
static uint32_t find_equal(const struct doc_pair *v, uint32_t n, struct map *seen, const struct doc_pair *p)
{
    if (!seen) {
        uint32_t i = 0;
        while (i < n && !str_eq(v[i].key, p->key))
            i++;
        return i;
    }
    const struct doc_pair *hit = map_get(seen, p->key);
    return hit ? (uint32_t)(hit - v) : n;
}

/* Direct members first, merged ones after them and only where nothing has the name yet. */
static void close_map(struct doc_builder *b, struct doc *d, const struct doc_pair *from, uint32_t n)
{
    struct doc_pair *out = arena_alloc(b->arena, (n + 1) * sizeof *out);
    struct map seen;
    bool large = n > 32;
    map_init(&seen, 0);
    for (int merged = 0; merged <= 1; merged++) {
        for (uint32_t i = 0; i < n; i++) {
            if ((from[i].line == 0) != merged)
                continue;
            if (find_equal(out, d->n, large ? &seen : NULL, &from[i]) < d->n) {
                if (!merged)
                    d->dup = memcpy(arena_alloc(b->arena, sizeof *from), &from[i], sizeof *from);
                continue;
            }
            out[d->n] = from[i];
            if (large)
                map_put(&seen, from[i].key, &out[d->n]);
            if (merged) {
                out[d->n].line = from[i].value->line;
                out[d->n].col = from[i].value->col;
            }
            d->n++;
            d->size += from[i].value->size;
        }
    }
    map_free(&seen);
    d->pairs = out;
}

const struct doc *doc_close(struct doc_builder *b)
{
    struct doc_frame *f = &b->frames[b->depth - 1];
    if (f->have_key)
        return err_set(b->err, "a key without a value"), NULL;
    struct doc *d = doc_node(b, f->kind, f->line, f->col);
    uint32_t n = b->n - f->base;
    const struct doc_pair *from = n ? b->stack + f->base : NULL; // the stack begins at the first item
    if (f->kind == DOC_MAP && n) {
        close_map(b, d, from, n);
    } else if (n) {
        d->items = arena_alloc(b->arena, n * sizeof *d->items);
        for (uint32_t i = 0; i < n; i++) {
            d->items[i] = from[i].value;
            d->size += from[i].value->size;
        }
        d->n = n;
    }
    b->n = f->base;
    b->depth--;
    return count(b, d, false) && attach(b, d) ? d : NULL;
}
