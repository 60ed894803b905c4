/* api/shape.h - the parts of the request shapes that make the prefix stream. Internal to api; see scan.h for the
 * conventions.
 *
 * What the stream is (mission decision 15), to the byte:
 *   prompt, input of embeddings
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
 * Order of sections: tools, system, messages; the order in the body does not matter. */
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

bool shape_prompt(struct scan *s, const char *field); /* completions prompt, embeddings input */
bool shape_tools(struct scan *s);
bool shape_messages(struct scan *s);                  /* chat and Anthropic messages */
bool shape_system(struct scan *s, const char *field); /* system, instructions: string, blocks or null */
bool shape_responses_input(struct scan *s);

/* Content of a message at p: string, parts or null, appended. Counts prompt_bytes and n_media. */
bool shape_content(struct scan *s);
/* A string at p appended as text and counted; any other value as compact text; null: nothing. */
bool shape_text_or_json(struct scan *s);

#endif
