/* sim/sglang.c - what only SGLang has: answers of /generate, server and model information, loads. */
#include "sim/answer_priv.h"

#include <stdio.h>

/* ---- /generate ---- */

static void finish_reason(struct jsonw *w, const struct choice *c, bool finished)
{
    jsonw_key(w, "finish_reason");
    if (!finished) {
        jsonw_null(w);
        return;
    }
    jsonw_obj(w);
    member(w, "type", c->eos ? "stop" : "length");
    if (c->eos)
        member_u64(w, "matched", TOKEN_STOP);
    else
        member_u64(w, "length", c->out_len);
    jsonw_obj_end(w);
}

static void meta_info(struct jsonw *w, const struct job *j, const struct choice *c, bool finished)
{
    char id[128];
    if (j->n_choices > 1)
        (void)snprintf(id, sizeof(id), "%s_%u", j->id, (unsigned)(c - j->choice));
    else
        (void)snprintf(id, sizeof(id), "%s", j->id);
    jsonw_key(w, "meta_info");
    jsonw_obj(w);
    member(w, "id", id);
    finish_reason(w, c, finished);
    member_u64(w, "prompt_tokens", c->n_prompt);
    member(w, "weight_version", "default");
    member_u64(w, "total_retractions", 0);
    member_u64(w, "completion_tokens", c->produced);
    member_u64(w, "cached_tokens", j->n_choices > 1 ? 0 : j->cached_tokens);
    if (j->s->n_ranks > 1)
        member_u64(w, "dp_rank", c->rank->index);
    if (finished) {
        jsonw_key(w, "e2e_latency");
        jsonw_f(w, (double)(server_now(j->s) - j->arrived_us) / 1e6);
    }
    jsonw_obj_end(w);
}

/* Text and tokens so far; of a batch with the place in it. */
static void generated(struct jsonw *w, const struct job *j, const struct choice *c, bool finished)
{
    struct choice copy = *c;
    jsonw_key(w, "text");
    jsonw_str(w, buf_str(&c->text));
    jsonw_key(w, "output_ids");
    jsonw_arr(w);
    for (uint32_t i = 0; i < c->produced; i++)
        jsonw_u64(w, job_token(&copy, i));
    jsonw_arr_end(w);
    meta_info(w, j, c, finished);
}

void generate_event(struct jsonw *w, const struct job *j, const struct choice *c, bool finished)
{
    jsonw_obj(w);
    generated(w, j, c, finished);
    if (j->batch || j->n_choices > 1)
        member_u64(w, "index", (uint64_t)(c - j->choice));
    jsonw_obj_end(w);
}

void generate_whole(struct jsonw *w, const struct job *j)
{
    bool list = j->batch || j->n_choices > 1;
    if (list)
        jsonw_arr(w);
    for (uint32_t i = 0; i < j->n_choices; i++) {
        jsonw_obj(w);
        generated(w, j, &j->choice[i], true);
        jsonw_obj_end(w);
    }
    if (list)
        jsonw_arr_end(w);
}

/* ---- information ---- */

static void respond_object(struct server *s, struct httpd_req *rq, void (*members)(struct jsonw *w, struct server *s))
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 1u << 20);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    members(&w, s);
    jsonw_obj_end(&w);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}

static void text_member(struct jsonw *w, const char *key, struct str v)
{
    jsonw_key(w, key);
    jsonw_str(w, v);
}

static void bool_member(struct jsonw *w, const char *key, bool v)
{
    jsonw_key(w, key);
    jsonw_bool(w, v);
}

static struct str model_path(const struct server *s)
{
    return s->opt->model.n ? s->opt->model : s->names[0];
}

static void internal_state(struct jsonw *w, const struct rank *r)
{
    struct engine_stats es;
    engine_stats(r->engine, true, &es);
    jsonw_obj(w);
    jsonw_key(w, "last_gen_throughput");
    jsonw_f(w, r->stats.generation_rate);
    member_u64(w, "max_total_num_tokens", (uint64_t)es.n_blocks * r->s->ep.block_size);
    member_u64(w, "num_running_reqs", es.running);
    jsonw_obj_end(w);
}

static void info(struct jsonw *w, struct server *s)
{
    const struct sim_options *o = s->opt;
    text_member(w, "model_path", model_path(s));
    text_member(w, "tokenizer_path", model_path(s));
    text_member(w, "served_model_name", s->names[0]);
    text_member(w, "host", o->host);
    member_u64(w, "port", addr_port(&s->addr));
    member_u64(w, "context_length", s->max_model_len);
    member_u64(w, "page_size", s->ep.block_size);
    member_u64(w, "chunked_prefill_size", s->ep.max_batched_tokens);
    member_u64(w, "max_running_requests", s->ep.max_num_seqs);
    member_u64(w, "tp_size", o->tp ? o->tp : 1);
    member_u64(w, "dp_size", s->n_ranks);
    bool_member(w, "enable_metrics", o->expose_metrics);
    bool_member(w, "enable_cache_report", o->prompt_tokens_details);
    member(w, "disaggregation_mode", o->role == SIM_UNIFIED ? "null" : sim_role_name(o->role));
    member_u64(w, "disaggregation_bootstrap_port", s->pd.side ? httpd_port(s->pd.side) : o->bootstrap_port);
    member_u64(w, "max_total_num_tokens", (uint64_t)s->ep.n_blocks * s->ep.block_size);
    member_u64(w, "max_req_input_len", s->max_model_len);
    jsonw_key(w, "internal_states");
    jsonw_arr(w);
    for (unsigned i = 0; i < s->n_ranks; i++)
        internal_state(w, &s->ranks[i]);
    jsonw_arr_end(w);
    member(w, "version", "0.5.3+penstock.sim");
}

void sglang_info(struct server *s, struct httpd_req *rq)
{
    respond_object(s, rq, info);
}

static void model_info(struct jsonw *w, struct server *s)
{
    text_member(w, "model_path", model_path(s));
    text_member(w, "tokenizer_path", model_path(s));
    bool_member(w, "is_generation", true);
    member(w, "weight_version", "default");
}

void sglang_model_info(struct server *s, struct httpd_req *rq)
{
    respond_object(s, rq, model_info);
}

void sglang_loads(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 1u << 20);
    jsonw_init(&w, &out);
    jsonw_arr(&w);
    for (unsigned i = 0; i < s->n_ranks; i++) {
        struct engine_stats es;
        engine_stats(s->ranks[i].engine, true, &es);
        jsonw_obj(&w);
        member_u64(&w, "dp_rank", s->ranks[i].index);
        member_u64(&w, "num_reqs", es.running + es.waiting);
        member_u64(&w, "num_waiting_reqs", es.waiting);
        member_u64(&w, "num_tokens", (uint64_t)(es.n_blocks - es.free_blocks) * s->ep.block_size);
        jsonw_obj_end(&w);
    }
    jsonw_arr_end(&w);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}
