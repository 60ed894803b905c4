/* bench/svg.c - panels, axes and lines of charts. */
#include "bench/svg.h"

#include "base/utf8.h"

#include <math.h>

#define WIDE_RANGE 8.0 /* largest over smallest value from which the scale is logarithmic */

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f7f7f"};
static const char *const dashes[] = {"", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2 1 2"};

void svg_text(struct buf *out, struct str s)
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

const char *svg_colour(size_t i)
{
    return colours[i % ARRAY_LEN(colours)];
}

void svg_style(struct buf *out, size_t i)
{
    const char *dash = dashes[(i / ARRAY_LEN(colours) + i) % ARRAY_LEN(dashes)];
    buf_addf(out, "stroke=\"%s\"", svg_colour(i));
    if (*dash)
        buf_addf(out, " stroke-dasharray=\"%s\"", dash);
}

/* ---- scales ---- */

double svg_round_up(double v)
{
    double power = pow(10, floor(log10(v)));
    for (int i = 0; i < 3; i++) {
        double step = (i == 0 ? 1 : i == 1 ? 2 : 5) * power;
        if (step >= v * 0.999999)
            return step;
    }
    return 10 * power;
}

void svg_range(const float *v, uint32_t n, double *lo, double *hi)
{
    if (n == 0)
        return;
    *hi = MAX(*hi, (double)v[n - 1]);
    for (uint32_t k = n / 25; k < n; k++)
        if (v[k] > 0) {
            *lo = MIN(*lo, (double)v[k]);
            break;
        }
}

void svg_axis_fit(struct svg_axis *a, double lo, double hi)
{
    if (!(hi > 0) || !isfinite(hi))
        hi = lo = 1;
    *a = (struct svg_axis){.unit = 1, .unit_name = ""};
    lo = MIN(MAX(lo, hi * 1e-6), hi);
    a->log = hi / lo > WIDE_RANGE;
    if (a->log) {
        double round = svg_round_up(lo);
        a->lo = round > lo * 1.001 ? round / (round > lo * 2 ? 2.5 : 2) : lo;
        a->hi = svg_round_up(hi);
        return;
    }
    double step = svg_round_up(hi / 5);
    a->lo = lo > hi / 2 ? floor(lo * 0.98 / (step / 5)) * (step / 5) : 0;
    step = svg_round_up((hi - a->lo) / 5);
    a->lo = floor(a->lo / step) * step;
    a->hi = MAX(ceil(hi / step), a->lo / step + 1) * step;
}

void svg_axis_from_0(struct svg_axis *a, double hi)
{
    hi = hi > 0 && isfinite(hi) ? hi : 1;
    double step = svg_round_up(hi / 5);
    *a = (struct svg_axis){.hi = ceil(hi / step * 0.999999) * step, .unit = 1, .unit_name = ""};
}

void svg_axis_ms(struct svg_axis *a, double lo, double hi)
{
    svg_axis_fit(a, lo, hi);
    hi = hi > 0 && isfinite(hi) ? hi : 1;
    a->unit = hi >= 10e3 ? 1e3 : hi < 0.5 ? 1e-3 : 1;
    a->unit_name = hi >= 10e3 ? "s" : hi < 0.5 ? "µs" : "ms";
}

/* 0 to 1 along the axis. */
static double part(const struct svg_axis *a, double v)
{
    v = MIN(MAX(v, a->lo), a->hi);
    return a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
}

double svg_x(const struct svg_panel *p, double v)
{
    return p->x + part(&p->ax, v) * p->w;
}

double svg_y(const struct svg_panel *p, double v)
{
    return p->y + (1 - part(&p->ay, v)) * p->h;
}

/* ---- axes ---- */

typedef void tick_fn(struct svg_panel *p, double v, bool text);

void svg_x_tick(struct svg_panel *p, double v, bool text)
{
    double x = svg_x(p, v);
    buf_addf(p->out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, p->y, x,
             p->y + p->h);
    if (text)
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>\n", x,
                 p->y + p->h + 15, v / p->ax.unit);
}

static void y_line(struct svg_panel *p, double v)
{
    double y = svg_y(p, v);
    buf_addf(p->out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", p->x, y, p->x + p->w,
             y);
}

static void y_tick(struct svg_panel *p, double v, bool text)
{
    y_line(p, v);
    if (text)
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.6g%s%s</text>\n", p->x - 6,
                 svg_y(p, v) + 4, v / p->ay.unit, *p->ay.unit_name ? " " : "", p->ay.unit_name);
}

static void ticks(struct svg_panel *p, const struct svg_axis *a, double most, tick_fn *tick)
{
    if (a->log) {
        double decades = log10(a->hi / a->lo);
        for (double power = pow(10, floor(log10(a->lo))); power <= a->hi * 1.0001; power *= 10)
            for (int i = 1; i < 10; i++) {
                bool text = decades > 4 ? i == 1 : decades > 2.2 ? i == 1 || i == 3 : i == 1 || i == 2 || i == 5;
                double v = power * i;
                if (v >= a->lo * 0.9999 && v <= a->hi * 1.0001 && (text || decades < 4))
                    tick(p, v, text);
            }
        return;
    }
    double step = svg_round_up((a->hi - a->lo) / most);
    for (double i = 0; a->lo + i * step <= a->hi + step * 1e-4; i++)
        tick(p, fabs(a->lo + i * step) < step * 1e-9 ? 0 : a->lo + i * step, true);
}

void svg_x_axis(struct svg_panel *p)
{
    ticks(p, &p->ax, 6, svg_x_tick);
}

void svg_y_axis(struct svg_panel *p)
{
    ticks(p, &p->ay, 5, y_tick);
}

void svg_y_shares(struct svg_panel *p)
{
    static const double shares[] = {0, 25, 50, 75, 90, 100};
    p->ay = (struct svg_axis){.lo = 0, .hi = 1, .unit = 1, .unit_name = ""};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        y_line(p, shares[i] / 100);
        buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f %%</text>\n", p->x - 6,
                 svg_y(p, shares[i] / 100) + 4, shares[i]);
    }
}

void svg_head(struct svg_panel *p, const char *title)
{
    buf_addf(p->out, "<text class=\"head\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->x, p->y - 10, title);
}

void svg_x_name(struct svg_panel *p, const char *name)
{
    buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s%s</text>\n", p->x + p->w / 2,
             p->y + p->h + 32, name, p->ax.log ? ", logarithmic" : "");
}

void svg_frame(struct svg_panel *p)
{
    buf_addf(p->out, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", p->x, p->y, p->w,
             p->h);
}

void svg_none(struct svg_panel *p)
{
    buf_addf(p->out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">no values</text>\n",
             p->x + p->w / 2, p->y + p->h / 2);
}

/* ---- lines ---- */

static void end_line(struct svg_panel *p, struct str name)
{
    if (!name.n) {
        buf_add_str(p->out, STR("\"/>\n"));
        return;
    }
    buf_add_str(p->out, STR("\"><title>"));
    svg_text(p->out, name);
    buf_add_str(p->out, STR("</title></path>\n"));
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

void svg_distribution(struct svg_panel *p, size_t style, struct str name, const float *v, uint32_t n)
{
    size_t points = MIN(n, (uint32_t)SVG_POINTS);
    if (n == 0)
        return;
    buf_addf(p->out, "<path class=\"line\" ");
    svg_style(p->out, style);
    buf_addf(p->out, " d=\"M%.1f %.1f", svg_x(p, (double)v[0]), svg_y(p, 0));
    double y = svg_y(p, 0);
    for (size_t k = 0; k < points; k++) {
        size_t rank = rank_of(k, points, n);
        double x = svg_x(p, (double)v[rank]);
        if (points < 100) /* few values: the steps that they are */
            buf_addf(p->out, " L%.1f %.1f", x, y);
        y = svg_y(p, (double)(rank + 1) / n);
        buf_addf(p->out, " L%.1f %.1f", x, y);
    }
    buf_addf(p->out, " L%.1f %.1f", p->x + p->w, svg_y(p, 1));
    end_line(p, name);
}

void svg_line(struct svg_panel *p, size_t style, struct str name, const double *x, const double *y, uint32_t n)
{
    CHECK(n <= SVG_POINTS);
    if (n == 0)
        return;
    buf_addf(p->out, "<path class=\"line\" ");
    svg_style(p->out, style);
    buf_add_str(p->out, STR(" d=\""));
    for (uint32_t i = 0; i < n; i++)
        buf_addf(p->out, "%s%.1f %.1f", i ? " L" : "M", svg_x(p, x[i]), svg_y(p, y[i]));
    end_line(p, name);
}
