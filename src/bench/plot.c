/* bench/plot.c - cumulative distributions as SVG: four panels, one line per run. Self-contained; light or dark as the
 * viewer prefers. */
#include "bench/saved.h"
#include "bench/stats.h"

#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PANEL_W    470
#define PANEL_H    270
#define LEFT       52 /* of a panel: room for the vertical scale */
#define TOP        34
#define BOTTOM     44
#define RIGHT      18
#define MARGIN     14
#define TITLE_H    40
#define LEGEND_ROW 20
#define LEGEND_W   310
#define MAX_CURVES 64
#define POINTS     400 /* of a line, at most; the ends and the highest shares are kept */
#define WIDE_RANGE 8.0 /* largest over smallest value from which the scale is logarithmic */
#define SVG_MAX    (64u << 20)

extern char **environ;

/* Colours that stay apart in the common kinds of colour blindness, on white and on near-black; repeated with other
 * dashes. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f7f7f"};
static const char *const dashes[] = {"", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2 1 2"};
static const char *const titles[BENCH_N_METRICS] = {"Time to first token", "Time per output token, without the first",
                                                    "Inter-token latency", "End-to-end latency"};

struct panel {
    struct buf *out;
    const struct bench_curve_set *v;
    size_t n;
    int metric;
    double x, y, w, h; /* of the drawing area */
    double lo, hi;     /* milliseconds at its left and right edge */
    bool log;
    double unit; /* milliseconds of one unit of the scale */
    const char *unit_name;
};

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void sort_all(struct bench_curve_set *c)
{
    for (int m = 0; m < BENCH_N_METRICS; m++)
        if (c->n[m] > 1)
            qsort(c->v[m], c->n[m], sizeof(float), by_value);
}

static void room_for(struct bench_curve_set *c, const size_t n[BENCH_N_METRICS])
{
    for (int m = 0; m < BENCH_N_METRICS; m++)
        c->v[m] = xrealloc(c->v[m], MAX(c->n[m] + n[m], (size_t)1) * sizeof(float));
}

static void add(struct bench_curve_set *c, int m, double seconds)
{
    c->v[m][c->n[m]++] = (float)(seconds * 1e3);
}

void bench_curves(const struct bench_run *r, struct bench_curve_set *out)
{
    size_t n[BENCH_N_METRICS] = {r->n_samples, r->n_samples, 0, r->n_samples};
    *out =
        (struct bench_curve_set){.label = {str_dup(r->label.n ? r->label : STR("run")), r->label.n ? r->label.n : 3}};
    for (uint32_t i = 0; i < r->n_samples; i++)
        n[BENCH_ITL] += r->samples[i].ok ? r->samples[i].n_itl : 0;
    room_for(out, n);
    for (uint32_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        double tpot;
        if (!s->ok)
            continue;
        add(out, BENCH_TTFT, s->ttft_s);
        add(out, BENCH_E2EL, s->e2el_s);
        if (bench_tpot(s, &tpot))
            add(out, BENCH_TPOT, tpot);
        for (uint32_t k = 0; k < s->n_itl; k++)
            add(out, BENCH_ITL, (double)s->itl_s[k]);
    }
    sort_all(out);
}

/* The requests of a saved run. Without latencies (the engine's client leaves them out) they are the sum of the parts.
 */
static void add_saved(const struct saved_run *r, struct bench_curve_set *out)
{
    size_t n[BENCH_N_METRICS] = {r->ttft.n, r->ttft.n, r->itl.n, r->ttft.n};
    room_for(out, n);
    for (size_t i = 0, at = 0; i < r->ttft.n; i++) {
        size_t gaps = (size_t)r->itl_n.v[i];
        double ttft = r->ttft.v[i], latency = ttft, tokens = r->output.v[i];
        bool failed = r->failed.there ? r->failed.v[i] > 0 : tokens <= 0;
        for (size_t k = 0; k < gaps; k++, at++) {
            latency += r->itl.v[at];
            if (!failed)
                add(out, BENCH_ITL, r->itl.v[at]);
        }
        if (failed)
            continue;
        latency = r->latency.there ? r->latency.v[i] : latency;
        add(out, BENCH_TTFT, ttft);
        add(out, BENCH_E2EL, latency);
        if (tokens >= 2)
            add(out, BENCH_TPOT, (latency - ttft) / (tokens - 1));
    }
}

bool bench_curves_load(const char *path, struct bench_curve_set *out, struct errbuf *err)
{
    struct saved_runs runs;
    *out = (struct bench_curve_set){0};
    if (!saved_read(path, true, &runs, err))
        return false;
    size_t n = strlen(runs.v[0].label);
    out->label = (struct str){str_dup((struct str){runs.v[0].label, n}), n};
    for (size_t i = 0; i < runs.n; i++)
        add_saved(&runs.v[i], out);
    sort_all(out);
    saved_free(&runs);
    return true;
}

void bench_curves_free(struct bench_curve_set *c)
{
    union {
        const char *borrowed;
        char *own;
    } label = {c->label.p};
    free(label.own);
    for (int m = 0; m < BENCH_N_METRICS; m++)
        free(c->v[m]);
    *c = (struct bench_curve_set){0};
}

/* ---- drawing ---- */

/* Text of an element: markup escaped, what XML forbids replaced. */
static void text_of(struct buf *out, struct str s)
{
    for (const char *p = s.p, *end = s.n ? s.p + s.n : s.p; p < end;) {
        size_t n = utf8_char_len(p, end);
        bool forbidden =
            n == 0 || (unsigned char)*p < 0x20 || (n == 3 && !memcmp(p, "\xef\xbf", 2) && (unsigned char)p[2] >= 0xbe);
        if (forbidden)
            buf_add_str(out, STR("\xef\xbf\xbd"));
        else if (*p == '&' || *p == '<' || *p == '>')
            buf_add_str(out, *p == '&' ? STR("&amp;") : *p == '<' ? STR("&lt;") : STR("&gt;"));
        else
            buf_add(out, p, n);
        p += MAX(n, (size_t)1);
    }
}

static double x_of(const struct panel *p, double ms)
{
    double v = MIN(MAX(ms, p->lo), p->hi);
    double t = p->log ? log(v / p->lo) / log(p->hi / p->lo) : (v - p->lo) / (p->hi - p->lo);
    return p->x + t * p->w;
}

static double y_of(const struct panel *p, double share)
{
    return p->y + (1 - share) * p->h;
}

/* 1, 2 or 5 times a power of ten, at least v. */
static double round_up(double v)
{
    double power = pow(10, floor(log10(v)));
    for (int i = 0; i < 3; i++) {
        double step = (i == 0 ? 1 : i == 1 ? 2 : 5) * power;
        if (step >= v * 0.999999)
            return step;
    }
    return 10 * power;
}

static void scale(struct panel *p)
{
    double lo = HUGE_VAL, hi = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint32_t n = p->v[i].n[p->metric];
        const float *v = p->v[i].v[p->metric];
        if (n == 0)
            continue;
        hi = MAX(hi, (double)v[n - 1]);
        for (uint32_t k = n / 25; k < n; k++) /* the lowest 4 % may lie left of the edge */
            if (v[k] > 0) {
                lo = MIN(lo, (double)v[k]);
                break;
            }
    }
    if (!(hi > 0) || !isfinite(hi))
        hi = lo = 1;
    p->unit = hi >= 10e3 ? 1e3 : hi < 0.5 ? 1e-3 : 1;
    p->unit_name = hi >= 10e3 ? "s" : hi < 0.5 ? "µs" : "ms";
    lo = MIN(MAX(lo, hi * 1e-6), hi);
    p->log = hi / lo > WIDE_RANGE;
    if (p->log) {
        p->lo = round_up(lo) > lo * 1.001 ? round_up(lo) / (round_up(lo) > lo * 2 ? 2.5 : 2) : lo;
        p->hi = round_up(hi);
        return;
    }
    double step = round_up(hi / 5);
    p->lo = lo > hi / 2 ? floor(lo * 0.98 / (step / 5)) * (step / 5) : 0;
    step = round_up((hi - p->lo) / 5);
    p->lo = floor(p->lo / step) * step;
    p->hi = MAX(ceil(hi / step), p->lo / step + 1) * step;
}

static void x_tick(struct panel *p, double ms, bool text)
{
    double x = x_of(p, ms);
    buf_addf(p->out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, p->y, x,
             p->y + p->h);
    if (text)
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>\n", x,
                 p->y + p->h + 15, ms / p->unit);
}

static void x_axis(struct panel *p)
{
    if (p->log) {
        double decades = log10(p->hi / p->lo);
        for (double power = pow(10, floor(log10(p->lo))); power <= p->hi * 1.0001; power *= 10)
            for (int i = 1; i < 10; i++) {
                bool text = decades > 4 ? i == 1 : decades > 2.2 ? i == 1 || i == 3 : i == 1 || i == 2 || i == 5;
                double v = power * i;
                if (v >= p->lo * 0.9999 && v <= p->hi * 1.0001 && (text || decades < 4))
                    x_tick(p, v, text);
            }
        return;
    }
    double step = round_up((p->hi - p->lo) / 6);
    for (double i = 0; p->lo + i * step <= p->hi * 1.0001; i++)
        x_tick(p, p->lo + i * step, true);
}

static void y_axis(struct panel *p)
{
    static const double shares[] = {0, 25, 50, 75, 90, 100};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        double y = y_of(p, shares[i] / 100);
        buf_addf(p->out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", p->x, y,
                 p->x + p->w, y);
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f %%</text>\n", p->x - 6,
                 y + 4, shares[i]);
    }
}

static void style_of(struct buf *out, size_t i)
{
    const char *dash = dashes[(i / ARRAY_LEN(colours) + i) % ARRAY_LEN(dashes)];
    buf_addf(out, "stroke=\"%s\"", colours[i % ARRAY_LEN(colours)]);
    if (*dash)
        buf_addf(out, " stroke-dasharray=\"%s\"", dash);
}

/* Order statistic for point k of `points`: evenly up to 90 %, then ever denser towards the largest, so that the tail
 * keeps its shape. */
static size_t rank_of(size_t k, size_t points, size_t n)
{
    if (n <= points)
        return k;
    double t = (double)k / (double)(points - 1);
    double share = t < 0.75 ? t / 0.75 * 0.9 : 1 - 0.1 * pow(1e-5, (t - 0.75) / 0.25);
    return k + 1 == points ? n - 1 : MIN((size_t)(share * (double)n), n - 1);
}

static void line(struct panel *p, size_t i)
{
    uint32_t n = p->v[i].n[p->metric];
    const float *v = p->v[i].v[p->metric];
    size_t points = MIN(n, (uint32_t)POINTS);
    if (n == 0)
        return;
    buf_addf(p->out, "<path class=\"line\" ");
    style_of(p->out, i);
    buf_addf(p->out, " d=\"M%.1f %.1f", x_of(p, (double)v[0]), y_of(p, 0));
    double y = y_of(p, 0);
    for (size_t k = 0; k < points; k++) {
        size_t rank = rank_of(k, points, n);
        double x = x_of(p, (double)v[rank]);
        if (points < 100) /* few values: the steps that they are */
            buf_addf(p->out, " L%.1f %.1f", x, y);
        y = y_of(p, (double)(rank + 1) / n);
        buf_addf(p->out, " L%.1f %.1f", x, y);
    }
    buf_addf(p->out, " L%.1f %.1f\"/>\n", p->x + p->w, y_of(p, 1));
}

static void panel(struct panel *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->v[i].n[p->metric];
    buf_addf(p->out, "<text class=\"head\" x=\"%.1f\" y=\"%.1f\">%s (%s)</text>\n", p->x, p->y - 10, titles[p->metric],
             bench_metric_names[p->metric]);
    if (n == 0) {
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">no values</text>\n",
                 p->x + p->w / 2, p->y + p->h / 2);
    } else {
        scale(p);
        x_axis(p);
        y_axis(p);
        for (size_t i = 0; i < p->n; i++)
            line(p, i);
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s%s</text>\n",
                 p->x + p->w / 2, p->y + p->h + 32, p->unit_name, p->log ? ", logarithmic" : "");
    }
    buf_addf(p->out, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", p->x, p->y, p->w,
             p->h);
}

static void legend(struct buf *out, const struct bench_curve_set *v, size_t n, double y, size_t columns)
{
    for (size_t i = 0; i < n; i++) {
        double x = MARGIN + LEFT + (double)(i % columns) * LEGEND_W, ly = y + (double)(i / columns) * LEGEND_ROW;
        buf_addf(out, "<path class=\"line\" ");
        style_of(out, i);
        buf_addf(out, " d=\"M%.1f %.1f h34\"/>\n<text class=\"legend\" x=\"%.1f\" y=\"%.1f\">", x, ly - 4, x + 42, ly);
        struct str label = v[i].label;
        size_t cut = 0;
        for (size_t chars = 0; cut < label.n && chars < 36; chars++)
            cut += MAX(utf8_char_len(label.p + cut, label.p + label.n), (size_t)1);
        text_of(out, str_first(label, cut));
        if (cut < label.n)
            buf_add_str(out, STR("…"));
        buf_add_str(out, STR("</text>\n"));
    }
}

static void draw(const struct bench_curve_set *v, size_t n, struct buf *out)
{
    const size_t columns = 3, rows = (n + columns - 1) / columns;
    const double width = 2 * PANEL_W + 2 * MARGIN, legend_y = TITLE_H + 2 * PANEL_H + 18;
    const double height = legend_y + (double)rows * LEGEND_ROW + MARGIN;
    buf_addf(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
             "role=\"img\">\n",
             width, height, width, height);
    buf_addf(
        out,
        "<title>Latency distributions</title>\n<style>\n"
        "text{font-family:system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif;fill:#1f2328}\n"
        ".bg{fill:#fff}.head{font-size:14px;font-weight:600}.title{font-size:17px;font-weight:600}\n"
        ".tick{font-size:11px;fill:#57606a}.legend{font-size:13px}\n"
        ".grid{stroke:#d0d7de;stroke-width:.7}.frame{fill:none;stroke:#8c959f}.line{fill:none;stroke-width:2;stroke-"
        "linejoin:round}\n"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.tick{fill:#9198a1}.grid{stroke:#2f353d}"
        ".frame{stroke:#656c76}.line{filter:brightness(1.25)}}\n"
        "</style>\n<rect class=\"bg\" width=\"100%%\" height=\"100%%\"/>\n");
    buf_addf(out,
             "<text class=\"title\" x=\"%d\" y=\"27\">Latency: share of requests (ITL: of gaps) at or below a "
             "value</text>\n",
             MARGIN + LEFT);
    for (int m = 0; m < BENCH_N_METRICS; m++) {
        struct panel p = {
            .out = out, .v = v, .n = n, .metric = m, .w = PANEL_W - LEFT - RIGHT, .h = PANEL_H - TOP - BOTTOM};
        p.x = MARGIN + LEFT + (m % 2) * PANEL_W;
        p.y = TITLE_H + TOP + (double)(m / 2) * PANEL_H;
        panel(&p);
    }
    legend(out, v, n, legend_y, columns);
    buf_add_str(out, STR("</svg>\n"));
}

/* ---- files ---- */

static bool write_file(int fd, const char *path, struct str text, struct errbuf *err)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            (void)err_set(err, "%s: cannot write: %s", path, strerror(errno));
            (void)close(fd);
            return false;
        }
        text = str_from(text, (size_t)n);
    }
    if (close(fd) < 0) {
        (void)err_set(err, "%s: cannot write: %s", path, strerror(errno));
        return false;
    }
    return true;
}

static bool write_svg(const char *path, struct str svg, struct errbuf *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        (void)err_set(err, "%s: cannot create: %s", path, strerror(errno));
        return false;
    }
    return write_file(fd, path, svg, err);
}

static bool convert(const char *svg, const char *png, struct errbuf *err)
{
    char name[] = "rsvg-convert", zoom[] = "--zoom=2", output[] = "-o";
    char *to = str_dup(str_c(png)), *from = str_dup(str_c(svg));
    char *argv[] = {name, zoom, output, to, from, NULL};
    pid_t pid;
    int status = 0, e = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
    if (e == 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    free(to);
    free(from);
    if (e == ENOENT) {
        (void)err_set(err,
                      "%s: a PNG needs rsvg-convert (Debian package librsvg2-bin), which is not there; name a file "
                      "that ends in .svg",
                      png);
    } else if (e != 0) {
        (void)err_set(err, "%s: cannot start rsvg-convert: %s", png, strerror(e));
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        (void)err_set(err, "%s: rsvg-convert failed (%s %d)", png, WIFEXITED(status) ? "status" : "signal",
                      WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    } else {
        return true;
    }
    return false;
}

static bool write_png(const char *path, struct str svg, struct errbuf *err)
{
    char *tmp = xmalloc(strlen(path) + 16);
    (void)snprintf(tmp, strlen(path) + 16, "%s.XXXXXX", path);
    int fd = mkstemp(tmp);
    if (fd < 0)
        (void)err_set(err, "%s: cannot create a file beside it: %s", path, strerror(errno));
    bool ok = fd >= 0 && write_file(fd, tmp, svg, err) && convert(tmp, path, err);
    if (fd >= 0)
        (void)unlink(tmp);
    free(tmp);
    return ok;
}

bool bench_plot(const struct bench_curve_set *v, size_t n, const char *path, struct errbuf *err)
{
    struct str name = str_c(path);
    bool png = str_ends(name, STR(".png"));
    if (!png && !str_ends(name, STR(".svg"))) {
        (void)err_set(err, "%s: a plot ends in .svg or .png", path);
        return false;
    }
    if (n == 0 || n > MAX_CURVES) {
        (void)err_set(err, "%s: a plot takes 1 to %d runs, not %zu", path, MAX_CURVES, n);
        return false;
    }
    struct buf svg;
    buf_init(&svg, SVG_MAX);
    draw(v, n, &svg);
    bool ok = png ? write_png(path, buf_str(&svg), err) : write_svg(path, buf_str(&svg), err);
    buf_free(&svg);
    return ok;
}
