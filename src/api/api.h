/* api/api.h - what the gateway must know of a request and of its answer, whatever the API: one pass over the body, no tree.
 *
 * A request body is scanned once: its JSON is validated (RFC 8259, UTF-8, depth <= 256, duplicate keys refused where the gateway
 * reads the key), the model and the flags are located, and the *prefix stream* (mission decision 15) is written to a scratch
 * buffer. The stream is what the prefix index hashes (core/prefix_hash.h): bytes of `prompt` decoded to UTF-8 (token ids as 4-byte
 * little-endian integers), or for messages: tools, then per message role 0x1f decoded text of its parts in order (a media part
 * counts as the 8-byte hash of its content) 0x1e. Rerank and score: query 0x1f documents. White space, escapes and the order of keys never change the stream, except the
 * order of keys inside tools, tool_calls and tool inputs, which servers render as sent. To the byte: api/shape.h.
 * Reference for the request shapes: model-servers.md 2.2; results are spans into the body or the scratch. No I/O. */
#ifndef API_API_H
#define API_API_H

#include "base/buf.h"

enum api_kind {
    API_OTHER,       /* not an inference request of a known shape: passed through */
    API_COMPLETIONS, /* /v1/completions */
    API_CHAT,        /* /v1/chat/completions */
    API_EMBEDDINGS,  /* /v1/embeddings */
    API_RESPONSES,   /* /v1/responses */
    API_MESSAGES,    /* /v1/messages (Anthropic) */
    API_MODELS,      /* GET /v1/models */
    API_GENERATE,    /* SGLang /generate */
    API_TRITON,      /* Triton /v2/models/{model}[/versions/{v}]/generate and generate_stream: the model stands in the path */
    API_RERANK,      /* /rerank, /v1/rerank, /v2/rerank */
    API_SCORE,       /* /score, /v1/score */
    API_N_KINDS
};
const char *api_kind_name(enum api_kind k);
/* By path (without query) suffix: ".../v1/completions" etc. GET is only API_MODELS; other methods but POST are API_OTHER. */
enum api_kind api_classify(bool is_get, bool is_post, struct str path);
/* API_TRITON: the model's name as it stands in the path, percent-escapes and all (a span of path); empty for every other kind. With another
 * model the path is what is before it + the escaped new name + what is behind it. */
struct str api_path_model(enum api_kind kind, struct str path);
bool api_path_streams(enum api_kind kind, struct str path); /* the path alone says that the answer is an event stream */
/* The kind produces tokens from a prompt, so that prefill and decode can be separated: completions, chat, responses, messages, generate. */
bool api_kind_generates(enum api_kind kind);

#define API_MEMBERS 6
enum api_member_key { /* top-level members that a prefill request must not have as they are (model-servers.md 3.2) */
    MEMBER_STREAM, MEMBER_STREAM_OPTIONS, MEMBER_MAX_TOKENS, MEMBER_MAX_COMPLETION_TOKENS, MEMBER_MAX_OUTPUT_TOKENS, MEMBER_MIN_TOKENS
};
struct api_member { /* one top-level member of the body: from its key's opening quote to behind its value; the comma beside it is api_pieces's business */
    uint32_t key;   /* enum api_member_key */
    const char *from, *to;
};

struct api_request {
    enum api_kind kind;
    /* `model`: the string between its quotes as it stands in the body (raw), decoded in `model`; absent when raw.p is NULL. API_GENERATE without
     * `model`: lora_path, when it is one string. API_TRITON: never, see api_path_model. */
    struct str model_raw;
    struct str model;         /* decoded (span into body or scratch) */
    bool stream;
    bool include_usage;       /* stream_options.include_usage */
    bool has_max_tokens;
    uint64_t max_tokens;      /* the one that counts for this API (max_completion_tokens wins in chat) */
    uint32_t n;               /* choices asked for, >= 1 */
    uint32_t n_prompts;       /* independent prompts of the request (list of strings), >= 1 when there is one */
    uint32_t n_media;         /* images, audio, video parts */
    struct str cache_salt, previous_response_id, user; /* decoded; empty when absent */
    struct str stream_bytes;  /* the prefix stream, in scratch */
    uint64_t prompt_bytes;    /* decoded text bytes of the prompt (what the queue counts): no tools, roles, separators, hashes, ids */
    uint64_t prompt_token_ids; /* count of token ids given as numbers */
    /* for api_pieces */
    uint32_t n_batch;         /* a list of prompts (of any length, 1 too), or n > 1 in chat: so many independent items; 0: a single one */
    bool object_empty;        /* the body is {} */
    const char *object_end;   /* its closing brace, in the body; NULL: it is no object */
    uint32_t n_members;
    const char *forbidden;    /* first top-level key a client may not set (bootstrap_*, kv_transfer_params...), or NULL */
    struct api_member members[API_MEMBERS]; /* in the order of the body; n_members of them are set; each key at most once, for every kind that generates */
};

struct api_error {
    unsigned status;    /* 400; 413 for body_too_large */
    const char *code;   /* stable: invalid_json, duplicate_key, invalid_utf8, too_deep, invalid_field, body_too_large */
    char msg[200];      /* one sentence with the position (byte offset) and, where there is one, the field */
};

/* Scans a complete body. scratch is cleared first and must allow body.n + 64 bytes, else 413 body_too_large; three times that is
 * better: the stream of token ids can be longer than the body and is cut where the scratch ends, and sections that stand in
 * another order than the stream's (tools behind messages) are moved faster. The result is valid while body and scratch are.
 * kind API_OTHER: only tries to find `model` and `stream` in a JSON object, and never fails (model_raw.p stays NULL when the body is no
 * JSON object). Returns 0, or -1 with *e. A missing `model` is no error here. */
int api_parse_request(enum api_kind kind, struct str body, struct buf *scratch, struct api_request *out, struct api_error *e) MUST_USE;

/* Splice: the body with another model name is head + json-quoted name + tail, never a re-encoding. Returns the two unchanged parts
 * around model_raw (quotes excluded) and writes the escaped new name to `name_out` (cap bytes). False when it does not fit. */
bool api_splice_model(struct str body, const struct api_request *rq, struct str model, char *name_out, size_t cap,
                      struct str *head, struct str *name, struct str *tail);

/* The body as a leg of a P/D request gets it: stretches of the body and new text in turn, never a re-encoding, so that numbers
 * and unknown members survive (model-servers.md 3.1, 3.2, 3.6).
 *   BOOTSTRAP     the body + bootstrap_host, bootstrap_port, bootstrap_room; with n_batch lists of n_batch each, every item a room of its own
 *   NIXL_PREFILL  without stream, stream_options, min_tokens; max_tokens 1 (max_completion_tokens, max_output_tokens where the body had
 *                 them; max_output_tokens always in responses), "stream":false, kv_transfer_params that ask for a remote decode
 *   NIXL_DECODE   the body + kv_transfer_params as the prefill answered
 * `model` with p not NULL replaces the model's name as api_splice_model does, where the body has one. Pieces point into the body and into
 * `text` (cleared first; grows to what is new; the pieces are valid until it changes) and none of them is empty, but that of an empty body.
 * Returns their number (at most API_PIECES), 0 when it cannot be done: text overflows, or there is a leg and the body is no object or
 * holds a forbidden key (ours would be its duplicate). Bounded by text's max, which a large n_batch may reach. */
enum api_leg { API_LEG_NONE, API_LEG_BOOTSTRAP, API_LEG_NIXL_PREFILL, API_LEG_NIXL_DECODE };
struct api_change {
    enum api_leg leg;
    struct str model;
    struct str bootstrap_host;  /* numeric; an IPv6 address comes in brackets */
    uint16_t bootstrap_port;    /* 0: null, the server's own default */
    const uint64_t *rooms;      /* max(1, n_batch), each below 2^63 */
    struct str kv_transfer_params; /* raw JSON; empty: none is added */
};
#define API_PIECES 24
uint32_t api_pieces(struct str body, const struct api_request *rq, const struct api_change *change, struct buf *text, struct str out[API_PIECES]);
/* The kv_transfer_params object of a prefill's whole answer, raw and to be copied as it is: a span of the answer. 1 found; 0 the answer has none, null, {} or
 * no blocks in remote_block_ids, in either of its forms (the decode endpoint computes the prompt itself); -1 the answer is no JSON object. */
int api_kv_transfer_params(struct str answer, struct str *params);

/* Usage of an answer: from a whole JSON body, or from the tail of an event stream. Found fields are set, others stay. SGLang's own answers are
 * summed over the items of a batch: of a list, or of a stream's last event of each index (as far as the tail reaches; 64 at most). */
struct api_usage {
    bool found;
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool has_cached;
};
bool api_usage_from_body(struct str body, struct api_usage *u);       /* complete JSON document */
bool api_usage_from_tail(struct str text, struct api_usage *u);       /* last bytes of an SSE stream or of a JSON body */
/* The first event of a stream is an error that another server might not give (engine overloaded, dead): its code, else 0. An error that is a bare
 * string (Triton) has no code and counts as 500; SGLang's own API may tell it as a finish_reason "abort" with a status_code. */
unsigned api_first_event_error(struct str data);
/* `id` of a /v1/responses answer (body or first event) for later previous_response_id; empty when not found. */
struct str api_response_id(struct str json);
/* Models of a GET /v1/models answer: calls fn for each decoded id; adapter: the entry names a `parent`, the model it is an adapter of.
 * -1 when the text is not such a document. */
int api_models_each(struct str body, void (*fn)(void *ctx, struct str id, bool adapter), void *ctx) MUST_USE;

/* Error answers in the shape the client's SDK understands: OpenAI {"error":{message,type,param,code}}; Anthropic
 * {"type":"error","error":{type,message}} for API_MESSAGES; {"error":message} for API_TRITON. Appends the JSON to out. param may be NULL. */
void api_error_body(struct buf *out, enum api_kind kind, unsigned status, const char *code, const char *param, struct str message);

#endif
