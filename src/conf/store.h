/* conf/store.h - the objects of a configuration by source, and the loader's way to fill them. Private to conf. */
#ifndef CONF_STORE_H
#define CONF_STORE_H

#include "conf/object.h"

struct source {
    char *name;
    struct map objects; /* key -> struct object * */
};
struct conf_store {
    struct source *sources;
    uint32_t n_sources;
    uint64_t generation;
    struct arena arena; /* of the workload list */
    struct conf_workload *workloads;
    uint32_t n_workloads;
};

/* One (re)load of a source: everything read goes through it; loader_finish swaps the result in. */
struct loader {
    struct conf_store *store;
    struct source *source;
    struct conf_report *rep;
    struct map objects; /* what is read now */
    struct map damaged; /* files with a part that could not be read: their other objects stay */
    uint32_t n_files;
};
void loader_begin(struct loader *l, struct conf_store *s, const char *source, struct conf_report *rep);
void loader_text(struct loader *l, struct str file, struct str text);
void loader_damaged(struct loader *l, struct str file);
void loader_note(struct loader *l, enum conf_severity s, struct str file, uint32_t line, uint32_t col, const char *fmt,
                 ...) PRINTF_LIKE(6, 7);
void loader_finish(struct loader *l);

/* All objects, later sources before earlier ones on the same key, sorted by kind, namespace and name; heap, *n of them.
 */
const struct object **store_objects(const struct conf_store *s, uint32_t *n);

#endif
