"""`penstock replay` as users call it: loads it reads, what it prints, what it refuses, and bounds of time and memory."""
import gzip
import html.parser
import json
import os
import pty
import resource
import select
import subprocess
import time

import pytest

from conftest import Gateway, fresh_ip, http

FIELDS = {"n", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "tpot_mean", "tpot_p50", "tpot_p90", "tpot_p99", "e2e_mean", "hit", "rps", "out_tps",
          "slo", "busy", "imbalance", "preempts", "trace", "profile", "servers", "policy", "rate", "wall", "attained", "goodput", "queued_mean",
          "refused", "failed", "gateways", "seed", "split"}
PROFILE = {"base": 0.01, "decode_seq": 0.001, "prefill_token": 0.0001, "kv_tokens": 51200, "max_batched_tokens": 2048}


def line(at_ms, tokens, output, ids=None, **more):
    row = {"timestamp": at_ms, "input_length": tokens, "output_length": output, **more}
    return {**row, "hash_ids": ids} if ids is not None else row


@pytest.fixture
def trace(tmp_path):
    def write(rows, name="mine.jsonl"):
        path = tmp_path / name
        text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.fixture
def chat(trace):
    """Forty documents, each asked about five times."""
    return trace([line(250 * i, 2000 + 7 * i, 40 + i % 50, [100 * (i % 40) + k for k in range(3)]) for i in range(200)], "chat.jsonl")


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "server.json"
    path.write_text(json.dumps(PROFILE))
    return path


@pytest.fixture
def replay(binary):
    def run(*options, code=0, **kw):
        done = subprocess.run([str(binary), "replay", *map(str, options)], capture_output=True, text=True, timeout=120, **kw)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def runs(replay):
    def run(*options, **kw):
        done = replay(*options, "--json", **kw)
        assert not done.stderr
        return [json.loads(text) for text in done.stdout.splitlines()]

    return run


def figures(run):
    return {k: v for k, v in run.items() if k != "wall"}


# ---- what it says ----

def test_json(runs, chat):
    one, = runs(chat, "--rate", 2, "--policy", "gie_prefix")
    assert set(one) == FIELDS
    assert (one["trace"], one["profile"], one["servers"], one["policy"], one["rate"], one["seed"]) == ("chat", "h100-qwen3-32b", 8, "gie-prefix", 2, 1)
    assert one["n"] == 180 and one["failed"] == one["refused"] == 0  # without the first tenth
    assert 0 < one["ttft_p50"] <= one["ttft_p90"] <= one["ttft_p99"] and 0 < one["hit"] < 1 and one["slo"] == one["attained"] == 1


def test_a_run_by_hand(runs, trace, profile):
    rows = [line(10000 * i, 1000, 11, [1]) for i in range(10)]
    for given in (trace(rows), trace(rows, "mine.jsonl.gz")):
        one, = runs(given, "--profile", profile, "--servers", 1)
        assert one["trace"] == "mine" and one["n"] == 9  # the first, for which nothing was cached, is not counted
        assert one["ttft_mean"] == pytest.approx(0.01 + 0.0001 * (1000 - 512), abs=1e-5)
        assert one["tpot_mean"] == pytest.approx(0.011, abs=1e-5)
        assert one["hit"] == pytest.approx(0.512) and one["queued_mean"] == 0
    slow, = runs(given, "--profile", profile, "--servers", 1, "--network", "50ms", "--change", "0s:0:no-cache", "--change", "0s:0:slow:2")
    assert slow["ttft_mean"] == pytest.approx(0.1 + 2 * 0.11, abs=1e-5) and slow["hit"] == 0


def test_lists_make_runs_in_their_order(runs, chat):
    all_runs = runs(chat, "--policy", "random,prefix-cache", "--rate", "1,4", "--seeds", 3, "--seed", 7)
    assert [(r["rate"], r["policy"], r["seed"]) for r in all_runs] == [(x, p, s) for x in (1, 4) for p in ("random", "prefix-cache") for s in (7, 8, 9)]
    assert len({r["ttft_mean"] for r in all_runs if r["policy"] == "random"}) == 6  # seeds differ


def test_the_same_again(runs, chat):
    options = (chat, "--policy", "all", "--rate", 6, "--jitter", 1, "--gateways", 2, "--change", "5s:1:fail", "--change", "20s:1:return")
    assert list(map(figures, runs(*options, "--threads", 1))) == list(map(figures, runs(*options, "--threads", 8)))


def test_table(replay, chat):
    out = replay(chat, "--policy", "random,prefix-cache", "--rate", 3, "--seeds", 4).stdout.splitlines()
    assert out[0].startswith("chat, 8 × h100-qwen3-32b") and "TTFT s" in out[1] and len(out) == 4
    assert [text.split()[0:3] for text in out[2:]] == [["random", "3", "4"], ["prefix-cache", "3", "4"]]  # a line for all seeds, with their deviation
    assert "±" in out[2]


class Page(html.parser.HTMLParser):
    VOID = {"meta", "br", "hr", "img", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.count, self.links = [], [], {}, []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [v for k, v in attrs if k in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page(replay, chat, tmp_path):
    path = tmp_path / "page.html"
    replay(chat, "--policy", "round-robin,prefix-cache,oracle", "--rate", "2,8", "--seeds", 2, "--html", path, "--explain", 5)
    page = Page(path.read_text())
    text = " ".join(page.text)
    assert page.count["svg"] > 8 and "script" not in page.count and not page.links  # nothing is loaded
    for what in ("round-robin", "prefix-cache", "oracle", "Goodput", "Sampled decisions", "Cached", "balance"):
        assert what.lower() in text.lower(), what
    assert text.count("believed cached there") >= 5


# ---- servers ----

def test_mix_of_servers(runs, chat, profile):
    one, = runs(chat, "--profile", f"2xh100-qwen3-32b,3xa10-qwen25-7b,1x{profile}", "--policy", "round-robin")
    assert one["servers"] == 6
    fast, = runs(chat, "--profile", "h100-qwen3-32b", "--servers", 6, "--policy", "round-robin")
    assert one["ttft_mean"] > 1.5 * fast["ttft_mean"]


@pytest.mark.parametrize("text, where, what", [
    ('{"base": 0.01,\n "prefill_token": "x"}', ":2:", "not a number"),
    ('{"base": 0.01,\n\n "speed": 3, "kv_tokens": 50000}', ":3:", "no profile has"),
    ('{"base": 0.01}', ":1:", "kv_tokens"),
    ('{"base": 0.01, "kv_tokens": 50000', ":1:", ""),
    ('{"base": -1, "kv_tokens": 50000}', ":1:", "from 0 on"),
    ("[]", ":1:", "not a JSON object"),
    ("", ":1:", ""),
])
def test_bad_profile(replay, chat, tmp_path, text, where, what):
    path = tmp_path / "bad.json"
    path.write_text(text)
    done = replay(chat, "--profile", path, code=2)
    assert f"{path}{where}" in done.stderr and what in done.stderr and not done.stdout


# ---- what it refuses ----

@pytest.mark.parametrize("options, what", [
    ((), "a trace is needed"),
    (("/nowhere/x.jsonl",), "/nowhere/x.jsonl"),
    (("chat:50", "--policy", "random,best"), 'no policy "best"'),
    (("chat:50", "--policy", ""), "names none"),
    (("chat:50", "--profile", "h9000"), '"h9000"'),
    (("chat:50", "--servers", "0"), "from 1 to 4096"),
    (("chat:50", "--servers", "5000"), "from 1 to 4096"),
    (("chat:50", "--rate", "2,-1"), '"2,-1"'),
    (("chat:50", "--rate", "nan"), '"nan"'),
    (("chat:50", "--gateways", "65"), "from 1 to 64"),
    (("chat:50", "--sync", "soon"), '"soon"'),
    (("chat:50", "--change", "5s:9:fail"), "5s:9:fail"),
    (("chat:50", "--change", "5s:0:explode"), "5s:0:explode"),
    (("chat:50", "--change", "5s:0:slow"), "needs a factor"),
    (("chat:50", "--set", "colour=3"), "colour=3"),
    (("chat:50", "--prefill-servers", "8"), "servers that decode"),
    (("chat:50", "--users", "5"), "arrival times"),
    (("chat:50", "--seeds", "0"), "--seeds"),
    (("chat:x",), "chat"),
    (("chat:50", "--frobnicate"), "--frobnicate"),
])
def test_bad_options(replay, options, what):
    done = replay(*options, code=2)
    assert what in done.stderr and not done.stdout


@pytest.mark.parametrize("rows, where", [
    ([line(0, 10, 1), line(5, -3, 1)], ":2"),
    ([line(0, 10, 1), "", line(5, 5, 1), "{"], ":4"),
    ([line(0, 10, 1, [1]), line(5, 5, 1, "x")], ":2"),
    ([line(0, 10, 1), {"timestamp": 7}], ":2"),
    ([""], ""),
])
def test_bad_trace(replay, trace, rows, where):
    for name in ("bad.jsonl", "bad.jsonl.gz"):
        path = trace(rows, name)
        assert f"{path}{where}" in replay(path, code=2).stderr


def test_page_that_cannot_be_written(replay, chat):
    done = replay(chat, "--html", "/nowhere/page.html", code=1)
    assert "/nowhere/page.html" in done.stderr and "prefix-cache" in done.stdout  # the table is there all the same


def test_help_and_list(replay):
    assert "--policy NAME" in replay("--help").stdout
    names = replay("--list").stdout
    for name in ("prefix-cache", "oracle", "gie-prefix-full", "h200-qwen3-coder-30b-a3b"):
        assert f"  {name}" in names


# ---- kinds of load ----

def test_conversations(runs, replay, trace):
    rows = [line(0, 1000 * (t + 1), 20, [1000 * c + k for k in range(2 * t + 2)], session_id=f"s{c}", turn=t, delay=2000 * (t > 0)) for c in range(300) for t in range(6)]
    path = trace(rows, "talk.jsonl")
    few, many = runs(path, "--users", "4,40", "--time", "80s")
    assert (few["users"], many["users"]) == (4, 40)
    # a user of few: 20 tokens of 16 ms, some prefill, 2 s of thinking before five of six turns
    assert few["rps"] == pytest.approx(4 / (0.45 + 2 * 5 / 6), rel=0.15) and many["rps"] > 8 * few["rps"]
    assert few["hit"] > 0.5
    assert "--users" in replay(path, code=2).stderr


def test_tables_of_others(runs, trace):
    azure = trace(["TIMESTAMP,ContextTokens,GeneratedTokens"] + [f"2023-11-16 18:15:{i:02d}.5000000,{400 + i},20" for i in range(50)], "azure.csv")
    burst = trace(["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"] + [f"{i},ChatGPT,{300 + i},20,{320 + i},Conversation log" for i in range(50)], "burst.csv")
    for path in (azure, burst):
        one, = runs(path)
        assert one["n"] == 45 and one["hit"] == 0


def test_recorded_by_a_gateway(sim, spawn, runs, replay, tmp_path):
    record, ip = tmp_path / "live.record", fresh_ip()
    servers = [sim("--model", "/models/qwen", "--served-model-name", "qwen", "--profile", "h100-qwen3-32b", "--time-scale", "10") for _ in range(2)]
    gw = spawn(Gateway, ["gateway", *[o for s in servers for o in ("--endpoint", s.base)], "--listen", f"{ip}:8080", "--admin", f"{ip}:9090", "--log-format", "json",
                         "--record", record], ip).wait_ready()
    for i in range(40):
        words = f"document {i % 4} " + "all about pumps and valves " * 200
        body = {"model": "qwen", "messages": [{"role": "user", "content": words + f"question {i}"}], "max_tokens": 10}
        assert http("POST", gw.url(8080, "/v1/chat/completions"), body).status == 200
    gw.stop()
    one, = runs(record, "--servers", 2)
    assert one["n"] == 36 and one["hit"] > 0.5 and one["failed"] == 0
    assert " 40 decisions equal, none differs." in replay("--decisions", record).stdout
    text = record.read_text()
    changed = tmp_path / "changed.record"
    changed.write_text(text.replace('"answer":"picked","ep":[', '"answer":"picked","ep":[9'))
    assert "differ" in replay("--decisions", changed, code=1).stdout
    changed.write_text(text.replace('"outcome":"ok"', '"outcome":"server_error"', 1))
    said = replay(changed, "--servers", 2)
    assert "1 " in said.stderr and "left out" in said.stderr and " 36 " in said.stdout  # 39, without the first tenth
    assert not replay(changed, "--servers", 2, "-q").stderr
    changed.write_text("[]\n" + text)
    assert str(changed) in replay("--decisions", changed, code=2).stderr
    assert "--record" in replay("--decisions", code=2).stderr


# ---- bounds ----

def test_time_and_memory(release_binary):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    start = time.monotonic()
    done = subprocess.run([str(release_binary), "replay", "chat:200000", "--rate", "20", "--policy", "prefix-cache,gie-prefix", "--servers", "16", "--threads", "2", "--json"],
                          capture_output=True, text=True, timeout=100, preexec_fn=None if "asan" in str(release_binary) else limit)
    assert done.returncode == 0, done.stderr
    assert [json.loads(text)["failed"] for text in done.stdout.splitlines()] == [0, 0]
    assert time.monotonic() - start < 100


def on_terminal(command):
    """What stderr shows when it is a terminal."""
    ours, theirs = pty.openpty()
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536) if select.select([ours], [], [], 60)[0] else b""
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert p.wait(60) == 0
    return shown.decode()


def test_progress_bar_only_on_a_terminal(binary, replay):
    load = ("chat:20000", "--rate", "20", "--seeds", "2")
    assert not replay(*load).stderr
    shown = on_terminal([str(binary), "replay", *load])
    assert "#" in shown and "requests/s" in shown and shown.endswith("\r\x1b[K")  # and is wiped out at the end
    assert on_terminal([str(binary), "replay", *load, "-q"]) == ""
