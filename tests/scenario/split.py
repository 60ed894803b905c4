"""What the tests of prefill/decode separation share: a split pool of simulated servers, each a process; canned servers that answer to the byte."""
import json
import socket
import threading
import time

import pytest

import manifests
from conftest import free_port, fresh_ip, http, wait_for
from resources import World  # noqa: F401
from resources import world  # noqa: F401

POLICY = "inferenceextension.alibabacloud.com/v1alpha1"
ROLE = "rolebasedgroup.workloads.x-k8s.io/role"
BOOTSTRAP_PORT = 34000
NIXL = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
RUNTIME = {"bootstrap": "sglang", "nixl": "vllm"}
PREFIX_POLICY = {"trafficPolicy": {"prefixCache": {"mode": "estimate"}}}


def policy(runtime="sglang", pool=manifests.POOL, name="policy", port=BOOTSTRAP_PORT, role=ROLE, **pd):
    """An InferenceTrafficPolicy with profile.pd."""
    profile = {"pdRoleLabelName": role, **pd}
    if port:
        profile["kvTransfer"] = {"bootstrapPort": port}
    return {"apiVersion": POLICY, "kind": "InferenceTrafficPolicy", "metadata": manifests.meta(name),
            "spec": {"poolRef": {"name": pool}, "modelServerRuntime": runtime, "profile": {"pd": profile}}}


def single(runtime=None, pool=manifests.POOL, name="policy", **profile):
    """One with profile.single."""
    spec = {"poolRef": {"name": pool}, "profile": {"single": profile}}
    if runtime:
        spec["modelServerRuntime"] = runtime
    return {"apiVersion": POLICY, "kind": "InferenceTrafficPolicy", "metadata": manifests.meta(name), "spec": spec}


def labels(role):
    return {**manifests.LABELS, **({ROLE: role} if role else {})}


def long_text(i, n=1500):
    """A prompt that is worth a prefill elsewhere."""
    words = " ".join(str((i + 1) * 7919 * (k + 3) % 100003) for k in range(n // 6 + 1))
    return (f"Question {i}: " + words)[:n]


WAITING = ("alone", "computing", "moving", "partners_waiting", "wanting_memory", "fetching")


class Split:
    """A split pool behind a gateway. Pods are prefill-0.., decode-0..; mode: bootstrap (SGLang) or nixl (vLLM)."""

    def __init__(self, world, mode):
        self.w, self.mode = world, mode

    @property
    def gw(self):
        return self.w.gw

    @property
    def ip(self):
        return self.w.gw.ip

    def role(self, role):
        return [n for n in self.w.servers if n.startswith(role)]

    def control(self, name, method, path, body=None):
        return self.w.control(name, method, path, body)

    def fault(self, *names, **spec):
        for name in names:
            self.control(name, "POST", "/fault", spec)

    def hits(self, *names):
        return sum(self.control(n, "GET", "/fault").json()["hits"] for n in names)

    def state(self, name):
        return self.control(name, "GET", "/state").json()

    def body(self, text, stream=False, **more):
        return {"model": "qwen", "messages": [{"role": "user", "content": text}], "max_tokens": 8, "ignore_eos": True, "stream": stream, **more}

    def chat(self, text=None, stream=False, headers=None, timeout=30, **more):
        return http("POST", self.w.url(), self.body(text or long_text(1), stream, **more), headers, timeout)

    def line(self, answer):
        return self.w.line_of(answer)

    def captured(self, name, path=None):
        """[(path, headers, body as JSON)] of a server's POST requests."""
        return [(c["path"], c["headers"], json.loads(c["body"])) for c in self.w.captured(name) if path is None or c["path"] == path]

    def where(self, path="/v1/chat/completions"):
        """{pod: bodies} of those that got some."""
        got = {n: [b for _, _, b in self.captured(n, path)] for n in self.w.servers}
        return {n: v for n, v in got.items() if v}

    def endpoints(self):
        return self.w.endpoints()

    def wait_ready(self, timeout=15):
        want = set(self.w.servers)
        wait_for(lambda: {n for n, e in self.endpoints().items() if e["state"] in ("ready", "slow start")} >= want, timeout,
                 what="all endpoints ready")

    def busy(self):
        """Decode servers say that many requests run: a prompt computed there would hold them all up, so that NIXL splits, too."""
        if self.mode != "nixl":
            return
        for name in self.role("decode"):
            self.control(name, "POST", "/metrics", {"running": 300})
        if self.gw:
            wait_for(lambda: all(e["load"]["running"] == 300 for n, e in self.endpoints().items() if n.startswith("decode")), 5, what="busy decode servers")

    def left(self, name):
        """What of requests is left in a server. What a NIXL prefill holds for nobody goes with its lease."""
        s = self.state(name)
        return {k: v for k, v in {"jobs": s["jobs"], **{k: s["kv"][k] for k in (*WAITING, "ready")}}.items() if v}

    def assert_nothing_left(self, timeout=4, but=()):
        """No reservation in the gateway; no room, prompt or leg in any server."""
        wait_for(lambda: self.gw.metric("penstock_endpoint_inflight") == 0, timeout, what="in-flight counters of both roles at zero")
        views = self.endpoints().values()
        assert not [e for e in views if e["inflight"] or e["unanswered"]], views
        left = {}

        def gone():
            left.clear()
            left.update({n: self.left(n) for n in self.w.servers if n not in but})
            return not any(left.values())

        try:
            wait_for(gone, timeout)
        except AssertionError:
            raise AssertionError(f"left in servers: {left}") from None

    def failures(self, **labels):
        return self.gw.metric("penstock_prefill_failures_total", **labels)

    def splits(self, where="elsewhere"):
        return self.gw.metric("penstock_pd_requests_total", prefill=where)


def sim_options(mode, role, scale=10):
    """Of a server whose clock runs `scale` times as fast; a prompt that nobody fetches is held for 0.5 s."""
    if mode == "nixl":
        return ["--kv-transfer-config", NIXL, "--kv-lease-ms", str(500 * scale), "--enable-prompt-tokens-details"]
    out = ["--dialect", "sglang", "--enable-metrics", "--enable-cache-report", "--disaggregation-mode", role]
    return out + ["--disaggregation-bootstrap-port", str(BOOTSTRAP_PORT)] if role == "prefill" else out


@pytest.fixture
def split(world):  # noqa: F811
    """split(mode, prefill=2, decode=2, ...) -> a ready Split."""

    def start(mode, prefill=2, decode=2, scale=10, options=(), route=None, annotations=None, pd=None, objects=()):
        s = Split(world, mode)
        for role, n in (("prefill", prefill), ("decode", decode)):
            for i in range(n):
                world.server(f"{role}-{i}", *sim_options(mode, role, scale), "--time-scale", str(scale), labels=labels(role))
        s.busy()
        world.start(manifests.pool(annotations=annotations), manifests.route(**(route or {})), policy(RUNTIME[mode], **(pd or {})), *objects,
                    options=options)
        s.wait_ready()
        s.busy()
        return s

    return start


class Canned:
    """A server that answers every POST with the same bytes, records what it got, and has the metrics of an idle vLLM."""

    PAGE = b'vllm:num_requests_running{engine="0",model_name="qwen"} 0.0\nvllm:num_requests_waiting{engine="0",model_name="qwen"} 0.0\n'

    def __init__(self, pieces, gap=0.0):
        """pieces: what is written one after the other, `gap` seconds apart; the connection stays open behind the last one."""
        self.pieces, self.gap, self.got, self.ip = pieces, gap, [], fresh_ip()
        self.partner = None  # answers only when that one has got a request, too
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((self.ip, 8000))
        self.sock.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        buf = b""
        with c:
            while True:
                try:
                    while b"\r\n\r\n" not in buf:
                        data = c.recv(65536)
                        if not data:
                            return
                        buf += data
                    head, _, buf = buf.partition(b"\r\n\r\n")
                    n = 0
                    for line in head.split(b"\r\n")[1:]:
                        if line.lower().startswith(b"content-length:"):
                            n = int(line.split(b":")[1])
                    while len(buf) < n:
                        data = c.recv(65536)
                        if not data:
                            return
                        buf += data
                    body, buf = buf[:n], buf[n:]
                    if head.startswith(b"GET"):
                        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(self.PAGE) + self.PAGE)
                        continue
                    self.got.append((head, body))
                    if self.partner:
                        wait_for(lambda: self.partner.got)
                    for piece in self.pieces:
                        c.sendall(piece)
                        time.sleep(self.gap)
                except OSError:
                    return

    def stop(self):
        self.sock.close()


@pytest.fixture
def canned():
    made = []

    def start(pieces, gap=0.0):
        made.append(Canned(pieces, gap))
        return made[-1]

    yield start
    for c in made:
        c.stop()


class Deaf:
    """An address that neither accepts nor refuses: connecting to it takes for ever."""

    def __init__(self, ip, port=8000):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((ip, port))
        self.sock.listen(0)
        self.filled = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((ip, port))
            self.filled.append(s)
        time.sleep(0.05)

    def stop(self):
        for s in (*self.filled, self.sock):
            s.close()


__all__ = ["Canned", "Deaf", "Split", "canned", "free_port", "labels", "long_text", "policy", "sim_options", "single", "split", "world"]
