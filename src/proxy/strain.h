/* proxy/strain.h - when a worker is at the limit of its CPU: how much of the picker's care it leaves out. Pure.
 *
 * Level 0: everything. 1: prompts are hashed only as deep as STRAIN_BLOCKS blocks. 2: not at all, endpoints are chosen by load alone.
 * A worker is behind when it is busy for nearly the whole of a window (work is always waiting) and events wait longer than a limit
 * (net/loop.h, loop_load): one of both alone is a burst that is over, or a machine that wakes threads late, and hashing less would not help.
 * Up: two windows in a row, to the lower level that they ask for. Down: one level after `hold` of calm. A level that comes back soon
 * after it was left doubles the hold, up to STRAIN_HOLD_MAX_S: with less to do the load looks bearable until it is taken on again. */
#ifndef PROXY_STRAIN_H
#define PROXY_STRAIN_H

#include "base/str.h"

#define STRAIN_BLOCKS     32   /* of level 1 */
#define STRAIN_WINDOW_S   0.09 /* least; the worker looks every 100 ms */
#define STRAIN_BUSY       0.9  /* share of the window from which there is no time left, */
#define STRAIN_CALM       0.75 /* and below which there is again */
#define STRAIN_SECOND     4.0  /* level 2 from this many times the limit */
#define STRAIN_HOLD_S     1.0
#define STRAIN_HOLD_MAX_S 32.0
#define STRAIN_SOON       4.0  /* soon: within so many holds */

struct strain { /* zero-initialised */
    unsigned level;
    unsigned asked;  /* by the last window */
    double calm_s;   /* of calm in a row */
    double hold_s;   /* 0: STRAIN_HOLD_S */
    double since_s;  /* since a level was left; 0: never */
};

/* One window of dt_s seconds: share of it busy, lag; limit_s 0 switches it off. Returns the level. */
unsigned strain_step(struct strain *s, double limit_s, double dt_s, double busy, double lag_s);

#endif
