/* IMF-fixdate (RFC 9110 5.6.7) without locale, time zone or libc state. */
#include "http/date.h"

/* Proleptic Gregorian date from days since 1970-01-01, counted in years that begin on 1 March so that a leap day comes
 * last. */
static void civil(uint64_t days, unsigned *year, unsigned *month, unsigned *day)
{
    uint64_t d = days + 719468; /* days since 0000-03-01 */
    uint64_t era = d / 146097, in_era = d % 146097;
    uint64_t y = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    uint64_t in_year = in_era - (365 * y + y / 4 - y / 100);
    uint64_t m = (5 * in_year + 2) / 153; /* 0 is March */
    *day = (unsigned)(in_year - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = (unsigned)(era * 400 + y + (*month <= 2));
}

static char *digits(char *p, unsigned value, unsigned n)
{
    for (unsigned i = n; i-- > 0; value /= 10)
        p[i] = (char)('0' + value % 10);
    return p + n;
}

void http_date(uint64_t unix_s, char out[HTTP_DATE_LEN + 1])
{
    static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t s = MIN(unix_s, (uint64_t)253402300799); /* the last second of the year 9999: four digits hold no more */
    unsigned year, month, day, in_day = (unsigned)(s % 86400);
    civil(s / 86400, &year, &month, &day);
    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", HTTP_DATE_LEN + 1);
    memcpy(out, days + 3 * (s / 86400 % 7), 3);
    digits(out + 5, day, 2);
    memcpy(out + 8, months + 3 * (month - 1), 3);
    digits(out + 12, year, 4);
    digits(out + 17, in_day / 3600, 2);
    digits(out + 20, in_day / 60 % 60, 2);
    digits(out + 23, in_day % 60, 2);
}
