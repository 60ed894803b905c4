/* sim/stats.c - what a simulated server counts of its requests and steps; the pages are written in stats_*.c. */
#include "sim/server_priv.h"

#include <stdlib.h>

static const double ttft_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                     1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double token_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                      .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double request_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                        30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double length_bounds[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                       500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
static const double n_bounds[] = {1, 2, 5, 10, 20};
static const double iteration_bounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
/* SGLang's own */
static const double sg_e2e_bounds[] = {.1, .2, .4, .6, .8,  1,   2,   4,   6,    8,    10,
                                       20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400};
#define SG_TTFT 18 /* the same, without the last four */
static const double sg_token_bounds[] = {.002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .06,
                                         .08,  .1,   .2,   .4,   .6,  .8,   1,   2,    4,   6,    8};

void stats_init(struct stats *st, enum sim_dialect d)
{
    bool sg = d == SIM_SGLANG;
    *st = (struct stats){0};
    struct {
        struct sim_hist *h;
        const double *bound;
        unsigned n;
    } all[] = {
        {&st->ttft, sg ? sg_e2e_bounds : ttft_bounds, sg ? SG_TTFT : ARRAY_LEN(ttft_bounds)},
        {&st->itl, sg ? sg_token_bounds : token_bounds, sg ? ARRAY_LEN(sg_token_bounds) : ARRAY_LEN(token_bounds)},
        {&st->tpot, token_bounds, ARRAY_LEN(token_bounds)},
        {&st->e2e, sg ? sg_e2e_bounds : request_bounds, sg ? ARRAY_LEN(sg_e2e_bounds) : ARRAY_LEN(request_bounds)},
        {&st->queue, request_bounds, ARRAY_LEN(request_bounds)},
        {&st->inference, request_bounds, ARRAY_LEN(request_bounds)},
        {&st->prefill, request_bounds, ARRAY_LEN(request_bounds)},
        {&st->decode, request_bounds, ARRAY_LEN(request_bounds)},
        {&st->prompt, length_bounds, ARRAY_LEN(length_bounds)},
        {&st->generation, length_bounds, ARRAY_LEN(length_bounds)},
        {&st->max_tokens, length_bounds, ARRAY_LEN(length_bounds)},
        {&st->n, n_bounds, ARRAY_LEN(n_bounds)},
        {&st->iteration, iteration_bounds, ARRAY_LEN(iteration_bounds)}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        all[i].h->bound = all[i].bound;
        all[i].h->n = all[i].n;
    }
}

void stats_free(struct stats *st)
{
    for (unsigned i = 0; i < st->n_lora; i++) {
        free(st->lora[i].running);
        free(st->lora[i].waiting);
    }
    st->n_lora = 0;
    free(st->iters);
    st->iters = NULL;
}

void hist_observe(struct sim_hist *h, double v)
{
    unsigned i = 0;
    while (i < h->n && v > h->bound[i])
        i++;
    h->count[i]++; /* count[n] is the overflow */
    h->total++;
    h->sum += v;
}

/* Names of adapters with requests in one of the two states, joined by commas. */
static void lora_names(struct rank *r, bool running, struct buf *out)
{
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++) {
        uint32_t run, wait;
        if (!r->s->loras[i])
            continue;
        engine_lora(r->engine, i + 1, &run, &wait);
        if ((running ? run : wait) == 0)
            continue;
        if (out->n)
            buf_add_str(out, STR(","));
        buf_add_str(out, r->s->loras[i]->name);
    }
}

/* Each combination of lists is a series whose value is when it was last current; old ones stay (the oldest goes when
 * there are too many). */
static void lora_step(struct rank *rank)
{
    struct stats *st = &rank->stats;
    struct buf run, wait;
    buf_init(&run, 16384);
    buf_init(&wait, 16384);
    lora_names(rank, true, &run);
    lora_names(rank, false, &wait);
    const char *r = buf_cstr(&run), *w = buf_cstr(&wait);
    struct lora_series *hit = NULL, *oldest = &st->lora[0];
    for (unsigned i = 0; i < st->n_lora; i++) {
        if (!strcmp(st->lora[i].running, r) && !strcmp(st->lora[i].waiting, w))
            hit = &st->lora[i];
        if (st->lora[i].at < oldest->at)
            oldest = &st->lora[i];
    }
    if (!hit) {
        hit = st->n_lora < LORA_SERIES ? &st->lora[st->n_lora++] : oldest;
        free(hit->running);
        free(hit->waiting);
        *hit = (struct lora_series){.running = str_dup(str_c(r)), .waiting = str_dup(str_c(w))};
    }
    hit->at = wall_seconds();
    buf_free(&run);
    buf_free(&wait);
}

/* TensorRT-LLM reports steps, each as it was when it ran: what ended with it is still in there. */
static void keep_iteration(struct rank *r, const struct engine_stats *es)
{
    struct stats *st = &r->stats;
    uint32_t scheduled = es->running + st->step_ended, context = MIN(st->step_first, scheduled);
    if (r->s->opt->dialect != SIM_TRITON && r->s->opt->dialect != SIM_TRTLLM)
        return;
    if (!st->iters)
        st->iters = xcalloc(SIM_ITERATIONS, sizeof(*st->iters));
    st->iters[st->n_iters % SIM_ITERATIONS] =
        (struct iteration){.iter = st->n_iters,
                           .scheduled = scheduled,
                           .waiting = es->waiting,
                           .context = context,
                           .completed = st->step_ended,
                           .context_tokens = es->step_tokens - MIN(scheduled - context, es->step_tokens),
                           .used_blocks = es->n_blocks - es->free_blocks,
                           .ms = es->step_us / 1e3};
    st->n_iters++;
}

void stats_step(struct rank *r)
{
    struct stats *st = &r->stats;
    struct engine_stats es;
    engine_stats(r->engine, false, &es);
    if (es.step_tokens)
        hist_observe(&st->iteration, es.step_tokens);
    keep_iteration(r, &es);
    st->step_ended = st->step_first = 0;
    if (st->hit_query) {
        st->hit_rate = (double)st->hit_cached / (double)st->hit_query;
        st->hit_query = st->hit_cached = 0;
    }
    if (r->s->opt->enable_lora)
        lora_step(r);
}

/* Average over the last five seconds or more, as the servers log and show it. */
void stats_rates(struct rank *r, const struct engine_stats *es)
{
    struct stats *st = &r->stats;
    uint64_t now = loop_now_us(r->s->loop);
    if (now - st->window_us < 5000000)
        return;
    double dt = (double)(now - st->window_us) / 1e6;
    st->prompt_rate = (double)(es->prompt_tokens - st->window_prompt) / dt;
    st->generation_rate = (double)(es->generation_tokens - st->window_generation) / dt;
    st->window_us = now;
    st->window_prompt = es->prompt_tokens;
    st->window_generation = es->generation_tokens;
}
