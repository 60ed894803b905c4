/* What the benchmark reads of others: files of requests and the events of answers. First byte: which, and the size of
 * the pieces. What must hold: requests within the limits whose text is the inside of a JSON string; any split of a
 * stream gives the same events. */
#include "base/hash.h"
#include "base/json.h"
#include "bench/dataset.h"
#include "bench/event.h"
#include "bench/pod_watch.h"
#include "bench/probe.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXTS_MAX 64 /* requests whose text is looked at */

static void check_text(const struct dataset *d, uint32_t i)
{
    struct buf b;
    struct json j;
    buf_init(&b, SIZE_MAX / 2);
    buf_add(&b, "\"", 1);
    dataset_text(d, i, &b);
    buf_add(&b, "\"", 1);
    json_init(&j, buf_str(&b));
    CHECK(json_next(&j) == JSON_STRING && json_next(&j) == JSON_END);
    buf_free(&b);
}

static void file(enum dataset_kind kind, struct str text, bool per_line)
{
    struct dataset d = {0};
    struct dataset_opts o;
    struct errbuf err = {""};
    dataset_opts_init(&o);
    o.kind = kind;
    o.path = "file";
    o.num_prompts = kind == DATA_SHAREGPT || kind == DATA_CUSTOM ? 20 : 0;
    o.custom_output = per_line ? -1 : 10;
    buf_init(&d.file, SIZE_MAX / 2);
    buf_add_str(&d.file, text);
    if (dataset_make(&d, &o, &err)) {
        CHECK(d.n > 0 && d.v[0].turn == 0 && d.n_conversations > 0);
        uint64_t tokens = 0;
        for (uint32_t i = 0; i < d.n && i < TEXTS_MAX; i++) {
            CHECK(d.v[i].output_tokens >= 1 && d.v[i].input_tokens <= DATASET_MAX_TOKENS);
            tokens += d.v[i].input_tokens;
            if (tokens < 100000)
                check_text(&d, i);
        }
        for (uint32_t i = 1; d.at_s && i < d.n; i++)
            CHECK(d.at_s[i] >= d.at_s[i - 1]);
    } else {
        CHECK(err.msg[0]);
    }
    dataset_free(&d);
}

struct sum {
    uint64_t hash;
    unsigned n;
};

static bool add(void *ctx, struct str payload)
{
    struct sum *s = ctx;
    struct event e;
    s->hash = hash_mix(s->hash, hash_bytes(payload.p, payload.n, 0));
    s->n++;
    if (event_parse(payload, &e) && e.text.n)
        CHECK(e.text.p >= payload.p && e.text.p + e.text.n <= payload.p + payload.n);
    struct str code = event_error_code(payload);
    CHECK(!code.n || (code.p >= payload.p && code.p + code.n <= payload.p + payload.n));
    return true;
}

static struct sum feed(struct str text, size_t step)
{
    struct event_lines l = {0};
    struct sum s = {0};
    while (text.n) {
        CHECK(event_lines_feed(&l, str_first(text, step), add, &s));
        text = str_from(text, step);
    }
    event_lines_free(&l);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str text = {(const char *)data + 1, size - 1};
    unsigned which = data[0] % 8;
    if (which == 0)
        file(DATA_SHAREGPT, text, false);
    else if (which == 1)
        file(DATA_MULTI_TURN, text, false);
    else if (which <= 3)
        file(DATA_CUSTOM, text, which == 3);
    else if (which <= 5)
        file(DATA_TRACE, text, false);
    else if (which == 6) {
        struct sum whole = feed(text, SIZE_MAX), split = feed(text, data[0] / 8 + 1u);
        CHECK(whole.hash == split.hash && whole.n == split.n);
    } else {
        free(probe_first_model(text));
        (void)pod_watch_kv_of(text);
    }
    return 0;
}
