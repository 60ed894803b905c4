/* The two sides of /rerank and /score: a query and documents, each one item or a list of them. */
#include "api/shape.h"

#define WANT "text, an object with text, token ids, or a list of these"

static bool is_number(int c)
{
    return c == '-' || (c >= '0' && c <= '9');
}

/* The rest of a list of content parts, its first one at p. */
static bool parts(struct scan *s, const char *field)
{
    bool first = false;
    int more = 1;
    while (more > 0) {
        int c = scan_peek(s);
        if (c != '"' && c != '{')
            return scan_fail_type(s, s->p, field, WANT);
        if (!(c == '{' ? shape_part(s) : shape_text_or_json(s)))
            return false;
        more = scan_elem(s, &first);
    }
    s->rq->n_prompts++;
    return more == 0;
}

/* An item in a list that is a list itself: token ids or parts. */
static bool inner_list(struct scan *s, const char *field)
{
    bool first = true;
    if (!scan_open(s))
        return false;
    int more = scan_elem(s, &first);
    if (more <= 0) {
        s->rq->n_prompts++;
        return more == 0;
    }
    return is_number(scan_peek(s)) ? shape_ids(s, field) : parts(s, field);
}

static bool item(struct scan *s, const char *field)
{
    int c = scan_peek(s);
    if (c == '"')
        return shape_one_text(s);
    if (c == '[')
        return inner_list(s, field);
    if (c != '{')
        return scan_fail_type(s, s->p, field, WANT);
    s->rq->n_prompts++;
    return shape_part(s);
}

static bool list(struct scan *s, const char *field)
{
    bool first = true;
    if (!scan_open(s))
        return false;
    int more = scan_elem(s, &first);
    if (more > 0 && is_number(scan_peek(s)))
        return shape_ids(s, field);
    for (bool sep = false; more > 0; sep = true) {
        if (sep)
            scan_emit(s, SCAN_SEP_END);
        if (!item(s, field))
            return false;
        more = scan_elem(s, &first);
    }
    return more == 0;
}

bool shape_side(struct scan *s, const char *field, bool query)
{
    uint32_t other = s->rq->n_prompts;
    int c = scan_peek(s);
    if (c == 'n')
        return scan_skip(s);
    s->rq->n_prompts = 0;
    if (!(c == '[' ? list(s, field) : item(s, field)))
        return false;
    if (query)
        scan_emit(s, SCAN_SEP_ROLE);
    s->rq->n_prompts = MAX(s->rq->n_prompts, other);
    return true;
}
