"""The ten manifests of seed document 1, five kinds of deployment under two policies, from the sandbox: rows B6-B30; examples for the other kinds of
servers; runtimes by annotation, policy and detection; the InferenceTrafficPolicy changed while requests run."""
import json
import time

import pytest

import manifests
from conftest import EXAMPLES, http, wait_for
from load import Load
from resources import STRATEGY, Steady, chat_body, httproute, model, path, pool_ref, rule, world  # noqa: F401
from split import PREFIX_POLICY, ROLE, labels, long_text, policy, sim_options, single, split  # noqa: F401
from test_smart_routing import HELLO, MODEL, NETWORK, SMART, chat, curl, user

FAST = ("--time-scale", "10")
RUNTIME = f"{manifests.X}/model-server-runtime"

# name: the manifest in variants, the workload, beginning of the names of the pods that serve, their number
TOPOLOGIES = {"vllm-single": ("vllm-single", "workload.yaml", "vllm-inference", 4),
              "sglang-single": ("sglang-single", "workloads/sgl-inference.yaml", "sgl-inference", 4),
              "vllm-distributed": ("vllm-distributed", "workloads/vllm-multi-nodes.yaml", "vllm-multi-nodes", 2),
              "vllm-statefulset": ("vllm-distributed", "workloads/vllm-multi-nodes-statefulset.yaml", "vllm-multi-nodes-leader", 2),
              "sglang-distributed": ("sglang-distributed", "workloads/sglang-multi-nodes.yaml", "sglang-multi-nodes", 2),
              "sglang-statefulset": ("sglang-distributed", "workloads/sglang-multi-nodes-statefulset.yaml", "sglang-multi-nodes-leader", 2),
              "sglang-pd": ("sglang-pd", "workloads/sglang-pd.yaml", "sglang-pd", 3)}


class Deployed:
    """One manifest of the document with its workload and another one beside it."""

    def __init__(self, sandbox, kind, policy):
        variant, workload, self.prefix, self.n = TOPOLOGIES[kind]
        self.pd, self.other = kind == "sglang-pd", "vllm-single" if kind.startswith("sglang") else "sglang-single"
        self.sb = sandbox(SMART / "variants" / f"{policy}-{variant}.yaml", SMART / workload, SMART / TOPOLOGIES[self.other][1], NETWORK, options=FAST)

    def servers(self):
        """{name: pod} of those that answer HTTP, ours."""
        return {p["name"]: p for p in self.sb.pods() if p["address"] and not p["name"].startswith(TOPOLOGIES[self.other][2])}

    def role(self, role):
        return {n for n, p in self.servers().items() if p["labels"].get(ROLE) == role}

    def endpoints(self):
        (pool,) = [p for p in self.sb.endpoints()["pools"] if p["kind"] == "InferencePool"]
        return {e["pod"]: e for e in pool["endpoints"]}

    def got(self):
        """{pod: requests} of every server of the cluster that got some since the last look."""
        out = {}
        for p in self.sb.pods():
            if p["address"]:
                n = self.sb.pod(p["name"], "GET", "/requests").json()["total"]
                self.sb.pod(p["name"], "DELETE", "/requests")
                if n:
                    out[p["name"]] = n
        return out

    def ask(self, text=None, body=None):
        """One request: (its line, the pods that got it)."""
        seen = len(self.sb.events("Request Handled"))
        answer = http("POST", self.sb.url(8080, "/v1/chat/completions"), body) if body else chat(self.sb, [user(text)])
        assert answer.status == 200, answer.text
        return self.sb.handled(seen + 1)[seen], answer

    def named(self, line):
        return {line["pod"], line["prefill_pod"]} if self.pd else {line["pod"]}

    def delete(self, name, startup="10s"):
        """The server's clock runs ten times as fast: gone for 1 s."""
        answer = http("DELETE", f"{self.sb.control}/sim/pods/{name}?startup={startup}")
        assert answer.status == 200, answer.text
        return answer.json()["deleted"]


@pytest.mark.parametrize("kind,policy", [(k, p) for k in TOPOLOGIES for p in ("default", "prefix") if (p, k[-11:]) != ("default", "statefulset")])
def test_document(sandbox, kind, policy):
    """B6-B16, B18, B21, B24, B29-B31, X27: apply, curl as printed, only the right pods; PREFIX: both rounds and every conversation on one pod (or one of
    each role); a leader or a role deleted; back, and used again within 2 s of its readiness."""
    d = Deployed(sandbox, kind, policy)
    sb, mine = d.sb, set(d.servers())
    assert len(mine) == d.n and all(n.startswith(d.prefix) for n in mine), mine
    assert set(d.endpoints()) == mine, "leaders and single servers only"
    if d.pd:
        roles = {n: e["role"] for n, e in d.endpoints().items()}
        assert roles == {**{n: "prefill" for n in d.role("prefill")}, **{n: "decode" for n in d.role("decode")}} and len(d.role("prefill")) == 2

    # B44 and B43: the printed curl, the pods that got it, the line that names them
    for i in range(3):
        status, body = curl(sb.url(8080, "/v1/chat/completions"), "-H", "Content-Type: application/json", "-d", HELLO)
        assert status == 200 and json.loads(body)["model"] == MODEL, body
        got, line = d.got(), [e for e in sb.handled(i + 1) if e["model"] == MODEL][i]
        assert got == {n: 1 for n in d.named(line)} and set(got) <= mine, (got, line)
        assert line["status"] == 200 and line["model"] == MODEL == line["target_model"]
        if d.pd:
            assert line["prefill_pod"] in d.role("prefill") and line["pod"] in d.role("decode") and line["prefill"] == "elsewhere"
            assert chat(sb, [user("hello")], model="any/other-name").status == 200, "B30: no InferenceModel"
            d.got()

    if policy == "prefix":
        conversations(d)
    elif kind.endswith("single"):
        assert {d.ask(f"{i} " + long_text(i))[0]["pod"] for i in range(24)} == mine, "all pods are used"

    if d.pd:
        roles_deleted(d)
    else:
        server_deleted(d, mine)
    assert not [e for e in d.got() if e.startswith(TOPOLOGIES[d.other][2])]
    sb.assert_idle()


def conversations(d):
    """B42, B25, B26: the two rounds of the document, and 20 conversations with first messages of their own."""
    rounds = [json.loads((SMART / n).read_text()) for n in ("round1.txt", "round2.txt")]
    where = []
    for i in range(21):
        pods = []
        for body in rounds:
            text = json.dumps(body)
            if i:
                text = text.replace("For user 3", f"For user {i} of {i * 7919 % 1009}")
            line, _ = d.ask(body=json.loads(text))
            pods.append(d.named(line))
        assert pods[0] == pods[1], (i, pods)
        assert line["prefill_hit_bytes" if d.pd else "prefix_hit_bytes"] > 0
        where.append(frozenset(pods[0]))
    assert len(set(where)) == (2 if d.pd else d.n), "they are spread over the pods"
    d.got()


def ready_again(d, names):
    """Waits until the cluster has as many ready servers as before, none of them `names` as they were; (the new ones, when)."""
    new = wait_for(lambda: (lambda s: len(s) == d.n and all(p["ready"] for p in s.values()) and s)(d.servers()), 8, step=0.01, what="the pods to be back")
    return {n for n, p in new.items() if (n, p["ip"]) not in names}, time.monotonic()


def server_deleted(d, mine):
    before = {(n, p["ip"]) for n, p in d.servers().items()}
    gone = sorted(mine)[0]
    deleted = d.delete(gone)
    assert gone in deleted
    for i in range(6):
        line, _ = d.ask(f"{i} after " + long_text(100 + i))
        assert line["pod"] in mine - set(deleted), line
    wait_for(lambda: gone not in d.endpoints() or d.endpoints()[gone]["state"] == "not ready", 2, what="the deleted pod to leave")
    new, since = ready_again(d, before)
    assert new
    d.got()
    k = iter(range(10**6))
    wait_for(lambda: d.ask(f"{next(k)} again " + long_text(next(k)))[0]["pod"] in new, 2, step=0, what=f"{new} to be used again")
    assert time.monotonic() - since < 2.5
    assert set(d.got()) <= set(d.servers())


def roles_deleted(d):
    """B24: without a role a clear 503, at once; with it again, service within 2 s."""
    for role in ("decode", "prefill"):
        before = {(n, p["ip"]) for n, p in d.servers().items()}
        for name in sorted(d.role(role)):
            assert d.delete(name) == [name]
        wait_for(lambda r=role: not [e for e in d.endpoints().values() if e["role"] == r], 2, what=f"{role} gone")
        t = time.monotonic()
        answer = chat(d.sb, [user("hello")])
        assert answer.status == 503 and answer.json()["error"]["code"] == f"no_{role}_endpoint", answer.text
        assert role in answer.json()["error"]["message"] and answer.headers["retry-after"] and time.monotonic() - t < 1
        new, since = ready_again(d, before)
        wait_for(lambda: chat(d.sb, [user("hello")]).status == 200, 2, step=0.01, what="service")
        d.got()
        line, _ = d.ask("again")
        assert d.named(line) & new and set(d.got()) == d.named(line)
        assert time.monotonic() - since < 2.5


# --- examples ------------------------------------------------------------------------------------------------------------------


def sb_endpoints(sb, name=None):
    (pool,) = [p for p in sb.endpoints()["pools"] if p["kind"] == "InferencePool" and name in (None, p["name"])]
    return {e["pod"]: e for e in pool["endpoints"]}


def test_example_pd_vllm(sandbox):
    """vLLM with NIXL: a long prompt beside busy answers is computed elsewhere, a conversation stays on its pair."""
    sb = sandbox(EXAMPLES / "pd-vllm", options=FAST)
    roles = {n: e["role"] for n, e in sb_endpoints(sb).items()}
    assert sorted(roles.values()) == ["decode", "decode", "prefill", "prefill"]
    for n, role in roles.items():
        if role == "decode":
            sb.pod(n, "POST", "/metrics", {"running": 300})
    wait_for(lambda: all(e["load"]["running"] == 300 for e in sb_endpoints(sb).values() if e["role"] == "decode"), 5)
    for i in range(4):
        lines = []
        for text in (long_text(i, 4000), long_text(i, 4000) + " and more"):
            answer = chat(sb, [user(text)], port=8081)
            assert answer.status == 200, answer.text
            lines.append(sb.handled(2 * i + len(lines) + 1)[-1])
        assert lines[0]["prefill"] == "elsewhere" and roles[lines[0]["prefill_pod"]] == "prefill" and roles[lines[0]["pod"]] == "decode"
        assert lines[1].get("prefill_pod", lines[0]["prefill_pod"]) == lines[0]["prefill_pod"] and lines[1]["pod"] == lines[0]["pod"]
    sb.assert_idle()


def test_example_triton(sandbox):
    """A29, A11: Triton's own API routed by prompt, its load read at port 8002; a pod with a long queue is avoided."""
    sb = sandbox(EXAMPLES / "triton", options=FAST)
    url = sb.url(8081, "/v2/models/ensemble/generate")
    status, body = curl(url, "-d", json.dumps({"text_input": "What is the capital of France?", "max_tokens": 8}), "-H", "Content-Type: application/json")
    assert status == 200 and json.loads(body)["text_output"], body
    names = sorted(sb_endpoints(sb))
    assert len(names) == 3
    sb.pod(names[0], "POST", "/metrics", {"waiting": 30, "running": 40, "kv": 0.95})
    wait_for(lambda: sb_endpoints(sb)[names[0]]["load"]["waiting"] == 30, 5, what="the queue to be seen")
    assert sb_endpoints(sb)[names[0]]["load"]["kv_frac"] == pytest.approx(0.95, abs=0.01)
    for i in range(12):
        assert http("POST", url, {"text_input": long_text(i), "max_tokens": 4}).status == 200
    assert names[0] not in {h["pod"] for h in sb.handled(13)[1:]}
    for _ in range(4):
        assert http("POST", url, {"text_input": long_text(99), "max_tokens": 4}).status == 200
    assert len({h["pod"] for h in sb.handled(17)[13:]}) == 1
    sb.assert_idle()


def test_example_two_runtimes(sandbox):
    """B35: targetPortNumber 8000 and 30000, each pool with its runtime."""
    sb = sandbox(EXAMPLES / "two-runtimes", options=FAST)
    pools = (("qwen", 8000), ("qwen-sglang", 30000))
    for name, _ in pools:
        for i in range(3):
            answer = http("POST", sb.url(8081, "/v1/chat/completions"), chat_body(long_text(i), name))
            assert answer.status == 200, answer.text
    ports = dict(pools)
    lines = sb.handled(6)
    assert len(lines) == 6 and all(h["address"].endswith(f":{ports[h['model']]}") for h in lines), lines
    loads = {e["address"].rsplit(":", 1)[1]: e["load"] for p in sb.endpoints()["pools"] for e in p["endpoints"]}
    assert set(loads) == {"8000", "30000"} and all(v["fresh"] and v["waiting"] is not None for v in loads.values()), loads
    sb.assert_idle()


# --- runtimes ------------------------------------------------------------------------------------------------------------------

DIALECTS = {"vllm-v0": ("vllm", ["--metrics", "v0"]), "vllm-v1": ("vllm", ["--metrics", "v1"]), "sglang": ("sglang", ["--dialect", "sglang", "--enable-metrics"]),
            "triton": ("trt-llm", ["--dialect", "triton"]), "trtllm-serve": ("trt-llm", ["--dialect", "trtllm"])}


@pytest.mark.parametrize("how", ["annotation", "policy", "detected"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_runtimes(world, dialect, how):  # noqa: F811
    """A26-A29, B17, B20: queue and KV use of every kind of server, told by annotation, by policy, or by nobody: then it is recognised, with a warning
    unless it is the default. A server with a long queue is avoided."""
    runtime, args = DIALECTS[dialect]
    for i in range(2):
        world.server(f"pod-{i}", *args, *FAST)
    notes = {RUNTIME: runtime} if how == "annotation" else {}
    more = [single(runtime)] if how == "policy" else []
    world.start(manifests.pool(annotations=notes), manifests.route(), *more, options=("--scrape-interval", "200ms"))
    told = (dialect, how) != ("trtllm-serve", "detected")  # the page where it is recognised is empty while nothing runs
    if told:
        world.fix_metrics("pod-0", waiting=12, kv=0.75, running=20)
        load = world.endpoints()["pod-0"]["load"]
        assert (load["waiting"], load["running"]) == (12, 20) and load["kv_frac"] == pytest.approx(0.75, abs=0.01), load
    ask = ("/v2/models/qwen/generate", lambda i: {"text_input": f"question {i}", "max_tokens": 2}) if dialect == "triton" else \
        ("/v1/chat/completions", lambda i: chat_body(f"question {i}"))
    pods = [world.line_of(http("POST", world.url(ask[0]), ask[1](i)))["pod"] for i in range(6)]
    assert set(pods) == {"pod-1"} or not told
    warned = [e for e in world.gw.lines if '"level":"warn"' in e and ("runtime" in e or RUNTIME in e)]
    assert bool(warned) == (how == "detected" and runtime != "vllm"), warned
    setting = next(s for k, s in world.settings().items() if (RUNTIME in k if how != "policy" else "modelServerRuntime" in k))
    assert setting["value"] == (runtime if how != "detected" else "vllm"), setting


def test_wrong_runtime_is_told(world):  # noqa: F811
    """An annotation that says another kind of server than there is: a warning; requests are served all the same."""
    for i in range(2):
        world.server(f"pod-{i}", "--dialect", "sglang", "--enable-metrics", *FAST)
    world.start_pool({RUNTIME: "vllm"})
    wait_for(lambda: [e for e in world.gw.lines if '"level":"warn"' in e and RUNTIME in e], 5, what="a warning")
    assert world.chat().status == 200
    world.annotate({RUNTIME: "sglang"})
    world.fix_metrics("pod-0", waiting=7, running=1)


def test_policy_wins_over_annotations(world):  # noqa: F811
    """B20, B28, X2: the policy's runtime and rule count, the difference is warned about; a policy of an unknown pool has no effect and says so."""
    world.server("pod-0", "--dialect", "sglang", "--enable-metrics", *FAST)
    world.start(manifests.pool(annotations={RUNTIME: "vllm"}), manifests.route(), single("sglang", **PREFIX_POLICY), policy(pool="nowhere", name="lost"))
    world.fix_metrics("pod-0", waiting=3, running=1)
    lines = [world.line(lambda: world.complete(long_text(1)))[0] for _ in range(2)]
    assert lines[1]["prefix_hit_bytes"] > 1000
    warnings = [e for e in world.gw.lines if '"level":"warn"' in e]
    assert any(RUNTIME in e and "sglang counts" in e for e in warnings) and any("nowhere" in e for e in warnings), warnings
    world.apply(manifests.pool(annotations={RUNTIME: "sglang"}), manifests.route())
    assert all(world.line(lambda: world.complete(long_text(2)))[0]["prefix_hit_bytes"] == 0 for _ in range(2)), "least load again"


def test_tracking_is_served_by_the_estimate(world):  # noqa: F811
    """X2, B27: mode tracking loads, is warned about, and prefixes are estimated; no server is asked for events."""
    world.server("pod-0", *FAST)
    precise = {"trafficPolicy": {"prefixCache": {"mode": "tracking", "trackingConfig": {"indexerConfig": {"tokenProcessorConfig": {"blockSize": 16, "hashSeed": "0"}}}}}}
    world.start(manifests.pool(), manifests.route(), single(**precise))
    assert any('"level":"warn"' in e and "tracking" in e for e in world.gw.lines)
    lines = [world.line(lambda: world.complete(long_text(1)))[0] for _ in range(2)]
    assert lines[1]["prefix_hit_bytes"] > 1000
    world.apply(manifests.pool(), manifests.route(), single(**PREFIX_POLICY))
    assert world.line(lambda: world.complete(long_text(1)))[0]["prefix_hit_bytes"] > 1000, "the index stays"


def test_active_ports_of_a_pod(world):  # noqa: F811
    """X31: a pod with two ports and the annotation "8000": the other one gets nothing."""
    world.server("pod-0", *FAST)
    other = world._sim("--model", "/models/qwen", "--served-model-name", "qwen", "--pod-name", "pod-0-b", *FAST, ip=world.servers["pod-0"].ip, port=8001,
                       binary=world._binary)
    pool = {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": manifests.meta(manifests.POOL),
            "spec": {"selector": {"matchLabels": manifests.LABELS}, "targetPorts": [{"number": 8000}, {"number": 8001}],
                     "endpointPickerRef": {"name": "epp", "port": {"number": 9002}}}}
    route = httproute(rule({"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": manifests.POOL}, matches=[path("/")]))
    world.start(pool, route)

    def asked():
        return {world.line_of(world.chat(f"{i}"))["address"].rsplit(":", 1)[1] for i in range(10)}

    assert asked() == {"8000", "8001"}
    pod = manifests.pod("pod-0", world.servers["pod-0"].ip)
    pod["metadata"]["annotations"] = {"inference.networking.k8s.io/active-ports": "8000"}
    before = http("GET", f"{other.control}/sim/requests").json()["total"]
    world.apply(pod, file="pods")
    assert asked() == {"8000"}
    assert http("GET", f"{other.control}/sim/requests").json()["total"] == before


# --- the policy object changes -------------------------------------------------------------------------------------------------


def pairs(s, texts):
    """[(prefill pod, decode pod)] of one request each, and their lines."""
    out = []
    for t in texts:
        answer = s.chat(t)
        assert answer.status == 200, answer.text
        out.append(s.line(answer))
    return [(e["prefill_pod"], e["pod"]) for e in out], out


@pytest.mark.parametrize("roles", [("prefill",), ("decode",), ("prefill", "decode")])
def test_policy_refs(split, roles):
    """B25, B26: prefillPolicyRef and decodePolicyRef each by itself, taken away and given again: the same prompt stays on one endpoint of that role."""
    refs = {f"{r}PolicyRef": "prefixCache" for r in roles}
    s = split("bootstrap", pd={**PREFIX_POLICY, **refs})
    base = (manifests.pool(), manifests.route())
    for k in range(3):
        with_refs = k % 2 == 0
        if k:
            s.w.apply(*base, policy(**({**PREFIX_POLICY, **refs} if with_refs else {})))
        text = long_text(50 + k)
        seen, lines = pairs(s, [text] * 8)
        for i, (role, hit) in enumerate((("prefill", "prefill_hit_bytes"), ("decode", "prefix_hit_bytes"))):
            hits = [e[hit] for e in lines]
            if with_refs and role in roles:
                assert len({p[i] for p in seen}) == 1 and min(hits[1:]) > 1000, (k, role, seen, hits)
            else:
                assert max(hits) == 0, (k, role, seen, hits)
    s.assert_nothing_left()


def test_role_label(split):
    """B22: another pdRoleLabelName with pods to match; a pod without the label is in neither set, gets nothing and is warned about."""
    s = split("bootstrap")
    other = "rbg.workloads.x-k8s.io/role-name"
    names = list(s.w.servers)
    for name in names:
        s.w.labels[name] = {**manifests.LABELS, ROLE: name.split("-")[0], other: "decode" if name.startswith("decode") else "prefill"}
    del s.w.labels["decode-1"][other]
    s.w.sync()
    wait_for(lambda: s.w.gw.config()["generation"] > 1, 5)
    s.w.apply(manifests.pool(), manifests.route(), policy(role=other))
    wait_for(lambda: set(s.endpoints()) == set(names) - {"decode-1"}, 3)
    s.w.forget()
    assert {d for _, d in pairs(s, [long_text(i) for i in range(8)])[0]} == {"decode-0"}
    assert not s.captured("decode-1")
    assert any('"level":"warn"' in e and "decode-1" in e for e in s.gw.lines)
    for name in names:
        s.w.labels[name].pop(other, None)
    s.w.sync()
    wait_for(lambda: not s.endpoints(), 3)
    assert s.chat().status == 503
    s.w.apply(manifests.pool(), manifests.route(), policy())
    wait_for(lambda: set(s.endpoints()) == set(names), 3)
    s.wait_ready()
    assert {d for _, d in pairs(s, [long_text(i) for i in range(8)])[0]} == {"decode-0", "decode-1"}
    s.assert_nothing_left()


@pytest.mark.parametrize("port", [8998, None])
def test_bootstrap_port(world, port):  # noqa: F811
    """B23: what the policy says is what both legs are told, as integers: 34000, then 8998, also where no port is given."""
    for role in ("prefill", "decode"):
        world.server(f"{role}-0", "--dialect", "sglang", "--enable-metrics", "--disaggregation-mode", role, *FAST,
                     *(["--disaggregation-bootstrap-port", "8998"] if role == "prefill" else []), labels=labels(role))
    world.start(manifests.pool(), manifests.route(), policy(port=34000))
    assert world.chat().status == 500, "nobody listens there, and the decode server says so"
    world.apply(manifests.pool(), manifests.route(), policy(port=port))
    assert world.chat().status == 200
    rooms = []
    for name in ("prefill-0", "decode-0"):
        raw = [c["body"] for c in world.captured(name)]
        bodies = [json.loads(b) for b in raw]
        assert [b["bootstrap_port"] for b in bodies] == [34000, 8998]
        assert all(b["bootstrap_host"] == world.servers["prefill-0"].ip for b in bodies)
        assert all(f'"bootstrap_room":{b["bootstrap_room"]}' in t.replace(" ", "") for b, t in zip(bodies, raw)), "an integer as it stands there"
        rooms.append([b["bootstrap_room"] for b in bodies])
    assert rooms[0] == rooms[1] and rooms[0][0] != rooms[0][1] and all(type(r) is int and 0 <= r < 2**63 for r in rooms[0])
    world.gw.assert_idle()


def test_policy_removed_and_added_under_load(split):
    """B4, B21: vLLM servers, the policy taken away and given again while requests run: none is lost; with it two pods get a request, without it one."""
    s = split("nixl", scale=8)
    base = (manifests.pool(), manifests.route())
    texts = iter(range(10**6))
    with Steady(s.w.url(), clients=6, body=lambda i: {k: v for k, v in s.body(long_text(next(texts))).items() if k != "stream"}) as steady:
        for k in range(4):
            s.w.apply(*base, *([policy("vllm")] if k % 2 else []))
            t = steady.mark()
            time.sleep(0.8)
            line = s.line(s.chat(long_text(next(texts))))
            assert ("prefill" in line) == bool(k % 2), line
            wait_for(lambda: len(steady.load.started_since(t)) > 5, 10)
    assert len({r.pod for r in steady.load.results}) == 4, "without it all pods answer"
    s.assert_nothing_left()


def test_policy_removed_from_sglang_halves(split):
    """SGLang's halves cannot serve alone: without the policy their 500 is passed on, with it again they serve; requests under way then end whole."""
    s = split("bootstrap", scale=2)
    base = (manifests.pool(), manifests.route())
    with Load(s.w.url(), clients=6, body=lambda i, stream: s.body(long_text(i), stream, max_tokens=20)) as load:
        wait_for(lambda: len(load.results) > 4, 10)
        removed = load.mark()
        s.w.apply(*base)
        time.sleep(0.5)
        s.w.apply(*base, policy())
        back = load.mark() + 0.3
        time.sleep(1.0)
    early = [r for r in load.results if r.t0 < removed - 0.05 or r.t0 > back]
    assert len(early) > 6 and not [r for r in early if r.outcome != "ok"], [r for r in early if r.outcome != "ok"][:5]
    assert not [r for r in load.results if r.outcome in ("cut", "failed", "silent")]
    s.assert_nothing_left()
