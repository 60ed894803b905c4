/* bench/probe.h - questions to a server before the run: does it answer, which model does it serve. Blocking: for the start of the command. */
#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include "base/buf.h"
#include "base/err.h"
#include "net/loop.h"

struct probe_url { /* "http://host:port/path" */
    struct addr to;
    char host[280]; /* for the Host header: as written */
    struct str path; /* into the text; empty or begins with a slash */
};
bool probe_url_parse(const char *text, uint16_t default_port, struct probe_url *out, struct errbuf *err) MUST_USE;
/* GET, the whole answer appended to out. Returns the status; 0 with err when there was no answer. headers: complete lines or empty. */
unsigned probe_get(const struct probe_url *u, struct str target, struct str headers, uint64_t timeout_us, struct buf *out, struct errbuf *err);
/* Asks until something answers, at most wait_us long. */
bool probe_wait(const struct probe_url *u, uint64_t wait_us, struct errbuf *err) MUST_USE;
/* The first model of an answer of /v1/models, malloc'd; NULL when there is none. */
char *probe_first_model(struct str json);

#endif
