"""`penstock bench` beside the engine's own client: the same requests against the same simulated server, in turn; figures within 5 %."""
import json
import random
import statistics
import subprocess
import sys

import pytest

import peer_bench
from conftest import http

ROUNDS = 3
MOST_ROUNDS = 7
CONCURRENCY = 16
TOLERANCE = 0.05
EQUAL = ("completed", "failed", "total_input_tokens", "total_output_tokens")
CLOSE = ("duration", "request_throughput", "output_throughput", "total_token_throughput", "mean_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "mean_itl_ms",
         "median_itl_ms", "mean_e2el_ms", "median_e2el_ms")
# The median TTFT of requests that meet in an engine sits on the edge of a step: a client that is a millisecond quicker catches the step before. It is
# compared where they do not meet.
CLOSE_ALONE = (*CLOSE, "median_ttft_ms")
WORDS = "water pipe turbine gate valve head flow river dam power".split()


@pytest.fixture(scope="module")
def client():
    try:
        return peer_bench.fetch()
    except peer_bench.Unavailable as e:
        pytest.skip(str(e))


def write_prompts(path, base, n=48, shortest=40, longest=120):
    """Prompts of 150 to 400 words, with the number of tokens that the server counts, and answers of 40 to 120 tokens."""
    rng = random.Random(3)
    with path.open("w") as f:
        for i in range(n):
            text = f"case {i} " + " ".join(rng.choice(WORDS) for _ in range(rng.randint(150, 400)))
            tokens = http("POST", f"{base}/tokenize", {"model": "qwen", "prompt": text}).json()["count"]
            f.write(json.dumps({"prompt": text, "prompt_tokens": tokens, "output_tokens": rng.randint(shortest, longest)}) + "\n")


def run(command, directory, name):
    """Printed table and saved result of one run."""
    done = subprocess.run([*map(str, command), "--save-result", "--save-detailed", "--result-dir", str(directory), "--result-filename", f"{name}.json"],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    begin = next(i for i, line in enumerate(lines) if "Serving Benchmark Result" in line)
    return lines[begin:lines.index("=" * 50, begin) + 1], json.loads((directory / f"{name}.json").read_text())


def both(client, binary, server, directory, keys, concurrency, rounds, **prompts_of):
    """Both clients in turn: by how much the medians of ours over the rounds differ from theirs, and the tables and results."""
    directory.mkdir()
    prompts = directory / "prompts.jsonl"
    write_prompts(prompts, server.base, **prompts_of)
    options = ["--base-url", server.base, "--endpoint", "/v1/completions", "--model", "qwen", "--ignore-eos", "--max-concurrency", str(concurrency),
               "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99", "--goodput", "ttft:500", "tpot:100", "--disable-tqdm"]
    theirs = [sys.executable, peer_bench.__file__, client, prompts, *options]
    ours = [binary, "bench", "--dataset-name", "custom", "--dataset-path", prompts, "--custom-output-len", "-1", "--disable-shuffle",
            "--num-prompts", len(prompts.read_text().splitlines()), *options]
    tables, results = {}, {"theirs": [], "ours": []}
    for i in range(MOST_ROUNDS):  # noise of a busy machine goes with more rounds; a difference stays
        for who, command in (("theirs", theirs), ("ours", ours)):
            tables[who], result = run(command, directory, f"{who}-{i}")
            results[who].append(result)
        medians = {who: {key: statistics.median(r[key] for r in rs) for key in keys} for who, rs in results.items()}
        apart = {key: round(medians["ours"][key] / medians["theirs"][key] - 1, 4) for key in keys}
        if i + 1 >= rounds and all(abs(v) <= TOLERANCE for v in apart.values()):
            break
    return apart, (tables, results)


def test_agrees_with_the_engines_client(client, sim, release_binary, tmp_path):
    server = sim("--model", "/models/qwen", "--served-model-name", "qwen", "--profile", "a10-qwen2.5-7b-tp1", "--no-enable-prefix-caching",
                 binary=release_binary)
    alone, _ = both(client, release_binary, server, tmp_path / "alone", CLOSE_ALONE, 1, 1, n=12, shortest=15, longest=30)
    print("one at a time, penstock bench / the engine's client - 1:", json.dumps(alone))
    assert all(abs(v) <= TOLERANCE for v in alone.values()), alone
    apart, (tables, results) = both(client, release_binary, server, tmp_path / "many", CLOSE, CONCURRENCY, ROUNDS)

    def label(line):
        return line[:40] if ":" in line else line

    assert [label(x) for x in tables["ours"]] == [label(x) for x in tables["theirs"]], "the same lines in the same order"
    for key in EQUAL:
        assert {r[key] for r in results["ours"]} == {r[key] for r in results["theirs"]}, key
    print("penstock bench / the engine's client - 1:", json.dumps(apart))
    assert all(abs(v) <= TOLERANCE for v in apart.values()), apart
    peak = [statistics.median(r["max_concurrent_requests"] for r in rs) for rs in results.values()]
    assert abs(peak[0] - peak[1]) <= 3, peak
    compare = subprocess.run([release_binary, "bench", "--compare", *(str(p) for p in sorted((tmp_path / "many").glob("*-0.json")))], capture_output=True, text=True)
    assert compare.returncode == 0 and "Mean TTFT (ms)" in compare.stdout, compare.stdout + compare.stderr
    plot = tmp_path / "plot.svg"
    compare = subprocess.run([release_binary, "bench", "--compare", *(str(p) for p in sorted((tmp_path / "many").glob("*-0.json"))), "--plot", str(plot)],
                             capture_output=True, text=True)
    assert compare.returncode == 0 and plot.read_text().startswith("<svg "), compare.stdout + compare.stderr
