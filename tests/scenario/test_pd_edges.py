"""Prefill and decode on different servers: what a server of either role may do to its connection, down to the byte."""
import json
import socket
import threading
import time

import pytest

import manifests
from conftest import fresh_ip, http, wait_for
from rawhttp import Raw, post
from split import labels, long_text, policy, world  # noqa: F401

MODES = ["bootstrap", "nixl"]
OK = b'{"choices":[],"kv_transfer_params":{"do_remote_prefill":true,"remote_host":"h"},"usage":{"prompt_tokens":1,"completion_tokens":1}}'


def answer(body=OK, status="200 OK", extra=b""):
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), len(body), extra, body)


class Server:
    """Every POST is given to react(server, socket, head, what of the body is there), which answers, and returns False to have the connection
    closed. GET is answered with the metrics of a server that is busy answering: a prompt computed there would hold much up."""

    PAGE = b'vllm:num_requests_running{engine="0",model_name="qwen"} 300.0\nvllm:num_requests_waiting{engine="0",model_name="qwen"} 0.0\n'

    def __init__(self, react):
        self.react, self.ip, self.dead, self.n, self.open = react, fresh_ip(), False, 0, []
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.bind((self.ip, 8000))
        self.sock.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            if self.dead:
                c.close()
                return
            self.open.append(c)
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def die(self):
        """As a process that crashes: nothing listens, all connections are reset."""
        self.dead = True
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for c in self.open:
            try:
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                c.shutdown(socket.SHUT_RD)
                c.close()
            except OSError:
                pass

    def _serve(self, c):
        buf = b""
        try:
            while True:
                while b"\r\n\r\n" not in buf:
                    data = c.recv(4096)
                    if not data:
                        return c.close()
                    buf += data
                head, _, buf = buf.partition(b"\r\n\r\n")
                if head.startswith((b"GET", b"HEAD")):
                    c.sendall(answer(self.PAGE)[:None if head[0] == ord("G") else -len(self.PAGE)])
                    continue
                self.n += 1
                if not self.react(self, c, head, buf):
                    return c.close()
                buf = b""
        except OSError:
            pass


def whole(c, head, buf):
    """The rest of the body is read."""
    n = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(buf) < n:
        data = c.recv(65536)
        if not data:
            raise OSError("ended inside the body")
        buf += data
    return buf


def reply(body=OK, wait=0.0):
    def react(server, c, head, buf):
        whole(c, head, buf)
        time.sleep(wait)
        c.sendall(answer(body))
        return True
    return react


@pytest.fixture
def pair(world):  # noqa: F811
    """pair(mode, [react of each prefill server], [react of each decode server]) -> (gateway, prefill servers, decode servers)."""
    made = []

    def start(mode, prefill, decode, options=()):
        servers = {"prefill": [Server(r) for r in prefill], "decode": [Server(r) for r in decode]}
        pods = [manifests.pod(f"{role}-{i}", s.ip, labels(role)) for role, v in servers.items() for i, s in enumerate(v)]
        for v in servers.values():
            made.extend(v)
        for p in servers["prefill"]:
            p.PAGE = p.PAGE.replace(b" 300.0", b" 0.0")
        world.dir.joinpath("all.yaml").write_text(manifests.dump(
            *manifests.gateway(), manifests.route(), manifests.pool(), policy("sglang" if mode == "bootstrap" else "vllm"), *pods))
        gw = world._gateway(world.dir, options=["--workers", "1", *options])
        if mode == "nixl":
            wait_for(lambda: sum((e["load"]["running"] or 0) > 1 for p in gw.endpoints()["pools"] for e in p["endpoints"]) == len(decode), 5)
        return gw, servers["prefill"], servers["decode"]

    yield start
    for s in made:
        s.dead or s.die()


def body(i=1, text=None):
    return {"model": "qwen", "messages": [{"role": "user", "content": text or long_text(i)}], "max_tokens": 5}


def chat(gw, i=1, text=None):
    return http("POST", gw.url(8080, "/v1/chat/completions"), body(i, text), timeout=20)


def hang(server, c, head, buf):
    whole(c, head, buf)
    c.recv(1)
    return False


@pytest.mark.parametrize("mode", MODES)
def test_verdict_before_the_body_was_read(pair, mode):
    """A prefill server refuses while the body is still on its way: its answer is the client's, and nobody else's request follows on that connection."""
    seen = []

    def refuse(server, c, head, buf):
        if server.n > 1:
            whole(c, head, buf)
            c.sendall(answer())
            return True
        c.sendall(answer(b'{"error":{"message":"far too long"}}', "413 Too Large"))
        time.sleep(0.5)
        seen.append(b"")
        while True:
            data = c.recv(65536)
            if not data:
                return False
            seen[0] = (seen[0] + data)[-4096:]

    gw, (p,), _ = pair(mode, [refuse], [hang if mode == "bootstrap" else reply()])
    first = chat(gw, text="x" * (12 << 20))
    assert first.status == 413 and first.json()["error"]["message"] == "far too long", first.text[:300]
    with Raw(gw.ip, 8080) as r:
        r.send(post("/v1/chat/completions", json.dumps(body(7))))
        wait_for(lambda: p.n == 2, 5, what="the next request on a connection of its own")
        if mode == "nixl":
            assert r.answer("POST").status == 200
    assert not any(b"POST /v1/chat" in s for s in seen)
    gw.assert_idle()


@pytest.mark.parametrize("mode", MODES)
def test_verdict_that_is_cut(pair, mode):
    """The connection breaks inside a prefill's refusal: another pair answers, the decode endpoint is not blamed."""
    def cut(server, c, head, buf):
        whole(c, head, buf)
        c.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        time.sleep(0.05)
        return False

    decode = reply(b'{"id":"d"}', wait=0.4)
    gw, (bad, _), (d,) = pair(mode, [cut, reply()], [decode])
    for i in range(8):
        a = chat(gw, i)
        assert a.status == 200 and a.json() == {"id": "d"}, a.text
        if bad.n:
            break
    assert bad.n, "never asked"
    gw.assert_idle()


@pytest.mark.parametrize("mode", MODES)
def test_bodies_that_cannot_be_prepared(pair, mode):
    """SGLang's halves can do nothing with a body that brings no room: it is refused here. vLLM's decode server judges it itself."""
    gw, (p,), (d,) = pair(mode, [reply()], [reply(b'{"id":"d"}')])
    text, path = json.dumps(body()).encode(), gw.url(8080, "/v1/chat/completions")
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        a = http("POST", path, text, headers)
        if mode == "bootstrap":
            assert a.status == 415 and a.json()["error"]["code"] == "unsupported_body", a.text
        else:
            assert a.status == 200 and a.json() == {"id": "d"}
    assert p.n == 0 and d.n == (0 if mode == "bootstrap" else 2)
    gw.assert_idle()


def test_the_answer_of_a_prefill_is_not_compressed(pair):
    """It is read here; only the decode server hears what the client can unpack."""
    heads = {}

    def note(role, content):
        def react(server, c, head, buf):
            whole(c, head, buf)
            heads[role] = head.lower()
            c.sendall(answer(content))
            return True
        return react

    gw, _, _ = pair("nixl", [note("prefill", OK)], [note("decode", b'{"id":"d"}')])
    a = http("POST", gw.url(8080, "/v1/chat/completions"), body(), {"Accept-Encoding": "gzip, br"})
    assert a.status == 200
    assert b"accept-encoding" not in heads["prefill"] and b"accept-encoding: gzip, br" in heads["decode"]


def test_killer_prompt_on_kept_connections(pair):
    """A prompt that crashes prefill servers kills no more of them than one may, also when each dies with a kept connection in its hand."""
    def fragile(server, c, head, buf):
        if b"KILL" in whole(c, head, buf):
            server.die()
            return False
        c.sendall(answer())
        return True

    def decode(server, c, head, buf):
        if b"KILL" in whole(c, head, buf):
            c.recv(1)
            return False
        time.sleep(0.05)  # or the prefill's connection would be cut before it is kept
        c.sendall(answer())
        return True

    gw, prefill, _ = pair("bootstrap", [fragile] * 4, [decode], options=["--scrape-interval", "20s"])
    for i in range(40):
        assert chat(gw, i).status == 200
        if all(p.n for p in prefill):
            break
    assert all(p.n for p in prefill), "each has a kept connection"
    a = chat(gw, text="KILL " + long_text(99))
    assert a.status == 502 and a.json()["error"]["code"] == "upstream_crashed", a.text
    assert sum(p.dead for p in prefill) == 2
    gw.assert_idle()


def test_time_of_a_prefill_is_not_ours(pair):
    """penstock_added_seconds is what the gateway takes; a prefill that comes first takes its time itself."""
    gw, _, _ = pair("nixl", [reply(wait=0.6)], [reply()])
    a = chat(gw)
    assert a.status == 200
    assert gw.metric("penstock_pd_requests_total", prefill="elsewhere") == 1
    assert gw.metric("penstock_added_seconds_count") == 1
    assert gw.metric("penstock_added_seconds_sum") < 0.3
    gw.assert_idle()


@pytest.mark.parametrize("shape", ["chunked", "eof", "continue"])
@pytest.mark.parametrize("mode", MODES)
def test_shapes_of_a_prefill_answer(pair, mode, shape):
    """Chunked with extension and trailer, byte by byte; ended by the connection's end; after 100 and 103; then kept where that is possible."""
    def react(server, c, head, buf):
        whole(c, head, buf)
        if shape == "chunked":
            text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n" + OK[:5] + b"\r\n%x\r\n" % (len(OK) - 5) + OK[5:] + b"\r\n0\r\nX-T: 1\r\n\r\n"
            for i in range(0, len(text), 7):
                c.sendall(text[i:i + 7])
                time.sleep(0.001)
            return True
        if shape == "eof":
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + OK)
            return False
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.02)
        c.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer())
        return True

    gw, (p,), _ = pair(mode, [react], [reply(b'{"id":"d"}', wait=0.1)])
    for i in range(3):
        a = chat(gw, i)
        assert a.status == 200 and a.json() == {"id": "d"}, a.text
    assert p.n == 3 and gw.metric("penstock_prefill_failures_total") == 0
    assert gw.metric("penstock_pd_requests_total", prefill="elsewhere") == 3
    gw.assert_idle()


@pytest.mark.parametrize("mode,what", [(m, w) for m in MODES for w in ("101", "no http", "closed")] + [("nixl", "too large")])
def test_prefill_that_makes_no_sense(pair, mode, what):
    """What is no answer to the request: another pair or the decode endpoint answers; nothing is left."""
    def react(server, c, head, buf):
        whole(c, head, buf)
        if what == "101":
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        elif what == "no http":
            c.sendall(b"hello\r\n\r\n")
        elif what == "too large":
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (9 << 20) + b" " * (9 << 20))
        else:
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            return False
        c.recv(1)
        return False

    gw, (p, _), _ = pair(mode, [react, reply()], [reply(b'{"id":"d"}', wait=0.3)])
    for i in range(8):
        a = chat(gw, i)
        assert a.status == 200 and a.json() == {"id": "d"}, a.text
        if p.n:
            break
    assert p.n == 1
    assert gw.metric("penstock_prefill_failures_total", then="pair" if mode == "bootstrap" else "decode") == 1
    gw.assert_idle()


def test_decode_answers_before_the_prefill_has_its_body(pair):
    """The body is given back when the answer begins: a leg that is still being sent ends there."""
    ended = []

    def slow(server, c, head, buf):
        if server.n > 1:
            whole(c, head, buf)
            c.sendall(answer())
            return True
        wait_for(lambda: done, 10)
        try:
            while c.recv(1 << 20):
                pass
        except ConnectionError:
            pass
        ended.append(True)
        return False

    done = []
    gw, (p,), (d,) = pair("bootstrap", [slow], [reply(b'{"id":"d"}')])
    a = chat(gw, text="x" * (12 << 20))
    assert a.status == 200 and a.json() == {"id": "d"}
    done.append(True)
    wait_for(lambda: ended, 5, what="the end of the leg")
    assert chat(gw, 2).status == 200
    gw.assert_idle()


def test_kept_connections_that_are_stale(pair):
    """Both servers close kept connections just as they are used again: the same servers get the request on connections of their own."""
    def once(server, c, head, buf):
        if c in seen:
            return False
        whole(c, head, buf)
        seen.append(c)
        time.sleep(0.05 if server.PAGE.find(b" 300.0") > 0 else 0)
        c.sendall(answer(b'{"id":"d"}'))
        return True

    seen = []
    gw, (p,), (d,) = pair("bootstrap", [once], [once])
    for i in range(6):
        a = chat(gw, i)
        assert a.status == 200 and a.json() == {"id": "d"}, a.text
    assert gw.metric("penstock_retries_total") == 0 == gw.metric("penstock_prefill_failures_total")
    assert gw.metric("penstock_upstream_failures_total") == gw.metric("penstock_upstream_failures_total", kind="stale_conn") > 4
    gw.assert_idle()


def test_client_that_pauses(pair):
    """It does not read for a while: the decode server is held, the prefill's answer is read all the same, and the rest comes when it reads."""
    def stream(server, c, head, buf):
        whole(c, head, buf)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % (32 << 20))
        for _ in range(32):
            c.sendall(b"data: " + b"x" * ((1 << 20) - 8) + b"\n\n")
        sent.append(time.monotonic())
        return True

    sent = []
    gw, (p,), (d,) = pair("bootstrap", [reply(wait=0.5)], [stream])
    with Raw(gw.ip, 8080, rcvbuf=65536) as r:
        r.send(post("/v1/chat/completions", json.dumps({**body(3), "stream": True})))
        time.sleep(1.2)
        assert not sent, "the decode server is held"
        before = gw.metric("penstock_prefill_seconds_count")
        t = time.monotonic()
        assert r.head().status == 200
        n = len(r.buf)
        while n < 32 << 20:
            n += len(r.sock.recv(1 << 20)) or pytest.fail(f"ended after {n} bytes")
    assert n == 32 << 20 and sent[0] >= t
    assert before == 1 and gw.metric("penstock_prefill_failures_total") == 0
    gw.assert_idle()


@pytest.mark.parametrize("mode", MODES)
def test_client_of_http_1_0(pair, mode):
    """Its answer ends with the connection; both legs are sent as ever."""
    def stream(server, c, head, buf):
        whole(c, head, buf)
        time.sleep(0.1)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        time.sleep(0.05)
        c.sendall(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return True

    gw, (p,), (d,) = pair(mode, [reply()], [stream])
    data = post("/v1/chat/completions", json.dumps({**body(3), "stream": True})).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with Raw(gw.ip, 8080) as r:
        r.send(data)
        a = r.answer("POST")
    assert a.status == 200 and a.closes and a.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert (p.n, d.n) == (1, 1)
    for method in ("HEAD", "GET"):
        with Raw(gw.ip, 8080) as r:
            r.send(f"{method} /version HTTP/1.1\r\nHost: example.com\r\n\r\n")
            assert r.answer(method).status == 200
    assert (p.n, d.n) == (1, 1)
    gw.assert_idle()
