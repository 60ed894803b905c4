/* bench/words.h - prompts of a wanted number of tokens, without a tokenizer. Pure.
 *
 * The words are short and common, so that each, with its leading blank, is one token of the usual vocabularies (BPE of GPT, Llama, Qwen, DeepSeek) and of
 * the simulator. What a server counts comes in its `usage` and is what the report shows; the chat template adds its own. */
#ifndef BENCH_WORDS_H
#define BENCH_WORDS_H

#include "base/buf.h"

/* Words number from..from+n-1 of the text with that key: equal keys give equal texts, so a common prefix is a common key. ASCII letters and blanks only:
 * nothing that JSON would escape. */
void words_add(struct buf *out, uint64_t key, uint32_t from, uint32_t n);
/* Estimate of the tokens of a text (a raw JSON string: an escape counts as the character it stands for): English about 4.5 bytes, a digit or a mark one
 * each, other scripts one per character. */
uint32_t words_estimate(struct str raw);

#endif
