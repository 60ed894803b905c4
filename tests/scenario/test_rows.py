"""Rows C31, C32, B46-B48: the short form of bench/rows, with limits wide enough for one run on a busy machine. The full form is a benchmark."""
import json
import os
import subprocess

from conftest import ROOT


def test_routing_shows(release_binary, tmp_path):
    """Caches are used more evenly than by a plain HTTP route and throughput stays; mixed lengths are answered sooner; conversations find their cache."""
    build = release_binary.parents[1]
    done = subprocess.run([ROOT / "bench" / "rows", "--short", "--build", build, "--results", tmp_path, "--json", tmp_path / "rows.json"],
                          capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    rows = {row: {side: runs[0] for side, runs in sides.items()} for row, sides in json.loads((tmp_path / "rows.json").read_text()).items()}
    assert all(run["failed"] == 0 and run["completed"] > 0 for sides in rows.values() for run in sides.values())

    def ratio(row, key, ours, other):
        return rows[row][ours][key] / rows[row][other][key]

    even, plain = "inference route", "HTTP route"
    assert ratio("c32", "kv_cv_now", even, plain) < 0.9
    assert ratio("c32", "mean_ttft_ms", even, plain) < 1.15
    assert ratio("c32", "output_throughput", even, plain) > 0.95
    assert ratio("b46", "mean_ttft_ms", even, plain) < 0.85
    assert ratio("b46", "output_throughput", even, plain) > 0.95
    assert rows["b47"]["PREFIX_CACHE"]["hit_rate"] > rows["b47"]["DEFAULT"]["hit_rate"] + 0.15
    assert ratio("b47", "mean_ttft_ms", "PREFIX_CACHE", "DEFAULT") < 0.85
    assert ratio("b47", "later_ttft_ms", "PREFIX_CACHE", "DEFAULT") < 0.7
