"""/debug/decisions: every decision with its reasons, and what came of it."""
import html.parser
import json
import re
import threading
import time

import pytest

from conftest import http, wait_for
from manifests import ENV, X
from rawhttp import Raw, post

CHAT = "/v1/chat/completions"
PREFIX = {f"{X}/routing-strategy": "PREFIX_CACHE"}


def decisions(gw, query=""):
    answer = http("GET", gw.admin + "/debug/decisions" + query)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json", answer.text
    return [d for p in answer.json()["pools"] for d in p["decisions"]]


def ended(gw, n, query=""):
    """Decisions once at least n of them have an end."""
    return wait_for(lambda: (lambda v: v if sum(d["real"] is not None for d in v) >= n else None)(decisions(gw, query)), 5, what=f"{n} ended decisions")


def test_every_request_is_found_with_its_reasons(cluster):
    c = cluster(3, PREFIX, sim_options=("--time-scale", "10"))
    for i in range(30):
        assert http("POST", c.url(), {"model": "qwen", "messages": [{"role": "user", "content": f"{i} " * 200}], "max_tokens": 3, "stream": bool(i % 2),
                                      **({"stream_options": {"include_usage": True}} if i % 2 else {})}, {"x-request-id": f"find-{i}"}).status == 200
    lines = {h["request_id"]: h for h in c.gw.handled(30)}
    assert len(ended(c.gw, 30)) == 30
    pods = {p: e["address"] for p, e in c.endpoints().items()}
    for i in range(30):
        (d,) = decisions(c.gw, f"?request=find-{i}")
        line = lines[f"find-{i}"]
        assert d["request_id"] == f"find-{i}" and d["outcome"] == "picked" and d["pool"] == "pool" and d["model"] == "qwen"
        assert d["endpoint"] == line["pod"] and d["address"] == pods[line["pod"]] and d["why"] == line["reason"]
        assert d["streamed"] == bool(i % 2) and d["attempt"] == 1 and d["one_of"] == 1 and d["degraded"] == 0
        assert d["candidates"] == d["endpoints_total"] == 3 and {r["name"] for r in d["endpoints"]} == set(pods)
        (chosen,) = [r for r in d["endpoints"] if r["chosen"]]
        assert chosen["name"] == line["pod"] and chosen["total_s"] == pytest.approx(d["expected"]["cost_s"], rel=1e-3)
        costs = {k["name"]: k for k in (json.loads(line["costs"]) if isinstance(line["costs"], str) else line["costs"])}
        for r in d["endpoints"]:
            assert r["skip"] is None and r["total_s"] == pytest.approx(costs[r["name"]]["total"], abs=1e-4)
            parts = r["wait_s"] + 3 * r["prefill_s"] + r["others_s"] + r["kv_s"] + r["extra_s"] + r["lora_s"]
            assert r["total_s"] == pytest.approx(parts, rel=1e-3, abs=1e-6)
        real = d["real"]
        assert real["status"] == 200 and real["error"] is None and real["prompt_tokens"] == line["prompt_tokens"]
        assert 0 < real["ttft_s"] <= real["duration_s"] + 1e-6 and real["completion_tokens"] == 3 and d["expected"]["ttft_s"] > 0
    times = [d["time"] for d in decisions(c.gw)]
    assert times == sorted(times, reverse=True) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", times[0])


def test_expected_and_real_share_cached(cluster):
    """The second of two equal prompts: believed cached, and cached."""
    c = cluster(2, PREFIX, sim_options=("--time-scale", "10", "--enable-prompt-tokens-details"))
    text = "the very same words, over and over again; " * 200
    for i in range(2):
        assert c.chat(text).status == 200
        wait_for(lambda n=i + 1: len(ended(c.gw, n)) == n, 5, what="the decision")
    second, first = ended(c.gw, 2)
    assert first["expected"]["cached_share"] == 0 and first["matched_bytes"] == 0 and (first["real"]["cached_share"] or 0) < 0.1
    assert second["expected"]["cached_share"] > 0.8 and second["expected"]["cached_tokens"] > 1000
    assert second["real"]["cached_share"] > 0.8 and second["matched_bytes"] <= second["stream_bytes"]
    assert second["endpoint"] == first["endpoint"] and second["why"] == "prefix_holder"
    (chosen,) = [r for r in second["endpoints"] if r["chosen"]]
    (other,) = [r for r in second["endpoints"] if not r["chosen"]]
    assert chosen["cached_tokens"] > 1000 and other["cached_tokens"] == 0 and chosen["prefill_s"] < other["prefill_s"]


def test_filters_and_bad_values(cluster):
    c = cluster(2, sim_options=("--time-scale", "50"))
    for _ in range(12):
        assert c.chat().status == 200
    assert len(ended(c.gw, 12)) == 12
    pods = [d["endpoint"] for d in decisions(c.gw)]
    assert set(pods) == {"pod-0", "pod-1"}
    assert len(decisions(c.gw, "?endpoint=pod-0")) == pods.count("pod-0") == len(decisions(c.gw, f"?endpoint={c.sims['pod-0'].ip}:8000"))
    assert decisions(c.gw, "?endpoint=pod-9") == [] == decisions(c.gw, "?pool=other") == decisions(c.gw, "?request=unknown")
    assert len(decisions(c.gw, "?pool=pool")) == 12 and len(decisions(c.gw, "?n=5")) == 5
    assert decisions(c.gw, "?n=5") == decisions(c.gw)[:5]
    assert len(decisions(c.gw, "?endpoint=pod-0&n=1")) == 1
    for bad in ("?n=0", "?n=x", "?n=-1", "?n=1000000", "?format=xml"):
        answer = http("GET", c.gw.admin + "/debug/decisions" + bad)
        assert answer.status == 400 and bad[1:].split("=")[1] in answer.text, bad
    assert http("GET", c.gw.admin + "/debug/decisions?request=" + "x" * 2000).status == 400
    assert http("POST", c.gw.admin + "/debug/decisions", b"x").status == 405
    assert "/debug/decisions" in http("GET", c.gw.admin + "/").text


def test_refusals_queue_and_retries(cluster):
    """Who was refused, waited, or was tried twice: why, for how long, and each attempt by itself."""
    c = cluster(2, {f"{X}/queueing": "enabled", f"{ENV}/queue-ttl": "800ms"}, sim_options=("--time-scale", "1"))
    long_ = {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with Raw(c.ip, 8080, timeout=20) as held:
        held.send(post(CHAT, json.dumps(long_), headers=("x-request-id: held",)))
        assert held.head().status == 200
        (under_way,) = decisions(c.gw)
        assert under_way["outcome"] == "picked" and under_way["real"] is None
        for pod in c.sims:
            c.control(pod, "POST", "/metrics", {"waiting": 50, "running": 4})
        wait_for(lambda: all(e["full"] for e in c.endpoints().values()), 5, what="full servers")
        assert c.chat().status == 503
        with Raw(c.ip, 8080) as leaves:
            leaves.send(post(CHAT, json.dumps(long_), headers=("x-request-id: left",)))
            wait_for(lambda: c.pool()["queued"] == 1, 5, what="one that waits")
    refused = ended(c.gw, 3)[-2]
    assert refused["outcome"] == "rejected" and refused["why"] == "queue_timeout" and refused["endpoint"] is None and refused["expected"] is None
    assert 0.7 < refused["queued_s"] < 2 and {r["name"]: r["skip"] for r in refused["endpoints"]} == {"pod-0": "full", "pod-1": "full"}
    assert refused["real"]["status"] == 503 and refused["real"]["error"] == "queue_timeout" and refused["real"]["ttft_s"] is None
    (left,) = decisions(c.gw, "?request=left")
    assert left["outcome"] == "left_the_queue" and left["queued_s"] > 0 and left["real"]["status"] == 499
    (was_held,) = decisions(c.gw, "?request=held")
    assert was_held["real"]["error"] == "client_closed" and was_held["real"]["ttft_s"] > 0
    with_room = threading.Timer(0.3, lambda: [c.control(pod, "POST", "/metrics", {"waiting": None, "running": None}) for pod in c.sims])
    with_room.start()
    assert c.chat().status == 200
    with_room.join()
    waited = ended(c.gw, 4)[0]
    assert waited["outcome"] == "picked" and 0.1 < waited["queued_s"] < 0.8 and waited["endpoint"]

    c2 = cluster(2, sim_options=("--time-scale", "20"))
    c2.fault("pod-0", kind="reset")
    for i in range(8):
        http("POST", c2.url(), {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, {"x-request-id": f"again-{i}"})
    twice = [v for v in (decisions(c2.gw, f"?request=again-{i}") for i in range(8)) if len(v) == 2]
    assert twice, decisions(c2.gw)
    for second, first in twice:
        assert (first["attempt"], second["attempt"]) == (1, 2) and first["endpoint"] == "pod-0" and second["endpoint"] == "pod-1"
        assert first["real"]["status"] == 0 and first["real"]["error"] and second["real"]["status"] == 200
        assert {r["name"]: r["skip"] for r in second["endpoints"]}["pod-0"] in ("tried", "ejected")


def test_bounded(cluster):
    """Only the latest stay, long answers among them; --decisions 0 keeps none."""
    c = cluster(1, options=("--decisions", "20"), sim_options=("--time-scale", "50"))
    body = {"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20000, "ignore_eos": True, "stream": True}
    with Raw(c.ip, 8080, timeout=20) as r:
        r.send(post(CHAT, json.dumps(body), headers=("x-request-id: long",)))
        assert r.head().status == 200
        for _ in range(50):
            assert c.chat().status == 200
        assert len(decisions(c.gw, "?n=1000")) == 20 and decisions(c.gw, "?request=long") == []
    (d,) = wait_for(lambda: decisions(c.gw, "?request=long"), 5, what="the end of the long answer")
    assert d["endpoint"] == "pod-0" and d["real"]["error"] == "client_closed" and d["endpoints"][0]["chosen"]
    (pool,) = http("GET", c.gw.admin + "/debug/decisions").json()["pools"]
    assert pool["kept"] == 20 and pool["made"] >= 52
    none = cluster(1, options=("--decisions", "0"), sim_options=("--time-scale", "50"))
    assert none.chat().status == 200
    assert http("GET", none.gw.admin + "/debug/decisions").json() == {"pools": []}
    assert none.gw.handled(1)[0]["costs"], "the log does not depend on it"


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_page_for_browsers(cluster):
    """What a browser gets is a page; hostile names stay text."""
    c = cluster(2, PREFIX, sim_options=("--time-scale", "50"))
    hostile = '<script>alert("x")</script>\'><img src=x onerror=alert(1)>&amp;'
    http("POST", c.url(), {"model": hostile, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, {"x-request-id": "<b>bold</b>&\"'"})
    assert c.chat().status == 200
    ended(c.gw, 2)
    answer = http("GET", c.gw.admin + "/debug/decisions?request=%3Cb%3Ebold%3C%2Fb%3E%26%22%27", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"] and answer.headers["x-content-type-options"] == "nosniff"
    page = Page()
    page.feed(answer.text)
    assert not [t for t, _ in page.tags if t in ("script", "img", "b")] and not [a for _, a in page.tags if any(k.startswith("on") for k in a)]
    text = "".join(page.text)
    assert hostile in text and "<b>bold</b>&\"'" in text
    assert hostile not in answer.text and "<b>" not in answer.text
    links = [a["href"] for t, a in page.tags if t == "a"]
    assert "?request=%3Cb%3Ebold%3C%2Fb%3E%26%22%27" in links
    assert [a["value"] for t, a in page.tags if t == "input" and a["name"] == "request"] == ["<b>bold</b>&\"'"]
    all_ = http("GET", c.gw.admin + "/debug/decisions?format=html").text
    assert "pod-0" in all_ and "least_cost" in all_ or "tie_" in all_
    hostile_query = http("GET", c.gw.admin + "/debug/decisions?format=html&endpoint=%22%3E%3Cscript%3E", headers={"Accept": "text/html"}).text
    assert "<script" not in hostile_query
    assert http("GET", c.gw.admin + "/debug/decisions?format=json", headers={"Accept": "text/html"}).headers["content-type"] == "application/json"


def test_high_rate_is_sampled(cluster, release_binary):
    """More than 1000 in a second of a worker: one of 16 is explained; the others are served all the same."""
    c = cluster(1, options=("--workers", "1", "--time-scale", "0.05"), sim_options=("--time-scale", "100"), binary=release_binary)
    wire = post(CHAT, json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}))

    def go():
        with Raw(c.ip, 8080) as r:
            for _ in range(700):
                r.send(wire)
                assert r.answer("POST").status == 200

    threads = [threading.Thread(target=go) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (pool,) = http("GET", c.gw.admin + "/debug/decisions?n=1000").json()["pools"]
    assert 1000 <= pool["made"] < 2700, pool["made"]
    assert {d["one_of"] for d in pool["decisions"]} >= {16}
    lines = c.gw.handled(2800)
    assert sum("costs" in h for h in lines) < 2700
    time.sleep(0.1)
    c.gw.assert_idle()
