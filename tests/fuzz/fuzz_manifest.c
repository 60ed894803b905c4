/* fuzz_manifest.c - manifest text (YAML or JSON) -> objects -> snapshot -> explanation, JSON and a request routed; then
 * the same text damaged and loaded again over it, as a reload does. */
#include "conf/conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct conf *c, struct buf *out)
{
    struct conf_route_req rq = {.host = STR("a.example.com"),
                                .path = STR("/v1/chat/completions"),
                                .query = STR("k=v&x=y"),
                                .method = STR("POST"),
                                .model = STR("qwen")};
    buf_clear(out);
    conf_explain(c, out);
    buf_clear(out);
    conf_json(c, out);
    for (uint32_t i = 0; i < c->n_listeners; i++) {
        const struct conf_match *m = conf_route(&c->listeners[i], &rq);
        if (m)
            (void)conf_draw_backend(m->rule, 0.5);
    }
    for (uint32_t i = 0; i < c->n_backends; i++) {
        const struct conf_backend *b = &c->backends[i];
        for (uint32_t k = 0; k < b->n_models; k++)
            (void)conf_draw_target(&b->models[k], 0.5);
        for (uint32_t k = 0; k < b->n_objectives; k++)
            CHECK(conf_find_objective(b, b->objectives[k].name) == &b->objectives[k]);
        for (uint32_t k = 0; k < b->n_rewrites; k++)
            CHECK(conf_find_rewrite(b, b->rewrites[k].model) == &b->rewrites[k] &&
                  conf_draw_rewrite(&b->rewrites[k], 0.5).n > 0);
        for (uint32_t k = 0; k < b->sched.n_flow_weights; k++)
            CHECK(b->sched.flow_weights[k].weight > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_store *s = conf_store_new();
    struct conf_report rep = {0};
    struct conf *c = NULL;
    struct buf out;
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    buf_init(&out, 64 << 20);
    for (int round = 0; round < 2; round++) {
        const struct conf_workload *w;
        conf_store_load_text(s, "fuzz.yaml", (struct str){text, size}, &rep);
        struct conf *next = conf_build(s, c, &rep);
        conf_unref(c);
        c = next;
        use(c, &out);
        (void)conf_workloads(s, &w);
        if (size)
            text[size / 2] = ':';
    }
    for (uint32_t i = 0; i < rep.n; i++) {
        char line[256];
        conf_note_format(&rep.v[i], line, sizeof line);
    }
    buf_free(&out);
    conf_unref(c);
    conf_store_free(s);
    conf_report_free(&rep);
    free(text);
    return 0;
}
