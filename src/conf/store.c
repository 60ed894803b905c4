/* conf/store.c - keeps the last good form of every object: decodes manifests one by one and swaps in what is valid. */
#include "conf/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void object_free(struct object *o)
{
    struct arena a = o->arena; /* the object lives in it */
    arena_free(&a);
}

struct conf_store *conf_store_new(void)
{
    struct conf_store *s = xcalloc(1, sizeof *s);
    arena_init(&s->arena, 1024);
    return s;
}

static void objects_free(struct map *m)
{
    MAP_EACH (slot, m)
        object_free(slot->val);
    map_free(m);
}

void conf_store_free(struct conf_store *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_sources; i++) {
        objects_free(&s->sources[i].objects);
        free(s->sources[i].name);
    }
    free(s->sources);
    arena_free(&s->arena);
    free(s);
}

static struct source *source_get(struct conf_store *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_sources; i++)
        if (!strcmp(s->sources[i].name, name))
            return &s->sources[i];
    s->sources = xrealloc(s->sources, (s->n_sources + 1) * sizeof *s->sources);
    struct source *src = &s->sources[s->n_sources++];
    src->name = str_dup(str_c(name));
    map_init(&src->objects, 0);
    return src;
}

void loader_begin(struct loader *l, struct conf_store *s, const char *source, struct conf_report *rep)
{
    *l = (struct loader){.store = s, .source = source_get(s, source), .rep = rep};
    map_init(&l->objects, 0);
    map_init(&l->damaged, 0);
}

void loader_damaged(struct loader *l, struct str file)
{
    map_put(&l->damaged, file, l);
}

void loader_note(struct loader *l, enum conf_severity s, struct str file, uint32_t line, uint32_t col, const char *fmt,
                 ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    conf_report_add(l->rep, &(struct conf_note){.severity = s,
                                                .file = file,
                                                .line = line,
                                                .col = col,
                                                .object = STR(""),
                                                .field = STR(""),
                                                .text = str_c(text)});
}

static const struct fields meta_fields = {
    .v =
        (const struct field[]){
            FIELD("name", F_STR, meta, name, .flags = F_REQUIRED, .min = 1, .max = 253, .fn = dec_dns_name),
            FIELD("namespace", F_STR, meta, ns, .max = 63, .fn = dec_dns_name), FIELD("labels", F_MAP, meta, labels),
            FIELD("annotations", F_MAP, meta, annotations), FIELD("creationTimestamp", F_STR, meta, created, .max = 40),
            FIELD("deletionTimestamp", F_STR, meta, deleted, .max = 40), FIELD_END},
    .size = sizeof(struct meta),
    .lenient = true};

/* The object takes the arena that it is allocated in. */
static struct object *object_new(const struct kind_def *def, struct str file, uint32_t line)
{
    struct arena a;
    arena_init(&a, 1024);
    struct object *o = arena_zalloc(&a, sizeof *o);
    o->arena = a;
    o->def = def;
    o->file = arena_str(&o->arena, file);
    o->line = line;
    return o;
}

static struct str name_for_findings(struct arena *a, struct str kind, bool cluster, const struct doc *doc)
{
    const struct doc *meta = doc_get(doc, "metadata");
    struct str name = str_first(doc_text(meta, "name"), 253), ns = str_first(doc_text(meta, "namespace"), 63);
    if (ns.n == 0)
        ns = STR("default");
    return str_c(cluster ? arena_printf(a, STR_FMT " " STR_FMT, STR_ARG(kind), STR_ARG(name))
                         : arena_printf(a, STR_FMT " " STR_FMT "/" STR_FMT, STR_ARG(kind), STR_ARG(ns), STR_ARG(name)));
}

static void decode(struct object *o, const struct doc *doc, struct dec *d)
{
    const struct doc *meta = doc_get(doc, "metadata");
    o->id = name_for_findings(&o->arena, str_c(o->def->name), o->def->cluster, doc);
    d->object = o->id;
    if (doc->size > OBJECT_MAX_NODES)
        return dec_error(d, doc, "has more than %d values", OBJECT_MAX_NODES);
    size_t mark = dec_push(d, "metadata");
    if (meta)
        dec_fields(d, meta, &meta_fields, &o->meta);
    else
        dec_error(d, doc, "is required");
    dec_pop(d, mark);
    if (o->meta.ns.n == 0)
        o->meta.ns = o->def->cluster ? STR("") : STR("default");
    o->key = str_c(arena_printf(&o->arena, "%s/%s/" STR_FMT "/" STR_FMT, o->def->group, o->def->name,
                                STR_ARG(o->meta.ns), STR_ARG(o->meta.name)));
    o->spec = dec_new(d, doc, o->def->fields);
}

static void keep_last_good(struct loader *l, struct object *bad, struct dec *d, const struct doc *doc)
{
    struct object *old = bad->key.n ? map_get(&l->objects, bad->key) : NULL;
    d->path_n = 0;
    if (old)
        return; /* a valid manifest of the same name was read before */
    old = bad->key.n ? map_del(&l->source->objects, bad->key) : NULL;
    if (!old) {
        dec_note(d, CONF_INFO, doc, "left out until it is valid");
        return;
    }
    dec_note(d, CONF_INFO, doc, "its last good form stays in effect");
    old->stale = true;
    map_put(&l->objects, old->key, old);
}

/* Kubernetes refuses a new modelName for an InferenceModel: it is another model. In files it counts, as if the object
 * had been deleted and made anew with the time that it says. */
static void check_immutable(const struct loader *l, const struct object *o, struct dec *d, const struct doc *doc)
{
    const struct object *old = o->def->kind == K_MODEL ? map_get(&l->source->objects, o->key) : NULL;
    if (!old)
        return;
    struct str was = ((const struct model *)old->spec)->spec->model_name,
               is = ((const struct model *)o->spec)->spec->model_name;
    if (str_eq(was, is))
        return;
    size_t mark = dec_push(d, "spec.modelName");
    dec_warn(d, doc_get(doc_get(doc, "spec"), "modelName"),
             "changed from \"" STR_FMT "\": Kubernetes refuses this (modelName is immutable), here it takes effect",
             STR_ARG(str_first(was, 256)));
    dec_pop(d, mark);
}

static void accept_object(struct loader *l, struct object *o, struct dec *d, const struct doc *doc)
{
    struct object *before = map_get(&l->objects, o->key);
    if (!before && l->objects.n >= STORE_MAX_OBJECTS) {
        dec_error(d, doc, "more than %d objects", STORE_MAX_OBJECTS);
        object_free(o);
        return;
    }
    if (before && !before->stale) {
        d->path_n = 0;
        dec_warn(d, doc, "is also given at " STR_FMT ":%u: the later one counts", STR_ARG(before->file), before->line);
    }
    d->path_n = 0;
    check_immutable(l, o, d, doc);
    map_put(&l->objects, o->key, o);
    if (before)
        object_free(before);
}

static void load_object(struct loader *l, struct str file, const struct doc *doc, struct str api, struct str kind)
{
    ptrdiff_t slash = str_find(api, STR("/"));
    struct str group = slash < 0 ? STR("") : str_first(api, (size_t)slash),
               version = slash < 0 ? api : str_from(api, (size_t)slash + 1);
    bool known;
    const struct kind_def *def = kind_find(group, version, kind, &known);
    if (!def) {
        struct arena a;
        arena_init(&a, 256);
        conf_report_add(
            l->rep,
            &(struct conf_note){.severity = CONF_WARNING,
                                .file = file,
                                .line = doc->line,
                                .col = doc->col,
                                .object = name_for_findings(&a, str_first(kind, 63), false, doc),
                                .field = STR("kind"),
                                .text = known ? STR("this apiVersion of the kind is not known, the object is ignored")
                                              : STR("unknown kind, the object is ignored")});
        arena_free(&a);
        return;
    }
    struct object *o = object_new(def, file, doc->line);
    struct dec d = {.arena = &o->arena, .rep = l->rep, .file = file};
    decode(o, doc, &d);
    if (d.errors == 0) {
        accept_object(l, o, &d, doc);
        return;
    }
    keep_last_good(l, o, &d, doc);
    object_free(o);
}

static void broken(struct loader *l, struct str file, const struct doc *at, const char *text)
{
    loader_note(l, CONF_ERROR, file, at->line, at->col, "%s", text);
    loader_damaged(l, file);
}

/* A manifest, or a List of them. In a typed list (PodList) the items need not name their kind. */
static void load_value(struct loader *l, struct str file, const struct doc *doc, struct str api, struct str kind)
{
    if (doc->kind != DOC_MAP)
        return broken(l, file, doc, "a manifest must be a mapping");
    if (doc_get(doc, "apiVersion"))
        api = doc_text(doc, "apiVersion");
    if (doc_get(doc, "kind"))
        kind = doc_text(doc, "kind");
    if (api.n == 0 || kind.n == 0)
        return broken(l, file, doc, api.n ? "a manifest needs a kind" : "a manifest needs an apiVersion");
    const struct doc *items = doc_get(doc, "items");
    if (!str_ends(kind, STR("List")) || !items) {
        if (!str_eq_c(kind, "List"))
            load_object(l, file, doc, api, kind);
        return;
    }
    if (items->kind != DOC_SEQ)
        return broken(l, file, items, "items must be a list");
    for (uint32_t i = 0; i < items->n; i++)
        if (doc_get(items->items[i], "items"))
            broken(l, file, items->items[i], "a list inside a list");
        else
            load_value(l, file, items->items[i], api, str_first(kind, kind.n - 4));
}

static void load_document(struct loader *l, struct str file, struct str text, uint32_t line, bool json)
{
    struct arena a;
    struct errbuf err;
    struct doc_where at = {line, 1};
    const struct doc *doc = NULL;
    arena_init(&a, 64 * 1024);
    int rc = json ? doc_parse_json(&a, text, &doc, &at, &err) : doc_parse_yaml(&a, text, line, &doc, &at, &err);
    if (rc < 0) {
        loader_note(l, CONF_ERROR, file, at.line, at.col, "%s", err.msg);
        loader_damaged(l, file);
    } else if (doc) {
        load_value(l, file, doc, STR(""), STR(""));
    }
    arena_free(&a);
}

/* By name, or because it begins with an object and a quoted member as JSON must. */
static bool looks_like_json(struct str file, struct str text)
{
    size_t i = 0;
    if (str_ends(file, STR(".json")))
        return true;
    for (char want = '{'; i < text.n; i++) {
        if (strchr(" \t\r\n", text.p[i]))
            continue;
        if (text.p[i] != want)
            return false;
        if (want == '"')
            return str_find(text, STR("\n---")) < 0;
        want = '"';
    }
    return false;
}

void loader_text(struct loader *l, struct str file, struct str text)
{
    struct doc_stream s;
    uint32_t line;
    if (str_starts(text, STR("\xef\xbb\xbf")))
        text = str_from(text, 3);
    if (text.n == 0)
        return;
    if (looks_like_json(file, text)) {
        load_document(l, file, text, 1, true);
        return;
    }
    s = (struct doc_stream){text, 1};
    for (struct str part; doc_stream_next(&s, &part, &line);)
        if (!(line == 1 && part.n && part.p[0] == '%')) /* %YAML before the first document */
            load_document(l, file, part, line, false);
}

static bool is_workload(const struct object *o)
{
    return o->def->kind == K_WORKLOAD || o->def->kind == K_POD || o->def->kind == K_ROLE_GROUP;
}

static void describe_workloads(struct conf_store *s)
{
    uint32_t n, parts = 0;
    const struct object **all = store_objects(s, &n);
    for (uint32_t i = 0; i < n; i++)
        parts += is_workload(all[i]) ? workload_parts(all[i]) : 0;
    arena_reset(&s->arena);
    s->workloads = arena_zalloc(&s->arena, (parts + 1) * sizeof *s->workloads);
    s->n_workloads = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; is_workload(all[i]) && k < workload_parts(all[i]); k++)
            s->n_workloads += workload_describe(all[i], k, &s->arena, &s->workloads[s->n_workloads]);
    free(all);
}

/* The file, or a directory above it, could not be read whole. */
static bool is_damaged(const struct loader *l, struct str file)
{
    MAP_EACH (slot, &l->damaged) {
        struct str path = {slot->key, slot->key_n};
        if (str_starts(file, path) && (file.n == path.n || file.p[path.n] == '/' || path.p[path.n - 1] == '/'))
            return true;
    }
    return false;
}

void loader_finish(struct loader *l)
{
    struct map old = l->source->objects;
    l->source->objects = l->objects;
    MAP_EACH (slot, &old) {
        struct object *o = slot->val;
        if (is_damaged(l, o->file) && !map_get(&l->source->objects, o->key)) {
            o->stale = true;
            map_put(&l->source->objects, o->key, o);
        } else {
            object_free(o);
        }
    }
    map_free(&old);
    map_free(&l->damaged);
    describe_workloads(l->store);
}

static int by_kind_and_name(const void *pa, const void *pb)
{
    const struct object *a = *(const struct object *const *)pa, *b = *(const struct object *const *)pb;
    int c = (int)a->def->kind - (int)b->def->kind;
    c = c ? c : str_cmp(a->meta.ns, b->meta.ns);
    c = c ? c : str_cmp(a->meta.name, b->meta.name);
    return c ? c : str_cmp(a->key, b->key);
}

const struct object **store_objects(const struct conf_store *s, uint32_t *n)
{
    struct map all;
    uint32_t i = 0;
    map_init(&all, 0);
    for (uint32_t k = 0; k < s->n_sources; k++)
        MAP_EACH (slot, &s->sources[k].objects)
            map_put(&all, ((struct object *)slot->val)->key, slot->val);
    const struct object **v = xcalloc(all.n + 1, sizeof *v);
    MAP_EACH (slot, &all)
        v[i++] = slot->val;
    map_free(&all);
    if (i > 1)
        qsort(v, i, sizeof *v, by_kind_and_name);
    *n = i;
    return v;
}

uint32_t conf_workloads(const struct conf_store *s, const struct conf_workload **out)
{
    *out = s->workloads;
    return s->n_workloads;
}

int conf_store_load_text(struct conf_store *s, const char *source, struct str text, struct conf_report *rep)
{
    struct loader l;
    loader_begin(&l, s, source, rep);
    if (text.n > DOC_MAX_TEXT) {
        loader_note(&l, CONF_ERROR, str_c(source), 0, 0, "longer than %u bytes", DOC_MAX_TEXT);
        loader_damaged(&l, str_c(source));
    } else {
        loader_text(&l, str_c(source), text);
    }
    loader_finish(&l);
    return 0;
}
