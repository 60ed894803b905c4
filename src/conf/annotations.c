/* conf/annotations.c - the table of every annotation of an InferencePool, and its application. */
#include "conf/annotations.h"
#include "base/duration.h"
#include "base/hash.h"
#include "core/promtext.h"

#include <math.h>
#include <stdio.h>

#define XK8S            "inference.networking.x-k8s.io/"
#define ENV             "inference-epp-env.networking.x-k8s.io/"
#define OWN             "penstock.dev/"
#define STALE_MIN_US    2000000 /* two rounds of reading metrics: less would make every reading stale */
#define WEIGHT_MIN      1e-6    /* of a flow: the quotient of service and weight stays a useful number */
#define WEIGHT_MAX      1e6
#define MAX_FLOW        256 /* bytes of a flow's name */
#define MAX_PATH_BYTES  1024
#define MAX_METRIC_TEXT 512

enum value_type {
    V_WORD,
    V_BOOL,
    V_SWITCH,
    V_INT,
    V_FRAC,
    V_FLOAT,
    V_DURATION,
    V_NAME,
    V_WEIGHTS,
    V_TRUST,
    V_POLICY,
    V_PATH,
    V_METRIC
};
enum store_as { TO_NOTHING, TO_INT, TO_U16, TO_U32, TO_U64, TO_DOUBLE, TO_BOOL, TO_STR, TO_WEIGHTS };
struct annotation {
    const char *key;
    enum value_type type;
    const char *def;          /* documented default, as text */
    unsigned effect;          /* SET_EFFECTIVE, SET_NOT_YET, SET_NO_EFFECT */
    int64_t min, max;         /* INT; DURATION in ns */
    const char *const *words; /* WORD: their index is the value */
    enum store_as as;
    size_t at;        /* in struct conf_backend */
    const char *note; /* why, for NOT_YET and NO_EFFECT */
};

const char *const strategy_words[] = {"DEFAULT", "PREFIX_CACHE", NULL};
static const char *const early_words[] = {"disabled", "own-deadline", "enabled", NULL}; /* enum sched_early */
static const char *const switch_words[] = {"disabled", "enabled", "false", "true", "0", "1", NULL}; /* odd: on */
static const char *const order_words[] = {"fifo", "deadline", "adaptive", NULL}; /* enum sched_order */
static const char *const discard_words[] = {"lowest-class", "earliest", NULL};   /* enum sched_discard */
static const char *const unknown_words[] = {"serve", "reject", NULL};            /* enum conf_unknown_model */
static const char *const scheme_words[] = {"http", "https", NULL};
static const char *const depth_words[] = {"documented", "deep", NULL}; /* sched_params.deep */

#define SCHED(m)   offsetof(struct conf_backend, sched.m)
#define METRICS(m) offsetof(struct conf_backend, metrics.m)
#define LATER      "accepted, not in effect yet"
#define SCORES     "no effect, because decisions are expected seconds of work and not weighted scores"
#define FILTERS    "no effect, because there is no filter tree: load and adapters are part of the cost"

static const struct annotation table[] = {
    {XK8S "routing-strategy", V_WORD, "DEFAULT", SET_EFFECTIVE, 0, 0, strategy_words, TO_INT, SCHED(policy), NULL},
    {OWN "policy", V_POLICY, "", SET_EFFECTIVE, 0, 0, NULL, TO_INT, SCHED(policy),
     NULL}, /* after the one it overrides */
    {ENV "prefix-cache-hash-block-size", V_INT, "64", SET_EFFECTIVE, 1, 65536, NULL, TO_U32, SCHED(block_bytes), NULL},
    {ENV "prefix-cache-max-prefix-blocks", V_INT, "128", SET_EFFECTIVE, 1, 65536, NULL, TO_U32, SCHED(max_blocks),
     NULL},
    {ENV "prefix-cache-lru-capacity", V_INT, "50000", SET_EFFECTIVE, 1, 1000000000, NULL, TO_U64, SCHED(lru_capacity),
     NULL},
    {XK8S "queueing", V_SWITCH, "disabled", SET_EFFECTIVE, 0, 0, switch_words, TO_BOOL, SCHED(queueing), NULL},
    {ENV "total-queue-capacity", V_INT, "104857600", SET_EFFECTIVE, 1, INT64_MAX, NULL, TO_U64, SCHED(queue_bytes),
     NULL},
    {ENV "queue-ttl", V_DURATION, "30s", SET_EFFECTIVE, 1, INT64_MAX, NULL, TO_U64, SCHED(queue_ttl_us), NULL},
    {XK8S "model-server-runtime", V_WORD, "vllm", SET_EFFECTIVE, 0, 0, runtime_words, TO_INT,
     offsetof(struct conf_backend, runtime), NULL},
    {XK8S "epp-overlay", V_NAME, "", SET_NOT_YET, 0, 0, NULL, TO_NOTHING, 0, LATER},
    {ENV "experimental-use-queueing", V_BOOL, "false", SET_EFFECTIVE, 0, 0, NULL, TO_NOTHING, 0, NULL},
    {ENV "experimental-use-scheduler-v2", V_BOOL, "false", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0,
     "accepted, no effect: there is only one scheduler"},
    {ENV "sd-queue-depth-threshold", V_INT, "5", SET_EFFECTIVE, 1, 1000000, NULL, TO_U32, SCHED(queue_threshold), NULL},
    {ENV "sd-kv-cache-util-threshold", V_FRAC, "0.8", SET_EFFECTIVE, 0, 0, NULL, TO_DOUBLE, SCHED(kv_threshold), NULL},
    {ENV "sd-metrics-staleness-threshold", V_DURATION, NULL, SET_EFFECTIVE, 1000, INT64_MAX, NULL, TO_U64,
     SCHED(stale_us), NULL},
    {OWN "unknown-model", V_WORD, "serve", SET_EFFECTIVE, 0, 0, unknown_words, TO_INT,
     offsetof(struct conf_backend, unknown_model), NULL},
    {OWN "prefix-depth", V_WORD, "deep", SET_EFFECTIVE, 0, 0, depth_words, TO_BOOL, SCHED(deep), NULL},
    {OWN "queue-order", V_WORD, "fifo", SET_EFFECTIVE, 0, 0, order_words, TO_INT, SCHED(queue_order), NULL},
    {OWN "queue-late", V_DURATION, "2s", SET_EFFECTIVE, 0, INT64_MAX, NULL, TO_U64, SCHED(queue_late_us), NULL},
    {OWN "queue-discard", V_WORD, "lowest-class", SET_EFFECTIVE, 0, 0, discard_words, TO_INT, SCHED(queue_discard),
     NULL},
    {OWN "total-queue-requests", V_INT, "100000", SET_EFFECTIVE, 1, 10000000, NULL, TO_U32, SCHED(queue_requests),
     NULL},
    {OWN "queue-ttl-max", V_DURATION, NULL, SET_EFFECTIVE, 1, INT64_MAX, NULL, TO_U64,
     offsetof(struct conf_backend, queue_ttl_max_us), NULL},
    {OWN "queue-early-refusal", V_WORD, "own-deadline", SET_EFFECTIVE, 0, 0, early_words, TO_INT, SCHED(early_refusal),
     NULL},
    {OWN "prefix-wait", V_DURATION, "0s", SET_EFFECTIVE, 0, INT64_MAX, NULL, TO_U64, SCHED(prefix_wait_us), NULL},
    {OWN "conversation-hold", V_DURATION, "0s", SET_EFFECTIVE, 0, INT64_MAX, NULL, TO_U64, SCHED(conversation_hold_us),
     NULL},
    {OWN "prefill-min-tokens", V_INT, "0", SET_EFFECTIVE, 0, 1000000000, NULL, TO_U32, SCHED(split_min_tokens), NULL},
    {OWN "flow-weights", V_WEIGHTS, "", SET_EFFECTIVE, 0, 0, NULL, TO_WEIGHTS, 0, NULL},
    {OWN "trust-request-headers", V_TRUST, "all", SET_EFFECTIVE, 0, 0, NULL, TO_INT,
     offsetof(struct conf_backend, trust), NULL},
    /* Where and under which names the servers show their load; without them, as the runtime has it. */
    {OWN "metrics-port", V_INT, "", SET_EFFECTIVE, 1, 65535, NULL, TO_U16, METRICS(port), NULL},
    {OWN "metrics-path", V_PATH, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(path), NULL},
    {OWN "metrics-scheme", V_WORD, "http", SET_EFFECTIVE, 0, 0, scheme_words, TO_NOTHING, 0, NULL},
    {ENV "total-queued-requests-metric", V_METRIC, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(waiting), NULL},
    {ENV "total-running-requests-metric", V_METRIC, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(running), NULL},
    {ENV "kv-cache-usage-percentage-metric", V_METRIC, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(kv_usage), NULL},
    {ENV "lora-info-metric", V_METRIC, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(lora_info), NULL},
    {ENV "cache-info-metric", V_METRIC, "", SET_EFFECTIVE, 0, 0, NULL, TO_STR, METRICS(cache_info), NULL},
    /* Settings of the reference picker that mean nothing here. */
    {ENV "enable-prefix-cache-scheduling", V_BOOL, "false", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0,
     "no effect, because the policy is chosen by " XK8S "routing-strategy"},
    {ENV "enable-req-header-based-scheduler-for-testing", V_BOOL, "false", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0,
     "no effect, because clients cannot choose the endpoint"},
    {ENV "queue-score-weight", V_INT, "1", SET_NO_EFFECT, 0, INT64_MAX, NULL, TO_NOTHING, 0, SCORES},
    {ENV "kv-cache-score-weight", V_INT, "1", SET_NO_EFFECT, 0, INT64_MAX, NULL, TO_NOTHING, 0, SCORES},
    {ENV "prefix-cache-score-weight", V_INT, "1", SET_NO_EFFECT, 0, INT64_MAX, NULL, TO_NOTHING, 0, SCORES},
    {ENV "queuing-threshold-lora", V_INT, "128", SET_NO_EFFECT, 0, INT64_MAX, NULL, TO_NOTHING, 0, FILTERS},
    {ENV "lora-affinity-threshold", V_FLOAT, "0.999", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0, FILTERS},
    {ENV "kv-cache-threshold", V_FLOAT, "0.8", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0,
     "no effect, because the reference picker never used it: see sd-kv-cache-util-threshold"},
    {ENV "queue-threshold-critical", V_INT, "5", SET_NO_EFFECT, 0, INT64_MAX, NULL, TO_NOTHING, 0,
     "no effect, because the reference picker never used it: see sd-queue-depth-threshold"},
    {ENV "use-streaming", V_BOOL, "false", SET_NO_EFFECT, 0, 0, NULL, TO_NOTHING, 0,
     "no effect, because answers are always streamed"},
};

/* A value in every form that storing may need. */
struct value {
    int64_t i;
    double f;
    struct str text;
    struct sched_flow_weight weights[SCHED_MAX_FLOW_WEIGHTS];
    uint32_t n_weights;
};

static bool parse_word(const struct annotation *t, struct str s, struct value *v, char *why, size_t cap)
{
    size_t n = (size_t)snprintf(why, cap, "is none of");
    for (int i = 0; t->words[i]; i++) {
        if (str_eq_c(s, t->words[i])) {
            v->i = i;
            return true;
        }
        n += (size_t)snprintf(why + MIN(n, cap), cap - MIN(n, cap), "%s %s", i ? "," : "", t->words[i]);
    }
    return false;
}

static bool parse_bool(struct str s, struct value *v)
{
    static const char *const words[] = {"false", "true", "False", "True", "FALSE", "TRUE",
                                        "0",     "1",    "f",     "t",    "F",     "T"}; /* as Go reads them */
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (str_eq_c(s, words[i])) {
            v->i = i & 1;
            return true;
        }
    }
    return false;
}

static bool parse_duration(const struct annotation *t, struct str s, struct value *v, char *why, size_t cap)
{
    if (!duration_parse(s, &v->i)) {
        snprintf(why, cap, "is no duration such as 300ms, 30s or 2h45m");
        return false;
    }
    snprintf(why, cap, "%s",
             t->min == 0 ? "must not be negative"
             : v->i <= 0 ? "must be more than zero"
                         : "is too short");
    return v->i >= t->min && v->i <= t->max;
}

static bool parse_int(const struct annotation *t, struct str s, struct value *v, char *why, size_t cap)
{
    if (!str_to_i64(s, &v->i)) {
        snprintf(why, cap, "is no integer");
        return false;
    }
    snprintf(why, cap, "is not in %lld to %lld", (long long)t->min, (long long)t->max);
    return v->i >= t->min && v->i <= t->max;
}

/* Cuts the next of a comma list from the front, without blanks around it. */
static bool next_entry(struct str *rest, struct str *entry)
{
    if (!rest->p)
        return false;
    ptrdiff_t comma = str_find(*rest, STR(","));
    *entry = str_trim(comma < 0 ? *rest : str_first(*rest, (size_t)comma));
    *rest = comma < 0 ? STR_NULL : str_from(*rest, (size_t)comma + 1);
    return true;
}

/* "name=weight": the name is a fairness id or a model's, hashed as sched_req.flow is. The last '=' divides. */
static const char *parse_weight(struct str entry, struct sched_flow_weight *w)
{
    size_t at = entry.n;
    while (at > 0 && entry.p[at - 1] != '=')
        at--;
    if (at == 0)
        return "which is not of the form name=weight";
    struct str name = str_trim(str_first(entry, at - 1));
    if (name.n == 0)
        return "which has no name";
    if (name.n > MAX_FLOW)
        return "whose name is too long";
    if (!str_to_double(str_trim(str_from(entry, at)), &w->weight) || !isfinite(w->weight) || w->weight < WEIGHT_MIN ||
        w->weight > WEIGHT_MAX)
        return "whose weight is no number from 0.000001 to 1000000";
    w->flow = hash_bytes(name.p, name.n, 0);
    return NULL;
}

static bool parse_weights(struct str s, struct value *v, char *why, size_t cap)
{
    struct str entry;
    if (str_trim(s).n == 0)
        return true;
    while (next_entry(&s, &entry)) {
        struct sched_flow_weight w = {0};
        const char *bad =
            v->n_weights == SCHED_MAX_FLOW_WEIGHTS ? "which is one too many (at most 256)" : parse_weight(entry, &w);
        for (uint32_t i = 0; i < v->n_weights && !bad; i++)
            bad = v->weights[i].flow == w.flow ? "whose name is given twice" : NULL;
        if (bad) {
            snprintf(why, cap, "has the entry \"" STR_FMT "\", %s", STR_ARG(str_first(entry, 64)), bad);
            return false;
        }
        v->weights[v->n_weights++] = w;
    }
    return true;
}

static bool parse_trust(struct str s, struct value *v, char *why, size_t cap)
{
    static const char *const words[] = {"objective", "fairness", "ttl"}; /* bits of enum conf_trust */
    struct str entry;
    if (str_eq_c(s, "all"))
        v->i = TRUST_OBJECTIVE | TRUST_FAIRNESS | TRUST_TTL;
    if (str_eq_c(s, "all") || str_eq_c(s, "none"))
        return true;
    while (next_entry(&s, &entry)) {
        size_t i = 0;
        while (i < ARRAY_LEN(words) && !str_eq_c(entry, words[i]))
            i++;
        if (i == ARRAY_LEN(words)) {
            snprintf(why, cap, "is neither all nor none nor a list of objective, fairness, ttl");
            return false;
        }
        v->i |= BIT(i);
    }
    return true;
}

static bool parse_policy(struct str s, struct value *v, char *why, size_t cap)
{
    enum sched_policy p;
    if (sched_policy_parse(s, &p)) {
        v->i = (int64_t)p;
        return true;
    }
    size_t n = (size_t)snprintf(why, cap, "is none of");
    for (p = 0; p < N_SCHED_POLICIES; p++)
        n += (size_t)snprintf(why + MIN(n, cap), cap - MIN(n, cap), "%s %s", p ? "," : "", sched_policy_name(p));
    return false;
}

/* A path as a request line carries it. */
static bool path_ok(struct str s)
{
    if (s.n > MAX_PATH_BYTES || !str_starts(s, STR("/")))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f || s.p[i] == '#')
            return false;
    return true;
}

/* name or name{label=value,...}: as the reader of the pages takes it apart, but without what that one passes over or
 * could never find (empty labels and values, escapes). */
static bool metric_ok(struct str s)
{
    struct prom_name n;
    if (s.n > MAX_METRIC_TEXT || !prom_name_parse(s, &n))
        return false;
    for (uint32_t i = 0; i < n.n_labels; i++)
        if (!n.label[i].value.n)
            return false;
    if (memchr(s.p, '\\', s.n) || memchr(s.p, '\n', s.n) || str_ends(s, STR(",}")))
        return false;
    return n.n_labels > 0 || !memchr(s.p, '{', s.n);
}

/* False with the end of the sentence `"x" ...` in why. */
static bool parse(const struct annotation *t, struct str s, struct value *v, char *why, size_t cap)
{
    v->i = 0;
    v->f = 0;
    v->n_weights = 0;
    snprintf(why, cap, "is neither true nor false");
    switch (t->type) {
    case V_WORD:
        return parse_word(t, s, v, why, cap);
    case V_BOOL:
        return parse_bool(s, v);
    case V_SWITCH:
        if (!parse_word(t, s, v, why, cap))
            return false;
        v->i &= 1;
        return true;
    case V_INT:
        return parse_int(t, s, v, why, cap);
    case V_DURATION:
        return parse_duration(t, s, v, why, cap);
    case V_FRAC:
        snprintf(why, cap, "is no number between 0 and 1");
        return str_to_double(s, &v->f) && v->f > 0 && v->f < 1;
    case V_FLOAT:
        snprintf(why, cap, "is no number");
        return str_to_double(s, &v->f) && isfinite(v->f);
    case V_NAME:
        snprintf(why, cap, "is no name of a ConfigMap");
        return s.n == 0 || dns_name_ok(s, 253);
    case V_WEIGHTS:
        return parse_weights(s, v, why, cap);
    case V_TRUST:
        return parse_trust(s, v, why, cap);
    case V_POLICY:
        return parse_policy(s, v, why, cap);
    case V_PATH:
        snprintf(why, cap, "is no path that begins with /");
        v->text = s;
        return path_ok(s);
    case V_METRIC:
        snprintf(why, cap, "is neither name nor name{label=value,...} with at most %d labels", PROM_NAME_LABELS);
        v->text = s;
        return metric_ok(s);
    }
    return false;
}

static void store_weights(const struct value *v, struct arena *a, struct sched_params *p)
{
    struct sched_flow_weight *w = arena_alloc(a, (v->n_weights + 1) * sizeof *w);
    memcpy(w, v->weights, v->n_weights * sizeof *w);
    p->flow_weights = w;
    p->n_flow_weights = v->n_weights;
}

static void store(const struct annotation *t, const struct value *v, struct arena *a, struct conf_backend *b)
{
    char *at = (char *)b + t->at;
    uint64_t u = (uint64_t)v->i;
    if (t->type == V_DURATION)
        u = u ? MAX(u / 1000, 1) : 0; /* what is more than zero stays so */
    int word = (int)v->i;
    uint16_t u16 = (uint16_t)u;
    uint32_t u32 = (uint32_t)u;
    struct str text;
    bool flag = v->i != 0;
    switch (t->as) {
    case TO_NOTHING:
        return;
    case TO_INT:
        memcpy(at, &word, sizeof word);
        return;
    case TO_U16:
        memcpy(at, &u16, sizeof u16);
        return;
    case TO_U32:
        memcpy(at, &u32, sizeof u32);
        return;
    case TO_U64:
        memcpy(at, &u, sizeof u);
        return;
    case TO_DOUBLE:
        memcpy(at, &v->f, sizeof v->f);
        return;
    case TO_BOOL:
        memcpy(at, &flag, sizeof flag);
        return;
    case TO_STR:
        text = arena_str(a, v->text);
        memcpy(at, &text, sizeof text);
        return;
    case TO_WEIGHTS:
        store_weights(v, a, &b->sched);
        return;
    }
}

static struct str default_text(const struct annotation *t, struct arena *a, const struct conf_backend *b)
{
    char text[32] = "";
    uint64_t us = 0;
    if (t->def)
        return str_c(t->def);
    memcpy(&us, (const char *)b + t->at, sizeof us); /* ours, not a documented one: what is there already */
    duration_format((int64_t)us * 1000, text, sizeof text);
    return arena_str(a, str_c(text));
}

/* What was in effect for the key in the snapshot before, as text; the default when that knows nothing. */
static struct str kept_text(const struct conf_backend *previous, const char *key, struct str def)
{
    for (uint32_t i = 0; previous && i < previous->n_settings; i++)
        if (str_eq_c(previous->settings[i].key, key))
            return previous->settings[i].value;
    return def;
}

struct apply {
    const struct object *pool;
    const struct conf_backend *previous;
    struct arena *a;
    struct conf_backend *b;
    struct conf_report *rep;
};

static void note(const struct apply *x, enum conf_severity s, struct str key, const char *text)
{
    char field[400];
    const struct kv *at = kvs_find(&x->pool->meta.annotations, key);
    snprintf(field, sizeof field, "metadata.annotations." STR_FMT, STR_ARG(str_first(key, 300)));
    conf_report_add(x->rep, &(struct conf_note){.severity = s,
                                                .file = x->pool->file,
                                                .line = at ? at->line : x->pool->line,
                                                .col = at ? at->col : 0,
                                                .object = x->pool->id,
                                                .field = str_c(field),
                                                .text = str_c(text)});
}

static void bad_value(const struct apply *x, const struct annotation *t, struct conf_setting *s, const char *why)
{
    char text[512];
    s->state = SET_BAD_KEPT;
    s->value = arena_str(x->a, kept_text(x->previous, t->key, s->value));
    snprintf(text, sizeof text, "\"" STR_FMT "\" %s; " STR_FMT "%s stays in effect", STR_ARG(str_first(s->given, 64)),
             why, STR_ARG(str_first(s->value, 100)), s->value.n ? "" : "the default");
    s->note = arena_str(x->a, str_c(text));
    note(x, CONF_WARNING, s->key, text);
}

static void apply_one(const struct apply *x, const struct annotation *t, struct conf_setting *s)
{
    char why[256];
    struct value v;
    s->key = str_c(t->key);
    s->value = default_text(t, x->a, x->b);
    s->given = STR("");
    s->state = t->effect == SET_EFFECTIVE ? SET_DEFAULT : t->effect;
    s->note = str_c(t->note ? t->note : "");
    if (kvs_get(&x->pool->meta.annotations, s->key, &s->given)) {
        s->given = arena_str(x->a, s->given);
        if (parse(t, s->given, &v, why, sizeof why)) {
            s->value = s->given;
            s->state = t->effect;
            if (t->note)
                note(x, CONF_INFO, s->key, t->note);
        } else {
            bad_value(x, t, s, why);
        }
    }
    if (parse(t, s->value, &v, why, sizeof why))
        store(t, &v, x->a, x->b);
}

/* A request without the header waits for queue-ttl: one that asks may do so, too. */
static void raise_ttl_max(const struct apply *x, struct conf_setting *s)
{
    char text[400], ttl[32] = "";
    uint64_t us = x->b->sched.queue_ttl_us;
    if (x->b->queue_ttl_max_us >= us)
        return;
    ttl[duration_format((int64_t)us * 1000, ttl, sizeof ttl - 1)] = '\0';
    snprintf(text, sizeof text, "%s%sraised to queue-ttl, %s", s->note.n ? s->note.p : "", s->note.n ? "; " : "", ttl);
    x->b->queue_ttl_max_us = us;
    s->value = arena_str(x->a, str_c(ttl));
    s->note = arena_str(x->a, str_c(text));
    note(x, CONF_INFO, s->key, text);
}

static void no_https(const struct apply *x, struct conf_setting *s)
{
    s->state = SET_NOT_YET;
    s->value = STR("http");
    s->note = STR("https is accepted, not in effect yet: metrics are read over http");
    note(x, CONF_WARNING, s->key, s->note.p);
}

/* The ports of one pod are servers of their own: no single port tells of them all. */
static void one_metrics_port(const struct apply *x, struct conf_setting *s)
{
    if (!x->b->metrics.port || ((const struct pool *)x->pool->spec)->spec.ports.n < 2)
        return;
    x->b->metrics.port = 0;
    s->state = SET_NO_EFFECT;
    s->note = STR("no effect, because the pool has several target ports: each shows its own metrics");
    note(x, CONF_WARNING, s->key, s->note.p);
}

/* Values that are understood but bounded by others, or cannot all be served yet. */
static void limits(const struct apply *x, struct conf_setting *s)
{
    if (str_eq_c(s->key, ENV "queue-ttl"))
        x->b->queue_ttl_max_us = x->b->sched.queue_ttl_us; /* the default of queue-ttl-max, which follows */
    if (str_eq_c(s->key, OWN "queue-ttl-max"))
        raise_ttl_max(x, s);
    if (str_eq_c(s->key, XK8S "model-server-runtime"))
        x->b->runtime_given =
            s->state == SET_EFFECTIVE || (s->state == SET_BAD_KEPT && x->previous && x->previous->runtime_given);
    if (str_eq_c(s->key, OWN "metrics-scheme") && str_eq_c(s->value, "https"))
        no_https(x, s);
    if (str_eq_c(s->key, OWN "metrics-port"))
        one_metrics_port(x, s);
    if (str_eq_c(s->key, ENV "sd-metrics-staleness-threshold") && s->state == SET_EFFECTIVE &&
        x->b->sched.stale_us < STALE_MIN_US) {
        x->b->sched.stale_us = STALE_MIN_US;
        s->value = STR("2s");
        s->note = STR("raised to 2s: metrics are read once a second");
        note(x, CONF_INFO, s->key, s->note.p);
    }
}

static struct conf_setting *find_setting(struct conf_backend *b, const char *key)
{
    for (uint32_t i = 0; i < b->n_settings; i++)
        if (str_eq_c(b->settings[i].key, key))
            return &b->settings[i];
    return NULL;
}

/* A limit that somebody set is the hard limit the document says; looking deeper than that must be asked for. */
static void limit_depth(const struct apply *x)
{
    const struct conf_setting *blocks = find_setting(x->b, ENV "prefix-cache-max-prefix-blocks");
    struct conf_setting *depth = find_setting(x->b, OWN "prefix-depth");
    if (!blocks || !depth || blocks->state != SET_EFFECTIVE || depth->state == SET_EFFECTIVE)
        return;
    x->b->sched.deep = false;
    depth->value = STR("documented");
    depth->note = STR("because prefix-cache-max-prefix-blocks is set");
}

/* Any policy may be asked for by name; without that the documents' two are chosen between as they say. */
static void override_policy(const struct apply *x)
{
    struct conf_setting *own = find_setting(x->b, OWN "policy"),
                        *documented = find_setting(x->b, XK8S "routing-strategy");
    char text[160];
    if (!own || !documented || !own->value.n)
        return;
    own->value = str_c(sched_policy_name(x->b->sched.policy));
    if (documented->state != SET_EFFECTIVE)
        return;
    documented->state = SET_NO_EFFECT;
    documented->note = STR("no effect, because " OWN "policy is given");
    snprintf(text, sizeof text, "the policy is %s, not what " XK8S "routing-strategy says", own->value.p);
    note(x, CONF_INFO, own->key, text);
}

/* The older switch counts where `queueing` is not given. */
static void switch_queueing(const struct apply *x)
{
    struct conf_setting *now = find_setting(x->b, XK8S "queueing"),
                        *old = find_setting(x->b, ENV "experimental-use-queueing");
    struct value v;
    if (!now || !old || old->state == SET_DEFAULT || !parse_bool(old->value, &v))
        return;
    if (now->state == SET_DEFAULT) {
        x->b->sched.queueing = v.i != 0;
        now->value = v.i ? STR("enabled") : STR("disabled");
        now->note = STR("because of " ENV "experimental-use-queueing");
        return;
    }
    if (old->state != SET_EFFECTIVE)
        return;
    bool differs = x->b->sched.queueing != (v.i != 0);
    old->state = SET_NO_EFFECT;
    old->note = STR("no effect, because " XK8S "queueing is given");
    note(x, differs ? CONF_WARNING : CONF_INFO, old->key, old->note.p);
}

static bool ours(struct str key)
{
    return str_starts(key, STR(XK8S)) || str_starts(key, STR(ENV)) || str_starts(key, STR(OWN));
}

static bool in_table(struct str key)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_eq_c(key, table[i].key))
            return true;
    return false;
}

static void unknown(const struct apply *x, const struct kv *kv)
{
    struct conf_setting s = {.key = arena_str(x->a, kv->key),
                             .value = STR(""),
                             .given = arena_str(x->a, kv->value),
                             .state = SET_UNKNOWN,
                             .note = STR("unknown name, ignored")};
    annotations_add_setting(x->a, x->b, &s);
    note(x, CONF_WARNING, s.key, "unknown name, ignored");
}

void annotations_add_setting(struct arena *a, struct conf_backend *b, const struct conf_setting *s)
{
    struct conf_setting *v = arena_alloc(a, (b->n_settings + 1) * sizeof *v);
    memcpy(v, b->settings, b->n_settings * sizeof *v);
    v[b->n_settings++] = *s;
    b->settings = v;
}

void annotations_apply(const struct object *pool, const struct conf_backend *previous, struct arena *a,
                       struct conf_backend *b, struct conf_report *rep)
{
    struct apply x = {pool, previous, a, b, rep};
    sched_params_init(&b->sched);
    b->settings = arena_zalloc(a, ARRAY_LEN(table) * sizeof *b->settings);
    b->n_settings = ARRAY_LEN(table);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        apply_one(&x, &table[i], &b->settings[i]);
        limits(&x, &b->settings[i]);
    }
    limit_depth(&x);
    override_policy(&x);
    switch_queueing(&x);
    const struct conf_setting *lru = find_setting(b, ENV "prefix-cache-lru-capacity");
    b->sched.lru_by_memory = lru && lru->state == SET_DEFAULT;
    for (uint32_t i = 0; i < pool->meta.annotations.n; i++)
        if (ours(pool->meta.annotations.v[i].key) && !in_table(pool->meta.annotations.v[i].key))
            unknown(&x, &pool->meta.annotations.v[i]);
}
