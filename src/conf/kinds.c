/* conf/kinds.c - the table of the kinds that are read. */
#include "conf/object.h"

static const struct kind_def kinds[] = {
    {GROUP_GATEWAY, " v1 v1beta1 ", "GatewayClass", K_GATEWAYCLASS, true, &gatewayclass_fields},
    {GROUP_GATEWAY, " v1 v1beta1 ", "Gateway", K_GATEWAY, false, &gateway_fields},
    {GROUP_GATEWAY, " v1 v1beta1 ", "HTTPRoute", K_HTTPROUTE, false, &httproute_fields},
    {GROUP_GATEWAY, " v1 v1beta1 ", "ReferenceGrant", K_REFERENCEGRANT, false, &refgrant_fields},
    {GROUP_ENVOY, " v1alpha1 ", "BackendTrafficPolicy", K_BTP, false, &btp_fields},
    {GROUP_POOL_X, " v1alpha2 ", "InferencePool", K_POOL, false, &pool_x_fields},
    {GROUP_POOL, " v1 ", "InferencePool", K_POOL, false, &pool_v1_fields},
    {GROUP_POOL_X, " v1alpha2 ", "InferenceModel", K_MODEL, false, &model_fields},
    {"inferenceextension.alibabacloud.com", " v1alpha1 ", "InferenceTrafficPolicy", K_TRAFFIC_POLICY, false,
     &traffic_policy_fields},
    {GROUP_POOL_X, " v1alpha2 ", "InferenceObjective", K_OBJECTIVE, false, &objective_fields},
    {GROUP_POOL_X, " v1alpha2 ", "InferenceModelRewrite", K_REWRITE, false, &model_rewrite_fields},
    {"", " v1 ", "Pod", K_POD, false, &pod_fields},
    {"", " v1 ", "Service", K_SERVICE, false, &service_fields},
    {"discovery.k8s.io", " v1 v1beta1 ", "EndpointSlice", K_SLICE, false, &slice_fields},
    {"", " v1 ", "ConfigMap", K_CONFIGMAP, false, &configmap_fields},
    {"apps", " v1 ", "Deployment", K_WORKLOAD, false, &deployment_fields},
    {"apps", " v1 ", "StatefulSet", K_WORKLOAD, false, &statefulset_fields},
    {"leaderworkerset.x-k8s.io", " v1 ", "LeaderWorkerSet", K_WORKLOAD, false, &lws_fields},
    {"workloads.x-k8s.io", " v1alpha1 ", "RoleBasedGroup", K_ROLE_GROUP, false, &rbg_v1_fields},
    {"workloads.x-k8s.io", " v1alpha2 ", "RoleBasedGroup", K_ROLE_GROUP, false, &rbg_v2_fields},
};

const struct kind_def *kind_table(size_t *n)
{
    *n = ARRAY_LEN(kinds);
    return kinds;
}

static bool has_version(const char *versions, struct str v)
{
    ptrdiff_t at = v.n ? str_find(str_c(versions), v) : -1;
    return at > 0 && versions[at - 1] == ' ' && versions[at + (ptrdiff_t)v.n] == ' ';
}

const struct kind_def *kind_find(struct str group, struct str version, struct str kind, bool *group_known)
{
    *group_known = false;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!str_eq_c(group, kinds[i].group) || !str_eq_c(kind, kinds[i].name))
            continue;
        *group_known = true;
        if (has_version(kinds[i].versions, version))
            return &kinds[i];
    }
    return NULL;
}

int object_age_cmp(const struct object *a, const struct object *b)
{
    if ((a->meta.created.n == 0) != (b->meta.created.n == 0))
        return a->meta.created.n == 0 ? 1 : -1;
    int c = str_cmp(a->meta.created, b->meta.created);
    c = c ? c : str_cmp(a->meta.ns, b->meta.ns);
    return c ? c : str_cmp(a->meta.name, b->meta.name);
}
