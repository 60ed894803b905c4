"""Fixtures of the scenario tests: real penstock processes on loopback addresses, real clients.

Every test gets a loopback address of its own (127.x.y.z), so manifests with fixed ports run side by side. Processes are ended by
their id; a sanitizer report in any of them fails the test.
"""
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def build_dir(kind):
    """kind: 'release', 'asan' or 'tsan'; None when that build is not there."""
    env = {"release": "PENSTOCK_BUILD", "asan": "PENSTOCK_BUILD_ASAN", "tsan": "PENSTOCK_BUILD_TSAN"}[kind]
    default = {"release": "build", "asan": "build-asan", "tsan": "build-tsan"}[kind]
    name = os.environ.get(env, default)
    path = ROOT / name / "src" / "penstock" if name else None
    return path if path and path.exists() else None


def wait_for(check, timeout=10.0, step=0.02, what="condition"):
    """Polls check() until it returns something true; returns that."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(step)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


def http(method, url, body=None, headers=None, timeout=30):
    """One request with the standard library; error statuses are answers, not exceptions."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
    elif isinstance(body, str):
        body = body.encode()
    rq = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(rq, timeout=timeout) as r:
            return Answer(r.status, r.headers, r.read())
    except urllib.error.HTTPError as e:
        return Answer(e.code, e.headers, e.read())


METRIC = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    """[(name, labels, value)]"""
    out = []
    for line in text.splitlines():
        m = METRIC.match(line)
        if m:
            out.append((m.group(1), dict(LABEL.findall(m.group(2) or "")), float(m.group(3))))
    return out


class Process:
    """A penstock process whose stderr is collected line by line."""

    def __init__(self, args, binary, env=None):
        self.args = [str(a) for a in args]
        self.lines = []
        self.proc = subprocess.Popen([str(binary)] + self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     env={**os.environ, **(env or {})}, text=True, errors="replace", bufsize=1)
        self.out = []
        self.readers = [threading.Thread(target=self._read, args=(self.proc.stderr, self.lines), daemon=True),
                        threading.Thread(target=self._read, args=(self.proc.stdout, self.out), daemon=True)]
        for r in self.readers:
            r.start()

    @staticmethod
    def _read(stream, into):
        for line in stream:
            into.append(line.rstrip("\n"))

    @property
    def pid(self):
        return self.proc.pid

    def alive(self):
        return self.proc.poll() is None

    def signal(self, sig):
        self.proc.send_signal(sig)

    def wait_line(self, pattern, timeout=15.0):
        """First stderr line that matches; its match object."""
        rx = re.compile(pattern)

        def look():
            for line in list(self.lines):
                m = rx.search(line)
                if m:
                    return m
            if not self.alive():
                raise AssertionError(f"{self.args[0]} ended with {self.proc.returncode}:\n" + "\n".join(self.lines[-30:]))
            return None

        return wait_for(look, timeout, what=f"line {pattern!r} from {' '.join(self.args[:3])}")

    def events(self, msg):
        """JSON log lines with this msg."""
        out = []
        for line in list(self.lines):
            if line.startswith("{") and msg in line:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if event.get("msg") == msg:
                    out.append(event)
        return out

    def handled(self, n=None, timeout=5.0):
        """The "Request Handled" events; with n, waits until there are at least n."""
        if n is not None:
            wait_for(lambda: len(self.events("Request Handled")) >= n, timeout, what=f"{n} 'Request Handled' lines")
        return self.events("Request Handled")

    def rss_kb(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        return 0

    def stop(self, timeout=40.0):
        """SIGTERM, orderly end, exit code 0, no sanitizer report."""
        if self.alive():
            self.signal(signal.SIGTERM)
        try:
            code = self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise AssertionError(f"penstock {self.args[0]} did not end on SIGTERM:\n" + "\n".join(self.lines[-20:]))
        for r in self.readers:
            r.join(5)
        text = "\n".join(self.lines)
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "check failed"):
            if mark in text:
                at = text.index(mark)
                raise AssertionError(f"sanitizer report from penstock {self.args[0]}:\n" + text[max(0, at - 200):at + 6000])
        assert code == 0, f"penstock {self.args[0]} ended with {code}:\n" + "\n".join(self.lines[-30:])

    def kill(self):
        if self.alive():
            self.proc.kill()
            self.proc.wait()


class Gateway(Process):
    """A gateway or sandbox with its admin address."""

    def __init__(self, args, binary, ip, admin_port=9090, env=None):
        self.ip = ip
        self.admin = f"http://{ip}:{admin_port}"
        super().__init__(args, binary, env)

    def url(self, port, path=""):
        return f"http://{self.ip}:{port}{path}"

    def wait_ready(self, timeout=20.0):
        def look():
            if not self.alive():
                raise AssertionError(f"penstock {self.args[0]} ended with {self.proc.returncode}:\n" + "\n".join(self.lines[-40:]))
            try:
                return http("GET", self.admin + "/readyz", timeout=2).status == 200
            except OSError:
                return False

        wait_for(look, timeout, what="/readyz 200")
        return self

    def metrics(self):
        return parse_metrics(http("GET", self.admin + "/metrics").text)

    def metric(self, name, **labels):
        """Sum of the series of this name whose labels include the given ones."""
        return sum(v for n, l, v in self.metrics() if n == name and all(l.get(k) == w for k, w in labels.items()))

    def config(self):
        return http("GET", self.admin + "/config").json()

    def endpoints(self):
        return http("GET", self.admin + "/debug/endpoints").json()

    def assert_idle(self, timeout=10.0):
        """Every in-flight counter returns to zero."""
        wait_for(lambda: self.metric("penstock_endpoint_inflight") == 0, timeout, what="in-flight counters at zero")


class Sandbox(Gateway):
    """penstock sandbox with its control address (faults, captures)."""

    control = None

    def pods(self):
        return http("GET", self.control + "/sim/pods").json()

    def pod(self, name, method, path, body=None):
        return http(method, f"{self.control}/sim/pods/{name}{path}", body)

    def fault(self, name, **spec):
        answer = self.pod(name, "POST", "/fault", spec)
        assert answer.status == 200, answer.text


_address = itertools.count(1)


def fresh_ip():
    """A loopback address no other test of this machine uses at the moment (by process id and count)."""
    n = next(_address)
    return f"127.{100 + os.getpid() % 100}.{(os.getpid() // 100 + n // 250) % 250 + 1}.{n % 250 + 1}"


@pytest.fixture
def ip():
    return fresh_ip()


def free_port(ip="127.0.0.1"):
    with socket.socket() as s:
        s.bind((ip, 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def binary():
    """The ASan build is what scenarios run; PENSTOCK_SCENARIO=release chooses the optimised one."""
    kind = os.environ.get("PENSTOCK_SCENARIO", "asan")
    path = build_dir(kind) or build_dir("release")
    assert path, "no build found: run scripts/test"
    return path


@pytest.fixture(scope="session")
def release_binary():
    path = build_dir("release")
    assert path, "no release build found: run scripts/test"
    return path


@pytest.fixture
def spawn(binary):
    """Starts processes and stops them at the end of the test, checking their end."""
    started = []

    def start(cls, args, *rest, binary=binary, **kw):
        p = cls(args, binary, *rest, **kw)
        started.append(p)
        return p

    yield start
    problems = []
    for p in reversed(started):
        try:
            p.stop()
        except AssertionError as e:
            problems.append(str(e))
    assert not problems, "\n".join(problems)


@pytest.fixture
def sandbox(spawn):
    """sandbox(files..., options...) -> a ready Sandbox on its own loopback address."""

    def start(*files, options=(), ip=None, env=None, **kw):
        ip = ip or fresh_ip()
        args = ["sandbox"]
        for f in files:
            args += ["-f", f]
        args += ["--bind", ip, "--admin", f"{ip}:9090", "--control", f"{ip}:9091", "--log-format", "json", "--seed", "1", "--workers", "2"]
        args += list(options)
        s = spawn(Sandbox, args, ip, env=env, **kw)
        s.control = f"http://{ip}:9091"
        return s.wait_ready()

    return start


@pytest.fixture
def gateway(spawn):
    """gateway(files..., options...) -> a ready Gateway on its own loopback address."""

    def start(*files, options=(), ip=None, ready=True, **kw):
        ip = ip or fresh_ip()
        args = ["gateway"]
        for f in files:
            args += ["-f", f]
        args += ["--bind", ip, "--admin", f"{ip}:9090", "--log-format", "json", "--seed", "1", "--workers", "2"]
        args += list(options)
        g = spawn(Gateway, args, ip, **kw)
        return g.wait_ready() if ready else g

    return start


@pytest.fixture
def sim(spawn):
    """sim(options...) -> a running penstock sim on its own loopback address; .base is its URL, .control its fault interface."""

    def start(*options, ip=None, port=8000, **kw):
        ip = ip or fresh_ip()
        p = spawn(Process, ["sim", "--host", ip, "--port", port, "--control", f"{ip}:{port + 1000}", "--seed", "1", *options], **kw)
        p.ip, p.port, p.base, p.control = ip, port, f"http://{ip}:{port}", f"http://{ip}:{port + 1000}"

        def up():
            assert p.alive(), "\n".join(p.lines)
            try:
                return http("GET", p.base + ("/v2/health/ready" if "triton" in options else "/health"), timeout=2).status == 200
            except OSError:
                return False

        wait_for(up, 15, what="sim /health")
        return p

    return start


class Cluster:
    """A gateway and simulated servers, each a process of its own. Pods are pod-0, pod-1..."""

    def __init__(self, gw, sims, directory):
        self.gw, self.sims, self.dir, self.ip = gw, sims, directory, gw.ip

    def url(self, path="/v1/chat/completions"):
        return self.gw.url(8080, path)

    def sim(self, pod):
        return self.sims[pod]

    def control(self, pod, method, path, body=None):
        """The /sim interface of a server, by the address that lives on when the server plays dead."""
        return http(method, f"{self.sims[pod].control}/sim{path}", body)

    def fault(self, pod, **spec):
        answer = self.control(pod, "POST", "/fault", spec)
        assert answer.status == 200, answer.text

    def endpoints(self):
        """{pod: endpoint} of the pool, as the gateway sees it."""
        (pool,) = [p for p in self.gw.endpoints()["pools"] if p["kind"] == "InferencePool"]
        return {e["pod"]: e for e in pool["endpoints"]}

    def pool(self):
        (pool,) = [p for p in self.gw.endpoints()["pools"] if p["kind"] == "InferencePool"]
        return pool

    def chat(self, text="hello", **more):
        return http("POST", self.url(), {"model": "qwen", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more})


@pytest.fixture
def cluster(gateway, sim, tmp_path, release_binary):
    """cluster(n, ...) -> Cluster of n servers; the servers run the optimised build, the gateway the one under test."""
    import manifests

    def start(n=4, annotations=None, sim_options=(), options=(), binary=None, route=None):
        sims = {f"pod-{i}": sim("--model", "/models/qwen", "--served-model-name", "qwen", "--pod-name", f"pod-{i}", *sim_options, binary=release_binary)
                for i in range(n)}
        directory = tmp_path / f"conf-{len(list(tmp_path.iterdir()))}.d"
        directory.mkdir()
        manifests.write(directory / "world.yaml", manifests.world({p: s.ip for p, s in sims.items()}, annotations, **(route or {})))
        more = {"binary": binary} if binary else {}
        return Cluster(gateway(directory, options=options, **more), sims, directory)

    return start
