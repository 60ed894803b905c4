/* The options of the real server as the documents write them, and what is refused. */
#include "sim/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static unsigned notes;

static void note(void *ctx, const char *text)
{
    (void)ctx;
    (void)text;
    notes++;
}

static int parse(struct sim_options *o, const char *line, struct errbuf *err)
{
    struct str argv[64];
    size_t n = 0;
    sim_options_init(o);
    o->note = note;
    notes = 0;
    for (const char *p = line; *p;) {
        size_t k = strcspn(p, " ");
        argv[n++] = (struct str){p, k};
        p += k + (p[k] == ' ');
    }
    return sim_options_parse(o, argv, n, err);
}

static void as_the_documents_write(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    assert_int_equal(
        parse(
            &o,
            "/models/Qwen-2.5-7B-Instruct --port 8000 --enable_prefix_caching --trust-remote-code --served-model-name "
            "/model/qwen --max-model-len 8192 --gpu-memory-utilization 0.95 --enforce-eager --enable-lora --max-loras "
            "2 "
            "--max-cpu-loras 4 --lora-modules travel-helper-v1=/models/Qwen-TravelHelper-Lora "
            "travel-helper-v2=/models/Qwen-TravelHelper-Lora-v2",
            &err),
        0);
    assert_true(str_eq_c(o.model, "/models/Qwen-2.5-7B-Instruct"));
    assert_int_equal(o.n_names, 1);
    assert_true(str_eq_c(o.names[0], "/model/qwen"));
    assert_int_equal(o.port, 8000);
    assert_int_equal(o.max_model_len, 8192);
    assert_true(o.memory_frac > 0.949 && o.memory_frac < 0.951);
    assert_true(o.enable_lora && o.prefix_caching);
    assert_int_equal(o.max_loras, 2);
    assert_int_equal(o.max_cpu_loras, 4);
    assert_int_equal(o.n_loras, 2);
    assert_true(str_eq_c(o.loras[1].name, "travel-helper-v2"));
    assert_true(str_eq_c(o.loras[1].path, "/models/Qwen-TravelHelper-Lora-v2"));
    assert_int_equal(notes, 2);
    sim_options_free(&o);
}

static void spellings(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    assert_int_equal(parse(&o,
                           "--model=m --served_model_name a b --tensor-parallel-size=2 --no-enable-prefix-caching "
                           "--tool-call-parser hermes "
                           "--lora-modules {\"name\":\"x\",\"path\":\"/p\"} --enable-lora -tp 4 --lora-load-ms 12.5",
                           &err),
                     0);
    assert_int_equal(o.n_names, 2);
    assert_int_equal(o.tp, 2);
    assert_false(o.prefix_caching);
    assert_int_equal(o.n_loras, 1);
    assert_true(str_eq_c(o.loras[0].name, "x"));
    assert_int_equal(o.max_loras, 1);
    assert_int_equal(o.lora_load_us, 12500);
    assert_int_equal(o.lora_read_us, 150000);
    assert_true(str_eq_c(o.model, "m"));
    sim_options_free(&o);
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"--port 70000",
                                      "--port x",
                                      "--max-model-len",
                                      "--max-model-len --jitter",
                                      "--lora-modules a=b",
                                      "--enable-lora --lora-modules nothing",
                                      "--metrics v2",
                                      "--gpu-memory-utilization 0",
                                      "--jitter=1",
                                      "--gpu-memory-utilization 1.5",
                                      "--block-size 0",
                                      "--tensor-parallel-size 0",
                                      "--time-scale nan",
                                      "--enable-lora --max-loras 4 --max-cpu-loras 2",
                                      "--lora-load-ms -1",
                                      "--lora-read-ms fast",
                                      "--dialect tgi",
                                      "--disaggregation-mode prefill",
                                      "--dialect",
                                      "--dialect sglang --disaggregation-mode both",
                                      "--data-parallel-size 0",
                                      "--data-parallel-size 65",
                                      "--kv-transfer-config no",
                                      "--kv-transfer-config {\"kv_load_failure_policy\":\"try\"}",
                                      "--kv-transfer-config {\"kv_connector_extra_config\":{\"kv_lease_duration\":0}}",
                                      "--dialect sglang --kv-transfer-config {\"kv_connector\":\"NixlConnector\"}",
                                      "--allow-metrics maybe",
                                      "--kv-transfer-gbps 0",
                                      "--disaggregation-bootstrap-port 70000"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct sim_options o;
        struct errbuf err = {""};
        if (parse(&o, bad[i], &err) != -1)
            fail_msg("%s was accepted", bad[i]);
        assert_true(strlen(err.msg) > 10);
        sim_options_free(&o);
    }
}

static void sglang(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    assert_int_equal(
        parse(&o,
              "--dialect sglang --model-path /models/Qwen3-32B --served-model-name qwen --context-length 8192 "
              "--mem-fraction-static 0.8 --page-size 64 --max-running-requests 32 --chunked-prefill-size 4096 "
              "--tp 2 --dp-size 3 --disaggregation-mode prefill --disaggregation-bootstrap-port 34000 "
              "--enable-metrics --max-queued-requests 9 --enable-cache-report --trust-remote-code "
              "--disaggregation-transfer-backend mooncake --lora-paths a=/a",
              &err),
        0);
    assert_int_equal(o.dialect, SIM_SGLANG);
    assert_int_equal(o.role, SIM_PREFILL);
    assert_int_equal(o.port, 30000);
    assert_int_equal(o.bootstrap_port, 34000);
    assert_int_equal(o.max_model_len, 8192);
    assert_int_equal(o.block_size, 64);
    assert_int_equal(o.max_num_seqs, 32);
    assert_int_equal(o.max_batched_tokens, 4096);
    assert_int_equal(o.max_queued, 9);
    assert_int_equal(o.tp, 2);
    assert_int_equal(o.dp, 3);
    assert_true(o.expose_metrics && o.prompt_tokens_details && o.enable_lora);
    assert_true(str_eq_c(o.model, "/models/Qwen3-32B"));
    assert_int_equal(notes, 2);
    sim_options_free(&o);
    assert_int_equal(parse(&o, "--port 8000 --chunked-prefill-size -1 m --dialect=sglang", &err), 0);
    assert_int_equal(o.port, 8000);
    assert_int_equal(o.block_size, 1);
    assert_int_equal(o.bootstrap_port, 8998);
    assert_true(o.max_batched_tokens > 1000000 && !o.expose_metrics && o.role == SIM_UNIFIED);
    sim_options_free(&o);
}

static void given_by_the_caller(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    struct str argv[] = {STR("--disaggregation-mode"), STR("decode")};
    sim_options_init(&o);
    o.dialect = SIM_SGLANG;
    o.port = 0;
    assert_int_equal(sim_options_parse(&o, argv, 2, &err), 0);
    assert_int_equal(o.port, 0); /* none was named */
    assert_int_equal(o.role, SIM_DECODE);
    sim_options_free(&o);
}

static void triton_and_trtllm(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    assert_int_equal(parse(&o,
                           "--dialect triton --model_repo=/repo --world_size 2 --http_port 8010 --metrics_port 8012 "
                           "--grpc_port 8011 --allow-metrics 1 --metrics-interval-ms 1000",
                           &err),
                     0);
    assert_int_equal(o.port, 8010);
    assert_int_equal(o.metrics_port, 8012);
    assert_int_equal(o.tp, 2);
    assert_int_equal(o.block_size, 64);
    assert_true(o.expose_metrics && str_eq_c(o.model, "/repo"));
    sim_options_free(&o);
    assert_int_equal(parse(&o, "--dialect triton --allow-metrics false", &err), 0);
    assert_true(!o.expose_metrics && o.metrics_port == 8002);
    sim_options_free(&o);
    assert_int_equal(parse(&o, "serve meta/Llama-3.1-8B --dialect trtllm --tp_size 4 --max_seq_len 4096", &err), 0);
    assert_true(str_eq_c(o.model, "meta/Llama-3.1-8B"));
    assert_int_equal(o.tp, 4);
    assert_int_equal(o.max_model_len, 4096);
    sim_options_free(&o);
}

static void nixl(void **state)
{
    (void)state;
    struct sim_options o;
    struct errbuf err;
    assert_int_equal(
        parse(&o,
              "m --kv-transfer-config {\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\","
              "\"kv_load_failure_policy\":\"recompute\",\"kv_connector_extra_config\":{\"kv_lease_duration\":"
              "30}} --data-parallel-size 4 --data-parallel-rank 2 --side-channel-port 6000",
              &err),
        0);
    assert_true(o.nixl && o.kv_recompute && o.kv_lease_us == 30000000);
    assert_int_equal(o.side_channel_port, 6000);
    assert_int_equal(o.dp, 1);
    assert_int_equal(o.dp_first, 2);
    sim_options_free(&o);
    assert_int_equal(parse(&o, "m --kv-transfer-config {\"kv_connector\":\"LMCacheConnectorV1\"}", &err), 0);
    assert_true(!o.nixl && o.kv_lease_us == 480000000 && o.dp == 1 && o.dp_first == 0);
    sim_options_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_documents_write),
        cmocka_unit_test(spellings),
        cmocka_unit_test(refused),
        cmocka_unit_test(sglang),
        cmocka_unit_test(given_by_the_caller),
        cmocka_unit_test(triton_and_trtllm),
        cmocka_unit_test(nixl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
