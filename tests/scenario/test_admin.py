"""The admin pages, the ends of the process, the commands, and the memory of the gateway alone."""
import json
import re
import resource
import signal
import subprocess
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import manifests
from conftest import Gateway, fresh_ip, http, wait_for
from manifests import ENV, X
from rawhttp import Closed, Raw, post
from split import labels, split, world  # noqa: F401

CHAT = "/v1/chat/completions"
M = {"model_name", "target_model_name"}

# gie-protocol.md 5: (name, type, labels) of what this version feeds
REFERENCE = [
    ("inference_objective_request_total", "counter", M | {"priority"}),
    ("inference_objective_request_error_total", "counter", M | {"error_code"}),
    ("inference_objective_request_duration_seconds", "histogram", M),
    ("inference_objective_request_sizes", "histogram", M),
    ("inference_objective_response_sizes", "histogram", M),
    ("inference_objective_input_tokens", "histogram", M),
    ("inference_objective_output_tokens", "histogram", M),
    ("inference_objective_running_requests", "gauge", {"model_name"}),
    ("inference_objective_normalized_time_per_output_token_seconds", "histogram", M),
    ("inference_objective_request_ttft_seconds", "histogram", M),
    ("inference_pool_average_kv_cache_utilization", "gauge", {"name"}),
    ("inference_pool_average_queue_size", "gauge", {"name"}),
    ("inference_pool_average_running_requests", "gauge", {"name"}),
    ("inference_pool_ready_pods", "gauge", {"name"}),
    ("inference_pool_per_pod_queue_size", "gauge", {"name", "model_server_pod"}),
    ("inference_extension_scheduler_e2e_duration_seconds", "histogram", set()),
    ("inference_extension_scheduler_attempts_total", "counter", {"status"}),
    ("inference_extension_prefix_indexer_size", "gauge", set()),
    ("inference_extension_prefix_indexer_hit_ratio", "histogram", set()),
    ("inference_extension_prefix_indexer_hit_bytes", "histogram", set()),
    ("inference_extension_info", "gauge", {"commit", "build_ref"}),
]
OWN = ["penstock_requests_total", "penstock_retries_total", "penstock_upstream_failures_total", "penstock_rejected_total", "penstock_endpoint_inflight",
       "penstock_endpoint_ejected", "penstock_client_connections", "penstock_prefix_index_bytes", "penstock_body_bytes_held", "penstock_pool_demand"]


def families(text):
    return {f.name: f for f in text_string_to_metric_families(text)}


def test_metrics_page(cluster):
    """/metrics is what Prometheus reads: names, types and labels of the reference picker, and our own."""
    c = cluster(2, {f"{X}/routing-strategy": "PREFIX_CACHE"}, sim_options=("--time-scale", "10"))
    for i in range(4):
        assert c.chat("the same words " * 50, stream=bool(i % 2), stream_options={"include_usage": True} if i % 2 else None).status == 200
    http("POST", c.url(), "{}x")
    c.gw.handled(4)
    answer = http("GET", c.gw.admin + "/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = families(answer.text)
    wrong = []
    for name, kind, labels in REFERENCE:
        f = found.get(name[:-len("_total")] if kind == "counter" else name)
        if not f:
            wrong.append(f"{name} is missing")
        elif f.type != kind:
            wrong.append(f"{name} is a {f.type}, not a {kind}")
        elif not f.samples and "error" not in name:
            wrong.append(f"{name} has no series")
        elif f.samples and set(f.samples[0].labels) - {"le"} != labels:
            wrong.append(f"{name} has labels {sorted(f.samples[0].labels)}, not {sorted(labels)}")
    names = {s.name for f in found.values() for s in f.samples} | set(found)
    wrong += [f"{n} is missing" for n in OWN if n not in names and n.removesuffix("_total") not in found]
    assert not wrong, "\n".join(wrong)
    assert not [n for n in found if not re.match(r"(inference_|penstock_|process_)", n)]
    total = [s for s in found["inference_objective_request"].samples if s.labels["model_name"] == "qwen"]
    assert sum(s.value for s in total) == 4
    for f in found.values():
        assert f.documentation, f.name
        if f.type == "histogram":
            by_series = {}
            for s in f.samples:
                key = tuple(sorted((k, v) for k, v in s.labels.items() if k != "le"))
                by_series.setdefault(key, []).append(s)
            for series in by_series.values():
                buckets = [s.value for s in series if s.name.endswith("_bucket")]
                (count,) = [s.value for s in series if s.name.endswith("_count")]
                assert buckets == sorted(buckets) and buckets[-1] == count, f.name
    gen = [float(s.labels["le"]) for s in found["inference_objective_request_duration_seconds"].samples if s.name.endswith("_bucket")]
    assert gen[:5] == [0.005, 0.025, 0.05, 0.1, 0.2] and 3600.0 in gen
    (ready,) = [s.value for s in found["inference_pool_ready_pods"].samples if s.labels["name"] == "pool"]
    assert ready == 2


def test_client_controlled_labels_are_bounded(cluster):
    """A client that invents model names does not fill the metrics page, and names known before go on being counted."""
    c = cluster(1, sim_options=("--time-scale", "50"))

    def known():
        with Raw(c.ip, 8080) as r:
            for _ in range(4):
                r.send(post(CHAT, json.dumps({"model": "known", "messages": [], "max_tokens": 1}))).answer("POST")
        return c.gw.metric("inference_objective_request_total", model_name="known")

    for _ in range(20):  # every worker has heard of it
        before = known()

    def invent(k):
        with Raw(c.ip, 8080, timeout=30) as r:
            for i in range(600):
                r.send(post(CHAT, json.dumps({"model": f"invented-{k}-{i}", "messages": [], "max_tokens": 1})))
                assert r.answer("POST").status in (200, 400, 404)

    threads = [threading.Thread(target=invent, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    text = http("GET", c.gw.admin + "/metrics").text
    assert len(text) < 8 << 20, f"{len(text)} bytes of metrics"
    names = set(re.findall(r'model_name="(invented[^"]*)"', text))
    assert len(names) <= 1100, f"{len(names)} models in the metrics"
    families(text)
    assert known() == before + 4
    c.gw.assert_idle()


def test_pages(cluster):
    c = cluster(2)
    a = c.gw.admin
    assert http("GET", a + "/healthz").status == 200
    assert http("GET", a + "/readyz").status == 200
    assert http("GET", a + "/nothing").status == 404
    for path in ("/metrics", "/healthz", "/config", "/debug/endpoints"):
        answer = http("POST", a + path, b"x")
        assert answer.status == 405 and "GET" in answer.headers["allow"], path
        assert http("DELETE", a + path).status == 405
        head = http("HEAD", a + path)
        assert head.status == 200 and head.body == b"", path
    index = http("GET", a + "/").text
    assert all(p in index for p in ("/metrics", "/healthz", "/readyz", "/config", "/debug/endpoints"))
    port = int(a.rsplit(":", 1)[1])
    with Raw(c.ip, port) as r:  # the admin server is as strict as the gateway
        r.send(b"GET /metrics HTTP/1.1\nHost: a\n\n")
        assert r.answer("GET").status == 400
    with Raw(c.ip, port) as r:
        r.send(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        assert r.answer("POST").status in (405, 413)
    assert http("GET", a + "/healthz").status == 200


def test_config_page_has_every_annotation(cluster):
    """/config: listeners, routes, pools with every annotation of the documents: value, default or given, and what is not in effect."""
    given = {f"{X}/routing-strategy": "PREFIX_CACHE", f"{X}/queueing": "enabled", f"{ENV}/total-queue-capacity": "104857600", f"{ENV}/queue-ttl": "30s",
             f"{X}/model-server-runtime": "vllm", f"{X}/epp-overlay": "custom-epp", f"{ENV}/prefix-cache-hash-block-size": "64",
             f"{ENV}/prefix-cache-max-prefix-blocks": "128", f"{ENV}/prefix-cache-lru-capacity": "50000"}
    c = cluster(1, given)
    config = c.gw.config()
    text = json.dumps(config)
    (pool,) = [b for b in config["backends"] if b["kind"] == "InferencePool"]
    found = {s["name"]: s for s in pool["settings"]}
    for key, value in given.items():
        assert str(found[key]["value"]) == value, found.get(key)
    assert "accepted, not in effect yet" in json.dumps(found[f"{X}/epp-overlay"]), found[f"{X}/epp-overlay"]
    assert "8080" in text and c.sims["pod-0"].ip in text and pool["key"] == "pool/default/pool"


def test_endpoints_page(cluster):
    c = cluster(2, sim_options=("--time-scale", "2"))
    with Raw(c.ip, 8080) as r:
        r.send(post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2000, "stream": True,
                                      "ignore_eos": True})))
        assert r.head().status == 200
        pool = c.pool()
        assert pool["name"] == "pool" and pool["inflight"] == 1 and pool["ready"] == 2 and len(pool["endpoints"]) == 2
        assert sorted(e["inflight"] for e in pool["endpoints"]) == [0, 1]
        for e in pool["endpoints"]:
            assert e["address"] == f"{c.sims[e['pod']].ip}:8000" and e["state"] in ("ready", "slow start")
            assert e["kv_tokens"] > 0 and e["load"]["fresh"]
        top = subprocess.run([c.gw.proc.args[0], "top", "--once", "--admin", c.gw.admin[len("http://"):]], capture_output=True, text=True, timeout=20)
        assert top.returncode == 0, top.stderr
        assert "pod-0" in top.stdout and "pod-1" in top.stdout and "default/pool" in top.stdout and "in flight 1" in top.stdout
    c.gw.assert_idle()


def test_both_roles_of_a_split_pool(split):  # noqa: F811
    """Endpoints page, metrics and top tell prefill and decode apart, and sum where a sum is meant."""
    s = split("bootstrap", prefill=1, decode=2, scale=1)
    s.w.server("odd", labels=labels(None))
    s.w.sync()
    wait_for(lambda: s.w.backend()["pods_without_role"] == 1, 5, what="the pod without a role")
    body = json.dumps(s.body("x", stream=True, max_tokens=4000))
    with Raw(s.ip, 8080) as r:
        r.send(post(CHAT, body))
        assert r.head().status == 200
        wait_for(lambda: s.endpoints()["prefill-0"]["inflight"] == 0, 5, what="the end of the prefill")
        pool, role = s.w.backend(), {x["role"]: x for x in s.w.backend()["roles"]}
        assert {e["pod"]: e["role"] for e in pool["endpoints"]} == {"prefill-0": "prefill", "decode-0": "decode", "decode-1": "decode"}
        assert all(e["coming"] == 0 for e in pool["endpoints"])
        assert set(role) == {"prefill", "decode"} and pool["ready"] == 3 and (role["prefill"]["ready"], role["decode"]["ready"]) == (1, 2)
        assert pool["inflight"] == 1 and role["decode"]["inflight"] == 1 and role["prefill"]["inflight"] == 0
        assert pool["picks"] == role["decode"]["picks"] == role["prefill"]["picks"] == 1
        metric = s.gw.metric
        assert metric("inference_pool_ready_pods") == 3 == metric("penstock_pool_endpoints")
        assert [metric("penstock_role_ready", role=x) for x in ("prefill", "decode")] == [1, 2]
        assert [metric("penstock_role_inflight", role=x) for x in ("prefill", "decode")] == [0, 1] and metric("penstock_pool_inflight") == 1
        assert metric("penstock_role_demand", role="decode") == 0.5 and metric("penstock_role_demand", role="prefill") == 0
        top = subprocess.run([s.gw.proc.args[0], "top", "--once", "--admin", s.gw.admin[len("http://"):]], capture_output=True, text=True, timeout=20)
        assert top.returncode == 0 and "1 pools, 3 pods" in top.stdout and "1 without a role" in top.stdout, top.stdout + top.stderr
        assert re.search(r"^  prefill  ready 1  in flight 0", top.stdout, re.M) and re.search(r"^  decode   ready 2  in flight 1", top.stdout, re.M), top.stdout
        assert re.search(r"^  POD .* ROLE ", top.stdout, re.M) and re.search(r"^  decode-1 .* decode  ", top.stdout, re.M), top.stdout
    s.w.fix_metrics("prefill-0", waiting=50, running=10)
    full = {x["role"]: x["saturation"] for x in s.w.backend()["roles"]}
    assert full["prefill"] == 1 > full["decode"] and s.w.backend()["saturation"] == 1 and s.w.backend()["saturated"]
    assert s.gw.metric("inference_extension_flow_control_pool_saturation") == 1 == s.gw.metric("penstock_role_saturation", role="prefill")
    s.w.apply(manifests.pool(), manifests.route())  # without the policy: one pool again
    wait_for(lambda: "roles" not in s.w.backend(), 5, what="the end of the roles")
    pool = s.w.backend()
    assert not [e for e in pool["endpoints"] if "role" in e] and "pods_without_role" not in pool
    assert not [n for n, _, _ in s.gw.metrics() if n.startswith("penstock_role_")]
    s.gw.assert_idle()


def test_top_without_a_gateway(binary):
    top = subprocess.run([binary, "top", "--once", "--admin", "127.0.0.1:1"], capture_output=True, text=True, timeout=20)
    assert top.returncode == 1 and "127.0.0.1:1" in top.stderr


def test_ready_only_after_a_first_scrape(gateway, sim, tmp_path, release_binary):
    """/readyz is 503 with a reason until every pool was looked at; a pool whose pods are dead does not block for ever."""
    ip = fresh_ip()
    f = tmp_path / "world.yaml"
    f.write_text(manifests.world({"pod-0": ip}))
    gw = gateway(f, ready=False)
    wait_for(lambda: not gw.alive() or _status(gw.admin + "/healthz") == 200, 10, what="/healthz")
    wait_for(lambda: _status(gw.admin + "/readyz") == 200, 10, what="/readyz")
    answer = http("POST", gw.url(8080, CHAT), {"model": "qwen", "messages": [], "max_tokens": 1})
    assert answer.status in (502, 503)
    sim("--model", "qwen", ip=ip, binary=release_binary)
    wait_for(lambda: http("POST", gw.url(8080, CHAT), {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).status == 200, 3,
             what="the new pod in use")


def _status(url):
    try:
        return http("GET", url, timeout=2).status
    except OSError:
        return 0


def test_drain(cluster):
    """SIGTERM: /readyz turns 503, no new connection is served, running streams end as they would, then exit 0."""
    c = cluster(1, sim_options=("--time-scale", "1"))
    body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 150, "ignore_eos": True, "stream": True})
    idle = Raw(c.ip, 8080)
    idle.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
    assert idle.answer("GET").status == 404
    with Raw(c.ip, 8080, timeout=20) as r:
        r.send(post(CHAT, body))
        assert r.head().status == 200
        c.gw.signal(signal.SIGTERM)
        wait_for(lambda: _status(c.gw.admin + "/readyz") in (503, 0), 3, what="/readyz 503")
        assert idle.ended(3), "idle connections are closed"

        def refused():
            try:
                with Raw(c.ip, 8080, timeout=1) as n:
                    n.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
                    n.answer("GET")
                return False
            except (OSError, Closed, AssertionError):
                return True

        wait_for(refused, 3, what="new connections refused")
        assert c.gw.alive()
        while b"[DONE]" not in r.buf or not r.buf.endswith(b"\r\n0\r\n\r\n"):
            assert r.more(), "the stream was cut"
        assert r.ended(3), "and the connection with it"
    assert c.gw.proc.wait(10) == 0


def test_drain_serves_who_has_begun(cluster):
    """Connections that the kernel holds, and heads of which a part is there, when the drain begins: answered, then closed."""
    c = cluster(1, sim_options=("--time-scale", "50"))
    half = Raw(c.ip, 8080)
    wire = post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}))
    half.send(wire[:20])
    time.sleep(0.2)
    c.gw.signal(signal.SIGSTOP)
    waiting = [Raw(c.ip, 8080) for _ in range(40)]
    for r in waiting:
        r.send(wire)
    c.gw.signal(signal.SIGTERM)
    c.gw.signal(signal.SIGCONT)
    time.sleep(0.2)
    half.send(wire[20:])
    for r in [half, *waiting]:
        a = r.answer("POST")
        assert a.status == 200 and a.get("connection") == "close" and r.ended(3)
    assert c.gw.proc.wait(10) == 0


def test_drain_has_an_end(cluster):
    """--drain-timeout: what still runs then is cut, not silently ended; exit 0."""
    c = cluster(1, options=("--drain-timeout", "1s"))
    body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20000, "ignore_eos": True, "stream": True})
    with Raw(c.ip, 8080, timeout=20) as r:
        r.send(post(CHAT, body))
        assert r.head().status == 200
        t = time.monotonic()
        c.gw.signal(signal.SIGTERM)
        assert r.ended(5) and time.monotonic() - t > 0.8
        assert not r.buf.endswith(b"0\r\n\r\n") and b"[DONE]" not in r.buf
    assert c.gw.proc.wait(10) == 0


def test_second_signal_ends_at_once(cluster):
    c = cluster(1)
    body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20000, "ignore_eos": True, "stream": True})
    with Raw(c.ip, 8080, timeout=20) as r:
        r.send(post(CHAT, body))
        assert r.head().status == 200
        c.gw.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert c.gw.alive(), "the first waits for the stream"
        t = time.monotonic()
        c.gw.signal(signal.SIGTERM)
        c.gw.proc.wait(5)
        assert time.monotonic() - t < 3
    c.gw.proc.returncode = 0  # how it tells the forced end is not judged here


def test_sigint_ends_too(cluster):
    c = cluster(1)
    c.gw.signal(signal.SIGINT)
    assert c.gw.proc.wait(10) == 0


LOGFMT = re.compile(r'^(?:[\w.]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$))+$')


def test_log_formats(cluster):
    """Every line is one JSON object, or one line of logfmt; what a client sends cannot break a line."""
    nasty = 'x"\n\\ = \u2028 ts=1 msg="Request Handled"'
    c = cluster(1, sim_options=("--time-scale", "10"))
    c.chat("secret words", model=nasty)
    c.gw.handled(1)
    for line in list(c.gw.lines):
        event = json.loads(line)
        assert {"ts", "level", "msg"} <= set(event), line
    (event,) = c.gw.events("Request Handled")
    assert event["model"] == nasty or event["model"].startswith('x"')
    assert "secret words" not in "\n".join(c.gw.lines)
    c2 = cluster(1, sim_options=("--time-scale", "10"), options=("--log-format", "logfmt"))
    c2.chat("secret words", model=nasty)
    c2.gw.wait_line("Request Handled")
    for line in list(c2.gw.lines):
        assert LOGFMT.match(line), line
        assert line.startswith("ts="), line
    assert len([x for x in c2.gw.lines if x.count("Request Handled") and 'msg="Request Handled"' in x.split(" model=")[0]]) == 1


def test_log_level(cluster):
    c = cluster(1, options=("--log-level", "warn"))
    assert c.chat().status == 200
    time.sleep(0.3)
    assert not c.gw.events("Request Handled")


@pytest.mark.parametrize("command", ["gateway", "sandbox", "sim", "check", "top"])
def test_help_and_usage(binary, command):
    """--help prints usage on stdout and exits 0; a wrong option or value exits 2 with a sentence on stderr."""
    out = subprocess.run([binary, command, "--help"], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0 and "sage: penstock " + command in out.stdout, out.stdout + out.stderr
    if command != "sim":  # which takes every option of the real server
        bad = subprocess.run([binary, command, "--no-such-option"], capture_output=True, text=True, timeout=20)
        assert bad.returncode == 2 and "no-such-option" in bad.stderr and bad.stdout == "", bad.stderr
    if command in ("gateway", "sandbox"):
        for option in ("--admin", "--workers", "--log-format", "--log-level", "-f"):
            assert option in out.stdout, option
        for args in (["--workers", "x"], ["--log-format", "xml"], ["--log-level", "loud"], ["--admin", "nowhere:x"], ["--time-scale", "0"]):
            if args[0] == "--time-scale" and "--time-scale" not in out.stdout:
                continue
            bad = subprocess.run([binary, command, *args, "-f", "/dev/null"], capture_output=True, text=True, timeout=20)
            assert bad.returncode == 2, f"{args}: {bad.returncode} {bad.stderr}"


def test_commands(binary, tmp_path):
    run = lambda *a: subprocess.run([binary, *a], capture_output=True, text=True, timeout=20)  # noqa: E731
    assert run().returncode == 2
    assert run("--help").returncode == 0 and "gateway" in run("--help").stdout
    assert run("nonsense").returncode == 2
    assert run("version").returncode == 0 and run("--version").stdout.startswith("penstock ")
    missing = run("gateway", "-f", str(tmp_path / "missing.yaml"), "--admin", "off", "--bind", fresh_ip())
    assert missing.returncode == 1 and "missing.yaml" in missing.stderr, missing.stderr
    assert run("gateway").returncode == 2, "nothing to serve"
    assert run("check", "-f", str(tmp_path / "missing.yaml")).returncode == 1
    good = tmp_path / "good.yaml"
    good.write_text(manifests.world({"pod-0": "127.0.0.9"}))
    out = run("check", "-f", str(good))
    assert out.returncode == 0 and "pool" in out.stdout, out.stdout + out.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text(manifests.dump(manifests.pool(port=70000)))
    out = run("check", "-f", str(bad))
    assert out.returncode == 1 and "bad.yaml" in out.stdout + out.stderr and "targetPortNumber" in out.stdout + out.stderr


def test_port_taken(cluster, binary, tmp_path):
    """A listener's or admin port that is taken is told at start, with exit code 1."""
    c = cluster(1)
    f = tmp_path / "again.yaml"
    f.write_text(manifests.world({"pod-0": "127.0.0.9"}))
    for args in (["--admin", "off"], ["--admin", c.gw.admin[len("http://"):]]):
        ip = c.ip if args[1] == "off" else fresh_ip()
        p = subprocess.run([binary, "gateway", "-f", f, "--bind", ip, *args], capture_output=True, text=True, timeout=20)
        assert p.returncode == 1 and re.search(r"8080|9090", p.stderr), p.stderr


def test_endpoint_option(spawn, sim, release_binary):
    """`penstock gateway --endpoint http://HOST:PORT ...` needs no YAML at all."""
    sims = [sim("--model", "/models/qwen", "--served-model-name", "qwen", binary=release_binary) for _ in range(2)]
    ip = fresh_ip()
    args = ["gateway", "--bind", ip, "--admin", f"{ip}:9090", "--log-format", "json", "--workers", "1"]
    for s in sims:
        args += ["--endpoint", s.base]
    gw = spawn(Gateway, args, ip)
    gw.wait_ready()
    port = wait_for(lambda: next((p for p in (8080, 8000, 80) if _status(gw.url(p, "/v1/models")) == 200), None), 5, what="a port that serves")
    for i in range(20):
        answer = http("POST", gw.url(port, CHAT), {"model": "qwen", "messages": [{"role": "user", "content": f"{i}"}], "max_tokens": 1})
        assert answer.status == 200, answer.text
    assert len({h["address"] for h in gw.handled(20) if h["path"] == CHAT}) == 2


# --- memory and start of the gateway alone: the optimised build ------------------------------------------------------------------


def test_memory_idle_with_ten_endpoints(cluster, release_binary):
    c = cluster(10, binary=release_binary)
    for _ in range(20):
        assert c.chat().status == 200
    time.sleep(1.5)
    print(f"\nidle with 10 endpoints: {c.gw.rss_kb()} KB resident")
    assert c.gw.rss_kb() <= 20 * 1024


def test_memory_of_open_streams(cluster, release_binary):
    """1000 streams with bodies of 100 KB: at most 20 KB each once the answers run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    c = cluster(2, sim_options=("--time-scale", "4", "--max-num-seqs", "1000", "--kv-tokens", "100000000", "--max-num-batched-tokens", "4000000",
                                "--max-model-len", "200000", "--hardware", "h100"), binary=release_binary)
    assert c.chat().status == 200
    before = c.gw.rss_kb()
    conns = []
    try:
        for i in range(1000):
            body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "word " * 20000 + f"{i}"}], "max_tokens": 50000,
                               "ignore_eos": True, "stream": True})  # alike, so that the servers have it cached and answer at once
            r = Raw(c.ip, 8080, timeout=60)
            r.send(post(CHAT, body))
            conns.append(r)
        for r in conns:
            assert r.head().status == 200
        time.sleep(1.5)
        assert c.gw.metric("penstock_endpoint_inflight") == 1000
        grown = c.gw.rss_kb() - before
        print(f"\n1000 streams: {grown} KB, {grown / 1000:.1f} KB each (index: {c.pool()['index_bytes'] // 1024} KB)")
        assert (grown - c.pool()["index_bytes"] // 1024) / 1000 <= 20
    finally:
        for r in conns:
            r.sock.close()
    c.gw.assert_idle()


def test_start_to_serving(sim, tmp_path, release_binary):
    """Start to serving: 100 ms is the aim, printed; 1 s the bound here."""
    s = sim("--model", "/models/qwen", "--served-model-name", "qwen", binary=release_binary)
    f = tmp_path / "world.yaml"
    f.write_text(manifests.world({"pod-0": s.ip}))
    times = []
    for _ in range(5):
        ip = fresh_ip()
        gw = Gateway(["gateway", "-f", f, "--bind", ip, "--admin", f"{ip}:9090"], release_binary, ip)
        t = time.monotonic()
        try:
            while True:
                try:
                    with Raw(ip, 8080, timeout=1) as r:
                        r.send(post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1})))
                        if r.answer("POST").status == 200:
                            break
                except (OSError, Closed):
                    pass
                assert time.monotonic() - t < 5, "\n".join(gw.lines)
                time.sleep(0.002)
            times.append(time.monotonic() - t)
        finally:
            gw.stop()
    print("\nstart to serving:", " ".join(f"{t * 1000:.0f} ms" for t in times))
    assert min(times) < 1.0


def test_twenty_thousand_requests_leak_nothing(cluster, release_binary):
    """Memory after a long run is that of the beginning."""
    c = cluster(2, sim_options=("--time-scale", "100"), binary=release_binary)
    wire = post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}))

    def go():
        with Raw(c.ip, 8080) as r:
            for _ in range(2500):
                r.send(wire)
                assert r.answer("POST").status == 200

    def round_():
        threads = [threading.Thread(target=go) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return c.gw.rss_kb()

    first, second = round_(), round_()
    assert second - first < 1000, (first, second)
    c.gw.assert_idle()
