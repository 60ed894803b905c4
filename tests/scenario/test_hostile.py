"""Hostile and odd clients, by raw sockets: each gets a proper 4xx or service, memory stays bounded, the next good request is served."""
import json
import resource
import socket
import threading
import time

import pytest

import manifests
from conftest import fresh_ip, http, parse_metrics, wait_for
from rawhttp import Closed, Raw, Truncated, exchange, post

CHAT = "/v1/chat/completions"
MIB = 1 << 20


def chat_body(text="hello", **more):
    return json.dumps({"model": "qwen", "messages": [{"role": "user", "content": text}], "max_tokens": 2, **more})


GOOD = post(CHAT, chat_body())


def check_alive(c, what=""):
    answers = exchange(c.ip, 8080, GOOD)
    assert c.gw.alive(), what
    assert answers and answers[0].status == 200, f"after {what}: {answers and answers[0].body}"


def captured(c):
    return [r for pod in c.sims for r in c.control(pod, "GET", "/requests").json()["requests"]]


def run_vectors(c, vectors):
    """vectors: (name, bytes, allowed statuses of the first answer, number of answers or None). All failures are told at once."""
    wrong = []
    for name, data, statuses, count in vectors:
        answers = exchange(c.ip, 8080, data, timeout=5)
        got = [a.status for a in answers]
        if not got or got[0] not in statuses:
            wrong.append(f"{name}: got {got}, want {statuses}")
        elif count is not None and len(got) != count:
            wrong.append(f"{name}: {len(got)} answers {got}, want {count}")
        elif got[0] == 400 and "error" not in answers[0].body.decode():
            wrong.append(f"{name}: no error object: {answers[0].body}")
        if not c.gw.alive():
            wrong.append(f"{name}: the gateway died")
            break
    assert not wrong, "\n".join(wrong)
    check_alive(c, "the vectors")


def h(*lines, body=b""):
    return "\r\n".join([*lines, "", ""]).encode("latin1") + body


SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
P = f"POST {CHAT} HTTP/1.1"
H = "Host: a"
J = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


def smuggling_vectors():
    b = chat_body().encode()
    n = f"Content-Length: {len(b)}"
    one = f"{len(b):x}".encode() + b"\r\n" + b + b"\r\n0\r\n\r\n"
    bad = {400}
    v = [
        ("CL and TE", h(P, H, J, "Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED), bad, 1),
        ("TE and CL", h(P, H, J, CHUNKED, "Content-Length: 4", body=b"5c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), bad, 1),
        ("two CL, different", h(P, H, J, "Content-Length: 0", n, body=b), bad, 1),
        ("two CL, equal", h(P, H, J, n, n, body=b), bad, 1),
        ("CL list", h(P, H, J, f"Content-Length: {len(b)}, {len(b)}", body=b), bad, 1),
        ("two TE", h(P, H, J, CHUNKED, "Transfer-Encoding: identity", body=one), bad, 1),
        ("TE list", h(P, H, J, "Transfer-Encoding: chunked, identity", body=one), {400, 501}, 1),
        ("TE gzip, chunked", h(P, H, J, "Transfer-Encoding: gzip, chunked", body=one), {400, 501}, 1),
        ("TE xchunked", h(P, H, J, "Transfer-Encoding: xchunked", body=one), {400, 501}, 1),
        ("TE vertical tab", h(P, H, J, "Transfer-Encoding: \x0bchunked", body=one), {400, 501}, 1),
        ("TE quoted", h(P, H, J, 'Transfer-Encoding: "chunked"', body=one), {400, 501}, 1),
        ("TE with blank before colon", h(P, H, J, "Transfer-Encoding : chunked", body=one), bad, 1),
        ("CL with blank before colon", h(P, H, J, f"Content-Length : {len(b)}", body=b), bad, 1),
        ("TE folded", h(P, H, J, "Transfer-Encoding:", " chunked", body=one), bad, 1),
        ("folded header", h(P, H, J, "X: a", " b", n, body=b), bad, 1),
        ("TE in 1.0", h(f"POST {CHAT} HTTP/1.0", H, J, CHUNKED, body=one), bad, 1),
        ("TE hidden behind bare LF", h(P, H, J, "X: a\nTransfer-Encoding: chunked", n, body=b), bad, 1),
        ("TE hidden behind bare CR", h(P, H, J, "X: a\rTransfer-Encoding: chunked", n, body=b), bad, 1),
        ("NUL in value", h(P, H, J, "X: a\0b", n, body=b), bad, 1),
        ("NUL in name", h(P, H, J, "X\0: a", n, body=b), bad, 1),
        ("non-token name", h(P, H, J, "X(y): a", n, body=b), bad, 1),
        ("empty name", h(P, H, J, ": a", n, body=b), bad, 1),
        ("no colon", h(P, H, J, "Content-Length 5", n, body=b), bad, 1),
        ("leading blank", h(P, " " + H, J, n, body=b), bad, 1),
        ("bare LF lines", h(P, H, J, n, body=b).replace(b"\r\n", b"\n"), bad, 1),
        ("no Host", h(P, J, n, body=b), bad, 1),
        ("two Hosts", h(P, H, "Host: b", J, n, body=b), bad, 1),
        ("empty Host", h(P, "Host:", J, n, body=b), bad, 1),
        ("Host with a path", h(P, "Host: a/b", J, n, body=b), bad, 1),
        ("Host with user", h(P, "Host: u@a", J, n, body=b), bad, 1),
        ("HTTP/1.2", h(f"POST {CHAT} HTTP/1.2", H, J, n, body=b), {400, 505}, 1),
        ("HTTP/2.0", h(f"POST {CHAT} HTTP/2.0", H, J, n, body=b), {400, 505}, 1),
        ("HTTP/9", h(f"POST {CHAT} HTTP/9", H, J, n, body=b), {400, 505}, 1),
        ("http/1.1", h(f"POST {CHAT} http/1.1", H, J, n, body=b), bad, 1),
        ("no version", h(f"GET {CHAT}", H), bad, 1),
        ("two blanks", h(f"POST  {CHAT} HTTP/1.1", H, J, n, body=b), bad, 1),
        ("tab in request line", h(f"POST\t{CHAT} HTTP/1.1", H, J, n, body=b), bad, 1),
        ("blank in target", h("GET /a b HTTP/1.1", H), bad, 1),
        ("control character in target", h("GET /a\x01b HTTP/1.1", H), bad, 1),
        ("fragment in target", h("GET /v1/models#x HTTP/1.1", H), {400, 404}, None),
        ("percent nonsense", h("GET /v1/%zz HTTP/1.1", H), {400, 404}, None),
        ("percent NUL", h("GET /v1/%00 HTTP/1.1", H), {400, 404}, None),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}, 1),
        ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), bad, 1),
        ("binary noise", bytes(range(256)) * 3 + b"\r\n\r\n", bad, 1),
        ("CONNECT", h("CONNECT a:443 HTTP/1.1", "Host: a:443"), {400, 405, 501}, None),
        ("TRACE", h("TRACE / HTTP/1.1", H), {400, 405, 501}, None),
        ("user in absolute target", h("GET http://u:p@a/v1/models HTTP/1.1", H), bad, 1),
    ]
    for cl in ("+5", "-1", "0x5", "5 5", "5;", "", "٥", "99999999999999999999", "18446744073709551617", "1e3", "5.0"):
        v.append((f"CL {cl!r}", b"\r\n".join([P.encode(), b"Host: a", J.encode(), b"Content-Length: " + cl.encode(), b"", b""]) + b, {400, 413}, 1))
    for name, chunk in (("0x prefix", b"0x5\r\nhello\r\n0\r\n\r\n"), ("plus", b"+5\r\nhello\r\n0\r\n\r\n"), ("minus", b"-5\r\nhello\r\n0\r\n\r\n"),
                        ("empty size", b"\r\nhello\r\n0\r\n\r\n"), ("blank before size", b" 5\r\nhello\r\n0\r\n\r\n"),
                        ("overflow", b"fffffffffffffffff1\r\nhello\r\n0\r\n\r\n"), ("bare LF", b"5\nhello\n0\n\n"),
                        ("no CRLF after data", b"5\r\nhelloX0\r\n\r\n"), ("LF after data", b"5\r\nhello\n0\r\n\r\n"),
                        ("LF in extension", b"5;a=\"x\ny\"\r\nhello\r\n0\r\n\r\n"), ("long extension", b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
                        ("bad trailer", b"5\r\nhello\r\n0\r\nX y\r\n\r\n"), ("endless trailers", b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 4000 + b"\r\n"),
                        ("data shorter than said", b"3\r\nhello\r\n0\r\n\r\n"), ("letters", b"zz\r\nhello\r\n0\r\n\r\n")):
        v.append((f"chunk: {name}", h(P, H, J, CHUNKED, body=chunk), {400, 413, 431}, 1))
    return v


def odd_but_good_vectors():
    b = chat_body().encode()
    n = f"Content-Length: {len(b)}"
    ok = {200}
    half = len(b) // 2
    chunks = f"{half:X};x=y\r\n".encode() + b[:half] + b"\r\n" + f"000{len(b) - half:x}\r\n".encode() + b[half:] + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
    return [
        ("plain", h(P, H, J, n, body=b), ok, 1),
        ("chunked with extension and trailer", h(P, H, J, CHUNKED, body=chunks), ok, 1),
        ("Chunked in capitals", h(P, H, J, "transfer-encoding: CHUNKED", body=chunks), ok, 1),
        ("empty lines before", b"\r\n\r\n" + h(P, H, J, n, body=b), ok, 1),
        ("absolute target", h(f"POST http://a{CHAT} HTTP/1.1", H, J, n, body=b), ok, 1),
        ("absolute target, another Host", h(f"POST http://a{CHAT} HTTP/1.1", "Host: elsewhere", J, n, body=b), ok, 1),
        ("Connection names Content-Length", h(P, H, J, n, "Connection: content-length, host, content-type", body=b), ok, 1),
        ("Upgrade is ignored", h(P, H, J, n, "Connection: upgrade", "Upgrade: websocket", body=b), ok, 1),
        ("h2c is ignored", h(P, H, J, n, "Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: AAA", body=b), ok, 1),
        ("TE trailers", h(P, H, J, n, "TE: trailers", "Connection: TE", body=b), ok, 1),
        ("close", h(P, H, J, n, "Connection: close", body=b), ok, 1),
        ("HTTP/1.0 without Host", h(f"POST {CHAT} HTTP/1.0", J, n, body=b), ok, 1),
        ("HTTP/1.0 keep-alive", h(f"POST {CHAT} HTTP/1.0", H, J, n, "Connection: keep-alive", body=b), ok, 1),
        ("two pipelined", h(P, H, J, n, body=b) * 2, ok, 2),
        ("Host with port", h(P, "Host: a:8080", J, n, body=b), ok, 1),
        ("IPv6 Host", h(P, "Host: [::1]:8080", J, n, body=b), ok, 1),
        ("bytes above 127 in a value", h(P, H, J, n, "X: \xe9\xff", body=b), ok, 1),
        ("GET with a body", h("GET /v1/models HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), {200, 400}, 1),
        ("query", h("GET /v1/models?x=%20&y HTTP/1.1", H), ok, 1),
        ("unknown path", h("GET /v1/nothing-here HTTP/1.1", H), {404}, 1),
        ("not routed", h("GET /elsewhere HTTP/1.1", H), {404}, 1),
        ("unknown method", h("BREW /v1/models HTTP/1.1", H), {404, 405, 501}, None),
        ("OPTIONS *", h("OPTIONS * HTTP/1.1", H), {200, 204, 400, 404, 405}, None),
    ]


@pytest.fixture
def quick(cluster):
    """One fast server behind a route for /v1."""
    return cluster(1, sim_options=("--time-scale", "20"), route={"path": "/v1"})


def test_smuggling_is_refused(quick):
    """What two parsers may read differently gets one 4xx and the connection ends; no second request comes out of it."""
    run_vectors(quick, smuggling_vectors())
    for r in captured(quick):
        assert "smuggled" not in r["path"], r
    quick.gw.assert_idle()


def test_odd_but_good_requests_are_served(quick):
    run_vectors(quick, odd_but_good_vectors())
    for r in captured(quick):
        assert "smuggled" not in r["path"], r
        names = set(r["headers"])
        assert not names & {"connection", "upgrade", "http2-settings", "te", "trailer", "keep-alive", "expect"} - {"connection"}, r["headers"]
        assert r["headers"].get("content-type") == "application/json" or r["method"] != "POST", "kept although Connection names it"
    assert any(r["headers"]["host"] == "a" for r in captured(quick))
    assert not any(r["headers"]["host"] == "elsewhere" for r in captured(quick)), "the target's authority wins"
    quick.gw.assert_idle()


def test_body_vectors(quick):
    """JSON that is none, too deep, ambiguous or badly encoded: 400 with a code; the connection lives on."""
    deep = 100000
    cases = [
        ("not JSON", b"hello", "invalid_json"),
        ("empty", b"", "invalid_json"),
        ("truncated", b'{"model":"qwen","messages":[', None),
        ("truncated later", chat_body().encode()[:-1], "invalid_json"),
        ("trailing text", chat_body().encode() + b"x", "invalid_json"),
        ("two documents", chat_body().encode() * 2, "invalid_json"),
        ("array", b"[]", None),
        ("NaN", b'{"model":"qwen","messages":[],"temperature":NaN}', "invalid_json"),
        ("leading zero", b'{"model":"qwen","messages":[],"n":01}', "invalid_json"),
        ("raw control character", b'{"model":"qwen","messages":[{"role":"user","content":"a\nb"}]}', "invalid_json"),
        ("raw NUL", b'{"model":"qwen","messages":[{"role":"user","content":"a\0b"}]}', "invalid_json"),
        ("single quotes", b"{'model':'qwen'}", "invalid_json"),
        ("comment", b'{"model":"qwen" /* x */}', "invalid_json"),
        ("bad escape", b'{"model":"qwen","x":"\\q"}', "invalid_json"),
        ("deep arrays", b'{"model":"qwen","x":' + b"[" * deep + b"]" * deep + b"}", "too_deep"),
        ("deep objects", b'{"model":"qwen","x":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}", "too_deep"),
        ("deep in messages", b'{"model":"qwen","messages":' + b"[" * deep, None),
        ("deep and unfinished", b"[" * deep, None),
        ("two models", b'{"model":"qwen","messages":[],"model":"other"}', "duplicate_key"),
        ("two models, one escaped", b'{"model":"qwen","messages":[],"mod\\u0065l":"other"}', "duplicate_key"),
        ("two streams", b'{"model":"qwen","stream":false,"messages":[],"stream":true}', "duplicate_key"),
        ("two messages", b'{"model":"qwen","messages":[],"messages":[{"role":"user","content":"x"}]}', "duplicate_key"),
        ("invalid UTF-8", b'{"model":"qwen","messages":[{"role":"user","content":"\xff\xfe"}]}', "invalid_utf8"),
        ("overlong UTF-8", b'{"model":"qwen","messages":[{"role":"user","content":"\xc0\xaf"}]}', "invalid_utf8"),
        ("encoded surrogate", b'{"model":"qwen","messages":[{"role":"user","content":"\xed\xa0\x80"}]}', "invalid_utf8"),
        ("invalid UTF-8 in model", b'{"model":"q\xffwen","messages":[]}', "invalid_utf8"),
        ("cut UTF-8 at the end", b'{"model":"qwen","messages":[{"role":"user","content":"\xe2\x82"}]}', "invalid_utf8"),
        ("model a number", b'{"model":5,"messages":[]}', None),
        ("model a list", b'{"model":["qwen"],"messages":[]}', None),
        ("UTF-16", chat_body().encode("utf-16"), None),
    ]
    wrong = []
    with Raw(quick.ip, 8080) as r:
        for name, body, code in cases:
            r.send(post(CHAT, body))
            a = r.answer("POST")
            got = json.loads(a.body)["error"].get("code")
            if a.status != 400 or (code and got != code):
                wrong.append(f"{name}: {a.status} {a.body[:200]}")
        assert not wrong, "\n".join(wrong)
        r.send(GOOD)
        assert r.answer("POST").status == 200, "the connection lives on"
    served = [("lone surrogate escape", '{"model":"qwen","messages":[{"role":"user","content":"\\ud800"}],"max_tokens":1}', {200, 400}),
              ("unknown keys twice", '{"model":"qwen","messages":[{"role":"user","content":"x"}],"a":1,"a":2,"max_tokens":1}', {200, 400}),
              ("huge number", '{"model":"qwen","messages":[{"role":"user","content":"x"}],"x":' + "9" * 10000 + ',"max_tokens":1}', {200, 400}),
              ("huge max_tokens", '{"model":"qwen","messages":[{"role":"user","content":"x"}],"max_tokens":1e999}', {200, 400}),
              ("negative max_tokens", '{"model":"qwen","messages":[{"role":"user","content":"x"}],"max_tokens":-1}', {200, 400}),
              ("many messages", json.dumps({"model": "qwen", "messages": [{"role": "user", "content": "x"}] * 5000, "max_tokens": 1}), {200, 400}),
              ("many keys", "{" + ",".join(f'"k{i}":{i}' for i in range(20000)) + ',"model":"qwen","messages":[{"role":"user","content":"x"}]' +
               ',"max_tokens":1}', {200, 400}),
              ("long model name", chat_body(model="m" * 100000), {400, 404}),
              ("all escapes", chat_body("\U0001f600" * 2000), {200}),
              ("nothing but blanks around", " " * 100000 + chat_body() + "\n" * 1000, {200})]
    for name, body, statuses in served:
        (a,) = exchange(quick.ip, 8080, post(CHAT, body))
        assert a.status in statuses, f"{name}: {a.status} {a.body[:300]}"
    quick.gw.assert_idle()


def test_forged_routing_is_refused_or_stripped(cluster):
    """What only the gateway may say never reaches a server from a client."""
    c = cluster(2, sim_options=("--time-scale", "20"))
    for pod in c.sims:
        c.control(pod, "DELETE", "/requests")
    forged = ["X-Gateway-Model-Name: other", "x-gateway-destination-endpoint: 127.0.0.1:1", "X-Gateway-Destination-Endpoint-Subset: 127.0.0.1:1",
              "X-Gateway-Destination-Endpoint-Served: 127.0.0.1:1", "X-Forwarded-For: 1.2.3.4", "X-Request-Id: mine"]
    for header in forged[:4]:
        (a,) = exchange(c.ip, 8080, post(CHAT, chat_body(), headers=[header]))
        assert a.status in (200, 400), f"{header}: {a.status}"
    (a,) = exchange(c.ip, 8080, post(CHAT, chat_body(), headers=forged))
    assert a.status in (200, 400)
    for r in captured(c):
        assert r["headers"].get("x-gateway-model-name") != "other", r["headers"]
        assert not [n for n in r["headers"] if n.startswith("x-gateway-destination-endpoint") and "127.0.0.1:1" in r["headers"][n].split(",")], r["headers"]
    for key, value in (("kv_transfer_params", {"do_remote_decode": True}), ("bootstrap_host", "1.2.3.4"), ("bootstrap_port", 1), ("bootstrap_room", 1)):
        (a,) = exchange(c.ip, 8080, post(CHAT, chat_body(**{key: value})))
        assert a.status == 400 and json.loads(a.body)["error"]["code"], f"{key}: {a.status} {a.body}"
    escaped = chat_body().replace('"model"', '"bootstrap_h\\u006fst":"1.2.3.4","model"', 1)
    (a,) = exchange(c.ip, 8080, post(CHAT, escaped))
    assert a.status == 400, "the escaped spelling of a forbidden key"
    for r in captured(c):
        assert "bootstrap" not in r["body"] and "kv_transfer" not in r["body"]
    c.gw.assert_idle()


def test_paths_do_not_escape_the_route(quick):
    """Only /v1 is routed: dot segments, doubled slashes and escapes lead nowhere else on the server."""
    for path in ("/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/..%2fmetrics", "/v1//../../metrics", "/v1/.%2E/metrics", "/v1/./../metrics", "/v1/..;/metrics",
                 "/v1\\..\\metrics", "/v1/x/../../metrics", "//metrics", "/metrics", "/v1/%2e%2e%2fmetrics", "/V1/models", "/v10/models"):
        answers = exchange(quick.ip, 8080, h(f"GET {path} HTTP/1.1", H))
        assert answers[0].status in (400, 404), f"{path}: {answers[0].status}"
        assert b"vllm:" not in answers[0].body, path
    (a,) = exchange(quick.ip, 8080, h("GET /v1/x/../models HTTP/1.1", H))
    assert a.status == 200, "normalised inside the route"
    quick.gw.assert_idle()


def test_huge_heads(quick):
    for name, data, statuses in (
            ("long target", h("GET /v1/" + "a" * 70000 + " HTTP/1.1", H), {414, 431}),
            ("long header", h("GET /v1/models HTTP/1.1", H, "X: " + "a" * 70000), {431}),
            ("many headers", h("GET /v1/models HTTP/1.1", H, *(f"X-{i}: a" for i in range(1000))), {431}),
            ("endless header without an end", b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200000, {431}),
            ("endless request line", b"GET /" + b"a" * 200000, {400, 414, 431}),
            ("endless method", b"A" * 200000, {400, 414, 431, 501}),
            ("30 KB of headers", h("GET /v1/models HTTP/1.1", H, "X: " + "a" * 30000), {200}),
            ("100 headers", h("GET /v1/models HTTP/1.1", H, *(f"X-{i}: a" for i in range(90))), {200})):
        answers = exchange(quick.ip, 8080, data)
        assert answers and answers[0].status in statuses, f"{name}: {[a.status for a in answers]}"
        check_alive(quick, name)
    quick.gw.assert_idle()


def test_slow_heads_and_bodies(sandbox, tmp_path):
    """A head that does not come whole, a body that stops, an idle connection: 408 or a silent end in time; slow but steady is served."""
    f = tmp_path / "all.yaml"
    f.write_text(manifests.dump(*manifests.gateway(), manifests.route(), manifests.pool(), manifests.deployment(replicas=1)))
    scale = 10  # 10 s for a head, 30 s between bytes of a body, 75 s idle
    sb = sandbox(f, options=("--time-scale", str(scale)))

    def timed(data):
        t = time.monotonic()
        with Raw(sb.ip, 8080, timeout=15) as r:
            r.send(data)
            try:
                a = r.answer("POST").status
            except Closed:
                a = None
            assert r.ended(3)
        return a, (time.monotonic() - t) * scale

    out = {}
    threads = [threading.Thread(target=lambda k=k, d=d: out.update({k: timed(d)})) for k, d in
               {"head": GOOD[:30], "body": GOOD[:-5], "idle": b"", "chunk": h(P, H, J, CHUNKED, body=b"5\r\nhel")}.items()]
    for t in threads:
        t.start()
    # A head and a body in single bytes, each in time
    with Raw(sb.ip, 8080) as r:
        r.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(GOOD)):
            r.send(GOOD[i:i + 1])
            if i % 4 == 0:
                time.sleep(0.001)
        assert r.answer("POST").status == 200
    # A head that drips on forever is cut off all the same: the limit is on the whole
    with Raw(sb.ip, 8080) as r:
        r.send(b"GET / HTTP/1.1\r\n")
        t = time.monotonic()
        while time.monotonic() - t < 4:
            if not r.send_lenient(b"X: y\r\n"):
                break
            time.sleep(0.05)
            r.sock.settimeout(0.001)
            try:
                if not r.more() or r.buf:
                    break
            except TimeoutError:
                pass
        assert time.monotonic() - t < 2.5, "a dripping head was not cut off"
    for t in threads:
        t.join()
    assert out["head"][0] == 408 and 9 < out["head"][1] < 20, out
    assert out["body"][0] == 408 and 28 < out["body"][1] < 45, out
    assert out["chunk"][0] == 408 and 28 < out["chunk"][1] < 45, out
    assert out["idle"][0] in (None, 408) and out["idle"][1] < 100, out
    assert http("POST", sb.url(8080, CHAT), json.loads(chat_body())).status == 200
    sb.assert_idle()


def test_large_bodies(quick):
    """Up to 64 MiB is read and passed on; more is 413 at once when announced, and as soon as it is too much when not."""
    text = "word " * (13 * MIB)
    body = chat_body(text[:64 * MIB - len(chat_body(""))]).encode()
    assert len(body) == 64 * MIB
    for data in (post(CHAT, body), post(CHAT, body).replace(f"Content-Length: {len(body)}".encode(), CHUNKED.encode(), 1)
                 .replace(b"\r\n\r\n", b"\r\n\r\n" + f"{len(body):x}\r\n".encode(), 1) + b"\r\n0\r\n\r\n"):
        with Raw(quick.ip, 8080, timeout=60) as r:
            r.send(data)
            a = r.answer("POST")
        assert a.status == 400 and b"context length" in a.body, f"the server's own answer: {a.status} {a.body[:300]}"
    too_long = h(P, H, J, f"Content-Length: {64 * MIB + 1}")
    with Raw(quick.ip, 8080) as r:  # nothing of the body is sent: the answer does not wait for it
        r.send(too_long)
        a = r.answer("POST")
        assert a.status == 413 and json.loads(a.body)["error"]["code"] == "body_too_large"
        assert r.ended()
    with Raw(quick.ip, 8080) as r:  # a client that sends it all the same still gets to read the answer
        r.send(too_long)
        r.send_lenient(b"x" * (4 * MIB))
        assert r.answer("POST").status == 413
    with Raw(quick.ip, 8080, timeout=30) as r:
        r.send(h(P, H, J, CHUNKED))
        piece = b"100000\r\n" + b" " * MIB + b"\r\n"
        sent = 0
        for _ in range(80):
            if not r.send_lenient(piece):
                break
            sent += 1
        try:
            assert r.answer("POST").status == 413
        except Closed:
            assert sent < 80, "80 MiB were taken without an answer"
    with Raw(quick.ip, 8080) as r:
        r.send(h(P, H, J, f"Content-Length: {65 * MIB}", "Expect: 100-continue"))
        assert r.answer("POST", skip_continue=False).status == 413, "no 100 for a body that is refused"
    check_alive(quick, "large bodies")
    quick.gw.assert_idle()
    assert quick.gw.metric("penstock_body_bytes_held") == 0


def test_expect_continue(quick):
    body = chat_body().encode()
    head = h(P, H, J, f"Content-Length: {len(body)}", "Expect: 100-continue")
    with Raw(quick.ip, 8080) as r:
        for _ in range(2):
            r.send(head)
            assert r.head().status == 100
            r.send(body)
            assert r.answer("POST").status == 200
    (a,) = exchange(quick.ip, 8080, h(P, H, J, f"Content-Length: {len(body)}", "Expect: magic", body=body))
    assert a.status == 417
    (a,) = exchange(quick.ip, 8080, h(P.replace("1.1", "1.0"), H, J, f"Content-Length: {len(body)}", "Expect: 100-continue", body=body))
    assert a.status == 200, "1.0 has no expectations"


def test_http10_and_head(quick):
    """HTTP/1.0 gets no chunked framing and a connection that ends with the answer; HEAD gets no body."""
    body = chat_body(stream=True, max_tokens=10).encode()
    with Raw(quick.ip, 8080) as r:
        r.send(h(f"POST {CHAT} HTTP/1.0", J, f"Content-Length: {len(body)}", body=body))
        a = r.answer("POST")
        assert a.status == 200 and a.get("transfer-encoding") is None and a.get("content-length") is None
        assert a.body.rstrip().endswith(b"data: [DONE]") and a.body.startswith(b"data: ")
    with Raw(quick.ip, 8080) as r:
        for path, status in (("/v1/models", {200, 404, 405}), ("/nothing", {404})):
            r.send(h(f"HEAD {path} HTTP/1.1", H))
            a = r.answer("HEAD")
            assert a.status in status, path
        r.send(GOOD)
        assert r.answer("POST").status == 200 and not r.buf, "no stray bytes of a body after HEAD"
    with Raw(quick.ip, 8080) as r:
        r.send(h(P, H, J, f"Content-Length: {len(chat_body())}", "Connection: close") + chat_body().encode())
        a = r.answer("POST")
        assert a.status == 200 and a.closes and r.ended()
    quick.gw.assert_idle()


def test_pipelining(quick):
    """Answers come in order, also of a client that sends a thousand requests before it reads, or never reads."""
    wire = b"".join(h("GET /nothing HTTP/1.1", H) if i % 3 else post(CHAT, chat_body(max_tokens=1 + i % 4)) for i in range(60))
    with Raw(quick.ip, 8080, timeout=20) as r:
        r.send(wire)
        for i in range(60):
            a = r.answer("GET")
            assert a.status == (404 if i % 3 else 200), i
            if i % 3 == 0:
                assert json.loads(a.body)["usage"]["completion_tokens"] == 1 + i % 4
    quick.gw.assert_idle()


def test_pipelining_without_reading(cluster, release_binary):
    """A client that sends requests and never reads an answer is read no further: memory is bounded."""
    c = cluster(1, binary=release_binary)
    check_alive(c)
    before = c.gw.rss_kb()
    r = Raw(c.ip, 8080, timeout=1, rcvbuf=4096)
    one = h("GET /nothing HTTP/1.1", H, "X: " + "a" * 200)
    sent = 0
    while sent < 64 * MIB and r.send_lenient(one * 500):
        sent += len(one) * 500
    assert sent < 64 * MIB, "requests of a client that does not read were taken without bound"
    assert c.gw.rss_kb() - before < 2000
    check_alive(c, "a pipelining client that does not read")
    r.sock.close()
    c.gw.assert_idle()


def test_half_closed_and_vanishing_clients(quick):
    """Connections that end at every byte of a request leave nothing behind."""
    for cut in [1, 10, len(GOOD) // 2, len(GOOD) - 1, *range(20, len(GOOD), 37)]:
        with Raw(quick.ip, 8080) as r:
            r.send(GOOD[:cut])
    check_alive(quick, "cut requests")
    quick.gw.assert_idle()
    wait_for(lambda: quick.gw.metric("penstock_client_connections") <= 1, 5, what="connections to be gone")


# --- servers that answer oddly ---------------------------------------------------------------------------------------------------


class OddServer:
    """A server that sends the bytes it is told to (a list: piece by piece), whatever is asked; its other pages answer 404."""

    def __init__(self, ip, port=8000):
        self.answer, self.close = b"", True
        self.sock = socket.create_server((ip, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        buf = b""
        try:
            while True:
                while b"\r\n\r\n" not in buf:
                    data = conn.recv(65536)
                    if not data:
                        return
                    buf += data
                head, _, buf = buf.partition(b"\r\n\r\n")
                if head.startswith(b"GET /"):
                    conn.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                n = next((int(v) for k, _, v in (x.partition(b":") for x in head.lower().split(b"\r\n")) if k == b"content-length"), 0)
                while len(buf) < n:
                    buf += conn.recv(65536)
                buf = buf[n:]
                for piece in self.answer if isinstance(self.answer, list) else [self.answer]:
                    conn.sendall(piece)
                    time.sleep(0.05 if piece is not self.answer else 0)
                if self.close:
                    return
        except OSError:
            pass
        finally:
            conn.close()


def test_odd_answers_of_servers(gateway, tmp_path):
    """Answers that two parsers may read differently are 502, never passed on; odd but good ones are translated; bytes behind an answer never
    reach another client."""
    ip = fresh_ip()
    server = OddServer(ip)
    f = tmp_path / "world.yaml"
    f.write_text(manifests.world({"pod-0": ip}))
    gw = gateway(f)
    body = b'{"ok":1}'
    ok = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    bad = [
        ("no status line", b"hello\r\n\r\n"), ("HTTP/0.9", body), ("HTTP/2", b"HTTP/2 200 OK\r\n\r\n"), ("status 99", b"HTTP/1.1 99 X\r\n\r\n"),
        ("status 1000", b"HTTP/1.1 1000 X\r\n\r\n"), ("status abc", b"HTTP/1.1 abc X\r\n\r\n"), ("unasked 101", b"HTTP/1.1 101 Switching\r\n\r\n"),
        ("CL and TE", ok + b"Content-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + body + b"\r\n0\r\n\r\n"),
        ("two CL", ok + b"Content-Length: 8\r\nContent-Length: 9\r\n\r\n" + body), ("bad CL", ok + b"Content-Length: 8x\r\n\r\n" + body),
        ("TE gzip", ok + b"Transfer-Encoding: gzip\r\n\r\n" + body), ("bare LF", ok.replace(b"\r\n", b"\n") + b"Content-Length: 8\n\n" + body),
        ("folded", ok + b"X: a\r\n b\r\nContent-Length: 8\r\n\r\n" + body), ("NUL", ok + b"X: a\0\r\nContent-Length: 8\r\n\r\n" + body),
        ("blank before colon", ok + b"Content-Length : 8\r\n\r\n" + body), ("endless head", ok + b"X: y\r\n" * 20000),
        ("endless interim answers", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + b"x\r\n\r\n"),
        ("closed at once", b""), ("closed in the head", ok), ("bad chunk first", ok + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x0a"),
    ]
    good = [
        ("plain", ok + b"Content-Length: 8\r\n\r\n" + body), ("chunked", ok + b"Transfer-Encoding: chunked\r\n\r\n8;x\r\n" + body + b"\r\n0\r\nT: 1\r\n\r\n"),
        ("until the end", ok + b"\r\n" + body), ("HTTP/1.0", ok.replace(b"1.1", b"1.0") + b"\r\n" + body),
        ("interim", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + b"Content-Length: 8\r\n\r\n" + body),
        ("no reason", b"HTTP/1.1 200 \r\nContent-Length: 8\r\n\r\n" + body), ("hop headers", ok + b"Connection: X\r\nX: 1\r\nContent-Length: 8\r\n\r\n" + body),
        ("bytes behind", ok + b"Content-Length: 8\r\n\r\n" + body + ok + b"Content-Length: 6\r\n\r\nPOISON"),
    ]
    cut = [("CL too long", ok + b"Content-Length: 80\r\n\r\n" + body), ("chunks cut", ok + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + body + b"\r\n"),
           ("bad chunk later", ok + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + body + b"\r\nzz\r\nPOISON")]
    wrong = []
    for close in (True, False):
        server.close = close
        for name, data in good:
            if not close and name in ("until the end", "HTTP/1.0"):
                continue
            server.answer = data
            with Raw(gw.ip, 8080, timeout=5) as r:
                for i in range(3):
                    a = r.send(GOOD).answer("POST")
                    if a.status != 200 or a.body != body or a.get("x") or r.buf:
                        wrong.append(f"{name} {i}: {a.status} {a.headers} {a.body}")
    server.close = True
    for name, data in bad:
        server.answer = data
        answers = exchange(gw.ip, 8080, GOOD, timeout=5)
        if [a.status for a in answers] != [502] or b"error" not in answers[0].body:
            wrong.append(f"{name}: {[(a.status, a.body[:80]) for a in answers]}")
    for name, data in cut:
        server.answer = data
        with Raw(gw.ip, 8080, timeout=5) as r:
            try:
                a = r.send(GOOD).answer("POST")
                if a.status != 502:
                    wrong.append(f"{name}: {a.status} ended in order: {a.body}")
            except Truncated as t:
                if b"POISON" in t.answer.body:
                    wrong.append(f"{name}: {t.answer.body}")
    for status in (204, 304):
        server.answer = b"HTTP/1.1 %d X\r\nETag: 1\r\n\r\n" % status
        (a,) = exchange(gw.ip, 8080, GOOD, timeout=5)
        if a.status != status or a.body:
            wrong.append(f"{status}: {a.status} {a.body}")
    server.sock.close()
    assert not wrong, "\n".join(wrong)
    gw.assert_idle()


def test_first_event_in_pieces(gateway, tmp_path):
    """The gateway holds a stream back until its first event is whole: what it held reaches the client in the framing it promised."""
    ip = fresh_ip()
    server = OddServer(ip)
    f = tmp_path / "world.yaml"
    f.write_text(manifests.world({"pod-0": ip}))
    gw = gateway(f)
    pieces = [b"da", b'ta: {"x":', b"1}\n", b"\ndata: [DONE]\n\n"]
    body = b"".join(pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    framings = {
        "until the end": [head + b"\r\n", *pieces],
        "ends before the first event does": [head + b"\r\n", *pieces[:2]],
        "length": [head + b"Content-Length: %d\r\n\r\n" % len(body), *pieces],
        "chunked": [head + b"Transfer-Encoding: chunked\r\n\r\n", *(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces), b"0\r\n\r\n"],
    }
    wrong = []
    for name, server.answer in framings.items():
        want = b"".join(pieces[:2]) if name.startswith("ends") else body
        for request in (GOOD, GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")):
            with Raw(gw.ip, 8080, timeout=5) as r:
                a = r.send(request).answer("POST")
                if a.status != 200 or a.body != want or r.buf:
                    wrong.append(f"{name}: {a.status} {a.headers} {a.body}")
    server.sock.close()
    assert not wrong, "\n".join(wrong)
    gw.assert_idle()


# --- memory: the optimised build ------------------------------------------------------------------------------------------------


def raise_files(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        pytest.skip(f"the hard limit on open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))


def test_ten_thousand_idle_connections(cluster, release_binary):
    """10 000 connections that have made a request and idle: at most 2 KB each; others are served beside them."""
    raise_files(10500)
    c = cluster(1, sim_options=("--time-scale", "20"), binary=release_binary, route={"path": "/v1"})
    check_alive(c)
    before = c.gw.rss_kb()
    request = h("GET /nothing HTTP/1.1", H)
    conns = []
    try:
        for _ in range(10000):
            conns.append(Raw(c.ip, 8080))
            conns[-1].send(request)
            if len(conns) % 500 == 0:
                for r in conns[-500:]:
                    assert r.answer("GET").status == 404
        assert c.gw.metric("penstock_client_connections") >= 10000
        grown = c.gw.rss_kb() - before
        print(f"\n10000 idle connections: {grown} KB, {grown / 10000 * 1024:.0f} bytes each")
        assert grown <= 20000, f"{grown} KB"
        check_alive(c, "10000 idle connections")
        for r in conns[::1000]:
            r.send(request)
            assert r.answer("GET").status == 404
        for r in conns[:5000]:  # half of them begin a head and stop
            r.send(b"GET /nothing HTTP/1.1\r\n")
        time.sleep(0.5)
        assert c.gw.rss_kb() - before <= 20000 + 5000 * 2
        check_alive(c, "5000 unfinished heads")
    finally:
        for r in conns:
            r.sock.close()
    wait_for(lambda: c.gw.metric("penstock_client_connections") <= 2, 10, what="connections to be gone")
    c.gw.assert_idle()


def test_more_connections_than_files(cluster, binary, tmp_path):
    """A low limit on open files: connections beyond it are refused or wait, the process lives, and serves again when there is room."""
    wrapper = tmp_path / "few-files"
    wrapper.write_text(f'#!/bin/sh\nulimit -n 128\nexec {binary} "$@"\n')
    wrapper.chmod(0o755)
    c = cluster(1, sim_options=("--time-scale", "20"), binary=wrapper, route={"path": "/v1"})
    conns = []
    try:
        for _ in range(400):
            try:
                conns.append(Raw(c.ip, 8080, timeout=0.5))
                conns[-1].send(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
            except OSError:
                pass
        served = 0
        for r in conns[:40]:
            try:
                served += r.answer("GET").status == 404
            except (Closed, OSError):
                pass
        assert served > 20, served
        cpu = sum(float(x) for x in open(f"/proc/{c.gw.pid}/stat").read().split()[13:15])
        time.sleep(1)
        cpu = sum(float(x) for x in open(f"/proc/{c.gw.pid}/stat").read().split()[13:15]) - cpu
        assert cpu < 50, "it spins while it has no files left"
        assert c.gw.alive()
    finally:
        for r in conns:
            r.sock.close()
    wait_for(lambda: exchange(c.ip, 8080, GOOD)[:1] and exchange(c.ip, 8080, GOOD)[0].status == 200, 10, step=0.2, what="service")
    c.gw.assert_idle()


def test_reader_that_never_reads(cluster, release_binary):
    """Streams whose clients do not read fill no memory here: the server is held back; others are served; leaving cancels."""
    c = cluster(1, sim_options=("--time-scale", "200"), binary=release_binary)
    check_alive(c)
    before = c.gw.rss_kb()
    body = chat_body(stream=True, max_tokens=30000, ignore_eos=True, n=1)
    conns = [Raw(c.ip, 8080, rcvbuf=4096) for _ in range(20)]
    for r in conns:
        r.send(post(CHAT, body))

    def progress():
        text = http("GET", c.sim("pod-0").base + "/metrics").text
        return sum(v for n, _, v in parse_metrics(text) if n == "vllm:generation_tokens_total")

    wait_for(lambda: progress() > 200000, 30, what="the server to produce")
    grown = c.gw.rss_kb() - before
    print(f"\n20 streams that nobody reads: {grown} KB")
    assert grown < 20 * 300, f"{grown} KB for 20 unread streams"
    check_alive(c, "unread streams")
    for r in conns:
        r.sock.close()
    c.gw.assert_idle()
