/* bench/pod_watch.c - reads pods' pages on the loop while the run goes on, and adds up. */
#include "bench/pod_watch.h"

#include "base/json.h"
#include "net/httpc.h"

#include <math.h>
#include <stdlib.h>

#define PAGE_MAX  (64u << 20)
#define ANSWER_US 5000000
#define MAX_LINES 64

struct source { /* a page that is read again and again */
    struct pod_watch *w;
    const struct probe_url *url;
    struct httpc *c;
    struct buf page;
    bool admin;
};
struct pod_watch {
    struct loop *loop;
    struct source *v;
    uint32_t n_sources;
    struct pod_use pods[POD_WATCH_MAX];
    uint32_t n_pods, rounds;
    double sum_mean, sum_dev; /* of rounds */
    uint64_t period_us;
    struct timer tick;
};

/* ---- pages ---- */

/* Value of a sample line behind its name, NAN when the line is of another metric. The last '}' closes the labels:
 * neither value nor time stamp has one. */
static double value_of(struct str line, struct str name)
{
    if (!str_starts(line, name))
        return (double)NAN;
    line = str_from(line, name.n);
    const char *close = line.n && line.p[0] == '{' ? memrchr(line.p, '}', line.n) : NULL;
    if (close)
        line = str_from(line, (size_t)(close + 1 - line.p));
    if (line.n < 2 || line.p[0] != ' ')
        return (double)NAN;
    line = str_trim(line);
    const char *blank = memchr(line.p, ' ', line.n);
    double v;
    return str_to_double(blank ? str_first(line, (size_t)(blank - line.p)) : line, &v) && isfinite(v) ? v : (double)NAN;
}

double pod_watch_kv_of(struct str page)
{
    static const struct str names[] = {
        {"vllm:kv_cache_usage_perc", 24}, {"vllm:gpu_cache_usage_perc", 25}, {"sglang:token_usage", 18}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        double sum = 0;
        unsigned n = 0;
        struct str rest = page;
        while (rest.n) {
            const char *nl = memchr(rest.p, '\n', rest.n);
            size_t len = nl ? (size_t)(nl - rest.p) : rest.n;
            double v = value_of(str_first(rest, len), names[i]);
            if (!isnan(v)) {
                sum += v;
                n++;
            }
            rest = str_from(rest, len + 1);
        }
        if (n)
            return sum / n;
    }
    return (double)NAN;
}

/* name: empty when only the address is known. */
static struct pod_use *pod_at(struct pod_watch *w, struct str address, struct str name)
{
    for (uint32_t i = 0; i < w->n_pods; i++) {
        struct pod_use *p = &w->pods[i];
        if (!str_eq_c(address, p->address))
            continue;
        if (name.n && !strcmp(p->name, p->address)) { /* given by address, and now the gateway tells more */
            free(p->name);
            p->name = str_dup(name);
        }
        return p;
    }
    if (w->n_pods == POD_WATCH_MAX)
        return NULL;
    struct pod_use *p = &w->pods[w->n_pods++];
    *p = (struct pod_use){.name = str_dup(name.n ? name : address), .address = str_dup(address), .kv_now = (double)NAN};
    return p;
}

struct found { /* an endpoint of the admin page */
    struct str pod, address;
    double picks, kv;
};

static void take_found(struct pod_watch *w, const struct found *f, bool first)
{
    struct pod_use *p = f->address.n ? pod_at(w, f->address, f->pod) : NULL;
    if (!p)
        return;
    if (!isnan(f->picks)) {
        p->has_picks = true;
        if (first)
            p->picks_first += (uint64_t)f->picks; /* a pod of several pools is on the page for each */
        p->picks_last += (uint64_t)f->picks;
    }
    if (!isnan(f->kv))
        p->kv_now = f->kv;
}

static void set_found(struct found *f, struct str key, const struct json *j, enum json_type t)
{
    if (t == JSON_STRING && str_eq(key, STR("pod")))
        f->pod = j->tok;
    else if (t == JSON_STRING && str_eq(key, STR("address")))
        f->address = j->tok;
    else if (t == JSON_NUMBER && str_eq(key, STR("picks")))
        (void)!str_to_double(j->tok, &f->picks);
    else if (t == JSON_NUMBER && str_eq(key, STR("kv_frac")))
        (void)!str_to_double(j->tok, &f->kv);
}

/* {"pools":[{..., "endpoints":[{"pod", "address", "picks", "load":{"kv_frac"}}]}]}: an object of depth 3 is an
 * endpoint. */
bool pod_watch_admin_page(struct pod_watch *w, struct str json, bool first)
{
    struct json j;
    struct found f = {STR_NULL, STR_NULL, (double)NAN, (double)NAN};
    struct str key = STR_NULL;
    unsigned objects = 0;
    bool pools = false;
    for (uint32_t i = 0; i < w->n_pods; i++)
        w->pods[i].picks_last = 0;
    json_init(&j, json);
    for (;;) {
        enum json_type t = json_next(&j);
        if (t == JSON_ERROR)
            return false;
        if (t == JSON_END)
            return pools;
        if (t == JSON_KEY) {
            key = j.tok;
            pools = pools || (objects == 1 && str_eq(key, STR("pools")));
        } else if (t == JSON_OBJ) {
            if (++objects == 3)
                f = (struct found){STR_NULL, STR_NULL, (double)NAN, (double)NAN};
        } else if (t == JSON_OBJ_END) {
            if (objects-- == 3)
                take_found(w, &f, first);
        } else if (objects >= 3) {
            set_found(&f, key, &j, t);
        }
    }
}

/* ---- rounds ---- */

static void deviation(const double *v, uint32_t n, double *mean, double *dev)
{
    double sum = 0, square = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += v[i];
    *mean = n ? sum / n : 0;
    for (uint32_t i = 0; i < n; i++)
        square += (v[i] - *mean) * (v[i] - *mean);
    *dev = n ? sqrt(square / n) : 0;
}

void pod_watch_round(struct pod_watch *w)
{
    double v[POD_WATCH_MAX] = {0}, mean, dev;
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_pods; i++) {
        struct pod_use *p = &w->pods[i];
        if (isnan(p->kv_now))
            continue;
        p->kv_sum += p->kv_now;
        p->kv_n++;
        v[n++] = p->kv_now;
        p->kv_now = (double)NAN;
    }
    if (n == 0)
        return;
    deviation(v, n, &mean, &dev);
    w->sum_mean += mean;
    w->sum_dev += dev;
    w->rounds++;
}

static bool on_body(void *ctx, struct str piece)
{
    struct source *s = ctx;
    return buf_add_str(&s->page, piece);
}

static bool take_page(struct source *s, bool first)
{
    struct pod_watch *w = s->w;
    if (s->admin)
        return pod_watch_admin_page(w, buf_str(&s->page), first);
    struct str address = str_c(s->url->host);
    struct pod_use *p = pod_at(w, address, STR_NULL);
    if (p)
        p->kv_now = pod_watch_kv_of(buf_str(&s->page));
    return p && !isnan(p->kv_now);
}

static void on_done(void *ctx, unsigned status, const char *err)
{
    struct source *s = ctx;
    if (status == 200 && !err && !s->page.overflow)
        (void)take_page(s, false);
    buf_clear(&s->page);
}

static struct str target_of(const struct source *s)
{
    if (s->url->path.n)
        return s->url->path;
    return s->admin ? STR("/debug/endpoints") : STR("/metrics");
}

static void on_tick(struct timer *t)
{
    struct pod_watch *w = CONTAINER_OF(t, struct pod_watch, tick);
    pod_watch_round(w);
    for (uint32_t i = 0; i < w->n_sources; i++) {
        struct source *s = &w->v[i];
        struct httpc_call call = {.method = STR("GET"),
                                  .target = target_of(s),
                                  .host = str_c(s->url->host),
                                  .timeout_us = ANSWER_US,
                                  .on_body = on_body,
                                  .on_done = on_done,
                                  .ctx = s};
        (void)httpc_start(s->c, &call); /* the one before may still be under way */
    }
    timer_set(w->loop, &w->tick, loop_now_us(w->loop) + w->period_us);
}

/* ---- life ---- */

static void add_source(struct pod_watch *w, const struct probe_url *url, bool admin)
{
    struct source *s = &w->v[w->n_sources++];
    *s = (struct source){.w = w, .url = url, .c = httpc_new(w->loop, &url->to), .admin = admin};
    buf_init(&s->page, PAGE_MAX);
}

struct pod_watch *pod_watch_new(struct loop *l, const struct probe_url *pods, uint32_t n_pods,
                                const struct probe_url *admin, uint64_t period_us)
{
    struct pod_watch *w = xcalloc(1, sizeof(*w));
    *w = (struct pod_watch){
        .loop = l, .v = xcalloc((size_t)n_pods + 1, sizeof(*w->v)), .period_us = period_us, .tick.fn = on_tick};
    for (uint32_t i = 0; i < n_pods && i < POD_WATCH_MAX; i++)
        add_source(w, &pods[i], false);
    if (admin)
        add_source(w, admin, true);
    return w;
}

static bool read_now(struct source *s, bool first, struct errbuf *err)
{
    struct probe_url root = *s->url;
    root.path = STR_NULL;
    unsigned status = probe_get(&root, target_of(s), STR_NULL, ANSWER_US, &s->page, err);
    bool ok = status == 200 && take_page(s, first);
    buf_clear(&s->page);
    if (status && !ok)
        err_set(
            err, "http://%s" STR_FMT " answered %u and does not tell %s.", s->url->host, STR_ARG(target_of(s)), status,
            s->admin ? "pools and endpoints: is it the admin address of a penstock gateway?" : "how full the cache is");
    return ok;
}

bool pod_watch_begin(struct pod_watch *w, struct errbuf *err)
{
    for (uint32_t i = 0; i < w->n_sources; i++)
        if (!read_now(&w->v[i], true, err))
            return false;
    for (uint32_t i = 0; i < w->n_pods; i++)
        w->pods[i].kv_now = (double)NAN; /* before the load: not of the run */
    timer_set(w->loop, &w->tick, loop_clock_us(w->loop) + w->period_us);
    return true;
}

void pod_watch_end(struct pod_watch *w)
{
    timer_stop(w->loop, &w->tick);
    pod_watch_round(w);
    for (uint32_t i = 0; i < w->n_sources; i++)
        if (w->v[i].admin)
            (void)read_now(&w->v[i], false, NULL);
}

void pod_watch_free(struct pod_watch *w)
{
    if (!w)
        return;
    timer_stop(w->loop, &w->tick);
    for (uint32_t i = 0; i < w->n_sources; i++) {
        httpc_free(w->v[i].c);
        buf_free(&w->v[i].page);
    }
    for (uint32_t i = 0; i < w->n_pods; i++) {
        free(w->pods[i].name);
        free(w->pods[i].address);
    }
    free(w->v);
    free(w);
}

/* ---- sums ---- */

const struct pod_use *pod_watch_pods(const struct pod_watch *w, uint32_t *n)
{
    *n = w->n_pods;
    return w->pods;
}

static uint64_t picks_of(const struct pod_use *p)
{
    return p->picks_last > p->picks_first ? p->picks_last - p->picks_first : 0;
}

void pod_watch_sum(const struct pod_watch *w, struct pod_watch_sum *out)
{
    double kv[POD_WATCH_MAX] = {0}, picks[POD_WATCH_MAX] = {0}, mean, dev;
    uint32_t n_kv = 0, n_picks = 0;
    *out = (struct pod_watch_sum){.rounds = w->rounds,
                                  .kv_mean = (double)NAN,
                                  .kv_cv_means = (double)NAN,
                                  .kv_cv_now = (double)NAN,
                                  .picks_cv = (double)NAN};
    for (uint32_t i = 0; i < w->n_pods; i++) {
        const struct pod_use *p = &w->pods[i];
        if (p->kv_n)
            kv[n_kv++] = p->kv_sum / p->kv_n;
        if (p->has_picks) {
            picks[n_picks++] = (double)picks_of(p);
            out->picks += picks_of(p);
        }
    }
    out->has_kv = n_kv > 0;
    out->has_picks = n_picks > 0;
    deviation(kv, n_kv, &mean, &dev);
    if (n_kv)
        out->kv_mean = mean;
    if (n_kv && mean > 0)
        out->kv_cv_means = dev / mean;
    if (w->sum_mean > 0)
        out->kv_cv_now = w->sum_dev / w->sum_mean;
    deviation(picks, n_picks, &mean, &dev);
    if (n_picks && mean > 0)
        out->picks_cv = dev / mean;
}

static void put(struct buf *out, bool known, double v, int decimals)
{
    if (known && !isnan(v))
        buf_addf(out, " %12.*f", decimals, v);
    else
        buf_addf(out, " %12s", "-");
}

void pod_watch_report(const struct pod_watch *w, struct buf *out)
{
    struct pod_watch_sum sum;
    pod_watch_sum(w, &sum);
    buf_addf(out, "-----------Pods as seen from their side-----------\n%-36s %12s %12s\n", "Pod", "Picks",
             "KV use, mean");
    for (uint32_t i = 0; i < MIN(w->n_pods, (uint32_t)MAX_LINES); i++) {
        const struct pod_use *p = &w->pods[i];
        buf_addf(out, "%-36s", p->name);
        put(out, p->has_picks, (double)picks_of(p), 0);
        put(out, p->kv_n > 0, p->kv_n ? 100 * p->kv_sum / p->kv_n : 0, 1);
        buf_addf(out, "%s\n", p->kv_n ? " %" : "");
    }
    if (w->n_pods > MAX_LINES)
        buf_addf(out, "and %u more\n", w->n_pods - MAX_LINES);
    buf_addf(out, "%-36s", "Coefficient of variation");
    put(out, sum.has_picks, sum.picks_cv, 3);
    put(out, sum.has_kv, sum.kv_cv_means, 3);
    buf_addf(out, "\n%-36s %12s", "  at one time, averaged over time", "");
    put(out, sum.has_kv, sum.kv_cv_now, 3);
    buf_addf(out, "  (%u samples)\n", sum.rounds);
}

static void key_f(struct jsonw *j, const char *key, double v)
{
    jsonw_key(j, key);
    jsonw_f(j, v);
}

void pod_watch_json(const struct pod_watch *w, struct buf *out)
{
    struct pod_watch_sum sum;
    struct jsonw j;
    jsonw_init(&j, out);
    pod_watch_sum(w, &sum);
    jsonw_key(&j, "pod_use");
    jsonw_arr(&j);
    for (uint32_t i = 0; i < w->n_pods; i++) {
        const struct pod_use *p = &w->pods[i];
        jsonw_obj(&j);
        jsonw_key(&j, "pod");
        jsonw_cstr(&j, p->name);
        jsonw_key(&j, "address");
        jsonw_cstr(&j, p->address);
        if (p->has_picks) {
            jsonw_key(&j, "picks");
            jsonw_u64(&j, picks_of(p));
        }
        key_f(&j, "kv_use_mean", p->kv_n ? p->kv_sum / p->kv_n : (double)NAN);
        jsonw_obj_end(&j);
    }
    jsonw_arr_end(&j);
    key_f(&j, "pod_picks_cv", sum.picks_cv);
    key_f(&j, "kv_use_mean", sum.kv_mean);
    key_f(&j, "kv_use_cv_of_means", sum.kv_cv_means);
    key_f(&j, "kv_use_cv_at_one_time", sum.kv_cv_now);
}
