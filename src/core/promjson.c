/* trtllm-serve's page: an array of iteration statistics, one object each. Only the newest tells of the load; elements are cut out by their brackets
 * and kept one at a time, the last is then read as JSON. */
#include "core/promtext_int.h"
#include "base/json.h"

enum { AT_START, AT_ELEMENTS, AT_END, AT_JUNK };

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void keep(struct prom *p, char c)
{
    if (p->skipping)
        return;
    if (p->line_n == PROM_LINE) {
        p->skipping = true;
        p->bad_lines++;
        p->line_n = 0;
        return;
    }
    p->line[p->line_n++] = c;
}

static void in_text(struct prom *p, char c)
{
    if (p->json_escape)
        p->json_escape = false;
    else if (c == '\\')
        p->json_escape = true;
    else if (c == '"')
        p->json_text = false;
}

/* A byte of an element. */
static void inside(struct prom *p, char c)
{
    keep(p, c);
    if (p->json_text)
        in_text(p, c);
    else if (c == '"')
        p->json_text = true;
    else if (c == '{' || c == '[')
        p->json_depth++;
    else if (c == '}' || c == ']')
        p->json_depth--;
}

static void between(struct prom *p, char c)
{
    if (c == ']') {
        p->json_at = AT_END;
    } else if (c == '{') {
        p->lines++;
        p->line_n = 0;
        p->skipping = false;
        p->json_depth = 1;
        keep(p, c);
    } else if (c != ',' && !is_space(c)) {
        p->json_at = AT_JUNK;
    }
}

void prom_json_feed(struct prom *p, struct str piece)
{
    for (size_t i = 0; i < piece.n && p->json_at != AT_JUNK; i++) {
        char c = piece.p[i];
        if (p->json_at == AT_ELEMENTS && p->json_depth)
            inside(p, c);
        else if (p->json_at == AT_ELEMENTS)
            between(p, c);
        else if (p->json_at == AT_START && c == '[')
            p->json_at = AT_ELEMENTS;
        else if (!is_space(c))
            p->json_at = AT_JUNK;
    }
}

/* ---- one element ---- */

struct iteration {
    double active, queued, max_blocks, used_blocks, block_tokens; /* below 0: not told */
};

/* Members of an object whose numbers are wanted; "kvCacheStats" holds some of them. */
static bool read_object(struct json *j, struct iteration *it, bool kv);

static bool read_member(struct json *j, struct iteration *it, bool kv)
{
    struct {
        const char *name;
        double *to;
        bool kv;
    } const members[] = {
        {"numActiveRequests", &it->active, false},   {"numQueuedRequests", &it->queued, false},   {"maxNumBlocks", &it->max_blocks, true},
        {"usedNumBlocks", &it->used_blocks, true},   {"tokensPerBlock", &it->block_tokens, true},
    };
    struct str key = j->tok;
    bool escaped = j->escaped;
    if (!kv && json_str_eq(key, escaped, STR("kvCacheStats"))) {
        struct json ahead = *j;
        if (json_next(&ahead) == JSON_OBJ) {
            *j = ahead;
            return read_object(j, it, true);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        struct json ahead = *j;
        double v;
        if (members[i].kv == kv && json_str_eq(key, escaped, str_c(members[i].name)) && json_next(&ahead) == JSON_NUMBER)
            *members[i].to = str_to_double(ahead.tok, &v) && prom_countable(v) ? v : -1;
    }
    return json_skip(j);
}

static bool read_object(struct json *j, struct iteration *it, bool kv)
{
    enum json_type t;
    while ((t = json_next(j)) == JSON_KEY)
        if (!read_member(j, it, kv))
            return false;
    return t == JSON_OBJ_END;
}

static void set_load(struct ep_load *l, const struct iteration *it)
{
    if ((l->has_running = it->active >= 0))
        l->running = it->active;
    if ((l->has_waiting = it->queued >= 0))
        l->waiting = it->queued;
    if (it->max_blocks > 0 && it->used_blocks >= 0) {
        l->has_kv = true;
        l->kv_frac = l->kv_mean = MIN(it->used_blocks / it->max_blocks, 1.0);
    }
    if (it->block_tokens < 1 || it->block_tokens > 0x1p20)
        return;
    l->block_tokens = (uint32_t)it->block_tokens;
    if (it->max_blocks <= 0x1p40)
        prom_set_capacity(l, (double)l->block_tokens * it->max_blocks);
}

void prom_json_end(struct prom *p)
{
    struct json j;
    struct iteration it = {-1, -1, -1, -1, -1};
    if (p->json_at != AT_END || p->skipping)
        return;
    if (!p->line_n) { /* no iterations */
        p->shown |= BIT(PROM_TRTLLM);
        return;
    }
    json_init(&j, (struct str){p->line, p->line_n});
    bool ok = json_next(&j) == JSON_OBJ && read_object(&j, &it, false) && json_next(&j) == JSON_END;
    p->line_n = 0;
    if (!ok) {
        p->bad_lines++;
        return;
    }
    if (it.active >= 0 || it.queued >= 0)
        p->shown |= BIT(PROM_TRTLLM);
    if (prom_wants(p, PROM_TRTLLM))
        set_load(&p->load, &it);
}
