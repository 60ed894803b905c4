"""A gateway at the limit of its own CPU matches prefixes less, says so, answers everybody, and recovers."""
import json
import multiprocessing
import random
import threading
import time

import pytest

import manifests
from conftest import build_dir, http, wait_for
from manifests import X
from rawhttp import Closed, Raw, post

CHAT = "/v1/chat/completions"
PREFIX = {f"{X}/routing-strategy": "PREFIX_CACHE"}
LEVEL = "penstock_degraded_level"
BULK = ("x-gateway-inference-objective: bulk",)
COUNT = "penstock_degraded_requests_total"


def hammer(ip, seed, stop, answers, clients=12):
    """A process of its own: clients that send prompts of 60 KB, every one new, as fast as they are answered. They are sheddable and the servers
    full, so all the work is the gateway's. Counts the answers by status; 0: none."""
    rng = random.Random(seed)
    text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(8000))
    whole = post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": f"{'#' * 16}{text}"}], "max_tokens": 1}), headers=BULK)
    before, after = whole.split(b"#" * 16)
    counts, lock = {}, threading.Lock()

    def one(k):
        i = 0
        try:
            with Raw(ip, 8080, timeout=60) as r:
                while not stop.is_set():
                    i += 1
                    r.send(before + b"%04d%04d%08d" % (seed, k, i) + after)
                    status = r.answer("POST").status
                    with lock:
                        counts[status] = counts.get(status, 0) + 1
        except (OSError, Closed):
            with lock:
                counts[0] = counts.get(0, 0) + 1

    threads = [threading.Thread(target=one, args=(k,)) for k in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    answers.put(counts)


class Hammer:
    """Two such processes while the block runs; .answers afterwards."""

    def __init__(self, ip):
        fork = multiprocessing.get_context("spawn")
        self.stop, self.queue = fork.Event(), fork.Queue()
        self.procs = [fork.Process(target=hammer, args=(ip, k, self.stop, self.queue), daemon=True) for k in range(2)]

    def __enter__(self):
        for p in self.procs:
            p.start()
        return self

    def __exit__(self, *a):
        self.stop.set()
        counts = [self.queue.get(timeout=60) for _ in self.procs]
        for p in self.procs:
            p.join(10)
        self.answers = {s: sum(c.get(s, 0) for c in counts) for c in counts for s in c}


@pytest.fixture
def full(cluster):
    """full(lag) -> a cluster of one worker whose servers are full: requests of the objective `bulk` are refused, the others sent on."""

    slow = build_dir("asan")
    if not slow:
        pytest.skip("clients in Python bring only the sanitizer build to its limit")

    def start(lag):
        c = cluster(2, PREFIX, binary=slow, options=("--workers", "1", "--degrade-lag", lag), sim_options=("--time-scale", "50"))
        manifests.write(c.dir / "bulk.yaml", manifests.dump({"apiVersion": f"{X}/v1alpha2", "kind": "InferenceObjective", "metadata": manifests.meta("bulk"),
                                                             "spec": {"priority": -1, "poolRef": {"group": X, "name": manifests.POOL}}}))
        for pod in c.sims:
            c.control(pod, "POST", "/metrics", {"waiting": 50, "running": 4})
        bulk = {"x-gateway-inference-objective": "bulk"}
        body = {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        wait_for(lambda: http("POST", c.url(), body, bulk).status == 429, 10, what="bulk requests refused")
        return c

    return start


def test_degrades_and_recovers(full):
    c = full("300us")
    text = "a conversation that is known " * 100
    assert c.chat(text).status == 200 and c.chat(text).status == 200
    before = [h for h in c.gw.handled() if h["status"] == 200]
    assert before[-1]["prefix_hit"] > 0.9 and c.gw.metric(LEVEL) == 0 and c.gw.metric(COUNT) == 0
    levels, seen = set(), []
    with Hammer(c.ip) as load:
        def strained():
            assert c.chat("one of those who are served").status == 200
            levels.add(int(c.gw.metric(LEVEL)))
            seen.append((c.gw.metric("penstock_worker_busy_ratio"), c.gw.metric("penstock_worker_lag_seconds")))
            return c.gw.metric(COUNT) >= 300
        try:
            wait_for(strained, 12, step=0.05, what="degraded requests")
        finally:
            print("busy, lag:", " ".join(f"{b:.2f},{g * 1000:.1f}ms" for b, g in seen))
    assert set(load.answers) == {429}, load.answers
    assert levels & {1, 2}
    wait_for(lambda: c.gw.metric(LEVEL) == 0, 15, what="level 0 again")
    total = c.gw.metric("penstock_requests_total")
    lines = c.gw.handled(total, 20)
    for level in (1, 2):
        assert sum(h.get("degraded") == level for h in lines) == c.gw.metric(COUNT, level=str(level))
    served = [h for h in lines if h["status"] == 200]
    assert not any(h["prefix_hit_bytes"] for h in served if h.get("degraded") == 2)
    assert all(h["prefix_hit_bytes"] <= 32 * 64 for h in served if h.get("degraded") == 1)
    assert not any("degraded" in h for h in before)
    told = c.gw.events("Degraded")
    assert told[0]["level"] in (1, 2) and told[0]["level"] and told[0]["text"]
    assert c.chat(text).status == 200
    last = c.gw.handled(total + 1)[-1]
    assert "degraded" not in last and last["prefix_hit"] > 0.9, "what was known before still is"
    wait_for(lambda: c.gw.events("Degraded")[-1]["text"].startswith("the gateway keeps up"), 10, what="the log says that it is over")
    assert len(c.gw.events("Degraded")) <= 6
    c.gw.assert_idle()


def test_switched_off(full):
    c = full("0s")
    with Hammer(c.ip) as load:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert c.gw.metric(LEVEL) == 0
            time.sleep(0.2)
    assert set(load.answers) == {429}, load.answers
    assert c.gw.metric(COUNT) == 0 and not c.gw.events("Degraded")


def test_no_strain_without_load(cluster):
    """Work now and then, of any size, is no strain."""
    c = cluster(1, PREFIX, options=("--workers", "1", "--degrade-lag", "1ms"), sim_options=("--time-scale", "1000", "--max-model-len", "200000"))
    body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "word " * 30000}], "max_tokens": 1})
    for _ in range(15):
        assert http("POST", c.url(), body, {"Content-Type": "application/json"}).status == 200
        time.sleep(0.1)
    assert c.gw.metric(LEVEL) == 0 and c.gw.metric(COUNT) == 0
