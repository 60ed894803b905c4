"""Seed document 2: two listeners, plain Service route on 8080 and inference route on 8081 (rows C1-C4, C7-C13, C16-C20, C33)."""
import threading
import time
from collections import Counter

import yaml

from conftest import EXAMPLES, http, wait_for

TWO = EXAMPLES / "two-ports"
FAST = ("--time-scale", "10")
CRITIC = {"model": "/model/qwen", "max_completion_tokens": 100, "temperature": 0,
          "messages": [{"role": "user", "content": "Write as if you were a critic: San Francisco"}]}


def ask(sb, port, body=CRITIC, path="/v1/chat/completions", **kw):
    return http("POST", sb.url(port, path), body, **kw)


def test_both_ports_as_printed(sandbox):
    """C1, C2, C8-C12, C16, C17: both curls give the expected JSON; only the one on 8081 goes through the picker."""
    sb = sandbox(TWO, options=FAST)
    for port in (8080, 8081):
        answer = ask(sb, port)
        assert answer.status == 200
        got = answer.json()
        assert got["object"] == "chat.completion" and got["model"] == "/model/qwen"
        (choice,) = got["choices"]
        assert choice["finish_reason"] == "length" and choice["message"]["role"] == "assistant"
        assert got["usage"]["completion_tokens"] == 100
        assert got["usage"]["total_tokens"] == got["usage"]["prompt_tokens"] + 100
    assert len(sb.handled(1)) == 1


def test_plain_route_spreads_evenly(sandbox):
    """C1: a Service route rotates over the ready pods."""
    sb = sandbox(TWO, options=FAST)
    pods = Counter(ask(sb, 8080, {**CRITIC, "max_completion_tokens": 2}).headers["x-inference-pod"] for _ in range(40))
    assert len(pods) == len(sb.pods())
    assert max(pods.values()) - min(pods.values()) <= 2, pods
    assert sb.events("Request Handled") == []


def test_answer_and_body_pass_unchanged(sandbox):
    """C18, C19, B44: the client's body arrives byte for byte, the server's answer too (nulls, order, unknown fields)."""
    sb = sandbox(TWO, options=FAST)
    raw = b'{ "temperature":0.10, "x_unknown" : [1e400, {"a":null}], "model":"/model/qwen","max_completion_tokens": 5,\n"messages":[{"role":"user","content":"A \\u00e9 b"}]}'
    answer = http("POST", sb.url(8081, "/v1/chat/completions"), raw, {"Content-Type": "application/json"})
    assert answer.status == 200
    seen = sb.pod(answer.headers["x-inference-pod"], "GET", "/requests").json()["requests"][-1]
    assert seen["body"].encode() == raw
    assert '"prompt_logprobs":null' in answer.text and answer.text.startswith('{"id":"chatcmpl-')


def test_completions_endpoint(sandbox):
    """C33: /v1/completions with a string, a list and token ids, streamed and not."""
    sb = sandbox(TWO, options=FAST)
    for prompt, choices in (("Hello there", 1), (["one", "two"], 2), ([1, 2, 3, 4], 1)):
        answer = ask(sb, 8081, {"model": "/model/qwen", "prompt": prompt, "max_tokens": 3}, "/v1/completions")
        assert answer.status == 200, answer.text
        assert len(answer.json()["choices"]) == choices
    answer = ask(sb, 8081, {"model": "/model/qwen", "prompt": "x", "max_tokens": 3, "stream": True}, "/v1/completions")
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert len(sb.handled(4)) == 4


def edit(path, change):
    """Applies change(document) to every document of a YAML file, replaced by rename."""
    docs = [d for d in yaml.safe_load_all(path.read_text()) if d]
    for d in docs:
        change(d)
    new = path.with_name(".new")
    new.write_text(yaml.safe_dump_all(docs))
    new.rename(path)


def copy_of(tmp_path, change=lambda d: None):
    for f in TWO.glob("*.yaml"):
        (tmp_path / f.name).write_text(f.read_text())
        edit(tmp_path / f.name, change)
    return tmp_path / "inference-gateway.yaml"


def test_section_names_bind(sandbox, tmp_path):
    """C9, C10: a route bound by sectionName is not reachable on the other listener; a listener added live serves and disturbs nobody."""
    def prefix(d):
        if d["kind"] == "HTTPRoute" and d["metadata"]["name"] == "qwen-backend":
            d["spec"]["rules"][0]["matches"][0]["path"]["value"] = "/v1"

    gateway = copy_of(tmp_path, prefix)
    sb = sandbox(tmp_path)
    assert ask(sb, 8081).status == 200
    assert http("GET", sb.url(8081, "/health")).status == 404, "only /v1 is routed on 8081"
    assert http("GET", sb.url(8080, "/health")).status == 200, "the other route is bound to 8080"
    stop, failed, done = threading.Event(), [], []

    def load():
        while not stop.is_set():
            try:
                status = ask(sb, 8081, {**CRITIC, "max_completion_tokens": 2}).status
            except OSError as e:
                status = e
            (done if status == 200 else failed).append(status)

    def third(d):
        if d["kind"] == "Gateway":
            d["spec"]["listeners"].append({"name": "third", "protocol": "HTTP", "port": 8082})
        if d["kind"] == "HTTPRoute" and d["metadata"]["name"] == "qwen-backend":
            d["spec"]["parentRefs"].append({"name": "qwen-inference-gateway", "sectionName": "third"})

    def third_serves():
        try:
            return ask(sb, 8082, {**CRITIC, "max_completion_tokens": 2}).status == 200
        except OSError:
            return False

    t = threading.Thread(target=load)
    t.start()
    try:
        edit(gateway, third)
        wait_for(third_serves, 5, what="listener 8082")
    finally:
        stop.set()
        t.join()
    assert done and not failed


def test_request_timeout(sandbox, tmp_path):
    """C13: requestTimeout set to 2s gives 504 after 2 s on both ports, and the server's work is cancelled."""
    def shorter(d):
        if d["kind"] == "BackendTrafficPolicy":
            assert d["spec"]["timeout"]["http"]["requestTimeout"] == "1h"
            d["spec"]["timeout"]["http"]["requestTimeout"] = "2s"

    copy_of(tmp_path, shorter)
    sb = sandbox(tmp_path)
    for port in (8080, 8081):
        start = time.monotonic()
        answer = ask(sb, port, {**CRITIC, "max_completion_tokens": 4000})
        assert answer.status == 504 and answer.json()["error"]["code"] == "request_timeout"
        assert 1.9 <= time.monotonic() - start <= 3
    sb.assert_idle()
    wait_for(lambda: all(sb.pod(p["name"], "GET", "/state").json()["jobs"] == 0 for p in sb.pods()), 3, what="the servers to be idle")


def test_pods_come_and_go(sandbox):
    """C3, D8, B36: the endpoint set follows readiness within 2 s; an unready pod gets nothing."""
    sb = sandbox(TWO, options=FAST)
    victim = sb.pods()[0]["name"]
    sb.pod(victim, "POST", "/ready", {"ready": False})

    def endpoints():
        (pool,) = [p for p in sb.endpoints()["pools"] if p["kind"] == "InferencePool"]
        return {e["pod"] for e in pool["endpoints"]}

    wait_for(lambda: victim not in endpoints(), 2, what="the unready pod to leave")
    pods = {ask(sb, 8081, {**CRITIC, "max_completion_tokens": 2}).headers["x-inference-pod"] for _ in range(30)}
    assert victim not in pods
    sb.pod(victim, "POST", "/ready", {"ready": True})
    wait_for(lambda: ask(sb, 8081, {**CRITIC, "max_completion_tokens": 2}).headers["x-inference-pod"] == victim, 2, step=0, what="the pod to be used again")


def test_engine_metrics(sandbox):
    """C20-C25: the simulated server shows the metrics that the document lists, on the port of its annotations."""
    sb = sandbox(TWO, options=FAST)
    pod = ask(sb, 8081).headers["x-inference-pod"]
    (address,) = [p["address"] for p in sb.pods() if p["name"] == pod]
    text = http("GET", f"http://{address}/metrics").text
    for name in ("vllm:gpu_cache_usage_perc", "vllm:request_queue_time_seconds_sum", "vllm:num_requests_running", "vllm:num_requests_waiting",
                 "vllm:time_to_first_token_seconds_bucket"):
        assert f"\n{name}" in text, name
