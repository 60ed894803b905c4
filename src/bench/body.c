/* bench/body.c - requests as bytes: the members and their order are those of the engine's client. */
#include "bench/drive_priv.h"

#include "base/json.h"

#include <stdio.h>

static void put_quoted(struct buf *out, struct str s)
{
    struct jsonw w;
    jsonw_init(&w, out);
    jsonw_str(&w, s);
}

static struct str model_of(struct drive *d, uint32_t sample)
{
    const struct drive_opts *o = d->o;
    return o->models[o->models_random ? rng_below(&d->rng, o->n_models) : sample % o->n_models];
}

/* ---- the prompt ---- */

static void put_user_message(const struct drive *d, uint32_t request, struct buf *out)
{
    buf_add_str(out, STR("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\""));
    dataset_text(d->data, request, out);
    buf_add_str(out, STR("\"}]}"));
}

/* Conversations over plain completions: turns and answers one behind the other. */
static void extend_history(const struct drive *d, struct talk *t, uint32_t request)
{
    if (!d->o->chat) {
        if (t->history.n)
            buf_add_str(&t->history, STR("\\n\\n"));
        dataset_text(d->data, request, &t->history);
        return;
    }
    if (t->history.n)
        buf_add(&t->history, ",", 1);
    put_user_message(d, request, &t->history);
}

void body_answered(struct drive *d, struct stream *s)
{
    struct buf *h = &s->talk->history;
    if (d->o->chat) {
        buf_add_str(h, STR(",{\"role\":\"assistant\",\"content\":\""));
        buf_add_str(h, buf_str(&s->answer));
        buf_add_str(h, STR("\"}"));
    } else {
        buf_add_str(h, STR("\\n\\n"));
        buf_add_str(h, buf_str(&s->answer));
    }
}

static void put_prompt(struct drive *d, const struct stream *s, bool again)
{
    struct buf *out = &d->scratch;
    if (d->data->history && !again)
        extend_history(d, s->talk, s->request);
    buf_add_str(out, d->o->chat ? STR(",\"messages\":[") : STR(",\"prompt\":\""));
    if (d->data->history)
        buf_add_str(out, buf_str(&s->talk->history));
    else if (d->o->chat)
        put_user_message(d, s->request, out);
    else
        dataset_text(d->data, s->request, out);
    buf_add_str(out, d->o->chat ? STR("]") : STR("\""));
}

/* ---- the message ---- */

#define LENGTH_DIGITS 10

/* The head goes first, its length is known last: a field of fixed width is filled in. */
static size_t put_head(struct drive *d, const struct stream *s)
{
    const struct drive_opts *o = d->o;
    struct buf *out = &d->scratch;
    buf_add_str(out, STR("POST "));
    buf_add_str(out, o->target);
    buf_add_str(out, STR(" HTTP/1.1\r\nHost: "));
    buf_add_str(out, o->host);
    buf_add_str(out, STR("\r\nContent-Type: application/json\r\nAccept: */*\r\nx-request-id: "));
    buf_add_str(out, o->request_id_prefix);
    buf_addf(out, "%u\r\n", s->sample);
    buf_add_str(out, o->headers);
    buf_add_str(out, STR("Content-Length: "));
    size_t at = out->n;
    buf_add_str(out, STR("0000000000\r\n\r\n"));
    return at;
}

bool body_write(struct drive *d, struct stream *s, bool again)
{
    const struct drive_opts *o = d->o;
    struct buf *out = &d->scratch;
    char digits[LENGTH_DIGITS + 1];
    buf_clear(out);
    size_t at = put_head(d, s);
    size_t head = out->n;
    buf_add_str(out, STR("{\"model\":"));
    put_quoted(out, model_of(d, s->sample));
    put_prompt(d, s, again);
    buf_addf(out, ",\"%s\":%u,\"stream\":true,\"stream_options\":{\"include_usage\":true}%s",
             o->chat ? "max_completion_tokens" : "max_tokens", d->data->v[s->request].output_tokens,
             o->ignore_eos ? ",\"ignore_eos\":true" : "");
    buf_add_str(out, o->extra);
    buf_add(out, "}", 1);
    if (out->overflow || s->talk->history.overflow)
        return false;
    (void)snprintf(digits, sizeof(digits), "%0*zu", LENGTH_DIGITS, out->n - head);
    memcpy(out->p + out->off + at, digits, LENGTH_DIGITS);
    return true;
}
