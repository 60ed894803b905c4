/* cli/cli.h - the subcommands, and the option parser that all of them share.
 *
 * A subcommand describes its options in one table; cli_parse fills the variables and writes usage and error texts. Long
 * options take
 * `--name VALUE` and `--name=VALUE`, one-letter options `-f VALUE` and `-fVALUE`; `--` ends the options. Exit codes of
 * every subcommand: 0 done, 1 failed, 2 usage. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/compiler.h"

enum cli_kind {
    CLI_STR,      /* const char **          */
    CLI_U64,      /* uint64_t *: decimal    */
    CLI_DOUBLE,   /* double *: finite       */
    CLI_DURATION, /* uint64_t *: microseconds, given as "300ms", "1h30m" */
    CLI_FLAG,     /* bool *: true when given; takes no value */
    CLI_LIST      /* struct cli_list *: may be given several times */
};
struct cli_list { /* zero-initialise; the strings are those of argv */
    const char **v;
    size_t n;
};
struct cli_opt {
    const char *name; /* without the dashes; a table ends with an entry whose name is NULL */
    char letter;      /* 'f' for -f, 0 none */
    const char *arg;  /* placeholder of the value: "FILE"; NULL for flags */
    const char *help; /* one line */
    enum cli_kind kind;
    void *out; /* keeps its value (the default) when the option is not given */
};
struct cli_command {
    const char *synopsis; /* "check -f FILE|DIR... [--format text|json]", without "penstock" */
    const char *about;    /* one or two sentences */
    const struct cli_opt *opts;
};

#define CLI_GO (-1)
/* argv[0] is the name of the subcommand. Arguments that are no options go to `rest`, or are refused when rest is NULL.
 * Returns CLI_GO, or the exit code: 0 after --help (usage on stdout), 2 after a message on stderr. */
int cli_parse(const struct cli_command *c, int argc, char **argv, struct cli_list *rest) MUST_USE;
/* "penstock check: <sentence>" and a hint at --help on stderr; returns 2. For what only the subcommand can judge. */
int cli_usage_error(const struct cli_command *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
void cli_list_free(struct cli_list *l); /* empties it */

int cli_bench(int argc, char **argv);
int cli_replay(int argc, char **argv);
int cli_gateway(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_sim(int argc, char **argv);
int cli_sandbox(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_version(int argc, char **argv);

#endif
