/* The body of a leg of a prefill/decode request: what is taken out, what is put in. */
#include "api/api.h"
#include "base/json.h"
#include <inttypes.h>

/* One stretch of the body that is replaced by a stretch of `text`. */
struct edit {
    const char *from, *to;
    size_t text_off, text_n;
};
#define EDITS (API_MEMBERS + 2) /* members, the model, what is put in before the closing brace */

/* What a prefill is told; the nulls stand for what its answer will hold. */
#define REMOTE_DECODE                                                                                                  \
    "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,\"remote_block_ids\":null,"      \
    "\"remote_host\":null,\"remote_port\":null}"

static void put_bootstrap_item(struct buf *t, const struct api_change *c, unsigned field, uint32_t i)
{
    struct jsonw w;
    jsonw_init(&w, t);
    if (field == 0)
        jsonw_str(&w, c->bootstrap_host);
    else if (field == 1 && !c->bootstrap_port)
        jsonw_null(&w);
    else
        jsonw_u64(&w, field == 1 ? c->bootstrap_port : c->rooms[i]);
}

static void put_bootstrap(struct buf *t, const struct api_request *rq, const struct api_change *c)
{
    static const char *const keys[] = {"\"bootstrap_host\":", ",\"bootstrap_port\":", ",\"bootstrap_room\":"};
    for (unsigned field = 0; field < ARRAY_LEN(keys); field++) {
        buf_add_str(t, str_c(keys[field]));
        if (!rq->n_batch) {
            put_bootstrap_item(t, c, field, 0);
            continue;
        }
        for (uint32_t i = 0; i < rq->n_batch && !t->overflow; i++) {
            buf_add_str(t, i ? STR(",") : STR("["));
            put_bootstrap_item(t, c, field, i);
        }
        buf_add_str(t, STR("]"));
    }
}

static bool has_member(const struct api_request *rq, enum api_member_key key)
{
    for (uint32_t i = 0; i < rq->n_members; i++)
        if (rq->members[i].key == (uint32_t)key)
            return true;
    return false;
}

static void put_prefill(struct buf *t, const struct api_request *rq)
{
    buf_add_str(t, STR("\"stream\":false,\"max_tokens\":1,"));
    if (has_member(rq, MEMBER_MAX_COMPLETION_TOKENS))
        buf_add_str(t, STR("\"max_completion_tokens\":1,"));
    if (rq->kind == API_RESPONSES || has_member(rq, MEMBER_MAX_OUTPUT_TOKENS))
        buf_add_str(t, STR("\"max_output_tokens\":1,"));
    buf_add_str(t, STR("\"kv_transfer_params\":" REMOTE_DECODE));
}

/* Behind a member that goes: its comma goes with it. Without one it is the last, and the comma before it serves what is
 * put in. */
static const char *behind(const struct api_request *rq, const struct api_member *m, bool *last)
{
    const char *p = m->to;
    while (p < rq->object_end && *p != ',')
        p++;
    *last = p == rq->object_end;
    return *last ? m->to : p + 1;
}

static uint32_t take_out(const struct api_request *rq, struct edit *e, bool *comma)
{
    for (uint32_t i = 0; i < rq->n_members; i++) {
        bool last;
        e[i] = (struct edit){rq->members[i].from, behind(rq, &rq->members[i], &last), 0, 0};
        *comma &= !last;
    }
    return rq->n_members;
}

/* Appends to `text` what is put in before the closing brace. */
static bool put_in(struct buf *text, const struct api_request *rq, const struct api_change *c, bool comma)
{
    if (c->leg == API_LEG_NONE || (c->leg == API_LEG_NIXL_DECODE && !c->kv_transfer_params.n))
        return false;
    if (comma)
        buf_add_str(text, STR(","));
    if (c->leg == API_LEG_BOOTSTRAP) {
        put_bootstrap(text, rq, c);
    } else if (c->leg == API_LEG_NIXL_PREFILL) {
        put_prefill(text, rq);
    } else {
        buf_add_str(text, STR("\"kv_transfer_params\":"));
        buf_add_str(text, c->kv_transfer_params);
    }
    return true;
}

/* Puts the edit of the model's name among the others, which stand in the order of the body. */
static uint32_t insert(struct edit *e, uint32_t n, struct edit one)
{
    uint32_t at = n;
    for (; at > 0 && e[at - 1].from > one.from; at--)
        e[at] = e[at - 1];
    e[at] = one;
    return n + 1;
}

static bool new_model(const struct api_request *rq, struct str model, struct buf *text, struct edit *e)
{
    size_t off = text->n;
    size_t cap = 6 * model.n + 1;
    char *room = buf_reserve(text, cap);
    struct str head, name, tail, raw = rq->model_raw;
    if (!room || !api_splice_model(raw, rq, model, room, cap, &head, &name, &tail)) {
        text->overflow = true;
        return false;
    }
    buf_commit(text, name.n);
    *e = (struct edit){raw.p, raw.p + raw.n, off, name.n};
    return true;
}

static uint32_t add_piece(struct str *out, uint32_t n, const char *from, size_t len)
{
    if (len)
        out[n++] = (struct str){from, len};
    return n;
}

static uint32_t cut(struct str body, const struct edit *e, uint32_t n_edits, struct str text, struct str *out)
{
    const char *at = body.p;
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_edits; i++) {
        n = add_piece(out, n, at, (size_t)(e[i].from - at));
        n = add_piece(out, n, text.p + e[i].text_off, e[i].text_n);
        at = e[i].to;
    }
    return add_piece(out, n, at, (size_t)(body.p + body.n - at));
}

uint32_t api_pieces(struct str body, const struct api_request *rq, const struct api_change *change, struct buf *text,
                    struct str out[API_PIECES])
{
    struct edit e[EDITS];
    uint32_t n = 0;
    bool comma = !rq->object_empty;
    buf_clear(text);
    if (change->leg != API_LEG_NONE && (!rq->object_end || rq->forbidden))
        return 0;
    if (change->leg == API_LEG_NIXL_PREFILL)
        n = take_out(rq, e, &comma);
    struct edit one;
    if (change->model.p && rq->model_raw.p && new_model(rq, change->model, text, &one))
        n = insert(e, n, one);
    size_t off = text->n;
    if (put_in(text, rq, change, comma))
        e[n++] = (struct edit){rq->object_end, rq->object_end, off, text->n - off};
    if (text->overflow)
        return 0;
    if (!n) {
        out[0] = body;
        return 1;
    }
    return cut(body, e, n, buf_str(text), out);
}

/* Whether a value (its first token t just read) holds anything but empty lists; then the scanner is behind the value.
 */
static bool any_blocks(struct json *j, enum json_type t, bool *any)
{
    unsigned depth = 0;
    *any = false;
    do {
        if (t == JSON_ERROR || t == JSON_END)
            return false;
        bool opens = t == JSON_ARR || t == JSON_OBJ, closes = t == JSON_ARR_END || t == JSON_OBJ_END;
        *any |= t != JSON_ARR && t != JSON_ARR_END && t != JSON_NULL;
        depth = depth + opens - closes;
    } while (depth && (t = json_next(j)) != JSON_ERROR);
    return depth == 0;
}

/* kv_transfer_params, its `{` just read. *usable: there is something to fetch. */
static bool params_object(struct json *j, bool *usable)
{
    enum json_type t;
    bool any = false, empty = false;
    *usable = false;
    while ((t = json_next(j)) == JSON_KEY) {
        bool blocks = json_str_eq(j->tok, j->escaped, STR("remote_block_ids"));
        if (!any_blocks(j, json_next(j), &any))
            return false;
        *usable = true;
        empty |= blocks && !any;
    }
    *usable &= !empty;
    return t == JSON_OBJ_END;
}

/* As api_kv_transfer_params, where the answer is known to begin with `{`, which was just read. */
static int find_params(struct json *j, struct str *params)
{
    enum json_type t;
    bool usable = false;
    while ((t = json_next(j)) == JSON_KEY) {
        bool ours = json_str_eq(j->tok, j->escaped, STR("kv_transfer_params"));
        struct json at_value = *j;
        usable &= !ours; /* of two the later one counts */
        if (!ours || json_next(j) != JSON_OBJ) {
            *j = at_value;
            if (!json_skip(j))
                return -1;
            continue;
        }
        const char *from = j->p - 1;
        if (!params_object(j, &usable))
            return -1;
        *params = (struct str){from, (size_t)(j->p - from)};
    }
    return t == JSON_OBJ_END && json_next(j) == JSON_END ? usable : -1;
}

int api_kv_transfer_params(struct str answer, struct str *params)
{
    struct json j;
    json_init(&j, answer);
    int rc = json_next(&j) == JSON_OBJ ? find_params(&j, params) : -1;
    if (rc <= 0)
        *params = STR_NULL;
    return rc;
}
