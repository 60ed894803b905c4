/* check_record FILE: does a record replay to the same decisions? check_record --load FILE: what it is as a load. For
 * the scenario tests. */
#include <stdio.h>
#include <string.h>

#include "bench/dataset.h"
#include "replay/decisions.h"

static int fail(const char *path, const struct errbuf *err)
{
    (void)fprintf(stderr, "%s: %s\n", path, err->msg);
    return 2;
}

static int as_load(const char *path)
{
    struct dataset_opts o;
    struct dataset d = {0};
    struct errbuf err;
    dataset_opts_init(&o);
    o.kind = DATA_TRACE;
    o.path = path;
    bool ok = dataset_load(&d, &o, &err);
    uint64_t input = 0, output = 0;
    for (uint32_t i = 0; ok && i < d.n; i++) {
        input += d.v[i].input_tokens;
        output += d.v[i].output_tokens;
    }
    if (ok)
        printf("{\"requests\": %u, \"input\": %llu, \"output\": %llu, \"ids\": %zu, \"block_tokens\": %u, \"last_s\": "
               "%.3f, \"left_out\": %u, "
               "\"note\": \"%s\"}\n",
               d.n, (unsigned long long)input, (unsigned long long)output, d.n_ids, d.block_tokens, d.at_s[d.n - 1],
               d.left_out, d.note);
    dataset_free(&d);
    return ok ? 0 : fail(path, &err);
}

static int as_proof(const char *path)
{
    struct buf text, out;
    struct decisions_result r = {0};
    struct errbuf err;
    buf_init(&text, DATASET_MAX_FILE);
    buf_init(&out, 1 << 20);
    bool ok = dataset_read(&text, path, &err) && decisions_check(buf_str(&text), &r, &err) == 0;
    if (ok)
        decisions_report(&r, &out);
    printf("%s", buf_cstr(&out));
    int rc = !ok ? fail(path, &err) : decisions_same(&r) ? 0 : 1;
    decisions_result_free(&r);
    buf_free(&out);
    buf_free(&text);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--load"))
        return as_load(argv[2]);
    if (argc == 2)
        return as_proof(argv[1]);
    (void)fprintf(stderr, "usage: check_record [--load] FILE\n");
    return 2;
}
