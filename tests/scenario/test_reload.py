"""Reload: files replaced under load, valid and invalid objects mixed, every annotation changed hot."""
import json
import re
import signal
import time

import pytest

import manifests
from conftest import http, wait_for
from load import Load
from manifests import ENV, X
from rawhttp import Raw, post

CHAT = "/v1/chat/completions"


def pool_file(c, annotations=None, **kw):
    manifests.write(c.dir / "pool.yaml", manifests.dump(manifests.pool(annotations=annotations, **kw)))


def route_file(c, value, extra=()):
    manifests.write(c.dir / "route.yaml", manifests.dump(manifests.route(header=("x-generation", value)), *extra))


@pytest.fixture
def split(cluster):
    """A cluster whose objects lie in a file each, so that they can be replaced one by one."""

    def start(n=2, annotations=None, sim_options=("--time-scale", "20"), **kw):
        c = cluster(n, annotations, sim_options, **kw)
        pods = {p: s.ip for p, s in c.sims.items()}
        manifests.write(c.dir / "gateway.yaml", manifests.dump(*manifests.gateway()))
        manifests.write(c.dir / "pods.yaml", manifests.dump(*(manifests.pod(p, a) for p, a in pods.items())))
        pool_file(c, annotations)
        route_file(c, "start")
        (c.dir / "world.yaml").unlink()
        wait_generation(c, "start")
        return c

    return start


def generation(c):
    """What the route in effect says, seen from outside."""
    return http("GET", c.url("/version")).headers.get("x-generation")


def wait_generation(c, value, timeout=5):
    wait_for(lambda: generation(c) == value, timeout, step=0.01, what=f"route of generation {value}")


def settings(c):
    """{annotation: setting} of the pool, from /config."""
    (pool,) = [b for b in c.gw.config()["backends"] if b["kind"] == "InferencePool" and b["name"] == "pool"]
    return {s["name"]: s for s in pool["settings"]}


def setting(c, key):
    s = settings(c).get(key)
    return s and str(s["value"])


BROKEN = [  # (name, file, text, field that the log must name)
    ("bad port", "pool.yaml", manifests.dump(manifests.pool(port=99999)), "spec.targetPortNumber"),
    ("port a word", "pool.yaml", manifests.dump(manifests.pool(port="http")), "spec.targetPortNumber"),
    ("no selector", "pool.yaml", manifests.dump({"apiVersion": f"{X}/v1alpha2", "kind": "InferencePool", "metadata": manifests.meta("pool"),
                                                 "spec": {"targetPortNumber": 8000, "extensionRef": {"name": "x"}}}), "spec.selector"),
    ("not YAML", "pool.yaml", "kind: InferencePool\n  name: [\n", None),
    ("bad listener", "gateway.yaml", manifests.dump(*manifests.gateway(port=0)), "port"),
    ("bad pod address", "pods.yaml", None, "podIP"),
]


def broken_text(c, text):
    """None: a pod with a bad address beside good ones."""
    if text:
        return text
    return manifests.dump(*(manifests.pod(p, "10.0.0.4x" if p == "pod-0" else s.ip) for p, s in c.sims.items()))


def broken_route(i):
    r = manifests.route(name="broken", path="/broken")
    if i % 2:
        r["spec"]["rules"][0]["matches"][0]["path"]["type"] = "Fancy"
    else:
        r["spec"]["rules"][0]["matches"][0]["path"] = {"type": "RegularExpression", "value": "(["}
    return r


def test_two_hundred_reloads_under_load(split):
    """500 requests/s, 200 replacements of files, every second one with an invalid object beside valid changes: no request fails, idle
    connections survive, a known prefix is found after every one of them."""
    c = split(2, {f"{X}/routing-strategy": "PREFIX_CACHE"})
    good = {p.name: p.read_text() for p in c.dir.glob("*.yaml")}
    idle = [Raw(c.ip, 8080) for _ in range(20)]
    wire = post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}))
    for r in idle:
        r.send(wire)
        assert r.answer("POST").status == 200
    prefix = "An account of a long and winding conversation. " * 60
    homes = set()

    def ask_prefix(name):
        answer = http("POST", c.url(), {"model": "qwen", "messages": [{"role": "user", "content": prefix}], "max_tokens": 1}, {"X-Request-Id": name})
        assert answer.status == 200
        homes.add(answer.headers["x-inference-pod"])

    ask_prefix("first")
    with Load(c.url(), clients=25, rps=500, max_tokens=1, streams=False) as load:
        time.sleep(1)
        start = load.mark()
        for i in range(200):
            broken = None
            if i % 2:
                name, file, text, _ = broken = BROKEN[(i // 2) % len(BROKEN)]
                manifests.write(c.dir / file, broken_text(c, text))
                route_file(c, f"g{i}", extra=[broken_route(i)] if i % 4 == 1 else [])
            else:
                for file in ("gateway.yaml", "pods.yaml", "pool.yaml"):
                    if (c.dir / file).read_text() != good[file]:
                        manifests.write(c.dir / file, good[file])
                pool_file(c, {f"{X}/routing-strategy": "PREFIX_CACHE", f"{ENV}/prefix-cache-lru-capacity": str(50000 + i)})
                route_file(c, f"g{i}")
            if i % 3 == 0:
                c.gw.signal(signal.SIGHUP)
            wait_generation(c, f"g{i}")
            if i % 10 == 0:
                ask_prefix(f"after {i}")
                assert idle[i // 10].send(wire).answer("POST").status == 200
            if broken and i % 20 == 1:  # the good form is still in effect
                assert len(c.endpoints()) == 2, broken[0]
                assert http("GET", c.url("/broken")).status in (404, 200)
        results = load.since(start)
        took = load.mark() - start
    print(f"\n200 reloads in {took:.1f} s, {len(results)} requests, {len(results) / took:.0f}/s")
    bad = [r for r in load.results if r.outcome != "ok"]
    assert not bad, f"{len(bad)} of {len(load.results)}: {bad[:10]}"
    assert len(results) / took > 350, "the load was not there"
    assert len(homes) == 1, f"the prefix moved: {homes}"
    for r in idle:
        assert r.send(wire).answer("POST").status == 200
    c.gw.assert_idle()
    log = "\n".join(c.gw.lines)
    for name, file, _, field in BROKEN:
        assert re.search(re.escape(file), log), f"{name}: the log does not name {file}"
        assert field is None or field in log, f"{name}: the log does not name {field}"
    hits = [e["prefix_hit"] for e in c.gw.handled() if e["request_id"].startswith("after ")]
    assert len(hits) == 20 and min(hits) > 0.9, hits


def test_errors_name_file_line_field(split):
    """One log line per finding, with file, line, object, field and a sentence; the same once only for an unchanged file."""
    c = split(1)
    text = """# a comment first
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata:
  name: other
spec:
  targetPortNumber: 70000
  selector:
    app: qwen
  extensionRef:
    name: x
"""
    manifests.write(c.dir / "other.yaml", text)
    m = c.gw.wait_line(r"other\.yaml")
    line = m.string
    assert "targetPortNumber" in line and "70000" in line and ("other.yaml:7" in line or '"line":7' in line), line
    time.sleep(1)
    before = len([x for x in c.gw.lines if "70000" in x])
    time.sleep(1)
    assert len([x for x in c.gw.lines if "70000" in x]) == before, "an unchanged file is not complained about again and again"
    manifests.write(c.dir / "other.yaml", text.replace("70000", "7000"))
    wait_for(lambda: "pool/default/other" in json.dumps(c.gw.config()) or '"other"' in json.dumps(c.gw.config()), 5, what="the corrected pool")


def test_invalid_object_keeps_its_last_good_form(split):
    """A pool that becomes invalid keeps serving as it was; an object that is removed goes; unreadable YAML changes nothing."""
    c = split(2, {f"{ENV}/prefix-cache-lru-capacity": "1234"})
    for name, file, text, field in BROKEN:
        manifests.write(c.dir / file, broken_text(c, text))
        route_file(c, name.replace(" ", "-"))
        wait_generation(c, name.replace(" ", "-"))
        assert c.chat().status == 200, name
        assert setting(c, f"{ENV}/prefix-cache-lru-capacity") == "1234", name
        manifests.write(c.dir / "pool.yaml", manifests.dump(manifests.pool(annotations={f"{ENV}/prefix-cache-lru-capacity": "1234"})))
        manifests.write(c.dir / "gateway.yaml", manifests.dump(*manifests.gateway()))
        manifests.write(c.dir / "pods.yaml", manifests.dump(*(manifests.pod(p, s.ip) for p, s in c.sims.items())))
    route_file(c, "end")
    wait_generation(c, "end")
    (c.dir / "route.yaml").unlink()
    wait_for(lambda: http("GET", c.url("/version")).status == 404, 5, what="the removed route to be gone")
    route_file(c, "again")
    wait_generation(c, "again")


HOT = {  # annotation -> another valid value than its default; every one that a pool may have
    f"{X}/routing-strategy": "DEFAULT",
    f"{ENV}/prefix-cache-max-prefix-blocks": "256",
    f"{ENV}/prefix-cache-lru-capacity": "60000",
    f"{X}/queueing": "enabled",
    f"{ENV}/total-queue-capacity": "1000000",
    f"{ENV}/queue-ttl": "5s",
    f"{X}/model-server-runtime": "sglang",
    f"{X}/epp-overlay": "custom-epp",
    f"{ENV}/experimental-use-queueing": "true",
    f"{ENV}/experimental-use-scheduler-v2": "true",
    f"{ENV}/sd-queue-depth-threshold": "9",
    f"{ENV}/sd-kv-cache-util-threshold": "0.7",
    f"{ENV}/sd-metrics-staleness-threshold": "9s",
    "penstock.dev/unknown-model": "reject",
    "penstock.dev/prefix-depth": "documented",
    "penstock.dev/queue-order": "deadline",
    "penstock.dev/queue-discard": "earliest",
    "penstock.dev/total-queue-requests": "1000",
    "penstock.dev/queue-ttl-max": "10m",
    "penstock.dev/queue-early-refusal": "disabled",
    "penstock.dev/prefix-wait": "100ms",
    "penstock.dev/prefill-min-tokens": "64",
    "penstock.dev/conversation-hold": "30s",
    "penstock.dev/queue-late": "3s",
    "penstock.dev/policy": "prefix-cache",
    "penstock.dev/flow-weights": "a=2",
    "penstock.dev/trust-request-headers": "none",
    "penstock.dev/metrics-port": "9001",
    "penstock.dev/metrics-path": "/elsewhere",
    "penstock.dev/metrics-scheme": "https",
    f"{ENV}/total-queued-requests-metric": "waiting_requests{state=waiting}",
    f"{ENV}/total-running-requests-metric": "running_requests",
    f"{ENV}/kv-cache-usage-percentage-metric": "kv_usage",
    f"{ENV}/lora-info-metric": "lora_info",
    f"{ENV}/cache-info-metric": "cache_info",
    f"{ENV}/queue-score-weight": "2",
    f"{ENV}/kv-cache-score-weight": "2",
    f"{ENV}/prefix-cache-score-weight": "2",
    f"{ENV}/queuing-threshold-lora": "64",
    f"{ENV}/lora-affinity-threshold": "0.5",
    f"{ENV}/kv-cache-threshold": "0.5",
    f"{ENV}/queue-threshold-critical": "9",
    f"{ENV}/enable-prefix-cache-scheduling": "true",
    f"{ENV}/enable-req-header-based-scheduler-for-testing": "true",
    f"{ENV}/use-streaming": "true",
}


def test_every_annotation_changed_hot_keeps_index_and_ledger(split):
    """Each annotation in turn gets another value, then its old one: index and the request in flight stay; /config shows the value."""
    c = split(2, {f"{X}/routing-strategy": "PREFIX_CACHE"}, sim_options=("--time-scale", "1"))
    assert not {k for k in settings(c)} - set(HOT) - {f"{ENV}/prefix-cache-hash-block-size"}, "an annotation that this test does not know"
    for i in range(10):
        assert c.chat(f"Conversation {i}: " + f"word {i} " * 200, max_tokens=1).status == 200
    stream = Raw(c.ip, 8080, timeout=30)
    stream.send(post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "go on"}], "max_tokens": 8000, "ignore_eos": True,
                                       "stream": True})))
    assert stream.head().status == 200
    entries = c.pool()["index_entries"]
    assert entries > 100
    picks = {p: e["picks"] for p, e in c.endpoints().items()}
    base = {f"{X}/routing-strategy": "PREFIX_CACHE"}

    def check(what):
        pool = c.pool()
        assert pool["index_entries"] >= entries, f"{what}: the index lost entries: {entries} -> {pool['index_entries']}"
        assert pool["inflight"] == 1, f"{what}: the ledger lost the request in flight"
        assert {p: e["picks"] for p, e in c.endpoints().items()} == picks, what

    for key, value in HOT.items():
        pool_file(c, {**base, key: value})
        wait_for(lambda k=key, v=value: settings(c)[k].get("given") == v or setting(c, k) == v, 5, what=f"{key} = {value}")
        check(f"{key} = {value}")
    pool_file(c, {**base, f"{ENV}/prefix-cache-lru-capacity": "abc", f"{X}/routing-strategy": "FOO"})
    wait_for(lambda: any("FOO" in line for line in c.gw.lines), 5, what="a warning for FOO")
    time.sleep(0.3)
    check("bad values")
    pool_file(c, base)
    wait_for(lambda: setting(c, f"{X}/routing-strategy") == "PREFIX_CACHE", 5, what="the old values")
    check("the old values")
    pool_file(c, {**base, f"{ENV}/prefix-cache-hash-block-size": "128"})
    wait_for(lambda: setting(c, f"{ENV}/prefix-cache-hash-block-size") == "128", 5, what="block size 128")
    assert c.pool()["inflight"] == 1
    assert stream.more(), "the stream goes on"
    stream.sock.close()
    c.gw.assert_idle()
    assert c.chat("after all that").status == 200


def test_strategy_flips_under_load(split):
    """A5, B4: routing-strategy flips under load: in effect within 5 s, same process, no request fails, servers untouched."""
    c = split(4)
    pid = c.gw.pid
    shared = "The same long beginning for all of them. " * 100

    def spread(seconds, load):
        t = load.mark()
        time.sleep(seconds)
        return {r.pod for r in load.started_since(t)}

    with Load(c.url(), clients=6, rps=20, max_tokens=1, streams=False, prompt=lambda i: shared) as load:
        time.sleep(1)
        assert len(spread(2, load)) > 1, "DEFAULT spreads equal requests over idle servers"
        for strategy in ("PREFIX_CACHE", "DEFAULT", "PREFIX_CACHE"):
            pool_file(c, {f"{X}/routing-strategy": strategy})
            t = time.monotonic()
            wait_for(lambda: (len(spread(1.0, load)) == 1) == (strategy == "PREFIX_CACHE"), 5, what=f"{strategy} in effect")
            print(f"\n{strategy} in effect after {time.monotonic() - t:.1f} s")
    assert not [r for r in load.results if r.outcome != "ok"]
    assert c.gw.pid == pid and c.gw.alive()
    c.gw.assert_idle()


def test_pods_added_and_removed_under_load(split):
    """Pods come and go in the files: used within 2 s, left within 2 s, running streams on a removed pod end as they would."""
    c = split(3, sim_options=("--time-scale", "2"))
    pods = {p: s.ip for p, s in c.sims.items()}

    def apply(names):
        manifests.write(c.dir / "pods.yaml", manifests.dump(*(manifests.pod(p, pods[p]) for p in names)))

    with Load(c.url(), clients=12, max_tokens=20) as load:
        time.sleep(1)
        for _ in range(3):
            apply(["pod-0", "pod-1"])
            t = load.mark()
            wait_for(lambda: "pod-2" not in c.endpoints(), 2, what="pod-2 gone")
            gone = load.mark()
            time.sleep(0.5)
            assert not load.served_by("pod-2", gone + 0.05)
            apply(["pod-0", "pod-1", "pod-2"])
            t = load.mark()
            wait_for(lambda: load.served_by("pod-2", t), 2, what="pod-2 in use")
    assert not [r for r in load.results if r.outcome != "ok"], [r for r in load.results if r.outcome != "ok"][:5]
    c.gw.assert_idle()


def test_pool_replaced_by_another_under_load(split):
    """A route moves to a new pool and its old one goes in the same change: requests on their way by the old route are still served."""
    c = split(2, sim_options=("--time-scale", "20"))

    def apply(name, generation):
        objects = manifests.dump(manifests.route(header=("x-generation", generation), pool=name), manifests.pool(name))
        manifests.write(c.dir / "pool.yaml", objects)
        (c.dir / "route.yaml").unlink(missing_ok=True)  # one file, one change
        wait_generation(c, generation)

    apply("pool", "both in one file")
    with Load(c.url(), clients=25, rps=500, max_tokens=1, streams=False) as load:
        for i in range(60):
            apply(("pool-b", "pool")[i % 2], f"g{i}")
            time.sleep(0.05)
    bad = [r for r in load.results if r.outcome != "ok"]
    assert not bad, bad[:5]
    c.gw.assert_idle()
    shown = {labels["name"] for name, labels, _ in c.gw.metrics() if name == "penstock_pool_endpoints"}
    assert shown == {"pool"}, "a pool that is gone is not shown any more"


def test_directory_that_vanishes(split):
    """An unreadable path keeps the configuration as it is; it is read again when it comes back."""
    c = split(1)
    away = c.dir.with_name("away")
    c.dir.rename(away)
    time.sleep(1)
    assert c.chat().status == 200
    away.rename(c.dir)
    route_file(c, "back")
    wait_generation(c, "back")


def test_listener_added_and_removed(split):
    """A port is opened and closed by reload; requests under way on a closed port end as they would."""
    c = split(1, sim_options=("--time-scale", "1"))
    manifests.write(c.dir / "gateway.yaml", manifests.dump(*manifests.gateway(8080, 8082)))

    def serves():
        try:
            return http("POST", c.gw.url(8082, CHAT), {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).status == 200
        except OSError:
            return False

    wait_for(serves, 5, what="port 8082")
    stream = Raw(c.ip, 8082, timeout=30)
    stream.send(post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 60, "ignore_eos": True,
                                       "stream": True})))
    head = stream.head()
    assert head.status == 200
    manifests.write(c.dir / "gateway.yaml", manifests.dump(*manifests.gateway(8080)))
    wait_for(lambda: not serves(), 5, what="port 8082 closed")
    while b"[DONE]" not in stream.buf:
        assert stream.more(), "the stream on the closed listener was cut"
    assert c.chat().status == 200
    c.gw.assert_idle()
