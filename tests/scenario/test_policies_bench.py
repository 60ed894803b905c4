"""The quick form of bench/policies, which makes the tables of docs/policies.md, on a generated load; and its verdicts by themselves. The full form is a benchmark."""
import importlib.machinery
import json
import os
import subprocess
import types

import pytest

from conftest import ROOT

SCRIPT = ROOT / "bench" / "policies"
ENV = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def run(*args):
    return subprocess.run([SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=240, env=ENV)


def test_quick(release_binary, tmp_path):
    """Every part comes with verdicts and its table; prefix-cache is near the oracle where there is room."""
    out = tmp_path / "figures.json"
    done = run("--quick", "--build", release_binary.parents[1], "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    for heading in ("Verdicts", "Open loop", "Past saturation", "Agents", "Wrong knowledge", "Unlike servers", "Several gateways"):
        assert f"\n## {heading}\n" in f"\n{done.stdout}"
    result = json.loads(out.read_text())
    wanted = {v["wanted"] for v in result["verdicts"]}
    for part in ("share within the service level", "mean TTFT at 75 %", "mean TTFT at 90 %", "TPOT within 5 %", "past saturation", "wrong beliefs", "unlike servers", "four gateways"):
        assert any(w.startswith(part) for w in wanted), (part, wanted)
    for w in wanted:
        assert f"| {w} | " in done.stdout, w
    for v in result["verdicts"]:
        assert (v["verdict"] == "yes") == (v["excess"] <= 0)
        assert v["verdict"] == "yes" or f"  - {v['row']}: {v['figure']}" in done.stdout, "what does not hold is named"

    def ttft(policy, rate):
        runs = [r["ttft_mean"] for r in result["runs"] if r["part"] == "open" and r["policy"] == policy and r["rate"] == rate]
        assert len(runs) == 2
        return sum(runs) / len(runs)

    half = min(r["rate"] for r in result["runs"] if r["part"] == "open")
    assert half == pytest.approx(0.5 * 10.46)
    assert ttft("prefix-cache", half) < 1.15 * ttft("oracle", half)
    assert ttft("round-robin", half) > 1.5 * ttft("prefix-cache", half)


@pytest.mark.parametrize("args, says", [
    (["--part", "open,nothing"], "--part: nothing is none of open, saturation"),
    (["--quick", "/tmp"], "--quick takes no TRACE_DIR"),
    (["/nonexistent"], "/nonexistent is no directory"),
    (["--build", "/nonexistent"], "is not there: build it"),
])
def test_bad_options(release_binary, args, says):
    done = run(*([] if "--build" in args else ["--build", release_binary.parents[1]]), *args)
    assert done.returncode != 0 and says in done.stderr and not done.stdout, done.stderr


@pytest.fixture
def script():
    module = types.ModuleType("policies")
    module.__file__ = str(SCRIPT)
    importlib.machinery.SourceFileLoader("policies", str(SCRIPT)).exec_module(module)
    return module


def runs(*values):
    return [{"ttft_mean": v, "attained": v} for v in values]


def test_paired(script):
    """Seeds that are slow for both do not count as noise; a policy that answers nothing is infinitely slow."""
    assert script.paired(runs(2.2, 4.4), runs(2.0, 4.0), "ttft_mean") == pytest.approx((0.1, 0.1 / 3))
    assert script.paired(runs(1.5, 2.5), runs(1.0, 2.0), "ttft_mean") == pytest.approx((1 / 3, 0))
    assert script.paired(runs(0.9, 0.8), runs(1.0, 0.9), "attained", share=True) == pytest.approx((-0.1, 0))
    assert script.paired(runs(None, 1.0), runs(1.0, 1.0), "ttft_mean")[0] == float("inf")
    assert script.best({"a": runs(1.0, 3.0), "b": runs(1.5, 1.5), "c": runs(None, 0.1)}, "abc", "ttft_mean") == "b"


@pytest.mark.parametrize("excess, noise, verdict", [(-0.01, 0, "yes"), (0, 0, "yes"), (0.01, 0.005, "~"), (0.011, 0.005, "NO"), (float("inf"), 0, "NO")])
def test_verdict(script, excess, noise, verdict):
    assert script.verdict(excess, noise) == verdict
