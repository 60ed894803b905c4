/* `prompt` of /v1/completions, `input` of /v1/embeddings, `text` and `input_ids` of /generate, `text_input` of Triton:
 * text, list of texts, token ids, list of token id lists. */
#include "api/shape.h"

bool shape_one_text(struct scan *s)
{
    struct scan_str v;
    if (!scan_string(s, &v))
        return false;
    scan_commit(s, v.text.n);
    s->rq->prompt_bytes += v.text.n;
    s->rq->n_prompts++;
    return true;
}

static bool one_id(struct scan *s, const char *field)
{
    const char *at = s->p;
    struct str raw;
    if (!scan_number(s, &raw))
        return false;
    uint64_t v;
    if (!str_to_u64(raw, &v) || v > UINT32_MAX)
        return scan_fail(s, "invalid_field", at, "`%s` holds a token id that is no integer from 0 to 4294967295",
                         field);
    unsigned char le[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                           (unsigned char)(v >> 24)};
    scan_emit_bytes(s, le, sizeof(le));
    s->rq->prompt_token_ids++;
    return true;
}

bool shape_ids(struct scan *s, const char *field)
{
    int more;
    bool first = false;
    do {
        int c = scan_peek(s);
        if (c != '-' && (c < '0' || c > '9'))
            return scan_fail_type(s, s->p, field,
                                  "text, a list of texts, token ids, or a list of lists of token ids, not mixed");
        if (!one_id(s, field))
            return false;
        more = scan_elem(s, &first);
    } while (more > 0);
    s->rq->n_prompts++;
    return more == 0;
}

static bool id_list(struct scan *s, const char *field)
{
    bool first = true;
    if (!scan_open(s))
        return false;
    int more = scan_elem(s, &first);
    if (more == 0)
        s->rq->n_prompts++;
    return more > 0 ? shape_ids(s, field) : more == 0;
}

/* Several prompts: all texts or all lists, as the first one (at p) says; vLLM's embeddings also take objects, which are
 * hashed. */
static bool several(struct scan *s, const char *field, int kind)
{
    bool first = false;
    int more = 1;
    uint32_t before = s->rq->n_prompts;
    for (bool sep = false; more > 0; sep = true) {
        if (scan_peek(s) != kind)
            return scan_fail_type(s, s->p, field,
                                  "text, a list of texts, token ids, or a list of lists of token ids, not mixed");
        if (sep)
            scan_emit(s, SCAN_SEP_END);
        uint64_t h;
        if (kind == '"' && !shape_one_text(s))
            return false;
        if (kind == '[' && !id_list(s, field))
            return false;
        if (kind == '{') {
            if (!scan_hash(s, &h))
                return false;
            scan_emit_hash(s, h);
            s->rq->n_prompts++;
        }
        more = scan_elem(s, &first);
    }
    s->rq->n_batch = s->rq->n_prompts - before;
    return more == 0;
}

bool shape_prompt(struct scan *s, const char *field)
{
    int c = scan_peek(s);
    if (c == '"')
        return shape_one_text(s);
    if (c == 'n')
        return scan_skip(s);
    if (c != '[')
        return scan_fail_type(s, s->p, field, "text, a list of texts, token ids, or a list of lists of token ids");
    bool first = true;
    if (!scan_open(s))
        return false;
    int more = scan_elem(s, &first);
    if (more <= 0)
        return more == 0;
    c = scan_peek(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return shape_ids(s, field);
    return several(s, field, c == '[' || c == '{' ? c : '"');
}
