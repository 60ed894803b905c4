/* What recording adds to a verb under a pool's lock, and what the writing thread does for a line. Bursts that fit into
 * the buffer, with a pause after each, so that nothing is dropped; the file is on the disk of TMPDIR (default /tmp) and
 * removed. */
#include "sched/record.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BURSTS = 40, BURST = 1000 };

static double now_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t storage[PREFIX_MAX];

static void run(const char *name, uint32_t n_hashes, bool submit)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    struct errbuf err;
    snprintf(path, sizeof path, "%s/bench-record-%d", dir ? dir : "/tmp", (int)getpid());
    struct record *r = record_open(path, &(struct record_opts){.time_scale = 1}, &err);
    if (!r) {
        (void)fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    struct sched_params p;
    struct prefix_hashes ph = {
        .h = storage, .n = n_hashes, .n_fine = MIN(n_hashes, 128u), .block_bytes = 64, .n_ends = 2};
    struct sched_req q = {.id = 1, .n_outputs = 1, .prompt_bytes = 8192, .hashes = n_hashes ? &ph : NULL, .q.seq = 1};
    struct sched_usage u = {2000, 200, 0, false};
    double noted = 0, cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);
    sched_params_init(&p);
    record_pool(r, STR("bench"), STR("default"), false, 1, &p);
    for (int b = 0; b < BURSTS; b++) {
        double t0 = now_s(CLOCK_THREAD_CPUTIME_ID);
        for (uint64_t i = 1; i <= BURST; i++) {
            q.q.seq = i;
            if (submit)
                record_submit(r, 0, i, &q, SCHED_PICKED, false);
            else
                record_finish(r, 0, i, &q, OUT_OK, &u);
        }
        noted += now_s(CLOCK_THREAD_CPUTIME_ID) - t0;
        usleep(60000);
    }
    record_close(r);
    cpu = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu - noted;
    struct stat st = {0};
    (void)stat(path, &st);
    unlink(path);
    double n = (double)BURSTS * BURST;
    printf("%-28s %6.0f ns noted, %6.0f ns written by the thread, %5.0f bytes a line\n", name, noted / n * 1e9,
           cpu / n * 1e9, (double)st.st_size / n);
}

int main(void)
{
    for (uint32_t i = 0; i < PREFIX_MAX; i++)
        storage[i] = 0x9e3779b97f4a7c15ull * (i + 1);
    run("submit, no hashes", 0, true);
    run("submit, 128 hashes", 128, true);
    run("submit, 640 hashes", 640, true);
    run("finish", 0, false);
    return 0;
}
