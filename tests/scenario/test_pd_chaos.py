"""Everything at once to a pool of prefill and decode servers: faults of all kinds at all points, clients that leave, a queue, settings that change,
servers whose role changes, the pool split and not, there and not. Whatever happens meanwhile, each client gets one end, and nothing is left."""
import collections
import json
import random
import socket
import struct
import threading
import time

import pytest

import manifests
from conftest import http, wait_for
from load import Load
from rawhttp import Closed, Raw, Truncated, post
from split import PREFIX_POLICY, RUNTIME, labels, long_text, policy, split, world  # noqa: F401
from waiting import ON, THRESHOLD, TTL

SECONDS = 25
QUEUE = {**ON, TTL: "2s", THRESHOLD: "1"}
KINDS = ("kill", "refuse", "hang", "slow", "reset", "garbage", "status")
POINTS = ("now", "before", "after_body", "after_head", "mid_stream", "probe")
# What a client may be told: faults of servers, a queue that is full, a pool that is not there, a server asked for what its role cannot do.
STATUSES = (400, 429, 500, 502, 503, 504)


class Rude(threading.Thread):
    """Clients that leave: before the head, inside the body, while they wait, inside the answer; in order or with a reset. Some read slowly."""

    def __init__(self, s, seed):
        super().__init__(daemon=True)
        self.s, self.rng, self.stopping, self.n = s, random.Random(seed), threading.Event(), 0

    def run(self):
        while not self.stopping.is_set():
            try:
                self.once()
            except (OSError, Closed, Truncated, AssertionError):
                pass
            self.n += 1

    def once(self):
        r = self.rng
        wire = post("/v1/chat/completions", json.dumps(self.s.body(long_text(r.randrange(50), r.choice((200, 1500, 60000))), r.random() < 0.7,
                                                                   max_tokens=r.choice((1, 20, 200)))))
        if r.random() < 0.15:
            wire = wire.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        with Raw(self.s.ip, 8080, timeout=1.5, rcvbuf=4096 if r.random() < 0.2 else None) as raw:
            if r.random() < 0.2:
                raw.send_lenient(wire[:r.randrange(len(wire))])
            else:
                raw.send_lenient(wire * r.choice((1, 1, 1, 2)))
                how = r.random()
                if how < 0.3:
                    raw.head()
                elif how < 0.5:
                    raw.answer("POST")
            time.sleep(r.random() * 0.1)
            if r.random() < 0.5:
                raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Chaos:
    def __init__(self, s, seed):
        self.s, self.rng, self.done = s, random.Random(seed), collections.Counter()
        self.pd, self.is_split, self.queue, self.there = {}, True, QUEUE, True

    def objects(self):
        there = (manifests.pool(annotations=self.queue), *((policy(RUNTIME[self.s.mode], **self.pd),) if self.is_split else ()))
        self.s.w.put("objects", manifests.route(timeout="8s"), *(there if self.there else ()))

    def fault(self):
        r = self.rng
        self.s.fault(r.choice(list(self.s.w.servers)), kind=r.choice(KINDS), at=r.choice(POINTS), count=r.choice((1, 3, 20)), factor=10,
                     duration_ms=r.choice((2000, 8000)), status=r.choice((400, 404, 429, 500, 503)))

    def well(self):
        self.s.fault(self.rng.choice(list(self.s.w.servers)), kind="none")

    def refs(self):
        refs = {k: "prefixCache" for k in ("prefillPolicyRef", "decodePolicyRef") if self.rng.random() < 0.6}
        self.pd = {**PREFIX_POLICY, **refs} if refs else {}
        self.objects()

    def unsplit(self):
        """For a moment: SGLang's servers of one role answer nothing by themselves."""
        for self.is_split in (False, True):
            self.objects()
            time.sleep(0.3)

    def queueing(self):
        self.queue = {} if self.queue else QUEUE
        self.objects()

    def gone(self):
        for self.there in (False, True):
            self.objects()
            time.sleep(0.1)

    def swap(self):
        """One of each role change places, and soon back again."""
        a, b, v = self.rng.choice(self.s.role("prefill")), self.rng.choice(self.s.role("decode")), self.s.w.labels
        for _ in range(2):
            v[a], v[b] = v[b], v[a]
            self.s.w.sync()
            time.sleep(0.4)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (what,) = self.rng.choices((self.fault, self.well, self.refs, self.unsplit, self.queueing, self.gone, self.swap),
                                       (50, 25, 6, 7, 5, 2, 5))
            what()
            self.done[what.__name__] += 1
            time.sleep(self.rng.random() * 0.3)

    def calm(self):
        for name in self.s.w.servers:
            self.s.fault(name, kind="none")
            self.s.w.labels[name] = labels(name.split("-")[0])
        self.pd, self.is_split, self.queue, self.there = {}, True, QUEUE, True
        self.s.w.sync()
        self.objects()
        want = {n: n.split("-")[0] for n in self.s.w.servers}
        wait_for(lambda: {e["pod"]: e.get("role") for p in self.s.gw.endpoints()["pools"] for e in p["endpoints"]} == want, 10, what="roles")
        self.s.wait_ready()
        self.s.busy()


def explain(results):
    return "\n".join(map(repr, results[:12]))


@pytest.mark.parametrize("mode", ["bootstrap", "nixl"])
def test_chaos(split, mode):
    s = split(mode, prefill=3, decode=3, scale=4, annotations=QUEUE,
              options=("--first-byte-timeout", "3s", "--scrape-interval", "300ms", "--connect-timeout", "1s"))
    c, rude = Chaos(s, 11), [Rude(s, k) for k in range(3)]
    with Load(s.w.url(), clients=12, rps=90, body=lambda i, stream: s.body(long_text(i % 40), stream, max_tokens=16)) as load:
        for t in rude:
            t.start()
        c.run(SECONDS)
        for t in rude:
            t.stopping.set()
        for t in rude:
            t.join(10)
        c.calm()
        from_here = load.mark() + 1
        time.sleep(3)
    # each request has one end, in time, and none that looks whole and is not
    got, count = list(load.results), Load.count(load.results)
    print(mode, dict(count), collections.Counter(r.status for r in got), dict(c.done), "rude:", sum(t.n for t in rude))
    assert not load.running and len(got) == load.n
    bad = [r for r in got if r.outcome == "failed" or (r.outcome == "error" and r.status not in STATUSES) or
           (r.outcome == "silent" and "error" not in r.detail)]
    assert not bad, explain(bad)
    late = [r for r in got if r.t1 - r.t0 > 20]
    assert not late, explain(late)
    after = [r for r in got if r.t0 > from_here]
    assert len(after) > 20 and all(r.outcome == "ok" for r in after), f"{len(after)}: {explain([r for r in after if r.outcome != 'ok'])}"
    assert count["ok"] > 100, count
    # nothing is left anywhere
    s.assert_nothing_left(timeout=10)
    assert s.gw.metric("inference_extension_flow_control_queue_size") == 0 == s.gw.metric("inference_objective_running_requests")
    # one line and one count for each
    lines = s.gw.handled()
    twice = [i for i, n in collections.Counter(e["request_id"] for e in lines).items() if n > 1]
    assert not twice, twice[:5]
    assert s.gw.metric("penstock_requests_total") == len(lines)
    ids = {e["request_id"] for e in lines}
    untold = [r for r in got if r.outcome == "ok" and not {v for k, v in r.headers.items() if k.lower() == "x-request-id"} & ids]
    assert not untold, explain(untold)
    # and all of it works as at the start
    before = s.splits()
    for i in range(6):
        assert s.chat(long_text(200 + i), stream=bool(i % 2)).status == 200
    assert s.splits() == before + 6
    s.assert_nothing_left()
    assert http("GET", s.w.url("/v1/models")).status == 200
