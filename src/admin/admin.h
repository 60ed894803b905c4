/* admin/admin.h - the admin server: metrics, health, effective configuration, endpoints, decisions.
 *
 *   GET /metrics          Prometheus text 0.0.4
 *   GET /healthz          200 while the process works
 *   GET /readyz           200 once listeners are open and every pool had a first scrape, and not draining; else 503 with the reason
 *   GET /config           effective configuration as JSON, with every annotation (conf_json)
 *   GET /debug/endpoints  pools and endpoints with load, ledger, health, role, as JSON
 *   GET /debug/decisions  the latest decisions of every pool with their reasons and what came of them, as JSON; as a page for browsers.
 *                         ?request=ID, ?pool=, ?endpoint=, ?n=, ?format=json|html
 *   GET /                 the list of these
 * It serves on the control loop's thread and only reads. No authentication: the default address is loopback; anything else is warned
 * about at start. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/metrics.h"
#include "proxy/gateway.h"
#include "proxy/run.h"

struct admin;
/* NULL and a sentence in err when the address cannot be listened on. The gateway and the metrics must outlive it. */
struct admin *admin_open(struct loop *l, const struct addr *at, struct gateway *g, struct metrics *m, struct errbuf *err);
uint16_t admin_port(const struct admin *a);
void admin_close(struct admin *a);

/* The same as hooks of the shared runtime: run_opts.admin_open and admin_close. */
int admin_run_open(struct run *r, const struct addr *at, struct errbuf *err);
void admin_run_close(struct run *r);

#endif
