/* cli/check.c - `penstock check`: validates manifests and explains what they do, without starting anything. */
#include "base/json.h"
#include "cli/cli.h"
#include "conf/conf.h"

#include <stdio.h>

#define OUT_MAX (256u << 20)

static const char *severity_name(enum conf_severity s)
{
    static const char *const names[] = {"info", "warning", "error"};
    return names[s];
}

static void add_workloads(const struct conf_store *s, struct buf *out)
{
    const struct conf_workload *v;
    uint32_t n = conf_workloads(s, &v);
    for (uint32_t i = 0; i < n; i++) {
        buf_addf(out, STR_FMT " " STR_FMT "/" STR_FMT ": %u x ", STR_ARG(v[i].kind), STR_ARG(v[i].ns),
                 STR_ARG(v[i].name), v[i].replicas);
        if (v[i].group_size > 1)
            buf_addf(out, "(leader + %u workers) x ", v[i].group_size - 1);
        for (uint32_t k = 0; k < v[i].n_argv; k++)
            buf_addf(out, "%s" STR_FMT, k ? " " : "", STR_ARG(str_first(v[i].argv[k], 200)));
        buf_addf(out, " (" STR_FMT ")\n", STR_ARG(v[i].source));
    }
}

static void report_text(const struct conf_report *rep, const struct conf_store *s, const struct conf *c,
                        struct buf *out)
{
    for (uint32_t i = 0; i < rep->n; i++) {
        char line[2048];
        conf_note_format(&rep->v[i], line, sizeof line);
        buf_addf(out, "%s\n", line);
    }
    if (rep->dropped)
        buf_addf(out, "%u more findings\n", rep->dropped);
    if (rep->n)
        buf_addf(out, "\n");
    conf_explain(c, out);
    add_workloads(s, out);
    buf_addf(out, "\n%u errors, %u warnings\n", rep->errors, rep->warnings);
}

static void write_note(struct jsonw *w, const struct conf_note *n)
{
    const struct str texts[] = {n->file, n->object, n->field, n->text};
    static const char *const keys[] = {"file", "object", "field", "text"};
    jsonw_obj(w);
    jsonw_key(w, "severity");
    jsonw_cstr(w, severity_name(n->severity));
    jsonw_key(w, "line");
    jsonw_u64(w, n->line);
    jsonw_key(w, "column");
    jsonw_u64(w, n->col);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        jsonw_key(w, keys[i]);
        jsonw_str(w, texts[i]);
    }
    jsonw_obj_end(w);
}

static void report_json(const struct conf_report *rep, const struct conf *c, struct buf *out)
{
    struct buf config;
    struct jsonw w;
    buf_init(&config, OUT_MAX);
    conf_json(c, &config);
    jsonw_init(&w, out);
    jsonw_obj(&w);
    jsonw_key(&w, "errors");
    jsonw_u64(&w, rep->errors);
    jsonw_key(&w, "warnings");
    jsonw_u64(&w, rep->warnings);
    jsonw_key(&w, "findings");
    jsonw_arr(&w);
    for (uint32_t i = 0; i < rep->n; i++)
        write_note(&w, &rep->v[i]);
    jsonw_arr_end(&w);
    jsonw_key(&w, "config");
    jsonw_raw(&w, buf_str(&config));
    jsonw_obj_end(&w);
    buf_addf(out, "\n");
    buf_free(&config);
}

static int check_paths(const struct cli_list *paths, bool json)
{
    struct conf_report rep = {0};
    struct conf_store *s = conf_store_new();
    struct buf out;
    int rc = conf_store_load(s, paths->v, paths->n, &rep);
    struct conf *c = conf_build(s, NULL, &rep);
    buf_init(&out, OUT_MAX);
    if (json)
        report_json(&rep, c, &out);
    else
        report_text(&rep, s, c, &out);
    bool written = fwrite(out.p + out.off, 1, out.n, stdout) == out.n && fflush(stdout) == 0;
    rc = rc < 0 || rep.errors || !written ? 1 : 0;
    buf_free(&out);
    conf_unref(c);
    conf_store_free(s);
    conf_report_free(&rep);
    return rc;
}

int cli_check(int argc, char **argv)
{
    struct cli_list paths = {0};
    const char *format = "text";
    const struct cli_opt opts[] = {
        {"file", 'f', "FILE|DIR", "manifests, YAML or JSON; may be given several times", CLI_LIST, &paths},
        {"format", 0, "text|json", "form of the report (default text)", CLI_STR, &format},
        {0},
    };
    const struct cli_command cmd = {
        "check -f FILE|DIR... [--format text|json]",
        "Validates manifests and explains what they do: listeners, routes, backends, pools with their settings, "
        "models.\n"
        "Exit code 0 when nothing is wrong (warnings allowed), 1 when something is, 2 on wrong usage.",
        opts};
    int rc = cli_parse(&cmd, argc, argv, &paths);
    bool json = !strcmp(format, "json");
    if (rc == CLI_GO && !json && strcmp(format, "text"))
        rc = cli_usage_error(&cmd, "--format is text or json, not \"%s\"", format);
    if (rc == CLI_GO && paths.n == 0)
        rc = cli_usage_error(&cmd, "no manifests given: -f FILE");
    if (rc == CLI_GO)
        rc = check_paths(&paths, json);
    cli_list_free(&paths);
    return rc;
}
