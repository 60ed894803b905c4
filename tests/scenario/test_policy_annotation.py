"""penstock.dev/policy: any policy of the picker by name, changed under way, refused when it is none."""
import subprocess
from collections import Counter

from resources import PREFIX, STRATEGY, Steady, chat_body, many, per_pod, text_of, world  # noqa: F401

POLICY = "penstock.dev/policy"
NAMES = ["default", "prefix-cache", "round-robin", "random", "least-request", "session-hash", "reference", "reference-deep", "reference-load", "cache-aware",
         "dynamo", "lmetric", "least-work", "preble"]


def same_prompt(w, n=24):
    """The log lines of n equal prompts, one after the other."""
    prompt = text_of(3000, 1)
    lines = [w.line(lambda: w.complete(prompt))[0] for _ in range(n)]
    return Counter(e["pod"] for e in lines), {e["reason"] for e in lines}, [e["prefix_hit_bytes"] for e in lines]


def test_policy_changes_live(world):
    """prefix-cache keeps a prompt on one pod; random spreads it, least-request spreads what is under way evenly, and back again, without a restart."""
    w = world.serve(3).start_pool(PREFIX)
    pods, reasons, hits = same_prompt(w)
    assert len(pods) == 1 and "policy" not in reasons and min(hits[1:]) > 2000, (pods, reasons, hits)
    (home,) = pods

    w.annotate({**PREFIX, POLICY: "random"})
    pods, reasons, hits = same_prompt(w)
    assert len(pods) == 3 and reasons == {"policy"} and max(hits) == 0, (pods, reasons, hits)
    s = w.settings()
    assert (s[POLICY]["value"], s[POLICY]["state"]) == ("random", "effective")
    assert s[STRATEGY]["state"] == "no effect" and s[STRATEGY]["note"] == "no effect, because penstock.dev/policy is given", s[STRATEGY]

    w.annotate({**PREFIX, POLICY: "LEAST_REQUEST"})
    before = {n: e["picks"] for n, e in w.endpoints().items()}
    counts = per_pod(many(w.url(), 30, clients=30, body=lambda i: chat_body(text_of(3000, 1), max_tokens=150)))
    assert set(counts.values()) == {10}, counts
    assert {n: e["picks"] - before[n] for n, e in w.endpoints().items()} == counts

    w.annotate(PREFIX)
    pods, reasons, hits = same_prompt(w)
    assert len(pods) == 1 and "policy" not in reasons and min(hits[1:]) > 2000, (pods, reasons, hits)
    assert w.settings()[STRATEGY]["state"] == "effective"
    w.gw.assert_idle()


def test_change_with_requests_under_way(world):
    """Every policy in turn while requests run: none fails, and the books are empty at the end."""
    w = world.serve(3, "--time-scale", "5").start_pool(PREFIX)
    with Steady(w.url(), body=lambda i: chat_body(text_of(2000, i % 5), max_tokens=20)) as steady:
        for name in NAMES + ["prefix-cache"]:
            w.annotate({**PREFIX, POLICY: name})
            t = steady.mark()
            assert w.settings()[POLICY]["value"] == name
            done = w.chat(text_of(2000, 3))
            assert done.status == 200 and steady.mark() >= t
    w.gw.assert_idle()


def test_wrong_policy_is_refused(world, binary):
    """A name that is none: a warning that lists those there are, the last good value stays; `penstock check` shows both."""
    w = world.serve(2).start_pool({POLICY: "random"})
    w.annotate({POLICY: "fastest"})
    s = w.settings()[POLICY]
    assert s["value"] == "random" and s["given"] == "fastest", s
    assert "is none of " + ", ".join(NAMES) in s["note"] and "random stays in effect" in s["note"], s
    assert same_prompt(w, 4)[1] == {"policy"}
    check = subprocess.run([binary, "check", "-f", str(w.dir)], capture_output=True, text=True, timeout=30)
    assert f'metadata.annotations.{POLICY}: "fastest" is none of' in check.stdout + check.stderr, check
    w.annotate({POLICY: "dynamo", **PREFIX})
    check = subprocess.run([binary, "check", "-f", str(w.dir)], capture_output=True, text=True, timeout=30)
    assert check.returncode == 0 and "dynamo" in check.stdout, check
    assert "the policy is dynamo, not what " + STRATEGY + " says" in check.stdout + check.stderr, check
