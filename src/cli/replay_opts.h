/* cli/replay_opts.h - options of penstock replay, read and checked. */
#ifndef CLI_REPLAY_OPTS_H
#define CLI_REPLAY_OPTS_H

#include "cli/cli.h"
#include "replay/world.h"

struct replay_load {
    const char *name; /* the trace as given, without folder and .jsonl.gz */
    char name_buf[128];
    struct dataset data;
};
struct replay_opts {
    struct world_params world; /* what all runs share */
    struct replay_load *loads;
    size_t n_loads;
    const struct policy **policies;
    size_t n_policies;
    double *rates, *users;
    size_t n_rates, n_users;
    uint64_t seed, n_seeds, time_us, threads, limit;
    char profile_name[128];
    const char *html;
    bool json, quiet, scrape_given;
};
/* CLI_GO, or the exit code, after a message. replay_opts_free in every case. */
int replay_opts_parse(struct replay_opts *o, int argc, char **argv);
void replay_opts_free(struct replay_opts *o);
/* --decisions: says what became of each record. 0: all decisions are the same; 1: not; 2: one is no record. */
int replay_decisions(const struct cli_list *paths);

#endif
