/* main.c - the table of subcommands. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name; returns the exit code: 0, 1 failed, 2 usage */
};

int cli_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("penstock " PENSTOCK_VERSION " (parity: Gateway with Inference Extension 1.4.0-aliyun.2)");
    return 0;
}

static const struct command commands[] = {
    {"gateway", "route requests to model servers as the manifests say", cli_gateway},
    {"sandbox", "play a cluster on loopback addresses: simulated model servers and the gateway, from manifests", cli_sandbox},
    {"sim", "one simulated model server", cli_sim},
    {"bench", "measure a server or gateway under load, as `vllm bench serve` does", cli_bench},
    {"replay", "replay a recorded load on simulated servers, under any policy, in virtual time", cli_replay},
    {"check", "validate manifests and explain what they do", cli_check},
    {"top", "live view of pools and pods of a running gateway", cli_top},
    {"version", "print the version", cli_version},
};

static void usage(FILE *f)
{
    fputs("Usage: penstock COMMAND [OPTION...]\n\nCommands:\n", f);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(f, "  %-9s %s\n", commands[i].name, commands[i].help);
    fputs("\npenstock COMMAND --help tells the options of a command.\n", f);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version"))
        return cli_version(0, NULL);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "penstock: unknown command '%s'\n", argv[1]);
    usage(stderr);
    return 2;
}
