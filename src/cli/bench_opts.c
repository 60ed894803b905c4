/* cli/bench_opts.c - options of penstock bench. Those of the engine's client that take several values after one name
 * (--goodput a b) are first written out as one name for each value, and underscores in names become hyphens, as that
 * client's parser has it. */
#include "cli/bench_opts.h"

#include "base/json.h"
#include "http/h1.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const several[] = {"goodput", "metadata", "header", "lora-modules", "compare"};

static bool takes_several(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(several); i++)
        if (str_eq_c(name, several[i]))
            return true;
    return false;
}

static void put_arg(struct bench_cli *o, struct str text)
{
    o->argv = xrealloc(o->argv, ((size_t)o->argc + 2) * sizeof(*o->argv));
    o->argv[o->argc++] = str_dup(text);
    o->argv[o->argc] = NULL;
}

static void put_name(struct bench_cli *o, struct str arg)
{
    put_arg(o, arg);
    for (char *p = o->argv[o->argc - 1]; *p && *p != '='; p++)
        *p = *p == '_' ? '-' : *p;
}

static void write_out(struct bench_cli *o, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        struct str a = str_c(argv[i]);
        if (i == 0 || !str_starts(a, STR("--")) || a.n == 2) {
            put_arg(o, a);
            continue;
        }
        put_name(o, a);
        struct str name = str_from(str_c(o->argv[o->argc - 1]), 2);
        if (!takes_several(name) || i + 1 >= argc)
            continue;
        put_arg(o, str_c(argv[++i]));
        while (i + 1 < argc && argv[i + 1][0] != '-') {
            put_name(o, a);
            put_arg(o, str_c(argv[++i]));
        }
    }
}

/* ---- values ---- */

static bool parse_rate(const char *text, double *out)
{
    double v;
    if (!strcmp(text, "inf")) {
        *out = (double)INFINITY;
        return true;
    }
    if (!str_to_double(str_c(text), &v) || !isfinite(v) || v <= 0)
        return false;
    *out = v;
    return true;
}

static int metric_of(struct str name)
{
    static const char *const names[BENCH_N_METRICS] = {"ttft", "tpot", "itl", "e2el"};
    for (int i = 0; i < BENCH_N_METRICS; i++)
        if (str_eq_c(name, names[i]))
            return i;
    return -1;
}

/* The next part of a list with commas; false at its end. */
static bool next_part(struct str *rest, struct str *part)
{
    if (!rest->p || rest->n == 0)
        return false;
    const char *comma = memchr(rest->p, ',', rest->n);
    *part = str_trim(str_first(*rest, comma ? (size_t)(comma - rest->p) : rest->n));
    *rest = str_from(*rest, comma ? (size_t)(comma - rest->p) + 1 : rest->n);
    return true;
}

static int parse_metrics(const struct cli_command *cmd, struct bench_cli *o, const char *text)
{
    struct str rest = str_c(text), part;
    while (next_part(&rest, &part)) {
        int m = metric_of(part);
        if (m < 0)
            return cli_usage_error(cmd, "--percentile-metrics: \"" STR_FMT "\" is none of ttft, tpot, itl, e2el",
                                   STR_ARG(part));
        o->show[m] = true;
    }
    return CLI_GO;
}

static int parse_percentiles(const struct cli_command *cmd, struct bench_cli *o, const char *text)
{
    struct str rest = str_c(text), part;
    while (next_part(&rest, &part)) {
        double p;
        if (!str_to_double(part, &p) || !(p >= 0 && p <= 100))
            return cli_usage_error(cmd, "--metric-percentiles: \"" STR_FMT "\" is not a number from 0 to 100",
                                   STR_ARG(part));
        if (o->n_percentiles == BENCH_MAX_PERCENTILES)
            return cli_usage_error(cmd, "--metric-percentiles: more than %d", BENCH_MAX_PERCENTILES);
        o->percentiles[o->n_percentiles++] = p;
    }
    return CLI_GO;
}

static int parse_goodput(const struct cli_command *cmd, struct bench_cli *o)
{
    for (size_t i = 0; i < o->goodput.n; i++) {
        struct str s = str_c(o->goodput.v[i]);
        const char *colon = memchr(s.p, ':', s.n);
        size_t n = colon ? (size_t)(colon - s.p) : 0;
        int m = metric_of(str_first(s, n));
        double ms;
        if (m < 0 || m == BENCH_ITL || !str_to_double(str_from(s, n + 1), &ms) || !(ms > 0 && isfinite(ms)))
            return cli_usage_error(cmd, "--goodput: \"%s\" is not ttft:MS, tpot:MS or e2el:MS", o->goodput.v[i]);
        o->slo_ms[m] = ms;
    }
    return CLI_GO;
}

static int parse_metadata(const struct cli_command *cmd, struct bench_cli *o)
{
    for (size_t i = 0; i < o->meta.n; i++) {
        struct str s = str_c(o->meta.v[i]);
        const char *eq = memchr(s.p, '=', s.n);
        if (!eq || eq == s.p)
            return cli_usage_error(cmd, "--metadata: \"%s\" is not KEY=VALUE", o->meta.v[i]);
        if (o->n_metadata == BENCH_MAX_METADATA)
            return cli_usage_error(cmd, "--metadata: more than %d", BENCH_MAX_METADATA);
        o->metadata[o->n_metadata][0] = str_first(s, (size_t)(eq - s.p));
        o->metadata[o->n_metadata++][1] = str_from(s, (size_t)(eq - s.p) + 1);
    }
    return CLI_GO;
}

static int check_headers(const struct cli_command *cmd, const struct bench_cli *o)
{
    for (size_t i = 0; i < o->headers.n; i++) {
        struct str s = str_c(o->headers.v[i]);
        const char *eq = memchr(s.p, '=', s.n);
        size_t n = eq ? (size_t)(eq - s.p) : 0;
        if (!eq || !h1_valid_header_name(str_first(s, n)) || !h1_valid_header_value(str_from(s, n + 1)))
            return cli_usage_error(cmd, "--header: \"%s\" is not NAME=VALUE", o->headers.v[i]);
    }
    return CLI_GO;
}

static int check_extra(const struct cli_command *cmd, const struct bench_cli *o)
{
    struct json j;
    if (!o->extra_body)
        return CLI_GO;
    json_init(&j, str_c(o->extra_body));
    enum json_type t = json_next(&j);
    bool object = t == JSON_OBJ;
    while (t != JSON_END && t != JSON_ERROR)
        t = json_next(&j);
    return object && t == JSON_END ? CLI_GO
                                   : cli_usage_error(cmd, "--extra-body is not a JSON object%s%s", j.error ? ": " : "",
                                                     j.error ? j.error : "");
}

static int check_sampling(const struct cli_command *cmd, const struct bench_cli *o)
{
    for (size_t i = 0; i < ARRAY_LEN(o->sampling); i++) {
        double v;
        if (o->sampling[i][1] && (!str_to_double(str_c(o->sampling[i][1]), &v) || !isfinite(v)))
            return cli_usage_error(cmd, "%s: \"%s\" is not a number", o->sampling[i][0], o->sampling[i][1]);
    }
    return CLI_GO;
}

void bench_cli_headers(const struct bench_cli *o, struct buf *out)
{
    buf_init(out, 1u << 20);
    for (size_t i = 0; i < o->headers.n; i++) {
        struct str s = str_c(o->headers.v[i]);
        size_t n = (size_t)((const char *)memchr(s.p, '=', s.n) - s.p);
        buf_add_str(out, str_first(s, n));
        buf_add(out, ": ", 2);
        buf_add_str(out, str_from(s, n + 1));
        buf_add(out, "\r\n", 2);
    }
}

void bench_cli_extra(const struct bench_cli *o, struct buf *out)
{
    buf_init(out, 1u << 20);
    for (size_t i = 0; i < ARRAY_LEN(o->sampling); i++)
        if (o->sampling[i][1] && o->chat && !strcmp(o->sampling[i][0], "logprobs"))
            buf_addf(out, ",\"logprobs\":true,\"top_logprobs\":%s", o->sampling[i][1]);
        else if (o->sampling[i][1])
            buf_addf(out, ",\"%s\":%s", o->sampling[i][0], o->sampling[i][1]);
    if (!o->extra_body)
        return;
    struct str s = str_trim(str_c(o->extra_body)); /* check_extra has seen that it is an object */
    const char *open = memchr(s.p, '{', s.n), *close = memrchr(s.p, '}', s.n);
    struct str members = str_trim((struct str){open + 1, (size_t)(close - open) - 1});
    if (members.n) {
        buf_add(out, ",", 1);
        buf_add_str(out, members);
    }
}

/* ---- the table ---- */

struct raw { /* values that need more than the table can say */
    const char *dataset, *rate, *burstiness, *ramp, *metrics, *percentiles, *custom_output, *lora_assignment;
    const char *tokenizer_mode;
    uint64_t n_prompts, random_input, random_output, random_prefix, sharegpt_output, prefix_len, suffix_len,
        num_prefixes, prefix_output;
    uint64_t conversations, min_turns, max_turns, turn_input, turn_output, turn_common, turn_prefix, input_len,
        output_len;
    uint64_t think_us, max_delay_us, ready_s;
    bool trust, no_tokenizer, no_template, no_shuffle, no_oversample;
};

static int take_kind(const struct cli_command *cmd, struct bench_cli *o, const struct raw *r)
{
    if (!dataset_kind_parse(str_c(r->dataset), &o->data.kind))
        return cli_usage_error(
            cmd, "--dataset-name is random, sharegpt, custom, prefix_repetition, multi-turn or trace, not \"%s\"",
            r->dataset);
    if (strcmp(o->backend, "vllm") != 0 && strcmp(o->backend, "openai") != 0 && strcmp(o->backend, "openai-chat") != 0)
        return cli_usage_error(cmd, "--backend is vllm, openai or openai-chat, not \"%s\"", o->backend);
    o->chat = !strcmp(o->backend, "openai-chat");
    if (!o->endpoint)
        o->endpoint = o->chat ? "/v1/chat/completions" : "/v1/completions";
    struct str e = str_c(o->endpoint);
    if (o->chat != str_ends(e, STR("chat/completions")))
        return cli_usage_error(cmd, "--endpoint %s does not fit --backend %s", o->endpoint, o->backend);
    return CLI_GO;
}

static int take_arrivals(const struct cli_command *cmd, struct bench_cli *o, const struct raw *r)
{
    struct arrival_opts *a = &o->arrivals;
    if (!parse_rate(r->rate, &a->rate))
        return cli_usage_error(cmd, "--request-rate is a number above 0 or inf, not \"%s\"", r->rate);
    if (!parse_rate(r->burstiness, &a->burstiness))
        return cli_usage_error(cmd, "--burstiness is a number above 0, not \"%s\"", r->burstiness);
    a->seed = o->data.seed;
    if (!r->ramp)
        return CLI_GO;
    if (!strcmp(r->ramp, "linear"))
        a->ramp = RAMP_LINEAR;
    else if (!strcmp(r->ramp, "exponential"))
        a->ramp = RAMP_EXPONENTIAL;
    else
        return cli_usage_error(cmd, "--ramp-up-strategy is linear or exponential, not \"%s\"", r->ramp);
    if (isfinite(a->rate))
        return cli_usage_error(cmd, "--request-rate and --ramp-up-strategy exclude each other");
    if (!(a->ramp_start >= 0 && a->ramp_end > a->ramp_start) || (a->ramp == RAMP_EXPONENTIAL && a->ramp_start == 0))
        return cli_usage_error(
            cmd, "--ramp-up-start-rps is less than --ramp-up-end-rps, and not 0 when the rate grows exponentially");
    return CLI_GO;
}

static uint32_t small(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX; /* dataset_make refuses what is too long */
}

static int take_data(const struct cli_command *cmd, struct bench_cli *o, const struct raw *r)
{
    struct dataset_opts *d = &o->data;
    int64_t custom = 0;
    if (!str_to_i64(str_c(r->custom_output), &custom) || custom < -1 || custom == 0 || custom > DATASET_MAX_TOKENS)
        return cli_usage_error(cmd, "--custom-output-len is a number from 1 on, or -1");
    if (r->n_prompts > DATASET_MAX || r->conversations > DATASET_MAX)
        return cli_usage_error(cmd, "more than %u prompts", DATASET_MAX);
    d->num_prompts = small(r->n_prompts);
    d->random_input = small(r->input_len ? r->input_len : r->random_input);
    d->random_output = small(r->output_len ? r->output_len : r->random_output);
    d->random_prefix = small(r->random_prefix);
    d->sharegpt_output = small(r->output_len ? r->output_len : r->sharegpt_output);
    d->custom_output = r->output_len ? (int64_t)r->output_len : custom;
    d->prefix_len = small(r->prefix_len);
    d->suffix_len = small(r->suffix_len);
    d->num_prefixes = small(r->num_prefixes);
    d->prefix_output = small(r->output_len ? r->output_len : r->prefix_output);
    d->turns.conversations = small(r->conversations);
    d->turns.min_turns = small(r->min_turns);
    d->turns.max_turns = small(r->max_turns);
    d->turns.input = small(r->input_len ? r->input_len : r->turn_input);
    d->turns.output = small(r->output_len ? r->output_len : r->turn_output);
    d->turns.common_prefix = small(r->turn_common);
    d->turns.prefix = small(r->turn_prefix);
    d->turns.think_s = (double)r->think_us / 1e6;
    d->trace_max_delay_s = (double)r->max_delay_us / 1e6;
    d->shuffle = !r->no_shuffle;
    d->oversample = !r->no_oversample;
    return CLI_GO;
}

static int take_rest(const struct cli_command *cmd, struct bench_cli *o, const struct raw *r)
{
    int rc = parse_metrics(cmd, o, r->metrics);
    if (rc == CLI_GO)
        rc = parse_percentiles(cmd, o, r->percentiles);
    if (rc == CLI_GO)
        rc = parse_goodput(cmd, o);
    if (rc == CLI_GO)
        rc = parse_metadata(cmd, o);
    if (rc == CLI_GO)
        rc = check_headers(cmd, o);
    if (rc == CLI_GO)
        rc = check_extra(cmd, o);
    if (rc == CLI_GO)
        rc = check_sampling(cmd, o);
    if (rc != CLI_GO)
        return rc;
    if (strcmp(r->lora_assignment, "random") != 0 && strcmp(r->lora_assignment, "round-robin") != 0)
        return cli_usage_error(cmd, "--lora-assignment is random or round-robin, not \"%s\"", r->lora_assignment);
    o->lora_random = !strcmp(r->lora_assignment, "random");
    if (o->lora.n > BENCH_MAX_LORA)
        return cli_usage_error(cmd, "--lora-modules: more than %d", BENCH_MAX_LORA);
    if (!(o->time_scale >= 0.001 && o->time_scale <= 10000))
        return cli_usage_error(cmd, "--time-scale is a number from 0.001 to 10000");
    if (!o->port || o->port > 65535)
        return cli_usage_error(cmd, "--port is a number from 1 to 65535");
    if (o->max_concurrency > 1000000 || o->max_conversations > DATASET_MAX || o->num_warmups > 1000000)
        return cli_usage_error(cmd, "more than 1000000 requests at once");
    if (o->request_id_prefix && !h1_valid_header_value(str_c(o->request_id_prefix)))
        return cli_usage_error(cmd, "--request-id-prefix is no value of a header");
    if (!o->request_timeout_us)
        return cli_usage_error(cmd, "--request-timeout is more than 0s");
    if (o->plot && !str_ends(str_c(o->plot), STR(".svg")) && !str_ends(str_c(o->plot), STR(".png")))
        return cli_usage_error(cmd, "--plot names a file that ends in .svg or .png, not \"%s\"", o->plot);
    o->ready_wait_us = r->ready_s * 1000000;
    return CLI_GO;
}

static void tell_ignored(const struct bench_cli *o, const struct raw *r)
{
    const struct {
        const char *name;
        bool given;
    } v[] = {{"--tokenizer", o->tokenizer},
             {"--tokenizer-mode", r->tokenizer_mode},
             {"--trust-remote-code", r->trust},
             {"--skip-tokenizer-init", r->no_tokenizer},
             {"--skip-chat-template", r->no_template}};
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        if (v[i].given)
            fprintf(stderr, "penstock bench: %s has no effect: prompts are made of words and counted by the server\n",
                    v[i].name);
}

static void set_defaults(struct bench_cli *o, struct raw *r)
{
    struct dataset_opts *d = &o->data;
    dataset_opts_init(d);
    o->backend = "openai";
    o->host = "127.0.0.1";
    o->port = 8000;
    o->time_scale = 1;
    o->request_timeout_us = 6ull * 3600 * 1000000;
    *r = (struct raw){.dataset = "random",
                      .rate = "inf",
                      .burstiness = "1",
                      .metrics = "ttft,tpot,itl",
                      .percentiles = "99",
                      .custom_output = "256",
                      .lora_assignment = "random",
                      .random_input = d->random_input,
                      .random_output = d->random_output,
                      .prefix_len = d->prefix_len,
                      .suffix_len = d->suffix_len,
                      .num_prefixes = d->num_prefixes,
                      .prefix_output = d->prefix_output,
                      .conversations = d->turns.conversations,
                      .min_turns = d->turns.min_turns,
                      .max_turns = d->turns.max_turns,
                      .turn_input = d->turns.input,
                      .turn_output = d->turns.output,
                      .turn_common = d->turns.common_prefix,
                      .turn_prefix = d->turns.prefix,
                      .max_delay_us = (uint64_t)(d->trace_max_delay_s * 1e6)};
    static const char *const members[] = {
        "temperature",        "top_p",   "top_k", "min_p", "frequency_penalty", "presence_penalty",
        "repetition_penalty", "logprobs"};
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        o->sampling[i][0] = members[i];
}

int bench_cli_parse(struct bench_cli *o, int argc, char **argv)
{
    struct raw r;
    set_defaults(o, &r);
    const struct cli_opt opts[] = {
        {"backend", 0, "NAME", "vllm or openai: completions; openai-chat: chat completions (openai)", CLI_STR,
         &o->backend},
        {"base-url", 0, "URL", "http://HOST:PORT of the server or gateway, instead of --host and --port", CLI_STR,
         &o->base_url},
        {"host", 0, "HOST", "(127.0.0.1)", CLI_STR, &o->host},
        {"port", 0, "PORT", "(8000)", CLI_U64, &o->port},
        {"endpoint", 0, "PATH", "(/v1/completions; openai-chat: /v1/chat/completions)", CLI_STR, &o->endpoint},
        {"model", 0, "NAME", "model to ask for (the first of /v1/models)", CLI_STR, &o->model},
        {"served-model-name", 0, "NAME", "name for the requests when it is another than --model", CLI_STR,
         &o->served_model},
        {"header", 0, "NAME=VALUE...", "header lines of every request", CLI_LIST, &o->headers},
        {"ready-check-timeout-sec", 0, "N", "wait so long for the server to answer (0)", CLI_U64, &r.ready_s},
        {"dataset-name", 0, "NAME", "random, sharegpt, custom, prefix_repetition, multi-turn or trace (random)",
         CLI_STR, &r.dataset},
        {"dataset-path", 0, "FILE", "sharegpt: JSON or JSONL; custom, trace: JSONL; .gz too", CLI_STR, &o->data.path},
        {"num-prompts", 0, "N", "requests (1000; of traces and conversations: all)", CLI_U64, &r.n_prompts},
        {"seed", 0, "N", "of everything drawn (0)", CLI_U64, &o->data.seed},
        {"input-len", 0, "N", "tokens of prompts, whatever the data set calls them", CLI_U64, &r.input_len},
        {"output-len", 0, "N", "tokens of answers, whatever the data set calls them", CLI_U64, &r.output_len},
        {"random-input-len", 0, "N", "(1024)", CLI_U64, &r.random_input},
        {"random-output-len", 0, "N", "(128)", CLI_U64, &r.random_output},
        {"random-prefix-len", 0, "N", "tokens that all prompts begin with, before the others (0)", CLI_U64,
         &r.random_prefix},
        {"random-range-ratio", 0, "R", "lengths are uniform in [N(1-R), N(1+R)] (0)", CLI_DOUBLE,
         &o->data.random_range},
        {"sharegpt-output-len", 0, "N", "instead of the recorded answers' lengths", CLI_U64, &r.sharegpt_output},
        {"custom-output-len", 0, "N", "-1: output_tokens of each line (256)", CLI_STR, &r.custom_output},
        {"no-oversample", 0, NULL, "a short file is not repeated until there are enough prompts", CLI_FLAG,
         &r.no_oversample},
        {"disable-shuffle", 0, NULL, "prompts of a file in its order", CLI_FLAG, &r.no_shuffle},
        {"prefix-repetition-prefix-len", 0, "N", "(256)", CLI_U64, &r.prefix_len},
        {"prefix-repetition-suffix-len", 0, "N", "(256)", CLI_U64, &r.suffix_len},
        {"prefix-repetition-num-prefixes", 0, "N", "(10)", CLI_U64, &r.num_prefixes},
        {"prefix-repetition-output-len", 0, "N", "(128)", CLI_U64, &r.prefix_output},
        {"multi-turn-num-conversations", 0, "N", "(24)", CLI_U64, &r.conversations},
        {"multi-turn-min-turns", 0, "N", "questions of a conversation, at least (6)", CLI_U64, &r.min_turns},
        {"multi-turn-max-turns", 0, "N", "and at most (9)", CLI_U64, &r.max_turns},
        {"multi-turn-input-len", 0, "N", "tokens of a question (140)", CLI_U64, &r.turn_input},
        {"multi-turn-output-len", 0, "N", "tokens of an answer (100)", CLI_U64, &r.turn_output},
        {"multi-turn-range-ratio", 0, "R", "both uniform in [N(1-R), N(1+R)] (0.15)", CLI_DOUBLE, &o->data.turns.range},
        {"multi-turn-common-prefix-len", 0, "N", "tokens before the first question, of all conversations (500)",
         CLI_U64, &r.turn_common},
        {"multi-turn-prefix-len", 0, "N", "and of each of its own (1000)", CLI_U64, &r.turn_prefix},
        {"multi-turn-think-time", 0, "DURATION", "mean of the exponential pause before a further question (0s)",
         CLI_DURATION, &r.think_us},
        {"max-conversations", 0, "N", "conversations begun and not ended, at most (no limit)", CLI_U64,
         &o->max_conversations},
        {"trace-speed", 0, "X", "recorded times pass X times as fast (1)", CLI_DOUBLE, &o->data.trace_speed},
        {"trace-as-recorded", 0, NULL, "arrivals stamped equal come at once, instead of spread until the next stamp",
         CLI_FLAG, &o->data.trace_as_recorded},
        {"trace-max-delay", 0, "DURATION", "upper limit of recorded pauses (1m)", CLI_DURATION, &r.max_delay_us},
        {"request-rate", 0, "RPS", "arrivals a second, of conversations if there are any; inf: all at once (inf)",
         CLI_STR, &r.rate},
        {"burstiness", 0, "X", "shape of the gamma distributed gaps; 1: Poisson, less: bursts (1)", CLI_STR,
         &r.burstiness},
        {"max-concurrency", 0, "N", "requests under way, at most (no limit)", CLI_U64, &o->max_concurrency},
        {"ramp-up-strategy", 0, "NAME", "linear or exponential: the rate grows", CLI_STR, &r.ramp},
        {"ramp-up-start-rps", 0, "RPS", "from this", CLI_DOUBLE, &o->arrivals.ramp_start},
        {"ramp-up-end-rps", 0, "RPS", "to this", CLI_DOUBLE, &o->arrivals.ramp_end},
        {"num-warmups", 0, "N", "requests before the run that do not count (0)", CLI_U64, &o->num_warmups},
        {"request-timeout", 0, "DURATION", "a request that takes longer has failed (6h)", CLI_DURATION,
         &o->request_timeout_us},
        {"ignore-eos", 0, NULL, "ask for answers of the full length", CLI_FLAG, &o->ignore_eos},
        {"temperature", 0, "X", "sampling, sent as given", CLI_STR, &o->sampling[0][1]},
        {"top-p", 0, "X", "", CLI_STR, &o->sampling[1][1]},
        {"top-k", 0, "N", "", CLI_STR, &o->sampling[2][1]},
        {"min-p", 0, "X", "", CLI_STR, &o->sampling[3][1]},
        {"frequency-penalty", 0, "X", "", CLI_STR, &o->sampling[4][1]},
        {"presence-penalty", 0, "X", "", CLI_STR, &o->sampling[5][1]},
        {"repetition-penalty", 0, "X", "", CLI_STR, &o->sampling[6][1]},
        {"logprobs", 0, "N", "", CLI_STR, &o->sampling[7][1]},
        {"extra-body", 0, "JSON", "further members of every request's body", CLI_STR, &o->extra_body},
        {"lora-modules", 0, "NAME...", "models to ask for, one each request", CLI_LIST, &o->lora},
        {"lora-assignment", 0, "NAME", "random or round-robin (random)", CLI_STR, &r.lora_assignment},
        {"request-id-prefix", 0, "TEXT", "of x-request-id (bench-<8 hex digits>-)", CLI_STR, &o->request_id_prefix},
        {"percentile-metrics", 0, "LIST", "of ttft,tpot,itl,e2el (ttft,tpot,itl)", CLI_STR, &r.metrics},
        {"metric-percentiles", 0, "LIST", "(99)", CLI_STR, &r.percentiles},
        {"goodput", 0, "METRIC:MS...", "service levels of ttft, tpot, e2el; counts the requests that meet all",
         CLI_LIST, &o->goodput},
        {"per-pod", 0, NULL, "requests and tokens of each pod, by the x-inference-pod of the answers", CLI_FLAG,
         &o->per_pod},
        {"gateway-admin", 0, "URL", "admin address of a penstock gateway: its picks and the pods' cache use", CLI_STR,
         &o->gateway_admin},
        {"pods", 0, "HOST:PORT,...", "model servers whose cache use is sampled from /metrics", CLI_STR, &o->pods},
        {"save-result", 0, NULL, "write the figures as JSON", CLI_FLAG, &o->save_result},
        {"save-detailed", 0, NULL, "with every request's", CLI_FLAG, &o->save_detailed},
        {"append-result", 0, NULL, "behind those the file holds", CLI_FLAG, &o->append_result},
        {"result-dir", 0, "DIR", "(the current one)", CLI_STR, &o->result_dir},
        {"result-filename", 0, "FILE", "(<label>-<rate>qps-concurrency<n>-<model>-<date>.json)", CLI_STR,
         &o->result_filename},
        {"label", 0, "TEXT", "of the run, for file name, comparison and plot", CLI_STR, &o->label},
        {"metadata", 0, "KEY=VALUE...", "further members of the result", CLI_LIST, &o->meta},
        {"plot", 0, "FILE", "distributions of the latencies as .svg or .png", CLI_STR, &o->plot},
        {"compare", 0, "FILE...", "print saved results side by side (with --plot: together), and run nothing", CLI_LIST,
         &o->compare},
        {"disable-tqdm", 0, NULL, "no progress", CLI_FLAG, &o->quiet},
        {"time-scale", 0, "N",
         "the server's clock runs N times as fast: all times here, measured or given, are of that clock (1)",
         CLI_DOUBLE, &o->time_scale},
        {"tokenizer", 0, "NAME", "no effect", CLI_STR, &o->tokenizer},
        {"tokenizer-mode", 0, "NAME", "no effect", CLI_STR, &r.tokenizer_mode},
        {"trust-remote-code", 0, NULL, "no effect", CLI_FLAG, &r.trust},
        {"skip-tokenizer-init", 0, NULL, "no effect", CLI_FLAG, &r.no_tokenizer},
        {"skip-chat-template", 0, NULL, "no effect", CLI_FLAG, &r.no_template},
        {0},
    };
    const struct cli_command cmd = {
        "bench [--base-url URL] [--dataset-name NAME] [OPTION...] | bench --compare FILE...",
        "Asks a model server or gateway as many clients would and measures what they get. Options and report are those "
        "of `vllm bench "
        "serve`;\nthe docs (bench.md) tell the differences.",
        opts};
    write_out(o, argc, argv);
    int rc = cli_parse(&cmd, o->argc, o->argv, NULL);
    if (rc == CLI_GO)
        rc = take_kind(&cmd, o, &r);
    if (rc == CLI_GO)
        rc = take_arrivals(&cmd, o, &r);
    if (rc == CLI_GO)
        rc = take_data(&cmd, o, &r);
    if (rc == CLI_GO)
        rc = take_rest(&cmd, o, &r);
    if (rc == CLI_GO && !o->compare.n)
        tell_ignored(o, &r);
    return rc;
}

void bench_cli_free(struct bench_cli *o)
{
    struct cli_list *lists[] = {&o->headers, &o->lora, &o->compare, &o->goodput, &o->meta};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        cli_list_free(lists[i]);
    for (int i = 0; i < o->argc; i++)
        free(o->argv[i]);
    free(o->argv);
    *o = (struct bench_cli){0};
}
