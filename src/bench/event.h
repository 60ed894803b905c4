/* bench/event.h - the events of an answer's stream, as they arrive in pieces, and what a benchmark wants to know of each.
 *
 * Complete lines are looked at where they are; only the start of an unfinished line is kept, so a stream whose events come whole holds no memory. Pure. */
#ifndef BENCH_EVENT_H
#define BENCH_EVENT_H

#include "base/str.h"

#define EVENT_LINE_MAX (16u << 20)

struct event_lines { /* zero-initialise; free with event_lines_free */
    char *p;
    size_t n, cap;
};
/* Calls fn for the payload of every complete `data:` line until it returns false. False then, or when a line passes EVENT_LINE_MAX. */
bool event_lines_feed(struct event_lines *l, struct str piece, bool (*fn)(void *ctx, struct str payload), void *ctx);
void event_lines_free(struct event_lines *l);

struct event {
    bool choices;   /* "choices" is there and not empty: what the engine's client counts as a token's event */
    bool has_usage; /* "usage" is an object: */
    bool error;     /* "error" is there and not null */
    uint32_t prompt_tokens, completion_tokens, cached_tokens;
    struct str text; /* of the first choice ("text", or "content" of "delta"), a raw JSON string; empty when it has none */
};
bool event_parse(struct str payload, struct event *out) MUST_USE; /* false: no JSON object */
/* "code", else "type", of an OpenAI or Anthropic error body (inside "error" or flat); empty when there is none. A number is no answer. Into payload. */
struct str event_error_code(struct str payload);

#endif
