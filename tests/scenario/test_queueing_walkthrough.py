"""Seed document 3 (two models, header routing), with its queue switched on: rows D2, D7-D10, D13-D27, D28, D29, D31, decision 10."""
import json
import subprocess
import threading
import time

import pytest
import yaml

from conftest import EXAMPLES, http, wait_for
from manifests import ENV, X
from rawhttp import Raw
from resources import chat_body, many, ok

QUEUEING = EXAMPLES / "queueing"


@pytest.fixture
def sb(sandbox):
    return sandbox(QUEUEING, options=("--time-scale", "10"))


def ask(sb, name, headers=None, **more):
    return http("POST", sb.url(8081, "/v1/completions"), {"model": name, "prompt": "Say something.", "max_tokens": 3, **more}, headers)


def body_at(sb, answer):
    return sb.pod(answer.headers["x-inference-pod"], "GET", "/requests").json()["requests"][-1]


def test_both_models_answer(sb):
    """D7, D13-D15, D28, D29: qwen (Critical) and travel-helper (Standard, to travel-helper-v1) through one pool of five on port 8081."""
    assert len(sb.pods()) == 5
    (pool,) = [p for p in sb.endpoints()["pools"] if p["kind"] == "InferencePool"]
    assert pool["name"] == "qwen-pool" and len(pool["endpoints"]) == 5
    for name, target, level in (("qwen", "qwen", "Critical"), ("travel-helper", "travel-helper-v1", "Standard")):
        answer = ask(sb, name)
        assert answer.status == 200, answer.text
        assert json.loads(body_at(sb, answer)["body"])["model"] == target
        assert answer.json()["model"] == target, "the answer passes unchanged (C18)"
        rid = answer.headers["x-request-id"]
        (line,) = wait_for(lambda: [h for h in sb.handled() if h["request_id"] == rid], 5)
        assert (line["model"], line["target_model"], line["criticality"], line["pool"]) == (name, target, level, "qwen-pool")
    sb.assert_idle()


def test_two_loads_at_once(sb):
    """D13, D22: both models under load together: no error, and every pod takes part."""
    results = {}

    def run(name):
        results[name] = ok(many(sb.url(8081, "/v1/completions"), 100, 8,
                                body=lambda i: {"model": name, "prompt": f"{name} number {i} " * 20, "max_tokens": 10, "ignore_eos": True}))

    threads = [threading.Thread(target=run, args=(n,)) for n in ("qwen", "travel-helper")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({o.pod for r in results.values() for o in r}) == 5
    sb.assert_idle()


def test_header_matches(sb):
    """D16-D18: Exact qwen and RegularExpression travel-helper.* (whole value) in one rule are alternatives; all else has no route."""
    for name in ("qwen", "travel-helper", "travel-helper-v1", "travel-helper-v2"):
        assert ask(sb, name).status == 200, name
    for name in ("qwen2", "my-travel-helper", "QWEN", "", "travel-helpe"):
        answer = ask(sb, name)
        assert answer.status == 404 and answer.json()["error"]["code"] == "route_not_found", (name, answer.text)
    for body in (b"{}", b"not json", b'["qwen"]', b""):
        answer = http("POST", sb.url(8081, "/v1/completions"), body, {"Content-Type": "application/json"})
        assert answer.status in (400, 404), (body, answer.text)
    assert http("GET", sb.url(8081, "/v1/models")).status == 404, "no model, no route"
    sb.assert_idle()


def test_header_comes_from_the_body(sb):
    """D19: nobody sends the header; one that a client forges is overwritten, for routing and for the server."""
    assert ask(sb, "qwen").status == 200
    assert ask(sb, "other", {"X-Gateway-Model-Name": "qwen"}).status == 404
    answer = ask(sb, "travel-helper", {"x-gateway-model-name": "qwen", "X-Gateway-Destination-Endpoint": "127.0.0.1:1", "x-gateway-inference-objective": "vip"})
    assert answer.status == 200
    seen = body_at(sb, answer)
    assert seen["headers"]["x-gateway-model-name"] == "travel-helper"
    assert "x-gateway-destination-endpoint" not in seen["headers"] and "x-gateway-inference-objective" not in seen["headers"]
    with Raw(sb.ip, 8081) as c:  # given twice, it does not help either
        body = json.dumps({"model": "other", "prompt": "x"})
        c.send(f"POST /v1/completions HTTP/1.1\r\nHost: h\r\nX-Gateway-Model-Name: qwen\r\nX-Gateway-Model-Name: qwen\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n{body}")
        assert c.answer("POST").status == 404


def test_queueing_is_switched_on(sb):
    """D2, D9, D10, decision 1: both experimental annotations are shown; the timeout of 24 h is parsed (D20)."""
    config = sb.config()
    (pool,) = [b for b in config["backends"] if b["name"] == "qwen-pool" and b["kind"] == "InferencePool"]
    settings = {s["name"]: s for s in pool["settings"]}
    queueing, v2 = settings[ENV + "/experimental-use-queueing"], settings[ENV + "/experimental-use-scheduler-v2"]
    assert (queueing["value"], queueing["state"]) == ("true", "effective") and settings[X + "/queueing"]["value"] == "enabled"
    assert v2["value"] == "true" and "only one scheduler" in v2["note"]
    (listener,) = config["listeners"]
    assert listener["port"] == 8081 and listener["by_model"] and listener["request_timeout"] == "24h0m0s"
    assert {m["model_name"]: m["criticality"] for m in pool["models"]} == {"qwen": "Critical", "travel-helper": "Standard"}


SLOW = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: slow
spec:
  replicas: 1
  selector:
    matchLabels:
      app: qwen
  template:
    metadata:
      labels:
        app: qwen
    spec:
      containers:
      - name: server
        image: vllm
        command: [vllm, serve, /models/qwen, --served-model-name, qwen, --port, "8000", --profile, h100-qwen3-32b]
        ports:
        - containerPort: 8000
"""


def test_idle_stream_survives(sandbox, tmp_path):
    """D20: under requestTimeout 24h a stream that is silent for more than ten minutes goes on (time runs 100 times as fast)."""
    (tmp_path / "slow.yaml").write_text(SLOW)
    sb = sandbox(tmp_path, QUEUEING / "inference-pool.yaml", QUEUEING / "inference-gateway.yaml", options=("--time-scale", "100"))
    (pod,) = sb.pods()
    sb.fault(pod["name"], kind="slow", factor=45000)  # a step takes about 680 s
    body = json.dumps(chat_body(max_tokens=2, stream=True))
    with Raw(sb.ip, 8081, timeout=60) as c:
        c.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        assert c.head().status == 200
        silent, last = 0.0, time.monotonic()
        while b"[DONE]" not in c.buf:
            assert c.more(), f"the stream was cut after {c.buf[-200:]}"
            now = time.monotonic()
            silent, last = max(silent, now - last), now
    assert silent * 100 > 600, f"silent for only {silent * 100:.0f} s"
    (line,) = sb.handled(1)
    assert line["status"] == 200 and not line.get("error")
    sb.assert_idle()


def test_service_is_not_needed(sandbox, tmp_path):
    """D31: without the Service the inference route still serves; deleting it live disturbs nothing."""
    for f in QUEUEING.glob("*.yaml"):
        (tmp_path / f.name).write_text(f.read_text())
    sb = sandbox(tmp_path)
    assert ask(sb, "qwen").status == 200
    path = tmp_path / "vllm-service.yaml"
    docs = [d for d in yaml.safe_load_all(path.read_text()) if d]
    assert [d["kind"] for d in docs] == ["Deployment", "Service"]
    before, pods = sb.config()["generation"], {p["name"] for p in sb.pods()}
    tmp = tmp_path / ".new"
    tmp.write_text(yaml.safe_dump(docs[0]))
    tmp.rename(path)
    wait_for(lambda: sb.config()["generation"] > before, 5, what="the reload")
    for _ in range(10):
        assert ask(sb, "qwen").status == 200
    assert {p["name"] for p in sb.pods()} == pods, "no server was restarted"
    assert {h["pod"] for h in sb.handled(11)} <= pods


def test_readiness(sb):
    """D8: an unready pod gets nothing; ready again, it is used within 2 s."""
    victim = sb.pods()[2]["name"]
    sb.pod(victim, "POST", "/ready", {"ready": False})
    (pool,) = [p for p in sb.config()["backends"] if p["kind"] == "InferencePool"]
    wait_for(lambda: victim not in {e["pod"] for b in sb.config()["backends"] for e in b["endpoints"]}, 2, what="the pod to leave")
    assert victim not in {ask(sb, "qwen").headers["x-inference-pod"] for _ in range(15)}
    sb.pod(victim, "POST", "/ready", {"ready": True})
    wait_for(lambda: ask(sb, "qwen").headers["x-inference-pod"] == victim, 2, step=0, what="the pod to be used again")


def test_literal_yaml_of_the_document(binary, tmp_path):
    """Decision 10: as printed, the server calls its model /model/qwen; that form is accepted by `penstock check` without an error."""
    for f in QUEUEING.glob("*.yaml"):
        text = f.read_text()
        if f.name == "vllm-service.yaml":
            assert text.count("--served-model-name qwen ") == 1
            text = text.replace("--served-model-name qwen ", "--served-model-name /model/qwen ")
        (tmp_path / f.name).write_text(text)
    run = subprocess.run([str(binary), "check", "-f", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "0 errors" in run.stdout, run.stdout + run.stderr
    assert "model travel-helper (Standard) -> travel-helper-v1" in run.stdout


BENCHMARK_POD = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "vllm-benchmark", "labels": {"app": "vllm-benchmark"}},
                 "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "vllm-benchmark"}}, "template": {
                     "metadata": {"creationTimestamp": None, "labels": {"app": "vllm-benchmark"}},
                     "spec": {"containers": [{"name": "vllm-benchmark", "image": "llm-benchmark:random-and-qa", "command": ["sh", "-c", "sleep inf"],
                                              "resources": {}}], "restartPolicy": "Always"}}}}


def test_demonstration(sandbox, release_binary, tmp_path):
    """C29, D21-D27: the documents' demonstration with their manifests as they are (TTL 30 s), shortened: two load tests at once; Critical waits
    much less for its first token and does not fail. Which of the two programs is up first weighs on so short a run, hence the wide limit; the full length,
    with the documents' limits, runs in virtual time: tests/world/test_two_models."""
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(BENCHMARK_POD))
    sb = sandbox(QUEUEING, tmp_path / "benchmark.yaml", options=("--time-scale", "10"), binary=release_binary)
    assert len(sb.pods()) == 5, "the benchmark's pod is no model server"
    runs = {}
    for name in ("qwen", "travel-helper"):
        runs[name] = subprocess.Popen(
            [str(release_binary), "bench", "--backend", "vllm", "--model", "/models/DeepSeek-R1-Distill-Qwen-7B", "--served-model-name", name,
             "--trust-remote-code", "--dataset-name", "random", "--random-prefix-len", "1000", "--random-input-len", "3000", "--random-output-len", "600",
             "--random-range-ratio", "0.2", "--num-prompts", "120", "--max-concurrency", "80", "--host", sb.ip, "--port", "8081",
             "--endpoint", "/v1/completions", "--time-scale", "10", "--disable-tqdm", "--save-result", "--result-dir", str(tmp_path),
             "--result-filename", f"{name}.json"], stdout=subprocess.PIPE, text=True)
    for name, run in runs.items():
        out, _ = run.communicate(timeout=120)
        assert run.returncode == 0, out
        for line in ("Successful requests:", "Benchmark duration (s):", "Total input tokens:", "Output token throughput (tok/s):", "Mean TTFT (ms):",
                     "Median TPOT (ms):", "P99 ITL (ms):"):
            assert line in out, out
    critical, standard = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("qwen", "travel-helper"))
    assert critical["failed"] <= 0.03 * 120 and critical["completed"] + critical["failed"] == 120
    assert standard["completed"] >= 0.55 * 120
    assert critical["mean_ttft_ms"] <= 0.8 * standard["mean_ttft_ms"], (critical["mean_ttft_ms"], standard["mean_ttft_ms"])
    sb.assert_idle()
