/* admin/endpoints.h - the pools and endpoints page. Any thread. */
#ifndef ADMIN_ENDPOINTS_H
#define ADMIN_ENDPOINTS_H

#include "base/buf.h"
#include "sched/port.h"

/* {"pools":[{"key","kind","namespace","name",stats...,"endpoints":[{...}]}]} appended to out. */
void endpoints_json(struct ports *ps, struct buf *out);

#endif
