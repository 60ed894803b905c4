"""What the tests of settings, policies, routes and models share: servers of their own, manifests piece by piece, many requests at once."""
import asyncio
import collections
import time

import aiohttp
import pytest

import manifests
from conftest import http, wait_for
from manifests import ENV, X

STRATEGY = X + "/routing-strategy"
BLOCK_SIZE = ENV + "/prefix-cache-hash-block-size"
MAX_BLOCKS = ENV + "/prefix-cache-max-prefix-blocks"
LRU_CAPACITY = ENV + "/prefix-cache-lru-capacity"
UNKNOWN_MODEL = "penstock.dev/unknown-model"
PREFIX_DEPTH = "penstock.dev/prefix-depth"
PREFIX = {STRATEGY: "PREFIX_CACHE"}


def model(name, targets=(), criticality=None, pool=manifests.POOL, object_name=None):
    """An InferenceModel; targets: names, or (name, weight) pairs."""
    spec = {"modelName": name, "poolRef": {"group": X, "kind": "InferencePool", "name": pool},
            "targetModels": [{"name": t} if isinstance(t, str) else {"name": t[0], "weight": t[1]} for t in targets]}
    if criticality:
        spec["criticality"] = criticality
    return {"apiVersion": f"{X}/v1alpha2", "kind": "InferenceModel", "metadata": manifests.meta(object_name or name.strip("/").replace("/", "-").lower()),
            "spec": spec}


def pool_ref(name=manifests.POOL, **more):
    return {"group": X, "kind": "InferencePool", "name": name, **more}


def service_ref(name="svc", port=8000, **more):
    return {"group": "", "kind": "Service", "name": name, "port": port, **more}


def httproute(*rules, name="route", parents=({"name": "gw"},), hostnames=None):
    spec = {"parentRefs": list(parents), "rules": list(rules)}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": manifests.meta(name), "spec": spec}


def rule(*backends, matches=None, filters=(), **more):
    out = {"backendRefs": list(backends), **more}
    if matches is not None:
        out["matches"] = matches
    if filters:
        out["filters"] = list(filters)
    return out


def path(value, kind="PathPrefix", **more):
    return {"path": {"type": kind, "value": value}, **more}


def header(name, value, kind="Exact"):
    return {"type": kind, "name": name, "value": value}


def service(name="svc", port=8000, target_port=8000, labels=None):
    return {"apiVersion": "v1", "kind": "Service", "metadata": manifests.meta(name),
            "spec": {"selector": labels or manifests.LABELS, "ports": [{"name": "http", "port": port, "targetPort": target_port}]}}


def chat_body(text="hello", name="qwen", **more):
    return {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 2, "ignore_eos": True, **more}


Outcome = collections.namedtuple("Outcome", "i status pod body headers")


def many(url, n, clients=16, body=lambda i: chat_body(f"question {i}")):
    """n requests over `clients` connections; every outcome. body(i) gives the JSON."""
    todo, out = iter(range(n)), []

    async def client(session):
        for i in todo:
            async with session.post(url, json=body(i)) as r:
                out.append(Outcome(i, r.status, r.headers.get("x-inference-pod"), await r.read(), r.headers))

    async def run():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)) as session:
            await asyncio.gather(*(client(session) for _ in range(min(n, clients))))

    asyncio.run(run())
    return out


def ok(outcomes):
    bad = [o for o in outcomes if o.status != 200]
    assert not bad, f"{len(bad)} of {len(outcomes)} failed, for example {bad[0]}"
    return outcomes


def per_pod(outcomes):
    return collections.Counter(o.pod for o in ok(outcomes))


class World:
    """Servers, each a process of its own; manifests in one directory; a gateway over them."""

    def __init__(self, gateway, sim, directory, binary):
        self._gateway, self._sim, self.dir, self._binary = gateway, sim, directory, binary
        self.servers, self.labels, self.gw = {}, {}, None
        directory.mkdir()

    def server(self, name, *options, model="qwen", labels=None, **kw):
        """A simulated server and, with the next start or sync, its pod."""
        names = [model] if isinstance(model, str) else model
        self.servers[name] = self._sim("--model", "/models/qwen", "--served-model-name", *names, "--pod-name", name, *options, binary=self._binary, **kw)
        self.labels[name] = labels or manifests.LABELS
        return self.servers[name]

    def serve(self, n, *options, **kw):
        for i in range(n):
            self.server(f"pod-{i}", *options, **kw)
        return self

    def put(self, file, *objects):
        manifests.write(self.dir / f"{file}.yaml", manifests.dump(*objects))
        return self

    def sync(self):
        """Writes the pods of all servers."""
        return self.put("pods", *(manifests.pod(n, s.ip, self.labels[n]) for n, s in self.servers.items()))

    def start(self, *objects, options=(), ports=(8080,), **kw):
        """One gateway `gw` with a listener for each port, the pods, and the given objects (default: a pool and a route to it)."""
        self.put("gateway", *manifests.gateway(*ports))
        self.sync()
        self.put("objects", *(objects or (manifests.pool(), manifests.route())))
        self.gw = self._gateway(self.dir, options=options, **kw)
        return self

    def start_pool(self, annotations=None, *more, options=(), **kw):
        return self.start(manifests.pool(annotations=annotations), manifests.route(), *more, options=options, **kw)

    def apply(self, *objects, file="objects"):
        """Replaces a file and waits until the gateway has the new configuration."""
        before = self.gw.config()["generation"]
        self.put(file, *objects)
        wait_for(lambda: self.gw.config()["generation"] > before, 5, what="the reload")

    def annotate(self, annotations, *more):
        self.apply(manifests.pool(annotations=annotations), manifests.route(), *more)

    def control(self, name, method, path, body=None):
        answer = http(method, f"{self.servers[name].control}/sim{path}", body)
        assert answer.status == 200, answer.text
        return answer

    def captured(self, name):
        return self.control(name, "GET", "/requests").json()["requests"]

    def forget(self):
        for name in self.servers:
            self.control(name, "DELETE", "/requests")

    def fix_metrics(self, name, **values):
        """Gauges of the server stand at these values, and the gateway has seen them (give running, too: what is not given stays real)."""
        self.control(name, "POST", "/metrics", values)
        fields = {"kv": "kv_frac", "waiting": "waiting", "running": "running"}
        wait_for(lambda: all(abs((self.endpoints()[name]["load"][fields[k]] or 0) - v) < 1e-6 for k, v in values.items()), 5,
                 what=f"metrics of {name} to be read")

    def backend(self, name=manifests.POOL):
        (pool,) = [p for p in self.gw.endpoints()["pools"] if p["name"] == name and p["kind"] == "InferencePool"]
        return pool

    def endpoints(self, name=manifests.POOL):
        return {e["pod"]: e for e in self.backend(name)["endpoints"]}

    def settings(self, name=manifests.POOL):
        (pool,) = [b for b in self.gw.config()["backends"] if b["name"] == name and b["kind"] == "InferencePool"]
        return {s["name"]: s for s in pool["settings"]}

    def url(self, path="/v1/chat/completions", port=8080):
        return self.gw.url(port, path)

    def chat(self, text="hello", port=8080, name="qwen", **more):
        return http("POST", self.url(port=port), chat_body(text, name, **more))

    def complete(self, prompt, name="qwen", **more):
        return http("POST", self.url("/v1/completions"), {"model": name, "prompt": prompt, "max_tokens": 1, **more})

    def line_of(self, answer):
        """The "Request Handled" line of an answer."""
        rid = answer.headers["x-request-id"]

        def look():
            return [e for e in self.gw.events("Request Handled") if e["request_id"] == rid]

        (line,) = wait_for(look, 5, what=f"the log line of {rid}")
        return line

    def line(self, answer_of):
        """Runs answer_of(), which must succeed, and gives its "Request Handled" line with the answer."""
        answer = answer_of()
        assert answer.status == 200, answer.text
        return self.line_of(answer), answer

    def hit(self, prompt, **more):
        """Bytes of the prompt that the gateway believed to be cached at the pod it picked."""
        return self.line(lambda: self.complete(prompt, **more))[0]["prefix_hit_bytes"]


@pytest.fixture
def world(gateway, sim, tmp_path, release_binary):
    """A World; its servers run the optimised build, the gateway the one under test."""
    return World(gateway, sim, tmp_path / "conf.d", release_binary)


class Steady:
    """Requests one after the other on `clients` threads' worth of connections while something changes; nothing may fail."""

    def __init__(self, url, clients=4, body=lambda i: chat_body(f"steady {i}")):
        from load import Load
        self.load = Load(url, clients=clients, body=lambda i, stream: {**body(i), "stream": stream})

    def __enter__(self):
        self.load.__enter__()
        wait_for(lambda: len(self.load.results) > 8, 10, what="requests under way")
        return self

    def __exit__(self, kind, *a):
        time.sleep(0.2)
        self.load.__exit__(kind, *a)
        if kind is None:
            bad = [r for r in self.load.results if r.outcome != "ok"]
            assert not bad, f"{len(bad)} of {len(self.load.results)} failed: {bad[:5]}"

    def pods_since(self, t):
        return collections.Counter(r.pod for r in self.load.started_since(t))

    def mark(self):
        return self.load.mark()


def text_of(n, seed):
    """n characters that no other seed begins with."""
    words = f"<{seed}> " + " ".join(str((seed + 1) * 7919 * (i + 3) % 100003) for i in range(n // 3 + 2))
    return words[:n]
