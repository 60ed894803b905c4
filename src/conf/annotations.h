/* conf/annotations.h - what the annotations of an InferencePool set: one table with type, default, bounds and effect of
 * each. */
#ifndef CONF_ANNOTATIONS_H
#define CONF_ANNOTATIONS_H

#include "conf/object.h"

extern const char *const strategy_words[]; /* of routing-strategy, in the order of enum sched_policy */

/* Fills b->sched, runtime, runtime_given, metrics, unknown_model, trust, queue_ttl_max_us and settings of a pool's backend (arena a). Bad
 * values are warnings: the value in effect in `previous` stays, the default where there is none (mission decision 12).
 */
void annotations_apply(const struct object *pool, const struct conf_backend *previous, struct arena *a,
                       struct conf_backend *b, struct conf_report *rep);
/* Appends one more line to the settings (policy objects). */
void annotations_add_setting(struct arena *a, struct conf_backend *b, const struct conf_setting *s);

#endif
