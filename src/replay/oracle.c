/* The oracle: sees every server's queue, running step and cache exactly, but no output lengths; least predicted TTFT
 * plus lambda x the prefill seconds it adds there. lambda grows from 1 to 30 as the pool's memory fills: recomputing
 * costs everybody once there is no slack. Greedy, so no upper bound. (routing-anchors.md, policy `oracle`.) */
#include "replay/world_int.h"

#include <math.h>
#include <stdlib.h>

static double cost_on(const struct world *w, const struct server *s, const struct engine_forecast *f,
                      const struct live *l, double lambda)
{
    const struct step_time *t = &s->profile.time;
    double fresh = f->new_tokens, slow = s->slow * s->factor;
    double step = slow * step_seconds(t, f->decoding, 0, 0, f->context_tokens, 0);
    double token = slow * (t->prefill_token + t->gemm_token), pair = slow * t->pair;
    double own = token * fresh + pair * fresh * (l->input - fresh / 2);
    double room = MAX(1.0, (double)s->profile.max_batched_tokens - f->decoding);
    double ttft = f->rest_s + token * f->ahead_tokens + pair * f->ahead_pairs + own +
                  ceil((f->ahead_tokens + fresh) / room) * step;
    double over = f->used_tokens + f->waiting_tokens + fresh - (double)s->profile.kv_tokens;
    if (over > 0 && f->running)
        ttft += w->ideal_mean_out / 2 * step * MIN(3.0, 2 * over / MAX(1.0, f->used_tokens));
    return ttft + lambda * own;
}

static bool usable(const struct world *w, uint32_t k, uint32_t role)
{
    return w->servers[k].up && w->servers[k].role == role;
}

uint32_t oracle_pick(struct world *w, const struct live *l, uint32_t role)
{
    uint32_t n = w->p->n_servers, best = 0, same = 0, all = 0;
    double use = 0, least = HUGE_VAL;
    if (!w->forecasts)
        w->forecasts = xcalloc(n, sizeof(*w->forecasts));
    for (uint32_t k = 0; k < n; k++) {
        struct server *s = &w->servers[k];
        struct engine_forecast *f = &w->forecasts[k];
        if (!usable(w, k, role))
            continue;
        engine_forecast(s->engine, s->cache ? l->ids : NULL, s->cache ? l->n_ids : 0, l->input, w->now, f);
        use += MIN(1.0, (f->used_tokens + f->waiting_prompts) / (double)s->profile.kv_tokens);
        all++;
    }
    double lambda = 1 + 29 * MAX(0.0, MIN(1.0, (use / MAX(all, 1u) - 0.9) * 10));
    for (uint32_t k = 0; k < n; k++) {
        if (!usable(w, k, role))
            continue;
        double c = cost_on(w, &w->servers[k], &w->forecasts[k], l, lambda);
        same = c < least - 1e-12 ? 1 : same + (c < least + 1e-12);
        if (c < least - 1e-12 || (c < least + 1e-12 && rng_below(&w->rng, same) == 0))
            best = k;
        least = MIN(least, c);
    }
    return best;
}
