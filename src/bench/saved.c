/* bench/saved.c - reading saved results. */
#include "bench/saved.h"

#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct reader {
    struct json j;
    const char *path;
    bool details;
    struct errbuf *err;
};

/* Position first, so that editors jump there. */
static bool fail(struct reader *rd, const char *what)
{
    unsigned line, col;
    json_where(&rd->j, rd->j.p, &line, &col);
    (void)err_set(rd->err, "%s:%u:%u: %s", rd->path, line, col, what);
    return false;
}

static bool syntax(struct reader *rd)
{
    return fail(rd, rd->j.error ? rd->j.error : "the JSON text ends too early");
}

static void push(struct saved_column *c, double v)
{
    if (c->n == c->cap) {
        c->cap = MAX(c->cap * 2, (size_t)64);
        c->v = xrealloc(c->v, c->cap * sizeof(*c->v));
    }
    c->v[c->n++] = v;
}

static void copy_text(const struct json *j, char *out, size_t room)
{
    char *text = xmalloc(j->tok.n + 1);
    size_t n = MIN(json_unescape(j->tok, text), room - 1);
    while (n > 0 && n == room - 1 && ((unsigned char)text[n - 1] & 0x80)) /* not half a character */
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] == 0 ? ' ' : text[i];
    out[n] = 0;
    free(text);
}

/* The elements of an array, `nested` levels below one another: numbers, or (text) whether a string is not empty. */
static bool column(struct reader *rd, struct saved_column *c, struct saved_column *sizes, bool text, const char *what)
{
    if (json_next(&rd->j) != JSON_ARR)
        return rd->j.error ? syntax(rd) : fail(rd, what);
    c->there = true;
    size_t before = c->n;
    for (unsigned inside = 0;;) {
        enum json_type t = json_next(&rd->j);
        double v = 0;
        if (t == JSON_ARR && sizes && inside == 0) {
            inside = 1;
            before = c->n;
        } else if (t == JSON_ARR_END && inside) {
            inside = 0;
            push(sizes, (double)(c->n - before));
        } else if (t == JSON_ARR_END) {
            return true;
        } else if (text && (t == JSON_STRING || t == JSON_NULL)) {
            push(c, t == JSON_STRING && rd->j.tok.n > 0);
        } else if (!text && (sizes == NULL || inside) && t == JSON_NUMBER && str_to_double(rd->j.tok, &v)) {
            push(c, v);
        } else {
            return t == JSON_ERROR || t == JSON_END ? syntax(rd) : fail(rd, what);
        }
    }
}

static bool figure(struct reader *rd, struct saved_run *r, struct str key)
{
    enum json_type t = json_next(&rd->j);
    double v;
    if (t == JSON_ERROR || t == JSON_END)
        return syntax(rd);
    bool rate = str_eq_c(key, "request_rate");
    if (t == JSON_STRING && rate && str_eq_c(rd->j.tok, "inf"))
        v = HUGE_VAL;
    else if (t != JSON_NUMBER || !str_to_double(rd->j.tok, &v))
        return true;
    if (r->n_figures == SAVED_MAX_FIGURES || key.n >= SAVED_MAX_KEY)
        return true;
    if (!r->figures)
        r->figures = xcalloc(SAVED_MAX_FIGURES, sizeof(*r->figures));
    struct saved_figure *f = &r->figures[r->n_figures++];
    memcpy(f->key, key.p, key.n);
    f->v = v;
    return true;
}

static bool string_member(struct reader *rd, char *out, size_t room)
{
    enum json_type t = json_next(&rd->j);
    if (t == JSON_STRING)
        copy_text(&rd->j, out, room);
    else if (t == JSON_ERROR || t == JSON_END)
        return syntax(rd);
    else if (t != JSON_NULL)
        return fail(rd, "\"label\" and \"model_id\" must be strings");
    return true;
}

static bool starts_container(const struct json *j)
{
    const char *p = j->p;
    while (p < j->end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r' || *p == ':'))
        p++;
    return p < j->end && (*p == '[' || *p == '{');
}

static bool member(struct reader *rd, struct saved_run *r)
{
    struct str key = rd->j.tok;
    struct {
        const char *name;
        struct saved_column *c, *sizes;
        bool text;
    } columns[] = {{"ttfts", &r->ttft, NULL, false},
                   {"latencies", &r->latency, NULL, false},
                   {"output_lens", &r->output, NULL, false},
                   {"itls", &r->itl, &r->itl_n, false},
                   {"errors", &r->failed, NULL, true}};
    for (size_t i = 0; rd->details && i < ARRAY_LEN(columns); i++) {
        if (!str_eq_c(key, columns[i].name))
            continue;
        char what[80];
        (void)snprintf(what, sizeof(what), "\"%s\" must be an array of %s, once", columns[i].name,
                       columns[i].text    ? "strings"
                       : columns[i].sizes ? "arrays of numbers"
                                          : "numbers");
        return columns[i].c->there ? fail(rd, what) : column(rd, columns[i].c, columns[i].sizes, columns[i].text, what);
    }
    if (str_eq_c(key, "label"))
        return string_member(rd, r->label, sizeof(r->label));
    if (str_eq_c(key, "model_id"))
        return string_member(rd, r->model, sizeof(r->model));
    if (starts_container(&rd->j))
        return json_skip(&rd->j) || syntax(rd);
    return figure(rd, r, key);
}

static bool complete(struct reader *rd, const struct saved_run *r)
{
    size_t n = r->ttft.n;
    if (!rd->details)
        return true;
    if (!r->ttft.there || !r->output.there || !r->itl.there) {
        (void)err_set(rd->err, "%s: \"%s\" is not there: save the run with --save-detailed", rd->path,
                      !r->ttft.there     ? "ttfts"
                      : !r->output.there ? "output_lens"
                                         : "itls");
        return false;
    }
    if (r->output.n != n || r->itl_n.n != n || (r->latency.there && r->latency.n != n) ||
        (r->failed.there && r->failed.n != n)) {
        (void)err_set(rd->err,
                      "%s: ttfts, output_lens, itls, latencies and errors differ in length (%zu, %zu, %zu, %zu, %zu)",
                      rd->path, n, r->output.n, r->itl_n.n, r->latency.n, r->failed.n);
        return false;
    }
    return true;
}

static bool run(struct reader *rd, struct saved_run *r)
{
    if (json_next(&rd->j) != JSON_OBJ)
        return rd->j.error ? syntax(rd) : fail(rd, "a saved result is a JSON object");
    for (;;) {
        enum json_type t = json_next(&rd->j);
        if (t == JSON_OBJ_END)
            break;
        if (t != JSON_KEY)
            return syntax(rd);
        if (!member(rd, r))
            return false;
    }
    if (json_next(&rd->j) != JSON_END)
        return syntax(rd);
    return complete(rd, r);
}

/* End of the JSON value at the beginning of [p, end): behind its last bracket. */
static const char *value_end(const char *p, const char *end)
{
    size_t depth = 0;
    bool quoted = false;
    for (; p < end; p++) {
        if (quoted) {
            if (*p == '\\' && p + 1 < end)
                p++;
            else if (*p == '"')
                quoted = false;
        } else if (*p == '"') {
            quoted = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && (depth == 0 || --depth == 0)) {
            return p + 1;
        }
    }
    return end;
}

static const char *skip_blank(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

static void label_from(const char *path, char *out, size_t room)
{
    const char *slash = strrchr(path, '/');
    struct str s = str_c(slash && slash[1] ? slash + 1 : path);
    if (str_ends(s, STR(".json")) && s.n > 5)
        s.n -= 5;
    (void)snprintf(out, room, STR_FMT, STR_ARG(s));
}

bool saved_parse(struct str text, const char *path, bool details, struct saved_runs *out, struct errbuf *err)
{
    const char *p = text.p, *end = text.n ? text.p + text.n : text.p;
    *out = (struct saved_runs){0};
    for (p = skip_blank(p, end); p < end; p = skip_blank(p, end)) {
        struct reader rd = {.path = path, .details = details, .err = err};
        const char *stop = value_end(p, end);
        json_init(&rd.j, (struct str){p, (size_t)(stop - p)});
        rd.j.start = text.p; /* positions count from the beginning of the file */
        if (out->n == SAVED_MAX_RUNS) {
            saved_free(out);
            return fail(&rd, "more than 1024 runs in a file");
        }
        out->v = xrealloc(out->v, (out->n + 1) * sizeof(*out->v));
        struct saved_run *r = &out->v[out->n++];
        *r = (struct saved_run){0};
        if (!run(&rd, r)) {
            saved_free(out);
            return false;
        }
        if (!r->label[0])
            label_from(path, r->label, sizeof(r->label));
        p = stop;
    }
    if (out->n == 0)
        (void)err_set(err, "%s: no result in this file", path);
    return out->n > 0;
}

/* The whole file, malloc'd; NULL with the reason. */
static char *read_all(FILE *f, const char *path, size_t *n, struct errbuf *err)
{
    size_t cap = 1 << 16;
    char *p = xmalloc(cap);
    *n = 0;
    for (size_t got; (got = fread(p + *n, 1, cap - *n, f)) > 0;) {
        *n += got;
        if (*n > SAVED_MAX_BYTES) {
            (void)err_set(err, "%s: larger than 1 GiB", path);
            free(p);
            return NULL;
        }
        if (*n == cap)
            p = xrealloc(p, cap *= 2);
    }
    if (ferror(f)) {
        (void)err_set(err, "%s: cannot read: %s", path, strerror(errno));
        free(p);
        return NULL;
    }
    return p;
}

bool saved_read(const char *path, bool details, struct saved_runs *out, struct errbuf *err)
{
    *out = (struct saved_runs){0};
    FILE *f = fopen(path, "re");
    if (!f) {
        (void)err_set(err, "%s: cannot open: %s", path, strerror(errno));
        return false;
    }
    size_t n;
    char *text = read_all(f, path, &n, err);
    (void)fclose(f);
    bool ok = text && saved_parse((struct str){text, n}, path, details, out, err);
    free(text);
    return ok;
}

void saved_free(struct saved_runs *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct saved_run *r = &s->v[i];
        free(r->figures);
        struct saved_column *c[] = {&r->ttft, &r->latency, &r->output, &r->failed, &r->itl, &r->itl_n};
        for (size_t k = 0; k < ARRAY_LEN(c); k++)
            free(c[k]->v);
    }
    free(s->v);
    *s = (struct saved_runs){0};
}

const double *saved_get(const struct saved_run *r, const char *key)
{
    for (size_t i = 0; i < r->n_figures; i++)
        if (!strcmp(r->figures[i].key, key))
            return &r->figures[i].v;
    return NULL;
}
