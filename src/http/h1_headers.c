/* Header names by number, look-up, hop-by-hop rule and the checks for headers that we write. */
#include "http/h1_int.h"

/* Sorted by length; by_len[n] is the first entry of that length. */
static const struct known_name {
    struct str name;
    enum h1_name id;
} known[] = {
    {STR("te"), H_TE},
    {STR("via"), H_VIA},
    {STR("date"), H_DATE},
    {STR("host"), H_HOST},
    {STR("accept"), H_ACCEPT},
    {STR("expect"), H_EXPECT},
    {STR("server"), H_SERVER},
    {STR("trailer"), H_TRAILER},
    {STR("upgrade"), H_UPGRADE},
    {STR("location"), H_LOCATION},
    {STR("connection"), H_CONNECTION},
    {STR("keep-alive"), H_KEEP_ALIVE},
    {STR("user-agent"), H_USER_AGENT},
    {STR("retry-after"), H_RETRY_AFTER},
    {STR("content-type"), H_CONTENT_TYPE},
    {STR("x-request-id"), H_X_REQUEST_ID},
    {STR("authorization"), H_AUTHORIZATION},
    {STR("content-length"), H_CONTENT_LENGTH},
    {STR("x-forwarded-for"), H_X_FORWARDED_FOR},
    {STR("content-encoding"), H_CONTENT_ENCODING},
    {STR("proxy-connection"), H_PROXY_CONNECTION},
    {STR("transfer-encoding"), H_TRANSFER_ENCODING},
    {STR("proxy-authenticate"), H_PROXY_AUTHENTICATE},
    {STR("proxy-authorization"), H_PROXY_AUTHORIZATION},
    {STR("x-gateway-model-name"), H_X_GATEWAY_MODEL_NAME},
};
#define MAX_KNOWN_LEN 20
static const uint8_t by_len[MAX_KNOWN_LEN + 2] = {
    [3] = 1,   [4] = 2,   [5] = 4,   [6] = 4,   [7] = 7,   [8] = 9,   [9] = 10,  [10] = 10, [11] = 13, [12] = 14,
    [13] = 16, [14] = 17, [15] = 18, [16] = 19, [17] = 21, [18] = 22, [19] = 23, [20] = 24, [21] = 25,
};
static const struct str destination = STR("x-gateway-destination-endpoint");

/* Case-insensitive for a lower-case name of letters, digits and '-': setting bit 5 folds letters and changes neither
 * digits nor '-'. A control character would fold into one of those, so those are ruled out for good. */
static bool same_name(const char *s, struct str name)
{
    unsigned bad = 0;
    for (size_t i = 0; i < name.n; i++)
        bad |= (unsigned)((s[i] | 0x20) ^ name.p[i]) | (unsigned)((unsigned char)s[i] < 0x20);
    return bad == 0;
}

enum h1_name h1_name_id(struct str name)
{
    if (name.n <= MAX_KNOWN_LEN) {
        for (size_t i = by_len[name.n]; i < by_len[name.n + 1]; i++)
            if ((name.p[0] | 0x20) == known[i].name.p[0] && same_name(name.p, known[i].name))
                return known[i].id;
        return H_UNKNOWN;
    }
    bool dest = name.n >= destination.n && same_name(name.p, destination);
    return dest ? H_X_GATEWAY_DESTINATION : H_UNKNOWN;
}

const struct h1_header *h1_find(const struct h1_head *head, enum h1_name id)
{
    for (size_t i = 0; i < head->n_headers; i++)
        if (head->headers[i].id == id)
            return &head->headers[i];
    return NULL;
}

const struct h1_header *h1_find_name(const struct h1_head *head, struct str name)
{
    for (size_t i = 0; i < head->n_headers; i++)
        if (head->headers[i].name.n == name.n && str_ieq(head->headers[i].name, name))
            return &head->headers[i];
    return NULL;
}

enum { HOP_BY_HOP = 1, END_TO_END = 2 };
static const uint8_t scope[H_N_NAMES] = {
    [H_CONNECTION] = HOP_BY_HOP,
    [H_KEEP_ALIVE] = HOP_BY_HOP,
    [H_PROXY_AUTHENTICATE] = HOP_BY_HOP,
    [H_PROXY_CONNECTION] = HOP_BY_HOP,
    [H_PROXY_AUTHORIZATION] = HOP_BY_HOP,
    [H_TE] = HOP_BY_HOP,
    [H_TRAILER] = HOP_BY_HOP,
    [H_TRANSFER_ENCODING] = HOP_BY_HOP,
    [H_UPGRADE] = HOP_BY_HOP,
    [H_EXPECT] = HOP_BY_HOP,
    [H_HOST] = END_TO_END,
    [H_CONTENT_LENGTH] = END_TO_END,
    [H_CONTENT_TYPE] = END_TO_END,
    [H_CONTENT_ENCODING] = END_TO_END,
};

bool h1_hop_by_hop(const struct h1_head *head UNUSED, const struct h1_header *h)
{
    static const struct str proxy = STR("proxy-");
    if (scope[h->id])
        return scope[h->id] == HOP_BY_HOP;
    return h->hop || (h->name.n > proxy.n && same_name(h->name.p, proxy));
}

static bool all_of(struct str s, unsigned class_bits)
{
    for (size_t i = 0; i < s.n; i++)
        if (!h1_is(s.p[i], class_bits))
            return false;
    return true;
}

bool h1_valid_header_name(struct str s)
{
    return s.n > 0 && all_of(s, C_TOKEN);
}

bool h1_valid_header_value(struct str s)
{
    return all_of(s, C_VALUE);
}
