/* sim/routes.c - which paths each server has. */
#include "sim/server_priv.h"

#include <stdio.h>

static void get_health(struct server *s, struct httpd_req *rq)
{
    (void)s;
    httpd_respond(rq, 200, NULL, NULL, STR_NULL);
}

static void get_version(struct server *s, struct httpd_req *rq)
{
    respond_json(s, rq, 200,
                 s->opt->dialect == SIM_TRTLLM ? STR("{\"version\":\"1.0.0+penstock.sim\"}")
                                               : STR("{\"version\":\"0.10.1+penstock.sim\"}"));
}

static void respond_page(struct server *s, struct httpd_req *rq, void (*page)(struct server *s, struct buf *out),
                         const char *type)
{
    struct buf out;
    buf_init(&out, 64u << 20);
    page(s, &out);
    httpd_respond(rq, 200, type, NULL, buf_str(&out));
    buf_free(&out);
}

#define PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"

static void get_metrics(struct server *s, struct httpd_req *rq)
{
    if (s->opt->dialect == SIM_TRTLLM)
        respond_page(s, rq, stats_trtllm_json, "application/json");
    else if (s->opt->dialect == SIM_VLLM)
        respond_page(s, rq, stats_vllm, PROMETHEUS);
    else if (s->opt->expose_metrics)
        respond_page(s, rq, stats_sglang, PROMETHEUS);
    else
        api_error(s, rq, SIM_CHAT, 404, NULL, "Not Found");
}

static void get_trtllm_metrics(struct server *s, struct httpd_req *rq)
{
    respond_page(s, rq, stats_trtllm, PROMETHEUS);
}

static void get_load(struct server *s, struct httpd_req *rq)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "{\"server_load\":%u}", s->n_jobs);
    respond_json(s, rq, 200, (struct str){text, (size_t)n});
}

static void post_reset(struct server *s, struct httpd_req *rq)
{
    for (unsigned i = 0; i < s->n_ranks; i++)
        engine_reset_prefix_cache(s->ranks[i].engine);
    httpd_respond(rq, 200, NULL, NULL, STR_NULL);
}

static void post_load_lora(struct server *s, struct httpd_req *rq)
{
    models_lora(s, rq, true);
}

static void post_unload_lora(struct server *s, struct httpd_req *rq)
{
    models_lora(s, rq, false);
}

#define API(fn, api)                                                                                                   \
    static void fn(struct server *s, struct httpd_req *rq)                                                             \
    {                                                                                                                  \
        job_start(s, api, rq);                                                                                         \
    }
API(post_completions, SIM_COMPLETIONS)
API(post_chat, SIM_CHAT)
API(post_embeddings, SIM_EMBEDDINGS)
API(post_responses, SIM_RESPONSES)
API(post_messages, SIM_MESSAGES)
API(post_generate, SIM_GENERATE)
API(post_rerank, SIM_RERANK)
API(post_score, SIM_SCORE)

enum { VLLM = 1 << SIM_VLLM, SGLANG = 1 << SIM_SGLANG, TRTLLM = 1 << SIM_TRTLLM, OPENAI = VLLM | SGLANG | TRTLLM };

static const struct route {
    enum h1_method method;
    const char *path;
    void (*fn)(struct server *s, struct httpd_req *rq);
    unsigned dialects;
} routes[] = {{H1_POST, "/v1/chat/completions", post_chat, OPENAI},
              {H1_POST, "/v1/completions", post_completions, OPENAI},
              {H1_POST, "/v1/embeddings", post_embeddings, OPENAI},
              {H1_POST, "/v1/responses", post_responses, OPENAI},
              {H1_POST, "/v1/messages", post_messages, VLLM | SGLANG},
              {H1_POST, "/rerank", post_rerank, VLLM},
              {H1_POST, "/v1/rerank", post_rerank, VLLM | SGLANG},
              {H1_POST, "/v2/rerank", post_rerank, VLLM},
              {H1_POST, "/score", post_score, VLLM},
              {H1_POST, "/v1/score", post_score, VLLM},
              {H1_GET, "/v1/models", models_list, OPENAI},
              {H1_GET, "/metrics", get_metrics, OPENAI},
              {H1_GET, "/prometheus/metrics", get_trtllm_metrics, TRTLLM},
              {H1_GET, "/health", get_health, OPENAI},
              {H1_GET, "/health_generate", get_health, SGLANG | TRTLLM},
              {H1_GET, "/ping", get_health, VLLM | SGLANG},
              {H1_POST, "/ping", get_health, VLLM | SGLANG},
              {H1_GET, "/version", get_version, VLLM | TRTLLM},
              {H1_GET, "/load", get_load, VLLM},
              {H1_POST, "/tokenize", models_tokenize, VLLM | SGLANG},
              {H1_POST, "/v1/tokenize", models_tokenize, SGLANG},
              {H1_POST, "/reset_prefix_cache", post_reset, VLLM},
              {H1_POST, "/flush_cache", post_reset, SGLANG},
              {H1_GET, "/flush_cache", post_reset, SGLANG},
              {H1_POST, "/v1/load_lora_adapter", post_load_lora, VLLM},
              {H1_POST, "/v1/unload_lora_adapter", post_unload_lora, VLLM},
              {H1_POST, "/load_lora_adapter", post_load_lora, SGLANG},
              {H1_POST, "/unload_lora_adapter", post_unload_lora, SGLANG},
              {H1_POST, "/generate", post_generate, SGLANG},
              {H1_GET, "/get_server_info", sglang_info, SGLANG},
              {H1_GET, "/server_info", sglang_info, SGLANG},
              {H1_GET, "/get_model_info", sglang_model_info, SGLANG},
              {H1_GET, "/model_info", sglang_model_info, SGLANG},
              {H1_GET, "/get_load", sglang_loads, SGLANG},
              {H1_GET, "/v1/loads", sglang_loads, SGLANG}};

void server_route(struct server *s, struct httpd_req *rq)
{
    const struct route *other = NULL;
    enum h1_method m = rq->head->method == H1_HEAD ? H1_GET : rq->head->method;
    if (s->opt->dialect == SIM_TRITON && triton_route(s, rq))
        return;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!(routes[i].dialects & 1u << s->opt->dialect) || !str_eq_c(rq->head->path, routes[i].path))
            continue;
        if (routes[i].method == m) {
            routes[i].fn(s, rq);
            return;
        }
        other = &routes[i];
    }
    if (other)
        api_error(s, rq, SIM_CHAT, 405, NULL, "Method Not Allowed");
    else
        api_error(s, rq, SIM_CHAT, 404, NULL, "Not Found");
}
