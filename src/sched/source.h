/* sched/source.h - where the load of a pool's servers is read: runtime, path, port, scheme and names, as the configuration says or as the
 * servers themselves have shown. One per pool; set by the control thread, read by the scraping thread. */
#ifndef SCHED_SOURCE_H
#define SCHED_SOURCE_H

#include "conf/types.h"

struct source;
struct source *source_new(void);
void source_free(struct source *s);                                 /* NULL allowed */
void source_set(struct source *s, const struct conf_backend *b);    /* copies what it needs; takes effect with the next scrape of each endpoint */

#endif
