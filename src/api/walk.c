/* Values of any shape: one walk with an explicit stack, in three variants (check, append as compact text, hash). */
#include "api/scan.h"
#include "base/hash.h"

enum walk_mode { WALK_SKIP, WALK_TEXT, WALK_HASH };

/* What is open, per level: kind, and when hashing the hash so far and that of the key being read. */
struct walk_stack {
    uint64_t is_obj[SCAN_MAX_DEPTH / 64];
    unsigned base; /* depth at which the walk began */
};
struct walk_hash {
    uint64_t acc[SCAN_MAX_DEPTH + 1], key[SCAN_MAX_DEPTH + 1];
};

#define HASH_LITERAL 3u
#define HASH_NUMBER  4u
#define HASH_STRING  5u
#define HASH_ARRAY   6u
#define HASH_OBJECT  7u
#define HASH_KEY     8u

uint64_t scan_hash_str(struct str decoded)
{
    return hash_bytes(decoded.p, decoded.n, HASH_STRING);
}

uint64_t scan_hash_key(struct str decoded)
{
    return hash_bytes(decoded.p, decoded.n, HASH_KEY);
}

uint64_t scan_hash_member(uint64_t key, uint64_t value)
{
    return hash_mix(key, value);
}

uint64_t scan_hash_object(uint64_t sum_of_members)
{
    return hash_mix(sum_of_members, HASH_OBJECT);
}

/* A scalar at p (c is its first byte). */
static inline bool walk_scalar(struct scan *s, int c, enum walk_mode mode, uint64_t *hash)
{
    if (c == '"') {
        struct scan_str v;
        if (mode == WALK_TEXT)
            scan_emit(s, '"');
        if (!scan_string(s, &v))
            return false;
        if (mode == WALK_TEXT) {
            scan_commit(s, v.text.n);
            scan_emit(s, '"');
        } else if (mode == WALK_HASH) {
            *hash = scan_hash_str(v.text);
        }
        return true;
    }
    struct str raw = {s->p, 0};
    if (c == '-' || (c >= '0' && c <= '9')) {
        if (!scan_number(s, &raw))
            return false;
    } else {
        enum scan_lit lit;
        if (!scan_literal(s, &lit))
            return false;
        raw.n = (size_t)(s->p - raw.p);
    }
    if (mode == WALK_TEXT && !s->cut) {
        memcpy(s->out + s->n, raw.p, raw.n);
        s->n += raw.n;
    } else if (mode == WALK_HASH) {
        *hash = hash_bytes(raw.p, raw.n, c <= '9' ? HASH_NUMBER : HASH_LITERAL);
    }
    return true;
}

/* The key of the object open at level `at`. */
static inline bool walk_key(struct scan *s, enum walk_mode mode, uint64_t *key_hash)
{
    struct scan_str key;
    if (scan_peek(s) != '"')
        return scan_fail_syntax(s, "a key in quotes");
    if (mode == WALK_TEXT)
        scan_emit(s, '"');
    if (!scan_string(s, &key))
        return false;
    if (mode == WALK_TEXT) {
        scan_commit(s, key.text.n);
        scan_emit(s, '"');
        scan_emit(s, ':');
    } else if (mode == WALK_HASH) {
        *key_hash = scan_hash_key(key.text);
    }
    if (scan_peek(s) != ':')
        return scan_fail_syntax(s, "`:`");
    s->p++;
    return true;
}

static inline __attribute__((always_inline)) bool walk(struct scan *s, const enum walk_mode mode, struct walk_hash *hs,
                                                       uint64_t *hash)
{
    struct walk_stack st = {.base = s->depth};
    uint64_t h = 0;
    scan_room(s, 0);
    for (;;) {
        int c = scan_peek(s);
        bool closed = false; /* an empty container counts as a value that has ended */
        if (c == '{' || c == '[') {
            if (!scan_open(s))
                return false;
            unsigned d = s->depth - 1;
            uint64_t bit = 1ull << (d % 64);
            st.is_obj[d / 64] = c == '{' ? st.is_obj[d / 64] | bit : st.is_obj[d / 64] & ~bit;
            if (mode == WALK_TEXT)
                scan_emit(s, (char)c);
            if (mode == WALK_HASH)
                hs->acc[s->depth] = 0;
            if (scan_peek(s) != c + 2) { /* in ASCII a closing bracket is its opening one plus 2 */
                if (c == '{' && !walk_key(s, mode, mode == WALK_HASH ? &hs->key[s->depth] : NULL))
                    return false;
                continue;
            }
            closed = true;
        } else if (!walk_scalar(s, c, mode, &h)) {
            return false;
        }
        for (;;) { /* after a value (or at the bracket that closes an empty container): up as far as containers end here
                    */
            if (!closed && s->depth == st.base) {
                if (mode == WALK_HASH)
                    *hash = h;
                return true;
            }
            unsigned d = s->depth - 1;
            bool obj = st.is_obj[d / 64] >> (d % 64) & 1;
            if (!closed && mode == WALK_HASH)
                hs->acc[s->depth] =
                    obj ? hs->acc[s->depth] + scan_hash_member(hs->key[s->depth], h) : hash_mix(hs->acc[s->depth], h);
            c = scan_peek(s);
            if (c == ',' && !closed) {
                s->p++;
                if (mode == WALK_TEXT)
                    scan_emit(s, ',');
                if (obj && !walk_key(s, mode, mode == WALK_HASH ? &hs->key[s->depth] : NULL))
                    return false;
                break;
            }
            if (c != (obj ? '}' : ']'))
                return scan_fail_syntax(s, obj ? "`,` or `}`" : "`,` or `]`");
            if (mode == WALK_TEXT)
                scan_emit(s, (char)c);
            if (mode == WALK_HASH)
                h = hash_mix(hs->acc[s->depth], obj ? HASH_OBJECT : HASH_ARRAY);
            s->p++;
            s->depth--;
            closed = false;
        }
    }
}

bool scan_skip(struct scan *s)
{
    return walk(s, WALK_SKIP, NULL, NULL);
}

bool scan_text(struct scan *s)
{
    return walk(s, WALK_TEXT, NULL, NULL);
}

bool scan_hash(struct scan *s, uint64_t *hash)
{
    struct walk_hash hs;
    return walk(s, WALK_HASH, &hs, hash);
}
