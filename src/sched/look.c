/* look.c - one look at an endpoint:
 *
 *   page at a place --shows a load--> at the API port, or nothing to doubt ----------------> alive, load
 *        |      \                                      \--> health of the API port --------> alive, load | dead
 *        |       \--the API port does not answer, or with 5xx -----------------------------> dead
 *        \--nothing--> next place ... no more: the API port has answered on the way? ------> alive, load unknown
 *                                                             \--> health of the API port -> alive, load unknown | dead
 */
#include "sched/look.h"

#include "base/log.h"
#include "net/httpc.h"

#include <stdlib.h>

#define SEARCH_US     30000000 /* between two rounds over all places that found nothing */
#define API_US        5000000  /* between two looks at the API port beside a metrics port that answers */
#define STILL_US      3000000  /* a Triton refreshes its page every two seconds */
#define EMPTY_TELL_US 10000000 /* some servers show their series only once they have served */
#define PAGE_MAX      (16u << 20)

struct look {
    struct loop *loop;
    struct ep *ep;
    uint64_t timeout_us;
    void (*done)(void *ctx, const struct look_result *r);
    void *ctx;
    struct httpc *client; /* its connection goes to `at` */
    struct addr at;
    struct source_rules *rules;
    struct prom *prom; /* while a page is read */
    size_t page_n;     /* bytes of it */
    bool busy, suspect;
    bool found;         /* the place has shown a load, last time it was asked */
    bool empty;         /* no place has, but this one has a page */
    bool only;          /* no other place is asked in this look */
    unsigned place;     /* of the rules */
    bool slash;         /* its path is asked for with a slash at the end: without, it redirects */
    uint64_t search_us; /* not before that all places again */
    uint64_t api_us;    /* when the API port was last found well */
    uint64_t asked_us;  /* the newest question of this look */
    bool api_answered;  /* in this look */
    bool has_load;      /* in this look */
    struct ep_load load;
    double iterations;    /* as the page said last */
    uint64_t moved_us;    /* when it said something else for the last time */
    bool told;            /* that nothing is shown */
    bool foreign;         /* this look has seen series of another runtime */
    unsigned best_status; /* of the pages of this look: the one that says most */
    unsigned best_place;
    uint64_t empty_us; /* since when pages are there, but empty; 0: they are not */
};

static struct port *port_of(const struct look *k)
{
    return k->ep->pub.port;
}

/* --- what a person is told ------------------------------------------------------------------------------------ */

static bool begin_line(const struct look *k, struct logline *l, const char *msg)
{
    if (!log_begin(l, LOG_WARN, msg))
        return false;
    log_cstr(l, "pool", port_name(port_of(k)));
    log_cstr(l, "namespace", port_ns(port_of(k)));
    log_cstr(l, "pod", k->ep->pub.name);
    return true;
}

static enum prom_dialect shown_dialect(unsigned shown)
{
    return shown & BIT(PROM_SGLANG) ? PROM_SGLANG : shown & BIT(PROM_TRTLLM) ? PROM_TRTLLM : PROM_VLLM;
}

static void log_runtime(struct logline *l, enum prom_dialect d)
{
    log_cstr(l, "runtime", prom_dialect_name(d));
    log_cstr(l, "annotation", "inference.networking.x-k8s.io/model-server-runtime");
}

static void tell_guess(const struct look *k, enum prom_dialect d)
{
    struct logline l;
    if (!source_tell(port_of(k)->source, TOLD_GUESS) ||
        !begin_line(k, &l,
                    "The pool does not say which runtime its servers are; their metrics are read as those of the "
                    "runtime they look like. Set the annotation on the pool."))
        return;
    log_runtime(&l, d);
    log_end(&l);
}

static void tell_mismatch(const struct look *k, enum prom_dialect d)
{
    struct logline l;
    if (!source_tell(port_of(k)->source, TOLD_MISMATCH) ||
        !begin_line(k, &l,
                    "None of the metrics that the pool's runtime has are on the server's page, but those of another "
                    "one: its load is not known. Set the annotation on the pool."))
        return;
    log_cstr(&l, "expected", prom_dialect_name(k->rules->spec.dialect));
    log_runtime(&l, d);
    log_end(&l);
}

static void tell_shown(struct look *k, const struct prom *p)
{
    enum prom_dialect d = shown_dialect(p->shown);
    if (!p->shown)
        return;
    if (!k->rules->given && d != PROM_VLLM)
        tell_guess(k, d);
    if (!k->rules->given || (p->shown & BIT(k->rules->spec.dialect)))
        return;
    k->foreign = true;
    tell_mismatch(k, d);
}

/* Every place was looked at. */
static void tell_nothing(struct look *k)
{
    struct logline l;
    uint64_t now_us = loop_now_us(k->loop);
    if (k->best_status != 200)
        k->empty_us = 0;
    else if (!k->empty_us)
        k->empty_us = now_us;
    bool soon = k->best_status == 200 && now_us < k->empty_us + EMPTY_TELL_US;
    if (k->told || soon || k->foreign || !k->best_status)
        return;
    k->told = true;
    const char *msg = k->best_status == 200
                          ? "The server's metrics page has none of the series looked for: its load is not known."
                          : "The server has no metrics page: its load is not known. SGLang needs --enable-metrics.";
    if (!begin_line(k, &l, msg))
        return;
    log_str(&l, "path", k->rules->place[k->best_place].path);
    log_u64(&l, "status", k->best_status);
    log_end(&l);
}

/* --- asking ---------------------------------------------------------------------------------------------------- */

static struct addr place_addr(const struct look *k, unsigned i)
{
    struct addr at = k->ep->pub.metrics_addr;
    if (k->rules->place[i].port &&
        addr_eq(&at, &k->ep->pub.addr)) /* a port given for the endpoint is where its metrics are */
        addr_set_port(&at, k->rules->place[i].port);
    return at;
}

static bool at_api(const struct look *k)
{
    return addr_eq(&k->at, &k->ep->pub.addr);
}

static void ask(struct look *k, const struct addr *at, struct httpc_call *call)
{
    if (k->client && !addr_eq(&k->at, at)) {
        httpc_free(k->client);
        k->client = NULL;
    }
    k->at = *at;
    if (!k->client)
        k->client = httpc_new(k->loop, at);
    k->asked_us = loop_clock_us(k->loop);
    call->method = STR("GET");
    call->timeout_us = k->timeout_us;
    call->ctx = k;
    CHECK(httpc_start(k->client, call));
}

static void finish(struct look *k, bool alive)
{
    struct look_result r = {alive, alive && k->has_load ? &k->load : NULL, k->asked_us};
    if (!alive)
        k->search_us = 0; /* another program may come up there */
    k->busy = false;
    k->done(k->ctx, &r);
}

/* --- the API port ---------------------------------------------------------------------------------------------- */

/* Triton says 400 while it is not ready. */
static void on_health(void *ctx, unsigned status, const char *err)
{
    (void)err;
    struct look *k = ctx;
    bool triton = str_eq(k->rules->health, STR(SOURCE_TRITON_HEALTH));
    bool alive = status && status < 500 && !(triton && status == 400);
    if (alive)
        k->api_us = loop_now_us(k->loop);
    finish(k, alive);
}

static void ask_health(struct look *k)
{
    struct httpc_call call = {.target = k->rules->health, .on_done = on_health};
    ask(k, &k->ep->pub.addr, &call);
}

/* --- pages ----------------------------------------------------------------------------------------------------- */

static void ask_page(struct look *k);

static bool on_page(void *ctx, struct str piece)
{
    struct look *k = ctx;
    (void)prom_feed(k->prom, piece); /* what comes behind an early stop is read too: for the connection */
    k->page_n += piece.n;
    return k->page_n <= PAGE_MAX;
}

static bool shows_load(const struct prom *p)
{
    const struct ep_load *l = &p->load;
    return l->has_waiting || l->has_running || l->has_kv || l->has_blocks || l->max_lora;
}

static void on_load(struct look *k)
{
    uint64_t now_us = loop_now_us(k->loop);
    k->found = true;
    k->empty_us = 0;
    if (!at_api(k) && (k->suspect || now_us >= k->api_us + API_US))
        ask_health(k);
    else
        finish(k, true);
}

/* The place asked shows nothing. */
static void next_place(struct look *k)
{
    k->place = k->found && k->place ? 0 : k->place + 1;
    k->found = k->slash = false;
    if (!k->only && k->place < k->rules->n_places) {
        ask_page(k);
        return;
    }
    k->place = k->best_place;
    k->empty = k->best_status == 200;
    if (!k->only)
        k->search_us = loop_now_us(k->loop) + SEARCH_US;
    tell_nothing(k);
    if (k->api_answered)
        finish(k, true);
    else
        ask_health(k);
}

static void note_status(struct look *k, unsigned status)
{
    bool more = status == 200 ? k->best_status != 200 : status && !k->best_status;
    if (!more)
        return;
    k->best_status = status;
    k->best_place = k->place;
}

/* The counts of a server that computes nothing are those of its last step, however long ago: not known. */
static void drop_old_counts(struct look *k, const struct prom *p)
{
    uint64_t now_us = loop_now_us(k->loop);
    if (p->iterations <= 0 || p->iterations != k->iterations)
        k->moved_us = now_us;
    k->iterations = p->iterations;
    if (now_us < k->moved_us + STILL_US || k->load.waiting + k->load.running <= 0)
        return;
    k->load.has_waiting = k->load.has_running = false;
    k->load.waiting = k->load.running = 0;
}

/* Whether it is a page of what was looked for; the load on it is taken. */
static bool take_page(struct look *k, const struct prom *p, unsigned status)
{
    bool idle = p->json && !shows_load(p) && prom_wants(p, PROM_TRTLLM) && (p->shown & BIT(PROM_TRTLLM));
    bool good = status == 200 && k->page_n <= PAGE_MAX && (shows_load(p) || idle);
    if (good && !idle) {
        k->load = p->load;
        k->load.sent_us = k->asked_us;
        k->load.done_us = loop_clock_us(k->loop);
        k->has_load = true;
        drop_old_counts(k, p);
    }
    if (!good && !k->rules->given && k->rules->place[k->place].triton)
        return false; /* another server's, perhaps */
    if (status == 200)
        tell_shown(k, p);
    note_status(k, status);
    return good;
}

static void on_answer(void *ctx, unsigned status, const char *err)
{
    (void)err;
    struct look *k = ctx;
    struct prom *p = k->prom;
    k->prom = NULL;
    prom_end(p);
    bool good = take_page(k, p, status);
    free(p);
    if (good) {
        on_load(k);
    } else if (at_api(k) && (status == 0 || status >= 500)) {
        finish(k, false);
    } else if (status / 100 == 3 && !k->slash) { /* Python servers, where the page is an application of its own */
        k->slash = true;
        ask_page(k);
    } else {
        k->api_answered |= at_api(k);
        next_place(k);
    }
}

static void ask_page(struct look *k)
{
    struct addr at = place_addr(k, k->place);
    struct str path = k->rules->place[k->place].path;
    char text[1024];
    if (k->slash && path.n < sizeof text) {
        memcpy(text, path.p, path.n);
        text[path.n] = '/';
        path = (struct str){text, path.n + 1};
    }
    struct httpc_call call = {.target = path, .on_body = on_page, .on_done = on_answer};
    k->page_n = 0;
    struct prom_spec spec = k->rules->spec;
    if (k->rules->place[k->place].triton) {
        spec.dialect = PROM_TRTLLM;
        spec.detect = false;
    }
    k->prom = xmalloc(sizeof *k->prom);
    prom_init(k->prom, &spec);
    ask(k, &at, &call);
}

/* --- life ------------------------------------------------------------------------------------------------------ */

static void follow_rules(struct look *k)
{
    struct source_rules *r = source_get(port_of(k)->source);
    if (r != k->rules) {
        k->found = k->empty = k->told = k->slash = false;
        k->place = 0;
        k->search_us = k->empty_us = 0;
    }
    source_unref(k->rules);
    k->rules = r;
}

void look_start(struct look *k, bool suspect)
{
    if (k->busy)
        return;
    follow_rules(k);
    k->busy = true;
    k->suspect = suspect;
    k->api_answered = k->has_load = k->foreign = false;
    k->best_status = k->best_place = 0;
    k->only = !k->found && k->rules->n_places > 1 && loop_now_us(k->loop) < k->search_us;
    if (!k->found && !k->only)
        k->place = 0;
    if (k->only && !k->empty)
        ask_health(k);
    else
        ask_page(k);
}

struct look *look_new(struct loop *l, struct ep *e, uint64_t timeout_us,
                      void (*done)(void *ctx, const struct look_result *r), void *ctx)
{
    struct look *k = xcalloc(1, sizeof *k);
    k->loop = l;
    k->ep = e;
    k->timeout_us = timeout_us;
    k->done = done;
    k->ctx = ctx;
    return k;
}

void look_free(struct look *k)
{
    if (!k)
        return;
    httpc_free(k->client);
    source_unref(k->rules);
    free(k->prom);
    free(k);
}
