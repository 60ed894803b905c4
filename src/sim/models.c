/* sim/models.c - the model list, LoRA adapters loaded and unloaded at run time, and /tokenize. */
#include "sim/server_priv.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

uint32_t model_lora(const struct server *s, struct str name, bool *known)
{
    *known = true;
    for (unsigned i = 0; i < s->n_names; i++)
        if (str_eq(name, s->names[i]))
            return 0;
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++)
        if (s->loras[i] && str_eq(name, s->loras[i]->name))
            return i + 1;
    *known = false;
    return 0;
}

struct str model_name(const struct server *s, struct str name)
{
    for (unsigned i = 0; i < s->n_names; i++)
        if (str_eq(name, s->names[i]))
            return s->names[i];
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++)
        if (s->loras[i] && str_eq(name, s->loras[i]->name))
            return s->loras[i]->name;
    return s->names[0];
}

static void card(struct jsonw *w, const struct server *s, struct str id, struct str root, bool lora)
{
    jsonw_obj(w);
    jsonw_key(w, "id");
    jsonw_str(w, id);
    jsonw_key(w, "object");
    jsonw_cstr(w, "model");
    jsonw_key(w, "created");
    jsonw_u64(w, s->created);
    jsonw_key(w, "owned_by");
    jsonw_cstr(w, s->opt->dialect == SIM_TRTLLM ? "tensorrt_llm" : sim_dialect_name(s->opt->dialect));
    jsonw_key(w, "root");
    jsonw_str(w, root);
    jsonw_key(w, "parent");
    if (lora)
        jsonw_str(w, s->names[0]);
    else
        jsonw_null(w);
    jsonw_key(w, "max_model_len");
    if (lora)
        jsonw_null(w);
    else
        jsonw_u64(w, s->max_model_len);
    jsonw_key(w, "permission");
    jsonw_arr(w);
    jsonw_arr_end(w);
    jsonw_obj_end(w);
}

void models_list(struct server *s, struct httpd_req *rq)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 1u << 20);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "object");
    jsonw_cstr(&w, "list");
    jsonw_key(&w, "data");
    jsonw_arr(&w);
    for (unsigned i = 0; i < s->n_names; i++)
        card(&w, s, s->names[i], s->opt->model.n ? s->opt->model : s->names[i], false);
    for (unsigned i = 0; i < SIM_MAX_LORAS; i++)
        if (s->loras[i])
            card(&w, s, s->loras[i]->name, s->loras[i]->path, true);
    jsonw_arr_end(&w);
    jsonw_obj_end(&w);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}

static bool read_string(struct str raw, struct buf *out)
{
    buf_init(out, raw.n + 16);
    return body_string(raw, out) && out->n > 0;
}

/* SGLang lists what is loaded now, vLLM says a sentence. */
static void respond_change(struct server *s, struct httpd_req *rq, struct str name, const char *what)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, 1u << 20);
    if (s->opt->dialect != SIM_SGLANG) {
        buf_addf(&out, "Success: LoRA adapter '" STR_FMT "' %s successfully.", STR_ARG(name), what);
        httpd_respond(rq, 200, "text/plain; charset=utf-8", NULL, buf_str(&out));
        buf_free(&out);
        return;
    }
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "success");
    jsonw_bool(&w, true);
    jsonw_key(&w, "loaded_adapters");
    jsonw_obj(&w);
    for (unsigned i = 0; i < SIM_MAX_LORAS; i++)
        if (s->loras[i]) {
            jsonw_key(&w, s->loras[i]->name.p); /* str_dup'ed: ends with a NUL */
            jsonw_str(&w, s->loras[i]->path);
        }
    jsonw_obj_end(&w);
    jsonw_obj_end(&w);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}

static void load(struct server *s, struct httpd_req *rq, struct str name, struct str path)
{
    bool known;
    uint32_t slot = 0;
    (void)model_lora(s, name, &known);
    while (slot < SIM_MAX_LORAS && s->loras[slot])
        slot++;
    if (known || slot == SIM_MAX_LORAS) {
        server_error(rq, 400, "InvalidUserInput", NULL, NULL,
                     known ? "The lora adapter '" STR_FMT "' has already been loaded."
                           : "There is no room for the lora adapter '" STR_FMT "'.",
                     STR_ARG(name));
        return;
    }
    s->loras[slot] = xmalloc(sizeof(*s->loras[slot]));
    *s->loras[slot] = (struct sim_lora){{str_dup(name), name.n}, {str_dup(path), path.n}};
    for (unsigned i = 0; i < s->n_ranks; i++)
        engine_lora_add(s->ranks[i].engine, slot + 1);
    respond_change(s, rq, name, "added");
}

static void unload(struct server *s, struct httpd_req *rq, struct str name)
{
    for (uint32_t i = 0; i < SIM_MAX_LORAS; i++) {
        if (!s->loras[i] || !str_eq(name, s->loras[i]->name))
            continue;
        uint32_t used = 0;
        LIST_EACH (it, &s->jobs)
            used += CONTAINER_OF(it, struct job, link)->lora == i + 1;
        if (used) {
            server_error(rq, 400, "InvalidUserInput", NULL, NULL, "The lora adapter '" STR_FMT "' is in use.",
                         STR_ARG(name));
            return;
        }
        for (unsigned k = 0; k < s->n_ranks; k++)
            engine_lora_drop(s->ranks[k].engine, i + 1);
        lora_free(s->loras[i]);
        s->loras[i] = NULL;
        respond_change(s, rq, name, "removed");
        return;
    }
    server_error(rq, 404, "NotFoundError", NULL, NULL, "The lora adapter '" STR_FMT "' cannot be found.",
                 STR_ARG(name));
}

void lora_free(struct sim_lora *l)
{
    if (!l)
        return;
    void *p[2];
    memcpy(&p[0], &l->name.p, sizeof(p[0])); /* ours, although spans are read-only */
    memcpy(&p[1], &l->path.p, sizeof(p[1]));
    free(p[0]);
    free(p[1]);
    free(l);
}

void models_lora(struct server *s, struct httpd_req *rq, bool loading)
{
    struct body b;
    const char *error;
    struct buf name, path;
    if (!s->opt->enable_lora) {
        server_error(rq, 404, "NotFoundError", NULL, NULL, "Not Found");
        return;
    }
    if (!body_scan(rq->body, &b, &error)) {
        server_error(rq, 400, "BadRequestError", NULL, NULL, "JSON decode error: %s", error);
        return;
    }
    bool named = read_string(b.raw[B_LORA_NAME], &name), pathed = read_string(b.raw[B_LORA_PATH], &path);
    if (!named || (loading && !pathed))
        server_error(rq, 400, "InvalidUserInput", NULL, NULL, "Both 'lora_name' and 'lora_path' must be provided.");
    else if (loading)
        load(s, rq, buf_str(&name), buf_str(&path));
    else
        unload(s, rq, buf_str(&name));
    buf_free(&name);
    buf_free(&path);
}

static void token_list(struct jsonw *w, const struct tokens *t)
{
    jsonw_arr(w);
    for (uint32_t i = 0; i < t->n; i++)
        jsonw_u64(w, t->v[i]);
    jsonw_arr_end(w);
}

/* A list of prompts (SGLang) gets lists. */
static void respond_tokens(struct server *s, struct httpd_req *rq, const struct tokens *v, uint32_t n, bool list)
{
    struct buf out;
    struct jsonw w;
    buf_init(&out, SIZE_MAX / 2);
    jsonw_init(&w, &out);
    jsonw_obj(&w);
    jsonw_key(&w, "count");
    if (list)
        jsonw_arr(&w);
    for (uint32_t i = 0; i < n; i++)
        jsonw_u64(&w, v[i].n);
    if (list)
        jsonw_arr_end(&w);
    jsonw_key(&w, "max_model_len");
    jsonw_u64(&w, s->max_model_len);
    jsonw_key(&w, "tokens");
    if (list)
        jsonw_arr(&w);
    for (uint32_t i = 0; i < n; i++)
        token_list(&w, &v[i]);
    if (list)
        jsonw_arr_end(&w);
    jsonw_key(&w, "token_strs");
    jsonw_null(&w);
    jsonw_obj_end(&w);
    respond_json(s, rq, 200, buf_str(&out));
    buf_free(&out);
}

void models_tokenize(struct server *s, struct httpd_req *rq)
{
    struct body b;
    const char *error = NULL;
    struct tokens t = {0};
    struct prompts p = {0};
    if (!body_scan(rq->body, &b, &error)) {
        api_error(s, rq, SIM_CHAT, 400, NULL, "JSON decode error: %s", error);
        return;
    }
    bool chat = b.raw[B_MESSAGES].n > 0, list = b.raw[B_PROMPT].n && b.raw[B_PROMPT].p[0] == '[';
    bool ok = chat ? prompts_chat(&t, b.raw[B_MESSAGES], STR_NULL, b.raw[B_TOOLS], &error)
                   : prompts_plain(&p, b.raw[B_PROMPT], &error);
    if (!ok)
        api_error(s, rq, SIM_CHAT, 400, "prompt", "%s", error);
    else if (chat)
        respond_tokens(s, rq, &t, 1, false);
    else
        respond_tokens(s, rq, p.v, list ? p.n : 1, list && s->opt->dialect == SIM_SGLANG);
    tokens_free(&t);
    prompts_free(&p);
}
