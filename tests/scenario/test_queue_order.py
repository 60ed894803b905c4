"""Who goes first: rows B1, B2, D5, D11, D12, D14, D15, X5, X22, objectives, rewrites, fairness between flows."""
import json
import re
import subprocess
import threading
import time

import pytest

from conftest import http, wait_for
from resources import chat_body, many, model, ok, per_pod, world  # noqa: F401
from waiting import (FAIRNESS, FLOW, OBJECTIVE, ON, QUEUEING, THRESHOLD, TTL, WEIGHTS, Shot, asked, empty, fill, objective, queued, rewrite, shoot,
                     shoot_in_turn, wait_queued)

CLASSES = (model("critical", ["qwen"], "Critical"), model("standard", ["qwen"], "Standard"), model("sheddable", ["qwen"], "Sheddable"))
ONE_BY_ONE = ("--max-num-seqs", "1")


@pytest.fixture
def narrow(world):
    """One server that serves one request at a time, and a gateway with one worker: what is decided first is sent first."""
    world.server("pod-0", *ONE_BY_ONE)
    return world


def start(w, annotations=None, *more):
    return w.start_pool({**ON, THRESHOLD: "1", TTL: "5m", **(annotations or {})}, *more, options=("--workers", "1"))


def test_classes_in_order(narrow):
    """D11: 10 of each class interleaved: all Critical, then Standard, then Sheddable; first come first served inside a class."""
    w = start(narrow, {}, *CLASSES)
    fill(w)
    names = ("sheddable", "standard", "critical")
    shots = shoot_in_turn(w, [(names[i % 3], {}, f"{names[i % 3]} {i}") for i in range(30)])
    assert w.gw.metric(FLOW + "queue_size", priority="1", model_name="critical") == 10
    assert w.gw.metric(FLOW + "queue_size", priority="-1", model_name="sheddable") == 10
    empty(w)
    for s in shots:
        s.ok()
    seen = [t.split() for t in asked(w, "pod-0")]
    assert [c for c, _ in seen] == ["critical"] * 10 + ["standard"] * 10 + ["sheddable"] * 10
    for name in names:
        numbers = [int(n) for c, n in seen if c == name]
        # The first few are sent in one go, over connections of their own: the server may read them in another order.
        assert numbers[9:] == sorted(numbers)[9:] and (name == "critical" or numbers == sorted(numbers)), (name, numbers)
    assert {e["criticality"]: e["priority"] for e in w.gw.handled(30)} == {"Critical": 1, "Standard": 0, "Sheddable": -1}


def test_a_higher_class_overtakes(narrow):
    """D12, D15: a late Critical is served before the Standard ones that wait; the labels say which is which."""
    w = start(narrow, {}, model("qwen", ["qwen"], "Critical"), model("travel-helper", ["qwen"], "Standard"))
    w.chat("warm up")
    fill(w)
    shots = shoot_in_turn(w, [("travel-helper", {}, f"standard {i}") for i in range(20)] + [("qwen", {}, "critical")])
    empty(w)
    for s in shots:
        s.ok()
    order = asked(w, "pod-0")[1:]
    assert order.index("critical") < 10, "sent in the first go"
    done = {s.body["messages"][0]["content"]: s.t1 for s in shots}
    assert sum(t < done["critical"] for t in done.values()) < 10
    for name, priority in (("qwen", "1"), ("travel-helper", "0")):
        assert w.gw.metric("inference_objective_request_total", model_name=name, priority=priority) >= 1
    assert w.gw.metric("inference_objective_request_total", model_name="travel-helper", priority="1") == 0


def test_newest_first_while_waits_are_long(narrow):
    """queue-order: adaptive, set while requests wait: those that came late go first once somebody has waited longer than queue-late, in each class; metric, page
    and top tell so. Then first come first served again."""
    adaptive = {**ON, THRESHOLD: "1", TTL: "5m", "penstock.dev/queue-order": "adaptive", "penstock.dev/queue-late": "1s"}
    w = start(narrow, {}, *CLASSES)
    w.chat("warm up")
    fill(w)
    shots = shoot_in_turn(w, [(("standard", "critical")[i % 2], {}, f"long {i}") for i in range(30)])
    time.sleep(1.2)
    assert w.gw.metric("penstock_pool_newest_first") == 0
    w.annotate(adaptive, *CLASSES)
    wait_for(lambda: w.gw.metric("penstock_pool_newest_first") == 1, 5, what="newest first")
    assert w.backend()["queue_newest_first"] is True
    top = subprocess.run([w.gw.proc.args[0], "top", "--once", "--admin", w.gw.admin[len("http://"):]], capture_output=True, text=True, timeout=20)
    assert re.search(r"queue: 30 waiting.*, newest first", top.stdout), top.stdout
    empty(w)
    for s in shots:
        s.ok()
    order = [int(t.split()[1]) for t in asked(w, "pod-0")[1:]]
    assert sorted(order[:15]) == list(range(1, 30, 2)), "Critical first, as ever"
    standard = order[15:]
    assert standard == sorted(standard, reverse=True), order
    assert order[6:15] == sorted(order[6:15], reverse=True), "the first few are sent in one go"
    wait_for(lambda: w.gw.metric("penstock_pool_newest_first") == 0, 5, what="the usual order")
    fill(w)
    shots = shoot_in_turn(w, [("standard", {}, f"short {i}") for i in range(12)])
    empty(w)
    for s in shots:
        s.ok()
    order = [int(t.split()[1]) for t in asked(w, "pod-0")[31:]]
    assert order[6:] == sorted(order)[6:], order


def test_objectives(narrow):
    """InferenceObjective by header (both spellings): any integer, higher first; it counts before the class of the model; unknown: as without."""
    w = start(narrow, {}, model("qwen", ["qwen"], "Critical"), objective("urgent", 100), objective("batch", -100))
    w.chat("warm up")
    fill(w)
    heads = {"urgent": {OBJECTIVE: "urgent"}, "batch": {OBJECTIVE: "batch"}, "llmd": {"X-LLM-D-Inference-Objective": "urgent"}, "none": {},
             "unknown": {OBJECTIVE: "nobody"}}
    shots = shoot_in_turn(w, [("qwen", heads[k], f"{k} {i}") for i in range(8) for k in ("batch", "none", "unknown", "urgent", "llmd")])
    for priority, n in (("100", 16), ("1", 16), ("-100", 8)):
        assert w.gw.metric(FLOW + "queue_size", priority=priority) == n
    empty(w)
    for s in shots:
        s.ok()
    kinds = [t.split()[0] for t in asked(w, "pod-0")[1:]]
    assert set(kinds[:16]) == {"urgent", "llmd"} and set(kinds[16:32]) == {"none", "unknown"} and set(kinds[32:]) == {"batch"}
    lines = [e for e in w.gw.handled(41)]
    assert {e.get("objective"): e["priority"] for e in lines} == {"urgent": 100, "batch": -100, None: 1, "nobody": 1}
    for r in w.captured("pod-0"):
        assert not {"x-gateway-inference-objective", "x-llm-d-inference-objective"} & set(r["headers"])


def test_objective_change_is_hot(narrow):
    w = start(narrow, {}, objective("mine", 3))
    fill(w)
    first = shoot(w, 1, headers={OBJECTIVE: "mine"})
    wait_queued(w, 1)
    from manifests import pool, route
    w.apply(pool(annotations={**ON, THRESHOLD: "1"}), route(), objective("mine", 9))
    second = shoot(w, 2, headers={OBJECTIVE: "mine"})
    wait_queued(w, 2)
    assert w.gw.metric(FLOW + "queue_size", priority="3") == 1 and w.gw.metric(FLOW + "queue_size", priority="9") == 1
    empty(w)
    first.ok()
    second.ok()


def flood(w, names, n, tokens=8):
    """n requests of each flow, the first flow's all before the others'."""
    return [Shot(w.url(), chat_body(f"{name} {i}", max_tokens=tokens), {FAIRNESS: name}) for name in names for i in range(n)]


def test_fair_between_flows(narrow):
    """One flow came first with many requests, another later with as many: from then on both get the same service, in tokens."""
    w = start(narrow)
    fill(w)
    shots = flood(w, ["greedy"], 40)
    wait_queued(w, 40)
    shots += flood(w, ["modest"], 20)
    wait_queued(w, 60)
    assert w.gw.metric(FLOW + "queue_size", fairness_id="greedy") == 40
    assert w.gw.metric(FLOW + "queue_size", fairness_id="modest") == 20
    empty(w)
    for s in shots:
        s.ok()
    order = [t.split()[0] for t in asked(w, "pod-0")]
    for n in range(12, 40, 4):
        assert abs(order[:n].count("modest") - order[:n].count("greedy")) <= 6, (n, order[:n])
    assert {e.get("fairness_id") for e in w.gw.handled(60)} == {"greedy", "modest"}
    assert all("x-gateway-inference-fairness-id" not in r["headers"] for r in w.captured("pod-0"))


def test_weights_of_flows(narrow):
    """A flow of weight 3 gets about three times the service of the other while both wait."""
    w = start(narrow, {WEIGHTS: "gold=3"})
    fill(w)
    shots = flood(w, ["plain", "gold"], 32)
    wait_queued(w, 64)
    empty(w)
    for s in shots:
        s.ok()
    first = [t.split()[0] for t in asked(w, "pod-0")][:36]
    assert 22 <= first.count("gold") <= 31, first


def test_labels_of_clients_are_bounded(narrow):
    """Fairness ids are the clients' to choose: 256 of them are labels, the rest is _other; a hostile one breaks nothing."""
    w = start(narrow)
    fill(w)
    shots = [shoot(w, 0, headers={FAIRNESS: 'a"b\\c d{}=\t' + "x" * 5000})]
    body = json.dumps(chat_body())
    wait_queued(w, 1)
    for i in range(300):
        http("POST", w.url(), body, {"Content-Type": "application/json", FAIRNESS: f"id-{i}", "x-penstock-queue-ttl": "1ms"})
    series = [m for m in w.gw.metrics() if m[0] == FLOW + "queue_size"]
    assert len(series) <= 258 and any(labels["fairness_id"] == "_other" for _, labels, _ in series)
    assert all(len(labels["fairness_id"]) <= 300 for _, labels, _ in series)
    empty(w)
    shots[0].ok()


def test_rewrite(world):
    """InferenceModelRewrite: 80/20 on two targets (X5), exact before any, before the targets of the InferenceModel, whose class still counts."""
    world.server("pod-0", model=["qwen", "v1", "v2", "other"])
    world.start_pool({}, model("qwen", ["other"], "Critical"), rewrite("canary", [("v1", 80), ("v2", 20)], "qwen"), rewrite("rest", [("other", 1)]))
    results = ok(many(world.url(), 600, 8, body=lambda i: chat_body(f"question {i}", max_tokens=1)))
    share = sum(json.loads(r.body)["model"] == "v1" for r in results) / 600
    assert 0.74 < share < 0.86
    assert world.chat(name="whatever").json()["model"] == "other"
    rewrites = "inference_extension_model_rewrite_decisions_total"
    counted = {t: world.gw.metric(rewrites, model_rewrite_name="canary", model_name="qwen", target_model=t) for t in ("v1", "v2")}
    assert sum(counted.values()) == 600 and abs(counted["v1"] / 600 - share) < 1e-6
    assert world.gw.metric(rewrites, model_rewrite_name="rest", model_name="whatever", target_model="other") == 1
    line = next(e for e in world.gw.handled(601) if e["model"] == "qwen")
    assert (line["criticality"], line["priority"]) == ("Critical", 1)


def test_rewrite_makes_a_model_known(world):
    world.server("pod-0", model=["qwen"])
    world.start_pool({"penstock.dev/unknown-model": "reject"}, rewrite("alias", [("qwen", 1)], "gpt-4"))
    assert world.chat(name="gpt-4").json()["model"] == "qwen"
    assert world.chat(name="gpt-5").status == 404
    wait_for(lambda: {m["id"] for m in http("GET", world.url("/v1/models")).json()["data"]} == {"qwen", "gpt-4"}, 5)


def test_least_load(world):
    """B2: equal queues, the emptier cache; equal caches, the shorter queue. B1: a slow one of four gets less than an eighth."""
    world.serve(2).start_pool()
    for kv0, kv1, q0, q1, want in ((0.9, 0.1, 0, 0, "pod-1"), (0.1, 0.9, 0, 0, "pod-0"), (0.3, 0.3, 5, 0, "pod-1"), (0.3, 0.3, 0, 5, "pod-0")):
        world.fix_metrics("pod-0", kv=kv0, waiting=q0, running=2)
        world.fix_metrics("pod-1", kv=kv1, waiting=q1, running=2)
        for i in range(6):
            assert world.chat(f"{want} {kv0} {q0} {i}").headers["x-inference-pod"] == want


def test_slow_server_gets_less(world):
    world.serve(4).start_pool()
    world.control("pod-2", "POST", "/fault", {"kind": "slow", "factor": 5})
    share = per_pod(many(world.url(), 400, 16, body=lambda i: chat_body(f"question {i}", max_tokens=16)))
    assert share["pod-2"] < 50, share


class Watch(threading.Thread):
    """The longest queue that a server itself reports."""

    def __init__(self, w, name):
        super().__init__(daemon=True)
        self.w, self.name, self.most, self.stop = w, name, 0, False
        self.start()

    def run(self):
        while not self.stop:
            state = self.w.control(self.name, "GET", "/state").json()
            self.most = max(self.most, state["waiting"])
            time.sleep(0.02)


def test_servers_are_not_overloaded(world):
    """D5, D4: four times what the servers can take at once: their own queues stay near the threshold, and everybody is served."""
    world.serve(2, "--max-num-seqs", "4").start_pool({**ON, THRESHOLD: "2", TTL: "2m"})
    watches = [Watch(world, n) for n in world.servers]
    ok(many(world.url(), 200, 64, body=lambda i: chat_body(f"question {i}", max_tokens=24, stream=True)))
    for x in watches:
        x.stop = True
        x.join()
    assert world.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="Dispatched") == 200
    assert all(x.most <= 2 + 10 for x in watches), [x.most for x in watches]
    world.gw.assert_idle()
    assert queued(world) == 0 and QUEUEING in world.settings()
    wait_for(lambda: not world.backend()["saturated"], 5)
