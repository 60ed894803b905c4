"""`penstock gateway --record`: live traffic as a file that replays to the same decisions, and that holds no prompt."""
import json
import os
import pathlib
import random
import stat
import subprocess
import threading

import pytest

import manifests
from conftest import Process, build_dir, http, wait_for
from rawhttp import Raw
from waiting import ON, THRESHOLD, TTL

PREFIX = {manifests.X + "/routing-strategy": "PREFIX_CACHE"}
MARKER = "Zanzibar-7781"


def check(path, *options):
    """(exit code, what it says) of the check of a record."""
    build = build_dir("asan") or build_dir("release")
    tool = build.parent.parent / "tests" / "unit" / "replay" / "check_record"
    done = subprocess.run([tool, *options, path], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def talk(c, seed, turns, failed):
    """A conversation; what it says begins with the marker and grows."""
    rng = random.Random(seed)
    messages = [{"role": "system", "content": f"{MARKER} rules of house {seed % 5}: " + "be kind. " * (60 + 400 * (seed % 2))}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{MARKER} {seed} {turn} " + "tell me more " * rng.randrange(1, 60)})
        body = {"model": "qwen", "messages": messages, "max_tokens": rng.randrange(1, 12), "stream": rng.random() < 0.5}
        answer = http("POST", c.url(), body, {"x-user": str(seed)}, timeout=60)
        if answer.status != 200:
            failed.append(answer)
            return
        messages.append({"role": "assistant", "content": f"{MARKER} noted. " * 5})


def leave(c):
    """A client that does not wait for its answer."""
    body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": MARKER + " quick"}], "max_tokens": 400}).encode()
    with Raw(c.ip, 8080) as raw:
        raw.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        threading.Event().wait(0.05)


@pytest.mark.parametrize("policy", ["PREFIX_CACHE", "DEFAULT"])
def test_replays_to_the_same_decisions(cluster, tmp_path, policy):
    """Some hundred requests from conversations side by side: waiting for full servers, retried when servers fail, left by
    their clients, under settings that change. Then every decision is made again from the record alone."""
    path = tmp_path / "live.record"
    annotations = {**ON, manifests.X + "/routing-strategy": policy, THRESHOLD: "1", TTL: "20s"}
    c = cluster(3, annotations, sim_options=("--time-scale", "5", "--max-num-seqs", "4"), options=("--record", path))
    failed = []
    threads = [threading.Thread(target=talk, args=(c, i, 12, failed)) for i in range(30)]
    for t in threads:
        t.start()
    wait_for(lambda: c.gw.metric("inference_extension_flow_control_request_queue_duration_seconds_count", outcome="Dispatched") > 20, 30,
             what="requests from the queue")
    for _ in range(5):
        leave(c)
    c.fault("pod-2", kind="reset", at="after_body", count=5)
    c.fault("pod-1", kind="refuse")
    wait_for(lambda: c.gw.metric("penstock_endpoint_ejected", pod="pod-1") == 1, 20, what="the dead server is seen")
    ips = {p: s.ip for p, s in c.sims.items()}
    manifests.write(c.dir / "world.yaml", manifests.world(ips, {**annotations, THRESHOLD: "2"}))
    del ips["pod-1"]
    threading.Event().wait(1)
    manifests.write(c.dir / "world.yaml", manifests.world(ips, {**annotations, THRESHOLD: "2"}))
    for t in threads:
        t.join()
    assert not failed, failed[0].text
    assert c.gw.metric("penstock_record_dropped_total") == 0 and c.gw.metric("penstock_record_failed") == 0
    assert c.gw.metric("penstock_record_bytes_total") > 0
    c.gw.stop()
    text = path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert MARKER not in text and not any(s.ip in text for s in c.sims.values()), "neither prompts nor addresses"
    events = [json.loads(line) for line in text.splitlines()]
    assert events[0]["penstock"] == "record" and events[0]["version"] == 1
    kinds = {e.get("ev") for e in events}
    assert {"pool", "params", "ep_add", "ep_remove", "ep_load", "ep_models", "ep_probe", "submit", "decided", "first_token", "finish",
            "tick"} <= kinds, kinds
    submits = [e for e in events if e.get("ev") == "submit" and e["pool"] == 0]
    assert len(submits) >= 360 and any(e.get("again") for e in submits), "retries are there"
    assert {e["name"] for e in events if e.get("ev") == "ep_add"} == set(c.sims)
    code, says = check(path)
    assert code == 0, says
    decided = sum(e.get("answer") in ("picked", "rejected") for e in events) + sum(e.get("ev") == "decided" for e in events)
    assert f" {decided} decisions equal, none differs." in says, says
    # the same record as a load
    code, says = check(path, "--load")
    assert code == 0, says
    load = json.loads(says)
    usage = [e for e in events if e.get("ev") == "finish" and e["outcome"] == "ok"]
    assert load["requests"] >= 360 and load["requests"] + load["left_out"] == sum(not e.get("again") and not e.get("light") for e in submits)
    assert load["output"] >= sum(e.get("completion_tokens", 0) for e in usage)
    assert (load["ids"] > 1000) == (policy == "PREFIX_CACHE"), load
    # what was changed is found
    lines = text.splitlines(True)
    at = [i for i, line in enumerate(lines) if '"ev":"decided"' in line and '"ep":[' in line][100]
    lines[at] = lines[at].replace('"ep":[', '"ep":[9', 1)
    changed = tmp_path / "changed.record"
    changed.write_text("".join(lines))
    code, says = check(changed)
    assert code == 1 and f"line {at + 1}:" in says, says


def test_killed_gateway(cluster, tmp_path):
    """What was written up to a tenth of a second before a crash can be read; the last line may be cut."""
    path = tmp_path / "live.record"
    c = cluster(2, PREFIX, options=("--record", path))
    for i in range(20):
        assert c.chat(f"hello {i}").status == 200
    wait_for(lambda: path.read_text().count('"ev":"finish"') >= 20, 10, what="the record is written as time passes")
    c.gw.proc.kill()
    c.gw.proc.wait()
    path.write_text(path.read_text()[:-7])
    code, says = check(path)
    assert code == 0 and "not complete" in says, says
    c.gw.stop = lambda: None


def test_file_that_is_there(cluster, spawn, binary, tmp_path):
    """A record is never overwritten: the gateway does not start, and says so. An empty file is taken."""
    path = tmp_path / "live.record"
    path.write_text("precious")
    done = subprocess.run([binary, "gateway", "--endpoint", "http://127.0.0.1:1", "--admin", "off", "--listen", "127.0.0.1:0", "--record", path],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "exists and is not empty" in done.stderr, done.stderr
    assert path.read_text() == "precious"
    path.write_text("")
    c = cluster(1, options=("--record", path))
    assert c.chat().status == 200
    c.gw.stop()
    assert check(path)[0] == 0


def test_write_error_leaves_traffic_alone(cluster, tmp_path, binary):
    """The file may not grow any more (as on a full disk): said once, shown in the metrics, and every request is answered."""
    path = tmp_path / "live.record"
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 100\nexec "{binary}" "$@"\n')
    limited.chmod(0o755)
    c = cluster(2, PREFIX, options=("--record", path), binary=pathlib.Path(limited))
    sent = 0
    while c.gw.metric("penstock_record_failed") == 0:
        for _ in range(10):
            assert c.chat("x" * 8000).status == 200
        sent += 10
        assert sent < 500
    for _ in range(20):
        assert c.chat().status == 200
    assert sum("recording to" in line for line in c.gw.lines) == 1
    assert path.stat().st_size <= 100 * 1024
