/* base/utf8.h - UTF-8 validation (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/str.h"

bool utf8_valid(struct str s);
/* Length (1..4) of the valid character at p, 0 when there is none. */
size_t utf8_char_len(const char *p, const char *end);
/* Skips the bytes >= 0x80 that start at p; NULL when they are not whole valid characters. */
const char *utf8_skip_high(const char *p, const char *end);
size_t utf8_put(uint32_t cp, char out[4]); /* encodes (U+FFFD for what is no character); returns 1..4 */

#endif
