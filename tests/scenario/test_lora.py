"""LoRA adapters: servers that have one loaded are preferred, slots are respected, all share one capacity (rows D7, D14, D30, X5)."""
import json
import re
import time
from collections import Counter

import pytest

import manifests
from conftest import EXAMPLES, http, wait_for
from resources import chat_body, many, model, ok, per_pod, world  # noqa: F401
from waiting import ON, THRESHOLD, Shot, wait_queued


def lora(names, slots=2, *more):
    return ("--enable-lora", "--max-loras", str(slots), "--max-cpu-loras", "16", "--lora-modules", *(f"{n}=/adapters/{n}" for n in names), *more)


def pool(w, annotations=None, *more):
    """Starts the gateway and waits until it knows the slots of every server (they show once a server has worked)."""
    for name in w.servers:
        answer = http("POST", w.servers[name].base + "/v1/completions", {"model": "qwen", "prompt": "warm", "max_tokens": 1})
        assert answer.status == 200, answer.text
    w.start_pool(annotations, *more)
    wait_for(lambda: all(e["load"]["lora_slots"] for e in w.endpoints().values()), 10, what="the slots of all servers")
    w.forget()
    return w


def state(w, name):
    return http("GET", f"{w.servers[name].control}/sim/state").json()


def loads(w):
    return sum(state(w, n)["lora_loads"] for n in w.servers)


def models_asked(w, name):
    return [json.loads(r["body"])["model"] for r in w.captured(name) if r["path"] == "/v1/chat/completions"]


def series(text):
    """{(running, waiting): time} of a metrics page."""
    rx = re.compile(r'^vllm:lora_requests_info\{max_lora="(\d+)",running_lora_adapters="([^"]*)",waiting_lora_adapters="([^"]*)"\} (\S+)$', re.M)
    return {(run, wait): float(at) for _, run, wait, at in rx.findall(text)}


def test_server_tells_of_adapters(sim, release_binary):
    """D7: base and adapters in the model list; who runs and who waits for a slot in the metrics, the newest series is the current one; answers name
    the adapter."""
    s = sim("/models/q", "--served-model-name", "qwen", *lora(["a", "b", "c"], 1), binary=release_binary)
    cards = http("GET", s.base + "/v1/models").json()["data"]
    assert [(c["id"], c["parent"]) for c in cards] == [("qwen", None), ("a", "qwen"), ("b", "qwen"), ("c", "qwen")]
    assert "lora_requests_info" not in http("GET", s.base + "/metrics").text
    url = s.base + "/v1/chat/completions"
    first = Shot(url, chat_body("long", "a", max_tokens=60))
    wait_for(lambda: ("a", "") in series(http("GET", s.base + "/metrics").text), 5, what="adapter a running")
    second = Shot(url, chat_body("short", "b"))

    def current():
        found = series(http("GET", s.base + "/metrics").text)
        return max(found, key=found.get) == ("a", "b")

    wait_for(current, 5, what="adapter b waiting")
    text = http("GET", s.base + "/metrics").text
    assert re.search(r'vllm:num_requests_waiting_by_reason\{.*reason="deferred"\} 1.0', text)
    assert first.ok().json()["model"] == "a" and second.ok().json()["model"] == "b"
    assert second.t1 > first.t1
    wait_for(lambda: len(series(http("GET", s.base + "/metrics").text)) >= 3, 5, what="old series stay")
    places = {x["name"]: x["place"] for x in http("GET", s.control + "/sim/state").json()["loras"]}
    assert places == {"a": "memory", "b": "gpu", "c": "memory"}


def test_load_takes_time(sim, release_binary):
    """An adapter that is not on the GPU makes its first request slower, by the configured time; then it is there."""
    s = sim("/models/q", "--served-model-name", "qwen", *lora(["a", "b"], 1, "--lora-load-ms", "400", "--jitter"), binary=release_binary)

    def seconds(name):
        t = time.monotonic()
        assert http("POST", s.base + "/v1/chat/completions", chat_body("x", name, max_tokens=1)).status == 200
        return time.monotonic() - t

    assert seconds("b") < 0.3  # named last: on the GPU from the start
    assert seconds("a") >= 0.4 and seconds("a") < 0.3
    assert seconds("b") >= 0.4


def test_canary_of_two_adapters(world):
    """X5: 80 to 20 between two versions of an adapter, +-3 %, as the servers see it; D14: the body's model is rewritten, the answer names it."""
    names = ["helper-v1", "helper-v2"]
    for i in range(3):
        world.server(f"pod-{i}", *lora(names), "--time-scale", "50")
    w = pool(world, None, model("helper", [("helper-v1", 80), ("helper-v2", 20)]))
    n = 2000
    answered = Counter(json.loads(o.body)["model"] for o in ok(many(w.url(), n, 24, body=lambda i: chat_body(f"question {i}", "helper"))))
    assert set(answered) == set(names) and abs(answered["helper-v1"] / n - 0.8) <= 0.03, answered
    asked = Counter(m for p in w.servers for m in models_asked(w, p))
    assert asked == answered
    lines = w.gw.handled(n)
    assert {line["model"] for line in lines} == {"helper"}
    assert Counter(line["target_model"] for line in lines) == answered
    w.gw.assert_idle()


def test_loaded_server_is_preferred(world):
    """D30: whoever has the adapter gets its requests, whatever came for others meanwhile; requests for the base go everywhere."""
    w = pool(world.serve(4, *lora(["a", "b", "c", "d"], 2), "--time-scale", "10"))
    homes = {}
    for name in ("a", "b", "c", "d"):
        homes[name] = w.line(lambda: w.chat(name=name))[1].headers["x-inference-pod"]
    assert len(set(homes.values())) == 4, "free slots of idle servers, in turn"
    for i in range(5):
        for name, home in homes.items():
            line, answer = w.line(lambda: w.chat(f"question {i}", name=name))
            assert answer.headers["x-inference-pod"] == home
            costs = {c["name"].split("/")[-1]: c.get("lora", 0) for c in line["costs"]}
            others = [v for p, v in costs.items() if p != home]
            assert costs[home] == 0 and all(abs(v - 0.2) < 0.11 and v > 0 for v in others), costs
    assert loads(w) <= 4
    spread = per_pod(many(w.url(), 40, 4, body=lambda i: chat_body(f"base {i}")))
    assert len(spread) == 4
    w.gw.assert_idle()


def test_more_adapters_than_a_server_has_slots(world):
    """D30 under load: 8 adapters on 4 x 2 slots gather, two on each server, without loading again and again; the servers are used alike."""
    names = [f"adapter-{i}" for i in range(8)]
    w = pool(world.serve(4, *lora(names), "--time-scale", "10"))
    n = 800
    outcomes = ok(many(w.url(), n, 32, body=lambda i: chat_body(f"question {i}", names[i * 7919 % 8], max_tokens=40)))
    assert all(json.loads(o.body)["model"] == names[o.i * 7919 % 8] for o in outcomes)
    served = per_pod(outcomes)
    assert len(served) == 4 and max(served.values()) <= 1.3 * n / 4, served
    mostly = [[m for m, k in Counter(models_asked(w, p)).items() if k >= n / 4 / 10] for p in w.servers]
    assert all(len(m) <= 3 for m in mostly), mostly
    assert loads(w) <= 80, "at random, most requests would need a load"
    w.gw.assert_idle()


def test_waits_for_a_slot_in_the_gateway(world):
    """D30 with queueing: where all slots are in use a request for another adapter waits here, not there; the base and the adapter in use pass it."""
    w = pool(world.serve(1, *lora(["a", "b"], 1)), ON)
    long = Shot(w.url(), chat_body("long", "a", max_tokens=150))
    wait_for(lambda: models_asked(w, "pod-0") == ["a"], 5, what="the first request there")
    other = Shot(w.url(), chat_body("other", "b"))
    wait_queued(w, 1)
    assert w.chat("base").status == 200
    assert w.chat("same", name="a").status == 200
    assert "b" not in models_asked(w, "pod-0") and long.is_alive()
    long.ok()
    assert other.ok().json()["model"] == "b"
    line = w.line_of(other.answer)
    assert line["queue_ms"] > 500 and w.line_of(long.answer)["queue_ms"] == 0
    assert models_asked(w, "pod-0")[-1] == "b"
    w.gw.assert_idle()


def test_adapters_share_the_capacity(world):
    """D30: requests for an adapter fill a server for everybody: with queueing the base waits behind them, too."""
    w = pool(world.serve(1, *lora(["a"], 1), "--max-num-seqs", "4"), {**ON, THRESHOLD: "2"})
    shots = [Shot(w.url(), chat_body(f"adapter {i}", "a", max_tokens=150)) for i in range(4)]
    wait_for(lambda: state(w, "pod-0")["running"] == 4, 10, what="four running")
    more = [Shot(w.url(), chat_body(f"more {i}", "a", max_tokens=150)) for i in range(12)]
    wait_for(lambda: w.gw.metric("penstock_pool_queued") >= 1, 10, what="somebody waiting")
    base = Shot(w.url(), chat_body("base"))
    for s in shots + more:
        s.ok()
    base.ok()
    assert w.line_of(base.answer)["queue_ms"] > 0
    (endpoint,) = w.endpoints().values()
    assert endpoint["inflight"] == 0
    w.gw.assert_idle()


def test_document_s_pool(sandbox):
    """D7, D14, D30 on the document's manifests: travel-helper goes out as travel-helper-v1 to the servers that used it last; qwen is not held up."""
    sb = sandbox(EXAMPLES / "queueing", options=("--time-scale", "10"))
    url = sb.url(8081, "/v1/chat/completions")
    ok(many(url, 20, 5, body=lambda i: chat_body(f"warm {i}", "qwen")))
    (p,) = [p for p in sb.endpoints()["pools"] if p["kind"] == "InferencePool"]

    def known():
        (p,) = [p for p in sb.endpoints()["pools"] if p["kind"] == "InferencePool"]
        return all(e["load"]["lora_slots"] == 2 for e in p["endpoints"])

    wait_for(known, 10, what="the slots of all servers")
    pods = Counter()
    for i in range(20):
        answer = http("POST", url, chat_body(f"trip {i}", "travel-helper"))
        assert answer.status == 200 and answer.json()["model"] == "travel-helper-v1"
        pods[answer.headers["x-inference-pod"]] += 1
    assert len(pods) == 1, pods
    (holder,) = pods
    assert {json.loads(r["body"])["model"] for r in sb.pod(holder, "GET", "/requests").json()["requests"][-20:]} == {"travel-helper-v1"}
    spread = per_pod(many(url, 100, 10, body=lambda i: chat_body(f"base {i}", "qwen")))
    assert len(spread) == 5, spread
    sb.assert_idle()
