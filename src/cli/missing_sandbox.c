#include "cli/cli.h"
int cli_sandbox(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 2;
}
