/* sim/answer_priv.h - members that whole answers and events of streams have in common (answer.c, stream.c). */
#ifndef SIM_ANSWER_PRIV_H
#define SIM_ANSWER_PRIV_H

#include "base/json.h"
#include "sim/server_priv.h"

extern const char *const finish_names[FINISH_N];
void member(struct jsonw *w, const char *key, const char *value); /* NULL -> null */
void member_u64(struct jsonw *w, const char *key, uint64_t v);
void answer_opening(struct jsonw *w, const struct job *j, const char *object); /* "{" with id, object, created, model */
void answer_stop(struct jsonw *w, const struct job *j, const struct choice *c);      /* stop_reason, matched_stop */
void answer_input_output_tokens(struct jsonw *w, const struct job *j, uint64_t out); /* Anthropic's usage */
double answer_draw(const struct choice *c, uint64_t i); /* the i-th number of a prompt, in [0, 1) */
/* The object of /v1/responses. status: in_progress, completed or incomplete; text and usage are there unless it is in
 * progress. */
void answer_response(struct jsonw *w, const struct job *j, const char *status);
const char *response_status(const struct job *j);
const char *stop_reason(const struct job *j); /* Anthropic's */

#endif
