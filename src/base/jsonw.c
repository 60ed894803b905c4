/* base/jsonw.c - JSON writer. */
#include "base/json.h"
#include "base/utf8.h"

#include <math.h>

void jsonw_init(struct jsonw *w, struct buf *out)
{
    *w = (struct jsonw){.out = out};
}

static void put_char(struct jsonw *w, char c)
{
    buf_add(w->out, &c, 1);
}

static void separate(struct jsonw *w)
{
    if (w->comma)
        put_char(w, ',');
    w->comma = true;
}

static void open_with(struct jsonw *w, char c)
{
    separate(w);
    put_char(w, c);
    w->comma = false;
}

static void close_with(struct jsonw *w, char c)
{
    put_char(w, c);
    w->comma = true;
}

void jsonw_obj(struct jsonw *w)
{
    open_with(w, '{');
}

void jsonw_obj_end(struct jsonw *w)
{
    close_with(w, '}');
}

void jsonw_arr(struct jsonw *w)
{
    open_with(w, '[');
}

void jsonw_arr_end(struct jsonw *w)
{
    close_with(w, ']');
}

size_t json_escape_char(const char *p, const char *end, char out[6], size_t *out_n)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[0x20] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\' || (c < 0x20 && shorts[c])) {
        out[0] = '\\';
        out[1] = c < 0x20 ? shorts[c] : *p;
        *out_n = 2;
        return 1;
    }
    if (c < 0x20) {
        memcpy(out, "\\u00", 4);
        out[4] = hex[c >> 4];
        out[5] = hex[c & 15];
        *out_n = 6;
        return 1;
    }
    size_t n = utf8_char_len(p, end);
    if (n == 0) {
        *out_n = utf8_put(0xfffd, out);
        return 1;
    }
    memcpy(out, p, n);
    *out_n = n;
    return n;
}

static void put_quoted(struct jsonw *w, struct str s)
{
    put_char(w, '"');
    const char *p = s.p, *end = s.n ? s.p + s.n : s.p;
    while (p < end) {
        const char *plain = json_plain_end(p, end);
        buf_add(w->out, p, (size_t)(plain - p));
        p = plain;
        const char *high = p < end ? utf8_skip_high(p, end) : NULL;
        if (high && high > p) {
            buf_add(w->out, p, (size_t)(high - p));
            p = high;
        } else if (p < end) {
            char escape[6];
            size_t n;
            p += json_escape_char(p, end, escape, &n);
            buf_add(w->out, escape, n);
        }
    }
    put_char(w, '"');
}

void jsonw_key(struct jsonw *w, const char *key)
{
    separate(w);
    put_quoted(w, str_c(key));
    put_char(w, ':');
    w->comma = false;
}

void jsonw_str(struct jsonw *w, struct str s)
{
    separate(w);
    put_quoted(w, s);
}

void jsonw_cstr(struct jsonw *w, const char *s)
{
    if (s)
        jsonw_str(w, str_c(s));
    else
        jsonw_null(w);
}

void jsonw_u64(struct jsonw *w, uint64_t v)
{
    separate(w);
    buf_addf(w->out, "%llu", (unsigned long long)v);
}

void jsonw_i64(struct jsonw *w, int64_t v)
{
    separate(w);
    buf_addf(w->out, "%lld", (long long)v);
}

void jsonw_f(struct jsonw *w, double v)
{
    if (!isfinite(v)) {
        jsonw_null(w);
        return;
    }
    separate(w);
    buf_addf(w->out, "%.6g", v);
}

void jsonw_bool(struct jsonw *w, bool v)
{
    jsonw_raw(w, v ? STR("true") : STR("false"));
}

void jsonw_null(struct jsonw *w)
{
    jsonw_raw(w, STR("null"));
}

void jsonw_raw(struct jsonw *w, struct str json)
{
    separate(w);
    buf_add_str(w->out, json);
}
