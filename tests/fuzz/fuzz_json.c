/* Fuzz target: scans any bytes as JSON; what is accepted is written again and must scan to the same tokens. */
#include "base/json.h"
#include "base/utf8.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_text(enum json_type t)
{
    return t == JSON_KEY || t == JSON_STRING;
}

static void write_token(struct jsonw *w, const struct json *j, enum json_type t, struct str text)
{
    switch (t) {
    case JSON_OBJ:
        jsonw_obj(w);
        break;
    case JSON_OBJ_END:
        jsonw_obj_end(w);
        break;
    case JSON_ARR:
        jsonw_arr(w);
        break;
    case JSON_ARR_END:
        jsonw_arr_end(w);
        break;
    case JSON_KEY: /* as a string; jsonw_key takes no NUL inside */
        jsonw_str(w, text);
        buf_add_str(w->out, STR(":"));
        w->comma = false;
        break;
    case JSON_STRING:
        jsonw_str(w, text);
        break;
    default:
        jsonw_raw(w, j->tok);
    }
}

static bool rewrite(struct str text, struct buf *out, char *mem)
{
    struct json j;
    struct jsonw w;
    json_init(&j, text);
    jsonw_init(&w, out);
    for (;;) {
        enum json_type t = json_next(&j);
        CHECK(j.p >= j.start && j.p <= j.end && j.depth <= JSON_MAX_DEPTH);
        if (t == JSON_ERROR || t == JSON_END)
            return t == JSON_END;
        struct str decoded = {mem, has_text(t) ? json_unescape(j.tok, mem) : 0};
        CHECK(decoded.n <= j.tok.n && utf8_valid(decoded));
        CHECK(!has_text(t) || json_str_eq(j.tok, j.escaped, decoded));
        write_token(&w, &j, t, decoded);
    }
}

static void compare(struct str a, struct str b, char *mem)
{
    struct json x, y;
    json_init(&x, a);
    json_init(&y, b);
    for (;;) {
        enum json_type t = json_next(&x);
        CHECK(json_next(&y) == t && t != JSON_ERROR);
        if (t == JSON_END)
            return;
        if (has_text(t))
            CHECK(json_str_eq(y.tok, y.escaped, (struct str){mem, json_unescape(x.tok, mem)}));
        else
            CHECK(str_eq(x.tok, y.tok));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct buf out;
    char *mem = xmalloc(size + 1);
    buf_init(&out, 8 * size + 64);
    struct json j;
    json_init(&j, text);
    bool skipped = json_skip(&j) && json_next(&j) == JSON_END;
    bool ok = rewrite(text, &out, mem);
    CHECK(ok == skipped);
    CHECK(!out.overflow);
    if (ok)
        compare(text, buf_str(&out), mem);
    unsigned line, col;
    json_where(&j, j.p, &line, &col);
    buf_free(&out);
    free(mem);
    return 0;
}
