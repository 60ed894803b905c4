/* replay/page_chart.c - the charts of the page. A variant has the same line in all charts of a setting. */
#include "bench/svg.h"
#include "base/utf8.h"
#include "bench/stats.h"
#include "replay/page_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WIDTH       980 /* of a chart */
#define LEFT        58  /* of a panel: room for the vertical scale */
#define TOP         30
#define BOTTOM      44
#define RIGHT       18
#define MAX_VALUES  100000u /* of a run in a distribution, evenly taken */
#define BUCKETS     300u    /* of a line over time */
#define ROW         22      /* of bars */
#define LABEL_CHARS 27

static void begin(struct buf *out, double height, const char *about)
{
    buf_addf(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" role=\"img\">\n<title>%s</title>\n",
             WIDTH, height, about);
}

/* Panel i of a chart with so many columns. */
static struct svg_panel panel(struct buf *out, uint32_t i, uint32_t columns, double height)
{
    double w = (double)WIDTH / columns;
    return (struct svg_panel){.out = out,
                              .x = (i % columns) * w + LEFT,
                              .y = (i / columns) * height + TOP,
                              .w = w - LEFT - RIGHT,
                              .h = height - TOP - BOTTOM};
}

static uint32_t drawn(const struct page_set *s)
{
    return MIN(s->n_variants, (uint32_t)PAGE_VARIANTS);
}

/* ---- distributions ---- */

struct values {
    float *v;
    uint32_t n, cap;
};

static void value(struct values *to, double s)
{
    if (to->n == to->cap) {
        to->cap = MAX(to->cap * 2, 1024u);
        to->v = xrealloc(to->v, to->cap * sizeof(*to->v));
    }
    to->v[to->n++] = (float)(s * 1e3);
}

static void values_of(const struct report_run *run, bool tpot, struct values *to)
{
    const struct world_result *w = run->w;
    if (!w)
        return;
    struct report_span span = report_span_of(w, run->r.users > 0, w->end_s);
    uint32_t every = w->n / MAX_VALUES + 1;
    for (uint32_t i = 0; i < w->n; i += every) {
        const struct world_request *q = &w->v[i];
        if (!report_counts(q, span) || q->end != WORLD_OK || (tpot && q->output < 2))
            continue;
        value(to, tpot ? (q->end_s - q->first_s) / (q->output - 1) : q->first_s - q->at_s);
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void distribution(struct svg_panel *p, const struct page_set *s, uint32_t load, bool tpot)
{
    struct values v[PAGE_VARIANTS] = {{0}};
    double lo = HUGE_VAL, hi = 0;
    for (uint32_t a = 0; a < drawn(s); a++) {
        for (uint32_t i = 0; i < s->n; i++)
            if (s->cell[i] == page_cell(s, a, load))
                values_of(s->run[i], tpot, &v[a]);
        if (v[a].n)
            qsort(v[a].v, v[a].n, sizeof(*v[a].v), by_value);
        svg_range(v[a].v, v[a].n, &lo, &hi);
    }
    svg_head(p, tpot ? "Time per output token (TPOT), share of requests"
                     : "Time to first token (TTFT), share of requests");
    if (isinf(lo)) {
        svg_none(p);
    } else {
        svg_axis_ms(&p->ax, lo, hi);
        svg_x_axis(p);
        svg_y_shares(p);
        svg_x_name(p, p->ax.unit_name);
    }
    for (uint32_t a = 0; a < drawn(s); a++) {
        struct buf name;
        buf_init(&name, 1024);
        page_variant(s, a, &name);
        if (!isinf(lo))
            svg_distribution(p, a, buf_str(&name), v[a].v, v[a].n);
        buf_free(&name);
        free(v[a].v);
    }
    svg_frame(p);
}

void page_distributions(const struct page_set *s, uint32_t load, struct buf *out)
{
    const double height = 300;
    begin(out, height, "Distributions of time to first token and time per output token");
    for (uint32_t i = 0; i < 2; i++) {
        struct svg_panel p = panel(out, i, 2, height);
        distribution(&p, s, load, i == 1);
    }
    buf_add_str(out, STR("</svg>\n"));
}

/* ---- over time ---- */

static const struct gauge {
    const char *title;
    size_t offset;
    double scale;
    const char *unit;
    bool fullest; /* of a stretch of time the largest value, else the mean */
} gauges[] = {{"Waiting on a server, mean", offsetof(struct world_gauge, waiting), 1, "", false},
              {"Running on a server, mean", offsetof(struct world_gauge, running), 1, "", false},
              {"KV cache in use, mean", offsetof(struct world_gauge, kv), 100, "%", false},
              {"Waiting on a server, longest queue", offsetof(struct world_gauge, max_waiting), 1, "", true},
              {"Queued in the gateways", offsetof(struct world_gauge, queued), 1, "", false},
              {"KV cache in use, fullest server", offsetof(struct world_gauge, max_kv), 100, "%", true}};

static double gauge_at(const struct world_result *w, uint32_t i, const struct gauge *g)
{
    float v;
    memcpy(&v, (const char *)&w->gauges[i] + g->offset, sizeof(v));
    return (double)v * g->scale;
}

/* At most BUCKETS points; returns how many. Seconds; a gauge is read once a second from 0 on. */
static uint32_t thin(const struct world_result *w, const struct gauge *g, double *x, double *y)
{
    uint32_t n = MIN(w->n_gauges, BUCKETS);
    for (uint32_t b = 0; b < n; b++) {
        uint32_t from = (uint32_t)((uint64_t)b * w->n_gauges / n), to = (uint32_t)((uint64_t)(b + 1) * w->n_gauges / n);
        double sum = 0, most = 0;
        for (uint32_t i = from; i < to; i++) {
            double v = gauge_at(w, i, g);
            sum += v;
            most = MAX(most, v);
        }
        x[b] = (from + to - 1) / 2.0;
        y[b] = g->fullest ? most : sum / (to - from);
    }
    return n;
}

/* The first run of a cell that was watched. */
static const struct world_result *watched(const struct page_set *s, uint32_t variant, uint32_t load)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->cell[i] == page_cell(s, variant, load) && s->run[i]->w && s->run[i]->w->n_gauges)
            return s->run[i]->w;
    return NULL;
}

static void time_axis(struct svg_axis *a, double seconds)
{
    double unit = seconds > 3 * 3600 ? 3600 : seconds > 600 ? 60 : 1;
    *a = (struct svg_axis){.hi = MAX(seconds, 1.0), .unit = unit};
    a->unit_name = unit > 60 ? "hours" : unit > 1 ? "minutes" : "seconds";
}

static void x_axis_of_time(struct svg_panel *p)
{
    double step = svg_round_up(p->ax.hi / p->ax.unit / 5) * p->ax.unit;
    for (double v = 0; v <= p->ax.hi * 1.0001; v += step)
        svg_x_tick(p, v, true);
    svg_x_name(p, p->ax.unit_name);
}

static void over_time(struct svg_panel *p, const struct page_set *s, uint32_t load, const struct gauge *g)
{
    double x[BUCKETS], y[BUCKETS], most = 0, seconds = 0;
    for (uint32_t a = 0; a < drawn(s); a++) {
        const struct world_result *w = watched(s, a, load);
        uint32_t n = w ? thin(w, g, x, y) : 0;
        for (uint32_t i = 0; i < n; i++)
            most = MAX(most, y[i]);
        seconds = MAX(seconds, w ? w->n_gauges : 0);
    }
    time_axis(&p->ax, seconds);
    svg_axis_from_0(&p->ay, most);
    p->ay.unit_name = g->unit;
    svg_head(p, g->title);
    x_axis_of_time(p);
    svg_y_axis(p);
    for (uint32_t a = 0; a < drawn(s); a++) {
        const struct world_result *w = watched(s, a, load);
        struct buf name;
        buf_init(&name, 1024);
        page_variant(s, a, &name);
        if (w)
            svg_line(p, a, buf_str(&name), x, y, thin(w, g, x, y));
        buf_free(&name);
    }
    svg_frame(p);
}

void page_over_time(const struct page_set *s, uint32_t load, struct buf *out)
{
    const double height = 230;
    bool any = false;
    for (uint32_t a = 0; a < drawn(s); a++)
        any |= watched(s, a, load) != NULL;
    if (!any)
        return;
    begin(out, 2 * height, "Load over time");
    buf_add_str(out, STR("<g class=\"fine\">\n"));
    for (uint32_t i = 0; i < ARRAY_LEN(gauges); i++) {
        struct svg_panel p = panel(out, i, 3, height);
        over_time(&p, s, load, &gauges[i]);
    }
    buf_add_str(out, STR("</g>\n</svg>\n"));
}

/* ---- against the load ---- */

static double load_value(const struct report *r)
{
    return r->users ? r->users : r->rate;
}

static void load_axis(struct svg_panel *p, const struct page_set *s)
{
    double first = load_value(s->load[0]), last = load_value(s->load[s->n_loads - 1]), pad = (last - first) * 0.04;
    double labelled = -1e9;
    p->ax = (struct svg_axis){.lo = first - pad, .hi = last + pad, .unit = 1, .unit_name = ""};
    for (uint32_t b = 0; b < s->n_loads; b++) {
        double v = load_value(s->load[b]);
        bool text = svg_x(p, v) - labelled > 38;
        labelled = text ? svg_x(p, v) : labelled;
        svg_x_tick(p, v, text);
    }
    svg_x_name(p, s->load[0]->users ? "users" : "requests/s offered");
}

static void point(struct svg_panel *p, uint32_t style, double x, struct report_mean m, double scale)
{
    double at = svg_x(p, x);
    buf_addf(p->out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at,
             svg_y(p, m.mean * scale), svg_colour(style));
    if (m.n > 1)
        buf_addf(p->out, "<path class=\"whisker\" stroke=\"%s\" d=\"M%.1f %.1f L%.1f %.1f\"/>\n", svg_colour(style), at,
                 svg_y(p, m.low * scale), at, svg_y(p, m.high * scale));
}

static void against(struct svg_panel *p, const struct page_set *s, const char *figure, const char *title)
{
    const struct report_figure *f = report_figure_of(figure);
    bool share = !strcmp(f->unit, "%");
    double lo = HUGE_VAL, hi = 0;
    for (uint32_t a = 0; a < drawn(s); a++)
        for (uint32_t b = 0; b < s->n_loads; b++) {
            struct report_mean m = page_mean(s, a, b, figure);
            lo = m.n ? MIN(lo, m.low * f->scale) : lo;
            hi = m.n ? MAX(hi, m.high * f->scale) : hi;
        }
    svg_head(p, title);
    svg_axis_fit(&p->ay, MIN(lo, hi), hi);
    if (share) /* up to 100 %, down to a round value */
        p->ay = (struct svg_axis){.lo = MIN(floor(MIN(lo, 100.0) / 10) * 10, 90), .hi = 100};
    else if (!strcmp(f->unit, "1/s"))
        svg_axis_from_0(&p->ay, hi);
    p->ay.unit = 1;
    p->ay.unit_name = strcmp(f->unit, "1/s") ? f->unit : "";
    load_axis(p, s);
    svg_y_axis(p);
    for (uint32_t a = 0; a < drawn(s); a++) {
        double x[SVG_POINTS], y[SVG_POINTS];
        uint32_t n = 0;
        struct buf name;
        for (uint32_t b = 0; b < s->n_loads && n < SVG_POINTS; b++) {
            struct report_mean m = page_mean(s, a, b, figure);
            if (!m.n)
                continue;
            x[n] = load_value(s->load[b]);
            y[n] = m.mean * f->scale;
            point(p, a, x[n++], m, f->scale);
        }
        buf_init(&name, 1024);
        page_variant(s, a, &name);
        svg_line(p, a, buf_str(&name), x, y, n);
        buf_free(&name);
    }
    svg_frame(p);
}

void page_against_load(const struct page_set *s, struct buf *out)
{
    static const char *const figures[][2] = {{"attained", "Requests that attain the level, share"},
                                             {"ttft_mean", "Mean time to first token"},
                                             {"goodput", "Goodput, requests/s that attain the level"},
                                             {"tpot_mean", "Mean time per output token"}};
    const double height = 280;
    begin(out, 2 * height, "Figures against the load");
    for (uint32_t i = 0; i < ARRAY_LEN(figures); i++) {
        struct svg_panel p = panel(out, i, 2, height);
        against(&p, s, figures[i][0], figures[i][1]);
    }
    buf_add_str(out, STR("</svg>\n"));
}

/* ---- bars ---- */

static const struct bars {
    const char *figure, *title;
    double most; /* 0: the largest there is */
} bars[] = {{"attained", "attained, %", 1},
            {"hit", "cached, %", 1},
            {"busy", "busy, %", 1},
            {"imbalance", "imbalance, %", 0},
            {"preempts", "preemptions", 0}};

static void label(struct buf *out, const struct page_set *s, uint32_t variant, double x, double y)
{
    struct buf name;
    buf_init(&name, 1024);
    page_variant(s, variant, &name);
    struct str text = buf_str(&name);
    size_t cut = 0;
    for (size_t chars = 0; cut < text.n && chars < LABEL_CHARS; chars++)
        cut += MAX(utf8_char_len(text.p + cut, text.p + text.n), (size_t)1);
    buf_addf(out, "<text class=\"legend\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", x, y);
    svg_text(out, str_first(text, cut));
    buf_add_str(out, cut < text.n ? STR("…</text>\n") : STR("</text>\n"));
    buf_free(&name);
}

static void bar(struct buf *out, uint32_t variant, struct report_mean m, const struct report_figure *f, double most,
                double x, double y, double w)
{
    char cell[REPORT_CELL];
    double length = most > 0 ? MIN(m.mean / most, 1) * w : 0;
    buf_addf(out, "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y,
             MAX(length, 0.8), ROW - 8, svg_colour(variant));
    report_cell(m, f, cell);
    buf_addf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x + length + 5, y + ROW - 11, cell);
}

static void column(const struct page_set *s, uint32_t load, const struct bars *b, double x, double w, struct buf *out)
{
    const struct report_figure *f = report_figure_of(b->figure);
    double most = b->most, y = 26;
    for (uint32_t a = 0; a < drawn(s) && b->most <= 0; a++)
        most = MAX(most, page_mean(s, a, load, b->figure).mean);
    buf_addf(out, "<text class=\"head\" x=\"%.1f\" y=\"16\">%s</text>\n", x, b->title);
    for (uint32_t a = 0; a < drawn(s); a++) {
        struct report_mean m = page_mean(s, a, load, b->figure);
        if (m.n)
            bar(out, a, m, f, most, x, y, w);
        y += ROW;
    }
}

void page_bars(const struct page_set *s, uint32_t load, struct buf *out)
{
    const double labels = 200, w = (WIDTH - labels) / (double)ARRAY_LEN(bars);
    begin(out, 30 + (double)ROW * drawn(s), "Level attained, cache hits, use, balance and preemptions");
    for (uint32_t a = 0; a < drawn(s); a++)
        label(out, s, a, labels - 10, 26 + (double)ROW * a + ROW - 10);
    for (uint32_t i = 0; i < ARRAY_LEN(bars); i++)
        column(s, load, &bars[i], labels + i * w, w - 80, out);
    buf_add_str(out, STR("</svg>\n"));
}
