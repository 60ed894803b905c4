/* conf/filters.c - the filters of HTTPRoute rules: header modifiers, redirect, rewrite. */
#include "conf/object.h"
#include "http/h1.h"
#include "http/uri.h"

/* Headers that carry the message itself are not for routes to change. */
static void check_header_name(struct dec *d, const struct doc *v, struct str s)
{
    static const enum h1_name own[] = {H_HOST, H_CONTENT_LENGTH, H_TRANSFER_ENCODING, H_CONNECTION,
                                       H_TE,   H_TRAILER,        H_UPGRADE,           H_KEEP_ALIVE};
    enum h1_name id = h1_name_id(s);
    if (!h1_valid_header_name(s))
        dec_error(d, v, "\"" STR_FMT "\" is no header name", STR_ARG(str_first(s, 64)));
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (id == own[i] && id != H_UNKNOWN)
            dec_error(d, v, "the header " STR_FMT " cannot be modified", STR_ARG(s));
}

static void check_name(struct dec *d, const struct doc *v, void *out)
{
    check_header_name(d, v, *(struct str *)out);
}

static void check_value(struct dec *d, const struct doc *v, void *out)
{
    if (!h1_valid_header_value(*(struct str *)out))
        dec_error(d, v, "is no value of a header: control characters");
}

static const struct fields header_value_fields = {
    .v =
        (const struct field[]){
            FIELD("name", F_STR, header_value, name, .flags = F_REQUIRED, .min = 1, .max = 256, .fn = check_name),
            FIELD("value", F_STR, header_value, value, .flags = F_REQUIRED, .max = 4096, .fn = check_value), FIELD_END},
    .size = sizeof(struct header_value)};

static void check_header_mod(struct dec *d, const struct doc *map, void *out)
{
    struct header_mod *m = out;
    const struct doc *list = doc_get(map, "remove");
    for (uint32_t i = 0; i < m->remove.n; i++) {
        size_t mark = dec_push(d, ".remove[%u]", i);
        check_header_name(d, list->items[i], m->remove.v[i]);
        dec_pop(d, mark);
    }
}
const struct fields header_mod_fields = {
    .v = (const struct field[]){FIELD("set", F_LIST, header_mod, set, .max = 16, .sub = &header_value_fields),
                                FIELD("add", F_LIST, header_mod, add, .max = 16, .sub = &header_value_fields),
                                FIELD("remove", F_STRS, header_mod, remove, .max = 16), FIELD_END},
    .size = sizeof(struct header_mod),
    .check = check_header_mod};

static const char *const path_mod_words[] = {"ReplaceFullPath", "ReplacePrefixMatch", NULL};
static void check_path_mod(struct dec *d, const struct doc *map, void *out)
{
    struct path_mod *p = out;
    struct str s = p->type == PATH_MOD_FULL ? p->full : p->prefix;
    const char *member = p->type == PATH_MOD_FULL ? "replaceFullPath" : "replacePrefixMatch";
    if (!doc_get(map, member))
        return dec_error(d, map, "type %s needs the member %s", path_mod_words[p->type], member);
    if (s.n && !uri_path_ok(s))
        dec_error(d, map, "\"" STR_FMT "\" is no path", STR_ARG(str_first(s, 64)));
    if (s.n == 0 && p->type == PATH_MOD_FULL)
        p->full = STR("/");
}
static const struct fields path_mod_fields = {
    .v = (const struct field[]){FIELD("type", F_ENUM, path_mod, type, .flags = F_REQUIRED, .words = path_mod_words),
                                FIELD("replaceFullPath", F_STR, path_mod, full, .max = 1024),
                                FIELD("replacePrefixMatch", F_STR, path_mod, prefix, .max = 1024), FIELD_END},
    .size = sizeof(struct path_mod),
    .check = check_path_mod};

static void check_host(struct dec *d, const struct doc *v, void *out)
{
    (void)out;
    if (!dns_name_ok(v->text, 253))
        dec_error(d, v, "\"" STR_FMT "\" is no host name in lower case", STR_ARG(str_first(v->text, 64)));
}

static void check_redirect(struct dec *d, const struct doc *map, void *out)
{
    struct redirect *r = out;
    if (r->scheme.n && !str_eq_c(r->scheme, "http") && !str_eq_c(r->scheme, "https"))
        dec_error(d, map, "scheme \"" STR_FMT "\" is neither http nor https", STR_ARG(str_first(r->scheme, 32)));
    if (r->status != 301 && r->status != 302 && r->status != 303 && r->status != 307 && r->status != 308)
        dec_error(d, map, "statusCode %lld is none of 301, 302, 303, 307, 308", (long long)r->status);
}
const struct fields redirect_fields = {
    .v = (const struct field[]){FIELD("scheme", F_STR, redirect, scheme, .max = 16),
                                FIELD("hostname", F_STR, redirect, hostname, .max = 253, .fn = check_host),
                                FIELD("path", F_OBJ, redirect, path, .sub = &path_mod_fields),
                                FIELD("port", F_INT, redirect, port, .min = 1, .max = 65535),
                                FIELD("statusCode", F_INT, redirect, status, .min = 300, .max = 399, .def = 302),
                                FIELD_END},
    .size = sizeof(struct redirect),
    .check = check_redirect};
const struct fields rewrite_fields = {
    .v = (const struct field[]){FIELD("hostname", F_STR, rewrite, hostname, .max = 253, .fn = check_host),
                                FIELD("path", F_OBJ, rewrite, path, .sub = &path_mod_fields), FIELD_END},
    .size = sizeof(struct rewrite)};
