"""/debug/decisions: every decision with its reasons, and what came of it."""
import html.parser
import json
import re
import threading
import time

import pytest

import manifests
from conftest import http, wait_for
from manifests import ENV, X
from rawhttp import Raw, post
from resources import chat_body
from split import canned, labels, long_text, policy, split, world  # noqa: F401

CHAT = "/v1/chat/completions"
PREFIX = {f"{X}/routing-strategy": "PREFIX_CACHE"}


def decisions(gw, query=""):
    answer = http("GET", gw.admin + "/debug/decisions" + query)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json", answer.text
    return [d for p in answer.json()["pools"] for d in p["decisions"]]


def ended(gw, n, query=""):
    """Decisions once at least n of them have an end."""
    return wait_for(lambda: (lambda v: v if sum(d["real"] is not None for d in v) >= n else None)(decisions(gw, query)), 5, what=f"{n} ended decisions")


def parts(row):
    """What the cost of an endpoint is made of."""
    return row["wait_s"] + 3 * row["prefill_s"] + sum(row[k] for k in ("others_s", "kv_s", "extra_s", "lora_s", "transfer_s", "answer_s"))


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
            assert r["total_s"] == pytest.approx(parts(r), rel=1e-3, abs=1e-6) and r["transfer_s"] == r["answer_s"] == 0
        assert d["prefill"] is None and "prefill" not in line and "prefill_costs" not in line, "its pool is not split"
        real = d["real"]
        assert real["status"] == 200 and real["error"] is None and real["prefill_s"] is None and real["prompt_tokens"] == line["prompt_tokens"]
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


def page(gw, query=""):
    p = Page()
    answer = http("GET", gw.admin + "/debug/decisions?format=html" + query)
    assert answer.status == 200
    p.feed(answer.text)
    return p


def listed(costs):
    return {k["name"]: k for k in (json.loads(costs) if isinstance(costs, str) else costs)}


@pytest.mark.parametrize("mode", ["nixl", "bootstrap"])
def test_both_parts_of_a_split_request(split, mode):  # noqa: F811
    """Where the prefill went and why, what both ways would have cost, how long it took; log, page and filters know both pods."""
    s = split(mode, scale=5)
    for i in range(8):
        assert s.chat(long_text(i), stream=bool(i % 2), headers={"x-request-id": f"both-{i}"}).status == 200
    lines = {h["request_id"]: h for h in s.gw.handled(8)}
    assert len(ended(s.gw, 8)) == 8
    for i in range(8):
        (d,) = decisions(s.gw, f"?request=both-{i}")
        leg, line, real = d["prefill"], lines[f"both-{i}"], d["real"]
        assert leg["where"] == "elsewhere" == line["prefill"] and d["endpoint"].startswith("decode-") and leg["endpoint"].startswith("prefill-")
        assert (leg["endpoint"], leg["address"], leg["why"]) == (line["prefill_pod"], line["prefill_address"], line["prefill_reason"]) and leg["why"]
        assert (d["endpoint"], d["why"]) == (line["pod"], line["reason"])
        assert {r["name"] for r in leg["endpoints"]} == set(s.role("prefill")) and {r["name"] for r in d["endpoints"]} == set(s.role("decode"))
        assert leg["candidates"] == leg["endpoints_total"] == 2 == d["candidates"]
        (pre,) = [r for r in leg["endpoints"] if r["chosen"]]
        (dec,) = [r for r in d["endpoints"] if r["chosen"]]
        assert pre["name"] == leg["endpoint"] and dec["name"] == d["endpoint"]
        assert d["expected"]["cost_s"] == pytest.approx(pre["total_s"] + dec["total_s"], rel=1e-3) and 0 < leg["cost_s"] < d["expected"]["cost_s"]
        assert leg["split_s"] <= d["expected"]["cost_s"] * 1.001 and dec["transfer_s"] > 0 == dec["prefill_s"]
        for r in (*leg["endpoints"], *d["endpoints"]):
            assert r["total_s"] == pytest.approx(parts(r), rel=1e-3, abs=1e-6), r
        if mode == "nixl":
            assert leg["split_s"] < leg["local_s"] and line["split_s"] == pytest.approx(leg["split_s"], abs=1e-4) and line["local_s"] > line["split_s"]
        else:  # the decode endpoint could not have done it
            assert leg["local_s"] is None and "local_s" not in line and "split_s" not in line
        told = listed(line["prefill_costs"])
        assert set(told) == set(s.role("prefill")) and told[leg["endpoint"]]["total"] == pytest.approx(pre["total_s"], abs=1e-4)
        assert set(listed(line["costs"])) == set(s.role("decode")) and listed(line["costs"])[d["endpoint"]]["transfer"] > 0
        assert real["status"] == 200 and 0 < real["prefill_s"] <= real["duration_s"] and real["prefill_error"] is None
        assert line["prefill_ms"] == pytest.approx(real["prefill_s"] * 1000, abs=0.01) and "prefill_error" not in line
    all_ = decisions(s.gw)
    for pod in s.w.servers:
        mine = [d for d in all_ if pod in (d["endpoint"], d["prefill"]["endpoint"])]
        assert mine and decisions(s.gw, f"?endpoint={pod}") == mine == decisions(s.gw, f"?endpoint={s.w.servers[pod].ip}:8000")
    p = page(s.gw, "&request=both-3")
    (d,) = decisions(s.gw, "?request=both-3")
    links = [a["href"] for t, a in p.tags if t == "a"]
    assert f"?endpoint={d['endpoint']}" in links and f"?endpoint={d['prefill']['endpoint']}" in links
    text = "".join(p.text)
    assert "Prefill elsewhere. Costs that were compared: elsewhere" in text and ("not possible" in text) == (mode == "bootstrap")
    assert all(pod in text for pod in s.w.servers) and "that decode" in text and "transfer" in text and "prefill ms" in text


def test_prefill_here_in_decisions(split):  # noqa: F811
    """A prompt that is not worth a hand-over: what it would have cost elsewhere stands beside."""
    s = split("nixl", scale=5)
    for name in s.role("decode"):
        s.w.fix_metrics(name, running=0)
    answer = s.chat("hi")
    assert answer.status == 200
    (d,) = ended(s.gw, 1)
    leg, line = d["prefill"], s.line(answer)
    assert leg["where"] == "here" == line["prefill"] and leg["endpoint"] is None and leg["why"] is None and leg["cost_s"] is None
    assert leg["local_s"] <= leg["split_s"] and line["local_s"] <= line["split_s"] and {r["name"] for r in leg["endpoints"]} == set(s.role("prefill"))
    assert not [r for r in leg["endpoints"] if r["chosen"]] and d["real"]["prefill_s"] is None and "prefill_pod" not in line
    assert "prefill here" in "".join(page(s.gw).text)


def test_prefill_that_failed_in_decisions(split):  # noqa: F811
    """vLLM: the decode endpoint took over; SGLang: another pair did, as an attempt of its own."""
    s = split("nixl", scale=5)
    s.fault(*s.role("prefill"), kind="reset")
    answer = s.chat()
    assert answer.status == 200
    (d,) = ended(s.gw, 1)
    line = s.line(answer)
    assert d["prefill"]["where"] == "elsewhere" and d["prefill"]["endpoint"] == line["prefill_pod"], "where it was sent"
    assert d["real"]["status"] == 200 and d["real"]["prefill_error"] == line["prefill_error"] and d["real"]["prefill_error"].startswith("prefill_")
    assert line["prefill"] == "here" and d["real"]["prefill_s"] is None, "where it was done"
    text = "".join(page(s.gw, f"&request={answer.headers['x-request-id']}").text)
    assert "(failed)" in text and line["prefill_error"] in text


def test_pair_that_failed_in_decisions(split):  # noqa: F811
    s = split("bootstrap", scale=5)
    s.fault("prefill-0", kind="reset")
    for i in range(8):
        assert s.chat(long_text(i), headers={"x-request-id": f"pair-{i}"}).status == 200
    twice = [v for v in (decisions(s.gw, f"?request=pair-{i}") for i in range(8)) if len(v) == 2]
    assert twice, decisions(s.gw)
    for second, first in twice:
        assert (first["attempt"], second["attempt"]) == (1, 2) and first["prefill"]["endpoint"] == "prefill-0" != second["prefill"]["endpoint"]
        assert first["real"]["status"] == 0 and first["real"]["error"] == "prefill_failed" and first["real"]["prefill_error"].startswith("prefill_")
        assert second["real"]["status"] == 200 and second["real"]["prefill_error"] is None
        assert {r["name"]: r["skip"] for r in second["prefill"]["endpoints"]}["prefill-0"] in ("tried", "ejected")


def test_prefill_that_refuses_in_decisions(world, canned):  # noqa: F811
    """What is wrong with a request is the prefill's answer; the decision, also one that has to take a new place, still tells who was to decode."""
    bad = b'{"error":{"message":"no"}}'
    refuses = [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(bad) + bad]
    world.servers = {"prefill-0": canned(refuses, gap=1.0), "decode-0": canned([b""])}  # the decode waits for the prefill
    world.labels = {name: labels(name[:-2]) for name in world.servers}
    world.start(manifests.pool(), manifests.route(), policy("sglang"), options=("--decisions", "1"))
    wait_for(lambda: {e["state"] for e in world.endpoints().values()} <= {"ready", "slow start"}, 5, what="both endpoints")
    statuses = []
    slow = threading.Thread(target=lambda: statuses.append(http("POST", world.url(), chat_body(), {"x-request-id": "refused"}).status))
    slow.start()
    wait_for(lambda: world.endpoints()["prefill-0"]["inflight"] == 1, 5, what="the request under way")
    with Raw(world.gw.ip, 8080) as other:
        other.send(post("/v1/embeddings", json.dumps({"model": "qwen", "input": "x"})))
        wait_for(lambda: world.endpoints()["decode-0"]["inflight"] == 2, 5, what="another request")
    assert decisions(world.gw, "?request=refused") == [], "its place was taken"
    slow.join()
    (d,) = wait_for(lambda: decisions(world.gw, "?request=refused"), 5, what="the decision")
    assert statuses == [400] and d["endpoint"] == "decode-0" and d["prefill"]["endpoint"] == "prefill-0" and d["real"]["status"] == 400
    assert d["real"]["prefill_s"] is None and [r["chosen"] for r in d["endpoints"]] == [True]


def test_no_prefill_endpoint_in_decisions(split):  # noqa: F811
    s = split("bootstrap", prefill=0, decode=1)
    answer = s.chat(headers={"x-request-id": "nobody"})
    assert answer.status == 503 and answer.json()["error"]["code"] == "no_prefill_endpoint"
    assert s.gw.handled(1)[0]["request_id"] == "nobody"
    (d,) = decisions(s.gw, "?request=nobody")
    assert d["outcome"] == "rejected" and d["why"] == "no_prefill_endpoint" and d["endpoint"] is None and d["real"]["error"] == "no_prefill_endpoint"
    assert [r["name"] for r in d["endpoints"]] == ["decode-0"]


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
