/* conf/btp.c - BackendTrafficPolicy of gateway.envoyproxy.io: the request timeout; everything else is reported. */
#include "conf/object.h"

static const struct fields http_fields = {
    .v = (const struct field[]){FIELD("requestTimeout", F_FN, btp_http, request_us, .fn = dec_gateway_duration),
                                FIELD_LATER("connectionIdleTimeout"), FIELD_LATER("maxConnectionDuration"),
                                FIELD_LATER("maxStreamDuration"), FIELD_LATER("streamIdleTimeout"), FIELD_END},
    .size = sizeof(struct btp_http)};
static const struct fields timeout_fields = {
    .v = (const struct field[]){FIELD("http", F_OBJ, btp_timeout, http, .sub = &http_fields), FIELD_LATER("tcp"),
                                FIELD_END},
    .size = sizeof(struct btp_timeout)};

static void check_target(struct dec *d, const struct doc *map, const struct ref *r)
{
    bool gateway = str_eq_c(r->kind, "Gateway"), route = str_eq_c(r->kind, "HTTPRoute");
    if (!gateway && !route)
        dec_error(d, map, "the target must be a Gateway or an HTTPRoute, not \"" STR_FMT "\"",
                  STR_ARG(str_first(r->kind, 63)));
    if (route && r->section.n)
        dec_warn(d, map, "sectionName of an HTTPRoute is not supported: the policy applies to the whole route");
}

static void check_btp(struct dec *d, const struct doc *map, void *out)
{
    struct btp_spec *s = out;
    if (!s->target && s->targets.n == 0)
        dec_warn(d, map, "has neither targetRef nor targetRefs: applies to nothing");
    if (s->target)
        check_target(d, map, s->target);
    for (uint32_t i = 0; i < s->targets.n; i++)
        check_target(d, map, &s->targets.v[i]);
}

static const struct fields spec_fields = {
    .v = (const struct field[]){FIELD("targetRef", F_OBJ, btp_spec, target, .sub = &ref_fields),
                                FIELD("targetRefs", F_LIST, btp_spec, targets, .max = 16, .sub = &ref_fields),
                                FIELD("timeout", F_OBJ, btp_spec, timeout, .sub = &timeout_fields),
                                FIELD_LATER("targetSelectors"),
                                FIELD_LATER("circuitBreaker"),
                                FIELD_LATER("rateLimit"),
                                FIELD_LATER("retry"),
                                FIELD_LATER("loadBalancer"),
                                FIELD_LATER("healthCheck"),
                                FIELD_LATER("faultInjection"),
                                FIELD_LATER("connection"),
                                FIELD_LATER("tcpKeepalive"),
                                FIELD_LATER("dns"),
                                FIELD_LATER("http2"),
                                FIELD_LATER("proxyProtocol"),
                                FIELD_LATER("compression"),
                                FIELD_LATER("compressor"),
                                FIELD_LATER("responseOverride"),
                                FIELD_LATER("httpUpgrade"),
                                FIELD_LATER("requestBuffer"),
                                FIELD_LATER("mergeType"),
                                FIELD_LATER("telemetry"),
                                FIELD_LATER("useClientProtocol"),
                                FIELD_END},
    .size = sizeof(struct btp_spec),
    .check = check_btp};
const struct fields btp_fields = {
    .v = (const struct field[]){FIELD_SKIP_META,
                                FIELD("spec", F_OBJ, btp, spec, .flags = F_REQUIRED, .sub = &spec_fields), FIELD_END},
    .size = sizeof(struct btp)};
