/* cli/cli.c - parses the options of a subcommand by its table, and prints usage. */
#include "cli/cli.h"
#include "base/duration.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int name_len(const struct cli_command *c)
{
    return (int)strcspn(c->synopsis, " ");
}

int cli_usage_error(const struct cli_command *c, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "penstock %.*s: ", name_len(c), c->synopsis);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry: penstock %.*s --help\n", name_len(c), c->synopsis);
    return 2;
}

static void print_option(const struct cli_opt *o)
{
    char left[64], letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    printf("  %-30s %s\n", left, o->help);
}

static int print_help(const struct cli_command *c)
{
    static const struct cli_opt help = {"help", 'h', NULL, "show this text", CLI_FLAG, NULL};
    printf("Usage: penstock %s\n\n%s\n\nOptions:\n", c->synopsis, c->about);
    for (const struct cli_opt *o = c->opts; o->name; o++)
        print_option(o);
    print_option(&help);
    return fflush(stdout) == 0 ? 0 : 1;
}

static void list_add(struct cli_list *l, const char *s)
{
    l->v = xrealloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = s;
}

void cli_list_free(struct cli_list *l)
{
    free(l->v);
    l->v = NULL;
    l->n = 0;
}

static bool store_double(const char *text, double *out)
{
    double v;
    if (!str_to_double(str_c(text), &v) || !isfinite(v))
        return false;
    *out = v;
    return true;
}

static bool store_duration(const char *text, uint64_t *out)
{
    int64_t ns;
    if (!duration_parse(str_c(text), &ns) || ns < 0)
        return false;
    *out = (uint64_t)ns / 1000;
    return true;
}

/* False when the text is no value of the option's kind. */
static bool store(const struct cli_opt *o, const char *text)
{
    switch (o->kind) {
    case CLI_STR:
        *(const char **)o->out = text;
        return true;
    case CLI_U64:
        return str_to_u64(str_c(text), (uint64_t *)o->out);
    case CLI_DOUBLE:
        return store_double(text, o->out);
    case CLI_DURATION:
        return store_duration(text, o->out);
    case CLI_LIST:
        list_add(o->out, text);
        return true;
    case CLI_FLAG:
        *(bool *)o->out = true;
        return true;
    }
    return false;
}

static const char *kind_name(enum cli_kind k)
{
    static const char *const names[] = {
        [CLI_U64] = "a whole number", [CLI_DOUBLE] = "a number", [CLI_DURATION] = "a duration such as 300ms"};
    return names[k];
}

static const struct cli_opt *find_long(const struct cli_command *c, struct str name)
{
    for (const struct cli_opt *o = c->opts; o->name; o++)
        if (str_eq_c(name, o->name))
            return o;
    return NULL;
}

static const struct cli_opt *find_letter(const struct cli_command *c, char letter)
{
    for (const struct cli_opt *o = c->opts; o->name; o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

/* One option at argv[*i]; takes the next argument as its value when it needs one. CLI_GO or the exit code. */
static int parse_option(const struct cli_command *c, int argc, char **argv, int *i)
{
    const char *a = argv[*i], *value = NULL;
    const struct cli_opt *o;
    if (!strcmp(a, "--help") || !strcmp(a, "-h"))
        return print_help(c);
    if (a[1] == '-') {
        const char *eq = strchr(a, '=');
        o = find_long(c, (struct str){a + 2, eq ? (size_t)(eq - a) - 2 : strlen(a) - 2});
        value = eq ? eq + 1 : NULL;
    } else {
        o = find_letter(c, a[1]);
        value = a[2] ? a + 2 : NULL;
    }
    if (!o)
        return cli_usage_error(c, "unknown option %s", a);
    if (o->kind == CLI_FLAG && value)
        return cli_usage_error(c, "--%s takes no value", o->name);
    if (o->kind != CLI_FLAG && !value) {
        if (*i + 1 >= argc)
            return cli_usage_error(c, "--%s needs a value (%s)", o->name, o->arg);
        value = argv[++*i];
    }
    if (!store(o, value))
        return cli_usage_error(c, "--%s: \"%s\" is not %s", o->name, value, kind_name(o->kind));
    return CLI_GO;
}

int cli_parse(const struct cli_command *c, int argc, char **argv, struct cli_list *rest)
{
    bool options = true;
    for (int i = 1; i < argc; i++) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
            continue;
        }
        if (options && argv[i][0] == '-' && argv[i][1]) {
            int rc = parse_option(c, argc, argv, &i);
            if (rc != CLI_GO)
                return rc;
            continue;
        }
        if (!rest)
            return cli_usage_error(c, "unexpected argument \"%s\"", argv[i]);
        list_add(rest, argv[i]);
    }
    return CLI_GO;
}
