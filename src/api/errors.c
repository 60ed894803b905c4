/* Error answers in the shape the client's SDK understands. */
#include "api/api.h"
#include "base/json.h"

static const struct {
    unsigned status;
    const char *openai, *anthropic;
} types[] = {
    {400, "invalid_request_error", "invalid_request_error"},
    {401, "authentication_error", "authentication_error"},
    {403, "permission_error", "permission_error"},
    {404, "not_found_error", "not_found_error"},
    {408, "timeout_error", "timeout_error"},
    {413, "invalid_request_error", "request_too_large"},
    {429, "rate_limit_error", "rate_limit_error"},
    {503, "service_unavailable_error", "overloaded_error"},
    {504, "timeout_error", "timeout_error"},
    {529, "service_unavailable_error", "overloaded_error"},
};

static const char *error_type(bool anthropic, unsigned status)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].status == status)
            return anthropic ? types[i].anthropic : types[i].openai;
    if (status < 500)
        return "invalid_request_error";
    return anthropic ? "api_error" : "server_error";
}

void api_error_body(struct buf *out, enum api_kind kind, unsigned status, const char *code, const char *param,
                    struct str message)
{
    bool anthropic = kind == API_MESSAGES;
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_obj(&w);
    if (kind == API_TRITON) { /* a sentence is all there is */
        jsonw_key(&w, "error");
        jsonw_str(&w, message);
        jsonw_obj_end(&w);
        return;
    }
    if (anthropic) {
        jsonw_key(&w, "type");
        jsonw_cstr(&w, "error");
    }
    jsonw_key(&w, "error");
    jsonw_obj(&w);
    if (anthropic) {
        jsonw_key(&w, "type");
        jsonw_cstr(&w, error_type(true, status));
    }
    jsonw_key(&w, "message");
    jsonw_str(&w, message);
    if (!anthropic) {
        jsonw_key(&w, "type");
        jsonw_cstr(&w, error_type(false, status));
        jsonw_key(&w, "param");
        jsonw_cstr(&w, param);
    }
    jsonw_key(&w, "code");
    jsonw_cstr(&w, code);
    jsonw_obj_end(&w);
    jsonw_obj_end(&w);
}
