/* sandbox/recognise.c - splits shell text into commands and words, and knows how the model servers are started. */
#include "sandbox/recognise.h"

#define MAX_WORDS 512

const char *server_kind_name(enum server_kind k)
{
    static const char *const names[] = {"none", "vLLM", "SGLang", "Triton", "TensorRT-LLM"};
    return names[k];
}

static struct str base_name(struct str s)
{
    for (size_t i = s.n; i-- > 0;)
        if (s.p[i] == '/')
            return str_from(s, i + 1);
    return s;
}

/* NAME=value before a command */
static bool is_assignment(struct str w)
{
    ptrdiff_t eq = str_find(w, STR("="));
    if (eq <= 0 || w.p[0] == '-')
        return false;
    for (ptrdiff_t i = 0; i < eq; i++)
        if (!((w.p[i] >= 'A' && w.p[i] <= 'Z') || (w.p[i] >= 'a' && w.p[i] <= 'z') ||
              (w.p[i] >= '0' && w.p[i] <= '9') || w.p[i] == '_'))
            return false;
    return true;
}

static bool is_wrapper(struct str w)
{
    static const char *const wrappers[] = {"exec", "nohup", "env", "time", "sudo", "tini", "--", "dumb-init"};
    for (size_t i = 0; i < ARRAY_LEN(wrappers); i++)
        if (str_eq_c(base_name(w), wrappers[i]))
            return true;
    return false;
}

static enum server_kind module_kind(struct str m)
{
    if (str_starts(m, STR("vllm.entrypoints")))
        return SERVER_VLLM;
    if (str_starts(m, STR("sglang.launch_server")) || str_starts(m, STR("sglang.srt.server")) ||
        str_starts(m, STR("sglang.srt.entrypoints")))
        return SERVER_SGLANG;
    return SERVER_NONE;
}

/* The server that a single command starts; *skip: how many of its words are not options. */
static enum server_kind command_kind(const struct str *w, size_t n, size_t *skip)
{
    struct str cmd = base_name(w[0]);
    if (n >= 2 && str_eq_c(w[1], "serve")) {
        *skip = 2;
        if (str_eq_c(cmd, "vllm"))
            return SERVER_VLLM;
        if (str_eq_c(cmd, "sglang"))
            return SERVER_SGLANG;
    }
    *skip = 1;
    if (str_eq_c(cmd, "tritonserver"))
        return SERVER_TRITON;
    if (str_eq_c(cmd, "trtllm-serve")) {
        *skip += n >= 2 && str_eq_c(w[1], "serve");
        return SERVER_TRTLLM;
    }
    if (!str_starts(cmd, STR("python")))
        return SERVER_NONE;
    for (size_t i = 1; i < n; i++) {
        *skip = i + 1;
        if (str_eq_c(w[i], "-m") && i + 1 < n) {
            *skip = i + 2;
            return module_kind(w[i + 1]);
        }
        if (w[i].n && w[i].p[0] != '-')
            return str_eq_c(base_name(w[i]), "launch_triton_server.py") ? SERVER_TRITON : SERVER_NONE;
    }
    return SERVER_NONE;
}

static bool recognise_words(struct arena *a, const struct str *w, size_t n, struct recognised *out);

/* Reads one word of shell text at *p into the arena; false at the end of a command. Quotes and backslashes are
 * resolved, nothing is expanded: $(...) is part of its word. */
static bool shell_word(struct arena *a, struct str text, size_t *p, struct str *word)
{
    size_t i = *p, n = 0;
    bool any = false;
    while (i < text.n &&
           (text.p[i] == ' ' || text.p[i] == '\t' || (text.p[i] == '\\' && i + 1 < text.n && text.p[i + 1] == '\n')))
        i += text.p[i] == '\\' ? 2 : 1;
    char *out = arena_alloc(a, text.n - i + 1);
    for (; i < text.n && !strchr(" \t\n;|&", text.p[i]); i++) {
        any = true;
        if (text.p[i] == '\'' || text.p[i] == '"') {
            char q = text.p[i++];
            for (; i < text.n && text.p[i] != q; i++) {
                if (q == '"' && text.p[i] == '\\' && i + 1 < text.n)
                    i++;
                out[n++] = text.p[i];
            }
        } else if (text.p[i] == '$' && i + 1 < text.n && text.p[i + 1] == '(') {
            for (; i + 1 < text.n && text.p[i] != ')'; i++)
                out[n++] = text.p[i];
            out[n++] = text.p[i];
        } else if (text.p[i] == '\\' && i + 1 < text.n) {
            if (text.p[++i] != '\n')
                out[n++] = text.p[i];
        } else {
            out[n++] = text.p[i];
        }
    }
    *p = MIN(i, text.n);
    *word = (struct str){out, n};
    return any;
}

/* Commands that run the words after their own options. */
static bool is_launcher(struct str cmd)
{
    static const char *const launchers[] = {"mpirun",  "mpiexec", "trtllm-llmapi-launch",
                                            "numactl", "taskset", "timeout"};
    for (size_t i = 0; i < ARRAY_LEN(launchers); i++)
        if (str_eq_c(cmd, launchers[i]))
            return true;
    return false;
}

/* What a launcher launches: of several programs (mpirun, a colon between them) the first. */
static bool recognise_launched(struct arena *a, const struct str *w, size_t n, struct recognised *out)
{
    size_t skip, end = 1;
    while (end < n && !str_eq_c(w[end], ":"))
        end++;
    for (size_t i = 1; i < end; i++)
        if (command_kind(w + i, end - i, &skip) != SERVER_NONE)
            return recognise_words(a, w + i, end - i, out);
    return false;
}

/* An engine of several nodes answers HTTP at the first of them alone. */
static bool is_later_node(const struct str *argv, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct str v = argv[i];
        uint64_t rank;
        if (str_eq_c(v, "--headless"))
            return true;
        if (str_eq_c(v, "--node-rank") || str_eq_c(v, "--node_rank"))
            v = i + 1 < n ? argv[i + 1] : STR("");
        else if (str_starts(v, STR("--node-rank=")) || str_starts(v, STR("--node_rank=")))
            v = str_from(v, 12);
        else
            continue;
        return str_to_u64(v, &rank) && rank > 0;
    }
    return false;
}

/* Commands of a script one after the other, until one is a model server. */
static bool recognise_script(struct arena *a, struct str text, struct recognised *out)
{
    for (size_t p = 0; p < text.n; p++) {
        struct str words[MAX_WORDS], w;
        size_t n = 0;
        if (text.p[p] == '#')
            while (p < text.n && text.p[p] != '\n')
                p++;
        while (shell_word(a, text, &p, &w))
            if (n < MAX_WORDS && str_find(w, STR(">")) < 0)
                words[n++] = w;
        if (n && recognise_words(a, words, n, out))
            return true;
    }
    return false;
}

static bool recognise_words(struct arena *a, const struct str *w, size_t n, struct recognised *out)
{
    size_t skip = 0;
    while (n && (is_assignment(w[0]) || is_wrapper(w[0]))) {
        w++;
        n--;
    }
    if (!n)
        return false;
    struct str cmd = base_name(w[0]);
    if (str_eq_c(cmd, "sh") || str_eq_c(cmd, "bash") || str_eq_c(cmd, "dash") || str_eq_c(cmd, "ash"))
        for (size_t i = 1; i + 1 < n; i++)
            if (w[i].n >= 2 && w[i].p[0] == '-' && w[i].p[1] != '-' && memchr(w[i].p, 'c', w[i].n))
                return recognise_script(a, w[i + 1], out);
    if (is_launcher(cmd))
        return recognise_launched(a, w, n, out);
    out->kind = command_kind(w, n, &skip);
    if (out->kind == SERVER_NONE)
        return false;
    out->n = n - skip;
    out->argv = arena_alloc(a, (out->n + 1) * sizeof(*out->argv));
    for (size_t i = 0; i < out->n; i++)
        out->argv[i] = arena_str(a, w[skip + i]);
    out->later_node = is_later_node(out->argv, out->n);
    return true;
}

bool recognise(struct arena *a, const struct str *argv, size_t n, struct recognised *out)
{
    *out = (struct recognised){0};
    return recognise_words(a, argv, n, out);
}
