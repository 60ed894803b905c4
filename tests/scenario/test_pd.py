"""Prefill and decode on different servers, each a process of its own: what each of the two is sent, what the client gets, and what is left after
every fault of either, for SGLang's bootstrap and for vLLM's NIXL connector."""
import collections
import json
import signal
import socket
import struct
import threading
import time

import pytest

import manifests
from conftest import http, wait_for
from load import Load
from rawhttp import Closed, Raw, Truncated, post
from resources import model
from split import Deaf, canned, labels, long_text, policy, sim_options, split, world  # noqa: F401
from waiting import QUEUEING, TTL, Shot

MODES = ["bootstrap", "nixl"]
FAST = ("--time-scale", "10")  # servers that have no halves
ROOMS = ("bootstrap_host", "bootstrap_port", "bootstrap_room")


def explain(results):
    return "\n".join(map(repr, results[:12]))


def load(s, **kw):
    """Clients of a split pool, half of them streaming."""
    return Load(s.w.url(), clients=kw.pop("clients", 8), body=lambda i, stream: s.body(long_text(i), stream, **kw))


# --- what goes where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_one_of_each_role(split, mode, stream):
    """B21, B23, B24: a request reaches one prefill and one decode server, told of each other; the answer is the decode's; its line names both."""
    s = split(mode)
    rooms = []
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    for i in range(6):
        s.w.forget()
        answer = s.chat(long_text(i), stream, headers={"X-Request-Id": f"rid-{i}"}, **usage)
        assert answer.status == 200, answer.text
        got = s.where()
        assert sorted(n.split("-")[0] for n in got) == ["decode", "prefill"] and all(len(v) == 1 for v in got.values()), got.keys()
        (p,), (d,) = ([n for n in got if n.startswith(r)] for r in ("prefill", "decode"))
        assert answer.headers["x-inference-pod"] == d
        (to_p,), (to_d,) = got[p], got[d]
        asked = s.body(long_text(i), stream, **usage)
        if mode == "bootstrap":
            assert to_p == to_d == {**asked, "bootstrap_host": s.w.servers[p].ip, "bootstrap_port": 34000, "bootstrap_room": to_p["bootstrap_room"]}
            assert type(to_p["bootstrap_room"]) is int and 0 <= to_p["bootstrap_room"] < 2**63
            rooms.append(to_p["bootstrap_room"])
        else:
            params = to_p.pop("kv_transfer_params")
            assert params["do_remote_decode"] is True and params["do_remote_prefill"] is False
            assert to_p == {**s.body(long_text(i)), "max_tokens": 1}
            params = to_d.pop("kv_transfer_params")
            assert params["do_remote_prefill"] is True and params["remote_host"] == s.w.servers[p].ip and params["remote_block_ids"]
            assert to_d == asked
            assert s.state(p)["kv"]["moved"] > 0
        ids = {c[1].get("X-Request-Id") or c[1].get("x-request-id") for n in (p, d) for c in s.captured(n)}
        assert ids == {f"rid-{i}"}
        line = s.line(answer)
        assert (line["pod"], line["prefill_pod"], line["prefill"]) == (d, p, "elsewhere"), line
        assert line["address"] == f"{s.w.servers[d].ip}:8000" and line["prefill_address"] == f"{s.w.servers[p].ip}:8000"
        assert line["prefill_ms"] > 0 and line["completion_tokens"] == 8 and line["attempts"] == 1
    assert len(set(rooms)) == len(rooms)
    assert s.splits() == 6 and s.splits("here") == 0 and s.failures() == 0
    s.assert_nothing_left()


PARTS = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Odd: a b\r\nTransfer-Encoding: chunked\r\n\r\n",
         b"5\r\n: hi\n\r\n", b"12\r\n\ndata: {\"a\": 0.10}\r\n", b"7;ext=1\r\n\n\ndata:\r\n", b"8\r\n [DONE]\n\r\n1\r\n\n\r\n", b"0\r\n\r\n"]
STREAMED = b": hi\n\ndata: {\"a\": 0.10}\n\ndata: [DONE]\n\n"
WHOLE = b'{"id":"x",  "n":9007199254740993,"kv_transfer_params":null,\n"usage":{"prompt_tokens":1,"completion_tokens":1}}'
PARAMS = b'{"do_remote_prefill":true, "remote_block_ids":[[3,4]],"remote_engine_id":"e","x":18446744073709551615,"remote_host":"h"}'


def http_bytes(body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("mode", MODES)
def test_bytes_of_both_legs_and_of_the_answer(world, canned, mode):  # noqa: F811
    """B23, B24: the client's body goes out unchanged but for the fields of the pair, and the decode's answer comes back as it was written."""
    prefill = canned([http_bytes(b'{"choices":[],"kv_transfer_params":' + PARAMS + b'}')])
    decode = canned(PARTS, gap=0.03)
    decode.partner = prefill
    world.dir.joinpath("all.yaml").write_text(manifests.dump(
        *manifests.gateway(), manifests.route(), manifests.pool(), policy("sglang" if mode == "bootstrap" else "vllm", port=8998),
        manifests.pod("prefill-0", prefill.ip, labels("prefill")), manifests.pod("decode-0", decode.ip, labels("decode"))))
    gw = world._gateway(world.dir)
    if mode == "nixl":
        decode.PAGE = decode.PAGE.replace(b"running{engine=\"0\",model_name=\"qwen\"} 0.0", b"running{engine=\"0\",model_name=\"qwen\"} 300.0")
        wait_for(lambda: any((e["load"]["running"] or 0) > 1 for p in gw.endpoints()["pools"] for e in p["endpoints"]), 5)
    text = long_text(3)
    sent = (b'{ "max_tokens" : 5,"seed":9007199254740993,"model":"qwen",\n "messages":[{"role":"user","content":"' + text.encode() +
            b'\\u00e9"}],"stream":true,"temperature":0.10 }')
    for whole in (False, True):
        decode.pieces = [http_bytes(WHOLE)] if whole else PARTS
        with Raw(gw.ip, 8080) as r:
            r.send(post("/v1/chat/completions", sent))
            a = r.answer("POST")
        assert a.status == 200 and a.body == (WHOLE if whole else STREAMED)
        assert whole or a.get("X-Odd") == "a b"
        (_, to_p), (_, to_d) = prefill.got.pop(), decode.got.pop()
        assert not prefill.got and not decode.got
        if mode == "bootstrap":
            assert to_p == to_d
            more = json.loads(to_p)
            assert (more["bootstrap_host"], more["bootstrap_port"]) == (prefill.ip, 8998)
            assert to_p.startswith(sent[:-2].rstrip()) and str(more["bootstrap_room"]).encode() in to_p
        else:
            assert PARAMS in to_d, "the parameters are copied as they are"
            assert to_d.startswith(sent[:-2].rstrip())
            first = json.loads(to_p)
            assert first["stream"] is False and first["max_tokens"] == 1 and first["seed"] == 9007199254740993
            assert b'"seed":9007199254740993' in to_p and b'"temperature":0.10' in to_p
    gw.assert_idle()


@pytest.mark.parametrize("mode", MODES)
def test_other_paths_reach_decode_alone(split, mode):
    """What generates nothing is not split: it goes to a decode server as it came; the model list is that of both roles."""
    s = split(mode)
    for path, body in (("/tokenize", {"model": "qwen", "prompt": "hello"}), ("/v1/embeddings", {"model": "qwen", "input": "hello"})):
        for _ in range(4):
            answer = http("POST", s.w.url(path), body)
            assert answer.status == 200, answer.text
        got = s.where(path)
        assert got and all(n.startswith("decode") for n in got), got
        assert all(b == body for bodies in got.values() for b in bodies), got
    assert [m["id"] for m in http("GET", s.w.url("/v1/models")).json()["data"]] == ["qwen"]
    assert s.splits() == 0
    s.assert_nothing_left()


@pytest.mark.parametrize("field", [*ROOMS, "kv_transfer_params"])
def test_fields_of_the_pair_are_ours(split, field):
    """A client that brings them is refused, and no server hears of it."""
    s = split("bootstrap", prefill=1, decode=1)
    answer = s.chat(**{field: 1})
    assert answer.status == 400 and answer.json()["error"]["code"] == "forbidden_field" and field in answer.json()["error"]["message"], answer.text
    assert not s.where()
    s.assert_nothing_left()


def test_nixl_is_not_split_where_it_cannot_be(split):
    """Several prompts or answers have one slot for parameters: they go to the decode endpoint. So does a prompt that is computed there sooner."""
    s = split("nixl")
    assert s.chat(n=2).status == 200
    assert http("POST", s.w.url("/v1/completions"), {"model": "qwen", "prompt": [long_text(1), long_text(2)], "max_tokens": 2}).status == 200
    assert all(n.startswith("decode") for path in ("/v1/chat/completions", "/v1/completions") for n in s.where(path))
    for name in s.role("decode"):
        s.w.fix_metrics(name, running=0)
    answer = s.chat("short")
    assert answer.status == 200 and s.line(answer)["prefill"] == "here"
    assert s.splits() == 0 and s.splits("here") == 1
    s.busy()
    assert s.line(s.chat())["prefill"] == "elsewhere", "and a long one beside busy answers is"
    s.assert_nothing_left()


# --- native endpoints ----------------------------------------------------------------------------------------------------------


def test_generate_split_with_batches(split):
    """SGLang's own API: a list of prompts gets lists of hosts, ports and rooms, each room of its own; streams; n in chat."""
    s = split("bootstrap")
    url = s.w.url("/generate")
    one = http("POST", url, {"text": long_text(1), "sampling_params": {"max_new_tokens": 4}})
    assert one.status == 200 and one.json()["meta_info"]["completion_tokens"] == 4, one.text
    two = http("POST", url, {"text": [long_text(1), long_text(2)], "sampling_params": {"max_new_tokens": 4}})
    assert two.status == 200 and len(two.json()) == 2, two.text
    ids = http("POST", url, {"input_ids": [[1, 2, 3], [4, 5]], "sampling_params": {"max_new_tokens": 2}, "stream": True})
    assert ids.status == 200 and ids.text.rstrip().endswith("data: [DONE]"), ids.text
    got = collections.defaultdict(dict)
    for role in ("prefill", "decode"):
        for name in s.role(role):
            for _, _, b in s.captured(name, "/generate"):
                got[json.dumps(b.get("text") or b["input_ids"])][role] = (name, b)
    assert len(got) == 3 and all(len(v) == 2 for v in got.values())
    rooms = []
    for both in got.values():
        (p, a), (_, b) = both["prefill"], both["decode"]
        assert a == b
        if isinstance(a["bootstrap_room"], list):
            assert a["bootstrap_host"] == [s.w.servers[p].ip] * 2 and a["bootstrap_port"] == [34000, 34000] and len(a["bootstrap_room"]) == 2
            rooms += a["bootstrap_room"]
        else:
            assert a["bootstrap_host"] == s.w.servers[p].ip
            rooms.append(a["bootstrap_room"])
    assert len(rooms) == 5 == len(set(rooms)) and all(type(r) is int for r in rooms)
    assert len(s.chat(n=3).json()["choices"]) == 3
    assert all(len(b["bootstrap_room"]) == 3 for v in s.where().values() for b in v)
    assert s.line(one)["completion_tokens"] == 4 and s.line(two)["completion_tokens"] == 8
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_messages_and_responses_split(split, mode):
    """The other generating APIs are split as well."""
    s = split(mode)
    asks = {"/v1/messages": {"model": "qwen", "max_tokens": 4, "messages": [{"role": "user", "content": long_text(1)}]},
            "/v1/responses": {"model": "qwen", "max_output_tokens": 4, "input": long_text(2)},
            "/v1/completions": {"model": "qwen", "max_tokens": 4, "prompt": long_text(3)}}
    for path, body in asks.items():
        for stream in (False, True):
            s.w.forget()
            answer = http("POST", s.w.url(path), {**body, "stream": stream})
            assert answer.status == 200, (path, answer.text)
            roles = ["decode"] if mode == "nixl" and path == "/v1/messages" else ["decode", "prefill"]  # no parameters in answers of that shape
            assert sorted(n.split("-")[0] for n in s.where(path)) == roles, (path, stream)
            assert ("event-stream" in answer.headers["content-type"]) == stream
    s.assert_nothing_left()


def test_generate_of_a_plain_pool(world):  # noqa: F811
    """/generate without roles: routed by its prompt, retried where a queue is full (503, or HTTP 200 and an error event), the client sees whole answers."""
    for i in range(2):
        world.server(f"pod-{i}", "--dialect", "sglang", "--enable-metrics", *FAST)
    world.start_pool({f"{manifests.X}/model-server-runtime": "sglang", f"{manifests.X}/routing-strategy": "PREFIX_CACHE"})
    url = world.url("/generate")

    def generate(i, stream=False):
        return http("POST", url, {"text": long_text(i), "sampling_params": {"max_new_tokens": 4}, "stream": stream})

    pods = {world.line_of(generate(1))["pod"] for _ in range(5)}
    assert len(pods) == 1, "the same prompt stays"
    assert world.line_of(generate(1))["prefix_hit_bytes"] > 1000
    for spec in ({"status": 503, "at": "after_body"}, {"status": 503, "at": "after_head"}):
        world.control("pod-0", "POST", "/fault", {"kind": "status", **spec})
        answers = [generate(i, stream) for i in range(10, 16) for stream in (False, True)]
        assert all(a.status == 200 and b"error" not in a.body for a in answers), [a.text for a in answers if a.status != 200]
        assert all(a.text.rstrip().endswith("data: [DONE]") for a in answers[1::2])
        assert {a.headers["x-inference-pod"] for a in answers[1::2]} == {"pod-1"}
    assert world.gw.metric("penstock_retries_total") > 0
    world.gw.assert_idle()


def test_full_queue_of_sglang(world):  # noqa: F811
    """--max-queued-requests: a server that is full says so as an error, in a stream behind a 200. Nobody sees it while another has room."""
    world.server("pod-0", "--dialect", "sglang", "--enable-metrics", "--max-running-requests", "1", "--max-queued-requests", "1")
    world.server("pod-1", "--dialect", "sglang", "--enable-metrics")
    world.start_pool({f"{manifests.X}/model-server-runtime": "sglang", "penstock.dev/policy": "round-robin"})
    with Load(world.url(), clients=8, max_tokens=8) as busy:
        wait_for(lambda: len(busy.results) > 60, 30, what="requests")
    bad = [r for r in busy.results if r.outcome != "ok"]
    assert not bad, explain(bad)
    assert world.gw.metric("penstock_retries_total") > 5, "the full server was asked"
    assert {r.pod for r in busy.results} == {"pod-0", "pod-1"}
    world.gw.assert_idle()


def test_triton_generate(world):  # noqa: F811
    """Triton's generate and generate_stream: the model is in the path, routes by X-Gateway-Model-Name see it, targetModels rewrites it."""
    for i in range(2):
        world.server(f"pod-{i}", "--dialect", "triton", *FAST, model="ensemble")
    notes = {f"{manifests.X}/model-server-runtime": "trt-llm", f"{manifests.X}/routing-strategy": "PREFIX_CACHE"}
    route = manifests.route()
    route["spec"]["rules"][0]["matches"] = [{"headers": [{"type": "Exact", "name": "X-Gateway-Model-Name", "value": "public"}]},
                                            {"headers": [{"type": "Exact", "name": "X-Gateway-Model-Name", "value": "ensemble"}]}]
    world.start(manifests.pool(annotations=notes), route, model("public", [("ensemble", 100)]))
    wait_for(lambda: all(e["load"]["fresh"] and e["load"]["waiting"] is not None for e in world.endpoints().values()), 5, what="Triton's metrics")
    for name in ("ensemble", "public"):
        answer = http("POST", world.url(f"/v2/models/{name}/generate"), {"text_input": long_text(1), "max_tokens": 4})
        assert answer.status == 200 and answer.json()["model_name"] == "ensemble" and answer.json()["text_output"], answer.text
        line = world.line_of(answer)
        assert (line["model"], line["target_model"]) == (name, "ensemble")
    assert line["prefix_hit_bytes"] > 1000
    stream = http("POST", world.url("/v2/models/public/versions/1/generate_stream"), {"text_input": long_text(1), "max_tokens": 4, "stream": True})
    assert stream.status == 200 and "event-stream" in stream.headers["content-type"] and stream.body.count(b"data: ") == 4, stream.text
    paths = [c["path"] for n in world.servers for c in world.captured(n)]
    assert sorted(paths) == ["/v2/models/ensemble/generate", "/v2/models/ensemble/generate", "/v2/models/ensemble/versions/1/generate_stream"]
    missing = http("POST", world.url("/v2/models/other/generate"), {"text_input": "x", "max_tokens": 4})
    assert missing.status == 404 and isinstance(missing.json()["error"], str), missing.text
    world.gw.assert_idle()


def test_rerank_score_and_others(world, canned):  # noqa: F811
    """Rerank and score are routed by their query and documents, as any request of the pool; messages and responses by their prompts."""
    servers = [canned([http_bytes(b'{"id":"resp_1","results":[],"usage":{"prompt_tokens":3,"total_tokens":3}}')]) for _ in range(3)]
    world.dir.joinpath("all.yaml").write_text(manifests.dump(
        *manifests.gateway(), manifests.route(), manifests.pool(annotations={f"{manifests.X}/routing-strategy": "PREFIX_CACHE"}),
        *(manifests.pod(f"pod-{i}", c.ip) for i, c in enumerate(servers))))
    world.gw = world._gateway(world.dir)
    asks = {"/rerank": {"model": "qwen", "query": long_text(1), "documents": ["a", "b"]},
            "/v1/rerank": {"model": "qwen", "query": long_text(2), "documents": ["a", "b"]},
            "/score": {"model": "qwen", "text_1": long_text(3), "text_2": ["x"]},
            "/v1/messages": {"model": "qwen", "max_tokens": 1, "messages": [{"role": "user", "content": long_text(4)}]},
            "/v1/responses": {"model": "qwen", "input": long_text(5)}}
    for path, body in asks.items():
        for k in range(4):
            assert http("POST", world.url(path), body, {"X-Request-Id": f"{path}{k}"}).status == 200
        lines = wait_for(lambda p=path: [e for e in world.gw.handled() if e["request_id"] in {f"{p}{k}" for k in range(4)}], 5)
        assert len({e["pod"] for e in lines}) == 1 and all(e["model"] == "qwen" for e in lines), (path, lines)
        assert lines[-1]["prefix_hit_bytes"] > 1000, (path, lines[-1])
    world.gw.assert_idle()


# --- load ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_many_clients(split, mode):
    """16 clients, 3 prefill and 3 decode servers: every answer whole, both roles used evenly, nothing left."""
    s = split(mode, prefill=3, decode=3, scale=4)
    with load(s, clients=16) as busy:
        time.sleep(3)
    bad = [r for r in busy.results if r.outcome != "ok"]
    assert not bad and len(busy.results) > 60, explain(bad)
    picks = {n: e["picks"] for n, e in s.endpoints().items()}
    for role in ("prefill", "decode"):
        mine = [v for n, v in picks.items() if n.startswith(role)]
        assert len(mine) == 3 and max(mine) <= 1.6 * sum(mine) / 3 and min(mine) >= 0.5 * sum(mine) / 3, picks
    assert s.failures() == 0
    assert s.splits() == len(busy.results) if mode == "bootstrap" else s.splits() > 0.8 * len(busy.results)
    s.assert_nothing_left()


# --- faults --------------------------------------------------------------------------------------------------------------------

FAULTS = [("refuse", "now", {}), ("reset", "before", {}), ("reset", "after_body", {}), ("reset", "mid_stream", {}), ("garbage", "before", {}),
          ("garbage", "after_head", {}), ("hang", "after_body", {}), ("hang", "now", {}), ("slow", "now", {"factor": 20}), ("status", "after_body", {"status": 500}),
          ("status", "after_body", {"status": 503}), ("status", "after_head", {"status": 503}), ("status", "mid_stream", {"status": 500}), ("kill", "after_body", {})]


def allowed(role, kind, at, spec):
    """Outcomes that clients may see beside whole answers: (outcome, statuses)."""
    out = set()
    if role == "decode":
        if at == "mid_stream" or (kind in ("kill", "refuse", "hang") and at in ("now", "after_body")):
            out |= {"cut"}
        if spec.get("status") == 500 or at == "mid_stream":
            out |= {"error 500", "error 502"}
        if kind == "status" and at in ("after_head", "mid_stream"):
            out |= {"silent"}  # the server's own error event ends its stream
    return out


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("mode", MODES)
def test_every_fault_of_one_server(split, mode, role):
    """One of two servers of a role fails in every way and at every point while 8 clients ask: each request ends once, soon, and leaves nothing."""
    s = split(mode, scale=8, options=("--first-byte-timeout", "1s", "--scrape-interval", "300ms"))
    victim = f"{role}-0"
    with load(s) as busy:
        wait_for(lambda: len(busy.results) > 8, 10)
        for kind, at, spec in FAULTS:
            start = busy.mark()
            s.fault(victim, kind=kind, at=at, **spec)
            time.sleep(0.4 if kind != "hang" else 1.3)
            s.fault(victim, kind="none")
            wait_for(lambda: s.endpoints()[victim]["state"] in ("ready", "slow start"), 5, what=f"{kind} at {at}: {victim} back")
            time.sleep(0.1)
            wait_for(lambda: any(r.t1 and r.outcome == "ok" for r in busy.started_since(start)), 5, what=f"{kind} at {at}: an answer")
            ended = [r for r in busy.started_since(start) if r.t1]
            ok = allowed(role, kind, at, spec)
            bad = [r for r in ended if r.outcome != "ok" and r.outcome not in ok and f"{r.outcome} {r.status}" not in ok]
            assert not bad, f"{kind} at {at} {spec}: {Load.count(ended)}\n{explain(bad)}"
            late = [r for r in ended if r.t1 - r.t0 > 5]
            assert not late, f"{kind} at {at}: {explain(late)}"
    assert s.failures() > 0 or role == "decode"
    s.assert_nothing_left()
    after = [s.chat(long_text(1000 + i)) for i in range(4)]
    assert all(a.status == 200 for a in after)


def test_retry_of_a_pair(split):
    """A prefill that refuses: another prefill server, a new room, the same request id; the client sees nothing of it."""
    s = split("bootstrap")
    for k, (kind, at, stream) in enumerate([("status", "after_body", False), ("status", "after_head", True), ("reset", "after_body", True),
                                            ("reset", "before", False), ("garbage", "before", False), ("refuse", "now", True)]):
        once = {"count": 1} if at == "before" else {}
        hit = False
        s.w.forget()
        before = s.failures(then="pair")
        s.fault("prefill-0", kind=kind, at=at, **once, **({"status": 503} if kind == "status" else {}),
                **({"match": f"FAULT{k} "} if at.startswith("after") else {}))
        for i in range(60):
            answer = s.chat(f"FAULT{k} " + long_text(60 * k + i), stream)
            assert answer.status == 200, (kind, at, answer.text)
            line = s.line(answer)
            if line["attempts"] == 2:
                hit = True
                break
        assert hit and line["prefill_pod"] == "prefill-1", (kind, at)
        rid = answer.headers["x-request-id"]
        s.fault("prefill-0", kind="none")
        assert s.failures(then="pair") == before + 1
        rooms = [b["bootstrap_room"] for n in s.role("decode") for _, h, b in s.captured(n) if {k.lower(): v for k, v in h.items()}["x-request-id"] == rid]
        last = [b for _, h, b in s.captured("prefill-1") if {k.lower(): v for k, v in h.items()}["x-request-id"] == rid]
        assert len(last) == 1 and last[0]["bootstrap_host"] == s.w.servers["prefill-1"].ip
        assert last[0]["bootstrap_room"] in rooms and len(rooms) == len(set(rooms)), "every attempt has a room of its own"
        s.wait_ready()
    s.assert_nothing_left()


@pytest.mark.parametrize("stream", [False, True])
def test_nixl_prefills_at_the_decode_endpoint_instead(split, stream):
    """Every prefill server fails: the decode endpoint, reserved already, computes the prompt; the metric says so."""
    s = split("nixl")
    done = 0
    for kind, at, spec in (("status", "after_body", {"status": 500}), ("status", "after_body", {"status": 503}), ("reset", "after_body", {}),
                           ("garbage", "before", {"count": 1})):
        s.fault(*s.role("prefill"), kind=kind, at=at, **spec)
        answer = s.chat(stream=stream)
        assert answer.status == 200, (kind, answer.text)
        line = s.line(answer)
        assert line["attempts"] == 1 and line["pod"].startswith("decode"), line
        done += 1
        wait_for(lambda: s.failures(then="decode") == done, 2, what=f"{kind}: the metric")
        s.fault(*s.role("prefill"), kind="none")
        s.wait_ready()
    asked = [b for v in s.where().values() for b in v if "kv_transfer_params" not in b]
    assert len(asked) == 4 and all(b == s.body(long_text(1), stream) for b in asked), "as the client sent it"
    s.assert_nothing_left()


def test_nixl_prompt_that_is_gone(split):
    """The decode server cannot fetch what the prefill handed over (its lease ended): the request is served there all the same."""
    s = split("nixl", prefill=1, decode=1, scale=4)
    s.fault("decode-0", kind="hang", at="after_body", count=1)
    got = {}
    t = threading.Thread(target=lambda: got.update(a=s.chat()))
    t.start()
    wait_for(lambda: s.hits("decode-0") == 1, 5)
    wait_for(lambda: s.state("prefill-0")["kv"]["ready"] == 0 and s.state("prefill-0")["kv"]["expired"] == 1, 5, what="the end of the lease")
    s.fault("decode-0", kind="none")
    t.join(20)
    assert got["a"].status == 200, got["a"].text
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_no_prefill_server(split, mode):
    """All prefill servers dead: SGLang's pool says so at once, with a code; vLLM's computes at the decode endpoint. Back, they are used again."""
    s = split(mode)
    s.fault(*s.role("prefill"), kind="kill", at="now")
    t = time.monotonic()
    for i in range(6):
        answer = s.chat(long_text(i), stream=bool(i % 2))
        if mode == "nixl":
            assert answer.status == 200
        else:
            assert answer.status == 503 and answer.json()["error"]["code"] in ("prefill_failed", "no_prefill_endpoint"), answer.text
            assert "prefill" in answer.json()["error"]["message"]
    assert time.monotonic() - t < 4
    s.fault(*s.role("prefill"), kind="none")
    back = time.monotonic()
    wait_for(lambda: s.chat().status == 200 and any(s.captured(n) for n in s.role("prefill")), 2.5, what="prefill servers in use again")
    assert time.monotonic() - back < 2.5
    s.wait_ready()
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_missing_role(split, mode):
    """B24: the pods of a role are not there: 503 with the role's name and code at once; without prefill pods vLLM's pool serves."""
    s = split(mode, prefill=1, decode=1)
    pods = {n: manifests.pod(n, v.ip, s.w.labels[n]) for n, v in s.w.servers.items()}
    for role in ("prefill", "decode"):
        s.w.apply(*(p for n, p in pods.items() if not n.startswith(role)), file="pods")
        wait_for(lambda: len(s.endpoints()) == 1, 3)
        t = time.monotonic()
        answer = s.chat()
        if role == "prefill" and mode == "nixl":
            assert answer.status == 200 and s.line(answer)["prefill"] == "here"
        else:
            assert answer.status == 503 and answer.json()["error"]["code"] == f"no_{role}_endpoint", answer.text
            assert f"role {role}" in answer.json()["error"]["message"] and int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - t < 2.5
        s.w.apply(*pods.values(), file="pods")
        wait_for(lambda: s.chat().status == 200, 2, what="service")
        s.wait_ready()
        s.busy()
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_killed_processes(split, sim, release_binary, mode):
    """SIGKILL of a prefill and of a decode process under load: what had no byte yet is answered elsewhere; both serve again at their addresses."""
    s = split(mode, scale=4, options=("--scrape-interval", "300ms"))
    with load(s) as busy:
        wait_for(lambda: len(busy.results) > 8, 10)
        for victim in ("prefill-1", "decode-1"):
            start = busy.mark()
            old = s.w.servers[victim]
            old.kill()
            old.proc.returncode = 0  # its end was ours
            time.sleep(1)
            s.w.servers[victim] = sim("--model", "/models/qwen", "--served-model-name", "qwen", "--pod-name", victim, "--time-scale", "4",
                                      *sim_options(mode, victim.split("-")[0], 4), ip=old.ip, binary=release_binary)
            back = busy.mark()
            picks = s.endpoints()[victim]["picks"]
            wait_for(lambda: s.endpoints()[victim]["picks"] > picks, 2.5, what=f"{victim} used again")
            assert busy.mark() - back < 2.5
            time.sleep(0.3)
            ended = busy.since(start)
            bad = [r for r in ended if r.outcome not in ("ok", "cut")]
            cut = [r for r in ended if r.outcome == "cut"]
            assert not bad and len(cut) <= (8 if victim == "decode-1" else 0), f"{victim}: {Load.count(ended)}\n{explain(bad or cut)}"
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_time_limit(split, mode):
    """Nobody answers: a request ends at its limit, wherever it is, and both servers are rid of it."""
    s = split(mode, route={"timeout": "1s"})
    for role in ("prefill", "decode"):
        s.fault(*s.role(role), kind="hang", at="after_body")
        for stream in (False, True):
            t = time.monotonic()
            answer = s.chat(stream=stream)
            took = time.monotonic() - t
            assert answer.status == 504 and answer.json()["error"]["code"] == "request_timeout", (role, answer.text)
            assert 0.9 < took < 1.6, (role, took)
        wait_for(lambda: s.gw.metric("penstock_endpoint_inflight") == 0, 2)
        s.fault(*s.role(role), kind="none")
        wait_for(lambda: s.chat().status == 200, 3, what="service")
    s.assert_nothing_left()


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("mode", MODES)
def test_server_that_cannot_be_connected_to(split, mode, role):
    """Connecting hangs: given up after --connect-timeout, tried elsewhere; a client that leaves meanwhile takes its reservations along."""
    s = split(mode, options=("--connect-timeout", "1s", "--scrape-interval", "20s"))
    s.chat()  # models and metrics are known
    victim = s.w.servers[f"{role}-0"]
    victim.kill()
    victim.proc.returncode = 0
    deaf = Deaf(victim.ip)
    try:
        gone = Raw(s.ip, 8080)
        for _ in range(8):
            gone.send(post("/v1/chat/completions", json.dumps(s.body(long_text(5)))))
            try:
                wait_for(lambda: s.endpoints()[f"{role}-0"]["inflight"] == 1, 0.15)
                break
            except AssertionError:
                gone.answer("POST")
        else:
            raise AssertionError("never picked")
        gone.sock.close()
        wait_for(lambda: s.gw.metric("penstock_endpoint_inflight") == 0, 0.8, what="the reservations of who left while it was connected")
        slowest = 0
        for i in range(6):
            t = time.monotonic()
            answer = s.chat(long_text(20 + i))
            slowest = max(slowest, time.monotonic() - t)
            assert answer.status == 200, answer.text
        # Where both are sent the request at once, the decode server says sooner that its partner is not there.
        assert slowest < 3 and (slowest > 0.9 or (mode, role) == ("bootstrap", "prefill")), slowest
    finally:
        deaf.stop()
    s.w.servers.pop(f"{role}-0")
    s.assert_nothing_left()


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_hung_partner_is_found_by_its_silence(split, role):
    """SGLang with a limit for the first byte: whichever of the two hangs for good, a request is served by another pair, and soon nobody goes there."""
    s = split("bootstrap", options=("--first-byte-timeout", "400ms", "--scrape-interval", "300ms"))
    s.fault(f"{role}-0", kind="hang", at="after_body", match="Question", count=20)
    worst = 0
    for i in range(10):
        t = time.monotonic()
        answer = s.chat(long_text(i), stream=bool(i % 2))
        worst = max(worst, time.monotonic() - t)
        assert answer.status == 200, answer.text
        assert s.line(answer)["pod" if role == "decode" else "prefill_pod"] == f"{role}-1"
    assert 0.4 < worst < 1.5, "one of them went there, and once"
    s.fault(f"{role}-0", kind="none")
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_hung_servers_are_found_by_probes(split, mode):
    """Without such a limit: probes tell, and what had no byte yet moves; no request fails or lasts."""
    s = split(mode)
    with load(s) as busy:
        wait_for(lambda: len(busy.results) > 8, 10)
        for name in ("prefill-0", "decode-0"):
            start = busy.mark()
            s.fault(name, kind="hang", at="now")
            wait_for(lambda: s.endpoints()[name]["state"] == "ejected", 5, what=f"{name} ejected")
            time.sleep(0.3)
            assert not [r for r in list(busy.running.values()) if r.t0 < start and not r.t_first and r.pod is None and busy.mark() - r.t0 > 6]
            s.fault(name, kind="none")
            s.wait_ready()
    assert Load.count(busy.results) == {"ok": len(busy.results)}, explain([r for r in busy.results if r.outcome != "ok"])
    assert max(r.t1 - r.t0 for r in busy.results) < 6
    s.assert_nothing_left()


# --- the queue, and the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_queueing(split, mode):
    """With queueing on: while either role that it needs is full a request waits, and then gets its pair; its time to live ends it with a code."""
    s = split(mode, annotations={QUEUEING: "enabled", TTL: "1500ms"})
    full = {"waiting": 50, "running": 300}

    def queued():
        return s.w.backend()["queued"]

    for role in ("prefill", "decode") if mode == "bootstrap" else ("decode",):
        for name in s.role(role):
            s.w.fix_metrics(name, **full)
        t = time.monotonic()
        late = s.chat()
        assert late.status == 503 and late.json()["error"]["code"] == "queue_timeout" and 1.4 < time.monotonic() - t < 2.2, late.text
        shot = Shot(s.w.url(), s.body(long_text(2)))
        wait_for(lambda: queued() == 1, 3)
        raw = Raw(s.ip, 8080)
        raw.send(post("/v1/chat/completions", json.dumps(s.body(long_text(3)))))
        wait_for(lambda: queued() == 2, 1)
        raw.sock.close()
        wait_for(lambda: queued() == 1, 1, what="who left is out of the queue")
        s.control(s.role(role)[0], "POST", "/metrics", {"waiting": 0, "running": 300})
        shot.join(10)
        assert shot.answer and shot.answer.status == 200, shot.answer and shot.answer.text
        line = s.line(shot.answer)
        assert line["queue_ms"] > 0 and line["pod" if role == "decode" else "prefill_pod"] == s.role(role)[0]
        for name in s.role(role):
            s.control(name, "POST", "/metrics", {"waiting": None, "running": None, "kv": None})
        s.busy()
        wait_for(lambda: s.chat().status == 200 and s.w.backend()["room"] > 0, 5)
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_orderly_end_under_way(split, mode):
    """SIGTERM while pairs are under way at every stage: each answer ends whole, then the gateway ends."""
    s = split(mode, scale=2)
    raws = []
    for i in range(6):
        raws.append(Raw(s.ip, 8080, timeout=30))
        raws[-1].send(post("/v1/chat/completions", json.dumps(s.body(long_text(i, 6000), bool(i % 2), max_tokens=40))))
        time.sleep(0.1)
    s.gw.signal(signal.SIGTERM)
    for i, raw in enumerate(raws):
        answer = raw.answer("POST")
        assert answer.status == 200 and (not i % 2 or answer.body.rstrip().endswith(b"data: [DONE]")), answer.body
    assert s.gw.proc.wait(10) == 0
    for name in s.w.servers:
        wait_for(lambda n=name: not s.left(n), 4)


# --- clients that leave --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode,how", [("bootstrap", "close"), ("bootstrap", "reset"), ("nixl", "close")])
def test_client_that_leaves(split, mode, how):
    """At every stage of a pair: prefill under way, both waiting for a head, the decode alone, mid-stream. Everything is cancelled at once."""
    s = split(mode, prefill=1, decode=1, scale=2)
    asked = iter(range(100))  # a prompt of its own each time: what is cached is computed in no time

    def leave(raw):
        if how == "reset":
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.sock.close()

    def stage(what, stream, until, fault=()):
        if fault:
            s.fault(fault[0], kind=fault[1], at=fault[2])
        raw = Raw(s.ip, 8080)
        raw.send(post("/v1/chat/completions", json.dumps(s.body(long_text(next(asked), 12000), stream, max_tokens=3000))))
        wait_for(lambda: until(raw), 5, what=f"{what}: reached")
        leave(raw)
        wait_for(lambda: s.gw.metric("penstock_endpoint_inflight") == 0, 2, what=f"{what}: in-flight zero")
        if fault:
            s.fault(fault[0], kind="none")
        s.wait_ready()
        s.assert_nothing_left()

    def jobs(name):
        return s.state(name)["jobs"]

    def streaming(raw):
        if not raw.buf:
            assert raw.head().status == 200
        raw.more()
        return raw.buf.count(b"data: ") > 3

    for stream in (True, False) if mode == "bootstrap" else (False,):
        stage("prefill under way", stream, lambda raw: jobs("prefill-0") == 1)
        stage("prefill silent", stream, lambda raw: s.hits("prefill-0") == 1, ("prefill-0", "hang", "after_body"))
        stage("decode silent", stream, lambda raw: s.hits("decode-0") == 1, ("decode-0", "hang", "after_body"))
        stage("decode slow", stream, lambda raw: jobs("decode-0") == 1, ("decode-0", "slow", "now"))
    stage("mid-stream", True, streaming)
    stage("decoding a whole answer", False, lambda raw: s.state("decode-0")["running"] == 1)
    assert s.chat().status == 200
    s.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_faults_and_clients_that_leave_at_once(split, mode):
    """Random faults of a server of either role, rude clients, others that wait for answers: no silent cut, nothing left."""
    import random
    rng = random.Random(5)
    s = split(mode, scale=4, options=("--first-byte-timeout", "3s", "--scrape-interval", "300ms"))
    wire = post("/v1/chat/completions", json.dumps(s.body(long_text(77), True, max_tokens=40)))
    stop = threading.Event()

    def rude(k):
        r = random.Random(k)
        while not stop.is_set():
            try:
                with Raw(s.ip, 8080, timeout=2) as raw:
                    raw.send(wire)
                    if r.random() < 0.4:
                        raw.head()
                    time.sleep(r.random() * 0.05)
            except (OSError, Closed, Truncated):
                pass

    threads = [threading.Thread(target=rude, args=(k,)) for k in range(2)]
    with load(s, clients=6) as busy:
        for t in threads:
            t.start()
        end = time.monotonic() + 4.5
        while time.monotonic() < end:
            name = rng.choice(("prefill-0", "decode-0"))
            s.fault(name, kind=rng.choice(("kill", "refuse", "reset", "garbage", "hang", "slow", "status")), count=rng.choice((1, 5, 50)), factor=10,
                    at=rng.choice(("before", "after_body", "after_head", "mid_stream")), duration_ms=rng.choice((800, 3000)), status=rng.choice((500, 503)))
            time.sleep(rng.random() * 0.4)
        stop.set()
        for t in threads:
            t.join()
        s.fault("prefill-0", "decode-0", kind="none")
        s.wait_ready()
        calm = busy.mark() + 0.5
        time.sleep(1.2)
    count = Load.count(busy.results)
    assert count["ok"] > 20, count
    bad = [r for r in busy.results if r.outcome == "failed" or (r.outcome == "error" and r.status not in (500, 502, 503, 504))]
    assert not bad, explain(bad)
    late = [r for r in busy.started_since(calm) if r.outcome != "ok"]
    assert not late, explain(late)
    assert not [r for r in busy.results if r.t1 - r.t0 > 14], explain([r for r in busy.results if r.t1 - r.t0 > 14])
    s.assert_nothing_left(timeout=8)
