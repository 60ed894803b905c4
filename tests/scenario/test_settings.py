"""Seed document 0: the annotations of a pool, their defaults, bad values and hot changes; `penstock check` (rows A3, A5, A9, A10, A13-A21, A23, A25-A27, A42, B4, B5,
C34, D9, D10, X22)."""
import subprocess
import time

import pytest
import yaml

import manifests
from conftest import EXAMPLES, http, wait_for
from manifests import ENV, X
from resources import (BLOCK_SIZE, LRU_CAPACITY, MAX_BLOCKS, PREFIX, PREFIX_DEPTH, STRATEGY, UNKNOWN_MODEL, Steady, many, per_pod, text_of, world)  # noqa: F401

DEFAULTS = {
    STRATEGY: "DEFAULT", BLOCK_SIZE: "64", MAX_BLOCKS: "128", LRU_CAPACITY: "50000", X + "/queueing": "disabled", ENV + "/total-queue-capacity": "104857600",
    ENV + "/queue-ttl": "30s", X + "/model-server-runtime": "vllm", X + "/epp-overlay": ""}
QUEUEING, OLD_SWITCH = X + "/queueing", ENV + "/experimental-use-queueing"
OWN = {"penstock.dev/" + n: v for n, v in {
    "queue-order": "fifo", "queue-late": "2s", "queue-discard": "lowest-class", "total-queue-requests": "100000", "queue-ttl-max": "30s", "queue-early-refusal": "own-deadline",
    "prefix-wait": "0s", "flow-weights": "", "trust-request-headers": "all"}.items()}


def extension(kind, name, pool=manifests.POOL, **spec):
    """An InferenceObjective or InferenceModelRewrite for a pool of v1alpha2."""
    return {"apiVersion": f"{X}/v1alpha2", "kind": kind, "metadata": manifests.meta(name), "spec": {"poolRef": {"group": X, "name": pool}, **spec}}


# --- what /config shows --------------------------------------------------------------------------------------------------------------


def test_all_nine_annotations_are_shown(gateway):
    """A3: all nine set together; /config shows every value, and that of a later version as accepted, not in effect yet."""
    gw = gateway(EXAMPLES / "custom-config")
    (pool,) = [b for b in gw.config()["backends"] if b["name"] == "all-settings-pool"]
    got = {s["name"]: s for s in pool["settings"]}
    want = {STRATEGY: "PREFIX_CACHE", BLOCK_SIZE: "128", MAX_BLOCKS: "256", LRU_CAPACITY: "20000", X + "/model-server-runtime": "vllm",
            X + "/queueing": "enabled", ENV + "/total-queue-capacity": "52428800", ENV + "/queue-ttl": "1m30s"}
    later = {X + "/epp-overlay": "custom-epp"}
    for name, value in {**want, **later}.items():
        assert got[name]["value"] == value and got[name]["given"] == value, got[name]
    assert {got[n]["state"] for n in want} == {"effective"}
    for name in later:
        assert got[name]["state"] == "not in effect yet" and got[name]["note"] == "accepted, not in effect yet", got[name]


def test_defaults_are_the_documents(world):
    """A10, A13-A19, A21, A23, A26, A36: without annotations every documented default is in effect and shown; so are those of our own."""
    settings = world.serve(1).start_pool().settings()
    defaults = {**DEFAULTS, **OWN}
    assert {n: settings[n]["value"] for n in defaults} == defaults
    assert {n for n in defaults if settings[n]["state"] != "default"} == {X + "/epp-overlay"}
    assert {settings[n]["given"] for n in defaults} == {""}


def test_old_names_of_queueing_and_unknown_names(world):
    """Decisions 1 and 12: experimental-use-* are accepted; settings of the reference picker are listed with a reason; unknown names are warned about."""
    w = world.serve(1).start_pool({ENV + "/experimental-use-queueing": "true", ENV + "/experimental-use-scheduler-v2": "true",
                                   ENV + "/kv-cache-score-weight": "2", X + "/no-such-setting": "1"})
    s = w.settings()
    assert s[OLD_SWITCH]["state"] == "effective" and s[QUEUEING]["value"] == "enabled" and "experimental-use-queueing" in s[QUEUEING]["note"]
    assert s[ENV + "/experimental-use-scheduler-v2"]["state"] == "no effect" and "one scheduler" in s[ENV + "/experimental-use-scheduler-v2"]["note"]
    assert s[ENV + "/kv-cache-score-weight"]["note"].startswith("no effect, because")
    assert s[X + "/no-such-setting"]["state"] == "unknown"
    (warning,) = [e for e in w.gw.events("Configuration") if "no-such-setting" in e.get("field", "")]
    assert warning["level"].lower().startswith("warn") and warning["line"] > 0 and warning["file"].endswith("objects.yaml")
    assert w.chat().status == 200


def test_both_switches_of_queueing(world):
    """A19, A20, D9, decision 1: either word switches queueing on; `queueing` wins when both are given, and a contradiction is warned about."""
    w = world.serve(1).start_pool()
    for given, shown, old in (({QUEUEING: "enabled"}, "enabled", "default"), ({QUEUEING: "true"}, "true", "default"), ({OLD_SWITCH: "true"}, "enabled", "effective"),
                              ({QUEUEING: "disabled", OLD_SWITCH: "true"}, "disabled", "no effect"), ({}, "disabled", "default")):
        w.annotate(given)
        s = w.settings()
        assert s[QUEUEING]["value"] == shown and s[OLD_SWITCH]["state"] == old, given
    (warning,) = [e for e in w.gw.events("Configuration") if e.get("field", "").endswith(OLD_SWITCH) and e["level"].lower().startswith("warn")]
    assert "queueing is given" in warning["text"]
    assert w.chat().status == 200


def test_own_settings_of_queueing(world):
    """Settings of flow control are hot; a bad one keeps what was in effect and names the entry; the longest TTL is never below the usual one."""
    w = world.serve(1).start_pool()
    good = {"penstock.dev/queue-order": "deadline", "penstock.dev/queue-discard": "earliest", "penstock.dev/total-queue-requests": "50",
            "penstock.dev/queue-ttl-max": "2m", "penstock.dev/queue-early-refusal": "disabled", "penstock.dev/prefix-wait": "200ms",
            "penstock.dev/flow-weights": "team-a=3,team-b=0.5", "penstock.dev/trust-request-headers": "objective,ttl"}
    w.annotate(good)
    s = w.settings()
    assert {n: (s[n]["value"], s[n]["state"]) for n in good} == {n: (v, "effective") for n, v in good.items()}
    (pool,) = w.gw.config()["backends"]
    assert pool["trust"] == ["objective", "ttl"]
    w.annotate({n: v + ",b=x" for n, v in good.items()})
    s = w.settings()
    assert {n: (s[n]["value"], s[n]["state"]) for n in good} == {n: (v, "bad value, kept") for n, v in good.items()}
    assert '"b=x", whose weight is no number' in s["penstock.dev/flow-weights"]["note"]
    w.annotate({ENV + "/queue-ttl": "5m", "penstock.dev/queue-ttl-max": "2m"})
    assert w.settings()["penstock.dev/queue-ttl-max"]["value"] == "5m0s" and "raised" in w.settings()["penstock.dev/queue-ttl-max"]["note"]
    assert w.chat().status == 200


def test_objectives_and_rewrites_are_shown(world):
    """X22, 1.6 and 1.7 of the protocol: /config names the objectives with their priorities, the models they speak for and the rewrites, and follows changes."""
    rules = [{"matches": [{"model": {"value": "old"}}], "targets": [{"modelRewrite": "qwen", "weight": 1}]}]
    w = world.serve(1).start_pool({}, extension("InferenceObjective", "gold", priority=7, modelName="qwen"), extension("InferenceObjective", "bulk", priority=-1),
                                  extension("InferenceModelRewrite", "names", rules=rules))
    (pool,) = w.gw.config()["backends"]
    assert pool["objectives"] == [{"name": "bulk", "priority": -1}, {"name": "gold", "priority": 7}]
    assert [(m["object"], m["model_name"], m["criticality"], m["priority"]) for m in pool["models"]] == [("gold", "qwen", "Critical", 7)]
    assert pool["rewrites"] == [{"object": "names", "model": "old", "targets": [{"name": "qwen", "weight": 1}]}]
    assert w.chat().status == 200
    w.annotate({}, extension("InferenceObjective", "gold", priority=-3))
    (pool,) = w.gw.config()["backends"]
    assert pool["objectives"] == [{"name": "gold", "priority": -3}] and pool["models"] == [] and pool["rewrites"] == []


# --- bad values ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["abc", "-1", "9223372036854775808"])
def test_bad_numbers_are_survivable(world, bad):
    """A18: the default stays, a warning names the field, the pool serves."""
    names = (BLOCK_SIZE, MAX_BLOCKS, LRU_CAPACITY, ENV + "/total-queue-capacity")
    w = world.serve(1).start_pool({n: bad for n in names})
    settings = w.settings()
    for n in names:
        assert settings[n]["state"] == "bad value, kept" and settings[n]["value"] == DEFAULTS[n] and settings[n]["given"] == bad, settings[n]
        assert [e for e in w.gw.events("Configuration") if e["field"].endswith(n) and e["level"].lower().startswith("warn")], n
    assert w.chat().status == 200


def test_bad_strategy_and_durations(world):
    """A13, A25, decision 12: FOO means DEFAULT; a bad value later keeps the last good one; durations by their grammar."""
    w = world.serve(1).start_pool({STRATEGY: "FOO", ENV + "/queue-ttl": "5d"})
    assert w.settings()[STRATEGY]["value"] == "DEFAULT" and w.settings()[STRATEGY]["state"] == "bad value, kept"
    assert w.settings()[ENV + "/queue-ttl"]["value"] == "30s"
    (warning,) = [e for e in w.gw.events("Configuration") if e["field"].endswith(STRATEGY)]
    assert "FOO" in warning["text"]
    assert w.chat().status == 200
    w.annotate(PREFIX)
    assert w.settings()[STRATEGY]["state"] == "effective"
    w.annotate({STRATEGY: "FOO"})
    assert w.settings()[STRATEGY]["value"] == "PREFIX_CACHE", "the last good value stays"
    assert w.chat().status == 200
    for good in ("300ms", "1.5h", "2h45m", "1us", "1\u00b5s", "100ns"):
        w.annotate({ENV + "/queue-ttl": good})
        assert w.settings()[ENV + "/queue-ttl"]["value"] == good
    for bad in ("30", "abc", "-1.5h", "0s"):
        w.annotate({ENV + "/queue-ttl": bad})
        assert w.settings()[ENV + "/queue-ttl"]["state"] == "bad value, kept"


# --- prefix settings -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def one(world):
    """One large and fast server behind PREFIX_CACHE: what it is believed to hold is seen in the log line."""
    return world.serve(1, "--time-scale", "500", "--profile", "h100-qwen3-32b", "--max-model-len", "1000000", "--kv-tokens", "4000000")


def test_block_size(one):
    """A14, A15: 64 characters in common are one block, 63 none; 256 set hot, 255 none, 256 one; the process stays the same."""
    w = one.start_pool(PREFIX)
    pid = w.gw.pid
    a, b, c = text_of(64, 1), text_of(64, 2), text_of(512, 3)
    assert w.hit(a + "the first tail") == 0
    assert w.hit(a + "another tail") == 64
    assert w.hit(b + "the first tail") == 0
    assert w.hit(b[:63] + "~another tail") == 0
    w.annotate({**PREFIX, BLOCK_SIZE: "256"})
    assert w.hit(c) == 0
    assert w.hit(c[:255] + "~" * 300) == 0
    assert w.hit(c[:256] + "~" * 300) == 256
    assert w.hit(a + "another tail") == 0, "no whole block of 256"
    assert w.gw.pid == pid and w.gw.alive()


def test_block_size_counts_bytes_of_the_prompt(one):
    """A14, decision 15: escapes and multi-byte characters count as the bytes of the text."""
    w = one.start_pool(PREFIX)
    a = "\u00e9" * 32 + "x"  # 64 bytes and one more
    assert w.hit(a + "1") == 0
    assert w.hit(a + "2") == 64
    raw = ('{"prompt": "' + "\\u00e9" * 32 + 'x3", "max_tokens":1, "model":"qwen"}').encode()
    line, _ = w.line(lambda: http("POST", w.url("/v1/completions"), raw, {"Content-Type": "application/json"}))
    assert line["prefix_hit_bytes"] == 64


def test_max_prefix_blocks(one):
    """A16, decision 14: of two prompts with 10 000 blocks in common 128 or 4 match when so set; deeper by default; documented depth on request."""
    w = one.start_pool({**PREFIX, MAX_BLOCKS: "128"})
    text = text_of(640000, 5)

    def matched():
        w.hit(text + "one")
        return w.hit(text + "two")

    assert matched() == 128 * 64
    w.annotate({**PREFIX, MAX_BLOCKS: "4"})
    assert matched() == 4 * 64
    w.annotate({**PREFIX, PREFIX_DEPTH: "documented"})
    assert matched() == 128 * 64
    w.annotate(PREFIX)
    assert 512 * 1024 <= matched() <= 640000
    w.annotate({**PREFIX, MAX_BLOCKS: "128", PREFIX_DEPTH: "deep"})
    assert matched() > 128 * 64, "both asked for"


def test_lru_capacity(one):
    """A17: with room for 100 blocks the first prompt is forgotten after 200 others; memory is bounded, and larger with 50000."""
    w = one.start_pool({**PREFIX, LRU_CAPACITY: "100"})
    first = text_of(640, 100)
    assert w.hit(first) == 0
    assert w.hit(first) == 640
    for seed in range(40):
        w.complete(text_of(64 * 50, seed))
    assert w.hit(first) == 0
    small = w.backend()
    assert w.endpoints()["pod-0"]["index_blocks"] <= 100
    w.annotate(PREFIX)
    assert w.hit(first) in (0, 640)
    for seed in range(200, 240):
        w.complete(text_of(64 * 50, seed))
    assert w.hit(first) == 640
    large = w.backend()
    assert large["index_memberships"] > 2000 and large["index_bytes"] > small["index_bytes"]
    assert w.gw.metric("penstock_prefix_index_bytes") == large["index_bytes"]


# --- hot changes ---------------------------------------------------------------------------------------------------------------------


def connections(ip, port=8000):
    """Local ports of the established connections to a server."""
    out = set()
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        address = ".".join(str(int(remote[i:i + 2], 16)) for i in (6, 4, 2, 0))
        if state == "01" and address == ip and int(remote[9:], 16) == port:
            out.add(int(local[9:], 16))
    return out


def test_strategy_is_hot(world):
    """A5, B4, A9: under load PREFIX_CACHE takes effect within 5 s and DEFAULT again; same process, no failed request, connections to the servers stay."""
    w = world.serve(4).start_pool()  # in real time: a faster server would also close idle connections sooner
    pid = w.gw.pid
    prompt = text_of(2000, 7)
    sims = [s.pid for s in w.servers.values()]
    with Steady(w.url("/v1/completions"), clients=4, body=lambda i: {"model": "qwen", "prompt": prompt, "max_tokens": 1}) as steady:
        start = steady.mark()
        wait_for(lambda: len(steady.pods_since(start)) == 4, 5, what="DEFAULT to use all pods")

        def change(annotations, settled, what):
            before = {n: connections(s.ip) for n, s in w.servers.items()}
            w.annotate(annotations)
            t = steady.mark()
            after = {n: connections(s.ip) for n, s in w.servers.items()}
            kept = sum(len(before[n] & after[n]) for n in before)
            assert kept >= 0.75 * sum(map(len, before.values())), (before, after)
            while True:
                mark = steady.mark()
                time.sleep(0.4)
                pods = steady.pods_since(mark)
                if sum(pods.values()) > 8 and settled(pods):
                    break
                assert steady.mark() - t < 5, f"{what}: {pods}"

        change(PREFIX, lambda p: len(p) == 1, "PREFIX_CACHE to keep the prompt on one pod")
        change({}, lambda p: len(p) == 4, "DEFAULT again")
        change({**PREFIX, BLOCK_SIZE: "128"}, lambda p: len(p) == 1, "PREFIX_CACHE with another block size")
    assert w.gw.pid == pid and w.gw.alive() and all(s.alive() for s in w.servers.values()) and sims == [s.pid for s in w.servers.values()]
    w.gw.assert_idle()


def test_changes_keep_the_index(world):
    """Every annotation changed hot keeps what is known about the servers' caches (a new block size alone must begin anew)."""
    w = world.serve(3, "--time-scale", "20").start_pool(PREFIX)
    prompt = text_of(1280, 9)
    line, _ = w.line(lambda: w.complete(prompt))
    for change in ({LRU_CAPACITY: "40000"}, {MAX_BLOCKS: "64"}, {UNKNOWN_MODEL: "serve"}, {X + "/queueing": "enabled"}, {ENV + "/queue-ttl": "1s"},
                   {ENV + "/sd-queue-depth-threshold": "7"}, {STRATEGY: "DEFAULT"}, {}):
        w.annotate({**PREFIX, **change})
        if change.get(STRATEGY) == "DEFAULT":
            continue
        again, _ = w.line(lambda: w.complete(prompt))
        assert again["pod"] == line["pod"] and again["prefix_hit_bytes"] == 1280, change


def test_no_annotation_is_default(world, gateway):
    """A10, B5, C34: without the annotation and with DEFAULT the same requests go to the same pods."""
    w = world.serve(4, "--time-scale", "5").start_pool()
    runs = []
    for annotations in (None, {STRATEGY: "DEFAULT"}):
        other = w.dir.with_name(f"conf-{len(runs)}")
        other.mkdir()
        manifests.write(other / "world.yaml", manifests.world({n: s.ip for n, s in w.servers.items()}, annotations))
        gw = gateway(other, options=("--workers", "1"))
        pods = [http("POST", gw.url(8080, "/v1/completions"), {"model": "qwen", "prompt": text_of(200, 3), "max_tokens": 1}) for _ in range(24)]
        runs.append([p.headers["x-inference-pod"] for p in pods])
        assert not any(h["prefix_hit_bytes"] for h in gw.handled(24)), "no prefix is looked at"
    assert runs[0] == runs[1] and len(set(runs[0])) == 4


# --- what is read from the servers ----------------------------------------------------------------------------------------------------


def test_metrics_of_both_engines(world):
    """A26, A27, C20-C25: gpu_cache_usage_perc of v0 and kv_cache_usage_perc of v1 are read side by side, without an annotation."""
    w = world
    w.server("old", "--metrics", "v0")
    w.server("new", "--metrics", "v1")
    w.start_pool()
    w.fix_metrics("old", kv=0.25, waiting=2, running=3)
    w.fix_metrics("new", kv=0.5, waiting=4, running=5)
    loads = {n: e["load"] for n, e in w.endpoints().items()}
    assert [(loads[n]["kv_frac"], loads[n]["waiting"], loads[n]["running"]) for n in ("old", "new")] == [(0.25, 2, 3), (0.5, 4, 5)]
    assert all(e["kv_tokens"] > 0 and e["load"]["fresh"] for e in w.endpoints().values())
    pages = {n: http("GET", s.base + "/metrics").text for n, s in w.servers.items()}
    assert "\nvllm:kv_cache_usage_perc{" not in pages["old"] and "\nvllm:gpu_cache_usage_perc{" not in pages["new"]


def test_metrics_the_documents_list(sandbox):
    """C20-C25: every metric of the document is on the page of a server with v0's names, and counts what happened."""
    sb = sandbox(EXAMPLES / "two-ports")
    (deployment,) = [d for f in (EXAMPLES / "two-ports").glob("*.yaml") for d in yaml.safe_load_all(f.read_text()) if d["kind"] == "Deployment"]
    notes = deployment["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"prometheus.io/path": "/metrics", "prometheus.io/port": "8000", "prometheus.io/scrape": "true"}
    address = sb.pods()[0]["address"]
    assert http("POST", f"http://{address}/v1/completions", {"model": "/model/qwen", "prompt": "a b c", "max_tokens": 3}).status == 200
    text = http("GET", f"http://{address}/metrics").text
    for name in ("gpu_cache_usage_perc", "request_queue_time_seconds_sum", "num_requests_running", "num_requests_waiting",
                 "time_to_first_token_seconds_bucket"):
        assert f"\nvllm:{name}{{" in text, name
    assert "vllm:generation_tokens_total" in text


def test_metrics_of_the_old_engine(sim, release_binary):
    """C23, C24: running, waiting, swapped and the two throughput gauges of v0."""
    s = sim("--model", "/models/qwen", "--served-model-name", "qwen", "--metrics", "v0", binary=release_binary)
    text = http("GET", s.base + "/metrics").text
    for name in ("num_requests_running", "num_requests_waiting", "num_requests_swapped", "avg_generation_throughput_toks_per_s",
                 "avg_prompt_throughput_toks_per_s", "gpu_cache_usage_perc", "request_queue_time_seconds_sum"):
        assert f"\nvllm:{name}{{" in text, name


# --- the samples of the document ------------------------------------------------------------------------------------------------------


def test_sample_pools_apply_unchanged(sandbox):
    """A9, A42, A39, B37: both sample pools of the document serve; the ConfigMap and its annotation are accepted."""
    sb = sandbox(EXAMPLES / "custom-config", options=("--time-scale", "20"))
    for port in (8080, 8081, 8082):
        counts = per_pod(many(sb.url(port, "/v1/chat/completions"), 12))
        assert all(p.startswith("qwen" if port == 8081 else "vllm-app") for p in counts), counts
    round1, round2 = ({"model": "qwen", "max_tokens": 2, "messages": [{"role": "user", "content": text_of(900, 77)}] + more}
                      for more in ([], [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "and then?"}]))
    pods = {http("POST", sb.url(8080, "/v1/chat/completions"), r).headers["x-inference-pod"] for r in (round1, round2)}
    assert len(pods) == 1, "PREFIX_CACHE is in effect"


# --- check -----------------------------------------------------------------------------------------------------------------------------


def check(binary, *files, code=0):
    args = [str(binary), "check"]
    for f in files:
        args += ["-f", str(f)]
    run = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert run.returncode == code, f"{run.returncode}:\n{run.stdout}\n{run.stderr}"
    assert "Sanitizer" not in run.stderr, run.stderr
    return run.stdout


SMART = EXAMPLES / "smart-routing"
SETS = [[EXAMPLES / d] for d in ("two-ports", "queueing", "custom-config", "canary", "model-routing", "objectives")]
SETS += [[SMART / "workload.yaml", SMART / p, SMART / "gateway_networking.yaml"] for p in ("inference_networking.yaml", "Prefix_Cache.yaml")]
SETS += [[v, SMART / "gateway_networking.yaml"] for v in sorted((SMART / "variants").glob("*.yaml"))]
SETS += [[EXAMPLES]]


@pytest.mark.parametrize("files", SETS, ids=lambda f: "+".join(p.name for p in f))
def test_examples_are_valid(binary, files):
    """Every example passes `penstock check`, which explains listeners, routes and pools."""
    out = check(binary, *files)
    assert "listener " in out or "EXAMPLES" in str(files)
    assert "0 errors" in out


def pool_text(**spec):
    return manifests.dump({"apiVersion": f"{X}/v1alpha2", "kind": "InferencePool", "metadata": {"name": "p"}, "spec": spec})


GOOD = {"targetPortNumber": 8000, "selector": {"app": "x"}, "extensionRef": {"name": "e"}}
BAD = {
    "port of another type": ("kind: InferencePool\napiVersion: inference.networking.x-k8s.io/v1alpha2\nmetadata:\n  name: p\nspec:\n"
                             "  targetPortNumber: eight\n  selector:\n    app: x\n", 6, "spec.targetPortNumber"),
    "port out of range": ("kind: InferencePool\napiVersion: inference.networking.x-k8s.io/v1alpha2\nmetadata:\n  name: p\nspec:\n"
                          "  selector:\n    app: x\n  targetPortNumber: 70000\n", 8, "spec.targetPortNumber"),
    "no selector": ("kind: InferencePool\napiVersion: inference.networking.x-k8s.io/v1alpha2\nmetadata:\n  name: p\nspec:\n"
                    "  targetPortNumber: 8000\n", None, "spec.selector"),
    "unknown criticality": ("apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\nmetadata:\n  name: m\nspec:\n"
                            "  modelName: m\n  criticality: Urgent\n  poolRef:\n    name: p\n", 7, "spec.criticality"),
    "weights for some": ("apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\nmetadata:\n  name: m\nspec:\n"
                         "  modelName: m\n  poolRef:\n    name: p\n  targetModels:\n  - name: a\n    weight: 1\n  - name: b\n", None, "targetModels"),
    "rewrite to nothing": ("apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModelRewrite\nmetadata:\n  name: r\nspec:\n"
                           "  poolRef:\n    name: p\n  rules:\n  - targets: []\n", 9, "spec.rules[0].targets"),
    "objective without a pool": ("apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceObjective\nmetadata:\n  name: o\nspec:\n"
                                 "  priority: 1\n", None, "spec.poolRef"),
    "bad regular expression": ("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: r\nspec:\n  parentRefs:\n  - name: g\n"
                               "  rules:\n  - matches:\n    - path:\n        type: RegularExpression\n        value: /(v1\n", None,
                               "spec.rules[0].matches[0].path"),
    "two listeners of one name": ("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: g\nspec:\n  gatewayClassName: c\n"
                                  "  listeners:\n  - name: a\n    port: 80\n    protocol: HTTP\n  - name: a\n    port: 81\n    protocol: HTTP\n", 11,
                                  "spec.listeners[1]"),
    "no YAML": ("kind: Pod\n\tname: x\n", 2, ""),
    "no name": ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", None, "metadata.name"),
}


@pytest.mark.parametrize("name", BAD)
def test_check_names_file_line_and_field(binary, tmp_path, name):
    """A bad manifest: exit code 1, one line with file, line and field; what is good beside it is still explained."""
    text, line, field = BAD[name]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    good = tmp_path / "good.yaml"
    good.write_text(manifests.world({"a": "127.0.0.1"}))
    out = check(binary, path, good, code=1)
    (finding,) = [x for x in out.splitlines() if x.startswith(str(path)) and " error: " in x]
    assert field in finding
    number = int(finding[len(str(path)) + 1:].split(":")[0])
    assert number == line if line else 1 <= number <= text.count("\n")
    assert "InferencePool default/pool" in out and "endpoint a 127.0.0.1:8000" in out


def test_check_explains_objectives_and_rewrites(binary, tmp_path):
    """What refers to no pool and what loses to an older object are warnings that say why; the rest is explained."""
    path = tmp_path / "a.yaml"
    target = [{"targets": [{"modelRewrite": "t"}]}]
    young = extension("InferenceModelRewrite", "young", rules=target)
    old = extension("InferenceModelRewrite", "old", rules=target)
    old["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    path.write_text("---\n".join([
        manifests.world({"a": "127.0.0.1"}).rstrip("\n") + "\n",
        *(manifests.dump(o) for o in (young, old, extension("InferenceObjective", "gold", priority=7), extension("InferenceObjective", "lost", pool="nowhere"),
                                      extension("InferenceModelRewrite", "gone", pool="nowhere", rules=target)))]))
    out = check(binary, path)
    for line in ("InferenceObjective default/lost: spec.poolRef: there is no InferencePool default/nowhere",
                 "InferenceModelRewrite default/gone: spec.poolRef: there is no InferencePool default/nowhere",
                 "InferenceModelRewrite default/young: spec.rules[0]: has no effect for any model: it belongs to the older InferenceModelRewrite old of this pool"):
        (found,) = [x for x in out.splitlines() if line in x]
        assert " warning: " in found
    assert "objective gold (priority 7)" in out and "rewrites every other model -> t 100.0 % (InferenceModelRewrite old)" in out
    assert "0 errors, 3 warnings" in out


def test_check_usage_and_unreadable(binary, tmp_path):
    """Exit codes: 2 for wrong usage, 1 for a path that cannot be read; unknown kinds and fields are warnings only."""
    assert subprocess.run([str(binary), "check"], capture_output=True).returncode == 2
    assert subprocess.run([str(binary), "check", "--no-such-option"], capture_output=True).returncode == 2
    check(binary, tmp_path / "missing.yaml", code=1)
    path = tmp_path / "a.yaml"
    path.write_text(pool_text(**GOOD, colour="blue") + "---\napiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: t\n")
    out = check(binary, path)
    assert "spec.colour" in out and "Thing" in out and "0 errors" in out


LITERAL_000 = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata:
  name: vllm-app-pool
  annotations:
    # Set the load balancing policy to be prefix-aware
    inference.networking.x-k8s.io/routing-strategy: "PREFIX_CACHE" 
spec:
  targetPortNumber: 8000
  selector:
    app: vllm-app
  extensionRef:
    name: inference-gateway-ext-proc
---
apiVersion: v1
data:
  deployment: |- 
    spec:
      replicas: 1
kind: ConfigMap
metadata:
  name: custom-epp
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata:
  annotations:
    inference.networking.x-k8s.io/epp-overlay: custom-epp # Specify the override configuration for the inference extension
  name: qwen-pool
spec:
  extensionRef:
    group: ''
    kind: Service
    name: qwen-ext-proc
  selector:
    app: qwen
  targetPortNumber: 8000
"""


def test_literal_yaml_of_the_document(binary, tmp_path):
    """A42: the document's manifests, comments, trailing blanks and all, are accepted as they are; with Windows line ends, too."""
    for i, text in enumerate((LITERAL_000, LITERAL_000.replace("\n", "\r\n"))):
        path = tmp_path / f"{i}.yaml"
        path.write_bytes(text.encode())
        out = check(binary, path)
        assert "InferencePool default/vllm-app-pool" in out and "InferencePool default/qwen-pool" in out
        assert "epp-overlay = custom-epp (accepted, not in effect yet)" in out
