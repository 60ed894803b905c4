/* Which commands of containers are model servers, and what their options are. */
#include "sandbox/recognise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static const struct sample {
    const char *argv[8]; /* NULL-terminated */
    enum server_kind kind;
    const char *joined; /* the options, separated by '|' */
} samples[] = {
    {{"vllm", "serve", "/m", "--port", "8000", NULL}, SERVER_VLLM, "/m|--port|8000"},
    {{"/usr/local/bin/vllm", "serve", "m", NULL}, SERVER_VLLM, "m"},
    {{"sh", "-c", "vllm serve /models/Qwen --port 8000 --enable-lora --lora-modules a=/x b=/y", NULL},
     SERVER_VLLM,
     "/models/Qwen|--port|8000|--enable-lora|--lora-modules|a=/x|b=/y"},
    {{"/bin/bash", "-lc",
      "export A=1; ulimit -n 65536 && exec vllm serve 'my model' --x \"a \\\"b\\\"\" 2>&1 | tee /log", NULL},
     SERVER_VLLM,
     "my model|--x|a \"b\""},
    {{"sh", "-c", "# start\nray start --head --port 6379 && vllm serve m \\\n  --tensor-parallel-size 2", NULL},
     SERVER_VLLM,
     "m|--tensor-parallel-size|2"},
    {{"sh", "-c", "VLLM_USE_V1=1 HF_HOME=/c nohup python3 -m vllm.entrypoints.openai.api_server --model m &", NULL},
     SERVER_VLLM,
     "--model|m"},
    {{"python3", "-m", "sglang.launch_server", "--model-path", "/m", NULL}, SERVER_SGLANG, "--model-path|/m"},
    {{"sh", "-c", "python3 -u -m sglang.launch_server --tp 2", NULL}, SERVER_SGLANG, "--tp|2"},
    {{"tritonserver", "--model-repository=/models", NULL}, SERVER_TRITON, "--model-repository=/models"},
    {{"python3", "/app/scripts/launch_triton_server.py", "--world_size", "1", NULL}, SERVER_TRITON, "--world_size|1"},
    {{"trtllm-serve", "m", NULL}, SERVER_TRTLLM, "m"},
    {{"sh", "-c",
      "python3 fill_template.py -i x && mpirun --allow-run-as-root -n 1 /opt/tritonserver/bin/tritonserver "
      "--model-repository=/m : -n 1 tritonserver --x",
      NULL},
     SERVER_TRITON,
     "--model-repository=/m"},
    {{"trtllm-llmapi-launch", "trtllm-serve", "serve", "m", "--tp_size", "2", NULL}, SERVER_TRTLLM, "m|--tp_size|2"},
    {{"sh", "-c", "HOST=$(hostname -i) vllm serve m --x $(cat /f g)", NULL}, SERVER_VLLM, "m|--x|$(cat /f g)"},
    {{"mpirun", "-n", "2", "sleep", NULL}, SERVER_NONE, ""},
    {{"python3", "-m", "sglang.launch_server", "--node-rank=0", NULL}, SERVER_SGLANG, "--node-rank=0"},
    {{"python3", "-m", "sglang.srt.disaggregation.mini_lb", "--prefill", "http://a", NULL}, SERVER_NONE, ""},
    {{"python3", "-m", "sglang_router.launch_router", "--pd-disaggregation", NULL}, SERVER_NONE, ""},
    {{"sh", "-c", "ray start --address $(LWS_LEADER_ADDRESS):6379 --block", NULL}, SERVER_NONE, ""},
    {{"sh", "-c", "sleep inf", NULL}, SERVER_NONE, ""},
    {{"python3", "serve.py", "vllm", NULL}, SERVER_NONE, ""},
    {{"vllm", "bench", "serve", NULL}, SERVER_NONE, ""},
    {{"sh", "-c", "echo vllm serve", NULL}, SERVER_NONE, ""},
    {{"sh", "-c", "", NULL}, SERVER_NONE, ""},
    {{"sh", NULL}, SERVER_NONE, ""},
    {{"sh", "-c", "vllm serve 'unfinished", NULL}, SERVER_VLLM, "unfinished"},
    {{NULL}, SERVER_NONE, ""},
};

static void commands(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        struct str argv[8];
        struct arena a;
        struct recognised r;
        size_t n = 0;
        char joined[512] = "";
        arena_init(&a, 256);
        while (samples[i].argv[n]) {
            argv[n] = str_c(samples[i].argv[n]);
            n++;
        }
        bool found = recognise(&a, argv, n, &r);
        assert_int_equal(r.kind, samples[i].kind);
        assert_int_equal(found, r.kind != SERVER_NONE);
        for (size_t k = 0; found && k < r.n; k++)
            (void)snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s" STR_FMT, k ? "|" : "",
                           STR_ARG(r.argv[k]));
        assert_string_equal(joined, samples[i].joined);
        arena_free(&a);
    }
}

/* Nodes after the first of an engine that spans several have no HTTP. */
static void later_nodes(void **state)
{
    static const struct {
        const char *command;
        bool later;
    } rows[] = {{"sglang serve --nnodes 2 --node-rank 1", true},
                {"sglang serve --nnodes 2 --node_rank=3 --tp 4", true},
                {"sglang serve --nnodes 2 --node-rank 0", false},
                {"sglang serve --nnodes 2 --node-rank=0", false},
                {"sglang serve --node-rank $(LWS_WORKER_INDEX)", false},
                {"sglang serve --node-rank", false},
                {"vllm serve m --headless", true},
                {"vllm serve m", false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct str argv[] = {STR("sh"), STR("-c"), str_c(rows[i].command)};
        struct arena a;
        struct recognised r;
        arena_init(&a, 256);
        assert_true(recognise(&a, argv, 3, &r));
        assert_int_equal(r.later_node, rows[i].later);
        arena_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(commands), cmocka_unit_test(later_nodes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
