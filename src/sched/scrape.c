/* scrape.c - the scraping thread: it alone asks endpoints how they are, and ticks the schedulers.
 *
 * A pool's endpoint: a look (sched/look.h) every scrape_interval_us, a fifth of that (at least 50 ms) while traffic of
 * others is seen there, a quarter while requests wait in the pool's queue, and every probe_ejected_us while it is new
 * or ejected. A Service's endpoint is judged by its traffic alone; an ejected one is tried by a TCP connect, unless it
 * had accepted and then hung. */
#include "sched/impl.h"

#include "base/rng.h"
#include "sched/look.h"

#include <stdlib.h>

#define TICK_US              100000
#define TICK_MIN_US          1000
#define TICK_WAITED_US       10000   /* while requests wait: a newcomer's time to live may end before all others */
#define WAITED_KEEP_US       1000000 /* a queue that comes and goes counts as one */
#define MODELS_INTERVAL_US   30000000
#define MIN_INTERVAL_US      50000
#define MODELS_STALE_WAIT_US 100000 /* between a 404 for a model and the new reading: several 404s make one */

struct scrape {
    struct ports *ps;
    struct loop *loop;
    pthread_t thread;
    struct timer tick;
    struct mail rush;
    atomic_bool rush_posted;
    uint64_t tick_us;   /* of the tick under way: when the next one is due */
    uint64_t ticked_us; /* when the newest was */
    bool forming;       /* some queue has formed in it */
    struct list scrapers;
    struct rng rng;
};

struct scraper {
    struct scrape *s;
    struct ep *ep;
    struct list link;
    struct timer timer, models_timer;
    struct look *look; /* pools */
    struct models_read *models;
    struct conn *knock; /* Services: TCP probe under way */
    uint64_t asked_us;  /* of the knock */
};

enum cmd_what { CMD_ADD, CMD_REMOVE, CMD_MODELS, CMD_STOP };
struct cmd {
    struct mail mail;
    struct scrape *s;
    struct ep *ep;
    enum cmd_what what;
};

static void schedule(struct scraper *sc, uint64_t delay_us)
{
    timer_set(sc->s->loop, &sc->timer, loop_now_us(sc->s->loop) + delay_us);
}

struct pace { /* what decides how soon the endpoint is asked again */
    bool suspect, others, waited_for;
};

static bool waited_for(const struct port *p, uint64_t now_us)
{
    return p->waited_us && now_us < p->waited_us + WAITED_KEEP_US;
}

static struct pace endpoint_pace(struct ep *e)
{
    struct port *p = e->pub.port;
    struct ep_view v;
    struct pace pace = {0};
    pthread_mutex_lock(&p->lock);
    if (sched_ep_view(port_sched(p, e->pub.role), e->pub.ref.slot, port_now_us(p), &v)) {
        pace.suspect = !v.ready || v.ejected;
        pace.others = v.others_waiting + v.others_running > 0.5;
        pace.waited_for = waited_for(p, port_now_us(p));
    }
    pthread_mutex_unlock(&p->lock);
    return pace;
}

static uint64_t spread(struct scraper *sc, uint64_t interval_us) /* not all at once */
{
    return interval_us - interval_us / 20 + rng_below(&sc->s->rng, interval_us / 10 + 1);
}

static uint64_t waited_interval_us(const struct ports_opts *o)
{
    return MIN(o->scrape_interval_us, MAX((uint64_t)MIN_INTERVAL_US, o->scrape_interval_us / 4));
}

static uint64_t next_interval_us(struct scraper *sc, bool failed)
{
    const struct ports_opts *o = &sc->s->ps->o;
    struct pace pace = endpoint_pace(sc->ep);
    if (pace.suspect || failed)
        return MIN(o->probe_ejected_us, o->scrape_interval_us);
    uint64_t interval_us = pace.waited_for ? waited_interval_us(o) : o->scrape_interval_us;
    if (pace.others)
        interval_us = MIN(interval_us, MAX((uint64_t)MIN_INTERVAL_US, o->scrape_interval_us / 5));
    return spread(sc, interval_us);
}

/* --- pools: how is the endpoint? ------------------------------------------------------------------------------- */

static void ask_models(struct scraper *sc, uint64_t delay_us)
{
    timer_set(sc->s->loop, &sc->models_timer, loop_now_us(sc->s->loop) + delay_us);
}

static void on_look(void *ctx, const struct look_result *r)
{
    struct scraper *sc = ctx;
    struct port *p = sc->ep->pub.port;
    bool was_suspect = endpoint_pace(sc->ep).suspect;
    if (r->alive)
        port_probe_ok(p, sc->ep, r->load, r->asked_us);
    else
        port_probe_failed(p, sc->ep, r->asked_us);
    if (r->alive && was_suspect) /* new, or back and perhaps another program: what does it serve? */
        ask_models(sc, 0);
    schedule(sc, next_interval_us(sc, !r->alive));
}

/* --- Services: a knock at the door --------------------------------------------------------------------------- */

static void end_knock(struct scraper *sc, bool ok)
{
    if (sc->knock)
        conn_close(sc->knock);
    sc->knock = NULL;
    if (ok)
        port_probe_ok(sc->ep->pub.port, sc->ep, NULL, sc->asked_us);
    schedule(sc, sc->s->ps->o.probe_ejected_us);
}

static void knock_connected(struct conn *c, int err)
{
    end_knock(conn_ctx(c), err == 0);
}

static void knock_data(struct conn *c, struct str data)
{
    (void)c;
    (void)data;
}

static void knock_eof(struct conn *c)
{
    (void)c;
}

static void knock_error(struct conn *c, int err)
{
    (void)err;
    end_knock(conn_ctx(c), false);
}

static const struct conn_ops knock_ops = {knock_connected, knock_data, knock_eof, knock_eof, knock_error, NULL};

static void service_due(struct scraper *sc)
{
    if (sc->knock) { /* the connect took longer than a probe may */
        conn_abort(sc->knock);
        sc->knock = NULL;
    }
    bool hung = atomic_load_explicit(&sc->ep->last_failure, memory_order_relaxed) == OUT_TIMEOUT;
    if (endpoint_pace(sc->ep).suspect && !hung) {
        sc->asked_us = loop_clock_us(sc->s->loop);
        sc->knock = conn_connect(sc->s->loop, &sc->ep->pub.addr, &knock_ops, sc);
        schedule(sc, sc->s->ps->o.scrape_timeout_us);
        return;
    }
    schedule(sc, sc->s->ps->o.probe_ejected_us);
}

/* --- models -------------------------------------------------------------------------------------------------- */

static void on_models(void *ctx, bool ok)
{
    (void)ok;
    struct scraper *sc = ctx;
    models_read_free(sc->models);
    sc->models = NULL;
    if (!timer_armed(&sc->models_timer))
        ask_models(sc, MODELS_INTERVAL_US);
}

static void models_due(struct timer *t)
{
    struct scraper *sc = CONTAINER_OF(t, struct scraper, models_timer);
    atomic_store(&sc->ep->models_asked, false);
    if (sc->models) { /* the answer under way may be older than the question */
        ask_models(sc, MODELS_STALE_WAIT_US);
        return;
    }
    sc->models = models_read_start(sc->s->loop, sc->ep, 2 * sc->s->ps->o.scrape_timeout_us, on_models, sc);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static void on_due(struct timer *t)
{
    struct scraper *sc = CONTAINER_OF(t, struct scraper, timer);
    if (sc->look)
        look_start(sc->look, endpoint_pace(sc->ep).suspect);
    else
        service_due(sc);
}

static void add_endpoint(struct scrape *s, struct ep *e)
{
    struct scraper *sc = xcalloc(1, sizeof *sc);
    sc->s = s;
    sc->ep = e;
    sc->timer.fn = on_due;
    sc->models_timer.fn = models_due;
    e->scraper = sc;
    list_push_back(&s->scrapers, &sc->link);
    if (e->pub.port->pool)
        sc->look = look_new(s->loop, e, s->ps->o.scrape_timeout_us, on_look, sc);
    on_due(&sc->timer);
}

static void drop_scraper(struct scraper *sc)
{
    timer_stop(sc->s->loop, &sc->timer);
    timer_stop(sc->s->loop, &sc->models_timer);
    look_free(sc->look);
    if (sc->models)
        models_read_free(sc->models);
    if (sc->knock)
        conn_abort(sc->knock);
    list_remove(&sc->link);
    sc->ep->scraper = NULL;
    endpoint_unref(&sc->ep->pub);
    free(sc);
}

static void run_cmd(struct mail *m)
{
    struct cmd *c = CONTAINER_OF(m, struct cmd, mail);
    struct scraper *sc = c->ep ? c->ep->scraper : NULL;
    if (c->what == CMD_STOP)
        loop_stop(c->s->loop);
    else if (c->what == CMD_ADD)
        add_endpoint(c->s, c->ep); /* its reference moves to the scraper */
    else if (c->what == CMD_REMOVE && sc)
        drop_scraper(sc);
    else if (c->what == CMD_MODELS && sc)
        ask_models(sc, MODELS_STALE_WAIT_US);
    if (c->what == CMD_REMOVE || c->what == CMD_MODELS)
        endpoint_unref(&c->ep->pub);
    free(c);
}

static void post_cmd(struct scrape *s, enum cmd_what what, struct ep *e)
{
    struct cmd *c = xcalloc(1, sizeof *c);
    c->mail.run = run_cmd;
    c->s = s;
    c->what = what;
    c->ep = e;
    if (e)
        endpoint_ref(&e->pub);
    loop_post(s->loop, &c->mail);
}

void scrape_add(struct scrape *s, struct ep *e)
{
    post_cmd(s, CMD_ADD, e);
}

void scrape_remove(struct scrape *s, struct ep *e)
{
    post_cmd(s, CMD_REMOVE, e);
}

void scrape_ask_models(struct scrape *s, struct ep *e)
{
    post_cmd(s, CMD_MODELS, e);
}

/* --- the tick ------------------------------------------------------------------------------------------------ */

static void tick_port(void *ctx, struct port *p)
{
    struct scrape *s = ctx;
    uint64_t now_us = port_now_us(p);
    bool waits;
    uint64_t next_us = port_tick(p, now_us, &waits);
    if (waits) {
        next_us = MIN(next_us, now_us + TICK_WAITED_US);
        p->forming = !waited_for(p, now_us);
        s->forming |= p->forming;
        p->waited_us = now_us;
    }
    s->tick_us = MIN(s->tick_us, next_us);
}

/* A queue has formed: how its endpoints are is worth more than a moment ago. */
static void look_sooner(struct scrape *s)
{
    uint64_t now_us = loop_now_us(s->loop), interval_us = waited_interval_us(&s->ps->o);
    LIST_EACH (it, &s->scrapers) {
        struct scraper *sc = CONTAINER_OF(it, struct scraper, link);
        uint64_t at_us = now_us + spread(sc, interval_us);
        if (sc->ep->pub.port->forming && timer_armed(&sc->timer) && sc->timer.node.key > at_us)
            timer_set(s->loop, &sc->timer, at_us);
    }
    LIST_EACH (it, &s->scrapers)
        CONTAINER_OF(it, struct scraper, link)->ep->pub.port->forming = false;
}

static void on_tick(struct timer *t)
{
    struct scrape *s = CONTAINER_OF(t, struct scrape, tick);
    uint64_t now_us = loop_now_us(s->loop);
    s->tick_us = now_us + TICK_US;
    s->ticked_us = now_us;
    s->forming = false;
    ports_each(s->ps, tick_port, s);
    if (s->forming)
        look_sooner(s);
    ports_bury(s->ps);
    timer_set(s->loop, t, MAX(s->tick_us, now_us + TICK_MIN_US));
}

static void run_rush(struct mail *m)
{
    struct scrape *s = CONTAINER_OF(m, struct scrape, rush);
    atomic_store(&s->rush_posted, false);
    uint64_t now_us = loop_now_us(s->loop), at_us = s->ticked_us + TICK_WAITED_US;
    if (at_us <= now_us)
        on_tick(&s->tick);
    else if (at_us < s->tick.node.key) /* a queue that comes and goes all the time has no tick for each */
        timer_set(s->loop, &s->tick, at_us);
}

void scrape_rush(struct scrape *s)
{
    if (!atomic_exchange(&s->rush_posted, true))
        loop_post(s->loop, &s->rush);
}

struct scrape *scrape_start(struct ports *ps)
{
    struct scrape *s = xcalloc(1, sizeof *s);
    s->ps = ps;
    s->loop = loop_new(ps->o.time_scale);
    rng_init(&s->rng, ps->o.seed);
    s->tick.fn = on_tick;
    s->rush.run = run_rush;
    list_init(&s->scrapers);
    timer_set(s->loop, &s->tick, loop_now_us(s->loop) + TICK_US);
    CHECK(loop_start(s->loop, &s->thread) == 0);
    return s;
}

void scrape_stop(struct scrape *s)
{
    post_cmd(s, CMD_STOP, NULL); /* mails run in order: everything posted before is done by then */
    pthread_join(s->thread, NULL);
    LIST_EACH_SAFE (it, next, &s->scrapers)
        drop_scraper(CONTAINER_OF(it, struct scraper, link));
    loop_free(s->loop);
    free(s);
}
