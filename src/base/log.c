/* base/log.c - structured log lines. */
#include "base/log.h"
#include "base/json.h"
#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define LINE_MAX_LEN 4096
#define TAIL_LEN     16 /* kept free for the mark of a cut line, the brace and the newline */

static _Atomic int cur_level = LOG_OFF;
static _Atomic int cur_format = LOG_LOGFMT;
static void (*_Atomic cur_sink)(const char *line, size_t n);
static uint64_t (*_Atomic cur_now_us)(void);
static _Thread_local char line_mem[LINE_MAX_LEN];

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

void log_setup(enum log_level level, enum log_format format, void (*sink)(const char *line, size_t n),
               uint64_t (*now_us)(void))
{
    atomic_store(&cur_level, LOG_OFF);
    atomic_store(&cur_format, (int)format);
    atomic_store(&cur_now_us, now_us);
    atomic_store(&cur_sink, sink);
    atomic_store_explicit(&cur_level, sink && now_us ? (int)level : (int)LOG_OFF, memory_order_release);
}

void log_set_level(enum log_level level)
{
    if (atomic_load(&cur_sink))
        atomic_store_explicit(&cur_level, (int)level, memory_order_release);
}

bool log_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&cur_level, memory_order_acquire) && level < LOG_OFF;
}

static bool is_json(void)
{
    return atomic_load_explicit(&cur_format, memory_order_relaxed) == LOG_JSON;
}

static bool is_cut(const struct logline *l)
{
    return l->cap == 0;
}

static bool put(struct logline *l, const char *p, size_t n)
{
    if (l->cap - l->n < n)
        return false;
    if (n)
        memcpy(l->p + l->n, p, n);
    l->n += n;
    return true;
}

/* Puts the value with its escapes; false when it does not fit. */
static bool put_escaped(struct logline *l, struct str s)
{
    const char *p = s.p, *end = s.n ? s.p + s.n : s.p;
    while (p < end) {
        const char *plain = json_plain_end(p, end);
        if (!put(l, p, (size_t)(plain - p)))
            return false;
        p = plain;
        if (p == end)
            break;
        char escape[6];
        size_t n;
        p += json_escape_char(p, end, escape, &n);
        if (!put(l, escape, n))
            return false;
    }
    return true;
}

/* Which values logfmt must quote: empty ones and those with blanks, quotes, '=', controls or broken UTF-8. */
static bool needs_quotes(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
            return true;
    }
    return s.n == 0 || !utf8_valid(s);
}

static bool put_key(struct logline *l, const char *key)
{
    size_t n = strlen(key);
    if (!is_json())
        return (l->n == 0 || put(l, " ", 1)) && put(l, key, n) && put(l, "=", 1);
    return put(l, l->n == 0 ? "{\"" : ",\"", 2) && put(l, key, n) && put(l, "\":", 2);
}

static bool put_quoted(struct logline *l, struct str s)
{
    return put(l, "\"", 1) && put_escaped(l, s) && put(l, "\"", 1);
}

/* How a value is written: a string is quoted as the format demands, bare text stands as it is. */
enum form { FORM_STRING, FORM_BARE };

static bool put_pair(struct logline *l, const char *key, struct str val, enum form form)
{
    if (!put_key(l, key))
        return false;
    if (form == FORM_STRING && (is_json() || needs_quotes(val)))
        return put_quoted(l, val);
    return put(l, val.p, val.n);
}

/* Adds one pair, or nothing: what does not fit is cut off here, and so is all that follows. */
static void add_pair(struct logline *l, const char *key, struct str val, enum form form)
{
    if (is_cut(l))
        return;
    size_t n = l->n;
    if (put_pair(l, key, val, form))
        return;
    l->n = n;
    l->cap = 0;
}

/* Year, month and day of a day count since 1970-01-01 (proleptic Gregorian). Years start in March, so that the leap day
 * is the last of its year. */
static void civil_from_days(uint64_t days, unsigned *year, unsigned *month, unsigned *day)
{
    uint64_t z = days + 719468, era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    *month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    *year = (unsigned)(yoe + era * 400 + (*month <= 2));
}

static void add_time(struct logline *l, uint64_t now_us)
{
    char text[64];
    unsigned year, month, day;
    uint64_t ms = now_us / 1000, s = ms / 1000;
    civil_from_days(s / 86400, &year, &month, &day);
    unsigned in_day = (unsigned)(s % 86400);
    int n = snprintf(text, sizeof(text), "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", year, month, day, in_day / 3600,
                     in_day / 60 % 60, in_day % 60, (unsigned)(ms % 1000));
    add_pair(l, "ts", (struct str){text, (size_t)n}, FORM_STRING);
}

bool log_begin(struct logline *l, enum log_level level, const char *msg)
{
    if (!log_on(level))
        return false;
    uint64_t (*now_us)(void) = atomic_load_explicit(&cur_now_us, memory_order_relaxed);
    *l = (struct logline){.p = line_mem, .cap = LINE_MAX_LEN - TAIL_LEN};
    add_time(l, now_us());
    add_pair(l, "level", str_c(level_names[level]), FORM_STRING);
    /* A message is cut short rather than lost; an escape takes at most six bytes. */
    struct str text = str_c(msg);
    add_pair(l, "msg", str_first(text, text.n > LINE_MAX_LEN / 8 ? LINE_MAX_LEN / 8 : text.n), FORM_STRING);
    return true;
}

void log_str(struct logline *l, const char *key, struct str val)
{
    add_pair(l, key, val, FORM_STRING);
}

void log_cstr(struct logline *l, const char *key, const char *val)
{
    add_pair(l, key, str_c(val), FORM_STRING);
}

void log_u64(struct logline *l, const char *key, uint64_t val)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)val);
    add_pair(l, key, (struct str){text, (size_t)n}, FORM_BARE);
}

void log_i64(struct logline *l, const char *key, int64_t val)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)val);
    add_pair(l, key, (struct str){text, (size_t)n}, FORM_BARE);
}

void log_f(struct logline *l, const char *key, double val, int decimals)
{
    char text[400]; /* DBL_MAX has 309 digits */
    if (!isfinite(val)) {
        add_pair(l, key, is_json() ? STR("null") : STR("NaN"), FORM_BARE);
        return;
    }
    int n = snprintf(text, sizeof(text), "%.*f", MAX(0, MIN(decimals, 17)), val);
    add_pair(l, key, (struct str){text, (size_t)n}, FORM_BARE);
}

void log_bool(struct logline *l, const char *key, bool val)
{
    add_pair(l, key, val ? STR("true") : STR("false"), FORM_BARE);
}

void log_raw(struct logline *l, const char *key, struct str json)
{
    add_pair(l, key, json.n ? json : STR("null"), is_json() ? FORM_BARE : FORM_STRING);
}

void log_end(struct logline *l)
{
    bool json = is_json(), cut = is_cut(l);
    l->cap = LINE_MAX_LEN;
    if (cut)
        put(l, json ? ",\"cut\":true" : " cut=true", json ? 11 : 9);
    put(l, json ? "}\n" : "\n", json ? 2 : 1);
    void (*sink)(const char *line, size_t n) = atomic_load_explicit(&cur_sink, memory_order_relaxed);
    sink(l->p, l->n);
}

void logf_msg(enum log_level level, const char *fmt, ...)
{
    struct logline l;
    if (!log_on(level))
        return;
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    if (log_begin(&l, level, msg))
        log_end(&l);
}

bool log_level_parse(struct str s, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (str_eq_c(s, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_format_parse(struct str s, enum log_format *out)
{
    if (!str_eq(s, STR("json")) && !str_eq(s, STR("logfmt")))
        return false;
    *out = str_eq(s, STR("json")) ? LOG_JSON : LOG_LOGFMT;
    return true;
}
