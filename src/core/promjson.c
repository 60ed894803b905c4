/* trtllm-serve's page: an array of iteration statistics, one object each. Only the newest tells of the load; elements
 * are cut out by their brackets and kept one at a time, the last is then read as JSON. */
#include "core/promtext_int.h"
#include "base/json.h"

enum { AT_START, AT_ELEMENTS, AT_END, AT_JUNK };

static void keep(struct prom *p, struct str s)
{
    if (p->skipping)
        return;
    if (s.n > PROM_LINE - p->line_n) {
        p->skipping = true;
        p->bad_lines++;
        p->line_n = 0;
        return;
    }
    memcpy(p->line + p->line_n, s.p, s.n);
    p->line_n += (uint32_t)s.n;
}

/* The bytes that matter to the brackets, outside of strings. */
static const bool matters[256] = {['"'] = true, ['{'] = true, ['['] = true, ['}'] = true, [']'] = true};

static void step(struct prom *p, char c)
{
    if (c == '"')
        p->json_text = true;
    else
        p->json_depth += c == '{' || c == '[' ? 1u : -1u;
}

/* Within a string: behind its end, or all of it. */
static size_t through_text(struct prom *p, struct str s)
{
    size_t n = 0;
    if (p->json_escape && s.n)
        n = 1;
    p->json_escape = false;
    for (; n < s.n; n++) {
        if (s.p[n] == '"') {
            p->json_text = false;
            return n + 1;
        }
        if (s.p[n] == '\\' && ++n == s.n) {
            p->json_escape = true;
            break;
        }
    }
    return s.n;
}

/* Bytes of an element, up to its end. Returns how many. */
static size_t inside(struct prom *p, struct str s)
{
    size_t n = 0;
    while (n < s.n && p->json_depth) {
        if (p->json_text)
            n += through_text(p, str_from(s, n));
        else if (matters[(uint8_t)s.p[n++]])
            step(p, s.p[n - 1]);
    }
    keep(p, str_first(s, n));
    return n;
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
        keep(p, STR("{"));
    } else if (c != ',' && !prom_is_space(c)) {
        p->json_at = AT_JUNK;
    }
}

void prom_json_feed(struct prom *p, struct str piece)
{
    for (size_t i = 0; i < piece.n && p->json_at != AT_JUNK;) {
        if (p->json_at == AT_ELEMENTS && p->json_depth) {
            i += inside(p, str_from(piece, i));
            continue;
        }
        char c = piece.p[i++];
        if (p->json_at == AT_ELEMENTS)
            between(p, c);
        else if (p->json_at == AT_START && c == '[')
            p->json_at = AT_ELEMENTS;
        else if (!prom_is_space(c))
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
        {"numActiveRequests", &it->active, false},   {"numQueuedRequests", &it->queued, false},
        {"maxNumBlocks", &it->max_blocks, true},     {"usedNumBlocks", &it->used_blocks, true},
        {"tokensPerBlock", &it->block_tokens, true},
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
        if (members[i].kv == kv && json_str_eq(key, escaped, str_c(members[i].name)) &&
            json_next(&ahead) == JSON_NUMBER)
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
    if (it->block_tokens < 1 || it->block_tokens > PROM_BLOCK_MAX)
        return;
    l->block_tokens = (uint32_t)it->block_tokens;
    if (it->max_blocks <= PROM_BLOCKS_MAX)
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
