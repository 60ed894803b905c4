/* Entries of the prefix index: chunked slab, segmented open-addressing table, one holder inline, several as list or
 * bitmap. */
#include "core/prefix_entry.h"
#include "base/hash.h"
#include <stdlib.h>
#include <string.h>

/* ---- table ---- */

static uint64_t mix(const struct entry_store *st, uint64_t hash)
{
    return hash_mix(hash, st->seed);
}

/* What a table slot keeps of the mixed hash: enough to find the home position again without touching the entry. */
static uint32_t tag(uint64_t m)
{
    return (uint32_t)(m >> 16);
}

/* Any capacity will do, and entries lie in the order of their tags: to copy a table is to read and write it once. */
static uint32_t home(uint64_t m, uint32_t cap)
{
    return (uint32_t)((uint64_t)tag(m) * cap >> 32);
}

static uint32_t after(uint32_t p, uint32_t cap)
{
    return p + 1 == cap ? 0 : p + 1;
}

static const struct entry_seg *seg_of(const struct entry_store *st, uint64_t m)
{
    return &st->seg[m >> (64 - ENTRY_SEG_BITS)];
}

static uint32_t seg_find(const struct entry_store *st, uint64_t hash, uint64_t m)
{
    const struct entry_seg *g = seg_of(st, m);
    if (!g->cap)
        return ENTRY_NONE;
    for (uint32_t p = home(m, g->cap); g->v[p]; p = after(p, g->cap)) {
        uint32_t id = (uint32_t)g->v[p];
        if ((uint32_t)(g->v[p] >> 32) == tag(m) && entries_at(st, id)->hash == hash)
            return id;
    }
    return ENTRY_NONE;
}

/* Whose tag fits: nearly always the one, and no entry was looked at. */
static uint32_t seg_guess(const struct entry_seg *g, uint64_t m)
{
    if (!g->cap)
        return ENTRY_NONE;
    for (uint32_t p = home(m, g->cap); g->v[p]; p = after(p, g->cap))
        if ((uint32_t)(g->v[p] >> 32) == tag(m))
            return (uint32_t)g->v[p];
    return ENTRY_NONE;
}

uint32_t entries_find(const struct entry_store *st, uint64_t hash)
{
    return seg_find(st, hash, mix(st, hash));
}

static void expect(const struct entry_store *st, uint64_t m)
{
    const struct entry_seg *g = seg_of(st, m);
    if (g->cap)
        __builtin_prefetch(&g->v[home(m, g->cap)]);
}

void entries_find_many(const struct entry_store *st, const uint64_t *h, uint32_t n, uint32_t *ids)
{
    uint64_t m[ENTRY_BATCH];
    for (uint32_t i = 0; i < n; i++)
        expect(st, m[i] = mix(st, h[i]));
    for (uint32_t i = 0; i < n; i++)
        if ((ids[i] = seg_guess(seg_of(st, m[i]), m[i])))
            __builtin_prefetch(entries_at(st, ids[i]));
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] && entries_at(st, ids[i])->hash != h[i])
            ids[i] = seg_find(st, h[i], m[i]);
        if (ids[i] && entries_at(st, ids[i])->form == FORM_WIDE)
            __builtin_prefetch(entries_at(st, ids[i])->u.wide);
    }
}

void entries_expect(const struct entry_store *st, const uint64_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        expect(st, mix(st, h[i]));
}

uint32_t entries_guess(const struct entry_store *st, uint64_t hash)
{
    uint64_t m = mix(st, hash);
    return seg_guess(seg_of(st, m), m);
}

void entries_expect_climb(const struct entry_store *st, uint32_t id, uint32_t n)
{
    for (uint32_t k = 0; k < n && k < id; k += 2) /* two to a cache line */
        __builtin_prefetch(entries_at(st, id - k));
}

bool entries_climb(const struct entry_store *st, uint32_t id, const uint64_t *h, uint32_t n, uint32_t *ids)
{
    for (uint32_t i = n; i-- > 0; id = entries_at(st, id)->parent) {
        if (!id || entries_at(st, id)->hash != h[i])
            return false;
        ids[i] = id;
    }
    return true;
}

void entries_expect_reap(const struct entry_store *st, uint32_t id, uint32_t n)
{
    entries_expect_climb(st, id, 2 * n); /* those of the next call, too */
    for (; id && n; n--) {
        const struct entry *e = entries_at(st, id);
        expect(st, mix(st, e->hash));
        id = e->parent;
    }
}

static void seg_resize(struct entry_store *st, struct entry_seg *g, uint32_t cap)
{
    struct entry_seg old = *g;
    g->v = xcalloc(cap, sizeof(g->v[0]));
    g->cap = cap;
    for (uint32_t i = 0; i < old.cap; i++) {
        if (!old.v[i])
            continue;
        uint32_t p = (uint32_t)((old.v[i] >> 32) * cap >> 32);
        while (g->v[p])
            p = after(p, cap);
        g->v[p] = old.v[i];
    }
    free(old.v);
    st->bytes += sizeof(g->v[0]) * cap;
    st->bytes -= sizeof(g->v[0]) * old.cap;
}

/* Way from a to b. */
static uint32_t distance(uint32_t a, uint32_t b, uint32_t cap)
{
    return b >= a ? b - a : b + cap - a;
}

static void seg_remove(struct entry_store *st, uint64_t hash, uint32_t id)
{
    uint64_t m = mix(st, hash);
    struct entry_seg *g = &st->seg[m >> (64 - ENTRY_SEG_BITS)];
    uint32_t cap = g->cap, p = home(m, cap);
    while ((uint32_t)g->v[p] != id)
        p = after(p, cap);
    for (uint32_t q = after(p, cap); g->v[q]; q = after(q, cap)) { /* backward shift: no tombstones */
        uint32_t want = (uint32_t)((g->v[q] >> 32) * cap >> 32);
        if (distance(want, q, cap) < distance(p, q, cap))
            continue;
        g->v[p] = g->v[q];
        p = q;
    }
    g->v[p] = 0;
    g->n--;
    if (cap > 64 && g->n * 4 < cap)
        seg_resize(st, g, cap / 2);
}

/* ---- entries ---- */

void entries_init(struct entry_store *st, uint64_t seed)
{
    *st = (struct entry_store){.seed = seed, .n_ids = 1}; /* id 0 is ENTRY_NONE */
}

static void holders_free(struct entry *e)
{
    if (e->form == FORM_LIST)
        free(e->u.list);
    else if (e->form == FORM_WIDE)
        free(e->u.wide);
}

void entries_free(struct entry_store *st)
{
    for (uint32_t i = 0; i < ENTRY_SEGS; i++) {
        for (uint32_t p = 0; p < st->seg[i].cap; p++)
            if (st->seg[i].v[p])
                holders_free(entries_at(st, (uint32_t)st->seg[i].v[p]));
        free(st->seg[i].v);
    }
    for (uint32_t i = 0; i < st->n_chunks; i++)
        free(st->chunks[i]);
    free(st->chunks);
    entries_init(st, st->seed);
}

static uint32_t take_id(struct entry_store *st)
{
    uint32_t id = st->free_id;
    if (id) {
        st->free_id = entries_at(st, id)->parent;
        return id;
    }
    id = st->n_ids++;
    if (id >> ENTRY_CHUNK_BITS == st->n_chunks) {
        size_t size = sizeof(struct entry) * BIT(ENTRY_CHUNK_BITS);
        st->chunks = xrealloc(st->chunks, (st->n_chunks + 1) * sizeof(st->chunks[0]));
        struct entry *v = aligned_alloc(64, size);
        CHECK(v);
        memset(v, 0, size);
        st->chunks[st->n_chunks++] = v;
        st->bytes += size + sizeof(st->chunks[0]);
    }
    return id;
}

uint32_t entries_get(struct entry_store *st, uint64_t hash, uint32_t parent, bool coarse)
{
    uint64_t m = mix(st, hash);
    struct entry_seg *g = &st->seg[m >> (64 - ENTRY_SEG_BITS)];
    if ((g->n + 1) * 4 > g->cap * 3)
        seg_resize(st, g, MAX(8u, g->cap + g->cap / 4)); /* small steps: a table is never much larger than needed */
    uint32_t p = home(m, g->cap);
    for (; g->v[p]; p = after(p, g->cap))
        if ((uint32_t)(g->v[p] >> 32) == tag(m) && entries_at(st, (uint32_t)g->v[p])->hash == hash)
            return (uint32_t)g->v[p];
    uint32_t id = take_id(st);
    *entries_at(st, id) = (struct entry){.hash = hash, .parent = parent, .coarse = coarse};
    if (parent)
        entries_at(st, parent)->children++;
    g->v[p] = (uint64_t)tag(m) << 32 | id;
    g->n++;
    st->n_entries++;
    return id;
}

void entries_reap(struct entry_store *st, uint32_t id)
{
    while (id) {
        struct entry *e = entries_at(st, id);
        if (e->n || e->children)
            return;
        uint32_t parent = e->parent;
        seg_remove(st, e->hash, id);
        *e = (struct entry){.parent = st->free_id};
        st->free_id = id;
        st->n_entries--;
        if (parent)
            entries_at(st, parent)->children--;
        id = parent;
    }
}

/* ---- holders ---- */

static uint32_t *wide_stamps(const struct wide *w)
{
    return (uint32_t *)(uintptr_t)(w->bits + w->n_words);
}

static size_t wide_size(uint32_t n_words, uint32_t cap)
{
    return sizeof(struct wide) + n_words * sizeof(uint64_t) + cap * sizeof(uint32_t);
}

static bool wide_has(const struct wide *w, uint32_t slot)
{
    return slot / 64 < w->n_words && (w->bits[slot / 64] >> slot % 64 & 1);
}

/* Set bits below `slot`. The compiler's popcount is a library call without -mpopcnt; this sums several words byte-wise.
 */
static uint32_t wide_rank(const struct wide *w, uint32_t slot)
{
    uint64_t pairs = 0, total = 0;
    uint32_t last = slot / 64;
    for (uint32_t i = 0; i <= last && i < w->n_words; i++) {
        uint64_t x = w->bits[i];
        if (i == last)
            x &= slot % 64 ? ~0ull >> (64 - slot % 64) : 0;
        x -= x >> 1 & 0x5555555555555555ull;
        x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
        pairs += (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
        if (i % 16 == 15) { /* bytes hold at most 16 * 8 here */
            total +=
                ((pairs & 0x00ff00ff00ff00ffull) + (pairs >> 8 & 0x00ff00ff00ff00ffull)) * 0x0001000100010001ull >> 48;
            pairs = 0;
        }
    }
    total += ((pairs & 0x00ff00ff00ff00ffull) + (pairs >> 8 & 0x00ff00ff00ff00ffull)) * 0x0001000100010001ull >> 48;
    return (uint32_t)total;
}

static struct holder *holder_array(const struct entry *e)
{
    return e->form == FORM_LIST ? e->u.list : (struct holder *)(uintptr_t)&e->u.in;
}

uint32_t *holder_get(const struct entry *e, uint32_t slot)
{
    if (e->form == FORM_WIDE)
        return wide_has(e->u.wide, slot) ? &wide_stamps(e->u.wide)[wide_rank(e->u.wide, slot)] : NULL;
    struct holder *v = holder_array(e);
    for (uint32_t i = 0; i < e->n; i++)
        if (v[i].slot == slot)
            return &v[i].stamp;
    return NULL;
}

/* A new wide with room for slot and cap stamps, holding what w holds (w may be NULL; it is freed). */
static struct wide *wide_grow(struct entry_store *st, struct wide *w, uint32_t n, uint32_t slot, uint32_t cap)
{
    uint32_t n_words = MAX(w ? w->n_words : 1, slot / 64 + 1);
    struct wide *to = xmalloc(wide_size(n_words, cap));
    *to = (struct wide){.n_words = n_words, .cap = cap};
    memset(to->bits, 0, n_words * sizeof(uint64_t));
    if (w) {
        memcpy(to->bits, w->bits, w->n_words * sizeof(uint64_t));
        memcpy(wide_stamps(to), wide_stamps(w), n * sizeof(uint32_t));
        st->bytes -= wide_size(w->n_words, w->cap);
        free(w);
    }
    st->bytes += wide_size(n_words, cap);
    return to;
}

static void wide_add(struct entry_store *st, struct entry *e, uint32_t slot, uint32_t stamp)
{
    struct wide *w = e->u.wide;
    if (slot / 64 >= w->n_words || e->n == w->cap)
        e->u.wide = w = wide_grow(st, w, e->n, slot, e->n == w->cap ? w->cap + w->cap / 2 : w->cap);
    uint32_t at = wide_rank(w, slot), *v = wide_stamps(w);
    memmove(v + at + 1, v + at, (e->n - at) * sizeof(v[0]));
    v[at] = stamp;
    w->bits[slot / 64] |= 1ull << slot % 64;
    e->n++;
}

static void to_wide(struct entry_store *st, struct entry *e)
{
    struct holder *v = e->u.list;
    uint32_t n = e->n, top = 0;
    for (uint32_t i = 0; i < n; i++)
        top = MAX(top, v[i].slot);
    st->bytes -= e->room * sizeof(v[0]);
    e->form = FORM_WIDE;
    e->n = 0;
    e->u.wide = wide_grow(st, NULL, 0, top, 2 * LIST_HOLDERS);
    for (uint32_t i = 0; i < n; i++)
        wide_add(st, e, v[i].slot, v[i].stamp);
    free(v);
}

static struct holder *list_new(struct entry_store *st, struct entry *e, uint8_t room)
{
    e->form = FORM_LIST;
    e->room = room;
    st->bytes += room * sizeof(struct holder);
    return xmalloc(room * sizeof(struct holder));
}

static void list_free(struct entry_store *st, struct holder *v, uint8_t room)
{
    st->bytes -= room * sizeof(v[0]);
    free(v);
}

static void inline_to_list(struct entry_store *st, struct entry *e)
{
    struct holder only = e->u.in;
    e->u.list = list_new(st, e, LIST_HOLDERS / 2);
    e->u.list[0] = only;
}

static void list_grow(struct entry_store *st, struct entry *e)
{
    struct holder *old = e->u.list;
    uint8_t room = e->room;
    e->u.list = list_new(st, e, LIST_HOLDERS);
    memcpy(e->u.list, old, e->n * sizeof(old[0]));
    list_free(st, old, room);
}

static void list_to_inline(struct entry_store *st, struct entry *e)
{
    struct holder *v = e->u.list;
    e->form = FORM_INLINE;
    e->u.in = v[0];
    list_free(st, v, e->room);
}

static void wide_to_list(struct entry_store *st, struct entry *e)
{
    struct wide *w = e->u.wide;
    struct holder *v = list_new(st, e, LIST_HOLDERS);
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_words; i++)
        for (uint64_t b = w->bits[i]; b; b &= b - 1, n++)
            v[n] = (struct holder){i * 64 + (uint32_t)__builtin_ctzll(b), wide_stamps(w)[n]};
    st->bytes -= wide_size(w->n_words, w->cap);
    free(w);
    e->u.list = v;
}

/* Room for one holder more. */
static void make_room(struct entry_store *st, struct entry *e)
{
    if (e->form == FORM_INLINE && e->n)
        inline_to_list(st, e);
    else if (e->form == FORM_LIST && e->n == LIST_HOLDERS)
        to_wide(st, e);
    else if (e->form == FORM_LIST && e->n == e->room)
        list_grow(st, e);
}

bool holder_touch(struct entry_store *st, struct entry *e, uint32_t slot, uint32_t stamp)
{
    uint32_t *have = holder_get(e, slot);
    if (have) {
        *have = stamp | (*have & STAMP_TERMINAL);
        return false;
    }
    st->n_memberships++;
    make_room(st, e);
    if (e->form == FORM_WIDE)
        wide_add(st, e, slot, stamp);
    else
        holder_array(e)[e->n++] = (struct holder){slot, stamp};
    return true;
}

static void wide_del(struct entry *e, uint32_t slot)
{
    struct wide *w = e->u.wide;
    uint32_t at = wide_rank(w, slot), *v = wide_stamps(w);
    memmove(v + at, v + at + 1, (e->n - at - 1) * sizeof(v[0]));
    w->bits[slot / 64] &= ~(1ull << slot % 64);
    e->n--;
}

bool holder_del(struct entry_store *st, struct entry *e, uint32_t slot)
{
    uint32_t *have = holder_get(e, slot);
    if (!have)
        return false;
    st->n_memberships--;
    if (e->form == FORM_WIDE) {
        wide_del(e, slot);
        if (e->n <= LIST_HOLDERS / 2) /* half way back, so that an entry on the edge does not change form each time */
            wide_to_list(st, e);
        return true;
    }
    struct holder *v = holder_array(e), *gone = CONTAINER_OF(have, struct holder, stamp);
    *gone = v[--e->n];
    if (e->form == FORM_LIST && e->n == 1)
        list_to_inline(st, e);
    return true;
}

bool holder_mask(const struct entry *e, const uint64_t *mask, uint32_t n_words, uint64_t *out)
{
    uint64_t any = 0;
    if (e->form == FORM_WIDE) {
        uint32_t n = MIN(n_words, e->u.wide->n_words);
        for (uint32_t i = 0; i < n; i++)
            any |= out[i] = mask[i] & e->u.wide->bits[i];
        memset(out + n, 0, (n_words - n) * sizeof(out[0]));
        return any != 0;
    }
    memset(out, 0, n_words * sizeof(out[0]));
    const struct holder *v = holder_array(e);
    for (uint32_t i = 0; i < e->n; i++) {
        uint32_t w = v[i].slot / 64;
        uint64_t bit = 1ull << v[i].slot % 64;
        if (w < n_words && (mask[w] & bit)) {
            out[w] |= bit;
            any = 1;
        }
    }
    return any != 0;
}
