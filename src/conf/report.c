/* conf/report.c - findings: collected within a bound, written as one line each. */
#include "conf/decode.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_NOTES 10000

void conf_report_free(struct conf_report *r)
{
    arena_free(&r->arena);
    free(r->v);
    memset(r, 0, sizeof *r);
}

/* A copy fit for a terminal: manifests may hold control characters, findings quote them. */
static struct str printable(struct arena *a, struct str s)
{
    char *out = arena_strdup(a, s);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)out[i] < ' ' || out[i] == 0x7f)
            out[i] = '?';
    return (struct str){out, s.n};
}

void conf_report_add(struct conf_report *r, const struct conf_note *n)
{
    r->errors += n->severity == CONF_ERROR;
    r->warnings += n->severity == CONF_WARNING;
    if (r->n == MAX_NOTES) {
        r->dropped++;
        return;
    }
    if (r->n == r->cap) {
        if (r->cap == 0)
            arena_init(&r->arena, 4096);
        r->cap = r->cap ? r->cap * 2 : 16;
        r->v = xrealloc(r->v, r->cap * sizeof *r->v);
    }
    struct conf_note *c = &r->v[r->n++];
    *c = *n;
    c->file = printable(&r->arena, n->file);
    c->object = printable(&r->arena, n->object);
    c->field = printable(&r->arena, n->field);
    c->text = printable(&r->arena, n->text);
}

void conf_note_format(const struct conf_note *n, char *out, size_t cap)
{
    static const char *const names[] = {"info", "warning", "error"};
    char line[24] = "";
    if (n->line)
        snprintf(line, sizeof line, "%u:", n->line);
    snprintf(out, cap, STR_FMT ":%s %s: " STR_FMT "%s" STR_FMT "%s" STR_FMT, STR_ARG(n->file), line, names[n->severity],
             STR_ARG(n->object), n->object.n ? ": " : "", STR_ARG(n->field), n->field.n ? ": " : "", STR_ARG(n->text));
}
