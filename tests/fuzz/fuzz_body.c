/* Request bodies of every API, and the answers' readers. First byte: the API. What must hold of an accepted body:
 * base/json accepts it too (and refuses what we call no JSON); the splice changes the model and nothing else; the
 * pieces of every leg are an acceptable body again; a scratch of the least size gives the same verdict; every version
 * of the string decoder agrees. */
#include "api/api.h"
#include "api/text.h"
#include "base/json.h"
#include "core/prefix_hash.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_json_object(struct str text)
{
    struct json j;
    enum json_type t, first = JSON_END;
    json_init(&j, text);
    while ((t = json_next(&j)) != JSON_END) {
        if (t == JSON_ERROR)
            return false;
        if (first == JSON_END)
            first = t;
    }
    return first == JSON_OBJ;
}

static bool is_syntax(const char *code)
{
    return str_eq_c(str_c(code), "invalid_json") || str_eq_c(str_c(code), "invalid_utf8") ||
           str_eq_c(str_c(code), "too_deep");
}

static uint64_t last_hash(const struct api_request *rq, uint32_t block)
{
    uint64_t storage[PREFIX_MAX];
    struct prefix_hashes h;
    prefix_hash(rq->stream_bytes, prefix_seed(STR("m"), STR_NULL, rq->cache_salt), block, 128, true, &h, storage,
                PREFIX_MAX);
    CHECK(h.n <= PREFIX_MAX && h.n_fine <= h.n);
    CHECK(prefix_bytes(&h, h.n) <= rq->stream_bytes.n);
    return h.n ? h.h[h.n - 1] : 0;
}

static void check_splice(struct str body, const struct api_request *rq)
{
    char name[64];
    struct str h, n, t;
    if (!api_splice_model(body, rq, STR("other \"model\"\n"), name, sizeof(name), &h, &n, &t)) {
        CHECK(!rq->model_raw.p);
        return;
    }
    struct buf text, scratch;
    struct api_request again;
    struct api_error e;
    buf_init(&text, 1 << 24);
    buf_init(&scratch, 1 << 26);
    CHECK(buf_add_str(&text, h) && buf_add_str(&text, n) && buf_add_str(&text, t));
    CHECK(api_parse_request(rq->kind, buf_str(&text), &scratch, &again, &e) == 0);
    CHECK(str_eq(again.model, STR("other \"model\"\n")));
    CHECK(str_eq(again.stream_bytes, rq->stream_bytes));
    CHECK(again.stream == rq->stream && again.max_tokens == rq->max_tokens && again.n == rq->n &&
          again.n_prompts == rq->n_prompts);
    CHECK(again.n_media == rq->n_media && again.prompt_bytes == rq->prompt_bytes && again.forbidden == rq->forbidden);
    CHECK(str_eq(again.cache_salt, rq->cache_salt) && str_eq(again.user, rq->user));
    CHECK(last_hash(&again, 64) == last_hash(rq, 64) && last_hash(&again, 3) == last_hash(rq, 3));
    buf_free(&text);
    buf_free(&scratch);
}

static void check_again(const struct api_request *rq, struct str body, enum api_leg leg, struct str model)
{
    struct buf scratch;
    struct api_request again;
    struct api_error e;
    buf_init(&scratch, 1 << 26);
    CHECK(is_json_object(body) && api_parse_request(rq->kind, body, &scratch, &again, &e) == 0);
    CHECK(str_eq(again.stream_bytes, rq->stream_bytes) && again.n_batch == rq->n_batch && again.n == rq->n);
    CHECK((again.forbidden != NULL) == (leg != API_LEG_NONE));
    CHECK(!model.p || !rq->model_raw.p || str_eq(again.model, model));
    if (leg == API_LEG_NIXL_PREFILL) {
        CHECK(!again.stream && !again.include_usage &&
              (!again.has_max_tokens || again.max_tokens == 1 || rq->kind == API_GENERATE));
        for (uint32_t i = 0; i < again.n_members; i++)
            CHECK(again.members[i].key != MEMBER_STREAM_OPTIONS && again.members[i].key != MEMBER_MIN_TOKENS);
    } else {
        CHECK(again.stream == rq->stream && again.max_tokens == rq->max_tokens && again.n_members == rq->n_members);
    }
    buf_free(&scratch);
}

/* Every leg: the pieces are a body again, with what is ours in it once. */
static void check_pieces(struct str body, const struct api_request *rq)
{
    const struct str models[] = {STR_NULL, STR("other \"model\"\n")};
    uint64_t rooms[64];
    struct str pieces[API_PIECES];
    struct buf text, joined;
    buf_init(&text, 1 << 20);
    buf_init(&joined, 1 << 24);
    for (size_t i = 0; i < ARRAY_LEN(rooms); i++)
        rooms[i] = INT64_MAX - i;
    for (unsigned i = 0; i < 8; i++) {
        struct api_change c = {.leg = (enum api_leg)(i % 4), .model = models[i / 4], .rooms = rooms};
        c.bootstrap_host = STR("10.0.0.5");
        c.bootstrap_port = 8998;
        c.kv_transfer_params = STR("{\"remote_block_ids\":[1],\"x\":\"}\"}");
        if (c.leg == API_LEG_BOOTSTRAP && rq->n_batch > ARRAY_LEN(rooms))
            continue;
        uint32_t n = api_pieces(body, rq, &c, &text, pieces);
        CHECK(n <= API_PIECES && (n > 0) == (c.leg == API_LEG_NONE || (rq->object_end && !rq->forbidden)));
        buf_clear(&joined);
        for (uint32_t k = 0; k < n; k++)
            CHECK(buf_add_str(&joined, pieces[k]));
        if (n && rq->object_end && !rq->forbidden && api_kind_generates(rq->kind))
            check_again(rq, buf_str(&joined), c.leg, c.model);
    }
    buf_free(&text);
    buf_free(&joined);
}

static void check_request(enum api_kind kind, struct str body)
{
    struct buf scratch, tight;
    struct api_request rq, rq2;
    struct api_error e, e2;
    buf_init(&scratch, 1 << 26);
    buf_init(&tight, body.n + 64);
    int rc = api_parse_request(kind, body, &scratch, &rq, &e);
    int rc2 = api_parse_request(kind, body, &tight, &rq2, &e2);
    CHECK(rc == rc2 && rq2.stream_bytes.n <= body.n + 64);
    if (rc == 0 && kind != API_OTHER)
        CHECK(is_json_object(body));
    if (rc == 0)
        CHECK(str_eq(rq.model, rq2.model) && str_eq(rq.cache_salt, rq2.cache_salt));
    if (rc == 0 && rq.stream_bytes.n == rq2.stream_bytes.n) /* else it was cut */
        CHECK(str_eq(rq.stream_bytes, rq2.stream_bytes) && rq.prompt_bytes == rq2.prompt_bytes);
    if (rc == 0)
        check_splice(body, &rq);
    if (rc == 0)
        check_pieces(body, &rq);
    if (rc) {
        CHECK(e.status == 400 && e.msg[0]);
        CHECK(!is_syntax(e.code) || !is_json_object(body));
    }
    buf_free(&scratch);
    buf_free(&tight);
}

static enum text_end decode(text_copy_fn fn, struct str body, unsigned char *out, size_t *used, size_t *made)
{
    const unsigned char *p = (const unsigned char *)body.p;
    struct text_cur c = {p + 2, p + body.n, out}; /* body begins with `{"` */
    enum text_end e = fn(&c);
    *used = (size_t)(c.p - p);
    *made = (size_t)(c.out - out);
    return e;
}

static void check_text(struct str body)
{
    text_copy_fn fns[] = {
        text_copy_best(),
#if defined(__x86_64__)
        text_copy_sse2
#endif
    };
    char *string = xmalloc(body.n + 2);
    memcpy(string, "{\"", 2);
    memcpy(string + 2, body.p, body.n);
    body = (struct str){string, body.n + 2};
    unsigned char *a = xmalloc(body.n), *b = xmalloc(body.n);
    size_t used_a, made_a, used_b, made_b;
    enum text_end want = decode(text_copy_portable, body, a, &used_a, &made_a);
    for (size_t i = 0; i < ARRAY_LEN(fns) && fns[i]; i++) {
        CHECK(decode(fns[i], body, b, &used_b, &made_b) == want);
        CHECK(want != TEXT_OK || (used_a == used_b && made_a == made_b && memcmp(a, b, made_a) == 0));
    }
    free(string);
    free(a);
    free(b);
}

static void one_id(void *ctx, struct str id, bool adapter)
{
    *(size_t *)ctx += id.n + adapter;
}

static void check_path(enum api_kind kind, struct str path)
{
    struct str model = api_path_model(kind, path);
    CHECK(!model.n || (kind == API_TRITON && model.p > path.p && model.p + model.n < path.p + path.n));
    CHECK(!api_path_streams(kind, path) || model.n);
    CHECK((api_classify(false, true, path) == API_TRITON) == (api_path_model(API_TRITON, path).n > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    char *copy = xmalloc(size); /* of the exact size, so that an over-read is seen */
    memcpy(copy, data + 1, size - 1);
    struct str body = {copy, size - 1};
    struct api_usage u = {0};
    struct str params;
    size_t sum = 0;
    check_text(body);
    check_request((enum api_kind)(data[0] % API_N_KINDS), body);
    (void)api_usage_from_body(body, &u);
    (void)api_usage_from_tail(body, &u);
    (void)api_first_event_error(body);
    sum += api_response_id(body).n;
    (void)api_models_each(body, one_id, &sum);
    for (int k = 0; k < API_N_KINDS; k++)
        check_path((enum api_kind)k, body);
    if (api_kv_transfer_params(body, &params) > 0)
        CHECK(is_json_object(params) && params.p > body.p && params.p + params.n < body.p + body.n);
    free(copy);
    return sum == SIZE_MAX;
}
