/* base/utf8.h - UTF-8 validation (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/str.h"

bool utf8_valid(struct str s);
size_t utf8_put(uint32_t cp, char out[4]); /* encodes; returns 1..4 */

#endif
