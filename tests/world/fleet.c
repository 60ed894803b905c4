#include "fleet.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_US  100000
#define LATE_MAX 64

struct fleet;
struct job {
    struct sched_req r; /* first: what the scheduler hands back is the job */
    struct prefix_hashes ph;
    uint64_t *hashes;
    struct fleet *f;
    uint32_t class, n_tokens, out, engine;
    struct engine_seq *seq;
    uint64_t seed, sent_us, picked_us, first_us;
    bool measured;
    struct job *prev, *next; /* all that are alive */
};
struct seen { /* what a scrape would show */
    uint64_t at_us;
    struct ep_load load;
};
struct member {
    struct engine *e;
    struct ep_ref ep;
    struct seen seen[LATE_MAX];
    uint64_t n_seen;
};
struct fleet {
    const struct fleet_params *p;
    struct fleet_report *out;
    struct sched *s;
    struct rng rng;
    uint64_t now, next_id, next_scrape, next_tick, next_sample, measure_us, end_us;
    uint64_t next_arrival[FLEET_CLASSES];
    uint32_t sent_closed[FLEET_CLASSES];
    struct member m[FLEET_ENGINES];
    struct job *jobs;
    uint64_t n_jobs, n_queued, room_since_us; /* room_since: somebody waits beside room; 0: not now */
    double waiting_sum;
    uint64_t waiting_n;
    uint32_t *scratch, scratch_cap;
};

/* ---- numbers ---- */

double fleet_mean(const double *v, uint64_t n)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / (double)n : 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double fleet_percentile(double *v, uint64_t n, double p)
{
    if (!n)
        return 0;
    qsort(v, n, sizeof(*v), by_value);
    return v[MIN(n - 1, (uint64_t)(p * (double)n))];
}

static void keep(double **v, uint64_t *n, uint64_t *cap, double x)
{
    if (*n == *cap) {
        *cap = MAX(*cap * 2, 256u);
        *v = xrealloc(*v, *cap * sizeof(**v));
    }
    (*v)[(*n)++] = x;
}

void fleet_init(struct fleet_params *p, const char *profile, double memory_frac)
{
    struct profile_query q = {.name = str_c(profile), .memory_frac = memory_frac};
    struct profile pr;
    struct errbuf err;
    CHECK(!profile_find(&q, &pr, &err));
    memset(p, 0, sizeof(*p));
    sched_params_init(&p->sched);
    p->engine = (struct engine_params){.time = pr.time,
                                       .block_size = 16,
                                       .n_blocks = (uint32_t)(pr.kv_tokens / 16),
                                       .max_num_seqs = pr.max_num_seqs,
                                       .max_batched_tokens = pr.max_batched_tokens,
                                       .max_loras = 2,
                                       .prefix_caching = true,
                                       .jitter = true};
    p->max_model_len = pr.max_model_len;
    p->n_engines = 5;
    p->scrape_us = 1000000;
    p->seed = 1;
}

void fleet_add(struct fleet_params *p, const char *name, int priority, double rate, uint32_t input, uint32_t output)
{
    p->c[p->n_classes++] = (struct fleet_class){.name = name,
                                                .priority = priority,
                                                .rate = rate,
                                                .input_tokens = input,
                                                .output_tokens = output,
                                                .spread = 0.5};
}

/* ---- jobs ---- */

static uint64_t model_hash(uint32_t lora)
{
    char name[16];
    int n = snprintf(name, sizeof(name), "model-%u", lora);
    return hash_bytes(name, (size_t)n, 0);
}

/* The tokens of a prompt: the class's prefix, then its own. */
static const uint32_t *tokens_of(struct fleet *f, const struct job *j)
{
    if (f->scratch_cap < j->n_tokens) {
        f->scratch_cap = j->n_tokens;
        f->scratch = xrealloc(f->scratch, f->scratch_cap * sizeof(*f->scratch));
    }
    uint32_t prefix = f->p->c[j->class].prefix_tokens;
    for (uint32_t i = 0; i < j->n_tokens; i++)
        f->scratch[i] = (uint32_t)(i < prefix ? hash_mix(j->class + 1, i) : hash_mix(j->seed, i)) % 150000;
    return f->scratch;
}

static uint32_t around(struct fleet *f, uint32_t mean, double spread)
{
    double x = (double)mean * (1 + spread * (2 * rng_unit(&f->rng) - 1));
    return (uint32_t)MAX(1.0, x);
}

static struct job *job_new(struct fleet *f, uint32_t class)
{
    const struct fleet_class *c = &f->p->c[class];
    struct job *j = xcalloc(1, sizeof(*j));
    j->f = f;
    j->class = class;
    j->n_tokens = c->prefix_tokens + around(f, c->input_tokens, c->spread);
    j->out = MIN(around(f, c->output_tokens, c->spread), f->p->max_model_len - j->n_tokens);
    j->seed = rng_u64(&f->rng);
    j->sent_us = f->now;
    j->measured = f->now >= f->measure_us;
    j->r = (struct sched_req){.id = ++f->next_id,
                              .priority = c->priority,
                              .flow = class,
                              .prompt_bytes = 4ull * j->n_tokens,
                              .max_tokens = j->out,
                              .n_outputs = 1,
                              .streamed = true,
                              .model = model_hash(c->lora)};
    if (f->p->sched.policy == SCHED_PREFIX_CACHE) {
        struct str text = {(const char *)(const void *)tokens_of(f, j), 4ul * j->n_tokens};
        j->hashes = xmalloc(PREFIX_MAX * sizeof(*j->hashes));
        prefix_hash(text, 1 + c->lora, f->p->sched.block_bytes, f->p->sched.max_blocks, f->p->sched.deep, &j->ph,
                    j->hashes, PREFIX_MAX);
        j->r.hashes = &j->ph;
    }
    j->next = f->jobs;
    if (f->jobs)
        f->jobs->prev = j;
    f->jobs = j;
    f->n_jobs++;
    f->out->peak_jobs = MAX(f->out->peak_jobs, f->n_jobs);
    f->out->c[class].sent += j->measured;
    return j;
}

static void job_free(struct fleet *f, struct job *j)
{
    if (j->prev)
        j->prev->next = j->next;
    else
        f->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
    f->n_jobs--;
    free(j->hashes);
    free(j);
}

static void send_one(struct fleet *f, uint32_t class);

/* The request is over; its client may have another one. */
static void job_over(struct fleet *f, struct job *j)
{
    uint32_t class = j->class;
    const struct fleet_class *c = &f->p->c[class];
    job_free(f, j);
    f->out->c[class].last_done_us = f->now;
    if (c->concurrency && f->sent_closed[class] < c->prompts)
        send_one(f, class);
}

/* ---- between scheduler and engines ---- */

static void to_engine(struct fleet *f, struct job *j)
{
    struct member *m = j->r.d.user;
    j->engine = (uint32_t)(m - f->m);
    j->picked_us = f->now;
    struct engine_req rq = {.tokens = tokens_of(f, j),
                            .n_tokens = j->n_tokens,
                            .out_len = j->out,
                            .lora = f->p->c[j->class].lora,
                            .user = j};
    j->seq = engine_submit(m->e, &rq, f->now);
    CHECK(j->seq);
    (void)engine_next(m->e, f->now);
}

static void turned_away(struct fleet *f, struct job *j)
{
    if (j->measured)
        f->out->c[j->class].rejected[j->r.d.reject]++;
    job_over(f, j);
}

static void collect(struct fleet *f)
{
    struct sched_req *r;
    while ((r = sched_next_decided(f->s))) {
        struct job *j = CONTAINER_OF(r, struct job, r);
        f->n_queued--;
        if (r->d.reject == REJECT_NONE)
            to_engine(f, j);
        else
            turned_away(f, j);
    }
}

static void send_one(struct fleet *f, uint32_t class)
{
    struct job *j = job_new(f, class);
    if (f->p->c[class].concurrency)
        f->sent_closed[class]++;
    enum sched_answer a = sched_submit(f->s, &j->r, f->now);
    f->n_queued += a == SCHED_QUEUED;
    collect(f);
    if (a == SCHED_PICKED)
        to_engine(f, j);
    else if (a == SCHED_REJECTED)
        turned_away(f, j);
}

static void answered(struct fleet *f, struct job *j)
{
    struct fleet_result *c = &f->out->c[j->class];
    j->first_us = f->now;
    sched_first_token(f->s, &j->r, f->now);
    if (j->measured)
        keep(&c->ttft, &c->n_ttft, &c->cap_ttft, (double)(f->now - j->sent_us) * 1e-6);
    collect(f);
}

static void finished(struct fleet *f, struct job *j, const struct engine_event *ev)
{
    struct fleet_result *c = &f->out->c[j->class];
    struct sched_usage u = {.prompt_tokens = j->n_tokens,
                            .completion_tokens = j->out,
                            .cached_tokens = ev->cached_tokens,
                            .has_cached = true};
    sched_finish(f->s, &j->r, OUT_OK, &u, f->now);
    if (f->now >= f->measure_us) {
        c->done_in_time++;
        c->done_tokens += j->out;
    }
    if (j->measured) {
        c->ok++;
        c->tokens_in += j->n_tokens;
        c->tokens_out += j->out;
        c->preempted += ev->preempted;
        if (j->out > 1)
            keep(&c->tpot, &c->n_tpot, &c->cap_tpot, (double)(f->now - j->first_us) * 1e-6 / (j->out - 1));
    }
    collect(f);
    job_over(f, j);
}

static void on_token(void *ctx, const struct engine_event *ev)
{
    struct fleet *f = ctx;
    struct job *j = ev->user;
    if (ev->index == 0)
        answered(f, j);
    if (ev->finished)
        finished(f, j, ev);
}

/* ---- scrapes ---- */

static void look(struct fleet *f, struct member *m)
{
    struct engine_stats st;
    engine_stats(m->e, false, &st);
    struct seen *sn = &m->seen[m->n_seen++ % LATE_MAX];
    *sn = (struct seen){.at_us = f->now,
                        .load = {.has_waiting = true,
                                 .has_running = true,
                                 .has_kv = true,
                                 .has_blocks = true,
                                 .waiting = st.waiting,
                                 .running = st.running,
                                 .kv_frac = st.kv_usage_frac,
                                 .kv_tokens = (uint64_t)st.n_blocks * f->p->engine.block_size,
                                 .block_tokens = f->p->engine.block_size,
                                 .max_lora = f->p->engine.max_loras}};
    for (uint32_t i = 1; i <= 2; i++) {
        uint32_t running, waiting;
        engine_lora(m->e, i, &running, &waiting);
        if (running)
            sn->load.running_lora[sn->load.n_running_lora++] = model_hash(i);
        if (waiting)
            sn->load.waiting_lora[sn->load.n_waiting_lora++] = model_hash(i);
    }
}

static void scrape(struct fleet *f, struct member *m)
{
    look(f, m);
    uint64_t k = m->n_seen - 1;
    while (k > 0 && k + LATE_MAX > m->n_seen && m->seen[k % LATE_MAX].at_us + f->p->scrape_late_us > f->now)
        k--;
    struct ep_load l = m->seen[k % LATE_MAX].load;
    l.sent_us = f->now > 5000 ? f->now - 5000 : 0;
    l.done_us = f->now;
    sched_ep_load(f->s, m->ep, &l, f->now);
    collect(f);
    sched_ep_probe(f->s, m->ep, true, l.sent_us, f->now);
    collect(f);
}

static void scrape_all(struct fleet *f)
{
    f->next_scrape += f->p->scrape_us;
    if (f->now >= f->p->scrape_stop_us && f->now < f->p->scrape_again_us)
        return;
    for (uint32_t i = 0; i < f->p->n_engines; i++)
        scrape(f, &f->m[i]);
}

/* ---- time ---- */

static void sample(struct fleet *f)
{
    struct sched_stats st;
    bool idle = false, room = false;
    sched_stats(f->s, f->now, &st);
    f->out->peak_queued = MAX(f->out->peak_queued, st.queued);
    f->out->peak_queued_bytes = MAX(f->out->peak_queued_bytes, st.queued_bytes);
    CHECK(st.queued == f->n_queued);
    for (uint32_t i = 0; i < f->p->n_engines; i++) {
        struct engine_stats es;
        engine_stats(f->m[i].e, true, &es);
        f->out->peak_waiting = MAX(f->out->peak_waiting, (double)es.waiting);
        f->waiting_sum += es.waiting;
        f->waiting_n++;
        idle = idle || (!es.waiting && !es.running);
        room = room || (!es.waiting && es.kv_usage_frac < 0.5 && es.step_tokens < f->p->engine.max_batched_tokens / 2);
    }
    f->out->waited_beside_idle += idle && f->n_queued;
    f->room_since_us = !room || !f->n_queued ? 0 : f->room_since_us ? f->room_since_us : f->now;
    if (f->room_since_us)
        f->out->longest_beside_room_us = MAX(f->out->longest_beside_room_us, f->now - f->room_since_us);
    f->next_sample = f->now + 10000;
}

static uint64_t gap_us(struct fleet *f, double rate)
{
    return (uint64_t)MAX(1.0, rng_exp(&f->rng) / rate * 1e6);
}

static uint64_t next_time(struct fleet *f, struct member **engine, uint32_t *class)
{
    uint64_t t = MIN(f->next_tick, f->next_sample);
    *engine = NULL;
    *class = FLEET_CLASSES;
    if (f->p->scrape_us)
        t = MIN(t, f->next_scrape);
    for (uint32_t i = 0; i < f->p->n_classes; i++)
        if (f->next_arrival[i] < t) {
            t = f->next_arrival[i];
            *class = i;
        }
    for (uint32_t i = 0; i < f->p->n_engines; i++) {
        uint64_t e = engine_next(f->m[i].e, f->now);
        if (e < t) {
            t = e;
            *engine = &f->m[i];
            *class = FLEET_CLASSES;
        }
    }
    return t;
}

static void arrival(struct fleet *f, uint32_t class)
{
    const struct fleet_class *c = &f->p->c[class];
    send_one(f, class);
    f->next_arrival[class] = f->now + gap_us(f, c->rate);
    if (c->until_us && f->next_arrival[class] > c->until_us)
        f->next_arrival[class] = UINT64_MAX;
}

static bool over(const struct fleet *f)
{
    if (f->p->seconds)
        return f->now >= f->end_us;
    return !f->jobs;
}

static void run(struct fleet *f)
{
    while (!over(f)) {
        struct member *m;
        uint32_t class;
        f->now = MAX(f->now, next_time(f, &m, &class));
        if (m) {
            engine_advance(m->e, f->now, on_token, f);
        } else if (class < FLEET_CLASSES) {
            arrival(f, class);
        } else if (f->p->scrape_us && f->now >= f->next_scrape) {
            scrape_all(f);
        } else if (f->now >= f->next_tick) {
            f->next_tick = MIN(f->now + TICK_US, MAX(f->now + 1, sched_tick(f->s, f->now)));
            collect(f);
        } else {
            sample(f);
        }
    }
}

static void begin(struct fleet *f)
{
    struct sched_model models[3];
    for (uint32_t i = 0; i < 3; i++)
        models[i] = (struct sched_model){.name = model_hash(i), .adapter = i > 0};
    for (uint32_t i = 0; i < f->p->n_engines; i++) {
        struct engine_params ep = f->p->engine;
        ep.seed = f->p->seed * 1000 + i;
        f->m[i].e = engine_new(&ep);
        f->m[i].ep = sched_ep_add(f->s, &f->m[i], false, f->now);
        sched_ep_models(f->s, f->m[i].ep, models, 3, f->now);
        scrape(f, &f->m[i]);
    }
    for (uint32_t i = 0; i < f->p->n_classes; i++) {
        const struct fleet_class *c = &f->p->c[i];
        f->next_arrival[i] = c->rate > 0 ? MAX(f->now, c->from_us) + gap_us(f, c->rate) : UINT64_MAX;
        for (uint32_t k = 0; k < c->concurrency && f->sent_closed[i] < c->prompts; k++)
            send_one(f, i);
    }
}

/* Everybody leaves; nothing may stay in the accounts. */
static void end(struct fleet *f)
{
    struct sched_stats st;
    while (f->jobs) {
        struct job *j = f->jobs;
        if (j->seq) {
            engine_cancel(f->m[j->engine].e, j->seq);
            j->seq = NULL;
            sched_finish(f->s, &j->r, OUT_CANCELLED, NULL, f->now);
        } else {
            f->n_queued--;
            sched_cancel(f->s, &j->r, f->now);
        }
        job_free(f, j);
        for (struct sched_req *r; (r = sched_next_decided(f->s));) {
            struct job *k = CONTAINER_OF(r, struct job, r);
            f->n_queued--;
            if (r->d.reject == REJECT_NONE)
                sched_finish(f->s, r, OUT_CANCELLED, NULL, f->now);
            job_free(f, k);
        }
    }
    sched_stats(f->s, f->now, &st);
    CHECK(!st.inflight && !st.queued && !st.queued_bytes && !f->n_queued);
    f->out->seconds = (double)f->now * 1e-6;
    f->out->measured_s = (double)(f->now - MIN(f->now, f->measure_us)) * 1e-6;
    f->out->mean_waiting = f->waiting_n ? f->waiting_sum / (double)f->waiting_n : 0;
    for (uint32_t i = 0; i < f->p->n_engines; i++)
        engine_free(f->m[i].e);
    sched_free(f->s);
    free(f->scratch);
}

void fleet_run(const struct fleet_params *p, struct fleet_report *out)
{
    struct fleet *f = xcalloc(1, sizeof(*f));
    memset(out, 0, sizeof(*out));
    f->p = p;
    f->out = out;
    f->now = f->next_scrape = f->next_tick = f->next_sample = 1000000;
    f->measure_us = f->now + p->warm_seconds * 1000000;
    f->end_us = f->now + p->seconds * 1000000;
    rng_init(&f->rng, p->seed);
    f->s = sched_new(&p->sched, p->seed);
    begin(f);
    run(f);
    end(f);
    free(f);
}

void fleet_report_free(struct fleet_report *r)
{
    for (uint32_t i = 0; i < FLEET_CLASSES; i++) {
        free(r->c[i].ttft);
        free(r->c[i].tpot);
    }
}
