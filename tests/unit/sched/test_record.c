/* The recorder: what is noted is in the file, in order, by the time it is closed; what does not fit is missed and
 * counted; a write error ends the recording and nothing else; files that hold something are left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "sched/record.h"

static char path[] = "/tmp/penstock-record-XXXXXX";

static void fresh(void)
{
    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static struct buf read_file(void)
{
    struct buf b;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    buf_init(&b, 1 << 28);
    for (;;) {
        char *p = buf_reserve(&b, 1 << 16);
        size_t n = fread(p, 1, 1 << 16, f);
        if (!n)
            break;
        buf_commit(&b, n);
    }
    fclose(f);
    return b;
}

static bool next_line(struct str *rest, struct str *line)
{
    const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
    if (!end)
        return false;
    *line = (struct str){rest->p, (size_t)(end - rest->p)};
    *rest = str_from(*rest, line->n + 1);
    return true;
}

static struct record *open_record(size_t buffer, struct metrics *m)
{
    struct errbuf err;
    struct record_opts o = {.time_scale = 1, .buffer = buffer, .metrics = m};
    struct record *r = record_open(path, &o, &err);
    if (!r)
        fail_msg("%s", err.msg);
    return r;
}

static uint64_t hashes[PREFIX_MAX];
static struct prefix_hashes ph = {.h = hashes, .n = 128, .n_fine = 128, .block_bytes = 64};

static void note(struct record *r, uint32_t pool, uint64_t no)
{
    struct sched_req q = {.id = no, .q.seq = no, .hashes = &ph, .n_outputs = 1};
    hashes[127] = no;
    record_submit(r, pool, 1000 + no, &q, SCHED_QUEUED, false);
}

static void test_lines(void **state)
{
    (void)state;
    struct sched_flow_weight w[2] = {{1, 2}, {7, 0.25}};
    struct sched_model models[2] = {{5, false}, {6, true}};
    struct sched_params p;
    struct stat st;
    fresh();
    unlink(path);
    struct record *r = open_record(0, NULL);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    sched_params_init(&p);
    p.flow_weights = w;
    p.n_flow_weights = 2;
    assert_int_equal(record_pool(r, STR("llama"), STR("default"), false, 42, &p), 0);
    assert_int_equal(record_pool(r, STR("svc"), STR("default"), true, 43, &p), 1);
    struct journal j = {.type = JOURNAL_EP_ADD, .pool = 1, .now_us = 5, .ep = {0, 1}};
    char name[8] = "pod-0";
    j.u.add.name = str_c(name);
    record_note(r, &j);
    memset(name, 0, sizeof name); /* it was copied */
    j = (struct journal){.type = JOURNAL_EP_MODELS, .pool = 1, .now_us = 6, .ep = {0, 1}};
    j.u.models.v = models;
    j.u.models.n = 2;
    record_note(r, &j);
    memset(models, 0, sizeof models);
    for (uint64_t i = 1; i <= 1000; i++)
        note(r, 0, i);
    record_close(r);
    struct buf text = read_file();
    struct str rest = buf_str(&text), line;
    struct journal_reader jr = {0};
    struct errbuf err;
    uint64_t n = 0;
    while (next_line(&rest, &line)) {
        if (journal_read(&jr, line, &j, &err))
            fail_msg("%s", err.msg);
        n++;
        if (n == 1) {
            assert_int_equal(j.type, JOURNAL_HEAD);
            assert_int_equal(j.u.head.started.n, 20);
        } else if (n == 2) {
            assert_int_equal(j.type, JOURNAL_POOL);
            assert_int_equal(j.u.pool_new.seed, 42);
            assert_int_equal(j.u.pool_new.params.n_flow_weights, 2);
            assert_true(j.u.pool_new.params.flow_weights[1].weight == 0.25);
        } else if (n == 4) {
            assert_true(str_eq_c(j.u.add.name, "pod-0"));
        } else if (n == 5) {
            assert_true(j.u.models.n == 2 && j.u.models.v[1].name == 6 && j.u.models.v[1].adapter);
        } else if (n > 5) {
            assert_int_equal(j.type, JOURNAL_SUBMIT);
            assert_int_equal(j.req, n - 5);
            assert_int_equal(j.u.submit.hashes.h[127], n - 5);
        }
    }
    assert_int_equal(n, 1005);
    assert_int_equal(rest.n, 0);
    journal_reader_free(&jr);
    buf_free(&text);
    unlink(path);
}

static double figure(struct metrics *m, const char *name)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_true(metrics_expose(m, &out));
    char key[100];
    snprintf(key, sizeof key, "\n%s ", name);
    const char *at = strstr(buf_cstr(&out), key);
    assert_non_null(at);
    double v = strtod(at + strlen(key), NULL);
    buf_free(&out);
    return v;
}

/* Notes far faster than lines can be made: every pool's gaps say exactly what is missing. */
static void test_gap(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct metrics *m = metrics_new(1);
    struct sched_params p;
    fresh();
    struct record *r = open_record(64 << 10, m);
    sched_params_init(&p);
    record_pool(r, STR("a"), STR_NULL, false, 1, &p);
    record_pool(r, STR("b"), STR_NULL, false, 2, &p);
    for (uint64_t i = 1; i <= N; i++)
        note(r, i % 2, i);
    double dropped = figure(m, "penstock_record_dropped_total");
    assert_true(dropped > 0 && dropped < N);
    assert_true(figure(m, "penstock_record_failed") == 0);
    record_close(r);
    metrics_free(m);
    struct buf text = read_file();
    struct str rest = buf_str(&text), line;
    struct journal_reader jr = {0};
    struct journal j;
    struct errbuf err;
    uint64_t next[2] = {2, 1}, missing = 0;
    while (next_line(&rest, &line)) {
        assert_int_equal(journal_read(&jr, line, &j, &err), 0);
        if (j.type == JOURNAL_GAP) {
            next[j.pool] += 2 * j.u.gap.lines;
            missing += j.u.gap.lines;
        } else if (j.type == JOURNAL_SUBMIT) {
            assert_int_equal(j.req, next[j.pool]);
            next[j.pool] += 2;
        }
    }
    assert_true((double)missing == dropped);
    assert_true(next[0] == N + 2 && next[1] == N + 1);
    journal_reader_free(&jr);
    buf_free(&text);
    unlink(path);
}

static void test_write_error(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct metrics *m = metrics_new(1);
    struct sched_params p;
    struct stat st;
    fresh();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    struct record *r = open_record(0, m);
    sched_params_init(&p);
    record_pool(r, STR("a"), STR_NULL, false, 1, &p);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool failed = false;
    for (uint64_t i = 1; i < 1000 && !failed; i++) {
        note(r, 0, i);
        usleep(1000);
        failed = figure(m, "penstock_record_failed") == 1;
    }
    assert_true(failed);
    for (uint64_t i = 1; i < 50000; i++) /* goes nowhere, and does not pile up */
        note(r, 0, i);
    assert_true(figure(m, "penstock_record_dropped_total") == 0);
    record_close(r);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    metrics_free(m);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size <= 100000);
    unlink(path);
}

static void refused(const char *file, const char *says)
{
    struct record_opts o = {.time_scale = 1};
    struct errbuf err = {{0}};
    assert_null(record_open(file, &o, &err));
    if (!strstr(err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
}

static void test_files(void **state)
{
    (void)state;
    fresh();
    struct record *r = open_record(0, NULL); /* empty: taken */
    refused(path, "not empty");
    record_close(r);
    refused(path, "not empty");
    unlink(path);
    refused("/tmp", "directory");
    refused("/dev/null", "regular");
    refused("/no/such/place", "No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_write_error),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
