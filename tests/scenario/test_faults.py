"""Faults of servers under load, at every point of a request; clients that leave; the share that may be ejected; requests that kill."""
import json
import random
import signal
import socket
import struct
import threading
import time

import pytest

import manifests
from conftest import http, parse_metrics, wait_for
from load import Load
from rawhttp import Closed, Raw, Truncated, post

POINTS = ("before", "after_body", "after_head", "mid_stream")
LONG = {"max_tokens": 4000, "ignore_eos": True}


def states(c):
    return {pod: e["state"] for pod, e in c.endpoints().items()}


def explain(results):
    return "\n".join(map(repr, results[:12]))


def running(c, pod):
    """Requests the server has in its engine, by its metrics."""
    text = http("GET", c.sim(pod).base + "/metrics").text
    return sum(v for n, _, v in parse_metrics(text) if n in ("vllm:num_requests_running", "vllm:num_requests_waiting"))


def aborted(c, pod):
    text = http("GET", c.sim(pod).base + "/metrics").text
    return sum(v for n, l, v in parse_metrics(text) if n == "vllm:request_success_total" and l.get("finished_reason") == "abort")


def wait_steady(load, pods, timeout=15):
    """Every pod has answered something lately."""
    since = load.mark()
    wait_for(lambda: all(load.served_by(p, since) for p in pods), timeout, what="all pods in use")


def check_fault_outcomes(results, at, kind):
    """What clients may see of a fault: nothing before the first byte; a cut connection after it."""
    count = Load.count(results)
    assert count["ok"] > 30, count
    bad = [r for r in results if r.outcome in ("error", "failed", "silent")]
    assert not bad, f"{kind} at {at}: {count}\n{explain(bad)}"
    cut = [r for r in results if r.outcome == "cut"]
    if at != "mid_stream" and kind not in ("kill",):
        assert not cut, f"{kind} at {at}: {count}\n{explain(cut)}"
    assert len(cut) <= 24, count  # what was under way on one pod, at most


@pytest.mark.parametrize("kind", ["kill", "refuse", "reset", "garbage"])
def test_fault_of_one_pod_of_four(cluster, kind):
    """24 clients, half of them streaming, while one pod fails at each point in turn."""
    c = cluster(4, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=24, max_tokens=25) as load:
        wait_steady(load, c.sims)
        for at in POINTS:
            start = load.mark()
            c.fault("pod-1", kind=kind, at=at)
            wait_for(lambda: states(c)["pod-1"] == "ejected", 3, what=f"{kind} at {at}: pod-1 ejected")
            time.sleep(0.3)  # picks made before the first failure was known
            before = {p: e["picks"] for p, e in c.endpoints().items()}
            time.sleep(1.2)
            after = {p: e["picks"] for p, e in c.endpoints().items()}
            total = sum(after.values()) - sum(before.values())
            hit = after["pod-1"] - before["pod-1"]
            if kind in ("kill", "refuse") and at in ("before", "after_body"):
                assert hit == 0, f"{kind} at {at}: {hit} of {total} requests went to a dead pod"
            else:  # its probes succeed, so it is tried now and then
                assert hit <= 0.15 * total, f"{kind} at {at}: {hit} of {total} requests went to the faulty pod"
            c.fault("pod-1", kind="none")
            back = load.mark()
            check_fault_outcomes(load.since(start), at, kind)
            wait_for(lambda: load.served_by("pod-1", back), 2.5 + 0.5, what=f"{kind} at {at}: pod-1 in use again")
            used = min(r.t0 for r in load.served_by("pod-1", back)) - back
            assert used <= 2.0, f"{kind} at {at}: used again after {used:.2f} s"
            time.sleep(0.5)
            check_fault_outcomes(load.since(start), at, kind)
            assert all(r.outcome == "ok" for r in load.started_since(back + 0.5)), explain([r for r in load.started_since(back) if r.outcome != "ok"])
            wait_steady(load, c.sims)
    c.gw.assert_idle()
    assert all(e["inflight"] == 0 and e["unanswered"] == 0 for e in c.endpoints().values())


def test_killed_process_comes_back(cluster, sim, release_binary):
    """SIGKILL of a server's process under load; the same address serves again within 2 s of its return, slow-started."""
    c = cluster(4, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=20, max_tokens=25) as load:
        wait_steady(load, c.sims)
        start = load.mark()
        victim = c.sims["pod-2"]
        victim.kill()
        victim.proc.returncode = 0  # its end was ours
        wait_for(lambda: states(c)["pod-2"] == "ejected", 2, what="pod-2 ejected")
        time.sleep(1.0)
        c.sims["pod-2"] = sim("--model", "/models/qwen", "--served-model-name", "qwen", "--pod-name", "pod-2", "--time-scale", "2", ip=victim.ip,
                              binary=release_binary)
        back = load.mark()
        seen = set()

        def used_again():
            seen.add(states(c)["pod-2"])
            return load.served_by("pod-2", back)

        wait_for(used_again, 2.5, step=0.03, what="pod-2 in use again")
        first = min(r.t0 for r in load.served_by("pod-2", back))
        assert first - back <= 2.0
        wait_for(lambda: states(c)["pod-2"] == "ready", 5, what="the end of the slow start")
        assert "slow start" in seen, seen
        results = load.since(start)
        check_fault_outcomes(results, "mid_stream", "kill")
    c.gw.assert_idle()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["kill", "reset", "garbage"])
def test_break_inside_an_answer_is_marked(cluster, kind, stream):
    """After the first byte an answer is never ended in order: the connection closes without the last chunk, and it is logged."""
    c = cluster(1, sim_options=("--time-scale", "4"))
    c.fault("pod-0", kind=kind, at="mid_stream", count=1)
    body = {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 50, "ignore_eos": True, "stream": stream}
    with Raw(c.ip, 8080) as r:
        r.send(post("/v1/chat/completions", json.dumps(body)))
        try:
            answer = r.answer("POST")
            assert answer.status in (502, 503), "ended in order"
            assert not stream
        except Truncated as t:
            assert t.answer.status == 200
            if stream:
                assert b"data: " in t.answer.body and b"[DONE]" not in t.answer.body
            assert b"no chunk size" not in t.answer.body and b"no chunk size" not in r.buf
    c.gw.assert_idle()
    (line,) = c.gw.handled(1)
    assert line.get("error"), line


def test_hung_pod_is_found_and_its_requests_move(cluster):
    """A hang is found by probes in 5 s; requests it has not begun to answer are answered elsewhere; what streams there goes on when it wakes."""
    c = cluster(4, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=24, max_tokens=25) as load:
        wait_steady(load, c.sims)
        start = load.mark()
        c.fault("pod-3", kind="hang", at="now")
        wait_for(lambda: states(c)["pod-3"] == "ejected", 5, what="the hung pod ejected")
        found = load.mark() - start
        time.sleep(1.0)
        stuck = [r for r in list(load.running.values()) if r.t0 < start + found]
        assert all(r.t_first or r.stream for r in stuck), f"not moved: {explain([r for r in stuck if not r.t_first])}"
        waiting = [r for r in stuck if not r.t_first]
        assert not waiting, f"streams without a first byte that were not moved: {explain(waiting)}"
        picks = c.endpoints()["pod-3"]["picks"]
        time.sleep(0.7)
        assert c.endpoints()["pod-3"]["picks"] == picks
        assert [r for r in load.since(start) if r.t1 - r.t0 > 0.9 * found], "some request waited on the hung pod and was answered elsewhere"
        c.fault("pod-3", kind="none")
        back = load.mark()
        wait_for(lambda: load.served_by("pod-3", back), 2.0, what="pod-3 in use again")
        time.sleep(0.5)
    bad = [r for r in load.results if r.outcome != "ok"]
    assert not bad, explain(bad)
    c.gw.assert_idle()


def test_slow_pod_is_avoided(cluster):
    """One pod becomes 60 times slower: within 5 s new requests avoid it; nobody sees an error; recovered, it is used again."""
    c = cluster(4, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=24, max_tokens=25) as load:
        wait_steady(load, c.sims)
        start = load.mark()
        c.fault("pod-0", kind="slow", factor=60)
        time.sleep(5)
        before = {p: e["picks"] for p, e in c.endpoints().items()}
        time.sleep(2)
        after = {p: e["picks"] for p, e in c.endpoints().items()}
        share = (after["pod-0"] - before["pod-0"]) / max(1, sum(after.values()) - sum(before.values()))
        assert share < 0.05, f"{share:.2f} of the requests went to the slow pod"
        c.fault("pod-0", kind="none")
        back = load.mark()
        wait_for(lambda: load.served_by("pod-0", back), 10, what="pod-0 in use again")
    assert not [r for r in load.since(start) if r.outcome != "ok"]
    c.gw.assert_idle()


def test_busy_pod_is_not_ejected(cluster):
    """A server whose metrics page comes too late while it streams answers is busy, not dead."""
    c = cluster(2, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=8, max_tokens=40) as load:
        wait_steady(load, c.sims)
        c.fault("pod-0", kind="hang", at="probe")
        picks = []
        end = time.monotonic() + 6
        while time.monotonic() < end:
            pod = c.endpoints()["pod-0"]
            assert pod["state"] != "ejected"
            picks.append(pod["picks"])
            time.sleep(0.1)
        assert picks[-1] > picks[len(picks) // 2], "it is still used"
        c.fault("pod-0", kind="none")
    assert not [r for r in load.results if r.outcome != "ok"]
    c.gw.assert_idle()


def test_never_more_than_the_share_is_ejected(cluster):
    """Three of four pods fail: at most two are ejected, the fourth serves, clients see no error."""
    c = cluster(4, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=20, max_tokens=15) as load:
        wait_steady(load, c.sims)
        start = load.mark()
        for pod in ("pod-0", "pod-1", "pod-2"):
            c.fault(pod, kind="refuse", at="now")
            time.sleep(0.2)
        end = time.monotonic() + 4
        worst = 0
        while time.monotonic() < end:
            worst = max(worst, sum(s == "ejected" for s in states(c).values()))
            time.sleep(0.03)
        assert worst == 2
        for pod in ("pod-0", "pod-1", "pod-2"):
            c.fault(pod, kind="none")
        back = load.mark()
        for pod in ("pod-0", "pod-1", "pod-2"):
            wait_for(lambda p=pod: load.served_by(p, back), 3, what=f"{pod} in use again")
        bad = [r for r in load.since(start) if r.outcome not in ("ok", "cut")]
        assert not bad, explain(bad)
        assert not [r for r in load.started_since(start + 1.0) if r.t1 < back and r.outcome != "ok"]
    c.gw.assert_idle()


def test_all_pods_gone(cluster):
    """No server left: a clean 502 or 503 in the API's shape at once, and service again when one returns."""
    c = cluster(2)
    for pod in c.sims:
        c.fault(pod, kind="refuse", at="now")
    t = time.monotonic()
    for _ in range(5):
        answer = c.chat()
        assert answer.status in (502, 503) and answer.json()["error"]["code"], answer.text
    assert time.monotonic() - t < 5
    c.fault("pod-1", kind="none")
    wait_for(lambda: c.chat().status == 200, 2, what="service")
    c.gw.assert_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_request_that_kills_stops_after_two(cluster, stream):
    """A prompt that crashes its server takes two of four with it, not all."""
    c = cluster(4)
    for pod in c.sims:
        c.fault(pod, kind="kill", at="after_body", match="POISON")
    answer = c.chat("POISON", stream=stream)
    assert answer.status in (502, 503), answer.text
    assert answer.json()["error"]["code"]
    dead = [p for p in c.sims if c.control(p, "GET", "/fault").json()["in_force"]]
    assert len(dead) == 2, dead
    for _ in range(20):
        assert c.chat("harmless").status == 200
    for pod in dead:
        c.fault(pod, kind="none")
    wait_for(lambda: all(s in ("ready", "slow start") for s in states(c).values()), 5, what="both back")
    c.gw.assert_idle()


def test_server_errors_are_passed_on(cluster):
    """A 500 of the server is the client's (it may be its own fault); a 503 is tried elsewhere."""
    c = cluster(2)
    for pod in c.sims:
        c.fault(pod, kind="status", status=500, count=1)
    assert c.chat().status == 500
    for pod in c.sims:
        c.fault(pod, kind="none")
    c.fault("pod-0", kind="status", status=503)
    for _ in range(8):
        assert c.chat().status == 200
    c.gw.assert_idle()


def test_retries_are_budgeted(cluster):
    """When every pod fails every request, retries do not multiply the load: a fifth of the requests, and ten a second."""
    c = cluster(4)
    for pod in c.sims:
        c.fault(pod, kind="reset", at="after_body")
    t = time.monotonic()
    with Load(c.url(), clients=16, streams=False) as load:
        time.sleep(3)
    took = time.monotonic() - t
    assert all(r.status in (502, 503) for r in load.results), explain([r for r in load.results if r.status not in (502, 503)])
    assert len(load.results) > 300
    retries = c.gw.metric("penstock_retries_total")
    assert 0 < retries <= 0.2 * len(load.results) + 10 * (took + 10), f"{retries} retries for {len(load.results)} requests in {took:.1f} s"
    asked = sum(c.control(p, "GET", "/requests").json()["total"] for p in c.sims)
    assert asked <= len(load.results) + retries + 1
    for pod in c.sims:
        c.fault(pod, kind="none")
    wait_for(lambda: c.chat().status == 200, 3, what="service")
    c.gw.assert_idle()


# --- clients that leave --------------------------------------------------------------------------------------------------------


def leave(raw, how):
    """Ends the client's connection in order, or by reset."""
    if how == "reset":
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.sock.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_cancels_at_once(cluster, how):
    """At every stage: inside the head, inside the body, waiting for the first byte (streamed and not), inside the stream."""
    c = cluster(1)
    pod = "pod-0"
    wire = {s: post("/v1/chat/completions", json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "word " * 200}], "stream": s, **LONG}))
            for s in (True, False)}

    def assert_quiet(stage):
        wait_for(lambda: running(c, pod) == 0, 2, what=f"{stage}: nothing runs on the server")
        wait_for(lambda: c.gw.metric("penstock_endpoint_inflight") == 0, 2, what=f"{stage}: in-flight zero")

    for stage, cut in (("head", 40), ("body", len(wire[True]) - 10)):
        r = Raw(c.ip, 8080)
        r.send(wire[True][:cut])
        time.sleep(0.1)
        leave(r, how)
        assert_quiet(stage)
        assert aborted(c, pod) == 0
    n = 0
    for stage, stream, ahead in (("mid stream", True, 0), ("waiting for a whole answer", False, 0), ("with requests sent ahead", False, 3)):
        r = Raw(c.ip, 8080)
        r.send(wire[stream] * (1 + ahead))
        wait_for(lambda: running(c, pod) == 1, 3, what=f"{stage}: the request runs")
        if stream:
            assert r.head().status == 200
            r.more()
        leave(r, how)
        assert_quiet(stage)
        n += 1
        assert aborted(c, pod) == n, stage
    c.fault(pod, kind="hang", at="now")
    r = Raw(c.ip, 8080)
    r.send(wire[True])
    wait_for(lambda: c.endpoints()[pod]["inflight"] == 1, 3, what="the request to be sent")
    leave(r, how)
    wait_for(lambda: c.endpoints()[pod]["inflight"] == 0, 2, what="unanswered request to be cancelled")
    c.fault(pod, kind="none")
    assert_quiet("server hung")
    wait_for(lambda: c.chat().status == 200, 3, what="service")
    c.gw.assert_idle()


def test_many_clients_that_leave(cluster):
    """200 streams broken off at random moments leave nothing behind, and others are served meanwhile."""
    c = cluster(2, sim_options=("--time-scale", "2"))
    wire = post("/v1/chat/completions", json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "stream": True, **LONG}))

    def go(k):
        for i in range(20):
            with Raw(c.ip, 8080) as r:
                r.send(wire)
                if (k + i) % 3:
                    try:
                        r.head()
                    except Closed:
                        pass
                time.sleep(0.002 * ((k * 7 + i * 3) % 10))

    with Load(c.url(), clients=4, max_tokens=10) as load:
        threads = [threading.Thread(target=go, args=(k,)) for k in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not [r for r in load.results if r.outcome != "ok"]
    c.gw.assert_idle()
    for pod in c.sims:
        wait_for(lambda p=pod: running(c, p) == 0, 3, what=f"{pod} idle")


def test_pod_killed_by_signal_while_idle_connections_are_kept(cluster):
    """A server that closes idle connections under us costs no request (a stale connection is no failure of the pod)."""
    c = cluster(1)
    for _ in range(3):
        assert c.chat().status == 200
    c.control("pod-0", "POST", "/fault", {"kind": "kill", "at": "now"})
    c.fault("pod-0", kind="none")
    wait_for(lambda: c.chat().status == 200, 3, what="service")
    assert all(c.chat().status == 200 for _ in range(5))
    c.gw.assert_idle()


def test_stopped_process(cluster):
    """SIGSTOP (the kernel still accepts connections): found by probes, its requests moved; SIGCONT: used again."""
    c = cluster(3, sim_options=("--time-scale", "2"))
    with Load(c.url(), clients=12, max_tokens=10, streams=False) as load:
        wait_steady(load, c.sims)
        c.sims["pod-1"].signal(signal.SIGSTOP)
        try:
            wait_for(lambda: states(c)["pod-1"] == "ejected", 5, what="pod-1 ejected")
            time.sleep(0.5)
            assert len(load.running) <= 12
        finally:
            c.sims["pod-1"].signal(signal.SIGCONT)
        back = load.mark()
        wait_for(lambda: load.served_by("pod-1", back), 2, what="pod-1 in use again")
    bad = [r for r in load.results if r.outcome != "ok"]
    assert not bad, explain(bad)
    c.gw.assert_idle()


def test_faults_in_the_sandbox(sandbox, tmp_path):
    """The same through the sandbox: a pod killed and one hung under load cost no request without a first byte; both serve again."""
    f = tmp_path / "all.yaml"
    f.write_text(manifests.dump(*manifests.gateway(), manifests.route(), manifests.pool(), manifests.deployment(replicas=4)))
    sb = sandbox(f, options=("--time-scale", "2"))
    names = [p["name"] for p in sb.pods()]
    assert len(names) == 4
    with Load(sb.url(8080, "/v1/chat/completions"), clients=20, max_tokens=25) as load:
        wait_steady(load, names)
        sb.fault(names[0], kind="kill", at="after_body")
        sb.fault(names[1], kind="hang")
        time.sleep(4)
        bad = [r for r in load.results if r.outcome in ("error", "failed", "silent")]
        assert not bad, explain(bad)
        for name in names[:2]:
            sb.fault(name, kind="none")
        back = load.mark()
        for name in names[:2]:
            wait_for(lambda n=name: load.served_by(n, back), 4, what=f"{name} in use again")
    assert not [r for r in load.results if r.outcome in ("error", "failed", "silent")]
    sb.assert_idle()


def test_everything_at_once(cluster):
    """Faults of every kind on two of four pods, rude clients, and changes of the configuration, all at random for 15 s: no answer is silently
    cut, nothing but 502, 503 and 504 is seen, and afterwards nothing is left behind."""
    rng = random.Random(7)
    c = cluster(4, sim_options=("--time-scale", "4"))
    world = {p: s.ip for p, s in c.sims.items()}
    good = post("/v1/chat/completions", json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "rude"}], "max_tokens": 20, "stream": True}))
    stop = threading.Event()

    def rude(seed):
        r = random.Random(seed)
        while not stop.is_set():
            wire = bytearray(good * r.choice((1, 1, 3)))
            for _ in range(r.randrange(3)):
                wire[r.randrange(len(wire))] = r.randrange(256)
            try:
                with Raw(c.ip, 8080, timeout=0.5) as raw:
                    for i in range(0, len(wire), 97):
                        raw.send(bytes(wire[i:i + 97]))
                    if r.random() < 0.5:
                        raw.more()
                    leave(raw, r.choice(("close", "reset")))
            except OSError:
                pass

    threads = [threading.Thread(target=rude, args=(k,)) for k in range(3)]
    with Load(c.url(), clients=16, max_tokens=15) as load:
        wait_steady(load, c.sims)
        for t in threads:
            t.start()
        end = time.monotonic() + 15
        step = 0
        while time.monotonic() < end:
            step += 1
            pod = rng.choice(("pod-0", "pod-1"))
            c.fault(pod, kind=rng.choice(("kill", "refuse", "reset", "garbage", "hang", "slow", "status")), at=rng.choice(POINTS), factor=20,
                    duration_ms=rng.choice((400, 2000, 6000)), status=rng.choice((500, 503)), count=rng.choice((1, 5, 50)))
            time.sleep(rng.random() * 0.3)
            if step % 3 == 0:
                pods = dict(world)
                if rng.random() < 0.5:
                    pods.pop(rng.choice(sorted(pods)))
                notes = {f"{manifests.X}/routing-strategy": rng.choice(("DEFAULT", "PREFIX_CACHE")),
                         f"{manifests.ENV}/prefix-cache-hash-block-size": rng.choice(("64", "128", "16")),
                         f"{manifests.ENV}/prefix-cache-lru-capacity": rng.choice(("10", "50000"))}
                manifests.write(c.dir / "world.yaml", manifests.world(pods, notes))
        stop.set()
        for t in threads:
            t.join()
        for pod in ("pod-0", "pod-1"):
            c.fault(pod, kind="none")
        manifests.write(c.dir / "world.yaml", manifests.world(world))
        wait_for(lambda: len(c.endpoints()) == 4 and all(s in ("ready", "slow start") for s in states(c).values()), 15, what="all pods back")
        calm = load.mark() + 0.5
        time.sleep(1.5)
        wait_steady(load, c.sims)
    count = load.count(load.results)
    print(f"\n{dict(count)}")
    assert count["ok"] > 500 and not count["silent"], count
    bad = [r for r in load.results if r.outcome == "failed" or (r.outcome == "error" and r.status not in (500, 502, 503, 504))]
    assert not bad, explain(bad)
    late = [r for r in load.started_since(calm) if r.outcome != "ok"]
    assert not late, explain(late)
    c.gw.assert_idle()
    for pod in c.sims:
        wait_for(lambda p=pod: running(c, p) == 0, 5, what=f"{pod} idle")
    wait_for(lambda: c.gw.metric("penstock_client_connections") == 0, 5, what="connections to be gone")
    assert c.gw.metric("penstock_body_bytes_held") == 0
