/* conf_fixture.h - what the tests of conf share: a store with its report, loading of texts, look-ups in findings and
 * snapshots. */
#ifndef CONF_FIXTURE_H
#define CONF_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "conf/conf.h"

struct world {
    struct conf_store *store;
    struct conf_report rep;
    struct conf *conf;
};

static inline int world_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    w->store = conf_store_new();
    *state = w;
    return 0;
}

static inline int world_down(void **state)
{
    struct world *w = *state;
    conf_unref(w->conf);
    conf_store_free(w->store);
    conf_report_free(&w->rep);
    free(w);
    return 0;
}

/* Replaces what the source "t.yaml" gave and builds a new snapshot on top of the last one; the report starts afresh. */
static inline struct conf *world_load_as(struct world *w, const char *source, const char *text)
{
    conf_report_free(&w->rep);
    assert_int_equal(0, conf_store_load_text(w->store, source, str_c(text), &w->rep));
    struct conf *c = conf_build(w->store, w->conf, &w->rep);
    conf_unref(w->conf);
    w->conf = c;
    return c;
}

static inline struct conf *world_load(struct world *w, const char *text)
{
    return world_load_as(w, "t.yaml", text);
}

/* The first finding whose one-line form contains the text; NULL when none. */
static inline const struct conf_note *world_note(struct world *w, const char *text)
{
    for (uint32_t i = 0; i < w->rep.n; i++) {
        char line[2048];
        conf_note_format(&w->rep.v[i], line, sizeof line);
        if (strstr(line, text))
            return &w->rep.v[i];
    }
    return NULL;
}

static inline void world_print(struct world *w)
{
    for (uint32_t i = 0; i < w->rep.n; i++) {
        char line[2048];
        conf_note_format(&w->rep.v[i], line, sizeof line);
        print_message("%s\n", line);
    }
}

#define assert_note(w, text)                                                                                           \
    do {                                                                                                               \
        if (!world_note((w), (text))) {                                                                                \
            world_print(w);                                                                                            \
            fail_msg("no finding contains: %s", (text));                                                               \
        }                                                                                                              \
    } while (0)

static inline const struct conf_backend *backend_of(const struct conf *c, const char *key)
{
    for (uint32_t i = 0; i < c->n_backends; i++)
        if (str_eq_c(c->backends[i].key, key))
            return &c->backends[i];
    return NULL;
}

static inline const struct conf_setting *setting_of(const struct conf_backend *b, const char *key_end)
{
    for (uint32_t i = 0; b && i < b->n_settings; i++)
        if (str_ends(b->settings[i].key, str_c(key_end)))
            return &b->settings[i];
    return NULL;
}

#define assert_str(s, want)                                                                                            \
    do {                                                                                                               \
        struct str s_ = (s);                                                                                           \
        char got_[512];                                                                                                \
        snprintf(got_, sizeof got_, STR_FMT, STR_ARG(s_));                                                             \
        assert_string_equal(got_, (want));                                                                             \
    } while (0)

#define GATEWAY                                                                                                        \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\n"                              \
    "spec: {controllerName: penstock.dev/gateway-controller}\n---\n"                                                   \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\n"                                   \
    "spec:\n  gatewayClassName: c\n  listeners:\n  - {name: http, protocol: HTTP, port: 8080}\n"                       \
    "  - {name: llm, protocol: HTTP, port: 8081}\n---\n"
#define POOL(name)                                                                                                     \
    "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata: {name: " name "}\n"            \
    "spec: {targetPortNumber: 8000, selector: {app: " name "}, extensionRef: {name: e}}\n---\n"
#define POD(name, label, ip, ready)                                                                                    \
    "apiVersion: v1\nkind: Pod\nmetadata: {name: " name ", labels: {app: " label "}}\n"                                \
    "spec: {containers: [{name: m, ports: [{name: http, containerPort: 8000}]}]}\n"                                    \
    "status: {podIP: " ip ", conditions: [{type: Ready, status: \"" ready "\"}]}\n---\n"
#define ROUTE(name, body)                                                                                              \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name "}\n"                          \
    "spec:\n  parentRefs: [{name: g, sectionName: http}]\n" body "---\n"
#define POOL_REF(name) "{group: inference.networking.x-k8s.io, kind: InferencePool, name: " name "}"

#endif
