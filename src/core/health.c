/* Health of endpoints: who is not to be picked for now, and how they come back.
 *
 *   not ready --probe ok--> ready --failure--> ejected --probe ok, first byte or time--> ready with slow start
 * Transport failures eject at once, timeouts and 5xx answers after three in a row, probes after two without any sign of
 * life. At most eject_share of the ready endpoints, and never the last, is ejected; who should be but may not costs
 * extra instead. */
#include "core/sched_int.h"
#include <math.h>

#define SOFT_FAILURES  3
#define PROBE_FAILURES 2
#define SLOW_START_S   0.5
#define SUSPECT_S      2.0 /* extra cost of one that could not be ejected, fading over SUSPECT_US */
#define SUSPECT_US     5000000
#define RELAPSE_US     30000000 /* ejected again within this time after a return: a relapse */
#define RELAPSE_HOLD_US                                                                                                \
    1000000 /* after a relapse a good probe counts only this long after the ejection: the probe's path may work        \
             * while requests fail, and each return then costs somebody a retry */

/* Slow start spares an endpoint beside warmed-up ones. When all are new there is nobody to spare it for. */
static bool anyone_settled(const struct sched *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (ep_usable(&s->eps[i]) && s->eps[i].ready_us + s->p.slow_start_us <= s->now_us)
            return true;
    return false;
}

static void slow_start(struct sched *s, struct ep *e)
{
    e->settled_us = e->ready_us = s->now_us;
    if (anyone_settled(s))
        e->settled_us += s->p.slow_start_us;
}

void health_ready(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    if (e->ready)
        return;
    slow_start(s, e); /* before it counts itself */
    e->ready = true;
    s->n_ready++;
    health_refresh(s, slot);
}

static uint32_t max_ejected(const struct sched *s)
{
    if (s->n_ready < 2)
        return 0;
    double share = ceil(s->p.eject_share * (double)s->n_ready - 1e-9);
    return MIN((uint32_t)MAX(share, 0), s->n_ready - 1);
}

static uint64_t ejection_us(const struct sched *s, uint32_t level)
{
    uint64_t t = s->p.eject_us;
    for (uint32_t i = 1; i < level && t < s->p.eject_max_us; i++)
        t *= 2;
    return MIN(t, s->p.eject_max_us);
}

bool health_eject(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    if (!e->ready || e->ejected)
        return false;
    e->suspect_us = s->now_us + SUSPECT_US;
    if (s->n_ejected >= max_ejected(s)) {
        ep_refresh(s, slot);
        return false;
    }
    e->level = e->ejected_us && s->now_us < e->settled_us + RELAPSE_US ? MIN(e->level + 1, 32u) : 1;
    e->ejected = true;
    e->ejections++;
    e->ejected_us = s->now_us;
    e->until_us = s->now_us + ejection_us(s, e->level);
    s->n_ejected++;
    ep_refresh(s, slot);
    event_emit(s, EV_EJECT, slot, NULL);
    return true;
}

void health_return(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    if (!e->ejected)
        return;
    slow_start(s, e);
    e->ejected = false;
    e->suspect_us = e->fails = e->probe_fails = 0;
    s->n_ejected--;
    learn_forget(e);
    lora_forget(s, slot);
    ep_refresh(s, slot);
    event_emit(s, EV_RETURN, slot, NULL);
}

void health_request(struct sched *s, uint32_t slot, const struct sched_req *r, enum sched_outcome how)
{
    struct ep *e = &s->eps[slot];
    switch (how) {
    case OUT_OK:
        e->fails = 0;
        e->suspect_us = 0;
        sched_ep_alive(s, ep_ref_of(s, slot), s->now_us);
        if (r->picked_us >= e->ejected_us) /* older ones may end well where new ones fail */
            health_return(s, slot);
        return;
    case OUT_CONNECT_FAILED:
    case OUT_RESET:
    case OUT_GARBAGE:
        e->failures++;
        health_eject(s, slot);
        return;
    case OUT_TIMEOUT:
    case OUT_SERVER_ERROR:
        e->failures++;
        if (++e->fails >= SOFT_FAILURES)
            health_eject(s, slot);
        return;
    case OUT_CANCELLED:
    case OUT_MODEL_MISSING:
    case OUT_STALE_CONN:
        return;
    }
}

static double fading(uint64_t now_us, uint64_t end_us, uint64_t over_us, double from)
{
    return now_us < end_us && over_us ? from * MIN(1.0, (double)(end_us - now_us) / (double)over_us) : 0;
}

void health_refresh(struct sched *s, uint32_t slot)
{
    struct ep *e = &s->eps[slot];
    /* The time of an ejection ends it only where probes do not say otherwise. */
    if (e->ejected && s->now_us >= e->until_us && !e->probe_fails)
        health_return(s, slot);
    e->extra_s = fading(s->now_us, e->settled_us, s->p.slow_start_us, SLOW_START_S) +
                 (e->ejected ? 0 : fading(s->now_us, e->suspect_us, SUSPECT_US, SUSPECT_S));
}

void sched_ep_alive(struct sched *s, struct ep_ref ref, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    if (!e)
        return;
    e->alive_us = MAX(e->alive_us, now_us);
    e->probe_fails = 0;
}

bool sched_ep_probe(struct sched *s, struct ep_ref ref, bool ok, uint64_t asked_us, uint64_t now_us)
{
    struct ep *e = ep_of(s, ref);
    if (!e)
        return false;
    s->now_us = MAX(s->now_us, now_us);
    if (ok) {
        sched_ep_alive(s, ref, now_us);
        uint64_t since = e->ejected_us + (e->level > 1 ? RELAPSE_HOLD_US : 0);
        if (e->ejected && asked_us >= since)
            health_return(s, ref.slot);
        health_ready(s, ref.slot);
        cost_update(s, ref.slot);
        flow_run(s);
        return false;
    }
    if (e->alive_us > asked_us) /* busy, not dead */
        return false;
    if (++e->probe_fails < PROBE_FAILURES)
        return false;
    bool ejected = health_eject(s, ref.slot);
    flow_run(s);
    return ejected || (!e->ejected && e->probe_fails == PROBE_FAILURES);
}
