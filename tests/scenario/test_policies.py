"""Which pod a request goes to: pools and their pods, load, bursts, refusal at saturation (rows A1, A11, A12, A19, B1, B2, B35-B37, C34, C35, D11, decision 4)."""
import json
import time
from collections import Counter

import pytest

import manifests
from conftest import EXAMPLES, http, wait_for
from manifests import ENV
from resources import (PREFIX, Steady, chat_body, httproute, many, model, path, per_pod, pool_ref, rule, text_of, world)  # noqa: F401


# --- pods of a pool ------------------------------------------------------------------------------------------------------------------


def test_each_pool_picks_only_its_own_pods(world):
    """A1, B35, B36, B37: two pools with ports of their own (8000 and 30000); a pod with one of two labels, and one not ready, is no endpoint."""
    w = world
    both = {"app": "qwen", "role": "leader"}
    for i in range(2):
        w.server(f"a-{i}", labels={"app": "a"})
        w.server(f"b-{i}", labels=both, port=30000)
    w.server("half", labels={"app": "qwen"}, port=30000)
    w.server("worker", labels={"app": "qwen", "role": "worker"}, port=30000)
    w.put("unready", manifests.pod("unready", "127.0.0.9", {"app": "a"}, ready=False))
    w.start(manifests.pool("one", labels={"app": "a"}), manifests.pool("two", port=30000, labels=both),
            httproute(rule(pool_ref("one"), matches=[path("/one")], filters=[strip("/one")]),
                      rule(pool_ref("two"), matches=[path("/two")], filters=[strip("/two")])))
    assert set(w.endpoints("one")) == {"a-0", "a-1"} and set(w.endpoints("two")) == {"b-0", "b-1"}
    assert all(e["address"].endswith(":30000") for e in w.endpoints("two").values())
    assert set(per_pod(many(w.url("/one/v1/chat/completions"), 20))) == {"a-0", "a-1"}
    assert set(per_pod(many(w.url("/two/v1/chat/completions"), 20))) == {"b-0", "b-1"}
    assert {(h["pool"], h["pod"][0]) for h in w.gw.handled(40)} == {("one", "a"), ("two", "b")}
    for n in ("half", "worker"):
        assert not w.captured(n)


def strip(prefix):
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}


def test_pods_of_a_file_come_and_go(world):
    """C3, B36, D8: pods added to, changed in and removed from a file: the endpoints follow within 2 s and no request fails."""
    w = world.serve(3, "--time-scale", "5").start_pool()
    with Steady(w.url()) as steady:
        w.put("pods", *(manifests.pod(n, s.ip) for n, s in w.servers.items() if n != "pod-1"))
        wait_for(lambda: set(w.endpoints()) == {"pod-0", "pod-2"}, 2, what="pod-1 to leave")
        t = steady.mark()
        time.sleep(0.5)
        assert set(steady.pods_since(t)) == {"pod-0", "pod-2"}
        w.put("pods", *(manifests.pod(n, s.ip, ready=n != "pod-2") for n, s in w.servers.items()))
        wait_for(lambda: set(w.endpoints()) == {"pod-0", "pod-1"}, 2, what="pod-1 to return and pod-2 to leave")
        t = steady.mark()
        wait_for(lambda: set(steady.pods_since(t)) == {"pod-0", "pod-1"}, 2, what="the pod that returned to be used")


# --- load ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotations", [None, PREFIX], ids=["DEFAULT", "PREFIX_CACHE"])
def test_a_server_with_a_queue_is_avoided(world, annotations):
    """A11: one server reports a queue of 20, the others none: it gets no request while that holds, and some when it is over."""
    w = world.serve(3, "--time-scale", "10").start_pool(annotations)
    w.fix_metrics("pod-1", waiting=20, running=1)
    counts = per_pod(many(w.url(), 60, clients=4, body=lambda i: chat_body(text_of(300, i))))
    assert counts["pod-1"] == 0 and set(counts) == {"pod-0", "pod-2"}, (counts, [h for h in w.gw.handled(60) if h["pod"] == "pod-1"])
    w.fix_metrics("pod-1", waiting=0, running=0)
    wait_for(lambda: per_pod(many(w.url(), 20, clients=4, body=lambda i: chat_body(text_of(300, 100 + i))))["pod-1"], 10, what="the server to be used again")


@pytest.mark.parametrize("first, second", [({"kv": 0.9, "waiting": 0, "running": 2}, {"kv": 0.1, "waiting": 0, "running": 2}),
                                           ({"kv": 0.3, "waiting": 5, "running": 2}, {"kv": 0.3, "waiting": 0, "running": 2})], ids=["kv", "queue"])
def test_queue_and_cache_both_count(world, first, second):
    """B2, C35: equal queues, cache 0.9 against 0.1: the second; equal cache, queue 5 against 0: the second."""
    w = world.serve(2, "--time-scale", "10").start_pool()
    w.fix_metrics("pod-0", **first)
    w.fix_metrics("pod-1", **second)
    counts = Counter(w.chat(f"question {i}").headers["x-inference-pod"] for i in range(20))
    assert counts == {"pod-1": 20}
    costs = w.gw.handled(20)[-1]["costs"]
    by_name = {c["name"]: c["total"] for c in costs}
    assert by_name["pod-0"] > by_name["pod-1"]
    w.fix_metrics("pod-0", **second)
    w.fix_metrics("pod-1", **first)
    assert Counter(w.chat(f"question {i}").headers["x-inference-pod"] for i in range(20)) == {"pod-0": 20}


@pytest.mark.parametrize("annotations", [None, PREFIX], ids=["DEFAULT", "PREFIX_CACHE"])
def test_slow_server_gets_less(world, annotations):
    """B1: one of four servers is five times slower: of 400 requests it gets less than an eighth."""
    w = world.serve(4, "--time-scale", "4").start_pool(annotations)
    w.control("pod-2", "POST", "/fault", {"kind": "slow", "factor": 5})
    counts = per_pod(many(w.url(), 400, clients=24, body=lambda i: chat_body(text_of(400, i), max_tokens=20)))
    assert counts["pod-2"] < 50, counts
    assert max(counts.values()) < 180, counts


def test_burst_is_even(world):
    """DEFAULT: 200 equal requests at once to 10 idle equal servers, none of which ends meanwhile: 20 each, within one."""
    w = world.serve(10, "--frontend-ms", "4000").start_pool()
    start = time.monotonic()
    counts = per_pod(many(w.url(), 200, clients=200, body=lambda i: chat_body("the same question for everybody")))
    assert time.monotonic() - start > 4, "none was done before all were sent"
    assert len(counts) == 10 and set(counts.values()) <= {19, 20, 21}, counts
    picks = {n: e["picks"] for n, e in w.endpoints().items()}
    assert picks == counts
    w.gw.assert_idle()


def test_affinity_yields_to_load(world):
    """A12: ten conversations of five turns on idle servers stay on one each; when its server is full, a conversation goes elsewhere."""
    w = world.serve(4, "--time-scale", "10").start_pool(PREFIX)
    homes = {}
    for i in range(10):
        messages = [{"role": "user", "content": text_of(600, i)}]
        pods = set()
        for turn in range(5):
            answer = http("POST", w.url(), {"model": "qwen", "max_tokens": 4, "messages": messages})
            pods.add(answer.headers["x-inference-pod"])
            messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": f"and point {turn}?"}]
        assert len(pods) == 1, f"conversation {i} was on {pods}"
        homes[i] = pods.pop(), messages
    home, messages = homes[0]
    w.fix_metrics(home, waiting=40, running=60, kv=0.99)
    moved = http("POST", w.url(), {"model": "qwen", "max_tokens": 4, "messages": messages}).headers["x-inference-pod"]
    assert moved != home


@pytest.mark.parametrize("options", [(), ("--jitter",)], ids=["steady", "jitter"])
def test_two_rounds_with_stale_metrics(world, options):
    """B11, B42: a second round finds the pod of its first 100 times of 100, though metrics are read once in a minute and others use the pods, too."""
    w = world.serve(4, "--time-scale", "10", *options).start_pool(PREFIX, options=("--scrape-interval", "60s"))
    round1, round2 = (json.loads((EXAMPLES / "smart-routing" / n).read_text()) for n in ("round1.txt", "round2.txt"))
    with Steady(w.url(), clients=3, body=lambda i: chat_body(text_of(150, i), max_tokens=8)):
        split = 0
        for i in range(100):
            pods = set()
            for body in (round1, round2):
                text = json.dumps({**body, "model": "qwen", "max_tokens": 2}).replace("For user 3", f"For user {i} of {i * 7919 % 1009}")
                answer = http("POST", w.url(), text, {"Content-Type": "application/json"})
                assert answer.status == 200, answer.text
                pods.add(answer.headers["x-inference-pod"])
            split += len(pods) > 1
    assert split == 0


# --- saturation ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [{"waiting": 30, "running": 8, "kv": 0.5}, {"waiting": 0, "running": 8, "kv": 0.95}], ids=["queue", "kv"])
def test_only_sheddable_is_refused_at_saturation(world, full):
    """Decision 4, A19, B32: queueing off and every server full: Sheddable gets 429 with Retry-After, the others are forwarded; nothing waits here."""
    w = world.serve(2, "--time-scale", "10", model=["vip", "plain", "cheap", "unnamed"])
    w.start_pool(None, model("vip", criticality="Critical"), model("plain", criticality="Standard"), model("cheap", criticality="Sheddable"))
    assert w.chat(name="cheap").status == 200
    w.fix_metrics("pod-0", **full)
    assert w.chat(name="cheap").status == 200, "one server has room"
    w.fix_metrics("pod-1", **full)
    assert w.backend()["saturated"]
    for name in ("vip", "plain", "unnamed"):
        assert w.chat(name=name).status == 200, name
    refused = w.chat(name="cheap")
    assert refused.status == 429 and refused.json()["error"]["code"] == "shed", refused.text
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["error"]["type"] and refused.json()["error"]["message"]
    lines = {(h["model"], h["status"]): h["criticality"] for h in w.gw.handled(6)}
    assert lines[("vip", 200)] == "Critical" and lines[("plain", 200)] == lines[("unnamed", 200)] == "Standard"
    assert lines[("cheap", 429)] == "Sheddable"
    assert w.backend()["rejects_shed"] == 1 and w.backend()["queued"] == 0
    assert w.gw.metric("penstock_pool_queued") == 0 and w.gw.metric("penstock_rejected_total", code="shed") == 1
    w.fix_metrics("pod-1", waiting=0, running=0, kv=0.1)
    assert w.chat(name="cheap").status == 200
    w.gw.assert_idle()


def test_saturation_threshold_is_a_setting(world):
    """The picker's setting sd-queue-depth-threshold is in effect (decision 12)."""
    w = world.serve(1, "--time-scale", "10", model=["cheap"])
    more = [model("cheap", criticality="Sheddable")]
    w.start_pool({ENV + "/sd-queue-depth-threshold": "50"}, *more)
    w.fix_metrics("pod-0", waiting=30, running=8, kv=0.1)
    assert w.chat(name="cheap").status == 200
    w.annotate({ENV + "/sd-queue-depth-threshold": "10"}, *more)
    assert w.chat(name="cheap").status == 429


def test_choice_is_explained(world):
    """The log line tells the cost of each endpoint at the pick, in seconds, and the reason."""
    w = world.serve(3, "--time-scale", "10").start_pool(PREFIX)
    line, answer = w.line(lambda: w.chat(text_of(500, 1)))
    assert {c["name"] for c in line["costs"]} == set(w.servers)
    assert all(c["total"] >= 0 for c in line["costs"])
    again, _ = w.line(lambda: w.chat(text_of(500, 1)))
    assert again["reason"] == "prefix_holder" and again["pod"] == line["pod"] == answer.headers["x-inference-pod"]
    assert again["prefix_hit"] > 0.8 and json.dumps(again).count(text_of(500, 1)[:30]) == 0
