/* What is read of answers: usage from bodies and from the tail of streams, first-event errors, response ids, model
 * lists. */
#include "common.h"

struct usage_case {
    const char *text;
    bool tail; /* tail only; else both */
    bool found;
    uint64_t prompt, completion;
    int64_t cached; /* -1: not told */
};
static const struct usage_case usage_cases[] = {
    /* vLLM, SGLang, OpenAI */
    {"{\"id\":\"cmpl-1\",\"choices\":[{\"text\":\" "
     "Paris.\"}],\"usage\":{\"prompt_tokens\":7,\"total_tokens\":10,\"completion_tokens\":3,"
     "\"prompt_tokens_details\":null},\"kv_transfer_params\":null}",
     false, true, 7, 3, -1},
    {"{\"choices\":[{\"message\":{\"content\":\"fake \\\"usage\\\":{\\\"prompt_tokens\\\":99}\"}}],\"usage\" : "
     "{\"prompt_tokens\":21,"
     "\"total_tokens\":24,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":16},\"reasoning_"
     "tokens\":0}}",
     false, true, 21, 3, 16},
    {"{\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":3,\"prompt_tokens_details\":{\"audio_tokens\":1,\"cached_"
     "tokens\":5},"
     "\"completion_tokens_details\":{\"reasoning_tokens\":9,\"x\":{\"prompt_tokens\":1}}},\"id\":\"last\"}",
     false, true, 21, 3, 5},
    {"{\"object\":\"list\",\"data\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4}}", false, true, 4, 0, -1},
    {"{\"usage\":null,\"id\":\"x\"}", false, false, 0, 0, -1},
    {"{\"usage\":{},\"id\":\"x\"}", false, false, 0, 0, -1},
    {"{\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":\"x\"}}", false, false, 0, 0, -1},
    {"{\"choices\":[]}", false, false, 0, 0, -1},
    {"[]", false, false, 0, 0, -1},
    {"", false, false, 0, 0, -1},
    /* Anthropic, responses, SGLang's own */
    {"{\"type\":\"message\",\"content\":[],\"usage\":{\"input_tokens\":21,\"output_tokens\":3,\"cache_read_input_"
     "tokens\":16}}",
     false, true, 21, 3, 16},
    {"{\"id\":\"resp_1\",\"usage\":{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":2},\"output_"
     "tokens\":6,"
     "\"output_tokens_details\":{\"reasoning_tokens\":1}}}",
     false, true, 5, 6, 2},
    {"{\"text\":\" "
     "Paris\",\"meta_info\":{\"id\":\"r1\",\"finish_reason\":{\"type\":\"length\",\"length\":8},\"prompt_tokens\":5,"
     "\"completion_tokens\":1,\"cached_tokens\":0}}",
     false, true, 5, 1, 0},
    {"{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":8,\"output_tokens\":2}}}",
     false, true, 8, 2, -1},
    {"{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":8,\"output_tokens\":1}}}",
     false, true, 8, 1, -1},
    /* SGLang's own, a batch: summed */
    {"[{\"text\":\"a\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"cached_tokens\":4}}, "
     "{\"meta_info\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"cached_tokens\":0},\"text\":\"b\",\"index\":1}]",
     false, true, 12, 5, 4},
    /* Triton's tells none */
    {"{\"id\":\"42\",\"model_name\":\"ensemble\",\"model_version\":\"1\",\"text_output\":\" "
     "Paris\",\"sequence_index\":0}",
     false, false, 0, 0, -1},
    /* tails of streams */
    {"put_ids\":[1],\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"cached_tokens\":4},\"index\":0}\n\n"
     "data: {\"text\":\"b\",\"meta_info\":{\"prompt_tokens\":7,\"completion_tokens\":1},\"index\":1}\n\n"
     "data: {\"text\":\"bb\",\"meta_info\":{\"prompt_tokens\":7,\"completion_tokens\":2},\"index\" : 1}\n\n"
     "data: {\"text\":\"aa\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"cached_tokens\":4}, "
     "\"index\":0}\n\ndata: [DONE]\n\n",
     true, true, 12, 5, 4},
    {"data: {\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\ndata: "
     "{\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":9}}\n\ndata: {\"meta_info\":{\"prompt_tok",
     true, true, 5, 9, -1},
    {"event: message_start\ndata: "
     "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":21,\"cache_read_input_tokens\":"
     "16,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: "
     "{\"type\":\"message_delta\",\"usage\":{\"output_tokens\":3}}\n\n",
     true, true, 21, 3, 16},
    {"event: response.completed\ndata: "
     "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"output\":[],\"usage\":{\"input_"
     "tokens\":8,\"input_tokens_details\":{\"cached_tokens\":6},\"output_tokens\":2}}}\n\ndata: [DONE]\n\n",
     true, true, 8, 2, 6},
    {"ces\":[],\"usage\":null}\n\ndata: "
     "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"total_tokens\":24,\"completion_tokens\":3}}\n\n"
     "data: [DONE]\n\n",
     true, true, 21, 3, -1},
    {"data: "
     "{\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: "
     "{\"choices\":[],"
     "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
     true, true, 1, 2, -1},
    {"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: "
     "{\"choices\":[],\"usage\":null}\n\ndata: [DONE]\n\n",
     true, true, 1, 2, -1},
    {"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: "
     "{\"choices\":[],\"usage\":{\"prompt_tok",
     true, true, 1, 2, -1},
    {"event: message_delta\ndata: "
     "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":21,"
     "\"output_tokens\":3}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
     true, true, 21, 3, -1},
    {"data: {\"text\":\"x\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"cached_tokens\":4}}\n\ndata: "
     "[DONE]\n\n",
     true, true, 5, 2, 4},
    {"data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}]}\n\ndata: [DONE]\n\n",
     true, false, 0, 0, -1},
    {"data: [\"usage\", {\"prompt_tokens\":9}]", true, false, 0, 0, -1},
    {"\"usage\":", true, false, 0, 0, -1},
    {"\"usage\"", true, false, 0, 0, -1},
};

static void check_usage(const struct usage_case *c, bool tail)
{
    struct api_usage u = {0};
    char *text = exact_copy(str_c(c->text));
    struct str s = {text, strlen(c->text)};
    bool got = tail ? api_usage_from_tail(s, &u) : api_usage_from_body(s, &u);
    if (got != c->found || u.found != c->found || u.prompt_tokens != c->prompt ||
        u.completion_tokens != c->completion || u.has_cached != (c->cached >= 0) ||
        (c->cached >= 0 && u.cached_tokens != (uint64_t)c->cached))
        fail_msg("%s: %d %lu %lu %lu", c->text, got, (unsigned long)u.prompt_tokens, (unsigned long)u.completion_tokens,
                 (unsigned long)u.cached_tokens);
    free(text);
}

static void usage_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(usage_cases); i++) {
        check_usage(&usage_cases[i], true);
        if (!usage_cases[i].tail)
            check_usage(&usage_cases[i], false);
    }
}

static void usage_adds_to_what_is_known(void **state)
{
    (void)state;
    struct api_usage u = {0}; /* Anthropic's own streams: input at the start, output at the end */
    assert_true(api_usage_from_body(
        STR("{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":8,\"cache_read_input_tokens\":3}}}"),
        &u));
    assert_true(api_usage_from_tail(STR("data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":5}}\n\n"), &u));
    assert_true(u.prompt_tokens == 8 && u.completion_tokens == 5 && u.cached_tokens == 3 && u.has_cached);
    assert_false(api_usage_from_body(STR("{\"usage\":{\"prompt_tokens\":1}} x"), &u));
    assert_int_equal(u.prompt_tokens, 8);
}

static void items_of_a_stream_are_bounded(void **state)
{
    (void)state;
    for (unsigned n = 63; n <= 66; n++) {
        struct api_usage u = {0};
        struct buf b;
        buf_init(&b, 1 << 16);
        for (unsigned round = 1; round <= 2; round++)
            for (unsigned i = 0; i < n; i++)
                buf_addf(&b, "data: {\"meta_info\":{\"prompt_tokens\":1,\"completion_tokens\":%u},\"index\":%u}\n\n",
                         round, i);
        assert_true(api_usage_from_tail(buf_str(&b), &u));
        assert_int_equal(u.prompt_tokens, n < 64 ? n : 64);
        assert_int_equal(u.completion_tokens, 2 * u.prompt_tokens);
        buf_free(&b);
    }
}

static void first_event_errors(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        unsigned want;
    } t[] = {
        {"{\"error\":{\"message\":\"m\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}", 500},
        {"{\"error\":{\"message\":\"The request queue is full.\",\"type\":\"x\",\"code\":503}}", 503},
        {"{\"error\":{\"code\":\"503\",\"message\":\"\"}}", 503},
        {"{\"object\":\"error\",\"message\":\"m\",\"type\":\"x\",\"param\":null,\"code\":503}", 503},
        {"{\"code\":502,\"object\":\"error\"}", 502},
        {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}", 503},
        {"{\"error\":{\"message\":\"m\",\"type\":\"BadRequestError\",\"code\":400}}", 0},
        {"{\"error\":{\"message\":\"m\",\"type\":\"NotFoundError\",\"code\":404}}", 0},
        {"{\"error\":{\"message\":\"m\",\"code\":429}}", 429},
        {"{\"error\":null,\"choices\":[]}", 0},
        {"{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
         "\"error\"}}]}",
         0},
        {"{\"type\":\"response.created\",\"response\":{\"error\":null,\"code\":500}}", 0},
        {"{\"error\":\"in ensemble 'ensemble', the queue is full\"}", 500}, /* Triton */
        {"{\"error\":\"x\",\"code\":400}", 0},
        {"{\"error\":\"\",\"text_output\":\"a\"}", 0},
        {"{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"m\"}}", 500}, /* Anthropic */
        {"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"m\"}}", 0},
        {"{\"error\":{\"message\":\"input is too long\"}}", 0}, /* SGLang's own: the request's fault */
        {"{\"text\":\"\",\"meta_info\":{\"id\":\"r\",\"finish_reason\":{\"type\":\"abort\",\"message\":\"The request "
         "queue is "
         "full.\",\"status_code\":503},\"code\":1}}",
         503},
        {"{\"text\":\"\",\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"m\",\"status_code\":400}}}",
         0},
        {"{\"text\":\"\",\"meta_info\":{\"finish_reason\":{\"type\":\"abort\"},\"status_code\":503}}", 0},
        {"{\"text\":\"\",\"meta_info\":{\"finish_reason\":{\"type\":\"length\",\"length\":503}}}", 0},
        {"{\"text\":\"\",\"meta_info\":{\"finish_reason\":null,\"error\":{\"code\":500}}}", 0},
        {"{\"x\":{\"error\":{\"code\":503}},\"code\":503}", 0},
        {"[DONE]", 0},
        {"", 0},
        {"{\"error\":{\"code\":500", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        if (api_first_event_error(str_c(t[i].data)) != t[i].want)
            fail_msg("%s: %u", t[i].data, api_first_event_error(str_c(t[i].data)));
}

static void response_ids(void **state)
{
    (void)state;
    assert_str(api_response_id(STR("{\"id\":\"resp_1\",\"object\":\"response\",\"output\":[")), "resp_1");
    assert_str(api_response_id(STR("{\"object\":\"response\",\"x\":{\"id\":\"no\"},\"id\":\"resp_2\"}")), "resp_2");
    assert_str(api_response_id(STR("{\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"object\":"
                                   "\"response\",\"id\":\"resp_3\"")),
               "resp_3");
    assert_int_equal(api_response_id(STR("{\"object\":\"response\"}")).n, 0);
    assert_int_equal(api_response_id(STR("nonsense")).n, 0);
    assert_int_equal(api_response_id(STR("{\"id\":5,\"x\":1}")).n, 0);
}

static void collect(void *ctx, struct str id, bool adapter)
{
    struct buf *b = ctx;
    buf_add_str(b, id);
    buf_add_str(b, adapter ? STR(" (adapter);") : STR(";"));
}

static void model_lists(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int rc;
        const char *ids;
    } t[] = {
        {"{\"object\":\"list\",\"data\":[{\"id\":\"Qwen/"
         "Qwen3-32B\",\"object\":\"model\",\"permission\":[{\"id\":\"p\"}]},"
         "{\"object\":\"model\",\"id\":\"sql-a\",\"parent\":\"Qwen\"}]}",
         0, "Qwen/Qwen3-32B;sql-a (adapter);"},
        {"{\"data\":[{\"id\":\"a\\u0062\\n\"}],\"object\":\"list\"}", 0, "ab\n;"},
        {"{\"data\":[{\"parent\":\"b\",\"id\":\"a\"},{\"id\":\"b\",\"parent\":null},{\"id\":\"c\",\"parent\":\"\"},"
         "{\"id\":\"d\",\"parent\":{\"id\":5}}]}",
         0, "a (adapter);b;c;d;"},
        {"{\"data\":[]}", 0, ""},
        {"{\"data\":[{\"object\":\"model\"}]}", 0, ""},
        {"{\"data\":[{\"id\":\"a\"},{\"id\":5}]}", -1, ""},
        {"{\"data\":[{\"id\":\"a\"},5]}", -1, ""},
        {"{\"data\":[{\"id\":\"a\"}]", -1, ""},
        {"{\"data\":[{\"id\":\"a\"}]} x", -1, ""},
        {"{\"data\":{}}", -1, ""},
        {"{\"object\":\"list\"}", -1, ""},
        {"[]", -1, ""},
        {"not found", -1, ""},
        {"", -1, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct buf b;
        buf_init(&b, 4096);
        int rc = api_models_each(str_c(t[i].body), collect, &b);
        if (rc != t[i].rc || !str_eq_c(buf_str(&b), t[i].ids))
            fail_msg("%s: %d %.*s", t[i].body, rc, STR_ARG(buf_str(&b)));
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_is_found),
        cmocka_unit_test(usage_adds_to_what_is_known),
        cmocka_unit_test(items_of_a_stream_are_bounded),
        cmocka_unit_test(first_event_errors),
        cmocka_unit_test(response_ids),
        cmocka_unit_test(model_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
