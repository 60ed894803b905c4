/* cli/commands.h - entry points of the subcommands: argv[0] is the subcommand's name; they return the exit code (0, 1 failed, 2 usage). */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

int cli_gateway(int argc, char **argv);
int cli_sandbox(int argc, char **argv);
int cli_sim(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_top(int argc, char **argv);

#endif
