/* The prefix index: match by AND-walk, insert, forget least recently used leaves first. */
#include "core/prefix_index.h"
#include "core/prefix_entry.h"
#include <stdlib.h>
#include <string.h>

struct touch { /* one insert: the chain that ends in leaf, as far as it still carries the stamp */
    uint32_t leaf, stamp, at_ds;
};
struct owner {
    uint64_t cap, blocks, memberships;
    struct touch *log; /* ring, oldest at head */
    uint32_t log_cap, log_head, log_n;
    uint32_t stamp, now_ds; /* of the latest touch */
    bool open, due;         /* due: over its cap or closed, waits for prefix_index_work */
};
struct prefix_index {
    struct entry_store st;
    struct owner *owners;
    uint64_t *live, *walk, *next; /* words of slots: open; still matching; scratch */
    uint32_t n_slots, n_words, n_due;
    struct prefix_match match;
    uint32_t chain_cap;
    uint32_t *ids; /* of the chain in work */
    uint32_t ids_cap;
    uint64_t evictions, log_bytes;
};

struct prefix_index *prefix_index_new(uint64_t seed)
{
    struct prefix_index *ix = xcalloc(1, sizeof(*ix));
    entries_init(&ix->st, seed);
    return ix;
}

void prefix_index_free(struct prefix_index *ix)
{
    if (!ix)
        return;
    entries_free(&ix->st);
    for (uint32_t i = 0; i < ix->n_slots; i++)
        free(ix->owners[i].log);
    free(ix->owners);
    free(ix->live);
    free(ix->walk);
    free(ix->next);
    free(ix->match.slots);
    free(ix->match.len);
    free(ix->match.chain);
    free(ix->ids);
    free(ix);
}

static void set_due(struct prefix_index *ix, struct owner *o, bool due)
{
    if (o->due == due)
        return;
    o->due = due;
    ix->n_due += due ? 1u : -1u;
}

static void owner_reset_if_empty(struct prefix_index *ix, struct owner *o)
{
    if (o->open || o->memberships)
        return;
    ix->log_bytes -= o->log_cap * sizeof(o->log[0]);
    free(o->log);
    *o = (struct owner){
        .stamp = o->stamp}; /* stamps go on: a record or rollback of the former owner never fits the next one */
}

static void grow_slots(struct prefix_index *ix, uint32_t n)
{
    uint32_t cap = MAX((n + 63u) & ~63u, ix->n_slots * 2), words = cap / 64;
    ix->owners = xrealloc(ix->owners, cap * sizeof(ix->owners[0]));
    memset(ix->owners + ix->n_slots, 0, (cap - ix->n_slots) * sizeof(ix->owners[0]));
    ix->live = xrealloc(ix->live, words * sizeof(uint64_t));
    memset(ix->live + ix->n_words, 0, (words - ix->n_words) * sizeof(uint64_t));
    ix->walk = xrealloc(ix->walk, words * sizeof(uint64_t));
    ix->next = xrealloc(ix->next, words * sizeof(uint64_t));
    ix->match.slots = xrealloc(ix->match.slots, cap * sizeof(uint32_t));
    ix->match.len = xrealloc(ix->match.len, cap * sizeof(uint32_t));
    memset(ix->match.len + ix->n_slots, 0, (cap - ix->n_slots) * sizeof(uint32_t));
    ix->n_slots = cap;
    ix->n_words = words;
}

void prefix_index_open(struct prefix_index *ix, uint32_t slot, uint64_t cap)
{
    if (slot >= ix->n_slots)
        grow_slots(ix, slot + 1);
    struct owner *o = &ix->owners[slot];
    CHECK(!o->open && !o->memberships);
    o->open = true;
    o->cap = cap;
    ix->live[slot / 64] |= 1ull << slot % 64;
}

void prefix_index_close(struct prefix_index *ix, uint32_t slot)
{
    struct owner *o = &ix->owners[slot];
    o->open = false;
    o->cap = 0;
    ix->live[slot / 64] &= ~(1ull << slot % 64);
    set_due(ix, o, o->memberships != 0);
    owner_reset_if_empty(ix, o);
}

bool prefix_index_empty(const struct prefix_index *ix, uint32_t slot)
{
    return slot >= ix->n_slots || !ix->owners[slot].memberships;
}

void prefix_index_set_cap(struct prefix_index *ix, uint32_t slot, uint64_t cap)
{
    struct owner *o = &ix->owners[slot];
    o->cap = cap;
    set_due(ix, o, o->blocks > cap);
}

uint64_t prefix_index_blocks(const struct prefix_index *ix, uint32_t slot)
{
    return slot < ix->n_slots ? ix->owners[slot].blocks : 0;
}

/* ---- match ---- */

static void match_begin(struct prefix_index *ix, uint32_t n)
{
    struct prefix_match *m = &ix->match;
    for (uint32_t i = 0; i < m->n; i++)
        m->len[m->slots[i]] = 0;
    m->n = m->chain_n = 0;
    if (n > ix->chain_cap) {
        ix->chain_cap = MAX(n, PREFIX_MAX);
        m->chain = xrealloc(m->chain, ix->chain_cap * sizeof(m->chain[0]));
    }
}

/* The slots set in `bits` and not in `kept` (NULL: none kept) matched `len` hashes and no more. */
static void match_record(struct prefix_index *ix, const uint64_t *bits, const uint64_t *kept, uint32_t len)
{
    struct prefix_match *m = &ix->match;
    for (uint32_t w = 0; w < ix->n_words; w++)
        for (uint64_t b = bits[w] & ~(kept ? kept[w] : 0); b; b &= b - 1) {
            uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(b);
            m->len[slot] = len;
            m->slots[m->n++] = slot;
        }
}

/* One step of the walk: false when nobody matches any further. */
static bool match_step(struct prefix_index *ix, uint32_t id)
{
    struct prefix_match *m = &ix->match;
    if (!id || entries_at(&ix->st, id)->parent != (m->chain_n ? m->chain[m->chain_n - 1] : ENTRY_NONE))
        return false;
    const uint64_t *from = m->chain_n ? ix->walk : ix->live;
    if (!holder_mask(entries_at(&ix->st, id), from, ix->n_words, ix->next))
        return false;
    if (m->chain_n && memcmp(ix->walk, ix->next, ix->n_words * sizeof(uint64_t)) != 0)
        match_record(ix, ix->walk, ix->next, m->chain_n);
    uint64_t *t = ix->walk;
    ix->walk = ix->next;
    ix->next = t;
    m->chain[m->chain_n++] = id;
    return true;
}

/* The last hashes of the next batches, which the rest of each is reached from. */
#define AHEAD 8u
struct ahead {
    uint32_t ids[AHEAD], n, next;
};

static void look_ahead(const struct prefix_index *ix, struct ahead *a, const uint64_t *h, uint32_t n)
{
    a->next = 0;
    a->n = MIN(n / ENTRY_BATCH, AHEAD);
    for (uint32_t k = 0; k < a->n; k++)
        entries_expect(&ix->st, &h[(k + 1) * ENTRY_BATCH - 1], 1);
    for (uint32_t k = 0; k < a->n; k++) {
        a->ids[k] = entries_guess(&ix->st, h[(k + 1) * ENTRY_BATCH - 1]);
        if (!a->ids[k]) { /* what follows is not there either */
            a->n = k;
            return;
        }
        entries_expect_climb(&ix->st, a->ids[k], ENTRY_BATCH);
    }
}

/* Ids of the next hashes, for absent ones ENTRY_NONE; returns of how many. */
static uint32_t next_ids(const struct prefix_index *ix, struct ahead *a, const uint64_t *h, uint32_t n, uint32_t *ids)
{
    uint32_t k = MIN(ENTRY_BATCH, n);
    if (a->next == a->n)
        look_ahead(ix, a, h, n);
    if (a->next == a->n || !entries_climb(&ix->st, a->ids[a->next++], h, k, ids)) {
        a->n = a->next;
        entries_find_many(&ix->st, h, k, ids);
    }
    return k;
}

const struct prefix_match *prefix_index_match(struct prefix_index *ix, const uint64_t *h, uint32_t n)
{
    struct prefix_match *m = &ix->match;
    struct ahead ahead = {.n = 0};
    match_begin(ix, n);
    for (uint32_t at = 0, k; at < n; at += k) {
        uint32_t ids[ENTRY_BATCH];
        if (at == 0) /* most chains that miss do so at once */
            entries_find_many(&ix->st, h, k = MIN(4u, n), ids);
        else
            k = next_ids(ix, &ahead, h + at, n - at, ids);
        for (uint32_t i = 0; i < k; i++)
            if (!match_step(ix, ids[i]))
                goto out;
    }
out:
    if (m->chain_n)
        match_record(ix, ix->walk, NULL, m->chain_n);
    return m;
}

uint32_t prefix_match_len(const struct prefix_match *m, const struct prefix_index *ix, uint32_t slot)
{
    return slot < ix->n_slots ? m->len[slot] : 0;
}

bool prefix_index_terminal(const struct prefix_index *ix, uint32_t entry, uint32_t slot)
{
    const uint32_t *stamp = holder_get(entries_at(&ix->st, entry), slot);
    return stamp && (*stamp & STAMP_TERMINAL);
}

uint32_t prefix_index_branches(const struct prefix_index *ix, uint32_t entry)
{
    const struct entry *e = entries_at(&ix->st, entry);
    return e->children + (e->ends > 1 ? e->ends - 1u : 0);
}

/* ---- forget ---- */

static uint64_t weight(const struct entry *e)
{
    return e->coarse ? PREFIX_COARSE : 1;
}

/* Takes the entry from the slot; returns its parent, or ENTRY_NONE when there is none or the slot did not hold it. The
 * entry may be gone afterwards. */
static uint32_t forget(struct prefix_index *ix, uint32_t slot, uint32_t id)
{
    struct owner *o = &ix->owners[slot];
    struct entry *e = entries_at(&ix->st, id);
    uint32_t parent = e->parent;
    if (!holder_del(&ix->st, e, slot))
        return ENTRY_NONE;
    o->memberships--;
    o->blocks -= weight(e);
    entries_reap(&ix->st, id); /* frees no ancestor that somebody holds */
    return parent;
}

static bool touch_live(const struct prefix_index *ix, uint32_t slot, const struct touch *t)
{
    const uint32_t *stamp = t->leaf ? holder_get(entries_at(&ix->st, t->leaf), slot) : NULL;
    return stamp && (*stamp & STAMP_MASK) == t->stamp;
}

static void drop_oldest(struct owner *o)
{
    o->log_head = (o->log_head + 1) % o->log_cap;
    o->log_n--;
}

/* Forgets from the oldest touch, leaf first, until the owner fits; the record keeps the rest. Returns memberships
 * removed. */
static uint32_t forget_touch(struct prefix_index *ix, uint32_t slot, struct touch *t, uint32_t budget)
{
    struct owner *o = &ix->owners[slot];
    uint32_t n = 0;
    while (o->blocks > o->cap && n < budget) {
        if (n % ENTRY_BATCH == 0)
            entries_expect_reap(&ix->st, t->leaf, (uint32_t)MIN(ENTRY_BATCH, o->blocks - o->cap));
        if (!touch_live(ix, slot, t)) { /* the ancestors carry other stamps: other records have them */
            drop_oldest(o);
            return n;
        }
        t->leaf = forget(ix, slot, t->leaf);
        n++;
    }
    return n;
}

static uint32_t shrink(struct prefix_index *ix, uint32_t slot, uint32_t budget)
{
    struct owner *o = &ix->owners[slot];
    uint32_t n = 0;
    while (o->blocks > o->cap && o->log_n && n < budget)
        n += forget_touch(ix, slot, &o->log[o->log_head], budget - n);
    ix->evictions += n;
    set_due(ix, o, o->blocks > o->cap);
    owner_reset_if_empty(ix, o);
    return n;
}

bool prefix_index_work(struct prefix_index *ix, uint32_t budget)
{
    for (uint32_t i = 0; i < ix->n_slots && ix->n_due && budget; i++)
        if (ix->owners[i].due)
            budget -= MIN(budget, shrink(ix, i, budget));
    return !ix->n_due;
}

/* ---- what would be forgotten ---- */

static const struct touch *record(const struct owner *o, uint32_t i)
{
    return &o->log[(o->log_head + i) % o->log_cap];
}

/* Blocks that the record still leads to, up to `enough`. *looked counts entries, up to PREFIX_LOOK_ENTRIES. */
static uint64_t carried(const struct prefix_index *ix, uint32_t slot, const struct touch *t, uint64_t enough,
                        uint32_t *looked)
{
    uint64_t blocks = 0;
    for (uint32_t id = t->leaf; id && blocks < enough && *looked < PREFIX_LOOK_ENTRIES; (*looked)++) {
        const struct entry *e = entries_at(&ix->st, id);
        const uint32_t *stamp = holder_get(e, slot);
        if (!stamp || (*stamp & STAMP_MASK) != t->stamp)
            break;
        blocks += weight(e);
        id = e->parent;
    }
    return blocks;
}

/* Time of the record that the `need`-th oldest block belongs to. */
static uint32_t time_of_block(const struct prefix_index *ix, uint32_t slot, uint64_t need)
{
    const struct owner *o = &ix->owners[slot];
    uint64_t seen = 0;
    uint32_t i = 0, looked = 0, n = MIN(o->log_n, PREFIX_LOOK_RECORDS);
    for (; i < n && looked < PREFIX_LOOK_ENTRIES; i++) {
        seen += carried(ix, slot, record(o, i), need - seen, &looked);
        if (seen >= need)
            return record(o, i)->at_ds;
    }
    if (i >= o->log_n) /* blocks that no record leads to: trimmed between, they go with the last one */
        return o->now_ds;
    uint64_t later = (need - seen) * (o->log_n - i) / (o->blocks - seen);
    return record(o, MIN(i + (uint32_t)later, o->log_n - 1))->at_ds;
}

uint64_t prefix_index_oldest(struct prefix_index *ix, uint32_t slot, uint64_t blocks, uint32_t *last_ds)
{
    *last_ds = 0;
    if (slot >= ix->n_slots || !ix->owners[slot].open)
        return 0;
    struct owner *o = &ix->owners[slot];
    if (o->blocks + blocks <= o->cap)
        return 0;
    for (uint32_t k = 0; k < PREFIX_LOOK_RECORDS && o->log_n && !touch_live(ix, slot, record(o, 0)); k++)
        drop_oldest(o);
    uint64_t over = o->blocks + blocks - o->cap;
    *last_ds = over < o->blocks ? time_of_block(ix, slot, over) : o->now_ds;
    return over;
}

/* ---- insert ---- */

static void log_resize(struct prefix_index *ix, struct owner *o, uint32_t cap)
{
    struct touch *v = xmalloc(cap * sizeof(v[0]));
    for (uint32_t i = 0; i < o->log_n; i++)
        v[i] = o->log[(o->log_head + i) % o->log_cap];
    free(o->log);
    ix->log_bytes += cap * sizeof(v[0]);
    ix->log_bytes -= o->log_cap * sizeof(v[0]);
    o->log = v;
    o->log_cap = cap;
    o->log_head = 0;
}

/* Drops the records that nothing carries any more, then makes room if still half full: amortised constant per insert.
 */
static void log_compact(struct prefix_index *ix, uint32_t slot)
{
    struct owner *o = &ix->owners[slot];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < o->log_n; i++) {
        struct touch t = *record(o, i);
        entries_expect_climb(&ix->st, record(o, MIN(i + ENTRY_BATCH, o->log_n - 1))->leaf, 1);
        if (touch_live(ix, slot, &t))
            o->log[(o->log_head + kept++) % o->log_cap] = t;
    }
    o->log_n = kept;
    if (kept * 2 >= o->log_cap)
        log_resize(ix, o, MAX(16u, o->log_cap * 2));
}

static void log_push(struct prefix_index *ix, uint32_t slot, struct touch t)
{
    struct owner *o = &ix->owners[slot];
    if (o->log_n == o->log_cap)
        log_compact(ix, slot);
    o->log[(o->log_head + o->log_n++) % o->log_cap] = t;
}

static void mark_end(struct prefix_index *ix, uint32_t slot, uint32_t id, uint64_t length)
{
    struct entry *e = entries_at(&ix->st, id);
    *holder_get(e, slot) |= STAMP_TERMINAL;
    if ((!e->ends || e->end_len != (uint8_t)length) && e->ends < UINT8_MAX)
        e->ends++;
    e->end_len = (uint8_t)length;
}

/* Ids that are known already, so that the table need not be asked; any of them may be wrong by now. */
struct known {
    const uint32_t *ids;
    uint32_t n;
};

static uint32_t known_id(const struct prefix_index *ix, const struct known *k, uint32_t i, uint64_t hash)
{
    uint32_t id = i < k->n ? k->ids[i] : ENTRY_NONE;
    if (!id)
        return ENTRY_NONE;
    const struct entry *e = entries_at(&ix->st, id);
    return e->hash == hash && (e->n || e->children) ? id : ENTRY_NONE;
}

/* Touches the chain, adding what is missing. Returns the last entry; *added counts the new memberships. */
static uint32_t touch_chain(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, struct known known,
                            uint32_t *added)
{
    struct owner *o = &ix->owners[slot];
    uint32_t prev = ENTRY_NONE, asked = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t id = known_id(ix, &known, i, c->h[i]);
        if (!id) {
            if (i >= asked) {
                entries_expect(&ix->st, c->h + i, MIN(ENTRY_BATCH, c->n - i));
                asked = i + ENTRY_BATCH;
            }
            id = entries_get(&ix->st, c->h[i], prev, i >= c->n_fine);
        }
        struct entry *e = entries_at(&ix->st, id);
        if (e->parent != prev) /* two chains with one hash: keep the older, know less of the newer */
            return prev;
        if (holder_touch(&ix->st, e, slot, o->stamp)) {
            (*added)++;
            o->memberships++;
            o->blocks += weight(e);
        }
        prev = id;
    }
    return prev;
}

static uint32_t use_chain(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, struct known known,
                          uint32_t now_ds, uint32_t *added)
{
    struct owner *o = &ix->owners[slot];
    o->stamp = o->stamp == STAMP_MASK ? 1 : o->stamp + 1;
    o->now_ds = MAX(o->now_ds, now_ds);
    uint32_t leaf = touch_chain(ix, slot, c, known, added);
    if (leaf)
        log_push(ix, slot, (struct touch){leaf, o->stamp, o->now_ds});
    return leaf;
}

/* A cap that fell a lot is reached over several inserts or ticks. */
static void shrink_for(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c)
{
    shrink(ix, slot, MAX(2 * c->n, 1024u));
}

static bool takes(const struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c)
{
    return slot < ix->n_slots && ix->owners[slot].open && c->n;
}

uint32_t prefix_index_insert(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t now_ds,
                             uint32_t *stamp)
{
    *stamp = 0;
    if (!takes(ix, slot, c))
        return 0;
    struct known matched = {ix->match.chain, ix->match.chain_n}; /* most often this very chain was asked for just now */
    uint32_t added = 0, leaf = use_chain(ix, slot, c, matched, now_ds, &added);
    if (!leaf)
        return 0;
    *stamp = ix->owners[slot].stamp;
    mark_end(ix, slot, leaf, c->length);
    shrink_for(ix, slot, c);
    return added;
}

/* How much of the chain has entries: always its first part. *last: the last of them. */
static uint32_t known_part(const struct prefix_index *ix, const struct prefix_chain *c, uint32_t *last)
{
    uint32_t lo = 0, hi = c->n, mid = c->n; /* the whole most often */
    *last = ENTRY_NONE;
    while (lo < hi) {
        uint32_t id = entries_find(&ix->st, c->h[mid - 1]);
        if (id) {
            lo = mid;
            *last = id;
        } else {
            hi = mid - 1;
        }
        mid = (lo + hi + 1) / 2;
    }
    return lo;
}

/* The ids of the chain as far as there are entries. */
static struct known climb(struct prefix_index *ix, const struct prefix_chain *c)
{
    uint32_t id, n = known_part(ix, c, &id);
    if (c->n > ix->ids_cap) {
        ix->ids_cap = MAX(c->n, PREFIX_MAX);
        ix->ids = xrealloc(ix->ids, ix->ids_cap * sizeof(ix->ids[0]));
    }
    entries_expect_climb(&ix->st, id, n);
    bool one_chain = entries_climb(&ix->st, id, c->h, n, ix->ids);
    return (struct known){ix->ids, one_chain ? n : 0};
}

void prefix_index_touch(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t now_ds)
{
    uint32_t added = 0;
    if (!takes(ix, slot, c))
        return;
    use_chain(ix, slot, c, climb(ix, c), now_ds, &added);
    shrink_for(ix, slot, c);
}

/* After entries below it were taken from the slot, `id` may be the last one of its stamp that no record leads to. */
static void cover(struct prefix_index *ix, uint32_t slot, uint32_t id)
{
    const uint32_t *stamp = id ? holder_get(entries_at(&ix->st, id), slot) : NULL;
    if (stamp)
        log_push(ix, slot, (struct touch){id, *stamp & STAMP_MASK, ix->owners[slot].now_ds});
}

uint32_t prefix_index_rollback(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t added,
                               uint32_t stamp)
{
    if (slot >= ix->n_slots || !ix->owners[slot].open || !stamp)
        return c->n;
    uint32_t first = c->n - MIN(added, c->n);
    for (uint32_t i = c->n; i > first; i--) {
        uint32_t id = entries_find(&ix->st, c->h[i - 1]);
        const uint32_t *have = id ? holder_get(entries_at(&ix->st, id), slot) : NULL;
        if (!have) /* evicted meanwhile: leaves go first, so what is above may still be there */
            continue;
        if ((*have & STAMP_MASK) != stamp)
            return i;
        uint32_t parent = forget(ix, slot, id);
        if (i == first + 1)
            cover(ix, slot, parent);
    }
    return first;
}

/* Trimming may take an entry that the slot holds descendants of (other prompts went on from it more recently than we
 * believe): those stay, unreachable for matches, until they age out. An entry with children is never freed, so links
 * stay whole. */
void prefix_index_trim(struct prefix_index *ix, uint32_t slot, const struct prefix_chain *c, uint32_t keep)
{
    if (slot >= ix->n_slots || !ix->owners[slot].open)
        return;
    for (uint32_t i = c->n; i > keep; i--) {
        uint32_t id = entries_find(&ix->st, c->h[i - 1]);
        uint32_t parent = id ? forget(ix, slot, id) : ENTRY_NONE;
        if (i == keep + 1)
            cover(ix, slot, parent);
    }
}

void prefix_index_stats(const struct prefix_index *ix, struct prefix_index_stats *out)
{
    uint64_t per_slot = sizeof(struct owner) + 2 * sizeof(uint32_t);
    *out = (struct prefix_index_stats){
        .entries = ix->st.n_entries,
        .memberships = ix->st.n_memberships,
        .bytes = ix->st.bytes + ix->log_bytes + ix->n_slots * per_slot + ix->n_words * 3 * sizeof(uint64_t),
        .evictions = ix->evictions,
    };
}
