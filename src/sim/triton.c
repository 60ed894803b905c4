/* sim/triton.c - Triton's HTTP API around TensorRT-LLM: /v2, generate and generate_stream, and the port of its metrics.
 */
#include "sim/answer_priv.h"

/* ---- paths ---- */

bool triton_path(struct str path, struct str *model, struct str *what)
{
    static const struct str prefix = {"/v2/models/", 11};
    if (!str_starts(path, prefix))
        return false;
    struct str rest = str_from(path, prefix.n);
    ptrdiff_t slash = str_find(rest, STR("/"));
    *model = slash < 0 ? rest : str_first(rest, (size_t)slash);
    rest = slash < 0 ? STR_NULL : str_from(rest, (size_t)slash + 1);
    if (str_starts(rest, STR("versions/"))) {
        rest = str_from(rest, 9);
        slash = str_find(rest, STR("/"));
        rest = slash < 0 ? STR_NULL : str_from(rest, (size_t)slash + 1);
    }
    *what = rest;
    return model->n > 0;
}

static bool has_model(const struct server *s, struct str name)
{
    for (unsigned i = 0; i < s->n_names; i++)
        if (str_eq(name, s->names[i]))
            return true;
    return false;
}

/* ---- bodies ---- */

void triton_body(struct jsonw *w, const struct job *j, struct str text)
{
    jsonw_obj(w);
    if (j->id[0])
        member(w, "id", j->id);
    jsonw_key(w, "model_name");
    jsonw_str(w, j->model);
    member(w, "model_version", "1");
    jsonw_key(w, "sequence_end");
    jsonw_bool(w, false);
    member_u64(w, "sequence_id", 0);
    member_u64(w, "sequence_index", 0);
    jsonw_key(w, "text_output");
    jsonw_str(w, text);
    jsonw_obj_end(w);
}

static void respond(struct server *s, struct httpd_req *rq,
                    void (*write)(struct jsonw *w, struct server *s, struct str m), struct str model)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 1u << 20);
    jsonw_init(&w, &out);
    write(&w, s, model);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}

static void server_json(struct jsonw *w, struct server *s UNUSED, struct str m UNUSED)
{
    jsonw_obj(w);
    member(w, "name", "triton");
    member(w, "version", "2.55.0+penstock.sim");
    jsonw_key(w, "extensions");
    jsonw_arr(w);
    jsonw_cstr(w, "model_repository");
    jsonw_cstr(w, "generate");
    jsonw_cstr(w, "statistics");
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}

static void tensor(struct jsonw *w, const char *name, const char *type)
{
    jsonw_obj(w);
    member(w, "name", name);
    member(w, "datatype", type);
    jsonw_key(w, "shape");
    jsonw_raw(w, STR("[-1,1]"));
    jsonw_obj_end(w);
}

static void model_json(struct jsonw *w, struct server *s UNUSED, struct str m)
{
    jsonw_obj(w);
    jsonw_key(w, "name");
    jsonw_str(w, m);
    jsonw_key(w, "versions");
    jsonw_raw(w, STR("[\"1\"]"));
    member(w, "platform", str_eq_c(m, "ensemble") ? "ensemble" : "tensorrtllm");
    jsonw_key(w, "inputs");
    jsonw_arr(w);
    tensor(w, "text_input", "BYTES");
    tensor(w, "max_tokens", "INT32");
    jsonw_arr_end(w);
    jsonw_key(w, "outputs");
    jsonw_arr(w);
    tensor(w, "text_output", "BYTES");
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}

static void index_json(struct jsonw *w, struct server *s, struct str m UNUSED)
{
    jsonw_arr(w);
    for (unsigned i = 0; i < s->n_names; i++) {
        jsonw_obj(w);
        jsonw_key(w, "name");
        jsonw_str(w, s->names[i]);
        member(w, "version", "1");
        member(w, "state", "READY");
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
}

/* ---- routing ---- */

static void route_model(struct server *s, struct httpd_req *rq, struct str model, struct str what)
{
    bool post = rq->head->method == H1_POST, generate = str_eq_c(what, "generate") || str_eq_c(what, "generate_stream");
    if (!has_model(s, model))
        api_error(s, rq, SIM_TRITON_GENERATE, 404, NULL, "Request for unknown model: '" STR_FMT "' is not found",
                  STR_ARG(model));
    else if (generate && !post)
        api_error(s, rq, SIM_TRITON_GENERATE, 405, NULL, "Method Not Allowed");
    else if (generate)
        job_start(s, SIM_TRITON_GENERATE, rq);
    else if (!post && what.n == 0)
        respond(s, rq, model_json, model);
    else if (!post && str_eq_c(what, "ready"))
        httpd_respond(rq, 200, NULL, NULL, STR_NULL);
    else
        api_error(s, rq, SIM_TRITON_GENERATE, 404, NULL, "Not Found");
}

bool triton_route(struct server *s, struct httpd_req *rq)
{
    struct str path = rq->head->path, model, what;
    bool post = rq->head->method == H1_POST;
    if (triton_path(path, &model, &what))
        route_model(s, rq, model, what);
    else if (!post && str_eq_c(path, "/v2"))
        respond(s, rq, server_json, STR_NULL);
    else if (!post && (str_eq_c(path, "/v2/health/live") || str_eq_c(path, "/v2/health/ready")))
        httpd_respond(rq, str_eq_c(path, "/v2/health/ready") && s->unready ? 400 : 200, NULL, NULL, STR_NULL);
    else if (post && str_eq_c(path, "/v2/repository/index"))
        respond(s, rq, index_json, STR_NULL);
    else
        return false;
    return true;
}

/* ---- metrics ---- */

static void serve_metrics(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    if (!str_eq_c(rq->head->path, "/metrics") || rq->head->method != H1_GET) {
        api_error(s, rq, SIM_TRITON_GENERATE, 404, NULL, "Not Found");
        return;
    }
    if (fault_before_answer(s, AT_PROBE, rq, serve_metrics))
        return;
    buf_init(&out, 1u << 20);
    stats_triton(s, &out);
    httpd_respond(rq, 200, "text/plain; charset=utf-8", NULL, buf_str(&out));
    buf_free(&out);
}

static void on_metrics(void *ctx, struct httpd_req *rq)
{
    struct server *s = ctx;
    if (s->hanging || s->dead)
        hold_request(s, rq, serve_metrics);
    else
        serve_metrics(s, rq);
}

int triton_open(struct server *s, struct errbuf *err)
{
    const struct sim_options *o = s->opt;
    struct errbuf why;
    struct addr at;
    if (o->dialect != SIM_TRITON || !o->expose_metrics)
        return 0;
    if (!addr_parse(o->host, o->metrics_port, &at))
        return err_set(err, "metrics port: \"" STR_FMT "\" is no numeric address.", STR_ARG(o->host));
    if (o->metrics_port && addr_in_use(&at))
        return err_set(err, "metrics port: somebody already listens on " STR_FMT ":%u.", STR_ARG(o->host),
                       o->metrics_port);
    s->metrics = httpd_open(s->loop, &at, 1u << 16, on_metrics, s, &why);
    return s->metrics ? 0 : err_set(err, "metrics port: %s", why.msg);
}
