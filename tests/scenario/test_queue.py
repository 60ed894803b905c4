"""Flow control, one behaviour at a time: rows A19-A24, D3-D6, D9, X22 and what a refused, discarded or leaving client sees."""
import json
import time

import pytest

import manifests
from conftest import http, wait_for
from rawhttp import Raw
from resources import chat_body, model, world  # noqa: F401
from waiting import (CAPACITY, DISCARD, ENV, FAIRNESS, FLOW, OBJECTIVE, ON, QUEUEING, REQUESTS, TRUST, TTL, TTL_MAX, WAIT, Shot, asked, empty, fill,
                     leave_at_once, objective, queued, shoot, shoot_in_turn, wait_queued)


@pytest.fixture
def one(world):
    """One server and a pool that queues."""
    return world.serve(1)


def test_off_by_default(one):
    """A19: without the annotation nobody waits in the gateway, whatever the servers say."""
    one.start_pool()
    assert one.settings()[QUEUEING]["value"] == "disabled"
    fill(one)
    shots = [shoot(one, i) for i in range(8)]
    for s in shots:
        s.ok()
    assert one.gw.metric("penstock_pool_queued") == 0
    assert one.gw.metric(FLOW + "request_queue_duration_seconds_count") == 0


@pytest.mark.parametrize("annotations", [{QUEUEING: "enabled"}, {QUEUEING: "true"}, {ENV + "/experimental-use-queueing": "true"}])
def test_on(one, annotations):
    """A20, D4, D9: full servers, requests wait in the gateway and nowhere else; with room again, all are served."""
    one.start_pool(annotations)
    fill(one)
    shots = [shoot(one, i) for i in range(20)]
    wait_queued(one, 20)
    assert one.gw.metric("penstock_pool_queued") == 20
    assert asked(one, "pod-0") == []
    assert one.gw.metric("inference_objective_running_requests") == 0
    empty(one)
    for s in shots:
        s.ok()
    wait_queued(one, 0)
    assert len(asked(one, "pod-0")) == 20
    assert one.gw.metric(FLOW + "queue_size") == 0 and one.gw.metric(FLOW + "queue_bytes") == 0
    assert one.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="Dispatched") == 20
    lines = one.gw.handled(20)
    assert all(line["queue_ms"] > 0 and line["priority"] == 0 for line in lines)
    one.gw.assert_idle()


def test_what_needs_no_model_passes(one):
    """A list or a version is no work for the model: it waits behind nobody."""
    one.start_pool(ON)
    fill(one)
    s = shoot(one, 0)
    wait_queued(one, 1)
    answer = http("GET", one.url("/version"))
    assert answer.status == 200 and "version" in answer.json()
    assert queued(one) == 1
    empty(one)
    s.ok()


def test_bytes_of_those_waiting(one):
    """A21: the gauge is the sum of the prompt bytes that wait; the limit is 104857600 by default, and shown."""
    one.start_pool(ON)
    fill(one)
    texts = ["x" * n for n in (10, 200, 3000, 40000)]
    shots = [Shot(one.url(), chat_body(t)) for t in texts]
    wait_queued(one, 4)
    want = sum(map(len, texts))
    assert one.gw.metric(FLOW + "queue_bytes", inference_pool="pool", model_name="qwen", target_model_name="qwen", priority="0",
                         fairness_id="default-flow") == want
    assert one.gw.metric(FLOW + "queue_size", fairness_id="default-flow") == 4
    assert one.gw.metric("penstock_pool_queued_bytes") == want
    pool = one.backend()
    assert (pool["queued_bytes"], pool["queue_bytes_max"], pool["queue_ttl_s"], pool["queueing"]) == (want, 104857600, 30, True)
    held = one.gw.metric("penstock_body_bytes_held")
    assert want < held < want + 2000, f"{held} bytes held for bodies: small ones keep only what they need"
    empty(one)
    for s in shots:
        s.ok()
    assert one.gw.metric(FLOW + "queue_bytes") == 0 and one.gw.metric("penstock_body_bytes_held") == 0


def text(n, mark):
    return (mark * n)[:n]


def test_earliest_of_the_lowest_class_goes(one):
    """A22, decision 4: over capacity the earliest of the lowest class present makes room; a newcomer below all is itself refused."""
    one.start_pool({**ON, CAPACITY: "3000"}, objective("high", 1), objective("low", -1))
    fill(one)
    high, low = {OBJECTIVE: "high"}, {OBJECTIVE: "low"}
    shots = shoot_in_turn(one, [("qwen", {}, text(1000, "a")), ("qwen", low, text(1000, "b")), ("qwen", low, text(1000, "c"))])
    last = Shot(one.url(), chat_body(text(1000, "d")), {})
    answer = shots[1].refused(429, "queue_full", 5)
    assert "lost its place" in answer.json()["error"]["message"]
    more = Shot(one.url(), chat_body(text(1000, "e")), high)
    shots[2].refused(429, "queue_full", 5)
    answer = Shot(one.url(), chat_body(text(1000, "f")), low).refused(429, "queue_full", 5)
    assert "no room" in answer.json()["error"]["message"]
    assert queued(one) == 3
    empty(one)
    for s in (shots[0], last, more):
        s.ok()
    assert sorted(t[0] for t in asked(one, "pod-0")) == ["a", "d", "e"]
    counted = {o: one.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome=o) for o in ("RejectedCapacity", "EvictedOther", "Dispatched")}
    assert counted == {"RejectedCapacity": 1, "EvictedOther": 2, "Dispatched": 3}
    assert one.gw.metric("penstock_rejected_total", code="queue_full") == 3


def test_earliest_goes(one):
    """A22, literally: capacity 3000, r1...r5 of 1000 bytes in order: r1 and r2 fail at once, r3-r5 are served."""
    one.start_pool({**ON, CAPACITY: "3000", DISCARD: "earliest"}, objective("high", 1))
    fill(one)
    shots = shoot_in_turn(one, [("qwen", {OBJECTIVE: "high"}, text(1000, "1")), ("qwen", {}, text(1000, "2")), ("qwen", {}, text(1000, "3"))])
    t = time.monotonic()
    shots.append(Shot(one.url(), chat_body(text(1000, "4"))))
    shots[0].refused(429, "queue_full", 5)
    shots.append(Shot(one.url(), chat_body(text(1000, "5"))))
    shots[1].refused(429, "queue_full", 5)
    assert time.monotonic() - t < 2
    assert queued(one) == 3
    Shot(one.url(), chat_body(text(3001, "6"))).refused(429, "queue_full", 5)
    assert queued(one) == 3, "one that can never wait makes no room for itself"
    empty(one)
    for s in shots[2:]:
        s.ok()
    assert sorted(t[0] for t in asked(one, "pod-0")) == ["3", "4", "5"]


def test_number_of_requests(one):
    one.start_pool({**ON, REQUESTS: "2"})
    fill(one)
    shots = shoot_in_turn(one, [("qwen", {}, "a"), ("qwen", {}, "b")])
    late = shoot(one, "c")
    shots[0].refused(429, "queue_full", 5)
    empty(one)
    shots[1].ok()
    late.ok()


def test_time_to_live(one):
    """A23, A24: the wait ends at the TTL, give or take 0.2 s, with an answer; the gauges drop; nothing reaches the server."""
    one.start_pool({**ON, TTL: "2s"})
    fill(one)
    shots = [shoot(one, i) for i in range(3)]
    wait_queued(one, 3)
    for s in shots:
        answer = s.refused(503, "queue_timeout")
        assert abs(s.seconds - 2) < 0.2, s.seconds
        assert "waited 2.0 s" in answer.json()["error"]["message"]
    assert queued(one) == 0 and one.gw.metric(FLOW + "queue_size") == 0 and one.gw.metric("penstock_body_bytes_held") == 0
    assert one.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="EvictedTTL") == 3
    assert one.gw.metric("penstock_rejected_total", code="queue_timeout") == 3
    assert one.gw.metric("inference_objective_request_error_total", error_code="queue_timeout") == 3
    (line, *_) = one.gw.handled(3)
    assert line["status"] == 503 and line["error"] == "queue_timeout" and abs(line["queue_ms"] - 2000) < 200
    empty(one)
    one.chat()
    assert len(asked(one, "pod-0")) == 1


def test_time_to_live_by_header(one):
    """The header's TTL counts, up to queue-ttl-max; what is no duration is refused; the server never sees the header."""
    one.start_pool({**ON, TTL: "1s", TTL_MAX: "2s"})
    fill(one)
    for ttl, want in (("300ms", 0.3), ("0.05s", 0.05), ("1h", 2), (None, 1)):
        s = shoot(one, ttl, headers={WAIT: ttl} if ttl else {})
        s.refused(503, "queue_timeout")
        assert abs(s.seconds - want) < 0.2, (ttl, s.seconds)
    for bad in ("30", "5d", "abc", "-1s", "0s", "0"):
        answer = shoot(one, bad, headers={WAIT: bad}).wait()
        assert answer.status == 400 and answer.json()["error"]["code"] == "bad_header", (bad, answer.text)
        assert WAIT in answer.json()["error"]["message"] and bad in answer.json()["error"]["message"]
    empty(one)
    shoot(one, "seen", headers={WAIT: "5s"}).ok()
    assert WAIT not in one.captured("pod-0")[-1]["headers"]


def test_untrusted_headers(one):
    """A pool that does not believe its clients: no header changes anything, and none reaches the server."""
    one.start_pool({**ON, TTL: "1s", TRUST: "none"}, objective("high", 5))
    fill(one)
    s = shoot(one, 1, headers={WAIT: "nonsense", OBJECTIVE: "high", FAIRNESS: "me"})
    wait_queued(one, 1)
    assert one.gw.metric(FLOW + "queue_size", fairness_id="default-flow", priority="0") == 1
    empty(one)
    one_line, _ = one.line(lambda: s.ok())
    assert one_line["priority"] == 0 and "objective" not in one_line and "fairness_id" not in one_line
    seen = one.captured("pod-0")[-1]["headers"]
    assert not {WAIT, OBJECTIVE, FAIRNESS} & set(seen)


def test_a_client_leaves(one):
    """A24: who hangs up while queued is gone at once and never reaches a server; the median until its place is free is at most 10 ms."""
    one.start_pool({**ON, CAPACITY: "1000000"})
    fill(one)
    stay = shoot(one, "stays")
    wait_queued(one, 1)
    leave = [leave_at_once(one.gw.ip, 8080, chat_body(f"leaves {i}", stream=bool(i % 2))) for i in range(50)]
    wait_queued(one, 51)
    for hang_up in leave:
        hang_up()
    wait_queued(one, 1, 2)
    wait_for(lambda: one.gw.metric("penstock_queue_release_seconds_count") == 50, 2, what="50 releases")
    assert one.gw.metric("penstock_queue_release_seconds_bucket", le="0.01") >= 25
    assert one.gw.metric(FLOW + "queue_size") == 1
    assert one.gw.metric(FLOW + "request_queue_duration_seconds_count", outcome="EvictedContextCancelled") == 50
    empty(one)
    stay.ok()
    assert asked(one, "pod-0") == ["question stays"]
    gone = [e for e in one.gw.handled(51) if e.get("error") == "client_closed"]
    assert len(gone) == 50 and all(e["status"] == 499 for e in gone)
    one.gw.assert_idle()


def test_half_closed_client_with_more_to_send(one):
    """A queued client whose further input is not read is noticed leaving all the same."""
    one.start_pool(ON)
    fill(one)
    body = json.dumps(chat_body("leaves"))
    ask = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with Raw(one.gw.ip, 8080) as c:
        c.send(ask + ask)
        wait_queued(one, 1)
    wait_queued(one, 0, 2)
    assert asked(one, "pod-0") == []


def test_request_timeout_while_queued(one):
    """The time limit of the whole request ends the wait: 504, and the place is free."""
    one.start(manifests.pool(annotations=ON), manifests.route(timeout="1s"))
    fill(one)
    s = shoot(one, 1)
    wait_queued(one, 1)
    answer = s.wait()
    assert answer.status == 504 and answer.json()["error"]["code"] == "request_timeout", answer.text
    assert abs(s.seconds - 1) < 0.2
    assert queued(one) == 0
    empty(one)
    one.chat()
    assert asked(one, "pod-0") == ["hello"]


def test_idle_limits_do_not_touch_who_waits(one):
    """100 s in the queue (the gateway's clock runs 20 times as fast): no limit for idle connections, slow bodies or first bytes applies."""
    one.start_pool({**ON, TTL: "10m"}, options=("--time-scale", "20", "--first-byte-timeout", "60s", "--stream-idle-timeout", "20s"))
    fill(one)
    s = shoot(one, 1)
    wait_queued(one, 1)
    time.sleep(5)
    assert queued(one) == 1
    empty(one)
    line, _ = one.line(s.ok)
    assert line["queue_ms"] > 95000


def test_a_free_server_is_used_at_once(world):
    """D6, D3: four of five are full by their queue or by their cache: nobody waits while the fifth has room."""
    world.serve(5).start_pool(ON)
    fill(world, "pod-0", "pod-1")
    for name in ("pod-2", "pod-3"):
        world.fix_metrics(name, waiting=0, running=4, kv=0.95)
    wait_for(lambda: sum(e["full"] for e in world.endpoints().values()) == 4, 5, what="four full servers")
    for i in range(12):
        answer = world.chat(f"question {i}")
        assert answer.status == 200 and answer.headers["x-inference-pod"] == "pod-4"
    assert all(line["queue_ms"] == 0 for line in world.gw.handled(12))
    assert world.gw.metric("inference_extension_flow_control_pool_saturation", inference_pool="pool") < 1
    full = world.endpoints()
    assert full["pod-2"]["kv_use"] >= 0.95 and full["pod-0"]["waiting"] > 5


def test_scale_from_zero(world):
    """X22: no server at all: the request waits and is served when one comes; without queueing it is told so at once."""
    world.server("pod-0")
    world.labels["pod-0"] = {"app": "not-yet"}
    world.start_pool({**ON, TTL: "20s"}, objective("vip", 7))
    s = shoot(world, "early", headers={OBJECTIVE: "vip"})
    wait_queued(world, 1)
    time.sleep(0.5)
    assert s.answer is None
    world.labels["pod-0"] = dict(manifests.LABELS)
    world.sync()
    line, _ = world.line(lambda: s.ok(10))
    assert line["priority"] == 7 and line["objective"] == "vip" and line["queue_ms"] > 400


def test_no_endpoint_to_the_end(world):
    world.put("pods")
    world.start_pool({**ON, TTL: "1s"})
    s = shoot(world, 1)
    s.refused(503, "no_endpoint")
    assert abs(s.seconds - 1) < 0.3
    world.annotate({TTL: "1s"})
    s = shoot(world, 2)
    s.refused(503, "no_endpoint")
    assert s.seconds < 0.5


def test_shed(one):
    """Queueing off, all full: negative priorities are refused, by model or by objective; the others are sent on."""
    one.start_pool({}, model("batch", ["qwen"], "Sheddable"), objective("background", -5))
    fill(one)
    shoot(one, 1, "batch").refused(429, "shed")
    answer = shoot(one, 2, headers={OBJECTIVE: "background"}).refused(429, "shed")
    assert "priority -5" in answer.json()["error"]["message"]
    shoot(one, 3).ok()
    shoot(one, 4, headers={OBJECTIVE: "unknown"}).ok()


def test_anthropic_clients_get_their_error(one):
    one.start_pool({**ON, TTL: "300ms"})
    fill(one)
    answer = http("POST", one.url("/v1/messages"), {"model": "qwen", "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]})
    assert answer.status == 503 and answer.json()["type"] == "error" and answer.json()["error"]["type"] == "overloaded_error"
    assert int(answer.headers["retry-after"]) >= 1


def test_retry_with_nobody_left(one):
    """The only server fails the request: that is the answer at once, not that it waited in vain for another one."""
    one.start_pool(ON)
    one.control("pod-0", "POST", "/fault", {"kind": "reset"})
    s = shoot(one, 0)
    answer = s.wait()
    assert answer.status == 502 and answer.json()["error"]["code"].startswith("upstream_"), answer.text
    assert s.seconds < 5
    one.gw.assert_idle()
