/* api/shape.h - the parts of the request shapes that make the prefix stream. Internal to api; see scan.h for the
 * conventions.
 *
 * What the stream is (mission decision 15), to the byte:
 *   prompt, input of embeddings, text and input_ids of generate, text_input of Triton
 *       the decoded text; a token id is 4 bytes, little-endian; between the prompts of a list one 0x1e
 *   tools
 *       the array as compact JSON with decoded strings, keys in the order sent (templates render it so);
 *       null and [] give nothing
 *   message
 *       role 0x1f pieces 0x1e; the pieces: content, then tool_calls and function_call as compact JSON
 *   system, instructions
 *       like a message with the role "system"
 *   input of responses
 *       a string: like a message with the role "user"; items: like messages, with `type` as the role where there is
 *       none, and after the content name, arguments, output, input (text as it is, anything else as compact JSON)
 *   content
 *       a string, or parts: text parts as they are; tool_use, tool_result, thinking: their fields in a fixed order;
 *       anything else: 8 bytes, the little-endian hash of the part (scan_hash)
 *   lora_path of generate, where `model` names another one
 *       the text (a list: compact JSON) 0x1f
 *   query of rerank; text_1, queries or query of score
 *       its items 0x1f; between the items of a list one 0x1e; an item: the decoded text; an object: its text, without one
 *       the 8 bytes of its hash; token ids; a list of parts: one after the other
 *   documents of rerank; text_2, documents or items of score
 *       the same, without 0x1f
 * Order of sections: lora_path, tools, system, input (prompt, text, query), messages (input_ids, documents); the order in the body does
 * not matter. */
#ifndef API_SHAPE_H
#define API_SHAPE_H

#include "api/scan.h"

struct key_name {
    struct str name;
    int id;
};
/* The id of a key, -1 when it is not in the table. */
static inline int key_find(const struct key_name *table, size_t n, struct str key)
{
    for (size_t i = 0; i < n; i++)
        if (key.n == table[i].name.n && memcmp(key.p, table[i].name.p, key.n) == 0)
            return table[i].id;
    return -1;
}
/* clang-format off */
#define NAME(text) {"" text, sizeof(text) - 1}
#define KEY(text, ident) {NAME(text), ident}
/* clang-format on */

/* completions prompt, embeddings input, generate text and input_ids; sets n_batch where it is a list of prompts */
bool shape_prompt(struct scan *s, const char *field);
/* One side of rerank and score: query (ends with 0x1f) or documents. n_prompts becomes the length of the longer side. */
bool shape_side(struct scan *s, const char *field, bool query);
/* sampling_params of generate: an object, a list of them (the largest counts) or null. */
bool shape_sampling_params(struct scan *s);
bool shape_tools(struct scan *s);
bool shape_messages(struct scan *s);                  /* chat and Anthropic messages */
bool shape_system(struct scan *s, const char *field); /* system, instructions: string, blocks or null */
bool shape_responses_input(struct scan *s);

/* Content of a message at p: string, parts or null, appended. Counts prompt_bytes and n_media. */
bool shape_content(struct scan *s);
/* A part (an object) that stands alone: its text, or 8 bytes of hash. */
bool shape_part(struct scan *s);
/* The string at p, as one more prompt; the rest of a list of token ids whose first one is at p, as one more prompt. */
bool shape_one_text(struct scan *s);
bool shape_ids(struct scan *s, const char *field);
/* A number or null at p. *found only for non-negative integers; what else a number may be is the server's to judge. */
bool shape_count(struct scan *s, const char *field, uint64_t *out, bool *found);
/* A string at p appended as text and counted; any other value as compact text; null: nothing. */
bool shape_text_or_json(struct scan *s);

#endif
