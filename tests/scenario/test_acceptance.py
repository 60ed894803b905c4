"""What a user stumbles over: cases found by hand while trying the product, each kept as a test."""
import urllib.request

import pytest

from conftest import EXAMPLES, Gateway, free_port, fresh_ip, http

SMART = EXAMPLES / "smart-routing"


def test_request_ids_differ_between_equal_gateways(spawn, sim):
    server = sim("--model", "m")
    seen = []
    for _ in range(2):
        ip = fresh_ip()
        port = free_port(ip)
        g = spawn(Gateway, ["gateway", "--endpoint", server.base, "--listen", f"{ip}:{port}", "--admin", f"{ip}:9090", "--log-format", "json",
                            "--workers", "2", "--seed", "1"], ip).wait_ready()
        for i in range(4):
            assert http("POST", g.url(port, "/v1/completions"), {"model": "m", "prompt": f"p{i}", "max_tokens": 1}).status in (200, 404)
        seen += [x["request_id"] for x in g.handled(4)]
    assert len(set(seen)) == len(seen) == 8


def test_odd_model_names_leave_metrics_readable(spawn, sim):
    """Readers of the text format stop at a NUL: no client may blind the monitoring."""
    server = sim("--model", "m")
    ip = fresh_ip()
    port = free_port(ip)
    g = spawn(Gateway, ["gateway", "--endpoint", server.base, "--listen", f"{ip}:{port}", "--admin", f"{ip}:9090", "--log-format", "json"], ip).wait_ready()
    for name in ("a\u0000b", "a\u001bb", 'q"\\', "two\nlines", "\u65e5\u672c"):
        http("POST", g.url(port, "/v1/completions"), {"model": name, "prompt": "p", "max_tokens": 1})
    with urllib.request.urlopen(g.admin + "/metrics") as r:
        page = r.read()
    assert b"\0" not in page and b"\x1b" not in page
    assert b'model_name="a_b"' in page and "\u65e5\u672c".encode() in page
    assert b'model_name="two\\nlines"' in page and b'model_name="q\\"\\\\"' in page


def test_more_endpoints_than_a_pool_of_kubernetes_has_ports(spawn, sim):
    """Ten servers on ten ports of one host, given by --endpoint."""
    host = fresh_ip()
    servers = [sim("--model", "m", ip=host, port=8000 + i) for i in range(10)]
    ip = fresh_ip()
    port = free_port(ip)
    args = [a for s in servers for a in ("--endpoint", s.base)]
    g = spawn(Gateway, ["gateway", *args, "--listen", f"{ip}:{port}", "--admin", f"{ip}:9090", "--log-format", "json", "--policy", "DEFAULT"], ip).wait_ready()
    for i in range(20):
        assert http("POST", g.url(port, "/v1/completions"), {"model": "m", "prompt": f"p{i}", "max_tokens": 1}).status == 200
    assert len({x["address"] for x in g.handled(20)}) == 10


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_has_the_answer_finds_its_counters(sandbox, stream):
    """The ledger and the counters have a request before its last byte leaves: nothing is in flight right after an answer, and a log read then is
    complete."""
    sb = sandbox(SMART / "workload.yaml", SMART / "Prefix_Cache.yaml", SMART / "gateway_networking.yaml", options=("--time-scale", "20"))
    for i in range(60):
        body = {"model": "/models/Qwen3-32B", "max_tokens": 4, "stream": stream, "messages": [{"role": "user", "content": f"question {i} " * 20}]}
        assert http("POST", sb.url(8080, "/v1/chat/completions"), body).status == 200
        values = sb.metrics()
        assert sum(v for n, _, v in values if n == "penstock_endpoint_inflight") == 0
        assert sum(v for n, l, v in values if n == "penstock_requests_total" and l["status"] == "200") == i + 1
