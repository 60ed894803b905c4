/* Which API a request belongs to, by its path. */
#include "api/api.h"

/* not_suffix: a longer suffix that belongs to something else. */
static const struct {
    const char *name;
    const char *suffix, *not_suffix;
} kinds[API_N_KINDS] = {
    [API_OTHER] = {"other", NULL, NULL},
    [API_COMPLETIONS] = {"completions", "/v1/completions", NULL},
    [API_CHAT] = {"chat", "/v1/chat/completions", NULL},
    [API_EMBEDDINGS] = {"embeddings", "/v1/embeddings", NULL},
    [API_RESPONSES] = {"responses", "/v1/responses", NULL},
    [API_MESSAGES] = {"messages", "/v1/messages", NULL},
    [API_MODELS] = {"models", "/v1/models", NULL},
    [API_GENERATE] = {"generate", "/generate", "/v1/generate"}, /* vLLM's takes token ids in another shape */
    [API_TRITON] = {"triton", NULL, NULL},                      /* by triton_model */
    [API_RERANK] = {"rerank", "/rerank", NULL},
    [API_SCORE] = {"score", "/score", NULL},
};

const char *api_kind_name(enum api_kind k)
{
    return (unsigned)k < API_N_KINDS ? kinds[k].name : "other";
}

bool api_kind_generates(enum api_kind kind)
{
    return kind == API_COMPLETIONS || kind == API_CHAT || kind == API_RESPONSES || kind == API_MESSAGES ||
           kind == API_GENERATE;
}

/* Cuts the last segment off *path and returns it without its slash; p NULL when there is no slash. */
static struct str last_segment(struct str *path)
{
    for (size_t i = path->n; i-- > 0;) {
        if (path->p[i] == '/') {
            struct str seg = str_from(*path, i + 1);
            path->n = i;
            return seg;
        }
    }
    return STR_NULL;
}

/* The model of ".../v2/models/{model}[/versions/{version}]/generate[_stream]", as it stands there; empty when the path
 * is another one. */
static struct str triton_model(struct str path, bool *streams)
{
    struct str verb = last_segment(&path);
    *streams = str_eq(verb, STR("generate_stream"));
    if (!*streams && !str_eq(verb, STR("generate")))
        return STR_NULL;
    struct str model = last_segment(&path);
    if (!model.n)
        return STR_NULL;
    if (str_ends(path, STR("/v2/models")))
        return model;
    if (!str_eq(last_segment(&path), STR("versions")))
        return STR_NULL;
    model = last_segment(&path);
    return model.n && str_ends(path, STR("/v2/models")) ? model : STR_NULL;
}

static bool fits(unsigned k, struct str path)
{
    if (k == API_GENERATE && str_find(path, STR("/v2/models/")) >= 0) /* nothing of Triton's is SGLang's */
        return false;
    return kinds[k].suffix && str_ends(path, str_c(kinds[k].suffix)) &&
           !(kinds[k].not_suffix && str_ends(path, str_c(kinds[k].not_suffix)));
}

enum api_kind api_classify(bool is_get, bool is_post, struct str path)
{
    bool streams;
    if (is_post && triton_model(path, &streams).n)
        return API_TRITON;
    for (unsigned k = 0; k < API_N_KINDS; k++) {
        bool method_ok = k == API_MODELS ? is_get : is_post;
        if (method_ok && fits(k, path))
            return (enum api_kind)k;
    }
    return API_OTHER;
}

struct str api_path_model(enum api_kind kind, struct str path)
{
    bool streams;
    return kind == API_TRITON ? triton_model(path, &streams) : STR_NULL;
}

bool api_path_streams(enum api_kind kind, struct str path)
{
    bool streams = false;
    return kind == API_TRITON && triton_model(path, &streams).n && streams;
}
