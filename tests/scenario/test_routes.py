"""HTTPRoutes: matches and their precedence, filters, weights, listeners (rows B40, C9-C13, X4, X8, X24)."""
import json
import time
from collections import Counter

import pytest

import manifests
from conftest import EXAMPLES, http, wait_for
from rawhttp import exchange
from resources import (PREFIX, Steady, chat_body, header, httproute, many, model, ok, path, pool_ref, rule, service, service_ref, world)  # noqa: F401


def tag(value):
    """Marks the answers of a rule."""
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-rule", "value": value}]}}


def tagged(name, *matches, **more):
    return rule(service_ref(), matches=list(matches), filters=[tag(name)], **more)


def which(w, target, method="GET", host=None, port=8080, headers=None):
    """Name of the rule that answered; None when no route matched."""
    answer = http(method, w.url(target, port), headers={**({"Host": host} if host else {}), **(headers or {})})
    if answer.headers.get("x-rule"):
        return answer.headers["x-rule"]
    assert answer.status == 404 and answer.json()["error"]["code"] == "route_not_found", answer.text
    return None


@pytest.fixture
def plain(world):
    """A server behind a Service."""
    return world.serve(1)


# --- matches -------------------------------------------------------------------------------------------------------------------------


def test_paths(plain):
    """Exact, PathPrefix by whole elements, RegularExpression over the whole path; exact first, then regex, then the longest prefix."""
    w = plain.start(service(), httproute(
        tagged("short", path("/v1")), tagged("long", path("/v1/chat/")), tagged("exact", path("/v1/chat/completions", "Exact")),
        tagged("regex", path("/r/[0-9]+", "RegularExpression")), tagged("wide", path("/r")), tagged("dot", path("/a.c", "Exact"))))
    for target, want in (("/v1", "short"), ("/v1/", "short"), ("/v1/models", "short"), ("/v1x", None), ("/v1/chat", "long"), ("/v1/chat/x", "long"),
                         ("/v1/chatx", "short"), ("/v1/chat/completions", "exact"), ("/v1/chat/completions/", "long"), ("/r/12", "regex"),
                         ("/r/12/", "wide"), ("/r/x", "wide"), ("/xr/12", None), ("/a.c", "dot"), ("/abc", None), ("/", None), ("/v1?q=1", "short"),
                         ("/%761", "short"), ("/V1", None)):
        assert which(w, target) == want, target


def test_headers_queries_methods(plain):
    """Header (names without case, values with), query and method matches; several in one match are AND, several matches OR."""
    w = plain.start(service(), httproute(
        tagged("header", path("/", headers=[header("X-Team", "red")])),
        tagged("regex", path("/", headers=[header("x-team", "blue-[0-9]+", "RegularExpression")])),
        tagged("both", path("/", headers=[header("X-Team", "red"), header("X-Tier", "1")])),
        tagged("query", path("/", queryParams=[header("v", "2")])),
        tagged("query-regex", path("/", queryParams=[header("v", "beta.*", "RegularExpression")])),
        tagged("post", path("/", method="POST")),
        tagged("either", path("/one", "Exact"), path("/two", "Exact"))))
    for headers, want in (({"x-team": "red"}, "header"), ({"X-TEAM": "red"}, "header"), ({"X-Team": "Red"}, None), ({"X-Team": "blue-7"}, "regex"),
                          ({"X-Team": "blue-7x"}, None), ({"X-Team": "red", "X-Tier": "1"}, "both"), ({"X-Tier": "1"}, None)):
        assert which(w, "/x", headers=headers) == want, headers
    for target, want in (("/x?v=2", "query"), ("/x?a=1&v=2", "query"), ("/x?v=22", None), ("/x?v=beta1", "query-regex"), ("/x?v=%32", "query"),
                         ("/x?V=2", None), ("/one", "either"), ("/two", "either"), ("/three", None)):
        assert which(w, target) == want, target
    assert which(w, "/x", "POST") == "post"
    assert which(w, "/x?v=2", "POST") == "post", "a method counts before a query"
    assert which(w, "/x", "POST", headers={"X-Team": "red"}) == "post", "and before headers"
    assert which(w, "/x?v=2", headers={"X-Team": "red"}) == "header", "headers count before queries"


def test_dangerous_regular_expression(plain):
    """Decision 8: an expression that backtracks without end costs little and matches nothing; the gateway goes on."""
    w = plain.start(service(), httproute(tagged("bad", path("/(a+)+b", "RegularExpression")), tagged("rest", path("/"))))
    start = time.monotonic()
    assert which(w, "/" + "a" * 4000) == "rest"
    assert which(w, "/aaab") == "bad"
    assert time.monotonic() - start < 2


def test_hostnames(plain):
    """Exact before wildcard before none; a port in Host does not matter; several routes share one listener."""
    routes = [httproute(tagged(n, path("/")), name=n, hostnames=h) for n, h in (
        ("exact", ["api.example.com", "other.example.org"]), ("wild", ["*.example.com"]), ("any", None))]
    w = plain.start(service(), *routes)
    for host, want in (("api.example.com", "exact"), ("API.example.com", "exact"), ("api.example.com:8080", "exact"), ("x.example.com", "wild"),
                       ("a.b.example.com", "wild"), ("example.com", "any"), ("other.example.org", "exact"), ("else.org", "any"), ("127.0.0.1", "any")):
        assert which(w, "/", host=host) == want, host


def test_listener_hostnames_and_sections(plain):
    """C10: two listeners of one port apart by host name; a route bound to a section is not on the other; unknown hosts find no listener."""
    gw = manifests.gateway(8080)
    gw[1]["spec"]["listeners"] = [{"name": "a", "protocol": "HTTP", "port": 8080, "hostname": "a.example.com"},
                                  {"name": "b", "protocol": "HTTP", "port": 8080, "hostname": "*.example.com"},
                                  {"name": "c", "protocol": "HTTP", "port": 8081}]
    routes = [httproute(tagged(n, path("/")), name=f"to-{n}", parents=({"name": "gw", "sectionName": n},)) for n in "abc"]
    w = plain.start(service(), *routes)
    before = w.gw.config()["generation"]
    w.put("gateway", *gw)
    wait_for(lambda: w.gw.config()["generation"] > before, 5)
    assert which(w, "/", host="a.example.com") == "a"
    assert which(w, "/", host="z.example.com") == "b"
    assert which(w, "/", host="example.org") is None
    assert which(w, "/", host="a.example.com", port=8081) == "c"


def test_older_route_wins(plain):
    """Equal matches: the older object, then the name that comes first, then the first rule."""
    old, new = (httproute(tagged(n, path("/")), name=n) for n in ("z-old", "a-new"))
    old["metadata"]["creationTimestamp"], new["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"
    w = plain.start(service(), new, old)
    assert which(w, "/") == "z-old"
    w.apply(service(), httproute(tagged("b", path("/")), name="b"), httproute(tagged("a", path("/")), tagged("a2", path("/")), name="a"))
    assert which(w, "/") == "a"


# --- filters -------------------------------------------------------------------------------------------------------------------------


def captured_of(w, target, headers=None, method="POST", body=None):
    w.forget()
    answer = http(method, w.url(target), body or chat_body(), headers=headers)
    (seen,) = w.captured("pod-0")
    return seen, answer


def test_header_modifiers(plain):
    """RequestHeaderModifier and ResponseHeaderModifier: set, add, remove; framing stays ours."""
    change = {"set": [{"name": "X-Set", "value": "new"}, {"name": "User-Agent", "value": "gateway"}], "add": [{"name": "X-Add", "value": "more"}],
              "remove": ["X-Gone"]}
    back = {"set": [{"name": "Content-Type", "value": "text/x"}], "add": [{"name": "x-inference-pod", "value": "second"}], "remove": ["x-inference-namespace"]}
    w = plain.start(service(), httproute(rule(service_ref(), matches=[path("/")], filters=[
        {"type": "RequestHeaderModifier", "requestHeaderModifier": change}, {"type": "ResponseHeaderModifier", "responseHeaderModifier": back}])))
    seen, answer = captured_of(w, "/v1/chat/completions", {"x-set": "old", "X-Gone": "1", "X-Kept": "yes"})
    h = seen["headers"]
    assert h["x-set"] == "new" and h["user-agent"] == "gateway" and h["x-add"] == "more" and h["x-kept"] == "yes" and "x-gone" not in h
    assert answer.status == 200 and answer.headers["content-type"] == "text/x"
    assert answer.headers.get_all("x-inference-pod") == ["pod-0", "second"] and "x-inference-namespace" not in answer.headers


def test_url_rewrite(plain):
    """URLRewrite: the prefix or the whole path, and the host; the query stays; seen at the server."""
    prefix = {"type": "URLRewrite", "urlRewrite": {"hostname": "model.internal", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}}}
    whole = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/v1/completions"}}}
    bare = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
    w = plain.start(service(), httproute(rule(service_ref(), matches=[path("/compatible-mode/v1")], filters=[prefix]),
                                         rule(service_ref(), matches=[path("/whole")], filters=[whole]),
                                         rule(service_ref(), matches=[path("/bare")], filters=[bare])))
    seen, answer = captured_of(w, "/compatible-mode/v1/chat/completions?trace=1")
    assert (seen["path"], seen["headers"]["host"], answer.status) == ("/v1/chat/completions?trace=1", "model.internal", 200)
    seen, answer = captured_of(w, "/whole/anything", body={"model": "qwen", "prompt": "x", "max_tokens": 1})
    assert (seen["path"], answer.status) == ("/v1/completions", 200)
    assert seen["headers"]["host"].startswith(w.gw.ip)
    assert captured_of(w, "/bare/v1/chat/completions")[0]["path"] == "/v1/chat/completions"
    assert captured_of(w, "/bare")[0]["path"] == "/"


def redirected(w, target, host="shop.example.com"):
    (answer,) = exchange(w.gw.ip, 8080, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), to="GET")
    return answer.status, answer.get("location")


def test_redirect(plain):
    """RequestRedirect: scheme, host, port, path and status; ports by the rules of Gateway API; no backend is asked."""
    def to(prefix, **redirect):
        return rule(matches=[path(prefix)], filters=[{"type": "RequestRedirect", "requestRedirect": redirect}])

    w = plain.start(httproute(
        to("/https", scheme="https", statusCode=301), to("/host", hostname="new.example.com"), to("/port", port=8443, statusCode=302),
        to("/full", path={"type": "ReplaceFullPath", "replaceFullPath": "/there"}),
        to("/old", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}, scheme="https", hostname="n.example.com", port=444)))
    assert redirected(w, "/https/a?b=c") == (301, "https://shop.example.com/https/a?b=c")
    assert redirected(w, "/host/a") == (302, "http://new.example.com:8080/host/a")
    assert redirected(w, "/port") == (302, "http://shop.example.com:8443/port")
    assert redirected(w, "/full/x?q=1") == (302, "http://shop.example.com:8080/there?q=1")
    assert redirected(w, "/old/x/y") == (302, "https://n.example.com:444/new/x/y")
    assert w.captured("pod-0") == []


# --- backends ------------------------------------------------------------------------------------------------------------------------


def test_weights_between_pools_change_live(world):
    """X4, C11: 90/10 over 2000 requests within two points; then 0/100 while requests run: no error, and the first pool gets nothing more."""
    w = world
    labels = {"base": {"app": "base"}, "canary": {"app": "canary"}}
    for pool in labels:
        for i in range(2):
            w.server(f"{pool}-{i}", "--time-scale", "50", labels=labels[pool])

    def objects(base, canary):
        return [manifests.pool(p, labels=labels[p]) for p in labels] + [httproute(rule(pool_ref("base", weight=base), pool_ref("canary", weight=canary)))]

    w.start(*objects(90, 10))
    outcomes = ok(many(w.url(), 2000, clients=24))
    share = sum(o.pod.startswith("canary") for o in outcomes) / 2000
    assert 0.08 <= share <= 0.12, share
    with Steady(w.url()) as steady:
        w.apply(*objects(0, 100))
        t = steady.mark()
        wait_for(lambda: sum(steady.pods_since(t).values()) > 100, 10)
        assert set(steady.pods_since(t)) <= {"canary-0", "canary-1"}
    w.gw.assert_idle()


def test_weight_zero_and_backends_that_do_not_resolve(plain):
    """C11: weight 0 gets nothing; an unresolved reference answers 500 for its share alone; a rule without backends is 500."""
    w = plain.start(service(), httproute(rule(service_ref(), service_ref("absent", weight=0), matches=[path("/a")]),
                                         rule(service_ref(), service_ref("absent"), matches=[path("/b")]), rule(matches=[path("/c")])))
    assert Counter(o.status for o in many(w.url("/a"), 100, 4)) == {404: 100}
    shares = Counter(http("POST", w.url("/b/v1/chat/completions"), chat_body()).status for _ in range(100))
    assert set(shares) == {404, 500} and 30 <= shares[500] <= 70, shares
    answer = http("POST", w.url("/c"), chat_body())
    assert answer.status == 500 and answer.json()["error"]["code"] == "backend_unresolved"
    assert [e for e in w.gw.events("Configuration") if "absent" in e["text"]], "and the log says so"


def test_models_to_different_pools(world):
    """X8, D16: two models on one listener, each served by its own pool; an unknown one finds no route."""
    w = world
    for name in ("qwen", "deepseek-r1"):
        for i in range(2):
            w.server(f"{name}-{i}", model=name, labels={"app": name})
    w.start(*(manifests.pool(f"pool-{n}", labels={"app": n}) for n in ("qwen", "deepseek-r1")),
            httproute(*(rule(pool_ref(f"pool-{n}"), matches=[{"headers": [header("X-Gateway-Model-Name", n)]}]) for n in ("qwen", "deepseek-r1"))))
    for name in ("qwen", "deepseek-r1"):
        pods = {o.pod for o in ok(many(w.url(), 20, 4, body=lambda i: chat_body(name=name)))}
        assert pods == {f"{name}-0", f"{name}-1"}
    answer = w.chat(name="other")
    assert answer.status == 404 and answer.json()["error"]["code"] == "route_not_found"


def test_example_model_routing(sandbox):
    """X8 from the example: qwen and deepseek-r1 behind port 8081."""
    sb = sandbox(EXAMPLES / "model-routing", options=("--time-scale", "20"))
    for name in ("qwen", "deepseek-r1"):
        answer = http("POST", sb.url(8081, "/v1/chat/completions"), chat_body(name=name))
        assert answer.status == 200 and answer.headers["x-inference-pod"].startswith(name), answer.text


def test_example_canary(sandbox):
    """X4, X5 from the example: 90/10 between the pools and 80/20 between the adapters of one request stream."""
    sb = sandbox(EXAMPLES / "canary", options=("--time-scale", "50"))
    outcomes = ok(many(sb.url(8081, "/v1/chat/completions"), 600, 16, body=lambda i: chat_body(name="travel-helper")))
    lines = sb.handled(600)
    assert 0.06 <= sum(o.pod.startswith("qwen-canary") for o in outcomes) / 600 <= 0.14
    assert 0.75 <= sum(h["target_model"] == "travel-helper-v1" for h in lines) / 600 <= 0.85


# --- time limits and references -------------------------------------------------------------------------------------------------------


def test_route_timeouts(world):
    """timeouts.request ends a request whatever it does; timeouts.backendRequest ends one attempt: then another pod may answer."""
    w = world.serve(2)
    w.start(manifests.pool(), httproute(rule(pool_ref(), matches=[path("/a")], timeouts={"request": "700ms"}, filters=[whole()]),
                                        rule(pool_ref(), matches=[path("/b")], timeouts={"request": "20s", "backendRequest": "1s"}, filters=[whole()]),
                                        rule(pool_ref(), matches=[path("/c")], timeouts={"request": "0s"}, filters=[whole()])))
    start = time.monotonic()
    answer = http("POST", w.url("/a"), chat_body(max_tokens=3000))
    assert answer.status == 504 and answer.json()["error"]["code"] == "request_timeout", answer.text
    assert 0.6 <= time.monotonic() - start <= 1.5
    assert http("POST", w.url("/c"), chat_body(max_tokens=60)).status == 200, "0s is no limit"
    w.control("pod-0", "POST", "/fault", {"kind": "slow", "factor": 500})
    for _ in range(4):
        answer = http("POST", w.url("/b"), chat_body(max_tokens=4))
        assert answer.status == 200 and answer.headers["x-inference-pod"] == "pod-1", answer.text
    w.gw.assert_idle()


def policy(name, kind, target, limit, section=None):
    return {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy", "metadata": manifests.meta(name),
            "spec": {"timeout": {"http": {"requestTimeout": limit}},
                     "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": target, **({"sectionName": section} if section else {})}]}}


def test_policy_of_the_nearer_target_wins(world):
    """C13: a policy for a route beats one for its listener, that one beats the Gateway's; timeouts of the rule beat them all; changes are live."""
    w = world.serve(1)
    routes = [httproute(rule(pool_ref(), matches=[path(f"/{n}")], filters=[whole()]), name=n) for n in ("near", "far")]
    own = httproute(rule(pool_ref(), matches=[path("/own")], filters=[whole()], timeouts={"request": "40s"}), name="own")
    policies = [policy("all", "Gateway", "gw", "20s"), policy("listener", "Gateway", "gw", "30s", "p8081"), policy("near", "HTTPRoute", "near", "500ms")]
    w.start(manifests.pool(), own, *routes, *policies, ports=(8080, 8081))
    got = {(li["port"], m["route"]): m["request_timeout"] for li in w.gw.config()["listeners"] for m in li["matches"]}
    assert got == {(8080, "near"): "500ms", (8081, "near"): "500ms", (8080, "far"): "20s", (8081, "far"): "30s", (8080, "own"): "40s", (8081, "own"): "40s"}
    long = chat_body(max_tokens=60)
    assert http("POST", w.url("/near"), long).status == 504
    assert http("POST", w.url("/far"), long).status == 200
    w.apply(manifests.pool(), own, *routes, policy("all", "Gateway", "gw", "500ms"))
    assert http("POST", w.url("/far"), long).status == 504
    assert http("POST", w.url("/own"), long).status == 200
    w.gw.assert_idle()


def test_rewritten_paths_are_scheduled(world):
    """A path of its own that is rewritten to one of the API: model, prefix and tokens are seen as if the client had asked for that."""
    w = world.serve(3, "--time-scale", "10")
    w.start(manifests.pool(annotations=PREFIX), model("alias", ["qwen"]), httproute(rule(pool_ref(), matches=[path("/ask")], filters=[whole()])))
    body = {**chat_body("the same question again " * 20, "alias")}
    lines = [w.line(lambda: http("POST", w.url("/ask"), body))[0] for _ in range(3)]
    assert len({h["pod"] for h in lines}) == 1 and lines[1]["prefix_hit"] > 0.8, lines
    assert all(h["target_model"] == "qwen" and h["completion_tokens"] == 2 for h in lines)


def whole(to="/v1/chat/completions"):
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": to}}}


def test_other_namespaces_need_a_grant(plain):
    """A backend in another namespace answers 500 until a ReferenceGrant there allows it."""
    far = service("far")
    far["metadata"]["namespace"] = "models"
    pod = manifests.pod("far-pod", plain.servers["pod-0"].ip)
    pod["metadata"]["namespace"] = "models"
    route = httproute(rule(service_ref("far", namespace="models"), filters=[tag("far")]))
    w = plain.start(far, pod, route)
    assert http("GET", w.url("/version")).status == 500
    grant = {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "models"},
             "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
                      "to": [{"group": "", "kind": "Service"}]}}
    w.apply(far, pod, route, grant)
    assert http("GET", w.url("/version")).status == 200
    w.apply(far, pod, route, {**grant, "metadata": {"name": "g", "namespace": "default"}})
    assert http("GET", w.url("/version")).status == 500


def test_gateway_classes(plain):
    """B38, C8, decision 9: all three controller names are ours; a Gateway of another controller is not served."""
    for name in ("inference.networking.x-k8s.io/gateway-controller", "gateway.envoyproxy.io/gatewayclass-controller", "penstock.dev/gateway-controller"):
        if not plain.gw:
            plain.start(service(), httproute(tagged("yes", path("/"))))
        objects = manifests.gateway(8080)
        objects[0]["spec"]["controllerName"] = name
        plain.apply(*objects, file="gateway")
        assert which(plain, "/") == "yes"
    objects[0]["spec"]["controllerName"] = "example.com/other"
    plain.apply(*objects, file="gateway")
    with pytest.raises(OSError):
        wait_for(lambda: which(plain, "/") != "yes", 3)


def test_service_endpoints_from_slices(plain):
    """C11: EndpointSlices, where there are any, say what is behind a Service; named target ports are looked up in the pods."""
    ip = plain.servers["pod-0"].ip
    slices = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
              "metadata": manifests.meta("svc-1", labels={"kubernetes.io/service-name": "svc"}), "addressType": "IPv4",
              "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
              "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "pod-0"}},
                            {"addresses": ["127.0.0.1"], "conditions": {"ready": False}}]}
    w = plain.start(service(target_port="elsewhere"), slices, httproute(tagged("slice", path("/"))))
    assert [http("GET", w.url("/version")).status for _ in range(6)] == [200] * 6
    named = manifests.pod("pod-0", ip)
    named["spec"]["containers"][0]["ports"][0]["name"] = "web"
    w.put("pods", named)
    w.apply(service(target_port="web"), httproute(tagged("named", path("/"))))
    assert [http("GET", w.url("/version")).status for _ in range(3)] == [200] * 3
    w.apply(service(target_port="absent"), httproute(tagged("none", path("/"))))
    answer = http("GET", w.url("/version"))
    assert answer.status == 503 and answer.json()["error"]["code"] == "no_endpoint" and answer.headers["Retry-After"]


def test_pools_of_version_1(world):
    """InferencePool v1 beside v1alpha2: selector.matchLabels, several targetPorts, one endpoint for each; active-ports of a pod."""
    w = world
    ip = w.server("one", labels={"app": "new"}).ip
    w.server("one-b", labels={"app": "new", "spare": "yes"}, ip=ip, port=8001)
    w.server("old")
    v1 = {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": manifests.meta("new"),
          "spec": {"selector": {"matchLabels": {"app": "new"}}, "targetPorts": [{"number": 8000}, {"number": 8001}],
                   "endpointPickerRef": {"name": "epp", "port": {"number": 9002}}}}
    to_v1 = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "new"}
    route = httproute(rule(to_v1, matches=[path("/new")], filters=[whole()]), rule(pool_ref(), matches=[path("/")]))
    w.start(v1, manifests.pool(), route)
    pod = manifests.pod("one", ip, {"app": "new"})
    w.apply(pod, manifests.pod("old", w.servers["old"].ip), file="pods")
    assert {e["address"] for e in w.backend("new")["endpoints"]} == {f"{ip}:8000", f"{ip}:8001"}
    assert set(Counter(o.pod for o in ok(many(w.url("/new"), 20, 4)))) == {"one", "one-b"}
    assert {o.pod for o in ok(many(w.url(), 10, 4))} == {"old"}
    pod["metadata"]["annotations"] = {"inference.networking.k8s.io/active-ports": "8001"}
    w.apply(pod, manifests.pod("old", w.servers["old"].ip), file="pods")
    wait_for(lambda: {e["address"] for e in w.backend("new")["endpoints"]} == {f"{ip}:8001"}, 2)
    assert {o.pod for o in ok(many(w.url("/new"), 10, 4))} == {"one-b"}


def test_lists_and_json(plain):
    """Manifests as `kubectl get -o yaml` and `-o json` print them: kind List, status and server-side fields included."""
    objects = [service(), httproute(tagged("list", path("/")))]
    for o in objects:
        o["metadata"].update(uid="5e1f", resourceVersion="7", managedFields=[{"manager": "x"}], creationTimestamp="2025-01-01T00:00:00Z")
        o["status"] = {"conditions": []}
    w = plain.start({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
    assert which(w, "/") == "list"
    before = w.gw.config()["generation"]
    (w.dir / "objects.yaml").unlink()
    (w.dir / "objects.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [objects[0], httproute(tagged("json", path("/")))]}))
    wait_for(lambda: w.gw.config()["generation"] > before and which(w, "/") == "json", 5)


# --- listeners -----------------------------------------------------------------------------------------------------------------------


def test_listeners_come_and_go(plain):
    """C9: a listener added live serves, one removed closes, requests on the others never fail."""
    w = plain.start(manifests.pool(), manifests.route())
    with Steady(w.url()):
        before = w.gw.config()["generation"]
        w.put("gateway", *manifests.gateway(8080, 8082))
        wait_for(lambda: w.gw.config()["generation"] > before, 5)
        assert w.chat(port=8082).status == 200
        w.put("gateway", *manifests.gateway(8080))

        def closed():
            try:
                w.chat(port=8082)
                return False
            except OSError:
                return True

        wait_for(closed, 5, what="port 8082 to close")
    w.gw.assert_idle()


@pytest.mark.parametrize("port", [8080, 8081])
def test_a_generation_of_ninety_seconds(sandbox, port):
    """C13: with requestTimeout 1h an answer that takes more than 90 s completes on both ports."""
    sb = sandbox(EXAMPLES / "two-ports", options=("--time-scale", "40"))
    start = time.monotonic()
    answer = http("POST", sb.url(port, "/v1/chat/completions"), {**chat_body(name="/model/qwen"), "max_tokens": 5000}, timeout=60)
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == 5000
    assert (time.monotonic() - start) * 40 > 90


def test_other_paths_pass(world):
    """C12: a request that is no model's passes through a pool's route, too; HEAD and OPTIONS, query and body as they are."""
    w = world.serve(2).start_pool(None, model("qwen"))
    answer = http("GET", w.url("/version"))
    assert answer.status == 200 and "version" in answer.json()
    assert http("POST", w.url("/tokenize?x=1"), {"model": "qwen", "prompt": "a b"}).json()["count"] > 0
    assert http("HEAD", w.url("/health")).status == 200
    assert http("GET", w.url("/no/such")).status == 404
