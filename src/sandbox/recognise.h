/* sandbox/recognise.h - is this command a model server, and with which options? Reads the command line of a container,
 * also inside `sh -c`. Pure. */
#ifndef SANDBOX_RECOGNISE_H
#define SANDBOX_RECOGNISE_H

#include "base/arena.h"

enum server_kind { SERVER_NONE, SERVER_VLLM, SERVER_SGLANG, SERVER_TRITON, SERVER_TRTLLM };
struct recognised {
    enum server_kind kind;
    struct str *argv; /* the server's options, without its own words; in the arena */
    size_t n;
    bool later_node; /* not the first node of an engine that spans several: answers no HTTP */
};
const char *server_kind_name(enum server_kind k);
/* False when no command in it is a model server. */
bool recognise(struct arena *a, const struct str *argv, size_t n, struct recognised *out);

#endif
