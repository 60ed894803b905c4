/* sim/words.h - the text a simulated model answers with: words drawn from a fixed list by a seed, one token each. Pure.
 */
#ifndef SIM_WORDS_H
#define SIM_WORDS_H

#include "base/str.h"

/* The index-th piece of the answer with that seed (static memory); joined, they read as sentences, and each is one
 * token of sim/tokens.h. */
struct str word_at(uint64_t seed, uint32_t index);

#endif
