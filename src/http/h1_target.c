/* Forms of the request target (RFC 9112 3.2) and the authority inside them. */
#include "http/h1_int.h"
#include <strings.h>

static bool valid_port(struct str s)
{
    if (s.n > 5)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return true;
}

/* Length of the host part: up to the port's colon, brackets included for an IP literal. 0 when malformed. */
static size_t host_len(struct str s)
{
    size_t i = 0;
    if (s.n && s.p[0] == '[') {
        for (i = 1; i < s.n && (h1_is(s.p[i], C_HEX) || s.p[i] == ':' || s.p[i] == '.'); i++)
            ;
        return i > 1 && i < s.n && s.p[i] == ']' ? i + 1 : 0;
    }
    while (i < s.n && s.p[i] != ':' && s.p[i] != '[' && s.p[i] != ']' && h1_is(s.p[i], C_AUTHORITY))
        i++;
    return i;
}

bool h1_valid_authority(struct str s, bool port_required)
{
    size_t n = host_len(s);
    if (n == 0)
        return false;
    if (n == s.n)
        return !port_required;
    struct str port = str_from(s, n + 1);
    return s.p[n] == ':' && valid_port(port) && (port.n > 0 || !port_required);
}

static void split_query(struct str s, struct h1_head *head)
{
    const char *mark = s.n ? memchr(s.p, '?', s.n) : NULL;
    head->path = mark ? str_first(s, (size_t)(mark - s.p)) : s;
    head->query = mark ? str_from(s, head->path.n + 1) : STR_NULL;
}

/* Length of "http://" or "https://" at the start of s, 0 when it has neither. */
static size_t scheme_len(struct str s)
{
    static const struct str schemes[] = {STR("http://"), STR("https://")};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (s.n >= schemes[i].n && strncasecmp(s.p, schemes[i].p, schemes[i].n) == 0)
            return schemes[i].n;
    return 0;
}

static enum h1_step split_absolute(struct h1_cursor *c, struct h1_head *head)
{
    size_t at = scheme_len(head->target), n = 0;
    if (at == 0)
        return h1_bad(c, 400, "request target is neither a path nor an http URI");
    struct str rest = str_from(head->target, at);
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    head->host = str_first(rest, n);
    if (!h1_valid_authority(head->host, false))
        return h1_bad(c, 400, "malformed authority in the request target");
    split_query(str_from(rest, n), head);
    if (head->path.n == 0)
        head->path = STR("/");
    return STEP_OK;
}

enum h1_step h1_split_target(struct h1_cursor *c, struct h1_head *head)
{
    struct str t = head->target;
    if (head->method == H1_CONNECT) {
        if (!h1_valid_authority(t, true))
            return h1_bad(c, 400, "CONNECT needs host:port");
        head->host = t;
        head->path = str_first(t, 0);
        return STEP_OK;
    }
    if (t.p[0] == '/') {
        split_query(t, head);
        return STEP_OK;
    }
    if (t.n == 1 && t.p[0] == '*') {
        head->path = t;
        return head->method == H1_OPTIONS ? STEP_OK : h1_bad(c, 400, "target * is for OPTIONS alone");
    }
    return split_absolute(c, head);
}
