/* admin/endpoints.h - the pools and endpoints page. Any thread. */
#ifndef ADMIN_ENDPOINTS_H
#define ADMIN_ENDPOINTS_H

#include "base/buf.h"
#include "sched/port.h"

/* {"pools":[{"key","kind","namespace","name",stats...,"endpoints":[{...}]}]} appended to out. Of a pool whose prefill and decode are separated
 * also "roles":[{"role",stats...},...] and the number of its "pods_without_role" (as c, the newest snapshot, says; NULL: 0), and each endpoint has its
 * "role"; ready, room and index are sums over both roles there, saturation the larger. */
void endpoints_json(struct ports *ps, const struct conf *c, struct buf *out);

#endif
