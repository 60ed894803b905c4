/* Replacing the model name in a body without re-encoding it. */
#include "api/api.h"

/* JSON text of one byte of a string; returns its length. */
static size_t escape(unsigned char c, char out[6])
{
    static const char hex[] = "0123456789abcdef";
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    if (c >= 0x20) {
        out[0] = (char)c;
        return 1;
    }
    memcpy(out, "\\u00", 4);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

bool api_splice_model(struct str body, const struct api_request *rq, struct str model, char *name_out, size_t cap,
                      struct str *head, struct str *name, struct str *tail)
{
    if (!rq->model_raw.p)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < model.n; i++) {
        char esc[6];
        size_t len = escape((unsigned char)model.p[i], esc);
        if (cap - n < len)
            return false;
        memcpy(name_out + n, esc, len);
        n += len;
    }
    size_t at = (size_t)(rq->model_raw.p - body.p), after = at + rq->model_raw.n;
    *head = (struct str){body.p, at};
    *name = (struct str){name_out, n};
    *tail = (struct str){body.p + after, body.n - after};
    return true;
}
