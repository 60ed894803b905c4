#include "cli/cli.h"
int cli_gateway(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 2;
}
