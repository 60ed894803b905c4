"""What the tests of flow control share: servers that are full at will, requests that wait, and what became of them."""
import json
import socket
import threading
import time

import manifests
from conftest import http, wait_for
from manifests import ENV, X
from resources import chat_body

QUEUEING = X + "/queueing"
TTL = ENV + "/queue-ttl"
CAPACITY = ENV + "/total-queue-capacity"
THRESHOLD = ENV + "/sd-queue-depth-threshold"
KV_THRESHOLD = ENV + "/sd-kv-cache-util-threshold"
TTL_MAX = "penstock.dev/queue-ttl-max"
DISCARD = "penstock.dev/queue-discard"
REQUESTS = "penstock.dev/total-queue-requests"
EARLY = "penstock.dev/queue-early-refusal"
WEIGHTS = "penstock.dev/flow-weights"
TRUST = "penstock.dev/trust-request-headers"
ON = {QUEUEING: "enabled"}

OBJECTIVE = "x-gateway-inference-objective"
FAIRNESS = "x-gateway-inference-fairness-id"
WAIT = "x-penstock-queue-ttl"
FLOW = "inference_extension_flow_control_"


def objective(name, priority, pool=manifests.POOL, **more):
    return {"apiVersion": f"{X}/v1alpha2", "kind": "InferenceObjective", "metadata": manifests.meta(name),
            "spec": {"priority": priority, "poolRef": {"group": X, "name": pool}, **more}}


def rewrite(name, targets, model=None, pool=manifests.POOL):
    """An InferenceModelRewrite; targets: (name, weight) pairs; model None: any."""
    rule = {"targets": [{"modelRewrite": n, "weight": w} for n, w in targets]}
    if model:
        rule["matches"] = [{"model": {"value": model}}]
    return {"apiVersion": f"{X}/v1alpha2", "kind": "InferenceModelRewrite", "metadata": manifests.meta(name),
            "spec": {"poolRef": {"group": X, "name": pool}, "rules": [rule]}}


class Shot(threading.Thread):
    """One request on a connection and a thread of its own."""

    def __init__(self, url, body, headers=None, timeout=120):
        super().__init__(daemon=True)
        self.url, self.body, self.headers, self.timeout = url, body, headers or {}, timeout
        self.answer, self.error, self.t0, self.t1 = None, None, time.monotonic(), None
        self.start()

    def run(self):
        try:
            self.answer = http("POST", self.url, self.body, self.headers, self.timeout)
        except OSError as e:
            self.error = e
        self.t1 = time.monotonic()

    def wait(self, timeout=60):
        self.join(timeout)
        assert not self.is_alive(), "no answer"
        assert self.error is None, self.error
        return self.answer

    def ok(self, timeout=60):
        answer = self.wait(timeout)
        assert answer.status == 200, (answer.status, answer.text)
        return answer

    @property
    def seconds(self):
        return self.t1 - self.t0

    def refused(self, status, code, timeout=60):
        """The answer is this refusal, in full: type, code, Retry-After."""
        answer = self.wait(timeout)
        assert answer.status == status, (answer.status, answer.text)
        error = answer.json()["error"]
        assert error["code"] == code, error
        assert error["type"] == ("rate_limit_error" if status == 429 else "service_unavailable_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 60, answer.headers["retry-after"]
        assert answer.headers.get("x-should-retry") is None
        assert len(error["message"]) > 20 and error["message"].endswith(".")
        return answer


def queued(w):
    return w.backend()["queued"]


def wait_queued(w, n, timeout=5):
    wait_for(lambda: queued(w) == n, timeout, what=f"{n} requests in the queue (now {queued(w)})")


def shoot(w, i, name="qwen", headers=None, **more):
    return Shot(w.url(), chat_body(f"question {i}", name, **more), headers)


def shoot_in_turn(w, shots):
    """Starts the requests one after the other, each only when the one before it waits: [(name, headers, text), ...]."""
    out, before = [], queued(w)
    for i, (name, headers, text) in enumerate(shots):
        out.append(Shot(w.url(), chat_body(text, name), headers))
        wait_queued(w, before + i + 1)
    return out


def fill(w, *names):
    """These servers (all) say that they have a long queue: nobody is sent there any more."""
    for name in names or w.servers:
        w.fix_metrics(name, waiting=50, running=4)
    wait_for(lambda: all(w.endpoints()[n]["full"] for n in names or w.servers), 5, what="full servers")


def empty(w, *names):
    for name in names or w.servers:
        w.control(name, "POST", "/metrics", {"waiting": None, "running": None, "kv": None})


def asked(w, name):
    """Texts of the requests that reached this server, in their order."""
    return [json.loads(r["body"])["messages"][-1]["content"] for r in w.captured(name)]


def leave_at_once(ip, port, body):
    """A client that asks and hangs up; returns a function that hangs up."""
    text = json.dumps(body)
    s = socket.create_connection((ip, port))
    s.sendall((f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n" + text).encode())
    return s.close
