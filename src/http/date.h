/* http/date.h - IMF-fixdate for the Date header. */
#ifndef HTTP_DATE_H
#define HTTP_DATE_H

#include "base/str.h"

#define HTTP_DATE_LEN 29
void http_date(uint64_t unix_s, char out[HTTP_DATE_LEN + 1]); /* "Sun, 06 Nov 1994 08:49:37 GMT" */

#endif
