/* sim/words.c - the words. Each has at most nine letters, so that it is one token with its leading blank. */
#include "sim/words.h"

#include "base/hash.h"

static const char *const words[] = {
    " the",   " water",    " of",      " a",        " river",    " and",    " in",      " turbine", " to",
    " gate",  " with",     " stone",   " valley",   " that",     " light",  " under",   " city",    " is",
    " as",    " slow",     " bright",  " many",     " engine",   " over",   " from",    " deep",    " its",
    " small", " bridge",   " between", " quiet",    " through",  " early",  " morning", " people",  " count",
    " each",  " drop",     " power",   " line",     " hill",     " where",  " winter",  " snow",    " melts",
    " into",  " pipe",     " steel",   " runs",     " down",     " until",  " wheel",   " turns",   " house",
    " hums",  " again",    " measure", " pressure", " follows",  " height", " while",   " some",    " wait",
    " their", " turn",     " by",      " open",     " valve",    " every",  " second",  " carries", " more",
    " than",  " before",   " nothing", " stays",    " long",     " when",   " banks",   " hold",    " still",
    " paper", " maps",     " show",    " old",      " channels", " now",    " dry",     " new",     " ones",
    " cut",   " straight", " across",  " field",    " made",     " for",    " work",    " not",     " beauty",
    " yet",   " they",     " have",    " both"};
static const char *const starts[] = {" The",  " A",  " When",  " Under", " Each", " From",
                                     " Some", " In", " Water", " Now",   " Then", " Here"};
static const char *const first[] = {"The",  "A",  "When",  "Water", "Each", "From",
                                    "Some", "In", "Every", "Now",   "Once", "Here"};
#define SENTENCE 12 /* words and the full stop */

struct str word_at(uint64_t seed, uint32_t index)
{
    uint64_t h = hash_mix(seed, index + 1);
    uint32_t in = index % SENTENCE;
    if (index == 0)
        return str_c(first[h % ARRAY_LEN(first)]);
    if (in == SENTENCE - 1)
        return STR(".");
    return str_c(in == 0 ? starts[h % ARRAY_LEN(starts)] : words[h % ARRAY_LEN(words)]);
}
