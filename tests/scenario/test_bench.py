"""`penstock bench` against simulated servers: what it counts is what they served, failures have their kinds, times are theirs."""
import collections
import http.server
import json
import re
import resource
import signal
import subprocess
import threading
import time

import pytest

import conftest
from conftest import Process, fresh_ip, parse_metrics, wait_for

SIM = ("--model", "/models/qwen", "--served-model-name", "qwen", "--pod-name", "pod-0", "--profile", "h100-qwen3-32b")


@pytest.fixture
def server(sim, release_binary):
    def start(*options, **kw):
        return sim(*SIM, *options, binary=kw.pop("binary", release_binary), **kw)

    return start


class Run:
    def __init__(self, done, result):
        self.code, self.out, self.err, self.json = done.returncode, done.stdout, done.stderr, result


@pytest.fixture
def bench(binary, tmp_path):
    """bench(option...) -> Run; .json is the saved result with details, None when there is none."""

    def run(*options, save=True, **kw):
        path = tmp_path / "result.json"
        path.unlink(missing_ok=True)
        more = ["--save-result", "--save-detailed", "--result-dir", str(tmp_path), "--result-filename", "result.json"] if save else []
        done = subprocess.run([str(binary), "bench", *map(str, options), *more], capture_output=True, text=True, timeout=120, **kw)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        return Run(done, json.loads(path.read_text()) if path.exists() else None)

    return run


def fault(server, **spec):
    answer = conftest.http("POST", server.control + "/sim/fault", spec)
    assert answer.status == 200, answer.text


def bodies(server):
    return [json.loads(r["body"]) for r in conftest.http("GET", server.control + "/sim/requests").json()["requests"]]


def counter(server, name, **labels):
    return sum(v for n, l, v in parse_metrics(conftest.http("GET", server.base + "/metrics").text) if n == name and all(l.get(k) == w for k, w in labels.items()))


def at_once(d):
    """Largest number of requests under way, from the details."""
    edges = sorted([(s, 1) for s in d["start_times"]] + [(s + l, -1) for s, l in zip(d["start_times"], d["latencies"])])
    now = top = 0
    for _, step in edges:
        now += step
        top = max(top, now)
    return top


def test_counts_are_the_servers(server, bench):
    s = server()
    r = bench("--backend", "vllm", "--base-url", s.base, "--model", "/models/qwen", "--served-model-name", "qwen", "--trust-remote-code", "--dataset-name", "random",
              "--random-prefix-len", 10, "--random-input-len", 155, "--random-output-len", 18, "--random-range-ratio", 0.2, "--num-prompts", 120,
              "--max-concurrency", 20, "--endpoint", "/v1/completions", "--percentile-metrics", "ttft,tpot,itl,e2el", "--per-pod", "--num-warmups", 3)
    assert r.code == 0, r.err
    d = r.json
    assert d["completed"] == 120 and d["failed"] == 0 and d["errors_by_kind"] == {}
    assert d["model_id"] == "/models/qwen" and d["max_concurrency"] == 20 and d["request_rate"] == "inf"
    assert counter(s, "vllm:request_success_total") == 123
    asked = bodies(s)
    assert {b["model"] for b in asked} == {"qwen"}
    counted = asked[3:]  # behind the warm-up: it is not in the figures
    assert counter(s, "vllm:generation_tokens_total") - sum(b["max_tokens"] for b in asked[:3]) == d["total_output_tokens"] == sum(b["max_tokens"] for b in counted)
    assert sum(d["input_lens"]) == d["total_input_tokens"] == sum(len(b["prompt"].split()) for b in counted)
    assert all(134 <= n <= 196 for n in d["input_lens"])
    prefix = {" ".join(b["prompt"].split()[:10]) for b in asked}
    assert len(prefix) == 1
    assert 15 < at_once(d) <= 20
    assert all(len(i) == n - 1 for i, n in zip(d["itls"], d["output_lens"]))
    for i in range(120):
        assert abs(d["ttfts"][i] + sum(d["itls"][i]) - d["latencies"][i]) < 1e-3
    assert d["per_pod"] == [{"pod": "pod-0", "completed": 120, "output_tokens": d["total_output_tokens"]}]
    assert d["start_times"] == sorted(d["start_times"]) and max(d["start_times"]) < d["duration"]
    assert "Successful requests:                     120       \n" in r.out
    assert "--trust-remote-code has no effect" in r.err
    assert "120/120" in r.err and "\r" not in r.err  # plain lines: stderr is no terminal


def test_headers_and_ids(server, bench):
    s = server()
    r = bench("--base-url", s.base, "--num-prompts", 20, "--random-input-len", 20, "--random-output-len", 3, "--disable-tqdm", "--request-id-prefix", "mine-",
              "--header", "X-One=1", "X-Two=a=b")
    assert r.code == 0 and r.json["completed"] == 20
    seen = conftest.http("GET", s.control + "/sim/requests").json()["requests"]
    assert sorted(q["headers"]["x-request-id"] for q in seen) == sorted(f"mine-{i}" for i in range(20))
    assert all(q["headers"]["x-one"] == "1" and q["headers"]["x-two"] == "a=b" for q in seen)
    assert "/20" not in r.err  # --disable-tqdm


def test_failures_by_kind(server, bench):
    s = server()
    base = ("--base-url", s.base, "--model", "qwen", "--max-concurrency", 4, "--random-input-len", 20, "--random-output-len", 8, "--num-prompts", 12)
    fault(s, kind="status", status=429, count=5)
    r = bench(*base)
    assert r.code == 0 and r.json["completed"] == 7 and r.json["failed"] == 5
    (kind,) = r.json["errors_by_kind"]
    assert kind.startswith("HTTP 429 ") and r.json["errors_by_kind"][kind] == 5
    assert kind in r.out and r.json["http_statuses"].count(429) == 5

    fault(s, kind="reset", at="mid_stream", count=3)
    r = bench(*base)
    assert r.json["completed"] == 9 and r.json["errors_by_kind"] == {"answer cut off": 3}
    assert r.json["total_output_tokens"] == 9 * 8, "tokens of failed requests do not count"

    fault(s, kind="status", status=500, at="mid_stream", count=2)
    r = bench(*base)
    assert r.json["completed"] == 10 and sum(r.json["errors_by_kind"].values()) == 2
    assert all(k.startswith("error event: ") for k in r.json["errors_by_kind"])

    fault(s, kind="garbage", count=2)
    r = bench(*base)
    assert r.json["completed"] == 10 and r.json["errors_by_kind"] == {"the answer is no HTTP": 2}

    fault(s, kind="reset", at="after_body", count=12)
    r = bench(*base)
    assert r.code == 1 and r.json["completed"] == 0 and "no request completed" in r.err
    assert set(r.json["errors_by_kind"]) <= {"connection reset before an answer", "connection closed before an answer"}

    fault(s, kind="hang", duration_ms=60000)
    r = bench(*base[2:], "--host", s.ip, "--port", 8000, "--request-timeout", "1500ms")
    assert r.code == 1 and r.json is None and "did not answer in time" in r.err


def test_requests_that_take_too_long(server, bench):
    s = server()
    fault(s, kind="slow", factor=1000)
    r = bench("--base-url", s.base, "--model", "qwen", "--request-timeout", "1s", "--num-prompts", 3, "--random-input-len", 2000)
    assert r.code == 1 and r.json["errors_by_kind"] == {"timeout": 3}
    assert 0.9 < r.json["duration"] < 2


def event(text, **more):
    return f"data: {json.dumps({'choices': [{'text': text}], **more})}\n\n"


class Canned:
    """A server that answers /NAME/v1/completions with answers[NAME], in pieces of 7 bytes; hang_up: ends each connection after one answer, unannounced."""

    def __init__(self, answers, hang_up=False):
        self.connections = self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def do_GET(self):
                self.send_error(404)

            def do_POST(self):
                outer.requests += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                text = answers[self.path.split("/")[1]].encode()
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for i in range(0, len(text), 7):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(text[i:i + 7]), text[i:i + 7]))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
                self.close_connection = hang_up

            def log_message(self, *a):
                pass

        self.base = f"http://{fresh_ip()}:8000"
        self.httpd = http.server.ThreadingHTTPServer((self.base[7:-5], 8000), Handler)
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.httpd.shutdown()
        self.httpd.server_close()


def test_what_a_stream_must_be(bench):
    """An answer without an event, a whole document instead of a stream, events that are no JSON, usage that is missing, a stream without [DONE]."""
    answers = {"empty": "data: [DONE]\n\n", "whole": json.dumps({"choices": [{"text": "x"}]}), "broken": event("a") + "data: {oops\n\n",
               "bare": event("a") + event("") + ": ping\n\n" + event("b"),
               "usage": event("a") + event("b") + 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}'
                        "\n\ndata: [DONE]\n\n"}
    with Canned(answers) as c:
        got = {name: bench("--base-url", f"{c.base}/{name}", "--model", "m", "--num-prompts", 2, "--random-input-len", 5) for name in answers}
    assert got["empty"].json["errors_by_kind"] == {"no event with choices": 2} and got["empty"].code == 1
    assert got["whole"].json["errors_by_kind"] == {"no event with choices": 2}
    assert got["broken"].json["errors_by_kind"] == {"an event is no JSON": 2}
    assert got["bare"].json["completed"] == 2 and got["bare"].json["total_output_tokens"] == 4, "two events with text each"
    assert [len(i) for i in got["bare"].json["itls"]] == [2, 2], "every event with choices counts for the gaps"
    assert got["bare"].json["total_input_tokens"] == 10, "as asked for, when the server does not tell"
    assert "2 streams ended in order, but without [DONE]" in got["bare"].err
    d = got["usage"].json
    assert (d["total_input_tokens"], d["total_output_tokens"], d["cached_tokens"]) == (14, 10, 4) and "[DONE]" not in got["usage"].err


def test_connections_are_kept(bench):
    """One connection for one request after the other; where the server ends it unannounced, the request is sent once more and has not failed."""
    options = ("--model", "m", "--num-prompts", 30, "--max-concurrency", 1, "--random-input-len", 5)
    with Canned({"x": event("a") + "data: [DONE]\n\n"}) as c:
        r = bench("--base-url", f"{c.base}/x", *options)
        assert r.json["completed"] == 30 and c.requests == 30
        assert c.connections == 2, "one asked whether anybody is there"
    with Canned({"x": event("a") + "data: [DONE]\n\n"}, hang_up=True) as c:
        r = bench("--base-url", f"{c.base}/x", *options)
        assert r.json["completed"] == 30 and r.json["failed"] == 0 and c.requests == 30
        assert c.connections == 31


def test_unreachable(bench):
    ip = fresh_ip()
    r = bench("--host", ip, "--port", 8000)
    assert r.code == 1 and r.json is None and r.err == f"penstock bench: The server at {ip}:8000 cannot be reached.\n"
    begun = time.monotonic()
    r = bench("--host", ip, "--port", 8000, "--ready-check-timeout-sec", 1)
    assert r.code == 1 and 1 <= time.monotonic() - begun < 10


def test_a_server_that_dies(server, bench):
    s = server()
    fault(s, kind="kill", at="mid_stream", count=1)
    r = bench("--base-url", s.base, "--model", "qwen", "--num-prompts", 40, "--max-concurrency", 2, "--random-input-len", 10, "--random-output-len", 5)
    assert r.code == 1 and r.json["failed"] == 40
    assert r.json["errors_by_kind"]["connect: Connection refused"] >= 36, "every request is accounted for, none waits for ever"


def test_usage_errors(bench):
    for options, text in ((["--dataset-name", "x"], "--dataset-name is random"), (["--backend", "tgi"], "--backend is"), (["--request-rate", "0"], "--request-rate"),
                          (["--extra-body", "[1]"], "--extra-body is not a JSON object"), (["--goodput", "ttft:x"], "--goodput"), (["--header", "a b=1"], "--header"),
                          (["--backend", "openai-chat", "--endpoint", "/v1/completions"], "does not fit"), (["--ramp-up-strategy", "linear"], "--ramp-up-start-rps"),
                          (["--custom-output-len", "0"], "--custom-output-len"), (["--percentile-metrics", "x"], "--percentile-metrics"), (["--no-such"], "unknown option"),
                          (["--temperature", "hot"], "temperature"), (["--plot", "a.pdf"], "--plot")):
        r = bench(*options, save=False)
        assert r.code == 2 and text in r.err, r.err


def test_rate_and_seed(server, bench):
    s = server()
    options = ("--base-url", s.base, "--model", "qwen", "--num-prompts", 60, "--random-input-len", 10, "--random-output-len", 2, "--random-range-ratio", 0.5,
               "--request_rate", 40, "--burstiness", 0.5, "--seed", 7)
    r = bench(*options)
    starts = r.json["start_times"]
    assert r.json["request_rate"] == 40 and r.json["burstiness"] == 0.5
    assert abs(starts[-1] - 60 / 40) < 0.1, "the last arrival is at N / rate"
    first = [b["prompt"] for b in bodies(s)]
    conftest.http("DELETE", s.control + "/sim/requests")
    again = bench(*options)
    assert [b["prompt"] for b in bodies(s)] == first
    assert all(abs(a - b) < 0.1 for a, b in zip(again.json["start_times"], starts))
    assert max(again.json["queue_times"]) < 0.1


def test_chat_and_body(server, bench):
    s = server()
    r = bench("--backend", "openai-chat", "--base-url", s.base, "--model", "qwen", "--num-prompts", 4, "--random-input-len", 30, "--random-output-len", 6,
              "--ignore-eos", "--temperature", "0.5", "--top-p", "0.9", "--logprobs", 2, "--extra-body", ' {"user": "u1", "n": 1} ')
    assert r.code == 0 and r.json["completed"] == 4
    for b in bodies(s):
        (message,) = b["messages"]
        assert message["role"] == "user" and message["content"][0]["type"] == "text" and len(message["content"][0]["text"].split()) == 30
        assert (b["max_completion_tokens"], b["stream"], b["stream_options"]) == (6, True, {"include_usage": True})
        assert (b["logprobs"], b["top_logprobs"]) == (True, 2)
        assert (b["ignore_eos"], b["temperature"], b["top_p"], b["user"], b["n"]) == (True, 0.5, 0.9, "u1", 1)


@pytest.mark.parametrize("backend", ["openai-chat", "openai"])
def test_conversations(server, bench, backend):
    s = server()
    r = bench("--backend", backend, "--base-url", s.base, "--model", "qwen", "--dataset-name", "multi-turn", "--multi-turn-num-conversations", 4,
              "--multi-turn-min-turns", 3, "--multi-turn-max-turns", 3, "--multi-turn-input-len", 20, "--multi-turn-range-ratio", 0, "--multi-turn-output-len", 10,
              "--multi-turn-common-prefix-len", 40, "--multi-turn-prefix-len", 30, "--max-conversations", 2)
    assert r.code == 0, r.err
    assert r.json["completed"] == 12 and sorted(r.json["turns"]) == [0] * 4 + [1] * 4 + [2] * 4
    assert at_once(r.json) <= 2
    assert [t["completed"] for t in r.json["per_turn"]] == [4, 4, 4] and "First Token by turn" in r.out
    asked = bodies(s)
    if backend == "openai":
        prompts = sorted((b["prompt"] for b in asked), key=len)
        for p in prompts[4:]:
            assert sum(p.startswith(q) for q in prompts if len(q) < len(p)) >= 1, "a turn begins with all that was said before it"
        return
    talks = collections.defaultdict(list)
    for b in asked:
        talks[json.dumps(b["messages"][0])].append(b["messages"])
    assert len(talks) == 4
    commons = {" ".join(json.loads(k)["content"][0]["text"].split()[:40]) for k in talks}
    own = {" ".join(json.loads(k)["content"][0]["text"].split()[40:70]) for k in talks}
    assert len(commons) == 1 and len(own) == 4
    for turns in talks.values():
        assert [len(t) for t in turns] == [1, 3, 5]
        for before, after in zip(turns, turns[1:]):
            assert after[:len(before)] == before
            answer = after[len(before)]
            assert answer["role"] == "assistant" and len(answer["content"].split()) >= 8, "the server's own words"
    # the same prompt gives the same answer: what was put into the history is what the server said
    first = next(iter(talks.values()))
    again = conftest.http("POST", s.base + "/v1/chat/completions", {"model": "qwen", "messages": first[0], "max_tokens": 10}).json()
    assert again["choices"][0]["message"]["content"] == first[1][1]["content"]


def test_a_failed_turn_ends_its_conversation(server, bench):
    s = server()
    fault(s, kind="status", status=503, count=1)
    r = bench("--backend", "openai-chat", "--base-url", s.base, "--model", "qwen", "--dataset-name", "multi-turn", "--multi-turn-num-conversations", 3,
              "--multi-turn-min-turns", 4, "--multi-turn-max-turns", 4, "--multi-turn-input-len", 5, "--multi-turn-output-len", 3)
    assert r.json["completed"] == 8 and r.json["failed"] == 1
    assert "3 later turns were not sent" in r.err


def test_trace(server, bench, tmp_path):
    s = server()
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(x) + "\n" for x in [
        {"timestamp": 0, "input_length": 1200, "output_length": 4, "hash_ids": [1, 2, 3]}, {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 4]},
        {"timestamp": 2000, "input_length": 30, "output_length": 6, "hash_ids": [9]}]))
    r = bench("--base-url", s.base, "--model", "qwen", "--dataset-name", "trace", "--dataset-path", path, "--trace-speed", 4)
    assert r.code == 0 and r.json["completed"] == 3 and r.json["num_prompts"] == 3
    assert r.json["input_lens"] == [1200, 1100, 30] and r.json["output_lens"] == [4, 5, 6]
    assert all(abs(a - b) < 0.1 for a, b in zip(r.json["start_times"], [0, 0.25, 0.5])), "equal stamps are spread, times pass four times as fast"
    a, b, _ = (x["prompt"].split() for x in bodies(s))
    assert a[:1024] == b[:1024] and a[1024:1030] != b[1024:1030]
    path.write_text('{"timestamp": 0}\n')
    r = bench("--base-url", s.base, "--model", "qwen", "--dataset-name", "trace", "--dataset-path", path)
    assert r.code == 1 and f"{path}:1:" in r.err


def test_sessions_of_a_trace(server, bench, tmp_path):
    s = server()
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"timestamp": 0, "input_length": 100 * (t + 1), "output_length": 3, "hash_ids": [c * 10], "session_id": f"s{c}", "turn": t, "delay": 300})
                            + "\n" for c in range(3) for t in range(3)))
    r = bench("--base-url", s.base, "--model", "qwen", "--dataset-name", "trace", "--dataset-path", path, "--max-conversations", 1)
    assert r.json["completed"] == 9 and r.json["turns"] == [0, 1, 2] * 3 and at_once(r.json) == 1
    d = r.json
    for i in range(9):
        if d["turns"][i]:
            pause = d["start_times"][i] - d["start_times"][i - 1] - d["latencies"][i - 1]
            assert 0.29 < pause < 0.6


def test_files_of_prompts(server, bench, tmp_path):
    s = server()
    custom, talks = tmp_path / "c.jsonl", tmp_path / "s.json"
    custom.write_text('{"prompt": "one \\"two\\" \\u00e9", "output_tokens": 5}\n')
    r = bench("--base-url", s.base, "--model", "qwen", "--dataset-name", "custom", "--dataset-path", custom, "--custom-output-len", -1, "--num-prompts", 3)
    assert r.json["completed"] == 3 and [b["prompt"] for b in bodies(s)] == ['one "two" \u00e9'] * 3 and r.json["output_lens"] == [5] * 3
    talks.write_text(json.dumps([{"conversations": [{"from": "human", "value": "what is it all about"}, {"from": "gpt", "value": "it is about this and that"}]}]))
    conftest.http("DELETE", s.control + "/sim/requests")
    r = bench("--base-url", s.base, "--model", "qwen", "--dataset-name", "sharegpt", "--dataset-path", talks, "--num-prompts", 2, "--no-oversample")
    assert r.json["completed"] == 1 and bodies(s)[0]["prompt"] == "what is it all about" and bodies(s)[0]["max_tokens"] == 6


def test_models_in_turn(server, bench):
    s = server("--enable-lora", "--lora-modules", "a=/a", "b=/b")
    r = bench("--base-url", s.base, "--lora-modules", "a", "b", "--lora-assignment", "round-robin", "--num-prompts", 6, "--random-input-len", 5, "--random-output-len", 2)
    assert r.code == 0, r.err
    assert collections.Counter(b["model"] for b in bodies(s)) == {"a": 3, "b": 3}
    assert "model qwen (the first of /v1/models)" in r.err


def test_time_scale(server, bench):
    """A server whose clock runs ten times as fast: times by that clock agree with those of one at the usual speed."""
    figures = []
    for scale in (1, 10):
        s = server("--time-scale", scale, "--no-enable-prefix-caching")
        r = bench("--base-url", s.base, "--model", "qwen", "--num-prompts", 40, "--max-concurrency", 4, "--random-input-len", 200, "--random-output-len", 20,
                  "--time-scale", scale)
        assert r.json["completed"] == 40 and r.json["time_scale"] == scale
        figures.append(r.json)
    for key in ("duration", "mean_tpot_ms", "median_ttft_ms"):
        assert figures[1][key] == pytest.approx(figures[0][key], rel=0.35), key


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(server, binary, sig):
    s = server()
    p = Process(["bench", "--base-url", s.base, "--model", "qwen", "--num-prompts", 1000, "--max-concurrency", 4, "--random-input-len", 10, "--random-output-len", 30], binary)
    wait_for(lambda: counter(s, "vllm:request_success_total") >= 8, what="requests served")
    p.signal(sig)
    assert p.proc.wait(10) == 0, p.lines
    for reader in p.readers:
        reader.join(5)
    assert "Sanitizer" not in "".join(p.lines)
    said = re.search(r"interrupted: (\d+) requests were under way, (\d+) had not been sent; the figures are of the (\d+) that ended", "\n".join(p.lines))
    running, unsent, ended = map(int, said.groups())
    assert running <= 4 and ended >= 8 and running + unsent + ended == 1000
    assert any(line == f"Successful requests:                     {ended:<10}" for line in p.out)
    wait_for(lambda: counter(s, "vllm:num_requests_running") == 0, what="the server is left alone")


def test_open_files(server, bench):
    """The soft limit is raised; beyond the hard one the client says so and lets requests wait."""
    s = server()
    options = ("--base-url", s.base, "--model", "qwen", "--num-prompts", 300, "--random-input-len", 5, "--random-output-len", 2)
    r = bench(*options, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4096)))
    assert r.code == 0 and r.json["completed"] == 300 and "may be open" not in r.err

    def harder():
        import ctypes
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 164))
        ctypes.CDLL(None).prctl(24, 24, 0, 0, 0)  # PR_CAPBSET_DROP CAP_SYS_RESOURCE: the limit holds for root too, behind exec

    r = bench(*options, preexec_fn=harder)
    assert r.code == 0 and r.json["completed"] == 300, r.err
    assert "only 164 files may be open" in r.err and "at most 100 of 300 requests run at once" in r.err
    assert at_once(r.json) <= 100 and r.json["max_concurrency"] is None


def test_pods_and_gateway(cluster, bench):
    c = cluster(3, sim_options=("--profile", "h100-qwen3-32b"))
    r = bench("--base-url", c.gw.url(8080), "--model", "qwen", "--num-prompts", 150, "--max-concurrency", 12, "--random-input-len", 50, "--random-output-len", 40,
              "--per-pod", "--gateway-admin", c.gw.admin, "--pods", ",".join(f"{s.ip}:8000" for s in c.sims.values()))
    assert r.code == 0, r.err
    served = {p["pod"]: p["completed"] for p in r.json["per_pod"]}
    assert sum(served.values()) == 150 and set(served) == set(c.sims)
    for name, s in c.sims.items():
        assert counter(s, "vllm:request_success_total") == served[name]
    use = {p["pod"]: p for p in r.json["pod_use"] if "picks" in p}
    assert {n: p["picks"] for n, p in use.items()} == served
    assert len(r.json["pod_use"]) == 3 and all(0 < p["kv_use_mean"] < 1 for p in r.json["pod_use"])
    assert r.json["kv_use_cv_of_means"] >= 0 and r.json["pod_requests_cv"] >= 0
    assert "Pods as seen from their side" in r.out and "pod-2" in r.out
    r = bench("--base-url", c.gw.url(8080), "--model", "qwen", "--gateway-admin", c.gw.url(8080), save=False)
    assert r.code == 1 and "is it the admin address of a penstock gateway?" in r.err


def test_refused_by_the_gateway(cluster, bench):
    """The kind of a failure is the gateway's own code."""
    c = cluster(1)
    r = bench("--base-url", c.gw.url(8080), "--model", "nobody", "--num-prompts", 4, "--random-input-len", 5)
    assert r.code == 1 and list(r.json["errors_by_kind"].values()) == [4], r.json
    assert next(iter(r.json["errors_by_kind"])).startswith("HTTP 404 ")


def test_saved_files(server, bench, tmp_path, binary):
    s = server()
    options = ("--base-url", s.base, "--model", "x/qwen", "--served-model-name", "qwen", "--num-prompts", 5, "--random-input-len", 5, "--random-output-len", 4,
               "--result-dir", tmp_path, "--metadata", "gpu=none", "note=a=b", "--goodput", "ttft:100000", "e2el:100000")
    r = bench(*options, "--save-result", "--label", "mine", "--max-concurrency", 3, save=False)
    (path,) = tmp_path.glob("mine-infqps-concurrency3-qwen-*.json")
    d = json.loads(path.read_text())
    assert (d["gpu"], d["note"], d["request_goodput"]) == ("none", "a=b", d["request_throughput"]) and "ttfts" not in d
    for _ in range(2):
        assert bench(*options, "--append-result", "--result-filename", "all.json", save=False).code == 0
    assert [json.loads(line)["completed"] for line in (tmp_path / "all.json").read_text().splitlines()] == [5, 5]
    plot = tmp_path / "p.svg"
    r = bench(*options, "--plot", plot)
    assert r.code == 0 and "<svg" in plot.read_text()
    plot.unlink()
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(r.json))
    b.write_text(json.dumps(r.json))
    r = bench("--compare", a, b, "--plot", plot, save=False)
    assert r.code == 0 and r.out.splitlines()[0].split() == ["a", "b"] and "<svg" in plot.read_text()
    assert bench("--compare", a, tmp_path / "none.json", save=False).code == 1
    asked = len(bodies(s))
    r = bench(*options, "--save-result", "--result-filename", "no/such/dir.json", save=False)
    assert r.code == 1 and "no/such/dir.json cannot be written: No such file" in r.err
    r = bench(*options, "--plot", "/no/such/p.svg", save=False)
    assert r.code == 1 and "/no/such/p.svg cannot be written: No such file" in r.err
    assert len(bodies(s)) == asked, "told before the run"
    assert bench(*options, "--save-result", "--result-dir", tmp_path / "new", "--result-filename", "x.json", save=False).code == 0
    assert (tmp_path / "new" / "x.json").exists()


def test_commands_of_the_documents(cluster, bench):
    """The load test of the benchmark page, with another program and a faster clock, on a tenth of the prompts."""
    c = cluster(4, sim_options=("--time-scale", "40", "--profile", "a10-qwen2.5-7b-tp1"), options=("--time-scale", "40"))
    r = bench("--backend", "vllm", "--model", "/models/DeepSeek-R1-Distill-Qwen-7B", "--served-model-name", "qwen", "--trust-remote-code", "--dataset-name", "random",
              "--random-prefix-len", 10, "--random-input-len", 155, "--random-output-len", 180, "--random-range-ratio", 0.2, "--num-prompts", 300, "--max-concurrency", 200,
              "--host", c.ip, "--port", 8080, "--endpoint", "/v1/completions", "--time-scale", 40)
    assert r.code == 0 and r.json["completed"] == 300, r.out + r.err
    assert abs(r.json["total_output_tokens"] / 300 - 180) < 6
    assert 150 < r.json["max_concurrent_requests"]
