/* replay/page.c - the page of replayed runs: a section for each setting (trace, profile, servers) with its charts, a
 * table of all figures, and the sampled decisions. The page is bounded: what is left out of a section is said there. */
#include "bench/svg.h"
#include "replay/page_int.h"

#include <math.h>
#include <stdlib.h>

#define MAX_SETTINGS  12
#define MAX_LOADS     5    /* with charts of their own */
#define MAX_ROWS      1000 /* of a table of figures */
#define MAX_SAMPLED   12   /* runs of a setting whose decisions are shown */
#define MAX_DECISIONS 24   /* of a run */

static const char style[] =
    ":root{color-scheme:light dark}\n"
    "body{font:15px/1.45 system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif;color:#1f2328;background:#fff;"
    "margin:0 auto;padding:20px;max-width:1080px}\n"
    "h1{font-size:24px;margin:.2em 0}h2{font-size:20px;margin:1.8em 0 .4em;border-top:1px solid "
    "#d0d7de;padding-top:.8em}\n"
    "h3{font-size:16px;margin:1.4em 0 .3em}p{margin:.4em 0}.note{color:#57606a}\n"
    "svg{display:block;width:100%;height:auto;margin:.4em 0}.key{display:flex;flex-wrap:wrap;gap:2px 18px;margin:.4em "
    "0}\n"
    ".key span{display:inline-flex;align-items:center;gap:6px;font-size:13px}.key "
    "svg{width:34px;height:10px;margin:0}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:2px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid #d0d7de}th{font-weight:600}\n"
    "th:first-child,td:first-child,td.why{text-align:left}tr.chosen td{font-weight:600;background:#ddf4ff}\n"
    "tr.out td{color:#57606a}summary{cursor:pointer;margin:.4em 0;font-weight:600}.pick{margin:.9em 0 .2em}\n"
    ".fine .line{stroke-width:1.3}.whisker{fill:none;stroke-width:1.2}\n"
    "@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}.note,tr.out td{color:#9198a1}\n"
    "h2,th,td{border-color:#2f353d}tr.chosen td{background:#12304a}.bar,.dot,.whisker{filter:brightness(1.25)}}\n";

/* ---- settings, variants, loads ---- */

static double load_of(const struct report *r)
{
    return r->users ? r->users : r->rate;
}

static bool same_load(const struct report *a, const struct report *b)
{
    return a->users == b->users && !(a->rate < b->rate) && !(a->rate > b->rate);
}

static bool same_variant(const struct report *a, const struct report *b)
{
    return !strcmp(a->policy, b->policy) && a->gateways == b->gateways;
}

static int by_load(const void *a, const void *b)
{
    const struct report *x = *(const struct report *const *)a, *y = *(const struct report *const *)b;
    if ((x->users > 0) != (y->users > 0))
        return x->users > 0 ? 1 : -1;
    return (load_of(x) > load_of(y)) - (load_of(x) < load_of(y));
}

typedef bool same_fn(const struct report *a, const struct report *b);

static uint32_t place(const struct report *const *v, uint32_t n, const struct report *r, same_fn *same)
{
    uint32_t i = 0;
    while (i < n && !same(v[i], r))
        i++;
    return i;
}

/* The runs that share the setting of `first`. */
static void set_make(struct page_set *s, const struct report_run *v, uint32_t n, const struct report *first)
{
    *s = (struct page_set){0};
    s->run = xcalloc(n, sizeof(*s->run));
    s->r = xcalloc(n, sizeof(*s->r));
    s->cell = xcalloc(n, sizeof(*s->cell));
    s->variant = xcalloc(n, sizeof(*s->variant));
    s->load = xcalloc(n, sizeof(*s->load));
    for (uint32_t i = 0; i < n; i++) {
        const struct report *r = &v[i].r;
        if (!report_same_setting(first, r))
            continue;
        s->run[s->n] = &v[i];
        s->r[s->n++] = r;
        if (place(s->variant, s->n_variants, r, same_variant) == s->n_variants)
            s->variant[s->n_variants++] = r;
        if (place(s->load, s->n_loads, r, same_load) == s->n_loads)
            s->load[s->n_loads++] = r;
    }
    qsort(s->load, s->n_loads, sizeof(*s->load), by_load);
    for (uint32_t i = 0; i < s->n; i++)
        s->cell[i] = page_cell(s, place(s->variant, s->n_variants, s->r[i], same_variant),
                               place(s->load, s->n_loads, s->r[i], same_load));
}

static void set_free(struct page_set *s)
{
    free(s->run);
    free(s->r);
    free(s->cell);
    free(s->variant);
    free(s->load);
}

struct report_mean page_mean(const struct page_set *s, uint32_t variant, uint32_t load, const char *figure)
{
    return report_mean_of(s->r, s->n, s->cell, page_cell(s, variant, load), report_figure_of(figure));
}

void page_variant(const struct page_set *s, uint32_t variant, struct buf *out)
{
    const struct report *r = s->variant[variant];
    buf_add_str(out, str_c(r->policy));
    if (r->gateways > 1)
        buf_addf(out, ", %u gateways", r->gateways);
}

void page_load(const struct page_set *s, uint32_t load, struct buf *out)
{
    const struct report *r = s->load[load];
    if (r->users)
        buf_addf(out, "%u users", r->users);
    else if (r->rate > 0)
        buf_addf(out, "%.4g requests/s", r->rate);
    else
        buf_add_str(out, STR("as recorded"));
}

/* ---- parts of the document ---- */

typedef void name_fn(const struct page_set *s, uint32_t i, struct buf *out);

static void named(const struct page_set *s, uint32_t i, name_fn *fn, struct buf *out)
{
    struct buf name;
    buf_init(&name, 1024);
    fn(s, i, &name);
    svg_text(out, buf_str(&name));
    buf_free(&name);
}

static void key(const struct page_set *s, struct buf *out)
{
    buf_add_str(out, STR("<div class=\"key\">\n"));
    for (uint32_t a = 0; a < s->n_variants && a < PAGE_VARIANTS; a++) {
        buf_add_str(out, STR("<span><svg viewBox=\"0 0 34 10\"><path class=\"line\" "));
        svg_style(out, a);
        buf_add_str(out, STR(" d=\"M0 5 L34 5\"/></svg>"));
        named(s, a, page_variant, out);
        buf_add_str(out, STR("</span>\n"));
    }
    buf_add_str(out, STR("</div>\n"));
    if (s->n_variants > PAGE_VARIANTS)
        buf_addf(out, "<p class=\"note\">%u more are not drawn; they stand in the table.</p>\n",
                 s->n_variants - PAGE_VARIANTS);
}

static void figures_of(const struct page_set *s, uint32_t variant, uint32_t load, struct buf *out)
{
    char cell[REPORT_CELL];
    uint32_t runs = 0;
    for (uint32_t i = 0; i < s->n; i++)
        runs += s->cell[i] == page_cell(s, variant, load);
    buf_add_str(out, STR("<tr><td>"));
    named(s, variant, page_variant, out);
    buf_add_str(out, STR("</td><td>"));
    named(s, load, page_load, out);
    buf_addf(out, "</td><td>%u</td>", runs);
    for (size_t i = 0; i < report_n_figures; i++) {
        report_cell(page_mean(s, variant, load, report_figures[i].key), &report_figures[i], cell);
        buf_addf(out, "<td>%s</td>", cell);
    }
    buf_add_str(out, STR("</tr>\n"));
}

static bool filled(const struct page_set *s, uint32_t cell)
{
    uint32_t i = 0;
    while (i < s->n && s->cell[i] != cell)
        i++;
    return i < s->n;
}

static void table(const struct page_set *s, struct buf *out)
{
    uint32_t rows = 0;
    buf_add_str(
        out, STR("<h3>All figures</h3>\n<div class=\"wide\"><table>\n<tr><th>policy</th><th>load</th><th>runs</th>"));
    for (size_t i = 0; i < report_n_figures; i++)
        buf_addf(out, "<th>%s%s%s</th>", report_figures[i].name, *report_figures[i].unit ? ", " : "",
                 report_figures[i].unit);
    buf_add_str(out, STR("</tr>\n"));
    for (uint32_t b = 0; b < s->n_loads; b++)
        for (uint32_t a = 0; a < s->n_variants; a++)
            if (filled(s, page_cell(s, a, b)) && rows++ < MAX_ROWS)
                figures_of(s, a, b, out);
    buf_add_str(out, STR("</table></div>\n"));
    if (rows > MAX_ROWS)
        buf_addf(out, "<p class=\"note\">%u more rows are left out.</p>\n", rows - MAX_ROWS);
}

/* ---- decisions ---- */

static void seconds(struct buf *out, double s)
{
    if (!isfinite(s))
        buf_add_str(out, STR("<td>–</td>"));
    else
        buf_addf(out, "<td>%.3f</td>", s);
}

static bool is_chosen(const struct world_decision *d, uint32_t row)
{
    return d->d.ep.gen && d->x.cost[row].ep.slot == d->d.ep.slot && d->x.cost[row].ep.gen == d->d.ep.gen;
}

/* Rows by their total, those that were no candidates behind. */
static void by_cost(const struct world_decision *d, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = i;
        const struct sched_cost *c = &d->x.cost[i];
        for (; k > 0; k--) {
            const struct sched_cost *before = &d->x.cost[order[k - 1]];
            if (before->skip == c->skip ? !(c->total_s < before->total_s) : c->skip != SKIP_NONE)
                break;
            order[k] = order[k - 1];
        }
        order[k] = i;
    }
}

static double cached_tokens(const struct world_decision *d, double input, uint64_t matched_bytes)
{
    return d->d.stream_bytes ? (double)matched_bytes * input / (double)d->d.stream_bytes : 0;
}

/* A name of the picker's as words. */
static void words(const char *name, struct buf *out)
{
    for (; *name; name++)
        buf_addf(out, "%c", *name == '_' ? ' ' : *name);
}

static void decision_row(const struct world_decision *d, uint32_t row, double input, struct buf *out)
{
    const struct sched_cost *c = &d->x.cost[row];
    buf_addf(out, "<tr%s><td>%u%s</td>",
             is_chosen(d, row)      ? " class=\"chosen\""
             : c->skip != SKIP_NONE ? " class=\"out\""
                                    : "",
             d->server[row], is_chosen(d, row) ? " ←" : "");
    seconds(out, c->wait_s);
    seconds(out, c->prefill_s);
    buf_addf(out, "<td>%.0f</td>", cached_tokens(d, input, c->matched_bytes));
    seconds(out, c->others_s);
    seconds(out, c->kv_s);
    seconds(out, c->extra_s + c->lora_s);
    seconds(out, c->total_s);
    buf_add_str(out, STR("<td class=\"why\">"));
    words(c->skip != SKIP_NONE ? sched_skip_name(c->skip) : "", out);
    buf_add_str(out, STR("</td></tr>\n"));
}

static void outcome(const struct world_request *q, struct buf *out)
{
    if (q->first_s >= 0)
        buf_addf(out, "what came: first token after %.2f s, %u tokens cached", q->first_s - q->at_s, q->cached);
    else
        buf_add_str(out, STR("what came: no first token"));
    if (q->tries > 1)
        buf_addf(out, ", %u tries", q->tries);
    if (q->preempted)
        buf_addf(out, ", preempted %u times", q->preempted);
}

static void decision(const struct world_result *w, const struct world_decision *d, struct buf *out)
{
    uint32_t order[SCHED_EXPLAIN], n = MIN(MIN(d->n, d->x.n), (uint32_t)SCHED_EXPLAIN);
    const struct world_request *q = d->request < w->n ? &w->v[d->request] : NULL;
    double input = q ? q->input : 0;
    buf_addf(out, "<p class=\"pick\"><b>%.2f s</b> · request %u of %.0f tokens, %.0f believed cached there · ", d->at_s,
             d->request, input, cached_tokens(d, input, d->d.matched_bytes));
    words(d->d.reject != REJECT_NONE ? sched_reject_name(d->d.reject) : sched_reason_name(d->d.reason), out);
    if (d->d.reject == REJECT_NONE)
        buf_addf(out, ", of %u candidates", d->d.n_candidates);
    if (d->d.reject == REJECT_NONE && d->d.ttft_s > 0 && isfinite(d->d.ttft_s))
        buf_addf(out, " · first token expected after %.2f s", d->d.ttft_s);
    if (d->d.queued_us)
        buf_addf(out, " · queued %.3f s", (double)d->d.queued_us / 1e6);
    buf_add_str(out, STR(" · "));
    if (q)
        outcome(q, out);
    buf_add_str(out, STR("</p>\n<div class=\"wide\"><table>\n<tr><th>server</th><th>wait, s</th><th>prefill, s</th>"
                         "<th>cached, tokens</th><th>to others, s</th><th>KV, s</th><th>extra, s</th><th>total</th>"
                         "<th>excluded</th></tr>\n"));
    by_cost(d, n, order);
    for (uint32_t i = 0; i < n; i++)
        decision_row(d, order[i], input, out);
    buf_add_str(out, STR("</table></div>\n"));
    if (d->x.n_endpoints > n)
        buf_addf(out, "<p class=\"note\">%u more servers were not cheaper.</p>\n", d->x.n_endpoints - n);
}

static void sampled(const struct page_set *s, uint32_t run, struct buf *out)
{
    const struct world_result *w = s->run[run]->w;
    uint32_t show = MIN(w->n_decisions, (uint32_t)MAX_DECISIONS), cell = s->cell[run];
    buf_add_str(out, STR("<details><summary>"));
    named(s, cell / s->n_loads, page_variant, out);
    buf_add_str(out, STR(", "));
    named(s, cell % s->n_loads, page_load, out);
    buf_addf(out, ": %u decisions</summary>\n", show);
    for (uint32_t i = 0; i < show; i++) /* evenly of those there are */
        decision(w, &w->decisions[(uint64_t)i * w->n_decisions / show], out);
    buf_add_str(out, STR("</details>\n"));
}

static void decisions(const struct page_set *s, struct buf *out)
{
    uint32_t shown = 0, more = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        bool first = s->run[i]->w && s->run[i]->w->n_decisions; /* of its cell: one seed is enough */
        for (uint32_t k = 0; k < i && first; k++)
            first = s->cell[k] != s->cell[i] || !s->run[k]->w || !s->run[k]->w->n_decisions;
        if (!first)
            continue;
        if (shown == 0)
            buf_add_str(out,
                        STR("<h3>Sampled decisions</h3>\n<p class=\"note\">What the picker knew at the moment, for "
                            "each server; the chosen one is marked. Costs are seconds of expected work as the "
                            "product's own policies count them (a baseline decides by its own measure); the total "
                            "weighs the prefill more than once, for those who come behind.</p>\n"));
        if (shown == MAX_SAMPLED) {
            more++;
            continue;
        }
        shown++;
        sampled(s, i, out);
    }
    if (more)
        buf_addf(out, "<p class=\"note\">The decisions of %u more runs are left out.</p>\n", more);
}

/* ---- the document ---- */

/* A sorted list of loads, thinned to MAX_LOADS with both ends. */
static uint32_t load_shown(const struct page_set *s, uint32_t i)
{
    uint32_t n = MIN(s->n_loads, (uint32_t)MAX_LOADS);
    return n < 2 ? 0 : i * (s->n_loads - 1) / (n - 1);
}

static void section(const struct page_set *s, struct buf *out)
{
    struct buf name;
    buf_init(&name, 1024);
    report_setting(s->r[0], &name);
    buf_add_str(out, STR("<h2>"));
    svg_text(out, buf_str(&name));
    buf_add_str(out, STR("</h2>\n"));
    buf_free(&name);
    key(s, out);
    if (s->n_loads > 1 && load_of(s->load[0]) > 0 && !s->load[0]->users == !s->load[s->n_loads - 1]->users) {
        buf_add_str(out, STR("<h3>Against the load</h3>\n"));
        page_against_load(s, out);
    }
    for (uint32_t i = 0; i < s->n_loads && i < MAX_LOADS; i++) {
        uint32_t b = load_shown(s, i);
        buf_add_str(out, load_of(s->load[b]) > 0 ? STR("<h3>At ") : STR("<h3>Load "));
        named(s, b, page_load, out);
        buf_add_str(out, STR("</h3>\n"));
        page_distributions(s, b, out);
        page_bars(s, b, out);
        page_over_time(s, b, out);
    }
    if (s->n_loads > MAX_LOADS)
        buf_addf(out, "<p class=\"note\">Charts of %u of %u loads; all stand in the table.</p>\n", MAX_LOADS,
                 s->n_loads);
    table(s, out);
    decisions(s, out);
}

static void head(uint32_t n, struct buf *out)
{
    buf_addf(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta "
        "charset=\"utf-8\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Replay</title>\n<style>\n"
        "%s%s</style>\n</head>\n<body>\n<h1>Replay: %u run%s</h1>\n",
        SVG_STYLE, style, n, n == 1 ? "" : "s");
    buf_add_str(
        out, STR("<p class=\"note\">Simulated servers in virtual time. Time to first token (TTFT) counts from the "
                 "arrival; time "
                 "per output token (TPOT) is that of the tokens after the first. A request attains the level when its "
                 "TTFT is "
                 "at most 2 s and twice what it would be on an idle server with nothing cached; goodput counts those. "
                 "Imbalance is the coefficient of variation of the prefill work of the servers. The first tenth of the "
                 "requests (closed loop: 37.5 % of the time) is warm-up and not counted. Runs that differ only in the "
                 "seed are "
                 "shown as one, with their standard deviation (±) or their extremes (vertical lines).</p>\n"));
}

void report_page(const struct report_run *v, uint32_t n, struct buf *out)
{
    uint32_t shown = 0, more = 0;
    head(n, out);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = 0;
        while (k < i && !report_same_setting(&v[k].r, &v[i].r))
            k++;
        if (k < i)
            continue;
        if (shown == MAX_SETTINGS) {
            more++;
            continue;
        }
        struct page_set s;
        shown++;
        set_make(&s, v, n, &v[i].r);
        section(&s, out);
        set_free(&s);
    }
    if (more)
        buf_addf(out, "<p class=\"note\">%u more settings are left out.</p>\n", more);
    buf_add_str(out, STR("</body>\n</html>\n"));
}
