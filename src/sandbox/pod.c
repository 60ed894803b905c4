/* sandbox/pod.c - a pod as JSON: the Kubernetes object, and the control interface's view. */
#include "sandbox/pod.h"

#include <stdlib.h>

static void member(struct jsonw *w, const char *key, struct str value)
{
    jsonw_key(w, key);
    jsonw_str(w, value);
}

static void labels(struct jsonw *w, const char *key, const struct pod_label *v, uint32_t n)
{
    struct buf name;
    buf_init(&name, 4096);
    jsonw_key(w, key);
    jsonw_obj(w);
    for (uint32_t i = 0; i < n; i++) {
        buf_clear(&name);
        buf_add_str(&name, v[i].key);
        jsonw_key(w, buf_cstr(&name));
        jsonw_str(w, v[i].value);
    }
    jsonw_obj_end(w);
    buf_free(&name);
}

void pod_json(const struct pod *p, struct jsonw *w)
{
    jsonw_obj(w);
    member(w, "apiVersion", STR("v1"));
    member(w, "kind", STR("Pod"));
    jsonw_key(w, "metadata");
    jsonw_obj(w);
    member(w, "name", p->name);
    member(w, "namespace", p->ns);
    labels(w, "labels", p->labels, p->n_labels);
    labels(w, "annotations", p->annotations, p->n_annotations);
    jsonw_obj_end(w);
    jsonw_key(w, "spec");
    jsonw_obj(w);
    jsonw_key(w, "containers");
    jsonw_arr(w);
    jsonw_obj(w);
    member(w, "name", STR("model-server"));
    member(w, "image", STR("penstock.dev/sim"));
    if (p->port) {
        jsonw_key(w, "ports");
        jsonw_arr(w);
        jsonw_obj(w);
        member(w, "name", STR("http"));
        jsonw_key(w, "containerPort");
        jsonw_u64(w, p->port);
        jsonw_obj_end(w);
        jsonw_arr_end(w);
    }
    jsonw_obj_end(w);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
    jsonw_key(w, "status");
    jsonw_obj(w);
    member(w, "phase", STR("Running"));
    member(w, "podIP", p->ip);
    jsonw_key(w, "conditions");
    jsonw_arr(w);
    jsonw_obj(w);
    member(w, "type", STR("Ready"));
    member(w, "status", p->ready ? STR("True") : STR("False"));
    jsonw_obj_end(w);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
    jsonw_obj_end(w);
}

void pod_state_json(const struct pod *p, struct jsonw *w)
{
    char at[64] = "";
    if (p->server)
        (void)addr_format(server_addr(p->server), at, sizeof(at));
    jsonw_obj(w);
    member(w, "name", p->name);
    member(w, "namespace", p->ns);
    member(w, "workload", p->workload);
    member(w, "ip", p->ip);
    jsonw_key(w, "address");
    jsonw_cstr(w, p->server ? at : NULL);
    jsonw_key(w, "ready");
    jsonw_bool(w, p->ready);
    jsonw_key(w, "dead");
    jsonw_bool(w, p->server && server_dead(p->server));
    jsonw_key(w, "leaving");
    jsonw_bool(w, p->leaving);
    jsonw_key(w, "requests");
    jsonw_u64(w, p->server ? server_requests(p->server) : 0);
    jsonw_key(w, "profile");
    jsonw_cstr(w, p->server ? server_profile(p->server) : NULL);
    labels(w, "labels", p->labels, p->n_labels);
    jsonw_obj_end(w);
}

void pod_free(struct pod *p)
{
    server_free(p->server);
    sim_options_free(&p->opt);
    arena_free(&p->arena);
    free(p);
}
