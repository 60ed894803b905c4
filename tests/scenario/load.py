"""Load on a gateway from a thread of its own: many concurrent clients, streaming and not, every request's fate recorded."""
import asyncio
import collections
import threading
import time

import aiohttp


class Result:
    __slots__ = ("i", "t0", "t_first", "t1", "status", "outcome", "pod", "stream", "detail", "headers")

    def __init__(self, i, stream):
        self.i, self.stream, self.t0 = i, stream, time.monotonic()
        self.t_first = self.t1 = None
        self.status, self.outcome, self.pod, self.detail, self.headers = 0, None, None, "", {}

    def __repr__(self):
        t = f"{self.t1 - self.t0:.2f}" if self.t1 else "?"
        return f"<#{self.i} {'stream' if self.stream else 'plain'} {self.status} {self.outcome} {self.pod} {t} s {self.detail[:120]}>"


class Load:
    """outcomes: ok; cut (began with 200, then the connection broke); error (an error status); failed (no answer at all); silent (a
    stream that ended in order without its last event, which a client would take for complete)."""

    def __init__(self, url, clients=24, rps=None, max_tokens=20, body=None, streams=True, prompt=None):
        self.url, self.clients, self.rps, self.max_tokens, self.streams = url, clients, rps, max_tokens, streams
        self.make_body = body or self._body
        self.prompt = prompt or (lambda i: f"Question number {i}: what is {i * 7919} divided by {i % 97 + 1}?")
        self.results = []
        self.running = {}
        self.n = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def _body(self, i, stream):
        return {"model": "qwen", "messages": [{"role": "user", "content": self.prompt(i)}], "max_tokens": self.max_tokens, "ignore_eos": True,
                "stream": stream}

    async def _one(self, session, stream):
        self.n += 1
        r = Result(self.n, stream)
        self.running[r.i] = r
        try:
            async with session.post(self.url, json=self.make_body(r.i, stream)) as answer:
                r.status, r.pod, r.headers = answer.status, answer.headers.get("x-inference-pod"), dict(answer.headers)
                tail = b""
                try:
                    async for data, _ in answer.content.iter_chunks():
                        r.t_first = r.t_first or time.monotonic()
                        tail = tail[-65536:] + data
                except (aiohttp.ClientError, ConnectionError) as e:
                    r.outcome, r.detail = "cut", repr(e)
                    return
                if r.status != 200:
                    r.outcome, r.detail = "error", tail.decode("utf-8", "replace")
                elif stream and not tail.rstrip().endswith(b"data: [DONE]"):
                    r.outcome, r.detail = "silent", repr(tail[-200:])
                else:
                    r.outcome = "ok"
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as e:
            r.outcome, r.detail = "failed", repr(e)
        finally:
            r.t1 = time.monotonic()
            del self.running[r.i]
            self.results.append(r)

    async def _client(self, session, k):
        period = self.clients / self.rps if self.rps else 0
        due = time.monotonic() + period * k / self.clients
        turn = k
        while not self.stopping.is_set():
            if period:
                now = time.monotonic()
                if due > now:
                    await asyncio.sleep(due - now)
                due = max(due + period, time.monotonic() - 1)
                if self.stopping.is_set():
                    return
            await self._one(session, bool(self.streams and turn % 2))
            turn += 1
            if not period:
                await asyncio.sleep(0)

    async def _main(self):
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60), timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, k) for k in range(self.clients)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *a):
        self.stop(30 if kind is None else 1)

    def stop(self, timeout=30):
        self.stopping.set()
        self.thread.join(timeout)
        assert not self.thread.is_alive() or timeout < 5, f"requests that never ended: {list(self.running.values())[:5]}"

    def mark(self):
        return time.monotonic()

    def since(self, t):
        """Results that ended after t."""
        return [r for r in list(self.results) if r.t1 >= t]

    def started_since(self, t):
        return [r for r in list(self.results) if r.t0 >= t]

    @staticmethod
    def count(results):
        return collections.Counter(r.outcome for r in results)

    def served_by(self, pod, since):
        """Requests begun after `since` that this pod answered."""
        return [r for r in self.started_since(since) if r.pod == pod and r.outcome == "ok"]
