/* Prometheus text of model servers: finds the wanted series line by line; every other line costs one memchr and a look
 * at its first bytes. Values are kept one by one, with a hash of the labels that tell the parts of a server apart,
 * until the page has ended. */
#include "core/promtext_int.h"
#include "base/hash.h"
#include <math.h>

#define SORTED_MIN  8          /* families in ascending order before they count as sorted: fewer may be so by chance */
#define COMPARE_MAX (4u << 20) /* looks for a sample's part in one page: some milliseconds, whoever made the page */

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

static bool value_is(struct str raw, struct str want)
{
    char text[PROM_LINE];
    return raw.n >= want.n && raw.n <= sizeof text && str_eq(unescape(raw, text), want);
}

/* ---- the wanted series ---- */

/* Quantities: the first PROM_SUMS are kept as samples. */
enum {
    WAITING,
    BOOTSTRAP,
    INFLIGHT,
    PREALLOC,
    TRANSFER,
    RUNNING,
    KV,
    KV_OLD,
    TOKENS,
    BLOCK,
    BLOCKS,
    ITERATIONS,
    INFO,
    LORA
};
_Static_assert(INFO == PROM_SUMS - 1, "quantities that are kept as samples");
#define ALL_WAITING  (BIT(WAITING) | BIT(BOOTSTRAP) | BIT(INFLIGHT) | BIT(PREALLOC) | BIT(TRANSFER))
#define ALL_CAPACITY (BIT(TOKENS) | BIT(BLOCK) | BIT(BLOCKS) | BIT(INFO))

struct series {
    struct str name, label, value; /* label empty: whatever its labels are */
    uint8_t what;
};
static const struct series vllm[] = {
    {STR("vllm:num_requests_waiting"), STR_NULL, STR_NULL, WAITING},
    {STR("vllm:num_requests_running"), STR_NULL, STR_NULL, RUNNING},
    {STR("vllm:kv_cache_usage_perc"), STR_NULL, STR_NULL, KV},
    {STR("vllm:gpu_cache_usage_perc"), STR_NULL, STR_NULL, KV_OLD},
    {STR("vllm:cache_config_info"), STR_NULL, STR_NULL, INFO},
    {STR("vllm:lora_requests_info"), STR_NULL, STR_NULL, LORA},
};
static const struct series sglang[] = {
    {STR("sglang:token_usage"), STR_NULL, STR_NULL, KV},
    {STR("sglang:num_queue_reqs"), STR_NULL, STR_NULL, WAITING},
    {STR("sglang:num_running_reqs"), STR_NULL, STR_NULL, RUNNING},
    {STR("sglang:num_prefill_bootstrap_queue_reqs"), STR_NULL, STR_NULL, BOOTSTRAP},
    {STR("sglang:num_prefill_inflight_queue_reqs"), STR_NULL, STR_NULL, INFLIGHT},
    {STR("sglang:num_decode_prealloc_queue_reqs"), STR_NULL, STR_NULL, PREALLOC},
    {STR("sglang:num_decode_transfer_queue_reqs"), STR_NULL, STR_NULL, TRANSFER},
    {STR("sglang:max_total_num_tokens"), STR_NULL, STR_NULL, TOKENS},
    {STR("sglang:page_size"), STR_NULL, STR_NULL, BLOCK},
    {STR("sglang:num_pages"), STR_NULL, STR_NULL, BLOCKS},
    {STR("sglang:cache_config_info"), STR_NULL, STR_NULL, INFO},
};
static const struct series triton[] = {
    {STR("nv_trt_llm_request_metrics"), STR("request_type"), STR("waiting"), WAITING},
    {STR("nv_trt_llm_request_metrics"), STR("request_type"), STR("scheduled"), RUNNING},
    {STR("nv_trt_llm_kv_cache_block_metrics"), STR("kv_cache_block_type"), STR("fraction"), KV},
    {STR("nv_trt_llm_kv_cache_block_metrics"), STR("kv_cache_block_type"), STR("tokens_per"), BLOCK},
    {STR("nv_trt_llm_kv_cache_block_metrics"), STR("kv_cache_block_type"), STR("max"), BLOCKS},
    {STR("nv_trt_llm_general_metrics"), STR("general_type"), STR("iteration_counter"), ITERATIONS},
};
static const struct series trtllm_serve[] = {
    {STR("trtllm_num_requests_waiting"), STR_NULL, STR_NULL, WAITING},
    {STR("trtllm_num_requests_running"), STR_NULL, STR_NULL, RUNNING},
    {STR("trtllm_kv_cache_utilization"), STR_NULL, STR_NULL, KV},
    {STR("trtllm_kv_cache_tokens_per_block"), STR_NULL, STR_NULL, BLOCK},
    {STR("trtllm_kv_cache_max_blocks"), STR_NULL, STR_NULL, BLOCKS},
};

/* v: the greatest of the names first, see beyond_last. all: what an early stop waits for. */
static const struct server {
    struct str prefix;
    const struct series *v;
    uint8_t n;
    enum prom_dialect dialect;
    unsigned all;
} servers[] = {
    {STR("vllm:"), vllm, ARRAY_LEN(vllm), PROM_VLLM, /* the v0 name counts only without the v1 name */
     BIT(WAITING) | BIT(RUNNING) | BIT(KV) | BIT(INFO) | BIT(LORA)},
    {STR("sglang:"), sglang, ARRAY_LEN(sglang), PROM_SGLANG, /* and the queues of its role */
     BIT(WAITING) | BIT(RUNNING) | BIT(KV) | BIT(TOKENS) | BIT(BLOCK)},
    {STR("nv_trt_llm_"), triton, ARRAY_LEN(triton), PROM_TRTLLM,
     BIT(WAITING) | BIT(RUNNING) | BIT(KV) | BIT(BLOCK) | BIT(BLOCKS) | BIT(ITERATIONS)},
    {STR("trtllm_"), trtllm_serve, ARRAY_LEN(trtllm_serve), PROM_TRTLLM,
     BIT(WAITING) | BIT(RUNNING) | BIT(KV) | BIT(BLOCK) | BIT(BLOCKS)},
};
#define SGLANG 1
enum { ROLE_UNKNOWN, ROLE_UNIFIED, ROLE_PREFILL, ROLE_DECODE };
static const struct {
    const char *name; /* value of engine_type */
    unsigned queues;  /* that it has */
} roles[] = {
    [ROLE_UNKNOWN] = {NULL, ALL_WAITING},
    [ROLE_UNIFIED] = {"unified", 0},
    [ROLE_PREFILL] = {"prefill", BIT(BOOTSTRAP) | BIT(INFLIGHT)},
    [ROLE_DECODE] = {"decode", BIT(PREALLOC) | BIT(TRANSFER)},
};

/* Ranks of one scheduler: each of them may print the same values. */
static bool is_inner_rank(struct str label)
{
    return str_eq(label, STR("tp_rank")) || str_eq(label, STR("pp_rank")) || str_eq(label, STR("moe_ep_rank"));
}

bool prom_wants(const struct prom *p, enum prom_dialect d)
{
    return p->detect || p->dialect == d;
}

const char *prom_dialect_name(enum prom_dialect d)
{
    return d == PROM_VLLM ? "vllm" : d == PROM_SGLANG ? "sglang" : "trt-llm";
}

/* The name begins the text and ends there (brace, blank or end of text). */
static bool starts_with_name(struct str s, struct str name)
{
    return str_starts(s, name) && (s.n == name.n || s.p[name.n] == '{' || is_blank(s.p[name.n]));
}

/* The first series of that name, or NULL; *of: whose it is. */
static const struct series *find_series(struct str s, const struct server **of)
{
    const struct server *sv;
    switch (s.n ? *s.p : 0) {
    case 'v':
        sv = &servers[0];
        break;
    case 's':
        sv = &servers[1];
        break;
    case 'n':
        sv = &servers[2];
        break;
    case 't':
        sv = &servers[3];
        break;
    default:
        return NULL;
    }
    size_t k = sv->prefix.n;
    if (s.n <= k || memcmp(s.p, sv->prefix.p, k) != 0)
        return NULL;
    char first = s.p[k];
    *of = sv;
    for (const struct series *w = sv->v; w < sv->v + sv->n; w++)
        if (w->name.p[k] == first && starts_with_name(s, w->name))
            return w;
    return NULL;
}

static bool same_name(const struct server *sv, const struct series *w, const struct series *first)
{
    return w < sv->v + sv->n && str_eq(w->name, first->name);
}

/* ---- names of the spec ---- */

/* "a=b" or "a=\"b\"", up to a comma or the closing brace. False: malformed. */
static bool next_pair(struct str *s, struct str *name, struct str *value)
{
    const char *eq = s->n ? memchr(s->p, '=', s->n) : NULL;
    if (!eq)
        return false;
    *name = str_trim(str_first(*s, (size_t)(eq - s->p)));
    struct str in = skip_blanks(str_from(*s, (size_t)(eq - s->p) + 1));
    bool quoted = in.n && *in.p == '"';
    in = str_from(in, quoted);
    size_t n = 0;
    while (n < in.n && (quoted ? in.p[n] != '"' : in.p[n] != ',' && in.p[n] != '}' && in.p[n] != '"'))
        n++;
    *value = quoted ? str_first(in, n) : str_trim(str_first(in, n));
    if (quoted && n == in.n)
        return false;
    in = skip_blanks(str_from(in, n + quoted));
    if (!in.n || (*in.p != ',' && *in.p != '}'))
        return false;
    *s = in;
    return true;
}

/* Of a series, which may have colons, or of a label. */
static bool plain_name(struct str s, bool colons)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colons && c == ':');
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return s.n > 0 && s.n <= PROM_NAME;
}

bool prom_name_parse(struct str text, struct prom_name *out)
{
    *out = (struct prom_name){0};
    text = str_trim(text);
    const char *open = text.n ? memchr(text.p, '{', text.n) : NULL;
    out->name = str_trim(str_first(text, open ? (size_t)(open - text.p) : text.n));
    if (!plain_name(out->name, true))
        return false;
    if (!open)
        return true;
    struct str rest = skip_blanks(str_from(text, (size_t)(open - text.p) + 1));
    while (rest.n && *rest.p != '}') {
        if (out->n_labels == PROM_NAME_LABELS ||
            !next_pair(&rest, &out->label[out->n_labels].name, &out->label[out->n_labels].value) ||
            !plain_name(out->label[out->n_labels].name, false))
            return false;
        out->n_labels++;
        if (*rest.p == ',')
            rest = skip_blanks(str_from(rest, 1));
    }
    return rest.n == 1;
}

static void replace(struct prom *p, struct str text, uint8_t what, unsigned replaced)
{
    if (!text.n)
        return;
    p->replaced |= replaced;
    if (prom_name_parse(text, &p->names[p->n_names]))
        p->name_what[p->n_names++] = what;
}

/* ---- samples ---- */

struct line {          /* one sample line */
    struct str labels; /* behind '{' up to and with '}'; checked; empty when there are none */
    double value;
};

static bool parse_line(struct str in, struct line *s)
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

static void add_sample(struct prom *p, unsigned what, uint64_t part, double v)
{
    if (p->lost & BIT(what))
        return;
    for (uint32_t i = p->newest[what]; i; i = p->sample[i - 1].before) {
        if (p->sample[i - 1].part == part) {
            p->sample[i - 1].value = MAX(p->sample[i - 1].value, v);
            return;
        }
        p->compared++;
    }
    if (p->n_samples == PROM_SAMPLES || p->compared > COMPARE_MAX) {
        p->lost |= BIT(what);
        return;
    }
    p->sample[p->n_samples] = (struct prom_sample){part, v, p->newest[what]};
    p->newest[what] = ++p->n_samples;
}

/* Whole numbers as Python prints them ("16", now and then "16.0"); anything else ("None") is 0. */
static double number(struct str raw)
{
    double v;
    return str_to_double(raw, &v) && prom_countable(v) ? floor(v) : 0;
}

/* Capacity in labels: vLLM's and SGLang's names for it. */
static void add_info(struct prom *p, uint64_t part, const struct line *s)
{
    struct str rest = s->labels;
    struct label l;
    double block = 0, blocks = 0, tokens = 0;
    while (rest.n && next_label(&rest, &l) > 0) {
        if (str_eq(l.name, STR("block_size")) || str_eq(l.name, STR("page_size")))
            block = number(l.raw);
        else if (str_eq(l.name, STR("num_gpu_blocks")) || str_eq(l.name, STR("num_pages")))
            blocks = number(l.raw);
        else if (str_eq(l.name, STR("kv_cache_size_tokens")))
            tokens = number(l.raw);
    }
    if (block > PROM_BLOCK_MAX || blocks > PROM_BLOCKS_MAX)
        return; /* no such machine */
    if (block > 0)
        p->load.block_tokens = (uint32_t)block;
    if (tokens <= 0)
        tokens = block * blocks;
    if (tokens > 0)
        add_sample(p, INFO, part, tokens);
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

static void clear_lora(struct ep_load *l)
{
    l->max_lora = l->n_running_lora = l->n_waiting_lora = 0;
}

static void newest_lora(struct prom *p, const struct line *s)
{
    if (!isfinite(s->value) || (p->has_lora && s->value < p->lora_value))
        return;
    struct ep_load *to = &p->load;
    struct str rest = s->labels;
    struct label l;
    p->has_lora = true;
    p->lora_value = s->value;
    clear_lora(to);
    while (rest.n && next_label(&rest, &l) > 0) {
        if (str_eq(l.name, STR("max_lora")))
            to->max_lora = (uint32_t)MIN(number(l.raw), (double)UINT32_MAX);
        else if (str_eq(l.name, STR("running_lora_adapters")))
            to->n_running_lora = adapters(l.raw, to->running_lora, ARRAY_LEN(to->running_lora));
        else if (str_eq(l.name, STR("waiting_lora_adapters")))
            to->n_waiting_lora = adapters(l.raw, to->waiting_lora, ARRAY_LEN(to->waiting_lora));
    }
}

static void take(struct prom *p, unsigned what, uint64_t part, const struct line *s)
{
    if (what == LORA)
        newest_lora(p, s);
    else if (what == INFO)
        add_info(p, part, s);
    else if (prom_countable(s->value))
        add_sample(p, what, part, s->value);
}

/* ---- which labels count ---- */

struct wanted { /* a series of a table or of the spec */
    struct str label[PROM_NAME_LABELS], value[PROM_NAME_LABELS];
    uint32_t n;
    bool total_only; /* of SGLang's priorities */
};

static int wanted_label(const struct wanted *w, struct str name)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (str_eq(w->label[i], name))
            return (int)i;
    return -1;
}

/* False: not one of these. *part: which part of the server it tells of, whatever the order of the labels. */
static bool labels_fit(const struct wanted *w, const struct line *s, uint64_t *part)
{
    struct str rest = s->labels;
    struct label l;
    uint32_t found = 0;
    *part = 0;
    while (rest.n && next_label(&rest, &l) > 0) {
        int k = wanted_label(w, l.name);
        if (k >= 0 && !value_is(l.raw, w->value[k]))
            return false;
        found += k >= 0;
        if (k >= 0 || is_inner_rank(l.name))
            continue;
        if (w->total_only && l.raw.n && str_eq(l.name, STR("priority")))
            return false;
        *part += hash_mix(hash_bytes(l.name.p, l.name.n, 0), hash_bytes(l.raw.p, l.raw.n, 0));
    }
    return found >= w->n;
}

static void note_role(struct prom *p, const struct line *s)
{
    struct str rest = s->labels;
    struct label l;
    while (rest.n && next_label(&rest, &l) > 0) {
        if (!str_eq(l.name, STR("engine_type")))
            continue;
        for (uint8_t r = ROLE_UNIFIED; r <= ROLE_DECODE; r++)
            if (str_eq_c(l.raw, roles[r].name))
                p->role = r;
        return;
    }
}

static bool server_counts(const struct prom *p, const struct server *sv)
{
    return prom_wants(p, sv->dialect) && (p->server < 0 || p->server == sv - servers);
}

static void take_own(struct prom *p, const struct server *sv, const struct series *first, const struct line *s)
{
    p->server = (int8_t)(sv - servers);
    if (p->server == SGLANG && p->role == ROLE_UNKNOWN)
        note_role(p, s);
    for (const struct series *w = first; same_name(sv, w, first); w++) {
        struct wanted labels = {{w->label}, {w->value}, w->label.n > 0, p->server == SGLANG};
        uint64_t part;
        if (!(p->replaced & BIT(w->what)) && labels_fit(&labels, s, &part))
            take(p, w->what, part, s);
    }
}

static void take_named(struct prom *p, uint32_t i, const struct line *s)
{
    const struct prom_name *name = &p->names[i];
    struct wanted labels = {.n = name->n_labels, .total_only = p->dialect == PROM_SGLANG};
    uint64_t part;
    for (uint32_t k = 0; k < name->n_labels; k++) {
        labels.label[k] = name->label[k].name;
        labels.value[k] = name->label[k].value;
    }
    if (labels_fit(&labels, s, &part))
        take(p, p->name_what[i], part, s);
}

/* ---- families ---- */

/* Quantities of the spec whose name this is. */
static unsigned named(const struct prom *p, struct str s)
{
    unsigned what = 0;
    for (uint32_t i = 0; i < p->n_names; i++)
        if (starts_with_name(s, p->names[i].name))
            what |= BIT(p->name_what[i]);
    return what;
}

static unsigned all_of(const struct server *sv, const struct series *first)
{
    unsigned what = 0;
    for (const struct series *w = first; same_name(sv, w, first); w++)
        what |= BIT(w->what);
    return what;
}

static bool is_complete(const struct prom *p)
{
    if (p->server < 0)
        return false;
    unsigned want = servers[p->server].all, seen = p->seen[p->server];
    if (p->server == SGLANG)
        want |= roles[p->role].queues;
    if (p->replaced & BIT(INFO)) /* one name for all of the capacity */
        want = (want & ~(unsigned)ALL_CAPACITY) | BIT(INFO);
    want = p->replaced & BIT(BOOTSTRAP) ? (want & ~(unsigned)ALL_WAITING) | BIT(WAITING) : want;
    return (seen & want) == want;
}

static void note_seen(struct prom *p, const struct server *sv, unsigned own, unsigned by_name)
{
    if (sv)
        p->seen[sv - servers] |= own & ~p->replaced;
    for (size_t i = 0; i < ARRAY_LEN(p->seen); i++)
        p->seen[i] |= by_name;
    p->complete = is_complete(p);
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
    p->n_sorted += !str_eq(name, (struct str){p->family, p->family_n}); /* HELP and TYPE */
    memcpy(p->family, name.p, name.n);
    p->family_n = (uint32_t)name.n;
}

/* Behind all wanted names of an ascending page? Without counts, KV use and capacity seen an order so far means nothing:
 * vLLM's own page begins with running, waiting, waiting_by_reason. */
static bool beyond_last(const struct prom *p, struct str name)
{
    if (!p->sorted || p->n_sorted < SORTED_MIN || p->server < 0)
        return false;
    const struct server *sv = &servers[p->server];
    unsigned seen = p->seen[p->server], counts = BIT(WAITING) | BIT(RUNNING);
    bool capacity = (seen & (BIT(INFO) | BIT(TOKENS))) || ((seen & BIT(BLOCK)) && (seen & BIT(BLOCKS)));
    if (!capacity || (seen & counts) != counts || !(seen & (BIT(KV) | BIT(KV_OLD))))
        return false;
    for (uint32_t i = 0; i < p->n_names; i++)
        if (str_cmp(name, p->names[i].name) <= 0)
            return false;
    return str_cmp(name, sv->v[0].name) > 0;
}

/* Both return whether reading may stop here. */
static bool on_comment(struct prom *p, struct str line)
{
    struct str name = comment_family(line);
    if (name.n == 0)
        return false;
    note_order(p, name);
    const struct server *sv = NULL;
    const struct series *w = find_series(name, &sv);
    unsigned by_name = named(p, name);
    if ((w && server_counts(p, sv)) || by_name) {
        note_seen(p, w ? sv : NULL, w ? all_of(sv, w) : 0, by_name);
        return false;
    }
    return p->complete || beyond_last(p, name);
}

static bool on_line(struct prom *p, struct str line)
{
    p->lines++;
    if (line.n == 0)
        return false;
    if (*line.p == '#')
        return on_comment(p, line);
    const struct server *sv = NULL;
    const struct series *w = find_series(line, &sv);
    unsigned by_name = p->n_names ? named(p, line) : 0;
    if (LIKELY(!w && !by_name))
        return p->complete;
    if (w)
        p->shown |= BIT(sv->dialect);
    bool own = w && server_counts(p, sv);
    if (!own && !by_name)
        return p->complete;
    size_t n = 0;
    while (n < line.n && line.p[n] != '{' && !is_blank(line.p[n]))
        n++;
    struct line s;
    unsigned what = own ? all_of(sv, w) & ~p->replaced : 0;
    if (!parse_line(str_from(line, n), &s)) {
        p->bad_lines++;
        p->lost |= what | by_name;
        return false;
    }
    if (own)
        take_own(p, sv, w, &s);
    for (uint32_t i = 0; by_name && i < p->n_names; i++)
        if (starts_with_name(line, p->names[i].name))
            take_named(p, i, &s);
    note_seen(p, own ? sv : NULL, what, by_name);
    return false;
}

/* ---- lines that cannot be read ---- */

static bool may_be(struct str start, struct str name)
{
    size_t n = MIN(start.n, name.n);
    return n && memcmp(start.p, name.p, n) == 0 &&
           (start.n <= name.n || start.p[name.n] == '{' || is_blank(start.p[name.n]));
}

/* The start of a line is known: what it may have told of stays absent. */
static void lose(struct prom *p, struct str start)
{
    for (const struct server *sv = servers; sv < servers + ARRAY_LEN(servers); sv++)
        for (const struct series *w = sv->v; server_counts(p, sv) && w < sv->v + sv->n; w++)
            if (may_be(start, w->name))
                p->lost |= BIT(w->what) & ~p->replaced;
    for (uint32_t i = 0; i < p->n_names; i++)
        if (may_be(start, p->names[i].name))
            p->lost |= BIT(p->name_what[i]);
}

/* ---- pieces to lines ---- */

/* Remembers the start of a line whose end is in a later piece. */
static void keep_tail(struct prom *p, struct str tail)
{
    if (p->skipping || tail.n == 0)
        return;
    size_t n = MIN(tail.n, PROM_LINE - p->line_n);
    memcpy(p->line + p->line_n, tail.p, n);
    p->line_n += (uint32_t)n;
    if (n < tail.n) {
        lose(p, (struct str){p->line, p->line_n});
        p->skipping = true;
        p->bad_lines++;
        p->line_n = 0;
    }
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
        lose(p, str_first(line, PROM_LINE)); /* as when it comes in pieces */
        p->bad_lines++;
        return false;
    }
    return on_line(p, line);
}

void prom_init(struct prom *p, const struct prom_spec *spec)
{
    memset(p, 0, offsetof(struct prom, family)); /* family, line and sample are valid up to their lengths */
    p->dialect = spec->dialect;
    p->detect = spec->detect;
    p->stop_early = true;
    p->sorted = true;
    p->server = -1;
    replace(p, spec->waiting, WAITING, ALL_WAITING);
    replace(p, spec->running, RUNNING, BIT(RUNNING));
    replace(p, spec->kv_usage, KV, BIT(KV) | BIT(KV_OLD));
    replace(p, spec->lora_info, LORA, BIT(LORA));
    replace(p, spec->cache_info, INFO, ALL_CAPACITY);
}

/* An array is no Prometheus text: no name begins so. */
static void begin(struct prom *p, struct str piece)
{
    size_t n = 0;
    while (n < piece.n && prom_is_space(piece.p[n]))
        n++;
    p->begun = n < piece.n;
    p->json = p->begun && piece.p[n] == '[';
    if (p->json)
        p->line_n = 0;
}

static bool feed_text(struct prom *p, struct str piece)
{
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

bool prom_feed(struct prom *p, struct str piece)
{
    if (p->stopped)
        return false;
    p->bytes += piece.n;
    if (!p->begun)
        begin(p, piece);
    if (!p->json)
        return feed_text(p, piece);
    prom_json_feed(p, piece);
    return true;
}

/* ---- the result ---- */

void prom_set_capacity(struct ep_load *l, double tokens)
{
    if (tokens < 1 || tokens > PROM_COUNT_MAX || l->kv_tokens > UINT64_MAX / 2)
        return;
    l->kv_tokens += (uint64_t)tokens;
    l->has_blocks = true;
}

static bool has_samples(const struct prom *p, unsigned what)
{
    return p->newest[what] && !(p->lost & BIT(what));
}

static double sum_samples(const struct prom *p, unsigned what)
{
    double sum = 0;
    for (uint32_t i = p->newest[what]; i; i = p->sample[i - 1].before)
        sum += p->sample[i - 1].value;
    return sum;
}

static void set_waiting(struct prom *p)
{
    if (!has_samples(p, WAITING) || (p->lost & ALL_WAITING))
        return;
    p->load.has_waiting = true;
    for (unsigned what = WAITING; what <= TRANSFER; what++)
        p->load.waiting += sum_samples(p, what);
}

static void set_kv(struct prom *p)
{
    unsigned what = p->newest[KV] || (p->lost & BIT(KV)) ? KV : KV_OLD, n = 0;
    double sum = 0;
    if (!has_samples(p, what))
        return;
    for (uint32_t i = p->newest[what]; i; i = p->sample[i - 1].before, n++) {
        double v = MIN(p->sample[i - 1].value, 1.0);
        p->load.kv_frac = MAX(p->load.kv_frac, v);
        sum += v;
    }
    p->load.has_kv = true;
    p->load.kv_mean = sum / n;
}

static double sample_of(const struct prom *p, unsigned what, uint64_t part)
{
    for (uint32_t i = p->newest[what]; i; i = p->sample[i - 1].before)
        if (p->sample[i - 1].part == part)
            return p->sample[i - 1].value;
    return 0;
}

/* Block size times blocks, part by part: models of a Triton may have blocks of different sizes. */
static void set_capacity_by_blocks(struct prom *p)
{
    for (uint32_t i = p->newest[BLOCKS]; i; i = p->sample[i - 1].before) {
        double block = floor(sample_of(p, BLOCK, p->sample[i - 1].part)), blocks = floor(p->sample[i - 1].value);
        if (block <= PROM_BLOCK_MAX && blocks <= PROM_BLOCKS_MAX)
            prom_set_capacity(&p->load, block * blocks);
    }
}

static void set_capacity(struct prom *p)
{
    if (p->lost & ALL_CAPACITY)
        p->load.block_tokens = 0;
    for (uint32_t i = p->newest[BLOCK]; i && has_samples(p, BLOCK); i = p->sample[i - 1].before)
        if (p->sample[i - 1].value <= PROM_BLOCK_MAX)
            p->load.block_tokens = MAX(p->load.block_tokens, (uint32_t)p->sample[i - 1].value);
    if (p->lost & ALL_CAPACITY)
        return;
    unsigned tokens = p->newest[TOKENS] ? TOKENS : INFO;
    for (uint32_t i = p->newest[tokens]; i; i = p->sample[i - 1].before)
        prom_set_capacity(&p->load, p->sample[i - 1].value);
    if (!p->load.has_blocks)
        set_capacity_by_blocks(p);
}

void prom_end(struct prom *p)
{
    if (p->json) {
        prom_json_end(p);
        return;
    }
    if (!p->stopped && p->line_n)
        lose(p, (struct str){p->line, p->line_n}); /* it broke off: of a number the rest may be missing */
    p->line_n = 0;
    set_waiting(p);
    if (has_samples(p, RUNNING)) {
        p->load.has_running = true;
        p->load.running = sum_samples(p, RUNNING);
    }
    if (has_samples(p, ITERATIONS))
        p->iterations = sum_samples(p, ITERATIONS);
    set_kv(p);
    set_capacity(p);
    if (p->lost & BIT(LORA))
        clear_lora(&p->load);
}
