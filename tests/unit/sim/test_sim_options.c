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
    static const char *const bad[] = {"--port 70000",       "--port x",
                                      "--max-model-len",    "--max-model-len --jitter",
                                      "--lora-modules a=b", "--enable-lora --lora-modules nothing",
                                      "--metrics v2",       "--gpu-memory-utilization 0",
                                      "--jitter=1",         "--gpu-memory-utilization 1.5",
                                      "--block-size 0",     "--tensor-parallel-size 0",
                                      "--time-scale nan",   "--enable-lora --max-loras 4 --max-cpu-loras 2",
                                      "--lora-load-ms -1",  "--lora-read-ms fast"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct sim_options o;
        struct errbuf err = {""};
        if (parse(&o, bad[i], &err) != -1)
            fail_msg("%s was accepted", bad[i]);
        assert_true(strlen(err.msg) > 10);
        sim_options_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_documents_write),
        cmocka_unit_test(spellings),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
