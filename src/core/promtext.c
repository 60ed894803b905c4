/* Prometheus text of model servers: finds the wanted series line by line; every other line costs one memchr and a look
 * at its first bytes. */
#include "core/promtext.h"
#include "base/hash.h"
#include <math.h>

/* ---- labels ---- */

struct label {
    struct str name, raw; /* raw: between the quotes, escapes as they are */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct str skip_blanks(struct str s)
{
    while (s.n && is_blank(*s.p))
        s = str_from(s, 1);
    return s;
}

/* The next label of a list that starts behind '{' or a comma. 1: *l filled, *s behind it; 0: the closing brace, *s
 * behind it; -1: malformed. */
static int next_label(struct str *s, struct label *l)
{
    struct str in = skip_blanks(*s);
    if (in.n && *in.p == '}') {
        *s = str_from(in, 1);
        return 0;
    }
    size_t n = 0;
    while (n < in.n && in.p[n] != '=' && in.p[n] != '"' && in.p[n] != '}' && in.p[n] != ',')
        n++;
    l->name = str_trim(str_first(in, n));
    if (n == in.n || in.p[n] != '=' || l->name.n == 0)
        return -1;
    in = skip_blanks(str_from(in, n + 1));
    if (in.n == 0 || *in.p != '"')
        return -1;
    in = str_from(in, 1);
    for (n = 0; n < in.n && in.p[n] != '"'; n++)
        if (in.p[n] == '\\')
            n++;
    if (n >= in.n)
        return -1;
    l->raw = str_first(in, n);
    in = skip_blanks(str_from(in, n + 1));
    if (in.n == 0 || (*in.p != ',' && *in.p != '}'))
        return -1;
    *s = *in.p == ',' ? str_from(in, 1) : in;
    return 1;
}

/* Decodes \\ \" \n; an unknown escape keeps its backslash, as Prometheus does. out needs raw.n bytes. */
static struct str unescape(struct str raw, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.n; i++) {
        char c = raw.p[i], next = i + 1 < raw.n ? raw.p[i + 1] : 0;
        bool esc = c == '\\' && (next == '\\' || next == '"' || next == 'n');
        if (esc)
            i++;
        out[n++] = !esc ? c : next == 'n' ? '\n' : next;
    }
    return (struct str){out, n};
}

/* ---- series ---- */

struct series {
    struct str labels; /* behind '{' up to and with '}'; checked; empty when there are none */
    double value;
};

#define COUNT_MAX 0x1p50 /* no server counts so far; keeps sums finite and exact */

static bool countable(double v) /* false for NaN too */
{
    return v >= 0 && v <= COUNT_MAX;
}

static void add_waiting(struct prom *p, const struct series *s)
{
    if (!countable(s->value))
        return;
    p->load.waiting += s->value;
    p->load.has_waiting = true;
}

static void add_running(struct prom *p, const struct series *s)
{
    if (!countable(s->value))
        return;
    p->load.running += s->value;
    p->load.has_running = true;
}

static void max_kv(struct prom *p, double v)
{
    v = MIN(v, 1.0);
    p->load.kv_frac = p->load.has_kv ? MAX(p->load.kv_frac, v) : v;
    p->load.has_kv = true;
}

static void kv_v1(struct prom *p, const struct series *s)
{
    if (!countable(s->value))
        return;
    if (!p->kv_new_name)
        p->load.has_kv = false; /* what the v0 name said no longer counts */
    p->kv_new_name = true;
    max_kv(p, s->value);
}

static void kv_v0(struct prom *p, const struct series *s)
{
    if (countable(s->value) && !p->kv_new_name)
        max_kv(p, s->value);
}

/* Whole numbers as Python prints them ("16", now and then "16.0"); anything else ("None") is absent. */
static uint64_t number(struct str raw)
{
    double v;
    uint64_t u;
    if (str_to_u64(raw, &u))
        return u <= (uint64_t)COUNT_MAX ? u : 0;
    return str_to_double(raw, &v) && countable(v) ? (uint64_t)v : 0;
}

static void add_capacity(struct prom *p, const struct series *s)
{
    struct str rest = s->labels;
    struct label l;
    uint64_t block = 0, blocks = 0, tokens = 0;
    while (next_label(&rest, &l) > 0) {
        if (str_eq(l.name, STR("block_size")))
            block = number(l.raw);
        else if (str_eq(l.name, STR("num_gpu_blocks")))
            blocks = number(l.raw);
        else if (str_eq(l.name, STR("kv_cache_size_tokens")))
            tokens = number(l.raw);
    }
    if (block > 1u << 20 || blocks > 1ull << 40)
        return; /* no such machine; keeps the product far from overflow */
    if (block)
        p->load.block_tokens = (uint32_t)block;
    if (tokens == 0)
        tokens = block * blocks;
    if (tokens == 0 || p->load.kv_tokens > UINT64_MAX / 2)
        return;
    p->load.kv_tokens += tokens;
    p->load.has_blocks = true;
}

/* "a, b" -> hashes of the names; more than fit are left out. */
static uint32_t adapters(struct str raw, uint64_t *out, uint32_t cap)
{
    char text[PROM_LINE];
    struct str list = unescape(raw, text);
    uint32_t n = 0;
    while (list.n && n < cap) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t len = comma ? (size_t)(comma - list.p) : list.n;
        struct str name = str_trim(str_first(list, len));
        if (name.n)
            out[n++] = hash_bytes(name.p, name.n, 0);
        list = str_from(list, comma ? len + 1 : len);
    }
    return n;
}

static void newest_lora(struct prom *p, const struct series *s)
{
    if (!isfinite(s->value) || (p->has_lora && s->value < p->lora_value))
        return;
    struct ep_load *to = &p->load;
    struct str rest = s->labels;
    struct label l;
    p->has_lora = true;
    p->lora_value = s->value;
    to->max_lora = to->n_running_lora = to->n_waiting_lora = 0;
    while (next_label(&rest, &l) > 0) {
        if (str_eq(l.name, STR("max_lora")))
            to->max_lora = (uint32_t)MIN(number(l.raw), (uint64_t)UINT32_MAX);
        else if (str_eq(l.name, STR("running_lora_adapters")))
            to->n_running_lora = adapters(l.raw, to->running_lora, ARRAY_LEN(to->running_lora));
        else if (str_eq(l.name, STR("waiting_lora_adapters")))
            to->n_waiting_lora = adapters(l.raw, to->waiting_lora, ARRAY_LEN(to->waiting_lora));
    }
}

/* ---- families ---- */

#define PREFIX     "vllm:"
#define PREFIX_LEN (sizeof(PREFIX) - 1)

struct family {
    struct str name;
    void (*take)(struct prom *p, const struct series *s);
};
/* The family's place in the table is its bit in `seen`. */
static const struct family vllm[] = {
    {STR(PREFIX "num_requests_waiting"), add_waiting}, /* also the last of them in ascending order */
    {STR(PREFIX "num_requests_running"), add_running}, {STR(PREFIX "kv_cache_usage_perc"), kv_v1},
    {STR(PREFIX "cache_config_info"), add_capacity},   {STR(PREFIX "lora_requests_info"), newest_lora},
    {STR(PREFIX "gpu_cache_usage_perc"), kv_v0},
};
#define LAST_SORTED 0
#define SEEN_COUNTS (BIT(0) | BIT(1))
#define SEEN_ALL    (SEEN_COUNTS | BIT(2) | BIT(3) | BIT(4)) /* the v0 name counts only without the v1 name */
#define SEEN_KV     (BIT(2) | BIT(5)) /* in ascending order both names of the KV utilisation precede the counts */
#define SEEN_CAPACITY BIT(3)
#define NAME_MIN    (sizeof(PREFIX "cache_config_info") - 1)

/* The wanted family whose name begins the text and ends there (brace, blank or end of text), or NULL. */
static const struct family *find_family(struct str s)
{
    if (s.n < NAME_MIN || memcmp(s.p, PREFIX, PREFIX_LEN) != 0)
        return NULL;
    char first = s.p[PREFIX_LEN];
    for (const struct family *f = vllm; f < vllm + ARRAY_LEN(vllm); f++) {
        if (f->name.p[PREFIX_LEN] != first || !str_starts(s, f->name))
            continue;
        if (s.n == f->name.n || s.p[f->name.n] == '{' || is_blank(s.p[f->name.n]))
            return f;
    }
    return NULL;
}

static bool parse_series(struct str in, struct series *s)
{
    s->labels = STR_NULL;
    in = skip_blanks(in);
    if (in.n && *in.p == '{') {
        struct label l;
        int more;
        in = str_from(in, 1);
        s->labels = in;
        while ((more = next_label(&in, &l)) > 0)
            continue;
        if (more < 0)
            return false;
        s->labels.n = (size_t)(in.p - s->labels.p);
    }
    in = skip_blanks(in);
    size_t n = 0;
    while (n < in.n && !is_blank(in.p[n]) && in.p[n] != '\r')
        n++; /* a timestamp may follow: of no use here */
    return str_to_double(str_first(in, n), &s->value);
}

/* "# TYPE name ..." and "# HELP name ...": the name; of other comments nothing. */
static struct str comment_family(struct str line)
{
    if (!str_starts(line, STR("# TYPE ")) && !str_starts(line, STR("# HELP ")))
        return STR_NULL;
    struct str s = skip_blanks(str_from(line, 7));
    size_t n = 0;
    while (n < s.n && !is_blank(s.p[n]) && s.p[n] != '\r')
        n++;
    return str_first(s, n);
}

static void note_order(struct prom *p, struct str name)
{
    if (!p->sorted)
        return;
    if (name.n > PROM_NAME || str_cmp(name, (struct str){p->family, p->family_n}) < 0) {
        p->sorted = false;
        return;
    }
    memcpy(p->family, name.p, name.n);
    p->family_n = (uint32_t)name.n;
}

/* Both return whether reading may stop here. */
static bool on_comment(struct prom *p, struct str line)
{
    struct str name = comment_family(line);
    if (name.n == 0)
        return false;
    note_order(p, name);
    const struct family *f = find_family(name);
    if (f) {
        p->seen |= BIT((unsigned)(f - vllm));
        return false;
    }
    if ((p->seen & SEEN_ALL) == SEEN_ALL)
        return true;
    /* Without KV and capacity seen an order so far means nothing: vLLM's own page begins with running, waiting, waiting_by_reason. */
    return p->sorted && (p->seen & SEEN_KV) && (p->seen & SEEN_CAPACITY) && (p->seen & SEEN_COUNTS) == SEEN_COUNTS && str_cmp(name, vllm[LAST_SORTED].name) > 0;
}

static bool on_line(struct prom *p, struct str line)
{
    p->lines++;
    if (line.n == 0)
        return false;
    if (*line.p == '#')
        return on_comment(p, line);
    const struct family *f = find_family(line);
    if (!f)
        return (p->seen & SEEN_ALL) == SEEN_ALL;
    struct series s;
    if (parse_series(str_from(line, f->name.n), &s)) {
        p->seen |= BIT((unsigned)(f - vllm));
        f->take(p, &s);
    } else {
        p->bad_lines++;
    }
    return false;
}

/* ---- pieces to lines ---- */

/* Remembers the start of a line whose end is in a later piece. */
static void keep_tail(struct prom *p, struct str tail)
{
    if (p->skipping || tail.n == 0)
        return;
    if (p->line_n + tail.n > PROM_LINE) {
        p->skipping = true;
        p->bad_lines++;
        p->line_n = 0;
        return;
    }
    memcpy(p->line + p->line_n, tail.p, tail.n);
    p->line_n += (uint32_t)tail.n;
}

/* The end of a line that began in an earlier piece. */
static bool finish_line(struct prom *p, struct str tail)
{
    keep_tail(p, tail);
    bool stop = p->skipping ? false : on_line(p, (struct str){p->line, p->line_n});
    p->skipping = false;
    p->line_n = 0;
    return stop;
}

static bool whole_line(struct prom *p, struct str line)
{
    if (UNLIKELY(line.n > PROM_LINE)) {
        p->bad_lines++; /* as when it comes in pieces */
        return false;
    }
    return on_line(p, line);
}

void prom_init(struct prom *p, enum prom_dialect d)
{
    memset(p, 0, offsetof(struct prom, family)); /* family and line are valid up to their lengths */
    p->dialect = d;
    p->stop_early = true;
    p->sorted = true;
}

bool prom_feed(struct prom *p, struct str piece)
{
    if (p->stopped)
        return false;
    p->bytes += piece.n;
    if (p->dialect != PROM_VLLM)
        return true;
    const char *at = piece.p, *end = piece.p + piece.n, *nl;
    bool begun = p->line_n || p->skipping;
    while (at < end && (nl = memchr(at, '\n', (size_t)(end - at)))) {
        struct str line = {at, (size_t)(nl - at)};
        bool stop = begun ? finish_line(p, line) : whole_line(p, line);
        begun = false;
        at = nl + 1;
        if (UNLIKELY(stop) && p->stop_early) {
            p->stopped = true;
            return false;
        }
    }
    keep_tail(p, (struct str){at, (size_t)(end - at)});
    return true;
}

void prom_end(struct prom *p)
{
    if (!p->stopped && (p->line_n || p->skipping))
        finish_line(p, STR_NULL);
}
