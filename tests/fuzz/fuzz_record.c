/* Fuzz target: any bytes as a record of live traffic: line by line (what was read is written and reads back as the same
 * text), as a load, and replayed onto the picker. */
#include "bench/dataset.h"
#include "replay/decisions.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct buf *out, const struct journal *j)
{
    buf_clear(out);
    journal_put(out, j);
    CHECK(!out->overflow && out->p[out->n - 1] == '\n');
}

static void round_trip(struct str text)
{
    static struct journal_reader jr, again; /* as one process reads many lines */
    struct journal j, k;
    struct errbuf err;
    struct buf a, b;
    buf_init(&a, 64 << 20);
    buf_init(&b, 64 << 20);
    struct data_line l = {.rest = text};
    while (data_line_next(&l)) {
        if (journal_read(&jr, l.line, &j, &err)) {
            CHECK(err.msg[0]);
            continue;
        }
        put(&a, &j);
        CHECK(journal_read(&again, str_first(buf_str(&a), a.n - 1), &k, &err) == 0);
        put(&b, &k);
        CHECK(str_eq(buf_str(&a), buf_str(&b)));
    }
    buf_free(&a);
    buf_free(&b);
}

static void as_load(struct str text)
{
    struct dataset d = {0};
    struct dataset_opts o;
    struct errbuf err = {{0}};
    struct data_line first = {.rest = text};
    if (!data_line_next(&first) || !dataset_record_is(first.line))
        return;
    dataset_opts_init(&o);
    o.kind = DATA_TRACE;
    o.path = "fuzz";
    buf_init(&d.file, 1 << 24);
    buf_add_str(&d.file, text);
    bool ok = dataset_make(&d, &o, &err);
    CHECK(ok ? d.n > 0 && d.block_tokens > 0 : err.msg[0] != 0);
    for (uint32_t i = 0; ok && i < d.n; i++) {
        CHECK(d.v[i].ids_from + d.v[i].n_ids <= d.n_ids && d.v[i].output_tokens);
        CHECK(!i || d.at_s[i] >= d.at_s[i - 1]);
    }
    dataset_free(&d);
}

static void as_decisions(struct str text)
{
    struct decisions_result r;
    struct errbuf err = {{0}};
    struct buf out;
    buf_init(&out, 1 << 24);
    if (decisions_check(text, &r, &err) == 0)
        decisions_report(&r, &out);
    else
        CHECK(err.msg[0]);
    decisions_result_free(&r);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    round_trip(text);
    as_load(text);
    as_decisions(text);
    return 0;
}
