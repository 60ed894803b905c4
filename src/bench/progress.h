/* bench/progress.h - how far a run has come: a bar on a terminal, else a plain line every few seconds. */
#ifndef BENCH_PROGRESS_H
#define BENCH_PROGRESS_H

#include "bench/drive.h"

#include <stdio.h>

struct progress {
    FILE *to;       /* NULL: silent */
    bool bar;
    double rate;    /* of finished requests, a smoothed one */
    double last_s;
    uint32_t last_done;
};
void progress_init(struct progress *p, FILE *to, bool terminal);
uint64_t progress_every_us(const struct progress *p); /* for drive_opts.progress_us, at time scale 1 */
void progress_show(void *ctx, const struct drive_progress *now); /* drive_opts.on_progress; ctx is the struct */
void progress_end(struct progress *p);
/* The text without colour or line end, for the tests. width: of the whole line; 0: no bar. */
size_t progress_text(const struct drive_progress *now, double rate, unsigned width, char *out, size_t cap);

#endif
