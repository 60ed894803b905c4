/* base/log.h - structured log lines: one event, one line, logfmt or JSON.
 *
 * A line is built in a fixed per-thread buffer (4 KB; longer lines are cut at a value boundary) and given to the sink in one
 * call, so lines of several threads never interleave. The level test is one load. Values are escaped; prompts and answers
 * must never be passed in. Use:
 *     struct logline l;
 *     if (log_begin(&l, LOG_INFO, "Request Handled")) { log_str(&l, "model", m); log_u64(&l, "status", 200); log_end(&l); }
 * A line cut short ends with cut=true. One line per thread at a time: a second log_begin before log_end drops the first.
 * Every line starts with ts (UTC, RFC 3339, ms), level, msg. Thread-safe. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct logline {
    char *p;
    size_t n, cap;
};

/* sink: called with one complete line including its newline. now_us: wall clock in microseconds since the epoch. Both are
 * passed in because base does no I/O; before log_setup nothing is logged. */
void log_setup(enum log_level level, enum log_format format, void (*sink)(const char *line, size_t n), uint64_t (*now_us)(void));
void log_set_level(enum log_level level);
bool log_on(enum log_level level);
bool log_begin(struct logline *l, enum log_level level, const char *msg);
void log_str(struct logline *l, const char *key, struct str val);
void log_cstr(struct logline *l, const char *key, const char *val);
void log_u64(struct logline *l, const char *key, uint64_t val);
void log_i64(struct logline *l, const char *key, int64_t val);
void log_f(struct logline *l, const char *key, double val, int decimals);
void log_bool(struct logline *l, const char *key, bool val);
void log_raw(struct logline *l, const char *key, struct str json); /* val is JSON already: emitted as is in JSON, quoted in logfmt */
void log_end(struct logline *l);
void logf_msg(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3); /* a line with only a message */
bool log_level_parse(struct str s, enum log_level *out) MUST_USE;  /* debug info warn error off */
bool log_format_parse(struct str s, enum log_format *out) MUST_USE; /* json logfmt */

#endif
