/* `sampling_params` of /generate. */
#include "api/shape.h"

/* The larger one counts: a list has one object per prompt, and the request is as long as its longest. */
static bool one_object(struct scan *s)
{
    struct scan_str key;
    struct api_request *rq = s->rq;
    bool first = true, found, seen[2] = {false, false};
    int more;
    if (!scan_open(s))
        return false;
    while ((more = scan_key(s, &key, &first)) > 0) {
        bool is_n = str_eq(key.text, STR("n"));
        uint64_t v = 0;
        if (!is_n && !str_eq(key.text, STR("max_new_tokens"))) {
            if (!scan_skip(s))
                return false;
            continue;
        }
        if (seen[is_n])
            return scan_fail_dup(s, s->p, is_n ? "n" : "max_new_tokens");
        seen[is_n] = true;
        if (!shape_count(s, is_n ? "sampling_params.n" : "sampling_params.max_new_tokens", &v, &found))
            return false;
        if (found && is_n) {
            rq->n = MAX(rq->n, (uint32_t)MIN(v, UINT32_MAX));
        } else if (found) {
            rq->max_tokens = MAX(rq->max_tokens, v);
            rq->has_max_tokens = true;
        }
    }
    return more == 0;
}

bool shape_sampling_params(struct scan *s)
{
    bool first = true;
    int more, c = scan_peek(s);
    if (c == 'n')
        return scan_skip(s);
    if (c == '{')
        return one_object(s);
    if (c != '[')
        return scan_fail_type(s, s->p, "sampling_params", "an object or a list of objects");
    if (!scan_open(s))
        return false;
    while ((more = scan_elem(s, &first)) > 0) {
        if (scan_peek(s) != '{')
            return scan_fail_type(s, s->p, "sampling_params", "an object or a list of objects");
        if (!one_object(s))
            return false;
    }
    return more == 0;
}
