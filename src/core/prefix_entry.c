/* Entries of the prefix index: chunked slab, segmented open-addressing table, holders as inline pair, list or bitmap.
 */
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
    return (uint32_t)(m >> 24);
}

static uint32_t home(uint64_t m, uint32_t cap)
{
    return tag(m) & (cap - 1);
}

static uint32_t seg_find(const struct entry_store *st, uint64_t hash, uint64_t m)
{
    const struct entry_seg *g = &st->seg[m >> 58];
    if (!g->cap)
        return ENTRY_NONE;
    for (uint32_t p = home(m, g->cap); g->v[p]; p = (p + 1) & (g->cap - 1)) {
        uint32_t id = (uint32_t)g->v[p];
        if ((uint32_t)(g->v[p] >> 32) == tag(m) && entries_at(st, id)->hash == hash)
            return id;
    }
    return ENTRY_NONE;
}

uint32_t entries_find(const struct entry_store *st, uint64_t hash)
{
    return seg_find(st, hash, mix(st, hash));
}

void entries_find_many(const struct entry_store *st, const uint64_t *h, uint32_t n, uint32_t *ids)
{
    uint64_t m[16];
    for (uint32_t i = 0; i < n; i++) {
        m[i] = mix(st, h[i]);
        const struct entry_seg *g = &st->seg[m[i] >> 58];
        if (g->cap)
            __builtin_prefetch(&g->v[home(m[i], g->cap)]);
    }
    for (uint32_t i = 0; i < n; i++) { /* the first slot of the probe is nearly always the one */
        const struct entry_seg *g = &st->seg[m[i] >> 58];
        uint32_t id = g->cap ? (uint32_t)g->v[home(m[i], g->cap)] : ENTRY_NONE;
        if (id)
            __builtin_prefetch(entries_at(st, id));
    }
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = seg_find(st, h[i], m[i]);
        if (ids[i] && entries_at(st, ids[i])->form == FORM_WIDE)
            __builtin_prefetch(entries_at(st, ids[i])->u.wide);
    }
}

void entries_expect(const struct entry_store *st, const uint64_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t m = mix(st, h[i]);
        const struct entry_seg *g = &st->seg[m >> 58];
        if (g->cap)
            __builtin_prefetch(&g->v[home(m, g->cap)]);
    }
}

static void seg_put(struct entry_seg *g, uint64_t slot)
{
    uint32_t p = (uint32_t)(slot >> 32) & (g->cap - 1);
    while (g->v[p])
        p = (p + 1) & (g->cap - 1);
    g->v[p] = slot;
}

static void seg_resize(struct entry_store *st, struct entry_seg *g, uint32_t cap)
{
    struct entry_seg old = *g;
    g->v = xcalloc(cap, sizeof(g->v[0]));
    g->cap = cap;
    for (uint32_t p = 0; p < old.cap; p++)
        if (old.v[p])
            seg_put(g, old.v[p]);
    free(old.v);
    st->bytes += sizeof(g->v[0]) * cap;
    st->bytes -= sizeof(g->v[0]) * old.cap;
}

static void seg_insert(struct entry_store *st, uint64_t hash, uint32_t id)
{
    uint64_t m = mix(st, hash);
    struct entry_seg *g = &st->seg[m >> 58];
    if ((g->n + 1) * 4 > g->cap * 3)
        seg_resize(st, g, g->cap ? g->cap * 2 : 8);
    seg_put(g, (uint64_t)tag(m) << 32 | id);
    g->n++;
}

static void seg_remove(struct entry_store *st, uint64_t hash, uint32_t id)
{
    uint64_t m = mix(st, hash);
    struct entry_seg *g = &st->seg[m >> 58];
    uint32_t mask = g->cap - 1, p = home(m, g->cap);
    while ((uint32_t)g->v[p] != id)
        p = (p + 1) & mask;
    for (uint32_t q = (p + 1) & mask; g->v[q]; q = (q + 1) & mask) { /* backward shift: no tombstones */
        uint32_t want = (uint32_t)(g->v[q] >> 32) & mask;
        if (((q - want) & mask) < ((q - p) & mask))
            continue;
        g->v[p] = g->v[q];
        p = q;
    }
    g->v[p] = 0;
    g->n--;
    if (g->cap > 64 && g->n * 8 < g->cap)
        seg_resize(st, g, g->cap / 2);
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
        st->chunks = xrealloc(st->chunks, (st->n_chunks + 1) * sizeof(st->chunks[0]));
        st->chunks[st->n_chunks++] = xcalloc(BIT(ENTRY_CHUNK_BITS), sizeof(struct entry));
        st->bytes += sizeof(struct entry) * BIT(ENTRY_CHUNK_BITS) + sizeof(st->chunks[0]);
    }
    return id;
}

uint32_t entries_add(struct entry_store *st, uint64_t hash, uint32_t parent, bool coarse)
{
    uint32_t id = take_id(st);
    *entries_at(st, id) = (struct entry){.hash = hash, .parent = parent, .coarse = coarse};
    if (parent)
        entries_at(st, parent)->children++;
    seg_insert(st, hash, id);
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
    return e->form == FORM_LIST ? e->u.list : (struct holder *)(uintptr_t)e->u.in;
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
    e->form = FORM_WIDE;
    e->n = 0;
    e->u.wide = wide_grow(st, NULL, 0, top, 2 * LIST_HOLDERS);
    for (uint32_t i = 0; i < n; i++)
        wide_add(st, e, v[i].slot, v[i].stamp);
    free(v);
    st->bytes -= LIST_HOLDERS * sizeof(v[0]);
}

static void to_list(struct entry_store *st, struct entry *e)
{
    struct holder *v = xmalloc(LIST_HOLDERS * sizeof(v[0]));
    st->bytes += LIST_HOLDERS * sizeof(v[0]);
    if (e->form == FORM_INLINE) {
        memcpy(v, e->u.in, e->n * sizeof(v[0]));
    } else {
        struct wide *w = e->u.wide;
        uint32_t n = 0;
        for (uint32_t i = 0; i < w->n_words; i++)
            for (uint64_t b = w->bits[i]; b; b &= b - 1, n++)
                v[n] = (struct holder){i * 64 + (uint32_t)__builtin_ctzll(b), wide_stamps(w)[n]};
        st->bytes -= wide_size(w->n_words, w->cap);
        free(w);
    }
    e->form = FORM_LIST;
    e->u.list = v;
}

static void to_inline(struct entry_store *st, struct entry *e)
{
    struct holder *v = e->u.list;
    e->form = FORM_INLINE;
    memcpy(e->u.in, v, e->n * sizeof(v[0]));
    free(v);
    st->bytes -= LIST_HOLDERS * sizeof(v[0]);
}

bool holder_touch(struct entry_store *st, struct entry *e, uint32_t slot, uint32_t stamp)
{
    uint32_t *have = holder_get(e, slot);
    if (have) {
        *have = stamp | (*have & STAMP_TERMINAL);
        return false;
    }
    st->n_memberships++;
    if (e->form == FORM_INLINE && e->n == INLINE_HOLDERS)
        to_list(st, e);
    else if (e->form == FORM_LIST && e->n == LIST_HOLDERS)
        to_wide(st, e);
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
            to_list(st, e);
        return true;
    }
    struct holder *v = holder_array(e), *gone = CONTAINER_OF(have, struct holder, stamp);
    *gone = v[--e->n];
    if (e->form == FORM_LIST && e->n <= INLINE_HOLDERS - 1)
        to_inline(st, e);
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
