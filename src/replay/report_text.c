/* replay/report_text.c - the figures of runs as JSON and as a table for a terminal. */
#include "base/json.h"
#include "base/utf8.h"
#include "replay/report_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define REAL(m) offsetof(struct report, m), FIGURE_REAL
#define U32(m)  offsetof(struct report, m), FIGURE_U32
#define U64(m)  offsetof(struct report, m), FIGURE_U64

const struct report_figure report_figures[] = {
    {"n", "answered", "", 1, U32(n), false},
    {"ttft_mean", "TTFT mean", "s", 1, REAL(ttft_mean), false},
    {"ttft_p50", "TTFT p50", "s", 1, REAL(ttft_p50), false},
    {"ttft_p90", "TTFT p90", "s", 1, REAL(ttft_p90), false},
    {"ttft_p99", "TTFT p99", "s", 1, REAL(ttft_p99), false},
    {"tpot_mean", "TPOT mean", "ms", 1e3, REAL(tpot_mean), false},
    {"tpot_p50", "TPOT p50", "ms", 1e3, REAL(tpot_p50), false},
    {"tpot_p90", "TPOT p90", "ms", 1e3, REAL(tpot_p90), false},
    {"tpot_p99", "TPOT p99", "ms", 1e3, REAL(tpot_p99), false},
    {"e2e_mean", "end to end", "s", 1, REAL(e2e_mean), false},
    {"hit", "cached", "%", 100, REAL(hit), false},
    {"rps", "answers", "1/s", 1, REAL(rps), false},
    {"out_tps", "tokens out", "1/s", 1, REAL(out_tps), false},
    {"slo", "TTFT ≤ 2 s", "%", 100, REAL(slo), false},
    {"busy", "busy", "%", 100, REAL(busy), false},
    {"imbalance", "imbalance", "%", 100, REAL(imbalance), false},
    {"preempts", "preempted", "", 1, U64(preempts), false},
    {"attained", "attained", "%", 100, REAL(attained), true},
    {"goodput", "goodput", "1/s", 1, REAL(goodput), true},
    {"queued_mean", "in gateway", "s", 1, REAL(queued_mean), true},
    {"split", "split", "%", 100, REAL(split), true},
    {"refused", "refused", "", 1, U32(refused), true},
    {"failed", "failed", "", 1, U32(failed), true},
};
const size_t report_n_figures = ARRAY_LEN(report_figures);

const struct report_figure *report_figure_of(const char *key)
{
    size_t i = 0;
    while (i < report_n_figures && strcmp(report_figures[i].key, key))
        i++;
    CHECK(i < report_n_figures);
    return &report_figures[i];
}

double report_value(const struct report *r, const struct report_figure *f)
{
    const char *at = (const char *)r + f->offset;
    double real;
    uint64_t u64;
    uint32_t u32;
    switch (f->kind) {
    case FIGURE_U32:
        memcpy(&u32, at, sizeof(u32));
        return u32;
    case FIGURE_U64:
        memcpy(&u64, at, sizeof(u64));
        return (double)u64;
    case FIGURE_REAL:
        break;
    }
    memcpy(&real, at, sizeof(real));
    return real;
}

/* ---- JSON ---- */

static void number(struct jsonw *w, const char *key, double v)
{
    char text[40];
    jsonw_key(w, key);
    (void)snprintf(text, sizeof(text), "%.10g", v);
    if (isfinite(v))
        jsonw_raw(w, str_c(text));
    else
        jsonw_null(w);
}

static void figures(struct jsonw *w, const struct report *r, bool ours)
{
    for (size_t i = 0; i < report_n_figures; i++)
        if (report_figures[i].ours == ours)
            number(w, report_figures[i].key, report_value(r, &report_figures[i]));
}

static void name(struct jsonw *w, const char *key, const char *v)
{
    jsonw_key(w, key);
    jsonw_cstr(w, v);
}

void report_json(const struct report *r, struct buf *out)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    figures(&w, r, false);
    name(&w, "trace", r->trace);
    name(&w, "profile", r->profile);
    number(&w, "servers", r->servers);
    name(&w, "policy", r->policy);
    number(&w, r->users ? "users" : "rate", r->users ? r->users : r->rate);
    number(&w, "wall", r->wall);
    figures(&w, r, true);
    number(&w, "gateways", r->gateways);
    number(&w, "seed", r->seed);
    jsonw_obj_end(&w);
    buf_add_str(out, STR("\n"));
}

/* ---- runs that differ only in the seed ---- */

static bool equal(double a, double b)
{
    return !(a < b) && !(a > b);
}

bool report_same_setting(const struct report *a, const struct report *b)
{
    return !strcmp(a->trace, b->trace) && !strcmp(a->profile, b->profile) && a->servers == b->servers;
}

static bool same_but_seed(const struct report *a, const struct report *b)
{
    return report_same_setting(a, b) && !strcmp(a->policy, b->policy) && a->gateways == b->gateways &&
           a->users == b->users && equal(a->rate, b->rate);
}

uint32_t report_group(const struct report *const *v, uint32_t n, uint32_t *group)
{
    uint32_t n_groups = 0, *first = xcalloc(MAX(n, 1u), sizeof(*first));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t g = 0;
        while (g < n_groups && !same_but_seed(v[first[g]], v[i]))
            g++;
        if (g == n_groups)
            first[n_groups++] = i;
        group[i] = g;
    }
    free(first);
    return n_groups;
}

struct report_mean report_mean_of(const struct report *const *v, uint32_t n, const uint32_t *group, uint32_t which,
                                  const struct report_figure *f)
{
    struct report_mean m = {.low = HUGE_VAL, .high = -HUGE_VAL};
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        double x = report_value(v[i], f);
        if (group[i] != which || !isfinite(x))
            continue;
        double d = x - m.mean; /* Welford's recurrence */
        m.mean += d / ++m.n;
        squares += d * (x - m.mean);
        m.low = MIN(m.low, x);
        m.high = MAX(m.high, x);
    }
    m.spread = m.n > 1 ? sqrt(squares / (m.n - 1)) : 0;
    return m;
}

void report_setting(const struct report *r, struct buf *out)
{
    buf_addf(out, "%s, %u × %s", r->trace, r->servers, r->profile);
}

/* Decimals that leave v three significant digits, if it is not less than 0.001. */
static int decimals(double v)
{
    double a = fabs(v);
    return a >= 99.95 ? 0 : a >= 9.995 ? 1 : a >= 0.9995 ? 2 : a > 0 ? 3 : 0;
}

void report_digits(double v, char *out, size_t size)
{
    (void)snprintf(out, size, "%.*f", decimals(v), v);
}

void report_cell(struct report_mean m, const struct report_figure *f, char out[REPORT_CELL])
{
    double mean = m.mean * f->scale;
    if (m.n == 0)
        (void)snprintf(out, REPORT_CELL, "-");
    else if (f->kind != FIGURE_REAL)
        (void)snprintf(out, REPORT_CELL, "%.0f", mean);
    else if (m.n == 1)
        report_digits(mean, out, REPORT_CELL);
    else
        (void)snprintf(out, REPORT_CELL, "%.*f ±%.*f", decimals(mean), mean, decimals(mean), m.spread * f->scale);
}

/* ---- the table ---- */

static const struct {
    const char *key, *head;
} columns[] = {{"n", "n"},
               {"ttft_mean", "TTFT s"},
               {"ttft_p50", "p50"},
               {"ttft_p90", "p90"},
               {"ttft_p99", "p99"},
               {"tpot_mean", "TPOT ms"},
               {"tpot_p90", "p90"},
               {"hit", "hit %"},
               {"attained", "attained %"},
               {"rps", "answers/s"},
               {"goodput", "goodput/s"},
               {"imbalance", "imbalance %"},
               {"preempts", "preempts"},
               {"refused", "refused"},
               {"failed", "failed"}};
#define OWN     3 /* columns before them: policy, load, runs */
#define COLUMNS (OWN + ARRAY_LEN(columns))

struct line {
    char cell[COLUMNS][MAX(REPORT_CELL, sizeof(((struct report *)0)->policy) + 24)];
};

static size_t width_of(const char *s)
{
    size_t n = 0;
    for (const char *end = s + strlen(s); s < end; n++)
        s += MAX(utf8_char_len(s, end), (size_t)1);
    return n;
}

static void head(struct line *l, bool users)
{
    (void)snprintf(l->cell[0], sizeof(l->cell[0]), "policy");
    (void)snprintf(l->cell[1], sizeof(l->cell[1]), users ? "users" : "req/s");
    (void)snprintf(l->cell[2], sizeof(l->cell[2]), "runs");
    for (size_t c = 0; c < ARRAY_LEN(columns); c++)
        (void)snprintf(l->cell[OWN + c], sizeof(l->cell[0]), "%s", columns[c].head);
}

static void body(struct line *l, const struct report *const *v, uint32_t n, const uint32_t *group, uint32_t g)
{
    const struct report *r = NULL;
    uint32_t runs = 0;
    for (uint32_t i = n; i-- > 0;)
        if (group[i] == g) {
            r = v[i];
            runs++;
        }
    CHECK(r);
    if (r->gateways > 1)
        (void)snprintf(l->cell[0], sizeof(l->cell[0]), "%s, %u gateways", r->policy, r->gateways);
    else
        (void)snprintf(l->cell[0], sizeof(l->cell[0]), "%s", r->policy);
    if (r->users)
        (void)snprintf(l->cell[1], sizeof(l->cell[1]), "%u", r->users);
    else if (r->rate > 0)
        (void)snprintf(l->cell[1], sizeof(l->cell[1]), "%.4g", r->rate);
    else
        (void)snprintf(l->cell[1], sizeof(l->cell[1]), "as is");
    (void)snprintf(l->cell[2], sizeof(l->cell[2]), "%u", runs);
    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        const struct report_figure *f = report_figure_of(columns[c].key);
        report_cell(report_mean_of(v, n, group, g, f), f, l->cell[OWN + c]);
    }
}

/* The first column stands left, numbers stand right. */
static void print(const struct line *v, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            size_t width = 0, own = width_of(v[i].cell[c]);
            for (size_t k = 0; k < n; k++)
                width = MAX(width, width_of(v[k].cell[c]));
            int pad = (int)(width - own);
            if (c == 0)
                buf_addf(out, "%s%*s", v[i].cell[c], pad, "");
            else
                buf_addf(out, "  %*s%s", pad, "", v[i].cell[c]);
        }
        buf_add_str(out, STR("\n"));
    }
}

void report_table(const struct report *v, uint32_t n, struct buf *out)
{
    const struct report **p = xcalloc(MAX(n, 1u), sizeof(*p));
    uint32_t *group = xcalloc(MAX(n, 1u), sizeof(*group));
    struct line *lines = xcalloc((size_t)n + 1, sizeof(*lines));
    for (uint32_t i = 0; i < n; i++)
        p[i] = &v[i];
    uint32_t groups = report_group(p, n, group);
    bool *done = xcalloc(MAX(groups, 1u), sizeof(*done));
    for (uint32_t i = 0; i < n; i++) { /* a table for each setting, in the order of the first runs */
        size_t n_lines = 1;
        if (done[group[i]])
            continue;
        head(&lines[0], v[i].users > 0);
        for (uint32_t k = i; k < n; k++)
            if (!done[group[k]] && report_same_setting(&v[i], &v[k])) {
                done[group[k]] = true;
                body(&lines[n_lines++], p, n, group, group[k]);
            }
        buf_add_str(out, out->n ? STR("\n") : STR(""));
        report_setting(&v[i], out);
        buf_add_str(out, STR("\n"));
        print(lines, n_lines, out);
    }
    free(done);
    free(lines);
    free(group);
    free(p);
}
