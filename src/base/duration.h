/* base/duration.h - Go durations ("300ms", "-1.5h", "2h45m"; units ns us µs ms s m h; "0" is allowed), and Gateway API
 * durations (GEP-2257) as their non-negative subset. */
#ifndef BASE_DURATION_H
#define BASE_DURATION_H

#include "base/str.h"

/* Nanoseconds. False (out untouched) for anything else, including a number without unit and overflow of int64. */
bool duration_parse(struct str s, int64_t *out_ns) MUST_USE;
/* The narrower syntax of GEP-2257: one to four times one to five digits and h, m, s or ms; no sign, no fraction. */
bool duration_parse_gateway(struct str s, int64_t *out_ns) MUST_USE;
/* Go's String(): "1h0m0s", "1.5s", "300ms". Returns the length written: 0 when cap is too small (26 always suffice), and a NUL
 * follows when there is room for it. */
size_t duration_format(int64_t ns, char *out, size_t cap);

#endif
