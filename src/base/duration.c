/* base/duration.c - Go durations and those of the Gateway API. */
#include "base/duration.h"

#define US 1000ull
#define MS (1000 * US)
#define S  (1000 * MS)

static const struct unit {
    struct str name;
    uint64_t ns;
} units[] = {
    {{"ns", 2}, 1},  {{"us", 2}, US}, {{"\xc2\xb5s", 3}, US}, {{"\xce\xbcs", 3}, US},
    {{"ms", 2}, MS}, {{"s", 1}, S},   {{"m", 1}, 60 * S},     {{"h", 1}, 3600 * S},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Cuts the unit (all up to the next digit or point) from the front; 0 when it is none. */
static uint64_t take_unit(struct str *s)
{
    size_t n = 0;
    while (n < s->n && !is_digit(s->p[n]) && s->p[n] != '.')
        n++;
    struct str name = str_first(*s, n);
    *s = str_from(*s, n);
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (str_eq(units[i].name, name))
            return units[i].ns;
    return 0;
}

/* One number as integer part and fraction over a power of ten; digits beyond the 18th of a fraction count nothing. */
struct number {
    uint64_t whole, frac, scale;
};

static bool take_number(struct str *s, struct number *v)
{
    *v = (struct number){.scale = 1};
    size_t i = 0, n_digits = 0;
    for (; i < s->n && is_digit(s->p[i]); i++, n_digits++)
        if (__builtin_mul_overflow(v->whole, 10u, &v->whole) ||
            __builtin_add_overflow(v->whole, (uint64_t)(s->p[i] - '0'), &v->whole))
            return false;
    if (i < s->n && s->p[i] == '.') {
        for (i++; i < s->n && is_digit(s->p[i]); i++, n_digits++) {
            if (v->scale >= 1000000000000000000ull)
                continue;
            v->frac = v->frac * 10 + (uint64_t)(s->p[i] - '0');
            v->scale *= 10;
        }
    }
    *s = str_from(*s, i);
    return n_digits > 0;
}

/* Adds one "1.5h" to the sum of nanoseconds. */
static bool take_part(struct str *s, uint64_t *sum)
{
    struct number v;
    if (!take_number(s, &v))
        return false;
    uint64_t unit = take_unit(s), ns;
    if (unit == 0 || __builtin_mul_overflow(v.whole, unit, &ns))
        return false;
    __extension__ unsigned __int128 frac = (unsigned __int128)v.frac * unit / v.scale;
    return !__builtin_add_overflow(ns, (uint64_t)frac, &ns) && !__builtin_add_overflow(*sum, ns, sum);
}

bool duration_parse(struct str s, int64_t *out_ns)
{
    bool negative = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = str_from(s, 1);
    if (s.n == 0)
        return false;
    if (str_eq(s, STR("0"))) {
        *out_ns = 0;
        return true;
    }
    uint64_t sum = 0;
    while (s.n)
        if (!take_part(&s, &sum))
            return false;
    if (sum > (uint64_t)INT64_MAX + negative)
        return false;
    *out_ns = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return true;
}

/* One to five digits and a unit h, m, s or ms, one to four times: the pattern of GEP-2257. */
bool duration_parse_gateway(struct str s, int64_t *out_ns)
{
    size_t i = 0;
    for (unsigned n_parts = 0; i < s.n || n_parts == 0; n_parts++) {
        size_t first = i;
        while (i < s.n && is_digit(s.p[i]))
            i++;
        if (i == first || i - first > 5 || i == s.n || n_parts == 4)
            return false;
        if (s.p[i] == 'm' && i + 1 < s.n && s.p[i + 1] == 's')
            i += 2;
        else if (s.p[i] == 'h' || s.p[i] == 'm' || s.p[i] == 's')
            i++;
        else
            return false;
    }
    return duration_parse(s, out_ns);
}

/* Text is built from its end. Writes v as a decimal before `at`; returns the new start. */
static char *put_int(char *at, uint64_t v)
{
    do {
        *--at = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    return at;
}

/* Writes v / 10^digits with the fraction's trailing zeros left out. */
static char *put_frac(char *at, uint64_t v, unsigned digits)
{
    bool shown = false;
    for (; digits; digits--, v /= 10) {
        shown = shown || v % 10;
        if (shown)
            *--at = (char)('0' + v % 10);
    }
    if (shown)
        *--at = '.';
    return put_int(at, v);
}

static char *put_text(char *at, struct str s)
{
    return memcpy(at - s.n, s.p, s.n);
}

static char *put_below_second(char *at, uint64_t ns)
{
    if (ns < US)
        return put_int(put_text(at, STR("ns")), ns);
    if (ns < MS)
        return put_frac(put_text(at, STR("\xc2\xb5s")), ns, 3);
    return put_frac(put_text(at, STR("ms")), ns, 6);
}

static char *put_seconds(char *at, uint64_t ns)
{
    uint64_t minutes = ns / (60 * S);
    at = put_frac(put_text(at, STR("s")), ns % (60 * S), 9);
    if (minutes == 0)
        return at;
    at = put_int(put_text(at, STR("m")), minutes % 60);
    return minutes < 60 ? at : put_int(put_text(at, STR("h")), minutes / 60);
}

size_t duration_format(int64_t ns, char *out, size_t cap)
{
    char text[32], *end = text + sizeof(text), *at;
    uint64_t v = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    if (v == 0)
        at = put_text(end, STR("0s"));
    else
        at = v < S ? put_below_second(end, v) : put_seconds(end, v);
    if (ns < 0)
        *--at = '-';
    size_t n = (size_t)(end - at);
    if (n > cap)
        return 0;
    memcpy(out, at, n);
    if (n < cap)
        out[n] = '\0';
    return n;
}
