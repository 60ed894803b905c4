/* sim/server.h - a simulated model server: vLLM's HTTP API and metrics around the engine model, with a fault interface.
 *
 * Lives on one loop (its thread); its clock is the loop's, so a loop with a time scale gives a fast server. Endpoints:
 * /v1/completions, /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages, /v1/models,
 * /v1/load_lora_adapter, /v1/unload_lora_adapter, /tokenize, /health, /ping, /version, /metrics, and /sim/... (docs of
 * the fault interface: docs/simulator.md).
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
/* Borrows o until server_free. NULL with a sentence: profile unknown, address taken... */
struct server *server_new(struct loop *l, const struct sim_options *o, const struct server_hooks *hooks,
                          struct errbuf *err);
void server_free(struct server *s);
const struct addr *server_addr(const struct server *s); /* with the real port */
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
