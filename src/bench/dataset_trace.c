/* bench/dataset_trace.c - recorded loads: tables (dataset_csv.c, told by their first line), or one JSON object a line,
 * in order of arrival:
 *
 *   {"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1, 2...]}    times in milliseconds
 *   with "session_id", "turn", "delay": a conversation whose turns follow the answers; its lines stand together
 *
 * A block id stands for 512 tokens, and for everything before it: equal ids become equal text, so the caches share what
 * they shared. Known as the format of the Mooncake traces (FAST 2025). */
#include "bench/dataset.h"

#include "base/json.h"
#include "base/map.h"

#include <math.h>
#include <stdlib.h>

struct line { /* numbers: NAN when missing */
    double timestamp, input, output, delay;
    struct str session; /* raw; p NULL when missing */
    uint64_t ids_from;
    uint32_t n_ids;
};

static const char *take_ids(struct json *j, struct dataset *d, struct line *out)
{
    if (json_next(j) != JSON_ARR)
        return "\"hash_ids\" is not an array";
    out->ids_from = d->n_ids;
    out->n_ids = 0;
    enum json_type type;
    while ((type = json_next(j)) == JSON_NUMBER) {
        int64_t id;
        if (!str_to_i64(j->tok, &id))
            return "an id of \"hash_ids\" is not a whole number";
        if (out->n_ids == DATASET_MAX_TOKENS / TRACE_BLOCK)
            return "too many \"hash_ids\"";
        dataset_add_id(d, (uint64_t)id);
        out->n_ids++;
    }
    return type == JSON_ARR_END ? NULL : "an id of \"hash_ids\" is not a number";
}

static const char *take_member(struct json *j, struct dataset *d, struct line *out)
{
    static const char *const names[] = {"timestamp", "input_length", "output_length", "delay"};
    double *const values[] = {&out->timestamp, &out->input, &out->output, &out->delay};
    struct str key = j->tok;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!str_eq_c(key, names[i]))
            continue;
        if (json_next(j) != JSON_NUMBER || !str_to_double(j->tok, values[i]) || !(*values[i] >= 0))
            return "a time or length is not a number from 0 on";
        return NULL;
    }
    if (str_eq_c(key, "hash_ids"))
        return take_ids(j, d, out);
    if (str_eq_c(key, "session_id")) {
        enum json_type t = json_next(j);
        if (t != JSON_STRING && t != JSON_NUMBER)
            return "\"session_id\" is neither string nor number";
        out->session = j->tok;
        return NULL;
    }
    return json_skip(j) ? NULL : j->error;
}

static const char *take_line(struct str text, struct dataset *d, struct line *out)
{
    struct json j;
    enum json_type type;
    *out = (struct line){(double)NAN, (double)NAN, (double)NAN, (double)NAN, STR_NULL, 0, 0};
    json_init(&j, text);
    if (json_next(&j) != JSON_OBJ)
        return j.error ? j.error : "not an object";
    while ((type = json_next(&j)) == JSON_KEY) {
        const char *bad = take_member(&j, d, out);
        if (bad)
            return j.error ? j.error : bad;
    }
    if (type != JSON_OBJ_END || json_next(&j) != JSON_END)
        return j.error;
    if (isnan(out->timestamp) || isnan(out->input) || isnan(out->output))
        return "\"timestamp\", \"input_length\" and \"output_length\" are needed";
    if (out->input > DATASET_MAX_TOKENS || out->output > DATASET_MAX_TOKENS)
        return "a length is more than 16777216 tokens";
    return NULL;
}

static struct data_request *add(struct dataset *d, const struct dataset_opts *o, const struct line *l)
{
    struct data_request *r = dataset_add_prompt(d, (uint32_t)l->input, (uint32_t)l->output, l->ids_from, l->n_ids);
    if (!r)
        return NULL;
    double delay_s = isnan(l->delay) ? 0 : l->delay / 1000;
    r->think_s = (float)(MIN(delay_s, o->trace_max_delay_s) / o->trace_speed);
    return r;
}

/* Arrivals that were stamped equal are spread evenly until the next stamp: recorders round, and a burst would be an
 * artefact of that. */
static void spread(double *ms, uint32_t n)
{
    double gap = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i + 1;
        while (end < n && ms[end] <= ms[i])
            end++;
        if (end < n)
            gap = MIN(ms[end] - ms[i], (double)TRACE_GRID_MS);
        for (uint32_t k = i + 1; k < end; k++)
            ms[k] = ms[i] + gap * (k - i) / (end - i);
        i = end;
    }
}

struct reader {
    struct map sessions; /* seen: their lines must stand together */
    struct str session;  /* of the line before */
    uint32_t turn;
    double *ms;
    uint32_t cap;
    double last_ms;
};

static const char *place(struct reader *rd, struct dataset *d, struct data_request *r, const struct line *l)
{
    if (l->session.p) {
        if (rd->session.p && str_eq(rd->session, l->session)) {
            r->turn = ++rd->turn;
            return NULL;
        }
        if (map_get(&rd->sessions, l->session))
            return "a line of a session that ended before: lines of one session stand together";
        map_put(&rd->sessions, l->session, d);
        rd->session = l->session;
        rd->turn = 0;
        return NULL;
    }
    if (l->timestamp < rd->last_ms)
        return "arrives before the line before it";
    if (d->n > rd->cap) {
        rd->cap = MAX(rd->cap * 2, 4096u);
        rd->ms = xrealloc(rd->ms, rd->cap * sizeof(*rd->ms));
    }
    rd->ms[d->n - 1] = rd->last_ms = l->timestamp;
    return NULL;
}

static bool read_lines(struct dataset *d, const struct dataset_opts *o, struct reader *rd, struct errbuf *err)
{
    struct data_line l = {.rest = buf_str(&d->file)};
    while (data_line_next(&l)) {
        struct line line;
        const char *bad = take_line(l.line, d, &line);
        if (!bad && d->n && (line.session.p != NULL) != (rd->session.p != NULL))
            bad = "some lines have a \"session_id\" and some have not";
        if (!bad) {
            struct data_request *r = add(d, o, &line);
            if (!r)
                return false;
            bad = place(rd, d, r, &line);
        }
        if (bad)
            return err_set(err, "%s:%u: %s.", o->path, l.no, bad) == 0;
    }
    return true;
}

/* From milliseconds as recorded to seconds since the first. */
static void arrivals(struct dataset *d, const struct dataset_opts *o, double *ms)
{
    double first = ms[0];
    if (!o->trace_as_recorded)
        spread(ms, d->n);
    for (uint32_t i = 0; i < d->n; i++)
        ms[i] = (ms[i] - first) / 1000 / o->trace_speed;
    d->at_s = ms;
}

bool dataset_trace(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    struct data_line first = {.rest = buf_str(&d->file)};
    struct reader rd = {.session = STR_NULL};
    bool ok;
    d->block_tokens = TRACE_BLOCK;
    bool any = data_line_next(&first);
    if (any && dataset_csv_is(first.line)) {
        ok = dataset_csv(d, o, &rd.ms, err);
    } else if (any && dataset_record_is(first.line)) {
        ok = dataset_record(d, o, &rd.ms, err);
    } else if (any && !strchr("{[", first.line.p[0]) && memchr(first.line.p, ',', first.line.n)) {
        ok = err_set(err,
                     "%s:%u: a table without the columns TIMESTAMP, ContextTokens, GeneratedTokens or Timestamp, "
                     "Request tokens, Response tokens.",
                     o->path, first.no) == 0;
    } else {
        map_init(&rd.sessions, o->seed);
        ok = read_lines(d, o, &rd, err);
        map_free(&rd.sessions);
    }
    if (ok && d->n && !rd.session.p)
        arrivals(d, o, rd.ms);
    else
        free(rd.ms);
    return ok;
}
