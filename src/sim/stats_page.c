/* sim/stats_page.c - see stats_page.h. */
#include "sim/stats_page.h"

#include "sim/answer_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A Python float as prometheus_client prints it: shortest text that reads back, always with a fraction, exponents from
 * 10^6 on. */
void page_float(struct buf *out, double v)
{
    char t[64], *dot;
    if (!isfinite(v)) {
        buf_add_str(out, isnan(v) ? STR("NaN") : v > 0 ? STR("+Inf") : STR("-Inf"));
        return;
    }
    if (v == 0 || (fabs(v) >= 1e-4 && fabs(v) < 1e16)) {
        for (int digits = 1; digits <= 17; digits++) {
            (void)snprintf(t, sizeof(t), "%.*g", digits, v);
            if (strtod(t, NULL) == v)
                break;
        }
        if (strchr(t, 'e')) /* %g prefers exponents too early */
            (void)snprintf(t, sizeof(t), "%.1f", v);
    } else {
        (void)snprintf(t, sizeof(t), "%.17g", v);
    }
    if (!strpbrk(t, ".en"))
        (void)snprintf(t + strlen(t), sizeof(t) - strlen(t), ".0");
    dot = strchr(t, '.');
    if (v > 0 && dot && dot - t > 6 && !strchr(t, 'e')) {
        char m[64];
        size_t whole = (size_t)(dot - t);
        int n = snprintf(m, sizeof(m), "%c.%.*s%s", t[0], (int)whole - 1, t + 1, dot + 1);
        while (n > 1 && (m[n - 1] == '0' || m[n - 1] == '.'))
            n--;
        buf_addf(out, "%.*se+%02zu", n, m, whole - 1);
        return;
    }
    buf_add_str(out, str_c(t));
}

void page_label(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n')
            buf_add_str(out, STR("\\n"));
        else if (s.p[i] == '"' || s.p[i] == '\\')
            buf_addf(out, "\\%c", s.p[i]);
        else
            buf_add(out, &s.p[i], 1);
    }
}

static void apply_override(const struct override *o, struct page_rank *v, bool first)
{
    if (!o->on)
        return;
    v->running = isnan(o->running) ? v->running : first ? o->running : 0;
    v->waiting = isnan(o->waiting) ? v->waiting : first ? o->waiting : 0;
    v->deferred = MIN(v->deferred, v->waiting);
    v->kv = isnan(o->kv) ? v->kv : o->kv;
}

static void fill(struct page_rank *v, struct rank *r)
{
    struct server *s = r->s;
    struct engine_stats es;
    double size = s->ep.block_size;
    engine_stats(r->engine, false, &es);
    stats_rates(r, &es);
    unsigned pulls = s->opt->nixl ? disagg_pulls(s, r, true) + disagg_pulls(s, r, false) : 0;
    *v = (struct page_rank){.r = r,
                            .st = &r->stats,
                            .running = es.running,
                            .waiting = es.waiting + pulls,
                            .deferred = es.deferred + pulls,
                            .kv = es.kv_usage_frac,
                            .query = (double)es.prefix_query_tokens,
                            .hit = (double)es.prefix_hit_tokens,
                            .prompt = (double)es.prompt_tokens,
                            .generation = (double)es.generation_tokens,
                            .cached = (double)r->stats.cached_tokens,
                            .preemptions = (double)es.preemptions,
                            .hit_rate = r->stats.hit_rate,
                            .speed = r->stats.generation_rate,
                            .used_tokens = (double)(es.n_blocks - es.free_blocks) * size,
                            .free_tokens = (double)es.free_blocks * size,
                            .max_tokens = (double)es.n_blocks * size,
                            .page_size = size,
                            .pages = es.n_blocks,
                            .context = s->max_model_len,
                            .bootstrap = disagg_waiting(s, r, KV_ALONE),
                            .inflight = disagg_waiting(s, r, KV_MOVING),
                            .prealloc = disagg_pulls(s, r, false),
                            .transfer = disagg_pulls(s, r, true)};
}

void page_init(struct page *p, struct server *s, struct buf *out)
{
    *p = (struct page){.s = s, .out = out, .n = s->n_ranks, .v = xcalloc(s->n_ranks, sizeof(*p->v))};
    buf_init(&p->model, 4096);
    page_label(&p->model, s->names[0]);
    for (unsigned i = 0; i < p->n; i++) {
        fill(&p->v[i], &s->ranks[i]);
        apply_override(&s->override, &p->v[i], i == 0);
    }
}

void page_free(struct page *p)
{
    free(p->v);
    buf_free(&p->model);
}

void page_head(struct page *p, const char *name, const char *type, const char *help)
{
    buf_addf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void page_line(struct page *p, const char *name, const struct page_rank *r, const char *mid, double v)
{
    buf_addf(p->out, "%s{%s%s%s} ", name, r->before, mid, r->after);
    page_float(p->out, v);
    buf_add_str(p->out, STR("\n"));
}

static void family(struct page *p, const char *name, const char *type, const char *help, size_t at)
{
    page_head(p, name, type, help);
    for (unsigned i = 0; i < p->n; i++) {
        double v;
        memcpy(&v, (const char *)&p->v[i] + at, sizeof(v));
        page_line(p, name, &p->v[i], "", v);
    }
}

void page_gauge(struct page *p, const char *name, const char *help, size_t at)
{
    family(p, name, "gauge", help, at);
}

void page_counter(struct page *p, const char *name, const char *help, size_t at)
{
    family(p, name, "counter", help, at);
}

void page_const(struct page *p, const char *name, const char *help, double v)
{
    page_head(p, name, "gauge", help);
    for (unsigned i = 0; i < p->n; i++)
        page_line(p, name, &p->v[i], "", v);
}

void page_finished(struct page *p, const char *name, const char *aborted)
{
    page_head(p, name, "counter", "Count of successfully processed requests.");
    for (unsigned k = 0; k < p->n; k++)
        for (unsigned i = 0; i < FINISH_N; i++) {
            char mid[64];
            (void)snprintf(mid, sizeof(mid), "finished_reason=\"%s\",", i == FINISH_ABORT ? aborted : finish_names[i]);
            page_line(p, name, &p->v[k], mid, (double)p->v[k].st->finished[i]);
        }
}

void page_hist_of(struct page *p, const char *name, const struct page_rank *r, const struct sim_hist *h, unsigned n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= n; i++) {
        sum += h->count[i];
        buf_addf(p->out, "%s_bucket{%sle=\"", name, r->before);
        page_float(p->out, i < n ? h->bound[i] : (double)INFINITY);
        buf_addf(p->out, "\",%s} ", r->after);
        page_float(p->out, (double)(i < n ? sum : h->total));
        buf_add_str(p->out, STR("\n"));
    }
    buf_addf(p->out, "%s_count{%s%s} ", name, r->before, r->after);
    page_float(p->out, (double)h->total);
    buf_addf(p->out, "\n%s_sum{%s%s} ", name, r->before, r->after);
    page_float(p->out, h->sum);
    buf_add_str(p->out, STR("\n"));
}

void page_hist(struct page *p, const char *name, const char *help, size_t at, unsigned n)
{
    page_head(p, name, "histogram", help);
    for (unsigned i = 0; i < p->n; i++) {
        const struct sim_hist *h = (const void *)((const char *)p->v[i].st + at);
        page_hist_of(p, name, &p->v[i], h, n ? n : h->n);
    }
}
