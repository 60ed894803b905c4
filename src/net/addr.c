/* TCP addresses: parse, print, compare. */
#include "net/loop.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <unistd.h>

static void set_v4(struct addr *a, const struct in_addr *ip, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    a->ss.v4.sin_family = AF_INET;
    a->ss.v4.sin_port = htons(port);
    a->ss.v4.sin_addr = *ip;
    a->len = sizeof(a->ss.v4);
}

static void set_v6(struct addr *a, const struct in6_addr *ip, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    a->ss.v6.sin6_family = AF_INET6;
    a->ss.v6.sin6_port = htons(port);
    a->ss.v6.sin6_addr = *ip;
    a->len = sizeof(a->ss.v6);
}

bool addr_parse(struct str host, uint16_t port, struct addr *out)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct str){host.p + 1, host.n - 2};
    if (host.n == 0 || host.n >= sizeof(text) || memchr(host.p, 0, host.n))
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        set_v4(out, &v4, port);
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6) == 1) {
        set_v6(out, &v6, port);
        return true;
    }
    return false;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT", ":PORT", a bare V6 address. */
static bool split_hostport(struct str s, uint16_t default_port, struct str *host, uint16_t *port)
{
    const char *colon = s.n ? memrchr(s.p, ':', s.n) : NULL;
    const char *bracket = s.n ? memchr(s.p, ']', s.n) : NULL;
    *host = s;
    *port = default_port;
    if (!colon || (bracket && colon < bracket))
        return true;
    if (!bracket && memchr(s.p, ':', s.n) != colon) /* several colons: a bare IPv6 address */
        return true;
    uint64_t v;
    size_t host_n = (size_t)(colon - s.p);
    if (!str_to_u64(str_from(s, host_n + 1), &v) || v > 65535)
        return false;
    *host = str_first(s, host_n);
    *port = (uint16_t)v;
    return true;
}

bool addr_parse_hostport(struct str s, uint16_t default_port, struct addr *out)
{
    struct str host;
    uint16_t port;
    if (!split_hostport(s, default_port, &host, &port) || s.n == 0)
        return false;
    if (host.n == 0) {
        set_v4(out, &(struct in_addr){.s_addr = htonl(INADDR_ANY)}, port);
        return true;
    }
    if (host.p[0] == '[' && host.p[host.n - 1] == ']' && !memchr(host.p, ':', host.n))
        return false; /* brackets are for IPv6 */
    return addr_parse(host, port, out);
}

bool addr_resolve_hostport(struct str s, uint16_t default_port, struct addr *out, struct errbuf *err)
{
    char name[256];
    struct str host;
    uint16_t port;
    if (addr_parse_hostport(s, default_port, out))
        return true;
    if (!split_hostport(s, default_port, &host, &port) || host.n == 0 || host.n >= sizeof(name)) {
        err_set(err, "\"" STR_FMT "\" is not an address HOST:PORT.", STR_ARG(str_first(s, 100)));
        return false;
    }
    memcpy(name, host.p, host.n);
    name[host.n] = 0;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *res = NULL;
    int rc = getaddrinfo(name, NULL, &hints, &res);
    bool found = false;
    for (struct addrinfo *ai = rc == 0 ? res : NULL; ai && !found; ai = ai->ai_next) {
        if (ai->ai_addrlen > sizeof(out->ss))
            continue;
        memset(out, 0, sizeof(*out));
        memcpy(&out->ss, ai->ai_addr, ai->ai_addrlen);
        out->len = ai->ai_addrlen;
        addr_set_port(out, port);
        found = true;
    }
    if (rc == 0)
        freeaddrinfo(res);
    if (!found)
        err_set(err, "The host name \"%s\" cannot be resolved: %s.", name, rc ? gai_strerror(rc) : "no usable address");
    return found;
}

uint16_t addr_port(const struct addr *a)
{
    return ntohs(a->ss.ss_family == AF_INET6 ? a->ss.v6.sin6_port : a->ss.v4.sin_port);
}

void addr_set_port(struct addr *a, uint16_t port)
{
    if (a->ss.ss_family == AF_INET6)
        a->ss.v6.sin6_port = htons(port);
    else
        a->ss.v4.sin_port = htons(port);
}

size_t addr_key(const struct addr *a, char out[ADDR_KEY_MAX])
{
    if (a->ss.ss_family == AF_INET6) {
        memcpy(out, &a->ss.v6.sin6_port, 2);
        memcpy(out + 2, &a->ss.v6.sin6_addr, 16);
        memcpy(out + 18, &a->ss.v6.sin6_scope_id, 4);
        return 22;
    }
    memcpy(out, &a->ss.v4.sin_port, 2);
    memcpy(out + 2, &a->ss.v4.sin_addr, 4);
    return 6;
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
    char ka[ADDR_KEY_MAX], kb[ADDR_KEY_MAX];
    size_t na = addr_key(a, ka), nb = addr_key(b, kb);
    return a->ss.ss_family == b->ss.ss_family && na == nb && memcmp(ka, kb, na) == 0;
}

size_t addr_format(const struct addr *a, char *out, size_t cap)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    bool v6 = a->ss.ss_family == AF_INET6;
    if (v6)
        inet_ntop(AF_INET6, &a->ss.v6.sin6_addr, ip, sizeof(ip));
    else if (a->ss.ss_family == AF_INET)
        inet_ntop(AF_INET, &a->ss.v4.sin_addr, ip, sizeof(ip));
    int n = snprintf(out, cap, v6 ? "[%s]:%u" : "%s:%u", ip, (unsigned)addr_port(a));
    if (n < 0 || cap == 0)
        return 0;
    return MIN((size_t)n, cap - 1);
}

bool addr_in_use(const struct addr *at)
{
    if (addr_port(at) == 0)
        return false;
    int fd = socket(at->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int one = 1; /* passes connections in TIME_WAIT, but not a listening socket: that would need SO_REUSEPORT on ours */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    bool taken = bind(fd, &at->ss.sa, at->len) < 0 && errno == EADDRINUSE;
    close(fd);
    return taken;
}
