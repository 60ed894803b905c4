/* bench/svg.h - the parts of charts as SVG, shared by the plot of a benchmark and the page of a replay: panels with axes, distributions, lines.
 *
 * Elements carry classes, SVG_STYLE is their sheet (light or dark as the viewer prefers). Everything is appended to a buffer, whose bound is the only error.
 * A line has at most SVG_POINTS points. Pure. */
#ifndef BENCH_SVG_H
#define BENCH_SVG_H

#include "base/buf.h"

#define SVG_POINTS 400
#define SVG_STYLE                                                                                                                                           \
    "text{font-family:system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif;fill:#1f2328}\n"                                                      \
    ".bg{fill:#fff}.head{font-size:14px;font-weight:600}.title{font-size:17px;font-weight:600}\n"                                                           \
    ".tick{font-size:11px;fill:#57606a}.legend{font-size:13px}\n"                                                                                           \
    ".grid{stroke:#d0d7de;stroke-width:.7}.frame{fill:none;stroke:#8c959f}.line{fill:none;stroke-width:2;stroke-linejoin:round}\n"                          \
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.tick{fill:#9198a1}.grid{stroke:#2f353d}"                                        \
    ".frame{stroke:#656c76}.line{filter:brightness(1.25)}}\n"

struct svg_axis {
    double lo, hi;
    bool log;
    double unit;           /* a tick shows value / unit */
    const char *unit_name; /* or "" */
};
struct svg_panel {
    struct buf *out;
    double x, y, w, h; /* the drawing area */
    struct svg_axis ax, ay;
};

void svg_text(struct buf *out, struct str s); /* of an element: markup escaped, what XML forbids replaced */
/* Colours stay apart in the common kinds of colour blindness, on white and on near-black; style: stroke, with other dashes when colours repeat. */
const char *svg_colour(size_t i);
void svg_style(struct buf *out, size_t i);
double svg_round_up(double v); /* 1, 2 or 5 times a power of ten, at least v > 0 */

/* The range of ascending values: widens *lo and *hi. The lowest 4 % may lie left of the edge. Start with HUGE_VAL and 0. */
void svg_range(const float *v, uint32_t n, double *lo, double *hi);
void svg_axis_fit(struct svg_axis *a, double lo, double hi);  /* round ends; logarithmic when the values are far apart; unit 1 */
void svg_axis_from_0(struct svg_axis *a, double hi);
void svg_axis_ms(struct svg_axis *a, double lo, double hi); /* values are milliseconds, shown as µs, ms or s */

double svg_x(const struct svg_panel *p, double v); /* clamped to the panel */
double svg_y(const struct svg_panel *p, double v);
void svg_x_axis(struct svg_panel *p);
void svg_x_tick(struct svg_panel *p, double v, bool text); /* one of its lines, with or without the value */
void svg_y_axis(struct svg_panel *p);
void svg_y_shares(struct svg_panel *p); /* 0 to 1, as per cent */
void svg_head(struct svg_panel *p, const char *title);
void svg_x_name(struct svg_panel *p, const char *name);
void svg_frame(struct svg_panel *p);
void svg_none(struct svg_panel *p); /* "no values" */
/* Share of the n ascending values at or below a value. name: shown by viewers that do; or NULL STR. */
void svg_distribution(struct svg_panel *p, size_t style, struct str name, const float *v, uint32_t n);
void svg_line(struct svg_panel *p, size_t style, struct str name, const double *x, const double *y, uint32_t n);

#endif
