/* Plays the verbs of a record and compares the decisions. */
#include "replay/decisions.h"

#include "base/map.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum stage { STAGE_IDLE, STAGE_QUEUED, STAGE_FLYING };
struct request {
    struct sched_req core;
    struct prefix_hashes hashes;
    uint64_t *h;
    enum stage stage;
};
struct pool {
    struct sched *s; /* NULL: no longer followed */
    struct map requests;
};
struct check {
    struct decisions_result *out;
    struct pool *pools;
    struct journal_reader reader;
    struct journal j;
    struct errbuf *err;
};

/* ---- requests ---- */

static struct str key_of(const uint64_t *no)
{
    return (struct str){(const char *)no, sizeof *no};
}

static void request_free(struct request *q)
{
    free(q->h);
    free(q);
}

static void drop_hashes(struct request *q)
{
    free(q->h);
    q->h = NULL;
    q->core.hashes = NULL;
}

static void forget(struct pool *p, uint64_t no)
{
    struct request *q = map_del(&p->requests, key_of(&no));
    if (q)
        request_free(q);
}

/* ---- the end of a pool ---- */

static void stop(struct check *c, enum decisions_end end, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The requests go first: the scheduler must not be freed with any in flight, and then looks at none of them. */
static void leave_pool(struct pool *p)
{
    MAP_EACH (slot, &p->requests) {
        struct request *q = slot->val;
        sched_cancel(p->s, &q->core, 0); /* if it waits */
    }
    while (sched_next_decided(p->s))
        ;
    MAP_EACH (slot, &p->requests)
        request_free(slot->val);
    map_free(&p->requests);
    sched_free(p->s);
    p->s = NULL;
}

static void stop(struct check *c, enum decisions_end end, const char *fmt, ...)
{
    struct decisions_pool *r = &c->out->pools[c->j.pool];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, ap);
    va_end(ap);
    r->end = end;
    r->line = c->out->lines;
    leave_pool(&c->pools[c->j.pool]);
}

static int damaged(struct check *c, const char *what)
{
    return err_set(c->err, "Line %llu of the record is wrong: %s.", (unsigned long long)c->out->lines, what);
}

/* ---- decisions ---- */

static bool same_ref(struct ep_ref a, struct ep_ref b)
{
    return a.slot == b.slot && a.gen == b.gen;
}

static bool same(const struct journal_answer *a, const struct journal_answer *b)
{
    return a->reject == b->reject && a->reason == b->reason && a->matched_bytes == b->matched_bytes &&
           a->queued_us == b->queued_us && same_ref(a->ep, b->ep);
}

static const char *answer_text(char *out, size_t cap, enum sched_answer a, const struct journal_answer *d)
{
    if (a == SCHED_QUEUED)
        snprintf(out, cap, "queued");
    else if (d->reject != REJECT_NONE)
        snprintf(out, cap, "rejected (%s)", sched_reject_name(d->reject));
    else
        snprintf(out, cap, "endpoint %u.%u (%s, %llu bytes matched, %llu us queued)", d->ep.slot, d->ep.gen,
                 sched_reason_name(d->reason), (unsigned long long)d->matched_bytes, (unsigned long long)d->queued_us);
    return out;
}

static void compare(struct check *c, struct request *q, enum sched_answer got_answer, enum sched_answer was_answer,
                    const struct journal_answer *was)
{
    struct journal_answer got = {0};
    char a[160], b[160];
    if (got_answer != SCHED_QUEUED)
        journal_answer_of(&got, &q->core.d);
    if (got_answer != was_answer || !same(&got, was)) {
        stop(c, DECISIONS_DIFFER, "Request %llu: recorded %s, replayed %s.", (unsigned long long)c->j.req,
             answer_text(a, sizeof a, was_answer, was), answer_text(b, sizeof b, got_answer, &got));
        return;
    }
    q->stage = got_answer == SCHED_PICKED ? STAGE_FLYING : got_answer == SCHED_QUEUED ? STAGE_QUEUED : STAGE_IDLE;
    if (got_answer == SCHED_QUEUED)
        return;
    if (got_answer == SCHED_REJECTED)
        drop_hashes(q);
    c->out->pools[c->j.pool].equal++;
    c->out->equal++;
}

/* ---- verbs ---- */

static struct request *request_of(struct check *c, struct pool *p)
{
    struct request *q = map_get(&p->requests, key_of(&c->j.req));
    if (q)
        return q;
    q = xcalloc(1, sizeof *q);
    map_put(&p->requests, key_of(&c->j.req), q);
    if (c->j.u.submit.again) /* its first attempt was made elsewhere */
        q->core.q.seq = c->j.req;
    return q;
}

static int play_submit(struct check *c, struct pool *p)
{
    const struct journal_submit *s = &c->j.u.submit;
    if (!c->j.req)
        return damaged(c, "a request without its number");
    struct request *q = request_of(c, p);
    if (q->stage != STAGE_IDLE)
        return damaged(c, "the request is under way already");
    q->h = xrealloc(q->h, MAX(s->hashes.n, 1u) * sizeof *q->h);
    journal_fill(&q->core, s, &q->hashes, q->h);
    enum sched_answer a = sched_submit(p->s, &q->core, c->j.now_us);
    if (q->core.q.seq != c->j.req)
        stop(c, DECISIONS_DIFFER, "The request has number %llu in the record, and %llu in the replay.",
             (unsigned long long)c->j.req, (unsigned long long)q->core.q.seq);
    else
        compare(c, q, a, s->answer, &s->decided);
    return 0;
}

static int play_decided(struct check *c, struct pool *p)
{
    struct sched_req *r = sched_next_decided(p->s);
    if (!r || r->q.seq != c->j.req) {
        stop(c, DECISIONS_DIFFER, "Request %llu was decided here, and in the replay %s.", (unsigned long long)c->j.req,
             r ? "another one" : "none");
        return 0;
    }
    struct request *q = CONTAINER_OF(r, struct request, core);
    enum sched_answer got = r->d.reject == REJECT_NONE ? SCHED_PICKED : SCHED_REJECTED;
    enum sched_answer was = c->j.u.decided.reject == REJECT_NONE ? SCHED_PICKED : SCHED_REJECTED;
    compare(c, q, got, was, &c->j.u.decided);
    return 0;
}

static void play_finish(struct check *c, struct pool *p, struct request *q)
{
    struct sched_usage u = c->j.u.finish.usage;
    sched_finish(p->s, &q->core, c->j.u.finish.how, c->j.u.finish.has_usage ? &u : NULL, c->j.now_us);
    q->stage = STAGE_IDLE;
    drop_hashes(q);
    if (c->j.u.finish.how == OUT_OK)
        forget(p, c->j.req);
}

/* cancel, first_token, finish */
static int play_report(struct check *c, struct pool *p)
{
    struct request *q = map_get(&p->requests, key_of(&c->j.req));
    enum stage needed = c->j.type == JOURNAL_CANCEL ? STAGE_QUEUED : STAGE_FLYING;
    if (!q || q->stage != needed)
        return damaged(c, needed == STAGE_QUEUED ? "the request does not wait" : "the request is not under way");
    if (c->j.type == JOURNAL_CANCEL) {
        sched_cancel(p->s, &q->core, c->j.now_us);
        q->stage = STAGE_IDLE;
        forget(p, c->j.req);
    } else if (c->j.type == JOURNAL_FIRST_TOKEN) {
        sched_first_token(p->s, &q->core, c->j.now_us);
    } else {
        play_finish(c, p, q);
    }
    return 0;
}

static void play_add(struct check *c, struct pool *p)
{
    struct ep_ref ref = sched_ep_add(p->s, p, c->j.u.add.wait_probe, c->j.now_us);
    if (!same_ref(ref, c->j.ep))
        stop(c, DECISIONS_DIFFER, "The new endpoint is %u.%u in the record, and %u.%u in the replay.", c->j.ep.slot,
             c->j.ep.gen, ref.slot, ref.gen);
}

static void play_endpoint(struct check *c, struct pool *p)
{
    const struct journal *j = &c->j;
    switch (j->type) {
    case JOURNAL_EP_ADD:
        play_add(c, p);
        break;
    case JOURNAL_EP_REMOVE:
        sched_ep_remove(p->s, j->ep, j->now_us);
        break;
    case JOURNAL_EP_DRAIN:
        sched_ep_drain(p->s, j->ep, j->u.drain.on, j->now_us);
        break;
    case JOURNAL_EP_LOAD:
        sched_ep_load(p->s, j->ep, &j->u.load, j->now_us);
        break;
    case JOURNAL_EP_MODELS:
        sched_ep_models(p->s, j->ep, j->u.models.v, j->u.models.n, j->now_us);
        break;
    case JOURNAL_EP_PROBE:
        sched_ep_probe(p->s, j->ep, j->u.probe.ok, j->u.probe.asked_us, j->now_us);
        break;
    default:
        sched_ep_alive(p->s, j->ep, j->now_us);
    }
}

static int play(struct check *c, struct pool *p)
{
    switch (c->j.type) {
    case JOURNAL_SUBMIT:
        return play_submit(c, p);
    case JOURNAL_CANCEL:
    case JOURNAL_FIRST_TOKEN:
    case JOURNAL_FINISH:
        return play_report(c, p);
    case JOURNAL_PARAMS:
        sched_set_params(p->s, &c->j.u.params, c->j.now_us);
        return 0;
    case JOURNAL_TICK:
        sched_tick(p->s, c->j.now_us);
        return 0;
    default:
        play_endpoint(c, p);
        return 0;
    }
}

/* ---- lines ---- */

static void new_pool(struct check *c, const char *name)
{
    struct decisions_result *out = c->out;
    uint32_t i = out->n_pools++;
    out->pools = xrealloc(out->pools, out->n_pools * sizeof *out->pools);
    c->pools = xrealloc(c->pools, out->n_pools * sizeof *c->pools);
    out->pools[i] = (struct decisions_pool){0};
    snprintf(out->pools[i].name, sizeof out->pools[i].name, "%s", name);
    c->pools[i] = (struct pool){0};
    map_init(&c->pools[i].requests, i);
}

static int on_pool(struct check *c)
{
    char name[JOURNAL_NAME + 1];
    if (c->j.pool != c->out->n_pools)
        return damaged(c, "the pools are not numbered from 0 in their order");
    snprintf(name, sizeof name, STR_FMT, STR_ARG(c->j.u.pool_new.name));
    new_pool(c, name);
    c->pools[c->j.pool].s = sched_new(&c->j.u.pool_new.params, c->j.u.pool_new.seed);
    return 0;
}

static int on_gap(struct check *c)
{
    if (c->j.pool == c->out->n_pools) /* the line that says what it is is among those missing */
        new_pool(c, "(not recorded)");
    else if (!c->pools[c->j.pool].s)
        return 0;
    if (!c->pools[c->j.pool].s) {
        struct sched_params p;
        sched_params_init(&p);
        c->pools[c->j.pool].s = sched_new(&p, 0);
    }
    stop(c, DECISIONS_GAP,
         "%llu lines are missing here: the recorder could not keep up. What came after depends on them and cannot be "
         "compared.",
         (unsigned long long)c->j.u.gap.lines);
    return 0;
}

static int on_verb(struct check *c)
{
    struct pool *p = &c->pools[c->j.pool];
    if (!p->s)
        return 0;
    c->out->pools[c->j.pool].verbs++;
    if (c->j.type == JOURNAL_DECIDED)
        return play_decided(c, p);
    struct sched_req *early = sched_next_decided(p->s);
    if (!early)
        return play(c, p);
    stop(c, DECISIONS_DIFFER, "Before this, request %llu was decided in the replay, and not in the record.",
         (unsigned long long)early->q.seq);
    return 0;
}

static int on_line(struct check *c, struct str line)
{
    struct errbuf why;
    if (journal_read(&c->reader, line, &c->j, &why))
        return err_set(c->err, "Line %llu of the record cannot be read. %s", (unsigned long long)c->out->lines,
                       why.msg);
    if ((c->out->lines == 1) != (c->j.type == JOURNAL_HEAD))
        return damaged(c, c->out->lines == 1 ? "a record begins with {\"penstock\":\"record\"" : "a second head");
    if (c->j.type == JOURNAL_HEAD) {
        snprintf(c->out->program, sizeof c->out->program, STR_FMT, STR_ARG(c->j.u.head.program));
        return 0;
    }
    if (c->j.pool >= JOURNAL_MAX_POOLS)
        return damaged(c, "too many pools");
    if (c->j.type == JOURNAL_POOL)
        return on_pool(c);
    if (c->j.pool >= c->out->n_pools + (c->j.type == JOURNAL_GAP))
        return damaged(c, "a pool that was not named before");
    return c->j.type == JOURNAL_GAP ? on_gap(c) : on_verb(c);
}

/* What the replay decided after the last line of a pool and the record does not have: the end was cut off, or it
 * differs. */
static void finish_pool(struct check *c, uint32_t i)
{
    if (!c->pools[i].s)
        return;
    c->j.pool = i;
    struct sched_req *more = sched_next_decided(c->pools[i].s);
    if (more && !c->out->cut)
        stop(c, DECISIONS_DIFFER, "At the end, request %llu was decided in the replay, and not in the record.",
             (unsigned long long)more->q.seq);
    else
        leave_pool(&c->pools[i]);
}

int decisions_check(struct str text, struct decisions_result *out, struct errbuf *err)
{
    struct check c = {.out = out, .err = err};
    int rc = 0;
    *out = (struct decisions_result){0};
    while (text.n && rc == 0) {
        const char *end = memchr(text.p, '\n', text.n);
        if (!end) {
            out->cut = true;
            break;
        }
        struct str line = {text.p, (size_t)(end - text.p)};
        text = str_from(text, line.n + 1);
        out->lines++;
        rc = on_line(&c, line);
    }
    if (rc == 0 && !out->lines)
        rc = err_set(err, "The record is empty.");
    for (uint32_t i = 0; i < out->n_pools; i++)
        finish_pool(&c, i);
    for (uint32_t i = 0; i < out->n_pools; i++)
        map_free(&c.pools[i].requests);
    free(c.pools);
    journal_reader_free(&c.reader);
    return rc;
}

void decisions_result_free(struct decisions_result *r)
{
    free(r->pools);
    *r = (struct decisions_result){0};
}

/* ---- report ---- */

bool decisions_same(const struct decisions_result *r)
{
    for (uint32_t i = 0; i < r->n_pools; i++)
        if (r->pools[i].end != DECISIONS_SAME)
            return false;
    return r->equal > 0;
}

void decisions_report(const struct decisions_result *r, struct buf *out)
{
    uint32_t differ = 0, gaps = 0;
    for (uint32_t i = 0; i < r->n_pools; i++) {
        const struct decisions_pool *p = &r->pools[i];
        differ += p->end == DECISIONS_DIFFER;
        gaps += p->end == DECISIONS_GAP;
        buf_addf(out, "%s: %llu decisions equal of %llu verbs", p->name, (unsigned long long)p->equal,
                 (unsigned long long)p->verbs);
        if (p->end != DECISIONS_SAME)
            buf_addf(out, "; line %llu: %s", (unsigned long long)p->line, p->why);
        buf_addf(out, "\n");
    }
    if (strcmp(r->program, PENSTOCK_VERSION) != 0)
        buf_addf(out, "Recorded by version %s; this is " PENSTOCK_VERSION ", whose picker may decide differently.\n",
                 *r->program ? r->program : "(not told)");
    if (r->cut)
        buf_addf(out, "The last line is not complete and was left out.\n");
    buf_addf(out, "%llu lines, %llu decisions equal", (unsigned long long)r->lines, (unsigned long long)r->equal);
    if (differ)
        buf_addf(out, "; %u of %u pools decide differently.\n", differ, r->n_pools);
    else if (gaps)
        buf_addf(out, "; %u of %u pools could be followed to a gap only.\n", gaps, r->n_pools);
    else
        buf_addf(out, r->equal ? ", none differs.\n" : ": there was nothing to compare.\n");
}
