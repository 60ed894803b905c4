/* base/str.c - byte spans: comparison, search and numbers. */
#include "base/str.h"

#include <math.h>
#include <stdlib.h>

/* Numbers with more characters than this are refused: no exact double needs them. */
#define DOUBLE_LEN_MAX 512

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

bool str_ieq(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

static int next_of_name(struct str *s) /* -1: the end */
{
    while (s->n) {
        char c = s->p[0];
        *s = str_from(*s, 1);
        if (c != '-' && c != '_')
            return lower(c);
    }
    return -1;
}

bool str_same_name(struct str a, struct str b)
{
    for (;;) {
        int x = next_of_name(&a), y = next_of_name(&b);
        if (x != y)
            return false;
        if (x < 0)
            return true;
    }
}

bool str_ends(struct str s, struct str suffix)
{
    if (suffix.n == 0)
        return true;
    return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0;
}

struct str str_trim(struct str s)
{
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

char *str_dup(struct str s)
{
    char *d = xmalloc(s.n + 1);
    if (s.n)
        memcpy(d, s.p, s.n);
    d[s.n] = '\0';
    return d;
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    if (c)
        return c;
    return (a.n > b.n) - (a.n < b.n);
}

ptrdiff_t str_find(struct str s, struct str needle)
{
    if (needle.n == 0)
        return 0;
    if (s.n < needle.n)
        return -1;
    const char *at = memmem(s.p, s.n, needle.p, needle.n);
    return at ? at - s.p : -1;
}

bool str_to_u64(struct str s, uint64_t *out)
{
    if (s.n == 0)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

bool str_to_i64(struct str s, int64_t *out)
{
    bool negative = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = str_from(s, 1);
    uint64_t v;
    if (!str_to_u64(s, &v) || v > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

/* What a scan of the decimal grammar finds; `exact` says mantissa and exp10 hold the whole value. */
struct decimal {
    uint64_t mantissa;
    int exp10;
    bool negative, exact;
};

/* Takes the digits at s[i...] into the mantissa; returns the index behind them. */
static size_t take_digits(struct str s, size_t i, struct decimal *d, bool fraction)
{
    for (; i < s.n && is_digit(s.p[i]); i++) {
        if (d->mantissa >= UINT64_MAX / 100) {
            d->exact = false;
            continue;
        }
        d->mantissa = d->mantissa * 10 + (uint64_t)(s.p[i] - '0');
        d->exp10 -= fraction;
    }
    return i;
}

/* Takes "e+12" at s[i...]; returns the index behind it, 0 when there are no digits. */
static size_t take_exponent(struct str s, size_t i, struct decimal *d)
{
    bool negative = false;
    i++;
    if (i < s.n && (s.p[i] == '+' || s.p[i] == '-'))
        negative = s.p[i++] == '-';
    size_t first = i;
    int e = 0;
    for (; i < s.n && is_digit(s.p[i]); i++)
        e = MIN(e * 10 + (s.p[i] - '0'), 100000);
    d->exp10 += negative ? -e : e;
    return i > first ? i : 0;
}

static bool scan_decimal(struct str s, struct decimal *d)
{
    *d = (struct decimal){.exact = true};
    size_t i = 0;
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        d->negative = s.p[i++] == '-';
    size_t first = i, n_digits;
    i = take_digits(s, i, d, false);
    n_digits = i - first;
    if (i < s.n && s.p[i] == '.') {
        first = ++i;
        i = take_digits(s, i, d, true);
        n_digits += i - first;
    }
    if (n_digits == 0)
        return false;
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i = take_exponent(s, i, d);
        if (i == 0)
            return false;
    }
    return i == s.n;
}

/* Clinger's fast path: both factors are exact doubles, so one rounding gives the nearest double. */
static bool decimal_fast(const struct decimal *d, double *out)
{
    static const double pow10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (!d->exact || d->mantissa > 1ull << 53 || d->exp10 < -22 || d->exp10 > 22)
        return false;
    double v = (double)d->mantissa;
    v = d->exp10 < 0 ? v / pow10[-d->exp10] : v * pow10[d->exp10];
    *out = d->negative ? -v : v;
    return true;
}

static bool special_double(struct str s, double *out)
{
    static const struct {
        const char *name;
        double value;
    } specials[] = {{"NaN", (double)NAN}, {"+Inf", HUGE_VAL}, {"Inf", HUGE_VAL}, {"-Inf", -HUGE_VAL}};
    for (size_t i = 0; i < ARRAY_LEN(specials); i++) {
        if (str_eq_c(s, specials[i].name)) {
            *out = specials[i].value;
            return true;
        }
    }
    return false;
}

bool str_to_double(struct str s, double *out)
{
    struct decimal d;
    if (s.n == 0 || s.n > DOUBLE_LEN_MAX)
        return false;
    if (!scan_decimal(s, &d))
        return special_double(s, out);
    if (decimal_fast(&d, out))
        return true;
    char text[DOUBLE_LEN_MAX + 1];
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    double v = strtod(text, NULL);
    if (!isfinite(v))
        return false;
    *out = v;
    return true;
}
