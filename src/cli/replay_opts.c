/* cli/replay_opts.c - see replay_opts.h. */
#include "cli/replay_opts.h"

#include "base/duration.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SEEDS 10000
#define MAX_USERS 1e6

struct raw { /* as given */
    const char *profile, *policy, *rate, *users, *sync, *order, *pd, *pd_decider;
    struct cli_list change, sched;
    uint64_t n_servers, gateways, adapters, adapter_slots, prefill_servers, explain, network, scrape, scrape_late,
        scrape_cost;
    double bandwidth;
    bool queueing, as_recorded, no_capacity, tell_cached, tell_limits, list, decisions;
};

static int usage(const struct cli_command *c, const struct errbuf *e)
{
    return cli_usage_error(c, "%s", e->msg);
}

static struct str next_item(struct str *list, char sep)
{
    size_t n = 0;
    while (n < list->n && list->p[n] != sep)
        n++;
    struct str item = str_first(*list, n);
    *list = str_from(*list, MIN(n + 1, list->n));
    return item;
}

/* ---- servers ---- */

/* {"name": "mine", "base": 0.015, "prefill_token": 75e-6, ...}: the members of struct profile and struct step_time. */
static int profile_file(const char *path, struct profile *out, struct errbuf *err)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    if (!dataset_read(&text, path, err)) {
        buf_free(&text);
        return -1;
    }
    *out = (struct profile){.max_num_seqs = 256, .max_batched_tokens = 2048, .max_model_len = 1u << 20};
    (void)snprintf(out->name, sizeof(out->name), "%s", path);
    double kv = 0, seqs = 256, budget = 2048;
    const struct {
        const char *key;
        double *v;
    } members[] = {{"base", &out->time.base},
                   {"decode_seq", &out->time.decode_seq},
                   {"chunk", &out->time.chunk},
                   {"weights", &out->time.weights},
                   {"gemm_token", &out->time.gemm_token},
                   {"prefill_token", &out->time.prefill_token},
                   {"context_token", &out->time.context_token},
                   {"pair", &out->time.pair},
                   {"kv_tokens", &kv},
                   {"max_num_seqs", &seqs},
                   {"max_batched_tokens", &budget}};
    struct json j;
    json_init(&j, buf_str(&text));
    enum json_type t = json_next(&j);
    const char *bad = t == JSON_OBJ ? NULL : "not a JSON object";
    while (!bad && (t = json_next(&j)) == JSON_KEY) {
        struct str key = j.tok;
        double *to = NULL;
        for (size_t i = 0; i < ARRAY_LEN(members); i++)
            if (str_eq_c(key, members[i].key))
                to = members[i].v;
        if (!to) {
            if (!str_eq_c(key, "name"))
                bad = "a member that no profile has (base, decode_seq, chunk, weights, gemm_token, prefill_token, "
                      "context_token, pair, kv_tokens, "
                      "max_num_seqs, max_batched_tokens, name)";
            else if (!json_skip(&j))
                bad = j.error;
        } else if (json_next(&j) != JSON_NUMBER || !str_to_double(j.tok, to) || !(*to >= 0)) {
            bad = "a value is not a number from 0 on";
        }
    }
    if (!bad && t == JSON_ERROR)
        bad = j.error;
    if (!bad && (kv < 1024 || seqs < 1 || budget < 1 || out->time.base + out->time.weights <= 0))
        bad = "\"kv_tokens\" (at least 1024) and \"base\" or \"weights\" are needed";
    unsigned line, col;
    json_where(&j, j.p, &line, &col);
    buf_free(&text);
    if (bad)
        return err_set(err, "%s:%u:%u: %s.", path, line, col, bad);
    out->kv_tokens = (uint64_t)kv;
    out->max_num_seqs = (uint32_t)MIN(seqs, 1e6);
    out->max_batched_tokens = (uint32_t)MIN(budget, 1e9);
    return 0;
}

static int find_profile(struct str name, struct profile *out, struct errbuf *err)
{
    char path[4096];
    struct profile_query q = {.name = name};
    if (name.n < sizeof(path)) {
        memcpy(path, name.p, name.n);
        path[name.n] = 0;
        if (strchr(path, '/') || (name.n > 5 && !strcmp(path + name.n - 5, ".json")))
            return profile_file(path, out, err);
    }
    return profile_find(&q, out, err);
}

/* "NAME" for all servers, or "4xNAME,4xOTHER". */
static int take_servers(struct replay_opts *o, const struct raw *raw, struct errbuf *err)
{
    struct str list = str_c(raw->profile);
    uint64_t n = 0;
    o->world.servers = xcalloc(WORLD_MAX_SERVERS, sizeof(*o->world.servers));
    (void)snprintf(o->profile_name, sizeof(o->profile_name), "%s", raw->profile);
    while (list.n) {
        struct str item = next_item(&list, ',');
        struct profile p;
        uint64_t count = 0;
        size_t digits = 0;
        while (digits < item.n && item.p[digits] >= '0' && item.p[digits] <= '9')
            digits++;
        bool counted =
            digits && digits < item.n && item.p[digits] == 'x' && str_to_u64(str_first(item, digits), &count);
        if (find_profile(counted ? str_from(item, digits + 1) : item, &p, err) < 0)
            return -1;
        if (!counted)
            count = raw->n_servers;
        if (count < 1 || n + count > WORLD_MAX_SERVERS)
            return err_set(err, "the number of servers must be from 1 to %d.", WORLD_MAX_SERVERS);
        for (uint64_t i = 0; i < count; i++)
            o->world.servers[n++].profile = p;
    }
    o->world.n_servers = (uint32_t)n;
    return n ? 0 : err_set(err, "--profile names no server.");
}

/* ---- changes: TIME:SERVER:WHAT ---- */

static int take_change(struct replay_opts *o, struct str text, struct errbuf *err)
{
    struct str rest = text, at = next_item(&rest, ':'), server = next_item(&rest, ':'), what = next_item(&rest, ':');
    struct world_change *c = &o->world.changes[o->world.n_changes];
    int64_t ns;
    uint64_t k;
    *c = (struct world_change){.factor = 1};
    if (!duration_parse(at, &ns) || ns < 0 || !str_to_u64(server, &k) || k >= o->world.n_servers)
        return err_set(err,
                       "--change \"" STR_FMT
                       "\": expected TIME:SERVER:WHAT with a time such as 90s and a server from 0 to %u.",
                       STR_ARG(text), o->world.n_servers - 1);
    c->at_us = (uint64_t)ns / 1000;
    c->server = (uint32_t)k;
    if (str_eq_c(what, "join")) {
        o->world.servers[k].join_us = MAX(c->at_us, (uint64_t)1);
        return 0;
    }
    static const struct {
        const char *name;
        enum world_what what;
    } names[] = {{"slow", WORLD_SLOW},
                 {"fail", WORLD_FAIL},
                 {"return", WORLD_RETURN},
                 {"no-cache", WORLD_NO_CACHE},
                 {"cache", WORLD_CACHE}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq_c(what, names[i].name)) {
            c->what = names[i].what;
            o->world.n_changes++;
            if (c->what == WORLD_SLOW && (!str_to_double(rest, &c->factor) || !(c->factor > 0)))
                return err_set(err, "--change \"" STR_FMT "\": slow needs a factor, as in 60s:0:slow:3.",
                               STR_ARG(text));
            return 0;
        }
    return err_set(err, "--change \"" STR_FMT "\": WHAT is slow:FACTOR, fail, return, join, no-cache or cache.",
                   STR_ARG(text));
}

/* ---- what the gateway believes: NAME=VALUE ---- */

static int take_setting(struct sched_params *p, struct str text, struct errbuf *err)
{
    struct str rest = text, name = next_item(&rest, '=');
    double v;
    const struct {
        const char *name;
        double *d;
        uint64_t *u;
        uint32_t *w;
        bool *b;
    } known[] = {
        {"step_s", &p->step_s, NULL, NULL, NULL},
        {"prefill_s", &p->prefill_s, NULL, NULL, NULL},
        {"quad_s", &p->quad_s, NULL, NULL, NULL},
        {"decode_s", &p->decode_s, NULL, NULL, NULL},
        {"ctx_s", &p->ctx_s, NULL, NULL, NULL},
        {"kv_tokens", NULL, &p->kv_tokens, NULL, NULL},
        {"step_tokens", NULL, NULL, &p->step_tokens, NULL},
        {"bytes_per_token", &p->bytes_per_token, NULL, NULL, NULL},
        {"mean_output", NULL, NULL, &p->mean_output, NULL},
        {"affinity", &p->affinity, NULL, NULL, NULL},
        {"tie_band_s", &p->tie_band_s, NULL, NULL, NULL},
        {"queue_threshold", NULL, NULL, &p->queue_threshold, NULL},
        {"kv_threshold", &p->kv_threshold, NULL, NULL, NULL},
        {"queueing", NULL, NULL, NULL, &p->queueing},
        {"queue_ttl_us", NULL, &p->queue_ttl_us, NULL, NULL},
        {"queue_late_us", NULL, &p->queue_late_us, NULL, NULL},
        {"prefix_wait_us", NULL, &p->prefix_wait_us, NULL, NULL},
        {"conversation_hold_us", NULL, &p->conversation_hold_us, NULL, NULL},
        {"learn_speed", NULL, NULL, NULL, &p->learn_speed},
        {"stale_us", NULL, &p->stale_us, NULL, NULL},
        {"slow_start_us", NULL, &p->slow_start_us, NULL, NULL},
        {"transfer_s", &p->transfer_s, NULL, NULL, NULL},
        {"transfer_base_s", &p->transfer_base_s, NULL, NULL, NULL},
    };
    if (!str_to_double(rest, &v) || !isfinite(v) || v < 0)
        return err_set(err, "--set \"" STR_FMT "\": expected NAME=NUMBER.", STR_ARG(text));
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (!str_eq_c(name, known[i].name))
            continue;
        if (known[i].d)
            *known[i].d = v;
        else if (known[i].u)
            *known[i].u = (uint64_t)v;
        else if (known[i].w)
            *known[i].w = (uint32_t)MIN(v, (double)UINT32_MAX);
        else
            *known[i].b = v > 0;
        return 0;
    }
    struct buf names;
    buf_init(&names, 4096);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        buf_addf(&names, "%s%s", i ? ", " : "", known[i].name);
    int rc =
        err_set(err, "--set \"" STR_FMT "\": there is no such setting; known: %s.", STR_ARG(text), buf_cstr(&names));
    buf_free(&names);
    return rc;
}

static int take_order(struct sched_params *p, const char *name, struct errbuf *err)
{
    static const char *const names[] = {"fifo", "deadline", "adaptive"}; /* enum sched_order */
    for (size_t i = 0; name && i < ARRAY_LEN(names); i++)
        if (!strcmp(name, names[i])) {
            p->queue_order = (enum sched_order)i;
            return 0;
        }
    return name ? err_set(err, "--queue-order \"%s\": fifo, deadline or adaptive.", name) : 0;
}

static int take_pd(struct world_params *w, const struct raw *raw, struct errbuf *err)
{
    struct str pd = str_c(raw->pd), how = str_c(raw->pd_decider), rest = how;
    uint64_t n;
    w->pd_both = str_eq_c(pd, "sglang");
    if (!w->pd_both && !str_eq_c(pd, "nixl"))
        return err_set(err, "--pd \"%s\": sglang or nixl.", raw->pd);
    w->pd_always = str_eq_c(how, "always");
    w->sched.split_min_tokens = 0;
    if (w->pd_always || str_eq_c(how, "cost"))
        return 0;
    if (!str_eq_c(next_item(&rest, ':'), "tokens") || !str_to_u64(rest, &n) || n < 1 || n > UINT32_MAX)
        return err_set(err, "--pd-decider \"%s\": always, tokens:N with N from 1 on, or cost.", raw->pd_decider);
    w->sched.split_min_tokens = (uint32_t)n;
    return 0;
}

/* ---- lists ---- */

static int take_numbers(const char *text, double **out, size_t *n, const char *option, struct errbuf *err)
{
    struct str list = str_c(text ? text : "");
    *out = xcalloc(list.n + 1, sizeof(**out));
    while (list.n) {
        struct str item = next_item(&list, ',');
        if (!str_to_double(item, &(*out)[*n]) || !((*out)[*n] > 0) || !isfinite((*out)[*n]))
            return err_set(err, "%s \"%s\": expected numbers above 0, with commas between them.", option, text);
        ++*n;
    }
    return 0;
}

static void count_policy(void *ctx, const struct policy *p)
{
    (void)p;
    ++*(size_t *)ctx;
}

static void add_policy(void *ctx, const struct policy *p)
{
    struct replay_opts *o = ctx;
    o->policies[o->n_policies++] = p;
}

static int take_policies(struct replay_opts *o, const char *text, struct errbuf *err)
{
    struct str list = str_c(text);
    size_t n = 0;
    policy_each(count_policy, &n);
    o->policies = xcalloc(n + list.n + 1, sizeof(*o->policies));
    if (str_eq_c(list, "all")) {
        policy_each(add_policy, o);
        return 0;
    }
    while (list.n) {
        struct str item = next_item(&list, ',');
        o->policies[o->n_policies] = policy_find(item);
        if (!o->policies[o->n_policies++])
            return err_set(err, "there is no policy \"" STR_FMT "\"; --list names them.", STR_ARG(item));
    }
    return o->n_policies ? 0 : err_set(err, "--policy names none.");
}

/* ---- loads ---- */

static void name_load(struct replay_load *l, const char *path)
{
    const char *slash = strrchr(path, '/');
    static const char *const ends[] = {".gz", ".jsonl", ".json", ".csv"};
    (void)snprintf(l->name_buf, sizeof(l->name_buf), "%s", slash ? slash + 1 : path);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        size_t n = strlen(l->name_buf), e = strlen(ends[i]);
        if (n > e && !strcmp(l->name_buf + n - e, ends[i]))
            l->name_buf[n - e] = 0;
    }
    l->name = l->name_buf;
}

static int take_loads(struct replay_opts *o, const struct cli_list *paths, struct errbuf *err)
{
    o->loads = xcalloc(MAX(paths->n, (size_t)1), sizeof(*o->loads));
    for (size_t i = 0; i < paths->n; i++) {
        struct replay_load *l = &o->loads[o->n_loads++];
        struct dataset_opts d;
        dataset_opts_init(&d);
        d.kind = DATA_TRACE;
        d.path = paths->v[i];
        d.trace_as_recorded = true; /* the world spreads them, by its seed */
        d.trace_max_delay_s = HUGE_VAL;
        name_load(l, paths->v[i]);
        bool ok = dataset_synth_is(str_c(paths->v[i])) && access(paths->v[i], F_OK)
                      ? dataset_synth(&l->data, str_c(paths->v[i]), o->seed, err)
                      : dataset_load(&l->data, &d, err);
        if (!ok)
            return -1;
        if (o->limit && o->limit < l->data.n)
            l->data.n = (uint32_t)o->limit;
        if (!l->data.n)
            return err_set(err, "%s has no request.", paths->v[i]);
        bool turns = !l->data.at_s;
        if (turns && !o->n_users)
            return err_set(err, "%s has conversations without arrival times: --users tells how many are under way.",
                           paths->v[i]);
        if (!turns && o->n_users)
            return err_set(err, "%s has arrival times: --rate tells how fast they come, --users is for conversations.",
                           paths->v[i]);
    }
    return paths->n
               ? 0
               : err_set(err,
                         "a trace is needed: a file, or shared_prefix, shared_prefix_low, prefix_repetition, chat.");
}

static void show_policy(void *ctx, const struct policy *p)
{
    (void)ctx;
    printf("  %-20s %s\n", p->name, p->about);
}

static void show_profile(void *ctx, const char *name)
{
    (void)ctx;
    printf("  %s\n", name);
}

static int list_names(void)
{
    puts("Policies:");
    policy_each(show_policy, NULL);
    puts("Profiles:");
    profile_each(show_profile, NULL);
    return 0;
}

static int fill(struct replay_opts *o, const struct raw *raw, const struct cli_list *paths, struct errbuf *err)
{
    struct world_params *w = &o->world;
    if (take_servers(o, raw, err) < 0 || take_policies(o, raw->policy, err) < 0 ||
        take_numbers(raw->rate, &o->rates, &o->n_rates, "--rate", err) < 0 ||
        take_numbers(raw->users, &o->users, &o->n_users, "--users", err) < 0)
        return -1;
    for (size_t i = 0; i < o->n_users; i++)
        if (!(o->users[i] <= MAX_USERS) || o->users[i] < 1 || floor(o->users[i]) < o->users[i])
            return err_set(err, "--users \"%s\": expected whole numbers from 1 to %.0f.", raw->users, MAX_USERS);
    if (!(w->think_max_s >= 0) || !(w->jitter_s >= 0))
        return err_set(err, "--think-max and --jitter must not be negative.");
    w->changes = xcalloc(raw->change.n + 1, sizeof(*w->changes));
    for (size_t i = 0; i < raw->change.n; i++)
        if (take_change(o, str_c(raw->change.v[i]), err) < 0)
            return -1;
    w->sched.queueing = raw->queueing;
    if (take_order(&w->sched, raw->order, err) < 0)
        return -1;
    for (size_t i = 0; i < raw->sched.n; i++)
        if (take_setting(&w->sched, str_c(raw->sched.v[i]), err) < 0)
            return -1;
    if (raw->gateways < 1 || raw->gateways > WORLD_MAX_GATEWAYS)
        return err_set(err, "--gateways must be from 1 to %d.", WORLD_MAX_GATEWAYS);
    if (o->n_seeds < 1 || o->n_seeds > MAX_SEEDS)
        return err_set(err, "--seeds must be from 1 to %d.", MAX_SEEDS);
    if (o->seed > UINT32_MAX - o->n_seeds)
        return err_set(err, "--seed must be below %u.", UINT32_MAX - MAX_SEEDS);
    if (raw->adapters >= ENGINE_MAX_LORAS)
        return err_set(err, "--adapters must be below %d.", ENGINE_MAX_LORAS);
    if (raw->prefill_servers && raw->prefill_servers >= w->n_servers)
        return err_set(err, "--prefill-servers must leave servers that decode.");
    w->n_gateways = (uint32_t)raw->gateways;
    int64_t ns = 0;
    w->sync = !str_eq_c(str_c(raw->sync), "off");
    if (w->sync && (!duration_parse(str_c(raw->sync), &ns) || ns < 0))
        return err_set(err, "--sync \"%s\": expected a duration such as 1s, or off.", raw->sync);
    w->sync_us = (uint64_t)ns / 1000;
    o->scrape_given = raw->scrape != UINT64_MAX;
    if (o->scrape_given)
        w->scrape_us = raw->scrape;
    w->scrape_late_us = raw->scrape_late;
    w->scrape_cost_s = (double)raw->scrape_cost / 1e6;
    w->network_us = raw->network;
    w->spread = !raw->as_recorded;
    w->tell_capacity = !raw->no_capacity;
    w->tell_cached = raw->tell_cached;
    w->tell_limits = raw->tell_limits;
    w->adapters = (uint32_t)raw->adapters;
    w->adapter_slots = (uint32_t)MAX(raw->adapter_slots, (uint64_t)1);
    w->prefill_servers = (uint32_t)raw->prefill_servers;
    w->kv_bandwidth = raw->bandwidth * 1e9;
    if (take_pd(w, raw, err) < 0)
        return -1;
    w->explain = o->html ? (uint32_t)MIN(raw->explain, (uint64_t)100000) : 0; /* the page alone shows them */
    if (!o->threads)
        o->threads = (uint64_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
    o->threads = MIN(o->threads, (uint64_t)256);
    return take_loads(o, paths, err);
}

int replay_opts_parse(struct replay_opts *o, int argc, char **argv)
{
    struct raw raw = {.profile = "h100-qwen3-32b",
                      .n_servers = 8,
                      .policy = "prefix-cache",
                      .sync = "1s",
                      .gateways = 1,
                      .adapter_slots = 2,
                      .explain = 12,
                      .bandwidth = 25,
                      .pd = "nixl",
                      .pd_decider = "cost",
                      .scrape = UINT64_MAX};
    *o = (struct replay_opts){.seed = 1, .n_seeds = 1, .time_us = 2400000000ull};
    world_init(&o->world);
    const struct cli_opt opts[] = {
        {"profile", 0, "NAME|FILE", "servers: a named profile (--list), a JSON file, or a mix: 4xNAME,4xOTHER", CLI_STR,
         &raw.profile},
        {"servers", 0, "N", "number of servers (8)", CLI_U64, &raw.n_servers},
        {"policy", 0, "NAME,...", "policies to compare, or all (prefix-cache)", CLI_STR, &raw.policy},
        {"rate", 0, "R,...", "requests a second; without: as recorded", CLI_STR, &raw.rate},
        {"users", 0, "N,...", "conversations under way at a time, for traces of conversations", CLI_STR, &raw.users},
        {"time", 0, "DURATION", "with --users: length of the run (40m)", CLI_DURATION, &o->time_us},
        {"think-max", 0, "SECONDS", "longest pause between an answer and the next turn (60)", CLI_DOUBLE,
         &o->world.think_max_s},
        {"seed", 0, "N", "seed of the first run (1)", CLI_U64, &o->seed},
        {"seeds", 0, "N", "runs with N seeds each (1)", CLI_U64, &o->n_seeds},
        {"limit", 0, "N", "only the first N requests of a trace", CLI_U64, &o->limit},
        {"as-recorded", 0, NULL, "arrivals exactly as recorded, also on a grid of 3 s", CLI_FLAG, &raw.as_recorded},
        {"jitter", 0, "SECONDS", "arrivals come up to so much later than recorded, by the seed (0)", CLI_DOUBLE,
         &o->world.jitter_s},
        {"gateways", 0, "N", "gateways over the same servers (1)", CLI_U64, &raw.gateways},
        {"sync", 0, "DURATION|off", "they tell each other what they do, so much later (1s)", CLI_STR, &raw.sync},
        {"scrape", 0, "DURATION", "a gateway reads a server's metrics so often (1s; 50ms for the reference's policies)",
         CLI_DURATION, &raw.scrape},
        {"scrape-late", 0, "DURATION", "and they are so old when they arrive (0s)", CLI_DURATION, &raw.scrape_late},
        {"scrape-cost", 0, "DURATION", "of the server's time for each reading (0s)", CLI_DURATION, &raw.scrape_cost},
        {"network", 0, "DURATION", "one way between gateway and server (0s)", CLI_DURATION, &raw.network},
        {"queueing", 0, NULL, "flow control: requests wait in the gateway while all servers are full", CLI_FLAG,
         &raw.queueing},
        {"queue-order", 0, "ORDER", "with --queueing: fifo, deadline or adaptive (fifo)", CLI_STR, &raw.order},
        {"set", 0, "NAME=VALUE", "a setting or prior of the picker (core/sched.h), several times", CLI_LIST,
         &raw.sched},
        {"no-capacity", 0, NULL, "servers do not tell the size of their KV cache", CLI_FLAG, &raw.no_capacity},
        {"tell-cached", 0, NULL, "answers tell how much of the prompt was cached", CLI_FLAG, &raw.tell_cached},
        {"tell-limits", 0, NULL, "requests tell the length of their answers (max_tokens), as penstock bench does",
         CLI_FLAG, &raw.tell_limits},
        {"change", 0, "TIME:SERVER:WHAT", "slow:FACTOR, fail, return, join, no-cache or cache; several times", CLI_LIST,
         &raw.change},
        {"adapters", 0, "N", "requests are for one of N LoRA adapters, the first most often (0)", CLI_U64,
         &raw.adapters},
        {"adapter-slots", 0, "N", "adapters a server runs at a time (2)", CLI_U64, &raw.adapter_slots},
        {"prefill-servers", 0, "N", "P/D: the first N servers prefill, the others decode (0: off)", CLI_U64,
         &raw.prefill_servers},
        {"pd", 0, "nixl|sglang", "P/D: one after the other, and the decode side may prefill; or always both (nixl)",
         CLI_STR, &raw.pd},
        {"pd-decider", 0, "HOW",
         "P/D: cost, always, or tokens:N: from N tokens on that are not cached where it decodes (cost)", CLI_STR,
         &raw.pd_decider},
        {"kv-bandwidth", 0, "GB/S", "P/D: speed of the KV transfer (25)", CLI_DOUBLE, &raw.bandwidth},
        {"explain", 0, "N", "decisions to keep with their reasons, for the page (12)", CLI_U64, &raw.explain},
        {"json", 0, NULL, "a JSON object a run, in the order of the options", CLI_FLAG, &o->json},
        {"html", 0, "FILE", "a page with charts", CLI_STR, &o->html},
        {"threads", 0, "N", "runs at a time (the number of cores)", CLI_U64, &o->threads},
        {"quiet", 'q', NULL, "no progress bar", CLI_FLAG, &o->quiet},
        {"decisions", 0, NULL, "only check that the records replay to the decisions that were made live", CLI_FLAG,
         &raw.decisions},
        {"list", 0, NULL, "names of policies and profiles", CLI_FLAG, &raw.list},
        {0},
    };
    const struct cli_command cmd = {"replay TRACE... [OPTION...]",
                                    "Replays recorded or generated loads on simulated servers in virtual time, with "
                                    "the gateway's own scheduling code or what others "
                                    "do.\nTRACE: a file (Mooncake's form, Azure or BurstGPT CSV, a record of penstock "
                                    "gateway --record; also .gz), or shared_prefix, "
                                    "shared_prefix_low, prefix_repetition, chat.",
                                    opts};
    struct cli_list paths = {0};
    struct errbuf err = {0};
    int rc = cli_parse(&cmd, argc, argv, &paths);
    if (rc == CLI_GO && raw.list)
        rc = list_names();
    else if (rc == CLI_GO && raw.decisions)
        rc = replay_decisions(&paths);
    else if (rc == CLI_GO && fill(o, &raw, &paths, &err) < 0)
        rc = usage(&cmd, &err);
    cli_list_free(&paths);
    cli_list_free(&raw.change);
    cli_list_free(&raw.sched);
    return rc;
}

void replay_opts_free(struct replay_opts *o)
{
    for (size_t i = 0; i < o->n_loads; i++)
        dataset_free(&o->loads[i].data);
    free(o->loads);
    free(o->policies);
    free(o->rates);
    free(o->users);
    free(o->world.servers);
    free(o->world.changes);
}
