/* conf/build.c - makes the snapshot of a store: index, pools, listeners; and its life. */
#include "conf/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct conf *conf_ref(struct conf *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void conf_unref(struct conf *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < c->n_regexes; i++)
        regex_free(c->regexes[i]);
    free(c->regexes);
    arena_free(&c->arena);
    free(c);
}

struct conf_regex *build_regex(struct build *b, struct str pattern)
{
    struct conf *c = b->c;
    struct conf_regex *re = regex_new(pattern, NULL);
    CHECK(re); /* compiled once already, when the object was decoded */
    if ((c->n_regexes & (c->n_regexes + 1)) == 0)
        c->regexes = xrealloc(c->regexes, (c->n_regexes + 1) * 2 * sizeof(struct conf_regex *));
    c->regexes[c->n_regexes++] = re;
    return re;
}

const struct object *build_find(const struct build *b, const char *group, const char *kind, struct str ns,
                                struct str name)
{
    char key[512];
    int n = snprintf(key, sizeof key, "%s/%s/" STR_FMT "/" STR_FMT, group, kind, STR_ARG(ns), STR_ARG(name));
    return n > 0 && (size_t)n < sizeof key ? map_get(&b->by_key, (struct str){key, (size_t)n}) : NULL;
}

void build_note(const struct build *b, enum conf_severity s, const struct object *o, const char *field, const char *fmt,
                ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    conf_report_add(b->rep, &(struct conf_note){.severity = s,
                                                .file = o->file,
                                                .line = o->line,
                                                .object = o->id,
                                                .field = str_c(field),
                                                .text = str_c(text)});
}

static void index_objects(struct build *b, uint32_t n)
{
    uint32_t i = 0;
    for (uint32_t k = 0; k <= K_N; k++) {
        b->first[k] = i;
        while (i < n && (uint32_t)b->objects[i]->def->kind == k)
            i++;
    }
    for (i = 0; i < n; i++)
        map_put(&b->by_key, b->objects[i]->key, (void *)(uintptr_t)b->objects[i]);
}

struct conf *conf_build(struct conf_store *s, const struct conf *previous, struct conf_report *rep)
{
    struct build b = {.c = xcalloc(1, sizeof *b.c), .previous = previous, .rep = rep};
    uint32_t n;
    atomic_init(&b.c->refs, 1);
    arena_init(&b.c->arena, 16 * 1024);
    b.c->generation = MAX(s->generation, previous ? previous->generation : 0) + 1;
    s->generation = b.c->generation;
    b.objects = store_objects(s, &n);
    map_init(&b.by_key, 0);
    map_init(&b.backend_index, 0);
    index_objects(&b, n);
    build_index_pods(&b);
    build_pools(&b);
    build_listeners(&b);
    build_free_pods(&b);
    map_free(&b.backend_index);
    map_free(&b.by_key);
    free(b.objects);
    return b.c;
}
