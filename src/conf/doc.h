/* conf/doc.h - the document tree: what a YAML or JSON text says, with the place of every value in its file.
 *
 * Nodes live in the arena given and are never changed after parsing. YAML aliases share nodes, so a node may be reached
 * on several ways; `size` counts it once per way, and that sum is bounded. Plain YAML scalars are typed as Kubernetes
 * tools do (YAML 1.1 words for booleans, integers, null); quoted ones are always strings. */
#ifndef CONF_DOC_H
#define CONF_DOC_H

#include "base/arena.h"
#include "base/err.h"

#define DOC_MAX_DEPTH   64
#define DOC_MAX_NODES   2000000    /* of one document, every way counted */
#define DOC_MAX_ALIASED 10000      /* of them reached through aliases */
#define DOC_MAX_TEXT    (32u << 20) /* bytes of one file */

enum doc_kind { DOC_NULL, DOC_BOOL, DOC_INT, DOC_FLOAT, DOC_STR, DOC_SEQ, DOC_MAP };
struct doc;
struct doc_pair {
    struct str key;
    uint32_t line, col;
    const struct doc *value;
};
struct doc {
    enum doc_kind kind;
    uint32_t line, col;           /* 1-based */
    uint32_t size;                /* nodes from here on down */
    uint32_t n;                   /* SEQ, MAP: children */
    bool boolean;                 /* BOOL */
    bool plain_merge;             /* an unquoted "<<": as a key it merges */
    int64_t integer;              /* INT */
    struct str text;              /* scalars: as written, without quotes */
    const struct doc **items;     /* SEQ */
    const struct doc_pair *pairs; /* MAP */
    const struct doc_pair *dup;   /* MAP: a key that stands there twice, or NULL */
};

const char *doc_kind_name(enum doc_kind k); /* "a string", "a list", ... */
const struct doc *doc_get(const struct doc *map,
                          const char *key); /* NULL when absent, null or map is no map (NULL allowed) */
struct str doc_text(const struct doc *map, const char *key); /* text of a string member, "" otherwise */

/* Parses one YAML document (no "---" inside) or one JSON text. `line` is the number of its first line. *out stays NULL
 * for an empty document. -1 with a sentence and its place when the text is broken. */
struct doc_where {
    uint32_t line, col;
};
int doc_parse_yaml(struct arena *a, struct str text, uint32_t line, const struct doc **out, struct doc_where *at,
                   struct errbuf *err) MUST_USE;
int doc_parse_json(struct arena *a, struct str text, const struct doc **out, struct doc_where *at,
                   struct errbuf *err) MUST_USE;
/* Cuts the next document off a YAML stream at its "---" lines: the separators themselves belong to none. False at the
 * end. */
struct doc_stream {
    struct str rest;
    uint32_t line; /* of rest; begin with 1 */
};
bool doc_stream_next(struct doc_stream *s, struct str *text, uint32_t *line);

/* Builder, shared by both parsers: push values; open and close containers. All functions that may fail return false
 * with the sentence in err. */
struct doc_frame {
    enum doc_kind kind;
    uint32_t line, col, base;
    bool have_key, merge;
    struct doc_pair key;
};
struct doc_builder {
    struct arena *arena;
    struct errbuf *err;
    struct doc_pair *stack; /* children of the open containers; heap */
    uint32_t n, cap, depth;
    uint64_t nodes, aliased;
    struct doc_frame frames[DOC_MAX_DEPTH];
    const struct doc *root;
};
void doc_builder_init(struct doc_builder *b, struct arena *a, struct errbuf *err);
void doc_builder_free(struct doc_builder *b);
struct doc *doc_node(struct doc_builder *b, enum doc_kind kind, uint32_t line, uint32_t col);
bool doc_add(struct doc_builder *b, const struct doc *node,
             bool alias) MUST_USE; /* the next value; as a key when one is due */
bool doc_open(struct doc_builder *b, enum doc_kind kind, uint32_t line, uint32_t col) MUST_USE;
const struct doc *doc_close(struct doc_builder *b) MUST_USE; /* adds the finished container; NULL on error */

#endif
