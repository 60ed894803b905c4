/* sim/tokens.h - the simulated server's own tokenizer: text to pseudo tokens, by a rule of its own.
 *
 * It shares nothing with the gateway on purpose: what the gateway estimates must not agree with the server by
 * construction. English comes to about 4.5 bytes a token, digits to one, CJK to one character. Pure. */
#ifndef SIM_TOKENS_H
#define SIM_TOKENS_H

#include "base/str.h"

struct tokens { /* zero-initialise; free with tokens_free */
    uint32_t *v;
    uint32_t n, cap;
};
enum { /* special tokens of the chat template; texts never produce them */
       TOKEN_START = 0x80000000u,
       TOKEN_STOP,
       TOKEN_IMAGE
};

void tokens_free(struct tokens *t);
void tokens_add(struct tokens *t, uint32_t token);
void tokens_text(struct tokens *t, struct str text);
uint32_t tokens_one(struct str piece); /* the token of a piece that is one token */

#endif
