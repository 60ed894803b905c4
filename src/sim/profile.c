/* sim/profile.c - tables of GPUs, models and linear profiles, and the arithmetic between them. */
#include "sim/profile.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

struct gpu {
    const char *name;
    double flops, bandwidth, mem; /* dense bf16 FLOP/s, bytes/s, bytes that the server may share out */
    double ec, eb, ek;            /* efficiencies of compute, weight read, KV read */
    double t0, ts;                /* seconds per step and per sequence */
    double comm2, comm4;          /* seconds per step with two and with more GPUs */
    bool large;                   /* the server's larger defaults for batch sizes */
};
static const struct gpu gpus[] = {
    {"a10", 125e12, 0.600e12, 24.096e9, 0.45, 0.88, 0.70, 1.0e-3, 30e-6, 1.5e-3, 2e-3, false},
    {"l20", 119.5e12, 0.864e12, 48.26e9, 0.60, 0.85, 0.70, 1.0e-3, 30e-6, 1.5e-3, 2e-3, false},
    {"a6000", 154.8e12, 0.768e12, 51.0e9, 0.65, 0.95, 0.80, 0.8e-3, 30e-6, 1.5e-3, 2e-3, false},
    {"a100-40", 312e12, 1.555e12, 42.8e9, 0.60, 0.83, 0.70, 1.0e-3, 15e-6, 0.6e-3, 0.8e-3, false},
    {"a100", 312e12, 2.04e12, 85.51e9, 0.70, 0.79, 0.80, 1.5e-3, 30e-6, 0.6e-3, 0.8e-3, false},
    {"h100", 989e12, 3.35e12, 85.92e9, 0.45, 0.70, 0.55, 1.2e-3, 20e-6, 0.6e-3, 0.8e-3, true},
    {"h20", 148e12, 4.0e12, 103.12e9, 0.70, 0.70, 0.55, 1.2e-3, 20e-6, 0.6e-3, 0.8e-3, true},
    {"h20-141", 148e12, 4.8e12, 150.58e9, 0.70, 0.70, 0.55, 1.2e-3, 20e-6, 0.6e-3, 0.8e-3, true},
};
/* Tried in this order when no hardware is named. */
static const char *const gpu_order[] = {"a10", "l20", "a100", "h100", "h20", "h20-141"};

struct llm {
    const char *name, *key; /* key: lower case, letters and digits only */
    double params, kv_bytes;
    double layers, heads, head_dim;
    uint32_t max_model_len;
};
static const struct llm llms[] = {
    {"qwen2.5-7b", "qwen257b", 7.62e9, 57344, 28, 28, 128, 32768},
    {"llama-3.1-8b", "llama318b", 8.03e9, 131072, 32, 32, 128, 131072},
    {"qwen3-8b", "qwen38b", 8.19e9, 147456, 36, 32, 128, 40960},
    {"qwen3-14b", "qwen314b", 14.77e9, 163840, 40, 40, 128, 40960},
    {"qwen3-32b", "qwen332b", 32.76e9, 262144, 64, 64, 128, 40960},
    {"llama-3.1-70b", "llama3170b", 70.6e9, 327680, 80, 64, 128, 131072},
};
#define MEM_OVERHEAD 1.5e9 /* activations, CUDA context and graphs, per GPU */
#define TP_BANDWIDTH 0.92

static const struct profile linear[] = {
    {"h100-qwen3-32b",
     {.base = 15e-3, .prefill_token = 75e-6, .decode_seq = 20e-6, .context_token = 6.0e-8, .pair = 4.2e-9},
     270000,
     262144,
     1024,
     8192,
     131072},
    {"a10-qwen25-7b",
     {.base = 28e-3, .prefill_token = 250e-6, .decode_seq = 30e-6, .context_token = 1.2e-7, .pair = 8.0e-9},
     85000,
     57344,
     256,
     2048,
     32768},
    {"h200-qwen3-coder-30b-a3b",
     {.base = 7e-3, .prefill_token = 30e-6, .decode_seq = 30e-6, .context_token = 2.7e-8, .pair = 1.75e-9},
     930000,
     98304,
     1024,
     8192,
     262144},
};

double step_seconds(const struct step_time *t, double decode, double chunks, double prefill, double context,
                    double pairs)
{
    return t->base + t->decode_seq * decode + t->chunk * chunks +
           hypot(t->weights, t->gemm_token * (decode + prefill)) + t->prefill_token * prefill +
           t->context_token * context + t->pair * pairs;
}

/* Lower-case letters and digits of s. */
static void squeeze(struct str s, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n && n + 1 < cap; i++)
        if (isalnum((unsigned char)s.p[i]))
            out[n++] = (char)tolower((unsigned char)s.p[i]);
    out[n] = 0;
}

static const struct llm *find_llm(struct str name)
{
    char key[256];
    squeeze(name, key, sizeof(key));
    for (size_t i = ARRAY_LEN(llms); i-- > 0;) /* longer keys of a family come later: llama-70b before llama-8b */
        if (strstr(key, llms[i].key))
            return &llms[i];
    return NULL;
}

static const struct gpu *find_gpu(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(gpus); i++)
        if (str_ieq(name, str_c(gpus[i].name)))
            return &gpus[i];
    return NULL;
}

static double kv_capacity(const struct gpu *g, const struct llm *m, unsigned tp, double frac)
{
    double per_gpu = frac * g->mem - m->params * 2 / tp - MEM_OVERHEAD;
    return per_gpu > 0 ? per_gpu * tp / m->kv_bytes : 0;
}

static int combine(const struct gpu *g, const struct llm *m, unsigned tp, double frac, struct profile *out,
                   struct errbuf *err)
{
    double cap = kv_capacity(g, m, tp, frac);
    if (cap < 1024)
        return err_set(err, "the model %s does not fit on %u x %s.", m->name, tp, g->name);
    double bw = g->bandwidth * tp * (tp > 1 ? TP_BANDWIDTH : 1), fl = g->flops * tp;
    *out = (struct profile){.time = {.base = g->t0 + (tp == 1   ? 0
                                                      : tp == 2 ? g->comm2
                                                                : g->comm4),
                                     .decode_seq = g->ts,
                                     .chunk = g->ts,
                                     .weights = m->params * 2 / (bw * g->eb),
                                     .gemm_token = 2 * m->params / (fl * g->ec),
                                     .context_token = m->kv_bytes / (bw * g->ek),
                                     .pair = 4 * m->layers * m->heads * m->head_dim / (fl * g->ec)},
                            .kv_tokens = (uint64_t)cap,
                            .kv_token_bytes = m->kv_bytes,
                            .max_num_seqs = g->large ? 1024 : 256,
                            .max_batched_tokens = g->large ? 8192 : 2048,
                            .max_model_len = m->max_model_len};
    (void)snprintf(out->name, sizeof(out->name), "%s-%s-tp%u", g->name, m->name, tp);
    return 0;
}

/* "<gpu>-<model>[-tpN]" */
static int by_name(struct str name, double frac, struct profile *out, struct errbuf *err)
{
    unsigned tp = 1;
    struct str rest = name;
    for (size_t i = name.n; i-- > 0;) {
        uint64_t n;
        if (name.p[i] == '-') {
            struct str tail = str_from(name, i + 1);
            if (str_starts(tail, STR("tp")) && str_to_u64(str_from(tail, 2), &n) && n >= 1 && n <= 64) {
                tp = (unsigned)n;
                rest = str_first(name, i);
            }
            break;
        }
    }
    const struct gpu *g = NULL;
    for (size_t i = 0; i < ARRAY_LEN(gpus); i++) {
        struct str gn = str_c(gpus[i].name);
        if (str_starts(rest, gn) && rest.n > gn.n && rest.p[gn.n] == '-' && (!g || gn.n > strlen(g->name)))
            g = &gpus[i];
    }
    const struct llm *m = g ? find_llm(str_from(rest, strlen(g->name) + 1)) : NULL;
    if (!m)
        return err_set(err, "there is no profile \"" STR_FMT "\"; see --help for the names.", STR_ARG(name));
    return combine(g, m, tp, frac, out, err);
}

int profile_find(const struct profile_query *q, struct profile *out, struct errbuf *err)
{
    double frac = q->memory_frac > 0 ? q->memory_frac : 0.9;
    unsigned tp = q->tp ? q->tp : 1;
    for (size_t i = 0; i < ARRAY_LEN(linear); i++)
        if (str_ieq(q->name, str_c(linear[i].name))) {
            *out = linear[i];
            return 0;
        }
    if (q->name.n)
        return by_name(q->name, frac, out, err);
    const struct llm *m = find_llm(q->model);
    if (!m)
        m = &llms[0];
    if (q->hardware.n) {
        const struct gpu *g = find_gpu(q->hardware);
        if (!g)
            return err_set(err, "there is no hardware \"" STR_FMT "\"; see --help for the names.",
                           STR_ARG(q->hardware));
        return combine(g, m, tp, frac, out, err);
    }
    for (size_t i = 0; i < ARRAY_LEN(gpu_order); i++) {
        const struct gpu *g = find_gpu(str_c(gpu_order[i]));
        if (kv_capacity(g, m, tp, frac) >= 32768)
            return combine(g, m, tp, frac, out, err);
    }
    return combine(&gpus[ARRAY_LEN(gpus) - 1], m, MAX(tp, 4u), frac, out, err);
}

void profile_each(void (*fn)(void *ctx, const char *name), void *ctx)
{
    char name[64];
    for (size_t i = 0; i < ARRAY_LEN(linear); i++)
        fn(ctx, linear[i].name);
    for (size_t g = 0; g < ARRAY_LEN(gpus); g++)
        for (size_t m = 0; m < ARRAY_LEN(llms); m++) {
            if (kv_capacity(&gpus[g], &llms[m], 1, 0.9) < 1024)
                continue;
            (void)snprintf(name, sizeof(name), "%s-%s-tp1", gpus[g].name, llms[m].name);
            fn(ctx, name);
        }
}
