/* bench/dataset_file.c - data sets from files: ShareGPT conversations (JSON or JSON Lines) and prompts of one's own
 * (JSON Lines). */
#include "bench/dataset.h"

#include "base/json.h"
#include "bench/words.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROMPT_MIN 4 /* what the engine's client takes of ShareGPT, tokens */
#define PROMPT_MAX 1024
#define TOTAL_MAX  2048

/* ---- reading ---- */

static bool read_all(struct buf *out, int fd, const char *path, struct errbuf *err)
{
    for (;;) {
        char *p = buf_reserve(out, 1u << 20);
        if (!p)
            return err_set(err, "%s is longer than %llu bytes.", path, DATASET_MAX_FILE) == 0;
        ssize_t n = read(fd, p, 1u << 20);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, "%s cannot be read: %s.", path, strerror(errno)) == 0;
        if (n == 0)
            return true;
        buf_commit(out, (size_t)n);
    }
}

static bool read_gz(struct buf *out, const char *path, struct errbuf *err)
{
    int ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(err, "%s cannot be read: %s.", path, strerror(errno)) == 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(ends[1], 1) >= 0)
            execlp("gzip", "gzip", "-dc", "--", path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    bool ok = pid > 0 ? read_all(out, ends[0], path, err)
                      : err_set(err, "%s cannot be unpacked: %s.", path, strerror(errno)) == 0;
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (ok && status)
        ok = err_set(err, "%s cannot be unpacked%s.", path,
                     WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ": there is no gzip" : "") == 0;
    return ok;
}

bool dataset_read(struct buf *out, const char *path, struct errbuf *err)
{
    buf_init(out, DATASET_MAX_FILE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, "%s cannot be opened: %s.", path, strerror(errno)) == 0;
    bool ok = str_ends(str_c(path), STR(".gz")) ? read_gz(out, path, err) : read_all(out, fd, path, err);
    close(fd);
    return ok;
}

bool data_line_next(struct data_line *l)
{
    while (l->rest.n) {
        const char *nl = memchr(l->rest.p, '\n', l->rest.n);
        size_t n = nl ? (size_t)(nl - l->rest.p) : l->rest.n;
        l->line = str_first(l->rest, n);
        l->rest = str_from(l->rest, n + (nl ? 1 : 0));
        l->no++;
        while (l->line.n && (l->line.p[l->line.n - 1] == '\r' || l->line.p[l->line.n - 1] == ' '))
            l->line.n--;
        if (l->line.n)
            return true;
    }
    return false;
}

/* ---- conversations ---- */

enum role { ROLE_OTHER, ROLE_USER, ROLE_ANSWER };
struct message {
    enum role role;
    struct str raw;
};
#define MESSAGES_MAX 10000 /* of one conversation; the rest is not looked at */
struct talk {              /* one conversation as the file has it */
    struct message v[MESSAGES_MAX];
    uint32_t n;
};
/* Makes requests of a conversation; false when the data set is full. */
typedef bool talk_fn(struct dataset *d, const struct dataset_opts *o, const struct talk *t);

static enum role role_of(struct str s)
{
    static const char *const users[] = {"human", "user"}, *const answers[] = {"gpt",  "assistant", "chatgpt",
                                                                              "bing", "bard",      "model"};
    for (size_t i = 0; i < ARRAY_LEN(users); i++)
        if (str_eq_c(s, users[i]))
            return ROLE_USER;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++)
        if (str_eq_c(s, answers[i]))
            return ROLE_ANSWER;
    return ROLE_OTHER;
}

static bool is_one_of(struct str key, const char *a, const char *b, const char *c)
{
    return str_eq_c(key, a) || str_eq_c(key, b) || (c && str_eq_c(key, c));
}

/* The scanner stands behind the '{' of a message. */
static bool take_message(struct json *j, struct talk *t)
{
    struct message m = {ROLE_OTHER, STR_NULL};
    enum json_type type;
    while ((type = json_next(j)) == JSON_KEY) {
        struct str key = j->tok;
        bool role = is_one_of(key, "from", "role", NULL), text = is_one_of(key, "value", "content", "text");
        if (!role && !text) {
            if (!json_skip(j))
                return false;
            continue;
        }
        struct json before = *j;
        type = json_next(j);
        if (type == JSON_STRING && role) {
            m.role = role_of(j->tok);
        } else if (type == JSON_STRING) {
            m.raw = j->tok;
        } else {
            *j = before;
            if (!json_skip(j))
                return false;
        }
    }
    if (type == JSON_OBJ_END && t->n < MESSAGES_MAX)
        t->v[t->n++] = m;
    return type == JSON_OBJ_END;
}

/* The scanner stands before the value of "conversations". Anything but an array of objects is no conversation. */
static bool take_messages(struct json *j, struct talk *t)
{
    struct json before = *j;
    enum json_type type = json_next(j);
    if (type != JSON_ARR) {
        *j = before;
        return json_skip(j);
    }
    for (;;) {
        before = *j;
        type = json_next(j);
        if (type == JSON_ARR_END)
            return true;
        if (type == JSON_OBJ) {
            if (!take_message(j, t))
                return false;
        } else {
            *j = before;
            if (!json_skip(j))
                return false;
        }
    }
}

/* The scanner stands behind the '{' of a conversation. */
static bool take_talk(struct json *j, struct talk *t)
{
    enum json_type type;
    t->n = 0;
    while ((type = json_next(j)) == JSON_KEY) {
        bool ok = is_one_of(j->tok, "conversations", "messages", "conversation") ? take_messages(j, t) : json_skip(j);
        if (!ok)
            return false;
    }
    return type == JSON_OBJ_END;
}

static bool bad_json(const struct json *j, unsigned line_no, const struct dataset_opts *o, struct errbuf *err)
{
    unsigned line, col;
    json_where(j, j->p, &line, &col);
    return err_set(err, "%s:%u:%u: %s.", o->path, line_no ? line_no : line, col,
                   j->error ? j->error : "not an object") == 0;
}

static bool talks_of_array(struct dataset *d, const struct dataset_opts *o, talk_fn *fn, struct talk *t,
                           struct errbuf *err)
{
    struct json j;
    json_init(&j, buf_str(&d->file));
    enum json_type type = json_next(&j);
    while ((type = json_next(&j)) == JSON_OBJ) {
        if (!take_talk(&j, t))
            return bad_json(&j, 0, o, err);
        if (!fn(d, o, t))
            return false;
    }
    if (type != JSON_ARR_END || json_next(&j) != JSON_END)
        return bad_json(&j, 0, o, err);
    return true;
}

static bool talks_of_lines(struct dataset *d, const struct dataset_opts *o, talk_fn *fn, struct talk *t,
                           struct errbuf *err)
{
    struct data_line l = {.rest = buf_str(&d->file)};
    while (data_line_next(&l)) {
        struct json j;
        json_init(&j, l.line);
        if (json_next(&j) != JSON_OBJ || !take_talk(&j, t) || json_next(&j) != JSON_END)
            return bad_json(&j, l.no, o, err);
        if (!fn(d, o, t))
            return false;
    }
    return true;
}

static bool each_talk(struct dataset *d, const struct dataset_opts *o, talk_fn *fn, struct errbuf *err)
{
    struct str text = buf_str(&d->file);
    size_t i = 0;
    while (i < text.n && (text.p[i] == ' ' || text.p[i] == '\n' || text.p[i] == '\r' || text.p[i] == '\t'))
        i++;
    struct talk *t = xmalloc(sizeof(*t));
    bool array = i < text.n && text.p[i] == '[';
    bool ok = array ? talks_of_array(d, o, fn, t, err) : talks_of_lines(d, o, fn, t, err);
    free(t);
    return ok;
}

static uint32_t estimate(struct str raw)
{
    return MIN(words_estimate(raw), (uint32_t)DATASET_MAX_TOKENS);
}

/* The first two messages: prompt and answer. */
static bool add_single(struct dataset *d, const struct dataset_opts *o, const struct talk *t)
{
    if (t->n < 2)
        return true;
    uint32_t in = estimate(t->v[0].raw), out = o->sharegpt_output ? o->sharegpt_output : estimate(t->v[1].raw);
    if (in < PROMPT_MIN || in > PROMPT_MAX || in + out > TOTAL_MAX || (!o->sharegpt_output && out < PROMPT_MIN))
        return true;
    struct data_request *r = dataset_add(d);
    if (!r)
        return false;
    r->raw = t->v[0].raw;
    r->input_tokens = in;
    r->output_tokens = out;
    return true;
}

/* Every message of the user; the answers are the server's own, as long as the recorded ones. */
static bool add_turns(struct dataset *d, const struct dataset_opts *o, const struct talk *t)
{
    uint32_t turn = 0;
    for (uint32_t i = 0; i < t->n && turn < o->turns.max_turns; i++) {
        if (t->v[i].role != ROLE_USER || !t->v[i].raw.n)
            continue;
        struct data_request *r = dataset_add(d);
        if (!r)
            return false;
        bool answered = i + 1 < t->n && t->v[i + 1].role == ROLE_ANSWER;
        r->raw = t->v[i].raw;
        r->input_tokens = estimate(r->raw);
        r->output_tokens = MAX(answered ? estimate(t->v[i + 1].raw) : o->turns.output, 1u);
        r->turn = turn;
        r->think_s = turn ? (float)o->turns.think_s : 0;
        turn++;
    }
    return true;
}

bool dataset_sharegpt(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    return each_talk(d, o, add_single, err);
}

bool dataset_conversations(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    d->history = true;
    return each_talk(d, o, add_turns, err);
}

/* ---- own prompts ---- */

static bool line_error(const struct dataset_opts *o, unsigned no, const char *what, struct errbuf *err)
{
    return err_set(err, "%s:%u: %s.", o->path, no, what) == 0;
}

/* {"prompt": "...", "output_tokens": 200}; other members are skipped. NULL or what is wrong. */
static const char *take_prompt(struct json *j, struct str *raw, double *out)
{
    enum json_type type;
    if (json_next(j) != JSON_OBJ)
        return j->error ? j->error : "not an object";
    while ((type = json_next(j)) == JSON_KEY) {
        struct str key = j->tok;
        if (str_eq_c(key, "prompt")) {
            if (json_next(j) != JSON_STRING)
                return "\"prompt\" is not a string";
            *raw = j->tok;
        } else if (str_eq_c(key, "output_tokens")) {
            if (json_next(j) != JSON_NUMBER || !str_to_double(j->tok, out))
                return "\"output_tokens\" is not a number";
        } else if (!json_skip(j)) {
            return j->error;
        }
    }
    if (type != JSON_OBJ_END || json_next(j) != JSON_END)
        return j->error;
    return raw->n ? NULL : "no \"prompt\"";
}

bool dataset_custom(struct dataset *d, const struct dataset_opts *o, struct errbuf *err)
{
    struct data_line l = {.rest = buf_str(&d->file)};
    while (data_line_next(&l)) {
        struct json j;
        struct str raw = STR_NULL;
        double out = o->custom_output < 0 ? -1 : (double)o->custom_output;
        double told = -1;
        json_init(&j, l.line);
        const char *bad = take_prompt(&j, &raw, &told);
        if (bad)
            return line_error(o, l.no, bad, err);
        if (o->custom_output < 0)
            out = told;
        if (!(out >= 1 && out <= DATASET_MAX_TOKENS))
            return line_error(o, l.no, "no \"output_tokens\" from 1 on, which --custom-output-len -1 asks for", err);
        struct data_request *r = dataset_add(d);
        if (!r)
            return false;
        r->raw = raw;
        r->input_tokens = estimate(raw);
        r->output_tokens = (uint32_t)out;
    }
    return true;
}
