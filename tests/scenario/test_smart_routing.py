"""Seed document 1 (smart routing), run from the sandbox as printed there apart from address and kubectl: rows B1-B5, B31-B45, B49, B50, A12. The ten
manifests of all kinds of deployment: test_topologies.py."""
import json
import subprocess
import threading
from collections import Counter

import pytest

from conftest import EXAMPLES, http, parse_metrics, wait_for
from resources import text_of

SMART = EXAMPLES / "smart-routing"
NETWORK = SMART / "gateway_networking.yaml"
POOL = "qwen-inference-pool"
MODEL = "/models/Qwen3-32B"

FAST = ("--time-scale", "10")

HELLO = """{
    "model": "/models/Qwen3-32B",
    "messages": [
      {"role": "user", "content": "Hello, this is a test"}
    ],
    "max_tokens": 50
  }"""


def curl(url, *args):
    """curl as in the documents; returns (status, body)."""
    out = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", url, *args], capture_output=True, timeout=60, check=True).stdout.decode()
    body, _, status = out.rpartition("\n")
    return int(status), body


def chat(sb, messages, port=8080, **more):
    body = {"model": MODEL, "messages": messages, "max_tokens": 8, **more}
    return http("POST", sb.url(port, "/v1/chat/completions"), body)


def user(text):
    return {"role": "user", "content": text}


def test_curl_succeeds_and_is_logged(sandbox):
    """B6, B31, B34, B40-B44: the printed curl works; one `Request Handled` line names pod, address, model and target model."""
    sb = sandbox(SMART / "workload.yaml", SMART / "inference_networking.yaml", NETWORK)
    status, body = curl(sb.url(8080, "/v1/chat/completions"), "-H", "Content-Type: application/json", "-d", HELLO)
    assert status == 200
    answer = json.loads(body)
    assert answer["object"] == "chat.completion" and answer["model"] == MODEL
    assert answer["usage"]["completion_tokens"] <= 50
    (line,) = sb.handled(1)
    assert line["msg"] == "Request Handled"
    assert line["pod"] in {p["name"] for p in sb.pods()}
    assert line["address"].endswith(":8000")
    assert line["model"] == MODEL and line["target_model"] == MODEL
    assert line["status"] == 200 and line["pool"].endswith(POOL)
    assert "Hello, this is a test" not in "\n".join(sb.lines), "prompts never appear in a log"
    assert curl(sb.url(8080, "/health"))[0] == 404, "B40: only /v1 is routed"
    sb.assert_idle()


def test_address_is_printed(sandbox):
    """B38, B39, B41: the Gateway of the seed's class gets an address, the sandbox prints it."""
    sb = sandbox(SMART / "workload.yaml", SMART / "inference_networking.yaml", NETWORK)
    m = sb.wait_line(rf"inference-gateway.*http://{sb.ip.replace('.', chr(92) + '.')}:8080")
    assert m


@pytest.mark.parametrize("options", [(), ("--jitter",)], ids=["steady", "jitter"])
def test_two_rounds_reach_the_same_pod_100_of_100(sandbox, options):
    """B11, B42: round1.txt and round2.txt as printed; then 100 conversations with first messages of their own, each on one pod."""
    sb = sandbox(SMART / "workload.yaml", SMART / "Prefix_Cache.yaml", NETWORK, options=("--time-scale", "20", *options))
    for name in ("round1.txt", "round2.txt"):
        status, _ = curl(sb.url(8080, "/v1/chat/completions"), "-X", "POST", "-H", "Content-Type: application/json", "-d", f"@{SMART / name}")
        assert status == 200
    first, second = sb.handled(2)
    assert first["pod"] == second["pod"]

    round1, round2 = (json.loads((SMART / n).read_text()) for n in ("round1.txt", "round2.txt"))
    split = 0
    for i in range(100):
        pods = []
        for body in (round1, round2):
            body = json.loads(json.dumps(body).replace("For user 3", f"For user {i} of {i * 7919 % 1009}"))
            seen = len(sb.events("Request Handled"))
            assert http("POST", sb.url(8080, "/v1/chat/completions"), body).status == 200
            pods.append(sb.handled(seen + 1)[seen]["pod"])
        split += pods[0] != pods[1]
    assert split == 0
    assert len({h["pod"] for h in sb.handled()}) == 4, "the conversations are spread over the pods"


def conversation(sb, i, turns, out):
    """One conversation: every turn sends all that was said before. The first 64-byte block is alike in all of them."""
    messages = [user("You are a helpful assistant of the Example company. Be brief and exact in all you say, please. " +
                     f"This is customer number {i}, account {i * 7919}, and the matter is the following one: " + f"item {i} " * 20)]
    for turn in range(turns):
        answer = chat(sb, messages)
        assert answer.status == 200, answer.text
        out.append((i, answer.headers["x-inference-pod"]))
        messages.append(answer.json()["choices"][0]["message"] | {"reasoning_content": None})
        messages.append(user(f"And what about point {turn} of customer {i}?"))


@pytest.mark.parametrize("parallel", [1, 10])
def test_fifty_conversations_stay_and_spread(sandbox, parallel):
    """A12, B3: 50 conversations of 5 turns on 4 pods stay on one pod each, conversations per pod are even (max/mean <= 1.3)."""
    sb = sandbox(SMART / "workload.yaml", SMART / "Prefix_Cache.yaml", NETWORK, options=("--time-scale", "20"))
    out, todo, lock = [], list(range(50)), threading.Lock()

    def run():
        while True:
            with lock:
                if not todo:
                    return
                i = todo.pop(0)
            conversation(sb, i, 5, out)

    threads = [threading.Thread(target=run) for _ in range(parallel)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(out) == 250
    pods = {}
    for i, pod in out:
        pods.setdefault(i, set()).add(pod)
    moved = {i: p for i, p in pods.items() if len(p) > 1}
    assert not moved, f"conversations that moved: {moved}"
    per_pod = Counter(next(iter(p)) for p in pods.values())
    assert len(per_pod) == 4 and max(per_pod.values()) / 12.5 <= 1.3, per_pod
    sb.assert_idle()


def test_prefix_policy_raises_hit_rate(sandbox):
    """B3, B47 (part), B49: without any flag of the servers the same multi-turn load hits their prefix caches more under PREFIX_CACHE than
    under DEFAULT."""
    def talk(sb, i):
        messages = [user(text_of(1500, i))]
        for turn in range(4):
            answer = chat(sb, messages, max_tokens=4 + (i + turn) % 5)
            assert answer.status == 200, answer.text
            messages += [{"role": "assistant", "content": "ok"}, user(text_of(1000, 100 * i + turn + 1000))]

    def hit_rate(manifest):
        sb = sandbox(SMART / "workload.yaml", manifest, NETWORK, options=("--time-scale", "20"))
        threads = [threading.Thread(target=talk, args=(sb, i)) for i in range(11)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        pages = [parse_metrics(http("GET", f"http://{pod['address']}/metrics").text) for pod in sb.pods()]
        hits, queries = (sum(v for page in pages for n, _, v in page if n == f"vllm:prefix_cache_{what}_total") for what in ("hits", "queries"))
        sb.stop()
        return hits / queries

    default, prefix = hit_rate(SMART / "inference_networking.yaml"), hit_rate(SMART / "Prefix_Cache.yaml")
    assert prefix > 0.6 and prefix > default + 0.1, (default, prefix)


def test_streaming_with_usage_passes_through(sandbox):
    """B45: chunks arrive one by one, the usage chunk is there, [DONE] is last."""
    sb = sandbox(SMART / "workload.yaml", SMART / "inference_networking.yaml", NETWORK, options=FAST)
    body = json.loads((SMART / "round1.txt").read_text())
    answer = http("POST", sb.url(8080, "/v1/chat/completions"), body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [e[len("data: "):] for e in answer.text.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    usage = json.loads(events[-2])
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 24
    (line,) = sb.handled(1)
    assert line["completion_tokens"] == 24 and line["prompt_tokens"] == usage["usage"]["prompt_tokens"]
    assert line["ttft_ms"] > 0


def test_documents_in_any_order(sandbox, tmp_path):
    """B50: several documents per file, the route before the pool, all in one directory."""
    (tmp_path / "1.yaml").write_text(NETWORK.read_text())
    (tmp_path / "2.yaml").write_text("\n---\n".join([(SMART / "Prefix_Cache.yaml").read_text(), (SMART / "workload.yaml").read_text()]))
    sb = sandbox(tmp_path)
    assert chat(sb, [user("hello")]).status == 200
