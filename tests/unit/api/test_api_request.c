/* What is read of a request: fields and their types, duplicate and forbidden keys, the splice, paths, error bodies. */
#include "common.h"

static void fields_are_found(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_CHAT,
          STR("{ \"max_tokens\":5,\"model\" : "
              "\"Qwen\\/Qwen3\",\"stream\":true,\"stream_options\":{\"x\":{},\"include_usage\":true},"
              "\"n\":3,\"max_completion_tokens\":7,\"cache_salt\":\"s\",\"user\":\"\\u0075\",\"temperature\":0.5}"));
    assert_int_equal(p.rc, 0);
    assert_str(p.rq.model, "Qwen/Qwen3");
    assert_str(p.rq.model_raw, "Qwen\\/Qwen3");
    assert_true(p.rq.model_raw.p > p.body && p.rq.model_raw.p < p.body + p.text.n);
    assert_true(p.rq.stream && p.rq.include_usage && p.rq.has_max_tokens);
    assert_int_equal(p.rq.max_tokens, 7);
    assert_int_equal(p.rq.n, 3);
    assert_str(p.rq.cache_salt, "s");
    assert_str(p.rq.user, "u");
    assert_null(p.rq.forbidden);
    parsed_free(&p);
    parse(&p, API_CHAT, STR("{\"max_completion_tokens\":7,\"max_tokens\":5}"));
    assert_int_equal(p.rq.max_tokens, 7);
    assert_null(p.rq.model_raw.p);
    assert_int_equal(p.rq.n, 1);
    assert_false(p.rq.stream || p.rq.include_usage);
    parsed_free(&p);
    parse(&p, API_CHAT,
          STR("{\"max_completion_tokens\":null,\"max_tokens\":5,\"model\":null,\"stream\":null,\"stream_options\":null,"
              "\"n\":null,\"messages\":[],\"tools\":null,\"user\":null}"));
    assert_int_equal(p.rc, 0);
    assert_int_equal(p.rq.max_tokens, 5);
    assert_null(p.rq.model_raw.p);
    parsed_free(&p);
    parse(&p, API_RESPONSES,
          STR("{\"max_output_tokens\":9,\"previous_response_id\":\"resp_1\",\"input\":\"x\",\"model\":\"\"}"));
    assert_int_equal(p.rq.max_tokens, 9);
    assert_str(p.rq.previous_response_id, "resp_1");
    assert_non_null(p.rq.model_raw.p);
    assert_int_equal(p.rq.model.n, 0);
    parsed_free(&p);
    parse(&p, API_COMPLETIONS, STR("{\"max_tokens\":1.5,\"n\":0}"));
    assert_int_equal(p.rc, 0);
    assert_false(p.rq.has_max_tokens);
    assert_int_equal(p.rq.n, 1);
    parsed_free(&p);
}

struct bad {
    enum api_kind kind;
    const char *body, *code, *field; /* field: must be named */
};
static const struct bad bads[] = {
    {API_CHAT, "{\"model\":5}", "invalid_field", "`model`"},
    {API_CHAT, "{\"model\":[\"m\"]}", "invalid_field", "`model`"},
    {API_CHAT, "{\"model\":true}", "invalid_field", "`model`"},
    {API_CHAT, "{\"stream\":1}", "invalid_field", "`stream`"},
    {API_CHAT, "{\"stream\":\"true\"}", "invalid_field", "`stream`"},
    {API_CHAT, "{\"stream_options\":true}", "invalid_field", "`stream_options`"},
    {API_CHAT, "{\"stream_options\":{\"include_usage\":1}}", "invalid_field", "`stream_options.include_usage`"},
    {API_CHAT, "{\"messages\":{}}", "invalid_field", "`messages`"},
    {API_CHAT, "{\"messages\":\"hi\"}", "invalid_field", "`messages`"},
    {API_CHAT, "{\"messages\":null}", "invalid_field", "`messages`"},
    {API_CHAT, "{\"messages\":[\"hi\"]}", "invalid_field", "`messages`"},
    {API_CHAT, "{\"messages\":[{\"role\":1}]}", "invalid_field", "`role`"},
    {API_CHAT, "{\"messages\":[{\"content\":\"x\",\"role\":null}]}", "invalid_field", "`role`"},
    {API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "invalid_field", "`content`"},
    {API_CHAT, "{\"messages\":[{\"content\":5,\"role\":\"user\"}]}", "invalid_field", "`content`"},
    {API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[5]}]}", "invalid_field", "`content`"},
    {API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":5}]}]}", "invalid_field", "`type`"},
    {API_CHAT, "{\"tools\":{}}", "invalid_field", "`tools`"},
    {API_CHAT, "{\"max_tokens\":\"5\"}", "invalid_field", "`max_tokens`"},
    {API_CHAT, "{\"n\":[]}", "invalid_field", "`n`"},
    {API_CHAT, "{\"cache_salt\":5}", "invalid_field", "`cache_salt`"},
    {API_COMPLETIONS, "{\"prompt\":5}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":{}}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":true}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[1,\"a\"]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[\"a\",1]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[\"a\",[1]]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[[1],2]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[[\"a\"]]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[[[1]]]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[1.5]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[-1]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[4294967296]}", "invalid_field", "`prompt`"},
    {API_COMPLETIONS, "{\"prompt\":[null]}", "invalid_field", "`prompt`"},
    {API_EMBEDDINGS, "{\"input\":5}", "invalid_field", "`input`"},
    {API_RESPONSES, "{\"input\":5}", "invalid_field", "`input`"},
    {API_RESPONSES, "{\"input\":[5]}", "invalid_field", "`input`"},
    {API_RESPONSES, "{\"instructions\":5}", "invalid_field", "`instructions`"},
    {API_RESPONSES, "{\"previous_response_id\":5}", "invalid_field", "`previous_response_id`"},
    {API_MESSAGES, "{\"system\":5}", "invalid_field", "`system`"},
    {API_CHAT, "{\"model\":\"a\",\"model\":\"a\"}", "duplicate_key", "`model`"},
    {API_CHAT, "{\"model\":\"a\",\"mod\\u0065l\":\"b\"}", "duplicate_key", "`model`"},
    {API_CHAT, "{\"\\u006d\\u006f\\u0064\\u0065\\u006c\":\"a\",\"model\":\"b\"}", "duplicate_key", "`model`"},
    {API_CHAT, "{\"model\":null,\"model\":\"b\"}", "duplicate_key", "`model`"},
    {API_CHAT, "{\"messages\":[],\"messages\":[]}", "duplicate_key", "`messages`"},
    {API_CHAT, "{\"stream\":true,\"stream\":false}", "duplicate_key", "`stream`"},
    {API_CHAT, "{\"stream_options\":{},\"stream_options\":{}}", "duplicate_key", "`stream_options`"},
    {API_CHAT, "{\"stream_options\":{\"include_usage\":true,\"include_usage\":true}}", "duplicate_key",
     "`include_usage`"},
    {API_CHAT, "{\"tools\":[],\"tools\":[]}", "duplicate_key", "`tools`"},
    {API_CHAT, "{\"n\":1,\"n\":1}", "duplicate_key", "`n`"},
    {API_CHAT, "{\"max_tokens\":1,\"max_tokens\":1}", "duplicate_key", "`max_tokens`"},
    {API_CHAT, "{\"cache_salt\":\"\",\"cache_salt\":\"\"}", "duplicate_key", "`cache_salt`"},
    {API_COMPLETIONS, "{\"prompt\":\"a\",\"prompt\":\"b\"}", "duplicate_key", "`prompt`"},
    {API_EMBEDDINGS, "{\"input\":\"a\",\"input\":\"b\"}", "duplicate_key", "`input`"},
    {API_RESPONSES, "{\"input\":\"a\",\"input\":\"b\"}", "duplicate_key", "`input`"},
    {API_RESPONSES, "{\"instructions\":\"a\",\"instructions\":\"b\"}", "duplicate_key", "`instructions`"},
    {API_RESPONSES, "{\"previous_response_id\":\"a\",\"previous_response_id\":\"b\"}", "duplicate_key",
     "`previous_response_id`"},
    {API_MESSAGES, "{\"system\":\"a\",\"system\":\"b\"}", "duplicate_key", "`system`"},
    {API_CHAT, "{\"messages\":[{\"role\":\"a\",\"role\":\"b\"}]}", "duplicate_key", "`role`"},
    {API_CHAT, "{\"messages\":[{\"content\":\"a\",\"role\":\"b\",\"c\\u006fntent\":\"b\"}]}", "duplicate_key",
     "`content`"},
    {API_CHAT, "{\"messages\":[{\"tool_calls\":[],\"tool_calls\":[]}]}", "duplicate_key", "`tool_calls`"},
    {API_CHAT, "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"a\",\"text\":\"b\"}]}]}", "duplicate_key",
     "`text`"},
    {API_CHAT, "{\"messages\":[{\"content\":[{\"type\":\"image_url\",\"type\":\"text\"}]}]}", "duplicate_key",
     "`type`"},
    {API_MESSAGES, "{\"messages\":[{\"content\":[{\"type\":\"tool_result\",\"content\":\"a\",\"content\":\"b\"}]}]}",
     "duplicate_key", "`content`"},
};

static void wrong_types_and_duplicates_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bads); i++) {
        struct parsed p;
        parse(&p, bads[i].kind, str_c(bads[i].body));
        if (p.rc != -1 || strcmp(p.e.code, bads[i].code) != 0)
            fail_msg("%s: %s", bads[i].body, p.rc ? p.e.msg : "accepted");
        if (!strstr(p.e.msg, bads[i].field))
            fail_msg("%s: \"%s\" does not name %s", bads[i].body, p.e.msg, bads[i].field);
        assert_int_equal(p.e.status, 400);
        parsed_free(&p);
    }
}

static void keys_of_other_apis_are_ignored(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_CHAT,
          STR("{\"prompt\":5,\"prompt\":6,\"input\":7,\"system\":8,\"x\":1,\"x\":2,\"previous_response_id\":1}"));
    assert_int_equal(p.rc, 0);
    parsed_free(&p);
}

static void other_bodies_never_fail(void **state)
{
    (void)state;
    static const char *const none[] = {
        "", "x", "[]", "{\"model\":5}", "{\"model\":\"a\"", "{\"model\":\"a\"} trailing", "--boundary\r\n"};
    struct parsed p;
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        parse(&p, API_OTHER, str_c(none[i]));
        assert_int_equal(p.rc, 0);
        assert_null(p.rq.model_raw.p);
        assert_false(p.rq.stream);
        parsed_free(&p);
    }
    parse(&p, API_OTHER, STR("{\"text\":\"x\",\"stream\":true,\"model\":\"m\"}"));
    assert_int_equal(p.rc, 0);
    assert_str(p.rq.model, "m");
    assert_true(p.rq.stream);
    parsed_free(&p);
}

static void forbidden_keys_are_named(void **state)
{
    (void)state;
    static const char *const keys[][2] = {{"bootstrap_host", "bootstrap_host"},
                                          {"bootstrap_roo\\u006d", "bootstrap_room"},
                                          {"bootstrap_new", "bootstrap_*"},
                                          {"kv_transfer_params", "kv_transfer_params"},
                                          {"disaggregated_params", "disaggregated_params"}};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char body[200];
        struct parsed p;
        snprintf(body, sizeof(body), "{\"model\":\"m\",\"%s\":{\"a\":1},\"messages\":[]}", keys[i][0]);
        parse(&p, API_CHAT, str_c(body));
        assert_int_equal(p.rc, 0);
        assert_non_null(p.rq.forbidden);
        assert_string_equal(p.rq.forbidden, keys[i][1]);
        parsed_free(&p);
    }
}

static void splice(const char *body, const char *model, const char *want)
{
    struct parsed p;
    char name[64], got[200];
    struct str h, n, t;
    parse(&p, API_CHAT, str_c(body));
    assert_int_equal(p.rc, 0);
    assert_true(api_splice_model(p.text, &p.rq, str_c(model), name, sizeof(name), &h, &n, &t));
    snprintf(got, sizeof(got), STR_FMT STR_FMT STR_FMT, STR_ARG(h), STR_ARG(n), STR_ARG(t));
    assert_string_equal(got, want);
    parsed_free(&p);
}

static void splice_changes_only_the_name(void **state)
{
    (void)state;
    splice("{\"model\":\"a\"}", "b", "{\"model\":\"b\"}");
    splice("{ \"x\":1.50 ,\"model\" :\"a\\n\", \"z\":[ 1e3 ]} ", "longer name",
           "{ \"x\":1.50 ,\"model\" :\"longer name\", \"z\":[ 1e3 ]} ");
    splice("{\"model\":\"\"}", "q\"\\\n\x01", "{\"model\":\"q\\\"\\\\\\u000a\\u0001\"}");
    splice("{\"messages\":[{\"model\":\"x\"}],\"model\":\"a\"}", "b",
           "{\"messages\":[{\"model\":\"x\"}],\"model\":\"b\"}");
    struct parsed p;
    char name[8];
    struct str h, n, t;
    parse(&p, API_CHAT, STR("{\"model\":\"a\"}"));
    assert_true(api_splice_model(p.text, &p.rq, STR("12345678"), name, 8, &h, &n, &t));
    assert_false(api_splice_model(p.text, &p.rq, STR("123456789"), name, 8, &h, &n, &t));
    assert_false(api_splice_model(p.text, &p.rq, STR("1234567\""), name, 8, &h, &n, &t));
    parsed_free(&p);
    parse(&p, API_CHAT, STR("{}"));
    assert_false(api_splice_model(p.text, &p.rq, STR("b"), name, 8, &h, &n, &t));
    parsed_free(&p);
}

static void paths_are_classified(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum api_kind post, get;
    } t[] = {{"/v1/completions", API_COMPLETIONS, API_OTHER},
             {"/v1/chat/completions", API_CHAT, API_OTHER},
             {"/openai/v1/chat/completions", API_CHAT, API_OTHER},
             {"/v1/embeddings", API_EMBEDDINGS, API_OTHER},
             {"/v1/responses", API_RESPONSES, API_OTHER},
             {"/v1/responses/resp_1", API_OTHER, API_OTHER},
             {"/v1/messages", API_MESSAGES, API_OTHER},
             {"/v1/messages/count_tokens", API_OTHER, API_OTHER},
             {"/v1/models", API_OTHER, API_MODELS},
             {"/v1/models/x", API_OTHER, API_OTHER},
             {"/xv1/completions", API_OTHER, API_OTHER},
             {"/v1/completionsx", API_OTHER, API_OTHER},
             {"/generate", API_GENERATE, API_OTHER},
             {"", API_OTHER, API_OTHER}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        assert_int_equal(api_classify(false, true, str_c(t[i].path)), t[i].post);
        assert_int_equal(api_classify(true, false, str_c(t[i].path)), t[i].get);
        assert_int_equal(api_classify(false, false, str_c(t[i].path)), API_OTHER);
    }
    assert_string_equal(api_kind_name(API_CHAT), "chat");
    assert_string_equal(api_kind_name(API_OTHER), "other");
}

static void error_body(enum api_kind kind, unsigned status, const char *param, const char *want)
{
    struct buf b;
    buf_init(&b, 4096);
    api_error_body(&b, kind, status, "some_code", param, STR("Say \"why\"."));
    assert_str(buf_str(&b), want);
    buf_free(&b);
}

static void errors_have_the_shape_of_the_api(void **state)
{
    (void)state;
    error_body(API_CHAT, 400, NULL,
               "{\"error\":{\"message\":\"Say "
               "\\\"why\\\".\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"some_code\"}}");
    error_body(API_OTHER, 429, "p",
               "{\"error\":{\"message\":\"Say "
               "\\\"why\\\".\",\"type\":\"rate_limit_error\",\"param\":\"p\",\"code\":\"some_code\"}}");
    error_body(API_RESPONSES, 502, NULL,
               "{\"error\":{\"message\":\"Say "
               "\\\"why\\\".\",\"type\":\"server_error\",\"param\":null,\"code\":\"some_code\"}}");
    error_body(API_MESSAGES, 503, "p",
               "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Say "
               "\\\"why\\\".\",\"code\":\"some_code\"}}");
    error_body(API_MESSAGES, 500, NULL,
               "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"Say "
               "\\\"why\\\".\",\"code\":\"some_code\"}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(wrong_types_and_duplicates_are_refused),
        cmocka_unit_test(keys_of_other_apis_are_ignored),
        cmocka_unit_test(other_bodies_never_fail),
        cmocka_unit_test(forbidden_keys_are_named),
        cmocka_unit_test(splice_changes_only_the_name),
        cmocka_unit_test(paths_are_classified),
        cmocka_unit_test(errors_have_the_shape_of_the_api),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
