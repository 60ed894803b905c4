"""Changes while requests wait: settings of the queue (A25, hot), drain, reload, pods and pools that go, many leaving at once."""
import json
import random
import re
import signal
import threading
import time

import pytest

import manifests
from conftest import http, wait_for
from manifests import ENV
from resources import Steady, chat_body, model, world  # noqa: F401
from waiting import (CAPACITY, EARLY, FLOW, KV_THRESHOLD, OBJECTIVE, ON, QUEUEING, THRESHOLD, TTL, WAIT, Shot, asked, empty, fill, leave_at_once, objective,
                     queued, shoot, wait_queued)


@pytest.fixture
def one(world):
    return world.serve(1)


def test_durations(one):
    """A25: Go's durations are taken, hot; what is none leaves the last good value, with a warning; requests that wait follow at once."""
    one.start_pool({**ON, TTL: "1m"})
    for given, want in (("300ms", 0.3), ("1.5h", 5400), ("2h45m", 9900), ("90s", 90), ("250000us", 0.25), ("250000\u00b5s", 0.25), ("45s", 45)):
        one.annotate({**ON, TTL: given})
        assert abs(one.backend()["queue_ttl_s"] - want) < 1e-6, given
    for bad in ("30", "5d", "abc", "-1.5h", "0s", ""):
        one.annotate({**ON, TTL: bad})
        assert one.backend()["queue_ttl_s"] == 45, bad
    fill(one)
    s = shoot(one, 1)
    wait_queued(one, 1)
    time.sleep(0.5)
    one.annotate({**ON, TTL: "1s"})
    s.refused(503, "queue_timeout")
    assert abs(s.seconds - 1) < 0.8


def test_switching_off_drains(one):
    """Queueing switched off while 60 wait: all are sent on and served, in the order of their classes."""
    classes = (model("high", ["qwen"], "Critical"), model("low", ["qwen"], "Sheddable"))
    one.start_pool({**ON, TTL: "1m"}, *classes)
    fill(one)
    shots = [shoot(one, i, ("low", "high")[i % 2]) for i in range(60)]
    wait_queued(one, 60)
    one.annotate({TTL: "1m"}, *classes)
    for s in shots:
        s.ok()
    assert queued(one) == 0 and one.gw.metric(FLOW + "queue_size") == 0
    assert {e["reason"] for e in one.gw.handled(60)} == {"drained"}
    assert one.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="Dispatched") == 60
    wait_for(lambda: one.endpoints()["pod-0"]["full"], 5)
    shoot(one, 100, "low").refused(429, "shed")


def test_less_capacity_discards(one):
    """A smaller capacity holds at once for those who wait; a larger threshold lets them go."""
    one.start_pool({**ON, TTL: "1m"})
    fill(one)
    shots = [Shot(one.url(), chat_body("x" * 1000)) for _ in range(10)]
    wait_queued(one, 10)
    one.annotate({**ON, TTL: "1m", CAPACITY: "4000"})
    wait_queued(one, 4)
    gone = [s for s in shots if s.t1]
    wait_for(lambda: sum(s.t1 is not None for s in shots) == 6, 5)
    gone = [s for s in shots if s.t1]
    for s in gone:
        s.refused(429, "queue_full")
    one.annotate({**ON, TTL: "1m", CAPACITY: "4000", THRESHOLD: "1000"})
    for s in shots:
        if s not in gone:
            s.ok()


def test_thresholds_are_hot(one):
    """A full cache by one threshold is none by another."""
    one.start_pool({**ON, KV_THRESHOLD: "0.5"})
    one.fix_metrics("pod-0", kv=0.7, waiting=0, running=1)
    s = shoot(one, 1)
    wait_queued(one, 1)
    one.annotate({**ON, KV_THRESHOLD: "0.9"})
    s.ok(5)


def test_everything_changes_under_load(world):
    """Switched on and off, capacities, times to live, thresholds, policies, while a load runs over full servers: nobody is lost."""
    world.serve(3, "--max-num-seqs", "4").start_pool({**ON, TTL: "1m"})
    rng = random.Random(5)
    with Steady(world.url(), clients=48, body=lambda i: chat_body(f"steady {i}", max_tokens=8)) as steady:
        for turn in range(14):
            settings = {TTL: rng.choice(["1m", "2m"]), CAPACITY: str(rng.choice([10 ** 6, 10 ** 8])), THRESHOLD: str(rng.choice([1, 3, 9])),
                        EARLY: "disabled", "penstock.dev/queue-order": rng.choice(["fifo", "deadline", "adaptive"]), "penstock.dev/queue-late": "300ms",
                        manifests.X + "/routing-strategy": rng.choice(["DEFAULT", "PREFIX_CACHE"])}
            if turn % 3:
                settings[QUEUEING] = "enabled"
            world.annotate(settings)
            time.sleep(0.4)
        assert len(steady.load.results) > 50
    assert world.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="Dispatched") > 50, "the load did wait"
    wait_queued(world, 0)
    world.gw.assert_idle()


def test_pods_come_and_go(world):
    """Pods are removed and added while requests wait: nobody is lost, and a new pod is used at once."""
    world.serve(2).start_pool({**ON, TTL: "1m"})
    fill(world)
    shots = [shoot(world, i) for i in range(30)]
    wait_queued(world, 30)
    del world.servers["pod-0"]
    world.sync()
    wait_for(lambda: "pod-0" not in world.endpoints(), 5)
    assert queued(world) == 30
    world.server("pod-2")
    world.sync()
    answers = [s.ok(10) for s in shots]
    assert {a.headers["x-inference-pod"] for a in answers} == {"pod-2"}


def test_the_pool_goes(one):
    """The pool leaves the configuration while requests wait for its server: they are served when it has room, and then the pool is gone."""
    one.start_pool({**ON, TTL: "1m"})
    fill(one)
    shots = [shoot(one, i) for i in range(12)]
    wait_queued(one, 12)
    one.apply(manifests.pool("other", labels={"app": "other"}), manifests.route(pool="other"))
    assert one.chat().status == 503, "new requests go by the new configuration"
    assert queued(one) == 12
    empty(one)
    for s in shots:
        s.ok()
    wait_for(lambda: [p["name"] for p in one.gw.endpoints()["pools"]] == ["other"], 5, what="the pool to go")
    one.annotate(ON)
    assert one.chat().status == 200


def test_the_pool_comes_back(one):
    """It is back before its queue is empty: one queue, nobody lost."""
    one.start_pool({**ON, TTL: "1m"})
    fill(one)
    shots = [shoot(one, i) for i in range(6)]
    wait_queued(one, 6)
    one.apply(manifests.pool("other", labels={"app": "other"}), manifests.route(pool="other"))
    one.annotate({**ON, TTL: "1m"})
    shots += [shoot(one, 6 + i) for i in range(6)]
    wait_queued(one, 12)
    empty(one)
    for s in shots:
        s.ok()
    assert one.chat().status == 200 and [p["name"] for p in one.gw.endpoints()["pools"]] == ["pool"]


def test_drain_serves_who_waits(one):
    """SIGTERM while requests wait: they are served, then the gateway ends in order."""
    one.start_pool({**ON, TTL: "1m"})
    fill(one)
    shots = [shoot(one, i) for i in range(20)]
    wait_queued(one, 20)
    one.gw.signal(signal.SIGTERM)
    one.gw.wait_line("draining")
    time.sleep(0.5)
    empty(one)
    for s in shots:
        s.ok()
    one.gw.proc.wait(10)
    assert len(asked(one, "pod-0")) == 20


def test_drain_has_an_end(one):
    """Who still waits when the drain is over is told so: 503 with Retry-After, not a reset."""
    one.start_pool({**ON, TTL: "1m"}, options=("--drain-timeout", "1s"))
    fill(one)
    shots = [shoot(one, i) for i in range(20)]
    wait_queued(one, 20)
    one.gw.signal(signal.SIGTERM)
    for s in shots:
        s.refused(503, "gateway_stopping", 10)
    one.gw.proc.wait(10)
    assert asked(one, "pod-0") == []


def test_stop_at_once(one):
    """Two signals while requests wait and servers become free: ends at once, in order (and without a leak: the tests check)."""
    one.start_pool({**ON, TTL: "1m"})
    fill(one)
    shots = [shoot(one, i) for i in range(40)]
    wait_queued(one, 40)
    empty(one)
    one.gw.signal(signal.SIGTERM)
    one.gw.signal(signal.SIGINT)
    one.gw.proc.wait(10)
    for s in shots:
        s.join(5)


def test_leaving_and_being_served_at_the_same_time(world):
    """Clients leave in the very moments in which servers become free: nobody is sent twice, nothing stays counted."""
    world.serve(2, "--max-num-seqs", "4").start_pool({**ON, TTL: "1m", THRESHOLD: "1"})
    rng = random.Random(7)
    with Steady(world.url(), clients=24, body=lambda i: chat_body(f"steady {i}", max_tokens=4)):
        wait_for(lambda: queued(world) > 2, 10, what="a queue")
        for i in range(150):
            hang_up = leave_at_once(world.gw.ip, 8080, chat_body(f"leaves {i}", stream=True))
            time.sleep(rng.random() * 0.05)
            hang_up()
    wait_queued(world, 0)
    world.gw.assert_idle()
    assert world.gw.metric(FLOW + "queue_size") == 0 and world.gw.metric(FLOW + "queue_bytes") == 0
    n = world.gw.metric("penstock_queue_release_seconds_count")
    assert n > 20 and world.gw.metric("penstock_queue_release_seconds_bucket", le="0.01") >= n / 2


def test_a_server_dies_while_others_wait(world):
    """The only server with room dies with requests in flight: they wait like the others and are served by who comes back."""
    world.serve(2).start_pool({**ON, TTL: "1m"})
    fill(world, "pod-1")
    world.control("pod-0", "POST", "/fault", {"kind": "hang", "at": "before"})
    shots = [shoot(world, i) for i in range(4)]
    wait_for(lambda: world.endpoints()["pod-0"]["inflight"] == 4, 5)
    world.control("pod-0", "POST", "/fault", {"kind": "kill"})
    time.sleep(1)
    empty(world, "pod-1")
    answers = [s.ok(20) for s in shots]
    assert {a.headers["x-inference-pod"] for a in answers} == {"pod-1"}


def test_early_refusal_and_retry_after(world):
    """At a measured rate, who would wait past its limit is refused at once with the time to come back; the figure follows the rate."""
    world.serve(1, "--max-num-seqs", "1").start_pool({**ON, TTL: "1m", THRESHOLD: "1"}, objective("low", -1))
    with Steady(world.url(), clients=60, body=lambda i: chat_body(f"steady {i}", max_tokens=12)):
        wait_for(lambda: world.gw.metric("penstock_pool_drain_per_second") > 0 and queued(world) > 30, 20, what="a measured rate")
        time.sleep(1)
        rate, n = world.gw.metric("penstock_pool_drain_per_second"), queued(world)
        s = Shot(world.url(), chat_body("too late"), {WAIT: "100ms", OBJECTIVE: "low"})
        answer = s.refused(429, "queue_deadline", 5)
        assert s.seconds < 1
        want = n / rate
        assert want / 2.5 <= int(answer.headers["retry-after"]) <= min(60, want * 2.5 + 2), (answer.headers["retry-after"], want)
        patient = Shot(world.url(), chat_body("in time"), {WAIT: "1m"})
        assert world.gw.metric("penstock_rejected_total", code="queue_deadline") == 1
    patient.ok(60)


def test_overload_is_bounded(world):
    """A22: ten times more than fits: memory is bounded by the capacity, and who is refused hears it at once."""
    world.serve(1).start_pool({**ON, TTL: "1m", CAPACITY: "2000000"})
    fill(world)
    body = json.dumps(chat_body("x" * 100000))
    before, codes, lock = world.gw.rss_kb(), [], threading.Lock()

    def client():
        for _ in range(5):
            answer = http("POST", world.url(), body, {"Content-Type": "application/json", WAIT: "3s"}, timeout=60)
            with lock:
                codes.append((answer.status, answer.json()["error"]["code"]))

    threads = [threading.Thread(target=client) for _ in range(60)]
    for t in threads:
        t.start()
    most = 0
    while any(t.is_alive() for t in threads):
        held, waiting = world.gw.metric("penstock_body_bytes_held"), world.backend()["queued_bytes"]
        assert waiting <= 2000000
        most = max(most, held)
        time.sleep(0.1)
    assert set(codes) <= {(429, "queue_full"), (503, "queue_timeout")} and (429, "queue_full") in codes, set(codes)
    assert most < 60 * 110000, most
    assert world.gw.metric("penstock_body_bytes_held") == 0
    assert world.gw.rss_kb() - before < 150000


def test_top_and_pages_show_the_queue(one):
    import subprocess
    one.start_pool({**ON, TTL: "7s", CAPACITY: "50000000"})
    fill(one)
    s = shoot(one, 1)
    wait_queued(one, 1)
    top = subprocess.run([one.gw.proc.args[0], "top", "--once", "--admin", one.gw.admin[len("http://"):]], capture_output=True, text=True, timeout=20)
    assert re.search(r"queue: 1 waiting, 0\.0 of 50\.0 MB, at most 7 s", top.stdout), top.stdout
    assert re.search(r"pod-0 +\S+ +full", top.stdout)
    pool = one.backend()
    assert pool["queued"] == 1 and pool["room"] == 0 and pool["saturation"] == 1 and pool["endpoints"][0]["full"]
    assert one.settings()[ENV + "/queue-ttl"]["value"] == "7s"
    empty(one)
    s.ok()
