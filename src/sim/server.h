/* sim/server.h - a simulated model server: the HTTP API and metrics of the dialect around engine models, one for each
 * data parallel rank, with a fault interface.
 *
 * Lives on one loop (its thread); its clock is the loop's, so a loop with a time scale gives a fast server. Which paths
 * it serves: docs/simulator.md, sim/routes.c. Triton's metrics port, SGLang's bootstrap port (prefill) and NIXL's side
 * channel are listeners of the server: they open and close with it. Halves of a prefill/decode pair fetch from each
 * other over HTTP (sim/disagg.c).
 *
 * /sim interface (also reachable through server_control when the server plays dead):
 *   POST fault
 * {"kind":"kill|refuse|hang|reset|slow|garbage|status|none","at":"now|before|after_body|after_head|mid_stream|probe",
 *                  "count":N,"duration_ms":T,"factor":F,"status":S,"after_tokens":K,"match":"text"};  GET shows it
 *   POST metrics  {"waiting":20,"kv":0.9,"running":3} or null;  POST ready {"ready":false};  GET requests, DELETE
 * requests;  GET state */
#ifndef SIM_SERVER_H
#define SIM_SERVER_H

#include "net/httpd.h"
#include "sim/options.h"

struct server;
struct server_hooks {                                       /* called on the loop's thread; may be NULL */
    void (*ready)(void *ctx, struct server *s, bool ready); /* a change, also the first time it listens */
    void (*died)(void *ctx, struct server *s);              /* a kill fault struck; the listener is closed */
    void *ctx;
};
/* Borrows o until server_free. NULL with a sentence: profile unknown, address taken (which says what for)... */
struct server *server_new(struct loop *l, const struct sim_options *o, const struct server_hooks *hooks,
                          struct errbuf *err);
void server_free(struct server *s);
const struct addr *server_addr(const struct server *s); /* with the real port */
uint16_t server_side_port(const struct server *s);      /* bootstrap or side channel; 0: none */
uint16_t server_metrics_port(const struct server *s);   /* of its own (Triton); 0: none */
const char *server_profile(const struct server *s);
uint64_t server_kv_tokens(const struct server *s);
bool server_ready(const struct server *s); /* listens and was not set unready */
bool server_dead(const struct server *s);
bool server_idle(const struct server *s);         /* no request under way */
uint64_t server_requests(const struct server *s); /* inference requests seen */
/* Handles a request of the /sim interface; path without its "/sim/" (or "/sim/pods/<name>/"). Answers it in any case.
 */
void server_control(struct server *s, struct httpd_req *rq, struct str path);
/* For answers of control interfaces: {"error":{...}} as the API gives it. */
void server_error(struct httpd_req *rq, unsigned status, const char *type, const char *param, const char *headers,
                  const char *fmt, ...) PRINTF_LIKE(6, 7);

#endif
