/* Content of a message: a string or parts (OpenAI chat, OpenAI responses, Anthropic). */
#include "api/shape.h"

enum part_key { PK_TYPE, PK_TEXT, PK_THINKING, PK_ID, PK_NAME, PK_INPUT, PK_TOOL_USE_ID, PK_CONTENT, PK_N };
static const struct key_name part_keys[] = {
    KEY("type", PK_TYPE), KEY("text", PK_TEXT),   KEY("thinking", PK_THINKING),       KEY("id", PK_ID),
    KEY("name", PK_NAME), KEY("input", PK_INPUT), KEY("tool_use_id", PK_TOOL_USE_ID), KEY("content", PK_CONTENT)};

enum part_class {
    PART_TEXT,   /* `text` is the text */
    PART_FIELDS, /* fields in the order of part_key */
    PART_MEDIA,  /* hashed and counted as media */
    PART_OTHER,  /* hashed */
    PART_UNKNOWN /* `type` not seen yet */
};
static const struct {
    struct str name;
    enum part_class cls;
    unsigned fields; /* PART_FIELDS: which, as bits */
} part_types[] = {
    {NAME("text"), PART_TEXT, 0},
    {NAME("input_text"), PART_TEXT, 0},
    {NAME("output_text"), PART_TEXT, 0},
    {NAME("summary_text"), PART_TEXT, 0},
    {NAME("reasoning_text"), PART_TEXT, 0},
    {NAME("image_url"), PART_MEDIA, 0},
    {NAME("input_image"), PART_MEDIA, 0},
    {NAME("image"), PART_MEDIA, 0},
    {NAME("input_audio"), PART_MEDIA, 0},
    {NAME("audio_url"), PART_MEDIA, 0},
    {NAME("audio"), PART_MEDIA, 0},
    {NAME("video_url"), PART_MEDIA, 0},
    {NAME("input_video"), PART_MEDIA, 0},
    {NAME("video"), PART_MEDIA, 0},
    {NAME("tool_use"), PART_FIELDS, BIT(PK_ID) | BIT(PK_NAME) | BIT(PK_INPUT)},
    {NAME("tool_result"), PART_FIELDS, BIT(PK_TOOL_USE_ID) | BIT(PK_CONTENT)},
    {NAME("thinking"), PART_FIELDS, BIT(PK_THINKING)},
};

struct part {
    enum part_class cls;
    unsigned fields;     /* wanted of PART_FIELDS */
    unsigned seen;       /* part_key bits */
    unsigned n_keys;     /* read so far */
    bool text_done;      /* the text is in the stream already */
    bool hashing;        /* `type` came first: hash the other values as they come */
    uint64_t hash;       /* sum of members, while hashing */
    struct str at[PK_N]; /* values to be read again */
};

bool shape_text_or_json(struct scan *s)
{
    int c = scan_peek(s);
    size_t before = s->n;
    if (c == '"') {
        struct scan_str v;
        if (!scan_string(s, &v))
            return false;
        scan_commit(s, v.text.n);
        s->rq->prompt_bytes += v.text.n;
        return true;
    }
    if (c == 'n')
        return scan_skip(s);
    if (!scan_text(s))
        return false;
    s->rq->prompt_bytes += scan_grown(s, before);
    return true;
}

static bool part_type(struct scan *s, struct part *pt)
{
    struct scan_str v;
    if (scan_peek(s) != '"')
        return scan_fail_type(s, s->p, "type", "a string");
    if (!scan_string(s, &v))
        return false;
    pt->cls = PART_OTHER;
    for (size_t i = 0; i < ARRAY_LEN(part_types); i++) {
        if (str_eq(v.text, part_types[i].name)) {
            pt->cls = part_types[i].cls;
            pt->fields = part_types[i].fields;
            break;
        }
    }
    if (pt->n_keys == 1 && pt->cls >= PART_MEDIA) {
        pt->hashing = true;
        pt->hash = scan_hash_member(scan_hash_key(STR("type")), scan_hash_str(v.text));
    }
    return true;
}

/* A value that is not `type`, at p. */
static bool part_value(struct scan *s, struct part *pt, int id, uint64_t key_hash)
{
    if (pt->hashing) {
        uint64_t h;
        if (!scan_hash(s, &h))
            return false;
        pt->hash += scan_hash_member(key_hash, h);
        return true;
    }
    if (id == PK_TEXT && pt->cls == PART_TEXT) {
        pt->text_done = true;
        return shape_text_or_json(s);
    }
    const char *at = s->p;
    if (!scan_skip(s))
        return false;
    if (id >= 0)
        pt->at[id] = (struct str){at, (size_t)(s->p - at)};
    return true;
}

static bool content_at(struct scan *s, bool nested);

/* A value that was skipped, again, now into the stream. */
static bool part_again(struct scan *s, struct str value, bool as_content)
{
    struct scan_mark m = scan_rewind(s, value);
    if (!(as_content ? content_at(s, true) : shape_text_or_json(s)))
        return false;
    scan_resume(s, m);
    return true;
}

static bool part_hashed(struct scan *s, const struct part *pt, struct str whole)
{
    uint64_t h = scan_hash_object(pt->hash);
    if (!pt->hashing) {
        struct scan_mark m = scan_rewind(s, whole);
        if (!scan_hash(s, &h))
            return false;
        scan_resume(s, m);
    }
    scan_emit_hash(s, h);
    return true;
}

/* All keys of the part were read: what could not go to the stream at once goes now. */
static bool part_end(struct scan *s, struct part *pt, struct str whole, bool nested)
{
    if (pt->cls == PART_UNKNOWN && pt->at[PK_TEXT].p && *pt->at[PK_TEXT].p == '"')
        pt->cls = PART_TEXT;
    if (pt->cls == PART_TEXT)
        return pt->text_done || !pt->at[PK_TEXT].p || part_again(s, pt->at[PK_TEXT], false);
    if (pt->cls != PART_FIELDS || nested) {
        s->rq->n_media += pt->cls == PART_MEDIA;
        return part_hashed(s, pt, whole);
    }
    for (int id = 0; id < PK_N; id++)
        if ((pt->fields & BIT(id)) && pt->at[id].p && !part_again(s, pt->at[id], id == PK_CONTENT))
            return false;
    return true;
}

static bool part_object(struct scan *s, bool nested)
{
    struct part pt = {.cls = PART_UNKNOWN};
    struct scan_str key;
    const char *start = s->p;
    bool first = true;
    int more;
    if (!scan_open(s))
        return false;
    while ((more = scan_key(s, &key, &first)) > 0) {
        int id = key_find(part_keys, ARRAY_LEN(part_keys), key.text);
        pt.n_keys++;
        if (id >= 0 && (pt.seen & BIT(id)))
            return scan_fail_dup(s, s->p, part_keys[id].name.p);
        if (id >= 0)
            pt.seen |= BIT(id);
        uint64_t key_hash = pt.hashing ? scan_hash_key(key.text) : 0;
        if (!(id == PK_TYPE ? part_type(s, &pt) : part_value(s, &pt, id, key_hash)))
            return false;
    }
    return more == 0 && part_end(s, &pt, (struct str){start, (size_t)(s->p - start)}, nested);
}

/* nested: the content of a tool_result, whose parts are text or hashed; so the calls go two levels deep at most. */
static bool content_at(struct scan *s, bool nested)
{
    int c = scan_peek(s), more;
    if (c == '"' || c == 'n')
        return shape_text_or_json(s);
    if (c != '[')
        return scan_fail_type(s, s->p, "content", "a string, an array of parts or null");
    bool first = true;
    if (!scan_open(s))
        return false;
    while ((more = scan_elem(s, &first)) > 0) {
        c = scan_peek(s);
        if (c != '"' && c != '{')
            return scan_fail_type(s, s->p, "content", "a string, an array of parts or null");
        if (!(c == '{' ? part_object(s, nested) : shape_text_or_json(s)))
            return false;
    }
    return more == 0;
}

bool shape_content(struct scan *s)
{
    return content_at(s, false);
}

bool shape_part(struct scan *s)
{
    return part_object(s, true);
}
