/* strain.c - the level of a worker that is behind, with hysteresis. */
#include "proxy/strain.h"

static unsigned asks_for(double limit_s, double busy, double lag_s)
{
    if (busy < STRAIN_BUSY || lag_s < limit_s)
        return 0;
    return lag_s < limit_s * STRAIN_SECOND ? 1 : 2;
}

static bool is_calm(const struct strain *s, double limit_s, double busy, double lag_s)
{
    double entered_s = s->level == 2 ? limit_s * STRAIN_SECOND : limit_s;
    return busy < STRAIN_CALM || lag_s < entered_s / 2;
}

static void rise(struct strain *s, unsigned to)
{
    double hold_s = MAX(s->hold_s, STRAIN_HOLD_S);
    bool again = s->since_s > 0 && s->since_s < STRAIN_SOON * hold_s;
    s->hold_s = again ? MIN(2 * hold_s, STRAIN_HOLD_MAX_S) : STRAIN_HOLD_S;
    s->level = to;
    s->calm_s = 0;
}

static void pass(struct strain *s, double dt_s, bool calm)
{
    s->calm_s = calm ? s->calm_s + dt_s : 0;
    if (s->since_s > 0)
        s->since_s += dt_s;
    if (!s->level || s->calm_s < MAX(s->hold_s, STRAIN_HOLD_S))
        return;
    s->level--;
    s->calm_s = 0;
    s->since_s = dt_s;
}

unsigned strain_step(struct strain *s, double limit_s, double dt_s, double busy, double lag_s)
{
    if (!(limit_s > 0)) {
        *s = (struct strain){0};
        return 0;
    }
    unsigned asked = asks_for(limit_s, busy, lag_s), both = MIN(asked, s->asked);
    s->asked = asked;
    if (both > s->level)
        rise(s, both);
    else
        pass(s, dt_s, is_calm(s, limit_s, busy, lag_s));
    return s->level;
}
