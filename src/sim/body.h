/* sim/body.h - what a model server reads of a JSON request body: the members it knows, as raw JSON, and the tokens of
 * the prompt.
 *
 * Spans point into the body. Written apart from the gateway's scanner on purpose (a simulator must not agree with what
 * it tests by sharing its code): members are found in two passes, the last of equal names wins, as in Python. Pure. */
#ifndef SIM_BODY_H
#define SIM_BODY_H

#include "base/buf.h"
#include "sim/tokens.h"

enum body_key {
    B_MODEL,
    B_PROMPT,
    B_MESSAGES,
    B_INPUT,
    B_INSTRUCTIONS,
    B_SYSTEM,
    B_TOOLS,
    B_MAX_TOKENS,
    B_MAX_COMPLETION_TOKENS,
    B_MAX_OUTPUT_TOKENS,
    B_MIN_TOKENS,
    B_IGNORE_EOS,
    B_N,
    B_STREAM,
    B_STREAM_OPTIONS,
    B_CACHE_SALT,
    B_PREVIOUS,
    B_ENCODING,
    B_DIMENSIONS,
    B_LORA_NAME,
    B_LORA_PATH,
    B_TEXT,
    B_INPUT_IDS,
    B_SAMPLING,
    B_RID,
    B_TEXT_INPUT,
    B_ID,
    B_ACCUMULATE,
    B_ROOM,
    B_ROOM_HOST,
    B_ROOM_PORT,
    B_RANK,
    B_OLD_RANK,
    B_PREFILL_RANK,
    B_KV_PARAMS,
    B_QUERY,
    B_DOCUMENTS,
    B_TEXT_1,
    B_TEXT_2,
    B_TOP_N,
    B_KEYS
};
struct body {
    struct str raw[B_KEYS]; /* JSON text of the member's value; empty when absent or null */
};

/* False, with a static text, when the text is no JSON object. */
bool body_scan(struct str text, struct body *b, const char **error);
/* Members of any object by name: out[i] as in struct body. */
bool body_members(struct str object, const char *const *names, size_t n, struct str *out, const char **error);
/* Calls fn for each value of an array; false when raw is no array or fn says so. */
bool body_each(struct str raw, bool (*fn)(void *ctx, struct str value), void *ctx);
bool body_is_string(struct str raw);
bool body_string(struct str raw, struct buf *out); /* appends the decoded string; false when it is none */
enum { BODY_ABSENT, BODY_OK, BODY_BAD };
int body_u64(struct str raw, uint64_t *out);
int body_bool(struct str raw, bool *out);

#define BODY_MAX_PROMPTS 2048
struct prompts { /* zero-initialise; prompts_free */
    struct tokens *v;
    uint32_t n, cap;
};
void prompts_free(struct prompts *p);
/* `prompt` or an embedding's `input`: string, list of strings, token ids, list of lists. False with a static text
 * otherwise. */
bool prompts_plain(struct prompts *p, struct str raw, const char **error);
/* Messages (chat, Anthropic, items of responses) through the chat template. system: an extra system text (raw string or
 * blocks) or empty. */
bool prompts_chat(struct tokens *t, struct str messages, struct str system, struct str tools, const char **error);
/* Without the default system prompt and the opening of the answer: what follows an earlier turn. */
bool prompts_append(struct tokens *t, struct str messages, const char **error);
void prompts_open_answer(struct tokens *t);  /* "<start>assistant\n" */
void prompts_close_answer(struct tokens *t); /* "<stop>\n" */

#endif
