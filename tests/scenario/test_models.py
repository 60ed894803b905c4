"""Models: names, targets, criticality, what servers tell of themselves (rows B31-B34, C19, C38, D7, D14, D15, X5, decision 3)."""
import http.server
import json
import threading
import time
from collections import Counter

import pytest

import manifests
from conftest import EXAMPLES, fresh_ip, http as request, wait_for
from rawhttp import Raw
from resources import PREFIX, UNKNOWN_MODEL, Steady, chat_body, many, model, ok, world  # noqa: F401


# --- names and targets -----------------------------------------------------------------------------------------------------------------


def test_unknown_model_is_served_as_standard(world):
    """B31, decision 3: a name without InferenceModel goes through unchanged as Standard; names may hold slashes."""
    w = world.server("pod-0", model=["/models/Qwen3-32B", "free"]) and world
    w.start_pool(None, model("/models/Qwen3-32B", ["/models/Qwen3-32B"], "Critical"))
    for name, level in (("/models/Qwen3-32B", "Critical"), ("free", "Standard")):
        line, answer = w.line(lambda: w.chat(name=name))
        assert (line["model"], line["target_model"], line["criticality"]) == (name, name, level)
        assert answer.json()["model"] == name
    assert json.loads(w.captured("pod-0")[-1]["body"])["model"] == "free"
    assert w.gw.metric("inference_objective_request_total", model_name="free") == 1


def test_unknown_model_may_be_rejected(world):
    """B31, decision 3: penstock.dev/unknown-model: reject gives 404 model_not_found, set and taken back hot; no server is asked."""
    w = world.server("pod-0", model=["known", "free"]) and world
    known = model("known")
    w.start_pool({UNKNOWN_MODEL: "reject"}, known)
    assert w.chat(name="known").status == 200
    w.forget()
    answer = w.chat(name="free")
    assert answer.status == 404, answer.text
    error = answer.json()["error"]
    assert error["code"] == "model_not_found" and error["type"] and "free" in error["message"] and error["param"] == "model"
    assert answer.headers["x-should-retry"] == "false"
    assert w.captured("pod-0") == []
    w.annotate({}, known)
    assert w.chat(name="free").status == 200
    w.annotate({UNKNOWN_MODEL: "reject"}, known, model("free"))
    assert w.chat(name="free").status == 200


def test_model_of_another_pool_is_ignored(world):
    """B33: an InferenceModel bound to another pool changes nothing here."""
    w = world.server("pod-0", model=["alias", "real"]) and world
    w.start_pool(None, manifests.pool("elsewhere", labels={"app": "none"}), model("alias", ["real"], "Critical", pool="elsewhere"))
    line, _ = w.line(lambda: w.chat(name="alias"))
    assert line["target_model"] == "alias" and line["criticality"] == "Standard"


@pytest.mark.parametrize("first, second, within", [(70, 30, 0.03), (80, 20, 0.03)], ids=["70-30", "80-20"])
def test_targets_by_weight(world, first, second, within):
    """B34 (70/30) and X5 (80/20 on two adapters): shares over 2000 requests, as seen by the servers."""
    for i in range(2):
        world.server(f"pod-{i}", "--time-scale", "50", "--enable-lora", "--max-loras", "2", "--lora-modules", "v1=/l/1", "v2=/l/2")
    w = world.start_pool(None, model("helper", [("v1", first), ("v2", second)]))
    outcomes = ok(many(w.url(), 2000, clients=24, body=lambda i: chat_body(f"question {i}", "helper")))
    served = Counter(json.loads(o.body)["model"] for o in outcomes)
    assert set(served) == {"v1", "v2"}
    assert abs(served["v1"] / 2000 - first / 100) <= within, served
    assert w.gw.metric("inference_objective_request_total", model_name="helper", target_model_name="v2") == served["v2"]


def test_targets_without_weights_share_evenly(world):
    """B34: no weights at all means equal shares; a model without targets goes by its own name."""
    world.server("pod-0", "--time-scale", "50", model=["a", "b", "own"])
    w = world.start_pool(None, model("alias", ["a", "b"]), model("own"))
    served = Counter(json.loads(o.body)["model"] for o in ok(many(w.url(), 400, 8, body=lambda i: chat_body(name="alias"))))
    assert 160 <= served["a"] <= 240, served
    assert w.chat(name="own").json()["model"] == "own"


def test_targets_change_live(world):
    """X5: a model's target moved while requests run: none fails, and what begins afterwards has the new target; so when the model is deleted."""
    world.server("pod-0", "--time-scale", "10", model=["alias", "v1", "v2"])
    world.server("pod-1", "--time-scale", "10", model=["alias", "v1", "v2"])
    w = world.start_pool(None, model("alias", ["v1"], "Critical"))
    with Steady(w.url(), body=lambda i: chat_body(f"steady {i}", "alias")):
        assert w.chat(name="alias").json()["model"] == "v1"
        w.annotate({}, model("alias", ["v2"]))
        assert {w.chat(name="alias").json()["model"] for _ in range(6)} == {"v2"}
        w.annotate({})
        line, answer = w.line(lambda: w.chat(name="alias"))
        assert answer.json()["model"] == "alias" and line["criticality"] == "Standard"
    w.gw.assert_idle()


def test_older_model_wins(world):
    """Two InferenceModels of one name in one pool: the older object is in effect and the other is warned about."""
    world.server("pod-0", model=["old", "new"])
    old, new = model("alias", ["old"], object_name="z"), model("alias", ["new"], object_name="a")
    old["metadata"]["creationTimestamp"], new["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"
    w = world.start_pool(None, new, old)
    assert w.chat(name="alias").json()["model"] == "old"
    (warning,) = [e for e in w.gw.events("Configuration") if e.get("field") == "spec.modelName"]
    assert "default/a" in warning["object"] and "older" in warning["text"]


def test_only_the_model_is_rewritten(world):
    """D14, C18, C19: what the server gets is the client's body to the byte except for the model's name; the answer passes unchanged."""
    world.server("pod-0", model="inner/name")
    w = world.start_pool(PREFIX, model("outer", ["inner/name"]))
    around = ('{ "temperature" : 0.10, "big":12345678901234567890, "exp":1e400,\n "messages":[{"content":"\\u00e9 \\"model\\": \\"outer\\" \\/","role":"user"}],'
              '\t"nested":{"model":"outer"}, ', '  , "max_completion_tokens":3, "seed": null, "x":[1.0,-0.0,1E5] }\n')
    for spelled in ('"model":"outer"', '"model"  :  "outer"', '"mo\\u0064el":"\\u006futer"'):
        raw = (around[0] + spelled + around[1]).encode()
        w.forget()
        answer = request("POST", w.url(), raw, {"Content-Type": "application/json"})
        assert answer.status == 200, answer.text
        (seen,) = w.captured("pod-0")
        value = spelled[:spelled.rindex('"', 0, -1)] + '"inner/name"'
        assert seen["body"].replace("inner\\/name", "inner/name") == around[0] + value + around[1]
        assert int(seen["headers"]["content-length"]) == len(seen["body"].encode())
        assert answer.json()["model"] == "inner/name", "the answer's model is the server's (C18)"


def test_criticality_is_in_log_and_metrics(world):
    """D15, B32: each model's level is in its log line; requests are counted by model and target."""
    world.server("pod-0", model=["qwen", "helper-v1", "junk"])
    w = world.start_pool(None, model("qwen", ["qwen"], "Critical"), model("helper", ["helper-v1"]), model("junk", [], "Sheddable"))
    for name, target, level in (("qwen", "qwen", "Critical"), ("helper", "helper-v1", "Standard"), ("junk", "junk", "Sheddable")):
        line, _ = w.line(lambda: w.chat(name=name))
        assert (line["model"], line["target_model"], line["criticality"]) == (name, target, level)
        assert w.gw.metric("inference_objective_request_total", model_name=name, target_model_name=target) == 1


# --- what servers tell of themselves -------------------------------------------------------------------------------------------------------


def models_of(w, **kw):
    answer = request("GET", w.url("/v1/models"), **kw)
    assert answer.status == 200 and answer.json()["object"] == "list", answer.text
    ids = [m["id"] for m in answer.json()["data"]]
    assert len(ids) == len(set(ids))
    return set(ids)


def test_models_of_a_pool_are_the_union(world):
    """GET /v1/models lists what any server has and what the InferenceModels promise, once each; requests go where the model is."""
    world.server("old", model=["qwen", "v1"])
    world.server("new", model=["qwen", "v2"])
    w = world.start_pool(None, model("alias", ["v2"]))
    wait_for(lambda: models_of(w) == {"qwen", "v1", "v2", "alias"}, 5, what="the union of the models")
    for name, pod in (("v1", "old"), ("v2", "new"), ("alias", "new")):
        for _ in range(6):
            line, answer = w.line(lambda: w.chat(name=name))
            assert answer.headers["x-inference-pod"] == pod and line["attempts"] == 1
    assert {w.chat(name="qwen").headers["x-inference-pod"] for _ in range(6)} == {"old", "new"}


def test_model_missing_on_one_pod_is_tried_where_it_is(world):
    """A 404 for the model from one pod of a rollout costs nothing: the request is served by a pod that has it; no pod is blamed."""
    lora = ("--enable-lora", "--max-loras", "2", "--lora-modules", "helper=/l/1")
    world.server("old", *lora)
    world.server("new", *lora)
    w = world.start_pool(options=("--time-scale", "10"))  # lists of models are read again every 30 s
    wait_for(lambda: models_of(w) == {"qwen", "helper"}, 5)

    def adapter(name, pod, load):
        action, more = ("load", {"lora_path": "/l/x"}) if load else ("unload", {})
        answer = request("POST", f"{w.servers[pod].base}/v1/{action}_lora_adapter", {"lora_name": name, **more})
        assert answer.status == 200, answer.text

    def ten(name, pod):
        lines = [w.line(lambda: w.chat(name=name))[0] for _ in range(10)]
        assert {h["pod"] for h in lines} == {pod}
        return [h["attempts"] for h in lines]

    assert {w.chat(name="helper").headers["x-inference-pod"] for _ in range(6)} == {"old", "new"}
    adapter("helper", "old", load=False)
    attempts = ten("helper", "new")
    assert max(attempts) <= 2 and attempts[-5:] == [1] * 5, f"tried once, then known: {attempts}"
    adapter("helper", "old", load=True)
    wait_for(lambda: w.chat(name="helper").headers["x-inference-pod"] == "old", 10, step=0.1, what="the adapter's return to be learnt")
    adapter("fresh", "new", load=True)  # nobody told of it yet
    attempts = ten("fresh", "new")
    assert max(attempts) <= 2, attempts
    wait_for(lambda: "fresh" in models_of(w), 2, what="the list of the other server, which was asked for at once")
    assert ten("fresh", "new") == [1] * 10
    assert all(e["state"] == "ready" and e["ejections"] == 0 for e in w.endpoints().values()), w.endpoints()
    w.gw.assert_idle()


def test_model_nobody_has(world):
    """A model that no server has: a server's own 404 reaches the client after each was asked, and that is bounded."""
    w = world.serve(6).start_pool()
    for _ in range(5):
        answer = w.chat(name="nowhere")
        assert answer.status == 404 and "nowhere" in answer.json()["error"]["message"]
        assert w.line_of(answer)["attempts"] <= 4
    assert sum(len(w.captured(n)) for n in w.servers) <= 20
    assert w.chat().status == 200
    w.gw.assert_idle()


def test_adapters_of_a_server(sim, release_binary):
    """D7: a server started with the document's LoRA options lists the base model and both adapters."""
    s = sim("/models/Qwen-2.5-7B-Instruct", "--enable_prefix_caching", "--trust-remote-code", "--served-model-name", "qwen", "--max-model-len", "8192",
            "--gpu-memory-utilization", "0.95", "--enforce-eager", "--enable-lora", "--max-loras", "2", "--max-cpu-loras", "4", "--lora-modules",
            "travel-helper-v1=/models/Qwen-TravelHelper-Lora", "travel-helper-v2=/models/Qwen-TravelHelper-Lora-v2", binary=release_binary)
    data = request("GET", s.base + "/v1/models").json()["data"]
    assert [m["id"] for m in data] == ["qwen", "travel-helper-v1", "travel-helper-v2"]
    assert data[1]["parent"] == "qwen" and data[1]["root"] == "/models/Qwen-TravelHelper-Lora"


@pytest.mark.parametrize("stream", [False, True])
def test_previous_response_goes_back(world, stream):
    """A request with previous_response_id goes to the pod that gave that answer, whatever the loads."""
    w = world.serve(4, "--time-scale", "5").start_pool()
    url = w.url("/v1/responses")
    homes = {}
    for i in range(8):
        answer = request("POST", url, {"model": "qwen", "input": f"question {i}", "max_output_tokens": 3, "stream": stream})
        assert answer.status == 200, answer.text
        first = json.loads(answer.text.split("data: ", 1)[1].split("\n", 1)[0] if stream else answer.text)
        rid = first["response"]["id"] if stream else first["id"]
        homes[rid] = answer.headers["x-inference-pod"]
    assert len(set(homes.values())) == 4
    for _ in range(3):
        for rid, pod in homes.items():
            line, answer = w.line(lambda: request("POST", url, {"model": "qwen", "input": "go on", "previous_response_id": rid, "max_output_tokens": 2}))
            assert answer.headers["x-inference-pod"] == pod and line["reason"] == "pinned"
    line, _ = w.line(lambda: request("POST", url, {"model": "qwen", "input": "new", "max_output_tokens": 2}))
    assert line["reason"] != "pinned"


# --- other APIs --------------------------------------------------------------------------------------------------------------------------


def test_anthropic_messages_and_errors(world):
    """/v1/messages: served, and errors of the gateway have Anthropic's shape there and OpenAI's elsewhere."""
    w = world.serve(1, "--time-scale", "10").start_pool({UNKNOWN_MODEL: "reject"}, model("qwen"), model("cheap", [], "Sheddable"))
    url = w.url("/v1/messages")
    body = {"model": "qwen", "max_tokens": 4, "system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
    answer = request("POST", url, body)
    assert answer.status == 200 and answer.json()["type"] == "message" and answer.json()["usage"]["output_tokens"] == 4
    stream = request("POST", url, {**body, "stream": True})
    assert "event: message_stop" in stream.text
    lines = w.gw.handled(2)
    assert [h["completion_tokens"] for h in lines] == [4, 4]
    for bad, status, kind in (({**body, "model": "who"}, 404, "not_found_error"), (b'{"model":"qwen","messages":', 400, "invalid_request_error")):
        answer = request("POST", url, bad, {"Content-Type": "application/json"})
        assert answer.status == status
        error = answer.json()
        assert error["type"] == "error" and error["error"]["type"] == kind and error["error"]["message"], error
        other = request("POST", w.url(), bad, {"Content-Type": "application/json"}).json()
        assert "type" not in other and set(other["error"]) >= {"message", "type", "param", "code"}
    w.fix_metrics("pod-0", waiting=50, running=9)
    answer = request("POST", url, {**body, "model": "cheap"})
    assert answer.status == 429 and answer.json()["error"]["type"] == "rate_limit_error" and answer.headers["Retry-After"]


def test_forbidden_fields(world):
    """What a client may not forge in a body is refused: bootstrap_* and kv_transfer_params (design 8)."""
    w = world.serve(1).start_pool()
    for field in ("bootstrap_host", "bootstrap_room", "kv_transfer_params"):
        answer = w.chat(**{field: "x"})
        assert answer.status == 400 and field in answer.json()["error"]["message"], answer.text
    assert w.captured("pod-0") == []


ODD = (b'{ "who" : "%s" ,"prompt_logprobs":null,"choices":[ {"index":0,"message":{"role":"assistant","content":"h\\u0069\\/"},"finish_reason":"stop"}],\n'
       b'"unknown":[1.0,-0.0,1e400,12345678901234567890,{"a":null,"a":2}],"model":"x","usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n')


class Foreign(http.server.BaseHTTPRequestHandler):
    """The least an OpenAI-compatible server can be: no metrics, no model list, HTTP/1.0. Streams an event when it is told to."""
    go = threading.Semaphore(0)
    sent = []

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for i in range(6):
            assert self.go.acquire(timeout=10)
            self.sent.append(time.monotonic())
            self.wfile.write(b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % i if i < 5 else b"data: [DONE]\n\n")
            self.wfile.flush()

    def do_POST(self):
        if json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("stream"):
            return self.stream()
        time.sleep(0.03)  # or the scheduling of this process's threads would look like slow servers
        answer = ODD % self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *a):
        pass


@pytest.fixture
def foreign():
    """foreign(n) -> addresses of n such servers."""
    servers = []

    def start(n):
        servers.extend(http.server.ThreadingHTTPServer((fresh_ip(), 8000), Foreign) for _ in range(n))
        for s in servers:
            threading.Thread(target=s.serve_forever, daemon=True).start()
        return [s.server_address[0] for s in servers]

    yield start
    for s in servers:
        s.shutdown()
        s.server_close()


def test_any_compatible_server(gateway, tmp_path, foreign):
    """C18, C38, B44: servers without metrics or model list, of other make, serve evenly, and their answers arrive byte for byte."""
    ips = foreign(3)
    conf = tmp_path / "conf.yaml"
    manifests.write(conf, manifests.world({f"foreign-{i}": ip for i, ip in enumerate(ips)}))
    gw = gateway(conf)
    outcomes = ok(many(gw.url(8080, "/v1/chat/completions"), 60, 6))
    served = Counter(ips[k] for o in outcomes for k in range(3) if o.body == ODD % ips[k].encode())
    assert sum(served.values()) == 60, "every answer is its server's, to the byte"
    assert max(served.values()) - min(served.values()) <= 12, served
    (pool,) = gw.endpoints()["pools"]
    assert all(e["state"] in ("ready", "slow start") for e in pool["endpoints"])
    assert all(e["load"]["kv_frac"] is None and e["load"]["waiting"] is None for e in pool["endpoints"])


def test_chunks_arrive_as_produced(gateway, tmp_path, foreign):
    """B45: an event reaches the client before the server produces the next, and within 20 ms."""
    (ip,) = foreign(1)
    conf = tmp_path / "conf.yaml"
    manifests.write(conf, manifests.world({"foreign": ip}))
    gw = gateway(conf)
    body = json.dumps(chat_body(stream=True))
    delays = []
    Foreign.sent.clear()
    with Raw(gw.ip, 8080) as c:
        c.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        for i in range(6):
            Foreign.go.release()
            want = b'"content":"%d"' % i if i < 5 else b"[DONE]"
            while want not in c.buf:
                assert c.more(), c.buf
            delays.append(time.monotonic() - Foreign.sent[i])
    assert sorted(delays)[2] <= 0.02, delays
    wait_for(lambda: gw.handled(1)[0]["ttft_ms"] > 0, 5)


def test_example_queueing_lists_both_models(sandbox):
    """D7, D13 in the sandbox: base and adapters of the document's deployment in one list with the promised names."""
    sb = sandbox(EXAMPLES / "queueing")
    (address, *_) = [p["address"] for p in sb.pods()]
    assert [m["id"] for m in request("GET", f"http://{address}/v1/models").json()["data"]] == ["qwen", "travel-helper-v1", "travel-helper-v2"]
    assert len(sb.pods()) == 5
