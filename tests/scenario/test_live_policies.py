"""Live servers and gateway beside `penstock replay`: the quick form of bench/live-policies, with limits wide enough for a busy machine. The full form is a
benchmark."""
import importlib.machinery
import json
import os
import subprocess
import types

import pytest

from conftest import ROOT

SCRIPT = ROOT / "bench" / "live-policies"
TIMES, SHARES = 0.45, 0.1


def test_same_order_in_both_worlds(release_binary, tmp_path):
    """Prompts that share their beginnings: PREFIX_CACHE before round robin in both worlds, and by about as much; figures agree."""
    out = tmp_path / "figures.json"
    done = subprocess.run([SCRIPT, "--quick", "--within", str(TIMES), "--build", release_binary.parents[1], "--json", out], capture_output=True, text=True, timeout=170,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode in (0, 1) and out.exists(), done.stdout + done.stderr
    print(done.stdout)
    (load,) = json.loads(out.read_text())
    assert load["same_order"] and load["requests"] >= 500, done.stdout

    def mean(world, policy, key):
        runs = load[world][policy]
        return sum(r[key] for r in runs) / len(runs)

    for world in ("live", "replayed"):
        assert mean(world, "round-robin", "ttft_mean") > 1.5 * mean(world, "prefix-cache", "ttft_mean"), world
        assert mean(world, "round-robin", "tpot_mean") > 1.2 * mean(world, "prefix-cache", "tpot_mean"), world
        assert mean(world, "prefix-cache", "hit") > mean(world, "round-robin", "hit") + 0.1, world
    for policy in ("round-robin", "prefix-cache"):
        for key in ("ttft_mean", "ttft_p90", "tpot_mean"):
            assert abs(mean("live", policy, key) / mean("replayed", policy, key) - 1) < TIMES, (policy, key, done.stdout)
        for key in ("attained", "hit"):
            assert abs(mean("live", policy, key) - mean("replayed", policy, key)) < SHARES, (policy, key, done.stdout)
        assert all(r["failed"] == 0 for r in load["live"][policy])


@pytest.fixture
def script():
    module = types.ModuleType("live_policies")
    module.__file__ = str(SCRIPT)
    importlib.machinery.SourceFileLoader("live_policies", str(SCRIPT)).exec_module(module)
    return module


def figures(ttft, hit=0.5):
    return {"ttft_mean": ttft, "ttft_p90": 2 * ttft, "tpot_mean": 0.02, "attained": 0.99, "hit": hit}


@pytest.mark.parametrize("live, complaints", [
    ((1.0, 2.0, 0.5), []),
    ((1.1, 2.2, 0.52), []),
    ((1.2, 2.0, 0.5), ["a: mean TTFT (s) is off by +20.0 %", "a: P90 TTFT (s) is off by +20.0 %"]),
    ((1.0, 2.0, 0.56), ["b: hits (%) is off by +6.0 points"]),
])
def test_figures_are_compared(script, live, complaints):
    """A time off by more than the limit, or a share by more than a third of it in points, is told."""
    a = types.SimpleNamespace(policies=["a", "b"], within=0.15)
    replayed = {"a": [figures(0.9), figures(1.1)], "b": [figures(2.0)]}
    bad, same = script.compare(a, types.SimpleNamespace(name="load"), {"a": [figures(live[0])], "b": [figures(live[1], live[2])]}, replayed)
    assert bad == ["load, " + c for c in complaints] and same


def test_order_is_compared(script):
    """Only policies that are clearly apart in both worlds can stand the wrong way round."""
    assert script.same_order({"a": 1.0, "b": 1.2}, {"a": 1.0, "b": 1.1})
    assert script.same_order({"a": 1.0, "b": 1.2}, {"a": 1.02, "b": 1.0})
    assert not script.same_order({"a": 1.0, "b": 1.2}, {"a": 1.1, "b": 1.0})


def test_noise_is_told(script):
    """A figure that the replays themselves spread over is marked, not complained of; one beyond two of their standard deviations is."""
    a = types.SimpleNamespace(within=0.15)
    said = [0.7, 1.0, 1.3]
    assert [script.judge(a, got, said, False)[1] for got in (1.1, 1.5, 1.7)] == ["", "~", "!"]
    assert [script.judge(a, got, [1.0, 1.0, 1.0], False)[1] for got in (1.1, 1.2)] == ["", "!"]


def test_replayed_requests_tell_their_limits(script, release_binary, tmp_path):
    """`penstock bench` asks with max_tokens, so the replay does, too: prefix-cache decides differently where memory is short, round robin cannot."""
    load = script.Load("assistants", types.SimpleNamespace(servers=4, time_scale=5))
    load.write(tmp_path / "load.jsonl", 9, 600, 1)

    def replay(*options):
        done = subprocess.run([release_binary, "replay", tmp_path / "load.jsonl", "--servers", "4", "--profile", "a10-qwen25-7b", "--as-recorded", "--policy", "prefix-cache,round-robin", "--json",
                               "--quiet", *options], capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line)["ttft_mean"] for line in done.stdout.splitlines()]

    plain, told = replay(), replay("--tell-limits")
    assert plain == replay(), "equal runs are equal"
    assert told[0] != plain[0] and told[1] == plain[1], (plain, told)
