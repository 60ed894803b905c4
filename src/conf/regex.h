/* conf/regex.h - regular expressions of routes: matched against the whole value (as Envoy does), with bounded work.
 *
 * Immutable after regex_new; any thread may match. A match that runs into its limits counts as no match, so that no
 * pattern and no value can hold a worker (mission decision 8). */
#ifndef CONF_REGEX_H
#define CONF_REGEX_H

#include "base/err.h"
#include "base/str.h"

#define REGEX_MAX_PATTERN 4096
#define REGEX_MAX_VALUE   8192 /* longer values never match */

struct conf_regex;
struct conf_regex *regex_new(struct str pattern, struct errbuf *err); /* NULL with a sentence */
void regex_free(struct conf_regex *re);                               /* NULL allowed */
bool regex_match(const struct conf_regex *re, struct str value);

#endif
