/* cli/replay_decisions.c - penstock replay --decisions: does a record of live traffic replay to the same decisions? */
#include "bench/dataset.h"
#include "cli/replay_opts.h"
#include "replay/decisions.h"

#include <stdio.h>

#define TEXT_MAX (1u << 20)

static int check_one(const char *path)
{
    struct buf text, out;
    struct decisions_result r = {0};
    struct errbuf err = {0};
    buf_init(&text, DATASET_MAX_FILE);
    buf_init(&out, TEXT_MAX);
    int rc = 2;
    if (!dataset_read(&text, path, &err)) {
        fprintf(stderr, "penstock replay: %s\n", err.msg);
    } else if (decisions_check(buf_str(&text), &r, &err) < 0) {
        fprintf(stderr, "penstock replay: %s: %s\n", path, err.msg);
    } else {
        decisions_report(&r, &out);
        fwrite(buf_str(&out).p, 1, out.n, stdout);
        rc = decisions_same(&r) ? 0 : 1;
    }
    decisions_result_free(&r);
    buf_free(&out);
    buf_free(&text);
    return rc;
}

int replay_decisions(const struct cli_list *paths)
{
    int rc = 0;
    if (!paths->n) {
        fputs("penstock replay: --decisions needs a record of penstock gateway --record.\n", stderr);
        return 2;
    }
    for (size_t i = 0; i < paths->n; i++) {
        int one = check_one(paths->v[i]);
        rc = MAX(rc, one);
    }
    return rc;
}
