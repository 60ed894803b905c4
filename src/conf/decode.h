/* conf/decode.h - document tree to plain structs by tables: known fields, their types, bounds and defaults; every
 * finding with its place.
 *
 * A table describes the members of one mapping. Values land at their offset in a zeroed struct from the decoder's
 * arena: strings are copied, lists become DEC_LIST, nested mappings a pointer (NULL when absent). Unknown members are
 * warnings (or ignored where the table is lenient: kinds of which we read only a part). */
#ifndef CONF_DECODE_H
#define CONF_DECODE_H

#include "conf/conf.h"
#include "conf/doc.h"

struct kv {
    struct str key, value;
    uint32_t line, col; /* of the value */
};
#define DEC_LIST(type)                                                                                                 \
    struct {                                                                                                           \
        type *v;                                                                                                       \
        uint32_t n;                                                                                                    \
    }
struct kvs {
    struct kv *v;
    uint32_t n;
};
const struct kv *kvs_find(const struct kvs *l, struct str key); /* NULL when absent */
bool kvs_get(const struct kvs *l, struct str key, struct str *value);
bool kvs_contains(const struct kvs *all,
                  const struct kvs *wanted); /* every wanted pair is there; false when wanted is empty */

struct dec {
    struct arena *arena; /* of what is decoded */
    struct conf_report *rep;
    struct str file, object;
    char path[256]; /* of the current field */
    size_t path_n;
    uint32_t errors;
};

enum field_kind {
    F_SKIP,    /* known, means nothing here */
    F_NOT_YET, /* known, reported as accepted and not in effect yet */
    F_STR,     /* struct str; min..max bytes (max 0: 4096) */
    F_ENUM,    /* int: index into words; 0 when absent */
    F_INT,     /* int64_t; min..max; def when absent */
    F_BOOL,    /* bool; def when absent */
    F_OBJ,     /* pointer to a struct of sub */
    F_LIST,    /* DEC_LIST of structs of sub; at most max */
    F_STRS,    /* DEC_LIST of struct str; at most max (0: 256) */
    F_MAP,     /* struct kvs: strings by name; at most max (0: 1024) */
    F_FN       /* by fn */
};
#define F_REQUIRED BIT(0) /* error when absent */
#define F_NONEMPTY BIT(1) /* lists and maps: at least one */

struct fields;
struct field {
    const char *name;
    enum field_kind kind;
    size_t at;
    unsigned flags;
    int64_t min, max, def;
    const struct fields *sub;
    const char *const *words; /* NULL-terminated */
    void (*fn)(struct dec *d, const struct doc *v,
               void *out); /* F_FN: decodes; F_STR, F_OBJ, F_LIST: checks afterwards, out = the value */
};
struct fields {
    const struct field *v; /* ends with a NULL name */
    size_t size;           /* of the struct */
    bool lenient;
    void (*check)(struct dec *d, const struct doc *map, void *out); /* after all members; or NULL */
};

#define FIELD_SKIP(n)                                                                                                  \
    {                                                                                                                  \
        .name = (n), .kind = F_SKIP                                                                                    \
    }
#define FIELD_LATER(n)                                                                                                 \
    {                                                                                                                  \
        .name = (n), .kind = F_NOT_YET                                                                                 \
    }
#define FIELD_SKIP_META FIELD_SKIP("apiVersion"), FIELD_SKIP("kind"), FIELD_SKIP("metadata"), FIELD_SKIP("status")
#define FIELD_END                                                                                                      \
    {                                                                                                                  \
        .name = NULL                                                                                                   \
    }
#define FIELD(n, k, t, member, ...)                                                                                    \
    {                                                                                                                  \
        .name = (n), .kind = (k), .at = offsetof(struct t, member), __VA_ARGS__                                        \
    }

/* Decodes a mapping into *out (zeroed, of fields->size). Counts d->errors; goes on after an error to find the others.
 */
void dec_fields(struct dec *d, const struct doc *map, const struct fields *f, void *out);
void *dec_new(struct dec *d, const struct doc *map, const struct fields *f);
void dec_note(struct dec *d, enum conf_severity s, const struct doc *at, const char *fmt, ...) PRINTF_LIKE(4, 5);
#define dec_error(d, at, ...) dec_note((d), CONF_ERROR, (at), __VA_ARGS__)
#define dec_warn(d, at, ...)  dec_note((d), CONF_WARNING, (at), __VA_ARGS__)
size_t dec_push(struct dec *d, const char *fmt, ...)
    PRINTF_LIKE(2, 3); /* appends to the path; returns what dec_pop takes */
void dec_pop(struct dec *d, size_t mark);
/* Ready-made checks and decoders for F_STR and F_FN. */
void dec_dns_name(struct dec *d, const struct doc *v, void *out);         /* F_STR: RFC 1123 name */
void dec_go_duration(struct dec *d, const struct doc *v, void *out);      /* F_FN, uint64_t us; 0 given = UINT64_MAX */
void dec_gateway_duration(struct dec *d, const struct doc *v, void *out); /* the same, GEP-2257 */
bool dns_name_ok(struct str s, size_t max);

void conf_report_add(struct conf_report *r, const struct conf_note *n); /* copies */

#endif
