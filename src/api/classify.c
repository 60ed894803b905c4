/* Which API a request belongs to, by its path. */
#include "api/api.h"

static const struct {
    const char *name;
    const char *suffix;
} kinds[API_N_KINDS] = {
    [API_OTHER] = {"other", NULL},
    [API_COMPLETIONS] = {"completions", "/v1/completions"},
    [API_CHAT] = {"chat", "/v1/chat/completions"},
    [API_EMBEDDINGS] = {"embeddings", "/v1/embeddings"},
    [API_RESPONSES] = {"responses", "/v1/responses"},
    [API_MESSAGES] = {"messages", "/v1/messages"},
    [API_MODELS] = {"models", "/v1/models"},
};

const char *api_kind_name(enum api_kind k)
{
    return (unsigned)k < API_N_KINDS ? kinds[k].name : "other";
}

enum api_kind api_classify(bool is_get, bool is_post, struct str path)
{
    for (unsigned k = 0; k < API_N_KINDS; k++) {
        bool method_ok = k == API_MODELS ? is_get : is_post;
        if (method_ok && kinds[k].suffix && str_ends(path, str_c(kinds[k].suffix)))
            return (enum api_kind)k;
    }
    return API_OTHER;
}
