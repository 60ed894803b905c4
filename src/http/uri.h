/* http/uri.h - request targets: normalised paths for matching, query parameters (RFC 3986, Gateway API path rules). */
#ifndef HTTP_URI_H
#define HTTP_URI_H

#include "base/str.h"

/* True when the path may be matched and forwarded as it is: starts with '/', valid percent escapes, no NUL or control
 * bytes, no
 * "/../", "/./" segments in plain or escaped form, no backslash. */
bool uri_path_ok(struct str path);
/* Writes the path with unreserved characters unescaped and other escapes in upper case. out needs path.n bytes. */
size_t uri_path_normalise(struct str path, char *out);
/* Gateway API PathPrefix: element-wise ("/v1" matches "/v1", "/v1/x", not "/v1x"; a trailing '/' of the prefix is
 * ignored). */
bool uri_prefix_match(struct str path, struct str prefix);
/* Percent-escapes resolved, a '%' without two digits stays. out needs s.n bytes. */
size_t uri_unescape(struct str s, char *out);
/* The text as one segment of a path: everything but unreserved characters escaped. out needs 3 * s.n bytes. */
size_t uri_escape_segment(struct str s, char *out);
/* First value of a query parameter, compared decoded. The value is copied decoded to out (cap bytes) and *value points
 * there. False when absent or longer than cap. */
bool uri_query_get(struct str query, struct str name, char *out, size_t cap, struct str *value);

#endif
