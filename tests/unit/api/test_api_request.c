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
    {API_GENERATE, "{\"text\":5}", "invalid_field", "`text`"},
    {API_GENERATE, "{\"input_ids\":[1.5]}", "invalid_field", "`input_ids`"},
    {API_GENERATE, "{\"sampling_params\":5}", "invalid_field", "`sampling_params`"},
    {API_GENERATE, "{\"sampling_params\":[5]}", "invalid_field", "`sampling_params`"},
    {API_GENERATE, "{\"sampling_params\":{\"max_new_tokens\":\"5\"}}", "invalid_field",
     "`sampling_params.max_new_tokens`"},
    {API_GENERATE, "{\"sampling_params\":{\"n\":1,\"n\":1}}", "duplicate_key", "`n`"},
    {API_GENERATE, "{\"sampling_params\":{\"max_new_tokens\":1,\"max_new_tokens\":1}}", "duplicate_key",
     "`max_new_tokens`"},
    {API_GENERATE, "{\"text\":\"a\",\"text\":\"a\"}", "duplicate_key", "`text`"},
    {API_GENERATE, "{\"input_ids\":[],\"input_ids\":[]}", "duplicate_key", "`input_ids`"},
    {API_GENERATE, "{\"sampling_params\":{},\"sampling_params\":{}}", "duplicate_key", "`sampling_params`"},
    {API_GENERATE, "{\"lora_path\":\"a\",\"lora_path\":\"a\"}", "duplicate_key", "`lora_path`"},
    {API_TRITON, "{\"text_input\":5}", "invalid_field", "`text_input`"},
    {API_TRITON, "{\"max_tokens\":\"5\"}", "invalid_field", "`max_tokens`"},
    {API_TRITON, "{\"text_input\":\"a\",\"text_input\":\"a\"}", "duplicate_key", "`text_input`"},
    {API_TRITON, "{\"max_tokens\":1,\"max_tokens\":1}", "duplicate_key", "`max_tokens`"},
    {API_TRITON, "{\"stream\":true,\"stream\":true}", "duplicate_key", "`stream`"},
    {API_RERANK, "{\"query\":5}", "invalid_field", "`query`"},
    {API_RERANK, "{\"documents\":[null]}", "invalid_field", "`documents`"},
    {API_RERANK, "{\"documents\":[[\"a\",5]]}", "invalid_field", "`documents`"},
    {API_RERANK, "{\"documents\":[1,\"a\"]}", "invalid_field", "`documents`"},
    {API_RERANK, "{\"documents\":[{\"text\":\"a\",\"text\":\"b\"}]}", "duplicate_key", "`text`"},
    {API_RERANK, "{\"query\":\"a\",\"query\":\"a\"}", "duplicate_key", "`query`"},
    {API_RERANK, "{\"documents\":[],\"documents\":[]}", "duplicate_key", "`documents`"},
    {API_SCORE, "{\"text_1\":\"a\",\"text_1\":\"a\"}", "duplicate_key", "`text_1`"},
    {API_SCORE, "{\"text_1\":\"a\",\"queries\":\"a\"}", "duplicate_key", "`queries` means the same as `text_1`"},
    {API_SCORE, "{\"items\":[],\"text_2\":\"a\"}", "duplicate_key", "`text_2` means the same as `items`"},
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

/* What api_pieces takes out may stand once only, read by the API or not, however it is spelled. */
static void members_stand_once(void **state)
{
    (void)state;
    static const char *const keys[][2] = {{"stream", "str\\u0065am"},
                                          {"stream_options", "stream\\u005foptions"},
                                          {"max_tokens", "max_token\\u0073"},
                                          {"max_completion_tokens", "max_completion_token\\u0073"},
                                          {"max_output_tokens", "\\u006dax_output_tokens"},
                                          {"min_tokens", "\\u006Din_tokens"}};
    for (int k = API_OTHER; k < API_N_KINDS; k++) {
        for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
            char body[200], named[60];
            struct parsed p;
            snprintf(body, sizeof(body), "{\"%s\":null,\"x\":{\"%s\":1,\"%s\":2}}", keys[i][0], keys[i][0], keys[i][0]);
            parse(&p, (enum api_kind)k, str_c(body));
            assert_int_equal(p.rc, 0);
            if (api_kind_generates((enum api_kind)k)) {
                assert_int_equal(p.rq.n_members, 1);
                assert_int_equal(p.rq.members[0].key, i);
                assert_str((struct str){p.rq.members[0].from, 3}, (const char[]){'"', keys[i][0][0], keys[i][0][1], 0});
                assert_memory_equal(p.rq.members[0].to - 4, "null", 4);
            }
            parsed_free(&p);
            snprintf(body, sizeof(body), "{\"%s\":null,\"x\":1,\"%s\":null}", keys[i][0], keys[i][1]);
            snprintf(named, sizeof(named), "`%s`", keys[i][0]);
            parse(&p, (enum api_kind)k, str_c(body));
            if (api_kind_generates((enum api_kind)k) && (p.rc != -1 || !strstr(p.e.msg, named)))
                fail_msg("%s as %s: %s", body, api_kind_name((enum api_kind)k), p.rc ? p.e.msg : "accepted");
            parsed_free(&p);
        }
    }
}

static void batches_are_counted(void **state)
{
    (void)state;
    static const struct {
        enum api_kind kind;
        const char *body;
        uint32_t n_batch, n_prompts, n;
        uint64_t max_tokens; /* 0: not told */
    } t[] = {
        {API_COMPLETIONS, "{\"prompt\":\"a\",\"n\":3}", 0, 1, 3, 0},
        {API_COMPLETIONS, "{\"prompt\":[\"a\"]}", 1, 1, 1, 0},
        {API_COMPLETIONS, "{\"n\":2,\"prompt\":[\"a\",\"b\",\"c\"],\"max_tokens\":7}", 3, 3, 2, 7},
        {API_COMPLETIONS, "{\"prompt\":[1,2,3]}", 0, 1, 1, 0},
        {API_COMPLETIONS, "{\"prompt\":[[1,2,3]]}", 1, 1, 1, 0},
        {API_COMPLETIONS, "{\"prompt\":[]}", 0, 0, 1, 0},
        {API_CHAT, "{\"n\":1,\"messages\":[]}", 0, 1, 1, 0},
        {API_CHAT, "{\"n\":4,\"messages\":[],\"max_output_tokens\":5}", 4, 1, 4, 0},
        {API_RESPONSES, "{\"n\":4,\"input\":\"x\",\"max_tokens\":5,\"max_output_tokens\":6}", 0, 1, 1, 6},
        {API_GENERATE, "{\"text\":\"a\"}", 0, 1, 1, 0},
        {API_GENERATE, "{\"text\":[\"a\",\"b\"],\"sampling_params\":{\"max_new_tokens\":4,\"n\":2}}", 2, 2, 2, 4},
        {API_GENERATE,
         "{\"text\":[\"a\",\"b\"],\"sampling_params\":[{\"max_new_tokens\":4},{\"max_new_tokens\":9,\"n\":3},{}]}", 2,
         2, 3, 9},
        {API_GENERATE, "{\"input_ids\":[1,2],\"max_tokens\":5,\"sampling_params\":null}", 0, 1, 1, 0},
        {API_GENERATE, "{\"input_ids\":[[1,2]],\"sampling_params\":{\"max_new_tokens\":null,\"n\":0}}", 1, 1, 1, 0},
        {API_TRITON, "{\"text_input\":\"a\",\"max_tokens\":8}", 0, 1, 1, 8},
        {API_RERANK, "{\"query\":\"q\",\"documents\":[\"a\",\"b\",\"c\"]}", 0, 3, 1, 0},
        {API_RERANK, "{\"documents\":[\"a\",\"b\",\"c\"],\"query\":\"q\"}", 0, 3, 1, 0},
        {API_SCORE, "{\"text_1\":[\"a\",\"b\"],\"text_2\":\"x\"}", 0, 2, 1, 0},
        {API_SCORE, "{\"text_2\":[1,2,3],\"text_1\":[[1],[2],[3]]}", 0, 3, 1, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct parsed p;
        parse(&p, t[i].kind, str_c(t[i].body));
        if (p.rc || p.rq.n_batch != t[i].n_batch || p.rq.n_prompts != t[i].n_prompts || p.rq.n != t[i].n ||
            p.rq.has_max_tokens != (t[i].max_tokens > 0) || p.rq.max_tokens != t[i].max_tokens)
            fail_msg("%s: batch %u, prompts %u, n %u, max %lu", t[i].body, p.rq.n_batch, p.rq.n_prompts, p.rq.n,
                     (unsigned long)p.rq.max_tokens);
        parsed_free(&p);
    }
}

static void model_of_generate(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_GENERATE, STR("{\"text\":\"a\"}"));
    assert_null(p.rq.model_raw.p);
    parsed_free(&p);
    parse(&p, API_GENERATE, STR("{\"lora_path\":\"a\\u0062\",\"text\":\"a\"}"));
    assert_str(p.rq.model, "ab");
    assert_str(p.rq.model_raw, "a\\u0062");
    assert_int_equal(p.rq.prompt_bytes, 1);
    parsed_free(&p);
    parse(&p, API_GENERATE, STR("{\"lora_path\":\"a\",\"model\":\"b\",\"text\":\"a\"}"));
    assert_str(p.rq.model, "b");
    assert_int_equal(p.rq.prompt_bytes, 1);
    parsed_free(&p);
    static const char *const none[] = {"{\"lora_path\":[\"a\"]}", "{\"lora_path\":null}", "{\"lora_path\":\"\"}"};
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        parse(&p, API_GENERATE, str_c(none[i]));
        assert_int_equal(p.rc, 0);
        assert_null(p.rq.model_raw.p);
        parsed_free(&p);
    }
    parse(&p, API_TRITON, STR("{\"model\":\"a\"}"));
    assert_null(p.rq.model_raw.p);
    parsed_free(&p);
}

static void objects_end_where_they_end(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_CHAT, STR(" { } "));
    assert_true(p.rq.object_empty && p.rq.object_end == p.body + 3);
    parsed_free(&p);
    parse(&p, API_OTHER, STR("{\"a\":{}}\n"));
    assert_true(!p.rq.object_empty && p.rq.object_end == p.body + 7);
    parsed_free(&p);
    parse(&p, API_OTHER, STR("[]"));
    assert_null(p.rq.object_end);
    parsed_free(&p);
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
                                          {"\\u0062ootstrap_port", "bootstrap_port"},
                                          {"bootstrap_new", "bootstrap_*"},
                                          {"kv_transfer_params", "kv_transfer_params"},
                                          {"kv\\u005ftransfer\\u005Fparams", "kv_transfer_params"},
                                          {"ec_transfer_params", "ec_transfer_params"},
                                          {"routed_dp_rank", "routed_dp_rank"},
                                          {"disagg_prefill_dp_rank", "disagg_prefill_dp_rank"},
                                          {"data_parallel_rank", "data_parallel_rank"},
                                          {"disaggregated_params", "disaggregated_params"}};
    static const char *const bodies[] = {"{\"model\":\"m\",\"%s\":{\"a\":1},\"stream\":true}", "{\"%s\":1,\"%s\":2}",
                                         "{\"x\":{\"y\":1},\"%s\":null}"};
    for (int k = API_OTHER; k < API_N_KINDS; k++) {
        for (size_t i = 0; i < ARRAY_LEN(keys) * ARRAY_LEN(bodies); i++) {
            const char *const *key = keys[i % ARRAY_LEN(keys)];
            struct buf body;
            struct parsed p;
            buf_init(&body, 1000);
            for (const char *c = bodies[i / ARRAY_LEN(keys)]; *c; c++) {
                buf_add_str(&body, *c == '%' ? str_c(key[0]) : (struct str){c, 1});
                c += *c == '%';
            }
            parse(&p, (enum api_kind)k, buf_str(&body));
            assert_int_equal(p.rc, 0);
            assert_non_null(p.rq.forbidden);
            assert_string_equal(p.rq.forbidden, key[1]);
            parsed_free(&p);
            buf_free(&body);
        }
    }
}

static void nested_keys_are_not_forbidden(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, API_CHAT,
          STR("{\"x\":{\"bootstrap_host\":1},\"messages\":[{\"kv_transfer_params\":{}}],\"xbootstrap_host\":1}"));
    assert_int_equal(p.rc, 0);
    assert_null(p.rq.forbidden);
    parsed_free(&p);
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
             {"/sgl/generate", API_GENERATE, API_OTHER},
             {"/inference/v1/generate", API_OTHER, API_OTHER},
             {"/generate_stream", API_OTHER, API_OTHER},
             {"/v2/models/m/generate", API_TRITON, API_OTHER},
             {"/v2/models/m/generate_stream", API_TRITON, API_OTHER},
             {"/v2/models/m/versions/1/generate", API_TRITON, API_OTHER},
             {"/v2/models/m/infer", API_OTHER, API_OTHER},
             {"/v2/models/m", API_OTHER, API_OTHER},
             {"/v2/models//generate", API_OTHER, API_OTHER},
             {"/v2/models/m/versions//generate", API_OTHER, API_OTHER},
             {"/v2/models/m/n/generate", API_OTHER, API_OTHER},
             {"/v2/models/m/versions/1/2/generate", API_OTHER, API_OTHER},
             {"/rerank", API_RERANK, API_OTHER},
             {"/v1/rerank", API_RERANK, API_OTHER},
             {"/v2/rerank", API_RERANK, API_OTHER},
             {"/score", API_SCORE, API_OTHER},
             {"/v1/score", API_SCORE, API_OTHER},
             {"/xscore", API_OTHER, API_OTHER},
             {"/tokenize", API_OTHER, API_OTHER},
             {"/v1/tokenize", API_OTHER, API_OTHER},
             {"/detokenize", API_OTHER, API_OTHER},
             {"", API_OTHER, API_OTHER}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        assert_int_equal(api_classify(false, true, str_c(t[i].path)), t[i].post);
        assert_int_equal(api_classify(true, false, str_c(t[i].path)), t[i].get);
        assert_int_equal(api_classify(false, false, str_c(t[i].path)), API_OTHER);
    }
    assert_string_equal(api_kind_name(API_CHAT), "chat");
    assert_string_equal(api_kind_name(API_OTHER), "other");
}

static void triton_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path, *model;
        bool streams;
    } t[] = {{"/v2/models/m/generate", "m", false},
             {"/v2/models/a%2Fb/generate_stream", "a%2Fb", true},
             {"/v2/models/m/versions/3/generate_stream", "m", true},
             {"/team/v2/models/m.1/versions/3/generate", "m.1", false},
             {"/v2/models/versions/generate", "versions", false},
             {"/v2/models/versions/versions/1/generate", "versions", false},
             {"/v2/models/generate/generate", "generate", false},
             {"/v2/models/generate_stream/generate", "generate_stream", false}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct str path = str_c(t[i].path), model = api_path_model(API_TRITON, path);
        assert_int_equal(api_classify(false, true, path), API_TRITON);
        assert_str(model, t[i].model);
        assert_true(model.p > path.p && model.p + model.n < path.p + path.n);
        assert_int_equal(api_path_streams(API_TRITON, path), t[i].streams);
        assert_int_equal(api_path_model(API_CHAT, path).n, 0);
        assert_false(api_path_streams(API_CHAT, path));
    }
    assert_int_equal(api_path_model(API_TRITON, STR("/v2/rerank")).n, 0);
    assert_int_equal(api_path_model(API_TRITON, STR_NULL).n, 0);
    assert_false(api_path_streams(API_TRITON, STR("/generate_stream")));
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
    error_body(API_TRITON, 503, "p", "{\"error\":\"Say \\\"why\\\".\"}");
    error_body(API_GENERATE, 503, NULL,
               "{\"error\":{\"message\":\"Say "
               "\\\"why\\\".\",\"type\":\"service_unavailable_error\",\"param\":null,\"code\":\"some_code\"}}");
    error_body(API_MESSAGES, 500, NULL,
               "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"Say "
               "\\\"why\\\".\",\"code\":\"some_code\"}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(wrong_types_and_duplicates_are_refused),
        cmocka_unit_test(members_stand_once),
        cmocka_unit_test(batches_are_counted),
        cmocka_unit_test(model_of_generate),
        cmocka_unit_test(objects_end_where_they_end),
        cmocka_unit_test(keys_of_other_apis_are_ignored),
        cmocka_unit_test(other_bodies_never_fail),
        cmocka_unit_test(forbidden_keys_are_named),
        cmocka_unit_test(nested_keys_are_not_forbidden),
        cmocka_unit_test(triton_paths),
        cmocka_unit_test(splice_changes_only_the_name),
        cmocka_unit_test(paths_are_classified),
        cmocka_unit_test(errors_have_the_shape_of_the_api),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
