"""Small manifests for tests that start from nothing: one Gateway, one route to one InferencePool, its pods."""
import json

POOL = "pool"
LABELS = {"app": "qwen"}
X = "inference.networking.x-k8s.io"
ENV = "inference-epp-env.networking.x-k8s.io"


def dump(*objects):
    """JSON is YAML: several documents in one text."""
    return "".join("---\n" + json.dumps(o, indent=2) + "\n" for o in objects)


def meta(name, **more):
    return {"name": name, "namespace": "default", **more}


def gateway(port=8080, *more_ports, name="gw"):
    listeners = [{"name": f"p{p}", "protocol": "HTTP", "port": p} for p in (port, *more_ports)]
    return [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "penstock"},
             "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}},
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta(name),
             "spec": {"gatewayClassName": "penstock", "listeners": listeners}}]


def route(name="route", path="/", header=None, pool=POOL, parent="gw", timeout=None, kind="InferencePool"):
    backend = {"group": X, "kind": "InferencePool", "name": pool} if kind == "InferencePool" else {"kind": "Service", "name": pool, "port": 8000}
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [backend]}
    if header:
        rule["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": header[0], "value": header[1]}]}}]
    if timeout:
        rule["timeouts"] = {"request": timeout}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta(name),
            "spec": {"parentRefs": [{"name": parent}], "rules": [rule]}}


def pool(name=POOL, port=8000, labels=None, annotations=None):
    return {"apiVersion": f"{X}/v1alpha2", "kind": "InferencePool", "metadata": meta(name, annotations=annotations or {}),
            "spec": {"targetPortNumber": port, "selector": labels or LABELS, "extensionRef": {"name": f"{name}-epp"}}}


def pod(name, ip, labels=None, ready=True):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, labels=labels or LABELS),
            "spec": {"containers": [{"name": "server", "image": "server", "ports": [{"containerPort": 8000}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}}


def deployment(name="qwen", replicas=4, args=(), labels=None):
    labels = labels or LABELS
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name),
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels},
                                  "spec": {"containers": [{"name": "server", "image": "vllm/vllm-openai:latest", "ports": [{"containerPort": 8000}],
                                                           "command": ["vllm", "serve", "/models/qwen", "--served-model-name", "qwen", "--port", "8000",
                                                                       *args]}]}}}}


def world(pods, annotations=None, **kw):
    """Text of one file: gateway on 8080, a route, a pool over pods = {name: ip}."""
    return dump(*gateway(), route(**kw), pool(annotations=annotations), *(pod(n, a) for n, a in pods.items()))


def write(path, text):
    """As `kubectl` or an editor would: a new file renamed over the old one."""
    tmp = path.with_name("." + path.name + ".tmp")
    tmp.write_text(text)
    tmp.rename(path)
