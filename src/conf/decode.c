/* conf/decode.c - the table-driven decoder. */
#include "conf/decode.h"
#include "base/duration.h"

#include <stdarg.h>
#include <stdio.h>

#define MAX_STR 4096

const struct kv *kvs_find(const struct kvs *l, struct str key)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (str_eq(l->v[i].key, key))
            return &l->v[i];
    return NULL;
}

bool kvs_get(const struct kvs *l, struct str key, struct str *value)
{
    const struct kv *kv = kvs_find(l, key);
    if (kv)
        *value = kv->value;
    return kv != NULL;
}

bool kvs_contains(const struct kvs *all, const struct kvs *wanted)
{
    for (uint32_t i = 0; i < wanted->n; i++) {
        struct str have;
        if (!kvs_get(all, wanted->v[i].key, &have) || !str_eq(have, wanted->v[i].value))
            return false;
    }
    return wanted->n > 0;
}

void dec_note(struct dec *d, enum conf_severity s, const struct doc *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->errors += s == CONF_ERROR;
    conf_report_add(d->rep, &(struct conf_note){.severity = s,
                                                .file = d->file,
                                                .line = at ? at->line : 0,
                                                .col = at ? at->col : 0,
                                                .object = d->object,
                                                .field = {d->path, d->path_n},
                                                .text = str_c(text)});
}

size_t dec_push(struct dec *d, const char *fmt, ...)
{
    size_t mark = d->path_n, room = sizeof d->path - mark;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->path + mark, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        d->path_n += MIN((size_t)n, room - 1);
    return mark;
}

void dec_pop(struct dec *d, size_t mark)
{
    d->path_n = mark;
}

static size_t push_member(struct dec *d, struct str name)
{
    return dec_push(d, "%s" STR_FMT, d->path_n ? "." : "", (int)MIN(name.n, 128), name.p);
}

static void wrong_kind(struct dec *d, const struct doc *v, const char *want)
{
    const char *hint =
        v->kind != DOC_SEQ && v->kind != DOC_MAP && !strcmp(want, "a string") ? " (put it in quotes)" : "";
    dec_error(d, v, "must be %s, is %s%s", want, doc_kind_name(v->kind), hint);
}

static void dec_str(struct dec *d, const struct doc *v, const struct field *f, struct str *out)
{
    size_t max = f->max ? (size_t)f->max : MAX_STR;
    if (v->kind != DOC_STR)
        return wrong_kind(d, v, "a string");
    if (v->text.n < (size_t)f->min)
        return dec_error(d, v, v->text.n ? "is too short" : "must not be empty");
    if (v->text.n > max)
        return dec_error(d, v, "is longer than %zu bytes", max);
    *out = arena_str(d->arena, v->text);
    if (f->fn)
        f->fn(d, v, out);
}

static void dec_enum(struct dec *d, const struct doc *v, const struct field *f, int *out)
{
    char all[256] = "";
    size_t n = 0;
    if (v->kind != DOC_STR)
        return wrong_kind(d, v, "a string");
    for (int i = 0; f->words[i]; i++) {
        if (str_eq_c(v->text, f->words[i])) {
            *out = i;
            return;
        }
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", f->words[i]);
        n = MIN(n, sizeof all - 1);
    }
    dec_error(d, v, "\"" STR_FMT "\" is none of %s", (int)MIN(v->text.n, 64), v->text.p, all);
}

static void dec_int(struct dec *d, const struct doc *v, const struct field *f, int64_t *out)
{
    if (v->kind != DOC_INT)
        return wrong_kind(d, v, "an integer");
    if (v->integer < f->min || v->integer > f->max)
        return dec_error(d, v, "%lld is not in %lld to %lld", (long long)v->integer, (long long)f->min,
                         (long long)f->max);
    *out = v->integer;
}

static void dec_list(struct dec *d, const struct doc *v, const struct field *f, void *out)
{
    DEC_LIST(char) *list = out;
    uint32_t max = f->max ? (uint32_t)f->max : 4096;
    if (v->kind != DOC_SEQ)
        return wrong_kind(d, v, "a list");
    if (v->n > max)
        return dec_error(d, v, "has %u entries, at most %u are allowed", v->n, max);
    if (v->n == 0 && (f->flags & F_NONEMPTY))
        return dec_error(d, v, "must not be empty");
    list->v = arena_zalloc(d->arena, v->n * f->sub->size + 1);
    list->n = v->n;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t mark = dec_push(d, "[%u]", i);
        dec_fields(d, v->items[i], f->sub, list->v + i * f->sub->size);
        dec_pop(d, mark);
    }
}

static void dec_strs(struct dec *d, const struct doc *v, const struct field *f, void *out)
{
    DEC_LIST(struct str) *list = out;
    uint32_t max = f->max ? (uint32_t)f->max : 256;
    static const struct field any = {.name = "", .kind = F_STR, .max = 1 << 20};
    if (v->kind != DOC_SEQ)
        return wrong_kind(d, v, "a list");
    if (v->n > max)
        return dec_error(d, v, "has %u entries, at most %u are allowed", v->n, max);
    list->v = arena_zalloc(d->arena, (v->n + 1) * sizeof *list->v);
    list->n = v->n;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t mark = dec_push(d, "[%u]", i);
        list->v[i] = STR("");
        dec_str(d, v->items[i], &any, &list->v[i]);
        dec_pop(d, mark);
    }
}

/* Labels, annotations, selectors, data. A value that YAML types as something else is taken by its text: the API server
 * would refuse it, which a warning says. */
static void dec_map(struct dec *d, const struct doc *v, const struct field *f, struct kvs *out)
{
    uint32_t max = f->max ? (uint32_t)f->max : 1024;
    if (v->kind != DOC_MAP)
        return wrong_kind(d, v, "a mapping");
    if (v->n > max)
        return dec_error(d, v, "has %u entries, at most %u are allowed", v->n, max);
    if (v->n == 0 && (f->flags & F_NONEMPTY))
        return dec_error(d, v, "must not be empty");
    out->v = arena_zalloc(d->arena, (v->n + 1) * sizeof *out->v);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct doc *value = v->pairs[i].value;
        size_t mark = push_member(d, v->pairs[i].key);
        if (value->kind == DOC_SEQ || value->kind == DOC_MAP) {
            wrong_kind(d, value, "a string");
        } else {
            if (value->kind != DOC_STR)
                dec_warn(d, value, "must be a string, is %s: Kubernetes refuses this, put it in quotes",
                         doc_kind_name(value->kind));
            out->v[out->n++] = (struct kv){arena_str(d->arena, v->pairs[i].key), arena_str(d->arena, value->text),
                                           value->line, value->col};
        }
        dec_pop(d, mark);
    }
}

static void dec_value(struct dec *d, const struct doc *v, const struct field *f, void *at)
{
    switch (f->kind) {
    case F_SKIP:
        return;
    case F_NOT_YET:
        return dec_note(d, CONF_INFO, v, "accepted, not in effect yet");
    case F_STR:
        return dec_str(d, v, f, at);
    case F_ENUM:
        return dec_enum(d, v, f, at);
    case F_INT:
        return dec_int(d, v, f, at);
    case F_BOOL:
        if (v->kind != DOC_BOOL)
            return wrong_kind(d, v, "a boolean");
        *(bool *)at = v->boolean;
        return;
    case F_OBJ:
        *(void **)at = dec_new(d, v, f->sub);
        return;
    case F_LIST:
        return dec_list(d, v, f, at);
    case F_STRS:
        return dec_strs(d, v, f, at);
    case F_MAP:
        return dec_map(d, v, f, at);
    case F_FN:
        return f->fn(d, v, at);
    }
}

static void set_defaults(const struct fields *f, char *out)
{
    for (const struct field *x = f->v; x->name; x++) {
        void *at = out + x->at;
        if (x->kind == F_STR)
            *(struct str *)at = STR("");
        else if (x->kind == F_INT)
            *(int64_t *)at = x->def;
        else if (x->kind == F_BOOL)
            *(bool *)at = x->def != 0;
    }
}

static const struct field *find_field(const struct fields *f, struct str name)
{
    for (const struct field *x = f->v; x->name; x++)
        if (str_eq_c(name, x->name))
            return x;
    return NULL;
}

static void dec_members(struct dec *d, const struct doc *map, const struct fields *f, char *out)
{
    for (uint32_t i = 0; i < map->n; i++) {
        const struct doc_pair *p = &map->pairs[i];
        const struct field *x = find_field(f, p->key);
        struct doc at = {.line = p->line, .col = p->col};
        size_t mark = push_member(d, p->key);
        if (!x && !f->lenient)
            dec_warn(d, &at, "unknown field, ignored");
        else if (x && p->value->kind != DOC_NULL)
            dec_value(d, p->value, x, out + x->at);
        dec_pop(d, mark);
    }
}

void dec_fields(struct dec *d, const struct doc *map, const struct fields *f, void *out)
{
    uint32_t before = d->errors;
    set_defaults(f, out);
    if (map->kind != DOC_MAP)
        return wrong_kind(d, map, "a mapping");
    if (map->dup) {
        struct doc at = {.line = map->dup->line, .col = map->dup->col};
        dec_error(d, &at, "\"" STR_FMT "\" is given twice", STR_ARG(str_first(map->dup->key, 128)));
    }
    dec_members(d, map, f, out);
    for (const struct field *x = f->v; x->name; x++) {
        if ((x->flags & F_REQUIRED) && !doc_get(map, x->name)) {
            size_t mark = push_member(d, str_c(x->name));
            dec_error(d, map, "is required");
            dec_pop(d, mark);
        }
    }
    if (f->check && d->errors == before)
        f->check(d, map, out);
}

void *dec_new(struct dec *d, const struct doc *map, const struct fields *f)
{
    void *out = arena_zalloc(d->arena, f->size);
    dec_fields(d, map, f, out);
    return out;
}

static bool lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool dns_name_ok(struct str s, size_t max)
{
    if (s.n == 0 || s.n > max)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || i + 1 == s.n || s.p[i - 1] == '.' || s.p[i + 1] == '.';
        if (!lower_alnum(s.p[i]) && (edge || (s.p[i] != '-' && s.p[i] != '.')))
            return false;
    }
    return true;
}

void dec_dns_name(struct dec *d, const struct doc *v, void *out)
{
    (void)out;
    if (!dns_name_ok(v->text, 253))
        dec_error(d, v, "\"" STR_FMT "\" is no name: lower-case letters, digits, '-' and '.'", (int)MIN(v->text.n, 64),
                  v->text.p);
}

static void duration(struct dec *d, const struct doc *v, bool (*parse)(struct str, int64_t *), const char *want,
                     uint64_t *out)
{
    int64_t ns;
    if (v->kind != DOC_STR)
        return dec_error(d, v, "must be a duration such as %s, is %s", want, doc_kind_name(v->kind));
    if (!parse(v->text, &ns))
        return dec_error(d, v, "\"" STR_FMT "\" is no duration such as %s", (int)MIN(v->text.n, 64), v->text.p, want);
    if (ns < 0)
        return dec_error(d, v, "must not be negative");
    *out = ns == 0 ? UINT64_MAX : MAX((uint64_t)ns / 1000, 1);
}

void dec_go_duration(struct dec *d, const struct doc *v, void *out)
{
    duration(d, v, duration_parse, "300ms or 1h30m", out);
}

void dec_gateway_duration(struct dec *d, const struct doc *v, void *out)
{
    duration(d, v, duration_parse_gateway, "500ms or 1h30m", out);
}
