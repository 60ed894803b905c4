/* bench/progress.c - the line of a run under way. */
#include "bench/progress.h"

#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define BAR_EVERY_US  100000
#define LINE_EVERY_US 5000000
#define SMOOTH_S      3.0
#define BAR_CELLS_MAX 40

void progress_init(struct progress *p, FILE *to, bool terminal)
{
    *p = (struct progress){.to = to, .bar = terminal};
}

uint64_t progress_every_us(const struct progress *p)
{
    return p->bar ? BAR_EVERY_US : LINE_EVERY_US;
}

static void put_time(double s, char out[16])
{
    if (!(s >= 0) || s > 359999)
        (void)snprintf(out, 16, "?");
    else if (s >= 3600)
        (void)snprintf(out, 16, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
    else
        (void)snprintf(out, 16, "%02d:%02d", (int)s / 60, (int)s % 60);
}

static size_t put_bar(double frac, size_t cells, char *out)
{
    static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    size_t n = 0, full = (size_t)(frac * (double)cells), part = (size_t)(frac * (double)cells * 8) % 8;
    for (size_t i = 0; i < cells; i++) {
        const char *cell = i < full ? "█" : i == full ? eighths[part] : " ";
        size_t len = strlen(cell);
        memcpy(out + n, cell, len);
        n += len;
    }
    out[n] = '\0';
    return n;
}

size_t progress_text(const struct drive_progress *now, double rate, unsigned width, char *out, size_t cap)
{
    char elapsed[16], left[16], rest[160], bar[BAR_CELLS_MAX * 3 + 1] = "", waiting[32] = "";
    double frac = now->total ? (double)now->done / now->total : 1;
    put_time(now->elapsed_s, elapsed);
    put_time(rate > 0 ? (now->total - now->done) / rate : (double)NAN, left);
    if (now->waiting)
        (void)snprintf(waiting, sizeof(waiting), ", %u waiting", now->waiting);
    int n = snprintf(rest, sizeof(rest), "%u/%u [%s<%s, %.2f req/s, %u running%s, %u failed]", now->done, now->total,
                     elapsed, left, rate, now->running, waiting, now->failed);
    size_t used = (size_t)n + 8;
    if (width > used + 4)
        put_bar(frac, MIN((size_t)width - used, (size_t)BAR_CELLS_MAX), bar);
    n = snprintf(out, cap, "%3d%%%s%s%s %s", (int)(100 * frac), *bar ? "|" : "", bar, *bar ? "|" : "", rest);
    return n < 0 ? 0 : MIN((size_t)n, cap ? cap - 1 : 0);
}

static unsigned columns(FILE *f)
{
    struct winsize w = {0};
    return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

void progress_show(void *ctx, const struct drive_progress *now)
{
    struct progress *p = ctx;
    char text[512];
    double dt = now->elapsed_s - p->last_s;
    if (dt > 0) {
        double fresh = (now->done - p->last_done) / dt, keep = p->last_s > 0 ? exp(-dt / SMOOTH_S) : 0;
        p->rate = keep * p->rate + (1 - keep) * fresh;
        p->last_s = now->elapsed_s;
        p->last_done = now->done;
    }
    if (!p->to)
        return;
    progress_text(now, p->rate, p->bar ? columns(p->to) : 0, text, sizeof(text));
    fprintf(p->to, "%s%s%s", p->bar ? "\r" : "", text, p->bar ? "\033[K" : "\n");
    (void)fflush(p->to);
}

void progress_end(struct progress *p)
{
    if (p->to && p->bar)
        fputc('\n', p->to);
}
