"""The simulated servers by themselves: the API, errors and metrics of each dialect, data parallel engines, and both halves of
prefill/decode pairs, driven as the real routers drive them."""
import http.client
import json
import socket
import threading
import time

import pytest

from conftest import Process, fresh_ip, http as ask, parse_metrics, wait_for

NIXL = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
OFFER = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None, "remote_host": None,
         "remote_port": None}
PROMPT = "A river runs under the old stone bridge. " * 20
ROOM = (1 << 62) + 1  # not a double


def metric(page, name, **labels):
    """Values of the series of this name with these labels."""
    return [v for n, l, v in parse_metrics(page) if n == name and all(l.get(k) == w for k, w in labels.items())]


def events(text):
    """The data of a stream's events; None for its end mark."""
    out = []
    for event in text.split("\n\n"):
        if event.startswith("data: "):
            out.append(None if event == "data: [DONE]" else json.loads(event[6:]))
    return out


def state(server):
    return ask("GET", server.control + "/sim/state").json()


def fault(server, **spec):
    assert ask("POST", server.control + "/sim/fault", spec).status == 200


NOW = ("alone", "computing", "ready", "moving", "partners_waiting", "wanting_memory", "fetching")


def assert_free(*servers, timeout=5):
    """Nobody holds or waits for anything, and all memory is free."""

    def free():
        states = [state(s) for s in servers]
        return all(not any(s["kv"][k] for k in NOW) and s["jobs"] == 0 and s["free_blocks"] == s["blocks"] for s in states)

    wait_for(free, timeout, what="nothing held: " + str([state(s)["kv"] for s in servers]))


class Leg(threading.Thread):
    """One request in a thread of its own; .answer is what came, or None when the connection broke."""

    def __init__(self, server, path, body):
        super().__init__(daemon=True)
        self.args, self.answer = (server.base + path, body), None
        self.start()

    def run(self):
        try:
            self.answer = ask("POST", *self.args, timeout=60)
        except (OSError, http.client.HTTPException):
            pass

    def get(self, timeout=30):
        self.join(timeout)
        assert not self.is_alive(), "no answer"
        return self.answer


class Client:
    """A request whose connection can be closed at will."""

    def __init__(self, server, path, body):
        data = json.dumps(body).encode()
        self.s = socket.create_connection((server.ip, server.port))
        self.s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                       + data)

    def close(self):
        self.s.close()


# ---- SGLang alone ----


@pytest.fixture
def sglang(sim):
    return lambda *options: sim("--dialect", "sglang", "--model-path", "/models/Qwen2.5-7B", "--served-model-name", "qwen", "--trust-remote-code",
                                *options)


def test_sglang_generate(sglang):
    s = sglang("--enable-metrics")
    one = ask("POST", s.base + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}, "rid": "r1"}).json()
    assert one["meta_info"]["id"] == "r1" and one["meta_info"]["finish_reason"] == {"type": "length", "length": 4}
    assert one["meta_info"]["completion_tokens"] == 4 == len(one["output_ids"]) and one["meta_info"]["cached_tokens"] == 0
    again = ask("POST", s.base + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}}).json()
    assert again["text"] == one["text"]
    assert again["meta_info"]["cached_tokens"] == again["meta_info"]["prompt_tokens"] - 1, "pages of one token"

    stream = events(ask("POST", s.base + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}, "stream": True}).text)
    assert stream[-1] is None and len(stream) == 5
    assert stream[3]["text"] == one["text"] and one["text"].startswith(stream[0]["text"]), "every event repeats the text so far"
    assert [e["meta_info"]["completion_tokens"] for e in stream[:4]] == [1, 2, 3, 4]
    assert stream[0]["meta_info"]["finish_reason"] is None and stream[3]["meta_info"]["finish_reason"]["type"] == "length"

    batch = ask("POST", s.base + "/generate", {"text": ["a b c", "d e f"], "sampling_params": [{"max_new_tokens": 2}, {"max_new_tokens": 3}]})
    assert [len(x["output_ids"]) for x in batch.json()] == [2, 3]
    ids = ask("POST", s.base + "/generate", {"input_ids": [[1, 2, 3]], "sampling_params": {"max_new_tokens": 2}}).json()
    assert ids[0]["meta_info"]["prompt_tokens"] == 3, "a list of one is a batch"
    assert ask("POST", s.base + "/generate", {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 2}}).json()["meta_info"]
    bad = ask("POST", s.base + "/generate", {"text": "x", "input_ids": [1]})
    assert bad.status == 400 and bad.json()["object"] == "error" and bad.json()["code"] == 400


def test_sglang_openai_and_information(sglang):
    s = sglang("--enable-cache-report", "--page-size", "16", "--max-running-requests", "8", "--context-length", "4096")
    body = {"model": "whatever", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3}
    first, second = (ask("POST", s.base + "/v1/chat/completions", body).json() for _ in range(2))
    assert first["model"] == "whatever" and first["usage"]["reasoning_tokens"] == 0 and "matched_stop" in first["choices"][0]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] % 16 == 0
    stream = events(ask("POST", s.base + "/v1/chat/completions", {**body, "stream": True, "stream_options": {}}).text)
    assert all(e["choices"] for e in stream[:-1]), "here the object alone asks for no usage"
    info = ask("GET", s.base + "/get_server_info").json()
    assert info == {**ask("GET", s.base + "/server_info").json(), "internal_states": info["internal_states"]}
    assert info["disaggregation_mode"] == "null" and info["page_size"] == 16 and info["context_length"] == 4096
    assert len(info["internal_states"]) == info["dp_size"] == 1
    assert ask("GET", s.base + "/v1/models").json()["data"][0]["owned_by"] == "sglang"
    assert ask("GET", s.base + "/health_generate").status == 200
    lists = ask("POST", s.base + "/tokenize", {"prompt": ["a b", "c"]}).json()
    assert lists["count"] == [2, 1] and len(lists["tokens"]) == 2
    missing = ask("GET", s.base + "/metrics")
    assert missing.status == 404 and missing.json()["object"] == "error", "only with --enable-metrics"
    assert ask("GET", s.base + "/v2/health/ready").status == 404 and ask("GET", s.base + "/version").status == 404


def test_sglang_metrics(sglang):
    s = sglang("--enable-metrics", "--kv-tokens", "4000")
    ask("POST", s.base + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}})
    ask("POST", s.base + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}})
    leg = Leg(s, "/generate", {"text": "x", "sampling_params": {"max_new_tokens": 60}})
    page = wait_for(lambda: (p := ask("GET", s.base + "/metrics").text) and metric(p, "sglang:num_running_reqs") == [1.0] and p, what="running")
    assert metric(page, "sglang:num_running_reqs", engine_type="unified", model_name="qwen", tp_rank="0", pp_rank="0", moe_ep_rank="0") == [1.0]
    assert "dp_rank" not in page
    assert metric(page, "sglang:num_queue_reqs") == [0.0] and 0 < metric(page, "sglang:token_usage")[0] < 0.02
    assert metric(page, "sglang:max_total_num_tokens") == [4000.0] == metric(page, "sglang:num_pages")
    assert metric(page, "sglang:page_size") == [1.0] and not metric(page, "sglang:cache_config_info")
    assert metric(page, "sglang:cached_tokens_total", cache_source="device")[0] > 100
    ttft = [l["le"] for n, l, _ in parse_metrics(page) if n == "sglang:time_to_first_token_seconds_bucket"]
    assert ttft[:3] == ["0.1", "0.2", "0.4"] and ttft[-2:] == ["400.0", "+Inf"]
    assert leg.get().status == 200
    old = sglang("--enable-metrics", "--metrics", "v0")
    page = ask("GET", old.base + "/metrics").text
    assert metric(page, "sglang:cache_config_info", page_size="1") == [1.0] and not metric(page, "sglang:page_size")


def test_sglang_full_queue(sglang):
    s = sglang("--max-queued-requests", "1", "--max-running-requests", "1")
    long = {"text": "x", "sampling_params": {"max_new_tokens": 60}}
    legs = [Leg(s, "/generate", long)]
    wait_for(lambda: state(s)["running"] == 1, what="running")
    legs.append(Leg(s, "/generate", long))
    wait_for(lambda: state(s)["waiting"] == 1, what="waiting")
    whole = ask("POST", s.base + "/generate", long)
    assert whole.status == 503 and whole.json()["message"] == "The request queue is full."
    for path, body in (("/generate", long), ("/v1/completions", {"prompt": "x", "max_tokens": 2})):
        streamed = ask("POST", s.base + path, {**body, "stream": True})
        assert streamed.status == 200, "the refusal is the first event"
        assert events(streamed.text)[0]["error"]["code"] == 503 and events(streamed.text)[1:] == [None]
    assert all(leg.get().status == 200 for leg in legs)


def test_sglang_lora(sglang):
    s = sglang("--lora-paths", "sql=/a/sql", "--max-loras-per-batch", "2")
    for body in ({"model": "qwen:sql"}, {"model": "qwen", "lora_path": "sql"}):
        assert ask("POST", s.base + "/v1/completions", {**body, "prompt": "x", "max_tokens": 2}).status == 200
    assert ask("POST", s.base + "/v1/completions", {"model": "qwen:other", "prompt": "x", "max_tokens": 2}).status == 400
    loaded = ask("POST", s.base + "/load_lora_adapter", {"lora_name": "law", "lora_path": "/a/law"}).json()
    assert loaded["success"] is True and loaded["loaded_adapters"]["law"] == "/a/law"
    assert ask("POST", s.base + "/generate", {"text": "x", "lora_path": "law", "sampling_params": {"max_new_tokens": 1}}).status == 200


def test_rerank_and_score(sim, sglang):
    s, g = sim("--model", "m"), sglang()
    body = {"model": "m", "query": "which river?", "documents": ["the Rhine", "a bridge", "the Rhine", "snow \" melts"]}
    whole = ask("POST", s.base + "/v1/rerank", body).json()
    assert sorted(r["index"] for r in whole["results"]) == [0, 1, 2, 3] and whole["usage"]["total_tokens"] > 12
    assert all(r["document"]["text"] == body["documents"][r["index"]] for r in whole["results"])
    scores = [r["relevance_score"] for r in whole["results"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    assert ask("POST", s.base + "/rerank", {**body, "top_n": 2}).json()["results"] == whole["results"][:2]
    assert [r["document"] for r in ask("POST", g.base + "/v1/rerank", body).json()][0] in body["documents"]
    pairs = {"model": "m", "text_1": "which river?", "text_2": ["the Rhine", "a bridge"]}
    assert [d["index"] for d in ask("POST", s.base + "/score", pairs).json()["data"]] == [0, 1]
    assert len(ask("POST", s.base + "/v1/score", {**pairs, "text_2": "one"}).json()["data"]) == 1
    for path, bad in (("/rerank", {**body, "documents": []}), ("/rerank", {**body, "query": None}), ("/score", {**pairs, "text_1": [1]})):
        assert ask("POST", s.base + path, bad).status == 400


# ---- data parallel ----


def test_engines_of_one_server(sim, sglang):
    s = sim("--model", "m", "--data-parallel-size", "3")
    body = {"model": "m", "prompt": PROMPT, "max_tokens": 60, "ignore_eos": True}
    legs = [Leg(s, "/v1/completions", body) for _ in range(6)]
    wait_for(lambda: metric(ask("GET", s.base + "/metrics").text, "vllm:num_requests_running") == [2.0] * 3, what="two requests on each engine")
    page = ask("GET", s.base + "/metrics").text
    assert {l["engine"] for n, l, _ in parse_metrics(page) if n == "vllm:cache_config_info"} == {"0", "1", "2"}
    assert len(metric(page, "vllm:time_to_first_token_seconds_count")) == 3
    assert page.count("# TYPE vllm:num_requests_running gauge") == 1
    assert all(leg.get().status == 200 for leg in legs)
    for _ in range(2):
        ask("POST", s.base + "/v1/completions", {**body, "max_tokens": 1}, {"X-data-parallel-rank": "2"})
    page = ask("GET", s.base + "/metrics").text
    assert metric(page, "vllm:request_success_total", engine="2", finished_reason="length") == [4.0]
    assert ask("POST", s.base + "/v1/completions", body, {"X-data-parallel-rank": "3"}).status == 400

    g = sglang("--dp-size", "2", "--enable-metrics")
    page = ask("GET", g.base + "/metrics").text
    assert {l["dp_rank"] for n, l, _ in parse_metrics(page) if n == "sglang:token_usage"} == {"0", "1"}
    assert len(ask("GET", g.base + "/server_info").json()["internal_states"]) == 2
    one = sim("--model", "m", "--data-parallel-size", "4", "--data-parallel-rank", "3", "--data-parallel-external-lb")
    page = ask("GET", one.base + "/metrics").text
    assert [l["engine"] for n, l, _ in parse_metrics(page) if n == "vllm:num_requests_running"] == ["3"]


# ---- Triton and trtllm-serve ----


@pytest.fixture
def triton(spawn):
    def start(*options, port=8000):
        ip = fresh_ip()
        p = spawn(Process, ["sim", "--dialect", "triton", "--host", ip, "--http-port", port, "--control", f"{ip}:9000", "--model-repository",
                            "/repo/qwen2.5-7b", *options])
        p.ip, p.port, p.base, p.control, p.page = ip, port, f"http://{ip}:{port}", f"http://{ip}:9000", f"http://{ip}:8002/metrics"
        p.wait_line("profile")
        return p

    return start


def test_triton(triton):
    s = triton()
    assert ask("GET", s.base + "/v2/health/ready").status == 200 and ask("GET", s.base + "/v2").json()["name"] == "triton"
    assert [m["name"] for m in ask("POST", s.base + "/v2/repository/index", {}).json()] == ["ensemble", "tensorrt_llm", "tensorrt_llm_bls"]
    assert ask("GET", s.base + "/v2/models/ensemble").json()["name"] == "ensemble"
    body = {"id": "42", "text_input": PROMPT, "max_tokens": 5}
    whole = ask("POST", s.base + "/v2/models/ensemble/generate", body).json()
    assert whole["id"] == "42" and whole["model_name"] == "ensemble" and len(whole["text_output"].split()) == 5
    streamed = ask("POST", s.base + "/v2/models/ensemble/versions/1/generate_stream", {**body, "stream": True})
    pieces = events(streamed.text)
    assert None not in pieces and "".join(p["text_output"] for p in pieces) == whole["text_output"], "no end mark"
    grown = events(ask("POST", s.base + "/v2/models/ensemble/generate_stream", {**body, "stream": True, "accumulate_tokens": True}).text)
    assert grown[-1]["text_output"] == whole["text_output"] and grown[1]["text_output"].startswith(grown[0]["text_output"])
    assert len(events(ask("POST", s.base + "/v2/models/ensemble/generate_stream", body).text)) == 1
    for path, status, data in (("/v2/models/none/generate", 404, body), ("/v2/models/ensemble/generate", 400, {**body, "stream": True}),
                               ("/v2/models/ensemble/generate", 400, {"text_input": "x"}), ("/v1/completions", 404, {"prompt": "x"})):
        answer = ask("POST", s.base + path, data)
        assert answer.status == status and isinstance(answer.json()["error"], str), path


def test_triton_metrics_show_steps(triton):
    s = triton()
    assert ask("GET", s.base + "/metrics").status == 404, "they have a port of their own"
    kinds = {k: metric(ask("GET", s.page).text, "nv_trt_llm_request_metrics", request_type=k, model="tensorrt_llm", version="1")
             for k in ("waiting", "scheduled", "active")}
    assert all(v == [0.0] for v in kinds.values())
    ask("POST", s.base + "/v2/models/ensemble/generate", {"text_input": PROMPT, "max_tokens": 3})
    wait_for(lambda: state(s)["running"] == 0, what="idle")
    page = ask("GET", s.page).text
    assert metric(page, "nv_trt_llm_request_metrics", request_type="scheduled") == [1.0], "an idle server keeps showing its last step"
    blocks = {k: metric(page, "nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type=k)[0] for k in ("used", "free", "max", "tokens_per")}
    assert blocks["used"] + blocks["free"] == blocks["max"] and blocks["tokens_per"] == 64
    ask("POST", s.control + "/sim/metrics", {"waiting": 7, "running": 3, "kv": 0.5})
    page = ask("GET", s.page).text
    assert metric(page, "nv_trt_llm_request_metrics", request_type="waiting") == [7.0]
    assert metric(page, "nv_trt_llm_request_metrics", request_type="active") == [10.0]
    assert metric(page, "nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="fraction") == [0.5]


def test_triton_metrics_port_goes_with_the_server(triton, binary):
    s = triton()
    fault(s, kind="hang", at="probe", duration_ms=400)
    began = time.monotonic()
    assert ask("GET", s.page).status == 200 and time.monotonic() - began > 0.3, "a hanging probe holds the page, too"
    other = Process(["sim", "--dialect", "triton", "--host", s.ip, "--port", "8100"], binary)
    assert other.proc.wait(10) == 1 and "metrics port: somebody already listens on" in "".join(other.lines)
    fault(s, kind="kill")
    with pytest.raises(OSError):
        wait_for(lambda: ask("GET", s.page) and False, 3)
    fault(s, kind="none")
    wait_for(lambda: state(s)["ready"], what="back")
    assert ask("GET", s.page).status == 200
    silent = triton("--allow-metrics=false", port=8200)
    with pytest.raises(OSError):
        ask("GET", silent.page)


def test_trtllm_serve(sim):
    s = sim("--dialect", "trtllm", "serve", "Llama-3.1-8B", "--tp_size", "2", "--max_batch_size", "32")
    assert ask("GET", s.base + "/metrics").json() == []
    assert ask("POST", s.base + "/v1/completions", {"model": "Llama-3.1-8B", "prompt": PROMPT, "max_tokens": 4}).status == 200
    steps = ask("GET", s.base + "/metrics").json()
    assert [x["iter"] for x in steps] == [0, 1, 2, 3] and steps[0]["inflightBatchingStats"]["numContextRequests"] == 1
    assert steps[-1]["numActiveRequests"] == 1 == steps[-1]["numCompletedRequests"] and steps[0]["maxNumActiveRequests"] == 32
    assert steps[0]["kvCacheStats"]["usedNumBlocks"] + steps[0]["kvCacheStats"]["freeNumBlocks"] == steps[0]["kvCacheStats"]["maxNumBlocks"]
    assert ask("GET", s.base + "/metrics").json() == [], "whoever asks takes them away"
    page = ask("GET", s.base + "/prometheus/metrics").text
    assert metric(page, "trtllm_num_requests_running", model_name="Llama-3.1-8B") == [1.0]
    assert metric(page, "trtllm_kv_cache_tokens_per_block") == [64.0]
    missing = ask("POST", s.base + "/v1/completions", {"model": "other", "prompt": "x"})
    assert missing.status == 404 and missing.json()["object"] == "error"


# ---- SGLang pairs ----


@pytest.fixture
def pair(sglang):
    def start(*options, prefill=(), decode=()):
        p = sglang("--disaggregation-mode", "prefill", "--enable-metrics", *options, *prefill)
        return p, sglang("--disaggregation-mode", "decode", "--enable-metrics", *options, *decode)

    return start


def room(p, number=ROOM, **body):
    return {"text": PROMPT, "sampling_params": {"max_new_tokens": 4}, "bootstrap_host": p.ip, "bootstrap_port": 8998, "bootstrap_room": number, **body}


@pytest.mark.parametrize("first", ["prefill", "decode", "together"])
def test_pair(pair, first):
    p, d = pair()
    body = room(p)
    legs = {}
    for name in {"prefill": ("p", "d"), "decode": ("d", "p"), "together": ("p", "d")}[first]:
        legs[name] = Leg({"p": p, "d": d}[name], "/generate", body)
        if first != "together" and len(legs) == 1:
            time.sleep(0.3)
            assert legs[name].is_alive(), "it waits for the other half"
    assert legs["p"].get().json()["meta_info"]["completion_tokens"] == 1
    answer = legs["d"].get().json()
    assert answer["meta_info"]["completion_tokens"] == 4 and answer["text"].startswith(legs["p"].answer.json()["text"])
    kv = state(p)["kv"], state(d)["kv"]
    assert kv[0]["moved"] == 1 == kv[1]["fetched"] and kv[0]["moved_bytes"] == answer["meta_info"]["prompt_tokens"] * 57344
    assert_free(p, d)
    assert metric(ask("GET", p.base + "/metrics").text, "sglang:kv_transfer_latency_ms_count", engine_type="prefill") == [1.0]


def test_pair_over_the_openai_api(pair):
    p, d = pair()
    body = {"model": "qwen", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5, "stream": True, "stream_options":
            {"include_usage": True}, "bootstrap_host": p.ip, "bootstrap_port": None, "bootstrap_room": 0}
    legs = [Leg(s, "/v1/chat/completions", body) for s in (p, d)]
    usage = [events(leg.get().text)[-2]["usage"]["completion_tokens"] for leg in legs]
    assert usage == [1, 5]
    assert_free(p, d)


def test_pair_answers_take_their_time(pair):
    """What moves is the prompt, over one link: 10^9 bit/s and 57344 bytes a token make 0.46 ms a token."""
    p, d = pair("--kv-transfer-gbps", "1", "--kv-transfer-latency-ms", "50")
    began = time.monotonic()
    legs = [Leg(s, "/generate", room(p)) for s in (p, d)]
    tokens = legs[1].get().json()["meta_info"]["prompt_tokens"]
    took = time.monotonic() - began
    assert took > tokens * 57344 * 8e-9 + 0.05
    assert state(d)["prefix_query_tokens"] == tokens and legs[0].get().status == 200


def test_pair_batches(pair):
    p, d = pair()
    batch = room(p, [17, ROOM], text=["a b c", "d e f"], bootstrap_host=[p.ip] * 2, bootstrap_port=[8998, 8998])
    legs = [Leg(s, "/generate", batch) for s in (p, d)]
    assert [len(x["output_ids"]) for x in legs[0].get().json()] == [1, 1] and [len(x["output_ids"]) for x in legs[1].get().json()] == [4, 4]
    several = room(p, [5, 6], text=None, prompt=["a b", "c d"], max_tokens=3, bootstrap_host=[p.ip] * 2, bootstrap_port=[8998] * 2)
    legs = [Leg(s, "/v1/completions", several) for s in (p, d)]
    assert len(legs[1].get().json()["choices"]) == 2 and legs[0].get().json()["usage"]["completion_tokens"] == 2
    two = room(p, 9, text=None, prompt="a b", n=2, max_tokens=3)
    legs = [Leg(s, "/v1/completions", two) for s in (p, d)]
    assert len(legs[1].get().json()["choices"]) == 2, "a single room counts up"
    wrong = ask("POST", p.base + "/generate", {**batch, "bootstrap_room": [17]})
    assert wrong.status == 400
    assert_free(p, d)


@pytest.mark.parametrize("number", [-1, 1 << 63, 1.5, "7"])
def test_pair_refuses_what_is_no_room(pair, number):
    p, d = pair()
    for s in (p, d):
        assert ask("POST", s.base + "/generate", room(p, number)).status == 400


def test_half_without_a_room(pair):
    p, d = pair()
    for s in (p, d):
        answer = ask("POST", s.base + "/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert answer.status == 500 and "to the router instead" in answer.json()["message"]
        assert ask("GET", s.base + "/health").status == 200 and ask("GET", s.base + "/health_generate").status == 200
    info = [ask("GET", s.base + "/server_info").json() for s in (p, d)]
    assert [i["disaggregation_mode"] for i in info] == ["prefill", "decode"] and info[0]["disaggregation_bootstrap_port"] == 8998


def test_half_that_waits_in_vain(pair):
    p, d = pair("--time-scale", "100")
    began = time.monotonic()
    legs = [Leg(p, "/generate", room(p, 1)), Leg(d, "/generate", room(p, 2)), Leg(d, "/generate", room(p, 3, stream=True))]
    time.sleep(0.5)
    assert all(leg.is_alive() for leg in legs) and state(p)["kv"]["alone"] == 1 and state(d)["kv"]["fetching"] == 2
    page = [ask("GET", s.base + "/metrics").text for s in (p, d)]
    assert metric(page[0], "sglang:num_prefill_bootstrap_queue_reqs") == [1.0] and metric(page[0], "sglang:num_queue_reqs") == [0.0]
    assert metric(page[1], "sglang:num_decode_transfer_queue_reqs") == [2.0]
    assert [leg.get().status for leg in legs] == [500, 500, 200]
    assert 2.5 < time.monotonic() - began < 10, "300 s of its clock"
    assert events(legs[2].answer.text)[0]["error"]["code"] == 500
    assert [state(s)["kv"]["never_met"] for s in (p, d)] == [1, 2]
    assert_free(p, d)


def test_prefill_server_that_is_not_there(pair, sglang):
    p, d = pair()
    gone = room(p, 4)
    gone["bootstrap_port"] = 1
    assert ask("POST", d.base + "/generate", gone).status == 500
    assert ask("POST", d.base + "/generate", {**gone, "bootstrap_host": "no-address"}).status == 400
    assert_free(d)


def test_halves_that_mean_different_prompts(pair):
    p, d = pair()
    legs = [Leg(p, "/generate", room(p)), Leg(d, "/generate", room(p, text=PROMPT + " more"))]
    assert [leg.get().status for leg in legs] == [500, 500]
    assert_free(p, d)


def test_room_in_use(pair):
    p, d = pair()
    legs = [Leg(p, "/generate", room(p)), Leg(d, "/generate", room(p, 8))]
    wait_for(lambda: state(p)["kv"]["alone"] == 1 and state(d)["kv"]["fetching"] == 1, what="waiting")
    assert ask("POST", p.base + "/generate", room(p)).status == 400
    assert ask("POST", d.base + "/generate", room(p, 8)).status == 400
    legs += [Leg(d, "/generate", room(p)), Leg(p, "/generate", room(p, 8))]
    assert [leg.get().status for leg in legs] == [200] * 4
    assert_free(p, d)


SLOW = {"sampling_params": {"max_new_tokens": 3000}, "text": PROMPT * 10}


@pytest.mark.parametrize("when", ["alone", "computing", "moving"])
@pytest.mark.parametrize("who", ["p", "d"])
def test_client_of_a_half_leaves(pair, who, when):
    """Its own half is free at once, and the other is told."""
    p, d = pair("--profile", "a10-qwen25-7b", "--kv-transfer-latency-ms", "3000" if when == "moving" else "2")
    servers = {"p": p, "d": d}
    if when == "computing":
        fault(p, kind="slow", factor=4)
    body = room(p, **SLOW)
    client = Client(servers[who], "/generate", body)
    other = None
    if when != "alone":
        other = Leg(servers["d" if who == "p" else "p"], "/generate", body)
        wait_for(lambda: state(p)["kv"][when] == 1, what=when)
    else:
        wait_for(lambda: state(p)["kv"]["alone"] + state(d)["kv"]["fetching"] == 1, what="waiting")
    client.close()
    if other:
        assert other.get(5).status == 500
    assert_free(p, d, timeout=2)
    fault(p, kind="none")
    legs = [Leg(s, "/generate", room(p)) for s in (p, d)]
    assert [leg.get().status for leg in legs] == [200, 200], "the same room can be used again"


@pytest.mark.parametrize("at", ["before", "after_body", "after_head", "mid_stream"])
@pytest.mark.parametrize("kind", ["reset", "garbage"])
@pytest.mark.parametrize("who", ["p", "d"])
def test_faults_of_a_half(pair, who, kind, at):
    """The half that breaks lets go of what it has; the other, whose client leaves, too."""
    p, d = pair()
    broken, healthy = (p, d) if who == "p" else (d, p)
    fault(broken, kind=kind, at=at, count=1, after_tokens=1)
    body = room(p, stream=True)
    client = Client(healthy, "/generate", body)
    leg = Leg(broken, "/generate", body)
    leg.join(10)
    assert not leg.is_alive()
    client.close()
    assert_free(p, d)
    legs = [Leg(s, "/generate", room(p)) for s in (p, d)]
    assert [x.get().status for x in legs] == [200, 200]


@pytest.mark.parametrize("who", ["p", "d"])
def test_a_half_dies(pair, who):
    p, d = pair("--kv-transfer-latency-ms", "5000")
    dead, alive = (p, d) if who == "p" else (d, p)
    legs = [Leg(s, "/generate", room(p)) for s in (alive, dead)]
    wait_for(lambda: state(p)["kv"]["moving"] == 1, what="moving")
    fault(dead, kind="kill")
    assert legs[0].get(5).status == 500 and legs[1].get(5) is None
    assert_free(alive)
    if who == "p":
        assert ask("POST", d.base + "/generate", room(p, 5)).status == 500, "its bootstrap port is closed"
    fault(dead, kind="none")
    wait_for(lambda: state(dead)["ready"], what="back")
    legs = [Leg(s, "/generate", room(p, 6)) for s in (p, d)]
    assert [leg.get().status for leg in legs] == [200, 200]


@pytest.mark.parametrize("who", ["p", "d"])
def test_a_half_hangs(pair, who):
    p, d = pair()
    slow = p if who == "p" else d
    fault(slow, kind="hang")
    legs = [Leg(s, "/generate", room(p)) for s in (p, d)]
    time.sleep(0.5)
    assert all(leg.is_alive() for leg in legs)
    fault(slow, kind="none")
    assert [leg.get().status for leg in legs] == [200, 200]
    legs = [Leg(s, "/generate", room(p, 3, sampling_params={"max_new_tokens": 60})) for s in (p, d)]
    wait_for(lambda: state(d)["running"] == 1, what="decoding")
    fault(slow, kind="hang", duration_ms=300)
    assert [leg.get().status for leg in legs] == [200, 200]
    assert_free(p, d)


def test_pair_of_data_parallel_servers(pair):
    p, d = pair("--dp-size", "2")
    legs = [Leg(s, "/generate", room(p, n)) for n in (2, 3) for s in (p, d)]
    answers = [leg.get().json()["meta_info"]["dp_rank"] for leg in legs]
    assert answers == [0, 0, 1, 1], "both halves take room % dp_size"
    legs = [Leg(p, "/generate", room(p, 4, routed_dp_rank=1)), Leg(d, "/generate", room(p, 4, routed_dp_rank=0, disagg_prefill_dp_rank=1))]
    assert [leg.get().json()["meta_info"]["dp_rank"] for leg in legs] == [1, 0]
    assert_free(p, d)


def test_decode_waits_for_memory(pair):
    """The decode half asks when it can take the prompt; until then the prefill half does not begin."""
    p, d = pair("--context-length", "1000", prefill=("--kv-tokens", "8000"), decode=("--kv-tokens", "1000"))
    long = {"text": "x " * 600, "sampling_params": {"max_new_tokens": 60}}
    first = [Leg(s, "/generate", room(p, 1, **long)) for s in (d, p)]
    wait_for(lambda: state(d)["running"] == 1, what="decoding")
    second = [Leg(s, "/generate", room(p, 2, **{**long, "text": "y " * 600})) for s in (d, p)]
    wait_for(lambda: state(p)["kv"]["alone"] == 1 and state(d)["kv"]["wanting_memory"] == 1, what="waiting for memory")
    page = ask("GET", d.base + "/metrics").text
    assert metric(page, "sglang:num_decode_prealloc_queue_reqs") == [1.0]
    assert [leg.get().status for leg in first + second] == [200] * 4
    assert_free(p, d)


def test_bootstrap_port_is_asked_for_anything(pair):
    p, d = pair()
    port = f"http://{p.ip}:8998"
    assert ask("GET", port + "/kv").status == 404 == ask("POST", port + "/other", {}).status
    good = {"room": 1, "rank": 0, "tokens": 5, "key": 7}
    for change in ({"room": -1}, {"room": None}, {"tokens": None}, {"key": "x"}, {"rank": 1.5}, {"request_id": "a"}):
        assert ask("POST", port + "/kv", {**good, **change}).status == 400, change
    assert ask("POST", port + "/kv", "[]").status == 400 == ask("POST", port + "/kv", "{").status
    waiting = Leg(type("Side", (), {"base": port}), "/kv", good)
    wait_for(lambda: state(p)["kv"]["partners_waiting"] == 1, what="parked")
    assert ask("POST", port + "/kv", good).status == 409
    assert ask("POST", p.base + "/generate", room(p, 1)).status == 500, "its prompt is another one"
    assert waiting.get().status == 409
    assert ask("POST", port + "/kv", {"request_id": "x", "engine_id": "y", "tokens": 1, "key": 1}).status == 404
    assert_free(p, d)


def test_bootstrap_port_is_taken(pair, binary):
    p, _ = pair()
    other = Process(["sim", "--dialect", "sglang", "--host", p.ip, "--port", "8100", "--disaggregation-mode", "prefill"], binary)
    assert other.proc.wait(10) == 1 and "bootstrap port: somebody already listens on" in "".join(other.lines)


# ---- vLLM with NIXL ----


@pytest.fixture
def nixl(sim):
    return lambda *options, config=NIXL: sim("--model", "m", "--enable-prompt-tokens-details", "--kv-transfer-config", config, *options)


BODY = {"model": "m", "prompt": PROMPT, "max_tokens": 5}


def offered(server, **body):
    answer = ask("POST", server.base + "/v1/completions", {**BODY, **body, "max_tokens": 1, "stream": False, "kv_transfer_params": OFFER})
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] == 1
    return answer.json()["kv_transfer_params"]


def test_nixl(nixl):
    p, d = nixl(), nixl()
    params = offered(p)
    assert params["do_remote_prefill"] is True and params["do_remote_decode"] is False and params["remote_host"] == p.ip
    assert params["remote_port"] == 5600 and len(params["remote_block_ids"]) == 1 and params["tp_size"] == 1
    held = state(p)
    assert held["kv"]["ready"] == 1 and held["blocks"] - held["free_blocks"] == len(params["remote_block_ids"][0])
    answer = ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).json()
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5 and usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]
    assert answer["kv_transfer_params"] is None
    assert state(d)["kv"]["fetched"] == 1 and state(d)["kv"]["computed_here"] == 0
    assert_free(p, d)
    plain = ask("POST", p.base + "/v1/completions", BODY).json()
    assert plain["choices"][0]["text"] == answer["choices"][0]["text"], "each of them serves alone, too"
    chat = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_completion_tokens": 1, "kv_transfer_params": OFFER}
    params = ask("POST", p.base + "/v1/chat/completions", chat).json()["kv_transfer_params"]
    stream = events(ask("POST", d.base + "/v1/chat/completions", {**chat, "max_completion_tokens": 3, "stream": True, "n": 2,
                                                                   "kv_transfer_params": params}).text)
    assert stream[-1] is None and {e["choices"][0]["index"] for e in stream[:-1]} == {0, 1}
    assert_free(p, d)


def test_nixl_prompt_that_cannot_be_fetched(nixl):
    p, d = nixl(), nixl()
    params = offered(p)
    assert ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).status == 200
    again = ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params})
    assert again.status == 500 and again.json()["error"]["code"] == 500, "it was fetched already"
    streamed = ask("POST", d.base + "/v1/completions", {**BODY, "stream": True, "kv_transfer_params": params})
    assert streamed.status == 200 and events(streamed.text)[0]["error"]["code"] == 500 and events(streamed.text)[1] is None
    params = offered(p)
    other = ask("POST", d.base + "/v1/completions", {**BODY, "prompt": "another", "kv_transfer_params": params})
    assert other.status == 500, "that is not its prompt"
    fault(p, kind="kill")
    assert ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).status == 500
    fault(p, kind="none")
    wait_for(lambda: state(p)["ready"], what="back")
    assert ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).status == 500, "a new process knows nothing of it"
    assert_free(p, d)
    kind = nixl(config=NIXL[:-1] + ',"kv_load_failure_policy":"recompute"}')
    assert ask("POST", kind.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).status == 200
    assert state(kind)["kv"]["computed_here"] == 1


@pytest.mark.parametrize("missing", ["remote_engine_id", "remote_host", "remote_port", "remote_request_id", "remote_block_ids"])
def test_nixl_incomplete_parameters(nixl, missing):
    p, d = nixl("--kv-lease-ms", "500"), nixl()
    params = {k: v for k, v in offered(p).items() if k != missing}
    assert ask("POST", d.base + "/v1/completions", {**BODY, "kv_transfer_params": params}).status == 200
    assert state(d)["kv"]["computed_here"] == 1
    d.wait_line("do not say where its prompt lies")
    assert_free(p)
    assert state(p)["kv"]["expired"] == 1


def test_nixl_lease(nixl):
    p = nixl("--time-scale", "100", config=NIXL[:-1] + ',"kv_connector_extra_config":{"kv_lease_duration":100}}')
    offered(p)
    assert state(p)["kv"]["ready"] == 1
    assert_free(p, timeout=3)
    assert state(p)["kv"]["expired"] == 1


def test_nixl_prompts_fill_the_cache_until_fetched(nixl):
    """A prefill server whose prompts nobody fetches can take no more."""
    p, d = nixl("--num-gpu-blocks-override", "40", "--max-model-len", "640"), nixl()
    first = offered(p, prompt="x " * 400)
    leg = Leg(p, "/v1/completions", {**BODY, "prompt": "y " * 400, "max_tokens": 1})
    time.sleep(0.5)
    assert leg.is_alive() and state(p)["waiting"] == 1 and metric(ask("GET", p.base + "/metrics").text, "vllm:kv_cache_usage_perc")[0] > 0.5
    assert ask("POST", d.base + "/v1/completions", {**BODY, "prompt": "x " * 400, "kv_transfer_params": first}).status == 200
    assert leg.get(5).status == 200
    assert_free(p, d)


def test_nixl_client_leaves_while_its_prompt_moves(nixl):
    p, d = nixl("--kv-transfer-latency-ms", "5000"), nixl()
    params = offered(p)
    client = Client(d, "/v1/completions", {**BODY, "kv_transfer_params": params})
    wait_for(lambda: state(p)["kv"]["moving"] == 1, what="moving")
    page = ask("GET", d.base + "/metrics").text
    assert metric(page, "vllm:num_requests_waiting") == [1.0] == metric(page, "vllm:num_requests_waiting_by_reason", reason="deferred")
    client.close()
    assert_free(d)
    wait_for(lambda: state(p)["kv"]["ready"] == 1, what="held for another attempt")


def test_nixl_prefill_that_is_aborted_hands_over_nothing(nixl):
    p = nixl()
    fault(p, kind="slow", factor=20)
    client = Client(p, "/v1/completions", {**BODY, "prompt": PROMPT * 10, "max_tokens": 1, "kv_transfer_params": OFFER})
    wait_for(lambda: state(p)["running"] == 1, what="computing")
    client.close()
    assert_free(p)
