/* bench/dataset_csv.c - recorded loads as published tables, one request a row, told by the names in the first line:
 *
 *   Azure (LLM inference traces of 2023 and 2024)   TIMESTAMP,ContextTokens,GeneratedTokens
 *       2023-11-16 18:15:46.6805900,374,44          2024-05-10 00:00:00.009930+00:00,2162,5
 *   BurstGPT    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
 *       5,ChatGPT,472,18,490,Conversation log       times in seconds; no response tokens: it failed, and is left out
 *
 * Columns are found by their names, so further ones do no harm. Nothing is known of what prompts share: each has its
 * own text. */
#include "bench/dataset.h"

#include <stdlib.h>

#define MAX_COLUMNS 64

struct form {
    const char *time, *input, *output;
    bool dated; /* the time is a date; else seconds */
    bool fails; /* rows without output tokens are failures */
};
static const struct form forms[] = {{"TIMESTAMP", "ContextTokens", "GeneratedTokens", true, false},
                                    {"Timestamp", "Request tokens", "Response tokens", false, true}};

struct columns { /* where the form's columns stand */
    const struct form *form;
    unsigned time, input, output;
};

/* The next field of a row, without quotes around it. False behind the last. */
static bool next_field(struct str *row, struct str *out)
{
    if (!row->p)
        return false;
    bool quoted = row->n && row->p[0] == '"';
    size_t n = quoted;
    while (n < row->n && row->p[n] != (quoted ? '"' : ','))
        n++;
    *out = str_first(str_from(*row, quoted), n - quoted);
    while (n < row->n && row->p[n] != ',')
        n++;
    *row = n < row->n ? str_from(*row, n + 1) : STR_NULL;
    return true;
}

static bool find_columns(struct str line, struct columns *out)
{
    struct str fields[MAX_COLUMNS], field;
    unsigned n = 0;
    if (str_starts(line, STR("\xef\xbb\xbf")))
        line = str_from(line, 3);
    while (n < MAX_COLUMNS && next_field(&line, &field))
        fields[n++] = str_trim(field);
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        struct columns c = {&forms[f], MAX_COLUMNS, MAX_COLUMNS, MAX_COLUMNS};
        for (unsigned i = n; i-- > 0;) {
            c.time = str_eq_c(fields[i], c.form->time) ? i : c.time;
            c.input = str_eq_c(fields[i], c.form->input) ? i : c.input;
            c.output = str_eq_c(fields[i], c.form->output) ? i : c.output;
        }
        *out = c;
        if (c.time < MAX_COLUMNS && c.input < MAX_COLUMNS && c.output < MAX_COLUMNS)
            return true;
    }
    return false;
}

bool dataset_csv_is(struct str first_line)
{
    struct columns c;
    return find_columns(first_line, &c);
}

/* ---- times ---- */

static bool digits(struct str *s, unsigned n, unsigned *out)
{
    *out = 0;
    for (unsigned i = 0; i < n; i++) {
        if (i >= s->n || s->p[i] < '0' || s->p[i] > '9')
            return false;
        *out = *out * 10 + (unsigned)(s->p[i] - '0');
    }
    *s = str_from(*s, n);
    return true;
}

static bool mark(struct str *s, char a, char b)
{
    if (!s->n || (s->p[0] != a && s->p[0] != b))
        return false;
    *s = str_from(*s, 1);
    return true;
}

/* Days since 1970-01-01 of the Gregorian calendar: years begin with March, so the leap day is their last. */
static int64_t days_of(unsigned year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2);
    unsigned m = (month + 9) % 12;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* Behind the seconds: fraction and offset from UTC, both optional. */
static bool tail_of_time(struct str s, double *fraction, int *minutes)
{
    double unit = 0.1;
    *fraction = 0;
    *minutes = 0;
    if (mark(&s, '.', ',')) {
        if (!s.n || s.p[0] < '0' || s.p[0] > '9')
            return false;
        for (; s.n && s.p[0] >= '0' && s.p[0] <= '9'; s = str_from(s, 1), unit /= 10)
            *fraction += unit * (s.p[0] - '0');
    }
    if (mark(&s, 'Z', 'z') || !s.n)
        return s.n == 0;
    bool minus = s.p[0] == '-';
    unsigned h, m = 0;
    if (!mark(&s, '+', '-') || !digits(&s, 2, &h) || h > 23)
        return false;
    (void)mark(&s, ':', ':');
    if (s.n && (!digits(&s, 2, &m) || m > 59))
        return false;
    *minutes = (int)(h * 60 + m) * (minus ? -1 : 1);
    return s.n == 0;
}

static bool date_ms(struct str s, double *out)
{
    unsigned year, month, day, h, m, sec;
    double fraction;
    int offset;
    if (!digits(&s, 4, &year) || !mark(&s, '-', '/') || !digits(&s, 2, &month) || !mark(&s, '-', '/') ||
        !digits(&s, 2, &day) || !mark(&s, ' ', 'T') || !digits(&s, 2, &h) || !mark(&s, ':', ':') ||
        !digits(&s, 2, &m) || !mark(&s, ':', ':') || !digits(&s, 2, &sec))
        return false;
    if (!month || month > 12 || !day || day > 31 || h > 23 || m > 59 || sec > 60 ||
        !tail_of_time(s, &fraction, &offset))
        return false;
    int64_t seconds = days_of(year, month, day) * 86400 + h * 3600 + ((int64_t)m - offset) * 60 + sec;
    *out = ((double)seconds + fraction) * 1000;
    return true;
}

/* ---- rows ---- */

struct row {
    double ms, input, output;
};

/* A count; "12.0", as some tools write whole numbers, is one too. */
static bool count_of(struct str s, double *out)
{
    return str_to_double(s, out) && *out >= 0 && *out <= DATASET_MAX_TOKENS;
}

static const char *take_row(struct str line, const struct columns *c, struct row *out)
{
    unsigned last = MAX(MAX(c->time, c->input), c->output), i = 0;
    struct str field;
    for (; i <= last && next_field(&line, &field); i++) {
        field = str_trim(field);
        if (i == c->time && c->form->dated && !date_ms(field, &out->ms))
            return "the time is not like 2023-11-16 18:15:46.68059";
        if (i == c->time && !c->form->dated && !(str_to_double(field, &out->ms) && out->ms >= 0 && out->ms < 1e12))
            return "the time is not a number of seconds from 0 on";
        if ((i == c->input && !count_of(field, &out->input)) || (i == c->output && !count_of(field, &out->output)))
            return "a number of tokens is not a number from 0 to 16777216";
    }
    if (!c->form->dated)
        out->ms *= 1000;
    return i > last ? NULL : "fewer columns than the first line";
}

static bool read_rows(struct dataset *d, const struct dataset_opts *o, struct data_line *l, const struct columns *c,
                      double **ms, struct errbuf *err)
{
    uint32_t cap = 0;
    while ((!o->num_prompts || d->n < o->num_prompts) && data_line_next(l)) {
        struct row row = {0, 0, 0};
        const char *bad = take_row(l->line, c, &row);
        if (!bad && d->n && row.ms < (*ms)[d->n - 1])
            bad = "arrives before the row before it";
        if (bad)
            return err_set(err, "%s:%u: %s.", o->path, l->no, bad) == 0;
        if (c->form->fails && row.output < 1) {
            d->left_out++;
            continue;
        }
        if (!dataset_add_prompt(d, (uint32_t)row.input, (uint32_t)row.output, 0, 0))
            return false;
        if (d->n > cap) {
            cap = MAX(cap * 2, 4096u);
            *ms = xrealloc(*ms, cap * sizeof(**ms));
        }
        (*ms)[d->n - 1] = row.ms;
    }
    return true;
}

bool dataset_csv(struct dataset *d, const struct dataset_opts *o, double **ms, struct errbuf *err)
{
    struct data_line l = {.rest = buf_str(&d->file)};
    struct columns c;
    *ms = NULL;
    return data_line_next(&l) && find_columns(l.line, &c) && read_rows(d, o, &l, &c, ms, err);
}
