/* bench/plot.c - cumulative distributions as SVG: four panels, one line per run. Self-contained; light or dark as the
 * viewer prefers. */
#include "bench/saved.h"
#include "bench/stats.h"
#include "bench/svg.h"

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
#define SVG_MAX    (64u << 20)

extern char **environ;

static const char *const titles[BENCH_N_METRICS] = {"Time to first token", "Time per output token, without the first",
                                                    "Inter-token latency", "End-to-end latency"};

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

static void panel(struct svg_panel *p, const struct bench_curve_set *v, size_t n, int metric)
{
    double lo = HUGE_VAL, hi = 0;
    uint64_t values = 0;
    char text[128];
    for (size_t i = 0; i < n; i++) {
        values += v[i].n[metric];
        svg_range(v[i].v[metric], v[i].n[metric], &lo, &hi);
    }
    (void)snprintf(text, sizeof(text), "%s (%s)", titles[metric], bench_metric_names[metric]);
    svg_head(p, text);
    if (values == 0) {
        svg_none(p);
    } else {
        svg_axis_ms(&p->ax, lo, hi);
        svg_x_axis(p);
        svg_y_shares(p);
        for (size_t i = 0; i < n; i++)
            svg_distribution(p, i, STR_NULL, v[i].v[metric], v[i].n[metric]);
        svg_x_name(p, p->ax.unit_name);
    }
    svg_frame(p);
}

static void legend(struct buf *out, const struct bench_curve_set *v, size_t n, double y, size_t columns)
{
    for (size_t i = 0; i < n; i++) {
        double x = MARGIN + LEFT + (double)(i % columns) * LEGEND_W, ly = y + (double)(i / columns) * LEGEND_ROW;
        buf_addf(out, "<path class=\"line\" ");
        svg_style(out, i);
        buf_addf(out, " d=\"M%.1f %.1f h34\"/>\n<text class=\"legend\" x=\"%.1f\" y=\"%.1f\">", x, ly - 4, x + 42, ly);
        struct str label = v[i].label;
        size_t cut = 0;
        for (size_t chars = 0; cut < label.n && chars < 36; chars++)
            cut += MAX(utf8_char_len(label.p + cut, label.p + label.n), (size_t)1);
        svg_text(out, str_first(label, cut));
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
    buf_addf(out,
             "<title>Latency distributions</title>\n<style>\n%s</style>\n"
             "<rect class=\"bg\" width=\"100%%\" height=\"100%%\"/>\n",
             SVG_STYLE);
    buf_addf(out,
             "<text class=\"title\" x=\"%d\" y=\"27\">Latency: share of requests (ITL: of gaps) at or below a "
             "value</text>\n",
             MARGIN + LEFT);
    for (int m = 0; m < BENCH_N_METRICS; m++) {
        struct svg_panel p = {.out = out, .w = PANEL_W - LEFT - RIGHT, .h = PANEL_H - TOP - BOTTOM};
        p.x = MARGIN + LEFT + (m % 2) * PANEL_W;
        p.y = TITLE_H + TOP + (double)(m / 2) * PANEL_H;
        panel(&p, v, n, m);
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
