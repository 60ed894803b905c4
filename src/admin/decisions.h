/* admin/decisions.h - the page of latest decisions: why each request went where it went, and what came of it. Any thread. */
#ifndef ADMIN_DECISIONS_H
#define ADMIN_DECISIONS_H

#include "base/buf.h"
#include "base/err.h"
#include "sched/port.h"

#define DECISIONS_SHOWN 100 /* per pool, where the query does not say */
#define DECISIONS_QUERY_MAX 1024 /* a longer query is refused */

struct decisions_query { /* empty: any */
    char request[DECISIONS_QUERY_MAX], pool[DECISIONS_QUERY_MAX], endpoint[DECISIONS_QUERY_MAX]; /* request id; name or key of the pool; pod
                                                                                  * name or address of the chosen endpoint, or of the one that prefills */
    uint32_t n;                                   /* newest ones per pool */
    bool html, json;                              /* format= says so */
};
/* request, pool, endpoint, n (1 to 100000), format (json, html) of a raw query string. -1 with a sentence for a value that is none. */
int decisions_query_parse(struct decisions_query *q, struct str query, struct errbuf *err);

/* {"pools":[{"key","name","namespace","kept","made","decisions":[...]}]} appended to out, newest first. */
void decisions_json(struct ports *ps, const struct decisions_query *q, struct buf *out);
/* The same as a page to read. What clients and manifests name is escaped. */
void decisions_html(struct ports *ps, const struct decisions_query *q, struct buf *out);

#endif
