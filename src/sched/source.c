/* source.c - the rules by which a pool's servers are asked for their load. */
#include "sched/source.h"

#include "base/buf.h"

#include <pthread.h>
#include <stdlib.h>

struct source {
    pthread_mutex_t lock;
    struct source_rules *rules; /* under lock */
    unsigned told;              /* BIT(enum source_told); under lock */
};

struct source *source_new(void)
{
    struct source *s = xcalloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void source_unref(struct source_rules *r)
{
    if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        free(r);
}

void source_free(struct source *s)
{
    if (!s)
        return;
    source_unref(s->rules);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static enum prom_dialect dialect_of(enum conf_runtime r)
{
    return r == RUNTIME_SGLANG ? PROM_SGLANG : r == RUNTIME_TRTLLM ? PROM_TRTLLM : PROM_VLLM;
}

static void add_place(struct source_rules *r, uint16_t port, struct str path)
{
    r->place[r->n_places++] = (struct source_place){.port = port, .path = path};
}

static void add_triton(struct source_rules *r, struct str path)
{
    r->place[r->n_places++] = (struct source_place){.port = SOURCE_TRITON_PORT, .triton = true, .path = path};
}

/* Triton tells at a port of its own, trtllm-serve at the API port: as text if it was started with that, else as JSON. A
 * runtime that was not given is most likely the default one. */
static void set_places(struct source_rules *r, uint16_t port, struct str path)
{
    static const struct str usual = STR("/metrics"), text = STR("/prometheus/metrics");
    bool trtllm = r->spec.dialect == PROM_TRTLLM && r->given, several = trtllm || !r->given;
    if (path.n) {
        if (trtllm && !port)
            add_triton(r, path);
        add_place(r, port, path);
        return;
    }
    if (trtllm && !port) {
        add_triton(r, usual);
        add_place(r, 0, text); /* before the JSON, whose readers take it from each other */
        add_place(r, 0, usual);
        return;
    }
    add_place(r, port, usual);
    if (several && !port)
        add_triton(r, usual);
    if (several)
        add_place(r, port, text);
}

static struct str copy(char **at, struct str s)
{
    struct str to = {*at, s.n};
    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return s.n ? to : STR_NULL;
}

static struct source_rules *make_rules(const struct conf_backend *b)
{
    const struct conf_metrics *m = &b->metrics;
    size_t n = m->path.n + m->waiting.n + m->running.n + m->kv_usage.n + m->lora_info.n + m->cache_info.n;
    struct source_rules *r = xcalloc(1, sizeof *r + n);
    char *at = (char *)(r + 1);
    atomic_init(&r->refs, 1);
    r->given = b->runtime_given;
    r->spec = (struct prom_spec){.dialect = dialect_of(b->runtime), .detect = !b->runtime_given};
    r->spec.waiting = copy(&at, m->waiting);
    r->spec.running = copy(&at, m->running);
    r->spec.kv_usage = copy(&at, m->kv_usage);
    r->spec.lora_info = copy(&at, m->lora_info);
    r->spec.cache_info = copy(&at, m->cache_info);
    r->health = r->given && r->spec.dialect == PROM_TRTLLM ? STR(SOURCE_TRITON_HEALTH) : STR("/health");
    set_places(r, m->port, copy(&at, m->path));
    return r;
}

static bool same_names(const struct prom_spec *a, const struct prom_spec *b)
{
    return a->dialect == b->dialect && a->detect == b->detect && str_eq(a->waiting, b->waiting) &&
           str_eq(a->running, b->running) && str_eq(a->kv_usage, b->kv_usage) && str_eq(a->lora_info, b->lora_info) &&
           str_eq(a->cache_info, b->cache_info);
}

static bool same_rules(const struct source_rules *a, const struct source_rules *b)
{
    bool same = a && same_names(&a->spec, &b->spec) && a->n_places == b->n_places;
    for (unsigned i = 0; same && i < a->n_places; i++)
        same = a->place[i].port == b->place[i].port && str_eq(a->place[i].path, b->place[i].path);
    return same;
}

void source_set(struct source *s, const struct conf_backend *b)
{
    struct source_rules *r = make_rules(b);
    pthread_mutex_lock(&s->lock);
    if (!same_rules(s->rules, r)) {
        struct source_rules *old = s->rules;
        s->rules = r;
        s->told = 0;
        r = old;
    }
    pthread_mutex_unlock(&s->lock);
    source_unref(r);
}

struct source_rules *source_get(struct source *s)
{
    pthread_mutex_lock(&s->lock);
    struct source_rules *r = s->rules;
    if (r)
        atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    return r;
}

bool source_tell(struct source *s, enum source_told what)
{
    pthread_mutex_lock(&s->lock);
    bool first = !(s->told & BIT(what));
    s->told |= BIT(what);
    pthread_mutex_unlock(&s->lock);
    return first;
}
