/* bench/saved.h - reads saved results, ours or those of the engine's client, one run or several appended to one file.
 *
 * Foreign bytes: bounded (SAVED_MAX_*), errors name file, line and column. Unknown members are skipped. Owner: the
 * caller, saved_free. Not thread-safe. */
#ifndef BENCH_SAVED_H
#define BENCH_SAVED_H

#include "base/err.h"
#include "base/str.h"

#define SAVED_MAX_BYTES   (1u << 30)
#define SAVED_MAX_RUNS    1024
#define SAVED_MAX_FIGURES 256 /* numbers of a run, by name; more are left out */
#define SAVED_MAX_KEY     48
#define SAVED_MAX_LABEL   80

struct saved_figure {
    char key[SAVED_MAX_KEY];
    double v; /* "inf" of request_rate is INFINITY */
};
struct saved_column {
    double *v;
    size_t n, cap;
    bool there;
};
struct saved_run {
    char label[SAVED_MAX_LABEL]; /* the run's own, else the name of the file without directory and .json */
    char model[SAVED_MAX_LABEL];
    struct saved_figure *figures;
    size_t n_figures;
    /* of --save-detailed, a value per request: seconds; failed is 0 or 1; itl_n values of itl belong to each */
    struct saved_column ttft, latency, output, failed, itl, itl_n;
};
struct saved_runs {
    struct saved_run *v;
    size_t n;
};

/* With `details`, the requests are read too: a run without them is an error, a run whose columns differ in length as
 * well. */
bool saved_read(const char *path, bool details, struct saved_runs *out, struct errbuf *err);
bool saved_parse(struct str text, const char *path, bool details, struct saved_runs *out, struct errbuf *err);
void saved_free(struct saved_runs *s);
const double *saved_get(const struct saved_run *r, const char *key); /* NULL: not there */

#endif
